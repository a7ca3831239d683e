"""The demonstration: handwritten digits condensed in front of you, beside honest baselines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from condensery import graph_runs, pictures, recipes, runs, scoring, selecting
from condensery.artifact import Artifact
from condensery.catalog import DataSource
from condensery.cli import graphs
from condensery.cli.console import duration, emit, notes, say, show
from condensery.evaluate import Row, Scores, random_subset
from condensery.evaluate.score import merged
from condensery.evaluate.transfer import Trials
from condensery.node_fitting import Nodes
from condensery.recipes import graphs as for_graphs
from condensery.runs import Folder

if TYPE_CHECKING:
    from rich.table import Table

    from condensery.data import ImageData

SEED = 0
PER_CLASS = 1
NETWORKS = 5
METHODS = ("herding", "dm", "dsa")
GRAPH, GRAPH_METHOD, GRAPH_NODES = "digits-graph", "gcond", 20


@dataclass(frozen=True)
class Entry:
    """A line of the demonstration's table.

    Attributes:
        row: Its scores.
        made: Seconds to make the set, or ``None`` where there is nothing to make.
        folder: Where it is, or ``None``.
    """

    row: Row
    made: float | None = None
    folder: Folder | None = None


def run(out: Path, *, as_json: bool = False) -> list[Entry]:
    """Condense, score, print the table and draw the picture.

    Args:
        out: Folder for the results; a demonstration that was there is made anew.
        as_json: Print JSON instead of the table.
    """
    begun = time.monotonic()
    torch.set_num_threads(1)  # images of 8 x 8 are too small to share, and the result is the same everywhere
    source = DataSource("digits")
    data = runs.open_data(source)
    with notes().status("") as status:
        artifacts = []
        for name in METHODS:
            plan = recipes.load(name, source.name, PER_CLASS)
            status.update(f"{plan.title}: making {PER_CLASS} image per class")
            artifacts.append(_make(plan, data, source, Folder(out / name)))
        protocol = scoring.Protocol(Trials(n=NETWORKS, seed=SEED), full=None)
        entries = _score(artifacts, data, protocol, out, status)
        joined, graph = _graph(Folder(out / GRAPH_METHOD), status)
    drawn = _draw(artifacts, data, out / "picture.png")
    if as_json:
        rows = [_plain(entry, entries[-1]) for entry in entries]
        emit({"picture": str(drawn), "rows": rows, "graph": {**joined.to_json(), "artifact": str(graph.artifact)}})
        return entries
    show(_table(entries, data))
    say("The same digits as a graph, each joined to its nearest neighbours, few of them labelled:")
    show(graphs.table_of(joined.to_json()))
    best = max((entry for entry in entries if entry.folder is not None), key=lambda e: e.row.last.mean)
    assert best.folder is not None
    say(f"Picture of all four sets: {drawn}")
    say(f"The best set:             {best.folder.artifact}  ({best.row.name})")
    say(f"Look at it:               condensery info {best.folder.path}")
    say(f"The small graph:          condensery show {graph.path}")
    say(f"Everything took {duration(time.monotonic() - begun)}.")
    return entries


def _make(plan: recipes.Plan, data: ImageData, source: DataSource, folder: Folder) -> Artifact:
    """A set from its plan, in its folder, over what an earlier demonstration left there."""
    if plan.is_coreset:
        artifact = selecting.select(plan, data, source, seed=SEED)
        runs.write(artifact, folder)
        return artifact
    made = runs.build(plan, data, seed=SEED)
    settings = made.settings(source)
    _clear(folder)
    folder.claim(settings)
    for _ in runs.advance(made, folder):
        pass
    return runs.finish(made, folder, source)


def _graph(folder: Folder, status: Any) -> tuple[Scores, Folder]:
    """The digits' graph condensed to a few nodes, beside random nodes and the whole graph."""
    plan = for_graphs.load(GRAPH_METHOD, GRAPH, nodes=GRAPH_NODES)
    source = graph_runs.GraphSource(GRAPH, reading=plan.data)
    data = graph_runs.open_graph(source)
    status.update(f"{plan.title}: making a graph of {GRAPH_NODES} nodes")
    made = graph_runs.build(plan, data, seed=SEED)
    _clear(folder)
    folder.claim(graph_runs.settings(plan, source, data, seed=SEED))
    for _ in graph_runs.advance(made, folder):
        pass
    artifact = graph_runs.finish(made, folder, source)
    module, recipe = artifact.build_network(), artifact.training_recipe()
    parts: dict[str, Any] = {
        graph_runs.RANDOM: graph_runs.random_nodes(data, artifact.per_class),
        plan.title: artifact.nodes(),
        graph_runs.FULL: Nodes.training(data),
    }
    rows = []
    for name, part in parts.items():
        status.update(f"training {NETWORKS} graph networks on {name}")
        each = graph_runs.trained_on(part, data, module, recipe, name=name, n=NETWORKS, seed=SEED)
        rows.append(merged(list(each)))
    return Scores(tuple(rows), data.name, graph_runs.FULL), folder


def _clear(folder: Folder) -> None:
    """Remove an earlier demonstration's run, and nothing else."""
    old = [folder.artifact, folder.picture, folder.log, folder.settings]
    for path in [*old, *folder.snapshots.glob("step-*.safetensors")]:
        path.unlink(missing_ok=True)
    if folder.snapshots.is_dir():
        folder.snapshots.rmdir()


def _score(
    artifacts: Sequence[Artifact], data: ImageData, protocol: scoring.Protocol, out: Path, status: Any
) -> list[Entry]:
    """Random subsets first, then the sets, then all data; every set is trained by its own recipe."""
    module = artifacts[0].build_network()
    status.update(f"training {NETWORKS} networks on random subsets")
    recipe = artifacts[-1].recipe
    parts = list(scoring.random_rows([PER_CLASS] * data.num_classes, recipe, data, module, protocol))
    entries = [Entry(scoring.join(parts, data.name).rows[0])]
    for name, artifact in zip(METHODS, artifacts, strict=True):
        status.update(f"training {NETWORKS} networks on the set of {artifact.method}")
        parts = list(scoring.table(artifact, data, [module], replace(protocol, baselines=False)))
        row = scoring.join(parts, data.name).rows[0]
        entries.append(Entry(row, float(artifact.provenance["seconds"]), Folder(out / name)))
    status.update(f"training {NETWORKS} networks on all {len(data.train)} training images")
    whole = replace(protocol, full=20, cache=out / "full-data")
    parts = list(scoring.full_rows(data, module, whole))
    return [*entries, Entry(scoring.join(parts, data.name).rows[0])]


def _table(entries: Sequence[Entry], data: ImageData) -> Table:
    from rich.table import Table

    title = f"Handwritten digits: {len(data.train)} training images condensed to {PER_CLASS * data.num_classes}"
    table = Table(title=title, title_justify="left", caption=entries[0].row.network, caption_justify="left")
    table.add_column("trained on")
    columns = (
        "test accuracy, %",
        "share of\nfull data",
        "images",
        "time to make",
        f"time to train\n{NETWORKS} networks",
    )
    for heading in columns:
        table.add_column(heading, justify="right")
    best = max(e.row.last.mean for e in entries[:-1])
    for entry in entries:
        share = f"{100 * entry.row.last.mean / entries[-1].row.last.mean:.1f} %"
        made = "" if entry.made is None else duration(entry.made)
        style = "bold green" if entry.row.last.mean == best else ""
        images = f"{entry.row.size['images']:,}"
        cells = (entry.row.name, str(entry.row.last), share, images, made, duration(entry.row.seconds))
        table.add_row(*cells, style=style, end_section=entry in (entries[0], entries[-2]))
    return table


def _plain(entry: Entry, full: Entry) -> dict[str, Any]:
    where = None if entry.folder is None else str(entry.folder.artifact)
    recovery = entry.row.last.mean / full.row.last.mean
    return {**entry.row.to_json(), "recovery": recovery, "condensing_seconds": entry.made, "artifact": where}


def _draw(artifacts: Sequence[Artifact], data: ImageData, path: Path) -> Path:
    """One picture: a row of digits for each set, random images first."""
    subset = random_subset(data.train, PER_CLASS, torch.Generator().manual_seed(SEED))
    random = data.preprocessing.inverse(subset.values.detach()).clamp(0, 1)
    images = [random, *(artifact.pictures for artifact in artifacts)]
    names = ["random", *(artifact.method for artifact in artifacts)]
    rows = torch.arange(len(images)).repeat_interleave(torch.tensor([len(i) for i in images]))
    picture: Image.Image = pictures.grid(torch.cat(images), rows, names, columns=data.num_classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path
