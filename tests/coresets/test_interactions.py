"""Selections of a log's rows: the budget is met exactly, and each prefers what its paper says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from condensery import bpr
from condensery.coresets.interactions import Level, inverse_propensity, inverted_auc, majority, random, svp
from condensery.data.generated import generated_log
from condensery.data.interactions import Log
from condensery.fitting import Adam
from condensery.nets.recommender import MF

LOG = generated_log(60, 80, mean=8, seed=3).log


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hardness(log: Log = LOG) -> Tensor:
    return torch.rand(len(log), generator=g(9), dtype=torch.float64)


def each(log: Log, budget: int, seed: int) -> dict[str, Tensor]:
    return {
        "random": random(log, budget, generator=g(seed)),
        "majority": majority(log, budget, generator=g(seed)),
        "head": majority(log, budget, generator=g(seed), head=True),
        "svp": svp(log, budget, hardness(log), generator=g(seed)),
        "svp users": svp(log, budget, hardness(log), generator=g(seed), level=Level.USER),
        "svp prop": svp(log, budget, hardness(log), generator=g(seed), propensity=True),
        "svp users prop": svp(log, budget, hardness(log), generator=g(seed), level=Level.USER, propensity=True),
    }


@settings(max_examples=25, deadline=None)
@given(budget=st.integers(0, len(LOG)), seed=st.integers(0, 9))
def test_the_budget_is_met_by_distinct_rows_and_the_generator_decides(budget: int, seed: int) -> None:
    for (name, chosen), again in zip(each(LOG, budget, seed).items(), each(LOG, budget, seed).values(), strict=True):
        assert chosen.dtype == torch.int64, name
        assert len(chosen) == len(set(chosen.tolist())) == budget, name
        assert torch.equal(chosen, again), name


def test_a_smaller_budget_selects_a_part_of_a_larger_one(untouched: None) -> None:
    few, many = each(LOG, 20, 1), each(LOG, 90, 1)
    for name, chosen in few.items():
        assert torch.equal(chosen, many[name][:20]), name


def test_majority_includes_the_most_whole_users_and_head_the_fewest() -> None:
    budget, counts = len(LOG) // 4, LOG.user_counts
    for seed in range(3):
        sets = {name: LOG.subset(index) for name, index in each(LOG, budget, seed).items()}
        users = {name: int((log.user_counts > 0).sum()) for name, log in sets.items()}
        assert users["majority"] > users["svp users"] > users["head"]
        chosen = sets["majority"].user_counts
        whole = chosen == counts
        assert int((~whole & (chosen > 0)).sum()) <= 1  # only the last user is cut
        assert int(counts[chosen > 0].max()) <= int(counts[chosen == 0].min())


def test_svp_takes_the_hardest_rows_and_users() -> None:
    importance = hardness()
    chosen = svp(LOG, 30, importance, generator=g())
    assert float(importance[chosen].min()) >= float(importance.sort(descending=True).values[29])
    means = torch.zeros(LOG.num_users, dtype=torch.float64).index_add_(0, LOG.users, importance) / LOG.user_counts
    taken = LOG.subset(svp(LOG, 30, importance, generator=g(), level=Level.USER)).user_counts > 0
    assert float(means[taken].min()) >= float(means[~taken].max())


def test_equals_take_turns_and_propensity_favours_the_rare() -> None:
    same = torch.ones(len(LOG))
    assert not torch.equal(svp(LOG, 30, same, generator=g(0)), svp(LOG, 30, same, generator=g(1)))
    rare = LOG.subset(svp(LOG, 30, same, generator=g(), level=Level.USER, propensity=True))
    assert torch.equal(rare.user_counts.nonzero(), LOG.subset(majority(LOG, 30, generator=g())).user_counts.nonzero())
    weights = inverse_propensity(torch.tensor([1, 10, 100]), 1000)
    assert weights[0] > weights[1] > weights[2] > 1


def test_what_a_proxy_never_learns_is_important() -> None:
    """Users of one half like one half of the items; a few rows cross, and a proxy ranks those low."""
    u = torch.arange(40).repeat_interleave(12)
    i = torch.stack([torch.randperm(20, generator=g(k))[:12] for k in range(40)]).flatten() + 20 * (u >= 20)
    odd = torch.arange(0, len(u), 60)
    i[odd] = (i[odd] + 20) % 40
    log = Log(u, i, np.arange(40), np.arange(40))
    model = MF(40, 40, dim=4)
    model.reset_parameters(g())
    recipe = bpr.Recipe(epochs=15, batch_size=64, optimizer=Adam(lr=0.05), penalty=None)
    draw = bpr.Negatives(log.num_items, log).draw
    found = inverted_auc(log, bpr.training(model, log, recipe, g(1)), draw, g(2), negatives=4)
    assert found.shape == (len(log),)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    usual = torch.ones(len(log), dtype=torch.bool)
    usual[odd] = False
    assert float(found[odd].mean()) > float(found[usual].mean()) + 0.25
    chosen = svp(log, len(odd), found, generator=g())
    assert len(set(chosen.tolist()) & set(odd.tolist())) >= len(odd) // 2


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    for budget in (-1, len(LOG) + 1):
        with pytest.raises(ValueError, match="ask for 0 to"):
            random(LOG, budget, generator=g())
    with pytest.raises(ValueError, match="one for each"):
        svp(LOG, 3, torch.ones(2), generator=g())
    draw = bpr.Negatives(LOG.num_items, LOG).draw
    with pytest.raises(ValueError, match="at least 1 epoch"):
        inverted_auc(LOG, [], draw, g())
    with pytest.raises(ValueError, match="at least 1"):
        inverted_auc(LOG, [], draw, g(), negatives=0)
