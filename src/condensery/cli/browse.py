"""Commands that look: at an artifact, at what there is, and the demonstration."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condensery.catalog import (
    CALIBRATIONS,
    DATASETS,
    DOMAINS,
    GRAPH_SETS,
    GRAPHS,
    LOGS,
    Coreset,
    Dataset,
    Kind,
    LogSet,
    Method,
    NamedGraph,
    NamedGraphs,
    find,
)
from condensery.cli import experts, graph_sets, graphs, kinds, logs
from condensery.cli import options as o
from condensery.cli.console import duration, emit, say
from condensery.cli.console import show as print_tables
from condensery.cli.console import size as bytes_of
from condensery.cli.evaluate import describe_recipe, load

if TYPE_CHECKING:
    from rich.table import Table

    from condensery.artifact import Artifact


class Format(str, Enum):  # noqa: UP042  # typer shows the values of a str enum
    """A format of other programs."""

    png = "png"
    npz = "npz"
    parquet = "parquet"
    hub = "hub"
    csv = "csv"
    inter = "inter"
    tu = "tu"


_MODULES: dict[Kind, Any] = {Kind.LOG: logs, Kind.GRAPH: graphs, Kind.GRAPH_SET: graph_sets}


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=True)] = Path("runs/demo"),
    as_json: o.Json = False,
) -> None:
    """Condense handwritten digits in about a minute and compare: herding, DM and DSA; then as a graph, by GCond."""
    from condensery import demo as demonstration

    demonstration.run(out, as_json=as_json)


def info(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT",
            help="A condensed set (.safetensors), the folder of its run, or a folder of experts.",
            show_default=False,
        ),
    ],
    as_json: o.Json = False,
) -> None:
    """Print everything that an artifact, or a folder of experts, says about itself."""
    if (artifact / experts.MANIFEST).is_file():
        _experts(artifact, as_json)
        return
    kind = kinds.of_file(artifact)
    if kind is not Kind.IMAGES:
        _other(_MODULES[kind], artifact, as_json)
        return
    loaded = load(artifact)
    if as_json:
        emit(_facts(loaded))
        return
    print_tables(*_sheet(loaded))


def show(
    artifact: o.Artifact,
    out: Annotated[
        Path | None, typer.Option(help="The PNG file; default: beside the artifact.", show_default=False)
    ] = None,
) -> None:
    """Draw the images or graphs of a set, or the edges of a graph, in order of their classes, into a PNG file."""
    from condensery import pictures

    kind = kinds.of_file(artifact)
    if kind is Kind.LOG:
        logs.no_picture(artifact)
    target = out or (artifact / "picture.png" if artifact.is_dir() else artifact.with_suffix(".png"))
    if target.suffix.lower() != ".png":
        raise ValueError(f"{target} is not a .png file; pictures are written as PNG.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind is not Kind.IMAGES:
        _MODULES[kind].draw(artifact, target)
        return
    loaded = load(artifact)
    pictures.save_grid(loaded, target)
    say(f"{target}: {loaded.spent['images']} images of {len(loaded.classes)} classes")


def export(
    artifact: o.Artifact,
    to: Annotated[
        Format,
        typer.Option(
            help="PNG folders, npz arrays, a Parquet file, or a folder for the Hugging Face hub; for a log CSV, "
            "Parquet or RecBole's .inter; for a graph npz or a folder of CSV tables; for a set of graphs a folder in "
            "TU Dortmund's layout."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file or folder to write; must not exist.", show_default=False)],
) -> None:
    """Write a set in a format that other programs read."""
    from condensery import export as exports

    kind = kinds.of_file(artifact)
    if kind is not Kind.IMAGES:
        _MODULES[kind].export(artifact, to.value, out)
        return
    loaded = load(artifact)
    if to in (Format.csv, Format.inter, Format.tu):
        raise ValueError(f"{artifact} holds images, which {to.value} cannot; choose --to png, npz, parquet or hub.")
    if out.exists():
        raise ValueError(f"{out} exists already; choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    if to is Format.hub:
        exports.to_hub_dataset(loaded).save_to_disk(str(out))
        images = loaded.spent["images_in_training"]
        say(f"{out}: {images} images; read it with datasets.load_from_disk({str(out)!r})")
        return
    writers = {
        Format.png: exports.to_png_folders,
        Format.npz: exports.to_npz,
        Format.parquet: exports.to_parquet,
    }
    say(str(writers[to](loaded, out)))


def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method or coreset, for its settings.", show_default=False)
    ] = None,
    as_json: o.Json = False,
) -> None:
    """List methods and coresets; with a NAME, its settings, their defaults and what values they take."""
    if name is not None:
        found = [(d.kind, d.entry(name)) for d in DOMAINS.values() if d.has(name)]
        if name.lower() in CALIBRATIONS:
            found = [(Kind.IMAGES, CALIBRATIONS[name.lower()])]
        if not found:
            find({n: n for d in DOMAINS.values() for n in (*d.names, *CALIBRATIONS)}, name, "method")
        sheets = [_method(kind, entry, as_json) for kind, entry in found]
        if as_json:
            emit({**sheets[0], **({"also": sheets[1:]} if sheets[1:] else {})})
        return
    if as_json:
        keys = {Kind.IMAGES: "", Kind.LOG: "log_", Kind.GRAPH: "graph_", Kind.GRAPH_SET: "graph_set_"}
        parts = {f"{keys[k]}methods": d.methods for k, d in DOMAINS.items()}
        parts |= {f"{keys[k]}coresets": d.coresets for k, d in DOMAINS.items()}  # type: ignore[misc]
        parts |= {"calibrations": CALIBRATIONS}
        emit({key: [_entry(e) for e in part.values()] for key, part in parts.items()})
        return
    for domain in DOMAINS.values():
        of = "" if domain.kind is Kind.IMAGES else f" for {domain.kind}"
        print_tables(_entries(f"methods{of}", list(domain.methods.values())))
        print_tables(_entries(f"coresets{of}", list(domain.coresets.values())))
    print_tables(_entries("validation images for searches", list(CALIBRATIONS.values())))
    say("condensery methods NAME lists the settings of one.")


def datasets(as_json: o.Json = False) -> None:
    """List the data sets that have a name, and where they are on this machine."""
    rows = [(d, _place(d)) for d in DATASETS.values()]
    recorded = [(log, _place(log)) for log in LOGS.values()]
    joined = [(graph, _place(graph)) for graph in GRAPHS.values()]
    many = [(graphs, _place(graphs)) for graphs in GRAPH_SETS.values()]
    if as_json:
        plain = [*(_dataset(d, place) for d, place in rows), *(_log_set(log, place) for log, place in recorded)]
        emit([*plain, *(_named_graph(entry, place) for entry, place in (*joined, *many))])
        return
    from rich.table import Table

    table = Table(title="Data sets", title_justify="left")
    for heading in ("name", "images", "classes", "training + test", "origin", "on this machine"):
        table.add_column(heading)
    for d, place in rows:
        shape = " x ".join(map(str, d.shape[1:])) + (" grey" if d.shape[0] == 1 else " colour")
        table.add_row(d.name, shape, str(d.classes), f"{d.sizes[0]:,} + {d.sizes[1]:,}", d.origin, place or _ABSENT)
    print_tables(
        table,
        _sized("Recommendation logs", ("users", "items", "interactions"), recorded),
        _sized("Graphs", _OF_A_GRAPH, joined),
        _sized("Sets of graphs", _OF_A_SET, many),
    )
    root = os.environ.get("CONDENSERY_DATA")
    say(f"Searched: CONDENSERY_DATA ({root or 'not set'}), then the cache {_cache()}.")
    say(
        "Your own: a folder of images by class, a folder of idx files, an .npz file, or hf:NAME of the "
        "Hugging Face hub; a log as CSV, TSV, .inter, Parquet or u.data, or a folder of LightGCN's; a graph as .npz "
        "with edges, as a folder with edges.csv and nodes.csv, or as one of OGB's, GraphSAINT's or Planetoid's; a set "
        "of graphs as a folder in TU Dortmund's layout (NAME_A.txt and others)."
    )


_ABSENT = "no; downloaded at first use"
_OF_A_GRAPH = ("nodes", "edges", "features", "classes")
_OF_A_SET = ("graphs", *_OF_A_GRAPH)


def _dataset(entry: Dataset, place: str | None) -> dict[str, Any]:
    plain = {"name": entry.name, "kind": "images", "classes": entry.classes, "shape": entry.shape}
    return {**plain, "origin": entry.origin, "train": entry.sizes[0], "test": entry.sizes[1], "here": place}


def _log_set(entry: LogSet, place: str | None) -> dict[str, Any]:
    sizes = dict(zip(("users", "items", "interactions"), entry.sizes, strict=True))
    return {"name": entry.name, "kind": "log", **sizes, "origin": entry.origin, "here": place}


def _named_graph(entry: NamedGraph, place: str | None) -> dict[str, Any]:
    kind, units = ("graph set", _OF_A_SET) if isinstance(entry, NamedGraphs) else ("graph", _OF_A_GRAPH)
    sizes = dict(zip(units, entry.sizes, strict=True))
    return {"name": entry.name, "kind": kind, **sizes, "origin": entry.origin, "here": place}


def _sized(title: str, units: tuple[str, ...], entries: Sequence[tuple[LogSet | NamedGraph, str | None]]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in ("name", *units, "origin", "on this machine"):
        table.add_column(heading)
    for entry, place in entries:
        table.add_row(entry.name, *(f"{size:,}" for size in entry.sizes), entry.origin, place or _ABSENT)
    return table


def _cache() -> Path:
    from condensery.data.fetch import cache_folder

    return cache_folder()


def _place(entry: Dataset | LogSet | NamedGraph) -> str | None:
    """Where data are, or ``None`` if they are not on this machine."""
    source = entry.files()
    if source is None:
        return "generated" if isinstance(entry, LogSet) else "comes with scikit-learn"
    given = os.environ.get("CONDENSERY_DATA")
    roots = [*([Path(given)] if given else []), _cache()]
    places = [place for root in roots for place in (*(root / folder for folder in source.folders), root)]
    return next((str(place) for place in places if source.found_in(place)), None)


def _entry(entry: Method | Coreset) -> dict[str, Any]:
    return {
        "name": entry.name,
        "line": entry.line,
        "paper": entry.paper,
        "year": entry.year or None,
        "url": entry.url,
    }


def _entries(title: str, entries: list[Method | Coreset]) -> Table:
    from rich.table import Table

    table = Table(title=title.capitalize(), title_justify="left")
    for heading in ("name", "what it does", "paper", "read it"):
        table.add_column(heading, no_wrap=heading == "name")
    for e in entries:
        table.add_row(e.name, e.line, f"{e.paper} {e.year}" if e.year else "", e.url)
    return table


def _method(kind: Kind, entry: Method | Coreset, as_json: bool) -> dict[str, Any]:
    """A method's settings as plain data, printed unless they are wanted as JSON."""
    from condensery.recipes import values

    recipes = _recipes(kind)
    groups = recipes.settable(entry.name)
    if as_json:
        settings = [
            {"name": recipes.full_name(group, name), "default": default, "takes": values.describe(taken)}
            for group, kinds in groups.items()
            for name, (taken, default) in kinds.items()
        ]
        return {**_entry(entry), "kind": kind.value, "settings": settings}
    say(f"{entry.title}, for {kind}: {entry.line}")
    if entry.paper:
        say(f"{entry.paper} {entry.year}, {entry.url}")
    print_tables(_settings(groups, recipes.full_name))
    without = {
        Kind.IMAGES: "data without published values at 1 image per class",
        Kind.LOG: "a log without a name",
        Kind.GRAPH: "a graph without a name",
        Kind.GRAPH_SET: "a set without a name",
    }
    say(f"Defaults are the recipe's for {without[kind]}; --set NAME=VALUE changes one.")
    return {}


def _recipes(kind: Kind) -> Any:
    """What knows the settings of methods of a kind."""
    from condensery import recipes
    from condensery.recipes import graph_sets as for_graph_sets
    from condensery.recipes import graphs as for_graphs
    from condensery.recipes import logs as for_logs

    return {Kind.IMAGES: recipes, Kind.LOG: for_logs, Kind.GRAPH: for_graphs, Kind.GRAPH_SET: for_graph_sets}[kind]


def _settings(groups: dict[str, dict[str, tuple[str, Any]]], full_name: Callable[[str, str], str]) -> Table:
    from rich.table import Table

    from condensery.recipes import values

    titles = {
        "method": "the method",
        "options": "the method",
        "run": "the run",
        "pool": "the pool",
        "data": "the data",
        "inner": "the inner training",
        "proxy": "the proxy",
        "evaluation": "evaluation",
        "experts": "the experts",
        "eval": "evaluation",
        "net": "the network",
        "network": "the network",
        "test": "the test network",
    }
    table = Table()
    for heading in ("setting", "of", "default", "takes"):
        table.add_column(heading, no_wrap=heading == "setting")
    for group in titles:
        for name, (kind, default) in groups.get(group, {}).items():
            said = "by image size" if (group, name, default) == ("net", "depth", None) else values.said(default)
            table.add_row(
                full_name(group, name),
                titles[group],
                said,
                values.describe(kind),
            )
        table.add_section()
    return table


def _facts(artifact: Artifact) -> dict[str, Any]:
    """Everything but the tensors, as plain data."""
    from condensery import configs

    images = artifact.images
    step = None if images.step_size is None else float(images.step_size.detach())
    return {
        "method": artifact.method,
        "dataset": artifact.dataset,
        "classes": list(artifact.classes),
        "per_class": artifact.per_class,
        "shape": list(images.values.shape),
        "spent": artifact.spent,
        "step_size": step,
        "mirrored": images.mirrored,
        "formation": configs.to_config(images.formation),
        "preprocessing": artifact.preprocessing.config(),
        "network": dict(artifact.network),
        "recipe": configs.to_config(artifact.recipe),
        "options": dict(artifact.options),
        "seed": artifact.seed,
        "split": dict(artifact.split),
        "indices": None if artifact.indices is None else artifact.indices.tolist(),
        "scores": dict(artifact.scores),
        "versions": dict(artifact.versions),
        "provenance": dict(artifact.provenance),
    }


def _sheet(artifact: Artifact) -> list[Any]:
    """An artifact as people read it."""
    parts: list[Any] = [_named(_lines(artifact))]
    if artifact.scores:
        parts.append(_old_scores(artifact.scores))
    return parts


def _other(of: Any, path: Path, as_json: bool) -> None:
    """What a condensed log, graph or set of graphs says about itself; `of` is the module for its kind."""
    loaded = of.load(path)
    if as_json:
        emit(of.facts(loaded))
        return
    print_tables(_named(of.lines(loaded)))
    if loaded.scores:
        print_tables(of.old_scores(loaded.scores))


def _experts(folder: Path, as_json: bool) -> None:
    from condensery.experts import open_experts

    ways = open_experts(folder)
    if as_json:
        emit(experts.facts_of(ways))
        return
    print_tables(_named(experts.lines_of(ways)))


def _named(lines: list[tuple[str, str]]) -> Table:
    """Names, and what there is to say of each."""
    from rich.table import Table
    from rich.text import Text

    sheet = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")
    for key, value in lines:
        sheet.add_row(key, Text(value))
    return sheet


def _lines(artifact: Artifact) -> list[tuple[str, str]]:
    spent, how, network = artifact.spent, dict(artifact.provenance), dict(artifact.network)
    counts = artifact.per_class
    each = f"{counts[0]} for each of" if len(set(counts)) == 1 else f"{', '.join(map(str, counts))} for"
    shape = " x ".join(map(str, artifact.images.values.shape[1:]))
    trained = f", {spent['images_in_training']} in training" if spent["images_in_training"] != spent["images"] else ""
    source = how.pop("data", None)
    network_name = network.pop("net", "?")
    lines = [
        ("method", f"{artifact.method}, seed {artifact.seed}"),
        (
            "data",
            f"{artifact.dataset} ({source['spec']})"
            if isinstance(source, dict) and "spec" in source
            else artifact.dataset,
        ),
        ("images", f"{spent['images']} of {shape}: {each} {len(counts)} classes{trained}"),
        ("classes", ", ".join(artifact.classes)),
        ("labels", spent["labels"]),
        ("size", bytes_of(spent["bytes"])),
        ("preprocessing", _said(artifact.preprocessing.config())),
        ("network", f"{network_name} ({_said(network)})"),
        ("evaluation", describe_recipe(artifact.training_recipe())),
        ("options", _said(artifact.options)),
        ("split", _said(artifact.split)),
    ]
    if artifact.indices is not None:
        lines.append(("chosen", "training images " + _shortened(artifact.indices.tolist())))
    if isinstance(how.get("seconds"), float):
        how["seconds"] = duration(how["seconds"])
    matched = how.pop("experts", None)
    if isinstance(matched, dict):
        optimizer = dict(dict(matched.get("origin", {})).get("optimizer", {}))
        by = f"{optimizer.pop('type', '?')}, {_said(optimizer)}"
        lines.append(("experts", f"{matched.get('count')} of {matched.get('epochs')} epochs, {by}"))
    recipe = how.pop("recipe", None)
    if isinstance(recipe, list | tuple):
        lines.append(("recipe", "; ".join(map(str, recipe))))
    return [*lines, ("made", _said(how)), ("versions", _said(artifact.versions))]


def _said(plain: Any) -> str:
    """Plain data as ``name value, name value``."""
    return ", ".join(f"{k} {_value(v)}" for k, v in plain.items() if v is not None)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return _shortened(value)
    return str(value)


def _shortened(values: Any) -> str:
    said = [_value(v) for v in values[:20]]
    return " ".join(said) + (f" ... ({len(values)} in all)" if len(values) > 20 else "")


def _old_scores(scores: Any) -> Table:
    """The scores that a file carries."""
    from rich.table import Table

    table = Table(title="Scores in the file", title_justify="left")
    for heading in ("trained on", "network", "test accuracy, %", "networks"):
        table.add_column(heading)
    try:
        for row in scores["rows"]:
            mean, std = row["last"]["mean"], row["last"]["std"]
            spread = "" if std is None else f" ± {100 * std:.1f}"
            table.add_row(row["name"], row["network"], f"{100 * mean:.1f}{spread}", str(row["last"]["n"]))
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            "The scores in the file are not in the form that this version reads; evaluate the set again."
        ) from None
    return table
