"""Synthetic sets of graphs: few small graphs with learned features and discrete edges learned through their odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from condensery.adjacency import BlockAdjacency, GraphsInput
from condensery.batch import Batch
from condensery.data.graph_sets import GraphSet
from condensery.synthetic import SortedByClass, shifted

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["Graphs"]

_SURE = 5.0  # log odds of an edge that is there at the start, and minus them of one that is not; from the authors' code


class Graphs(SortedByClass, nn.Module):
    """Synthetic graphs of equal size, sorted by class, whose edges are there or not.

    Each pair of nodes of a graph has log odds, the same in both directions: the mean of the two that are stored. In
    use an edge is there where its odds are above 1 (`discrete`); methods that learn the odds draw differentiable
    edges between 0 and 1 (`relaxed`). Jin et al., KDD 2022, section 3.1.

    Args:
        values: Features ``[m, k, d]`` of m graphs of k nodes, learned.
        logits: Log odds ``[m, k, k]``, learned; the diagonal does not count.
        classes: int64 ``[m]``: the class of each graph, sorted.
        density: Share of the entries of the real adjacencies that are 1; `excess` is measured from it.

    Raises:
        ValueError: If shapes disagree, the classes are not sorted, or the density is not between 0 and 1.

    Example:
        >>> graphs = Graphs(torch.zeros(2, 3, 4), torch.ones(2, 3, 3), torch.tensor([0, 1]), density=0.5)
        >>> x, y = graphs()
        >>> x.features.shape, x.sizes.tolist(), y.tolist(), graphs.rows()
        (torch.Size([6, 4]), [3, 3], [0, 1], {0: slice(0, 1, None), 1: slice(1, 2, None)})
        >>> graphs.discrete()[0].tolist()
        [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """

    density: Tensor

    def __init__(self, values: Tensor, logits: Tensor, classes: Tensor, *, density: float) -> None:
        super().__init__()
        _check(values, logits, classes, density)
        self.values = nn.Parameter(values.detach().clone())
        self.logits = nn.Parameter(logits.detach().clone())
        self.register_buffer("classes", classes.detach().clone())
        self.register_buffer("density", values.new_tensor(float(density)))
        self._count()
        self.register_load_state_dict_post_hook(self._count)  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.values)

    def forward(self) -> Batch:
        """The training batch: the graphs with the edges that are there, and their classes."""
        return Batch(self.joined(self.values, self.discrete()), self.classes)

    def joined(self, values: Tensor, blocks: Tensor) -> GraphsInput:
        """Features ``[m, k, d]`` and edges ``[m, k, k]`` as a network takes them."""
        m, k, _ = values.shape
        owner = torch.arange(m, device=values.device).repeat_interleave(k)
        sizes = torch.full((m,), k, dtype=torch.int64, device=values.device)
        return GraphsInput(values.flatten(0, 1), BlockAdjacency(blocks), owner, sizes)

    def odds(self) -> Tensor:
        """Log odds ``[m, k, k]``, the same in both directions."""
        return (self.logits + self.logits.mT) / 2

    @torch.no_grad()
    def discrete(self) -> Tensor:
        """Edges ``[m, k, k]``, 1 where they are more probable than not and 0 elsewhere."""
        return _without_diagonal((self.odds() > 0).to(self.values.dtype))

    def relaxed(self, temperature: float, generator: Generator) -> Tensor:
        """Edges drawn from the binary concrete distribution ``[m, k, k]``, differentiable in the log odds.

        ``sigmoid((log u - log(1 - u) + l) / temperature)`` with u uniform, the same for both directions (Maddison et
        al., ICLR 2017). It is above 1/2 with the edge's probability at any temperature, and 0 or 1 as that goes to 0.

        Args:
            temperature: Above 0.
            generator: A CPU generator.
        """
        m, k, _ = self.logits.shape
        u = torch.rand(m, k, k, generator=generator, dtype=torch.float64).clamp_(1e-12, 1 - 1e-12)
        u = u.triu(1) + u.triu(1).mT + torch.eye(k, dtype=torch.float64) / 2
        noise = u.logit().to(self.logits, non_blocking=True)
        return _without_diagonal(torch.sigmoid((noise + self.odds()) / temperature))

    def excess(self) -> Tensor:
        """How much more probable edges are in the mean than in the real graphs; 0 where they are less."""
        return torch.relu(torch.sigmoid(self.logits).mean() - self.density)

    def shifted(self, delta: Mapping[str, Tensor]) -> Batch:
        """The batch with parameters moved by `delta` (by parameter name), which stay as they are.

        Raises:
            ValueError: If a name is not a parameter's.
        """
        return shifted(self, delta)

    def project_(self) -> None:
        """Features and log odds may be any numbers: nothing to do."""

    @classmethod
    def from_real(cls, data: GraphSet, counts: Sequence[int], nodes: int, generator: Generator) -> Graphs:
        """Start from real training graphs drawn at random from each class, those of at most `nodes` nodes.

        Smaller ones are filled up with nodes of zeros that nobody is joined to. The log odds are 5 where there is an
        edge and -5 elsewhere.

        Args:
            data: Where to draw from.
            counts: Graphs of each class (0 leaves a class out).
            nodes: Nodes of each synthetic graph; the authors take the mean of the real ones.
            generator: A CPU generator.

        Raises:
            ValueError: If a class has fewer training graphs of that size.
        """
        if len(counts) != data.num_classes or min(counts) < 0 or sum(counts) == 0:
            raise ValueError(f"Counts are {list(counts)}; give one for each of {data.num_classes} classes, not all 0.")
        index = []
        for c, count in enumerate(counts):
            members = data.members(c)
            members = members[data.sizes[members] <= nodes]
            if len(members) < count:
                raise ValueError(
                    f"Class {data.classes[c]!r} has {len(members)} training graphs of at most {nodes} nodes, {count} "
                    "are needed to start from; ask for fewer graphs or more nodes."
                )
            index.append(members[torch.randperm(len(members), generator=generator)[:count].to(members.device)])
        return cls.from_index(data, torch.cat(index), nodes)

    @classmethod
    def from_index(cls, data: GraphSet, index: Tensor, nodes: int) -> Graphs:
        """Start from chosen real graphs, for instance a coreset's.

        Args:
            data: Where the graphs are. Weights of edges are not kept: an edge is there or not.
            index: int64 ``[m]``, those of one class next to each other in class order.
            nodes: Nodes of each synthetic graph.

        Raises:
            ValueError: If a graph has more nodes.
        """
        index = index.to(data.device)
        values, blocks = data.dense(index, nodes)
        there = (blocks > 0).to(values.dtype)
        return cls(values, (2 * there - 1) * _SURE, data.y[index], density=float(there.mean()))

    @torch.no_grad()
    def to_set(self, like: GraphSet | None = None) -> GraphSet:
        """The graphs as data, every one a training graph.

        Args:
            like: The real set, whose name, class names and preprocessing the result takes.
        """
        m, k, d = self.values.shape
        graph, source, target = self.discrete().nonzero(as_tuple=True)
        every = torch.arange(m, device=self.values.device)
        names = tuple(str(c) for c in range(int(self.classes.max()) + 1)) if like is None else like.classes
        held = {} if like is None else {"preprocessing": like.preprocessing}
        return GraphSet(
            "synthetic" if like is None else f"{like.name}-condensed",
            self.values.detach().float().reshape(m * k, d),
            torch.stack([graph * k + source, graph * k + target]),
            torch.full((m,), k, dtype=torch.int64, device=self.values.device),
            self.classes,
            every,
            every[:0],
            every[:0],
            names,
            **held,  # type: ignore[arg-type]
        )

    def to_pyg(self) -> list[Data]:
        """The graphs as PyTorch Geometric's `Data`: ``x``, ``edge_index`` and ``y``.

        Raises:
            ImportError: Without PyTorch Geometric.
        """
        return self.to_set().to_pyg()


def _without_diagonal(blocks: Tensor) -> Tensor:
    return blocks - torch.diag_embed(blocks.diagonal(dim1=1, dim2=2))


def _check(values: Tensor, logits: Tensor, classes: Tensor, density: float) -> None:
    if values.dim() != 3 or not values.is_floating_point():
        raise ValueError(f"Values are {values.dtype} of shape {tuple(values.shape)}; give floats [m, k, d].")
    m, k, _ = values.shape
    if logits.shape != (m, k, k) or logits.dtype != values.dtype:
        raise ValueError(f"Log odds are {logits.dtype} {tuple(logits.shape)}; give {values.dtype} [{m}, {k}, {k}].")
    if classes.shape != (m,) or classes.dtype != torch.int64:
        raise ValueError(f"Classes have shape {tuple(classes.shape)}; give int64 [{m}], one for each graph.")
    if bool((classes[1:] < classes[:-1]).any()):
        raise ValueError("Classes are not sorted; sort the graphs by class.")
    if len(classes) and int(classes[0]) < 0:
        raise ValueError(f"A graph is of class {int(classes[0])}; number the classes from 0.")
    if not 0 <= density <= 1:
        raise ValueError(f"The density is {density}; give a share between 0 and 1.")
