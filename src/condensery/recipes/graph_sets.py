"""Settings of condensed sets of graphs: for a method, a set and a number of graphs per class, a `GraphSetPlan`.

As for a single graph (`recipes.graphs`) there is a network to condense with and one to test with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any

from condensery import catalog
from condensery.recipes import PerClass, rules, values
from condensery.recipes.values import FeatureName, GraphSetInit, NodeEmbedding, Value


@dataclass(frozen=True)
class GraphSetReading:
    """How a set of graphs is read.

    Attributes:
        features: Preprocessing of the nodes' features; ``auto`` is as given.
        split_seed: Of the split, which is drawn: of each class eight tenths train, a tenth of all validates.
        name: Of a folder with several sets: which, as ``NAME_A.txt``; ``auto`` is the only one.
    """

    features: FeatureName = "auto"
    split_seed: int = 0
    name: str = "auto"


@dataclass(frozen=True)
class GraphSetStart:
    """How a run starts and how long it is.

    Attributes:
        steps: Steps of the outer loop.
        nodes: Nodes of each synthetic graph; ``None`` for the mean of the real training graphs.
        init: Which real graphs of at most so many nodes it starts from.
        keep_every: Steps between two looks for the set that validates best, which is then kept; 0 keeps the last.
        keep_budget: Share of the evaluation recipe for such a look.
    """

    steps: int = 1000
    nodes: int | None = None
    init: GraphSetInit = "random"
    keep_every: int = 0
    keep_budget: float = 1.0

    def __post_init__(self) -> None:
        values.check_keeping(self.keep_every, self.keep_budget)
        if self.steps < 0 or (self.nodes is not None and self.nodes < 1):
            raise ValueError(f"steps is {self.steps} and nodes {self.nodes}; give at least 0 steps and 1 node.")


@dataclass(frozen=True)
class GraphTraining:
    """How networks are trained on the result: `GraphRecipe` in plain words; the defaults are DosCond's."""

    epochs: int = 500
    batch: int = 128
    lr: float = 1e-3
    check_every: int = 1

    def recipe(self) -> Any:
        """The `GraphRecipe`.

        Raises:
            ValueError: If a value makes no sense.
        """
        return import_module("condensery.graph_fitting").GraphRecipe(**asdict(self))


@dataclass(frozen=True)
class GraphSelection:
    """What a selection sees of the graphs.

    Attributes:
        embedding: What stands for a graph: its pooled features in the test network trained on all graphs, or the mean
            of its nodes' features.
        proxy_epochs: Passes over all graphs of that training.
    """

    embedding: NodeEmbedding = "trained-net"
    proxy_epochs: int = 20

    def __post_init__(self) -> None:
        if self.proxy_epochs < 1:
            raise ValueError(f"proxy_epochs is {self.proxy_epochs}; give 1 or more.")


_GIVEN = ("net", "data", "generator")
_SELECTION_GIVEN = ("features", "y", "per_class", "generator")
_OWN_PREFIXES = {"network": "net.", "test": "test.", "evaluation": "eval."}
_PREFIXES = {"method": "", "run": "", "data": "", **_OWN_PREFIXES}
_NETWORKS = ("network", "test")
_USUAL = "PooledGCN"


@dataclass(frozen=True)
class GraphSetPlan:
    """Everything that decides a run but the graphs and the seed, as plain values.

    Attributes:
        method: The name of the method or selection in the catalog.
        dataset: The name of the data.
        per_class: Graphs of each class: one number, or one for each class.
        options: Of the method or selection.
        data: How the graphs are read.
        test: The network that is trained on the result: ``{"net": name, ...}`` without what the data decide.
        evaluation: How it is trained.
        run: How the run starts and how long it is; ``None`` for a selection.
        network: The network to condense with, empty for a selection.
        origin: Where the values come from.
        budget: The share of the recipe's steps that `run.steps` is.
    """

    method: str
    dataset: str
    per_class: PerClass
    options: Mapping[str, Value]
    data: GraphSetReading
    test: Mapping[str, Value]
    evaluation: GraphTraining
    run: GraphSetStart | None = None
    network: Mapping[str, Value] = field(default_factory=dict)
    origin: tuple[str, ...] = field(default=(), compare=False)
    budget: float = 1.0

    @property
    def is_coreset(self) -> bool:
        """Whether graphs are selected rather than learned."""
        return self.method in catalog.GRAPH_SET_CORESETS

    @property
    def title(self) -> str:
        """What tables call the method."""
        return catalog.graph_set_entry(self.method).title

    @property
    def size(self) -> str:
        """The size that is asked for, fit for a folder's name.

        Example:
            >>> load("random", "digit-graphs", 5).size, load("random", "mine", (1, 0, 3)).size
            ('ipc5', 'ipc1-0-3')
        """
        counts = (self.per_class,) if isinstance(self.per_class, int) else self.per_class
        return "ipc" + "-".join(map(str, counts))[:40]

    @property
    def steps(self) -> int:
        """Outer steps, 0 for a selection."""
        return 0 if self.run is None else self.run.steps

    def with_budget(self, budget: float) -> GraphSetPlan:
        """The same plan with a share of the steps, at least one.

        Raises:
            ValueError: If the share is not positive.
        """
        if not 0 < budget < float("inf"):
            raise ValueError(f"A budget of {budget} is no share; give a positive number such as 0.1.")
        if self.run is None:
            return self
        run = replace(self.run, steps=max(1, round(self.steps * budget)))
        return replace(self, run=run, budget=self.budget * budget)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "origin": list(self.origin)}


def load(method: str, dataset: str, per_class: PerClass, *, overrides: Sequence[str] = ()) -> GraphSetPlan:
    """The published settings, with the user's own over them.

    Args:
        method: A method's or selection's name.
        dataset: The set's name; sets without published settings get the defaults.
        per_class: Graphs of each class: one number, or one for each class.
        overrides: ``name=value`` each. Plain names are the method's, the run's and the reading's, ``net.name`` and
            ``test.name`` those of the networks to condense and to test with, ``eval.name`` those of `GraphTraining`.

    Raises:
        ValueError: In one sentence, for an unknown name or a value that does not fit.
    """
    entry = catalog.graph_set_entry(method)
    _check_counts(per_class)
    file = _read("graph-sets" if entry.name in catalog.GRAPH_SET_CORESETS else entry.name)
    applied = [rule for rule in file["rule"] if rules.for_dataset(rule, dataset)]
    settings = [values.split(setting) for setting in overrides]
    named = {section: _network_of(section, applied, settings) for section in _NETWORKS}
    sheet = rules.Sheet(entry.name, _kinds(entry, named), _PREFIXES)
    current: dict[str, Any] = {}
    for rule in applied:
        current |= {section: rule[section]["net"] for section in _NETWORKS if "net" in rule.get(section, {})}
        other = {section for section in _NETWORKS if current.get(section) != named[section]}
        sheet.lay({section: part for section, part in rule.items() if section not in other})
    for name, value in settings:
        sheet.set(name, value)
    origin = [rules.headline(file, dataset, None, "graphs per class"), *(rule["name"] for rule in applied[1:])]
    origin += [f"set by hand: {', '.join(name for name, _ in settings)}"] if settings else []
    return _plan(entry, dataset, per_class, sheet.values, named, tuple(origin))


def names(method: str) -> list[str]:
    """Every name that ``--set`` takes for a method with its recipe's networks."""
    return [full_name(section, name) for section, kinds in settable(method).items() for name in kinds]


def full_name(section: str, name: str) -> str:
    """What ``--set`` calls a setting of a section of `settable`.

    Example:
        >>> full_name("evaluation", "epochs"), full_name("run", "nodes")
        ('eval.epochs', 'nodes')
    """
    return _PREFIXES[section] + name


def settable(method: str) -> dict[str, dict[str, tuple[str, Value]]]:
    """Every name that ``--set`` takes for a method, by section: its kind and default, for listings."""
    entry = catalog.graph_set_entry(method)
    plan = load(entry.name, "", 1)
    named = {section: str(getattr(plan, section).get("net", _USUAL)) for section in _NETWORKS}
    plain = plan.to_json()
    plain["method"] = plain["options"]
    defaults = {section: {"net": named[section], **values.defaults_of(_zoo()[named[section]])} for section in _NETWORKS}
    return {
        section: {name: (kind, {**defaults.get(section, {}), **plain[section]}[name]) for name, kind in kinds.items()}
        for section, kinds in _kinds(entry, named).items()
    }


def reading(plain: Mapping[str, Any]) -> GraphSetReading:
    """A `GraphSetReading` from plain data, such as an artifact has.

    Raises:
        ValueError: If a value does not fit.
    """
    kinds = values.fields_of(GraphSetReading)
    given = {name: values.read(plain[name], kind, name) for name, kind in kinds.items() if name in plain}
    return GraphSetReading(**given)  # type: ignore[arg-type]


def _check_counts(per_class: PerClass) -> None:
    counts = (per_class,) if isinstance(per_class, int) else per_class
    if min(counts, default=0) < 0 or sum(counts) == 0:
        raise ValueError(f"Graphs per class are {per_class}; give numbers of at least 0 that are not all 0.")


def _network_of(section: str, applied: Sequence[Mapping[str, Any]], settings: Sequence[tuple[str, str]]) -> str:
    """The network that counts in the end: the last that is named."""
    name = _USUAL
    for rule in applied:
        name = rule.get(section, {}).get("net", name)
    for setting, value in settings:
        name = value if setting == f"{_PREFIXES[section]}net" else name
    return catalog.pooled_network_name(name)


def _kinds(entry: catalog.Method | catalog.Coreset, named: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The settings of a method and their kinds, by section."""
    networks = {section: {"net": "str", **values.arguments_of(_zoo()[named[section]])} for section in _NETWORKS}
    kinds = {"method": _option_kinds(entry)}
    if entry.name in catalog.GRAPH_SET_METHODS:
        kinds |= {"run": values.fields_of(GraphSetStart), "network": networks["network"]}
    kinds |= {"data": values.fields_of(GraphSetReading), "test": networks["test"]}
    return {**kinds, "evaluation": values.fields_of(GraphTraining)}


def _option_kinds(entry: catalog.Method | catalog.Coreset) -> dict[str, str]:
    """The options of a method or a selection: the fields of its class, or the options of its function."""
    if isinstance(entry, catalog.Method):
        return values.fields_of(entry.load(), without=_GIVEN)
    seen = values.fields_of(GraphSelection) if entry.needs else {}
    return {**seen, **values.arguments_of(entry.load(), given=_SELECTION_GIVEN)}


def _plan(
    entry: catalog.Method | catalog.Coreset,
    dataset: str,
    per_class: PerClass,
    chosen: Mapping[str, dict[str, Value]],
    named: Mapping[str, str],
    origin: tuple[str, ...],
) -> GraphSetPlan:
    """What came out, checked."""
    more: dict[str, Any] = {}
    if "run" in chosen:
        run = GraphSetStart(**chosen["run"])  # type: ignore[arg-type]
        more = {"run": run, "network": {**chosen["network"], "net": named["network"]}}
    evaluation = GraphTraining(**chosen["evaluation"])  # type: ignore[arg-type]
    evaluation.recipe()
    data = GraphSetReading(**chosen["data"])  # type: ignore[arg-type]
    test = {**chosen["test"], "net": named["test"]}
    options = _options_with_defaults(entry, chosen["method"])
    return GraphSetPlan(entry.name, dataset, per_class, options, data, test, evaluation, origin=origin, **more)


def _options_with_defaults(entry: catalog.Method | catalog.Coreset, given: Mapping[str, Value]) -> dict[str, Value]:
    """The options, with the class's or function's own defaults where no rule names them."""
    kinds = _option_kinds(entry)
    if isinstance(entry, catalog.Method):
        return {**values.field_defaults(entry.load(), kinds), **given}
    seen = asdict(GraphSelection()) if entry.needs else {}
    whole = {**seen, **{k: v for k, v in values.defaults_of(entry.load()).items() if k in kinds}, **given}
    GraphSelection(**{k: v for k, v in whole.items() if k in seen})  # for its checks
    return whole


def _zoo() -> Mapping[str, type]:
    networks: Mapping[str, type] = import_module("condensery.nets").POOLED
    return networks


def _read(name: str) -> dict[str, Any]:
    return rules.read(name, conditions=("datasets",), sections=_PREFIXES)
