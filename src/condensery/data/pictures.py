"""Picture files (JPEG, PNG, ...) to one uint8 tensor of one size.

The rule for every picture: turned upright as its EXIF data says, transparency laid over white, resized
(bicubic, antialiased) until it just covers the target size, then cropped at the centre. For a square target
that is "the shorter side resized to the size".
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from condensery.data._errors import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
SIZES = (32, 64, 128)  # the resolutions the image networks here are built for
_GREY = frozenset(("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"))
_SHOWN = 3

Picture: TypeAlias = "Path | Image"


def list_pictures(folder: Path) -> list[Path]:
    """Picture files anywhere under `folder`, by suffix, sorted; hidden files are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def survey(pictures: Sequence[Picture], size: int | None) -> tuple[int, int, int]:
    """The (channels, height, width) that a set of pictures will have, from their headers alone.

    One channel if every picture is grey, else three. With `size`, that square. Without: pictures all of one
    size with no side over 128 stay as they are; others become square, the largest of 32, 64 and 128 that the
    median shorter side reaches (32 where none is), so that typical pictures are not enlarged.

    Args:
        pictures: Files or opened images, at least one.
        size: Side wanted, or None.

    Raises:
        ValueError: For a size below 1 or pictures that cannot be read.
    """
    if size is not None and size < 1:
        raise ValueError(f"size is {size}: give the side of the images in pixels, such as 32")
    try:
        headers = _each(_header, pictures)
    except ValueError:
        read_pictures(pictures, (3, SIZES[0], SIZES[0]))  # names the files damaged further in as well
        raise
    channels = 1 if all(mode in _GREY for _, mode in headers) else 3
    if size is not None:
        return channels, size, size
    shapes = {shape for shape, _ in headers}
    if len(shapes) == 1 and max(next(iter(shapes))) <= SIZES[-1]:
        width, height = shapes.pop()
        return channels, height, width
    median = float(np.median([min(shape) for shape, _ in headers]))
    side = max((s for s in SIZES if s <= median), default=SIZES[0])
    return channels, side, side


def read_pictures(pictures: Sequence[Picture], shape: tuple[int, int, int]) -> Tensor:
    """All pictures, resized and cropped to `shape`.

    Args:
        pictures: Files or opened images.
        shape: (channels, height, width); 1 channel makes them grey, 3 colour.

    Returns:
        uint8 ``[n, channels, height, width]``.

    Raises:
        ValueError: Naming the pictures that cannot be read (the first few, and how many in all).
    """
    out = np.empty((len(pictures), *shape), dtype=np.uint8)

    def fill(job: tuple[int, Picture]) -> None:
        out[job[0]] = _pixels(job[1], shape)

    _each(fill, list(enumerate(pictures)), name=lambda job: _name(job[1], job[0]))
    return torch.from_numpy(out)


def _each(work: Any, jobs: Sequence[Any], name: Any = None) -> list[Any]:
    """`work` on every job, in threads (Pillow decodes outside the lock); all failures make one error."""
    problems: dict[int, str] = {}

    def attempt(index: int) -> Any:
        try:
            return work(jobs[index])
        except Exception as error:  # decoders raise nearly anything on a damaged file
            problems[index] = one_line(error, 100)
            return None

    with warnings.catch_warnings(), ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd EXIF blocks and palettes, one for each picture
        results = list(pool.map(attempt, range(len(jobs))))
    if problems:
        named = [f"{name(jobs[i]) if name else _name(jobs[i], i)}: {problems[i]}" for i in sorted(problems)[:_SHOWN]]
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(
            f"{len(problems)} of {len(jobs)} pictures cannot be read ({'; '.join(named)}{more}): repair or remove them"
        )
    return results


def _name(picture: Picture, index: int) -> str:
    return str(picture) if isinstance(picture, Path) else f"picture {index}"


def _header(picture: Picture) -> tuple[tuple[int, int], str]:
    from PIL import Image

    if isinstance(picture, Path):
        with Image.open(picture) as image:
            return image.size, image.mode
    return picture.size, picture.mode


def _pixels(picture: Picture, shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from PIL import Image

    if isinstance(picture, Path):
        with Image.open(picture) as file:
            return _pixels(file, shape)
    channels, height, width = shape
    image = _cover(_flat(picture, "L" if channels == 1 else "RGB"), height, width)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels.reshape(1, height, width) if channels == 1 else pixels.transpose(2, 0, 1)


def _flat(image: Image, mode: str) -> Image:
    """Upright, opaque, 8 bits a channel, grey ("L") or colour ("RGB")."""
    from PIL import Image as pil
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "F":  # no agreed range, and Pillow would clip it without a word
        raise ValueError("32-bit float pixels; convert it to 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey: Pillow's own conversion would clip at 255
        image = pil.fromarray((np.asarray(image, dtype=np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        colour = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), colour)
    return image if image.mode == mode else image.convert(mode)


def _cover(image: Image, height: int, width: int) -> Image:
    from PIL import Image as pil

    if image.size == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    wide, tall = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    image = image.resize((wide, tall), pil.Resampling.BICUBIC)
    left, top = (wide - width) // 2, (tall - height) // 2
    return image.crop((left, top, left + width, top + height))


def opened(images: Iterable[Any]) -> list[Picture]:
    """Images already opened (as the Hugging Face hub gives them), checked to be images.

    Raises:
        ValueError: For anything that is not a Pillow image.
    """
    from PIL import Image as pil

    pictures: list[Picture] = []
    for index, image in enumerate(images):
        if not isinstance(image, pil.Image):
            raise ValueError(f"row {index} holds a {type(image).__name__}, not an image: name the column of images")
        pictures.append(image)
    return pictures
