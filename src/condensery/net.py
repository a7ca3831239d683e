"""A network as the papers write it: f(theta, x), with theta one flat vector."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_
from torch.nn.modules.batchnorm import _BatchNorm

# Largest activation worth making at once on a CPU. By default glibc gives larger tensors back to the system and the
# kernel zeroes fresh pages for the next: a ConvNet-3 of width 128 runs 3.2 times as fast forward, and 2.5 times with
# its gradient, in pieces of 8 images as in one of 256, and its memory does not grow with the batch
# (benchmarks/pieces.py).
_CPU_ACTIVATION_BYTES = 4 << 20
# In float32 and channels last larger pieces pay: they share the transforms of the weights (see `winograd`).
_CHANNELS_LAST = 6


class Net:
    """An ``nn.Module`` seen as a function of one flat parameter vector.

    The module is a template: its own parameters are never trained. It is called in training mode, and batch
    normalisation uses the statistics of the batch it is given, unless fixed `statistics` are passed.

    Args:
        module: Any module whose ``forward`` maps ``x`` to logits ``[n, classes]``. If it has a method ``embed(x)``,
            that is the embedding; otherwise the input of its last ``nn.Linear`` is.

    Example:
        >>> net = Net(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> theta = net.init(torch.Generator().manual_seed(0))
        >>> theta.shape, net(theta, torch.zeros(2, 4)).shape, net.embed(theta, torch.zeros(2, 4)).shape
        (torch.Size([15]), torch.Size([2, 3]), torch.Size([2, 4]))
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        if not self._sizes:
            raise ValueError("The module has no parameters; give one that can be trained.")
        self._scratch = copy.deepcopy(module).train()
        functional = replace_all_batch_norm_modules_(copy.deepcopy(module).train())
        self._functional = _Methods(functional)
        self._fixed = _Methods(copy.deepcopy(module)).eval()  # for given batch-normalisation statistics
        self._activation_bytes: dict[tuple[int, ...], int] = {}

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(self._sizes)

    @property
    def has_batch_norm(self) -> bool:
        """Whether examples of a batch influence each other through batch normalisation."""
        return any(isinstance(m, _BatchNorm) for m in self.module.modules())

    def init(self, generator: torch.Generator, *, device: torch.device | str | None = None) -> Tensor:
        """Draw a fresh parameter vector ``[size]`` with each layer's own rule of initialisation.

        Args:
            generator: A CPU generator; nothing else is random.
            device: Where to put the vector (default: CPU).
        """
        for name, layer in self._scratch.named_modules():
            _reset(name, layer, generator)
        with torch.no_grad():
            theta = torch.cat([p.reshape(-1) for p in self._scratch.parameters()])
        return theta.to(device, non_blocking=True) if device is not None else theta

    def __call__(self, theta: Tensor, x: Tensor, *, statistics: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits ``[n, classes]`` of the network with parameters `theta` ``[size]``.

        Args:
            theta: The parameters.
            x: A batch of inputs.
            statistics: Fixed batch-normalisation statistics, from `statistics`; default: those of the batch.
        """
        return self._call("forward", theta, x, statistics)

    def embed(self, theta: Tensor, x: Tensor, *, statistics: Mapping[str, Tensor] | None = None) -> Tensor:
        """Features ``[n, d]``: what enters the last linear layer."""
        return self._call("embed", theta, x, statistics)

    def layers(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of `theta` ``[size]`` (or of anything shaped like it, such as a gradient), by parameter name."""
        pieces = theta.split(self._sizes)
        return {name: piece.view(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}

    def flat(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The flat vector ``[size]`` of named parameters: the inverse of `layers`."""
        return torch.cat([parameters[name].reshape(-1) for name in self._shapes])

    def statistics(self, theta: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Means and variances that batch normalisation sees on `x`: fixed statistics for `__call__` and `embed`."""
        module = copy.deepcopy(self.module).to(theta.device, theta.dtype).train()
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.momentum = None  # the running value becomes this batch's own
                layer.reset_running_stats()
        with torch.no_grad():
            functional_call(module, self.layers(theta), (x,))
        return {name: b for name, b in module.named_buffers() if name.endswith(("running_mean", "running_var"))}

    def at(self, theta: Tensor) -> nn.Module:
        """An ordinary trainable module with parameters `theta`, on its device: independent of this template."""
        module = copy.deepcopy(self.module).to(theta.device, theta.dtype)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(self.layers(theta)[name])
        return module

    def chunk(self, x: Tensor) -> int:
        """How many examples of `x` to put through the network at a time where the result does not depend on it.

        On a CPU as many as keep the largest activation small (see the note above); elsewhere all of them.
        """
        if not isinstance(x, Tensor):
            raise ValueError("Nodes influence each other through their graph; call the network on all of them at once.")
        if x.device.type != "cpu":
            return max(1, len(x))
        last = x.dim() == 4 and x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)
        larger = _CHANNELS_LAST if last and x.dtype == torch.float32 else 1
        return max(1, larger * _CPU_ACTIVATION_BYTES // self.activation_bytes(x))

    def arranged(self, x: Tensor) -> Tensor:
        """Images in the memory format in which they go through this network most quickly: the same values.

        That is channels last on a CPU, but not with group normalisation, which is slower there, and only for the
        networks of `nets`: others may rely on the usual order.
        """
        if not (isinstance(x, Tensor) and x.dim() == 4 and x.device.type == "cpu" and self._takes_any_format):
            return x
        if x.shape[1] == 1:  # contiguous in either sense, and taken for the usual one by its strides
            return x[:, 0].unsqueeze(-1).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _takes_any_format(self) -> bool:
        ours = getattr(self.module, "any_memory_format", False)
        return ours and not any(isinstance(m, nn.GroupNorm) for m in self.module.modules())

    def activation_bytes(self, x: Tensor) -> int:
        """Bytes of the largest activation that one example of `x` makes, in float32."""
        shape = tuple(x.shape[1:])
        if shape not in self._activation_bytes:
            self._activation_bytes[shape] = self._measure(x[:1].cpu())
        return self._activation_bytes[shape]

    def _measure(self, x: Tensor) -> int:
        largest = [x.numel()]
        hooks = [
            layer.register_forward_hook(
                lambda _m, _i, out: largest.append(out.numel() if isinstance(out, Tensor) else 0)
            )
            for layer in self._functional.modules()
        ]
        try:
            with torch.no_grad():
                self._functional("forward", x.detach().float())
        finally:
            for hook in hooks:
                hook.remove()
        return 4 * max(largest)

    def _call(self, method: str, theta: Tensor, x: Tensor, statistics: Mapping[str, Tensor] | None) -> Tensor:
        template = self._functional if statistics is None else self._fixed
        state = {**self.layers(theta), **(statistics or {})}
        return functional_call(template, {f"module.{name}": value for name, value in state.items()}, (method, x))


class _Methods(nn.Module):
    """Lets `functional_call`, which knows only ``forward``, reach a module's other methods."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, x: Tensor) -> Tensor:
        if method == "forward":
            return self.module(x)
        embed = getattr(self.module, "embed", None)
        return embed(x) if embed is not None else _last_linear_input(self.module, x)


def _last_linear_input(module: nn.Module, x: Tensor) -> Tensor:
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError("The module has no nn.Linear layer to embed before; give it a method embed(x).")
    seen: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    try:
        module(x)
    finally:
        hook.remove()
    return seen[-1].flatten(1)


def _reset(name: str, layer: nn.Module, generator: torch.Generator) -> None:
    """Initialise a layer's own parameters in place.

    Convolutions and linear layers follow PyTorch's default rule, drawn from `generator`; a layer whose
    ``reset_parameters`` takes a generator is given it; any other one is reset under a forked global generator seeded
    from it. A layer with parameters and no ``reset_parameters`` (a learned token, say) keeps the values that it was
    built with.
    """
    reset = getattr(layer, "reset_parameters", None)
    if reset is None or not any(True for _ in layer.parameters(recurse=False)):
        return
    if "generator" in inspect.signature(reset).parameters:
        reset(generator=generator)
    elif type(layer) in _FAN_IN_LAYERS:
        _reset_fan_in(layer, generator)
    elif isinstance(layer, nn.GroupNorm | nn.LayerNorm | _BatchNorm):
        reset()  # ones and zeros: nothing random
    else:
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            reset()


_FAN_IN_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _reset_fan_in(layer: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's default for these layers: weights and biases uniform in +-1/sqrt(fan_in)."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    bound = 1.0 / math.sqrt(max(1, weight[0].numel()))
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)
        if isinstance(bias, Tensor):
            bias.uniform_(-bound, bound, generator=generator)
