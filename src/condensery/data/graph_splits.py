"""Splits of a graph's nodes, and whole numbers in proportion to the classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor

__all__ = ["Split", "SplitData", "drawn", "proportional", "stratified_split"]


class Split(NamedTuple):
    """Nodes that train, validate and test: int64 indices, disjoint."""

    train: Tensor
    validation: Tensor
    test: Tensor


class SplitData:
    """What data with features, labels and a split share: a graph's nodes, or a set of graphs.

    Attributes:
        x: Features of nodes ``[n, d]``.
        y: Class indices of what is split, int64.
        train: Indices into `y`, int64.
        validation: Likewise.
        test: Likewise.
        classes: Class names.
    """

    x: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    classes: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """How many features a node has: d."""
        return self.x.shape[1]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.x.device

    @property
    def split(self) -> Split:
        """What trains, validates and tests."""
        return Split(self.train, self.validation, self.test)

    @property
    def train_y(self) -> Tensor:
        """Labels of what trains, int64 ``[len(train)]``."""
        return self.y[self.train]

    def members(self, c: int) -> Tensor:
        """What trains of class `c`, int64, in the order of `train`.

        Raises:
            ValueError: For an index that is no class.
        """
        if not 0 <= c < self.num_classes:
            raise ValueError(f"Class {c} does not exist; choose one of 0 to {self.num_classes - 1}.")
        return self._members[c]

    @cached_property
    def _members(self) -> tuple[Tensor, ...]:
        order = self.train[self.train_y.argsort(stable=True)]
        return torch.split(order, torch.bincount(self.train_y, minlength=self.num_classes).tolist())


def stratified_split(
    y: Tensor,
    *,
    per_class_train: float = 20,
    validation: float = 500,
    test: float | None = 1000,
    generator: Generator,
) -> Split:
    """Draw training nodes from each class, and validation and test nodes from the rest in proportion to the classes.

    Args:
        y: int64 ``[n]``; negative labels are in no set.
        per_class_train: Nodes of each class as a whole number, or a share of each class below 1 (at least one node).
        validation: Nodes in all as a whole number, or a share of all labelled nodes below 1.
        test: Likewise; ``None`` for all that are left.
        generator: A CPU generator.

    Raises:
        ValueError: If the nodes do not suffice.

    Example:
        >>> y = torch.tensor([0, 1] * 10)
        >>> split = stratified_split(
        ...     y, per_class_train=2, validation=4, test=None, generator=torch.Generator().manual_seed(0))
        >>> [len(part) for part in split], y[split.train].sort().values.tolist()
        ([4, 4, 12], [0, 0, 1, 1])
    """
    y = y.cpu()
    sizes: list[int] = torch.bincount(y[y >= 0]).tolist()
    labelled = sum(sizes)
    train = [max(1, _count(per_class_train, size)) if size else 0 for size in sizes]
    for c, (need, size) in enumerate(zip(train, sizes, strict=True)):
        if need > size:
            raise ValueError(f"Class {c} has {size} nodes, {need} should train; ask for fewer or for a share.")
    left = [size - need for size, need in zip(sizes, train, strict=True)]
    totals = [_count(validation, labelled)]
    totals.append(sum(left) - totals[0] if test is None else _count(test, labelled))
    if min(totals) < 0 or sum(totals) > sum(left):
        raise ValueError(
            f"{sum(left)} nodes are left to validate and test, {totals[0]} and {max(totals[1], 0)} are asked for; ask "
            "for fewer or for shares."
        )
    held = proportional(left, totals[0])
    tested = proportional([a - b for a, b in zip(left, held, strict=True)], totals[1])
    parts: tuple[list[Tensor], ...] = ([], [], [])
    for c, counts in enumerate(zip(train, held, tested, strict=True)):
        members = (y == c).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator)]
        for part, chosen in zip(parts, shuffled[: sum(counts)].split(list(counts)), strict=True):
            part.append(chosen)
    return Split(*(torch.cat(part).sort().values for part in parts))


def proportional(sizes: Sequence[int], total: int, *, least: int = 0) -> list[int]:
    """Whole numbers in proportion to `sizes` with the sum `total`, by largest remainder (ties to the lower index).

    Args:
        sizes: What they are proportional to; 0 gets 0.
        total: Their sum.
        least: The smallest number for a size above 0. Who is raised to it takes from those farthest above their share.

    Raises:
        ValueError: If the total does not suffice for that, or there is nothing to be proportional to.

    Example:
        >>> proportional([10, 10, 79, 1], 10), proportional([10, 10, 79, 1], 10, least=1)
        ([1, 1, 8, 0], [1, 1, 7, 1])
    """
    there = sum(1 for size in sizes if size)
    if total < least * there or (total and not there):
        raise ValueError(f"{total} cannot be shared among {there} classes with {least} each; ask for more.")
    whole = max(sum(sizes), 1)
    counts = [max(least, total * size // whole) if size else 0 for size in sizes]
    # In units of 1 / whole, so that ties are exact.
    above = [count * whole - total * size for count, size in zip(counts, sizes, strict=True)]
    while (missing := total - sum(counts)) != 0:
        step = 1 if missing > 0 else -1
        able = [i for i, size in enumerate(sizes) if size and (step > 0 or counts[i] > least)]
        i = min(able, key=lambda i: step * above[i])
        counts[i] += step
        above[i] += step * whole
    return counts


def drawn(y: Tensor, seed: int, notes: list[str]) -> Split:
    """A split for a graph that brings none."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.bincount(y[y >= 0])
    if int(sizes[sizes > 0].min()) > 20 and int(sizes.sum()) >= 20 * len(sizes) + 1500:
        notes.append(f"The split was drawn with seed {seed}: 20 training nodes a class, 500 validate, 1,000 test.")
        split = stratified_split(y, generator=generator)
    else:
        notes.append(f"The split was drawn with seed {seed}: a fifth of each class trains, a fifth validates.")
        split = stratified_split(y, per_class_train=0.2, validation=0.2, test=None, generator=generator)
    return Split(*(part.to(y.device) for part in split))


def _count(asked: float, size: int) -> int:
    """A number as it is, a share below 1 as that of `size`, halves up."""
    if asked < 0 or (asked > 1 and asked != int(asked)):
        raise ValueError(f"{asked} is no number of nodes; give a whole number, or a share below 1.")
    return int(asked * size + 0.5) if isinstance(asked, float) and asked < 1 else int(asked)
