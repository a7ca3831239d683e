"""What comparisons share: settings for the methods that have them, and rows that are scored once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


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
