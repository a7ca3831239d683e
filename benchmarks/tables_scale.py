"""The tables of scale and of whole graphs, for `tables.py`."""

from __future__ import annotations

from typing import Any

from tables import NOTHING, RESULTS, markdown, one, score

# Test accuracy in per cent at the published sizes: GCond, table 2, from memory.
PUBLISHED = {
    ("coarsening", "cora", 35): 31.2,
    ("coarsening", "cora", 70): 65.2,
    ("coarsening", "cora", 140): 70.6,
    ("random subset", "cora", 35): 63.6,
    ("random subset", "cora", 70): 72.8,
    ("random subset", "cora", 140): 76.8,
}
FORMS = {
    "sampled": "GCN, 10 and 5 neighbours sampled",
    "whole": "GCN, whole neighbourhoods",
    "linear": "SGC, propagated once",
}


def scale() -> str:
    """Time and memory of one step of GCond against the size of the graph."""
    if not (RESULTS / "graphs-scale.json").exists():
        return NOTHING
    f = one("graphs-scale")
    rows = sorted(f["rows"], key=lambda r: (list(FORMS).index(r["form"]), r["nodes"]))
    heads = ["real side", "nodes", "edges", "nodes in a batch: mean", "largest", "seconds a step", "first step"]
    body = [
        [
            FORMS[r["form"]],
            f"{r['nodes']:,}",
            f"{r['edges']:,}",
            *("" if r[key] is None else f"{r[key]:,.0f}" for key in ("mean_batch", "largest_batch")),
            f"{r['seconds']:.2f}",
            f"{r['first_seconds']:.1f}",
            f"{r['data_mb']:,}",
            f"{r['added_mb']:,.0f}",
        ]
        for r in rows
    ]
    note = (
        f"CPU seconds, one thread; n = {', '.join(steps(rows))} steps after the first, medians. Memory: of the process "
        "with the data before the first step, and what is added to that at most; what reading the data left free is "
        f"used first and not counted. {f['features']} random features, {f['batch']} real nodes of each class, "
        f"{f['synthetic']} synthetic nodes with a pairwise structure of width 256, GCN of width 256, inner 3. "
        f"{f['host']['processor']}, PyTorch {f['host']['torch']}, a machine with other work on it. Made by "
        "`benchmarks/scale_graphs.py`."
    )
    return f"{markdown([*heads, 'data, MB', 'added, MB'], body)}\n\n{note}"


def steps(rows: list[dict[str, Any]]) -> list[str]:
    """How many steps of each form were measured."""
    return [
        f"{r['steps']} ({FORMS[r['form']]})" for i, r in enumerate(rows) if not i or rows[i - 1]["form"] != r["form"]
    ]


def graph_sets() -> str:
    """DosCond for whole graphs beside selections of them."""
    if not (RESULTS / "graph-sets.json").exists():
        return NOTHING
    f = one("graph-sets")
    heads = ["graphs a class", "trained on", "last pass, %", "pass chosen on validation, %", "steps", "lr_structure"]
    body = []
    for r in sorted(f["rows"], key=lambda r: (r["ipc"] is None, r["ipc"] or 0, "steps" not in r)):
        cost = ["", "", "", ""]
        if "steps" in r:
            seconds, changed = f"{r['cpu_seconds_a_step']:.2f}", f"{100 * r['edges_changed']:.1f} %"
            cost = [f"{r['steps']:,}", f"{r['lr_structure']:g}", changed, seconds]
        size = "all" if r["ipc"] is None else str(r["ipc"])
        body.append([size, r["row"]["name"], score(r["row"]["last"]), score(r["row"]["chosen"]), *cost])
    o, real = f["options"], sorted({r["batch_real"] for r in f["rows"] if "steps" in r})
    note = (
        f"The digits as graphs of their pixels ({f['data']}), test accuracy; PooledGCN of 3 layers and width 128 for "
        "condensing and testing, mean and standard deviation of n networks on one set (random: a new subset for each). "
        f"DosCond: {', '.join(map(str, real))} real graphs a class in a step, one run each; tests of 500 passes, "
        f"{o['full_epochs']} on all graphs, validation looked at every {o['check_every']} passes. "
        f"{f['host']['processor']}, 1 thread, PyTorch {f['host']['torch']}. Made by `benchmarks/graph_sets.py`."
    )
    heads += ["pairs that became or lost an edge", "CPU seconds a step"]
    return f"{markdown(heads, body)}\n\n{note}"


def coarsening() -> str:
    """Coarse graphs of nodes beside random subgraphs."""
    if not (RESULTS / "graphs-coarsening.json").exists():
        return NOTHING
    f = one("graphs-coarsening")
    heads = ["data", "nodes", "labelled", "trained on", "last step, %", "step chosen on validation, %", "published, %"]
    body = []
    for r in f["rows"]:
        known = PUBLISHED.get((r["row"]["name"], r["data"], r["nodes"]))
        scores = [score(r["row"][key]) for key in ("last", "chosen")]
        where = {"cora": "Cora", "digits": "digits, 8 neighbours"}[r["data"]]
        cells = [where, str(r["nodes"]), str(r["labelled"]), r["row"]["name"], *scores]
        body.append([*cells, "" if known is None else f"{known}"])
    note = (
        "Test accuracy of GCN (depth 2, width 256), 600 steps, validation looked at every "
        f"{f['check_every']} steps; mean and standard deviation of n networks on one graph (random: a new subset for "
        f"each). Published: GCond paper, table 2, quoted from memory. {f['host']['processor']}, 1 thread, PyTorch "
        f"{f['host']['torch']}. Made by `benchmarks/coarsening.py`."
    )
    return f"{markdown(heads, body)}\n\n{note}"


MAKERS = {"graphs-scale": scale, "graph-sets": graph_sets, "coarsening": coarsening}
