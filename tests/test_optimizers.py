"""The outer optimizers against steps computed by hand, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from condensery.optimizers import AdaBelief, Lamb

GRADIENTS = [torch.tensor(g, dtype=torch.float64) for g in ([2.0, -1.0], [1.0, 3.0], [-4.0, 0.5])]


def parameter() -> Tensor:
    return torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)


def walk(optimizer: torch.optim.Optimizer, p: Tensor) -> list[Tensor]:
    """Where three steps lead."""
    places = []
    for g in GRADIENTS:
        p.grad = g.clone()
        optimizer.step()
        places.append(p.detach().clone())
    return places


def test_the_first_step_of_adabelief_by_hand() -> None:
    p = parameter()
    optimizer = AdaBelief([p], lr=0.1, betas=(0.5, 0.75), eps=0.0)
    # mean = g / 2, corrected g; square = (g - g / 2)^2 / 4 = g^2 / 16, corrected g^2 / 4: the step is 2 lr sign(g).
    assert torch.allclose(walk(optimizer, p)[0], torch.tensor([2.8, 4.2], dtype=torch.float64))


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adabelief_is_algorithm_2(weight_decay: float) -> None:
    p, lr, (b1, b2), eps = parameter(), 0.1, (0.8, 0.9), 1e-3
    places = walk(AdaBelief([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=weight_decay), p)
    theta, m, s = [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]
    for t, (g, place) in enumerate(zip(GRADIENTS, places, strict=True), start=1):
        for i, value in enumerate(g.tolist()):
            m[i] = b1 * m[i] + (1 - b1) * value
            s[i] = b2 * s[i] + (1 - b2) * (value - m[i]) ** 2 + (1 - b2) * eps
            step = m[i] / (1 - b1**t) / ((s[i] / (1 - b2**t)) ** 0.5 + eps)
            theta[i] -= lr * (step + weight_decay * theta[i])
        assert place.tolist() == pytest.approx(theta, rel=1e-12)


def test_a_gradient_that_is_what_was_expected_makes_a_long_step() -> None:
    """Adam's step would be lr; here the second moment is that of the surprise."""
    p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdaBelief([p], lr=0.01)
    for k in range(60):
        p.grad = torch.tensor([1.0, 1.0 if k % 2 else -1.0], dtype=torch.float64)
        optimizer.step()
    steady, torn = p.detach().abs().tolist()
    assert steady > 60 * 0.01
    assert torn < 0.1 * steady


def test_the_first_step_of_lamb_by_hand() -> None:
    p = parameter()
    # Adam's first step is sign(g), of norm sqrt(2); the parameters have norm 5.
    move = 0.1 * 5 / 2**0.5
    expected = torch.tensor([3 - move, 4 + move], dtype=torch.float64)
    assert torch.allclose(walk(Lamb([p], lr=0.1, eps=0.0), p)[0], expected)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_lamb_is_its_paper(weight_decay: float) -> None:
    p, lr, (b1, b2), eps = parameter(), 0.1, (0.8, 0.9), 1e-3
    places = walk(Lamb([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=weight_decay), p)
    theta, m, s = [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]
    for t, (g, place) in enumerate(zip(GRADIENTS, places, strict=True), start=1):
        step = []
        for i, value in enumerate(g.tolist()):
            m[i] = b1 * m[i] + (1 - b1) * value
            s[i] = b2 * s[i] + (1 - b2) * value**2
            step.append(m[i] / (1 - b1**t) / ((s[i] / (1 - b2**t)) ** 0.5 + eps) + weight_decay * theta[i])
        trust = sum(v**2 for v in theta) ** 0.5 / sum(v**2 for v in step) ** 0.5
        theta = [v - lr * trust * d for v, d in zip(theta, step, strict=True)]
        assert place.tolist() == pytest.approx(theta, rel=1e-12)


def test_each_tensor_has_its_own_scale_and_zeros_move_as_adam_does() -> None:
    first, second = parameter(), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = Lamb([first, second], lr=0.1, eps=0.0)
    first.grad, second.grad = GRADIENTS[0].clone(), GRADIENTS[0].clone()
    optimizer.step()
    assert torch.allclose((first.detach() - parameter().detach()).norm(), torch.tensor(0.5, dtype=torch.float64))
    assert second.tolist() == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize("kind", [AdaBelief, Lamb])
def test_resumes_and_leaves_what_has_no_gradient(kind: Any) -> None:
    p, idle = parameter(), torch.ones(1, dtype=torch.float64, requires_grad=True)
    groups: list[dict[str, Any]] = [{"params": [p], "lr": 0.2}, {"params": [idle]}]
    whole = walk(kind(groups, lr=0.1), p)
    assert idle.item() == 1.0

    q = parameter()
    optimizer = kind([{"params": [q], "lr": 0.2}], lr=0.1)
    q.grad = GRADIENTS[0].clone()
    optimizer.step()
    state = optimizer.state_dict()
    again = kind([{"params": [q]}], lr=0.1)
    again.load_state_dict(state)
    for g in GRADIENTS[1:]:
        q.grad = g.clone()
        again.step()
    assert torch.equal(q.detach(), whole[-1])


@pytest.mark.parametrize("kind", [AdaBelief, Lamb])
def test_a_closure_gives_the_loss(kind: Any) -> None:
    p = parameter()
    optimizer = kind([p], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 25.0
    assert p.square().sum() < 25.0


@pytest.mark.parametrize("kind", [AdaBelief, Lamb])
@pytest.mark.parametrize("options", [{"lr": -1.0}, {"betas": (1.0, 0.5)}, {"eps": -1.0}, {"weight_decay": -1.0}])
def test_what_makes_no_sense_is_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give betas"):
        kind([parameter()], **options)
