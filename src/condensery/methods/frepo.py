"""FRePo: neural feature regression with a pool of networks."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from condensery.batch import Batch
from condensery.kernels import ridge_predictions
from condensery.lean import Lean
from condensery.methods.regression import (
    LearnedLoss,
    OuterLoss,
    Squared,
    check_regression,
    margin,
    real_batch,
    rows_of_labels,
)
from condensery.net import Net
from condensery.optimizers import Lamb
from condensery.passes import Passes
from condensery.pool import AdamMse, ModelPool
from condensery.synthetic import Images

if TYPE_CHECKING:
    from condensery.data.labelled import Labelled

Statistics = dict[str, Tensor]


@dataclass
class FRePo:
    """Neural feature regression with pooling (Zhou et al., NeurIPS 2022, https://arxiv.org/abs/2206.00719), alg. 1.

    From a pool of networks in training on the synthetic set one is drawn. With its features phi of the synthetic
    images S, whose label rows are Y, and of real images T of classes c, K = phi phi^T,

        loss = 1/2 mean over T of | K_TS (K_SS + lambda tr(K_SS) / n I)^-1 Y - (onehot(c) - 1/C) |^2:

    only the last layer is fitted to the set, in closed form, and the features are held fixed. From the authors' code,
    the loss is less the mean over S of min(largest - second largest label, margin / C).

    Batch normalisation has, as in their code, the running statistics that the network met in its training on the
    synthetic set, so that an image's features do not depend on its batch.

    Args:
        net: The architecture.
        real: The real training images.
        generator: A CPU generator for networks and real batches.
        batch_real: Real images of a step.
        ridge: lambda.
        margin: How far the margin of the labels is rewarded, in units of 1/C; 0 for not at all.
        loss: How far predictions are from the classes.
        lr_images: LAMB's learning rate for the images.
        lr_labels: For the labels, where they are learned.
        lr_temperature: For the temperature, where the loss learns one.
        decay_steps: Both fall along half a cosine over this many steps; ``None`` leaves them. Give the run's steps.
        lr_final: The share of them that is left at the end of it.
        pool_size: Networks in the pool.
        life: Steps after which a network starts anew.
        pool_steps: A network that was drawn makes 1 to this many steps of training (published: 1).
        pool_batch: Synthetic images in such a step, at most; ``None`` for all.
        lr_pool: Adam's learning rate in it.
        norm_decay: Share of the running statistics that a step of training keeps; 1 leaves them at 0 and 1.
        precision: Lower precision for the features of the real images, through which no gradient goes.
        compiled: Whether these are compiled (see `Passes`).
    """

    net: Net
    real: Labelled
    generator: torch.Generator
    _: KW_ONLY
    batch_real: int = 1024
    ridge: float = 1e-6
    margin: float = 1.0
    loss: OuterLoss = field(default_factory=Squared)
    lr_images: float = 3e-4
    lr_labels: float = 3e-4
    lr_temperature: float = 0.03
    decay_steps: int | None = None
    lr_final: float = 0.1
    pool_size: int = 10
    life: int = 100
    pool_steps: int = 1
    pool_batch: int | None = 1000
    lr_pool: float = 3e-4
    norm_decay: float = 0.1
    precision: torch.dtype | None = None
    compiled: bool = False
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _drawn: Tensor | None = field(default=None, init=False, repr=False)
    _statistics: list[Statistics] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_regression(self.batch_real, self.ridge)
        if self.margin < 0 or not 0 <= self.norm_decay <= 1:
            raise ValueError(
                f"margin is {self.margin:g}, norm_decay {self.norm_decay:g}; give at least 0, and a share from 0 to 1."
            )
        self._loss = LearnedLoss(self.loss)
        self._pool = ModelPool(
            size=self.pool_size,
            life=self.life,
            steps=self.pool_steps,
            step=AdamMse(lr=self.lr_pool),
            batch_size=self.pool_batch,
        )

    def __call__(self, synthetic: Images) -> Tensor:
        """The loss at the set as it is, for a network of the pool and fresh real images."""
        x, _ = synthetic()
        y = rows_of_labels(synthetic, self.real.num_classes)
        theta, statistics = self._draw(Batch(x.detach(), y.detach()))
        real = real_batch(self.real, self.batch_real, self.generator)
        s, t = (self._features(theta, images, statistics) for images in (x, real.x))
        loss = self._loss(ridge_predictions(t @ s.T, s @ s.T, y, self.ridge, relative=True), real.y)
        self.figures = {"regression": loss.detach(), **self._loss.figures()}
        return loss - margin(y, self.margin / y.shape[1]) if self.margin else loss

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """LAMB, each kind of parameter at its own learning rate."""
        cosine = None if self.decay_steps is None else (self.decay_steps, self.lr_final)
        rates = {"values": self.lr_images, "labels": self.lr_labels}
        return Lamb(self._loss.groups(synthetic, rates, self.lr_temperature), cosine=cosine)

    def state_dict(self) -> dict[str, Any]:
        """The pool, running statistics, and what the loss has learned."""
        return {
            "pool": self._pool.state_dict(),
            "drawn": self._drawn,
            "statistics": self._statistics,
            "loss": self._loss.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._pool.load_state_dict(state["pool"])
        self._drawn, self._statistics = state["drawn"], state["statistics"]
        self._loss.load_state_dict(state["loss"])

    def _draw(self, batch: Batch) -> tuple[Tensor, Statistics | None]:
        """A network of the pool and its running statistics, if it has any; the one before is trained."""
        last, before = self._pool.last, self._drawn
        theta = self._pool.draw(self.net, batch, self.generator)
        if not self.net.has_batch_norm:
            return theta, None
        kept = self._statistics or [self._fresh(batch.x)] * self.pool_size
        all_statistics = [{name: b.to(batch.x) for name, b in one.items()} for one in kept]
        if last is not None and before is not None:
            all_statistics[last] = (
                self._fresh(batch.x)
                if self._pool.ages[last] == 0  # it has just started anew
                else self._moved(all_statistics[last], self.net.statistics(before.to(batch.x), batch.x))
            )
        self._drawn, self._statistics = theta, all_statistics
        return theta, all_statistics[self._pool.last or 0]

    def _fresh(self, like: Tensor) -> Statistics:
        """Mean 0 and variance 1 for every layer."""
        return {
            name: (torch.zeros_like if name.endswith("running_mean") else torch.ones_like)(b).to(like)
            for name, b in self.net.module.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        }

    def _moved(self, old: Statistics, new: Statistics) -> Statistics:
        """The running statistics after a step of training that met `new` ones."""
        return {name: old[name].lerp(b, 1 - self.norm_decay) for name, b in new.items()}

    def _features(self, theta: Tensor, x: Tensor, statistics: Statistics | None) -> Tensor:
        """Features ``[n, d]``, in pieces and faster where no gradient goes to the images."""
        if x.requires_grad:
            with Lean():
                return self.net.embed(theta, self.net.arranged(x), statistics=statistics)
        return self._passes.embed(theta, x, statistics=statistics)

    @cached_property
    def _passes(self) -> Passes:
        return Passes(self.net, self.precision, self.compiled)
