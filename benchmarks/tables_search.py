"""The tables of `search.py`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from tables import NOTHING, RESULTS

NAMES = {
    "real": "real images",
    "early": "real images, half the steps",
    "random": "random images",
    "k-center": "k-center",
    "dc": "DC",
    "dm": "DM",
    "few": "DM, scored by the loss of 100 real validation images",
    "hcdc": "DM, scored by the loss of the 100 that HCDC makes of these",
}
FOLDER = RESULTS / "search"
CHEAP = [name for name in NAMES if name != "real"]


def load(name: str) -> dict[str, Any] | None:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def cells() -> str:
    """How the ranking of cells on each set agrees with that on real images."""
    import torch

    from condensery.evaluate.agreement import agreement

    real = load("cells-real")
    if real is None:
        return NOTHING
    truth = scores(real)
    lines = [
        "| trained on | cells | Spearman | the same, second half | Kendall | points lost by taking the best | "
        "the same, best of 5 tried | best 5 among its best 5 | CPU seconds to make | CPU seconds a cell |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CHEAP:
        found = load(f"cells-{name}")
        if found is None:
            continue
        cheap = scores(found)
        codes = [code for code in truth if code in cheap]
        a, b = [cheap[code] for code in codes], [truth[code] for code in codes]
        made = agreement(a, b, torch.Generator().manual_seed(0))
        half = len(codes) // 2
        later = agreement(a[half:], b[half:], torch.Generator().manual_seed(0))
        seconds = sum(t["cpu"] for t in found["trials"]) / len(found["trials"])
        lines.append(
            f"| {NAMES[name]} | {made.n} | {made.spearman} | {later.spearman} | {made.kendall} | "
            f"{100 * made.regret.value:.1f} | {100 * made.regret_at_k.value:.1f} | {made.precision.value:.2f} | "
            f"{found['condensing']['cpu']:.0f} | {seconds:.1f} |"
        )
    each = sum(t["cpu"] for t in real["trials"]) / len(real["trials"])
    best = 100 * max(truth.values())
    lines += [
        "",
        f"{len(truth)} connected cells that compute different functions (`CellNet`, width 8, two stages), "
        "Fashion-MNIST at 14x14, 10 images a class or 2,000 real ones, scored on 2,000 real validation images; one "
        f"network a cell. The real ones take {each:.1f} CPU seconds a cell; the best cell has {best:.1f} %, the worst "
        f"{100 * min(truth.values()):.1f} %. HCDC's set is condensed for the first half of the cells, so that the "
        "second half is held out from it; all rows have the same halves. In brackets 95 % bootstrap intervals over "
        f"cells. {real['hardware']}, 1 thread. Made by `benchmarks/search.py cells`, files in "
        "`benchmarks/results/search/`.",
    ]
    return "\n".join(lines)


def scores(found: dict[str, Any]) -> dict[str, float]:
    """The score of each cell."""
    return {t["config"]["net.code"]: t["score"] for t in found["trials"] if t["score"] is not None}


def tuning() -> str:
    """Searches of hyperparameters on real and on condensed images, end to end."""
    from condensery.evaluate import Score

    found: dict[str, list[dict[str, Any]]] = {}
    for name in NAMES:
        for path in sorted(FOLDER.glob(f"optuna-{name}-seed*.json")):
            found.setdefault(name, []).append(json.loads(path.read_text(encoding="utf-8")))
    if not found:
        return NOTHING
    lines = [
        "| searched on | searches | to condense | to search | to confirm | in all | winner, real validation, % | "
        "winner, test, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, searches in found.items():
        cpu = [(one["condensing_cpu"], one["cpu"]["searching"], one["cpu"]["confirming"]) for one in searches]
        times = [*zip(*cpu, strict=True), [sum(parts) for parts in cpu]]
        winners = [one["confirmed"][-1] for one in searches]
        scores_ = (Score(tuple(mean(w[key]) for w in winners)) for key in ("validation", "test"))
        lines.append(
            f"| {NAMES[name]} | {len(searches)} | {' | '.join(f'{mean(t):.0f}' for t in times)} | "
            f"{' | '.join(map(str, scores_))} |"
        )
    one = found[next(iter(found))][0]
    lines += [
        "",
        f"CPU seconds of a search, means. {len(one['trials'])} trials of Optuna's TPE over width, depth, normalisation "
        "and pooling of a ConvNet, learning rate and weight decay; Fashion-MNIST at 14x14, 10,000 real training images "
        "(two passes) or 10 images a class (120 steps; one condensed set for all searches), all scored on 2,000 real "
        "validation images; the best 3 are then trained on the real images, two networks each, and the winner is "
        f"tested. {one['hardware']}, 1 thread. Made by `benchmarks/search.py optuna`, files in "
        "`benchmarks/results/search/`.",
    ]
    return "\n".join(lines)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


CALIBRATED = {
    "real": "all real ones",
    "random": "random real ones",
    "hcdc": "HCDC's",
    "paper": "HCDC's, without networks trained on the real images (algorithm 1)",
}


def calibrated() -> str:
    """How few validation images rank configurations."""
    found = load("calibrate")
    if found is None:
        return NOTHING
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for one in found["rows"]:
        groups.setdefault((one["images"], one["set"].partition("-")[0]), []).append(one)
    order = sorted(groups, key=lambda key: (-key[0], list(CALIBRATED).index(key[1])))
    lines = ["| validation images | how many | Spearman | sets | CPU seconds to make |", "|---|---|---|---|---|"]
    for images, kind in order:
        rows = groups[images, kind]
        values = [one["spearman"] for one in rows]
        said = f"{mean(values):.2f}"
        if len(values) > 1:
            said += f" ± {statistics.stdev(values):.2f}"
        else:
            said += f" [{rows[0]['low']:.2f}, {rows[0]['high']:.2f}]"
        cpu = f"{rows[0]['cpu']:.0f}" if "cpu" in rows[0] else ""
        lines.append(f"| {CALIBRATED[kind]} | {images:,} | {said} | {len(rows)} | {cpu} |")
    lines += [
        "",
        f"{len(found['configs'])} random configurations of width, depth, normalisation, pooling and weight decay, "
        "trained on DM's 10 images a class of Fashion-MNIST at 14x14 and ranked by the loss on the validation images; "
        "against the loss on 2,000 real validation images after training on 10,000 real ones, one network each. "
        "Condensing saw eight networks of the space. In brackets a 95 % bootstrap interval over configurations. "
        f"{found['hardware']}, 1 thread. Made by `benchmarks/calibrate.py`, file in `benchmarks/results/search/`.",
    ]
    return "\n".join(lines)


MAKERS = {"search-cells": cells, "search-tuning": tuning, "search-calibrate": calibrated}
