"""Settings from text: what kinds there are, which words each takes, and sentences for what does not fit.

The kind of a setting is its annotation as written in the source, such as ``int | None``, so that a method's
fields need no second description to be reached from a recipe file or the command line.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

Value = bool | int | float | str | None

Init = str
Whitening = str
Augmentation = str
OptimizerName = str
ScheduleName = str
LossName = str
Embedding = str
ExpertOptimizer = str
Layout = str
BetaRule = str
SiameseName = str
PrecisionName = str
CondensingNorm = str
LogSplit = str
RepeatsName = str
Keep = str
EstimatorName = str
PenaltyName = str
Level = str
ByValidation = str
GraphInit = str
StructureName = str
CountName = str
FeatureName = str
NodeEmbedding = str
LabelStart = str
PaceName = str
NodeLayout = str
GraphSetInit = str

AUGMENTATIONS: dict[str, tuple[str, str]] = {
    "dsa": ("DsaTrain", "natural"),
    "dsa-digits": ("DsaTrain", "digits"),
    "dc-digits": ("DcTrain", "digits"),
    "dc-batch-norm": ("DcTrain", "batch_norm"),
    "frepo": ("OneOfPerImage", "frepo"),
    "frepo-digits": ("OneOfPerImage", "frepo_digits"),
    "rcig": ("OneOfPerImage", "rcig"),
    "rcig-digits": ("OneOfPerImage", "rcig_digits"),
}
"""Words for an augmentation of training: the class in `data.augment` and which of its published settings."""

SIAMESE: dict[str, str] = {"dsa": "natural", "dsa-digits": "digits"}
"""Words for a siamese augmentation: which of `Siamese`'s published settings."""

PRECISIONS: dict[str, str] = {"bf16": "bfloat16", "fp16": "float16"}
"""Words for a lower precision: the name in torch."""

OBJECTS: dict[str, dict[str, str]] = {
    "Ascent": {"sam": "Sam", "gsam": "Gsam", "asam": "Asam", "vasso": "Vasso"},
    "OuterLoss": {"squared": "Squared", "platt": "Platt"},
    "Kernel": {"fc-ntk": "InfiniteNtk", "conv-nngp": "RandomNngp", "conv-ntk": "RandomNtk"},
    "Solver": {"descent": "Descent", "cg": "Descent.cg", "dual": "Dual", "dual-direct": "Dual.direct"},
}
"""Words for an object that a method takes, by the kind of the setting: what in `methods` makes it."""

FUNCTIONS: dict[str, dict[str, str]] = {
    "Distance": {
        "layerwise": "condensery.methods.matching:layerwise_distance",
        "squared": "condensery.methods.gcond:squared_distance",
        "cosine": "condensery.methods.gcond:cosine_distance",
        "relative-squared": "condensery.methods.doscond_graphs:relative_squared_distance",
    },
    "Choice": {"tangent-kernel": "condensery.methods.gntk:GraphTangentScore"},
    "Agreement": {
        "together": "condensery.methods.hcdc:together",
        "by-point": "condensery.methods.hcdc:by_point",
    },
    "Match": {"means": "condensery.methods.gcdm:Match.MEANS", "pairs": "condensery.methods.gcdm:Match.PAIRS"},
}
"""Words for a function or member that a method takes, by the kind of the setting: where it is."""

FITS: dict[str, str] = {
    "as-given": "condensery.data.graph_features:AsGiven.of",
    "row-normalised": "condensery.data.graph_features:RowNormalised.of",
    "standardised": "condensery.data.graph_features:StandardScaled.of",
}
"""Words for a preprocessing of nodes' features: what fits it."""

ALIASES: dict[str, str] = {
    "Sequence[int | None]": "Fanouts",
    "tuple[int, int] | None": "Turns | None",
    "Callable[[int], float]": "Annealing",
}
"""Annotations that are no plain kind, and the kind that they are read as."""


_NUMBER = r"\d+(?:\.\d*)?(?:e-?\d+)?"


class _Listed(NamedTuple):
    """A kind of several numbers in one text."""

    form: re.Pattern[str]
    words: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


_LISTED: dict[str, _Listed] = {
    "Fanouts": _Listed(
        re.compile(r"([1-9]\d*|all)(,([1-9]\d*|all))*"),
        "numbers or all, as 10,5",
        lambda text: tuple(None if part == "all" else int(part) for part in text.split(",")),
        lambda value: ",".join("all" if part is None else str(part) for part in value),
    ),
    "Turns": _Listed(
        re.compile(r"\d+/\d+"),
        "two numbers as 10/50",
        lambda text: tuple(int(part) for part in text.split("/")),
        lambda value: "/".join(map(str, value)),
    ),
    "Annealing": _Listed(
        re.compile(rf"{_NUMBER}/{_NUMBER}/[1-9]\d*"),
        "two temperatures and the steps from one to the other, as 1/0.01/200",
        lambda text: _annealing(*text.split("/")),
        lambda value: f"{value.start:g}/{value.end:g}/{value.steps}",
    ),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "Init": ("real", "noise", "herding", "k-center", "k-means", "facility-location", "correct"),
    "Whitening": ("none", "zca", "zca-trace"),
    "Augmentation": tuple(AUGMENTATIONS),
    "Siamese": tuple(SIAMESE),
    "SiameseName": tuple(SIAMESE),
    "torch.dtype": tuple(PRECISIONS),
    "PrecisionName": tuple(PRECISIONS),
    **{kind: tuple(words) for kind, words in {**OBJECTS, **FUNCTIONS}.items()},
    "ExpertOptimizer": ("sgd", "sam", "gsam", "asam"),
    "Layout": ("full", "half", "convexified"),
    "BetaRule": ("mct", "decreasing", "projected", "uniform"),
    "OptimizerName": ("sgd", "adam"),
    "ScheduleName": ("constant", "drop", "warmup-cosine"),
    "LossName": ("cross-entropy", "squared-error"),
    "CondensingNorm": ("same", "none", "instance", "batch", "group", "layer"),
    "Embedding": ("pixels", "random-net", "trained-net"),
    "LogSplit": ("random", "latest", "leave-one-out", "time", "given"),
    "RepeatsName": ("first", "last", "keep", "refuse"),
    "Keep": ("sampled", "top"),
    "EstimatorName": ("first-order", "reinforce", "paper", "authors"),
    "PenaltyName": ("squares", "norms"),
    "TailOf": ("train", "pool"),
    "Compensation": ("counted", "added", "repeated"),
    "Begin": ("even", "proxy"),
    "Level": ("interaction", "user"),
    "ByValidation": ("validation",),
    "GraphInit": ("random", "herding", "k-center", "degree", "pagerank"),
    "StructureName": ("pairwise", "identity", "free"),
    "CountName": ("largest-remainder", "authors"),
    "FeatureName": ("auto", *FITS),
    "GraphSetInit": ("random", "herding", "k-center"),
    "NodeEmbedding": ("trained-net", "features"),
    "LabelStart": ("classes", "expert"),
    "PaceName": ("linear", "root", "geom"),
    "NodeLayout": ("full", "half"),
}
"""Kinds that take one of a few words."""

_PLAIN = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "None": "none",
}
_NETWORK_WORDS = {
    **dict.fromkeys(("Norm", "Activation", "Pooling", "Parametrisation"), "condensery.nets.layers"),
    **dict.fromkeys(("Start", "Aggregation", "Reach"), "condensery.nets.graph"),
    "Diffusion": "condensery.nets.filters",
    "Pool": "condensery.nets.pooled",
}


def read(value: object, kind: str, name: str) -> Value:
    """A setting's value, from text or from a recipe file.

    Args:
        value: Text as typed, or a value that a recipe file gave.
        kind: The annotation of the setting.
        name: The setting, for the message.

    Raises:
        ValueError: In one sentence that says what kind of value the setting takes.

    Example:
        >>> read("3", "int | None", "outer"), read("none", "int | None", "outer"), read("1e-2", "float", "lr")
        (3, None, 0.01)
    """
    for alternative in alternatives(kind):
        found = _as(value, alternative)
        if found is not _NO:
            return found  # type: ignore[return-value]
    raise ValueError(f"{name} takes {describe(kind)}, not {value!r}.")


def alternatives(kind: str) -> list[str]:
    """The kinds that an annotation joins by ``|``."""
    return [part.strip() for part in kind.split("|")]


def known(kind: str) -> bool:
    """Whether every part of an annotation can be read from text."""
    return all(part in _PLAIN or part in _LISTED or _words(part) is not None for part in alternatives(kind))


def describe(kind: str) -> str:
    """A kind in words.

    Example:
        >>> describe("int | None"), describe("Siamese | None")
        ('a whole number or none', 'dsa, dsa-digits or none')
    """
    parts: list[str] = []
    for part in alternatives(kind):
        words = _words(part)
        one = _LISTED[part].words if part in _LISTED else _PLAIN.get(part, "")
        parts += [one] if words is None else list(words)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def check_keeping(every: int, budget: float) -> None:
    """Refuse settings of the best set that make no sense.

    Args:
        every: Steps between two looks for it, 0 for none.
        budget: Share of the evaluation recipe for a look.

    Raises:
        ValueError: If a number is out of range.
    """
    if every < 0 or not 0 < budget < float("inf"):
        raise ValueError(
            f"keep_every is {every} and keep_budget {budget:g}; give 0 steps for the last set or a positive number for "
            "the best one, and a share above 0."
        )


def fields_of(cls: type, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The settings of a dataclass and their kinds: what its constructor takes and text can give.

    Args:
        cls: The dataclass, whose module must use ``from __future__ import annotations``.
        without: Fields that are not settings.
    """
    kinds = {f.name: kind_of(f.type) for f in dataclasses.fields(cls) if f.init and f.name not in without}
    return {name: kind for name, kind in kinds.items() if known(kind)}


def kind_of(annotation: Any) -> str:
    """The kind of a setting from its annotation.

    Example:
        >>> kind_of("int | None"), kind_of("tuple[int, int] | None")
        ('int | None', 'Turns | None')
    """
    return ALIASES.get(str(annotation), str(annotation))


def arguments_of(
    function: Callable[..., Any], given: tuple[str, ...] = ("channels", "classes", "size", "features")
) -> dict[str, str]:
    """The settings of a network class or a function and their kinds.

    Args:
        function: The class or function, whose module must use ``from __future__ import annotations``.
        given: Arguments that are no settings; by default those of a network that the data give.
    """
    parameters = inspect.signature(function).parameters.values()
    return {p.name: str(p.annotation) for p in parameters if p.name not in given and known(str(p.annotation))}


def defaults_of(function: Callable[..., Any]) -> dict[str, Value]:
    """The defaults of a network class's or a function's settings."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: plain(p.default) for p in parameters if p.default is not inspect.Parameter.empty}


def plain(value: Any) -> Value:
    """A default as its word: `read` and the classes' own defaults then compare."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(getattr(value, "value", value))


def word_of(value: Any, kind: str) -> Value:
    """A default of a setting as text gives it: for an object of `OBJECTS` the word that makes an equal one.

    Raises:
        ValueError: If no word makes it: a class whose default cannot be typed.
    """
    if value is None:
        return None
    listed_as = [part for part in alternatives(kind) if part in _LISTED]
    if listed_as:
        return _LISTED[listed_as[0]].write(value)
    for words in (FUNCTIONS[part] for part in alternatives(kind) if part in FUNCTIONS):
        return next(word for word, home in words.items() if _at(home) is value)
    found = [OBJECTS[part] for part in alternatives(kind) if part in OBJECTS]
    if not found:
        return plain(value)
    home = import_module("condensery.methods")
    for word, path in found[0].items():
        if attrgetter(path)(home)() == value:
            return word
    raise ValueError(f"No word stands for {value!r}; add one to OBJECTS for {kind}.")


def object_of(word: Value, kind: str) -> Any:
    """What a word of `FUNCTIONS`, or several numbers in a text, stand for; other values as they are.

    Example:
        >>> object_of("10,all", "Fanouts"), object_of("10/50", "Turns | None"), object_of(3, "int")
        ((10, None), (10, 50), 3)
    """
    if not isinstance(word, str):
        return word
    for part in alternatives(kind):
        if part in _LISTED:
            return _LISTED[part].read(word)
        if part in FUNCTIONS:
            return _at(FUNCTIONS[part][word])
    return word


def fit_of(features: str) -> Any:
    """What fits the preprocessing that a word of `FITS` stands for; ``None`` for ``"auto"``, the data's own."""
    return None if features == "auto" else _at(FITS[features])


def _annealing(start: str, end: str, steps: str) -> Any:
    return _at("condensery.methods.doscond_graphs:Annealing")(float(start), float(end), int(steps))


def _at(home: str) -> Any:
    module, _, name = home.partition(":")
    return attrgetter(name)(import_module(module))


def field_defaults(cls: type, kinds: Mapping[str, str]) -> dict[str, Value]:
    """The defaults of a dataclass's settings as text gives them; fields without one are left out.

    Args:
        cls: The dataclass.
        kinds: The kinds of those settings.
    """
    found: dict[str, Value] = {}
    for f in dataclasses.fields(cls):
        if f.name not in kinds:
            continue
        if f.default is not dataclasses.MISSING:
            found[f.name] = word_of(f.default, kinds[f.name])
        elif f.default_factory is not dataclasses.MISSING:
            found[f.name] = word_of(f.default_factory(), kinds[f.name])
    return found


def said(value: Value) -> str:
    """A value as one would type it.

    Example:
        >>> said(None), said(True), said(5e-4), said(1 / 3)
        ('none', 'true', '0.0005', '0.3333333333333333')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    # Short where nothing is lost: what is listed can be typed back.
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def split(assignment: str) -> tuple[str, str]:
    """The two sides of ``name=value``.

    Raises:
        ValueError: If there is no equals sign or no name.
    """
    name, equals, value = assignment.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{assignment!r} is not a setting; write name=value.")
    return name.strip(), value.strip()


def listed(kinds: Mapping[str, str], prefix: str = "") -> str:
    """Names of settings for a message."""
    return ", ".join(prefix + name for name in kinds)


_NO = object()
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _as(value: object, kind: str) -> object:
    """`value` as one kind, or `_NO`."""
    if isinstance(value, str):
        return _from_text(value.strip(), kind)
    if kind == "bool":
        return value if isinstance(value, bool) else _NO
    if isinstance(value, bool):
        return _NO
    if kind == "int":
        return value if isinstance(value, int) else _NO
    if kind == "float":
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else _NO
    return None if kind == "None" and value is None else _NO


def _from_text(text: str, kind: str) -> object:
    words = _words(kind)
    if words is not None:
        return text.lower() if text.lower() in words else _NO
    if kind == "bool":
        return _BOOLEANS.get(text.lower(), _NO)
    if kind == "None":
        return None if text.lower() in ("none", "null") else _NO
    if kind == "str":
        return text
    if kind in _LISTED:
        plain_text = text.lower().replace(" ", "")
        return plain_text if _LISTED[kind].form.fullmatch(plain_text) else _NO
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        return _NO
    return number if math.isfinite(number) else _NO


def _words(kind: str) -> tuple[str, ...] | None:
    """The words that a kind takes, or ``None`` for a kind that is not of words."""
    if kind in _NETWORK_WORDS:
        members = getattr(import_module(_NETWORK_WORDS[kind]), kind)
        return tuple(str(member.value) for member in members)
    return CHOICES.get(kind)
