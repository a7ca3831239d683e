"""Ranking against a plain reference, BPR training against autograd, early stopping, and the table of an evaluation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from condensery import bpr
from condensery.bpr import Negatives, Norms, Recipe, Squares
from condensery.data.generated import generated_log
from condensery.data.interactions import Log, LogData, split_by_user
from condensery.evaluate.topk import top_k
from condensery.fitting import Adam, Sgd
from condensery.nets.recommender import MF, LightGCN, Recommender
from condensery.ranking import Validation, quality, top_items


def log_of(pairs: list[tuple[int, int]], users: int, items: int) -> Log:
    u, i = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return Log(u, i, np.arange(users), np.arange(items))


def drawn(users: int, items: int, seed: int = 0, dim: int = 6) -> MF:
    model = MF(users, items, dim=dim)
    model.reset_parameters(torch.Generator().manual_seed(seed))
    return model


# --- ranking


def reference(scores: np.ndarray, wanted: set[tuple[int, int]], seen: set[tuple[int, int]], k: int) -> list[float]:
    """Recall, NDCG, hit and MRR at k by sorting each user's items, one at a time."""
    rows = []
    for user in range(len(scores)):
        truth = {i for u, i in wanted if u == user}
        if not truth:
            continue
        allowed = [i for i in range(scores.shape[1]) if (user, i) not in seen]
        best = sorted(allowed, key=lambda i: -scores[user, i])[:k]
        hits = [rank for rank, item in enumerate(best, 1) if item in truth]
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(truth)) + 1))
        gain = sum(1 / math.log2(rank + 1) for rank in hits)
        rows.append([len(hits) / len(truth), gain / ideal, float(bool(hits)), 1 / hits[0] if hits else 0.0])
    return np.mean(rows, axis=0).tolist()


pair_sets = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(wanted=pair_sets, seen=pair_sets, seed=st.integers(0, 99), memory=st.sampled_from([1, 100, 10**6]))
def test_the_metrics_are_those_of_plain_sorting(
    wanted: set[tuple[int, int]], seen: set[tuple[int, int]], seed: int, memory: int
) -> None:
    model = drawn(6, 9, seed)
    users, items = model.embeddings()
    scores = (users @ items.T).detach().numpy()
    ours = quality(model, log_of(sorted(wanted), 6, 9), seen=log_of(sorted(seen), 6, 9), ks=(1, 3, 20), memory=memory)
    for k in (1, 3, 20):
        expected = reference(scores, wanted, seen, k)
        np.testing.assert_allclose(
            [getattr(ours, m)[k] for m in ("recall", "ndcg", "hit", "mrr")], expected, atol=1e-12
        )
    assert ours.users == len({u for u, _ in wanted})


def test_ndcg_agrees_with_scikit_learn() -> None:
    world = generated_log(60, 50, mean=8)
    log, model = world.log, drawn(world.log.num_users, world.log.num_items, 1)
    users, items = model.embeddings()
    truth = np.zeros((log.num_users, log.num_items))
    truth[log.users, log.items] = 1
    expected = ndcg_score(truth, (users @ items.T).detach().numpy(), k=7)
    assert quality(model, log, seen=None, ks=(7,)).ndcg[7] == pytest.approx(expected, abs=1e-9)


def test_lists_leave_out_the_seen_and_come_in_bounded_blocks() -> None:
    model, seen = drawn(7, 30), log_of([(u, i) for u in range(7) for i in range(26)], 7, 30)
    blocks = list(top_items(model, torch.tensor([6, 0, 3]), 5, seen=seen, memory=2 * 30 * 4))
    assert [block.users.tolist() for block in blocks] == [[6, 0], [3]]
    for block in blocks:
        assert (block.items[:, :4] >= 26).all()
        assert torch.isinf(block.scores[:, 4]).all()
        assert (block.scores.diff() <= 0).nan_to_num().all()
    with pytest.raises(ValueError, match="at least 1"):
        next(top_items(model, torch.arange(2), 0))
    with pytest.raises(ValueError, match="not empty"):
        quality(model, seen.subset(torch.zeros(len(seen), dtype=torch.bool)), seen=None)
    with pytest.raises(ValueError, match="Depths"):
        quality(model, seen, seen=None, ks=(0,))


# --- BPR


def test_negatives_are_uniform_over_what_is_not_known(untouched: None) -> None:
    log = log_of([(0, 0), (0, 3), (1, 1)], 3, 5)
    g = torch.Generator().manual_seed(0)
    users = torch.arange(3).repeat(6000)
    items = Negatives(5, known=log).draw(users, g)
    assert not log.contains(users, items).any()
    for user, allowed in enumerate(([1, 2, 4], [0, 2, 3, 4], [0, 1, 2, 3, 4])):
        share = torch.bincount(items[users == user], minlength=5) / 6000
        torch.testing.assert_close(share[allowed], torch.full((len(allowed),), 1 / len(allowed)), atol=0.03, rtol=0)
    assert log.contains(users, Negatives(5).draw(users, g)).any()
    everything = log_of([(0, i) for i in range(3)], 1, 3)
    assert Negatives(3, everything).draw(torch.zeros(4, dtype=torch.int64), g).shape == (4,)  # and it ends


@pytest.mark.parametrize("penalty", [None, Squares(0.3), Norms(0.3)], ids=str)
def test_the_written_out_gradient_is_autograds(penalty: Squares | Norms | None) -> None:
    model = drawn(4, 6)
    model.table.grad = torch.full_like(model.table, 7.0)  # what was there must not count
    g = torch.Generator().manual_seed(1)
    triple = tuple(torch.randint(n, (30,), generator=g) for n in (4, 6, 6))
    by_hand = bpr._mf_step(model, triple, penalty)
    gradient = model.table.grad.clone()
    by_autograd = bpr._any_step(model, triple, penalty)
    torch.testing.assert_close(gradient, model.table.grad)
    torch.testing.assert_close(by_hand, by_autograd)


def test_the_mean_loss_is_that_of_its_triples(monkeypatch: pytest.MonkeyPatch) -> None:
    log, model = generated_log(30, 30).log, None
    model = drawn(log.num_users, log.num_items)
    value = bpr.mean_loss(model, log, torch.Generator().manual_seed(2))
    drawn_items = Negatives(log.num_items, log).draw(log.users, torch.Generator().manual_seed(2))
    expected = float(bpr.losses(model, log.users, log.items, drawn_items).mean().detach())
    assert value == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(bpr, "_SCORED", 7)
    assert bpr.mean_loss(model, log, torch.Generator().manual_seed(2)) == pytest.approx(expected, rel=1e-6)


def test_gradients_of_many_triples_and_what_each_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn(4, 6)
    g = torch.Generator().manual_seed(1)
    triple = tuple(torch.randint(n, (30,), generator=g) for n in (4, 6, 6))
    monkeypatch.setattr(bpr, "_SCORED", 7)
    values = bpr.losses(model, *triple)
    (gradient,) = torch.autograd.grad(values.mean(), model.table, retain_graph=True)
    torch.testing.assert_close(bpr.mean_gradient(model, *triple), gradient)
    direction = torch.randn(model.table.shape, generator=g)
    own = [torch.autograd.grad(v, model.table, retain_graph=True)[0] for v in values]
    torch.testing.assert_close(bpr.along(model, *triple, direction), torch.stack([(o * direction).sum() for o in own]))


def test_one_full_step_of_sgd_is_the_papers_inner_update() -> None:
    log = generated_log(30, 30).log
    model = drawn(log.num_users, log.num_items)
    start = model.table.detach().clone()
    recipe = Recipe(epochs=1, batch_size=None, optimizer=Sgd(lr=2.0, momentum=0, weight_decay=0), penalty=None)
    bpr.fit(model, log, recipe, torch.Generator().manual_seed(3))
    g = torch.Generator().manual_seed(3)
    order = torch.randperm(len(log), generator=g)
    users, items = log.users[order], log.items[order]
    other = drawn(log.num_users, log.num_items)
    loss = bpr.losses(other, users, items, Negatives(log.num_items, log).draw(users, g)).mean()
    (gradient,) = torch.autograd.grad(loss, other.table)
    torch.testing.assert_close(model.table.detach(), start - 2.0 * gradient)


@pytest.mark.parametrize("penalty", [None, Norms(0.1)], ids=str)
@pytest.mark.parametrize(
    "optimizer",
    [Adam(lr=0.05), Sgd(lr=2.0, momentum=0.9, weight_decay=0), Sgd(lr=2.0, momentum=0, weight_decay=0)],
    ids=str,
)
def test_the_only_pass_is_a_pass(optimizer: Adam | Sgd, penalty: Norms | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving rows from the batch on that first has them is moving the whole table at each."""
    log = generated_log(60, 80, mean=5).log
    recipe, tables = Recipe(epochs=1, batch_size=20, optimizer=optimizer, penalty=penalty), []
    for dense in (False, True):
        if dense:
            monkeypatch.setattr(bpr, "_has_one_pass", lambda model, recipe: False)
        model = drawn(log.num_users, log.num_items)
        start = model.table.detach().clone()
        trained = bpr.fit(model, log, recipe, torch.Generator().manual_seed(3))
        assert trained.triples == len(log)
        tables.append(model.table.detach())
    assert not torch.equal(tables[0], start)
    torch.testing.assert_close(tables[0], tables[1])


WORLD = generated_log(300, 120, mean=40, seed=2)
DATA = split_by_user(WORLD.log, seed=1)
RECIPE = Recipe(epochs=40, batch_size=256, optimizer=Adam(lr=0.01), penalty=Squares(0.05), patience=4)


def lightgcn(log: Log) -> Recommender:
    return LightGCN(log.num_users, log.num_items, torch.stack([log.users, log.items]), dim=16, layers=2)


def mf(log: Log) -> Recommender:
    return MF(log.num_users, log.num_items, dim=16)


@pytest.mark.parametrize("build", [mf, lightgcn])
def test_training_learns_to_rank_better_than_popularity(build: object, untouched: None) -> None:
    model = build(DATA.train)  # type: ignore[operator]
    model.reset_parameters(torch.Generator().manual_seed(0))
    watch = Validation(DATA.train, DATA.validation)
    trained = bpr.fit(model, DATA.train, RECIPE, torch.Generator().manual_seed(0), score=watch)
    popular = MF(DATA.num_users, DATA.num_items, dim=1)
    with torch.no_grad():
        popular.table[: DATA.num_users] = 1
        popular.table[DATA.num_users :, 0] = DATA.train.item_counts.float()
    baseline = quality(popular, DATA.test, seen=DATA.train).ndcg[10]
    assert quality(model, DATA.test, seen=DATA.train).ndcg[10] > 1.15 * baseline
    assert trained.triples == trained.epoch * len(DATA.train)
    assert trained.best_score == watch(model)  # the best table was put back


def test_training_is_the_same_again_for_the_same_seed() -> None:
    tables = []
    for seed in (0, 0, 1):
        model, g = mf(DATA.train), torch.Generator().manual_seed(seed)
        model.reset_parameters(g)
        bpr.fit(model, DATA.train, Recipe(epochs=2, batch_size=100), g)
        tables.append(model.table.detach().clone())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_training_stops_early_at_the_last_gain() -> None:
    given_scores = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    recipe = Recipe(epochs=50, every=2, patience=3, best=False)
    trained = bpr.fit(mf(DATA.train), DATA.train, recipe, torch.Generator(), score=lambda model: next(given_scores))
    assert (trained.epoch, trained.best_epoch, trained.best_score, trained.score) == (10, 4, 0.3, 0.25)
    none = bpr.fit(mf(DATA.train), DATA.train, Recipe(epochs=0), torch.Generator())
    assert none.epoch == 0


def test_logs_that_cannot_be_trained_on_are_refused() -> None:
    empty = DATA.train.subset(torch.zeros(len(DATA.train), dtype=torch.bool))
    for log, words in ((empty, "at least one interaction"), (log_of([(0, 0)], 1, 1), "build it for the log")):
        with pytest.raises(ValueError, match=words):
            bpr.fit(mf(DATA.train), log, RECIPE, torch.Generator())
    with pytest.raises(ValueError, match="that has some"):
        bpr.mean_loss(mf(DATA.train), empty, torch.Generator())
    with pytest.raises(ValueError, match="patience of at least 1"):
        Recipe(patience=0)


# --- the table


def test_validation_looks_at_the_same_users_each_time() -> None:
    model = mf(DATA.train)
    model.reset_parameters(torch.Generator().manual_seed(0))
    few = Validation(DATA.train, DATA.validation, at_most=20)
    assert few(model) == few(model)
    assert Validation(DATA.train, DATA.validation, at_most=10**6)(model) == Validation(DATA.train, DATA.validation)(
        model
    )


def test_a_line_of_the_table_tells_scores_size_and_seeds() -> None:
    half = DATA.train.subset(torch.arange(0, len(DATA.train), 2))
    recipe = Recipe(epochs=15, batch_size=256, optimizer=Adam(lr=0.02), patience=3)
    full = top_k(DATA.train, DATA, build=mf, recipe=recipe, seeds=(0, 1), name="full log")
    part = top_k(half, DATA, build=mf, recipe=recipe, seeds=(0, 1), ks=(5, 10), name="half")
    assert part.size["interactions"] == len(half)
    assert part.size["share"] == pytest.approx(0.5, abs=0.01)
    assert set(part.scores) == {f"{m}@{k}" for m in ("recall", "ndcg", "hit", "mrr") for k in (5, 10)}
    assert part.scores["ndcg@10"].n == part.validation.n == 2
    assert full.recovery(full)["recall@5"] == 1.0
    assert part.recovery(full)["recall@10"] < 1.2
    assert json.loads(json.dumps(part.to_json()))["scores"]["ndcg@10"] == list(part.scores["ndcg@10"].values)
    again = top_k(half, DATA, build=mf, recipe=recipe, seeds=(1,))
    assert again.scores["ndcg@10"].values[0] == part.scores["ndcg@10"].values[1]
    with pytest.raises(ValueError, match="keep its ids"):
        top_k(half.subset(torch.arange(3)).compact(), DATA, build=mf, recipe=recipe)
    with pytest.raises(ValueError, match="at least 1"):
        top_k(half, DATA, build=mf, recipe=recipe, seeds=())


def test_the_known_is_masked_whatever_was_trained_on() -> None:
    """A model that knows the training log by heart must not be paid for repeating it."""
    few = DATA.train.subset(torch.arange(10))
    data = LogData("x", DATA.train, DATA.validation, DATA.test)
    row = top_k(few, data, build=mf, recipe=Recipe(epochs=1), seeds=(0,))
    assert row.scores["hit@10"].mean <= 1
    model = mf(few)
    model.reset_parameters(torch.Generator().manual_seed(0))
    known = torch.cat([DATA.train.keys, DATA.validation.keys])
    for top in top_items(model, torch.arange(20), 10, seen=DATA.train):
        found = (top.users[:, None] * DATA.num_items + top.items)[torch.isfinite(top.scores)]
        assert not torch.isin(found, known[: len(DATA.train)]).any()
