"""k-center: no example of a class is far from a selected one."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from condensery.coresets.budget import PerClass, over_classes, rows_of

_CHUNK = 4096  # rows compared with a centre at a time, which bounds the memory that a step needs


def k_center(features: Tensor, y: Tensor, per_class: PerClass, *, generator: Generator) -> Tensor:
    """Select greedily the example farthest from those already selected.

    Sener & Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018,
    Algorithm 1, within each class. The largest distance to a selected example is at most twice the smallest
    possible, from any start; the first is drawn at random.

    Args:
        features: An embedding ``[n, ...]``, flattened to ``[n, d]``: pixels or a network's features.
        y: Class indices ``[n]``.
        per_class: How many of each class: one number, or one for each class.
        generator: A CPU generator, for the first example of each class.

    Returns:
        Indices into y, int64, sorted by class and then by order of selection; ties go to the lower index.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    >>> y = torch.zeros(4, dtype=torch.long)
    >>> 3 in k_center(x, y, 2, generator=torch.Generator().manual_seed(0))
    True
    """
    rows = rows_of(features, y)

    def pick(members: Tensor, count: int) -> Tensor:
        first = int(torch.randint(len(members), (), generator=generator))
        return farthest_first(rows[members.to(rows.device)].double(), count, first)

    return over_classes(y, per_class, pick)


def farthest_first(rows: Tensor, count: int, first: int) -> Tensor:
    """Positions of ``count`` of the rows ``[m, d]``, each the farthest from those before it."""
    nearest = rows.new_full((len(rows),), torch.inf)
    newest = torch.tensor(first, device=rows.device)
    chosen = [newest]
    while len(chosen) < count:
        nearest = torch.minimum(nearest, _distances(rows, rows[newest]))
        nearest[newest] = -1  # never again, even where all that is left are copies of selected examples
        newest = nearest.argmax()
        chosen.append(newest)
    return torch.stack(chosen)


def _distances(rows: Tensor, centre: Tensor) -> Tensor:
    """Squared distances of ``rows [m, d]`` from one centre, ``[m]``, by differences: no digits cancel."""
    return torch.cat([(chunk - centre).square().sum(dim=1) for chunk in torch.split(rows, _CHUNK)])
