"""How well few validation images rank configurations: HCDC's (`condensery calibrate`) beside real ones.

    python benchmarks/calibrate.py

Fashion-MNIST at 14x14 as in `search.py`: networks are trained on DM's 10 images a class. Twenty-four random
configurations of width, depth, normalisation, pooling and weight decay; the truth is the loss on the 2,000 real
validation images after training on the 10,000 real ones. Asked are sets of 10 and 50 validation images: random real
ones (five draws), HCDC's, and HCDC's by the paper's algorithm, without networks trained on the real images.
Condensing sees eight networks of the space, drawn by another seed than the configurations. Writes
benchmarks/results/search/calibrate.json; what is finished is found in the work folder. Needs CONDENSERY_DATA.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch

import condensery as cd
import search as searching
from condensery import nets, recipes, store
from condensery.artifact import Artifact
from condensery.batch import Batch
from condensery.data import ImageData
from condensery.evaluate import agreement
from condensery.fitting import Held, WarmupCosine
from condensery.memory import keep_freed_memory
from condensery.search import Categorical, Float, ImageFamily, ImageGround, Int, Settings, calibration, likelihood

SPACE = Settings(
    {
        "net.width": Int(8, 32, step=8),
        "net.depth": Int(1, 3),
        "net.norm": Categorical(("none", "instance", "batch")),
        "net.pooling": Categorical(("avg", "max")),
        "eval.weight_decay": Float(1e-5, 1e-1, log=True),
    }
)
CONFIGS, STEPS, DRAWS = 24, 100, 5
NETWORK = {"net": "ConvNet", "channels": 1, "classes": 10, "size": 14}
RECIPE = cd.Recipe(epochs=2, batch_size=50, schedule=WarmupCosine(20))


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    data, work = searching.pooled(), searching.WORK
    work.mkdir(parents=True, exist_ok=True)
    family = ImageFamily(NETWORK)
    generator = torch.Generator().manual_seed(5)
    configs = [SPACE.draw(generator) for _ in range(CONFIGS)]
    seconds, _, few = searching.made("dm", data)
    sets = validation_sets(data, few)
    truth, scores = judged(family, data, few, sets, configs)
    rows = [{"set": name, **row(truth, scores[name]), **facts} for name, (_, facts) in sets.items()]
    plain = {
        "rows": rows,
        "configs": configs,
        "truth": truth,
        "scores": scores,
        "condensing_train": seconds,
        **searching.surroundings(),
    }
    store.write_text(searching.TARGET / "calibrate.json", json.dumps(plain, indent=1) + "\n")
    for one in rows:
        print(one, flush=True)


def validation_sets(data: ImageData, few: Batch) -> dict[str, tuple[Batch | None, dict[str, Any]]]:
    """What configurations are scored on, by name, with what it took; ``None`` for all real validation images."""
    found: dict[str, tuple[Batch | None, dict[str, Any]]] = {"real": (None, {"images": len(data.validation)})}
    for per_class in (1, 5):
        images = 10 * per_class
        for k in range(DRAWS):
            drawn = cd.Images.from_real(data.validation, per_class, torch.Generator().manual_seed(100 + k))
            found[f"random-{images}-{k}"] = (Batch(*(p.detach() for p in drawn())), {"images": images})
        for name, teacher in (("hcdc", True), *((("paper", False),) if per_class == 1 else ())):
            batch, cpu = calibrated(name, data, few, per_class, teacher=teacher)
            found[f"{name}-{images}"] = (batch, {"images": images, "cpu": cpu})
    return found


def calibrated(name: str, data: ImageData, few: Batch, per_class: int, *, teacher: bool) -> tuple[Batch, float]:
    """A set of HCDC's in the work folder, or made now, with its CPU seconds."""
    path = searching.WORK / f"calibrated-{name}-{per_class}.safetensors"
    if not path.is_file():
        options = [f"teacher={str(teacher).lower()}", f"steps={STEPS}"]
        plan = recipes.load("hcdc", "fashion-mnist", per_class, overrides=options, network={"width": "16"})
        raw = searching.unprepared()
        run, _ = calibration.build(plan, raw, artifact_of(raw, few), SPACE, seed=1)
        begun = time.process_time()
        for step in cd.iterate(run.synthetic, run.objective, run.optimizer, steps=STEPS):
            if step.number % 10 == 1:
                print(name, per_class, step.number, round(float(step.loss), 4), flush=True)
        x, y = (part.detach() for part in run.result())
        tree = {"x": x, "y": y, "cpu": time.process_time() - begun}
        store.save_tree(path, tree, kind="benchmark-set", version=1)
    tree = store.load_tree(path, kind="benchmark-set", version=1)
    return Batch(tree["x"], tree["y"]), tree["cpu"]


def artifact_of(data: ImageData, few: Batch) -> Artifact:
    """The training set as a user has it."""
    network = nets.describe(nets.ConvNet(channels=1, classes=10, size=14, width=16))
    images = cd.Images(few.x, few.y)
    return Artifact(images, data.classes, data.preprocessing, RECIPE, network, data.name, "DM")


def judged(
    family: ImageFamily,
    data: ImageData,
    few: Batch,
    sets: dict[str, tuple[Batch | None, dict[str, Any]]],
    configs: list[Any],
) -> tuple[list[float], dict[str, list[float]]]:
    """The true scores of configurations, and those on each set, of one network trained on the condensed images."""
    real = ImageGround(family, data.train, data.validation, RECIPE)
    short = cd.Recipe(steps=120, batch_size=50, schedule=WarmupCosine(20))
    truth, scores = [], {name: [] for name in sets}
    for number, config in enumerate(configs):
        truth.append(likelihood(real.trained(config, 0), data.validation))
        trained = ImageGround(family, Held(few), data.validation, short).trained(config, 0)
        for name, (batch, _) in sets.items():
            scores[name].append(likelihood(trained, data.validation if batch is None else Held(batch)))
        print(number, config, truth[-1], flush=True)
    return truth, scores


def row(truth: list[float], scores: list[float]) -> dict[str, Any]:
    found = agreement.agreement(scores, truth, torch.Generator().manual_seed(0), k=3)
    return {"spearman": found.spearman.value, "low": found.spearman.low, "high": found.spearman.high}


if __name__ == "__main__":
    main()
