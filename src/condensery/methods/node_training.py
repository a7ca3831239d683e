"""The inner training of SFGC and GEOM: a network on synthetic nodes without edges, as a differentiable function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.adjacency import NodeInput
from condensery.bilevel.unroll import unroll_light
from condensery.net import Net
from condensery.nets.graph import GCN, NodeMLP
from condensery.nets.layers import Activation

__all__ = ["InSpan", "train_nodes"]


def train_nodes(net: Net, x: NodeInput, y: Tensor, start: Tensor, lr: Tensor, *, steps: int) -> Tensor:
    """The parameters after N steps of gradient descent on all nodes, differentiable in features, labels and step size.

    Exact, with one step's graph in memory (`bilevel.unroll_light`). The published network, two layers with a ReLU on
    nodes without edges, is trained in the span of the nodes' features (`InSpan`) where they are fewer than
    their features; every other one by autograd on its own parameters.

    Args:
        net: The architecture.
        x: The nodes, on a graph that no gradient is to reach.
        y: Labels: int64 ``[n]``, or rows ``[n, C]``.
        start: theta_0 ``[net.size]``.
        lr: The step size, a scalar.
        steps: N.

    Returns:
        theta_N ``[net.size]``.
    """
    if InSpan.fits(net, x):
        return _train_in_span(net, x.features, y, start, lr, steps)

    def loss(i: int, theta: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(net(theta, NodeInput(features, x.graph)), labels)  # type: ignore[arg-type]

    return unroll_light(loss, start, [x.features, y], lr, steps=steps)


def _train_in_span(net: Net, x: Tensor, y: Tensor, start: Tensor, lr: Tensor, steps: int) -> Tensor:
    first, *others = net.layers(start).values()
    rows = y if y.is_floating_point() else F.one_hot(y, others[1].shape[0]).to(x.dtype)
    inner = InSpan(len(x), first.shape[0], rows.shape[1])
    theta = torch.cat([x.new_zeros(inner.nodes * inner.width), *(part.flatten() for part in others)])
    last = unroll_light(inner, theta, [x @ first.T, x @ x.T, rows], lr, steps=steps)
    moved, rest = last.split([inner.nodes * inner.width, len(last) - inner.nodes * inner.width])
    weight = torch.addmm(first, moved.view(inner.nodes, inner.width).T, x)
    return torch.cat([weight.flatten(), rest])


@dataclass(frozen=True)
class InSpan:
    """Gradient descent of a two-layer ReLU network on n nodes x_i, in the coordinates that it moves in.

    The loss's gradient in the first weights W ``[h, d]`` is ``D^T X``, with D ``[n, h]`` its gradient in the first
    layer's outputs. So W stays in the span of its start W_0 and the nodes: ``W = W_0 + U^T X``, and a step is

        U <- U - lr D,    with outputs  Z = X W^T + b = X W_0^T + (X X^T) U + b

    that need the products ``X W_0^T`` and ``X X^T`` alone, made once for all steps. A step costs n^2 h in place of
    n d h: of Cora's 1,433 features nothing is left in the loop, and a parameter vector has n h in place of d h numbers.

    It is an `Inner` of `bilevel.unroll_light` with the parameters ``(U, b, W_2, b_2)`` as one vector and the data
    ``[X W_0^T, X X^T, Y]``. Its `gradient` is that of descent in W, which in these coordinates is not the gradient
    of a function; `pull` differentiates it all the same, with the ReLU's second derivative 0.

    Args:
        nodes: n.
        width: h.
        classes: C.
    """

    nodes: int
    width: int
    classes: int

    @staticmethod
    def fits(net: Net, x: NodeInput) -> bool:
        """Whether the network is such a one on such nodes, and the coordinates are the fewer."""
        module, edges = net.module, x.graph.edges
        if not isinstance(module, GCN | NodeMLP) or edges is None or edges.shape[1]:
            return False
        config = module.config
        plain = config["depth"] == 2 and config["activation"] == Activation.RELU.value
        return bool(plain and config.get("normalise", True) and len(x.features) < config["features"])

    def __call__(self, i: int, theta: Tensor, *data: Tensor) -> Tensor:
        """Refused: what these coordinates descend is no function of them.

        Raises:
            ValueError: Always.
        """
        raise ValueError("Descent in the span has no loss to differentiate; use unroll_light, which asks for `pull`.")

    def gradient(self, i: int, theta: Tensor, data: Sequence[Tensor]) -> Tensor:
        """How a step moves the parameters, divided by -lr."""
        z, r, p, weight = self._forward(theta, data)
        y = data[2]
        error = (p * y.sum(1, keepdim=True)).sub_(y).div_(self.nodes)  # [n, C]
        d = torch.where(z > 0, error @ weight, 0.0)
        return torch.cat([d.flatten(), d.sum(0), (error.T @ r).flatten(), error.sum(0)])

    def pull(
        self, i: int, theta: Tensor, data: Sequence[Tensor], a: Tensor, *, hessian: bool = True
    ) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
        """<g, a> for the `gradient` g, and its derivatives in the parameters and in the data."""
        z, r, p, weight = self._forward(theta, data)
        _, gram, y = data
        mass, on = y.sum(1, keepdim=True), z > 0
        error = (p * mass).sub_(y).div_(self.nodes)
        along_u, along_b, along_w, along_c = self._parts(a)
        q = torch.where(on, along_u + along_b, 0.0)  # what meets D
        v = torch.addmm(along_c, q, weight.T).addmm_(r, along_w.T)  # d<g, a> / d error
        mean = (p * v).sum(1, keepdim=True)
        through = p * (v - mean) * (mass / self.nodes)  # d<g, a> / d logits
        k = torch.where(on, (error @ along_w).addmm_(through, weight), 0.0)  # d<g, a> / dZ
        for_theta = None
        if hessian:
            for_weight = (error.T @ q).addmm_(through.T, r)
            for_theta = torch.cat([(gram @ k).flatten(), k.sum(0), for_weight.flatten(), through.sum(0)])
        u = self._parts(theta)[0]
        parts = [
            k if data[0].requires_grad else None,
            k @ u.T if gram.requires_grad else None,
            (mean - v) / self.nodes if y.requires_grad else None,
        ]
        return (error * v).sum(), for_theta, parts

    def _forward(self, theta: Tensor, data: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First outputs Z, their ReLU, the softmax and the last weights."""
        u, b, weight, c = self._parts(theta)
        z = torch.addmm(data[0].detach(), data[1].detach(), u).add_(b)
        r = z.relu()
        return z, r, torch.addmm(c, r, weight.T).softmax(1), weight

    def _parts(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n, h, c = self.nodes, self.width, self.classes
        u, b, weight, last = theta.split([n * h, h, c * h, c])
        return u.view(n, h), b, weight.view(c, h), last
