"""Training a recommender by Bayesian personalised ranking: what a user used should beat what was drawn for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from condensery.data.interactions import Log
from condensery.fitting import Adam, Sgd
from condensery.nets.recommender import MF, Recommender

__all__ = [
    "Negatives",
    "Norms",
    "Recipe",
    "Squares",
    "Trained",
    "along",
    "fit",
    "losses",
    "mean_gradient",
    "mean_loss",
    "training",
]

_DRAWN = 1 << 20  # triples whose negatives are drawn at once
_SCORED = 1 << 14  # triples whose loss is computed at once where no gradient is asked for
_COMPARED = 1 << 11  # triples that are compared with a direction at once: what is made of them stays in a cache


@dataclass(frozen=True)
class Negatives:
    """Items drawn uniformly for users: the other side of each comparison.

    Args:
        items: How many items there are.
        known: Pairs that are not drawn, by looking up each draw and drawing again; or ``None``: any item.
        rounds: Times that a known item is drawn again; one who knows nearly everything may keep a known item.

    Example:
        >>> import numpy as np
        >>> log = Log(torch.tensor([0, 0]), torch.tensor([0, 2]), np.arange(1), np.arange(3))
        >>> Negatives(3, known=log).draw(torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(0)).tolist()
        [1, 1, 1, 1]
    """

    items: int
    known: Log | None = None
    rounds: int = 50

    def draw(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """One item for each of `users`, int64 ``[n]``."""
        drawn = self._uniform(users, generator)
        if self.known is None:
            return drawn
        again = self.known.contains(users, drawn).nonzero().flatten()
        for _ in range(self.rounds):
            if len(again) == 0:
                break
            drawn[again] = self._uniform(users[again], generator)
            again = again[self.known.contains(users[again], drawn[again])]
        return drawn

    def _uniform(self, users: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randint(self.items, users.shape, generator=generator).to(users.device, non_blocking=True)


# --- what is minimised
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Squares:
    """``weight / 2`` times the mean over a batch of the three vectors' squared norms, as the BPR papers write it."""

    weight: float = 1e-4

    def __call__(self, block: Tensor) -> Tensor:
        """The penalty of one side of a batch, table rows ``[n, d]``."""
        return 0.5 * self.weight * block.square().sum() / len(block)

    def slope(self, block: Tensor) -> Tensor:
        """The factor that makes of `block` the penalty's gradient in it."""
        return block.new_tensor(self.weight / len(block))


@dataclass(frozen=True)
class Norms:
    """``weight`` times each side's Frobenius norm over the batch size: RecBole's ``EmbLoss``.

    The norm is not squared, so that its pull on a vector falls with the size of the batch; it hardly does anything.
    """

    weight: float = 1e-4

    def __call__(self, block: Tensor) -> Tensor:
        """The penalty of one side of a batch, table rows ``[n, d]``."""
        return self.weight * torch.linalg.vector_norm(block) / len(block)

    def slope(self, block: Tensor) -> Tensor:
        """The factor that makes of `block` the penalty's gradient in it."""
        return self.weight / (len(block) * torch.linalg.vector_norm(block).clamp_min(1e-12))


def losses(model: Recommender, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """``-log sigmoid(score of the positive - score of the negative)`` of each triple, ``[n]``, differentiable.

    Args:
        model: Any recommender.
        users: int64 ``[n]``.
        positives: Items, int64 ``[n]``.
        negatives: Items, int64 ``[n]``.
    """
    scores = model(torch.stack([users, positives, negatives], 1))
    return F.softplus(scores[:, 1] - scores[:, 0])


@torch.no_grad()
def mean_loss(model: Recommender, log: Log, generator: torch.Generator, *, negatives: Negatives | None = None) -> float:
    """The mean BPR loss over a log, one negative for each row.

    Args:
        model: Any recommender.
        log: The rows.
        generator: Draws the negatives: one of the same state draws the same.
        negatives: Where from; default: items that the user does not have in `log`.

    Raises:
        ValueError: For a log without rows.
    """
    if len(log) == 0:
        raise ValueError("There is no interaction to compute the loss on; give a log that has some.")
    drawn = (negatives or Negatives(log.num_items, log)).draw(log.users, generator)
    users, items = model.embeddings()
    total = torch.zeros((), dtype=torch.float64, device=log.device)
    for u, i, j in zip(*(column.split(_SCORED) for column in (log.users, log.items, drawn)), strict=True):
        gaps = (users.index_select(0, u) * (items.index_select(0, j) - items.index_select(0, i))).sum(1)
        total += F.softplus(gaps).sum()
    return float(total) / len(log)


@torch.no_grad()
def mean_gradient(
    model: MF, users: Tensor, positives: Tensor, negatives: Tensor, *, weights: Tensor | None = None
) -> Tensor:
    """The gradient of the mean loss of many triples in the table, ``[users + items, d]``, in bounded memory.

    Args:
        model: Matrix factorisation.
        users: int64 ``[n]``.
        positives: Items, int64 ``[n]``.
        negatives: Items, int64 ``[n]``.
        weights: What each triple counts in the mean, ``[n]``; default: the same.
    """
    total = torch.zeros_like(model.table)
    shares = torch.ones_like(users, dtype=total.dtype) if weights is None else weights.to(total.dtype)
    columns = (users, positives, negatives, shares)
    for *triple, share in zip(*(column.split(_SCORED) for column in columns), strict=True):
        rows, _, slopes, _ = _mf_slopes(model, tuple(triple))
        total.index_add_(0, rows, slopes if weights is None else slopes.mul_(share.repeat(3)[:, None]))
    return total / (len(users) if weights is None else shares.sum())


@torch.no_grad()
def along(model: MF, users: Tensor, positives: Tensor, negatives: Tensor, direction: Tensor) -> Tensor:
    """How fast each triple's loss rises along a direction of the table: its gradient times `direction`, ``[n]``.

    A model that takes a small step on some triples changes another loss, whose gradient is `direction`, by minus the
    step times these products: what each triple is worth, to first order.

    Args:
        model: Matrix factorisation.
        users: int64 ``[n]``.
        positives: Items, int64 ``[n]``.
        negatives: Items, int64 ``[n]``.
        direction: Of the table's shape, ``[users + items, d]``.
    """
    worth = []
    table = model.table.detach()
    for u, i, j in zip(*(column.split(_COMPARED) for column in (users, positives, negatives)), strict=True):
        rows = torch.cat([u, model.users + i, model.users + j])
        user, positive, negative = table.index_select(0, rows).split(len(u))
        of_user, of_positive, of_negative = direction.index_select(0, rows).split(len(u))
        difference = positive.sub_(negative)
        c = -torch.sigmoid(-(user * difference).sum(1))
        # c (<i - j, direction of u> + <u, direction of i - j>), added up before it is summed
        worth.append(difference.mul_(of_user).addcmul_(user, of_positive.sub_(of_negative)).sum(1).mul_(c))
    return torch.cat(worth) if worth else direction.new_zeros(0)


# --- training
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a recommender is trained.

    Args:
        epochs: Passes over the log at most.
        batch_size: Triples in a step; ``None``: the whole log (with one epoch and `Sgd`: DConRec's one step).
        optimizer: How the table moves. Dense Adam, whose fused step over the whole table costs no more than finding,
            fetching and storing the rows of a batch of thousands would, for tables of a hundred thousand rows.
        penalty: What keeps vectors short, or ``None``.
        reject: Whether negatives are drawn among items that the user does not have.
        every: Epochs between two scores, where early stopping is on.
        patience: Scores without a gain before training stops.
        best: Whether the table with the best score is the result, rather than the last.

    Raises:
        ValueError: For numbers that cannot be.
    """

    epochs: int = 300
    batch_size: int | None = 4096
    optimizer: Adam | Sgd = field(default_factory=lambda: Adam(lr=1e-3))
    penalty: Squares | Norms | None = field(default_factory=Squares)
    reject: bool = True
    every: int = 1
    patience: int = 10
    best: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 0 or min(self.batch_size or 1, self.every, self.patience) < 1:
            raise ValueError("A recipe needs a batch size, every and patience of at least 1, and epochs of at least 0.")


@dataclass
class Trained:
    """A recommender in training, or trained.

    Attributes:
        model: The recommender.
        epoch: Passes done.
        loss: Mean loss of the last pass, without the penalty.
        score: The latest score, ``None`` where there is none yet.
        best_score: The best one.
        best_epoch: When it was.
        triples: Comparisons trained on.
        seconds: Time spent in training, scores apart.
    """

    model: Recommender
    epoch: int = 0
    loss: float = float("nan")
    score: float | None = None
    best_score: float | None = None
    best_epoch: int = 0
    triples: int = 0
    seconds: float = 0.0

    @property
    def triples_per_second(self) -> float:
        """Speed of training."""
        return self.triples / self.seconds if self.seconds else 0.0


def training(
    model: Recommender,
    log: Log,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    score: Callable[[Recommender], float] | None = None,
    negatives: Negatives | None = None,
) -> Iterator[Trained]:
    """Train a recommender in place, handing it over after each pass.

    The gradient of matrix factorisation is written out and added into a dense buffer; other models use autograd. Where
    there is one pass only, rows of the table are moved from the first batch on that has them (see `_only_pass`).

    Args:
        model: Already initialised (``model.reset_parameters(generator)``).
        log: What to train on; repeated rows count as often as they are there.
        recipe: How.
        generator: A CPU generator for the order and the negatives.
        score: Higher is better; it stops training early (see `ranking.Validation`).
        negatives: Where negatives come from; default: by the recipe.

    Yields:
        The recommender after each pass.

    Raises:
        ValueError: For a log without rows, or of other users or items than the model's.
    """
    _check(model, log)
    negatives = negatives or Negatives(log.num_items, log if recipe.reject else None)
    trained, misses = Trained(model), 0
    optimizer = None if _has_one_pass(model, recipe) else recipe.optimizer.build(model)
    if optimizer is not None:
        model.table.grad = torch.zeros_like(model.table)
    while trained.epoch < recipe.epochs and misses < recipe.patience:
        start = time.perf_counter()
        batches = _batches(log, recipe, generator, negatives)
        if optimizer is None:
            total = _only_pass(trained.model, list(batches), recipe)
        else:
            total = _pass(trained.model, batches, recipe.penalty, optimizer)
        trained.epoch += 1
        trained.triples += len(log)
        trained.loss = float(total) / len(log)
        trained.seconds += time.perf_counter() - start
        if score is not None and trained.epoch % recipe.every == 0:
            trained.score = score(model)
            if trained.best_score is None or trained.score > trained.best_score:
                trained.best_score, trained.best_epoch, misses = trained.score, trained.epoch, 0
            else:
                misses += 1
        yield trained
    model.table.grad = None


def fit(
    model: Recommender,
    log: Log,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    score: Callable[[Recommender], float] | None = None,
    negatives: Negatives | None = None,
) -> Trained:
    """Train to the end; arguments as `training`'s. With a score and ``recipe.best`` the best table is put back."""
    trained, best = Trained(model), None
    for trained in training(model, log, recipe, generator, score=score, negatives=negatives):
        if recipe.best and trained.score is not None and trained.best_epoch == trained.epoch:
            best = model.table.detach().clone()
    if best is not None:
        with torch.no_grad():
            model.table.copy_(best)
    return trained


def _check(model: Recommender, log: Log) -> None:
    if len(log) == 0:
        raise ValueError("There is nothing to train on; give a log with at least one interaction.")
    if (model.users, model.items) != (log.num_users, log.num_items):
        raise ValueError(
            f"The model is of {model.users} users and {model.items} items, the log of {log.num_users} and "
            f"{log.num_items}; build it for the log."
        )


def _batches(
    log: Log, recipe: Recipe, generator: torch.Generator, negatives: Negatives
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The triples of a pass, a batch at a time: users, their items, and drawn ones, int64 ``[n]`` each."""
    batch = recipe.batch_size or len(log)
    order = torch.randperm(len(log), generator=generator).to(log.device, non_blocking=True)
    for block in order.split(max(batch, _DRAWN // batch * batch)):
        users, items = log.users[block], log.items[block]
        drawn = negatives.draw(users, generator)
        yield from zip(users.split(batch), items.split(batch), drawn.split(batch), strict=True)


def _pass(
    model: Recommender,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    penalty: Squares | Norms | None,
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    """Move the whole table after each batch; the summed loss."""
    step = _mf_step if isinstance(model, MF) else _any_step
    total = torch.zeros((), dtype=torch.float64, device=model.table.device)
    for triple in batches:
        total += step(model, triple, penalty)
        optimizer.step()
    return total


def _has_one_pass(model: Recommender, recipe: Recipe) -> bool:
    """Whether `_only_pass` does: weight decay would move rows that no batch has had."""
    return isinstance(model, MF) and recipe.epochs == 1 and not recipe.optimizer.weight_decay


@torch.no_grad()
def _only_pass(model: Recommender, batches: list[tuple[Tensor, Tensor, Tensor]], recipe: Recipe) -> Tensor:
    """The same as `_pass` for matrix factorisation from a new optimizer, with less to move.

    Neither SGD nor Adam moves a row before a batch has it. So rows are put in the order in which they come up, and
    each step is one over the rows so far: of a large table and a small log, a third of what dense steps touch.
    """
    rows = [torch.cat([u, model.users + i, model.users + j]) for u, i, j in batches]
    order, place, seen = _first_come(rows, len(model.table))
    table = model.table.detach().index_select(0, order)
    gradient, move = torch.zeros_like(table), _mover(recipe.optimizer, table)
    total = torch.zeros((), dtype=torch.float64, device=table.device)
    for own, count in zip(rows, seen, strict=True):
        own = place[own]
        vectors, out, gap = _slopes(table, own)
        gradient[:count].zero_().index_add_(0, own, _penalised(vectors, out, recipe.penalty))
        move(gradient, count)
        total += F.softplus(-gap).sum()
    model.table.index_copy_(0, order, table)
    return total


def _first_come(rows: list[Tensor], size: int) -> tuple[Tensor, Tensor, list[int]]:
    """The table's rows that batches have, first come first; each one's place; and how many had come by each batch."""
    first = torch.full((size,), len(rows), device=rows[0].device)
    for number in range(len(rows) - 1, -1, -1):
        first[rows[number]] = number
    seen = torch.bincount(first, minlength=len(rows) + 1).cumsum(0)[:-1].tolist()
    order = first.argsort(stable=True)[: seen[-1]]
    place = torch.empty_like(first)
    place[order] = torch.arange(len(order), device=order.device)
    return order, place, seen


def _mover(optimizer: Adam | Sgd, table: Tensor) -> Callable[[Tensor, int], None]:
    """A step of a new optimizer on the first so many rows of a table, given a gradient of the table's shape."""
    fused = True if table.device.type in ("cpu", "cuda") else None
    if isinstance(optimizer, Sgd):
        momentum = torch.zeros_like(table) if optimizer.momentum else None

        def sgd_step(gradient: Tensor, count: int) -> None:
            buffers: list[Tensor | None] = [None if momentum is None else momentum[:count]]
            sgd(
                [table[:count]],
                [gradient[:count]],
                buffers,
                fused=fused,
                weight_decay=0.0,
                momentum=optimizer.momentum,
                lr=optimizer.lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

        return sgd_step
    mean, square, done = torch.zeros_like(table), torch.zeros_like(table), torch.zeros((), device=table.device)
    beta1, beta2 = optimizer.betas

    def adam_step(gradient: Tensor, count: int) -> None:
        adam(
            [table[:count]],
            [gradient[:count]],
            [mean[:count]],
            [square[:count]],
            [],
            [done],
            fused=fused,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=optimizer.lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    return adam_step


def _any_step(model: Recommender, triple: tuple[Tensor, ...], penalty: Squares | Norms | None) -> Tensor:
    """Fill the table's gradient by autograd; the summed loss."""
    assert model.table.grad is not None
    model.table.grad.zero_()
    with torch.enable_grad():
        values = losses(model, *triple)
        loss = values.mean()
        if penalty is not None:
            u, i, j = triple
            for rows in (u, model.users + i, model.users + j):
                loss = loss + penalty(model.table[rows])
        loss.backward()
    return values.detach().sum()


@torch.no_grad()
def _mf_step(model: Recommender, triple: tuple[Tensor, ...], penalty: Squares | Norms | None) -> Tensor:
    """The same for matrix factorisation, written out."""
    assert model.table.grad is not None
    rows, vectors, out, gap = _mf_slopes(model, triple)
    model.table.grad.zero_().index_add_(0, rows, _penalised(vectors, out, penalty))
    return F.softplus(-gap).sum()


def _penalised(vectors: Tensor, out: Tensor, penalty: Squares | Norms | None) -> Tensor:
    """The gradient of a batch's mean loss and of the penalty, ``[3 n, d]``, in place of each triple's own."""
    n = len(out) // 3
    out /= n
    if penalty is not None:
        for part, gradient in zip(vectors.split(n), out.split(n), strict=True):
            gradient.addcmul_(part, penalty.slope(part))
    return out


def _mf_slopes(model: Recommender, triple: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Table rows ``[3 n]`` of a batch, and what `_slopes` says of them."""
    rows = torch.cat([triple[0], model.users + triple[1], model.users + triple[2]])
    return rows, *_slopes(model.table.detach(), rows)


def _slopes(table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is in the rows of a batch, each triple's own gradient in it, both ``[3 n, d]``, and score gaps ``[n]``.

    With c = -sigmoid(-gap) the gradient is c(i - j) in the user, cu in the positive and -cu in the negative.
    """
    n = len(rows) // 3
    vectors = table.index_select(0, rows)
    user, positive, negative = vectors.split(n)
    difference = positive - negative
    gap = (user * difference).sum(1)
    c = -torch.sigmoid(-gap)[:, None]
    out = torch.empty_like(vectors)
    torch.mul(difference, c, out=out[:n])
    torch.mul(user, c, out=out[n : 2 * n])
    torch.neg(out[n : 2 * n], out=out[2 * n :])
    return vectors, out, gap
