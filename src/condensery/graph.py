"""The synthetic graph: few nodes with learned features, and who is joined to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from condensery.adjacency import Adjacency, NodeInput
from condensery.batch import Batch
from condensery.data.graphs import GraphData, proportional
from condensery.synthetic import SortedByClass, shifted

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = [
    "CountRule",
    "FixedAdjacency",
    "FreeAdjacency",
    "Graph",
    "IdentityAdjacency",
    "PairwiseMlp",
    "Structure",
    "class_counts",
]


class CountRule(StrEnum):
    """How the synthetic nodes are shared among the classes."""

    LARGEST_REMAINDER = "largest-remainder"
    """In proportion to the training nodes, at least one each, with the exact total."""
    AUTHORS = "authors"
    """``max(int(r n_c), 1)`` for all but the largest class, which gets what is left, as GCond's code has it."""


class Structure(nn.Module):
    """Who is joined to whom, as a function of the nodes' features; its parameters are learned with them."""

    def forward(self, values: Tensor) -> Adjacency:
        """The graph of nodes with features ``[n', d]``, differentiable in them and in the parameters."""
        raise NotImplementedError(f"{type(self).__name__} gives no graph; define its forward(values).")

    def project_(self) -> None:
        """Put the parameters back where they must lie; by default they may lie anywhere."""


class IdentityAdjacency(Structure):
    """Nobody is joined: ``A' = I`` of GCond-X, GCDM and SFGC.

    With the self-loops that networks add it is the identity, whose propagation costs nothing.

    Example:
        >>> graph = IdentityAdjacency()(torch.ones(2, 3))
        >>> (graph.normalised() @ torch.ones(2, 3)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def forward(self, values: Tensor) -> Adjacency:
        """A graph of n' nodes without edges."""
        return Adjacency.empty(len(values), values.device)


class FixedAdjacency(Structure):
    """A graph that is not learned, such as that of a coreset or of a finished run.

    Args:
        graph: Who is joined to whom, with what weight.

    Example:
        >>> path = Adjacency.sparse(torch.tensor([[0, 1], [1, 0]]), 2)
        >>> FixedAdjacency(path)(torch.ones(2, 3)).dense().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """

    matrix: Tensor | None
    edges: Tensor | None
    weights: Tensor | None

    def __init__(self, graph: Adjacency) -> None:
        super().__init__()
        self.n = graph.n
        for name in ("matrix", "edges", "weights"):
            part = getattr(graph, name)
            self.register_buffer(name, None if part is None else part.detach().clone())

    def forward(self, values: Tensor) -> Adjacency:
        """The graph, whatever the features."""
        if len(values) != self.n:
            raise ValueError(f"{len(values)} nodes do not fit a graph of {self.n}; give one row a node.")
        return Adjacency(self.n, edges=self.edges, weights=self.weights, matrix=self.matrix)


class FreeAdjacency(Structure):
    """Every pair of nodes has a learned weight of its own, the same in both directions.

    `project_` keeps the weights between 0 and 1.

    Args:
        entries: The weights to start from ``[n', n']``; the mean of both directions counts, the diagonal does not.

    Raises:
        ValueError: If they are not a square of numbers.

    Example:
        >>> FreeAdjacency(torch.tensor([[5.0, 1.0], [0.0, 5.0]]))(torch.ones(2, 3)).dense().tolist()
        [[0.0, 0.5], [0.5, 0.0]]
    """

    def __init__(self, entries: Tensor) -> None:
        super().__init__()
        if entries.dim() != 2 or entries.shape[0] != entries.shape[1] or not entries.is_floating_point():
            raise ValueError(f"Weights are {entries.dtype} of shape {tuple(entries.shape)}; give floats [n, n].")
        self.entries = nn.Parameter(entries.detach().clone())

    def forward(self, values: Tensor) -> Adjacency:
        """The dense weighted graph."""
        if len(values) != len(self.entries):
            raise ValueError(f"{len(values)} nodes do not fit weights of {len(self.entries)}; give one row a node.")
        return Adjacency.dense_matrix(_without_diagonal((self.entries + self.entries.T) / 2))

    @torch.no_grad()
    def project_(self) -> None:
        """Keep the weights between 0 and 1."""
        self.entries.clamp_(0, 1)


class PairwiseMlp(Structure):
    """GCond's structure generator: a small network sees two nodes' features and says how strongly they are joined.

    Jin et al., "Graph Condensation for Graph Neural Networks", ICLR 2022, eq. 8: ``A_ij = sigmoid((s([x_i; x_j]) +
    s([x_j; x_i])) / 2)`` with a multilayer perceptron s, batch-normalised over all n'^2 pairs as in the authors' code;
    the diagonal is zero.

    The first layer is linear in x_i and x_j, and all pairs are there: its outputs are ``a_i + b_j`` and their mean and
    variance the sums of those of a and b. So the pairs' inputs ``[n'^2, 2 d]`` and first outputs are never made.

    Args:
        features: Features of a node, d.
        hidden: Width; the authors use 128, and 256 for ogbn-arxiv, Flickr and Reddit.
        layers: Linear layers, at least 2; the authors' number is 3.
        generator: A CPU generator for the initial weights, which follow PyTorch's rule for linear layers.

    Raises:
        ValueError: For fewer than 2 layers.

    Example:
        >>> mlp = PairwiseMlp(4, hidden=8, generator=torch.Generator().manual_seed(0))
        >>> graph = mlp(torch.eye(4)).dense().detach()
        >>> bool((graph == graph.T).all()), float(graph.diagonal().sum())
        (True, 0.0)
    """

    def __init__(self, features: int, *, hidden: int = 128, layers: int = 3, generator: Generator) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"The pairwise network has {layers} layers; give at least 2.")
        self.first = _linear(2 * features, hidden, generator)
        self.hidden = nn.ModuleList(_linear(hidden, hidden, generator) for _ in range(layers - 2))
        self.last = _linear(hidden, 1, generator)
        self.scales = nn.ParameterList(torch.ones(hidden) for _ in range(layers - 1))
        self.shifts = nn.ParameterList(torch.zeros(hidden) for _ in range(layers - 1))

    def forward(self, values: Tensor) -> Adjacency:
        """The dense weighted graph of nodes with features ``[n', d]``."""
        n, d = values.shape
        if 2 * d != self.first.in_features:
            raise ValueError(
                f"Nodes have {d} features, the pairwise network was built for {self.first.in_features // 2}; "
                "build it for theirs."
            )
        h = self._first_layer(values)
        for layer, scale, shift in zip(self.hidden, self.scales[1:], self.shifts[1:], strict=True):
            h = torch.relu_(_batch_norm(layer(h), scale, shift))
        s = self.last(h).view(n, n)
        return Adjacency.dense_matrix(_without_diagonal(torch.sigmoid((s + s.T) / 2)))

    def _first_layer(self, values: Tensor) -> Tensor:
        """Outputs of the first layer for all pairs, ``[n'^2, hidden]``, normalised."""
        left, right = self.first.weight.chunk(2, 1)
        a, b = values @ left.T, values @ right.T  # the bias drops out of the normalisation
        deviation = (a.var(0, correction=0) + b.var(0, correction=0) + _EPS).sqrt()
        factor = self.scales[0] / deviation
        a = (a - a.mean(0)) * factor
        b = (b - b.mean(0)) * factor + self.shifts[0]
        return torch.relu_(a[:, None] + b).flatten(0, 1)


_EPS = 1e-5  # of batch normalisation, PyTorch's default


class Graph(SortedByClass, nn.Module):
    """Synthetic nodes with their labels and the graph over them.

    Args:
        values: Features ``[n', d]`` in the space a network sees (after preprocessing), learned.
        classes: int64 ``[n']``: the class each node stands for, whatever its label says. Sorted; -1, before the others,
            for nodes that stand for none: they are in the graph and train nothing (`coresets.coarsening`).
        adjacency: Who is joined to whom; by default nobody (`IdentityAdjacency`).
        labels: ``None`` for hard labels (the classes), or soft labels ``[n', C]``.
        learn_labels: Whether the soft labels are learned too.
        logits: Whether the label rows are logits, given to networks through a softmax.
        step_size: Initial learned step size for training on this graph, or ``None`` for none.
        step_floor: The step size is kept at or above this; ``None`` leaves it free.
        bound: Projection applied to the values after each step.

    Raises:
        ValueError: If shapes disagree or the classes are not sorted.

    Example:
        >>> graph = Graph(torch.zeros(3, 5), torch.tensor([0, 0, 1]))
        >>> x, y = graph()
        >>> x.features.shape, x.graph.n, y.tolist(), graph.rows()
        (torch.Size([3, 5]), 3, [0, 0, 1], {0: slice(0, 2, None), 1: slice(2, 3, None)})
    """

    classes: Tensor

    def __init__(
        self,
        values: Tensor,
        classes: Tensor,
        *,
        adjacency: Structure | None = None,
        labels: Tensor | None = None,
        learn_labels: bool = False,
        logits: bool = False,
        step_size: float | None = None,
        step_floor: float | None = None,
        bound: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        _check(values, classes, labels)
        if learn_labels and labels is None:
            raise ValueError("Hard labels cannot be learned; give `labels`, for instance one_hot(classes).float().")
        self.logits, self.bound, self.step_floor = logits, bound, step_floor
        self.values = nn.Parameter(values.detach().clone())
        self.register_buffer("classes", classes.detach().clone())
        self.adjacency: Structure = IdentityAdjacency() if adjacency is None else adjacency
        soft = None if labels is None else labels.detach().clone()
        if learn_labels and soft is not None:
            self.labels: Tensor | None = nn.Parameter(soft)
        else:
            self.register_buffer("labels", soft)
        self._count()
        self.register_load_state_dict_post_hook(self._count)  # type: ignore[no-untyped-call]
        self.step_size = None if step_size is None else nn.Parameter(values.new_tensor(float(step_size)))

    @property
    def kind_of_labels(self) -> str:
        """``"hard"``, ``"soft"`` or ``"learned"``."""
        if self.labels is None:
            return "hard"
        return "learned" if isinstance(self.labels, nn.Parameter) else "soft"

    def forward(self) -> Batch:
        """The training batch: ``NodeInput(features [n', d], graph)`` and labels, both sorted by class."""
        y = self.soft_labels()
        return Batch(NodeInput(self.values, self.adjacency(self.values)), self.classes if y is None else y)

    def soft_labels(self) -> Tensor | None:
        """Soft labels ``[n', C]`` as networks are given them, or ``None`` where the labels are hard."""
        return self.labels.softmax(1) if self.labels is not None and self.logits else self.labels

    def shifted(self, delta: Mapping[str, Tensor]) -> Batch:
        """The batch with parameters moved by `delta` (by parameter name, e.g. ``{"values": noise}``), which stay as
        they are.

        Raises:
            ValueError: If a name is not a parameter's.
        """
        return shifted(self, delta)

    @torch.no_grad()
    def project_(self) -> None:
        """Apply the bound to the values, the structure's own rule and the floor to the step size, if there are any."""
        if self.bound is not None:
            self.values.copy_(self.bound(self.values))
        self.adjacency.project_()
        if self.step_size is not None and self.step_floor is not None:
            self.step_size.clamp_(min=self.step_floor)

    @classmethod
    def from_real(cls, data: GraphData, counts: Sequence[int], generator: Generator, **options: object) -> Graph:
        """Start from features of real training nodes drawn at random from each class.

        Args:
            data: Where to draw from.
            counts: Nodes of each class, as `class_counts` gives them (0 leaves a class out).
            generator: Draws the nodes.
            options: As the class's.

        Raises:
            ValueError: If a class has fewer training nodes than asked.
        """
        if len(counts) != data.num_classes or min(counts) < 0 or sum(counts) == 0:
            raise ValueError(f"Counts are {list(counts)}; give one for each of {data.num_classes} classes, not all 0.")
        index = []
        for c, count in enumerate(counts):
            members = data.members(c)
            if len(members) < count:
                raise ValueError(
                    f"Class {data.classes[c]!r} has {len(members)} training nodes, {count} are needed to start from; "
                    "ask for fewer."
                )
            index.append(members[torch.randperm(len(members), generator=generator)[:count].to(members.device)])
        return cls.from_index(data, torch.cat(index), **options)

    @classmethod
    def from_index(cls, data: GraphData, index: Tensor, **options: object) -> Graph:
        """Start from features of chosen real nodes, for instance a coreset's.

        Args:
            data: Where the nodes are.
            index: int64 ``[n']``, those of one class next to each other in class order.
            options: As the class's.
        """
        index = index.to(data.device)
        return cls(data.x[index], data.y[index], **options)  # type: ignore[arg-type]

    @torch.no_grad()
    def frozen(self) -> Graph:
        """A copy whose edges are those of now and are not learned any more."""
        graph = self.adjacency(self.values)
        if graph.matrix is not None:
            graph = Adjacency.dense_matrix(_symmetric(graph.matrix))
        none = graph.edges is not None and graph.edges.shape[1] == 0
        return Graph(
            self.values,
            self.classes,
            adjacency=None if none else FixedAdjacency(graph),
            labels=self.labels,
            learn_labels=self.kind_of_labels == "learned",
            logits=self.logits,
            step_size=None if self.step_size is None else float(self.step_size),
        )

    @torch.no_grad()
    def sparsified(self, threshold: float = 0.0, *, like: GraphData | None = None) -> GraphData:
        """The graph as data: edges of at least the threshold with their weights, every node of a class a training node.

        Soft labels are not part of it: it has the classes that the nodes stand for.

        Args:
            threshold: Smaller weights are dropped (GCond's epsilon), and weights that are not positive always.
            like: The real graph, whose name, class names and preprocessing the result takes.
        """
        edges, weights = _kept(self.adjacency(self.values), threshold)
        nodes = (self.classes >= 0).nonzero().flatten()
        names = tuple(str(c) for c in range(int(self.classes.max()) + 1)) if like is None else like.classes
        held = {} if like is None else {"preprocessing": like.preprocessing}
        return GraphData(
            "synthetic" if like is None else f"{like.name}-condensed",
            self.values.detach().float(),
            edges,
            self.classes,
            nodes,
            nodes[:0],
            nodes[:0],
            names,
            weights,
            notes=() if weights is None else (f"Edges of weight below {threshold:g} were dropped.",),
            **held,  # type: ignore[arg-type]
        )

    def to_pyg(self, threshold: float = 0.0) -> Data:
        """The sparsified graph as PyTorch Geometric's `Data`; soft labels are its ``soft_y`` ``[n', C]``.

        Raises:
            ImportError: Without PyTorch Geometric.
        """
        from condensery.data.graph_pyg import to_pyg

        graph, soft = to_pyg(self.sparsified(threshold)), self.soft_labels()
        if soft is not None:
            graph.soft_y = soft.detach()
        return graph


def class_counts(
    y: Tensor,
    total: int | None = None,
    *,
    ratio: float | None = None,
    classes: int | None = None,
    rule: CountRule = CountRule.LARGEST_REMAINDER,
) -> list[int]:
    """How many synthetic nodes each class gets, in proportion to its training nodes.

    Deviations from the authors' code of GCond (1): there ``max(int(r n_c), 1)`` is taken in ascending order of the
    classes and the largest class absorbs the remainder, which can leave it with none; here it is the largest
    remainder, at least 1 a class and the exact total. ``CountRule.AUTHORS`` is theirs, and refuses where it would fail.

    Args:
        y: Labels of the training nodes, int64.
        total: Nodes in all, or
        ratio: nodes in all as a share of the training nodes, rounded down (GCond's r).
        classes: How many classes there are; by default the largest label and one.
        rule: How they are shared.

    Raises:
        ValueError: Unless exactly one of total and ratio is given, if a class has no training node, or if the nodes
            do not suffice for every class.

    Example:
        >>> y = torch.tensor([0] * 5 + [1] * 75 + [2] * 20)
        >>> class_counts(y, 10), class_counts(y, ratio=0.1, rule=CountRule.AUTHORS)
        ([1, 7, 2], [1, 7, 2])
    """
    if (total is None) == (ratio is None):
        raise ValueError("Give the total of synthetic nodes or their ratio to the training nodes; one of the two.")
    sizes: list[int] = torch.bincount(y, minlength=classes or 0).tolist()
    if not sizes or min(sizes) == 0:
        c = sizes.index(0) if sizes else 0
        raise ValueError(f"Class {c} has no training node; choose a split in which it has some.")
    if total is None:
        assert ratio is not None
        total = int(ratio * len(y) + 1e-9)  # 0.1 of 70 is 7
    if total < len(sizes):
        raise ValueError(f"{total} synthetic nodes do not suffice for {len(sizes)} classes; ask for one each at least.")
    if rule is CountRule.LARGEST_REMAINDER:
        return proportional(sizes, total, least=1)
    return _authors_counts(sizes, ratio if ratio is not None else total / len(y), total)


def _authors_counts(sizes: list[int], ratio: float, total: int) -> list[int]:
    counts = [max(int(ratio * size), 1) for size in sizes]
    largest = max(range(len(sizes)), key=lambda c: (sizes[c], c))
    counts[largest] = total - (sum(counts) - counts[largest])
    if counts[largest] < 1:
        raise ValueError(
            f"The authors' rule leaves {counts[largest]} nodes to class {largest}; ask for more or use the largest "
            "remainder."
        )
    return counts


def _kept(graph: Adjacency, threshold: float) -> tuple[Tensor, Tensor | None]:
    """Edges ``[2, m]``, sorted, of positive weight and at least the threshold, and their weights where they differ."""
    if graph.edges is not None:
        weights = torch.ones_like(graph.edges[0], dtype=torch.float32) if graph.weights is None else graph.weights
        kept = (weights >= threshold) & (weights > 0) & (graph.edges[0] != graph.edges[1])
        edges, weights = graph.edges[:, kept], weights[kept].float()
        order = (edges[0] * graph.n + edges[1]).argsort()
        return edges[:, order], None if graph.weights is None else weights[order]
    matrix = _symmetric(graph.dense())
    chosen = (matrix >= threshold) & (matrix > 0) & ~torch.eye(graph.n, dtype=torch.bool, device=matrix.device)
    return chosen.nonzero().T.contiguous(), matrix[chosen].float()


def _symmetric(matrix: Tensor) -> Tensor:
    """A matrix that is symmetric but for rounding, without it: vectorised functions round an entry by its place."""
    return (matrix + matrix.T) / 2


def _linear(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    """A linear layer drawn by PyTorch's rule, from `generator`."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    assert isinstance(layer, nn.Linear)
    return layer


def _batch_norm(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Batch normalisation by the batch's own statistics, of rows ``[m, hidden]``."""
    return torch.nn.functional.batch_norm(h, None, None, scale, shift, training=True, eps=_EPS)


def _without_diagonal(matrix: Tensor) -> Tensor:
    return matrix - torch.diag(matrix.diagonal())


def _check(values: Tensor, classes: Tensor, labels: Tensor | None) -> None:
    if values.dim() != 2 or not values.is_floating_point():
        raise ValueError(f"Values are {values.dtype} of shape {tuple(values.shape)}; give floats [n, d].")
    if classes.shape != values.shape[:1] or classes.dtype != torch.int64:
        raise ValueError(f"Classes have shape {tuple(classes.shape)}; give int64 [{len(values)}], one for each node.")
    if bool((classes[1:] < classes[:-1]).any()):
        raise ValueError("Classes are not sorted; sort the nodes by class.")
    if len(classes) and not (int(classes[0]) >= -1 and int(classes[-1]) >= 0):
        raise ValueError("No node is of a class, or one of a class below -1; number the classes from 0.")
    if labels is not None and (labels.dim() != 2 or len(labels) != len(values)):
        raise ValueError(f"Labels have shape {tuple(labels.shape)}; give one row for each node, [{len(values)}, C].")
