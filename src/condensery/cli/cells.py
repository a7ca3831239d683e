"""What comparisons share: settings for the methods that have them, and rows that are scored once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from condensery.cli.console import progress

if TYPE_CHECKING:
    from condensery.runs import Folder

T = TypeVar("T")


def applicable(
    names: Sequence[str],
    overrides: Sequence[str],
    takes: Callable[[str], Iterable[str]],
    *,
    optional: Sequence[str] = (),
) -> dict[str, list[str]]:
    """For each method the settings that it has; one that none of them has is left in, to be complained of.

    Args:
        names: The methods.
        overrides: Settings, as typed.
        takes: The names of a method's settings.
        optional: Settings among them that need not be anyone's.
    """
    from condensery.recipes import values

    there = {name: set(takes(name)) for name in names}
    keyed = [(values.split(setting)[0], setting) for setting in overrides]
    known = set().union(*there.values(), (values.split(setting)[0] for setting in optional))
    return {name: [s for key, s in keyed if key in there[name] or key not in known] for name in names}


def with_recovery(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the share of the last accuracy on all data (``"asked": "all"``) that each reaches."""
    full = {row["network"]: row["last"]["mean"] for row in rows if row["asked"] == "all"}
    keyed = [(row, full.get(row["network"])) for row in rows]
    return [{**row, "recovery": row["last"]["mean"] / top if top else None} for row, top in keyed]


def digest(what: Mapping[str, Any] | bytes) -> str:
    """A few letters that change with plain data, or with bytes."""
    held = what if isinstance(what, bytes) else json.dumps(what, sort_keys=True).encode()
    return hashlib.blake2b(held, digest_size=4).hexdigest()


def kept(path: Path, what: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row that was scored before in the same way, if there is one.

    Args:
        path: The file.
        what: Everything that decides the row, plain data.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        row: dict[str, Any] = found["row"]
        return row if found["what"] == what else None
    except (ValueError, KeyError, TypeError):
        return None  # damaged: scored again


def keep(path: Path, what: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Write down a row for `kept`."""
    from condensery.store import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"what": what, "row": row}, indent=1))


def scored(path: Path, what: Mapping[str, Any], n: int, name: str, row: Callable[[Callable[[str], None]], Any]) -> Any:
    """A row that was scored before in the same way, or is now, with a progress bar; plain data.

    Args:
        path: Where it is kept.
        what: Everything that decides it, plain data.
        n: Networks of the row.
        name: What they are trained on.
        row: Computes it; is given who is to be told of each network.
    """
    found = kept(path, what)
    if found is not None:
        return found
    with progress(n, "networks", name) as bar:
        plain = row(lambda text: bar.add(1, text)).to_json()
    keep(path, what, plain)
    return plain


def chosen(
    folder: Folder, settings: Callable[[], Mapping[str, Any]], load: Callable[[Path], T], select: Callable[[], T]
) -> T:
    """A selection that is in its folder, or is made now.

    Args:
        folder: The folder.
        settings: What the selection is; one in the folder must be the same.
        load: Reads it.
        select: Makes it.

    Raises:
        ValueError: If the folder holds another one.
    """
    if not folder.finished:
        return select()
    folder.claim(settings(), resume=True)
    return load(folder.artifact)


@dataclass(frozen=True)
class Entry:
    """What a row of graphs is about.

    Attributes:
        name: For the table.
        part: What trains, or what draws it.
        key: What tells it from others.
        recipe: How networks are trained, or ``None`` for the plan's way.
        folder: Where the row is kept, or ``None`` for a folder of its own.
    """

    name: str
    part: Any
    key: Mapping[str, Any]
    recipe: Any = None
    folder: Path | None = None


def way_of(plan: Any) -> str:
    """How networks are trained under a plan for graphs, whatever is condensed."""
    plain = plan.to_json()
    return json.dumps([plain[name] for name in ("test", "evaluation", "data")], sort_keys=True)
