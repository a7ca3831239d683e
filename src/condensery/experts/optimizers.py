"""How an expert's weights move: plain steps on one flat vector, or on several at once.

`fitting` trains modules with PyTorch's optimizers. An expert is a point that moves, so its optimizer is a function
of the point, and the sharpness-aware ones may ask for the gradient where they like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Gradient = Callable[[Tensor], Tensor]
"""The gradient of one mini-batch's mean loss: parameters ``[p]`` (or ``[e, p]``) to a tensor of the same shape."""

_SMALL = 1e-12  # keeps the direction of a zero gradient zero, as the published code does


class Optimizer(Protocol):
    """One step of an expert. Implementations are frozen dataclasses, so that a store can say what made it."""

    def step(self, theta: Tensor, gradient: Gradient, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The parameters after a step and what the next step needs.

        Args:
            theta: Parameters ``[p]``, or ``[e, p]``: e experts, each stepping for itself.
            gradient: The mini-batch gradient at any parameters.
            state: What the last step returned; ``None`` before the first.
        """


@dataclass(frozen=True)
class PlainSgd:
    """Stochastic gradient descent; the defaults are MTT's experts (Cazenavette et al., CVPR 2022, section 3.1).

    Momentum as in PyTorch: ``v <- momentum v + g``, ``theta <- theta - lr v``, with ``g`` the gradient plus
    ``weight_decay`` times theta.

    Example:
        >>> PlainSgd(lr=0.5).step(torch.tensor([1.0]), lambda theta: 2 * theta, None)
        (tensor([0.]), None)
    """

    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0

    def step(self, theta: Tensor, gradient: Gradient, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Descend the gradient."""
        g = gradient(theta)
        if self.weight_decay:
            g = g + self.weight_decay * theta
        if self.momentum:
            g = state = g if state is None else self.momentum * state + g
        return theta - self.lr * g, state


@dataclass(frozen=True)
class PlainAdam:
    """Adam (Kingma & Ba, ICLR 2015), as PyTorch has it: the experts of SFGC and GEOM on Citeseer, Flickr and Reddit.

    The state is the two moments and the number of steps, one after the other, ``[2 p + 1]``.

    Args:
        lr: Learning rate.
        betas: Decays of the two moments.
        weight_decay: Times theta is added to the gradient.
        eps: Added to the root of the corrected second moment.

    Example:
        >>> theta, state = PlainAdam(lr=0.5).step(torch.tensor([1.0]), lambda theta: 2 * theta, None)
        >>> theta
        tensor([0.5000])
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    eps: float = 1e-8

    def step(self, theta: Tensor, gradient: Gradient, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Descend the corrected mean of the gradients over the root of that of their squares."""
        g, p = gradient(theta), theta.shape[-1]
        if self.weight_decay:
            g = g + self.weight_decay * theta
        old = theta.new_zeros(*theta.shape[:-1], 2 * p + 1) if state is None else state
        mean, square, count = old.split([p, p, 1], -1)
        (first, second), count = self.betas, count + 1
        mean, square = mean.lerp(g, 1 - first), square.lerp(g.square(), 1 - second)
        spread = (square / (1 - second**count)).sqrt() + self.eps
        theta = theta - self.lr * (mean / (1 - first**count)) / spread
        return theta, torch.cat([mean, square, count], -1)


@dataclass(frozen=True)
class Sam:
    """Sharpness-aware minimisation (Foret et al., ICLR 2021, https://arxiv.org/abs/2010.01412), eq. 2 and 3.

    ``theta <- theta - lr g(theta + e)`` with ``e = rho g / |g|``, the norm over all parameters together.

    Args:
        lr: Learning rate.
        rho: Length of the ascent.
    """

    lr: float = 0.01
    rho: float = 0.05

    def step(self, theta: Tensor, gradient: Gradient, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Descend the gradient of a point uphill."""
        return theta - self.lr * gradient(theta + _ascent(gradient(theta), self.rho)), state


@dataclass(frozen=True)
class Asam:
    """Adaptive SAM (Kwon et al., ICML 2021, https://arxiv.org/abs/2102.11600), eq. 6 and algorithm 1.

    As `Sam` with ``e = rho T^2 g / |T g|``, where ``T = |theta| + eta`` element by element.

    Args:
        lr: Learning rate.
        rho: Length of the ascent, measured in units of the parameters.
        eta: Added to the parameters' magnitudes.
    """

    lr: float = 0.01
    rho: float = 0.5
    eta: float = 0.01

    def step(self, theta: Tensor, gradient: Gradient, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Descend the gradient of a point uphill."""
        uphill = theta + _ascent(gradient(theta), self.rho, theta.abs() + self.eta)
        return theta - self.lr * gradient(uphill), state


@dataclass(frozen=True)
class Gsam:
    """Surrogate gap minimisation (Zhuang et al., ICLR 2022, https://arxiv.org/abs/2203.08065), algorithm 1.

    With ``g`` the gradient at theta, ``h`` that at ``theta + e``, and ``g_v = g - h <g, h> / |h|^2`` the part of the
    first orthogonal to the second,

        theta <- theta - lr (h - alpha g_v):

    descending ``h`` lowers the perturbed loss, and ascending ``g_v`` narrows its gap to the loss without changing it.
    The defaults are FTD's experts (Du et al., CVPR 2023, https://arxiv.org/abs/2211.11004, algorithm 1): a constant
    learning rate, so rho, which follows it in the GSAM paper, is constant too.

    Args:
        lr: Learning rate.
        rho: Length of the ascent.
        alpha: Weight of the orthogonal part.
        adaptive: Whether the ascent is scaled by the parameters' magnitudes, as in `Asam` with eta = 0.
    """

    lr: float = 0.01
    rho: float = 0.01
    alpha: float = 0.4
    adaptive: bool = True

    def step(self, theta: Tensor, gradient: Gradient, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Descend the gradient of a point uphill, less the part of the plain one that is orthogonal to it."""
        g = gradient(theta)
        h = gradient(theta + _ascent(g, self.rho, theta.abs() if self.adaptive else None))
        length = h.square().sum(-1, keepdim=True).clamp_min(torch.finfo(h.dtype).tiny)
        orthogonal = g - h * ((g * h).sum(-1, keepdim=True) / length)
        return theta - self.lr * (h - self.alpha * orthogonal), state


def _ascent(g: Tensor, rho: float, scale: Tensor | None = None) -> Tensor:
    """``rho T^2 g / |T g|`` for the scale T (ones where there is none), each vector for itself."""
    scaled = g if scale is None else scale * g
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return rho / (length + _SMALL) * (scaled if scale is None else scale * scaled)
