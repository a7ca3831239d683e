"""Ordinary training of a network by a recipe: for evaluation, for experts and for proxies."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.batch import Batch
from condensery.net import Net


class Source(Protocol):
    """Training data by index: a `Labelled` split, or a `Batch` through `Held`."""

    def __len__(self) -> int:
        """Number of examples."""

    def batch(self, index: Tensor) -> Batch:
        """Some of the examples."""


class Augment(Protocol):
    """A random change of training images, new at every step."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Images ``[n, c, h, w]`` changed."""


@dataclass(frozen=True)
class Held:
    """A batch as a `Source`.

    Example:
        >>> len(Held(Batch(torch.zeros(5, 1, 2, 2), torch.zeros(5, dtype=torch.long))))
        5
    """

    data: Batch

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.data.y)

    def batch(self, index: Tensor) -> Batch:
        """The examples at int64 `index`."""
        index = index.to(self.data.y.device, non_blocking=True)
        return Batch(self.data.x[index], self.data.y[index])


# --- how the weights move
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum; the defaults are the DC family's evaluation."""

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a module's parameters."""
        return torch.optim.SGD(
            module.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            fused=_fusible(module),
        )


@dataclass(frozen=True)
class Adam:
    """Adam; the defaults are FRePo's evaluation."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a module's parameters."""
        return torch.optim.Adam(
            module.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=_fusible(module)
        )


@dataclass(frozen=True)
class Constant:
    """The learning rate stays."""

    def factor(self, step: int, total: int) -> float:
        """What the base learning rate is multiplied by at `step` of `total`, both counted from 0."""
        return 1.0

    def restarts(self, step: int, total: int) -> bool:
        """Whether the optimizer starts afresh (its momentum forgotten) before `step`."""
        return False


@dataclass(frozen=True)
class Drop:
    """Multiply the learning rate by `by` after a share `at` of the steps, as the DC and MTT evaluations do.

    Args:
        at: Share of the steps before the drop.
        by: The factor.
        restart: Whether momentum is forgotten at the drop (the published code builds a new optimizer there).

    Example:
        >>> [Drop().factor(s, 4) for s in range(4)]
        [1.0, 1.0, 0.1, 0.1]
    """

    at: float = 0.5
    by: float = 0.1
    restart: bool = True

    def factor(self, step: int, total: int) -> float:
        """1 before the drop, `by` from it on."""
        return self.by if step >= self.at * total else 1.0

    def restarts(self, step: int, total: int) -> bool:
        """At the first step with the lower rate."""
        return self.restart and step == math.ceil(self.at * total)


@dataclass(frozen=True)
class WarmupCosine:
    """A linear warm-up, then a half cosine down to a share of the peak: the FRePo and RCIG evaluation.

    Args:
        warmup: Steps of the warm-up; at most half of all steps are used for it.
        final: Share of the peak at the end.
    """

    warmup: int = 500
    final: float = 0.01

    def factor(self, step: int, total: int) -> float:
        """The share of the peak at `step`."""
        warmup = min(self.warmup, total // 2)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))

    def restarts(self, step: int, total: int) -> bool:
        """Never."""
        return False


# --- what is minimised
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy with hard labels int64 ``[n]`` or probability rows ``[n, C]``."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each example, ``[n]``."""
        return F.cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True)
class SquaredError:
    """Half the squared error, summed over classes, against rows ``[n, C]``; hard labels become centred one-hot rows.

    FRePo and RCIG train this way: the target of class c is ``onehot(c) - 1/C``.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each example, ``[n]``."""
        target = y if y.is_floating_point() else F.one_hot(y, logits.shape[1]).to(logits) - 1 / logits.shape[1]
        return 0.5 * (logits - target).square().sum(1)


# --- the recipe
# -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a set.

    Args:
        epochs: Passes over the set, or
        steps: optimizer steps in all (the last pass may be cut short); when given, `epochs` does not count.
        batch_size: Examples in a step; the order is drawn anew for each pass.
        optimizer: How the weights move.
        schedule: How the learning rate does.
        loss: What is minimised, averaged over the step's examples.
        augment: Random change of the examples, or ``None``.

    Example:
        >>> Recipe(epochs=10, batch_size=4).total_steps(10)
        30
    """

    epochs: int = 1000
    steps: int | None = None
    batch_size: int = 256
    optimizer: Sgd | Adam = field(default_factory=Sgd)
    schedule: Constant | Drop | WarmupCosine = field(default_factory=Drop)
    loss: CrossEntropy | SquaredError = field(default_factory=CrossEntropy)
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.epochs < 0 or (self.steps is not None and self.steps < 0):
            raise ValueError("A recipe needs a batch size of at least 1 and a number of epochs or steps of at least 0.")

    def total_steps(self, n: int) -> int:
        """Optimizer steps on a set of `n` examples."""
        return self.steps if self.steps is not None else self.epochs * -(-n // self.batch_size)

    def without_augmentation(self) -> Recipe:
        """The same recipe on the images as they are."""
        return dataclasses.replace(self, augment=None)

    def scaled(self, share: float) -> Recipe:
        """The same recipe with a share of the steps, at least one.

        Example:
            >>> Recipe(epochs=1000).scaled(0.1).epochs
            100
        """
        if not share > 0:
            raise ValueError(f"A recipe cannot be scaled by {share}; give a positive share.")
        steps = None if self.steps is None else max(1, round(share * self.steps))
        return dataclasses.replace(self, epochs=max(1, round(share * self.epochs)), steps=steps)

    def with_lr(self, lr: float) -> Recipe:
        """The same recipe with another base learning rate, for instance a learned step size."""
        return dataclasses.replace(self, optimizer=dataclasses.replace(self.optimizer, lr=lr))


@dataclass(frozen=True)
class Execution:
    """How the arithmetic is done, which changes the time and, but for rounding, not the result.

    Args:
        autocast: Lower precision for the forward pass (``torch.bfloat16``), or ``None``.
        channels_last: Memory order of images; pays with `autocast` and no or batch normalisation.
        chunked: Whether a step's batch goes through the network in pieces of a size that suits a CPU (`Net.chunk`).
        compiled: Whether the network is compiled with ``torch.compile``: tens of seconds once, then faster steps.
    """

    autocast: torch.dtype | None = None
    channels_last: bool = False
    chunked: bool = True
    compiled: bool = False


@dataclass
class Trained:
    """A network in training, or trained.

    Attributes:
        net: The template.
        module: The trained module, in evaluation mode between passes.
        epoch: Passes done.
        images: Training examples seen, counted with repetition.
        seconds: Time spent in training.
    """

    net: Net
    module: nn.Module
    execution: Execution = field(default_factory=Execution)
    epoch: int = 0
    images: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        # The same parameters behind both; compiled code keeps less in flight, so its pieces are larger.
        self.run = torch.compile(self.module, dynamic=False) if self.execution.compiled else self.module

    def piece(self, x: Tensor) -> int:
        """How many examples go through the network at a time where they do not influence each other."""
        if not self.execution.chunked:
            return max(1, len(x))
        return self.net.chunk(x) * (4 if self.execution.compiled else 1)

    @property
    def images_per_second(self) -> float:
        """Training examples a second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def theta(self) -> Tensor:
        """The parameters as one flat vector ``[size]``, a copy."""
        return torch.cat([p.detach().reshape(-1) for p in self.module.parameters()])

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits ``[n, C]`` in evaluation mode."""
        self.module.eval()
        with _autocast(x.device, self.execution.autocast):
            parts = torch.split(x, self.piece(x))
            return torch.cat([self.run(_arrange(part, self.execution)).float() for part in parts])


def training(
    net: Net,
    data: Batch | Source,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    theta: Tensor | None = None,
    execution: Execution | None = None,
) -> Iterator[Trained]:
    """Train, handing over the network after each pass (the same object, further trained).

    Args:
        net: The architecture.
        data: What to train on: a batch, or a split.
        recipe: How.
        generator: A CPU generator for the initialisation, the order and the augmentation.
        theta: Initial parameters ``[size]``; default: drawn.
        execution: How the arithmetic is done.

    Yields:
        The network after each pass, and once, untrained, if the recipe has no step.
    """
    source: Source = Held(data) if isinstance(data, Batch) else data
    if len(source) == 0:
        raise ValueError("There is nothing to train on; give at least one example.")
    device = source.batch(torch.zeros(1, dtype=torch.int64)).y.device
    theta = net.init(generator) if theta is None else theta
    execution = execution or Execution()
    module = net.at(theta.to(device))
    if execution.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = Trained(net, module, execution)
    total, done = recipe.total_steps(len(source)), 0
    optimizer = recipe.optimizer.build(module)
    if total == 0:
        yield trained
    while done < total:
        start = time.perf_counter()
        module.train()
        order = torch.randperm(len(source), generator=generator)
        for index in order.split(recipe.batch_size)[: total - done]:
            if recipe.schedule.restarts(done, total):
                optimizer = recipe.optimizer.build(module)
            for group in optimizer.param_groups:
                group["lr"] = recipe.optimizer.lr * recipe.schedule.factor(done, total)
            trained.images += _step(trained, optimizer, source.batch(index), recipe, generator)
            done += 1
        trained.epoch += 1
        if done == total and device.type != "cpu":
            torch.accelerator.synchronize(device)  # so that the last reading of the clock counts work done, not queued
        trained.seconds += time.perf_counter() - start
        module.eval()
        yield trained


def fit(
    net: Net,
    data: Batch | Source,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    theta: Tensor | None = None,
    execution: Execution | None = None,
) -> Trained:
    """Train to the end; arguments as `training`'s.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(20, 4, generator=g), torch.arange(20) % 2
        >>> x[:, 0] += 4.0 * y
        >>> net = Net(nn.Linear(4, 2))
        >>> trained = fit(net, Batch(x, y), Recipe(epochs=50), g)
        >>> accuracy(trained, Held(Batch(x, y))) > 0.9
        True
    """
    *_, last = training(net, data, recipe, generator, theta=theta, execution=execution)
    return last


def accuracy(predict: Callable[[Tensor], Tensor], data: Source, *, batch_size: int = 2048) -> float:
    """Share of examples whose largest logit is their class's (hard labels, or rows whose largest entry counts)."""
    if len(data) == 0:
        raise ValueError("There are no examples to measure the accuracy on; give a split that is not empty.")
    right: list[Tensor] = []
    for index in torch.arange(len(data)).split(batch_size):
        x, y = data.batch(index)
        truth = y.argmax(1) if y.is_floating_point() else y
        right.append((predict(x).argmax(1) == truth).sum())
    return int(torch.stack(right).sum()) / len(data)


def _step(
    trained: Trained, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, generator: torch.Generator
) -> int:
    """One optimizer step; the batch goes through in pieces whose gradients add up to the whole one's."""
    x, y = batch.x.detach(), batch.y.detach()  # training on a synthetic set does not differentiate it
    if recipe.augment is not None:
        x = recipe.augment(x, generator)
    count = 1 if trained.net.has_batch_norm else -(-len(y) // trained.piece(x))
    optimizer.zero_grad(set_to_none=True)
    for px, py in zip(x.tensor_split(count), y.tensor_split(count), strict=True):
        # Enabled here because training is often asked for where nothing else is differentiated.
        with torch.enable_grad():
            with _autocast(x.device, trained.execution.autocast):
                logits = trained.run(_arrange(px, trained.execution))
            loss = recipe.loss(logits.float() if logits.dtype == torch.bfloat16 else logits, py).sum() / len(y)
        loss.backward()
    optimizer.step()
    return len(y)


def _arrange(x: Tensor, execution: Execution) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if execution.channels_last and x.dim() == 4 else x


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def _fusible(module: nn.Module) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in module.parameters())
