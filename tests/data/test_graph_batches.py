"""Batches of real nodes: whole neighbourhoods give the whole graph's outputs, samples are bounded and unbiased."""

from __future__ import annotations

import pytest
import torch

from condensery.adjacency import Adjacency, NodeInput, Normalisation
from condensery.data.graph_batches import ClassBatches, SampledAdjacency, _distinct
from condensery.data.graphs import GraphData, Split, digits_graph, graph_data
from condensery.nets.graph import APPNP, GAT, GCN, GIN, SAGE, SGC, Aggregation, ChebNet, GraphNet
from support import generator


@pytest.fixture(scope="module")
def digits() -> GraphData:
    return digits_graph()


def star(leaves: int = 30, *, weighted: bool = False) -> GraphData:
    """Node 0 in the middle, joined to all others; the first nodes of both classes train."""
    n = leaves + 1
    edges = torch.stack([torch.zeros(leaves, dtype=torch.int64), torch.arange(1, n)])
    x = torch.randn(n, 3, generator=generator(4))
    nodes = torch.arange(n)
    return graph_data(
        "star",
        x,
        edges,
        nodes % 2,
        split=Split(nodes[:6], nodes[6:8], nodes[8:10]),
        weights=1 + torch.rand(leaves, generator=generator(5)) if weighted else None,
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "net",
    [
        pytest.param(lambda: GCN(features=64, classes=10, width=8), id="GCN"),
        pytest.param(lambda: SGC(features=64, classes=10, hops=2), id="SGC"),
        pytest.param(lambda: APPNP(features=64, classes=10, width=8, hops=2), id="APPNP"),
        pytest.param(lambda: SAGE(features=64, classes=10, width=8), id="SAGE-mean"),
        pytest.param(lambda: SAGE(features=64, classes=10, width=8, aggregation=Aggregation.MAX), id="SAGE-max"),
        pytest.param(lambda: GAT(features=64, classes=10, width=8, heads=2), id="GAT"),
        pytest.param(lambda: GIN(features=64, classes=10, width=8), id="GIN"),
        pytest.param(lambda: ChebNet(features=64, classes=10, width=8, terms=2), id="ChebNet"),
    ],
)
def test_whole_neighbourhoods_give_the_outputs_on_the_whole_graph(digits: GraphData, net: type[GraphNet]) -> None:
    module = net()
    x, count = ClassBatches(digits, size=5, fanouts=(None, None)).draw(3, generator())
    seeds = ClassBatches(digits, size=5, fanouts=(None, None)).choose(3, generator())
    whole = module(digits.whole().x)[seeds]
    assert count == 5
    assert x.graph.n < digits.num_nodes
    torch.testing.assert_close(module(x)[:count], whole, rtol=1e-4, atol=1e-5)


def test_too_few_hops_are_another_result(digits: GraphData) -> None:
    module = GCN(features=64, classes=10, width=8)
    x, count = ClassBatches(digits, fanouts=(None,)).draw(3, generator())
    whole = module(digits.whole().x)[digits.members(3)]
    assert not torch.allclose(module(x)[:count], whole, rtol=1e-4, atol=1e-5)


def test_a_fixed_batch_draws_nothing(digits: GraphData, untouched: None) -> None:
    g = generator()
    before = g.get_state()
    batches = ClassBatches(digits, size=20, fanouts=(None, None))
    assert batches.is_fixed(2)
    batches.draw(2, g)
    assert torch.equal(g.get_state(), before)
    for other in (ClassBatches(digits, size=19, fanouts=(None,)), ClassBatches(digits, fanouts=(3,))):
        assert not other.is_fixed(2)
        other.draw(2, g)
        assert not torch.equal(g.get_state(), before)
        g.set_state(before)


def test_the_size_is_bounded_and_the_nodes_of_the_class_come_first(digits: GraphData) -> None:
    batches, g = ClassBatches(digits, size=6, fanouts=(3, 2)), generator()
    for _ in range(20):
        seeds_generator = generator()
        seeds_generator.set_state(g.get_state())
        seeds = batches.choose(7, seeds_generator)
        x, count = batches.draw(7, g)
        assert torch.equal(x.features[:count], digits.x[seeds])
        assert bool((digits.y[seeds] == 7).all())
        assert len(seeds.unique()) == count == 6
        assert x.graph.n <= 6 * (1 + 3 + 3 * 2)
        assert x.graph.edges is not None
        received = torch.bincount(x.graph.edges[1], minlength=x.graph.n)
        assert int(received[:6].max()) <= 3
        assert int(received[6:].max()) <= 2


def test_is_deterministic_and_leaves_no_trace(digits: GraphData) -> None:
    batches = ClassBatches(digits, size=6, fanouts=(3, 2))
    first = batches.draw(1, generator(9))
    batches.draw(2, generator(3))
    second = batches.draw(1, generator(9))
    assert torch.equal(first.x.features, second.x.features)
    assert first.x.graph.edges is not None
    assert second.x.graph.edges is not None
    assert torch.equal(first.x.graph.edges, second.x.graph.edges)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", list(Normalisation))
@pytest.mark.parametrize("self_loops", [False, True])
def test_one_propagation_is_right_in_the_mean(weighted: bool, kind: Normalisation, self_loops: bool) -> None:
    data = star(weighted=weighted)
    batches, g = ClassBatches(data, fanouts=(7,)), generator()
    hub = torch.zeros(1, dtype=torch.int64)
    found = torch.stack([_hub(batches.around(hub, g), kind, self_loops) for _ in range(500)])
    expected = (data.adjacency.normalised(self_loops, kind) @ data.x)[0]
    error = (found.mean(0) - expected).abs()
    assert bool((error < 4.5 * found.std(0) / 500**0.5).all())
    assert bool((found.std(0) > 0).all())


def _hub(x: NodeInput, kind: Normalisation, self_loops: bool) -> torch.Tensor:
    return (x.graph.normalised(self_loops, kind) @ x.features)[0]


def test_without_scaling_only_those_that_are_taken_count() -> None:
    hub = torch.zeros(1, dtype=torch.int64)
    received = {}
    for scaled in (True, False):
        _, graph = ClassBatches(star(), fanouts=(3,), scaled=scaled).around(hub, generator())
        received[scaled] = float((graph.normalised() @ torch.ones(graph.n, 1))[0])
    whole = float((star().adjacency.normalised() @ torch.ones(31, 1))[0])
    own = 1 / 31  # its self-loop, which is always there
    assert received[True] == pytest.approx(whole, rel=1e-5)
    assert received[False] == pytest.approx(own + (whole - own) * 3 / 30, rel=1e-5)


def test_every_set_of_neighbours_is_equally_likely() -> None:
    rows = 6000
    chosen = _distinct(torch.full((rows,), 5), 2, generator())
    assert bool((chosen[:, 0] != chosen[:, 1]).all())
    assert int(chosen.min()) == 0
    assert int(chosen.max()) == 4
    pairs = chosen.sort(1).values
    seen = torch.bincount(pairs[:, 0] * 5 + pairs[:, 1], minlength=25)
    seen = seen[seen > 0]
    assert len(seen) == 10
    chi = ((seen - rows / 10) ** 2 / (rows / 10)).sum()
    assert float(chi) < 27.9  # 0.999 quantile at 9 degrees of freedom
    assert _distinct(torch.tensor([0, 1, 3]), 3, generator()).tolist() == [[0, 1, 2]] * 3


def test_the_inductive_setting_sees_training_nodes_alone() -> None:
    data = star().as_inductive()
    x, _ = ClassBatches(data, fanouts=(None, None)).draw(0, generator())
    assert x.graph.n <= len(data.train)
    training = {tuple(row) for row in data.x[data.train].tolist()}
    assert all(tuple(row) in training for row in x.features.tolist())


def test_nodes_without_edges() -> None:
    data = graph_data(
        "loose",
        torch.eye(4),
        torch.empty((2, 0), dtype=torch.int64),
        torch.tensor([0, 0, 1, 1]),
        split=Split(torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([3])),
    )
    for fanouts in ((None, None), (2, 2)):
        x, count = ClassBatches(data, fanouts=fanouts).draw(1, generator())
        assert (count, x.graph.n) == (1, 1)
        assert torch.equal(x.graph.normalised() @ x.features, data.x[2:3])
        assert torch.equal(x.graph.normalised(self_loops=False) @ x.features, torch.zeros(1, 4))


def test_a_sampled_graph_keeps_its_degrees_on_a_device() -> None:
    edges = torch.tensor([[1], [0]])
    graph = SampledAdjacency(edges, torch.tensor([3.0]), torch.tensor([3.0, 1.0]))
    assert graph.to("cpu") is graph
    assert graph.degrees(torch.float64).tolist() == [3.0, 1.0]
    moved = graph.to("meta")
    assert isinstance(moved, SampledAdjacency)
    assert moved.device.type == "meta"
    assert isinstance(graph.with_self_loops(), Adjacency)


def test_mistakes_say_what_to_do(digits: GraphData) -> None:
    for options in ({"size": 0}, {"fanouts": ()}, {"fanouts": (3, 0)}):
        with pytest.raises(ValueError, match="give at least 1 node and at least one fanout"):
            ClassBatches(digits, **options)
    without = digits.subgraph(digits.members(0))
    with pytest.raises(ValueError, match="no training node; leave it out"):
        ClassBatches(without).draw(1, generator())
