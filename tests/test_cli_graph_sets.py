"""Sets of graphs on the command line: every command, what it prints, and errors in one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from commands import call, complaint
from condensery import catalog, graph_set_runs
from condensery.data.tu_files import tu_graphs, write_tu
from condensery.graph_set_artifact import GraphSetArtifact
from support import rings_and_stars

pytestmark = pytest.mark.usefixtures("elsewhere")

TINY = ["--set", "test.width=4", "--set", "test.depth=1", "--set", "eval.epochs=4"]
QUICK = [*TINY, "--width", "4", "--set", "steps=4", "--set", "batch_real=5", "--set", "nodes=7", "--set", "net.depth=1"]
DOSCOND = ["--method", "doscond-graphs"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in TU Dortmund's layout."""
    folder = tmp_path_factory.mktemp("sets") / "shapes"
    folder.mkdir()
    write_tu(rings_and_stars(), folder, "SHAPES")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """The folder of a small finished run."""
    folder = tmp_path_factory.mktemp("made") / "run"
    call("condense", shapes, *DOSCOND, "--ipc", 2, *QUICK, "--out", folder)
    return folder


# --- condense and select


def test_condense_leaves_everything_in_its_folder(shapes: Path, tmp_path: Path) -> None:
    done = call("condense", shapes, "--method", "DosCond-graphs", "--ipc", "1,3", *QUICK, "--eval-every", 2)
    folder = tmp_path / "runs" / "shapes-doscond-graphs-ipc1-3-seed0"
    assert {p.name for p in folder.iterdir()} == {"artifact.safetensors", "log.jsonl", "run.json", "snapshots"}
    artifact = GraphSetArtifact.load(folder / "artifact.safetensors")
    assert (artifact.per_class, artifact.graphs.sizes.tolist()) == ([1, 3], [7] * 4)
    assert "DosCond (graphs) on SHAPES: 4 graphs (12.5 % of 32 training graphs), 28 nodes" in done.out
    assert "condensery evaluate runs/shapes-doscond-graphs-ipc1-3-seed0" in done.out
    assert "defaults: nothing is published for this data set" in done.err
    assert "set by hand: net.width, test.width" in done.err
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4]


def test_json_goes_alone_to_standard_output_and_a_seed_decides(shapes: Path) -> None:
    command = ["condense", shapes, *DOSCOND, *QUICK, "--set", "steps=20", "--budget", 0.1, "--json"]
    done = [call(*command, "--seed", seed, "--out", f"run{i}") for i, seed in enumerate((0, 0, 1))]
    plain = json.loads(done[0].out)
    assert (plain["steps"], plain["dataset"], plain["per_class"]) == (2, "SHAPES", [1, 1])
    assert "20 -> 2 steps" in done[0].err
    assert GraphSetArtifact.load(plain["artifact"]).spent == plain["spent"]
    first, second, other = (GraphSetArtifact.load(f"run{i}/artifact.safetensors").graphs for i in range(3))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.edges, second.edges)
    assert not torch.equal(first.x, other.x)


def test_select_takes_real_graphs(shapes: Path) -> None:
    data = tu_graphs(shapes)
    for name in catalog.GRAPH_SET_CORESETS:
        plain = json.loads(call("select", shapes, "--coreset", name, "--ipc", 3, *TINY, "--json").out)
        artifact = GraphSetArtifact.load(plain["artifact"])
        assert artifact.indices is not None
        assert torch.equal(artifact.graphs.x, data.subset(artifact.indices).x)
        assert plain["spent"]["graphs"] == 6
    words = ["--coreset", "herding", "--embedding", "features", "--ipc", 2]
    text = call("select", shapes, *words, "--out", "h").out
    assert "Herding on SHAPES: 4 graphs (12.5 % of 32 training graphs)" in text
    assert "4 graphs of the real set" in call("info", "h").out
    assert "holds a set already" in complaint("select", shapes, "--coreset", "random", "--ipc", 3)


def test_ctrl_c_says_how_to_go_on(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["condense", str(shapes), *DOSCOND, "--ipc", "2", *QUICK]
    call(*command, "--out", "whole")
    advance = graph_set_runs.advance

    def stopped(*arguments: object) -> object:
        for progress in advance(*arguments):  # type: ignore[arg-type]
            if progress.step == 3:
                raise KeyboardInterrupt
            yield progress

    command += ["--out", "b", "--snapshot-every", "1"]
    monkeypatch.setattr(sys, "argv", ["condensery", *command])
    monkeypatch.setattr(graph_set_runs, "advance", stopped)
    assert "--out b --snapshot-every 1 --resume" in call(*command, code=130).err
    assert not Path("b/artifact.safetensors").exists()
    monkeypatch.setattr(graph_set_runs, "advance", advance)
    call(*command, "--resume")
    found, expected = (GraphSetArtifact.load(f"{name}/artifact.safetensors").graphs for name in ("b", "whole"))
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.edges, expected.edges)
    before = Path("b/artifact.safetensors").read_bytes()
    assert "finished already" in call(*command, "--resume").err
    assert Path("b/artifact.safetensors").read_bytes() == before
    assert "holds a run already" in complaint(*command)


# --- evaluate and compare


def test_evaluate_shows_random_graphs_and_all_of_them(made: Path) -> None:
    nets = "PooledGCN,PooledGIN:pool=sum,PooledMLP"
    plain = json.loads(call("evaluate", made, "--n", 2, "--nets", nets, "--full-epochs", 3, "--json", "--save").out)
    rows = plain["rows"]
    assert [r["name"] for r in rows] == ["DosCond (graphs)", "random subset", "full data"] * 3
    assert [r["network"].split()[0] for r in rows[::3]] == ["PooledGCN", "PooledGIN", "PooledMLP"]
    assert [r["size"]["graphs"] for r in rows[:3]] == [4, 4, 32]
    assert all(r["last"]["n"] == r["chosen"]["n"] == len(r["size"]["chosen_epochs"]) == 2 for r in rows)
    assert all(epoch <= 3 for epoch in rows[2]["size"]["chosen_epochs"])
    assert rows[2]["recovery"] == 1.0
    assert rows[0]["recovery"] == pytest.approx(rows[0]["last"]["mean"] / rows[2]["last"]["mean"])
    told = call("info", made).out
    assert "pass chosen" in told
    assert "PooledGIN" in told


def test_evaluate_prints_a_table(made: Path, shapes: Path) -> None:
    text = call("evaluate", made, "--n", 1, "--no-full", "--epochs", 3, "--data", shapes).out
    assert all(words in text for words in ("last pass", "on validation", "random subset", "3 passes in batches of 128"))
    assert "│ full data" not in text
    assert "over the full data" not in text
    text = call("evaluate", made, "--n", 1, "--eval-budget", 0.5, "--full-epochs", 2).out
    assert "2 passes in batches" in text
    assert "(2 passes over the full data)" in text
    assert "give with --data the set that they were made from" in complaint("evaluate", made, "--data", "digit-graphs")


def test_compare_goes_on_where_it_was(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["compare", shapes, "--ipc", "1,2", *QUICK, "--n", 1, "--full-epochs", 2]
    rows = json.loads(call(*command, "--json").out)["rows"]
    names = ["DosCond (graphs)", "Herding", "random subset"]
    assert [(r["name"], r["asked"]) for r in rows] == [
        *((name, size) for size in ("1", "2") for name in names),
        ("full data", "all"),
    ]
    assert all(r["recovery"] is not None for r in rows)
    assert [r["size"]["graphs"] for r in rows] == [2, 2, 2, 4, 4, 4, 32]
    monkeypatch.setattr(graph_set_runs, "trained_on", lambda *_, **__: pytest.fail("a row was scored twice"))
    text = call(*command).out
    assert "Herding" in text
    assert "Random graphs are drawn anew" in text
    changed = [*command, "--seed", 1, "--out", "runs/compare-shapes-seed0"]
    assert "not 1; resume it with the same settings" in complaint(*changed)


def test_compare_does_without_another_random_row_where_random_is_a_method(shapes: Path) -> None:
    words = ["--methods", "random,k-center", "--ipc", 2, *TINY, "--n", 1, "--no-full", "--json"]
    rows = json.loads(call("compare", shapes, *words).out)["rows"]
    assert [(r["name"], r["asked"]) for r in rows] == [("Random", "2"), ("k-center", "2")]


# --- looking and exporting


def test_info_show_and_export(made: Path) -> None:
    facts = json.loads(call("info", made, "--json").out)
    assert (facts["method"], facts["per_class"], facts["features"]) == ("DosCond (graphs)", [2, 2], 3)
    assert facts["sizes"] == [7] * 4
    text = call("info", made).out
    for words in ("4 graphs (12.5 % of 32 training graphs)", "7 nodes each", "0 2, 1 2", "temperature 1/0.01/200"):
        assert words in text
    assert "4 graphs, a row for each class" in call("show", made, "--out", "a.png").out
    with Image.open("a.png") as picture:
        assert picture.height == 2 * 16 + 2 * 112 + 10
    artifact = GraphSetArtifact.load(made / "artifact.safetensors")
    assert "small: 4 graphs, 28 nodes" in call("export", made, "--to", "tu", "--out", "small").out
    again = tu_graphs("small")
    assert torch.equal(again.x, artifact.graphs.x)
    assert torch.equal(again.edges, artifact.graphs.edges)
    assert "exists already" in complaint("export", made, "--to", "tu", "--out", "small")
    assert "choose --to tu" in complaint("export", made, "--to", "npz", "--out", "y")


def test_what_was_exported_can_be_condensed_again(made: Path) -> None:
    call("export", made, "--to", "tu", "--out", "small")
    plain = json.loads(call("select", "small", "--coreset", "random", "--json").out)
    assert (plain["dataset"], plain["per_class"]) == ("small", [1, 1])


def test_the_named_set_is_drawn_where_its_pixels_are() -> None:
    call("select", "Digit-Graphs", "--coreset", "random", "--ipc", 11, "--out", "digits")
    assert "100 of 110 graphs" in call("show", "digits").out
    with Image.open("digits/picture.png") as picture:
        row = picture.crop((picture.width - 16 - 112, 16, picture.width - 16, 128))
    assert row.resize((3, 3), Image.Resampling.BOX).getpixel((1, 1))[0] > 230  # type: ignore[index]  # a zero's hole


def test_lists_tell_the_kind_of_data() -> None:
    text = call("methods").out
    assert all(
        words in text for words in ("Methods for sets of graphs", "doscond-graphs", "Coresets for sets of graphs")
    )
    plain = json.loads(call("methods", "--json").out)
    assert [e["name"] for e in plain["graph_set_methods"]] == list(catalog.GRAPH_SET_METHODS)
    assert [e["name"] for e in plain["graph_set_coresets"]] == list(catalog.GRAPH_SET_CORESETS)
    text = call("methods", "doscond-graphs").out
    for words in (
        "the test network",
        "as 1/0.01/200",
        "relative-squared",
        "mean or sum",
        "random, herding or k-center",
    ):
        assert words in text
    here = {d["name"]: d for d in json.loads(call("datasets", "--json").out)}
    assert (here["digit-graphs"]["kind"], here["digit-graphs"]["graphs"]) == ("graph set", 1797)
    assert "Sets of graphs" in call("datasets").out


# --- what does not go together, and bad sets


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("condense SET", "is a set of graphs and dm is for images; use condense --method doscond-graphs, or select"),
        ("condense SET --method gcond", "is a set of graphs and gcond is for graphs"),
        ("condense digits-graph --method doscond-graphs", "is a graph and doscond-graphs is for sets of graphs"),
        ("condense digits --method doscond-graphs", "digits holds images and doscond-graphs is for sets of graphs"),
        ("select SET --coreset degree", "is a set of graphs and degree is for graphs"),
        ("condense SET --method herding", "herding chooses real graphs; use: condensery select DATA --coreset herding"),
        (
            "condense SET --method doscond-graphs --nodes 3",
            "give --ipc, and the nodes of each graph with --set nodes=N",
        ),
        ("condense SET --method doscond-graphs --ratio 0.5", "--ratio is for logs and graphs; give --ipc"),
        ("condense SET --method doscond-graphs --fast", "--fast is for images; leave it out for a set of graphs"),
        ("condense SET --method doscond-graphs --net GCN", "There is no network for whole graphs 'GCN'"),
        ("condense SET --method doscond-graphs --set penalty=-1", "give at least 1 graph and a penalty"),
        ("condense SET --method doscond-graphs --set temperature=0/1/3", "does not anneal"),
        ("condense SET --method doscond-graphs --ipc 99", "Class '0' has 16 training graphs and 99 are wanted"),
        ("condense SET --method doscond-graphs --set nodes=3", "of at most 3 nodes, 1 are needed to start from"),
        ("condense SET --method doscond-graphs --ipc 1,2,3", "--ipc has 3 numbers for 2 classes"),
        ("condense SET --method doscond-graphs --ipc 0", "not all 0"),
        ("condense SET --method doscond-graphs --ipc few", "--ipc takes a whole number"),
        ("condense SET --method doscond-graphs --data-root .", "leave it out"),
        ("condense nowhere --method doscond-graphs", "There is no set of graphs 'nowhere'"),
        ("compare SET --ipc many", "--ipc takes whole numbers"),
        ("compare SET --nodes 3", "--nodes is for graphs; give --ipc"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(arguments: str, sentence: str, shapes: Path) -> None:
    words = [str(shapes) if word == "SET" else word for word in arguments.split()]
    assert sentence in complaint(*words)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("A", "1, 2\n2, 999\n", "line 2 joins nodes 2 and 999"),
        ("A", "", "is empty; get it again"),
        ("A", "1, 200\n", "drop edges between graphs"),
        ("graph_labels", "1\n2\n", "give every graph a label"),
        ("node_attributes", "1.0\n", "lines for"),
        ("node_attributes", "nonsense\n", "is no table of numbers"),
        ("graph_labels", None, "bad_graph_labels.txt is not there"),
    ],
)
def test_damaged_files_are_told_in_one_sentence(file: str, text: str | None, sentence: str) -> None:
    folder = Path("bad")
    folder.mkdir()
    write_tu(rings_and_stars(), folder, "bad")
    path = folder / f"bad_{file}.txt"
    path.unlink() if text is None else path.write_text(text)
    assert sentence in complaint("select", folder, "--coreset", "random")
    assert not Path("runs").exists()


def test_a_damaged_artifact_is_told_in_one_sentence(made: Path) -> None:
    whole = (made / "artifact.safetensors").read_bytes()
    path = Path("a.safetensors")
    path.write_bytes(whole[:-7])
    for command in (["info"], ["show"], ["export", "--to", "tu", "--out", "x"], ["evaluate"]):
        assert "a.safetensors" in complaint(command[0], path, *command[1:])
    assert {p.name for p in Path().iterdir()} <= {"a.safetensors", "cache"}
