"""Sets of graphs, each with a class of its own: molecules, proteins, digits as graphs of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from condensery.adjacency import Adjacency, GraphsInput
from condensery.data.graph_checks import check_features, check_labels, check_split, check_tidy, tidy
from condensery.data.graph_features import AsGiven, FeatureFit, FeatureMap
from condensery.data.graph_splits import Split, SplitData, stratified_split

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["GraphSet", "digit_graphs", "graph_set", "graph_set_from_pyg"]


@dataclass(frozen=True, eq=False, repr=False)
class GraphSet(SplitData):
    """Many undirected graphs with node features, and a class for each graph, as tensors on one device.

    Build it with `graph_set` or a reader, which clean what can be cleaned.

    Attributes:
        name: The data set's name.
        x: float32 ``[n, d]``: features of all nodes, graph after graph, preprocessed.
        edges: int64 ``[2, m]``: places in `x`; each edge in both directions, sorted, no self-loops, no duplicates.
        sizes: int64 ``[g]``: nodes of each graph, at least 1.
        y: int64 ``[g]``: class indices.
        train: int64: the graphs that condensation may see.
        validation: int64: the graphs that choices are made on.
        test: int64: the graphs that are only ever scored.
        classes: Class names; their order gives the indices.
        weights: float32 ``[m]``, positive, or ``None`` where every edge weighs 1.
        preprocessing: What made `x` of the stored features.
        notes: What was cleaned, drawn or assumed, a sentence each.

    Raises:
        ValueError: Where shapes, edges, labels or splits do not fit together.

    Example:
        >>> digit_graphs()
        GraphSet(digit-graphs: 1,797 graphs of 16 to 36 nodes, 3 features, 10 classes, 1438/180/179 graphs)
    """

    name: str
    x: Tensor
    edges: Tensor
    sizes: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    classes: tuple[str, ...]
    weights: Tensor | None = None
    preprocessing: FeatureMap = field(default_factory=AsGiven)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_features(self.x)
        _check_sizes(self.sizes, len(self.x))
        check_tidy(self.edges, len(self.x), self.weights)
        _check_within(self.edges, self.owner)
        if self.y.dtype != torch.int64 or self.y.shape != self.sizes.shape:
            raise ValueError(f"{len(self)} graphs need int64 labels [{len(self)}], not {self.y.dtype} {self.y.shape}.")
        check_labels(self.y, len(self), self.classes)
        check_split(self.split, self.y)

    def __repr__(self) -> str:
        sizes = f"{len(self):,} graphs of {int(self.sizes.min())} to {int(self.sizes.max())} nodes"
        split = "/".join(str(len(part)) for part in self.split)
        return (
            f"GraphSet({self.name}: {sizes}, {self.num_features} features, {self.num_classes} classes, {split} graphs)"
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def owner(self) -> Tensor:
        """The graph of each node, int64 ``[n]``."""
        return torch.arange(len(self.sizes), device=self.sizes.device).repeat_interleave(self.sizes)

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First node and nodes, first edge and edges of each graph, on the CPU, where batches are put together."""
        sizes = self.sizes.cpu()
        edges = torch.bincount(self.owner[self.edges[0]], minlength=len(self)).cpu()
        return sizes.cumsum(0) - sizes, sizes, edges.cumsum(0) - edges, edges

    def to(self, device: torch.device | str) -> GraphSet:
        """The same on another device; itself where it is there already."""
        if self.device == torch.device(device):
            return self
        names = ("x", "edges", "sizes", "y", "train", "validation", "test")
        weights = None if self.weights is None else self.weights.to(device)
        return replace(self, **{name: getattr(self, name).to(device) for name in names}, weights=weights)

    def batch(self, index: Tensor) -> GraphsInput:
        """Some of the graphs side by side, in the given order.

        Args:
            index: int64 ``[k]``, best on the CPU; a graph may be there more than once.
        """
        index = index.cpu()
        first_node, nodes, first_edge, edges = (part[index] for part in self._places)
        shift = (nodes.cumsum(0) - nodes - first_node).repeat_interleave(edges)
        owner = torch.arange(len(index)).repeat_interleave(nodes)
        at, chosen = _ranges(first_node, nodes), _ranges(first_edge, edges)
        moved = (t.to(self.device, non_blocking=True) for t in (at, chosen, shift, owner, nodes))
        at, chosen, shift, owner, nodes = moved
        weights = None if self.weights is None else self.weights[chosen]
        graph = Adjacency.sparse(self.edges[:, chosen] + shift, len(at), weights)
        return GraphsInput(self.x[at], graph, owner, nodes)

    def dense(self, index: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
        """Some of the graphs as matrices of equal size: what is missing is a node of zeros that nobody is joined to.

        Args:
            index: int64 ``[k]``.
            nodes: Nodes of each.

        Returns:
            Features ``[k, nodes, d]`` and adjacencies ``[k, nodes, nodes]``.

        Raises:
            ValueError: If one of them has more nodes.
        """
        x = self.batch(index)
        if len(index) and int(x.sizes.max()) > nodes:
            raise ValueError(f"A graph of {int(x.sizes.max())} nodes does not fit {nodes}; choose smaller graphs.")
        starts = (x.sizes.cumsum(0) - x.sizes)[x.owner]
        place = torch.arange(len(x.owner), device=self.device) - starts
        values = self.x.new_zeros((len(index), nodes, self.num_features))
        values[x.owner, place] = x.features
        blocks = self.x.new_zeros((len(index), nodes, nodes))
        assert x.graph.edges is not None
        source, target = x.graph.edges
        blocks[x.owner[target], place[target], place[source]] = 1.0 if x.graph.weights is None else x.graph.weights
        return values, blocks

    def subset(self, index: Tensor) -> GraphSet:
        """Some graphs as a set of their own, in the given order, all of them training graphs: a coreset.

        Args:
            index: int64 ``[k]``, distinct.

        Raises:
            ValueError: If there is none, or one twice.
        """
        index = index.to(self.device)
        if len(index) == 0 or len(index.unique()) != len(index):
            raise ValueError("A set needs distinct graphs, at least one; choose some.")
        x, every = self.batch(index), torch.arange(len(index), device=self.device)
        assert x.graph.edges is not None
        return replace(
            self,
            x=x.features,
            edges=x.graph.edges,
            sizes=x.sizes,
            y=self.y[index],
            train=every,
            validation=every[:0],
            test=every[:0],
            weights=x.graph.weights,
        )

    def to_pyg(self) -> list[Data]:
        """The graphs as PyTorch Geometric's `Data`: ``x``, ``edge_index``, ``y``, ``edge_weight`` of weighted edges.

        Raises:
            ImportError: Without PyTorch Geometric.
        """
        try:
            from torch_geometric.data import Data
        except ImportError as error:
            raise ImportError(
                "this needs PyTorch Geometric; install it with: pip install 'condensery[graph]'"
            ) from error
        made = []
        for i in range(len(self)):
            x = self.batch(torch.tensor([i]))
            weights = {} if x.graph.weights is None else {"edge_weight": x.graph.weights}
            made.append(Data(x=x.features, edge_index=x.graph.edges, y=self.y[i : i + 1], **weights))
        return made


def graph_set(
    name: str,
    x: Tensor | None,
    edges: Tensor,
    owner: Tensor,
    y: Tensor,
    *,
    split: Split | None = None,
    classes: Sequence[str] | None = None,
    weights: Tensor | None = None,
    fit: FeatureFit = AsGiven.of,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> GraphSet:
    """A set of graphs from its parts: checked, made undirected, cleaned and split; `notes` says what was done.

    Self-loops are left out (networks add their own), repeated edges become one, an edge in one direction gets the
    other. Nodes without features get their degree as the only one, as DosCond's code has it.

    Args:
        name: The data set's name.
        x: Features of all nodes ``[n, d]``, finite, or ``None``.
        edges: Whole numbers ``[2, m]``: places among all nodes.
        owner: The graph of each node, whole numbers ``[n]`` from 0, ascending.
        y: A label for each graph, whole numbers ``[g]``.
        split: The graphs of each set; by default drawn: of each class eight tenths train, a tenth of all validates.
        classes: Class names; by default the labels are renumbered in ascending order and name themselves.
        weights: Positive numbers ``[m]``.
        fit: From the training nodes' features to the preprocessing.
        seed: Decides a drawn split.
        notes: What was noted so far.

    Raises:
        ValueError: For what cannot be cleaned: features that are not finite, an edge to a node that does not exist or
            that is in another graph, a graph without nodes, a class without training graphs.
    """
    said = list(notes)
    sizes = _sizes_of(owner, len(y))
    edges, weights = tidy(edges, len(owner), weights, said)
    _check_within(edges, owner)
    if x is None:
        x = torch.bincount(edges[1], minlength=len(owner)).float()[:, None]
        said.append("Nodes have no features; their degree is the only one.")
    if x.dim() != 2 or len(x) != len(owner):
        raise ValueError(f"Features have shape {tuple(x.shape)} for {len(owner)} nodes; give one row a node.")
    x = x.to(torch.float32)
    check_features(x)
    labels, names = _labels_of(y, classes)
    if split is None:
        generator = torch.Generator().manual_seed(seed)
        said.append(f"The split was drawn with seed {seed}: eight tenths of each class train, a tenth validates.")
        parts = stratified_split(labels, per_class_train=0.8, validation=0.1, test=None, generator=generator)
        split = Split(*(part.to(labels.device) for part in parts))
    check_split(split, labels)
    absent = torch.bincount(labels[split.train], minlength=len(names)) == 0
    if bool(absent.any()):
        c = int(absent.nonzero()[0])
        raise ValueError(f"Class {names[c]!r} of {name} has no training graph; choose a split with one.")
    seen = torch.zeros(len(sizes), dtype=torch.bool, device=x.device)
    seen[split.train] = True
    prepare = fit(x[seen[owner]])
    return GraphSet(
        name, prepare(x), edges, sizes, labels, *split, names, weights, preprocessing=prepare, notes=tuple(said)
    )


def graph_set_from_pyg(
    graphs: Sequence[Data],
    *,
    name: str = "graphs",
    split: Split | None = None,
    fit: FeatureFit = AsGiven.of,
    seed: int = 0,
) -> GraphSet:
    """A list of PyTorch Geometric's `Data`, or one of its data sets of many graphs.

    ``x``, ``edge_index`` and ``y``, one label a graph, are used.

    Args:
        graphs: The graphs.
        name: The set's name.
        split: See `graph_set`.
        fit: See `graph_set`.
        seed: See `graph_set`.

    Raises:
        ValueError: If one lacks edges or a label, or some have features and others none; see `graph_set`.
    """
    parts: list[Any] = list(graphs)
    if not parts:
        raise ValueError("There is no graph; give some.")
    for i, part in enumerate(parts):
        if not isinstance(part.edge_index, Tensor) or not isinstance(part.y, Tensor) or part.y.numel() != 1:
            raise ValueError(f"Graph {i} has no edge_index or not one label; set edge_index [2, m] and y [1].")
        if (part.x is None) != (parts[0].x is None):
            raise ValueError(f"Graph {i} has features where others have none, or none; give all of them some.")
    sizes = torch.tensor([int(part.num_nodes) for part in parts])
    for i, part in enumerate(parts):  # an edge out of its graph would lie in the next one
        if part.edge_index.numel() and not 0 <= int(part.edge_index.min()) <= int(part.edge_index.max()) < sizes[i]:
            raise ValueError(f"An edge of graph {i} leaves its {int(sizes[i])} nodes; number them from 0.")
    starts = (sizes.cumsum(0) - sizes).tolist()
    edges = torch.cat([part.edge_index.cpu() + start for part, start in zip(parts, starts, strict=True)], 1)
    x = None if parts[0].x is None else torch.cat([part.x.detach().cpu() for part in parts])
    y = torch.cat([part.y.detach().cpu().reshape(1) for part in parts])
    owner = torch.arange(len(parts)).repeat_interleave(sizes)
    return graph_set(name, x, edges, owner, y, split=split, fit=fit, seed=seed)


def digit_graphs(*, ink: float = 0.25, fit: FeatureFit = AsGiven.of, seed: int = 0) -> GraphSet:
    """scikit-learn's 1,797 handwritten digits, each as the graph of its inked pixels: always there, real images.

    The nodes of a digit are the pixels of its 8 x 8 that have at least `ink`; two are joined where they touch, at a
    side or a corner. A node's features are its grey value and its row and column, each from -1 to 1. It is the pixel
    grid of the field's superpixel graphs, at a size at which no superpixels are needed.

    Args:
        ink: The least grey value of a node, above 0 and below 1 (black).
        fit: See `graph_set`.
        seed: Decides the split: of each class eight tenths train, a tenth of all validates.

    Raises:
        ValueError: If so much ink leaves nothing of a digit.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.data / 16).float().view(-1, 8, 8)
    inked = grey >= ink
    if not 0 < ink < 1 or not bool(inked.flatten(1).any(1).all()):
        raise ValueError(f"An ink of {ink} leaves a digit without pixels or is none; choose between 0 and 1.")
    owner, row, column = inked.nonzero(as_tuple=True)
    x = torch.stack([grey[inked] * 2 - 1, row / 3.5 - 1, column / 3.5 - 1], 1)
    place = torch.full((len(grey), 10, 10), -1)
    place[owner, row + 1, column + 1] = torch.arange(len(owner))
    edges = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = place[owner, row + 1 + down, column + 1 + right]
        edges.append(torch.stack([torch.arange(len(owner)), other])[:, other >= 0])
    both = torch.cat([part for pair in edges for part in (pair, pair.flip(0))], 1)
    y = torch.from_numpy(bunch.target).long()
    return graph_set("digit-graphs", x, both, owner, y, classes=tuple("0123456789"), fit=fit, seed=seed)


def _ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """``start, start + 1, ...`` for each count, one after the other."""
    inside = torch.arange(int(counts.sum()), device=counts.device)
    return inside + (starts - (counts.cumsum(0) - counts)).repeat_interleave(counts)


def _sizes_of(owner: Tensor, graphs: int) -> Tensor:
    """Nodes of each graph."""
    if owner.dim() != 1 or owner.is_floating_point() or len(owner) == 0 or bool((owner[1:] < owner[:-1]).any()):
        raise ValueError("The graphs of the nodes are not whole numbers in ascending order; sort the nodes by graph.")
    if int(owner[0]) < 0 or int(owner[-1]) >= graphs:
        raise ValueError(
            f"A node is in graph {int(owner[-1]) if int(owner[0]) >= 0 else int(owner[0])} of {graphs}, counted from "
            "0; give every graph a label."
        )
    sizes = torch.bincount(owner, minlength=graphs)
    _check_sizes(sizes, len(owner))
    return sizes


def _check_sizes(sizes: Tensor, nodes: int) -> None:
    if sizes.dim() != 1 or sizes.dtype != torch.int64 or len(sizes) == 0 or int(sizes.sum()) != nodes:
        raise ValueError(f"Sizes are {sizes.dtype} {tuple(sizes.shape)} for {nodes} nodes; give int64 with that sum.")
    if int(sizes.min()) < 1:
        raise ValueError(f"Graph {int(sizes.argmin())} has no node; leave it out or give it one.")


def _check_within(edges: Tensor, owner: Tensor) -> None:
    crossing = (owner[edges[0]] != owner[edges[1]]).nonzero()
    if len(crossing):
        a, b = edges[:, int(crossing[0])].tolist()
        raise ValueError(
            f"An edge joins nodes {a} and {b} of graphs {int(owner[a])} and {int(owner[b])}; drop edges between graphs."
        )


def _labels_of(y: Tensor, classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Class indices and names."""
    if y.dim() != 1 or not bool((y == y.round() if y.is_floating_point() else y == y).all()):
        raise ValueError(f"Labels are {y.dtype} of shape {tuple(y.shape)}; give a whole number for each graph, [g].")
    y = y.long()
    if classes is not None:
        check_labels(y, len(y), tuple(classes))
        if int(y.min()) < 0:
            raise ValueError("A graph has no label; leave it out or give it one.")
        return y, tuple(classes)
    names, index = y.unique(return_inverse=True)
    return index, tuple(str(c) for c in names.tolist())
