"""What all kinds of recipes share: reading a file of rules, and settings that are found by their names."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.resources import files
from typing import Any

from condensery import catalog
from condensery.recipes import values
from condensery.recipes.values import Value


def read(name: str, *, conditions: Iterable[str], sections: Iterable[str]) -> dict[str, Any]:
    """A recipe file, its keys checked, after the rules of the one that it extends.

    Args:
        name: Of the file, without ending.
        conditions: Keys of a rule that say when it applies.
        sections: Keys of a rule that hold settings.

    Raises:
        ValueError: Naming a key that is none of them.
    """
    file = tomllib.loads(files("condensery.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    check_keys(name, file, ("source", "extends", "published", "rule"))
    for rule in file["rule"]:
        check_keys(name, rule, ("name", *conditions, *sections))
    if "extends" not in file:
        return file
    return {**file, "rule": [*read(file["extends"], conditions=conditions, sections=sections)["rule"], *file["rule"]]}


def there_is(name: str) -> bool:
    """Whether there is a recipe file of that name, without ending.

    Example:
        >>> there_is("dm"), there_is("majority")
        (True, False)
    """
    return files("condensery.recipes").joinpath(f"{name}.toml").is_file()


def check_keys(name: str, table: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Refuse a table of a recipe file with a key that it may not have.

    Raises:
        ValueError: Naming it.
    """
    unknown = sorted(set(table) - set(allowed))
    if unknown:
        raise ValueError(f"recipes/{name}.toml has an unknown key {unknown[0]!r}; it may hold {', '.join(allowed)}.")


def for_dataset(rule: Mapping[str, Any], dataset: str) -> bool:
    """Whether a rule is for a data set, by the patterns under ``datasets``; without them it is for all.

    Example:
        >>> for_dataset({"datasets": ["emnist-*"]}, "emnist-letters"), for_dataset({}, "mine")
        (True, True)
    """
    return any(fnmatch(dataset, pattern) for pattern in rule.get("datasets", ["*"]))


def headline(file: Mapping[str, Any], dataset: str, size: int | None, unit: str) -> str:
    """Whether a recipe's values are the published ones for exactly this case.

    Args:
        file: As `read` gives it.
        dataset: The data's name.
        size: Of the condensed set, or ``None`` where the values do not depend on it.
        unit: What the size counts.
    """
    published = file.get("published", {})
    if dataset not in published:
        return "defaults: nothing is published for this data set" if dataset else "defaults"
    reported = published[dataset]
    if not reported:
        return f"settings of this library for {dataset}"
    if size is None:
        return f"published settings for {dataset}"
    if size in reported:
        return f"published settings for {dataset} at {size} {unit}"
    carried = f"carried over to {size} {unit} (published for {', '.join(map(str, reported))})"
    return f"published settings for {dataset}, {carried}"


@dataclass
class Sheet:
    """Settings in sections, laid over each other; names and values are checked as they come.

    Attributes:
        method: Whose they are, for messages.
        kinds: The kind of each setting, by section.
        prefixes: What stands before a setting's name in each section, such as ``"eval."``.
        values: What was chosen so far, by section.
    """

    method: str
    kinds: Mapping[str, Mapping[str, str]]
    prefixes: Mapping[str, str]
    values: dict[str, dict[str, Value]] = field(init=False)

    def __post_init__(self) -> None:
        self.values = {section: {} for section in self.kinds}

    @property
    def names(self) -> list[str]:
        """Every name that ``--set`` takes."""
        return [self.prefixes[section] + name for section, kinds in self.kinds.items() for name in kinds]

    def place(self, name: str) -> tuple[str, str]:
        """The section of a setting and its name there.

        Raises:
            ValueError: If there is none of that name, with the nearest.
        """
        for section, inside in self.kinds.items():
            rest = name.removeprefix(self.prefixes[section])
            if rest in inside and name == self.prefixes[section] + rest:
                return section, rest
        hint = catalog.did_you_mean(name, self.names)
        raise ValueError(f"{self.method} has no setting {name!r}{hint}; it takes {', '.join(self.names)}.")

    def set(self, name: str, value: object) -> None:
        """One setting by its full name."""
        section, rest = self.place(name)
        self.values[section][rest] = values.read(value, self.kinds[section][rest], name)

    def lay(self, rule: Mapping[str, Any], *, ignored: Sequence[str] = ()) -> bool:
        """Lay a rule of a file over what there is; whether it has anything for the method.

        Args:
            rule: The rule.
            ignored: Sections in which names that the method does not have are passed over.
        """
        sections = [section for section in self.kinds if section in rule]
        for section in sections:
            for name, value in rule[section].items():
                if name in self.kinds[section]:
                    kind = self.kinds[section][name]
                    self.values[section][name] = values.read(value, kind, f"{section}.{name}")
                elif section not in ignored:
                    raise ValueError(f"The recipe of {self.method} has an unknown name {section}.{name}.")
        return bool(sections)
