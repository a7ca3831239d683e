"""The idx format of MNIST and its kin: a magic number, the sizes, then bytes."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path

import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.data._errors import one_line

_BYTES = 8  # the type code for unsigned bytes, the third byte of the magic number


def read_idx(path: str | os.PathLike[str], ndim: int) -> Tensor:
    """One idx file of unsigned bytes, gzipped or not (told by its content).

    Args:
        path: The file.
        ndim: Dimensions expected: 3 for images, 1 for labels.

    Returns:
        uint8 tensor with `ndim` dimensions.

    Raises:
        ValueError: For a file that cannot be read or is no such idx file; the message names it.
    """
    path = Path(path)
    content = _content(path)
    start = 4 + 4 * ndim
    if len(content) < start:
        raise ValueError(f"{path} is {len(content)} bytes long, too short for an idx header: fetch it again")
    if content[:4] != bytes((0, 0, _BYTES, ndim)):
        raise ValueError(
            f"{path} begins with {content[:4].hex()}, not 0000080{ndim}: give an idx file of {ndim}-dimensional bytes"
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    expected = 1
    for side in shape:
        expected *= side
    if len(content) - start != expected:
        raise ValueError(
            f"{path} announces {' x '.join(map(str, shape))} values and holds {len(content) - start}: fetch it again"
        )
    if expected == 0:
        raise ValueError(f"{path} holds no values: give a file with at least one image")
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).reshape(shape)


def read_pair(images: Path, labels: Path) -> Batch:
    """Images and their labels from two idx files.

    Returns:
        uint8 ``[n, 1, h, w]`` and int64 ``[n]``.

    Raises:
        ValueError: For a bad file, or where the two differ in number.
    """
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y):
        raise ValueError(f"{images} has {len(x)} images and {labels} has {len(y)} labels: use two files of one set")
    return Batch(x.unsqueeze(1), y.long())


def read_folder(folder: Path, prefix: str = "") -> tuple[Batch, Batch]:
    """Training and test set from the four idx files of a folder.

    Args:
        folder: Holds ``train-images-idx3-ubyte`` and so on, ``t10k-`` or ``test-``, ``.gz`` or not.
        prefix: What the names begin with before ``train-``; needed where the folder holds several sets.

    Raises:
        ValueError: Where a file is missing, doubtful or bad.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give the one with the four idx files")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    train, test = (
        read_pair(
            *(_pick(folder, names, prefix, part, *kind) for kind in (("images", 3), ("labels", 1))),
        )
        for part in ("train", "(?:t10k|test)")
    )
    return train, test


def _pick(folder: Path, names: list[str], prefix: str, part: str, kind: str, ndim: int) -> Path:
    start = re.escape(prefix) if prefix else r"(?:.*[-_])?"
    pattern = re.compile(rf"({start}{part}-{kind}[-.]idx{ndim}-ubyte)(?:\.gz)?")
    matches = {m.group(1): m.group(0) for name in reversed(names) if (m := pattern.fullmatch(name))}
    if not matches:
        shown = f"{prefix}{'train' if part == 'train' else 't10k'}-{kind}-idx{ndim}-ubyte"
        raise ValueError(f"{folder} has no {shown} (or {shown}.gz): put it there")
    if len(matches) > 1:
        raise ValueError(f"{folder} holds several idx sets ({', '.join(sorted(matches))}): name one with prefix=")
    # names run backwards, so the plain file, read faster, has replaced its own .gz
    return folder / next(iter(matches.values()))


def _content(path: Path) -> bytearray:
    try:
        content = path.read_bytes()
        return bytearray(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}): fetch it again") from error
