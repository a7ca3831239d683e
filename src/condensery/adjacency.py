"""Who is joined to whom: a sparse real graph or a small dense weighted one, propagated alike."""

from __future__ import annotations

import warnings
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Adjacency", "BlockAdjacency", "GraphsInput", "NodeInput", "Normalisation"]


class Normalisation(StrEnum):
    """What the degrees divide."""

    SYMMETRIC = "sym"
    """``D^-1/2 A D^-1/2``, as GCN's (Kipf & Welling, ICLR 2017)."""
    ROW = "row"
    """``D^-1 A``: the mean over the neighbours."""


class NodeInput(NamedTuple):
    """What a graph network eats: the ``x`` of a `Batch` of nodes.

    Attributes:
        features: Of the nodes, ``[n, d]``.
        graph: Which nodes are joined.
    """

    features: Tensor
    graph: Adjacency


class GraphsInput(NamedTuple):
    """What a network for whole graphs eats: the ``x`` of a `Batch` of graphs, their nodes one graph after the other.

    Attributes:
        features: Of all nodes, ``[n, d]``.
        graph: Which nodes are joined; none of different graphs are.
        owner: The graph of each node, int64 ``[n]``, ascending.
        sizes: Nodes of each graph, int64 ``[g]``.
    """

    features: Tensor
    graph: Adjacency
    owner: Tensor
    sizes: Tensor


class Adjacency:
    """An adjacency matrix A ``[n, n]``, sparse or dense; ``A @ x`` is one step of propagation.

    Entry (i, j) weighs what node i receives from node j. An edge ``(source, target)`` is the entry (target, source),
    so that ``edges[0]`` sends and ``edges[1]`` receives; the graphs of this library are undirected, with every edge
    in both directions, and the two readings agree. Immutable; gradients of any order reach x, the weights and the
    dense matrix.

    Build one with `sparse`, `dense_matrix` or `empty`.

    Attributes:
        n: How many nodes.
        edges: int64 ``[2, m]``, or ``None`` where the matrix is dense.
        weights: float ``[m]``; ``None`` where every edge weighs 1 or the matrix is dense.
        matrix: float ``[n, n]``, or ``None`` where the graph is sparse.

    Example:
        >>> path = Adjacency.sparse(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
        >>> (path @ torch.tensor([[1.0], [10.0], [100.0]])).flatten().tolist()
        [10.0, 101.0, 10.0]
    """

    def __init__(
        self, n: int, *, edges: Tensor | None = None, weights: Tensor | None = None, matrix: Tensor | None = None
    ) -> None:
        self.n, self.edges, self.weights, self.matrix = n, edges, weights, matrix
        self._identity = False
        self._normalised: dict[tuple[bool, Normalisation], Adjacency] = {}
        self._rows: dict[tuple[bool, torch.dtype], Tensor] = {}

    @classmethod
    def sparse(cls, edges: Tensor, n: int, weights: Tensor | None = None) -> Adjacency:
        """A graph of edges.

        Args:
            edges: int64 ``[2, m]``: sources and targets, an undirected edge in both directions.
            n: How many nodes.
            weights: float ``[m]``; by default every edge weighs 1.

        Raises:
            ValueError: If the shapes do not fit together. That the numbers are nodes is not looked at (it would wait
                for the device): `condensery.data.graphs` does that.
        """
        if edges.dim() != 2 or len(edges) != 2 or edges.dtype != torch.int64:
            raise ValueError(f"Edges are {edges.dtype} of shape {tuple(edges.shape)}; give int64 [2, m].")
        if weights is not None and weights.shape != edges.shape[1:]:
            raise ValueError(f"Weights have shape {tuple(weights.shape)}; give one an edge, [{edges.shape[1]}].")
        return cls(n, edges=edges, weights=weights)

    @classmethod
    def dense_matrix(cls, matrix: Tensor) -> Adjacency:
        """A weighted graph from its matrix ``[n, n]``, which gradients reach.

        Raises:
            ValueError: If the matrix is not square.
        """
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"The matrix has shape {tuple(matrix.shape)}; give a square one, [n, n].")
        return cls(len(matrix), matrix=matrix)

    @classmethod
    def empty(cls, n: int, device: torch.device | str | None = None) -> Adjacency:
        """A graph without edges: with self-loops it is the identity, whose propagation costs nothing."""
        return cls(n, edges=torch.empty((2, 0), dtype=torch.int64, device=device))

    def __repr__(self) -> str:
        if self.edges is None:
            return f"Adjacency({self.n} nodes, dense, {self.device})"
        weighted = "" if self.weights is None else ", weighted"
        return f"Adjacency({self.n} nodes, {self.edges.shape[1]} directed edges{weighted}, {self.device})"

    @property
    def is_dense(self) -> bool:
        """Whether `matrix` holds the graph, rather than `edges`."""
        return self.matrix is not None

    @property
    def device(self) -> torch.device:
        """Where the graph is."""
        return self._held.device

    @property
    def _held(self) -> Tensor:
        held = self.matrix if self.matrix is not None else self.edges
        assert held is not None
        return held

    def to(self, device: torch.device | str) -> Adjacency:
        """The same on another device; itself where it is there already."""
        if self.device == torch.device(device):
            return self
        parts = {
            name: None if part is None else part.to(device)
            for name, part in (("edges", self.edges), ("weights", self.weights), ("matrix", self.matrix))
        }
        moved = Adjacency(self.n, **parts)
        moved._identity = self._identity
        return moved

    def __matmul__(self, x: Tensor) -> Tensor:
        """Propagate features ``[n, d]`` (or one number a node, ``[n]``) one step; the weights take x's precision."""
        if x.dim() == 1:
            return (self @ x[:, None])[:, 0]
        if self._identity:
            return x
        if self.matrix is not None:
            return self.matrix @ x
        if self.weights is not None and self.weights.requires_grad:
            return self._gathered(x, self.weights)
        product: Tensor = _Propagate.apply(x, self, False)  # type: ignore[no-untyped-call]
        return product

    def _gathered(self, x: Tensor, weights: Tensor) -> Tensor:
        """The sparse product edge by edge, for weights that gradients must reach."""
        assert self.edges is not None
        sources, targets = self.edges
        sent = x.index_select(0, sources) * weights.to(x.dtype)[:, None]
        return x.new_zeros((self.n, x.shape[1])).index_add(0, targets, sent)

    def degrees(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weight that each node receives, row sums ``[n]``."""
        if self.matrix is not None:
            return self.matrix.sum(1)
        assert self.edges is not None
        weights = self._weights(dtype)
        return weights.new_zeros(self.n).index_add(0, self.edges[1], weights)

    def _weights(self, dtype: torch.dtype = torch.float32) -> Tensor:
        assert self.edges is not None
        if self.weights is None:
            return torch.ones(self.edges.shape[1], dtype=dtype, device=self.edges.device)
        return self.weights

    def with_self_loops(self) -> Adjacency:
        """``A + I``: every node also receives its own features with weight 1."""
        if self.matrix is not None:
            return Adjacency(self.n, matrix=self.matrix + _eye(self.matrix))
        assert self.edges is not None
        own = torch.arange(self.n, device=self.edges.device).expand(2, -1)
        weights = None if self.weights is None else torch.cat([self.weights, self.weights.new_ones(self.n)])
        looped = Adjacency(self.n, edges=torch.cat([self.edges, own], 1), weights=weights)
        looped._identity = self.edges.shape[1] == 0
        return looped

    def normalised(self, self_loops: bool = True, kind: Normalisation = Normalisation.SYMMETRIC) -> Adjacency:
        """The graph divided by its degrees; a node that receives nothing keeps receiving nothing.

        Computed once for a graph that no gradient reaches.

        Args:
            self_loops: Whether ``A + I`` is normalised, as GCN does, rather than A.
            kind: What the degrees divide.
        """
        key = (self_loops, kind)
        if key in self._normalised:
            return self._normalised[key]
        base = self.with_self_loops() if self_loops else self
        result = base if base._identity else base._divided(kind)
        if not (result.matrix if result.matrix is not None else result._weights()).requires_grad and not self._learned:
            self._normalised[key] = result
        return result

    @property
    def _learned(self) -> bool:
        """Whether what is derived from this graph may have to be derived anew for the next gradient."""
        held = self.matrix if self.matrix is not None else self.weights
        return held is not None and held.requires_grad

    def _divided(self, kind: Normalisation) -> Adjacency:
        degrees = self.degrees()
        there = degrees > 0
        safe = torch.where(there, degrees, torch.ones_like(degrees))  # its gradient stays finite where there is none
        inverse = torch.where(there, safe.rsqrt() if kind is Normalisation.SYMMETRIC else 1 / safe, 0.0)
        if self.matrix is not None:
            matrix = inverse[:, None] * self.matrix
            return Adjacency(self.n, matrix=matrix * inverse if kind is Normalisation.SYMMETRIC else matrix)
        assert self.edges is not None
        weights = self._weights() * inverse[self.edges[1]]
        if kind is Normalisation.SYMMETRIC:
            weights = weights * inverse[self.edges[0]]
        return Adjacency(self.n, edges=self.edges, weights=weights)

    def laplacian(self) -> Adjacency:
        """The normalised Laplacian ``I - D^-1/2 A D^-1/2``, eigenvalues 0 to 2, in the same form.

        The row of a node without edges is the identity's.
        """
        inner = self.normalised(self_loops=False)
        if inner.matrix is not None:
            return Adjacency(self.n, matrix=_eye(inner.matrix) - inner.matrix)
        return Adjacency(self.n, edges=inner.edges, weights=-inner._weights()).with_self_loops()

    def dense(self) -> Tensor:
        """The matrix ``[n, n]``, differentiable; parallel edges add up."""
        if self.matrix is not None:
            return self.matrix
        assert self.edges is not None
        weights = self._weights()
        flat = weights.new_zeros(self.n * self.n).index_add(0, self.edges[1] * self.n + self.edges[0], weights)
        return flat.view(self.n, self.n)

    def largest(self, x: Tensor) -> Tensor:
        """Every node's largest number among its neighbours, feature by feature, ``[n, d]``; zeros where it has none.

        Of a graph of edges without weights, without gradients, on a CPU.

        Args:
            x: Features ``[n, d]``.
        """
        assert self.edges is not None
        assert self.weights is None
        with torch.no_grad():
            return torch.sparse.mm(self._csr(transposed=False, dtype=x.dtype), x, "amax")

    def _csr(self, transposed: bool, dtype: torch.dtype) -> Tensor:
        """The sparse matrix or its transpose in compressed rows; kept, because every propagation needs it."""
        key = (transposed, dtype)
        if key not in self._rows:
            assert self.edges is not None
            columns, rows = self.edges.flip(0) if transposed else self.edges
            order = (rows * self.n + columns).argsort()
            starts = torch.zeros(self.n + 1, dtype=torch.int64, device=rows.device)
            starts[1:] = torch.bincount(rows, minlength=self.n).cumsum(0)
            values = self._weights(dtype).detach().to(dtype)[order]
            with warnings.catch_warnings():  # PyTorch says once a process that its compressed rows are in beta
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
                self._rows[key] = torch.sparse_csr_tensor(
                    starts, columns[order], values, (self.n, self.n), check_invariants=False
                )
        return self._rows[key]


class BlockAdjacency(Adjacency):
    """Graphs of equal size side by side, each a small dense weighted matrix that gradients reach.

    For networks that propagate by products with a normalised graph. It has no edges to attend to one by one: `joined`
    gives the same graphs with edges.

    Args:
        blocks: ``[m, k, k]``: the matrices of m graphs of k nodes.

    Raises:
        ValueError: For another shape.

    Example:
        >>> pair = BlockAdjacency(torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))
        >>> (pair @ torch.tensor([[1.0], [2.0], [3.0], [4.0]])).flatten().tolist()
        [2.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, blocks: Tensor) -> None:
        if blocks.dim() != 3 or blocks.shape[1] != blocks.shape[2]:
            raise ValueError(f"The blocks have shape {tuple(blocks.shape)}; give [m, k, k], a matrix for each graph.")
        super().__init__(blocks.shape[0] * blocks.shape[1])
        self.blocks = blocks

    def __repr__(self) -> str:
        m, k, _ = self.blocks.shape
        return f"BlockAdjacency({m} graphs of {k} nodes, {self.device})"

    @property
    def _held(self) -> Tensor:
        return self.blocks

    @property
    def _learned(self) -> bool:
        return self.blocks.requires_grad

    def to(self, device: torch.device | str) -> Adjacency:
        """The same on another device; itself where it is there already."""
        return self if self.device == torch.device(device) else BlockAdjacency(self.blocks.to(device))

    def __matmul__(self, x: Tensor) -> Tensor:
        """Propagate features ``[n, d]`` (or one number a node, ``[n]``) one step, each graph in itself."""
        if x.dim() == 1:
            return (self @ x[:, None])[:, 0]
        m, k, _ = self.blocks.shape
        return (self.blocks.to(x.dtype) @ x.view(m, k, -1)).flatten(0, 1)

    def degrees(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weight that each node receives ``[n]``."""
        return self.blocks.sum(2).flatten()

    def with_self_loops(self) -> Adjacency:
        """Every node also receives its own features with weight 1."""
        return BlockAdjacency(self.blocks + _eye(self.blocks[0]))

    def normalised(self, self_loops: bool = True, kind: Normalisation = Normalisation.SYMMETRIC) -> Adjacency:
        """The graphs divided by their degrees, see `Adjacency.normalised`; computed once where no gradient comes."""
        key = (self_loops, kind)
        if key in self._normalised:
            return self._normalised[key]
        base = self.blocks + _eye(self.blocks[0]) if self_loops else self.blocks
        degrees = base.sum(2)
        there = degrees > 0
        safe = torch.where(there, degrees, torch.ones_like(degrees))
        inverse = torch.where(there, safe.rsqrt() if kind is Normalisation.SYMMETRIC else 1 / safe, 0.0)
        divided = inverse[:, :, None] * base
        result = BlockAdjacency(divided * inverse[:, None] if kind is Normalisation.SYMMETRIC else divided)
        if not self._learned:
            self._normalised[key] = result
        return result

    def laplacian(self) -> Adjacency:
        """The normalised Laplacian of each graph."""
        inner = self.normalised(self_loops=False)
        assert isinstance(inner, BlockAdjacency)
        return BlockAdjacency(_eye(self.blocks[0]) - inner.blocks)

    def dense(self) -> Tensor:
        """One matrix ``[n, n]``, differentiable."""
        return torch.block_diag(*self.blocks)

    def joined(self) -> Adjacency:
        """The same graphs as edges of weight above or below 0, differentiable in the weights."""
        m, k, _ = self.blocks.shape
        graph, target, source = self.blocks.detach().nonzero(as_tuple=True)
        edges = torch.stack([graph * k + source, graph * k + target])
        return Adjacency.sparse(edges, m * k, self.blocks[graph, target, source])


def _eye(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


class _Propagate(torch.autograd.Function):
    """The product with a constant sparse matrix, whose derivative of any order and mode is again one.

    PyTorch's own compressed rows know neither forward mode nor vmap, and turn the matrix round at each backward pass.
    """

    @staticmethod
    def forward(x: Tensor, graph: Adjacency, transposed: bool) -> Tensor:
        return graph._csr(transposed, x.dtype) @ x

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        _, ctx.graph, ctx.transposed = inputs

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return _Propagate.apply(grad, ctx.graph, not ctx.transposed), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx, tangent, *_):  # type: ignore[no-untyped-def]
        return _Propagate.apply(tangent, ctx.graph, ctx.transposed)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info, in_dims, x, graph, transposed):  # type: ignore[no-untyped-def]
        together = x.movedim(in_dims[0], -1)  # the copies become further columns
        flat = _Propagate.apply(together.flatten(1), graph, transposed)  # type: ignore[no-untyped-call]
        return flat.view(graph.n, *together.shape[1:]), together.dim() - 1
