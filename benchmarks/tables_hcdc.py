"""The tables of HCDC, for `tables.py`."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from scipy.stats import spearmanr

from tables import NOTHING, load, markdown

FOLDS = {
    "random": "random",
    "dc": "SDC-GM: [DC](dc.md), fold by fold",
    "dm": "SDC-DM: [DM](dm.md), fold by fold",
    "early": "early stopping, on the real images",
    "hcdc": "HCDC, a validation set for each fold",
    "hcdc-teacher": "the same, with a teacher trained on the real images",
    "hcdc-together": "the same, by the distance `together`",
    "hcdc-shared": "HCDC, one validation set for all",
    "stand-in": "the real folds, under networks trained on DC's set",
    "reference-again": "the reference again, from other weights",
}
# Table 7 of the paper: ratios of 2 and 4 %, all of CIFAR-10.
PUBLISHED = {
    "random": (-0.03, 0.07),
    "dc": (0.64, 0.78),
    "dm": (0.77, 0.86),
    "early": (0.11, 0.24),
    "hcdc": (0.91, 0.94),
}
FILTERS = {
    "random": "random subgraphs",
    "gcond": "[GCond](gcond.md), of the training and of the validation nodes",
    "early": "early stopping, on the real graph",
    "few": "the real validation nodes that HCDC begins as, GCond's training graph",
    "hcdc": "HCDC, on GCond's training graph",
    "hcdc-together": "the same, by the distance `together`",
    "hcdc-teacher": "HCDC, real hypergradients from a network trained on the real graph",
}
NETWORKS = {
    "random": "random subgraphs",
    "gcond": "[GCond](gcond.md), of the training and of the validation nodes",
    "early": "early stopping, on the real graph",
    "few": "the real validation nodes that HCDC begins as, GCond's training graph",
    "hcdc": "HCDC over the interpolated network, one drawn (`Alternatives`)",
    "hcdc-odds": "HCDC over the odds of the networks (`Odds`)",
    "hcdc-odds-log": "the same, of logarithms of losses",
    "hcdc-odds-teacher": "of losses, real losses of networks trained on the real graph",
}


def folds() -> str:
    """Table 7: rank correlation over the folds."""
    found = {(r["method"], r["ratio"], r["seed"]): r for r in runs("folds-")}
    rows = []
    for method, ratio in [*itertools.product(FOLDS, (0.02, 0.04)), ("reference-again", None)]:
        mine = [r for (m, share, _), r in found.items() if (m, share) == (method, ratio)]
        pairs = [(r, found["reference", None, r["seed"]]) for r in mine if ("reference", None, r["seed"]) in found]
        if pairs:
            rows.append(fold_row(method, ratio, pairs, found))
    heads = ["method", "ratio", "by loss", "by accuracy", "with the stand-in", "published"]
    made = markdown([*heads, "condensing, CPU s", "20 trainings, CPU s"], rows)
    if not rows:
        return made
    whole = statistics.mean(r["evaluation_cpu_s"] for (m, _, _), r in found.items() if m == "reference")
    said = (
        "Spearman's correlation over 20 folds with the cross-validation on all images, which takes "
        f"{whole:.0f} CPU seconds; mean and standard deviation over n partitions. *With the stand-in*: correlation, "
        "by loss, with that of the real folds under networks trained on DC's set. 10,000 images of CIFAR-10, 16 x 16, "
        "ConvNet of depth 2 and width 16 without normalisation; published: all 50,000 images and another network."
    )
    return f"{made}\n\n{said} {conditions(found.values())}"


Runs: TypeAlias = dict[tuple[str, float | None, int], dict[str, Any]]


def fold_row(
    method: str, ratio: float | None, pairs: list[tuple[dict[str, Any], dict[str, Any]]], found: Runs
) -> list[str]:
    """One method at one ratio, its runs paired with their references."""
    published = PUBLISHED[method][(0.02, 0.04).index(ratio)] if method in PUBLISHED and ratio else None
    others = [(r, found.get(("stand-in", ratio, r["seed"]))) for r, _ in pairs if method != "stand-in"]
    agreeing = [correlation(r["losses"], other["losses"]) for r, other in others if other]
    cost = statistics.mean(r.get("condensing_cpu_s", 0) + r.get("train_cpu_s", 0) for r, _ in pairs)
    return [
        FOLDS[method],
        "" if ratio is None else f"{100 * ratio:g} %",
        spread(correlation(r["losses"], real["losses"]) for r, real in pairs),
        spread(correlation(r["accuracies"], real["accuracies"]) for r, real in pairs),
        spread(agreeing) if agreeing else "",
        "" if published is None else f"{published:.2f}",
        f"{cost:.0f}" if cost else "",
        f"{statistics.mean(r['evaluation_cpu_s'] for r, _ in pairs):.0f}",
    ]


def filters() -> str:
    """Rank correlation and choice over filters on Cora."""
    found = {(r["method"], r["seed"]): r for r in runs("filters-")}
    rows = []
    for method, title in FILTERS.items():
        mine = [(r, found["reference", s]) for (m, s), r in found.items() if m == method and ("reference", s) in found]
        if not mine:
            continue
        cost = sum(r.get("condensing_cpu_s", 0) + r.get("train_cpu_s", 0) for r, _ in mine) / len(mine)
        rows.append(
            [
                title,
                spread(correlation(r["losses"], real["losses"]) for r, real in mine),
                spread(correlation(r["accuracies"], real["accuracies"]) for r, real in mine),
                spread(100 * chosen(r["losses"], real["test_accuracies"]) for r, real in mine),
                f"{cost:.0f}" if cost else "",
                f"{statistics.mean(r['evaluation_cpu_s'] for r, _ in mine):.0f}",
            ]
        )
    real = [r for (m, _), r in found.items() if m == "reference"]
    if real:
        own = spread(100 * chosen(r["losses"], r["test_accuracies"]) for r in real)
        rows.append(
            ["the real graph", "1", "1", own, "", f"{statistics.mean(r['evaluation_cpu_s'] for r in real):.0f}"]
        )
    heads = [
        "asked of",
        "by loss",
        "by accuracy",
        "test accuracy of the filter chosen, %",
        "condensing, CPU s",
        "all trainings, CPU s",
    ]
    made = markdown(heads, rows)
    if not rows:
        return made
    best = spread(100 * max(r["test_accuracies"]) for r in real)
    said = (
        f"Spearman's correlation over a grid of {len(real[0]['losses'])} filters that condensing never saw; mean and "
        "standard deviation over n seeds. 70 nodes, and 70 more for validation; network of width 32. The filter that "
        f"is best on the test nodes has {best} there."
    )
    return f"{made}\n\n{said} {conditions(found.values())}"


def networks() -> str:
    """Rank correlation and choice over 40 graph networks on Cora: all, and those held out from condensing."""
    found = {(r["method"], r["seed"]): r for r in runs("networks-")}
    rows = []
    for method, title in NETWORKS.items():
        mine = [(r, found["reference", s]) for (m, s), r in found.items() if m == method and ("reference", s) in found]
        if mine:
            rows.append(network_row(title, mine))
    if not rows:
        return NOTHING
    real = [r for (m, _), r in found.items() if m == "reference"]
    own = spread(100 * chosen(r["losses"], r["test_accuracies"]) for r in real)
    time = statistics.mean(r["evaluation_cpu_s"] for r in real)
    rows.append(["the real graph", "1", "1", "1", "1", own, "", f"{time:.0f}"])
    heads = ["asked of", "by loss", "by loss, held out", "by accuracy", "by accuracy, held out"]
    made = markdown(
        [*heads, "test accuracy of the network chosen, %", "condensing, CPU s", "40 trainings, CPU s"], rows
    )
    best = spread(100 * max(r["test_accuracies"]) for r in real)
    pairs = list(itertools.combinations(real, 2))
    again = ""
    if pairs:
        loss, right = (spread(correlation(a[k], b[k]) for a, b in pairs) for k in ("losses", "accuracies"))
        again = f" Two seeds of the reference agree by {loss} by loss and {right} by accuracy (n pairs)."
    said = (
        f"Spearman's correlation over {len(real[0]['losses'])} networks (widths "
        f"{' and '.join(map(str, real[0]['widths']))}, depths 2 and 4), and over the half of them that condensing did "
        "not see; mean and standard deviation over n seeds. 70 nodes, and 70 more for validation; 140 and 500 on the "
        f"real graph. The network that is best on the test nodes has {best} there.{again}"
    )
    return f"{made}\n\n{said} {conditions(found.values())}"


def network_row(title: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """One method, its runs paired with their references."""
    numbers = []
    for what in ("losses", "accuracies"):
        for held in (False, True):
            kept = [[k for k in range(len(r[what])) if not held or k not in r["seen"]] for r, _ in pairs]
            numbers.append(
                spread(
                    correlation([r[what][k] for k in ks], [real[what][k] for k in ks])
                    for (r, real), ks in zip(pairs, kept, strict=True)
                )
            )
    cost = statistics.mean(r.get("condensing_cpu_s", 0) + r.get("train_cpu_s", 0) for r, _ in pairs)
    return [
        title,
        *numbers,
        spread(100 * chosen(r["losses"], real["test_accuracies"]) for r, real in pairs),
        f"{cost:.0f}" if cost else "",
        f"{statistics.mean(r['evaluation_cpu_s'] for r, _ in pairs):.0f}",
    ]


def cost() -> str:
    """Seconds of a point and of a step."""
    found = [r for r in load("hcdc") if r.get("name") == "cost"]
    if not found:
        return NOTHING
    (r,) = found
    kept = {(p["hyperparameters"], p["terms"], p["weights"], p["matrix"]): p for p in r["points"]}
    rows = []
    for p, terms, weights in dict.fromkeys(key[:3] for key in kept):
        pair = [kept[p, terms, weights, matrix] for matrix in (True, False)]
        numbers = [f"{q[name]:.3f}" for name in ("first_cpu_s", "step_cpu_s") for q in pair]
        gain = pair[1]["step_cpu_s"] / pair[0]["step_cpu_s"]
        peaks = [f"{q['peak_mb']:.0f}" for q in pair]
        rows.append([f"{p}", f"{terms}", f"{weights:,}", *numbers, f"{gain:.0f}", *peaks])
    heads = ["p", "terms", "weights", "point: matrix", "point: solves", "step: matrix", "step: solves", "steps, ratio"]
    heads += ["peak MB: matrix", "peak MB: solves"]
    said = (
        "CPU seconds of the first step at a point, training left out, and of a later one. "
        f"{r['images']} images of {r['side']} x {r['side']} train, as many validate on either side; the first row has "
        "the process's own start in it. Peak memory is the whole process's."
    )
    return f"{markdown(heads, rows)}\n\n{said} {conditions(found)}"


def curvature() -> str:
    """Eigenvalues, residuals and seconds with the Hessian and with the Gauss-Newton matrix."""
    found = [r for r in load("hcdc") if r.get("name") == "curvature"]
    if not found:
        return NOTHING
    (r,) = found
    rows = []
    for point in r["points"]:
        pair = [point["hessian"], point["gauss-newton"]]
        forms = {"lowest": "{:.2g}", "CG": "{:.2g}", "Neumann": "{:.2g}", "product_cpu_s": "{:.3f}"}
        numbers = [form.format(q[name]) for name, form in forms.items() for q in pair]
        rows.append([f"{point['steps']}", f"{pair[0]['gradient']:.2f}", *numbers])
    columns = ("lowest eigenvalue", "CG", "Neumann series", "product, CPU s")
    heads = ["steps", "gradient", *(f"{name}: {kind}" for name in columns for kind in ("H", "G"))]
    said = (
        f"After so many steps of training a supernet of all cells ({r['weights']:,} weights, an operation drawn for "
        f"each edge at each step) on {r['images']} digits: the norm of the training gradient; the lowest eigenvalue of "
        "the Hessian H and of the Gauss-Newton matrix G, from above; relative residuals after 20 steps with a damping "
        f"of {r['damping']}, of a right-hand side for which there is a solution."
    )
    return f"{markdown(heads, rows)}\n\n{said} {conditions(found)}"


def runs(start: str) -> list[dict[str, Any]]:
    """The result files of an experiment."""
    kinds: dict[str, Callable[[dict[str, Any]], bool]] = {
        "folds-": lambda r: "ratio" in r,
        "filters-": lambda r: "method" in r and "ratio" not in r and "experiment" not in r,
        "networks-": lambda r: r.get("experiment") == "networks",
    }
    return [r for r in load("hcdc") if kinds[start](r)]


def correlation(ours: list[float], real: list[float]) -> float:
    """Spearman's, ties at their mean rank."""
    return float(spearmanr(ours, real).statistic)


def chosen(losses: list[float], test: list[float]) -> float:
    """The test accuracy of the one with the lowest loss."""
    return test[min(range(len(losses)), key=losses.__getitem__)]


def spread(values: Iterable[float]) -> str:
    """Mean, standard deviation and n."""
    held = list(values)
    digits = 1 if max(map(abs, held)) > 2 else 2
    mean = f"{statistics.mean(held):.{digits}f}"
    return f"{mean} (n=1)" if len(held) == 1 else f"{mean} ± {statistics.stdev(held):.{digits}f} (n={len(held)})"


def conditions(found: Iterable[dict[str, Any]]) -> str:
    """What the runs have in common."""
    r = next(iter(found))
    return (
        f"{r['hardware']['processor']}, {r['threads']} thread, PyTorch {r['versions']['torch']}. Made by "
        "`benchmarks/hcdc.py`, files in `benchmarks/results/hcdc/`."
    )


MAKERS: dict[str, Callable[[], str]] = {
    "hcdc-folds": folds,
    "hcdc-filters": filters,
    "hcdc-networks": networks,
    "hcdc-cost": cost,
    "hcdc-curvature": curvature,
}
