"""The tangent model against the explicit Jacobian and finite differences, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condensery.bilevel import Tangent, linearize
from condensery.net import Net
from support import blobs, generator, numerical_gradient, tiny_net

NETS: dict[str, Any] = {
    "none": lambda: tiny_net(norm="none", size=4),
    "group norm": lambda: tiny_net(norm="instance", size=4),
    "batch norm": lambda: tiny_net(norm="batch", size=4),
    "layer norm of PyTorch": lambda: Net(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
    ),
}
RIGHT_IN_FORWARD_MODE = ("none", "group norm")


def problem(name: str, **options: Any) -> tuple[Tangent, Tensor, Tensor, Tensor]:
    """A tangent model of a net, a direction, examples and a cotangent."""
    net = NETS[name]()
    theta = net.init(generator(0)).double()
    u = torch.randn(net.size, generator=generator(1), dtype=torch.float64)
    x = blobs(per_class=2).whole().x[:5, :, ::2, ::2].double().contiguous()
    c = torch.randn(5, 3, generator=generator(2), dtype=torch.float64)
    return linearize(net, theta, **options), u, x, c


@pytest.mark.parametrize("name", NETS)
def test_is_the_explicit_taylor_expansion(name: str) -> None:
    tangent, u, x, c = problem(name)
    jacobian = torch.func.jacrev(lambda t: tangent.f(t, x).flatten())(tangent.theta)
    value = tangent.f(tangent.theta, x)
    assert torch.allclose(tangent(u, x), value + (jacobian @ u).view(5, 3))
    assert torch.allclose(linearize(tangent.f, tangent.theta, centred=True)(u, x), (jacobian @ u).view(5, 3))
    assert torch.allclose(tangent.pull(c, x), jacobian.T @ c.flatten())
    assert torch.allclose(tangent.jacobian(x), jacobian)
    assert torch.allclose(tangent.kernel(x, x[:2]), jacobian @ tangent.jacobian(x[:2]).T)
    assert torch.allclose(tangent.kernel(x), jacobian @ jacobian.T)
    eps = 1e-5
    ahead, behind = (tangent.f(tangent.theta + s * eps * u, x) for s in (1, -1))
    assert torch.allclose(tangent.push(u, x)[1], (ahead - behind) / (2 * eps), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "piece", "kept"),
    [(n, p, k) for n in NETS for p, k in ((None, None), (2, None), (2, 3)) if not (n == "batch norm" and p == 2)],
)
def test_kept_graphs_give_the_same_products(name: str, piece: int | None, kept: int | None) -> None:
    tangent, u, x, c = problem(name, piece=piece, kept=kept)
    at = tangent.at(x)
    assert [g is not None for g in at._graphs] == ([True, False, False] if kept else [True] * len(at._graphs))
    for _ in range(2):
        assert torch.allclose(at.push(u), tangent.push(u, x)[1])
        assert torch.allclose(at.pull(c), tangent.pull(c, x))
    assert torch.allclose(at.base, tangent.f(tangent.theta, x))
    assert not at.push(u).requires_grad
    assert torch.allclose(tangent.predict(u, x), tangent(u, x))
    assert torch.allclose(tangent.pull_value(c, x), tangent.pull(c, x))
    assert torch.allclose(tangent.jacobian(x), linearize(tangent.f, tangent.theta).jacobian(x))


@pytest.mark.parametrize(
    ("name", "piece"), [(n, p) for n in NETS for p in (None, 2) if not (n == "batch norm" and p is not None)]
)
@pytest.mark.parametrize("centred", [True, False])
def test_one_pass_gives_the_values_and_the_product(name: str, piece: int | None, centred: bool) -> None:
    tangent, u, x, c = problem(name, piece=piece, centred=centred)
    values = torch.zeros(5, 3, dtype=torch.float64)

    def slope(found: Tensor, index: Tensor) -> Tensor:
        values[index] = found
        return c[index] * found

    assert torch.allclose(tangent.through(u, x, slope), tangent.pull(c * tangent(u, x), x))
    assert torch.allclose(values, tangent(u, x))
    value = tangent.f(tangent.theta, x)
    assert torch.allclose(tangent.through(None, x, slope), tangent.pull(c * value, x))
    assert torch.allclose(values, value)


@pytest.mark.parametrize("name", ["none", "group norm", "batch norm"])
@pytest.mark.parametrize("kept", [None, 0])
@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_products_in_lower_precision_are_as_good_as_it(
    name: str, kept: int | None, precision: torch.dtype, error: float
) -> None:
    plain, u, x, c = problem(name, centred=True)
    low, *_ = problem(name, centred=True, precision=precision, kept=kept, piece=None if name == "batch norm" else 2)

    def slope(found: Tensor, index: Tensor) -> Tensor:
        assert found.dtype == torch.float64
        return c[index] * found

    a, b = plain.at(x), low.at(x)
    pairs = [(b.push(u), a.push(u)), (b.pull(c), a.pull(c)), (b.base, a.base)]
    pairs.append((low.through(u, x, slope), plain.through(u, x, slope)))
    for ours, truth in pairs:
        assert ours.dtype == torch.float64
        assert 0 < (ours - truth).norm() < error * truth.norm()
    assert torch.equal(low.pull(c, x), plain.pull(c, x))  # to be differentiated further: in full precision


def test_a_jacobian_at_once_is_the_same() -> None:
    tangent, _, x, _ = problem("group norm", piece=2)
    assert torch.allclose(tangent._jacobian_at_once(x), tangent.jacobian(x))


@pytest.mark.parametrize("name", RIGHT_IN_FORWARD_MODE)
@pytest.mark.parametrize("centred", [True, False])
def test_the_value_is_differentiable_in_x_and_u(name: str, centred: bool) -> None:
    tangent, u, x, c = problem(name, centred=centred)
    u.requires_grad_()
    x.requires_grad_()
    for p in (x, u):
        (gradient,) = torch.autograd.grad((tangent(u, x) * c).sum(), p)
        directions, slopes = numerical_gradient(lambda: (tangent(u, x) * c).sum(), p)
        assert torch.allclose(directions.flatten(1) @ gradient.flatten(), slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NETS)
def test_the_pull_is_differentiable_in_x_and_c_with_every_norm(name: str) -> None:
    tangent, u, x, c = problem(name)
    x.requires_grad_()
    c.requires_grad_()
    for p in (x, c):
        (gradient,) = torch.autograd.grad(tangent.pull(c, x) @ u, p)
        directions, slopes = numerical_gradient(lambda: tangent.pull(c, x) @ u, p)
        assert torch.allclose(directions.flatten(1) @ gradient.flatten(), slopes, rtol=1e-6, atol=1e-8)
    with torch.no_grad():
        assert not tangent.pull(c, x).requires_grad


def test_the_kernel_is_differentiable_in_x() -> None:
    tangent, _, x, _ = problem("group norm", piece=3)
    x = x[:3].requires_grad_()
    weights = torch.randn(9, 9, generator=generator(4), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((tangent.kernel(x) * weights).sum(), x)
    directions, slopes = numerical_gradient(lambda: (tangent.kernel(x) * weights).sum(), x)
    assert torch.allclose(directions.flatten(1) @ gradient.flatten(), slopes, rtol=1e-6, atol=1e-8)
