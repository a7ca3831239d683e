"""RFAD: condensation by random features."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from condensery.kernels import ridge_predictions
from condensery.methods.kip import RandomNngp
from condensery.methods.regression import LearnedLoss, OuterLoss, Platt, check_regression, real_batch, rows_of_labels
from condensery.net import Net
from condensery.optimizers import AdaBelief
from condensery.synthetic import Images

if TYPE_CHECKING:
    from condensery.data.labelled import Labelled


@dataclass
class RFAD:
    """Random feature approximation (Loo et al., NeurIPS 2022, https://arxiv.org/abs/2210.12067), algorithm 1.

    KIP's regression (see `KIP`) with the NNGP kernel of a convolutional network, which is estimated from the features
    of a few freshly drawn networks, the same for the synthetic and the real images: linear in the number of images
    where the kernel's own recursion is quadratic. The loss is cross entropy at a learned temperature (`Platt`).

    Args:
        net: The architecture; without normalisation, as published.
        real: The real training images.
        generator: A CPU generator for networks and real batches.
        networks: N, drawn anew in each step.
        weight_variance: The kernel is weight_variance * mean over features and networks of phi(x) phi(x') +
            bias_variance: that of a random linear layer on top.
        bias_variance: See `weight_variance`.
        batch_real: Real images of a step (published: 4 batches of 1280).
        ridge: In units of the mean diagonal of the synthetic images' kernel.
        loss: `Platt` as published, or `Squared`, their MSE.
        lr_images: AdaBelief's learning rate for the images.
        lr_labels: For the labels, where they are learned.
        lr_temperature: For the temperature, where the loss learns one.
    """

    net: Net
    real: Labelled
    generator: torch.Generator
    _: KW_ONLY
    networks: int = 8
    weight_variance: float = 2.0
    bias_variance: float = 0.01
    batch_real: int = 5120
    ridge: float = 5e-3
    loss: OuterLoss = field(default_factory=Platt)
    lr_images: float = 1e-3
    lr_labels: float = 1e-3
    lr_temperature: float = 0.01
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_regression(self.batch_real, self.ridge)
        self._kernel = RandomNngp(self.networks, self.weight_variance, self.bias_variance)
        self._loss = LearnedLoss(self.loss)

    def __call__(self, synthetic: Images) -> Tensor:
        """The loss at the set as it is, for fresh networks and real images."""
        x, _ = synthetic()
        y = rows_of_labels(synthetic, self.real.num_classes)
        real = real_batch(self.real, self.batch_real, self.generator)
        within, across = self._kernel(self.net, x, real.x, self.generator)
        value = self._loss(ridge_predictions(across, within, y, self.ridge, relative=True), real.y)
        self.figures = self._loss.figures()
        return value

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """AdaBelief, each kind of parameter at its own learning rate."""
        rates = {"values": self.lr_images, "labels": self.lr_labels}
        return AdaBelief(self._loss.groups(synthetic, rates, self.lr_temperature))

    def state_dict(self) -> dict[str, Any]:
        """What the loss has learned."""
        return {"loss": self._loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._loss.load_state_dict(state["loss"])
