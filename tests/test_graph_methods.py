"""GCond, DosCond and GCDM: their gradients, what they must agree with, resuming, and that they condense."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.coresets import graphs as coresets
from condensery.data.graphs import GraphData, digits_graph
from condensery.data.labelled import Labelled
from condensery.data.whitening import Identity
from condensery.evaluate.nodes import NodeRecipe, Nodes, score_nodes
from condensery.graph import FreeAdjacency, Graph, IdentityAdjacency, PairwiseMlp
from condensery.loop import Snapshots, iterate
from condensery.methods.dc import DC
from condensery.methods.doscond import DosCond
from condensery.methods.gcdm import GCDM, Match
from condensery.methods.gcond import GCond, Linear, cosine_distance, squared_distance
from condensery.methods.matching import layerwise_distance
from condensery.net import Net
from condensery.nets.graph import APPNP, GCN, GDC, GIN, SAGE, SGC, GraphNet, NodeMLP, Polynomial
from condensery.nets.layers import Activation
from condensery.synthetic import Images
from support import central_difference, communities, generator, tiny_graph_net

WHOLE = (None, None)


def tiny(kind: type[GraphNet] = SGC, **options: Any) -> Net:
    return tiny_graph_net(kind, **options)


def smooth(kind: type[GraphNet] = GCN, **options: Any) -> Net:
    return tiny(kind, activation=Activation.SOFTPLUS, **options)


def structure(name: str, n: int) -> Any:
    if name == "pairwise":
        return PairwiseMlp(4, hidden=6, generator=generator(2))
    if name == "free":
        return FreeAdjacency(torch.rand(n, n, generator=generator(2)))
    return IdentityAdjacency()


def start(data: GraphData, name: str = "identity", counts: tuple[int, ...] = (1, 2, 3)) -> Graph:
    return Graph.from_real(data, counts, generator(3), adjacency=structure(name, sum(counts)))


Make = Callable[[GraphData, torch.Generator], Any]

OBJECTIVES: dict[str, Make] = {
    "GCond, linear": lambda d, g: GCond(tiny(), d, g, outer=3, inner=2, alternation=(1, 2)),
    "GCond, linear, few nodes": lambda d, g: GCond(tiny(), d, g, outer=3, inner=2, batch_real=4, alternation=(1, 2)),
    "GCond, linear, sampled": lambda d, g: GCond(
        tiny(), d, g, outer=3, inner=2, propagate_once=False, fanouts=(2, 2), batch_real=4, alternation=(1, 2)
    ),
    "GCond, bias first": lambda d, g: GCond(tiny(APPNP, depth=1, hops=2, restart=0.0), d, g, outer=3, inner=2),
    "GCond, GCN": lambda d, g: GCond(smooth(), d, g, outer=3, inner=2, fanouts=WHOLE, alternation=(1, 2)),
    "GCond, sampled": lambda d, g: GCond(smooth(), d, g, outer=3, inner=2, fanouts=(2, 2), alternation=(1, 2)),
    "GCond, MLP first": lambda d, g: GCond(smooth(APPNP, depth=2, hops=2), d, g, outer=3, inner=1, batch_real=5),
    "DosCond": lambda d, g: DosCond(smooth(), d, g, alternation=(1, 2)),
    "GCDM": lambda d, g: GCDM(smooth(depth=3), d, g, outer=3, inner=1, fanouts=(None,) * 3, alternation=(1, 2)),
    "GCDM, sampled": lambda d, g: GCDM(smooth(), d, g, outer=3, fanouts=(2, 2), batch_real=5, alternation=(1, 2)),
    "GCDM, pairs": lambda d, g: GCDM(smooth(), d, g, match=Match.PAIRS, alternation=(1, 2)),
}


def run(make: Make, steps: int, *, adjacency: str = "pairwise", **kw: Any) -> dict[str, Tensor]:
    data = communities()
    graph = start(data, adjacency)
    objective = make(data, generator(1))
    for _ in iterate(graph, objective, objective.optimizer(graph), steps=steps, **kw):
        pass
    return {name: p.detach().clone() for name, p in graph.named_parameters()}


# --- every objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_is_deterministic_and_leaves_the_global_generator(name: str, untouched: None) -> None:
    first, second = run(OBJECTIVES[name], 7), run(OBJECTIVES[name], 7)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = run(OBJECTIVES[name], 9)
    run(OBJECTIVES[name], 5, snapshots=Snapshots(tmp_path, every=2))
    resumed = run(OBJECTIVES[name], 9, snapshots=Snapshots(tmp_path, every=2))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("adjacency", ["identity", "free", "pairwise"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_against_finite_differences(name: str, adjacency: str) -> None:
    data = communities()
    graph = start(data, adjacency).double()
    objective = OBJECTIVES[name](data, generator(5))
    objective.alternation = None
    objective(graph)  # so that a network in training is there too
    state = objective.generator.get_state()

    def value() -> Tensor:
        again = copy.copy(objective)
        again.inner = 0  # the published gradient holds the network fixed: its training is not differentiated
        again.generator = generator()
        again.generator.set_state(state)
        loss: Tensor = again(graph)
        return loss

    loss = value()
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    parameters = dict(graph.named_parameters())
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    g = generator(11)
    for (key, p), gradient in zip(parameters.items(), grads, strict=True):
        direction = torch.randn(p.shape, generator=g, dtype=p.dtype)
        slope = central_difference(value, p, direction)
        ours = 0.0 if gradient is None else float((gradient * direction).sum())
        assert ours == pytest.approx(slope, rel=2e-5, abs=1e-8), key


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_falls_on_average(name: str) -> None:
    """Judged on networks that were not used to move the graph."""
    data = communities()
    graph = start(data, "pairwise")
    nn.init.normal_(graph.values, generator=generator(8))

    def level() -> float:
        return sum(OBJECTIVES[name](data, generator(100 + i))(graph).item() for i in range(8)) / 8

    def objective() -> Any:
        made = OBJECTIVES[name](data, generator(1))
        made.lr_features = made.lr_structure = 0.03
        return made

    before, made = level(), objective()
    for _ in iterate(graph, made, made.optimizer(graph), steps=150):
        pass
    # Pairs never agree: a synthetic node cannot be all real nodes of its class at once.
    assert level() < (0.9 if name == "GCDM, pairs" else 0.8) * before


# --- what a step is


@pytest.mark.parametrize("adjacency", ["pairwise", "identity"])
def test_features_and_structure_take_turns(adjacency: str) -> None:
    data = communities()
    graph = start(data, adjacency)
    objective = GCond(tiny(), data, generator(), outer=2, inner=1, alternation=(1, 3))
    seen = []
    for _ in range(8):
        graph.zero_grad(set_to_none=True)
        objective(graph).backward()
        moved = {key.split(".")[0] for key, p in graph.named_parameters() if p.grad is not None}
        seen.append("".join(sorted(part[0] for part in moved)))
    assert seen == (["v"] * 8 if adjacency == "identity" else ["a", "a", "v", "v", "v", "v", "a", "a"])


def test_adam_leaves_the_other_part_and_its_moments_alone() -> None:
    data = communities()
    graph = start(data, "free")
    objective = GCond(tiny(), data, generator(), outer=1, inner=0, alternation=(1, 2), lr_features=0.1)
    optimizer = objective.optimizer(graph)
    states = []
    for _ in iterate(graph, objective, optimizer, steps=4):
        states.append((graph.values.detach().clone(), graph.adjacency.entries.detach().clone()))
    values, entries = zip(*states, strict=True)
    assert [torch.equal(a, b) for a, b in pairwise(values)] == [False, True, False]
    assert [torch.equal(a, b) for a, b in pairwise(entries)] == [True, False, True]
    assert all(state["step"] == 2 for state in optimizer.state_dict()["state"].values())
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1e-4]


@pytest.mark.parametrize("kind", [SGC, GCN])
def test_the_inner_training_is_adam_on_the_synthetic_graph(kind: type[GraphNet]) -> None:
    data = communities()
    graph, net = start(data, "pairwise"), tiny(kind)
    objective = GCond(net, data, generator(), outer=3, inner=4, fanouts=WHOLE, lr_net=0.02)
    module = net.at(net.init(generator()))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for turn in range(3):
        objective(graph)
        if turn:
            with torch.no_grad():
                x, y = graph()
            for _ in range(4):
                optimizer.zero_grad()
                F.cross_entropy(module(x), y).backward()
                optimizer.step()
        expected = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        torch.testing.assert_close(objective._life.at(), expected, rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            graph.values += 0.1  # the training between two steps sees the graph as it is now


def test_a_network_lives_for_an_epoch() -> None:
    data = communities()
    graph, objective = start(data), GCond(tiny(), communities(), generator(), outer=2, inner=0)
    thetas = []
    for _ in range(4):
        objective(graph)
        thetas.append(objective._life.at())
    assert thetas[0] is thetas[1]
    assert thetas[2] is thetas[3]
    assert not torch.equal(thetas[1], thetas[2])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("inductive", [False, True])
def test_the_loss_written_out(weighted: bool, inductive: bool) -> None:
    data = communities(weighted=weighted, inductive=inductive)
    view = data.training_view()
    graph, net = start(data, "pairwise"), smooth()
    loss = GCond(net, data, generator(), fanouts=WHOLE, alternation=None)(graph)
    theta = net.init(generator()).requires_grad_()
    (features, adjacency), y = graph()
    expected = torch.zeros(())
    for c, rows in graph.rows().items():
        real = view.members(c)
        truth = F.cross_entropy(net(theta, view.whole().x)[real], view.y[real])
        ours = F.cross_entropy(net(theta, type(view.whole().x)(features, adjacency))[rows], y[rows])
        a = torch.autograd.grad(ours, theta, create_graph=True)[0]
        b = torch.autograd.grad(truth, theta)[0]
        expected = expected + (c + 1) / 3 * layerwise_distance(net, a, b)  # 1, 2 and 3 nodes
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    _same_gradients(graph, loss, expected)


def _same_gradients(graph: Graph, a: Tensor, b: Tensor) -> None:
    parameters = list(graph.parameters())
    first, second = (torch.autograd.grad(loss, parameters, materialize_grads=True) for loss in (a, b))
    assert bool(first[0].any())
    for left, right in zip(first, second, strict=True):
        torch.testing.assert_close(left, right, rtol=2e-3, atol=1e-5)


# --- what they must agree with


@pytest.mark.parametrize("distance", [layerwise_distance, squared_distance, cosine_distance])
@pytest.mark.parametrize(
    "net",
    [
        pytest.param(lambda: tiny(SGC, hops=2), id="SGC"),
        pytest.param(lambda: tiny(APPNP, depth=1, hops=2, restart=0.0), id="bias first"),
        pytest.param(lambda: tiny(APPNP, depth=1, hops=2, restart=0.2), id="APPNP"),
        pytest.param(lambda: tiny(GCN, depth=1), id="GCN"),
        pytest.param(lambda: tiny(GDC, depth=1, terms=2), id="GDC"),
        pytest.param(lambda: tiny(Polynomial, depth=1, coefficients=(0.5, -1.0, 0.3)), id="Polynomial"),
        pytest.param(lambda: tiny(NodeMLP, depth=1), id="NodeMLP"),
    ],
)
def test_closed_forms_change_nothing(net: Callable[[], Net], distance: Any) -> None:
    data, module = communities(weighted=True), net()
    graph = start(data, "pairwise").double()
    assert Linear.fits(module)
    options = {"fanouts": WHOLE, "alternation": None, "distance": distance, "outer": 3, "inner": 2}
    for once in (True, False):
        quick, slow = (GCond(module, data, generator(), propagate_once=once, **options) for _ in range(2))
        vars(slow)["_linear"] = None  # as a network that has no closed form
        for _ in range(4):
            a, b = quick(graph), slow(graph)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
            _same_gradients(graph, a, b)


def test_sampled_neighbours_of_a_linear_network_are_right_in_the_mean() -> None:
    """One propagation of a draw is unbiased (`ClassBatches`), and the gradient is linear in it at theta = 0."""
    data, net = communities(), tiny(SGC, hops=1)
    exact, drawn = (GCond(net, data, generator(3), fanouts=(2,), propagate_once=once) for once in (True, False))
    theta = torch.zeros(net.size)
    want = torch.stack(exact._real_linear_gradients(Linear(net), theta, [0, 1, 2]))
    draws = [torch.stack(drawn._real_linear_gradients(Linear(net), theta, [0, 1, 2])) for _ in range(600)]
    assert not torch.equal(draws[0], draws[1])
    spread = torch.stack(draws).std(0) / 600**0.5
    assert bool(((torch.stack(draws).mean(0) - want).abs() <= 5 * spread + 1e-6).all())


def test_only_linear_networks_of_one_layer_are_propagated_once() -> None:
    assert not any(Linear.fits(net) for net in (tiny(GCN), tiny(SGC, depth=2), tiny(SAGE, depth=1), tiny(GIN, depth=1)))
    assert not Linear.fits(Net(nn.Linear(4, 3)))


def test_soft_labels_are_classes_where_they_are_sure() -> None:
    data = communities()
    plain = start(data)
    soft = Graph(plain.values, plain.classes, labels=F.one_hot(plain.classes, 3).float())
    for net in (tiny(), smooth()):
        losses = [GCond(net, data, generator(), fanouts=WHOLE)(graph) for graph in (plain, soft)]
        torch.testing.assert_close(*losses)


def test_without_edges_it_is_dc_on_the_features() -> None:
    """DC sees the nodes as images of 1 x 1 pixel; the networks are the same perceptron."""
    data = communities()
    net = smooth(NodeMLP)
    with torch.random.fork_rng(devices=[]):
        same = Net(nn.Sequential(nn.Flatten(), nn.Linear(4, 5), copy.deepcopy(net.module.activation), nn.Linear(5, 3)))
    assert torch.equal(net.init(generator()), same.init(generator()))
    graph = start(data, counts=(2, 2, 2))
    images = Images(graph.values.detach()[:, :, None, None], graph.classes)
    real = Labelled(data.x[data.train][:, :, None, None], data.train_y, data.classes, Identity())
    ours = GCond(net, data, generator(), fanouts=(None,))(graph)
    theirs = DC(same, real, generator(), outer=20, inner=0)(images)
    torch.testing.assert_close(ours, theirs)
    (a,) = torch.autograd.grad(ours, graph.values)
    (b,) = torch.autograd.grad(theirs, images.values)
    torch.testing.assert_close(a, b[:, :, 0, 0], rtol=1e-4, atol=1e-6)


def test_doscond_is_gcond_with_one_step_and_no_training() -> None:
    data, net = communities(), smooth()
    results = []
    for objective in (
        DosCond(net, data, generator()),
        GCond(net, data, generator(), outer=1, inner=0, distance=squared_distance, lr_features=1e-3, lr_structure=1e-3),
    ):
        graph = start(data, "pairwise")
        for _ in iterate(graph, objective, objective.optimizer(graph), steps=14):
            pass
        results.append(graph.values.detach())
    assert torch.equal(*results)


# --- distribution matching


@pytest.mark.parametrize("inductive", [False, True])
def test_means_written_out(inductive: bool) -> None:
    data = communities(weighted=True, inductive=inductive)
    view = data.training_view()
    graph, net = start(data, "pairwise"), smooth(depth=3)
    loss = GCDM(net, data, generator(), fanouts=(None,) * 3, alternation=None)(graph)
    module = net.at(net.init(generator()))
    real, ours = module.representations(view.whole().x), module.representations(graph().x)
    expected = torch.zeros(())
    for c, rows in graph.rows().items():
        for theirs, layer in zip(real[:-1], ours[:-1], strict=True):
            gap = theirs[view.members(c)].mean(0) - layer[rows].mean(0)
            expected = expected + (c + 1) / 6 * gap.square().sum()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    _same_gradients(graph, loss, expected)


def test_pairs_are_distinct_real_nodes_of_the_class() -> None:
    data, net = communities(), smooth()
    counts = tuple(len(data.members(c)) for c in range(3))
    graph = Graph(
        data.x[torch.cat([data.members(c) for c in range(3)])],
        torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor(counts)),
    )
    objective = GCDM(net, data, generator(), match=Match.PAIRS)
    module = net.at(net.init(generator()))
    (real, _), (ours, _) = module.representations(data.whole().x), module.representations(graph().x)
    g = generator()
    net.init(g)
    expected = torch.zeros(())
    for c, rows in graph.rows().items():
        order = data.members(c)[torch.randperm(counts[c], generator=g)]
        expected = expected + counts[c] / sum(counts) * (real[order] - ours[rows]).abs().sum()
    torch.testing.assert_close(objective(graph), expected, rtol=1e-4, atol=1e-4)
    more = Graph(torch.randn(50, 4), torch.zeros(50, dtype=torch.int64))
    with pytest.raises(ValueError, match="ask for fewer, or match means"):
        objective(more)


def test_a_network_with_one_layer_is_matched_at_its_outputs() -> None:
    data, net = communities(), tiny()
    graph = start(data)
    loss = GCDM(net, data, generator())(graph)
    logits = net.at(net.init(generator()))
    gaps = [
        (logits(data.whole().x)[data.members(c)].mean(0) - logits(graph().x)[rows].mean(0)).square().sum()
        for c, rows in graph.rows().items()
    ]
    torch.testing.assert_close(loss, (gaps[0] + 2 * gaps[1] + 3 * gaps[2]) / 6, rtol=1e-4, atol=1e-6)


def test_the_real_side_is_kept_for_a_network() -> None:
    data, net = communities(), smooth()
    graph = start(data)
    objective = GCDM(net, data, generator(), outer=2)
    objective(graph)
    assert objective._seen is not None
    first = objective._seen[1]
    objective(graph)
    assert objective._seen[1] is first
    objective(graph)
    assert objective._seen[1] is not first
    fresh = GCDM(net, data, generator(), outer=2)
    state = objective.generator.get_state()
    fresh.load_state_dict(objective.state_dict())
    fresh.generator.set_state(state)
    assert torch.equal(fresh(graph), objective(graph))


# --- mistakes and use


def test_mistakes_say_what_to_do() -> None:
    data = communities()
    for method in (GCond, GCDM):
        with pytest.raises(ValueError, match="outer of at least 1"):
            method(tiny(), data, generator(), outer=0)
        with pytest.raises(ValueError, match="how many of how many epochs"):
            method(tiny(), data, generator(), alternation=(3, 2))
        with pytest.raises(ValueError, match="at least one fanout"):
            method(smooth(), data, generator(), fanouts=(0,))(start(data))
    with pytest.raises(ValueError, match="give a graph network"):
        GCDM(Net(nn.Linear(4, 3)), data, generator())


def _accuracy(train: Nodes, data: GraphData) -> float:
    with torch.random.fork_rng(devices=[]):
        net = Net(GCN(features=data.num_features, classes=data.num_classes, width=32))
    return score_nodes("", net, train, data, NodeRecipe(steps=100, check_every=100), n=2).last.mean


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda net, d: GCond(net, d, generator(), outer=10, inner=10, lr_features=0.02), id="GCond"),
        pytest.param(lambda net, d: DosCond(net, d, generator(), lr_features=0.02), id="DosCond"),
        pytest.param(lambda net, d: GCDM(net, d, generator(), lr_features=0.02), id="GCDM"),
    ],
)
def test_it_beats_random_nodes_of_the_digits(make: Callable[[Net, GraphData], Any]) -> None:
    data = digits_graph()
    random = [data.subgraph(coresets.random(data, 1, generator=generator(seed))) for seed in range(3)]
    drawn = sum(_accuracy(Nodes(part.whole().x, part.y), data) for part in random) / 3
    with torch.random.fork_rng(devices=[]):
        net = Net(SGC(features=64, classes=10))
    graph = Graph.from_real(data, [1] * 10, generator())
    objective = make(net, data)
    for _ in iterate(graph, objective, objective.optimizer(graph), steps=100):
        pass
    x, y = graph()
    assert _accuracy(Nodes(x._replace(features=x.features.detach()), y), data) > drawn + 0.1
