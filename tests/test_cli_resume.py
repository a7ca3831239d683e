"""A process that is really killed, at any moment, and resumed gives the set of one that never was."""

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
from condensery.artifact import Artifact
from condensery.graph_artifact import GraphArtifact
from condensery.journal import read

COMMAND = [sys.executable, "-c", "from condensery.cli import main; main()"]
COMMAND += ["condense", "digits", "--snapshot-every", "10"]
STEPS = {"dm": 400, "dsa": 80}
SETTINGS = {"dm": ["batch_real=16"], "dsa": ["batch_real=4", "outer=7", "inner=1"]}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(condensery.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def command(method: str, folder: Path, *more: str) -> list[str]:
    settings = ["net.width=8", f"steps={STEPS[method]}", *SETTINGS[method]]
    return [*COMMAND, "--method", method, *(a for s in settings for a in ("--set", s)), "--out", str(folder), *more]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def kill_after(arguments: list[str], folder: Path, step: int, how: int) -> int:
    """Start a run and send it a signal when a snapshot of `step` or later is there; its exit code."""
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(p.stem.split("-")[1]) >= step for p in (folder / "snapshots").glob("step-*.safetensors")):
            process.send_signal(how)
            break
        time.sleep(0.002)
    return process.wait(timeout=60)


@pytest.mark.parametrize(("method", "moments"), [("dm", (30, 150)), ("dsa", (20,))])
def test_killed_and_resumed_is_the_same_bit_for_bit(method: str, moments: tuple[int, ...], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(command(method, whole)).returncode == 0
    for moment in moments:
        assert kill_after(command(method, killed, "--resume"), killed, moment, signal.SIGKILL) == -signal.SIGKILL
        assert not (killed / "artifact.safetensors").exists()
    done = run(command(method, killed, "--resume", "--json"))
    assert done.returncode == 0, done.stderr
    found, expected = (Artifact.load(folder / "artifact.safetensors") for folder in (killed, whole))
    assert torch.equal(found.images.values, expected.images.values)
    assert json.loads(done.stdout)["steps"] == STEPS[method]
    logs = [[(e.step, e.loss) for e in read(folder / "log.jsonl")] for folder in (killed, whole)]
    assert [step for step, _ in logs[0]] == list(range(1, STEPS[method] + 1))
    assert logs[0] == logs[1]


def test_a_graph_killed_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = ["steps=200", "outer=7", "inner=1", "hidden=8", "alternation=1/3"]
    words = [*COMMAND[:3], "condense", "digits-graph", "--method", "gcond", "--nodes", "20", "--snapshot-every", "10"]
    words += [word for setting in settings for word in ("--set", setting)]
    assert run([*words, "--out", str(whole)]).returncode == 0
    resumed = [*words, "--out", str(killed), "--resume"]
    assert kill_after(resumed, killed, 50, signal.SIGKILL) == -signal.SIGKILL
    assert not (killed / "artifact.safetensors").exists()
    done = run([*resumed, "--json"])
    assert done.returncode == 0, done.stderr
    found, expected = (GraphArtifact.load(folder / "artifact.safetensors").graph().x for folder in (killed, whole))
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.graph.dense(), expected.graph.dense())
    logs = [[(e.step, e.loss) for e in read(folder / "log.jsonl")] for folder in (killed, whole)]
    assert [step for step, _ in logs[0]] == list(range(1, 201))
    assert logs[0] == logs[1]


def test_an_interrupted_program_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert kill_after(command("dm", folder), folder, 30, signal.SIGINT) == 130
    assert (folder / "snapshots").is_dir()
