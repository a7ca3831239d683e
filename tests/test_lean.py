"""The layers of `Lean` are PyTorch's functions, with their derivatives, and compute no more than is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from condensery.lean import Lean
from support import generator

CONVS: dict[str, dict[str, Any]] = {
    "padded": {"padding": 1},
    "strided": {"stride": (2, 1), "padding": (0, 1), "dilation": 2},
    "grouped": {"groups": 2},
    "same": {"padding": "same"},
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64, requires_grad=True)


def conv_inputs(groups: int = 1) -> list[Tensor]:
    return [drawn(2, 2, 5, 6, seed=0), drawn(2, 2 // groups, 3, 3, seed=1), drawn(2, seed=2)]


def lean(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(*inputs: Tensor) -> Tensor:
        with Lean():
            return f(*inputs)

    return function


def softplus(x: Tensor) -> Tensor:
    """With values beyond the threshold as well."""
    return F.softplus(10 * x, beta=3.0, threshold=20.0)


@pytest.mark.parametrize("name", CONVS)
def test_a_convolution_and_its_derivatives(name: str) -> None:
    def conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, **CONVS[name])

    inputs = conv_inputs(groups=CONVS[name].get("groups", 1))
    assert torch.allclose(lean(conv)(*inputs), conv(*inputs))
    assert gradcheck(lean(conv), inputs, check_forward_ad=True)
    assert gradgradcheck(lean(conv), inputs, fast_mode=True)


def test_a_convolution_without_a_batch_and_without_a_bias() -> None:
    x, weight, bias = conv_inputs()
    for given in ((x[0], weight, bias), (x, weight, None)):
        assert torch.allclose(lean(F.conv2d)(*given), F.conv2d(*given))


def test_softplus_and_its_derivatives() -> None:
    x = drawn(3, 4, seed=3)
    assert torch.equal(lean(softplus)(x), softplus(x))
    beyond = torch.tensor([7.0, -7.0, 0.0], dtype=torch.float64, requires_grad=True)  # 3 x is 21: over the threshold
    assert gradcheck(lean(lambda t: F.softplus(t, beta=3.0)), [beyond], check_forward_ad=True)
    assert gradcheck(lean(softplus), [x], check_forward_ad=True)
    assert gradgradcheck(lean(softplus), [x])


def network(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Two convolutions with softplus between: derivatives of any order mix all three."""
    return F.conv2d(F.softplus(F.conv2d(x, w, padding=1), beta=2.0), v)


def third(f: Callable[..., Tensor], x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """A derivative of a derivative of a derivative, in x."""
    (g,) = torch.autograd.grad(f(x, w, v).square().sum(), w, create_graph=True)
    (h,) = torch.autograd.grad(g.square().sum(), v, create_graph=True)
    return torch.autograd.grad(h.square().sum(), x)[0]


def test_third_derivatives() -> None:
    inputs = [drawn(1, 2, 4, 4, seed=4), drawn(3, 2, 3, 3, seed=5), drawn(2, 3, 3, 3, seed=6)]
    assert torch.allclose(third(lean(network), *inputs), third(network, *inputs))


def test_reverse_over_forward() -> None:
    x, w, v = drawn(1, 2, 4, 4, seed=4), drawn(3, 2, 3, 3, seed=5), drawn(2, 3, 3, 3, seed=6)
    du, dv = torch.ones_like(w), torch.ones_like(v)

    def slope(f: Callable[..., Tensor]) -> Tensor:
        with forward_ad.dual_level():
            out = f(x, forward_ad.make_dual(w, du), forward_ad.make_dual(v, dv))  # type: ignore[no-untyped-call]
            tangent = forward_ad.unpack_dual(out).tangent  # type: ignore[no-untyped-call]
        return torch.autograd.grad(tangent.square().sum(), x)[0]

    assert torch.allclose(slope(lean(network)), slope(network))


class Counted(TorchDispatchMode):
    """How often each operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def test_a_product_with_the_jacobian_takes_two_convolutions_a_layer() -> None:
    """By reverse over reverse, as a `TangentAt` computes it; in the first layer one, for its input does not move."""
    x = drawn(1, 2, 4, 4, seed=4).detach()
    theta = drawn(54 + 54, seed=5)
    w, v = (t.view(3 - i, 2 + i, 3, 3) for i, t in enumerate(theta.split(54)))
    value = lean(network)(x, w, v)
    c = torch.zeros_like(value, requires_grad=True)
    (g,) = torch.autograd.grad(value, theta, c, create_graph=True)
    with Counted() as counted:
        torch.autograd.grad(g, c, torch.ones_like(g), retain_graph=True)
    assert counted.calls["aten.convolution"] + counted.calls["aten.convolution_backward"] == 3
    assert counted.calls["aten.softplus_backward"] + counted.calls["aten.softplus"] == 0


def test_a_weights_gradient_is_not_computed_along_the_way_to_the_inputs() -> None:
    inputs = [drawn(1, 2, 4, 4, seed=4), drawn(3, 2, 3, 3, seed=5), drawn(2, 3, 3, 3, seed=6)]
    value = lean(network)(*(t * 1 for t in inputs)).sum()  # not leaves: of those the engine does not tell
    seen = []

    class Masks(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket is torch.ops.aten.convolution_backward:
                seen.append(list(args[-1]))
            return func(*args, **(kwargs or {}))

    with Masks():
        torch.autograd.grad(value, inputs[0])
    assert seen == [[True, False, False]] * 2
