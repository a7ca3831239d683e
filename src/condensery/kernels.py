"""Kernel ridge regression, and the kernels of networks: infinitely wide, random features, empirical tangent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condensery.bilevel import Tangent, linearize
from condensery.lean import Lean
from condensery.net import Net

_DEVICE_PIECE = 1024  # examples: enough to keep an accelerator busy, and the memory is bounded
_KEPT_BYTES = 4 << 30  # of graphs on the examples that are solved for: 3,600 CIFAR-10 images at width 32, 900 at 128
_GRAPH = 9  # an example's graphs in units of its largest activation (a ConvNet-3 with softplus: 8.5)

# --- ridge regression
# ---------------------------------------------------------------------------------------------------


def ridge(
    k: Tensor, y: Tensor, lam: Tensor | float, *, relative: bool = False, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The dual variables (K + lambda I)^-1 Y: the head of KIP, RFAD, FRePo and RCIG, differentiable in all three.

    Args:
        k: The kernel of the synthetic examples with each other, ``[n, n]``.
        y: Their labels ``[n, C]``.
        lam: lambda.
        relative: Whether lambda is in units of the kernel's mean diagonal, tr(K) / n (FRePo: 1e-6 of it).
        dtype: Precision of the factorisation (Cholesky): float64 by default, because the kernels of nearly equal
            images are nearly singular.

    Returns:
        alpha ``[n, C]``, in the precision of y. Predictions are ``k_ts @ alpha``.

    Raises:
        ValueError: If K + lambda I is not positive definite.

    Example:
        >>> ridge(torch.eye(2), torch.tensor([[2.0], [4.0]]), 1.0)
        tensor([[1.],
                [2.]])
    """
    wide = k.to(dtype)
    mean = wide.diagonal().mean() if relative else 1.0
    lam = lam.to(dtype) if isinstance(lam, Tensor) else lam
    eye = torch.eye(len(wide), dtype=dtype, device=wide.device)
    factor, bad = torch.linalg.cholesky_ex(wide + lam * mean * eye)
    if int(bad):
        raise ValueError("The kernel plus its ridge is not positive definite (or not finite); give a larger ridge.")
    return torch.cholesky_solve(y.to(dtype), factor).to(y.dtype)


def ridge_predictions(k_ts: Tensor, k_ss: Tensor, y: Tensor, lam: Tensor | float, *, relative: bool = False) -> Tensor:
    """K_TS (K_SS + lambda I)^-1 Y ``[m, C]``: kernel ridge regression fitted to S, at T.

    Args:
        k_ts: The kernel of other examples with the synthetic ones, ``[m, n]``.
        k_ss: That of the synthetic ones with each other, ``[n, n]``.
        y: Labels ``[n, C]``.
        lam: See `ridge`.
        relative: See `ridge`.
    """
    return k_ts @ ridge(k_ss, y, lam, relative=relative).to(k_ts.dtype)


# --- infinitely wide networks
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullyConnected:
    """The kernels of an infinitely wide fully connected ReLU network (Cho & Saul 2009; Lee et al. 2018; Jacot et al.
    2018), in closed form: the kernels of KIP (Nguyen et al. 2021).

    A layer is z = W h sqrt(weight_variance / fan_in) + sqrt(bias_variance) b with all of W and b standard normal. With
    Sigma_0 = weight_variance <x, x'> / d + bias_variance and E over (a, b) ~ N(0, Sigma_l) of the pair,

        Sigma_{l+1} = weight_variance E[relu(a) relu(b)] + bias_variance,              the NNGP kernel is Sigma_depth;
        Theta_{l+1} = Sigma_{l+1} + weight_variance E[relu'(a) relu'(b)] Theta_l,      Theta_0 = Sigma_0.

    Args:
        depth: Hidden layers.
        weight_variance: 2 by default, which keeps the size of activations.
        bias_variance: KIP's networks have 0.01.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> FullyConnected(depth=1).nngp(x)[0, 0].item(), FullyConnected(depth=1).ntk(x)[0, 0].item()
        (1.0, 2.0)
    """

    depth: int
    weight_variance: float = 2.0
    bias_variance: float = 0.0

    def __post_init__(self) -> None:
        if self.depth < 0 or self.weight_variance <= 0 or self.bias_variance < 0:
            raise ValueError(
                f"depth is {self.depth}, weight_variance {self.weight_variance}, bias_variance {self.bias_variance}; "
                "give a depth of 0 or more, a positive and a non-negative variance."
            )

    def nngp(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The kernel of the network's outputs at initialisation, ``[n, m]``, differentiable in x and z.

        Args:
            x: Inputs ``[n, ...]``, flattened here.
            z: Others ``[m, ...]``; default: x itself.
        """
        return self._kernels(x, z)[0]

    def ntk(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The neural tangent kernel ``[n, m]``, differentiable in x and z; see `nngp`.

        It has a kink where two inputs are equal (it falls off like their distance), and there its derivative is taken
        to be that of its smooth part, which is exact on the diagonal of a set with itself.
        """
        return self._kernels(x, z)[1]

    def _kernels(self, x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        a = x.flatten(1)
        b = a if z is None else z.flatten(1)
        scale = self.weight_variance / a.shape[1]
        qa, qb = (scale * t.square().sum(1) + self.bias_variance for t in (a, b))
        sigma = scale * a @ b.T + self.bias_variance
        theta = sigma
        for _ in range(self.depth):
            size = (qa[:, None] * qb[None, :]).clamp_min(torch.finfo(a.dtype).tiny).sqrt()
            cosine = sigma / size
            angle = _angle(cosine)
            off = math.pi - angle
            slopes = self.weight_variance * off / (2 * math.pi)
            sigma = self.weight_variance * size * (angle.sin() + off * cosine) / (2 * math.pi) + self.bias_variance
            qa, qb = (0.5 * self.weight_variance * q + self.bias_variance for q in (qa, qb))
            theta = sigma + slopes * theta
        return sigma, theta


def _angle(cosine: Tensor) -> Tensor:
    """The angle of a cosine, constant within rounding of 0 and of pi, where its derivative is infinite."""
    limit = 1 - 4 * torch.finfo(cosine.dtype).eps
    inside = cosine.abs() < limit
    # The unused branch of a `where` must be harmless too: infinity times zero is not a number.
    safe = torch.where(inside, cosine, torch.zeros_like(cosine))
    return torch.where(inside, safe.arccos(), math.pi * (cosine < 0).to(cosine.dtype))


# --- finite networks
# ---------------------------------------------------------------------------------------------------


def random_features(net: Net, thetas: Sequence[Tensor] | Tensor, x: Tensor) -> Tensor:
    """Features ``[n, k d]`` whose inner products are the mean over k networks of <phi(x), phi(x')>.

    With networks at initialisation this is RFAD's random-feature estimate of the NNGP kernel (Loo et al. 2022); with
    one trained network it is FRePo's and RCIG's conjugate kernel.

    Args:
        net: The network, whose `Net.embed` is phi.
        thetas: k parameter vectors ``[net.size]``.
        x: Examples ``[n, ...]``. If no gradient goes to them, they go through in pieces that suit the device.
    """
    if len(thetas) == 0:
        raise ValueError("There is no network to take features of; give at least one parameter vector.")
    return torch.cat([_features(net, theta, x) for theta in thetas], dim=1) / math.sqrt(len(thetas))


def feature_kernel(net: Net, thetas: Sequence[Tensor] | Tensor, x: Tensor, z: Tensor | None = None) -> Tensor:
    """The kernel of `random_features`, ``[n, m]``, differentiable in x and z (z = x by default)."""
    first = random_features(net, thetas, x)
    return first @ (first if z is None else random_features(net, thetas, z)).T


def empirical_ntk(net: Net, theta: Tensor, x: Tensor, z: Tensor | None = None) -> Tensor:
    """The empirical neural tangent kernel of a network, ``[n C, m C]``: all outputs of all examples with each other.

    For small sets: n C + m C gradients of the size of the network are held at once. `TangentRidge` computes with it
    without forming it.

    Args:
        net: The network.
        theta: Its parameters ``[net.size]``.
        x: Examples ``[n, ...]``.
        z: Others ``[m, ...]``; default: x itself.
    """
    return net_tangent(net, theta, x).kernel(x, z)


def net_tangent(
    net: Net, theta: Tensor, x: Tensor, *, centred: bool = True, precision: torch.dtype | None = None
) -> Tangent:
    """The tangent model of a network in all its parameters, in pieces that suit the device: what `TangentRidge` needs.

    Its graphs on fixed examples are kept up to 4 GiB (see `TangentAt`).

    Args:
        net: The network.
        theta: Where, ``[net.size]``.
        x: Examples of the shape of those to come ``[n, ...]``.
        centred: Leave out the network's own output.
        precision: Lower precision for products (see `Tangent`).
    """
    x = net.arranged(x)

    def f(theta: Tensor, x: Tensor) -> Tensor:
        return net(theta, net.arranged(x))

    if net.has_batch_norm:
        return linearize(f, theta, centred=centred, precision=precision)
    piece = net.chunk(x) if x.device.type == "cpu" else _DEVICE_PIECE
    kept = _KEPT_BYTES // (_GRAPH * net.activation_bytes(x) * (precision or x.dtype).itemsize // 4)
    return linearize(f, theta, centred=centred, piece=piece, kept=kept, precision=precision)


def _features(net: Net, theta: Tensor, x: Tensor) -> Tensor:
    graph = torch.is_grad_enabled() and (x.requires_grad or theta.requires_grad)
    x = net.arranged(x)
    if graph or net.has_batch_norm:
        with Lean():
            return net.embed(theta, x)
    with torch.no_grad(), Lean():
        return torch.cat([net.embed(theta, part) for part in x.split(net.chunk(x))])


def mean_over_outputs(kernel: Tensor, outputs: int) -> Tensor:
    """The mean over outputs of an empirical tangent kernel ``[n C, m C]``: ``[n, m]``, one kernel for all classes.

    In a wide network the kernel is near this (x) I_C, which makes it an estimate of the infinite network's.

    Args:
        kernel: From `empirical_ntk`.
        outputs: C.
    """
    n, m = kernel.shape[0] // outputs, kernel.shape[1] // outputs
    return kernel.view(n, outputs, m, outputs).diagonal(dim1=1, dim2=3).mean(-1)
