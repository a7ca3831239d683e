"""What a graph must be, each complaint one sentence; what can be cleaned is, and noted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from condensery.data.graph_splits import Split


def features_of(x: Tensor) -> Tensor:
    """Features ``[n, d]`` of any real type as float32, of two nodes at least, finite."""
    if x.dim() != 2 or x.is_complex():
        raise ValueError(f"Features are {x.dtype} of shape {tuple(x.shape)}; give numbers [n, d].")
    if len(x) < 2:
        raise ValueError(f"The graph is of size {len(x)}; give at least 2 nodes.")
    x = x.to(torch.float32)
    check_features(x)  # before anything is fitted to them
    return x


def tidy(edges: Tensor, n: int, weights: Tensor | None, notes: list[str]) -> tuple[Tensor, Tensor | None]:
    """Edges in both directions, sorted, without self-loops and duplicates; what changed goes into `notes`."""
    if edges.dim() != 2 or len(edges) != 2 or edges.is_floating_point() or edges.dtype == torch.bool:
        raise ValueError(f"Edges are {edges.dtype} of shape {tuple(edges.shape)}; give whole numbers [2, m].")
    edges = edges.long()
    _check_range(edges, n)
    if weights is not None:
        weights = weights.to(torch.float32)
        _check_weights(weights, edges)
    proper = edges[0] != edges[1]
    if loops := int((~proper).sum()):
        notes.append(f"{loops} self-loops were left out.")
    edges, weights = edges[:, proper], None if weights is None else weights[proper]
    low, high = edges.min(0).values, edges.max(0).values
    keys, inverse = (low * n + high).unique(return_inverse=True)
    given = len((edges[0] * n + edges[1]).unique())
    if repeats := edges.shape[1] - given:
        notes.append(f"{repeats} repeated edges were left out.")
    if lone := 2 * len(keys) - given:
        notes.append(f"{lone} edges were given in one direction and got the other.")
    low, high = torch.div(keys, n, rounding_mode="floor"), keys % n
    both = torch.stack([torch.cat([low, high]), torch.cat([high, low])])
    order = (both[0] * n + both[1]).argsort()
    if weights is not None:
        weights = weights.new_zeros(len(keys)).scatter_reduce(0, inverse, weights, "amax").repeat(2)[order]
    return both[:, order], weights


def labels_of(
    y: Tensor | None, n: int, classes: Sequence[str] | None, notes: list[str]
) -> tuple[Tensor, tuple[str, ...]]:
    """Class indices with -1 for unknown, and names."""
    if y is None:
        raise ValueError("The graph has no labels; give one for each node, -1 where it is unknown.")
    y = y[:, 0] if y.dim() == 2 and y.shape[1] == 1 else y
    if y.shape != (n,):
        raise ValueError(f"Labels have shape {tuple(y.shape)} for {n} nodes; give one class index a node, [{n}].")
    if y.is_floating_point():
        y = torch.where(y.isfinite(), y, torch.full_like(y, -1))
        if bool((y != y.round()).any()):
            raise ValueError("Labels are not whole numbers; give class indices.")
    y = y.long().clamp_min(-1)
    used = y[y >= 0].unique()
    if len(used) == 0:
        raise ValueError("No node has a label; give the labels of some.")
    if unknown := int((y < 0).sum()):
        notes.append(f"{unknown} nodes without a label stay in the graph and in no split.")
    if classes is None:
        place = torch.full((int(used[-1]) + 1,), -1, device=y.device)
        place[used] = torch.arange(len(used), device=y.device)
        return torch.where(y >= 0, place[y.clamp_min(0)], y), tuple(str(c) for c in used.tolist())
    check_labels(y, n, tuple(classes))
    if empty := sorted(set(range(len(classes))) - set(used.tolist())):
        raise ValueError(f"Class {classes[empty[0]]!r} has no node; remove its name or give it nodes.")
    return y, tuple(classes)


def labelled_only(split: Split, y: Tensor, notes: list[str]) -> Split:
    """The split without nodes that have no label; how many left it goes into `notes`."""
    for part in split:
        check_nodes(part, len(y))
    kept = Split(*(part[y[part] >= 0] for part in split))
    if gone := sum(map(len, split)) - sum(map(len, kept)):
        notes.append(f"{gone} nodes of the split have no label and left it.")
    return kept


def check_features(x: Tensor) -> None:
    """Refuse features that are not finite float32 ``[n, d]``."""
    if x.dim() != 2 or x.dtype != torch.float32:
        raise ValueError(f"Features are {x.dtype} of shape {tuple(x.shape)}; give float32 [n, d].")
    bad = ~x.isfinite().all(1)
    if bool(bad.any()):
        node = int(bad.nonzero()[0])
        raise ValueError(
            f"Features of {int(bad.sum())} nodes are NaN or infinite, first of node {node}; fill them in or drop them."
        )


def _check_range(edges: Tensor, n: int) -> None:
    bad = ((edges < 0) | (edges >= n)).any(0)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        a, b = edges[:, first].tolist()
        raise ValueError(
            f"Edge {first} joins nodes {a} and {b}, but there are {n} nodes, counted from 0; give every node features "
            "or drop the edge."
        )


def _check_weights(weights: Tensor, edges: Tensor) -> None:
    if weights.shape != edges.shape[1:]:
        raise ValueError(f"Weights have shape {tuple(weights.shape)}; give one an edge, [{edges.shape[1]}].")
    if not bool((weights.isfinite() & (weights > 0)).all()):
        raise ValueError("An edge has a weight that is not a positive number; drop the edge or give it one.")


def check_tidy(edges: Tensor, n: int, weights: Tensor | None) -> None:
    """Refuse edges ``[2, m]`` that are not sorted, have self-loops or repeats, or leave the nodes."""
    if edges.dim() != 2 or len(edges) != 2 or edges.dtype != torch.int64:
        raise ValueError(f"Edges are {edges.dtype} of shape {tuple(edges.shape)}; give int64 [2, m].")
    _check_range(edges, n)
    keys = edges[0] * n + edges[1]
    if bool((edges[0] == edges[1]).any()) or bool((keys[1:] <= keys[:-1]).any()):
        raise ValueError("Edges are not sorted or have self-loops or repeats; build the graph with `graph_data`.")
    if weights is not None:
        _check_weights(weights, edges)


def check_labels(y: Tensor, n: int, classes: tuple[str, ...]) -> None:
    """Refuse labels that are not int64 ``[n]``, -1 or the number of a class."""
    if y.dtype != torch.int64 or y.shape != (n,):
        raise ValueError(f"{n} nodes need int64 labels [{n}], not {y.dtype} {tuple(y.shape)}; convert them.")
    if n and not -1 <= int(y.min()) <= int(y.max()) < len(classes):
        raise ValueError(
            f"Labels run from {int(y.min())} to {int(y.max())} but {len(classes)} classes are named; number the "
            "classes from 0, mark what is unknown by -1, and name them all."
        )


def check_nodes(nodes: Tensor, n: int) -> None:
    """Refuse indices that are not int64 ``[k]``, distinct and below n."""
    if nodes.dim() != 1 or nodes.dtype != torch.int64:
        raise ValueError(f"Nodes are {nodes.dtype} of shape {tuple(nodes.shape)}; give int64 indices [k].")
    if len(nodes) and not 0 <= int(nodes.min()) <= int(nodes.max()) < n:
        raise ValueError(f"Nodes run from {int(nodes.min())} to {int(nodes.max())}; choose among 0 to {n - 1}.")
    if len(nodes.unique()) != len(nodes):
        raise ValueError("A node is there twice; give distinct nodes.")


def check_split(split: Split, y: Tensor) -> None:
    """Refuse sets that overlap, or hold nodes without a label."""
    for part in split:
        check_nodes(part, len(y))
        if len(part) and int(y[part].min()) < 0:
            raise ValueError("A node of the split has no label; leave it out of the split.")
    if len(torch.cat(list(split)).unique()) != sum(map(len, split)):
        raise ValueError("Training, validation and test nodes overlap; give each node to one of them.")
