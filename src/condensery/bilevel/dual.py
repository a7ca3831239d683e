"""Ridge regression on a tangent model in its dual form: the inner problem of RCIG, solved instead of descended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from condensery.bilevel.linearize import Tangent
from condensery.bilevel.solve import Cg, Solution, Solve

_BLOCK = 1 << 16
Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TangentRidge:
    """The model f(x) = J(x) u + phi(x) w, fitted to (X, Y) by ridge regression, and its exact hypergradient.

    J is the Jacobian of `tangent` ``[n C, p]``, phi the features before a linear head ``[n, d]`` and w ``[d, C]``. The
    inner problem of RCIG (Loo et al. 2023, eq. 3-5) is

        min over u, w of  1/2 |Y - f(X)|^2 + lambda/2 (|u|^2 + |w|^2),

    kernel ridge regression with Theta = J J^T + (phi phi^T) (x) I_C. With n examples and C outputs its dual has n C
    unknowns, whatever the number of parameters:

        (Theta_XX + lambda I) alpha = Y,   u = J(X)^T alpha,   w = phi(X)^T alpha,   f(T) = Theta_TX alpha,

    and a product with Theta_XX is one vector-Jacobian and one Jacobian-vector product on X.

    **Hypergradient.** Let L be a function of f(T) and r = dL/df(T) ``[m, C]``; q = J(T)^T r, s = phi(T)^T r. Since
    dL = <r, dTheta_TX alpha> + <Theta_XT r, d alpha> and, from the dual problem,
    d alpha = A^-1 (dY - dTheta_XX alpha - d lambda alpha) with A = Theta_XX + lambda I, the second solve

        A v = Theta_XT r = J(X) q + phi(X) s

    gives dL/dY = v and dL/dlambda = -<v, alpha>. In X, with u_v = J(X)^T v and w_v = phi(X)^T v, it leaves
    dL = <r, dTheta_TX alpha> - <v, dTheta_XX alpha>, which is the derivative of a form that is linear in J and phi:

        B(X) = <J(X)^T alpha, q - u_v> - <J(X)^T v, u> + <phi(X)^T alpha, s - w_v> - <phi(X)^T v, w>,

    with the vectors q - u_v, u, s - w_v and w held fixed. It is a sum over the examples, so it can be differentiated in
    pieces, or for some of them only, and it is reverse over reverse, which is right with every norm.

    A tangent model that is not centred adds f(theta_0, .): Y becomes Y - f(theta_0, X), and B gets -<v, f(theta_0, X)>.

    Args:
        tangent: J. If it comes from all parameters of a network, the head's included, its kernel has the term
            (phi phi^T) (x) I_C in it already: leave `features` out. With `features`, it must not move the head.
        solve: `Cg` or `Direct` (which forms Theta from J, n C rows of p numbers).
        features: phi, differentiable; or ``None``.
        precondition_by: Features whose kernel K gives a `Cg` without a preconditioner (K + lambda I) (x) I_C for one:
            it saves half of the steps or more. By default phi; with a whole network's `tangent`, give its embedding.
    """

    tangent: Tangent
    solve: Solve
    features: Features | None = None
    precondition_by: Features | None = None

    def __call__(self, x: Tensor, y: Tensor, lam: Tensor | float, at: Tensor) -> tuple[Tensor, Fit]:
        """Fit to (x, y) and predict at `at`, differentiable once in x, y and lam.

        Args:
            x: Examples ``[n, ...]``.
            y: Labels ``[n, C]``.
            lam: The ridge, a scalar.
            at: Other examples ``[m, ...]``; no gradient goes to them.

        Returns:
            Predictions ``[m, C]``, and the fit, whose `adjoint` is there after a backward pass.
        """
        lam = torch.as_tensor(lam, dtype=y.dtype, device=y.device)
        fit = self.fit(x, y, lam)
        return _Through.apply(self, fit, at, x, y, lam), fit  # type: ignore[no-untyped-call]

    def fit(self, x: Tensor, y: Tensor, lam: Tensor | float, *, start: Tensor | None = None) -> Fit:
        """Solve the dual problem.

        Args:
            x: Examples ``[n, ...]``.
            y: Labels ``[n, C]``.
            lam: The ridge.
            start: A guess at alpha ``[n, C]``.

        Raises:
            ValueError: If the labels are not rows, or the ridge is not positive.
        """
        if y.dim() != 2 or not y.is_floating_point():
            raise ValueError("Ridge regression needs a row of numbers for each example; give labels [n, classes].")
        value = float(lam.detach()) if isinstance(lam, Tensor) else lam
        if value <= 0:
            raise ValueError(f"The ridge is {value}; give a positive one.")
        matrix = _Matrix(self, x.detach(), value)
        right = y.detach() if self.tangent.centred else y.detach() - matrix.at.base
        solution = self._solver(matrix)(matrix, right, start)
        u, w = matrix.pull(solution.x)
        return Fit(solution.x, u, w, solution, matrix)

    @torch.no_grad()
    def predict(self, fit: Fit, at: Tensor) -> Tensor:
        """f(at) ``[m, C]``, in pieces."""
        parts = []
        for x in self.tangent.pieces(at):
            value = self.tangent(fit.u, x)
            parts.append(value if fit.w is None or self.features is None else value + self.features(x) @ fit.w)
        return torch.cat(parts)

    @torch.no_grad()
    def pullback(
        self, fit: Fit, at: Tensor, cotangent: Tensor, *, start: Tensor | None = None, only: Tensor | None = None
    ) -> Pulled:
        """The gradients in x, y and lam of a loss of the predictions at `at`.

        Args:
            fit: From `fit`.
            at: Where was predicted, ``[m, ...]``.
            cotangent: The loss's gradient in the predictions, ``[m, C]``.
            start: A guess at the adjoint ``[n, C]``.
            only: Give a gradient to these examples alone (int64 ``[k]``; zeros elsewhere). If they are drawn uniformly,
                n / k times it is an unbiased estimate of the whole (section 3.6). Not with batch normalisation.
        """
        matrix = fit.matrix
        q = self.tangent.pull_value(cotangent, at)
        s = None if self.features is None else self._pull_features(cotangent, at)
        solution = self.adjoint(fit, q, s, start=start)
        v = solution.x
        u_v, w_v = matrix.pull(v)
        head = None if s is None or w_v is None or fit.w is None else (s - w_v, fit.w)
        index = torch.arange(len(v), device=v.device) if only is None else only.to(v.device)
        for_x = torch.zeros_like(matrix.x)
        for part in self.tangent.pieces(index):
            for_x[part] = self._form(matrix.x[part], fit.alpha[part], v[part], (q - u_v, fit.u), head)
        return Pulled(for_x, v, -(v * fit.alpha).sum(), solution)

    @torch.no_grad()
    def adjoint(self, fit: Fit, q: Tensor, s: Tensor | None = None, *, start: Tensor | None = None) -> Solution:
        """The second solve, A v = J(X) q + phi(X) s.

        Args:
            fit: From `fit`, whose `adjoint` this becomes.
            q: J(T)^T r ``[p]``.
            s: phi(T)^T r ``[d, C]``, with `features`.
            start: A guess at v ``[n, C]``.
        """
        right = fit.matrix.at.push(q)
        solution = self._solver(fit.matrix)(fit.matrix, right if s is None else right + fit.matrix.phi @ s, start)
        fit.adjoint = solution
        return solution

    def _form(
        self, x: Tensor, alpha: Tensor, v: Tensor, tangent: tuple[Tensor, Tensor], head: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The derivative of B in some of the examples."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            leaf = self.tangent.theta.detach().requires_grad_()
            value = self.tangent.value(leaf, x)
            pulled = [torch.autograd.grad(value, leaf, c, create_graph=True)[0] for c in (alpha, v)]
            b = pulled[0] @ tangent[0] - pulled[1] @ tangent[1]
            if not self.tangent.centred:
                b = b - (v * value).sum()
            if head is not None and self.features is not None:
                phi = self.features(x)
                b = b + (alpha * (phi @ head[0])).sum() - (v * (phi @ head[1])).sum()
            return torch.autograd.grad(b, x, materialize_grads=True)[0]

    def _pull_features(self, cotangent: Tensor, at: Tensor) -> Tensor:
        """phi(at)^T c ``[d, C]``."""
        assert self.features is not None
        pairs = zip(self.tangent.pieces(cotangent), self.tangent.pieces(at), strict=True)
        return torch.stack([self.features(x).detach().T @ c for c, x in pairs]).sum(0)

    def _solver(self, matrix: _Matrix) -> Solve:
        known = self.features is not None or self.precondition_by is not None
        if known and isinstance(self.solve, Cg) and self.solve.preconditioner is None:
            return dataclasses.replace(self.solve, preconditioner=matrix.precondition)
        return self.solve


@dataclass(eq=False)
class Fit:
    """A solved dual problem. It holds the graphs of a forward pass on the examples that it was fitted to.

    Attributes:
        alpha: The dual variables ``[n, C]``.
        u: J(X)^T alpha ``[p]``.
        w: phi(X)^T alpha ``[d, C]``, or ``None`` without features.
        solution: What the solver says of itself.
        matrix: Theta + lambda I, for the second solve.
        adjoint: What the solver says of the latest second solve.
    """

    alpha: Tensor
    u: Tensor
    w: Tensor | None
    solution: Solution
    matrix: _Matrix = field(repr=False)
    adjoint: Solution | None = None


class Pulled(NamedTuple):
    """Gradients of a loss of the predictions.

    Attributes:
        x: In the examples fitted to, of their shape.
        y: In their labels ``[n, C]``.
        lam: In the ridge, a scalar.
        solution: Of the second solve.
    """

    x: Tensor
    y: Tensor
    lam: Tensor
    solution: Solution


class _Matrix:
    """Theta + lambda I on vectors ``[n, C]``."""

    def __init__(self, ridge: TangentRidge, x: Tensor, lam: float) -> None:
        self.ridge, self.x, self.lam = ridge, x, lam
        self.at = ridge.tangent.at(x)

    def __call__(self, c: Tensor) -> Tensor:
        u, w = self.pull(c)
        value = self.at.push(u) + self.lam * c
        return value if w is None else value + self.phi @ w

    def pull(self, c: Tensor) -> tuple[Tensor, Tensor | None]:
        """J^T c and phi^T c."""
        return self.at.pull(c), None if self.ridge.features is None else self.phi.T @ c

    def matrix(self) -> Tensor:
        """The matrix itself ``[n C, n C]``, in double precision from J in its own; kept for the second solve."""
        return self._dense

    @cached_property
    def _dense(self) -> Tensor:
        rows = self.ridge.tangent.jacobian(self.x).detach()
        theta = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
        for block in rows.split(_BLOCK, dim=1):  # so that only a block of J is there in both precisions
            wide = block.double()
            theta += wide @ wide.T
        outputs = len(theta) // len(self.x)
        if self.ridge.features is not None:
            theta = theta + torch.kron(self._kernel, torch.eye(outputs, dtype=theta.dtype, device=theta.device))
        return theta + self.lam * torch.eye(len(theta), dtype=theta.dtype, device=theta.device)

    def precondition(self, r: Tensor) -> Tensor:
        """((K + lambda I)^-1 (x) I_C) r."""
        return torch.cholesky_solve(r.double(), self._factor).to(r.dtype)

    @cached_property
    def phi(self) -> Tensor:
        """Features of the examples ``[n, d]``."""
        return self._all(self.ridge.features)

    @cached_property
    def _kernel(self) -> Tensor:
        phi = self.phi.double()
        return phi @ phi.T

    def _all(self, features: Features | None) -> Tensor:
        assert features is not None
        with torch.no_grad():
            return torch.cat([features(x) for x in self.ridge.tangent.pieces(self.x)])

    @cached_property
    def _factor(self) -> Tensor:
        other = self.ridge.precondition_by
        known = self._all(other).double() if other is not None else self.phi.double()
        k = known @ known.T
        factor, bad = torch.linalg.cholesky_ex(k + self.lam * torch.eye(len(k), dtype=k.dtype, device=k.device))
        if int(bad):
            raise ValueError("The features' kernel is not positive definite (or not finite); give a larger ridge.")
        return factor


class _Through(torch.autograd.Function):
    """Predictions with `TangentRidge.pullback` behind them."""

    @staticmethod
    def forward(ctx: Any, ridge: TangentRidge, fit: Fit, at: Tensor, x: Tensor, y: Tensor, lam: Tensor) -> Tensor:
        ctx.ridge, ctx.fit, ctx.at = ridge, fit, at
        return ridge.predict(fit, at)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        pulled = ctx.ridge.pullback(ctx.fit, ctx.at, outputs[0])
        return None, None, None, pulled.x, pulled.y, pulled.lam
