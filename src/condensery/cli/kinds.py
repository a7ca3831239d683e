"""Of which kind data, methods and files are, and sentences for what does not go together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from condensery.catalog import CALIBRATIONS, DOMAINS, Domain, Kind, find, kind_of

_FILES = {"condensery-log": Kind.LOG, "condensery-graph": Kind.GRAPH, "condensery-graph-set": Kind.GRAPH_SET}
_ONE = {Kind.IMAGES: "images", Kind.LOG: "a log", Kind.GRAPH: "a graph", Kind.GRAPH_SET: "a set of graphs"}
_OWNERS = {
    "ratio": "logs and graphs",
    "nodes": "graphs",
    "ipc": "images and sets of graphs",
    "full_epochs": "images and sets of graphs",
    "embedding": "images, graphs and sets of graphs",
    "net": "images, graphs and sets of graphs",
    "width": "images, graphs and sets of graphs",
}
_INSTEAD = {
    ("ipc", Kind.LOG): "give --ratio",
    ("nodes", Kind.LOG): "give --ratio",
    ("validation", Kind.LOG): "give --set validation=SHARE",
    ("ipc", Kind.GRAPH): "give --nodes or --ratio",
    ("validation", Kind.GRAPH): "give the split with the graph",
    ("ratio", Kind.GRAPH_SET): "give --ipc",
    ("nodes", Kind.GRAPH_SET): "give --ipc, and the nodes of each graph with --set nodes=N,",
    ("validation", Kind.GRAPH_SET): "leave it out",
    ("ratio", Kind.IMAGES): "give --ipc",
    ("nodes", Kind.IMAGES): "give --ipc",
}


def decide(names: Iterable[str], data: str) -> Kind:
    """The kind that data and methods, or coresets, are of.

    Args:
        names: The methods, as typed.
        data: The data, as typed.

    Raises:
        ValueError: In one sentence that names the fix, if there is no such method, or one is of another kind.
    """
    kind = kind_of(data)
    for name in names:
        if name.lower() in CALIBRATIONS:
            raise ValueError(
                f"{name} makes validation images for a search; use: condensery calibrate DATA --train SET --space FILE."
            )
        homes = [domain for domain in DOMAINS.values() if domain.has(name)]
        if not homes:
            find({known: known for domain in DOMAINS.values() for known in domain.names}, name, "method")
        if kind is None:  # who opens the data says that there are none
            kind = homes[0].kind
        if kind not in [home.kind for home in homes]:
            raise ValueError(_mismatch(data, DOMAINS[kind], name, homes[0]))
    return kind or Kind.IMAGES


def only_for(context: typer.Context, kind: Kind, *names: str, without: Iterable[str] = ()) -> None:
    """Refuse options that were given and mean nothing for a kind of data.

    Args:
        context: Of the command.
        kind: The kind.
        names: The options that do mean something,
        without: but for these.

    Raises:
        ValueError: Naming the option.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in {*names}.difference(without) and source is not None and source.name == "COMMANDLINE":
            option = "--" + name.strip("_").replace("_", "-").replace("as-json", "json")
            instead = _INSTEAD.get((name, kind), "leave it out")
            raise ValueError(f"{option} is for {_OWNERS.get(name, 'images')}; {instead} for {_ONE[kind]}.")


def no_sizes(**sizes: object) -> None:
    """Refuse the sizes of logs and single graphs for images.

    Raises:
        ValueError: If there is one.
    """
    for name, size in sizes.items():
        if size is not None:
            raise ValueError(f"--{name} is for {_OWNERS[name]}; give images per class with --ipc.")


def of_file(path: Path) -> Kind:
    """What a condensed set, or the one in a run's folder, is made of; images where the file does not say."""
    from safetensors import SafetensorError, safe_open

    path = path / "artifact.safetensors" if path.is_dir() else path
    if not path.is_file():
        return Kind.IMAGES
    try:
        with safe_open(path, framework="numpy") as file:
            return _FILES.get((file.metadata() or {}).get("kind", ""), Kind.IMAGES)
    except (SafetensorError, OSError, ValueError):
        return Kind.IMAGES  # who loads it says what is wrong with it


def _mismatch(data: str, domain: Domain, name: str, home: Domain) -> str:
    *rest, last = domain.coresets
    return (
        f"{data} {domain.holds} and {name} is for {home.kind}; use condense --method {domain.usual}, or "
        f"select --coreset {', '.join(rest)} or {last}."
    )
