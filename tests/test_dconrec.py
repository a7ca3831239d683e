"""DConRec and DosCond on logs: the pool, the estimator against enumeration, the published forms, and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from condensery import bpr, catalog, methods
from condensery.condensed_log import Compensation, Interactions
from condensery.data.generated import generated_log
from condensery.data.interactions import Log, LogData, split_by_user
from condensery.fitting import Adam, Sgd
from condensery.loop import NotFinite, Objective, Snapshots, condense, iterate
from condensery.masks import Reinforce, gradient_mapping
from condensery.methods import dconrec
from condensery.methods.dconrec import Begin, DConRec, Decay, FirstOrder, Setting, TailOf, prepare, tail
from condensery.methods.doscond_rec import DosCondRec, _distance, relaxed
from condensery.nets.recommender import MF, Recommender

WORLD = generated_log(50, 40, mean=9, seed=2)
DATA = split_by_user(WORLD.log, seed=1)
QUICK = bpr.Recipe(epochs=1, batch_size=64, optimizer=Adam(lr=0.05), penalty=None, best=False)


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def proxy(data: LogData = DATA) -> MF:
    recipe = bpr.Recipe(epochs=6, batch_size=64, optimizer=Adam(lr=0.05), penalty=None, best=False)
    trained = dconrec.fit_proxy(data.train, data.validation, g(3), recipe=recipe, dim=6)
    assert isinstance(trained.model, MF)
    return trained.model


def method(data: LogData = DATA, seed: int = 0, **options: object) -> DConRec:
    settings = {"inner": QUICK, "dim": 4, **options}
    return DConRec(data.train, data.validation, g(seed), **settings)  # type: ignore[arg-type]


# --- the pool


def test_everyone_gets_their_best_unseen_items() -> None:
    model = proxy()
    whole, added = dconrec.pool(DATA.train, model, 0.5, least=3)
    assert torch.equal(whole.keys[~added], DATA.train.keys)
    pseudo = whole.subset(added)
    assert not DATA.train.contains(pseudo.users, pseudo.items).any()
    assert len(pseudo.distinct()) == len(pseudo)
    users, items = model.embeddings()
    scores = (users @ items.T).detach()
    for u in range(DATA.num_users):
        seen = DATA.train.items[DATA.train.users == u]
        wanted = min(max(3, int(0.5 * len(seen))), DATA.num_items - len(seen)) if len(seen) else 0
        ranked = scores[u].index_fill(0, seen, -torch.inf).argsort(descending=True)[:wanted]
        assert set(pseudo.items[pseudo.users == u].tolist()) == set(ranked.tolist())


def test_a_user_without_a_row_gets_none() -> None:
    part = DATA.train.subset(DATA.train.users != 4)
    assert int(dconrec.pseudo_interactions(part, proxy(), 0.5).user_counts[4]) == 0


@pytest.mark.parametrize("unseen", [0.0, 0.5, 1.0])
def test_the_proxys_best_are_each_users_best_in_proportion(unseen: float) -> None:
    model, train, budget = proxy(), DATA.train, len(DATA.train) // 3
    log = dconrec.proxy_best(train, model, budget, generator=g(), unseen=unseen)
    assert len(log) == budget
    known = train.contains(log.users, log.items)
    assert int((~known).sum()) == round(unseen * budget)
    users, items = model.embeddings()
    scores = (users @ items.T).detach()
    for u in range(DATA.num_users):
        seen = train.items[train.users == u]
        own = seen[scores[u, seen].argsort(descending=True)]
        others = scores[u].index_fill(0, seen, -torch.inf).argsort(descending=True)
        for part, best, share in ((known, own, 1 - unseen), (~known, others, unseen)):
            taken = log.items[(log.users == u) & part]
            assert set(taken.tolist()) == set(best[: len(taken)].tolist())
            if part is known:
                assert abs(len(taken) - share * budget * len(seen) / len(train)) <= 1
    if unseen == 1:  # the budget suffices for everybody
        assert bool((log.user_counts[train.user_counts > 0] > 0).all())


def test_validation_chooses_how_much_is_unseen() -> None:
    scores = iter([0.2, 0.3, 0.3])
    budget, seen = round(0.4 * len(DATA.train)), []

    def watch(model: Recommender) -> float:
        seen.append(model.table.detach().clone())
        return next(scores)

    recipe = bpr.Recipe(epochs=1, every=5)  # is not stopped by the score
    options = {"recipe": recipe, "dim": 4, "watch": watch, "shares": (0.0, 0.5, 1.0)}
    found = dconrec.choose_unseen(DATA.train, DATA.validation, proxy(), budget, g(3), **options)  # type: ignore[arg-type]
    assert found == (0.5, {0.0: 0.2, 0.5: 0.3, 1.0: 0.3})
    assert not torch.equal(seen[0], seen[1])  # trained on other rows
    real = dconrec.choose_unseen(DATA.train, DATA.validation, proxy(), budget, g(3), recipe=recipe, dim=4)
    again = dconrec.choose_unseen(DATA.train, DATA.validation, proxy(), budget, g(3), recipe=recipe, dim=4)
    assert real == again
    assert real.share == max(real.scores, key=lambda share: real.scores[share])
    with pytest.raises(ValueError, match="at least one share"):
        dconrec.choose_unseen(DATA.train, DATA.validation, proxy(), budget, g(3), shares=())
    with pytest.raises(ValueError, match="unseen is 2"):
        dconrec.Setting(unseen=2)


def test_the_proxys_best_keep_to_the_budget_where_little_is_unseen() -> None:
    part = DATA.train.subset(DATA.train.items < 6)  # some users have five of six
    log = dconrec.proxy_best(part, proxy(), len(part), generator=g())
    assert len(log) == len(part)
    with pytest.raises(ValueError, match=r"ask for 0 to"):
        dconrec.proxy_best(part, proxy(), len(part) + 1, generator=g())
    with pytest.raises(ValueError, match=r"unseen is 1.5; give the share"):
        dconrec.proxy_best(part, proxy(), 1, generator=g(), unseen=1.5)
    assert len(dconrec.proxy_best(part, proxy(), 0, generator=g())) == 0


@pytest.mark.parametrize("pseudo", [0.0, 0.9])
def test_a_start_at_the_proxys_best_is_within_the_budget(pseudo: float) -> None:
    model, setting = proxy(), Setting(pseudo=pseudo, threshold=0, begin=Begin.PROXY)
    kept = prepare(DATA.train, 0.4, setting=setting, proxy=model, generator=g(7))
    assert kept.expected_size == pytest.approx(0.4 * len(DATA.train), rel=1e-5)
    chosen = dconrec.proxy_best(
        DATA.train, model, round(0.4 * len(DATA.train)), generator=g(7), unseen=pseudo / (1 + pseudo)
    )
    scores = kept.scores.detach()
    likely = scores > 0.5
    assert torch.equal(likely, chosen.contains(kept.users, kept.items))
    assert bool((scores[~likely] > 0).all())
    with pytest.raises(ValueError, match="give a proxy"):
        prepare(DATA.train, 0.4, setting=setting, proxy=model)


def test_the_tail_is_all_of_the_users_with_few_rows() -> None:
    found = tail(DATA.train, 4)
    for u in range(DATA.num_users):
        rows = DATA.train.users == u
        assert found[rows].tolist() == [int(rows.sum()) < 4] * int(rows.sum())


def test_the_settings_are_what_they_say() -> None:
    train, model, n = DATA.train, proxy(), len(DATA.train)
    ours = prepare(train, 0.5, proxy=model, setting=Setting(threshold=4))
    assert ours.expected_size == pytest.approx(0.5 * n, rel=1e-5)
    assert len(ours.top(g())) == round(0.5 * n)
    assert not (ours.always & ours.source).any()
    paper = prepare(train, 0.5, proxy=model, setting=Setting.paper())
    assert float(paper.scores.detach().sum()) == pytest.approx(0.5 * n, rel=1e-5)
    assert torch.equal(paper.always, tail(paper.pool, 10))
    assert paper.expected_size > 0.5 * n
    theirs = prepare(train, 0.5, proxy=model, setting=Setting.authors())
    assert theirs.budget == pytest.approx(0.5 * len(theirs.users))
    assert float(theirs.scores.detach().sum()) == pytest.approx(0.5 * n, rel=1e-5)  # begins below what it may reach
    assert theirs.compensation is Compensation.REPEATED
    assert torch.equal(theirs.always[~theirs.source], train.user_counts[train.users] <= 10)
    assert not (theirs.always & theirs.source).any()


def test_the_ablations_are_switches() -> None:
    train, n = DATA.train, len(DATA.train)
    model = proxy()
    alone = prepare(train, 0.5, setting=Setting(pseudo=0, threshold=0))  # OS-PGE
    assert len(alone.users) == n
    assert not alone.source.any()
    assert not alone.always.any()
    without_pseudo = prepare(train, 0.5, setting=Setting.paper(pseudo=0, threshold=4))
    assert len(without_pseudo.users) == n
    assert without_pseudo.always.any()
    without_tail = prepare(train, 0.5, proxy=model, setting=Setting.paper(threshold=0))
    assert without_tail.source.any()
    assert not without_tail.always.any()


# --- identities


def test_a_ratio_of_one_keeps_everything() -> None:
    kept = prepare(DATA.train, 1.0, setting=Setting(pseudo=0, threshold=0))
    objective = method(estimator=Reinforce(samples=4, leave_one_out=True))  # a margin would try to do without rows
    condense(kept, objective, steps=3)
    assert kept().tolist() == [1.0] * len(DATA.train)
    assert torch.equal(kept.top(g()).keys, DATA.train.keys)
    assert torch.equal(kept.sampled(g()).keys, DATA.train.keys)


def test_the_loss_of_a_full_mask_is_that_of_training_on_the_log() -> None:
    kept = prepare(DATA.train, 1.0, setting=Setting(pseudo=0, threshold=0))
    found = method().mask_loss(kept)(torch.ones(len(DATA.train), dtype=torch.bool), g(5))
    seeds, source = [], g(5)
    for _ in range(3):
        seeds.append(int(torch.randint(2**62, (), generator=source)))
    model = MF(DATA.num_users, DATA.num_items, 4)
    model.reset_parameters(g(seeds[0]))
    bpr.fit(model, DATA.train, QUICK, g(seeds[1]))
    known = DATA.train.contains, DATA.validation.contains
    expected = bpr.mean_loss(model, DATA.validation, g(seeds[2]), negatives=method()._unknown)
    assert found == expected
    drawn = method()._unknown.draw(DATA.validation.users.repeat(20), g())
    assert not any(has(DATA.validation.users.repeat(20), drawn).any() for has in known)


# --- the estimator, with the inner loop as it is


def tiny() -> tuple[DConRec, Interactions]:
    """Two users who use two items each, whom the validation log agrees with, and two rows that contradict it."""
    ids = np.arange(3), np.arange(8)
    train = Log(torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 3, 4, 5]), *ids)
    held = Log(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 3, 6]), *ids)
    pool = Log(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 6, 7]), *ids)
    inner = bpr.Recipe(epochs=1, batch_size=1, optimizer=Sgd(lr=2.0, momentum=0.0, weight_decay=0.0), penalty=None)
    objective = DConRec(train, held, g(), inner=inner, dim=3)
    return objective, Interactions(pool, 2.5)


ALL = torch.tensor([[code >> bit & 1 for bit in range(5)] for code in range(32)], dtype=torch.bool)
STATES = 4


def table(objective: DConRec, kept: Interactions) -> Tensor:
    """The loss of every mask under some states of all else that is random: float64 ``[masks, states]``."""
    loss = objective.mask_loss(kept)
    return torch.tensor([[loss(mask, g(k)) for k in range(STATES)] for mask in ALL], dtype=torch.float64)


@dataclass
class Remembered(DConRec):
    """The same with every mask's inner training done beforehand, under each of the states."""

    losses: Tensor

    def mask_loss(self, synthetic: Interactions) -> Callable[[Tensor, torch.Generator], float]:
        code = 2 ** torch.arange(5)
        return lambda mask, noise: float(
            self.losses[int((mask * code).sum()), int(torch.randint(STATES, (), generator=noise))]
        )


def exact(s: Tensor, losses: Tensor) -> Tensor:
    leaf = s.detach().double().requires_grad_()
    return torch.autograd.grad(expected(leaf, losses), leaf)[0]


def expected(s: Tensor, losses: Tensor) -> Tensor:
    return (torch.where(ALL, s, 1 - s).prod(1) * losses.mean(1)).sum()


@pytest.fixture(scope="module")
def losses() -> Tensor:
    return table(*tiny())


FORMS = {
    "paper": Reinforce(),
    "ours": Reinforce(samples=4, leave_one_out=True, common=True),
    "pairs": Reinforce(samples=4, leave_one_out=True, antithetic=True),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_estimator_is_right_about_the_true_inner_loop(form: Reinforce, losses: Tensor, untouched: None) -> None:
    objective, kept = tiny()
    objective = Remembered(objective.train, objective.validation, g(1), losses, estimator=form)
    assert float(losses.mean(1).std()) > 0.01  # masks differ
    assert float(losses[1:].std(1).min()) > 0.01  # and so do initial models
    with torch.no_grad():
        kept.scores.copy_(torch.tensor([0.3, 0.5, 0.6, 0.4, 0.7]))
    seen = torch.stack([objective.estimate(kept).gradient.double() for _ in range(2500)])
    error = (seen.mean(0) - exact(kept.scores, losses)).abs()
    assert (error < 4.5 * seen.std(0) / math.sqrt(len(seen))).all()


def test_the_gradient_mapping_falls_with_the_expected_loss(losses: Tensor) -> None:
    """Theorem 3.1 on a problem small enough to know the true gradient."""
    objective, kept = tiny()
    form, step = Reinforce(samples=64, leave_one_out=True, margin=0.05), 0.05
    objective = Remembered(objective.train, objective.validation, g(1), losses, estimator=form)
    seen, values = [], []
    for _ in iterate(kept, objective, torch.optim.SGD(kept.parameters(), lr=step), steps=160):
        s = kept.scores.detach().double()
        assert float(s.sum()) <= 2.5 + 1e-5
        seen.append(float(gradient_mapping(s, exact(s, losses), step, 2.5).square().sum()))
        values.append(float(expected(s, losses)))
    assert np.mean(seen[-40:]) < 0.2 * seen[0]
    assert np.mean(values[-40:]) < 0.8 * values[0]


class FewStates(DConRec):
    """The same with all but the masks random in the states of `table` only."""

    def _trained(self, log: Log, generator: torch.Generator) -> tuple[MF, torch.Generator]:
        return super()._trained(log, g(int(torch.randint(STATES, (), generator=generator))))


def test_the_first_order_gradient_points_the_same_way() -> None:
    objective, kept = tiny()
    gentle = replace(objective.inner, optimizer=Sgd(lr=0.2, momentum=0.0, weight_decay=0.0))
    truth = exact(kept.scores, table(replace(objective, inner=gentle), kept))
    form = FirstOrder(samples=150)
    few = FewStates(objective.train, objective.validation, g(2), inner=gentle, dim=3, estimator=form)
    first = few.estimate(kept)
    assert len(first.losses) == 150
    cosine = torch.nn.functional.cosine_similarity(first.gradient.double(), truth, dim=0)
    assert float(cosine) > 0.9


def test_common_numbers_reach_the_inner_loop() -> None:
    """All masks of an estimate begin from one model and meet the same validation negatives, whatever their size."""
    objective, kept = tiny()
    still = replace(objective, inner=replace(objective.inner, epochs=0))
    assert len(set(still.estimate(kept).losses.tolist())) == 1
    alone = replace(still, estimator=Reinforce(samples=4, leave_one_out=True))
    assert len(set(alone.estimate(kept).losses.tolist())) == 4


# --- the outer step


def test_the_published_forms_are_what_they_say() -> None:
    train, held = DATA.train, DATA.validation
    paper = dconrec.paper(train, held, g())
    assert paper.estimator == Reinforce()
    assert (paper.inner.epochs, paper.inner.batch_size) == (1, None)
    assert paper.inner.optimizer == Sgd(lr=1.0, momentum=0.0, weight_decay=0.0)
    assert not paper.accumulate
    theirs = dconrec.authors(train, held, g(), dim=8)
    assert theirs.estimator == Reinforce(samples=4)
    assert theirs.accumulate
    assert theirs.dim == 8
    kept = prepare(train, 0.5, setting=Setting(pseudo=0, threshold=0))
    for objective, first, falls, least in ((paper, 0.1, 100, 1e-4), (theirs, 0.01, 70, 1e-5)):
        optimizer = objective.optimizer(kept)
        rates = []
        for _ in range(400):
            kept.scores.grad = torch.zeros_like(kept.scores)
            optimizer.step()
            rates.append(optimizer.param_groups[0]["lr"])
        expected = [max(first / 10 ** (k // falls), least) for k in range(400)]
        assert rates == pytest.approx(expected)


def test_accumulating_descends_by_the_sum_of_all_gradients() -> None:
    kept = prepare(DATA.train, 0.5, setting=Setting(pseudo=0, threshold=0))
    grads = []
    for accumulate in (False, True):
        objective, seen = method(accumulate=accumulate, estimator=Reinforce()), []
        for _ in range(3):
            kept.scores.grad = None
            objective(kept).backward()
            assert kept.scores.grad is not None
            seen.append(kept.scores.grad.clone())
        grads.append(torch.stack(seen))
    torch.testing.assert_close(grads[1], grads[0].cumsum(0))


Make = Callable[[], Objective]
MAKERS: dict[str, Make] = {
    "ours": lambda: method(),
    "paper": lambda: dconrec.paper(DATA.train, DATA.validation, g(), dim=4, decay=Decay(every=2)),
    "authors": lambda: dconrec.authors(DATA.train, DATA.validation, g(), inner=QUICK, dim=4),
    "first order": lambda: method(estimator=FirstOrder(samples=2, margin=0.01)),
    "doscond": lambda: DosCondRec(DATA.train, g(), dim=4, cooling=5),
}


def test_every_method_for_logs_has_a_row() -> None:
    homes = {entry.home.partition(":")[2] for entry in catalog.LOG_METHODS.values()}
    assert {type(make()).__name__ for make in MAKERS.values()} == homes
    assert homes <= set(methods.__all__)


def begun() -> Interactions:
    return prepare(DATA.train, 0.4, proxy=proxy(), setting=Setting(threshold=3))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(make: Make, tmp_path: Path, untouched: None) -> None:
    whole = begun()
    objective = make()
    losses = [float(step.loss) for step in iterate(whole, objective, objective.optimizer(whole), steps=6)]
    for steps in (4, 6):
        part, objective = begun(), make()
        optimizer = objective.optimizer(part)
        seen = [float(s.loss) for s in iterate(part, objective, optimizer, steps=steps, snapshots=Snapshots(tmp_path))]
    assert seen == losses[4:]
    assert torch.equal(part.scores, whole.scores)
    assert not torch.equal(whole.scores, begun().scores)  # it did move
    assert float(whole.scores.detach().sum()) <= whole.budget + 1e-3
    assert whole.scores[whole.always].tolist() == [1.0] * whole.kept_always


def test_it_ends_in_a_log_of_exactly_the_budget() -> None:
    kept = condense(begun(), method(), steps=3)
    log = kept.top(g())
    assert len(log) == round(0.4 * len(DATA.train))
    assert len(log.distinct()) == len(log)
    assert log.user_ids is DATA.train.user_ids


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    wild = replace(QUICK, optimizer=Sgd(lr=1e30, momentum=0.0, weight_decay=0.0), epochs=5)
    with pytest.raises(NotFinite):
        condense(begun(), method(inner=wild), steps=3)


# --- doscond


def test_the_distance_and_its_derivative_are_those_of_autograd() -> None:
    model = MF(5, 7, dim=3).double()
    with torch.no_grad():
        model.table.copy_(torch.randn(12, 3, generator=g(), dtype=torch.float64))
    draw = [[torch.randint(k, (n,), generator=g(n + k)) for k in (5, 7, 7)] for n in (9, 11)]
    real, rows = ((t[0], t[1], t[2]) for t in draw)
    m = torch.rand(11, generator=g(4), dtype=torch.float64).requires_grad_()
    ours = (m * bpr.losses(model, *rows)).sum() / m.sum()
    gradients = [
        torch.autograd.grad(v, model.table, create_graph=True)[0] for v in (ours, bpr.losses(model, *real).mean())
    ]
    expected = (gradients[0] - gradients[1]).square().sum()
    value, slope = _distance(model, real, rows, m.detach())
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected, m)[0])


def test_relaxed_masks_are_concrete_and_differentiate_right() -> None:
    s = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    for t in (1.0, 0.3):
        m, slope = relaxed(s, t, g(1))
        step = 1e-6
        numeric = (relaxed(s + step, t, g(1))[0] - relaxed(s - step, t, g(1))[0]) / (2 * step)
        torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-7)
    above = torch.stack([relaxed(s, 0.5, g(k))[0] > 0.5 for k in range(3000)]).double().mean(0)
    assert (above - s).abs().max() < 0.04
    assert ((m > 0) & (m < 1)).all()


@pytest.mark.parametrize("straight_through", [False, True])
def test_matching_gradients_prefers_what_the_log_has(straight_through: bool) -> None:
    """Half of the pool is the log, half are random pairs: their gradient is another."""
    train = DATA.train
    noise = torch.randint(train.num_users * train.num_items, (len(train),), generator=g(8))
    pool = Log(
        torch.cat([train.users, noise // train.num_items]),
        torch.cat([train.items, noise % train.num_items]),
        train.user_ids,
        train.item_ids,
    )
    kept = Interactions(pool, len(train) / 2)
    objective = DosCondRec(train, g(), lr=0.02, dim=8, straight_through=straight_through)
    condense(kept, objective, steps=60)
    own, other = kept.scores.detach().split(len(train))
    assert float(own.mean()) > 1.3 * float(other.mean())
    assert objective.figures["temperature"].item() == pytest.approx(0.1 ** (59 / 200), rel=1e-4)


# --- what cannot be


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    train, none = DATA.train, DATA.validation.subset(torch.zeros(len(DATA.validation), dtype=torch.bool))
    with pytest.raises(ValueError, match="hold some interactions out"):
        DConRec(train, none, g())
    with pytest.raises(ValueError, match="number their users and items alike"):
        DConRec(train, DATA.validation.compact(), g())
    for ratio in (0.0, 1.1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            prepare(train, ratio)
    with pytest.raises(ValueError, match="give one \\(fit_proxy\\)"):
        prepare(train, 0.5)
    with pytest.raises(ValueError, match="lower the threshold"):
        prepare(train, 0.05, setting=Setting(pseudo=0, threshold=9, tail_of=TailOf.TRAIN))
    with pytest.raises(ValueError, match="at least 0"):
        Setting(pseudo=-1)
    with pytest.raises(ValueError, match="at least 1 mask"):
        FirstOrder(samples=0)
    with pytest.raises(ValueError, match="give a training log"):
        DosCondRec(none, g())
    with pytest.raises(ValueError, match="temperatures above 0"):
        DosCondRec(train, g(), last_temperature=0.0)
