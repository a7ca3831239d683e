"""Settings laid over a `Recipe`: what a search changes of the way in which networks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from condensery.fitting import Adam, Constant, CrossEntropy, Drop, Recipe, WarmupCosine
from condensery.recipes import Evaluation
from condensery.recipes.values import Value

_PARTS: dict[str, set[str]] = {
    "epochs": {"epochs"},
    "steps": {"steps"},
    "batch_size": {"batch_size"},
    "optimizer": {"optimizer", "lr", "momentum", "weight_decay"},
    "schedule": {"schedule", "drop_at", "drop_by", "warmup", "final"},
    "loss": {"loss"},
    "augment": {"augment"},
}
"""The settings of `Evaluation` that each part of a recipe is made of."""


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
    unknown = sorted(set(settings) - set().union(*_PARTS.values()))
    if unknown:
        raise ValueError(
            f"A recipe has no setting {unknown[0]!r}; it has {', '.join(sorted(set().union(*_PARTS.values())))}."
        )
    made = Evaluation(**{**_plain(recipe), **settings}).recipe()
    parts = {part: getattr(made, part) for part, names in _PARTS.items() if names & settings.keys()}
    if "epochs" in parts and "steps" not in parts:
        parts["steps"] = None  # else the number of steps would count
    changed: Recipe = replace(recipe, **parts)
    return changed


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The settings of `Evaluation` that a recipe has, but for its augmentation."""
    optimizer, schedule = recipe.optimizer, recipe.schedule
    plain: dict[str, Any] = {
        "epochs": recipe.epochs,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
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
