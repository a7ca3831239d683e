"""Condense with a method's published network and evaluation at a stated budget, and score it beside a random subset.

    python benchmarks/accuracy.py dm cifar10 1 --steps 2000 --batch-real 128

Writes one JSON file to benchmarks/results/accuracy/. A run that was stopped goes on from its last snapshot.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch

import condensery as cd
from condensery.configs import to_config
from condensery.data.augment import DcTrain, DsaTrain, Siamese
from condensery.evaluate.transfer import Trials, transfer
from condensery.memory import keep_freed_memory
from condensery.store import write_text

TARGET = Path(__file__).parent / "results" / "accuracy"
DATA = {"mnist": cd.data.mnist, "fashion-mnist": cd.data.fashion_mnist, "cifar10": cd.data.cifar10}
DIGITS = {"mnist"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=["dc", "dsa", "dm"])
    parser.add_argument("dataset", choices=sorted(DATA))
    parser.add_argument("per_class", type=int)
    parser.add_argument("--steps", type=int, required=True, help="matching steps of the outer loop")
    parser.add_argument("--batch-real", type=int, default=256)
    parser.add_argument("--lr-images", type=float, help="default: the method's published one")
    parser.add_argument("--init", choices=["real", "noise"], help="default: noise for dc, real for the others")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="of the evaluation; default: the published number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--time-only", type=int, metavar="K", help="measure K steps after a warm-up and add the CPU seconds to the file"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="for snapshots and artifacts")
    return parser.parse_args()


def recipe(method: str, dataset: str, epochs: int | None) -> cd.Recipe:
    """The published evaluation: DC 300 epochs (MNIST: 1,000 with its own augmentation), DSA and DM 1,000 with DSA's."""
    if method == "dc":
        chosen = cd.Recipe(epochs=1000, augment=DcTrain.digits()) if dataset == "mnist" else cd.Recipe(epochs=300)
    else:
        chosen = cd.Recipe(epochs=1000, augment=DsaTrain(siamese(dataset)))
    return chosen if epochs is None else dataclasses.replace(chosen, epochs=epochs)


def siamese(dataset: str) -> Siamese:
    return Siamese.digits() if dataset in DIGITS else Siamese.natural()


def objective(options: argparse.Namespace, net: cd.Net, data: Any, generator: torch.Generator) -> Any:
    shared: dict[str, Any] = {
        "batch_real": options.batch_real,
        "precision": None if options.precision == "float32" else torch.bfloat16,
        "compiled": options.compiled,
    }
    if options.lr_images is not None:
        shared["lr_images"] = options.lr_images
    if options.method == "dc":
        return cd.DC(net, data.train, generator, **shared)
    return {"dsa": cd.DSA, "dm": cd.DM}[options.method](
        net, data.train, generator, augment=siamese(options.dataset), **shared
    )


@dataclasses.dataclass
class Job:
    """One line of the table, ready to run."""

    options: argparse.Namespace
    name: str
    run: dict[str, Any]
    data: cd.data.ImageData
    net: cd.Net
    images: cd.Images
    method: Any


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    job = prepare(options)
    if options.time_only:
        time_only(job)
        return
    seconds = condense(job)
    result = {**evaluate(job), "seconds_a_step_median": median(seconds[0]), "cpu_seconds_a_step": median(seconds[1])}
    write(job.name, result)
    for row in result["scores"]["rows"]:
        print(f"{job.name}: {row['name']} {100 * row['last']['mean']:.1f} in {row['seconds']:.0f} s")


def prepare(options: argparse.Namespace) -> Job:
    data = DATA[options.dataset]()
    channels, size, _ = data.image_shape
    net = cd.Net(cd.nets.ConvNet(channels=channels, classes=10, size=size, width=128))
    init = options.init or ("noise" if options.method == "dc" else "real")
    first, second = (torch.Generator().manual_seed(2 * options.seed + k) for k in range(2))
    start = cd.Images.from_noise if init == "noise" else cd.Images.from_real
    images = start(data.train, options.per_class, first)
    run = {k: v if isinstance(v, int | float | bool | type(None)) else str(v) for k, v in vars(options).items()}
    name = f"{options.method}-{options.dataset}-ipc{options.per_class}-seed{options.seed}"
    method = objective(options, net, data, second)
    return Job(options, name, {**run, "init": init}, data, net, images, method)


def condense(job: Job) -> tuple[list[float], list[float]]:
    """Run, or go on, to the last step; wall and CPU seconds of each step done now."""
    kept = {
        k: v for k, v in job.run.items() if k not in ("work", "networks", "epochs", "threads", "steps", "time_only")
    }
    snapshots = cd.Snapshots(job.options.work / job.name, every=200, run=kept)
    wall, cpu, clock = [], [], (time.perf_counter(), time.process_time())
    optimizer = job.method.optimizer(job.images)
    for step in cd.iterate(job.images, job.method, optimizer, steps=job.options.steps, snapshots=snapshots):
        now = (time.perf_counter(), time.process_time())
        wall.append(now[0] - clock[0])
        cpu.append(now[1] - clock[1])
        clock = now
        if step.number % 50 == 0:
            print(f"{job.name} step {step.number} loss {step.loss.item():.4f} {median(wall[-50:]):.2f} s", flush=True)
    return wall, cpu


def evaluate(job: Job) -> dict[str, Any]:
    """Train networks on the set and on random subsets; everything that the result file holds."""
    options = job.options
    artifact = cd.Artifact(
        images=job.images,
        classes=job.data.classes,
        preprocessing=job.data.preprocessing,
        recipe=recipe(options.method, options.dataset, options.epochs),
        network=cd.nets.describe(job.net.module),
        dataset=job.data.name,
        method=options.method,
        options=job.run,
        seed=options.seed,
    )
    artifact.save(options.work / job.name / "artifact.safetensors")
    execution = cd.Execution(autocast=torch.bfloat16, compiled=options.compiled)
    scores = transfer(artifact, job.data, trials=Trials(n=options.networks, execution=execution))
    return {
        "name": job.name,
        "options": job.run,
        "outer": to_config_of(job.method),
        "evaluation": to_config(artifact.recipe),
        "scores": scores.to_json(),
        "spent": artifact.spent,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "hardware": {"processor": processor(), "threads": options.threads},
        "versions": dict(artifact.versions),
    }


def time_only(job: Job) -> None:
    """Measure the CPU seconds of a step, after two that compile, and add them to the result file."""
    cpu, clock = [], 0.0
    optimizer = job.method.optimizer(job.images)
    for _ in cd.iterate(job.images, job.method, optimizer, steps=2 + job.options.time_only):
        cpu.append(time.process_time() - clock)
        clock = time.process_time()
    path = TARGET / f"{job.name}.json"
    write(job.name, {**json.loads(path.read_text(encoding="utf-8")), "cpu_seconds_a_step": median(cpu[2:])})
    print(f"{job.name}: {median(cpu[2:]):.3f} CPU s a step (n={len(cpu) - 2})")


def write(name: str, result: dict[str, Any]) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    write_text(TARGET / f"{name}.json", json.dumps(result, indent=1) + "\n")


def median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def to_config_of(method: Any) -> dict[str, Any]:
    """The method's plain options."""
    plain = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}
    skipped = ("net", "real", "generator", "augment")
    return {
        k: v if isinstance(v, int | float | bool | type(None)) else str(v) for k, v in plain.items() if k not in skipped
    }


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
