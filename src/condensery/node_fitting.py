"""Ordinary training of graph networks on nodes, with the last step kept and the one that validates best."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from condensery.adjacency import NodeInput
from condensery.data.graphs import GraphData
from condensery.fitting import Adam, Constant, CrossEntropy, Drop, Sgd, SquaredError, WarmupCosine
from condensery.net import Net
from condensery.nets.graph import compressed, with_dropout

__all__ = ["FittedNodes", "NodeRecipe", "Nodes", "fit_nodes", "node_accuracy"]


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes whose labels are used, on the graph that they are seen in.

    Attributes:
        x: All nodes of the graph.
        y: Labels of all nodes: int64 ``[n]``, or rows ``[n, classes]``.
        index: int64 ``[k]``: those that count; all of them by default.
    """

    x: NodeInput
    y: Tensor
    index: Tensor | None = None

    def pick(self, values: Tensor) -> Tensor:
        """The rows ``[k, ...]`` of ``[n, ...]`` that count."""
        return values if self.index is None else values.index_select(0, self.index)

    @classmethod
    def training(cls, data: GraphData) -> Nodes:
        """The training nodes: on the whole graph, or on their own subgraph where the setting is inductive."""
        view = data.training_view()
        return _real(view, view.train)

    @classmethod
    def validation(cls, data: GraphData) -> Nodes:
        """The validation nodes: on the whole graph, or on their own subgraph where the setting is inductive."""
        view = data.validation_view()
        return _real(view, view.validation)

    @classmethod
    def test(cls, data: GraphData) -> Nodes:
        """The test nodes: on the whole graph, or on their own subgraph where the setting is inductive."""
        view = data.test_view()
        return _real(view, view.test)


def _real(view: GraphData, index: Tensor) -> Nodes:
    return Nodes(NodeInput(compressed(view.x), view.adjacency), view.y, index)


@dataclass(frozen=True)
class NodeRecipe:
    """How a graph network is trained, all nodes at every step; the defaults are the literature's test of a graph.

    Adam with a rate of 0.01 and a weight decay of 5e-4 for 600 steps; at step 300 a new Adam with a tenth of the rate.
    The network of that test is ``GCN(width=256, depth=2)``; dropout is the network's own option.

    Args:
        steps: Optimizer steps.
        optimizer: How the weights move.
        schedule: How the learning rate does.
        loss: What is minimised, averaged over the nodes that count.
        check_every: Steps between two looks at the validation nodes, where there are any; the last step is one as well.

    Raises:
        ValueError: If there is no step or no look.
    """

    steps: int = 600
    optimizer: Sgd | Adam = field(default_factory=lambda: Adam(lr=0.01, weight_decay=5e-4))
    schedule: Constant | Drop | WarmupCosine = field(default_factory=Drop)
    loss: CrossEntropy | SquaredError = field(default_factory=CrossEntropy)
    check_every: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.check_every < 1:
            raise ValueError(
                f"A recipe of {self.steps} steps that looks every {self.check_every} trains nothing; give at least 1."
            )

    def with_lr(self, lr: float) -> NodeRecipe:
        """The same recipe with another base learning rate, for instance a learned step size."""
        return replace(self, optimizer=replace(self.optimizer, lr=lr))

    def with_steps(self, steps: int) -> NodeRecipe:
        """The same recipe of another length."""
        return replace(self, steps=steps)

    def looks(self, step: int) -> bool:
        """Whether the validation nodes are looked at after `step`, counted from 0."""
        return (step + 1) % self.check_every == 0 or step + 1 == self.steps


@dataclass(frozen=True)
class FittedNodes:
    """What a training leaves.

    Attributes:
        net: The network.
        last: Parameters after the last step ``[size]``.
        best: Those of the first step with the best accuracy on the validation nodes; ``None`` without such nodes.
        best_step: That step, counted from 1.
        validation: That accuracy.
        seconds: Time of the training, looks included.
    """

    net: Net
    last: Tensor
    best: Tensor | None = None
    best_step: int | None = None
    validation: float | None = None
    seconds: float = 0.0


def fit_nodes(
    net: Net,
    nodes: Nodes,
    recipe: NodeRecipe,
    generator: torch.Generator,
    *,
    validate: Nodes | None = None,
    theta: Tensor | None = None,
) -> FittedNodes:
    """Train a graph network on nodes, and keep the last parameters and those that validate best.

    Args:
        net: The architecture.
        nodes: What is trained on: all of a condensed graph, or some nodes of a real one.
        recipe: How.
        generator: A CPU generator for the initialisation and the dropout.
        validate: Real nodes whose accuracy chooses a step. The literature's figures are chosen so: with 500 labels, and
            for some methods worth 3 to 6 points.
        theta: Initial parameters ``[size]``; default: drawn.

    Example:
        >>> from condensery.adjacency import Adjacency
        >>> from condensery.nets.graph import GCN
        >>> x = NodeInput(torch.eye(4), Adjacency.empty(4))
        >>> nodes = Nodes(x, torch.tensor([0, 0, 1, 1]))
        >>> net = Net(GCN(features=4, classes=2, width=8))
        >>> fitted = fit_nodes(net, nodes, NodeRecipe(steps=50), torch.Generator().manual_seed(0))
        >>> node_accuracy(net, fitted.last, nodes)
        1.0
    """
    start, device = time.perf_counter(), nodes.y.device
    theta = net.init(generator) if theta is None else theta
    module = with_dropout(net.at(theta.to(device)), generator, device)
    choice = _Choice(validate)
    y, optimizer = nodes.pick(nodes.y), recipe.optimizer.build(module)
    for step in range(recipe.steps):
        if recipe.schedule.restarts(step, recipe.steps):
            optimizer = recipe.optimizer.build(module)
        for group in optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * recipe.schedule.factor(step, recipe.steps)
        module.train()
        optimizer.zero_grad(set_to_none=True)
        recipe.loss(nodes.pick(module(nodes.x)), y).mean().backward()
        optimizer.step()
        if recipe.looks(step):
            choice.look(module, step)
    return FittedNodes(net, _flat(module), *choice.made(), seconds=time.perf_counter() - start)


class _Choice:
    """The first step with the best validation accuracy, kept on the device so that training waits for nothing."""

    def __init__(self, validate: Nodes | None) -> None:
        self.validate = validate
        self.theta: Tensor | None = None
        if validate is not None:
            self.right = torch.tensor(-1, device=validate.y.device)
            self.step = torch.tensor(0, device=validate.y.device)

    def look(self, module: nn.Module, step: int) -> None:
        if self.validate is None:
            return
        theta, right = _flat(module), _right(module, self.validate)
        better = right > self.right
        self.theta = theta if self.theta is None else torch.where(better, theta, self.theta)
        self.step = torch.where(better, step + 1, self.step)
        self.right = torch.maximum(right, self.right)

    def made(self) -> tuple[Tensor | None, int | None, float | None]:
        if self.validate is None:
            return None, None, None
        return self.theta, int(self.step), int(self.right) / len(self.validate.pick(self.validate.y))


def node_accuracy(net: Net, theta: Tensor, nodes: Nodes) -> float:
    """Share of the nodes whose largest logit is their class's, without dropout.

    Args:
        net: The architecture.
        theta: Its parameters ``[size]``.
        nodes: Which nodes; rows of labels count by their largest entry.

    Raises:
        ValueError: If there is no node.
    """
    count = len(nodes.pick(nodes.y))
    if count == 0:
        raise ValueError("There are no nodes to measure the accuracy on; give at least one.")
    return int(_right(net.at(theta), nodes)) / count


def _flat(module: nn.Module) -> Tensor:
    """The parameters as one vector ``[size]``, a copy."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


@torch.no_grad()
def _right(module: nn.Module, nodes: Nodes) -> Tensor:
    """How many nodes are classified rightly, a scalar on the device."""
    module.eval()
    truth = nodes.pick(nodes.y)
    truth = truth.argmax(1) if truth.is_floating_point() else truth
    return (nodes.pick(module(nodes.x)).argmax(1) == truth).sum()
