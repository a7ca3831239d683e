"""The Gauss-Newton matrix: where it is the Hessian, what it is elsewhere, and hypergradients through it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.batch import Batch
from condensery.bilevel import (
    AutoNeumann,
    Cg,
    CompositeLoss,
    Converged,
    Curvature,
    Direct,
    GaussNewton,
    Momentum,
    hypergradient,
    materialise,
    respond,
)
from condensery.methods.hcdc import HCDC, Pieces
from condensery.net import Net
from condensery.nets.cells import Cell, Supernet
from condensery.spaces import (
    Alternatives,
    Blend,
    Cells,
    Composite,
    Folds,
    LabelSmoothing,
    LearningRate,
    Odds,
    Plain,
    Space,
    WeightDecay,
    in_folds,
)
from condensery.synthetic import Images
from support import blobs, central_difference, generator, tiny_images, tiny_net

DECAY = 1e-3


def doubled(batch: Batch) -> Batch:
    return Batch(batch.x.detach().double(), batch.y)


def few() -> Batch:
    return doubled(tiny_images(blobs(), 3, seed=1)())


def linear() -> Net:
    return Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))


def loss_of(space: Composite, batch: Batch, seed: int = 5) -> CompositeLoss:
    """The training loss of a space with a decay, as `HCDC` makes it."""

    def parts(theta: Tensor, lam: Tensor) -> tuple[Tensor, Any]:
        outputs = space.outputs(theta, lam, batch, generator(seed))
        return outputs, lambda z, t, h: space.misfit(z, t, h, batch) + 0.5 * DECAY * t.square().sum()

    return CompositeLoss.of(parts)


def layered(net: Net) -> Composite:
    return LabelSmoothing(WeightDecay.layers(Plain(net), net, low=-4.0, high=-1.0), 3)


def place(space: Space, seed: int = 2) -> tuple[Tensor, Tensor]:
    return space.init(generator(seed)).double(), space.starts(generator(seed + 1))[0].double()


@pytest.mark.parametrize("net", [linear(), tiny_net(norm="none", width=2), tiny_net(norm="group")])
def test_a_product_is_that_of_the_matrix_written_out(net: Net) -> None:
    space, batch = layered(net), few()
    theta, lam = place(space)
    loss = loss_of(space, batch)
    z = torch.autograd.functional.jacobian(lambda t: loss.parts(t, lam)[0], theta).flatten(0, 1)
    outputs, misfit = loss.parts(theta, lam)
    inner = torch.autograd.functional.hessian(lambda o: misfit(o, theta, lam), outputs)
    own = torch.autograd.functional.hessian(lambda t: misfit(outputs, t, lam), theta)
    wanted = z.T @ inner.reshape(len(z), len(z)) @ z + own + 0.3 * torch.eye(len(theta), dtype=torch.float64)
    found = materialise(GaussNewton(loss, theta, lam, damping=0.3), theta)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_it_is_the_hessian_of_a_linear_network() -> None:
    space = layered(linear())
    theta, lam = place(space)
    loss = loss_of(space, few())
    exact, ours = (materialise(kind(loss, theta, lam), theta) for kind in (Curvature, GaussNewton))
    assert torch.allclose(exact, ours, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_positive_where_the_hessian_is_not(seed: int) -> None:
    """The lowest eigenvalue of a convolutional network's matrix at random weights is that of the decay."""
    space = layered(tiny_net(norm="none", width=3, depth=2))
    theta, lam = place(space, seed)
    theta, loss = 2 * theta, loss_of(space, few())
    exact, ours = (
        torch.linalg.eigvalsh(materialise(kind(loss, theta, lam), theta))[0] for kind in (Curvature, GaussNewton)
    )
    assert exact < -1e-3
    assert ours > DECAY


def test_it_is_the_hessian_where_every_example_is_fitted() -> None:
    """With the network's own predictions for labels the loss has slope zero in the outputs, and theta is a minimum."""
    net, batch = tiny_net(norm="none", width=3), few()
    theta = net.init(generator(2)).double()
    fitted = Batch(batch.x, net(theta, batch.x).softmax(1).detach())

    def parts(t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """The hyperparameters weigh the examples."""
        return net(t, batch.x), lambda z, t, h: (h * F.cross_entropy(z, fitted.y, reduction="none")).mean()

    lam = torch.rand(9, generator=generator(3), dtype=torch.float64) + 0.5
    loss = CompositeLoss.of(parts)
    exact, ours = (materialise(kind(loss, theta, lam), theta) for kind in (Curvature, GaussNewton))
    assert torch.allclose(exact, ours, rtol=1e-8, atol=1e-10)


def test_hypergradients_at_a_minimum_that_fits_are_exact() -> None:
    """Labels that the network can give move with lambda, along a direction of its weights: the response is known."""
    net, batch = tiny_net(norm="none", width=3), few()
    theta, way = (net.init(generator(s)).double() for s in (2, 3))

    def parts(t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        target = net(theta + h * way, batch.x).softmax(1)
        return net(t, batch.x), lambda z, t, h: -(target * z.log_softmax(1)).sum(1).mean()

    loss, lam = CompositeLoss.of(parts), torch.zeros(1, dtype=torch.float64)
    outer = lambda t, h: F.cross_entropy(net(t, batch.x), batch.y)  # noqa: E731 - a loss of the fitted outputs
    wanted = (torch.func.grad(lambda t: outer(t, lam))(theta) @ way).item()
    for kind in (Curvature, GaussNewton):
        found = hypergradient(outer, theta, lam, respond(kind(loss, theta, lam, damping=1e-9), Direct()))
        assert found.total.item() == pytest.approx(wanted, rel=1e-4)


def test_hypergradients_of_a_linear_network_are_those_of_the_hessian() -> None:
    space = layered(linear())
    theta, lam = place(space)
    loss = loss_of(space, few())
    found = [respond(kind(loss, theta, lam), Direct()).jacobian for kind in (Curvature, GaussNewton)]
    assert found[0].abs().max() > 1e-3
    assert torch.allclose(found[0], found[1], rtol=1e-8, atol=1e-12)


def test_the_mixed_derivative_and_the_gradient_are_exact() -> None:
    space = layered(tiny_net(norm="none", width=3, depth=2))
    theta, lam = place(space)
    loss = loss_of(space, few())
    exact, ours = Curvature(loss, theta, lam), GaussNewton(loss, theta, lam)
    u, v = torch.randn(space.size, dtype=torch.float64), torch.randn(len(theta), dtype=torch.float64)
    assert torch.allclose(exact.gradient, ours.gradient)
    assert torch.allclose(exact.across(v), ours.across(v))
    assert torch.allclose(exact.along(u), ours.along(u))
    assert torch.allclose(ours.along(u, v), ours.along(u) + ours.product(v))


@pytest.mark.parametrize("solve", [Cg(400, 1e-8), AutoNeumann(400)])
def test_solvers_converge_on_it(solve: Any) -> None:
    """Where the Hessian has negative eigenvalues and the same series grows."""
    space = layered(tiny_net(norm="none", width=3, depth=2))
    theta, lam = place(space)
    theta, loss = 2 * theta, loss_of(space, few())
    residuals = [
        respond(kind(loss, theta, lam, damping=0.05), solve).residuals.max() for kind in (Curvature, GaussNewton)
    ]
    assert residuals[1] < 0.05
    assert residuals[0] > 10 * residuals[1]


SPACES: dict[str, Any] = {
    "plain": lambda: Plain(tiny_net(norm="none", width=2)),
    "decay and smoothing": lambda: layered(tiny_net(norm="none", width=2)),
    "an augmentation": lambda: Blend(
        Plain(tiny_net(norm="none", width=2)), lambda x, g: torch.randn(x.shape, generator=g).to(x)
    ),
    "a rate": lambda: LearningRate(LabelSmoothing(Plain(tiny_net(norm="none", width=2)), 3)),
    "folds": lambda: Folds(tiny_net(norm="none", width=2), folds=3),
    "cells": lambda: Cells(
        Net(Supernet(channels=1, classes=3, size=8, width=4, stages=1)), candidates=[Cell("3ns31p")]
    ),
    "a list": lambda: Alternatives([linear(), tiny_net(norm="none", width=2)]),
    "odds": lambda: Odds([linear(), tiny_net(norm="none", width=2)]),
}


@pytest.mark.parametrize("name", SPACES)
def test_the_parts_of_every_space_make_its_training_loss(name: str) -> None:
    space = SPACES[name]()
    assert isinstance(space, Composite)
    theta, lam = place(space)
    batch = in_folds(torch.arange(9) % 3)(few()) if name == "folds" else few()
    loss = loss_of(space, batch)
    whole = space.training(theta, lam, batch, generator(5)) + 0.5 * DECAY * theta.square().sum()
    assert torch.allclose(loss(theta, lam), whole, rtol=1e-12)
    exact, ours = Curvature(lambda t, h: loss(t, h), theta, lam), GaussNewton(loss, theta, lam)
    assert torch.allclose(exact.gradient, ours.gradient, rtol=1e-9, atol=1e-12)
    v = torch.randn(len(theta), generator=generator(8), dtype=torch.float64)
    assert v @ ours(v) >= DECAY * v @ v * (1 - 1e-9)


@pytest.mark.parametrize(
    ("name", "matrix"), [("decay and smoothing", True), ("decay and smoothing", False), ("cells", False)]
)
def test_the_gradient_of_hcdc_in_the_set(name: str, matrix: bool) -> None:
    """Against finite differences, in float64; after five steps of training, far from a minimum."""
    learner = Converged(
        Momentum(0.1), solve=Cg(300, 1e-12), damping=0.1, curvature=GaussNewton, matrix=matrix, warm=False
    )
    pieces = Pieces.of(doubled(blobs().whole()))
    objective = HCDC(SPACES[name](), few(), pieces, generator(3), learner=learner, steps=5, every=5, repeat=1000)
    images: Images = tiny_images(blobs(), 1, seed=2).double()
    (gradient,) = torch.autograd.grad(objective(images), images.values)
    assert gradient.abs().max() > 0
    way = torch.randn(gradient.shape, generator=generator(9), dtype=torch.float64)
    slope = central_difference(lambda: objective(images).detach(), images.values, way, 1e-5)
    assert slope == pytest.approx((gradient * way).sum().item(), rel=1e-5)


def test_a_point_is_restored_with_its_curvature() -> None:
    learner = Converged(Momentum(0.1), solve=Cg(50), damping=0.1, curvature=GaussNewton, matrix=False, warm=False)
    made = []
    for _ in range(2):
        pieces = Pieces.of(doubled(blobs().whole()))
        space = layered(tiny_net(norm="none", width=2))
        made.append(HCDC(space, few(), pieces, generator(3), learner=learner, steps=5, every=5, repeat=1000))
    images: Images = tiny_images(blobs(), 1, seed=2).double()
    first = made[0](images)
    made[1].load_state_dict(copy.deepcopy(made[0].state_dict()))
    assert torch.allclose(made[1](images), first, rtol=1e-9)


def test_what_has_no_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="give a CompositeLoss, or use Curvature"):
        GaussNewton(lambda t, h: t.sum(), torch.zeros(2), torch.zeros(1))  # type: ignore[arg-type]

    class Whole:
        """A space that does not say what its loss is a function of."""

        def __init__(self) -> None:
            inner = layered(linear())
            self.size, self.starts, self.project, self.tangent = inner.size, inner.starts, inner.project, inner.tangent
            self.init, self.training, self.validation = inner.init, inner.training, inner.validation

    learner = Converged(curvature=GaussNewton)
    pieces = Pieces.of(doubled(blobs().whole()))
    objective = HCDC(Whole(), few(), pieces, generator(3), learner=learner, steps=1, every=1)
    with pytest.raises(ValueError, match="Whole does not say"):
        objective(tiny_images(blobs(), 1, seed=2).double())
    around = WeightDecay(Whole(), (195,))
    with pytest.raises(ValueError, match="Whole does not say"):
        around.outputs(torch.zeros(195), torch.zeros(1 + around.inner.size), few(), generator())
