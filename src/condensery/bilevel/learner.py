"""Training of weights under hyperparameters, a few steps at a time, and how its end answers to them.

A `Learner` trains and knows the `Response` of what it made: `Converged` by the implicit function theorem, with its
matrix or one solve a product, `Steps` by carrying the derivative along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from condensery.bilevel.response import Curvature, Explicit, MatrixFree, Response, respond, unrolled_response
from condensery.bilevel.solve import AutoNeumann, Solve

__all__ = ["AdamRule", "Converged", "Curving", "Learner", "Momentum", "Rule", "Steps", "Training"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""A training loss of theta ``[P]`` and lambda ``[p]``; a new mini-batch or draw each time where it is random."""


class Rule(Protocol):
    """A rule of descent without side effects."""

    def start(self, theta: Tensor) -> dict[str, Any]:
        """What it keeps between steps, before the first."""

    def step(self, theta: Tensor, gradient: Tensor, kept: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The weights ``[P]`` after a step, and what is kept then."""


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum, as PyTorch's SGD has it.

    Args:
        lr: Learning rate.
        momentum: Share of the velocity that is kept.
    """

    lr: float = 0.01
    momentum: float = 0.9

    def start(self, theta: Tensor) -> dict[str, Any]:
        """No velocity."""
        return {"velocity": torch.zeros_like(theta)}

    def step(self, theta: Tensor, gradient: Tensor, kept: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """See `Rule`."""
        velocity = self.momentum * kept["velocity"] + gradient
        return theta - self.lr * velocity, {"velocity": velocity}


@dataclass(frozen=True)
class AdamRule:
    """Adam, as PyTorch has it.

    Args:
        lr: Learning rate.
        betas: Of the moments.
        eps: Added to the root.
    """

    lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def start(self, theta: Tensor) -> dict[str, Any]:
        """Zero moments."""
        return {"mean": torch.zeros_like(theta), "square": torch.zeros_like(theta), "count": 0}

    def step(self, theta: Tensor, gradient: Tensor, kept: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """See `Rule`."""
        (beta1, beta2), count = self.betas, kept["count"] + 1
        mean = kept["mean"].lerp(gradient, 1 - beta1)
        square = kept["square"].lerp(gradient.square(), 1 - beta2)
        spread = (square / (1 - beta2**count)).sqrt() + self.eps
        theta = theta - self.lr / (1 - beta1**count) * mean / spread
        return theta, {"mean": mean, "square": square, "count": count}


@dataclass(frozen=True, eq=False)
class Training:
    """Weights on their way. It is never changed, a later state is another object.

    Attributes:
        theta: ``[P]``.
        kept: What the rule keeps.
        jacobian: d theta / d lambda ``[P, p]`` where it is carried along, or that of the last point, to start from.
    """

    theta: Tensor
    kept: dict[str, Any] = field(default_factory=dict)
    jacobian: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """The fields, for a snapshot."""
        return {"theta": self.theta, "kept": self.kept, "jacobian": self.jacobian}


class Curving(Protocol):
    """Makes the curvature of a training loss at a point: `Curvature`, of the Hessian, or `GaussNewton`."""

    def __call__(self, loss: Any, theta: Tensor, lam: Tensor, *, damping: float) -> Curvature:
        """At theta ``[P]`` and lambda ``[p]``, with a number added to the diagonal."""


class Learner(Protocol):
    """How weights are trained, and how they answer to hyperparameters."""

    def start(self, theta: Tensor) -> Training:
        """Fresh weights ``[P]``, not yet trained."""

    def train(self, training: Training, loss: Loss, lam: Tensor, steps: int) -> Training:
        """Some steps on, at hyperparameters ``[p]``."""

    def response(self, training: Training, loss: Loss, lam: Tensor) -> tuple[Response, Training]:
        """J at the weights as they are, and the training that goes on from there.

        Args:
            training: The weights.
            loss: The training loss, the same at each call.
            lam: lambda ``[p]``.
        """

    def restored(self, jacobian: Tensor | None, theta: Tensor, loss: Loss, lam: Tensor) -> Response:
        """The response of weights ``[P]`` again, from what `kept_of` gave."""


@dataclass(frozen=True)
class Converged:
    """Descent towards a minimum, and the implicit function theorem there.

    The response is exact at a minimum of the training loss. Away from one it is what the theorem gives at the weights
    as they are; the norm of the gradient and the residual of the solves say how far that is off.

    Args:
        rule: How the weights move.
        solve: The solver of H v = b.
        damping: Added to the diagonal in the solves.
        curvature: What stands for H: the Hessian, or away from a minimum `GaussNewton`, which cannot be indefinite.
            That one asks for a `CompositeLoss`.
        matrix: Whether J is made once, by p solves, or each product is a solve. With S changes of the outer loss's data
            at one point, the first costs p solves and the second about 1 + 2 S: take the matrix unless p is larger.
        warm: Whether the solves for J start from that of the last point of the same training.
    """

    rule: Rule = field(default_factory=Momentum)
    _: KW_ONLY
    solve: Solve = field(default_factory=lambda: AutoNeumann(10))
    damping: float = 0.0
    curvature: Curving = Curvature
    matrix: bool = True
    warm: bool = True

    def start(self, theta: Tensor) -> Training:
        """See `Learner`."""
        return Training(theta, self.rule.start(theta))

    def train(self, training: Training, loss: Loss, lam: Tensor, steps: int) -> Training:
        """See `Learner`."""
        theta, kept = training.theta, training.kept
        for _ in range(steps):
            leaf = theta.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(loss(leaf, lam), leaf)
            theta, kept = self.rule.step(theta, gradient, kept)
        return replace(training, theta=theta, kept=kept)

    def response(self, training: Training, loss: Loss, lam: Tensor) -> tuple[Response, Training]:
        """See `Learner`."""
        curvature = self.curvature(loss, training.theta, lam, damping=self.damping)
        if not self.matrix:
            return MatrixFree(curvature, self.solve), training
        found = respond(curvature, self.solve, start=training.jacobian if self.warm else None)
        return found, replace(training, jacobian=found.jacobian)

    def restored(self, jacobian: Tensor | None, theta: Tensor, loss: Loss, lam: Tensor) -> Response:
        """See `Learner`."""
        if jacobian is not None:
            return Explicit(jacobian)
        return MatrixFree(self.curvature(loss, theta, lam, damping=self.damping), self.solve)


@dataclass(frozen=True)
class Steps:
    """Plain gradient descent whose derivative in the hyperparameters is carried along (`unrolled_response`).

    Exact for the training as it is made, and the only one that sees learning rates; a step costs p products.

    Args:
        lr: Learning rate.
    """

    lr: float = 0.01

    def start(self, theta: Tensor) -> Training:
        """See `Learner`."""
        return Training(theta)

    def train(self, training: Training, loss: Loss, lam: Tensor, steps: int) -> Training:
        """See `Learner`."""
        theta, found = unrolled_response(
            lambda _, t, h: loss(t, h), training.theta, lam, self.lr, steps=steps, start=training.jacobian
        )
        return replace(training, theta=theta, jacobian=found.jacobian)

    def response(self, training: Training, loss: Loss, lam: Tensor) -> tuple[Response, Training]:
        """See `Learner`."""
        jacobian = training.jacobian
        return Explicit(
            training.theta.new_zeros(len(training.theta), len(lam)) if jacobian is None else jacobian
        ), training

    def restored(self, jacobian: Tensor | None, theta: Tensor, loss: Loss, lam: Tensor) -> Response:
        """See `Learner`."""
        assert jacobian is not None
        return Explicit(jacobian)
