"""The examples with the highest scores."""

from __future__ import annotations

from torch import Generator, Tensor

from condensery.coresets.budget import PerClass, over_classes


def top(scores: Tensor, y: Tensor, per_class: PerClass, *, generator: Generator | None = None) -> Tensor:
    """Select the highest scores of each class; negate the scores for the lowest.

    Args:
        scores: One number an example, ``[n]``; may be infinite, not NaN.
        y: Class indices ``[n]``.
        per_class: How many of each class: one number, or one for each class.
        generator: Not used, nothing is random; here so that every selection is called alike.

    Returns:
        Indices into y, int64, sorted by class and then by score, highest first; ties go to the lower index.

    >>> import torch
    >>> top(torch.tensor([1.0, 3.0, 3.0, 2.0]), torch.tensor([0, 0, 0, 1]), [2, 1]).tolist()
    [1, 2, 3]
    """
    if scores.shape != y.shape:
        raise ValueError(f"scores {tuple(scores.shape)} must be one number a label: reduce them to {tuple(y.shape)}")
    if bool(scores.isnan().any()):
        raise ValueError("a score is NaN: find the examples on which the network diverged, and drop them")
    ranked = scores.detach()
    return over_classes(
        y, per_class, lambda m, k: ranked[m.to(ranked.device)].sort(descending=True, stable=True).indices[:k]
    )
