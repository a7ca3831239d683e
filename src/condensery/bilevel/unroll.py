"""Differentiable SGD on a flat parameter vector: full, truncated, and exact with constant memory.

Every function takes ``loss(i, theta, *data) -> scalar``: the training loss of step i at parameters theta ``[p]``, as
a function of the tensors that are learned (images, labels). Choosing a mini-batch and augmenting it belong inside,
and must depend on i alone, because the constant-memory forms evaluate a step twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Loss = Callable[..., Tensor]


def unroll(
    loss: Loss, theta: Tensor, data: Sequence[Tensor], lr: Tensor | float, *, steps: int, grad_from: int = 0
) -> list[Tensor]:
    """theta_{i+1} = theta_i - lr * d/dtheta loss(i, theta_i, data), differentiable by autograd.

    Args:
        loss: See the module.
        theta: theta_0 ``[p]``.
        data: What the loss depends on and is learned.
        lr: Step size; a tensor if it is learned.
        steps: N.
        grad_from: Steps before this one carry no derivative (SATM eq. 8 keeps the last third: ``grad_from = N - N //
            3``).

    Returns:
        theta_0 to theta_N. Memory grows with ``steps - grad_from``.

    Example:
        >>> def loss(i, theta, x): return 0.5 * (theta - x).square().sum()
        >>> x = torch.tensor([1.0], requires_grad=True)
        >>> last = unroll(loss, torch.zeros(1), [x], 0.5, steps=2)[-1]
        >>> last.item(), torch.autograd.grad(last.sum(), x)[0].item()
        (0.75, 0.75)
    """
    if not 0 <= grad_from <= steps:
        raise ValueError(f"grad_from is {grad_from} of {steps} steps; give a number from 0 to {steps}.")
    thetas = [theta]
    for i in range(steps):
        if i < grad_from:
            theta = (theta - lr * _gradient(loss, i, theta, data)).detach()
        else:
            live = theta if theta.requires_grad else theta.detach().requires_grad_()
            with torch.enable_grad():
                (g,) = torch.autograd.grad(loss(i, live, *data), live, create_graph=True)
                theta = theta - lr * g
        thetas.append(theta)
    return thetas


def unroll_light(loss: Loss, theta: Tensor, data: Sequence[Tensor], lr: Tensor, *, steps: int) -> Tensor:
    """theta_N of `unroll`, with the same derivative in theta_0, the data and lr, and one step's graph in memory.

    Only the parameter vectors of the forward pass are kept (N vectors of p numbers); the backward pass walks them
    back (`pullback`). It can be differentiated once.

    Args:
        loss: See the module.
        theta: theta_0 ``[p]``.
        data: What the loss depends on and is learned.
        lr: Step size, a scalar tensor.
        steps: N.
    """
    return _Light.apply(loss, steps, theta, lr, *data)  # type: ignore[no-untyped-call]


def pullback(
    loss: Loss,
    thetas: Sequence[Tensor],
    data: Sequence[Tensor],
    lr: Tensor | float,
    cotangent: Tensor,
    *,
    first: int = 0,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Pull a gradient in theta_N back through recorded steps, one at a time.

    With g_i = d/dtheta loss(i, theta_i, data) and a_N the cotangent, each step back is one double-backward call:

        a_i = a_{i+1} - lr * H_i a_{i+1},   data += -lr * d/d data <g_i, a_{i+1}>,   lr += -<g_i, a_{i+1}>.

    Args:
        loss: See the module.
        thetas: theta_first to theta_N, without graphs.
        data: What the loss depends on.
        lr: Step size.
        cotangent: a_N ``[p]``, the outer gradient in theta_N.
        first: Index of the first recorded step, for the loss.

    Returns:
        The gradients in each of `data`, in lr (a scalar) and in theta_first.
    """
    data = [d.detach().requires_grad_(d.is_floating_point()) for d in data]
    learned = [d for d in data if d.requires_grad]
    totals = [torch.zeros_like(d) for d in learned]
    for_lr, a = cotangent.new_zeros(()), cotangent
    for i in reversed(range(len(thetas) - 1)):
        theta = thetas[i].detach().requires_grad_()
        with torch.enable_grad():
            (g,) = torch.autograd.grad(loss(first + i, theta, *data), theta, create_graph=True)
            product = g @ a
        hessian, *parts = torch.autograd.grad(product, [theta, *learned], allow_unused=True)
        for total, part in zip(totals, parts, strict=True):
            if part is not None:
                total -= lr * part
        for_lr = for_lr - product.detach()
        a = a if hessian is None else a - lr * hessian
    found = iter(totals)
    return [next(found) if d.requires_grad else torch.zeros_like(d) for d in data], for_lr, a


def first_order_pullback(
    loss: Loss,
    thetas: Sequence[Tensor],
    data: Sequence[Tensor],
    lr: Tensor | float,
    cotangent: Tensor,
    *,
    first: int = 0,
) -> tuple[list[Tensor], Tensor]:
    """TESLA's constant-memory sum (Cui et al., ICML 2023): `pullback` with every Hessian left out, a_i = a_N.

    An approximation for more than one step: how the data of a step move the parameters of the later ones is dropped,
    so it parts from the exact gradient as lr times the number of steps times the curvature grows. For one step it is
    exact.

    Args:
        loss: See the module.
        thetas: theta_first to theta_N, without graphs.
        data: What the loss depends on.
        lr: Step size.
        cotangent: The outer gradient in theta_N ``[p]``.
        first: Index of the first recorded step, for the loss.

    Returns:
        The gradients in each of `data` and in lr.
    """
    data = [d.detach().requires_grad_(d.is_floating_point()) for d in data]
    totals, for_lr = [torch.zeros_like(d) for d in data], cotangent.new_zeros(())
    for i in range(len(thetas) - 1):
        parts, slope, _ = pullback(loss, thetas[i : i + 2], data, lr, cotangent, first=first + i)
        totals = [total + part for total, part in zip(totals, parts, strict=True)]
        for_lr = for_lr + slope
    return totals, for_lr


class _Light(torch.autograd.Function):
    """`unroll_light`: a forward pass without graphs and `pullback` behind it."""

    @staticmethod
    def forward(ctx: Any, loss: Loss, steps: int, theta: Tensor, lr: Tensor, *data: Tensor) -> Tensor:
        thetas = [theta.detach()]
        for i in range(steps):
            thetas.append(thetas[-1] - lr.detach() * _gradient(loss, i, thetas[-1], data))
        ctx.loss = loss
        ctx.count = len(thetas)
        ctx.save_for_backward(*thetas, lr, *data)
        return thetas[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        thetas, (lr, *data) = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        for_data, for_lr, for_theta = pullback(ctx.loss, thetas, data, lr.detach(), outputs[0])
        return (
            None,
            None,
            for_theta,
            for_lr,
            *(g if d.is_floating_point() else None for g, d in zip(for_data, data, strict=True)),
        )


def _gradient(loss: Loss, i: int, theta: Tensor, data: Sequence[Tensor]) -> Tensor:
    """d/dtheta of a step's loss, without a graph."""
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(loss(i, leaf, *(d.detach() for d in data)), leaf)[0]
