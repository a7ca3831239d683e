"""Runs on graphs: the same graph whether or not they were stopped, every layout of data, selections, scores."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from condensery import catalog, graph_runs
from condensery.coresets import graphs as coresets
from condensery.coresets.coarsening import coarsen
from condensery.data.graph_features import RowNormalised, StandardScaled
from condensery.data.graphs import GraphData
from condensery.evaluate.nodes import score_nodes
from condensery.evaluate.score import merged
from condensery.graph import Graph
from condensery.graph_artifact import GraphArtifact
from condensery.graph_runs import GraphSource
from condensery.journal import read
from condensery.net import Net
from condensery.node_fitting import Nodes
from condensery.recipes import graphs
from condensery.runs import Folder, Progress, Watch, generators
from support import FEW_EXPERTS, generator, small_graph

TINY = ["test.width=4", "eval.steps=6", "net.width=4"]
OWN = {"gcond": ["hidden=4"], "gcond-x": [], "doscond": ["hidden=4", "fanouts=3,2"], "gcdm": []}
OWN |= {"sfgc": FEW_EXPERTS, "geom": [*FEW_EXPERTS, "first_max_start=1", "expansion_steps=4"]}
LOOPS = {method: ["outer=3", "inner=1", "alternation=1/2"] for method in OWN if method not in ("sfgc", "geom")}

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "communities.npz"
    np.savez(path, **small_graph(60))
    return path


@pytest.fixture(scope="module")
def source(file: Path) -> GraphSource:
    return GraphSource(str(file))


@pytest.fixture(scope="module")
def data(source: GraphSource) -> GraphData:
    return graph_runs.open_graph(source)


def plan_of(method: str = "gcond", *settings: str, nodes: int = 6) -> graphs.GraphPlan:
    own = [*TINY, *OWN[method]] if method in OWN else TINY[:2]
    return graphs.load(method, "", nodes=nodes, overrides=[*own, *settings])


def start(
    plan: graphs.GraphPlan, data: GraphData, source: GraphSource, path: Path, *, resume: bool = False
) -> tuple[graph_runs.GraphRun, Folder]:
    folder = Folder(path)
    folder.claim(graph_runs.settings(plan, source, data, seed=1), resume=resume)
    return graph_runs.build(plan, data, seed=1), folder


def whole(
    plan: graphs.GraphPlan, data: GraphData, source: GraphSource, path: Path, watch: Watch | None = None
) -> GraphArtifact:
    run, folder = start(plan, data, source, path)
    list(graph_runs.advance(run, folder, watch))
    return graph_runs.finish(run, folder, source)


def same(a: GraphArtifact, b: GraphArtifact) -> bool:
    (x, y), (u, v) = a.graph(), b.graph()
    return torch.equal(x.features, u.features) and torch.equal(x.graph.dense(), u.graph.dense()) and torch.equal(y, v)


# --- runs


@pytest.mark.parametrize("method", list(catalog.GRAPH_METHODS))
def test_a_run_that_was_stopped_gives_the_same_graph_and_each_step_once(
    method: str, data: GraphData, source: GraphSource, tmp_path: Path, untouched: None
) -> None:
    plan = plan_of(method, "steps=7", *LOOPS.get(method, []))
    expected = whole(plan, data, source, tmp_path / "whole")
    run, folder = start(plan, data, source, tmp_path / "stopped")
    steps: Iterator[Progress] = graph_runs.advance(run, folder, Watch(snapshot_every=2))
    for _ in range(5):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert not folder.finished
    run, folder = start(plan, data, source, tmp_path / "stopped", resume=True)
    assert [p.step for p in graph_runs.advance(run, folder, Watch(snapshot_every=2))] == [5, 6, 7]
    found = graph_runs.finish(run, folder, source)
    assert same(found, expected)
    assert same(GraphArtifact.load(folder.artifact), expected)
    logged = [[(e.step, e.loss) for e in read(tmp_path / name / "log.jsonl")] for name in ("whole", "stopped")]
    assert logged[0] == logged[1]
    assert [step for step, _ in logged[0]] == list(range(1, 8))


def test_looking_changes_nothing(data: GraphData, source: GraphSource, tmp_path: Path) -> None:
    plan = plan_of("gcond", "steps=3")
    blind = whole(plan, data, source, tmp_path / "a")
    seeing = whole(plan, data, source, tmp_path / "b", Watch(snapshot_every=1, eval_every=2, eval_budget=0.5))
    assert same(blind, seeing)
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 3]
    unseen = replace(data, validation=data.validation[:0])
    run, folder = start(plan, unseen, source, tmp_path / "c")
    with pytest.raises(ValueError, match="no validation nodes to look at; leave --eval-every out"):
        next(graph_runs.advance(run, folder, Watch(eval_every=1)))


def test_the_graph_that_validates_best_is_kept(data: GraphData, source: GraphSource, tmp_path: Path) -> None:
    """Also by a run that was stopped; and it is the very set that a shorter run leaves."""
    moving = ["eval.steps=100", "test.width=8", "lr_features=0.2", "lr_structure=0.2"]
    plan = plan_of("gcond", "steps=6", "keep_every=2", *moving)
    expected = whole(plan, data, source, tmp_path / "whole")
    run, folder = start(plan, data, source, tmp_path / "stopped")
    steps: Iterator[Progress] = graph_runs.advance(run, folder, Watch(snapshot_every=1, eval_every=1))
    for _ in range(4):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    run, folder = start(plan, data, source, tmp_path / "stopped", resume=True)
    list(graph_runs.advance(run, folder))
    found = graph_runs.finish(run, folder, source)
    assert same(found, expected)
    how = found.provenance
    assert (how["kept_step"], how["kept_validation"]) == (
        expected.provenance["kept_step"],
        expected.provenance["kept_validation"],
    )
    accuracies, sets = [], []
    for step in (0, 2, 4, 6):
        run, folder = start(plan_of("gcond", f"steps={step}", *moving), data, source, tmp_path / str(step))
        list(graph_runs.advance(run, folder))
        accuracies.append(graph_runs.validation_accuracy(run))
        sets.append(graph_runs.finish(run, folder, source))
    assert len({*accuracies}) > 1
    best = accuracies.index(max(accuracies))
    assert (how["kept_step"], how["kept_validation"]) == (2 * best, pytest.approx(max(accuracies)))
    assert same(found, sets[best])
    with pytest.raises(ValueError, match="no validation nodes to choose the best set by; leave --keep-best out"):
        start(plan, replace(data, validation=data.validation[:0]), source, tmp_path / "unseen")


def test_a_folder_is_not_mixed_up(data: GraphData, source: GraphSource, tmp_path: Path) -> None:
    plan = plan_of("gcond-x", "steps=1")
    whole(plan, data, source, tmp_path / "a")
    with pytest.raises(ValueError, match=r"has plan.nodes = 6, not 7"):
        start(plan_of("gcond-x", "steps=1", nodes=7), data, source, tmp_path / "a", resume=True)
    other = replace(data, x=data.x + 1)
    with pytest.raises(ValueError, match="has graph = "):
        start(plan, other, source, tmp_path / "a", resume=True)


def test_the_artifact_tells_all(data: GraphData, source: GraphSource, tmp_path: Path) -> None:
    made = whole(plan_of("gcond", "steps=2", "threshold=0.3"), data, source, tmp_path / "a")
    assert made.threshold == 0.3
    assert made.real == {"nodes": 60, "edges": data.num_edges, "train": 30}
    assert made.per_class == [2, 2, 2]
    assert made.network == {**made.network, "net": "GCN", "width": 4, "features": 4, "classes": 3}
    assert made.options["network"]["net"] == "SGC"
    assert made.options["run"]["hidden"] == 4
    assert (made.provenance["steps"], made.split["validation"]) == (2, 15)
    recorded = GraphArtifact.load(tmp_path / "a" / "artifact.safetensors").provenance["data"]
    again = graph_runs.open_graph(GraphSource(recorded["spec"], recorded["root"], graphs.reading(recorded)))
    assert graph_runs.digest_of(again) == graph_runs.digest_of(data)
    graph_runs.check_fits(made, again)
    with pytest.raises(ValueError, match="give with --data the graph that it was made from"):
        graph_runs.check_fits(made, graph_runs.open_graph(GraphSource("digits-graph")))


@pytest.mark.parametrize("structure", ["pairwise", "identity", "free"])
@pytest.mark.parametrize("init", ["random", "herding", "k-center", "degree", "pagerank"])
def test_every_start_is_possible(structure: str, init: str, data: GraphData) -> None:
    run = graph_runs.build(plan_of("gcond", f"structure={structure}", f"init={init}"), data, seed=2)
    assert bool((run.synthetic.values[:, None] == data.x[data.train]).all(2).any(1).all())
    matrix = run.result().x.graph.dense()
    assert bool((matrix > 0).any()) == (structure == "pairwise" or (structure == "free" and bool(matrix.any())))
    if structure == "free":
        places = [int((data.x == row).all(1).nonzero()) for row in run.synthetic.values]
        assert torch.equal(matrix, data.adjacency.dense()[places][:, places])


# --- the graph


def test_every_layout_is_read(file: Path, tmp_path: Path, data: GraphData) -> None:
    held = small_graph(60)
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "edges.csv").write_text("".join(f"n{a},n{b}\n" for a, b in held["edge_index"].T.tolist()))
    words = ("train", "val", "test")
    rows = [
        f"n{i},{c},{words[s]},{','.join(repr(float(v)) for v in x)}\n"
        for i, (c, s, x) in enumerate(zip(held["y"], held["split"], held["x"], strict=True))
    ]
    (tables / "nodes.csv").write_text("node,class,split,a,b,c,d\n" + "".join(rows))
    how = graphs.Reading(node_column="node", label_column="class")
    read_as_tables = graph_runs.open_graph(GraphSource(str(tables), reading=how))
    assert graph_runs.digest_of(read_as_tables) == graph_runs.digest_of(data)
    with pytest.raises(ValueError, match="--set node_column=NAME or --set label_column=NAME"):
        graph_runs.open_graph(GraphSource(str(tables)))
    folder = tmp_path / "ogb"
    for name, lines in {
        "raw/edge": held["edge_index"].T.tolist(),
        "raw/node-feat": held["x"].tolist(),
        "raw/node-label": [[c] for c in held["y"].tolist()],
        **{f"split/{s}/{p}": [[i] for i in np.flatnonzero(held["split"] == k)] for s in ("a", "b") for k, p in PARTS},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(",".join(map(str, line)) for line in lines)
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ValueError, match="name one with --set scheme=NAME"):
        graph_runs.open_graph(GraphSource(str(folder)))
    ogb = graph_runs.open_graph(GraphSource(str(folder), reading=graphs.Reading(features="as-given", scheme="b")))
    assert graph_runs.digest_of(ogb) == graph_runs.digest_of(data)


PARTS = tuple(enumerate(("train", "valid", "test")))


def test_reading_decides_features_and_setting(file: Path) -> None:
    def opened(**how: Any) -> GraphData:
        return graph_runs.open_graph(GraphSource(str(file), reading=graphs.Reading(**how)))

    assert opened(features="standardised").x[opened().train].mean(0).abs().max() < 1e-6
    assert isinstance(opened(features="row-normalised").preprocessing, RowNormalised)
    assert opened(inductive=True).inductive
    fixed = StandardScaled(torch.zeros(4), torch.full((4,), 2.0))
    assert torch.equal(graph_runs.open_graph(GraphSource(str(file)), fit=lambda _: fixed).x, opened().x / 2)


@pytest.mark.parametrize(
    ("spec", "root", "sentence"),
    [
        ("digits-graf", None, "did you mean digits-graph"),
        ("no.npz", None, "There is no graph 'no.npz'"),
        ("digits-graph", ".", "leave the data root out"),
        ("own.npz", ".", "which 'own.npz' is not; leave it out"),
    ],
)
def test_data_that_are_not_there_are_said(spec: str, root: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        graph_runs.open_graph(GraphSource(spec, root))


# --- selections and scores


@pytest.mark.parametrize("name", [name for name, entry in catalog.GRAPH_CORESETS.items() if not entry.merges])
@pytest.mark.parametrize("inductive", [False, True])
def test_selections_are_induced_subgraphs(name: str, inductive: bool, data: GraphData, source: GraphSource) -> None:
    data = data.as_inductive() if inductive else data
    made = graph_runs.select(plan_of(name, nodes=9), data, source, seed=1)
    assert made.indices is not None
    assert set(made.indices.tolist()) <= set(data.train.tolist())
    part = data.subgraph(made.indices)
    (x, graph), y = made.batch()
    assert torch.equal(x, part.x)
    assert torch.equal(graph.dense(), part.adjacency.dense())
    assert torch.equal(y, part.y)
    assert (made.per_class, made.threshold, made.spent["edges"]) == ([3, 3, 3], 0.0, part.num_edges)


def test_selections_take_their_options(data: GraphData, source: GraphSource) -> None:
    by_features = graph_runs.select(plan_of("herding", "embedding=features"), data, source).indices
    assert by_features is not None
    assert torch.equal(by_features, coresets.herding(data, [2, 2, 2], data.x))
    walk = graph_runs.select(plan_of("pagerank", "damping=0.5"), data, source).indices
    assert walk is not None
    assert torch.equal(walk, coresets.pagerank(data, [2, 2, 2], damping=0.5))
    assert graph_runs.select(plan_of("degree"), data, source).options == {
        **graph_runs.select(plan_of("degree"), data, source).options,
        "nodes": 6,
    }


@pytest.mark.parametrize("inductive", [False, True])
def test_coarsening_claims_no_real_nodes_and_says_where_they_went(
    inductive: bool, data: GraphData, source: GraphSource, tmp_path: Path, untouched: None
) -> None:
    data = data.as_inductive() if inductive else data
    made = graph_runs.select(plan_of("coarsening", nodes=9), data, source, seed=1)
    found = coarsen(data, 9, generator=generators(1, 1)[0])
    assert made.indices is None
    assert made.assignment is not None
    view, assignment = data.training_view(), made.assignment
    if inductive:
        assert set((assignment >= 0).nonzero().flatten().tolist()) <= set(data.train.tolist())
        assignment = assignment[data.train]
    assert made.graph.classes.tolist() == found.data.y.sort().values.tolist()
    for node in range(9):
        members = assignment == node
        torch.testing.assert_close(made.graph.values[node].detach(), view.x[members].mean(0))
        votes = torch.bincount(view.y[view.train[members[view.train]]], minlength=3)
        assert int(made.graph.classes[node]) == (int(votes.argmax()) if votes.sum() else -1)
    inside = (torch.arange(9)[:, None] == assignment).float()
    weights = inside @ view.adjacency.dense() @ inside.T
    (_, graph), y = made.batch()
    torch.testing.assert_close(graph.dense(), weights - torch.diag(weights.diagonal()))
    labelled = (y >= 0).nonzero().flatten()
    assert (len(labelled), made.spent["nodes"]) == (sum(made.per_class), 9)
    nodes = made.nodes()
    assert nodes.pick(nodes.y).tolist() == y[labelled].tolist()
    assert made.data().train.tolist() == labelled.tolist()
    assert graph_runs.random_counts(made, data) == [3, 3, 3]
    made.save(tmp_path / "a.safetensors")
    again = GraphArtifact.load(tmp_path / "a.safetensors")
    assert again.assignment is not None
    assert torch.equal(again.assignment, made.assignment)
    assert same(again, made)
    other = graph_runs.select(plan_of("coarsening", nodes=9), data, source, seed=1)
    assert other.assignment is not None
    assert torch.equal(other.assignment, made.assignment)


def test_a_coarse_graph_may_have_more_nodes_than_train(data: GraphData, source: GraphSource) -> None:
    made = graph_runs.select(plan_of("coarsening", nodes=40), data, source)
    assert len(made.graph.classes) == 40
    assert 0 < sum(made.per_class) < 31
    draw = graph_runs.random_nodes(data, graph_runs.random_counts(made, data))
    assert graph_runs.size_of(draw(generator()))["nodes"] == 30
    with pytest.raises(ValueError, match="cannot become 60"):
        graph_runs.select(plan_of("coarsening", nodes=60), data, source)
    with pytest.raises(ValueError, match="eigenvectors is 0; give 1 or more"):
        graph_runs.select(plan_of("coarsening", "eigenvectors=0"), data, source)


def test_a_selection_may_make_a_graph_of_its_own(
    data: GraphData, source: GraphSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def averaged(data: GraphData, counts: list[int]) -> Graph:
        rows = [data.x[data.members(c)].mean(0) for c in range(data.num_classes)]
        return Graph(torch.stack(rows), torch.arange(data.num_classes))

    monkeypatch.setattr(coresets, "degree", averaged)
    made = graph_runs.select(plan_of("degree"), data, source)
    assert (made.indices, made.per_class, made.spent["edges"]) == (None, [1, 1, 1], 0)


def test_rows_of_single_networks_merge_to_those_of_the_library(data: GraphData, source: GraphSource) -> None:
    made = graph_runs.select(plan_of("degree"), data, source)
    network, recipe, nodes = made.build_network(), made.training_recipe(), Nodes(*made.batch())
    rows = list(graph_runs.trained_on(nodes, data, network, recipe, name="Degree", n=3, seed=4))
    expected = score_nodes("Degree", Net(network), nodes, data, recipe, n=3, seed=4, size=graph_runs.size_of(nodes))
    together = merged(rows)
    assert (together.last, together.chosen, together.size) == (expected.last, expected.chosen, expected.size)
    assert graph_runs.size_of(Nodes.training(data)) == {"nodes": 30, "seen": 60, "edges": data.num_edges}


def test_random_nodes_are_drawn_anew_and_never_more_than_there_are(data: GraphData) -> None:
    draw = graph_runs.random_nodes(data, [2, 99, 1])
    first, second = draw(generator(0)), draw(generator(1))
    assert [torch.bincount(nodes.y).tolist() for nodes in (first, second)] == [[2, 10, 1]] * 2
    assert not torch.equal(first.x.features, second.x.features)


def test_a_recipe_can_be_shortened() -> None:
    recipe = plan_of().evaluation.recipe()
    assert [graph_runs.shortened(recipe, budget=b).steps for b in (1.0, 0.5, 0.01)] == [6, 3, 1]
    assert graph_runs.shortened(recipe, steps=20, budget=0.5).steps == 10
    with pytest.raises(ValueError, match="is no share"):
        graph_runs.shortened(recipe, budget=0.0)
