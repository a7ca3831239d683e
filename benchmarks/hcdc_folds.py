"""HCDC's experiment with cross-validation (table 7) at a scale that a CPU affords; called by `hcdc.py`.

The first 1,000 training images of each class of CIFAR-10, averaged to 16 x 16, in 20 folds of 500 drawn class by class:
another partition for each seed. The reference is the cross-validation on all of them: folds ranked by the validation
loss (and accuracy) of a network that was trained on the others. A method is judged by Spearman's correlation of its
ranking with that one over the 20 folds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import condensery as cd
from condensery.batch import Batch
from condensery.bilevel import AutoNeumann, Converged, Momentum
from condensery.data.labelled import Labelled
from condensery.data.whitening import Identity
from condensery.fitting import Recipe, Sgd
from condensery.loop import iterate
from condensery.methods.hcdc import HCDC, Distance, Pieces, Teacher
from condensery.spaces import Folds, in_folds
from condensery.store import load_tree, save_tree

FOLDS, CLASSES, PER_CLASS, SIDE = 20, 10, 1000, 16
WIDTH, DEPTH = 16, 2
# Optimizer steps of a network, 128 images each: 60 passes over the condensed sets' training part, or so, for the
# methods; for early stopping the same number on the real images, as in the paper; for the reference 12 passes.
STEPS = {0.02: 120, 0.04: 240}
REFERENCE = 888
SGD = Sgd(lr=0.03, momentum=0.9, weight_decay=5e-4)
CONDENSING = {"dc": 40, "dm": 100}
# One round of trajectories: two points from each corner, five steps of the set for each.
HCDC_STEPS, REPEAT = 200, 5
TRAJECTORY = {"steps": 120, "every": 60, "repeat": REPEAT, "memory": 40, "points": 4, "lr_lambda": 2.0, "lr_set": 0.03}
BATCH_REAL = 50  # all of a class in a fold

# With a teacher a point is dearer: one at each corner, after 60 steps of the network and 360 of the teacher.
AT_CORNERS = {"steps": 60, "every": 60, "repeat": 8, "memory": 20}


def images(root: Path | None) -> Labelled:
    """The images at a quarter of their pixels, ``[10000, 3, 16, 16]``."""
    data = cd.data.cifar10(root=root)
    chosen = torch.cat([data.train.members(c)[:PER_CLASS] for c in range(CLASSES)])
    x, y = data.train.batch(chosen)
    return Labelled(F.avg_pool2d(x, 32 // SIDE), y, data.train.classes, Identity())


def network() -> cd.Net:
    """No normalisation, so that a minimum of the training loss is one in every direction."""
    return cd.Net(cd.nets.ConvNet(channels=3, classes=CLASSES, size=SIDE, width=WIDTH, depth=DEPTH, norm="none"))


def partition(seed: int) -> Tensor:
    """The fold of each image, int64 ``[10000]``: as many of each class in each."""
    g = torch.Generator().manual_seed(1000 + seed)
    each = torch.arange(FOLDS).repeat(PER_CLASS // FOLDS)
    return torch.cat([each[torch.randperm(PER_CLASS, generator=g)] for _ in range(CLASSES)])


def cross_validate(
    net: cd.Net, train: Batch, fold: Tensor, validation: Sequence[Batch], *, steps: int, seed: int
) -> dict[str, Any]:
    """Losses and accuracies of the folds; all networks start from one draw and see one order of indices."""
    losses, accuracies = [], []
    start = time.process_time()
    for i, held in enumerate(validation):
        rest = fold != i
        recipe = Recipe(steps=steps, batch_size=128, optimizer=SGD)
        trained = cd.fit(net, Batch(train.x[rest], train.y[rest]), recipe, torch.Generator().manual_seed(seed))
        logits = trained(held.x)
        losses.append(F.cross_entropy(logits, held.y).item())
        accuracies.append((logits.argmax(1) == held.y).float().mean().item())
    return {"losses": losses, "accuracies": accuracies, "evaluation_cpu_s": time.process_time() - start}


def own(batch: Batch, fold: Tensor) -> list[Batch]:
    """The examples of each fold."""
    return [Batch(batch.x[fold == i], batch.y[fold == i]) for i in range(FOLDS)]


def reference(data: Labelled, seed: int, *, training_seed: int) -> dict[str, Any]:
    fold, whole = partition(seed), data.whole()
    return cross_validate(network(), whole, fold, own(whole, fold), steps=REFERENCE, seed=training_seed)


def early(data: Labelled, ratio: float, seed: int) -> dict[str, Any]:
    fold, whole = partition(seed), data.whole()
    return cross_validate(network(), whole, fold, own(whole, fold), steps=STEPS[ratio], seed=100 + seed)


def per_class(ratio: float) -> int:
    """Synthetic images of a class in a fold."""
    return round(ratio * PER_CLASS / FOLDS)


def condensed(name: str, data: Labelled, ratio: float, seed: int, work: Path) -> tuple[Batch, Tensor, float]:
    """A set of `ratio` of the images, each fold's part condensed from that fold alone, with its folds and CPU seconds.

    It is kept in a file, because HCDC trains on DC's.
    """
    path = work / f"{name}-{ratio}-seed{seed}.safetensors"
    if not path.exists():
        found = _condense(name, data, ratio, seed)
        work.mkdir(parents=True, exist_ok=True)
        save_tree(path, dict(zip(("x", "y", "fold", "seconds"), found, strict=True)), kind="folds", version=1)
    tree = load_tree(path, kind="folds", version=1)
    return Batch(tree["x"], tree["y"]), tree["fold"], tree["seconds"]


def _condense(name: str, data: Labelled, ratio: float, seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    fold, net, parts = partition(seed), network(), []
    start = time.process_time()
    for i in range(FOLDS):
        real, g = data.subset(fold == i), torch.Generator().manual_seed(10_000 * seed + i)
        set_ = cd.Images.from_real(real, per_class(ratio), g)
        if name == "dc":
            loops = {"outer": max(1, per_class(ratio)), "inner": 1 if per_class(ratio) == 1 else 10}
            method: Any = cd.DC(net, real, g, batch_real=BATCH_REAL, **loops)
        elif name == "dm":
            method = cd.DM(net, real, g, batch_real=BATCH_REAL)
        if name != "random":
            cd.condense(set_, method, steps=CONDENSING[name])
        parts.append(set_())
    x, y = torch.cat([p.x for p in parts]).detach(), torch.cat([p.y for p in parts])
    which = torch.arange(FOLDS).repeat_interleave(len(parts[0].y))
    return x, y, which, time.process_time() - start


def standard(name: str, data: Labelled, ratio: float, seed: int, work: Path) -> dict[str, Any]:
    """Cross-validation on a set whose folds were condensed one by one, or drawn at random."""
    batch, fold, seconds = condensed(name, data, ratio, seed, work)
    found = cross_validate(network(), batch, fold, own(batch, fold), steps=STEPS[ratio], seed=100 + seed)
    return {**found, "condensing_cpu_s": seconds, "images": len(fold)}


def calibrated(
    data: Labelled, ratio: float, seed: int, work: Path, *, shared: bool, teacher: bool, distance: Distance
) -> dict[str, Any]:
    """HCDC: trained on DC's set, validated on one set for each fold, or on one for all.

    Either starts from random real images, one of each class or two, of its fold or of the whole.
    """
    fold, net, whole = partition(seed), network(), data.whole()
    train, few, before = condensed("dc", data, ratio, seed, work)
    start = time.process_time()
    g = torch.Generator().manual_seed(500 + seed)
    if shared:
        images = cd.Images.from_real(data, per_class(ratio), g)
        view = None
    else:
        images, own_fold = of_folds(data, fold, per_class(ratio), g)
        view = in_folds(own_fold)
    learner = Converged(Momentum(0.03), solve=AutoNeumann(5), damping=0.01)
    pieces = [(1.0, in_folds(fold[fold == i])(part)) for i, part in enumerate(own(whole, fold))]
    settings = {"learner": learner, "view": view, "distance": distance, **TRAJECTORY}
    if teacher:
        settings |= {"teacher": instructed(data, fold), **AT_CORNERS}
    objective = HCDC(Folds(net, folds=FOLDS), in_folds(few)(train), Pieces(pieces), g, **settings)
    log = []
    steps = FOLDS * AT_CORNERS["repeat"] if teacher else HCDC_STEPS
    for step in iterate(images, objective, objective.optimizer(images), steps=steps):
        log.append({"loss": step.loss.item(), **{k: float(v) for k, v in objective.figures.items()}})
    seconds = time.process_time() - start
    x, y = (part.detach() for part in images())
    validation = [Batch(x, y)] * FOLDS if shared else own(Batch(x, y), own_fold)
    found = cross_validate(net, train, few, validation, steps=STEPS[ratio], seed=100 + seed)
    return {**found, "condensing_cpu_s": seconds, "train_cpu_s": before, "images": len(few) + len(y), "log": log}


def stand_in(data: Labelled, ratio: float, seed: int, work: Path) -> dict[str, Any]:
    """Networks trained on DC's set, judged on the real folds: what algorithm 1 takes for the real ranking."""
    train, few, seconds = condensed("dc", data, ratio, seed, work)
    real = own(data.whole(), partition(seed))
    found = cross_validate(network(), train, few, real, steps=STEPS[ratio], seed=100 + seed)
    return {**found, "train_cpu_s": seconds, "images": len(few)}


def instructed(data: Labelled, fold: Tensor) -> Teacher:
    """A network trained on the real images in mini-batches of 128, with second derivatives of 500."""

    def draw(g: torch.Generator, size: int = 128) -> Batch:
        index = torch.randint(len(data), (size,), generator=g)
        return in_folds(fold[index])(data.batch(index))

    learner = Converged(Momentum(0.02), solve=AutoNeumann(5), damping=0.01, matrix=False)
    return Teacher(draw, learner, curvature=lambda g: draw(g, 500), stride=6)


def of_folds(data: Labelled, fold: Tensor, count: int, g: torch.Generator) -> tuple[cd.Images, Tensor]:
    """Random images of each class of each fold, sorted by class as `Images` are, and their folds."""
    index, which = [], []
    for c in range(CLASSES):
        for i in range(FOLDS):
            members = data.members(c)[fold[data.members(c)] == i]
            index.append(members[torch.randperm(len(members), generator=g)[:count]])
            which += [i] * count
    return cd.Images.from_index(data, torch.cat(index)), torch.tensor(which)
