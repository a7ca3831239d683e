"""Time GCond beside the code that the field uses for it, GraphSlim's.

    OMP_NUM_THREADS=1 python benchmarks/speed_graphs.py --data DATA --graphslim GraphSlim

Without a checkout only ours is timed. Prints a table and writes benchmarks/results/speed-graphs.json.

One epoch on Cora: 20 steps of matching and 15 steps of training after each, an SGC inside, edges from pairs of
features; float32, one thread. Epochs that move the structure and epochs that move the features take turns and are told
apart; of 50 epochs 10 are of the first kind, and so is the mean weighted. Both see the same real nodes: theirs samples
up to 10 and 5 of their neighbours at each step, ours has propagated everything once, the exact form of the same step.

Each program is a process of its own, and only one runs at a time: they take turns, epoch by epoch. Seconds are of the
CPU, medians, after an epoch of warm-up. "Theirs, memory kept" is their code with glibc told to keep freed memory, as
ours does: the part of the difference that is not in the code. What stands in for a compiled extension of theirs is not
counted (see `peer_graphslim.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import condensery as cd
from condensery.data.graph_pyg import planetoid
from condensery.graph import Graph, PairwiseMlp, class_counts
from condensery.memory import keep_freed_memory
from condensery.methods.gcond import GCond
from condensery.nets.graph import SGC
from condensery.store import write_text
from peer_graphslim import COMMIT, REPOSITORY
from peer_vico import Meter
from speed import KEEPING, Runner, host

HERE = Path(__file__).parent
THEIRS, KEPT, OURS = "theirs", "theirs, memory kept", "ours"
SIZES = [35, 70, 140]
STRUCTURE_SHARE = 10 / 50


def worker(nodes: int, iterations: int, folder: Path) -> dict[str, Any]:
    """Ours, in a process of its own."""
    keep_freed_memory()  # as the command line does
    data, generator = planetoid(folder, "cora"), torch.Generator().manual_seed(0)
    net = cd.Net(SGC(features=data.num_features, classes=data.num_classes, hops=2))
    mlp = PairwiseMlp(data.num_features, generator=generator)
    graph = Graph.from_real(data, class_counts(data.train_y, nodes), generator, adjacency=mlp)
    method = GCond(net, data, generator, alternation=(0, 1))
    steps = cd.iterate(graph, method, method.optimizer(graph), steps=(iterations + 2) * method.outer)
    meter = Meter(iterations, paced=True)
    meter.begin()
    structure = False
    while not meter.done:
        for _ in range(method.outer):
            next(steps)
        meter.lap(structure=structure)
        structure = not structure
        method.alternation = (int(structure), 1)
    return meter.result(nodes=nodes)


def race(nodes: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run every program at a size, an epoch each in turn."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = json.dumps([nodes, options.iterations, str(options.data)])
    runners = {}
    if options.graphslim:
        peer = [sys.executable, str(HERE / "peer_graphslim.py"), "--paced", "--checkout", str(options.graphslim)]
        peer += ["--data", str(options.data), "--nodes", str(nodes), "--iterations", str(options.iterations)]
        runners[THEIRS] = Runner(peer, environment)
        runners[KEPT] = Runner(peer, {**environment, **KEEPING})
    runners[OURS] = Runner([sys.executable, "-W", "ignore", __file__, "--worker", job], environment)
    try:
        for runner in runners.values():
            runner.wait()
        while racing := [runner for runner in runners.values() if runner.result is None]:
            for runner in racing:
                runner.go()
    finally:
        for runner in runners.values():
            runner.process.kill()
            runner.process.wait()
    return {name: runner.result for name, runner in runners.items() if runner.result is not None}


def rows(nodes: int, results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a program; ratios are to theirs, where it ran."""
    made = {name: row(nodes, name, result) for name, result in results.items()}
    for name, mine in made.items():
        if name == OURS:
            mine["of_theirs"] = {
                peer: round(mine["cpu_seconds"] / made[peer]["cpu_seconds"], 4) for peer in made if peer != OURS
            }
    return list(made.values())


def row(nodes: int, name: str, result: dict[str, Any]) -> dict[str, Any]:
    """What was measured of a program."""
    kinds = {"structure": True, "features": False}
    seconds = {
        kind: statistics.median(lap["cpu_s"] for lap in result["laps"] if lap["structure"] == moved)
        for kind, moved in kinds.items()
    }
    mean = STRUCTURE_SHARE * seconds["structure"] + (1 - STRUCTURE_SHARE) * seconds["features"]
    memory = result["memory"]
    peak = max(memory["peak_setup_mb"], memory["peak_loop_mb"])
    what = {"nodes": nodes, "program": name, "n": len(result["laps"]), "cpu_seconds": round(mean, 4)}
    return {**what, "by_kind": seconds, "peak_memory_mb": peak, "result": result}


def markdown(made: list[dict[str, Any]], session: dict[str, Any]) -> str:
    """The table of the documentation."""
    heads = ["nodes", THEIRS, KEPT, OURS, "ours of theirs", "of theirs, memory kept", "peak MB theirs / ours", "n"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for nodes in dict.fromkeys(r["nodes"] for r in made):
        mine = {r["program"]: r for r in made if r["nodes"] == nodes}
        cells = [f"{mine[p]['cpu_seconds']:.2f}" if p in mine else "" for p in (THEIRS, KEPT, OURS)]
        shares = mine[OURS].get("of_theirs", {})
        cells += [f"{shares[p]:.3f}" if p in shares else "" for p in (THEIRS, KEPT)]
        cells += [" / ".join(str(mine[p]["peak_memory_mb"]) if p in mine else "-" for p in (THEIRS, OURS))]
        lines.append(f"| {nodes} | {' | '.join([*cells, str(mine[OURS]['n'])])} |")
    return "\n".join(lines) + (
        "\n\nCPU seconds of one epoch of GCond on Cora (20 steps of matching, 15 of training after each), one thread; "
        f"{REPOSITORY} at commit {COMMIT[:8]}, without the time of its compiled extension, and ours; n epochs in "
        "turns after a warm-up, medians of those that move the structure and of those that move the features, "
        f"weighted 1 to 4. {session['processor']}, PyTorch {session['torch']}, load at the start "
        f"{session['load'][0]:.1f} on {session['cores']} cores. Made by `benchmarks/speed_graphs.py`."
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with Cora's raw files, or one above it")
    parser.add_argument("--graphslim", type=Path, metavar="PATH", help=f"{REPOSITORY} at commit {COMMIT[:8]}")
    parser.add_argument("--iterations", type=int, default=6, help="measured epochs, of both kinds")
    parser.add_argument("--nodes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "speed-graphs.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    if options.worker:
        nodes, iterations, folder = json.loads(options.worker)
        print(json.dumps(worker(nodes, iterations, Path(folder))))
        return
    if options.data is None:
        raise SystemExit("--data is missing; give the folder with Cora's raw files.")
    started, session, made = time.perf_counter(), {**host(), "load": [os.getloadavg()[0]]}, []
    for nodes in options.nodes:
        made += rows(nodes, race(nodes, options))
        session["load"].append(os.getloadavg()[0])
        session["seconds"] = round(time.perf_counter() - started)
        facts = {"peer": {"code": REPOSITORY, "commit": COMMIT}, "table": markdown(made, session)}
        write_text(options.output, json.dumps({**facts, "rows": made, "session": session}, indent=1) + "\n")
        print(f"{nodes} nodes: " + ", ".join(f"{r['program']} {r['cpu_seconds']:.2f}" for r in made[-3:]), flush=True)
    print(markdown(made, session))


if __name__ == "__main__":
    main()
