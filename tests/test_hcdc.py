"""HCDC: the objective against finite differences, its theorem, what must be zero, and exact resumption."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condensery.adjacency import Adjacency, NodeInput
from condensery.batch import Batch
from condensery.bilevel import (
    AdamRule,
    AutoNeumann,
    Cg,
    Converged,
    Curvature,
    Direct,
    Explicit,
    Momentum,
    Steps,
    hypergradient,
    respond,
)
from condensery.data.graphs import digits_graph
from condensery.fitting import Held
from condensery.graph import FreeAdjacency, Graph
from condensery.loop import Snapshots, iterate
from condensery.methods.hcdc import HCDC, Pieces, Sampled, Teacher, by_point, together
from condensery.net import Net
from condensery.nets.graph import Polynomial
from condensery.spaces import Filters, Folds, LabelSmoothing, Plain, WeightDecay, in_folds
from condensery.synthetic import Images
from support import blobs, generator, tiny_images, tiny_net


def smooth_net() -> Net:
    return tiny_net(norm="none", width=2)


def exact(**options: Any) -> Converged:
    """Exact solves, damped, because a few steps of training do not come near a minimum."""
    return Converged(Momentum(0.1), solve=Direct(), damping=1.0, **options)


def doubled(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def make(space: Any = None, **options: Any) -> tuple[HCDC, Images]:
    """HCDC for layer-wise weight decay and label smoothing in float64, small enough for exact solves."""
    net, real = smooth_net(), blobs()
    space = space or LabelSmoothing(WeightDecay.layers(Plain(net), net, low=-4.0, high=-1.0), 3)
    train = doubled(tiny_images(real, 3, seed=1)())
    validation = Pieces.of(doubled(real.whole()), 10)
    settings = {"learner": exact(), "steps": 40, "every": 20, **options}
    objective = HCDC(space, Batch(train.x.detach(), train.y), validation, generator(3), **settings)
    return objective, tiny_images(real, 1, seed=2).double()


def folded(**options: Any) -> tuple[HCDC, Images]:
    """HCDC for 4 folds, with a synthetic validation set for each."""
    net, real = smooth_net(), blobs()
    whole = doubled(real.whole())
    fold, few = torch.arange(36) % 4, torch.arange(12) % 4
    train = in_folds(few)(doubled(Batch(*(part.detach() for part in tiny_images(real, 4, seed=1)()))))
    settings = {"learner": exact(), "view": in_folds(few), **options}
    objective = HCDC(Folds(net, folds=4), train, Pieces.of(in_folds(fold)(whole)), generator(3), **settings)
    return objective, tiny_images(real, 4, seed=2).double()


def frozen(objective: HCDC, images: Images) -> HCDC:
    """The objective that stays at the points it has."""
    objective(images)
    objective.repeat = 10**9
    return objective


@pytest.mark.parametrize("matrix", [True, False])
@pytest.mark.parametrize("build", [make, folded])
@pytest.mark.parametrize("distance", [by_point, together])
def test_the_gradient_in_the_set_against_finite_differences(build: Any, matrix: bool, distance: Any) -> None:
    objective, images = build(learner=exact(matrix=matrix), distance=distance, memory=3, points=3)
    for _ in range(2):
        objective(images)
    frozen(objective, images)
    (gradient,) = torch.autograd.grad(objective(images), images.values)
    assert gradient.abs().sum() > 0
    g, eps = generator(9), 1e-5
    for _ in range(4):
        way = torch.randn(gradient.shape, generator=g, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            moved = copy.deepcopy(images)
            with torch.no_grad():
                moved.values += sign * eps * way
            values.append(objective(moved).item())
        assert (values[0] - values[1]) / (2 * eps) == pytest.approx((gradient * way).sum().item(), rel=1e-5, abs=1e-9)


def test_the_distance_falls_where_it_is_descended() -> None:
    """At points that are held still, from images of noise."""
    objective, images = folded(memory=6, points=6, steps=40, every=20)
    torch.nn.init.normal_(images.values, generator=generator(8))
    for _ in range(5):
        objective(images)
    frozen(objective, images)
    losses = [step.loss.item() for step in iterate(images, objective, objective.optimizer(images), steps=40)]
    assert losses[-1] < 0.2 * losses[0]


def test_solves_for_products_are_those_for_the_matrix() -> None:
    found = []
    for matrix in (True, False):
        objective, images = make(learner=Converged(Momentum(0.1), solve=Cg(200, 1e-12), damping=1.0, matrix=matrix))
        loss = objective(images)
        found.append((loss, torch.autograd.grad(loss, images.values)[0]))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-7)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("matrix", [True, False])
def test_the_real_set_itself_has_no_distance(matrix: bool) -> None:
    objective, _ = make(learner=exact(matrix=matrix))
    real = blobs()
    images = Images.from_index(real, torch.arange(36)).double()
    for _ in range(3):
        loss = objective(images)
        assert abs(loss.item()) < 1e-12
        assert objective.figures["cosine"] == pytest.approx(1, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, images.values)
    assert gradient.abs().max() < 1e-9


def test_real_validation_in_pieces_is_the_whole() -> None:
    whole, pieces = make()[0], make()[0]
    whole.real = Pieces.of(doubled(blobs().whole()))
    images = make()[1]
    assert torch.allclose(whole(images), pieces(images), rtol=1e-12)


def test_the_target_is_the_hypergradient_of_training_again() -> None:
    """The real hypergradient of the first point, by finite differences of the loss after training to the end again."""
    net, real = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))), blobs()
    space = LabelSmoothing(WeightDecay(Plain(net), (net.size,), low=-2.0, high=-0.5), 3)
    train = doubled(tiny_images(real, 3, seed=1)())
    train, validation = Batch(train.x.detach(), train.y), doubled(real.whole())
    learner = Converged(Momentum(0.3), solve=Direct())
    objective = HCDC(space, train, Pieces.of(validation), generator(3), learner=learner, steps=400, every=400)
    objective(tiny_images(real, 1, seed=2).double())
    (point,) = objective._bank
    assert objective.figures["training_gradient"] < 1e-8

    def value(lam: Tensor) -> Tensor:
        again = learner.train(learner.start(point.theta), objective._training(0), lam, 400)
        return space.validation(again.theta, lam, validation, generator())

    eps = 1e-4
    for k, unit in enumerate(torch.eye(2, dtype=torch.float64)):
        slope = (value(point.lam + eps * unit) - value(point.lam - eps * unit)) / (2 * eps)
        assert abs(slope - point.target[k]) < 1e-7


def test_a_trajectory_goes_down_the_synthetic_hypergradient() -> None:
    objective, images = folded(steps=60, every=20, lr_lambda=0.5)
    seen = []
    for _ in range(6):
        slope = objective._slope
        objective(images)
        seen.append((objective._bank[-1].lam, slope))
    corners = torch.eye(4, dtype=torch.float64)
    for start in (0, 3):  # a corner, then two steps of projected descent
        assert any(torch.equal(seen[start][0], corner) for corner in corners)
        for before, after in itertools.pairwise(range(start, start + 3)):
            slope = seen[after][1]
            assert slope is not None
            moved = objective.space.project(seen[before][0] - 0.5 * objective.space.tangent(slope))
            assert torch.allclose(seen[after][0], moved, rtol=1e-12)
    assert not torch.equal(seen[0][0], seen[3][0]), "the second trajectory starts at another corner"


def test_repeat_memory_and_points() -> None:
    objective, images = folded(repeat=3, memory=2, points=5)
    made = []
    for _ in range(9):
        objective(images)
        made.append(objective._bank[-1])
    assert [a is b for a, b in itertools.pairwise(made)] == [True, True, False] * 2 + [True, True]
    assert len(objective._bank) == 2
    assert objective._bank[0] is made[3]


def test_a_teacher_gives_the_real_hypergradients() -> None:
    """On the same training data it is the network that it stands for; on others the target differs."""
    (objective, images), same, other = folded(), folded()[0], folded()[0]
    whole = next(iter(objective.real(generator())))[1]
    same.teacher = Teacher(lambda _: same.train, objective.learner)
    other.teacher = Teacher(lambda _: whole, objective.learner, stride=2)
    for o in (objective, same, other):
        o(images)
    targets = [o._bank[0].target for o in (objective, same, other)]
    assert torch.allclose(targets[0], targets[1], rtol=1e-12)
    assert (targets[2] - targets[0]).norm() > 0.01 * targets[0].norm()


def test_steps_see_what_a_minimum_does_not() -> None:
    objective, images = make(learner=Steps(0.1), steps=4, every=2)
    for _ in range(3):
        loss = objective(images)
        assert torch.isfinite(loss)
    assert torch.autograd.grad(loss, images.values)[0].abs().sum() > 0


VARIANTS: dict[str, dict[str, Any]] = {
    "algorithm 1": {},
    "memory": {"repeat": 2, "memory": 4, "points": 3},
    "matrix-free": {"learner": Converged(AdamRule(0.01), solve=AutoNeumann(5), matrix=False), "memory": 2, "points": 2},
    "steps": {"learner": Steps(0.05), "steps": 4, "every": 2},
    "teacher": {"teacher": Teacher(lambda g: in_folds(torch.arange(36) % 4)(doubled(blobs().whole())))},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_resumes_bit_for_bit(name: str, tmp_path: Any) -> None:
    def run(steps: int, **kept: Any) -> Tensor:
        settings = {"learner": Converged(solve=AutoNeumann(5)), "steps": 12, "every": 4, **VARIANTS[name]}
        objective, images = folded(**settings)
        for _ in iterate(images, objective, objective.optimizer(images), steps=steps, **kept):
            pass
        return images.values.detach().clone()

    whole = run(7)
    run(4, snapshots=Snapshots(tmp_path, every=2))
    assert torch.equal(run(7, snapshots=Snapshots(tmp_path, every=2)), whole)


def test_sampled_validation_sets() -> None:
    objective, images = folded()
    batch = Batch(blobs().x.double(), blobs().y)
    objective.real = Sampled(Held(batch), 20)
    assert torch.isfinite(objective(images))
    share, drawn = next(iter(objective.real(generator())))
    assert (share, len(drawn.y)) == (1.0, 20)


def test_filters_on_graphs() -> None:
    """A synthetic validation graph for polynomial filters; its features and its edges are learned."""
    data = digits_graph()
    x, y = data.whole()
    used = torch.full_like(y, -1)
    used[data.validation] = y[data.validation]
    g = generator(1)
    counts = [2] * 10
    graphs = [
        Graph.from_real(data, counts, g, adjacency=FreeAdjacency(0.3 * torch.rand(20, 20, generator=g)))
        for _ in range(2)
    ]
    (features, edges), labels = graphs[0]()
    train = Batch(NodeInput(features.detach(), Adjacency.dense_matrix(edges.dense().detach())), labels)
    net = Net(Polynomial(features=64, classes=10, width=8))
    settings = {"learner": Converged(AdamRule(0.05), solve=AutoNeumann(5)), "steps": 30, "every": 10}
    objective = HCDC(Filters(net), train, Pieces.of(Batch(x, used)), generator(2), memory=6, points=6, **settings)
    for _ in range(5):
        objective(graphs[1])
    frozen(objective, graphs[1])
    losses = [step.loss.item() for step in iterate(graphs[1], objective, objective.optimizer(graphs[1]), steps=30)]
    assert losses[-1] < 0.5 * losses[0]
    assert graphs[1].adjacency.entries.grad.abs().sum() > 0  # type: ignore[union-attr,operator]


def test_unusable_numbers() -> None:
    net = smooth_net()
    single = LabelSmoothing(Plain(net), 3)
    with pytest.raises(ValueError, match="is a sign"):
        make(space=single)
    make(space=single, distance=together)
    for name in ("every", "repeat", "memory", "points"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            make(**{name: 0})
    with pytest.raises(ValueError, match="has no point"):
        make(steps=5, every=6)


def test_the_cosine_with_nothing_is_nothing() -> None:
    rows = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    loss = by_point(torch.ones(2, 2), rows)
    assert loss.item() == pytest.approx((1 - 3 / 10**0.5 + 1) / 2)
    loss.backward()
    assert torch.isfinite(rows.grad).all()  # type: ignore[union-attr]


# --- theorem 1


class Regression:
    """Ridge regression with a decay for each of two groups of weights: L*(lambda) in closed form."""

    def __init__(self) -> None:
        g = generator(11)
        self.x = torch.randn(25, 6, generator=g, dtype=torch.float64)
        self.truth = torch.tensor([1.0, -1, 0.5, 0, 0, 0.2], dtype=torch.float64)
        self.y = self.x @ self.truth + 1.5 * torch.randn(25, generator=g, dtype=torch.float64)

    def training(self, theta: Tensor, lam: Tensor) -> Tensor:
        decay = lam.exp().repeat_interleave(3)
        return 0.5 * (self.x @ theta - self.y).square().mean() + 0.5 * (decay * theta.square()).sum()

    def theta(self, lam: Tensor) -> Tensor:
        a = self.x.T @ self.x / 25 + torch.diag(lam.exp().repeat_interleave(3))
        return torch.linalg.solve(a, self.x.T @ self.y / 25)

    def held_out(self, seed: int, n: int = 12) -> tuple[Tensor, Tensor]:
        g = generator(seed)
        x = torch.randn(n, 6, generator=g, dtype=torch.float64)
        return x, x @ self.truth + torch.randn(n, generator=g, dtype=torch.float64)

    def loss(self, data: tuple[Tensor, Tensor], lam: Tensor) -> Tensor:
        return (data[0] @ self.theta(lam) - data[1]).square().mean()

    def slope(self, data: tuple[Tensor, Tensor], lam: Tensor) -> Tensor:
        theta = self.theta(lam)
        response = respond(Curvature(self.training, theta, lam), Direct())
        return hypergradient(lambda t, h: (data[0] @ t - data[1]).square().mean(), theta, lam, response).total


GRID = [torch.tensor([a, b], dtype=torch.float64) for a in torch.linspace(-4, 1, 6) for b in torch.linspace(-4, 1, 6)]


def order_kept(first: list[float], second: list[float]) -> bool:
    """Condition (HC) for every pair."""
    pairs = itertools.combinations(zip(first, second, strict=True), 2)
    return all((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)


def test_no_distance_anywhere_keeps_the_order() -> None:
    """On a square, which is connected and compact: other data whose hypergradients point the same way everywhere."""
    model = Regression()
    real = model.held_out(1)
    turn, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator(4), dtype=torch.float64))
    ours = (3 * turn @ real[0], 3 * turn @ real[1])
    slopes = [torch.stack([model.slope(data, lam) for lam in GRID]) for data in (real, ours)]
    assert by_point(*slopes) < 1e-12
    assert order_kept(*([model.loss(data, lam).item() for lam in GRID] for data in (real, ours)))


def test_a_distance_somewhere_breaks_the_order_there() -> None:
    """The other direction: from a point where the two part, a small step changes the two losses in different senses."""
    model = Regression()
    real, ours = model.held_out(1), model.held_out(2, 3)
    broken = 0
    for lam in GRID:
        a, b = (model.slope(data, lam) for data in (real, ours))
        way = a / a.norm() - b / b.norm()  # <a, way> = |a| (1 - cos) > 0 and <b, way> = -|b| (1 - cos) < 0
        if by_point(a[None], b[None]) > 1e-3:
            step = 1e-4 * way / way.norm()
            changes = [model.loss(data, lam + step) - model.loss(data, lam - step) for data in (real, ours)]
            assert changes[0] * changes[1] < 0
            broken += 1
    assert broken > len(GRID) / 2


def slopes_of(loss: Callable[[Tensor], Tensor], points: list[Tensor]) -> Tensor:
    """Hypergradients ``[k, p]`` of a loss that depends on lambda alone."""
    nothing = Explicit(torch.zeros(1, len(points[0]), dtype=torch.float64))
    theta = torch.zeros(1, dtype=torch.float64)
    return torch.stack([hypergradient(lambda _, h: loss(h), theta, lam, nothing).total for lam in points])


VALLEY = list(torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None])


def test_two_sides_of_a_valley_may_lose_the_order() -> None:
    """A connected set and no distance anywhere are not enough: the theorem's proof fails where a path turns round.

    Within a side the order is kept. One cosine of all points sees that the sides have different scales.
    """

    def real(lam: Tensor) -> Tensor:
        return lam.square().sum()

    def ours(lam: Tensor) -> Tensor:
        return real(lam) * torch.where(lam.sum() > 0, 1.0, 3.0)

    slopes = slopes_of(real, VALLEY), slopes_of(ours, VALLEY)
    assert by_point(*slopes) < 1e-12
    assert together(*slopes) > 0.05
    values = [[loss(lam).item() for lam in VALLEY] for loss in (real, ours)]
    assert all(order_kept(values[0][part], values[1][part]) for part in (slice(10), slice(10, 20)))
    one, other = torch.tensor([-0.6]), torch.tensor([0.8])
    assert real(one) < real(other)
    assert ours(one) > ours(other)


def test_one_cosine_of_all_points_keeps_the_order_in_a_valley() -> None:
    def real(lam: Tensor) -> Tensor:
        return lam.square().sum() + 0.3 * lam.sum()  # no two points of the grid are alike

    def ours(lam: Tensor) -> Tensor:
        return 3 * real(lam) - 7

    assert together(slopes_of(real, VALLEY), slopes_of(ours, VALLEY)) < 1e-12
    assert order_kept(*([loss(lam).item() for lam in VALLEY] for loss in (real, ours)))


def test_a_space_in_two_parts_may_lose_the_order() -> None:
    """No distance in either part, by either distance: nothing ties their levels together."""
    apart = [lam for lam in VALLEY if lam.abs() > 0.5]

    def ours(lam: Tensor) -> Tensor:
        return lam.sum() - torch.where(lam.sum() > 0, 10.0, 0.0)

    slopes = slopes_of(Tensor.sum, apart), slopes_of(ours, apart)
    assert by_point(*slopes) < 1e-12
    assert together(*slopes) < 1e-12
    values = [lam.sum().item() for lam in apart], [ours(lam).item() for lam in apart]
    half = len(apart) // 2
    assert all(order_kept(values[0][part], values[1][part]) for part in (slice(half), slice(half, None)))
    assert not order_kept(*values)
