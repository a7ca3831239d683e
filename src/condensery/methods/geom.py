"""GEOM: lossless graph condensation by a curriculum, an expanding window and knowledge of the experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from condensery.graph import Graph
from condensery.methods import sfgc
from condensery.methods.sfgc import SFGC
from condensery.net import Net

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData
    from condensery.experts import Segment, Trajectories

__all__ = ["GEOM", "start", "with_soft_labels"]


@dataclass
class GEOM(SFGC):
    """Lossless graph condensation (Zhang et al., ICML 2024, https://arxiv.org/abs/2402.05011).

    `SFGC` with four changes. The experts see easy nodes first (`Curriculum` of `record_nodes`). Starts come from a
    window whose upper end grows from `first_max_start` to `max_start` over the first `expansion_steps` steps (expanding
    window matching). Labels are learned, from an expert's outputs on (see `start`). And the set should agree with what
    an expert knows at the end of its training (knowledge embedding extraction):

        loss = SFGC's + beta KL(labels | expert(nodes)),

    with the last parameters of the expert that is matched.

    Args:
        first_max_start: Upper end of the window at first, in points; ``None`` for a window that stays.
        expansion_steps: Steps until it is `max_start`; 0 for at once.
        beta: Weight of the expert's knowledge.
        lr_labels: Learning rate of the labels, by SGD.
        momentum_labels: Its momentum.
    """

    inner_steps: int = 2500
    expert_epochs: int = 150
    max_start: int = 20
    start_every: int = 1
    first_max_start: float | None = 5.0
    expansion_steps: int = 150
    beta: float = 0.01
    lr_labels: float = 5e-5
    momentum_labels: float = 0.9
    _expert: int = field(default=0, init=False, repr=False)  # whose stretch is matched in this step

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expansion_steps < 0 or self.beta < 0:
            raise ValueError(
                f"expansion_steps is {self.expansion_steps} and beta {self.beta}; give at least 0 of both."
            )
        if self.first_max_start is not None and not self.min_start < self.first_max_start <= self.max_start:
            raise ValueError(
                f"first_max_start is {self.first_max_start}; give one above min_start ({self.min_start}) and at most "
                f"max_start ({self.max_start})."
            )

    def __call__(self, synthetic: Graph) -> Tensor:
        """SFGC's loss for a start in the window as it is, and how far the set is from what its expert knows."""
        matched = super().__call__(synthetic)
        return matched if self.beta == 0 else matched + self.beta * self._ignorance(synthetic)

    @property
    def upper(self) -> float:
        """Upper end of the window now, in points: starts are below it."""
        if self.first_max_start is None or self._done >= self.expansion_steps:
            return self.max_start
        return self.first_max_start + (self.max_start - self.first_max_start) * self._done / self.expansion_steps

    def _segment(self) -> Segment:
        if self.first_max_start is None:
            segment = super()._segment()
        else:
            share = float(torch.rand((), generator=self.generator, dtype=torch.float64))
            t = int(self.min_start + share * (self.upper - self.min_start))
            segment = self.experts.sample(self.generator, starts=(t, t + 1), epochs=self.expert_epochs)
        self._expert = segment.expert
        return segment

    def _ignorance(self, synthetic: Graph) -> Tensor:
        """KL(labels | expert(nodes)), the mean over the nodes; the cross entropy for hard labels."""
        x, y = synthetic()
        logits = self.net(self.experts.last(self._expert).to(x.features), x)
        if not y.is_floating_point():
            return F.cross_entropy(logits, y)
        y = y.clamp_min(torch.finfo(y.dtype).tiny)  # the logarithm of a label that rounds to 0 has no derivative
        return F.kl_div(logits.log_softmax(1), y, reduction="batchmean")

    def _rates(self) -> dict[str, dict[str, float]]:
        return {**super()._rates(), "labels": {"lr": self.lr_labels, "momentum": self.momentum_labels}}


def start(
    net: Net,
    experts: Trajectories,
    data: GraphData,
    per_class: Sequence[int],
    generator: Generator,
    **options: Any,
) -> Graph:
    """`sfgc.start`, then `with_soft_labels`.

    Args:
        net: The experts' architecture.
        experts: Their trajectories.
        data: The real graph; its training view is seen.
        per_class: Nodes of each class, as `class_counts` gives them.
        generator: A CPU generator, for the first node of each class.
        options: As those of `Graph`; ``step_size`` is 0.5 unless given.

    Raises:
        ValueError: If a class has fewer training nodes than asked.
    """
    return with_soft_labels(net, experts, sfgc.start(net, experts, data, per_class, generator, **options))


@torch.no_grad()
def with_soft_labels(net: Net, experts: Trajectories, nodes: Graph) -> Graph:
    """The same nodes with labels to be learned, which start from an expert's outputs on them.

    The labels are the log-probabilities of the first expert's last parameters. Where the expert is wrong about a node,
    its class gets the largest of them too, as in the authors' code.

    Args:
        net: The experts' architecture.
        experts: Their trajectories.
        nodes: Nodes without edges.
    """
    x, classes = nodes().x, nodes.classes[:, None]
    logits = net(experts.last(0).to(x.features), x).log_softmax(1)
    logits = logits.scatter(1, classes, logits.amax(1, keepdim=True))
    return Graph(
        nodes.values,
        nodes.classes,
        labels=logits,
        learn_labels=True,
        logits=True,
        step_size=None if nodes.step_size is None else float(nodes.step_size),
        step_floor=nodes.step_floor,
        bound=nodes.bound,
    )
