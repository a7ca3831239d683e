"""What several test files use: tiny networks and data with known structure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from condensery import nets
from condensery.data.labelled import Labelled
from condensery.data.whitening import Identity
from condensery.experts import Held, HeldConvexified, Waypoints, convexify_held
from condensery.net import Net
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
