"""The transformed convolutions are the ones written out, with every derivative, and are taken where they pay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from condensery import winograd
from condensery.lean import Lean
from condensery.net import Net
from condensery.nets import ConvNet, Norm
from support import generator

LAST = torch.channels_last


def drawn(*shape: int, seed: int, **kinds: Any) -> Tensor:
    return torch.randn(shape, generator=generator(seed), **kinds)


def images(*shape: int, seed: int, **kinds: Any) -> Tensor:
    return drawn(*shape, seed=seed, **kinds).contiguous(memory_format=LAST)


@pytest.mark.parametrize("tiles", [1, 6, 1000])
@pytest.mark.parametrize("shape", [(3, 5, 8, 12), (5, 2, 4, 4), (2, 3, 16, 4)])
def test_values_and_gradients(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], tiles: int) -> None:
    monkeypatch.setattr(winograd, "_TILES", tiles)
    x = images(*shape, seed=0, dtype=torch.float64).requires_grad_()
    weight = drawn(7, shape[1], 3, 3, seed=1, dtype=torch.float64).requires_grad_()
    g = images(shape[0], 7, *shape[2:], seed=2, dtype=torch.float64)
    plain = F.conv2d(x, weight, padding=1)
    for_x, for_weight = torch.autograd.grad(plain, (x, weight), g)
    with torch.no_grad():
        assert torch.allclose(winograd.convolve(x, weight), plain, atol=1e-11)
        assert torch.allclose(winograd.input_gradient(g, weight), for_x, atol=1e-11)
        assert torch.allclose(winograd.weight_gradient(g, x), for_weight, atol=1e-11)
        assert torch.allclose(winograd.weight_gradient(g.contiguous(), x), for_weight, atol=1e-11)


def test_float32_is_right_to_a_hundred_thousandth() -> None:
    x, weight = images(8, 128, 8, 8, seed=0), drawn(128, 128, 3, 3, seed=1)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd.convolve(x, weight) - exact).abs().max() / exact.abs().max()
    assert 0 < error < 3e-5


def test_where_it_is_taken() -> None:
    x, weight = images(2, 128, 8, 8, seed=0), drawn(128, 128, 3, 3, seed=1)
    assert winograd.pays(x, weight)
    assert not winograd.pays(x.contiguous(), weight)
    assert not winograd.pays(x.double(), weight.double())
    assert not winograd.pays(x[:, :, :7], weight)
    assert not winograd.pays(images(2, 64, 8, 8, seed=0), weight[:, :64])
    assert not winograd.pays(x, weight[:, :, :1, :1])
    assert not winograd.pays(x.to("meta"), weight.to("meta"))


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    with Lean():
        return F.conv2d(x.contiguous(memory_format=LAST), weight, bias, padding=1)


def test_derivatives_of_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def pays(x: Tensor, weight: Tensor) -> bool:
        taken.append(x.shape)
        return True

    monkeypatch.setattr(winograd, "pays", pays)
    inputs = [drawn(*shape, seed=i, dtype=torch.float64) for i, shape in enumerate([(2, 2, 4, 8), (3, 2, 3, 3), (3,)])]
    leaves = [t.requires_grad_() for t in inputs]
    assert torch.allclose(convolved(*leaves), F.conv2d(*leaves, padding=1))
    assert gradcheck(convolved, leaves, check_forward_ad=True)
    assert gradgradcheck(convolved, leaves, fast_mode=True)
    assert taken


@pytest.mark.parametrize("wanted", [(0,), (1,), (0, 1)])
def test_lean_takes_it_for_wide_layers(monkeypatch: pytest.MonkeyPatch, wanted: tuple[int, ...]) -> None:
    calls = []
    for name in ("convolve", "input_gradient", "weight_gradient"):
        plainly = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *a, of=plainly: calls.append(of.__name__) or of(*a))
    x, weight = images(2, 128, 8, 8, seed=0), drawn(128, 128, 3, 3, seed=1)
    for i, t in enumerate((x, weight)):
        t.requires_grad_(i in wanted)
    plain, quick = F.conv2d(x, weight, padding=1), convolved(x, weight, torch.zeros(128))
    leaves = [(x, weight)[i] for i in wanted]
    for ours, theirs in zip(
        torch.autograd.grad(quick.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert calls == ["convolve", *(["input_gradient", "weight_gradient"][i] for i in wanted)]


def test_a_stride_or_a_group_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "convolve", lambda *_: pytest.fail("taken"))
    x, weight = images(1, 128, 8, 8, seed=0), drawn(128, 128, 3, 3, seed=1)
    with Lean():
        F.conv2d(x, weight, stride=2, padding=1)
        F.conv2d(x, weight)
        F.conv2d(x, weight, padding=2, dilation=2)
        F.conv2d(images(1, 256, 8, 8, seed=0), weight, padding=1, groups=2)


def test_images_are_arranged_for_networks_that_gain() -> None:
    x = torch.zeros(2, 3, 8, 8)
    free = Net(ConvNet(channels=3, classes=2, size=8, width=4, norm=Norm.NONE))
    assert free.arranged(x).is_contiguous(memory_format=LAST)
    assert free.arranged(x.to("meta")).is_contiguous()
    assert Net(ConvNet(channels=3, classes=2, size=8, width=4)).arranged(x) is x  # instance normalisation
    views = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    assert Net(views).arranged(x) is x
    assert free.chunk(free.arranged(x)) == 6 * free.chunk(x)
    assert free.chunk(free.arranged(x.double())) == free.chunk(x)


@pytest.mark.parametrize("size", [8, 28])
def test_grey_images_are_arranged_too(size: int) -> None:
    net = Net(ConvNet(channels=1, classes=2, size=size, width=4, norm=Norm.NONE, depth=2))
    x, seen, theta = drawn(2, 1, size, size, seed=0), [], net.init(generator(1))
    arranged = net.arranged(x)
    assert torch.equal(arranged, x)
    assert net.chunk(arranged) >= 6 * net.chunk(x)
    net._functional.module.body.register_forward_hook(lambda _m, _i, out: seen.append(out))
    assert torch.allclose(net.embed(theta, arranged), net.embed(theta, x), atol=1e-6)
    assert [out.is_contiguous(memory_format=LAST) for out in seen] == [True, False]


def test_a_wide_network_has_the_features_that_it_has() -> None:
    net = Net(ConvNet(channels=3, classes=2, size=16, width=64, doubling=True, norm=Norm.NONE))
    theta, x = net.init(generator(0)), drawn(5, 3, 16, 16, seed=1)
    exact = net.embed(theta.double(), x.double())
    with Lean():
        assert (net.embed(theta, net.arranged(x)) - exact).abs().max() < 1e-4 * exact.abs().max()
