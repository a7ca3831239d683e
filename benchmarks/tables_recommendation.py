"""The tables of recommendation logs, for `tables.py`."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from tables import NOTHING, RESULTS, load, markdown, one

LOGS = {"ciao": "Ciao", "gowalla": "Gowalla"}
LOG_METHODS = {
    "full": "full log",
    "random": "random",
    "majority": "majority",
    "svp": "SVP, hardest rows",
    "svp-user": "SVP, hardest users",
    "proxy-best": "the proxy's best unseen items alone",
    "proxy-recorded": "the proxy's best recorded rows",
    "proxy-quarter": "the proxy's best, a quarter of it unseen",
    "proxy-half": "the proxy's best, half of it unseen",
    "proxy-chosen": "the proxy's best, as much of it unseen as validates best",
    "even": "DConRec's pool, drawn evenly",
    "doscond": "DosCond",
    "dconrec-paper": "DConRec, paper's form",
    "dconrec-authors": "DConRec, authors' form",
    "dconrec": "DConRec, policy gradient with a baseline",
    "first-order": "DConRec, first-order",
}
# Recall@10 in per cent at 25 and 50 %: DConRec paper, table 2.
PUBLISHED_RECALL: dict[tuple[str, str], tuple[float, float]] = {
    ("ciao", "full"): (3.12, 3.12),
    ("ciao", "random"): (0.92, 1.79),
    ("ciao", "majority"): (1.80, 2.80),
    ("ciao", "svp"): (2.89, 2.69),
    ("ciao", "doscond"): (1.24, 2.36),
    ("ciao", "dconrec-paper"): (3.02, 3.09),
    ("gowalla", "full"): (10.15, 10.15),
    ("gowalla", "random"): (4.57, 8.11),
    ("gowalla", "majority"): (6.67, 9.23),
    ("gowalla", "svp"): (8.36, 8.80),
    ("gowalla", "doscond"): (5.48, 9.19),
    ("gowalla", "dconrec-paper"): (9.30, 9.96),
}
STARTS = {
    "best": "starting from the proxy's best unseen items",
    "proxy": "starting from the proxy's best",
    "chosen": "starting from the proxy's best, as much of it unseen as validates best",
}
LEFT_OUT = {"pseudo": "pseudo data", "tail": "compensation"}


def log_runs(*, across: bool = False) -> list[list[dict[str, Any]]]:
    """Runs of `benchmarks/recommendation.py` that differ in their seed only; in the tables' order."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in load("recommendation"):
        if r["name"].startswith("across-") == across:
            groups.setdefault(log_key(r), []).append(r)
    return [groups[key] for key in sorted(groups)]


def log_key(r: dict[str, Any]) -> tuple[Any, ...]:
    """What a run is, but for its seed; the full log first."""
    ratio = 0.0 if r["method"] == "full" else r["ratio"]
    return (
        r["dataset"],
        ratio,
        list(LOG_METHODS).index(r["method"]),
        tuple(r["without"]),
        r["tag"],
        r["on"],
        r["start"],
        r["form"],
    )


def log_title(r: dict[str, Any]) -> str:
    """The method, and how it differs from its default."""
    if (r["start"], r["form"]) == ("chosen", "top"):
        return "**DConRec as the command runs it**: first-order, from the proxy's best, most probable rows"
    parts = [LOG_METHODS[r["method"]]]
    parts += ["without " + " and ".join(LEFT_OUT[w] for w in r["without"])] if r["without"] else []
    parts += [STARTS[r["start"]]] if r["start"] in STARTS else []
    parts += ["loss on the whole log"] * (r["on"] == "whole") + ["most probable rows"] * (r["form"] == "top")
    return ", ".join(parts)


def log_place(r: dict[str, Any]) -> list[str]:
    """Data and the size asked for."""
    return [LOGS[r["dataset"]], "" if r["method"] == "full" else f"{100 * r['ratio']:g} %"]


def percent(shares: Iterable[float], digits: int = 2) -> str:
    """Mean and standard deviation in per cent."""
    values = [100 * share for share in shares]
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def ranked(group: list[dict[str, Any]], metric: str) -> list[float]:
    """A test metric of each run."""
    return [value for r in group for value in r["row"]["scores"][metric]]


def of_full(group: list[dict[str, Any]], groups: list[list[dict[str, Any]]], metric: str = "recall@10") -> str:
    """The share of the full log's mean."""
    full = [g for g in groups if (g[0]["method"], g[0]["dataset"]) == ("full", group[0]["dataset"])]
    share = statistics.mean(ranked(group, metric)) / statistics.mean(ranked(full[0], metric)) if full else None
    return "" if share is None else f"{100 * share:.0f} %"


def real_size(group: list[dict[str, Any]]) -> str:
    """Rows of the log as a share of the training log."""
    return f"{100 * statistics.mean(r['row']['size']['share'] for r in group):.1f} %"


def recommendation() -> str:
    """Every method on every log: the size that it really has, how well it ranks and what it costs."""
    groups = [g for g in log_runs() if not g[0]["tag"]]
    metrics = {"recall@5": "Recall@5", "recall@10": "Recall@10", "ndcg@5": "NDCG@5", "ndcg@10": "NDCG@10"}
    heads = ["data", "asked for", "trained on", "real size", "pseudo rows", *metrics.values(), "of full, Recall@10"]
    heads += ["n", "steps", "CPU seconds", "published Recall@10"]
    rows = []
    for g in groups:
        r = g[0]
        learned = r.get("setting", {}).get("pseudo") or r["method"].startswith("proxy-")
        pseudo = f"{100 * statistics.mean(x['pseudo_share'] for x in g):.0f} %" if learned else ""
        known = PUBLISHED_RECALL.get((r["dataset"], r["method"]))
        plain = not r["without"] and r["form"] == "sampled"
        made = f"{statistics.mean(x['cpu_seconds']['condense'] for x in g):.0f}" if r["method"] != "full" else ""
        cells = [log_title(r), real_size(g), pseudo, *(percent(ranked(g, m)) for m in metrics), of_full(g, groups)]
        cells += [str(len(g)), str(r.get("steps", "")), made]
        rows.append([*log_place(r), *cells, f"{known[r['ratio'] > 0.3]:.2f}" if known and plain else ""])
    said = (
        "Test metrics in per cent, all items ranked, known ones masked; mean and standard deviation over n whole runs: "
        "proxy, condensing and one recommender, each from the run's seed. CPU seconds are of condensing or selecting, "
        "without DConRec's proxy. Published: the DConRec paper, table 2; another split and other early stopping, and "
        "sizes that are nominal."
    )
    return log_noted(markdown(heads, rows), groups, said)


def choices() -> str:
    """Rates and numbers of steps that were tried, by what the validation log says."""
    tagged = {(g[0]["dataset"], g[0]["ratio"], g[0]["method"]) for g in log_runs() if g[0]["tag"]}
    groups = [g for g in log_runs() if (g[0]["dataset"], g[0]["ratio"], g[0]["method"]) in tagged]
    groups = [g for g in groups if not g[0]["without"]]
    heads = ["data", "asked for", "trained on", "outer optimizer", "steps", "inner passes", "proxy's rate"]
    heads += ["NDCG@10 on validation", "on test", "n"]
    rows = []
    for g in groups:
        watched = percent(v for x in g for v in x["row"]["validation"])
        r = g[0]
        passes = re.search(r"epochs=(\d+)", r["outer"].get("inner", ""))
        cells = [
            log_title(r),
            rate(r),
            str(r["steps"]),
            passes[1] if passes else "",
            f"{r['proxy_lr']:g}",
            watched,
            percent(ranked(g, "ndcg@10")),
            str(len(g)),
        ]
        rows.append([*log_place(g[0]), *cells])
    said = (
        "In per cent. Masks are learned on the validation log and training is stopped by it, so that its column "
        "flatters; the test log decided nothing."
    )
    return log_noted(markdown(heads, rows), groups, said)


def rate(r: dict[str, Any]) -> str:
    """The outer optimizer and its rate."""
    found = re.match(r"(\w+)\(lr=([\d.e-]+)", r["outer"].get("outer", ""))
    return f"{found[1]}, {found[2]}" if found else ""


def across() -> str:
    """LightGCN on logs that were condensed with matrix factorisation."""
    groups = log_runs(across=True)
    heads = ["data", "asked for", "trained on", "real size", "Recall@10", "NDCG@10", "of full, Recall@10", "n"]
    rows = []
    for g in groups:
        cells = [log_title(g[0]), real_size(g), percent(ranked(g, "recall@10")), percent(ranked(g, "ndcg@10"))]
        rows.append([*log_place(g[0]), *cells, of_full(g, groups), str(len(g))])
    said = "LightGCN of 2 layers on logs that were condensed with matrix factorisation; test metrics in per cent."
    return log_noted(markdown(heads, rows), groups, said)


def large() -> str:
    """What a pool of millions takes."""
    path = RESULTS / "recommendation-large.json"
    if not path.exists():
        return NOTHING
    r = one("recommendation-large")
    rows = [
        [name, f"{s['cpu_seconds']:.0f}", f"{s['seconds']:.0f}", f"{s['peak_memory_mb']:,}"]
        for name, s in r["stages"].items()
    ]
    said = (
        f"A generated log of {r['users']:,} users and {r['items']:,} items; {r['train']:,} training rows, a pool of "
        f"{r['pool']:,}, {r['steps']} first-order steps, {r['exported']:,} rows exported; vectors of size 64. The "
        f"process keeps what it freed; its peak is {r['peak_memory_mb']:,} MB. {r['hardware']['processor']}, "
        f"{r['threads']} thread{'s' * (r['threads'] > 1)}, PyTorch {r['versions']['torch']}. Made by "
        "`benchmarks/recommendation.py large`."
    )
    return f"{markdown(['stage', 'CPU seconds', 'seconds', 'peak MB'], rows)}\n\n{said}"


def variate() -> str:
    """What the slope would explain as a control variate."""
    path = RESULTS / "recommendation-variate.json"
    if not path.exists():
        return NOTHING
    r = one("recommendation-variate")
    rows = [
        [str(x["steps"]), f"{100 * x['explained']:.1f} %", f"{x['factor']:.2f}", f"{x['cosine']:.2f}"]
        for x in r["rows"]
    ]
    heads = [
        "after first-order steps",
        "variance of the losses explained",
        "slope's true factor",
        "cosine of two slopes",
    ]
    said = (
        f"Ciao at 25 %; losses of {r['masks']} masks from the same initial vectors and negatives, regressed on the "
        "line of a slope that four other masks gave. Made by `benchmarks/recommendation.py variate`."
    )
    return f"{markdown(heads, rows)}\n\n{said}"


def log_noted(table: str, groups: list[list[dict[str, Any]]], said: str) -> str:
    """A table with what its rows have in common below it."""
    if table == NOTHING:
        return table
    r = groups[0][0]
    where = f"{r['hardware']['processor']}, {r['threads']} thread a run, PyTorch {r['versions']['torch']}"
    made = "Made by `benchmarks/recommendation.py`, files in `benchmarks/results/recommendation/`."
    return f"{table}\n\n{said} {where}. {made}"


MAKERS: dict[str, Callable[[], str]] = {
    "recommendation": recommendation,
    "recommendation-choices": choices,
    "recommendation-across": across,
    "recommendation-large": large,
    "recommendation-variate": variate,
}
