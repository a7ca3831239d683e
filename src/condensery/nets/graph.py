"""Graph networks for the classification of nodes: the rows of HCDC's table 4, and the family that they lie in.

Every network is called with a `NodeInput`, features ``[n, d]`` and a graph of n nodes, and gives logits
``[n, classes]``. The graph is handed over as it is, without self-loops and not normalised: each network does to it
what its paper says. It may be sparse, as real graphs are, or dense and weighted, as condensed ones are, with the same
result; gradients of second order reach the parameters, the features and the weights of the graph.

What a weight means where the published layer knows only edges: `SAGE` takes the weighted mean, or scales the messages
whose maximum it takes; `GAT` and `GraphTransformer` multiply by it inside the softmax; `GIN` takes the weighted sum.
With weights 0 and 1 each is the published layer, the one of PyTorch Geometric, weight for weight.
"""

from __future__ import annotations

import itertools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.adjacency import Adjacency, NodeInput, Normalisation
from condensery.nets import filters
from condensery.nets.filters import Diffusion
from condensery.nets.layers import Activation, Style, choice

__all__ = [
    "APPNP",
    "GAT",
    "GCN",
    "GDC",
    "GIN",
    "GRAPH",
    "SAGE",
    "SGC",
    "Aggregation",
    "ChebNet",
    "Dropout",
    "GraphNet",
    "GraphTransformer",
    "NodeMLP",
    "Polynomial",
    "Reach",
    "Start",
    "candidates",
    "compressed",
    "with_dropout",
]

Filter = Callable[[Tensor], Tensor]
"""A linear map of features ``[n, d]`` along the graph, alike for every feature."""


class Start(StrEnum):
    """How the weights of a layer are drawn.

    Attributes:
        GLOROT: Uniform in ``+-sqrt(6 / (fan_in + fan_out))`` and zero biases: PyTorch Geometric's rule for GCN.
        FAN_IN: Weights and biases uniform in ``+-1 / sqrt(fan_in)``: PyTorch's rule for linear layers, and that of the
            GCN, SGC and MLP in GCond's code.
    """

    GLOROT = "glorot"
    FAN_IN = "fan_in"


class Aggregation(StrEnum):
    """What GraphSAGE makes of the neighbours: their (weighted) mean, or the largest message feature by feature."""

    MEAN = "mean"
    MAX = "max"


class Reach(StrEnum):
    """Whom a node of a graph transformer attends to.

    Attributes:
        NEIGHBOURS: Its neighbours, by the weights of the edges (Shi et al., IJCAI 2021).
        EVERYONE: All nodes alike, the global attention of HCDC's table 4: the graph itself is not used, and n^2 scores
            are computed.
    """

    NEIGHBOURS = "neighbours"
    EVERYONE = "everyone"


# --- parts
# ----------------------------------------------------------------------------------------------------------------


class Weight(nn.Module):
    """A linear layer whose rule of initialisation is chosen, ``[n, inputs] -> [n, outputs]``.

    Args:
        inputs: Features that come in.
        outputs: Features that go out.
        start: The rule.
        bias: Whether a bias is added.

    Attributes:
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``, or ``None``.
    """

    bias: nn.Parameter | None

    def __init__(self, inputs: int, outputs: int, *, start: Start = Start.GLOROT, bias: bool = True) -> None:
        super().__init__()
        self.start = start
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters afresh, from PyTorch's global generator if none is given."""
        outputs, inputs = self.weight.shape
        if self.start is Start.GLOROT:
            _uniform(self.weight, math.sqrt(6 / (inputs + outputs)), generator)
        else:
            _uniform(self.weight, 1 / math.sqrt(inputs), generator)
        if self.bias is not None:
            _uniform(self.bias, 0.0 if self.start is Start.GLOROT else 1 / math.sqrt(inputs), generator)

    def forward(self, x: Tensor) -> Tensor:
        """``x W^T + b``."""
        if x.layout is torch.strided:
            return F.linear(x, self.weight, self.bias)
        return self._shifted(x @ self.weight.T)

    def after(self, filtered: Filter, x: Tensor) -> Tensor:
        """``C(x) W^T + b``: the filter is applied on the side that has fewer features, and to no compressed ones."""
        outputs, inputs = self.weight.shape
        if outputs >= inputs and x.layout is torch.strided:
            return self(filtered(x))
        return self._shifted(filtered(x @ self.weight.T))

    def _shifted(self, x: Tensor) -> Tensor:
        return x if self.bias is None else x + self.bias

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{tuple(self.weight.shape)}, {self.start.value}, bias={self.bias is not None}"


def compressed(features: Tensor, *, below: float = 0.1) -> Tensor:
    """Real features ``[n, d]`` in compressed rows if few are not 0, otherwise as they are.

    Bags of words such as Cora's have one feature in a hundred, and the first layer's products, forward and backward,
    are then most of a network's arithmetic. Every network here takes both forms with the same result. No gradient
    reaches compressed features.

    Args:
        features: Constant features.
        below: The share of non-zero features from which on they stay as they are.

    Example:
        >>> compressed(torch.eye(20)).layout, compressed(torch.ones(2, 2)).layout
        (torch.sparse_csr, torch.strided)
    """
    if features.layout is not torch.strided or int(features.count_nonzero()) >= below * features.numel():
        return features
    with warnings.catch_warnings():  # PyTorch says once a process that its compressed rows are in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return features.detach().to_sparse_csr()


class Dropout(nn.Module):
    """Dropout whose randomness comes from a generator, and which does nothing until one is given.

    So a network with dropout, used as a function of its parameters, is deterministic; training for an evaluation hands
    a generator over with `with_dropout`.

    Args:
        rate: Share of the features that become 0; the others grow to make up for it.

    Raises:
        ValueError: If the rate is not in [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout cannot drop a share of {rate}; give at least 0 and less than 1.")
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The features ``[n, d]``, some of them 0 in training mode."""
        if not self.training or self.rate == 0 or self.generator is None:
            return x
        kept = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))


def with_dropout(module: nn.Module, generator: torch.Generator, device: torch.device | str = "cpu") -> nn.Module:
    """Give every `Dropout` of a module its randomness.

    Args:
        module: Changed in place; it can no longer be copied.
        generator: A CPU generator, from which one on the device is seeded, so that training waits for nothing.
        device: Where the module is.

    Returns:
        The module.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    own = torch.Generator(device=device).manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.generator = own
    return module


class GraphNet(nn.Module, ABC):
    """What all graph networks share: a stack of layers with an activation, then dropout, between them.

    Subclasses say what their layers need of the graph, computed once a call (`context`), and fill `layers`.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share of the features dropped between layers, see `Dropout`.
        activation: Nonlinearity between layers.
        options: The rest of the subclass's constructor arguments as plain values.

    Attributes:
        config: Every constructor argument, as JSON values.
        layers: Called with features and context.

    Raises:
        ValueError: If a count is not a positive whole number, or an option does not exist.
    """

    config: dict[str, Any]
    layers: nn.ModuleList

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        **options: Any,
    ) -> None:
        super().__init__()
        style = Style(activation=activation)
        counts = {"features": features, "classes": classes, "width": width, "depth": depth}
        for name, value in counts.items():
            _check_whole(name, value)
        self.config = {**counts, "dropout": dropout, **style.config("activation"), **options}
        self.activation = style.activate()
        self.dropout = Dropout(dropout)

    @abstractmethod
    def context(self, graph: Adjacency) -> Any:
        """What the layers need of the graph."""

    def finish(self, logits: Tensor, context: Any) -> Tensor:
        """What becomes of the last layer's output ``[n, classes]``: the logits."""
        return logits

    def representations(self, x: NodeInput) -> list[Tensor]:
        """What each layer gives, after its activation and before dropout; the last are the logits.

        Args:
            x: The nodes.

        Returns:
            ``depth`` tensors ``[n, width]``, the last ``[n, classes]``.

        Raises:
            ValueError: If the input is not what the network was built for.
        """
        h, graph = self._checked(x)
        context = self.context(graph)
        made: list[Tensor] = []
        *hidden, last = self.layers
        for layer in hidden:
            made.append(self.activation(layer(h, context)))
            h = self.dropout(made[-1])
        return [*made, self.finish(last(h, context), context)]

    def embed(self, x: NodeInput) -> Tensor:
        """The last layer's input before dropout ``[n, width]``; the features themselves where there is one layer."""
        return [x.features, *self.representations(x)][-2]

    def forward(self, x: NodeInput) -> Tensor:
        """Logits ``[n, classes]``."""
        return self.representations(x)[-1]

    def _stack(self, make: Callable[[int, int, bool], nn.Module]) -> nn.ModuleList:
        """The layers, by a rule that is given inputs, outputs and whether it is the last."""
        config = self.config
        sizes = [config["features"], *[config["width"]] * (config["depth"] - 1), config["classes"]]
        pairs = list(itertools.pairwise(sizes))
        return nn.ModuleList(make(i, o, k == len(pairs) - 1) for k, (i, o) in enumerate(pairs))

    def _checked(self, x: NodeInput) -> NodeInput:
        kind, expected = type(self).__name__, self.config["features"]
        if not isinstance(x, NodeInput):
            raise ValueError(f"{kind} was given a {type(x).__name__}; give NodeInput(features, graph).")
        if x.features.dim() != 2 or x.features.shape != (x.graph.n, expected):
            raise ValueError(
                f"{kind} was built for features [{x.graph.n}, {expected}] on this graph but got "
                f"{list(x.features.shape)}; build it with the features of your nodes, one row for each."
            )
        return x


# --- one fixed filter
# -----------------------------------------------------------------------------------------------------


class _Filtered(nn.Module):
    """``C(x) W + b``."""

    def __init__(self, inputs: int, outputs: int, start: Start) -> None:
        super().__init__()
        self.linear = Weight(inputs, outputs, start=start)

    def forward(self, x: Tensor, context: Filter) -> Tensor:
        return self.linear.after(context, x)


class NodeMLP(GraphNet):
    """A perceptron on the features alone; the graph is not used. ``C = I``.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share dropped between layers.
        activation: Nonlinearity.
        start: How weights are drawn.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        start: Start = Start.FAN_IN,
    ) -> None:
        start = choice(Start, start, "start")
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            start=start.value,
        )
        self.layers = self._stack(lambda i, o, _: _Filtered(i, o, start))

    def context(self, graph: Adjacency) -> Filter:
        """The identity."""
        return lambda x: x


class GCN(GraphNet):
    """The graph convolutional network (Kipf & Welling, ICLR 2017): ``C = D^-1/2 (A + I) D^-1/2``.

    The test network of the condensation literature with ``width=256, depth=2`` and, for its own starting weights,
    ``start=Start.FAN_IN``.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share dropped between layers.
        activation: Nonlinearity.
        start: How weights are drawn.
        normalise: Off for a graph that is normalised already, such as one of `filters.diffused`: then ``C = A``.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        start: Start = Start.GLOROT,
        normalise: bool = True,
    ) -> None:
        start = choice(Start, start, "start")
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            start=start.value,
            normalise=normalise,
        )
        self.normalise = normalise
        self.layers = self._stack(lambda i, o, _: _Filtered(i, o, start))

    def context(self, graph: Adjacency) -> Filter:
        """The product with the normalised graph."""
        normalised = graph.normalised() if self.normalise else graph
        return lambda x: normalised @ x


class SGC(GraphNet):
    """Simplified graph convolutions (Wu et al., ICML 2019): every layer propagates `hops` times, ``C = GCN's^hops``.

    The published network has one layer. Its bias is added after the propagation; GCond's SGC adds it before, which is
    `APPNP` with ``depth=1, hops=2, restart=0.0`` (and its SGC of several layers, that with a larger depth).

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share dropped between layers.
        activation: Nonlinearity between layers.
        start: How weights are drawn.
        hops: K.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 1,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        start: Start = Start.FAN_IN,
        hops: int = 2,
    ) -> None:
        start = choice(Start, start, "start")
        _check_whole("hops", hops)
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            start=start.value,
            hops=hops,
        )
        self.hops = hops
        self.layers = self._stack(lambda i, o, _: _Filtered(i, o, start))

    def context(self, graph: Adjacency) -> Filter:
        """The products with the normalised graph."""
        normalised = graph.normalised()
        return lambda x: filters.propagate(normalised, x, self.hops)


class GDC(GraphNet):
    """Graph diffusion convolution (Klicpera et al., NeurIPS 2019): ``C = sum_k theta_k T^k``, T the filter of `GCN`.

    The series is applied to the features product by product, so that it runs on any graph and S is never made; the
    paper also keeps the largest entries of S only, which is a preprocessing: `filters.diffused`.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share dropped between layers.
        activation: Nonlinearity between layers.
        diffusion: How theta falls.
        strength: The chance to go back, 0.15 in the paper, or the time of the heat kernel, 5 in the paper.
        terms: Steps walked; the last has the weight of all further ones.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        diffusion: Diffusion = Diffusion.PPR,
        strength: float = 0.15,
        terms: int = 20,
    ) -> None:
        diffusion = choice(Diffusion, diffusion, "diffusion")
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            diffusion=diffusion.value,
            strength=strength,
            terms=terms,
        )
        self.coefficients = filters.diffusion_coefficients(diffusion, strength, terms)
        self.layers = self._stack(lambda i, o, _: _Filtered(i, o, Start.GLOROT))

    def context(self, graph: Adjacency) -> Filter:
        """The diffusion."""
        transition = graph.normalised()
        return lambda x: filters.diffuse(transition, x, self.coefficients)


class Polynomial(GraphNet):
    """The family that filters are searched in: ``C = sum_k coefficients[k] T_k(L)``, the same in every layer.

    The coefficients are hyperparameters, not trained with the weights: a buffer, which a functional call may replace
    by a tensor that requires a gradient (for a `Net`, ``net(theta, x, statistics={"coefficients": c})``).
    HCDC's two-parameter filters are `filters.two_parameter`; the default ``(1, -1)`` is ``I + D^-1/2 A D^-1/2``.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share dropped between layers.
        activation: Nonlinearity between layers.
        coefficients: Where they start, order + 1 numbers.
        lambda_max: The Laplacian's largest eigenvalue; 2 bounds it.

    Raises:
        ValueError: If there is no coefficient or lambda_max is not above 0.
    """

    coefficients: Tensor

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        coefficients: Sequence[float] = (1.0, -1.0),
        lambda_max: float = 2.0,
    ) -> None:
        if not len(coefficients) or not lambda_max > 0:
            raise ValueError("A polynomial filter has no coefficient or no scale; give at least 1 and lambda_max > 0.")
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            coefficients=[float(c) for c in coefficients],
            lambda_max=lambda_max,
        )
        self.lambda_max = lambda_max
        self.register_buffer("coefficients", torch.tensor(self.config["coefficients"]))
        self.layers = self._stack(lambda i, o, _: _Filtered(i, o, Start.GLOROT))

    def context(self, graph: Adjacency) -> Filter:
        """The polynomial."""
        coefficients = self.coefficients
        return lambda x: filters.chebyshev(graph, x, coefficients, lambda_max=self.lambda_max)


class APPNP(GraphNet):
    """Predict, then propagate (Klicpera et al., ICLR 2019): a perceptron's logits H, then a PageRank of them.

    ``Z_0 = H`` and ``Z_(k+1) = (1 - restart) C Z_k + restart H`` with the filter C of `GCN`. With ``restart=0.0`` it is
    ``C^hops H``, the SGC of GCond's code, see `SGC`.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers of the perceptron.
        dropout: Share dropped between layers.
        activation: Nonlinearity between layers.
        hops: How often is propagated.
        restart: The chance to go back, in [0, 1].

    Raises:
        ValueError: If the chance is not one.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        hops: int = 10,
        restart: float = 0.1,
    ) -> None:
        _check_whole("hops", hops)
        if not 0 <= restart <= 1:
            raise ValueError(f"A restart with chance {restart} is impossible; give a number from 0 to 1.")
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            hops=hops,
            restart=restart,
        )
        self.hops, self.restart = hops, restart
        self.layers = self._stack(lambda i, o, _: _Plain(i, o))

    def context(self, graph: Adjacency) -> Adjacency:
        """The normalised graph."""
        return graph.normalised()

    def finish(self, logits: Tensor, context: Any) -> Tensor:
        """The propagated logits."""
        result = logits
        for _ in range(self.hops):
            result = context @ result
            if self.restart:
                result = (1 - self.restart) * result + self.restart * logits
        return result


class _Plain(nn.Module):
    """A linear layer that does not look at the graph."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = Weight(inputs, outputs, start=Start.FAN_IN)

    def forward(self, x: Tensor, _: Any) -> Tensor:
        return self.linear(x)


# --- several filters
# ------------------------------------------------------------------------------------------------------


class _Chebyshev(nn.Module):
    """``sum_k T_k(L) x W_k + b``."""

    def __init__(self, inputs: int, outputs: int, terms: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(Weight(inputs, outputs, bias=k == 0) for k in range(terms))

    def forward(self, x: Tensor, context: Adjacency) -> Tensor:
        terms = filters.chebyshev_terms(context, _strided(x), len(self.linears))
        first, *rest = (linear(term) for linear, term in zip(self.linears, terms, strict=True))
        for part in rest:
            first = first + part
        return first


class ChebNet(GraphNet):
    """Chebyshev networks (Defferrard et al., NeurIPS 2016): ``sum_k T_k(L) X W_k`` over `terms` polynomials.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share dropped between layers.
        activation: Nonlinearity between layers.
        terms: K as PyTorch Geometric counts it: the degree is K - 1, and K = 1 does not look at the graph.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        terms: int = 2,
    ) -> None:
        _check_whole("terms", terms)
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            terms=terms,
        )
        self.layers = self._stack(lambda i, o, _: _Chebyshev(i, o, terms))

    def context(self, graph: Adjacency) -> Adjacency:
        """The graph: its Laplacian is computed once for a graph that is not learned."""
        return graph


class _Sage(nn.Module):
    """``W_1 aggregate(neighbours) + W_2 x + b``."""

    def __init__(self, inputs: int, outputs: int, aggregation: Aggregation) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.neighbours = Weight(inputs, outputs, start=Start.FAN_IN)
        self.own = Weight(inputs, outputs, start=Start.FAN_IN, bias=False)

    def forward(self, x: Tensor, context: Adjacency) -> Tensor:
        if self.aggregation is Aggregation.MAX:
            return self.neighbours(filters.maximum(context, _strided(x))) + self.own(x)
        return self.neighbours.after(lambda h: context @ h, x) + self.own(x)


class SAGE(GraphNet):
    """GraphSAGE (Hamilton et al., NeurIPS 2017), with the mean or the maximum over all neighbours.

    On a weighted graph the mean is weighted, ``D^-1 A``, and the maximum is that of the messages ``w_ij x_j`` from the
    nodes with w != 0 (`filters.maximum`). A node without neighbours aggregates zeros.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers.
        depth: Layers.
        dropout: Share dropped between layers.
        activation: Nonlinearity between layers.
        aggregation: Which of the two.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        aggregation: Aggregation = Aggregation.MEAN,
    ) -> None:
        aggregation = choice(Aggregation, aggregation, "aggregation")
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            aggregation=aggregation.value,
        )
        self.aggregation = aggregation
        self.layers = self._stack(lambda i, o, _: _Sage(i, o, aggregation))

    def context(self, graph: Adjacency) -> Adjacency:
        """The graph divided by its degrees, or as it is for the maximum."""
        if self.aggregation is Aggregation.MAX:
            return graph
        return graph.normalised(self_loops=False, kind=Normalisation.ROW)


class _Gin(nn.Module):
    """``MLP((1 + epsilon) x + A x)``."""

    epsilon: Tensor | float

    def __init__(self, inputs: int, hidden: int, outputs: int, *, activation: nn.Module, learn_epsilon: bool) -> None:
        super().__init__()
        self.first = Weight(inputs, hidden, start=Start.FAN_IN)
        self.second = Weight(hidden, outputs, start=Start.FAN_IN)
        self.activation = activation
        self.epsilon = nn.Parameter(torch.zeros(1)) if learn_epsilon else 0.0

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Epsilon starts at 0; nothing of this layer's own is random."""
        if isinstance(self.epsilon, nn.Parameter):
            nn.init.zeros_(self.epsilon)

    def forward(self, x: Tensor, context: Adjacency) -> Tensor:
        hidden = self.first.after(lambda h: (1 + self.epsilon) * h + context @ h, x)
        return self.second(self.activation(hidden))


class GIN(GraphNet):
    """The graph isomorphism network (Xu et al., ICLR 2019): a perceptron of two layers on (weighted) sums.

    ``MLP((1 + epsilon) x_i + sum_j w_ij x_j)``, with epsilon learned (GIN-epsilon) or 0 (GIN-0).

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers and inside the perceptrons.
        depth: Layers, each a perceptron of two.
        dropout: Share dropped between layers.
        activation: Nonlinearity.
        learn_epsilon: Whether epsilon is a parameter.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        learn_epsilon: bool = True,
    ) -> None:
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            learn_epsilon=learn_epsilon,
        )
        inner = self.activation
        self.layers = self._stack(lambda i, o, _: _Gin(i, width, o, activation=inner, learn_epsilon=learn_epsilon))

    def context(self, graph: Adjacency) -> Adjacency:
        """The graph as it is."""
        return graph


# --- attention
# ------------------------------------------------------------------------------------------------------------


class _Gat(nn.Module):
    """Heads side by side, each a mean of its neighbours' values by additive attention."""

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear = Weight(inputs, outputs, bias=False)
        self.source = nn.Parameter(torch.empty(heads, outputs // heads))
        self.target = nn.Parameter(torch.empty(heads, outputs // heads))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the attention's vectors by Glorot's rule; the bias starts at 0."""
        bound = math.sqrt(6 / sum(self.source.shape))
        for parameter, limit in ((self.source, bound), (self.target, bound), (self.bias, 0.0)):
            _uniform(parameter, limit, generator)

    def forward(self, x: Tensor, context: Adjacency) -> Tensor:
        values = self.linear(x).unflatten(1, (self.heads, -1))
        scores = filters.Additive((values * self.source).sum(-1), (values * self.target).sum(-1))
        return filters.attend(context, scores, values).flatten(1) + self.bias


class GAT(GraphNet):
    """Graph attention (Veličković et al., ICLR 2018) over the neighbours and the node itself.

    Hidden layers have `heads` side by side, of ``width / heads`` features each; the last has one. The weight of an
    edge multiplies inside the softmax, ``w_ij exp(e_ij) / sum_k w_ik exp(e_ik)``, where it has a gradient even at 0
    (`filters.attend`); the node itself weighs 1.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers, of all heads together.
        depth: Layers.
        dropout: Share of the features dropped between layers (not of the attention).
        activation: Nonlinearity between layers.
        heads: Of a hidden layer.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        heads: int = 8,
    ) -> None:
        _check_heads(width, heads)
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            heads=heads,
        )
        self.layers = self._stack(lambda i, o, last: _Gat(i, o, 1 if last else heads))

    def context(self, graph: Adjacency) -> Adjacency:
        """The graph with every node its own neighbour."""
        return graph.with_self_loops()


class _Transformer(nn.Module):
    """Dot-product attention, and the node's own features by a further matrix."""

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.own = (Weight(inputs, outputs, start=Start.FAN_IN) for _ in range(4))

    def forward(self, x: Tensor, context: Adjacency | None) -> Tensor:
        query, key, value = (linear(x).unflatten(1, (self.heads, -1)) for linear in (self.query, self.key, self.value))
        return filters.attend(context, filters.DotProduct(query, key), value).flatten(1) + self.own(x)


class GraphTransformer(GraphNet):
    """A graph transformer: dot-product attention over the neighbours (Shi et al., IJCAI 2021) or over all nodes.

    A layer is ``softmax(Q K^T / sqrt(d)) V + X W``, as PyTorch Geometric's ``TransformerConv``. Heads are as in `GAT`,
    and so is what the weight of an edge does.

    Args:
        features: Features of a node.
        classes: Outputs.
        width: Features between the layers, of all heads together.
        depth: Layers.
        dropout: Share of the features dropped between layers (not of the attention).
        activation: Nonlinearity between layers.
        heads: Of a hidden layer.
        reach: Whom a node attends to.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        activation: Activation = Activation.RELU,
        heads: int = 8,
        reach: Reach = Reach.NEIGHBOURS,
    ) -> None:
        _check_heads(width, heads)
        reach = choice(Reach, reach, "reach")
        super().__init__(
            features=features,
            classes=classes,
            width=width,
            depth=depth,
            dropout=dropout,
            activation=activation,
            heads=heads,
            reach=reach.value,
        )
        self.reach = reach
        self.layers = self._stack(lambda i, o, last: _Transformer(i, o, 1 if last else heads))

    def context(self, graph: Adjacency) -> Adjacency | None:
        """The graph, or ``None`` where everyone is attended to."""
        return graph if self.reach is Reach.NEIGHBOURS else None


# --- the zoo
# --------------------------------------------------------------------------------------------------------------

GRAPH: dict[str, type[GraphNet]] = {
    net.__name__: net for net in (GCN, SAGE, GAT, GIN, SGC, ChebNet, APPNP, GDC, GraphTransformer, NodeMLP, Polynomial)
}

VARIANTS: dict[str, dict[str, Any]] = {
    "GCN": {"net": "GCN"},
    "SAGE-mean": {"net": "SAGE", "aggregation": "mean"},
    "SAGE-max": {"net": "SAGE", "aggregation": "max"},
    "GAT": {"net": "GAT"},
    "GIN-eps": {"net": "GIN", "learn_epsilon": True},
    "GIN-0": {"net": "GIN", "learn_epsilon": False},
    "SGC-2": {"net": "SGC", "hops": 2},
    "SGC-3": {"net": "SGC", "hops": 3},
    "Cheb-2": {"net": "ChebNet", "terms": 2},
    "Cheb-3": {"net": "ChebNet", "terms": 3},
}
"""The kinds of network of HCDC's appendix J: a class of `GRAPH` and some of its arguments."""


def candidates(
    *, features: int, classes: int, widths: Sequence[int] = (128, 256), depths: Sequence[int] = (2, 4)
) -> Iterator[tuple[str, GraphNet]]:
    """The discrete search space of HCDC (appendix J): ten kinds of network at each width and depth, 40 by default.

    Args:
        features: Features of a node.
        classes: Outputs.
        widths: Widths, multiples of 8 (GAT's heads).
        depths: Depths.

    Yields:
        A name, such as ``"GAT 2x128"``, and the network.

    Example:
        >>> [name for name, _ in candidates(features=4, classes=2, widths=(8,), depths=(2,))][:2]
        ['GCN 2x8', 'SAGE-mean 2x8']
    """
    for (name, variant), width, depth in itertools.product(VARIANTS.items(), widths, depths):
        options = {key: value for key, value in variant.items() if key != "net"}
        with torch.random.fork_rng(devices=[]):  # the layers' first weights are PyTorch's own draw
            net = GRAPH[variant["net"]](features=features, classes=classes, width=width, depth=depth, **options)
        yield f"{name} {depth}x{width}", net


def _uniform(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Draw in place, by the CPU's generator wherever the parameter is."""
    with torch.no_grad():
        if bound == 0:
            parameter.zero_()
        elif parameter.device.type in ("cpu", "meta"):
            parameter.uniform_(-bound, bound, generator=generator)
        else:
            drawn = torch.empty(parameter.shape, dtype=parameter.dtype)
            parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def _strided(x: Tensor) -> Tensor:
    return x if x.layout is torch.strided else x.to_dense()


def _check_whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}.")


def _check_heads(width: int, heads: int) -> None:
    _check_whole("heads", heads)
    _check_whole("width", width)
    if width % heads:
        raise ValueError(f"{heads} heads cannot share a width of {width}; choose a width that is a multiple of them.")
