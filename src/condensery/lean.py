"""Layers whose derivatives cost what they need, for code that asks for many of them at one point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from condensery import winograd

Gradients = tuple[Tensor | None, Tensor | None]  # in images and weight


class Lean(TorchFunctionMode):
    """While it is entered, 2-D convolutions and softplus are taken from here: the same functions, to be differentiated
    by autograd at any order, with less arithmetic.

    PyTorch's second derivative of a convolution computes the gradients in its input and in its weight whether they are
    asked for or not, half of what J u by reverse over reverse takes; and a weight's gradient along the way to that in
    the input. Here each is computed if it is asked for. And every backward pass through its softplus computes the
    slopes anew, which are kept here. Wide convolutions of images in the memory format channels last take, with their
    derivatives, a quarter of the multiplications (see `winograd`).

    It serves reverse and forward mode (`torch.autograd`), not the transforms of ``torch.func``, and not compilation.
    Without gradients PyTorch's own layers are taken, but for those wide convolutions.

    Example:
        >>> x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3, requires_grad=True)
        >>> with Lean():
        ...     y = torch.nn.functional.conv2d(x, w)
        >>> torch.autograd.grad(y.sum(), w)[0].sum()
        tensor(9.)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch in place of `func`."""
        return _INSTEAD.get(func, func)(*args, **(kwargs or {}))


class _Shape(NamedTuple):
    """How a convolution goes over its input."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.winograd(x, weight):
            return winograd.convolve(x, weight, bias)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(self, g: Tensor, x: Tensor, weight: Tensor, *, wanted: Sequence[bool]) -> Gradients:
        """The gradients in x and in the weight, those that are wanted."""
        if self.winograd(x, weight):
            for_x = winograd.input_gradient(g, weight) if wanted[0] else None
            return for_x, winograd.weight_gradient(g, x) if wanted[1] else None
        sizes = (self.stride, self.padding, self.dilation, False, [0, 0], self.groups)
        both = torch.ops.aten.convolution_backward(g, x, weight, None, *sizes, [*wanted, False])
        return cast("Gradients", tuple(both[:2]))

    def winograd(self, x: Tensor, weight: Tensor) -> bool:
        """Whether it is quicker in that form."""
        plain = self.stride == self.padding == self.dilation == [1, 1] and self.groups == 1
        return plain and winograd.pays(x, weight)


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str) or input.dim() != 4:  # rare, and its bookkeeping is PyTorch's affair
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    shape = _Shape(_pair(stride), _pair(padding), _pair(dilation), groups)
    if not torch.is_grad_enabled():
        return shape.forward(input, weight, bias)
    value: Tensor = _Conv.apply(input, weight, bias, shape)  # type: ignore[no-untyped-call]
    return value


def _pair(size: int | Sequence[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


class _Conv(torch.autograd.Function):
    """A convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: _Shape) -> Tensor:
        ctx.shape = shape
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        value = shape.forward(x, weight, bias)
        ctx.size = value.shape
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted, g = _wanted(ctx), grads[0]
        both: Gradients = _ConvBack.apply(g, *ctx.saved_tensors, ctx.shape, wanted[:2])  # type: ignore[no-untyped-call]
        return *both, g.sum((0, 2, 3)) if any(wanted[2:]) else None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        (x, weight), (dx, dw, db) = ctx.saved_tensors, tangents[:3]
        apply: Callable[..., Tensor] = _Conv.apply
        change = _total(dx, lambda t: apply(t, weight, None, ctx.shape), dw, lambda t: apply(x, t, None, ctx.shape))
        return _total(change, lambda t: t, db, lambda t: t[:, None, None].expand(ctx.size))


class _ConvBack(torch.autograd.Function):
    """Its backward pass, (g, x, w) to the gradients in x and w: linear in g, and in w and x respectively."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, shape: _Shape, wanted: Sequence[bool]) -> Gradients:
        ctx.shape = shape
        ctx.save_for_backward(g, x, weight)
        ctx.set_materialize_grads(False)
        return shape.backward(g, x, weight, wanted=wanted)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (g, x, weight), (gg_x, gg_w), shape = ctx.saved_tensors, grads, ctx.shape
        need_g, need_x, need_w = _wanted(ctx)[:3]
        for_g = for_x = for_w = None
        if need_g:
            for_g = _total(gg_x, lambda t: shape.forward(t, weight), gg_w, lambda t: shape.forward(x, t))
        if need_x and gg_w is not None:
            for_x = shape.backward(g, x, gg_w, wanted=(True, False))[0]
        if need_w and gg_x is not None:
            for_w = shape.backward(g, gg_x, weight, wanted=(False, True))[1]
        return for_g, for_x, for_w, None, None


def _total(
    a: Tensor | None, of_a: Callable[[Tensor], Tensor], b: Tensor | None, of_b: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """of_a(a) + of_b(b), without what is not there."""
    if a is None:
        return None if b is None else of_b(b)
    return of_a(a) if b is None else of_a(a) + of_b(b)


def _softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    if not torch.is_grad_enabled():
        return F.softplus(input, beta, threshold)
    value: Tensor = _Softplus.apply(input, beta, threshold)  # type: ignore[no-untyped-call]
    return value


class _Softplus(torch.autograd.Function):
    """log(1 + exp(beta x)) / beta, with its slopes kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float, threshold: float) -> Tensor:
        ctx.beta, ctx.threshold = beta, threshold
        slopes = _slopes(x, beta, threshold)
        ctx.save_for_backward(x, slopes)
        ctx.save_for_forward(x, slopes)
        return F.softplus(x, beta, threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Scaled.apply(grads[0], *ctx.saved_tensors, ctx.beta, ctx.threshold), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return cast(Tensor, _Scaled.apply(tangents[0], *ctx.saved_tensors, ctx.beta, ctx.threshold))  # type: ignore[no-untyped-call]


class _Scaled(torch.autograd.Function):
    """g times the slopes of softplus at x, which are given: the backward pass, and the forward-mode one."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, slopes: Tensor, beta: float, threshold: float) -> Tensor:
        ctx.beta, ctx.threshold = beta, threshold
        ctx.save_for_backward(g, x, slopes)
        return g * slopes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g, x, slopes), gg = ctx.saved_tensors, grads[0]
        for_g = for_x = None
        need_g, need_x, *_ = _wanted(ctx)
        if need_g:
            for_g = _Scaled.apply(gg, x, slopes, ctx.beta, ctx.threshold)  # type: ignore[no-untyped-call]
        if need_x:
            if torch.is_grad_enabled():  # the kept slopes know nothing of x
                slopes = _slopes(x, ctx.beta, ctx.threshold)
            for_x = gg * g * (slopes * (1 - slopes)).mul(ctx.beta)
        return for_g, for_x, None, None, None


def _slopes(x: Tensor, beta: float, threshold: float) -> Tensor:
    """The slopes of softplus, which are 1 beyond its threshold."""
    scaled = beta * x
    slopes = scaled.sigmoid()
    return slopes if x.dtype == torch.float32 and threshold >= 20 else slopes.masked_fill(scaled > threshold, 1.0)


def _wanted(ctx: Any) -> list[bool]:
    """Whether the backward pass that is running asks for the gradient in each tensor that a function was given.

    What ``ctx.needs_input_grad`` knows is whether it could ever be asked for. Of leaves the engine does not tell.
    """
    nodes = [node for node, _ in ctx.next_functions]
    return [node is not None and (hasattr(node, "variable") or _executed(node)) for node in nodes]


_executed: Callable[[Any], bool] = torch._C._will_engine_execute_node
_INSTEAD = {F.conv2d: _conv2d, F.softplus: _softplus}
