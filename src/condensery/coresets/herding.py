"""Herding: a greedy subset whose mean is the class's mean."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from condensery.coresets.budget import PerClass, over_classes, rows_of


def herding(
    features: Tensor,
    y: Tensor,
    per_class: PerClass,
    *,
    generator: Generator | None = None,
    unit_norm: bool = False,
) -> Tensor:
    """Select so that each step brings the mean of the selected as near the class mean as it can.

    Rebuffi et al., "iCaRL", CVPR 2017, Algorithm 4:
    ``p_k = argmin_x || mu - (phi(x) + sum_{j<k} phi(p_j)) / k ||``, each example at most once. On features of
    unit norm this is Welling's rule ("Herding dynamical weights to learn", ICML 2009), argmax of <w, phi(x)>
    with ``w += mu - phi``.

    Args:
        features: An embedding ``[n, ...]``, flattened to ``[n, d]``: pixels or a network's features.
        y: Class indices ``[n]``.
        per_class: How many of each class: one number, or one for each class.
        generator: Not used, nothing is random; here so that every selection is called alike.
        unit_norm: Whether to divide each row by its norm first, as iCaRL does.

    Returns:
        Indices into y, int64, sorted by class and then by order of selection; ties go to the lower index.

    >>> x = torch.tensor([[0.0], [1.0], [5.0]])
    >>> herding(x, torch.zeros(3, dtype=torch.long), 2).tolist()
    [1, 2]
    """
    rows = rows_of(features, y)

    def pick(members: Tensor, count: int) -> Tensor:
        own = rows[members.to(rows.device)].double()
        return _herd(normalize(own) if unit_norm else own, count)

    return over_classes(y, per_class, pick)


def _herd(rows: Tensor, count: int) -> Tensor:
    """Positions of the herd of ``rows [m, d]``.

    With s the sum of the selected, || k mu - s - phi ||^2 differs from || phi ||^2 - 2 <phi, k mu - s> by a
    constant, so a step is one matrix-vector product.
    """
    # About their own mean the rows lose no digits to a mean far from zero, and k mu becomes 0.
    rows = rows - rows.mean(dim=0)
    square, total = rows.square().sum(dim=1), rows.new_zeros(rows.shape[1])
    taken = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    chosen = []
    for _ in range(count):
        cost = (square + 2 * (rows @ total)).masked_fill(taken, torch.inf)
        best = cost.argmin()
        chosen.append(best)
        taken[best] = True
        total = total + rows[best]
    return torch.stack(chosen)
