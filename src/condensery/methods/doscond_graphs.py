"""DosCond for graph classification: one-step gradient matching of whole graphs with discrete edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.adjacency import GraphsInput
from condensery.data.graph_sets import GraphSet
from condensery.graphs import Graphs
from condensery.loop import with_gradient
from condensery.methods.gcond import Distance
from condensery.net import Net
from condensery.optimizers import DroppedAdam

__all__ = ["Annealing", "DosCondGraphs", "relative_squared_distance"]


def relative_squared_distance(net: Net, a: Tensor, b: Tensor) -> Tensor:
    """``|a - b|^2 / |b|^2`` of a synthetic and a real gradient ``[net.size]``: "mse" in the code for whole graphs."""
    return (a - b).square().sum() / b.square().sum()


@dataclass(frozen=True)
class Annealing:
    """A temperature that falls geometrically from `start` to `end` in `steps` steps, and stays.

    Example:
        >>> [round(Annealing()(step), 3) for step in (0, 100, 200, 500)]
        [1.0, 0.1, 0.01, 0.01]

    Raises:
        ValueError: For a temperature that is not above 0, or fewer than 1 step.
    """

    start: float = 1.0
    end: float = 0.01
    steps: int = 200

    def __post_init__(self) -> None:
        if min(self.start, self.end) <= 0 or self.steps < 1:
            raise ValueError(f"{self} does not anneal; give temperatures above 0 and at least 1 step.")

    def __call__(self, step: int) -> float:
        """The temperature at a step, counted from 0."""
        share = min(step / self.steps, 1.0)
        return self.start * (self.end / self.start) ** share


@dataclass
class DosCondGraphs:
    """One-step gradient matching for graph classification (Jin et al., KDD 2022, https://arxiv.org/abs/2206.07746).

    At each step a network theta is drawn and never trained. With edges drawn from the binary concrete distribution of
    the learned log odds,

        loss = sum_c D( grad_theta L_c^syn(theta), grad_theta L_c^real(theta) )
               + penalty * max(0, mean probability of an edge - density of the real graphs),

    L_c the mean cross entropy over graphs of class c, D the squared distance over the real gradient's square. The
    temperature of the edges falls, so that they become discrete while they are learned.

    Args:
        net: The architecture, of `condensery.nets.pooled`.
        data: The real graphs.
        generator: A CPU generator for networks, batches and edges.
        batch_real: Real graphs of each class in a step, or ``None`` for all.
        distance: D, of the synthetic and the real gradient.
        temperature: Of the edges, by steps.
        penalty: Weight of too many edges; their beta.
        lr_features: Learning rate of the features.
        lr_structure: Learning rate of the log odds. The authors take 0.01 to 2, by data set.
        drop_after: Steps after which a new Adam goes on with a tenth of both rates.

    Raises:
        ValueError: For a batch of no graphs or a negative penalty.
    """

    net: Net
    data: GraphSet
    generator: torch.Generator
    _: KW_ONLY
    batch_real: int | None = 256
    distance: Distance = relative_squared_distance
    temperature: Callable[[int], float] = field(default_factory=Annealing)
    penalty: float = 0.1
    lr_features: float = 0.01
    lr_structure: float = 0.1
    drop_after: int | None = 401
    _steps: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.batch_real is not None and self.batch_real < 1) or self.penalty < 0:
            raise ValueError(
                f"A batch of {self.batch_real} graphs or a penalty of {self.penalty} is impossible; give at least 1 "
                "graph and a penalty of at least 0."
            )

    def __call__(self, synthetic: Graphs) -> Tensor:
        """The loss at the synthetic graphs, for a fresh network and freshly drawn edges."""
        values = synthetic.values
        theta = self.net.init(self.generator, device=values.device).to(values.dtype)
        blocks = synthetic.relaxed(self.temperature(self._steps), self.generator)
        self._steps += 1
        value = values.new_zeros(())
        grads = torch.zeros_like(values), torch.zeros_like(blocks)
        for c, rows in synthetic.rows().items():  # the graph of one class is in memory at a time
            target = self._real_gradient(theta, c)
            leaves = [t[rows].detach().requires_grad_() for t in (values, blocks)]
            with torch.enable_grad():
                ours = _mean_gradient(self.net, theta, synthetic.joined(*leaves), c, create_graph=True)
                term = self.distance(self.net, ours, target)
                parts = torch.autograd.grad(term, leaves, materialize_grads=True)
            value = value + term.detach()
            for whole, part in zip(grads, parts, strict=True):
                whole[rows] = part
        return with_gradient(value, [values, blocks], grads) + self.penalty * synthetic.excess()

    def optimizer(self, synthetic: Graphs) -> torch.optim.Optimizer:
        """Adam on the features and on the log odds, each with its learning rate, both dropped once."""
        groups: list[dict[str, Any]] = [
            {"params": [synthetic.values], "lr": self.lr_features},
            {"params": [synthetic.logits], "lr": self.lr_structure},
        ]
        return DroppedAdam(groups, drop_after=self.drop_after)

    def state_dict(self) -> dict[str, Any]:
        """How many steps the temperature has fallen."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps = int(state["steps"])

    def _real_gradient(self, theta: Tensor, c: int) -> Tensor:
        """The gradient ``[net.size]`` of real graphs of class c."""
        x = self._real(c, theta.dtype)
        return _mean_gradient(self.net, theta, x, c, create_graph=False).detach()

    def _real(self, c: int, dtype: torch.dtype) -> GraphsInput:
        """Real graphs of class c; built once where they are always the same."""
        if (c, dtype) in self._kept:
            return self._kept[c, dtype]
        members = self._members[c]
        if len(members) == 0:
            raise ValueError(
                f"Class {self.data.classes[c]!r} has no training graph; leave it out of the synthetic set."
            )
        fixed = self.batch_real is None or len(members) <= self.batch_real
        if not fixed:
            members = members[torch.randperm(len(members), generator=self.generator)[: self.batch_real]]
        x = self.data.batch(members)
        x = x._replace(features=x.features.to(dtype))
        if fixed:
            self._kept[c, dtype] = x
        return x

    @cached_property
    def _members(self) -> list[Tensor]:
        """Training graphs of each class, on the CPU, where batches are put together."""
        return [self.data.members(c).cpu() for c in range(self.data.num_classes)]

    @cached_property
    def _kept(self) -> dict[tuple[int, torch.dtype], GraphsInput]:
        return {}


def _mean_gradient(net: Net, theta: Tensor, x: GraphsInput, c: int, *, create_graph: bool) -> Tensor:
    """The gradient ``[net.size]`` of the mean cross entropy of graphs of class c."""
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        logits = net(leaf, x)  # type: ignore[arg-type]  # what a network is given is opaque to it
        truth = torch.full((len(logits),), c, device=logits.device)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, truth), leaf, create_graph=create_graph)
    return gradient
