"""What condensing a log learns: for each row of a pool of candidates, the probability that it is kept."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from condensery import masks
from condensery.data.interactions import Log, joined

__all__ = ["Compensation", "Interactions"]


class Compensation(StrEnum):
    """How rows that are kept whatever the mask (DConRec's compensation for long-tailed users) enter the budget."""

    COUNTED = "counted"
    """They are outside the mask and their number is taken from the budget: the whole log keeps within it."""

    ADDED = "added"
    """They are masked as any row and the union is taken afterwards (the paper): the log exceeds the budget."""

    REPEATED = "repeated"
    """They are masked as any row and appended once more, those sampled twice (the authors' code)."""


class Interactions(nn.Module):
    """A pool of interactions and the probability of each to be kept (DConRec eq. 8-11), under a budget.

    The parameter `scores` stays in ``{0 <= s <= 1, sum s <= budget}``. Rows that are always kept are outside the mask
    under `Compensation.COUNTED`: their scores are 1, are not learned, and count against the budget, so that the
    expected size of the log is the sum of `scores`. A snapshot holds the scores and a digest of the pool, not the
    pool.

    Args:
        pool: The candidates; ids of users and items are kept, ratings and times are not.
        budget: Rows that the result may have in expectation (those always kept included or not, see `compensation`).
        pseudo: bool ``[n]``, which rows were never recorded; default: none.
        always: bool ``[n]``, which rows are kept whatever the mask; default: none.
        compensation: How those enter the budget.
        start: Initial scores ``[n]``, projected; default: the same for all rows of the mask.

    Raises:
        ValueError: For an empty pool, parts that do not fit it, or a budget that the rows always kept exceed.

    Example:
        >>> import numpy as np
        >>> pool = Log(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2]), np.arange(2), np.arange(3))
        >>> kept = Interactions(pool, 2.0, always=torch.tensor([True, False, False, False]))
        >>> round(kept.expected_size, 6), len(kept.top(torch.Generator().manual_seed(0)))
        (2.0, 2)
    """

    users: Tensor
    items: Tensor
    source: Tensor
    always: Tensor

    def __init__(
        self,
        pool: Log,
        budget: float,
        *,
        pseudo: Tensor | None = None,
        always: Tensor | None = None,
        compensation: Compensation = Compensation.COUNTED,
        start: Tensor | None = None,
    ) -> None:
        super().__init__()
        if len(pool) == 0:
            raise ValueError("There is no interaction to choose from; give a pool that has some.")
        if not budget >= 0:
            raise ValueError(f"The budget is {budget}; give a number of rows of at least 0.")
        self.user_ids, self.item_ids = pool.user_ids, pool.item_ids
        self.budget, self.compensation = float(budget), compensation
        none = torch.zeros(len(pool), dtype=torch.bool, device=pool.device)
        columns = {"users": pool.users, "items": pool.items}
        columns |= {"source": _flags(pseudo, none, "pseudo"), "always": _flags(always, none, "always")}
        for name, column in columns.items():
            self.register_buffer(name, column, persistent=False)
        self.kept_always = int(self.always.sum())
        self._outside = compensation is Compensation.COUNTED and self.kept_always > 0
        if self._outside and self.kept_always > self.budget:
            raise ValueError(
                f"{self.kept_always} rows are always kept, more than the budget of {self.budget:g}; lower the "
                "threshold of the tail, raise the ratio, or leave the tail out of the budget."
            )
        self.scores = nn.Parameter(self._start(start, pool.device))
        self.project_()

    def _start(self, start: Tensor | None, device: torch.device) -> Tensor:
        n = len(self.users)
        if start is not None:
            if start.shape != (n,):
                raise ValueError(f"The start has shape {tuple(start.shape)}; give one number for each of {n} rows.")
            return start.detach().to(device, torch.float32).clone()
        masked = max(1, n - self.kept_always if self._outside else n)
        return torch.full((n,), float(masks.even(masked, self.mask_budget)[0]), device=device)

    # --- the budget

    @property
    def mask_budget(self) -> float:
        """What the budget leaves for rows that the mask decides about."""
        return self.budget - self.kept_always if self._outside else self.budget

    @torch.no_grad()
    def project_(self) -> None:
        """Move the scores to the nearest that keep within the budget (DConRec's algorithm 2, exactly)."""
        if not self._outside:
            self.scores.copy_(masks.project(self.scores, self.budget))
            return
        masked = ~self.always
        self.scores[masked] = masks.project(self.scores[masked], self.mask_budget)
        self.scores[self.always] = 1.0

    @property
    def expected_size(self) -> float:
        """Rows of a sampled log, on average."""
        s = self.scores.detach().double()
        if self.compensation is Compensation.REPEATED:
            return float(s.sum()) + self.kept_always
        return float(torch.where(self.always, 1.0, s).sum())

    def learned(self, gradient: Tensor) -> Tensor:
        """A gradient in the scores ``[n]`` with zeros for rows that are outside the mask."""
        return gradient.masked_fill(self.always, 0.0) if self._outside else gradient

    # --- logs

    @property
    def pool(self) -> Log:
        """All candidates."""
        return Log(self.users, self.items, self.user_ids, self.item_ids)

    def take(self, mask: Tensor) -> Log:
        """The log of a mask (bool ``[n]``), with the rows that are always kept."""
        if self.compensation is Compensation.REPEATED:
            return joined(self.pool.subset(mask), self.pool.subset(self.always))
        return self.pool.subset(mask | self.always)

    def sampled(self, generator: torch.Generator) -> Log:
        """A log with each row kept with its probability; its size is `expected_size` on average.

        Args:
            generator: A CPU generator.
        """
        return self.take(masks.sample(self.scores.detach(), generator))

    def top(self, generator: torch.Generator) -> Log:
        """The log of the most probable rows, with exactly the budget (rounded) and, where they are not counted in it,
        the rows that are always kept.

        Args:
            generator: A CPU generator: it chooses among equals.
        """
        s = self.scores.detach()
        if self._outside:
            s = s.masked_fill(self.always, 2.0)  # in any case among the first
        return self.take(masks.top(s, min(len(s), round(self.budget)), generator))

    def forward(self) -> Tensor:
        """The probabilities, ``[n]``, differentiable."""
        return self.scores

    # --- snapshots

    def get_extra_state(self) -> dict[str, Any]:
        """A digest of what the scores are about."""
        return {"pool": self._digest()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse scores of another pool.

        Raises:
            ValueError: If they are.
        """
        if state["pool"] != self._digest():
            raise ValueError("The stored scores belong to another pool or budget; prepare it as it was then.")

    def _digest(self) -> str:
        digest = hashlib.blake2b(f"{self.budget!r} {self.compensation}".encode(), digest_size=16)
        for column in (self.users, self.items, self.source, self.always):
            digest.update(column.cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _flags(given: Tensor | None, none: Tensor, name: str) -> Tensor:
    if given is None:
        return none.clone()
    if given.shape != none.shape or given.dtype != torch.bool:
        raise ValueError(f"{name} is {given.dtype} {tuple(given.shape)} for {len(none)} rows; give bool [{len(none)}].")
    return given.to(none.device)
