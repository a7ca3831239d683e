"""Pictures of condensed sets of graphs: some graphs of each class, their nodes and who is joined to whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from condensery import pictures

if TYPE_CHECKING:
    from condensery.data.graph_sets import GraphSet
    from condensery.graph_set_artifact import GraphSetArtifact

__all__ = ["layout", "picture", "save", "shades", "shown"]

_Array = npt.NDArray[np.float64]
_SIDE, _GAP, _MARGIN, _TEXT = 112, 10, 16, 14  # of a graph, between graphs, around all, of letters: screen pixels
_FINER = 3  # drawn so many times larger, then reduced: smooth lines
_COLUMNS, _ROWS = 10, 40  # graphs of a class, and classes, that are shown
_LARGEST = 600  # nodes of a graph that can be laid out
_INK, _PAPER, _LINE = (24, 24, 27), (255, 255, 255), (161, 161, 170)
_LOW, _HIGH = np.array([219, 234, 254]), np.array([30, 58, 138])
_ROUNDS = 60


def save(artifact: GraphSetArtifact, path: str | Path, *, places: tuple[int, int] | None = None) -> Path:
    """Write the `picture` of a condensed set of graphs: whole or not at all.

    Args:
        artifact: The condensed set.
        path: Where; its ending names the format (.png). An existing file is replaced.
        places: See `picture`.
    """
    return pictures.save(picture(artifact.graphs, places=places), path)


def shown(graphs: GraphSet) -> int:
    """How many graphs the picture shows: the first ten of each class, of the first forty classes that there are."""
    counts = [count for count in np.bincount(graphs.y.numpy()).tolist() if count]
    return sum(min(count, _COLUMNS) for count in counts[:_ROWS])


def picture(graphs: GraphSet, *, places: tuple[int, int] | None = None) -> Image.Image:
    """A row for each class: its first ten graphs, the class's name at the left.

    Nodes are laid out by `layout`, so that the way along the edges shows as distance, or by two of their features.
    Their colours say how large their features are along the direction in which these differ most (`shades`). Nodes
    that nobody is joined to stand in a line below the others, unless features say where they are.

    Args:
        graphs: A set, on the CPU.
        places: Two features that say where a node is: down and to the right, each from -1 to 1. A graph that is
            larger is made smaller.

    Raises:
        ValueError: If a graph has more than 600 nodes.
    """
    members = [(name, (graphs.y == c).nonzero().flatten().tolist()) for c, name in enumerate(graphs.classes)]
    rows = [(name, index) for name, index in members if index][:_ROWS]
    font = ImageFont.load_default(_TEXT)
    label = max(round(font.getlength(pictures.fit_text(name, font))) for name, _ in rows) + _GAP
    across = max(min(len(index), _COLUMNS) for _, index in rows)
    step, left = _SIDE + _GAP, _MARGIN + label
    size = (left + across * step - _GAP + _MARGIN, 2 * _MARGIN + len(rows) * step - _GAP)
    sheet, colours = Image.new("RGB", size, _PAPER), _coloured(shades(graphs, without=places or ()))
    draw = ImageDraw.Draw(sheet)
    for row, (name, index) in enumerate(rows):
        top = _MARGIN + row * step
        middle = (left - _GAP, top + _SIDE // 2)
        draw.text(middle, pictures.fit_text(name, font), _INK, font, anchor="rm")
        for column, which in enumerate(index[:_COLUMNS]):
            sheet.paste(_drawn(graphs, which, colours, places), (left + column * step, top))
    return sheet


def shades(graphs: GraphSet, *, without: tuple[int, ...] = ()) -> _Array:
    """A number from 0 to 1 for each node: its features along the direction in which they differ most.

    Args:
        graphs: A set, on the CPU.
        without: Features that are not looked at.

    Returns:
        ``[n]``; one half for all nodes if they do not differ.
    """
    x = graphs.x.double().numpy()[:, [k for k in range(graphs.num_features) if k not in without]]
    x = x - x.mean(0)
    if x.shape[1] == 0 or not x.any():
        return np.full(len(x), 0.5)
    direction = np.linalg.eigh(x.T @ x)[1][:, -1]
    along: _Array = x @ (direction * np.sign(direction[np.abs(direction).argmax()]))
    low, high = along.min(), along.max()
    scaled: _Array = (along - low) / (high - low)
    return scaled


def layout(matrix: npt.NDArray[Any]) -> _Array:
    """Places for the nodes of a connected graph, so that distances are those along the edges as far as they can be.

    Classical scaling of the ways' lengths, then majorisation of the stress with weights ``1 / d^2`` (Gansner, Koren &
    North, 2004). No random numbers.

    Args:
        matrix: Adjacency ``[k, k]``, symmetric, not 0 where there is an edge, of one component.

    Returns:
        ``[k, 2]``.

    Example:
        >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
        >>> ends = layout(path)[[0, 2]]
        >>> round(float(np.linalg.norm(ends[0] - ends[1])), 3)
        2.0
    """
    from scipy.sparse.csgraph import shortest_path

    k = len(matrix)
    if k == 1:
        return np.zeros((1, 2))
    ways: _Array = shortest_path(matrix != 0, unweighted=True, directed=False)
    centre = np.eye(k) - 1 / k
    values, vectors = np.linalg.eigh(-centre @ ways**2 @ centre / 2)
    axes = [vectors[:, i] * np.sign(vectors[np.abs(vectors[:, i]).argmax(), i]) for i in (-1, -2)]
    places = np.stack([axis * max(values[i], 0) ** 0.5 for i, axis in zip((-1, -2), axes, strict=True)], 1)
    turn = 2.4 * np.arange(k)  # the golden angle: nodes that scaling puts in one place come apart
    places = places + 1e-2 * np.stack([np.cos(turn), np.sin(turn)], 1)
    weights = 1 / np.where(ways > 0, ways, 1) ** 2 * (1 - np.eye(k))
    inverse = np.linalg.pinv(np.diag(weights.sum(1)) - weights)
    for _ in range(_ROUNDS):
        apart = np.linalg.norm(places[:, None] - places, axis=2)
        pull = weights * ways / np.where(apart > 0, apart, 1)
        places = inverse @ ((np.diag(pull.sum(1)) - pull) @ places)
    return places


def _placed(matrix: npt.NDArray[Any]) -> _Array:
    """Places ``[k, 2]`` in a square from -1 to 1: components side by side, lone nodes in a line below."""
    from scipy.sparse.csgraph import connected_components

    owner = connected_components(matrix != 0, directed=False)[1]
    sizes = np.bincount(owner)
    parts = [np.flatnonzero(owner == c) for c in np.argsort(-sizes, kind="stable") if sizes[c] > 1]
    alone = np.flatnonzero(sizes[owner] == 1)
    places, right = np.zeros((len(matrix), 2)), 0.0
    for part in parts:
        inside = layout(matrix[np.ix_(part, part)])
        inside = inside - inside.min(0)
        inside[:, 1] -= inside[:, 1].max() / 2
        places[part] = inside + np.array([right, 0])
        right += inside[:, 0].max() + 1
    if parts:
        joined = np.concatenate(parts)
        centre = (places[joined].max(0) + places[joined].min(0)) / 2
        places[joined] = (places[joined] - centre) / max(float(np.abs(places[joined] - centre).max()), 1e-9)
    if len(alone):
        if parts:
            places[joined] = places[joined] * 0.88 - np.array([0, 0.12])
        across = np.linspace(-1, 1, len(alone)) if len(alone) > 1 else np.zeros(1)
        places[alone] = np.stack([across, np.full(len(alone), 1.0 if parts else 0.0)], 1)
    return places


def _drawn(graphs: GraphSet, which: int, colours: npt.NDArray[np.uint8], places: tuple[int, int] | None) -> Image.Image:
    """One graph."""
    first, k = int(graphs.sizes[:which].sum()), int(graphs.sizes[which])
    if k > _LARGEST and places is None:
        raise ValueError(f"Graph {which} has {k:,} nodes, too many to draw; up to {_LARGEST} can be shown.")
    inside = (graphs.owner[graphs.edges[0]] == which).nonzero().flatten()
    edges = (graphs.edges[:, inside] - first).numpy()
    matrix = np.zeros((k, k))
    matrix[edges[0], edges[1]] = 1
    rows = graphs.x[first : first + k].double().numpy()
    at = _placed(matrix) if places is None else rows[:, [places[1], places[0]]]
    at = at / max(1.0, float(np.abs(at).max()))  # learned places may lie further out
    side, radius = _FINER * _SIDE, _FINER * _SIDE * (0.042 if k <= 40 else 0.022)
    border = radius + 2 * _FINER
    at = border + (at + 1) / 2 * (side - 2 * border)
    tile = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(tile)
    for a, b in edges.T[edges[0] < edges[1]]:
        draw.line((*at[a], *at[b]), _LINE, _FINER)
    for node in range(k):
        x, y = at[node]
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, tuple(colours[first + node].tolist()), _INK, _FINER)
    return tile.resize((_SIDE, _SIDE), Image.Resampling.BOX)


def _coloured(shades: _Array) -> npt.NDArray[np.uint8]:
    """Colours ``[n, 3]`` from light to dark."""
    mixed = (1 - shades[:, None]) * _LOW + shades[:, None] * _HIGH
    return mixed.round().astype(np.uint8)
