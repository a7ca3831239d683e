"""Graph neural tangent kernel ridge regression: what SFGC chooses among its sets by."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from condensery.adjacency import Adjacency, NodeInput, Normalisation
from condensery.kernels import ridge_predictions

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData
    from condensery.graph import Graph

__all__ = ["GraphTangentScore", "graph_tangent_kernel"]


def graph_tangent_kernel(a: NodeInput, b: NodeInput, *, blocks: int = 2, layers: int = 2) -> Tensor:
    """The tangent kernel of an infinitely wide graph network, ``[n, m]``, between the nodes of two graphs.

    Du et al., "Graph Neural Tangent Kernel", NeurIPS 2019, section 4.3 (https://arxiv.org/abs/1905.13192), without
    the sum over the nodes of a graph. Each of `blocks` averages over a node and its neighbours, ``P = D^-1 (A + I)``,
    and has `layers` of a ReLU network:

        Sigma, Theta <- P Sigma P'^T, P Theta P'^T,
        Sigma, Theta <- kappa_1(Sigma), Theta kappa_0(Sigma) + kappa_1(Sigma),

    with kappa_1 and kappa_0 the arc-cosine kernels of degree 1 and 0 that keep the diagonal, from Sigma = Theta =
    X X'^T. Where neither graph has edges it is the tangent kernel of a perceptron of ``blocks * layers`` hidden layers
    with weight variance 2, up to the factor d / 2 of how that one scales its inputs.

    Args:
        a: Nodes ``[n, d]``.
        b: Others ``[m, d]``.
        blocks: Rounds of averaging.
        layers: Layers in each.

    Returns:
        The kernel, in float64.

    Example:
        >>> nodes = NodeInput(torch.eye(2), Adjacency.empty(2))
        >>> graph_tangent_kernel(nodes, nodes, blocks=1, layers=1).diagonal().tolist()
        [2.0, 2.0]
    """
    first, second = _Side.of(a, blocks, layers), _Side.of(b, blocks, layers)
    return _kernel(first, second, layers)


@dataclass(frozen=True, eq=False)
class GraphTangentScore:
    """SFGC's graph neural feature score: how well kernel ridge regression on the set predicts real validation nodes.

    With the `graph_tangent_kernel` K, synthetic nodes S and validation nodes V,

        score = 1/2 mean (Y_V - K_VS (K_SS + lambda tr(K_SS) / n' I)^-1 Y_S)^2,

    where the rows of Y are one-hot less 1 / C. It is a `Choice` of SFGC and trains nothing, but it does use the labels
    of validation nodes: what it chooses is chosen on them.

    Args:
        data: The real graph; the subgraph of its validation nodes is seen.
        ridge: lambda.
        per_class: Validation nodes of each class, drawn once; ``None`` for all.
        seed: Of that draw.
        blocks: See `graph_tangent_kernel`.
        layers: See `graph_tangent_kernel`.

    Raises:
        ValueError: If there are no validation nodes.
    """

    data: GraphData
    _: KW_ONLY
    ridge: float = 1.0
    per_class: int | None = None
    seed: int = 0
    blocks: int = 2
    layers: int = 2

    def __post_init__(self) -> None:
        if len(self.data.validation) == 0:
            raise ValueError("The choice is made on validation nodes, and there are none; give a split that has some.")

    @torch.no_grad()
    def __call__(self, synthetic: Graph) -> float:
        """The score of synthetic nodes; waits for the device."""
        x, y = synthetic()
        ours, (theirs, truth) = _Side.of(x, self.blocks, self.layers), self._validation
        rows = y.double() if y.is_floating_point() else F.one_hot(y, self.data.num_classes).double()
        k_vs, k_ss = (_kernel(side, ours, self.layers) for side in (theirs, ours))
        found = ridge_predictions(k_vs, k_ss, rows - 1 / rows.shape[1], self.ridge, relative=True)
        return 0.5 * float((found - truth).square().mean())

    @cached_property
    def _validation(self) -> tuple[_Side, Tensor]:
        nodes = self.data.validation
        if self.per_class is not None:
            g, y = Generator().manual_seed(self.seed), self.data.y[nodes]
            members = [nodes[y == c] for c in range(self.data.num_classes)]
            nodes = torch.cat([m[torch.randperm(len(m), generator=g)[: self.per_class].to(m.device)] for m in members])
        part = self.data.subgraph(nodes)
        truth = F.one_hot(part.y, self.data.num_classes).double() - 1 / self.data.num_classes
        return _Side.of(part.whole().x, self.blocks, self.layers), truth


class _Side(NamedTuple):
    """One of two graphs: features, the averaging, and the roots of Sigma's diagonal in each block."""

    features: Tensor
    graph: Adjacency
    roots: list[Tensor]

    @classmethod
    def of(cls, x: NodeInput, blocks: int, layers: int) -> _Side:
        features, graph = x.features.double(), x.graph.normalised(kind=Normalisation.ROW)
        sigma, roots = features @ features.T, []
        for _ in range(blocks):
            sigma = _averaged(graph, sigma, graph)
            roots.append(sigma.diagonal().clamp_min(0).sqrt())  # the layers of a block keep the diagonal
            for _ in range(layers):
                sigma, _slope = _layer(sigma, roots[-1], roots[-1])
        return cls(features, graph, roots)


def _kernel(a: _Side, b: _Side, layers: int) -> Tensor:
    sigma = a.features @ b.features.T
    theta = sigma
    for first, second in zip(a.roots, b.roots, strict=True):
        sigma, theta = (_averaged(a.graph, part, b.graph) for part in (sigma, theta))
        for _ in range(layers):
            sigma, slope = _layer(sigma, first, second)
            theta = theta * slope + sigma
    return theta


def _averaged(a: Adjacency, k: Tensor, b: Adjacency) -> Tensor:
    return (b @ (a @ k).T).T


def _layer(sigma: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """kappa_1(Sigma) and kappa_0(Sigma), with the roots of the diagonals; nodes of zeros stay zero."""
    size = first[:, None] * second
    cosine = (sigma / size.clamp_min(torch.finfo(sigma.dtype).tiny)).clamp(-1, 1)
    off = math.pi - cosine.arccos()
    return size * (cosine * off + (1 - cosine.square()).sqrt()) / math.pi, off / math.pi
