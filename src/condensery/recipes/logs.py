"""Settings of condensed recommendation logs: for a method and a log, a `LogPlan`.

As with images (see the package), rules of a file are laid over each other and then the user's own settings; the
sections differ, because a log has no classes and no network to match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any

from condensery import catalog
from condensery.recipes import rules, values
from condensery.recipes.values import (
    ByValidation,
    EstimatorName,
    Keep,
    Level,
    LogSplit,
    OptimizerName,
    PenaltyName,
    RepeatsName,
    Value,
)


@dataclass(frozen=True)
class Reading:
    """How a log is read and split.

    Attributes:
        min_rating: Rows rated lower are left out: explicit ratings as implicit feedback; ``None`` keeps all.
        core: Users and items with fewer rows are left out until there are none (k-core); ``None`` keeps all.
        split: Of each user's rows random ones are held out, or the latest, or one to validate and one to test (the
            latest where the log has times); or the latest rows of all; or as the files are split already.
        validation: Share of each user's rows, or of all, that validates.
        test: Share that is tested on.
        split_seed: Of the split.
        repeats: Which row of a repeated pair counts.
        skip_malformed: Whether malformed rows are left out rather than refused.
        user_column: The column of user ids, by name or, from 0, by place; ``auto`` finds it.
        item_column: Of item ids.
        rating_column: Of ratings.
        time_column: Of times.
    """

    min_rating: float | None = None
    core: int | None = None
    split: LogSplit | None = None
    validation: float = 0.1
    test: float = 0.1
    split_seed: int = 0
    repeats: RepeatsName = "last"
    skip_malformed: bool = False
    user_column: str = "auto"
    item_column: str = "auto"
    rating_column: str = "auto"
    time_column: str = "auto"

    def __post_init__(self) -> None:
        if self.core is not None and self.core < 1:
            raise ValueError(f"core is {self.core}; give the rows that each user and item has at least, or none.")
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 1:
            raise ValueError(
                f"validation is {self.validation:g} and test {self.test:g}; give shares above 0 that sum below 1."
            )


@dataclass(frozen=True)
class LogStart:
    """How long a run is and what becomes of its probabilities.

    Attributes:
        steps: Outer steps.
        keep: Each row with its probability, so that the size varies by chance, or the most probable rows, exactly as
            many as the budget has.
    """

    steps: int = 100
    keep: Keep = "sampled"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; give 1 or more.")


@dataclass(frozen=True)
class BprTraining:
    """How a recommender is trained: `bpr.Recipe` in plain words, and the size of its vectors."""

    dim: int = 64
    epochs: int = 300
    batch_size: int | None = 4096
    optimizer: OptimizerName = "adam"
    lr: float = 1e-3
    penalty: PenaltyName | None = "squares"
    weight: float = 1e-4
    reject: bool = True
    every: int = 1
    patience: int = 10
    best: bool = False

    def __post_init__(self) -> None:
        if min(self.dim, 1 if self.batch_size is None else self.batch_size) < 1:
            raise ValueError(f"dim is {self.dim} and batch_size {self.batch_size}; give numbers of at least 1.")
        if self.lr <= 0 or self.weight < 0:
            raise ValueError(
                f"lr is {self.lr:g} and weight {self.weight:g}; give a rate above 0 and a weight of at least 0."
            )

    def recipe(self) -> Any:
        """The `bpr.Recipe`.

        Raises:
            ValueError: If a value makes no sense.
        """
        bpr, fitting = import_module("condensery.bpr"), import_module("condensery.fitting")
        penalties = {"squares": bpr.Squares, "norms": bpr.Norms}
        return bpr.Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=_optimizer(fitting, self.optimizer, self.lr),
            penalty=None if self.penalty is None else penalties[self.penalty](self.weight),
            reject=self.reject,
            every=self.every,
            patience=self.patience,
            best=self.best,
        )


@dataclass(frozen=True)
class DConRecOptions:
    """DConRec's estimator and outer loop in plain words.

    Attributes:
        estimator: `FirstOrder`, which is this library's, or the policy gradient: with this library's variance
            reduction, as the paper has it, or as the authors' code does. Each brings values of the others.
        samples: Masks in a step.
        leave_one_out: Whether the other masks' mean loss is the baseline.
        antithetic: Whether masks come in opposite pairs.
        common: Whether all masks meet the same initial vectors and negatives.
        margin: Masks are drawn with probabilities at least this far from 0 and 1.
        outer: What moves the probabilities.
        lr: Its learning rate.
        decay_every: Steps between falls of that rate; ``None``: it stays.
        decay_factor: What it is divided by.
        decay_least: Where it stays.
        accumulate: Whether each step descends by the sum of all gradients so far.
        unseen: Share of the start that nobody recorded, where it is at the proxy's best; ``"validation"``: the one of
            0, 1/4 and 1/2 whose rows train the recommender that validates best.
    """

    estimator: EstimatorName = "first-order"
    samples: int = 1
    leave_one_out: bool = False
    antithetic: bool = False
    common: bool = False
    margin: float = 0.0
    outer: OptimizerName = "adam"
    lr: float = 0.01
    decay_every: int | None = None
    decay_factor: float = 10.0
    decay_least: float = 1e-4
    accumulate: bool = False
    unseen: float | ByValidation = "validation"

    def __post_init__(self) -> None:
        _check_unseen(self.unseen)
        if self.estimator == "first-order" and (self.leave_one_out or self.antithetic or self.common):
            raise ValueError(
                "The first-order estimator has no baseline, pairs or common numbers; leave leave_one_out, antithetic "
                "and common out, or set estimator=reinforce."
            )
        if self.lr <= 0 or (self.decay_every or 1) < 1 or self.decay_factor <= 0:
            raise ValueError(
                f"lr is {self.lr:g}, decay_every {self.decay_every} and decay_factor {self.decay_factor:g}; give "
                "numbers above 0."
            )

    def settings(self) -> dict[str, Any]:
        """The arguments of `methods.dconrec.DConRec`, but for the inner training.

        Raises:
            ValueError: If a value makes no sense.
        """
        dconrec, fitting = import_module("condensery.methods.dconrec"), import_module("condensery.fitting")
        if self.estimator == "first-order":
            estimator = dconrec.FirstOrder(self.samples, margin=self.margin)
        else:
            estimator = import_module("condensery.masks").Reinforce(
                self.samples, self.leave_one_out, self.antithetic, self.common, self.margin
            )
        decay = None
        if self.decay_every is not None:
            decay = dconrec.Decay(self.decay_every, self.decay_factor, self.decay_least)
        outer = _optimizer(fitting, self.outer, self.lr)
        return {"estimator": estimator, "outer": outer, "decay": decay, "accumulate": self.accumulate}


@dataclass(frozen=True)
class RandomOptions:
    """A random selection has no settings."""


@dataclass(frozen=True)
class MajorityOptions:
    """Which users' rows are taken.

    Attributes:
        head: Those with the most rows instead of the fewest.
    """

    head: bool = False


@dataclass(frozen=True)
class SvpOptions:
    """What is selected via a proxy.

    Attributes:
        level: Single rows, or users with all of theirs.
        propensity: Whether the importance is weighted with the inverse propensity (SVP-CF-Prop).
        negatives: Items drawn for each row and epoch.
        passes: Epochs that the proxy is trained for.
    """

    level: Level = "interaction"
    propensity: bool = False
    negatives: int = 1
    passes: int = 30

    def __post_init__(self) -> None:
        if min(self.negatives, self.passes) < 1:
            raise ValueError(f"negatives is {self.negatives} and passes {self.passes}; give 1 or more.")


@dataclass(frozen=True)
class ProxyBestOptions:
    """What a proxy thinks best.

    Attributes:
        unseen: Share of the budget for items that a user does not have; ``"validation"``: the one of 0, 1/4 and 1/2
            whose rows train the recommender that validates best.
    """

    unseen: float | ByValidation = "validation"

    def __post_init__(self) -> None:
        _check_unseen(self.unseen)


def _check_unseen(unseen: float | ByValidation) -> None:
    if not isinstance(unseen, str) and not 0 <= unseen <= 1:
        raise ValueError(f"unseen is {unseen:g}; give a share between 0 and 1, or validation.")


_OPTIONS: dict[str, type] = {
    "dconrec": DConRecOptions,
    "random": RandomOptions,
    "majority": MajorityOptions,
    "svp": SvpOptions,
    "proxy-best": ProxyBestOptions,
}
_SHARED = ("random", "majority", "svp")  # selections whose recipe is that of all logs
_PREFIXES = {
    "method": "",
    "run": "",
    "pool": "",
    "data": "",
    "inner": "inner.",
    "proxy": "proxy.",
    "evaluation": "eval.",
}
_NOT_OF_POOL = ("unseen",)  # of the method: what it means depends on the start
_INNER = ("dim", "epochs", "batch_size", "optimizer", "lr", "penalty", "weight", "reject")


@dataclass(frozen=True)
class LogPlan:
    """Everything that decides a run but the log and the seed, as plain values.

    Attributes:
        method: The name of the method or selection in the catalog.
        dataset: The name of the data.
        ratio: Share of the training log to keep.
        options: Of the method or selection.
        data: How the log is read and split.
        evaluation: How recommenders are trained on the result.
        run: How long the run is, and what is kept; ``None`` for a selection.
        pool: What the mask ranges over: the fields of `methods.dconrec.Setting`; empty for a selection.
        inner: DConRec's inner training, else ``None``.
        proxy: How the proxy is trained, ``None`` where there can be none.
        origin: Where the values come from.
        budget: The share of the recipe's steps that `run.steps` is.
    """

    method: str
    dataset: str
    ratio: float
    options: Mapping[str, Value]
    data: Reading
    evaluation: BprTraining
    run: LogStart | None = None
    pool: Mapping[str, Value] = field(default_factory=dict)
    inner: BprTraining | None = None
    proxy: BprTraining | None = None
    origin: tuple[str, ...] = field(default=(), compare=False)
    budget: float = 1.0

    @property
    def is_coreset(self) -> bool:
        """Whether rows are selected rather than probabilities learned."""
        return self.method in catalog.LOG_CORESETS

    @property
    def title(self) -> str:
        """What tables call the method."""
        return catalog.log_entry(self.method).title

    @property
    def steps(self) -> int:
        """Outer steps, 0 for a selection."""
        return 0 if self.run is None else self.run.steps

    @property
    def needs_proxy(self) -> bool:
        """Whether a proxy is trained to its end before the run or the selection."""
        if not self.pool:
            return self.method == "proxy-best"
        return bool(self.pool["pseudo"]) or self.pool["begin"] == "proxy"

    @property
    def asks_validation(self) -> bool:
        """Whether the validation log is asked how much of what a proxy thinks best should be unseen."""
        return self.needs_proxy and self.options.get("unseen") == "validation" and self._takes_the_best

    @property
    def unseen(self) -> float | None:
        """That share where it is given."""
        share = self.options.get("unseen")
        return float(share) if isinstance(share, int | float) and self._takes_the_best else None

    @property
    def _takes_the_best(self) -> bool:
        return not self.pool or self.pool["begin"] == "proxy"

    def with_budget(self, budget: float) -> LogPlan:
        """The same plan with a share of the steps, at least one.

        Raises:
            ValueError: If the share is not positive.
        """
        if not 0 < budget < float("inf"):
            raise ValueError(f"A budget of {budget} is no share; give a positive number such as 0.1.")
        if self.run is None:
            return self
        run = replace(self.run, steps=max(1, round(self.run.steps * budget)))
        return replace(self, run=run, budget=self.budget * budget)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "origin": list(self.origin)}


def load(method: str, dataset: str, ratio: float, *, overrides: Sequence[str] = ()) -> LogPlan:
    """The settings of a method for a log, with the user's own over them.

    Args:
        method: A method's or selection's name.
        dataset: The log's name; logs without a name get the defaults.
        ratio: Share of the training log to keep, above 0 and at most 1.
        overrides: ``name=value`` each. Plain names are the method's, the run's, the pool's and the reading's,
            ``inner.name``, ``proxy.name`` and ``eval.name`` those of three trainings (`BprTraining`).

    Raises:
        ValueError: In one sentence, for an unknown name or a value that does not fit.
    """
    entry = catalog.log_entry(method)
    if not 0 < ratio <= 1:
        raise ValueError(f"The ratio is {ratio:g}; give a share of the log above 0 and at most 1, such as 0.25.")
    sheet = _sheet(entry.name)
    settings = [values.split(o) for o in overrides]
    read = {sheet.place(name): value for name, value in settings}
    estimator = read.get(("method", "estimator"), DConRecOptions.estimator)
    estimator = str(values.read(estimator, "EstimatorName", "estimator"))
    origin: list[str] = []
    for rule in _read("logs" if entry.name in _SHARED else entry.name)["rule"]:
        # The shared recipe has more to say of a proxy than a selection takes.
        if _applies(rule, dataset, estimator) and sheet.lay(rule, ignored=("proxy",)):
            origin.append(rule["name"])
    for name, value in settings:
        sheet.set(name, value)
    if "estimator" in sheet.kinds["method"]:
        sheet.values["method"]["estimator"] = estimator
    origin += [f"by hand: {', '.join(f'{name}={value}' for name, value in settings)}"] if settings else []
    plan = _plan(entry.name, dataset, ratio, sheet.values, tuple(dict.fromkeys(origin)))
    if ("method", "unseen") in read and plan.pool and plan.pool["begin"] != "proxy":
        raise ValueError("unseen is for a start at the proxy's best; set begin=proxy as well, or leave it out.")
    return plan


def _sheet(method: str) -> rules.Sheet:
    return rules.Sheet(method, _kinds(method), _PREFIXES)


def names(method: str) -> list[str]:
    """Every name that ``--set`` takes for a method."""
    return _sheet(method).names


def full_name(section: str, name: str) -> str:
    """What ``--set`` calls a setting of a section of `settable`.

    Example:
        >>> full_name("evaluation", "epochs"), full_name("data", "core")
        ('eval.epochs', 'core')
    """
    return _PREFIXES[section] + name


def settable(method: str) -> dict[str, dict[str, tuple[str, Value]]]:
    """Every name that ``--set`` takes for a method, by section: its kind and default, for listings."""
    entry = catalog.log_entry(method)
    plain = load(entry.name, "", 0.25).to_json()
    plain["method"] = plain["options"]
    return {
        section: {name: (kind, plain[section][name]) for name, kind in kinds.items()}
        for section, kinds in _kinds(entry.name).items()
    }


def reading(plain: Mapping[str, Any]) -> Reading:
    """A `Reading` from plain data, such as an artifact has.

    Raises:
        ValueError: If a value does not fit.
    """
    kinds = values.fields_of(Reading)
    return Reading(**{name: values.read(plain[name], kind, name) for name, kind in kinds.items() if name in plain})  # type: ignore[arg-type]


def _kinds(method: str) -> dict[str, dict[str, str]]:
    """The settings of a method and their kinds, by section."""
    training = values.fields_of(BprTraining)
    options = _OPTIONS.get(method) or catalog.LOG_METHODS[method].load()
    kinds = {"method": values.fields_of(options, without=("train", "generator"))}
    if method in catalog.LOG_METHODS:
        kinds["run"] = values.fields_of(LogStart)
        kinds["pool"] = values.fields_of(import_module("condensery.methods.dconrec").Setting, without=_NOT_OF_POOL)
    kinds["data"] = values.fields_of(Reading)
    if method == "dconrec":
        kinds["inner"] = {name: training[name] for name in _INNER}
    if method in catalog.LOG_METHODS or method in ("svp", "proxy-best"):
        kinds["proxy"] = training if method != "svp" else {name: training[name] for name in _INNER if name != "epochs"}
    return {**kinds, "evaluation": training}


def _plan(
    method: str, dataset: str, ratio: float, chosen: Mapping[str, dict[str, Value]], origin: tuple[str, ...]
) -> LogPlan:
    """What came out, checked."""
    options = _options_with_defaults(method, chosen["method"])
    more: dict[str, Any] = {}
    if "run" in chosen:
        more["run"] = LogStart(**chosen["run"])  # type: ignore[arg-type]
        setting = import_module("condensery.methods.dconrec").Setting
        kinds = values.fields_of(setting, without=_NOT_OF_POOL)
        more["pool"] = {**values.field_defaults(setting, kinds), **chosen["pool"]}
        setting(**{k: v for k, v in more["pool"].items() if not isinstance(v, str)})  # for its checks
    for section in ("inner", "proxy"):
        if section in chosen:
            more[section] = BprTraining(**chosen[section])  # type: ignore[arg-type]
            more[section].recipe()
    if method == "dconrec":
        DConRecOptions(**options).settings()  # type: ignore[arg-type]
    evaluation = BprTraining(**chosen["evaluation"])  # type: ignore[arg-type]
    evaluation.recipe()
    data = Reading(**chosen["data"])  # type: ignore[arg-type]
    return LogPlan(method, dataset, ratio, options, data, evaluation, origin=origin, **more)


def _options_with_defaults(method: str, given: Mapping[str, Value]) -> dict[str, Value]:
    """The options, with the class's own defaults where no rule names them."""
    cls = _OPTIONS.get(method) or catalog.LOG_METHODS[method].load()
    kinds = values.fields_of(cls, without=("train", "generator"))
    whole = {**values.field_defaults(cls, kinds), **given}
    if method in _OPTIONS:
        cls(**whole)  # for its checks
    return whole


def _optimizer(fitting: Any, name: str, lr: float) -> Any:
    return fitting.Adam(lr) if name == "adam" else fitting.Sgd(lr, 0.0, 0.0)


_CONDITIONS = ("datasets", "estimators")


def _read(name: str) -> dict[str, Any]:
    return rules.read(name, conditions=_CONDITIONS, sections=_PREFIXES)


def _applies(rule: Mapping[str, Any], dataset: str, estimator: str) -> bool:
    return rules.for_dataset(rule, dataset) and estimator in rule.get("estimators", [estimator])
