"""Grounds: what a configuration is tried on. The same search runs on real data and on condensed data.

A ground is a function ``(configuration, report) -> score``: it trains a network on a training set as the configuration
says and scores it on a validation set. A search sees nothing else of it, so that any search that maximises a function
can be used. The test set is no part of a ground.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from condensery import nets
from condensery.batch import Batch
from condensery.data.graphs import GraphData
from condensery.evaluate.nodes import NodeRecipe, Nodes, fit_nodes, node_accuracy
from condensery.fitting import Adam, CrossEntropy, Execution, Held, Recipe, Sgd, Source, Trained, accuracy, training
from condensery.net import Net
from condensery.nets.graph import candidates
from condensery.recipes import Evaluation
from condensery.recipes import values as words
from condensery.recipes.tuning import tuned
from condensery.search.settings import Categorical, Cells, Config, Float, Infeasible, Int, Parameter, Settings, Value, When

_LENGTH = ("epochs", "steps")

Report = Callable[[int, float], None]
"""Told of a look at validation on the way, ``(number of the look, score)``; may raise to end the trial."""
Measure = Callable[[Trained, Source], float]
"""A score of a trained network on a set, larger is better."""


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


# --- images
# ------------------------------------------------------------------------------------------------------------------


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
        fixed = {name: words.read(value, kinds[name], name) for name, value in space.fixed.items()}
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
        return (
            f"{name} is not searched: a pass over a condensed set is not one over the real data; leave it out, and give "
            "the lengths for both."
        )
    return f"There is no setting {name!r}; there are {', '.join(kinds)}."


def _typed(entry: Parameter | When, name: str, kinds: Mapping[str, str]) -> Parameter | When:
    """Values of the kind that a setting takes."""
    if isinstance(entry, When):
        of = {k: tuple(words.read(v, kinds[k], k) for v in values) for k, values in entry.of.items()}
        inner = _typed(entry.parameter, name, kinds)
        assert not isinstance(inner, When)
        return When(inner, of)
    if isinstance(entry, Categorical):
        return Categorical(tuple(words.read(value, kinds[name], name) for value in entry.choices))
    if isinstance(entry, Float | Int):
        for value in (entry.low, entry.high):
            words.read(value, kinds[name], name)
    if isinstance(entry, Cells) and name != "net.code":
        raise ValueError(f"{name} is not a cell; cells are values of net.code.")
    return entry


def held(x: Tensor, y: Tensor) -> Held:
    """A condensed set as what can be trained on or scored on."""
    return Held(Batch(x.detach(), y.detach()))


# --- graphs
# ------------------------------------------------------------------------------------------------------------------


def graph_networks(*, widths: tuple[int, ...] = (128, 256), depths: tuple[int, ...] = (2, 4)) -> Settings:
    """The 40 graph networks of HCDC's appendix J as a space: ten kinds, two widths, two depths.

    Args:
        widths: Widths, multiples of 8.
        depths: Depths.

    Example:
        >>> sum(1 for _ in graph_networks().grid())
        40
    """
    names = tuple(name.split()[0] for name, _ in candidates(features=1, classes=2, widths=(8,), depths=(2,)))
    return Settings({"net": Categorical(names), "net.width": Categorical(widths), "net.depth": Categorical(depths)})


@dataclass(frozen=True)
class NodeGround:
    """Nodes to train on and nodes to score on, of a real or a condensed graph.

    Settings are ``net`` (a kind of `graph_networks`), ``net.width`` and ``net.depth``, ``eval.lr``,
    ``eval.weight_decay`` and ``eval.steps``.

    Args:
        train: What networks are trained on.
        validation: What they are scored on.
        recipe: How they are trained, but for the settings of a configuration.
        seeds: One for each network of a trial; the score is the mean. All configurations have the same seeds.
    """

    train: Nodes
    validation: Nodes
    recipe: NodeRecipe = field(default_factory=NodeRecipe)
    seeds: tuple[int, ...] = (0,)

    @classmethod
    def real(cls, data: GraphData, recipe: NodeRecipe | None = None, *, seeds: tuple[int, ...] = (0,)) -> NodeGround:
        """The real graph: its training and its validation nodes."""
        return cls(Nodes.training(data), Nodes.validation(data), recipe or NodeRecipe(), seeds)

    def __call__(self, config: Config, report: Report | None = None) -> float:
        """See `Ground`; nothing is reported on the way."""
        return sum(self._fitted(config, seed)[1] for seed in self.seeds) / len(self.seeds)

    def fit(self, config: Config, seed: int, test: Nodes) -> Fitted:
        """Train one network, to be tested later or never."""
        start = time.perf_counter()
        (net, theta), found = self._fitted(config, seed)
        return Fitted(found, time.perf_counter() - start, lambda: node_accuracy(net, theta, test))

    def _fitted(self, config: Config, seed: int) -> tuple[tuple[Net, Tensor], float]:
        net = Net(self._module(config))
        fitted = fit_nodes(net, self.train, self._recipe(config), torch.Generator().manual_seed(seed))
        return (net, fitted.last), node_accuracy(net, fitted.last, self.validation)

    def _module(self, config: Config) -> nn.Module:
        kind, width, depth = (config.get(key) for key in ("net", "net.width", "net.depth"))
        if not isinstance(width, int) or not isinstance(depth, int):
            raise ValueError("A graph network needs net, net.width and net.depth; give all three in the space.")
        classes = self._classes
        made = dict(candidates(features=self._features, classes=classes, widths=(width,), depths=(depth,)))
        name = f"{kind} {depth}x{width}"
        if name not in made:
            raise ValueError(f"There is no graph network {kind!r}; choose from {', '.join(n.split()[0] for n in made)}.")
        return made[name]

    def _recipe(self, config: Config) -> NodeRecipe:
        recipe, optimizer = self.recipe, self.recipe.optimizer
        rate, decay = config.get("eval.lr", optimizer.lr), config.get("eval.weight_decay", optimizer.weight_decay)
        kind = type(optimizer)
        assert kind in (Adam, Sgd)
        changed = {"lr": float(rate or 0.0), "weight_decay": float(decay or 0.0)}
        steps = config.get("eval.steps", recipe.steps)
        return replace(recipe, optimizer=replace(optimizer, **changed), steps=int(steps or 0))

    @property
    def _features(self) -> int:
        return int(self.train.x.features.shape[1])

    @property
    def _classes(self) -> int:
        y = self.validation.y
        return int(y.shape[1]) if y.is_floating_point() else int(max(int(y.max()), int(self.train.y.max()))) + 1


def _after(report: Report | None, before: int) -> Report | None:
    """Looks numbered on from those of earlier networks of the trial."""
    return None if report is None else lambda look, score: report(before + look, score)
