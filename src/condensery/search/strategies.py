"""Strategies that need no further library: all of a grid, and random configurations."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from condensery.search.settings import Config, Settings
from condensery.search.trials import key


class Grid:
    """All combinations, at most `levels` values of each range.

    Args:
        space: What is searched.
        levels: Values of a range.

    Example:
        >>> from condensery.search import Int
        >>> grid = Grid(Settings({"net.width": Int(4, 12, step=4)}))
        >>> [grid.ask() for _ in range(4)]
        [{'net.width': 4}, {'net.width': 8}, {'net.width': 12}, None]
    """

    def __init__(self, space: Settings, *, levels: int = 5) -> None:
        self._left: Iterator[Config] = space.grid(levels=levels)

    def ask(self) -> Config | None:
        """The next one, or ``None`` after the last."""
        return next(self._left, None)

    def tell(self, config: Config, score: float | None) -> None:
        """Changes nothing."""


class Random:
    """Configurations at random, each once.

    Args:
        space: What is searched.
        generator: A CPU generator.
        patience: After so many draws that were tried before there is none left.
    """

    def __init__(self, space: Settings, generator: torch.Generator, *, patience: int = 1000) -> None:
        self.space, self.generator, self.patience = space, generator, patience
        self._before: set[str] = set()

    def ask(self) -> Config | None:
        """A configuration that was not asked for before, or ``None`` if none is found."""
        for _ in range(self.patience):
            config = self.space.draw(self.generator)
            if key(config) not in self._before:
                self._before.add(key(config))
                return config
        return None

    def tell(self, config: Config, score: float | None) -> None:
        """Changes nothing."""
