"""Recommendation logs on the command line: every command, what it prints, and errors in one sentence."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from commands import call, complaint
from condensery import catalog, log_runs
from condensery.catalog import Kind
from condensery.cli import kinds
from condensery.data import read_log
from condensery.log_artifact import LogArtifact

pytestmark = pytest.mark.usefixtures("elsewhere")

TINY = ["--set", "proxy.epochs=2", "--set", "eval.epochs=2", "--set", "eval.dim=4"]
QUICK = [*TINY, "--set", "inner.dim=4", "--set", "threshold=3", "--set", "steps=4"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of a small log."""
    path = tmp_path_factory.mktemp("table") / "ratings.csv"
    pairs = torch.randperm(30 * 20, generator=torch.Generator().manual_seed(0))[:260].tolist()
    rows = [f"u{p // 20},{p % 20},{1 + n % 5},{n}" for n, p in enumerate(pairs)]
    path.write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    """The folder of a small finished run."""
    folder = tmp_path_factory.mktemp("made") / "run"
    call("condense", table, "--method", "dconrec", "--ratio", 0.5, *QUICK, "--set", "unseen=0.5", "--out", folder)
    return folder


# --- condense and select


def test_condense_leaves_everything_in_its_folder(table: Path, tmp_path: Path) -> None:
    done = call("condense", table, "--method", "DConRec", "--ratio", 0.5, *QUICK, "--set", "keep=top")
    folder = tmp_path / "runs" / "ratings-dconrec-ratio0.5-seed0"
    names = {"artifact.safetensors", "log.jsonl", "proxy.safetensors", "run.json", "snapshots"}
    assert {p.name for p in folder.iterdir()} == names
    artifact = LogArtifact.load(folder / "artifact.safetensors")
    assert len(artifact.log) == round(0.5 * artifact.full)
    assert f"DConRec on ratings: {len(artifact.log)} of {artifact.full} interactions" in done.out
    assert "condensery evaluate runs/ratings-dconrec-ratio0.5-seed0" in done.out
    assert "which is not the paper's (--set estimator=paper)" in done.err
    assert "by hand: proxy.epochs=2" in done.err


def test_a_quarter_is_the_default_and_json_goes_alone_to_standard_output(table: Path) -> None:
    quick = ["--set", "pseudo=0", "--set", "steps=40", "--set", "dim=4", "--budget", 0.1]
    done = call("condense", table, "--method", "doscond-rec", *quick, "--json")
    plain = json.loads(done.out)
    assert (plain["ratio"], plain["steps"], plain["dataset"]) == (0.25, 4, "ratings")
    assert "40 -> 4 steps" in done.err
    assert LogArtifact.load(plain["artifact"]).spent == plain["spent"]


@pytest.mark.parametrize("estimator", ["paper", "authors", "reinforce"])
def test_the_published_forms_say_what_they_keep(estimator: str, table: Path) -> None:
    arguments = ["--method", "dconrec", "--ratio", 0.5, *TINY, "--set", "inner.dim=4", "--set", "steps=2"]
    arguments += ["--set", f"estimator={estimator}"] + (["--set", "threshold=3"] if estimator == "reinforce" else [])
    said = call("condense", table, *arguments).err
    assert ("keeps within the budget" in said) == (estimator != "reinforce")
    assert "not the paper's" not in said


def test_select_takes_as_many_interactions_as_asked(table: Path) -> None:
    for name in catalog.LOG_CORESETS:
        more = {"svp": ["--set", "passes=1"], "proxy-best": ["--set", "proxy.epochs=2"]}.get(name, [])
        plain = json.loads(call("select", table, "--coreset", name, "--ratio", 0.3, *more, "--json").out)
        artifact = LogArtifact.load(plain["artifact"])
        assert len(artifact.log) == round(0.3 * artifact.full)
        recorded = name != "proxy-best"
        assert (artifact.indices is not None) == recorded
        assert (artifact.pseudo == 0) == recorded
    assert "holds a set already" in complaint("select", table, "--coreset", "random", "--ratio", 0.3)


def test_ctrl_c_says_how_to_go_on(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["condense", str(table), "--method", "dconrec", "--ratio", "0.5", *QUICK]
    call(*command, "--out", "whole")
    advance = log_runs.advance

    def stopped(*arguments: object) -> object:
        for progress in advance(*arguments):  # type: ignore[arg-type]
            if progress.step == 3:
                raise KeyboardInterrupt
            yield progress

    command += ["--out", "b", "--snapshot-every", "1"]
    monkeypatch.setattr(sys, "argv", ["condensery", *command])
    monkeypatch.setattr(log_runs, "advance", stopped)
    assert "--out b --snapshot-every 1 --resume" in call(*command, code=130).err
    assert not Path("b/artifact.safetensors").exists()
    monkeypatch.setattr(log_runs, "advance", advance)
    call(*command, "--resume")
    found, expected = (LogArtifact.load(f"{name}/artifact.safetensors") for name in ("b", "whole"))
    assert torch.equal(found.log.keys, expected.log.keys)
    before = Path("b/artifact.safetensors").read_bytes()
    assert "finished already" in call(*command, "--resume").err
    assert Path("b/artifact.safetensors").read_bytes() == before


def test_ctrl_c_while_the_proxy_trains(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    command = ["condense", str(table), "--method", "dconrec", "--ratio", "0.5", *QUICK, "--out", "c"]
    monkeypatch.setattr(sys, "argv", ["condensery", *command])
    with monkeypatch.context() as patch:
        patch.setattr(log_runs.bpr, "fit", stopped)
        assert "--out c --resume" in call(*command, code=130).err
    assert {p.name for p in Path("c").iterdir()} == {"run.json"}
    call(*command, "--resume")
    assert Path("c/artifact.safetensors").is_file()


def test_reading_is_set_by_names(table: Path) -> None:
    settings = ["min_rating=2", "core=3", "split=leave-one-out", "pseudo=0", "begin=even", "steps=1", "inner.dim=4"]
    words = [word for setting in settings for word in ("--set", setting)]
    plain = json.loads(call("condense", table, "--method", "dconrec", "--ratio", 0.5, *words, *TINY, "--json").out)
    artifact = LogArtifact.load(plain["artifact"])
    assert (artifact.split["split"], artifact.split["by_time"]) == ("leave-one-out", True)
    assert artifact.provenance["data"]["min_rating"] == 2
    assert artifact.full < 260 * 4 // 5
    assert plain["proxy"] == {}


# --- evaluate and compare


def test_evaluate_shows_random_rows_of_the_realised_size_and_the_full_log(made: Path) -> None:
    artifact = LogArtifact.load(made / "artifact.safetensors")
    plain = json.loads(call("evaluate", made, "--n", 2, "--net", "MF,LightGCN:layers=1", "--json", "--save").out)
    rows = plain["rows"]
    names = ["DConRec", "random", "full log"]
    assert [(r["name"], r["model"]) for r in rows] == [(n, m) for m in ("MF", "LightGCN") for n in names]
    assert [r["size"]["interactions"] for r in rows[:3]] == [len(artifact.log), len(artifact.log), artifact.full]
    assert all(len(r["scores"][k]) == 2 for r in rows for k in ("recall@5", "ndcg@5", "recall@10", "ndcg@10"))
    full = rows[2]
    assert full["recovery"]["ndcg@10"] == 1.0
    expected = sum(rows[0]["scores"]["ndcg@10"]) / sum(full["scores"]["ndcg@10"])
    assert rows[0]["recovery"]["ndcg@10"] == pytest.approx(expected)
    told = call("info", made).out
    assert "LightGCN" in told
    assert "never recorded" in told


def test_evaluate_prints_a_table(made: Path, table: Path) -> None:
    text = call("evaluate", made, "--n", 1, "--no-full", "--epochs", 1, "--data", table).out
    assert all(words in text for words in ("Recall@5", "NDCG@10", "random", "at most 1 pass,"))
    assert "│ full log" not in text
    assert "give with --data the log that it was made from" in complaint("evaluate", made, "--data", "generated-log")


def test_compare_goes_on_where_it_was(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        "compare",
        table,
        "--methods",
        "dconrec,svp",
        "--ratio",
        "0.5,0.6",
        *QUICK,
        "--set",
        "passes=1",
        "--n",
        1,
    ]
    rows = json.loads(call(*command, "--json").out)["rows"]
    assert [(r["name"], r["ratio"]) for r in rows if r["name"] != "random"] == [
        *((name, ratio) for ratio in (0.5, 0.6) for name in ("DConRec", "SVP-CF")),
        ("full log", 1.0),
    ]
    realised = {r["size"]["interactions"] for r in rows if r["name"] in ("DConRec", "SVP-CF")}
    assert {r["size"]["interactions"] for r in rows if r["name"] == "random"} <= realised
    monkeypatch.setattr(log_runs, "trained_on", lambda *_, **__: pytest.fail("a row was scored twice"))
    text = call(*command).out
    assert "DConRec" in text
    assert "60 %" in text
    changed = [*command, "--seed", 1, "--out", "runs/compare-ratings-seed0"]
    assert "not 1; resume it with the same settings" in complaint(*changed)


# --- the guide


def test_every_command_of_the_guide_runs() -> None:
    """The page's commands in order, with fewer steps, after the block that writes its table."""
    page = (Path(__file__).parent.parent / "docs" / "recommendation.md").read_text()
    exec(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0], {})
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    short = ["--set", "eval.epochs=1", "--set", "proxy.epochs=1", "--set", "steps=2"]
    more = {"condense": short, "compare": [*short, "--set", "passes=1"], "evaluate": ["--epochs", "1"]}
    lines = [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line.strip()]
    for command, *arguments in lines:
        call(command, *arguments, *more.get(command, []), *(["--n", 1] if command in ("evaluate", "compare") else []))
    assert {command for command, *_ in lines} == {
        "condense",
        "select",
        "evaluate",
        "compare",
        "info",
        "methods",
        "export",
    }


# --- looking and exporting


def test_info_and_export(made: Path) -> None:
    facts = json.loads(call("info", made, "--json").out)
    assert (facts["method"], facts["ratio"], facts["form"]) == ("DConRec", 0.5, "top")
    text = call("info", made).out
    for words in ("reading", "proxy trained", "estimator first-order", "stopped early"):
        assert words in text
    artifact = LogArtifact.load(made / "artifact.safetensors")
    for form in ("csv", "parquet", "inter"):
        call("export", made / "artifact.safetensors", "--to", form, "--out", f"x.{form}")
        found = read_log(f"x.{form}")
        assert len(found) == len(artifact.log)
        assert set(found.user_ids) <= set(artifact.log.user_ids)
    assert "exists already" in complaint("export", made, "--to", "csv", "--out", "x.csv")
    assert "choose --to csv, parquet or inter" in complaint("export", made, "--to", "hub", "--out", "y")
    assert "there is no picture; print it with condensery info" in complaint("show", made)


def test_lists_tell_the_kind_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = call("methods").out
    assert all(words in text for words in ("recommendation logs", "dconrec", "doscond-rec", "majority", "svp"))
    plain = json.loads(call("methods", "--json").out)
    assert [e["name"] for e in plain["log_methods"]] == list(catalog.LOG_METHODS)
    assert [e["name"] for e in plain["log_coresets"]] == list(catalog.LOG_CORESETS)
    text = call("methods", "dconrec").out
    for words in ("the pool", "estimator", "first-order, reinforce, paper or authors", "min_rating", "inner.lr"):
        assert words in text
    settings = json.loads(call("methods", "svp", "--json").out)["settings"]
    assert {"name": "level", "default": "interaction", "takes": "interaction or user"} in settings
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").touch()
    monkeypatch.setenv("CONDENSERY_DATA", str(tmp_path))
    here = {d["name"]: d for d in json.loads(call("datasets", "--json").out)}
    assert here["movielens-100k"]["here"] == str(tmp_path / "ml-100k")
    assert (here["generated-log"]["kind"], here["digits"]["kind"]) == ("log", "images")
    assert "Recommendation logs" in call("datasets").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("condense generated-log", "use condense --method dconrec"),
        ("condense TABLE --method dm", "is a recommendation log and dm is for images"),
        ("select generated-log", "select --coreset random, majority, svp or proxy-best"),
        ("compare generated-log --methods dm,dconrec", "and dm is for images"),
        (
            "condense digits --method dconrec",
            "digits holds images and dconrec is for recommendation logs; use condense",
        ),
        ("condense . --method dconrec", "holds images"),
        ("compare digits --methods svp", "or select --coreset uniform, herding, k-center"),
        ("condense digits --ratio 0.5", "give images per class with --ipc"),
        ("compare digits --ratio 0.5", "give images per class with --ipc"),
        (
            "condense generated-log --method dconrec --ipc 3",
            "--ipc is for images and sets of graphs; give --ratio for a log",
        ),
        ("condense generated-log --method dconrec --fast", "--fast is for images; leave it out"),
        ("condense TABLE --method dconrec --validation 0.2", "give --set validation=SHARE for a log"),
        ("select generated-log --coreset svp --whiten zca", "--whiten is for images"),
        ("select generated-log --coreset proxy-best --set unseen=2", "unseen is 2; give a share between 0 and 1"),
        ("compare generated-log --methods svp --jobs 2", "--jobs is for images"),
        ("evaluate MADE --robust", "--robust is for images"),
        ("evaluate MADE --nets ConvNet", "choose from MF, LightGCN"),
        ("evaluate MADE --nets MF:layers=2", "MF has no argument 'layers'; it takes dim"),
        ("evaluate MADE --nets MF:dim=0", "give numbers of at least 1"),
        ("evaluate MADE --eval-budget 0", "is no share"),
        ("condense generated-log --method random", "use: condensery select DATA --coreset random"),
        ("condense generated-log --method dconrek", "did you mean dconrec?"),
        ("condense nosuch.csv --method dconrec", "There is no log or path 'nosuch.csv'"),
        ("condense generated-log --method dconrec --ratio 0", "above 0 and at most 1, such as 0.25"),
        ("compare generated-log --ratio half", "--ratio takes numbers as 0.25,0.5"),
        ("condense generated-log --method dconrec --set treshold=3", "did you mean threshold?"),
        ("condense generated-log --method dconrec --ratio 0.01 --set threshold=4", "set a lower threshold"),
        ("condense generated-log --method dconrec --set min_rating=3", "leave min_rating out"),
        ("condense generated-log --method dconrec --data-root .", "leave the data root out"),
        ("condense TABLE --method dconrec --data-root .", "which is not; leave it out"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(arguments: str, sentence: str, table: Path, made: Path) -> None:
    words = [{"TABLE": str(table), "MADE": str(made)}.get(word, word) for word in arguments.split()]
    assert sentence.replace("which is", f"which {str(table)!r} is") in complaint(*words)


def test_a_malformed_table_names_the_setting() -> None:
    Path("bad.csv").write_text("user,item\n1,2\n3\n")
    said = complaint("condense", "bad.csv", "--method", "dconrec")
    assert "line 3" in said
    assert "--set skip_malformed=true" in said


def test_a_damaged_log_is_one_sentence(made: Path) -> None:
    whole = (made / "artifact.safetensors").read_bytes()
    damaged = bytearray(whole)
    damaged[-3] ^= 1
    Path("a.safetensors").write_bytes(damaged)
    Path("b.safetensors").write_bytes(whole[: len(whole) // 2])
    for command in ("info", "evaluate"):
        assert "does not match" in complaint(command, "a.safetensors") or "damaged" in complaint(
            command, "a.safetensors"
        )
        assert "not a readable safetensors file" in complaint(command, "b.safetensors")
    assert kinds.of_file(Path("nosuch")) is Kind.IMAGES
