"""Image data sets by name; each is an `ImageData`, with a share of the training images held out to validate.

Every loader takes the same options. ``root`` is the folder that holds the files; None looks under the
environment variable ``CONDENSERY_DATA``, then in the cache, then downloads into the cache. ``validation`` is
the share of each training class held out, ``seed`` decides which. ``preprocessing`` is called with the
training images that remain (uint8 ``[n, c, h, w]``) and gives the preprocessing, as `zca_absolute` does; the
default standardises with the constants the papers use, named here. All raise `DataMissing` where the data
cannot be had and ValueError for a bad file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.data import cifarfile, fetch, idxfile
from condensery.data.imagedata import ImageData, image_data, number_labels
from condensery.data.own import class_names, folder, hub, idx, npz
from condensery.data.pictures import list_pictures, read_pictures
from condensery.data.whitening import Fit, Standardise

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CIFAR10_STD_FREPO",
    "CIFAR100_MEAN",
    "CIFAR100_STD",
    "FASHION_MNIST_MEAN",
    "FASHION_MNIST_STD",
    "MNIST_MEAN",
    "MNIST_STD",
    "TINY_IMAGENET_MEAN",
    "TINY_IMAGENET_STD",
    "ImageData",
    "cifar10",
    "cifar100",
    "digits",
    "emnist",
    "fashion_mnist",
    "folder",
    "hub",
    "idx",
    "image_data",
    "kmnist",
    "mnist",
    "npz",
    "tiny_imagenet",
]

_Root: TypeAlias = str | os.PathLike[str] | None

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
FASHION_MNIST_MEAN, FASHION_MNIST_STD = (0.2861,), (0.3530,)
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)
"""The DC family's deviation (DC, DSA, DM, MTT without ZCA), smaller than that over all pixels."""
CIFAR10_STD_FREPO = (0.2470, 0.2435, 0.2616)
"""The deviation over all pixels, as FRePo and RCIG use it (before their ZCA as well)."""
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
TINY_IMAGENET_MEAN, TINY_IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
EMNIST_SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")


def digits(*, validation: float = 0.1, seed: int = 0, preprocessing: Fit | None = None) -> ImageData:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 grey: always there, for tests and first steps.

    Values 0..16 become 0..255. There is no official test set: about 400 images, the same share of each class
    and always the same ones, are held out.

    Args:
        validation: Share of each remaining class held out for validation.
        seed: Decides which images validate.
        preprocessing: Training images to preprocessing; by default mean and deviation.

    >>> digits().image_shape
    (1, 8, 8)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images)  # float64 [1797, 8, 8]
    x = (pixels * 255 / 16).round().to(torch.uint8).unsqueeze(1)
    return image_data(
        "digits",
        Batch(x, torch.from_numpy(bunch.target).long()),
        classes=_DIGITS,
        test=400 / 1797,
        validation=validation,
        seed=seed,
        preprocessing=preprocessing,
    )


def mnist(root: _Root = None, *, validation: float = 0.1, seed: int = 0, preprocessing: Fit | None = None) -> ImageData:
    """MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 grey. Options: see the module."""
    fit = preprocessing or _fixed(MNIST_MEAN, MNIST_STD)
    return _idx_set("mnist", fetch.MNIST, root, _DIGITS, validation, seed, fit)


def fashion_mnist(
    root: _Root = None, *, validation: float = 0.1, seed: int = 0, preprocessing: Fit | None = None
) -> ImageData:
    """Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28 x 28 grey. Options: see the module."""
    fit = preprocessing or _fixed(FASHION_MNIST_MEAN, FASHION_MNIST_STD)
    return _idx_set("fashion-mnist", fetch.FASHION_MNIST, root, _FASHION, validation, seed, fit)


def kmnist(
    root: _Root = None, *, validation: float = 0.1, seed: int = 0, preprocessing: Fit | None = None
) -> ImageData:
    """Kuzushiji-MNIST: 60,000 + 10,000 cursive Japanese characters, 28 x 28 grey. Options: see the module."""
    return _idx_set("kmnist", fetch.KMNIST, root, _KANA, validation, seed, preprocessing)


def emnist(
    root: _Root = None,
    split: str = "balanced",
    *,
    validation: float = 0.1,
    seed: int = 0,
    preprocessing: Fit | None = None,
) -> ImageData:
    """One of EMNIST's six sets of handwritten letters and digits, 28 x 28 grey. Options: see the module.

    The files hold each image transposed; here they are upright. Labels count from 0 (in the files letters
    count from 1).

    Args:
        root: Folder of the files.
        split: The set, as its files are named: balanced (47 classes), byclass (62), bymerge (47), digits
            (10), letters (26), mnist (10).
        validation: Share of each training class held out for validation.
        seed: Decides which images validate.
        preprocessing: Training images to preprocessing; by default mean and deviation.

    Raises:
        ValueError: For another `split`.
    """
    if split not in EMNIST_SPLITS:
        raise ValueError(f"EMNIST has no set {split!r}: choose one of {', '.join(EMNIST_SPLITS)}")
    place = fetch.locate(fetch.emnist_source(split), root)
    train, test = idxfile.read_folder(place, f"emnist-{split}-")
    (train_y, test_y), numbers = number_labels([train.y, test.y])
    return image_data(
        f"emnist-{split}",
        Batch(train.x.transpose(2, 3), train_y),
        classes=_characters(place / f"emnist-{split}-mapping.txt", numbers),
        test=Batch(test.x.transpose(2, 3), test_y),
        validation=validation,
        seed=seed,
        preprocessing=preprocessing,
    )


def cifar10(
    root: _Root = None, *, validation: float = 0.1, seed: int = 0, preprocessing: Fit | None = None
) -> ImageData:
    """CIFAR-10: 50,000 + 10,000 colour images, 32 x 32, from the binary files or the Python batches.

    The default deviation is the DC family's, `CIFAR10_STD`; FRePo and RCIG use `CIFAR10_STD_FREPO`: pass
    ``preprocessing=lambda x: Standardise(CIFAR10_MEAN, CIFAR10_STD_FREPO)``. Options: see the module.
    """
    fit = preprocessing or _fixed(CIFAR10_MEAN, CIFAR10_STD)
    train, test, classes = cifarfile.read_folder(fetch.locate(fetch.CIFAR10, root), cifarfile.TEN)
    return image_data("cifar10", train, classes=classes, test=test, validation=validation, seed=seed, preprocessing=fit)


def cifar100(
    root: _Root = None, *, validation: float = 0.1, seed: int = 0, preprocessing: Fit | None = None
) -> ImageData:
    """CIFAR-100, the hundred fine labels: 50,000 + 10,000 colour images, 32 x 32. Options: see the module."""
    fit = preprocessing or _fixed(CIFAR100_MEAN, CIFAR100_STD)
    train, test, classes = cifarfile.read_folder(fetch.locate(fetch.CIFAR100, root), cifarfile.HUNDRED)
    return image_data(
        "cifar100", train, classes=classes, test=test, validation=validation, seed=seed, preprocessing=fit
    )


def tiny_imagenet(
    root: _Root = None, *, validation: float = 0.1, seed: int = 0, preprocessing: Fit | None = None
) -> ImageData:
    """Tiny-ImageNet: 200 classes of 500 + 50 colour images, 64 x 64; a copy with fewer classes loads as well.

    The published validation images are the test set, as in the literature (the real test labels are secret).
    Classes are in the order of ``wnids.txt``. The set is named after its folder, so that a part never passes
    for the whole.
    Options: see the module.
    """
    place = fetch.locate(fetch.TINY_IMAGENET, root)
    ids = (place / "wnids.txt").read_text("utf-8", errors="replace").split()
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{place / 'wnids.txt'} is empty or repeats a class: list each class once")
    return image_data(
        place.name,
        _tiny_train(place, ids),
        classes=class_names(ids, place / "words.txt"),
        test=_tiny_test(place, ids),
        validation=validation,
        seed=seed,
        preprocessing=preprocessing or _fixed(TINY_IMAGENET_MEAN, TINY_IMAGENET_STD),
    )


def _fixed(mean: tuple[float, ...], std: tuple[float, ...]) -> Fit:
    def published(x: Tensor) -> Standardise:
        return Standardise(mean, std).to(x.device)

    return published


def _idx_set(
    name: str,
    source: fetch.Source,
    root: _Root,
    classes: tuple[str, ...],
    validation: float,
    seed: int,
    preprocessing: Fit | None,
) -> ImageData:
    place = fetch.locate(source, root)
    train, test = idxfile.read_folder(place)
    if max(int(train.y.max()), int(test.y.max())) >= len(classes):
        raise ValueError(
            f"{place} has labels above {len(classes) - 1}, so it is not {source.title}: read it with idx()"
        )
    return image_data(
        name, train, classes=classes, test=test, validation=validation, seed=seed, preprocessing=preprocessing
    )


def _characters(mapping: Path, numbers: tuple[str, ...]) -> tuple[str, ...]:
    """EMNIST's class names: the first character the mapping file gives a label, else the label itself."""
    if not mapping.is_file():
        return numbers
    known = {}
    for line in mapping.read_text("utf-8", errors="replace").splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[1].isdecimal() and int(fields[1]) < 0x110000:
            known[fields[0]] = chr(int(fields[1]))
    return tuple(known.get(number, number) for number in numbers)


def _tiny_train(place: Path, ids: list[str]) -> Batch:
    listed = [list_pictures(place / "train" / key) for key in ids]
    for key, found in zip(ids, listed, strict=True):
        if not found:
            raise ValueError(f"{place / 'train' / key} holds no picture: unpack the data set again")
    y = torch.arange(len(ids)).repeat_interleave(torch.tensor([len(found) for found in listed]))
    return Batch(read_pictures([picture for found in listed for picture in found], (3, 64, 64)), y)


def _tiny_test(place: Path, ids: list[str]) -> Batch:
    number = {key: index for index, key in enumerate(ids)}
    annotations = place / "val" / "val_annotations.txt"
    pictures, labels = [], []
    for line in annotations.read_text("utf-8", errors="replace").splitlines():
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in number:
            raise ValueError(
                f"{annotations} has the line {line[:60]!r} without a known class: unpack the data set again"
            )
        pictures.append(place / "val" / "images" / fields[0])
        labels.append(number[fields[1]])
    if not pictures:
        raise ValueError(f"{annotations} is empty: unpack the data set again")
    return Batch(read_pictures(pictures, (3, 64, 64)), torch.tensor(labels))
