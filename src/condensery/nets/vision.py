"""Image classifiers of the dataset-condensation literature.

Two families share names in the papers but not architectures, so their published numbers are not comparable:

- the PyTorch family (DC, DSA, DM, MTT and all that grew from them): `ConvNet`, `AlexNet`, `VGG11`,
  `ResNet18`, `ResNet18AP`, `MLP`, `LeNet`;
- the JAX family (FRePo, RCIG): `ConvNet` with ``doubling``, `AlexNet` with average pooling, `VGG11Narrow` and
  `ResNet18Flat`.

Every network is called with images ``[n, channels, size, size]`` and is ``head(embed(x))``. Images of 28
pixels are padded with zeros to 32 by the first convolution (padding larger by 2) in `ConvNet`, `AlexNet`,
`LeNet` and the VGGs; the published codes do this by the channel count (one channel), which is the same on
MNIST and Fashion-MNIST and undefined elsewhere. The ResNets do not pad: they reach the same 4x4 map from 28
as from 32 (`ResNet18AP`: 3x3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from condensery.nets.layers import JSON, Activation, AvgPool, Norm, Parametrisation, Pooling, Style

_PADDED = {28: 32}


class VisionNet(nn.Module):
    """What all image classifiers share: ``forward(x) = head(embed(x))`` and a config that rebuilds them.

    Subclasses set `body`, images to a map or to features, and `head`, the last linear layer.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the square images in pixels.
        options: The rest of the subclass's constructor arguments as plain values.

    Attributes:
        config: Every constructor argument, as JSON values.
        body: Everything before the head.
        head: The last linear layer, `nn.Linear`, `LecunLinear` or `NTKLinear`.
        any_memory_format: Images may come in channels last as well (see `Net.arranged`).

    Raises:
        ValueError: If a size or a count is not a positive whole number.
    """

    any_memory_format: ClassVar[bool] = True
    config: dict[str, JSON]
    body: nn.Module
    head: nn.Module

    def __init__(self, *, channels: int, classes: int, size: int, **options: JSON) -> None:
        super().__init__()
        self.config = {"channels": channels, "classes": classes, "size": size, **options}
        for name in ("channels", "classes", "size", "width", "depth"):
            _check_whole(name, self.config.get(name, 1))

    def embed(self, x: Tensor) -> Tensor:
        """Features, the head's input.

        Args:
            x: Images ``[n, channels, size, size]``.

        Returns:
            Features ``[n, d]``.

        Raises:
            ValueError: If the images are not of the shape the network was built for.
        """
        c, s = self.config["channels"], self.config["size"]
        if x.ndim != 4 or x.shape[1:] != (c, s, s):
            raise ValueError(
                f"{type(self).__name__} was built for images [n, {c}, {s}, {s}] but got {list(x.shape)}: "
                "build it with the channels and size of your images."
            )
        return torch.flatten(self.body(x), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[n, classes]`` of images ``[n, channels, size, size]``."""
        return self.head(self.embed(x))


class ConvNet(VisionNet):
    """The ConvNet of Gidaris & Komodakis 2018 as used by Zhao et al. 2021 and nearly every paper since.

    ``depth`` stages of 3x3 convolution, normalisation, activation and 2x2 pooling; then one linear layer on
    the flattened map. With ``doubling`` the widths are ``width * (1, 2, 4, ...)``: the network of FRePo and
    RCIG.

    The default depth is the papers' for the resolution, 3 up to 32 pixels, 4 up to 64 and 5 above, but never
    so much that the last map is smaller than 2x2: 8-pixel images get depth 2 and 16-pixel images depth 3.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images; 28 is padded to 32.
        width: Channels of the first convolution, and of all of them unless ``doubling``.
        depth: Stages; None for the rule above. The config stores the number that came out.
        doubling: Whether every stage is twice as wide as the one before.
        norm: Normalisation.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        pooling: Pooling.
        parametrisation: Parametrisation.
        norm_first: Normalise the *input* of the second and later convolutions instead of the output of all,
            as the FRePo code does with batch normalisation (RCIG's normalises the output).

    Raises:
        ValueError: If the network pools the images away or an option does not exist.

    Example:
        >>> net = ConvNet(channels=3, classes=10, size=32)
        >>> sum(p.numel() for p in net.parameters())
        320010
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 128,
        depth: int | None = None,
        doubling: bool = False,
        norm: Norm = Norm.INSTANCE,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        pooling: Pooling = Pooling.AVG,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
        norm_first: bool = False,
    ) -> None:
        _check_whole("size", size)
        depth = default_depth(size) if depth is None else depth
        style = Style(norm=norm, activation=activation, beta=beta, pooling=pooling, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            depth=depth,
            doubling=doubling,
            norm_first=norm_first,
            **style.config("norm", "activation", "beta", "pooling", "parametrisation"),
        )
        if style.pooling is not Pooling.NONE and _padded(size) >> depth < 1:
            raise ValueError(
                f"ConvNet with depth={depth} needs images of at least {2**depth} pixels, got {size}: "
                "use a smaller depth or larger images."
            )
        plan = [_Conv(width << stage if doubling else width, 3, True) for stage in range(depth)]
        self.body, features = _chain("ConvNet", channels, size, plan, style, norm_first=norm_first)
        self.head = style.linear(features, classes)


class AlexNet(VisionNet):
    """The small AlexNet of the condensation literature (after Krizhevsky et al. 2012; Zhao et al. 2021).

    Convolutions 128-192-256-192-192, 5x5 in the first two and 3x3 in the rest, with pooling after the first,
    second and fifth; one linear layer on the flattened map (192x4x4 at 32 pixels). RCIG evaluates it with
    `Pooling.AVG`.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images, 8 or more; 28 is padded to 32.
        width: Channels of the first convolution; the others keep their ratio to it.
        norm: Normalisation; the published one has none (or batch, "AlexNetBN").
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        pooling: Pooling.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If the network pools the images away or an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 128,
        norm: Norm = Norm.NONE,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        pooling: Pooling = Pooling.MAX,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
    ) -> None:
        style = Style(norm=norm, activation=activation, beta=beta, pooling=pooling, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            **style.config("norm", "activation", "beta", "pooling", "parametrisation"),
        )
        wider = max(1, width * 3 // 2)
        plan = [
            _Conv(width, 5, True),
            _Conv(wider, 5, True),
            _Conv(2 * width, 3, False),
            _Conv(wider, 3, False),
            _Conv(wider, 3, True),
        ]
        self.body, features = _chain("AlexNet", channels, size, plan, style)
        self.head = style.linear(features, classes)


class VGG11(VisionNet):
    """The VGG11 of the PyTorch family (after Simonyan & Zisserman 2014; Zhao et al. 2021).

    Widths 64, 128, 256-256, 512-512, 512-512 with pooling after each group; one linear layer on the flattened
    map, 512x1x1 at 32 pixels. This is *not* the network that FRePo and RCIG call VGG11: that is
    `VGG11Narrow`.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images, 32 or more; 28 is padded to 32.
        width: Channels of the first convolution; the others keep their ratio to it.
        norm: Normalisation.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        pooling: Pooling.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If the network pools the images away or an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 64,
        norm: Norm = Norm.INSTANCE,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        pooling: Pooling = Pooling.MAX,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
    ) -> None:
        style = Style(norm=norm, activation=activation, beta=beta, pooling=pooling, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            **style.config("norm", "activation", "beta", "pooling", "parametrisation"),
        )
        plan = _vgg11_plan([width * factor for factor in (1, 2, 4, 4, 8, 8, 8, 8)])
        self.body, features = _chain("VGG11", channels, size, plan, style)
        self.head = style.linear(features, classes)


class VGG11Narrow(VisionNet):
    """What the JAX family (FRePo, RCIG) calls VGG11: eight convolutions that are *all* 128 wide.

    The released code reads where to pool from VGG11's table and ignores the widths in it. Defaults are that
    code's: no normalisation (the papers' "VGG-BN" column is `Norm.BATCH`), average pooling in RCIG's
    evaluation, and Flax's initialisation. The network with VGG's own widths is `VGG11`.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images, 32 or more; 28 is padded to 32.
        width: Channels of every convolution.
        norm: Normalisation.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        pooling: Pooling.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If the network pools the images away or an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 128,
        norm: Norm = Norm.NONE,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        pooling: Pooling = Pooling.AVG,
        parametrisation: Parametrisation = Parametrisation.LECUN,
    ) -> None:
        style = Style(norm=norm, activation=activation, beta=beta, pooling=pooling, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            **style.config("norm", "activation", "beta", "pooling", "parametrisation"),
        )
        self.body, features = _chain("VGG11Narrow", channels, size, _vgg11_plan([width] * 8), style)
        self.head = style.linear(features, classes)


class ResNet18(VisionNet):
    """The ResNet18 of the PyTorch family (He et al. 2015 with the CIFAR stem; Zhao et al. 2021).

    A 3x3 stem of stride 1, four stages of two basic blocks (widths 64-128-256-512, the later three halve the
    map by stride), and one linear layer on the *mean* of the last map: 512 features at any size (the
    published code pools a fixed 4x4, the same at 28 and 32 pixels). FRePo's and RCIG's ResNet18 is
    `ResNet18Flat`.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images; 9 or more with `Norm.INSTANCE`, which is zero on maps of one pixel.
        width: Channels of the stem; the stages have 1, 2, 4 and 8 times as many.
        norm: Normalisation; the published ones are instance and batch.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If the images are too small or an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 64,
        norm: Norm = Norm.INSTANCE,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
    ) -> None:
        style = Style(norm=norm, activation=activation, beta=beta, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            **style.config("norm", "activation", "beta", "parametrisation"),
        )
        _require_size("ResNet18", size, 9 if style.norm is Norm.INSTANCE else 1)
        parts = _resnet18_parts(channels, width, stem=style, blocks=style, average=False)
        self.body = _sequence([*parts, ("mean", nn.AdaptiveAvgPool2d(1))])
        self.head = style.linear(8 * width, classes)


class ResNet18Flat(VisionNet):
    """What the JAX family (FRePo, RCIG) calls ResNet18: its head reads the *flattened* last map.

    That map is 512x4x4 at 28 and 32 pixels, so the head is sixteen times that of `ResNet18`. Defaults are the
    released code's: no normalisation and Flax's initialisation. In that code the chosen normalisation reaches
    the stem alone, because it is not handed on to the blocks; ``stem_only`` says so, and turning it off gives
    the network that the papers describe.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images; 9 or more when `Norm.INSTANCE` reaches the blocks.
        width: Channels of the stem; the stages have 1, 2, 4 and 8 times as many.
        norm: Normalisation.
        stem_only: Normalise after the stem and nowhere else, as released.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If the images are too small or an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 64,
        norm: Norm = Norm.NONE,
        stem_only: bool = True,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        parametrisation: Parametrisation = Parametrisation.LECUN,
    ) -> None:
        style = Style(norm=norm, activation=activation, beta=beta, parametrisation=parametrisation)
        plain = Style(norm=Norm.NONE, activation=activation, beta=beta, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            stem_only=stem_only,
            **style.config("norm", "activation", "beta", "parametrisation"),
        )
        blocks = plain if stem_only else style
        _require_size("ResNet18Flat", size, 9 if blocks.norm is Norm.INSTANCE else 1)
        side = -(-size // 8)  # three convolutions of stride 2 and padding 1 round up
        self.body = _sequence(_resnet18_parts(channels, width, stem=style, blocks=blocks, average=False))
        self.head = style.linear(8 * width * side * side, classes)


class ResNet18AP(VisionNet):
    """ResNet18 with every stride replaced by 2x2 average pooling (Zhao & Bilen 2021, the PyTorch family).

    Blocks that halve the map do so after their first activation and, on the shortcut, after its 1x1
    convolution. The head reads the flattened map, 512x4x4 at 32 pixels.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images, 8 or more; 16 or more with `Norm.INSTANCE`, which is zero on maps of one
            pixel.
        width: Channels of the stem; the stages have 1, 2, 4 and 8 times as many.
        norm: Normalisation; the published ones are instance and batch.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If the images are too small or an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 64,
        norm: Norm = Norm.INSTANCE,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
    ) -> None:
        style = Style(norm=norm, activation=activation, beta=beta, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            **style.config("norm", "activation", "beta", "parametrisation"),
        )
        _require_size("ResNet18AP", size, 16 if style.norm is Norm.INSTANCE else 8)
        side = size // 8
        self.body = _sequence(_resnet18_parts(channels, width, stem=style, blocks=style, average=True))
        self.head = style.linear(8 * width * side * side, classes)


class MLP(VisionNet):
    """The multilayer perceptron of Zhao et al. 2021: two hidden layers of 128 on the flattened image.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images.
        width: Units of a hidden layer.
        depth: Hidden layers.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        width: int = 128,
        depth: int = 2,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
    ) -> None:
        style = Style(activation=activation, beta=beta, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            width=width,
            depth=depth,
            **style.config("activation", "beta", "parametrisation"),
        )
        self.body = _perceptron(channels * size * size, [width] * depth, style)
        self.head = style.linear(width, classes)


class LeNet(VisionNet):
    """The LeNet of Zhao et al. 2021 (after LeCun et al. 1998): ReLU and max-pooling instead of the originals.

    Convolutions of 6 and 16 channels, 5x5 without padding, each with pooling; hidden layers of 120 and 84.

    Args:
        channels: Channels of an image.
        classes: Outputs.
        size: Side of the images, 16 or more; 28 is padded to 32.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`.
        parametrisation: Parametrisation.

    Raises:
        ValueError: If the images are too small or an option does not exist.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        activation: Activation = Activation.RELU,
        beta: float = 60.0,
        parametrisation: Parametrisation = Parametrisation.STANDARD,
    ) -> None:
        style = Style(activation=activation, beta=beta, pooling=Pooling.MAX, parametrisation=parametrisation)
        super().__init__(
            channels=channels,
            classes=classes,
            size=size,
            **style.config("activation", "beta", "parametrisation"),
        )
        _require_size("LeNet", size, 16)
        side = ((_padded(size) - 4) // 2 - 4) // 2
        parts = [
            ("conv1", style.conv(channels, 6, 5, padding=_padding(size))),
            ("act1", style.activate()),
            ("pool1", style.pool()),
            ("conv2", style.conv(6, 16, 5, padding=0)),
            ("act2", style.activate()),
            ("pool2", style.pool()),
            ("hidden", _perceptron(16 * side * side, [120, 84], style)),
        ]
        self.body = _sequence(parts)
        self.head = style.linear(84, classes)


class BasicBlock(nn.Module):
    """A residual block, ``act(shortcut(x) + norm(conv(act(norm(conv(x))))))`` (He et al. 2015).

    Args:
        inputs: Channels in.
        outputs: Channels out.
        style: Maker of the layers.
        halve: Whether to halve the map's side.
        average: Halve by average pooling instead of stride 2.
    """

    def __init__(self, inputs: int, outputs: int, *, style: Style, halve: bool, average: bool) -> None:
        super().__init__()
        stride = 2 if halve and not average else 1
        pooled = halve and average
        self.conv1 = style.conv(inputs, outputs, 3, stride=stride, bias=False)
        self.norm1 = style.normalise(outputs)
        self.act = style.activate()
        self.pool = AvgPool() if pooled else nn.Identity()
        self.conv2 = style.conv(outputs, outputs, 3, bias=False)
        self.norm2 = style.normalise(outputs)
        self.shortcut = _sequence([])
        if halve or inputs != outputs:
            self.shortcut.add_module("conv", style.conv(inputs, outputs, 1, stride=stride, bias=False))
            self.shortcut.add_module("pool", AvgPool() if pooled else nn.Identity())
            self.shortcut.add_module("norm", style.normalise(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w] -> [n, outputs, h', w']``."""
        residual = self.pool(self.act(self.norm1(self.conv1(x))))
        return self.act(self.shortcut(x) + self.norm2(self.conv2(residual)))


def default_depth(size: int) -> int:
    """The depth of a `ConvNet` for images of a size, by the rule in its docstring.

    Args:
        size: Side of the images in pixels.

    Returns:
        Stages, at least 1.

    Example:
        >>> [default_depth(size) for size in (8, 16, 28, 32, 64, 128)]
        [2, 3, 3, 3, 4, 5]
    """
    published = 3 if size <= 32 else 4 if size <= 64 else 5
    keeps_2x2 = _padded(size).bit_length() - 2
    return max(1, min(published, keeps_2x2))


class _Conv(NamedTuple):
    width: int
    kernel: int
    pool: bool


def _vgg11_plan(widths: Sequence[int]) -> list[_Conv]:
    return [_Conv(width, 3, place in (0, 1, 3, 5, 7)) for place, width in enumerate(widths)]


def _chain(
    name: str, channels: int, size: int, plan: Sequence[_Conv], style: Style, *, norm_first: bool = False
) -> tuple[nn.Sequential, int]:
    """Convolutions in a row, each with its norm, activation and pooling; and the flattened map's length."""
    halvings = sum(step.pool for step in plan) if style.pooling is not Pooling.NONE else 0
    # The last norm comes before the last pooling, so only an unpooled map can reach it as a single pixel.
    _require_size(name, _padded(size), max(2**halvings, 2 if style.norm is Norm.INSTANCE else 1))
    parts: list[tuple[str, nn.Module]] = []
    inputs = channels
    for i, step in enumerate(plan, start=1):
        padding = step.kernel // 2 + (_padding(size) if i == 1 else 0)
        normalised = inputs if norm_first else step.width
        norm = (f"norm{i}", nn.Identity() if norm_first and i == 1 else style.normalise(normalised))
        conv = (f"conv{i}", style.conv(inputs, step.width, step.kernel, padding=padding))
        parts += [norm, conv] if norm_first else [conv, norm]
        parts.append((f"act{i}", style.activate()))
        if step.pool:
            parts.append((f"pool{i}", style.pool()))
        inputs = step.width
    side = _padded(size) >> halvings
    return _sequence(parts), inputs * side * side


def _resnet18_parts(
    channels: int, width: int, *, stem: Style, blocks: Style, average: bool
) -> list[tuple[str, nn.Module]]:
    """Stem and eight blocks, up to the last map ``[n, 8 * width, h, w]``."""
    parts: list[tuple[str, nn.Module]] = [
        ("conv", stem.conv(channels, width, 3, bias=False)),
        ("norm", stem.normalise(width)),
        ("act", stem.activate()),
    ]
    inputs = width
    for stage in range(4):
        outputs = width << stage
        for place in range(2):
            halve = stage > 0 and place == 0
            block = BasicBlock(inputs, outputs, style=blocks, halve=halve, average=average)
            parts.append((f"block{stage + 1}_{place + 1}", block))
            inputs = outputs
    return parts


def _perceptron(inputs: int, widths: Sequence[int], style: Style) -> nn.Sequential:
    """Hidden layers on the flattened input: ``[n, ...] -> [n, widths[-1]]``."""
    parts: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for i, width in enumerate(widths, start=1):
        parts += [(f"linear{i}", style.linear(inputs, width)), (f"act{i}", style.activate())]
        inputs = width
    return _sequence(parts)


def _sequence(parts: Iterable[tuple[str, nn.Module]]) -> nn.Sequential:
    # Named by role, so that a parameter keeps its name when the norm, activation or pooling changes.
    return nn.Sequential(OrderedDict(parts))


def _padded(size: int) -> int:
    return _PADDED.get(size, size)


def _padding(size: int) -> int:
    return (_padded(size) - size) // 2


def _require_size(name: str, size: int, smallest: int) -> None:
    if size < smallest:
        raise ValueError(
            f"{name} with these options needs images of at least {smallest} pixels, got {size}: "
            "use larger images or another network."
        )


def _check_whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
