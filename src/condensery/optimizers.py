"""Outer optimizers that the papers use and PyTorch does not have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["AdaBelief", "AdamSgd", "DroppedAdam", "Lamb"]


class _Moments(Optimizer):
    """Adam's two moments with their bias corrected; what is done with them is the subclass's."""

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise ValueError(
                f"lr={lr}, betas={betas}, eps={eps}, weight_decay={weight_decay}; give betas from 0 to below 1, and "
                "other numbers of at least 0."
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return value

    def _move(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        state["step"] += 1
        state["mean"].lerp_(g, 1 - beta1)
        state["square"].lerp_(self._square(g, state["mean"], group), 1 - beta2)
        mean = state["mean"] / (1 - beta1 ** state["step"])
        square = state["square"] / (1 - beta2 ** state["step"])
        change = mean / (square.sqrt() + group["eps"])
        if group["weight_decay"]:
            change = change + group["weight_decay"] * p
        p.sub_(self._rate(group, state["step"]) * self._trust(p, change) * change)

    def _rate(self, group: dict[str, Any], step: int) -> float:
        """The learning rate of a parameter's step, counted from 1."""
        return float(group["lr"])

    def _square(self, g: Tensor, mean: Tensor, group: dict[str, Any]) -> Tensor:
        return g.square()

    def _trust(self, p: Tensor, change: Tensor) -> Tensor | float:
        return 1.0


class AdaBelief(_Moments):
    """AdaBelief (Zhuang et al., NeurIPS 2020, algorithm 2): Adam whose second moment is that of g - mean(g).

    RCIG's outer optimizer. The step is large where the gradient is what its mean led to expect.

    Args:
        params: As for any optimizer of PyTorch.
        lr: Learning rate.
        betas: Decays of the two moments.
        eps: Added to each new second moment, and to the root of the corrected one.
        weight_decay: Decoupled.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdaBelief([p], lr=0.1)
        >>> for _ in range(3):
        ...     p.grad = torch.tensor([2.0])
        ...     optimizer.step()
        >>> bool(p < 0.7)
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _square(self, g: Tensor, mean: Tensor, group: dict[str, Any]) -> Tensor:
        return (g - mean).square() + group["eps"]


class Lamb(_Moments):
    """LAMB (You et al., ICLR 2020): Adam's step, scaled in each tensor to the norm of its values.

    FRePo's outer optimizer.

    Args:
        params: As for any optimizer of PyTorch; each tensor has a scale of its own.
        lr: Learning rate.
        betas: Decays of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Added to the step before it is scaled.
        cosine: The rate falls along half a cosine over this many steps to this share of `lr`, and stays there;
            ``None`` for a constant rate. Each parameter's own count of steps, which is part of its state, decides, so
            a run that resumes goes on where it was.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> p.grad = torch.tensor([1.0, 0.0])
        >>> Lamb([p], lr=0.1).step()
        >>> [round(v, 3) for v in p.tolist()]
        [2.5, 4.0]
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        cosine: tuple[int, float] | None = None,
    ) -> None:
        if cosine is not None and not (cosine[0] >= 1 and 0 <= cosine[1] <= 1):
            raise ValueError(f"cosine is {cosine}; give at least 1 step and a share from 0 to 1.")
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        for group in self.param_groups:
            group["cosine"] = cosine

    def _rate(self, group: dict[str, Any], step: int) -> float:
        if group["cosine"] is None:
            return super()._rate(group, step)
        steps, final = group["cosine"]
        done = min(1.0, (step - 1) / steps)
        return float(group["lr"]) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    def _trust(self, p: Tensor, change: Tensor) -> Tensor:
        size, step = p.norm(), change.norm()
        return torch.where((size > 0) & (step > 0), size / step, torch.ones_like(size))


class AdamSgd(_Moments):
    """Adam for some groups of parameters and SGD for others: what SFGC and GEOM move features and step size by.

    Args:
        params: Groups with ``"params"`` and ``"lr"``; one that has ``"momentum"`` descends by SGD, ``v <- momentum v +
            g``, ``p <- p - lr v``, the others by Adam.
        betas: Decays of Adam's moments.
        eps: Added to the root of Adam's corrected second moment.

    Example:
        >>> p, q = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = AdamSgd([{"params": [p], "lr": 0.1}, {"params": [q], "lr": 0.1, "momentum": 0.5}])
        >>> for _ in range(2):
        ...     p.grad, q.grad = torch.tensor([2.0]), torch.tensor([2.0])
        ...     optimizer.step()
        >>> p.data, q.data
        (tensor([-0.2000]), tensor([-0.5000]))
    """

    def __init__(self, params: Iterable[Any], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, lr=1e-3, betas=betas, eps=eps, weight_decay=0.0)

    def _move(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        if "momentum" not in group:
            super()._move(p, g, group)
            return
        state = self.state[p]
        state["velocity"] = g.clone() if not state else state["velocity"].mul_(group["momentum"]).add_(g)
        p.sub_(group["lr"] * state["velocity"])


class DroppedAdam(torch.optim.Adam):
    """Adam that starts anew with a smaller rate after some steps: DosCond's schedule for whole graphs.

    The rate, how many steps were made and the moments are part of ``state_dict``.

    Args:
        params: Parameters, or groups of them with their ``lr``.
        lr: Learning rate of groups that have none.
        drop_after: Steps after which the moments are forgotten and the rate is multiplied; ``None`` for never.
        factor: By what.
        betas: See `torch.optim.Adam`.
        eps: See `torch.optim.Adam`.

    Raises:
        ValueError: If the drop comes before the first step, or the factor is not above 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        drop_after: int | None,
        factor: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if (drop_after is not None and drop_after < 1) or factor <= 0:
            raise ValueError(f"drop_after={drop_after} and factor={factor} are impossible; give at least 1, above 0.")
        super().__init__(params, lr=lr, betas=betas, eps=eps)
        for group in self.param_groups:
            group.update(drop_after=drop_after, drop_factor=factor, made=0)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient, after the drop if it is due."""
        for group in self.param_groups:
            if group["made"] == group["drop_after"]:
                group["lr"] *= group["drop_factor"]
                for p in group["params"]:
                    self.state.pop(p, None)
            group["made"] += 1
        return super().step(closure)
