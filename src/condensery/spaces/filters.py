"""Filters of graph networks as hyperparameters: HCDC's continuous space on graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.net import Net
from condensery.nets.filters import two_parameter
from condensery.spaces.plain import cross_entropy
from condensery.spaces.space import Box

__all__ = ["Filters"]


@dataclass(frozen=True, eq=False)
class Filters:
    """Polynomial graph filters (HCDC, appendix G and figure 6): ``C = I + l1 L + l2 (2 / lambda_max L - I)``.

    lambda = (l1, l2) is in the network, so both losses depend on it directly; the network's weights are trained.

    Args:
        net: A `nets.graph.Polynomial`.
        box: Bounds of lambda.
        coefficients: From lambda to the coefficients of the Chebyshev polynomials ``[order + 1]``, as many as the
            network has; ``lambda lam: lam`` searches them all.

    Raises:
        ValueError: If the network has no coefficients, or not as many.
    """

    net: Net
    _: KW_ONLY
    box: Box = field(default_factory=lambda: Box((-1.0, -1.0), (1.0, 1.0)))
    coefficients: Callable[[Tensor], Tensor] = two_parameter

    def __post_init__(self) -> None:
        held = dict(self.net.module.named_buffers()).get("coefficients")
        count = len(self.coefficients(torch.zeros(self.size)))
        if held is None or len(held) != count:
            raise ValueError(f"The network has no {count} filter coefficients; give a Polynomial built with as many.")

    @property
    def size(self) -> int:
        """Numbers of a filter."""
        return self.box.size

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Fresh weights ``[net.size]``."""
        return self.net.init(generator, device=device)

    def logits(self, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """Of all nodes under the filter lambda, ``[n, C]``."""
        return self.net(theta, batch.x, statistics={"coefficients": self.coefficients(lam)})

    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean cross entropy of the nodes that count."""
        return self.misfit(self.outputs(theta, lam, batch, generator), theta, lam, batch)

    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The logits."""
        return self.logits(theta, lam, batch)

    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The mean cross entropy of the nodes that count."""
        return cross_entropy(outputs, batch.y)

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean cross entropy of the nodes that count."""
        return self.training(theta, lam, batch, generator)

    def starts(self, generator: torch.Generator) -> Tensor:
        """A filter, uniformly in the box, ``[1, size]``."""
        return self.box.draw(generator)[None]

    def project(self, lam: Tensor) -> Tensor:
        """Into the box."""
        return self.box.project(lam)

    def tangent(self, gradient: Tensor) -> Tensor:
        """All of it."""
        return gradient
