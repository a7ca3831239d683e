"""Coarsening: clusters, weights and labels as stated, the cost against its formula, and what it should merge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from condensery.coresets.coarsening import Coarsened, _laplacian, _Level, _low_frequencies, _matrix, coarsen
from condensery.data import planetoid
from condensery.data.graphs import GraphData, Split, digits_graph, graph_data
from condensery.evaluate.nodes import NodeRecipe, Nodes, score_nodes
from condensery.net import Net
from condensery.nets.graph import GCN
from support import generator


def cliques(sizes: tuple[int, ...] = (6, 5, 7), *, bridges: bool = True, weighted: bool = False) -> GraphData:
    """Cliques, one a class, each joined to the next by one edge; the first two nodes of each train."""
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    n = len(owner)
    edges = (owner[:, None] == owner).triu(1).nonzero().T
    first = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    if bridges:
        edges = torch.cat([edges, torch.stack([first[1:] - 1, first[1:]])], 1)
    train = torch.cat([first, first + 1]).sort().values
    rest = torch.tensor([i for i in range(n) if i not in train.tolist()])
    weights = 0.5 + torch.rand(edges.shape[1], generator=generator()) if weighted else None
    split = Split(train, rest[::2], rest[1::2])
    return graph_data("cliques", torch.randn(n, 3, generator=generator(1)), edges, owner, split=split, weights=weights)


def indicator(found: Coarsened) -> torch.Tensor:
    """``[total, n]``, 1 where a node is in a cluster."""
    total = len(found.data)
    return (torch.arange(total)[:, None] == found.assignment).double()


def test_cliques_become_one_node_each() -> None:
    data = cliques()
    found = coarsen(data, 3, generator=generator())
    assert found.assignment.tolist() == data.y.tolist()
    assert found.data.y.tolist() == [0, 1, 2]
    assert found.data.edges.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert found.data.weights is not None
    assert found.data.weights.tolist() == [1, 1, 1, 1]
    for c in range(3):
        torch.testing.assert_close(found.data.x[c], data.x[data.y == c].mean(0))


@pytest.mark.parametrize("total", [4, 9, 17])
@pytest.mark.parametrize("weighted", [False, True])
def test_edges_are_summed_features_averaged_and_the_total_is_exact(total: int, weighted: bool, untouched: None) -> None:
    data = cliques(weighted=weighted)
    found = coarsen(data, total, generator=generator())
    assert len(found.data) == total
    s = indicator(found)
    assert torch.equal(s.sum(0), torch.ones(len(data)).double())
    whole = s @ data.adjacency.dense().double() @ s.T
    torch.testing.assert_close(found.data.adjacency.dense().double(), whole - torch.diag(whole.diagonal()))
    torch.testing.assert_close(found.data.x.double(), s @ data.x.double() / s.sum(1, keepdim=True))
    again = coarsen(data, total, generator=generator())
    assert torch.equal(found.assignment, again.assignment)


def test_the_label_is_that_of_most_training_nodes_and_of_no_others() -> None:
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]])
    y = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0])
    train = torch.tensor([0, 7])
    data = graph_data("path", torch.eye(8), edges, y, split=Split(train, torch.tensor([1, 2]), torch.tensor([3])))
    found = coarsen(data, 3, generator=generator())
    labels = {int(found.assignment[0]): 1, int(found.assignment[7]): 0}
    assert {c: int(found.data.y[c]) for c in labels} == labels  # the others of node 0's cluster are of class 0
    assert sorted(found.data.train.tolist()) == sorted(labels)
    assert int((found.data.y == -1).sum()) == 1


def test_components_without_training_nodes_are_left_out_and_others_never_merged() -> None:
    data = cliques((4, 4, 4), bridges=False)
    alone = graph_data(
        "more",
        torch.cat([data.x, torch.zeros(2, 3)]),
        torch.cat([data.edges, torch.tensor([[12], [13]])], 1),
        torch.cat([data.y, torch.tensor([0, 0])]),
        split=data.split,
    )
    found = coarsen(alone, 3, generator=generator())
    assert found.assignment.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [-1] * 2
    assert found.data.notes == ("2 nodes of components without a training node were left out.",)
    with pytest.raises(ValueError, match="12 nodes in 3 components that have training nodes cannot become 2; ask for"):
        coarsen(alone, 2, generator=generator())
    with pytest.raises(ValueError, match="cannot become 12"):
        coarsen(alone, 12, generator=generator())


def test_the_cost_is_the_formula_and_nothing_for_what_low_frequencies_cannot_tell_apart() -> None:
    weights = _matrix(cliques(weighted=True))
    vectors = _low_frequencies(weights, 4, 1, generator())
    laplacian = _laplacian(weights).toarray()
    np.testing.assert_allclose(vectors.T @ laplacian @ vectors, np.eye(4), atol=1e-9)
    nodes = np.array([3, 4, 5, 6])
    w = weights.toarray()
    local = -w[np.ix_(nodes, nodes)]
    outside = w[nodes].sum(1) - w[np.ix_(nodes, nodes)].sum(1)
    local[np.diag_indices(4)] = w[np.ix_(nodes, nodes)].sum(1) + 2 * outside
    p = np.eye(4) - 1 / 4
    expected = np.trace(vectors[nodes].T @ p @ local @ p @ vectors[nodes]) / 3
    assert _Level(weights, vectors).cost(nodes) == pytest.approx(expected)
    twins = _matrix(cliques((5, 5)))
    low = _low_frequencies(twins, 1, 1, generator())
    assert _Level(twins, low).cost(np.array([0, 1, 2])) < 1e-12  # nodes of a clique with the same neighbours


def grid(rows: int = 26, columns: int = 25) -> GraphData:
    """A grid, whose Laplacian's eigenvalues are sums of those of two paths, ``2 - 2 cos(pi k / n)``."""
    node = torch.arange(rows * columns).view(rows, columns)
    right, down = (node[:, :-1], node[:, 1:]), (node[:-1], node[1:])
    edges = torch.cat([torch.stack([a.flatten(), b.flatten()]) for a, b in (right, down)], 1)
    y = (torch.arange(rows * columns) >= rows * columns // 2).long()
    return graph_data("grid", torch.zeros(rows * columns, 1), edges, y)


def path_values(n: int) -> np.ndarray:
    return 2 - 2 * np.cos(np.pi * np.arange(n) / n)


def test_the_eigenvectors_of_a_grid_have_its_eigenvalues() -> None:
    data = grid()
    exact = np.sort((path_values(26)[:, None] + path_values(25)).ravel())[1:7]
    weights = _matrix(data)
    found = _low_frequencies(weights, 6, 1, generator())
    np.testing.assert_allclose(found.T @ (_laplacian(weights) @ found), np.eye(6), atol=1e-8)
    np.testing.assert_allclose(np.sort(1 / np.linalg.eigvalsh(found.T @ found)), exact, rtol=1e-5)


def test_the_coarse_laplacian_is_the_real_one_on_what_is_constant_on_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """So its eigenvalues are not below the real ones (Loukas, theorem 3); the first are nearer than by other sets."""
    data = grid()
    real = _laplacian(_matrix(data))
    exact = np.sort((path_values(26)[:, None] + path_values(25)).ravel())[1:9]

    def excess() -> float:
        found = coarsen(data, 100, generator=generator())
        z = torch.randn(100, generator=generator(2), dtype=torch.float64).numpy()
        coarse, lifted = _laplacian(_matrix(found.data)), z[found.assignment.numpy()]
        assert lifted @ (real @ lifted) == pytest.approx(z @ (coarse @ z), rel=1e-5)
        sizes = np.bincount(found.assignment.numpy())
        low = np.linalg.eigvalsh(coarse.toarray() / np.sqrt(np.outer(sizes, sizes)))[1:9]
        assert (low >= exact - 1e-9).all()
        return float((low / exact - 1).mean())

    ours, g = excess(), generator(5)
    monkeypatch.setattr(_Level, "cost", lambda self, nodes: float(torch.rand((), generator=g)))
    assert ours < 0.7 * excess()


def test_a_network_learns_from_a_coarse_graph() -> None:
    data = digits_graph()
    found = coarsen(data, 100, generator=generator())
    with torch.random.fork_rng(devices=[]):
        net = Net(GCN(features=64, classes=10, width=32))
    recipe = NodeRecipe(steps=40, check_every=40)
    coarse = score_nodes("coarsening", net, Nodes.training(found.data), data, recipe, n=1)
    assert coarse.last.mean > 0.6


def test_cora_is_coarsened_to_its_smallest_published_size(condensery_data: Path) -> None:
    if not (condensery_data / "planetoid" / "Cora").is_dir():
        pytest.skip("put Cora's raw files under planetoid/Cora/raw to run this test")
    pytest.importorskip("torch_geometric")
    data = planetoid(condensery_data)
    found = coarsen(data, 35, generator=generator())
    assert len(found.data) == 35
    assert len(found.data.train_y.unique()) == 7
    assert int((found.assignment < 0).sum()) == 158
