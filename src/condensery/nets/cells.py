"""A search space of small convolutional cells, after NAS-Bench-201, at a size that trains on a CPU.

A cell is a graph of four nodes, each the sum of one operation of every earlier node: six edges with one of five
operations, 15,625 cells. A network stacks the same cell in a fixed skeleton (Dong & Yang, NAS-Bench-201, ICLR 2020,
https://arxiv.org/abs/2001.00326, section 2.1): a stem, stages of cells that are twice as wide as the one before and
begin with a residual block of stride 2, a mean over the map, a linear layer. There the stages have five cells and
batch normalisation; here one cell and `Norm.GROUP` are the default, so that examples do not influence each other and
derivatives of any order are right.

`Supernet` has all operations on all edges and is a function of their weights too. `spaces.Cells` draws the weights and
makes hypergradients in the architecture of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.nets.layers import Activation, Norm, Parametrisation, Style
from condensery.nets.vision import VisionNet

NODES = 4
EDGES: tuple[tuple[int, int], ...] = tuple((i, j) for j in range(1, NODES) for i in range(j))
"""(from, to) of each edge, in the order of a cell's letters: 01, 02, 12, 03, 13, 23."""


class Op(StrEnum):
    """What an edge does; the value is its letter in a cell's code.

    Attributes:
        NONE: Nothing: zero.
        SKIP: The node as it is.
        CONV1: Activation, 1x1 convolution, normalisation.
        CONV3: Activation, 3x3 convolution, normalisation.
        POOL: The mean of 3x3 pixels, at the border of those that are there.
    """

    NONE = "n"
    SKIP = "s"
    CONV1 = "1"
    CONV3 = "3"
    POOL = "p"


OPS: tuple[Op, ...] = tuple(Op)
"""The operations, in the order of the columns of an architecture's weights."""


@dataclass(frozen=True)
class Cell:
    """One cell of the space, by its code: a letter of `Op` for each of `EDGES`.

    Args:
        code: Six letters.

    Raises:
        ValueError: If it is not a cell's code.

    Example:
        >>> cell = Cell("3ns31p")
        >>> cell.ops[0], cell.connected, str(cell)
        (<Op.CONV3: '3'>, True, '3ns31p')
        >>> Cell("nnnnns").connected
        False
    """

    code: str

    def __post_init__(self) -> None:
        if not isinstance(self.code, str) or len(self.code) != len(EDGES) or set(self.code) - {op.value for op in OPS}:
            raise ValueError(
                f"{self.code!r} is no cell; give {len(EDGES)} letters of {''.join(OPS)} "
                f"({', '.join(f'{op.value} {op.name.lower()}' for op in OPS)}), one for each edge 01 02 12 03 13 23."
            )

    def __str__(self) -> str:
        return self.code

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operation of each edge."""
        return tuple(Op(letter) for letter in self.code)

    @property
    def weights(self) -> Tensor:
        """One-hot rows ``[edges, operations]``: the cell as a corner of the supernet's space."""
        return F.one_hot(torch.tensor([OPS.index(op) for op in self.ops]), len(OPS)).float()

    @cached_property
    def structure(self) -> str:
        """What the cell computes as a formula of its input ``x``; cells with the same one are the same function.

        Zero edges vanish, skips are the node itself, and sums are sorted. A convolution that counts more than once,
        because skips carry its node to several places, has a name there: twice one convolution is not the sum of two.
        A cell whose output does not depend on the input has the empty formula.
        """
        marked = _formula(self.ops, {edge: f"[{edge}]" for edge in range(len(EDGES))})
        shared = [edge for edge in range(len(EDGES)) if marked.count(f"[{edge}]") > 1]
        names = itertools.permutations("abcdef"[: len(shared)])
        return min(_formula(self.ops, dict(zip(shared, order, strict=True))) for order in names)

    @property
    def connected(self) -> bool:
        """Whether the output depends on the input."""
        return bool(self.structure)

    @classmethod
    def from_weights(cls, weights: Tensor) -> Cell:
        """The cell of the largest weights ``[edges, operations]``, such as those that a search has learned.

        Example:
            >>> Cell.from_weights(Cell("3ns31p").weights).code
            '3ns31p'
        """
        if weights.shape != (len(EDGES), len(OPS)):
            raise ValueError(f"A cell has weights [{len(EDGES)}, {len(OPS)}], not {list(weights.shape)}; give such.")
        return cls("".join(OPS[int(k)] for k in weights.argmax(1)))

    @classmethod
    def all(cls) -> Iterator[Cell]:
        """All 15,625 codes, in the order of `OPS`."""
        return (cls("".join(letters)) for letters in itertools.product(OPS, repeat=len(EDGES)))

    @classmethod
    def draw(cls, generator: torch.Generator) -> Cell:
        """A code at random, all alike probable."""
        return cls("".join(OPS[k] for k in torch.randint(len(OPS), (len(EDGES),), generator=generator).tolist()))


def _formula(ops: tuple[Op, ...], names: Mapping[int, str]) -> str:
    """What the last node is, with a name before the convolutions of some edges."""
    terms: list[list[str]] = [["x"]]
    for node in range(1, NODES):
        found: list[str] = []
        for edge, ((i, j), op) in enumerate(zip(EDGES, ops, strict=True)):
            if j == node and op is not Op.NONE and terms[i]:
                name = names.get(edge, "") if op in (Op.CONV1, Op.CONV3) else ""
                found += terms[i] if op is Op.SKIP else [f"{name}{op.value}({'+'.join(terms[i])})"]
        terms.append(sorted(found))
    return "+".join(terms[-1])


def draw_cells(count: int, generator: torch.Generator) -> list[Cell]:
    """Cells at random that compute different functions, each connected.

    Args:
        count: How many.
        generator: A CPU generator.

    Raises:
        ValueError: If there are not so many.

    Example:
        >>> [cell.code for cell in draw_cells(3, torch.Generator().manual_seed(0))]
        ['pp3n3p', '1313ss', 'sp3ss3']
    """
    if not 1 <= count <= 5000:  # of some 6,000; near the end drawing would take for ever
        raise ValueError(f"{count} different cells were asked for; ask for 1 to 5,000.")
    found: dict[str, Cell] = {}
    while len(found) < count:
        cell = Cell.draw(generator)
        if cell.connected:
            found.setdefault(cell.structure, cell)
    return list(found.values())


# --- operations
# ------------------------------------------------------------------------------------------------------------------


class _Mean3(nn.Module):
    """The mean of 3x3 pixels, at the border of those that are there, ``[n, c, h, w]`` at the same size.

    Sums of shifted maps: PyTorch's pooling is not vectorised on a CPU, and takes three times as long there.
    """

    def forward(self, x: Tensor) -> Tensor:
        for dim in (2, 3):
            side = x.shape[dim]
            padded = F.pad(x, (0, 0, 1, 1) if dim == 2 else (1, 1))
            x = padded.narrow(dim, 0, side) + x + padded.narrow(dim, 2, side)
        return x / (_neighbours(x.shape[2], x)[:, None] * _neighbours(x.shape[3], x))


def _neighbours(side: int, like: Tensor) -> Tensor:
    """How many of three pixels in a row are there, ``[side]``."""
    counts = torch.arange(side, device=like.device)
    return (3 - (counts == 0).to(like.dtype)) - (counts == side - 1).to(like.dtype)


class _Conv(nn.Sequential):
    """Activation, convolution, normalisation."""

    def __init__(self, style: Style, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        conv = style.conv(inputs, outputs, kernel, stride=stride, bias=style.norm is Norm.NONE)
        super().__init__(style.activate(), conv, style.normalise(outputs))


class _Reduction(nn.Module):
    """A residual block that halves the map and widens it: NAS-Bench-201's between two stages."""

    def __init__(self, style: Style, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _Conv(style, inputs, outputs, 3, stride=2)
        self.second = _Conv(style, outputs, outputs, 3)
        self.shortcut = style.conv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 2, ceil_mode=True)  # a stride-2 convolution rounds up as well
        return self.second(self.first(x)) + self.shortcut(small)


def _operation(op: Op, style: Style, width: int) -> nn.Module:
    match op:
        case Op.CONV1:
            return _Conv(style, width, width, 1)
        case Op.CONV3:
            return _Conv(style, width, width, 3)
        case Op.POOL:
            return _Mean3()
        case _:
            return nn.Identity()


# --- one architecture
# ------------------------------------------------------------------------------------------------------------------


class _Graph(nn.Module):
    """A cell with the operations that it has."""

    def __init__(self, cell: Cell, style: Style, width: int) -> None:
        super().__init__()
        self.cell = cell
        self.edges = nn.ModuleList(_operation(op, style, width) for op in cell.ops)

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for node in range(1, NODES):
            found = [
                edge(nodes[i])
                for (i, j), op, edge in zip(EDGES, self.cell.ops, self.edges, strict=True)
                if j == node and op is not Op.NONE
            ]
            nodes.append(sum(found[1:], found[0]) if found else torch.zeros_like(x))
        return nodes[-1]


class CellNet(VisionNet):
    """A network of one cell of the space, repeated in NAS-Bench-201's skeleton.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images.
        code: The cell, see `Cell`.
        width: Channels of the first stage; each later one has twice as many.
        cells: Cells in a stage; NAS-Bench-201 has 5.
        stages: Stages.
        norm: Normalisation; NAS-Bench-201's is batch.
        activation: Nonlinearity before convolutions.
        beta: Sharpness of `Activation.SOFTPLUS`.
        parametrisation: Of convolutions and the linear layer.

    Raises:
        ValueError: If the cell's output does not depend on its input, the stages halve the images away, or an option
            does not exist.

    Example:
        >>> net = CellNet(channels=1, classes=10, size=8, code="3ns31p", width=8, stages=2)
        >>> sum(p.numel() for p in net.parameters())
        10162
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        code: str = "333s33",
        width: int = 16,
        cells: int = 1,
        stages: int = 3,
        norm: Norm = Norm.GROUP,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
    ) -> None:
        cell, style = Cell(code), Style(norm=norm, activation=activation, beta=beta, parametrisation=parametrisation)
        _check_skeleton(size, cells, stages)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            code=code,
            cells=cells,
            stages=stages,
            **style.config("norm", "activation", "beta", "parametrisation"),
        )
        if not cell.connected:
            raise ValueError(f"The output of cell {code} does not depend on its input; choose a connected one.")
        layers: list[nn.Module] = [style.conv(channels, width, 3, bias=False), style.normalise(width)]
        for stage in range(stages):
            wide = width << stage
            layers += [_Reduction(style, wide // 2, wide)] if stage else []
            layers += [_Graph(cell, style, wide) for _ in range(cells)]
        last = width << (stages - 1)
        layers += [style.normalise(last), style.activate(), nn.AdaptiveAvgPool2d(1)]
        self.body = nn.Sequential(*layers)
        self.head = style.linear(last, classes)


# --- all of them at once
# ------------------------------------------------------------------------------------------------------------------


class Mixture(NamedTuple):
    """Images and the architecture that sees them: the input of a `Supernet`.

    Attributes:
        images: ``[n, channels, size, size]``.
        weights: ``[edges, operations]``, of each operation in the sum of its edge; one-hot rows are a `Cell`.
    """

    images: Tensor
    weights: Tensor


class _Mixed(nn.Module):
    """A cell with all operations on every edge."""

    def __init__(self, style: Style, width: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(nn.ModuleList(_operation(op, style, width) for op in OPS) for _ in EDGES)

    def forward(self, x: Tensor, weights: Tensor, used: list[list[bool]]) -> Tensor:
        nodes = [x]
        for node in range(1, NODES):
            total = torch.zeros_like(x)
            for edge, (i, j) in enumerate(EDGES):
                for k, op in enumerate(OPS):
                    if j == node and op is not Op.NONE and used[edge][k]:
                        total = total + weights[edge, k] * self.edges[edge][k](nodes[i])  # type: ignore[index]
            nodes.append(total)
        return nodes[-1]


class Supernet(nn.Module):
    """All cells in one network: each edge is the weighted sum of all operations, in every cell with the same weights.

    With one-hot weights it computes what `CellNet` does with the same parameters. It is differentiable in the weights,
    so `Net(Supernet(...))` is a function of theta and, through its input, of the architecture.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images.
        width: Channels of the first stage.
        cells: Cells in a stage.
        stages: Stages.
        norm: Normalisation.
        activation: Nonlinearity before convolutions.
        beta: Sharpness of `Activation.SOFTPLUS`.
        parametrisation: Of convolutions and the linear layer.
        sampled: Whether operations of weight zero are left out. That is what GDAS does: a step costs what one
            architecture costs, and the weights of the others have no gradient. Without it the gradient in the weights
            is whole, and a step costs as much as all operations, but where no gradient in the weights is asked for.

    Raises:
        ValueError: If the stages halve the images away, or an option does not exist.

    Example:
        >>> net = Supernet(channels=1, classes=10, size=8, width=4, stages=2)
        >>> net(Mixture(torch.zeros(2, 1, 8, 8), Cell("3ns31p").weights)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 16,
        cells: int = 1,
        stages: int = 3,
        norm: Norm = Norm.GROUP,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
        sampled: bool = False,
    ) -> None:
        super().__init__()
        _check_skeleton(size, cells, stages)
        style = Style(norm=norm, activation=activation, beta=beta, parametrisation=parametrisation)
        shape = {"channels": channels, "classes": classes, "size": size}
        self.config: dict[str, Any] = {
            **shape,
            "width": width,
            "cells": cells,
            "stages": stages,
            **style.config("norm", "activation", "beta", "parametrisation"),
            "sampled": sampled,
        }
        self.sampled = sampled
        self.stem = nn.Sequential(style.conv(channels, width, 3, bias=False), style.normalise(width))
        body: list[nn.Module] = []
        for stage in range(stages):
            wide = width << stage
            body += [_Reduction(style, wide // 2, wide)] if stage else []
            body += [_Mixed(style, wide) for _ in range(cells)]
        self.body = nn.ModuleList(body)
        last = width << (stages - 1)
        self.tail = nn.Sequential(style.normalise(last), style.activate(), nn.AdaptiveAvgPool2d(1))
        self.head = style.linear(last, classes)

    def embed(self, x: Mixture) -> Tensor:
        """Features ``[n, d]``, the head's input.

        Raises:
            ValueError: If the input is not of the shape that the network was built for.
        """
        images, weights = self._checked(x)
        # Read once a call, and only where it saves work: it waits for the device.
        few = self.sampled or not weights.requires_grad
        used = (weights.detach() != 0).tolist() if few else [[True] * len(OPS)] * len(EDGES)
        h = self.stem(images)
        for layer in self.body:
            h = layer(h, weights, used) if isinstance(layer, _Mixed) else layer(h)
        return self.tail(h).flatten(1)

    def forward(self, x: Mixture) -> Tensor:
        """Logits ``[n, classes]``."""
        return self.head(self.embed(x))

    def _checked(self, x: Mixture) -> Mixture:
        if not isinstance(x, Mixture):
            raise ValueError(f"A supernet was given a {type(x).__name__}; give Mixture(images, weights).")
        c, s = self.config["channels"], self.config["size"]
        if x.images.ndim != 4 or x.images.shape[1:] != (c, s, s) or x.weights.shape != (len(EDGES), len(OPS)):
            raise ValueError(
                f"The supernet was built for images [n, {c}, {s}, {s}] and weights [{len(EDGES)}, {len(OPS)}] but got "
                f"{list(x.images.shape)} and {list(x.weights.shape)}; build it for your images."
            )
        return x


def inherited(supernet: Supernet, cell: Cell, state: Mapping[str, Tensor]) -> tuple[CellNet, dict[str, Tensor]]:
    """The network of one cell and the parameters that it has in the supernet.

    Args:
        supernet: The network.
        cell: Which cell; it must be connected.
        state: The supernet's parameters by name, such as ``Net.layers(theta)``.

    Returns:
        The network, and its parameters by name.
    """
    config = {key: value for key, value in supernet.config.items() if key != "sampled"}
    net = CellNet(code=cell.code, **config)
    moved = {"stem.0": "body.0", "stem.1": "body.1", "head": "head"}
    moved |= {f"tail.{k}": f"body.{2 + len(supernet.body) + k}" for k in range(2)}
    for place, layer in enumerate(supernet.body):
        if isinstance(layer, _Mixed):
            for edge, op in enumerate(cell.ops):
                moved[f"body.{place}.edges.{edge}.{OPS.index(op)}"] = f"body.{2 + place}.edges.{edge}"
        else:
            moved[f"body.{place}"] = f"body.{2 + place}"
    own = set(dict(net.named_parameters()))
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        for old, new in moved.items():
            if name.startswith(f"{old}.") and (target := new + name.removeprefix(old)) in own:
                found[target] = value
    return net, found


def _check_skeleton(size: int, cells: int, stages: int) -> None:
    for name, value in (("cells", cells), ("stages", stages)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
    if size >> (stages - 1) < 1:
        raise ValueError(f"{stages} stages halve images of {size} pixels away: use fewer.")
