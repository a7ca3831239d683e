"""Graphs as a ground: HCDC's graph networks by a configuration, on real or condensed graphs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from condensery.data.graphs import GraphData
from condensery.evaluate.nodes import NodeRecipe, Nodes, fit_nodes, node_accuracy
from condensery.net import Net
from condensery.nets.graph import candidates
from condensery.search.grounds import Fitted, Report
from condensery.search.settings import Categorical, Config, Settings

_SETTINGS = {"net", "net.width", "net.depth", "eval.lr", "eval.weight_decay"}


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

    Settings are ``net`` (a kind of `graph_networks`), ``net.width`` and ``net.depth``, ``eval.lr`` and
    ``eval.weight_decay``.

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
            raise ValueError(
                f"There is no graph network {kind!r}; choose from {', '.join(n.split()[0] for n in made)}."
            )
        return made[name]

    def _recipe(self, config: Config) -> NodeRecipe:
        unknown = sorted(set(config) - _SETTINGS)
        if unknown:
            raise ValueError(f"There is no setting {unknown[0]!r} for graphs: {', '.join(sorted(_SETTINGS))}.")
        kept = self.recipe.optimizer
        lr, decay = _number(config, "eval.lr", kept.lr), _number(config, "eval.weight_decay", kept.weight_decay)
        return replace(self.recipe, optimizer=replace(kept, lr=lr, weight_decay=decay))

    @property
    def _features(self) -> int:
        return int(self.train.x.features.shape[1])

    @property
    def _classes(self) -> int:
        y = self.validation.y
        return int(y.shape[1]) if y.is_floating_point() else int(max(int(y.max()), int(self.train.y.max()))) + 1


def _number(config: Config, name: str, default: float) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; give a number.")
    return float(value)
