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

HERE = Path(__file__).parent
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


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    data = DATA[options.dataset]()
    channels, size, _ = data.image_shape
    net = cd.Net(cd.nets.ConvNet(channels=channels, classes=10, size=size, width=128))
    init = options.init or ("noise" if options.method == "dc" else "real")
    name = f"{options.method}-{options.dataset}-ipc{options.per_class}-seed{options.seed}"
    folder = options.work / name
    first, second = (torch.Generator().manual_seed(2 * options.seed + k) for k in range(2))
    start = cd.Images.from_noise if init == "noise" else cd.Images.from_real
    images = start(data.train, options.per_class, first)
    method = objective(options, net, data, second)
    run = {k: v if isinstance(v, int | float | bool | type(None)) else str(v) for k, v in vars(options).items()}
    kept = {k: v for k, v in run.items() if k not in ("work", "networks", "epochs", "threads", "steps")}
    snapshots = cd.Snapshots(folder, every=200, run={**kept, "init": init})
    clock, seconds = time.perf_counter(), []
    for step in cd.iterate(images, method, method.optimizer(images), steps=options.steps, snapshots=snapshots):
        seconds.append(time.perf_counter() - clock)
        clock = time.perf_counter()
        if step.number % 50 == 0:
            print(
                f"{name} step {step.number} loss {step.loss.item():.4f} {sum(seconds[-50:]) / 50:.2f} s a step",
                flush=True,
            )
    artifact = cd.Artifact(
        images=images,
        classes=data.classes,
        preprocessing=data.preprocessing,
        recipe=recipe(options.method, options.dataset, options.epochs),
        network=cd.nets.describe(net.module),
        dataset=data.name,
        method=options.method,
        options={**run, "init": init},
        seed=options.seed,
    )
    artifact.save(folder / "artifact.safetensors")
    execution = cd.Execution(autocast=torch.bfloat16, compiled=options.compiled)
    scores = transfer(artifact, data, trials=Trials(n=options.networks, execution=execution))
    steady = sorted(seconds)[len(seconds) // 2] if seconds else None
    result = {
        "name": name,
        "options": {**run, "init": init},
        "outer": to_config_of(method),
        "evaluation": to_config(artifact.recipe),
        "scores": scores.to_json(),
        "spent": artifact.spent,
        "seconds_a_step_median": steady,
        "seconds_condensing_this_session": sum(seconds),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "hardware": {"processor": processor(), "threads": options.threads},
        "versions": dict(artifact.versions),
    }
    target = HERE / "results" / "accuracy"
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / f"{name}.json", json.dumps(result, indent=1) + "\n")
    for row in scores.rows:
        print(f"{name}: {row.name} {row.last} in {row.seconds:.0f} s")


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
