"""What a search space is: how hyperparameters enter training and validation, and where they may lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from condensery.batch import Batch

__all__ = ["Box", "Composite", "Domain", "Simplices", "Space", "composite", "project_simplex"]


class Space(Protocol):
    """Hyperparameters lambda ``[size]`` of a model with weights theta ``[P]``, relaxed so that both losses are smooth.

    Of HCDC's extended search space (Ding et al. 2024, https://arxiv.org/abs/2405.17535, appendices G and H) it says
    which points belong to it; for discrete hyperparameters, which of them are the candidates: the trajectories start
    there. Both losses are means over the batch, so that sets of different sizes can be compared. What is random in a
    loss (an augmentation, an operation drawn for each edge of a supernet) comes from the generator, once a call.
    """

    @property
    def size(self) -> int:
        """How many hyperparameters there are: p."""

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Fresh weights theta ``[P]`` drawn from a CPU generator."""

    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """What training minimises, a scalar, twice differentiable in theta ``[P]`` and lambda ``[size]``."""

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """What the hyperparameters are judged by, a scalar, twice differentiable in theta, lambda and the batch."""

    def starts(self, generator: torch.Generator) -> Tensor:
        """Where trajectories begin, ``[k, size]``: every candidate, in a random order, or one point of a continuum."""

    def project(self, lam: Tensor) -> Tensor:
        """The nearest point ``[size]`` of the space."""

    def tangent(self, gradient: Tensor) -> Tensor:
        """The part of a gradient ``[size]`` (or of rows ``[k, size]``) along the space, differentiable.

        Of a space of fewer dimensions than coordinates only this part says how the loss changes: two losses rank points
        alike if these parts agree.
        """


@runtime_checkable
class Composite(Space, Protocol):
    """A space whose training loss is ``misfit(outputs(theta, lam, batch), theta, lam, batch)``, the misfit being convex
    in outputs and theta together, as the cross entropy of logits is with a weight decay.

    `bilevel.GaussNewton` asks for it. What is random in a training loss is random in the outputs.
    """

    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """What the network puts out in training, logits for instance."""

    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The training loss, a scalar, from the outputs."""


def composite(space: Space) -> Composite:
    """The space, if it knows the parts of its training loss.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(space, Composite):
        raise ValueError(
            f"{type(space).__name__} does not say what its training loss is a function of; give it the methods "
            "outputs and misfit, or use the curvature of the Hessian."
        )
    return space


class Domain(Protocol):
    """Where hyperparameters may lie."""

    @property
    def size(self) -> int:
        """How many numbers a point is."""

    def draw(self, generator: torch.Generator) -> Tensor:
        """A random point ``[size]``, float32."""

    def project(self, lam: Tensor) -> Tensor:
        """The nearest point ``[size]``."""

    def tangent(self, gradient: Tensor) -> Tensor:
        """The part of gradients ``[..., size]`` along the domain."""


@dataclass(frozen=True)
class Box:
    """Each number between two bounds of its own; uniform draws.

    Args:
        low: Lower bounds.
        high: Upper bounds.

    Raises:
        ValueError: If the bounds are not as many, finite and in order.

    Example:
        >>> Box((0.0, -1.0), (1.0, 1.0)).project(torch.tensor([2.0, -3.0])).tolist()
        [1.0, -1.0]
    """

    low: Sequence[float]
    high: Sequence[float]

    def __post_init__(self) -> None:
        pairs = list(zip(self.low, self.high, strict=False))
        if len(self.low) != len(self.high) or not all(math.isfinite(a + b) and a <= b for a, b in pairs):
            raise ValueError(f"Bounds {list(self.low)} and {list(self.high)} make no box; give finite ones in order.")

    @property
    def size(self) -> int:
        """How many numbers a point is."""
        return len(self.low)

    def draw(self, generator: torch.Generator) -> Tensor:
        """A point ``[size]``, uniformly."""
        low, high = torch.tensor(list(self.low)), torch.tensor(list(self.high))
        return low + (high - low) * torch.rand(self.size, generator=generator)

    def project(self, lam: Tensor) -> Tensor:
        """Each number clipped to its bounds."""
        return torch.minimum(torch.maximum(lam, lam.new_tensor(list(self.low))), lam.new_tensor(list(self.high)))

    def tangent(self, gradient: Tensor) -> Tensor:
        """All of it: a box has as many dimensions as coordinates."""
        return gradient


@dataclass(frozen=True)
class Simplices:
    """Groups of shares: within each, numbers of at least 0 whose sum is 1. Draws are uniform on each simplex.

    Args:
        groups: How many numbers each group has.

    Raises:
        ValueError: If a group has fewer than 2.

    Example:
        >>> shares = Simplices((2, 3))
        >>> shares.project(torch.tensor([2.0, 0.0, 0.5, 0.5, 0.5])).round(decimals=3).tolist()
        [1.0, 0.0, 0.3330000042915344, 0.3330000042915344, 0.3330000042915344]
    """

    groups: Sequence[int]

    def __post_init__(self) -> None:
        if not self.groups or min(self.groups) < 2:
            raise ValueError(f"Groups are {list(self.groups)}; give at least one, of 2 numbers or more each.")

    @property
    def size(self) -> int:
        """How many numbers a point is."""
        return sum(self.groups)

    def draw(self, generator: torch.Generator) -> Tensor:
        """A point ``[size]``: normalised exponential variables are uniform on a simplex."""
        drawn = -torch.rand(self.size, generator=generator, dtype=torch.float64).clamp(min=1e-300).log()
        return torch.cat([part / part.sum() for part in drawn.split(list(self.groups))]).float()

    def project(self, lam: Tensor) -> Tensor:
        """The nearest shares, group by group."""
        return torch.cat([project_simplex(part) for part in lam.split(list(self.groups))])

    def tangent(self, gradient: Tensor) -> Tensor:
        """Each group without its mean: moving all shares of a group alike leaves the simplex."""
        parts = gradient.split(list(self.groups), -1)
        return torch.cat([part - part.mean(-1, keepdim=True) for part in parts], -1)


def project_simplex(v: Tensor) -> Tensor:
    """The nearest point to `v` ``[k]`` with entries of at least 0 that sum to 1 (Held, Wolfe & Crowder 1974).

    Example:
        >>> project_simplex(torch.tensor([0.5, 0.9, -3.0])).tolist()
        [0.30000001192092896, 0.699999988079071, 0.0]
    """
    falling, _ = v.sort(descending=True)
    excess = (falling.cumsum(0) - 1) / torch.arange(1, len(v) + 1, device=v.device, dtype=v.dtype)
    # The threshold is the largest of the averages that leave their own entries positive.
    count = (falling > excess).sum()
    return (v - excess.gather(0, (count - 1).view(1))).clamp(min=0)
