"""Published settings: for a method, a data set and a number of images per class, a `Plan`.

Each file here lists rules. All that apply to the data set and the number are laid over each other in order,
so that any number of images per class has settings; then come the user's own. A plan says where its values
come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from condensery import catalog
from condensery.recipes import rules, values
from condensery.recipes.values import (
    Augmentation,
    BetaRule,
    CondensingNorm,
    Embedding,
    ExpertOptimizer,
    Init,
    Layout,
    LossName,
    OptimizerName,
    PrecisionName,
    ScheduleName,
    SiameseName,
    Value,
    Whitening,
)

PerClass = int | tuple[int, ...]
_GIVEN = ("net", "real", "experts", "generator")
BY_HAND = "set by hand: "
_PREFIXES = {"options": "", "run": "", "experts": "experts.", "eval": "eval.", "net": "net."}


@dataclass(frozen=True)
class Start:
    """How a run starts and how long it is.

    Attributes:
        steps: Steps of the outer loop; or
        iterations: the papers' iterations, each of a method's `outer` steps.
        init: What the images start from: real images, noise, a coreset, or real images that the experts classify
            correctly (which start with the experts' logits as labels).
        whiten: The whitening of the data.
        formation: Tiles along each side of a stored image (IDC's multi-formation); 1 for none.
        mirrored: Whether each image is followed by its mirror image in training.
        bound: Whether pixels are kept between black and white.
        label_smoothing: Share of each label that is spread over all classes; above 0 labels are soft.
        label_scale: Labels are centred one-hot rows times this, for squared-error training (FRePo, RCIG); ``None`` for
            classes or probabilities.
        learn_labels: Whether the method learns the labels too.
        softplus: While condensing, the network has softplus of this sharpness in place of its activation; ``None`` for
            the network as it is.
        condensing_norm: While condensing, the network has this normalisation in place of its own.
        step_size: Initial learned step size for training on the set, or ``None``.
        step_floor: The step size never falls below this; ``None`` for no floor.
        keep_every: Steps between two looks for the set that validates best, which is then kept; 0 keeps the last.
        keep_budget: Share of the evaluation recipe for such a look.
    """

    steps: int | None = None
    iterations: int | None = None
    init: Init = "real"
    whiten: Whitening = "none"
    formation: int = 1
    mirrored: bool = False
    bound: bool = False
    label_smoothing: float = 0.0
    label_scale: float | None = None
    learn_labels: bool = False
    softplus: float | None = None
    condensing_norm: CondensingNorm = "same"
    step_size: float | None = None
    step_floor: float | None = None
    keep_every: int = 0
    keep_budget: float = 1.0

    def __post_init__(self) -> None:
        values.check_keeping(self.keep_every, self.keep_budget)
        if self.formation < 1:
            raise ValueError(f"formation is {self.formation}; give 1 or more.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; give a share of at least 0 and below 1.")
        if min(self.steps or 0, self.iterations or 0) < 0:
            raise ValueError("steps and iterations cannot be negative; give a positive number.")
        if self.label_smoothing and self.label_scale is not None:
            raise ValueError("label_smoothing is for probabilities, label_scale for centred rows; give one of them.")
        for name in ("label_scale", "softplus"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value:g}; give a number above 0, or none.")
        if self.step_size is not None and self.step_size <= 0:
            raise ValueError(f"step_size is {self.step_size:g}; give a first step size above 0.")


EXPERT_OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "weight_decay"),
    "sam": ("rho",),
    "gsam": ("rho", "alpha", "adaptive"),
    "asam": ("rho", "eta"),
}
"""The settings of each optimizer of experts, beside its learning rate."""


@dataclass(frozen=True)
class ExpertSettings:
    """How the networks are trained whose trajectories a method matches; the defaults are MTT's.

    Attributes:
        optimizer: What moves their weights: SGD, or SGD with a sharpness-aware ascent before each step. The next six
            are each of one or some of them (`EXPERT_OPTIMIZERS`); ``None`` is the optimizer's own default.
        momentum: SGD's momentum.
        weight_decay: SGD's weight decay.
        rho: Length of the ascent.
        alpha: Weight of GSAM's second term.
        eta: What ASAM adds to the weights' magnitudes.
        adaptive: Whether GSAM's ascent is scaled by the weights, as ASAM's is.
        lr: Learning rate, the same throughout.
        batch_size: Real images in a step.
        epochs: Passes over the training images; ``None`` becomes what the method's starts need (`epochs_needed`).
        count: Number of experts.
        layout: What is kept of a trajectory: every point, every point in half precision, or few points with lines
            between them (MCT).
        interior: Points kept between the first and the last, for convexified trajectories.
        beta: How places on those lines follow the recorded epochs.
        smoothing: Whether those points are averaged with their neighbours, as MCT's published code does.
        augment: Augmentation of the training.
        precision: Lower precision for the training.
        compiled: Whether it is compiled.
    """

    optimizer: ExpertOptimizer = "sgd"
    momentum: float | None = None
    weight_decay: float | None = None
    rho: float | None = None
    alpha: float | None = None
    eta: float | None = None
    adaptive: bool | None = None
    lr: float = 0.01
    batch_size: int = 256
    epochs: int | None = None
    count: int = 100
    layout: Layout = "full"
    interior: int = 2
    beta: BetaRule = "mct"
    smoothing: bool = False
    augment: SiameseName | None = "dsa"
    precision: PrecisionName | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        if min(self.count, self.batch_size, 1 if self.epochs is None else self.epochs) < 1 or self.interior < 0:
            raise ValueError(
                "experts.count, experts.batch_size and experts.epochs must be at least 1, experts.interior at least "
                "0; give such numbers."
            )
        if self.lr <= 0:
            raise ValueError(f"experts.lr is {self.lr:g}; give a learning rate above 0.")
        for name in ("momentum", "weight_decay", "rho", "eta"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"experts.{name} is {value:g}; give a number of at least 0.")


@dataclass(frozen=True)
class Selection:
    """How a coreset sees the data.

    Attributes:
        embedding: What stands for an image: its pixels, or its features under an untrained or a trained
            network.
        proxies: Networks that are trained (or drawn) to embed or to score; scores are averaged over them.
        proxy_epochs: Passes over all training data that each is trained for.
    """

    embedding: Embedding = "pixels"
    proxies: int = 1
    proxy_epochs: int = 10

    def __post_init__(self) -> None:
        if self.proxies < 1 or self.proxy_epochs < 1:
            raise ValueError("proxies and proxy_epochs must be at least 1; give positive numbers.")


@dataclass(frozen=True)
class Evaluation:
    """How networks are trained on the set: `Recipe` in plain words; the defaults are DSA's and DM's."""

    epochs: int = 1000
    steps: int | None = None
    batch_size: int = 256
    optimizer: OptimizerName = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "drop"
    drop_at: float = 0.5
    drop_by: float = 0.1
    warmup: int = 500
    final: float = 0.01
    loss: LossName = "cross-entropy"
    augment: Augmentation | None = None

    def recipe(self) -> Any:
        """The `Recipe`.

        Raises:
            ValueError: If a value makes no sense.
        """
        fitting, augment = import_module("condensery.fitting"), import_module("condensery.data.augment")
        return fitting.Recipe(
            epochs=self.epochs,
            steps=self.steps,
            batch_size=self.batch_size,
            augment=_augment(augment, self.augment),
            **parts_of(self),
        )


def parts_of(training: Any) -> dict[str, Any]:
    """The optimizer, the schedule and the loss of a training in plain words.

    Args:
        training: An `Evaluation`, or another dataclass with those words and numbers; what it lacks is the default.
    """
    fitting = import_module("condensery.fitting")
    word = Evaluation()

    def of(name: str) -> Any:
        return getattr(training, name, getattr(word, name))

    optimizers = {
        "sgd": lambda: fitting.Sgd(of("lr"), of("momentum"), of("weight_decay")),
        "adam": lambda: fitting.Adam(of("lr"), weight_decay=of("weight_decay")),
    }
    schedules = {
        "constant": fitting.Constant,
        "drop": lambda: fitting.Drop(at=of("drop_at"), by=of("drop_by")),
        "warmup-cosine": lambda: fitting.WarmupCosine(of("warmup"), of("final")),
    }
    losses = {"cross-entropy": fitting.CrossEntropy, "squared-error": fitting.SquaredError}
    return {
        "optimizer": optimizers[of("optimizer")](),
        "schedule": schedules[of("schedule")](),
        "loss": losses[of("loss")](),
    }


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run but the data and the seed, as plain values.

    Attributes:
        method: The name of the method or coreset in the catalog.
        dataset: The name of the data.
        per_class: Images per class: one number, or one for each class.
        options: The method's options: the fields of its class, or of `Selection` for a coreset.
        start: How the run starts and how long it is; its `steps` is always set.
        network: ``{"net": name, ...}`` without what the data decide.
        evaluation: How networks are trained on the set.
        origin: Where the values come from, in the order in which they were laid over each other.
        budget: The share of the recipe's steps that `start.steps` is.
        experts: How the experts are trained whose trajectories the method matches, or ``None`` where it needs none;
            its `epochs` is always set.
    """

    method: str
    dataset: str
    per_class: PerClass
    options: Mapping[str, Value]
    start: Start
    network: Mapping[str, Value]
    evaluation: Evaluation
    origin: tuple[str, ...] = field(default=(), compare=False)
    budget: float = 1.0
    experts: ExpertSettings | None = None

    @property
    def is_coreset(self) -> bool:
        """Whether real images are chosen rather than synthetic ones learned."""
        return self.method in catalog.CORESETS

    @property
    def title(self) -> str:
        """What tables call the method."""
        return catalog.method_or_coreset(self.method).title

    @property
    def steps(self) -> int:
        """Steps of the outer loop."""
        return self.start.steps or 0

    def with_budget(self, budget: float) -> Plan:
        """The same plan with a share of the steps, at least one.

        Raises:
            ValueError: If the share is not positive.
        """
        if not 0 < budget < float("inf"):
            raise ValueError(f"A budget of {budget} is no share; give a positive number such as 0.1.")
        if not self.steps:
            return self
        steps = max(1, round(self.steps * budget))
        options = _decaying(self.options, steps)
        return replace(self, options=options, start=replace(self.start, steps=steps), budget=self.budget * budget)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = dataclasses.asdict(self)
        per_class = self.per_class if isinstance(self.per_class, int) else list(self.per_class)
        if self.experts is None:
            plain.pop("experts")
        return {**plain, "per_class": per_class, "origin": list(self.origin)}


def load(
    method: str,
    dataset: str,
    per_class: PerClass,
    *,
    overrides: Sequence[str] = (),
    network: Mapping[str, str] | None = None,
) -> Plan:
    """The published settings, with the user's own over them.

    Args:
        method: A method's or coreset's name.
        dataset: The data's name; data without published settings get the defaults.
        per_class: Images per class; unequal numbers count as their mean.
        overrides: ``name=value`` each. Plain names are the run's (`Start`) and the method's options,
            ``eval.name`` is a field of `Evaluation`, ``experts.name`` one of `ExpertSettings`, ``net.name`` an
            argument of the network.
        network: Another network, as ``{"net": name, argument: value}``; the recipe's arguments are kept where
            the class stays the same.

    Raises:
        ValueError: In one sentence, for an unknown name or a value that does not fit.
    """
    entry = catalog.method_or_coreset(method)
    mean = per_class if isinstance(per_class, int) else round(sum(per_class) / max(1, len(per_class)))
    if mean < 1 or (isinstance(per_class, tuple) and min(per_class) < 0):
        raise ValueError(f"Images per class are {per_class}; give at least 1.")
    is_coreset = entry.name in catalog.CORESETS
    file = _read("coreset" if is_coreset else entry.name)
    draft = _Draft(entry.name, _option_kinds(entry), {**(network or {})})
    norms = [
        (network or {}).get("norm", ""),
        *(v for k, v in map(values.split, overrides) if k == "net.norm"),
    ]
    norm = norms[-1].lower()
    applied = [rule for rule in file["rule"] if _applies(rule, dataset, mean, norm)]
    for rule in applied:
        draft.lay(rule)
    draft.switch_network()
    for assignment in overrides:
        draft.set(*values.split(assignment))
    headline = rules.headline(file, dataset, mean, "per class")
    origin = [headline, *(str(rule["name"]) for rule in applied[1:])]
    origin += [f"{BY_HAND}{', '.join(draft.by_hand)}"] if draft.by_hand else []
    return draft.plan(dataset, per_class, mean, tuple(origin))


def names(method: str) -> list[str]:
    """Every name that ``--set`` takes for a method with its recipe's network."""
    return [full_name(group, name) for group, kinds in settable(method).items() for name in kinds]


def full_name(group: str, name: str) -> str:
    """What ``--set`` calls a setting of a group of `settable`.

    Example:
        >>> full_name("eval", "epochs"), full_name("run", "steps")
        ('eval.epochs', 'steps')
    """
    return _PREFIXES[group] + name


def epochs_needed(options: Mapping[str, Value]) -> int:
    """The last epoch of an expert that a method's options reach.

    Args:
        options: With `max_start` and `expert_epochs`. Starts are whole numbers below `max_start`, or, where
            `continuous` says so, any number up to it.

    Example:
        >>> epochs_needed({"max_start": 2, "expert_epochs": 2})
        3
        >>> epochs_needed({"max_start": 2, "expert_epochs": 2, "continuous": True})
        4
    """
    last = int(options["max_start"] or 0) - (0 if options.get("continuous") else 1)
    return last + int(options["expert_epochs"] or 0)


def settable(method: str) -> dict[str, dict[str, tuple[str, Value]]]:
    """Every name that ``--set`` takes for a method, by group: its kind and default, for listings.

    Args:
        method: A method's or coreset's name.
    """
    entry = catalog.method_or_coreset(method)
    plan = load(method, "", 1)
    groups: dict[str, dict[str, tuple[str, Value]]] = {
        "options": {name: (kind, plan.options.get(name)) for name, kind in _option_kinds(entry).items()},
        "eval": {k: (kind, getattr(plan.evaluation, k)) for k, kind in values.fields_of(Evaluation).items()},
        "net": _network_settings(plan),
    }
    if plan.experts is not None:
        kinds = values.fields_of(ExpertSettings)
        groups["experts"] = {k: (kind, getattr(plan.experts, k)) for k, kind in kinds.items()}
    run = ("whiten",) if entry.name in catalog.CORESETS else tuple(values.fields_of(Start))
    groups["run"] = {k: (values.fields_of(Start)[k], getattr(plan.start, k)) for k in run}
    return groups


class _Draft:
    """Settings being laid over each other: names and values are checked as they come."""

    def __init__(self, method: str, option_kinds: dict[str, str], network: dict[str, str]) -> None:
        self.method, self.option_kinds, self.wanted = method, option_kinds, network
        self.start_kinds = values.fields_of(Start)
        self.evaluation_kinds = values.fields_of(Evaluation)
        self.expert_kinds = values.fields_of(ExpertSettings) if takes_experts(method) else {}
        if method in catalog.CORESETS:
            self.start_kinds = {"whiten": self.start_kinds["whiten"]}
        self.options: dict[str, Value] = {}
        self.start: dict[str, Value] = {}
        self.network: dict[str, Value] = {}
        self.evaluation: dict[str, Value] = {}
        self.experts: dict[str, Value] = {}
        self.by_hand: list[str] = []

    def lay(self, rule: Mapping[str, Any]) -> None:
        """Lay a rule of a recipe file over what there is."""
        network = {**self.network, **rule.get("network", {})}
        kinds = {"net": "str", **_network_kinds(str(network.get("net", "ConvNet")))}
        for section, into, allowed in (
            ("run", self.start, self.start_kinds),
            ("method", self.options, self.option_kinds),
            ("network", self.network, kinds),
            ("evaluation", self.evaluation, self.evaluation_kinds),
            ("experts", self.experts, self.expert_kinds),
        ):
            for name, value in rule.get(section, {}).items():
                if name not in allowed:
                    raise ValueError(
                        f"The recipe of {self.method} has an unknown name {section}.{name}; "
                        f"it may hold {', '.join(allowed)}."
                    )
                into[name] = values.read(value, allowed[name], f"{section}.{name}")
                self._one_length(name, into)

    def switch_network(self) -> None:
        """Take the network that was asked for in place of the recipe's."""
        name = catalog.network_name(self.wanted.pop("net", str(self.network["net"])))
        if name != self.network["net"]:
            self.network = {"net": name}
            self.by_hand.append("net")
        for key, value in self.wanted.items():
            self.set(f"net.{key}", value)

    def set(self, name: str, value: str) -> None:
        """One setting by its full name."""
        group, _, rest = name.rpartition(".")
        network = _network_kinds(str(self.network["net"]))
        places: dict[str, tuple[tuple[dict[str, Value], dict[str, str]], ...]] = {
            "": ((self.options, self.option_kinds), (self.start, self.start_kinds)),
            "eval": ((self.evaluation, self.evaluation_kinds),),
            "experts": ((self.experts, self.expert_kinds),),
            "net": ((self.network, network),),
        }
        for into, kinds in places.get(group, ()):
            if rest in kinds:
                into[rest] = values.read(value, kinds[rest], name)
                self._one_length(rest, into)
                self.by_hand.append(name)
                return
        names = [*self.option_kinds, *self.start_kinds]
        names += [f"experts.{k}" for k in self.expert_kinds]
        names += [f"eval.{k}" for k in self.evaluation_kinds] + [f"net.{k}" for k in network]
        hint = catalog.did_you_mean(name, names)
        raise ValueError(f"{self.method} has no setting {name!r}{hint}; it takes {', '.join(names)}.")

    def _one_length(self, name: str, into: dict[str, Value]) -> None:
        """Steps and iterations say the same thing: the one that was set last counts."""
        other = {"steps": "iterations", "iterations": "steps"}.get(name)
        if into is self.start and other is not None:
            into[other] = None

    def plan(self, dataset: str, per_class: PerClass, mean: int, origin: tuple[str, ...]) -> Plan:
        """What came out."""
        self._fill_defaults()
        self._fill_loops(mean)
        start = Start(**self.start)  # type: ignore[arg-type]
        if self.method in catalog.CORESETS:
            Selection(**self.options)  # type: ignore[arg-type]  # for its checks
            start = replace(start, steps=0)
        elif start.steps is None:
            outer = self.options.get("outer") or 1
            start = replace(start, steps=(start.iterations or 0) * int(outer))
        evaluation = Evaluation(**self.evaluation)  # type: ignore[arg-type]
        network, experts = self.network, self._expert_settings()
        options = _decaying(self.options, start.steps or 0)
        return Plan(self.method, dataset, per_class, options, start, network, evaluation, origin, experts=experts)

    def _expert_settings(self) -> ExpertSettings | None:
        """How experts are trained, long enough for the method's starts; ``None`` where the method takes none."""
        if not self.expert_kinds:
            if self.start.get("init") == "correct":
                raise ValueError(f"init=correct asks experts, and {self.method} has none; choose another init.")
            return None
        self._drop_other_optimizers()
        settings = ExpertSettings(**self.experts)  # type: ignore[arg-type]
        self._check_segments()
        needed = epochs_needed(self.options)
        if settings.epochs is not None and settings.epochs < needed:
            raise ValueError(
                f"experts.epochs is {settings.epochs}, and {self.method} reaches epoch {needed} from its latest start; "
                f"give experts.epochs={needed} or more, or a smaller max_start."
            )
        return replace(settings, epochs=needed) if settings.epochs is None else settings

    def _check_segments(self) -> None:
        """Before experts are recorded for them: there are segments to match."""
        first, end = int(self.options.get("min_start") or 0), int(self.options["max_start"] or 0)
        if not 0 <= first < end:
            raise ValueError(f"Starts from {first} to below {end} are none; give 0 <= min_start < max_start.")
        if int(self.options["expert_epochs"] or 0) < 1:
            raise ValueError(f"expert_epochs is {self.options['expert_epochs']}; give 1 or more.")

    def _drop_other_optimizers(self) -> None:
        """Leave out what the recipe says of another optimizer than the one that was chosen."""
        chosen = str(self.experts.get("optimizer", ExpertSettings.optimizer))
        for name in sorted({n for names in EXPERT_OPTIMIZERS.values() for n in names} - {*EXPERT_OPTIMIZERS[chosen]}):
            if self.experts.pop(name, None) is not None and f"experts.{name}" in self.by_hand:
                takes = ", ".join(f"experts.{n}" for n in EXPERT_OPTIMIZERS[chosen])
                raise ValueError(f"experts.optimizer={chosen} has no {name}; it takes {takes}.")

    def _fill_defaults(self) -> None:
        """Write down what no rule names: the class's own defaults."""
        self.options = {**values.field_defaults(_options_class(self.method), self.option_kinds), **self.options}

    def _fill_loops(self, mean: int) -> None:
        """Write down the loops of gradient matching that the number of images per class decides."""
        if "outer" in self.option_kinds and "inner" in self.option_kinds:
            published = import_module("condensery.methods.dc").published_loops(mean)
            for name, number in zip(("outer", "inner"), published, strict=True):
                if self.options.get(name) is None:
                    self.options[name] = number


def _decaying(options: Mapping[str, Value], steps: int) -> Mapping[str, Value]:
    """The options with a decay of the learning rates that is no longer than the run."""
    decay = options.get("decay_steps")
    return options if decay is None else {**options, "decay_steps": min(int(decay), max(1, steps))}


def takes_experts(method: str) -> bool:
    """Whether a method matches the trajectories of experts: its class takes them in place of real images."""
    fields = dataclasses.fields(_options_class(method))
    return len(fields) > 1 and fields[1].name == "experts"


def _options_class(method: str) -> Any:
    return Selection if method in catalog.CORESETS else catalog.method_or_coreset(method).load()


def _option_kinds(entry: catalog.Method | catalog.Coreset) -> dict[str, str]:
    """The options of a method or coreset."""
    return values.fields_of(_options_class(entry.name), without=_GIVEN)


def _network_settings(plan: Plan) -> dict[str, tuple[str, Value]]:
    """The arguments of a plan's network: kind and value, its class's default where the plan has none."""
    name = str(plan.network["net"])
    defaults = values.defaults_of(import_module("condensery.nets").VISION[name])
    return {k: (kind, {**defaults, **plan.network}[k]) for k, kind in _network_kinds(name).items()}


def _network_kinds(name: str) -> dict[str, str]:
    vision: Mapping[str, type] = import_module("condensery.nets").VISION
    return values.arguments_of(vision[catalog.network_name(name)])


_CONDITIONS = ("datasets", "min_per_class", "max_per_class", "norms")
_SECTIONS = ("run", "method", "network", "evaluation", "experts")


def _read(name: str) -> dict[str, Any]:
    return rules.read(name, conditions=_CONDITIONS, sections=_SECTIONS)


def _applies(rule: Mapping[str, Any], dataset: str, per_class: int, norm: str) -> bool:
    right_number = rule.get("min_per_class", 1) <= per_class <= rule.get("max_per_class", per_class)
    return rules.for_dataset(rule, dataset) and right_number and norm in rule.get("norms", [norm])


def _augment(module: Any, word: str | None) -> Any:
    """A training augmentation from its word."""
    if word is None:
        return None
    name, setting = values.AUGMENTATIONS[word]
    if name == "DsaTrain":
        return module.DsaTrain(getattr(module.Siamese, setting)())
    return getattr(getattr(module, name), setting)()
