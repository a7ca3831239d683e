"""``condensery compare``: several methods and sizes in one table, made cell by cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condensery.catalog import DataSource, Kind, kind_of, method_or_coreset
from condensery.cli import cells, kinds
from condensery.cli import options as o
from condensery.cli.condense import announce, condense_into, network_options, quick, select_into
from condensery.cli.console import Interrupted, again, duration, emit, note, progress, say, show
from condensery.cli.evaluate import announce_full, describe_recipe, make_protocol, with_passes

if TYPE_CHECKING:
    from rich.table import Table

    from condensery.artifact import Artifact
    from condensery.data import ImageData
    from condensery.fitting import Recipe
    from condensery.recipes import Plan
    from condensery.runs import Folder
    from condensery.scoring import Part, Protocol


_USUAL = {
    Kind.IMAGES: "dm,herding",
    Kind.LOG: "dconrec,majority",
    Kind.GRAPH: "gcond,herding",
    Kind.GRAPH_SET: "doscond-graphs,herding",
}


@dataclass(frozen=True)
class Options:
    """What all cells share.

    Attributes:
        source: The data.
        root: The folder of the comparison.
        seed: Of the runs.
        device: Where to compute.
        budget: Share of the outer steps.
        eval_budget: Share of the evaluation's passes.
        protocol: How sets are scored.
    """

    source: DataSource
    root: Path
    seed: int
    device: str
    budget: float
    eval_budget: float
    protocol: Protocol


def compare(
    context: typer.Context,
    data: o.Data,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods and coresets, as dm,dc,herding; default: dm,herding, for a log dconrec,majority, for a graph "
            "gcond,herding, for a set of graphs doscond-graphs,herding.",
            rich_help_panel="Run",
            show_default=False,
        ),
    ] = None,
    ipc: Annotated[
        str, typer.Option(help="Images, or graphs of a set, per class, as 1,10.", rich_help_panel="Run")
    ] = "1",
    ratio: Annotated[
        str | None,
        typer.Option(
            help="Shares of a log to keep, or of a graph's training nodes, as 0.25,0.5; default: 0.25.",
            rich_help_panel="Run",
            show_default=False,
        ),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(help="Nodes of a condensed graph, as 35,70.", rich_help_panel="Run", show_default=False),
    ] = None,
    set_: o.Set = None,
    fast: o.Fast = False,
    budget: o.Budget = 1.0,
    eval_budget: o.EvalBudget = 1.0,
    n: o.N = 5,
    checks: o.Checks = 0,
    jobs: o.Jobs = 1,
    full: o.Full = True,
    full_epochs: o.FullEpochs = 20,
    seed: o.Seed = 0,
    device: o.Where = o.Device.auto,
    out: o.Out = None,
    whiten: o.Whitening = None,
    net: o.Network = None,
    width: o.Width = None,
    norm: o.Normalisation = None,
    data_root: o.DataRoot = None,
    size: o.Size = None,
    validation: o.Validation = 0.1,
    as_json: o.Json = False,
) -> None:
    """Condense DATA by several methods to several sizes and print one table.

    Each cell has a folder of its own; finished cells are not done again, so that an interrupted comparison
    goes on where it was.
    """
    from condensery import recipes
    from condensery.cli import graph_sets, graphs, logs

    chosen = methods or _USUAL[kind_of(data) or Kind.IMAGES]
    kind = kinds.decide((name.strip() for name in chosen.split(",")), data)
    taken = ("data", "methods", "ratio", "set_", "budget", "eval_budget", "n", "full", "seed", "device", "out")
    if kind is Kind.GRAPH:
        kinds.only_for(context, kind, *taken, "nodes", "data_root", "as_json", "net", "width")
        settings = (*graphs.network_settings(net, width), *(set_ or ()))
        sizes = graphs.sizes_of(nodes, ratio)
        wanted = graphs.Asked(data, "", sizes[0], settings, data_root, seed, device.value, out)
        scored = graphs.Scoring(n, seed, full, None, eval_budget)
        graphs.compare(wanted, chosen, sizes, scored, budget=budget, as_json=as_json)
        return
    if kind is Kind.GRAPH_SET:
        more = ("ipc", "full_epochs", "data_root", "as_json", "net", "width")
        kinds.only_for(context, kind, *taken, *more, without=("ratio",))
        settings = (*graphs.network_settings(net, width), *(set_ or ()))
        many = graph_sets.Asked(data, "", 1, settings, data_root, seed, device.value, out)
        rated = graph_sets.Scoring(n, seed, full, None, eval_budget, full_epochs)
        graph_sets.compare(many, chosen, numbers(ipc), rated, budget=budget, as_json=as_json)
        return
    if kind is Kind.LOG:
        kinds.only_for(context, kind, *taken, "data_root", "as_json")
        asked = logs.Asked(data, "", None, tuple(set_ or ()), data_root, seed, device.value, out)
        how = logs.Scoring(n, seed, full, None, eval_budget)
        logs.compare(asked, chosen, ratio, how, budget=budget, as_json=as_json)
        return
    kinds.no_sizes(ratio=ratio, nodes=nodes)
    source = DataSource(data, data_root, size, validation)
    faster = quick(fast, device=device.value, experts=True)
    overrides = [*faster, *(set_ or []), *([f"whiten={whiten.value}"] if whiten else [])]
    network = network_options(net, width, norm)
    names = [method_or_coreset(name.strip()).name for name in chosen.split(",")]
    suited = cells.applicable(names, overrides, recipes.names, optional=faster)
    plans = [
        recipes.load(name, source.name, count, overrides=suited[name], network=dict(network))
        for count in numbers(ipc)
        for name in names
    ]
    root = out or Path("runs") / f"compare-{source.short}-seed{seed}"
    protocol = make_protocol(n, checks, jobs, seed, full=full, full_epochs=full_epochs, faster=faster)
    shared = Options(source, root, seed, device.value, budget, eval_budget, protocol)
    try:
        lines = list(made(plans, shared)) + list(ceilings(plans, shared))
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"finished cells are kept in {root}; go on with: {again()}") from None
    plain = {"dataset": source.name, "folder": str(root), "rows": with_recovery(lines)}
    if as_json:
        emit(plain)
        return
    show(table_of(plain))
    say(
        f"Sets, pictures and logs: {root}. Random subsets are drawn anew for each network and trained as the "
        "column says."
    )


def numbers(text: str) -> list[int]:
    """Several numbers of images, or graphs, per class.

    Raises:
        ValueError: If the text is not a list of numbers.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--ipc takes whole numbers as 1,10, not {text!r}.") from None


def made(plans: list[Plan], shared: Options) -> Iterator[dict[str, Any]]:
    """The rows of all sets, and after each size those of random subsets, one for each way of training."""
    for count in dict.fromkeys(plan.per_class for plan in plans):
        ways: dict[str, Plan] = {}
        for plan in (plan for plan in plans if plan.per_class == count):
            ways.setdefault(json.dumps(way(plan)), plan)
            yield cell(plan, shared)
        for plan in ways.values():
            yield baseline(plan, shared)


def way(plan: Plan) -> dict[str, Any]:
    """How networks are trained under a plan, whatever the set: random subsets depend on nothing else."""
    plain = identity(plan)
    return {key: plain[key] for key in ("per_class", "network", "evaluation")} | {"whiten": plan.start.whiten}


def cell(whole: Plan, shared: Options) -> dict[str, Any]:
    """One set made and scored, or found finished."""
    from condensery.runs import Folder, Watch

    plan = whole.with_budget(shared.budget)
    folder = Folder(shared.root / f"{plan.method}-ipc{plan.per_class}")
    found = finished(folder, shared, identity(plan))
    if found is not None:
        note(f"{plan.title}, {plan.per_class} per class: found finished in {folder.path}")
        return found
    announce(whole, plan)
    given = {"seed": shared.seed, "device": shared.device}
    if plan.is_coreset:
        artifact = select_into(folder, plan, shared.source, **given)  # type: ignore[arg-type]
    else:
        artifact = condense_into(folder, plan, shared.source, watch=Watch(), resume=True, **given)  # type: ignore[arg-type]
    row = score(artifact, plan, shared)
    keep(folder, shared, identity(plan), row)
    return row


def score(artifact: Artifact, plan: Plan, shared: Options) -> dict[str, Any]:
    """The row of a set."""
    from condensery import scoring

    shortened = with_passes(artifact, None, shared.eval_budget)
    protocol = replace(shared.protocol, full=None, baselines=False)
    data = open_data(plan, shared)
    total = scoring.expected(shortened, data, 1, protocol)
    row = watched(scoring.table(shortened, data, [artifact.build_network()], protocol), total)
    made = artifact.provenance["seconds"]
    return {**row, **described(plan, shortened.training_recipe()), "condensing_seconds": made}


def baseline(plan: Plan, shared: Options) -> dict[str, Any]:
    """Random subsets of a plan's size, trained as its set is, or found finished."""
    from condensery import scoring
    from condensery.runs import Folder, build_network
    from condensery.synthetic import counts_per_class

    key = hashlib.blake2b(json.dumps(way(plan), sort_keys=True).encode(), digest_size=4).hexdigest()
    folder = Folder(shared.root / f"random-ipc{plan.per_class}-{key}")
    found = finished(folder, shared, way(plan))
    if found is not None:
        return found
    data = open_data(plan, shared)
    recipe = plan.evaluation.recipe().scaled(shared.eval_budget)
    per_class = plan.per_class if isinstance(plan.per_class, int) else list(plan.per_class)
    counts = counts_per_class(per_class, data.num_classes)
    module = build_network(plan.network, data)
    parts = scoring.random_rows(counts, recipe, data, module, shared.protocol)
    row = watched(parts, shared.protocol.trials.n * scoring.images_in(recipe, sum(counts)))
    row |= described(plan, recipe)
    keep(folder, shared, way(plan), row)
    return row


def watched(parts: Iterator[Part], total: float) -> dict[str, Any]:
    """The one row of some parts, with a progress bar."""
    from condensery import scoring

    done = []
    with progress(total, "", "training") as bar:
        for part in parts:
            done.append(part)
            bar.add(part.images, f"{part.rows[0].name} {100 * part.rows[0].last.mean:.1f} %")
    if all(part.cached for part in done):
        note("full data: accuracies from the cache")
    (row,) = scoring.join(done, "").rows
    return row.to_json()


def open_data(plan: Plan, shared: Options) -> ImageData:
    """The data as a plan wants them."""
    from condensery import runs

    return runs.open_data(shared.source, whiten=plan.start.whiten, device=runs.pick_device(shared.device))


def described(plan: Plan, recipe: Recipe) -> dict[str, Any]:
    """What a row says beside its scores."""
    return {"per_class": plan.per_class, "recipe": describe_recipe(recipe), "whiten": plan.start.whiten}


def keep(folder: Folder, shared: Options, what: dict[str, Any], row: dict[str, Any]) -> None:
    """Write down a finished row."""
    from condensery.store import write_text

    folder.path.mkdir(parents=True, exist_ok=True)
    plain = {"settings": scoring_settings(shared), "what": what, "row": row}
    write_text(folder.scores, json.dumps(plain, indent=1))


def scoring_settings(shared: Options) -> dict[str, Any]:
    """What makes scores other ones if it changes."""
    trials = shared.protocol.trials
    return {
        "data": shared.source.to_json(),
        "seed": shared.seed,
        "n": trials.n,
        "checks": trials.checks,
        "eval_budget": shared.eval_budget,
        "fast": trials.execution.compiled,
    }


def identity(plan: Plan) -> dict[str, Any]:
    """A plan as it is compared."""
    plain: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    plain.pop("origin")
    return plain


def said(what: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data without what is ``None``: a setting that an earlier version did not have is the same as none."""
    from condensery.runs import flatten

    return {key: value for key, value in flatten(what).items() if value is not None}


def finished(folder: Folder, shared: Options, what: dict[str, Any]) -> dict[str, Any] | None:
    """The row of a cell that was scored before under the same settings.

    Raises:
        ValueError: If the cell was made under other settings.
    """
    if not folder.scores.is_file():
        return None
    try:
        found = json.loads(folder.scores.read_text(encoding="utf-8"))
        same_set, same_scoring = said(found["what"]) == said(what), found["settings"] == scoring_settings(shared)
        row: dict[str, Any] = found["row"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # damaged: scored again
    if not same_set:
        raise ValueError(f"{folder.path} was made with other settings; choose another --out.")
    return row if same_scoring else None


def ceilings(plans: list[Plan], shared: Options) -> Iterator[dict[str, Any]]:
    """The full-data row of each network that the plans use."""
    from condensery import runs, scoring

    if shared.protocol.full is None:
        return
    kinds = {json.dumps([plan.network, plan.start.whiten]): plan for plan in reversed(plans)}
    for plan in reversed(kinds.values()):
        data = open_data(plan, shared)
        module = runs.build_network(plan.network, data)
        announce_full(data, [module], shared.protocol)
        recipe = scoring.full_recipe(len(data.train), shared.protocol.full)
        images = scoring.images_in(recipe, len(data.train)) * shared.protocol.trials.n
        row = watched(scoring.full_rows(data, module, shared.protocol), images)
        yield {**row, **described(plan, recipe), "per_class": None}


def with_recovery(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the share of the full data's accuracy that each reaches."""
    full = {(r["network"], r["whiten"]): r["last"]["mean"] for r in rows if r["per_class"] is None}
    keyed = [(row, full.get((row["network"], row["whiten"]))) for row in rows]
    return [{**row, "recovery": row["last"]["mean"] / top if top else None} for row, top in keyed]


def table_of(plain: dict[str, Any]) -> Table:
    """The comparison for people."""
    from rich.table import Table

    rows = plain["rows"]
    table = Table(title=f"Test accuracy on {plain['dataset']}, %", title_justify="left")
    headings = (
        "images\nper class",
        "trained on",
        "network",
        "last pass",
        "share of\nfull data",
        "trained by",
        "time to\nmake",
        "time to\nscore",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("trained on", "network", "trained by") else "right")
    before: Any = rows[0]["per_class"] if rows else None
    for row in rows:
        if row["per_class"] != before:
            table.add_section()
        before = row["per_class"]
        made = row.get("condensing_seconds")
        table.add_row(
            "all" if row["per_class"] is None else str(row["per_class"]),
            row["name"],
            row["network"],
            accuracy_of(row["last"]),
            "" if row["recovery"] is None else f"{100 * row['recovery']:.1f} %",
            row["recipe"],
            "" if made is None else duration(made),
            duration(row["seconds"]),
        )
    return table


def accuracy_of(score: dict[str, Any]) -> str:
    """A score from plain data, for a table."""
    spread = "" if score["std"] is None else f" ± {100 * score['std']:.1f}"
    return f"{100 * score['mean']:.1f}{spread} (n={score['n']})"
