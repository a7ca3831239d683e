"""Recommenders: a table of embeddings whose inner products rank items for users."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MF", "LightGCN", "Recommender"]


class Recommender(nn.Module, ABC):
    """What every recommender here is: one learned vector for each user and item, and a rule to compare them.

    The vectors are rows of a single table, users first. So ``Net(recommender)`` sees the table as the flat vector that
    the papers call theta without copying it, and training gathers, adds and updates rows of one tensor only.

    Args:
        users: How many there are.
        items: How many there are.
        dim: Size of the vectors.
    """

    table: nn.Parameter

    def __init__(self, users: int, items: int, dim: int) -> None:
        super().__init__()
        if min(users, items, dim) < 1:
            raise ValueError(f"A recommender of {users} users, {items} items and size {dim}; give at least 1 of each.")
        self.users, self.items, self.dim = users, items, dim
        self.table = nn.Parameter(torch.zeros(users + items, dim))

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments that are plain values."""
        return {"users": self.users, "items": self.items, "dim": self.dim}

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all vectors: Glorot's uniform rule, users and items as two matrices."""
        with torch.no_grad():
            for part in self.table.split([self.users, self.items]):
                bound = math.sqrt(6 / (len(part) + self.dim))
                drawn = torch.empty(part.shape, dtype=part.dtype).uniform_(-bound, bound, generator=generator)
                part.copy_(drawn)  # drawn by the CPU's generator wherever the table is

    @abstractmethod
    def vectors(self) -> Tensor:
        """What is compared, users first: float ``[users + items, dim]``, differentiable in the table."""

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The users' and the items' vectors: float ``[users, dim]`` and ``[items, dim]``."""
        users, items = self.vectors().split([self.users, self.items])
        return users, items

    def forward(self, x: Tensor) -> Tensor:
        """How well items suit users.

        Args:
            x: int64 ``[n, 1 + m]``: a user, then m items.

        Returns:
            Scores ``[n, m]``; higher is better.
        """
        vectors = self.vectors()
        user, items = vectors[x[:, 0]], vectors[x[:, 1:] + self.users]
        return (items @ user[:, :, None])[..., 0]


class MF(Recommender):
    """Matrix factorisation (Rendle et al., BPR, UAI 2009): the score is the inner product of the two vectors.

    Args:
        users: How many there are.
        items: How many there are.
        dim: Size of the vectors.

    Example:
        >>> model = MF(3, 5, dim=4)
        >>> model.reset_parameters(torch.Generator().manual_seed(0))
        >>> model(torch.tensor([[0, 1, 4], [2, 0, 0]])).shape
        torch.Size([2, 2])
    """

    def __init__(self, users: int, items: int, dim: int = 64) -> None:
        super().__init__(users, items, dim)

    def vectors(self) -> Tensor:
        """The table as it is."""
        return self.table


class LightGCN(Recommender):
    """LightGCN (He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126): vectors averaged over the graph.

    With A the symmetrically normalised adjacency of users and items, eq. 8, and E the table, what is compared is
    ``(E + A E + ... + A^K E) / (K + 1)``.

    Args:
        users: How many there are.
        items: How many there are.
        edges: The interactions that make the graph, int64 ``[2, m]``: users, items. Repeats count once.
        dim: Size of the vectors.
        layers: K.

    Raises:
        ValueError: If an edge is of a user or item that does not exist.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, users: int, items: int, edges: Tensor, dim: int = 64, layers: int = 3) -> None:
        super().__init__(users, items, dim)
        if edges.dim() != 2 or len(edges) != 2:
            raise ValueError(f"Edges have shape {tuple(edges.shape)}; give int64 [2, m], users and items.")
        self.layers = layers
        # Three plain tensors: a module that holds a sparse one cannot be copied.
        for name, tensor in zip(("starts", "columns", "values"), _normalised(users, items, edges), strict=True):
            self.register_buffer(name, tensor, persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments that are plain values: not the edges, which are data."""
        return {**super().config, "layers": self.layers}

    def vectors(self) -> Tensor:
        """The mean of all layers' vectors, eq. 7 with equal weights."""
        graph = _sparse(self.starts, self.columns, self.values.to(self.table.dtype))
        layer = total = self.table
        for _ in range(self.layers):
            layer = _Propagate.apply(graph, layer)  # type: ignore[no-untyped-call]
            total = total + layer
        return total / (self.layers + 1)


class _Propagate(torch.autograd.Function):
    """The product with a constant symmetric sparse matrix, which is its own derivative to any order."""

    @staticmethod
    def forward(ctx: Any, graph: Tensor, x: Tensor) -> Tensor:
        ctx.graph = graph
        return graph @ x

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[None, Tensor]:
        return None, _Propagate.apply(ctx.graph, outputs[0])  # type: ignore[no-untyped-call]


def _normalised(users: int, items: int, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``1 / sqrt(degree * degree)`` at each edge, both ways: CSR row starts, columns and values."""
    u, i = edges
    if u.numel() and (int(u.min()) < 0 or int(u.max()) >= users or int(i.min()) < 0 or int(i.max()) >= items):
        raise ValueError(f"An edge leaves the {users} users or {items} items; number both from 0.")
    pairs = torch.unique(u * items + i)
    u, i = pairs // items, pairs % items + users
    row, column = torch.cat([u, i]), torch.cat([i, u])
    degree = torch.bincount(row, minlength=users + items)
    order = (row * (users + items) + column).argsort()
    row, column = row[order], column[order]
    values = (degree[row] * degree[column]).to(torch.float32).rsqrt()
    starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    return starts, column, values


def _sparse(starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    size = (len(starts) - 1, len(starts) - 1)
    with warnings.catch_warnings():
        # PyTorch says once that this layout is in beta; a product with a dense matrix is all that is asked of it.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(starts, columns, values, size=size, check_invariants=False)
