"""``condensery search`` as a user meets it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import call, complaint
from condensery.data import graph_npz
from condensery.graph_artifact import GraphArtifact
from condensery.node_fitting import Nodes
from condensery.search import GraphFamily, ImageGround, NodeGround, node_likelihood
from support import small_graph

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("elsewhere")

SPACE = """
[eval.lr]
float = [0.005, 0.3]
log = true

[net.norm]
choices = ["none", "group"]

[net.width]
value = 4
"""
QUICK = ["--trials", 4, "--confirm", 3, "--full-epochs", 1, "--budget", 0.01]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A condensed set and a space."""
    folder = tmp_path_factory.mktemp("made")
    tiny = ["--set", "net.width=4", "--set", "batch_real=8", "--set", "eval.augment=none"]
    call("condense", "digits", *tiny, "--set", "steps=3", "--out", folder / "dm")
    call("select", "digits", "--coreset", "uniform", "--ipc", 3, "--set", "net.width=4", "--out", folder / "val")
    (folder / "space.toml").write_text(SPACE)
    return folder


def command(made: Path, *more: object) -> list[object]:
    return ["search", "digits", "--space", made / "space.toml", "--train", made / "dm", *QUICK, *more]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "reinforce"])
def test_a_search_leaves_everything_in_its_folder(made: Path, sampler: str) -> None:
    done = call(*command(made, "--sampler", sampler))
    folder = Path("runs") / f"search-digits-condensed-{sampler}-seed0"
    log = {"study.log"} if sampler == "tpe" else {"trials.jsonl"}
    assert {"search.json", "confirmed.json", "result.json", "scatter.png"} | log == {p.name for p in folder.iterdir()}
    result = json.loads((folder / "result.json").read_text())
    assert len(result["trials"]) == 4
    assert all(set(t["config"]) == {"net.width", "eval.lr", "net.norm"} for t in result["trials"])
    assert len(result["confirmed"]) == 3
    assert all(one["test"] is None for one in result["confirmed"])
    assert len(result["winner"]["test"]) == 1
    scores = [one["searched"] for one in result["confirmed"]]
    assert scores == sorted(scores, reverse=True)
    cost = result["cost"]
    assert cost["condensing"] > 0
    assert cost["spent"] == pytest.approx(cost["condensing"] + cost["searching"] + cost["confirming"])
    for part in (
        "The best 3 of 4 trials on digits",
        "winner   net.width=4 ",
        "test accuracy",
        "condensing",
        "ranking  ",
    ):
        assert part in done.out


def test_the_validation_set_can_be_condensed_and_the_score_a_loss(made: Path) -> None:
    plain = json.loads(call(*command(made, "--val", made / "val", "--score", "loss", "--n", 2, "--json")).out)
    assert all(t["score"] < 0 for t in plain["trials"])
    coarse = json.loads(call(*command(made, "--val", made / "val", "--json", "--out", "b")).out)
    assert all(30 * t["score"] == pytest.approx(round(30 * t["score"])) for t in coarse["trials"])


def test_the_same_search_on_real_data(made: Path) -> None:
    plain = json.loads(call(*command(made, "--on", "real", "--sampler", "random", "--json")).out)
    assert plain["cost"]["condensing"] == 0
    bare = ["search", "digits", "--space", made / "space.toml", "--on", "real", *QUICK[:-2], "--trials", 2]
    call(*bare, "--confirm", 1, "--net", "MLP", "--out", "mlp", code=2)  # an MLP has no norm
    done = call(*bare, "--confirm", 1, "--out", "bare")
    assert "ranking" not in done.out
    assert not (Path("bare") / "scatter.png").exists()


def test_ctrl_c_says_how_to_go_on_and_nothing_is_different(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(call(*command(made, "--out", "whole", "--json")).out)
    tried, calls = ImageGround.__call__, []

    def stopped(self: ImageGround, *arguments: object) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return tried(self, *arguments)  # type: ignore[arg-type]

    asked = command(made, "--out", "b")
    monkeypatch.setattr(sys, "argv", ["condensery", *map(str, asked)])
    monkeypatch.setattr(ImageGround, "__call__", stopped)
    said = call(*asked, code=130).err
    assert "stopped: go on with: condensery search digits --space" in said
    assert "--out b --resume" in said
    monkeypatch.setattr(ImageGround, "__call__", tried)
    assert "holds a search already; add --resume" in complaint(*asked)
    again = json.loads(call(*asked, "--resume", "--json").out)
    for key in ("trials", "confirmed"):
        found, wanted = ([(t["config"], t.get("score")) for t in plain[key]] for plain in (again, whole))
        assert found == wanted
    assert again["winner"]["test"] == whole["winner"]["test"]
    assert len(again["trials"]) == 4


def test_a_finished_search_is_resumed_by_doing_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = command(made, "--sampler", "random", "--out", "a")
    call(*asked)
    kept = [Path("a") / name for name in ("confirmed.json", "result.json")]
    before = [path.read_bytes() for path in kept]

    def forbidden(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ImageGround, "__call__", forbidden)
    monkeypatch.setattr(ImageGround, "fit", forbidden)
    call(*asked, "--resume")
    assert [path.read_bytes() for path in kept] == before
    assert "has sampler = 'random', not 'grid'" in complaint(
        *command(made, "--sampler", "grid", "--out", "a", "--resume")
    )
    more = command(made, "--sampler", "random", "--out", "a", "--resume", "--trials", 9)
    assert "The winner of 4 trials in a has been tested already" in complaint(*more)


def test_two_searches_do_not_share_a_folder(made: Path) -> None:
    asked = command(made, "--sampler", "random", "--out", "a")
    Path("a").mkdir()
    handle = os.open("a", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert "Another process searches in a" in complaint(*asked)
    os.close(handle)
    call(*asked)


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_pruned_trials_are_counted(made: Path, pruner: str) -> None:
    plain = json.loads(call(*command(made, "--pruner", pruner, "--trials", 8, "--confirm", 1, "--json")).out)
    assert len(plain["trials"]) == 8
    assert {t["why"] for t in plain["trials"]} <= {"", "pruned"}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--sampler", "grid", "--jobs", 2], "--pruner and --jobs are for tpe and gp, not for grid"),
        (["--sampler", "random", "--pruner", "median"], "not for random"),
        (["--on", "real", "--val", "dm"], "leave --val out"),
        (["--train", "nowhere"], "There is no file nowhere"),
        (["--space", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--space", "bad.toml"], "bad.toml: eval.lr: give one of float, int"),
        (["--space", "unknown.toml"], "There is no setting 'net.size'"),
        (["--levels", 3], "--levels is for grid and reinforce, not for tpe"),
        (["--validation", 0.2], "leave --validation out"),
        (["--budget", 0], "cannot be scaled by 0"),
        (["--net", "nonet"], "There is no network 'nonet'"),
    ],
)
def test_wrong_input_is_one_sentence(made: Path, more: list[object], sentence: str) -> None:
    Path("bad.toml").write_text("[eval.lr]\nlog = true\n")
    Path("unknown.toml").write_text("[net.size]\nint = [8, 9]\n")
    assert sentence in complaint(*command(made, *more))
    assert not Path("runs").exists()


def test_a_search_needs_sets_of_these_data(made: Path) -> None:
    assert "give a condensed set with --train, or --on real" in complaint(
        "search", "digits", "--space", made / "space.toml"
    )
    call("condense", "digits", "--whiten", "zca", "--set", "net.width=4", "--set", "steps=1", "--out", "zca")
    assert "have different preprocessing" in complaint(*command(made, "--val", "zca"))
    for name, what in (("generated-log", "is a recommendation log"), ("digit-graphs", "is a set of graphs")):
        said = complaint("search", name, "--space", made / "space.toml", "--on", "real")
        assert f"{name} {what}; searches are for images" in said
    Path("taken").mkdir()
    (Path("taken") / "x").write_text("")
    assert "not the folder of a search" in complaint(*command(made, "--out", "taken"))


def test_a_space_of_nothing_that_works_is_said(made: Path) -> None:
    Path("deep.toml").write_text("[net.depth]\nint = [5, 9]\n")
    asked = command(made, "--space", "deep.toml", "--sampler", "grid")
    assert "No trial has a score" in complaint(*asked)


def test_without_optuna_it_is_said_before_anything_is_made(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'condensery[search]', or search by grid, random or reinforce" in complaint(*command(made))
    assert not Path("runs").exists()
    call(*command(made, "--sampler", "random"))


# --- graphs
# --------------------------------------------------------------------------------------------------------------------

NETWORKS = """
[net]
choices = ["GCN", "SAGE-max", "Cheb-2"]

[net.width]
choices = [4, 8]

[eval.lr]
float = [0.001, 0.1]
log = true
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph, a condensed one, nodes to score on, and a space."""
    folder = tmp_path_factory.mktemp("graph")
    np.savez(folder / "friends.npz", **small_graph(60))
    tiny = ["--nodes", 6, "--set", "test.width=4", "--set", "eval.steps=30"]
    call(
        "condense", folder / "friends.npz", "--method", "gcond-x", *tiny, "--set", "steps=2", "--out", folder / "train"
    )
    call("select", folder / "friends.npz", "--coreset", "random", *tiny, "--seed", 1, "--out", folder / "val")
    (folder / "space.toml").write_text(NETWORKS)
    return folder


def on_graph(graph: Path, *more: object) -> list[object]:
    asked = ["search", graph / "friends.npz", "--space", graph / "space.toml", "--train", graph / "train"]
    return [*asked, "--trials", 4, "--confirm", 3, *more]


@pytest.mark.parametrize("more", [[], ["--sampler", "grid", "--levels", 1], ["--jobs", 2]])
def test_graph_networks_are_searched_on_a_condensed_graph(graph: Path, more: list[object]) -> None:
    done = call(*on_graph(graph, *more, "--out", "found"))
    result = json.loads((Path("found") / "result.json").read_text())
    assert len(result["trials"]) == 4
    assert all(set(t["config"]) == {"net", "net.width", "eval.lr"} for t in result["trials"])
    assert [one["test"] for one in result["confirmed"]] == [None] * 3
    assert len(result["winner"]["test"]) == 1
    assert result["cost"]["condensing"] > 0
    assert (Path("found") / "scatter.png").is_file()
    for part in (
        "The best 3 of 4 trials on friends",
        "training nodes of the real graph",
        "in the search 30 steps, Adam",
    ):
        assert part in done.out


def test_a_search_on_graphs_is_what_its_ground_says(graph: Path) -> None:
    """Trials train on the condensed graph and are scored as asked; the winner is trained and tested on the real one."""
    asked = on_graph(graph, "--sampler", "random", "--n", 2, "--budget", 0.5, "--json")
    by_accuracy = json.loads(call(*asked, "--out", "a").out)
    by_loss = json.loads(call(*asked, "--val", graph / "val", "--score", "loss", "--out", "b").out)
    artifact, data = GraphArtifact.load(graph / "train" / "artifact.safetensors"), graph_npz(graph / "friends.npz")
    family = GraphFamily(artifact.network)
    train, recipe = artifact.nodes(), artifact.training_recipe()
    here = NodeGround(family, train, Nodes.validation(data), recipe.with_steps(15), (0, 1))
    nodes = GraphArtifact.load(graph / "val" / "artifact.safetensors").nodes()
    loss = replace(here, validation=nodes, measure=node_likelihood)
    for trial, other in zip(by_accuracy["trials"], by_loss["trials"], strict=True):
        assert trial["score"] == pytest.approx(here(trial["config"]))
        assert other["score"] == pytest.approx(loss(other["config"]))
    winner = by_accuracy["winner"]
    real = NodeGround.real(data, artifact.network, recipe=recipe)
    fitted = real.fit(winner["config"], 1000, Nodes.test(data))
    assert (winner["validation"], winner["test"]) == ([fitted.validation], [fitted.test()])


def test_the_same_search_on_the_real_graph(graph: Path) -> None:
    bare = [
        "search",
        graph / "friends.npz",
        "--space",
        graph / "space.toml",
        "--on",
        "real",
        "--trials",
        2,
        "--confirm",
        1,
    ]
    plain = json.loads(call(*bare, "--budget", 0.02, "--net", "GCN", "--width", 4, "--json").out)
    assert plain["cost"]["condensing"] == 0
    assert (Path("runs") / "search-friends-real-tpe-seed0" / "result.json").is_file()


def test_a_search_on_graphs_goes_on(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = on_graph(graph, "--sampler", "random", "--json")
    whole = json.loads(call(*asked, "--out", "whole").out)
    tried, calls = NodeGround.__call__, []

    def stopped(self: NodeGround, *arguments: object) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return tried(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(NodeGround, "__call__", stopped)
    call(*asked, "--out", "b", code=130)
    monkeypatch.setattr(NodeGround, "__call__", tried)
    assert "holds a search already; add --resume" in complaint(*asked, "--out", "b")
    again = json.loads(call(*asked, "--out", "b", "--resume").out)
    assert [(t["config"], t["score"]) for t in again["trials"]] == [(t["config"], t["score"]) for t in whole["trials"]]
    said = complaint(*asked, "--out", "b", "--resume", "--val", graph / "val")
    assert "has sets.val" in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--full-epochs", 3], "--full-epochs is for images; leave it out for a graph."),
        (["--pruner", "median"], "--pruner is for images"),
        (["--norm", "batch"], "--norm is for images"),
        (["--train", "nowhere"], "There is no file nowhere"),
        (["--val", "other"], "The two graphs have different classes"),
        (["--val", "scaled"], "The two graphs have different preprocessing"),
        (["--space", "steps.toml"], "eval.steps is not searched"),
    ],
)
def test_wrong_searches_on_graphs_are_one_sentence(graph: Path, more: list[object], sentence: str) -> None:
    Path("steps.toml").write_text("[eval.steps]\nint = [8, 9]\n")
    whole = small_graph(60)
    np.savez("fewer.npz", **{**whole, "y": np.minimum(whole["y"], 1)})
    call("select", "fewer.npz", "--coreset", "random", "--nodes", 6, "--out", "other")
    scaled = ["--set", "features=standardised"]
    call("select", graph / "friends.npz", "--coreset", "random", "--nodes", 6, *scaled, "--out", "scaled")
    assert sentence in complaint(*on_graph(graph, *more))


def test_a_graph_is_not_searched_on_a_set_of_images(graph: Path, made: Path) -> None:
    said = complaint(*on_graph(graph, "--train", made / "dm"))
    assert "is for images, and the data are a graph; give a set that was condensed from it" in said
