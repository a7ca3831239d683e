"""Trials one after the other, logged so that a search that was stopped goes on exactly where it was."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from condensery.search.grounds import Ground, Report
from condensery.search.settings import Config, Infeasible
from condensery.store import write_text

PRUNED = "pruned"
INFEASIBLE = "infeasible"
DIVERGED = "diverged"


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried.

    Attributes:
        number: In the order in which trials began.
        config: The configuration.
        score: Larger is better; ``None`` if there is none.
        why: Why there is none: `PRUNED`, `INFEASIBLE` or `DIVERGED`.
        seconds: Wall time.
        cpu: CPU time.
    """

    number: int
    config: Config
    score: float | None
    why: str = ""
    seconds: float = 0.0
    cpu: float = 0.0


class Strategy(Protocol):
    """Which configuration to try next, knowing the scores of those before."""

    def ask(self) -> Config | None:
        """The next configuration, or ``None`` if there is none left."""

    def tell(self, config: Config, score: float | None) -> None:
        """The score of the configuration that was asked for last; ``None`` if it has none."""


def explore(strategy: Strategy, ground: Ground, trials: int, *, log: Path | None = None) -> Iterator[Trial]:
    """Try one configuration after the other; the trials of the log first, without computing them again.

    A strategy that decides by its own generator alone then is in the state in which it was: the search goes on bit for
    bit.

    Args:
        strategy: Which to try, in its initial state.
        ground: What they are tried on.
        trials: How many in all.
        log: A file with a JSON line for each trial, made if it is not there.

    Yields:
        Every trial, the logged ones too.

    Raises:
        ValueError: If the log is of another search.
    """
    before = read(log) if log is not None and log.is_file() else []
    if log is not None and before:
        _trim(log, before)
    for number in range(trials):
        config = strategy.ask()
        if config is None:
            return
        if number < len(before):
            trial = before[number]
            if trial.config != config:
                raise ValueError(f"{log} is the log of another search; give another file.")
        else:
            trial = attempt(ground, config, number)
            if log is not None:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(trial)) + "\n")
        strategy.tell(config, trial.score)
        yield trial


def attempt(ground: Ground, config: Config, number: int, report: Report | None = None) -> Trial:
    """Try a configuration and take the time."""
    wall, cpu = time.perf_counter(), time.process_time()
    score: float | None = None
    why = ""
    try:
        score = float(ground(config, report))
        if not math.isfinite(score):
            score, why = None, DIVERGED
    except Infeasible:
        why = INFEASIBLE
    return Trial(number, config, score, why, time.perf_counter() - wall, time.process_time() - cpu)


def best(trials: list[Trial], k: int = 1) -> list[Trial]:
    """The k trials with the best scores, each configuration once; among equal scores the earlier first."""
    scored = sorted((t for t in trials if t.score is not None), key=lambda t: -(t.score or 0.0))
    once: dict[str, Trial] = {}
    for trial in scored:
        once.setdefault(key(trial.config), trial)
    return list(once.values())[:k]


def key(config: Config) -> str:
    """A configuration as text: the same for the same settings."""
    return json.dumps(config, sort_keys=True)


def read(path: Path) -> list[Trial]:
    """The trials of a log; what follows a line that was cut short by a crash is left out."""
    found: list[Trial] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            trial = _trial(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            break
        if trial.number != len(found):
            break
        found.append(trial)
    return found


def _trial(plain: dict[str, Any]) -> Trial:
    score = plain["score"]
    return Trial(
        int(plain["number"]),
        dict(plain["config"]),
        None if score is None else float(score),
        str(plain["why"]),
        float(plain["seconds"]),
        float(plain["cpu"]),
    )


def _trim(path: Path, trials: list[Trial]) -> None:
    """Leave only whole lines in a log, so that the next one begins a line of its own."""
    whole = "".join(json.dumps(asdict(trial)) + "\n" for trial in trials)
    if path.read_text(encoding="utf-8", errors="replace") != whole:
        write_text(path, whole)
