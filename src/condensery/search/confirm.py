"""The best configurations of a search, trained on real data; the winner is tested, once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from condensery.evaluate.agreement import Agreement, agreement
from condensery.evaluate.score import Score
from condensery.search.grounds import Fitted
from condensery.search.settings import Config
from condensery.search.trials import Trial, key
from condensery.store import write_text

Fit = Callable[[Config, int], Fitted]
"""Trains a network on real data by a configuration and a seed, to be tested later or never."""


@dataclass(frozen=True)
class Confirmed:
    """A configuration trained on real data.

    Attributes:
        config: The configuration.
        searched: Its score in the search.
        validation: Real validation accuracy, one for each network.
        test: Real test accuracy of the same networks; ``None`` but for the winner.
        seconds: Time to train and validate, all networks.
        cpu: CPU time of that.
    """

    config: Config
    searched: float
    validation: Score
    test: Score | None = None
    seconds: float = 0.0
    cpu: float = 0.0


def confirm(chosen: Sequence[Trial], fit: Fit, seeds: Sequence[int], *, log: Path | None = None) -> Iterator[Confirmed]:
    """Train each of the chosen configurations on real data, then test the one that validates best.

    The winner is chosen on real validation, among equal ones by the score of the search. Only its networks read the
    test set, each once, and that is the last thing that happens.

    Args:
        chosen: The best trials of a search.
        fit: Trains on real data.
        seeds: One for each network; other ones than those of the search, for a search on real data.
        log: A file that keeps what was done: what is in it is not done again.

    Yields:
        Each configuration as it is validated, then the winner once more, with its test accuracy.

    Raises:
        ValueError: If nothing was chosen, there is no seed, the log is of other seeds, or another configuration of the
            log has been tested before: the test set would choose between two.
    """
    if not chosen or not seeds:
        raise ValueError("There is nothing to train on real data; give at least one trial with a score, and a seed.")
    known = _read(log)
    networks: dict[str, list[Fitted]] = {}
    done: list[Confirmed] = []
    for trial in chosen:
        found = known.get(key(trial.config))
        if found is None:
            found, networks[key(trial.config)] = _trained(trial, fit, seeds)
        elif found.validation.n != len(seeds):
            raise ValueError(
                f"{log} has {found.validation.n} networks for each configuration; give as many, or a new file."
            )
        done.append(found)
        known[key(trial.config)] = found
        _write(log, known)
        yield replace(found, test=None)
    winner = max(done, key=lambda c: (c.validation.mean, c.searched))
    if any(one.test is not None for one in known.values()) and winner.test is None:
        raise ValueError(f"{log} has another winner that was tested already; search anew, with a new file.")
    if winner.test is None:
        again = networks.get(key(winner.config)) or [fit(winner.config, seed) for seed in seeds]
        tested = Score(tuple(fitted.test() for fitted in again))
        winner = replace(winner, test=tested)
        _write(log, {**known, key(winner.config): winner})
    yield winner


def among_confirmed(done: Sequence[Confirmed], generator: torch.Generator) -> Agreement | None:
    """How the search ranks the confirmed configurations, against real validation; ``None`` for fewer than three.

    They are the best of the search, so their scores are close: the agreement over all configurations is higher.
    """
    if len(done) < 3:
        return None
    cheap, real = [c.searched for c in done], [c.validation.mean for c in done]
    return agreement(cheap, real, generator, k=min(3, len(done)), draws=300)


@dataclass(frozen=True)
class Cost:
    """What a search cost, and what it would have cost on real data. Seconds of wall time.

    Attributes:
        condensing: To make the sets that it ran on.
        searching: All trials, added up.
        confirming: The best ones on real data.
        trials: How many trials.
        real_trial: One trial on real data: the mean over the confirmed networks.
    """

    condensing: float
    searching: float
    confirming: float
    trials: int
    real_trial: float

    @property
    def spent(self) -> float:
        """All of it, condensation included."""
        return self.condensing + self.searching + self.confirming

    @property
    def on_real(self) -> float:
        """The estimate of the same search on real data: as many trials, each as long as the confirmed ones were."""
        return self.trials * self.real_trial

    @property
    def searches_to_pay(self) -> float | None:
        """After how many such searches condensing has paid for itself; ``None`` if it never does."""
        saved = self.on_real - self.searching - self.confirming
        return self.condensing / saved if saved > 0 else None

    def to_json(self) -> dict[str, float | int | None]:
        """Plain data."""
        return {
            **asdict(self),
            "spent": self.spent,
            "on_real": self.on_real,
            "searches_to_pay": self.searches_to_pay,
        }


def _trained(trial: Trial, fit: Fit, seeds: Sequence[int]) -> tuple[Confirmed, list[Fitted]]:
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = [fit(trial.config, seed) for seed in seeds]
    times = time.perf_counter() - wall, time.process_time() - cpu
    score = Score(tuple(f.validation for f in fitted))
    return Confirmed(trial.config, float(trial.score or 0.0), score, None, *times), fitted


def _read(log: Path | None) -> dict[str, Confirmed]:
    if log is None or not log.is_file():
        return {}
    try:
        found = [_confirmed(plain) for plain in json.loads(log.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{log} is damaged; remove it to train the best configurations again.") from None
    return {key(one.config): one for one in found}


def _confirmed(plain: dict[str, Any]) -> Confirmed:
    test = plain["test"]
    return Confirmed(
        dict(plain["config"]),
        float(plain["searched"]),
        Score(tuple(float(v) for v in plain["validation"])),
        None if test is None else Score(tuple(float(v) for v in test)),
        float(plain["seconds"]),
        float(plain["cpu"]),
    )


def to_json(one: Confirmed) -> dict[str, Any]:
    """Plain data."""
    test = None if one.test is None else list(one.test.values)
    return {**vars(one), "validation": list(one.validation.values), "test": test}


def _write(log: Path | None, known: dict[str, Confirmed]) -> None:
    if log is not None:
        write_text(log, json.dumps([to_json(one) for one in known.values()], indent=1) + "\n")
