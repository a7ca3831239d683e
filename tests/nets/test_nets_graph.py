"""Graph networks: PyTorch Geometric's own layers, sparse and dense alike, second derivatives, functional use."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from condensery.adjacency import Adjacency, NodeInput
from condensery.net import Net
from condensery.nets import filters
from condensery.nets.filters import Diffusion
from condensery.nets.graph import (
    APPNP,
    GAT,
    GCN,
    GDC,
    GIN,
    GRAPH,
    SAGE,
    SGC,
    Aggregation,
    ChebNet,
    Dropout,
    GraphNet,
    GraphTransformer,
    NodeMLP,
    Polynomial,
    Reach,
    Start,
    candidates,
    compressed,
    with_dropout,
)
from support import generator

N, D, CLASSES = 9, 5, 3

KINDS: dict[str, tuple[type[GraphNet], dict[str, Any]]] = {
    "GCN": (GCN, {}),
    "GCN fan-in": (GCN, {"start": "fan_in"}),
    "GCN as given": (GCN, {"normalise": False}),
    "SAGE mean": (SAGE, {}),
    "SAGE max": (SAGE, {"aggregation": "max"}),
    "GAT": (GAT, {"heads": 2}),
    "GIN epsilon": (GIN, {}),
    "GIN 0": (GIN, {"learn_epsilon": False}),
    "SGC": (SGC, {"hops": 3}),
    "ChebNet": (ChebNet, {"terms": 4}),
    "APPNP": (APPNP, {"hops": 3}),
    "APPNP without restart": (APPNP, {"hops": 2, "restart": 0.0}),
    "GDC PageRank": (GDC, {"terms": 6}),
    "GDC heat": (GDC, {"diffusion": "heat", "strength": 2.0, "terms": 8}),
    "GraphTransformer": (GraphTransformer, {"heads": 2}),
    "GraphTransformer everyone": (GraphTransformer, {"heads": 2, "reach": "everyone"}),
    "NodeMLP": (NodeMLP, {}),
    "Polynomial": (Polynomial, {"coefficients": [0.5, -1.0, 0.3], "lambda_max": 1.7}),
}
BLIND = {"NodeMLP", "GraphTransformer everyone"}  # do not look at the graph
kinds = pytest.mark.parametrize("kind", list(KINDS))


def make(kind: str, **options: Any) -> GraphNet:
    cls, own = KINDS[kind]
    settings = {"features": D, "classes": CLASSES, "width": 4, "depth": 2, **own, **options}
    return scattered(cls(**settings).double())


def scattered(module: nn.Module) -> Any:
    """Every parameter off its initial constant, whatever ran before."""
    g = generator(3)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.7 * torch.randn(p.shape, dtype=torch.float64, generator=g))
    return module


def features(n: int = N, d: int = D) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=generator(1))


def edges(n: int = N) -> Tensor:
    """A ring with chords, in both directions; the last node has no neighbour."""
    ring = [(i, (i + 1) % (n - 1)) for i in range(n - 1)] + [(0, 3), (1, 5)]
    both = sorted({*ring, *((j, i) for i, j in ring)})
    return torch.tensor(both).T.contiguous()


def weighted(n: int = N) -> Tensor:
    """One weight for each edge ``[m]``, the same in both directions."""
    pairs = edges(n)
    whole = torch.rand(n, n, dtype=torch.float64, generator=generator(2)) + 0.2
    return (whole + whole.T)[pairs[0], pairs[1]]


def sparse(weights: Tensor | None = None, n: int = N) -> Adjacency:
    ones = torch.ones(edges(n).shape[1], dtype=torch.float64)
    return Adjacency.sparse(edges(n), n, ones if weights is None else weights)


def dense(weights: Tensor | None = None, n: int = N) -> Adjacency:
    return Adjacency.dense_matrix(sparse(weights, n).dense())


# ---------------------------------------------------------------- sparse and dense, shapes, configs


@kinds
@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
def test_sparse_and_dense_graphs_give_the_same(kind: str, weight: bool, depth: int) -> None:
    net, x, weights = make(kind, depth=depth), features(), weighted() if weight else None
    outputs, gradients = [], []
    for graph in (sparse(weights), dense(weights)):
        leaf = x.clone().requires_grad_()
        outputs.append(net(NodeInput(leaf, graph)))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), [leaf, *net.parameters()]))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-11, atol=1e-12)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@kinds
def test_an_unweighted_graph_weighs_one(kind: str) -> None:
    net, x = make(kind), features()
    plain = net(NodeInput(x, Adjacency.sparse(edges(), N)))
    torch.testing.assert_close(plain, net(NodeInput(x, sparse())), rtol=1e-5, atol=1e-5)


@kinds
def test_a_graph_without_edges(kind: str) -> None:
    net, x = make(kind), features()
    without = net(NodeInput(x, Adjacency.empty(N)))
    assert without.isfinite().all()
    zeros = torch.zeros(N, N, dtype=torch.float64)
    torch.testing.assert_close(without, net(NodeInput(x, Adjacency.dense_matrix(zeros))))


@kinds
def test_the_graph_matters_where_it_should(kind: str) -> None:
    net, x = make(kind), features()
    same = torch.allclose(net(NodeInput(x, sparse())), net(NodeInput(x, sparse(weighted()))), atol=1e-6)
    assert same == (kind in BLIND)


@kinds
@pytest.mark.parametrize(("width", "depth"), list(itertools.product((4, 8), (1, 2, 4))))
def test_every_width_and_depth(kind: str, width: int, depth: int) -> None:
    net, x = make(kind, width=width, depth=depth), NodeInput(features(), sparse())
    made = net.representations(x)
    assert [tuple(h.shape) for h in made] == [(N, width)] * (depth - 1) + [(N, CLASSES)]
    torch.testing.assert_close(net(x), made[-1], rtol=0, atol=0)
    torch.testing.assert_close(net.embed(x), made[-2] if depth > 1 else x.features, rtol=0, atol=0)


@kinds
def test_nodes_in_another_order_give_the_same(kind: str) -> None:
    net, x, matrix = make(kind), features(), dense(weighted()).dense()
    order = torch.randperm(N, generator=generator())
    moved = NodeInput(x[order], Adjacency.dense_matrix(matrix[order][:, order]))
    torch.testing.assert_close(net(moved), net(NodeInput(x, Adjacency.dense_matrix(matrix)))[order])


@kinds
def test_a_config_is_json_and_builds_the_network_again(kind: str) -> None:
    net = make(kind)
    config = json.loads(json.dumps(net.config))
    again = GRAPH[type(net).__name__](**config)
    assert again.config == net.config
    assert [p.shape for p in again.parameters()] == [p.shape for p in net.parameters()]
    again.double().load_state_dict(net.state_dict())
    x = NodeInput(features(), sparse())
    assert torch.equal(again(x), net(x))


@kinds
@pytest.mark.parametrize("width", [4, 8])  # narrower and wider than the features
def test_compressed_features_give_the_same(kind: str, width: int) -> None:
    net, x = make(kind, width=width), features() * (features() > 1)
    few = compressed(x, below=0.5)
    assert few.layout is torch.sparse_csr
    for graph in (sparse(weighted()), dense(weighted())):
        outputs = [net(NodeInput(form, graph)) for form in (x, few)]
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-11, atol=1e-11)
        gradients = [torch.autograd.grad(out.square().sum(), list(net.parameters())) for out in outputs]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_second_derivatives_with_compressed_features() -> None:
    net, theta, _, _ = tiny("GCN")
    x = NodeInput(
        compressed(torch.eye(4, 2, dtype=torch.float64), below=1), Adjacency.dense_matrix(torch.ones(4, 4).double())
    )
    assert x.features.layout is torch.sparse_csr
    theta.requires_grad_()
    assert gradgradcheck(lambda t: net(t, x).tanh().square().sum(), (theta,), fast_mode=True)


# ---------------------------------------------------------------- derivatives


def tiny(kind: str) -> tuple[Net, Tensor, Tensor, Tensor]:
    """A smooth network, and its three inputs: parameters, features, weights of a graph without zeros."""
    net = make(kind, width=2, features=2, classes=2, activation="swish")
    parameters = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    raw = torch.rand(4, 4, dtype=torch.float64, generator=generator(5)) + 0.3
    return Net(net), parameters, features(4, 2), raw


@kinds
def test_second_derivatives_in_parameters_features_and_a_dense_graph(kind: str) -> None:
    net, theta, x, raw = tiny(kind)

    def loss(theta: Tensor, x: Tensor, raw: Tensor) -> Tensor:
        matrix = (raw + raw.T) / 2 * (1 - torch.eye(4, dtype=raw.dtype))
        return net(theta, NodeInput(x, Adjacency.dense_matrix(matrix))).tanh().square().sum()

    inputs = [t.clone().requires_grad_() for t in (theta, x, raw)]
    assert gradcheck(loss, inputs, fast_mode=True)
    assert gradgradcheck(loss, inputs, fast_mode=True)
    (gradient,) = torch.autograd.grad(loss(*inputs), inputs[2], allow_unused=True)
    assert (gradient is None or bool((gradient == 0).all())) == (kind in BLIND)


@kinds
def test_second_derivatives_in_the_weights_of_a_sparse_graph(kind: str) -> None:
    net, theta, x, _ = tiny(kind)
    pairs = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    weights = torch.tensor([0.5, 0.7, 1.1, 0.9, 0.6, 1.3], dtype=torch.float64, requires_grad=True)

    def loss(theta: Tensor, weights: Tensor) -> Tensor:
        return net(theta, NodeInput(x, Adjacency.sparse(pairs, 4, weights))).tanh().square().sum()

    assert gradcheck(loss, (theta.clone().requires_grad_(), weights), fast_mode=True)
    assert gradgradcheck(loss, (theta.clone().requires_grad_(), weights), fast_mode=True)


@pytest.mark.parametrize("kind", ["GAT", "GraphTransformer"])
def test_an_edge_of_weight_zero_can_come_back(kind: str) -> None:
    net = make(kind)
    matrix = dense().dense().clone().requires_grad_()
    net(NodeInput(features(), Adjacency.dense_matrix(matrix))).square().sum().backward()
    assert matrix.grad is not None
    assert matrix.grad[0, 5] != 0
    assert matrix[0, 5] == 0


def test_attention_stays_finite_where_scores_are_huge() -> None:
    matrix = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    source = torch.tensor([[0.0], [-2000.0], [3000.0]], dtype=torch.float64, requires_grad=True)
    values = torch.arange(3.0, dtype=torch.float64)[:, None, None]
    scores = filters.Additive(source, torch.zeros_like(source))
    out = filters.attend(Adjacency.dense_matrix(matrix), scores, values)
    assert out.flatten().tolist() == [1.0, 0.0, 0.0]
    for gradient in torch.autograd.grad(out.square().sum(), [matrix, source]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_maximum_without_gradients_is_the_same(dtype: torch.dtype) -> None:
    """Of negative numbers too, with a node that has no neighbours."""
    pairs = torch.randint(0, 40, (2, 120), generator=generator(4))
    graph = Adjacency.sparse(pairs[:, pairs[1] != 2].unique(dim=1), 40)
    x = -torch.rand(40, 5, dtype=dtype, generator=generator(5))
    slow = filters.maximum(graph, x.clone().requires_grad_()).detach()
    assert torch.equal(filters.maximum(graph, x), slow)
    assert slow[2].abs().sum() == 0
    assert slow.min() < 0


def test_the_maximum_is_found_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features(N, 7)
    whole = [filters.maximum(graph, x) for graph in (sparse(weighted()), dense(weighted()))]
    monkeypatch.setattr(filters, "_ENTRIES", 100)
    for graph, expected in zip((sparse(weighted()), dense(weighted())), whole, strict=True):
        assert torch.equal(filters.maximum(graph, x), expected)
    by_hand = torch.stack([
        (row[row != 0][:, None] * x[row != 0]).amax(0) if bool((row != 0).any()) else torch.zeros(7).double()
        for row in dense(weighted()).dense()
    ])  # fmt: skip
    torch.testing.assert_close(whole[0], by_hand)


# ---------------------------------------------------------------- the polynomial family


def test_coefficients_of_a_polynomial_are_hyperparameters_with_second_derivatives() -> None:
    module = make("Polynomial", width=2, features=2, classes=2, activation="swish")
    ring = torch.ones(4, 4, dtype=torch.float64) - torch.eye(4, dtype=torch.float64).roll(2, 0)
    net, x = Net(module), NodeInput(features(4, 2), Adjacency.dense_matrix(ring.fill_diagonal_(0)))
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).requires_grad_()
    coefficients = torch.tensor([0.3, -0.8, 0.2], dtype=torch.float64, requires_grad=True)

    def loss(theta: Tensor, coefficients: Tensor) -> Tensor:
        return net(theta, x, statistics={"coefficients": coefficients}).tanh().square().sum()

    assert gradcheck(loss, (theta, coefficients), fast_mode=True)
    assert gradgradcheck(loss, (theta, coefficients), fast_mode=True)
    assert "coefficients" not in dict(module.named_parameters())
    torch.testing.assert_close(net(theta, x), net(theta, x, statistics={"coefficients": module.coefficients}))
    assert not torch.allclose(net(theta, x), net(theta, x, statistics={"coefficients": coefficients}))


def test_the_polynomial_is_the_papers_formula() -> None:
    graph, x = sparse(weighted()), features()
    laplacian, eye = graph.laplacian().dense(), torch.eye(N, dtype=torch.float64)
    top = float(torch.linalg.eigvalsh(laplacian)[-1])
    scaled = 2 / top * laplacian - eye
    c = torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64)
    terms = [eye, scaled, 2 * scaled @ scaled - eye, 4 * scaled @ scaled @ scaled - 3 * scaled]
    expected = sum(k * t for k, t in zip(c, terms, strict=True)) @ x
    torch.testing.assert_close(filters.chebyshev(graph, x, c, lambda_max=top), expected)
    two = torch.tensor([0.4, -1.2], dtype=torch.float64)
    figure = (eye + two[0] * laplacian + two[1] * scaled) @ x
    made = filters.chebyshev(graph, x, filters.two_parameter(two, lambda_max=top), lambda_max=top)
    torch.testing.assert_close(made, figure)


def test_networks_are_points_of_the_family() -> None:
    x = NodeInput(features(), sparse(weighted()))
    family = make("Polynomial", coefficients=[0.5, -0.5], lambda_max=2.0)
    operator = 0.5 * (torch.eye(N, dtype=torch.float64) + x.graph.normalised(self_loops=False).dense())
    same = make("GCN as given")  # the same filter handed over as a graph
    torch.testing.assert_close(family(x), same(NodeInput(x.features, Adjacency.dense_matrix(operator))))


# ---------------------------------------------------------------- diffusion


@pytest.mark.parametrize(("kind", "strength"), [(Diffusion.PPR, 0.15), (Diffusion.HEAT, 3.0)])
def test_the_series_is_the_closed_form(kind: Diffusion, strength: float) -> None:
    graph, x = sparse(weighted()), features()
    series = filters.diffuse(graph.normalised(), x, filters.diffusion_coefficients(kind, strength, 150))
    torch.testing.assert_close(series, filters.diffused(graph, kind, strength) @ x, rtol=1e-8, atol=1e-8)
    assert sum(filters.diffusion_coefficients(kind, strength, 5)) == pytest.approx(1)


@pytest.mark.parametrize(("kind", "strength"), [(Diffusion.PPR, 0.15), (Diffusion.HEAT, 3.0)])
def test_the_largest_entries_of_a_diffused_graph(kind: Diffusion, strength: float) -> None:
    kept = [filters.diffused(graph, kind, strength, top=3) for graph in (sparse(weighted()), dense(weighted()))]
    assert [graph.is_dense for graph in kept] == [False, True]
    torch.testing.assert_close(kept[0].dense(), kept[1].dense())
    assert ((kept[1].dense() > 0).sum(1) <= 3).all()
    torch.testing.assert_close(kept[1].dense().sum(1), torch.ones(N, dtype=torch.float64))
    weights = weighted().requires_grad_()
    loss = filters.diffused(sparse(weights), kind, strength, top=3).dense().square().sum()
    assert torch.autograd.grad(loss, weights)[0].abs().sum() > 0


@pytest.mark.parametrize(("kind", "strength"), [("ppr", 0.0), ("ppr", 1.5), ("heat", 0.0), ("heat", float("inf"))])
def test_a_strength_out_of_range(kind: str, strength: float) -> None:
    with pytest.raises(ValueError, match="give a"):
        GDC(features=2, classes=2, diffusion=Diffusion(kind), strength=strength)
    with pytest.raises(ValueError, match="give a"):
        filters.diffused(sparse(), Diffusion(kind), strength)


# ---------------------------------------------------------------- as PyTorch Geometric


@pytest.fixture(scope="module")
def pyg() -> Any:
    """Its layers; skipped without the extra."""
    return pytest.importorskip("torch_geometric.nn")


def copied(pairs: dict[Tensor, Tensor]) -> None:
    with torch.no_grad():
        for to, source in pairs.items():
            to.copy_(source.view(to.shape))


def only(net: GraphNet) -> Any:
    """The layer of a network of depth 1."""
    (layer,) = net.layers
    return layer


def pyg_gcn(pyg: Any, net: Any) -> Any:
    theirs, ours = pyg.GCNConv(D, CLASSES).double(), only(net).linear
    copied({theirs.lin.weight: ours.weight, theirs.bias: ours.bias})
    return theirs


def pyg_sage(aggregation: str) -> Callable[[Any, Any], Any]:
    def layer(pyg: Any, net: Any) -> Any:
        theirs, ours = pyg.SAGEConv(D, CLASSES, aggr=aggregation).double(), only(net)
        copied({
            theirs.lin_l.weight: ours.neighbours.weight,
            theirs.lin_l.bias: ours.neighbours.bias,
            theirs.lin_r.weight: ours.own.weight,
        })  # fmt: skip
        return theirs

    return layer


def pyg_gin(pyg: Any, net: Any) -> Any:
    ours = only(net)
    inner = nn.Sequential(nn.Linear(D, 4), nn.ReLU(), nn.Linear(4, CLASSES)).double()
    theirs = pyg.GINConv(inner, train_eps=True).double()
    copied({
        inner[0].weight: ours.first.weight,
        inner[0].bias: ours.first.bias,
        inner[2].weight: ours.second.weight,
        inner[2].bias: ours.second.bias,
        theirs.eps: torch.as_tensor(ours.epsilon).reshape(1),
    })  # fmt: skip
    return theirs


def pyg_sgc(pyg: Any, net: Any) -> Any:
    theirs, ours = pyg.SGConv(D, CLASSES, K=3).double(), only(net).linear
    copied({theirs.lin.weight: ours.weight, theirs.lin.bias: ours.bias})
    return theirs


def pyg_cheb(pyg: Any, net: Any) -> Any:
    theirs, ours = pyg.ChebConv(D, CLASSES, K=4).double(), only(net).linears
    copied({a.weight: b.weight for a, b in zip(theirs.lins, ours, strict=True)} | {theirs.bias: ours[0].bias})
    return theirs


def pyg_gat(pyg: Any, net: Any) -> Any:
    theirs, ours = pyg.GATConv(D, CLASSES, heads=1).double(), only(net)
    copied({
        theirs.lin.weight: ours.linear.weight,
        theirs.att_src: ours.source,
        theirs.att_dst: ours.target,
        theirs.bias: ours.bias,
    })  # fmt: skip
    return theirs


def pyg_transformer(pyg: Any, net: Any) -> Any:
    theirs, ours = pyg.TransformerConv(D, CLASSES, heads=1).double(), only(net)
    for a, b in (
        (theirs.lin_query, ours.query),
        (theirs.lin_key, ours.key),
        (theirs.lin_value, ours.value),
        (theirs.lin_skip, ours.own),
    ):
        copied({a.weight: b.weight, a.bias: b.bias})
    return theirs


def pyg_appnp(pyg: Any, net: Any) -> Any:
    propagation, ours = pyg.APPNP(K=3, alpha=0.1), only(net).linear
    return lambda x, index: propagation(x @ ours.weight.T + ours.bias, index)


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("GCN", pyg_gcn),
        ("SAGE mean", pyg_sage("mean")),
        ("SAGE max", pyg_sage("max")),
        ("GIN epsilon", pyg_gin),
        ("GIN 0", pyg_gin),
        ("SGC", pyg_sgc),
        ("ChebNet", pyg_cheb),
        ("GAT", pyg_gat),
        ("GraphTransformer", pyg_transformer),
        ("APPNP", pyg_appnp),
    ],
)
def test_a_layer_is_pytorch_geometrics(pyg: Any, kind: str, layer: Callable[[Any, Any], Any]) -> None:
    net, x = make(kind, depth=1), features()
    theirs = layer(pyg, net)(x, edges())
    for graph in (sparse(), dense()):
        torch.testing.assert_close(net(NodeInput(x, graph)), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "layer"), [("GCN", pyg_gcn), ("SGC", pyg_sgc), ("ChebNet", pyg_cheb)])
def test_a_layer_on_a_weighted_graph_is_pytorch_geometrics(
    pyg: Any, kind: str, layer: Callable[[Any, Any], Any]
) -> None:
    net, x = make(kind, depth=1), features()
    theirs = layer(pyg, net)(x, edges(), weighted())
    torch.testing.assert_close(net(NodeInput(x, dense(weighted()))), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "heads"), [("GAT", 2), ("GraphTransformer", 2)])
def test_heads_side_by_side_are_pytorch_geometrics(pyg: Any, kind: str, heads: int) -> None:
    net, x = make(kind), features()
    ours = net.layers[0]
    if kind == "GAT":
        theirs = pyg.GATConv(D, 4 // heads, heads=heads).double()
        copied({
            theirs.lin.weight: ours.linear.weight,
            theirs.att_src: ours.source,
            theirs.att_dst: ours.target,
            theirs.bias: ours.bias,
        })  # fmt: skip
    else:
        theirs = pyg.TransformerConv(D, 4 // heads, heads=heads).double()
        for name in ("query", "key", "value"):
            copied({
                getattr(theirs, f"lin_{name}").weight: getattr(ours, name).weight,
                getattr(theirs, f"lin_{name}").bias: getattr(ours, name).bias,
            })  # fmt: skip
        copied({theirs.lin_skip.weight: ours.own.weight, theirs.lin_skip.bias: ours.own.bias})
    hidden = net.representations(NodeInput(x, sparse()))[0]
    torch.testing.assert_close(hidden, theirs(x, edges()).relu(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "name", "option", "strength"),
    [(Diffusion.PPR, "ppr", "alpha", 0.15), (Diffusion.HEAT, "heat", "t", 3.0)],
)
def test_a_diffused_graph_is_pytorch_geometrics(
    pyg: Any, kind: Diffusion, name: str, option: str, strength: float
) -> None:
    from torch_geometric.transforms import GDC as Theirs

    theirs = Theirs()
    index, weight = theirs.transition_matrix(*with_loops(), N, normalization="sym")
    matrix = theirs.diffusion_matrix_exact(index, weight, N, method=name, **{option: strength})
    torch.testing.assert_close(filters.diffused(sparse(), kind, strength).dense(), matrix, rtol=1e-6, atol=1e-6)


def with_loops() -> tuple[Tensor, Tensor]:
    own = torch.arange(N).expand(2, -1)
    index = torch.cat([edges(), own], 1)
    return index, torch.ones(index.shape[1], dtype=torch.float64)


# ---------------------------------------------------------------- functional use


@kinds
@pytest.mark.usefixtures("untouched")
def test_a_net_of_it_draws_from_its_generator_alone(kind: str) -> None:
    with torch.random.fork_rng(devices=[]):
        module = make(kind)
    net = Net(module)
    first, again, other = (net.init(generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for name, values in net.layers(first).items():
        if name.endswith("weight"):
            assert values.abs().min() < values.abs().max() <= 2.5


@kinds
def test_a_net_of_it_is_the_module(kind: str) -> None:
    net, x = Net(make(kind)), NodeInput(features(), sparse(weighted()))
    theta = net.init(generator()).double()
    module = net.at(theta)
    assert torch.equal(net(theta, x), module(x))
    assert torch.equal(net.embed(theta, x), module.embed(x))
    assert torch.equal(net.flat(net.layers(theta)), theta)


@pytest.mark.parametrize(("start", "bound", "bias"), [(Start.GLOROT, (6 / 300) ** 0.5, 0.0), (Start.FAN_IN, 0.1, 0.1)])
def test_starting_weights_fill_their_range(start: Start, bound: float, bias: float) -> None:
    net = Net(GCN(features=100, classes=200, depth=1, start=start))
    weight, shift = net.layers(net.init(generator())).values()
    assert 0.99 * bound < weight.abs().max() <= bound
    assert abs(float(weight.mean())) < 0.02 * bound
    assert float(shift.abs().max()) == pytest.approx(bias, rel=0.05)


def test_gradients_of_a_gradient_reach_the_graph() -> None:
    net, x = Net(make("GCN", activation="relu")), features()
    theta = net.init(generator()).double().requires_grad_()
    matrix = dense(weighted()).dense().requires_grad_()
    loss = net(theta, NodeInput(x, Adjacency.dense_matrix(matrix))).logsumexp(1).sum()
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    gradient.square().sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.abs().sum() > 0


def test_a_functional_call_may_replace_the_filter() -> None:
    net, x = make("Polynomial"), NodeInput(features(), sparse())
    identity = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    replaced = functional_call(net, {"coefficients": identity}, (x,))
    alone = functional_call(net, {"coefficients": identity}, (NodeInput(x.features, Adjacency.empty(N)),))
    torch.testing.assert_close(replaced, alone)


# ---------------------------------------------------------------- dropout


def test_dropout_waits_for_a_generator() -> None:
    x = torch.ones(200, 50)
    layer = Dropout(0.4)
    assert torch.equal(layer(x), x)
    with_dropout(layer, generator())
    dropped = layer(x)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.4, abs=0.03)
    assert dropped[dropped != 0].unique().tolist() == pytest.approx([1 / 0.6])
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.usefixtures("untouched")
def test_dropout_is_repeatable_and_between_layers_only() -> None:
    with torch.random.fork_rng(devices=[]):
        one, deep = make("GCN", depth=1, dropout=0.5), make("GCN", depth=2, dropout=0.5)
    x = NodeInput(features(), sparse())
    for net, changes in ((one, False), (deep, True)):
        expected = net.eval()(x)
        runs = [with_dropout(net.train(), generator(seed))(x) for seed in (0, 0, 1)]
        assert torch.equal(runs[0], runs[1])
        assert torch.equal(runs[0], expected) == (not changes)
        assert torch.equal(runs[0], runs[2]) == (not changes)


# ---------------------------------------------------------------- the zoo, and mistakes


def test_the_search_space_has_forty_networks(untouched: None) -> None:
    zoo = list(candidates(features=4, classes=3))
    assert len({name for name, _ in zoo}) == len(zoo) == 40
    assert {len(net.layers) for _, net in zoo} == {2, 4}
    assert {net.config["width"] for _, net in zoo} == {128, 256}


def mistakes() -> Iterator[tuple[Callable[[], object], str]]:
    yield lambda: GCN(features=0, classes=2), "features must be a positive whole number"
    yield lambda: GCN(features=2, classes=2, depth=0), "depth must be a positive whole number"
    yield lambda: GCN(features=2, classes=2, start="zeros"), "start must be one of glorot, fan_in"  # type: ignore[arg-type]
    yield lambda: GCN(features=2, classes=2, dropout=1.0), "less than 1"
    yield lambda: GAT(features=2, classes=2, width=10, heads=4), "choose a width that is a multiple"
    yield lambda: GraphTransformer(features=2, classes=2, heads=0), "heads must be a positive whole number"
    yield lambda: SGC(features=2, classes=2, hops=0), "hops must be a positive whole number"
    yield lambda: ChebNet(features=2, classes=2, terms=0), "terms must be a positive whole number"
    yield lambda: APPNP(features=2, classes=2, restart=1.5), "give a number from 0 to 1"
    yield lambda: Polynomial(features=2, classes=2, coefficients=()), "give at least 1"
    yield lambda: SAGE(features=2, classes=2, aggregation="sum"), "one of mean, max"  # type: ignore[arg-type]
    yield lambda: filters.diffused(sparse(), Diffusion.PPR, 0.1, top=0), "give top=1"
    yield lambda: filters.diffusion_coefficients(Diffusion.PPR, 0.1, -1), "give at least 0"
    yield lambda: make("GCN")(features()), r"give NodeInput\(features, graph\)"
    yield lambda: make("GCN")(NodeInput(features(N, 4), sparse())), "build it with the features of your nodes"
    yield lambda: make("GCN")(NodeInput(features(8), sparse())), "one row for each"


@pytest.mark.parametrize(("call", "message"), list(mistakes()))
def test_mistakes_say_what_to_do(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_enums_are_read_from_strings() -> None:
    assert SAGE(features=2, classes=2, aggregation="max").aggregation is Aggregation.MAX  # type: ignore[arg-type]
    assert GraphTransformer(features=2, classes=2, reach="everyone").reach is Reach.EVERYONE  # type: ignore[arg-type]
