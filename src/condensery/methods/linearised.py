"""What VIG, CIG and RCIG share: the inner problem on a linearised network, its two solvers, and the outer step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from condensery.batch import Batch
from condensery.bilevel import AdamSolve, AutoRate, Cg, Direct, Solution, Solve, Tangent, TangentRidge
from condensery.kernels import net_tangent, random_features
from condensery.loop import with_gradient
from condensery.methods.regression import (
    Average,
    LearnedLoss,
    OuterLoss,
    Platt,
    centred_one_hot,
    real_batch,
)
from condensery.net import Net
from condensery.nets import NTKLinear
from condensery.optimizers import AdaBelief
from condensery.pool import AdamMse, ModelPool
from condensery.synthetic import Images

if TYPE_CHECKING:
    from condensery.data.labelled import Labelled

T = TypeVar("T")
_TUNING = 200  # rounds of raising a rate at most: 1.2 to this power is past every number that could be right

# --- how the inner problem is solved
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Descent:
    """The paper's way: some steps of Adam on the inner problem, and some more on H v = g (algorithm 1, eq. 7).

    Both learning rates are automatic (`AutoRate`): raised in a round of trials at the first step of a run, and then
    watched. With both numbers 0 only the direct gradient is left.

    Args:
        inner_steps: Steps on the inner problem, from zero (VIG: from the pool's network).
        inverse_steps: Steps on H v = g, from zero.
        solve: What solves both in place of Adam, `Cg` for instance; the numbers of steps are then its own. VIG's inner
            problem is not quadratic and keeps Adam: there it solves H v = g alone.
    """

    inner_steps: int = 20
    inverse_steps: int = 20
    solve: Solve | None = None

    def __post_init__(self) -> None:
        if min(self.inner_steps, self.inverse_steps) < 0:
            raise ValueError(
                f"inner_steps is {self.inner_steps}, inverse_steps {self.inverse_steps}; give numbers of at least 0."
            )

    @classmethod
    def cg(cls) -> Descent:
        """By conjugate gradients, to a residual of 1e-2: the gradient is then right to half a per cent.

        In RCIG the head is eliminated exactly for every u, so an error in u is all that is left, and H is the identity
        plus a matrix of which few eigenvalues are large. `Dual` meets the same eigenvalues, but its unknowns carry the
        head too, and small residuals there can still be large errors of the gradient.
        """
        return cls(solve=Cg(steps=20, tolerance=1e-2))

    def run(self, tuned: Tuned, steps: int, matvec: Callable[[Tensor], Tensor], b: Tensor) -> Solution:
        """The x with A x = b by `solve`, or by that many steps of Adam."""
        if self.solve is not None:
            return self.solve(matvec, b)
        if steps == 0:
            return AdamSolve(0, 0.0)(matvec, b)

        def attempt(rate: float) -> tuple[Solution, Tensor]:
            found = AdamSolve(steps, rate)(matvec, b)
            return found, found.energies

        return tuned.run(attempt)


@dataclass(frozen=True)
class Dual:
    """Exactly: the linearised inner problem is a ridge regression, whose dual has as many unknowns as there are labels.

    See `TangentRidge`. Two solves with the same matrix give the minimum and its hypergradient.

    Args:
        solve: `Cg`, which gets the head's features as its preconditioner, or `Direct`, for small sets. For RCIG
            `Descent.cg` comes nearer to the exact gradient in the same number of steps.
    """

    solve: Solve = field(default_factory=lambda: Cg(steps=20, tolerance=1e-3))

    @classmethod
    def direct(cls) -> Dual:
        """With the matrix formed and factorised in float64."""
        return cls(Direct())


Solver = Descent | Dual


class Tuned:
    """An `AutoRate` that waits for the device no more often than its rate can change.

    Args:
        rate: The rate to begin with.
    """

    def __init__(self, rate: float) -> None:
        self.auto = AutoRate(rate)
        self._pending: list[Tensor] = []

    def run(self, attempt: Callable[[float], tuple[T, Tensor]]) -> T:
        """What `attempt` gives at the rate as it is, after a round of trials if there was none yet.

        Args:
            attempt: rate -> what was found, and the losses on the way ``[steps + 1]``.
        """
        for _ in range(_TUNING):
            if self.auto.settled:
                break
            self.auto.observe(attempt(self.auto.rate)[1])
        self.auto.settled = True
        found, losses = attempt(self.auto.rate)
        self._pending.append(losses.detach())
        if self.auto.seen + len(self._pending) >= self.auto.window:
            self._judge()
        return found

    def state_dict(self) -> dict[str, Any]:
        """The rate, and what it has been judged by so far."""
        self._judge()
        return self.auto.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.auto.load_state_dict(state)
        self._pending = []

    def _judge(self) -> None:
        for losses in torch.stack(self._pending).tolist() if self._pending else []:
            self.auto.observe(losses)
        self._pending = []


# --- the linearised network
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Linearised:
    """A network's centred tangent model J(x) u, with its head's weights apart or not.

    Args:
        tangent: J. With a `head`, it is in all parameters but the head's bias, which stays as it is.
        head: Where in u the head's weights ``[C, d]`` lie. Their columns of J are the features: J(x) u is
            J_body(x) u_body + phi(x) w, and J J^T is J_body J_body^T + (phi phi^T) (x) I_C.
        features: phi, ``[n, d]``: as J has them, so with a factor where the network's parametrisation has one.
    """

    tangent: Tangent
    head: slice | None
    features: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, net: Net, theta: Tensor, x: Tensor, *, apart: bool, precision: torch.dtype | None = None) -> Linearised:
        """Linearise a network at theta ``[net.size]``.

        Args:
            net: The network.
            theta: Where.
            x: Examples of the shape of those to come ``[n, ...]``.
            apart: Whether the head is to be solved for apart from the body; then its bias is left out.
            precision: Lower precision for products with J (see `Tangent`).

        Raises:
            ValueError: If the network's head cannot be found.
        """
        layer, tangent = _head(net), net_tangent(net, theta, x, precision=precision)
        scale = layer.fan_in**-0.5 if isinstance(layer, NTKLinear) else 1.0

        def features(z: Tensor) -> Tensor:
            return scale * random_features(net, [theta], z)

        if not apart:
            return cls(tangent, None, features)
        names = {id(p): name for name, p in net.module.named_parameters()}
        layers = net.layers(theta.detach())
        bias = None if layer.bias is None else names[id(layer.bias)]
        free = [name for name in layers if name != bias]
        sizes, weight = [layers[name].numel() for name in free], free.index(names[id(layer.weight)])
        fixed = {} if bias is None else {bias: layers[bias]}

        def f(t: Tensor, z: Tensor) -> Tensor:
            rest = {name: value.to(t.dtype) for name, value in fixed.items()}
            return net(net.flat({**dict(zip(free, t.split(sizes), strict=True)), **rest}), net.arranged(z))

        t = torch.cat([layers[name].reshape(-1) for name in free])
        start = sum(sizes[:weight])
        return cls(replace(tangent, f=f, theta=t), slice(start, start + sizes[weight]), features)

    def lift(self, w: Tensor) -> Tensor:
        """The vector ``[p]`` whose head is w ``[d, C]`` and whose body is zero."""
        u = torch.zeros_like(self.tangent.theta)
        if self.head is not None:
            u[self.head] = w.T.reshape(-1)
        return u

    def weights(self, u: Tensor, outputs: int) -> Tensor:
        """The head of u ``[p]`` as ``[d, C]``."""
        assert self.head is not None
        return u[self.head].view(outputs, -1).T

    def body(self, u: Tensor) -> Tensor:
        """A vector ``[p]`` with a head of zeros."""
        if self.head is None:
            return u
        u = u.clone()
        u[self.head] = 0
        return u

    def slopes(
        self, x: Tensor, alpha: Tensor, u: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], only: Tensor | None
    ) -> list[Tensor]:
        """For each pair (a, c) the derivative in x of <J(x)^T alpha, a> - <J(x)^T c, u>, of the shape of x.

        That is <alpha, J(x) a> - <c, J(x) u>, written so that it is reverse over reverse, which is right with every
        norm (see `Tangent`).

        Args:
            x: Examples ``[n, ...]``.
            alpha: ``[n, C]``.
            u: ``[p]``.
            pairs: Vectors ``[p]`` and ``[n, C]``.
            only: The examples to differentiate for, int64 ``[k]``, zeros elsewhere; or all.
        """
        totals = [torch.zeros_like(x) for _ in pairs]
        index = torch.arange(len(x), device=x.device) if only is None else only
        for part in self.tangent.pieces(index):
            leaf = x[part].detach().requires_grad_()
            with torch.enable_grad():
                theta = self.tangent.theta.detach().requires_grad_()
                value = self.tangent.value(theta, leaf)
                cotangents = [alpha[part], *(c[part] for _, c in pairs)]
                first, *rest = [torch.autograd.grad(value, theta, c, create_graph=True)[0] for c in cotangents]
                forms = [first @ a - other @ u for (a, _), other in zip(pairs, rest, strict=True)]
                for total, form in zip(totals, forms, strict=True):
                    total[part] = torch.autograd.grad(form, leaf, retain_graph=True, materialize_grads=True)[0]
        return totals


class Inner:
    """The inner problem of CIG and RCIG on fixed examples, as a quadratic in u ``[p]``: H u = b at its minimum.

    With w(u) the best head for u (eq. 3; none in CIG), and 1 / (n C) in front as in the published code,

        L(u) = [1/2 |Y - J u - phi w(u)|^2 + lambda/2 (|u|^2 + |w(u)|^2)] / (n C).

    Let A = phi phi^T + lambda I (CIG: lambda I) and alpha(u) = A^-1 (Y - J u), so that w = phi^T alpha (eq. 3 and 4).
    Since w is a minimum, the derivative through it vanishes: with scale = lambda / (n C)

        dL/du = scale (u - J^T alpha(u)),   H = scale (I + J^T A^-1 J),   b = scale J^T A^-1 Y,

    J being the body's. A is factorised in float64, everything else is in the precision of the examples.

    Args:
        model: The network.
        x: Examples ``[n, ...]``.
        y: Labels ``[n, C]``.
        lam: lambda.
    """

    def __init__(self, model: Linearised, x: Tensor, y: Tensor, lam: float) -> None:
        self.model, self.lam = model, lam
        self.x, self.y = x.detach(), y.detach()
        self.at = model.tangent.at(self.x)
        self.scale = lam / y.numel()

    def __call__(self, v: Tensor) -> Tensor:
        """H v ``[p]``."""
        return self.scale * (v + self._pull(self.regress(self.at.push(v))))

    @cached_property
    def right(self) -> Tensor:
        """The right-hand side b ``[p]``."""
        return self.scale * self._pull(self.regress(self.y))

    def regress(self, rows: Tensor) -> Tensor:
        """A^-1 times rows ``[n, C]``."""
        if self.model.head is None:
            return rows / self.lam
        return torch.cholesky_solve(rows.double(), self._factor).to(rows.dtype)

    def alpha(self, u: Tensor) -> Tensor:
        """The dual variables of the head at u, ``[n, C]``."""
        return self.regress(self.y - self.at.push(u))

    @cached_property
    def phi(self) -> Tensor:
        """Features of the examples ``[n, d]``."""
        with torch.no_grad():
            return self.model.features(self.x)

    def lifted(self, rows: Tensor) -> Tensor | float:
        """phi^T rows as a vector of the head's ``[p]``; nothing without a head."""
        return 0.0 if self.model.head is None else self.model.lift(self.phi.T @ rows)

    def _pull(self, rows: Tensor) -> Tensor:
        return self.model.body(self.at.pull(rows))

    @cached_property
    def _factor(self) -> Tensor:
        phi = self.phi.double()
        a = phi @ phi.T
        factor, bad = torch.linalg.cholesky_ex(a + self.lam * torch.eye(len(a), dtype=a.dtype, device=a.device))
        if int(bad):
            raise ValueError("The features' kernel is not positive definite (or not finite); give a larger ridge.")
        return factor


def _head(net: Net) -> Any:
    """The network's last linear layer: what `Net.embed` embeds before."""
    head = getattr(net.module, "head", None)
    layers = [m for m in net.module.modules() if isinstance(m, nn.Linear)] if head is None else [head]
    weight = getattr(layers[-1], "weight", None) if layers else None
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ValueError(
            "The network's last linear layer was not found; give the module an attribute `head` with a weight "
            "[classes, features]."
        )
    return layers[-1]


# --- one outer step
# ---------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """What an outer step is about.

    Attributes:
        theta: A network of the pool's ``[net.size]``.
        x: The set's examples ``[n, ...]``, detached.
        y: Their labels ``[n, C]``, detached.
        lam: lambda.
        real: A batch of real examples.
        only: The examples whose gradient is computed, int64 ``[k]``; ``None`` for all.
    """

    theta: Tensor
    x: Tensor
    y: Tensor
    lam: float
    real: Batch
    only: Tensor | None


class Found(NamedTuple):
    """What an outer step found.

    Attributes:
        value: The outer loss.
        learned: Gradients of what the outer loss learns.
        direct: The direct gradient in x and y.
        indirect: The indirect one, likewise.
    """

    value: Tensor
    learned: list[Tensor]
    direct: list[Tensor]
    indirect: list[Tensor]


@dataclass
class Implicit:
    """The outer step of VIG, CIG and RCIG: what a method says on top is how it finds its gradient (`_find`).

    Args:
        net: The architecture.
        real: The real training images.
        generator: A CPU generator for networks, real batches and subsets.
        batch_real: Real images of a step.
        ridge: lambda for each stored image (before mirroring).
        loss: Outer loss.
        lr_images: AdaBelief's learning rate of the images.
        lr_labels: Of the labels, where they are learned.
        lr_temperature: For the temperature, where the loss learns one.
        ema: Decay of the average that is the result, or ``None`` for the last iterate.
        pool_size: Networks in the pool.
        life: Steps after which one starts anew.
        pool_steps: At most how many steps a drawn network is trained on the set.
        lr_pool: Adam's learning rate there.
        backward: Differentiate for this many examples of the set, drawn anew in each step, and multiply by n / k:
            the same gradient on average (section 3.6); ``None`` for all. Not with batch normalisation.
        solver: How the inner problem is solved.
        precision: Lower precision for products with the Jacobian: on the real images, and (CIG, RCIG) in both solves.
            The derivative in the images and the head's kernel keep full precision.
    """

    net: Net
    real: Labelled
    generator: torch.Generator
    _: KW_ONLY
    batch_real: int = 1024
    ridge: float = 5e-4
    loss: OuterLoss = field(default_factory=Platt)
    lr_images: float = 3e-3
    lr_labels: float = 3e-3
    lr_temperature: float = 0.03
    ema: float | None = 0.99
    pool_size: int = 30
    life: int = 100
    pool_steps: int = 15
    lr_pool: float = 5e-5
    backward: int | None = None
    solver: Solver = Descent()
    precision: torch.dtype | None = None
    figures: dict[str, Tensor | float] = field(default_factory=dict, init=False, repr=False)
    _pool: ModelPool = field(init=False, repr=False)
    _outer: LearnedLoss = field(init=False, repr=False)
    _average: Average | None = field(init=False, repr=False)
    _inner_rate: Tuned = field(init=False, repr=False)
    _inverse_rate: Tuned = field(init=False, repr=False)
    _begun: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch_real < 1 or (self.backward is not None and self.backward < 1):
            raise ValueError("batch_real and backward must be at least 1; give positive numbers.")
        if self.ridge <= 0:
            raise ValueError(f"The ridge is {self.ridge}; give a positive one.")
        self._pool = ModelPool(
            size=self.pool_size, life=self.life, steps=self.pool_steps, staggered=False, step=AdamMse(self.lr_pool)
        )
        self._outer = LearnedLoss(self.loss)
        self._average = None if self.ema is None else Average(self.ema)
        self._inner_rate, self._inverse_rate = Tuned(1e-5), Tuned(5e-5)  # the published code's first rates

    def __call__(self, synthetic: Images) -> Tensor:
        """The outer loss for one network of the pool, with the hypergradient behind it."""
        if self._average is not None and self._begun:
            self._average.update(synthetic)
        self._begun = True
        x, y = synthetic()
        y = y if y.is_floating_point() else centred_one_hot(y, self.real.num_classes, dtype=x.dtype)
        task = self._task(synthetic, x.detach(), y.detach())
        found = self._find(task)
        if not x.requires_grad and not y.requires_grad:
            return found.value
        moved = [p for p in synthetic.parameters() if p.requires_grad]
        direct, indirect = (_chain([x, y], moved, part) for part in (found.direct, found.indirect))
        total = self._joined(direct, indirect)
        learned = list(self._outer.learned(x.device).values())
        self.figures |= self._outer.figures()
        return with_gradient(found.value, [*moved, *learned], [*total, *found.learned])

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """AdaBelief on images, labels and what the outer loss learns, each at its own learning rate."""
        rates = {"values": self.lr_images, "labels": self.lr_labels}
        return AdaBelief(self._outer.groups(synthetic, rates, self.lr_temperature), lr=self.lr_images)

    def result(self, synthetic: Images) -> Images:
        """A copy of the set with the average of its parameters after each step; without `ema` the set itself."""
        if self._average is None or not self._begun:
            return synthetic
        average = copy.deepcopy(self._average)
        average.update(synthetic)
        averaged: Images = average.of(synthetic)
        return averaged

    def state_dict(self) -> dict[str, Any]:
        """The pool, the average, what the outer loss learned, and the automatic rates."""
        return {
            "pool": self._pool.state_dict(),
            "outer": self._outer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "inner_rate": self._inner_rate.state_dict(),
            "inverse_rate": self._inverse_rate.state_dict(),
            "begun": self._begun,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._pool.load_state_dict(state["pool"])
        self._outer.load_state_dict(state["outer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._inner_rate.load_state_dict(state["inner_rate"])
        self._inverse_rate.load_state_dict(state["inverse_rate"])
        self._begun = state["begun"]

    def _task(self, synthetic: Images, x: Tensor, y: Tensor) -> Task:
        if self.backward is not None and self.net.has_batch_norm:
            raise ValueError(
                "Batch normalisation joins the examples, so none can be left out of the backward pass; give backward "
                "none, or another norm."
            )
        stored = len(y) // (2 if synthetic.mirrored else 1)
        theta = self._pool.draw(self.net, Batch(x, y), self.generator)
        real = real_batch(self.real, self.batch_real, self.generator)
        only = None
        if self.backward is not None and self.backward < len(y):
            drawn = torch.randperm(len(y), generator=self.generator)[: self.backward]
            only = drawn.sort().values.to(x.device, non_blocking=True)
        return Task(theta, x, y, self.ridge * stored, real, only)

    def _find(self, task: Task) -> Found:
        """The outer loss and its gradient, in two parts."""
        raise NotImplementedError

    def _joined(self, direct: list[Tensor], indirect: list[Tensor]) -> list[Tensor]:
        """The gradient from its two parts."""
        return [a + b for a, b in zip(direct, indirect, strict=True)]

    def _judged(self, predictions: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The outer loss of predictions ``[m, C]``, its gradient in them, and in what it learns."""
        leaf = predictions.detach().requires_grad_()
        with torch.enable_grad():
            value = self._outer(leaf, classes)
        learned = list(self._outer.learned(leaf.device).values())
        slope, *rest = torch.autograd.grad(value, [leaf, *learned])
        return value.detach(), slope, rest

    def _outer_slope(self, tangent: Tangent, u: Tensor | None, real: Batch) -> tuple[Tensor, list[Tensor], Tensor]:
        """The outer loss of a tangent model at u on a real batch, its gradients in what it learns, and J(real)^T r.

        The loss is a mean over examples, so it is taken on the pieces that go through the network together.

        Args:
            tangent: The model.
            u: ``[p]``, or ``None`` for the network itself.
            real: Real examples.

        Returns:
            The loss, the gradients, and J(real)^T r ``[p]`` for r the loss's gradient in the predictions.
        """
        parts = []

        def slope(predictions: Tensor, index: Tensor) -> Tensor:
            value, r, learned = self._judged(predictions, real.y[index])
            share = len(index) / len(real.y)
            parts.append([share * t for t in (value, *learned)])
            return share * r

        q = tangent.through(u, real.x, slope)
        value, *learned = (torch.stack(terms).sum(0) for terms in zip(*parts, strict=True))
        return value, learned, q

    def _note(self, inner: Solution | None, inverse: Solution) -> None:
        """What a run's log says about the two solves."""
        self.figures = {"inverse_residual": inverse.residuals[-1]}
        if inner is not None:
            self.figures["inner_residual"] = inner.residuals[-1]
        if isinstance(self.solver, Descent) and self.solver.solve is None:
            self.figures |= {"inner_rate": self._inner_rate.auto.rate, "inverse_rate": self._inverse_rate.auto.rate}


class Pair(NamedTuple):
    """A part of the gradient: <alpha, J(x) a> - <c, J(x) u> in x, and c in y (see `Linearised.slopes`).

    Attributes:
        a: ``[p]``.
        c: ``[n, C]``.
    """

    a: Tensor
    c: Tensor


@dataclass
class Convexified(Implicit):
    """CIG and RCIG: the inner problem is that of a linearised network, with its head apart or not."""

    @property
    def _apart(self) -> bool:
        """Whether the head is solved for apart."""
        return False

    @property
    def _split(self) -> bool:
        """Whether the two parts of the gradient are needed one by one."""
        return False

    def _find(self, task: Task) -> Found:
        model = Linearised.of(self.net, task.theta, task.x, apart=self._apart, precision=self.precision)
        if isinstance(self.solver, Dual):
            return self._solved(task, model, self.solver)
        return self._descended(task, model, self.solver)

    def _descended(self, task: Task, model: Linearised, solver: Descent) -> Found:
        """Algorithm 1: the inner problem, H v = g, and the two parts of the gradient."""
        inner = Inner(model, task.x, task.y, task.lam)
        first = solver.run(self._inner_rate, solver.inner_steps, inner, inner.right)
        alpha = inner.alpha(first.x)
        u = first.x + inner.lifted(alpha)
        value, learned, q = self._outer_slope(model.tangent, u, task.real)
        g, pairs = q, []
        if model.head is not None:
            pairs = [_direct(inner, model.weights(q, task.y.shape[1]))]
            g = model.body(q - inner.at.pull(pairs[0].c))
        second = solver.run(self._inverse_rate, solver.inverse_steps, inner, g)
        self._note(first, second)
        v = inner.scale * second.x
        t = inner.regress(inner.at.push(v))
        pairs = [*pairs, Pair(v - inner.lifted(t), t)]
        if not self._split:
            pairs = [Pair(*(torch.stack(vectors).sum(0) for vectors in zip(*pairs, strict=True)))]
        *direct, indirect = _gradients(task, model, alpha, u, pairs)
        return Found(value, learned, direct[0] if direct else [torch.zeros_like(t) for t in indirect], indirect)

    def _solved(self, task: Task, model: Linearised, solver: Dual) -> Found:
        """The dual problem, its hypergradient, and of that the direct part where it is needed."""
        ridge = TangentRidge(model.tangent, solver.solve, precondition_by=model.features)
        fit = ridge.fit(task.x, task.y, task.lam)
        value, learned, q = self._outer_slope(model.tangent, fit.u, task.real)
        v = ridge.adjoint(fit, q)
        self._note(fit.solution, v)
        pairs = [Pair(q - fit.matrix.at.pull(v.x), v.x)]
        if self._split and model.head is not None:
            inner = Inner(model, task.x, task.y, task.lam)
            pairs.append(_direct(inner, model.weights(q, task.y.shape[1])))
        total, *rest = _gradients(task, model, fit.alpha, fit.u, pairs)
        direct = rest[0] if rest else [torch.zeros_like(t) for t in total]
        return Found(value, learned, direct, [a - b for a, b in zip(total, direct, strict=True)])


def _direct(inner: Inner, s: Tensor) -> Pair:
    """The direct part, from the outer loss's gradient in the head's weights ``[d, C]``."""
    c = inner.regress(inner.phi @ s)
    return Pair(inner.model.lift(s - inner.phi.T @ c), c)


def _gradients(
    task: Task, model: Linearised, alpha: Tensor, u: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]
) -> list[list[Tensor]]:
    """For each part of the gradient what it is in x and in y."""
    slopes = model.slopes(task.x, alpha, u, pairs, task.only)
    return [[_factor(task) * for_x, c] for for_x, (_, c) in zip(slopes, pairs, strict=True)]


def _factor(task: Task) -> float:
    """What makes the gradient of some examples an unbiased estimate of that of all: n / k."""
    return 1.0 if task.only is None else len(task.y) / len(task.only)


def _chain(outputs: Sequence[Tensor], inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
    """Gradients in a set's parameters from those in its batch."""
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
    return list(
        torch.autograd.grad(
            [o for o, _ in pairs], inputs, [g for _, g in pairs], retain_graph=True, materialize_grads=True
        )
    )
