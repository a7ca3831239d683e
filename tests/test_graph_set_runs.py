"""Runs on sets of graphs: the same graphs whether or not they were stopped, selections, starts, scores, recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from condensery import catalog, graph_set_runs, nets
from condensery.coresets import herding, k_center
from condensery.data.graph_features import StandardScaled
from condensery.data.graph_sets import GraphSet
from condensery.data.tu_files import write_tu
from condensery.evaluate.score import merged
from condensery.evaluate.whole_graphs import score_graphs
from condensery.graph_fitting import fit_graphs, graph_embeddings
from condensery.graph_set_artifact import GraphSetArtifact
from condensery.graph_set_runs import GraphSetSource
from condensery.journal import read
from condensery.methods import DosCondGraphs
from condensery.methods.doscond_graphs import Annealing, relative_squared_distance
from condensery.net import Net
from condensery.recipes import graph_sets, values
from condensery.runs import Folder, Progress, Watch, generators
from support import generator, rings_and_stars

TINY = ["test.width=4", "test.depth=1", "eval.epochs=4"]
QUICK = [*TINY, "net.width=4", "net.depth=1", "batch_real=5", "drop_after=4", "lr_structure=0.5", "nodes=7"]
EVERY = [*catalog.GRAPH_SET_METHODS, *catalog.GRAPH_SET_CORESETS]

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> GraphSetSource:
    folder = tmp_path_factory.mktemp("sets") / "shapes"
    folder.mkdir()
    write_tu(rings_and_stars(), folder, "SHAPES")
    return GraphSetSource(str(folder))


@pytest.fixture(scope="module")
def data(source: GraphSetSource) -> GraphSet:
    return graph_set_runs.open_graphs(source)


def plan_of(method: str = "doscond-graphs", *settings: str, per_class: Any = 2) -> graph_sets.GraphSetPlan:
    own = QUICK if method == "doscond-graphs" else TINY
    return graph_sets.load(method, "", per_class, overrides=[*own, *settings])


def start(
    plan: graph_sets.GraphSetPlan, data: GraphSet, source: GraphSetSource, path: Path, *, resume: bool = False
) -> tuple[graph_set_runs.GraphSetRun, Folder]:
    folder = Folder(path)
    folder.claim(graph_set_runs.settings(plan, source, data, seed=1), resume=resume)
    return graph_set_runs.build(plan, data, seed=1), folder


def whole(
    plan: graph_sets.GraphSetPlan, data: GraphSet, source: GraphSetSource, path: Path, watch: Watch | None = None
) -> GraphSetArtifact:
    run, folder = start(plan, data, source, path)
    list(graph_set_runs.advance(run, folder, watch))
    return graph_set_runs.finish(run, folder, source)


def same(a: GraphSetArtifact, b: GraphSetArtifact) -> bool:
    return all(torch.equal(getattr(a.graphs, part), getattr(b.graphs, part)) for part in ("x", "edges", "sizes", "y"))


# --- runs


def test_a_run_that_was_stopped_gives_the_same_graphs_and_each_step_once(
    data: GraphSet, source: GraphSetSource, tmp_path: Path, untouched: None
) -> None:
    plan = plan_of("doscond-graphs", "steps=7")
    expected = whole(plan, data, source, tmp_path / "whole")
    run, folder = start(plan, data, source, tmp_path / "stopped")
    steps: Iterator[Progress] = graph_set_runs.advance(run, folder, Watch(snapshot_every=2))
    for _ in range(5):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert not folder.finished
    run, folder = start(plan, data, source, tmp_path / "stopped", resume=True)
    assert [p.step for p in graph_set_runs.advance(run, folder, Watch(snapshot_every=2))] == [5, 6, 7]
    found = graph_set_runs.finish(run, folder, source)
    assert same(found, expected)
    assert same(GraphSetArtifact.load(folder.artifact), expected)
    logged = [[(e.step, e.loss) for e in read(tmp_path / name / "log.jsonl")] for name in ("whole", "stopped")]
    assert logged[0] == logged[1]
    assert [step for step, _ in logged[0]] == list(range(1, 8))
    assert not same(found, graph_set_runs.finish(*start(plan, data, source, tmp_path / "unmoved"), source))


def test_looking_changes_nothing(data: GraphSet, source: GraphSetSource, tmp_path: Path) -> None:
    plan = plan_of("doscond-graphs", "steps=3")
    blind = whole(plan, data, source, tmp_path / "a")
    seeing = whole(plan, data, source, tmp_path / "b", Watch(snapshot_every=1, eval_every=2, eval_budget=0.5))
    assert same(blind, seeing)
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 3]
    unseen = replace(data, validation=data.validation[:0])
    run, folder = start(plan, unseen, source, tmp_path / "c")
    with pytest.raises(ValueError, match="no validation graphs to look at; leave --eval-every out"):
        next(graph_set_runs.advance(run, folder, Watch(eval_every=1)))


def test_the_graphs_that_validate_best_are_kept(data: GraphSet, source: GraphSetSource, tmp_path: Path) -> None:
    """Also by a run that was stopped; and it is the very set that a shorter run leaves."""
    moving = ["eval.epochs=60", "eval.lr=0.03", "test.width=8", "lr_features=0.3", "lr_structure=3"]
    plan = plan_of("doscond-graphs", "steps=6", "keep_every=2", *moving)
    expected = whole(plan, data, source, tmp_path / "whole")
    run, folder = start(plan, data, source, tmp_path / "stopped")
    steps: Iterator[Progress] = graph_set_runs.advance(run, folder, Watch(snapshot_every=1, eval_every=1))
    for _ in range(4):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    run, folder = start(plan, data, source, tmp_path / "stopped", resume=True)
    list(graph_set_runs.advance(run, folder))
    found = graph_set_runs.finish(run, folder, source)
    assert same(found, expected)
    how = found.provenance
    assert (how["kept_step"], how["kept_validation"]) == (
        expected.provenance["kept_step"],
        expected.provenance["kept_validation"],
    )
    accuracies, sets = [], []
    for step in (0, 2, 4, 6):
        run, folder = start(plan_of("doscond-graphs", f"steps={step}", *moving), data, source, tmp_path / str(step))
        list(graph_set_runs.advance(run, folder))
        accuracies.append(graph_set_runs.validation_accuracy(run))
        sets.append(graph_set_runs.finish(run, folder, source))
    assert len({*accuracies}) > 1
    best = accuracies.index(max(accuracies))
    assert (how["kept_step"], how["kept_validation"]) == (2 * best, pytest.approx(max(accuracies)))
    assert same(found, sets[best])
    with pytest.raises(ValueError, match="no validation graphs to choose the best set by; leave --keep-best out"):
        start(plan, replace(data, validation=data.validation[:0]), source, tmp_path / "unseen")


def test_a_folder_is_not_mixed_up(data: GraphSet, source: GraphSetSource, tmp_path: Path) -> None:
    plan = plan_of("doscond-graphs", "steps=1")
    whole(plan, data, source, tmp_path / "a")
    with pytest.raises(ValueError, match=r"has plan.per_class = 2, not 3"):
        start(plan_of("doscond-graphs", "steps=1", per_class=3), data, source, tmp_path / "a", resume=True)
    with pytest.raises(ValueError, match="has graphs = "):
        start(plan, replace(data, x=data.x + 1), source, tmp_path / "a", resume=True)


def test_the_artifact_tells_all(data: GraphSet, source: GraphSetSource, tmp_path: Path) -> None:
    made = whole(plan_of("doscond-graphs", "steps=2", per_class=(1, 3)), data, source, tmp_path / "a")
    assert made.real == {"graphs": 40, "nodes": len(data.x), "edges": data.edges.shape[1] // 2, "train": 32}
    assert (made.per_class, made.graphs.sizes.tolist(), made.indices) == ([1, 3], [7] * 4, None)
    assert made.network == {**made.network, "net": "PooledGCN", "width": 4, "features": 3, "classes": 2}
    assert made.options["network"] == {"net": "PooledGCN", "width": 4, "depth": 1, "pool": "mean"}
    assert (made.options["run"]["nodes"], made.options["per_class"]) == (7, [1, 3])
    assert (made.provenance["steps"], made.split["validation"]) == (2, 4)
    recorded = GraphSetArtifact.load(tmp_path / "a" / "artifact.safetensors").provenance["data"]
    again = GraphSetSource(recorded["spec"], recorded["root"], graph_sets.reading(recorded))
    opened = graph_set_runs.open_graphs(again)
    assert graph_set_runs.digest_of(opened) == graph_set_runs.digest_of(data)
    graph_set_runs.check_fits(made, opened)
    with pytest.raises(ValueError, match="give with --data the set that they were made from"):
        graph_set_runs.check_fits(made, graph_set_runs.open_graphs(GraphSetSource("digit-graphs")))
    with pytest.raises(ValueError, match="0 validation and 4 test graphs, too few for a score"):
        graph_set_runs.check_fits(made, replace(data, validation=data.validation[:0]))


@pytest.mark.parametrize("init", values.CHOICES["GraphSetInit"])
def test_every_start_is_real_graphs_that_are_small_enough(init: str, data: GraphSet) -> None:
    run = graph_set_runs.build(plan_of("doscond-graphs", f"init={init}", "nodes=5"), data, seed=2)
    assert run.synthetic.values.shape == (4, 5, 3)
    real = {tuple(data.x[data.owner == i].flatten().tolist()): int(data.y[i]) for i in data.train.tolist()}
    for values_, c in zip(run.synthetic.values.detach(), run.synthetic.classes.tolist(), strict=True):
        kept = (values_ != 0).any(1)
        assert real[tuple(values_[kept].flatten().tolist())] == c
    with pytest.raises(ValueError, match="of at most 3 nodes, 2 are needed to start from"):
        graph_set_runs.build(plan_of("doscond-graphs", f"init={init}", "nodes=3"), data)


def test_without_a_number_the_graphs_are_of_mean_size(data: GraphSet) -> None:
    run = graph_set_runs.build(plan_of("doscond-graphs", "nodes=none"), data)
    assert run.synthetic.values.shape[1] == round(float(data.sizes[data.train].float().mean()))


# --- the graphs


def test_reading_decides_features_and_split(source: GraphSetSource, data: GraphSet, tmp_path: Path) -> None:
    def opened(**how: Any) -> GraphSet:
        return graph_set_runs.open_graphs(GraphSetSource(source.spec, reading=graph_sets.GraphSetReading(**how)))

    scaled = opened(features="standardised")
    inside = torch.isin(scaled.owner, scaled.train)
    assert scaled.x[inside].mean(0).abs().max() < 1e-6
    assert opened(split_seed=1).train.tolist() != data.train.tolist()
    fixed = StandardScaled(torch.zeros(3), torch.full((3,), 2.0))
    assert torch.equal(graph_set_runs.open_graphs(source, fit=lambda _: fixed).x, data.x / 2)
    for name in ("one", "two"):
        write_tu(data, tmp_path, name)
    assert catalog.kind_of(str(tmp_path)) is catalog.Kind.GRAPH_SET
    with pytest.raises(ValueError, match="name one with --set name=NAME"):
        graph_set_runs.open_graphs(GraphSetSource(str(tmp_path)))
    named = graph_set_runs.open_graphs(GraphSetSource(str(tmp_path), reading=graph_sets.GraphSetReading(name="two")))
    assert (named.name, len(named)) == ("two", 40)


@pytest.mark.parametrize(
    ("spec", "root", "sentence"),
    [
        ("digit-graf", None, "did you mean digit-graphs"),
        ("nowhere", None, "There is no set of graphs 'nowhere'"),
        ("digit-graphs", ".", "leave the data root out"),
        ("own", ".", "which 'own' is not; leave it out"),
    ],
)
def test_data_that_are_not_there_are_said(spec: str, root: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        graph_set_runs.open_graphs(GraphSetSource(spec, root))


def test_the_sizes_of_the_named_set_are_those_that_are_read() -> None:
    data = graph_set_runs.open_graphs(GraphSetSource("digit-graphs"))
    sizes = (len(data), len(data.x), data.edges.shape[1] // 2, data.num_features, data.num_classes)
    assert sizes == catalog.GRAPH_SETS["digit-graphs"].sizes
    assert set(catalog.POOLED_NETWORKS) == set(nets.POOLED)


# --- selections and scores


@pytest.mark.parametrize("name", list(catalog.GRAPH_SET_CORESETS))
def test_selections_are_real_training_graphs(
    name: str, data: GraphSet, source: GraphSetSource, untouched: None
) -> None:
    made = graph_set_runs.select(plan_of(name, per_class=(3, 2)), data, source, seed=1)
    assert made.indices is not None
    assert set(made.indices.tolist()) <= set(data.train.tolist())
    part = data.subset(made.indices)
    for name_ in ("x", "edges", "sizes", "y"):
        assert torch.equal(getattr(made.graphs, name_), getattr(part, name_))
    assert made.per_class == [3, 2]
    again = graph_set_runs.select(plan_of(name, per_class=(3, 2)), data, source, seed=1)
    assert same(made, again)


def test_selections_see_what_they_are_told_to(data: GraphSet, source: GraphSetSource) -> None:
    means = torch.stack([data.x[data.owner == i].mean(0) for i in data.train])
    for name, choose in (("herding", herding), ("k-center", k_center)):
        found = graph_set_runs.select(plan_of(name, "embedding=features"), data, source, seed=3)
        expected = choose(means, data.train_y, 2, generator=generators(3, 1)[0])  # type: ignore[operator]
        assert found.indices is not None
        assert found.indices.tolist() == data.train[expected].tolist()
    plan, (g,) = plan_of("herding", "proxy_epochs=3"), generators(3, 1)
    net = Net(graph_set_runs.build_network(plan.test, data))
    theta = fit_graphs(net, data, plan.evaluation.recipe().with_epochs(3), g).last
    expected = herding(graph_embeddings(net, theta, data, data.train), data.train_y, 2)
    found = graph_set_runs.select(plan, data, source, seed=3)
    assert found.indices is not None
    assert found.indices.tolist() == data.train[expected].tolist()


def test_rows_of_single_networks_merge_to_those_of_the_library(data: GraphSet, source: GraphSetSource) -> None:
    made = graph_set_runs.select(plan_of("random"), data, source)
    network, recipe = made.build_network(), made.training_recipe()
    rows = list(graph_set_runs.trained_on(made.graphs, data, network, recipe, name="Random", n=3, seed=4))
    size = graph_set_runs.size_of(made.graphs)
    expected = score_graphs("Random", Net(network), made.graphs, data, recipe, n=3, seed=4, size=size)
    together = merged(rows)
    assert (together.last, together.chosen, together.size) == (expected.last, expected.chosen, expected.size)
    assert graph_set_runs.size_of(data) == graph_set_runs.size_of(data.subset(data.train))


def test_random_graphs_are_drawn_anew_and_never_more_than_there_are(data: GraphSet) -> None:
    draw = graph_set_runs.random_graphs(data, [2, 99])
    first, second = draw(generator(0)), draw(generator(1))
    assert [torch.bincount(part.y).tolist() for part in (first, second)] == [[2, 16]] * 2
    assert not torch.equal(first.x, second.x)


def test_a_recipe_can_be_shortened() -> None:
    recipe = plan_of().evaluation.recipe()
    assert [graph_set_runs.shortened(recipe, budget=b).epochs for b in (1.0, 0.5, 0.01)] == [4, 2, 1]
    assert graph_set_runs.shortened(recipe, epochs=20, budget=0.5).epochs == 10
    with pytest.raises(ValueError, match="is no share"):
        graph_set_runs.shortened(recipe, budget=0.0)


# --- recipes


def test_the_recipe_is_the_method_s_own_defaults() -> None:
    """The published settings are the class's; what a recipe says in words becomes what the class has."""
    plan = graph_sets.load("doscond-graphs", "mutag", 1)
    kinds = values.fields_of(DosCondGraphs)
    made = {name: values.object_of(value, kinds[name]) for name, value in plan.options.items()}
    data = rings_and_stars()
    expected = DosCondGraphs(Net(graph_set_runs.build_network(plan.network, data)), data, generator())
    assert all(getattr(expected, name) == value for name, value in made.items())
    assert (made["temperature"], made["distance"]) == (Annealing(1.0, 0.01, 200), relative_squared_distance)
    assert plan.steps == 1000
    assert plan.with_budget(0.1).steps == 100
    assert plan.evaluation == graph_sets.GraphTraining()


@pytest.mark.parametrize("method", EVERY)
def test_what_is_listed_can_be_set_to_what_is_listed(method: str) -> None:
    settings = [
        f"{graph_sets.full_name(section, name)}={values.said(default)}"
        for section, part in graph_sets.settable(method).items()
        for name, (_, default) in part.items()
    ]
    plain, again = graph_sets.load(method, "", 1), graph_sets.load(method, "", 1, overrides=settings)
    assert (plain.options, plain.run, plain.evaluation, plain.data) == (
        again.options,
        again.run,
        again.evaluation,
        again.data,
    )
    assert plain.is_coreset == (method in catalog.GRAPH_SET_CORESETS)
    assert plain.test.items() <= again.test.items()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("penulty=1", "did you mean penalty?"),
        ("temperature=warm", "as 1/0.01/200, not 'warm'"),
        ("distance=far", "distance takes layerwise"),
        ("init=degree", "init takes random, herding or k-center"),
        ("test.net=GCN", "no network for whole graphs 'GCN'"),
        ("nodes=0", "give at least 0 steps and 1 node"),
        ("eval.epochs=0", "trains nothing"),
        ("net.pool=max", "net.pool takes mean or sum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        graph_sets.load("doscond-graphs", "", 1, overrides=[setting])
