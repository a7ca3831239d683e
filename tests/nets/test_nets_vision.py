"""The image networks: sizes, shapes, configs, derivatives and initialisation."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from condensery import nets
from condensery.nets import Activation, ConvNet, Norm, Parametrisation, Pooling

SMALLEST = {
    "ConvNet": 2,
    "AlexNet": 8,
    "VGG11": 32,
    "VGG11Narrow": 32,
    "ResNet18": 9,
    "ResNet18Flat": 1,
    "ResNet18AP": 16,
    "MLP": 1,
    "LeNet": 16,
    "CellNet": 4,
}
FEATURES_AT_32 = {
    "ConvNet": 128 * 4 * 4,
    "AlexNet": 192 * 4 * 4,
    "VGG11": 512,
    "VGG11Narrow": 128,
    "ResNet18": 512,
    "ResNet18Flat": 512 * 4 * 4,
    "ResNet18AP": 512 * 4 * 4,
    "MLP": 128,
    "LeNet": 84,
    "CellNet": 64,
}


@pytest.fixture(autouse=True)
def _fixed_initialisation() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def small(name: str, **options: Any) -> nn.Module:
    """The network at an eighth of its width or less, where it has one."""
    if "width" in inspect.signature(nets.VISION[name]).parameters:
        options = {"width": 4, **options}
    return nets.build({"net": name, "channels": 3, "classes": 5, "size": 32, **options})


def seeded(n: int, channels: int, size: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, channels, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def redraw(net: nn.Module, seed: int = 0) -> nn.Module:
    """The same parameters whatever ran before; every parameter is off its initial constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.4 * torch.randn(p.shape, dtype=torch.float64, generator=generator) + 0.1)
    return net


# ---------------------------------------------------------------- counts and shapes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The formulas spell out weight + bias of each layer; norms have 2 parameters a channel.
        ("ConvNet", 320_010),
        (
            "AlexNet",
            128 * (75 + 1)
            + 192 * (128 * 25 + 1)
            + 256 * (192 * 9 + 1)
            + 192 * (256 * 9 + 1)
            + 192 * (192 * 9 + 1)
            + 10 * (3072 + 1),
        ),
        ("VGG11", 9_231_114),  # known from the CIFAR VGG11 with batch normalisation
        ("VGG11Narrow", 128 * (27 + 1) + 7 * 128 * (128 * 9 + 1) + 10 * 129),
        ("ResNet18", 11_173_962),  # known from the CIFAR ResNet18
        ("ResNet18AP", 11_173_962 + 10 * 512 * 15),
        ("ResNet18Flat", 11_173_962 + 10 * 512 * 15 - 2 * (64 + 4 * 64 + 5 * (128 + 256 + 512))),
        ("MLP", 128 * 3073 + 128 * 129 + 10 * 129),
        ("LeNet", 6 * 76 + 16 * 151 + 120 * 401 + 84 * 121 + 10 * 85),
    ],
)
def test_parameter_counts(name: str, expected: int) -> None:
    with torch.device("meta"):
        net = nets.VISION[name](channels=3, classes=10, size=32)
    assert count(net) == expected
    assert net.head.in_features == FEATURES_AT_32[name]


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
def test_doubling_is_the_network_of_frepo_and_rcig(size: int, channels: int) -> None:
    net = ConvNet(channels=channels, classes=10, size=size, doubling=True, norm=Norm.NONE)
    convs = 128 * (9 * channels + 1) + 256 * (128 * 9 + 1) + 512 * (256 * 9 + 1)
    assert count(net) == convs + 10 * (512 * 16 + 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 28, 32, 64, 128])
@pytest.mark.parametrize("name", list(nets.VISION))
def test_shapes_at_every_size(name: str, size: int, channels: int) -> None:
    if size < SMALLEST[name] and size != 28:
        with pytest.raises(ValueError, match=f"at least {SMALLEST[name]} pixels, got {size}"):
            small(name, size=size, channels=channels)
        return
    # At these widths ReLUs may all be dead at the start; leaky ones cannot be.
    net = small(name, size=size, channels=channels, activation="leaky_relu").eval()
    x = seeded(2, channels, size)
    with torch.no_grad():
        features = net.embed(x)
        logits = net(x)
    assert features.shape == (2, net.head.in_features)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, net.head(features))
    assert not torch.allclose(logits[0], logits[1]), "a dead network does not look at its input"


@pytest.mark.parametrize("name", list(nets.VISION))
def test_the_smallest_size_works_and_one_less_does_not(name: str) -> None:
    smallest = SMALLEST[name]
    net = small(name, size=smallest, activation="leaky_relu")
    logits = net(seeded(2, 3, smallest))
    assert not torch.allclose(logits[0], logits[1])
    with pytest.raises(ValueError, match=r"pixels|whole number"):
        small(name, size=smallest - 1)


@pytest.mark.parametrize(
    ("name", "norm", "size"),
    [("ResNet18", "batch", 8), ("ResNet18AP", "none", 8), ("ResNet18Flat", "none", 8)],
)
def test_other_norms_allow_one_pixel_maps(name: str, norm: str, size: int) -> None:
    assert small(name, norm=norm, size=size).eval()(seeded(2, 3, size)).shape == (2, 5)


@pytest.mark.parametrize("name", ["ConvNet", "AlexNet", "VGG11", "VGG11Narrow", "LeNet"])
def test_28_pixels_are_padded_to_32(name: str) -> None:
    net28, net32 = small(name, size=28, channels=1), small(name, size=32, channels=1)
    net32.load_state_dict(net28.state_dict())
    x = seeded(2, 1, 28)
    torch.testing.assert_close(net28(x), net32(nn.functional.pad(x, (2, 2, 2, 2))))


@pytest.mark.parametrize(("size", "depth"), [(2, 1), (8, 2), (12, 2), (16, 3), (28, 3), (32, 3), (64, 4), (128, 5)])
def test_default_depth(size: int, depth: int) -> None:
    assert ConvNet(channels=1, classes=2, size=size, width=2).config["depth"] == depth


def test_families_differ_where_the_docstrings_say() -> None:
    assert small("VGG11", width=2).head.in_features == 16
    assert small("VGG11Narrow", width=2).head.in_features == 2
    norms = [m for m in small("ResNet18Flat", norm="instance").modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 1
    everywhere = small("ResNet18Flat", norm="instance", stem_only=False)
    assert len([m for m in everywhere.modules() if isinstance(m, nn.GroupNorm)]) == 20
    assert all(m.stride in (1, (1, 1)) for m in small("ResNet18AP").modules() if isinstance(m, nn.Conv2d))


def test_norm_first_normalises_the_input_of_later_convolutions() -> None:
    kinds = [type(m).__name__ for m in small("ConvNet", norm="batch", norm_first=True, depth=2).body]
    assert kinds == ["Identity", "Conv2d", "ReLU", "AvgPool", "BatchNorm2d", "Conv2d", "ReLU", "AvgPool"]
    doubled = small("ConvNet", norm="instance", norm_first=True, doubling=True)
    assert doubled(seeded(2, 3, 32)).shape == (2, 5)


def test_parameter_names_survive_a_change_of_activation_and_pooling() -> None:
    distil = small("ConvNet", norm="none", activation="softplus", pooling="max")
    evaluate = small("ConvNet", norm="none")
    evaluate.load_state_dict(distil.state_dict())


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize("name", list(nets.VISION))
def test_config_round_trip(name: str) -> None:
    net = small(name, activation=Activation.SOFTPLUS, beta=7.0, parametrisation=Parametrisation.NTK)
    config = nets.describe(net)
    assert set(config) == {"net", *inspect.signature(nets.VISION[name]).parameters}
    assert all(type(value) in (str, int, float, bool) for value in config.values())
    twin = nets.build(json.loads(json.dumps(config)))
    assert type(twin) is type(net)
    assert nets.describe(twin) == config
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    assert {key: value.shape for key, value in twin.state_dict().items()} == shapes
    twin.load_state_dict(net.state_dict())
    x = seeded(2, 3, 32)
    torch.testing.assert_close(twin(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("pooling", list(Pooling))
def test_config_keeps_every_choice(norm: Norm, pooling: Pooling) -> None:
    net = ConvNet(channels=1, classes=2, size=8, width=4, norm=norm, pooling=pooling, norm_first=True)
    twin = nets.build(nets.describe(net))
    assert str(twin) == str(net)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": "Transformer"}, "must be one of ConvNet, AlexNet"),
        ({"wdth": 3}, "ConvNet has no argument wdth: it takes channels, classes, size, width"),
        ({"channels": None}, "channels must be a positive whole number, got None"),
        ({"size": "32"}, "size must be a positive whole number, got '32'"),
        ({"classes": 0}, "classes must be a positive whole number"),
        ({"depth": 2.5}, "depth must be a positive whole number"),
        ({"width": True}, "width must be a positive whole number"),
        ({"norm": "bach"}, "norm must be one of none, instance, batch, group, layer, got 'bach'"),
        ({"activation": "tanh"}, "activation must be one of relu"),
        ({"pooling": "min"}, "pooling must be one of avg, max, none"),
        ({"parametrisation": "mup"}, "parametrisation must be one of standard, lecun, ntk"),
        ({"beta": 0.0}, "beta must be a number above 0"),
        ({"norm": "group", "width": 6}, "cannot share 6 channels among its 4 groups"),
        ({"depth": 6}, "at least 64 pixels, got 32: use a smaller depth"),
    ],
)
def test_bad_configs_say_what_to_do(change: dict[str, Any], message: str) -> None:
    config = {"net": "ConvNet", "channels": 1, "classes": 2, "size": 32, "width": 4}
    with pytest.raises(ValueError, match=message):
        nets.build({**config, **change})


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="add classes, size to the config"):
        nets.build({"net": "MLP", "channels": 1})
    with pytest.raises(ValueError, match="give it a `config`"):
        nets.describe(nn.Linear(2, 2))
    net = small("ConvNet")
    for shape in [(2, 3, 28, 28), (2, 1, 32, 32), (3, 32, 32)]:
        with pytest.raises(ValueError, match=r"built for images \[n, 3, 32, 32\] but got"):
            net(torch.zeros(shape))


# ---------------------------------------------------------------- derivatives


def as_function(net: nn.Module, x: Tensor) -> tuple[Any, tuple[Tensor, ...]]:
    """The network as a function of its images and all parameters."""
    names = [name for name, _ in net.named_parameters()]
    buffers = dict(net.named_buffers())

    def function(x: Tensor, *values: Tensor) -> Tensor:
        state = {**{k: b.clone() for k, b in buffers.items()}, **dict(zip(names, values, strict=True))}
        return functional_call(net, state, (x,))

    values = [p.detach().clone().requires_grad_() for p in net.parameters()]
    return function, (x.requires_grad_(), *values)


TINY = [
    *({"norm": norm} for norm in Norm),
    *({"activation": activation, "beta": 5.0} for activation in Activation),
    *({"pooling": pooling} for pooling in Pooling),
    *({"parametrisation": parametrisation} for parametrisation in Parametrisation),
    {"norm": Norm.BATCH, "norm_first": True},
]


@pytest.mark.parametrize("options", TINY, ids=lambda o: "-".join(map(str, o.values())))
def test_first_and_second_derivatives(options: dict[str, Any]) -> None:
    choices = {"norm": Norm.INSTANCE, "activation": Activation.SWISH, **options}
    net = ConvNet(channels=1, classes=2, size=4, width=4, depth=1, **choices).double()
    function, inputs = as_function(redraw(net), seeded(2, 1, 4, dtype=torch.float64))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("beta", [1.0, 20.0, 60.0])
def test_softplus_second_derivative(beta: float) -> None:
    act = ConvNet(channels=1, classes=2, size=4, width=2, activation=Activation.SOFTPLUS, beta=beta).body.act1
    # Beyond beta * x = 20 PyTorch's softplus is the identity, off by less than 3e-9; the kink is not checked.
    x = torch.linspace(-15 / beta, 15 / beta, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(act, (x,), eps=1e-6 / beta)
    (first,) = torch.autograd.grad(act(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    sigmoid = torch.sigmoid(beta * x.detach())
    torch.testing.assert_close(second, beta * sigmoid * (1 - sigmoid))


@pytest.mark.parametrize("norm", [Norm.INSTANCE, Norm.GROUP, Norm.LAYER])
def test_hessian_vector_products_agree_in_every_mode_and_differentiate(norm: Norm) -> None:
    net = ConvNet(channels=1, classes=2, size=4, width=4, depth=1, norm=norm, activation=Activation.SWISH)
    function, (x, *values) = as_function(redraw(net.double()), seeded(2, 1, 4, dtype=torch.float64))
    x = x.detach()
    point = tuple(value.detach() for value in values)
    direction = tuple(torch.cos(torch.arange(p.numel(), dtype=p.dtype)).reshape(p.shape) for p in point)

    def loss(point: tuple[Tensor, ...], x: Tensor) -> Tensor:
        return function(x, *point).square().sum()

    def forward_over_reverse(x: Tensor) -> tuple[Tensor, ...]:
        return jvp(grad(lambda p: loss(p, x)), (point,), (direction,))[1]

    def reverse_over_forward(x: Tensor) -> tuple[Tensor, ...]:
        return grad(lambda p: jvp(lambda q: loss(q, x), (p,), (direction,))[1])(point)

    step = 1e-5
    ahead, behind = (
        grad(loss)(tuple(p + sign * step * d for p, d in zip(point, direction, strict=True)), x) for sign in (1, -1)
    )
    for hvp in (forward_over_reverse, reverse_over_forward):
        for got, a, b in zip(hvp(x), ahead, behind, strict=True):
            torch.testing.assert_close(got, (a - b) / (2 * step), rtol=1e-5, atol=1e-6)

    def length(x: Tensor) -> Tensor:  # differentiating it takes third derivatives
        return torch.stack([h.square().sum() for h in forward_over_reverse(x)]).sum()

    slope = grad(length)(x)
    move = torch.sin(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    numeric = (length(x + step * move) - length(x - step * move)) / (2 * step)
    torch.testing.assert_close((slope * move).sum(), numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(nets.VISION))
def test_function_transforms(name: str) -> None:
    net = small(name, parametrisation="ntk")
    x = seeded(3, 3, 32)
    state = dict(net.named_parameters())
    apply = lambda state, x: functional_call(net, state, (x,))  # noqa: E731
    out, tangent = jvp(lambda s: apply(s, x), (state,), (state,))
    torch.testing.assert_close(out, net(x))
    assert tangent.isfinite().all()
    one_by_one = vmap(lambda image: apply(state, image[None])[0])(x)
    torch.testing.assert_close(one_by_one, out, rtol=1e-4, atol=1e-5)
    models = {key: torch.stack([p, 0.5 * p]) for key, p in state.items()}
    torch.testing.assert_close(vmap(lambda s: apply(s, x))(models)[0], out, rtol=1e-4, atol=1e-5)
    loss = net(x).square().sum()
    grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    penalty = torch.stack([g.square().sum() for g in grads]).sum()
    second = torch.autograd.grad(penalty, list(net.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in second)


def test_batch_norm_keeps_running_statistics() -> None:
    net = small("ConvNet", norm="batch")
    before = net.body.norm1.running_mean.clone()
    net(seeded(8, 3, 32) + 1)
    assert not torch.equal(net.body.norm1.running_mean, before)
    assert isinstance(net.body.norm1, nn.BatchNorm2d)


def test_no_module_with_wrong_higher_derivatives() -> None:
    wrong = (nn.InstanceNorm2d, nn.LayerNorm)
    for name in nets.VISION:
        takes_norm = "norm" in inspect.signature(nets.VISION[name]).parameters
        for norm in Norm if takes_norm else [None]:
            net = small(name, norm=norm, width=8) if takes_norm else small(name)
            assert not any(isinstance(m, wrong) or getattr(m, "inplace", False) for m in net.modules())


# ---------------------------------------------------------------- initialisation


def test_lecun_is_a_cut_normal_with_unit_gain() -> None:
    layer = nets.LecunConv2d(64, 128, 3)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    scaled = layer.weight.detach() * (64 * 9) ** 0.5
    assert scaled.var().item() == pytest.approx(1, abs=0.02)
    assert scaled.abs().max().item() <= 2 / 0.8796256610342398 + 1e-5
    assert layer.bias is not None
    assert not layer.bias.any()


def test_ntk_outputs_have_the_stated_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nets.NTKLinear(400, 500)
    conv = nets.NTKConv2d(16, 256, 3)
    for layer in (linear, conv):
        layer.reset_parameters(generator)
        assert layer.weight.std().item() == pytest.approx(1, abs=0.02)
    with torch.no_grad():
        out = linear(torch.randn(200, 400, generator=generator))
        maps = conv(torch.randn(20, 16, 8, 8, generator=generator))
    # Unit-variance inputs: 1 from the weights and 0.1^2 from the bias.
    assert out.var().item() == pytest.approx(1.01, abs=0.03)
    assert maps.var().item() == pytest.approx(1.01, abs=0.05)


def test_ntk_and_lecun_networks_start_at_the_same_scale() -> None:
    x = seeded(16, 3, 16)
    spread = []
    for kind in (Parametrisation.LECUN, Parametrisation.NTK):
        net = ConvNet(channels=3, classes=200, size=16, width=64, depth=2, norm=Norm.NONE, parametrisation=kind)
        generator = torch.Generator().manual_seed(1)
        for module in net.modules():
            if isinstance(module, nets.LecunConv2d | nets.LecunLinear | nets.NTKConv2d | nets.NTKLinear):
                module.reset_parameters(generator)
        spread.append(net(x).std().item())
    assert spread[1] == pytest.approx(spread[0], rel=0.35)


@pytest.mark.parametrize("kind", [Parametrisation.LECUN, Parametrisation.NTK])
def test_custom_layers_draw_from_the_generator_alone(kind: Parametrisation) -> None:
    net = small("AlexNet", parametrisation=kind)
    layers = [m for m in net.modules() if hasattr(m, "reset_parameters")]
    assert len(layers) == 6
    assert not any(isinstance(m, nn.Linear | nn.Conv2d) for m in layers)
    state = torch.random.get_rng_state()
    draws = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            layer.reset_parameters(generator)
        draws.append(torch.cat([p.detach().flatten().clone() for p in net.parameters()]))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", list(nets.VISION))
def test_randomness_is_in_the_leaves(name: str) -> None:
    """Re-initialising every leaf reproduces a new network, so nothing else draws or sets parameters."""
    net, twin = small(name), small(name)
    torch.manual_seed(3)
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    torch.manual_seed(3)
    for module in twin.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    torch.manual_seed(3)
    fresh = small(name)
    for a, b, c in zip(net.parameters(), twin.parameters(), fresh.parameters(), strict=True):
        assert all(torch.equal(p, q) for p, q in pairwise((a, b, c)))
