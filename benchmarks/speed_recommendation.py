"""Time DConRec's outer loop, training by BPR and full ranking on recommendation logs.

    OMP_NUM_THREADS=2 python benchmarks/speed_recommendation.py --threads 2
    python benchmarks/speed_recommendation.py --implicit PYTHON      # also the BPR of `implicit`, of that interpreter

Outer steps at ratio 0.25 with one pass of inner training, the optimisation apart from the proxy and the pool: this
library's default, one mask a step (what the paper's times are of), and the first-order form. Prints a table and
writes benchmarks/results/speed-recommendation.json. Data as in `recommendation.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

import condensery as cd
from condensery import bpr
from condensery.condensed_log import Interactions
from condensery.data.interactions import LogData, joined
from condensery.fitting import Adam
from condensery.masks import Reinforce
from condensery.memory import keep_freed_memory
from condensery.methods import dconrec
from condensery.methods.dconrec import DConRec, FirstOrder, Setting
from condensery.nets.recommender import MF
from condensery.ranking import quality
from condensery.store import write_text
from recommendation import PSEUDO, load
from speed import host
from trajectories import forget_peak, peak

HERE = Path(__file__).parent
# Seconds of 100 outer steps on an A30 GPU, table 3: in all, and without the inner training.
PUBLISHED = {"ciao": (202, 52), "gowalla": (791, 251)}


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both."""
        return {"wall": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu}


class Alone(DConRec):
    """The optimisation without the inner training: masks, estimate, step and projection (table 3, DConRec-Optim)."""

    def mask_loss(self, synthetic: Interactions) -> Callable[[Tensor, Generator], float]:
        """Any number: what it is costs the same."""
        return lambda mask, generator: len(synthetic.take(mask)) / len(mask)


def default() -> Reinforce:
    """The default's estimator."""
    return Reinforce(samples=4, leave_one_out=True, common=True, margin=0.01)


FORMS: dict[str, tuple[type[DConRec], Reinforce | FirstOrder]] = {
    "policy gradient, 4 masks a step": (DConRec, default()),
    "policy gradient without the inner training": (Alone, default()),
    "1 mask a step": (DConRec, Reinforce()),
    "first-order, 1 mask a step": (DConRec, FirstOrder(margin=0.01)),
}


def outer(data: LogData, steps: int) -> dict[str, Any]:
    """Seconds of so many outer steps of each form, and of what comes before them."""
    generator = Generator().manual_seed(0)
    recipe = bpr.Recipe(epochs=10, optimizer=Adam(lr=5e-3), penalty=bpr.Norms(), best=False)
    nobody = data.validation.subset(torch.arange(0))  # a proxy of ten passes that nothing stops
    clock = Clock()
    proxy = dconrec.fit_proxy(data.train, nobody, generator, recipe=recipe).model
    found: dict[str, Any] = {"proxy, 10 passes": clock.read()}
    for name, (method, estimator) in FORMS.items():
        clock = Clock()
        kept = dconrec.prepare(data.train, 0.25, setting=Setting(pseudo=PSEUDO[data.name]), proxy=proxy)
        found.setdefault("pool", clock.read())
        objective = method(data.train, data.validation, generator, estimator=estimator)
        forget_peak()
        clock = Clock()
        for _ in cd.iterate(kept, objective, objective.optimizer(kept), steps=steps):
            pass
        found[name] = {**clock.read(), "steps": steps, "peak_memory_mb": round(peak())}
        print(data.name, name, found[name], flush=True)
    return found


def training(data: LogData, passes: int) -> dict[str, Any]:
    """Triples a second over the full log: medians over passes after the first."""
    model, generator = MF(data.num_users, data.num_items), Generator().manual_seed(0)
    model.reset_parameters(generator)
    recipe = bpr.Recipe(epochs=passes + 1, optimizer=Adam(lr=1e-3), best=False)
    clock, laps = Clock(), []
    for _ in bpr.training(model, data.train, recipe, generator):
        laps.append(clock.read())
        clock = Clock()
    known = joined(data.train, data.validation)
    clock = Clock()
    tested = quality(model, data.test, seen=known, users=torch.arange(min(1000, data.num_users)))
    return rates(len(data.train), laps[1:], {**clock.read(), "users": tested.users})


def theirs(data: LogData, python: str, passes: int, threads: int) -> dict[str, Any]:
    """The same of `implicit`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.npz"
        np.savez(path, users=data.train.users.numpy(), items=data.train.items.numpy())
        line = [python, str(HERE / "peer_implicit.py"), str(path), "--iterations", str(passes)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
        line += ["--threads", str(threads)]
        done = subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout)
    return {**rates(said["triples"], said["passes"], said["ranking"]), "version": said["version"]}


def rates(triples: int, laps: list[dict[str, float]], ranking: dict[str, float]) -> dict[str, Any]:
    """Per CPU second and per second."""
    middle = {kind: statistics.median(lap[kind] for lap in laps) for kind in ("wall", "cpu")}
    return {
        "triples": triples,
        "n": len(laps),
        **{f"triples_per_{kind}_second": triples / seconds for kind, seconds in middle.items()},
        **{f"users_per_{kind}_second": ranking["users"] / ranking[kind] for kind in ("wall", "cpu")},
    }


def table(results: dict[str, Any], session: dict[str, Any], threads: int) -> str:
    """The table of the documentation."""
    lines = ["| | CPU seconds | wall seconds | peak MB | published, A30, s |", "|---|---|---|---|---|"]
    for dataset, found in results.items():
        for name, value in found["outer"].items():
            steps = f", {value['steps']} steps" if "steps" in value else ""
            paper = "" if "steps" not in value or "first" in name else str(PUBLISHED[dataset]["without" in name])
            cells = [f"{value['cpu']:.1f}", f"{value['wall']:.1f}", str(value.get("peak_memory_mb", "")), paper]
            lines.append(f"| {dataset.capitalize()}: {name}{steps} | {' | '.join(cells)} |")
    lines += ["", "| | BPR triples a CPU second | users ranked a CPU second |", "|---|---|---|"]
    for dataset, found in results.items():
        for name in ("condensery", "implicit"):
            if name in found:
                value = found[name]
                version = f" {value['version']}" if "version" in value else ""
                numbers = [f"{value[f'{what}_per_cpu_second']:,.0f}" for what in ("triples", "users")]
                lines.append(f"| {dataset.capitalize()}: {name}{version} | {' | '.join(numbers)} |")
    said = (
        f"Vectors of size 64, ratio 0.25, inner training of one pass in batches of 4,096. Triples: training on the "
        f"full log, median of passes; ours is mini-batches of 4,096 with Adam, implicit's one triple at a time with "
        f"SGD, so a pass is not the same progress. Users: the ten best unseen of all items. {session['processor']}, "
        f"{threads} thread{'s' * (threads > 1)}, load {session['load'][0]:.1f} to {session['load'][-1]:.1f}, PyTorch "
        f"{session['torch']}. Published: table 3, 100 steps, wall seconds on an A30 GPU. Other programs "
        "ran beside, so compare CPU seconds. Made by "
        "`benchmarks/speed_recommendation.py`."
    )
    return "\n".join([*lines, "", said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=["ciao:100"], metavar="NAME:STEPS", help="ciao:100 gowalla:20")
    parser.add_argument("--passes", type=int, default=5, help="of training that are measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--implicit", metavar="PYTHON", help="an interpreter that has implicit")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "speed-recommendation.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    session: dict[str, Any] = {**host(), "load": [os.getloadavg()[0]]}
    results: dict[str, Any] = {}
    for name, _, steps in (text.partition(":") for text in options.data):
        data = load(name)
        found: dict[str, Any] = {"condensery": training(data, options.passes)}
        if options.implicit:
            found["implicit"] = theirs(data, options.implicit, options.passes, options.threads)
        print({k: found[k] for k in found}, flush=True)
        results[name] = {"outer": outer(data, int(steps or 100)), **found}
        session["load"].append(os.getloadavg()[0])
        facts = {"threads": options.threads, "session": session, "results": results}
        facts["table"] = table(results, session, options.threads)
        write_text(options.output, json.dumps(facts, indent=1) + "\n")
    print(facts["table"], file=sys.stderr)


if __name__ == "__main__":
    main()
