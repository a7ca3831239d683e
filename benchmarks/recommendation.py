"""Recommendation logs: how well recommenders trained on condensed logs rank, at the size that the logs really have.

    python benchmarks/recommendation.py run ciao 0.25 dconrec           # condense and evaluate
    python benchmarks/recommendation.py run ciao 0.25 dconrec --without pseudo --without tail
    python benchmarks/recommendation.py across ciao 0.25 dconrec        # LightGCN on the same log
    python benchmarks/recommendation.py many < lines                    # one of these a line
    python benchmarks/recommendation.py variate                         # would the slope help the policy gradient?
    python benchmarks/recommendation.py large                           # a pool of ten million, within 8 GiB

A run is a whole one: the proxy, the condensation and the recommender that is trained on the log all begin from the
run's seed. What has a result file is not run again. Data: $CONDENSERY_DATA/recsys, Ciao with ratings of at least 3,
Gowalla's two parts of LightGCN's release joined; both are split 80/10/10 by user with seed 2020. Recommenders take
the same number of steps between two validations whatever log they are trained on, and are stopped by NDCG@10 on
validation users; they are tested once. Writes one JSON file a run to benchmarks/results/recommendation/.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

import condensery as cd
from condensery import bpr
from condensery.condensed_log import Interactions
from condensery.configs import to_config
from condensery.coresets import interactions as selections
from condensery.data.generated import generated_log
from condensery.data.interaction_files import Repeats, read_adjacency, read_log
from condensery.data.interactions import Log, LogData, joined, share_ids, split_by_user
from condensery.evaluate.topk import TopK, top_k
from condensery.fitting import Adam
from condensery.log_artifact import Form, LogArtifact
from condensery.masks import sample
from condensery.memory import keep_freed_memory
from condensery.methods import dconrec
from condensery.methods.dconrec import Begin, DConRec, FirstOrder, Setting
from condensery.methods.doscond_rec import DosCondRec
from condensery.nets.recommender import MF, LightGCN, Recommender
from condensery.ranking import Validation
from condensery.store import load_tree, save_tree, write_text
from trajectories import forget_peak, peak, processor

RESULTS = Path(__file__).parent / "results"
TARGET = RESULTS / "recommendation"
SPLIT_SEED = 2020
PSEUDO = {"ciao": 0.9, "gowalla": 0.3}  # section 4.1.4
WATCHED = 1000  # validation users that stop a training
LEARNED = ["even", "doscond", "dconrec-paper", "dconrec-authors", "dconrec", "first-order"]
UNSEEN = {"proxy-half": 0.5, "proxy-quarter": 0.25, "proxy-recorded": 0.0}  # of `proxy_best`, by a proxy at its best
METHODS = ["full", "random", "majority", "svp", "svp-user", "proxy-best", "proxy-chosen", *UNSEEN, *LEARNED]
PROXY_PASSES = 15  # of SVP's


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/recommendation"), help="proxies, snapshots, artifacts")
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("many")
    explaining = commands.add_parser("variate")
    explaining.add_argument("--masks", type=int, default=30)
    explaining.add_argument("--steps", type=int, default=30, help="between the first look and the second")
    large = commands.add_parser("large")
    large.add_argument("--users", type=int, default=100_000)
    large.add_argument("--items", type=int, default=20_000)
    large.add_argument("--rows", type=int, default=10_000_000, help="of the pool, at least")
    large.add_argument("--steps", type=int, default=20)
    for name in ("run", "across"):
        command = commands.add_parser(name)
        command.add_argument("dataset", choices=sorted(PSEUDO))
        command.add_argument("ratio", type=float)
        command.add_argument("method", choices=METHODS)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--without", action="append", default=[], choices=["pseudo", "tail"], help="table 4")
        command.add_argument("--steps", type=int, help="of the outer loop")
        command.add_argument("--lr", type=float, help="of the scores, where it is Adam's")
        command.add_argument("--proxy-lr", type=float, default=5e-3)
        command.add_argument("--inner-epochs", type=int, default=1)
        command.add_argument(
            "--start", choices=["even", "best", "proxy", "chosen"], default="even", help="of the probabilities"
        )
        command.add_argument("--on", choices=["validation", "whole"], default="validation", help="the outer loss")
        command.add_argument("--form", choices=[Form.SAMPLED.value, Form.TOP.value], default=Form.SAMPLED.value)
        command.add_argument("--tag", default="", help="added to the name of the result")
        command.add_argument("--passes", type=int, default=60, help="over the full log, or as many steps")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.command in ("large", "variate"):
        (large if options.command == "large" else variate)(options)
        return
    lines = sys.stdin if options.command == "many" else [None]
    loaded: dict[str, LogData] = {}
    for line in lines:
        one = options if line is None else arguments(["--work", str(options.work), *line.split()])
        name = name_of(one)
        if not (TARGET / f"{name}.json").exists():
            if one.dataset not in loaded:
                loaded[one.dataset] = load(one.dataset)
            data = loaded[one.dataset]
            (run if one.command == "run" else across)(name, one, data)


def name_of(options: argparse.Namespace) -> str:
    """The name of a run, and of its file."""
    parts = [options.dataset, *(() if options.method == "full" else (f"{options.ratio:g}",)), options.method]
    parts += [f"without-{part}" for part in sorted(options.without)] + ([options.tag] if options.tag else [])
    parts += [f"from-{options.start}"] * (options.start != "even")
    parts += ["on-whole"] * (options.on == "whole")
    parts += ["top"] * (options.form == Form.TOP.value) + [f"seed{options.seed}"]
    return "-".join((["across"] if options.command == "across" else []) + parts)


def load(dataset: str) -> LogData:
    """The split that the published tables are of, as far as their text tells."""
    folder = Path(os.environ.get("CONDENSERY_DATA", ".")) / "recsys"
    if dataset == "ciao":
        log = read_log(folder / "ciao_ratings.csv.gz", repeats=Repeats.KEEP).at_least(3).compact()
    else:
        log = joined(*share_ids(*(read_adjacency(folder / f"gowalla_{part}.txt.gz") for part in ("train", "test"))))
    return split_by_user(log, seed=SPLIT_SEED, name=dataset)


# --- a run
# ------------------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """A log to train on, and how it came about."""

    log: Log
    form: Form
    facts: dict[str, Any]
    pseudo: int = 0
    indices: Tensor | None = None


def run(name: str, options: argparse.Namespace, data: LogData) -> None:
    forget_peak()
    begun = time.process_time()
    made = make(name, options, data)
    seconds, memory = time.process_time() - begun, peak()
    recipe = testing(made.log, data, options.passes)
    if made.log is not data.train:
        artifact = LogArtifact(
            made.log,
            options.ratio,
            len(data.train),
            made.form,
            recipe,
            data.name,
            options.method,
            seed=options.seed,
            split=data.how,
            pseudo=made.pseudo,
            indices=made.indices,
        )
        artifact.save(folder_of(options, name) / "log.safetensors")
    row, cpu = tested(made.log, data, recipe, options, lambda log: MF(log.num_users, log.num_items))
    costs = {"condense": seconds, **made.facts.pop("cpu_seconds", {}), "evaluate": cpu}
    pseudo = made.pseudo / max(1, len(made.log))
    write(name, {**facts_of(name, options, recipe), **made.facts, "pseudo_share": pseudo, "cpu_seconds": costs,
                 "peak_memory_mb": memory, "row": row.to_json()})  # fmt: skip
    said = {key: round(score.mean, 4) for key, score in row.scores.items() if key.endswith("@10")}
    print(f"{name}: share {row.size['share']:.3f} {said} validation {row.validation.mean:.4f} {costs}", flush=True)


def tested(
    log: Log, data: LogData, recipe: bpr.Recipe, options: argparse.Namespace, build: Callable[[Log], Recommender]
) -> tuple[TopK, float]:
    """One recommender from the run's seed, and the CPU seconds that it took."""
    begun = time.process_time()
    watch = Validation(data.train, data.validation, at_most=WATCHED)
    row = top_k(log, data, build=build, recipe=recipe, seeds=(options.seed,), watch=watch, name=options.method)
    return row, time.process_time() - begun


def testing(log: Log, data: LogData, passes: int) -> bpr.Recipe:
    """How recommenders are trained: so many passes over the full log, or as many steps on a smaller one."""
    every = max(1, round(len(data.train) / len(log)))
    return bpr.Recipe(epochs=passes * every, optimizer=Adam(lr=5e-3), penalty=bpr.Norms(), every=every, patience=5)


def make(name: str, options: argparse.Namespace, data: LogData) -> Made:
    """The log that is trained on."""
    train, generator = data.train, Generator().manual_seed(1000 + options.seed)
    if options.method == "full":
        return Made(train, Form.SELECTED, {})
    if options.method in LEARNED:
        return learned(name, options, data, generator)
    budget = round(options.ratio * len(train))
    if options.method == "proxy-best":
        model, known = proxy(options, data)
        begun = time.process_time()
        rows = best(train, model, budget)
        cpu = {"proxy": known["cpu_seconds"], "condense": time.process_time() - begun}
        return Made(rows, Form.SELECTED, {"cpu_seconds": cpu, "proxy": known}, len(rows))
    if options.method in UNSEEN:
        model, known = proxy(options, data, best=True)
        begun = time.process_time()
        unseen = UNSEEN[options.method]
        rows = dconrec.proxy_best(train, model, budget, generator=generator, unseen=unseen)
        cpu = {"proxy": known["cpu_seconds"], "condense": time.process_time() - begun}
        pseudo = int((~train.contains(rows.users, rows.items)).sum())
        return Made(rows, Form.SELECTED, {"cpu_seconds": cpu, "proxy": known}, pseudo)
    if options.method == "proxy-chosen":
        model, known = proxy(options, data, best=True)
        begun = time.process_time()
        share, asked = chosen(options, data, model)
        rows = dconrec.proxy_best(train, model, budget, generator=generator, unseen=share)
        cpu = {"proxy": known["cpu_seconds"], "condense": time.process_time() - begun}
        pseudo = int((~train.contains(rows.users, rows.items)).sum())
        return Made(rows, Form.SELECTED, {"cpu_seconds": cpu, "proxy": known, **asked}, pseudo)
    if options.method.startswith("svp"):
        level = selections.Level.USER if options.method == "svp-user" else selections.Level.INTERACTION
        rows = selections.svp(train, budget, importance(options, data), generator=generator, level=level)
    else:
        rows = getattr(selections, options.method)(train, budget, generator=generator)
    return Made(train.subset(rows), Form.SELECTED, {}, indices=rows)


def chosen(options: argparse.Namespace, data: LogData, model: MF) -> tuple[float, dict[str, Any]]:
    """The unseen share that the validation log chooses, and what it said."""
    begun, budget = time.process_time(), round(options.ratio * len(data.train))
    recipe = testing(data.train.subset(torch.arange(budget)), data, options.passes)
    watch = Validation(data.train, data.validation, at_most=WATCHED)
    generator = Generator().manual_seed(3000 + options.seed)
    found = dconrec.choose_unseen(data.train, data.validation, model, budget, generator, recipe=recipe, watch=watch)
    scores = {f"{share:g}": score for share, score in found.scores.items()}
    return found.share, {"unseen": {"share": found.share, "scores": scores, "cpu_seconds": time.process_time() - begun}}


def best(train: Log, model: MF, budget: int) -> Log:
    """No recorded row: what the proxy would recommend, in proportion to each user's rows, within the budget."""
    counts = train.user_counts
    active = counts[counts > 0].double()
    shares = [budget / len(train) * percent / 100 for percent in range(150, 0, -1)]
    sizes = [float((active * share + 1e-9).floor().clamp(min=1).sum()) for share in shares]
    share = next(x for x, size in zip(shares, sizes, strict=True) if size <= budget)
    return dconrec.pseudo_interactions(train, model, share, least=1)


def importance(options: argparse.Namespace, data: LogData) -> Tensor:
    """What SVP selects by: inverted AUC over some passes of a proxy."""
    generator = Generator().manual_seed(options.seed)
    model = MF(data.num_users, data.num_items)
    model.reset_parameters(generator)
    recipe = dataclasses.replace(testing(data.train, data, PROXY_PASSES), best=False)
    draw = bpr.Negatives(data.num_items, data.train).draw
    passes = bpr.training(model, data.train, recipe, generator)
    return selections.inverted_auc(data.train, passes, draw, Generator().manual_seed(2000 + options.seed), negatives=2)


def proxy(options: argparse.Namespace, data: LogData, *, best: bool = False) -> tuple[MF, dict[str, Any]]:
    """The proxy of a seed, trained once, as it was last or at its best; and what it is."""
    form = "-best" if best else ""
    path = options.work / f"proxy-{data.name}-{options.proxy_lr:g}-seed{options.seed}{form}.safetensors"
    model = MF(data.num_users, data.num_items)
    if not path.exists():
        begun = time.process_time()
        recipe = testing(data.train, data, 60)
        recipe = dataclasses.replace(recipe, optimizer=Adam(lr=options.proxy_lr), best=best, patience=3)
        model.reset_parameters(generator := Generator().manual_seed(options.seed))
        watch = Validation(data.train, data.validation, at_most=WATCHED)
        trained = bpr.fit(model, data.train, recipe, generator, score=watch)
        facts = {
            "epochs": trained.epoch,
            "validation": trained.best_score if best else trained.score,
            "cpu_seconds": time.process_time() - begun,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tree(path, {"table": model.table.detach(), "facts": facts}, kind="proxy", version=1)
    tree = load_tree(path, kind="proxy", version=1)
    with torch.no_grad():
        model.table.copy_(tree["table"])
    return model, tree["facts"]


def settings(options: argparse.Namespace) -> Setting:
    """The pool and the budget of a method."""
    changes: dict[str, Any] = {"pseudo": PSEUDO[options.dataset]}
    changes |= {"pseudo": 0.0} if "pseudo" in options.without or options.method == "doscond" else {}
    changes |= {"threshold": 0} if "tail" in options.without or options.method == "doscond" else {}
    changes |= {"begin": Begin.PROXY} if options.start in ("proxy", "chosen") else {}
    if options.method == "dconrec-paper":
        return Setting.paper(**changes)
    return Setting.authors(**changes) if options.method == "dconrec-authors" else Setting(**changes)


STEPS = {
    "even": 0,
    "dconrec-paper": 200,
    "dconrec-authors": 140,
}  # where the rate has fallen so far that nothing moves; else 100


def leaning(train: Log, model: MF, ratio: float, setting: Setting) -> Tensor:
    """Probabilities that start at 0.9 for what `best` would take."""
    rows, _ = dconrec.pool(train, model, setting.pseudo, least=setting.least)
    first = best(train, model, round(ratio * len(train))).contains(rows.users, rows.items)
    others = 0.1 * int(first.sum()) / int((~first).sum())
    return torch.where(first, 0.9, others)


def objective_of(options: argparse.Namespace, data: LogData, generator: Generator) -> DConRec | DosCondRec:
    """The method."""
    held = data.validation if options.on == "validation" else joined(data.train, data.validation)
    logs = (data.train, held, generator)
    if options.method == "doscond":
        return DosCondRec(data.train, generator, cooling=steps_of(options), lr=options.lr or 0.01)
    if options.method == "dconrec-paper":
        return dconrec.paper(*logs)
    if options.method == "dconrec-authors":
        return dconrec.authors(*logs, inner=dconrec.inner_recipe(7e-4 if options.dataset == "gowalla" else 5e-4))
    inner = dataclasses.replace(dconrec.inner_recipe(), epochs=options.inner_epochs)
    if options.method == "first-order":
        return DConRec(*logs, estimator=FirstOrder(margin=0.01), outer=Adam(lr=options.lr or 0.02), inner=inner)
    return DConRec(*logs, outer=Adam(lr=options.lr or 0.01), inner=inner)


def steps_of(options: argparse.Namespace) -> int:
    """Outer steps."""
    return int(STEPS.get(options.method, 100) if options.steps is None else options.steps)


def learned(name: str, options: argparse.Namespace, data: LogData, generator: Generator) -> Made:
    """Prepare, descend, and take the log."""
    setting, model, known = settings(options), None, {}
    if setting.pseudo or options.start != "even":
        model, known = proxy(options, data, best=options.start in ("proxy", "chosen"))
    begun, asked = time.process_time(), dict[str, Any]()
    if options.start == "chosen" and model is not None:
        share, asked = chosen(options, data, model)
        setting = dataclasses.replace(setting, unseen=share)
    start = None if options.start != "best" or model is None else leaning(data.train, model, options.ratio, setting)
    kept = dconrec.prepare(data.train, options.ratio, setting=setting, proxy=model, start=start, generator=generator)
    prepared = time.process_time() - begun
    objective, steps = objective_of(options, data, generator), steps_of(options)
    losses, cpu = condense(name, options, kept, objective, steps)
    log = kept.top(generator) if options.form == Form.TOP.value else kept.sampled(generator)
    added = Log(kept.users[kept.source], kept.items[kept.source], log.user_ids, log.item_ids)
    pseudo = int(added.contains(log.users, log.items).sum()) if len(added) else 0
    s = kept.scores.detach()
    facts = {
        "steps": steps,
        **asked,
        "setting": to_plain(setting),
        "outer": to_plain(objective),
        "proxy": known,
        "pool": len(kept.users),
        "tail": kept.kept_always,
        "expected_share": kept.expected_size / len(data.train),
        "settled": {"at_0": float((s <= 0).float().mean()), "at_1": float((s >= 1).float().mean())},
        "losses": losses,
        "cpu_seconds": {"proxy": known.get("cpu_seconds", 0.0), "prepare": prepared, "a_step": cpu,
                        "condense": prepared + cpu * steps},
    }  # fmt: skip
    return Made(log, Form(options.form), facts, pseudo)


def condense(
    name: str, options: argparse.Namespace, kept: Interactions, objective: Any, steps: int
) -> tuple[list[float], float]:
    """Run, or go on, to the last step: the losses along the way, and CPU seconds of a step (mean of this go)."""
    # A longer run begins as a shorter one, so the number of steps is no part of what is stored; its settings are.
    identity = {"name": name, **to_plain(objective), **{f"pool.{k}": v for k, v in to_plain(settings(options)).items()}}
    snapshots = cd.Snapshots(folder_of(options, name), every=50, run=identity)
    losses, begun, done = [], time.process_time(), 0
    for step in cd.iterate(kept, objective, objective.optimizer(kept), steps=steps, snapshots=snapshots):
        losses.append(round(float(step.loss), 6))
        done += 1
    return losses, (time.process_time() - begun) / max(1, done)


def across(name: str, options: argparse.Namespace, data: LogData) -> None:
    """LightGCN on a log that a run left."""
    log = data.train
    if options.method != "full":
        log = LogArtifact.load(folder_of(options, name.removeprefix("across-")) / "log.safetensors").log
    # Each step goes over the whole graph, so batches are larger and steps fewer.
    recipe = testing(log, data, options.passes)
    recipe = dataclasses.replace(recipe, batch_size=16384, penalty=bpr.Squares(), patience=4)

    def build(part: Log) -> Recommender:
        return LightGCN(part.num_users, part.num_items, torch.stack([part.users, part.items]), layers=2)

    row, cpu = tested(log, data, recipe, options, build)
    write(name, {**facts_of(name, options, recipe), "cpu_seconds": {"evaluate": cpu}, "row": row.to_json()})
    print(f"{name}: {row.scores['recall@10'].mean:.4f} in {cpu:.0f} CPU s", flush=True)


# --- what a control variate would explain
# ------------------------------------------------------------------------------------------------------------------


def variate(options: argparse.Namespace) -> None:
    """How much of what the losses of masks differ in the first-order slope explains, at the start and later on."""
    data = load("ciao")
    one = arguments(["--work", str(options.work), "run", "ciao", "0.25", "first-order"])
    kept = dconrec.prepare(data.train, 0.25, proxy=proxy(one, data)[0])
    generator = Generator().manual_seed(0)
    objective = objective_of(one, data, generator)
    rows = [explained(kept, objective, options.masks, 0)]
    for _ in cd.iterate(kept, objective, objective.optimizer(kept), steps=options.steps):
        pass
    rows.append(explained(kept, objective, options.masks, options.steps))
    facts = {"name": "variate", "masks": options.masks, "rows": rows, **surroundings(options)}
    write_to(RESULTS / "recommendation-variate.json", facts)
    print(json.dumps(rows))


@torch.no_grad()
def explained(kept: Interactions, objective: Any, masks: int, steps: int) -> dict[str, float]:
    """Regress losses of masks, all else that is random alike, on the line of a slope from four other masks."""
    slopes = torch.stack([objective.estimate(kept).gradient for _ in range(4)])
    q, loss = kept.scores.detach().clamp(0.01, 0.99), objective.mask_loss(kept)
    losses, line = [], []
    for _ in range(masks):
        mask = sample(q, objective.generator)
        losses.append(loss(mask, Generator().manual_seed(5)))
        line.append(float(kept.learned(slopes.mean(0)) @ (mask.float() - q)))
    y, x = (torch.tensor(values, dtype=torch.float64) for values in (losses, line))
    x, y = x - x.mean(), y - y.mean()
    r = float((x * y).sum() / (x.norm() * y.norm()))
    return {
        "steps": steps,
        "explained": r * r,
        "correlation": r,
        "factor": float((x * y).sum() / x.square().sum()),
        "cosine": float(torch.nn.functional.cosine_similarity(slopes[0], slopes[1], dim=0)),
    }


# --- a large pool
# -----------------------------------------------------------------------------------------------------------


def large(options: argparse.Namespace) -> None:
    """Proxy, pool, outer steps and export over a generated pool of millions: seconds and peak memory of each."""
    stages: dict[str, Any] = {}
    generator = Generator().manual_seed(0)
    mean = 1.45 * options.rows / (1.9 * 0.8 * options.users)  # repeated pairs are taken out, and 80 % train
    data = stage(stages, "generate and split", lambda: split_by_user(
        generated_log(options.users, options.items, mean=mean).log, name="generated"))  # fmt: skip
    recipe = bpr.Recipe(epochs=1, optimizer=Adam(lr=5e-3), penalty=bpr.Norms(), best=False)
    nobody = data.validation.subset(torch.arange(0))
    model = stage(stages, "proxy", lambda: dconrec.fit_proxy(data.train, nobody, generator, recipe=recipe)).model
    kept = stage(stages, "pool", lambda: dconrec.prepare(data.train, 0.25, proxy=model))
    objective = DConRec(data.train, data.validation, generator, estimator=FirstOrder(margin=0.01), outer=Adam(lr=0.02))
    steps = cd.iterate(kept, objective, objective.optimizer(kept), steps=options.steps)
    losses = stage(stages, "outer steps", lambda: [float(step.loss) for step in steps])
    log = kept.top(generator)
    artifact = LogArtifact(log, 0.25, len(data.train), Form.TOP, recipe, data.name, "dconrec", split=data.how)
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / "large.csv"
    stage(
        stages, "artifact and CSV", lambda: (artifact.save(path.with_suffix(".safetensors")), artifact.export_csv(path))
    )
    with path.open("rb") as file:
        exported = sum(1 for _ in file) - 1
    facts = {
        "name": "large",
        "users": data.num_users,
        "items": data.num_items,
        "train": len(data.train),
        "pool": len(kept.users),
        "steps": options.steps,
        "losses": losses,
        "rows": len(log),
        "exported": exported,
        "stages": stages,
        "peak_memory_mb": max(s["peak_memory_mb"] for s in stages.values()),
        **surroundings(options),
    }
    write_to(RESULTS / "recommendation-large.json", facts)
    print(json.dumps(facts))


def stage(stages: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    """Do one thing and note what it took."""
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    stages[name] = {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mb": round(peak()),
    }
    print(name, stages[name], flush=True)
    return found


# --- files
# ------------------------------------------------------------------------------------------------------------------


def folder_of(options: argparse.Namespace, name: str) -> Path:
    """Where a run keeps its log and snapshots."""
    folder = Path(options.work) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def facts_of(name: str, options: argparse.Namespace, recipe: bpr.Recipe) -> dict[str, Any]:
    """What a run is."""
    asked = ("dataset", "ratio", "method", "seed", "tag", "form", "on", "proxy_lr", "start")
    return {
        "name": name,
        **{key: getattr(options, key) for key in asked},
        "without": sorted(options.without),
        "evaluation": to_config(recipe),
        "watched": WATCHED,
        **surroundings(options),
    }


def to_plain(thing: Any) -> dict[str, Any]:
    """The plain options of a setting or an objective."""
    skipped = ("train", "validation", "generator")
    values = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init and f.name not in skipped}
    return {k: v if isinstance(v, int | float | bool | type(None)) else str(v) for k, v in values.items()}


def surroundings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "threads": options.threads,
        "hardware": {"processor": processor()},
        "versions": {"torch": torch.__version__, "condensery": cd.__version__},
    }


def write(name: str, facts: dict[str, Any]) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    write_to(TARGET / f"{name}.json", facts)


def write_to(path: Path, facts: dict[str, Any]) -> None:
    write_text(path, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
