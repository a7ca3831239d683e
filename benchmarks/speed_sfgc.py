"""Time an iteration of SFGC beside its authors' code.

    python benchmarks/speed_sfgc.py --checkout SFGC

Prints a table and writes benchmarks/results/speed-sfgc.json. `peer_sfgc.py` says what an iteration is. Each program is
a process of its own, and only one runs at a time: they take turns, iteration by iteration. Seconds are of the CPU,
medians, after an iteration of warm-up. "Theirs, memory kept" is their code with glibc told to keep freed memory, as
ours does.
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

from condensery.store import write_text
from peer_sfgc import COMMIT, REPOSITORY
from speed import KEEPING, Runner, host, take_turns

HERE = Path(__file__).parent
THEIRS, KEPT, OURS = "theirs", "theirs, memory kept", "ours"


def race(nodes: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run every program at a size, an iteration each in turn."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    shared = [sys.executable, "-W", "ignore", str(HERE / "peer_sfgc.py"), "--paced", "--nodes", str(nodes)]
    shared += ["--steps", str(options.steps), "--iterations", str(options.iterations)]
    peer = [*shared, "--checkout", str(options.checkout)]
    return take_turns(
        {
            THEIRS: Runner(peer, environment),
            KEPT: Runner(peer, {**environment, **KEEPING}),
            OURS: Runner([*shared, "--ours"], environment),
        }
    )


def row(nodes: int, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was measured at a size."""
    seconds = {name: statistics.median(lap["cpu_s"] for lap in r["laps"]) for name, r in results.items()}
    loops = {name: r["memory"]["peak_loop_mb"] - r["memory"]["start_mb"] for name, r in results.items()}
    n = len(results[OURS]["laps"])
    return {"nodes": nodes, "n": n, "cpu_seconds": seconds, "loop_mb": loops, "results": results}


def markdown(made: list[dict[str, Any]], session: dict[str, Any], steps: int) -> str:
    """The table of the documentation."""
    heads = [
        "nodes",
        THEIRS,
        KEPT,
        OURS,
        "ours of theirs",
        "of theirs, memory kept",
        "MB of the loop theirs / ours",
        "n",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for r in made:
        s, mb = r["cpu_seconds"], r["loop_mb"]
        cells = [str(r["nodes"]), *(f"{s[p]:.3f}" for p in (THEIRS, KEPT, OURS))]
        cells += [f"{s[OURS] / s[p]:.3f}" for p in (THEIRS, KEPT)]
        lines.append(f"| {' | '.join([*cells, f'{mb[THEIRS]} / {mb[OURS]}', str(r['n'])])} |")
    return "\n".join(lines) + (
        f"\n\nCPU seconds of one iteration of SFGC on Cora's shape with {steps} steps inside, one thread; {REPOSITORY} "
        f"at commit {COMMIT[:8]} and ours, medians of n iterations in turns after a warm-up. {session['processor']}, "
        f"PyTorch {session['torch']}, load at the start {session['load']:.1f} on {session['cores']} cores. Made by "
        "`benchmarks/speed_sfgc.py`."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help=f"{REPOSITORY} at commit {COMMIT[:8]}")
    parser.add_argument("--iterations", type=int, default=3, help="measured ones")
    parser.add_argument("--steps", type=int, default=100, help="of the inner training")
    parser.add_argument("--nodes", type=int, nargs="*", default=[35, 70, 140])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "speed-sfgc.json")
    options = parser.parse_args()
    started, session, made = time.perf_counter(), {**host(), "load": os.getloadavg()[0]}, []
    for nodes in options.nodes:
        made.append(row(nodes, race(nodes, options)))
        session["seconds"] = round(time.perf_counter() - started)
        facts = {"peer": {"code": REPOSITORY, "commit": COMMIT}, "table": markdown(made, session, options.steps)}
        write_text(options.output, json.dumps({**facts, "rows": made, "session": session}, indent=1) + "\n")
        print(f"{nodes} nodes: {made[-1]['cpu_seconds']}", flush=True)
    print(markdown(made, session, options.steps))


if __name__ == "__main__":
    main()
