"""Networks by name: `describe` writes one down as plain JSON values and `build` makes it again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from condensery.nets.cells import CellNet
from condensery.nets.graph import GRAPH, candidates
from condensery.nets.layers import (
    Activation,
    LecunConv2d,
    LecunLinear,
    Norm,
    NTKConv2d,
    NTKLinear,
    Parametrisation,
    Pooling,
)
from condensery.nets.pooled import POOLED
from condensery.nets.recommender import MF, LightGCN, Recommender
from condensery.nets.vision import (
    MLP,
    VGG11,
    AlexNet,
    ConvNet,
    LeNet,
    ResNet18,
    ResNet18AP,
    ResNet18Flat,
    VGG11Narrow,
    VisionNet,
    default_depth,
)

__all__ = [
    "GRAPH",
    "MF",
    "MLP",
    "POOLED",
    "VGG11",
    "VISION",
    "Activation",
    "AlexNet",
    "CellNet",
    "ConvNet",
    "LeNet",
    "LecunConv2d",
    "LecunLinear",
    "LightGCN",
    "NTKConv2d",
    "NTKLinear",
    "Norm",
    "Parametrisation",
    "Pooling",
    "Recommender",
    "ResNet18",
    "ResNet18AP",
    "ResNet18Flat",
    "VGG11Narrow",
    "VisionNet",
    "build",
    "candidates",
    "default_depth",
    "describe",
]

VISION: dict[str, type[nn.Module]] = {
    net.__name__: net
    for net in (ConvNet, AlexNet, VGG11, VGG11Narrow, ResNet18, ResNet18Flat, ResNet18AP, MLP, LeNet, CellNet)
}


def describe(module: nn.Module) -> dict[str, Any]:
    """Write a network down: its class and every constructor argument.

    Args:
        module: A network of this package, or any module with a ``config`` of its constructor arguments.

    Returns:
        ``{"net": class name, **config}``, JSON values only; `build` reads it.

    Raises:
        ValueError: If the module has no ``config``.

    Example:
        >>> describe(LeNet(channels=1, classes=10, size=28))["net"]
        'LeNet'
    """
    config = getattr(module, "config", None)
    if not isinstance(config, Mapping):
        raise ValueError(
            f"{type(module).__name__} cannot be described: give it a `config` of its constructor arguments."
        )
    return {"net": type(module).__name__, **config}


def build(config: Mapping[str, Any]) -> nn.Module:
    """Make the network that a config describes, newly initialised.

    Args:
        config: ``{"net": name, ...}`` with the constructor arguments, as `describe` returns it; arguments
            with a default may be left out.

    Returns:
        The network.

    Raises:
        ValueError: If the name is unknown, an argument is unknown or missing, or a value is not valid.

    Example:
        >>> net = build({"net": "ConvNet", "channels": 1, "classes": 10, "size": 8, "norm": "batch"})
        >>> net.config["depth"]
        2
    """
    name, known = config.get("net"), {**VISION, **GRAPH, **POOLED}
    if name not in known:
        raise ValueError(f"config['net'] must be one of {', '.join(known)}, got {name!r}.")
    arguments = {key: value for key, value in config.items() if key != "net"}
    parameters = inspect.signature(known[name]).parameters
    if unknown := [key for key in arguments if key not in parameters]:
        raise ValueError(f"{name} has no argument {', '.join(unknown)}: it takes {', '.join(parameters)}.")
    required = [key for key, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    if missing := [key for key in required if key not in arguments]:
        raise ValueError(f"{name} needs {', '.join(required)}: add {', '.join(missing)} to the config.")
    # PyTorch's layers draw their first weights from the global generator: its state is put back.
    with torch.random.fork_rng(devices=[]):
        return known[name](**arguments)
