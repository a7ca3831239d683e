"""How the end of training answers to hyperparameters: ridge regression in closed form, and ways that must agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from condensery.bilevel import (
    AdamRule,
    AdamSolve,
    AutoNeumann,
    Cg,
    Converged,
    Curvature,
    Direct,
    Explicit,
    MatrixFree,
    Momentum,
    Neumann,
    Solve,
    Steps,
    hypergradient,
    implicit,
    respond,
    unrolled_response,
)
from condensery.bilevel.learner import Training
from support import generator


class Ridge:
    """``L_train = 1/2 |X theta - y|^2 / n + 1/2 sum_j exp(lambda_j) theta_j^2``, a decay for each weight.

    theta* = (X^T X / n + D)^-1 X^T y / n with D = diag(exp lambda), and
    d theta* / d lambda_j = -(X^T X / n + D)^-1 e_j D_j theta*_j.
    """

    def __init__(self, n: int = 30, p: int = 5) -> None:
        g = generator(1)
        self.x = torch.randn(n, p, generator=g, dtype=torch.float64)
        self.y = torch.randn(n, generator=g, dtype=torch.float64)
        self.held_x = torch.randn(n, p, generator=g, dtype=torch.float64)
        self.held_y = torch.randn(n, generator=g, dtype=torch.float64)
        self.lam = 0.5 * torch.randn(p, generator=g, dtype=torch.float64) - 1

    def training(self, theta: Tensor, lam: Tensor) -> Tensor:
        return 0.5 * (self.x @ theta - self.y).square().mean() + 0.5 * (lam.exp() * theta.square()).sum()

    def outer(self, theta: Tensor, lam: Tensor) -> Tensor:
        """With a direct part of its own."""
        return 0.5 * (self.held_x @ theta - self.held_y).square().mean() + 0.1 * lam.square().sum()

    @property
    def hessian(self) -> Tensor:
        return self.x.T @ self.x / len(self.x) + torch.diag(self.lam.exp())

    @property
    def theta(self) -> Tensor:
        return torch.linalg.solve(self.hessian, self.x.T @ self.y / len(self.x))

    @property
    def jacobian(self) -> Tensor:
        return -torch.linalg.solve(self.hessian, torch.diag(self.lam.exp() * self.theta))

    @property
    def total(self) -> Tensor:
        slope = self.held_x.T @ (self.held_x @ self.theta - self.held_y) / len(self.held_x)
        return self.jacobian.T @ slope + 0.2 * self.lam


@pytest.fixture
def ridge() -> Ridge:
    return Ridge()


SOLVES: dict[str, Solve] = {
    "direct": Direct(),
    "cg": Cg(steps=20, tolerance=1e-14),
    "Neumann": Neumann(steps=300, lr=0.3),
    "measured Neumann": AutoNeumann(steps=300),
}


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("matrix", [True, False])
def test_ridge_regression_in_closed_form(ridge: Ridge, name: str, matrix: bool) -> None:
    curvature = Curvature(ridge.training, ridge.theta, ridge.lam)
    response = respond(curvature, SOLVES[name]) if matrix else MatrixFree(curvature, SOLVES[name])
    found = hypergradient(ridge.outer, ridge.theta, ridge.lam, response)
    assert torch.allclose(found.direct, 0.2 * ridge.lam, rtol=0, atol=1e-12)
    assert torch.allclose(found.total, ridge.total, rtol=0, atol=1e-8)
    u = torch.randn(5, generator=generator(3), dtype=torch.float64)
    assert torch.allclose(response.push(u), ridge.jacobian @ u, rtol=0, atol=1e-8)
    assert response.figures()["residual"] < 1e-8


def test_it_is_the_general_function_with_hyperparameters_for_data(ridge: Ridge) -> None:
    lam = ridge.lam.clone().requires_grad_()
    general = implicit(ridge.outer, ridge.training, ridge.theta, data=[lam], solve=Direct())
    response = respond(Curvature(ridge.training, ridge.theta, ridge.lam), Direct())
    found = hypergradient(ridge.outer, ridge.theta, ridge.lam, response)
    assert torch.allclose(general.direct[0], found.direct, rtol=1e-12)
    assert torch.allclose(general.indirect[0], found.indirect, rtol=1e-10)
    assert torch.equal(general.value, found.value)


def test_adam_comes_near(ridge: Ridge) -> None:
    """Its steps have about the size of the learning rate to the end."""
    response = respond(Curvature(ridge.training, ridge.theta, ridge.lam), AdamSolve(steps=600, lr=5e-3))
    found = hypergradient(ridge.outer, ridge.theta, ridge.lam, response)
    assert torch.allclose(found.total, ridge.total, rtol=1e-3)


def test_the_closed_form_is_the_derivative_of_training_again(ridge: Ridge) -> None:
    def value(lam: Tensor) -> Tensor:
        again = Ridge()
        again.lam = lam
        return again.outer(again.theta, lam)

    eps = 1e-5
    for j, unit in enumerate(torch.eye(5, dtype=torch.float64)):
        slope = (value(ridge.lam + eps * unit) - value(ridge.lam - eps * unit)) / (2 * eps)
        assert abs(slope - ridge.total[j]) < 1e-8


def test_unrolling_to_the_end_agrees(ridge: Ridge) -> None:
    theta, response = unrolled_response(
        lambda _, t, h: ridge.training(t, h), torch.zeros(5, dtype=torch.float64), ridge.lam, 0.3, steps=300
    )
    assert torch.allclose(theta, ridge.theta, rtol=0, atol=1e-10)
    assert torch.allclose(response.jacobian, ridge.jacobian, rtol=0, atol=1e-8)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_unrolling_at_a_minimum_is_the_neumann_series(ridge: Ridge, steps: int) -> None:
    _, unrolled = unrolled_response(lambda _, t, h: ridge.training(t, h), ridge.theta, ridge.lam, 0.3, steps=steps)
    series = respond(Curvature(ridge.training, ridge.theta, ridge.lam), Neumann(steps=steps, lr=0.3))
    assert torch.allclose(unrolled.jacobian, series.jacobian, rtol=0, atol=1e-12)


def test_unrolling_a_few_steps_is_their_derivative() -> None:
    """Of training far from its end, on a loss that is not quadratic, with a learning rate among the hyperparameters."""

    def loss(i: int, theta: Tensor, lam: Tensor) -> Tensor:
        return lam[0].exp() * ((theta - lam[1] * (i + 1)).cosh().sum() + 0.1 * theta.prod())

    start = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    lam = torch.tensor([-2.0, 0.1], dtype=torch.float64)

    def end(lam: Tensor) -> Tensor:
        return unrolled_response(loss, start, lam, 1.0, steps=4)[0]

    eps, (_, response) = 1e-6, unrolled_response(loss, start, lam, 1.0, steps=4)
    for k, unit in enumerate(torch.eye(2, dtype=torch.float64)):
        slope = (end(lam + eps * unit) - end(lam - eps * unit)) / (2 * eps)
        assert torch.allclose(response.jacobian[:, k], slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("matrix", [True, False])
def test_the_hypergradient_is_differentiable_in_the_outer_data(ridge: Ridge, matrix: bool) -> None:
    curvature = Curvature(ridge.training, ridge.theta, ridge.lam)
    response = respond(curvature, Direct()) if matrix else MatrixFree(curvature, Direct())
    weights = torch.randn(5, generator=generator(4), dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        outer = lambda t, h: (x @ t).square().mean() * h.exp().sum()  # noqa: E731
        return hypergradient(outer, ridge.theta, ridge.lam, response, create_graph=True).total @ weights

    x = ridge.held_x.clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (x,))


def test_a_loss_without_hyperparameters_or_without_mixing() -> None:
    theta, none = torch.ones(3), torch.zeros(0)
    empty = respond(Curvature(lambda t, h: t.square().sum(), theta, none), Direct())
    assert empty.jacobian.shape == (3, 0)
    apart = respond(Curvature(lambda t, h: t.square().sum() + h.square().sum(), theta, torch.ones(2)), Direct())
    assert not apart.jacobian.any()


def test_a_measured_step_size_does_not_diverge() -> None:
    g = generator(5)
    for scale in (1e-4, 1.0, 1e4):
        basis, _ = torch.linalg.qr(torch.randn(12, 12, generator=g, dtype=torch.float64))
        a = scale * basis @ torch.diag(torch.linspace(0.01, 1, 12, dtype=torch.float64)) @ basis.T
        found = AutoNeumann(steps=50)(a.mv, torch.ones(12, dtype=torch.float64))
        assert (found.residuals[1:] <= found.residuals[:-1] * (1 + 1e-12)).all()


def test_lifted_above_negative_curvature() -> None:
    a = torch.diag(torch.tensor([4.0, 1.0, -1.0], dtype=torch.float64))
    b = torch.ones(3, dtype=torch.float64)
    plain = AutoNeumann(steps=400, power=60)(lambda v: a @ v, b)
    assert plain.residuals[-1] > 1e6
    lifted = AutoNeumann(steps=400, power=60, lift=True)(lambda v: a @ v, b)
    assert torch.allclose(lifted.x, 1 / (a.diagonal() + 2), rtol=1e-6)
    assert lifted.residuals[-1] < 1e-6


def test_a_map_of_zero_and_bad_numbers() -> None:
    assert AutoNeumann(steps=3)(lambda v: 0 * v, torch.ones(2)).residuals[-1] == 1
    with pytest.raises(ValueError, match="power is 0"):
        AutoNeumann(steps=3, power=0)


@pytest.mark.parametrize(
    ("rule", "torch_rule"),
    [
        (Momentum(0.1, 0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (AdamRule(0.1), lambda p: torch.optim.Adam(p, lr=0.1)),
    ],
)
def test_rules_are_those_of_pytorch(
    ridge: Ridge, rule: Momentum | AdamRule, torch_rule: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    theirs = torch.ones(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch_rule([theirs])
    for _ in range(7):
        optimizer.zero_grad()
        ridge.training(theirs, ridge.lam).backward()
        optimizer.step()
    learner = Converged(rule)
    ours = learner.train(learner.start(torch.ones(5, dtype=torch.float64)), ridge.training, ridge.lam, 3)
    ours = learner.train(ours, ridge.training, ridge.lam, 4)
    assert torch.allclose(ours.theta, theirs.detach(), rtol=1e-12)


def test_learners_agree_at_the_end(ridge: Ridge) -> None:
    start = torch.zeros(5, dtype=torch.float64)
    for learner in (
        Converged(Momentum(0.2, 0.5), solve=Direct()),
        Converged(Momentum(0.2, 0.5), solve=Direct(), matrix=False),
        Steps(0.3),
    ):
        trained = learner.train(learner.start(start), ridge.training, ridge.lam, 250)
        response, after = learner.response(trained, ridge.training, ridge.lam)
        found = hypergradient(ridge.outer, trained.theta, ridge.lam, response)
        assert torch.allclose(found.total, ridge.total, rtol=0, atol=1e-8)
        kept = response.jacobian if isinstance(response, Explicit) else None
        again = learner.restored(kept, trained.theta, ridge.training, ridge.lam)
        assert torch.equal(hypergradient(ridge.outer, trained.theta, ridge.lam, again).total, found.total)
        assert torch.equal(Training(**after.state_dict()).theta, trained.theta)


def test_a_warm_start_saves_terms(ridge: Ridge) -> None:
    near = Ridge()
    near.lam = ridge.lam + 0.01
    cold = Converged(solve=AutoNeumann(5), warm=False).response(Training(ridge.theta), ridge.training, ridge.lam)
    warm = Converged(solve=AutoNeumann(5)).response(
        Training(ridge.theta, jacobian=near.jacobian), ridge.training, ridge.lam
    )
    errors = [(found[0].jacobian - ridge.jacobian).norm() for found in (cold, warm)]  # type: ignore[attr-defined]
    assert errors[1] < 0.1 * errors[0]
