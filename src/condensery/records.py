"""What the files of all condensed sets share: how they are opened, and the plain data in them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from condensery import configs
from condensery.store import DamagedFile, load_tree

T = TypeVar("T")

MADE: dict[str, type] = {
    "network": Mapping,
    "dataset": str,
    "method": str,
    "options": Mapping,
    "seed": int,
    "split": Mapping,
    "scores": Mapping,
    "versions": Mapping,
    "provenance": Mapping,
}
"""What a file says of how its set was made, and the type of each part."""


def about(made: Any) -> dict[str, Any]:
    """What made a condensed set, plain data for the files of other programs.

    Args:
        made: An artifact with a preprocessing of its own, a network and a recipe.
    """
    said = {
        name: plain(getattr(made, name)) for name in ("method", "dataset", "seed", "options", "versions", "network")
    }
    return {**said, "preprocessing": made.preprocessing.config(), "recipe": configs.to_config(made.recipe)}


def digest(head: str, parts: Iterable[Tensor | None]) -> str:
    """What tensors hold: it changes if any number, shape or type of them does, or the text before them."""
    made = hashlib.blake2b(head.encode(), digest_size=16)
    for part in parts:
        if part is not None:
            made.update(f"{part.dtype} {tuple(part.shape)}".encode())
            made.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


def opened(path: str | Path, make: Callable[[dict[str, Any]], T], *, kind: str, version: int, what: str) -> T:
    """What a file holds. Nothing in it is executed or unpickled.

    Args:
        path: The file.
        make: From the file's tree to the object; it may raise where the tree makes no sense.
        kind: The kind of file expected.
        version: The latest version of the layout that is understood.
        what: What the file should hold, for the message.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFile: In one sentence, if it cannot be read or does not make sense.
    """
    tree = load_tree(path, kind=kind, version=version)
    try:
        return make(tree)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFile(f"{path} does not hold a usable {what} ({reason}).") from None


def check_types(tree: Mapping[str, Any], types: Mapping[str, Any], *, also: Mapping[str, bool] | None = None) -> None:
    """Refuse parts of the wrong type: the digest of a file only tells that it was written so.

    Args:
        tree: The file's tree.
        types: The type, or types, of each part.
        also: Further parts by name, and whether they are as they must be.

    Raises:
        TypeError: Naming the first that is not.
    """
    wrong = [name for name, kind in types.items() if not isinstance(tree[name], kind)]
    wrong += [name for name, right in (also or {}).items() if not right]
    if wrong:
        raise TypeError(f"{wrong[0]} is of a type that it cannot be")


def plain(value: Any) -> Any:
    """Mappings of any kind as dicts, tuples kept."""
    return {k: plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def versions() -> dict[str, str]:
    """Of condensery, torch and Python."""
    from condensery import __version__

    return {"condensery": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
