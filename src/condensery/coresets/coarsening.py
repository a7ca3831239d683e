"""Graph coarsening: nodes that the low frequencies of a graph hardly tell apart become one."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData

__all__ = ["Coarsened", "coarsen"]

_Array = npt.NDArray[Any]
_DENSE = 600  # nodes up to which all eigenvectors are computed


class Coarsened(NamedTuple):
    """A coarse graph and where it comes from.

    Attributes:
        data: The coarse graph. Nodes whose cluster holds no training node have no label and train nothing.
        assignment: The coarse node of each node of the training view, int64 ``[n]``; -1 for those left out.
    """

    data: GraphData
    assignment: Tensor


def coarsen(data: GraphData, total: int, *, generator: Generator, eigenvectors: int = 10) -> Coarsened:
    """Merge nodes by local variation of neighbourhoods (Loukas, JMLR 2019, algorithm 2) until `total` are left.

    A set of nodes costs as much as the first eigenvectors of the Laplacian vary within it, in the norm of its local
    Laplacian, for each node that it saves (`_Level.cost`). The cheapest neighbourhoods are contracted first, level by
    level. As in Huang et al. (KDD 2021), who train on the coarse graph: an edge between clusters weighs the sum of
    the edges between their nodes, features are averaged, and the label is that of most *training* nodes of the
    cluster, the lower class where two are as many.

    Nodes are merged only along edges. Components of the graph without a training node train nothing and are left out.

    Args:
        data: The real graph; in the inductive setting its training subgraph is coarsened.
        total: Nodes of the coarse graph.
        generator: A CPU generator, for the start of the eigenvectors' iteration alone.
        eigenvectors: How many eigenvectors are kept as they are.

    Raises:
        ValueError: For a total that is not below the number of nodes, or below the components that have training nodes,
            or no eigenvector.
    """
    if eigenvectors < 1:
        raise ValueError(f"The number of eigenvectors is {eigenvectors}; give 1 or more.")
    view = data.training_view()
    kept, components = _components_that_train(view)
    if not components <= total < len(kept):
        raise ValueError(
            f"{len(kept)} nodes in {components} components that have training nodes cannot become {total}; ask for "
            f"{components} to {len(kept) - 1}."
        )
    weights = _matrix(view)[kept][:, kept].tocsr()
    vectors = _low_frequencies(weights, eigenvectors, components, generator)
    place: _Array = np.arange(len(kept))
    while weights.shape[0] > total:
        level = _Level(weights, vectors)
        clusters = level.contracted(weights.shape[0] - total)
        place = clusters[place]
        weights, vectors = _merged(weights, vectors, clusters)
    assignment = torch.full((view.num_nodes,), -1)
    assignment[torch.from_numpy(kept)] = torch.from_numpy(place)
    return Coarsened(_as_data(view, assignment, weights), assignment)


# --- one level
# --------------------------------------------------------------------------------------------------------------------


@dataclass
class _Level:
    """One pass over the neighbourhoods of a graph.

    Attributes:
        weights: Symmetric sparse matrix ``[n, n]`` without a diagonal.
        vectors: ``[n, K]``: the vectors A that clusters should not vary in, columns of size 1 in the Laplacian's norm.
    """

    weights: Any
    vectors: _Array

    def cost(self, nodes: _Array) -> float:
        """``|P A_S|_{L_S}^2 / (|S| - 1)``: P subtracts the mean over the set S; L_S is its Laplacian with the edges
        that leave it counted twice on the diagonal (Loukas, section 4.1).
        """
        rows = self.weights[nodes]
        inner = rows[:, nodes]
        within = np.asarray(inner.sum(1)).ravel()
        diagonal = 2 * np.asarray(rows.sum(1)).ravel() - within
        x = self.vectors[nodes]
        x = x - x.mean(0)
        energy = (diagonal[:, None] * x * x).sum() - (x * (inner @ x)).sum()
        return float(energy) / (len(nodes) - 1)

    def contracted(self, budget: int) -> _Array:
        """Clusters int64 ``[n]`` that save at most `budget` nodes, the cheapest neighbourhoods first.

        A neighbourhood that has lost nodes to another goes back with what is left of it.
        """
        n = self.weights.shape[0]
        starts, columns = self.weights.indptr, self.weights.indices
        heap: list[tuple[float, int, _Array]] = []
        for node in range(n):
            nodes = np.concatenate([[node], columns[starts[node] : starts[node + 1]]])
            if len(nodes) > 1:
                heap.append((self.cost(nodes), node, nodes))
        heapq.heapify(heap)
        cluster: _Array = np.arange(n)
        free = np.ones(n, dtype=bool)
        while heap and budget:
            _, node, nodes = heapq.heappop(heap)
            left = nodes[free[nodes]][: budget + 1]
            if len(left) == len(nodes):
                cluster[nodes], free[nodes] = nodes[0], False
                budget -= len(nodes) - 1
            elif len(left) > 1:
                heapq.heappush(heap, (self.cost(left), node, left))
        clusters: _Array = np.unique(cluster, return_inverse=True)[1]
        return clusters


def _merged(weights: Any, vectors: _Array, clusters: _Array) -> tuple[Any, _Array]:
    """The coarse matrix, and the vectors averaged over clusters and made of size 1 again in the Laplacian's norm."""
    from scipy.sparse import csr_matrix

    n = len(clusters)
    sums = csr_matrix((np.ones(n), (clusters, np.arange(n))))
    coarse = (sums @ weights @ sums.T).tocsr()
    coarse.setdiag(0)
    coarse.eliminate_zeros()
    coarse.sort_indices()
    means = (sums @ vectors) / np.bincount(clusters)[:, None]
    return coarse, _whitened(means, _laplacian(coarse))


def _whitened(vectors: _Array, laplacian: Any) -> _Array:
    """``B (B^T L B)^-1/2``, without directions that L does not see."""
    values, turns = np.linalg.eigh(vectors.T @ (laplacian @ vectors))
    seen = values > 1e-10 * max(float(values[-1]), 1e-300)
    whitened: _Array = vectors @ turns[:, seen] / np.sqrt(values[seen])
    return whitened


def _low_frequencies(weights: Any, count: int, components: int, generator: Generator) -> _Array:
    """The first eigenvectors of the Laplacian that are not constant on components, of size 1 in its norm."""
    from scipy.sparse import eye
    from scipy.sparse.linalg import eigsh

    laplacian, n = _laplacian(weights), weights.shape[0]
    wanted = count + components
    if n <= max(_DENSE, 2 * wanted):
        vectors = np.linalg.eigh(laplacian.toarray())[1][:, components:wanted]
    else:
        shift = 2 * float(laplacian.diagonal().max())  # bounds the spectrum: the lowest become the largest
        start = torch.rand(n, generator=generator, dtype=torch.float64).numpy()
        found = eigsh(shift * eye(n) - laplacian, k=wanted, which="LA", v0=start, tol=1e-6)
        vectors = found[1][:, np.argsort(-found[0])][:, components:]
    return _whitened(vectors, laplacian)


# --- in and out
# --------------------------------------------------------------------------------------------------------------------


def _matrix(view: GraphData) -> Any:
    from scipy.sparse import csr_matrix

    edges = view.edges.cpu().numpy()
    weights = np.ones(edges.shape[1]) if view.weights is None else view.weights.cpu().double().numpy()
    return csr_matrix((weights, (edges[1], edges[0])), shape=(view.num_nodes, view.num_nodes))


def _laplacian(weights: Any) -> Any:
    from scipy.sparse import diags

    return (diags(np.asarray(weights.sum(1)).ravel()) - weights).tocsr()


def _components_that_train(view: GraphData) -> tuple[_Array, int]:
    """Nodes of the components that have a training node, ascending, and how many components these are."""
    from scipy.sparse.csgraph import connected_components

    _, component = connected_components(_matrix(view), directed=False)
    trains = np.unique(component[view.train.cpu().numpy()])
    return np.flatnonzero(np.isin(component, trains)), len(trains)


def _as_data(view: GraphData, assignment: Tensor, weights: Any) -> GraphData:
    """The coarse graph as data, on the view's device."""
    total, device = weights.shape[0], view.device
    owner = assignment.to(device)
    inside = owner >= 0
    sums = view.x.new_zeros(total, view.num_features).index_add(0, owner[inside], view.x[inside])
    counts = torch.bincount(owner[inside], minlength=total)
    votes = torch.zeros(total, view.num_classes, device=device)
    votes.index_put_((owner[view.train], view.train_y), torch.ones(len(view.train), device=device), accumulate=True)
    labelled = votes.sum(1) > 0
    entries = weights.tocoo()
    order = np.lexsort((entries.col, entries.row))
    edges = torch.from_numpy(np.stack([entries.row, entries.col])[:, order]).long()
    none = torch.empty(0, dtype=torch.int64, device=device)
    notes = []
    if left := int((~inside).sum()):
        notes.append(f"{left} nodes of components without a training node were left out.")
    present = torch.bincount(votes.argmax(1)[labelled], minlength=view.num_classes) > 0
    if lost := [view.classes[c] for c in (~present).nonzero().flatten().tolist()]:
        notes.append(f"No cluster has most of its training nodes in class {', '.join(lost)}.")
    return replace(
        view,
        name=f"{view.name}-coarse",
        x=sums / counts[:, None],
        edges=edges.to(device),
        y=torch.where(labelled, votes.argmax(1), -1),
        train=labelled.nonzero().flatten(),
        validation=none,
        test=none,
        weights=torch.from_numpy(entries.data[order]).float().to(device),
        inductive=False,
        notes=tuple(notes),
    )
