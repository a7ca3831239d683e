"""What several test files use: tiny networks and data with known structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from condensery import nets
from condensery.data.graph_sets import GraphSet, graph_set
from condensery.data.graphs import GraphData, Split, graph_data
from condensery.data.labelled import Labelled
from condensery.data.whitening import Identity
from condensery.experts import Held, HeldConvexified, Waypoints, convexify_held
from condensery.net import Net
from condensery.nets.graph import SGC, GraphNet
from condensery.synthetic import Images


def blobs(*, classes: int = 3, per_class: int = 12, channels: int = 1, size: int = 8, seed: int = 0) -> Labelled:
    """Noisy images with a different bright square for each class: learnable in seconds."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(per_class)
    x = 0.2 * torch.randn(len(y), channels, size, size, generator=g)
    for c in range(classes):
        r, k = divmod(c, 2)
        x[y == c, :, 4 * r : 4 * r + 3, 4 * k : 4 * k + 3] += 1.0
    return Labelled(x, y, tuple(f"class {c}" for c in range(classes)), Identity())


def tiny_net(*, classes: int = 3, channels: int = 1, size: int = 8, width: int = 4, **options: object) -> Net:
    """A ConvNet of width 4 and depth 1."""
    settings: dict[str, object] = {"depth": 1, "activation": "softplus", "beta": 5.0, **options}
    return Net(nets.ConvNet(channels=channels, classes=classes, size=size, width=width, **settings))  # type: ignore[arg-type]


def tiny_images(data: Labelled, per_class: int | list[int] = 2, *, seed: int = 0, **options: object) -> Images:
    """Synthetic images that start from `data`."""
    return Images.from_real(data, per_class, torch.Generator().manual_seed(seed), **options)


FEW_EXPERTS = [
    "experts.count=1",
    "experts.steps=30",
    "inner_steps=3",
    "expert_epochs=2",
    "max_start=2",
    "start_every=1",
]
"""Settings of SFGC, and with a window GEOM, that take no time."""


def generator(seed: int = 0) -> torch.Generator:
    """A fresh CPU generator."""
    return torch.Generator().manual_seed(seed)


def trained(net: Net, data: Labelled, *, experts: int = 2, epochs: int = 4, lr: float = 0.3, seed: int = 0) -> Held:
    """Trajectories of full-batch gradient descent on `data`, one step an epoch, in the precision of its images."""
    x, y = data.whole() if data.x.dtype != torch.float32 else data.batch(torch.arange(len(data)))
    g, paths = generator(seed), []
    for _ in range(experts):
        path = [net.init(g).to(x)]
        for _ in range(epochs):
            theta = path[-1].clone().requires_grad_()
            loss = torch.nn.functional.cross_entropy(net(theta, x), y)
            path.append((theta - lr * torch.autograd.grad(loss, theta)[0]).detach())
        paths.append(torch.stack(path))
    return Held(torch.stack(paths))


def curved(net: Net, experts: Held, *, interior: int = 1) -> HeldConvexified:
    """The same trajectories convexified."""
    sizes = tuple(part.numel() for part in net.layers(experts.last(0)).values())
    return convexify_held(experts, sizes, Waypoints(interior=interior))


def numerical_gradient(function: object, p: Tensor, directions: int = 4, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Random directions ``[k, ...]`` and the central differences of `function()` along them, moving `p` in place."""
    g = generator(7)
    ds = torch.randn(directions, *p.shape, generator=g, dtype=p.dtype)
    slopes = []
    with torch.no_grad():
        for d in ds:
            p += eps * d
            up = function().detach()  # type: ignore[operator]
            p -= 2 * eps * d
            down = function().detach()  # type: ignore[operator]
            p += eps * d
            slopes.append((up - down) / (2 * eps))
    return ds, torch.stack(slopes)


def communities(*, n: int = 60, weighted: bool = False, inductive: bool = False) -> GraphData:
    """Three communities with noisy features; the graph helps. Half of the nodes train, unevenly over the classes."""
    g = generator(7)
    y = (torch.arange(n) % 6).clamp(max=2)
    chance = torch.where(y[:, None] == y, 0.3, 0.03)
    edges = (torch.rand(n, n, generator=g) < chance).triu(1).nonzero().T
    x = 0.7 * torch.randn(n, 4, generator=g)
    x[torch.arange(n), y] += 1
    order = torch.randperm(n, generator=g)
    split = Split(*(part.sort().values for part in order.split([30, 15, 15])))
    weights = 0.5 + torch.rand(edges.shape[1], generator=g) if weighted else None
    return graph_data("communities", x, edges, y, split=split, weights=weights, inductive=inductive)


def tiny_graph_net(kind: type[GraphNet] = SGC, **options: object) -> Net:
    """A graph network of width 5 for `communities`."""
    with torch.random.fork_rng(devices=[]):  # a new module's first weights are PyTorch's own draw
        return Net(kind(features=4, classes=3, width=5, **options))  # type: ignore[arg-type]


@torch.no_grad()
def central_difference(value: Callable[[], Tensor], p: Tensor, direction: Tensor, step: float = 1e-6) -> float:
    """How a value changes along a direction of a parameter, which is put back."""
    before = p.clone()
    p.copy_(before + step * direction)
    up = float(value())
    p.copy_(before - step * direction)
    down = float(value())
    p.copy_(before)
    return (up - down) / (2 * step)


def small_graph(n: int) -> dict[str, Any]:
    """The arrays of a graph of three classes with noisy features: half of it trains, a quarter validates, one tests."""
    g = generator(7)
    y = torch.arange(n) % 3
    edges = (torch.rand(n, n, generator=g) < torch.where(y[:, None] == y, 0.3, 0.03)).triu(1).nonzero().T
    x = 0.7 * torch.randn(n, 4, generator=g)
    x[torch.arange(n), y] += 1
    split = (torch.arange(n) // 3 % 4 - 1).clamp(min=0)
    parts = {"x": x, "edge_index": edges, "y": y, "split": split}
    return {name: part.numpy() for name, part in parts.items()}


def rings_and_stars(*, graphs: int = 40, single: bool = False) -> GraphSet:
    """Rings and stars of 4 to 7 nodes with noisy features that say a little; two classes that the structure tells."""
    g = generator(3)
    y = torch.arange(graphs) % 2
    sizes = torch.ones_like(y) if single else torch.randint(4, 8, (graphs,), generator=g)
    edges, start = [], 0
    for c, k in zip(y.tolist(), sizes.tolist(), strict=True):
        nodes = torch.arange(k)
        pairs = torch.stack([nodes, nodes.roll(1)]) if c else torch.stack([nodes[1:], torch.zeros(k - 1).long()])
        edges.append(pairs + start)
        start += k
    owner = torch.arange(graphs).repeat_interleave(sizes)
    x = torch.randn(start, 3, generator=g) + 0.3 * y[owner, None]
    whole = torch.zeros(2, 0, dtype=torch.int64) if single else torch.cat(edges, 1)
    parts = torch.arange(graphs).split([graphs - 16, 8, 8])
    return graph_set("rings and stars", x, whole, owner, y, split=Split(*parts))
