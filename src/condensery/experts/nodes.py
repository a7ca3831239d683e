"""Record experts on graphs: networks trained on all training nodes at every step, with or without a curriculum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.adjacency import Adjacency, NodeInput
from condensery.experts.files import Layout, Manifest, claim, write_expert
from condensery.experts.node_loss import NodeLoss
from condensery.experts.optimizers import Optimizer, PlainSgd
from condensery.experts.origin import origin_of_nodes
from condensery.experts.record import OnEpoch, check_finite, intact
from condensery.experts.store import Store, open_experts
from condensery.net import Net
from condensery.nets.graph import compressed
from condensery.store import DamagedFile, load_tree, save_tree

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData

__all__ = ["Curriculum", "NodeRecording", "Pace", "node_difficulty", "record_node_expert", "record_nodes"]

_LABELS_KIND = "condensery-expert-labels"
_JUDGE = 2**31  # number of the expert that predicts labels: one that nobody records


class Pace(StrEnum):
    """How the share of the training nodes grows from lambda at step 0 to 1 at step T.

    Attributes:
        LINEAR: ``lambda + (1 - lambda) t / T``.
        ROOT: ``sqrt(lambda^2 + (1 - lambda^2) t / T)``.
        GEOMETRIC: ``lambda^(1 - t / T)``.
    """

    LINEAR = "linear"
    ROOT = "root"
    GEOMETRIC = "geom"


@dataclass(frozen=True)
class Curriculum:
    """Easy training nodes first (GEOM: Zhang et al., ICML 2024, https://arxiv.org/abs/2402.05011).

    Nodes are ordered by `node_difficulty`; step t sees the first ones of them, a share that grows to all at step T.

    Args:
        share: lambda, the share at step 0.
        steps: T.
        pace: How it grows.

    Raises:
        ValueError: If lambda is not above 0 and at most 1, or T is not positive.

    Example:
        >>> curriculum = Curriculum(share=0.25, steps=100)
        >>> [curriculum.count(40, t) for t in (0, 50, 100, 200)]
        [10, 20, 40, 40]
    """

    share: float = 0.75
    steps: int = 1500
    pace: Pace = Pace.GEOMETRIC

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.steps < 1:
            raise ValueError(
                f"A curriculum cannot start with a share of {self.share} and end at step {self.steps}; give a share "
                "above 0 and at most 1, and at least 1 step."
            )

    def count(self, nodes: int, step: int) -> int:
        """How many of `nodes` training nodes step t, from 0, sees: at least one."""
        done, lam = step / self.steps, self.share
        if self.pace is Pace.LINEAR:
            share = lam + (1 - lam) * done
        elif self.pace is Pace.ROOT:
            share = math.sqrt(lam**2 + (1 - lam**2) * done)
        else:
            share = lam ** (1 - done)
        return max(1, int(min(1.0, share) * nodes + 1e-9))


@dataclass(frozen=True)
class NodeRecording:
    """How experts on a graph are trained; the defaults are SFGC's on Cora (Zheng et al., NeurIPS 2023).

    Args:
        epochs: K: an expert has K + 1 points.
        every: Steps from one point to the next; each step sees all training nodes, or those of the curriculum.
        optimizer: How the weights move: `PlainSgd`, or `PlainAdam`.
        curriculum: GEOM's, or ``None``.
        seed: With an expert's number it decides its first weights.

    Raises:
        ValueError: For numbers that are out of range.
    """

    epochs: int = 250
    every: int = 10
    optimizer: Optimizer = field(default_factory=lambda: PlainSgd(lr=0.4))
    curriculum: Curriculum | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.every < 1 or self.seed < 0:
            raise ValueError(
                f"An expert cannot have {self.epochs} points {self.every} steps apart and the seed {self.seed}; "
                "give at least 1, 1 and 0."
            )

    def generator(self, index: int) -> torch.Generator:
        """What is random in expert `index`: the same whoever records it, and in whatever order."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(index,))
        return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))


def node_difficulty(graph: Adjacency, labels: Tensor) -> Tensor:
    """How mixed the labels around each node are: the entropy of the classes of the node and its neighbours, ``[n]``.

    GEOM's measure of homophily. Weights of edges do not count.

    Args:
        graph: Sparse, without self-loops.
        labels: int64 ``[n]``, of all nodes.

    Example:
        >>> path = Adjacency.sparse(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
        >>> [round(d, 3) for d in node_difficulty(path, torch.tensor([0, 0, 1])).tolist()]
        [0.0, 0.637, 0.693]
    """
    assert graph.edges is not None, "real graphs are sparse"
    own = F.one_hot(labels).double()
    counts = own.index_add(0, graph.edges[1], own[graph.edges[0]])
    share = counts / counts.sum(1, keepdim=True)
    return torch.special.entr(share).sum(1)


def record_node_expert(
    net: Net,
    data: GraphData,
    recording: NodeRecording,
    index: int,
    *,
    labels: Tensor | None = None,
    on_epoch: OnEpoch | None = None,
) -> Tensor:
    """Train one expert; arguments as `record_nodes`'.

    Args:
        net: The network.
        data: The graph.
        recording: How.
        index: The expert's number.
        labels: See `record_nodes`.
        on_epoch: Called after each point with how many there are and the parameters ``[p]``.

    Returns:
        Parameters ``[K + 1, p]`` on the CPU: as drawn, and at each point.

    Raises:
        NotFinite: If they stop being finite numbers.
    """
    return _record(_loss(net, data, recording, labels), data, recording, index, on_epoch)


def record_nodes(
    folder: str | Path,
    net: Net,
    data: GraphData,
    recording: NodeRecording,
    *,
    count: int,
    layout: Layout = Layout.FULL,
    labels: Tensor | None = None,
    on_progress: Callable[[float, int], None] | None = None,
) -> Store:
    """Record experts on a graph into a folder, or those of them that it does not hold yet.

    A run that is killed loses the expert in progress and no other; the same call goes on, and gives the same store, bit
    for bit, as one that was never stopped (on the same machine with the same number of threads).

    Args:
        folder: Where; made if it does not exist.
        net: The network.
        data: The graph; experts are trained on its training view, where it is.
        recording: How experts are trained.
        count: How many.
        layout: How they are stored: `Layout.FULL` or `Layout.HALF`.
        labels: Labels of all nodes of the training view, int64 ``[n]``, that the curriculum's difficulties come from.
            By default those of the training nodes, and for the others what a network predicts that was trained like
            an expert but without the curriculum: labels of validation and test nodes are not looked at.
        on_progress: Called at the start and after each point with the number of experts there (a fraction while one is
            in progress) and `count`.

    Returns:
        The first `count` experts of the store, with segments on the device of the data.

    Raises:
        ValueError: If the folder holds experts of something else, naming the first field that differs.
        NotFinite: If an expert's parameters stop being finite numbers.
    """
    if count < 1:
        raise ValueError(f"Cannot record {count} experts; give at least 1.")
    if layout is Layout.CONVEXIFIED:
        raise ValueError("Experts on graphs are not convexified; give Layout.FULL or Layout.HALF.")
    folder = Path(folder)
    sizes = tuple(part.numel() for part in net.layers(torch.empty(net.size)).values())
    origin = origin_of_nodes(net, data, recording, labels)
    manifest = claim(folder, Manifest(origin, layout, None, recording.epochs, sizes))
    _record_missing(folder, manifest, net, data, recording, count, labels, on_progress)
    store = open_experts(folder, count=count).to(data.device)
    assert isinstance(store, Store)
    return store


def _record_missing(
    folder: Path,
    manifest: Manifest,
    net: Net,
    data: GraphData,
    recording: NodeRecording,
    count: int,
    labels: Tensor | None,
    on_progress: Callable[[float, int], None] | None,
) -> None:
    """Record what is not there; as far as the folder's other experts go."""
    missing = [i for i in range(count) if not intact(folder, i)]
    done, last = count - len(missing), manifest.epochs

    def tell(there: float) -> None:
        if on_progress is not None:
            on_progress(there, count)

    tell(done)
    if not missing:
        return
    if recording.curriculum is not None and labels is None:
        labels = _predicted_once(folder, net, data, recording)
    loss = _loss(net, data, recording, labels)

    def told(epoch: int, _: Tensor) -> None:
        if epoch < last:  # that it is done is told once it is written
            tell(done + epoch / last)

    for index in missing:
        write_expert(folder, index, _record(loss, data, recording, index, told, points=last), manifest)
        done += 1
        tell(done)


def _record(
    loss: NodeLoss,
    data: GraphData,
    recording: NodeRecording,
    index: int,
    on_epoch: OnEpoch | None = None,
    *,
    points: int | None = None,
) -> Tensor:
    """Parameters ``[points + 1, p]``."""
    last, curriculum = points or recording.epochs, recording.curriculum
    theta, state = loss.net.init(recording.generator(index), device=data.device), None
    way = torch.empty(last + 1, loss.net.size)
    way[0] = theta
    nodes = len(loss.order)
    for step in range(last * recording.every):
        count = nodes if curriculum is None else curriculum.count(nodes, step)
        theta, state = recording.optimizer.step(theta, partial(loss.gradient, count=count), state)
        epoch, rest = divmod(step + 1, recording.every)
        if rest == 0:
            way[epoch] = theta
            check_finite(way[epoch], index, epoch)
            if on_epoch is not None:
                on_epoch(epoch, theta)
    return way


def _loss(net: Net, data: GraphData, recording: NodeRecording, labels: Tensor | None) -> NodeLoss:
    """The loss with the nodes in the curriculum's order."""
    view = data.training_view()
    if recording.curriculum is None:
        return NodeLoss(net, view, view.train)
    labels = _predicted(net, view, recording) if labels is None else labels.to(view.device)
    difficulty = node_difficulty(view.adjacency, labels)[view.train]
    return NodeLoss(net, view, view.train[difficulty.argsort(stable=True)])


def _predicted_once(folder: Path, net: Net, data: GraphData, recording: NodeRecording) -> Tensor:
    """`_predicted` kept in a store's folder, so that going on with a recording does not cost another training."""
    path = folder / "labels.safetensors"
    try:
        labels: Tensor = load_tree(path, kind=_LABELS_KIND, version=1)["labels"]
    except (FileNotFoundError, DamagedFile):  # what cannot be trusted is made again
        labels = _predicted(net, data.training_view(), recording)
        save_tree(path, {"labels": labels.cpu()}, kind=_LABELS_KIND, version=1)
    return labels


@torch.no_grad()
def _predicted(net: Net, view: GraphData, recording: NodeRecording) -> Tensor:
    """Labels of all nodes: known for the training nodes, a plainly trained network's for the others."""
    plain = NodeRecording(recording.epochs, recording.every, recording.optimizer, None, recording.seed)
    theta = _record(NodeLoss(net, view, view.train), view, plain, _JUDGE)[-1].to(view.device)
    x = NodeInput(compressed(view.x), view.adjacency)
    labels: Tensor = net(theta, x).argmax(1)  # type: ignore[arg-type]
    labels[view.train] = view.train_y
    return labels
