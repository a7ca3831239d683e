"""Finding data sets on this machine, and downloading them by name, once, checked.

A data set is looked for in the folder the caller names; else under the environment variable
``CONDENSERY_DATA``; else in the cache (``~/.cache/condensery`` on Linux); else it is downloaded into the
cache. Every download is compared with the published checksum before it is kept. What cannot be had raises
`DataMissing`, which says which files to put where.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condensery.data._errors import DataMissing, one_line

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "FASHION_MNIST",
    "KMNIST",
    "MNIST",
    "TINY_IMAGENET",
    "DataMissing",
    "Remote",
    "Source",
    "cache_folder",
    "download",
    "emnist_source",
    "locate",
]

DATA_VARIABLE = "CONDENSERY_DATA"


@dataclass(frozen=True)
class Remote:
    """One file on the network.

    Attributes:
        file: Its name once here.
        urls: Where to get it, best first; the next is tried when one fails.
        checksum: ``md5:...`` or ``sha256:...`` of the published file, or ``git:...``, the number that git gives it.
    """

    file: str
    urls: tuple[str, ...]
    checksum: str


@dataclass(frozen=True)
class Source:
    """A data set as it lies on a disk and on the network.

    Attributes:
        title: Its name in messages.
        folders: Where it lies under a data root; a download goes into the first.
        needs: Files or folders that show it is there: each entry lists names of which one suffices.
        remotes: What to download: the files themselves, or one archive.
        inside: For an archive, the folder in it that becomes ``folders[0]``; None for plain files.
    """

    title: str
    folders: tuple[str, ...]
    needs: tuple[tuple[str, ...], ...]
    remotes: tuple[Remote, ...]
    inside: str | None = None

    def found_in(self, folder: Path) -> bool:
        """Whether `folder` holds everything in `needs`."""
        return all(any((folder / name).exists() for name in names) for names in self.needs)


def cache_folder() -> Path:
    """Where downloads are kept: the user's cache folder for this library."""
    import pooch

    return Path(pooch.os_cache("condensery"))


def locate(source: Source, root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds `source`, downloading it if need be.

    Args:
        source: Which data set.
        root: A folder that holds its files, directly or under one of its usual folders; nothing is downloaded
            then. None looks under ``CONDENSERY_DATA``, then in the cache, then downloads into the cache.

    Raises:
        DataMissing: Where it is not there, or cannot be downloaded; the message names files and folder.
    """
    if root is not None:
        found = _search(source, Path(root))
        if found is None:
            raise DataMissing(
                f"{source.title} is not in {Path(root)}: put {_wanted(source)} there, or leave root out to download it"
            )
        return found
    cache = cache_folder()
    given = os.environ.get(DATA_VARIABLE)
    for place in ([Path(given)] if given else []) + [cache]:
        found = _search(source, place)
        if found is not None:
            return found
    return download(source, cache)


def download(source: Source, cache: Path) -> Path:
    """Download `source` into ``cache/folders[0]``, showing progress on a terminal.

    Files that are there already with the right checksum are not fetched again.

    Args:
        source: Which data set.
        cache: The data root to download into.

    Returns:
        The folder that now holds it.

    Raises:
        DataMissing: Where a file cannot be had from any of its addresses, or differs from the published one.
    """
    place = cache / source.folders[0]
    if source.inside is None:
        for remote in source.remotes:
            _retrieve(remote, place, source)
        return place
    for remote in source.remotes:
        archive = _retrieve(remote, cache, source)
        _unpack(archive, source.inside, place)
        archive.unlink()  # hundreds of megabytes that would never be read again
    return place


def matches(path: Path, checksum: str) -> bool:
    """Whether a file is the published one.

    Args:
        path: The file.
        checksum: As `Remote` has it.
    """
    kind, wanted = checksum.split(":")
    held = path.read_bytes()
    if kind == "git":
        held, kind = b"blob %d\0" % len(held) + held, "sha1"
    return hashlib.new(kind, held, usedforsecurity=False).hexdigest() == wanted


def _search(source: Source, root: Path) -> Path | None:
    places = [root / folder for folder in source.folders] + [root]
    return next((place for place in places if source.found_in(place)), None)


def _wanted(source: Source) -> str:
    return ", ".join(names[0] for names in source.needs)


def _retrieve(remote: Remote, folder: Path, source: Source) -> Path:
    import pooch

    problems = []
    for url in remote.urls:
        try:
            found = Path(
                pooch.retrieve(
                    url,
                    known_hash=None if remote.checksum.startswith("git:") else remote.checksum,
                    fname=remote.file,
                    path=folder,
                    downloader=_downloader(remote.file),
                )
            )
            if matches(found, remote.checksum):
                return found
            found.unlink()
            raise ValueError(remote.checksum)
        except OSError as error:  # requests' own exceptions are OSErrors
            problems.append(f"{url}: {one_line(error)}")
        except ValueError:  # pooch's word for a checksum that differs; it has deleted what it fetched
            problems.append(f"{url}: not the published file, its checksum is not {remote.checksum}")
    place = folder if source.inside is None else folder / source.folders[0]
    raise DataMissing(
        f"{source.title} is not on this machine and {remote.file} could not be downloaded "
        f"({'; '.join(problems)}): put {_wanted(source)} in {place}, "
        f"or in a folder {source.folders[0]} under the one that {DATA_VARIABLE} names"
    )


def _downloader(label: str) -> Any:
    import pooch

    bar = _Bar(label) if sys.stderr.isatty() else False
    return pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=30)


class _Bar:
    """A rich progress bar with the four members that pooch drives."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(label, total=None)
        self._progress.start()

    @property
    def total(self) -> float | None:
        """Bytes expected, as the server says."""
        return self._progress.tasks[0].total

    @total.setter
    def total(self, count: float) -> None:
        self._progress.update(self._task, total=count or None)

    def update(self, count: float) -> None:
        """`count` more bytes have come."""
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        """Back to no bytes (pooch does so before it fills the bar at the end)."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def _unpack(archive: Path, inside: str, place: Path) -> None:
    """Unpack beside `place` and move in one step, so that an interrupted run leaves no half a data set."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        try:
            _extract(archive, scratch)
        except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{archive} cannot be unpacked ({one_line(error)}): delete it and download again"
            ) from error
        inner = Path(scratch) / inside
        if not inner.is_dir():
            raise ValueError(f"{archive} holds no folder {inside}: delete it and download again")
        if place.exists():
            shutil.copytree(inner, place, dirs_exist_ok=True)
        else:
            inner.rename(place)


def _extract(archive: Path, target: str) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(target)
    else:
        with tarfile.open(archive) as packed_tar:
            packed_tar.extractall(target, filter="data")  # refuses paths that leave the target


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _spellings(name: str) -> tuple[str, ...]:
    """An idx file's usual names: packed or not, and with the dot some copies have."""
    dotted = name.replace("-idx", ".idx")
    return (f"{name}.gz", name, dotted, f"{dotted}.gz")


def _idx_source(title: str, folders: tuple[str, ...], addresses: tuple[str, ...], md5s: tuple[str, ...]) -> Source:
    remotes = tuple(
        Remote(f"{name}.gz", tuple(f"{address}{name}.gz" for address in addresses), f"md5:{md5}")
        for name, md5 in zip(_IDX_FILES, md5s, strict=True)
    )
    return Source(title, folders, tuple(_spellings(name) for name in _IDX_FILES), remotes)


MNIST = _idx_source(
    "MNIST",
    ("mnist", "MNIST/raw"),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/",),
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)

FASHION_MNIST = _idx_source(
    "Fashion-MNIST",
    ("fashion-mnist", "FashionMNIST/raw"),
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)

KMNIST = _idx_source(
    "Kuzushiji-MNIST",
    ("kmnist", "KMNIST/raw"),
    ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
)


def emnist_source(split: str) -> Source:
    """Where one of EMNIST's six splits lies; all six come in one archive of about 560 MB.

    Args:
        split: balanced, byclass, bymerge, digits, letters or mnist, as its files are named.
    """
    names = tuple(f"emnist-{split}-{name.replace('t10k', 'test')}" for name in _IDX_FILES)
    archive = Remote(
        "emnist-gzip.zip",
        ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
        "md5:58c8d27c78d21e728a6bc7b3cc06412e",
    )
    folders = ("emnist", "EMNIST/raw", "gzip")
    return Source(f"EMNIST {split}", folders, tuple(_spellings(name) for name in names), (archive,), "gzip")


CIFAR10 = Source(
    "CIFAR-10",
    ("cifar-10-batches-bin", "cifar-10-batches-py"),
    (("data_batch_1.bin", "data_batch_1"), ("test_batch.bin", "test_batch")),
    (
        Remote(
            "cifar-10-binary.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
    "cifar-10-batches-bin",
)

CIFAR100 = Source(
    "CIFAR-100",
    ("cifar-100-binary", "cifar-100-python"),
    (("train.bin", "train"), ("test.bin", "test")),
    (
        Remote(
            "cifar-100-binary.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            "md5:03b5dce01913d631647c71ecec9e9cb8",
        ),
    ),
    "cifar-100-binary",
)

TINY_IMAGENET = Source(
    "Tiny-ImageNet",
    # a copy with fewer classes has the same layout and loads too; the folder's name then names the set
    ("tiny-imagenet-200", "tiny-imagenet", "tiny-imagenet-10"),
    (("wnids.txt",), ("train",), ("val/val_annotations.txt",)),
    (
        Remote(
            "tiny-imagenet-200.zip",
            ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
        ),
    ),
    "tiny-imagenet-200",
)
