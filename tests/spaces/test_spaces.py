"""Search spaces: their losses are the published ones where they can be compared, and smooth everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.adjacency import Adjacency, NodeInput
from condensery.batch import Batch
from condensery.bilevel import Curvature, Direct, hypergradient, respond, unrolled_response
from condensery.net import Net
from condensery.nets.graph import Polynomial
from condensery.spaces import (
    Blend,
    Box,
    Filters,
    FoldInput,
    Folds,
    LabelSmoothing,
    LearningRate,
    Plain,
    Simplices,
    Space,
    WeightDecay,
    cross_entropy,
    in_folds,
    project_simplex,
)
from support import generator, tiny_net


def linear() -> Net:
    return Net(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))


def examples(n: int = 14) -> Batch:
    g = generator(2)
    return Batch(torch.randn(n, 1, 2, 2, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g))


def folded() -> Batch:
    """Folds of 3, 5 and 6 examples."""
    return in_folds(torch.tensor([0] * 3 + [1] * 5 + [2] * 6))(examples())


def nodes() -> Batch:
    edges = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])
    x = torch.randn(5, 4, generator=generator(3), dtype=torch.float64)
    return Batch(NodeInput(x, Adjacency.sparse(edges, 5)), torch.tensor([0, 1, -1, 2, -1]))


def noisy(x: Tensor, g: torch.Generator) -> Tensor:
    return x + torch.randn(x.shape, generator=g, dtype=x.dtype)


def spaces() -> dict[str, tuple[Space, Batch]]:
    net, graph = linear(), Net(Polynomial(features=4, classes=3, width=3, depth=2, activation="softplus"))
    plain = Plain(net)
    return {
        "decay": (WeightDecay.layers(plain, net), examples()),
        "smoothing": (LabelSmoothing(plain, 3), examples()),
        "blend": (Blend(plain, noisy), examples()),
        "rate": (LearningRate(plain), examples()),
        "folds": (Folds(net, folds=3), folded()),
        "filters": (Filters(graph), nodes()),
        "all filters": (Filters(graph, box=Box((0.0, -1.0), (1.0, 1.0)), coefficients=lambda lam: lam), nodes()),
        "nested": (WeightDecay(LabelSmoothing(Blend(Folds(net, folds=3), noisy), 3), (15,)), folded()),
    }


@pytest.mark.parametrize("name", spaces())
def test_losses_are_smooth_and_points_stay_inside(name: str) -> None:
    """First derivatives in theta and lambda against finite differences, second ones by `gradgradcheck`."""
    space, batch = spaces()[name]
    theta = space.init(generator(1)).double().requires_grad_()
    starts = space.starts(generator(4)).double()
    assert starts.shape[1] == space.size > 0
    lam = starts[0]
    assert torch.allclose(space.project(lam), lam, atol=1e-6)
    far = space.project(lam + 10 * torch.randn(space.size, generator=generator(5), dtype=torch.float64))
    assert torch.allclose(space.project(far), far, atol=1e-6)
    inside = (0.5 * (lam + far)).requires_grad_()
    for loss in (space.training, space.validation):
        value = lambda t, h, loss=loss: loss(t, h, batch, generator(6))  # noqa: E731
        assert value(theta, inside).shape == ()
        assert torch.autograd.gradcheck(value, (theta, inside))
        assert torch.autograd.gradgradcheck(value, (theta, inside))


@pytest.mark.parametrize("name", spaces())
def test_draws_come_from_the_generator(name: str) -> None:
    space, batch = spaces()[name]
    state = torch.get_rng_state()
    theta, lam = space.init(generator(1)).double(), space.starts(generator(4)).double()[0]
    assert torch.equal(space.starts(generator(4)).double()[0], lam)
    losses = [space.training(theta, lam, batch, generator(6)) for _ in range(2)]
    assert torch.equal(*losses)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("i", range(3))
def test_a_corner_is_the_cross_validation(i: int) -> None:
    space, batch = Folds(linear(), folds=3), folded()
    theta, corner = space.init(generator(1)).double(), torch.eye(3, dtype=torch.float64)[i]
    x, fold = batch.x
    for rows, loss in ((fold != i, space.training), (fold == i, space.validation)):
        expected = F.cross_entropy(space.net(theta, x[rows]), batch.y[rows])
        assert torch.allclose(loss(theta, corner, batch, generator()), expected, rtol=1e-12)
    shared = space.validation(theta, corner, Batch(x, batch.y), generator())
    assert torch.allclose(shared, F.cross_entropy(space.net(theta, x), batch.y), rtol=1e-12)


def test_folds_start_at_every_corner_once() -> None:
    starts = Folds(linear(), folds=5).starts(generator())
    assert torch.equal(starts.sum(0), torch.ones(5))
    assert torch.equal(starts.sum(1), torch.ones(5))
    assert not torch.equal(starts, torch.eye(5))
    with pytest.raises(ValueError, match="1 folds"):
        Folds(linear(), folds=1)
    with pytest.raises(ValueError, match="do not know their folds"):
        Folds(linear(), folds=3).training(torch.zeros(15).double(), torch.eye(3)[0], examples(), generator())


def test_the_part_along_the_simplex_is_what_moving_in_it_sees() -> None:
    shares, g = Simplices((3, 4)), generator(1)
    a, b = shares.draw(g).double(), shares.draw(g).double()
    gradient = torch.randn(7, generator=g, dtype=torch.float64)
    assert torch.allclose(shares.tangent(gradient) @ (a - b), gradient @ (a - b), atol=1e-6)
    assert torch.allclose(shares.tangent(gradient + torch.tensor([5.0] * 3 + [9.0] * 4)), shares.tangent(gradient))
    assert torch.equal(shares.tangent(gradient.expand(2, 7))[1], shares.tangent(gradient))


def test_the_projection_on_a_simplex_is_the_nearest_point() -> None:
    g = generator(2)
    for _ in range(20):
        v = 2 * torch.randn(6, generator=g, dtype=torch.float64)
        p = project_simplex(v)
        assert (p >= 0).all()
        assert abs(p.sum() - 1) < 1e-12
        # Nearest: the way back makes an obtuse angle with every way into the simplex, so with those to the corners.
        assert ((v - p) @ (torch.eye(6, dtype=torch.float64) - p).T <= 1e-12).all()


def test_boxes() -> None:
    box = Box((0.0, 1.0), (0.5, 1.0))
    draws = torch.stack([box.draw(g) for g in map(generator, range(30))])
    assert (draws[:, 0] >= 0).all()
    assert (draws[:, 0] <= 0.5).all()
    assert (draws[:, 1] == 1).all()
    for low, high in (((0.0,), (0.0, 1.0)), ((1.0,), (0.0,)), ((0.0,), (float("inf"),))):
        with pytest.raises(ValueError, match="make no box"):
            Box(low, high)
    with pytest.raises(ValueError, match="Groups"):
        Simplices((1, 3))


def test_decay_by_layers() -> None:
    net = tiny_net()
    space = WeightDecay.layers(Plain(net), net)
    assert sum(space.blocks) == net.size
    assert len(space.blocks) == len({name.rpartition(".")[0] for name in net.layers(torch.empty(net.size))})
    theta, lam = net.init(generator()), torch.linspace(-5, -3, space.size)
    x = torch.randn(2, 1, 8, 8, generator=generator())
    batch = Batch(x, torch.tensor([0, 1]))
    extra = space.training(theta, lam, batch, generator()) - Plain(net).training(theta, lam, batch, generator())
    expected = sum(0.5 * h.exp() * part.square().sum() for h, part in zip(lam, theta.split(space.blocks), strict=True))
    assert torch.allclose(extra, torch.as_tensor(expected), rtol=1e-4)
    assert torch.equal(
        space.validation(theta, lam, batch, generator()), Plain(net).validation(theta, lam, batch, generator())
    )
    with pytest.raises(ValueError, match="do not make"):
        WeightDecay(Plain(net), (3,)).training(theta, lam[:1], batch, generator())


def test_smoothing_is_that_of_pytorch() -> None:
    space, batch = LabelSmoothing(Plain(linear()), 3), examples()
    theta, s = space.init(generator(1)).double(), torch.tensor([0.3], dtype=torch.float64)
    logits = space.inner.net(theta, batch.x)  # type: ignore[attr-defined]
    assert torch.allclose(
        space.training(theta, s, batch, generator()), F.cross_entropy(logits, batch.y, label_smoothing=0.3)
    )
    some = torch.where(torch.arange(14) % 2 == 0, batch.y, -1)
    counted = F.cross_entropy(logits[::2], batch.y[::2], label_smoothing=0.3)
    assert torch.allclose(space.training(theta, s, Batch(batch.x, some), generator()), counted)
    rows = F.one_hot(batch.y, 3).double()
    assert torch.allclose(cross_entropy(logits, rows), F.cross_entropy(logits, batch.y))


def test_blending_goes_from_nothing_to_the_augmentation() -> None:
    space, batch = Blend(Plain(linear()), noisy), examples()
    theta = space.init(generator(1)).double()
    for s, x in ((0.0, batch.x), (1.0, noisy(batch.x, generator(6)))):
        loss = space.training(theta, torch.tensor([s], dtype=torch.float64), batch, generator(6))
        assert torch.allclose(loss, F.cross_entropy(space.inner.net(theta, x), batch.y))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="cannot be augmented"):
        space.training(theta, torch.zeros(1), nodes(), generator())


def test_a_learning_rate_is_seen_by_unrolling_and_not_at_a_minimum() -> None:
    net, batch = linear(), examples()
    inner = WeightDecay(Plain(net), (15,), low=-1.0, high=-1.0)
    space = LearningRate(inner)
    lam = torch.tensor([-1.5, -1.0], dtype=torch.float64)

    def training(theta: Tensor, lam: Tensor) -> Tensor:
        return space.training(theta, lam, batch, generator())

    def plain(i: int, theta: Tensor, lam: Tensor) -> Tensor:
        return inner.training(theta, lam[1:], batch, generator())

    start = net.init(generator(1)).double()
    theta, response = unrolled_response(lambda _, t, h: training(t, h), start, lam, 1.0, steps=6)
    rate = float(lam[0].exp())
    assert torch.allclose(theta, unrolled_response(plain, start, lam, rate, steps=6)[0])
    eps = 1e-6
    ends = [unrolled_response(plain, start, lam, rate * (1 + sign * eps), steps=6)[0] for sign in (1, -1)]
    assert torch.allclose(response.jacobian[:, 0], (ends[0] - ends[1]) / (2 * eps), rtol=0, atol=1e-8)
    end, _ = unrolled_response(lambda _, t, h: training(t, h), start, lam, 1.0, steps=400)
    at_rest = respond(Curvature(training, end, lam), Direct())
    found = hypergradient(lambda t, h: space.validation(t, h, batch, generator()), end, lam, at_rest).total
    assert abs(found[0]) < 1e-10 < abs(found[1])


def test_filters_are_the_networks_own() -> None:
    module = Polynomial(features=4, classes=3, width=3, depth=2, coefficients=(1.0, -1.0))
    space, batch = Filters(Net(module)), nodes()
    theta, lam = space.init(generator(1)).double(), torch.tensor([0.0, -1.0], dtype=torch.float64)
    logits = space.net(theta, batch.x)
    assert torch.allclose(space.logits(theta, lam, batch), logits)
    counted = batch.y >= 0
    assert torch.allclose(
        space.validation(theta, lam, batch, generator()), F.cross_entropy(logits[counted], batch.y[counted])
    )
    with pytest.raises(ValueError, match="no 2 filter coefficients"):
        Filters(linear())
    with pytest.raises(ValueError, match="no 3 filter coefficients"):
        Filters(Net(module), box=Box((0.0,) * 3, (1.0,) * 3), coefficients=lambda lam: lam)


def test_nesting_puts_the_outer_numbers_first() -> None:
    space: Any = spaces()["nested"][0]
    assert space.size == 1 + 1 + 1 + 3
    own, inner = space.split(torch.arange(6.0))
    assert own.tolist() == [0]
    assert space.inner.split(inner)[0].tolist() == [1]
    assert space.starts(generator()).shape == (3, 6)
    tangent = space.tangent(torch.arange(6.0))
    assert tangent.tolist() == [0, 1, 2, -1, 0, 1]
    x, batch = FoldInput(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])), torch.tensor([0, 1])
    assert torch.isfinite(
        space.training(torch.zeros(15), torch.tensor([-3.0, 0.1, 0.5, 0, 0, 1]), Batch(x, batch), generator())
    )
