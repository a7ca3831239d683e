"""Whole graphs: dense blocks are graphs, networks that pool them, the relaxed edges, DosCond, and its evaluation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from condensery.adjacency import Adjacency, BlockAdjacency, NodeInput, Normalisation
from condensery.data.graph_sets import GraphSet
from condensery.data.graphs import graph_data
from condensery.evaluate.whole_graphs import (
    GraphRecipe,
    accuracy,
    fit_graphs,
    graph_embeddings,
    graph_logits,
    roc_auc,
    score_graphs,
)
from condensery.graph import Graph
from condensery.graphs import Graphs
from condensery.loop import Snapshots, iterate
from condensery.methods.doscond import DosCond
from condensery.methods.doscond_graphs import Annealing, DosCondGraphs, relative_squared_distance
from condensery.net import Net
from condensery.nets import build, describe
from condensery.nets.graph import GCN, NodeMLP
from condensery.nets.layers import Activation
from condensery.nets.pooled import POOLED, Pool, Pooled, PooledGCN, PooledMLP
from condensery.optimizers import DroppedAdam
from support import generator, numerical_gradient, rings_and_stars


def net(kind: type[Pooled] = PooledGCN, **options: Any) -> Net:
    with torch.random.fork_rng(devices=[]):
        return Net(kind(**{"features": 3, "classes": 2, "width": 6, "depth": 2, **options}))


def smooth(kind: type[Pooled] = PooledGCN, **options: Any) -> Net:
    return net(kind, activation=Activation.SOFTPLUS, **options)


def start(data: GraphSet, counts: tuple[int, int] = (2, 3)) -> Graphs:
    return Graphs.from_real(data, counts, 6, generator(4))


# --- blocks and pooling


@pytest.mark.parametrize("kind", list(Normalisation))
@pytest.mark.parametrize("loops", [True, False])
def test_blocks_are_the_block_diagonal_graph(kind: Normalisation, loops: bool) -> None:
    blocks = torch.rand(3, 4, 4, generator=generator(), dtype=torch.float64)
    blocks[1, 2] = 0  # a node that receives nothing
    ours, whole = BlockAdjacency(blocks), Adjacency.dense_matrix(torch.block_diag(*blocks))
    x = torch.randn(12, 2, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(ours.normalised(loops, kind) @ x, whole.normalised(loops, kind) @ x)
    torch.testing.assert_close(ours.degrees(), whole.degrees())
    torch.testing.assert_close(ours.dense(), whole.dense())
    torch.testing.assert_close(ours.joined().dense().double(), whole.dense())
    torch.testing.assert_close(ours.laplacian().dense(), whole.laplacian().dense())
    torch.testing.assert_close(ours @ x[:, 0], whole @ x[:, 0])
    assert ours.normalised(loops, kind) is ours.normalised(loops, kind)
    assert BlockAdjacency(blocks.requires_grad_()).normalised() is not BlockAdjacency(blocks).normalised()


@pytest.mark.parametrize("pool", list(Pool))
@pytest.mark.parametrize("kind", POOLED.values())
def test_a_network_sees_dense_and_sparse_graphs_alike_and_one_by_one(kind: type[Pooled], pool: Pool) -> None:
    data = rings_and_stars()
    index = torch.tensor([0, 5, 2])
    made = net(kind, pool=pool)
    theta = made.init(generator())
    together = made(theta, data.batch(index))  # type: ignore[arg-type]
    apart = [made(theta, data.batch(i[None])) for i in index]  # type: ignore[arg-type]
    torch.testing.assert_close(together, torch.cat(apart))
    same = index[data.sizes[index] == data.sizes[index[0]]]
    values, blocks = data.dense(same, int(data.sizes[index[0]]))
    graphs = Graphs(values, (2 * blocks - 1) * 5, torch.zeros(len(same)).long(), density=0.5)
    torch.testing.assert_close(made(theta, graphs().x), made(theta, data.batch(same)))  # type: ignore[arg-type]


def test_pooling_is_the_mean_or_the_sum_of_the_nodes() -> None:
    data = rings_and_stars()
    theta = net().init(generator())
    x = data.batch(torch.tensor([4]))
    mean, total = (net(pool=pool).embed(theta, x) for pool in (Pool.MEAN, Pool.SUM))  # type: ignore[arg-type]
    torch.testing.assert_close(mean * x.sizes, total)
    nodes = Net(GCN(features=3, classes=6, width=6, depth=2))
    trunk = theta[: nodes.size]
    by_hand = torch.relu(nodes(trunk, NodeInput(x.features, x.graph))).sum(0)  # type: ignore[arg-type]
    torch.testing.assert_close(total[0], by_hand)


@pytest.mark.parametrize("kind", POOLED.values())
def test_a_network_is_described_and_built_again(kind: type[Pooled]) -> None:
    config = describe(net(kind, pool="sum").module)
    again = build(config)
    assert describe(again) == config
    with pytest.raises(ValueError, match="give GraphsInput"):
        again(torch.zeros(3, 3))


# --- the synthetic set


def test_the_start_is_real_graphs_and_is_what_networks_are_given() -> None:
    data = rings_and_stars()
    graphs = start(data)
    assert graphs.rows() == {0: slice(0, 2), 1: slice(2, 5)}
    whole = graphs.to_set(data)
    assert (len(whole), whole.sizes.tolist(), whole.y.tolist()) == (5, [6] * 5, [0, 0, 1, 1, 1])
    x, y = graphs()
    torch.testing.assert_close(whole.batch(whole.train).graph.dense(), x.graph.dense())
    assert y.tolist() == whole.y.tolist()
    real = {tuple(data.x[data.owner == i].flatten().tolist()) for i in data.train.tolist()}
    for values, block in zip(graphs.values.detach(), graphs.discrete(), strict=True):
        kept = (values != 0).any(1)
        assert tuple(values[kept].flatten().tolist()) in real
        assert block[~kept].sum() == 0
    assert float(graphs.density) == pytest.approx(float(graphs.discrete().mean()))


def test_a_start_that_is_not_there_is_refused() -> None:
    data = rings_and_stars()
    with pytest.raises(ValueError, match="0 training graphs of at most 3 nodes, 1 are needed"):
        Graphs.from_real(data, [1, 1], 3, generator())
    with pytest.raises(ValueError, match="not all 0"):
        Graphs.from_real(data, [0, 0], 6, generator())
    with pytest.raises(ValueError, match="sort the graphs by class"):
        Graphs(torch.zeros(2, 3, 1), torch.zeros(2, 3, 3), torch.tensor([1, 0]), density=0.1)


def test_pyg_has_the_same_graphs() -> None:
    pytest.importorskip("torch_geometric")
    graphs = start(rings_and_stars())
    parts = graphs.to_pyg()
    assert [int(part.y) for part in parts] == graphs.classes.tolist()
    matrix = torch.zeros(6, 6)
    matrix[tuple(parts[1].edge_index)] = 1
    assert torch.equal(matrix, graphs.discrete()[1])


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_relaxed_edges_have_their_expectation(temperature: float) -> None:
    """With u uniform and a = exp(l): above 1/2 with probability sigmoid(l) at any temperature; at temperature 1 the
    mean of a u / (a u + 1 - u) is a (a - 1 - log a) / (a - 1)^2, and as the temperature goes to 0 it is sigmoid(l)."""
    n = 20_000
    odds = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    logits = torch.zeros(3, 3, dtype=torch.float64)
    logits[0, 1], logits[0, 2], logits[1, 2] = 2 * odds  # the mean of both directions counts
    graphs = Graphs(torch.zeros(n, 3, 1).double(), logits.expand(n, 3, 3), torch.zeros(n).long(), density=0.5)
    with torch.no_grad():
        drawn = graphs.relaxed(temperature, generator(6))
    assert torch.equal(drawn, drawn.mT)
    assert drawn.diagonal(dim1=1, dim2=2).abs().sum() == 0
    edges = torch.stack([drawn[:, 0, 1], drawn[:, 0, 2], drawn[:, 1, 2]])
    torch.testing.assert_close((edges > 0.5).double().mean(1), odds.sigmoid(), atol=0.012, rtol=0)
    a = odds.exp()
    expected = a * (a - 1 - odds) / (a - 1).square() if temperature == 1 else odds.sigmoid()
    torch.testing.assert_close(edges.mean(1), expected, atol=0.012, rtol=0)


def test_only_too_many_edges_cost() -> None:
    graphs = start(rings_and_stars())
    with torch.no_grad():
        graphs.logits += 1
        expected = torch.sigmoid(graphs.logits).mean() - graphs.density
        assert expected > 0
        torch.testing.assert_close(graphs.excess(), expected)
        graphs.logits -= 10
        assert float(graphs.excess()) == 0


# --- DosCond


def doscond(data: GraphSet, g: torch.Generator, **options: Any) -> DosCondGraphs:
    return DosCondGraphs(smooth(), data, g, **{"lr_structure": 0.3, **options})


@pytest.mark.parametrize("kind", POOLED.values())
@pytest.mark.parametrize("batch_real", [None, 3])
def test_gradient_against_finite_differences(kind: type[Pooled], batch_real: int | None) -> None:
    data = rings_and_stars()
    graphs = start(data).double()
    with torch.no_grad():
        graphs.logits.mul_(0.2)  # away from where the sigmoid is flat
    objective = DosCondGraphs(smooth(kind), data, generator(5), batch_real=batch_real, penalty=3.0)

    def value() -> Tensor:
        again = copy.copy(objective)
        again.generator = generator(5)
        return again(graphs)

    loss = value()
    assert loss.shape == ()
    grads = torch.autograd.grad(loss, list(graphs.parameters()))
    assert float(graphs.excess().detach()) > 0
    for p, gradient in zip(graphs.parameters(), grads, strict=True):
        directions, slopes = numerical_gradient(value, p.data)
        ours = (directions * gradient).flatten(1).sum(1)
        torch.testing.assert_close(ours, slopes, rtol=2e-5, atol=1e-8)


def run(steps: int, **kw: Any) -> dict[str, Tensor]:
    data = rings_and_stars()
    graphs, objective = start(data), doscond(data, generator(1), batch_real=5, drop_after=4)
    for _ in iterate(graphs, objective, objective.optimizer(graphs), steps=steps, **kw):
        pass
    return {name: p.detach().clone() for name, p in graphs.named_parameters()}


def test_is_deterministic_and_leaves_the_global_generator(untouched: None) -> None:
    first, second = run(5), run(5)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_resumes_bit_for_bit_across_the_drop_of_the_rates(tmp_path: Path) -> None:
    whole = run(9)
    run(6, snapshots=Snapshots(tmp_path, every=2))
    resumed = run(9, snapshots=Snapshots(tmp_path, every=2))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_on_graphs_of_one_node_it_is_doscond_for_nodes_without_edges() -> None:
    """A node that nobody is joined to is a graph: a pooled perceptron sees what a perceptron of nodes sees."""
    data = rings_and_stars(single=True)
    nodes = graph_data("nodes", data.x, torch.zeros(2, 0).long(), data.y, split=data.split)
    index = torch.tensor([0, 2, 1, 3])
    graphs = Graphs.from_index(data, index, 1)
    graph = Graph.from_index(nodes, index)
    with torch.random.fork_rng(devices=[]):
        deep = Net(NodeMLP(features=3, classes=2, width=6, depth=3, activation=Activation.SOFTPLUS))
    pooled = DosCondGraphs(smooth(PooledMLP), data, generator(2), batch_real=None, penalty=0.0)
    plain = DosCond(deep, nodes, generator(2), batch_real=None, distance=relative_squared_distance)
    ours, theirs = pooled(graphs), plain(graph)
    torch.testing.assert_close(ours, theirs)
    a, b = torch.autograd.grad(ours, graphs.values)[0], torch.autograd.grad(theirs, graph.values)[0]
    torch.testing.assert_close(a[:, 0], b)


def test_the_temperature_falls_with_the_steps() -> None:
    data, seen = rings_and_stars(), []

    def temperature(step: int) -> float:
        seen.append(step)
        return 0.5

    graphs, objective = start(data), doscond(data, generator(1), temperature=temperature)
    for _ in range(3):
        objective(graphs)
    assert seen == [0, 1, 2]
    assert objective.state_dict() == {"steps": 3}
    assert Annealing()(1000) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="does not anneal"):
        Annealing(end=0.0)


def test_dropped_adam_is_a_new_adam_with_a_tenth_of_the_rate() -> None:
    target = torch.tensor([1.0, -2.0])

    def path(optimizers: list[Any], p: Tensor, steps: list[int]) -> Tensor:
        for optimizer, count in zip(optimizers, steps, strict=True):
            for _ in range(count):
                p.grad = p.detach() - target
                optimizer.step()
        return p.detach()

    a, b = (torch.zeros(2, requires_grad=True) for _ in range(2))
    ours = path([DroppedAdam([a], lr=0.1, drop_after=3)], a, [8])
    theirs = path([torch.optim.Adam([b], lr=0.1), torch.optim.Adam([b], lr=0.01)], b, [3, 5])
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="give at least 1"):
        DroppedAdam([a], drop_after=0)


def test_condensing_brings_the_loss_down_and_moves_edges() -> None:
    data = rings_and_stars()
    graphs = start(data, (1, 1))
    with torch.no_grad():
        graphs.values.normal_(generator=generator(8))
        graphs.logits.mul_(0.1)
    before = graphs.discrete()

    def level() -> float:
        losses = [doscond(data, generator(50 + i), temperature=lambda _: 0.1)(graphs) for i in range(8)]
        return float(sum(losses).detach()) / 8

    first, objective = level(), doscond(data, generator(1), lr_features=0.03)
    for _ in iterate(graphs, objective, objective.optimizer(graphs), steps=80):
        pass
    assert level() < 0.6 * first
    assert not torch.equal(before, graphs.discrete())


# --- evaluation


def test_auc_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    g = generator(9)
    for classes in (2, 4):
        y = torch.arange(60) % classes
        logits = torch.randn(60, classes, generator=g).mul(2).round() / 2  # with ties
        p = logits.double().softmax(1).numpy()
        expected = roc_auc_score(y, p[:, 1]) if classes == 2 else roc_auc_score(y, p, multi_class="ovr")
        assert roc_auc(logits, y) == pytest.approx(expected)
    with pytest.raises(ValueError, match="Class 1 has 0 of 3 graphs"):
        roc_auc(torch.zeros(3, 2), torch.zeros(3).long())


def test_the_structure_is_learned_and_scored_on_the_test_graphs(untouched: None) -> None:
    data, recipe = rings_and_stars(graphs=80), GraphRecipe(epochs=40, batch=16, lr=0.02, check_every=5)
    made = net(width=16)
    row = score_graphs("full data", made, data, data, recipe, n=2)
    assert row.chosen is not None
    assert row.last.n == row.chosen.n == 2
    assert row.network == "PooledGCN (depth 2, width 16)"
    fitted = fit_graphs(made, data, recipe, generator(0), validate=data)
    assert accuracy(graph_logits(made, fitted.last, data, data.test), data.y[data.test]) == row.last.values[0]
    assert accuracy(graph_logits(made, fitted.last, data, data.train), data.train_y) > 0.8
    assert fitted.best_epoch in row.size["chosen_epochs"]
    assert graph_embeddings(made, fitted.last, data, data.train).shape == (64, 16)
    area = score_graphs("full data", made, [data], data, recipe, metric=roc_auc)
    assert 0.5 < area.last.mean <= 1
    with pytest.raises(ValueError, match="all three splits"):
        score_graphs("nothing", made, data, data.subset(data.train), recipe)
