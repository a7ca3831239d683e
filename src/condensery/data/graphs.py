"""Graphs whose nodes are classified: one large graph with features, labels and a split of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from condensery.adjacency import Adjacency, NodeInput
from condensery.batch import Batch
from condensery.data.graph_checks import (
    check_features,
    check_labels,
    check_nodes,
    check_split,
    check_tidy,
    features_of,
    labelled_only,
    labels_of,
    tidy,
)
from condensery.data.graph_features import AsGiven, FeatureFit, FeatureMap
from condensery.data.graph_splits import Split, SplitData, drawn, proportional, stratified_split

__all__ = ["GraphData", "Split", "digits_graph", "graph_data", "proportional", "stratified_split"]


@dataclass(frozen=True, eq=False, repr=False)
class GraphData(SplitData):
    """An undirected graph with node features and labels, held as tensors on one device.

    Build it with `graph_data` or a reader of `condensery.data.graph_files`, which clean what can be cleaned.

    Attributes:
        name: The data set's name, recorded in artifacts.
        x: float32 ``[n, d]``, preprocessed.
        edges: int64 ``[2, m]``: each undirected edge in both directions, sorted, no self-loops, no duplicates.
        y: int64 ``[n]``: class indices, -1 where the label is unknown (such a node is in no split).
        train: int64: the nodes that condensation may see the labels of.
        validation: int64: the nodes that choices are made on.
        test: int64: the nodes that are only ever scored.
        classes: Class names; their order gives the indices.
        weights: float32 ``[m]``, positive, or ``None`` where every edge weighs 1.
        inductive: Whether training may only see the subgraph of the training nodes, and tests run on that of the
            test nodes; otherwise (transductive) the whole graph is seen throughout, without the other labels.
        preprocessing: What made `x` of the stored features.
        notes: What was cleaned, drawn or assumed, a sentence each.

    Raises:
        ValueError: Where shapes, dtypes, edges, labels or splits do not fit together.

    Example:
        >>> pair = graph_data("pair", torch.eye(2), torch.tensor([[0], [1]]), torch.tensor([0, 1]),
        ...     split=Split(torch.tensor([0, 1]), torch.tensor([]).long(), torch.tensor([]).long()))
        >>> pair
        GraphData(pair: 2 nodes, 1 edges, 2 features, 2 classes, 2/0/0 nodes)
    """

    name: str
    x: Tensor
    edges: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    classes: tuple[str, ...]
    weights: Tensor | None = None
    inductive: bool = False
    preprocessing: FeatureMap = field(default_factory=AsGiven)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_features(self.x)
        check_tidy(self.edges, len(self.x), self.weights)
        check_labels(self.y, len(self.x), self.classes)
        check_split(self.split, self.y)

    def __repr__(self) -> str:
        size = f"{self.num_nodes:,} nodes, {self.num_edges:,} edges, {self.num_features:,} features"
        split = "/".join(str(len(part)) for part in self.split)
        return f"GraphData({self.name}: {size}, {self.num_classes} classes, {split} nodes)"

    def __len__(self) -> int:
        return self.num_nodes

    @property
    def num_nodes(self) -> int:
        """How many nodes: n."""
        return len(self.x)

    @property
    def num_edges(self) -> int:
        """Undirected edges, half of m."""
        return self.edges.shape[1] // 2

    @cached_property
    def adjacency(self) -> Adjacency:
        """The graph as networks propagate on it; the same object at each call, so that what it derives is kept."""
        return Adjacency.sparse(self.edges, self.num_nodes, self.weights)

    def whole(self) -> Batch:
        """All nodes: ``Batch(NodeInput(features [n, d], graph), labels [n])``."""
        return Batch(NodeInput(self.x, self.adjacency), self.y)

    def to(self, device: torch.device | str) -> GraphData:
        """The same on another device; itself where it is there already."""
        if self.device == torch.device(device):
            return self
        names = ("x", "edges", "y", "train", "validation", "test")
        weights = None if self.weights is None else self.weights.to(device)
        return replace(self, **{name: getattr(self, name).to(device) for name in names}, weights=weights)

    def as_inductive(self) -> GraphData:
        """The same graph in the inductive setting."""
        return replace(self, inductive=True)

    def training_view(self) -> GraphData:
        """What training may see: the subgraph of the training nodes where inductive, otherwise all."""
        return self.subgraph(self.train) if self.inductive else self

    def validation_view(self) -> GraphData:
        """What validation runs on: the subgraph of the validation nodes where inductive, otherwise all."""
        return self.subgraph(self.validation) if self.inductive else self

    def test_view(self) -> GraphData:
        """What a test runs on: the subgraph of the test nodes where inductive, otherwise all."""
        return self.subgraph(self.test) if self.inductive else self

    def subgraph(self, nodes: Tensor) -> GraphData:
        """The induced subgraph: some nodes, in the given order, and the edges among them.

        Args:
            nodes: int64 ``[k]``, distinct. Each keeps its part in the split.

        Raises:
            ValueError: If a node is there twice or does not exist.
        """
        nodes = nodes.to(self.device)
        check_nodes(nodes, self.num_nodes)
        place = torch.full((self.num_nodes,), -1, dtype=torch.int64, device=self.device)
        place[nodes] = torch.arange(len(nodes), device=self.device)
        moved = place[self.edges]
        kept = (moved >= 0).all(0)
        edges = moved[:, kept]
        order = (edges[0] * max(len(nodes), 1) + edges[1]).argsort()
        parts = (place[part] for part in self.split)
        train, validation, test = (part[part >= 0].sort().values for part in parts)
        return replace(
            self,
            x=self.x[nodes],
            edges=edges[:, order],
            y=self.y[nodes],
            train=train,
            validation=validation,
            test=test,
            weights=None if self.weights is None else self.weights[kept][order],
        )


def graph_data(
    name: str,
    x: Tensor,
    edges: Tensor,
    y: Tensor | None,
    *,
    split: Split | None = None,
    classes: Sequence[str] | None = None,
    weights: Tensor | None = None,
    fit: FeatureFit = AsGiven.of,
    inductive: bool = False,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> GraphData:
    """A graph from its parts: checked, made undirected, cleaned and split; `notes` of the result says what was done.

    Self-loops are left out (networks add their own), repeated edges become one, an edge in one direction gets the
    other; of different weights for one edge the largest counts. Nodes labelled with a negative number or NaN are
    unlabelled: they stay in the graph and leave the split.

    Args:
        name: The data set's name.
        x: Features ``[n, d]``, any real type, finite.
        edges: Whole numbers ``[2, m]``.
        y: Labels ``[n]`` or ``[n, 1]``.
        split: The nodes of each set; by default drawn: 20 training nodes a class, 500 for validation and 1,000 for
            testing (`stratified_split`), of a graph too small for that a fifth, a fifth and the rest.
        classes: Class names; by default the labels are renumbered in ascending order and name themselves.
        weights: Positive numbers ``[m]``.
        fit: From the training nodes' features to the preprocessing: `AsGiven.of`, `RowNormalised.of`,
            `StandardScaled.of`.
        inductive: See `GraphData`.
        seed: Decides which nodes are drawn.
        notes: What was noted so far.

    Raises:
        ValueError: For what cannot be cleaned: one node, features that are not finite, an edge to a node that does
            not exist, no labels, a class without training nodes, splits that overlap.
    """
    said = list(notes)
    x = features_of(x)
    edges, weights = tidy(edges, len(x), weights, said)
    y, names = labels_of(y, len(x), classes, said)
    if split is None:
        split = drawn(y, seed, said)
    else:
        split = labelled_only(Split(*(part.long() for part in split)), y, said)
        check_split(split, y)
    absent = torch.bincount(y[split.train], minlength=len(names)) == 0
    if bool(absent.any()):
        c = int(absent.nonzero()[0])
        raise ValueError(
            f"Class {names[c]!r} of {name} has no training node; choose a split with one or remove the class."
        )
    prepare = fit(x[split.train])
    return GraphData(
        name,
        prepare(x),
        edges,
        y,
        *split,
        names,
        weights,
        inductive=inductive,
        preprocessing=prepare,
        notes=tuple(said),
    )


def digits_graph(k: int = 8, *, fit: FeatureFit = AsGiven.of, inductive: bool = False, seed: int = 0) -> GraphData:
    """The k-nearest-neighbour graph over scikit-learn's 1,797 handwritten digits: always there, real images.

    Two digits are joined where one is among the k nearest of the other by the distance of their 8 x 8 pixels. The
    features are the pixels in 0..1. 20 digits of each class train, 500 validate and 1,000 test.

    Args:
        k: Neighbours of each digit.
        fit: Preprocessing of the features.
        inductive: See `GraphData`.
        seed: Decides the split.

    Raises:
        ValueError: If k is not between 1 and 1,796.

    Example:
        >>> digits_graph().num_features
        64
    """
    from sklearn.datasets import load_digits
    from sklearn.neighbors import kneighbors_graph

    bunch = load_digits()
    if not 1 <= k < len(bunch.data):
        raise ValueError(f"A digit cannot have {k} nearest neighbours; choose 1 to {len(bunch.data) - 1}.")
    pairs = kneighbors_graph(bunch.data, k).tocoo()
    edges = torch.stack([torch.from_numpy(pairs.row), torch.from_numpy(pairs.col)]).long()
    x, y = torch.from_numpy(bunch.data / 16).float(), torch.from_numpy(bunch.target).long()
    names = tuple("0123456789")
    return graph_data(f"digits-{k}nn", x, edges, y, classes=names, fit=fit, inductive=inductive, seed=seed)
