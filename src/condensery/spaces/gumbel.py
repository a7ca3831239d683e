"""One of several operations, drawn from logits, with gradients in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Gumbel", "gumbel_noise"]


@dataclass(frozen=True)
class Gumbel:
    """Choices drawn from logits, one for each row, by the straight-through Gumbel softmax.

    Jang et al., ICLR 2017 (https://arxiv.org/abs/1611.01144), and Maddison et al., ICLR 2017; for architectures GDAS
    (Dong & Yang, CVPR 2019, https://arxiv.org/abs/1910.04465, section 3.2). The choice is ``argmax(alpha + noise)``
    with Gumbel noise: it is k with probability softmax(alpha)_k. Forward the weights are one-hot; backward they are
    ``softmax((log softmax(alpha) + noise) / tau)``. The noise is an argument, so that a loss stays one function while
    its derivatives are taken.

    Args:
        tau: Temperature of the backward softmax, see `falling`.

    Raises:
        ValueError: If the temperature is not above zero.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> alpha = torch.zeros(2, 3, requires_grad=True)
        >>> Gumbel()(alpha, gumbel_noise(alpha, g)).tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """

    tau: float = 10.0

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"The temperature is {self.tau}; give a number above 0.")

    def __call__(self, alpha: Tensor, noise: Tensor) -> Tensor:
        """Weights ``[rows, k]``, one-hot, from logits and noise of the same shape."""
        soft = F.softmax((F.log_softmax(alpha, 1) + noise) / self.tau, 1)
        hard = F.one_hot(soft.detach().argmax(1), soft.shape[1]).to(soft)
        return hard + (soft - soft.detach())  # in this order the values are exactly 0 and 1

    @classmethod
    def falling(cls, step: int, steps: int, *, start: float = 10.0, end: float = 0.1) -> Gumbel:
        """The temperature at `step` of `steps`, from `start` linearly to `end` as GDAS lowers it.

        Example:
            >>> [round(Gumbel.falling(k, 3).tau, 2) for k in range(3)]
            [10.0, 5.05, 0.1]
        """
        if not 0 <= step < steps:
            raise ValueError(f"There is no step {step} of {steps}; count from 0.")
        return cls(start + (end - start) * step / max(1, steps - 1))


def gumbel_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise of the shape, precision and device of `like`, drawn by a CPU generator: -log of an exponential."""
    return -torch.empty(like.shape).exponential_(generator=generator).log().to(like)
