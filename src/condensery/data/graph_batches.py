"""Real nodes of a class with their neighbourhoods: whole ones, or sampled ones of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Generator, Tensor

from condensery.adjacency import Adjacency, NodeInput, Normalisation

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData

__all__ = ["ClassBatch", "ClassBatches", "SampledAdjacency"]


class ClassBatch(NamedTuple):
    """Nodes of one class and the nodes around them.

    Attributes:
        x: All of them: features ``[m, d]`` and their graph. The nodes of the class come first.
        size: How many those are; only their outputs mean anything.
    """

    x: NodeInput
    size: int


class SampledAdjacency(Adjacency):
    """Some of the edges of a larger graph, which is normalised by the degrees in that larger graph.

    Args:
        edges: int64 ``[2, k]``: sources and targets among the n nodes.
        weights: float ``[k]``: those of the larger graph, times the neighbours that an edge stands for.
        degrees: float ``[n]``: of the nodes in the larger graph, without self-loops.
    """

    def __init__(self, edges: Tensor, weights: Tensor, degrees: Tensor) -> None:
        super().__init__(len(degrees), edges=edges, weights=weights)
        self._degrees = degrees

    def degrees(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weight that each node receives in the larger graph ``[n]``."""
        return self._degrees.to(dtype)

    def to(self, device: torch.device | str) -> Adjacency:
        """The same on another device; itself where it is there already."""
        if self.device == torch.device(device):
            return self
        assert self.edges is not None
        assert self.weights is not None
        return SampledAdjacency(self.edges.to(device), self.weights.to(device), self._degrees.to(device))

    def normalised(self, self_loops: bool = True, kind: Normalisation = Normalisation.SYMMETRIC) -> Adjacency:
        """These edges as they are in the larger graph's normalised matrix; self-loops are never left out."""
        key = (self_loops, kind)
        if key not in self._normalised:
            self._normalised[key] = self._by_the_larger_graph(self_loops, kind)
        return self._normalised[key]

    def _by_the_larger_graph(self, self_loops: bool, kind: Normalisation) -> Adjacency:
        degrees = self._degrees + 1 if self_loops else self._degrees
        there = degrees > 0
        safe = torch.where(there, degrees, 1.0)
        symmetric = kind is Normalisation.SYMMETRIC
        inverse = torch.where(there, safe.rsqrt() if symmetric else 1 / safe, 0.0)
        base = self.with_self_loops() if self_loops else self
        assert base.edges is not None
        assert base.weights is not None
        weights = base.weights * inverse[base.edges[1]]
        return Adjacency(self.n, edges=base.edges, weights=weights * inverse[base.edges[0]] if symmetric else weights)


class ClassBatches:
    """Batches of real training nodes of one class, each with as much of its neighbourhood as a network looks at.

    From a node of the batch the edges are followed outwards, once for each entry of `fanouts`: a number takes that many
    neighbours of each node at random, without repetition, and ``None`` takes all. As many entries as a network
    propagates are needed; with ``None`` alone its outputs at the batch's nodes are those on the whole graph.

    Sampled edges stand for those left out: their weights are multiplied by neighbours over neighbours taken, and
    networks normalise by the degrees of the whole graph. So one propagation is right in the mean, and a node never
    loses its self-loop. Nodes in a batch are at most ``size * (1 + f_1 + f_1 f_2 + ...)``, whatever the graph.

    The choice is made on the CPU, where the list of neighbours is held; features are taken on the data's device.

    Args:
        data: The graph; in the inductive setting its training subgraph is used.
        size: Nodes of the class in a batch, or ``None`` for all. A smaller class is taken whole.
        fanouts: Neighbours of a node at each distance.
        scaled: Whether sampled edges stand for those left out. Without it, as in GCond's code, nodes with more
            neighbours than are taken receive less than they should.

    Raises:
        ValueError: If a number is below 1 or there is no fanout.

    Example:
        >>> from condensery.data.graphs import digits_graph
        >>> batches = ClassBatches(digits_graph(), size=4, fanouts=(3, 2))
        >>> x, size = batches.draw(0, torch.Generator().manual_seed(0))
        >>> size, len(x.features) <= 4 * (1 + 3 + 3 * 2)
        (4, True)
    """

    def __init__(
        self,
        data: GraphData,
        *,
        size: int | None = 256,
        fanouts: Sequence[int | None] = (10, 5),
        scaled: bool = True,
    ) -> None:
        if (size is not None and size < 1) or not fanouts or any(f is not None and f < 1 for f in fanouts):
            raise ValueError(
                f"Batches of {size} nodes with fanouts {tuple(fanouts)} are impossible; give at least 1 node and at "
                "least one fanout, each at least 1 or None."
            )
        self.data, self.size, self.fanouts, self.scaled = data.training_view(), size, tuple(fanouts), scaled
        edges = self.data.edges.cpu()  # sorted by their first row; undirected, so it may be read as the targets
        counts = torch.bincount(edges[0], minlength=self.data.num_nodes)
        self._counts, self._starts, self._neighbours = counts, counts.cumsum(0) - counts, edges[1]
        weights = self.data.weights
        self._weights = None if weights is None else weights.cpu()
        self._degrees = self.data.adjacency.degrees().cpu()
        self._place = torch.full((self.data.num_nodes,), -1)  # -1 between two calls: clearing it would take n steps
        self._members = [self.data.members(c).cpu() for c in range(self.data.num_classes)]

    def is_fixed(self, c: int) -> bool:
        """Whether every batch of class `c` is the same: all of its nodes with all of their neighbourhoods."""
        return self._is_whole(c) and all(fanout is None for fanout in self.fanouts)

    def choose(self, c: int, generator: Generator) -> Tensor:
        """Training nodes of class `c`, int64 ``[k]``, on the CPU; all of them, undrawn, where they are at most `size`.

        Args:
            c: The class.
            generator: A CPU generator.

        Raises:
            ValueError: If the class has no training node.
        """
        members = self._members[c]
        if len(members) == 0:
            raise ValueError(f"Class {self.data.classes[c]!r} has no training node; leave it out of the synthetic set.")
        if self._is_whole(c):
            return members
        return members[torch.randperm(len(members), generator=generator)[: self.size]]

    def draw(self, c: int, generator: Generator) -> ClassBatch:
        """A batch of class `c`.

        Args:
            c: The class.
            generator: A CPU generator, which is left alone where the batch is fixed.

        Raises:
            ValueError: If the class has no training node.
        """
        seeds = self.choose(c, generator)
        return ClassBatch(self.around(seeds, generator), len(seeds))

    def around(self, seeds: Tensor, generator: Generator) -> NodeInput:
        """Nodes with their neighbourhoods, the nodes themselves first.

        Args:
            seeds: int64 ``[k]``, distinct, on the CPU.
            generator: A CPU generator.
        """
        nodes, sources, targets, weights = [seeds], [], [], []
        self._place[seeds] = torch.arange(len(seeds))
        known, frontier = len(seeds), seeds
        for fanout in self.fanouts:
            row, edge, weight = self._followed(frontier, fanout, generator)
            reached = self._neighbours[edge]
            new = reached[self._place[reached] < 0].unique()
            self._place[new] = torch.arange(known, known + len(new))
            sources.append(self._place[reached])
            targets.append(self._place[frontier[row]])
            weights.append(weight)
            nodes.append(new)
            known, frontier = known + len(new), new
        every = torch.cat(nodes)
        self._place[every] = -1
        edges = torch.stack([torch.cat(sources), torch.cat(targets)])
        graph = SampledAdjacency(edges, torch.cat(weights), self._degrees[every])
        device = self.data.device
        return NodeInput(self.data.x[every.to(device, non_blocking=True)], graph.to(device))

    def _is_whole(self, c: int) -> bool:
        return self.size is None or len(self._members[c]) <= self.size

    def _followed(self, nodes: Tensor, fanout: int | None, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Edges into `nodes`: whose, which of all edges, and their weight, each ``[k]``."""
        counts = self._counts[nodes]
        if fanout is None:
            row = torch.arange(len(nodes)).repeat_interleave(counts)
            offset = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        else:
            chosen = _distinct(counts, fanout, generator)
            row, column = (chosen < counts[:, None]).nonzero(as_tuple=True)
            offset = chosen[row, column]
        edge = self._starts[nodes][row] + offset
        weight = torch.ones(len(edge)) if self._weights is None else self._weights[edge]
        if fanout is not None and self.scaled:
            weight = weight * (counts / fanout).clamp(min=1)[row]
        return row, edge, weight


def _distinct(counts: Tensor, k: int, generator: Generator) -> Tensor:
    """For each row k distinct numbers below its count, every set equally likely: int64 ``[rows, k]``.

    Rows with a count of at most k have 0, 1, ..., k - 1, some of them not below the count. This is Floyd's algorithm,
    which takes k steps and no list of the candidates: the degree of a hub costs nothing.
    """
    u = torch.rand(len(counts), k, generator=generator, dtype=torch.float64)
    chosen = torch.full((len(counts), k), -1)
    for i in range(k):
        top = counts - k + i
        drawn = torch.minimum((u[:, i] * (top + 1)).long(), top)
        drawn = torch.where((chosen == drawn[:, None]).any(1), top, drawn)
        chosen[:, i] = torch.where(counts <= k, i, drawn)
    return chosen
