"""What a condensed graph carries from one graph filter to another, seen by the simplest model there is.

The linear convolution regression of HCDC (appendix C.5): a graph network of one layer without an activation,
``f_W(A, X) = C(A) X W``, trained by least squares, ``L(W) = |C X W - Y|^2``. Its loss knows the data through two
matrices, so that what condensation keeps and what it loses can be read off in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.adjacency import NodeInput
from condensery.evaluate.nodes import Nodes

__all__ = ["Carried", "Filter", "Moments", "carried", "moments"]

Filter: TypeAlias = Callable[[NodeInput], Tensor]
"""From features and graph to the filtered features ``C(A) X``, ``[n, d]``."""


@dataclass(frozen=True, eq=False)
class Moments:
    """All that least squares sees of a data set: its gradient at W is ``2 (gram W - target)``.

    Two data sets with the same moments have the same gradient everywhere and the same optimum (HCDC, lemma 5).

    Attributes:
        gram: ``(C X)^T C X``, ``[d, d]``.
        target: ``(C X)^T Y``, ``[d, k]``.

    Example:
        >>> m = Moments.of(torch.eye(2) * 2, torch.tensor([[2.0], [4.0]]))
        >>> m.optimum().flatten().tolist(), m.gradient(m.optimum()).abs().max().item()
        ([1.0, 2.0], 0.0)
    """

    gram: Tensor
    target: Tensor

    @classmethod
    def of(cls, rows: Tensor, y: Tensor) -> Moments:
        """Of filtered features ``[n, d]`` and labels ``[n, k]``."""
        return cls(rows.T @ rows, rows.T @ y)

    def gradient(self, w: Tensor) -> Tensor:
        """Of the sum of squares, at weights ``[d, k]``."""
        return 2 * (self.gram @ w - self.target)

    def optimum(self, ridge: float = 0.0) -> Tensor:
        """The weights ``[d, k]`` with the least ``|C X W - Y|^2 + ridge |W|^2``.

        Raises:
            ValueError: If there is more than one.
        """
        matrix = self.gram + ridge * torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        if int(torch.linalg.matrix_rank(matrix, hermitian=True)) < len(matrix):
            raise ValueError("The filtered features do not determine the weights; give a ridge above 0.")
        return torch.linalg.solve(matrix, self.target)


def moments(nodes: Nodes, filtered: Filter, *, classes: int | None = None) -> Moments:
    """The moments of nodes under a filter, in double precision.

    Args:
        nodes: The nodes; class indices become one-hot rows.
        filtered: The filter.
        classes: How many classes there are, where labels are indices; by default the largest one and one.
    """
    features, graph = nodes.x
    dense = features if features.layout is torch.strided else features.to_dense()
    rows = nodes.pick(filtered(NodeInput(dense.double(), graph)))
    y = nodes.pick(nodes.y)
    y = y if y.is_floating_point() else F.one_hot(y, classes or int(y.max()) + 1)
    return Moments.of(rows, y.double())


class Carried(NamedTuple):
    """How far the optimum on the condensed nodes is from that on the real ones.

    Attributes:
        error: ``|W_S - W_T| / |W_T|``, of proposition 4. A filter that is another times a number has an error, and
            the same predicted classes.
        excess: How much larger the real loss is at W_S than at W_T, in units of ``|Y|^2``; at least 0.
    """

    error: float
    excess: float


def carried(
    real: Nodes, synthetic: Nodes, filters: Mapping[str, Filter], *, ridge: float = 0.0, classes: int | None = None
) -> dict[str, Carried]:
    """What least squares on condensed nodes finds under each filter, against the same on the real nodes.

    Args:
        real: The real nodes, such as ``Nodes.training(data)``.
        synthetic: The condensed ones, such as ``Nodes(*graph())``.
        filters: By name.
        ridge: See `Moments.optimum`, for both; needed where features outnumber nodes.
        classes: See `moments`.

    Example:
        >>> from condensery.data.graphs import digits_graph
        >>> data = digits_graph()
        >>> nodes = Nodes.training(data)
        >>> carried(nodes, nodes, {"GCN": lambda x: x.graph.normalised() @ x.features}, ridge=1e-3)
        {'GCN': Carried(error=0.0, excess=0.0)}
    """
    found = {}
    for name, filtered in filters.items():
        theirs = moments(real, filtered, classes=classes)
        ours = moments(synthetic, filtered, classes=classes or theirs.target.shape[1])
        best, w = theirs.optimum(ridge), ours.optimum(ridge)
        error = (w - best).norm() / best.norm()
        change = w - best  # the loss is quadratic: its growth from the optimum is that of the square
        growth = (change * (theirs.gram @ change)).sum() + ridge * change.square().sum()
        y = real.pick(real.y)
        scale = y.double().square().sum().item() if y.is_floating_point() else float(len(y))
        found[name] = Carried(float(error), float(growth) / scale)
    return found
