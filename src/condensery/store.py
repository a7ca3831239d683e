"""Files that carry tensors and plain data together, written whole or not at all, and read without executing anything.

A file is one ``.safetensors``: tensors in its body, and in its metadata the *kind* of file, the version of its
layout, the tree of plain values that says where each tensor belongs (JSON), and a digest of all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class DamagedFile(ValueError):
    """A file that is truncated, corrupted, of another kind, or of a later version than this library reads."""


def save_tree(path: str | Path, tree: Mapping[str, Any], *, kind: str, version: int) -> None:
    """Write `tree` to `path`: to a temporary name first, flushed to disk, then renamed over the old file.

    Args:
        path: Where to write; the folder must exist.
        tree: Nested dicts, lists and tuples of tensors, strings, numbers, booleans and ``None``.
        kind: What the file is, checked by `load_tree`.
        version: Version of the tree's layout.

    Raises:
        ValueError: If the tree holds something that is neither plain data nor a tensor.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, tensors, "tree"), separators=(",", ":"))
    metadata = {"kind": kind, "version": str(version), "tree": text, "digest": _digest(text, tensors)}
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(mode)  # save_file makes files that only their owner may read, whatever the umask
    _flush(path.parent)


def load_tree(path: str | Path, *, kind: str, version: int) -> dict[str, Any]:
    """Read what `save_tree` wrote.

    Args:
        path: The file.
        kind: The kind of file expected.
        version: The latest version of the layout that the caller understands.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFile: With one sentence, if the file cannot be trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the path.")
    metadata, tensors = _read(path)
    if metadata.get("kind") != kind:
        raise DamagedFile(f"{path} is not a {kind} file; give a file that condensery wrote as one.")
    if not metadata.get("version", "").isdecimal() or int(metadata["version"]) > version:
        raise DamagedFile(
            f"{path} has layout version {metadata.get('version', 'unknown')!s:.20}, this condensery reads up to "
            f"{version}; upgrade condensery."
        )
    text = metadata.get("tree", "")
    if metadata.get("digest") != _digest(text, tensors):
        raise DamagedFile(f"{path} is damaged (its contents do not match its digest); restore it from a copy.")
    return _decode(json.loads(text), tensors)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; the file that was written there takes its place when all went well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which gets its name when all went well.

    Raises:
        ValueError: If there is something of that name already.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists already; choose another folder.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def decimals(numbers: Tensor) -> list[str]:
    """The shortest decimals that read back as the same float32 ``[n]``.

    Example:
        >>> decimals(torch.tensor([0.1, 2.0]))
        ['0.1', '2']
    """
    return [np.format_float_positional(value, trim="-") for value in numbers.detach().cpu().float().numpy()]


def write_text(path: str | Path, text: str) -> None:
    """Write a text file to a temporary name, then rename it over `path`."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # Cloned because the file is memory-mapped: a tensor must not change if the file does.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DamagedFile(f"{path} is not a readable safetensors file ({reason}); restore it from a copy.") from None


def _encode(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """Plain JSON for `value`, its tensors moved to `tensors` under the name of their place."""
    if isinstance(value, Tensor):
        tensors[where] = value.detach().cpu().contiguous().clone()
        return {"__tensor__": where}
    if isinstance(value, Mapping):
        # Optimizer states have integer keys, which JSON objects would turn into strings.
        return {"__map__": [[key, _encode(item, tensors, f"{where}.{key}")] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [_encode(item, tensors, f"{where}.{i}") for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(item, tensors, f"{where}.{i}") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{where} holds a {type(value).__name__}, which a file cannot carry; convert it to plain data.")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__tuple__" in value:
        return tuple(_decode(item, tensors) for item in value["__tuple__"])
    return {key: _decode(item, tensors) for key, item in value["__map__"]}


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Ask the system to put a file, or a folder's list of names, on the disk: a rename alone does not survive a
    power cut.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
