"""Search spaces as TOML or JSON: one table for each setting.

    [eval.lr]
    float = [0.001, 0.3]
    log = true

    [net.width]
    int = [8, 64]
    step = 8

    [eval.optimizer]
    choices = ["sgd", "adam"]

    [eval.momentum]
    float = [0.0, 0.95]
    when = { "eval.optimizer" = "sgd" }

    [net.norm]
    value = "group"

A table has one of ``float``, ``int``, ``choices``, ``cells`` and ``value``; ``log`` and ``step`` for ranges; ``when``.
The order of the tables is the order in which settings are decided.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from condensery.search.settings import (
    Categorical,
    Cells,
    Float,
    Int,
    Parameter,
    Settings,
    Value,
    When,
)

_KINDS = ("float", "int", "choices", "cells", "value")
_WORDS = (*_KINDS, "log", "step", "when")


def read_space(path: str | Path) -> Settings:
    """A search space from a ``.toml`` or ``.json`` file.

    Raises:
        ValueError: In one sentence, if the file is not one.
    """
    path = Path(path)
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"{path} is neither .toml nor .json; give a search space as one of them.")
    text = path.read_text(encoding="utf-8")
    try:
        plain = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not readable ({error}); see docs/search.md for the format.") from None
    try:
        return space_from(plain)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def space_from(plain: Mapping[str, Any]) -> Settings:
    """A search space from plain data, as the files have it.

    Raises:
        ValueError: In one sentence that names the setting.

    Example:
        >>> space_from({"eval": {"lr": {"float": [0.001, 0.1], "log": True}}, "net.norm": {"value": "group"}})
        Settings(parameters={'eval.lr': Float(low=0.001, high=0.1, log=True, step=None)}, fixed={'net.norm': 'group'})
    """
    if not isinstance(plain, Mapping):
        raise ValueError("A search space is a table of settings; give one table for each.")
    parameters: dict[str, Parameter | When] = {}
    fixed: dict[str, Value] = {}
    for name, table in _tables(plain, ""):
        if name in parameters or name in fixed:
            raise ValueError(f"{name} stands there twice; leave one of them out.")
        try:
            found = _entry(table)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if isinstance(found, tuple):
            fixed[name] = found[0]
        else:
            parameters[name] = found
    return Settings(parameters, fixed)


def space_to(space: Settings) -> dict[str, Any]:
    """A search space as plain data: `space_from` makes it again."""
    plain: dict[str, Any] = {name: {"value": value} for name, value in space.fixed.items()}
    for name, entry in space.parameters.items():
        parameter = entry.parameter if isinstance(entry, When) else entry
        plain[name] = _plain(parameter)
        if isinstance(entry, When):
            plain[name]["when"] = {key: list(values) for key, values in entry.of.items()}
    return plain


def _tables(plain: Mapping[str, Any], before: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tables of settings with their names, in order; a table may be a setting and hold others as well."""
    for key, value in plain.items():
        name = f"{before}{key}"
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is not a table; write for instance [{name}] with choices = [...] below.")
        own = {word: value[word] for word in value if word in _WORDS}
        inner = {word: value[word] for word in value if word not in _WORDS}
        wrong = [word for word, item in inner.items() if not isinstance(item, Mapping)]
        if wrong:
            raise ValueError(f"{name} has {wrong[0]!r}, which is not one of {', '.join(_WORDS)}.")
        if own or not inner:
            yield name, own
        yield from _tables(inner, f"{name}.")


def _entry(table: Mapping[str, Any]) -> Parameter | When | tuple[Value]:
    """What a table says: values, values that matter sometimes, or the one value of a fixed setting in a tuple."""
    kinds = [word for word in _KINDS if word in table]
    if len(kinds) != 1:
        raise ValueError(f"give one of {', '.join(_KINDS)}, not {' and '.join(kinds) or 'none of them'}.")
    kind = kinds[0]
    allowed = {kind, "when"} | ({"log", "step"} if kind in ("float", "int") else set())
    extra = sorted(set(table) - (allowed if kind != "value" else {"value"}))
    if extra:
        raise ValueError(f"{extra[0]} does not go with {kind}; leave it out.")
    if kind == "value":
        return (_scalar(table["value"]),)
    parameter = _parameter(kind, table)
    return parameter if "when" not in table else When(parameter, _conditions(table["when"], ""))


def _parameter(kind: str, table: Mapping[str, Any]) -> Parameter:
    given = table[kind]
    if kind == "cells":
        return Cells(given) if isinstance(given, str) else Cells()
    if not isinstance(given, list):
        raise ValueError(f"{kind} takes a list, not {given!r}.")
    if kind == "choices":
        return Categorical(tuple(_scalar(item) for item in given))
    numbers = [item for item in (*given, table.get("step", 1)) if isinstance(item, int | float)]
    log = table.get("log", False)
    if len(given) != 2 or len(numbers) != 3 or any(isinstance(n, bool) for n in numbers) or not isinstance(log, bool):
        raise ValueError(f"{kind} takes [low, high], step a number and log true or false.")
    low, high = given
    if kind == "int":
        return Int(low, high, log=log, step=table.get("step", 1))
    step = table.get("step")
    return Float(float(low), float(high), log=log, step=None if step is None else float(step))


def _conditions(plain: Any, before: str) -> dict[str, tuple[Value, ...]]:
    if not isinstance(plain, Mapping) or not plain:
        raise ValueError('when takes a table of settings and values, such as { "eval.optimizer" = "sgd" }.')
    found: dict[str, tuple[Value, ...]] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            found |= _conditions(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = tuple(_scalar(v) for v in (value if isinstance(value, list) else [value]))
    return found


def _scalar(value: Any) -> Value:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{value!r} is no value of a setting; give text, a number, true or false.")


def _plain(parameter: Parameter) -> dict[str, Any]:
    if isinstance(parameter, Cells):
        return {"cells": parameter.ops}
    if isinstance(parameter, Categorical):
        return {"choices": list(parameter.choices)}
    if isinstance(parameter, Int):
        found: dict[str, Any] = {"int": [parameter.low, parameter.high]}
        return found | ({"log": True} if parameter.log else {"step": parameter.step})
    if isinstance(parameter, Float):
        found = {"float": [parameter.low, parameter.high]}
        found |= {"log": True} if parameter.log else {}
        return found | ({} if parameter.step is None else {"step": parameter.step})
    raise ValueError(f"A {type(parameter).__name__} cannot be written down; use the parameters of this package.")
