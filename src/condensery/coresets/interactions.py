"""Selections of a log's rows: at random, users with few rows first, and what a proxy model finds hard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from condensery.bpr import Trained
    from condensery.data.interactions import Log

__all__ = ["Level", "inverse_propensity", "inverted_auc", "majority", "random", "svp"]

_COMPARED = 1 << 16  # rows scored at once


class Level(StrEnum):
    """What a selection via proxy takes: single rows, or users with all of theirs."""

    INTERACTION = "interaction"
    USER = "user"


def random(log: Log, budget: int, *, generator: Generator) -> Tensor:
    """Select rows at random without replacement.

    Args:
        log: What to select from, n rows.
        budget: How many rows.
        generator: A CPU generator.

    Returns:
        int64 ``[budget]``, in order of selection.

    Raises:
        ValueError: If the log has fewer rows.
    """
    _check(log, budget)
    return _shuffled(log, generator)[:budget]


def majority(log: Log, budget: int, *, generator: Generator, head: bool = False) -> Tensor:
    """Select all rows of the users with the fewest rows (DConRec section 4.1.2).

    No other selection that takes users whole includes more of them; a random one may, with a part of each.

    Equals are ordered at random, and of the last user only some rows, drawn at random, may fit.

    Args:
        log: What to select from, n rows.
        budget: How many rows.
        generator: A CPU generator.
        head: The users with the most rows instead ("head users" of Sachdeva et al.).

    Returns:
        int64 ``[budget]``, in order of selection.

    Raises:
        ValueError: If the log has fewer rows.

    Example:
        >>> import numpy as np
        >>> from condensery.data.interactions import Log
        >>> log = Log(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 0]), np.arange(2), np.arange(3))
        >>> majority(log, 1, generator=torch.Generator().manual_seed(0)).tolist()
        [3]
    """
    _check(log, budget)
    counts = log.user_counts.double()
    return _whole_users(log, counts if head else -counts, generator)[:budget]


def svp(
    log: Log,
    budget: int,
    importance: Tensor,
    *,
    generator: Generator,
    level: Level = Level.INTERACTION,
    propensity: bool = False,
) -> Tensor:
    """Select what a proxy model found hardest: SVP-CF (Sachdeva et al., WSDM 2022, section 3.2).

    Args:
        log: What to select from, n rows.
        budget: How many rows.
        importance: float ``[n]``, larger is kept first: see `inverted_auc`.
        generator: A CPU generator: it orders equals.
        level: Rows, or users by their mean importance with all their rows; of the last user only some may fit.
        propensity: Weigh with the inverse propensity of the user or item, whichever is larger (SVP-CF-Prop); of
            the user alone where users are selected.

    Returns:
        int64 ``[budget]``, in order of selection.

    Raises:
        ValueError: If the log has fewer rows or there is not one importance for each.
    """
    _check(log, budget)
    if importance.shape != (len(log),):
        raise ValueError(f"The importance has shape {tuple(importance.shape)}; give one for each of {len(log)} rows.")
    importance = importance.to(log.device).double()
    if level is Level.USER:
        if propensity:
            importance = importance * inverse_propensity(log.user_counts, len(log))[log.users]
        total = importance.new_zeros(log.num_users).index_add_(0, log.users, importance)
        return _whole_users(log, total / log.user_counts.clamp_min(1), generator)[:budget]
    if propensity:
        of_users, of_items = (inverse_propensity(c, len(log)) for c in (log.user_counts, log.item_counts))
        importance = importance * torch.maximum(of_users[log.users], of_items[log.items])
    order = _shuffled(log, generator)
    return order[importance[order].sort(descending=True, stable=True).indices][:budget]


@torch.no_grad()
def inverted_auc(
    log: Log,
    passes: Iterable[Trained],
    draw: Callable[[Tensor, Generator], Tensor],
    generator: Generator,
    *,
    negatives: int = 1,
) -> Tensor:
    """How often a proxy ranks a drawn item above the row's own, averaged over passes: importance for implicit feedback
    (Sachdeva et al. 2022, eq. 2), the counterpart of forgetting events.

    Args:
        log: The proxy's training log, n rows.
        passes: The proxy after each pass, as `bpr.training` yields it.
        draw: Negative items for users, as ``bpr.Negatives(log.num_items, log).draw``.
        generator: A CPU generator for the draws, not the one that the proxy is trained with.
        negatives: Items drawn for each row and pass.

    Returns:
        float64 ``[n]`` between 0 and 1.

    Raises:
        ValueError: If there is no pass or no negative.
    """
    if negatives < 1:
        raise ValueError(f"{negatives} negatives a row tell nothing; give at least 1.")
    wrong, count = torch.zeros(len(log), dtype=torch.float64, device=log.device), 0
    for trained in passes:
        users, items = trained.model.embeddings()
        for _ in range(negatives):
            drawn = draw(log.users, generator)
            parts = zip(*(column.split(_COMPARED) for column in (log.users, log.items, drawn)), strict=True)
            wrong += torch.cat([(users[u] * (items[j] - items[i])).sum(1) > 0 for u, i, j in parts])
            count += 1
    if count == 0:
        raise ValueError("The proxy was never trained; give a recipe of at least 1 epoch.")
    return wrong / count


def inverse_propensity(counts: Tensor, rows: int, *, a: float = 0.55, b: float = 1.5) -> Tensor:
    """One over the chance to be observed, by frequency (Jain et al., KDD 2016, with the usual a and b).

    Args:
        counts: How often each was observed, int64 ``[m]``.
        rows: Observations in all.
        a: Exponent.
        b: Offset.

    Returns:
        float64 ``[m]``, larger for what is rare.
    """
    c = (torch.tensor(float(rows), dtype=torch.float64).log() - 1) * (b + 1) ** a
    return 1 + c.to(counts.device) * (counts.double() + b) ** -a


def _whole_users(log: Log, worth: Tensor, generator: Generator) -> Tensor:
    """Rows by their user's worth ``[num_users]``, most first; a user's rows together and in random order."""
    rank = torch.empty_like(log.user_counts)
    users = torch.randperm(log.num_users, generator=generator).to(log.device)
    users = users[worth[users].sort(descending=True, stable=True).indices]
    rank[users] = torch.arange(log.num_users, device=log.device)
    order = _shuffled(log, generator)
    return order[rank[log.users[order]].sort(stable=True).indices]


def _shuffled(log: Log, generator: Generator) -> Tensor:
    return torch.randperm(len(log), generator=generator).to(log.device)


def _check(log: Log, budget: int) -> None:
    if not 0 <= budget <= len(log):
        raise ValueError(f"Cannot select {budget} of {len(log)} rows; ask for 0 to {len(log)}.")
