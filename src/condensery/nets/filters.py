"""What a node receives in one layer of a graph network: polynomials of the graph, diffusion, attention, the maximum.

Everything here takes a sparse `Adjacency` and a dense weighted one and computes the same on both. Gradients of second
order reach the features, the coefficients and, if they are learned, the weights. None of it is in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.adjacency import Adjacency

__all__ = [
    "Additive",
    "Diffusion",
    "DotProduct",
    "PairScores",
    "attend",
    "chebyshev",
    "chebyshev_terms",
    "diffuse",
    "diffused",
    "diffusion_coefficients",
    "maximum",
    "propagate",
    "two_parameter",
]

# Entries of the largest temporary that `maximum` makes at once: 16 MB in float32.
_ENTRIES = 1 << 22


# --- polynomials of the graph
# --------------------------------------------------------------------------------------------


def propagate(graph: Adjacency, x: Tensor, hops: int) -> Tensor:
    """``A^hops x`` ``[n, d]``, by `hops` products."""
    for _ in range(hops):
        x = graph @ x
    return x


def chebyshev_terms(graph: Adjacency, x: Tensor, count: int, *, lambda_max: float = 2.0) -> Iterator[Tensor]:
    """The first terms ``T_0(L) x, T_1(L) x, ...`` of Chebyshev's polynomials of the scaled Laplacian.

    With A the symmetrically normalised adjacency *without* self-loops, the Laplacian is ``I - A`` and what is put into
    the polynomials is ``2 / lambda_max (I - A) - I``, whose eigenvalues are in [-1, 1].

    Args:
        graph: The graph as it is, not normalised.
        x: Features ``[n, d]``.
        count: How many terms.
        lambda_max: The Laplacian's largest eigenvalue; 2 bounds it for every graph.

    Yields:
        Tensors ``[n, d]``.
    """
    normalised = graph.normalised(self_loops=False)

    def scaled(h: Tensor) -> Tensor:
        if lambda_max == 2.0:
            return -(normalised @ h)
        return (2 / lambda_max - 1) * h - (2 / lambda_max) * (normalised @ h)

    before, term = x, x
    for k in range(count):
        if k == 1:
            before, term = term, scaled(term)
        elif k > 1:
            before, term = term, 2 * scaled(term) - before
        yield term


def chebyshev(graph: Adjacency, x: Tensor, coefficients: Tensor, *, lambda_max: float = 2.0) -> Tensor:
    """One filter of the polynomial family, ``C x`` with ``C = sum_k coefficients[k] T_k(L)``.

    The family of HCDC (appendix C.3 and figure 6): a point of it is a kind of graph network, and its coordinates are
    hyperparameters, which gradients reach.

    Args:
        graph: The graph as it is, not normalised.
        x: Features ``[n, d]``.
        coefficients: ``[order + 1]``.
        lambda_max: The Laplacian's largest eigenvalue, see `chebyshev_terms`.

    Returns:
        ``[n, d]``.
    """
    terms = chebyshev_terms(graph, x, len(coefficients), lambda_max=lambda_max)
    total = x.new_zeros(())
    for coefficient, term in zip(coefficients.unbind(), terms, strict=True):
        total = total + coefficient * term
    return total


def two_parameter(weights: Tensor, *, lambda_max: float = 2.0) -> Tensor:
    """The filters that HCDC's figure 6 draws, ``I + l1 L + l2 (2 / lambda_max L - I)``, as Chebyshev coefficients.

    Args:
        weights: ``[2]``, l1 and l2.
        lambda_max: The Laplacian's largest eigenvalue.

    Returns:
        Coefficients ``[2]`` for `chebyshev`, differentiable.

    Example:
        >>> two_parameter(torch.tensor([0.0, 1.0])).tolist()
        [1.0, 1.0]
    """
    half = weights[0] * lambda_max / 2  # L = lambda_max / 2 (T_0 + T_1)
    return torch.stack([1 + half, half + weights[1]])


# --- diffusion
# -----------------------------------------------------------------------------------------------------------


class Diffusion(StrEnum):
    """How the weight of k steps falls with k in ``S = sum_k theta_k T^k``.

    Attributes:
        PPR: Personalised PageRank, ``theta_k = a (1 - a)^k`` with a the chance to go back to the start.
        HEAT: The heat kernel, ``theta_k = exp(-t) t^k / k!`` with t the time.
    """

    PPR = "ppr"
    HEAT = "heat"


def diffusion_coefficients(kind: Diffusion, strength: float, terms: int) -> list[float]:
    """The weights theta_0 to theta_terms; the last also has the weight of all further ones, so that they add up to 1.

    Args:
        kind: The rule.
        strength: a of personalised PageRank, in (0, 1], or the time t > 0 of the heat kernel.
        terms: How many steps are walked.

    Raises:
        ValueError: If the strength is out of its range or there are fewer than 0 terms.

    Example:
        >>> diffusion_coefficients(Diffusion.PPR, 0.5, 2)
        [0.5, 0.25, 0.25]
    """
    _check_strength(kind, strength)
    if terms < 0:
        raise ValueError(f"A diffusion of {terms} terms is none; give at least 0.")
    if kind is Diffusion.PPR:
        first = [strength * (1 - strength) ** k for k in range(terms)]
    else:
        first = [math.exp(k * math.log(strength) - strength - math.lgamma(k + 1)) for k in range(terms)]
    return [*first, max(0.0, 1 - math.fsum(first))]


def diffuse(transition: Adjacency, x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``S x = sum_k coefficients[k] T^k x``, by products alone: S itself, which is dense, is never made.

    Args:
        transition: T, a normalised graph.
        x: Features ``[n, d]``.
        coefficients: Of the powers, from 0.

    Returns:
        ``[n, d]``.
    """
    total = coefficients[-1] * x
    for coefficient in reversed(coefficients[:-1]):  # Horner's rule: one product a power and one tensor in flight
        total = transition @ total + coefficient * x
    return total


def diffused(graph: Adjacency, kind: Diffusion, strength: float, *, top: int | None = None) -> Adjacency:
    """The graph that diffusion makes (GDC; Klicpera et al., NeurIPS 2019), for graphs of some thousand nodes.

    ``S = sum_k theta_k T^k`` in closed form, with ``T = D^-1/2 (A + I) D^-1/2``; then, with `top`, the largest entries
    of each row, divided by their sum. It is a preprocessing: what it gives is used as it is, without normalising it
    again (`condensery.nets.graph.GCN` with ``normalise=False``). Any graph can have the filter without the matrix:
    `diffuse`.

    Args:
        graph: The graph as it is, not normalised; gradients reach its weights.
        kind: The diffusion.
        strength: See `diffusion_coefficients`.
        top: How many entries a row keeps; all by default.

    Returns:
        A sparse graph if `graph` is sparse and `top` is given, else a dense one.

    Raises:
        ValueError: If the strength is out of its range or `top` is below 1.
    """
    _check_strength(kind, strength)
    if top is not None and top < 1:
        raise ValueError(f"A row cannot keep {top} entries; give top=1 or more.")
    transition = graph.normalised().dense()
    eye = torch.eye(graph.n, dtype=transition.dtype, device=transition.device)
    if kind is Diffusion.PPR:
        matrix = strength * torch.linalg.solve(eye - (1 - strength) * transition, eye)
    else:
        matrix = torch.matrix_exp(strength * (transition - eye))
    if top is None or top >= graph.n:
        return Adjacency.dense_matrix(matrix)
    values, columns = matrix.topk(top, dim=1)
    values = values / values.sum(1, keepdim=True)
    if graph.is_dense:
        return Adjacency.dense_matrix(torch.zeros_like(matrix).scatter(1, columns, values))
    rows = torch.arange(graph.n, device=columns.device).repeat_interleave(top)
    return Adjacency.sparse(torch.stack([columns.flatten(), rows]), graph.n, values.flatten())


def _check_strength(kind: Diffusion, strength: float) -> None:
    if kind is Diffusion.PPR and not 0 < strength <= 1:
        raise ValueError(f"PageRank goes back with a chance of {strength}; give a strength above 0 and at most 1.")
    if kind is Diffusion.HEAT and not 0 < strength < math.inf:
        raise ValueError(f"Heat spreads for a time of {strength}; give a finite strength above 0.")


# --- attention
# -----------------------------------------------------------------------------------------------------------


class PairScores(Protocol):
    """How much nodes concern each other before the softmax, for each of H heads."""

    def between(self, sources: Tensor, targets: Tensor) -> Tensor:
        """Scores ``[m, H]`` of m pairs, given by two int64 ``[m]``."""

    def everywhere(self) -> Tensor:
        """Scores ``[n, n, H]`` of all pairs: target, source."""


@dataclass(frozen=True)
class Additive:
    """GAT's scores: ``LeakyReLU(source_j + target_i)``.

    Attributes:
        source: ``[n, H]``.
        target: ``[n, H]``.
        slope: Of the LeakyReLU below zero.
    """

    source: Tensor
    target: Tensor
    slope: float = 0.2

    def between(self, sources: Tensor, targets: Tensor) -> Tensor:
        """Scores ``[m, H]`` of m pairs."""
        raw = self.source.index_select(0, sources) + self.target.index_select(0, targets)
        return F.leaky_relu(raw, self.slope)

    def everywhere(self) -> Tensor:
        """Scores ``[n, n, H]`` of all pairs."""
        return F.leaky_relu(self.source[None] + self.target[:, None], self.slope)


@dataclass(frozen=True)
class DotProduct:
    """A transformer's scores: ``<query_i, key_j> / sqrt(d)``.

    Attributes:
        query: ``[n, H, d]``.
        key: ``[n, H, d]``.
    """

    query: Tensor
    key: Tensor

    def between(self, sources: Tensor, targets: Tensor) -> Tensor:
        """Scores ``[m, H]`` of m pairs."""
        product = self.query.index_select(0, targets) * self.key.index_select(0, sources)
        return product.sum(-1) / math.sqrt(self.key.shape[-1])

    def everywhere(self) -> Tensor:
        """Scores ``[n, n, H]`` of all pairs."""
        return torch.einsum("ihd,jhd->ijh", self.query, self.key) / math.sqrt(self.key.shape[-1])


def attend(graph: Adjacency | None, scores: PairScores, values: Tensor) -> Tensor:
    """Every node's mean of its neighbours' values by a softmax in which an edge counts as much as it weighs.

    Node i gives to j the share ``w_ij exp(s_ij) / sum_k w_ik exp(s_ik)``: with weights 0 and 1 the usual attention over
    neighbours, and for w > 0 the same as adding log w to the scores; written as a product it also has a gradient where
    w is 0, so that learned weights can come back. Weights are not negative. A node without neighbours receives zeros.

    Args:
        graph: The neighbours, with self-loops if wanted; ``None`` for all pairs alike.
        scores: The scores.
        values: ``[n, H, d]``.

    Returns:
        ``[n, H, d]``.
    """
    if graph is not None and graph.matrix is None:
        return _attend_sparse(graph, scores, values)
    raw = scores.everywhere()
    weights = torch.ones_like(raw[..., 0]) if graph is None else graph.dense().to(raw.dtype)
    with torch.no_grad():  # the softmax does not depend on what is subtracted
        top = raw.masked_fill((weights == 0)[..., None], -torch.inf).amax(1, keepdim=True)
        top = torch.where(top.isfinite(), top, 0.0)
    # Only pairs that are not joined can be above the top: kept finite, for their weight is 0.
    shares = (raw - top).clamp(max=0.0).exp() * weights[..., None]
    return torch.einsum("ijh,jhd->ihd", shares / _not_zero(shares.sum(1, keepdim=True)), values)


def _attend_sparse(graph: Adjacency, scores: PairScores, values: Tensor) -> Tensor:
    assert graph.edges is not None
    sources, targets = graph.edges
    raw = scores.between(sources, targets)
    index = targets[:, None].expand_as(raw)
    with torch.no_grad():
        seen = raw if graph.weights is None else raw.masked_fill((graph.weights == 0)[:, None], -torch.inf)
        top = raw.new_full((graph.n, raw.shape[1]), -torch.inf).scatter_reduce(0, index, seen, "amax")
        top = torch.where(top.isfinite(), top, 0.0)
    shares = (raw - top.index_select(0, targets)).clamp(max=0.0).exp()
    if graph.weights is not None:
        shares = shares * graph.weights.to(raw.dtype)[:, None]
    total = raw.new_zeros((graph.n, raw.shape[1])).index_add(0, targets, shares)
    shares = shares / _not_zero(total).index_select(0, targets)
    sent = shares[..., None] * values.index_select(0, sources)
    return torch.zeros_like(values).index_add(0, targets, sent)


def _not_zero(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, torch.ones_like(total))


# --- the maximum
# ---------------------------------------------------------------------------------------------------------


def maximum(graph: Adjacency, x: Tensor) -> Tensor:
    """Every node's largest message, feature by feature: ``max_j w_ij x_jf`` over the neighbours j, those with w != 0.

    With weights 0 and 1 it is the usual maximum over neighbours; the weight scales the message, so that gradients
    reach it. Where several are largest, one of them gets the gradient. A node without neighbours receives zeros.
    Memory grows with n d, not with the number of edges times d: the largest message is looked for without a graph of
    autograd, in pieces, and then picked.

    Args:
        graph: The graph as it is.
        x: Features ``[n, d]``.

    Returns:
        ``[n, d]``.
    """
    if graph.matrix is not None:
        matrix = graph.matrix.to(x.dtype)
        with torch.no_grad():
            there = (matrix != 0).any(1, keepdim=True)
            winner = _columns(x, matrix.numel(), lambda part: _largest_dense(matrix, part))
        return torch.where(there, matrix.gather(1, winner) * x.gather(0, winner), 0.0)
    assert graph.edges is not None
    count = graph.edges.shape[1]
    if count == 0:
        return torch.zeros_like(x)
    if graph.weights is None and not x.requires_grad and x.device.type == "cpu":
        return graph.largest(x)  # nobody asks which edge it came from: 20 times as fast on Cora's features
    with torch.no_grad():
        edge = _columns(x, count, lambda part: _largest_sparse(graph, part))
        there, edge = edge < count, edge.clamp(max=count - 1)
    picked = x.gather(0, graph.edges[0][edge])
    if graph.weights is not None:
        picked = picked * graph.weights.to(x.dtype)[edge]
    return torch.where(there, picked, 0.0)


def _columns(x: Tensor, rows: int, winners: Callable[[Tensor], Tensor]) -> Tensor:
    """Int64 ``[n, d]``, found for so many features at a time that temporaries of `rows` rows stay small."""
    return torch.cat([winners(part) for part in x.detach().split(max(1, _ENTRIES // max(1, rows)), dim=1)], 1)


def _largest_dense(matrix: Tensor, x: Tensor) -> Tensor:
    """The source ``[n, d]`` of each largest message."""
    messages = matrix[..., None] * x
    return messages.masked_fill((matrix == 0)[..., None], -torch.inf).argmax(1)


def _largest_sparse(graph: Adjacency, x: Tensor) -> Tensor:
    """The edge ``[n, d]`` of each largest message; as many as there are edges where there is none."""
    assert graph.edges is not None
    sources, targets = graph.edges
    messages = x.index_select(0, sources)
    if graph.weights is not None:
        weights = graph.weights.to(x.dtype)[:, None]
        messages = (messages * weights).masked_fill(weights == 0, -torch.inf)
    index, count = targets[:, None].expand_as(messages), len(sources)
    top = messages.new_full((graph.n, x.shape[1]), -torch.inf).scatter_reduce(0, index, messages, "amax")
    largest = (messages == top.index_select(0, targets)) & messages.isfinite()
    numbers = torch.where(largest, torch.arange(count, device=x.device)[:, None], count)
    return numbers.new_full((graph.n, x.shape[1]), count).scatter_reduce(0, index, numbers, "amin")
