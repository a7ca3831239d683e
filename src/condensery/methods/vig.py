"""VIG: vanilla implicit gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from condensery.bilevel import Hessian
from condensery.kernels import net_tangent
from condensery.lean import Lean
from condensery.methods.linearised import Descent, Found, Implicit, Task
from condensery.methods.regression import OuterLoss, Squared
from condensery.net import Net


@dataclass
class VIG(Implicit):
    """Vanilla implicit gradients (Loo et al., ICML 2023, https://arxiv.org/abs/2302.06755), section 3.1.

    The implicit gradient of the network itself. With (X, Y) the synthetic set and T real images,

        theta* = argmin 1/2 |Y - f_theta(X)|^2 + lambda/2 |theta|^2,        loss = outer(f_theta*(T)),

    looked for near a network of a pool; the gradient is the implicit one, the only one. The inner problem is not
    convex: theta* is no minimum and the Hessian there may not be positive, which is what the paper shows by this method
    and `CIG` mends.

    Args:
        net: The architecture. With a normalisation its outputs do not depend on the size of the weights before, and
            with the L2 term there is no minimum at all: choose no norm.
        real: The real training images.
        generator: A CPU generator for networks, real batches and subsets.
        batch_real: Real images of a step.
        ridge: lambda for each stored image (before mirroring).
        loss: Outer loss; the squared error here, as in the inner problem: the paper comes to Platt's with RCIG.
        lr_images: AdaBelief's learning rate of the images.
        lr_labels: Of the labels, where they are learned.
        lr_temperature: For the temperature, where the loss learns one.
        ema: Decay of the average that is the result, or ``None`` for the last iterate.
        pool_size: Networks in the pool.
        life: Steps after which one starts anew.
        pool_steps: At most how many steps a drawn network is trained on the set.
        lr_pool: Adam's learning rate there.
        backward: Differentiate for this many examples of the set in each step (see `RCIG`).
        solver: `Descent`.
        precision: Lower precision for the loss on real images and its gradient; the Hessians keep the full one.
        damping: Added to the Hessian, in multiples of lambda.
    """

    loss: OuterLoss = field(default_factory=Squared)
    damping: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.damping < 0:
            raise ValueError(f"The damping is {self.damping}; give a number of at least 0.")
        if not isinstance(self.solver, Descent):
            raise ValueError("VIG's inner problem is not a ridge regression and has no dual; give Descent().")

    def _find(self, task: Task) -> Found:
        solver = self.solver
        assert isinstance(solver, Descent)
        problem = _Problem(self.net, task)
        theta = task.theta
        if solver.inner_steps:
            theta = self._inner_rate.run(lambda rate: problem.descend(task.theta, solver.inner_steps, rate))
        tangent = net_tangent(self.net, theta, task.x, centred=False, precision=self.precision)
        value, learned, g = self._outer_slope(tangent, None, task.real)
        everything = problem.hessians(theta, None)
        shift = problem.scale * task.lam * (1 + self.damping)
        second = solver.run(
            self._inverse_rate, solver.inverse_steps, lambda v: shift * v + sum(h(v) for h, _ in everything), g
        )
        self._note(None, second)
        indirect = [torch.zeros_like(task.x), torch.zeros_like(task.y)]
        for hessian, part in everything if task.only is None else problem.hessians(theta, task.only):
            for total, slope in zip(indirect, hessian.mixed(second.x), strict=True):
                total[part] = -slope
        factor = 1.0 if task.only is None else len(task.y) / len(task.only)
        direct = [torch.zeros_like(t) for t in indirect]
        return Found(value, learned, direct, [factor * part for part in indirect])


class _Problem:
    """The inner problem, [1/2 |Y - f_theta(X)|^2 + lambda/2 |theta|^2] / (n C), in pieces that suit the device."""

    def __init__(self, net: Net, task: Task) -> None:
        self.net, self.task = net, task
        self.scale = 1 / task.y.numel()

    def loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The first term."""
        return self.scale * 0.5 * (y - self.net(theta, x)).square().sum()

    def hessians(self, theta: Tensor, only: Tensor | None) -> list[tuple[Hessian, Tensor]]:
        """The first term's Hessian in theta in pieces, each with the examples it is of: all, or only some."""
        x, y = self.task.x, self.task.y
        index = torch.arange(len(y), device=y.device) if only is None else only
        parts = net_tangent(self.net, theta, x).pieces(index)

        def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            with Lean():
                return self.loss(theta, x, y)

        return [(Hessian(loss, theta, [x[p].requires_grad_(), y[p].requires_grad_()]), p) for p in parts]

    def descend(self, theta: Tensor, steps: int, rate: float) -> tuple[Tensor, Tensor]:
        """Steps of Adam from theta ``[p]``: where they end, and the losses on the way ``[steps + 1]``."""
        mean, square, losses = torch.zeros_like(theta), torch.zeros_like(theta), []
        for t in range(1, steps + 1):
            value, g = self._gradient(theta)
            losses.append(value)
            mean, square = mean.lerp(g, 0.1), square.lerp(g.square(), 0.001)
            theta = theta - rate * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        return theta, torch.stack([*losses, self._gradient(theta)[0]])

    def _gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        shift = self.scale * self.task.lam
        value, g = 0.5 * shift * theta.square().sum(), shift * theta
        tangent = net_tangent(self.net, theta, self.task.x)
        for x, y in zip(tangent.pieces(self.task.x), tangent.pieces(self.task.y), strict=True):
            leaf = theta.detach().requires_grad_()
            with torch.enable_grad():
                loss = self.loss(leaf, x, y)
            value, g = value + loss.detach(), g + torch.autograd.grad(loss, leaf)[0]
        return value, g
