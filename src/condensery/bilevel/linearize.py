"""The tangent model of a function: linear in its parameters, as training in the lazy regime sees a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from condensery.lean import Lean

Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Tangent:
    """f at theta_0 + u, to first order in u: f(theta_0, x) + J(x) u, or its centred variant J(x) u.

    J(x) is the derivative in theta at theta_0 (Loo et al. 2023, eq. 2; their centred model leaves out f(theta_0, x),
    which is near zero for a network at initialisation). The value is computed by forward-mode differentiation, without
    forming J.

    What is right with which norm: the value, and `pull` with its derivatives, with every one. The *derivative* of the
    value in x is reverse over forward, and there PyTorch is silently wrong (by a fifth, in a ConvNet) for its own
    ``InstanceNorm2d``, ``LayerNorm`` and ``BatchNorm2d`` in training; use ``GroupNorm(C, C)``, which is instance
    normalisation, or no norm. `pull` is right there too, which is why the hypergradient of `TangentRidge` uses it
    alone.

    Args:
        f: ``f(theta, x) -> [n, C]``.
        theta: theta_0 ``[p]``.
        centred: Leave out f(theta_0, x).
        piece: Examples to put through f at a time where nothing is differentiated further; default: all of them, which
            a function whose examples influence each other (batch normalisation) needs.
        kept: Examples at most whose graphs `TangentAt` keeps, in whole pieces; default: all of them.
        precision: Lower precision for `through` and for products on fixed examples (`at`), e.g. ``torch.bfloat16``:
            with it they are right to about half a per cent. What they take and give, and sums over pieces, stay in
            theta's precision; so does everything else here.

    Example:
        >>> tangent = Tangent(lambda t, x: x @ t.view(2, 1) ** 2, torch.tensor([1.0, 2.0]), centred=True)
        >>> x = torch.tensor([[1.0, 1.0]])
        >>> tangent(torch.tensor([0.5, 0.0]), x), tangent.pull(torch.ones(1, 1), x)
        (tensor([[1.]]), tensor([2., 4.]))
    """

    f: Function
    theta: Tensor
    centred: bool = False
    piece: int | None = None
    kept: int | None = None
    precision: torch.dtype | None = None

    def __call__(self, u: Tensor, x: Tensor) -> Tensor:
        """The tangent model ``[n, C]`` at u ``[p]``, differentiable in u and x (see above for the norms)."""
        base, change = self.push(u, x)
        return change if self.centred else base + change

    def push(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(theta_0, x) and J(x) u, both ``[n, C]`` (a Jacobian-vector product), differentiable in u and x."""
        pair: tuple[Tensor, Tensor] = torch.func.jvp(lambda t: self.f(t, x), (self.theta.detach(),), (u,))  # type: ignore[assignment]
        return pair

    def pull(self, cotangent: Tensor, x: Tensor) -> Tensor:
        """J(x)^T c ``[p]`` for c ``[n, C]`` (a vector-Jacobian product), differentiable in c and x."""
        graph = torch.is_grad_enabled() and (x.requires_grad or cotangent.requires_grad)
        leaf = self.theta.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.value(leaf, x), leaf, cotangent, create_graph=graph)[0]

    def value(self, theta: Tensor, x: Tensor) -> Tensor:
        """f(theta, x) ``[n, C]``, to be differentiated by `torch.autograd` (see `Lean`)."""
        with Lean():
            return self.f(theta, x)

    @torch.no_grad()
    def predict(self, u: Tensor, x: Tensor) -> Tensor:
        """The value of the tangent model ``[n, C]`` in pieces, without a graph."""
        return torch.cat([self(u, part) for part in self.pieces(x)])

    @torch.no_grad()
    def pull_value(self, cotangent: Tensor, x: Tensor) -> Tensor:
        """The value of `pull` ``[p]`` in pieces, without a graph."""
        total = torch.zeros_like(self.theta)
        for c, part in zip(self.pieces(cotangent), self.pieces(x), strict=True):
            total += self.pull(c, part)
        return total

    @torch.no_grad()
    def through(self, u: Tensor | None, x: Tensor, slope: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """J(x)^T r ``[p]`` for an r that depends on the model's values: one forward pass serves both, in pieces.

        Args:
            u: Where the tangent model is evaluated ``[p]``; ``None`` for f(theta_0, x) alone, also in a centred model.
            x: Examples ``[n, ...]``.
            slope: Gives r ``[k, C]`` from the values on some of the examples ``[k, C]`` and which they are, int64
                ``[k]``.
        """
        total = torch.zeros_like(self.theta)
        theta, u = self.lower(self.theta.detach()), None if u is None else self.lower(u)
        for index in self.pieces(torch.arange(len(x), device=x.device)):
            leaf = theta.detach().requires_grad_()
            with torch.enable_grad():
                base, change = self._dual(leaf, u, self.lower(x[index]))
            values = base if change is None else change if self.centred else base + change
            r = slope(values.detach().to(total.dtype), index)
            total += torch.autograd.grad(base, leaf, r.to(base.dtype))[0]
        return total

    def lower(self, value: Tensor) -> Tensor:
        """A tensor in the lower precision, if there is one."""
        return value if self.precision is None else value.to(self.precision)

    def _dual(self, leaf: Tensor, u: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """f(leaf, x), with a graph, and J(x) u by forward mode along with it."""
        if u is None:
            return self.value(leaf, x), None
        with forward_ad.dual_level():
            base, change = forward_ad.unpack_dual(self.value(forward_ad.make_dual(leaf, u), x))
            return base, torch.zeros_like(base) if change is None else change

    def at(self, x: Tensor) -> TangentAt:
        """The model on fixed examples ``[n, ...]``, for solvers: many products with the same J(x)."""
        return TangentAt(self, x.detach())

    def jacobian(self, x: Tensor) -> Tensor:
        """J(x) itself, ``[n C, p]``, a row for each output of each example; differentiable in x."""
        if self.piece is not None and x.device.type != "cpu":
            return self._jacobian_at_once(x)
        leaf = self.theta.detach().requires_grad_()
        graph = torch.is_grad_enabled() and x.requires_grad
        rows = []
        with torch.enable_grad():
            for part in self.pieces(x) if self.piece is None else x.split(1):
                values = self.f(leaf, part).reshape(-1)
                rows += [torch.autograd.grad(v, leaf, retain_graph=True, create_graph=graph)[0] for v in values]
        return torch.stack(rows)

    def _jacobian_at_once(self, x: Tensor) -> Tensor:
        """`jacobian` with all outputs of a piece's examples in one go: a device dislikes small passes in a row."""
        one = torch.func.jacrev(lambda t, e: self.f(t, e[None])[0])
        rows: Tensor = torch.func.vmap(one, in_dims=(None, 0), chunk_size=self.piece)(self.theta.detach(), x)
        return rows.flatten(0, 1)

    def kernel(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The empirical neural tangent kernel J(x) J(z)^T, ``[n C, m C]`` (z = x by default), for small sets."""
        first = self.jacobian(x)
        return first @ (first if z is None else self.jacobian(z)).T

    def pieces(self, x: Tensor) -> Iterator[Tensor]:
        """Nearly equal parts of x (or of what goes with it) of at most `piece` examples."""
        count = 1 if self.piece is None else max(1, -(-len(x) // self.piece))
        return iter(x.tensor_split(count))


class TangentAt:
    """A tangent model on fixed examples, whose graphs are built once: each product then costs a backward pass.

    J u is computed as the derivative in c of <J^T c, u> (reverse over reverse), so the forward pass is not repeated
    and every norm is right. The graphs stay in memory, those of the first `Tangent.kept` examples; what goes beyond
    them is passed through the network for every product, at about twice the time. All of it is in the model's lower
    precision where it has one.

    Args:
        tangent: The model.
        x: The examples ``[n, ...]``.
    """

    def __init__(self, tangent: Tangent, x: Tensor) -> None:
        self.tangent, self.x = tangent, x
        self._low = replace(tangent, theta=tangent.lower(tangent.theta), precision=None)
        self._theta = self._low.theta.detach().requires_grad_()
        self._parts = [tangent.lower(part) for part in tangent.pieces(x)]

    @cached_property
    @torch.no_grad()
    def base(self) -> Tensor:
        """f(theta_0, x) ``[n, C]``."""
        pairs = zip(self._parts, self._graphs, strict=True)
        return self._raised([self._low.f(self._theta, x) if g is None else g.value.detach() for x, g in pairs])

    @torch.no_grad()
    def pull(self, cotangent: Tensor) -> Tensor:
        """J^T c ``[p]``."""
        total, low = torch.zeros_like(self.tangent.theta), cotangent.to(self._theta.dtype)
        for x, graph, c in zip(self._parts, self._graphs, self.tangent.pieces(low), strict=True):
            total += self._low.pull(c, x) if graph is None else graph.pull(self._theta, c)
        return total

    @torch.no_grad()
    def push(self, u: Tensor) -> Tensor:
        """J u ``[n, C]``."""
        pairs, low = zip(self._parts, self._graphs, strict=True), u.to(self._theta.dtype)
        return self._raised([self._low.push(low, x)[1] if g is None else g.push(low) for x, g in pairs])

    def _raised(self, parts: list[Tensor]) -> Tensor:
        """One tensor in the model's own precision."""
        return torch.cat(parts).to(self.tangent.theta.dtype)

    @cached_property
    def _graphs(self) -> list[_Graph | None]:
        """Of each piece, or ``None`` for those beyond what is kept."""
        found: list[_Graph | None] = []
        count = 0
        for part in self._parts:
            count += len(part)
            within = self.tangent.kept is None or count <= self.tangent.kept
            found.append(self._graph(part) if within else None)
        return found

    def _graph(self, x: Tensor) -> _Graph:
        with torch.enable_grad():
            value = self._low.value(self._theta, x)
            c = torch.zeros_like(value, requires_grad=True)
            return _Graph(value, c, torch.autograd.grad(value, self._theta, c, create_graph=True)[0])


class _Graph(NamedTuple):
    """f(theta_0, x) of a piece, a vector c, and J^T c as a function of it."""

    value: Tensor
    c: Tensor
    pulled: Tensor

    def pull(self, theta: Tensor, c: Tensor) -> Tensor:
        return torch.autograd.grad(self.value, theta, c, retain_graph=True)[0]

    def push(self, u: Tensor) -> Tensor:
        return torch.autograd.grad(self.pulled, self.c, u, retain_graph=True)[0]


def linearize(
    f: Function,
    theta: Tensor,
    *,
    centred: bool = False,
    piece: int | None = None,
    kept: int | None = None,
    precision: torch.dtype | None = None,
) -> Tangent:
    """The tangent model of f at theta: see `Tangent`."""
    return Tangent(f, theta.detach(), centred=centred, piece=piece, kept=kept, precision=precision)
