"""Agreement of rankings: against definitions, against SciPy, and against all orders of equal scores."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from condensery.evaluate.agreement import (
    Interval,
    agreement,
    bootstrap,
    kendall,
    precision_at,
    regret,
    selected,
    spearman,
    split,
)
from support import generator


def pairs(seed: int, n: int, levels: int) -> tuple[list[float], list[float]]:
    """Scores with ties."""
    g = np.random.default_rng(seed)
    a, b = g.integers(0, levels, (2, n))
    return a.tolist(), b.tolist()


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_correlations_are_scipys_with_ties(levels: int) -> None:
    for seed in range(5):
        a, b = pairs(seed, 12, levels)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
        assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_kendall_counts_pairs() -> None:
    a, b = pairs(3, 15, 5)
    both = [((x - y) * (u - v)) for (x, u), (y, v) in itertools.combinations(zip(a, b, strict=True), 2)]
    ties = [[x == y for x, y in itertools.combinations(v, 2)] for v in (a, b)]
    wanted = (sum(p > 0 for p in both) - sum(p < 0 for p in both)) / math.prod(math.sqrt(t.count(False)) for t in ties)
    assert kendall(a, b) == pytest.approx(wanted)


def orders(cheap: list[float]) -> list[list[int]]:
    """All orders of the configurations, best first, in which equal scores can stand."""
    best = sorted(range(len(cheap)), key=lambda i: -cheap[i])
    groups = [list(group) for _, group in itertools.groupby(best, key=lambda i: cheap[i])]
    return [list(itertools.chain(*order)) for order in itertools.product(*(itertools.permutations(g) for g in groups))]


def test_ties_are_averaged_over_all_orders() -> None:
    for seed in range(4):
        a, b = pairs(seed, 7, 3)
        for k in (1, 2, 5, 7):
            found = [max(b[i] for i in order[:k]) for order in orders(a)]
            assert selected(a, b, k) == pytest.approx(sum(found) / len(found))
            assert regret(a, b, k) == pytest.approx(max(b) - sum(found) / len(found))
            shares = [len({*x[:k]} & {*y[:k]}) / k for x in orders(a) for y in orders(b)]
            assert precision_at(a, b, k) == pytest.approx(sum(shares) / len(shares))


def test_a_perfect_and_a_reversed_ranking() -> None:
    scores = [0.1, 0.4, 0.2, 0.9, 0.5]
    for order, sign in ((1, 1), (-1, -1)):
        cheap = [order * s for s in scores]
        assert spearman(cheap, scores) == pytest.approx(sign)
        assert kendall(cheap, scores) == pytest.approx(sign)
    assert regret(scores, scores) == 0
    assert regret([-s for s in scores], scores) == pytest.approx(0.8)
    assert regret([-s for s in scores], scores, 5) == 0


def test_equal_scores_rank_nothing() -> None:
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(kendall([1, 2, 3], [0, 0, 0]))
    assert selected([1, 1, 1], [1, 2, 3]) == 2
    nothing = bootstrap(spearman, [1, 1, 1], [1, 2, 3], generator(), draws=5)
    assert all(math.isnan(v) for v in (nothing.value, nothing.low, nothing.high))
    assert nothing.to_json() == {"value": None, "low": None, "high": None}


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Spearman's correlation of normal pairs is (6 / pi) asin(rho / 2); 90 % intervals hold it mostly."""
    rho, g = 0.7, np.random.default_rng(0)
    truth = 6 / math.pi * math.asin(rho / 2)
    covered = 0
    for trial in range(50):
        x, noise = g.standard_normal((2, 60))
        y = rho * x + math.sqrt(1 - rho**2) * noise
        interval = bootstrap(spearman, x.tolist(), y.tolist(), generator(trial), draws=100, level=0.9)
        covered += interval.low <= truth <= interval.high
    assert 38 <= covered < 50  # 45 expected with a standard deviation of 2.1; percentile intervals are a little short


def test_a_bootstrap_is_its_generators() -> None:
    a, b = pairs(1, 20, 1000)
    first, again, other = (bootstrap(kendall, a, b, generator(s), draws=20) for s in (0, 0, 1))
    assert first == again != other
    assert first.low <= first.value <= first.high
    mean = bootstrap(lambda x, y: float(np.mean(x)), a, b, generator(), draws=300)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * np.std(a) / math.sqrt(20), rel=0.3)
    for wrong in ({"draws": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="make no interval"):
            bootstrap(kendall, a, b, generator(), **wrong)


def test_all_of_it() -> None:
    a, b = pairs(2, 12, 1000)
    found = agreement(a, b, generator(), k=4, draws=30)
    assert (found.n, found.k, found.optimum) == (12, 4, max(b))
    assert found.spearman.value == spearman(a, b)
    assert found.kendall.value == kendall(a, b)
    assert found.selected.value == selected(a, b) == max(b) - found.regret.value
    assert found.regret_at_k.value == regret(a, b, 4)
    assert found.precision.value == precision_at(a, b, 4)
    assert found.regret.low >= 0
    assert agreement(a[:3], b[:3], generator(), draws=3).k == 3
    assert str(Interval(0.5, -0.25, 1)) == "0.50 [-0.25, 1.00]"


def test_seen_and_held_out_configurations() -> None:
    a, b = pairs(2, 12, 1000)
    seen = [k % 3 == 0 for k in range(12)]
    found = split(a, b, seen, generator(), draws=5)
    assert {name: part.n for name, part in found.items()} == {"seen": 4, "held out": 8, "all": 12}
    assert found["held out"].spearman.value == spearman(
        [x for x, s in zip(a, seen, strict=True) if not s], [x for x, s in zip(b, seen, strict=True) if not s]
    )
    assert set(split(a, b, [True] * 11 + [False], generator(), draws=5)) == {"seen", "all"}
    with pytest.raises(ValueError, match="12 configurations have 1 marks"):
        split(a, b, [True], generator())


def test_what_cannot_be_compared_is_refused() -> None:
    for a, b, sentence in (
        ([1, 2], [1, 2, 3], "cannot be compared"),
        ([1], [1], "cannot be compared"),
        ([1, math.nan], [1, 2], "not finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            spearman(a, b)
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"best {k} of 2"):
            precision_at([1, 2], [1, 2], k)
