"""Graphs as a ground: graph networks and their training by a configuration, on real or condensed graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from condensery import nets
from condensery.data.graphs import GraphData
from condensery.evaluate.nodes import NodeRecipe, Nodes, fit_nodes, node_accuracy
from condensery.net import Net
from condensery.nets.graph import VARIANTS
from condensery.recipes.graphs import NodeTraining
from condensery.recipes.tuning import tuned_nodes
from condensery.search.family import Family
from condensery.search.grounds import Fitted, Report
from condensery.search.settings import Categorical, Config, Settings, Value

NodeMeasure = Callable[[Net, Tensor, Nodes], float]
"""A score of a network with parameters ``[size]`` on nodes, larger is better."""


def graph_networks(*, widths: tuple[int, ...] = (128, 256), depths: tuple[int, ...] = (2, 4)) -> Settings:
    """The 40 graph networks of HCDC's appendix J as a space: ten kinds, two widths, two depths.

    Args:
        widths: Widths, multiples of 8.
        depths: Depths.

    Example:
        >>> sum(1 for _ in graph_networks().grid())
        40
    """
    kinds = Categorical(tuple(VARIANTS))
    return Settings({"net": kinds, "net.width": Categorical(widths), "net.depth": Categorical(depths)})


@torch.no_grad()
def node_likelihood(net: Net, theta: Tensor, nodes: Nodes) -> float:
    """Minus the mean cross entropy of nodes, without dropout; labels are classes or probability rows.

    Args:
        net: The architecture.
        theta: Its parameters ``[size]``.
        nodes: Which nodes.

    Raises:
        ValueError: If there is no node.
    """
    truth = nodes.pick(nodes.y)
    if len(truth) == 0:
        raise ValueError("There are no nodes to score on; give a split that is not empty.")
    module = net.at(theta).eval()
    return -float(F.cross_entropy(nodes.pick(module(nodes.x)), truth))


@dataclass(frozen=True)
class GraphFamily(Family):
    """What the settings of a configuration mean for graphs: see `Family`; ``eval.NAME`` is a field of
    `recipes.graphs.NodeTraining`.

    ``net`` may also be one of HCDC's kinds, such as ``SAGE-max`` (see `graph_networks`).

    Args:
        network: With ``features`` and ``classes``.
    """

    zoo = nets.GRAPH
    variants = VARIANTS
    given = ("features", "classes")
    trained = NodeTraining
    lengths = {  # noqa: RUF012  # a class variable of Family
        "steps": "all networks are trained for the recipe's steps, or for a share of them with --budget",
        "check_every": "a search scores the last step",
    }

    def recipe(self, config: Mapping[str, Value], base: NodeRecipe) -> NodeRecipe:
        """A recipe with the configuration's settings.

        Raises:
            ValueError: If there is no such setting, or its value makes no sense.
        """
        return tuned_nodes(base, {k.removeprefix("eval."): v for k, v in config.items() if k.startswith("eval.")})


@dataclass(frozen=True)
class NodeGround:
    """Nodes to train on and nodes to score on, of a real or a condensed graph.

    Args:
        family: What settings mean.
        train: What networks are trained on.
        validation: What they are scored on.
        recipe: How they are trained, but for the settings of a configuration.
        seeds: One for each network of a trial; the score is the mean. All configurations have the same seeds.
        measure: The score.

    Raises:
        ValueError: If there is no seed.
    """

    family: GraphFamily
    train: Nodes
    validation: Nodes
    recipe: NodeRecipe = field(default_factory=NodeRecipe)
    seeds: tuple[int, ...] = (0,)
    measure: NodeMeasure = node_accuracy

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("A trial needs at least one seed; give one.")

    @classmethod
    def real(cls, data: GraphData, network: Mapping[str, Any], **options: Any) -> NodeGround:
        """The real graph: its training and its validation nodes.

        Args:
            data: The graph.
            network: What configurations are laid over, ``{"net": name, argument: value}``.
            options: ``recipe``, ``seeds`` and ``measure``.
        """
        family = GraphFamily({**network, "features": data.num_features, "classes": data.num_classes})
        return cls(family, Nodes.training(data), Nodes.validation(data), **options)

    def __call__(self, config: Config, report: Report | None = None) -> float:
        """See `Ground`; nothing is reported on the way."""
        found = [self.measure(*self._trained(config, seed), self.validation) for seed in self.seeds]
        return sum(found) / len(found)

    def fit(self, config: Config, seed: int, test: Nodes) -> Fitted:
        """Train one network, to be tested later or never."""
        start = time.perf_counter()
        net, theta = self._trained(config, seed)
        found = node_accuracy(net, theta, self.validation)
        return Fitted(found, time.perf_counter() - start, lambda: node_accuracy(net, theta, test))

    def _trained(self, config: Config, seed: int) -> tuple[Net, Tensor]:
        net, recipe = Net(self.family.module(config)), self.family.recipe(config, self.recipe)
        return net, fit_nodes(net, self.train, recipe, torch.Generator().manual_seed(seed)).last
