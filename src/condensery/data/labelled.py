"""Labelled images as tensors: what every image method draws from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.data.whitening import Prepared, Preprocessing

_ROWS = 4096  # images prepared at once: bounds the temporary copies while a whole set is prepared


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """Images with class labels, held as tensors on one device.

    Attributes:
        x: uint8 ``[n, c, h, w]`` in 0..255 as stored, or float32 ``[n, c, h, w]`` already prepared.
        y: int64 ``[n]``, class indices.
        classes: Class names; their order gives the indices.
        prepare: Stored images to float32 network input.

    Raises:
        ValueError: Where shapes, dtypes or labels do not fit together.

    >>> from condensery.data.whitening import Identity
    >>> x = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    >>> two = Labelled(x, torch.tensor([0, 1, 0, 1]), ("cat", "dog"), Identity())
    >>> two.members(1).tolist()
    [1, 3]
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    prepare: Preprocessing

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or self.x.dtype not in (torch.uint8, torch.float32):
            raise ValueError(
                f"images are uint8 or float32 [n, c, h, w], not {self.x.dtype} {tuple(self.x.shape)}: convert them"
            )
        if self.y.dtype != torch.int64 or self.y.shape != self.x.shape[:1]:
            raise ValueError(
                f"{len(self.x)} images need int64 labels of shape [{len(self.x)}], not {self.y.dtype} "
                f"{tuple(self.y.shape)}: convert them"
            )
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise ValueError(
                f"labels run from {int(self.y.min())} to {int(self.y.max())} but {len(self.classes)} classes "
                f"are named: number the classes from 0 and name them all"
            )

    def __repr__(self) -> str:
        what = f"{len(self)} x {self.image_shape}, {self.num_classes} classes"
        return f"Labelled({what}, {self.x.dtype}, {self.device})"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.x.device

    @property
    def num_classes(self) -> int:
        """How many classes there are, with or without members."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def batch(self, index: Tensor) -> Batch:
        """The images at `index`, prepared.

        Args:
            index: int64 ``[m]``, or a bool mask ``[n]``, on any device.

        Returns:
            float32 ``[m, c, h, w]`` and int64 ``[m]``.
        """
        index = index.to(self.device, non_blocking=True)
        return Batch(self.prepare(self.x[index]), self.y[index])

    def whole(self) -> Batch:
        """Every image, float32 ``[n, c, h, w]`` and int64 ``[n]``; prepared anew at each call."""
        if len(self) == 0:
            return Batch(self.x.to(torch.float32), self.y)
        if self.x.is_floating_point() and isinstance(self.prepare, Prepared):
            return Batch(self.x, self.y)
        ready = torch.empty(self.x.shape, dtype=torch.float32, device=self.device)
        for start in range(0, len(self), _ROWS):
            ready[start : start + _ROWS] = self.prepare(self.x[start : start + _ROWS])
        return Batch(ready, self.y)

    def prepared(self) -> Labelled:
        """The same images prepared once and kept as float32; the same object at each call.

        Pays where `prepare` is dear, as whitening is, and costs four times the memory of uint8. The result's
        `prepare` leaves images as they are and still inverts to pixels.
        """
        return self if isinstance(self.prepare, Prepared) else self._prepared

    @cached_property
    def _prepared(self) -> Labelled:
        return Labelled(self.whole().x, self.y, self.classes, Prepared(self.prepare))

    def members(self, c: int) -> Tensor:
        """Indices of the images of class `c`, int64, ascending; found once for all classes.

        Raises:
            ValueError: For an index that is no class.
        """
        if not 0 <= c < self.num_classes:
            raise ValueError(f"class {c} does not exist: choose one of 0 to {self.num_classes - 1}")
        return self._members[c]

    @cached_property
    def _members(self) -> tuple[Tensor, ...]:
        sizes: list[int] = torch.bincount(self.y, minlength=self.num_classes).tolist()
        return torch.split(self.y.argsort(stable=True), sizes)

    def choose(self, c: int, count: int, generator: torch.Generator) -> Tensor:
        """Indices of images of class `c`, at random and without replacement: what `draw` prepares.

        As the published code does: the first `count` of a random permutation of the class, so a class smaller than
        `count` gives all it has.

        Args:
            c: Class index.
            count: How many, at least 1.
            generator: A CPU generator.

        Returns:
            int64 ``[min(count, class size)]``, on the images' device.

        Raises:
            ValueError: For a class without images, an index that is no class, or a count below 1.
        """
        members = self.members(c)
        if len(members) == 0:
            raise ValueError(f"class {c} ({self.classes[c]}) has no image here: leave it out or use data that has some")
        if count < 1:
            raise ValueError(f"cannot draw {count} images: ask for at least 1")
        chosen = torch.randperm(len(members), generator=generator)[:count]
        return members[chosen.to(self.device, non_blocking=True)]

    def draw(self, c: int, count: int, generator: torch.Generator) -> Tensor:
        """Prepared images of class `c`, float32 ``[min(count, class size), c, h, w]``; arguments as `choose`'s."""
        return self.prepare(self.x[self.choose(c, count, generator)])

    def subset(self, index: Tensor) -> Labelled:
        """The images at `index` (int64 ``[m]`` or bool mask ``[n]``), same classes and preprocessing."""
        index = index.to(self.device)
        return Labelled(self.x[index], self.y[index], self.classes, self.prepare)

    def to(self, device: torch.device | str) -> Labelled:
        """The same on another device, preprocessing included; itself where it is there already."""
        return self if self.device == torch.device(device) else self._move(device, self.prepare.to(device))

    def _move(self, device: torch.device | str, prepare: Preprocessing) -> Labelled:
        return Labelled(self.x.to(device), self.y.to(device), self.classes, prepare)


def stratified(y: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split indices so that each class gives the same share.

    A class of m gives ``round(m * fraction)`` (halves up), but at least one and never its last: a class with
    a single image keeps it on the first side.

    Args:
        y: Labels, int64 ``[n]``.
        fraction: Share of the second side, in (0, 1).
        generator: A CPU generator.

    Returns:
        Two int64 tensors of ascending indices, disjoint, together all of ``0..n-1``.

    Raises:
        ValueError: For a fraction outside (0, 1), or where no class has two images.

    >>> kept, held = stratified(torch.tensor([0, 0, 1, 1, 1, 1]), 0.5, torch.Generator().manual_seed(0))
    >>> len(kept), len(held)
    (3, 3)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"a split takes a share between 0 and 1, not {fraction}: use for example 0.1")
    labels = y.cpu()
    held = torch.zeros(len(labels), dtype=torch.bool)
    order = labels.argsort(stable=True)
    for members in torch.split(order, torch.bincount(labels).tolist()):
        size = len(members)
        count = min(max(int(size * fraction + 0.5), 1), size - 1)
        if count > 0:
            held[members[torch.randperm(size, generator=generator)[:count]]] = True
    if not bool(held.any()):
        raise ValueError("no class has two images, so none can be held out: provide more images or a split of your own")
    return (~held).nonzero().flatten(), held.nonzero().flatten()
