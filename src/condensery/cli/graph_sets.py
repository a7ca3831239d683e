"""Sets of graphs on the command line: what `condense`, `select`, `evaluate`, `compare` and others do for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condensery import catalog
from condensery.catalog import GRAPH_SET_CORESETS
from condensery.cli import alike, cells
from condensery.cli.console import Interrupted, again, emit, note, progress, say, show
from condensery.cli.console import size as bytes_of

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from condensery.data.graph_sets import GraphSet
    from condensery.evaluate.score import Row
    from condensery.graph_fitting import GraphRecipe
    from condensery.graph_set_artifact import GraphSetArtifact
    from condensery.graph_set_runs import GraphSetSource
    from condensery.recipes import PerClass
    from condensery.recipes.graph_sets import GraphSetPlan
    from condensery.runs import Folder, Watch


# --- condense and select
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What was asked of a run.

    Attributes:
        data: The set as typed.
        method: The method or selection.
        per_class: Graphs of each class.
        overrides: Settings.
        root: Folder of a named set.
        seed: Of everything random but the split.
        device: Where to compute.
        out: The folder, or ``None`` for the default one.
    """

    data: str
    method: str
    per_class: PerClass
    overrides: tuple[str, ...] = ()
    root: str | None = None
    seed: int = 0
    device: str = "auto"
    out: Path | None = None

    def plan(self) -> GraphSetPlan:
        """Its settings."""
        from condensery.recipes import graph_sets

        return graph_sets.load(self.method, _name(self.data), self.per_class, overrides=self.overrides)

    def source(self, plan: GraphSetPlan) -> GraphSetSource:
        """Its data."""
        from condensery.graph_set_runs import GraphSetSource

        return GraphSetSource(self.data, self.root, plan.data)


def condense(asked: Asked, *, budget: float, watch: Watch, resume: bool, as_json: bool) -> None:
    """``condensery condense`` for a set of graphs.

    Args:
        asked: What is wanted.
        budget: Share of the recipe's steps.
        watch: What is kept and looked at on the way.
        resume: Whether to go on with the run that is there.
        as_json: Whether the result is printed as JSON.
    """
    from condensery import runs

    if asked.method.lower() in GRAPH_SET_CORESETS:
        raise ValueError(f"{asked.method} chooses real graphs; use: condensery select DATA --coreset {asked.method}.")
    whole = asked.plan()
    plan = whole.with_budget(budget)
    _announce(whole, plan)
    folder = runs.Folder(asked.out or _default_folder(plan, asked))
    report(condense_into(folder, plan, asked, watch=watch, resume=resume), folder, as_json=as_json)


def select(asked: Asked, *, as_json: bool) -> None:
    """``condensery select`` for a set of graphs."""
    from condensery import runs

    plan = asked.plan()
    folder = runs.Folder(asked.out or _default_folder(plan, asked))
    if folder.settings.is_file():
        raise ValueError(f"{folder.path} holds a set already; choose another --out.")
    report(select_into(folder, plan, asked), folder, as_json=as_json)


def condense_into(folder: Folder, plan: GraphSetPlan, asked: Asked, *, watch: Watch, resume: bool) -> GraphSetArtifact:
    """Do a run in a folder, or what is left of it, with a progress bar."""
    from condensery import graph_set_runs

    source = asked.source(plan)
    data = open_graphs(source, asked.device)
    run = graph_set_runs.build(plan, data, seed=asked.seed)
    folder.claim(graph_set_runs.settings(plan, source, data, seed=asked.seed), resume=resume)
    if folder.finished:
        note(f"{folder.path} is finished already; nothing is left to do.")
        return load(folder.artifact)
    try:
        alike.watched(graph_set_runs.advance(run, folder, watch), plan.steps)
        return graph_set_runs.finish(run, folder, source)
    except KeyboardInterrupt:
        raise Interrupted(f"go on with: {again('--resume')}") from None


def select_into(folder: Folder, plan: GraphSetPlan, asked: Asked) -> GraphSetArtifact:
    """Select graphs and write them into a folder."""
    from condensery import graph_set_runs
    from condensery.cli.console import notes

    source = asked.source(plan)
    data = open_graphs(source, asked.device)
    with notes().status(f"{plan.title}: choosing among {len(data.train):,} training graphs"):
        artifact = graph_set_runs.select(plan, data, source, seed=asked.seed)
    folder.claim(graph_set_runs.settings(plan, source, data, seed=asked.seed), resume=True)
    artifact.save(folder.artifact)
    return artifact


def load(path: Path) -> GraphSetArtifact:
    """A condensed set of graphs from a file or a run's folder."""
    from condensery.graph_set_artifact import GraphSetArtifact

    return GraphSetArtifact.load(alike.file_of(path))


def open_graphs(source: GraphSetSource, device: str, fit: Any = None) -> GraphSet:
    """The graphs, with what was cleaned in them said."""
    from condensery import graph_set_runs, runs
    from condensery.cli.console import notes

    with notes().status(f"reading {source.spec}"):
        data = graph_set_runs.open_graphs(source, fit=fit, device=runs.pick_device(device))
    for sentence in data.notes:
        note(sentence)
    return data


def report(artifact: GraphSetArtifact, folder: Folder, *, as_json: bool) -> None:
    """Say what was made and where it is."""
    more = {"per_class": artifact.per_class}
    alike.report(artifact, folder, _size(artifact), "graphs", more, as_json=as_json)


def _announce(whole: GraphSetPlan, plan: GraphSetPlan) -> None:
    note(f"{plan.title}: {'; '.join(plan.origin)}")
    if plan.budget != 1.0:
        note(f"budget {plan.budget:g}: {whole.steps} -> {plan.steps} steps")


def _default_folder(plan: GraphSetPlan, asked: Asked) -> Path:
    return Path("runs") / f"{asked.source(plan).short}-{plan.method}-{plan.size}-seed{asked.seed}"


def _size(artifact: GraphSetArtifact) -> str:
    spent, real = artifact.spent, artifact.real
    share = f"{100 * spent['share_of_training_graphs']:.3g} % of {real['train']:,} training graphs"
    inside = f"{spent['nodes']:,} nodes and {spent['edges']:,} edges in them"
    return f"{spent['graphs']:,} graphs ({share}), {inside}, {bytes_of(spent['bytes'])}"


def _name(data: str) -> str:
    return data.lower() if data.lower() in catalog.GRAPH_SETS else data


# --- evaluate
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scoring:
    """How sets of graphs are scored.

    Attributes:
        n: Networks for each row.
        seed: Of the first.
        full: Whether there is a row of all graphs.
        epochs: Of each training, or ``None`` for the recipe's.
        budget: Share of the recipe's passes.
        full_epochs: Passes over all graphs for their row.
    """

    n: int = 5
    seed: int = 0
    full: bool = True
    epochs: int | None = None
    budget: float = 1.0
    full_epochs: int = 20

    def recipe(self, recipe: GraphRecipe) -> GraphRecipe:
        """A recipe with as many passes as wanted."""
        from condensery.graph_set_runs import shortened

        return shortened(recipe, epochs=self.epochs, budget=self.budget)


def evaluate(path: Path, scoring: Scoring, where: alike.Where, *, nets: str | None, save: bool, as_json: bool) -> None:
    """``condensery evaluate`` for a condensed set of graphs.

    Args:
        path: Its file or its run's folder.
        scoring: How it is scored.
        where: On which data and device.
        nets: Networks, as `networks` reads them.
        save: Whether the scores are written into the file too.
        as_json: Whether they are printed as JSON.
    """
    from condensery import graph_set_runs
    from condensery.evaluate.score import Scores

    artifact = load(path)
    data = open_graphs(source_of(artifact, where), where.device, fit=lambda _: artifact.preprocessing)
    graph_set_runs.check_fits(artifact, data)
    modules = networks(nets, artifact)
    recipe = scoring.recipe(artifact.training_recipe())
    try:
        rows = list(_rows(artifact, data, modules, recipe, scoring))
    except KeyboardInterrupt:
        raise Interrupted(f"nothing was left half-written; run again: {again()}") from None
    scores = Scores(tuple(rows), data.name, graph_set_runs.FULL).to_json()
    if save:
        replace(artifact, scores=scores).save(alike.file_of(path))
    if as_json:
        emit({**scores, "artifact": str(path), "recipe": describe(recipe)})
        return
    show(table_of(scores))
    say(f"Networks are trained by the set's recipe: {describe(recipe)}{_on_all(scoring)}. {_ANEW}")
    alike.tell_kept(artifact.provenance)


_ANEW = "Random graphs are drawn anew for each network."


def _on_all(scoring: Scoring) -> str:
    return f" ({scoring.full_epochs} passes over the full data)" if scoring.full else ""


def _rows(
    artifact: GraphSetArtifact, data: GraphSet, modules: Sequence[nn.Module], recipe: GraphRecipe, scoring: Scoring
) -> Iterator[Row]:
    """Rows of the set, of random graphs of the same number, and of all graphs, for each network."""
    from condensery import graph_set_runs

    parts: dict[str, tuple[Any, GraphRecipe]] = {
        artifact.method: (artifact.graphs.to(data.device), recipe),
        graph_set_runs.RANDOM: (graph_set_runs.random_graphs(data, artifact.per_class), recipe),
    }
    if scoring.full:
        parts[graph_set_runs.FULL] = (data, graph_set_runs.full_recipe(recipe, scoring.full_epochs))
    with progress(len(modules) * len(parts) * scoring.n, "networks", "training") as bar:
        for module in modules:
            for name, (part, how) in parts.items():
                rows = graph_set_runs.trained_on(part, data, module, how, name=name, n=scoring.n, seed=scoring.seed)
                yield alike.one_row(rows, type(module).__name__, name, lambda text: bar.add(1, text))


def source_of(artifact: GraphSetArtifact, where: alike.Where) -> GraphSetSource:
    """Where an artifact's graphs are: as recorded, or elsewhere, read in the same way.

    Raises:
        ValueError: If they are neither recorded nor given.
    """
    from condensery.graph_set_runs import GraphSetSource
    from condensery.recipes import graph_sets

    spec, root, plain = alike.recorded(artifact, where, "set")
    return GraphSetSource(spec, root, graph_sets.reading(plain))


def networks(names: str | None, artifact: GraphSetArtifact) -> list[nn.Module]:
    """Networks for graphs by name, as ``PooledGCN,PooledGIN:pool=sum``; default: the set's own.

    Raises:
        ValueError: For one that there is not, or an argument that it does not take.
    """
    from condensery import nets
    from condensery.cli.evaluate import build_networks

    if names is None:
        return [artifact.build_network()]
    zoo = (nets.POOLED, catalog.pooled_network_name, ("features", "classes"))
    return build_networks(names, artifact.network, *zoo)


def table_of(scores: Mapping[str, Any], *, sizes: bool = False) -> Table:
    """A table of scores for people."""
    headings = ("last pass", "pass chosen\non validation", "share of\nfull data", "graphs", "nodes", "edges")
    asked = "graphs\nper class" if sizes else ""
    units = ("graphs", "nodes", "edges")
    return alike.score_table(scores, headings, lambda size: [f"{size[unit]:,.0f}" for unit in units], asked)


def describe(recipe: GraphRecipe) -> str:
    """A recipe in a phrase."""
    looks = "every pass" if recipe.check_every == 1 else f"every {recipe.check_every} passes"
    passes = f"{recipe.epochs} passes in batches of {recipe.batch}"
    return f"{passes}, Adam {recipe.lr:g}, a look at the validation graphs {looks}"


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
    asked: Asked, methods: str, sizes: Sequence[int], scoring: Scoring, *, budget: float, as_json: bool
) -> None:
    """``condensery compare`` for a set of graphs: methods x sizes, each cell in a folder of its own."""
    from condensery.graph_set_runs import RANDOM, GraphSetSource
    from condensery.recipes import graph_sets

    names = [catalog.graph_set_entry(name.strip()).name for name in methods.split(",")]
    suited = cells.applicable(names, asked.overrides, graph_sets.names)
    short = GraphSetSource(asked.data).short
    root = asked.out or Path("runs") / f"compare-{short}-seed{asked.seed}"
    plans = [
        graph_sets.load(method, _name(asked.data), size, overrides=suited[method]) for size in sizes for method in names
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
    recipe = describe(scoring.recipe(plans[0].evaluation.recipe())) + _on_all(scoring)
    anew = f" {_ANEW}" if any(r["name"] == RANDOM for r in rows) else ""
    say(f"Sets: {root}. Trained as: {recipe}.{anew}")


def _cells(plans: list[GraphSetPlan], shared: Comparison) -> Iterator[dict[str, Any]]:
    """The rows of all sets, after each size that of random graphs, then that of all; for each way of training."""
    from condensery import graph_set_runs

    opened: dict[str, GraphSet] = {}

    def data_of(plan: GraphSetPlan) -> GraphSet:
        key = repr(plan.data)
        if key not in opened:
            opened[key] = open_graphs(shared.asked.source(plan), shared.asked.device)
            graph_set_runs.check_split(opened[key])
        return opened[key]

    for size in dict.fromkeys(plan.per_class for plan in plans):
        group = [plan for plan in plans if plan.per_class == size]
        for plan in group:
            yield {**_cell(plan, shared, data_of), "asked": str(size)}
        for plan in {cells.way_of(plan): plan for plan in reversed(group)}.values():
            if not any(p.method == "random" and cells.way_of(p) == cells.way_of(plan) for p in group):
                data = data_of(plan)
                draw = graph_set_runs.random_graphs(data, graph_set_runs.counts_of(plan, data))
                entry = cells.Entry(graph_set_runs.RANDOM, draw, {"random": plan.size})
                yield {**_scored(entry, plan, shared, data), "asked": str(size)}
    if shared.scoring.full:
        for plan in {cells.way_of(plan): plan for plan in reversed(plans)}.values():
            recipe = graph_set_runs.full_recipe(plan.evaluation.recipe(), shared.scoring.full_epochs)
            entry = cells.Entry(graph_set_runs.FULL, data_of(plan), {"full": True}, recipe)
            yield {**_scored(entry, plan, shared, data_of(plan)), "asked": "all"}


def _cell(whole: GraphSetPlan, shared: Comparison, data_of: Callable[[GraphSetPlan], GraphSet]) -> dict[str, Any]:
    """One set made and scored, or found finished."""
    from condensery import graph_set_runs
    from condensery.runs import Folder, Watch

    plan = whole.with_budget(shared.budget)
    folder = Folder(shared.root / f"{plan.method}-{plan.size}")
    data = data_of(plan)
    if plan.is_coreset:
        artifact = cells.chosen(
            folder,
            lambda: graph_set_runs.settings(plan, shared.asked.source(plan), data, seed=shared.asked.seed),
            load,
            lambda: select_into(folder, plan, shared.asked),
        )
    else:
        _announce(whole, plan)
        artifact = condense_into(folder, plan, shared.asked, watch=Watch(), resume=True)
    key = {"artifact": cells.digest(folder.artifact.read_bytes())}
    recipe = shared.scoring.recipe(artifact.training_recipe())
    entry = cells.Entry(artifact.method, artifact.graphs.to(data.device), key, recipe, folder.path)
    return {**_scored(entry, plan, shared, data), "condensing_seconds": artifact.provenance["seconds"]}


def _scored(entry: cells.Entry, plan: GraphSetPlan, shared: Comparison, data: GraphSet) -> dict[str, Any]:
    """A row computed, or found finished."""
    from condensery import graph_set_runs, nets

    scoring, module = shared.scoring, graph_set_runs.build_network(plan.test, data)
    recipe = scoring.recipe(plan.evaluation.recipe()) if entry.recipe is None else entry.recipe
    where = graph_set_runs.digest_of(data)
    what = {**entry.key, "name": entry.name, "n": scoring.n, "seed": scoring.seed, "data": where}
    what |= {"recipe": repr(recipe), "network": nets.describe(module)}
    folder = entry.folder or shared.root / f"{entry.name.replace(' ', '-')}-{cells.digest(what)}"

    def row(tell: Callable[[str], None]) -> Row:
        of = (entry.part, data, module, recipe)
        rows = graph_set_runs.trained_on(*of, name=entry.name, n=scoring.n, seed=scoring.seed)
        return alike.one_row(rows, type(module).__name__, entry.name, tell)

    done: dict[str, Any] = cells.scored(folder / "scores.json", what, scoring.n, entry.name, row)
    return done


# --- looking and exporting
# --------------------------------------------------------------------------------------------------------------------


def export(path: Path, to: str, out: Path) -> None:
    """``condensery export`` for a condensed set of graphs.

    Raises:
        ValueError: For a format of other data, or a file that exists.
    """
    artifact = load(path)
    if to != "tu":
        raise ValueError(f"{path} holds a condensed set of graphs, which {to} cannot; choose --to tu.")
    if out.exists():
        raise ValueError(f"{out} exists already; choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    written, spent = artifact.export_tu(out), artifact.spent
    say(f"{written}: {spent['graphs']:,} graphs, {spent['nodes']:,} nodes, {spent['edges']:,} edges")


def draw(path: Path, out: Path) -> None:
    """``condensery show`` for a condensed set of graphs."""
    from condensery import graph_set_pictures

    artifact = load(path)
    named = catalog.GRAPH_SETS.get(artifact.dataset)
    graph_set_pictures.save(artifact, out, places=None if named is None else named.places)
    shown, total = graph_set_pictures.shown(artifact.graphs), len(artifact.graphs)
    of = "" if shown == total else f" of {total:,}"
    say(f"{out}: {shown}{of} graphs, a row for each class")


def facts(artifact: GraphSetArtifact) -> dict[str, Any]:
    """Everything but the tensors, as plain data."""
    more = {"features": artifact.graphs.num_features, "sizes": artifact.graphs.sizes.tolist()}
    return alike.facts_of_graphs(artifact, more)


def lines(artifact: GraphSetArtifact) -> list[tuple[str, str]]:
    """A condensed set of graphs as people read it: names, and what there is to say of each."""
    sizes = artifact.graphs.sizes
    counts = [f"{name} {count}" for name, count in zip(artifact.classes, artifact.per_class, strict=True)]
    low, high = int(sizes.min()), int(sizes.max())
    each = f"{low}" if low == high else f"{low} to {high}"
    first = [
        ("graphs", f"{_size(artifact)}; {each} nodes each, {artifact.graphs.num_features:,} features"),
        ("graphs of", ", ".join(counts)),
    ]
    last = [("chosen", f"{len(artifact.indices)} graphs of the real set")] if artifact.indices is not None else []
    return alike.lines_of_graphs(artifact, first, last, describe(artifact.training_recipe()))


def old_scores(scores: Mapping[str, Any]) -> Table:
    """The scores that a file carries.

    Raises:
        ValueError: If they are not in this version's form.
    """
    return alike.old_scores(scores, table_of, "set")
