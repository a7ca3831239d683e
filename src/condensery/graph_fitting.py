"""Ordinary training of networks that classify whole graphs, with the last pass kept and the one that validates best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.data.graph_sets import GraphSet
from condensery.net import Net
from condensery.optimizers import DroppedAdam

__all__ = [
    "FittedGraphs",
    "GraphMetric",
    "GraphRecipe",
    "accuracy",
    "fit_graphs",
    "graph_embeddings",
    "graph_logits",
    "roc_auc",
]

GraphMetric: TypeAlias = Callable[[Tensor, Tensor], float]
"""Of logits ``[g, classes]`` and labels ``[g]``, higher is better: `accuracy` or `roc_auc`."""

_AT_ONCE = 1024  # graphs in one pass of a test


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Share of the graphs whose largest logit is their class's.

    Example:
        >>> accuracy(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        0.5
    """
    return int((logits.argmax(1) == y).sum()) / len(y)


def roc_auc(logits: Tensor, y: Tensor) -> float:
    """Area under the ROC curve: how often a graph of a class has more of its probability than one that is not of it.

    For two classes that of the second; for more the mean over the classes, each against the rest. Ties count half.

    Raises:
        ValueError: If a class is missing among the graphs: the area is then not defined.

    Example:
        >>> roc_auc(torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]), torch.tensor([0, 1, 1]))
        1.0
    """
    scores = logits.double().softmax(1)
    wanted = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = []
    for c in wanted:
        mine = y == c
        positive, negative = int(mine.sum()), int((~mine).sum())
        if not positive or not negative:
            raise ValueError(f"Class {c} has {positive} of {len(y)} graphs; the ROC curve needs some and others.")
        _, place, counts = scores[:, c].unique(return_inverse=True, return_counts=True)
        ranks = (counts.cumsum(0) - (counts - 1) / 2)[place]  # from 1, equal scores have the mean of theirs
        above = ranks[mine].sum() - positive * (positive + 1) / 2
        areas.append(float(above) / (positive * negative))
    return sum(areas) / len(areas)


@dataclass(frozen=True)
class GraphRecipe:
    """How a network for graphs is trained; the defaults are DosCond's test.

    Adam with a rate of 1e-3, 500 passes over the set in batches of 128; half-way a new Adam with a tenth of the rate.

    Args:
        epochs: Passes over the set.
        batch: Graphs in a step.
        lr: Learning rate.
        check_every: Passes between two looks at the validation graphs, where there are any; the last is one as well.

    Raises:
        ValueError: If nothing would be trained or looked at.
    """

    epochs: int = 500
    batch: int = 128
    lr: float = 1e-3
    check_every: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or self.check_every < 1 or self.lr <= 0:
            raise ValueError(f"{self} trains nothing; give at least 1 pass, graph and look, and a rate above 0.")

    def with_epochs(self, epochs: int, *, check_every: int | None = None) -> GraphRecipe:
        """The same recipe of another length, and perhaps with other looks at the validation graphs."""
        return replace(self, epochs=epochs, check_every=self.check_every if check_every is None else check_every)

    def looks(self, epoch: int) -> bool:
        """Whether the validation graphs are looked at after `epoch`, counted from 0."""
        return (epoch + 1) % self.check_every == 0 or epoch + 1 == self.epochs


@dataclass(frozen=True)
class FittedGraphs:
    """What a training leaves.

    Attributes:
        net: The network.
        last: Parameters after the last pass ``[size]``.
        best: Those of the first pass with the best score on the validation graphs; ``None`` without such graphs.
        best_epoch: That pass, counted from 1.
        validation: That score.
        seconds: Time of the training, looks included.
    """

    net: Net
    last: Tensor
    best: Tensor | None = None
    best_epoch: int | None = None
    validation: float | None = None
    seconds: float = 0.0


def fit_graphs(
    net: Net,
    train: GraphSet,
    recipe: GraphRecipe,
    generator: torch.Generator,
    *,
    validate: GraphSet | None = None,
    metric: GraphMetric = accuracy,
) -> FittedGraphs:
    """Train a network on the training graphs of a set, and keep the last parameters and those that validate best.

    Args:
        net: The architecture.
        train: The set: condensed, a coreset or the real one.
        recipe: How.
        generator: A CPU generator for the initialisation and the order of the graphs.
        validate: The real set, whose validation graphs choose a pass.
        metric: What is best on them.
    """
    start = time.perf_counter()
    module = net.at(net.init(generator).to(train.device))
    per_epoch = -(-len(train.train) // recipe.batch)
    half = recipe.epochs // 2 * per_epoch
    optimizer = DroppedAdam(module.parameters(), lr=recipe.lr, drop_after=half or None)
    best: tuple[float, Tensor | None, int | None] = (-1.0, None, None)
    members, whole = train.train.cpu(), train.batch(train.train) if per_epoch == 1 else None
    for epoch in range(recipe.epochs):
        module.train()
        order = members[torch.randperm(len(members), generator=generator)]
        for index in order.split(recipe.batch):
            x, y = (train.batch(index), train.y[index]) if whole is None else (whole, train.train_y)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
        if validate is not None and recipe.looks(epoch):
            score = metric(_logits(module, validate, validate.validation), validate.y[validate.validation])
            if score > best[0]:
                best = score, _flat(module), epoch + 1
    seconds = time.perf_counter() - start
    found = best[0] if best[1] is not None else None
    return FittedGraphs(net, _flat(module), best[1], best[2], found, seconds)


def graph_logits(net: Net, theta: Tensor, data: GraphSet, index: Tensor) -> Tensor:
    """Logits ``[k, classes]`` of graphs `index` by the network with parameters `theta`."""
    return _logits(net.at(theta), data, index)


@torch.no_grad()
def graph_embeddings(net: Net, theta: Tensor, data: GraphSet, index: Tensor) -> Tensor:
    """Pooled features ``[k, width]`` of graphs, for herding and k-center: in the literature a trained network's."""
    embed: Any = net.at(theta).eval()
    return torch.cat([embed.embed(data.batch(part)) for part in index.split(_AT_ONCE)])


@torch.no_grad()
def _logits(module: nn.Module, data: GraphSet, index: Tensor) -> Tensor:
    module.eval()
    return torch.cat([module(data.batch(part)) for part in index.split(_AT_ONCE)])


def _flat(module: nn.Module) -> Tensor:
    """The parameters as one vector ``[size]``, a copy."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])
