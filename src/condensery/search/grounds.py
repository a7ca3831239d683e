"""Grounds: what a configuration is tried on. The same search runs on real data and on condensed data.

A ground is a function ``(configuration, report) -> score``: it trains a network on a training set as the configuration
says and scores it on a validation set. A search sees nothing else of it, so that any search that maximises a function
can be used. The test set is no part of a ground.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from condensery.search.settings import Config

Report = Callable[[int, float], None]
"""Told of a look at validation on the way, ``(number of the look, score)``; may raise to end the trial."""


class Ground(Protocol):
    """What a search maximises."""

    def __call__(self, config: Config, report: Report | None = None) -> float:
        """The score of a configuration.

        Raises:
            Infeasible: If the configuration makes nothing that could be trained.
        """


class Fitted(NamedTuple):
    """A network trained by a configuration.

    Attributes:
        validation: Its validation accuracy.
        seconds: Time to train and validate it.
        test: Reads the test set, once for each call.
    """

    validation: float
    seconds: float
    test: Callable[[], float]
