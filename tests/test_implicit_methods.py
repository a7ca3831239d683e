"""VIG, CIG and RCIG: identities and finite differences in float64, and that they learn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condensery import kernels, nets
from condensery.bilevel import Cg, Direct, Hessian
from condensery.data import digits
from condensery.data.labelled import Labelled
from condensery.loop import Snapshots, iterate, result
from condensery.methods.cig import CIG
from condensery.methods.linearised import Descent, Dual, Inner, Linearised, Tuned
from condensery.methods.rcig import RCIG
from condensery.methods.regression import Platt, Squared, centred_one_hot, margin
from condensery.methods.vig import VIG
from condensery.net import Net
from condensery.synthetic import Images
from support import blobs, generator, numerical_gradient, tiny_images, tiny_net

EXACTLY = Descent(solve=Cg(steps=400, tolerance=1e-13))
METHODS: dict[str, type] = {"VIG": VIG, "CIG": CIG, "RCIG": RCIG}
SMALL: dict[str, Any] = {"batch_real": 8, "pool_size": 3, "life": 6, "pool_steps": 2, "lr_images": 0.05}


class Doubled(Net):
    """A network whose drawn parameters are float64."""

    def init(self, g: torch.Generator, *, device: Any = None) -> Tensor:
        return super().init(g, device=device).double()


def wide(**options: Any) -> Labelled:
    """Real images in float64."""
    real = blobs(**options)
    object.__setattr__(real, "prepare", torch.Tensor.double)
    return real


def learned(real: Labelled, per_class: Any = 2, **options: Any) -> Images:
    """A set in float64 whose labels are learned."""
    plain = tiny_images(real, per_class)
    rows = centred_one_hot(plain.classes, real.num_classes)
    rows = rows + 0.1 * torch.randn(rows.shape, generator=generator(4))
    return tiny_images(real, per_class, labels=rows, learn_labels=True, **options).double()


def build(method: type, real: Labelled, *, norm: str = "none", seed: int = 1, **options: Any) -> Any:
    """A method whose networks are always drawn anew, so that nothing but its gradient depends on the set."""
    settings = {**SMALL, "life": 1, "ridge": 0.02, **options}
    return method(Doubled(tiny_net(norm=norm).module), real, generator(seed), **settings)


def gradients(method: type, real: Labelled, images: Images, **options: Any) -> tuple[Tensor, list[Tensor]]:
    """The value and the gradient in images and labels."""
    value = build(method, real, **options)(images)
    return value.detach(), list(torch.autograd.grad(value, list(images.parameters()), materialize_grads=True))


def settle(objective: Any, *, inner: float, inverse: float) -> None:
    """Rates by hand: no trials, which take long with many steps."""
    for tuned, rate in ((objective._inner_rate, inner), (objective._inverse_rate, inverse)):
        tuned.auto.rate, tuned.auto.settled = rate, True


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


# --- the hypergradient
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
@pytest.mark.parametrize("solver", [Dual.direct(), EXACTLY], ids=["dual", "primal"])
@pytest.mark.parametrize("method", [CIG, RCIG])
def test_finite_differences_of_the_problem_solved_again(method: type, solver: Any, norm: str) -> None:
    real = wide()
    images = learned(real)
    options = {"norm": norm, "solver": solver, "loss": Platt()}
    if method is RCIG:
        options["clip"] = False
    _, ours = gradients(method, real, images, **options)
    for p, gradient in zip(images.parameters(), ours, strict=True):
        directions, slopes = numerical_gradient(lambda: build(method, real, **options)(images), p, 2)
        assert torch.allclose(directions.flatten(1) @ gradient.flatten(), slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("mirrored", [True, False])
def test_descent_to_the_end_is_the_dual(mirrored: bool, clip: bool) -> None:
    real = wide()
    images = learned(real, [1, 3, 2], mirrored=mirrored)
    for method, options in ((CIG, {}), (RCIG, {"clip": clip})):
        found = [gradients(method, real, images, solver=solver, **options) for solver in (EXACTLY, Dual.direct())]
        (value, ours), (truth, theirs) = found
        assert torch.allclose(value, truth, rtol=1e-9)
        assert all(close(a, b, 1e-7) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("solver", [Dual(Cg(steps=60, tolerance=1e-12)), EXACTLY], ids=["dual", "primal"])
def test_nothing_depends_on_the_memory_that_graphs_may_take(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = wide()
    images = learned(real)
    value, kept = gradients(RCIG, real, images, solver=solver)
    monkeypatch.setattr(kernels, "_KEPT_BYTES", 0)
    found, anew = gradients(RCIG, real, images, solver=solver)
    assert torch.allclose(found, value, rtol=1e-9)
    assert all(close(a, b, 1e-7) for a, b in zip(anew, kept, strict=True))


@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("name", METHODS)
def test_lower_precision_changes_the_gradient_by_its_rounding_alone(
    name: str, precision: torch.dtype, error: float
) -> None:
    real = wide()
    images = learned(real)
    solvers = [Descent(0, 0, solve=Cg(steps=4))] if name == "VIG" else [Descent.cg(), Dual()]
    for solver in solvers:
        options = {"ridge": 0.3, "solver": solver}
        _, plain = gradients(METHODS[name], real, images, **options)
        _, low = gradients(METHODS[name], real, images, precision=precision, **options)
        a, b = (torch.cat([g.flatten() for g in found]) for found in (low, plain))
        assert 0 < (a - b).norm() <= error * b.norm()


@pytest.mark.parametrize("method", [CIG, RCIG])
def test_more_steps_of_adam_come_nearer_to_the_dual(method: type) -> None:
    real = wide()
    images = learned(real)
    options: dict[str, Any] = {"ridge": 0.3} | ({"clip": False} if method is RCIG else {})
    truth = torch.cat([g.flatten() for g in gradients(method, real, images, solver=Dual.direct(), **options)[1]])
    errors = []
    for steps in (4, 30, 400):
        objective = build(method, real, solver=Descent(steps, steps), **options)
        settle(objective, inner=3e-3, inverse=3e-2)
        ours = torch.autograd.grad(objective(images), list(images.parameters()))
        errors.append(float((torch.cat([g.flatten() for g in ours]) - truth).norm() / truth.norm()))
    assert errors[2] < 0.05, errors
    assert errors[2] < 0.5 * errors[1] < 0.5 * errors[0], errors


def test_conjugate_gradients_in_the_parameters_are_nearer_than_in_the_dual_after_as_many_steps() -> None:
    real = wide()
    images = learned(real, 4)
    options: dict[str, Any] = {"ridge": 3e-3, "clip": False}
    truth = torch.cat([g.flatten() for g in gradients(RCIG, real, images, solver=Dual.direct(), **options)[1]])

    def error(solver: Any) -> float:
        ours = torch.cat([g.flatten() for g in gradients(RCIG, real, images, solver=solver, **options)[1]])
        return float((ours - truth).norm() / truth.norm())

    for steps in (2, 4):
        cg = Cg(steps=steps, tolerance=0)
        assert error(Descent(solve=cg)) < 0.5 * error(Dual(cg))
    assert error(Descent.cg()) < 0.02


def test_exactly_solved_cig_and_rcig_differ_by_the_bias_of_the_head_alone() -> None:
    real, module = wide(), tiny_net().module
    images = learned(real)
    module.head = nn.Linear(module.head.in_features, 3, bias=False)

    def gradient(method: type, **options: Any) -> list[Tensor]:
        settings = {**SMALL, "life": 1, "solver": Dual.direct(), "loss": Platt(), **options}
        value = method(Doubled(module), real, generator(1), **settings)(images)
        return list(torch.autograd.grad(value, list(images.parameters())))

    ours, theirs = gradient(CIG), gradient(RCIG, clip=False, margin=0)
    assert all(close(a, b, 1e-9) for a, b in zip(ours, theirs, strict=True))


def test_no_steps_and_the_squared_error_are_frepo() -> None:
    real = wide()
    images = learned(real)
    options = {"solver": Descent(0, 0), "loss": Squared(), "margin": 0.0, "ridge": 0.01}
    value, ours = gradients(RCIG, real, images, **options)

    net, g = Doubled(tiny_net(norm="none").module), generator(1)
    thetas = [net.init(g) for _ in range(3)]
    theta = thetas[int(torch.randint(3, (), generator=g))]
    batch = real.batch(torch.randperm(len(real), generator=g)[:8])
    x, y = images()
    phi, at = net.embed(theta, x), net.embed(theta, batch.x)
    alpha = torch.linalg.solve(phi @ phi.T + 0.01 * len(y) * torch.eye(len(y), dtype=x.dtype), y)
    targets = centred_one_hot(batch.y, 3, dtype=x.dtype)
    loss = 0.5 * (at @ phi.T @ alpha - targets).square().sum(1).mean()
    theirs = torch.autograd.grad(loss, list(images.parameters()))
    assert torch.allclose(value, loss, rtol=1e-9)
    assert all(close(a, b, 1e-8) for a, b in zip(ours, theirs, strict=True))


def test_the_inner_problem_is_the_papers() -> None:
    """Value, gradient and Hessian against equations 3 to 5 written out, with autograd through the head."""
    real = wide()
    x, y = (t.detach() for t in learned(real)())
    net, lam = Doubled(tiny_net(norm="none").module), 0.1
    theta = net.init(generator(0))
    model = Linearised.of(net, theta, x, apart=True)
    inner, phi = Inner(model, x, y, lam), net.embed(theta, x)
    frozen = model.tangent.theta[model.head]

    def body(u: Tensor) -> Tensor:
        """The tangent model with its last layer, weights and bias, truly frozen."""
        rest = net.layers(theta)

        def f(t: Tensor) -> Tensor:
            parts = dict(zip([n for n in rest if not n.startswith("head.")], t.split(sizes), strict=True))
            return net(net.flat({**{k: v.reshape(-1) for k, v in parts.items()}, **heads}), x)

        return torch.func.jvp(f, (base,), (u,))[1]

    heads = {n: p for n, p in net.layers(theta).items() if n.startswith("head.")}
    base = torch.cat([p.reshape(-1) for n, p in net.layers(theta).items() if n not in heads])
    sizes = [p.numel() for n, p in net.layers(theta).items() if n not in heads]
    assert torch.equal(frozen, heads["head.weight"].reshape(-1))

    def loss(u: Tensor) -> Tensor:
        offset = body(u)
        alpha = torch.linalg.solve(phi @ phi.T + lam * torch.eye(len(y), dtype=x.dtype), y - offset)
        w = phi.T @ alpha
        error = 0.5 * (y - offset - phi @ w).square().sum()
        return (error + 0.5 * lam * (w.square().sum() + u.square().sum())) / y.numel()

    u = torch.randn(len(base), generator=generator(2), dtype=x.dtype)
    v = torch.randn(len(base), generator=generator(3), dtype=x.dtype)

    def padded(t: Tensor) -> Tensor:
        return torch.cat([t, torch.zeros_like(frozen)])

    slope = torch.func.grad(loss)
    assert torch.allclose(inner(padded(u)) - inner.right, padded(slope(u)), atol=1e-12)
    assert torch.allclose(inner(padded(v)), padded(torch.func.jvp(slope, (u,), (v,))[1]), atol=1e-12)


def test_vig_on_a_linear_network_is_cig_solved_exactly() -> None:
    """There the network is its tangent model, and the inner minimum does not depend on where one starts."""
    real = wide()
    images = learned(real)
    net = Doubled(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    settings = {**SMALL, "life": 1, "ridge": 0.05}
    exact = CIG(net, real, generator(1), solver=Dual.direct(), **settings)(images)
    theirs = torch.autograd.grad(exact, list(images.parameters()))
    vig = VIG(net, real, generator(1), solver=Descent(6000, solve=Cg(steps=300, tolerance=1e-12)), **settings)
    settle(vig, inner=2e-3, inverse=1.0)
    value = vig(images)
    ours = torch.autograd.grad(value, list(images.parameters()))
    assert torch.allclose(value, exact, rtol=1e-3)
    assert all(close(a, b, 1e-2) for a, b in zip(ours, theirs, strict=True))


def test_vig_is_the_implicit_gradient_where_its_inner_steps_end() -> None:
    real = wide()
    images = learned(real)
    options = {"solver": Descent(3, solve=Direct()), "ridge": 20.0, "damping": 0.5}
    method = build(VIG, real, **options)
    settle(method, inner=2e-4, inverse=1.0)
    ours = torch.autograd.grad(method(images), list(images.parameters()))
    net, g = Doubled(tiny_net(norm="none").module), generator(1)
    thetas = [net.init(g) for _ in range(3)]
    theta = thetas[int(torch.randint(3, (), generator=g))]
    batch = real.batch(torch.randperm(len(real), generator=g)[:8])
    x, y = (t.detach().requires_grad_() for t in images())
    lam = 20.0 * len(y)

    def inner(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (0.5 * (y - net(t, x)).square().sum() + 0.5 * lam * t.square().sum()) / y.numel()

    parameter = theta.clone().requires_grad_()
    adam = torch.optim.Adam([parameter], lr=2e-4)
    for _ in range(3):
        adam.zero_grad()
        inner(parameter, x.detach(), y.detach()).backward()
        adam.step()
    theta = parameter.detach().requires_grad_()
    outer = 0.5 * (net(theta, batch.x) - centred_one_hot(batch.y, 3, dtype=x.dtype)).square().sum(1).mean()
    hessian = Hessian(inner, theta, [x, y], damping=0.5 * lam / y.numel())
    v = Direct()(hessian, torch.autograd.grad(outer, theta)[0]).x
    for mine, theirs in zip(ours, hessian.mixed(v), strict=True):
        assert close(mine, -theirs, 1e-8)


# --- its parts
# ---------------------------------------------------------------------------------------------------


def test_clipping_shortens_the_indirect_part_in_each_tensor() -> None:
    real = wide()
    images = learned(real)
    options = {"solver": Dual.direct(), "ridge": 1e-3}
    _, both = gradients(Amplified, real, images, clip=False, **options)
    _, clipped = gradients(Amplified, real, images, clip=True, **options)
    _, direct = gradients(RCIG, real, images, solver=Descent(solve=Half(EXACTLY.solve)), ridge=1e-3)
    for d, total, ours in zip(direct, both, clipped, strict=True):
        indirect = total - d
        assert indirect.norm() > 2 * d.norm()
        assert close(ours, d + d.norm() / indirect.norm() * indirect, 1e-7)
    plain = gradients(RCIG, real, images, clip=True, **options)[1]  # here it is the shorter one
    free = gradients(RCIG, real, images, clip=False, **options)[1]
    assert all(close(a, b, 1e-9) for a, b in zip(plain, free, strict=True))


class Amplified(RCIG):
    """With an indirect part that needs clipping: the dual's is the total less the direct part."""

    def _find(self, task: Any) -> Any:
        clip, self.clip = self.clip, True
        found = super()._find(task)
        self.clip = clip
        return found._replace(indirect=[1000 * part for part in found.indirect])


class Half:
    """Solves the inner problem and answers the second question with zero: the direct gradient is left."""

    def __init__(self, solve: Any) -> None:
        self.solve, self.asked = solve, 0

    def __call__(self, matvec: Any, b: Tensor, start: Tensor | None = None) -> Any:
        self.asked += 1
        return self.solve(matvec, b, start) if self.asked % 2 else self.solve(matvec, torch.zeros_like(b))


def test_the_margin_moves_learned_labels_alone() -> None:
    real = wide()
    images = learned(real)
    plain, without = gradients(RCIG, real, images, margin=0.0, clip=False, solver=Dual.direct())
    value, with_it = gradients(RCIG, real, images, margin=0.5, clip=False, solver=Dual.direct())
    term = margin(images.labels, 0.5 / 3)
    assert torch.allclose(value, plain - term.detach())
    assert torch.allclose(with_it[0], without[0])
    assert torch.allclose(with_it[1], without[1] - torch.autograd.grad(term, images.labels)[0])


@pytest.mark.parametrize("method", METHODS.values())
def test_the_backward_pass_on_a_subset_is_unbiased(method: type) -> None:
    real = wide()
    images = learned(real, 2)
    options: dict[str, Any] = {"solver": Descent(3, 3)} if method is VIG else {"solver": Dual.direct()}
    if method is RCIG:
        options["clip"] = False
    found = []
    whole = build(method, real, **options)
    settle(whole, inner=1e-3, inverse=1e-2)
    (truth,) = torch.autograd.grad(whole(images), images.values)
    for draw in range(120):
        objective = build(_with_subset(method), real, backward=2, **options)
        settle(objective, inner=1e-3, inverse=1e-2)
        _Subset.draw = draw
        found.append(torch.autograd.grad(objective(images), images.values)[0])
    samples = torch.stack(found).flatten(1)
    assert ((samples != 0).view(120, 6, -1).any(2).sum(1) == 2).all()
    direction = torch.randn(samples.shape[1], generator=generator(8), dtype=samples.dtype)
    along = samples @ direction
    error = along.std() / len(along) ** 0.5
    assert (along.mean() - truth.flatten() @ direction).abs() < 3 * error
    assert error > 0


class _Subset:
    draw = 0


def _with_subset(method: type) -> type:
    """The method with a new subset for each draw and everything else the same."""

    class Again(method):  # type: ignore[misc]
        def _task(self, *args: Any) -> Any:
            task = super()._task(*args)
            order = torch.randperm(len(task.y), generator=generator(1000 + _Subset.draw))
            return task._replace(only=order[: self.backward])

    return Again


def test_labels_that_are_not_learned_are_centred_rows() -> None:
    real = wide()
    plain = tiny_images(real).double()
    rows = tiny_images(real, labels=centred_one_hot(plain.classes, 3, dtype=torch.float64)).double()
    first, second = (build(RCIG, real, solver=Dual.direct())(images) for images in (plain, rows))
    assert torch.equal(first, second)
    assert torch.equal(torch.autograd.grad(first, plain.values)[0], torch.autograd.grad(second, rows.values)[0])


def test_the_head_of_a_scaled_parametrisation_is_consistent() -> None:
    real = wide()
    images = learned(real)
    net = Doubled(tiny_net(parametrisation="ntk", norm="none").module)
    settings = {**SMALL, "life": 1, "ridge": 0.02, "clip": True}
    found = []
    for solver in (EXACTLY, Dual.direct()):
        value = RCIG(net, real, generator(1), solver=solver, **settings)(images)
        found.append(torch.autograd.grad(value, list(images.parameters())))
    assert all(close(a, b, 1e-7) for a, b in zip(*found, strict=True))


# --- the run
# ---------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "VIG": lambda net, real, g: VIG(net, real, g, solver=Descent(4, 4), **SMALL),
    "CIG": lambda net, real, g: CIG(net, real, g, solver=Descent(4, 4), **SMALL),
    "CIG dual": lambda net, real, g: CIG(net, real, g, solver=Dual(), **SMALL),
    "RCIG": lambda net, real, g: RCIG(net, real, g, solver=Descent(4, 4), backward=4, **SMALL),
    "RCIG CG": lambda net, real, g: RCIG(net, real, g, solver=Descent.cg(), **SMALL),
    "RCIG dual": lambda net, real, g: RCIG(net, real, g, solver=Dual(), **SMALL),
    "RCIG direct": lambda net, real, g: RCIG(net, real, g, solver=Dual.direct(), ema=None, **SMALL),
}


def run(make: Callable[[Any, Any, Any], Any], steps: int, net: Net, **options: Any) -> tuple[Tensor, Tensor]:
    """A short run: the last images, and those that are kept."""
    real = blobs()
    rows = centred_one_hot(tiny_images(real).classes, 3)
    images = tiny_images(real, labels=rows, learn_labels=True)
    objective = make(net, real, generator(1))
    for _ in iterate(images, objective, objective.optimizer(images), steps=steps, **options):
        pass
    kept = result(images, objective)
    return images.values.detach().clone(), torch.cat([kept.values.detach().flatten(), kept.labels.detach().flatten()])


@pytest.mark.parametrize("name", ROWS)
def test_resumes_bit_for_bit_and_leaves_the_global_generator(name: str, tmp_path: Path) -> None:
    net = tiny_net(norm="none")
    state = torch.get_rng_state()
    whole = run(ROWS[name], 8, net)
    run(ROWS[name], 5, net, snapshots=Snapshots(tmp_path, every=2))
    again = run(ROWS[name], 8, net, snapshots=Snapshots(tmp_path, every=2))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_a_rate_is_judged_the_same_wherever_a_run_is_cut() -> None:
    """Losses wait on the device until the rate can change, and a snapshot reads them before."""
    losses = torch.randn(120, 4, generator=generator(2)).cumsum(1)

    def rates(cut: int | None) -> list[float]:
        tuned, seen = Tuned(1.0), []
        for i, row in enumerate(losses):
            if i == cut:
                state = tuned.state_dict()
                tuned = Tuned(7.0)
                tuned.load_state_dict(state)
            tuned.run(lambda rate, row=row: (seen.append(rate), row))  # type: ignore[misc]
        return [rate for k, rate in enumerate(seen) if k]

    whole = rates(None)
    assert len(set(whole)) > 1, "the rate never changed"
    assert all(rates(cut)[-60:] == whole[-60:] for cut in (1, 17, 60))


def test_trials_raise_the_rate_before_the_first_step() -> None:
    tuned, tried = Tuned(1.0), []

    def attempt(rate: float) -> tuple[float, Tensor]:
        tried.append(rate)
        return rate, torch.tensor([2.0, 1.0 if rate < 1.5 else 3.0])

    found = tuned.run(attempt)
    assert tried == pytest.approx([1.0, 1.2, 1.44, 1.728, 1.728 * 0.7])
    assert found == tried[-1]
    assert tuned.auto.settled


def test_the_result_is_the_average_of_the_set_after_each_step() -> None:
    real = blobs()
    images = tiny_images(real)
    objective = RCIG(tiny_net(), real, generator(1), solver=Dual(), **{**SMALL, "ema": 0.5})
    assert objective.result(images) is images
    after = []
    for _ in iterate(images, objective, objective.optimizer(images), steps=3):
        after.append(images.values.detach().clone())
    expected = sum(0.5 ** (2 - i) * p for i, p in enumerate(after)) / 1.75
    kept = objective.result(images)
    assert torch.allclose(kept.values, expected)
    assert torch.equal(images.values, after[-1])
    assert torch.equal(objective.result(images).values, kept.values), "asking must not change the average"


def test_figures_say_how_well_both_problems_were_solved() -> None:
    real = blobs()
    images = tiny_images(real)
    exact = RCIG(tiny_net(), real, generator(1), solver=Dual.direct(), **SMALL)
    rough = RCIG(tiny_net(), real, generator(1), solver=Descent(3, 3), **SMALL)
    exact(images), rough(images)
    assert exact.figures["inner_residual"] < 1e-9 < 0.1 < rough.figures["inner_residual"]
    assert exact.figures["inverse_residual"] < 1e-9 < 0.1 < rough.figures["inverse_residual"]
    assert rough.figures["inner_rate"] > 1e-5
    assert {"log_tau", "indirect_to_direct"} <= exact.figures.keys()


def test_the_temperature_is_learned() -> None:
    real = blobs()
    images = tiny_images(real)
    objective = RCIG(tiny_net(), real, generator(1), solver=Dual(), **SMALL)
    optimizer = objective.optimizer(images)
    for _ in iterate(images, objective, optimizer, steps=5):
        pass
    assert objective.figures["log_tau"] > 0.05
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == [0.05, 0.03]


LEARNERS = {
    "VIG": (lambda net, real, g: VIG(net, real, g, solver=Descent(20, 20), **SMALL), 0.02),
    "CIG dual": (ROWS["CIG dual"], 0.05),
    "RCIG": (lambda net, real, g: RCIG(net, real, g, solver=Descent(10, 10), **SMALL), 0.05),
    "RCIG dual": (ROWS["RCIG dual"], 0.05),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_digits_beat_the_random_subset(name: str) -> None:
    data, ipc = digits(), 1
    make, gain = LEARNERS[name]
    net = Net(nets.ConvNet(channels=1, classes=10, size=8, width=8, norm="none", activation="softplus", beta=20.0))

    def accuracy(images: Images) -> float:
        x, y = (t.detach() for t in images())
        total, test = 0.0, data.test.whole()
        for seed in range(2):
            theta = net.init(generator(50 + seed)).requires_grad_()
            adam = torch.optim.Adam([theta], lr=1e-2)
            for _ in range(60):
                adam.zero_grad()
                (net(theta, x) - y).square().sum(1).mean().backward()
                adam.step()
            total += float((net(theta.detach(), test.x).argmax(1) == test.y).float().mean()) / 2
        return total

    plain = Images.from_real(data.train, ipc, generator(0))
    rows = centred_one_hot(plain.classes, 10)
    images = Images.from_real(data.train, ipc, generator(0), labels=rows, learn_labels=True)
    before = accuracy(images)
    objective = make(net, data.train, generator(1))
    objective.batch_real = 256
    for _ in iterate(images, objective, objective.optimizer(images), steps=25):
        pass
    after = accuracy(result(images, objective))
    assert after > before + gain


def test_what_cannot_be_is_refused() -> None:
    real, net = blobs(), tiny_net()
    with pytest.raises(ValueError, match="give positive numbers"):
        RCIG(net, real, generator(), batch_real=0)
    with pytest.raises(ValueError, match="give a positive one"):
        CIG(net, real, generator(), ridge=0.0)
    with pytest.raises(ValueError, match="give a number of at least 0"):
        RCIG(net, real, generator(), margin=-1.0)
    with pytest.raises(ValueError, match="give a number of at least 0"):
        VIG(net, real, generator(), damping=-1.0)
    with pytest.raises(ValueError, match="give numbers of at least 0"):
        Descent(-1)
    with pytest.raises(ValueError, match="give Descent"):
        VIG(net, real, generator(), solver=Dual())
    with pytest.raises(ValueError, match="give backward none"):
        RCIG(tiny_net(norm="batch"), real, generator(), backward=2)(tiny_images(real))
    flat = Net(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()))
    with pytest.raises(ValueError, match="attribute `head`"):
        RCIG(flat, real, generator(), solver=Dual())(tiny_images(real))


def test_a_copy_of_a_method_shares_nothing_that_a_run_would_miss() -> None:
    real = blobs()
    images = tiny_images(real)
    first = RCIG(tiny_net(), real, generator(1), solver=Descent(3, 3), **SMALL)
    for _ in range(3):
        first(images)
    state = copy.deepcopy(first.state_dict())
    draw = first.generator.get_state()
    expected = first(images)
    second = RCIG(first.net, real, generator(5), solver=Descent(3, 3), **SMALL)
    second.load_state_dict(state)
    second.generator.set_state(draw)
    assert torch.equal(second(images), expected)
