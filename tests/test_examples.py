"""Every example runs, briefly, and says something."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
BRIEFLY: dict[str, list[str]] = {
    "digits_picture": ["2", "digits.png"],
    "quickstart": ["2"],
    "own_loop": ["10", "snapshots"],
    "own_objective": ["2"],
    "coreset": ["2"],
    "evaluate_cross_architecture": ["2", "1"],
}


def test_every_example_is_listed() -> None:
    assert sorted(BRIEFLY) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(BRIEFLY))
def test_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *BRIEFLY[name]])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", sorted(BRIEFLY))
def test_it_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 45
