"""Settings from text: what kinds there are, which words each takes, and sentences for what does not fit.

The kind of a setting is its annotation as written in the source, such as ``int | None``, so that a method's
fields need no second description to be reached from a recipe file or the command line.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any

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
    "Solver": {"descent": "Descent", "dual": "Dual", "dual-direct": "Dual.direct"},
}
"""Words for an object that a method takes, by the kind of the setting: what in `methods` makes it."""

CHOICES: dict[str, tuple[str, ...]] = {
    "Init": ("real", "noise", "herding", "k-center", "k-means", "facility-location", "correct"),
    "Whitening": ("none", "zca", "zca-trace"),
    "Augmentation": tuple(AUGMENTATIONS),
    "Siamese": tuple(SIAMESE),
    "SiameseName": tuple(SIAMESE),
    "torch.dtype": tuple(PRECISIONS),
    "PrecisionName": tuple(PRECISIONS),
    **{kind: tuple(words) for kind, words in OBJECTS.items()},
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
}
"""Kinds that take one of a few words."""

_PLAIN = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "None": "none",
}
_NETWORK_WORDS = ("Norm", "Activation", "Pooling", "Parametrisation")


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
    return all(part in _PLAIN or _words(part) is not None for part in alternatives(kind))


def describe(kind: str) -> str:
    """A kind in words.

    Example:
        >>> describe("int | None"), describe("Siamese | None")
        ('a whole number or none', 'dsa, dsa-digits or none')
    """
    parts: list[str] = []
    for part in alternatives(kind):
        words = _words(part)
        parts += [_PLAIN[part]] if words is None else list(words)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def fields_of(cls: type, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The settings of a dataclass and their kinds: what its constructor takes and text can give.

    Args:
        cls: The dataclass, whose module must use ``from __future__ import annotations``.
        without: Fields that are not settings.
    """
    return {
        f.name: str(f.type) for f in dataclasses.fields(cls) if f.init and f.name not in without and known(str(f.type))
    }


def arguments_of(network: type) -> dict[str, str]:
    """The settings of a network class and their kinds: its arguments but those that the data give."""
    parameters = inspect.signature(network).parameters.values()
    given = ("channels", "classes", "size")
    return {p.name: str(p.annotation) for p in parameters if p.name not in given and known(str(p.annotation))}


def defaults_of(network: type) -> dict[str, Value]:
    """The defaults of a network class's settings."""
    parameters = inspect.signature(network).parameters.values()
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
    found = [OBJECTS[part] for part in alternatives(kind) if part in OBJECTS]
    if not found or value is None:
        return plain(value)
    home = import_module("condensery.methods")
    for word, path in found[0].items():
        if attrgetter(path)(home)() == value:
            return word
    raise ValueError(f"No word stands for {value!r}; add one to OBJECTS for {kind}.")


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
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        return _NO
    return number if math.isfinite(number) else _NO


def _words(kind: str) -> tuple[str, ...] | None:
    """The words that a kind takes, or ``None`` for a kind that is not of words."""
    if kind in _NETWORK_WORDS:
        members = getattr(import_module("condensery.nets.layers"), kind)
        return tuple(str(member.value) for member in members)
    return CHOICES.get(kind)
