"""Scatter plots: points are where they belong, and what cannot be drawn is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from condensery.charts import _COLOURS, Points, _Axis, scatter


def places(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Pixels ``[k, 2]`` (x, y) near a colour."""
    pixels = np.asarray(picture).astype(int)
    return np.argwhere(np.abs(pixels - np.array(colour)).sum(2) < 40)[:, ::-1]


def test_points_lie_where_the_axes_say() -> None:
    x, y = [0.0, 1.0], [10.0, 20.0]
    picture = scatter([Points("a", x, y)], x_title="x", y_title="y")
    found = places(picture, _COLOURS[0])
    across, up = _Axis.of(x, 80, 616), _Axis.of(y, 416, 24)
    for px, py in ((0.0, 10.0), (1.0, 20.0)):
        distance = np.hypot(found[:, 0] - across.at(px), found[:, 1] - up.at(py))
        assert (distance < 6).sum() > 8  # the rim of the point
    assert all(
        min(math.hypot(p[0] - across.at(a), p[1] - up.at(b)) for a, b in zip(x, y, strict=True)) < 7 for p in found
    )


def test_groups_have_colours_and_a_legend() -> None:
    one = scatter([Points("a", [0], [0])], x_title="x", y_title="y")
    two = scatter(
        [Points("a", [0], [0]), Points("b", [1], [1]), Points("none", [], [])],
        x_title="x",
        y_title="y",
        title="t",
        marked=(1, 1),
    )
    assert len(places(one, _COLOURS[1])) == 0
    legend = places(two, _COLOURS[1])
    assert (legend[:, 1] < 52).any()  # in the legend
    assert (legend[:, 1] > 52).any()  # and in the plot


@pytest.mark.parametrize("values", [[0.5, 0.51], [3.0], [0, 0, 0], [-1e6, 1e6], [1e-7, 3e-7], [99.99, 100.0]])
def test_ticks_are_round_and_around_the_values(values: list[float]) -> None:
    axis = _Axis.of(values, 0, 100)
    rounding = 1e-12 * abs(axis.high)
    assert axis.low <= min(values) + rounding
    assert axis.high >= max(values) - rounding
    assert 3 <= len(axis.ticks) <= 9
    step = axis.ticks[1] - axis.ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    assert len({axis.said(tick) for tick in axis.ticks}) == len(axis.ticks)
    scatter([Points("a", values, values)], x_title="x", y_title="y")


def test_what_cannot_be_drawn_is_refused() -> None:
    for groups, sentence in (
        ([], "no point to show"),
        ([Points("a", [], [])], "no point to show"),
        ([Points("a", [1], [1, 2])], "a has 1 places and 2 heights"),
        ([Points("a", [math.nan], [1])], "not finite"),
        ([Points(str(k), [1], [1]) for k in range(7)], "7 groups have no colours"),
    ):
        with pytest.raises(ValueError, match=sentence):
            scatter(groups, x_title="x", y_title="y")
