"""Passes through a network whose derivatives are written out: in pieces, in lower precision, compiled.

Most of the arithmetic of condensation is here. No graph of autograd goes through these functions: `mean_embedding` and
`mean_gradient` are for what is not differentiated, `pull` is itself the second derivative that an unrolled loop needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.lean import Lean
from condensery.net import Net

Statistics = Mapping[str, Tensor] | None


@dataclass(frozen=True, eq=False)
class Passes:
    """Mean features, gradients and second derivatives of a batch, computed in pieces whose sum is the whole.

    A piece is of a size that suits a CPU (`Net.chunk`), so the memory does not grow with the batch. With batch
    normalisation and no fixed statistics the batch stays whole.

    Args:
        net: The network.
        precision: Lower precision of parameters and images, e.g. ``torch.bfloat16``; sums over pieces stay in float32.
        compiled: Whether to compile the functions with ``torch.compile``: tens of seconds once, for each shape of a
            piece.
    """

    net: Net
    precision: torch.dtype | None = None
    compiled: bool = False

    def mean_embedding(self, theta: Tensor, x: Tensor) -> Tensor:
        """Mean feature ``[d]`` of images ``[n, c, h, w]`` under parameters theta ``[net.size]``."""
        total: Tensor | None = None
        low = self._lower(theta)
        with torch.no_grad():
            for (part,) in self._pieces(None, self._arranged(x)):
                value = self._features(low, part, None).to(theta).sum(0)
                total = value if total is None else total + value
        assert total is not None
        return total / len(x)

    def embed(self, theta: Tensor, x: Tensor, *, statistics: Statistics = None) -> Tensor:
        """Features ``[n, d]`` of images ``[n, c, h, w]`` under parameters theta ``[net.size]``, in theta's precision.

        Args:
            theta: Parameters ``[net.size]``.
            x: Images ``[n, c, h, w]``.
            statistics: Fixed batch-normalisation statistics.
        """
        low = self._lower(theta.detach())
        fixed = None if statistics is None else {k: self._lower(v) for k, v in statistics.items()}
        with torch.no_grad():
            pieces = self._pieces(statistics, self._arranged(x))
            return torch.cat([self._features(low, part, fixed).to(theta) for (part,) in pieces])

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """Logits ``[n, C]`` of images ``[n, c, h, w]`` under parameters theta, in full precision."""
        with torch.no_grad():
            return torch.cat([self.net(theta, part) for (part,) in self._pieces(None, x)])

    def mean_gradient(self, theta: Tensor, x: Tensor, y: Tensor, *, statistics: Statistics = None) -> Tensor:
        """Gradient ``[net.size]`` in theta of the mean cross entropy; arguments as `loss_and_gradient`'s."""
        return self.loss_and_gradient(theta, x, y, statistics=statistics)[1]

    def loss_and_gradient(
        self, theta: Tensor, x: Tensor, y: Tensor, *, statistics: Statistics = None
    ) -> tuple[Tensor, Tensor]:
        """The mean cross entropy, a scalar, and its gradient ``[net.size]`` in theta.

        Args:
            theta: Parameters ``[net.size]``.
            x: Images ``[n, c, h, w]``.
            y: Labels, int64 ``[n]`` or rows ``[n, C]``.
            statistics: Fixed batch-normalisation statistics.
        """
        value, total = theta.new_zeros(()), torch.zeros_like(theta)
        low = self._lower(theta.detach())
        fixed = None if statistics is None else {k: self._lower(v) for k, v in statistics.items()}
        for px, py in self._pieces(statistics, x, y):
            gradient, part = self._gradient_sum(low, self._lower(px), py, fixed)
            total += gradient
            value = value + part
        return value / len(y), total / len(y)

    def pull(
        self, theta: Tensor, a: Tensor, x: Tensor, y: Tensor, *, hessian: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """The derivatives of <g, a>, with g the gradient in theta of the mean cross entropy: one step of a pullback.

        Args:
            theta: Parameters ``[net.size]``.
            a: A vector ``[net.size]``.
            x: Images ``[n, c, h, w]``.
            y: Labels, int64 ``[n]`` or rows ``[n, C]``.
            hessian: Whether the derivative in theta is wanted.

        Returns:
            <g, a>; its derivatives in theta (the Hessian times a ``[net.size]``, or ``None``), in x, and in y (``None``
            for class indices).
        """
        product, total = theta.new_zeros(()), torch.zeros_like(theta) if hessian else None
        for_x, for_y = [], []
        low, n = self._lower(theta.detach()), len(y)
        for px, py in self._pieces(None, x, y):
            value, parts = self._product_sum(low, a, self._lower(px), py, hessian)
            product = product + value
            if total is not None:
                total += parts.pop(0)
            for_x.append(parts[0].to(x.dtype))
            for_y += parts[1:]
        return (
            product / n,
            None if total is None else total / n,
            torch.cat(for_x) / n,
            torch.cat(for_y) / n if for_y else None,
        )

    def _pieces(self, statistics: Statistics, x: Tensor, *others: Tensor) -> Sequence[tuple[Tensor, ...]]:
        """Pieces of nearly equal size: few different shapes to compile for."""
        couples = self.net.has_batch_norm and statistics is None
        # Compiled code keeps less in flight between layers: larger pieces cost it nothing and halve the calls.
        size = len(x) if couples else self.net.chunk(x) * (4 if self.compiled else 1)
        count = -(-len(x) // size)
        return list(zip(*(t.tensor_split(count) for t in (x, *others)), strict=True))

    def _lower(self, value: Tensor) -> Tensor:
        return value if self.precision is None or not value.is_floating_point() else value.to(self.precision)

    def _arranged(self, x: Tensor) -> Tensor:
        """Images in the lower precision, and in the memory format that is quick without derivatives."""
        low = self._lower(x)
        if low is x or x.dim() != 4:
            return self.net.arranged(x)
        return low.contiguous(memory_format=torch.channels_last)  # two thirds of the time, with every norm

    @cached_property
    def _features(self) -> Callable[[Tensor, Tensor, Statistics], Tensor]:
        def function(theta: Tensor, x: Tensor, statistics: Statistics) -> Tensor:
            return self.net.embed(theta, x, statistics=statistics)

        def lean(theta: Tensor, x: Tensor, statistics: Statistics) -> Tensor:
            with Lean():
                return function(theta, x, statistics)

        return _compile(function) if self.compiled else lean

    @cached_property
    def _gradient_sum(self) -> Callable[[Tensor, Tensor, Tensor, Statistics], tuple[Tensor, Tensor]]:
        def loss(theta: Tensor, x: Tensor, y: Tensor, statistics: Statistics) -> Tensor:
            logits = self.net(theta, x, statistics=statistics)
            return F.cross_entropy(logits if self.precision is None else logits.float(), y, reduction="sum")

        if self.compiled:
            return _compile(torch.func.grad_and_value(loss))

        def function(theta: Tensor, x: Tensor, y: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor]:
            leaf = theta.detach().requires_grad_()
            with torch.enable_grad():
                value = loss(leaf, x, y, statistics)
                return torch.autograd.grad(value, leaf)[0], value.detach()

        return function

    @cached_property
    def _product_sum(self) -> Callable[[Tensor, Tensor, Tensor, Tensor, bool], tuple[Tensor, list[Tensor]]]:
        """<g, a> of a piece and its derivatives in theta (if wanted), x and y (if rows).

        Reverse over reverse: PyTorch's second derivatives of normalisation layers are right in this mode, and compiled
        it is faster than forward over reverse.
        """

        def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            logits = self.net(theta, x)
            return F.cross_entropy(logits if self.precision is None else logits.float(), y, reduction="sum")

        def product(theta: Tensor, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return torch.func.grad(loss)(theta, x, y).to(a.dtype) @ a

        def wanted(y: Tensor, hessian: bool) -> tuple[int, ...]:
            return (*((0,) if hessian else ()), 2, *((3,) if y.is_floating_point() else ()))

        def functional(
            theta: Tensor, a: Tensor, x: Tensor, y: Tensor, hessian: bool
        ) -> tuple[Tensor, tuple[Tensor, ...]]:
            parts, value = torch.func.grad_and_value(product, argnums=wanted(y, hessian))(theta, a, x, y)
            return value, parts

        compiled = _compile(functional) if self.compiled else None

        def function(theta: Tensor, a: Tensor, x: Tensor, y: Tensor, hessian: bool) -> tuple[Tensor, list[Tensor]]:
            if compiled is not None:
                value, parts = compiled(theta, a, x, y, hessian)
                return value, list(parts)
            leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in (theta, a, x, y)]
            with torch.enable_grad():
                (g,) = torch.autograd.grad(loss(leaves[0], leaves[2], leaves[3]), leaves[0], create_graph=True)
                value = g.to(a.dtype) @ a
                parts = torch.autograd.grad(value, [leaves[i] for i in wanted(y, hessian)])
            return value.detach(), list(parts)

        return function


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    # Static shapes: there are two or three of them, and code for any shape is slower.
    return torch.compile(function, dynamic=False)
