"""Convexified experts: MCT's trajectories, at any real epoch and in a small part of the size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condensery.data.graphs import GraphData
from condensery.data.labelled import Labelled
from condensery.experts.files import Manifest, Stored
from condensery.experts.origin import check_origin
from condensery.experts.segment import Segment, Trajectories, check_size, draw
from condensery.experts.waypoints import Curve
from condensery.net import Net


class Convexified(Stored):
    """Convexified trajectories in a folder (see `Waypoints`); from `open_experts`, `record` or `convexify`.

    Attributes:
        folder: Where they are.
        manifest: What is there.
    """

    def __init__(self, folder: Path, manifest: Manifest, count: int) -> None:
        super().__init__(folder, manifest, count)
        pieces = manifest.points - 1
        self._curves = [
            Curve(rows, [file.get_tensor(f"tree.beta.{i}").clone() for i in range(pieces)], manifest.sizes)
            for file, rows in zip(self._files, self._rows, strict=True)
        ]

    def point(self, expert: int, t: float) -> Tensor:
        """The expert's parameters ``[p]`` at the real epoch `t`, 0 to K."""
        return self._curves[expert].at(t).to(self.device)

    def sample(
        self, generator: torch.Generator, *, starts: tuple[float, float], epochs: int, continuous: bool = False
    ) -> Segment:
        """Draw an expert, then a start in ``[starts[0], starts[1])``; arguments and errors as `sample_curve`'s."""
        return sample_curve(generator, self, starts, epochs, continuous)

    def last(self, expert: int) -> Tensor:
        """The expert's last parameters ``[p]``."""
        return self.point(expert, self.epochs)


@dataclass(frozen=True, eq=False)
class HeldConvexified:
    """Convexified trajectories in memory.

    Args:
        curves: One for each expert, as long as one another (`Waypoints.curve`).
        origin: What produced them, if that is to be checked.
    """

    curves: Sequence[Curve]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.curves or any(c.positions != self.curves[0].positions for c in self.curves):
            raise ValueError("Convexified trajectories have the same waypoints; convexify them with the same settings.")

    def __len__(self) -> int:
        """Number of experts."""
        return len(self.curves)

    @property
    def epochs(self) -> int:
        """K: the ways go from 0 to K."""
        return self.curves[0].positions[-1]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.curves[0].points[0])

    @property
    def nbytes(self) -> int:
        """Bytes of waypoints and betas."""
        return sum(c.points.nbytes + sum(beta.nbytes for beta in c.betas) for c in self.curves)

    @property
    def device(self) -> torch.device:
        """Where the waypoints are."""
        return self.curves[0].points.device

    def point(self, expert: int, t: float) -> Tensor:
        """The expert's parameters ``[p]`` at the real epoch `t`, 0 to K."""
        return self.curves[expert].at(t)

    def sample(
        self, generator: torch.Generator, *, starts: tuple[float, float], epochs: int, continuous: bool = False
    ) -> Segment:
        """Draw an expert, then a start in ``[starts[0], starts[1])``; arguments and errors as `sample_curve`'s."""
        return sample_curve(generator, self, starts, epochs, continuous)

    def last(self, expert: int) -> Tensor:
        """The expert's last parameters ``[p]``."""
        return self.point(expert, self.epochs)

    def to(self, device: torch.device | str) -> HeldConvexified:
        """The same on another device."""
        return HeldConvexified(
            [Curve(c.points.to(device), c.betas, c.sizes.tolist()) for c in self.curves], self.origin
        )

    def check(self, net: Net, data: Labelled | GraphData, *, name: str = "") -> None:
        """Refuse a network or data that the experts were not trained with, as far as it is known.

        Raises:
            ValueError: Naming the first field that differs.
        """
        check_size("These trajectories", self.size, net)
        check_origin("These trajectories", self.origin, net, data, name=name)


def sample_curve(
    generator: torch.Generator,
    curves: Convexified | HeldConvexified,
    starts: tuple[float, float],
    epochs: int,
    continuous: bool,
) -> Segment:
    """Draw an expert, then a start: MCT's continuous sampling, or MTT's draws.

    Args:
        generator: A CPU generator.
        curves: The experts.
        starts: The range of starts.
        epochs: Epochs from the start to the target.
        continuous: Whether the start is real, uniform over the range; its target is then at most the last point, as
            in the authors' code. Otherwise it is whole, and drawn as `Held.sample` draws it.

    Raises:
        ValueError: If the range is empty or reaches past the last point.
    """
    if continuous:
        expert, start = _draw_real(generator, curves, starts, epochs)
    else:
        expert, start = draw(generator, curves, starts, epochs)
    end = min(start + epochs, curves.epochs)
    return Segment(curves.point(expert, start), curves.point(expert, end), float(start), expert)


def _draw_real(
    generator: torch.Generator, trajectories: Trajectories, starts: tuple[float, float], epochs: int
) -> tuple[int, float]:
    low, high = float(starts[0]), float(starts[1])
    if epochs < 1 or not 0 <= low < high <= trajectories.epochs:
        raise ValueError(
            f"No start can be drawn between {starts[0]} and {starts[1]} with {epochs} expert epochs on trajectories of "
            f"{trajectories.epochs} epochs; give 0 <= start < end <= {trajectories.epochs} and at least one epoch."
        )
    expert = int(torch.randint(len(trajectories), (), generator=generator))
    return expert, low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
