"""Pictures of condensed graphs: every weight is where it belongs, and large graphs are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from condensery import graph_pictures
from condensery.adjacency import Adjacency
from condensery.data.graph_features import AsGiven
from condensery.graph import FixedAdjacency, Graph
from condensery.graph_artifact import GraphArtifact
from condensery.node_fitting import NodeRecipe
from support import generator


def artifact(matrix: torch.Tensor | None, n: int = 6, names: tuple[str, ...] = ("a", "b", "none")) -> GraphArtifact:
    y = torch.arange(n).sort().values * 2 // n
    adjacency = None if matrix is None else FixedAdjacency(Adjacency.dense_matrix(matrix))
    graph = Graph(torch.randn(n, 3, generator=generator()), y, adjacency=adjacency)
    network = {"net": "GCN", "features": 3, "classes": 3}
    real = {"nodes": 9, "edges": 9, "train": 9}
    return GraphArtifact(graph, 0.1, names, AsGiven(), NodeRecipe(), network, "toy", "GCond", real)


def test_the_largest_weight_is_the_darkest_and_what_is_below_the_threshold_is_white(tmp_path: Path) -> None:
    matrix = torch.zeros(6, 6)
    matrix[0, 5] = matrix[5, 0] = 0.8
    matrix[1, 2] = matrix[2, 1] = 0.05
    picture = graph_pictures.picture(artifact(matrix))
    with Image.open(graph_pictures.save(artifact(matrix), tmp_path / "a.png")) as written:
        assert written.size == picture.size
    left = picture.crop((0, 0, picture.width // 2, picture.height))
    dark = [(x, y) for x in range(left.width) for y in range(left.height) if left.getpixel((x, y)) == (30, 64, 175)]
    (near, far), (top, bottom) = ((min(p), max(p)) for p in zip(*dark, strict=True))
    assert 470 <= far - near <= 480
    assert 470 <= bottom - top <= 480
    corners = [left.getpixel((x, y)) for x in (near + 40, far - 40) for y in (top + 40, bottom - 40)]
    assert corners == [(255, 255, 255), (30, 64, 175), (30, 64, 175), (255, 255, 255)]
    assert len(dark) <= 2 * 80 * 80


def test_means_between_classes_leave_a_node_with_itself_out() -> None:
    matrix, y = torch.rand(7, 7, generator=generator()), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    means = graph_pictures.between_classes(matrix, y, 4)
    for a in range(4):
        for b in range(4):
            pairs = [float(matrix[i, j]) for i in range(7) for j in range(7) if y[i] == a and y[j] == b and i != j]
            assert float(means[a, b]) == pytest.approx(sum(pairs) / len(pairs) if pairs else 0.0)


def test_without_edges_the_features_are_compared() -> None:
    picture = graph_pictures.picture(artifact(None))
    colours = {c for _, c in picture.getcolors(1 << 20) or []}
    assert (30, 64, 175) in colours  # a node with itself
    assert any(c[0] > c[2] + 20 for c in colours)  # type: ignore[index, operator]  # opposite features


def test_zeros_and_negative_numbers_have_their_colours() -> None:
    assert graph_pictures.heat(torch.tensor([[0.0, 2.0, -2.0]])).tobytes() == bytes(
        (255, 255, 255, 30, 64, 175, 194, 65, 12)
    )
    assert graph_pictures.heat(torch.zeros(2, 2)).getpixel((1, 1)) == (255, 255, 255)


def test_long_names_are_turned_and_large_graphs_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    short = graph_pictures.picture(artifact(None))
    long = graph_pictures.picture(artifact(None, names=("a very long name of a class indeed", "b", "c")))
    assert long.height > short.height
    monkeypatch.setattr(graph_pictures, "_MOST", 5)
    with pytest.raises(ValueError, match="has 6 nodes, too many to draw; up to 5"):
        graph_pictures.picture(artifact(None))
    many = replace(artifact(None), classes=tuple("abc"))
    monkeypatch.setattr(graph_pictures, "_MOST", 5000)
    assert graph_pictures.picture(many).mode == "RGB"
