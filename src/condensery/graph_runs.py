"""A condensed graph on disk: a plan and a graph become an artifact in a folder; a killed run goes on from there.

>>> import tempfile
>>> from condensery.recipes import graphs
>>> plan = graphs.load("gcond-x", "digits-graph", nodes=10, overrides=["steps=2"])
>>> source = GraphSource("digits-graph", reading=plan.data)
>>> data = open_graph(source)
>>> folder = Folder(Path(tempfile.mkdtemp()) / "run")
>>> folder.claim(settings(plan, source, data, seed=0))
>>> run = build(plan, data, seed=0)
>>> [progress.step for progress in advance(run, folder)]
[1, 2]
>>> finish(run, folder, source).per_class
[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from condensery import catalog, nets, records
from condensery.coresets.coarsening import Coarsened
from condensery.data.graph_features import FeatureFit
from condensery.data.graph_files import GraphColumns, from_csv, from_npz, graphsaint, ogb_csv
from condensery.data.graph_pyg import planetoid
from condensery.data.graphs import GraphData
from condensery.evaluate.nodes import score_nodes
from condensery.evaluate.score import Row
from condensery.graph import (
    CountRule,
    FixedAdjacency,
    FreeAdjacency,
    Graph,
    IdentityAdjacency,
    PairwiseMlp,
    Structure,
    class_counts,
)
from condensery.graph_artifact import GraphArtifact, cut, recipe_for
from condensery.keeping import keeping_best, kept_accuracy, kept_step
from condensery.loop import Objective, result
from condensery.methods.geom import with_soft_labels
from condensery.net import Net
from condensery.node_experts import record_for
from condensery.node_fitting import NodeRecipe, Nodes, fit_nodes, node_accuracy
from condensery.recipes import values
from condensery.recipes.graphs import GraphPlan, GraphStart, NodeSelection, Reading
from condensery.runs import Folder, Progress, Watch, follow, generators, made_from, spent_on

RANDOM = "random"
FULL = "full graph"


# --- the graph
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GraphSource:
    """What graph, in plain values.

    Attributes:
        spec: A graph's name or a path: an npz file, or a folder with tables (``edges.csv``, ``nodes.csv``), OGB's
            csv files, GraphSAINT's files or Planetoid's raw files.
        root: The folder that holds a named graph's files, or ``None`` to look in the usual places.
        reading: How it is read.
    """

    spec: str
    root: str | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def name(self) -> str:
        """What recipes call it: a graph's name, or the spec itself."""
        return self.spec.lower() if self.spec.lower() in catalog.GRAPHS else self.spec

    @property
    def short(self) -> str:
        """A name fit for a folder's name.

        Example:
            >>> GraphSource("Cora").short, GraphSource("data/my graph.npz").short
            ('cora', 'my-graph')
        """
        if self.name in catalog.GRAPHS:
            return self.name
        path = Path(self.spec).resolve()
        stem = path.name if path.is_dir() else path.stem
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem) or "graph"

    def to_json(self) -> dict[str, Any]:
        """Plain data; a path is written in full, so that it is found from anywhere."""
        spec = self.name if self.name in catalog.GRAPHS else str(Path(self.spec).resolve())
        return {"spec": spec, "root": self.root, **asdict(self.reading)}


def open_graph(source: GraphSource, *, fit: FeatureFit | None = None, device: torch.device | str = "cpu") -> GraphData:
    """The graph, cleaned and split, on the device.

    Args:
        source: What graph.
        fit: Preprocessing of the features in place of the one that the reading names.
        device: Where to.

    Raises:
        ValueError: If there is no such graph, or it cannot be read or used; the message names the fix.
    """
    how = source.reading
    fit = fit or values.fit_of(how.features)
    options: dict[str, Any] = {"inductive": how.inductive, **({} if fit is None else {"fit": fit})}
    if source.name in catalog.GRAPHS:
        entry = catalog.GRAPHS[source.name]
        data: GraphData = entry.load(source.root, **options, **({"seed": how.split_seed} if entry.drawn else {}))
        return data.to(device)
    if source.root is not None:
        raise ValueError(f"The data root is for graphs with a name, which {source.spec!r} is not; leave it out.")
    try:
        return _read_own(Path(source.spec), how, options).to(device)
    except ValueError as error:
        raise ValueError(_for_settings(str(error))) from error


def _read_own(path: Path, how: Reading, options: dict[str, Any]) -> GraphData:
    """A graph from a user's own files."""
    layout, seeded = catalog.graph_layout(path), {**options, "seed": how.split_seed}
    if layout == "npz":
        return from_npz(path, **seeded)
    if layout == "tables":
        edges, nodes = cast(tuple[Path, Path], catalog.tables_of(path))
        return from_csv(
            edges, nodes, columns=GraphColumns(how.node_column, how.label_column, how.split_column), **seeded
        )
    if layout == "ogb":
        return ogb_csv(path, scheme=None if how.scheme == "auto" else how.scheme, **options)
    if layout == "graphsaint":
        return graphsaint(path, **{**options, "inductive": True})
    if layout == "planetoid":
        file = next(iter(sorted([*path.glob("ind.*.graph"), *path.glob("raw/ind.*.graph")])))
        return planetoid(path, file.name.split(".")[1], **options)
    hint = catalog.did_you_mean(str(path), catalog.GRAPHS)
    raise ValueError(
        f"There is no graph {str(path)!r}{hint}; give a name that `condensery datasets` lists, or your own."
    )


def _for_settings(sentence: str) -> str:
    """A reader's sentence with the names that a command line knows."""
    renamed = {
        "name it in `columns`": "name it with --set node_column=NAME or --set label_column=NAME",
        " or give features=": "",
        "give scheme= one that is there": "name one with --set scheme=NAME",
    }
    for old, new in renamed.items():
        sentence = sentence.replace(old, new)
    return sentence


def digest_of(data: GraphData) -> str:
    """What a graph holds: it changes if any feature, edge, label or part of the split does."""
    parts = (data.x, data.edges, data.y, *data.split, data.weights)
    return records.digest(f"{data.inductive} {data.classes}", parts)


# --- a run
# --------------------------------------------------------------------------------------------------------------------


@dataclass
class GraphRun:
    """A run in memory, ready for its first or next step.

    Attributes:
        plan: What is to be done.
        data: The graph, on the device.
        seed: Of everything random but the split.
        synthetic: The synthetic graph.
        objective: The method.
        optimizer: Over the synthetic graph.
    """

    plan: GraphPlan
    data: GraphData
    seed: int
    synthetic: Graph
    objective: Objective
    optimizer: torch.optim.Optimizer

    @property
    def result(self) -> Graph:
        """The synthetic graph as it would be kept now, its edges not learned any more."""
        made: Graph = result(self.synthetic, self.objective)
        return made.frozen()


def settings(plan: GraphPlan, source: GraphSource, data: GraphData, *, seed: int) -> dict[str, Any]:
    """What makes a run another one if it changes, as plain data."""
    plain = plan.to_json()
    plain.pop("origin")
    where = {"data": source.to_json(), "graph": digest_of(data), "seed": seed, "device": data.device.type}
    return {"plan": plain, **where}


def build(
    plan: GraphPlan, data: GraphData, *, seed: int = 0, on_experts: Callable[[float, int], None] | None = None
) -> GraphRun:
    """Make the parts of a run; experts that a method matches are recorded where they are not there yet.

    Args:
        plan: Of a method, not of a selection.
        data: On the device where the run is to be.
        seed: Gives one generator to the start of the graph and one to the method.
        on_experts: Told of the recording of experts, see `experts.record_nodes`.

    Raises:
        ValueError: If the plan does not fit the graph.
    """
    for_start, for_method = generators(seed, 2)
    entry = catalog.GRAPH_METHODS[plan.method]
    kinds = values.fields_of(entry.load())
    options = {name: values.object_of(value, kinds[name]) for name, value in plan.options.items()}
    if isinstance(options.get("choice"), type):
        options["choice"] = options["choice"](data)
    net = Net(build_network(plan.network, data))
    synthetic = _start(plan, data, for_start)
    source: Any = data
    if plan.experts is not None:
        source = record_for(plan, net, data, on_progress=on_experts)
        if cast(GraphStart, plan.run).labels == "expert":
            synthetic = with_soft_labels(net, source, synthetic)
    objective = entry.load()(net, source, for_method, **options)
    judged = partial(_accuracy, plan, data, seed)
    objective = keeping_best(objective, plan.run, data.name, data.validation, judged, "nodes")
    return GraphRun(plan, data, seed, synthetic, objective, objective.optimizer(synthetic))


def build_network(config: Mapping[str, Any], data: GraphData) -> nn.Module:
    """A network of a plan for the features and classes of the graph."""
    return nets.build({**config, "features": data.num_features, "classes": data.num_classes})


def counts_of(plan: GraphPlan, data: GraphData) -> list[int]:
    """Nodes of each class, in proportion to the training nodes.

    Raises:
        ValueError: If they do not suffice for every class, or a class has fewer.
    """
    counts = shares_of(plan, data)
    for c, (count, there) in enumerate(zip(counts, torch.bincount(data.train_y).tolist(), strict=True)):
        if count > there:
            raise ValueError(
                f"{sum(counts)} nodes need {count} training nodes of class {data.classes[c]!r}, which has {there}; ask "
                "for fewer nodes."
            )
    return counts


def shares_of(plan: GraphPlan, data: GraphData) -> list[int]:
    """The same, however many training nodes there are: coarsening makes nodes of the others too.

    Raises:
        ValueError: If they do not suffice for every class.
    """
    rule = CountRule.LARGEST_REMAINDER if plan.run is None else CountRule(plan.run.counts)
    return class_counts(data.train_y.cpu(), plan.nodes, ratio=plan.ratio, classes=data.num_classes, rule=rule)


def advance(run: GraphRun, folder: Folder, watch: Watch | None = None) -> Iterator[Progress]:
    """Go on from the folder's last snapshot, or from the start, to the last step.

    Raises:
        NotFinite: If the method diverges; the snapshots stay.
        ValueError: If the snapshots are unusable, or there is nothing to validate on.
    """
    watch = watch or Watch()
    if watch.eval_every and len(run.data.validation) == 0:
        raise ValueError(f"{run.data.name} has no validation nodes to look at; leave --eval-every out.")
    yield from follow(run, folder, watch, validate=lambda: validation_accuracy(run, watch.eval_budget))


def finish(run: GraphRun, folder: Folder, source: GraphSource) -> GraphArtifact:
    """Write the artifact: the last file, because it says that the run is finished."""
    how = {**spent_on(folder, run.plan.steps), **kept_step(run.objective, run.synthetic)}
    artifact = _artifact(run.plan, run.data, run.result, source, seed=run.seed, how=how)
    artifact.save(folder.artifact)
    return artifact


def validation_accuracy(run: GraphRun, budget: float = 1.0) -> float:
    """Train one network on the graph as it is, and score its last step on the validation nodes; nothing is touched."""
    known = kept_accuracy(run.objective, run.synthetic, run.plan.run, budget)
    return _accuracy(run.plan, run.data, run.seed, run.result, budget) if known is None else known


def _accuracy(plan: GraphPlan, data: GraphData, seed: int, graph: Graph, budget: float) -> float:
    """On the validation nodes, of the last step of one network that is trained on a graph."""
    (generator,) = generators(seed, 1)
    recipe = recipe_for(graph, shortened(plan.evaluation.recipe(), budget=budget))
    net = Net(build_network(plan.test, data))
    fitted = fit_nodes(net, Nodes(*cut(graph, cast(GraphStart, plan.run).threshold)), recipe, generator)
    return node_accuracy(net, fitted.last, Nodes.validation(data))


def shortened(recipe: NodeRecipe, *, steps: int | None = None, budget: float = 1.0) -> NodeRecipe:
    """A recipe of another length.

    Args:
        recipe: The recipe.
        steps: Its steps; by default as many as it has.
        budget: Share of them to do.

    Raises:
        ValueError: If the share is not positive.
    """
    if not 0 < budget < float("inf"):
        raise ValueError(f"A budget of {budget} is no share; give a positive number such as 0.1.")
    return recipe.with_steps(max(1, round((recipe.steps if steps is None else steps) * budget)))


def _start(plan: GraphPlan, data: GraphData, generator: Generator) -> Graph:
    """The graph that a run starts from."""
    start = cast(GraphStart, plan.run)
    view = data.training_view()
    entry = catalog.GRAPH_CORESETS[start.init]
    chosen = entry.load()(view, counts_of(plan, data), **_needed(entry, plan, view, NodeSelection(), generator))
    structures: dict[str, Callable[[], Structure]] = {
        "identity": IdentityAdjacency,
        "pairwise": lambda: PairwiseMlp(
            data.num_features, hidden=start.hidden, layers=start.layers, generator=generator
        ),
        "free": lambda: FreeAdjacency(view.subgraph(chosen).adjacency.dense()),
    }
    structure = structures[start.structure]()
    return Graph.from_index(view, chosen, adjacency=structure, step_size=start.step_size).to(data.device)


# --- selections
# --------------------------------------------------------------------------------------------------------------------


def select(plan: GraphPlan, data: GraphData, source: GraphSource, *, seed: int = 0) -> GraphArtifact:
    """Select nodes of the graph as a plan says, with the edges among them, or merge them.

    Args:
        plan: Of a selection.
        data: The graph; only what training may see of it is looked at.
        source: Where it comes from, written down.
        seed: Of a network that embeds the nodes, and of the choice.

    Raises:
        ValueError: If the plan does not fit the graph.
    """
    start, (generator,) = time.perf_counter(), generators(seed, 1)
    entry, view = catalog.GRAPH_CORESETS[plan.method], data.training_view()
    kinds = values.fields_of(NodeSelection)
    seen = NodeSelection(**{k: v for k, v in plan.options.items() if k in kinds})  # type: ignore[arg-type]
    own = {k: v for k, v in plan.options.items() if k not in kinds}
    size = sum(shares_of(plan, data)) if entry.merges else counts_of(plan, data)
    made = entry.load()(view, size, **own, **_needed(entry, plan, view, seen, generator))
    how = {"steps": 0, "seconds": time.perf_counter() - start, "loss": None}
    if isinstance(made, Coarsened):
        graph, assignment = _merged(made, data)
        return _artifact(plan, data, graph, source, seed=seed, how=how, assignment=assignment)
    if isinstance(made, Graph):
        return _artifact(plan, data, made.frozen(), source, seed=seed, how=how)
    index = made.cpu()
    indices = data.train.cpu()[index] if data.inductive else index
    return _artifact(plan, data, induced(view, made), source, seed=seed, how=how, indices=indices)


def induced(view: GraphData, index: Tensor) -> Graph:
    """Chosen nodes as a graph, with the edges among them.

    Args:
        view: What training may see.
        index: int64 ``[n']``, sorted by class.
    """
    part = view.subgraph(index)
    adjacency = FixedAdjacency(part.adjacency) if part.num_edges else IdentityAdjacency()
    return Graph.from_index(view, index, adjacency=adjacency).to(view.device)


def _merged(found: Coarsened, data: GraphData) -> tuple[Graph, Tensor]:
    """A coarse graph, its nodes in order of their classes and first those without one, and where real nodes went."""
    order = found.data.y.argsort(stable=True)
    part = found.data.subgraph(order)
    adjacency = FixedAdjacency(part.adjacency) if part.num_edges else IdentityAdjacency()
    graph = Graph(part.x, part.y, adjacency=adjacency).to(part.device)
    inside, place = found.assignment >= 0, order.argsort().cpu()
    moved = torch.where(inside, place[found.assignment.clamp_min(0)], -1)
    if not data.inductive:
        return graph, moved
    whole = torch.full((data.num_nodes,), -1)
    whole[data.train.cpu()] = moved
    return graph, whole


def _needed(
    entry: catalog.Coreset, plan: GraphPlan, view: GraphData, seen: NodeSelection, generator: Generator
) -> dict[str, Any]:
    """What a selection takes beside the graph and the counts."""
    makers: dict[str, Callable[[], Any]] = {
        "embeddings": lambda: _embedded(plan, view, seen, generator),
        "generator": lambda: generator,
    }
    return {need: makers[need]() for need in entry.needs.split()}


def _embedded(plan: GraphPlan, view: GraphData, seen: NodeSelection, generator: Generator) -> Tensor:
    """What stands for each node ``[n, d]``."""
    if seen.embedding == "features":
        return view.x
    net = Net(build_network(plan.test, view))
    recipe = shortened(plan.evaluation.recipe(), steps=seen.proxy_steps)
    theta = fit_nodes(net, Nodes.training(view), recipe, generator).last
    with torch.no_grad():
        return net.at(theta)(view.whole().x)


def _artifact(
    plan: GraphPlan,
    data: GraphData,
    graph: Graph,
    source: GraphSource,
    *,
    seed: int,
    how: Mapping[str, Any],
    indices: Tensor | None = None,
    assignment: Tensor | None = None,
) -> GraphArtifact:
    plain = json.loads(json.dumps(plan.to_json()))
    parts = ("nodes", "ratio", "options", "run", "network", "experts", "data", "evaluation")
    sizes = dict(zip(("train", "validation", "test"), map(len, data.split), strict=True))
    return GraphArtifact(
        graph=graph.to("cpu"),
        threshold=0.0 if plan.run is None else plan.run.threshold,
        classes=data.classes,
        preprocessing=data.preprocessing,
        recipe=plan.evaluation.recipe(),
        network=nets.describe(build_network(plan.test, data)),
        dataset=data.name,
        method=plan.title,
        real={"nodes": data.num_nodes, "edges": data.num_edges, "train": len(data.train)},
        options={name: plain[name] for name in parts if plain[name] not in (None, {})},
        seed=seed,
        split={**sizes, "inductive": data.inductive, "notes": list(data.notes)},
        indices=indices,
        assignment=assignment,
        provenance={**how, **made_from(plan, data.device, source.to_json())},
    )


# --- scores
# --------------------------------------------------------------------------------------------------------------------


def trained_on(
    train: Nodes | Callable[[Generator], Nodes],
    data: GraphData,
    network: nn.Module,
    recipe: NodeRecipe,
    *,
    name: str,
    n: int,
    seed: int = 0,
) -> Iterator[Row]:
    """Train n networks on nodes, one after the other; the rows together are one of a table (`evaluate.score.merged`).

    Args:
        train: What is trained on, or what draws nodes for each network.
        data: The real graph that validates and tests.
        network: The architecture.
        recipe: How each is trained.
        name: For the table.
        n: How many.
        seed: Of the first; the next have the next numbers.
    """
    draws = generators(seed, n)
    for number in range(n):
        nodes = train if isinstance(train, Nodes) else train(draws[number])
        yield score_nodes(name, Net(network), [nodes], data, recipe, seed=seed + number, size=size_of(nodes))


def size_of(nodes: Nodes) -> dict[str, Any]:
    """Nodes that train; all nodes and the undirected edges of the graph that they are seen in."""
    return {"nodes": len(nodes.pick(nodes.y)), "seen": len(nodes.y), "edges": _count_edges(nodes)}


def random_counts(artifact: GraphArtifact, data: GraphData) -> list[int]:
    """Of each class, the random nodes that a condensed graph is compared with: as many as it has in all.

    A coarse graph has nodes without a label too; as many nodes are then shared among the classes as in a selection.
    """
    if artifact.assignment is None:
        return artifact.per_class
    return class_counts(data.train_y.cpu(), len(artifact.graph.classes), classes=data.num_classes)


def random_nodes(data: GraphData, counts: list[int]) -> Callable[[Generator], Nodes]:
    """Draws random training nodes with the edges among them, as many of each class, or all where there are fewer."""
    view = data.training_view()
    there = torch.bincount(view.train_y, minlength=view.num_classes).tolist()
    wanted = [min(k, size) for k, size in zip(counts, there, strict=True)]
    choose = catalog.GRAPH_CORESETS[RANDOM].load()
    return lambda generator: Nodes(*induced(view, choose(view, wanted, generator=generator))())


def check_fits(artifact: GraphArtifact, data: GraphData) -> None:
    """That networks trained on a condensed graph can be tested on a real one.

    Raises:
        ValueError: If features or classes differ.
    """
    width = artifact.graph.values.shape[1]
    if width != data.num_features or artifact.classes != data.classes:
        raise ValueError(
            f"The condensed graph has {width} features and {len(artifact.classes)} classes, {data.name} has "
            f"{data.num_features} and {data.num_classes}; give with --data the graph that it was made from."
        )


def _count_edges(nodes: Nodes) -> int:
    graph = nodes.x.graph
    if graph.matrix is not None:
        return int((graph.matrix > 0).triu(1).sum())
    assert graph.edges is not None
    return graph.edges.shape[1] // 2
