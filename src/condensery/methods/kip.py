"""KIP: kernel inducing points, and the kernels to find them with."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from condensery.kernels import FullyConnected, mean_over_outputs, net_tangent, random_features, ridge_predictions
from condensery.methods.regression import (
    LearnedLoss,
    OuterLoss,
    Squared,
    check_regression,
    real_batch,
    rows_of_labels,
)
from condensery.net import Net
from condensery.synthetic import Images

if TYPE_CHECKING:
    from condensery.data.labelled import Labelled


class Kernel(Protocol):
    """A kernel of images. One that draws networks uses the same for all images of a call."""

    def __call__(self, net: Net, synthetic: Tensor, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """K_SS ``[n, n]`` and K_TS ``[m, n]``, differentiable in the synthetic images.

        Args:
            net: The architecture, for a kernel that draws networks.
            synthetic: Images S ``[n, c, h, w]``.
            real: Images T ``[m, c, h, w]``.
            generator: A CPU generator for networks.
        """


@dataclass(frozen=True)
class InfiniteNtk:
    """The neural tangent kernel of an infinitely wide fully connected network, in closed form and in float64.

    Args:
        network: The network; KIP's have standard normal weights times sqrt(2 / fan_in) and biases of variance 0.01.
    """

    network: FullyConnected = field(
        default_factory=lambda: FullyConnected(depth=1, weight_variance=2.0, bias_variance=0.01)
    )

    def __call__(self, net: Net, synthetic: Tensor, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        x = synthetic.double()  # the ridge is as small as the rounding of float32
        return self.network.ntk(x), self.network.ntk(real.double(), x)


@dataclass(frozen=True)
class RandomNngp:
    """The kernel of the last hidden features of fresh networks, an estimate of their architecture's NNGP kernel.

    K(x, x') = weight_variance * mean over networks and features of phi(x) phi(x') + bias_variance, phi the embedding:
    what a random linear layer on top of it has as its kernel (Loo et al. 2022).

    Args:
        count: Networks, drawn anew in each call.
        weight_variance: Of the linear layer on top, over its fan-in.
        bias_variance: Of its bias.
    """

    count: int = 8
    weight_variance: float = 2.0
    bias_variance: float = 0.01

    def __post_init__(self) -> None:
        _check_count(self.count)
        if self.weight_variance <= 0 or self.bias_variance < 0:
            raise ValueError(
                f"weight_variance is {self.weight_variance}, bias_variance {self.bias_variance}; give a positive and a "
                "non-negative variance."
            )

    def __call__(self, net: Net, synthetic: Tensor, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        thetas = [net.init(generator).to(synthetic) for _ in range(self.count)]
        s, t = (random_features(net, thetas, x) for x in (synthetic, real))
        scale = self.weight_variance * self.count / s.shape[1]
        return scale * s @ s.T + self.bias_variance, scale * t @ s.T + self.bias_variance


@dataclass(frozen=True)
class RandomNtk:
    """The empirical tangent kernel of fresh networks, its mean over outputs: an estimate of their architecture's NTK.

    It takes a gradient of the network for every output of every image, real ones included, and holds them all: for
    small networks and real batches.

    Args:
        count: Networks, drawn anew in each call.
    """

    count: int = 1

    def __post_init__(self) -> None:
        _check_count(self.count)

    def __call__(self, net: Net, synthetic: Tensor, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        pairs = [self._one(net, net.init(generator).to(synthetic), synthetic, real) for _ in range(self.count)]
        within, across = (torch.stack(kernels).mean(0) for kernels in zip(*pairs, strict=True))
        return within, across

    def _one(self, net: Net, theta: Tensor, synthetic: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        tangent = net_tangent(net, theta, synthetic)
        js, jt = tangent.jacobian(synthetic), tangent.jacobian(real)  # [n C, p], [m C, p]
        outputs = len(js) // len(synthetic)
        return mean_over_outputs(js @ js.T, outputs), mean_over_outputs(jt @ js.T, outputs)


@dataclass
class KIP:
    """Kernel inducing points (Nguyen et al., ICLR 2021, https://arxiv.org/abs/2011.00050), algorithm 1.

    With a kernel K, the synthetic images S and their label rows Y, and real images T of classes c,

        loss = 1/2 mean over T of | K_TS (K_SS + lambda I)^-1 Y - (onehot(c) - 1/C) |^2:

    the error on real images of kernel ridge regression fitted to the synthetic ones. No network is trained. The labels
    are learned too where the set learns them.

    Args:
        net: The architecture: used by a kernel that draws networks, and by no other.
        real: The real training images.
        generator: A CPU generator for real batches and networks.
        kernel: `InfiniteNtk`, or for convolutional networks the estimates `RandomNngp` and `RandomNtk`.
        batch_real: Real images of a step.
        ridge: lambda, in units of the mean diagonal of K_SS.
        loss: How far predictions are from the classes.
        lr_images: Adam's learning rate for the images.
        lr_labels: For the labels, where they are learned.
        lr_temperature: For the temperature, where the loss learns one.
    """

    net: Net
    real: Labelled
    generator: torch.Generator
    _: KW_ONLY
    kernel: Kernel = field(default_factory=InfiniteNtk)
    batch_real: int = 5000
    ridge: float = 1e-6
    loss: OuterLoss = field(default_factory=Squared)
    lr_images: float = 0.04
    lr_labels: float = 0.04
    lr_temperature: float = 0.03
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_regression(self.batch_real, self.ridge)
        self._loss = LearnedLoss(self.loss)

    def __call__(self, synthetic: Images) -> Tensor:
        """The loss at the set as it is, on fresh real images."""
        value = self._loss(*self._predict(synthetic))
        self.figures = self._loss.figures()
        return value

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """Adam, each kind of parameter at its own learning rate."""
        rates = {"values": self.lr_images, "labels": self.lr_labels}
        return torch.optim.Adam(self._loss.groups(synthetic, rates, self.lr_temperature))

    def state_dict(self) -> dict[str, Any]:
        """What the loss has learned."""
        return {"loss": self._loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._loss.load_state_dict(state["loss"])

    def _predict(self, synthetic: Images) -> tuple[Tensor, Tensor]:
        """Predictions ``[m, C]`` at real images, and their classes ``[m]``."""
        x, _ = synthetic()
        y = rows_of_labels(synthetic, self.real.num_classes)
        real = real_batch(self.real, self.batch_real, self.generator)
        within, across = self.kernel(self.net, x, real.x, self.generator)
        return ridge_predictions(across, within, y, self.ridge, relative=True), real.y


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"A kernel of {count} networks; give at least 1.")
