"""Training by a recipe: against plain loops, schedules by hand, every way of doing the arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condensery.batch import Batch
from condensery.data.augment import DsaTrain, OneOfPerImage, Siamese
from condensery.fitting import (
    Adam,
    Constant,
    CrossEntropy,
    Drop,
    Execution,
    Held,
    Recipe,
    Sgd,
    SquaredError,
    WarmupCosine,
    accuracy,
    fit,
    training,
)
from condensery.net import Net
from support import blobs, generator, tiny_net


def test_learns_the_blobs() -> None:
    data = blobs(per_class=20)
    test = blobs(per_class=30, seed=5)
    trained = fit(tiny_net(width=8), data, Recipe(epochs=40, batch_size=16, optimizer=Sgd(lr=0.05)), generator(0))
    assert accuracy(trained, test) > 0.95
    assert trained.epoch == 40
    assert trained.images == 40 * 60
    assert trained.images_per_second > 0


@pytest.mark.parametrize("chunk", [3, 1000])
def test_is_a_plain_loop(chunk: int) -> None:
    """Pieces or not, fused optimizer or not: the same trajectory as the obvious loop."""
    net = tiny_net()
    net._activation_bytes[(1, 8, 8)] = (4 << 20) // chunk
    x, y = blobs().whole()
    recipe = Recipe(epochs=3, batch_size=10, optimizer=Sgd(lr=0.1), schedule=Drop())
    trained = fit(net, Batch(x, y), recipe, generator(4))

    g = generator(4)
    module = net.at(net.init(g)).train()
    done, total = 0, 12
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        for index in torch.randperm(36, generator=g).split(10):
            if done == total // 2:
                optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            optimizer.zero_grad()
            F.cross_entropy(module(x[index]), y[index]).backward()
            optimizer.step()
            done += 1
    plain = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    assert torch.allclose(trained.theta, plain, atol=1e-5)


def test_is_deterministic_and_leaves_the_global_generator() -> None:
    net, data = tiny_net(), blobs()
    recipe = Recipe(epochs=2, batch_size=8, augment=DsaTrain(Siamese.natural()))
    state = torch.get_rng_state()
    a, b = fit(net, data, recipe, generator(1)), fit(net, data, recipe, generator(1))
    assert torch.equal(a.theta, b.theta)
    assert torch.equal(state, torch.get_rng_state())


def test_training_hands_over_every_pass_and_stops_at_steps() -> None:
    seen = [t.epoch for t in training(tiny_net(), blobs(), Recipe(steps=7, batch_size=12), generator(0))]
    assert seen == [1, 2, 3]  # 3 steps a pass: 3 + 3 + 1
    first = next(iter(training(tiny_net(), blobs(), Recipe(epochs=0), generator(0))))
    assert first.epoch == 0
    assert torch.equal(first.theta, tiny_net().init(generator(0)))


def test_starts_from_given_parameters() -> None:
    net = tiny_net()
    theta = net.init(generator(8))
    assert torch.equal(fit(net, blobs(), Recipe(epochs=0), generator(0), theta=theta).theta, theta)


def test_drop_and_cosine_by_hand() -> None:
    assert [Drop(at=0.5, by=0.1).factor(s, 5) for s in range(5)] == [1, 1, 1, 0.1, 0.1]
    assert [Drop(at=0.5).restarts(s, 5) for s in range(5)] == [False, False, False, True, False]
    assert not any(Drop(restart=False).restarts(s, 5) for s in range(5))
    cosine = WarmupCosine(warmup=2, final=0.1)
    assert [cosine.factor(s, 10) for s in range(2)] == [0.5, 1.0]
    assert cosine.factor(2, 10) == 1.0
    assert math.isclose(cosine.factor(6, 10), 0.1 + 0.9 * 0.5)
    assert cosine.factor(9, 10) > 0.1
    assert WarmupCosine(warmup=500).factor(0, 10) == 0.2  # a short run warms up over half of it
    assert Constant().factor(3, 5) == 1.0


def test_losses() -> None:
    logits = torch.randn(4, 3, generator=generator())
    y = torch.tensor([0, 1, 2, 0])
    rows = F.one_hot(y, 3).float()
    assert torch.allclose(CrossEntropy()(logits, y), CrossEntropy()(logits, rows), atol=1e-6)
    assert torch.allclose(SquaredError()(logits, y), 0.5 * (logits - rows + 1 / 3).square().sum(1))
    assert torch.allclose(SquaredError()(logits, rows), 0.5 * (logits - rows).square().sum(1))


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.05), Adam(lr=0.01)])
@pytest.mark.parametrize("loss", [CrossEntropy(), SquaredError()])
def test_every_optimizer_and_loss_learns(optimizer: Any, loss: Any) -> None:
    recipe = Recipe(epochs=30, batch_size=16, optimizer=optimizer, loss=loss, schedule=WarmupCosine(10))
    assert accuracy(fit(tiny_net(width=8), blobs(), recipe, generator(0)), blobs(seed=3)) > 0.9


@pytest.mark.parametrize(
    "execution", [Execution(chunked=False), Execution(channels_last=True), Execution(autocast=torch.bfloat16)]
)
def test_execution_changes_rounding_only(execution: Execution) -> None:
    recipe = Recipe(epochs=2, batch_size=12)
    plain = fit(tiny_net(), blobs(), recipe, generator(0))
    other = fit(tiny_net(), blobs(), recipe, generator(0), execution=execution)
    tolerance = 3e-2 if execution.autocast else 1e-4
    assert torch.allclose(plain.theta, other.theta, atol=tolerance)
    x = blobs().whole().x
    assert torch.allclose(plain(x), other(x), atol=10 * tolerance)
    assert other(x).dtype == torch.float32


@pytest.mark.slow
def test_compiled_is_eager() -> None:
    recipe = Recipe(epochs=3, batch_size=12)
    plain = fit(tiny_net(), blobs(), recipe, generator(0))
    other = fit(tiny_net(), blobs(), recipe, generator(0), execution=Execution(compiled=True))
    assert torch.allclose(plain.theta, other.theta, atol=1e-4)


def test_batch_norm_keeps_running_statistics() -> None:
    trained = fit(tiny_net(norm="batch"), blobs(), Recipe(epochs=5, batch_size=12), generator(0))
    means = [b for n, b in trained.module.named_buffers() if n.endswith("running_mean")]
    assert any(m.abs().sum() > 0 for m in means)
    x = blobs().whole().x
    assert torch.allclose(trained(x)[:3], trained(x[:3]), atol=1e-5), "evaluation must not depend on the batch"


def test_augmentation_is_used_and_can_be_switched_off() -> None:
    recipe = Recipe(epochs=2, augment=OneOfPerImage.rcig())
    net = tiny_net()
    a = fit(net, blobs(), recipe, generator(0))
    b = fit(net, blobs(), recipe.without_augmentation(), generator(0))
    assert not torch.allclose(a.theta, b.theta, atol=1e-4)


def test_soft_labels_train() -> None:
    x, y = blobs().whole()
    rows = 0.8 * F.one_hot(y, 3).float() + 0.2 / 3
    trained = fit(tiny_net(width=8), Batch(x, rows), Recipe(epochs=40, optimizer=Sgd(lr=0.1)), generator(0))
    assert accuracy(trained, Held(Batch(x, rows))) > 0.9


def test_a_synthetic_batch_is_not_differentiated() -> None:
    x, y = blobs().whole()
    leaf = x.clone().requires_grad_()
    fit(tiny_net(), Batch(leaf, y), Recipe(epochs=1, batch_size=9), generator(0))
    assert leaf.grad is None


def test_recipe_changes() -> None:
    recipe = Recipe(epochs=1000, steps=40)
    assert recipe.scaled(0.25) == Recipe(epochs=250, steps=10)
    assert recipe.scaled(1e-9).steps == 1
    assert recipe.with_lr(0.5).optimizer == Sgd(lr=0.5)
    assert Recipe(epochs=3, batch_size=10).total_steps(25) == 9


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Recipe(batch_size=0), "batch size of at least 1"),
        (lambda: Recipe(epochs=-1), "at least 0"),
        (lambda: Recipe().scaled(0), "give a positive share"),
        (
            lambda: fit(tiny_net(), blobs().subset(torch.zeros(0, dtype=torch.long)), Recipe(), generator(0)),
            "nothing to train on",
        ),
        (lambda: accuracy(lambda x: x, Held(Batch(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)))), "not empty"),
    ],
)
def test_bad_input_is_one_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_any_module_trains() -> None:
    x, y = blobs().whole()
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    assert (
        accuracy(fit(net, Batch(x, y), Recipe(epochs=100, optimizer=Sgd(lr=0.05)), generator(0)), Held(Batch(x, y)))
        > 0.9
    )
