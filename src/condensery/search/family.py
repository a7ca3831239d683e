"""Families: what the settings of a configuration mean, a network and its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from condensery import nets
from condensery.recipes import values as words
from condensery.search.settings import (
    Categorical,
    Cells,
    Float,
    Infeasible,
    Int,
    Parameter,
    Settings,
    Value,
    When,
)

__all__ = ["Family"]


@dataclass(frozen=True)
class Family:
    """What the settings of a configuration mean.

    ``net`` is the network's class, ``net.NAME`` an argument of it, ``eval.NAME`` a setting of its training.

    Args:
        network: The network that configurations are laid over, as `nets.describe` gives it, with what the data decide.
            Its other arguments count only where the class stays the same.
    """

    network: Mapping[str, Any]

    zoo: ClassVar[Mapping[str, type[nn.Module]]] = {}
    """The networks by name."""

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Names of networks with some of their arguments: ``{"net": class, ...}``."""

    given: ClassVar[tuple[str, ...]] = ()
    """The arguments that the data decide."""

    trained: ClassVar[type] = object
    """The dataclass whose fields are the settings of training."""

    lengths: ClassVar[Mapping[str, str]] = {}
    """Those that are not searched, and why."""

    def typed(self, space: Settings) -> Settings:
        """A space whose settings all exist and have values of the right kind; words such as ``none`` are read.

        Raises:
            ValueError: In one sentence, for a setting that is not there or a value that does not fit.
        """
        kinds = self._kinds(space)
        unknown = [name for name in (*space.fixed, *space.parameters) if name not in kinds]
        if unknown:
            raise ValueError(self._unknown(unknown[0], kinds))
        fixed = {name: self._read(value, name, kinds) for name, value in space.fixed.items()}
        parameters = {name: self._typed(entry, name, kinds) for name, entry in space.parameters.items()}
        return Settings(parameters, fixed)

    def networks(self, space: Settings) -> list[str]:
        """The names of the networks that a space has."""
        entry = space.parameters.get("net", Categorical((space.fixed.get("net", self.network["net"]),)))
        if not isinstance(entry, Categorical):
            raise ValueError("net takes choices, names of networks; give such.")
        there = {name.lower(): name for name in self._names}
        unknown = [name for name in entry.choices if str(name).lower() not in there]
        if unknown:
            raise ValueError(f"There is no network {unknown[0]!r}; choose from {', '.join(self._names)}.")
        return [there[str(name).lower()] for name in entry.choices]

    def module(self, config: Mapping[str, Value]) -> nn.Module:
        """A network of a configuration.

        Raises:
            Infeasible: If there is no such network.
        """
        own = {name.removeprefix("net."): value for name, value in config.items() if name.startswith("net.")}
        name = self._proper(str(config.get("net", self.network["net"])))
        variant = dict(self.variants.get(name, {"net": name}))
        same = name == self.network["net"]
        base = self.network if same else {key: self.network[key] for key in self.given}
        try:
            return nets.build({**base, **variant, **own})
        except ValueError as error:
            raise Infeasible(str(error)) from None

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys((*self.zoo, *self.variants)))

    def _kinds(self, space: Settings) -> dict[str, str]:
        kinds = {f"eval.{name}": kind for name, kind in words.fields_of(self.trained, without=(*self.lengths,)).items()}
        for network in self.networks(space):
            held = self.variants.get(network, {"net": network})
            arguments = words.arguments_of(self.zoo[str(held["net"])])
            kinds |= {f"net.{name}": kind for name, kind in arguments.items() if name not in held}
        return {"net": "str", **kinds}

    def _proper(self, name: str) -> str:
        """A network's name as it is spelt."""
        return next((known for known in self._names if known.lower() == name.lower()), name)

    def _unknown(self, name: str, kinds: Mapping[str, str]) -> str:
        if name.removeprefix("eval.") in self.lengths and name.startswith("eval."):
            return f"{name} is not searched: {self.lengths[name.removeprefix('eval.')]}; leave it out."
        return f"There is no setting {name!r}; there are {', '.join(kinds)}."

    def _read(self, value: Value, name: str, kinds: Mapping[str, str]) -> Value:
        """A value of the kind that a setting takes; the names of networks as they are spelt."""
        found: Value = words.read(value, kinds[name], name)
        return self._proper(str(found)) if name == "net" else found

    def _typed(self, entry: Parameter | When, name: str, kinds: Mapping[str, str]) -> Parameter | When:
        """Values of the kind that a setting takes."""
        if isinstance(entry, When):
            of = {k: tuple(self._read(v, k, kinds) for v in values) for k, values in entry.of.items()}
            inner = self._typed(entry.parameter, name, kinds)
            assert not isinstance(inner, When)
            return When(inner, of)
        if isinstance(entry, Categorical):
            return Categorical(tuple(self._read(value, name, kinds) for value in entry.choices))
        if isinstance(entry, Float | Int):
            for value in (entry.low, entry.high):
                self._read(value, name, kinds)
        if isinstance(entry, Cells) and name != "net.code":
            raise ValueError(f"{name} is not a cell; cells are values of net.code.")
        return entry
