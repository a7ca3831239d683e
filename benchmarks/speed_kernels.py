"""Time RCIG and FRePo beside their authors' public code, which is JAX's.

    OMP_NUM_THREADS=1 python benchmarks/speed_kernels.py --rcig RCIG --frepo FRePo --python jax/bin/python

`--python` is an interpreter that has what `peer_rcig.py` needs. Without checkouts only ours is timed. Prints a table
and writes benchmarks/results/speed-kernels.json.

One outer iteration at CIFAR-10's shapes, of the JAX family's ConvNet-3 with doubling widths and no normalisation, with
mirrored images and learned labels; float32 but where it says otherwise, one thread. RCIG: softplus, 256 real images,
20 inner steps and 20 of the inverse Hessian, and 8 steps of a network of the pool. FRePo: ReLU, its published 1,024
real images, one step of the pool. Ours is RCIG with `Descent`, which is the same work as theirs; by conjugate gradients
in the parameters to a residual of 1e-2, in float32 and with its products in bfloat16; and with the exact `Dual`:
conjugate gradients that stop at a residual of 1e-3, after 20 steps at most, in each of the two solves, and directly, at
1 image per class.

How many steps conjugate gradients take depends on the data, and they are reported: with `--data` ours gets CIFAR-10's
images, whitened as for RCIG. Theirs gets random images, which changes nothing in how much it computes. The learning
rates of theirs and of `Descent` are fixed, so that no iteration searches for one.

Each program is a process of its own, and only one runs at a time: they take turns, iteration by iteration. Seconds are
of the CPU, medians. The first iterations of each are its warm-up; what JAX compiles falls into them and is reported
apart, in wall seconds. Peak memory is the whole process's.

Wants a quiet machine and time: theirs takes about 50 CPU seconds for an iteration of RCIG at width 32 with 1 image per
class, and more than ten times as much at width 128 or with 10 images; three iterations are the least. With both an
iteration of theirs would take hours: there it makes one step in place of 20, 20 and 8, and only once, its compiling
taken off; ours makes all of them, and the ratio is an upper bound. Each setting is written as soon as it is done, and
`--go-on` takes the file up where it ended.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import condensery as cd
from condensery.batch import Batch
from condensery.bilevel import Direct, Solution
from condensery.data.labelled import Labelled
from condensery.data.whitening import Identity, Preprocessing, Standardise, zca_trace
from condensery.memory import keep_freed_memory
from condensery.methods.frepo import FRePo
from condensery.methods.linearised import Descent, Dual, Solver, Tuned
from condensery.methods.rcig import RCIG
from condensery.methods.regression import centred_one_hot
from condensery.net import Net
from condensery.pool import AdamMse, ModelPool, State
from condensery.store import write_text
from peer_rcig import BATCH_REAL, CLASSES, COMMITS, INNER_RATE, INVERSE_RATE, POOL_STEPS, REPOSITORIES, SIZE
from peer_vico import Meter
from speed import Runner, host

HERE = Path(__file__).parent
THEIRS = "theirs"
DESCENT, PRIMAL, CG, DIRECT = "Descent", "CG", "Dual, Cg", "Dual, Direct"
PRIMAL_LOW = "CG, bfloat16"  # products with the Jacobian
COMPILED, LOW = "compiled", "bfloat16, compiled"  # FRePo's features of the real images
FORMS = {"RCIG": (DESCENT, PRIMAL, PRIMAL_LOW, CG, DIRECT), "FRePo": (DESCENT, COMPILED, LOW)}
REAL = 4096  # images that batches are drawn from


@dataclass(frozen=True)
class Setting:
    """What is timed, and how often.

    Attributes:
        method: RCIG or FRePo.
        ipc: Images per class.
        width: Filters of the first layer.
        iterations: Measured ones.
        shorter: Theirs makes so many inner steps, inverse steps, and steps of the pool's network, where all of them
            would take hours, and does so once.
    """

    method: str
    ipc: int
    width: int
    iterations: int
    shorter: int | None = None

    @property
    def name(self) -> str:
        """For tables and `--cases`."""
        return f"{self.method} ipc {self.ipc} width {self.width}"

    def forms(self) -> list[str]:
        """Ours that are timed."""
        return [form for form in FORMS[self.method] if form != DIRECT or self.ipc == 1]


class Files(NamedTuple):
    """The images that ours gets."""

    images: str
    labels: str


def settings(repeats: int, few: int) -> list[Setting]:
    """The cheapest first."""
    sizes = [(1, 32), (10, 32), (1, 128), (10, 128)]
    frepo = [Setting("FRePo", ipc, width, repeats) for ipc, width in sizes]
    rcig = [Setting("RCIG", ipc, width, repeats if (ipc, width) == (1, 32) else few) for ipc, width in sizes[:-1]]
    return [*frepo, *rcig, Setting("RCIG", *sizes[-1], few, shorter=1)]


# --- ours, in a process of its own ------------------------------------------------------------------------------------


def worker(setting: Setting, form: str, files: Files) -> dict[str, Any]:
    keep_freed_memory()  # as the command line does
    x, y = (torch.from_numpy(np.load(file)) for file in files)
    real = Labelled(x, y, tuple(str(c) for c in range(CLASSES)), Identity())
    synthetic = start(real, setting.ipc)
    method = (rcig if setting.method == "RCIG" else frepo)(setting, form, real)
    taken = watch(method)
    steps = cd.iterate(synthetic, method, method.optimizer(synthetic), steps=setting.iterations + 2)
    meter = Meter(setting.iterations, paced=True)
    meter.begin()
    while not meter.done:
        next(steps)
        meter.lap(solver_steps=list(taken))
        taken.clear()
    return meter.result()


def start(real: Labelled, ipc: int) -> cd.Images:
    """Real images to begin with, mirrored, with learned labels."""
    with torch.no_grad():
        x, y = cd.Images.from_real(real, ipc, torch.Generator().manual_seed(0))()
    rows = centred_one_hot(y, CLASSES)
    return cd.Images(x, y, labels=rows, learn_labels=True, mirrored=True)


def network(setting: Setting, **options: Any) -> Net:
    """The JAX family's ConvNet."""
    shape = {"channels": 3, "classes": CLASSES, "size": SIZE, "width": setting.width, "doubling": True}
    norm, start = cd.nets.Norm.NONE, cd.nets.Parametrisation.LECUN
    return Net(cd.nets.ConvNet(**shape, norm=norm, parametrisation=start, **options))


def frepo(setting: Setting, form: str, real: Labelled) -> FRePo:
    """As published."""
    fast = {"compiled": form != DESCENT, "precision": torch.bfloat16 if form == LOW else None}
    return FRePo(network(setting), real, torch.Generator().manual_seed(1), batch_real=BATCH_REAL["FRePo"], **fast)


def rcig(setting: Setting, form: str, real: Labelled) -> RCIG:
    """As published but for the solver; the rates are settled, and the pool's steps are always as many."""
    solvers: dict[str, Solver] = {DESCENT: Descent(), PRIMAL: Descent.cg(), CG: Dual(), DIRECT: Dual(Direct())}
    solvers[PRIMAL_LOW] = Descent.cg()
    net = network(setting, activation=cd.nets.Activation.SOFTPLUS, beta=60.0)
    settings: dict[str, Any] = {"batch_real": BATCH_REAL["RCIG"], "solver": solvers[form]}
    settings["precision"] = torch.bfloat16 if form == PRIMAL_LOW else None
    method = RCIG(net, real, torch.Generator().manual_seed(1), **settings)
    method._inner_rate, method._inverse_rate = settled(INNER_RATE), settled(INVERSE_RATE)
    step = Several(AdamMse(method.lr_pool), POOL_STEPS)
    method._pool = ModelPool(size=method.pool_size, life=method.life, staggered=False, step=step)
    return method


def settled(rate: float) -> Tuned:
    """A rate that is not searched for."""
    tuned = Tuned(rate)
    tuned.auto.settled = True
    return tuned


class Several:
    """A pool's step that is some steps.

    Args:
        step: The step.
        count: How many.
    """

    def __init__(self, step: AdamMse, count: int) -> None:
        self.step, self.count = step, count

    def start(self, theta: Tensor) -> State:
        """See `PoolStep`."""
        return self.step.start(theta)

    def __call__(self, net: Net, theta: Tensor, state: State, batch: Batch) -> tuple[Tensor, State]:
        """See `PoolStep`."""
        for _ in range(self.count):
            theta, state = self.step(net, theta, state, batch)
        return theta, state


def watch(method: Any) -> list[int]:
    """Where the steps of an iteration's solves will be told."""
    taken: list[int] = []
    if isinstance(method, RCIG):
        plain = method._note

        def note(inner: Solution | None, inverse: Solution) -> None:
            taken.extend(solution.steps for solution in (inner, inverse) if solution is not None)
            plain(inner, inverse)

        method._note = note  # type: ignore[method-assign]
    return taken


# --- a race -----------------------------------------------------------------------------------------------------------


def race(setting: Setting, options: argparse.Namespace, files: Files) -> dict[str, dict[str, Any]]:
    """Run every program of a setting, an iteration each in turn."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    chosen = [form for form in setting.forms() if not options.forms or form in options.forms]
    commands = {form: ours(setting, form, files) for form in chosen}
    if checkout(setting, options):
        commands = {THEIRS: theirs(setting, options), **commands}
    runners = {name: Runner(command, environment) for name, command in commands.items()}
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


def ours(setting: Setting, form: str, files: Files) -> list[str]:
    """The command line of a worker."""
    job = json.dumps({"setting": vars(setting), "form": form, "files": files})
    return [sys.executable, "-W", "ignore", __file__, "--worker", job]


def theirs(setting: Setting, options: argparse.Namespace) -> list[str]:
    """The command line of the authors' code."""
    line = [str(options.python), str(HERE / "peer_rcig.py"), "--paced", "--code", setting.method]
    line += ["--checkout", str(checkout(setting, options)), "--ipc", str(setting.ipc)]
    line += ["--width", str(setting.width), "--iterations", str(setting.iterations)]
    shorter = str(setting.shorter)
    few = ["--solver-steps", shorter, "--pool-steps", shorter, "--warm-up", "0"]
    return line + (few if setting.shorter else [])


def checkout(setting: Setting, options: argparse.Namespace) -> Path | None:
    """Where their code for a setting is."""
    found: Path | None = options.rcig if setting.method == "RCIG" else options.frepo
    return found


def whitening(x: torch.Tensor) -> Preprocessing:
    """RCIG's."""
    return zca_trace(x, Standardise.of(x))


def write_images(data: Path | None, folder: Path) -> Files:
    """The images that ours gets: some of CIFAR-10's training images, whitened, or random ones."""
    if data is None:
        x = torch.randn((REAL, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
        y = torch.arange(REAL) % CLASSES
    else:
        x, y = cd.data.cifar10(data, preprocessing=whitening).train.batch(torch.arange(REAL))
    files = Files(str(folder / "x.npy"), str(folder / "y.npy"))
    for file, values in zip(files, (x, y), strict=True):
        np.save(file, values.numpy())
    return files


# --- the report -------------------------------------------------------------------------------------------------------


def rows(setting: Setting, session: int, results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a program; ratios are to theirs, where it ran."""
    made = {form: row(setting, session, form, result) for form, result in results.items()}
    for form, mine in made.items():
        if form != THEIRS and THEIRS in made:
            keys = ("cpu_seconds", "wall_seconds", "peak_memory_mb")
            mine["of_theirs"] = {key: round(mine[key] / made[THEIRS][key], 3) for key in keys}
    return list(made.values())


def row(setting: Setting, session: int, form: str, result: dict[str, Any]) -> dict[str, Any]:
    """What was measured of a program."""
    laps, memory = result["laps"], result["memory"]
    # What is measured without a warm-up has compiled, on its one thread.
    compiling = [0.0 if result["warmup"] else lap.get("compile_s", 0.0) for lap in laps]
    medians = {
        f"{k}_seconds": round(statistics.median(lap[f"{k}_s"] - c for lap, c in zip(laps, compiling, strict=True)), 4)
        for k in ("cpu", "wall")
    }
    counted = [lap["solver_steps"] for lap in laps] if form in (PRIMAL, PRIMAL_LOW, CG) else []
    steps = [sum(counts) for counts in zip(*counted, strict=True)]
    return {
        "setting": setting.name,
        **{name: getattr(setting, name) for name in ("method", "ipc", "width")},
        "shorter": setting.shorter if form == THEIRS else None,
        "program": form,
        "session": session,
        **medians,
        "n": len(laps),
        "peak_memory_mb": max(memory["peak_setup_mb"], memory["peak_loop_mb"]),
        "solver_steps": [round(count / len(laps), 1) for count in steps],
        "compile_seconds": result.get("compile_s"),
        "result": result,
    }


ORDER = (THEIRS, DESCENT, COMPILED, LOW, PRIMAL, PRIMAL_LOW, CG, DIRECT)
HEADS = ["", "n", THEIRS, "ours", *ORDER[2:], "compiling, theirs", "peak MB theirs / ours"]


def lines(made: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The cells of the table, a setting a line."""
    order = [s.name for s in settings(1, 1)]
    for name in sorted({r["setting"] for r in made}, key=order.index):
        mine = {r["program"]: r for r in made if r["setting"] == name}
        base = mine.get(THEIRS)
        cells = [cell(mine.get(form), base) for form in ORDER]
        memory = [str(mine[form]["peak_memory_mb"]) if form in mine else "-" for form in (THEIRS, DESCENT)]
        compiling = f"{base['compile_seconds']:.0f}" if base else ""
        yield [name, str(min(r["n"] for r in mine.values())), *cells, compiling, " / ".join(memory)]


def cell(made: dict[str, Any] | None, base: dict[str, Any] | None) -> str:
    """Seconds, with the ratio to theirs, and the steps of both solves."""
    if made is None:
        return ""
    shorter = base is not None and base.get("shorter")
    if shorter and made is base:
        return f"{made['cpu_seconds']:.2f}, {shorter} + {shorter} steps and {shorter} of the pool's only"
    of = "less than " if shorter else ""
    ratio = f" ({of}{made['of_theirs']['cpu_seconds']:.2f})" if base is not None and made is not base else ""
    steps = f", {' + '.join(f'{n:.0f}' for n in made['solver_steps'])} steps" if made["solver_steps"] else ""
    return f"{made['cpu_seconds']:.2f}{ratio}{steps}"


def markdown(made: list[dict[str, Any]], sessions: list[dict[str, Any]]) -> str:
    """The table of the documentation."""
    body = ["| " + " | ".join(line) + " |" for line in lines(made)]
    peers = [r["result"]["versions"]["jax"] for r in made if r["program"] == THEIRS]
    processors = " and ".join(sorted({sessions[r["session"]]["processor"] for r in made}))
    ran = f"{processors}, PyTorch {sessions[-1]['torch']}" + (f", JAX {peers[-1]}" if peers else "")
    return "\n".join([f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|", *body]) + (
        "\n\nCPU seconds of one outer iteration, one thread; in brackets the ratio to theirs. Ours in RCIG is "
        "`Descent`, 20 + 20 steps as theirs (where theirs made fewer, the ratio is a bound); *compiled* and *bfloat16* "
        "are FRePo's features of the real images and RCIG's products with the Jacobian, the rest stays as it was. n "
        "iterations after a warm-up, taken in turns, medians. Compiling is not in them and is in wall seconds. Memory "
        "is the whole process's. "
        f"{ran}. Made by `benchmarks/speed_kernels.py`."
    )


def report(sessions: list[dict[str, Any]], made: list[dict[str, Any]]) -> dict[str, Any]:
    """All that goes into the file."""
    return {
        "peers": {name: {"code": code, "commit": COMMITS[name]} for name, code in REPOSITORIES.items()},
        "network": "ConvNet-3, doubling widths, no normalisation",
        "batch_real": BATCH_REAL,
        "pool_steps": POOL_STEPS,
        "table": markdown(made, sessions),
        "rows": made,
        "sessions": sessions,
    }


def show(console: Console, made: list[dict[str, Any]]) -> None:
    table = Table(*HEADS, title="CPU seconds of one outer iteration (of theirs)")
    for line in lines(made):
        table.add_row(*line)
    console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in REPOSITORIES:
        what = f"{REPOSITORIES[name]} at commit {COMMITS[name][:8]}"
        parser.add_argument(f"--{name.lower()}", type=Path, metavar="PATH", help=what)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the interpreter that has JAX")
    parser.add_argument("--data", type=Path, help="the folder cifar-10-batches-bin; default: random images")
    parser.add_argument("--repeats", type=int, default=3, help="measured ones of the cheap settings")
    parser.add_argument("--few", type=int, default=1, help="of RCIG at width 128 or 10 images per class")
    parser.add_argument("--cases", nargs="*", help="names of settings: RCIG ipc 1 width 32, ...")
    parser.add_argument("--forms", nargs="*", help=f"of ours: {'; '.join(ORDER[1:])}")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "speed-kernels.json")
    parser.add_argument("--go-on", action="store_true", help="keep the settings that the output file has already")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    if options.worker:
        job = json.loads(options.worker)
        print(json.dumps(worker(Setting(**job["setting"]), job["form"], Files(*job["files"]))))
        return
    console, started = Console(width=150), time.perf_counter()
    kept = json.loads(options.output.read_text()) if options.go_on and options.output.exists() else {}
    session: dict[str, Any] = {**host(), "load": [os.getloadavg()[0]], "data": options.data and options.data.name}
    sessions, made = [*kept.get("sessions", []), session], kept.get("rows", [])
    done = {r["setting"] for r in made}
    every = settings(options.repeats, options.few)
    chosen = [s for s in every if (not options.cases or s.name in options.cases) and s.name not in done]
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(options.data, Path(folder))
        for setting in chosen:
            made += rows(setting, len(sessions) - 1, race(setting, options, files))
            session["load"].append(os.getloadavg()[0])
            session["seconds"] = round(time.perf_counter() - started)
            write_text(options.output, json.dumps(report(sessions, made), indent=1) + "\n")
            console.print(f"{session['seconds']:4} s  {setting.name} is done")
    show(console, made)


if __name__ == "__main__":
    main()
