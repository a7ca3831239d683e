"""Preprocessing: stored pixels to network input, and exactly back.

Three kinds: `Identity`, `Standardise` (a mean and a standard deviation per channel) and `Whiten` (ZCA). The
literature has two ZCA definitions that are **not interchangeable**: a set condensed under one is meaningless
under the other.

* `zca_absolute`: the trajectory-matching family (MTT, TESLA, FTD, DATM, MCT). Raw pixels in [0, 1],
  covariance over n - 1, an absolute constant added to the eigenvalues.
* `zca_trace`: the kernel family (FRePo, RCIG). Channels standardised first, covariance over n, a constant
  relative to the mean eigenvalue, rank control, and blocks for high resolution.

A file of condensed images therefore stores `config()` and `tensors()`, and `from_config` rebuilds the object.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

_ROWS = 2048  # images handled at once while fitting: bounds the float copy to about 25 MB at 32 x 32 colour


class Preprocessing(Protocol):
    """An invertible map between pixels and what the network sees.

    Every implementation takes uint8 images (scaled by 1/255 first) or float images already in [0, 1].
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Pixels ``[n, c, h, w]`` (uint8, or float in [0, 1]) to float32 network input of the same shape."""
        ...

    def inverse(self, z: Tensor) -> Tensor:
        """Network input ``[n, c, h, w]`` to pixels in the scale of [0, 1]; exact, so not clamped to it."""
        ...

    def to(self, device: torch.device | str) -> Preprocessing:
        """The same map with its tensors on `device`."""
        ...

    def config(self) -> dict[str, Any]:
        """What JSON can hold of it; with `tensors` enough for `from_config`."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name (empty where the config says everything)."""
        ...


Fit: TypeAlias = Callable[[Tensor], Preprocessing]
"""From training images, uint8 ``[n, c, h, w]``, to a preprocessing: `zca_absolute`, `Standardise.of`."""


def unit(x: Tensor) -> Tensor:
    """Pixels as float32: uint8 is divided by 255, floats are taken to be in [0, 1] already.

    Args:
        x: Images of any shape, uint8 or floating point.

    Raises:
        ValueError: For any other dtype.
    """
    if x.dtype == torch.uint8:
        return x.to(torch.float32).div_(255)
    if x.is_floating_point():
        return x.to(torch.float32)
    raise ValueError(f"images are uint8 (0 to 255) or floats (0 to 1), not {x.dtype}: convert them first")


class Identity:
    """Values unchanged: for images that are prepared already, or for a network fed plain pixels in [0, 1]."""

    def __call__(self, x: Tensor) -> Tensor:
        """Uint8 ``[n, c, h, w]`` scaled to [0, 1]; floats as they are (as float32)."""
        return unit(x)

    def inverse(self, z: Tensor) -> Tensor:
        """`z` itself."""
        return z

    def to(self, device: torch.device | str) -> Identity:
        """Itself: there is nothing to move."""
        return self

    def config(self) -> dict[str, Any]:
        """``{"kind": "identity"}``."""
        return {"kind": "identity"}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class Prepared:
    """The preprocessing of images that went through `original`: it leaves floats alone and still inverts.

    Its config and tensors are those of `original`, so that a file made from prepared data records what was
    really done.

    Args:
        original: The map the images went through.
    """

    def __init__(self, original: Preprocessing) -> None:
        self.original = original

    def __call__(self, x: Tensor) -> Tensor:
        """Floats ``[n, c, h, w]`` as they are (already prepared); uint8 pixels through `original`."""
        return self.original(x) if x.dtype == torch.uint8 else x

    def inverse(self, z: Tensor) -> Tensor:
        """Prepared images ``[n, c, h, w]`` back to pixels in the scale of [0, 1]."""
        return self.original.inverse(z)

    def to(self, device: torch.device | str) -> Prepared:
        """The same with `original` on `device`."""
        return Prepared(self.original.to(device))

    def config(self) -> dict[str, Any]:
        """The config of `original`."""
        return self.original.config()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of `original`."""
        return self.original.tensors()


class Standardise:
    """``(x - mean) / std`` for each channel, on pixels in [0, 1].

    Args:
        mean: One number a channel, in [0, 1] pixel scale.
        std: One positive number a channel.

    Raises:
        ValueError: Where the two differ in length or a deviation is not positive.

    >>> grey = Standardise([0.5], [0.25])
    >>> grey(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item()
    2.0
    """

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float32).reshape(-1, 1, 1)
        self.std = torch.as_tensor(std, dtype=torch.float32).reshape(-1, 1, 1)
        if len(self.mean) == 0 or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} channels and std {len(self.std)}: give one of each per channel"
            )
        if not bool((self.std > 0).all() and self.std.isfinite().all() and self.mean.isfinite().all()):
            raise ValueError("mean and std must be finite and std positive: use 1 for a channel that never varies")

    @classmethod
    def of(cls, x: Tensor) -> Standardise:
        """Mean and deviation of each channel of `x`; a channel that never varies keeps std 1.

        Args:
            x: Images ``[n, c, h, w]``, uint8 or float in [0, 1].
        """
        _check_images(x)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        total, square = (torch.zeros(x.shape[1], dtype=torch.float64, device=x.device) for _ in range(2))
        for part in _chunks(x):
            pixels = unit(part).double()
            total += pixels.sum((0, 2, 3))
            square += pixels.square().sum((0, 2, 3))
        mean = total / count
        std = (square / count - mean.square()).clamp_min(0).sqrt()
        return cls(mean, torch.where(std > 1e-6, std, 1.0))

    def __call__(self, x: Tensor) -> Tensor:
        """Pixels ``[n, c, h, w]`` to float32 ``[n, c, h, w]``."""
        self._check_channels(x)
        return (unit(x) - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """Network input ``[n, c, h, w]`` to pixels in the scale of [0, 1]."""
        self._check_channels(z)
        return z * self.std.to(z.dtype) + self.mean.to(z.dtype)

    def to(self, device: torch.device | str) -> Standardise:
        """The same with mean and std on `device`."""
        moved = copy.copy(self)  # not built anew: the checks would wait for the device
        moved.mean, moved.std = self.mean.to(device), self.std.to(device)
        return moved

    def config(self) -> dict[str, Any]:
        """Kind, mean and std; float32 values survive JSON exactly."""
        return {
            "kind": "standardise",
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: the config holds the numbers."""
        return {}

    def _check_channels(self, x: Tensor) -> None:
        if x.shape[-3] != len(self.mean):  # one mean would broadcast over three channels without a word
            raise ValueError(
                f"images have {x.shape[-3]} channels and the statistics {len(self.mean)}: use statistics of this data"
            )


class Whiten:
    """ZCA whitening: subtract the mean image, then multiply the flattened image by a symmetric matrix.

    With `block` smaller than the image, the image is cut as a checkerboard (pixels ``i::stride, j::stride``
    form one block, so each block is a coarse copy of the whole picture) and one matrix serves every block.

    Args:
        shift: Mean image ``[c, h, w]``, after `before`.
        matrix: ``[k, k]`` with ``k = c * block height * block width``.
        inverse_matrix: Its inverse, ``[k, k]``.
        before: What is applied first (`zca_trace` standardises), or None for raw pixels in [0, 1].
        block: Block (height, width), or None for the whole image.
        rule: How the matrix was made; recorded in the config, never read.

    Raises:
        ValueError: Where the shapes do not fit together.
    """

    def __init__(
        self,
        shift: Tensor,
        matrix: Tensor,
        inverse_matrix: Tensor,
        *,
        before: Standardise | None = None,
        block: tuple[int, int] | None = None,
        rule: Mapping[str, Any] | None = None,
    ) -> None:
        self.shift, self.matrix, self.inverse_matrix = shift, matrix, inverse_matrix
        self.before, self.rule = before, dict(rule or {})
        if shift.ndim != 3:
            raise ValueError(f"the mean image has shape {tuple(shift.shape)}: give [channels, height, width]")
        self.block = _check_block(shift.shape, block)
        width = shift.shape[0] * self.block[0] * self.block[1]
        if matrix.shape != (width, width) or inverse_matrix.shape != (width, width):
            raise ValueError(
                f"blocks of {width} values need two {width} x {width} matrices, not "
                f"{tuple(matrix.shape)} and {tuple(inverse_matrix.shape)}: give those the rule made"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Pixels ``[n, c, h, w]`` to whitened float32 ``[n, c, h, w]``."""
        z = self.before(x) if self.before is not None else unit(x)
        self._check_shape(z)
        return self._multiply(z - self.shift, self.matrix)

    def inverse(self, z: Tensor) -> Tensor:
        """Whitened images ``[n, c, h, w]`` to pixels in the scale of [0, 1]."""
        self._check_shape(z)
        x = self._multiply(z, self.inverse_matrix.to(z.dtype)) + self.shift.to(z.dtype)
        return self.before.inverse(x) if self.before is not None else x

    def to(self, device: torch.device | str) -> Whiten:
        """The same with its tensors on `device`."""
        return Whiten(
            self.shift.to(device),
            self.matrix.to(device),
            self.inverse_matrix.to(device),
            before=self.before.to(device) if self.before is not None else None,
            block=self.block,
            rule=self.rule,
        )

    def config(self) -> dict[str, Any]:
        """Kind, block, the standardising step and the rule the matrix was fitted by."""
        before = self.before.config() if self.before is not None else None
        return {"kind": "whiten", "block": list(self.block), "before": before, "rule": dict(self.rule)}

    def tensors(self) -> dict[str, Tensor]:
        """``shift`` ``[c, h, w]``, ``matrix`` and ``inverse_matrix`` ``[k, k]``."""
        return {"shift": self.shift, "matrix": self.matrix, "inverse_matrix": self.inverse_matrix}

    def _multiply(self, x: Tensor, matrix: Tensor) -> Tensor:
        return _from_blocks(_to_blocks(x, self.block) @ matrix, x.shape, self.block)

    def _check_shape(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1:] != self.shift.shape:
            raise ValueError(
                f"images of shape {tuple(x.shape[1:])} cannot pass a whitening fitted on "
                f"{tuple(self.shift.shape)}: resize them or fit a new one"
            )


def zca_absolute(x: Tensor, eps: float = 0.1) -> Whiten:
    """ZCA as the trajectory-matching family does it (kornia's ``ZCAWhitening(eps=0.1)``); not `zca_trace`.

    On pixels in [0, 1] with no mean or deviation first: ``cov = X'X / (n - 1)`` of centred X, ``cov = U S
    U'``, ``W = U (S + eps)^(-1/2) U'``.

    Args:
        x: Training images ``[n, c, h, w]``, uint8 or float in [0, 1], n at least 2.
        eps: Added to every eigenvalue.

    Raises:
        ValueError: For fewer than two images or an `eps` that is not positive.
    """
    _check_images(x)
    if len(x) < 2:
        raise ValueError("one image has no covariance: whiten with at least two")
    if eps <= 0:
        raise ValueError(f"eps is {eps}: use a positive number such as 0.1, or constant pixels divide by zero")
    block = (x.shape[2], x.shape[3])
    shift = _mean_image(x, unit)
    cov = _scatter(x, unit, shift, block) / (len(x) - 1)
    values, vectors = torch.linalg.eigh(cov)
    matrices = _roots(values.clamp_min(0) + eps, vectors)
    return Whiten(shift.float(), *matrices, rule={"name": "absolute", "eps": eps})


def zca_trace(
    x: Tensor, standardise: Standardise, ratio: float = 0.1, *, block: int | tuple[int, int] | None = None
) -> Whiten:
    """ZCA as FRePo and RCIG do it; not `zca_absolute`.

    Standardise, subtract the mean image, ``cov = X'X / n``, add ``ratio * trace(cov) / d`` to the
    eigenvalues, ``W = U S^(-1/2) U'``. Where there are fewer images n than dimensions d, the smallest d - n
    eigenvalues are set to 1 (rank control: directions without data are left alone).

    Args:
        x: Training images ``[n, c, h, w]``, uint8 or float in [0, 1].
        standardise: Applied first.
        ratio: Regulariser, as a share of the mean eigenvalue.
        block: Block side or (height, width) for high resolution: the covariances of all checkerboard blocks
            are averaged (the published code uses 64 at 128 x 128). It must divide the image.

    Raises:
        ValueError: For no images, a `ratio` that is not positive, or a block that does not divide the image.
    """
    _check_images(x)
    if ratio <= 0:
        raise ValueError(f"ratio is {ratio}: use a positive number such as 0.1")
    standardise = standardise.to(x.device)
    pair = (block, block) if isinstance(block, int) else block
    size = _check_block(x.shape[1:], pair)
    blocks = (x.shape[2] // size[0]) * (x.shape[3] // size[1])
    shift = _mean_image(x, standardise)
    cov = _scatter(x, standardise, shift, size) / (len(x) * blocks)
    values, vectors = torch.linalg.eigh(cov)
    values = values.clamp_min(0) + ratio * cov.trace() / len(cov)
    if not bool(values[0] > 0):
        raise ValueError("every image is the same, so there is nothing to whiten: use Standardise")
    if len(x) < len(values):
        values[: len(values) - len(x)] = 1.0  # eigh sorts upwards: these are the smallest
    rule = {"name": "trace", "ratio": ratio}
    return Whiten(shift.float(), *_roots(values, vectors), before=standardise, block=size, rule=rule)


def from_config(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Preprocessing:
    """The preprocessing that a file describes: the inverse of `config()` and `tensors()`.

    Args:
        config: As given by `Preprocessing.config`.
        tensors: As given by `Preprocessing.tensors`.

    Raises:
        ValueError: Where the two are not a description this library wrote.

    >>> from_config(Standardise([0.5], [0.25]).config(), {}).config()["mean"]
    [0.5]
    """
    kind = config.get("kind")
    try:
        if kind == "identity":
            return Identity()
        if kind == "standardise":
            return Standardise(config["mean"], config["std"])
        if kind == "whiten":
            return _whiten_from(config, tensors)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the description of preprocessing {kind!r} is incomplete ({error!r}): write the file anew"
        ) from error
    raise ValueError(f"unknown preprocessing {kind!r}: read this file with the version that wrote it")


def _whiten_from(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Whiten:
    before = config["before"]
    height, width = config["block"]
    return Whiten(
        tensors["shift"],
        tensors["matrix"],
        tensors["inverse_matrix"],
        before=Standardise(before["mean"], before["std"]).to(tensors["shift"].device) if before else None,
        block=(int(height), int(width)),
        rule=config.get("rule"),
    )


def _check_images(x: Tensor) -> None:
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"statistics need images [n, c, h, w] with n at least 1, not shape {tuple(x.shape)}")


def _check_block(shape: Sequence[int], block: tuple[int, int] | None) -> tuple[int, int]:
    height, width = shape[1], shape[2]
    if block is None:
        return height, width
    if min(block) < 1 or height % block[0] or width % block[1]:
        raise ValueError(
            f"blocks of {block[0]} x {block[1]} do not tile {height} x {width} images: choose a side that divides them"
        )
    return block


def _chunks(x: Tensor) -> Iterator[Tensor]:
    yield from torch.split(x, _ROWS)


def _mean_image(x: Tensor, first: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
    for part in _chunks(x):
        total += first(part).sum(0, dtype=torch.float64)
    return total / len(x)


def _scatter(x: Tensor, first: Callable[[Tensor], Tensor], shift: Tensor, block: tuple[int, int]) -> Tensor:
    """Sum over images and blocks of the outer products of centred pixels, float64 ``[k, k]``."""
    width = x.shape[1] * block[0] * block[1]
    total = torch.zeros(width, width, dtype=torch.float64, device=x.device)
    centre = shift.float()
    for part in _chunks(x):
        rows = _to_blocks(first(part) - centre, block)
        total += rows.T @ rows  # float32 products, float64 sum: half the time, and errors do not pile up
    return total


def _roots(values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """``U values^(-1/2) U'`` and its inverse ``U values^(1/2) U'``, float32 ``[k, k]`` each."""
    root = values.sqrt()
    return ((vectors / root) @ vectors.T).float(), ((vectors * root) @ vectors.T).float()


def _to_blocks(x: Tensor, block: tuple[int, int]) -> Tensor:
    """``[n, c, h, w]`` to ``[n * blocks, c * block height * block width]``, checkerboard blocks."""
    n, c, h, w = x.shape
    tall, wide = block
    cut = x.reshape(n, c, tall, h // tall, wide, w // wide)
    return cut.permute(0, 3, 5, 1, 2, 4).reshape(-1, c * tall * wide)


def _from_blocks(rows: Tensor, shape: Sequence[int], block: tuple[int, int]) -> Tensor:
    n, c, h, w = shape
    tall, wide = block
    cut = rows.reshape(n, h // tall, w // wide, c, tall, wide)
    return cut.permute(0, 3, 4, 1, 5, 2).reshape(n, c, h, w)
