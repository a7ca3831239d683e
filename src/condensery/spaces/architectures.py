"""Architectures as hyperparameters, relaxed by drawing one operation at a time (HCDC, appendix G: as GDAS does)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import cast

import torch
from torch import Tensor

from condensery.batch import Batch
from condensery.net import Net
from condensery.nets.cells import EDGES, OPS, Cell, Mixture, Supernet
from condensery.spaces.gumbel import Gumbel, gumbel_noise
from condensery.spaces.plain import cross_entropy
from condensery.spaces.space import Simplices

__all__ = ["Alternatives", "Cells", "Odds"]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of `nets.cells` as a space: lambda are logits of each operation on each edge, ``[6 x 5]``, flat.

    A loss draws one operation for each edge, the same in all cells of the network, and has the straight-through
    gradient of `Gumbel` in lambda. The draw comes from the loss's generator: the same seed is the same function.

    Args:
        net: A `Net` of a `nets.cells.Supernet`.
        gumbel: How it is drawn; the temperature falls while a search goes on (`Gumbel.falling`).
        candidates: Cells where trajectories begin; without any they begin near zero logits, as GDAS does.
        sharpness: Logit of a candidate's operations, those of the others being 0.

    Raises:
        ValueError: If the network is no supernet.

    Example:
        >>> net = Net(Supernet(channels=1, classes=10, size=8, width=4, stages=1))
        >>> Cells(net, candidates=[Cell("333333")]).starts(torch.Generator()).shape
        torch.Size([1, 30])
    """

    net: Net
    _: KW_ONLY
    gumbel: Gumbel = field(default_factory=Gumbel)
    candidates: Sequence[Cell] = ()
    sharpness: float = 3.0

    def __post_init__(self) -> None:
        if not isinstance(self.net.module, Supernet):
            raise ValueError(f"{type(self.net.module).__name__} is no supernet; give Net(nets.cells.Supernet(...)).")

    @property
    def size(self) -> int:
        """Logits in all: 30."""
        return len(EDGES) * len(OPS)

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Fresh weights ``[net.size]`` of all operations."""
        return self.net.init(generator, device=device)

    def drawn(self, lam: Tensor, generator: torch.Generator) -> Tensor:
        """One-hot weights ``[edges, operations]`` drawn from logits ``[size]``."""
        alpha = lam.view(len(EDGES), len(OPS))
        return self.gumbel(alpha, gumbel_noise(alpha, generator))

    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean cross entropy of one drawn architecture."""
        return self.misfit(self.outputs(theta, lam, batch, generator), theta, lam, batch)

    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Logits of one drawn architecture."""
        return self.net(theta, cast(Tensor, Mixture(batch.x, self.drawn(lam, generator))))

    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The mean cross entropy."""
        return cross_entropy(outputs, batch.y)

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The same as training: what validates is in the batch."""
        return self.training(theta, lam, batch, generator)

    def starts(self, generator: torch.Generator) -> Tensor:
        """The candidates in a random order ``[k, size]``, or one point with logits of about 1e-3."""
        if not self.candidates:
            return 1e-3 * torch.randn(1, self.size, generator=generator)
        order = torch.randperm(len(self.candidates), generator=generator).tolist()
        return self.sharpness * torch.stack([self.candidates[k].weights.flatten() for k in order])

    def project(self, lam: Tensor) -> Tensor:
        """Itself: all logits are."""
        return lam

    def tangent(self, gradient: Tensor) -> Tensor:
        """Each edge without its mean: adding a number to all logits of an edge changes nothing."""
        return _centred(gradient.unflatten(-1, (len(EDGES), len(OPS)))).flatten(-2)

    def cell(self, lam: Tensor) -> Cell:
        """The most probable cell of logits ``[size]``."""
        return Cell.from_weights(lam.detach().view(len(EDGES), len(OPS)))


@dataclass(frozen=True, eq=False)
class _List:
    """Networks whose weights are one vector."""

    nets: Sequence[Net]

    def __post_init__(self) -> None:
        if len(self.nets) < 2:
            raise ValueError(f"There is nothing to choose among {len(self.nets)} networks; give 2 or more.")

    @property
    def size(self) -> int:
        """How many networks: p."""
        return len(self.nets)

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Fresh weights of all networks, ``[P_1 + ... + P_p]``."""
        return torch.cat([net.init(generator, device=device) for net in self.nets])

    def parts(self, theta: Tensor) -> tuple[Tensor, ...]:
        """The weights of each network."""
        return theta.split([net.size for net in self.nets])


@dataclass(frozen=True, eq=False)
class Alternatives(_List):
    """A list of networks as a space: lambda are logits ``[p]`` of which one it is, theta the weights of all, one after
    the other.

    Appendix G of HCDC: the interpolated model ``f = sum_i w_i f_i``, with w drawn from lambda by `Gumbel`. It serves
    for the 40 graph networks of appendix J (`nets.candidates`). One w_i is 1, and the others are 0 but for their
    derivatives in lambda: a step of training costs what one network costs, and where derivatives in lambda are wanted
    the other networks are passed through forward. Mixed derivatives in lambda and the weights of networks that were not
    drawn are left out. The response of these weights has no effect on a loss under the same draw.

    Args:
        nets: The networks, with the same input and classes.
        gumbel: How one is drawn.
        sampled: Whether the networks that were not drawn are left out. A step then costs what one network costs, and
            the gradient in lambda is that of the drawn one's weight alone, as in GDAS. Where no gradient in lambda is
            asked for they are left out in any case.
        sharpness: Logit of a network where its trajectory begins, those of the others being 0.

    Raises:
        ValueError: If there are fewer than two.
    """

    _: KW_ONLY
    gumbel: Gumbel = field(default_factory=Gumbel)
    sampled: bool = False
    sharpness: float = 3.0

    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean cross entropy of one drawn network."""
        return self.misfit(self.outputs(theta, lam, batch, generator), theta, lam, batch)

    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Logits of one drawn network."""
        alpha = lam[None]
        weights = self.gumbel(alpha, gumbel_noise(alpha, generator))[0]
        drawn = (weights.detach() != 0).tolist()  # waits for the device, and saves all but one of the networks
        others = weights.requires_grad and not self.sampled
        each = zip(self.nets, self.parts(theta), weights, drawn, strict=True)
        # A network of weight 0 is there for the derivative in its weight: its own weights have none.
        logits = [w * net(p if is_drawn else p.detach(), batch.x) for net, p, w, is_drawn in each if is_drawn or others]
        return torch.stack(logits).sum(0)

    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The mean cross entropy."""
        return cross_entropy(outputs, batch.y)

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The same as training: what validates is in the batch."""
        return self.training(theta, lam, batch, generator)

    def starts(self, generator: torch.Generator) -> Tensor:
        """A point for each network ``[p, p]``, in a random order."""
        return self.sharpness * torch.eye(self.size)[torch.randperm(self.size, generator=generator)]

    def project(self, lam: Tensor) -> Tensor:
        """Itself: all logits are."""
        return lam

    def tangent(self, gradient: Tensor) -> Tensor:
        """Without the mean: adding a number to all logits changes nothing."""
        return _centred(gradient)


@dataclass(frozen=True, eq=False)
class Odds(_List):
    """A list of networks as a space: lambda are the probabilities ``[p]`` with which each is drawn, on the simplex.

    Its losses are what a draw makes on average, with L_i the mean cross entropy of network i and its own weights,

        L_train = sum_i L_i,        L_val = sum_i lambda_i L_i.

    A corner is a candidate exactly, and the simplex is connected, compact and convex. Each network is trained as if it
    were alone: its weights do not depend on lambda. So the hypergradient along the simplex is the list of the networks'
    validation losses without their mean, and the cosine that HCDC raises is the correlation (Pearson's) of real and
    synthetic losses over the candidates. `Alternatives` estimates this gradient from one draw, by the straight-through
    derivative of an interpolated network.

    A correlation is made by the networks whose losses are farthest out: one that explodes decides it. ``scale`` is an
    increasing function that changes no ranking, such as ``torch.log``: L_val becomes ``sum_i lambda_i scale(L_i)``, of
    which a corner still ranks as the candidate's loss does.

    Args:
        nets: The networks, with the same input and classes.
        scale: Of validation losses ``[p]``.

    Raises:
        ValueError: If there are fewer than two.
    """

    _: KW_ONLY
    scale: Callable[[Tensor], Tensor] | None = None

    def training(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The sum of the mean cross entropies."""
        return self.losses(theta, batch).sum()

    def outputs(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Logits of every network, ``[p, n, C]``."""
        return torch.stack([net(part, batch.x) for net, part in zip(self.nets, self.parts(theta), strict=True)])

    def misfit(self, outputs: Tensor, theta: Tensor, lam: Tensor, batch: Batch) -> Tensor:
        """The sum of the mean cross entropies."""
        return torch.stack([cross_entropy(logits, batch.y) for logits in outputs]).sum()

    def losses(self, theta: Tensor, batch: Batch) -> Tensor:
        """The mean cross entropy of each network, ``[p]``."""
        each = zip(self.nets, self.parts(theta), strict=True)
        return torch.stack([cross_entropy(net(part, batch.x), batch.y) for net, part in each])

    def validation(self, theta: Tensor, lam: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean over draws of the mean cross entropy, on its scale."""
        losses = self.losses(theta, batch)
        return lam @ (losses if self.scale is None else self.scale(losses))

    def starts(self, generator: torch.Generator) -> Tensor:
        """The point of equal odds, ``[1, p]``: the loss is linear, so that the hypergradient is the same at all."""
        return torch.full((1, self.size), 1 / self.size)

    def project(self, lam: Tensor) -> Tensor:
        """The nearest probabilities."""
        return self._odds.project(lam)

    def tangent(self, gradient: Tensor) -> Tensor:
        """Without the mean: probabilities sum to 1."""
        return self._odds.tangent(gradient)

    @property
    def _odds(self) -> Simplices:
        return Simplices((self.size,))


def _centred(gradient: Tensor) -> Tensor:
    return gradient - gradient.mean(-1, keepdim=True)
