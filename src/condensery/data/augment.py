"""Differentiable image augmentation: one draw for two batches, or one draw for each image.

Two uses, two interfaces:

- While condensing, real and synthetic images must be changed in the same way (DSA, Zhao & Bilen 2021, Eq. 4).
  `Siamese` draws one `Draw`; calling the draw on any batch applies the same operation with the same
  parameters.
- While training on a condensed set, every image is changed in its own way. That is an `Augment`, a callable
  ``(x, generator) -> x``: `DsaTrain` (DC, DSA, DM, MTT), `OneOfPerImage` (FRePo, RCIG) and `DcTrain` (DC on
  digits).

Every random number comes from a CPU `torch.Generator`, so a draw is the same on any device and reading its
parameters never waits for one. All the operations are linear in the image or affine in it.

Forward-mode derivatives work through every draw of `Siamese.natural`. They do not through the per-image
geometric operations, which use `torch.nn.functional.grid_sample`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from condensery.batch import Batch

Params = tuple[float, ...]
Number = float | Tensor


class Border(StrEnum):
    """What lies outside an image that is rotated or moved."""

    ZERO = "zero"
    EDGE = "edge"


class Choice(StrEnum):
    """Who gets an operation of its own."""

    BATCH = "batch"
    IMAGE = "image"


class DcStep(StrEnum):
    """The operations of `DcTrain`."""

    CROP = "crop"
    SCALE = "scale"
    ROTATE = "rotate"
    NOISE = "noise"


# Drawing ----------------------------------------------------------------------------------------------------


def _uniform(generator: Generator, n: int, low: float, high: float) -> Tensor:
    """Draw ``[n]`` float64 numbers from U(low, high) on the CPU."""
    return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)


def _integers(generator: Generator, n: int, low: int, high: int) -> Tensor:
    """Draw ``[n]`` whole numbers from low to high, both included, as float64 on the CPU."""
    return torch.randint(low, high + 1, (n,), generator=generator).double()


def _require_cpu(generator: Generator) -> None:
    if generator.device.type != "cpu":
        raise ValueError(f"augmentation draws on the CPU: pass torch.Generator(), not one on {generator.device}")


def _require_images(shape: Sequence[int]) -> None:
    if len(shape) != 4:
        raise ValueError(f"augmentation needs images [n, c, h, w]: reshape the input, whose shape is {tuple(shape)}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _pixels(size: int, ratio: float) -> int:
    """Round a share of an image's side to whole pixels, halves up as the authors' code does."""
    return int(size * ratio + 0.5)


# Moving pixels ----------------------------------------------------------------------------------------------


def _column(x: Tensor, values: Tensor) -> Tensor:
    """Bring one number an image ``[n]`` to where x lives, shaped ``[n, 1, 1, 1]``."""
    return values.to(device=x.device, dtype=x.dtype, non_blocking=True).view(-1, 1, 1, 1)


def _steps(x: Tensor, values: Tensor) -> Tensor:
    """Bring one whole number an image ``[n]`` to where x lives, shaped ``[n, 1]``."""
    return values.to(device=x.device, dtype=torch.long, non_blocking=True).view(-1, 1)


def _centred(size: int, like: Tensor) -> Tensor:
    """Pixel centres measured from the middle of the image, ``[size]``; exact in floating point."""
    return torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2


def _interpolation(factor: float, size: int, like: Tensor) -> Tensor:
    """Linear interpolation of one axis at ``factor`` times its coordinates: a ``[size, size]`` matrix.

    The hat function is linear interpolation with zeros outside, so no index is ever computed.
    """
    centres = _centred(size, like)
    return (1 - (factor * centres[:, None] - centres[None, :]).abs()).clamp(min=0)


def _bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read every image of ``x [n, c, h, w]`` at the same real coordinates ``[h * w]``, zeros outside.

    Four weighted gathers rather than grid_sample: they have every derivative in both modes, and are no slower
    as one map serves the whole batch.
    """
    n, channels, height, width = x.shape
    pixels = x.flatten(2)
    top, left = rows.floor(), columns.floor()
    below, right = rows - top, columns - left
    corners = []
    for row, row_weight in ((top.long(), 1 - below), (top.long() + 1, below)):
        for column, column_weight in ((left.long(), 1 - right), (left.long() + 1, right)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            weight = row_weight * column_weight * inside
            corners.append(pixels.gather(2, index.expand(n, channels, -1)) * weight)
    return (corners[0] + corners[1] + corners[2] + corners[3]).view(x.shape)


def _affine(x: Tensor, theta: Tensor, border: Border) -> Tensor:
    """Read image i of ``x [n, c, h, w]`` through its own normalised affine map ``theta [n, 2, 3]``."""
    theta = theta.to(device=x.device, dtype=x.dtype, non_blocking=True)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    padding = {Border.ZERO: "zeros", Border.EDGE: "border"}[border]
    return functional.grid_sample(x, grid, padding_mode=padding, align_corners=False)


def _theta(across: Sequence[Tensor | float], down: Sequence[Tensor | float], n: int) -> Tensor:
    """Stack the six entries of n affine maps to ``[n, 2, 3]``."""
    entries = [torch.as_tensor(entry, dtype=torch.float64).expand(n) for entry in (*across, *down)]
    return torch.stack(entries, dim=1).view(n, 2, 3)


def _rotation(degrees: Tensor) -> Tensor:
    """Affine maps ``[n, 2, 3]`` that read an image turned by ``degrees [n]``."""
    angle = degrees * (math.pi / 180)
    sine, cosine = angle.sin(), angle.cos()
    return _theta((cosine, -sine, 0.0), (sine, cosine, 0.0), len(degrees))


def _pick(x: Tensor, rows: Tensor, columns: Tensor, fill: Tensor) -> Tensor:
    """Image i of the result is ``x[i][:, rows[i], :][:, :, columns[i]]``, with ``fill`` outside.

    Args:
        x: Images ``[n, c, h, w]``.
        rows: Source rows ``[n, h]``, int64, of any value.
        columns: Source columns ``[n, w]``, int64, of any value.
        fill: Something that broadcasts to x.
    """
    height, width = x.shape[2:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return torch.where(inside[:, None], x.flatten(2).gather(2, index).view(x.shape), fill)


def _shifted(x: Tensor, down: Tensor, across: Tensor, fill: Tensor) -> Tensor:
    """Image i of the result reads x at ``(row + down[i], column + across[i])``."""
    rows = torch.arange(x.shape[2], device=x.device) + _steps(x, down)
    columns = torch.arange(x.shape[3], device=x.device) + _steps(x, across)
    return _pick(x, rows, columns, fill)


def _without_squares(x: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Black out a rectangle of ``size`` in each image, its corner at ``(top[i], left[i])``."""
    rows = torch.arange(x.shape[2], device=x.device) - _steps(x, top)
    columns = torch.arange(x.shape[3], device=x.device) - _steps(x, left)
    hidden = ((rows >= 0) & (rows < size[0]))[:, :, None] & ((columns >= 0) & (columns < size[1]))[:, None, :]
    return x.masked_fill(hidden[:, None], 0)


def _recoloured(x: Tensor, shift: Number, saturation: Number, contrast: Number) -> Tensor:
    """Brightness, then saturation about the channels' mean, then contrast about the image's mean.

    Each step keeps both means but for the shift, so the three collapse to one weighted sum of x, its mean
    over channels and its mean over the image; the order of the last two does not matter.
    """
    grey = x.mean(dim=1, keepdim=True)
    level = x.mean(dim=(1, 2, 3), keepdim=True)
    return (saturation * contrast) * x + (contrast * (1 - saturation)) * grey + ((1 - contrast) * level + shift)


# The operations ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op(ABC):
    """A random change of an image: how its parameters are drawn, and what they do."""

    @abstractmethod
    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Draw the parameters of each of ``shape[0]`` images: ``[n, k]`` float64 on the CPU."""

    @abstractmethod
    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Change image i of ``x [n, c, h, w]`` by its own parameters ``params[i]`` of ``[n, k]``."""

    @final
    def draw(self, generator: Generator, shape: Sequence[int]) -> Params:
        """Draw one set of parameters, plain numbers, for all images of this shape."""
        return tuple(self.draw_each(generator, (1, *shape[1:]))[0].tolist())

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Change all images of ``x [n, c, h, w]`` by the same parameters."""
        return self.apply_each(x, torch.tensor([params], dtype=torch.float64).expand(len(x), -1))


@final
@dataclass(frozen=True)
class Flip(Op):
    """Mirror left and right with this probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _require(0 <= self.probability <= 1, f"Flip.probability must lie in [0, 1], not {self.probability}")

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 1]``: 1 for a mirrored image, else 0."""
        return (_uniform(generator, shape[0], 0, 1) < self.probability).double()[:, None]

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Mirror the images whose parameter is 1."""
        return torch.where(_column(x, params[:, 0]) > 0, x.flip(-1), x)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Mirror all images or none."""
        return x.flip(-1) if params[0] else x


@final
@dataclass(frozen=True)
class Scale(Op):
    """Zoom each axis on its own: coordinates times U(1 / ratio, ratio), so above 1 the image shrinks."""

    ratio: float = 1.2

    def __post_init__(self) -> None:
        _require(
            self.ratio >= 1,
            f"Scale.ratio must be at least 1 (its inverse is the other end), not {self.ratio}",
        )

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 2]``: the factors across and down."""
        factors = [_uniform(generator, shape[0], 1 / self.ratio, self.ratio) for _ in range(2)]
        return torch.stack(factors, dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Zoom image i by ``params[i]``."""
        theta = _theta((params[:, 0], 0.0, 0.0), (0.0, params[:, 1], 0.0), len(x))
        return _affine(x, theta, Border.ZERO)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Zoom all images alike: bilinear interpolation along axes is two small matrix products."""
        across = _interpolation(params[0], x.shape[3], x)
        down = _interpolation(params[1], x.shape[2], x)
        return down @ x @ across.T


@final
@dataclass(frozen=True)
class Rotate(Op):
    """Turn by U(-degrees, degrees) about the middle.

    On images that are not square the turn is in normalised coordinates, as with affine_grid.
    """

    degrees: float = 15.0
    border: Border = Border.ZERO

    def __post_init__(self) -> None:
        _require(self.degrees >= 0, f"Rotate.degrees must not be negative, not {self.degrees}")

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 1]``: the angle in degrees."""
        return _uniform(generator, shape[0], -self.degrees, self.degrees)[:, None]

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Turn image i by ``params[i]``."""
        return _affine(x, _rotation(params[:, 0]), self.border)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Turn all images alike, through one map of where each pixel comes from."""
        height, width = x.shape[2:]
        sine, cosine = math.sin(math.radians(params[0])), math.cos(math.radians(params[0]))
        down, across = _centred(height, x)[:, None], _centred(width, x)[None, :]
        rows = cosine * down + (sine * height / width) * across + (height - 1) / 2
        columns = cosine * across - (sine * width / height) * down + (width - 1) / 2
        if self.border is Border.EDGE:
            rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        return _bilinear(x, rows.flatten(), columns.flatten())


@final
@dataclass(frozen=True)
class Crop(Op):
    """Move by whole pixels, up to ``pad`` of the side in each direction; zeros come in."""

    pad: float = 0.125

    def __post_init__(self) -> None:
        _require(0 <= self.pad <= 0.5, f"Crop.pad is a share of the side and must lie in [0, 0.5], not {self.pad}")

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 2]``: pixels down and across."""
        most = [_pixels(side, self.pad) for side in shape[2:]]
        return torch.stack([_integers(generator, shape[0], -m, m) for m in most], dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Move image i by ``params[i]``."""
        return _shifted(x, params[:, 0], params[:, 1], x.new_zeros(()))

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Move all images alike; a negative pad cuts."""
        down, across = int(params[0]), int(params[1])
        return functional.pad(x, (-across, across, -down, down))


@final
@dataclass(frozen=True)
class Cutout(Op):
    """Black out a rectangle of ``ratio`` times the sides, centred anywhere and cut at the border."""

    ratio: float = 0.5

    def __post_init__(self) -> None:
        _require(
            0 <= self.ratio <= 1,
            f"Cutout.ratio is a share of the side and must lie in [0, 1], not {self.ratio}",
        )

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        return _pixels(shape[2], self.ratio), _pixels(shape[3], self.ratio)

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 2]``: the top and left of the rectangle, possibly outside."""
        corners = []
        for side, size in zip(shape[2:], self._size(shape), strict=True):
            centre = _integers(generator, shape[0], 0, side - size % 2)
            corners.append(centre - size // 2)
        return torch.stack(corners, dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Black out the rectangle ``params[i]`` of image i."""
        return _without_squares(x, params[:, 0], params[:, 1], self._size(x.shape))

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Black out the same rectangle everywhere."""
        top, left = int(params[0]), int(params[1])
        height, width = self._size(x.shape)
        mask = x.new_ones(x.shape[2:])
        mask[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = 0
        return x * mask


@final
@dataclass(frozen=True)
class Colour(Op):
    """DSA's colour change: brightness, saturation and contrast at once.

    Brightness adds U(-1/2, 1/2) * brightness, saturation multiplies distances from the channels' mean by
    U(0, saturation), contrast multiplies distances from the image's mean by U(contrast, contrast + 1).
    One-channel images have no saturation to change.
    """

    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5

    def __post_init__(self) -> None:
        _require(
            min(self.brightness, self.saturation, self.contrast) >= 0,
            f"no strength of {self} may be negative",
        )

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 3]``: what is added, and the factors of saturation and contrast."""
        shift = _uniform(generator, shape[0], -self.brightness / 2, self.brightness / 2)
        saturation = _uniform(generator, shape[0], 0, self.saturation)
        contrast = _uniform(generator, shape[0], self.contrast, self.contrast + 1)
        return torch.stack([shift, saturation, contrast], dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Recolour image i by ``params[i]``."""
        return _recoloured(x, *(_column(x, column) for column in params.unbind(1)))

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Recolour all images alike."""
        return _recoloured(x, params[0], params[1], params[2])


@final
@dataclass(frozen=True)
class Jitter(Op):
    """FRePo's colour change: adds U(-brightness, brightness); each factor's log is U(-strength, strength)."""

    brightness: float = 0.25
    saturation: float = 0.25
    contrast: float = 0.25

    def __post_init__(self) -> None:
        _require(
            min(self.brightness, self.saturation, self.contrast) >= 0,
            f"no strength of {self} may be negative",
        )

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 3]``: what is added, and the factors of saturation and contrast."""
        shift = _uniform(generator, shape[0], -self.brightness, self.brightness)
        logs = [_uniform(generator, shape[0], -s, s) for s in (self.saturation, self.contrast)]
        return torch.stack([shift, logs[0].exp(), logs[1].exp()], dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Recolour image i by ``params[i]``."""
        return _recoloured(x, *(_column(x, column) for column in params.unbind(1)))


@final
@dataclass(frozen=True)
class Zoom(Op):
    """FRePo's random sized crop: zoom by a factor, log-uniform from low to high, about a random place.

    Zoomed in, the crop stays inside the image; zoomed out, the image stays inside the crop and its edge is
    repeated.
    """

    low: float = 0.8
    high: float = 1.25

    def __post_init__(self) -> None:
        _require(0 < self.low <= self.high, f"Zoom needs 0 < low <= high, not low={self.low} and high={self.high}")

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 3]``: the zoom, then the place down and across in [-1, 1] of the room there is."""
        zoom = _uniform(generator, shape[0], math.log(self.low), math.log(self.high)).exp()
        place = [_uniform(generator, shape[0], -1, 1) for _ in range(2)]
        return torch.stack([zoom, *place], dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Zoom image i by ``params[i]``."""
        zoom, down, across = params.unbind(1)
        room = (zoom - 1).abs() / zoom
        theta = _theta((1 / zoom, 0.0, across * room), (0.0, 1 / zoom, down * room), len(x))
        return _affine(x, theta, Border.EDGE)


@final
@dataclass(frozen=True)
class Translate(Op):
    """FRePo's translation: by U(-ratio, ratio) of the side, not in whole pixels; the edge is repeated."""

    ratio: float = 0.125

    def __post_init__(self) -> None:
        _require(0 <= self.ratio <= 1, f"Translate.ratio is a share of the side, in [0, 1], not {self.ratio}")

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 2]``: shares of the side, down and across."""
        shares = [_uniform(generator, shape[0], -self.ratio, self.ratio) for _ in range(2)]
        return torch.stack(shares, dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Move image i by ``params[i]``."""
        # A side is two long in normalised coordinates.
        down, across = (2 * params).unbind(1)
        return _affine(x, _theta((1.0, 0.0, across), (0.0, 1.0, down), len(x)), Border.EDGE)


@final
@dataclass(frozen=True)
class Erase(Op):
    """FRePo's cutout: black out a rectangle of ``ratio`` times the sides, wholly inside the image."""

    ratio: float = 0.25

    def __post_init__(self) -> None:
        _require(
            0 <= self.ratio <= 1,
            f"Erase.ratio is a share of the side and must lie in [0, 1], not {self.ratio}",
        )

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        return int(shape[2] * self.ratio), int(shape[3] * self.ratio)

    def draw_each(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Parameters ``[n, 2]``: the top and left of the rectangle."""
        room = [side - size for side, size in zip(shape[2:], self._size(shape), strict=True)]
        return torch.stack([_integers(generator, shape[0], 0, most) for most in room], dim=1)

    def apply_each(self, x: Tensor, params: Tensor) -> Tensor:
        """Black out the rectangle ``params[i]`` of image i."""
        return _without_squares(x, params[:, 0], params[:, 1], self._size(x.shape))


# One draw for several batches -------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Draw:
    """One operation with its parameters: a fixed change that can be applied to any batch."""

    op: Op
    params: Params

    def __call__(self, x: Tensor) -> Tensor:
        """Change the images ``x [n, c, h, w]``, all alike."""
        _require_images(x.shape)
        return self.op.apply(x, self.params)


@final
@dataclass(frozen=True)
class Siamese:
    """Differentiable siamese augmentation, "Dataset Condensation with Differentiable Siamese Augmentation".

    Zhao & Bilen, ICML 2021, https://arxiv.org/abs/2102.08259, Eq. 4: the same A(., w) on the real and the
    synthetic batch. One operation is drawn uniformly for each draw, with one set of parameters for all
    images, as in the authors' code.

    Args:
        ops: The operations to draw from, in order.

    >>> siamese = Siamese.natural()
    >>> draw = siamese.draw(torch.Generator().manual_seed(0), (8, 3, 32, 32))
    >>> real, synthetic = torch.ones(8, 3, 32, 32), torch.ones(2, 3, 32, 32)
    >>> bool((siamese(real, draw)[:2] == siamese(synthetic, draw)).all())
    True
    """

    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        _require(
            len(self.ops) > 0,
            "Siamese needs at least one operation: use Siamese.natural(), or no augmentation",
        )

    @classmethod
    def natural(cls) -> Siamese:
        """The authors' six operations for natural images."""
        return cls((Colour(), Crop(), Cutout(), Flip(), Scale(), Rotate()))

    @classmethod
    def digits(cls) -> Siamese:
        """The authors' five operations for digits, which must not be mirrored."""
        return cls((Colour(), Crop(), Cutout(), Scale(), Rotate()))

    def draw(self, generator: Generator, x_shape: Sequence[int]) -> Draw:
        """Draw one operation and its parameters for images of ``x_shape = (n, c, h, w)``, whatever n."""
        _require_cpu(generator)
        _require_images(x_shape)
        op = self.ops[int(torch.randint(len(self.ops), (), generator=generator))]
        return Draw(op, op.draw(generator, x_shape))

    def __call__(self, x: Tensor, draw: Draw) -> Tensor:
        """Apply a draw to ``x [n, c, h, w]``."""
        return draw(x)


# One draw for each image ------------------------------------------------------------------------------------


class Augment(Protocol):
    """A random change of a training batch, each image in its own way."""

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return changed images of the same shape as ``x [n, c, h, w]``."""


def _apply_by_choice(x: Tensor, choices: Tensor, changes: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """Change image i by ``changes[choices[i]]``; each change sees its images as one batch."""
    order = choices.argsort(stable=True)
    groups = torch.split(order, choices.bincount(minlength=len(changes)).tolist())
    pieces = [
        change(x[group.to(x.device, non_blocking=True)])
        for change, group in zip(changes, groups, strict=True)
        if len(group)
    ]
    return torch.cat(pieces)[order.argsort().to(x.device, non_blocking=True)]


@final
@dataclass(frozen=True)
class OneOfPerImage:
    """One operation of a list, with parameters of its own for every image.

    `rcig` and `frepo` give the evaluation augmentation of RCIG (Loo et al. 2023) and FRePo (Zhou et al.
    2022), which share their operations and differ in whether an operation is drawn for each image or once for
    the batch.

    Args:
        ops: The operations to draw from, each as likely as the others.
        choice: Whether each image or each batch draws its operation.
    """

    ops: tuple[Op, ...]
    choice: Choice = Choice.IMAGE

    def __post_init__(self) -> None:
        _require(len(self.ops) > 0, "OneOfPerImage needs at least one operation: use OneOfPerImage.rcig()")

    @classmethod
    def rcig(cls) -> OneOfPerImage:
        """RCIG's: an operation for each image."""
        return cls(_frepo_ops(flip=True), Choice.IMAGE)

    @classmethod
    def rcig_digits(cls) -> OneOfPerImage:
        """`rcig` without the flip, for digits and letters."""
        return cls(_frepo_ops(flip=False), Choice.IMAGE)

    @classmethod
    def frepo(cls) -> OneOfPerImage:
        """FRePo's: an operation for each batch."""
        return cls(_frepo_ops(flip=True), Choice.BATCH)

    @classmethod
    def frepo_digits(cls) -> OneOfPerImage:
        """`frepo` without the flip, for digits and letters."""
        return cls(_frepo_ops(flip=False), Choice.BATCH)

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Change the images ``x [n, c, h, w]``."""
        _require_cpu(generator)
        _require_images(x.shape)
        if len(x) == 0:
            return x
        if self.choice is Choice.BATCH:
            op = self.ops[int(torch.randint(len(self.ops), (), generator=generator))]
            return self._changed(x, op, generator)
        choices = torch.randint(len(self.ops), (len(x),), generator=generator)
        changes = [lambda part, op=op: self._changed(part, op, generator) for op in self.ops]
        return _apply_by_choice(x, choices, changes)

    @staticmethod
    def _changed(x: Tensor, op: Op, generator: Generator) -> Tensor:
        return op.apply_each(x, op.draw_each(generator, x.shape))


def _frepo_ops(*, flip: bool) -> tuple[Op, ...]:
    mirror: tuple[Op, ...] = (Flip(),) if flip else ()
    return (*mirror, Jitter(), Zoom(), Rotate(border=Border.EDGE), Translate(), Erase())


@final
@dataclass(frozen=True)
class DsaTrain:
    """DSA's augmentation for training on a condensed set: one operation a batch, parameters for each image.

    The same operations as while condensing, with the siamese mode off, as DSA, DM and MTT evaluate and as MTT
    trains its experts.
    """

    siamese: Siamese

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Change the images ``x [n, c, h, w]``."""
        return OneOfPerImage(self.siamese.ops, Choice.BATCH)(x, generator)


@final
@dataclass(frozen=True)
class DcTrain:
    """DC's augmentation for training on a condensed set: one operation an image (Zhao et al., ICLR 2021).

    Differences from the authors' code: the rotation is bilinear and keeps the exact middle, where theirs is a
    cubic spline whose middle can be half a pixel off.

    Args:
        steps: The operations to draw from.
        crop: Pixels of padding with the batch's mean colour; the shift is from -crop to crop - 1.
        scale: Each side becomes U(1 - scale, 1 + scale) times as long (nearest pixel), zeros around.
        rotate: Whole degrees, from -rotate to rotate - 1, the batch's mean level around.
        noise: Standard deviation of the noise that is added.
    """

    steps: tuple[DcStep, ...] = (DcStep.CROP, DcStep.SCALE, DcStep.ROTATE)
    crop: int = 4
    scale: float = 0.2
    rotate: int = 45
    noise: float = 0.001

    def __post_init__(self) -> None:
        _require(len(self.steps) > 0, "DcTrain needs at least one step: use DcTrain.digits(), or no augmentation")
        _require(0 <= self.scale < 1, f"DcTrain.scale must lie in [0, 1), not {self.scale}")
        _require(min(self.crop, self.rotate, self.noise) >= 0, f"no strength of {self} may be negative")

    @classmethod
    def digits(cls) -> DcTrain:
        """What DC uses on MNIST: crop, scale, rotate."""
        return cls()

    @classmethod
    def batch_norm(cls) -> DcTrain:
        """What DC uses for networks with batch normalisation: crop, noise."""
        return cls((DcStep.CROP, DcStep.NOISE))

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Change the images ``x [n, c, h, w]``."""
        _require_cpu(generator)
        _require_images(x.shape)
        if len(x) == 0:
            return x
        colour = x.detach().mean(dim=(0, 2, 3)).view(1, -1, 1, 1)
        changes: dict[DcStep, Callable[[Tensor], Tensor]] = {
            DcStep.CROP: lambda part: self._cropped(part, generator, colour),
            DcStep.SCALE: lambda part: self._scaled(part, generator),
            DcStep.ROTATE: lambda part: self._rotated(part, generator, colour.mean()),
            DcStep.NOISE: lambda part: self._noisy(part, generator),
        }
        choices = torch.randint(len(self.steps), (len(x),), generator=generator)
        return _apply_by_choice(x, choices, [changes[step] for step in self.steps])

    def _cropped(self, x: Tensor, generator: Generator, colour: Tensor) -> Tensor:
        most = max(self.crop - 1, -self.crop)
        down, across = (_integers(generator, len(x), -self.crop, most) for _ in range(2))
        return _shifted(x, down, across, colour)

    def _scaled(self, x: Tensor, generator: Generator) -> Tensor:
        """Resize by nearest neighbour, put in the middle of a black canvas, cut the canvas's middle."""
        sides = torch.tensor(x.shape[2:])
        factors = [_uniform(generator, len(x), 1 - self.scale, 1 + self.scale) for _ in range(2)]
        new = (torch.stack(factors, dim=1) * sides).long().clamp(min=1)  # [n, 2]
        canvas = torch.maximum(new.amax(dim=1, keepdim=True), sides.amax())
        first = (canvas - sides) // 2 - (canvas - new) // 2  # the resized image's pixel that lands in the corner
        sources = []
        for axis, side in enumerate(x.shape[2:]):
            place = torch.arange(side) + first[:, axis : axis + 1]
            sources.append((place * side).div(new[:, axis : axis + 1], rounding_mode="floor"))
        rows, columns = (source.to(x.device, non_blocking=True) for source in sources)
        return _pick(x, rows, columns, x.new_zeros(()))

    def _rotated(self, x: Tensor, generator: Generator, level: Tensor) -> Tensor:
        most = max(self.rotate - 1, -self.rotate)
        degrees = _integers(generator, len(x), -self.rotate, most)
        return _affine(x - level, _rotation(degrees), Border.ZERO) + level

    def _noisy(self, x: Tensor, generator: Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x + self.noise * noise.to(x.device, non_blocking=True)


def mirrored(batch: Batch) -> Batch:
    """Double a batch ``[n, c, h, w]`` with its left-right mirror images and the same labels (FRePo, RCIG).

    >>> double = mirrored(Batch(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([7])))
    >>> double.x.flatten(1).tolist(), double.y.tolist()
    ([[1.0, 2.0], [2.0, 1.0]], [7, 7])
    """
    return Batch(torch.cat([batch.x, batch.x.flip(-1)]), torch.cat([batch.y, batch.y]))


CLASSES: tuple[type, ...] = (
    *(Siamese, DsaTrain, OneOfPerImage, DcTrain, Border, Choice, DcStep),
    *(Flip, Scale, Rotate, Crop, Cutout, Colour, Jitter, Zoom, Translate, Erase),
)
"""Every class that a recipe's augmentation is made of: what a file may name (`condensery.configs`)."""
