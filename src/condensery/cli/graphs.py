"""Graphs on the command line: what `condense`, `select`, `evaluate`, `compare` and others do for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condensery import catalog
from condensery.catalog import GRAPH_CORESETS
from condensery.cli import alike, cells
from condensery.cli.console import Interrupted, again, emit, note, progress, say, show
from condensery.cli.console import size as bytes_of

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from condensery.data.graphs import GraphData
    from condensery.evaluate.score import Row
    from condensery.graph_artifact import GraphArtifact
    from condensery.graph_runs import GraphRun, GraphSource
    from condensery.node_fitting import NodeRecipe
    from condensery.recipes.graphs import GraphPlan
    from condensery.runs import Folder, Watch

RATIO = 0.25
"""Share of the training nodes where no size is asked for."""


# --- condense and select
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How many nodes: a number, or a share of the training nodes; a quarter of them by default."""

    nodes: int | None = None
    ratio: float | None = None

    def to_plan(self) -> dict[str, Any]:
        """As a plan is loaded with.

        Raises:
            ValueError: If both are given.
        """
        if self.nodes is not None and self.ratio is not None:
            raise ValueError("--nodes and --ratio say the same thing; give one of them.")
        nothing = self.nodes is None and self.ratio is None
        return {"nodes": self.nodes, "ratio": RATIO if nothing else self.ratio}


@dataclass(frozen=True)
class Asked:
    """What was asked of a run.

    Attributes:
        data: The graph as typed.
        method: The method or selection.
        size: How many nodes.
        overrides: Settings.
        root: Folder of a named graph.
        seed: Of everything random but the split.
        device: Where to compute.
        out: The folder, or ``None`` for the default one.
    """

    data: str
    method: str
    size: Size
    overrides: tuple[str, ...] = ()
    root: str | None = None
    seed: int = 0
    device: str = "auto"
    out: Path | None = None

    def plan(self) -> GraphPlan:
        """Its settings."""
        from condensery.recipes import graphs

        return graphs.load(self.method, _name(self.data), **self.size.to_plan(), overrides=self.overrides)

    def source(self, plan: GraphPlan) -> GraphSource:
        """Its data."""
        from condensery.graph_runs import GraphSource

        return GraphSource(self.data, self.root, plan.data)


def network_settings(net: str | None, width: int | None) -> list[str]:
    """``--net`` and ``--width`` as settings of the network to condense with."""
    given = {"net.net": net, "net.width": width}
    return [f"{name}={value}" for name, value in given.items() if value is not None]


def condense(asked: Asked, *, budget: float, watch: Watch, resume: bool, as_json: bool) -> None:
    """``condensery condense`` for a graph.

    Args:
        asked: What is wanted.
        budget: Share of the recipe's steps.
        watch: What is kept and looked at on the way.
        resume: Whether to go on with the run that is there.
        as_json: Whether the result is printed as JSON.
    """
    from condensery import runs

    if asked.method.lower() in GRAPH_CORESETS:
        does = "merges" if GRAPH_CORESETS[asked.method.lower()].merges else "chooses"
        raise ValueError(f"{asked.method} {does} real nodes; use: condensery select DATA --coreset {asked.method}.")
    whole = asked.plan()
    plan = whole.with_budget(budget)
    _announce(whole, plan)
    folder = runs.Folder(asked.out or _default_folder(plan, asked))
    report(condense_into(folder, plan, asked, watch=watch, resume=resume), folder, as_json=as_json)


def select(asked: Asked, *, as_json: bool) -> None:
    """``condensery select`` for a graph."""
    from condensery import runs

    plan = asked.plan()
    folder = runs.Folder(asked.out or _default_folder(plan, asked))
    if folder.settings.is_file():
        raise ValueError(f"{folder.path} holds a set already; choose another --out.")
    report(select_into(folder, plan, asked), folder, as_json=as_json)


def condense_into(folder: Folder, plan: GraphPlan, asked: Asked, *, watch: Watch, resume: bool) -> GraphArtifact:
    """Do a run in a folder, or what is left of it, with a progress bar."""
    from condensery import graph_runs

    source = asked.source(plan)
    data = open_graph(source, asked.device)
    run = _built(plan, data, asked.seed)
    folder.claim(graph_runs.settings(plan, source, data, seed=asked.seed), resume=resume)
    if folder.finished:
        note(f"{folder.path} is finished already; nothing is left to do.")
        return load(folder.artifact)
    try:
        alike.watched(graph_runs.advance(run, folder, watch), plan.steps)
        return graph_runs.finish(run, folder, source)
    except KeyboardInterrupt:
        raise Interrupted(f"go on with: {again('--resume')}") from None


def _built(plan: GraphPlan, data: GraphData, seed: int) -> GraphRun:
    """A run; the experts that it matches, if it does, are recorded first, with a progress bar."""
    from condensery import graph_runs

    if plan.experts is None:
        return graph_runs.build(plan, data, seed=seed)
    try:
        with progress(plan.experts.count, "experts", "looking") as bar:
            return graph_runs.build(plan, data, seed=seed, on_experts=lambda done, _: bar.at(done, "recorded"))
    except KeyboardInterrupt:
        raise Interrupted(f"experts that are done are kept; go on with: {again()}") from None


def select_into(folder: Folder, plan: GraphPlan, asked: Asked) -> GraphArtifact:
    """Select nodes, or merge them, and write the graph into a folder."""
    from condensery import graph_runs
    from condensery.cli.console import notes

    source = asked.source(plan)
    data = open_graph(source, asked.device)
    merges = catalog.GRAPH_CORESETS[plan.method].merges
    doing = f"merging {data.num_nodes:,} nodes" if merges else f"choosing among {len(data.train):,} training nodes"
    with notes().status(f"{plan.title}: {doing}"):
        artifact = graph_runs.select(plan, data, source, seed=asked.seed)
    for sentence in _merged(artifact):
        note(sentence)
    folder.claim(graph_runs.settings(plan, source, data, seed=asked.seed), resume=True)
    artifact.save(folder.artifact)
    return artifact


def load(path: Path) -> GraphArtifact:
    """A condensed graph from a file or a run's folder."""
    from condensery.graph_artifact import GraphArtifact

    return GraphArtifact.load(alike.file_of(path))


def open_graph(source: GraphSource, device: str, fit: Any = None) -> GraphData:
    """The graph, with what was cleaned in it said."""
    from condensery import graph_runs, runs
    from condensery.cli.console import notes

    with notes().status(f"reading {source.spec}"):
        data = graph_runs.open_graph(source, fit=fit, device=runs.pick_device(device))
    for sentence in data.notes:
        note(sentence)
    return data


def report(artifact: GraphArtifact, folder: Folder, *, as_json: bool) -> None:
    """Say what was made and where it is."""
    more = {"per_class": artifact.per_class}
    alike.report(artifact, folder, _size(artifact), "graph", more, as_json=as_json)


def _announce(whole: GraphPlan, plan: GraphPlan) -> None:
    note(f"{plan.title}: {'; '.join(plan.origin)}")
    if plan.budget != 1.0:
        note(f"budget {plan.budget:g}: {whole.steps} -> {plan.steps} steps")


def _default_folder(plan: GraphPlan, asked: Asked) -> Path:
    return Path("runs") / f"{asked.source(plan).short}-{plan.method}-{plan.size}-seed{asked.seed}"


def _size(artifact: GraphArtifact) -> str:
    spent, real = artifact.spent, artifact.real
    training, every = (100 * spent[key] for key in ("share_of_training_nodes", "share_of_nodes"))
    shares = f"{training:.3g} % of {real['train']:,} training nodes, {every:.3g} % of all {real['nodes']:,}"
    labelled = "" if spent["labelled"] == spent["nodes"] else f", {spent['labelled']:,} of them with a label"
    return f"{spent['nodes']:,} nodes ({shares}){labelled}, {spent['edges']:,} edges, {bytes_of(spent['bytes'])}"


def _name(data: str) -> str:
    return data.lower() if data.lower() in catalog.GRAPHS else data


# --- evaluate
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scoring:
    """How graphs are scored.

    Attributes:
        n: Networks for each row.
        seed: Of the first.
        full: Whether there is a row of the whole graph.
        steps: Of each training, or ``None`` for the recipe's.
        budget: Share of the recipe's steps.
    """

    n: int = 5
    seed: int = 0
    full: bool = True
    steps: int | None = None
    budget: float = 1.0

    def recipe(self, recipe: NodeRecipe) -> NodeRecipe:
        """A recipe with as many steps as wanted."""
        from condensery.graph_runs import shortened

        return shortened(recipe, steps=self.steps, budget=self.budget)


def evaluate(path: Path, scoring: Scoring, where: alike.Where, *, nets: str | None, save: bool, as_json: bool) -> None:
    """``condensery evaluate`` for a condensed graph.

    Args:
        path: Its file or its run's folder.
        scoring: How it is scored.
        where: On which data and device.
        nets: Networks, as `networks` reads them.
        save: Whether the scores are written into the file too.
        as_json: Whether they are printed as JSON.
    """
    from condensery import graph_runs
    from condensery.evaluate.score import Scores

    artifact = load(path)
    data = open_graph(source_of(artifact, where), where.device, fit=lambda _: artifact.preprocessing)
    graph_runs.check_fits(artifact, data)
    modules = networks(nets, artifact)
    recipe = scoring.recipe(artifact.training_recipe())
    try:
        rows = list(_rows(artifact, data, modules, recipe, scoring))
    except KeyboardInterrupt:
        raise Interrupted(f"nothing was left half-written; run again: {again()}") from None
    scores = Scores(tuple(rows), data.name, graph_runs.FULL).to_json()
    if save:
        replace(artifact, scores=scores).save(alike.file_of(path))
    if as_json:
        emit({**scores, "artifact": str(path), "recipe": describe(recipe)})
        return
    show(table_of(scores))
    say(f"All rows are trained alike: {describe(recipe)}. Random nodes are drawn anew for each network.")
    alike.tell_kept(artifact.provenance)


def _rows(
    artifact: GraphArtifact, data: GraphData, modules: Sequence[nn.Module], recipe: NodeRecipe, scoring: Scoring
) -> Iterator[Row]:
    """Rows of the graph, of random nodes of the same number, and of the whole graph, for each network."""
    from condensery import graph_runs
    from condensery.node_fitting import Nodes

    parts: dict[str, Any] = {
        artifact.method: artifact.nodes(device=data.device),
        graph_runs.RANDOM: graph_runs.random_nodes(data, graph_runs.random_counts(artifact, data)),
    }
    parts |= {graph_runs.FULL: Nodes.training(data)} if scoring.full else {}
    with progress(len(modules) * len(parts) * scoring.n, "networks", "training") as bar:
        for module in modules:
            for name, part in parts.items():
                rows = graph_runs.trained_on(part, data, module, recipe, name=name, n=scoring.n, seed=scoring.seed)
                yield alike.one_row(rows, type(module).__name__, name, lambda text: bar.add(1, text))


def source_of(artifact: GraphArtifact, where: alike.Where) -> GraphSource:
    """Where an artifact's graph is: as recorded, or elsewhere, read in the same way.

    Raises:
        ValueError: If it is neither recorded nor given.
    """
    from condensery.graph_runs import GraphSource
    from condensery.recipes import graphs

    spec, root, plain = alike.recorded(artifact, where, "graph")
    return GraphSource(spec, root, graphs.reading(plain))


def networks(names: str | None, artifact: GraphArtifact) -> list[nn.Module]:
    """Graph networks by name, as ``GCN,SGC:hops=3``; default: the graph's own.

    Raises:
        ValueError: For one that there is not, or an argument that it does not take.
    """
    from condensery import nets
    from condensery.cli.evaluate import build_networks

    if names is None:
        return [artifact.build_network()]
    zoo = (nets.GRAPH, catalog.graph_network_name, ("features", "classes"))
    return build_networks(names, artifact.network, *zoo)


def table_of(scores: Mapping[str, Any], *, sizes: bool = False) -> Table:
    """A table of scores for people."""
    headings = ("last step", "step chosen\non validation", "share of\nfull graph", "nodes that\ntrain", "edges")
    asked = "size" if sizes else ""
    return alike.score_table(scores, headings, lambda size: (_nodes(size), f"{size['edges']:,.0f}"), asked)


def describe(recipe: NodeRecipe) -> str:
    """A recipe in a phrase."""
    looks = "every step" if recipe.check_every == 1 else f"every {recipe.check_every} steps"
    return f"{describe_training(recipe)}, a look at the validation nodes {looks}"


def describe_training(recipe: NodeRecipe) -> str:
    """The same where nothing is looked at on the way."""
    return f"{recipe.steps} steps, {type(recipe.optimizer).__name__} {recipe.optimizer.lr:g}"


def _nodes(size: Mapping[str, Any]) -> str:
    """Nodes that train, and of how many where there are others around them."""
    seen = size.get("seen", size["nodes"])
    return f"{size['nodes']:,.0f}" + ("" if seen == size["nodes"] else f" of {seen:,.0f}")


# --- compare
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What all cells of a comparison share."""

    asked: Asked
    root: Path
    budget: float
    scoring: Scoring


def compare(
    asked: Asked, methods: str, sizes: Sequence[Size], scoring: Scoring, *, budget: float, as_json: bool
) -> None:
    """``condensery compare`` for a graph: methods x sizes, each cell in a folder of its own."""
    from condensery.graph_runs import RANDOM, GraphSource
    from condensery.recipes import graphs

    names = [catalog.graph_entry(name.strip()).name for name in methods.split(",")]
    suited = cells.applicable(names, asked.overrides, graphs.names)
    short = GraphSource(asked.data).short
    root = asked.out or Path("runs") / f"compare-{short}-seed{asked.seed}"
    plans = [
        graphs.load(method, _name(asked.data), **size.to_plan(), overrides=suited[method])
        for size in sizes
        for method in names
    ]
    try:
        rows = cells.with_recovery(list(_cells(plans, Comparison(asked, root, budget, scoring))))
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"finished cells are kept in {root}; go on with: {again()}") from None
    plain = {"dataset": short, "folder": str(root), "rows": rows}
    if as_json:
        emit(plain)
        return
    show(table_of(plain, sizes=True))
    recipe = describe(scoring.recipe(plans[0].evaluation.recipe()))
    anew = " Random nodes are drawn anew for each network." if any(r["name"] == RANDOM for r in rows) else ""
    say(f"Graphs: {root}. Trained as: {recipe}.{anew}")


def sizes_of(nodes: str | None, ratios: str | None) -> list[Size]:
    """The sizes of a comparison.

    Raises:
        ValueError: If a text is not a list of numbers, or both are given.
    """
    if nodes is not None and ratios is not None:
        raise ValueError("--nodes and --ratio say the same thing; give one of them.")
    try:
        if nodes is not None:
            return [Size(nodes=int(part)) for part in nodes.split(",")]
        return [Size(ratio=float(part)) for part in (str(RATIO) if ratios is None else ratios).split(",")]
    except ValueError:
        text = f"--nodes takes whole numbers as 35,70, not {nodes!r}"
        raise ValueError(
            f"{text if nodes is not None else f'--ratio takes numbers as 0.25,0.5, not {ratios!r}'}."
        ) from None


def _cells(plans: list[GraphPlan], shared: Comparison) -> Iterator[dict[str, Any]]:
    """The rows of all graphs, after each size that of random nodes, then the full graph's; for each way of training."""
    from condensery import graph_runs
    from condensery.node_fitting import Nodes

    opened: dict[str, GraphData] = {}

    def data_of(plan: GraphPlan) -> GraphData:
        key = repr(plan.data)
        if key not in opened:
            opened[key] = open_graph(shared.asked.source(plan), shared.asked.device)
        return opened[key]

    for size in dict.fromkeys(plan.size for plan in plans):
        group = [plan for plan in plans if plan.size == size]
        for plan in group:
            yield {**_cell(plan, shared, data_of), "asked": _asked(plan)}
        for plan in {cells.way_of(plan): plan for plan in reversed(group)}.values():
            if not any(p.method == graph_runs.RANDOM and cells.way_of(p) == cells.way_of(plan) for p in group):
                data = data_of(plan)
                counts = graph_runs.shares_of(replace(plan, run=None), data)
                entry = cells.Entry(graph_runs.RANDOM, graph_runs.random_nodes(data, counts), {"random": size})
                yield {**_scored(entry, plan, shared, data), "asked": _asked(plan)}
    if shared.scoring.full:
        for plan in {cells.way_of(plan): plan for plan in reversed(plans)}.values():
            entry = cells.Entry(graph_runs.FULL, Nodes.training(data_of(plan)), {"full": True})
            yield {**_scored(entry, plan, shared, data_of(plan)), "asked": "all"}


def _asked(plan: GraphPlan) -> str:
    return f"{100 * plan.ratio:g} %" if plan.ratio is not None else str(plan.nodes)


def _cell(whole: GraphPlan, shared: Comparison, data_of: Callable[[GraphPlan], GraphData]) -> dict[str, Any]:
    """One graph made and scored, or found finished."""
    from condensery import graph_runs
    from condensery.runs import Folder, Watch

    plan = whole.with_budget(shared.budget)
    folder = Folder(shared.root / f"{plan.method}-{plan.size}")
    data = data_of(plan)
    if plan.is_coreset:
        artifact = cells.chosen(
            folder,
            lambda: graph_runs.settings(plan, shared.asked.source(plan), data, seed=shared.asked.seed),
            load,
            lambda: select_into(folder, plan, shared.asked),
        )
    else:
        _announce(whole, plan)
        artifact = condense_into(folder, plan, shared.asked, watch=Watch(), resume=True)
    part, key = artifact.nodes(device=data.device), {"artifact": cells.digest(folder.artifact.read_bytes())}
    entry = cells.Entry(artifact.method, part, key, artifact.training_recipe(), folder.path)
    return {**_scored(entry, plan, shared, data), "condensing_seconds": artifact.provenance["seconds"]}


def _scored(entry: cells.Entry, plan: GraphPlan, shared: Comparison, data: GraphData) -> dict[str, Any]:
    """A row computed, or found finished."""
    from condensery import graph_runs, nets

    scoring, module = shared.scoring, graph_runs.build_network(plan.test, data)
    recipe = scoring.recipe(plan.evaluation.recipe() if entry.recipe is None else entry.recipe)
    what = {**entry.key, "name": entry.name, "n": scoring.n, "seed": scoring.seed, "data": graph_runs.digest_of(data)}
    what |= {"recipe": repr(recipe), "network": nets.describe(module)}
    folder = entry.folder or shared.root / f"{entry.name.replace(' ', '-')}-{cells.digest(what)}"

    def row(tell: Callable[[str], None]) -> Row:
        of = (entry.part, data, module, recipe)
        rows = graph_runs.trained_on(*of, name=entry.name, n=scoring.n, seed=scoring.seed)
        return alike.one_row(rows, type(module).__name__, entry.name, tell)

    done: dict[str, Any] = cells.scored(folder / "scores.json", what, scoring.n, entry.name, row)
    return done


# --- looking and exporting
# --------------------------------------------------------------------------------------------------------------------


def export(path: Path, to: str, out: Path) -> None:
    """``condensery export`` for a condensed graph.

    Raises:
        ValueError: For a format of images, or a file that exists.
    """
    artifact = load(path)
    writers = {"npz": artifact.export_npz, "csv": artifact.export_csv}
    if to not in writers:
        raise ValueError(f"{path} holds a condensed graph, which {to} cannot; choose --to npz or csv.")
    if out.exists():
        raise ValueError(f"{out} exists already; choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    written, spent = writers[to](out), artifact.spent
    say(f"{written}: {spent['nodes']:,} nodes, {spent['edges']:,} edges")


def draw(path: Path, out: Path) -> None:
    """``condensery show`` for a condensed graph."""
    from condensery import graph_pictures

    artifact = load(path)
    graph_pictures.save(artifact, out)
    say(f"{out}: {artifact.spent['nodes']:,} nodes and {artifact.spent['edges']:,} edges, in order of their classes")


def facts(artifact: GraphArtifact) -> dict[str, Any]:
    """Everything but the tensors, as plain data."""
    step, assignment = artifact.graph.step_size, artifact.assignment
    more = {
        "features": artifact.graph.values.shape[1],
        "threshold": artifact.threshold,
        "step_size": None if step is None else float(step.detach()),
        "assignment": None if assignment is None else assignment.tolist(),
    }
    return alike.facts_of_graphs(artifact, more)


def lines(artifact: GraphArtifact) -> list[tuple[str, str]]:
    """A condensed graph as people read it: names, and what there is to say of each."""
    counts = [f"{name} {count}" for name, count in zip(artifact.classes, artifact.per_class, strict=True)]
    without = len(artifact.graph.classes) - sum(artifact.per_class)
    counts += [f"no label {without}"] if without else []
    first = [
        ("graph", f"{_size(artifact)}; {artifact.graph.values.shape[1]:,} features"),
        ("nodes of", ", ".join(counts)),
        ("edges", f"of weight at least {artifact.threshold:g}"),
        ("labels", artifact.graph.kind_of_labels),
    ]
    last = [("chosen", f"{len(artifact.indices)} nodes of the real graph")] if artifact.indices is not None else []
    last += [("merged", " ".join(_merged(artifact)))] if artifact.assignment is not None else []
    return alike.lines_of_graphs(artifact, first, last, describe(artifact.training_recipe()))


def _merged(artifact: GraphArtifact) -> list[str]:
    """What became of the real nodes, a sentence each; nothing of a graph whose nodes were not merged."""
    if artifact.assignment is None:
        return []
    n, total = len(artifact.graph.classes), len(artifact.assignment)
    without, left = n - sum(artifact.per_class), int((artifact.assignment < 0).sum())
    lost = [name for name, count in zip(artifact.classes, artifact.per_class, strict=True) if not count]
    said = [f"Each of the {n:,} nodes is the mean of some of {total - left:,} real ones."]
    said += [f"{without:,} have no training node among these, so no label, and train nothing."] if without else []
    if left:
        unseen = " that training does not see, or" if artifact.split.get("inductive") else ""
        said += [f"{left:,} real nodes{unseen} of components without a training node were left out."]
    said += [f"No node has the label {', '.join(lost)}."] if lost else []
    return said


def old_scores(scores: Mapping[str, Any]) -> Table:
    """The scores that a file carries.

    Raises:
        ValueError: If they are not in this version's form.
    """
    return alike.old_scores(scores, table_of, "graph")
