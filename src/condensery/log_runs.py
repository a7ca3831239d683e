"""A condensed log on disk: a plan and a log become an artifact in a folder; a run that was killed goes on from there.

>>> import tempfile
>>> from condensery.recipes import logs
>>> plan = logs.load("dconrec", "generated-log", 0.25, overrides=["steps=2", "proxy.epochs=2"])
>>> source = LogSource("generated-log", reading=plan.data)
>>> data = open_log(source)
>>> folder = Folder(Path(tempfile.mkdtemp()) / "run")
>>> folder.claim(settings(plan, source, data, seed=0))
>>> run = build(plan, data, seed=0, proxy=find_proxy(plan, data, folder, seed=0))
>>> [progress.step for progress in advance(run, folder)]
[1, 2]
>>> finish(run, folder, source).ratio
0.25
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from condensery import bpr, catalog
from condensery.condensed_log import Compensation, Interactions
from condensery.coresets import interactions as selections
from condensery.data import interaction_files
from condensery.data.interactions import Log, LogData, leave_one_out, split_by_time, split_by_user
from condensery.evaluate.score import Score
from condensery.evaluate.topk import Build, TopK, top_k
from condensery.log_artifact import Form, LogArtifact
from condensery.loop import Objective
from condensery.methods import dconrec
from condensery.methods.doscond_rec import DosCondRec
from condensery.nets.recommender import MF, LightGCN, Recommender
from condensery.ranking import Validation
from condensery.recipes.logs import DConRecOptions, LogPlan, Reading
from condensery.runs import Folder, Progress, Watch, flatten, follow, generators, made_from, spent_on
from condensery.store import DamagedFile, load_tree, save_tree

_PROXY = "condensery-proxy"
_READ_RATING = "The log has no ratings to compare with min_rating; leave min_rating out, or name the rating_column."


# --- the log
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogSource:
    """What log, in plain values.

    Attributes:
        spec: A log's name or a path: a table (CSV, TSV, ``.inter``, parquet, ``u.data``; gzipped or not), or a folder
            with ``u.data`` or with LightGCN's two files.
        root: The folder that holds a named log's files, or ``None`` to look in the usual places.
        reading: How it is read and split.
    """

    spec: str
    root: str | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def short(self) -> str:
        """A name fit for a folder's name."""
        return short(self.spec)

    def to_json(self) -> dict[str, Any]:
        """Plain data; a path is written in full, so that it is found from anywhere."""
        spec = self.spec.lower() if self.spec.lower() in catalog.LOGS else str(Path(self.spec).resolve())
        return {"spec": spec, "root": self.root, **asdict(self.reading)}


def short(spec: str) -> str:
    """A log's name, or that of its file without endings, fit for a folder's name.

    Example:
        >>> short("Generated-Log"), short("data/my ratings.csv.gz")
        ('generated-log', 'my-ratings')
    """
    if spec.lower() in catalog.LOGS:
        return spec.lower()
    path = Path(spec).resolve()
    stem = path.name if path.is_dir() else path.name.removesuffix(".gz").rpartition(".")[0]
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem or path.name) or "log"


def open_log(source: LogSource, *, device: torch.device | str = "cpu") -> LogData:
    """The log, filtered and split, on the device.

    Raises:
        ValueError: If there is no such log, it cannot be read, or nothing remains of it; the message names the fix.
    """
    spec, how = source.spec, source.reading
    if spec.lower() not in catalog.LOGS and source.root is not None:
        raise ValueError(f"The data root is for logs with a name, which {spec!r} is not; leave it out.")
    if spec.lower() not in catalog.LOGS and Path(spec).is_dir() and not (Path(spec) / "u.data").is_file():
        data = _split_already(spec, how)
    else:
        if how.split == "given":
            raise ValueError(f"{spec} is one log without a split of its own; choose another split, such as random.")
        data = _split(_narrowed(_whole(source), how), how, source.short)
    _check(data)
    return data.to(device)


def digest_of(data: LogData) -> str:
    """What a split log holds: it changes if any row, id or part does."""
    digest = hashlib.blake2b(digest_size=16)
    for log in (data.train, data.validation, data.test):
        digest.update(f"{log.num_users} {log.num_items} {len(log)} ".encode())
        digest.update(log.keys.cpu().contiguous().numpy().data)
    for ids in (data.train.user_ids, data.train.item_ids):
        digest.update("\n".join(map(str, ids.tolist())).encode())
    return digest.hexdigest()


def _whole(source: LogSource) -> Log:
    spec, how = source.spec, source.reading
    if spec.lower() in catalog.LOGS:
        log: Log = catalog.LOGS[spec.lower()].load(source.root)
        return log
    path = Path(spec)
    path = path / "u.data" if path.is_dir() else path
    if not path.is_file():
        hint = catalog.did_you_mean(spec, catalog.LOGS)
        raise ValueError(f"There is no log or path {spec!r}{hint}; `condensery datasets` lists the names.")
    columns = interaction_files.Columns(
        _column(how.user_column), _column(how.item_column), _column(how.rating_column), _column(how.time_column)
    )
    try:
        return interaction_files.read_log(
            path,
            columns=columns,
            skip_malformed=how.skip_malformed,
            repeats=interaction_files.Repeats(how.repeats),
        )
    except ValueError as error:
        raise ValueError(_for_settings(str(error))) from error


def _for_settings(sentence: str) -> str:
    """A reader's sentence with the names that a command line knows."""
    renamed = {
        "skip_malformed=True": "--set skip_malformed=true",
        "as in Columns(user=0, item=1)": "as in --set user_column=0 --set item_column=1",
        "as in Columns(...)": "as in --set user_column=NAME",
        "with repeats=.": "with --set repeats=last.",
    }
    for old, new in renamed.items():
        sentence = sentence.replace(old, new)
    return sentence


def _column(text: str) -> str | int | None:
    if text.lower() == "auto":
        return None
    return int(text) if text.isdecimal() else text


def _narrowed(log: Log, how: Reading) -> Log:
    """The rows rated well enough of users and items that have enough."""
    if how.min_rating is not None:
        if log.rating is None:
            raise ValueError(_READ_RATING)
        log = log.at_least(how.min_rating)
        if len(log) == 0:
            raise ValueError(f"No row is rated {how.min_rating:g} or more; lower min_rating.")
        log = log.compact()
    return log if how.core is None else log.core(how.core)


def _split(log: Log, how: Reading, name: str) -> LogData:
    shares, seed = {"validation": how.validation, "test": how.test}, how.split_seed
    if how.split == "leave-one-out":
        return leave_one_out(log, seed=seed, by_time=log.time is not None, name=name)
    if how.split in ("time", "latest") and log.time is None:
        raise ValueError(f"{name} has no times to split by; set split=random, or name the time_column.")
    if how.split == "time":
        return split_by_time(log, **shares, name=name)
    return split_by_user(log, **shares, seed=seed, by_time=how.split == "latest", name=name)


def _split_already(spec: str, how: Reading) -> LogData:
    """A folder in LightGCN's layout."""
    changed = [n for n in ("min_rating", "core") if getattr(how, n) is not None]
    changed += ["split"] if how.split not in (None, "given") else []
    if changed:
        raise ValueError(f"{spec} is split into training and test files already; leave {changed[0]} out.")
    return interaction_files.lightgcn(spec, validation=how.validation, seed=how.split_seed)


def _check(data: LogData) -> None:
    for part, name in ((data.train, "train on"), (data.validation, "validate on"), (data.test, "test on")):
        if len(part) == 0:
            raise ValueError(f"{data.name} leaves nothing to {name}; choose another split, or give a larger log.")


# --- a run
# --------------------------------------------------------------------------------------------------------------------


class Proxy(NamedTuple):
    """A trained proxy.

    Attributes:
        model: The recommender.
        facts: How good it is and what it took, plain data.
    """

    model: MF
    facts: dict[str, Any]


Tell = Callable[[int, float | str | None], None]
"""Called after each epoch of a proxy with its number and its score, if it has one; at last with what is done next."""


@dataclass
class LogRun:
    """A run in memory, ready for its first or next step.

    Attributes:
        plan: What is to be done.
        data: The split log, on the device.
        seed: Of everything random but the split.
        synthetic: The probabilities of the pool's rows.
        objective: The method.
        optimizer: Over the probabilities.
        proxy: What the proxy was and how good, plain data.
    """

    plan: LogPlan
    data: LogData
    seed: int
    synthetic: Interactions
    objective: Objective
    optimizer: torch.optim.Optimizer
    proxy: Mapping[str, Any]

    @property
    def result(self) -> Log:
        """The log as it would be kept now: the same at each look."""
        generator = generators(self.seed, 3)[2]
        assert self.plan.run is not None, "a run has steps"
        top = self.plan.run.keep == "top"
        return self.synthetic.top(generator) if top else self.synthetic.sampled(generator)


def settings(plan: LogPlan, source: LogSource, data: LogData, *, seed: int) -> dict[str, Any]:
    """What makes a run another one if it changes, as plain data."""
    plain = plan.to_json()
    plain.pop("origin")
    where = {"data": source.to_json(), "log": digest_of(data), "seed": seed, "device": data.train.device.type}
    return {"plan": plain, **where}


def check_budget(plan: LogPlan, data: LogData) -> None:
    """Before anything is trained: the rows that are always kept are not more than the budget that counts them.

    Raises:
        ValueError: If they are.
    """
    counted = plan.pool and plan.pool["compensation"] == "counted" and plan.pool["tail_of"] == "train"
    if not counted or plan.pool["of_pool"]:
        return
    threshold, budget = int(plan.pool["threshold"] or 0), plan.ratio * len(data.train)
    kept = int(dconrec.tail(data.train, threshold).sum())
    if kept > budget:
        raise ValueError(
            f"Users with fewer than {threshold} rows have {kept:,}, all of them always kept, and the ratio leaves "
            f"{budget:,.0f}; raise the ratio, or set a lower threshold (0 for none) or compensation=added."
        )


def find_proxy(
    plan: LogPlan, data: LogData, folder: Folder, *, seed: int = 0, tell: Tell | None = None
) -> Proxy | None:
    """The proxy of a run: what its folder has, or trained and written there; ``None`` where none is needed.

    Args:
        plan: What is to be done.
        data: The split log.
        folder: Claimed for the run.
        seed: The run's.
        tell: Called after each epoch.
    """
    if not plan.needs_proxy or plan.proxy is None:
        return None
    path = folder.path / "proxy.safetensors"
    belongs = {**flatten(asdict(plan.proxy)), "log": digest_of(data), "seed": seed, "device": data.train.device.type}
    if plan.asks_validation:
        belongs |= {"ratio": plan.ratio, **flatten(asdict(plan.evaluation), "eval.")}
    found = _stored_proxy(path, belongs, data, plan.proxy.dim)
    if found is not None:
        return found
    proxy = _asked(plan, data, _trained_proxy(plan, data, seed, tell), seed, tell)
    save_tree(path, {"belongs": belongs, "table": proxy.model.table, "facts": proxy.facts}, kind=_PROXY, version=1)
    return proxy


def build(plan: LogPlan, data: LogData, *, seed: int = 0, proxy: Proxy | None = None) -> LogRun:
    """Make the parts of a run.

    Args:
        plan: Of a method, not of a selection.
        data: On the device where the run is to be.
        seed: Gives one generator to the proxy, one to the method and one to the result.
        proxy: From `find_proxy`.

    Raises:
        ValueError: If the plan does not fit the log.
    """
    generator, pool = generators(seed, 3)[1], plan.pool
    words = {
        "tail_of": dconrec.TailOf(str(pool["tail_of"])),
        "compensation": Compensation(str(pool["compensation"])),
        "begin": dconrec.Begin(str(pool["begin"])),
    }
    unseen = proxy.facts.get("unseen") if proxy is not None and plan.asks_validation else plan.unseen
    setting = dconrec.Setting(**{**pool, **words}, unseen=unseen)  # type: ignore[arg-type]
    model = None if proxy is None else proxy.model
    synthetic = dconrec.prepare(data.train, plan.ratio, setting=setting, proxy=model, generator=generator)
    objective: dconrec.DConRec | DosCondRec
    if plan.method == "dconrec":
        assert plan.inner is not None, "DConRec has an inner training"
        options = DConRecOptions(**plan.options)  # type: ignore[arg-type]
        inner = {"inner": plan.inner.recipe(), "dim": plan.inner.dim}
        objective = dconrec.DConRec(data.train, data.validation, generator, **options.settings(), **inner)
    else:
        objective = DosCondRec(data.train, generator, **plan.options)  # type: ignore[arg-type]
    facts = {} if proxy is None else proxy.facts
    return LogRun(plan, data, seed, synthetic, objective, objective.optimizer(synthetic), facts)


def advance(run: LogRun, folder: Folder, watch: Watch | None = None) -> Iterator[Progress]:
    """Go on from the folder's last snapshot, or from the start, to the last step.

    Raises:
        NotFinite: If the method diverges; the snapshots stay.
        ValueError: If the snapshots are unusable.
    """
    yield from follow(run, folder, watch or Watch(), validate=lambda: validation_ndcg(run))


def finish(run: LogRun, folder: Folder, source: LogSource) -> LogArtifact:
    """Write the artifact: the last file, because it says that the run is finished."""
    how = {**spent_on(folder, run.plan.steps), "expected": run.synthetic.expected_size}
    assert run.plan.run is not None, "a run has steps"
    form = Form.TOP if run.plan.run.keep == "top" else Form.SAMPLED
    artifact = _artifact(run.plan, run.data, run.result, source, form=form, seed=run.seed, how=how, proxy=run.proxy)
    artifact.save(folder.artifact)
    return artifact


def select(plan: LogPlan, data: LogData, source: LogSource, *, seed: int = 0, tell: Tell | None = None) -> LogArtifact:
    """Select rows as a plan says: of the training log, or what a proxy thinks best.

    Args:
        plan: Of a selection.
        data: The split log.
        source: Where it comes from, written down.
        seed: Gives one generator to a proxy and one to the choice.
        tell: Called after each epoch of a proxy.
    """
    start, facts = time.perf_counter(), dict[str, Any]()
    for_proxy, generator = generators(seed, 2)
    budget = round(plan.ratio * len(data.train))
    if plan.method == "proxy-best":
        proxy = _asked(plan, data, _trained_proxy(plan, data, seed, tell), seed, tell)
        unseen = proxy.facts["unseen"] if plan.asks_validation else plan.unseen
        assert unseen is not None, "the share is given or asked for"
        log = dconrec.proxy_best(data.train, proxy.model, budget, generator=generator, unseen=unseen)
        how = {"steps": 0, "seconds": time.perf_counter() - start, "loss": None}
        return _artifact(plan, data, log, source, form=Form.SELECTED, seed=seed, how=how, proxy=proxy.facts)
    if plan.method == "majority":
        index = selections.majority(data.train, budget, generator=generator, head=bool(plan.options["head"]))
    elif plan.method == "svp":
        index, facts = _via_proxy(plan, data, budget, for_proxy, generator, tell)
    else:
        index = selections.random(data.train, budget, generator=generator)
    log = replace(data.train.subset(index), rating=None, time=None)
    how = {"steps": 0, "seconds": time.perf_counter() - start, "loss": None}
    return _artifact(
        plan, data, log, source, form=Form.SELECTED, seed=seed, how=how, proxy=facts, indices=index.to("cpu")
    )


def validation_ndcg(run: LogRun) -> float:
    """NDCG@10 on the validation log of a recommender trained on the log as it is; the run is not touched."""
    log, (generator,) = run.result, generators(run.seed, 1)
    if len(log) == 0:
        return 0.0
    model = MF(log.num_users, log.num_items, run.plan.evaluation.dim).to(log.device)
    model.reset_parameters(generator)
    watch = Validation(run.data.train, run.data.validation)
    bpr.fit(model, log, run.plan.evaluation.recipe(), generator, score=watch)
    return watch(model)


def _artifact(
    plan: LogPlan,
    data: LogData,
    log: Log,
    source: LogSource,
    *,
    form: Form,
    seed: int,
    how: Mapping[str, Any],
    proxy: Mapping[str, Any],
    indices: torch.Tensor | None = None,
) -> LogArtifact:
    if len(log) == 0:
        raise ValueError(f"Nothing remains of {data.name}; raise the ratio.")
    plain, named = plan.to_json(), made_from(plan, data.train.device, source.to_json())
    unrecorded = ~data.train.contains(log.users, log.items)
    return LogArtifact(
        log=log.to("cpu"),
        ratio=plan.ratio,
        full=len(data.train),
        form=form,
        recipe=plan.evaluation.recipe(),
        dataset=data.name,
        method=plan.title,
        options={k: plain[k] for k in ("options", "run", "pool", "inner", "proxy", "evaluation") if plain[k]},
        seed=seed,
        split=data.how,
        proxy=dict(proxy),
        pseudo=int(unrecorded.sum()),
        indices=indices,
        provenance={**how, **named},
    )


# --- proxies
# --------------------------------------------------------------------------------------------------------------------


def _stored_proxy(path: Path, belongs: Mapping[str, Any], data: LogData, dim: int) -> Proxy | None:
    """The proxy in a file, ``None`` where there is none or one of other settings: it is then trained."""
    if not path.is_file():
        return None
    try:
        tree = load_tree(path, kind=_PROXY, version=1)
    except DamagedFile:
        return None
    if tree["belongs"] != belongs:
        return None
    model = MF(data.num_users, data.num_items, dim)
    with torch.no_grad():
        model.table.copy_(tree["table"])
    return Proxy(model.to(data.train.device), tree["facts"])


def _trained_proxy(plan: LogPlan, data: LogData, seed: int, tell: Tell | None) -> Proxy:
    assert plan.proxy is not None, "a proxy is needed"
    generator, recipe = generators(seed, 3)[0], plan.proxy.recipe()
    model = MF(data.num_users, data.num_items, plan.proxy.dim)
    model.reset_parameters(generator)
    watch, epoch = Validation(data.train, data.validation), 0

    def score(recommender: Recommender) -> float:
        nonlocal epoch
        value, epoch = watch(recommender), epoch + recipe.every
        if tell is not None:
            tell(epoch, value)
        return value

    trained = bpr.fit(model.to(data.train.device), data.train, recipe, generator, score=score)
    facts = {"ndcg@10": trained.best_score if recipe.best else trained.score, "epochs": trained.epoch}
    return Proxy(model, {**facts, "dim": plan.proxy.dim, "seconds": trained.seconds})


def _asked(plan: LogPlan, data: LogData, proxy: Proxy, seed: int, tell: Tell | None) -> Proxy:
    """The proxy with the share of its best that should be unseen, where the plan asks the validation log."""
    if not plan.asks_validation:
        return proxy
    if tell is not None:
        tell(int(proxy.facts["epochs"]), "trained; validation chooses how much is to be unseen")
    start = time.perf_counter()
    chosen = dconrec.choose_unseen(
        data.train,
        data.validation,
        proxy.model,
        round(plan.ratio * len(data.train)),
        generators(seed, 4)[3],
        recipe=plan.evaluation.recipe(),
        dim=plan.evaluation.dim,
    )
    scores = {f"{share:g}": score for share, score in chosen.scores.items()}
    found = {"unseen": chosen.share, "unseen_scores": scores, "unseen_seconds": time.perf_counter() - start}
    return Proxy(proxy.model, {**proxy.facts, **found})


def _via_proxy(
    plan: LogPlan,
    data: LogData,
    budget: int,
    for_proxy: torch.Generator,
    generator: torch.Generator,
    tell: Tell | None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The rows that a proxy found hardest, and what the proxy was."""
    assert plan.proxy is not None, "svp has a proxy"
    options, train = plan.options, data.train
    model = MF(data.num_users, data.num_items, plan.proxy.dim)
    model.reset_parameters(for_proxy)
    recipe = replace(plan.proxy.recipe(), epochs=int(options["passes"] or 1))
    passes = bpr.training(model.to(train.device), train, recipe, for_proxy)
    importance = selections.inverted_auc(
        train,
        _told(passes, tell),
        bpr.Negatives(data.num_items, train).draw,
        generator,
        negatives=int(options["negatives"] or 1),
    )
    index = selections.svp(
        train,
        budget,
        importance,
        generator=generator,
        level=selections.Level(str(options["level"])),
        propensity=bool(options["propensity"]),
    )
    return index, {"epochs": recipe.epochs, "dim": plan.proxy.dim}


def _told(passes: Iterator[bpr.Trained], tell: Tell | None) -> Iterator[bpr.Trained]:
    for trained in passes:
        if tell is not None:
            tell(trained.epoch, None)
        yield trained


# --- scores
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A kind of recommender.

    Attributes:
        name: ``"MF"`` or ``"LightGCN"``.
        dim: Size of the vectors.
        layers: LightGCN's.
    """

    name: str = "MF"
    dim: int = 64
    layers: int = 3

    @property
    def build(self) -> Build:
        """Makes one for a log; LightGCN's graph is that log."""
        if self.name == "MF":
            return lambda log: MF(log.num_users, log.num_items, self.dim)
        return lambda log: LightGCN(
            log.num_users, log.num_items, torch.stack([log.users, log.items]), self.dim, self.layers
        )


def trained_on(
    log: Log | Callable[[torch.Generator], Log],
    data: LogData,
    model: Model,
    recipe: bpr.Recipe,
    *,
    name: str,
    n: int,
    seed: int = 0,
) -> Iterator[TopK]:
    """Train n recommenders on a log, one after the other; the rows together are one of a table (`merged`).

    Args:
        log: What is trained on, or what draws a log for each recommender.
        data: The split that validates and tests.
        model: The kind of recommender.
        recipe: How each is trained.
        name: For the table.
        n: How many.
        seed: Of the first recommender; the next have the next numbers.
    """
    draws = generators(seed, n)
    for number in range(n):
        drawn = log if isinstance(log, Log) else log(draws[number])
        yield top_k(drawn, data, build=model.build, recipe=recipe, seeds=(seed + number,), name=name)


def random_part(data: LogData, size: int) -> Callable[[torch.Generator], Log]:
    """Draws random rows of the training log, as many as another log has, or all where that has more."""
    size = min(size, len(data.train))
    return lambda generator: data.train.subset(selections.random(data.train, size, generator=generator))


def merged(rows: Sequence[TopK]) -> TopK:
    """Rows of one recommender each as one row."""
    first = rows[0]
    scores = {key: Score(tuple(v for row in rows for v in row.scores[key].values)) for key in first.scores}
    size = {key: sum(row.size[key] for row in rows) / len(rows) for key in first.size}
    size = {key: value if key == "share" else round(value) for key, value in size.items()}
    return TopK(
        first.name,
        first.model,
        scores,
        Score(tuple(v for row in rows for v in row.validation.values)),
        size,
        sum(row.seconds for row in rows),
        sum(row.triples_per_second for row in rows) / len(rows),
        sum(row.users_per_second for row in rows) / len(rows),
    )


def check_ids(artifact: LogArtifact, data: LogData) -> None:
    """That a condensed log is numbered as a split is.

    Raises:
        ValueError: If it is not.
    """
    ours, theirs = artifact.log, data.train
    pairs = ((ours.user_ids, theirs.user_ids), (ours.item_ids, theirs.item_ids))
    same = [[str(a) for a in one.tolist()] == [str(b) for b in other.tolist()] for one, other in pairs]
    if not all(same) or artifact.full != len(theirs):
        raise ValueError(
            f"The condensed log is of {artifact.full} training rows of {ours.num_users} users and {ours.num_items} "
            f"items, {data.name} has {len(theirs)} of {theirs.num_users} and {theirs.num_items}; give with --data "
            "the log that it was made from."
        )
