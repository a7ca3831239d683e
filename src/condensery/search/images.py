"""Images as a ground: networks and their training by a configuration, on real or condensed images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from condensery import nets
from condensery.fitting import CrossEntropy, Execution, Recipe, Source, Trained, accuracy, training
from condensery.net import Net
from condensery.recipes import Evaluation
from condensery.recipes.tuning import tuned
from condensery.search.family import Family
from condensery.search.grounds import Fitted, Report
from condensery.search.settings import Config, Value

Measure = Callable[[Trained, Source], float]
"""A score of a trained network on a set, larger is better."""


def likelihood(trained: Trained, data: Source, *, batch_size: int = 2048) -> float:
    """Minus the cross-entropy on a set: a score without the steps that accuracy has on few examples.

    Labels are classes or probability rows. The ranking of HCDC is that of the validation loss.
    """
    if len(data) == 0:
        raise ValueError("There are no examples to score on; give a split that is not empty.")
    total = 0.0
    for index in torch.arange(len(data)).split(batch_size):
        x, y = data.batch(index)
        total += float(CrossEntropy()(trained(x), y).sum())
    return -total / len(data)


_PASSES = "a pass over a condensed set is not one over the real data"


@dataclass(frozen=True)
class ImageFamily(Family):
    """What the settings of a configuration mean for images: see `Family`; ``eval.NAME`` is a field of
    `recipes.Evaluation`.

    Args:
        network: With ``channels``, ``classes`` and ``size``.
    """

    zoo = nets.VISION
    given = ("channels", "classes", "size")
    trained = Evaluation
    lengths = {"epochs": _PASSES, "steps": _PASSES}  # noqa: RUF012  # a class variable of Family

    def recipe(self, config: Mapping[str, Value], base: Recipe) -> Recipe:
        """A recipe with the configuration's settings.

        Raises:
            ValueError: If there is no such setting, or its value makes no sense.
        """
        return tuned(base, {k.removeprefix("eval."): v for k, v in config.items() if k.startswith("eval.")})


@dataclass(frozen=True)
class ImageGround:
    """Images to train on and images to score on, real or condensed.

    Args:
        family: What settings mean.
        train: What networks are trained on.
        validation: What they are scored on.
        recipe: How they are trained, but for the settings of a configuration.
        seeds: One for each network of a trial; the score is the mean. All configurations have the same seeds.
        measure: The score.
        looks: Looks at validation in each training that are reported, for pruners.
        execution: How the arithmetic is done.

    Raises:
        ValueError: If there is no seed.
    """

    family: ImageFamily
    train: Source
    validation: Source
    recipe: Recipe
    seeds: tuple[int, ...] = (0,)
    measure: Measure = accuracy
    looks: int = 0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if not self.seeds or self.looks < 0:
            raise ValueError("A trial needs at least one seed, and looks of at least 0; give such.")

    def __call__(self, config: Config, report: Report | None = None) -> float:
        """See `Ground`."""
        found = []
        for turn, seed in enumerate(self.seeds):
            trained = self.trained(config, seed, _after(report, turn * self.looks))
            found.append(self.measure(trained, self.validation))
        return sum(found) / len(found)

    def fit(self, config: Config, seed: int, test: Source) -> Fitted:
        """Train one network, to be tested later or never."""
        start = time.perf_counter()
        trained = self.trained(config, seed)
        found = accuracy(trained, self.validation)
        return Fitted(found, time.perf_counter() - start, lambda: accuracy(trained, test))

    def trained(self, config: Config, seed: int, report: Report | None = None) -> Trained:
        """A network trained by a configuration.

        Args:
            config: The configuration.
            seed: Of the network.
            report: Told of looks at validation on the way.
        """
        net = Net(self.family.module(config))
        recipe = self.family.recipe(config, self.recipe)
        generator = torch.Generator().manual_seed(seed)
        passes = -(-recipe.total_steps(len(self.train)) // max(1, -(-len(self.train) // recipe.batch_size)))
        looks = {round(passes * (k + 1) / (self.looks + 1)): k for k in range(self.looks if report else 0)}
        trained: Trained | None = None
        for trained in training(net, self.train, recipe, generator, execution=self.execution):
            if report is not None and trained.epoch in looks:
                report(looks[trained.epoch], self.measure(trained, self.validation))
        assert trained is not None  # training hands over at least the untrained network
        return trained


def _after(report: Report | None, before: int) -> Report | None:
    """Looks numbered on from those of earlier networks of the trial."""
    return None if report is None else lambda look, score: report(before + look, score)
