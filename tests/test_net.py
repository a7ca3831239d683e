"""A network as a function of a flat vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condensery import nets
from condensery.net import Net
from support import blobs, generator, tiny_net

NETS: dict[str, nn.Module] = {
    "convnet": nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1),
    "lecun": nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1, parametrisation="lecun"),
    "ntk": nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1, parametrisation="ntk"),
    "batch norm": nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1, norm="batch"),
    "mlp": nets.MLP(channels=1, classes=3, size=8),
    "a user's": nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_is_the_module_with_those_parameters(name: str) -> None:
    net = Net(NETS[name])
    theta = net.init(generator(3))
    x = blobs().whole().x[:6]
    module = net.at(theta).train()
    assert torch.allclose(net(theta, x), module(x), atol=1e-6)
    assert torch.equal(net.flat(dict(module.named_parameters())), theta)
    assert net.size == len(theta) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NETS)
def test_init_is_the_generators_alone(name: str) -> None:
    net = Net(NETS[name])
    state = torch.get_rng_state()
    a, b, c = net.init(generator(1)), net.init(generator(1)), net.init(generator(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(state, torch.get_rng_state())


def test_init_has_pytorchs_distribution() -> None:
    """Against the module's own reset_parameters, by moments over many draws."""
    layer = nn.Conv2d(6, 40, 3)
    ours = torch.cat([Net(layer).init(generator(i)) for i in range(20)])
    theirs = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(20):
            layer.reset_parameters()
            theirs.append(torch.cat([p.detach().reshape(-1) for p in layer.parameters()]))
    other = torch.cat(theirs)
    assert abs(ours.mean() - other.mean()) < 2e-3
    assert abs(ours.std() / other.std() - 1) < 0.01
    assert abs(ours.abs().max() - other.abs().max()) < 1e-3


def test_a_layer_that_knows_no_generator_is_seeded_from_it() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(4))
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.normal_(self.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    net = Net(Odd())
    state = torch.get_rng_state()
    assert torch.equal(net.init(generator(1)), net.init(generator(1)))
    assert not torch.equal(net.init(generator(1)), net.init(generator(2)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NETS)
def test_embedding_is_what_the_last_layer_reads(name: str) -> None:
    net = Net(NETS[name])
    theta = net.init(generator(0))
    x = blobs().whole().x[:5]
    module = net.at(theta).train()
    head: Any = module.head if hasattr(module, "head") else list(module.children())[-1]
    assert torch.allclose(head(net.embed(theta, x)), net(theta, x), atol=1e-5)


def test_layers_are_views() -> None:
    net = tiny_net()
    theta = net.init(generator(0))
    next(iter(net.layers(theta).values())).zero_()
    assert (theta[: next(iter(net.layers(theta).values())).numel()] == 0).all()


def test_derivatives_reach_theta_and_x() -> None:
    net = tiny_net()
    theta = net.init(generator(0)).double().requires_grad_()
    x = blobs().whole().x[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t, v: net(t, v).square().sum(), (theta, x))


def test_fixed_statistics_decouple_examples_and_are_the_batchs() -> None:
    net = tiny_net(norm="batch")
    theta = net.init(generator(0))
    x = blobs().whole().x
    fixed = net.statistics(theta, x)
    alone = torch.cat([net(theta, part, statistics=fixed) for part in x.split(5)])
    assert torch.allclose(alone, net(theta, x, statistics=fixed), atol=1e-6)
    # On the batch itself they differ from batch statistics by the unbiased variance alone.
    assert torch.allclose(net(theta, x, statistics=fixed), net(theta, x), atol=2e-2)
    assert net.has_batch_norm
    assert not tiny_net().has_batch_norm


def test_batch_norm_uses_the_batch_and_leaves_the_template() -> None:
    module = nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1, norm="batch")
    before = {k: v.clone() for k, v in module.state_dict().items()}
    net = Net(module)
    theta = net.init(generator(0))
    x = blobs().whole().x[:8]
    first = net(theta, x)
    assert torch.equal(net(theta, x), first)
    assert not torch.allclose(net(theta, x[:4]), first[:4], atol=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_chunks_follow_the_largest_activation() -> None:
    net = Net(nets.ConvNet(channels=3, classes=10, size=32, width=128))
    assert net.chunk(torch.zeros(1, 3, 32, 32)) == 8  # 128 * 32 * 32 * 4 bytes = 1/2 MiB each
    assert tiny_net().chunk(torch.zeros(1, 1, 8, 8)) > 1000


def test_a_module_without_parameters_or_linear_layer_is_told() -> None:
    with pytest.raises(ValueError, match="no parameters; give one"):
        Net(nn.Flatten())
    net = Net(nn.Conv2d(1, 1, 3))
    with pytest.raises(ValueError, match=r"no nn.Linear layer to embed before; give it a method embed"):
        net.embed(net.init(generator(0)), torch.zeros(1, 1, 8, 8))


def test_works_under_torch_func() -> None:
    net = tiny_net()
    theta = net.init(generator(0))
    x = blobs().whole().x[:4]
    y = torch.tensor([0, 1, 2, 0])

    def loss(t: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(t, x), y)

    v = torch.randn(net.size, generator=generator(1))
    over = torch.func.jvp(torch.func.grad(loss), (theta,), (v,))[1]
    leaf = theta.clone().requires_grad_()
    g = torch.autograd.grad(loss(leaf), leaf, create_graph=True)[0]
    reverse = torch.autograd.grad(g, leaf, v)[0]
    assert torch.allclose(over, reverse, rtol=1e-3, atol=1e-5)
    two = torch.stack([theta, net.init(generator(1))])
    both = torch.func.vmap(lambda t: net(t, x))(two)
    assert torch.allclose(both, torch.stack([net(t, x) for t in two]), atol=1e-5)
