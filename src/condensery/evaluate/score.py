"""Scores: what was measured, how often, and how it was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Score:
    """A quantity measured on several independently trained networks.

    Example:
        >>> str(Score((0.5, 0.52, 0.54)))
        '52.0 ± 2.0 (n=3)'
    """

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Networks."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean, or NaN if nothing was measured."""
        return math.fsum(self.values) / self.n if self.values else math.nan

    @property
    def std(self) -> float:
        """The sample standard deviation (n - 1), NaN for a single network."""
        if self.n < 2:
            return math.nan
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values) / (self.n - 1))

    def __str__(self) -> str:
        spread = "" if math.isnan(self.std) else f" ± {100 * self.std:.1f}"
        return f"{100 * self.mean:.1f}{spread} (n={self.n})"


@dataclass(frozen=True)
class Row:
    """One set, one network: a line of a table.

    Attributes:
        name: What was trained on.
        network: The network.
        last: Test accuracy of the last iterate.
        chosen: Test accuracy of the pass with the best validation accuracy (the same networks); ``None`` if not
            asked for.
        size: What the set really costs, or the number of images.
        seconds: Time to train and test, all networks, seconds.
        images_per_second: Training speed of one network.
    """

    name: str
    network: str
    last: Score
    chosen: Score | None = None
    size: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    images_per_second: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {**asdict(self), "size": dict(self.size)}
        for key in ("last", "chosen"):
            score = getattr(self, key)
            plain[key] = None if score is None else _score_json(score)
        return plain


@dataclass(frozen=True)
class Scores:
    """The table of an evaluation.

    Attributes:
        rows: The set's rows, one a network; then the baselines.
        dataset: The data that was tested on.
        full: What the rows are called that were trained on all of it.
    """

    rows: tuple[Row, ...]
    dataset: str
    full: str = "full data"

    def recovery(self, row: Row) -> float | None:
        """Share of the full data's accuracy that `row` reaches with the same network; ``None`` without such a row."""
        full = [r for r in self.rows if r.name == self.full and r.network == row.network]
        return row.last.mean / full[0].last.mean if full else None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{**row.to_json(), "recovery": self.recovery(row)} for row in self.rows]
        return {"dataset": self.dataset, "rows": rows}


def merged(rows: Sequence[Row]) -> Row:
    """Rows of the same set and network with different trials as one.

    Sizes are those of the first row, lists one after the other, and the mean where a number varies.

    Args:
        rows: At least one; all or none have chosen scores.
    """
    first, trials = rows[0], sum(row.last.n for row in rows)
    chosen = [row.chosen for row in rows if row.chosen is not None]
    size = {key: _together([row.size[key] for row in rows]) for key in first.size}
    return replace(
        first,
        last=Score(tuple(v for row in rows for v in row.last.values)),
        chosen=Score(tuple(v for score in chosen for v in score.values)) if len(chosen) == len(rows) else None,
        size=size,
        seconds=sum(row.seconds for row in rows),
        images_per_second=sum(row.last.n * row.images_per_second for row in rows) / trials,
    )


def _together(values: list[Any]) -> Any:
    if isinstance(values[0], list):
        return [item for value in values for item in value]
    if isinstance(values[0], str) or all(value == values[0] for value in values):
        return values[0]
    return sum(values) / len(values)


FULL = Scores.full
RANDOM = "random subset"


def _score_json(score: Score) -> dict[str, Any]:
    std = None if math.isnan(score.std) else score.std
    return {"mean": score.mean, "std": std, "n": score.n, "values": list(score.values)}
