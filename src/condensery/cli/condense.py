"""``condensery condense`` and ``condensery select``: make a small set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condensery.catalog import CORESETS, DOMAINS, DataSource, Kind, find
from condensery.cli import kinds
from condensery.cli import options as o
from condensery.cli.alike import done_of, facts_of, watched
from condensery.cli.console import Interrupted, again, duration, emit, note, say, size

if TYPE_CHECKING:
    from condensery.artifact import Artifact
    from condensery.recipes import PerClass, Plan
    from condensery.runs import Folder, Watch


def condense(
    context: typer.Context,
    data: o.Data,
    method: Annotated[str, typer.Option(help="How; see 'condensery methods'.", rich_help_panel="Run")] = "dm",
    ipc: o.Ipc = "1",
    ratio: o.Ratio = None,
    nodes: o.Nodes = None,
    set_: o.Set = None,
    fast: o.Fast = False,
    budget: o.Budget = 1.0,
    seed: o.Seed = 0,
    device: o.Where = o.Device.auto,
    out: o.Out = None,
    experts: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the experts that the method matches; default: where 'condensery experts' puts them.",
            rich_help_panel="Run",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.", rich_help_panel="Run")
    ] = False,
    eval_every: Annotated[
        int,
        typer.Option(
            min=0,
            help="Steps between measurements of validation accuracy; 0 for none.",
            rich_help_panel="Scores",
        ),
    ] = 0,
    eval_budget: o.EvalBudget = 1.0,
    keep_best: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="Keep the set with the best validation accuracy, looked for every so many steps, rather than the "
            "last; of each look keep_budget is the share of the recipe (see --set).",
            rich_help_panel="Run",
            show_default=False,
        ),
    ] = None,
    snapshot_every: Annotated[
        int,
        typer.Option(min=1, help="Steps between snapshots (at least one a minute is written).", rich_help_panel="Run"),
    ] = 1000,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard files too.", rich_help_panel="Run")
    ] = False,
    whiten: o.Whitening = None,
    net: o.Network = None,
    width: o.Width = None,
    norm: o.Normalisation = None,
    data_root: o.DataRoot = None,
    size: o.Size = None,
    validation: o.Validation = 0.1,
    as_json: o.Json = False,
) -> None:
    """Learn a few images or graphs, a short log or a small graph that train models nearly as well as all of DATA."""
    from condensery import recipes, runs
    from condensery.cli import graph_sets, graphs, logs

    kind = kinds.decide([method], data)
    taken = ("data", "method", "ratio", "set_", "budget", "seed", "device", "out", "resume", "as_json", "data_root")
    looks_of = ("eval_every", "snapshot_every", "tensorboard")
    set_ = [*([] if keep_best is None else [f"keep_every={keep_best}"]), *(set_ or [])]
    if kind is Kind.GRAPH:
        kinds.only_for(context, kind, *taken, *looks_of, "nodes", "eval_budget", "keep_best", "net", "width")
        settings = (*graphs.network_settings(net, width), *set_)
        wanted = graphs.Asked(data, method, graphs.Size(nodes, ratio), settings, data_root, seed, device.value, out)
        watching = runs.Watch(snapshot_every, eval_every, eval_budget, tensorboard)
        graphs.condense(wanted, budget=budget, watch=watching, resume=resume, as_json=as_json)
        return
    if kind is Kind.GRAPH_SET:
        more = ("ipc", "eval_budget", "keep_best", "net", "width")
        kinds.only_for(context, kind, *taken, *looks_of, *more, without=("ratio",))
        settings = (*graphs.network_settings(net, width), *set_)
        many = graph_sets.Asked(data, method, per_class(ipc), settings, data_root, seed, device.value, out)
        watching = runs.Watch(snapshot_every, eval_every, eval_budget, tensorboard)
        graph_sets.condense(many, budget=budget, watch=watching, resume=resume, as_json=as_json)
        return
    if kind is Kind.LOG:
        kinds.only_for(context, kind, *taken, *looks_of)
        asked = logs.Asked(data, method, ratio, tuple(set_), data_root, seed, device.value, out)
        looks = (snapshot_every, eval_every, tensorboard)
        logs.condense(asked, budget=budget, watch=looks, resume=resume, as_json=as_json)
        return
    if method.lower() in CORESETS:
        raise ValueError(f"{method} chooses real images; use: condensery select DATA --coreset {method}.")
    kinds.no_sizes(ratio=ratio, nodes=nodes)
    source = DataSource(data, data_root, size, validation)
    network = network_options(net, width, norm)
    matches = recipes.takes_experts(method.lower())
    known = set(recipes.names(method.lower()))
    if fast and "precision" not in known:
        raise ValueError(
            f"--fast does nothing for {method}, of which no part is compiled or in lower precision; leave it out."
        )
    overrides = [
        *quick(fast, device=device.value, experts=matches, known=known),
        *set_,
        *([f"whiten={whiten.value}"] if whiten else []),
    ]
    whole = recipes.load(method, source.name, per_class(ipc), overrides=overrides, network=network)
    plan = whole.with_budget(budget)
    announce(whole, plan)
    folder = runs.Folder(out or default_folder(plan, source, seed))
    watch = runs.Watch(snapshot_every, eval_every, eval_budget, tensorboard)
    given = {"seed": seed, "device": device.value, "watch": watch, "resume": resume, "experts": experts}
    artifact = condense_into(folder, plan, source, **given)  # type: ignore[arg-type]
    report(artifact, folder, as_json=as_json)


def select(
    context: typer.Context,
    data: o.Data,
    coreset: Annotated[
        str, typer.Option(help="Which selection; see 'condensery methods'.", rich_help_panel="Run")
    ] = "herding",
    ipc: o.Ipc = "1",
    ratio: o.Ratio = None,
    nodes: o.Nodes = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            help="What it sees of an image: pixels, random-net or trained-net; of a node or graph: features or "
            "trained-net; default: the recipe's.",
            rich_help_panel="Run",
            show_default=False,
        ),
    ] = None,
    set_: o.Set = None,
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
    """Choose real images, graphs, interactions of a log or nodes of a graph that stand for all of DATA: a coreset.

    For a graph, coarsening merges nodes instead.
    """
    from condensery import recipes, runs
    from condensery.cli import graph_sets, graphs, logs

    kind = kinds.decide([coreset], data)
    taken = ("data", "coreset", "ratio", "set_", "seed", "device", "out", "data_root", "as_json")
    find(DOMAINS[kind].coresets, coreset, "coreset")
    if kind is Kind.GRAPH:
        kinds.only_for(context, kind, *taken, "nodes", "embedding")
        settings = (*([f"embedding={embedding}"] if embedding else []), *(set_ or ()))
        wanted = graphs.Asked(data, coreset, graphs.Size(nodes, ratio), settings, data_root, seed, device.value, out)
        graphs.select(wanted, as_json=as_json)
        return
    if kind is Kind.GRAPH_SET:
        kinds.only_for(context, kind, *taken, "ipc", "embedding", without=("ratio",))
        settings = (*([f"embedding={embedding}"] if embedding else []), *(set_ or ()))
        many = graph_sets.Asked(data, coreset, per_class(ipc), settings, data_root, seed, device.value, out)
        graph_sets.select(many, as_json=as_json)
        return
    if kind is Kind.LOG:
        kinds.only_for(context, kind, *taken)
        asked = logs.Asked(data, coreset, ratio, tuple(set_ or ()), data_root, seed, device.value, out)
        logs.select(asked, as_json=as_json)
        return
    kinds.no_sizes(ratio=ratio, nodes=nodes)
    source = DataSource(data, data_root, size, validation)
    overrides = [*(set_ or []), *([f"whiten={whiten.value}"] if whiten else [])]
    overrides += [f"embedding={embedding}"] if embedding else []
    network = network_options(net, width, norm)
    plan = recipes.load(coreset, source.name, per_class(ipc), overrides=overrides, network=network)
    folder = runs.Folder(out or default_folder(plan, source, seed))
    if folder.settings.is_file():
        raise ValueError(f"{folder.path} holds a set already; choose another --out.")
    artifact = select_into(folder, plan, source, seed=seed, device=device.value)
    report(artifact, folder, as_json=as_json)


def condense_into(
    folder: Folder,
    plan: Plan,
    source: DataSource,
    *,
    seed: int,
    device: str,
    watch: Watch,
    resume: bool,
    experts: Path | None = None,
) -> Artifact:
    """Do a run in a folder, or what is left of it, with a progress bar."""
    from condensery import planned_experts, runs
    from condensery.artifact import Artifact

    ways = planned_experts.experts_for(plan, source, experts)
    opened = runs.open_data(source, whiten=plan.start.whiten, device=runs.pick_device(device))
    run = runs.build(plan, opened, seed=seed, experts=ways)
    if plan.experts is not None and run.experts is not None:
        note(f"{run.experts['count']} experts from {ways} (the recipe has {plan.experts.count})")
    folder.claim(run.settings(source), resume=resume)
    if folder.finished:
        note(f"{folder.path} is finished already; nothing is left to do.")
        return Artifact.load(folder.artifact)
    try:
        watched(runs.advance(run, folder, watch), plan.steps)
        return runs.finish(run, folder, source)
    except KeyboardInterrupt:
        raise Interrupted(f"go on with: {again('--resume')}") from None


def select_into(folder: Folder, plan: Plan, source: DataSource, *, seed: int, device: str) -> Artifact:
    """Choose a coreset and write it into a folder."""
    from condensery import runs, selecting
    from condensery.cli.console import notes

    opened = runs.open_data(source, whiten=plan.start.whiten, device=runs.pick_device(device))
    with notes().status(f"{plan.title}: choosing among {len(opened.train)} images"):
        artifact = selecting.select(plan, opened, source, seed=seed)
    identity = {key: value for key, value in plan.to_json().items() if key != "origin"}
    folder.claim({"plan": identity, "data": source.to_json(), "seed": seed}, resume=True)
    runs.write(artifact, folder)
    return artifact


def quick(
    fast: bool,
    *,
    device: str = "auto",
    experts: bool = False,
    known: Container[str] | None = None,
) -> list[str]:
    """The settings of ``--fast``: before the user's own, which count more. Where the device has no bfloat16, that is
    left out, with a note.

    Args:
        fast: Whether it was asked for.
        device: Where.
        experts: Whether those of the training of experts are wanted too.
        known: The names of the settings that there are; the others are left out. ``None``: all.

    Raises:
        ValueError: If there is nothing to compile with.
    """
    if not fast:
        return []
    from condensery import runs

    chosen = {"precision": "bf16", "compiled": "true"}
    if not runs.has_bfloat16(runs.pick_device(device)):
        del chosen["precision"]
        does = "compiles only" if known is None or "compiled" in known else "changes nothing here"
        note(f"This processor has no bfloat16, in which it would be slower: --fast {does}.")
    if experts:
        chosen |= {f"experts.{name}": value for name, value in chosen.items()}
    settings = [f"{name}={value}" for name, value in chosen.items() if known is None or name in known]
    compiled = any("compiled" in setting for setting in settings)
    if compiled and not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
        raise ValueError("--fast compiles, and there is no C++ compiler here; install g++ or leave --fast out.")
    return settings


def announce(whole: Plan, plan: Plan) -> None:
    """Say where the settings come from, and what a budget makes of them."""
    note(f"{plan.title}: {'; '.join(plan.origin)}")
    if plan.budget != 1.0:
        note(f"budget {plan.budget:g}: {whole.steps} -> {plan.steps} steps")


def per_class(text: str) -> PerClass:
    """Images, or graphs, per class from text.

    Raises:
        ValueError: If it is neither a number nor a list of numbers.

    Example:
        >>> per_class("10"), per_class("1,0,3")
        (10, (1, 0, 3))
    """
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--ipc takes a whole number, or one for each class as 1,2,3, not {text!r}.") from None
    return counts[0] if len(counts) == 1 else counts


def network_options(net: str | None, width: int | None, norm: o.Norm | None) -> dict[str, str]:
    """The network that the options ask for, as far as they do."""
    given: dict[str, Any] = {"net": net, "width": width, "norm": norm.value if norm else None}
    return {key: str(value) for key, value in given.items() if value is not None}


def default_folder(plan: Plan, source: DataSource, seed: int) -> Path:
    """Where a run goes that was given no folder."""
    counts = "ipc" + ("-".join(map(str, plan.per_class)) if isinstance(plan.per_class, tuple) else str(plan.per_class))
    return Path("runs") / f"{source.short}-{plan.method}-{counts[:40]}-seed{seed}"


def report(artifact: Artifact, folder: Folder, *, as_json: bool) -> None:
    """Say what was made and where it is."""
    spent, how = artifact.spent, artifact.provenance
    if as_json:
        files = {
            "folder": folder.path,
            "artifact": folder.artifact,
            "picture": folder.picture,
            "log": folder.log,
        }
        paths = {key: str(path) for key, path in files.items() if path.exists()}
        facts = facts_of(how)
        named = {"method": artifact.method, "dataset": artifact.dataset, "per_class": artifact.per_class}
        emit({**named, **facts, "seed": artifact.seed, "spent": spent, **paths})
        return
    steps = f"{done_of(how)}, " if how.get("steps") else ""
    images = f"{spent['images']} images ({size(spent['bytes'])})"
    say(f"{artifact.method} on {artifact.dataset}: {images}, {steps}{duration(how.get('seconds', 0.0))}")
    say(f"  set      {folder.artifact}")
    say(f"  picture  {folder.picture}")
    if folder.log.is_file():
        say(f"  log      {folder.log}")
    say(f"  next     condensery evaluate {folder.path}")
