"""MTT: matching training trajectories."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from condensery.bilevel.unroll import unroll_light
from condensery.data.augment import DsaTrain, Siamese
from condensery.methods.inner import Training
from condensery.net import Net
from condensery.passes import Passes
from condensery.synthetic import Images

if TYPE_CHECKING:
    from condensery.experts import Segment, Trajectories
    from condensery.graph import Graph


@dataclass
class MTT:
    """Matching training trajectories (Cazenavette et al., CVPR 2022, https://arxiv.org/abs/2203.11932), algorithm 1.

    A network starts where an expert was after t passes over the real data and takes N steps of SGD on the synthetic
    set, with a learned step size. With theta* the expert's parameters,

        loss = |theta_N - theta*_{t+M}|^2 / |theta*_t - theta*_{t+M}|^2,        (eq. 2)

    differentiated through the N steps: exactly, with one step's graph in memory (`bilevel.unroll_light`).

    Args:
        net: The architecture, the experts'.
        experts: Their trajectories.
        generator: A CPU generator for segments, mini-batches and augmentation.
        inner_steps: N.
        expert_epochs: M.
        min_start: Smallest t.
        max_start: t is drawn from `min_start` to below this (T+).
        batch: Synthetic images in a step; ``None`` for all.
        augment: Augmentation of the synthetic images in each step, new parameters for each image.
        first_order: TESLA's approximation of the gradient in place of the exact one.
        lr_images: Learning rate of the images.
        lr_step_size: Of the step size.
        lr_labels: Of the labels, where they are learned.
        momentum: Momentum of the images and the step size.
        momentum_labels: Of the labels.
        precision: Lower precision for the network, e.g. ``torch.bfloat16``; parameters and sums stay in float32.
        compiled: Whether the network's derivatives are compiled (see `Passes`).
    """

    net: Net
    experts: Trajectories
    generator: torch.Generator
    _: KW_ONLY
    inner_steps: int = 50
    expert_epochs: int = 2
    min_start: int = 0
    max_start: int = 2
    batch: int | None = None
    augment: Siamese | None = field(default_factory=Siamese.natural)
    first_order: bool = False
    lr_images: float = 100.0
    lr_step_size: float = 1e-7
    lr_labels: float = 1.0
    momentum: float = 0.5
    momentum_labels: float = 0.5
    precision: torch.dtype | None = None
    compiled: bool = False
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.inner_steps < 1 or self.expert_epochs < 1:
            raise ValueError("inner_steps and expert_epochs must be at least 1; give positive numbers.")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"A mini-batch of {self.batch} images; give at least 1, or none for all of them.")
        if not 0 <= self.min_start < self.max_start:
            raise ValueError(
                f"Starts from {self.min_start} to below {self.max_start} are none; give 0 <= min_start < max_start."
            )

    def __call__(self, synthetic: Images) -> Tensor:
        """The normalised distance to the expert after N steps on the set as it is."""
        lr = step_size(synthetic)
        segment = self._segment()
        x, y = self._batch(synthetic, segment)
        inner = self._training(len(y), x.device)
        last = unroll_light(inner, segment.start, [x, y], lr, steps=self.inner_steps, first_order=self.first_order)
        self.figures = {"step_size": lr.detach().clone()}
        return distance(last, segment)

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """SGD with momentum, each kind of parameter at its own learning rate."""
        rates = {
            "values": (self.lr_images, self.momentum),
            "step_size": (self.lr_step_size, self.momentum),
            "labels": (self.lr_labels, self.momentum_labels),
        }
        groups = [
            {"params": [p], "lr": rates[name][0], "momentum": rates[name][1]}
            for name, p in synthetic.named_parameters()
        ]
        return torch.optim.SGD(groups)

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on beside the set and the generator."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""

    def _segment(self) -> Segment:
        """The stretch of an expert's trajectory to match in this step."""
        return self.experts.sample(self.generator, starts=(self.min_start, self.max_start), epochs=self.expert_epochs)

    def _batch(self, synthetic: Images, segment: Segment) -> tuple[Tensor, Tensor]:
        """What the network is trained on."""
        x, y = synthetic()
        return x, y

    def _training(self, n: int, device: torch.device) -> Training:
        """The inner loop with its order and augmentation drawn."""
        augment = None if self.augment is None else DsaTrain(self.augment)
        return Training.planned(
            self._passes, n, self.inner_steps, self.generator, batch=self.batch, augment=augment, device=device
        )

    @cached_property
    def _passes(self) -> Passes:
        return Passes(self.net, self.precision, self.compiled)


def distance(last: Tensor, segment: Segment) -> Tensor:
    """|theta_N - target|^2 / |start - target|^2, a scalar (eq. 2)."""
    return (last - segment.target).square().sum() / (segment.start - segment.target).square().sum()


def step_size(synthetic: Images | Graph) -> Tensor:
    """The learned step size of a synthetic set.

    Raises:
        ValueError: If it has none.
    """
    if synthetic.step_size is None:
        raise ValueError(
            "Trajectory matching trains with the set's own step size; start the images with step_size=0.01."
        )
    return synthetic.step_size
