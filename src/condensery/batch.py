"""The one currency of the library: a batch of examples with their labels."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Examples and labels.

    Attributes:
        x: What a network eats. Opaque to the core: an image tensor ``[n, c, h, w]``, a graph, user-item pairs.
        y: Labels: int64 class indices ``[n]`` (hard), or float ``[n, classes]`` (soft or learned).
    """

    x: Any
    y: Tensor
