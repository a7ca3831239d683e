"""SFGC: structure-free graph condensation by matching training trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from condensery.adjacency import NodeInput
from condensery.coresets.graphs import k_center
from condensery.graph import Graph, IdentityAdjacency
from condensery.keeping import Best, better_of, restored
from condensery.methods.mtt import distance, step_size
from condensery.methods.node_training import train_nodes
from condensery.net import Net
from condensery.nets.graph import compressed
from condensery.optimizers import AdamSgd

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData
    from condensery.experts import Segment, Trajectories

__all__ = ["SFGC", "Choice", "start"]

Choice: TypeAlias = Callable[[Graph], float]
"""A figure of merit of synthetic nodes, the lower the better: `GraphTangentScore`."""


@dataclass
class SFGC:
    """Structure-free graph condensation (Zheng et al., NeurIPS 2023, https://arxiv.org/abs/2306.02664).

    `MTT` on nodes: a network starts where an expert was at a point t of its training on the real graph and takes N
    full-batch steps on the synthetic nodes, which have no edges, with a learned step size. With theta* the expert's
    parameters,

        loss = |theta_N - theta*_{t+M}|^2 / |theta*_t - theta*_{t+M}|^2       (training trajectory meta-matching),

    differentiated exactly through the N steps, in the span of the nodes' features where that is possible
    (`node_training.InSpan`). Epochs are counted in the points of the trajectories: those of `NodeRecording` lie 10
    steps apart.

    Args:
        net: The architecture, the experts'.
        experts: Their trajectories, from `record_nodes`.
        generator: A CPU generator for the segments.
        inner_steps: N.
        expert_epochs: M, in points.
        min_start: Smallest t.
        max_start: t is drawn from `min_start` to below this.
        start_every: From the multiples of this, counted from `min_start`.
        lr_features: Learning rate of the features, by Adam.
        lr_step_size: Of the step size, by SGD.
        momentum_step_size: Its momentum.
        choice: By which the best set on the way is the result, such as `GraphTangentScore`; ``None`` for the last.
        choose_every: Steps between two looks at it.

    Raises:
        ValueError: For numbers of steps or starts that are out of range.
    """

    net: Net
    experts: Trajectories
    generator: Generator
    _: KW_ONLY
    inner_steps: int = 500
    expert_epochs: int = 120
    min_start: int = 0
    max_start: int = 31
    start_every: int = 10
    lr_features: float = 1e-4
    lr_step_size: float = 1e-6
    momentum_step_size: float = 0.5
    choice: Choice | None = None
    choose_every: int = 1
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _done: int = field(default=0, init=False, repr=False)
    _best: Best | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.inner_steps, self.expert_epochs, self.start_every, self.choose_every) < 1:
            raise ValueError(
                "inner_steps, expert_epochs, start_every and choose_every must be at least 1; give positive numbers."
            )
        if not 0 <= self.min_start < self.max_start:
            raise ValueError(
                f"Starts from {self.min_start} to below {self.max_start} are none; give 0 <= min_start < max_start."
            )

    def __call__(self, synthetic: Graph) -> Tensor:
        """The normalised distance to the expert after N steps on the nodes as they are."""
        check_structure(synthetic)
        if self.choice is not None and self._done % self.choose_every == 0:
            self._best = self._better(synthetic)
        lr, segment = step_size(synthetic), self._segment()
        self._done += 1
        x, y = synthetic()
        last = train_nodes(self.net, x, y, segment.start.to(x.features), lr, steps=self.inner_steps)
        self.figures = {"step_size": lr.detach().clone()}
        return distance(last, segment)

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """Adam on the features, SGD with momentum on the rest."""
        named, rates = dict(synthetic.named_parameters()), self._rates()
        return AdamSgd([{"params": [named[name]], **rate} for name, rate in rates.items() if name in named])

    def result(self, synthetic: Graph) -> Graph:
        """The best set on the way by the choice, the last one included; without a choice the set itself."""
        if self.choice is None:
            return synthetic
        chosen: Graph = restored(self._better(synthetic), synthetic)
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Steps done, and the best set so far."""
        return {"done": self._done, "best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._done, self._best = state["done"], state["best"]

    def _rates(self) -> dict[str, dict[str, float]]:
        """How fast each parameter of the set moves, by its name; those with a momentum move by SGD."""
        slow = {"lr": self.lr_step_size, "momentum": self.momentum_step_size}
        return {"values": {"lr": self.lr_features}, "step_size": slow}

    def _segment(self) -> Segment:
        """The stretch of an expert's trajectory to match in this step."""
        count = -((self.min_start - self.max_start) // self.start_every)
        t = self.min_start
        if self.start_every > 1:
            t += self.start_every * int(torch.randint(count, (), generator=self.generator))
            return self.experts.sample(self.generator, starts=(t, t + 1), epochs=self.expert_epochs)
        return self.experts.sample(self.generator, starts=(t, self.max_start), epochs=self.expert_epochs)

    @torch.no_grad()
    def _better(self, synthetic: Graph) -> Best:
        """The best so far and where it was reached, this set included; the earlier one where they are as good."""
        assert self.choice is not None
        return better_of(self._best, synthetic, float(self.choice(synthetic)), self._done)


def check_structure(synthetic: Graph) -> None:
    """Refuse a graph with edges.

    Raises:
        ValueError: If its structure is another than `IdentityAdjacency`.
    """
    if not isinstance(synthetic.adjacency, IdentityAdjacency):
        raise ValueError(
            f"The nodes are joined by a {type(synthetic.adjacency).__name__}, and trajectories are matched on nodes "
            "without edges; build the graph with IdentityAdjacency()."
        )


def start(
    net: Net,
    experts: Trajectories,
    data: GraphData,
    per_class: Sequence[int],
    generator: Generator,
    **options: Any,
) -> Graph:
    """Features of real training nodes from which no other of their class is far (the authors' start).

    Distances are those of the last hidden layer of the first expert on the real graph.

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
    view = data.training_view()
    with torch.no_grad():
        theta = experts.last(0).to(view.device)
        embeddings = net.embed(theta, NodeInput(compressed(view.x), view.adjacency))  # type: ignore[arg-type]
    index = k_center(view, per_class, embeddings, generator=generator)
    return Graph.from_index(view, index, **{"step_size": 0.5, **options})
