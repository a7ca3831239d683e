"""A pool with probabilities: budgets met, rows always kept in their three ways, logs with the ids of the original."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from condensery.condensed_log import Compensation, Interactions
from condensery.data.interactions import Log


def pool_of(n: int = 40, seed: int = 0) -> Log:
    g = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(120, generator=g)[:n]
    return Log(pairs // 12, pairs % 12, np.array([f"u{k}" for k in range(10)]), np.arange(100, 112))


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def first(n: int, k: int) -> Tensor:
    return torch.arange(n) < k


def test_it_starts_even_and_within_the_budget() -> None:
    kept = Interactions(pool_of(), 10.0)
    assert kept().tolist() == [0.25] * 40
    assert kept.expected_size == pytest.approx(10.0)
    assert dict(kept.named_parameters()).keys() == {"scores"}
    assert Interactions(pool_of(), 400.0)().tolist() == [1.0] * 40


@settings(max_examples=40, deadline=None)
@given(
    budget=st.floats(0, 50),
    tail=st.integers(0, 40),
    seed=st.integers(0, 50),
    compensation=st.sampled_from(list(Compensation)),
)
def test_whatever_the_step_the_budget_holds(budget: float, tail: int, seed: int, compensation: Compensation) -> None:
    if compensation is Compensation.COUNTED and tail > budget:
        budget += tail
    kept = Interactions(pool_of(), budget, always=first(40, tail), compensation=compensation)
    with torch.no_grad():
        kept.scores += torch.randn(40, generator=g(seed))
    kept.project_()
    assert ((kept.scores >= 0) & (kept.scores <= 1)).all()
    total = float(kept.scores.detach().double().sum())
    assert total <= budget + 1e-4
    top = kept.top(g(seed))
    whole = min(40, round(budget))
    if compensation is Compensation.COUNTED:
        assert len(top) == whole
        assert kept.expected_size == pytest.approx(total, abs=1e-4)
        assert kept.scores[:tail].tolist() == [1.0] * tail
    elif compensation is Compensation.ADDED:
        assert max(whole, tail) <= len(top) <= whole + tail
        assert len(top.distinct()) == len(top)
    else:
        assert len(top) == whole + tail
    everyone = set(pool_of().keys[:tail].tolist())
    assert everyone <= set(kept.sampled(g(seed)).keys.tolist())


@pytest.mark.parametrize("compensation", list(Compensation))
def test_the_expected_size_is_the_mean_of_sampled_ones(compensation: Compensation, untouched: None) -> None:
    kept = Interactions(pool_of(), 15.0, always=first(40, 8), compensation=compensation, start=torch.linspace(0, 1, 40))
    sizes = torch.tensor([float(len(kept.sampled(g(k)))) for k in range(600)])
    assert float(sizes.mean()) == pytest.approx(kept.expected_size, abs=4 * float(sizes.std()) / 600**0.5)


def test_top_takes_the_most_probable_and_keeps_the_ids() -> None:
    start = torch.zeros(40)
    start[[3, 7, 30]] = torch.tensor([0.9, 0.8, 0.7])
    kept = Interactions(pool_of(), 3.0, start=start)
    log = kept.top(g())
    assert sorted(log.keys.tolist()) == sorted(pool_of().keys[[3, 7, 30]].tolist())
    assert log.user_ids.tolist() == pool_of().user_ids.tolist()
    assert log.item_ids[log.items].tolist() == (log.items + 100).tolist()


def test_rows_outside_the_mask_get_no_gradient() -> None:
    counted = Interactions(pool_of(), 20.0, always=first(40, 5))
    assert counted.learned(torch.ones(40)).tolist() == [0.0] * 5 + [1.0] * 35
    added = Interactions(pool_of(), 20.0, always=first(40, 5), compensation=Compensation.ADDED)
    assert added.learned(torch.ones(40)).tolist() == [1.0] * 40
    assert counted.mask_budget == 15.0
    assert added.mask_budget == 20.0


def test_a_state_fits_its_pool_only() -> None:
    kept, again = Interactions(pool_of(), 9.0), Interactions(pool_of(), 9.0)
    with torch.no_grad():
        kept.scores[4] = 0.9
    again.load_state_dict(kept.state_dict())
    assert torch.equal(again.scores, kept.scores)
    for other in (Interactions(pool_of(seed=1), 9.0), Interactions(pool_of(), 8.0)):
        with pytest.raises(ValueError, match="another pool or budget"):
            other.load_state_dict(kept.state_dict())


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="give a pool that has some"):
        Interactions(pool_of().subset(torch.zeros(40, dtype=torch.bool)), 1.0)
    with pytest.raises(ValueError, match="lower the threshold of the tail"):
        Interactions(pool_of(), 3.0, always=first(40, 4))
    with pytest.raises(ValueError, match="give bool \\[40\\]"):
        Interactions(pool_of(), 3.0, pseudo=torch.zeros(39, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least 0"):
        Interactions(pool_of(), -1.0)
    with pytest.raises(ValueError, match="one number for each"):
        Interactions(pool_of(), 3.0, start=torch.zeros(3))
