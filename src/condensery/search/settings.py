"""Search spaces for users: named settings, each with the values that it may take, in the order they are decided in.

A space knows three ways of deciding: by an Optuna trial, by a generator, and by picking from a finite number of
choices (grids, controllers). A setting that only matters where an earlier one has certain values is wrapped in `When`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from condensery.nets.cells import EDGES, OPS, Cell

Value = bool | int | float | str | None
Config = dict[str, Value]
"""A configuration: a value for each setting that matters."""
Pick = Callable[[str, tuple[Value, ...]], Value]
"""Picks one of the choices of a decision with a name."""


class Infeasible(ValueError):
    """A combination that is in the space and makes nothing that could be tried."""


class Suggests(Protocol):
    """What a space asks of a trial: the part of ``optuna.Trial`` that makes suggestions."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


class Parameter(Protocol):
    """The values of one setting."""

    def suggest(self, trial: Suggests, name: str) -> Value:
        """The value that a trial suggests."""

    def draw(self, generator: torch.Generator) -> Value:
        """A value at random."""

    def choose(self, name: str, pick: Pick, levels: int) -> Value:
        """A value from a finite number of choices, at most `levels` of a range."""


@dataclass(frozen=True)
class Float:
    """A number in a range.

    Args:
        low: The smallest.
        high: The largest.
        log: Whether ratios count rather than differences, as for learning rates.
        step: Distance between values, or ``None`` for all numbers.

    Raises:
        ValueError: If there is no such range.

    Example:
        >>> Float(1e-3, 1e-1, log=True).values(3)
        (0.001, 0.01, 0.1)
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"A range from {self.low} to {self.high} has no value; give low <= high.")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("A logarithmic range needs low above 0 and no step; leave log or step out.")
        if self.step is not None and not self.step > 0:
            raise ValueError(f"A range cannot have the step {self.step}; give a number above 0.")

    def values(self, levels: int) -> tuple[Value, ...]:
        """At most `levels` values, evenly from low to high."""
        if self.step is not None:
            return tuple(self.low + k * self.step for k in _evenly(self._count(self.step), levels))
        if self.low == self.high or levels == 1:
            return (self.low,) if self.low == self.high else (self._at(0.5),)
        return tuple(self._at(k / (levels - 1)) for k in range(levels))

    def suggest(self, trial: Suggests, name: str) -> Value:
        """See `Parameter`."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def draw(self, generator: torch.Generator) -> Value:
        """Uniform, in the logarithm where ratios count."""
        if self.step is not None:
            return self.low + self.step * int(torch.randint(self._count(self.step), (), generator=generator))
        return self._at(float(torch.rand((), generator=generator, dtype=torch.float64)))

    def choose(self, name: str, pick: Pick, levels: int) -> Value:
        """See `Parameter`."""
        return pick(name, self.values(levels))

    def _count(self, step: float) -> int:
        """How many values there are, the last one included if rounding alone keeps it from a step's end."""
        return int((self.high - self.low) / step + 1e-9) + 1

    def _at(self, share: float) -> float:
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            # Rounded, so that a grid has 0.01 rather than a neighbour of it.
            return min(max(float(f"{math.exp(low + share * (high - low)):.12g}"), self.low), self.high)
        return min(self.low + share * (self.high - self.low), self.high)


@dataclass(frozen=True)
class Int:
    """A whole number in a range, both ends included.

    Args:
        low: The smallest.
        high: The largest.
        log: Whether ratios count rather than differences.
        step: Distance between values; 1 where ratios count.

    Raises:
        ValueError: If there is no such range.

    Example:
        >>> Int(8, 64, step=8).values(3), Int(8, 128, log=True).values(5)
        ((8, 40, 64), (8, 16, 32, 64, 128))
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        if any(not isinstance(v, int) or isinstance(v, bool) for v in (self.low, self.high, self.step)):
            raise ValueError(f"A range of whole numbers cannot be {self.low}, {self.high}, {self.step}; give such.")
        if self.low > self.high or self.step < 1:
            raise ValueError(f"A range from {self.low} to {self.high} by {self.step} has no value; give low <= high.")
        if self.log and (self.low < 1 or self.step != 1):
            raise ValueError("A logarithmic range needs low of at least 1 and no step; leave log or step out.")

    def values(self, levels: int) -> tuple[Value, ...]:
        """At most `levels` values, evenly from low to high."""
        if self.log:
            ends = Float(self.low, self.high, log=True).values(min(levels, self.high - self.low + 1))
            return tuple(dict.fromkeys(round(v) for v in ends))  # type: ignore[arg-type]
        every = range(self.low, self.high + 1, self.step)
        return tuple(every[k] for k in _evenly(len(every), levels))

    def suggest(self, trial: Suggests, name: str) -> Value:
        """See `Parameter`."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def draw(self, generator: torch.Generator) -> Value:
        """Uniform, in the logarithm where ratios count."""
        if self.log:
            share = float(torch.rand((), generator=generator, dtype=torch.float64))
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(max(round(math.exp(low + share * (high - low))), self.low), self.high)
        every = range(self.low, self.high + 1, self.step)
        return every[int(torch.randint(len(every), (), generator=generator))]

    def choose(self, name: str, pick: Pick, levels: int) -> Value:
        """See `Parameter`."""
        return pick(name, self.values(levels))


@dataclass(frozen=True)
class Categorical:
    """One of a few values, without an order.

    Args:
        choices: The values: text, numbers, booleans or ``None``.

    Raises:
        ValueError: If there is none, or one twice.
    """

    choices: tuple[Value, ...]

    def __post_init__(self) -> None:
        kinds = [(type(c), c) for c in self.choices]
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError(f"The choices are {list(self.choices)}; give at least one, and none twice.")

    def suggest(self, trial: Suggests, name: str) -> Value:
        """See `Parameter`."""
        found: Value = trial.suggest_categorical(name, self.choices)
        return found

    def draw(self, generator: torch.Generator) -> Value:
        """All alike probable."""
        return _one_of(self.choices, generator)

    def choose(self, name: str, pick: Pick, levels: int) -> Value:
        """See `Parameter`; all choices, whatever `levels`."""
        return pick(name, self.choices)


@dataclass(frozen=True)
class Cells:
    """The cell of a `nets.cells.CellNet`: six decisions, one for each edge; its value is the cell's code.

    Args:
        ops: Letters of the operations that an edge may have.

    Raises:
        ValueError: If a letter is no operation.
    """

    ops: str = "".join(OPS)

    def __post_init__(self) -> None:
        if not self.ops or set(self.ops) - {op.value for op in OPS} or len(set(self.ops)) < len(self.ops):
            raise ValueError(f"{self.ops!r} are no operations of a cell; give some of {''.join(OPS)}, each once.")
        if set(self.ops) == {"n"}:
            raise ValueError("A cell without operations computes nothing; give more than n.")

    def suggest(self, trial: Suggests, name: str) -> Value:
        """See `Parameter`."""
        return self._joined(lambda place: str(trial.suggest_categorical(f"{name}.{place}", tuple(self.ops))))

    def draw(self, generator: torch.Generator) -> Value:
        """All connected codes alike probable."""
        while True:
            letters = [str(_one_of(tuple(self.ops), generator)) for _ in EDGES]
            if Cell("".join(letters)).connected:
                return "".join(letters)

    def choose(self, name: str, pick: Pick, levels: int) -> Value:
        """See `Parameter`; all operations, whatever `levels`."""
        return self._joined(lambda place: str(pick(f"{name}.{place}", tuple(self.ops))))

    def _joined(self, letter: Callable[[str], str]) -> str:
        code = "".join([letter(f"{i}{j}") for i, j in EDGES])
        if not Cell(code).connected:
            raise Infeasible(f"The output of cell {code} does not depend on its input.")
        return code


@dataclass(frozen=True)
class When:
    """A setting that only matters where others have certain values; elsewhere it is not part of a configuration.

    Args:
        parameter: Its values.
        of: For each setting that decides it, the values with which it matters. They stand before it in the space.
    """

    parameter: Parameter
    of: Mapping[str, tuple[Value, ...]]

    def matters(self, config: Mapping[str, Value]) -> bool:
        """Whether a configuration has the setting."""
        return all(name in config and _among(config[name], values) for name, values in self.of.items())


@dataclass(frozen=True)
class Settings:
    """A search space: settings and their values.

    Args:
        parameters: Each setting's values, in the order in which they are decided.
        fixed: Settings with one value, part of every configuration.

    Raises:
        ValueError: If there is nothing to search, a setting stands twice, or one depends on a later one.

    Example:
        >>> space = Settings({
        ...     "eval.optimizer": Categorical(("sgd", "adam")),
        ...     "eval.lr": Float(1e-3, 1e-1, log=True),
        ...     "eval.momentum": When(Float(0.0, 0.9), {"eval.optimizer": ("sgd",)}),
        ... })
        >>> sum(1 for _ in space.grid(levels=3))
        12
    """

    parameters: Mapping[str, Parameter | When]
    fixed: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ValueError("The space has no setting to search; give at least one.")
        known = set(self.fixed)
        for name, parameter in self.parameters.items():
            if name in self.fixed:
                raise ValueError(f"{name} is both fixed and searched; leave one of them out.")
            for other, values in parameter.of.items() if isinstance(parameter, When) else ():
                if other not in known:
                    raise ValueError(f"{name} depends on {other}, which does not stand before it; move or name it.")
                self._check_values(name, other, values)
            known.add(name)

    def _check_values(self, name: str, other: str, values: tuple[Value, ...]) -> None:
        """Each value of a condition must be one that the other setting can have, as far as it has choices."""
        entry = self.parameters.get(other, Categorical((self.fixed.get(other),)))
        parameter = entry.parameter if isinstance(entry, When) else entry
        never = [v for v in values if isinstance(parameter, Categorical) and not _among(v, parameter.choices)]
        if never:
            raise ValueError(f"{name} depends on {other} being {never[0]!r}, which it never is; correct the value.")

    def suggest(self, trial: Suggests) -> Config:
        """The configuration that an Optuna trial suggests.

        Raises:
            Infeasible: If it makes nothing that could be tried.
        """
        return self._decided(lambda name, parameter: parameter.suggest(trial, name))

    def draw(self, generator: torch.Generator) -> Config:
        """A configuration at random."""
        return self._decided(lambda _, parameter: parameter.draw(generator))

    def choose(self, pick: Pick, *, levels: int = 5) -> Config:
        """A configuration from a finite number of choices, at most `levels` of a range.

        Raises:
            Infeasible: If it makes nothing that could be tried.
        """
        return self._decided(lambda name, parameter: parameter.choose(name, pick, levels))

    def grid(self, *, levels: int = 5) -> Iterator[Config]:
        """All feasible configurations with at most `levels` values of each range, in order.

        The last decision changes fastest.
        """
        path: list[int] = []  # the choices of the decisions, in order
        while True:
            counts: list[int] = []

            def pick(_: str, choices: tuple[Value, ...], counts: list[int] = counts) -> Value:
                counts.append(len(choices))
                if len(path) < len(counts):
                    path.append(0)
                return choices[path[len(counts) - 1]]

            try:
                found: Config | None = self.choose(pick, levels=levels)
            except Infeasible:
                found = None
            if found is not None:
                yield found
            del path[len(counts) :]
            while path and path[-1] + 1 == counts[len(path) - 1]:
                path.pop()
            if not path:
                return
            path[-1] += 1

    def _decided(self, decide: Callable[[str, Parameter], Value]) -> Config:
        config: Config = dict(self.fixed)
        for name, entry in self.parameters.items():
            parameter = entry.parameter if isinstance(entry, When) else entry
            if not isinstance(entry, When) or entry.matters(config):
                config[name] = decide(name, parameter)
        return config


def _among(value: Value, values: tuple[Value, ...]) -> bool:
    """Membership that tells 1 from true."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values)


def _evenly(count: int, levels: int) -> list[int]:
    """At most `levels` indices of `count`, from first to last; the middle one where there is one level."""
    if levels < 1:
        raise ValueError(f"A range cannot be cut into {levels} levels; give at least 1.")
    if levels == 1:
        return [count // 2]
    return sorted({round(k * (count - 1) / (min(levels, count) - 1 or 1)) for k in range(min(levels, count))})


def _one_of(values: tuple[Value, ...], generator: torch.Generator) -> Value:
    return values[int(torch.randint(len(values), (), generator=generator))]
