"""Pictures of condensed graphs: who is joined to whom, node by node and class by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from condensery import pictures

if TYPE_CHECKING:
    from condensery.graph_artifact import GraphArtifact

__all__ = ["between_classes", "heat", "picture", "save"]

_SIDE = 480  # of a panel, screen pixels
_MOST = 5000  # nodes: their matrix must fit into memory
_MARGIN, _GAP, _SMALL = 16, 12, 13
_INK, _PAPER, _LINE = (24, 24, 27), (255, 255, 255), (161, 161, 170)
_POSITIVE, _NEGATIVE = np.array([30, 64, 175]), np.array([194, 65, 12])
_LABEL = 110  # pixels for a class name


def save(artifact: GraphArtifact, path: str | Path) -> Path:
    """Write the `picture` of a condensed graph: whole or not at all.

    Args:
        artifact: The condensed graph.
        path: Where; its ending names the format (.png). An existing file is replaced.

    Raises:
        ValueError: If the graph is too large to draw.
    """
    return pictures.save(picture(artifact), path)


def picture(artifact: GraphArtifact) -> Image.Image:
    """Two panels: the weights between the nodes, in order of their classes, and their means between the classes.

    Nodes without a label come first, as a class of their own.

    A graph without edges shows how similar the features of its nodes are: the cosine.

    Raises:
        ValueError: If the graph has more than 5,000 nodes.
    """
    data = artifact.data()
    if len(data) > _MOST:
        raise ValueError(f"The graph has {len(data):,} nodes, too many to draw; up to {_MOST:,} can be shown.")
    rows = F.normalize(data.x.double(), dim=1)
    matrix = data.adjacency.dense().double() if data.num_edges else rows @ rows.T
    what = "edge weights" if data.num_edges else "similarity of features (no edges)"
    without = len(data) - sum(artifact.per_class)
    counts, every = [without, *artifact.per_class], ["no label", *artifact.classes]
    there = [c for c, count in enumerate(counts) if count]
    names = [every[c] for c in there]
    means = between_classes(matrix, data.y + 1, len(counts))[there][:, there]
    left = _panel(matrix, [counts[c] for c in there], names, f"{what}: {len(data)} nodes")
    right = _panel(means, [1] * len(there), names, f"mean {what.split(' (')[0]} between classes")
    sheet = Image.new("RGB", (left.width + right.width, left.height), _PAPER)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width, 0))
    return sheet


def between_classes(matrix: Tensor, y: Tensor, classes: int) -> Tensor:
    """The mean entry of a matrix of nodes between each two classes, a node with itself left out.

    Args:
        matrix: ``[n, n]``.
        y: Classes, int64 ``[n]``.
        classes: How many there are.

    Returns:
        ``[classes, classes]``, 0 where there is no pair.

    Example:
        >>> weights = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
        >>> between_classes(weights, torch.tensor([0, 0, 1]), 2).tolist()
        [[1.0, 0.25], [0.25, 0.0]]
    """
    members = F.one_hot(y, classes).to(matrix.dtype)
    pairs = torch.ones_like(matrix).fill_diagonal_(0)
    total, count = (members.T @ (part * pairs) @ members for part in (matrix, torch.ones_like(matrix)))
    return total / count.clamp(min=1)


def heat(matrix: Tensor) -> Image.Image:
    """A matrix as a picture of its size: white for 0, blue above, orange below, full colour at the largest magnitude.

    Example:
        >>> heat(torch.tensor([[0.0, 1.0]])).getpixel((0, 0))
        (255, 255, 255)
    """
    values = matrix.detach().cpu().double().numpy()
    top = float(np.abs(values).max()) or 1.0
    share = np.abs(values / top)[..., None]
    colour = np.where(values[..., None] >= 0, _POSITIVE, _NEGATIVE)
    pixels = (1 - share) * 255 + share * colour
    return Image.fromarray(pixels.round().astype(np.uint8))


def _panel(matrix: Tensor, counts: Sequence[int], names: Sequence[str], title: str) -> Image.Image:
    """A matrix with lines between its classes, their names beside and below it, and its scale in the title."""
    font, side = ImageFont.load_default(_SMALL), max(_SIDE, len(matrix) if len(matrix) <= 2 * _SIDE else _SIDE)
    label = min(_LABEL, max(round(font.getlength(name)) for name in names)) + _GAP
    left, top = _MARGIN + label, 2 * _MARGIN + _SMALL
    sheet = Image.new("RGB", (left + side + _MARGIN, top + side + label + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    low, high = float(matrix.min()), float(matrix.max())
    draw.text((left, _MARGIN), f"{title}, {low:.2g} to {high:.2g}", _INK, ImageFont.load_default(_SMALL + 1))
    larger = len(matrix) > side
    way = Image.Resampling.BOX if larger else Image.Resampling.NEAREST
    sheet.paste(heat(matrix).resize((side, side), way), (left, top))
    ends = [round(side * sum(counts[: k + 1]) / len(matrix)) for k in range(len(counts))]
    starts = [0, *ends[:-1]]
    for end in starts[1:]:
        draw.line((left + end, top, left + end, top + side), _LINE)
        draw.line((left, top + end, left + side, top + end), _LINE)
    draw.rectangle((left, top, left + side, top + side), outline=_LINE)
    _name_classes(sheet, names, [(a + b) // 2 for a, b in zip(starts, ends, strict=True)], (left, top, side))
    return sheet


def _name_classes(
    sheet: Image.Image, names: Sequence[str], middles: Sequence[int], place: tuple[int, int, int]
) -> None:
    """Names at the left and below, turned where they are long; those that would lie over another are left out."""
    (left, top, side), font, draw = place, ImageFont.load_default(_SMALL), ImageDraw.Draw(sheet)
    upright = max(font.getlength(name) for name in names) < side / len(names) - _GAP
    last = -_SMALL
    for name, middle in zip(names, middles, strict=True):
        if middle - last < _SMALL:
            continue
        last, text = middle, pictures.fit_text(name, font, _LABEL)
        draw.text((left - _GAP // 2, top + middle), text, _INK, font, anchor="rm")
        below = top + side + _GAP // 2
        if upright:
            draw.text((left + middle, below), text, _INK, font, anchor="mt")
            continue
        strip = Image.new("RGB", (round(font.getlength(text)) + 2, _SMALL + 5), _PAPER)
        ImageDraw.Draw(strip).text((0, (_SMALL + 5) / 2), text, _INK, font, anchor="lm")
        turned = strip.rotate(-90, expand=True)
        sheet.paste(turned, (left + middle - turned.width // 2, below))
