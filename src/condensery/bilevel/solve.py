"""Solvers of A x = b, with A symmetric and positive definite and known only by its products with vectors.

A solver is an object that is called with the product, the right-hand side and, if there is one, a guess:
``solve(matvec, b, start) -> Solution``. Vectors may have any shape. A product that is an object may have a method
``matrix()``, the whole of A ``[n, n]``, which `Direct` then takes instead of asking for column after column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """What a solver found, and how well.

    Attributes:
        x: The solution, of the shape of b.
        residuals: |b - A x| / |b| at the start and after each step, ``[steps + 1]`` (0 at the start if b is zero). They
            are carried along with the steps, as the method does it, not computed anew.
        energies: 1/2 <x, A x> - <x, b> likewise, ``[steps + 1]``: what all the methods descend.
        steps: Steps made.
    """

    x: Tensor
    residuals: Tensor
    energies: Tensor
    steps: int


class Solve(Protocol):
    """A solver of A x = b."""

    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """The x with A x = b, looked for from `start` (default: zero)."""


@dataclass(frozen=True)
class Cg:
    """Conjugate gradients (Hestenes & Stiefel 1952), preconditioned if asked to.

    Exact after as many steps as A has different eigenvalues, apart from rounding; it stops earlier, where the residual
    is small enough, or where it meets a direction in which A is not positive (a network's Hessian away from a minimum):
    then the residual says that no solution was found.

    Args:
        steps: Steps at most.
        tolerance: Stop when |b - A x| <= tolerance |b|.
        preconditioner: r -> M^-1 r for an M near A that is symmetric and positive definite.
        check_every: Ask whether to stop every so many steps; default: each on a CPU, every tenth on a device where
            asking means waiting for it. Steps between the end and the asking change nothing.

    Example:
        >>> a, b = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([1.0, 1.0])
        >>> found = Cg(steps=10)(lambda v: a @ v, b)
        >>> found.steps, torch.allclose(a @ found.x, b)
        (2, True)
    """

    steps: int
    tolerance: float = 1e-6
    preconditioner: Callable[[Tensor], Tensor] | None = None
    check_every: int | None = None

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    @torch.no_grad()
    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """See `Solve`."""
        every = self.check_every or (1 if b.device.type == "cpu" else 10)
        x, r = _begin(matvec, b, start)
        log = _Log(b, x, r)
        p = z = self._precondition(r)
        rz, enough = _dot(r, z), self.tolerance * b.norm()
        active, taken = r.norm() > enough, torch.zeros((), dtype=torch.int64, device=b.device)
        for k in range(self.steps):
            if k % every == 0 and not bool(active):
                break
            ap = _apply(matvec, p)
            curvature = _dot(p, ap)
            active = active & ~(curvature <= 0)
            alpha = torch.where(active, rz / curvature, 0.0)
            x, r = x + alpha * p, r - alpha * ap
            z = self._precondition(r)
            before, rz = rz, _dot(r, z)
            p = z + torch.where(active, rz / before, 0.0) * p
            taken += active
            log.note(x, r)
            active = active & ~(r.norm() <= enough)
        return log.solution(x, int(taken))

    def _precondition(self, r: Tensor) -> Tensor:
        return r if self.preconditioner is None else self.preconditioner(r).detach()


@dataclass(frozen=True)
class Neumann:
    """The Neumann series, sum over k < steps of (I - lr A)^k lr b: plain gradient descent from zero.

    It diverges unless 0 < lr < 2 / lambda_max; `largest_eigenvalue` measures lambda_max. With lr = 1 / lambda_max what
    is left of an eigenvector's share after N steps is (1 - lambda / lambda_max)^N, so directions whose eigenvalue is
    below lambda_max / N are hardly found.

    Args:
        steps: Terms.
        lr: See above.

    Example:
        >>> found = Neumann(steps=3, lr=0.5)(lambda v: v, torch.ones(2))
        >>> found.x, found.residuals
        (tensor([0.8750, 0.8750]), tensor([1.0000, 0.5000, 0.2500, 0.1250]))
    """

    steps: int
    lr: float

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    @torch.no_grad()
    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """See `Solve`."""
        x, r = _begin(matvec, b, start)
        log = _Log(b, x, r)
        for _ in range(self.steps):
            x, r = x + self.lr * r, r - self.lr * _apply(matvec, r)
            log.note(x, r)
        return log.solution(x, self.steps)


@dataclass(frozen=True)
class AutoNeumann:
    """The Neumann series with a step size from the measured largest eigenvalue, so that it cannot diverge.

    Power iteration gives a lower bound of the spectral radius, which is at least half of it after a few steps but for
    a start at a right angle to the top eigenvector; ``lr = 1 / estimate`` is then below ``2 / lambda_max``. If A is not
    positive, as a network's Hessian away from a minimum, the series still grows along the directions of negative
    curvature, by (1 + |lambda| / lambda_max) a term; `lift` measures the lowest eigenvalue as well and, if it is
    negative, solves (A + 2 |lambda_min| I) x = b instead. The residuals are those of the system that is solved.

    Args:
        steps: Terms.
        power: Steps of power iteration.
        lift: See above.
        seed: Of the vector that power iteration starts from.

    Example:
        >>> a, b = torch.diag(torch.tensor([100.0, 50.0])), torch.ones(2)
        >>> AutoNeumann(steps=50)(lambda v: a @ v, b).x.tolist()
        [0.009999999776482582, 0.019999999552965164]
    """

    steps: int
    power: int = 10
    lift: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if self.power < 1:
            raise ValueError(f"power is {self.power}; give 1 or more.")

    def fitted(self, matvec: Matvec, like: Tensor) -> Solve:
        """The solver for one A: measured once, for any number of right-hand sides.

        Args:
            matvec: v -> A v.
            like: A vector of the shape, precision and device of A's.
        """
        largest = self._radius(matvec, like)
        shift = 0.0
        if self.lift:
            lowest = largest - self._radius(lambda v: largest * v - matvec(v), like)
            shift = 2 * max(0.0, -lowest)
        if not largest + shift > 0:  # A is zero as far as was seen: any step size will do
            return Neumann(self.steps, 1.0)
        series = Neumann(self.steps, 1 / (largest + shift))
        return series if shift == 0 else _Shifted(series, shift)

    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """See `Solve`."""
        return self.fitted(matvec, b)(matvec, b, start)

    @torch.no_grad()
    def _radius(self, matvec: Matvec, like: Tensor) -> float:
        """|A v| for a unit vector v after power iteration: never above the spectral radius, whatever the signs."""
        generator = torch.Generator().manual_seed(self.seed)
        v = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
        size = v.norm()
        for _ in range(self.power):  # nothing here waits for the device
            v = _apply(matvec, v / torch.where(size > 0, size, torch.ones_like(size)))
            size = v.norm()
        return size.item()


@dataclass(frozen=True)
class _Shifted:
    """A solver of (A + shift I) x = b."""

    solve: Solve
    shift: float

    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """See `Solve`."""
        return self.solve(lambda v: matvec(v) + self.shift * v, b, start)


def fitted(solve: Solve, matvec: Matvec, like: Tensor) -> Solve:
    """A solver that has measured what it needs to know of A, for several right-hand sides; others as they are.

    Args:
        solve: The solver; one with a method ``fitted(matvec, like)`` is asked for another.
        matvec: v -> A v.
        like: A vector of the shape, precision and device of A's.
    """
    return solve.fitted(matvec, like) if hasattr(solve, "fitted") else solve


@dataclass(frozen=True)
class AdamSolve:
    """Adam on 1/2 <x, A x> - <x, b>, whose gradient is A x - b: the solver of RCIG (Loo et al. 2023, section 3.4).

    The published code makes 20 steps from zero. A step moves a coordinate by about lr, so lr and steps bound what can
    be found, however good the direction.

    Args:
        steps: Steps.
        lr: Learning rate (`AutoRate` adapts one).
        betas: Adam's.
        eps: Adam's.
    """

    steps: int
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    @torch.no_grad()
    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """See `Solve`."""
        (beta1, beta2), b = self.betas, b.detach()
        x, r = _begin(matvec, b, start)
        log = _Log(b, x, r)
        mean, square = torch.zeros_like(b), torch.zeros_like(b)
        for t in range(1, self.steps + 1):
            mean = beta1 * mean - (1 - beta1) * r
            square = beta2 * square + (1 - beta2) * r.square()
            x = x - self.lr * (mean / (1 - beta1**t)) / ((square / (1 - beta2**t)).sqrt() + self.eps)
            r = b - _apply(matvec, x)
            log.note(x, r)
        return log.solution(x, self.steps)


@dataclass(frozen=True)
class Direct:
    """Form A ``[n, n]`` and factorise it (Cholesky): exact, for problems whose matrix fits.

    Args:
        dtype: Precision of the factorisation. float64 by default, because a ridge far below the largest eigenvalue is
            lost in float32.
    """

    dtype: torch.dtype | None = torch.float64

    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """See `Solve`; `start` is not needed.

        Raises:
            ValueError: If A is not positive definite.
        """
        return self.fitted(matvec, b)(matvec, b, start)

    @torch.no_grad()
    def fitted(self, matvec: Matvec, like: Tensor) -> Solve:
        """The solver for one A: factorised once, for any number of right-hand sides.

        Args:
            matvec: v -> A v.
            like: A vector of the shape, precision and device of A's.

        Raises:
            ValueError: If A is not positive definite.
        """
        a = matvec.matrix() if hasattr(matvec, "matrix") else materialise(matvec, like)
        a = a.to(self.dtype or like.dtype)
        factor, bad = torch.linalg.cholesky_ex((a + a.T) / 2)
        if int(bad):
            raise ValueError("The matrix is not positive definite (or not finite); give a larger ridge or damping.")
        return _Factored(a, factor)


@dataclass(frozen=True, eq=False)
class _Factored:
    """A solver of A x = b with A ``[n, n]`` at hand."""

    a: Tensor
    factor: Tensor

    @torch.no_grad()
    def __call__(self, matvec: Matvec, b: Tensor, start: Tensor | None = None) -> Solution:
        """See `Solve`."""
        right = b.detach().reshape(-1, 1).to(self.a)
        x = torch.cholesky_solve(right, self.factor)
        log = _Log(right, torch.zeros_like(x), right)
        log.note(x, right - self.a @ x)
        return log.solution(x.view_as(b).to(b.dtype), 1)


def materialise(matvec: Matvec, like: Tensor) -> Tensor:
    """The matrix ``[n, n]`` of a linear map on vectors shaped like `like` (n numbers), a column at a time."""
    basis = torch.eye(like.numel(), dtype=like.dtype, device=like.device)
    return torch.stack([_apply(matvec, e.view_as(like)).reshape(-1) for e in basis], dim=1)


@torch.no_grad()
def largest_eigenvalue(matvec: Matvec, like: Tensor, generator: torch.Generator, *, steps: int = 20) -> Tensor:
    """The largest eigenvalue of a symmetric positive A by power iteration: never above the true one.

    Args:
        matvec: v -> A v.
        like: A vector of the shape, precision and device of A's.
        generator: A CPU generator, for the vector to start from.
        steps: Products with A.

    Returns:
        The Rayleigh quotient after `steps` products, a scalar.
    """
    _check_steps(steps)
    v = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
    value = v.new_zeros(())
    for _ in range(steps):
        v = v / v.norm()
        w = _apply(matvec, v)
        value, v = _dot(v, w), w
    return value


@dataclass
class AutoRate:
    """RCIG's automatic learning rates (Loo et al. 2023, appendix S3, and the published code), for `AdamSolve` and for
    the inner problem.

    At first the rate is raised as long as the losses of a whole solve decrease at every step, and then lowered once.
    From there on it is looked at every `window` solves: lowered where too many of them ended above where they began,
    raised a little where nearly all decreased at every step. (The paper has only the lowering.)

    Args:
        rate: The rate to begin with (the code's: 1e-5 for the inner problem, 5e-5 for the inverse).
        grow: Factor while it is being raised.
        settle: Factor at the end of that.
        window: Solves between two looks.
        failing: Share of solves that ended above their beginning from which the rate is lowered.
        steady: Share of solves that decreased at every step from which it is raised.
        lower: Factor of the lowering.
        lift: Factor of the raising.

    Example:
        >>> auto = AutoRate(1.0)
        >>> auto.observe([3.0, 2.0, 1.0])
        >>> auto.observe([3.0, 2.0, 4.0])
        >>> round(auto.rate, 3), auto.settled
        (0.84, True)
    """

    rate: float
    grow: float = 1.2
    settle: float = 0.7
    window: int = 50
    failing: float = 0.29
    steady: float = 0.7
    lower: float = 0.9
    lift: float = 1.05
    settled: bool = False
    monotone: int = 0
    failures: int = 0
    seen: int = 0

    def observe(self, losses: Tensor | Sequence[float]) -> None:
        """Take note of the losses of a solve, from its start on, and change the rate if it is time to.

        Raises:
            ValueError: If there are fewer than two.
        """
        values = [float(v) for v in (losses.tolist() if isinstance(losses, Tensor) else losses)]
        if len(values) < 2:
            raise ValueError("A rate cannot be judged by one loss; give those of a solve of one step at least.")
        decreasing = all(after < before for before, after in pairwise(values))
        if not self.settled:
            self.rate *= self.grow if decreasing else self.settle
            self.settled = not decreasing
            return
        self.seen += 1
        self.monotone += decreasing
        self.failures += not values[-1] <= values[0]  # so that a NaN is a failure
        if self.seen == self.window:
            self._look()

    def state_dict(self) -> dict[str, Any]:
        """The rate and what it has been judged by so far."""
        return {
            "rate": self.rate,
            "settled": self.settled,
            "monotone": self.monotone,
            "failures": self.failures,
            "seen": self.seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.rate, self.settled = state["rate"], state["settled"]
        self.monotone, self.failures, self.seen = state["monotone"], state["failures"], state["seen"]

    def _look(self) -> None:
        if self.failures >= self.failing * self.seen:
            self.rate *= self.lower
        elif self.monotone >= self.steady * self.seen:
            self.rate *= self.lift
        self.monotone = self.failures = self.seen = 0


class _Log:
    """Residuals and energies, kept on the device until the end."""

    def __init__(self, b: Tensor, x: Tensor, r: Tensor) -> None:
        self.b = b.detach()
        size = self.b.norm()
        self.scale = torch.where(size > 0, size, torch.ones_like(size))
        self.residuals: list[Tensor] = []
        self.energies: list[Tensor] = []
        self.note(x, r)

    def note(self, x: Tensor, r: Tensor) -> None:
        self.residuals.append(r.norm() / self.scale)
        self.energies.append(-0.5 * _dot(x, self.b + r))  # because A x = b - r

    def solution(self, x: Tensor, steps: int) -> Solution:
        kept = slice(steps + 1)
        return Solution(x, torch.stack(self.residuals[kept]), torch.stack(self.energies[kept]), steps)


def _begin(matvec: Matvec, b: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """The first x and its residual."""
    b = b.detach()
    if start is None:
        return torch.zeros_like(b), b
    if start.shape != b.shape:
        raise ValueError(
            f"The start has shape {tuple(start.shape)}, the right-hand side {tuple(b.shape)}; give one of the same."
        )
    x = start.detach().to(b)
    return x, b - _apply(matvec, x)


def _apply(matvec: Matvec, v: Tensor) -> Tensor:
    with torch.enable_grad():  # a product is often a derivative
        return matvec(v).detach()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a.reshape(-1) @ b.reshape(-1)


def _check_steps(steps: int) -> None:
    if steps < 0:
        raise ValueError(f"steps is {steps}; give 0 or more.")
