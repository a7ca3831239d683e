"""``--fast``: compiled code and bfloat16, asked for by one word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from condensery import recipes, runs
from condensery.cli import app
from condensery.cli.cells import applicable
from condensery.cli.condense import quick
from condensery.cli.evaluate import make_protocol


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever these tests run on."""
    monkeypatch.setattr(runs, "has_bfloat16", lambda _device: True)


def test_is_two_settings_that_the_users_own_override() -> None:
    assert quick(False) == []
    assert quick(True) == ["precision=bf16", "compiled=true"]
    plan = recipes.load("dm", "digits", 1, overrides=[*quick(True), "precision=none"])
    assert plan.options["compiled"] is True
    assert plan.options["precision"] is None


def test_frepo_has_them() -> None:
    options = recipes.load("frepo", "digits", 1, overrides=quick(True)).options
    assert options["compiled"] is True
    assert options["precision"] == "bf16"


def test_what_compiles_nothing_needs_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    words = ["condense", "digits", "--method", "rcig", "--fast", "--set", "solver=cg", "--set", "steps=1"]
    settings = ["--set", "batch_real=16", "--width", "8", "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(app, [*words, *settings])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "x" / "run.json").read_text())["plan"]["options"]["precision"] == "bf16"


@pytest.mark.parametrize(
    ("method", "said", "options"),
    [("dm", "--fast compiles only.", (None, True)), ("rcig", "--fast changes nothing here.", (None, None))],
)
def test_a_processor_without_bfloat16_keeps_its_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str, said: str, options: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(runs, "has_bfloat16", lambda _device: False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(runs, "advance", lambda *_: iter(()))
    monkeypatch.setattr(runs, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    words = ["condense", "digits", "--method", method, "--fast", "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(app, words)
    assert said in " ".join(result.output.split())
    found = json.loads((tmp_path / "x" / "run.json").read_text())["plan"]["options"]
    assert (found.get("precision"), found.get("compiled")) == options


def test_evaluation_without_bfloat16_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "has_bfloat16", lambda _device: False)
    protocol = make_protocol(1, 0, 1, 0, full=False, full_epochs=1, faster=quick(True))
    assert (protocol.trials.execution.autocast, protocol.trials.execution.compiled) == (None, True)
    monkeypatch.setattr(runs, "has_bfloat16", lambda _device: True)
    protocol = make_protocol(1, 0, 1, 0, full=False, full_epochs=1, faster=quick(True))
    assert (protocol.trials.execution.autocast, protocol.trials.execution.compiled) == (torch.bfloat16, True)


def test_coresets_do_without_them() -> None:
    settings = [*quick(True), "embedding=pixels"]
    suited = applicable(["dm", "herding"], [*settings, "steps=3"], recipes.names, optional=quick(True))
    assert suited["herding"] == ["embedding=pixels"]
    assert suited["dm"] == [*quick(True), "steps=3"]
    assert applicable(["herding"], quick(True), recipes.names, optional=quick(True)) == {"herding": []}


def test_no_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    result = CliRunner().invoke(app, ["condense", "digits", "--fast", "--out", str(tmp_path / "x")])
    assert result.exit_code == 2
    assert "install g++ or leave --fast out" in " ".join(result.output.split())
    assert not (tmp_path / "x").exists()


def test_is_refused_where_it_does_nothing(tmp_path: Path) -> None:
    words = ["condense", "digits", "--method", "kip", "--fast", "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "--fast does nothing for kip" in " ".join(result.output.split())
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dm", "frepo", "rcig"])
def test_condenses_and_evaluates(tmp_path: Path, method: str) -> None:
    out = str(tmp_path / "run")
    words = ["condense", "digits", "--method", method, "--fast", "--set", "steps=100", "--out", out]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    words = ["evaluate", out, "--fast", "--n", "2", "--no-full", "--checks", "0", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    assert rows[0]["last"]["mean"] > 0.8
