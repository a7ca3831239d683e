"""Passes: pieces, precision and compilation change rounding only."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.net import Net
from condensery.passes import Passes
from support import blobs, generator, tiny_net

TOLERANCE = {None: 1e-5, torch.bfloat16: 3e-2}


def whole(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = theta.clone().requires_grad_()
    return net.embed(theta, x).mean(0), torch.autograd.grad(F.cross_entropy(net(leaf, x), y), leaf)[0]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_agree_with_one_piece(precision: torch.dtype | None, norm: str, soft: bool) -> None:
    net = tiny_net(norm=norm)
    net._activation_bytes[(1, 8, 8)] = (4 << 20) // 5  # pieces of five
    theta = net.init(generator(0))
    x, y = blobs().whole()
    y = F.one_hot(y, 3).float() if soft else y
    passes = Passes(net, precision)
    feature, gradient = whole(net, theta, x, y)
    tolerance = TOLERANCE[precision]
    assert relative(passes.mean_embedding(theta, x), feature) < tolerance
    assert relative(passes.mean_gradient(theta, x, y), gradient) < tolerance
    assert passes.mean_gradient(theta, x, y).dtype == torch.float32


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_features_of_pieces_are_those_of_the_whole(precision: torch.dtype | None, norm: str) -> None:
    net = tiny_net(norm=norm)
    net._activation_bytes[(1, 8, 8)] = (4 << 20) // 5
    theta, x = net.init(generator(0)), blobs().whole()[0]
    fixed = net.statistics(theta, x) if norm == "batch" else None
    for statistics in {id(s): s for s in (None, fixed)}.values():
        features = Passes(net, precision).embed(theta.requires_grad_(), x, statistics=statistics)
        assert relative(features, net.embed(theta, x, statistics=statistics).detach()) < TOLERANCE[precision]
        assert features.dtype == torch.float32
        assert not features.requires_grad


def test_fixed_statistics_allow_pieces() -> None:
    net = tiny_net(norm="batch")
    net._activation_bytes[(1, 8, 8)] = (4 << 20) // 5
    theta = net.init(generator(0))
    x, y = blobs().whole()
    fixed = net.statistics(theta, x)
    leaf = theta.clone().requires_grad_()
    plain = torch.autograd.grad(F.cross_entropy(net(leaf, x, statistics=fixed), y), leaf)[0]
    assert relative(Passes(net).mean_gradient(theta, x, y, statistics=fixed), plain) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_compiled_agrees(precision: torch.dtype | None) -> None:
    net = tiny_net()
    theta = net.init(generator(0))
    x, y = blobs().whole()
    eager, compiled = Passes(net, precision), Passes(net, precision, compiled=True)
    assert relative(compiled.mean_embedding(theta, x), eager.mean_embedding(theta, x)) < TOLERANCE[precision]
    assert relative(compiled.embed(theta, x), eager.embed(theta, x)) < TOLERANCE[precision]
    assert relative(compiled.mean_gradient(theta, x, y), eager.mean_gradient(theta, x, y)) < TOLERANCE[precision]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def product(net: Net, theta: Tensor, a: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    """<g, a> and its derivatives in theta, x and soft labels, by autograd in one piece."""
    leaves = [theta.clone().requires_grad_(), x.clone().requires_grad_()]
    soft = [y.clone().requires_grad_()] if y.is_floating_point() else []
    loss = F.cross_entropy(net(*leaves), soft[0] if soft else y)
    (g,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
    return [(g @ a).detach(), *torch.autograd.grad(g @ a, [*leaves, *soft])]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_pull_agrees_with_autograd_in_one_piece(precision: torch.dtype | None, norm: str, soft: bool) -> None:
    net = tiny_net(norm=norm)
    net._activation_bytes[(1, 8, 8)] = (4 << 20) // 5
    theta, a = net.init(generator(0)), torch.randn(net.size, generator=generator(1))
    x, y = blobs().whole()
    y = F.one_hot(y, 3).float() if soft else y
    expected = product(net, theta, a, x, y)
    found = [t for t in Passes(net, precision).pull(theta, a, x, y) if t is not None]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert relative(one, other) < (1e-4 if precision is None else 6e-2)


def test_pull_can_leave_the_hessian_out() -> None:
    net = tiny_net()
    theta, a = net.init(generator(0)), torch.randn(net.size, generator=generator(1))
    x, y = blobs().whole()
    whole_, cut = Passes(net).pull(theta, a, x, y), Passes(net).pull(theta, a, x, y, hessian=False)
    assert cut[1] is None
    assert torch.equal(whole_[0], cut[0])
    assert torch.allclose(whole_[2], cut[2], rtol=1e-5, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("hessian", [True, False])
def test_compiled_pull_agrees(hessian: bool) -> None:
    net = tiny_net()
    theta, a = net.init(generator(0)), torch.randn(net.size, generator=generator(1))
    x, y = blobs().whole()
    for labels in (y, F.one_hot(y, 3).float()):
        eager = Passes(net).pull(theta, a, x, labels, hessian=hessian)
        compiled = Passes(net, compiled=True).pull(theta, a, x, labels, hessian=hessian)
        for one, other in zip(eager, compiled, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert relative(other, one) < 1e-4
