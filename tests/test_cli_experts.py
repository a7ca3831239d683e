"""Experts on the command line: recorded, stopped and gone on with, looked at, convexified, and matched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import condensery
from commands import call, complaint
from condensery import experts
from condensery.artifact import Artifact

pytestmark = pytest.mark.usefixtures("elsewhere")

SMALL = ["net.width=4", "inner_steps=2", "max_start=2", "expert_epochs=1", "eval.epochs=3"]
TINY = [word for setting in SMALL for word in ("--set", setting)]
RECORD = ["experts", "digits", *TINY, "--count", "2"]
CONDENSE = ["condense", "digits", *TINY, "--set", "experts.count=2", "--set", "steps=2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two full experts of two epochs."""
    folder = tmp_path_factory.mktemp("store") / "experts"
    call(*RECORD, "--out", folder)
    return folder


def test_experts_are_recorded_where_condense_looks_for_them() -> None:
    missing = complaint(*CONDENSE, "--method", "mtt")
    assert "there are none in runs/experts/digits-ConvNet4-sgd-" in missing
    command = "condensery experts digits --method mtt --ipc 1 --set net.width=4 --set max_start=2"
    assert f"record them with: {command} --set expert_epochs=1 --set experts.count=2" in missing
    said = missing.partition("record them with: condensery ")[2].split()
    done = call(*said)
    assert "2 experts of" in done.out
    assert "2 epochs: " in done.out
    (folder,) = Path("runs/experts").iterdir()
    assert f"condensery info {folder}" in done.out
    again = call(*RECORD)
    assert again.out.splitlines()[:2] == done.out.splitlines()[:2]
    made = call(*CONDENSE, "--method", "mtt")
    assert f"2 experts from {folder}" in made.err
    artifact = Artifact.load("runs/digits-mtt-ipc1-seed0/artifact.safetensors")
    assert artifact.provenance["experts"]["epochs"] == 2
    assert "2 of 2 epochs, PlainSgd" in call("info", "runs/digits-mtt-ipc1-seed0").out


def test_the_next_command_condenses_with_them() -> None:
    plain = json.loads(call(*RECORD, "--out", "mine", "--json").out)
    assert plain["next"].startswith("condensery condense digits --method mtt --ipc 1 --set net.width=4")
    assert plain["next"].endswith("--experts mine")
    call(*plain["next"].split()[1:], "--set", "steps=1", "--set", "eval.epochs=1")
    assert Artifact.load("runs/digits-mtt-ipc1-seed0/artifact.safetensors").provenance["experts"]["count"] == 2
    other = json.loads(call(*RECORD, "--seed", 1, "--json").out)
    assert other["origin"]["seed"] == 1
    assert other["next"].endswith(f"--experts {other['folder']}")


@pytest.mark.parametrize("method", ["ftd", "tesla", "datm", "mct", "satm", "satm-fi", "satm-da"])
def test_every_method_finds_its_experts(method: str) -> None:
    more = {"datm": ["first_max_start=1", "experts.epochs=3"], "mct": ["experts.epochs=4"]}
    more["satm-da"] = more["datm"]
    settings = [word for setting in more.get(method, ()) for word in ("--set", setting)]
    call(*RECORD, "--method", method, *settings)
    call(*CONDENSE, "--method", method, *settings)
    artifact = Artifact.load(f"runs/digits-{method}-ipc1-seed0/artifact.safetensors")
    assert artifact.method.lower() == method
    assert artifact.images.step_size is not None


def test_bptt_takes_the_images_themselves() -> None:
    settings = ["net.width=4", "inner_steps=2", "batch_real=8", "steps=2", "eval.epochs=1"]
    call("condense", "digits", "--method", "bptt", *[w for s in settings for w in ("--set", s)])
    assert Artifact.load("runs/digits-bptt-ipc1-seed0/artifact.safetensors").method == "BPTT"


def test_a_comparison_says_what_is_missing_and_then_runs() -> None:
    command = ["compare", "digits", "--methods", "mtt,dm", "--n", 1, "--full-epochs", 1, "--set", "batch_real=8"]
    command += [*TINY, "--set", "experts.count=2", "--set", "steps=2"]
    assert "record them with: condensery experts digits --method mtt" in complaint(*command)
    call(*RECORD)
    assert all(name in call(*command).out for name in ("MTT", "DM", "random subset"))
    assert call(*command).err.count("found finished") == 2


def test_a_store_is_described(store: Path) -> None:
    text = call("info", store).out
    for words in (
        "2 of",
        "2 epochs each",
        "full",
        "digits, 1256 training images",
        "ConvNet",
        "PlainSgd (lr 0.05",
        "DsaTrain (Colour, Crop",
    ):
        assert words in text, words
    plain = json.loads(call("info", store, "--json").out)
    assert (plain["experts"], plain["epochs"], plain["layout"]) == (2, 2, "full")
    files = sum(path.stat().st_size for path in store.glob("expert-*.safetensors"))
    assert plain["bytes"] == files


def test_a_store_becomes_a_convexified_one(tmp_path: Path) -> None:
    call("experts", "digits", *TINY, "--count", 2, "--set", "experts.epochs=8", "--out", "full")
    done = call("convexify", "full", "--out", "lines", "--interior", 1, "--beta", "uniform")
    assert "convexified (" in done.out
    assert "with every point in full precision, 2.3 times as much)" in done.out
    made = experts.open_experts("lines")
    assert isinstance(made, experts.Convexified)
    assert made.manifest.waypoints == experts.Waypoints(1, experts.Beta.UNIFORM)
    assert "waypoints" in call("info", "lines").out
    again = {path.name: path.read_bytes() for path in (tmp_path / "lines").iterdir()}
    call("convexify", "full", "--out", "lines", "--interior", 1, "--beta", "uniform")
    assert {path.name: path.read_bytes() for path in (tmp_path / "lines").iterdir()} == again
    call(*CONDENSE, "--method", "mct", "--experts", "lines")
    assert "convexified already" in complaint("convexify", "lines", "--out", "x")
    assert "recorded with waypoints" in complaint("convexify", "full", "--out", "lines", "--interior", 2)


def test_convexified_experts_are_never_full_on_disk() -> None:
    done = call(*RECORD, "--method", "mct", "--set", "experts.epochs=11", "--set", "experts.interior=0", "--json")
    plain = json.loads(done.out)
    assert plain["waypoints"]["interior"] == 0
    assert plain["bytes_in_full"] > 4 * plain["bytes"]


def test_stopping_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, **options: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["condensery", *RECORD])
    monkeypatch.setattr(experts, "record", stopped)
    said = call(*RECORD, code=130).err
    assert "stopped: experts that were done are kept in runs/experts/digits-ConvNet4-" in said
    assert "go on with: condensery experts digits --set net.width=4" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["experts", "digits", "--method", "dm"], "dm matches no experts; choose --method among mtt, ftd, tesla"),
        (["experts", "digits", "--method", "herding"], "herding matches no experts"),
        (["experts", "digits", "--method", "foo"], "There is no method 'foo'"),
        (["experts", "digits", "--set", "experts.lr=fast"], "experts.lr takes a number"),
        (["experts", "digits", "--set", "experts.epochs=1"], "give experts.epochs=6 or more"),
        (["experts", "digits", "--set", "experts.lr=-1"], "give a learning rate above 0"),
        (["experts", "digits", "--set", "experts.optimizer=sam", "--set", "experts.rho=-1"], "experts.rho is -1; give"),
        (["experts", "digits", "--set", "max_start=0"], "give 0 <= min_start < max_start"),
        (["experts", "digits", "--set", "expert_epochs=0"], "expert_epochs is 0; give 1 or more"),
        (["condense", "digits", "--method", "mtt", "--set", "step_size=0"], "give a first step size above 0"),
        (["experts", "digits", "--set", "experts.lr=1e30", *TINY, "--count", "1"], "lower the learning rate"),
        (["condense", "digits", "--experts", "x"], "DM matches no experts; leave --experts out"),
        (
            ["condense", "digits", "--method", "mtt", "--experts", "x"],
            "none in x; record them with: condensery experts",
        ),
        (["convexify", "nothing", "--out", "x"], "There is no folder of experts nothing"),
    ],
)
def test_an_error_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in complaint(*arguments)


def test_experts_that_do_not_fit_are_named(store: Path) -> None:
    with_store = [*CONDENSE, "--method", "mtt", "--experts", store]
    assert "recorded with network.width 4, not 5" in complaint(*with_store, "--set", "net.width=5")
    assert "have 2 epochs, and MTT reaches epoch 4" in complaint(*with_store, "--set", "max_start=4")
    assert "recorded with optimizer.lr 0.05, not 1.0" in complaint(*RECORD, "--set", "experts.lr=1", "--out", store)
    assert "go to epoch 2, not 3" in complaint(*RECORD, "--set", "experts.epochs=3", "--out", store)
    call(*with_store, "--out", "run")
    resumed = [*CONDENSE, "--method", "mtt", "--experts", store, "--out", "run", "--resume"]
    assert "experts.count = 2, not 1" in complaint(*resumed, "--set", "experts.count=1").replace("plan.", "")


def test_fast_is_for_experts_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def noted(*arguments: object, **options: object) -> object:
        asked.append(arguments[3])
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("condensery.runs.has_bfloat16", lambda _device: True)
    monkeypatch.setattr(experts, "record", noted)
    call(*RECORD, "--fast", code=130)
    (recording,) = asked
    assert isinstance(recording, experts.Recording)
    assert (recording.precision, recording.compiled) == (torch.bfloat16, True)


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from condensery.cli import main; main()", *map(str, arguments)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(condensery.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def all_of(folder: Path) -> list[torch.Tensor]:
    """Every expert of a full store, point by point."""
    store = experts.open_experts(folder)
    assert isinstance(store, experts.Store)
    store.verify()
    return [store.trajectory(expert) for expert in range(len(store))]


def same(a: Path, b: Path) -> bool:
    one, other = all_of(a), all_of(b)
    return len(one) == len(other) and all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def run(*arguments: object) -> None:
    done = subprocess.run(program(*arguments), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def stop_after_one(folder: Path, how: signal.Signals, *arguments: object) -> tuple[int, str]:
    """Start recording and send it a signal when an expert is there; its exit code and what it said."""
    process = subprocess.Popen(program(*arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(folder.glob("expert-*.safetensors")):
            process.send_signal(how)
            break
        time.sleep(0.002)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_killed_and_run_again_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    command = ["experts", "digits", *TINY, "--count", 4, "--out"]
    code, _ = stop_after_one(tmp_path / "killed", signal.SIGKILL, *command, "killed")
    assert code == -signal.SIGKILL
    assert not (tmp_path / "killed" / "expert-00003.safetensors").exists()
    run(*command, "killed")
    call(*command, "whole")
    assert same(tmp_path / "killed", tmp_path / "whole")


def test_an_interrupted_program_says_how_to_go_on(tmp_path: Path) -> None:
    command = ["experts", "digits", *TINY, "--count", 40, "--jobs", 2, "--out", "stopped"]
    code, said = stop_after_one(tmp_path / "stopped", signal.SIGINT, *command)
    assert code == 130, said
    assert "Traceback" not in said
    assert "go on with: condensery experts digits" in " ".join(said.split())


def test_help_answers_without_torch() -> None:
    code = (
        "import sys\nfrom condensery.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'PIL', 'scipy', 'joblib', 'pooch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for command in ("experts", "convexify"):
        arguments = [sys.executable, "-c", code, command, "--help"]
        done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
