"""The parts that vision networks are made of: the choices (enums), the layers, and `Style`, which joins them.

PyTorch's own ``InstanceNorm2d`` and ``LayerNorm`` have silently wrong derivatives under `grad` of `jvp` and
at third order (pytorch#186256, #196699), so the normalisations here are `nn.GroupNorm`, which is right in
every mode; no operation is done in place, and `torch.func` transforms apply. The one exception is
`Norm.BATCH`, see there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

JSON = str | int | float | bool | None

# The standard deviation of N(0, 1) cut at +-2: dividing by it gives back a unit variance after the cut.
_CUT_NORMAL_STD = 0.8796256610342398
_GROUPS = 4  # the group count of the published "groupnorm" ConvNet


class Norm(StrEnum):
    """What follows a convolution.

    Attributes:
        NONE: Nothing.
        INSTANCE: `nn.GroupNorm(C, C)`, one mean and variance for each image and channel.
        BATCH: `nn.BatchNorm2d` with running statistics. In training mode its second derivatives are right by
            reverse over reverse and forward over reverse, but PyTorch gets `grad` of `jvp` and third
            derivatives wrong; and it writes to its buffers, so before `torch.func.vmap` turn to evaluation
            mode or call `torch.func.replace_all_batch_norm_modules_`.
        GROUP: `nn.GroupNorm(4, C)`.
        LAYER: `nn.GroupNorm(1, C)`: layer normalisation over ``[c, h, w]`` with one scale and shift a channel
            (the published ConvNet has one for every pixel).
    """

    NONE = "none"
    INSTANCE = "instance"
    BATCH = "batch"
    GROUP = "group"
    LAYER = "layer"


class Activation(StrEnum):
    """The nonlinearity.

    Attributes:
        RELU: ``max(x, 0)``.
        LEAKY_RELU: Slope 0.01 below zero.
        SIGMOID: The logistic function.
        SWISH: ``x * sigmoid(x)``.
        SOFTPLUS: ``log(1 + exp(beta x)) / beta``, a smooth ReLU (RCIG distils with beta 60 at depth 3).
    """

    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    SIGMOID = "sigmoid"
    SWISH = "swish"
    SOFTPLUS = "softplus"


class Pooling(StrEnum):
    """How a stage halves its map: the mean or the maximum of 2x2 pixels, or not at all."""

    AVG = "avg"
    MAX = "max"
    NONE = "none"


class Parametrisation(StrEnum):
    """How weights are drawn, and whether they are scaled at run time.

    Attributes:
        STANDARD: PyTorch's own layers and initialisation.
        LECUN: Flax's default: weights from a normal cut at two standard deviations with variance 1/fan_in,
            zero biases. The JAX codes (FRePo, RCIG) start from it.
        NTK: Weights and biases from N(0, 1); at run time weights are multiplied by 1/sqrt(fan_in), biases by
            0.1.
    """

    STANDARD = "standard"
    LECUN = "lecun"
    NTK = "ntk"


E = TypeVar("E", bound=StrEnum)


def choice(kind: type[E], value: str, option: str) -> E:
    """Read an enum member, or its plain string from a stored config.

    Args:
        kind: The enum.
        value: A member or its string.
        option: The option's name, for the message.

    Returns:
        The member.

    Raises:
        ValueError: If there is no such member.
    """
    try:
        return kind(value)
    except ValueError:
        valid = ", ".join(member.value for member in kind)
        raise ValueError(f"{option} must be one of {valid}, got {value!r}.") from None


class _Affine(nn.Module, ABC):
    """A weight ``[out, in, ...]`` and a bias ``[out]``; subclasses say how to draw and to apply them.

    These are deliberately not `nn.Linear` or `nn.Conv2d`: code that re-initialises those two by PyTorch's
    rule would otherwise do the same to these without a word.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, *shape: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        if bias:
            self.bias = nn.Parameter(torch.empty(shape[0]))
        else:
            self.register_parameter("bias", None)
        self.fan_in = math.prod(shape[1:])
        self.reset_parameters()

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters afresh.

        Args:
            generator: Source of randomness; PyTorch's global one when None, as in PyTorch's own layers.
        """

    def scaled(self) -> tuple[Tensor, Tensor | None]:
        """The weight and bias as they are applied."""
        return self.weight, self.bias

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, bias={self.bias is not None}"


class _Lecun(_Affine):
    """Flax's ``lecun_normal`` weights and zero biases."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        std = 1 / (math.sqrt(self.fan_in) * _CUT_NORMAL_STD)
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class _NTK(_Affine):
    """Unit-normal parameters, scaled when they are used."""

    # Equal to the bias scale of KIP's networks; small, so that the weights carry the signal.
    bias_scale = 0.1

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, generator=generator)
        if self.bias is not None:
            nn.init.normal_(self.bias, generator=generator)

    def scaled(self) -> tuple[Tensor, Tensor | None]:
        bias = None if self.bias is None else self.bias * self.bias_scale
        return self.weight / math.sqrt(self.fan_in), bias


class _Linear(_Affine):
    """``[n, inputs] -> [n, outputs]``."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(out_features, in_features, bias=bias)
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.scaled())


class _Conv2d(_Affine):
    """``[n, inputs, h, w] -> [n, outputs, h', w']``, square kernel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(out_channels, in_channels, kernel_size, kernel_size, bias=bias)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = (kernel_size, kernel_size)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.scaled(), stride=self.stride, padding=self.padding)


class LecunLinear(_Lecun, _Linear):
    """A linear layer that starts as Flax's do.

    Args:
        in_features: Length of the input.
        out_features: Length of the output.
        bias: Whether to add a bias, which starts at zero.
    """


class LecunConv2d(_Lecun, _Conv2d):
    """A square convolution that starts as Flax's do.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        stride: Step between two places of the kernel.
        padding: Zeros on every side.
        bias: Whether to add a bias, which starts at zero.
    """


class NTKLinear(_NTK, _Linear):
    """A linear layer in the NTK parametrisation (Jacot et al. 2018): ``x w^T / sqrt(fan_in) + 0.1 b``.

    Args:
        in_features: Length of the input.
        out_features: Length of the output.
        bias: Whether to add a bias.
    """


class NTKConv2d(_NTK, _Conv2d):
    """A square convolution in the NTK parametrisation (Jacot et al. 2018): ``w * x / sqrt(fan_in) + 0.1 b``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        stride: Step between two places of the kernel.
        padding: Zeros on every side.
        bias: Whether to add a bias.
    """


_LINEAR: dict[Parametrisation, type[nn.Linear | LecunLinear | NTKLinear]] = {
    Parametrisation.STANDARD: nn.Linear,
    Parametrisation.LECUN: LecunLinear,
    Parametrisation.NTK: NTKLinear,
}
_CONV: dict[Parametrisation, type[nn.Conv2d | LecunConv2d | NTKConv2d]] = {
    Parametrisation.STANDARD: nn.Conv2d,
    Parametrisation.LECUN: LecunConv2d,
    Parametrisation.NTK: NTKConv2d,
}


class AvgPool(nn.Module):
    """Average pooling 2x2 with stride 2, ``[n, c, h, w] -> [n, c, h // 2, w // 2]``.

    On a CPU in float32 it is a depthwise convolution with constant weights: PyTorch's own pooling is not vectorised
    there and takes about five times as long forward and three times backward (benchmarks/pieces.py). Compiled code has
    its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each 2x2 square; an odd last row or column is left out."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
            return F.avg_pool2d(x, 2)
        return cast(Tensor, _Mean.apply(x))  # type: ignore[no-untyped-call]


class _Mean(torch.autograd.Function):
    """The means of 2x2 squares. PyTorch differentiates a depthwise convolution's backward pass channel by channel, at
    many times the cost of the pass; this map and its transpose are each other's backward pass, at any order.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.conv2d(x, _quarters(x), stride=2, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.sides = inputs[0].shape[-2:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return cast(Tensor, _Spread.apply(grads[0], *ctx.sides))  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return cast(Tensor, _Mean.apply(tangents[0]))  # type: ignore[no-untyped-call]


class _Spread(torch.autograd.Function):
    """The transpose of `_Mean`: a quarter of each value to each of its four pixels, to sides h and w."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, h: int, w: int) -> Tensor:
        groups = g.shape[1]
        return F.conv_transpose2d(g, _quarters(g), stride=2, groups=groups, output_padding=(h % 2, w % 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        ctx.sides = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return cast(Tensor, _Mean.apply(grads[0])), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return cast(Tensor, _Spread.apply(tangents[0], *ctx.sides))  # type: ignore[no-untyped-call]


def _quarters(x: Tensor) -> Tensor:
    """The weights of a depthwise mean."""
    return x.new_full((x.shape[1], 1, 2, 2), 0.25)


@dataclass(frozen=True, kw_only=True)
class Style:
    """The choices that every layer of a network shares, and the maker of those layers.

    Args:
        norm: Normalisation.
        activation: Nonlinearity.
        beta: Sharpness of `Activation.SOFTPLUS`; the others do not read it.
        pooling: Pooling.
        parametrisation: Parametrisation of convolutions and linear layers.

    Raises:
        ValueError: If a choice does not exist or beta is not above zero.
    """

    norm: Norm = Norm.NONE
    activation: Activation = Activation.RELU
    beta: float = 60.0
    pooling: Pooling = Pooling.NONE
    parametrisation: Parametrisation = Parametrisation.STANDARD

    def __post_init__(self) -> None:
        # A config read from JSON holds plain strings, so they are read here once for every network.
        object.__setattr__(self, "norm", choice(Norm, self.norm, "norm"))
        object.__setattr__(self, "activation", choice(Activation, self.activation, "activation"))
        object.__setattr__(self, "pooling", choice(Pooling, self.pooling, "pooling"))
        object.__setattr__(self, "parametrisation", choice(Parametrisation, self.parametrisation, "parametrisation"))
        if isinstance(self.beta, str) or not self.beta > 0:
            raise ValueError(f"beta must be a number above 0, got {self.beta!r}.")

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
    ) -> nn.Module:
        """A convolution ``[n, inputs, h, w] -> [n, outputs, h', w']``, by default at the same side."""
        padding = kernel // 2 if padding is None else padding
        return _CONV[self.parametrisation](inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """A linear layer ``[n, inputs] -> [n, outputs]``."""
        return _LINEAR[self.parametrisation](inputs, outputs)

    def normalise(self, channels: int) -> nn.Module:
        """The normalisation of a map ``[n, channels, h, w]``.

        Raises:
            ValueError: If `Norm.GROUP` cannot share the channels among its 4 groups.
        """
        match self.norm:
            case Norm.NONE:
                return nn.Identity()
            case Norm.BATCH:
                return nn.BatchNorm2d(channels)
            case Norm.INSTANCE:
                return nn.GroupNorm(channels, channels)
            case Norm.LAYER:
                return nn.GroupNorm(1, channels)
            case Norm.GROUP:
                if channels % _GROUPS:
                    raise ValueError(
                        f"Norm.GROUP cannot share {channels} channels among its {_GROUPS} groups: choose "
                        f"a width that gives every layer a multiple of {_GROUPS}."
                    )
                return nn.GroupNorm(_GROUPS, channels)

    def activate(self) -> nn.Module:
        """The nonlinearity, never in place."""
        match self.activation:
            case Activation.RELU:
                return nn.ReLU()
            case Activation.LEAKY_RELU:
                return nn.LeakyReLU(0.01)
            case Activation.SIGMOID:
                return nn.Sigmoid()
            case Activation.SWISH:
                return nn.SiLU()
            case Activation.SOFTPLUS:
                return nn.Softplus(beta=self.beta)

    def pool(self) -> nn.Module:
        """The pooling ``[n, c, h, w] -> [n, c, h // 2, w // 2]``."""
        match self.pooling:
            case Pooling.AVG:
                return AvgPool()
            case Pooling.MAX:
                return nn.MaxPool2d(2)
            case Pooling.NONE:
                return nn.Identity()

    def config(self, *names: str) -> dict[str, JSON]:
        """The named choices as plain values, for a network's config."""
        values = {name: getattr(self, name) for name in names}
        return {name: v.value if isinstance(v, StrEnum) else v for name, v in values.items()}
