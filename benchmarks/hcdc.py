"""How well condensed validation data rank hyperparameters: HCDC beside other condensation and early stopping.

    python benchmarks/hcdc.py folds --seeds 0 1 2          # table 7: every method, both ratios; going on where stopped
    python benchmarks/hcdc.py folds --seeds 0 --methods reference random dc --ratios 0.02
    python benchmarks/hcdc.py filters --seeds 0 1 2        # Cora: which graph filter is best
    python benchmarks/hcdc.py networks --seeds 0 1 2       # Cora: which of 40 graph networks is best
    python benchmarks/hcdc.py cost                         # time and memory of a point and a step
    python benchmarks/hcdc.py curvature                    # solves with the Hessian and with the Gauss-Newton matrix

Writes one JSON file a run to benchmarks/results/hcdc/; what is there already is not computed again. The data are looked
for where CONDENSERY_DATA says.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import condensery as cd
import hcdc_cost as costs
import hcdc_curvature as curvature
import hcdc_filters as filters
import hcdc_folds as folds
import hcdc_networks as networks
from condensery.memory import keep_freed_memory
from condensery.methods.hcdc import by_point, together
from condensery.store import write_text
from pieces import commit
from trajectories import processor

TARGET = Path(__file__).parent / "results" / "hcdc"
FOLD_METHODS = [
    "reference",
    "reference-again",
    "random",
    "dc",
    "dm",
    "early",
    "hcdc",
    "hcdc-shared",
    "hcdc-together",
    "hcdc-teacher",
    "stand-in",
]

FILTER_METHODS = {
    "reference": filters.reference,
    "random": filters.random,
    "early": filters.early,
    "gcond": filters.standard,
    "few": filters.few,
    "hcdc": filters.calibrated,
    "hcdc-together": partial(filters.calibrated, distance=together),
    "hcdc-teacher": partial(filters.calibrated, teacher=True),
}

NETWORK_METHODS = {
    "reference": networks.reference,
    "random": networks.random,
    "early": networks.early,
    "gcond": networks.standard,
    "few": networks.few,
    "hcdc": networks.gumbel,
    "hcdc-odds": networks.odds,
    "hcdc-odds-log": networks.log_odds,
    "hcdc-odds-teacher": networks.teacher,
}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/hcdc"), help="condensed sets")
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("folds")
    table.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    table.add_argument("--ratios", type=float, nargs="+", default=[0.02, 0.04], choices=list(folds.STEPS))
    table.add_argument("--methods", nargs="+", default=FOLD_METHODS, choices=FOLD_METHODS)
    graph = commands.add_parser("filters")
    graph.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    graph.add_argument("--methods", nargs="+", default=list(FILTER_METHODS), choices=list(FILTER_METHODS))
    listed = commands.add_parser("networks")
    listed.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    listed.add_argument("--methods", nargs="+", default=list(NETWORK_METHODS), choices=list(NETWORK_METHODS))
    commands.add_parser("cost")
    commands.add_parser("curvature")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    commit()  # of the code that runs, whatever is changed meanwhile
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    commands = {"folds": run_folds, "filters": run_filters, "networks": run_networks}
    if options.command in commands:
        commands[options.command](options)
    else:
        measure = {"cost": costs.measure, "curvature": curvature.measure}[options.command]
        once(options.command, {"name": options.command}, measure)


def run_folds(options: argparse.Namespace) -> None:
    data = folds.images(None)
    for seed in options.seeds:
        for method in options.methods:
            for ratio in [None] if method.startswith("reference") else options.ratios:
                name = f"folds-{method}" + (f"-{ratio:g}" if ratio else "") + f"-seed{seed}"
                what = {"method": method, "ratio": ratio, "seed": seed}
                once(name, what, partial(fold_run, options, data, method, ratio, seed))


def run_filters(options: argparse.Namespace) -> None:
    data = filters.cora()
    for seed in options.seeds:
        for method in options.methods:
            compute = partial(FILTER_METHODS[method], data, seed)
            once(f"filters-{method}-seed{seed}", {"method": method, "seed": seed}, compute)


def run_networks(options: argparse.Namespace) -> None:
    data = networks.cora()
    for seed in options.seeds:
        for method in options.methods:
            what = {"method": method, "seed": seed, "experiment": "networks"}
            once(f"networks-{method}-seed{seed}", what, partial(NETWORK_METHODS[method], data, seed))


def fold_run(options: argparse.Namespace, data: Any, method: str, ratio: float | None, seed: int) -> dict[str, Any]:
    """One method on one partition."""
    if ratio is None:
        return folds.reference(data, seed, training_seed=seed + (50 if method == "reference-again" else 0))
    if method == "early":
        return folds.early(data, ratio, seed)
    if method.startswith("hcdc"):
        distance = together if method == "hcdc-together" else by_point
        kind = {"shared": method == "hcdc-shared", "teacher": method == "hcdc-teacher", "distance": distance}
        return folds.calibrated(data, ratio, seed, options.work, **kind)
    if method == "stand-in":
        return folds.stand_in(data, ratio, seed, options.work)
    return folds.standard(method, data, ratio, seed, options.work)


def once(name: str, what: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> None:
    """Write a result unless it is there."""
    path = TARGET / f"{name}.json"
    if path.exists():
        return
    start, wall, where = time.process_time(), time.time(), surroundings()
    found = compute()
    facts = {**what, **found, "cpu_s": time.process_time() - start, "wall_s": time.time() - wall, **where}
    TARGET.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(facts, indent=1) + "\n")
    print(f"{name}: {facts['cpu_s']:.0f} CPU s", flush=True)


def surroundings() -> dict[str, Any]:
    """What the numbers were made on."""
    return {
        "threads": torch.get_num_threads(),
        "hardware": {"processor": processor()},
        "versions": {"torch": torch.__version__, "condensery": cd.__version__},
        "commit": commit(),
        "command": asked(sys.argv[1:]),
    }


def asked(words: list[str]) -> list[str]:
    """The words of the command line without the folder for its work, which means nothing elsewhere."""
    if "--work" not in words:
        return words
    at = words.index("--work")
    return [*words[:at], *words[at + 2 :]]


if __name__ == "__main__":
    main()
