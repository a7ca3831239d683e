"""Pictures of sets of graphs: nodes lie as far apart as the way between them, and every graph has its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from condensery import graph_set_pictures
from condensery.data.graph_sets import digit_graphs, graph_set
from condensery.data.graph_splits import Split
from condensery.graph_set_pictures import layout, picture, shades, shown
from support import generator, rings_and_stars


def distances(places: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places[:, None] - places, axis=2)


def test_a_path_is_a_line_and_a_ring_is_round() -> None:
    path = np.eye(6, k=1) + np.eye(6, k=-1)
    np.testing.assert_allclose(
        distances(layout(path)), np.abs(np.subtract.outer(np.arange(6), np.arange(6))), atol=1e-3
    )
    ring = path.copy()
    ring[0, 5] = ring[5, 0] = 1
    places = layout(ring)
    radii = np.linalg.norm(places - places.mean(0), axis=1)
    assert radii.max() / radii.min() < 1.02
    star = np.zeros((6, 6))
    star[0, 1:] = star[1:, 0] = 1
    apart = distances(layout(star))[1:, 1:][~np.eye(5, dtype=bool)]
    assert apart.min() > 0.5  # leaves that scaling puts in one place come apart
    assert np.array_equal(layout(star), layout(star))
    assert layout(np.zeros((1, 1))).tolist() == [[0, 0]]


def test_shades_are_the_first_principal_direction() -> None:
    data = rings_and_stars()
    x = data.x.double()
    values = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    along = (x - x.mean(0)) @ values.Vh[0]
    found = torch.from_numpy(shades(data))
    assert abs(float(torch.corrcoef(torch.stack([found, along]))[0, 1])) == pytest.approx(1)
    assert (float(found.min()), float(found.max())) == (0, 1)
    one = shades(replace(data, x=data.x * torch.tensor([0.0, 2.0, 0.0])))
    assert np.corrcoef(one, data.x[:, 1])[0, 1] == pytest.approx(1)  # larger is darker
    assert set(shades(replace(data, x=torch.ones_like(data.x)))) == {0.5}


def test_every_class_has_a_row_and_every_graph_a_place() -> None:
    data = rings_and_stars()
    few = data.subset(torch.tensor([0, 2, 4, 1]))
    wide, narrow = picture(few), picture(few.subset(torch.tensor([0, 3])))
    assert wide.height == narrow.height
    assert wide.width - narrow.width == 2 * (112 + 10)
    cells = [wide.crop((wide.width - 16 - 112 - k * 122, 16, wide.width - 16 - k * 122, 128)) for k in range(3)]
    assert all(len(cell.getcolors(1 << 16) or []) > 20 for cell in cells)
    below = [wide.crop((wide.width - 128 - k * 122, 138, wide.width - 16 - k * 122, 250)) for k in range(2)]
    assert all(cell.getcolors() == [(112 * 112, (255, 255, 255))] for cell in below)
    assert shown(data.subset(data.train)) == 20
    assert shown(few) == 4
    assert picture(data.subset(data.train)).width == wide.width + 7 * 122


def test_lone_nodes_and_parts_are_drawn_too() -> None:
    owner = torch.zeros(9, dtype=torch.int64)
    edges = torch.tensor([[0, 1, 3, 4], [1, 2, 4, 5]])
    x = torch.randn(9, 2, generator=generator())
    none = torch.tensor([], dtype=torch.int64)
    data = graph_set("parts", x, edges, owner, torch.tensor([0]), split=Split(torch.tensor([0]), none, none))
    matrix = np.zeros((9, 9))
    matrix[tuple(data.edges)] = 1
    places = graph_set_pictures._placed(matrix)
    assert np.abs(places).max() <= 1
    assert distances(places)[~np.eye(9, dtype=bool)].min() > 0.1
    assert places[6:, 1].tolist() == [1, 1, 1]
    assert picture(data).mode == "RGB"


def test_digits_lie_where_their_pixels_are() -> None:
    data = digit_graphs()
    zero = data.subset(data.members(0)[:1])
    drawn = picture(zero, places=(1, 2))
    cell = drawn.crop((drawn.width - 16 - 112, 16, drawn.width - 16, 128))
    middle = cell.crop((50, 45, 62, 67)).getcolors(1 << 12) or []
    assert max(middle)[1] == (255, 255, 255)  # the hole of a zero
    large = replace(zero, x=zero.x * torch.tensor([1.0, 3.0, 3.0]))
    assert picture(large, places=(1, 2)).size == drawn.size


def test_a_graph_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_set_pictures, "_LARGEST", 3)
    with pytest.raises(ValueError, match="too many to draw; up to 3 can be shown"):
        picture(rings_and_stars().subset(torch.tensor([0])))
