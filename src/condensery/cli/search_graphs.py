"""``condensery search`` for the nodes of a graph: what it runs on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condensery.catalog import Kind
from condensery.cli import alike, graphs, kinds

if TYPE_CHECKING:
    from condensery.cli.search import Grounds
    from condensery.graph_artifact import GraphArtifact
    from condensery.graph_runs import GraphSource
    from condensery.node_fitting import NodeRecipe


@dataclass(frozen=True)
class Sets:
    """The condensed graphs of a search.

    Attributes:
        train: What networks are trained on, if that is a condensed graph.
        val: What they are scored on, if that is one.
    """

    train: GraphArtifact | None = None
    val: GraphArtifact | None = None

    @classmethod
    def of(cls, train: Path | None, val: Path | None) -> Sets:
        """From files or folders of runs.

        Raises:
            ValueError: If they do not fit together.
        """
        found = cls(*(None if path is None else _load(path) for path in (train, val)))
        if found.train is not None and found.val is not None:
            if found.train.preprocessing.config() != found.val.preprocessing.config():
                raise ValueError("The two graphs have different preprocessing; condense both with the same features.")
            if found.train.classes != found.val.classes:
                raise ValueError("The two graphs have different classes; give two graphs of the same data.")
        return found

    def named(self) -> dict[str, GraphArtifact]:
        """Those that there are, by their part."""
        parts = {"train": self.train, "val": self.val}
        return {name: artifact for name, artifact in parts.items() if artifact is not None}


def _load(path: Path) -> GraphArtifact:
    found = kinds.of_file(path)
    if found is not Kind.GRAPH and alike.file_of(path).is_file():
        raise ValueError(f"{path} is for {found}, and the data are a graph; give a set that was condensed from it.")
    return graphs.load(path)


def grounds(
    sets: Sets,
    where: alike.Where,
    network: tuple[str, ...],
    real: bool,
    by_loss: bool,
    budget: float,
    seeds: tuple[int, ...],
) -> Grounds:
    """What is searched and confirmed on.

    Args:
        sets: The condensed graphs.
        where: The data and the device.
        network: Settings of the network that configurations are laid over; none for the condensed graph's own.
        real: Whether the search is on the real graph.
        by_loss: Whether the score is minus the loss rather than the accuracy.
        budget: Share of the recipe's steps for a trial.
        seeds: Of the networks of a trial.
    """
    from condensery import graph_runs
    from condensery.cli.search import Grounds
    from condensery.node_fitting import Nodes, node_accuracy
    from condensery.search import NodeGround, node_likelihood

    source, base, recipe = _sources(sets, where, network)
    first = next(iter(sets.named().values()), None)
    fit = None if first is None else lambda _: first.preprocessing
    data = graphs.open_graph(source, where.device, fit=fit)
    for artifact in sets.named().values():
        graph_runs.check_fits(artifact, data)
    if len(data.validation) == 0:
        raise ValueError(f"{data.name} has no validation nodes to confirm the best on; give a split that has some.")
    whole = NodeGround.real(data, base, recipe=recipe, seeds=seeds)
    searched = replace(
        whole,
        train=whole.train if real or sets.train is None else sets.train.nodes(device=data.device),
        validation=whole.validation if sets.val is None else sets.val.nodes(device=data.device),
        recipe=graph_runs.shortened(recipe, budget=budget),
        measure=node_likelihood if by_loss else node_accuracy,
    )
    return Grounds(
        name=data.name,
        short=source.short,
        data={**source.to_json(), "graph": graph_runs.digest_of(data)},
        device=data.device.type,
        searched=searched,
        real=whole,
        test=Nodes.test(data),
        condensing=0.0 if real else sum(float(a.provenance.get("seconds", 0.0)) for a in sets.named().values()),
        sets={name: fingerprint(artifact) for name, artifact in sets.named().items()},
        trained_on=f"all {len(data.train):,} training nodes of the real graph",
        describe=graphs.describe_training,
    )


def _sources(
    sets: Sets, where: alike.Where, network: tuple[str, ...]
) -> tuple[GraphSource, dict[str, Any], NodeRecipe]:
    """Where the real graph is, the network that configurations are laid over, and how networks are trained."""
    if sets.train is not None and not network:
        base, recipe = dict(sets.train.network), sets.train.training_recipe()
        return graphs.source_of(sets.train, where), base, recipe
    asked = graphs.Asked(where.data or "", "random", graphs.Size(), network, where.root)
    plan = asked.plan()
    if sets.train is None:
        return asked.source(plan), dict(plan.test), plan.evaluation.recipe()
    return graphs.source_of(sets.train, where), dict(plan.test), sets.train.training_recipe()


def fingerprint(artifact: GraphArtifact) -> dict[str, Any]:
    """A condensed graph so that another one of the same name is told from it, plain data."""
    from condensery import records

    x, y = artifact.batch()
    held = records.digest(artifact.method, (x.features, x.graph.matrix, x.graph.edges, x.graph.weights, y))
    return {"method": artifact.method, "nodes": len(y), "seed": artifact.seed, "digest": held}
