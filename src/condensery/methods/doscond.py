"""DosCond for node classification: one-step gradient matching."""

from __future__ import annotations

from dataclasses import dataclass

from condensery.methods.gcond import Distance, GCond, squared_distance

__all__ = ["DosCond"]


@dataclass
class DosCond(GCond):
    """One-step gradient matching (Jin et al., KDD 2022, https://arxiv.org/abs/2206.07746) for node classification.

    `GCond` whose networks are drawn anew at each step and never trained: ``outer=1, inner=0``. Its
    authors use a GCN, the squared distance of all gradients, and learning rates ten times GCond's.

    The paper's other half, a discrete structure with the binary concrete distribution, is for whole graphs; the authors
    leave it out for nodes, where the structure is GCond's.

    Args:
        outer: See `GCond`; the authors have 5 for ogbn-arxiv and 10 in the inductive setting.
        inner: See `GCond`.
        distance: See `GCond`.
        lr_features: See `GCond`.
        lr_structure: See `GCond`.
    """

    outer: int = 1
    inner: int = 0
    distance: Distance = squared_distance
    lr_features: float = 1e-3
    lr_structure: float = 1e-3
