"""``condensery experts`` and ``condensery convexify``: the trajectories that some methods match."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condensery.catalog import CORESETS, GRAPH_METHODS, METHODS, DataSource, find
from condensery.cli import options as o
from condensery.cli.condense import network_options, per_class, quick
from condensery.cli.console import Interrupted, again, emit, note, progress, say
from condensery.cli.console import size as bytes_of

if TYPE_CHECKING:
    from condensery.experts import Convexified, Store
    from condensery.recipes import Plan


class Rule(str, Enum):  # noqa: UP042  # typer shows the values of a str enum
    """How places on a line follow the recorded epochs."""

    mct = "mct"
    decreasing = "decreasing"
    projected = "projected"
    uniform = "uniform"


MANIFEST = "manifest.json"


def experts(
    data: o.Data,
    method: Annotated[
        str, typer.Option(help="For which method; see 'condensery methods'.", rich_help_panel="Run")
    ] = "mtt",
    ipc: o.Ipc = "1",
    count: Annotated[
        int | None,
        typer.Option(min=1, help="How many; default: the recipe's.", rich_help_panel="Run", show_default=False),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many at the same time: processes of one thread each on a CPU, side by side on a CUDA device.",
            rich_help_panel="Run",
        ),
    ] = 1,
    set_: o.Set = None,
    fast: o.Fast = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the experts.", rich_help_panel="Run")] = 0,
    device: o.Where = o.Device.auto,
    out: Annotated[
        Path | None,
        typer.Option(help="Their folder; default: under runs/experts/.", rich_help_panel="Run", show_default=False),
    ] = None,
    whiten: o.Whitening = None,
    net: o.Network = None,
    width: o.Width = None,
    norm: o.Normalisation = None,
    data_root: o.DataRoot = None,
    size: o.Size = None,
    validation: o.Validation = 0.1,
    as_json: o.Json = False,
) -> None:
    """Train the networks on DATA whose trajectories a method matches, and keep them.

    Only what is not there yet is recorded, so the same command goes on where it was stopped.
    """
    from condensery import planned_experts, recipes

    if method.lower() in GRAPH_METHODS:
        raise ValueError(
            f"Experts on graphs are recorded by the run that matches them; use: condensery condense {data} "
            f"--method {method.lower()}."
        )
    if method.lower() not in CORESETS:
        find(METHODS, method, "method")
    source = DataSource(data, data_root, size, validation)
    matching = recipes.takes_experts(method.lower())
    overrides = [
        *quick(fast, device=device.value, experts=matching),
        *(set_ or []),
        *([f"whiten={whiten.value}"] if whiten else []),
    ]
    overrides += [f"experts.count={count}"] if count is not None else []
    if not matching:
        others = ", ".join(name for name in METHODS if recipes.takes_experts(name))
        raise ValueError(f"{method} matches no experts; choose --method among {others}.")
    network = network_options(net, width, norm)
    plan = recipes.load(method, source.name, per_class(ipc), overrides=overrides, network=network)
    folder = out or planned_experts.experts_folder(plan, source, seed=seed)
    ways = record_into(folder, plan, source, seed=seed, device=device.value, jobs=jobs)
    usual = out is None and seed == 0
    report(
        ways, plan.origin, planned_experts.condensing_command(plan, source, None if usual else folder), as_json=as_json
    )


def convexify(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Experts with every point of their ways.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    interior: Annotated[int, typer.Option(min=0, help="Points kept between the first and the last.")] = 2,
    beta: Annotated[Rule, typer.Option(help="How places between two points follow the recorded epochs.")] = Rule.mct,
    smoothing: Annotated[
        bool, typer.Option("--smoothing", help="Average the points with their neighbours, as MCT's code does.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Keep a few points of experts' ways and lines between them, as MCT matches them: a twelfth of the size."""
    from condensery import experts as library

    source = library.open_experts(folder)
    if not isinstance(source, library.Store):
        raise ValueError(f"{folder} is convexified already; give the folder with every point.")
    rule = library.Beta(beta.value)
    made = library.convexify(source, out, interior=interior, rule=rule, smoothing=smoothing)
    report(made, (), f"condensery condense DATA --method mct --experts {out}", as_json=as_json)


def record_into(
    folder: Path, plan: Plan, source: DataSource, *, seed: int, device: str, jobs: int
) -> Store | Convexified:
    """Record the experts of a plan, or those that are missing, with a progress bar."""
    from condensery import experts as library
    from condensery import planned_experts, runs
    from condensery.net import Net

    settings = plan.experts
    assert settings is not None, "the caller has seen that the method matches experts"
    recording, layout = planned_experts.recording_of(settings, seed=seed), planned_experts.layout_of(settings)
    opened = runs.open_data(source, whiten=plan.start.whiten, device=runs.pick_device(device))
    net = Net(runs.build_network(plan.network, opened))
    note(f"{plan.title}: {'; '.join(plan.origin)}")
    points = len(layout.positions(recording.epochs)) if isinstance(layout, library.Waypoints) else recording.epochs + 1
    room = bytes_of(settings.count * points * net.size * (2 if layout is library.Layout.HALF else 4))
    note(
        f"{settings.count} experts of {net.size:,} parameters, {_epochs(settings.epochs or 0)} each: {room} in {folder}"
    )
    begun = False
    with progress(settings.count, "experts", "starting") as bar:

        def show(done: float, total: int) -> None:
            nonlocal begun
            (bar.at if begun else bar.begin)(done, f"{_epochs(settings.epochs or 0)} each")
            begun = True

        try:
            return library.record(
                folder,
                net,
                opened.train,
                recording,
                count=settings.count,
                jobs=jobs,
                layout=layout,
                name=opened.name,
                on_progress=show,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"experts that were done are kept in {folder}; go on with: {again()}") from None


def report(ways: Store | Convexified, origin: tuple[str, ...], command: str, *, as_json: bool) -> None:
    """Say what was recorded and where it is."""
    facts = facts_of(ways)
    if as_json:
        emit({**facts, **({"recipe": list(origin)} if origin else {}), "next": command})
        return
    say(f"{facts['experts']} experts of {facts['parameters']:,} parameters, {_epochs(facts['epochs'])}: {_size(facts)}")
    say(f"  folder   {facts['folder']}")
    say(f"  look     condensery info {facts['folder']}")
    say(f"  next     {command}")


def facts_of(ways: Store | Convexified) -> dict[str, Any]:
    """What a store is, plain data."""
    from condensery import planned_experts

    described = planned_experts.describe_experts(ways)
    return {
        "folder": str(ways.folder),
        "experts": len(ways),
        "epochs": ways.epochs,
        "parameters": ways.size,
        "layout": described["layout"],
        "waypoints": described["waypoints"],
        "bytes": ways.nbytes,
        "bytes_in_full": len(ways) * (ways.epochs + 1) * ways.size * 4,
        "origin": described["origin"],
    }


def lines_of(ways: Store | Convexified) -> list[tuple[str, str]]:
    """What a store is, for people: names and texts."""
    facts, origin = facts_of(ways), dict(ways.origin)
    data, network = dict(origin.get("data", {})), dict(origin.get("network", {}))
    optimizer, augment = dict(origin.get("optimizer", {})), origin.get("augment")
    preprocessing = {k: v for k, v in dict(origin.get("preprocessing", {})).items() if k != "tensors"}
    trained = f"{optimizer.pop('type', '?')} ({_said(optimizer)}), batches of {origin.get('batch_size', '?')}"
    return [
        ("experts", f"{facts['experts']} of {facts['parameters']:,} parameters, {_epochs(facts['epochs'])} each"),
        ("size", _size(facts)),
        ("data", f"{data.get('name') or '?'}, {data.get('images', '?')} training images"),
        ("preprocessing", _said(preprocessing)),
        ("network", f"{network.pop('net', '?')} ({_said(network)})"),
        ("training", f"{trained}, {origin.get('precision') or 'float32'}, seed {origin.get('seed', '?')}"),
        ("augmentation", _augmentation(augment)),
        *([] if facts["waypoints"] is None else [("waypoints", _said(facts["waypoints"]))]),
    ]


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _size(facts: dict[str, Any]) -> str:
    """How large a store is, beside the size of one with every point in full precision."""
    text = f"{bytes_of(facts['bytes'])}, {facts['layout']}"
    if facts["layout"] == "full":
        return text
    ratio = facts["bytes_in_full"] / facts["bytes"]
    return f"{text} ({bytes_of(facts['bytes_in_full'])} with every point in full precision, {ratio:.1f} times as much)"


def _said(plain: dict[str, Any]) -> str:
    """Plain data as ``name value, name value``."""
    values = {k: v.get("value", v.get("type")) if isinstance(v, dict) else v for k, v in plain.items() if k != "type"}
    return ", ".join(f"{k} {v}" for k, v in values.items() if v is not None)


def _augmentation(plain: Any) -> str:
    """An augmentation by its class and what it may do."""
    if not isinstance(plain, dict):
        return "none"
    operations = (plain.get("siamese") or {}).get("ops", [])
    return f"{plain.get('type')} ({', '.join(str(op.get('type')) for op in operations)})"
