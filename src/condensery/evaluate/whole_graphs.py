"""How good a condensed set of graphs is: fresh networks are trained on it and classify the real graphs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from condensery.data.graph_sets import GraphSet
from condensery.evaluate.score import Row, Score
from condensery.graph_fitting import (
    FittedGraphs,
    GraphMetric,
    GraphRecipe,
    accuracy,
    fit_graphs,
    graph_embeddings,
    graph_logits,
    roc_auc,
)
from condensery.net import Net

__all__ = [
    "FittedGraphs",
    "GraphMetric",
    "GraphRecipe",
    "accuracy",
    "fit_graphs",
    "graph_embeddings",
    "graph_logits",
    "roc_auc",
    "score_graphs",
]


def score_graphs(
    name: str,
    net: Net,
    train: GraphSet | Sequence[GraphSet],
    data: GraphSet,
    recipe: GraphRecipe | None = None,
    *,
    metric: GraphMetric = accuracy,
    n: int = 5,
    seed: int = 0,
    size: Mapping[str, Any] | None = None,
) -> Row:
    """Train `n` fresh networks on a set (or each on its own) and test each on the real test graphs: one row.

    The row has the score of the last pass and of the one chosen on the real validation graphs, as the literature has
    it. The test graphs are read once for each of the two and choose nothing.

    Args:
        name: What was trained on.
        net: The architecture.
        train: The set; or one for each network.
        data: The real set.
        recipe: How to train; default: the literature's.
        metric: What is measured.
        n: How many networks, where `train` is one set.
        seed: Of the first; the others follow from it.
        size: What the set costs, for the table.

    Raises:
        ValueError: If there is nothing to train on, or there are no validation or test graphs.
    """
    recipe = recipe or GraphRecipe()
    sets = [train] * n if isinstance(train, GraphSet) else list(train)
    if not sets or not len(data.validation) or not len(data.test):
        raise ValueError("Nothing trains, validates or tests; give n of at least 1 and a set with all three splits.")
    start = time.perf_counter()
    last: list[float] = []
    chosen: list[float] = []
    epochs: list[int | None] = []
    for i, one in enumerate(sets):
        generator = torch.Generator().manual_seed(seed + i)
        fitted = fit_graphs(net, one, recipe, generator, validate=data, metric=metric)
        assert fitted.best is not None
        for theta, scores in ((fitted.last, last), (fitted.best, chosen)):
            scores.append(metric(graph_logits(net, theta, data, data.test), data.y[data.test]))
        epochs.append(fitted.best_epoch)
    config = net.module.config
    title = f"{type(net.module).__name__} (depth {config['depth']}, width {config['width']})"  # type: ignore[index]
    held = {**(size or {}), "chosen_epochs": epochs}
    return Row(name, title, Score(tuple(last)), Score(tuple(chosen)), held, seconds=time.perf_counter() - start)
