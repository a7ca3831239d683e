"""Settings laid over a `Recipe` or a `NodeRecipe`: what a search changes of the way in which networks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from condensery.fitting import Adam, Constant, CrossEntropy, Drop, Recipe, WarmupCosine
from condensery.recipes import Evaluation
from condensery.recipes.graphs import NodeTraining
from condensery.recipes.values import Value

if TYPE_CHECKING:
    from condensery.node_fitting import NodeRecipe

_PARTS: dict[str, set[str]] = {
    "optimizer": {"optimizer", "lr", "momentum", "weight_decay"},
    "schedule": {"schedule", "drop_at", "drop_by", "warmup", "final"},
    "loss": {"loss"},
}
"""The settings that each part of a recipe is made of."""

_OF_IMAGES = {**_PARTS, **{name: {name} for name in ("epochs", "steps", "batch_size", "augment")}}
_OF_NODES = {
    **_PARTS,
    "schedule": {"schedule", "drop_at", "drop_by"},
    "steps": {"steps"},
    "check_every": {"check_every"},
}


def tuned(recipe: Recipe, settings: Mapping[str, Value]) -> Recipe:
    """A recipe with some settings changed, and all else as it is.

    Args:
        recipe: What they are laid over.
        settings: Fields of `Evaluation` by name.

    Raises:
        ValueError: If there is no such field, or a value makes no sense.

    Example:
        >>> tuned(Recipe(epochs=5), {"lr": 0.1, "schedule": "constant"}).optimizer
        Sgd(lr=0.1, momentum=0.9, weight_decay=0.0005)
    """
    lengths = {"epochs": recipe.epochs, "steps": recipe.steps, "batch_size": recipe.batch_size}
    parts = _changed({**lengths, **_plain(recipe)}, settings, Evaluation, _OF_IMAGES)
    if "epochs" in parts and "steps" not in parts:
        parts["steps"] = None  # else the number of steps would count
    changed: Recipe = replace(recipe, **parts)
    return changed


def tuned_nodes(recipe: NodeRecipe, settings: Mapping[str, Value]) -> NodeRecipe:
    """The same for the training of graph networks.

    Args:
        recipe: What they are laid over.
        settings: Fields of `recipes.graphs.NodeTraining` by name.

    Raises:
        ValueError: If there is no such field, or a value makes no sense.

    Example:
        >>> from condensery.node_fitting import NodeRecipe
        >>> tuned_nodes(NodeRecipe(), {"lr": 0.1}).optimizer
        Adam(lr=0.1, betas=(0.9, 0.999), weight_decay=0.0005)
    """
    lengths = {"steps": recipe.steps, "check_every": recipe.check_every}
    changed: NodeRecipe = replace(recipe, **_changed({**lengths, **_plain(recipe)}, settings, NodeTraining, _OF_NODES))
    return changed


def _changed(
    plain: Mapping[str, Any], settings: Mapping[str, Value], training: Any, parts: Mapping[str, set[str]]
) -> dict[str, Any]:
    """The parts of a recipe that settings change.

    Args:
        plain: The recipe in plain words.
        settings: Laid over it.
        training: The dataclass with these words, which makes a recipe.
        parts: The words that each part is made of.
    """
    known = set[str]().union(*parts.values())
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"A recipe has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}.")
    fields = {k: v for k, v in plain.items() if k in known}
    made = training(**{**fields, **settings}).recipe()
    return {part: getattr(made, part) for part, names in parts.items() if names & settings.keys()}


def _plain(recipe: Recipe | NodeRecipe) -> dict[str, Any]:
    """Optimizer, schedule and loss of a recipe in plain words."""
    optimizer, schedule = recipe.optimizer, recipe.schedule
    plain: dict[str, Any] = {
        "optimizer": "adam" if isinstance(optimizer, Adam) else "sgd",
        "lr": optimizer.lr,
        "weight_decay": optimizer.weight_decay,
        "loss": "cross-entropy" if isinstance(recipe.loss, CrossEntropy) else "squared-error",
    }
    if not isinstance(optimizer, Adam):
        plain["momentum"] = optimizer.momentum
    if isinstance(schedule, Drop):
        return plain | {"schedule": "drop", "drop_at": schedule.at, "drop_by": schedule.by}
    if isinstance(schedule, WarmupCosine):
        return plain | {"schedule": "warmup-cosine", "warmup": schedule.warmup, "final": schedule.final}
    assert isinstance(schedule, Constant)
    return plain | {"schedule": "constant"}
