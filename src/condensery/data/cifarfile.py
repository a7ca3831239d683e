"""The two forms CIFAR is published in: fixed-length binary records, and pickled Python batches.

The batches are read by an unpickler that knows nothing but plain containers and arrays of bytes, so a batch
from a stranger cannot run code.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.data._errors import one_line

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """How one of the two CIFARs is spread over files.

    Attributes:
        classes: How many.
        train: Base names of the training files (``.bin`` added for the binary form).
        test: Base name of the test file.
        header: Label bytes before the pixels of a binary record; the last is the label used.
        key: Name of the labels in a Python batch.
        names: Class-name files of the binary form and key of the class names in the Python form's meta file.
    """

    classes: int
    train: tuple[str, ...]
    test: str
    header: int
    key: bytes
    names: tuple[str, str, bytes]


TEN = Layout(
    10,
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test_batch",
    1,
    b"labels",
    ("batches.meta.txt", "batches.meta", b"label_names"),
)
HUNDRED = Layout(
    100, ("train",), "test", 2, b"fine_labels", ("fine_label_names.txt", "meta", b"fine_label_names")
)  # a binary record has the coarse label, then the fine one


def read_folder(folder: Path, layout: Layout) -> tuple[Batch, Batch, tuple[str, ...]]:
    """Training set, test set and class names; the binary form where both are there.

    Returns:
        Two batches, uint8 ``[n, 3, 32, 32]`` and int64 ``[n]``, and the names in label order.

    Raises:
        ValueError: For a missing or bad file; the message names it.
    """
    binary = (folder / f"{layout.test}.bin").exists()
    read, suffix = (read_binary, ".bin") if binary else (read_python, "")
    parts = [read(folder / f"{name}{suffix}", layout) for name in layout.train]
    train = Batch(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))
    test = read(folder / f"{layout.test}{suffix}", layout)
    return train, test, _class_names(folder, layout, binary)


def read_binary(path: Path, layout: Layout) -> Batch:
    """One ``.bin`` file: records of label bytes and 3,072 pixels, red plane first.

    Returns:
        uint8 ``[n, 3, 32, 32]`` and int64 ``[n]``.

    Raises:
        ValueError: For a missing file, a size that is no whole number of records, or a label out of range.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}): put it there") from error
    width = layout.header + _PIXELS
    if len(content) == 0 or len(content) % width:
        raise ValueError(f"{path} is {len(content)} bytes, no whole number of {width}-byte records: fetch it again")
    records = torch.from_numpy(content).reshape(-1, width)
    labels = records[:, layout.header - 1].long()
    return Batch(records[:, layout.header :].reshape(-1, 3, 32, 32), _checked(path, labels, layout))


def read_python(path: Path, layout: Layout) -> Batch:
    """One pickled batch: a dictionary with ``data``, uint8 ``[n, 3072]``, and labels; runs no code.

    Returns:
        uint8 ``[n, 3, 32, 32]`` and int64 ``[n]``.

    Raises:
        ValueError: For a missing or bad file, or one that asks for anything but plain data.
    """
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary: give an original CIFAR batch")
    data: Any = content.get(b"data", content.get("data"))
    labels: Any = content.get(layout.key, content.get(layout.key.decode()))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1:] != (_PIXELS,):
        raise ValueError(f"{path} has no uint8 array 'data' of {_PIXELS} columns: give an original CIFAR batch")
    whole = isinstance(labels, list) and all(type(label) is int and 0 <= label < 256 for label in labels)
    if not whole or len(labels) != len(data) or not labels:
        raise ValueError(f"{path} has no list '{layout.key.decode()}' of {len(data)} class numbers: fetch it again")
    x = torch.from_numpy(np.ascontiguousarray(data)).reshape(-1, 3, 32, 32)
    return Batch(x, _checked(path, torch.tensor(labels), layout))


def _checked(path: Path, labels: Tensor, layout: Layout) -> Tensor:
    if int(labels.max()) >= layout.classes:
        raise ValueError(f"{path} has label {int(labels.max())} but only {layout.classes} classes: fetch it again")
    return labels


def _class_names(folder: Path, layout: Layout, binary: bool) -> tuple[str, ...]:
    """The published names, or the numbers where the file of names is not there."""
    text, meta, key = layout.names
    path = folder / (text if binary else meta)
    if not path.exists():
        return tuple(map(str, range(layout.classes)))
    names: list[Any]
    if binary:
        names = path.read_text("utf-8", errors="replace").split()
    else:
        content = _unpickle(path)
        found = content.get(key, content.get(key.decode())) if isinstance(content, dict) else None
        names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in found or []]
    if len(names) != layout.classes or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} does not name {layout.classes} classes: fetch it again, or remove it to use numbers")
    return tuple(names)


class _ByteType:
    """Stands in for numpy.dtype: bytes only, so no array of objects can be built.

    Without attributes, so that a pickle cannot set any.
    """

    __slots__ = ()

    def __call__(self, code: object, *rest: object) -> np.dtype[np.uint8]:
        if code not in ("u1", b"u1", "|u1", b"|u1"):
            raise pickle.UnpicklingError(f"an array of type {code!r} instead of bytes")
        return np.dtype(np.uint8)


class _Latin:
    """Stands in for _codecs.encode, which pickles use to carry bytes as text."""

    __slots__ = ()

    def __call__(self, text: str, codec: str = "latin1") -> bytes:
        if codec not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError(f"the codec {codec!r}")
        return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _ByteType(),
    ("_codecs", "encode"): _Latin(),
    **{
        # taken from an array itself: its module was renamed in numpy 2
        (f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0, np.uint8).__reduce__()[0]
        for core in ("core", "_core")
    },
}


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, text, numbers and byte arrays; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR batch needs") from None


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="bytes").load()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: put it there") from error
    except Exception as error:  # a damaged pickle raises nearly anything, and all of it means the same here
        raise ValueError(f"{path} is no plain CIFAR batch ({one_line(error)}): fetch it again") from error
