"""Networks for the classification of whole graphs: a graph network's nodes, pooled, and a linear layer.

Each is called with a `GraphsInput`, many graphs side by side, and gives logits ``[g, classes]``. The graphs may be
sparse, as real ones are, or dense and weighted blocks, as condensed ones are, with the same result.
"""

from __future__ import annotations

from abc import ABC
from enum import StrEnum
from typing import Any, ClassVar

from torch import Tensor, nn

from condensery.adjacency import GraphsInput, NodeInput
from condensery.nets.graph import GCN, GIN, SGC, GraphNet, NodeMLP, Start, Weight
from condensery.nets.layers import Activation, Style, choice

__all__ = ["POOLED", "Pool", "Pooled", "PooledGCN", "PooledGIN", "PooledMLP", "PooledSGC"]


class Pool(StrEnum):
    """What becomes of a graph's nodes: their mean, or their sum, which also says how many they are."""

    MEAN = "mean"
    SUM = "sum"


class Pooled(nn.Module, ABC):
    """A graph network of `depth` layers, its activation after each of them, pooled over each graph, and a linear layer.

    Subclasses say which network.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features of each layer.
        depth: Layers before pooling.
        pool: How nodes are pooled.
        activation: Nonlinearity after each layer.

    Attributes:
        config: Every constructor argument, as JSON values.

    Raises:
        ValueError: If a count is not a positive whole number, or an option does not exist.
    """

    trunk_kind: ClassVar[type[GraphNet]]

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 128,
        depth: int = 3,
        pool: Pool = Pool.MEAN,
        activation: Activation = Activation.RELU,
    ) -> None:
        super().__init__()
        self.pool = choice(Pool, pool, "pool")
        style = Style(activation=activation)
        self.trunk = self.trunk_kind(
            features=features, classes=width, width=width, depth=depth, activation=style.activation
        )
        counts = {"features": features, "classes": classes, "width": width, "depth": depth}
        self.config: dict[str, Any] = {**counts, "pool": self.pool.value, **style.config("activation")}
        self.activation = style.activate()
        self.readout = Weight(width, classes, start=Start.FAN_IN)

    def embed(self, x: GraphsInput) -> Tensor:
        """The pooled nodes of each graph ``[g, width]``.

        Raises:
            ValueError: If the input is not what the network was built for.
        """
        if not isinstance(x, GraphsInput):
            raise ValueError(
                f"{type(self).__name__} was given a {type(x).__name__}; give GraphsInput, as `GraphSet.batch` does."
            )
        h = self.activation(self.trunk(NodeInput(x.features, x.graph)))
        total = h.new_zeros((len(x.sizes), h.shape[1])).index_add(0, x.owner, h)
        return total if self.pool is Pool.SUM else total / x.sizes[:, None].to(h.dtype)

    def forward(self, x: GraphsInput) -> Tensor:
        """Logits ``[g, classes]``."""
        result: Tensor = self.readout(self.embed(x))
        return result


class PooledGCN(Pooled):
    """A `GCN` pooled: the network of DosCond (Jin et al., KDD 2022) with its defaults, 3 layers of width 128, mean."""

    trunk_kind = GCN


class PooledSGC(Pooled):
    """An `SGC` pooled: as `PooledGCN`, each layer going several steps along the graph."""

    trunk_kind = SGC


class PooledGIN(Pooled):
    """A `GIN` pooled (Xu et al., ICLR 2019), the usual network for whole graphs, there with the sum."""

    trunk_kind = GIN


class PooledMLP(Pooled):
    """A perceptron of each node, pooled: what the structure is worth is what others are better than this."""

    trunk_kind = NodeMLP


POOLED: dict[str, type[Pooled]] = {net.__name__: net for net in (PooledGCN, PooledSGC, PooledGIN, PooledMLP)}
