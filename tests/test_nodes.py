"""Training graph networks for an evaluation: the literature's recipe, both figures, both settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from condensery.adjacency import Adjacency, NodeInput
from condensery.data.graphs import GraphData, Split, graph_data
from condensery.evaluate.nodes import FittedNodes, NodeRecipe, Nodes, fit_nodes, node_accuracy, score_nodes
from condensery.fitting import Adam, Constant
from condensery.net import Net
from condensery.nets.graph import GCN, NodeMLP
from support import generator

SHORT = NodeRecipe(steps=20)


def communities(*, inductive: bool = False, n: int = 60) -> GraphData:
    """Two communities with many edges inside and few between, and noisy features: the graph helps."""
    g = generator(7)
    y = torch.arange(n) % 2
    chance = torch.where(y[:, None] == y, 0.3, 0.02)
    matrix = (torch.rand(n, n, generator=g) < chance).triu(1)
    edges = (matrix | matrix.T).nonzero().T
    x = torch.randn(n, 4, generator=g)
    x[:, 0] += y
    order = torch.randperm(n, generator=g)
    split = Split(order[:12].sort().values, order[12:30].sort().values, order[30:].sort().values)
    return graph_data("communities", x, edges, y, split=split, inductive=inductive)


def tiny(**options: object) -> Net:
    with torch.random.fork_rng(devices=[]):  # a new module's first weights are PyTorch's own draw
        return Net(GCN(features=4, classes=2, width=8, **options))  # type: ignore[arg-type]


def test_the_recipe_is_the_literatures() -> None:
    recipe = NodeRecipe()
    assert (recipe.steps, recipe.optimizer, recipe.check_every) == (600, Adam(lr=0.01, weight_decay=5e-4), 1)
    factors = [recipe.schedule.factor(step, recipe.steps) for step in (0, 299, 300, 599)]
    assert factors == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert [step for step in range(600) if recipe.schedule.restarts(step, 600)] == [300]


def test_training_is_plain_adam_with_a_new_one_at_half_time(untouched: None) -> None:
    net, nodes = tiny(), Nodes.training(communities())
    fitted = fit_nodes(net, nodes, SHORT, generator())
    module = net.at(net.init(generator()))
    for lr in (0.01, 0.001):
        optimizer = torch.optim.Adam(module.parameters(), lr=lr, weight_decay=5e-4)
        for _ in range(10):
            optimizer.zero_grad()
            F.cross_entropy(module(nodes.x)[nodes.index], nodes.y[nodes.index]).backward()
            optimizer.step()
    expected = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(fitted.last, expected, rtol=1e-5, atol=1e-6)
    assert fitted.best is None
    assert fitted.best_step is None


def test_the_best_step_is_the_first_with_the_best_validation_accuracy() -> None:
    data, net = communities(), tiny()
    nodes, held = Nodes.training(data), Nodes.validation(data)
    recipe = NodeRecipe(steps=15, schedule=Constant())
    fitted = fit_nodes(net, nodes, recipe, generator(), validate=held)
    curve = []
    for steps in range(1, 16):
        last = fit_nodes(net, nodes, NodeRecipe(steps=steps, schedule=Constant()), generator()).last
        curve.append(node_accuracy(net, last, held))
    assert fitted.validation == max(curve)
    assert fitted.best_step == curve.index(max(curve)) + 1
    assert fitted.best is not None
    assert node_accuracy(net, fitted.best, held) == max(curve)
    assert curve[0] < max(curve), "the first step should not be the best one, or nothing is tested"


def test_looking_changes_nothing_but_the_choice() -> None:
    data, net = communities(), tiny(dropout=0.5)
    nodes, held = Nodes.training(data), Nodes.validation(data)
    alone = fit_nodes(net, nodes, SHORT, generator())
    watched = fit_nodes(net, nodes, SHORT, generator(), validate=held)
    assert torch.equal(alone.last, watched.last)
    rarely = fit_nodes(net, nodes, NodeRecipe(steps=20, check_every=7), generator(), validate=held)
    assert rarely.best_step in (7, 14, 20)


def test_dropout_trains_differently_and_repeatably(untouched: None) -> None:
    nodes = Nodes.training(communities())
    plain, dropped, again, other = (
        fit_nodes(net, nodes, SHORT, generator(seed), theta=tiny().init(generator())).last
        for net, seed in ((tiny(), 0), (tiny(dropout=0.5), 0), (tiny(dropout=0.5), 0), (tiny(dropout=0.5), 1))
    )
    assert torch.equal(dropped, again)
    assert not torch.equal(dropped, plain)
    assert not torch.equal(dropped, other)


def test_soft_labels_and_a_dense_learned_graph() -> None:
    matrix = torch.full((4, 4), 0.3).fill_diagonal_(0)
    x = NodeInput(torch.eye(4), Adjacency.dense_matrix(matrix))
    rows = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])
    net = tiny()
    fitted = fit_nodes(net, Nodes(x, rows), NodeRecipe(steps=100), generator())
    assert node_accuracy(net, fitted.last, Nodes(x, torch.tensor([0, 0, 1, 1]))) == 1.0
    assert node_accuracy(net, fitted.last, Nodes(x, rows)) == 1.0


@pytest.mark.parametrize("inductive", [False, True])
def test_a_row_has_both_figures(inductive: bool) -> None:
    data, net = communities(inductive=inductive), tiny()
    row = score_nodes("all", net, Nodes.training(data), data, SHORT, n=3, seed=4, size={"nodes": 12})
    assert row.chosen is not None
    assert (row.last.n, row.chosen.n, row.network) == (3, 3, "GCN (depth 2, width 8)")
    assert row.size["nodes"] == 12
    validation, test = Nodes.validation(data), Nodes.test(data)
    fits: list[FittedNodes] = [
        fit_nodes(net, Nodes.training(data), SHORT, generator(seed), validate=validation) for seed in (4, 5, 6)
    ]
    assert row.last.values == tuple(node_accuracy(net, fit.last, test) for fit in fits)
    assert row.chosen.values == tuple(node_accuracy(net, fit.best, test) for fit in fits if fit.best is not None)
    assert row.size["chosen_steps"] == [fit.best_step for fit in fits]
    assert row.to_json()["chosen"]["n"] == 3


def test_the_inductive_setting_sees_the_split_alone() -> None:
    data = communities(inductive=True)
    for nodes, count in ((Nodes.training(data), 12), (Nodes.validation(data), 18), (Nodes.test(data), 30)):
        assert nodes.x.graph.n == len(nodes.y) == count
        assert torch.equal(nodes.pick(nodes.y), nodes.y)
    assert Nodes.test(communities()).x.graph.n == 60


def test_one_set_of_nodes_for_each_network() -> None:
    data, net = communities(), tiny()
    whole = Nodes.training(data)
    assert whole.index is not None
    parts = [Nodes(whole.x, whole.y, whole.index[:4]), Nodes(whole.x, whole.y, whole.index[4:])]
    row = score_nodes("parts", net, parts, data, SHORT)
    last = fit_nodes(net, parts[1], SHORT, generator(1)).last
    assert row.last.values[1] == node_accuracy(net, last, Nodes.test(data))


def test_the_graph_helps_where_it_should() -> None:
    data = communities(n=200)
    graph, alone = (
        score_nodes("all", Net(kind(features=4, classes=2, width=16)), Nodes.training(data), data, NodeRecipe(100), n=2)
        for kind in (GCN, NodeMLP)
    )
    assert graph.last.mean > alone.last.mean + 0.1


def test_mistakes_say_what_to_do() -> None:
    data, net = communities(), tiny()
    with pytest.raises(ValueError, match="give at least 1"):
        NodeRecipe(steps=0)
    with pytest.raises(ValueError, match="give at least 1"):
        NodeRecipe(check_every=0)
    with pytest.raises(ValueError, match="give n of at least 1"):
        score_nodes("none", net, Nodes.training(data), data, SHORT, n=0)
    nobody = Nodes(Nodes.training(data).x, data.y, torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="give at least one"):
        node_accuracy(net, net.init(generator()), nobody)
    assert NodeRecipe().with_lr(0.5).optimizer.lr == 0.5


def test_the_whole_of_cora(condensery_data: Path) -> None:
    folder = condensery_data / "planetoid"
    if not folder.is_dir():
        pytest.skip("Cora is not there")
    pytest.importorskip("torch_geometric")
    from condensery.data.graph_pyg import planetoid

    data = planetoid(folder, name="cora")
    net = Net(GCN(features=data.num_features, classes=data.num_classes, width=16, dropout=0.5))
    recipe = NodeRecipe(steps=100, schedule=Constant(), check_every=10)
    row = score_nodes("Cora", net, Nodes.training(data), data, recipe, n=1)
    assert row.last.mean > 0.78
