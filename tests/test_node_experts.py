"""Experts of a graph's plan: what settings mean, where experts go, and that runs have them recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from commands import call
from condensery import graph_runs, node_experts
from condensery.cli.experts import experts as experts_command
from condensery.experts import Curriculum, NodeRecording, Pace, PlainAdam, PlainSgd
from condensery.fitting import Adam, Sgd
from condensery.graph_artifact import GraphArtifact
from condensery.graph_runs import GraphSource
from condensery.methods import GEOM, SFGC, GraphTangentScore
from condensery.net import Net
from condensery.recipes import graphs
from condensery.recipes.graphs import GraphPlan, NodeExpertSettings
from condensery.runs import Folder

SMALL = ("steps=2", "inner_steps=3", "net.width=8", "experts.count=2", "experts.steps=140")


def plan_of(method: str, *settings: str, nodes: int = 10) -> GraphPlan:
    return graphs.load(method, "digits-graph", nodes=nodes, overrides=[*SMALL, *settings])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default folders are below the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "size", "options", "experts"),
    [
        ("cora", {"nodes": 35}, (400, 150, 51, 10, 1e-4, 0.5), PlainSgd(lr=0.4)),
        ("cora", {"ratio": 0.5}, (500, 120, 31, 10, 1e-4, 0.5), PlainSgd(lr=0.4)),
        ("cora", {"nodes": 140}, (500, 200, 31, 10, 1e-4, 0.5), PlainSgd(lr=0.4)),
        ("citeseer", {"ratio": 1.0}, (300, 40, 4, 1, 1e-3, 0.6), PlainAdam(lr=1e-3, weight_decay=5e-4)),
        ("ogbn-arxiv", {"ratio": 0.001}, (600, 180, 4, 1, 0.2, 0.2), PlainSgd(lr=1.0)),
    ],
)
def test_sfgc_has_the_published_values(dataset: str, size: dict[str, float], options: object, experts: object) -> None:
    plan = graphs.load("sfgc", dataset, **size)  # type: ignore[arg-type]
    names = ("inner_steps", "expert_epochs", "max_start", "start_every", "lr_features")
    assert plan.run is not None
    assert (*(plan.options[name] for name in names), plan.run.step_size) == options
    assert plan.experts is not None
    assert node_experts.recording_of(plan.experts).optimizer == experts
    assert (plan.steps, plan.run.structure, plan.run.labels, plan.options["choice"]) == (
        *(2000, "identity", "classes"),
        "tangent-kernel",
    )


def test_geom_has_the_published_values() -> None:
    cora, arxiv = (graphs.load("geom", name, ratio=0.5 if name == "cora" else 0.005) for name in ("cora", "ogbn-arxiv"))
    names = ("inner_steps", "expert_epochs", "max_start", "first_max_start", "expansion_steps", "beta", "choice")
    assert [cora.options[name] for name in names] == [2500, 140, 20, 5.0, 150, 0.01, None]
    assert [arxiv.options[name] for name in names] == [2100, 160, 30, 20.0, 100, 0.0, None]
    assert cora.experts is not None
    assert cora.run is not None
    assert arxiv.run is not None
    assert (cora.steps, cora.run.labels, arxiv.run.labels) == (200, "expert", "classes")
    assert node_experts.recording_of(cora.experts) == NodeRecording(300, 10, PlainSgd(0.4), Curriculum(0.75, 1500))
    assert graphs.load("gcond", "cora", ratio=0.5).experts is None


def test_plain_settings_say_how_experts_are_trained() -> None:
    made = node_experts.recording_of(
        NodeExpertSettings(
            steps=70, every=7, optimizer="adam", lr=0.1, weight_decay=0.2, pace="root", share=0.5, seed=3
        )
    )
    expected = Curriculum(0.5, 1500, Pace.ROOT)
    assert made == NodeRecording(10, 7, PlainAdam(0.1, weight_decay=0.2), expected, 3)
    with pytest.raises(ValueError, match="at least 1 expert"):
        NodeExpertSettings(count=0)
    with pytest.raises(ValueError, match="matches no experts"):
        node_experts.recording_of(node_experts._settings_of(graphs.load("gcond", "cora", ratio=0.5)))


def test_a_run_has_its_experts_recorded_once() -> None:
    plan = plan_of("sfgc")
    data = graph_runs.open_graph(GraphSource("digits-graph", reading=plan.data))
    told: list[float] = []
    run = graph_runs.build(plan, data, on_experts=lambda done, count: told.append(done / count))
    assert (told[0], told[-1]) == (0, 1)
    assert isinstance(run.objective, SFGC)
    assert isinstance(run.objective.choice, GraphTangentScore)
    assert len(run.objective.experts) == 2
    folder = node_experts.experts_folder(plan, run.objective.net, data)
    assert sorted(path.name for path in folder.glob("expert*")) == [
        "expert-00000.safetensors",
        "expert-00001.safetensors",
    ]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    more = graph_runs.build(
        plan_of("sfgc", "inner_steps=4", nodes=20), data, on_experts=lambda done, _: told.append(done)
    )
    assert told[-1] == 2
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    torch.testing.assert_close(more.objective.experts.last(1), run.objective.experts.last(1))  # type: ignore[attr-defined]
    others = [plan_of("sfgc", setting) for setting in ("experts.lr=0.1", "experts.layout=full", "net.width=9")]
    nets = [Net(graph_runs.build_network(other.network, data)) for other in others]
    assert len({folder, *(node_experts.experts_folder(p, n, data) for p, n in zip(others, nets, strict=True))}) == 4


def test_a_run_of_geom_starts_from_an_experts_labels_and_can_be_resumed() -> None:
    plan = plan_of("geom", "steps=4")
    source = GraphSource("digits-graph", reading=plan.data)
    data = graph_runs.open_graph(source)
    made = []
    for name, stop in (("whole", None), ("stopped", 2)):
        folder = Folder(Path(name))
        folder.claim(graph_runs.settings(plan, source, data, seed=0))
        for _ in (1, 2):
            run = graph_runs.build(plan, data)
            assert isinstance(run.objective, GEOM)
            for done in graph_runs.advance(run, folder):
                if done.step == stop:
                    break
            stop = None
        made.append(graph_runs.finish(run, folder, source))
    first, second = (dict(artifact.graph.named_parameters()) for artifact in made)
    assert set(first) == {"values", "labels", "step_size"}
    assert all(torch.equal(first[key], second[key]) for key in first)
    start = graph_runs.build(plan, data).synthetic
    assert isinstance(start.labels, nn.Parameter)
    assert not torch.equal(start.labels, first["labels"])


def test_a_step_size_is_for_plain_descent() -> None:
    plan = plan_of("sfgc")
    source = GraphSource("digits-graph", reading=plan.data)
    data, folder = graph_runs.open_graph(source), Folder(Path("run"))
    folder.claim(graph_runs.settings(plan, source, data, seed=0))
    run = graph_runs.build(plan, data)
    for _ in graph_runs.advance(run, folder):
        pass
    artifact = graph_runs.finish(run, folder, source)
    assert artifact.options["experts"]["count"] == 2
    assert artifact.training_recipe().optimizer == Adam(lr=0.01, weight_decay=5e-4)
    plainly = replace(artifact, recipe=replace(artifact.recipe, optimizer=Sgd(lr=0.1)))
    assert artifact.graph.step_size is not None
    assert plainly.training_recipe().optimizer.lr == artifact.graph.step_size.item()


def test_mistakes_say_what_to_do() -> None:
    plan = plan_of("sfgc", "experts.steps=100")
    data = graph_runs.open_graph(GraphSource("digits-graph", reading=plan.data))
    with pytest.raises(ValueError, match=r"reaches point 14 of its experts, which have 10; set experts\.steps=140"):
        graph_runs.build(plan, data)
    assert not Path("runs").exists()
    with pytest.raises(ValueError, match="give a first step size above 0"):
        plan_of("sfgc", "step_size=0")
    with pytest.raises(ValueError, match="condensery condense cora --method geom"):
        experts_command("cora", method="geom")


def test_the_command_records_experts_and_says_so() -> None:
    settings = [word for setting in (*SMALL, "test.width=4", "eval.steps=4") for word in ("--set", setting)]
    done = call("condense", "digits-graph", "--method", "geom", "--nodes", 10, *settings, "--out", "run")
    assert "2/2 experts" in done.err
    artifact = GraphArtifact.load(Path("run", "artifact.safetensors"))
    assert artifact.graph.kind_of_labels == "learned"
    assert artifact.graph.adjacency(artifact.graph.values).edges.shape == (2, 0)
