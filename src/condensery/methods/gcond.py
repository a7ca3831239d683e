"""GCond: gradient matching for graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap

from condensery.adjacency import Adjacency, NodeInput
from condensery.data.graph_batches import ClassBatch, ClassBatches
from condensery.loop import with_gradient
from condensery.methods.matching import layerwise_distance
from condensery.net import Net
from condensery.nets.graph import APPNP, GCN, GDC, SGC, GraphNet, NodeMLP, Polynomial, compressed

if TYPE_CHECKING:
    from condensery.data.graphs import GraphData
    from condensery.graph import Graph

__all__ = [
    "Distance",
    "GCond",
    "Life",
    "Linear",
    "Propagated",
    "check_loops",
    "constant",
    "cosine_distance",
    "learned_graph",
    "mean_gradient",
    "squared_distance",
    "two_rates",
]

Distance: TypeAlias = Callable[[Net, Tensor, Tensor], Tensor]
"""Of two gradients ``[net.size]``: a scalar. `layerwise_distance`, `squared_distance` or `cosine_distance`."""


def squared_distance(net: Net, a: Tensor, b: Tensor) -> Tensor:
    """The squared difference of two gradients ``[net.size]``, biases included: "mse" in GCond's code."""
    return (a - b).square().sum()


def cosine_distance(net: Net, a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of two gradients ``[net.size]`` as whole vectors, biases included: "cos" in GCond's code."""
    return 1 - (a @ b) / (a.norm() * b.norm() + 1e-6)


@dataclass
class GCond:
    """Gradient matching for graphs (Jin et al., ICLR 2022, https://arxiv.org/abs/2110.07580), algorithm 1.

    For each class c, with theta the state of a network that is being trained on the synthetic graph, and n'_c
    synthetic nodes of the class,

        loss = sum_c n'_c / max n' * D( grad_theta L_c^real(theta), grad_theta L_c^syn(theta) ),

    with D the layer-wise cosine distance. One call is one matching step. A network lives for `outer` of them, an epoch;
    between two it takes `inner` steps of Adam on the whole synthetic graph, at the start of the next call, so that it
    sees the updated graph. Features and structure take turns: the first 10 epochs of each 50 move the structure,
    the others the features, and the gradient is that of the part whose turn it is. On a graph whose structure has no
    parameters, such as `IdentityAdjacency` (this makes it GCond-X), all epochs move the features.

    Where a network with one layer propagates linearly, as SGC does, all gradients have closed forms (`Linear`), and the
    real features are propagated once, exactly. Other networks see real nodes with sampled or whole neighbourhoods.

    Args:
        net: The architecture.
        data: The real graph; in the inductive setting its training subgraph is seen.
        generator: A CPU generator for networks and batches.
        outer: Matching steps in a network's life.
        inner: Steps of training between them.
        batch_real: Real nodes of each class in a step, or ``None`` for all.
        fanouts: Neighbours taken at each distance, ``None`` for all: see `ClassBatches`.
        scaled: Whether neighbours that are taken stand for those that are not; not so in the authors' code.
        propagate_once: Whether real features are propagated once and exactly where that is possible, rather than along
            the neighbours that are drawn at each step.
        distance: D.
        lr_net: Learning rate of the inner training.
        lr_features: Learning rate of the features.
        lr_structure: Learning rate of the structure's parameters.
        alternation: Of how many epochs the first move the structure, (10, 50); ``None`` moves both at every step.

    Raises:
        ValueError: For numbers of steps or epochs that are out of range.
    """

    net: Net
    data: GraphData
    generator: torch.Generator
    _: KW_ONLY
    outer: int = 20
    inner: int = 15
    batch_real: int | None = 256
    fanouts: Sequence[int | None] = (10, 5)
    scaled: bool = True
    propagate_once: bool = False
    distance: Distance = layerwise_distance
    lr_net: float = 0.01
    lr_features: float = 1e-4
    lr_structure: float = 1e-4
    alternation: tuple[int, int] | None = (10, 50)
    _life: Life | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_loops(self.outer, self.inner, self.alternation)

    def __call__(self, synthetic: Graph) -> Tensor:
        """The loss at the synthetic graph for the network as it is after its training on it so far."""
        life = Life.next(self._life, self.outer)
        x, y = learned_graph(synthetic, life.epoch, self.alternation)
        if self._linear is not None:
            return self._matched_linearly(life, self._linear, synthetic, x, y)
        still = constant(x)
        self._life = life.advanced(self.net, self.generator, x.features, self._training(still, y), self._rates)
        return self._matched(self._life.at(), synthetic, x, y)

    def optimizer(self, synthetic: Graph) -> torch.optim.Optimizer:
        """Adam on the features and on the structure's parameters, each with its learning rate."""
        return two_rates(synthetic, self.lr_features, self.lr_structure)

    def state_dict(self) -> dict[str, Any]:
        """The network in training, its optimizer and how far its life is."""
        return {"life": None if self._life is None else self._life.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._life = None if state["life"] is None else Life(**state["life"])

    @property
    def _rates(self) -> tuple[int, float]:
        return self.inner, self.lr_net

    @cached_property
    def _linear(self) -> Linear | None:
        return Linear(self.net) if Linear.fits(self.net) else None

    @cached_property
    def _batches(self) -> ClassBatches:
        return ClassBatches(self.data, size=self.batch_real, fanouts=self.fanouts, scaled=self.scaled)

    @cached_property
    def _kept(self) -> dict[tuple[int, torch.dtype], ClassBatch]:
        """Batches that are the same at every step."""
        return {}

    # --- any network

    def _training(self, x: NodeInput, y: Tensor) -> Callable[[Tensor], Tensor]:
        """The gradient of the inner training's loss, as a function of the parameters."""
        return lambda theta: mean_gradient(self.net, theta, x, y)

    def _matched(self, theta: Tensor, synthetic: Graph, x: NodeInput, y: Tensor) -> Tensor:
        """Class by class: the graph of one second derivative is in memory at a time, and that of the first forward."""
        inputs, leaf = _leaves(x)
        theta = theta.detach().requires_grad_()
        with torch.enable_grad():
            logits = _logits(self.net, theta, leaf)
        held = [t for t in (leaf.features, _weights_of(leaf.graph)) if t is not None and t.requires_grad]
        value, total = logits.new_zeros(()), [torch.zeros_like(t) for t in held]
        for c, rows in synthetic.rows().items():
            target = self._real_gradient(theta.detach(), c)
            with torch.enable_grad():
                ours = F.cross_entropy(logits[rows], y[rows])
                (gradient,) = torch.autograd.grad(ours, theta, create_graph=True)
                term = _share(synthetic, c) * self.distance(self.net, gradient, target)
                parts = torch.autograd.grad(term, held, retain_graph=True, materialize_grads=True)
            value = value + term.detach()
            total = [t + part for t, part in zip(total, parts, strict=True)]
        return with_gradient(value, inputs, total)

    def _real_gradient(self, theta: Tensor, c: int) -> Tensor:
        """The gradient ``[net.size]`` of the mean cross entropy of real nodes of class c."""
        x, size = self._real(c, theta.dtype)
        truth = torch.full((size,), c, device=theta.device)
        return mean_gradient(self.net, theta, x, truth)

    def _real(self, c: int, dtype: torch.dtype) -> ClassBatch:
        if (c, dtype) in self._kept:
            return self._kept[c, dtype]
        (features, graph), size = self._batches.draw(c, self.generator)
        fixed = self._batches.is_fixed(c)
        features = features.to(dtype)
        if fixed or features.device.type == "cpu":  # looking how full they are waits for a device
            features = compressed(features)
        batch = ClassBatch(NodeInput(features, graph), size)
        if fixed:
            self._kept[c, dtype] = batch
        return batch

    # --- a linear one

    def _matched_linearly(self, life: Life, linear: Linear, synthetic: Graph, x: NodeInput, y: Tensor) -> Tensor:
        """The same with everything propagated once: the real nodes for good, the synthetic ones at this step."""
        rows = linear.propagated(x)
        still = Propagated(rows.features.detach(), rows.ones.detach())

        def training(theta: Tensor) -> Tensor:
            return linear.gradient(theta, still, y)

        self._life = life.advanced(self.net, self.generator, x.features, training, self._rates)
        theta, places = self._life.at(), synthetic.rows()
        target = torch.stack(self._real_linear_gradients(linear, theta, list(places)))
        ours = linear.group_gradients(theta, rows, y, list(places.values()))
        terms = vmap(partial(self.distance, self.net))(ours, target)
        shares = [_share(synthetic, c) for c in places]
        return sum((share * term for share, term in zip(shares, terms, strict=True)), start=terms.new_zeros(()))

    def _real_linear_gradients(self, linear: Linear, theta: Tensor, classes: list[int]) -> list[Tensor]:
        rows = self._real_rows if self.propagate_once else self._sampled_rows
        found = []
        for c, members in zip(classes, rows(linear, theta.dtype, classes), strict=True):
            truth = torch.full((len(members.features),), c, device=theta.device)
            found.append(linear.gradient(theta, members, truth))
        return found

    def _real_rows(self, linear: Linear, dtype: torch.dtype, classes: list[int]) -> list[Propagated]:
        """Propagated features of training nodes of each class, at most as many as are in a batch."""
        if dtype not in self._propagated:
            view = self.data.training_view()
            members = [view.members(c) for c in range(view.num_classes)]
            every = linear.propagated(NodeInput(view.x.to(dtype), view.adjacency), torch.cat(members))
            self._propagated[dtype] = every.split([len(part) for part in members])
        return [self._drawn(self._propagated[dtype][c]) for c in classes]

    def _drawn(self, members: Propagated) -> Propagated:
        count = len(members.features)
        if self.batch_real is None or count <= self.batch_real:
            return members
        order = torch.randperm(count, generator=self.generator)[: self.batch_real]
        return members.rows(order.to(members.features.device, non_blocking=True))

    def _sampled_rows(self, linear: Linear, dtype: torch.dtype, classes: list[int]) -> list[Propagated]:
        """The same with the neighbours of this step: one draw for all classes, which may share neighbours."""
        chosen = [self._batches.choose(c, self.generator) for c in classes]
        features, graph = self._batches.around(torch.cat(chosen), self.generator)
        first = torch.arange(sum(len(part) for part in chosen), device=features.device)
        return linear.propagated(NodeInput(features.to(dtype), graph), first).split([len(part) for part in chosen])

    @cached_property
    def _propagated(self) -> dict[torch.dtype, list[Propagated]]:
        return {}


# --- the network in training


@dataclass(frozen=True, eq=False)
class Life:
    """A network from its draw to the next one: its parameters, Adam's moments, and how old it is.

    It is never changed, a later state is another object.

    Attributes:
        epoch: Networks before this one.
        turn: Matching steps before this one in the network's life.
        theta: Parameters ``[net.size]``, or ``None`` before the first step.
        mean: Adam's first moment ``[net.size]``.
        square: Adam's second moment ``[net.size]``.
        count: Steps of Adam so far.
    """

    epoch: int = 0
    turn: int = 0
    theta: Tensor | None = None
    mean: Tensor | None = None
    square: Tensor | None = None
    count: int = 0

    @classmethod
    def next(cls, life: Life | None, outer: int) -> Life:
        """The age at the next matching step; the parameters are still those of the last."""
        if life is None:
            return cls()
        if life.turn + 1 >= outer:
            return cls(epoch=life.epoch + 1)
        return replace(life, turn=life.turn + 1)

    def advanced(
        self,
        net: Net,
        generator: torch.Generator,
        like: Tensor,
        gradient: Callable[[Tensor], Tensor],
        training: tuple[int, float],
    ) -> Life:
        """With the parameters of this step: drawn, or trained by Adam from those of the step before.

        Args:
            net: The architecture.
            generator: A CPU generator, for the draw.
            like: Gives device and precision.
            gradient: Of the training's loss ``[net.size]``, at parameters.
            training: Steps and learning rate.
        """
        steps, lr = training
        if self.theta is None:
            return replace(self, theta=net.init(generator, device=like.device).to(like.dtype))
        if steps == 0:
            return replace(self, theta=self.theta.to(like))
        theta, count = self.theta.to(like), self.count
        mean = torch.zeros_like(theta) if self.mean is None else self.mean.to(like).clone()
        square = torch.zeros_like(theta) if self.square is None else self.square.to(like).clone()
        for _ in range(steps):
            g = gradient(theta)
            count += 1
            mean.lerp_(g, 0.1)
            square.mul_(0.999).addcmul_(g, g, value=0.001)
            spread = (square / (1 - 0.999**count)).sqrt_().add_(1e-8)
            theta = torch.addcdiv(theta, mean, spread, value=-lr / (1 - 0.9**count))
        return replace(self, theta=theta, mean=mean, square=square, count=count)

    def at(self) -> Tensor:
        """The parameters ``[net.size]``."""
        assert self.theta is not None
        return self.theta

    def state_dict(self) -> dict[str, Any]:
        """The fields, for a snapshot."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def check_loops(outer: int, inner: int, alternation: tuple[int, int] | None) -> None:
    """Refuse loops and turns that never match anything.

    Raises:
        ValueError: Naming them.
    """
    if outer < 1 or inner < 0:
        raise ValueError(f"outer={outer} and inner={inner} match nothing; give an outer of at least 1, an inner of 0.")
    if alternation is not None and (alternation[1] < 1 or not 0 <= alternation[0] <= alternation[1]):
        raise ValueError(
            f"alternation is {alternation}; give how many of how many epochs move the structure, such as (10, 50)."
        )


# --- the synthetic graph


def learned_graph(synthetic: Graph, epoch: int, alternation: tuple[int, int] | None) -> tuple[NodeInput, Tensor]:
    """The synthetic nodes, differentiable in the part whose turn it is, and their labels, which are constant.

    Args:
        synthetic: The graph.
        epoch: Counted from 0.
        alternation: Of how many epochs the first move the structure; ``None`` for both at once.
    """
    held: dict[str, Tensor] = dict(synthetic.adjacency.named_parameters())
    structure, features = True, True
    if alternation is not None and held:
        structure = epoch % alternation[1] < alternation[0]
        features = not structure
    values = synthetic.values if features else synthetic.values.detach()
    parameters = {name: p if structure else p.detach() for name, p in held.items()}
    graph = functional_call(synthetic.adjacency, parameters, (values,))
    y = synthetic.soft_labels()
    return NodeInput(values, graph), synthetic.classes if y is None else y.detach()


def two_rates(synthetic: Graph, features: float, structure: float) -> torch.optim.Optimizer:
    """Adam with a learning rate for the features and one for the structure's parameters.

    It leaves parameters without a gradient and their moments alone, so parts that take turns do not see each other's.

    Args:
        synthetic: The graph. Labels and a step size are not moved.
        features: Rate of the features.
        structure: Rate of the structure.
    """
    groups: list[dict[str, Any]] = [{"params": [synthetic.values], "lr": features}]
    held = list(synthetic.adjacency.parameters())
    return torch.optim.Adam([*groups, {"params": held, "lr": structure}] if held else groups)


def _share(synthetic: Graph, c: int) -> float:
    """Nodes of class c over those of the largest class."""
    sizes = {c: rows.stop - rows.start for c, rows in synthetic.rows().items()}
    return sizes[c] / max(sizes.values())


def _weights_of(graph: Adjacency) -> Tensor | None:
    return graph.matrix if graph.matrix is not None else graph.weights


def _with_weights(graph: Adjacency, weights: Tensor | None) -> Adjacency:
    if weights is None:
        return graph
    if graph.is_dense:
        return Adjacency.dense_matrix(weights)
    assert graph.edges is not None
    return Adjacency.sparse(graph.edges, graph.n, weights)


def constant(x: NodeInput) -> NodeInput:
    """The same nodes, constant, so that what is derived from their graph is kept."""
    weights = _weights_of(x.graph)
    return NodeInput(x.features.detach(), _with_weights(x.graph, None if weights is None else weights.detach()))


def _leaves(x: NodeInput) -> tuple[list[Tensor], NodeInput]:
    """The tensors of x that gradients must reach, and the same nodes with leaves in their place."""
    weights = _weights_of(x.graph)
    inputs = [t for t in (x.features, weights) if t is not None and t.requires_grad]
    features = x.features.detach().requires_grad_(x.features.requires_grad)
    if weights is not None:
        weights = weights.detach().requires_grad_(weights.requires_grad)
    return inputs, NodeInput(features, _with_weights(x.graph, weights))


def _logits(net: Net, theta: Tensor, x: NodeInput) -> Tensor:
    return net(theta, x)  # type: ignore[arg-type]  # what a network is given is opaque to it


def mean_gradient(net: Net, theta: Tensor, x: NodeInput, y: Tensor) -> Tensor:
    """The gradient ``[net.size]`` of the mean cross entropy of the first ``len(y)`` nodes."""
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(F.cross_entropy(_logits(net, leaf, x)[: len(y)], y), leaf)
    return gradient


# --- networks that are linear in the propagated features


@dataclass(frozen=True, eq=False)
class Propagated:
    """What a linear network makes its logits of: ``features W^T + ones b^T``.

    Attributes:
        features: Propagated features ``[n, d]``.
        ones: What becomes of the number 1 ``[n, 1]``.
    """

    features: Tensor
    ones: Tensor

    def rows(self, where: slice | Tensor) -> Propagated:
        """Some of the nodes."""
        return Propagated(self.features[where], self.ones[where])

    def split(self, sizes: list[int]) -> list[Propagated]:
        """The nodes in groups of these sizes."""
        parts = zip(self.features.split(sizes), self.ones.split(sizes), strict=True)
        return [Propagated(features, ones) for features, ones in parts]


class Linear:
    """A graph network of one layer that propagates linearly: its gradients in closed form.

    With C what the network does along the graph, its logits are ``(C X) W^T + b`` (GCN, SGC, GDC, Polynomial, NodeMLP)
    or ``C (X W^T + b)`` (APPNP). The gradient of the mean cross entropy over n nodes with P the softmax of the logits
    is ``(P - Y)^T (C X) / n`` and ``(P - Y)^T (C 1) / n``: first derivatives of it are all that gradient matching asks
    for.

    Args:
        net: Such a network, see `fits`.
    """

    _inside = (GCN, SGC, GDC, Polynomial, NodeMLP)

    def __init__(self, net: Net) -> None:
        self.net = net
        module = net.module
        assert isinstance(module, GraphNet)
        self.module = module
        self.weight, self.bias = "layers.0.linear.weight", "layers.0.linear.bias"

    @classmethod
    def fits(cls, net: Net) -> bool:
        """Whether a network is of this kind."""
        module = net.module
        kinds = (*cls._inside, APPNP)
        return type(module) in kinds and isinstance(module, GraphNet) and module.config["depth"] == 1

    def propagated(self, x: NodeInput, index: Tensor | None = None) -> Propagated:
        """The nodes' features after propagation, differentiable.

        Args:
            x: The nodes.
            index: Those that are wanted, int64; all by default. Features then go along the graph in groups, so that
                memory is that of the result.
        """
        module, (features, graph) = self.module, x
        context = module.context(graph)
        ones = features.new_ones((len(features), 1))
        if index is None:
            return Propagated(self._along(context, features), self._along_ones(context, ones))
        parts = [self._along(context, part)[index] for part in features.split(256, 1)]
        return Propagated(torch.cat(parts, 1), self._along_ones(context, ones)[index])

    def gradient(self, theta: Tensor, rows: Propagated, y: Tensor) -> Tensor:
        """The gradient ``[net.size]`` of the mean cross entropy, differentiable in the propagated features.

        Args:
            theta: Parameters ``[net.size]``.
            rows: Propagated nodes.
            y: Their labels, int64 ``[n]`` or rows ``[n, classes]``.
        """
        excess = self._excess(theta, rows, y) / len(y)
        return self.net.flat({self.weight: excess.T @ rows.features, self.bias: excess.T @ rows.ones})

    def group_gradients(self, theta: Tensor, rows: Propagated, y: Tensor, groups: Sequence[slice]) -> Tensor:
        """`gradient` for each of some groups of nodes, ``[len(groups), net.size]``.

        One product for all groups: its arithmetic is that of each group with the rows of all, which is less than what a
        group's own small operations cost where nodes are as few as synthetic ones are.

        Args:
            theta: Parameters ``[net.size]``.
            rows: Propagated nodes.
            y: Their labels, int64 ``[n]`` or rows ``[n, classes]``.
            groups: Where each group lies among them.
        """
        excess, k = self._excess(theta, rows, y), len(groups)
        mean = excess.new_zeros((k, len(excess)))  # a row averages over a group
        for i, where in enumerate(groups):
            mean[i, where] = 1 / (where.stop - where.start)
        blocks = (mean[:, None] * excess.T).flatten(0, 1)
        parts = {self.weight: blocks @ rows.features, self.bias: blocks @ rows.ones}
        return torch.cat([parts[name].view(k, -1) for name in self.net.layers(theta)], 1)

    def _excess(self, theta: Tensor, rows: Propagated, y: Tensor) -> Tensor:
        """The derivative of each node's cross entropy by its logits, ``[n, classes]``."""
        layers = self.net.layers(theta)
        logits = torch.addmm(rows.ones * layers[self.bias], rows.features, layers[self.weight].T)
        p = logits.softmax(1)
        if y.is_floating_point():
            return p * y.sum(1, keepdim=True) - y
        return p.scatter_add(1, y[:, None], p.new_full((len(y), 1), -1.0))

    def _along(self, context: Any, features: Tensor) -> Tensor:
        module = self.module
        result: Tensor = module.finish(features, context) if isinstance(module, APPNP) else context(features)
        return result

    def _along_ones(self, context: Any, ones: Tensor) -> Tensor:
        return self._along(context, ones) if isinstance(self.module, APPNP) else ones
