"""Scatter plots: scores of the same configurations on two sets, drawn without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER, _QUIET, _FAINT = (24, 24, 27), (255, 255, 255), (113, 113, 122), (228, 228, 231)
_COLOURS = ((37, 99, 235), (234, 88, 12), (22, 163, 74), (147, 51, 234), (202, 138, 4), (219, 39, 119))
_FINE = 3  # drawn so many times larger, then reduced: smooth edges
_WIDTH, _HEIGHT = 640, 480


class Points(NamedTuple):
    """Points of one colour.

    Attributes:
        name: For the legend.
        x: Their places along, one for each.
        y: Their heights, one for each.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


def scatter(
    groups: Sequence[Points], *, x_title: str, y_title: str, title: str = "", marked: tuple[float, float] | None = None
) -> Image.Image:
    """A scatter plot, 640 x 480.

    Args:
        groups: What is shown, a colour for each; without points they are left out.
        x_title: Of the horizontal axis.
        y_title: Of the vertical axis.
        title: Above.
        marked: A point with a ring around it, such as the configuration that a search would take.

    Raises:
        ValueError: If there are no points, too many groups, or a number is not finite.

    Example:
        >>> scatter([Points("cells", [0.1, 0.4], [0.5, 0.9])], x_title="condensed", y_title="real").size
        (640, 480)
    """
    groups = [group for group in groups if len(group.x)]
    _check(groups)
    image = Image.new("RGB", (_FINE * _WIDTH, _FINE * _HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    box = _Box(80, 52 if len(groups) > 1 or title else 24, _WIDTH - 24, _HEIGHT - 64)
    across = _Axis.of([v for group in groups for v in group.x], box.left, box.right)
    up = _Axis.of([v for group in groups for v in group.y], box.bottom, box.top)
    _frame(draw, box, across, up)
    _titles(image, draw, box, (title, x_title, y_title))
    for group, colour in zip(groups, _COLOURS, strict=False):
        for x, y in zip(group.x, group.y, strict=True):
            _dot(draw, across.at(x), up.at(y), 4, fill=_mixed(colour), outline=colour)
    if marked is not None:
        _dot(draw, across.at(marked[0]), up.at(marked[1]), 8, outline=_INK)
    if len(groups) > 1:
        _legend(draw, box, [group.name for group in groups], below=bool(title))
    return image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float


class _Axis(NamedTuple):
    """Values `low` to `high` at pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        if high - low <= 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        step = _step((high - low) / 5)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = tuple(step * k for k in range(first, last + 1))
        return cls(ticks[0], ticks[-1], start, end, ticks)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def said(self, tick: float) -> str:
        """A tick as text, with as many decimals as tell it from its neighbours."""
        decimals = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return f"{tick:.{decimals}f}" if decimals < 6 else f"{tick:.3g}"


def _step(rough: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))


def _frame(draw: ImageDraw.ImageDraw, box: _Box, across: _Axis, up: _Axis) -> None:
    small = _font(12)
    for tick in across.ticks:
        x = across.at(tick)
        _line(draw, (x, box.top), (x, box.bottom), _FAINT)
        draw.text((_FINE * x, _FINE * (box.bottom + 8)), across.said(tick), _QUIET, small, anchor="mt")
    for tick in up.ticks:
        y = up.at(tick)
        _line(draw, (box.left, y), (box.right, y), _FAINT)
        draw.text((_FINE * (box.left - 8), _FINE * y), up.said(tick), _QUIET, small, anchor="rm")
    _line(draw, (box.left, box.bottom), (box.right, box.bottom), _QUIET)
    _line(draw, (box.left, box.top), (box.left, box.bottom), _QUIET)


def _titles(image: Image.Image, draw: ImageDraw.ImageDraw, box: _Box, titles: tuple[str, str, str]) -> None:
    title, x_title, y_title = titles
    middle = (box.left + box.right) / 2
    draw.text((_FINE * middle, _FINE * (_HEIGHT - 22)), x_title, _INK, _font(14), anchor="mm")
    draw.text((_FINE * box.left, _FINE * 18), title, _INK, _font(15), anchor="lm")
    sideways = Image.new("RGB", (_FINE * (_HEIGHT - 20), _FINE * 20), _PAPER)
    at = (sideways.width / 2, sideways.height / 2)
    ImageDraw.Draw(sideways).text(at, y_title, _INK, _font(14), anchor="mm")
    turned = sideways.rotate(90, expand=True)
    image.paste(turned, (_FINE * 10, round(_FINE * (box.top + box.bottom) / 2 - turned.height / 2)))


def _legend(draw: ImageDraw.ImageDraw, box: _Box, names: Sequence[str], *, below: bool) -> None:
    font, y, x = _font(12), 38.0 if below else 26.0, box.left
    for name, colour in zip(names, _COLOURS, strict=False):
        _dot(draw, x + 4, y, 4, fill=_mixed(colour), outline=colour)
        draw.text((_FINE * (x + 14), _FINE * y), name, _INK, font, anchor="lm")
        x += 30 + font.getlength(name) / _FINE


def _dot(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius: float,
    *,
    outline: tuple[int, int, int],
    fill: tuple[int, int, int] | None = None,
) -> None:
    corners = (_FINE * (x - radius), _FINE * (y - radius), _FINE * (x + radius), _FINE * (y + radius))
    draw.ellipse(corners, fill=fill, outline=outline, width=_FINE)


def _line(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: tuple[int, int, int]
) -> None:
    draw.line([tuple(_FINE * v for v in start), tuple(_FINE * v for v in end)], fill=colour, width=_FINE)


def _mixed(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour, lighter."""
    red, green, blue = ((2 * part + 3 * 255) // 5 for part in colour)
    return red, green, blue


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FINE * size)


def _check(groups: Sequence[Points]) -> None:
    if not groups:
        raise ValueError("There is no point to show; give at least one.")
    if len(groups) > len(_COLOURS):
        raise ValueError(f"{len(groups)} groups have no colours; show {len(_COLOURS)} at most.")
    for group in groups:
        if len(group.x) != len(group.y):
            raise ValueError(f"{group.name} has {len(group.x)} places and {len(group.y)} heights; give as many.")
        if not all(math.isfinite(v) for v in (*group.x, *group.y)):
            raise ValueError(f"{group.name} has numbers that are not finite; leave those points out.")
