"""Searches on condensed data beside the same searches on real data: rank agreement, time and what they find.

    python benchmarks/search.py sets                   # condenses and selects the sets, once
    python benchmarks/search.py cells real             # 50 cells trained on real data; then each set in place of real:
    python benchmarks/search.py cells random           # k-center, dc, dm; early: half the steps on real data
    python benchmarks/search.py cells hcdc             # dm to train, and a validation set condensed by HCDC
    python benchmarks/search.py cells few              # dm to train, and the real images that HCDC's set begins as
    python benchmarks/search.py optuna real            # a TPE search of six hyperparameters, then on dc or dm

Fashion-MNIST at 14x14 (means of 2x2 pixels), 1,000 training, 200 validation and 1,000 test images of each class; cells
train on the first 200 of each class. What is finished is found in the work folder, so a run that was stopped goes on.
Writes JSON files to benchmarks/results/search/. Needs CONDENSERY_DATA.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import condensery as cd
import tables_search
from accuracy import processor
from condensery import charts, configs, pictures, spaces, store
from condensery.batch import Batch
from condensery.bilevel import Cg, Converged, GaussNewton, Momentum
from condensery.data import ImageData, Labelled
from condensery.data.imagedata import image_data
from condensery.fitting import Sgd, WarmupCosine
from condensery.memory import keep_freed_memory
from condensery.methods.hcdc import HCDC, Sampled
from condensery.nets.cells import Supernet, draw_cells
from condensery.search import (
    Categorical,
    Cost,
    Float,
    ImageFamily,
    ImageGround,
    Int,
    Settings,
    Study,
    best,
    confirm,
    explore,
)
from condensery.search.confirm import to_json
from condensery.search.settings import Config
from pieces import commit

TARGET = Path(__file__).parent / "results" / "search"
WORK = Path("runs/benchmarks/search")
SETS = ("random", "k-center", "dc", "dm")
PER_CLASS, CELLS, TRIALS, CONFIRMED = 10, 50, 20, 3
SEED = 0

SPACE = Settings(
    {
        "net.width": Int(8, 32, step=8),
        "net.depth": Int(1, 3),
        "net.norm": Categorical(("none", "instance", "batch")),
        "net.pooling": Categorical(("avg", "max")),
        "eval.lr": Float(1e-3, 0.3, log=True),
        "eval.weight_decay": Float(1e-5, 1e-2, log=True),
    }
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sets")
    commands.add_parser("cells").add_argument("on", choices=("real", "early", *SETS, "few", "hcdc"))
    commands.add_parser("picture", help="of condensed against real scores, for the documentation")
    tuning = commands.add_parser("optuna")
    tuning.add_argument("on", choices=("real", *SETS))
    tuning.add_argument("--seed", type=int, default=SEED, help="of the search; the sets stay the same")
    options = parser.parse_args()
    if options.command == "picture":
        picture()
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    WORK.mkdir(parents=True, exist_ok=True)
    TARGET.mkdir(parents=True, exist_ok=True)
    data = pooled()
    if options.command == "sets":
        for name in SETS:
            seconds, cpu, batch = made(name, data)
            print(f"{name}: {len(batch.y)} images, {seconds:.0f} s, {cpu:.0f} CPU s", flush=True)
    elif options.command == "cells":
        cells(options.on, data)
    else:
        tuned(options.on, data, options.seed)


# --- data
# ------------------------------------------------------------------------------------------------------------------


def pooled() -> ImageData:
    """The images as networks see them."""
    return unprepared().prepared()


def unprepared() -> ImageData:
    """The images with what prepares them."""
    full = cd.data.fashion_mnist()
    train, validation, test = (
        _first(part, k) for part, k in ((full.train, 1000), (full.validation, 200), (full.test, 1000))
    )
    return image_data("fashion-mnist-14", train, classes=full.classes, validation=validation, test=test)


def _first(part: Labelled, count: int) -> Batch:
    """The first images of each class, class by class, their pixels in [0, 1]."""
    index = torch.cat([part.members(c)[:count] for c in range(part.num_classes)])
    return Batch(F.avg_pool2d(part.x[index].float() / 255, 2), part.y[index])


def fewer(part: Labelled, count: int) -> Labelled:
    return part.subset(torch.cat([part.members(c)[:count] for c in range(part.num_classes)]))


# --- sets
# ------------------------------------------------------------------------------------------------------------------


def made(name: str, data: ImageData) -> tuple[float, float, Batch]:
    """A set in the work folder, or made now: wall seconds, CPU seconds, images."""
    path = WORK / f"{name}.safetensors"
    if not path.is_file():
        wall, cpu = time.perf_counter(), time.process_time()
        x, y = condensed(name, data)
        times = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        store.save_tree(path, {"x": x, "y": y, **times}, kind="benchmark-set", version=1)
    tree = store.load_tree(path, kind="benchmark-set", version=1)
    return tree["seconds"], tree["cpu"], Batch(tree["x"], tree["y"])


def condensed(name: str, data: ImageData) -> Batch:
    """Ten images a class of the first 200 of each."""
    real, generator = fewer(data.train, 200), torch.Generator().manual_seed(SEED)
    if name == "random":
        images = cd.Images.from_real(real, PER_CLASS, generator)
    elif name == "k-center":
        counts = [PER_CLASS] * real.num_classes
        images = cd.Images.from_index(real, cd.coresets.k_center(real.whole().x, real.y, counts, generator=generator))
    else:
        net = cd.Net(cd.nets.ConvNet(channels=1, classes=10, size=14, width=16, depth=2))
        images = cd.Images.from_real(real, PER_CLASS, generator)
        methods = {
            "dc": (cd.DC(net, real, generator, batch_real=64, outer=10, inner=10), 100),
            "dm": (cd.DM(net, real, generator, batch_real=64), 300),
        }
        method, steps = methods[name]
        cd.condense(images, method, steps=steps)
    return Batch(*(part.detach().clone() for part in images()))


def first_validation(data: ImageData) -> cd.Images:
    """Ten real validation images a class."""
    return cd.Images.from_real(data.validation, PER_CLASS, torch.Generator().manual_seed(SEED))


def calibrated(data: ImageData, train: Batch) -> dict[str, Any]:
    """A validation set of HCDC for the first half of the cells: seconds, CPU seconds, images, figures of each step."""
    path = WORK / "hcdc-val.safetensors"
    if path.is_file():
        return store.load_tree(path, kind="benchmark-set", version=2)
    g = torch.Generator().manual_seed(SEED + 1)
    net = cd.Net(Supernet(channels=1, classes=10, size=14, width=8, stages=2))
    space = spaces.Cells(net, candidates=draw_cells(CELLS, torch.Generator().manual_seed(SEED))[: CELLS // 2])
    images = first_validation(data)
    # The Hessian of a supernet after a few steps is indefinite: see docs/methods/hcdc.md.
    learner = Converged(
        Momentum(0.05), solve=Cg(20, 1e-2), damping=0.1, curvature=GaussNewton, matrix=False, warm=False
    )
    settings = {"steps": 80, "every": 40, "repeat": 2, "lr_set": 0.02}
    method = HCDC(space, train, Sampled(data.validation, 200), g, learner=learner, **settings)
    wall, cpu, log = time.perf_counter(), time.process_time(), []
    for step in cd.iterate(images, method, method.optimizer(images), steps=2 * CELLS):
        log.append({key: round(float(value), 4) for key, value in method.figures.items()})
        print(f"hcdc {step.number} {float(step.loss):.4f} {log[-1]}", flush=True)
    x, y = (part.detach().clone() for part in images())
    times = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    made = {"x": x, "y": y, **times, "log": log}
    store.save_tree(path, made, kind="benchmark-set", version=2)
    return made


# --- cells
# ------------------------------------------------------------------------------------------------------------------


class Listed:
    """The cells in their order."""

    def __init__(self) -> None:
        cells = draw_cells(CELLS, torch.Generator().manual_seed(SEED))
        self.left = iter([{"net.code": cell.code} for cell in cells])

    def ask(self) -> Config | None:
        """The next cell."""
        return next(self.left, None)

    def tell(self, config: Config, score: float | None) -> None:
        """Changes nothing."""


def cells(on: str, data: ImageData) -> None:
    family = ImageFamily({"net": "CellNet", "channels": 1, "classes": 10, "size": 14, "width": 8, "stages": 2})
    recipe = cd.Recipe(steps=240, batch_size=50, optimizer=Sgd(lr=0.05), schedule=WarmupCosine(20))
    seconds = cpu = 0.0
    if on in ("real", "early"):
        # As many images in all as a training on a condensed set sees.
        steps = {"real": 240, "early": 120}[on]
        ground = ImageGround(family, fewer(data.train, 200), data.validation, replace(recipe, steps=steps))
    else:
        seconds, cpu, batch = made("dm" if on in ("few", "hcdc") else on, data)
        ground = ImageGround(family, cd.Held(batch), data.validation, replace(recipe, steps=120))
    log = []
    if on in ("few", "hcdc"):
        x, y = (part.detach() for part in first_validation(data)())
        if on == "hcdc":
            more = calibrated(data, batch)
            seconds, cpu, log = seconds + more["seconds"], cpu + more["cpu"], more["log"]
            x, y = more["x"], more["y"]
        # Accuracies on a hundred images have few values: the paper ranks by the loss.
        ground = replace(ground, validation=cd.Held(Batch(x, y)), measure=cd.search.likelihood)
    found = []
    for trial in explore(Listed(), ground, CELLS, log=WORK / f"cells-{on}.jsonl"):
        found.append(asdict(trial))
        print(f"cells {on} {trial.number} {trial.config['net.code']} {trial.score} {trial.cpu:.1f}", flush=True)
    plain = {
        "on": on,
        "condensing": {"seconds": seconds, "cpu": cpu},
        "trials": found,
        "seen": CELLS // 2 if on == "hcdc" else 0,
        "log": log,
        **surroundings(),
    }
    plain["recipe"] = configs.to_config(ground.recipe)
    store.write_text(TARGET / f"cells-{on}.json", json.dumps(plain, indent=1) + "\n")


def picture() -> None:
    """The scores of cells on two sets against those on real images, from the result files."""
    real = tables_search.scores(tables_search.load("cells-real") or {"trials": []})
    groups = []
    for name in ("dm", "random"):
        found = tables_search.load(f"cells-{name}")
        cheap = {} if found is None else tables_search.scores(found)
        codes = [code for code in real if code in cheap]
        points = [cheap[code] for code in codes], [real[code] for code in codes]
        groups.append(charts.Points(tables_search.NAMES[name], *points))
    made = charts.scatter(
        groups,
        x_title="validation accuracy, trained on 100 images",
        y_title="validation accuracy, trained on 2,000 real images",
        title=f"{len(real)} cells on Fashion-MNIST at 14x14",
    )
    pictures.save(made, Path(__file__).parent.parent / "docs" / "assets" / "search-cells.png")


# --- hyperparameters
# ------------------------------------------------------------------------------------------------------------------


def tuned(on: str, data: ImageData, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    family = ImageFamily({"net": "ConvNet", "channels": 1, "classes": 10, "size": 14})
    recipe = cd.Recipe(epochs=2, batch_size=50, schedule=WarmupCosine(20))
    real = ImageGround(family, data.train, data.validation, recipe, seeds=(seed,))
    name = f"{on}-seed{seed}"
    ground, seconds = real, 0.0
    if on != "real":
        seconds, _, batch = made(on, data)
        ground = replace(real, train=cd.Held(batch), recipe=replace(recipe, steps=120))
    study = Study(WORK / f"optuna-{name}.log", optuna.samplers.TPESampler, seed=seed)
    study.forget_interrupted()
    for trial in study.run(SPACE, ground, TRIALS):
        print(f"optuna {on} {trial.number} {trial.score} {trial.cpu:.1f}", flush=True)
    trials = study.trials()
    done = []
    chosen = best(trials, CONFIRMED)
    for one in confirm(
        chosen,
        functools.partial(real.fit, test=data.test),
        (100 + 2 * seed, 101 + 2 * seed),
        log=WORK / f"confirmed-{name}.json",
    ):
        print(f"optuna {on} confirmed {one}", flush=True)
        done.append(one)
    once = sum(c.seconds for c in done[:-1]) / (2 * len(done[:-1]))
    cost = Cost(seconds, sum(t.seconds for t in trials), sum(c.seconds for c in done[:-1]), len(trials), once)
    plain = {
        "on": on,
        "trials": [asdict(t) for t in trials],
        "confirmed": [to_json(c) for c in done],
        "cost": cost.to_json(),
        "cpu": {"searching": sum(t.cpu for t in trials), "confirming": sum(c.cpu for c in done[:-1])},
        "condensing_cpu": 0.0 if on == "real" else made(on, data)[1],
        "space": cd.search.space_to(SPACE),
        **surroundings(),
        "seed": seed,
    }
    store.write_text(TARGET / f"optuna-{name}.json", json.dumps(plain, indent=1) + "\n")


def surroundings() -> dict[str, Any]:
    return {
        "seed": SEED,
        "versions": {"condensery": cd.__version__, "torch": str(torch.__version__)},
        "hardware": processor(),
        "commit": commit(),
    }


if __name__ == "__main__":
    main()
