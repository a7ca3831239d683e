"""How good a condensed graph is: fresh graph networks are trained on it and classify the nodes of the real one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from condensery.data.graphs import GraphData
from condensery.evaluate.score import Row, Score
from condensery.net import Net
from condensery.node_fitting import FittedNodes, NodeRecipe, Nodes, fit_nodes, node_accuracy

__all__ = [
    "FittedNodes",
    "NodeRecipe",
    "Nodes",
    "fit_nodes",
    "node_accuracy",
    "score_nodes",
]


def score_nodes(
    name: str,
    net: Net,
    train: Nodes | Sequence[Nodes],
    data: GraphData,
    recipe: NodeRecipe | None = None,
    *,
    n: int = 5,
    seed: int = 0,
    size: Mapping[str, Any] | None = None,
) -> Row:
    """Train `n` fresh networks on a graph (or each on its own) and test each on the real nodes: one row.

    The row has both figures: the accuracy of the last step, and of the step chosen on the real validation nodes. The
    test nodes are read once for each of the two and choose nothing.

    Args:
        name: What was trained on.
        net: The architecture.
        train: The nodes that train, such as ``Nodes(*graph())`` or `Nodes.training`; or one of them for each network.
        data: The real graph: transductive or inductive, as it says itself.
        recipe: How to train; default: the literature's.
        n: How many networks, where `train` is one set of nodes.
        seed: Of the first; the others follow from it.
        size: What the graph costs, for the table.

    Raises:
        ValueError: If there is nothing to train on, or there are no validation or test nodes.
    """
    recipe = recipe or NodeRecipe()
    sets = [train] * n if isinstance(train, Nodes) else list(train)
    validation, test = Nodes.validation(data), Nodes.test(data)
    if not sets or not len(validation.pick(validation.y)) or not len(test.pick(test.y)):
        raise ValueError("Nothing trains, validates or tests; give n of at least 1 and a graph with all three splits.")
    start, last, chosen, steps = time.perf_counter(), [], [], []
    for i, nodes in enumerate(sets):
        generator = torch.Generator().manual_seed(seed + i)
        fitted = fit_nodes(net, nodes, recipe, generator, validate=validation)
        assert fitted.best is not None
        last.append(node_accuracy(net, fitted.last, test))
        chosen.append(node_accuracy(net, fitted.best, test))
        steps.append(fitted.best_step)
    return Row(
        name,
        _title(net.module),
        Score(tuple(last)),
        Score(tuple(chosen)),
        {**(size or {}), "chosen_steps": steps},
        seconds=time.perf_counter() - start,
    )


def _title(module: nn.Module) -> str:
    """A network's name with its size."""
    config = getattr(module, "config", {})
    parts = [f"{key} {config[key]}" for key in ("depth", "width") if key in config]
    return type(module).__name__ + (f" ({', '.join(parts)})" if parts else "")
