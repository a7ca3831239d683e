"""Kernel and implicit-gradient methods on real data at a width that a CPU affords: accuracy, time and memory.

    python benchmarks/kernels.py run fashion-mnist 1 rcig              # condense and evaluate; going on where stopped
    python benchmarks/kernels.py run fashion-mnist 1 rcig-dual --steps 100 --tag short
    python benchmarks/kernels.py study fashion-mnist 1 descent-20-20   # validation accuracy against seconds of work
    python benchmarks/kernels.py across cifar10 1 rcig-dual            # the same set under other architectures
    python benchmarks/kernels.py subsets cifar10 1000                  # time and memory against the backward subset
    python benchmarks/kernels.py gradients cifar10 10                  # how near solvers come to RCIG's exact gradient
    python benchmarks/kernels.py costs cifar10 1                       # a step of each method, one after the other
    python benchmarks/kernels.py published cifar10 1 rcig.npz --width 128   # a set of the authors' (peer_rcig_set.py)
    python benchmarks/kernels.py many < lines                          # one of these a line, all of one data set

Every method has the same network (ConvNet-3 of widths 32, 64 and 128, no normalisation, softplus while condensing), the
same real batch and mirrored, learned, centred labels; its learning rates, ridge and pool are as published. Writes one
JSON file a run to benchmarks/results/kernels/.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import condensery as cd
from condensery import kernels, methods
from condensery.bilevel import Cg, Direct
from condensery.configs import to_config
from condensery.data.augment import OneOfPerImage, Siamese
from condensery.data.whitening import Preprocessing, Standardise, zca_trace
from condensery.evaluate.transfer import Trials, random_row, score
from condensery.fitting import Adam, SquaredError, WarmupCosine
from condensery.kernels import ridge_predictions
from condensery.loop import result
from condensery.memory import keep_freed_memory
from condensery.methods.linearised import Linearised
from condensery.methods.regression import centred_one_hot
from condensery.store import write_text
from trajectories import assignments, forget_peak, median, peak, surroundings

TARGET = Path(__file__).parent / "results" / "kernels"
WIDTH, BATCH_REAL = 32, 256
DATASETS = ["mnist", "fashion-mnist", "cifar10"]
# Steps of the outer loop: what an hour or two of CPU for a whole table leaves.
STEPS = {  # of RCIG with every solver
    1: {"dm": 300, "kip": 1000, "rfad": 150, "frepo": 600, "vig": 150, "cig": 150, "rcig": 150},
    10: {"dm": 300, "kip": 300, "rfad": 60, "frepo": 300, "vig": 40, "cig": 40, "rcig": 40},
}
FIT = {1: 1000, 10: 300}  # optimizer steps of a test network
# LAMB and AdaBelief move a pixel by about their learning rate; the published ones are for 10,000 steps and more.
FASTER = {"frepo": {"lr_images": 3e-3, "lr_labels": 3e-3}, "rfad": {"lr_images": 1e-2, "lr_labels": 1e-2}}
QUICK = {"lr_images": 1e-2, "lr_labels": 1e-2}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/kernels"), help="snapshots and artifacts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("many")
    for name in ("run", "study", "across", "published"):
        command = commands.add_parser(name)
        command.add_argument("dataset", choices=DATASETS)
        command.add_argument("per_class", type=int)
        what = "a method (rcig-cg-low: products in bfloat16), for `study` a solver, for `published` a file"
        command.add_argument("method", help=what)
        command.add_argument("--tag", default="", help="added to the name of the result")
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the method")
        command.add_argument("--steps", type=int)
        command.add_argument("--width", type=int, default=WIDTH)
        command.add_argument("--norm", default="none", help="of the network while condensing")
        command.add_argument("--set-seed", type=int, default=0, help="of the synthetic set: another one each")
        command.add_argument("--augment", action="store_true", help="`run`, `published`: add the row with augmentation")
        command.add_argument(
            "--nets", default="AlexNet,VGG11,ResNet18", help="of `across`: NAME:NORM:WIDTH, the last two as wanted"
        )
        command.add_argument("--seconds", default="60,120,240", help="of `study`: CPU seconds of work")
    costs = commands.add_parser("costs")
    costs.add_argument("dataset", choices=DATASETS)
    costs.add_argument("per_class", type=int)
    costs.add_argument("--methods", default="dm,kip,rfad,frepo,vig,cig,rcig,rcig-dual")
    costs.add_argument("--steps", type=int, default=4)
    costs.add_argument("--width", type=int, default=WIDTH)
    costs.add_argument("--set-seed", type=int, default=0)
    near = commands.add_parser("gradients")
    near.add_argument("dataset", choices=DATASETS)
    near.add_argument("per_class", type=int)
    near.add_argument(
        "--solvers", default="descent-20-20,dual-5,dual-10,dual-15,dual-20,cg-3,cg-5,cg-7,cg-10,cg-15,cg,cg-low"
    )
    near.add_argument("--width", type=int, default=WIDTH)
    near.add_argument("--set-seed", type=int, default=0)
    subsets = commands.add_parser("subsets")
    subsets.add_argument("dataset", choices=DATASETS)
    subsets.add_argument("images", type=int)
    subsets.add_argument("--steps", type=int, default=2)
    subsets.add_argument("--width", type=int, default=16)
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.command != "many":
        do(options, load(options.dataset))
        return
    data = None
    for line in sys.stdin:
        if line.strip():
            one = arguments(["--work", str(options.work), *line.split()])
            data = data or load(one.dataset)  # loaded and whitened once for all lines
            do(one, data)


def do(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    commands = {
        "run": run,
        "study": study,
        "across": across,
        "subsets": subsets,
        "costs": costs,
        "published": published,
        "gradients": gradients,
    }
    commands[options.command](options, data)


def load(dataset: str) -> cd.data.ImageData:
    """CIFAR-10 with RCIG's whitening, the grey ones standardised."""

    def whitening(x: torch.Tensor) -> Preprocessing:
        return zca_trace(x, Standardise.of(x))

    loaders: dict[str, Callable[[], cd.data.ImageData]] = {
        "mnist": cd.data.mnist,
        "fashion-mnist": cd.data.fashion_mnist,
        "cifar10": lambda: cd.data.cifar10(preprocessing=whitening),
    }
    data = loaders[dataset]()
    # Prepared once rather than for each network that is tested.
    return cd.data.ImageData(data.name, data.train, data.validation.prepared(), data.test.prepared())


def network(data: cd.data.ImageData, width: int, *, norm: str = "none", softplus: bool = False) -> cd.Net:
    channels, size, _ = data.image_shape
    smooth: dict[str, Any] = {"activation": "softplus", "beta": 60.0} if softplus else {}
    return cd.Net(
        cd.nets.ConvNet(
            channels=channels,
            classes=data.num_classes,
            size=size,
            width=width,
            doubling=True,
            norm=norm,
            parametrisation="lecun",
            **smooth,
        )
    )


def recipe(options: argparse.Namespace, *, augment: bool = False) -> cd.Recipe:
    """RCIG's evaluation."""
    op = (OneOfPerImage.rcig() if mirrored(options) else OneOfPerImage.rcig_digits()) if augment else None
    schedule = WarmupCosine(warmup=500, final=0.01)
    return cd.Recipe(
        steps=FIT[options.per_class], optimizer=Adam(lr=1e-4), schedule=schedule, loss=SquaredError(), augment=op
    )


def mirrored(options: argparse.Namespace) -> bool:
    """Digits are not mirrored."""
    return bool(options.dataset != "mnist")


def trials_of(options: argparse.Namespace) -> Trials:
    """Test networks; the larger sets train them in half the time in bfloat16, and wide ones in a third."""
    low = lower() if options.per_class > 1 or options.width > WIDTH else None
    return Trials(n=options.networks, execution=cd.Execution(channels_last=True, autocast=low))


def lower() -> torch.dtype | None:
    """What test networks are trained in where it saves time, and not where it costs forty times as much."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None


def objective_of(
    method: str, net: cd.Net, real: Any, generator: torch.Generator, changes: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """A method with its settings here, and the settings."""
    if method == "dm":
        return cd.DM(net, real, generator, augment=Siamese.natural(), **changes), {}
    settings: dict[str, Any] = {"batch_real": BATCH_REAL, **QUICK, **FASTER.get(method, {})}
    if method in ("kip",):
        settings |= {"batch_real": 2000}
    name, _, solver = method.removesuffix("-low").partition("-")
    if method.endswith("-low"):
        settings["precision"] = torch.bfloat16
    if solver == "dual":
        settings["solver"] = methods.Dual()
    elif solver == "direct":
        settings["solver"] = methods.Dual.direct()
    elif solver == "cg":
        settings["solver"] = methods.Descent.cg()
    settings |= changes
    classes = {"frepo": "FRePo"}
    return getattr(methods, classes.get(name, name.upper()))(net, real, generator, **settings), settings


def start(options: argparse.Namespace, data: cd.data.ImageData, per_class: int, method: str) -> cd.Images:
    first = torch.Generator().manual_seed(2 * options.set_seed)
    images = cd.Images.from_real(data.train, per_class, first)
    if method == "dm":
        return images
    rows = centred_one_hot(images.classes, data.num_classes)
    return cd.Images(images.values, images.classes, labels=rows, learn_labels=True, mirrored=mirrored(options))


def run(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    method = options.method
    name = f"{options.dataset}-ipc{options.per_class}-{method}" + (f"-{options.tag}" if options.tag else "")
    name += (f"-w{options.width}" if options.width != WIDTH else "") + (
        f"-set{options.set_seed}" if options.set_seed else ""
    )
    steps = options.steps or STEPS[options.per_class].get(method.partition("-")[0], 0)
    trials, net = trials_of(options), network(data, options.width)
    plain, augmented = (recipe(options, augment=a) for a in (False, True))
    facts: dict[str, Any] = {
        "name": name,
        "dataset": options.dataset,
        "per_class": options.per_class,
        "method": method,
        "tag": options.tag,
        "set_seed": options.set_seed,
        "steps": steps,
        "norm": options.norm,
        "evaluation": to_config(plain),
        "autocast": str(trials.execution.autocast),
        **surroundings(options),
        "width": options.width,
    }
    if method == "random":
        counts = [options.per_class] * data.num_classes
        rows = {
            key: random_row(counts, net, r, data, trials).to_json()
            for key, r in (("row", plain), ("augmented", augmented))
        }
        write(name, {**facts, **rows})
        print(f"{name}: {rows['row']}", flush=True)
        return
    inside = network(data, options.width, norm=options.norm, softplus=True)
    images = start(options, data, options.per_class, method)
    real = data.train.prepared() if options.dataset == "cifar10" else data.train
    generator = torch.Generator().manual_seed(2 * options.set_seed + 1)
    objective, settings = objective_of(method, inside, real, generator, assignments(options.set))
    forget_peak()
    figures, cpu = condense(options.work / name, name, images, objective, steps)
    memory, images = peak(), result(images, objective)
    artifact = cd.Artifact(
        images=images,
        classes=data.classes,
        preprocessing=data.preprocessing,
        recipe=plain,
        network=cd.nets.describe(net.module),
        dataset=data.name,
        method=method,
        seed=options.set_seed,
    )
    artifact.save(options.work / name / "artifact.safetensors")
    facts |= {
        "outer": {k: str(v) for k, v in settings.items()},
        "cpu_seconds_a_step": cpu or None,
        "peak_memory_mb": memory,
        "spent": artifact.spent,
        "figures": figures,
    }
    if method == "kip":
        facts["kernel_accuracy"] = regressed(objective, images, data)
    for key, r in (("row", plain), ("augmented", augmented)):
        if key == "row" or options.augment:
            facts[key] = score(method, net, artifact.batch(), r, data, trials, artifact.spent).to_json()
    write(name, facts)
    shown = {k: round(100 * last(facts[k]), 1) for k in ("row", "augmented") if k in facts}
    print(f"{name}: {shown}, {cpu:.2f} CPU s a step, {memory:.0f} MB", flush=True)


@torch.no_grad()
def regressed(objective: Any, images: cd.Images, data: cd.data.ImageData) -> float:
    """Test accuracy of the kernel regression itself: what KIP is made for."""
    x, y = images()
    generator = torch.Generator().manual_seed(0)

    def predict(test: torch.Tensor) -> torch.Tensor:
        k_ss, k_ts = objective.kernel(objective.net, x, test, generator)
        return ridge_predictions(k_ts, k_ss, y, objective.ridge, relative=True)

    return cd.accuracy(predict, data.test)


def last(row: dict[str, Any]) -> float:
    """Mean accuracy of the last iterate."""
    return float(row["last"]["mean"])


def condense(
    folder: Path, name: str, images: cd.Images, objective: Any, steps: int
) -> tuple[dict[str, list[float]], float]:
    """Run, or go on, to the last step: figures along the way, and CPU seconds of a step (median)."""
    snapshots = cd.Snapshots(folder, every=50, run={"name": name})
    figures: dict[str, list[float]] = {}
    cpu, clock = [], time.process_time()
    for step in cd.iterate(images, objective, objective.optimizer(images), steps=steps, snapshots=snapshots):
        for key, value in {"loss": step.loss, **getattr(objective, "figures", {})}.items():
            figures.setdefault(key, []).append(round(float(value), 7))
        cpu.append(time.process_time() - clock)
        clock = time.process_time()
        if step.number % 50 == 0:
            print(f"{name} {step.number} loss {step.loss.item():.4f} {median(cpu):.2f} s", flush=True)
    return figures, median(cpu)


# --- accuracy against work
# ---------------------------------------------------------------------------------------------------


def solver_of(word: str) -> Any:
    """descent-20-20, cg-10 (both solves by conjugate gradients in the parameters), cg (the same, as the command has
    it), dual-10, or direct.
    """
    kind, *numbers = word.split("-")
    counts = [int(n) for n in numbers]
    if kind == "descent":
        return methods.Descent(*counts)
    if word == "cg":
        return methods.Descent.cg()
    if kind == "cg":
        return methods.Descent(solve=Cg(steps=counts[0], tolerance=1e-3))
    return methods.Dual(Direct() if kind == "direct" else Cg(steps=counts[0], tolerance=1e-3))


def study(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    """RCIG with a solver, looked at after some CPU seconds of work, on the validation split."""
    name = f"study-{options.dataset}-ipc{options.per_class}-{options.method}"
    inside = network(data, options.width, softplus=True)
    net, plain = network(data, options.width), recipe(options)
    real = data.train.prepared() if options.dataset == "cifar10" else data.train
    images = start(options, data, options.per_class, "rcig")
    generator = torch.Generator().manual_seed(2 * options.set_seed + 1)
    plain_word = options.method.removesuffix("-low")
    changes: dict[str, Any] = {"solver": solver_of(plain_word), **assignments(options.set)}
    if plain_word != options.method:
        changes["precision"] = torch.bfloat16
    objective, settings = objective_of("rcig", inside, real, generator, changes)
    watched = cd.data.ImageData(data.name, data.train, data.validation, data.validation)
    points = []
    for seconds, steps in stretches(images, objective, [float(s) for s in options.seconds.split(",")]):
        kept = result(images, objective)
        with torch.no_grad():
            batch = cd.Batch(*(t.clone() for t in kept()))
        row = score(options.method, net, batch, plain, watched, trials_of(options), {})
        points.append({"cpu_seconds": seconds, "steps": steps, "row": row.to_json()})
        print(f"{name}: {steps} steps in {seconds:.0f} CPU s: {100 * row.last.mean:.1f}", flush=True)
    kept_facts = {"dataset": options.dataset, "per_class": options.per_class, "solver": options.method}
    outer = {k: str(v) for k, v in settings.items()}
    write(name, {"name": name, **kept_facts, "outer": outer, "points": points, **surroundings(options)})


def stretches(images: cd.Images, objective: Any, marks: list[float]) -> Iterator[tuple[float, int]]:
    """Go on until each mark: CPU seconds spent in steps, and steps made."""
    spent, clock, waiting = 0.0, time.process_time(), list(marks)
    for step in cd.iterate(images, objective, objective.optimizer(images), steps=1_000_000):
        spent += time.process_time() - clock
        if spent >= waiting[0]:
            waiting.pop(0)
            yield spent, step.number
            if not waiting:
                return
        clock = time.process_time()


# --- other networks, large sets
# -------------------------------------------------------------------------------------------------


def across(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    """Train other architectures on a set that is there."""
    name = f"{options.dataset}-ipc{options.per_class}-{options.method}" + (f"-{options.tag}" if options.tag else "")
    trials = Trials(n=options.networks, execution=cd.Execution(channels_last=lower() is None, autocast=lower()))
    channels, size, _ = data.image_shape
    plain, source, spent = recipe(options), None, {}
    if options.method != "random":
        artifact = cd.Artifact.load(options.work / name / "artifact.safetensors")
        source, spent = artifact.batch(), artifact.spent
    for title in options.nets.split(","):
        arch, *changes = title.split(":")
        more: dict[str, Any] = {}
        for change in changes:
            more |= {"width": int(change)} if change.isdigit() else {"norm": change}
        more |= {"width": WIDTH, "doubling": True, "parametrisation": "lecun"} if arch == "ConvNet" else {}
        net = cd.Net(getattr(cd.nets, arch)(channels=channels, classes=data.num_classes, size=size, **more))
        counts = [options.per_class] * data.num_classes
        row = (
            random_row(counts, net, plain, data, trials)
            if source is None
            else score(options.method, net, source, plain, data, trials, spent)
        )
        facts = {"name": f"{name}-{title}", "evaluation": to_config(plain), **surroundings(options)}
        kept = {"dataset": options.dataset, "per_class": options.per_class, "method": options.method}
        kept |= {"tag": options.tag, "network": title, "autocast": str(trials.execution.autocast)}
        write(f"across-{name}-{title.replace(':', '-')}", {**facts, **kept, "row": row.to_json()})
        print(f"{name} {title}: {100 * row.last.mean:.1f} +- {100 * row.last.std:.1f}", flush=True)


def published(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    """Train networks on a set of RCIG's authors, by their recipe as it is here: what our evaluation says of it."""
    arrays = np.load(options.method)  # no pickled objects: numpy refuses them
    x, y = (torch.from_numpy(arrays[key]) for key in ("images", "labels"))
    batch = cd.Batch(torch.cat([x, x.flip(3)]), y.repeat(2, 1))  # mirrored, as theirs
    name = f"published-{options.dataset}-ipc{options.per_class}-w{options.width}"
    net, trials = network(data, options.width), trials_of(options)
    kept = {"dataset": options.dataset, "per_class": options.per_class, "source": str(arrays["source"])}
    facts: dict[str, Any] = {"name": name, **kept, **surroundings(options), "width": options.width}
    for key in ("row", "augmented") if options.augment else ("row",):
        plain = recipe(options, augment=key == "augmented")
        facts[key] = score("rcig", net, batch, plain, data, trials, {}).to_json()
        print(f"{name} {key}: {100 * last(facts[key]):.1f}", flush=True)
    write(name, {**facts, "evaluation": to_config(recipe(options)), "autocast": str(trials.execution.autocast)})


def subsets(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    """Time and peak memory of a step against how many examples of a large set the backward pass takes, and against how
    much memory the solver's graphs may take.
    """
    cases = [(options.images // 20, None), (options.images // 5, None), (options.images // 2, None), (None, None)]
    points = []
    for backward, kept_mb in [*cases, (None, 100)]:
        points.append(
            {"backward": backward, "kept_mb": kept_mb, **apart(partial(point, options, data, backward, kept_mb))}
        )
        print(points[-1], flush=True)
    name = f"subsets-{options.dataset}-{options.images}"
    kept = {"images": options.images, "width": options.width, "steps": options.steps}
    write(name, {"name": name, **surroundings(options), **kept, "points": points})


def point(
    options: argparse.Namespace, data: cd.data.ImageData, backward: int | None, kept_mb: int | None
) -> dict[str, float]:
    """Steps of RCIG by its dual: CPU seconds of one, those of differentiating in the examples, and peak memory."""
    if kept_mb is not None:
        kernels._KEPT_BYTES = kept_mb << 20
    images = cd.Images.from_real(data.train, options.images // data.num_classes, torch.Generator().manual_seed(0))
    rows = centred_one_hot(images.classes, data.num_classes)
    held = cd.Images(images.values, images.classes, labels=rows, learn_labels=True)
    changes = {"backward": backward, "pool_steps": 1}
    inside, generator = network(data, options.width, softplus=True), torch.Generator().manual_seed(1)
    objective, _ = objective_of("rcig-dual", inside, data.train, generator, changes)
    spent = watched(Linearised, "slopes")
    forget_peak()
    before = peak()
    _, cpu = condense_only(held, objective, options.steps)
    return {"cpu_seconds_a_step": cpu, "differentiating": median(spent), "peak_memory_mb": peak() - before}


def watched(owner: type, name: str) -> list[float]:
    """CPU seconds of each call of a method, from now on."""
    spent: list[float] = []
    plain = getattr(owner, name)

    def method(*args: Any, **more: Any) -> Any:
        clock = time.process_time()
        try:
            return plain(*args, **more)
        finally:
            spent.append(time.process_time() - clock)

    setattr(owner, name, method)
    return spent


def apart(job: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What a job gives in a process of its own, for which no memory lies ready (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    process = context.Process(target=lambda: its.send(job()))
    process.start()
    its.close()
    found: dict[str, float] = ours.recv()
    process.join()
    return found


def costs(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    """CPU seconds of a step of each method in one process, the first steps (of tuning and warming up) left out."""
    real, inside = data.train, network(data, options.width, softplus=True)
    real = real.prepared() if options.dataset == "cifar10" else real
    found: dict[str, float] = {}
    for method in options.methods.split(","):
        images = start(options, data, options.per_class, method)
        objective, _ = objective_of(method, inside, real, torch.Generator().manual_seed(1), {})
        ticks = []
        for _ in cd.iterate(images, objective, objective.optimizer(images), steps=options.steps + 2):
            ticks.append(time.process_time())
        found[method] = median([b - a for a, b in pairwise(ticks)][1:])
        print(f"{method}: {found[method]:.2f} CPU s a step", flush=True)
    name = f"costs-{options.dataset}-ipc{options.per_class}"
    kept = {"dataset": options.dataset, "per_class": options.per_class}
    write(name, {"name": name, **kept, "cpu_seconds_a_step": found, **surroundings(options)})


def gradients(options: argparse.Namespace, data: cd.data.ImageData) -> None:
    """RCIG's gradient in the images by each solver beside the exact one, at the set that a run begins with.

    Its error, and the CPU seconds of the step. Without clipping and margin; a residual ends `cg` alone, the others make
    all their steps. `-low` after a solver's name: products with the Jacobian in bfloat16.
    """
    net = network(data, options.width, softplus=True)
    real = data.train.prepared() if options.dataset == "cifar10" else data.train

    def gradient(solver: Any, seed: int = 1, *, low: bool = False) -> tuple[torch.Tensor, dict[str, Any]]:
        """Of one network, and of the real batch that a seed gives."""
        images = start(options, data, options.per_class, "rcig")
        changes = {"solver": solver, "clip": False, "margin": 0.0, "pool_size": 1, "pool_steps": 1}
        changes["precision"] = torch.bfloat16 if low else None
        objective, _ = objective_of("rcig", net, real, torch.Generator().manual_seed(1), changes)
        parameters = [p for p in images.parameters() if p.requires_grad]
        torch.autograd.grad(objective(images), parameters)  # the network is made, and Adam's rates are found
        objective.generator.manual_seed(seed)  # for the real batch: there is no other network to draw
        clock = time.process_time()
        found = torch.autograd.grad(objective(images), parameters)
        figures = {key: float(objective.figures[key]) for key in ("inner_residual", "inverse_residual")}
        return found[0].flatten(), {"cpu_seconds": time.process_time() - clock, **figures}

    def apart_from(exact: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
        return {
            "error": float((found - exact).norm() / exact.norm()),
            "cosine": float(torch.cosine_similarity(found, exact, dim=0)),
        }

    exact, facts = gradient(methods.Dual(Cg(steps=100, tolerance=1e-6)))
    points: list[dict[str, Any]] = [{"solver": "exact", **facts}]
    other, facts = gradient(methods.Dual(Cg(steps=100, tolerance=1e-6)), seed=2)
    points.append({"solver": "another real batch", **facts, **apart_from(exact, other)})
    for word in options.solvers.split(","):
        plain = word.removesuffix("-low")
        solver = solver_of(plain)
        if plain != "cg" and not plain.startswith("descent"):
            cg = Cg(steps=int(plain.split("-")[1]), tolerance=0.0)
            solver = methods.Descent(solve=cg) if plain.startswith("cg") else methods.Dual(cg)
        found, facts = gradient(solver, low=plain != word)
        points.append({"solver": word, **facts, **apart_from(exact, found)})
        print(points[-1], flush=True)
    name = f"gradients-{options.dataset}-ipc{options.per_class}"
    kept = {"dataset": options.dataset, "per_class": options.per_class}
    write(name, {"name": name, **kept, **surroundings(options), "width": options.width, "near": points})


def condense_only(images: cd.Images, objective: Any, steps: int) -> tuple[int, float]:
    """Some steps without snapshots: how many, and CPU seconds of one (median)."""
    cpu, clock = [], time.process_time()
    for _ in cd.iterate(images, objective, objective.optimizer(images), steps=steps):
        cpu.append(time.process_time() - clock)
        clock = time.process_time()
    return steps, median(cpu)


def write(name: str, facts: dict[str, Any]) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    write_text(TARGET / f"{name}.json", json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
