"""A whole image data set: training, validation and test images under one preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.data.labelled import Labelled, stratified
from condensery.data.whitening import Fit, Prepared, Preprocessing, Standardise

TEST_SHARE = 0.2  # of each class, where the data brings no test set
_TEST_SEED = 0


@dataclass(frozen=True, eq=False)
class ImageData:
    """Three disjoint sets of labelled images with the same classes, image shape and preprocessing.

    Attributes:
        name: The data set's name, recorded in artifacts.
        train: What condensation may see.
        validation: What choices are made on.
        test: What is only ever scored.

    Raises:
        ValueError: Where the three differ in classes or image shape.
    """

    name: str
    train: Labelled
    validation: Labelled
    test: Labelled

    def __post_init__(self) -> None:
        for part in (self.validation, self.test):
            if part.classes != self.train.classes or part.image_shape != self.train.image_shape:
                raise ValueError(
                    f"{self.name} mixes {part} with {self.train}: give its three sets the same classes and image shape"
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.train.classes

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self.train.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.train.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """Stored images to network input, fitted on the training set (or published constants)."""
        return self.train.prepare

    def to(self, device: torch.device | str) -> ImageData:
        """The same on another device; the preprocessing is moved once and shared."""
        if self.train.device == torch.device(device):
            return self
        parts = (self.train, self.validation, self.test)
        if isinstance(self.preprocessing, Prepared):  # each set was prepared for itself: share the moved original
            shared: Preprocessing = Prepared(self.preprocessing.original.to(device))
        else:
            shared = self.preprocessing.to(device)
        return ImageData(self.name, *(Labelled(p.x.to(device), p.y.to(device), p.classes, shared) for p in parts))

    def with_preprocessing(self, p: Preprocessing) -> ImageData:
        """The same stored images under another preprocessing, on the device of the images.

        Raises:
            ValueError: Where the images are prepared already, so that the stored pixels are gone.
        """
        if isinstance(self.preprocessing, Prepared):
            raise ValueError(f"{self.name} is prepared already: change its preprocessing before calling prepared()")
        moved = p.to(self.train.device)
        parts = (self.train, self.validation, self.test)
        return ImageData(self.name, *(replace(part, prepare=moved) for part in parts))

    def prepared(self) -> ImageData:
        """The same with all three sets prepared once and kept as float32 (see `Labelled.prepared`)."""
        return ImageData(self.name, *(part.prepared() for part in (self.train, self.validation, self.test)))


def image_data(
    name: str,
    train: Batch,
    *,
    classes: tuple[str, ...],
    test: Batch | float = TEST_SHARE,
    validation: Batch | float = 0.1,
    seed: int = 0,
    preprocessing: Fit | None = None,
) -> ImageData:
    """An image data set from tensors; sets not given are held out of `train`, the same share of each class.

    A test set held out here does not depend on `seed`, so that runs which differ in seed are scored on the
    same images.

    Args:
        name: Its name.
        train: uint8 (or float32 in [0, 1]) ``[n, c, h, w]`` and int64 ``[n]``.
        classes: Class names in label order.
        test: The test set, or the share of `train` to hold out for it.
        validation: The validation set, or the share of (the rest of) `train` to hold out for it.
        seed: Decides which images validate.
        preprocessing: Called with the training images that remain, gives the preprocessing; by default the
            mean and deviation of each channel.

    Raises:
        ValueError: Where the sets do not fit together, a share is outside (0, 1), or a class of the
            validation or test set has no training image.
    """
    if not isinstance(test, Batch):
        train, test = _hold_out(train, test, _TEST_SEED)
    if not isinstance(validation, Batch):
        train, validation = _hold_out(train, validation, seed)
    x = train.x.contiguous()
    prepare = (preprocessing or Standardise.of)(x)
    data = ImageData(
        name,
        Labelled(x, train.y, classes, prepare),
        Labelled(validation.x, validation.y, classes, prepare),
        Labelled(test.x, test.y, classes, prepare),
    )
    _check_covered(data)
    return data


def number_labels(parts: list[Tensor]) -> tuple[list[Tensor], tuple[str, ...]]:
    """Labels of any whole numbers renumbered from 0 in ascending order; their values become the class names.

    Args:
        parts: int64 ``[n]`` tensors that share their classes.

    Returns:
        The renumbered tensors, and the names.

    >>> number_labels([torch.tensor([3, 1]), torch.tensor([1])])
    ([tensor([1, 0]), tensor([0])], ('1', '3'))
    """
    values, numbers = torch.unique(torch.cat(parts), return_inverse=True)
    return list(torch.split(numbers, [len(part) for part in parts])), tuple(str(value) for value in values.tolist())


def _hold_out(train: Batch, share: float, seed: int) -> tuple[Batch, Batch]:
    kept, held = stratified(train.y, share, torch.Generator().manual_seed(seed))
    return Batch(train.x[kept], train.y[kept]), Batch(train.x[held], train.y[held])


def _check_covered(data: ImageData) -> None:
    trained = torch.bincount(data.train.y, minlength=data.num_classes) > 0
    for role, part in (("validation", data.validation), ("test", data.test)):
        unknown = part.y[~trained[part.y]]
        if len(unknown):
            raise ValueError(
                f"{data.name}: class {data.classes[int(unknown[0])]} is in the {role} set "
                f"but has no training image: add some or remove the class"
            )
