"""What trajectory matching draws: a piece of an expert's way, from a start to a target some epochs later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from condensery.data.graphs import GraphData
from condensery.data.labelled import Labelled
from condensery.experts.origin import check_origin
from condensery.net import Net


class Segment(NamedTuple):
    """A piece of an expert's trajectory.

    Attributes:
        start: Parameters ``[p]`` where the student starts.
        target: Parameters ``[p]`` where it should arrive.
        at: Epoch of the start.
        expert: Which expert.
    """

    start: Tensor
    target: Tensor
    at: float
    expert: int


class Trajectories(Protocol):
    """The trajectories of several experts: in memory, on disk, or convexified."""

    def __len__(self) -> int:
        """Number of experts."""

    @property
    def epochs(self) -> int:
        """K: the points 0 to K of every trajectory are there."""

    @property
    def size(self) -> int:
        """Number of parameters p."""

    @property
    def nbytes(self) -> int:
        """Bytes that the trajectories take, on disk or in memory."""

    @property
    def device(self) -> torch.device:
        """Where drawn segments are."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """What produced them (`origin_of`); empty where nobody knows."""

    def sample(self, generator: torch.Generator, *, starts: tuple[float, float], epochs: int) -> Segment:
        """Draw an expert, then a start in ``[starts[0], starts[1])``; the target is `epochs` later."""

    def last(self, expert: int) -> Tensor:
        """The expert's last parameters ``[p]``."""

    def to(self, device: torch.device | str) -> Trajectories:
        """The same with segments on another device."""

    def check(self, net: Net, data: Labelled | GraphData, *, name: str = "") -> None:
        """Refuse a network or data that the experts were not trained with."""


@dataclass(frozen=True, eq=False)
class Held:
    """Trajectories in memory, on any device: for small work and for tests.

    Args:
        thetas: Parameters ``[experts, K + 1, p]``, of each expert at the start and after each epoch.
        origin: What produced them, if that is to be checked.

    Example:
        >>> held = Held(torch.arange(6.0).view(1, 3, 2))
        >>> held.sample(torch.Generator().manual_seed(0), starts=(1, 2), epochs=1)
        Segment(start=tensor([2., 3.]), target=tensor([4., 5.]), at=1.0, expert=0)
    """

    thetas: Tensor
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.thetas.ndim != 3 or 0 in self.thetas.shape:
            raise ValueError(
                f"Trajectories have the shape [experts, epochs + 1, parameters], not {tuple(self.thetas.shape)}; "
                "stack what record_expert returns."
            )

    def __len__(self) -> int:
        """Number of experts."""
        return len(self.thetas)

    @property
    def epochs(self) -> int:
        """K: the points 0 to K of every trajectory are there."""
        return self.thetas.shape[1] - 1

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.thetas.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.thetas.nbytes

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self.thetas.device

    def sample(self, generator: torch.Generator, *, starts: tuple[float, float], epochs: int) -> Segment:
        """Draw an expert, then a whole start of at least ``starts[0]`` and below ``starts[1]``.

        Args:
            generator: A CPU generator.
            starts: The range of starts; its end is not drawn, as in MTT.
            epochs: Epochs from the start to the target.

        Raises:
            ValueError: If the range is empty or reaches past the last point.
        """
        expert, start = draw(generator, self, starts, epochs)
        way = self.thetas[expert]
        return Segment(way[start], way[start + epochs], float(start), expert)

    def last(self, expert: int) -> Tensor:
        """The expert's last parameters ``[p]``."""
        return self.thetas[expert, -1]

    def trajectory(self, expert: int) -> Tensor:
        """All points of one expert, ``[K + 1, p]``."""
        return self.thetas[expert]

    def to(self, device: torch.device | str) -> Held:
        """The same on another device."""
        return replace(self, thetas=self.thetas.to(device))

    def check(self, net: Net, data: Labelled | GraphData, *, name: str = "") -> None:
        """Refuse a network or data that the experts were not trained with, as far as it is known.

        Raises:
            ValueError: Naming the first field that differs.
        """
        check_size("These trajectories", self.size, net)
        check_origin("These trajectories", self.origin, net, data, name=name)


def draw(
    generator: torch.Generator, trajectories: Trajectories, starts: tuple[float, float], epochs: int
) -> tuple[int, int]:
    """An expert and a whole start, in this order: the two draws of MTT.

    Raises:
        ValueError: If the range is empty or reaches past the last point.
    """
    low, high = int(starts[0]), int(starts[1])
    if epochs < 1 or not 0 <= low < high:
        raise ValueError(
            f"No start can be drawn from {starts[0]} up to but not including {starts[1]} with {epochs} expert epochs; "
            "give whole numbers 0 <= start < end and at least one epoch."
        )
    if high - 1 + epochs > trajectories.epochs:
        raise ValueError(
            f"Starts below {high} and {epochs} expert epochs reach epoch {high - 1 + epochs}, but the trajectories end "
            f"at {trajectories.epochs}; lower max_start or expert_epochs, or record longer experts."
        )
    expert = int(torch.randint(len(trajectories), (), generator=generator))
    return expert, int(torch.randint(low, high, (), generator=generator))


def check_size(what: str, size: int, net: Net) -> None:
    """Refuse a network with another number of parameters.

    Raises:
        ValueError: With both numbers.
    """
    if size != net.size:
        raise ValueError(
            f"{what} are of networks with {size} parameters, this network has {net.size}; use the network that they "
            "were recorded with, or record experts of this one."
        )
