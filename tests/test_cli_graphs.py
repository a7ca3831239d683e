"""Graphs on the command line: every command, what it prints, and errors in one sentence."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from commands import call, complaint
from condensery import catalog, graph_runs
from condensery.data import graph_csv, graph_npz
from condensery.graph_artifact import GraphArtifact
from support import FEW_EXPERTS, small_graph

pytestmark = pytest.mark.usefixtures("elsewhere")

TINY = ["--set", "test.width=4", "--set", "eval.steps=4"]
QUICK = [*TINY, "--set", "hidden=4", "--set", "steps=4", "--set", "outer=2", "--set", "inner=1"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "friends.npz"
    np.savez(path, **small_graph(48))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, file: Path) -> Path:
    """The folder of a small finished run."""
    folder = tmp_path_factory.mktemp("made") / "run"
    call("condense", file, "--method", "gcond", "--nodes", 6, *QUICK, "--out", folder)
    return folder


# --- condense and select


def test_condense_leaves_everything_in_its_folder(file: Path, tmp_path: Path) -> None:
    done = call("condense", file, "--method", "GCond", "--nodes", 6, *QUICK)
    folder = tmp_path / "runs" / "friends-gcond-nodes6-seed0"
    assert {p.name for p in folder.iterdir()} == {"artifact.safetensors", "log.jsonl", "run.json", "snapshots"}
    artifact = GraphArtifact.load(folder / "artifact.safetensors")
    assert artifact.per_class == [2, 2, 2]
    assert "GCond on friends: 6 nodes (25 % of 24 training nodes, 12.5 % of all 48)" in done.out
    assert "condensery evaluate runs/friends-gcond-nodes6-seed0" in done.out
    assert "defaults: nothing is published for this data set" in done.err
    assert "set by hand: test.width, eval.steps" in done.err


def test_a_quarter_is_the_default_and_json_goes_alone_to_standard_output(file: Path) -> None:
    done = call("condense", file, "--method", "gcond-x", *TINY, "--set", "epochs=2", "--budget", 0.1, "--json")
    plain = json.loads(done.out)
    assert (plain["steps"], plain["dataset"], plain["per_class"]) == (4, "friends", [2, 2, 2])
    assert "40 -> 4 steps" in done.err
    assert GraphArtifact.load(plain["artifact"]).spent == plain["spent"]


@pytest.mark.parametrize("method", [name for name in catalog.GRAPH_METHODS if name != "gcond"])
def test_every_method_condenses_by_its_recipe(method: str, file: Path) -> None:
    settings: list[object] = ["--set", "steps=2", "--net", "SGC", "--ratio", 0.25, *TINY]
    if method in ("sfgc", "geom"):
        window = ["first_max_start=1"] if method == "geom" else []
        settings += [word for setting in (*FEW_EXPERTS, *window) for word in ("--set", setting)]
    plain = json.loads(call("condense", file, "--method", method, *settings, "--json").out)
    assert (plain["method"], plain["steps"]) == (catalog.GRAPH_METHODS[method].title, 2)


def test_select_takes_real_nodes_with_their_edges(file: Path) -> None:
    data = graph_npz(file)
    for name in (name for name, entry in catalog.GRAPH_CORESETS.items() if not entry.merges):
        plain = json.loads(call("select", file, "--coreset", name, "--nodes", 9, *TINY, "--json").out)
        artifact = GraphArtifact.load(plain["artifact"])
        assert artifact.indices is not None
        assert plain["spent"]["edges"] == data.subgraph(artifact.indices).num_edges
    text = call("select", file, "--coreset", "herding", "--embedding", "features", "--ratio", 0.5, "--out", "h").out
    assert "Herding on friends: 12 nodes (50 % of 24 training nodes" in text
    assert "holds a set already" in complaint("select", file, "--coreset", "random", "--nodes", 9)


def test_coarsening_says_what_its_nodes_are(file: Path) -> None:
    done = call("select", file, "--coreset", "coarsening", "--nodes", 12, *TINY, "--seed", 3)
    folder = Path("runs/friends-coarsening-nodes12-seed3")
    artifact = GraphArtifact.load(folder / "artifact.safetensors")
    without = 12 - sum(artifact.per_class)
    assert without
    assert f"12 nodes (50 % of 24 training nodes, 25 % of all 48), {12 - without} of them with a label" in done.out
    sentence = "Each of the 12 nodes is the mean of some of 48 real ones."
    assert sentence in done.err
    text = call("info", folder).out
    assert all(words in text for words in (sentence, f"no label {without}", f"{without} have no training node"))
    assert "nodes of the real graph" not in text
    facts = json.loads(call("info", folder, "--json").out)
    assert (facts["indices"], len(facts["assignment"]), facts["spent"]["labelled"]) == (None, 48, 12 - without)
    call("show", folder)
    rows = json.loads(call("evaluate", folder, "--n", 1, "--json", "--save").out)["rows"]
    assert [(r["name"], r["size"]["nodes"], r["size"]["seen"]) for r in rows] == [
        ("Coarsening", 12 - without, 12),
        ("random", 12, 12),
        ("full graph", 24, 48),
    ]
    assert f"{12 - without} of 12" in call("info", folder).out
    call("export", folder, "--to", "npz", "--out", "x.npz")
    call("export", folder, "--to", "csv", "--out", "tables")
    for again in (graph_npz("x.npz"), graph_csv("tables/edges.csv", "tables/nodes.csv")):
        assert torch.equal(again.y, artifact.graph.classes)
        assert again.train.tolist() == list(range(without, 12))


def test_coarsening_is_compared_with_as_many_random_nodes(file: Path) -> None:
    words = ["--methods", "coarsening,herding", "--nodes", "12", *TINY, "--n", 1, "--no-full", "--json"]
    rows = json.loads(call("compare", file, *words).out)["rows"]
    assert [(r["name"], r["size"]["seen"]) for r in rows] == [("Coarsening", 12), ("Herding", 12), ("random", 12)]
    rows = json.loads(call("compare", file, "--methods", "coarsening", "--nodes", 40, *words[4:]).out)["rows"]
    assert [(r["name"], r["size"]["seen"]) for r in rows] == [("Coarsening", 40), ("random", 24)]


def test_ctrl_c_says_how_to_go_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["condense", str(file), "--method", "gcond", "--nodes", "6", *QUICK]
    call(*command, "--out", "whole")
    advance = graph_runs.advance

    def stopped(*arguments: object) -> object:
        for progress in advance(*arguments):  # type: ignore[arg-type]
            if progress.step == 3:
                raise KeyboardInterrupt
            yield progress

    command += ["--out", "b", "--snapshot-every", "1"]
    monkeypatch.setattr(sys, "argv", ["condensery", *command])
    monkeypatch.setattr(graph_runs, "advance", stopped)
    assert "--out b --snapshot-every 1 --resume" in call(*command, code=130).err
    assert not Path("b/artifact.safetensors").exists()
    monkeypatch.setattr(graph_runs, "advance", advance)
    call(*command, "--resume")
    found, expected = (GraphArtifact.load(f"{name}/artifact.safetensors").graph().x for name in ("b", "whole"))
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.graph.dense(), expected.graph.dense())
    before = Path("b/artifact.safetensors").read_bytes()
    assert "finished already" in call(*command, "--resume").err
    assert Path("b/artifact.safetensors").read_bytes() == before
    assert "holds a run already" in complaint(*command)


def test_reading_and_networks_are_set_by_names(file: Path) -> None:
    words = ["--set", "inductive=true", "--set", "features=standardised", "--net", "GCN", "--width", 5, *QUICK]
    more = ["--set", "fanouts=all,all", "--set", "test.net=SAGE", "--eval-every", 2]
    plain = json.loads(call("condense", file, "--method", "gcond", "--nodes", 3, *words, *more, "--json").out)
    artifact = GraphArtifact.load(plain["artifact"])
    assert (artifact.split["inductive"], artifact.preprocessing.config()["kind"]) == (True, "standard-scaled")
    assert artifact.options["network"] == {"net": "GCN", "width": 5}
    assert (artifact.network["net"], artifact.network["width"]) == ("SAGE", 4)
    lines = [json.loads(line) for line in Path(plain["log"]).read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4]
    rows = json.loads(call("evaluate", plain["folder"], "--n", 1, "--json").out)["rows"]
    assert [row["size"]["nodes"] for row in rows] == [3, 3, 24]


# --- evaluate and compare


def test_evaluate_shows_random_nodes_and_the_full_graph_at_both_steps(made: Path) -> None:
    plain = json.loads(call("evaluate", made, "--n", 2, "--nets", "GCN,SGC:hops=1,GAT", "--json", "--save").out)
    rows = plain["rows"]
    assert [r["name"] for r in rows] == ["GCond", "random", "full graph"] * 3
    assert [r["network"].split()[0] for r in rows[::3]] == ["GCN", "SGC", "GAT"]
    assert [r["size"]["nodes"] for r in rows[:3]] == [6, 6, 24]
    assert all(r["last"]["n"] == r["chosen"]["n"] == len(r["size"]["chosen_steps"]) == 2 for r in rows)
    assert rows[2]["recovery"] == 1.0
    assert rows[0]["recovery"] == pytest.approx(rows[0]["last"]["mean"] / rows[2]["last"]["mean"])
    told = call("info", made).out
    assert "step chosen" in told
    assert "GAT" in told


def test_what_validation_chose_is_said_with_the_set_and_with_its_accuracies(file: Path, tmp_path: Path) -> None:
    words = ["--method", "gcond-x", *TINY, "--set", "steps=4", "--keep-best", 2, "--out", tmp_path / "kept"]
    done = call("condense", file, *words).out
    how = GraphArtifact.load(tmp_path / "kept" / "artifact.safetensors").provenance
    accuracy = f"{100 * how['kept_validation']:.1f} %"
    assert f"4 steps (kept: step {how['kept_step']}, validation {accuracy})" in done
    text = call("evaluate", tmp_path / "kept", "--n", 1, "--no-full").out
    assert f"The set is step {how['kept_step']}'s of 4, kept for its validation accuracy ({accuracy})." in text


def test_evaluate_prints_a_table(made: Path, file: Path) -> None:
    text = call("evaluate", made, "--n", 1, "--no-full", "--epochs", 3, "--data", file).out
    assert all(words in text for words in ("last step", "on validation", "random", "3 steps, Adam 0.01"))
    assert "│ full graph" not in text
    assert "kept for" not in text
    assert "2 steps" in call("evaluate", made, "--n", 1, "--no-full", "--eval-budget", 0.5).out
    assert "give with --data the graph that it was made from" in complaint("evaluate", made, "--data", "digits-graph")


def test_compare_goes_on_where_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["compare", file, "--methods", "gcond,herding", "--nodes", "3,6", *QUICK, "--n", 1]
    rows = json.loads(call(*command, "--json").out)["rows"]
    names = ["GCond", "Herding", "random"]
    assert [(r["name"], r["asked"]) for r in rows] == [
        *((name, size) for size in ("3", "6") for name in names),
        ("full graph", "all"),
    ]
    assert all(r["recovery"] is not None for r in rows)
    monkeypatch.setattr(graph_runs, "trained_on", lambda *_, **__: pytest.fail("a row was scored twice"))
    text = call(*command).out
    assert "Herding" in text
    assert "Random nodes are drawn anew" in text
    changed = [*command, "--seed", 1, "--out", "runs/compare-friends-seed0"]
    assert "not 1; resume it with the same settings" in complaint(*changed)


def test_compare_does_without_another_random_row_where_random_is_a_method(file: Path) -> None:
    words = ["--methods", "random,degree", "--ratio", "0.25", *TINY, "--n", 1, "--no-full", "--json"]
    rows = json.loads(call("compare", file, *words).out)["rows"]
    assert [(r["name"], r["asked"]) for r in rows] == [("Random", "25 %"), ("Degree", "25 %")]


# --- the guide


def test_every_command_of_the_guide_runs() -> None:
    """The page's commands in order, with fewer steps, after the block that writes its files."""
    page = (Path(__file__).parent.parent / "docs" / "graphs.md").read_text()
    exec(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0], {})
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    looks = ["--set", "eval.check_every=2"]
    short, passes = ([*looks, "--set", f"eval.{length}=2"] for length in ("steps", "epochs"))
    more = {"condense": [*short, "--set", "steps=2"], "select": short, "evaluate": ["--epochs", "1"]}
    more["compare"] = more["condense"]
    small = [*passes, "--set", "test.width=4", "--set", "test.depth=1"]
    sets = {"condense": [*small, "--width", "4", "--set", "steps=2", "--set", "batch_real=2"], "select": small}
    sets |= {"compare": [*sets["condense"], "--set", "proxy_epochs=1", "--full-epochs", "1"]}
    sets |= {"evaluate": ["--epochs", "1", "--no-full"]}
    lines = [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line.strip()]
    for command, *arguments in lines:
        if "cora" in arguments:  # needs a download
            continue
        of_a_set = not {"digit-graphs", "runs/digits", "small-digits"}.isdisjoint(arguments)
        extra = (sets if of_a_set else more).get(command, [])
        extra = [*extra, "--set", "proxy_epochs=1"] if of_a_set and "herding" in arguments else extra
        call(command, *arguments, *extra, *(["--n", 1] if command in ("evaluate", "compare") else []))
    there = {"condense", "select", "evaluate", "compare", "info", "show", "methods", "datasets", "export"}
    assert {command for command, *_ in lines} == there


# --- looking and exporting


def test_info_show_and_export(made: Path) -> None:
    facts = json.loads(call("info", made, "--json").out)
    assert (facts["method"], facts["per_class"], facts["features"]) == ("GCond", [2, 2, 2], 4)
    text = call("info", made).out
    for words in ("25 % of 24 training nodes", "structure pairwise", "of weight at least 0.01", "train 24"):
        assert words in text
    assert "in order of their classes" in call("show", made, "--out", "a.png").out
    with Image.open("a.png") as picture:
        assert picture.width > 2 * picture.height * 0.8
    artifact = GraphArtifact.load(made / "artifact.safetensors")
    call("export", made, "--to", "npz", "--out", "x.npz")
    call("export", made / "artifact.safetensors", "--to", "csv", "--out", "tables")
    for again in (graph_npz("x.npz"), graph_csv("tables/edges.csv", "tables/nodes.csv")):
        assert torch.equal(again.x, artifact.data().x)
        assert torch.equal(again.edges, artifact.data().edges)
    assert "exists already" in complaint("export", made, "--to", "npz", "--out", "x.npz")
    assert "choose --to npz or csv" in complaint("export", made, "--to", "parquet", "--out", "y")


def test_what_was_exported_can_be_condensed_again(made: Path) -> None:
    call("export", made, "--to", "csv", "--out", "tables")
    plain = json.loads(call("select", "tables", "--coreset", "degree", "--nodes", 3, "--json").out)
    assert (plain["dataset"], plain["per_class"]) == ("nodes", [1, 1, 1])


def test_lists_tell_the_kind_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = call("methods").out
    assert all(words in text for words in ("Methods for graphs", "gcond-x", "Coresets for graphs", "pagerank"))
    plain = json.loads(call("methods", "--json").out)
    assert [e["name"] for e in plain["graph_methods"]] == list(catalog.GRAPH_METHODS)
    assert [e["name"] for e in plain["graph_coresets"]] == list(catalog.GRAPH_CORESETS)
    text = call("methods", "gcond").out
    for words in (
        "the test network",
        "numbers or all, as 10,5",
        "layerwise, squared, cosine or relative-squared",
        "net.hops",
        "inductive",
    ):
        assert words in text
    both = json.loads(call("methods", "k-center", "--json").out)
    assert (both["kind"], [other["kind"] for other in both["also"]]) == ("images", ["graphs", "sets of graphs"])
    (tmp_path / "amazon-photo").mkdir()
    (tmp_path / "amazon-photo" / "amazon_electronics_photo.npz").touch()
    monkeypatch.setenv("CONDENSERY_DATA", str(tmp_path))
    here = {d["name"]: d for d in json.loads(call("datasets", "--json").out)}
    assert here["amazon-photo"]["here"] == str(tmp_path / "amazon-photo")
    assert (here["digits-graph"]["kind"], here["cora"]["nodes"], here["cora"]["here"]) == ("graph", 2708, None)
    assert "Graphs" in call("datasets").out


# --- what does not go together, and bad graphs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("condense FILE", "is a graph and dm is for images; use condense --method gcond, or select --coreset random"),
        ("condense digits-graph --method dconrec", "is a graph and dconrec is for recommendation logs"),
        ("condense digits --method gcond", "digits holds images and gcond is for graphs; use condense --method dm"),
        ("condense generated-log --method gcond", "generated-log is a recommendation log and gcond is for graphs"),
        ("select generated-log --coreset degree", "and degree is for graphs"),
        ("select FILE --coreset uniform", "is a graph and uniform is for images"),
        ("select FILE --coreset gcond", "There is no coreset 'gcond'"),
        ("compare FILE --methods gcond,dm", "and dm is for images"),
        ("condense FILE --method herding", "use: condensery select DATA --coreset herding"),
        ("condense FILE --method coarsening", "coarsening merges real nodes; use: condensery select DATA --coreset"),
        ("select FILE --coreset coarsening --nodes 2", "2 synthetic nodes do not suffice for 3 classes"),
        ("select FILE --coreset coarsening --nodes 48", "cannot become 48; ask for"),
        ("select FILE --coreset coarsening --nodes 9 --embedding features", "coarsening has no setting 'embedding'"),
        ("condense FILE --method gcond --ipc 3", "--ipc is for images and sets of graphs; give --nodes"),
        ("condense FILE --method gcond --fast", "--fast is for images; leave it out for a graph"),
        ("condense FILE --method gcond --nodes 6 --ratio 0.5", "say the same thing; give one of them"),
        ("condense digits --nodes 3", "--nodes is for graphs; give images per class with --ipc"),
        ("condense generated-log --method dconrec --nodes 3", "--nodes is for graphs; give --ratio for a log"),
        ("condense FILE --method gcond --nodes 2", "2 synthetic nodes do not suffice for 3 classes"),
        ("condense FILE --method gcond --nodes 200", "need 67 training nodes of class '0', which has 8"),
        ("condense FILE --method gcond --ratio 1.5", "above 0 and at most 1"),
        ("condense FILE --method gcond --set strukture=free", "did you mean structure?"),
        ("condense FILE --method gcond --net ConvNet", "There is no graph network 'ConvNet'"),
        ("condense nosuch.npz --method gcond", "There is no graph 'nosuch.npz'"),
        ("condense FILE --method gcond --data-root .", "leave it out"),
        ("condense cora --method gcond --data-root .", "Cora is not in ."),
        ("compare FILE --nodes many", "--nodes takes whole numbers as 35,70"),
        ("compare FILE --nodes 3 --ratio 0.5", "say the same thing"),
        ("evaluate MADE --robust", "--robust is for images"),
        ("evaluate MADE --nets MLP", "There is no graph network 'MLP'"),
        ("evaluate MADE --nets SGC:heads=2", "SGC has no argument 'heads'"),
        ("evaluate MADE --eval-budget 0", "is no share"),
        ("show MADE --out a.jpg", "is not a .png file"),
        ("condense FILE --method gcondd", "did you mean gcond"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(arguments: str, sentence: str, file: Path, made: Path) -> None:
    words = [{"FILE": str(file), "MADE": str(made)}.get(word, word) for word in arguments.split()]
    assert sentence in complaint(*words)


GOOD = small_graph(48)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "edge out of range": ({"edge_index": np.array([[0], [99]])}, "joins nodes 0 and 99, but there are 48 nodes"),
    "not a number": ({"x": np.full((48, 4), np.nan)}, "Features of 48 nodes are NaN or infinite, first of node 0"),
    "class without training nodes": ({"y": np.where(GOOD["split"] == 0, 0, 1)}, "has no training node"),
    "one node": ({"x": np.ones((1, 4)), "y": np.zeros(1, dtype=int), "split": np.zeros(1)}, "give at least 2 nodes"),
    "no labels": ({"y": None}, "no labels; save y"),
    "labels of text": ({"y": np.array(["a"] * 48)}, "save numbers"),
    "pickled": ({"x": np.array([{}], dtype=object)}, "save plain numbers"),
    "weights below zero": (
        {"edge_weight": -np.ones(len(GOOD["edge_index"].T))},
        "weight that is not a positive",
    ),
    "too few rows": ({"x": np.ones((9, 4))}, "but there are 9 nodes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_graph_is_one_clear_sentence(name: str) -> None:
    changes, sentence = BAD[name]
    np.savez("bad.npz", **{key: value for key, value in {**GOOD, **changes}.items() if value is not None})
    said = complaint("condense", "bad.npz", "--method", "gcond", "--nodes", 6, *QUICK)
    assert sentence in said
    assert not Path("runs").exists()


def test_what_can_be_cleaned_is_and_said() -> None:
    held = small_graph(48)
    loops = np.array([[0, 1, 0], [0, 2, 0]])
    np.savez("untidy.npz", **{**held, "edge_index": np.concatenate([held["edge_index"], loops, loops], 1)})
    said = call("select", "untidy.npz", "--coreset", "degree", "--nodes", 3).err
    assert "4 self-loops were left out." in said
    assert "repeated edges were left out." in said
    assert "4 self-loops were left out." in call("info", "runs/untidy-degree-nodes3-seed0").out


def test_a_damaged_graph_is_one_sentence(made: Path) -> None:
    whole = (made / "artifact.safetensors").read_bytes()
    damaged = bytearray(whole)
    damaged[-3] ^= 1
    Path("a.safetensors").write_bytes(damaged)
    Path("b.safetensors").write_bytes(whole[: len(whole) // 2])
    for command in ("info", "evaluate", "show"):
        assert "do not match its digest" in complaint(command, "a.safetensors")
        assert "not a readable safetensors file" in complaint(command, "b.safetensors")
