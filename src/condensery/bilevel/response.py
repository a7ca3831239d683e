"""How the end of training answers to hyperparameters, and the hypergradients of any outer loss through it.

With theta*(lambda) the end of training, the hypergradient of an outer loss is

    d outer / d lambda  =  d_lambda outer + J^T d_theta outer,        J = d theta* / d lambda  [P, p].

J knows nothing of the outer loss. Several outer losses at one (theta, lambda), or one outer loss whose data are being
learned, share it, and by this formula the hypergradient is linear in the two gradients of the outer loss: deriving it
in the outer loss's data is a second derivative of that loss alone. By the implicit function theorem ``J = -H^-1 M^T``,
with H the Hessian of the training loss in theta and M its mixed derivative d_lambda d_theta ``[p, P]`` (Lorraine, Vicol
& Duvenaud, AISTATS 2020, eq. 2 and 4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from condensery.bilevel.implicit import Hessian
from condensery.bilevel.solve import Solve, fitted

__all__ = [
    "Curvature",
    "Explicit",
    "MatrixFree",
    "Parts",
    "Response",
    "hypergradient",
    "respond",
    "slopes",
    "unrolled_response",
]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of weights theta ``[P]`` and hyperparameters lambda ``[p]``: a scalar."""


class Response(Protocol):
    """J = d theta* / d lambda ``[P, p]`` as a linear map."""

    def pull(self, g: Tensor) -> Tensor:
        """J^T g ``[p]`` of a gradient ``[P]``, differentiable in it."""

    def push(self, u: Tensor) -> Tensor:
        """J u ``[P]`` of a change ``[p]``: how theta* moves."""

    def figures(self) -> dict[str, Tensor]:
        """How good it is: scalars on the device."""


class Parts(NamedTuple):
    """A hypergradient in its two parts.

    Attributes:
        value: The outer loss.
        direct: What it is at fixed theta, ``[p]``.
        indirect: What lambda does by moving theta*, ``[p]``.
    """

    value: Tensor
    direct: Tensor
    indirect: Tensor

    @property
    def total(self) -> Tensor:
        """The hypergradient ``[p]``."""
        return self.direct + self.indirect


def slopes(outer: Loss, theta: Tensor, lam: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """An outer loss with its gradients in theta ``[P]`` and, at fixed theta, in lambda ``[p]``; arguments as below."""
    leaves = [theta.detach().requires_grad_(), lam.detach().requires_grad_()]
    with torch.enable_grad():
        value = outer(*leaves)
        for_theta, direct = torch.autograd.grad(value, leaves, create_graph=create_graph, materialize_grads=True)
    return value if create_graph else value.detach(), for_theta, direct


def hypergradient(outer: Loss, theta: Tensor, lam: Tensor, response: Response, *, create_graph: bool = False) -> Parts:
    """The gradient of outer(theta*(lambda), lambda) in lambda, in its parts.

    Args:
        outer: The outer loss.
        theta: theta*(lambda), or near it, ``[P]``.
        lam: lambda ``[p]``.
        response: J there.
        create_graph: Whether the parts are differentiable in what the outer loss depends on besides theta and lambda,
            such as synthetic images: through its own second derivatives and nothing else.

    Example:
        >>> J = Explicit(torch.tensor([[2.0]]))  # theta* = 2 lambda
        >>> found = hypergradient(lambda t, l: (t * l).sum(), torch.tensor([6.0]), torch.tensor([3.0]), J)
        >>> found.direct.item(), found.indirect.item()  # d/dl 2 l^2 = 4 l = 12
        (6.0, 6.0)
    """
    value, for_theta, direct = slopes(outer, theta, lam, create_graph=create_graph)
    with torch.set_grad_enabled(create_graph):
        return Parts(value, direct, response.pull(for_theta))


class Curvature(Hessian):
    """The second derivatives of a training loss at one (theta, lambda), as products; its graph is built once.

    Args:
        loss: The training loss.
        theta: Where, ``[P]``.
        lam: Where, ``[p]``.
        damping: Added to the Hessian's diagonal.
    """

    def __init__(self, loss: Loss, theta: Tensor, lam: Tensor, *, damping: float = 0.0) -> None:
        super().__init__(loss, theta, [lam.detach().requires_grad_()], damping=damping)

    @cached_property
    def gradients(self) -> tuple[Tensor, Tensor]:
        """In theta ``[P]`` and lambda ``[p]``, with their graph."""
        with torch.enable_grad():
            value = self.loss(self.theta, *self.data)
            return torch.autograd.grad(value, [self.theta, *self.data], create_graph=True, materialize_grads=True)  # type: ignore[return-value]

    @cached_property
    def gradient(self) -> Tensor:
        """In theta ``[P]``, with its graph."""
        return self.gradients[0]

    def across(self, v: Tensor) -> Tensor:
        """M v ``[p]``: how the slope along v ``[P]`` changes with lambda."""
        return self.mixed(v)[0]

    def along(self, u: Tensor, v: Tensor | None = None) -> Tensor:
        """M^T u, or with a vector v ``[P]`` M^T u + H v (without damping), ``[P]``, in one backward pass."""
        pairs = [(self.gradients[1], u), (self.gradients[0], v)]
        live = [(g, w) for g, w in pairs if w is not None and g.requires_grad]
        if not live:
            return torch.zeros_like(self.theta)
        (found,) = torch.autograd.grad(
            [g for g, _ in live], self.theta, [w for _, w in live], retain_graph=True, materialize_grads=True
        )
        return found


class Explicit:
    """J as a matrix.

    After p solves, products with it cost nothing: right where p is small, or where the outer loss changes often while
    theta and lambda stay.

    Args:
        jacobian: J ``[P, p]``.
        residuals: Of the solves behind its columns, ``[p]``.
    """

    def __init__(self, jacobian: Tensor, residuals: Tensor | None = None) -> None:
        self.jacobian = jacobian
        self.residuals = jacobian.new_zeros(jacobian.shape[1]) if residuals is None else residuals

    def pull(self, g: Tensor) -> Tensor:
        """J^T g ``[p]``."""
        return g @ self.jacobian

    def push(self, u: Tensor) -> Tensor:
        """J u ``[P]``."""
        return self.jacobian @ u

    def figures(self) -> dict[str, Tensor]:
        """The largest residual of a column."""
        return {"residual": self.residuals.max() if len(self.residuals) else self.residuals.new_zeros(())}


class MatrixFree:
    """J by a solve for each product: right where p is large and each response serves one or two outer losses.

    Args:
        curvature: Of the training loss at (theta, lambda).
        solve: The solver of H v = b.
    """

    def __init__(self, curvature: Curvature, solve: Solve) -> None:
        self.curvature = curvature
        self.solve = fitted(solve, curvature, curvature.theta)
        self._residual = torch.zeros_like(curvature.theta[:1]).squeeze()

    def pull(self, g: Tensor) -> Tensor:
        """J^T g = -M H^-1 g ``[p]``; its derivative in g is another solve."""
        found: Tensor = _Pull.apply(g, self)  # type: ignore[no-untyped-call]
        return found

    def push(self, u: Tensor) -> Tensor:
        """J u = -H^-1 M^T u ``[P]``."""
        return -self._solved(self.curvature.along(u.detach()))

    def figures(self) -> dict[str, Tensor]:
        """The residual of the last solve."""
        return {"residual": self._residual}

    def pulled(self, g: Tensor) -> Tensor:
        """`pull` without a derivative."""
        return -self.curvature.across(self._solved(g))

    def _solved(self, b: Tensor) -> Tensor:
        solution = self.solve(self.curvature, b)
        self._residual = solution.residuals[-1]
        return solution.x


class _Pull(torch.autograd.Function):
    """A linear map and its transpose."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, response: MatrixFree) -> Tensor:
        ctx.response = response
        return response.pulled(g.detach())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        return ctx.response.push(outputs[0]), None


def respond(curvature: Curvature, solve: Solve, *, start: Tensor | None = None) -> Explicit:
    """J = -H^-1 M^T by the implicit function theorem, one solve for each of its p columns.

    Args:
        curvature: Of the training loss at a minimum theta, or near one.
        solve: The solver.
        start: A guess at J ``[P, p]``, say that of a point nearby.

    Example:
        >>> def loss(t, l): return 0.5 * (t - l.prod()).square().sum()  # theta* = l1 l2
        >>> from condensery.bilevel.solve import Direct
        >>> l = torch.tensor([3.0, 5.0])
        >>> respond(Curvature(loss, l.prod()[None], l), Direct()).jacobian.tolist()
        [[5.0, 3.0]]
    """
    lam, solve = curvature.data[0], fitted(solve, curvature, curvature.theta)
    columns, residuals = [], []
    for k, unit in enumerate(torch.eye(len(lam), dtype=lam.dtype, device=lam.device)):
        found = solve(curvature, -curvature.along(unit), None if start is None else start[:, k])
        columns.append(found.x)
        residuals.append(found.residuals[-1])
    if not columns:
        return Explicit(curvature.theta.detach().new_zeros(len(curvature.theta), 0))
    return Explicit(torch.stack(columns, 1), torch.stack(residuals))


def unrolled_response(
    loss: Callable[[int, Tensor, Tensor], Tensor],
    theta: Tensor,
    lam: Tensor,
    lr: float,
    *,
    steps: int,
    start: Tensor | None = None,
) -> tuple[Tensor, Explicit]:
    """theta_N and d theta_N / d lambda of N steps of gradient descent, carried forward with them.

    ``J_{t+1} = J_t - lr (H J_t + M^T)``: exact for the training as it is made, converged or not, in memory that does
    not grow with N, and for hyperparameters that a minimum does not depend on, such as the learning rate. A step costs
    one gradient and p products. At a fixed theta it is the Neumann series: N steps from J = 0 are its first N terms.

    Args:
        loss: ``loss(i, theta, lam)``, of step i.
        theta: theta_0 ``[P]``.
        lam: lambda ``[p]``.
        lr: Step size.
        steps: N.
        start: d theta_0 / d lambda ``[P, p]``, zero by default.

    Returns:
        theta_N, without a graph, and its response.
    """
    theta, lam = theta.detach(), lam.detach()
    jacobian = theta.new_zeros(len(theta), len(lam)) if start is None else start
    units = torch.eye(len(lam), dtype=lam.dtype, device=lam.device)
    for i in range(steps):
        here = Curvature(lambda t, h, i=i: loss(i, t, h), theta, lam)  # type: ignore[misc]
        slopes = [here.along(unit, column) for unit, column in zip(units, jacobian.T, strict=True)]
        if slopes:
            jacobian = jacobian - lr * torch.stack(slopes, 1)
        theta = theta - lr * here.gradient.detach()
    return theta, Explicit(jacobian)
