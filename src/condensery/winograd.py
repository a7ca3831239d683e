"""Wide 3x3 convolutions with a quarter of the multiplications, for CPUs.

Winograd's minimal filtering in its form for neural networks (Lavin & Gray, CVPR 2016, https://arxiv.org/abs/1509.09308),
F(4x4, 3x3): of a tile of 6x6 pixels it makes 4x4 of the output with 36 multiplications for each pair of channels, where
the sum written out has 144,

    Y = A^T [(G w G^T) * (B^T d B)] A,      * elementwise, summed over the input's channels.

The sum over channels is a matrix product for each of the 36 places. What is saved is paid for by the transforms of
input and output, whose work is in proportion to the channels and not to their product, so that it pays from about 128
channels on. A value is wrong by a hundred thousandth of the largest, five times as much as in the sum written out.

Tensors are in the memory format channels last.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise, starmap

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE, _STEP = 6, 4  # pixels of a tile's side, and of the output that it makes
_CHANNELS = 128  # of input and output, from which on it pays
_TILES = 128  # at once: the product of a place is large enough, and the intermediate values stay in the cache

# B^T, 24 G and A^T.
_B = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
_B += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
_G = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of stride 1 with a padding of 1 is quicker, and as good, in this form.

    Args:
        x: Images ``[n, inputs, h, w]``.
        weight: ``[outputs, inputs, 3, 3]``.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= _CHANNELS
        and x.shape[1] == weight.shape[1]
        and x.shape[2] % _STEP == 0
        and x.shape[3] % _STEP == 0
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``conv2d(x, weight, bias, padding=1)`` ``[n, outputs, h, w]``, in channels last.

    Args:
        x: Images ``[n, inputs, h, w]``; h and w are multiples of 4.
        weight: ``[outputs, inputs, 3, 3]``.
        bias: ``[outputs]``.
    """
    _, _, a = (t.to(x) for t in _transforms())
    filters, outputs = _filters(weight).mT, len(weight)
    n, _, h, w = x.shape
    made = x.new_empty(n, h // _STEP, _STEP, w // _STEP, _STEP, outputs)
    for part, tiles in _tiles(x):
        y = a @ torch.bmm(tiles, filters).view(36, -1)
        y = y.view(_STEP, _STEP, -1, *made.shape[1::2]).permute(2, 3, 0, 4, 1, 5)
        made[part] = y if bias is None else y + bias
    return made.view(n, h, w, outputs).permute(0, 3, 1, 2)


def input_gradient(g: Tensor, weight: Tensor) -> Tensor:
    """The gradient ``[n, inputs, h, w]`` in the images, from that in the output ``[n, outputs, h, w]``.

    Like `weight_gradient` it is the adjoint of `convolve`, its transforms taken backwards: no derivative of them is
    needed.
    """
    _, b, _ = (t.to(g) for t in _transforms())
    filters, inputs = _filters(weight), weight.shape[1]
    n, _, h, w = g.shape
    made = g.new_empty(n, h, w, inputs)
    for part, backwards in _backwards(g):
        tiles = (b.T @ torch.bmm(backwards, filters).view(36, -1)).view(
            _TILE, _TILE, -1, h // _STEP, w // _STEP, inputs
        )
        tiles = tiles.permute(2, 3, 0, 4, 1, 5)
        # Tiles overlap by two rows and two columns, which go to those of the next one.
        sums = tiles.new_zeros(len(tiles), h // _STEP + 1, _STEP, w // _STEP + 1, _STEP, inputs)
        sums[:, :-1, :, :-1] = tiles[:, :, :_STEP, :, :_STEP]
        sums[:, 1:, :2, :-1] += tiles[:, :, _STEP:, :, :_STEP]
        sums[:, :-1, :, 1:, :2] += tiles[:, :, :_STEP, :, _STEP:]
        sums[:, 1:, :2, 1:, :2] += tiles[:, :, _STEP:, :, _STEP:]
        made[part] = sums.view(-1, h + _STEP, w + _STEP, inputs)[:, 1 : h + 1, 1 : w + 1]
    return made.permute(0, 3, 1, 2)


def weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """The gradient ``[outputs, inputs, 3, 3]`` in the weight, from that in the output ``[n, outputs, h, w]``."""
    to_filters, outputs, inputs = _transforms()[0].to(x), g.shape[1], x.shape[1]
    total = x.new_zeros(36, outputs, inputs)
    for (_, tiles), (_, backwards) in zip(_tiles(x), _backwards(g), strict=True):
        total.baddbmm_(backwards.mT, tiles)
    return (to_filters.T @ total.view(36, -1)).T.reshape(outputs, inputs, 3, 3)


def _filters(weight: Tensor) -> Tensor:
    """A weight's transform ``[36, outputs, inputs]``."""
    outputs, inputs = weight.shape[:2]
    return (_transforms()[0].to(weight) @ weight.reshape(outputs * inputs, 9).T).view(36, outputs, inputs)


def _tiles(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some images at a time, and their tiles' transforms ``[36, tiles, inputs]``."""
    b, inputs = _transforms()[1].to(x), x.shape[1]
    for part in _parts(x):
        padded = F.pad(x[part].permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        tiles = padded.unfold(1, _TILE, _STEP).unfold(2, _TILE, _STEP).permute(4, 5, 0, 1, 2, 3)
        yield part, (b @ tiles.reshape(36, -1)).view(36, -1, inputs)


def _backwards(g: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some images at a time, and the gradients in the products of their places ``[36, tiles, outputs]``."""
    a, (n, outputs, h, w) = _transforms()[2].to(g), g.shape
    tiles = g.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    tiles = tiles.view(n, h // _STEP, _STEP, w // _STEP, _STEP, outputs).permute(0, 2, 4, 1, 3, 5)
    for part in _parts(g):
        own = tiles[part].permute(1, 2, 0, 3, 4, 5).reshape(_STEP * _STEP, -1)
        yield part, (a.T @ own).view(36, -1, outputs)


def _parts(x: Tensor) -> Iterator[slice]:
    """Nearly equal numbers of images ``[n, channels, h, w]``, with about `_TILES` tiles."""
    n, _, h, w = x.shape
    count = min(n, -(-n * (h // _STEP) * (w // _STEP) // _TILES))
    return starmap(slice, pairwise(n * i // count for i in range(count + 1)))


@cache
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Those of the weight ``[36, 9]``, the input ``[36, 36]`` and the output ``[16, 36]``, of both axes at once."""
    g, b, a = (torch.tensor(rows, dtype=torch.float64) for rows in (_G, _B, _A))
    return torch.kron(g, g) / 24**2, torch.kron(b, b), torch.kron(a, a)
