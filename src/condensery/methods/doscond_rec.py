"""DosCond for recommendation logs: one-step gradient matching with a relaxed mask."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from condensery import bpr
from condensery.condensed_log import Interactions
from condensery.data.interactions import Log
from condensery.fitting import Adam, Sgd
from condensery.loop import with_gradient
from condensery.nets.recommender import MF

__all__ = ["DosCondRec", "relaxed"]

_EDGE = 1e-4  # probabilities are taken as at least this far from 0 and 1, where logits are infinite


@dataclass
class DosCondRec:
    """One-step gradient matching (Jin et al., DosCond, KDD 2022, https://arxiv.org/abs/2206.07746) for BPR.

    At each step a recommender theta is drawn and never trained. With g_i the gradient of the BPR loss of the pool's
    row i, a relaxed mask ``m = sigmoid((logit s + logistic noise) / t)`` and G the mean gradient of the training log,
    it descends

        | sum of m_i g_i / sum of m_i  -  G |^2

    in s. The temperature t falls geometrically. All derivatives are written out, so that memory is that of one table
    of gradients whatever the size of the pool.

    Args:
        train: The training log, whose gradient is matched.
        generator: A CPU generator for initial vectors, negatives and noise.
        lr: Learning rate of Adam on the scores.
        temperature: t at first.
        last_temperature: t after `cooling` steps and on.
        cooling: Steps until then.
        straight_through: Match the gradient of the rows whose m is above 1/2, and differentiate as if it were the
            relaxed one's.
        dim: Size of the vectors.

    Raises:
        ValueError: For an empty log or temperatures that are not above 0.
    """

    train: Log
    generator: torch.Generator
    _: KW_ONLY
    lr: float = 0.01
    temperature: float = 1.0
    last_temperature: float = 0.1
    cooling: int = 200
    straight_through: bool = False
    dim: int = 64
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _done: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.train) == 0:
            raise ValueError("There is no interaction to match; give a training log that has some.")
        if min(self.temperature, self.last_temperature) <= 0 or self.cooling < 1:
            raise ValueError(
                f"Temperatures are {self.temperature} and {self.last_temperature} with cooling={self.cooling}; give "
                "temperatures above 0 and at least 1 step."
            )

    def __call__(self, synthetic: Interactions) -> Tensor:
        """The squared distance of the two mean gradients for one fresh recommender and one relaxed mask."""
        t = self._temperature()
        self._done += 1
        model = MF(self.train.num_users, self.train.num_items, self.dim)
        model.reset_parameters(self.generator)
        model = model.to(synthetic.users.device, synthetic.scores.dtype)
        unknown = bpr.Negatives(self.train.num_items, self.train)
        real = (self.train.users, self.train.items, unknown.draw(self.train.users, self.generator))
        rows = (synthetic.users, synthetic.items, unknown.draw(synthetic.users, self.generator))
        m, slope = relaxed(synthetic.scores.detach(), t, self.generator)
        m = torch.where(synthetic.always, 1.0, m)
        used = (m > 0.5).to(m.dtype) if self.straight_through else m
        value, in_mask = _distance(model, real, rows, used)
        gradient = synthetic.learned(in_mask * slope.masked_fill(synthetic.always, 0.0))
        self.figures = {"temperature": value.new_tensor(t), "kept": used.sum()}
        return with_gradient(value, [synthetic.scores], [gradient])

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """Adam on the scores."""
        optimizer: Adam | Sgd = Adam(lr=self.lr)
        return optimizer.build(synthetic)

    def state_dict(self) -> dict[str, Any]:
        """Steps done: they decide the temperature."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._done = state["done"]

    def _temperature(self) -> float:
        share = min(1.0, self._done / self.cooling)
        return float(self.temperature * (self.last_temperature / self.temperature) ** share)


def relaxed(s: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A binary concrete sample (Maddison et al. 2017) of a mask and its derivative in the probabilities.

    Args:
        s: Probabilities ``[n]``.
        temperature: The nearer to 0, the nearer the sample is to 0 or 1.
        generator: A CPU generator.

    Returns:
        m ``[n]`` in (0, 1), above 1/2 with probability s; and dm/ds ``[n]``.
    """
    q = s.clamp(_EDGE, 1 - _EDGE)
    u = torch.rand(s.shape, generator=generator, dtype=s.dtype).to(s.device, non_blocking=True).clamp_(1e-6, 1 - 1e-6)
    m = torch.sigmoid((torch.logit(q) + torch.logit(u)) / temperature)
    return m, m * (1 - m) / (temperature * q * (1 - q))


def _distance(
    model: MF, real: tuple[Tensor, Tensor, Tensor], rows: tuple[Tensor, Tensor, Tensor], m: Tensor
) -> tuple[Tensor, Tensor]:
    """The squared distance of the weighted mean gradient to the real one, and its derivative in m ``[n]``.

    With D the difference and M the sum of m, the derivative is ``2 <g_i - weighted mean, D> / M``.
    """
    total = m.sum().clamp_min(torch.finfo(m.dtype).tiny)
    ours = bpr.mean_gradient(model, *rows, weights=m) if bool(m.any()) else torch.zeros_like(model.table)
    difference = ours - bpr.mean_gradient(model, *real)
    products = bpr.along(model, *rows, difference)
    return difference.square().sum(), 2 * (products - (ours * difference).sum()) / total
