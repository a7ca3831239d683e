"""Whether cheap scores of configurations rank them as dear ones do: condensed against real validation, for instance.

All functions take two sequences over the same configurations, larger being better: `cheap`, what a search would see,
and `real`, what counts. Equal cheap scores are common, for few examples make few accuracies; whatever depends on which
of them comes first is averaged over all orders, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "Agreement",
    "Interval",
    "agreement",
    "bootstrap",
    "kendall",
    "precision_at",
    "regret",
    "selected",
    "spearman",
    "split",
]

Vector = NDArray[np.float64]
Statistic = Callable[[Vector, Vector], float]


@dataclass(frozen=True)
class Interval:
    """A statistic and its bootstrap interval.

    Attributes:
        value: Of the configurations as they are.
        low: Lower end.
        high: Upper end.

    Example:
        >>> str(Interval(0.8, 0.6, 0.9))
        '0.80 [0.60, 0.90]'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def to_json(self) -> dict[str, float | None]:
        """Plain data; what is not a number is ``None``."""
        plain = {"value": self.value, "low": self.low, "high": self.high}
        return {key: None if math.isnan(v) else v for key, v in plain.items()}


@dataclass(frozen=True)
class Agreement:
    """How far cheap scores rank configurations as the real ones do.

    Attributes:
        n: Configurations.
        k: Of `precision`, and of `regret`'s second value.
        spearman: Rank correlation.
        kendall: Rank correlation, tau-b.
        selected: Real score of the configuration with the best cheap score.
        optimum: The best real score.
        regret: What is lost by taking the best of the cheap scores: ``optimum - selected``.
        regret_at_k: What is lost if the best k of the cheap scores are tried on real data.
        precision: Share of the real best k among the cheap best k.
    """

    n: int
    k: int
    spearman: Interval
    kendall: Interval
    selected: Interval
    optimum: float
    regret: Interval
    regret_at_k: Interval
    precision: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: value.to_json() if isinstance(value, Interval) else value for name, value in vars(self).items()}


def spearman(cheap: Sequence[float], real: Sequence[float]) -> float:
    """Spearman's rank correlation: Pearson's of ranks, equal scores having their mean rank.

    NaN where all cheap or all real scores are equal: they rank nothing.

    Example:
        >>> round(spearman([1, 2, 3, 4], [10, 30, 20, 40]), 3)
        0.8
    """
    return _spearman(*_checked(cheap, real))


def kendall(cheap: Sequence[float], real: Sequence[float]) -> float:
    """Kendall's tau-b: pairs in the same order less those in opposite order, over those without ties.

    NaN where all cheap or all real scores are equal.

    Example:
        >>> round(kendall([1, 2, 3, 4], [10, 30, 20, 40]), 3)
        0.667
    """
    return _kendall(*_checked(cheap, real))


def selected(cheap: Sequence[float], real: Sequence[float], k: int = 1) -> float:
    """The best real score among the k configurations with the best cheap scores.

    Where several are equal at the border, the mean over which of them are taken.

    Args:
        cheap: What a search sees.
        real: What counts.
        k: How many are tried on real data.

    Raises:
        ValueError: If k is not one of 1 to n.

    Example:
        >>> selected([0.5, 0.9, 0.9], [3.0, 1.0, 2.0]), selected([0.5, 0.9, 0.9], [3.0, 1.0, 2.0], 2)
        (1.5, 2.0)
    """
    a, b = _checked(cheap, real)
    return _selected(a, b, _count(k, len(a)))


def regret(cheap: Sequence[float], real: Sequence[float], k: int = 1) -> float:
    """The best real score less `selected`: 0 if the best is among those that are tried."""
    return float(np.max(_checked(cheap, real)[1])) - selected(cheap, real, k)


def precision_at(cheap: Sequence[float], real: Sequence[float], k: int) -> float:
    """The share of the real best k among the cheap best k, in the mean over the orders of equal scores.

    Example:
        >>> precision_at([1, 2, 3, 4], [10, 20, 40, 30], 2), precision_at([1, 2, 3, 4], [10, 20, 40, 30], 1)
        (1.0, 0.0)
    """
    a, b = _checked(cheap, real)
    return _precision(a, b, _count(k, len(a)))


def bootstrap(
    statistic: Callable[[Sequence[float], Sequence[float]], float],
    cheap: Sequence[float],
    real: Sequence[float],
    generator: torch.Generator,
    *,
    draws: int = 1000,
    level: float = 0.95,
) -> Interval:
    """A statistic with its percentile interval over configurations drawn anew with replacement.

    It says how much the choice of configurations matters, not the noise of their scores. Draws in which the
    statistic is not defined are left out.

    Args:
        statistic: A function of this module, or any other of two sequences.
        cheap: What a search sees.
        real: What counts.
        generator: A CPU generator.
        draws: How often.
        level: Share of the draws inside.

    Raises:
        ValueError: If there is no draw, or the level is no share.
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"{draws} draws at the level {level} make no interval; give at least 1, and a share.")
    a, b = _checked(cheap, real)
    index = torch.randint(len(a), (draws, len(a)), generator=generator).numpy()
    found = np.array([statistic(a[i], b[i]) for i in index])
    found = found[~np.isnan(found)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) if len(found) else (math.nan, math.nan)
    return Interval(float(statistic(a, b)), float(low), float(high))  # type: ignore[arg-type]


def agreement(
    cheap: Sequence[float],
    real: Sequence[float],
    generator: torch.Generator,
    *,
    k: int = 5,
    draws: int = 1000,
    level: float = 0.95,
) -> Agreement:
    """All of it, with bootstrap intervals.

    A set that was condensed for some configurations has seen them: give the scores of those that it has not
    (`split`), and say which these are.

    Args:
        cheap: Scores that a search sees, ``[n]``.
        real: Scores that count, ``[n]``.
        generator: A CPU generator.
        k: How many are tried on real data; at most n.
        draws: Bootstrap draws.
        level: Of the intervals.

    Raises:
        ValueError: If the scores are not as many, or not finite, or there are fewer than two.
    """
    a, b = _checked(cheap, real)
    k = min(k, len(a))
    best = float(b.max())

    def made(statistic: Statistic) -> Interval:
        return bootstrap(statistic, a, b, generator, draws=draws, level=level)  # type: ignore[arg-type]

    return Agreement(
        n=len(a),
        k=k,
        spearman=made(_spearman),
        kendall=made(_kendall),
        selected=made(lambda x, y: _selected(x, y, 1)),
        optimum=best,
        regret=made(lambda x, y: float(y.max()) - _selected(x, y, 1)),
        regret_at_k=made(lambda x, y: float(y.max()) - _selected(x, y, k)),
        precision=made(lambda x, y: _precision(x, y, k)),
    )


def split(
    cheap: Sequence[float],
    real: Sequence[float],
    seen: Sequence[bool],
    generator: torch.Generator,
    **options: Any,
) -> Mapping[str, Agreement]:
    """The agreement on the configurations that were used while condensing, on the others, and on all.

    Args:
        cheap: Scores that a search sees.
        real: Scores that count.
        seen: Whether each configuration was used while condensing.
        generator: A CPU generator.
        options: Of `agreement`.

    Returns:
        ``"seen"``, ``"held out"`` and ``"all"``; a part with fewer than two configurations is left out.
    """
    a, b = _checked(cheap, real)
    if len(seen) != len(a):
        raise ValueError(f"{len(a)} configurations have {len(seen)} marks; give one for each.")
    marks = np.asarray(seen, dtype=bool)
    parts = {"seen": marks, "held out": ~marks, "all": np.ones(len(a), dtype=bool)}
    return {name: agreement(a[part], b[part], generator, **options) for name, part in parts.items() if part.sum() >= 2}


def _checked(cheap: Sequence[float], real: Sequence[float]) -> tuple[Vector, Vector]:
    a, b = (np.asarray(v, dtype=np.float64) for v in (cheap, real))
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"Scores of {a.shape} and {b.shape} cannot be compared; give two lists of the same length.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("Some scores are not finite; leave configurations without a score out of both lists.")
    return a, b


def _count(k: int, n: int) -> int:
    if not 1 <= k <= n:
        raise ValueError(f"The best {k} of {n} were asked for; give 1 to {n}.")
    return k


def _spearman(a: Vector, b: Vector) -> float:
    x, y = (ranks - ranks.mean() for ranks in (stats.rankdata(a), stats.rankdata(b)))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def _kendall(a: Vector, b: Vector) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(stats.kendalltau(a, b, method="asymptotic").statistic)  # the method is that of the p-value


def _chances(scores: Vector, k: int) -> tuple[Vector, float]:
    """The probability of each to be among the best k, and the score at the border."""
    border = float(np.sort(scores)[-k])
    above, equal = scores > border, scores == border
    return above + equal * ((k - above.sum()) / equal.sum()), border


def _selected(a: Vector, b: Vector, k: int) -> float:
    _, border = _chances(a, k)
    sure, tied = b[a > border], np.sort(b[a == border])
    taken, count = k - len(sure), len(tied)
    floor = float(sure.max()) if len(sure) else -math.inf
    # Of `taken` out of `count` the largest is the i-th (from 0) with probability C(i, taken - 1) / C(count, taken).
    ways = [math.comb(i, taken - 1) for i in range(count)]
    return sum(w * max(floor, float(v)) for w, v in zip(ways, tied, strict=True) if w) / math.comb(count, taken)


def _precision(a: Vector, b: Vector, k: int) -> float:
    return float(_chances(a, k)[0] @ _chances(b, k)[0]) / k
