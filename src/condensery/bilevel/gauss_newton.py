"""A curvature that is never negative, for weights that are not at a minimum.

The Hessian of a training loss is positive semidefinite at a minimum. Elsewhere, and that is where a network is after a
few steps, it has negative eigenvalues: conjugate gradients stop at them, and a Neumann series grows along them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from condensery.bilevel.response import Curvature

__all__ = ["CompositeLoss", "GaussNewton"]

Misfit: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of outputs, theta ``[P]`` and lambda ``[p]``: a scalar, convex in outputs and theta together."""


@dataclass(frozen=True, eq=False)
class CompositeLoss:
    """A training loss that knows its parts: ``loss(theta, lam) = misfit(outputs(theta, lam), theta, lam)``.

    Args:
        value: ``value(theta, lam)``, the loss.
        parts: ``parts(theta, lam) -> (outputs, misfit)``: what the network puts out, of any shape, and the loss as a
            function of it. What is random is drawn in `parts`. Theta itself is there
            for regularisers.

    Example:
        >>> def parts(theta, lam): return theta @ theta, lambda z, t, h: h.sum() * z
        >>> loss = CompositeLoss.of(parts)
        >>> loss(torch.tensor([1.0, 2.0]), torch.tensor([3.0])).item()
        15.0
    """

    value: Callable[[Tensor, Tensor], Tensor]
    parts: Callable[[Tensor, Tensor], tuple[Tensor, Misfit]]

    def __call__(self, theta: Tensor, lam: Tensor) -> Tensor:
        """The loss."""
        return self.value(theta, lam)

    @classmethod
    def of(cls, parts: Callable[[Tensor, Tensor], tuple[Tensor, Misfit]]) -> CompositeLoss:
        """The loss that the parts make."""

        def value(theta: Tensor, lam: Tensor) -> Tensor:
            outputs, misfit = parts(theta, lam)
            return misfit(outputs, theta, lam)

        return cls(value, parts)


class GaussNewton(Curvature):
    """The generalised Gauss-Newton matrix in place of the Hessian (Schraudolph, Neural Computation 14, 2002).

    With outputs z(theta), their Jacobian Z = dz / dtheta and the loss l(z, theta), convex in both together,

        G = [Z; I]^T (d2 l / d(z, theta)2) [Z; I],

    the Hessian of the loss with the outputs made linear in theta at this point. For the cross entropy with a weight
    decay w it is ``Z^T (d2 l / dz2) Z + w I``. It is positive semidefinite whatever the network, and the Hessian where
    the network is linear, or where dl / dz = 0, as where every example is fitted. The gradient and the mixed derivative
    M are those of the loss itself.

    A product costs one backward pass through the network's derivative, one through the network, and second derivatives
    of l alone. Its graph is built once, at a lambda that asks for no gradient: what a relaxed architecture leaves out
    then costs nothing.

    Args:
        loss: The training loss with its parts.
        theta: Where, ``[P]``.
        lam: Where, ``[p]``.
        damping: Added to the diagonal.

    Raises:
        ValueError: If the loss has no parts.

    Example:
        >>> loss = CompositeLoss.of(lambda t, h: (t.square(), lambda z, t, h: 0.5 * (z - h).square().sum()))
        >>> here = GaussNewton(loss, torch.tensor([1.0]), torch.tensor([3.0]))
        >>> here(torch.ones(1)).item()  # (2 t)^2; the Hessian is 6 t^2 - 2 h = 0
        4.0
    """

    def __init__(self, loss: CompositeLoss, theta: Tensor, lam: Tensor, *, damping: float = 0.0) -> None:
        if not isinstance(loss, CompositeLoss):
            raise ValueError(
                "A Gauss-Newton matrix needs to know a loss's outputs; give a CompositeLoss, or use Curvature."
            )
        super().__init__(loss, theta, lam, damping=damping)
        self._composite = loss

    @cached_property
    def gradients(self) -> tuple[Tensor, Tensor]:
        """In theta ``[P]`` and lambda ``[p]``, with their graph."""
        with torch.enable_grad():
            outputs, misfit = self._composite.parts(self.theta, self.data[0])
            value = misfit(outputs, self.theta, self.data[0])
            return torch.autograd.grad(value, [self.theta, *self.data], create_graph=True, materialize_grads=True)  # type: ignore[return-value]

    def __call__(self, v: Tensor) -> Tensor:
        """(G + damping I) v, ``[P]``."""
        return self.product(v) + self.damping * v

    def product(self, v: Tensor) -> Tensor:
        """G v ``[P]``, without damping."""
        (forth,) = _pull(self._back[1:], self._back[:1], [v])
        leaves, slopes = self._outer
        for_outputs, for_theta = _pull(leaves, slopes, [forth, v])
        (back,) = _pull([self.theta], [self._parts[0]], [for_outputs])
        return back + for_theta

    def along(self, u: Tensor, v: Tensor | None = None) -> Tensor:
        """M^T u, or with a vector v ``[P]`` M^T u + G v (without damping), ``[P]``."""
        found = super().along(u)
        return found if v is None else found + self.product(v)

    @cached_property
    def _parts(self) -> tuple[Tensor, Misfit]:
        with torch.enable_grad():
            return self._composite.parts(self.theta, self.data[0].detach())

    @cached_property
    def _outer(self) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """The outputs and theta as if they were independent, and the slopes of the loss in both, with their graph."""
        outputs, misfit = self._parts
        leaves = [outputs.detach().requires_grad_(), self.theta.detach().requires_grad_()]
        with torch.enable_grad():
            value = misfit(leaves[0], leaves[1], self.data[0].detach())
            return leaves, torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)

    @cached_property
    def _back(self) -> tuple[Tensor, Tensor]:
        """Z^T w and w: linear in w, so that its derivative along v is Z v."""
        outputs = self._parts[0]
        w = torch.zeros_like(outputs, requires_grad=True)
        with torch.enable_grad():
            (found,) = torch.autograd.grad(outputs, self.theta, w, create_graph=True, materialize_grads=True)
        return found, w


def _pull(inputs: Sequence[Tensor], outputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The sum of vector-Jacobian products, for each input; outputs without a graph do not count."""
    live = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not live:
        return tuple(torch.zeros_like(i) for i in inputs)
    return torch.autograd.grad(
        [o for o, _ in live], inputs, [v for _, v in live], retain_graph=True, materialize_grads=True
    )
