"""The command line as the tests call it."""

from __future__ import annotations

from types import SimpleNamespace

from typer.testing import CliRunner

from condensery.cli import app


def call(*arguments: object, code: int = 0) -> SimpleNamespace:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return SimpleNamespace(out=result.stdout, err=result.stderr)


def complaint(*arguments: object) -> str:
    """The one line that a command complains in."""
    lines = [line for line in call(*arguments, code=2).err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]
