"""What matching methods share: the layer-wise cosine distance, and sums over classes in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from condensery.loop import with_gradient
from condensery.net import Net


def layerwise_distance(net: Net, a: Tensor, b: Tensor, *, eps: float = 1e-6) -> Tensor:
    """DC's distance between two gradients (Zhao et al., ICLR 2021, eq. 10).

    Each layer's gradient is one row per output node (a convolution's ``[out, in * h * w]``, a linear layer's ``[out,
    in]``); the distance is the sum over all rows of 1 - cosine. Vectors (biases and normalisation) are left out, as
    in the published code.

    Args:
        net: Gives the layers' shapes.
        a: Gradient ``[net.size]``.
        b: Gradient ``[net.size]``.
        eps: Added to the product of the norms, as in the published code.

    Returns:
        A scalar.
    """
    total = a.new_zeros(())
    rows_a, rows_b = net.layers(a), net.layers(b)
    for name, layer in rows_a.items():
        if layer.dim() < 2:
            continue
        u, v = layer.flatten(1), rows_b[name].flatten(1)
        cosine = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1) + eps)
        total = total + (1 - cosine).sum()
    return total


def sum_over_parts(x: Tensor, parts: Iterable[slice], loss: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """``sum of loss(x[part], part)``, each part's graph freed before the next is built.

    The value and the gradient in `x` are those of the plain sum; the memory is that of the largest part.

    Args:
        x: What the losses are differentiated in, ``[n, ...]``.
        parts: Disjoint slices of it.
        loss: A scalar for each part.
    """
    value, gradient = x.new_zeros(()), torch.zeros_like(x)
    for part in parts:
        leaf = x[part].detach().requires_grad_()
        with torch.enable_grad():
            term = loss(leaf, part)
            (gradient[part],) = torch.autograd.grad(term, leaf)
        value = value + term.detach()
    return with_gradient(value, [x], [gradient])
