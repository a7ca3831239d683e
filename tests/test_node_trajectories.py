"""SFGC and GEOM: their gradients, what they must agree with, resuming, what is chosen, and that they condense."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.adjacency import Adjacency, NodeInput
from condensery.bilevel.unroll import unroll
from condensery.coresets import graphs as coresets
from condensery.data.graphs import GraphData, digits_graph, graph_data
from condensery.evaluate.nodes import NodeRecipe, Nodes, score_nodes
from condensery.experts import Held, NodeRecording, PlainSgd, record_node_expert
from condensery.graph import FreeAdjacency, Graph
from condensery.kernels import FullyConnected, ridge_predictions
from condensery.loop import Snapshots, condense, iterate
from condensery.methods import geom, node_training, sfgc
from condensery.methods.geom import GEOM
from condensery.methods.gntk import GraphTangentScore, graph_tangent_kernel
from condensery.methods.mtt import MTT
from condensery.methods.node_training import InSpan, train_nodes
from condensery.methods.sfgc import SFGC
from condensery.net import Net
from condensery.nets.graph import GCN, SAGE, NodeMLP
from condensery.nets.layers import Activation
from condensery.optimizers import AdamSgd
from condensery.synthetic import Images
from support import central_difference, communities, generator, tiny_graph_net

SMALL = NodeRecording(epochs=6, every=5, optimizer=PlainSgd(lr=0.5))
SHORT: dict[str, Any] = {"inner_steps": 4, "expert_epochs": 2, "max_start": 4}


def ways(net: Net, data: GraphData, count: int = 2) -> Held:
    return Held(torch.stack([record_node_expert(net, data, SMALL, i) for i in range(count)]))


def gcn(**options: Any) -> Net:
    return tiny_graph_net(GCN, **options)


def start(data: GraphData, counts: tuple[int, ...] = (1, 1, 1), **options: Any) -> Graph:
    """Three nodes of four features: trained in their span."""
    return Graph.from_real(data, counts, generator(3), **{"step_size": 0.3, **options})


def soft(data: GraphData, counts: tuple[int, ...] = (1, 1, 1)) -> Graph:
    plain = start(data, counts)
    labels = torch.randn(len(plain.classes), 3, generator=generator(4))
    return Graph(plain.values, plain.classes, labels=labels, learn_labels=True, logits=True, step_size=0.3)


def level(graph: Graph) -> float:
    """A choice for tests."""
    return float(graph.values.square().sum())


Make = Callable[[GraphData, torch.Generator], Any]
NETS: dict[str, Callable[[], Net]] = {
    "in the span": gcn,
    "softplus": lambda: gcn(activation=Activation.SOFTPLUS),
    "perceptron": lambda: tiny_graph_net(NodeMLP),
    "SAGE": lambda: tiny_graph_net(SAGE),
}


def _sfgc(net: Net, **options: Any) -> Make:
    return lambda d, g: SFGC(net, ways(net, d), g, **{**SHORT, "start_every": 2, **options})


def _geom(net: Net, **options: Any) -> Make:
    window = {"first_max_start": 1, "expansion_steps": 5}
    return lambda d, g: GEOM(net, ways(net, d), g, **{**SHORT, **window, "beta": 0.5, **options})


OBJECTIVES: dict[str, tuple[Make, Callable[..., Graph]]] = {
    **{f"SFGC, {name}": (_sfgc(make()), start) for name, make in NETS.items()},
    "SFGC, more nodes than features": (_sfgc(gcn()), lambda d: start(d, (2, 2, 2))),
    "SFGC, chosen": (_sfgc(gcn(), choice=level, choose_every=2), start),
    "GEOM, in the span": (_geom(gcn()), soft),
    "GEOM, softplus": (_geom(gcn(activation=Activation.SOFTPLUS)), soft),
    "GEOM, hard labels": (_geom(gcn()), start),
}


def run(name: str, steps: int, **kw: Any) -> dict[str, Tensor]:
    data, (make, begin) = communities(), OBJECTIVES[name]
    graph, objective = begin(data), make(data, generator(1))
    for _ in iterate(graph, objective, objective.optimizer(graph), steps=steps, **kw):
        pass
    kept = {} if objective._best is None else {"best": torch.tensor(objective._best["score"]), **objective._best["set"]}
    return {**{name: p.detach().clone() for name, p in graph.named_parameters()}, **kept}


# --- every objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_is_deterministic_and_leaves_the_global_generator(name: str, untouched: None) -> None:
    first, second = run(name, 5), run(name, 5)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = run(name, 8)
    run(name, 5, snapshots=Snapshots(tmp_path, every=2))
    resumed = run(name, 8, snapshots=Snapshots(tmp_path, every=2))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_against_finite_differences(name: str) -> None:
    data, (make, begin) = communities(), OBJECTIVES[name]
    graph, objective = begin(data).double(), make(data, generator(5))
    objective.experts = Held(objective.experts.thetas.double())

    def value() -> Tensor:
        again = copy.copy(objective)
        again.generator = generator(6)
        loss: Tensor = again(graph)
        return loss

    loss = value()
    assert (loss.shape, loss.dtype) == ((), torch.float64)
    parameters = dict(graph.named_parameters())
    g = generator(11)
    for (key, p), gradient in zip(
        parameters.items(), torch.autograd.grad(loss, list(parameters.values())), strict=True
    ):
        direction = torch.randn(p.shape, generator=g, dtype=p.dtype)
        slope = central_difference(value, p, direction)
        assert slope != 0
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9), key


@pytest.mark.parametrize("name", ["SFGC, in the span", "GEOM, in the span"])
def test_the_distance_falls(name: str) -> None:
    data, (make, begin) = communities(), OBJECTIVES[name]
    graph, objective = begin(data), make(data, generator(1))
    objective.lr_features, objective.lr_labels = 0.05, 0.01
    losses = [float(s.loss) for s in iterate(graph, objective, objective.optimizer(graph), steps=100)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


# --- the inner training


@pytest.mark.parametrize("labels", ["hard", "rows", "rows of any sum"])
@pytest.mark.parametrize("kind", [GCN, NodeMLP])
def test_the_span_is_the_network_itself(kind: Any, labels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, g = tiny_graph_net(kind), generator(1)
    x = torch.randn(3, 4, generator=g, dtype=torch.float64).requires_grad_()
    y = torch.rand(3, 3, generator=g, dtype=torch.float64)
    y = {"hard": torch.tensor([0, 1, 2]), "rows": y.softmax(1), "rows of any sum": y}[labels]
    y.requires_grad_(labels != "hard")
    theta = net.init(g).double().requires_grad_()
    target, lr = torch.randn(net.size, generator=g).double(), torch.tensor(0.4, dtype=torch.float64).requires_grad_()
    nodes = NodeInput(x, Adjacency.empty(3))
    assert InSpan.fits(net, nodes)
    wanted = [x, lr, theta, *([y] if y.requires_grad else [])]

    def loss(i: int, theta: Tensor, x: Tensor) -> Tensor:
        return F.cross_entropy(net(theta, NodeInput(x, nodes.graph)), y)  # type: ignore[arg-type]

    slow = unroll(loss, theta, [x], lr, steps=6)[-1]
    monkeypatch.setattr(node_training.Net, "__call__", None)  # so that the network is not run
    quick = train_nodes(net, nodes, y, theta, lr, steps=6)
    monkeypatch.undo()
    torch.testing.assert_close(quick, slow)
    for a, b in zip(*(torch.autograd.grad((t - target).square().sum(), wanted) for t in (quick, slow)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_span_is_for_two_layers_with_a_relu_on_few_nodes_without_edges() -> None:
    nodes = NodeInput(torch.randn(3, 4), Adjacency.empty(3))
    assert InSpan.fits(gcn(), nodes)
    others = [gcn(depth=3), gcn(activation=Activation.SOFTPLUS), gcn(normalise=False), tiny_graph_net(SAGE)]
    assert not any(InSpan.fits(net, nodes) for net in others)
    assert not InSpan.fits(gcn(), NodeInput(torch.randn(4, 4), Adjacency.empty(4)))
    assert not InSpan.fits(gcn(), NodeInput(nodes.features, Adjacency.sparse(torch.tensor([[0, 1], [1, 0]]), 3)))
    with pytest.raises(ValueError, match="use unroll_light"):
        unroll(
            InSpan(3, 5, 3), torch.zeros(38), [torch.zeros(3, 5), torch.zeros(3, 3), torch.zeros(3, 3)], 0.1, steps=1
        )


# --- what they must agree with


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 2, 1)])
def test_it_is_mtt_on_the_nodes(counts: tuple[int, ...]) -> None:
    """MTT sees the nodes as images of 1 x 1 pixel; on nodes without edges the networks are the same perceptron."""
    data, net = communities(), gcn()
    theirs = Net(nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    experts, graph = ways(net, data), start(data, counts)
    images = Images(graph.values.detach()[:, :, None, None], graph.classes, step_size=0.3)
    options = {"inner_steps": 4, "expert_epochs": 2, "max_start": 3}
    ours = SFGC(net, experts, generator(), start_every=1, **options)(graph)
    loss = MTT(theirs, experts, generator(), augment=None, **options)(images)
    torch.testing.assert_close(ours, loss)
    a = torch.autograd.grad(ours, [graph.values, graph.step_size])
    b = torch.autograd.grad(loss, [images.values, images.step_size])
    torch.testing.assert_close(a[0], b[0][:, :, 0, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(a[1], b[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("every", [1, 2])
def test_geom_without_its_changes_is_sfgc(every: int) -> None:
    data, net = communities(), gcn()
    options: dict[str, Any] = {**SHORT, "start_every": every, "lr_features": 0.01}
    results = []
    for make in (SFGC, lambda *a, **kw: GEOM(*a, beta=0.0, first_max_start=None, **kw)):
        graph = start(data)
        objective = make(net, ways(net, data), generator(1), **options)
        condense(graph, objective, steps=5)
        results.append((graph.values.detach(), graph.step_size.detach()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("begin", [start, soft])
def test_the_experts_knowledge_written_out(begin: Callable[..., Graph]) -> None:
    data, net = communities(), gcn()
    experts, graph = ways(net, data, 1), begin(data)
    a, b = (GEOM(net, experts, generator(), **SHORT, first_max_start=None, beta=beta)(graph) for beta in (0.0, 3.0))
    (features, _), y = graph()
    rows = y if y.is_floating_point() else F.one_hot(y, 3).float()
    logits = net(experts.last(0), NodeInput(features, Adjacency.empty(3)))  # type: ignore[arg-type]
    cross = -(rows * logits.log_softmax(1)).sum() / 3
    expected = cross + torch.xlogy(rows, rows).sum() / 3
    torch.testing.assert_close((b - a) / 3, expected, rtol=1e-3, atol=1e-5)
    learned = list(graph.parameters())[:-1]
    difference = zip(torch.autograd.grad(b, learned, retain_graph=True), torch.autograd.grad(a, learned), strict=True)
    for (more, less), p in zip(difference, torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close((more - less) / 3, p, rtol=1e-3, atol=1e-4)


def test_knowledge_of_a_label_that_rounds_to_nothing_has_a_gradient() -> None:
    data, net = communities(), gcn()
    graph = soft(data)
    with torch.no_grad():
        graph.labels[0] = torch.tensor([0.0, -200.0, -200.0])
    GEOM(net, ways(net, data), generator(), **SHORT, first_max_start=None)(graph).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in graph.parameters())


def test_starts_are_multiples() -> None:
    data, net = communities(), gcn()
    objective = SFGC(net, ways(net, data), generator(), expert_epochs=1, min_start=1, max_start=6, start_every=2)
    seen = Counter(objective._segment().at for _ in range(300))
    assert set(seen) == {1, 3, 5}
    assert min(seen.values()) > 70


def test_the_window_grows() -> None:
    data, net = communities(), gcn()
    objective = GEOM(
        net, ways(net, data), generator(), expert_epochs=1, max_start=4, first_max_start=1, expansion_steps=4
    )
    uppers = []
    for objective._done in range(6):
        uppers.append(objective.upper)
        seen = Counter(objective._segment().at for _ in range(300))
        assert set(seen) == set(range(math.ceil(objective.upper)))
    assert uppers == [1, 1.75, 2.5, 3.25, 4, 4]
    objective._done = 1
    seen = Counter(objective._segment().at for _ in range(2000))
    assert seen[1.0] / 2000 == pytest.approx(0.75 / 1.75, abs=0.04)


def test_features_move_by_adam_and_the_rest_by_sgd() -> None:
    data, net = communities(), gcn()
    graph, again = soft(data), soft(data)
    rates = {"lr_features": 0.01, "lr_labels": 0.1, "lr_step_size": 0.001}
    objective = GEOM(net, ways(net, data), generator(1), **SHORT, first_max_start=None, **rates)
    optimizer = objective.optimizer(graph)
    assert isinstance(optimizer, AdamSgd)
    ours = list(graph.parameters())
    rows = dict(again.named_parameters())
    adam = torch.optim.Adam([rows["values"]], lr=0.01)
    labels, step = ({"params": [rows[name]]} for name in ("labels", "step_size"))
    sgd = torch.optim.SGD([{**labels, "lr": 0.1, "momentum": 0.9}, {**step, "lr": 0.001, "momentum": 0.5}])
    for _ in range(4):
        optimizer.zero_grad()
        objective(graph).backward()
        for p, q in zip(ours, again.parameters(), strict=True):
            assert p.grad is not None
            q.grad = p.grad.clone()
        for one in (optimizer, adam, sgd):
            one.step()
    for p, q in zip(ours, again.parameters(), strict=True):
        torch.testing.assert_close(p, q)


# --- how they start


def test_sets_start_from_centres_of_the_classes() -> None:
    data, net = communities(), gcn()
    experts = ways(net, data)
    graph = sfgc.start(net, experts, data, (1, 2, 3), generator(2))
    embeddings = net.embed(experts.last(0), data.whole().x)
    index = coresets.k_center(data, (1, 2, 3), embeddings, generator=generator(2))
    assert torch.equal(graph.values, data.x[index])
    assert torch.equal(graph.classes, data.y[index])
    assert graph.step_size is not None
    assert graph.step_size.item() == 0.5


def test_geom_starts_from_what_an_expert_says_with_the_class_at_the_top() -> None:
    data, net = communities(), gcn()
    experts = ways(net, data)
    graph = geom.start(net, experts, data, (3, 4, 4), generator(2), step_size=0.2)
    logits = net(experts.last(0), NodeInput(graph.values.detach(), Adjacency.empty(11))).log_softmax(1)  # type: ignore[arg-type]
    wrong = logits.argmax(1) != graph.classes
    assert 0 < int(wrong.sum()) < 11
    labels = graph.labels
    assert isinstance(labels, nn.Parameter)
    torch.testing.assert_close(labels[~wrong], logits[~wrong])
    assert torch.equal(labels[range(11), graph.classes], labels.amax(1))
    assert graph.step_size.item() == pytest.approx(0.2)


# --- the choice


def test_the_result_is_the_best_set_on_the_way() -> None:
    data, net = communities(), gcn()
    scores: list[float] = []
    sets: list[Tensor] = []

    def judge(graph: Graph) -> float:
        sets.append(graph.values.detach().clone())
        scores.append([5.0, 3.0, 1.0, 1.0, 2.0][len(scores)])
        return scores[-1]

    graph = start(data)
    objective = SFGC(net, ways(net, data), generator(1), **SHORT, lr_features=0.1, choice=judge, choose_every=2)
    chosen = condense(graph, objective, steps=8)
    assert len(scores) == 5  # before the steps 1, 3, 5 and 7, and at the end
    assert torch.equal(chosen.values, sets[2])
    assert torch.equal(graph.values, sets[4])
    assert objective._best is not None
    assert objective._best["step"] == 4
    plain = SFGC(net, ways(net, data), generator(1), **SHORT)
    assert plain.result(graph) is graph


def test_without_edges_the_kernel_is_a_perceptrons() -> None:
    g = generator()
    a, b = torch.randn(5, 7, generator=g).double(), torch.randn(4, 7, generator=g).double()
    for blocks, layers in [(1, 1), (2, 1), (2, 2)]:
        found = graph_tangent_kernel(
            NodeInput(a, Adjacency.empty(5)), NodeInput(b, Adjacency.empty(4)), blocks=blocks, layers=layers
        )
        torch.testing.assert_close(found, FullyConnected(depth=blocks * layers).ntk(a, b) * 7 / 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_kernel_written_out_entry_by_entry(weighted: bool) -> None:
    g = generator(2)
    features = torch.randn(4, 3, generator=g).double()
    edges = torch.tensor([[0, 1, 1, 2, 0, 3], [1, 0, 2, 1, 3, 0]])
    weights = torch.tensor([1.0, 1.0, 2.0, 2.0, 0.5, 0.5]).double() if weighted else None
    graph = Adjacency.sparse(edges, 4, weights)
    p = graph.dense().double() + torch.eye(4).double()
    p = p / p.sum(1, keepdim=True)
    expected = _kernel_by_hand(p, features, blocks=2, layers=2)
    nodes = NodeInput(features, graph)
    torch.testing.assert_close(graph_tangent_kernel(nodes, nodes), expected, rtol=1e-5, atol=1e-7)


def _kernel_by_hand(p: Tensor, x: Tensor, *, blocks: int, layers: int) -> Tensor:
    n = len(x)
    sigma = theta = x @ x.T
    for _ in range(blocks):
        sigma, theta = p @ sigma @ p.T, p @ theta @ p.T
        for _ in range(layers):
            new, slope = torch.zeros_like(sigma), torch.zeros_like(sigma)
            for i in range(n):
                for j in range(n):
                    size = math.sqrt(float(sigma[i, i] * sigma[j, j]))
                    angle = math.acos(max(-1.0, min(1.0, float(sigma[i, j]) / size)))
                    new[i, j] = size * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
                    slope[i, j] = (math.pi - angle) / math.pi
            sigma, theta = new, theta * slope + new
    return theta


def test_the_score_is_the_error_of_ridge_regression_on_validation_nodes() -> None:
    data = communities()
    graph = start(data, (2, 2, 2))
    part = data.subgraph(data.validation)
    nodes = graph().x
    nodes = nodes._replace(features=nodes.features.detach())
    k_ss, k_vs = graph_tangent_kernel(nodes, nodes), graph_tangent_kernel(part.whole().x, nodes)
    onehot = [F.one_hot(y, 3).double() - 1 / 3 for y in (graph.classes, part.y)]
    found = ridge_predictions(k_vs, k_ss, onehot[0], 0.5 * float(k_ss.trace()) / 6)
    expected = 0.5 * float((found - onehot[1]).square().mean())
    assert GraphTangentScore(data, ridge=0.5)(graph) == pytest.approx(expected)
    shuffled = graph_data("", data.x, data.edges, (data.y + 1) % 3, split=data.split)
    assert GraphTangentScore(shuffled, ridge=0.5)(graph) > expected
    some = [GraphTangentScore(data, per_class=2, seed=seed)(graph) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]


def test_nodes_of_zeros_do_no_harm() -> None:
    data = communities()
    graph = start(data)
    with torch.no_grad():
        graph.values[0] = 0
    assert math.isfinite(GraphTangentScore(data)(graph))


# --- mistakes and use


def test_mistakes_say_what_to_do() -> None:
    data, net = communities(), gcn()
    experts = ways(net, data)
    for options, said in [
        ({"inner_steps": 0}, "at least 1"),
        ({"choose_every": 0}, "at least 1"),
        ({"min_start": 3, "max_start": 3}, "0 <= min_start < max_start"),
    ]:
        with pytest.raises(ValueError, match=said):
            SFGC(net, experts, generator(), **options)
    for options, said in [
        ({"beta": -1.0}, "at least 0 of both"),
        ({"first_max_start": 21}, "at most max_start"),
    ]:
        with pytest.raises(ValueError, match=said):
            GEOM(net, experts, generator(), **options)
    with pytest.raises(ValueError, match=r"build the graph with IdentityAdjacency\(\)"):
        SFGC(net, experts, generator(), **SHORT)(start(data, adjacency=FreeAdjacency(torch.rand(3, 3))))
    with pytest.raises(ValueError, match=r"step_size=0\.01"):
        SFGC(net, experts, generator(), **SHORT)(start(data, step_size=None))
    with pytest.raises(ValueError, match="the trajectories end at 6"):
        SFGC(net, experts, generator(), expert_epochs=9)(start(data))
    none = graph_data("", data.x, data.edges, data.y, split=data.split._replace(validation=data.validation[:0]))
    with pytest.raises(ValueError, match="give a split that has some"):
        GraphTangentScore(none)


def _accuracy(train: Nodes, data: GraphData) -> float:
    with torch.random.fork_rng(devices=[]):
        net = Net(GCN(features=data.num_features, classes=data.num_classes, width=32))
    return score_nodes("", net, train, data, NodeRecipe(steps=100, check_every=100), n=2).last.mean


@pytest.mark.parametrize(
    ("begin", "make"),
    [
        (sfgc.start, lambda *a: SFGC(*a, inner_steps=30, expert_epochs=6, max_start=3, start_every=1)),
        (geom.start, lambda *a: GEOM(*a, inner_steps=30, expert_epochs=6, max_start=3, first_max_start=1)),
    ],
    ids=["SFGC", "GEOM"],
)
def test_it_beats_random_nodes_of_the_digits(begin: Any, make: Any) -> None:
    data = digits_graph()
    random = [data.subgraph(coresets.random(data, 1, generator=generator(seed))) for seed in range(3)]
    drawn = sum(_accuracy(Nodes(part.whole().x, part.y), data) for part in random) / 3
    with torch.random.fork_rng(devices=[]):
        net = Net(GCN(features=64, classes=10, width=32))
    recording = NodeRecording(epochs=9, optimizer=PlainSgd(lr=0.2))
    experts = Held(torch.stack([record_node_expert(net, data, recording, i) for i in range(4)]))
    graph = begin(net, experts, data, [1] * 10, generator())
    objective = make(net, experts, generator())
    objective.lr_features = 0.02
    x, y = condense(graph, objective, steps=40)()
    y = y.detach()
    assert _accuracy(Nodes(x._replace(features=x.features.detach()), y), data) > drawn + 0.1
