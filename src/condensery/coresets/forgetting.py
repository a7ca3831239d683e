"""Forgetting events: the examples that training keeps losing."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from condensery.coresets.budget import PerClass
from condensery.coresets.top import top


def forgetting(correct: Tensor, y: Tensor, per_class: PerClass, *, generator: Generator | None = None) -> Tensor:
    """Select the most forgotten examples of each class; those never learned come first.

    Toneva et al., "An empirical study of example forgetting during deep neural network learning", ICLR 2019,
    where an example that is never learned counts as forgotten infinitely often.

    Args:
        correct: Whether each example was classified correctly when seen in each epoch, ``[epochs, n]``, bool.
        y: Class indices ``[n]``.
        per_class: How many of each class: one number, or one for each class.
        generator: Not used, nothing is random; here so that every selection is called alike.

    Returns:
        Indices into y, int64, sorted by class and then by events, most first; ties go to the lower index.
    """
    events = forgetting_events(correct).double()
    return top(events.masked_fill(~correct.any(dim=0), torch.inf), y, per_class)


def forgetting_events(correct: Tensor) -> Tensor:
    """Count how often each example goes from right to wrong (Toneva et al. 2019, section 3).

    Args:
        correct: Whether each example was classified correctly, in each epoch, ``[epochs, n]``, bool.

    Returns:
        Counts ``[n]``, int64. 0 for an example never learned; only ``correct.any(0)`` tells it from one never
        forgotten.

    >>> forgetting_events(torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=torch.bool)).tolist()
    [2, 0]
    """
    if correct.ndim != 2 or correct.dtype != torch.bool:
        raise ValueError(f"the record must be bool [epochs, n], not {correct.dtype} of shape {tuple(correct.shape)}")
    return (correct[:-1] & ~correct[1:]).sum(dim=0)
