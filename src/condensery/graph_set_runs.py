"""A condensed set of graphs on disk: a plan and a set become an artifact in a folder; a killed run goes on from there.

>>> import tempfile
>>> from condensery.recipes import graph_sets
>>> settings_ = ["steps=2", "batch_real=4", "net.width=8"]
>>> plan = graph_sets.load("doscond-graphs", "digit-graphs", 1, overrides=settings_)
>>> source = GraphSetSource("digit-graphs", reading=plan.data)
>>> data = open_graphs(source)
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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from condensery import catalog, nets, records
from condensery.data.graph_features import FeatureFit
from condensery.data.graph_sets import GraphSet
from condensery.data.tu_files import tu_graphs
from condensery.evaluate.score import FULL, RANDOM, Row
from condensery.evaluate.whole_graphs import score_graphs
from condensery.graph_fitting import GraphRecipe, accuracy, fit_graphs, graph_embeddings, graph_logits
from condensery.graph_set_artifact import GraphSetArtifact
from condensery.graphs import Graphs
from condensery.keeping import keeping_best, kept_accuracy, kept_step
from condensery.loop import Objective, result
from condensery.net import Net
from condensery.recipes import values
from condensery.recipes.graph_sets import GraphSelection, GraphSetPlan, GraphSetReading, GraphSetStart
from condensery.runs import Folder, Progress, Watch, follow, generators, made_from, spent_on

__all__ = [
    "FULL",
    "RANDOM",
    "GraphSetRun",
    "GraphSetSource",
    "advance",
    "build",
    "build_network",
    "check_fits",
    "counts_of",
    "digest_of",
    "finish",
    "full_recipe",
    "open_graphs",
    "random_graphs",
    "select",
    "settings",
    "shortened",
    "size_of",
    "trained_on",
    "validation_accuracy",
]


# --- the graphs
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GraphSetSource:
    """What set of graphs, in plain values.

    Attributes:
        spec: A set's name, or a folder with the text files of TU Dortmund's layout.
        root: The folder that holds a named set's files, or ``None`` to look in the usual places.
        reading: How it is read.
    """

    spec: str
    root: str | None = None
    reading: GraphSetReading = field(default_factory=GraphSetReading)

    @property
    def name(self) -> str:
        """What recipes call it: a set's name, or the spec itself."""
        return self.spec.lower() if self.spec.lower() in catalog.GRAPH_SETS else self.spec

    @property
    def short(self) -> str:
        """A name fit for a folder's name.

        Example:
            >>> GraphSetSource("Digit-Graphs").short, GraphSetSource("data/my graphs").short
            ('digit-graphs', 'my-graphs')
        """
        if self.name in catalog.GRAPH_SETS:
            return self.name
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(self.spec).resolve().name) or "graphs"

    def to_json(self) -> dict[str, Any]:
        """Plain data; a path is written in full, so that it is found from anywhere."""
        spec = self.name if self.name in catalog.GRAPH_SETS else str(Path(self.spec).resolve())
        return {"spec": spec, "root": self.root, **asdict(self.reading)}


def open_graphs(
    source: GraphSetSource, *, fit: FeatureFit | None = None, device: torch.device | str = "cpu"
) -> GraphSet:
    """The set, cleaned and split, on the device.

    Args:
        source: What set.
        fit: Preprocessing of the features in place of the one that the reading names.
        device: Where to.

    Raises:
        ValueError: If there is no such set, or it cannot be read or used; the message names the fix.
    """
    how = source.reading
    fit = fit or values.fit_of(how.features)
    options: dict[str, Any] = {"seed": how.split_seed, **({} if fit is None else {"fit": fit})}
    if source.name in catalog.GRAPH_SETS:
        named: GraphSet = catalog.GRAPH_SETS[source.name].load(source.root, **options)
        return named.to(device)
    if source.root is not None:
        raise ValueError(f"The data root is for sets with a name, which {source.spec!r} is not; leave it out.")
    if not catalog.is_graph_set(source.spec):
        hint = catalog.did_you_mean(source.spec, catalog.GRAPH_SETS)
        raise ValueError(
            f"There is no set of graphs {source.spec!r}{hint}; give a name that `condensery datasets` lists, or a "
            "folder with NAME_A.txt, NAME_graph_indicator.txt and NAME_graph_labels.txt."
        )
    try:
        return tu_graphs(source.spec, None if how.name == "auto" else how.name, **options).to(device)
    except ValueError as error:
        sentence = str(error).replace("give name= one that is there", "name one with --set name=NAME")
        raise ValueError(sentence) from error


def digest_of(data: GraphSet) -> str:
    """What a set holds: it changes if any feature, edge, label or part of the split does."""
    return records.digest(f"{data.classes}", (data.x, data.edges, data.sizes, data.y, *data.split, data.weights))


# --- a run
# --------------------------------------------------------------------------------------------------------------------


@dataclass
class GraphSetRun:
    """A run in memory, ready for its first or next step.

    Attributes:
        plan: What is to be done.
        data: The real graphs, on the device.
        seed: Of everything random but the split.
        synthetic: The synthetic graphs.
        objective: The method.
        optimizer: Over the synthetic graphs.
    """

    plan: GraphSetPlan
    data: GraphSet
    seed: int
    synthetic: Graphs
    objective: Objective
    optimizer: torch.optim.Optimizer

    @property
    def result(self) -> GraphSet:
        """The graphs as they would be kept now: an edge is there or not."""
        made: Graphs = result(self.synthetic, self.objective)
        return made.to_set(self.data)


def settings(plan: GraphSetPlan, source: GraphSetSource, data: GraphSet, *, seed: int) -> dict[str, Any]:
    """What makes a run another one if it changes, as plain data."""
    plain = plan.to_json()
    plain.pop("origin")
    where = {"data": source.to_json(), "graphs": digest_of(data), "seed": seed, "device": data.device.type}
    return {"plan": plain, **where}


def build(plan: GraphSetPlan, data: GraphSet, *, seed: int = 0) -> GraphSetRun:
    """Make the parts of a run.

    Args:
        plan: Of a method, not of a selection.
        data: On the device where the run is to be.
        seed: Gives one generator to the start of the graphs and one to the method.

    Raises:
        ValueError: If the plan does not fit the graphs.
    """
    for_start, for_method = generators(seed, 2)
    entry = catalog.GRAPH_SET_METHODS[plan.method]
    kinds = values.fields_of(entry.load())
    options = {name: values.object_of(value, kinds[name]) for name, value in plan.options.items()}
    net = Net(build_network(plan.network, data))
    synthetic = _start(plan, data, for_start)
    objective = entry.load()(net, data, for_method, **options)

    def judged(made: Graphs, budget: float) -> float:
        return _accuracy(plan, data, seed, made.to_set(data), budget)

    objective = keeping_best(objective, plan.run, data.name, data.validation, judged, "graphs")
    return GraphSetRun(plan, data, seed, synthetic, objective, objective.optimizer(synthetic))


def build_network(config: Mapping[str, Any], data: GraphSet) -> nn.Module:
    """A network of a plan for the features and classes of the graphs."""
    return nets.build({**config, "features": data.num_features, "classes": data.num_classes})


def counts_of(plan: GraphSetPlan, data: GraphSet) -> list[int]:
    """Graphs of each class.

    Raises:
        ValueError: If there is not a number for each class, or a class has fewer training graphs.
    """
    each = plan.per_class
    counts = [each] * data.num_classes if isinstance(each, int) else list(each)
    if len(counts) != data.num_classes:
        raise ValueError(
            f"--ipc has {len(counts)} numbers for {data.num_classes} classes; give one number, or one a class."
        )
    there = torch.bincount(data.train_y, minlength=data.num_classes).tolist()
    for name, count, have in zip(data.classes, counts, there, strict=True):
        if count > have:
            raise ValueError(f"Class {name!r} has {have} training graphs and {count} are wanted; ask for fewer.")
    return counts


def advance(run: GraphSetRun, folder: Folder, watch: Watch | None = None) -> Iterator[Progress]:
    """Go on from the folder's last snapshot, or from the start, to the last step.

    Raises:
        NotFinite: If the method diverges; the snapshots stay.
        ValueError: If the snapshots are unusable, or there is nothing to validate on.
    """
    watch = watch or Watch()
    if watch.eval_every and len(run.data.validation) == 0:
        raise ValueError(f"{run.data.name} has no validation graphs to look at; leave --eval-every out.")
    yield from follow(run, folder, watch, validate=lambda: validation_accuracy(run, watch.eval_budget))


def finish(run: GraphSetRun, folder: Folder, source: GraphSetSource) -> GraphSetArtifact:
    """Write the artifact: the last file, because it says that the run is finished."""
    how = {**spent_on(folder, run.plan.steps), **kept_step(run.objective, run.synthetic)}
    artifact = _artifact(run.plan, run.data, run.result, source, seed=run.seed, how=how)
    artifact.save(folder.artifact)
    return artifact


def validation_accuracy(run: GraphSetRun, budget: float = 1.0) -> float:
    """Train one network on the graphs as they are, and score its last pass on the validation graphs."""
    known = kept_accuracy(run.objective, run.synthetic, run.plan.run, budget)
    return _accuracy(run.plan, run.data, run.seed, run.result, budget) if known is None else known


def _accuracy(plan: GraphSetPlan, data: GraphSet, seed: int, graphs: GraphSet, budget: float) -> float:
    """On the validation graphs, of the last pass of one network that is trained on graphs."""
    (generator,) = generators(seed, 1)
    net = Net(build_network(plan.test, data))
    fitted = fit_graphs(net, graphs, shortened(plan.evaluation.recipe(), budget=budget), generator)
    return accuracy(graph_logits(net, fitted.last, data, data.validation), data.y[data.validation])


def shortened(recipe: GraphRecipe, *, epochs: int | None = None, budget: float = 1.0) -> GraphRecipe:
    """A recipe of another length.

    Args:
        recipe: The recipe.
        epochs: Its passes; by default as many as it has.
        budget: Share of them to do.

    Raises:
        ValueError: If the share is not positive.
    """
    if not 0 < budget < float("inf"):
        raise ValueError(f"A budget of {budget} is no share; give a positive number such as 0.1.")
    return recipe.with_epochs(max(1, round((recipe.epochs if epochs is None else epochs) * budget)))


def full_recipe(recipe: GraphRecipe, epochs: int) -> GraphRecipe:
    """How networks are trained on all graphs: a condensed set's recipe, but few passes, with a look after each."""
    return recipe.with_epochs(epochs, check_every=1)


def _start(plan: GraphSetPlan, data: GraphSet, generator: Generator) -> Graphs:
    """The graphs that a run starts from: real ones of at most so many nodes."""
    start = cast(GraphSetStart, plan.run)
    nodes = start.nodes or round(float(data.sizes[data.train].float().mean()))
    small = replace(data, train=data.train[data.sizes[data.train] <= nodes])
    there = torch.bincount(small.train_y, minlength=data.num_classes).tolist()
    for name, count, have in zip(data.classes, counts_of(plan, data), there, strict=True):
        if count > have:
            raise ValueError(
                f"Class {name!r} has {have} training graphs of at most {nodes} nodes, {count} are needed to start "
                "from; ask for fewer graphs, or for more nodes with --set nodes=N."
            )
    entry = catalog.GRAPH_SET_CORESETS[start.init]
    return Graphs.from_index(data, _chosen(entry, plan, small, GraphSelection(), {}, generator), nodes)


# --- selections
# --------------------------------------------------------------------------------------------------------------------


def select(plan: GraphSetPlan, data: GraphSet, source: GraphSetSource, *, seed: int = 0) -> GraphSetArtifact:
    """Select training graphs as a plan says.

    Args:
        plan: Of a selection.
        data: The graphs; only those that train are looked at.
        source: Where they come from, written down.
        seed: Of a network that embeds the graphs, and of the choice.

    Raises:
        ValueError: If the plan does not fit the graphs.
    """
    start, (generator,) = time.perf_counter(), generators(seed, 1)
    entry, kinds = catalog.GRAPH_SET_CORESETS[plan.method], values.fields_of(GraphSelection)
    seen = GraphSelection(**{k: v for k, v in plan.options.items() if k in kinds})  # type: ignore[arg-type]
    own = {k: v for k, v in plan.options.items() if k not in kinds}
    index = _chosen(entry, plan, data, seen, own, generator)
    how = {"steps": 0, "seconds": time.perf_counter() - start, "loss": None}
    return _artifact(plan, data, data.subset(index), source, seed=seed, how=how, indices=index.cpu())


def random_graphs(data: GraphSet, counts: list[int]) -> Callable[[Generator], GraphSet]:
    """Draws random training graphs, as many of each class, or all where there are fewer."""
    there = torch.bincount(data.train_y, minlength=data.num_classes).tolist()
    wanted = [min(k, size) for k, size in zip(counts, there, strict=True)]
    choose = catalog.GRAPH_SET_CORESETS["random"].load()
    return lambda generator: data.subset(data.train[choose(None, data.train_y, wanted, generator=generator)])


def _chosen(
    entry: catalog.Coreset,
    plan: GraphSetPlan,
    data: GraphSet,
    seen: GraphSelection,
    own: Mapping[str, Any],
    generator: Generator,
) -> Tensor:
    """Training graphs, int64, in order of their classes."""
    counts = counts_of(plan, data)
    embeddings = _embedded(plan, data, seen, generator) if entry.needs else None
    return data.train[entry.load()(embeddings, data.train_y, counts, generator=generator, **own)]


def _embedded(plan: GraphSetPlan, data: GraphSet, seen: GraphSelection, generator: Generator) -> Tensor:
    """What stands for each training graph ``[g, d]``."""
    if seen.embedding == "features":
        x = data.batch(data.train)
        total = x.features.new_zeros(len(x.sizes), data.num_features).index_add(0, x.owner, x.features)
        return total / x.sizes[:, None]
    net = Net(build_network(plan.test, data))
    theta = fit_graphs(net, data, full_recipe(plan.evaluation.recipe(), seen.proxy_epochs), generator).last
    return graph_embeddings(net, theta, data, data.train)


def _artifact(
    plan: GraphSetPlan,
    data: GraphSet,
    graphs: GraphSet,
    source: GraphSetSource,
    *,
    seed: int,
    how: Mapping[str, Any],
    indices: Tensor | None = None,
) -> GraphSetArtifact:
    plain = json.loads(json.dumps(plan.to_json()))
    parts = ("per_class", "options", "run", "network", "data", "evaluation")
    sizes = dict(zip(("train", "validation", "test"), map(len, data.split), strict=True))
    real = {"graphs": len(data), "nodes": len(data.x), "edges": data.edges.shape[1] // 2, "train": len(data.train)}
    return GraphSetArtifact(
        graphs=replace(graphs.to("cpu"), name=f"{data.name}-condensed", notes=()),
        recipe=plan.evaluation.recipe(),
        network=nets.describe(build_network(plan.test, data)),
        dataset=data.name,
        method=plan.title,
        real=real,
        options={name: plain[name] for name in parts if plain[name] not in (None, {})},
        seed=seed,
        split={**sizes, "notes": list(data.notes)},
        indices=indices,
        provenance={**how, **made_from(plan, data.device, source.to_json())},
    )


# --- scores
# --------------------------------------------------------------------------------------------------------------------


def trained_on(
    train: GraphSet | Callable[[Generator], GraphSet],
    data: GraphSet,
    network: nn.Module,
    recipe: GraphRecipe,
    *,
    name: str,
    n: int,
    seed: int = 0,
) -> Iterator[Row]:
    """Train n networks on graphs, one after the other; the rows together are one of a table (`evaluate.score.merged`).

    Args:
        train: What is trained on, or what draws graphs for each network.
        data: The real graphs that validate and test.
        network: The architecture.
        recipe: How each is trained.
        name: For the table.
        n: How many.
        seed: Of the first; the next have the next numbers.
    """
    draws = generators(seed, n)
    for number in range(n):
        graphs = train if isinstance(train, GraphSet) else train(draws[number])
        yield score_graphs(name, Net(network), [graphs], data, recipe, seed=seed + number, size=size_of(graphs))


def size_of(graphs: GraphSet) -> dict[str, Any]:
    """Graphs that train, with their nodes and undirected edges."""
    inside = torch.zeros(len(graphs), dtype=torch.bool, device=graphs.device)
    inside[graphs.train] = True
    edges = int(inside[graphs.owner[graphs.edges[0]]].sum()) // 2
    return {"graphs": len(graphs.train), "nodes": int(graphs.sizes[graphs.train].sum()), "edges": edges}


def check_fits(artifact: GraphSetArtifact, data: GraphSet) -> None:
    """That networks trained on condensed graphs can be tested on real ones.

    Raises:
        ValueError: If features or classes differ, or nothing validates or tests.
    """
    width = artifact.graphs.num_features
    if width != data.num_features or artifact.classes != data.classes:
        raise ValueError(
            f"The condensed graphs have {width} features and {len(artifact.classes)} classes, {data.name} has "
            f"{data.num_features} and {data.num_classes}; give with --data the set that they were made from."
        )
    check_split(data)


def check_split(data: GraphSet) -> None:
    """That there are graphs to validate and to test on.

    Raises:
        ValueError: If there are not.
    """
    if not len(data.validation) or not len(data.test):
        raise ValueError(
            f"{data.name} has {len(data.validation)} validation and {len(data.test)} test graphs, too few for a score; "
            "give a larger set."
        )
