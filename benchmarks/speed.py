"""Time condensing and evaluating beside the authors' public code, and beside what the machine's convolutions can do.

    OMP_NUM_THREADS=1 python benchmarks/speed.py --data cifar-10-batches-bin --checkout DatasetCondensation

CIFAR-10, ConvNet-3 of width 128 with instance normalisation, 256 real images of each class in a matching step, one
thread. Each program of a setting is a process of its own (`peer_vico.py`, and this file as a worker for each variant
of ours); they take turns, iteration by iteration, and only one runs at a time. The first iteration of each is its
warm-up: what ours compiles is compiled there. Ratios are of CPU seconds, medians over the iterations. Prints tables
and writes benchmarks/results/speed.json. Without --checkout only ours is timed.

The floor is the time that the convolutions and the linear layer of one iteration take at the best rate that
`pieces.py` finds for each layer and pass: no normalisation, activation, pooling, augmentation or optimizer.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

import condensery as cd
from condensery.batch import Batch
from condensery.data.augment import DsaTrain, Siamese
from condensery.fitting import accuracy, training
from condensery.memory import keep_freed_memory
from condensery.store import write_text
from peer_vico import COMMIT, SKIPPED_PASSES, Meter, clock, resident
from pieces import CONVOLUTIONS, commit, multiplications, processor, rates, show_rates

HERE = Path(__file__).parent
CLASSES, BATCH_REAL = 10, 256
KEPT = "theirs, memory kept"  # as `keep_freed_memory` does for ours, here by glibc's environment variables
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
PUBLISHED_PASSES = {1: 0, 10: 50}  # of DC and DSA before a matching step, by images per class


class Variant(NamedTuple):
    """How ours computes the passes that no outer gradient goes through."""

    precision: torch.dtype | None
    compiled: bool


VARIANTS = {
    "float32": Variant(None, False),
    "float32 compiled": Variant(None, True),
    "bfloat16 compiled": Variant(torch.bfloat16, True),
}


@dataclass(frozen=True)
class Setting:
    """What is timed, and how often."""

    method: str
    ipc: int
    augmented: bool
    iterations: int
    passes: int = 10  # over the training images, eval only
    tested: int = 1024  # test images, eval only

    @property
    def name(self) -> str:
        """For tables: DM+A is DM with DSA's augmentation."""
        return f"{self.method}{'+A' if self.augmented and self.method in ('DM', 'eval') else ''} ipc {self.ipc}"


def settings(iterations: int, turns: int) -> list[Setting]:
    """Turns are the iterations of DC and DSA at 10 images per class: see `peer_vico.py`."""
    few = min(iterations, 2)
    return [
        *(Setting("DM", 1, augmented, iterations) for augmented in (False, True)),
        *(Setting(method, 1, method == "DSA", few) for method in ("DC", "DSA")),
        *(Setting(method, 10, method == "DSA", turns) for method in ("DC", "DSA")),
        Setting("eval", 1, True, few, passes=60),
        Setting("eval", 10, False, few),
        *(Setting("DM", 10, augmented, iterations) for augmented in (False, True)),
    ]


# --- ours, in a process of its own ------------------------------------------------------------------------------------


def worker(setting: Setting, variant: Variant, data: Path | None) -> dict[str, Any]:
    keep_freed_memory()  # as the command line does
    images = cd.data.cifar10(data)
    net = cd.Net(cd.nets.ConvNet(channels=3, classes=CLASSES, size=32))
    meter = Meter(setting.iterations, paced=True)
    result = (evaluate if setting.method == "eval" else condense)(setting, variant, net, images, meter)
    turns = "passes_wall_s" in result["warmup"]  # then the warm-up is two matching steps and a pass
    steady = statistics.median(lap["wall_s"] - lap.get("passes_wall_s", 0.0) for lap in result["laps"])
    result["first_use_wall_s"] = round(result["warmup"]["wall_s"] - (2 if turns else 1) * steady, 2)
    result["memory"]["compile_helpers_mb"] = sum(resident("VmRSS", child) or 0 for child in descendants(os.getpid()))
    return result


def condense(setting: Setting, variant: Variant, net: cd.Net, data: Any, meter: Meter) -> dict[str, Any]:
    start = cd.Images.from_noise if setting.method == "DC" else cd.Images.from_real
    synthetic = start(data.train, setting.ipc, torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"batch_real": BATCH_REAL, **variant._asdict()}
    if setting.method == "DM":
        options["augment"] = Siamese.natural() if setting.augmented else None
    method = {"DM": cd.DM, "DC": cd.DC, "DSA": cd.DSA}[setting.method](
        net, data.train, torch.Generator().manual_seed(1), **options
    )
    turns = setting.method != "DM" and setting.ipc > 1
    passes = Passes(method) if turns else None
    steps = cd.iterate(synthetic, method, method.optimizer(synthetic), steps=setting.iterations + 2 + turns)
    meter.begin()
    if turns:  # the warm-up: a network's first matching step, then one pass and a matching step, so that both compile
        method.inner = 1
        next(steps)
    while not meter.done:
        next(steps)
        meter.lap(**(passes.read() if passes else {}))
        if turns:
            method.inner = None
    return meter.result(iteration="turn" if turns else "outer iteration", train_images=len(data.train))


class Passes:
    """Reads the clock around the training between two matching steps."""

    def __init__(self, method: Any) -> None:
        self._train, self._spent = method._train, [0.0, 0.0]
        method._train = self

    def __call__(self, *args: Any) -> torch.Tensor:
        """The training."""
        before = clock()
        theta: torch.Tensor = self._train(*args)
        self._spent = [s + now - then for s, now, then in zip(self._spent, clock(), before, strict=True)]
        return theta

    def read(self) -> dict[str, float]:
        """Seconds since the last reading."""
        (wall, cpu), self._spent = self._spent, [0.0, 0.0]
        return {"passes_wall_s": round(wall, 4), "passes_cpu_s": round(cpu, 4)}


def evaluate(setting: Setting, variant: Variant, net: cd.Net, data: Any, meter: Meter) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        batch = cd.Images.from_real(data.train, setting.ipc, generator)()
    chosen = Batch(batch.x.detach(), batch.y)
    test = data.test.subset(torch.arange(setting.tested))
    augment = DsaTrain(Siamese.natural()) if setting.augmented else None
    recipe = cd.Recipe(epochs=setting.passes + 1, augment=augment)  # as theirs, which takes one more
    execution = cd.Execution(autocast=variant.precision, compiled=variant.compiled)
    meter.begin()
    while not meter.done:
        start, taken = clock()[1], []
        steps = training(net, chosen, recipe, generator, execution=execution)
        for trained in steps:  # noqa: B007 (used after the loop)
            taken.append(clock()[1] - start)
            start = clock()[1]
        accuracy(trained, test)
        spent = clock()[1] - start
        rate = len(chosen.y) * len(taken[SKIPPED_PASSES:]) / sum(taken[SKIPPED_PASSES:])
        meter.lap(train_images_per_cpu_s=round(rate, 1), test_images_per_cpu_s=round(setting.tested / spent, 1))
    return meter.result(passes=setting.passes, tested=setting.tested)


def descendants(process: int) -> Iterator[int]:
    """Processes that a process started, and theirs."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


# --- taking turns -----------------------------------------------------------------------------------------------------


class Runner:
    """A program that waits for its turn."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment)
        self.result: dict[str, Any] | None = None

    def wait(self) -> None:
        """Until it is ready for an iteration, or has given its result."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.strip() == "ready":
            return
        if not line:
            raise SystemExit(f"{self.process.args} ended with {self.process.wait()}")
        self.result = json.loads(line)
        self.process.wait()

    def go(self) -> None:
        """One iteration."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.wait()


def take_turns(runners: dict[str, Runner]) -> dict[str, dict[str, Any]]:
    """Let every program do an iteration each in turn, to the end: their results."""
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


def race(setting: Setting, options: argparse.Namespace, environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Run every program of a setting, an iteration each in turn."""
    peers = ["theirs", *([KEPT] if setting.ipc == 1 else [])] if options.checkout else []
    commands = dict.fromkeys(peers, peer_command(setting, options))
    for variant in VARIANTS:
        job = json.dumps({"setting": vars(setting), "variant": variant})
        commands[variant] = [sys.executable, "-W", "ignore", __file__, "--worker", job]
        commands[variant] += ["--data", str(options.data)] if options.data else []
    kept = {**environment, **KEEPING}
    runners = {name: Runner(command, kept if name == KEPT else environment) for name, command in commands.items()}
    try:
        for runner in runners.values():
            runner.wait()
        while any(runner.result is None for runner in runners.values()):
            for runner in runners.values():
                runner.go()
    finally:
        for runner in runners.values():
            runner.process.kill()
    return {name: runner.result for name, runner in runners.items() if runner.result is not None}


def peer_command(setting: Setting, options: argparse.Namespace) -> list[str]:
    command = [sys.executable, str(HERE / "peer_vico.py"), "--paced", "--checkout", str(options.checkout)]
    command += ["--data", str(options.data), "--method", setting.method, "--ipc", str(setting.ipc)]
    command += ["--iterations", str(setting.iterations), "--passes", str(setting.passes)]
    return [*command, "--tested", str(setting.tested), *([] if setting.augmented else ["--plain"])]


# --- the floor --------------------------------------------------------------------------------------------------------


def operations(setting: Setting) -> dict[str, dict[str, dict[str, float]]]:
    """Images that go through each pass of each layer in one iteration, first-order and through the outer gradient.

    First-order training or a real gradient: forward, weight and, but for the first layer, input. DM's real side:
    forward to the embedding; its synthetic side also the gradient in the input. The synthetic gradient of DC is made
    by such a training pass and differentiated in the images: for each layer, the weight gradient is differentiated in
    its two operands (the work of an input and a forward pass), the input gradient in one (a forward pass), and the
    forward pass in its input.
    """
    layers, real, synthetic = [*CONVOLUTIONS, "linear"], CLASSES * BATCH_REAL, CLASSES * setting.ipc
    first, second = {}, {}
    for layer in layers:
        inner = layer != "conv1"  # whose input has a gradient in ordinary training
        if setting.method == "DM":
            embeds = layer != "linear"
            first[layer] = {"forward": real * embeds}
            second[layer] = {"forward": synthetic * embeds, "input": synthetic * embeds}
        else:
            trained = real + PUBLISHED_PASSES[setting.ipc] * synthetic
            first[layer] = {"forward": trained, "weight": trained, "input": trained * inner}
            passes = {"forward": 2 + inner, "weight": 1, "input": 2 + inner}
            second[layer] = {kind: synthetic * count for kind, count in passes.items()}
    return {"first": first, "second": second}


def floor(setting: Setting, measured: dict[str, Any]) -> dict[str, float]:
    """GFLOP of an iteration, and the seconds that it takes at the measured rates."""

    def total(order: str, precision: str | None) -> float:
        found = 0.0
        for layer, passes in operations(setting)[order].items():
            for kind, images in passes.items():
                gflop = 2 * multiplications(layer) * images / 1e9
                found += gflop / measured[precision][layer][kind]["gflops"] if precision else gflop
        return round(found, 4)

    second = total("second", "float32")  # the outer gradient is always taken in float32
    seconds = {f"{precision}_s": round(total("first", precision) + second, 4) for precision in measured}
    return {"gflop_first_order": total("first", None), "gflop_outer": total("second", None), **seconds}


# --- the report -------------------------------------------------------------------------------------------------------


def report(sessions: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All that goes into the file: the numbers as measured, and what they come to."""
    rows = [summarise(Setting(**r["setting"]), r["runs"], sessions[r["session"]]["rates"]) for r in runs]
    return {
        "peer": {"code": "VICO-UoE/DatasetCondensation", "commit": COMMIT},
        "data": "CIFAR-10",
        "network": "ConvNet-3, width 128, instance normalisation",
        "batch_real": BATCH_REAL,
        "table": markdown(rows, sessions),
        "summary": rows,
        "sessions": sessions,
        "runs": runs,
    }


def markdown(rows: list[dict[str, Any]], sessions: list[dict[str, Any]]) -> str:
    """The table of the documentation."""
    names = ["theirs", KEPT, *VARIANTS]
    lines = [f"| | n | {' | '.join(names)} | floor float32 / bfloat16 | peak MB theirs / ours |", "|---" * 9 + "|"]
    for row in rows:
        memory = {name: m["whole"] for name, m in row["memory_mb"].items()}
        ours = max(memory[name] or 0 for name in VARIANTS)
        tail = f"{memory.get('theirs', '')} / {ours} |"
        shown = {"cpu_s": row["name"], "passes_cpu_s": "its 50 passes"}
        if "floor" not in row:
            shown = {k: f"{row['name']}, {k.split('_')[0]}, images/s" for k in next(iter(row["medians"].values()))}
        for key in (k for k in shown if k in next(iter(row["medians"].values()))):
            form = "{:.2f}" if "floor" in row else "{:.0f}"
            floors = [f"{row['floor'][f'{p}_s']:.2f}" for p in ("float32", "bfloat16")] if key == "cpu_s" else []
            values = " | ".join(cells(row, names, key, form))
            lines.append(f"| {shown[key]} | {min(row['n'].values())} | {values} | {' / '.join(floors)} | {tail}")
    last = sessions[-1]
    return "\n".join(lines) + (
        "\n\nCPU seconds of one iteration, or images for each of them, with one thread; in brackets the ratio to "
        "theirs. A is DSA's augmentation; an iteration of DC and DSA at ipc 10 is a matching step and the 50 passes "
        "before it. n iterations after a warm-up, taken in turns, medians. Memory is the whole process's, ours the "
        f"largest variant's. {last['processor']}, PyTorch {last['torch']}. Made by `benchmarks/speed.py`."
    )


def summarise(setting: Setting, runs: dict[str, dict[str, Any]], measured: dict[str, Any]) -> dict[str, Any]:
    """Medians, ratios to theirs, memory, and the floor."""
    keys = ["train_images_per_cpu_s", "test_images_per_cpu_s"] if setting.method == "eval" else ["cpu_s", "wall_s"]
    keys += [key for key in ("passes_cpu_s",) if setting.method in ("DC", "DSA") and setting.ipc > 1]
    medians = {
        name: {key: round(statistics.median(lap[key] for lap in run["laps"]), 4) for key in keys}
        for name, run in runs.items()
    }
    row: dict[str, Any] = {"setting": vars(setting), "name": setting.name, "medians": medians}
    row["n"] = {name: len(run["laps"]) for name, run in runs.items()}
    row["memory_mb"] = {
        name: {"whole": max(filter(None, (m["peak_setup_mb"], m["peak_loop_mb"])), default=None), **m}
        for name, run in runs.items()
        for m in [run["memory"]]
    }
    row["first_use_wall_s"] = {name: run["first_use_wall_s"] for name, run in runs.items() if "first_use_wall_s" in run}
    if "theirs" in runs:
        row["ratio_to_theirs"] = {
            name: {key: round(medians[name][key] / medians["theirs"][key], 3) for key in keys}
            for name in runs
            if name != "theirs"
        }
    if setting.method != "eval":
        row["floor"] = floor(setting, measured)
        row["over_floor"] = {
            name: round(medians[name]["cpu_s"] / row["floor"][f"{name.split()[0]}_s"], 2) for name in VARIANTS
        }
    return row


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    title = "CPU seconds of one iteration (of theirs)"
    columns = list(rows[0]["medians"])
    table = Table("", "n", *columns, "floor f32", "bf16", title=title)
    memory = Table("", *columns, title="peak memory in MB: whole process (its loop)")
    rates_table = Table("images per CPU second (of theirs)", *columns, title="evaluation")
    for row in rows:
        found = {name: f"{m['whole']} ({m['peak_loop_mb']})" for name, m in row["memory_mb"].items()}
        memory.add_row(row["name"], *(found.get(name, "") for name in columns), end_section=True)
        if "floor" not in row:
            for key in ("train_images_per_cpu_s", "test_images_per_cpu_s"):
                rates_table.add_row(f"{row['name']} {key.split('_')[0]}", *cells(row, columns, key, "{:.0f}"))
            continue
        floors = [f"{row['floor'][f'{p}_s']:.2f}" for p in ("float32", "bfloat16")]
        table.add_row(row["name"], str(min(row["n"].values())), *cells(row, columns, "cpu_s", "{:.2f}"), *floors)
        if "passes_cpu_s" in next(iter(row["medians"].values())):
            table.add_row("  of it the 50 passes", "", *cells(row, columns, "passes_cpu_s", "{:.2f}"), "", "")
        over = [f"{row['over_floor'][name]:.2f} x" if name in VARIANTS else "" for name in columns]
        table.add_row("  over the floor", "", *over, "", "", end_section=True)
    for each in (table, memory, rates_table):
        if each.row_count:
            console.print(each)


def cells(row: dict[str, Any], columns: list[str], key: str, form: str) -> list[str]:
    medians, ratios = row["medians"], row.get("ratio_to_theirs", {})
    return [
        (form.format(medians[name][key]) if name in medians else "")
        + (f" ({ratios[name][key]:.2f})" if name in ratios else "")
        for name in columns
    ]


def host() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    found = {"processor": processor(), "cores": os.cpu_count(), "memory_mb": memory, "threads": 1}
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**found, "torch": torch.__version__, "condensery": cd.__version__, "commit": commit(), "date": moment}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder cifar-10-batches-bin; needed for theirs")
    parser.add_argument("--checkout", type=Path, help=f"VICO-UoE/DatasetCondensation at commit {COMMIT[:8]}")
    parser.add_argument("--iterations", type=int, default=3, help="measured ones; DC and DSA take at most 2")
    parser.add_argument("--turns", type=int, default=1, help="iterations of DC and DSA at 10 images per class")
    parser.add_argument("--only", nargs="*", help="names of settings, as in the table")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "speed.json")
    parser.add_argument("--go-on", action="store_true", help="keep the settings that the output file has already")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.checkout and not options.data:
        parser.error("--checkout needs --data")
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    if options.worker:
        job = json.loads(options.worker)
        print(json.dumps(worker(Setting(**job["setting"]), VARIANTS[job["variant"]], options.data)))
        return
    console, started = Console(width=140), time.perf_counter()
    kept = json.loads(options.output.read_text()) if options.go_on and options.output.exists() else {}
    measured = rates()
    show_rates(console, measured)
    session: dict[str, Any] = {**host(), "load": [os.getloadavg()[0]], "rates": measured}
    sessions, runs = [*kept.get("sessions", []), session], kept.get("runs", [])
    done = [Setting(**run["setting"]).name for run in runs]
    chosen = [s for s in settings(options.iterations, options.turns) if not options.only or s.name in options.only]
    with tempfile.TemporaryDirectory() as cache:  # compiled code is made anew in each session, once for all settings
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
        for setting in (s for s in chosen if s.name not in done):
            found = race(setting, options, environment)
            runs.append({"setting": vars(setting), "session": len(sessions) - 1, "runs": found})
            session["load"].append(os.getloadavg()[0])
            session["seconds"] = round(time.perf_counter() - started)
            console.print(f"{session['seconds']:4} s  {setting.name} is done")
            write_text(options.output, json.dumps(report(sessions, runs), indent=1) + "\n")
    show(console, report(sessions, runs)["summary"])


if __name__ == "__main__":
    main()
