"""``condensery calibrate`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import call, complaint

pytestmark = pytest.mark.usefixtures("elsewhere")

SPACE = """
[eval.lr]
float = [0.005, 0.3]
log = true

[eval.weight_decay]
float = [1e-5, 1e-2]
log = true

[net.norm]
choices = ["none", "group"]
"""
FEW = ("training_steps=4", "every=2", "repeat=2", "steps=4", "batch_train=8", "batch_real=20", "terms=2")
SHORT = [part for setting in FEW for part in ("--set", setting)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A condensed set, a space, and a validation set for them."""
    folder = tmp_path_factory.mktemp("made")
    call("select", "digits", "--coreset", "uniform", "--ipc", 2, "--set", "net.width=4", "--out", folder / "train")
    (folder / "space.toml").write_text(SPACE)
    call(*command(folder, "--out", folder / "val"))
    return folder


def command(made: Path, *more: object) -> list[object]:
    return ["calibrate", "digits", "--train", made / "train", "--space", made / "space.toml", *SHORT, *more]


def test_it_leaves_a_set_for_a_search(made: Path) -> None:
    done = call(*command(made))
    folder = Path("runs/digits-hcdc-ipc1-seed0")
    assert {p.name for p in folder.iterdir()} >= {"artifact.safetensors", "picture.png", "log.jsonl", "run.json"}
    for words in ("HCDC on digits: 10 validation images", "distance of hypergradients", "condensery search digits"):
        assert words in done.out
    assert "calibrating for eval.weight_decay, net.norm (2 networks)" in done.err
    assert "not for eval.lr" in done.err
    assert "the network of the training set" in done.err
    figures = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert {"loss", "cosine", "residual", "training_gradient"} <= set(figures)
    plain = json.loads(call("info", folder, "--json").out)
    assert plain["method"] == "HCDC"
    assert plain["network"]["width"] == 4


def test_a_search_scores_on_it_by_the_loss(made: Path) -> None:
    pytest.importorskip("optuna")
    quick = ["--trials", 2, "--confirm", 2, "--full-epochs", 1, "--budget", 0.01, "--sampler", "random"]
    where = ["--space", made / "space.toml", "--train", made / "train", "--val", made / "val"]
    plain = json.loads(call("search", "digits", *where, *quick, "--json").out)
    assert all(t["score"] < 0 for t in plain["trials"])
    coarse = json.loads(call("search", "digits", *where, *quick, "--score", "accuracy", "--json", "--out", "b").out)
    assert all(10 * t["score"] == pytest.approx(round(10 * t["score"])) for t in coarse["trials"])


def test_the_seed_decides_and_what_is_finished_stays(made: Path) -> None:
    first = json.loads(call(*command(made, "--json", "--out", "a")).out)
    again = json.loads(call(*command(made, "--json", "--out", "b")).out)
    other = json.loads(call(*command(made, "--json", "--out", "c", "--seed", 1)).out)
    assert first["loss"] == again["loss"] != other["loss"]
    assert first["next"].endswith("--val a")
    assert first["calibration"]["covers"] == ["eval.weight_decay", "net.norm"]
    assert "finished already" in call(*command(made, "--out", "a", "--resume")).err
    assert "holds a run already" in complaint(*command(made, "--out", "a"))
    assert "calibration.space" in complaint(*with_space(made, SPACE.replace("1e-2", "1e-3")), "--out", "a", "--resume")


def with_space(made: Path, text: str) -> list[object]:
    Path("other.toml").write_text(text)
    return ["calibrate", "digits", "--train", made / "train", "--space", "other.toml", *SHORT]


def test_nothing_trains_on_it(made: Path) -> None:
    words = "is a validation set of HCDC, and no network is trained on it; use it with: condensery search"
    assert words in complaint("evaluate", made / "val")
    assert words in complaint("search", "digits", "--space", made / "space.toml", "--train", made / "val")
    assert words in complaint("calibrate", "digits", "--space", made / "space.toml", "--train", made / "val")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["condense", "digits", "--method", "hcdc"], "use: condensery calibrate DATA --train SET --space FILE"),
        (["compare", "digits", "--methods", "dm,hcdc"], "use: condensery calibrate"),
        (["select", "digits", "--coreset", "HCDC"], "use: condensery calibrate"),
    ],
)
def test_other_commands_point_to_it(arguments: list[object], words: str) -> None:
    assert words in complaint(*arguments)


def test_mistakes_are_one_sentence(made: Path) -> None:
    assert "leave eval.lr out" in complaint(*command(made, "--set", "eval.lr=1"))
    assert "leave whiten out" in complaint(*command(made, "--set", "whiten=zca"))
    assert "hcdc has no setting 'repeats' (did you mean repeat?)" in complaint(*command(made, "--set", "repeats=1"))
    assert "every is 0; give 1 or more" in complaint(*command(made, "--set", "every=0"))
    assert "search one of these as well" in complaint(*with_space(made, "[eval.lr]\nfloat = [0.1, 1.0]\n"))
    assert "'calibrate' is for images" in complaint("calibrate", "cora", *command(made)[2:])
    assert not Path("runs").exists()


def test_it_is_listed() -> None:
    assert "hcdc" in call("methods").out
    plain = json.loads(call("methods", "hcdc", "--json").out)
    assert {"training_steps", "distance", "teacher"} <= {s["name"] for s in plain["settings"]}
    assert [e["name"] for e in json.loads(call("methods", "--json").out)["calibrations"]] == ["hcdc"]
