"""Pictures of image sets: one class a row or block, names beside them, pixels enlarged but never blurred."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

if TYPE_CHECKING:
    from condensery.artifact import Artifact

_INK, _PAPER, _QUIET = (24, 24, 27), (255, 255, 255), (228, 228, 231)
_SIDE = 64  # a picture's longer side is enlarged to about this many pixels
_PIXELS = 1_500_000  # of all pictures together: beyond it the default scale is reduced
_MOST_COLUMNS = 20
_LONGEST_NAME = 180  # pixels
_RATIO = 1.6  # width to height that blocks of classes are arranged for


def grid(
    images: Tensor,
    classes: Tensor,
    names: Sequence[str],
    *,
    scale: int | None = None,
    columns: int | None = None,
) -> Image.Image:
    """All images of a set, each class with its name at the left.

    A class with more images than `columns` goes on in the next line; classes with few stand side by side.

    Args:
        images: Pixels, float ``[n, c, h, w]`` in [0, 1], one or three channels.
        classes: int64 ``[n]``.
        names: Class names; those without images are left out.
        scale: Screen pixels for each pixel; default: enlarged to about 64 on the longer side.
        columns: Images of a class in a line; default: all of them, up to 20.

    Raises:
        ValueError: In one sentence, if the arguments do not fit together.

    Example:
        >>> picture = grid(torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), ["cat", "dog"])
        >>> picture.mode
        'RGB'
    """
    _check(images, classes, names)
    if columns is not None and columns < 1:
        raise ValueError(f"A line cannot hold {columns} images; give 1 or more columns.")
    members = [(names[c], torch.nonzero(classes == c).flatten()) for c in range(len(names))]
    members = [(name, index) for name, index in members if len(index)]
    scale = _scale(images, len(images), scale)
    most = max(len(index) for _, index in members)
    lines = -(-most // (columns or _MOST_COLUMNS))
    columns = columns or -(-most // lines)
    height, width = (scale * side for side in images.shape[2:])
    gap = max(1, scale // 4) if columns > 1 or lines > 1 else 0
    font = _font(min(height, 2 * _SIDE))
    label = max(_text_width(fit_text(name, font), font) for name, _ in members)
    space = _gutter(font)
    block = _Size(label + space + columns * (width + gap) - gap, lines * (height + gap) - gap)
    across = _across(len(members), _Size(block.width + 2 * space, block.height + space))
    rows = -(-len(members) // across)
    sheet, draw = _sheet(across * (block.width + 2 * space), rows * (block.height + space) + space)
    for number, (name, index) in enumerate(members):
        # Down first, so that class order reads in columns as it would in a single one.
        left = space + number // rows * (block.width + 2 * space)
        top = space + number % rows * (block.height + space)
        draw.text((left + label, top + min(height, block.height) / 2), fit_text(name, font), _INK, font, anchor="rm")
        for place, which in enumerate(index.tolist()):
            x = left + label + space + place % columns * (width + gap)
            sheet.paste(_tile(images[which], scale), (x, top + place // columns * (height + gap)))
    return sheet


def strip(
    rows: Sequence[tuple[str, Tensor, Tensor]],
    names: Sequence[str],
    *,
    scale: int | None = None,
    each: int = 1,
) -> Image.Image:
    """Several sets in one picture: a row for each, a column for each class.

    Args:
        rows: For each set its title, its pixels float ``[n, c, h, w]`` in [0, 1], its classes int64 ``[n]``.
        names: Class names, the columns' titles.
        scale: Screen pixels for each pixel; default: enlarged to about 64 on the longer side.
        each: Images of a class shown, the first ones; where a set has fewer, the place is grey.

    Raises:
        ValueError: In one sentence, if the arguments do not fit together.

    Example:
        >>> one = ("random", torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
        >>> strip([one, ("DM", *one[1:])], ["cat", "dog"]).size[0] > 128
        True
    """
    if not rows:
        raise ValueError("There is no set to show; give at least one row.")
    if each < 1:
        raise ValueError(f"A column cannot show {each} images of a class; give 1 or more.")
    shapes = {tuple(images.shape[1:]) for _, images, _ in rows}
    if len(shapes) > 1:
        raise ValueError(
            f"The sets have images of different shapes {sorted(shapes)}; show those of one shape together."
        )
    for _, images, classes in rows:
        _check(images, classes, names)
    scale = _scale(rows[0][1], len(rows) * len(names) * each, scale)
    height, width = (scale * side for side in rows[0][1].shape[2:])
    font = _font(min(height, 2 * _SIDE))
    space = _gutter(font)
    column = each * width + space
    label = max(_text_width(fit_text(title, font), font) for title, _, _ in rows)
    small = _font_within(names, column - space // 2, font)
    title_height = 2 * space
    sheet, draw = _sheet(2 * space + label + len(names) * column, title_height + len(rows) * (height + space))
    for c, name in enumerate(names):
        middle = 2 * space + label + c * column + (column - space) / 2
        draw.text((middle, title_height / 2), fit_text(name, small, column - space // 2), _INK, small, anchor="mm")
    for number, (title, images, classes) in enumerate(rows):
        top = title_height + number * (height + space)
        draw.text((space + label, top + height / 2), fit_text(title, font), _INK, font, anchor="rm")
        for c in range(len(names)):
            left = 2 * space + label + c * column
            shown = torch.nonzero(classes == c).flatten()[:each].tolist()
            for place in range(each):
                x = left + place * width
                if place < len(shown):
                    sheet.paste(_tile(images[shown[place]], scale), (x, top))
                else:
                    draw.rectangle((x, top, x + width - 1, top + height - 1), fill=_QUIET)
    return sheet


def save_grid(artifact: Artifact, path: str | Path, *, scale: int | None = None, columns: int | None = None) -> Path:
    """Write the `grid` of a condensed set's stored images: whole or not at all.

    Args:
        artifact: The condensed set.
        path: Where; its ending names the format (.png). An existing file is replaced.
        scale: As in `grid`.
        columns: As in `grid`.

    Returns:
        The path.
    """
    picture = grid(
        artifact.pictures.cpu(), artifact.images.classes.cpu(), artifact.classes, scale=scale, columns=columns
    )
    return save(picture, path)


def save(picture: Image.Image, path: str | Path) -> Path:
    """Write a picture to a temporary name, then rename it over `path`.

    Raises:
        ValueError: If the path's ending is no picture format.
    """
    path = Path(path)
    format_ = Image.registered_extensions().get(path.suffix.lower())
    if format_ is None:
        raise ValueError(f"{path} does not end in a picture format's name; end it in .png.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        picture.save(temporary, format=format_)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def to_bytes(images: Tensor) -> Tensor:
    """Pixels as uint8, rounded; what lies outside [0, 1] is cut off.

    Example:
        >>> to_bytes(torch.tensor([-0.1, 0.5, 2.0])).tolist()
        [0, 128, 255]
    """
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """One image ``[c, h, w]``, uint8 or float in [0, 1], as a grey or colour picture of the same size.

    Example:
        >>> to_pil(torch.zeros(1, 8, 6)).size
        (6, 8)
    """
    pixels = (image if image.dtype == torch.uint8 else to_bytes(image)).cpu()
    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy())


class _Size(NamedTuple):
    width: int
    height: int


def _tile(image: Tensor, scale: int) -> Image.Image:
    picture = to_pil(image)
    return picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)


def _scale(images: Tensor, count: int, scale: int | None) -> int:
    if scale is not None:
        if scale < 1:
            raise ValueError(f"Pictures cannot be shown at scale {scale}; give 1 or more.")
        return scale
    side, area = max(images.shape[2:]), images.shape[2] * images.shape[3]
    wanted = max(1, round(_SIDE / side))
    return max(1, min(wanted, int((_PIXELS / (count * area)) ** 0.5)))


def _across(count: int, block: _Size) -> int:
    """Blocks side by side that make the sheet's width to height nearest to what is pleasant."""

    def miss(across: int) -> float:
        down = -(-count // across)
        ratio = across * block.width / (down * block.height)
        empty = across * down / count  # empty places look unfinished
        return max(ratio / _RATIO, _RATIO / ratio) * empty**4

    return min(range(1, count + 1), key=miss)


def _sheet(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (int(width), int(height)), _PAPER)
    return sheet, ImageDraw.Draw(sheet)


def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(11, min(18, round(0.28 * height))))


def _font_within(
    names: Sequence[str], width: float, largest: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest readable type in which every name fits, or the smallest."""
    sizes = range(int(getattr(largest, "size", 11)), 10, -1)
    fonts = [ImageFont.load_default(size) for size in sizes] or [largest]
    return next((font for font in fonts if max(map(font.getlength, names)) <= width), fonts[-1])


def _gutter(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(0.8 * (font.getbbox("Ag")[3] + 2))


def _text_width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(font.getlength(text)) + 1


def fit_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float = _LONGEST_NAME) -> str:
    """The text, or as much of it as fits with dots at its end."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _check(images: Tensor, classes: Tensor, names: Sequence[str]) -> None:
    if images.dim() != 4 or not images.is_floating_point() or images.numel() == 0:
        raise ValueError(f"Images are {images.dtype} {tuple(images.shape)}; give floats [n, c, h, w], n above 0.")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"Images have {images.shape[1]} channels; only 1 (grey) or 3 can be shown.")
    if not bool(((images >= 0) & (images <= 1)).all()):  # so written that NaN fails too
        raise ValueError("Pixels lie outside [0, 1]; invert the preprocessing and clamp them first.")
    if classes.shape != images.shape[:1] or classes.dtype != torch.int64:
        raise ValueError(f"Classes are {classes.dtype} {tuple(classes.shape)}; give int64 [{len(images)}].")
    if not 0 <= int(classes.min()) <= int(classes.max()) < len(names):
        span = f"{int(classes.min())} to {int(classes.max())}"
        raise ValueError(f"Classes run from {span} but {len(names)} names were given; name them all.")
