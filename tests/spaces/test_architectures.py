"""Architectures as smooth hyperparameters: draws as the logits say, gradients as the softmax does."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from condensery.batch import Batch
from condensery.bilevel import Curvature, Direct, hypergradient, respond
from condensery.net import Net
from condensery.nets.cells import Cell, Mixture, Supernet
from condensery.spaces import Alternatives, Cells, Gumbel, Odds, cross_entropy, gumbel_noise
from support import generator, numerical_gradient


def cells(**options: object) -> Cells:
    net = Net(Supernet(channels=1, classes=2, size=4, width=4, stages=1))
    return Cells(net, **options)  # type: ignore[arg-type]


def batch() -> Batch:
    return Batch(torch.randn(4, 1, 4, 4, generator=generator(9)), torch.tensor([0, 1, 0, 1]))


def test_an_operation_is_drawn_as_often_as_the_softmax_says() -> None:
    alpha = torch.tensor([[0.0, 1.0, 2.0]]).expand(4000, 3)
    drawn = Gumbel(3.0)(alpha, gumbel_noise(alpha, generator()))
    assert torch.equal(drawn.sum(1), torch.ones(4000))
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert torch.allclose(drawn.mean(0), alpha[0].softmax(0), atol=0.03)


def test_the_gradient_is_that_of_the_relaxed_weights() -> None:
    alpha = torch.randn(3, 4, dtype=torch.float64, generator=generator()).requires_grad_()
    noise = gumbel_noise(alpha, generator(1))
    weight = torch.randn(3, 4, dtype=torch.float64, generator=generator(2))
    (found,) = torch.autograd.grad((Gumbel(2.0)(alpha, noise) * weight).sum(), alpha)
    (wanted,) = torch.autograd.grad((((alpha.log_softmax(1) + noise) / 2.0).softmax(1) * weight).sum(), alpha)
    assert torch.allclose(found, wanted)
    assert torch.allclose(found.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-12)  # so `tangent` changes nothing


def test_the_temperature_falls() -> None:
    taus = [Gumbel.falling(k, 11, start=10, end=0.1).tau for k in range(11)]
    assert taus[0] == 10
    assert taus[-1] == pytest.approx(0.1)
    assert all(a - b == pytest.approx(0.99) for a, b in itertools.pairwise(taus))
    assert Gumbel.falling(0, 1).tau == 10
    with pytest.raises(ValueError, match="no step 3 of 3"):
        Gumbel.falling(3, 3)
    with pytest.raises(ValueError, match="give a number above 0"):
        Gumbel(0.0)


def test_the_same_seed_is_the_same_function() -> None:
    space = cells()
    theta, lam = space.init(generator()), space.starts(generator(1))[0]
    losses = [space.training(theta, lam, batch(), generator(s)) for s in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]
    assert space.validation(theta, lam, batch(), generator(3)) == losses[0]


def test_a_sharp_logit_is_the_cell_itself() -> None:
    cell = Cell("3ns31p")
    space = cells(candidates=[cell], sharpness=60.0)
    theta, lam = space.init(generator()), space.starts(generator(1))[0]
    own = torch.nn.functional.cross_entropy(space.net(theta, Mixture(batch().x, cell.weights)), batch().y)  # type: ignore[arg-type]
    assert torch.allclose(space.training(theta, lam, batch(), generator(2)), own)
    assert space.cell(lam) == cell
    assert space.starts(generator()).shape == (1, space.size) == (1, 30)


def test_gdas_leaves_out_the_gradient_of_what_was_not_drawn() -> None:
    whole = cells()
    sampled = Cells(Net(Supernet(channels=1, classes=2, size=4, width=4, stages=1, sampled=True)))
    theta = whole.init(generator())
    lam = whole.starts(generator(1))[0].requires_grad_()
    values, gradients = [], []
    for space in (whole, sampled):
        value = space.training(theta, lam, batch(), generator(5))
        values.append(value)
        gradients.append(torch.autograd.grad(value, lam)[0])
    assert torch.allclose(values[0], values[1])
    assert not torch.allclose(gradients[0], gradients[1])
    # Of each edge's softmax the sampled gradient is g_k (onehot_k - soft) / tau: one number an edge decides it.
    edges = gradients[1].view(6, 5)
    assert torch.allclose(edges.sum(1), torch.zeros(6), atol=1e-6)
    assert torch.allclose(sampled.tangent(gradients[1]), gradients[1], atol=1e-7)


def test_hypergradients_can_be_taken_twice() -> None:
    space = cells()
    theta = space.init(generator()).double().requires_grad_()
    lam = space.starts(generator(1))[0].double().requires_grad_()
    x = batch().x.double().requires_grad_()
    loss = space.validation(theta, lam, Batch(x, batch().y), generator(5))
    (g,) = torch.autograd.grad(loss, lam, create_graph=True)
    (gx,) = torch.autograd.grad(g.square().sum(), x)
    d = torch.randn(x.shape, dtype=torch.float64, generator=generator(6))

    def value(x: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(space.validation(theta, lam, Batch(x, batch().y), generator(5)), lam)
        return g.square().sum()

    slope = (value(x + 1e-6 * d) - value(x - 1e-6 * d)) / 2e-6
    assert torch.allclose((gx * d).sum(), slope, rtol=1e-4)


def test_a_list_of_networks_is_a_space() -> None:
    nets = [Net(nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 2))) for width in (3, 5)]
    space, sampled = Alternatives(nets, sharpness=60.0), Alternatives(nets, sharpness=60.0, sampled=True)
    theta = space.init(generator())
    assert len(theta) == nets[0].size + nets[1].size
    starts = space.starts(generator(2))
    assert sorted(starts.argmax(1).tolist()) == [0, 1]
    for lam in starts:
        own = space.parts(theta)[int(lam.argmax())]
        wanted = torch.nn.functional.cross_entropy(nets[int(lam.argmax())](own, batch().x), batch().y)
        for one in (space, sampled):
            assert torch.allclose(one.validation(theta, lam, batch(), generator(1)), wanted)
    lam = torch.zeros(2, requires_grad=True)
    g = torch.autograd.grad(space.training(theta, lam, batch(), generator(1)), lam)[0]
    assert torch.allclose(space.tangent(g), g, atol=1e-7)
    assert torch.equal(space.project(lam), lam)


def test_leaving_out_the_weights_of_networks_that_were_not_drawn_changes_no_hypergradient() -> None:
    nets = [Net(nn.Sequential(nn.Flatten(), nn.Linear(16, w), nn.Tanh(), nn.Linear(w, 2)).double()) for w in (3, 5, 2)]
    space = Alternatives(nets)
    theta, lam = space.init(generator()).double(), torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    train = Batch(batch().x.double(), batch().y)
    held = Batch(torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=generator(7)), torch.tensor([0, 1, 1, 0, 1, 0]))

    def all_of_them(theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        weights = space.gumbel(lam[None], gumbel_noise(lam[None], generator(3)))[0]
        logits = sum(w * net(p, batch.x) for w, net, p in zip(weights, nets, space.parts(theta), strict=True))
        return cross_entropy(logits, batch.y)

    def one_of_them(theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        return space.training(theta, lam, batch, generator(3))

    found = []
    for loss in (all_of_them, one_of_them):
        curvature = Curvature(lambda t, h, loss=loss: loss(t, h, train) + t.square().sum(), theta, lam)
        response = respond(curvature, Direct())
        found.append(hypergradient(lambda t, h, loss=loss: loss(t, h, held), theta, lam, response))
    assert torch.allclose(found[0].direct, found[1].direct, rtol=1e-10)
    assert found[0].indirect.abs().min() > 1e-6
    assert torch.allclose(found[0].indirect, found[1].indirect, rtol=1e-8)


def test_what_is_no_space_is_refused() -> None:
    with pytest.raises(ValueError, match="is no supernet"):
        Cells(Net(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="nothing to choose among 1"):
        Alternatives([Net(nn.Linear(2, 2))])


def test_hcdc_condenses_for_architectures() -> None:
    """The objective's gradient on a space of cells is that of its value, and descending it turns the hypergradients."""
    from condensery.bilevel.learner import Converged, Momentum
    from condensery.bilevel.solve import AutoNeumann
    from condensery.methods.hcdc import HCDC, Pieces
    from condensery.synthetic import Images

    space = cells(candidates=[Cell("3ns31p"), Cell("1ssps3")])
    g = generator(3)
    train = Batch(torch.randn(8, 1, 4, 4, generator=g).double(), torch.arange(8) % 2)
    real = Batch(torch.randn(20, 1, 4, 4, generator=g).double(), torch.arange(20) % 2)
    images = Images(torch.randn(4, 1, 4, 4, generator=g).double(), torch.tensor([0, 0, 1, 1]))
    learner = Converged(Momentum(0.05), solve=AutoNeumann(4), matrix=False, warm=False)
    method = HCDC(space, train, Pieces.of(real), g, learner=learner, steps=4, every=2, repeat=1000, lr_set=0.05)
    value = method(images)
    (gradient,) = torch.autograd.grad(value, images.values)
    directions, found = numerical_gradient(lambda: method(images), images.values, directions=2)
    wanted = (directions * gradient).flatten(1).sum(1)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-9)
    optimizer = method.optimizer(images)
    for _ in range(15):
        optimizer.zero_grad()
        method(images).backward()
        optimizer.step()
    assert method(images) < 0.85 * value


def test_on_the_scale_of_logarithms_a_network_that_explodes_does_not_decide() -> None:
    plain = odds()
    scaled = Odds(plain.nets, scale=torch.log)
    theta, lam = plain.init(generator()).double(), torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True)
    held = Batch(batch().x.double(), batch().y)
    losses = plain.losses(theta, held)
    for space, wanted in ((plain, losses), (scaled, losses.log())):
        (found,) = torch.autograd.grad(space.validation(theta, lam, held, generator()), lam)
        assert torch.allclose(found, wanted)
    assert torch.equal(scaled.training(theta, lam, held, generator()), plain.training(theta, lam, held, generator()))


def odds() -> Odds:
    return Odds([Net(nn.Sequential(nn.Flatten(), nn.Linear(16, w), nn.Tanh(), nn.Linear(w, 2))) for w in (3, 5, 8)])


def test_odds_are_the_mean_over_draws_of_single_networks() -> None:
    space = odds()
    theta, lam = space.init(generator()), torch.tensor([0.2, 0.5, 0.3])
    own = [
        torch.nn.functional.cross_entropy(net(part, batch().x), batch().y)
        for net, part in zip(space.nets, space.parts(theta), strict=True)
    ]
    assert torch.allclose(space.validation(theta, lam, batch(), generator()), lam @ torch.stack(own))
    assert torch.allclose(space.training(theta, lam, batch(), generator()), torch.stack(own).sum())
    for k, corner in enumerate(torch.eye(3)):
        assert torch.allclose(space.validation(theta, corner, batch(), generator()), own[k])
    assert torch.allclose(space.project(torch.tensor([2.0, 0.0, 0.0])), torch.tensor([1.0, 0.0, 0.0]))
    assert torch.allclose(space.starts(generator()), torch.full((1, 3), 1 / 3))


def test_the_cosine_of_odds_is_the_correlation_of_losses() -> None:
    """HCDC's figure at a point, from the real and the synthetic losses of the networks that were trained there."""
    from condensery.bilevel import Cg, Converged, Momentum
    from condensery.methods.hcdc import HCDC, Pieces
    from condensery.synthetic import Images

    space, g = odds(), generator(3)
    train = Batch(torch.randn(8, 1, 4, 4, generator=g).double(), torch.arange(8) % 2)
    real = Batch(torch.randn(20, 1, 4, 4, generator=g).double(), torch.arange(20) % 2)
    images = Images(torch.randn(4, 1, 4, 4, generator=g).double(), torch.tensor([0, 0, 1, 1]))
    learner = Converged(Momentum(0.1), solve=Cg(5), warm=False)
    method = HCDC(space, train, Pieces.of(real), g, learner=learner, steps=9, every=9, repeat=1000)
    method(images)
    theta = method._bank[-1].theta
    pairs = torch.stack([space.losses(theta, real), space.losses(theta, images())]).detach()
    assert method.figures["cosine"] == pytest.approx(torch.corrcoef(pairs)[0, 1].item(), abs=1e-9)
    assert space.losses(theta, train).mean() < space.losses(space.init(generator(1)).double(), train).mean()


def test_what_is_not_drawn_is_left_out_where_nothing_is_lost() -> None:
    """Without a gradient in lambda the loss and its gradient in theta are the same, and other networks do not run."""
    calls = [0, 0]

    class Counting(nn.Linear):
        def __init__(self, k: int) -> None:
            super().__init__(16, 2)
            self.k = k

        def forward(self, x: Tensor) -> Tensor:
            calls[self.k] += 1
            return super().forward(x.flatten(1))

    space = Alternatives([Net(Counting(0)), Net(Counting(1))], sharpness=60.0)
    theta = space.init(generator()).requires_grad_()
    lam = torch.tensor([60.0, 0.0])
    slopes = []
    for point in (lam, lam.clone().requires_grad_()):
        calls[:] = [0, 0]
        slopes.append(torch.autograd.grad(space.training(theta, point, batch(), generator(1)), theta)[0])
        assert calls == [1, int(point.requires_grad)]
    assert torch.allclose(slopes[0], slopes[1])
    net = Net(Supernet(channels=1, classes=2, size=4, width=4, stages=1))
    weights, flat = Cell("3ns31p").weights, net.init(generator()).requires_grad_()
    found = []
    for w in (weights, weights.clone().requires_grad_()):
        logits = net(flat, Mixture(batch().x, w))  # type: ignore[arg-type]
        found.append((logits, torch.autograd.grad(logits.square().sum(), flat)[0]))
    assert torch.allclose(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1])
