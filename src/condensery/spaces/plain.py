"""The space without hyperparameters, which the others are built around."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.batch import Batch
from condensery.net import Net

__all__ = ["Plain", "cross_entropy"]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross entropy of the examples that count: those with a label of -1, or a row of zeros, do not.

    So the nodes of one graph can be seen whole while the labels of some of them are used.

    Args:
        logits: ``[n, C]``.
        y: int64 ``[n]`` or rows ``[n, C]``.

    Example:
        >>> both = cross_entropy(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, -1]))
        >>> round(both.item(), 4)
        0.6931
    """
    if not y.is_floating_point():
        return F.cross_entropy(logits, y, ignore_index=-1)
    return -(y * logits.log_softmax(1)).sum() / (y != 0).any(1).sum()


@dataclass(frozen=True, eq=False)
class Plain:
    """A network trained and validated by the mean cross entropy; no hyperparameter.

    Args:
        net: The architecture; a batch's ``x`` is what it is given.
    """

    net: Net
    size = 0

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Fresh weights ``[net.size]``."""
        return self.net.init(generator, device=device)

    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean cross entropy."""
        return self.misfit(self.outputs(theta, lam, batch, generator), theta, lam, batch)

    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Logits."""
        return self.net(theta, batch.x)

    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The mean cross entropy."""
        return cross_entropy(outputs, batch.y)

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean cross entropy."""
        return self.training(theta, lam, batch, generator)

    def starts(self, generator: torch.Generator) -> Tensor:
        """The empty point, ``[1, 0]``."""
        return torch.zeros(1, 0)

    def project(self, lam: Tensor) -> Tensor:
        """Itself."""
        return lam

    def tangent(self, gradient: Tensor) -> Tensor:
        """Itself."""
        return gradient
