"""Settings of condensed graphs: for a method, a graph and a number of nodes, a `GraphPlan`.

As with images (see the package), rules of a file are laid over each other and then the user's own settings. A graph is
condensed with one network and tested with another, so there are two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any

from condensery import catalog
from condensery.recipes import parts_of, rules, values
from condensery.recipes.values import (
    CountName,
    FeatureName,
    GraphInit,
    LabelStart,
    LossName,
    NodeEmbedding,
    NodeLayout,
    OptimizerName,
    PaceName,
    ScheduleName,
    StructureName,
    Value,
)


@dataclass(frozen=True)
class Reading:
    """How a graph is read.

    Attributes:
        features: Preprocessing of the features; ``auto`` is the one that the graph is used with in the literature, and
            as given for your own.
        inductive: Whether training sees the subgraph of the training nodes only, and tests run on that of the test
            nodes.
        split_seed: Of a split that has to be drawn.
        node_column: Of a table of nodes: the column with their names in the table of edges.
        label_column: Of a table of nodes: the column with the classes.
        split_column: Of a table of nodes: the column that says ``train``, ``validation`` or ``test``, if there is one.
        scheme: Of an OGB folder: which of its splits; ``auto`` is the only one.
    """

    features: FeatureName = "auto"
    inductive: bool = False
    split_seed: int = 0
    node_column: str = "id"
    label_column: str = "label"
    split_column: str = "split"
    scheme: str = "auto"


@dataclass(frozen=True)
class GraphStart:
    """How a run starts, how long it is, and what becomes of the edges.

    Attributes:
        steps: Steps of the outer loop; or
        epochs: lives of networks, each of a method's `outer` steps.
        init: Which training nodes' features the synthetic nodes start from.
        structure: Who is joined to whom: a network of pairs of nodes, nobody, or a learned weight for each pair that
            starts from the real edges.
        hidden: Width of the network of pairs.
        layers: Its layers.
        threshold: Edges that weigh less are left out of the result.
        counts: How the nodes are shared among the classes.
        labels: Each node's class, or learned ones that start from what an expert says of the nodes.
        step_size: Initial learned step size of methods that match experts, ``None`` for none.
        keep_every: Steps between two looks for the set that validates best, which is then kept; 0 keeps the last.
        keep_budget: Share of the evaluation recipe for such a look.
    """

    steps: int | None = None
    epochs: int | None = None
    init: GraphInit = "random"
    structure: StructureName = "pairwise"
    hidden: int = 128
    layers: int = 3
    threshold: float = 0.01
    counts: CountName = "largest-remainder"
    labels: LabelStart = "classes"
    step_size: float | None = None
    keep_every: int = 0
    keep_budget: float = 1.0

    def __post_init__(self) -> None:
        values.check_keeping(self.keep_every, self.keep_budget)
        if min(self.steps or 0, self.epochs or 0) < 0 or self.threshold < 0:
            raise ValueError("steps, epochs and threshold cannot be negative; give positive numbers.")
        if self.hidden < 1 or self.layers < 2:
            raise ValueError(f"hidden is {self.hidden} and layers {self.layers}; give at least 1 and 2.")
        if self.step_size is not None and self.step_size <= 0:
            raise ValueError(f"step_size is {self.step_size:g}; give a first step size above 0.")


@dataclass(frozen=True)
class NodeExpertSettings:
    """How the networks are trained whose trajectories a method matches; but for `count` SFGC's on Cora.

    Attributes:
        count: Number of experts.
        steps: Steps of each, every one on all training nodes.
        every: Steps between two points that are kept.
        optimizer: What moves their weights.
        lr: Its learning rate.
        momentum: SGD's momentum.
        weight_decay: Of SGD or Adam.
        pace: How a curriculum grows to all training nodes, easy ones first; ``None`` for all from the start.
        share: The share of them that it begins with.
        curriculum_steps: Steps until it has them all.
        layout: How points are kept: in full, or in half precision.
        seed: Of the experts' first weights.
    """

    count: int = 20
    steps: int = 2500
    every: int = 10
    optimizer: OptimizerName = "sgd"
    lr: float = 0.4
    momentum: float = 0.0
    weight_decay: float = 0.0
    pace: PaceName | None = None
    share: float = 0.75
    curriculum_steps: int = 1500
    layout: NodeLayout = "half"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.every < 1 or self.steps < self.every:
            raise ValueError(
                f"{self.count} experts of {self.steps} steps with a point every {self.every} are none; give at least 1 "
                "expert and as many steps as there are between two points."
            )


@dataclass(frozen=True)
class NodeTraining:
    """How graph networks are trained on the result: `NodeRecipe` in plain words; the defaults are the literature's."""

    steps: int = 600
    optimizer: OptimizerName = "adam"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "drop"
    drop_at: float = 0.5
    drop_by: float = 0.1
    loss: LossName = "cross-entropy"
    check_every: int = 1

    def recipe(self) -> Any:
        """The `NodeRecipe`.

        Raises:
            ValueError: If a value makes no sense.
        """
        fitting = import_module("condensery.node_fitting")
        return fitting.NodeRecipe(steps=self.steps, check_every=self.check_every, **parts_of(self))


@dataclass(frozen=True)
class NodeSelection:
    """What a selection of nodes sees of the graph.

    Attributes:
        embedding: What stands for a node: the outputs of the test network trained on the whole graph, or its features.
        proxy_steps: Steps of that training; ``None``: as many as an evaluation has.
    """

    embedding: NodeEmbedding = "trained-net"
    proxy_steps: int | None = None

    def __post_init__(self) -> None:
        if self.proxy_steps is not None and self.proxy_steps < 1:
            raise ValueError(f"proxy_steps is {self.proxy_steps}; give 1 or more.")


_GIVEN = ("net", "data", "experts", "generator")
_OWN_PREFIXES = {"experts": "experts.", "network": "net.", "test": "test.", "evaluation": "eval."}
_PREFIXES = {"method": "", "run": "", "data": "", **_OWN_PREFIXES}
_NETWORKS = ("network", "test")
_CONDITIONS = ("datasets", "min_nodes", "max_nodes", "min_ratio", "max_ratio")


@dataclass(frozen=True)
class GraphPlan:
    """Everything that decides a run but the graph and the seed, as plain values.

    Attributes:
        method: The name of the method or selection in the catalog.
        dataset: The name of the data.
        nodes: Nodes of the result, or
        ratio: their number as a share of the training nodes.
        options: Of the method or selection.
        data: How the graph is read.
        test: The network that is trained on the result: ``{"net": name, ...}`` without what the data decide.
        evaluation: How it is trained.
        run: How the run starts and how long it is, its `steps` always set; ``None`` for a selection.
        network: The network to condense with, empty for a selection.
        experts: How experts are trained; ``None`` for a method that matches none.
        origin: Where the values come from.
        budget: The share of the recipe's steps that `run.steps` is.
    """

    method: str
    dataset: str
    nodes: int | None
    ratio: float | None
    options: Mapping[str, Value]
    data: Reading
    test: Mapping[str, Value]
    evaluation: NodeTraining
    run: GraphStart | None = None
    network: Mapping[str, Value] = field(default_factory=dict)
    experts: NodeExpertSettings | None = None
    origin: tuple[str, ...] = field(default=(), compare=False)
    budget: float = 1.0

    @property
    def is_coreset(self) -> bool:
        """Whether nodes are selected, or merged, rather than learned."""
        return self.method in catalog.GRAPH_CORESETS

    @property
    def title(self) -> str:
        """What tables call the method."""
        return catalog.graph_entry(self.method).title

    @property
    def size(self) -> str:
        """The size that is asked for, fit for a folder's name.

        Example:
            >>> load("gcond", "cora", ratio=0.5).size, load("gcond", "cora", nodes=70).size
            ('ratio0.5', 'nodes70')
        """
        return f"ratio{self.ratio:g}" if self.nodes is None else f"nodes{self.nodes}"

    @property
    def steps(self) -> int:
        """Outer steps, 0 for a selection."""
        return 0 if self.run is None else self.run.steps or 0

    def with_budget(self, budget: float) -> GraphPlan:
        """The same plan with a share of the steps, at least one.

        Raises:
            ValueError: If the share is not positive.
        """
        if not 0 < budget < float("inf"):
            raise ValueError(f"A budget of {budget} is no share; give a positive number such as 0.1.")
        if self.run is None:
            return self
        run = replace(self.run, steps=max(1, round(self.steps * budget)), epochs=None)
        return replace(self, run=run, budget=self.budget * budget)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "origin": list(self.origin)}


def load(
    method: str,
    dataset: str,
    *,
    nodes: int | None = None,
    ratio: float | None = None,
    overrides: Sequence[str] = (),
) -> GraphPlan:
    """The published settings, with the user's own over them.

    Args:
        method: A method's or selection's name.
        dataset: The graph's name; graphs without published settings get the defaults.
        nodes: Nodes of the result, or
        ratio: their number as a share of the training nodes.
        overrides: ``name=value`` each. Plain names are the method's, the run's and the reading's, ``net.name`` and
            ``test.name`` those of the networks to condense and to test with, ``eval.name`` those of `NodeTraining`.

    Raises:
        ValueError: In one sentence, for an unknown name or a value that does not fit.
    """
    entry = catalog.graph_entry(method)
    _check_size(nodes, ratio)
    file = _read("graphs" if entry.name in catalog.GRAPH_CORESETS else entry.name)
    applied = [rule for rule in file["rule"] if rules.for_dataset(rule, dataset) and _for_size(rule, nodes, ratio)]
    settings = [values.split(setting) for setting in overrides]
    named = {section: _network_of(section, applied, settings) for section in _NETWORKS}
    sheet = rules.Sheet(entry.name, _kinds(entry, named), _PREFIXES)
    current: dict[str, Any] = {}
    for rule in applied:
        current |= {section: rule[section]["net"] for section in _NETWORKS if "net" in rule.get(section, {})}
        other = {section for section in _NETWORKS if current.get(section) != named[section]}
        sheet.lay({section: part for section, part in rule.items() if section not in other})
        _one_length(sheet, rule.get("run", {}))
    for name, value in settings:
        sheet.set(name, value)
        _one_length(sheet, [name])
    origin = [rules.headline(file, dataset, nodes, "nodes")]
    origin += [rule["name"] for rule in applied[1:]]
    origin += [f"set by hand: {', '.join(name for name, _ in settings)}"] if settings else []
    return _plan(entry, dataset, (nodes, ratio), sheet.values, named, tuple(origin))


def names(method: str) -> list[str]:
    """Every name that ``--set`` takes for a method with its recipe's networks."""
    return [full_name(section, name) for section, kinds in settable(method).items() for name in kinds]


def matches_experts(method: str) -> bool:
    """Whether a method of graphs matches the trajectories of experts, by the name of one of its class's fields."""
    entry = catalog.GRAPH_METHODS.get(method)
    return entry is not None and any(f.name == "experts" for f in dataclasses.fields(entry.load()))


def full_name(section: str, name: str) -> str:
    """What ``--set`` calls a setting of a section of `settable`.

    Example:
        >>> full_name("evaluation", "steps"), full_name("run", "steps"), full_name("test", "net")
        ('eval.steps', 'steps', 'test.net')
    """
    return _PREFIXES[section] + name


def settable(method: str) -> dict[str, dict[str, tuple[str, Value]]]:
    """Every name that ``--set`` takes for a method, by section: its kind and default, for listings."""
    entry = catalog.graph_entry(method)
    plan = load(entry.name, "", ratio=0.5)
    named = {section: str(getattr(plan, section).get("net", "GCN")) for section in _NETWORKS}
    plain = plan.to_json()
    plain["method"] = plain["options"]
    defaults = {section: _network_defaults(named[section]) for section in _NETWORKS}
    return {
        section: {name: (kind, {**defaults.get(section, {}), **plain[section]}[name]) for name, kind in kinds.items()}
        for section, kinds in _kinds(entry, named).items()
    }


def reading(plain: Mapping[str, Any]) -> Reading:
    """A `Reading` from plain data, such as an artifact has.

    Raises:
        ValueError: If a value does not fit.
    """
    kinds = values.fields_of(Reading)
    return Reading(**{name: values.read(plain[name], kind, name) for name, kind in kinds.items() if name in plain})  # type: ignore[arg-type]


def _check_size(nodes: int | None, ratio: float | None) -> None:
    if (nodes is None) == (ratio is None):
        raise ValueError("Give either a number of nodes or a ratio to the training nodes.")
    if nodes is not None and nodes < 1:
        raise ValueError(f"The number of nodes is {nodes}; give at least one for each class.")
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"The ratio is {ratio:g}; give a share of the training nodes above 0 and at most 1.")


def _for_size(rule: Mapping[str, Any], nodes: int | None, ratio: float | None) -> bool:
    """Whether a rule is for a size, which is one of the two."""
    if nodes is not None:
        return bool(rule.get("min_nodes", 0) <= nodes <= rule.get("max_nodes", nodes))
    assert ratio is not None, "_check_size has seen that one is given"
    return bool(rule.get("min_ratio", 0.0) <= ratio <= rule.get("max_ratio", 1.0))


def _network_of(section: str, applied: Sequence[Mapping[str, Any]], settings: Sequence[tuple[str, str]]) -> str:
    """The network that counts in the end: the last that is named."""
    name = "GCN"
    for rule in applied:
        name = rule.get(section, {}).get("net", name)
    for setting, value in settings:
        name = value if setting == f"{_PREFIXES[section]}net" else name
    return catalog.graph_network_name(name)


def _kinds(entry: catalog.Method | catalog.Coreset, named: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The settings of a method and their kinds, by section."""
    networks: Mapping[str, type] = import_module("condensery.nets").GRAPH
    kinds = {"method": _option_kinds(entry)}
    if entry.name in catalog.GRAPH_METHODS:
        kinds["run"] = values.fields_of(GraphStart)
        kinds["network"] = {"net": "str", **values.arguments_of(networks[named["network"]])}
        if matches_experts(entry.name):
            kinds["experts"] = values.fields_of(NodeExpertSettings)
    kinds["data"] = values.fields_of(Reading)
    kinds["test"] = {"net": "str", **values.arguments_of(networks[named["test"]])}
    return {**kinds, "evaluation": values.fields_of(NodeTraining)}


def _option_kinds(entry: catalog.Method | catalog.Coreset) -> dict[str, str]:
    """The options of a method or a selection: the fields of its class, or the options of its function."""
    if isinstance(entry, catalog.Method):
        return values.fields_of(entry.load(), without=_GIVEN)
    seen = values.fields_of(NodeSelection) if "embeddings" in entry.needs.split() else {}
    return {**seen, **values.arguments_of(entry.load(), given=("data", "counts", "total", *entry.needs.split()))}


def _network_defaults(name: str) -> dict[str, Value]:
    return {"net": name, **values.defaults_of(import_module("condensery.nets").GRAPH[name])}


def _one_length(sheet: rules.Sheet, said: Mapping[str, Any] | Sequence[str]) -> None:
    """Steps and epochs say the same thing: the one that was set last counts."""
    for name, other in (("steps", "epochs"), ("epochs", "steps")):
        if name in said and "run" in sheet.values:
            sheet.values["run"][other] = None


def _plan(
    entry: catalog.Method | catalog.Coreset,
    dataset: str,
    size: tuple[int | None, float | None],
    chosen: Mapping[str, dict[str, Value]],
    named: Mapping[str, str],
    origin: tuple[str, ...],
) -> GraphPlan:
    """What came out, checked."""
    options = _options_with_defaults(entry, chosen["method"])
    more: dict[str, Any] = {}
    if "run" in chosen:
        run = GraphStart(**chosen["run"])  # type: ignore[arg-type]
        steps = run.steps if run.steps is not None else (run.epochs or 0) * int(options.get("outer") or 1)
        more = {"run": replace(run, steps=steps), "network": {**chosen["network"], "net": named["network"]}}
    if "experts" in chosen:
        more["experts"] = NodeExpertSettings(**chosen["experts"])  # type: ignore[arg-type]
    evaluation = NodeTraining(**chosen["evaluation"])  # type: ignore[arg-type]
    evaluation.recipe()
    data = Reading(**chosen["data"])  # type: ignore[arg-type]
    test = {**chosen["test"], "net": named["test"]}
    return GraphPlan(entry.name, dataset, *size, options, data, test, evaluation, origin=origin, **more)


def _options_with_defaults(entry: catalog.Method | catalog.Coreset, given: Mapping[str, Value]) -> dict[str, Value]:
    """The options, with the class's or function's own defaults where no rule names them."""
    kinds = _option_kinds(entry)
    if isinstance(entry, catalog.Method):
        return {**values.field_defaults(entry.load(), kinds), **given}
    seen = asdict(NodeSelection()) if "embedding" in kinds else {}
    whole = {**seen, **{k: v for k, v in values.defaults_of(entry.load()).items() if k in kinds}, **given}
    NodeSelection(**{k: v for k, v in whole.items() if k in seen})  # for its checks
    return whole


def _read(name: str) -> dict[str, Any]:
    return rules.read(name, conditions=_CONDITIONS, sections=_PREFIXES)
