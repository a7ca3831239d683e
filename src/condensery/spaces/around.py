"""Hyperparameters of training that are put around another space: each adds its own in front of those inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.batch import Batch
from condensery.net import Net
from condensery.spaces.space import Box, Space, composite

__all__ = ["Around", "Blend", "LabelSmoothing", "LearningRate", "WeightDecay"]


@dataclass(frozen=True, eq=False)
class Around(ABC):
    """A space around another one: lambda is its own numbers, then those of the inner space.

    Validation is the inner space's: what is put around says how to train, not what is good. Each kind says what it
    changes in training: `examples`, `labels`, or the loss (`priced`).

    Args:
        inner: The space inside.
    """

    inner: Space

    @property
    @abstractmethod
    def box(self) -> Box:
        """Where its own numbers may lie."""

    def examples(self, own: Tensor, batch: Batch, generator: torch.Generator) -> Batch:
        """The training batch with its examples changed, if that is what the numbers `own` do."""
        return batch

    def labels(self, own: Tensor, batch: Batch) -> Batch:
        """The training batch with its labels changed, if that is what the numbers `own` do."""
        return batch

    def priced(self, own: Tensor, loss: Tensor, theta: Tensor) -> Tensor:
        """The inner training loss changed, if that is what `own` does; rising in it, and convex in it and theta."""
        return loss

    @final
    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The inner space's loss, with what is changed."""
        own, inner = self.split(lam)
        batch = self.labels(own, self.examples(own, batch, generator))
        return self.priced(own, self.inner.training(theta, inner, batch, generator), theta)

    @final
    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The inner space's, at the examples that training sees."""
        own, inner = self.split(lam)
        return composite(self.inner).outputs(theta, inner, self.examples(own, batch, generator), generator)

    @final
    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The inner space's, with what is changed."""
        own, inner = self.split(lam)
        loss = composite(self.inner).misfit(outputs, theta, inner, self.labels(own, batch))
        return self.priced(own, loss, theta)

    @property
    def size(self) -> int:
        """Numbers in all."""
        return self.box.size + self.inner.size

    def split(self, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Its own numbers, and those of the inner space; of rows ``[..., size]``."""
        return lam[..., : self.box.size], lam[..., self.box.size :]

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Fresh weights of the inner space."""
        return self.inner.init(generator, device=device)

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The inner space's."""
        return self.inner.validation(theta, self.split(lam)[1], batch, generator)

    def starts(self, generator: torch.Generator) -> Tensor:
        """The inner space's starts, each with numbers of its own drawn uniformly."""
        inner = self.inner.starts(generator)
        own = torch.stack([self.box.draw(generator) for _ in inner])
        return torch.cat([own, inner], 1)

    def project(self, lam: Tensor) -> Tensor:
        """Each part into its own place."""
        own, inner = self.split(lam)
        return torch.cat([self.box.project(own), self.inner.project(inner)])

    def tangent(self, gradient: Tensor) -> Tensor:
        """Each part along its own place."""
        own, inner = self.split(gradient)
        return torch.cat([own, self.inner.tangent(inner)], -1)


@dataclass(frozen=True, eq=False)
class WeightDecay(Around):
    """L2 regularisation on a logarithmic scale: ``+ 1/2 sum_b exp(lambda_b) |theta_b|^2`` over blocks b of the weights.

    Args:
        inner: The space inside.
        blocks: Weights of each block, in order: all of them, or one a layer (`WeightDecay.layers`).
        low: Least logarithm; the default is about that of 1e-5.
        high: Largest.

    Example:
        >>> from condensery.spaces import Plain
        >>> net = Net(torch.nn.Linear(2, 2))
        >>> WeightDecay.layers(Plain(net), net).blocks
        (6,)
    """

    blocks: Sequence[int]
    low: float = -11.5
    high: float = -2.3

    @classmethod
    def layers(cls, inner: Space, net: Net, **options: float) -> WeightDecay:
        """A number for each layer of a network: its weights and biases together."""
        sizes: dict[str, int] = {}
        for name, part in net.layers(torch.empty(net.size, device="meta")).items():
            layer = name.rpartition(".")[0]
            sizes[layer] = sizes.get(layer, 0) + part.numel()
        return cls(inner, tuple(sizes.values()), **options)

    @property
    def box(self) -> Box:
        """Of the logarithms."""
        return Box((self.low,) * len(self.blocks), (self.high,) * len(self.blocks))

    def priced(self, own: Tensor, loss: Tensor, theta: Tensor) -> Tensor:
        """The inner loss and the decay.

        Raises:
            ValueError: If the blocks do not add up to theta.
        """
        if sum(self.blocks) != len(theta):
            raise ValueError(
                f"Blocks of {list(self.blocks)} weights do not make {len(theta)}; give blocks that add up."
            )
        squares = torch.stack([part.square().sum() for part in theta.split(list(self.blocks))])
        return loss + 0.5 * (own.exp() @ squares)


@dataclass(frozen=True, eq=False)
class LabelSmoothing(Around):
    """Labels in training become ``(1 - s) y + s / C`` (Szegedy et al., CVPR 2016), with s the hyperparameter.

    Args:
        inner: The space inside.
        classes: C.
        high: Largest s.
    """

    classes: int
    high: float = 0.5

    @property
    def box(self) -> Box:
        """Of s."""
        return Box((0.0,), (self.high,))

    def labels(self, own: Tensor, batch: Batch) -> Batch:
        """Smoothed labels; those of -1 still do not count."""
        y = batch.y
        if not y.is_floating_point():
            y = F.one_hot(y.clamp(min=0), self.classes).to(own) * (y >= 0)[:, None]
        counted = (y != 0).any(1, keepdim=True)
        return Batch(batch.x, torch.where(counted, (1 - own) * y + own / self.classes, 0.0))


@dataclass(frozen=True, eq=False)
class Blend(Around):
    """Examples in training become ``x + s (A(x) - x)``, with A a random augmentation at full strength and s its share.

    For changes that are linear in their strength, as brightness, contrast and noise are, s is that strength.

    Args:
        inner: The space inside.
        augment: A: ``(x, generator) -> x``, images ``[n, c, h, w]``.
        high: Largest s.
    """

    augment: Callable[[Tensor, torch.Generator], Tensor]
    high: float = 1.0

    @property
    def box(self) -> Box:
        """Of s."""
        return Box((0.0,), (self.high,))

    def examples(self, own: Tensor, batch: Batch, generator: torch.Generator) -> Batch:
        """Changed examples, one draw of A for each call."""
        return Batch(_mapped(batch.x, lambda x: x + own * (self.augment(x, generator) - x)), batch.y)


@dataclass(frozen=True, eq=False)
class LearningRate(Around):
    """The logarithm of a learning rate, as a factor exp(lambda) of the inner loss.

    Plain gradient descent with rate 1 on the product is descent with that rate on the inner loss. At a minimum the rate
    changes nothing, so the implicit function theorem gives it no gradient; `bilevel.Unrolled` does.

    Args:
        inner: The space inside.
        low: Least logarithm; the default is about that of 1e-3.
        high: Largest.
    """

    low: float = -6.9
    high: float = 0.0

    @property
    def box(self) -> Box:
        """Of the logarithm."""
        return Box((self.low,), (self.high,))

    def priced(self, own: Tensor, loss: Tensor, theta: Tensor) -> Tensor:
        """The inner loss times the rate."""
        return own.exp().squeeze() * loss


def _mapped(x: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The examples of a batch changed, whether they know their folds or not."""
    if isinstance(x, Tensor):
        return change(x)
    if hasattr(x, "examples"):
        return x._replace(examples=change(x.examples))
    raise ValueError(f"{type(x).__name__} cannot be augmented; give images.")
