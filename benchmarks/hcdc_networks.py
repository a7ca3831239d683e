"""HCDC on Cora: which of 40 graph networks is best, asked of condensed graphs; called by `hcdc.py`.

The list is that of HCDC's appendix J: ten kinds of filter at two widths and two depths (`nets.graph.candidates`), the
widths smaller here. The reference trains each on the 140 nodes of the public split and takes the loss of its 500
validation nodes. Condensing sees a random half of the list; the other half is held out and reported apart.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import condensery as cd
from condensery.batch import Batch
from condensery.bilevel import AdamRule, Cg, Converged, GaussNewton
from condensery.data.graphs import GraphData
from condensery.loop import iterate
from condensery.methods.hcdc import HCDC, Pieces, Teacher
from condensery.nets.graph import candidates
from condensery.spaces import Alternatives, Odds, Plain
from hcdc_filters import beginning, cora, counted, gcond, still, subset, swapped, whole

__all__ = ["cora", "early", "few", "gumbel", "log_odds", "odds", "random", "reference", "standard", "teacher"]

WIDTHS, DEPTHS, STEPS, DECAY = (32, 64), (2, 4), 100, 5e-4
EARLY = 15
"""Steps on the real graph in the time of `STEPS` on a condensed one: there a step of all takes 7 times as long."""
ODDS = {"steps": 100, "every": 100, "repeat": 10, "memory": 6, "points": 3, "lr_set": 0.005}
GUMBEL = {"steps": 400, "every": 200, "repeat": 3, "lr_set": 0.005}


@dataclass(frozen=True)
class Network:
    """One of the list."""

    name: str
    net: cd.Net


def networks(data: GraphData) -> list[Network]:
    found = candidates(features=data.num_features, classes=data.num_classes, widths=WIDTHS, depths=DEPTHS)
    return [Network(name, cd.Net(module)) for name, module in found]


def seen(count: int, seed: int) -> list[int]:
    """The networks that condensing sees."""
    return sorted(torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: count // 2].tolist())


# --- networks on a pair of graphs
# ------------------------------------------------------------------------------------------------------------------


def on_list(
    data: GraphData, train: Batch, validation: Batch, seed: int, steps: int = STEPS, **more: Batch
) -> dict[str, Any]:
    """Losses and accuracies of every network of the list; `more` batches likewise."""
    start = time.process_time()
    names = {"": validation, **{f"{name}_": batch for name, batch in more.items()}}
    found: dict[str, Any] = {f"{name}{what}": [] for name in names for what in ("losses", "accuracies")}
    listed = networks(data)
    for one in listed:
        theta = trained(one.net, train, steps, seed)
        for name, batch in names.items():
            loss, accuracy = judged(one.net, theta, batch)
            found[f"{name}losses"].append(loss)
            found[f"{name}accuracies"].append(accuracy)
    kept = {"networks": [one.name for one in listed], "seen": seen(len(listed), seed), "widths": list(WIDTHS)}
    return {**kept, **found, "evaluation_cpu_s": time.process_time() - start}


def trained(net: cd.Net, batch: Batch, steps: int, seed: int) -> Tensor:
    """Weights after Adam on a batch."""
    g, space, learner = torch.Generator().manual_seed(seed), Plain(net), Converged(AdamRule(0.01))

    def loss(theta: Tensor, lam: Tensor) -> Tensor:
        return space.training(theta, lam, batch, g) + 0.5 * DECAY * theta.square().sum()

    return learner.train(learner.start(space.init(g)), loss, torch.zeros(0), steps).theta


@torch.no_grad()
def judged(net: cd.Net, theta: Tensor, batch: Batch) -> tuple[float, float]:
    """Loss and accuracy of the nodes that count."""
    logits, there = net(theta, batch.x), batch.y >= 0
    loss = torch.nn.functional.cross_entropy(logits[there], batch.y[there])
    return loss.item(), (logits.argmax(1) == batch.y)[there].float().mean().item()


# --- the methods
# ------------------------------------------------------------------------------------------------------------------


def reference(data: GraphData, seed: int) -> dict[str, Any]:
    """On the real graph; the test nodes are scored as well, to say what the chosen network is worth."""
    parts = [counted(data, part) for part in data.split]
    return on_list(data, parts[0], parts[1], seed, test=parts[2])


def early(data: GraphData, seed: int) -> dict[str, Any]:
    """The real graph, for the time that training on a condensed one takes."""
    parts = [counted(data, part) for part in data.split]
    return {**on_list(data, parts[0], parts[1], seed, EARLY), "steps": EARLY}


def random(data: GraphData, seed: int) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    train, validation = (subset(data, part, g) for part in (data.train, data.validation))
    return on_list(data, whole(train), whole(validation), seed)


@functools.cache
def condensed(data: GraphData, seed: int) -> tuple[Batch, float]:
    """GCond's training graph, once for the rows of a seed."""
    return gcond(data, seed)


def standard(data: GraphData, seed: int) -> dict[str, Any]:
    """GCond of the training nodes, and of the validation nodes on their own."""
    train, first = condensed(data, seed)
    validation, second = gcond(swapped(data), seed)
    return {**on_list(data, train, validation, seed), "condensing_cpu_s": first + second}


def few(data: GraphData, seed: int) -> dict[str, Any]:
    """The real validation nodes that HCDC's graph begins as, as they are."""
    train, before = condensed(data, seed)
    graph = beginning(data, torch.Generator().manual_seed(100 + seed))
    return {**on_list(data, train, still(graph), seed), "train_cpu_s": before}


def odds(data: GraphData, seed: int) -> dict[str, Any]:
    """HCDC over the odds of the networks: its hypergradient is the list of their losses."""
    nets = [one.net for one in networks(data)]
    space = Odds([nets[k] for k in seen(len(nets), seed)])
    # The weights do not depend on the odds, so there is nothing to solve.
    return calibrated(data, seed, space, Converged(AdamRule(0.01), solve=Cg(1), warm=False), ODDS, DECAY, 60)


def log_odds(data: GraphData, seed: int) -> dict[str, Any]:
    """The same with the logarithms of losses, so that networks that explode do not decide."""
    nets = [one.net for one in networks(data)]
    space = Odds([nets[k] for k in seen(len(nets), seed)], scale=torch.log)
    return calibrated(data, seed, space, Converged(AdamRule(0.01), solve=Cg(1), warm=False), ODDS, DECAY, 60)


def teacher(data: GraphData, seed: int) -> dict[str, Any]:
    """The same with real losses of networks trained on the real graph."""
    nets = [one.net for one in networks(data)]
    space, training = Odds([nets[k] for k in seen(len(nets), seed)]), counted(data, data.train)
    learner = Converged(AdamRule(0.01), solve=Cg(1), warm=False)
    # One point: what is dear here is to train the networks on the real graph.
    settings = {**ODDS, "teacher": Teacher(lambda _: training, learner), "repeat": 60}
    return calibrated(data, seed, space, learner, settings, DECAY, 60)


def gumbel(data: GraphData, seed: int) -> dict[str, Any]:
    """HCDC over the interpolated network of appendix G, of which a loss draws one."""
    nets = [one.net for one in networks(data)]
    space = Alternatives([nets[k] for k in seen(len(nets), seed)])
    learner = Converged(
        AdamRule(0.01), solve=Cg(20, 1e-2), damping=0.1, curvature=GaussNewton, matrix=False, warm=False
    )
    # A decay alone would wipe out the weights of networks that are not drawn: Adam makes whole steps of it.
    return calibrated(data, seed, space, learner, GUMBEL, 0.0, GUMBEL["repeat"] * 2 * space.size)


def calibrated(
    data: GraphData,
    seed: int,
    space: Odds | Alternatives,
    learner: Converged,
    settings: dict[str, Any],
    decay: float,
    steps: int,
) -> dict[str, Any]:
    """HCDC on GCond's training graph; the validation graph begins as a random subgraph of the validation nodes."""
    train, before = condensed(data, seed)
    start, g = time.process_time(), torch.Generator().manual_seed(100 + seed)
    graph = beginning(data, g)
    real = Pieces.of(counted(data, data.validation))
    objective = HCDC(space, train, real, g, learner=learner, weight_decay=decay, **settings)
    log = []
    for step in iterate(graph, objective, objective.optimizer(graph), steps=steps):
        log.append({"loss": step.loss.item(), **{k: float(v) for k, v in objective.figures.items()}})
        if step.number % 10 == 0:
            print(type(space).__name__, step.number, log[-1], round(time.process_time() - start), flush=True)
    seconds = time.process_time() - start
    found = on_list(data, train, still(graph), seed)
    return {**found, "condensing_cpu_s": seconds, "train_cpu_s": before, "log": log}
