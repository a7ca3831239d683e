"""The tables of condensed graphs, for `tables.py`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tables import NOTHING, load, markdown, ready_made

GRAPHS = {"cora": "Cora", "photo": "Amazon-Photo", "photo-as-given": "Amazon-Photo, features as given"}
GRAPH_METHODS = {
    "whole": "the whole graph",
    "random": "random",
    "degree": "largest degrees",
    "pagerank": "largest PageRanks",
    "herding": "herding",
    "k-center": "k-center",
    "gcond-x": "GCond-X",
    "gcond": "GCond",
    "doscond": "DosCond",
    "gcdm": "GCDM",
    "sfgc": "SFGC",
    "geom": "GEOM",
}
# Test accuracy in per cent of the step chosen on the validation nodes, at 35, 70 and 140 nodes of Cora: GCond's paper,
# table 2; SFGC and GEOM by their own papers.
PUBLISHED: dict[str, tuple[float, float, float]] = {
    "whole": (81.2, 81.2, 81.2),
    "random": (63.6, 72.8, 76.8),
    "herding": (67.0, 73.4, 76.8),
    "k-center": (64.0, 73.2, 76.7),
    "gcond-x": (75.9, 75.7, 76.0),
    "gcond": (79.8, 80.1, 79.3),
    "sfgc": (80.1, 81.7, 81.6),
    "geom": (82.5, 83.6, 82.8),
}
KEPT = "kept by validation"  # a run with `--keep-best`
SIZES = {35: 0, 70: 1, 140: 2}
INSIDE = {None: "", "sgc": "SGC", "gcn": "GCN", "gin": "GIN-0"}


def groups(*methods: str, across: bool = False) -> list[list[dict[str, Any]]]:
    """Runs of `benchmarks/graphs.py` that differ in their seed only, in the tables' order."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in load("graphs"):
        if r["name"].startswith("across-") == across and (not methods or r["method"] in methods):
            found.setdefault(key(r), []).append(r)
    return [found[name] for name in sorted(found)]


def key(r: dict[str, Any]) -> tuple[Any, ...]:
    """What a run is, but for its seed; the whole graph first."""
    nodes = 0 if r["method"] == "whole" else r["nodes"]
    return r["dataset"], nodes, list(GRAPH_METHODS).index(r["method"]), list(INSIDE).index(r["net"]), r["tag"]


def place(r: dict[str, Any]) -> list[str]:
    """Data and nodes trained on."""
    return [GRAPHS[r["dataset"]], "all" if r["method"] == "whole" else str(r["nodes"])]


def title(r: dict[str, Any]) -> str:
    """The method, with the network inside where it was chosen, and its variant."""
    parts = [GRAPH_METHODS[r["method"]]] + ([f"by {INSIDE[r['net']]}"] if r["net"] else [])
    return ", ".join([*parts, *([r["tag"]] if r["tag"] else [])])


def percent(values: Iterable[float]) -> str:
    """Mean and standard deviation in per cent."""
    shares = [100 * value for value in values]
    spread = f" ± {statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{statistics.mean(shares):.1f}{spread}"


def values(group: list[dict[str, Any]], which: str) -> list[float]:
    """The accuracies of all networks of a group, last or chosen."""
    return [value for r in group for value in r["row"][which]["values"]]


def published(r: dict[str, Any]) -> str:
    """The published figure, where the run is that of its paper."""
    known = PUBLISHED.get(r["method"])
    if known is None or r["dataset"] != "cora" or r["net"] or r["tag"] not in ("", KEPT):
        return ""
    return f"{known[SIZES.get(r['nodes'], 0)]:.1f}"


def table(*methods: str) -> str:
    """All methods, or some beside the random subset and the whole graph."""
    chosen = groups(*methods)
    where = {(g[0]["dataset"], g[0]["nodes"]) for g in chosen}
    if methods:
        beside = groups("whole", "random")
        fits = {w[0] for w in where}
        beside = [g for g in beside if (g[0]["dataset"], g[0]["nodes"]) in where or
                  (g[0]["method"] == "whole" and g[0]["dataset"] in fits)]  # fmt: skip
        chosen = sorted([*beside, *chosen], key=lambda g: key(g[0])) if chosen else []
    heads = ["data", "nodes", "trained on", "last step, %", "step chosen on validation nodes, %", "published, %"]
    heads += ["edges", "graphs", "n", "epochs", "CPU seconds"]
    rows = []
    for g in chosen:
        r = g[0]
        made = r["method"] != "whole"
        spent = [x["cpu_seconds"]["condense"] for x in g if x["cpu_seconds"]["condense"] is not None]
        cost = f"{statistics.mean(spent):.0f}" if made and spent else ""
        edges = f"{statistics.mean(x['size']['edges'] for x in g):,.0f}"
        count = str(len(values(g, "last")) if r["method"] == "random" else len(g))
        cells = [title(r), percent(values(g, "last")), percent(values(g, "chosen")), published(r), edges, count]
        rows.append([*place(r), *cells, str(len(values(g, "last"))), lengths(g), cost])
    return noted(markdown(heads, rows), chosen, SAID)


def lengths(group: list[dict[str, Any]]) -> str:
    """The epochs of condensing, and those of the graphs that were kept if these are not the last."""
    r = group[0]
    kept = [round(x["kept"]["step"] * x["epochs"] / x["steps"]) for x in group if "kept" in x]
    return str(r.get("epochs", "")) + (f" (kept: {', '.join(map(str, kept))})" if kept else "")


SAID = (
    "Test accuracy of a GCN (2 layers, width 256, 600 steps), mean and standard deviation over n networks on so many "
    "graphs. Published figures are of the step chosen on the validation nodes."
)


def epochs() -> str:
    """Accuracy along the way."""
    found = [g for g in groups() if g[0].get("looks")]
    heads = ["data", "nodes", "trained on", "epochs", "last step, %", "step chosen on validation nodes, %"]
    heads += ["step", "edges", "of them within a class", "n"]
    rows = []
    for r in (r for g in found for r in g):
        end = {"epoch": r["epochs"], "row": r["row"], "size": r["size"]}
        for look in [*r["looks"], end]:
            row, size = look["row"], look["size"]
            share = size["edges_within_a_class"]
            steps = f"{statistics.median(row['size']['chosen_steps']):.0f}"
            cells = [str(look["epoch"]), percent(row["last"]["values"]), percent(row["chosen"]["values"]), steps]
            cells += [f"{size['edges']:,.0f}", "" if share is None else f"{100 * share:.0f} %", str(row["last"]["n"])]
            rows.append([*place(r), title(r) + (f", seed {r['seed']}" if r["seed"] else ""), *cells])
    said = "Test accuracy after so many epochs of condensing; step: the median of those chosen. Nothing depends on it."
    return noted(markdown(heads, rows), found, said)


def as_their_authors(*methods: str) -> str:
    """SFGC and GEOM by the test of their authors: the result, and the last set where another was chosen."""
    found = [g for g in groups(*methods) if "as_its_authors" in g[0]]
    heads = ["data", "nodes", "trained on", "set", "last step, %", "step chosen on validation nodes, %", "published, %"]
    heads += ["experts", "steps", "n"]
    rows = []
    for g in found:
        sets = [("row", "chosen by the kernel"), ("last_set", "last")]
        sets = sets if "last_set" in g[0]["as_its_authors"] else [("row", "last")]
        for name, said in sets:
            both = [[v for r in g for v in r["as_its_authors"][name][which]["values"]] for which in ("last", "chosen")]
            cells = [title(g[0]), said, *map(percent, both), published(g[0]), str(g[0]["experts"]["count"])]
            rows.append([*place(g[0]), *cells, str(g[0]["steps"]), str(len(both[0]))])
    said = (
        "Test accuracy of a GCN by the authors' own test (Adam at a constant rate, 600 steps, a look every 5), mean "
        "and standard deviation over n networks on one set."
    )
    return noted(markdown(heads, rows), found, said)


def across() -> str:
    """The same graphs under networks that they were not made with."""
    found = groups(across=True)
    nets = list(dict.fromkeys(x["net"] for g in found for r in g for x in r["rows"]))
    rows = []
    for g in found:
        cells = []
        for net in nets:
            rows_of = [x["row"] for r in g for x in r["rows"] if x["net"] == net]
            last, best = ([v for row in rows_of for v in row[which]["values"]] for which in ("last", "chosen"))
            cells.append(f"{percent(last)} / {percent(best)}" if rows_of else "")
        rows.append([*place(g[0]), title(g[0]), *cells, str(len(last))])
    said = "Test accuracy in per cent, last step / step chosen on the validation nodes, all by the same recipe."
    return noted(markdown(["data", "nodes", "trained on", *nets, "n"], rows), found, said)


def noted(made: str, found: list[list[dict[str, Any]]], said: str) -> str:
    """A table with what its rows have in common below it."""
    if made == NOTHING:
        return made
    r = found[0][0]
    where = f"{r['hardware']['processor']}, {r['threads']} thread a run, PyTorch {r['versions']['torch']}"
    return f"{made}\n\n{said} {where}. Made by `benchmarks/graphs.py`, files in `benchmarks/results/graphs/`."


MAKERS: dict[str, Callable[[], str]] = {
    "graphs": table,
    "graphs-epochs": epochs,
    "graphs-across": across,
    "speed-graphs": partial(ready_made, "speed-graphs"),
    **{name: partial(table, name) for name in ("doscond", "gcdm", "sfgc", "geom")},
    "gcond": partial(table, "gcond-x", "gcond"),
    **{f"{name}-own": partial(as_their_authors, name) for name in ("sfgc", "geom")},
    "speed-sfgc": partial(ready_made, "speed-sfgc"),
}
