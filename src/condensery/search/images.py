"""Images as a ground: networks and their training by a configuration, on real or condensed images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from condensery import nets
from condensery.fitting import CrossEntropy, Execution, Recipe, Source, Trained, accuracy, training
from condensery.net import Net
from condensery.recipes import Evaluation
from condensery.recipes import values as words
from condensery.recipes.tuning import tuned
from condensery.search.grounds import Fitted, Report
from condensery.search.settings import (
    Categorical,
    Cells,
    Config,
    Float,
    Infeasible,
    Int,
    Parameter,
    Settings,
    Value,
    When,
)

_LENGTH = ("epochs", "steps")

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


@dataclass(frozen=True)
class ImageFamily:
    """What the settings of a configuration mean for images.

    ``net`` is the network's class, ``net.NAME`` an argument of it, ``eval.NAME`` a setting of its training (a field
    of `recipes.Evaluation`).

    Args:
        network: The network that configurations are laid over, as `nets.describe` gives it, with ``channels``,
            ``classes`` and ``size``. Its other arguments count only where the class stays the same.
    """

    network: Mapping[str, Any]

    def typed(self, space: Settings) -> Settings:
        """A space whose settings all exist and have values of the right kind; words such as ``none`` are read.

        Raises:
            ValueError: In one sentence, for a setting that is not there or a value that does not fit.
        """
        kinds = self._kinds(space)
        unknown = [name for name in (*space.fixed, *space.parameters) if name not in kinds]
        if unknown:
            raise ValueError(_unknown(unknown[0], kinds))
        fixed = {name: _read(value, name, kinds) for name, value in space.fixed.items()}
        parameters = {name: _typed(entry, name, kinds) for name, entry in space.parameters.items()}
        return Settings(parameters, fixed)

    def networks(self, space: Settings) -> list[str]:
        """The names of the networks that a space has."""
        entry = space.parameters.get("net", Categorical((space.fixed.get("net", self.network["net"]),)))
        if not isinstance(entry, Categorical):
            raise ValueError("net takes choices, names of networks; give such.")
        proper = {name.lower(): name for name in nets.VISION}
        unknown = [name for name in entry.choices if str(name).lower() not in proper]
        if unknown:
            raise ValueError(f"There is no network {unknown[0]!r}; choose from {', '.join(nets.VISION)}.")
        return [proper[str(name).lower()] for name in entry.choices]

    def _kinds(self, space: Settings) -> dict[str, str]:
        kinds = {f"eval.{name}": kind for name, kind in words.fields_of(Evaluation, without=_LENGTH).items()}
        for network in self.networks(space):
            kinds |= {f"net.{name}": kind for name, kind in words.arguments_of(nets.VISION[network]).items()}
        return {"net": "str", **kinds}

    def module(self, config: Mapping[str, Value]) -> nn.Module:
        """A network of a configuration.

        Raises:
            Infeasible: If there is no such network.
        """
        given = {name.removeprefix("net."): value for name, value in config.items() if name.startswith("net.")}
        name = _proper(str(config.get("net", self.network["net"])))
        kept = ("channels", "classes", "size")
        base = self.network if name == self.network["net"] else {key: self.network[key] for key in kept}
        try:
            return nets.build({**base, **given, "net": name})
        except ValueError as error:
            raise Infeasible(str(error)) from None

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
            trained = self._trained(config, seed, _after(report, turn * self.looks))
            found.append(self.measure(trained, self.validation))
        return sum(found) / len(found)

    def fit(self, config: Config, seed: int, test: Source) -> Fitted:
        """Train one network, to be tested later or never."""
        start = time.perf_counter()
        trained = self._trained(config, seed, None)
        found = accuracy(trained, self.validation)
        return Fitted(found, time.perf_counter() - start, lambda: accuracy(trained, test))

    def _trained(self, config: Config, seed: int, report: Report | None) -> Trained:
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


def _proper(name: str) -> str:
    """A network's name as it is spelt."""
    return next((known for known in nets.VISION if known.lower() == name.lower()), name)


def _unknown(name: str, kinds: Mapping[str, str]) -> str:
    if name.removeprefix("eval.") in _LENGTH and name.startswith("eval."):
        return f"{name} is not searched: a pass over a condensed set is not one over the real data; leave it out."
    return f"There is no setting {name!r}; there are {', '.join(kinds)}."


def _read(value: Value, name: str, kinds: Mapping[str, str]) -> Value:
    """A value of the kind that a setting takes; the names of networks as they are spelt."""
    found: Value = words.read(value, kinds[name], name)
    return _proper(str(found)) if name == "net" else found


def _typed(entry: Parameter | When, name: str, kinds: Mapping[str, str]) -> Parameter | When:
    """Values of the kind that a setting takes."""
    if isinstance(entry, When):
        of = {k: tuple(_read(v, k, kinds) for v in values) for k, values in entry.of.items()}
        inner = _typed(entry.parameter, name, kinds)
        assert not isinstance(inner, When)
        return When(inner, of)
    if isinstance(entry, Categorical):
        return Categorical(tuple(_read(value, name, kinds) for value in entry.choices))
    if isinstance(entry, Float | Int):
        for value in (entry.low, entry.high):
            _read(value, name, kinds)
    if isinstance(entry, Cells) and name != "net.code":
        raise ValueError(f"{name} is not a cell; cells are values of net.code.")
    return entry


def _after(report: Report | None, before: int) -> Report | None:
    """Looks numbered on from those of earlier networks of the trial."""
    return None if report is None else lambda look, score: report(before + look, score)
