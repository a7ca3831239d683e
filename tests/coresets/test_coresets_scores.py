from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from condensery.coresets import (
    el2n_scores,
    forgetting,
    forgetting_events,
    grand_scores,
    last_layer_grand_scores,
)

CLASSES = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.GroupNorm(6, 6),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    ).double()


def flat(module: nn.Module, seed: int) -> Tensor:
    size = sum(p.numel() for p in module.parameters())
    return 0.3 * torch.randn(size, generator=seeded(seed), dtype=torch.float64)


def call(module: nn.Module, theta: Tensor, x: Tensor) -> Tensor:
    pieces = theta.split([p.numel() for p in module.parameters()])
    named = {name: piece.view(p.shape) for (name, p), piece in zip(module.named_parameters(), pieces, strict=True)}
    return torch.func.functional_call(module, named, (x,))


def examples(n: int = 11) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 2, 6, 6, generator=seeded(1), dtype=torch.float64)
    return x, torch.randint(CLASSES, (n,), generator=seeded(2))


def grand_by_definition(module: nn.Module, thetas: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    total = torch.zeros(len(x), dtype=torch.float64)
    for theta in thetas:
        for i in range(len(x)):
            leaf = theta.clone().requires_grad_()
            loss = functional.cross_entropy(call(module, leaf, x[i : i + 1]), y[i : i + 1])
            total[i] += torch.autograd.grad(loss, leaf)[0].norm() / len(thetas)
    return total


@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
def test_grand_is_the_norm_of_each_example_s_gradient(chunk: int) -> None:
    module, (x, y) = small_network(), examples()
    thetas = [flat(module, seed) for seed in range(3)]
    scores = grand_scores(lambda theta, x: call(module, theta, x), thetas, x, y, chunk=chunk)
    torch.testing.assert_close(scores, grand_by_definition(module, thetas, x, y), atol=1e-12, rtol=1e-10)
    assert not scores.requires_grad


def test_grand_takes_soft_labels() -> None:
    module, (x, y) = small_network(), examples()
    thetas = [flat(module, 0)]
    network = lambda theta, x: call(module, theta, x)  # noqa: E731
    soft = functional.one_hot(y, CLASSES).double()
    torch.testing.assert_close(
        grand_scores(network, thetas, x, soft), grand_scores(network, thetas, x, y), atol=1e-12, rtol=0
    )


def test_the_last_layer_s_closed_form_is_exact_for_a_linear_network() -> None:
    x, y = examples()
    rows = x.flatten(1)
    module = nn.Linear(72, CLASSES).double()
    thetas = [flat(module, seed) for seed in range(2)]
    exact = grand_scores(lambda theta, x: call(module, theta, x), thetas, rows, y)
    logits = torch.stack([call(module, theta, rows) for theta in thetas])
    closed = last_layer_grand_scores(logits, rows.expand(2, -1, -1), y)
    torch.testing.assert_close(closed, exact, atol=1e-12, rtol=1e-10)
    one = last_layer_grand_scores(logits[0], rows, y)
    torch.testing.assert_close(
        one,
        grand_scores(lambda theta, x: call(module, theta, x), thetas[:1], rows, y),
        atol=1e-12,
        rtol=1e-10,
    )


def test_el2n_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0], [-40.0, 40.0]], dtype=torch.float64)
    y = torch.tensor([0, 1, 0])
    # Probabilities 3/4 and 1/4; 1/2 and 1/2; 0 and 1.
    expected = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64) * math.sqrt(2)
    torch.testing.assert_close(el2n_scores(logits, y), expected)


def test_el2n_is_the_norm_of_the_gradient_in_the_logits() -> None:
    logits = torch.randn(9, CLASSES, generator=seeded(), dtype=torch.float64).requires_grad_()
    y = torch.randint(CLASSES, (9,), generator=seeded())
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, y, reduction="sum"), logits)
    torch.testing.assert_close(el2n_scores(logits, y), gradient.norm(dim=1))


def test_el2n_averages_over_networks() -> None:
    logits = torch.randn(5, 9, CLASSES, generator=seeded())
    y = torch.randint(CLASSES, (9,), generator=seeded())
    expected = torch.stack([el2n_scores(one, y) for one in logits]).mean(dim=0)
    torch.testing.assert_close(el2n_scores(logits, y), expected)


def test_forgetting_events_by_hand() -> None:
    record = torch.tensor(
        [
            # never learned, always right, learned once, twice forgotten, lost at the end
            [0, 1, 0, 1, 0],
            [0, 1, 0, 0, 1],
            [0, 1, 1, 1, 1],
            [0, 1, 1, 0, 1],
            [0, 1, 1, 1, 0],
        ]
    ).bool()
    events = forgetting_events(record)
    assert events.tolist() == [0, 0, 0, 2, 1]
    assert events.dtype == torch.int64
    assert forgetting_events(record[:1]).tolist() == [0] * 5
    y = torch.tensor([0, 0, 1, 1, 1])
    assert forgetting(record, y, [1, 2]).tolist() == [0, 3, 4]


def test_errors_say_what_to_do() -> None:
    x, y = examples()
    logits = torch.zeros(11, CLASSES)
    with pytest.raises(ValueError, match="at least one theta"):
        grand_scores(lambda theta, x: x, [], x, y)
    with pytest.raises(ValueError, match="one label for each input"):
        grand_scores(lambda theta, x: x, [torch.zeros(1)], x, y[1:])
    with pytest.raises(ValueError, match="for 10 labels"):
        el2n_scores(logits, y[1:])
    with pytest.raises(ValueError, match="to fit the logits"):
        last_layer_grand_scores(logits, torch.zeros(10, 3), y)
    with pytest.raises(ValueError, match="bool"):
        forgetting_events(torch.zeros(3, 4))
