"""Recommendation logs on the command line: what `condense`, `select`, `evaluate`, `compare` and others do for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condensery import catalog
from condensery.catalog import LOG_CORESETS, LOGS
from condensery.cli import alike, cells
from condensery.cli.console import Interrupted, again, duration, emit, note, progress, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from condensery.data.interactions import LogData
    from condensery.evaluate.topk import TopK
    from condensery.log_artifact import LogArtifact
    from condensery.log_runs import LogSource, Model, Tell
    from condensery.recipes.logs import LogPlan, Reading
    from condensery.runs import Folder, Watch

RATIO = 0.25
"""Share of a log that is kept where nothing else is asked for."""
_SHOWN = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
_JUDGE = "ndcg@10"


def load(path: Path) -> LogArtifact:
    """A condensed log from a file or a run's folder."""
    from condensery.log_artifact import LogArtifact

    return LogArtifact.load(alike.file_of(path))


# --- condense and select
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What was asked of a run.

    Attributes:
        data: The log as typed.
        method: The method or selection.
        ratio: Share to keep.
        overrides: Settings.
        root: Folder of a named log.
        seed: Of everything random but the split.
        device: Where to compute.
        out: The folder, or ``None`` for the default one.
    """

    data: str
    method: str
    ratio: float | None
    overrides: tuple[str, ...] = ()
    root: str | None = None
    seed: int = 0
    device: str = "auto"
    out: Path | None = None

    def plan(self) -> LogPlan:
        """Its settings."""
        from condensery.recipes import logs

        name = self.data.lower() if self.data.lower() in LOGS else self.data
        ratio = RATIO if self.ratio is None else self.ratio
        return logs.load(self.method, name, ratio, overrides=self.overrides)

    def source(self, reading: Reading) -> LogSource:
        """Its data."""
        from condensery.log_runs import LogSource

        return LogSource(self.data, self.root, reading)


def condense(asked: Asked, *, budget: float, watch: tuple[int, int, bool], resume: bool, as_json: bool) -> None:
    """``condensery condense`` for a log.

    Args:
        asked: What is wanted.
        budget: Share of the recipe's steps.
        watch: Steps between snapshots and between measurements, and whether TensorBoard files are written.
        resume: Whether to go on with the run that is there.
        as_json: Whether the result is printed as JSON.
    """
    from condensery import runs

    if asked.method.lower() in LOG_CORESETS:
        raise ValueError(
            f"{asked.method} is a selection, not a method; use: condensery select DATA --coreset {asked.method}."
        )
    whole = asked.plan()
    plan = whole.with_budget(budget)
    _announce(whole, plan)
    folder = runs.Folder(asked.out or _default_folder(plan, asked))
    every, looks, board = watch
    watching = runs.Watch(every, looks, tensorboard=board)
    artifact = condense_into(folder, plan, asked, watch=watching, resume=resume)
    report(artifact, folder, as_json=as_json)


def select(asked: Asked, *, as_json: bool) -> None:
    """``condensery select`` for a log."""
    from condensery import runs

    plan = asked.plan()
    folder = runs.Folder(asked.out or _default_folder(plan, asked))
    if folder.settings.is_file():
        raise ValueError(f"{folder.path} holds a set already; choose another --out.")
    report(select_into(folder, plan, asked), folder, as_json=as_json)


def condense_into(folder: Folder, plan: LogPlan, asked: Asked, *, watch: Watch, resume: bool) -> LogArtifact:
    """Do a run in a folder, or what is left of it, with progress bars."""
    from condensery import log_runs

    source = asked.source(plan.data)
    data = _open(source, asked.device)
    log_runs.check_budget(plan, data)
    folder.claim(log_runs.settings(plan, source, data, seed=asked.seed), resume=resume)
    if folder.finished:
        note(f"{folder.path} is finished already; nothing is left to do.")
        return load(folder.artifact)
    try:
        with _proxy_bar(0 if plan.proxy is None or not plan.needs_proxy else plan.proxy.epochs) as tell:
            proxy = log_runs.find_proxy(plan, data, folder, seed=asked.seed, tell=tell)
        if proxy is not None:
            _say_unseen(proxy.facts)
        run = log_runs.build(plan, data, seed=asked.seed, proxy=proxy)
        _say_size(run.synthetic.expected_size, plan, data)
        with progress(plan.steps, "steps", "starting") as bar:
            for done in log_runs.advance(run, folder, watch):
                loss = "" if done.loss is None else f"loss {done.loss:.4g}"
                seen = "" if done.validation is None else f"  validation NDCG@10 {100 * done.validation:.2f} %"
                bar.at(done.step, loss + seen)
        return log_runs.finish(run, folder, source)
    except KeyboardInterrupt:
        raise Interrupted(f"go on with: {again('--resume')}") from None


def select_into(folder: Folder, plan: LogPlan, asked: Asked) -> LogArtifact:
    """Select rows and write them into a folder."""
    from condensery import log_runs

    source = asked.source(plan.data)
    data = _open(source, asked.device)
    whole = plan.proxy.epochs if plan.proxy is not None and plan.needs_proxy else 0
    with _proxy_bar(int(plan.options.get("passes") or whole)) as tell:
        artifact = log_runs.select(plan, data, source, seed=asked.seed, tell=tell)
    _say_unseen(artifact.proxy)
    folder.claim(log_runs.settings(plan, source, data, seed=asked.seed), resume=True)
    artifact.save(folder.artifact)
    return artifact


def report(artifact: LogArtifact, folder: Folder, *, as_json: bool) -> None:
    """Say what was made and where it is."""
    more = {"ratio": artifact.ratio, "proxy": dict(artifact.proxy)}
    alike.report(artifact, folder, _size(artifact), "log", more, as_json=as_json)


def _open(source: LogSource, device: str) -> LogData:
    """The log, with what reading it left out said."""
    from condensery import log_runs, runs
    from condensery.cli.console import notes

    with notes().status(f"reading {source.spec}"):
        data = log_runs.open_log(source, device=runs.pick_device(device))
    for sentence in data.train.notes:
        note(sentence)
    return data


@contextmanager
def _proxy_bar(epochs: int) -> Iterator[Tell | None]:
    """A progress bar for a proxy, where one is trained."""
    if not epochs:
        yield None
        return
    with progress(epochs, "proxy epochs", "") as bar:

        def tell(epoch: int, score: float | str | None) -> None:
            scored = f"validation NDCG@10 {100 * score:.2f} %" if isinstance(score, float) else score
            bar.at(epoch, scored or "")

        yield tell


def _announce(whole: LogPlan, plan: LogPlan) -> None:
    note(f"{plan.title}: {'; '.join(plan.origin)}")
    if plan.budget != 1.0:
        note(f"budget {plan.budget:g}: {whole.steps} -> {plan.steps} steps")


def _say_unseen(facts: Mapping[str, Any]) -> None:
    """What the validation log said, where it was asked."""
    scores = facts.get("unseen_scores")
    if scores:
        tried = ", ".join(f"{100 * float(share):g} %: {100 * score:.2f}" for share, score in scores.items())
        note(f"{100 * facts['unseen']:g} % of the proxy's best are unseen, by validation NDCG@10 ({tried})")


def _say_size(expected: float, plan: LogPlan, data: LogData) -> None:
    """Before steps are paid: a form whose budget is exceeded says so."""
    asked = plan.ratio * len(data.train)
    if expected > 1.01 * asked:
        note(
            f"this form keeps {expected:,.0f} interactions at its start, {100 * expected / len(data.train):.1f} % of "
            f"the training log for {100 * plan.ratio:g} % asked; --set compensation=counted --set of_pool=false keeps "
            "within the budget"
        )


def _default_folder(plan: LogPlan, asked: Asked) -> Path:
    from condensery.log_runs import short

    return Path("runs") / f"{short(asked.data)}-{plan.method}-ratio{plan.ratio:g}-seed{asked.seed}"


def _size(artifact: LogArtifact) -> str:
    spent = artifact.spent
    pseudo = f", {spent['pseudo']:,} of them never recorded" if spent["pseudo"] else ""
    return (
        f"{spent['interactions']:,} of {artifact.full:,} interactions{pseudo} ({100 * artifact.share:.1f} % for "
        f"{100 * artifact.ratio:g} % asked)"
    )


# --- evaluate
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scoring:
    """How logs are scored.

    Attributes:
        n: Recommenders for each row.
        seed: Of the first.
        full: Whether there is a row of the whole training log.
        epochs: Passes, or ``None`` for the recipe's.
        budget: Share of the recipe's passes.
    """

    n: int = 5
    seed: int = 0
    full: bool = True
    epochs: int | None = None
    budget: float = 1.0

    def recipe(self, recipe: Any) -> Any:
        """A recipe with as many passes as wanted."""
        if self.epochs is not None:
            recipe = replace(recipe, epochs=self.epochs)
        if self.budget != 1.0:
            if not 0 < self.budget < float("inf"):
                raise ValueError(f"A budget of {self.budget} is no share; give a positive number such as 0.1.")
            recipe = replace(recipe, epochs=max(1, round(recipe.epochs * self.budget)))
        return recipe


def evaluate(path: Path, scoring: Scoring, where: alike.Where, *, nets: str | None, save: bool, as_json: bool) -> None:
    """``condensery evaluate`` for a condensed log.

    Args:
        path: Its file or its run's folder.
        scoring: How it is scored.
        where: On which data and device.
        nets: Recommenders, as `models_of` reads them.
        save: Whether the scores are written into the file too.
        as_json: Whether they are printed as JSON.
    """
    from condensery import log_runs

    artifact = load(path)
    opened = _open(source_of(artifact, where), where.device)
    log_runs.check_ids(artifact, opened)
    models = models_of(nets, artifact)
    recipe = scoring.recipe(artifact.recipe)
    try:
        rows = list(_rows(artifact, opened, models, recipe, scoring))
    except KeyboardInterrupt:
        raise Interrupted(f"nothing was left half-written; run again: {again()}") from None
    plain = with_recovery([{**row.to_json(), "ratio": artifact.ratio} for row in rows])
    scores = {"dataset": opened.name, "rows": plain}
    if save:
        replace(artifact, scores=scores).save(alike.file_of(path))
    if as_json:
        emit({**scores, "artifact": str(path), "recipe": describe(recipe)})
        return
    show(table_of(scores))
    say(f"All rows are trained alike: {describe(recipe)}.")


def _rows(artifact: LogArtifact, data: LogData, models: list[Model], recipe: Any, scoring: Scoring) -> Iterator[TopK]:
    """Rows of the log, of random ones of its realised size, and of the whole training log, for each model."""
    from condensery import log_runs

    log = artifact.log.to(data.train.device)
    parts: dict[str, Any] = {artifact.method: log, "random": log_runs.random_part(data, len(log))}
    sizes = {artifact.method: len(log), "random": len(log)}
    if scoring.full:
        parts["full log"], sizes["full log"] = data.train, len(data.train)
    with progress(len(models) * scoring.n * sum(sizes.values()), "", "training") as bar:
        for model in models:
            for name, part in parts.items():
                done = []
                for row in log_runs.trained_on(part, data, model, recipe, name=name, n=scoring.n, seed=scoring.seed):
                    done.append(row)
                    bar.add(sizes[name], f"{name}, {model.name}: NDCG@10 {100 * row.scores[_JUDGE].mean:.2f} %")
                yield log_runs.merged(done)


def source_of(artifact: LogArtifact, where: alike.Where) -> LogSource:
    """Where an artifact's log is: as recorded, or elsewhere, read in the same way.

    Raises:
        ValueError: If it is neither recorded nor given.
    """
    from condensery.log_runs import LogSource
    from condensery.recipes import logs

    spec, root, plain = alike.recorded(artifact, where, "log")
    return LogSource(spec, root, logs.reading(plain))


def models_of(names: str | None, artifact: LogArtifact) -> list[Model]:
    """Recommenders by name, as ``MF,LightGCN:layers=2``; default: matrix factorisation.

    Raises:
        ValueError: For one that there is not, or an argument that it does not take.
    """
    from condensery.log_runs import Model
    from condensery.recipes import values

    evaluation = artifact.options.get("evaluation")
    dim = evaluation.get("dim", 64) if isinstance(evaluation, Mapping) else 64
    there, models = {"MF": ("dim",), "LightGCN": ("dim", "layers")}, []
    for part in (names or "MF").split(","):
        name, *settings = part.strip().split(":")
        proper = catalog.find({n: n for n in there}, name, "recommender")
        given: dict[str, Any] = {"dim": int(dim)}
        for key, value in map(values.split, settings):
            if key not in there[proper]:
                raise ValueError(f"{proper} has no argument {key!r}; it takes {', '.join(there[proper])}.")
            given[key] = values.read(value, "int", key)
        if min(v for v in given.values()) < 1:
            raise ValueError(f"{part.strip()} is no recommender; give numbers of at least 1.")
        models.append(Model(proper, **given))
    return models


def with_recovery(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the share of the full log's mean that each metric reaches, and the summary of each score."""
    full = {row["model"]: row for row in rows if row["name"] == "full log"}
    out = []
    for row in rows:
        top = full.get(row["model"])
        share = None
        if top is not None:
            share = {
                k: _mean(v) / _mean(top["scores"][k]) if _mean(top["scores"][k]) else None
                for k, v in row["scores"].items()
            }
        out.append({**row, "recovery": share})
    return out


def table_of(scores: Mapping[str, Any], *, ratios: bool = False) -> Table:
    """A table of scores for people."""
    from rich.table import Table

    table = Table(title=f"Test scores on {scores['dataset']}, %", title_justify="left")
    headings = (*(["ratio"] if ratios else []), "trained on", "model", *(_heading(k) for k in _SHOWN))
    for heading in (*headings, f"share of full log\n({_heading(_JUDGE)})", "interactions", "time"):
        table.add_column(heading, justify="left" if heading in ("trained on", "model") else "right")
    before: Any = None
    for row in scores["rows"]:
        group = row["ratio"] if ratios else row["model"]
        if before not in (None, group):
            table.add_section()
        before = group
        ratio = [] if not ratios else ["all" if row["name"] == "full log" else f"{100 * row['ratio']:g} %"]
        share = (row["recovery"] or {}).get(_JUDGE)
        table.add_row(
            *ratio,
            row["name"],
            row["model"],
            *(_said(row["scores"][k]) for k in _SHOWN),
            "" if share is None else f"{100 * share:.1f} %",
            f"{row['size']['interactions']:,} ({100 * row['size']['share']:.1f} %)",
            duration(row["seconds"]),
        )
    return table


def describe(recipe: Any) -> str:
    """A recipe in a phrase."""
    batch = "full batches" if recipe.batch_size is None else f"batches of {recipe.batch_size:,}"
    stop = f"stopped early on validation NDCG@10 (patience {recipe.patience})"
    optimizer = f"{type(recipe.optimizer).__name__} {recipe.optimizer.lr:g}"
    passes = "1 pass" if recipe.epochs == 1 else f"{recipe.epochs} passes"
    return f"BPR, at most {passes}, {stop}, {batch}, {optimizer}"


def _heading(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{'NDCG' if name == 'ndcg' else name.capitalize()}@{k}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _said(values: list[float]) -> str:
    from condensery.evaluate.score import Score

    score = Score(tuple(values))
    spread = f" ± {100 * score.std:.2f}" if score.n > 1 else ""
    return f"{100 * score.mean:.2f}{spread} (n={score.n})"


# --- compare
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What all cells of a comparison share."""

    asked: Asked
    root: Path
    budget: float
    scoring: Scoring
    nets: str | None = None


def compare(asked: Asked, methods: str, ratios: str | None, scoring: Scoring, *, budget: float, as_json: bool) -> None:
    """``condensery compare`` for a log: methods x ratios, each cell in a folder of its own."""
    from condensery.log_runs import short
    from condensery.recipes import logs

    names = [catalog.log_entry(name.strip()).name for name in methods.split(",")]
    suited = cells.applicable(names, asked.overrides, logs.names)
    root = asked.out or Path("runs") / f"compare-{short(asked.data)}-seed{asked.seed}"
    name = asked.data.lower() if asked.data.lower() in LOGS else asked.data
    plans = [logs.load(method, name, ratio, overrides=suited[method]) for ratio in _numbers(ratios) for method in names]
    shared = Comparison(asked, root, budget, scoring)
    try:
        rows = with_recovery(list(_cells(plans, shared)))
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"finished cells are kept in {root}; go on with: {again()}") from None
    plain = {"dataset": short(asked.data), "folder": str(root), "rows": rows}
    if as_json:
        emit(plain)
        return
    show(table_of(plain, ratios=True))
    say(f"Logs: {root}. All rows are trained alike: {describe(scoring.recipe(plans[0].evaluation.recipe()))}.")


def _cells(plans: list[LogPlan], shared: Comparison) -> Iterator[dict[str, Any]]:
    """The rows of all logs, after each ratio those of random ones of the same sizes, then the full log's."""
    from condensery import log_runs

    opened: dict[str, LogData] = {}

    def data_of(plan: LogPlan) -> LogData:
        key = repr(plan.data)
        if key not in opened:
            opened[key] = _open(shared.asked.source(plan.data), shared.asked.device)
        return opened[key]

    for ratio in dict.fromkeys(plan.ratio for plan in plans):
        sizes: dict[int, tuple[int, LogPlan]] = {}
        for plan in (p for p in plans if p.ratio == ratio):
            row = _cell(plan, shared, data_of)
            if plan.method == "random":
                sizes[_percent(row)] = (0, plan)
            sizes.setdefault(_percent(row), (row["size"]["interactions"], plan))
            yield row
        for size, plan in sizes.values():
            if size:
                draw, key = log_runs.random_part(data_of(plan), size), {"random": size, "ratio": ratio}
                yield {**_scored(draw, plan, shared, data_of, "random", key), "ratio": ratio}
    if shared.scoring.full:
        plan = plans[0]
        yield {**_scored(None, plan, shared, data_of, "full log", {"full": True}), "ratio": 1.0}


def _percent(row: Mapping[str, Any]) -> int:
    """The realised size in whole per cent: logs of one size share the random row."""
    return round(100 * row["size"]["share"])


def _cell(whole: LogPlan, shared: Comparison, data_of: Callable[[LogPlan], LogData]) -> dict[str, Any]:
    """One log made and scored, or found finished."""
    from condensery import log_runs
    from condensery.runs import Folder, Watch

    plan = whole.with_budget(shared.budget)
    folder = Folder(shared.root / f"{plan.method}-ratio{plan.ratio:g}")
    if plan.is_coreset:
        source, seed = shared.asked.source(plan.data), shared.asked.seed
        artifact = cells.chosen(
            folder,
            lambda: log_runs.settings(plan, source, data_of(plan), seed=seed),
            load,
            lambda: select_into(folder, plan, shared.asked),
        )
    else:
        _announce(whole, plan)
        artifact = condense_into(folder, plan, shared.asked, watch=Watch(), resume=True)
    key = {"artifact": cells.digest(folder.artifact.read_bytes())}
    row = _scored(artifact.log, plan, shared, data_of, artifact.method, key, folder=folder)
    return {**row, "ratio": plan.ratio, "condensing_seconds": artifact.provenance["seconds"]}


def _scored(
    log: Any,
    plan: LogPlan,
    shared: Comparison,
    data_of: Callable[[LogPlan], LogData],
    name: str,
    key: Mapping[str, Any],
    *,
    folder: Folder | None = None,
) -> dict[str, Any]:
    """The row of a log (``None``: the whole training log), or found finished."""
    from condensery import log_runs
    from condensery.recipes.logs import BprTraining

    data, scoring = data_of(plan), shared.scoring
    evaluation: BprTraining = plan.evaluation
    recipe = scoring.recipe(evaluation.recipe())
    what = {**key, "name": name, "n": scoring.n, "seed": scoring.seed, "data": log_runs.digest_of(data)}
    what |= {"recipe": repr(recipe), "dim": evaluation.dim}
    path = shared.root / f"{name.replace(' ', '-')}-{cells.digest(what)}" if folder is None else folder.path
    found = cells.kept(path / "scores.json", what)
    if found is not None:
        return found
    part = data.train if log is None else log.to(data.train.device) if hasattr(log, "to") else log
    done = []
    with progress(scoring.n, "recommenders", name) as bar:
        for row in log_runs.trained_on(
            part, data, log_runs.Model("MF", evaluation.dim), recipe, name=name, n=scoring.n, seed=scoring.seed
        ):
            done.append(row)
            bar.at(len(done), f"{name}: NDCG@10 {100 * row.scores[_JUDGE].mean:.2f} %")
    plain = log_runs.merged(done).to_json()
    cells.keep(path / "scores.json", what, plain)
    return plain


def _numbers(text: str | None) -> list[float]:
    try:
        return [RATIO] if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--ratio takes numbers as 0.25,0.5, not {text!r}.") from None


# --- looking and exporting
# --------------------------------------------------------------------------------------------------------------------


def export(path: Path, to: str, out: Path) -> None:
    """``condensery export`` for a condensed log.

    Raises:
        ValueError: For a format of images, or a file that exists.
    """
    artifact = load(path)
    writers = {"csv": artifact.export_csv, "parquet": artifact.export_parquet, "inter": artifact.export_inter}
    if to not in writers:
        raise ValueError(f"{path} holds a condensed log, which {to} cannot; choose --to csv, parquet or inter.")
    if out.exists():
        raise ValueError(f"{out} exists already; choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    say(f"{writers[to](out)}: {len(artifact.log):,} interactions")


def no_picture(path: Path) -> None:
    """A condensed log is not drawn.

    Raises:
        ValueError: Always, naming what to do instead.
    """
    raise ValueError(
        f"{path} holds a condensed log, of which there is no picture; print it with condensery info {path}, or write "
        "its rows with condensery export."
    )


def facts(artifact: LogArtifact) -> dict[str, Any]:
    """Everything but the rows, as plain data."""
    from condensery import configs

    return {
        "method": artifact.method,
        "dataset": artifact.dataset,
        "ratio": artifact.ratio,
        "full": artifact.full,
        "spent": artifact.spent,
        "form": artifact.form.value,
        "recipe": configs.to_config(artifact.recipe),
        "options": dict(artifact.options),
        "seed": artifact.seed,
        "split": dict(artifact.split),
        "proxy": dict(artifact.proxy),
        "scores": dict(artifact.scores),
        "versions": dict(artifact.versions),
        "provenance": dict(artifact.provenance),
    }


def lines(artifact: LogArtifact) -> list[tuple[str, str]]:
    """A condensed log as people read it: names, and what there is to say of each."""
    source, spent = artifact.provenance.get("data"), artifact.spent
    said = [
        *alike.heading(artifact),
        ("interactions", f"{_size(artifact)}, {spent['distinct']:,} distinct"),
        ("of", f"{spent['users']:,} users and {spent['items']:,} items"),
        ("form", artifact.form.value),
        ("evaluation", describe(artifact.recipe)),
        ("split", alike.phrase(artifact.split)),
    ]
    said += [(name, alike.phrase(part)) for name, part in artifact.options.items() if isinstance(part, Mapping)]
    said += (
        [("reading", alike.phrase({k: v for k, v in source.items() if k not in ("spec", "root")}))] if source else []
    )
    said += [("proxy trained", alike.phrase(artifact.proxy))] if artifact.proxy else []
    return [*said, *alike.ending(artifact)]


def old_scores(scores: Mapping[str, Any]) -> Table:
    """The scores that a file carries.

    Raises:
        ValueError: If they are not in this version's form.
    """
    return alike.old_scores(scores, table_of, "log")
