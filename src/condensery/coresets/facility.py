"""Facility location: every example of a class is similar to some selected one."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import Enum, auto

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from condensery.coresets.budget import PerClass, over_classes, rows_of

_BLOCK = 512  # candidates compared with the class at a time
_KEPT = 8192  # larger classes keep only the similarities that were used, smaller ones all (half a gigabyte)


class Similarity(Enum):
    """How alike two examples a and b are; never negative.

    ``COSINE`` is (1 + cos(a, b)) / 2. ``EUCLIDEAN`` is D - ||a - b||, where D, twice the largest distance
    from the class's mean, bounds every distance (D changes no selection).
    """

    COSINE = auto()
    EUCLIDEAN = auto()


def facility_location(
    features: Tensor,
    y: Tensor,
    per_class: PerClass,
    *,
    generator: Generator | None = None,
    similarity: Similarity = Similarity.EUCLIDEAN,
) -> Tensor:
    """Select greedily to maximise F(S) = sum_i max_{j in S} similarity(i, j) within each class.

    F is monotone and submodular, so the greedy selection reaches 1 - 1/e of the best (Nemhauser et al.,
    1978); the lazy evaluation with a priority queue (Minoux, 1978) makes the same selection with few
    evaluations. On gradient features this is CRAIG's objective (Mirzasoleiman et al., ICML 2020, Eq. 11).

    Args:
        features: An embedding ``[n, ...]``, flattened to ``[n, d]``: pixels or a network's features.
        y: Class indices ``[n]``.
        per_class: How many of each class: one number, or one for each class.
        generator: Not used, nothing is random; here so that every selection is called alike.
        similarity: How alike two examples are.

    Returns:
        Indices into y, int64, sorted by class and then by order of selection; ties go to the lower index.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [8.0], [9.0]])
    >>> facility_location(x, torch.zeros(5, dtype=torch.long), 2).tolist()
    [2, 3]
    """
    rows = rows_of(features, y)

    def pick(members: Tensor, count: int) -> Tensor:
        coverage = Coverage(rows[members.to(rows.device)].double(), similarity)
        return torch.tensor(lazy_greedy(coverage.gain, coverage.add, coverage.bounds(), count))

    return over_classes(y, per_class, pick)


class Coverage:
    """F(S) of one class, built up one example at a time.

    Args:
        rows: The class's features ``[m, d]``, float64.
        similarity: How alike two examples are.
    """

    def __init__(self, rows: Tensor, similarity: Similarity) -> None:
        self.rows = normalize(rows) if similarity is Similarity.COSINE else rows - rows.mean(dim=0)
        self.similarity = similarity
        self.diameter = 2 * torch.linalg.vector_norm(self.rows, dim=1).max()
        self.covered = rows.new_zeros(len(rows))
        scale = 1.0 if similarity is Similarity.COSINE else float(self.diameter)
        self.tick = 1e-9 * len(rows) * scale or 1.0
        # Each column is computed once: gains then never rise by rounding, which lazy evaluation relies on.
        self._columns: dict[int, Tensor] = {}

    def between(self, candidates: Tensor) -> Tensor:
        """Similarities ``[k, m]`` of the candidates ``[k, d]`` to all rows."""
        if self.similarity is Similarity.COSINE:
            return (1 + candidates @ self.rows.T) / 2
        return self.diameter - torch.cdist(candidates, self.rows)

    def column(self, j: int) -> Tensor:
        """Similarities ``[m]`` of candidate j to all rows."""
        if j not in self._columns:
            self._columns[j] = self.between(self.rows[j : j + 1])[0]
        return self._columns[j]

    def gain(self, j: int) -> float:
        """What adding candidate j would add to F, to nine digits of F's scale.

        Ties are common: two examples that would cover each other, and no third, gain exactly the same.
        Rounding to a grid keeps them ties, and as it is monotone a gain still never grows.
        """
        return self.tick * round(float((self.column(j) - self.covered).clamp(min=0).sum()) / self.tick)

    def add(self, j: int) -> None:
        """Put candidate j into S."""
        self.covered = torch.maximum(self.covered, self.column(j))

    def bounds(self) -> list[float]:
        """An upper bound of every candidate's gain from the empty set, ``m`` numbers.

        Computed in blocks, so it may differ from `gain` in its last digits; the margin keeps it above.
        """
        sums: list[Tensor] = []
        for start in range(0, len(self.rows), _BLOCK):
            block = self.between(self.rows[start : start + _BLOCK])
            sums.append(block.sum(dim=1))
            if len(self.rows) <= _KEPT:
                self._columns.update(enumerate(block, start))
        bounds: list[float] = (torch.cat(sums) + 1000 * self.tick).tolist()
        return bounds


def lazy_greedy(gain: Callable[[int], float], add: Callable[[int], None], bounds: list[float], count: int) -> list[int]:
    """Select ``count`` candidates as plain greedy selection would, evaluating few gains (Minoux, 1978).

    Args:
        gain: What candidate j would add now; it must never grow as others are added (submodularity).
        add: Adds candidate j.
        bounds: An upper bound of each candidate's gain from the empty set.
        count: How many to select.

    Returns:
        The candidates in order of selection; ties go to the lower index.
    """
    # (-bound, candidate, round in which the bound was exact): the heap's top has the largest bound.
    heap = [(-bound, j, -1) for j, bound in enumerate(bounds)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count:
        _, j, exact_in = heapq.heappop(heap)
        if exact_in == len(chosen):
            add(j)
            chosen.append(j)
        else:
            heapq.heappush(heap, (-gain(j), j, len(chosen)))
    return chosen
