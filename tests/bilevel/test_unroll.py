"""Unrolled SGD: full, light and truncated against each other, closed forms and finite differences, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.bilevel import first_order_pullback, pullback, unroll, unroll_light
from support import blobs, generator, tiny_net


def problem(steps: int = 5) -> tuple[Any, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A ConvNet trained on mini-batches of images with soft labels, and a target to come close to."""
    net = tiny_net()
    x = blobs(per_class=2).whole().x.double().requires_grad_()
    y = torch.randn(6, 3, generator=generator(1), dtype=torch.float64).requires_grad_()
    theta = net.init(generator(0)).double().requires_grad_()
    target = net.init(generator(5)).double()
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    plan = [torch.randperm(6, generator=generator(10 + i))[:4] for i in range(steps)]

    def loss(i: int, t: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        index = plan[i]
        return F.cross_entropy(net(t, images[index]), labels[index].softmax(1))

    return loss, theta, x, y, lr, target


def test_light_is_full_to_rounding() -> None:
    loss, theta, x, y, lr, target = problem()
    full = unroll(loss, theta, [x, y], lr, steps=5)[-1]
    light = unroll_light(loss, theta, [x, y], lr, steps=5)
    assert torch.allclose(full, light, rtol=0, atol=1e-14)
    inputs = (x, y, lr, theta)
    first = torch.autograd.grad((full - target).square().sum(), inputs)
    second = torch.autograd.grad((light - target).square().sum(), inputs)
    for a, b in zip(first, second, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["x", "y", "lr", "theta"])
def test_full_against_finite_differences(name: str) -> None:
    loss, theta, x, y, lr, target = problem(3)
    inputs = {"x": x, "y": y, "lr": lr, "theta": theta}
    p = inputs[name]

    def outer() -> Tensor:
        return (unroll(loss, theta, [x, y], lr, steps=3)[-1] - target).square().sum()

    (gradient,) = torch.autograd.grad(outer(), p)
    direction = torch.randn(p.shape, generator=generator(3), dtype=torch.float64)
    eps = 1e-6
    with torch.no_grad():
        p += eps * direction
        up = outer()
        p -= 2 * eps * direction
        down = outer()
        p += eps * direction
    assert torch.allclose((gradient * direction).sum(), (up - down) / (2 * eps), rtol=1e-6)


def test_quadratic_closed_form() -> None:
    """loss = 1/2 |theta - x|^2: theta_N = x + (1 - lr)^N (theta_0 - x)."""
    x = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    n = 7
    last = unroll_light(lambda i, t, d: 0.5 * (t - d).square().sum(), theta, [x], lr, steps=n)
    keep = (1 - lr.detach()) ** n
    assert torch.allclose(last, x + keep * (theta - x))
    for_x, for_theta, for_lr = torch.autograd.grad(last.sum(), (x, theta, lr))
    assert torch.allclose(for_x, torch.full_like(x, 1 - keep))
    assert torch.allclose(for_theta, torch.full_like(x, keep))
    assert torch.allclose(for_lr, (-n * (1 - lr) ** (n - 1) * (theta - x)).sum())


@pytest.mark.parametrize("grad_from", [0, 2, 4, 5])
def test_truncation_is_unrolling_from_a_detached_point(grad_from: int) -> None:
    loss, theta, x, y, lr, target = problem()
    thetas = unroll(loss, theta, [x, y], lr, steps=5, grad_from=grad_from)
    assert torch.allclose(thetas[-1], unroll(loss, theta, [x, y], lr, steps=5)[-1])
    outer = (thetas[-1] - target).square().sum()
    if grad_from == 5:
        assert not outer.requires_grad
        return
    gradient = torch.autograd.grad(outer, x)[0]
    tail = [t.detach() for t in thetas[grad_from:]]
    cotangent = 2 * (tail[-1] - target)
    parts, _, _ = pullback(loss, tail, [x, y], lr.detach(), cotangent, first=grad_from)
    assert torch.allclose(gradient, parts[0], rtol=1e-10, atol=1e-13)


def test_first_order_is_exact_for_one_step_and_parts_from_it_after() -> None:
    loss, theta, x, y, lr, target = problem(20)
    cosines = []
    for steps in (1, 20):
        thetas = [t.detach() for t in unroll(loss, theta, [x, y], 8 * lr, steps=steps)]
        cotangent = 2 * (thetas[-1] - target)
        exact, slope, _ = pullback(loss, thetas, [x, y], 8 * lr.detach(), cotangent)
        near, other = first_order_pullback(loss, thetas, [x, y], 8 * lr.detach(), cotangent)
        cosines.append(float(F.cosine_similarity(exact[0].flatten(), near[0].flatten(), dim=0)))
        if steps == 1:
            assert torch.allclose(exact[0], near[0], rtol=1e-12, atol=1e-15)
            assert torch.allclose(slope, other)
    assert abs(cosines[0] - 1) < 1e-9
    assert 0.3 < cosines[1] < 0.9999


def test_light_leaves_whole_numbers_alone() -> None:
    x = torch.randn(4, 2, generator=generator(), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0])
    theta = torch.zeros(4, dtype=torch.float64)
    lr = torch.tensor(0.1, dtype=torch.float64)
    last = unroll_light(lambda i, t, d, y: F.cross_entropy(d @ t.view(2, 2), y), theta, [x, labels], lr, steps=3)
    full = unroll(lambda i, t, d, y: F.cross_entropy(d @ t.view(2, 2), y), theta, [x, labels], lr, steps=3)[-1]
    a, b = (torch.autograd.grad(v.square().sum(), x)[0] for v in (last, full))
    assert torch.allclose(a, b)


def test_grad_from_out_of_range_is_told() -> None:
    with pytest.raises(ValueError, match="grad_from is 4 of 3 steps; give a number from 0 to 3"):
        unroll(lambda i, t: t.sum(), torch.zeros(1), [], 0.1, steps=3, grad_from=4)
