"""GCDM: distribution matching for graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from condensery.adjacency import NodeInput
from condensery.data.graph_batches import ClassBatches
from condensery.methods.gcond import Life, check_loops, constant, learned_graph, mean_gradient, two_rates
from condensery.net import Net
from condensery.nets.graph import GraphNet, compressed

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData
    from condensery.graph import Graph

__all__ = ["GCDM", "Match"]


class Match(StrEnum):
    """What of two sets of representations is compared.

    Attributes:
        MEANS: The squared distance of their means: the maximum mean discrepancy of the paper with a linear kernel.
        PAIRS: The sum of absolute differences of the synthetic nodes to as many real ones drawn at random, pair by
            pair.
    """

    MEANS = "means"
    PAIRS = "pairs"


@dataclass
class GCDM:
    """Distribution matching for graphs (Liu et al., 2022, https://arxiv.org/abs/2206.13697).

    A node's representation in layer l is a function of its receptive field, the nodes within l steps. With h_l(v) that
    representation in a network theta that is being trained on the synthetic graph, and n'_c of n' synthetic nodes in
    class c,

        loss = sum_l sum_c n'_c / n' * | mean over real v in c of h_l(v) - mean over synthetic v in c of h_l(v) |^2,

    over the hidden layers l, or the only one. No gradient in theta is matched, so no second derivative is taken. The
    network's life and the turns of features and structure are those of `GCond`. With `IdentityAdjacency` this is the
    paper's graphless form.

    Args:
        net: The architecture; one of `condensery.nets.graph`, or a module with its `representations`.
        data: The real graph; in the inductive setting its training subgraph is seen.
        generator: A CPU generator for networks, batches and pairs.
        outer: Matching steps in a network's life.
        inner: Steps of training between them.
        match: What is compared.
        batch_real: Real nodes of each class in a step, or ``None`` for all.
        fanouts: Neighbours taken at each distance, ``None`` for all: see `ClassBatches`.
        lr_net: Learning rate of the inner training.
        lr_features: Learning rate of the features.
        lr_structure: Learning rate of the structure's parameters.
        alternation: Of how many epochs the first move the structure; ``None`` moves both at every step.

    Raises:
        ValueError: For numbers of steps or epochs that are out of range, or a network without `representations`.
    """

    net: Net
    data: GraphData
    generator: torch.Generator
    _: KW_ONLY
    outer: int = 5
    inner: int = 0
    match: Match = Match.MEANS
    batch_real: int | None = None
    fanouts: Sequence[int | None] = (None, None)
    lr_net: float = 0.01
    lr_features: float = 1e-4
    lr_structure: float = 1e-4
    alternation: tuple[int, int] | None = (10, 50)
    _life: Life | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_loops(self.outer, self.inner, self.alternation)
        if not isinstance(self.net.module, GraphNet) and not hasattr(self.net.module, "representations"):
            raise ValueError(f"{type(self.net.module).__name__} has no representations(x); give a graph network.")
        self._seen: tuple[Tensor, dict[int, list[Tensor]]] | None = None

    def __call__(self, synthetic: Graph) -> Tensor:
        """The loss at the synthetic graph for the network as it is after its training on it so far."""
        life = Life.next(self._life, self.outer)
        x, y = learned_graph(synthetic, life.epoch, self.alternation)
        still = constant(x)
        self._life = life.advanced(
            self.net,
            self.generator,
            x.features,
            lambda theta: mean_gradient(self.net, theta, still, y),
            (self.inner, self.lr_net),
        )
        theta, rows = self._life.at(), synthetic.rows()
        real, ours = self._real(theta, list(rows)), self._matched(theta, x)
        value = x.features.new_zeros(())
        for c, where in rows.items():
            weight = (where.stop - where.start) / len(synthetic.classes)
            for theirs, layer in zip(real[c], ours, strict=True):
                value = value + weight * self._distance(theirs, layer[where])
        return value

    def optimizer(self, synthetic: Graph) -> torch.optim.Optimizer:
        """Adam on the features and on the structure's parameters, each with its learning rate."""
        return two_rates(synthetic, self.lr_features, self.lr_structure)

    def state_dict(self) -> dict[str, Any]:
        """The network in training, its optimizer and how far its life is."""
        return {"life": None if self._life is None else self._life.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._life = None if state["life"] is None else Life(**state["life"])

    def _distance(self, real: Tensor, synthetic: Tensor) -> Tensor:
        """Of representations ``[n_c, w]`` and ``[n'_c, w]``."""
        if self.match is Match.MEANS:
            return (real.mean(0) - synthetic.mean(0)).square().sum()
        k, n = len(synthetic), len(real)
        if k > n:
            raise ValueError(
                f"{k} synthetic nodes have {n} real ones to be paired with; ask for fewer, or match means."
            )
        order = torch.randperm(n, generator=self.generator)[:k].to(real.device, non_blocking=True)
        return (real[order] - synthetic).abs().sum()

    def _real(self, theta: Tensor, classes: list[int]) -> dict[int, list[Tensor]]:
        """The matched layers of real nodes of each class; once for a network, where its nodes are always the same."""
        fixed = all(self._batches.is_fixed(c) for c in classes)
        if fixed and self._seen is not None and self._seen[0] is theta:
            return self._seen[1]
        x, sizes = self._batch(classes, fixed, theta.dtype)
        with torch.no_grad():
            parts = [layer[: sum(sizes)].split(sizes) for layer in self._matched(theta, x)]
        real = {c: [part[i] for part in parts] for i, c in enumerate(classes)}
        self._seen = (theta, real) if fixed else None
        return real

    def _batch(self, classes: list[int], fixed: bool, dtype: torch.dtype) -> tuple[NodeInput, list[int]]:
        """Real nodes of all classes in one batch, those of a class next to each other and first."""
        key = (tuple(classes), dtype)
        if key in self._kept:
            return self._kept[key]
        chosen = [self._batches.choose(c, self.generator) for c in classes]
        features, graph = self._batches.around(torch.cat(chosen), self.generator)
        features = features.to(dtype)
        if fixed or features.device.type == "cpu":  # looking how full they are waits for a device
            features = compressed(features)
        batch = NodeInput(features, graph), [len(part) for part in chosen]
        if fixed:
            self._kept[key] = batch
        return batch

    def _matched(self, theta: Tensor, x: NodeInput) -> list[Tensor]:
        """The representations ``[n, w]`` that are compared."""
        layers = {f"module.{name}": part for name, part in self.net.layers(theta).items()}
        found: list[Tensor] = functional_call(self._layers, layers, (x,))
        return found[:-1] or found

    @cached_property
    def _layers(self) -> nn.Module:
        return _Representations(self.net.module)

    @cached_property
    def _batches(self) -> ClassBatches:
        return ClassBatches(self.data, size=self.batch_real, fanouts=self.fanouts)

    @cached_property
    def _kept(self) -> dict[tuple[tuple[int, ...], torch.dtype], tuple[NodeInput, list[int]]]:
        return {}


class _Representations(nn.Module):
    """Lets `functional_call`, which knows only ``forward``, reach a graph network's layers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: NodeInput) -> list[Tensor]:
        found: list[Tensor] = self.module.representations(x)  # type: ignore[operator]
        return found
