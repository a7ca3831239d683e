"""DConRec: condensing a recommendation log by policy gradients over which interactions are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from condensery import bpr
from condensery.condensed_log import Compensation, Interactions
from condensery.data.interactions import Log, joined
from condensery.fitting import Adam, Sgd
from condensery.loop import with_gradient
from condensery.masks import Estimate, Reinforce, sample
from condensery.nets.recommender import MF, Recommender
from condensery.ranking import Validation, top_items

_SCORED = 1 << 16  # rows scored at once
_SURE = 0.95  # the probability of rows that a proxy thinks best; the rest have a chance to be drawn

__all__ = [
    "Begin",
    "DConRec",
    "Decay",
    "FirstOrder",
    "Setting",
    "TailOf",
    "authors",
    "choose_unseen",
    "fit_proxy",
    "paper",
    "pool",
    "prepare",
    "proxy_best",
    "pseudo_interactions",
    "tail",
]


# --- the pool
# -------------------------------------------------------------------------------------------------------------------


class TailOf(StrEnum):
    """Whose rows are counted, and kept, for long-tailed users."""

    TRAIN = "train"
    """The recorded rows (the authors' code)."""

    POOL = "pool"
    """The pool's rows, pseudo interactions included (the paper)."""


class Begin(StrEnum):
    """Where the probabilities begin."""

    EVEN = "even"
    """All alike (the paper)."""

    PROXY = "proxy"
    """High for what a proxy thinks best (`proxy_best`), low for the rest."""


@dataclass(frozen=True)
class Setting:
    """What the mask ranges over and what it may keep. The defaults are this library's.

    Args:
        pseudo: Unseen items that a user gets, relative to their rows; 0 for none (Table 4, "w/o PD").
        least: Unseen items that each user gets at least, where `pseudo` is above 0.
        threshold: Users with fewer rows are long-tailed; 0 for no compensation (Table 4, "w/o Com").
        tail_of: Which rows are counted and kept.
        compensation: How the rows of long-tailed users enter the budget.
        of_pool: The budget is the ratio of the pool, rather than of the training log, as in the authors' projection.
        begin: Where the probabilities begin.
        unseen: Of a start at the proxy's best the share that nobody recorded (`proxy_best`); ``None`` for about that of
            the pool. `choose_unseen` asks the validation log.

    Raises:
        ValueError: For negative numbers, or a share that is none.
    """

    pseudo: float = 0.9
    least: int = 5
    threshold: int = 10
    tail_of: TailOf = TailOf.TRAIN
    compensation: Compensation = Compensation.COUNTED
    of_pool: bool = False
    begin: Begin = Begin.EVEN
    unseen: float | None = None

    def __post_init__(self) -> None:
        if min(self.pseudo, self.least, self.threshold) < 0:
            raise ValueError(
                f"pseudo={self.pseudo}, least={self.least} and threshold={self.threshold}; give numbers of at least 0."
            )
        if self.unseen is not None and not 0 <= self.unseen <= 1:
            raise ValueError(f"unseen is {self.unseen}; give a share between 0 and 1.")

    @classmethod
    def paper(cls, **changes: Any) -> Setting:
        """The paper's: tail by the pool, united with what was sampled and not counted."""
        return replace(cls(tail_of=TailOf.POOL, compensation=Compensation.ADDED), **changes)

    @classmethod
    def authors(cls, **changes: Any) -> Setting:
        """That of the authors' code: up to 10 recorded rows, appended once more; the budget is a share of the pool."""
        settings = cls(threshold=11, compensation=Compensation.REPEATED, of_pool=True)
        return replace(settings, **changes)


def proxy_recipe() -> bpr.Recipe:
    """How proxies are trained: to early stopping on NDCG@10; the last table is used, as in the authors' code."""
    return bpr.Recipe(optimizer=Adam(lr=7e-4), penalty=bpr.Norms(), best=False)


def fit_proxy(
    train: Log, validation: Log, generator: torch.Generator, *, recipe: bpr.Recipe | None = None, dim: int = 64
) -> bpr.Trained:
    """Train matrix factorisation on the whole training log: the proxy model of section 3.2.

    Args:
        train: The training log.
        validation: Stops it.
        generator: A CPU generator.
        recipe: How; default: `proxy_recipe`.
        dim: Size of the vectors.
    """
    model = MF(train.num_users, train.num_items, dim)
    model.reset_parameters(generator)
    watch = Validation(train, validation) if len(validation) else None
    return bpr.fit(model.to(train.device), train, recipe or proxy_recipe(), generator, score=watch)


def pseudo_interactions(train: Log, proxy: Recommender, ratio: float, *, least: int = 5) -> Log:
    """Each user's best unseen items by a proxy, eq. 3-4: ``max(least, int(ratio * rows))`` for one with rows.

    Args:
        train: The training log: what has been seen.
        proxy: Gives the scores.
        ratio: Items relative to a user's rows.
        least: Items at least.

    Returns:
        A log with the same ids, sorted by user; fewer items where a user has seen nearly all.
    """
    counts = train.user_counts
    wanted = (counts * ratio + 1e-9).long().clamp_(min=least).masked_fill_(counts == 0, 0)
    order = wanted.argsort()
    users, items = [train.users[:0]], [train.items[:0]]
    for group in _octaves(order, wanted):  # so that few users are ranked deeper than they need
        for top in top_items(proxy, group, int(wanted[group].max()), seen=train):
            depth = torch.arange(top.items.shape[1], device=group.device)
            keep = (depth < wanted[top.users][:, None]) & torch.isfinite(top.scores)
            users.append(top.users[:, None].expand_as(keep)[keep])
            items.append(top.items[keep])
    whole = Log(torch.cat(users), torch.cat(items), train.user_ids, train.item_ids)
    return whole.subset(whole.users.argsort(stable=True))


def _octaves(order: Tensor, wanted: Tensor) -> list[Tensor]:
    """Users with the same power of two, of those that want anything."""
    ascending = wanted[order]
    limits = 2 ** torch.arange(int(ascending.max()).bit_length() + 1, device=order.device)
    cuts = torch.searchsorted(ascending, limits)
    return [order[a:b] for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True) if b > a]


def proxy_best(train: Log, proxy: Recommender, budget: int, *, generator: torch.Generator, unseen: float = 0.5) -> Log:
    """What a proxy thinks best, nothing learned: of the items that users have, and of those that they have not.

    This library's own baseline, not of the paper. A share of the budget are pseudo interactions, as in the ranking
    distillation of Tang & Wang (KDD 2018, https://arxiv.org/abs/1809.07428), where a student learns the items that a
    teacher ranks first. The rest are recorded rows that the proxy ranks first, the others being more often noise (Wang
    et al., WSDM 2021, https://arxiv.org/abs/2006.04153). Each user gets rows of both kinds in proportion to their own,
    and of pseudo interactions at least one where the budget suffices.

    Args:
        train: The training log, n rows.
        proxy: Gives the scores.
        budget: How many rows, between 0 and n.
        generator: A CPU generator: it orders users who are equals.
        unseen: Share of the budget for items that users do not have; less where they have nearly all. It suits sparse
            logs; where users have many rows, 0 may be better: let validation say (`choose_unseen`).

    Returns:
        A log of `budget` rows with the same ids, the recorded ones first.

    Raises:
        ValueError: If there are fewer rows, or the share is not between 0 and 1.
    """
    if not 0 <= budget <= len(train):
        raise ValueError(f"Cannot select {budget} of {len(train)} rows; ask for 0 to {len(train)}.")
    if not 0 <= unseen <= 1:
        raise ValueError(f"unseen is {unseen}; give the share of rows that nobody recorded, between 0 and 1.")
    plain, wanted = replace(train, rating=None, time=None), round(unseen * budget)
    added = plain.subset(torch.arange(0))
    if wanted:  # twice the share: users differ in how many rows a share of theirs is
        added = pseudo_interactions(train, proxy, 2 * wanted / len(train), least=2)
        added = added.subset(_in_proportion(added, train.user_counts, wanted, generator, before=0.0))
    ranked = plain.subset(_by_score(plain, proxy))
    recorded = ranked.subset(_in_proportion(ranked, train.user_counts, budget - len(added), generator))
    return joined(recorded, added)


class Chosen(NamedTuple):
    """A share that the validation log chose.

    Attributes:
        share: Of rows that nobody recorded.
        scores: NDCG@10 on the validation log for each share that was tried.
    """

    share: float
    scores: dict[float, float]


def choose_unseen(
    train: Log,
    validation: Log,
    proxy: Recommender,
    budget: int,
    generator: torch.Generator,
    *,
    shares: Sequence[float] = (0.0, 0.25, 0.5),
    recipe: bpr.Recipe | None = None,
    dim: int = 64,
    watch: Callable[[Recommender], float] | None = None,
) -> Chosen:
    """How much of `proxy_best` should be unseen: the share whose rows train the best recommender, by validation.

    One recommender is trained for each share, all from the same vectors. The first of equals is taken.

    Args:
        train: The training log.
        validation: What decides.
        proxy: Gives the scores.
        budget: How many rows.
        generator: A CPU generator.
        shares: What is tried.
        recipe: How recommenders are trained; default: as a proxy.
        dim: Size of their vectors.
        watch: The score, larger is better; default: NDCG@10 on the validation log.

    Raises:
        ValueError: If there is nothing to try or nothing to decide by.
    """
    if not shares or (watch is None and len(validation) == 0):
        raise ValueError("Give at least one share and a validation log that is not empty.")
    seed = int(torch.randint(2**62, (), generator=generator))
    score, scores = watch or Validation(train, validation), dict[float, float]()
    for share in shares:
        draw = torch.Generator().manual_seed(seed)
        rows = proxy_best(train, proxy, budget, generator=draw, unseen=share)
        model = MF(train.num_users, train.num_items, dim)
        model.reset_parameters(draw)
        model.to(train.device)
        bpr.fit(model, rows, recipe or proxy_recipe(), draw, score=score)
        scores[share] = score(model)
    return Chosen(max(scores, key=lambda share: scores[share]), scores)


@torch.no_grad()
def _by_score(log: Log, model: Recommender) -> Tensor:
    """Rows by user, and of each user by score, the best first: int64 ``[n]``."""
    users, items = model.embeddings()
    parts = zip(log.users.split(_SCORED), log.items.split(_SCORED), strict=True)
    order = torch.cat([(users[u] * items[i]).sum(1) for u, i in parts]).argsort(descending=True, stable=True)
    return order[log.users[order].argsort(stable=True)]


def _in_proportion(log: Log, counts: Tensor, budget: int, generator: torch.Generator, *, before: float = 0.5) -> Tensor:
    """The first rows of each user of a log that is sorted by user, as many as go with `counts`: int64 ``[budget]``.

    A user's row is taken before another's if a smaller share of all that the user has comes before it. Half a row more
    rounds to the nearest number; 0 takes every user's first row before any second one.
    """
    ours = log.user_counts
    place = torch.arange(len(log), device=log.device) - (ours.cumsum(0) - ours)[log.users]
    share = (place + before) / counts[log.users]
    order = torch.randperm(len(counts), generator=generator).to(log.device)[log.users].argsort(stable=True)
    return order[share[order].argsort(stable=True)][:budget].sort().values


def pool(train: Log, proxy: Recommender, ratio: float, *, least: int = 5) -> tuple[Log, Tensor]:
    """The data pool, eq. 5: the training log, then what a proxy adds.

    Args:
        train: The training log.
        proxy: Gives the scores.
        ratio: Added items relative to a user's rows.
        least: Added items at least.

    Returns:
        The pool of n rows, and which of them are pseudo interactions, bool ``[n]``.
    """
    added = pseudo_interactions(train, proxy, ratio, least=least)
    whole = joined(replace(train, rating=None, time=None), added)
    return whole, torch.arange(len(whole), device=train.device) >= len(train)


def tail(log: Log, threshold: int = 10) -> Tensor:
    """The rows of users with fewer than `threshold` rows, eq. 13: bool ``[n]``."""
    return log.user_counts[log.users] < threshold


def prepare(
    train: Log,
    ratio: float,
    *,
    setting: Setting | None = None,
    proxy: Recommender | None = None,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Interactions:
    """The mask to be learned: pool, tail, budget and start (algorithm 1, lines 1-2).

    Args:
        train: The training log.
        ratio: Share of the training log to keep.
        setting: What the mask ranges over; default: this library's.
        proxy: A trained recommender (`fit_proxy`), needed where there are pseudo interactions or the start is its best.
        start: Initial probabilities, one for each row of the pool; default: what the setting says.
        generator: A CPU generator, needed where the start is the proxy's best.

    Raises:
        ValueError: For a ratio outside (0, 1], or if the proxy or the generator is missing.
    """
    setting = setting or Setting()
    if not 0 < ratio <= 1:
        raise ValueError(f"The ratio is {ratio}; give a share of the training log, above 0 and at most 1.")
    if setting.pseudo > 0 and proxy is None:
        raise ValueError("Pseudo interactions need a proxy; give one (fit_proxy), or set pseudo to 0.")
    whole, added = replace(train, rating=None, time=None), torch.zeros_like(train.users, dtype=torch.bool)
    if setting.pseudo > 0 and proxy is not None:
        whole, added = pool(train, proxy, setting.pseudo, least=setting.least)
    always = tail(whole, setting.threshold)
    if setting.tail_of is TailOf.TRAIN:
        always = (train.user_counts[whole.users] < setting.threshold) & ~added
    recorded, n = ratio * len(train), len(whole)
    if setting.begin is Begin.PROXY and start is None:
        if proxy is None or generator is None:
            raise ValueError("To begin at the proxy's best, give a proxy (fit_proxy) and a generator.")
        of_pool = setting.pseudo / (1 + setting.pseudo)
        unseen = of_pool if setting.unseen is None else setting.unseen
        chosen = proxy_best(train, proxy, round(recorded), generator=generator, unseen=unseen)
        start = _leaning(chosen.contains(whole.users, whole.items))
    if setting.of_pool and start is None:  # the authors' code begins within r|D| and projects onto r|pool|
        start = torch.full((n,), recorded / n)
    return Interactions(
        whole,
        ratio * n if setting.of_pool else recorded,
        pseudo=added,
        always=always,
        compensation=setting.compensation,
        start=start,
    )


def _leaning(chosen: Tensor) -> Tensor:
    """Probabilities ``[n]`` that lean to the rows chosen, bool ``[n]``; their sum is the number of these."""
    count = int(chosen.sum())
    rest = (1 - _SURE) * count / max(1, len(chosen) - count)
    return torch.where(chosen, _SURE, rest)


# --- the method
# -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decay:
    """The outer learning rate falls by a factor now and then, down to a least one.

    Args:
        every: Steps between falls.
        factor: What it is divided by.
        least: Where it stays.
    """

    every: int = 100
    factor: float = 10.0
    least: float = 1e-4

    def attach(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Let the optimizer do so; the steps done are in its groups and so in its state."""
        for group in optimizer.param_groups:
            group.update(first_lr=group["lr"], done=0)
        optimizer.register_step_pre_hook(self._set)
        return optimizer

    def _set(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            falls = group["done"] // self.every
            group["lr"] = max(group["first_lr"] / self.factor**falls, min(self.least, group["first_lr"]))
            group["done"] += 1


@dataclass(frozen=True)
class FirstOrder:
    """Not in the paper: the same objective, differentiated through the last state of the inner training.

    A row moves the model by minus a step along its gradient, so to first order it changes the validation loss by
    minus the step times the product of its gradient and the validation loss's, at the model that was trained on the
    mask. That is biased, as one step after training stands for the whole of it, but tells rows apart where
    `Reinforce` has one number for a mask.

    Args:
        samples: Masks whose estimates are averaged.
        step: The step; Adam, which knows no scale, does not need it.
        margin: Probabilities are taken as at least this and at most 1 minus this when masks are drawn.
    """

    samples: int = 1
    step: float = 1.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 <= self.margin < 0.5:
            raise ValueError(
                f"samples={self.samples} and margin={self.margin}; give at least 1 mask and a margin below 0.5."
            )


@dataclass
class DConRec:
    """Policy gradients over the rows of a log (Wu et al., DConRec, https://arxiv.org/abs/2310.01038), algorithm 1.

    At each step masks m ~ Bern(s) are sampled, a fresh recommender is trained on the rows of each for one pass, and its
    BPR loss on the validation log, L(m), gives the gradient of its expectation in s, eq. 15:

        mean over m of L(m) * (m - s) / (s (1 - s)).

    The defaults are this library's: four masks with a leave-one-out baseline and common random numbers, and Adam.
    `paper` and `authors` give the published forms.

    Args:
        train: The training log: with `validation`, what negatives are not drawn from.
        validation: What the loss is measured on.
        generator: A CPU generator for masks, initial vectors, orders and negatives.
        estimator: How the gradient is estimated.
        inner: How the inner model is trained.
        outer: How the scores move.
        decay: How the outer learning rate falls, or ``None``.
        dim: Size of the inner model's vectors.
        accumulate: Descend by the sum of all gradients so far, as the authors' code does, which never clears it.

    Raises:
        ValueError: For an empty validation log or logs of different users or items.
    """

    train: Log
    validation: Log
    generator: torch.Generator
    _: KW_ONLY
    estimator: Reinforce | FirstOrder = field(
        default_factory=lambda: Reinforce(samples=4, leave_one_out=True, common=True, margin=0.01)
    )
    inner: bpr.Recipe = field(default_factory=lambda: inner_recipe())
    outer: Adam | Sgd = field(default_factory=lambda: Adam(lr=0.01))
    decay: Decay | None = None
    dim: int = 64
    accumulate: bool = False
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _sum: Tensor | None = field(default=None, init=False, repr=False)
    _start: tuple[int, Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.validation) == 0:
            raise ValueError("The validation log is empty, so masks cannot be compared; hold some interactions out.")
        joined(self.train, self.validation)  # refuses logs that are numbered differently

    def __call__(self, synthetic: Interactions) -> Tensor:
        """The mean validation loss of the sampled masks; its gradient is the estimate."""
        found = self.estimate(synthetic)
        gradient = synthetic.learned(found.gradient)
        if self.accumulate:
            self._sum = gradient if self._sum is None else self._sum.to(gradient.device) + gradient
            gradient = self._sum
        losses = found.losses.to(gradient.device, torch.float32)
        self.figures = {"spread": losses.std(correction=0), "gradient": gradient.norm()}
        return with_gradient(losses.mean(), [synthetic.scores], [gradient])

    def estimate(self, synthetic: Interactions) -> Estimate:
        """The gradient in the scores, rows outside the mask included, and the losses."""
        if isinstance(self.estimator, FirstOrder):
            return self._first_order(synthetic, self.estimator)
        return self.estimator(synthetic.scores, self.mask_loss(synthetic), self.generator)

    def mask_loss(self, synthetic: Interactions) -> Callable[[Tensor, torch.Generator], float]:
        """The loss L(m) of a mask ``[n]``, bool: what the estimator samples."""

        def loss(mask: Tensor, generator: torch.Generator) -> float:
            model, draws = self._trained(synthetic.take(mask), generator)
            return bpr.mean_loss(model, self.validation, draws, negatives=self._unknown)

        return loss

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """On the scores."""
        optimizer = self.outer.build(synthetic)
        return optimizer if self.decay is None else self.decay.attach(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """The accumulated gradient, if there is one."""
        return {"sum": self._sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._sum = state["sum"]

    @cached_property
    def _unknown(self) -> bpr.Negatives:
        """Negatives for the validation log: nothing that training or validation have, and no look at the test log."""
        return bpr.Negatives(self.train.num_items, joined(self.train, self.validation).to(self.validation.device))

    def _trained(self, log: Log, generator: torch.Generator) -> tuple[MF, torch.Generator]:
        """A model after the inner training, and a generator for what is measured on it.

        Three streams, since masks of unequal size use unequally many numbers for their order: with common random
        numbers all of them begin from the same vectors and meet the same validation negatives.
        """
        start, course, measure = (_spawn(generator) for _ in range(3))
        model = self._drawn(start).to(log.device)
        if len(log):
            bpr.fit(model, log, self.inner, course)
        return model, measure

    def _drawn(self, generator: torch.Generator) -> MF:
        """A new model; where masks have one start in common, it is drawn for the first and copied for the others."""
        model, seed = MF(self.train.num_users, self.train.num_items, self.dim), generator.initial_seed()
        if self._start is not None and self._start[0] == seed:
            with torch.no_grad():
                model.table.copy_(self._start[1])
            return model
        model.reset_parameters(generator)
        if isinstance(self.estimator, Reinforce) and self.estimator.common:
            self._start = (seed, model.table.detach().clone())
        return model

    def _first_order(self, synthetic: Interactions, form: FirstOrder) -> Estimate:
        s = synthetic.scores.detach()
        users, items = synthetic.users, synthetic.items
        total, losses = torch.zeros_like(s), []
        for _ in range(form.samples):
            mask = sample(s.clamp(form.margin, 1 - form.margin), self.generator)
            model, draws = self._trained(synthetic.take(mask), _spawn(self.generator))
            again = draws.clone_state()
            losses.append(bpr.mean_loss(model, self.validation, again, negatives=self._unknown))
            drawn = self._unknown.draw(self.validation.users, draws)
            direction = bpr.mean_gradient(model, self.validation.users, self.validation.items, drawn)
            worth = bpr.along(model, users, items, self._unknown.draw(users, draws), direction)
            total.sub_(worth, alpha=form.step / form.samples)
        return Estimate(total, torch.tensor(losses, dtype=torch.float64))


def paper(train: Log, validation: Log, generator: torch.Generator, **options: Any) -> DConRec:
    """DConRec as the paper has it: one mask, no baseline, one full step of size 1, and projected gradient descent.

    The outer learning rate is 0.1, a tenth after each 100 steps, and 1e-4 at least (section 4.1.4). See
    `Setting.paper` for the pool and the budget.

    Args:
        train: As `DConRec`'s.
        validation: As `DConRec`'s.
        generator: As `DConRec`'s.
        options: Others of `DConRec`'s.
    """
    settings: dict[str, Any] = {
        "estimator": Reinforce(),
        "inner": bpr.Recipe(epochs=1, batch_size=None, optimizer=_plain_sgd(1.0), penalty=None, best=False),
        "outer": _plain_sgd(0.1),
        "decay": Decay(),
    }
    return DConRec(train, validation, generator, **(settings | options))


def authors(train: Log, validation: Log, generator: torch.Generator, **options: Any) -> DConRec:
    """DConRec as the authors' code has it: four masks, one pass of mini-batches, Adam on gradients that pile up.

    The learning rate is 0.01 at first, a tenth after each 70 steps, and 1e-5 at least. See `Setting.authors`.

    Args:
        train: As `DConRec`'s.
        validation: As `DConRec`'s.
        generator: As `DConRec`'s.
        options: Others of `DConRec`'s.
    """
    settings: dict[str, Any] = {
        "estimator": Reinforce(samples=4),
        "inner": inner_recipe(5e-4),
        "outer": Adam(lr=0.01),
        "decay": Decay(every=70, least=1e-5),
        "accumulate": True,
    }
    return DConRec(train, validation, generator, **(settings | options))


def inner_recipe(lr: float = 1e-2) -> bpr.Recipe:
    """How inner models are trained: one pass with Adam in batches of 4,096.

    Args:
        lr: Its learning rate. The authors' code has 5e-4 (Gowalla: 7e-4), with which one pass over a small log hardly
            changes the model.
    """
    return bpr.Recipe(epochs=1, batch_size=4096, optimizer=Adam(lr=lr), penalty=bpr.Norms(), best=False)


def _plain_sgd(lr: float) -> Sgd:
    return Sgd(lr=lr, momentum=0.0, weight_decay=0.0)


def _spawn(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
