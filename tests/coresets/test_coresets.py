from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from condensery.coresets import (
    Similarity,
    class_counts,
    facility_location,
    forgetting,
    herding,
    k_center,
    k_means,
    top,
    uniform,
)
from condensery.coresets.facility import Coverage, lazy_greedy
from condensery.coresets.kcenter import farthest_first

ON_FEATURES = (uniform, herding, k_center, k_means, facility_location)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(n: int = 60, d: int = 4, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    y = torch.randint(classes, (n,), generator=generator)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) + 3 * y[:, None]
    return x, y


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.from_numpy(data.data), torch.from_numpy(data.target)


# What every selection promises ----------------------------------------------------------------------------


@pytest.mark.parametrize("select", ON_FEATURES)
@pytest.mark.parametrize("per_class", [1, 5, [3, 0, 7], [0, 0, 1]])
def test_distinct_of_the_right_class_and_in_class_order(select, per_class) -> None:
    x, y = toy()
    before = torch.get_rng_state()
    chosen = select(x, y, per_class, generator=seeded())
    counts = [per_class] * 3 if isinstance(per_class, int) else per_class
    assert chosen.dtype == torch.int64
    assert y[chosen].tolist() == [label for label, count in enumerate(counts) for _ in range(count)]
    assert len(chosen.unique()) == len(chosen)
    assert torch.equal(chosen, select(x, y, per_class, generator=seeded()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("select", ON_FEATURES)
def test_all_of_a_class_can_be_selected(select) -> None:
    x, y = toy(12, classes=2)
    counts = torch.bincount(y).tolist()
    assert sorted(select(x, y, counts, generator=seeded()).tolist()) == list(range(12))


@pytest.mark.parametrize("select", ON_FEATURES)
def test_copies_of_one_example_are_still_distinct(select) -> None:
    x, y = torch.ones(6, 3), torch.zeros(6, dtype=torch.long)
    assert len(select(x, y, 4, generator=seeded()).unique()) == 4


@pytest.mark.parametrize("select", [herding, k_center, facility_location, uniform])
def test_a_prefix_is_the_smaller_selection(select) -> None:
    x, y = toy()
    large, small = (select(x, y, [k, 0, 0], generator=seeded()) for k in (9, 4))
    assert torch.equal(large[:4], small)


@pytest.mark.parametrize("select", [herding, k_center, k_means, facility_location])
def test_images_are_flattened_and_any_precision_will_do(select) -> None:
    x, y = toy(d=12)
    flat = select(x, y, 3, generator=seeded())
    assert torch.equal(flat, select(x.view(-1, 3, 2, 2), y, 3, generator=seeded()))
    assert torch.equal(flat, select(x.float().requires_grad_(), y, 3, generator=seeded()))


@pytest.mark.parametrize("select", [uniform, k_center, k_means])
def test_the_generator_matters_where_something_is_random(select) -> None:
    x, y = torch.rand(100, 3, generator=seeded()), torch.zeros(100, dtype=torch.long)
    found = {tuple(select(x, y, 3, generator=seeded(seed)).tolist()) for seed in range(8)}
    assert len(found) > 1


@pytest.mark.parametrize("select", [herding, facility_location])
def test_no_generator_is_needed_where_nothing_is_random(select) -> None:
    x, y = toy()
    assert torch.equal(select(x, y, 3), select(x, y, 3, generator=seeded(5)))


# Budgets --------------------------------------------------------------------------------------------------


def test_class_counts() -> None:
    y = torch.tensor([0, 2, 2, 2, 1])
    assert class_counts(y, 1) == (1, 1, 1)
    assert class_counts(y, [1, 0, 3]) == (1, 0, 3)
    assert class_counts(y, (0, 0, 0, 0)) == (0, 0, 0, 0)
    assert class_counts(y, 0, classes=4) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("y", "per_class", "classes", "message"),
    [
        ([0, 1, 1], 2, None, "class 0 has 1 examples"),
        ([0, 2, 2], 1, None, "class 1 has 0 examples"),
        ([0, 1, 1], 1, 3, "class 2 has 0 examples"),
        ([0, 1, 1], [1, 1], 3, "one for each class"),
        ([0, 1, 2], [1, 1], None, "give 3 numbers"),
        ([0, 1], [1, -1], None, "negative"),
        ([0, -1], 1, None, "from 0"),
        ([[0, 1]], 1, None, "class indices"),
        ([0.0, 1.0], 1, None, "class indices"),
    ],
)
def test_wrong_budgets(y, per_class, classes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_counts(torch.tensor(y), per_class, classes)


def test_no_labels_at_all() -> None:
    with pytest.raises(ValueError, match="at least one"):
        class_counts(torch.empty(0, dtype=torch.long), 1)


@pytest.mark.parametrize("select", [herding, k_center, k_means, facility_location])
def test_features_must_fit_labels(select) -> None:
    x, y = toy()
    with pytest.raises(ValueError, match="one row for each"):
        select(x[1:], y, 1, generator=seeded())


@pytest.mark.parametrize("select", ON_FEATURES)
def test_a_class_with_too_few_examples(select) -> None:
    x, y = toy()
    with pytest.raises(ValueError, match="ask for at most"):
        select(x, y, 1000, generator=seeded())


# Uniform --------------------------------------------------------------------------------------------------


def test_uniform_is_uniform() -> None:
    y = torch.zeros(5, dtype=torch.long)
    generator = seeded()
    counts = torch.zeros(5)
    for _ in range(2000):
        counts[uniform(None, y, 2, generator=generator)] += 1
    torch.testing.assert_close(counts / 2000, torch.full((5,), 0.4), atol=0.05, rtol=0)


# Herding --------------------------------------------------------------------------------------------------


def herd_by_definition(x: np.ndarray, count: int) -> list[int]:
    mean, chosen = x.mean(axis=0), []
    for k in range(1, count + 1):
        distances = {
            i: np.linalg.norm(mean - (x[i] + sum(x[j] for j in chosen)) / k) for i in range(len(x)) if i not in chosen
        }
        chosen.append(min(distances, key=distances.__getitem__))
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unit_norm", [False, True])
def test_herding_by_definition(seed: int, unit_norm: bool) -> None:
    x, y = toy(seed=seed)
    chosen = herding(x, y, 8, unit_norm=unit_norm).view(3, 8)
    for label in range(3):
        members = (y == label).nonzero().flatten()
        own = functional.normalize(x[members]) if unit_norm else x[members]
        assert chosen[label].tolist() == members[herd_by_definition(own.numpy(), 8)].tolist()


def test_herding_on_unit_norm_is_welling_s_rule() -> None:
    x = functional.normalize(toy(40, classes=1)[0])
    mean, weight, chosen = x.mean(dim=0), x.mean(dim=0), []
    for _ in range(10):
        score = x @ weight
        score[chosen] = -torch.inf
        best = int(score.argmax())
        chosen.append(best)
        weight = weight + mean - x[best]
    assert herding(x, torch.zeros(40, dtype=torch.long), 10).tolist() == chosen


def test_herding_finds_the_mean_of_digits_better_than_chance() -> None:
    x, y = digits()

    def error(chosen: Tensor) -> float:
        means = torch.stack([x[chosen][y[chosen] == label].mean(dim=0) for label in range(10)])
        truth = torch.stack([x[y == label].mean(dim=0) for label in range(10)])
        return float((means - truth).square().sum())

    by_chance = min(error(uniform(x, y, 10, generator=seeded(seed))) for seed in range(10))
    assert error(herding(x, y, 10)) < 0.2 * by_chance


# k-center -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_k_center_by_definition(seed: int) -> None:
    x, y = toy(seed=seed)
    chosen = k_center(x, y, 7, generator=seeded(seed)).view(3, 7)
    for label in range(3):
        members = (y == label).nonzero().flatten().tolist()
        centres = [int(chosen[label, 0])]
        while len(centres) < 7:
            distances = {i: min(float((x[i] - x[c]).norm()) for c in centres) for i in members}
            centres.append(max(distances, key=distances.__getitem__))
        assert chosen[label].tolist() == centres


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=9), st.data())
def test_k_center_is_within_twice_the_best(points: list[tuple[int, int]], data: st.DataObject) -> None:
    x = torch.tensor(points).double()
    first = data.draw(st.integers(0, len(points) - 1))
    distances = torch.cdist(x, x)

    def radius(centres: tuple[int, ...]) -> float:
        return float(distances[:, list(centres)].amin(dim=1).max())

    best = min(radius(subset) for subset in combinations(range(len(points)), 3))
    chosen = tuple(farthest_first(x, 3, first).tolist())
    assert len(set(chosen)) == 3
    assert radius(chosen) <= 2 * best + 1e-9


def test_k_center_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = toy()
    whole = k_center(x, y, 6, generator=seeded())
    monkeypatch.setattr("condensery.coresets.kcenter._CHUNK", 5)
    assert torch.equal(whole, k_center(x, y, 6, generator=seeded()))


def test_k_center_covers_digits_better_than_chance() -> None:
    x, y = digits()

    def radius(chosen: Tensor) -> float:
        return float(torch.cdist(x, x[chosen]).amin(dim=1).max())

    by_chance = [radius(uniform(x, y, 10, generator=seeded(seed))) for seed in range(5)]
    assert radius(k_center(x, y, 10, generator=seeded())) < min(by_chance)


# k-means --------------------------------------------------------------------------------------------------


def test_k_means_finds_clear_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    sizes = (30, 10, 20)
    parts = [c + torch.randn(n, 2, generator=seeded(i)) for i, (c, n) in enumerate(zip(centres, sizes, strict=True))]
    x = torch.cat(parts)
    chosen = k_means(x, torch.zeros(60, dtype=torch.long), 3, generator=seeded())
    expected = []
    for centre, part, first in zip(centres, parts, (0, 30, 40), strict=True):
        assert (part - centre).norm(dim=1).max() < 10
        expected.append(first + int((part - part.mean(dim=0)).norm(dim=1).argmin()))
    assert chosen.tolist() == [expected[0], expected[2], expected[1]]  # the largest cluster first


def test_one_mean_is_the_example_nearest_the_class_mean() -> None:
    x, y = digits()
    chosen = k_means(x, y, 1, generator=seeded())
    assert torch.equal(chosen, herding(x, y, 1))


def test_k_means_has_a_lower_cost_on_digits_than_chance() -> None:
    x, y = digits()

    def cost(chosen: Tensor) -> float:
        return float(torch.cdist(x, x[chosen]).amin(dim=1).square().sum())

    by_chance = [cost(uniform(x, y, 5, generator=seeded(seed))) for seed in range(5)]
    assert cost(k_means(x, y, 5, generator=seeded())) < 0.9 * min(by_chance)


# Facility location ----------------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=9)


def plain_greedy(coverage: Coverage, count: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(count):
        gains = {j: coverage.gain(j) for j in range(len(coverage.rows)) if j not in chosen}
        chosen.append(max(gains, key=gains.__getitem__))
        coverage.add(chosen[-1])
    return chosen


def similarities(x: Tensor, similarity: Similarity) -> Tensor:
    if similarity is Similarity.COSINE:
        unit = functional.normalize(x)
        return (1 + unit @ unit.T) / 2
    diameter = 2 * (x - x.mean(dim=0)).norm(dim=1).max()
    return diameter - torch.stack([(x - row).norm(dim=1) for row in x])


@pytest.mark.parametrize("similarity", Similarity)
@settings(max_examples=60, deadline=None)
@given(points=POINTS)
def test_lazy_is_plain_greedy_even_with_ties(similarity: Similarity, points: list[tuple[int, int]]) -> None:
    # Whole numbers, so that copies and ties are common.
    x, y = torch.tensor(points).double(), torch.zeros(len(points), dtype=torch.long)
    for count in (1, 3, len(points)):
        expected = plain_greedy(Coverage(x, similarity), count)
        assert facility_location(x, y, count, similarity=similarity).tolist() == expected


@pytest.mark.parametrize("similarity", Similarity)
@settings(max_examples=60, deadline=None)
@given(points=POINTS)
def test_greedy_reaches_its_share_of_the_best(similarity: Similarity, points: list[tuple[int, int]]) -> None:
    x, y = torch.tensor(points).double(), torch.zeros(len(points), dtype=torch.long)
    between = similarities(x, similarity)
    assert between.min() >= -1e-9

    def value(subset: tuple[int, ...]) -> float:
        return float(between[:, list(subset)].amax(dim=1).sum())

    best = max(value(subset) for subset in combinations(range(len(points)), 3))
    greedy = value(tuple(facility_location(x, y, 3, similarity=similarity).tolist()))
    assert greedy >= (1 - 1 / np.e) * best - 1e-9


@pytest.mark.parametrize("similarity", Similarity)
def test_facility_location_by_definition(similarity: Similarity) -> None:
    x, y = toy(seed=3)
    chosen = facility_location(x, y, 6, similarity=similarity).view(3, 6)
    for label in range(3):
        members = (y == label).nonzero().flatten()
        between = similarities(x[members], similarity)
        picked: list[int] = []
        for _ in range(6):
            values = {
                j: float(between[:, [*picked, j]].amax(dim=1).sum()) for j in range(len(members)) if j not in picked
            }
            # Two examples that cover each other and no third tie but for rounding.
            best = max(values.values())
            picked.append(min(j for j, value in values.items() if value > best - 1e-9))
        assert chosen[label].tolist() == members[picked].tolist()


def test_lazy_evaluation_is_lazy_and_bounds_hold() -> None:
    x, y = digits()
    coverage = Coverage(x[y == 3], Similarity.EUCLIDEAN)
    bounds = coverage.bounds()
    assert all(bound >= coverage.gain(j) for j, bound in enumerate(bounds))
    asked: list[int] = []

    def gain(j: int) -> float:
        asked.append(j)
        return coverage.gain(j)

    chosen = lazy_greedy(gain, coverage.add, bounds, 10)
    assert chosen == plain_greedy(Coverage(x[y == 3], Similarity.EUCLIDEAN), 10)
    assert len(asked) < 0.5 * 10 * len(bounds)


def test_large_classes_keep_only_the_columns_they_used(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = toy(200, classes=1)
    whole = facility_location(x, y, 9)
    monkeypatch.setattr("condensery.coresets.facility._KEPT", 100)
    monkeypatch.setattr("condensery.coresets.facility._BLOCK", 64)
    assert torch.equal(whole, facility_location(x, y, 9))


# Scores ---------------------------------------------------------------------------------------------------


def test_top_breaks_ties_by_index() -> None:
    y = torch.tensor([1, 0, 1, 0, 1, 0])
    scores = torch.tensor([2.0, 1.0, 2.0, torch.inf, 5.0, 1.0])
    assert top(scores, y, 2).tolist() == [3, 1, 4, 0]
    assert top(scores, y, [3, 1]).tolist() == [3, 1, 5, 4]
    assert top(-scores, y, 1).tolist() == [1, 0]
    assert top(torch.tensor([1, 3, 2]), torch.zeros(3, dtype=torch.long), 2).tolist() == [1, 2]


def test_top_refuses_what_cannot_be_ranked() -> None:
    y = torch.tensor([0, 0])
    with pytest.raises(ValueError, match="NaN"):
        top(torch.tensor([1.0, torch.nan]), y, 1)
    with pytest.raises(ValueError, match="one number"):
        top(torch.zeros(2, 3), y, 1)


def test_the_never_learned_count_as_forgotten_for_ever() -> None:
    record = torch.tensor(
        [
            [1, 1, 0, 0, 0],
            [1, 0, 0, 1, 0],
            [1, 1, 0, 0, 1],
            [1, 0, 0, 1, 1],
        ]
    ).bool()
    y = torch.zeros(5, dtype=torch.long)
    # Events: 0, 2, never learned, 1, 0.
    assert forgetting(record, y, 5).tolist() == [2, 1, 3, 0, 4]
