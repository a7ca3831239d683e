"""HCDC on Cora: which graph filter is best, asked of condensed graphs; called by `hcdc.py`.

The filters are ``C = I + l1 L + l2 (2 / lambda_max L - I)`` with (l1, l2) in a square (HCDC, appendix G and figure
6), in both layers of a small network. They are judged on a grid of 25, of which condensing sees none: its trajectories
begin at random points. The reference is training on the 140 nodes of the public split, and the loss on its 500
validation nodes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import condensery as cd
from condensery.adjacency import Adjacency, NodeInput
from condensery.batch import Batch
from condensery.bilevel import AdamRule, AutoNeumann, Converged
from condensery.data.graph_pyg import planetoid
from condensery.data.graphs import GraphData
from condensery.graph import FreeAdjacency, Graph, PairwiseMlp, class_counts
from condensery.loop import iterate
from condensery.methods.gcond import GCond
from condensery.methods.hcdc import HCDC, Distance, Pieces, Teacher, by_point
from condensery.nets.graph import SGC, Polynomial, compressed
from condensery.spaces import Filters

NODES, WIDTH, STEPS, DECAY = 70, 32, 100, 5e-4
GRID = [torch.tensor([a, b]) for a in torch.linspace(-1, 1, 5) for b in torch.linspace(-1, 1, 5)]
GCOND_STEPS, HCDC_STEPS = 300, 150
TRAJECTORY = {"steps": 90, "every": 30, "repeat": 5, "memory": 20, "points": 4, "lr_lambda": 0.3, "lr_set": 0.003}


def cora() -> GraphData:
    return planetoid()


def space(data: GraphData) -> Filters:
    with torch.random.fork_rng(devices=[]):
        module = Polynomial(features=data.num_features, classes=data.num_classes, width=WIDTH, depth=2)
    return Filters(cd.Net(module))


def counted(data: GraphData, nodes: Tensor) -> Batch:
    """The whole graph with the labels of some nodes."""
    y = torch.full_like(data.y, -1)
    y[nodes] = data.y[nodes]
    return Batch(NodeInput(compressed(data.x), data.adjacency), y)


def trained(filters: Filters, batch: Batch, lam: Tensor, steps: int, seed: int) -> Tensor:
    """Weights after Adam on a batch under one filter."""
    g = torch.Generator().manual_seed(seed)
    learner = Converged(AdamRule(0.01))

    def loss(theta: Tensor, lam: Tensor) -> Tensor:
        return filters.training(theta, lam, batch, g) + 0.5 * DECAY * theta.square().sum()

    return learner.train(learner.start(filters.init(g)), loss, lam, steps).theta


@torch.no_grad()
def judged(filters: Filters, theta: Tensor, lam: Tensor, batch: Batch) -> tuple[float, float]:
    """Loss and accuracy of the nodes that count."""
    logits, there = filters.logits(theta, lam, batch), batch.y >= 0
    right = (logits.argmax(1) == batch.y)[there].float().mean()
    return filters.validation(theta, lam, batch, torch.Generator()).item(), right.item()


def on_grid(
    filters: Filters, train: Batch, validation: Batch, seed: int, steps: int = STEPS, **more: Batch
) -> dict[str, Any]:
    """Losses and accuracies of every filter of the grid; `more` batches likewise."""
    start = time.process_time()
    names = {"": validation, **{f"{name}_": batch for name, batch in more.items()}}
    found: dict[str, Any] = {f"{name}{what}": [] for name in names for what in ("losses", "accuracies")}
    for lam in GRID:
        theta = trained(filters, train, lam, steps, seed)
        for name, batch in names.items():
            loss, accuracy = judged(filters, theta, lam, batch)
            found[f"{name}losses"].append(loss)
            found[f"{name}accuracies"].append(accuracy)
    return {**found, "evaluation_cpu_s": time.process_time() - start}


def reference(data: GraphData, seed: int) -> dict[str, Any]:
    """On the real graph; the test nodes are scored as well, to say what the chosen filter is worth."""
    parts = [counted(data, part) for part in data.split]
    return on_grid(space(data), parts[0], parts[1], seed, test=parts[2])


def early(data: GraphData, seed: int) -> dict[str, Any]:
    """As many steps on the real graph as have the cost of the condensed one, by nodes."""
    steps = max(1, round(STEPS * NODES / data.num_nodes))
    parts = [counted(data, part) for part in data.split]
    return {**on_grid(space(data), parts[0], parts[1], seed, steps), "steps": steps}


def subset(data: GraphData, nodes: Tensor, g: torch.Generator) -> GraphData:
    """The subgraph of random nodes of each class, in proportion, all of which train."""
    counts = class_counts(data.y[nodes], NODES)
    members = [nodes[data.y[nodes] == c] for c in range(data.num_classes)]
    chosen = [m[torch.randperm(len(m), generator=g)[:k]] for m, k in zip(members, counts, strict=True)]
    return data.subgraph(torch.cat(chosen))


def random(data: GraphData, seed: int) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    train, validation = (subset(data, part, g) for part in (data.train, data.validation))
    return on_grid(space(data), whole(train), whole(validation), seed)


def whole(data: GraphData) -> Batch:
    return Batch(NodeInput(data.x, data.adjacency), data.y)


def gcond(data: GraphData, seed: int) -> tuple[Batch, float]:
    """The training nodes condensed by GCond, with its CPU seconds."""
    start, g = time.process_time(), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        net = cd.Net(SGC(features=data.num_features, classes=data.num_classes, hops=2, depth=1))
    structure = PairwiseMlp(data.num_features, generator=g)
    graph = Graph.from_real(data, class_counts(data.train_y, NODES), g, adjacency=structure)
    cd.condense(graph, GCond(net, data, g, lr_features=1e-3, lr_structure=1e-3, outer=10, inner=5), steps=GCOND_STEPS)
    return still(graph), time.process_time() - start


def still(graph: Graph) -> Batch:
    (features, edges), y = graph()
    return Batch(NodeInput(features.detach(), Adjacency.dense_matrix(edges.dense().detach())), y)


def swapped(data: GraphData) -> GraphData:
    """The graph whose validation nodes train."""
    return replace(data, train=data.validation, validation=data.train)


def standard(data: GraphData, seed: int) -> dict[str, Any]:
    """GCond of the training nodes, and of the validation nodes on their own."""
    train, first = gcond(data, seed)
    validation, second = gcond(swapped(data), seed)
    return {**on_grid(space(data), train, validation, seed), "condensing_cpu_s": first + second}


def beginning(data: GraphData, g: torch.Generator) -> Graph:
    """A random subgraph of the validation nodes, every other edge with a small weight."""
    first = subset(data, data.validation, g)
    return Graph(first.x, first.y, adjacency=FreeAdjacency(0.9 * first.adjacency.dense() + 0.05))


def few(data: GraphData, seed: int) -> dict[str, Any]:
    """The real validation nodes that HCDC's graph begins as, as they are."""
    train, before = gcond(data, seed)
    graph = beginning(data, torch.Generator().manual_seed(100 + seed))
    return {**on_grid(space(data), train, still(graph), seed), "train_cpu_s": before}


def calibrated(data: GraphData, seed: int, *, distance: Distance = by_point, teacher: bool = False) -> dict[str, Any]:
    """HCDC on GCond's training graph; the validation graph begins as a random subgraph of the validation nodes."""
    train, before = gcond(data, seed)
    start, g, filters = time.process_time(), torch.Generator().manual_seed(100 + seed), space(data)
    graph = beginning(data, g)
    learner, training = Converged(AdamRule(0.01), solve=AutoNeumann(10), damping=1e-3), counted(data, data.train)
    objective = HCDC(
        filters,
        train,
        Pieces.of(counted(data, data.validation)),
        g,
        learner=learner,
        teacher=Teacher(lambda _: training, learner) if teacher else None,
        weight_decay=DECAY,
        distance=distance,
        **TRAJECTORY,
    )
    log = []
    for step in iterate(graph, objective, objective.optimizer(graph), steps=HCDC_STEPS):
        log.append({"loss": step.loss.item(), **{k: float(v) for k, v in objective.figures.items()}})
    seconds = time.process_time() - start
    found = on_grid(filters, train, still(graph), seed)
    return {**found, "condensing_cpu_s": seconds, "train_cpu_s": before, "log": log}
