"""GraNd and EL2N: how much an example pulls at a network early in training.

Paul et al., "Deep learning on a data diet: finding important examples early in training", NeurIPS 2021.
Select by `condensery.coresets.top`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


def el2n_scores(logits: Tensor, y: Tensor) -> Tensor:
    """EL2N: the norm of the error, E || softmax(logits) - onehot(y) || (Definition 2.2).

    Args:
        logits: A network's outputs ``[n, classes]``, or those of r networks ``[r, n, classes]`` (the paper
            averages 10, after some 20 epochs).
        y: Class indices ``[n]``.

    Returns:
        Scores ``[n]``, from 0 to the square root of 2.

    >>> el2n_scores(torch.zeros(1, 2), torch.tensor([0])).tolist()
    [0.7071067690849304]
    """
    norms = torch.linalg.vector_norm(_errors(logits, y), dim=-1)
    return norms if norms.ndim == 1 else norms.mean(dim=0)


def last_layer_grand_scores(logits: Tensor, features: Tensor, y: Tensor) -> Tensor:
    """GraNd of the last layer alone, in closed form: an approximation that needs no backward pass.

    The gradient of the cross-entropy in ``W [classes, d]`` and the bias of ``logits = W h + b`` is the outer
    product of the error p - onehot(y) with (h, 1), whose norm is || p - onehot(y) || * sqrt(|| h ||^2 + 1).

    Args:
        logits: A network's outputs ``[n, classes]``, or those of r networks ``[r, n, classes]``.
        features: What the last layer reads, ``[n, d]`` or ``[r, n, d]``.
        y: Class indices ``[n]``.

    Returns:
        Scores ``[n]``, averaged over the networks.
    """
    if features.shape[:-1] != logits.shape[:-1]:
        shape = (*logits.shape[:-1], "d")
        raise ValueError(f"features must have the shape {shape} to fit the logits, not {tuple(features.shape)}")
    norms = torch.linalg.vector_norm(_errors(logits, y), dim=-1)
    norms = norms * (features.square().sum(dim=-1) + 1).sqrt()
    return norms if norms.ndim == 1 else norms.mean(dim=0)


def grand_scores(
    logits: Callable[[Tensor, Tensor], Tensor],
    thetas: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    *,
    chunk: int = 32,
) -> Tensor:
    """GraNd: the exact norm E_theta || grad_theta CE(f(theta, x), y) || of each example (Definition 2.1).

    Args:
        logits: The network ``(theta, x [m, ...]) -> [m, classes]``; it must treat examples apart (no batch
            normalisation over the batch) and work under `torch.func.vmap`.
        thetas: Flat parameter vectors to average over: several initialisations, or several early epochs.
        x: Inputs ``[n, ...]``.
        y: Labels: class indices ``[n]``, or soft labels ``[n, classes]``.
        chunk: Examples differentiated at a time; memory grows by ``chunk * len(theta)``.

    Returns:
        Scores ``[n]``.

    >>> linear = lambda theta, x: x @ theta.view(2, 2)
    >>> grand_scores(linear, [torch.zeros(4)], torch.tensor([[3.0, 4.0]]), torch.tensor([0])).tolist()
    [3.535533905029297]
    """
    if len(thetas) == 0:
        raise ValueError("GraNd is a mean over networks: give at least one theta")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} inputs do not fit {len(y)} labels: give one label for each input")

    def loss(theta: Tensor, example: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(logits(theta, example[None]), label[None])

    def norm(theta: Tensor, example: Tensor, label: Tensor) -> Tensor:
        # The norm is taken inside vmap, so that no more than a chunk of gradients is ever held.
        return torch.linalg.vector_norm(torch.func.grad(loss)(theta, example, label))

    norms = torch.func.vmap(norm, in_dims=(None, 0, 0), chunk_size=chunk)
    return torch.stack([norms(theta.detach(), x, y) for theta in thetas]).mean(dim=0)


def _errors(logits: Tensor, y: Tensor) -> Tensor:
    """The softmax minus the one-hot label, of the shape of the logits."""
    if logits.ndim not in (2, 3) or logits.shape[-2] != len(y):
        raise ValueError(
            f"logits must be [n, classes] or [r, n, classes] for {len(y)} labels, not {tuple(logits.shape)}"
        )
    return logits.detach().softmax(dim=-1) - one_hot(y, logits.shape[-1]).to(logits.dtype)
