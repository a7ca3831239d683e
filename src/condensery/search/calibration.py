"""Validation images that rank the configurations of a search space as real ones do: HCDC for a space file.

`relaxed` turns the part of a search space that training answers to smoothly into a `spaces.Space`; `build` puts HCDC on
it as a run like any other; `finish` writes the set, which a search is then scored on.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from condensery import nets, runs
from condensery.artifact import Artifact
from condensery.batch import Batch
from condensery.bilevel import Cg, Converged, GaussNewton, Momentum
from condensery.catalog import DataSource
from condensery.data import ImageData
from condensery.evaluate.transfer import prepared_for
from condensery.fitting import CrossEntropy
from condensery.methods.hcdc import HCDC, Distance, Pieces, Sampled, Teacher, together
from condensery.net import Net
from condensery.nets.cells import Supernet, draw_cells
from condensery.search.files import space_to
from condensery.search.images import ImageFamily
from condensery.search.settings import Cells, Config, Float, Infeasible, Settings, When
from condensery.spaces import Cells as CellSpace
from condensery.spaces import Odds, Plain, WeightDecay

if TYPE_CHECKING:
    from condensery.data.labelled import Labelled
    from condensery.recipes import Plan
    from condensery.runs import Folder, Run
    from condensery.spaces import Space

__all__ = ["Agreement", "Calibration", "Relaxed", "build", "fingerprint", "finish", "relaxed"]

Agreement = Distance
"""How far two hypergradients are apart: `together` or `by_point`."""

_PIECE = 500  # real images that a second derivative is taken over at a time
_DRAWS = 50  # for each network that is asked for, before a space is taken to have no more


@dataclass(frozen=True)
class Calibration:
    """How `HCDC` calibrates validation images for a search space, in plain words.

    Args:
        training_steps: T_theta, steps of a trajectory on the training set.
        every: T_lambda, training steps from one point to the next.
        repeat: Steps of the set from one point to the next.
        memory: How many of the last points are kept.
        points: Over how many of them a step is taken.
        lr_lambda: Of the step from one point to the next.
        lr_set: Of the set, by Adam.
        distance: Of hypergradients.
        teacher: Whether the real hypergradients are those of networks trained on the real training images, rather than
            of those trained on the condensed set, as in the paper's algorithm. The paper's costs less, and asks of the
            images only what real validation images do already.
        networks: Networks of the space that stand for all of it, where it has several.
        batch_real: Real validation images at a point; ``None`` for all.
        batch_train: Real training images in a step of the teacher.
        lr_net: Learning rate of the networks.
        momentum: Of the networks.
        weight_decay: Of the networks, where it is not searched.
        terms: Steps of conjugate gradients, at most, in the solves with the Gauss-Newton matrix.
        damping: Added to its diagonal.

    Raises:
        ValueError: For numbers out of range.
    """

    training_steps: int = 100
    every: int = 100
    repeat: int = 10
    memory: int = 6
    points: int = 3
    lr_lambda: float = 0.3
    lr_set: float = 0.01
    distance: Agreement = together
    teacher: bool = True
    networks: int = 8
    batch_real: int | None = None
    batch_train: int = 128
    lr_net: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    terms: int = 10
    damping: float = 0.01

    def __post_init__(self) -> None:
        for name in ("networks", "batch_train", "terms", *(["batch_real"] if self.batch_real is not None else [])):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more.")
        for name in ("lr_lambda", "lr_set", "lr_net"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a rate above 0.")


class Relaxed(NamedTuple):
    """A search space as far as its hyperparameters can be moved smoothly.

    Attributes:
        space: For `HCDC`.
        covers: The settings that it stands for.
        leaves: Those that it does not.
        networks: The configurations of networks that stand for all, if there are several.
    """

    space: Space
    covers: tuple[str, ...]
    leaves: tuple[str, ...]
    networks: tuple[Config, ...]


def relaxed(settings: Settings, family: ImageFamily, count: int, generator: torch.Generator) -> Relaxed:
    """What HCDC moves along of a search space.

    ``eval.weight_decay`` becomes a number of its own, on a logarithmic scale. ``net.code``, the cell of a
    `CellNet`, becomes a supernet whose operations are drawn (`spaces.Cells`), if nothing else of the network is
    searched. Whatever else is searched of networks becomes a list of networks, drawn from the space or, if there
    are no more, all that there are, by their odds (`spaces.Odds`). Other settings of training
    have no part in it: at a minimum the learning rate changes nothing, and optimizers and augmentations are not one
    after the other.

    Args:
        settings: The space, typed (see `ImageFamily.typed`).
        family: What its settings mean.
        count: Networks in such a list.
        generator: Draws them.

    Raises:
        ValueError: If nothing of it can be moved, or a weight decay has no range.
    """
    of_networks = [name for name in settings.parameters if name == "net" or name.startswith("net.")]
    decay = settings.parameters.get("eval.weight_decay")
    covers = (*(["eval.weight_decay"] if decay is not None else []), *of_networks)
    if not covers:
        raise ValueError(
            f"HCDC calibrates for eval.weight_decay and for settings of networks (net, net.NAME), and the space has "
            f"{', '.join(settings.parameters)}; search one of these as well, or use the real validation images."
        )
    configs = _networks(settings, family, of_networks, count, generator)
    if not configs:
        raise ValueError("No network of the space can be built; widen the space.")
    space, weights = _of_networks(settings, family, configs, of_networks, count, generator)
    if decay is not None:
        space = WeightDecay(space, (weights,), *_logarithms(decay.parameter if isinstance(decay, When) else decay))
    leaves = tuple(name for name in settings.parameters if name not in covers)
    return Relaxed(space, covers, leaves, configs if len(configs) > 1 else ())


def build(plan: Plan, data: ImageData, train: Artifact, settings: Settings, *, seed: int = 0) -> tuple[Run, Relaxed]:
    """A run of HCDC: validation images for a search space and a condensed training set.

    Args:
        plan: Of ``hcdc`` (see `recipes.load`).
        data: Where the run is to be; gets the training set's preprocessing.
        train: S_train.
        settings: The search space.
        seed: Of everything random.

    Raises:
        ValueError: If the training set does not fit, or the space has nothing to calibrate for.
    """
    if not isinstance(train.training_recipe().loss, CrossEntropy):
        raise ValueError(
            f"Networks are trained on the set of {train.method} by squared errors, and HCDC trains by the cross "
            "entropy; give a training set of another method, such as dm."
        )
    data, how = prepared_for(train, data), Calibration(**runs.options_of(Calibration, plan.options))
    for_start, for_method, for_space = runs.generators(seed, 3)
    network = runs.build_network(plan.network, data)
    family = ImageFamily(nets.describe(network))
    found = relaxed(family.typed(settings), family, how.networks, for_space)
    validation = runs.working(data.validation)
    images = runs.first_images(plan, Net(network), validation, for_start)
    objective = _objective(how, found, data, validation, train.batch(device=data.train.device), for_method)
    made = {"train": fingerprint(train), "space": json.dumps(space_to(settings))}
    run = runs.Run(plan, data, seed, network, images, objective, objective.optimizer(images), calibration=made)
    return run, found


def finish(run: Run, folder: Folder, source: DataSource, train: Artifact, found: Relaxed) -> Artifact:
    """Write the set with its picture; it keeps the recipe of the training set that it was made for."""
    provenance = {
        **runs.spent_on(folder, run.plan.steps),
        **runs.surroundings(run.plan, run.data, source),
        "calibration": {
            **(run.calibration or {}),
            "covers": list(found.covers),
            "leaves": list(found.leaves),
            "networks": [dict(config) for config in found.networks],
        },
    }
    made = runs.make_artifact(run.plan, run.data, run.result, run.network, seed=run.seed, provenance=provenance)
    artifact = replace(made, recipe=train.training_recipe())
    runs.write(artifact, folder)
    return artifact


def fingerprint(artifact: Artifact) -> dict[str, Any]:
    """A set so that another one of the same name is told from it, plain data."""
    parts = (part.detach().cpu().contiguous().numpy().tobytes() for part in artifact.batch())
    digest = hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()
    return {"method": artifact.method, "images": len(artifact.images.classes), "seed": artifact.seed, "digest": digest}


# --- the space


def _networks(
    settings: Settings, family: ImageFamily, names: list[str], count: int, generator: torch.Generator
) -> tuple[Config, ...]:
    """At most `count` different configurations of networks that can be built, fixed settings among them."""
    fixed = {name: value for name, value in settings.fixed.items() if name == "net" or name.startswith("net.")}
    found: dict[str, Config | None] = {}
    for _ in range(_DRAWS * count if names else 1):
        config = {name: value for name, value in settings.draw(generator).items() if name in names}
        key = json.dumps(config, sort_keys=True)
        if key not in found:
            found[key] = {**fixed, **config} if _can_be_built(family, {**fixed, **config}) else None
        if sum(one is not None for one in found.values()) == count:
            break
    return tuple(one for one in found.values() if one is not None)


def _can_be_built(family: ImageFamily, config: Config) -> bool:
    try:
        family.module(config)
    except Infeasible:
        return False
    return True


def _of_networks(
    settings: Settings,
    family: ImageFamily,
    configs: tuple[Config, ...],
    names: list[str],
    count: int,
    generator: torch.Generator,
) -> tuple[Space, int]:
    """The part of a space that networks are, and its number of weights."""
    code = settings.parameters.get("net.code")
    if names == ["net.code"] and isinstance(code, Cells) and set(code.ops) == set(Cells().ops):
        cell = nets.describe(family.module(configs[0]))
        kept = {name: cell[name] for name in _SUPERNET if name in cell}
        net = Net(Supernet(**kept, sampled=True))
        return CellSpace(net, candidates=draw_cells(count, generator)), net.size
    built = [Net(family.module(config)) for config in configs]
    if len(built) > 1:
        return Odds(built), sum(net.size for net in built)
    return Plain(built[0]), built[0].size


_SKELETON = ("channels", "classes", "size", "width", "cells", "stages")
_SUPERNET = (*_SKELETON, "norm", "activation", "beta", "parametrisation")


def _logarithms(decay: Any) -> tuple[float, float]:
    """The range of a weight decay."""
    if not isinstance(decay, Float) or not decay.high > 0:
        raise ValueError("HCDC moves eval.weight_decay along a range; give it one, as float = [1e-5, 1e-2].")
    return math.log(max(decay.low, 1e-6)), math.log(decay.high)


# --- the method


def _objective(
    how: Calibration,
    found: Relaxed,
    data: ImageData,
    validation: Labelled,
    train: Batch,
    generator: torch.Generator,
) -> HCDC:
    learner = _learner(how, found.space)
    few = how.batch_real is not None and how.batch_real < len(validation)
    return HCDC(
        found.space,
        train,
        Sampled(validation, how.batch_real or 0) if few else Pieces.of(validation.whole(), _PIECE),
        generator,
        learner=learner,
        teacher=_teacher(how, runs.working(data.train), len(train.y), learner) if how.teacher else None,
        steps=how.training_steps,
        every=how.every,
        repeat=how.repeat,
        memory=how.memory,
        points=how.points,
        lr_lambda=how.lr_lambda,
        lr_set=how.lr_set,
        weight_decay=0.0 if "eval.weight_decay" in found.covers else how.weight_decay,
        distance=how.distance,
    )


def _learner(how: Calibration, space: Space) -> Converged:
    """Momentum; a curvature that is positive before training has ended; as a matrix where that is cheaper."""
    matrix = space.size <= 1 + 2 * how.repeat * how.points
    rule, solve = Momentum(how.lr_net, how.momentum), Cg(how.terms)
    return Converged(rule, solve=solve, curvature=GaussNewton, damping=how.damping, matrix=matrix)


def _teacher(how: Calibration, real: Labelled, few: int, learner: Converged) -> Teacher:
    """Trained in mini-batches: the fewer the condensed images, the more steps for each step on these, at most ten."""

    def draw(generator: torch.Generator, size: int = how.batch_train) -> Batch:
        return real.batch(torch.randint(len(real), (size,), generator=generator))

    stride = max(1, min(10, round(how.batch_train / max(1, few))))
    return Teacher(draw, learner, curvature=lambda g: draw(g, max(_PIECE, how.batch_train)), stride=stride)
