"""Frozen dataclasses to JSON and back, so that a file can say what made it without being executed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any


def to_config(value: Any) -> Any:
    """Plain data for a (nested) dataclass: its fields, and its class's name under ``"type"``.

    Example:
        >>> from condensery.fitting import Sgd
        >>> to_config(Sgd(lr=0.1))
        {'type': 'Sgd', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.0005}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_config(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Enum):
        return {"type": type(value).__name__, "value": value.value}
    if isinstance(value, tuple | list):
        return [to_config(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"A {type(value).__name__} cannot be written as plain data; use a dataclass of plain fields.")


def from_config(config: Any, classes: Mapping[str, type]) -> Any:
    """Rebuild what `to_config` wrote.

    Args:
        config: Plain data.
        classes: The classes that may be built, by name: nothing else ever is.

    Raises:
        ValueError: In one sentence, if the config names an unknown class or field, or a value does not fit.
    """
    if isinstance(config, list):
        return tuple(from_config(item, classes) for item in config)
    if not isinstance(config, Mapping):
        return config
    name = config.get("type")
    if not isinstance(name, str) or name not in classes:
        raise ValueError(f"Unknown type {name!r}; this version knows {', '.join(sorted(classes))}.")
    values = {key: from_config(item, classes) for key, item in config.items() if key != "type"}
    try:
        built = classes[name](**values)
    except TypeError as error:
        raise ValueError(f"The settings of {name} do not fit this version ({error}); upgrade condensery.") from None
    if dataclasses.is_dataclass(built):
        for f in dataclasses.fields(built):
            if not _fits(getattr(built, f.name), str(f.type), classes):
                raise ValueError(f"{name}.{f.name} cannot be {getattr(built, f.name)!r:.80}; it takes {f.type}.")
    return built


_PLAIN = ("int", "float", "bool", "str", "None")


def _fits(value: Any, annotation: str, classes: Mapping[str, type]) -> bool:
    """Whether a value read from a file is of its field's type, as far as the annotation tells by name."""
    if annotation.startswith("tuple["):
        inner = annotation[6:-1].split(",")[0].strip()
        return isinstance(value, tuple) and all(_fits(item, inner, classes) for item in value)
    parts = [part.strip() for part in annotation.split("|")]
    found = "None" if value is None else type(value).__name__
    if found in _PLAIN or isinstance(value, tuple):
        return found in parts or (found == "int" and "float" in parts)
    # A protocol or a base class is not known by name here: any of the classes that may be built passes for it.
    return found in parts or not all(part in _PLAIN or part in classes for part in parts)
