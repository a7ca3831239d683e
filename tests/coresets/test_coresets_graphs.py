"""Selections of a graph's training nodes."""

from __future__ import annotations

import pytest
import torch

from condensery.adjacency import Adjacency
from condensery.coresets import graphs, herding, k_center
from condensery.data.graphs import GraphData, digits_graph
from support import generator


@pytest.fixture(scope="module")
def digits() -> GraphData:
    return digits_graph()


COUNTS = [2, 3, 1, 0, 4, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("name", ["random", "herding", "k_center", "degree", "pagerank"])
def test_every_selection_gives_training_nodes_of_each_class(name: str, digits: GraphData, untouched: None) -> None:
    def select(counts: list[int]) -> torch.Tensor:
        return {
            "random": lambda: graphs.random(digits, counts, generator=generator()),
            "herding": lambda: graphs.herding(digits, counts, digits.x),
            "k_center": lambda: graphs.k_center(digits, counts, digits.x, generator=generator()),
            "degree": lambda: graphs.degree(digits, counts),
            "pagerank": lambda: graphs.pagerank(digits, counts),
        }[name]()

    chosen = select(COUNTS)
    assert chosen.dtype == torch.int64
    assert torch.bincount(digits.y[chosen], minlength=10).tolist() == COUNTS
    assert bool(torch.isin(chosen, digits.train).all())
    assert len(chosen.unique()) == len(chosen)
    part = digits.subgraph(chosen)
    assert torch.equal(part.y, digits.y[chosen].sort().values)
    assert len(part.train) == len(chosen)
    with pytest.raises(ValueError, match="class 0 has 20 examples"):
        select([21] * 10)


def test_herding_and_k_center_are_those_of_the_training_rows(digits: GraphData) -> None:
    rows, y = digits.x[digits.train], digits.train_y
    assert torch.equal(graphs.herding(digits, 3, digits.x), digits.train[herding(rows, y, 3)])
    centres = digits.train[k_center(rows, y, 3, generator=generator())]
    assert torch.equal(graphs.k_center(digits, 3, digits.x, generator=generator()), centres)
    with pytest.raises(ValueError, match="one for each node"):
        graphs.herding(digits, 3, rows)


def test_degree_takes_the_best_joined_of_each_class(digits: GraphData) -> None:
    degrees = digits.adjacency.degrees()
    chosen = graphs.degree(digits, 3)
    for c in range(10):
        members = digits.members(c)
        own = chosen[digits.y[chosen] == c]
        assert degrees[own].sort(descending=True).values.tolist() == degrees[own].tolist()
        rest = members[~torch.isin(members, own)]
        assert degrees[own].min() >= degrees[rest].max()


def test_pagerank_solves_its_equation_on_weighted_graphs_with_lone_nodes() -> None:
    edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    weights = torch.tensor([1.0, 1.0, 2.0, 2.0, 0.5, 0.5], dtype=torch.float64)
    graph = Adjacency.sparse(edges, 5, weights)  # node 4 is alone
    a = graph.dense()
    walk = a / a.sum(0).clamp_min(1e-300)
    walk[:, 4] = 1 / 5
    for damping in (0.0, 0.5, 0.85, 0.99):
        exact = torch.linalg.solve(torch.eye(5).double() - damping * walk, torch.full((5,), (1 - damping) / 5).double())
        assert torch.allclose(graphs.page_rank(graph, damping=damping), exact, atol=1e-9)
        dense = graphs.page_rank(Adjacency.dense_matrix(a), damping=damping)
        assert torch.allclose(dense, exact, atol=1e-9)
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match="below 1"):
            graphs.page_rank(graph, damping=wrong)
    with pytest.raises(ValueError, match="positive"):
        graphs.page_rank(graph, tolerance=0.0)


def test_pagerank_takes_the_highest_rank_of_each_class(digits: GraphData) -> None:
    ranks = graphs.page_rank(digits.adjacency)
    assert float(ranks.sum()) == pytest.approx(1)
    chosen = graphs.pagerank(digits, 1)
    for c, node in enumerate(chosen.tolist()):
        assert ranks[node] == ranks[digits.members(c)].max()
