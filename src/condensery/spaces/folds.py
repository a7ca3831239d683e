"""Which fold of a cross-validation is held out, as a hyperparameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.batch import Batch
from condensery.net import Net
from condensery.spaces.space import Simplices

__all__ = ["FoldInput", "Folds", "in_folds"]


class FoldInput(NamedTuple):
    """Examples that know their fold: the ``x`` of a `Batch`.

    Attributes:
        examples: What the network is given, ``[n, ...]``.
        fold: int64 ``[n]``, the fold of each.
    """

    examples: Any
    fold: Tensor


def in_folds(fold: Tensor) -> Callable[[Batch], Batch]:
    """A function that tells the examples of a batch, in order, their folds ``[n]``."""
    return lambda batch: Batch(FoldInput(batch.x, fold), batch.y)


@dataclass(frozen=True, eq=False)
class Folds:
    """M-fold cross-validation as a search space (HCDC, appendix K): the hyperparameter says which fold is held out.

    The paper has M numbers in {0, 1}, of which one is 1, and does not say how they are relaxed. Here lambda is a point
    of the simplex of M shares: the share to which each fold is held out. With f(x) the fold of example x, l its cross
    entropy and L_i the mean over fold i,

        L_train = sum_x (1 - lambda_f(x)) l(x) / sum_x (1 - lambda_f(x)),        L_val = sum_i lambda_i L_i.

    At a corner these are the losses of the cross-validation exactly, whatever the sizes of the folds. The simplex is
    connected and compact, as the theorem asks, and convex. A validation batch whose examples have no folds is one for
    all: its mean cross entropy, which depends on lambda by way of theta alone.

    Args:
        net: The architecture.
        folds: M.

    Raises:
        ValueError: If there are fewer than 2 folds.
    """

    net: Net
    _: KW_ONLY
    folds: int = 20

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"A cross-validation of {self.folds} folds trains on nothing; give 2 or more.")

    @property
    def size(self) -> int:
        """M."""
        return self.folds

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Fresh weights ``[net.size]``."""
        return self.net.init(generator, device=device)

    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The weighted mean over the examples, which must know their folds."""
        return self.misfit(self.outputs(theta, lam, batch, generator), theta, lam, batch)

    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Logits."""
        return self._logits(theta, batch)

    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The weighted mean over the examples, which must know their folds."""
        if not isinstance(batch.x, FoldInput):
            raise ValueError("Training examples do not know their folds; give them some with `in_folds`.")
        kept = (1 - lam)[batch.x.fold]
        return (kept * F.cross_entropy(outputs, batch.y, reduction="none")).sum() / kept.sum()

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The sum over folds of share times mean; folds of which the batch has no example are left out of it."""
        losses = F.cross_entropy(self._logits(theta, batch), batch.y, reduction="none")
        return lam @ self.means(losses, batch.x.fold) if isinstance(batch.x, FoldInput) else losses.mean()

    def means(self, losses: Tensor, fold: Tensor) -> Tensor:
        """The mean of each fold ``[M]`` of the numbers ``[n]``; 0 where there is none."""
        counts = losses.new_zeros(self.folds).index_add(0, fold, torch.ones_like(losses))
        return losses.new_zeros(self.folds).index_add(0, fold, losses) / counts.clamp(min=1)

    def starts(self, generator: torch.Generator) -> Tensor:
        """The corners ``[M, M]``, in a random order."""
        return torch.eye(self.folds)[torch.randperm(self.folds, generator=generator)]

    def project(self, lam: Tensor) -> Tensor:
        """The nearest shares."""
        return self._shares.project(lam)

    def tangent(self, gradient: Tensor) -> Tensor:
        """Without the mean over the folds."""
        return self._shares.tangent(gradient)

    @cached_property
    def _shares(self) -> Simplices:
        return Simplices((self.folds,))

    def _logits(self, theta: Tensor, batch: Batch) -> Tensor:
        return self.net(theta, batch.x.examples if isinstance(batch.x, FoldInput) else batch.x)
