"""The gradient that experts on graphs descend: the training nodes' loss, what never changes made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.adjacency import Adjacency, NodeInput
from condensery.net import Net
from condensery.nets.graph import GCN, compressed
from condensery.nets.layers import Activation

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData


class NodeLoss:
    """The mean cross entropy of training nodes, as a function of a network's parameters: its gradient.

    The published network, `GCN` with two layers and a ReLU, has a closed form in which the features are propagated
    once, ``C X``, and only for the nodes that a training node averages over: with S those rows of C,

        Z = (C X) W^T + b,   logits = (S relu(Z)) W_2^T + b_2,

    exactly what the network gives on the whole graph. Others are differentiated by autograd on the whole graph.

    Args:
        net: The network.
        data: The graph, as training sees it (`GraphData.training_view`).
        order: The training nodes, int64 ``[k]``: a curriculum takes the first ones of them.
        dtype: Precision of the parameters.
    """

    def __init__(self, net: Net, data: GraphData, order: Tensor, *, dtype: torch.dtype = torch.float32) -> None:
        self.net, self.order, self.y = net, order, data.y[order]
        config = getattr(net.module, "config", {})
        closed = type(net.module) is GCN and config["depth"] == 2 and config["normalise"]
        self.closed = closed and config["activation"] == Activation.RELU.value
        x = data.x.to(dtype)
        if self.closed:
            self._propagate(x, data.adjacency.normalised(), data.num_classes)
        else:
            self.x = NodeInput(compressed(x), data.adjacency)

    def gradient(self, theta: Tensor, count: int | None = None) -> Tensor:
        """The gradient ``[net.size]`` at theta of the mean over the first `count` nodes; over all by default."""
        count = len(self.order) if count is None else count
        return self._closed(theta, count) if self.closed else self._by_autograd(theta, count)

    def _propagate(self, x: Tensor, graph: Adjacency, classes: int) -> None:
        assert graph.edges is not None, "real graphs are sparse"
        sources, targets = graph.edges
        weights = graph.weights if graph.weights is not None else x.new_ones(len(sources))
        place = torch.full((graph.n,), -1, dtype=torch.int64, device=x.device)
        place[self.order] = torch.arange(len(self.order), device=x.device)
        kept = place[targets] >= 0
        near, columns = sources[kept].unique(return_inverse=True)
        mixing = x.new_zeros((len(self.order), len(near)))
        mixing.index_put_((place[targets[kept]], columns), weights[kept].to(x.dtype), accumulate=True)
        first = (graph @ x)[near]
        self.mixing, self.mixing_t = compressed(mixing), compressed(mixing.T.contiguous())
        self.first, self.first_t = compressed(first), compressed(first.T.contiguous())
        self.rows = F.one_hot(self.y, classes).to(x.dtype)

    def _closed(self, theta: Tensor, count: int) -> Tensor:
        weight, b, last, c = self.net.layers(theta.detach()).values()
        z = self.first @ weight.T + b
        r = self.mixing @ z.relu()
        error = (torch.addmm(c, r, last.T).softmax(1) - self.rows) / count
        error[count:] = 0
        d = torch.where(z > 0, self.mixing_t @ (error @ last), 0.0)
        parts = ((self.first_t @ d).T, d.sum(0), error.T @ r, error.sum(0))
        return torch.cat([part.flatten() for part in parts])

    def _by_autograd(self, theta: Tensor, count: int) -> Tensor:
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.net(leaf, self.x)[self.order[:count]]  # type: ignore[arg-type]
            return torch.autograd.grad(F.cross_entropy(logits, self.y[:count]), leaf)[0]
