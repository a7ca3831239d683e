"""A pool of partly trained networks, as FRePo and RCIG draw theirs from."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.lean import Lean
from condensery.net import Net

State = dict[str, Any]


class PoolStep(Protocol):
    """How a network in the pool is trained: one step of ordinary training."""

    def start(self, theta: Tensor) -> State:
        """What the optimizer keeps for a fresh network: tensors and plain values."""

    def __call__(self, net: Net, theta: Tensor, state: State, batch: Batch) -> tuple[Tensor, State]:
        """The parameters ``[net.size]`` and the optimizer's state after a step on `batch`."""


@dataclass(frozen=True)
class AdamMse:
    """Adam on half the squared error of the labels, mean over examples and summed over classes.

    Args:
        lr: Learning rate: FRePo has 3e-4, RCIG 5e-5.
        betas: Adam's.
        eps: Adam's.
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def start(self, theta: Tensor) -> State:
        """Zero moments."""
        return {"mean": torch.zeros_like(theta), "square": torch.zeros_like(theta), "steps": 0}

    @torch.no_grad()
    def __call__(self, net: Net, theta: Tensor, state: State, batch: Batch) -> tuple[Tensor, State]:
        """See `PoolStep`."""
        (beta1, beta2), t = self.betas, state["steps"] + 1
        g = _gradient(net, theta, batch)
        mean = beta1 * state["mean"] + (1 - beta1) * g
        square = beta2 * state["square"] + (1 - beta2) * g.square()
        change = (mean / (1 - beta1**t)) / ((square / (1 - beta2**t)).sqrt() + self.eps)
        return theta - self.lr * change, {"mean": mean, "square": square, "steps": t}


@dataclass
class ModelPool:
    """Networks at different stages of training on the synthetic set (Zhou et al. 2022, FRePo; Loo et al. 2023, RCIG).

    `draw` gives one of them, chosen uniformly. The one that was drawn before is trained at the *start* of the next
    draw, so that it sees the set as it has become, and starts anew once it has made `life` steps.

    Args:
        size: m, networks in the pool (FRePo: 10, RCIG: 30).
        life: K, steps after which one starts anew (100).
        steps: At most how many steps a drawn network makes, their number drawn from 1 to this (FRePo: 1; RCIG's code:
            15, although its paper says 1).
        staggered: Spread the ages at which the first networks begin to be counted over a life, so that they do not all
            start anew together (FRePo); they are untrained nevertheless.
        step: How they are trained.
        batch_size: Train on this many examples, drawn for each step, instead of the whole set if it is larger (FRePo:
            1000).
    """

    _: KW_ONLY
    size: int = 10
    life: int = 100
    steps: int = 1
    staggered: bool = True
    step: PoolStep = field(default_factory=AdamMse)
    batch_size: int | None = None
    _thetas: Tensor | None = field(default=None, init=False, repr=False)
    _states: list[State] = field(default_factory=list, init=False, repr=False)
    _ages: list[int] = field(default_factory=list, init=False, repr=False)
    _last: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("size", "life", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of the pool is {value}; give 1 or more.")

    @property
    def ages(self) -> list[int]:
        """Steps that each network has been counted, ``size`` of them; empty before the first draw."""
        return list(self._ages)

    @property
    def last(self) -> int | None:
        """Which network was drawn last."""
        return self._last

    def draw(self, net: Net, batch: Batch, generator: torch.Generator) -> Tensor:
        """Train the network of the draw before, and choose one.

        Args:
            net: The architecture.
            batch: The synthetic set as it is now; its labels are rows ``[n, C]``. Parameters live on their device and
                have their precision.
            generator: A CPU generator for fresh networks, numbers of steps, mini-batches and the choice.

        Returns:
            Parameters ``[net.size]``, the caller's own.

        Raises:
            ValueError: If the labels are class indices, or a restored pool is of another architecture.
        """
        if not batch.y.is_floating_point():
            raise ValueError(
                "The pool's networks learn rows of labels; give labels [n, classes], one-hot for instance."
            )
        batch = Batch(batch.x.detach() if isinstance(batch.x, Tensor) else batch.x, batch.y.detach())
        thetas = self._prepare(net, batch.y, generator)
        if self._last is not None:
            self._advance(net, thetas, self._last, batch, generator)
        self._last = int(torch.randint(self.size, (), generator=generator))
        return thetas[self._last].clone()

    def state_dict(self) -> dict[str, Any]:
        """All networks, their optimizers and ages."""
        thetas = None if self._thetas is None else self._thetas.clone()
        return {"thetas": thetas, "states": list(self._states), "ages": list(self._ages), "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: If it is of a pool of another size.
        """
        thetas = state["thetas"]
        if thetas is not None and len(thetas) != self.size:
            raise ValueError(
                f"The state is of a pool of {len(thetas)} networks, this one has {self.size}; give as many."
            )
        self._thetas = None if thetas is None else thetas.clone()
        self._states, self._ages, self._last = list(state["states"]), list(state["ages"]), state["last"]

    def _prepare(self, net: Net, like: Tensor, generator: torch.Generator) -> Tensor:
        """The networks, made at the first draw and brought to the device of the labels."""
        if self._thetas is None:
            self._thetas = torch.stack([net.init(generator).to(like) for _ in range(self.size)])
            self._states = [self.step.start(theta) for theta in self._thetas]
            self._ages = [i * self.life // self.size if self.staggered else 0 for i in range(self.size)]
        if self._thetas.shape[1] != net.size:
            raise ValueError(
                f"The pool's networks have {self._thetas.shape[1]} parameters, this one {net.size}; give the "
                "architecture that the pool was made for."
            )
        if self._thetas.device != like.device:
            self._thetas = self._thetas.to(like.device)
            self._states = [_moved(state, like.device) for state in self._states]
        return self._thetas

    def _advance(self, net: Net, thetas: Tensor, i: int, batch: Batch, generator: torch.Generator) -> None:
        """Train network i by some steps, or replace it by a fresh one at the end of its life."""
        theta, state = thetas[i], self._states[i]
        count = 1 if self.steps == 1 else int(torch.randint(1, self.steps + 1, (), generator=generator))
        for _ in range(count):
            theta, state = self.step(net, theta, state, self._part(batch, generator))
        age = self._ages[i] + count
        if age >= self.life:
            theta, age = net.init(generator).to(thetas), 0
            state = self.step.start(theta)
        thetas[i] = theta
        self._states[i], self._ages[i] = state, age

    def _part(self, batch: Batch, generator: torch.Generator) -> Batch:
        n = len(batch.y)
        if self.batch_size is None or n <= self.batch_size:
            return batch
        index = torch.randperm(n, generator=generator)[: self.batch_size].to(batch.y.device, non_blocking=True)
        return Batch(batch.x[index], batch.y[index])


def _gradient(net: Net, theta: Tensor, batch: Batch) -> Tensor:
    """Gradient ``[net.size]`` of the mean over examples of half the squared error, in pieces that suit the device."""
    leaf, n = theta.detach().requires_grad_(), len(batch.y)
    whole = net.has_batch_norm or not isinstance(batch.x, Tensor)
    images = net.arranged(batch.x)
    count = 1 if whole else -(-n // net.chunk(images))
    pieces = [(images, batch.y)] if whole else zip(images.tensor_split(count), batch.y.tensor_split(count), strict=True)
    total = torch.zeros_like(theta)
    for x, y in pieces:
        with torch.enable_grad(), Lean():
            loss = 0.5 * (net(leaf, x) - y).square().sum() / n
        total += torch.autograd.grad(loss, leaf)[0]
    return total


def _moved(state: State, device: torch.device) -> State:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in state.items()}
