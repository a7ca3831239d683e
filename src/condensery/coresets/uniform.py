"""Random examples of each class: the row that every table of results needs."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from condensery.coresets.budget import PerClass, over_classes


def uniform(features: Tensor | None, y: Tensor, per_class: PerClass, *, generator: Generator) -> Tensor:
    """Select at random without replacement.

    Args:
        features: Not looked at; here so that every selection is called alike.
        y: Class indices ``[n]``.
        per_class: How many of each class: one number, or one for each class.
        generator: A CPU generator.

    Returns:
        Indices into y, int64, sorted by class and then by order of selection.

    >>> y = torch.tensor([0, 1, 0, 1])
    >>> sorted(uniform(None, y, 2, generator=torch.Generator().manual_seed(0)).tolist())
    [0, 1, 2, 3]
    """
    return over_classes(y, per_class, lambda m, k: torch.randperm(len(m), generator=generator)[:k])
