"""A user's own images: idx files, arrays in an npz file, folders of pictures, sets of the Hugging Face hub.

All give an `ImageData`. Data that bring a validation or test set keep it; what they lack is held out of the
training images, the same share of each class. Where there is one held-out set only, it is the test set,
whatever it is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.data import idxfile
from condensery.data._errors import one_line
from condensery.data.imagedata import TEST_SHARE, ImageData, image_data, number_labels
from condensery.data.pictures import list_pictures, opened, read_pictures, survey
from condensery.data.whitening import Fit

__all__ = ["folder", "hub", "idx", "npz"]

_PathLike = str | os.PathLike[str]
_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "dev")
_TEST = ("test", "testing")


def idx(
    root: _PathLike,
    *,
    prefix: str = "",
    validation: float = 0.1,
    seed: int = 0,
    preprocessing: Fit | None = None,
) -> ImageData:
    """Any data set in MNIST's idx format.

    Labels are renumbered from 0 in ascending order; their values are the class names.

    Args:
        root: Folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and their ``t10k-`` (or
            ``test-``) twins, gzipped or not, whatever comes before ``train-`` and ``t10k-``.
        prefix: What comes before them, where the folder holds several sets.
        validation: Share of each training class held out for validation.
        seed: Decides which images validate.
        preprocessing: Training images to preprocessing; by default mean and deviation of each channel.

    Raises:
        ValueError: Naming the file that is missing or bad.
    """
    place = Path(root)
    train, test = idxfile.read_folder(place, prefix)
    (train_y, test_y), classes = number_labels([train.y, test.y])
    return image_data(
        place.name,
        Batch(train.x, train_y),
        classes=classes,
        test=Batch(test.x, test_y),
        validation=validation,
        seed=seed,
        preprocessing=preprocessing,
    )


def npz(
    path: _PathLike,
    *,
    test: float = TEST_SHARE,
    validation: float = 0.1,
    seed: int = 0,
    preprocessing: Fit | None = None,
) -> ImageData:
    """Arrays of one npz file: ``x_train, y_train, x_test, y_test`` (and ``x_val, y_val``), or ``x, y``.

    Images are ``[n, h, w]`` (grey), ``[n, c, h, w]`` (where axis 1 has 1 or 3 entries) or else ``[n, h, w,
    c]``. They are whole numbers 0 to 255 or floats 0 to 1; floats are kept to 8 bits, as ``round(255 v)``.
    Labels are whole numbers or text, ``[n]`` or ``[n, 1]``, renumbered in ascending order; an array
    ``classes`` of text names labels that count from 0.

    Args:
        path: The file.
        test: Share of each class held out for testing, where there is no ``x_test``.
        validation: Share of each remaining class held out for validation, where there is no ``x_val``.
        seed: Decides which images validate.
        preprocessing: Training images to preprocessing; by default mean and deviation of each channel.

    Raises:
        ValueError: Naming the file, what is wrong and what to save instead.
    """
    path = Path(path)
    arrays = _load_npz(path)
    names = ("train", "val", "test")
    if "x" in arrays or "y" in arrays:
        arrays = {f"{key}_train" if key in ("x", "y") else key: array for key, array in arrays.items()}
    parts = {name: part for name in names if (part := _npz_part(path, arrays, name)) is not None}
    if "train" not in parts:
        raise ValueError(f"{path} holds {_listed(arrays)}: save x_train, y_train (x_test, y_test), or x and y")
    labels, classes = _npz_labels(path, [y for _, y in parts.values()], arrays.get("classes"))
    batches = {name: Batch(x, y) for (name, (x, _)), y in zip(parts.items(), labels, strict=True)}
    return image_data(
        path.stem,
        batches["train"],
        classes=classes,
        test=batches.get("test", test),
        validation=batches.get("val", validation),
        seed=seed,
        preprocessing=preprocessing,
    )


def folder(
    path: _PathLike,
    size: int | None = None,
    *,
    test: float = TEST_SHARE,
    validation: float = 0.1,
    seed: int = 0,
    preprocessing: Fit | None = None,
) -> ImageData:
    """Pictures in one subfolder a class, or ``train/`` and ``val/`` or ``test/`` folders of such subfolders.

    Class names are the subfolders' names, sorted, or what ``words.txt`` (WordNet id, tab, names) calls them.
    All of JPEG, PNG, BMP, GIF, WebP, TIFF and PNM are read, any size, grey (one channel, if all are) or
    colour: the shorter side is resized to `size` (bicubic, antialiased), then the centre is cropped.

    Args:
        path: The folder.
        size: Side of the square images. By default pictures all of one size with no side over 128 stay as
            they are; others get the largest of 32, 64 and 128 that the median shorter side reaches (32 where
            none is).
        test: Share of each class held out for testing, where there is no such folder.
        validation: Share of each remaining class held out for validation, unless there are both kinds of
            folder.
        seed: Decides which images validate.
        preprocessing: Training images to preprocessing; by default mean and deviation of each channel.

    Raises:
        ValueError: For no classes, an empty class, or pictures that cannot be read (the first named, all
            counted).
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: give one with a subfolder of pictures for each class")
    roles = _roles(entry.name for entry in path.iterdir() if entry.is_dir())
    places = {role: path / name for role, name in roles.items()} or {"train": path}
    ids = _class_folders(places["train"])
    listed = {role: _list_classes(place, ids, whole=role == "train") for role, place in places.items()}
    shape = survey([picture for pictures, _ in listed.values() for picture in pictures], size)
    batches = {role: Batch(read_pictures(pictures, shape), y) for role, (pictures, y) in listed.items()}
    return image_data(
        path.name,
        batches["train"],
        classes=class_names(ids, path / "words.txt"),
        test=batches.get("test", test),
        validation=batches.get("validation", validation),
        seed=seed,
        preprocessing=preprocessing,
    )


def hub(
    name: str,
    *,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    preprocessing: Fit | None = None,
) -> ImageData:
    """An image classification set of the Hugging Face hub, through the ``datasets`` library (extra ``hub``).

    Splits are used as the set names them; without a test split a fifth of each class is held out. Pictures
    are resized as `folder` does.

    Args:
        name: As on the hub, such as ``"uoft-cs/cifar10"``, or anything ``datasets.load_dataset`` takes.
        config: Which configuration, where the set has several.
        image: Column of images; by default the only one of that type.
        label: Column of labels; by default the only one of class-label type.
        size: Side of the square images; see `folder`.
        validation: Share of each training class held out for validation, where the set has no split for it.
        seed: Decides which images validate.
        preprocessing: Training images to preprocessing; by default mean and deviation of each channel.

    Raises:
        ImportError: Without the ``datasets`` library.
        ValueError: Where a column is unclear or unfit, or the set cannot be loaded.
    """
    splits = _load_hub(name, config)
    roles = _roles(splits) or {"train": next(iter(splits))}
    features = splits[roles["train"]].features
    image = image or _only_column(name, features, "Image", "image")
    label = label or _only_column(name, features, "ClassLabel", "label")
    for column in (image, label):
        if column not in features:
            raise ValueError(f"{name} has no column {column}: choose among {', '.join(features)}")
    pictures = {role: opened(splits[split][image]) for role, split in roles.items()}
    shape = survey([picture for part in pictures.values() for picture in part], size)
    raw = [_labels(f"{name} column {label}", np.asarray(splits[split][label])) for split in roles.values()]
    labels, classes = _numbered(raw, getattr(features[label], "names", None), name)
    batches = {role: Batch(read_pictures(pictures[role], shape), y) for role, y in zip(roles, labels, strict=True)}
    return image_data(
        name,
        batches["train"],
        classes=classes,
        test=batches.get("test", TEST_SHARE),
        validation=batches.get("validation", validation),
        seed=seed,
        preprocessing=preprocessing,
    )


def class_names(ids: list[str], words: Path) -> tuple[str, ...]:
    """Readable names for WordNet ids: the first name in ``words.txt``; the id itself where it has none.

    Args:
        ids: Folder names in label order.
        words: File of lines ``id<TAB>name, other name``; may be absent.
    """
    known: dict[str, str] = {}
    if words.is_file():
        for line in words.read_text("utf-8", errors="replace").splitlines():
            key, _, text = line.partition("\t")
            known[key.strip()] = text.split(",")[0].strip()
    names = [known.get(key) or key for key in ids]
    # two ids may share a name (ImageNet has two cranes)
    return tuple(f"{n} ({key})" if names.count(n) > 1 and n != key else n for n, key in zip(names, ids, strict=True))


def _roles(names: Iterable[str]) -> dict[str, str]:
    """Which of `names` trains, validates and tests; empty where none is a training set.

    >>> _roles(["train", "val"])
    {'train': 'train', 'test': 'val'}
    """
    found = set(names)
    train, validation, test = (
        next((name for name in choices if name in found), None) for choices in (_TRAIN, _VALIDATION, _TEST)
    )
    if train is None:
        return {}
    if test is None:
        validation, test = None, validation
    chosen = {"train": train, "validation": validation, "test": test}
    return {role: name for role, name in chosen.items() if name is not None}


def _class_folders(path: Path) -> list[str]:
    ids = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not ids:
        raise ValueError(f"{path} has no subfolders: put the pictures of each class into a subfolder of its own")
    return ids


def _list_classes(place: Path, ids: list[str], *, whole: bool) -> tuple[list[Path], Tensor]:
    """Pictures and labels under `place`; `whole` demands a picture of every class."""
    strange = sorted(set(_class_folders(place)) - set(ids))
    if strange:
        raise ValueError(f"{place / strange[0]} is a class without training images: add some or remove it")
    pictures: list[Path] = []
    labels: list[int] = []
    for number, key in enumerate(ids):
        found = list_pictures(place / key)
        if whole and not found:
            raise ValueError(f"{place / key} holds no picture: add some or remove the folder")
        pictures += found
        labels += [number] * len(found)
    if not pictures:
        raise ValueError(f"{place} holds no picture: add some or remove the folder")
    return pictures, torch.tensor(labels, dtype=torch.int64)


def _load_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with path.open("rb") as file:  # numpy leaves a file it opened itself open when it is no zip
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is one bare array")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist: give an npz file") from error
    except Exception as error:  # a damaged zip or array raises nearly anything
        raise ValueError(
            f"{path} is no npz file of plain arrays ({one_line(error)}): save numbers with numpy.savez"
        ) from error


def _npz_part(
    path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], name: str
) -> tuple[Tensor, np.ndarray[Any, Any]] | None:
    keys = (f"x_{name}", f"y_{name}")
    present = [key for key in keys if key in arrays]
    if not present:
        return None
    if len(present) == 1:
        raise ValueError(f"{path} holds {_listed(arrays)}: save both {keys[0]} and {keys[1]}")
    x = _images(f"{path} array {keys[0]}", arrays[keys[0]])
    y = _labels(f"{path} array {keys[1]}", arrays[keys[1]])
    if len(x) != len(y):
        raise ValueError(f"{path} has {len(x)} images and {len(y)} labels for {name}: save one label an image")
    return x, y


def _images(where: str, array: np.ndarray[Any, Any]) -> Tensor:
    """Any accepted array of images as uint8 ``[n, c, h, w]``."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.size == 0 or array.shape[1] not in (1, 3):
        raise ValueError(f"{where} has shape {array.shape}: save [n, h, w], [n, h, w, c] or [n, c, h, w], c 1 or 3")
    return torch.from_numpy(np.ascontiguousarray(_bytes(where, array)))


def _bytes(where: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{where} is of type {array.dtype}: save uint8 (0 to 255) or floats (0 to 1)")
    top = 255 if array.dtype.kind in "iu" else 1
    if not (array.min() >= 0 and array.max() <= top):  # so written that NaN fails too
        raise ValueError(
            f"{where} has values from {array.min()} to {array.max()}: save whole numbers 0 to 255 or floats 0 to 1"
        )
    return (array if top == 255 else np.rint(array.astype(np.float32) * 255)).astype(np.uint8)


def _labels(where: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels as int64 or text ``[n]``."""
    if array.ndim == 2 and array.shape[1] == 1:  # as Keras gives CIFAR's
        array = array[:, 0]
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{where} has shape {array.shape}: give one label an image, [n] (argmax of one-hot rows)")
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "iub" or int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{where} is of type {array.dtype}: give whole numbers or text as labels")
    return array.astype(np.int64)


def _npz_labels(
    path: Path, raw: list[np.ndarray[Any, Any]], names: np.ndarray[Any, Any] | None
) -> tuple[list[Tensor], tuple[str, ...]]:
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise ValueError(f"{path} has 'classes' of type {names.dtype} and shape {names.shape}: save a list of text")
    return _numbered(raw, None if names is None else names.tolist(), str(path))


def _numbered(
    raw: list[np.ndarray[Any, Any]], names: list[str] | None, where: str
) -> tuple[list[Tensor], tuple[str, ...]]:
    """Labels as int64 from 0, with class names: those given, the words used, or the numbers used."""
    if len({part.dtype.kind for part in raw}) > 1:
        raise ValueError(f"{where} has numbers as labels in one set and text in another: use one kind")
    if raw[0].dtype.kind == "U":
        words, numbers = np.unique(np.concatenate(raw), return_inverse=True)
        cuts = np.cumsum([len(part) for part in raw])[:-1]
        return [torch.from_numpy(p.astype(np.int64)) for p in np.split(numbers, cuts)], tuple(map(str, words))
    parts = [torch.from_numpy(part) for part in raw]
    if names is None:
        return number_labels(parts)
    low, high = min(int(p.min()) for p in parts), max(int(p.max()) for p in parts)
    if low < 0 or high >= len(names):
        raise ValueError(f"{where} has labels {low} to {high} but names {len(names)} classes: number them from 0")
    return parts, tuple(names)


def _listed(arrays: Mapping[str, Any]) -> str:
    return ", ".join(arrays) or "no array"


def _load_hub(name: str, config: str | None) -> Mapping[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("sets of the Hugging Face hub need its library: pip install 'condensery[hub]'") from error
    try:
        loaded: Any = datasets.load_dataset(name, config)
    except Exception as error:  # offline, unknown, gated: whatever the library says
        raise ValueError(
            f"{name} could not be loaded from the hub ({one_line(error)}): check name and network"
        ) from error
    return loaded


def _only_column(name: str, features: Mapping[str, Any], kind: str, option: str) -> str:
    """The one column whose feature type is `kind`."""
    columns = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if len(columns) != 1:
        raise ValueError(
            f"{name} has {len(columns)} columns of type {kind}: pass {option}= one of {', '.join(features)}"
        )
    return columns[0]
