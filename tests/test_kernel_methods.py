"""KIP, RFAD and FRePo: their losses against formulas written out, and what they keep between steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from condensery import data, nets
from condensery.batch import Batch
from condensery.fitting import Adam, Recipe, SquaredError, WarmupCosine, accuracy, fit
from condensery.kernels import FullyConnected, empirical_ntk, mean_over_outputs
from condensery.loop import Snapshots, iterate
from condensery.methods.frepo import FRePo
from condensery.methods.kip import KIP, InfiniteNtk, RandomNngp, RandomNtk
from condensery.methods.regression import Platt, Squared, centred_one_hot
from condensery.methods.rfad import RFAD
from condensery.net import Net
from condensery.optimizers import Lamb
from condensery.pool import AdamMse, ModelPool
from condensery.synthetic import Images
from support import blobs, generator, numerical_gradient, tiny_images, tiny_net

Make = Callable[[Net, Any, torch.Generator], Any]

METHODS: dict[str, Make] = {
    "KIP": lambda net, real, g: KIP(net, real, g, batch_real=12),
    "KIP with Platt": lambda net, real, g: KIP(net, real, g, batch_real=12, loss=Platt()),
    "KIP random NNGP": lambda net, real, g: KIP(net, real, g, batch_real=12, kernel=RandomNngp(2)),
    "KIP random NTK": lambda net, real, g: KIP(net, real, g, batch_real=6, kernel=RandomNtk(2)),
    "RFAD": lambda net, real, g: RFAD(net, real, g, batch_real=12, networks=3),
    "RFAD squared": lambda net, real, g: RFAD(net, real, g, batch_real=12, networks=3, loss=Squared()),
    "FRePo": lambda net, real, g: FRePo(net, real, g, batch_real=12, pool_size=3, life=4, decay_steps=6),
}


def doubled(*, per_class: int = 12) -> Any:
    """Real images that are float64 all the way."""
    real = blobs(per_class=per_class)
    object.__setattr__(real, "prepare", torch.Tensor.double)
    return real


def labelled(real: Any, per_class: Any = 2, *, scale: float = 1.0, **options: Any) -> Images:
    """A set with learned centred labels."""
    plain = tiny_images(real, per_class)
    rows = scale * centred_one_hot(plain.classes, real.num_classes)
    return tiny_images(real, per_class, labels=rows, learn_labels=True, **options)


def solve(across: Tensor, within: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Ridge regression written out, its ridge relative to the mean diagonal."""
    lam = ridge * within.trace() / len(within)
    return across @ torch.linalg.solve(within + lam * torch.eye(len(within), dtype=within.dtype), y)


def squared(predictions: Tensor, classes: Tensor) -> Tensor:
    rows = centred_one_hot(classes, predictions.shape[1], dtype=predictions.dtype)
    return (predictions - rows).square().sum() / (2 * len(classes))


def drawn(real: Any, count: int, g: torch.Generator) -> Batch:
    return real.batch(torch.randperm(len(real), generator=g)[:count])


def run(make: Make, steps: int, *, norm: str = "none", **kw: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    real = blobs()
    images = labelled(real, mirrored=True)
    objective = make(tiny_net(norm=norm), real, generator(1))
    for _ in iterate(images, objective, objective.optimizer(images), steps=steps, **kw):
        pass
    assert images.labels is not None
    return images.values.detach().clone(), images.labels.detach().clone(), objective.figures


# --- the losses
# ---------------------------------------------------------------------------------------------------


def test_kip_is_ridge_regression_under_the_tangent_kernel() -> None:
    real = doubled()
    images = labelled(real, mirrored=True).double()
    loss = KIP(tiny_net(), real, generator(3), batch_real=20, ridge=1e-3)(images)
    x, y = images()
    batch, kernel = drawn(real, 20, generator(3)), FullyConnected(1, 2.0, 0.01)
    expected = squared(solve(kernel.ntk(batch.x, x), kernel.ntk(x), y, 1e-3), batch.y)
    assert torch.allclose(loss, expected, rtol=1e-10)


def test_kip_under_the_empirical_tangent_kernel() -> None:
    real, net = doubled(), tiny_net()
    images = labelled(real).double()
    loss = KIP(net, real, generator(3), batch_real=6, ridge=1e-3, kernel=RandomNtk(2))(images)
    x, y = images()
    g = generator(3)
    batch = drawn(real, 6, g)
    thetas = [net.init(g).double() for _ in range(2)]
    within = sum(mean_over_outputs(empirical_ntk(net, t, x), 3) for t in thetas) / 2
    across = sum(mean_over_outputs(empirical_ntk(net, t, batch.x, x), 3) for t in thetas) / 2
    assert torch.allclose(loss, squared(solve(across, within, y, 1e-3), batch.y), rtol=1e-9)


@pytest.mark.parametrize("platt", [False, True])
def test_rfad_is_ridge_regression_on_the_features_of_fresh_networks(platt: bool) -> None:
    real, net = doubled(), tiny_net()
    images = labelled(real).double()
    loss_of = Platt() if platt else Squared()
    rfad = RFAD(net, real, generator(3), networks=3, batch_real=20, loss=loss_of)
    groups = rfad.optimizer(images).param_groups
    if platt:
        groups[-1]["params"][0].data.fill_(0.7)
    value = rfad(images)
    x, y = images()
    g = generator(3)
    batch = drawn(real, 20, g)
    thetas = [net.init(g).double() for _ in range(3)]
    s, t = (torch.cat([net.embed(theta, im) for theta in thetas], 1) for im in (x, batch.x))
    within, across = (2.0 / s.shape[1] * a @ s.T + 0.01 for a in (s, t))
    predictions = solve(across, within, y, 5e-3)
    if platt:
        scaled = (math.exp(torch.tensor(0.7).item()) * predictions).log_softmax(1)
        expected = -scaled[torch.arange(20), batch.y].mean()
    else:
        expected = squared(predictions, batch.y)
    assert torch.allclose(value, expected, rtol=1e-6)  # the temperature is float32


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_frepo_is_ridge_regression_on_the_features_of_the_drawn_network(share: float) -> None:
    """Along three steps, the pool being trained on the set as it becomes."""
    real, net = doubled(), tiny_net()
    images = labelled(real, mirrored=True, scale=0.2).double()
    g, pool = generator(3), ModelPool(size=2, life=100, step=AdamMse(lr=0.01))
    frepo = FRePo(net, real, generator(3), batch_real=20, pool_size=2, lr_pool=0.01, margin=share, ridge=1e-3)
    optimizer = frepo.optimizer(images)
    for _ in range(3):
        x, y = images()
        theta = pool.draw(net, Batch(x.detach(), y.detach()), g)
        batch = drawn(real, 20, g)
        s, t = net.embed(theta, x), net.embed(theta, batch.x)
        expected = squared(solve(t @ s.T, s @ s.T, y, 1e-3), batch.y)
        top = y.sort(1, descending=True).values
        rewarded = (top[:, 0] - top[:, 1]).clamp(max=1 / 3).mean()
        optimizer.zero_grad()
        loss = frepo(images)
        assert torch.allclose(loss, expected - share * rewarded, rtol=1e-9)
        assert torch.allclose(frepo.figures["regression"], expected, rtol=1e-9)
        loss.backward()
        optimizer.step()
    assert rewarded < 1 / 3


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_gradients_of_images_and_labels_against_finite_differences(name: str, norm: str) -> None:
    real = doubled()
    images = labelled(real, [1, 2, 2], mirrored=True).double()
    with torch.no_grad():  # the tangent kernel has a kink where a synthetic image is a real one
        images.values += 0.3 * torch.randn(images.values.shape, generator=generator(9), dtype=torch.float64)
    objective = METHODS[name](tiny_net(norm=norm), real, generator(3))
    objective.optimizer(images)
    for _ in range(6 if norm == "batch" else 1):  # so that running statistics are not the first ones
        objective(images)
    if isinstance(objective, FRePo):  # its training on the set is not differentiated, as published
        objective._pool.step, objective._drawn = AdamMse(lr=0.0), None

    def value() -> Tensor:
        return copy.deepcopy(objective)(images)

    for p in images.parameters():
        (gradient,) = torch.autograd.grad(value(), p)
        assert gradient.norm() > 0
        directions, slopes = numerical_gradient(value, p)
        ours = (directions * gradient).flatten(1).sum(1)
        assert torch.allclose(ours, slopes, rtol=1e-5, atol=1e-8)


def test_labels_alone_are_solved_for() -> None:
    """With the images held, KIP is least squares in the labels: descending them reaches its solution."""
    real = doubled(per_class=6)
    images = labelled(real).double()
    kip = KIP(tiny_net(), real, generator(3), batch_real=1000, ridge=0.1, lr_images=0.0, lr_labels=0.05)
    before = images.values.detach().clone()
    for _ in iterate(images, kip, kip.optimizer(images), steps=800):
        pass
    x, kernel, batch = before, FullyConnected(1, 2.0, 0.01), real.whole()
    a = solve(kernel.ntk(batch.x.double(), x), kernel.ntk(x), torch.eye(len(x), dtype=x.dtype), 0.1)
    best = torch.linalg.lstsq(a, centred_one_hot(batch.y, 3, dtype=x.dtype)).solution
    assert torch.equal(images.values.detach(), before)
    assert images.labels is not None
    assert torch.allclose(images.labels.detach(), best, atol=1e-3 * best.abs().max().item())


def test_hard_labels_are_centred_rows() -> None:
    real = blobs()
    hard, soft = tiny_images(real), labelled(real)
    for make in METHODS.values():
        assert torch.allclose(
            make(tiny_net(), real, generator(1))(hard), make(tiny_net(), real, generator(1))(soft), rtol=1e-4
        )


# --- what is kept between steps
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("name", METHODS)
def test_resumes_bit_for_bit_and_leaves_the_global_generator(name: str, norm: str, tmp_path: Any) -> None:
    run(METHODS[name], 1, norm=norm)
    state = torch.get_rng_state()
    objective = METHODS[name](tiny_net(norm=norm), blobs(), generator(1))
    torch.set_rng_state(state)
    objective(labelled(blobs()))
    assert torch.equal(torch.get_rng_state(), state)
    values, labels, figures = run(METHODS[name], 8, norm=norm)
    run(METHODS[name], 5, norm=norm, snapshots=Snapshots(tmp_path, every=2))
    again = run(METHODS[name], 8, norm=norm, snapshots=Snapshots(tmp_path, every=2))
    assert torch.equal(again[0], values)
    assert torch.equal(again[1], labels)
    assert again[2].keys() == figures.keys()
    assert all(torch.equal(again[2][key], value) for key, value in figures.items())


def test_the_temperature_is_learned_and_resumed_in_place() -> None:
    real = blobs()
    images = labelled(real)
    rfad = RFAD(tiny_net(), real, generator(1), batch_real=12, networks=2)
    for _ in iterate(images, rfad, rfad.optimizer(images), steps=3):
        pass
    other = RFAD(tiny_net(), real, generator(1), batch_real=12, networks=2)
    optimizer = other.optimizer(images)
    other.load_state_dict(rfad.state_dict())
    tau = optimizer.param_groups[-1]["params"][0]
    assert tau.item() > 0
    assert optimizer.param_groups[-1]["lr"] == 0.01
    other(images)
    assert torch.equal(other.figures["log_tau"], tau.detach())


def test_running_statistics_are_those_of_training() -> None:
    real = doubled()
    images, net = labelled(real).double(), tiny_net(norm="batch")
    frepo = FRePo(net, real, generator(1), batch_real=12, pool_size=1, life=3, norm_decay=0.25)
    x = images().x.detach()

    def held() -> dict[str, Tensor]:
        frepo(images)
        found = frepo.state_dict()["statistics"]
        assert found is not None
        return dict(found[0])

    fresh = held()
    assert all((v == (0 if name.endswith("mean") else 1)).all() for name, v in fresh.items())
    expected = fresh
    for _ in range(2):
        met = net.statistics(frepo.state_dict()["drawn"], x)
        expected = {name: 0.25 * expected[name] + 0.75 * met[name] for name in met}
        now = held()
        assert len(now) > 0
        assert all(torch.allclose(now[name], expected[name]) for name in now)
    again = held()  # its life of three steps is over
    assert all(torch.equal(again[name], fresh[name]) for name in fresh)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_lower_precision_is_for_the_real_images_only(norm: str) -> None:
    """The set's gradient turns by less than a degree or two; nothing of the set or of the pool is rounded."""
    real = blobs()
    found: list[tuple[float, Tensor]] = []
    for precision in (None, torch.bfloat16):
        images = labelled(real)
        how = {"batch_real": 24, "pool_size": 2, "ridge": 1e-2, "precision": precision}
        frepo = FRePo(tiny_net(norm=norm), real, generator(1), **how)  # type: ignore[arg-type]
        for _ in range(3):
            loss = frepo(images)
        found.append((loss.item(), torch.autograd.grad(loss, images.values)[0]))
        assert all(not isinstance(t, Tensor) or t.dtype == torch.float32 for t in frepo._pool.state_dict().values())
    (exact, gradient), (low, other) = found
    assert low != exact  # it does something
    assert low == pytest.approx(exact, rel=0.01)
    assert torch.cosine_similarity(gradient.flatten(), other.flatten(), dim=0) > 0.999


def test_features_under_batch_normalisation_do_not_depend_on_the_batch() -> None:
    """Every real image twice leaves the loss as it is: statistics are the set's, not the real batch's."""
    real, net = doubled(), tiny_net(norm="batch")
    losses = []
    for index in (torch.arange(6), torch.arange(6).repeat(3)):
        images, part = labelled(real).double(), real.subset(index)
        object.__setattr__(part, "prepare", torch.Tensor.double)
        frepo = FRePo(net, part, generator(1), batch_real=100, pool_size=1)
        frepo(images)
        losses.append(frepo(images))
    assert torch.allclose(*losses, rtol=1e-10)


# --- the outer optimizer
# ---------------------------------------------------------------------------------------------------


def test_lamb_falls_along_a_cosine_and_goes_on_where_it_was() -> None:
    def sizes(optimizer: Lamb, p: Tensor, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            old, p.grad = p.detach().clone(), torch.ones(2)
            optimizer.step()
            found.append(((p - old).norm() / old.norm()).item())
        return found

    p = torch.nn.Parameter(torch.tensor([30.0, 40.0]))
    optimizer = Lamb([p], lr=0.01, cosine=(4, 0.1))
    first = sizes(optimizer, p, 3)
    state = copy.deepcopy(optimizer.state_dict())
    q = torch.nn.Parameter(p.detach().clone())
    other = Lamb([q], lr=0.01, cosine=(4, 0.1))
    other.load_state_dict(state)
    last = sizes(other, q, 3)
    expected = [0.01 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(t, 4) / 4))) for t in range(6)]
    assert [*first, *last] == pytest.approx(expected, rel=1e-3)
    constant = torch.nn.Parameter(torch.tensor([30.0, 40.0]))
    assert sizes(Lamb([constant], lr=0.01), constant, 6) == pytest.approx([0.01] * 6, rel=1e-3)


def test_rates_of_images_and_labels() -> None:
    images = labelled(blobs(), step_size=0.1)
    for make in (KIP, RFAD, FRePo):
        optimizer = make(tiny_net(), blobs(), generator(), lr_images=0.3, lr_labels=0.2).optimizer(images)
        rates = {id(group["params"][0]): group["lr"] for group in optimizer.param_groups}
        assert rates[id(images.values)] == 0.3
        assert rates[id(images.labels)] == 0.2
        assert id(images.step_size) not in rates


# --- settings, and whether it works
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *a: KIP(*a, batch_real=0), "give at least 1"),
        (lambda *a: KIP(*a, ridge=0.0), "a number above 0"),
        (lambda *a: RFAD(*a, networks=0), "give at least 1"),
        (lambda *a: RFAD(*a, bias_variance=-1.0), "non-negative variance"),
        (lambda *a: RandomNtk(0), "give at least 1"),
        (lambda *a: FRePo(*a, margin=-1.0), "give at least 0"),
        (lambda *a: FRePo(*a, norm_decay=2.0), "a share from 0 to 1"),
        (lambda *a: FRePo(*a, pool_size=0), "give 1 or more"),
        (lambda *a: Lamb([torch.zeros(1, requires_grad=True)], cosine=(0, 0.1)), "at least 1 step"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tiny_net(), blobs(), generator())


@pytest.mark.parametrize("kernel", [InfiniteNtk(), RandomNngp(), RandomNtk()], ids=lambda k: type(k).__name__)
def test_kernels_see_the_same_networks_on_both_sides(kernel: Any) -> None:
    x = blobs().batch(torch.arange(4)).x
    within, across = kernel(tiny_net(), x, x, generator())
    assert torch.allclose(within, across, rtol=1e-4)
    assert torch.linalg.eigvalsh(within).min() > -1e-4 * within.diagonal().mean()


DIGITS: dict[str, tuple[Make, int]] = {
    "KIP": (lambda net, real, g: KIP(net, real, g, batch_real=500), 60),
    "RFAD": (lambda net, real, g: RFAD(net, real, g, batch_real=256, networks=2, lr_images=0.01, lr_labels=0.01), 50),
    "FRePo": (lambda net, real, g: FRePo(net, real, g, batch_real=256, lr_images=0.01, lr_labels=0.01), 80),
}


@pytest.mark.parametrize("name", DIGITS)
def test_learned_digits_teach_more_than_real_ones(name: str) -> None:
    digits = data.digits()
    net = Net(nets.ConvNet(channels=1, classes=10, size=8, width=16, norm=nets.Norm.NONE, parametrisation="lecun"))
    images = labelled(digits.train, 1)
    recipe = Recipe(steps=150, optimizer=Adam(lr=2e-3), schedule=WarmupCosine(50), loss=SquaredError())

    def level() -> float:
        return sum(accuracy(fit(net, images(), recipe, generator(s)), digits.test) for s in range(2)) / 2

    before = level()
    make, steps = DIGITS[name]
    objective = make(net, digits.train, generator(2))
    for _ in iterate(images, objective, objective.optimizer(images), steps=steps):
        pass
    assert level() > before + 0.05
