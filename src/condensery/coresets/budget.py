"""How many examples of each class, and the walk over classes that every selection shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PerClass = int | Sequence[int]


def class_counts(y: Tensor, per_class: PerClass, classes: int | None = None) -> tuple[int, ...]:
    """Check a budget against the labels and write it out, one number a class.

    Args:
        y: Class indices ``[n]``, int64.
        per_class: The same number for every class, or one number for each class.
        classes: Number of classes; by default the length of ``per_class``, or the largest label plus one.

    >>> class_counts(torch.tensor([0, 0, 1, 1, 1]), 2)
    (2, 2)
    >>> class_counts(torch.tensor([0, 0, 1, 1, 1]), [1, 3])
    (1, 3)
    """
    _check_labels(y)
    if classes is None:
        classes = int(y.max()) + 1 if isinstance(per_class, int) else len(per_class)
    counts = (per_class,) * classes if isinstance(per_class, int) else tuple(per_class)
    if len(counts) != classes:
        raise ValueError(f"per_class has {len(counts)} numbers for {classes} classes: give one for each class")
    if int(y.max()) >= classes:
        raise ValueError(f"label {int(y.max())} has no number in per_class: give {int(y.max()) + 1} numbers")
    _check_supply(torch.bincount(y, minlength=classes).tolist(), counts)
    return counts


def _check_labels(y: Tensor) -> None:
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(f"labels must be class indices [n], int64, not {y.dtype} of shape {tuple(y.shape)}")
    if len(y) == 0 or int(y.min()) < 0:
        raise ValueError("labels must be class indices from 0, and at least one example must be given")


def _check_supply(supply: Sequence[int], counts: Sequence[int]) -> None:
    if min(counts) < 0:
        raise ValueError(f"per_class must not be negative, not {min(counts)}")
    for label, (there, wanted) in enumerate(zip(supply, counts, strict=True)):
        if wanted > there:
            raise ValueError(f"class {label} has {there} examples: ask for at most that many, not {wanted}")


def over_classes(y: Tensor, per_class: PerClass, pick: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Select within each class and join the results, class after class.

    Args:
        y: Class indices ``[n]``.
        per_class: The budget, as in `class_counts`.
        pick: Maps a class's indices ``[m]`` (ascending, on y's device) and its budget k >= 1 to k distinct
            *positions* in them, the first chosen first.

    Returns:
        Indices into y, int64 on y's device, sorted by class and then by order of selection.
    """
    chosen = []
    for label, count in enumerate(class_counts(y, per_class)):
        if count > 0:
            members = (y == label).nonzero().flatten()
            chosen.append(members[pick(members, count).to(y.device)])
    return torch.cat(chosen) if chosen else y.new_empty(0, dtype=torch.long)


def rows_of(features: Tensor, y: Tensor) -> Tensor:
    """Check that there is one row of features for each label, and flatten each to a vector: ``[n, d]``."""
    if len(features) != len(y):
        raise ValueError(f"{len(features)} rows of features do not fit {len(y)} labels: give one row for each")
    return features.detach().flatten(1)
