"""Micro-benchmarks behind the choices that the code's comments quote: pieces, pooling, freed memory, convolutions.

    OMP_NUM_THREADS=1 python benchmarks/pieces.py

Prints tables and writes benchmarks/results/pieces.json. Times are CPU seconds with one thread: the least and the
median of several repetitions. ConvNet-3 of width 128 with instance normalisation on images of 32 x 32 throughout.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import condensery as cd
from condensery.memory import keep_freed_memory
from condensery.nets.layers import AvgPool
from condensery.store import write_text
from peer_vico import resident, versions

HERE = Path(__file__).parent
BATCH, PIECES = 256, (256, 64, 32, 16, 8, 4)
CONVOLUTIONS = {"conv1": (3, 32), "conv2": (128, 16), "conv3": (128, 8)}  # input channels, side; 128 outputs, 3 x 3
LINEAR = (2048, 10)
PASSES = ("forward", "input", "weight")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Times = dict[str, float]


def measure(function: Callable[[], Any], *, least: int = 5, seconds: float = 0.4) -> Times:
    """CPU milliseconds of a call: the least and the median of as many as fit in `seconds`, at least `least`."""
    function()
    taken: list[float] = []
    while len(taken) < least or sum(taken) < seconds:
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return {"min_ms": 1000 * min(taken), "median_ms": 1000 * statistics.median(taken), "n": len(taken)}


# --- a network in pieces ----------------------------------------------------------------------------------------------


def network_in_pieces() -> dict[str, dict[int, Times]]:
    """Forward, and forward with the gradient of the parameters, on 256 images in pieces."""
    generator = torch.Generator().manual_seed(0)
    net = cd.Net(cd.nets.ConvNet(channels=3, classes=10, size=32))
    module = net.at(net.init(generator))
    x, y = torch.randn(BATCH, 3, 32, 32, generator=generator), torch.arange(BATCH) % 10
    parameters = list(module.parameters())

    def forward(size: int) -> None:
        with torch.no_grad():
            for part in x.split(size):
                module(part)

    def gradient(size: int) -> None:
        for px, py in zip(x.split(size), y.split(size), strict=True):
            torch.autograd.grad(F.cross_entropy(module(px), py, reduction="sum"), parameters)

    return {
        "forward": {size: measure(lambda size=size: forward(size), seconds=1.0) for size in PIECES},
        "gradient": {size: measure(lambda size=size: gradient(size), seconds=1.0) for size in PIECES},
    }


# --- pooling ----------------------------------------------------------------------------------------------------------


def pooling() -> dict[str, dict[str, Times]]:
    """`AvgPool` and PyTorch's own, in pieces of 8, on the three maps that the network pools."""
    found: dict[str, dict[str, Times]] = {}
    for side in (32, 16, 8):
        x = torch.randn(8, 128, side, side, requires_grad=True)
        for name, pool in (("AvgPool", AvgPool()), ("avg_pool2d", lambda x: F.avg_pool2d(x, 2))):
            y = pool(x)
            upstream = torch.randn_like(y)
            with torch.no_grad():
                forward = measure(lambda pool=pool, x=x: pool(x))
            backward = measure(lambda x=x, y=y, g=upstream: torch.autograd.grad(y, x, g, retain_graph=True))
            found[f"{name} {side}"] = {"forward": forward, "backward": backward}
    return found


# --- freed memory -----------------------------------------------------------------------------------------------------


def freed_memory() -> dict[str, Any]:
    """`network_in_pieces` and the peak memory, in fresh processes with and without `keep_freed_memory`."""
    found = {}
    for kept in (False, True):
        command = [sys.executable, __file__, "--network", *(["--keep"] if kept else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found["kept" if kept else "given back"] = json.loads(done.stdout)
    return found


def network_worker(kept: bool) -> None:
    if kept and not keep_freed_memory():
        raise SystemExit("memory cannot be kept here: not Linux with glibc")
    print(json.dumps({**network_in_pieces(), "peak_mb": resident("VmHWM")}))


# --- what the machine's convolutions can do ---------------------------------------------------------------------------


def multiplications(layer: str) -> int:
    """Multiply-adds of a layer for one image."""
    if layer == "linear":
        return LINEAR[0] * LINEAR[1]
    inputs, side = CONVOLUTIONS[layer]
    return side * side * 128 * inputs * 9


def rates(pieces: tuple[int, ...] = (8, 16, 32, 64)) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """GFLOP/s of each layer's passes, in each precision: the best over sizes of a piece and memory orders.

    A multiply-add counts as two operations. The passes are the forward one and the gradients in input and weight.
    """
    found: dict[str, Any] = {}
    for (name, dtype), layer in itertools.product(PRECISIONS.items(), [*CONVOLUTIONS, "linear"]):
        best = {kind: {"gflops": 0.0} for kind in PASSES}
        orders = [torch.contiguous_format] + ([torch.channels_last] if layer != "linear" else [])
        for size, order in itertools.product(pieces, orders):
            for kind, call in _calls(layer, size, dtype, order).items():
                seconds = measure(call, seconds=0.1)["min_ms"] / 1000
                speed = round(2 * size * multiplications(layer) / seconds / 1e9, 1)
                if speed > best[kind]["gflops"]:
                    best[kind] = {"gflops": speed, "piece": size, "order": str(order).removeprefix("torch.")}
        found.setdefault(name, {})[layer] = best
    return found


def _calls(layer: str, n: int, dtype: torch.dtype, order: torch.memory_format) -> dict[str, Callable[[], Any]]:
    if layer == "linear":
        x, w, g = (torch.randn(shape, dtype=dtype) for shape in ((n, LINEAR[0]), LINEAR[::-1], (n, LINEAR[1])))
        return {"forward": lambda: F.linear(x, w), "input": lambda: g @ w, "weight": lambda: g.T @ x}
    inputs, side = CONVOLUTIONS[layer]
    shapes = ((n, inputs, side, side), (128, inputs, 3, 3), (n, 128, side, side))
    x, w, g = (torch.randn(shape).to(dtype).contiguous(memory_format=order) for shape in shapes)

    def backward(mask: list[bool]) -> Any:
        one, zero = [1, 1], [0, 0]
        return torch.ops.aten.convolution_backward(g, x, w, None, one, one, one, False, zero, 1, mask)

    return {
        "forward": lambda: F.conv2d(x, w, padding=1),
        "input": lambda: backward([True, False, False]),
        "weight": lambda: backward([False, True, False]),
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def show(console: Console, found: dict[str, Any]) -> None:
    title = "256 images through ConvNet-3 in pieces of so many, CPU ms, least (times the best)"
    table = Table("freed memory", *map(str, PIECES), title=title)
    for memory, kind in itertools.product(found["network"], ("forward", "gradient")):
        times = {int(size): t["min_ms"] for size, t in found["network"][memory][kind].items()}
        least = min(times.values())
        table.add_row(f"{memory}, {kind}", *(f"{times[p]:.0f} ({times[p] / least:.2f})" for p in PIECES))
    console.print(table)
    peaks = {memory: values["peak_mb"] for memory, values in found["network"].items()}
    console.print(f"peak memory in MB: {peaks}")
    table = Table("map", "ours", "PyTorch", "ratio", title="2x2 pooling of 8 x 128 maps, CPU ms, least")
    for side, kind in itertools.product((32, 16, 8), ("forward", "backward")):
        ours, theirs = (found["pooling"][f"{name} {side}"][kind]["min_ms"] for name in ("AvgPool", "avg_pool2d"))
        table.add_row(f"{side} x {side}, {kind}", f"{ours:.3f}", f"{theirs:.3f}", f"{theirs / ours:.1f}")
    console.print(table)
    show_rates(console, found["rates"])


def show_rates(console: Console, found: dict[str, Any]) -> None:
    table = Table("layer", *(f"{p} {k}" for p in PRECISIONS for k in PASSES), title="GFLOP/s, the best piece and order")
    for layer in [*CONVOLUTIONS, "linear"]:
        table.add_row(layer, *(f"{found[p][layer][k]['gflops']:.0f}" for p in PRECISIONS for k in PASSES))
    console.print(table)


def markdown(found: dict[str, Any]) -> str:
    """The tables of the documentation."""
    lines = [f"| 256 images in pieces of | {' | '.join(map(str, PIECES))} |", "|---" * (len(PIECES) + 1) + "|"]
    for memory, kind in itertools.product(found["network"], ("forward", "gradient")):
        times = {int(size): t["min_ms"] for size, t in found["network"][memory][kind].items()}
        lines.append(f"| {kind}, freed memory {memory} | {' | '.join(f'{times[size]:.0f}' for size in PIECES)} |")
    lines += ["", "| 2x2 pooling of 8 maps of 128 x | AvgPool | PyTorch | ratio |", "|---|---|---|---|"]
    for side, kind in itertools.product((32, 16, 8), ("forward", "backward")):
        ours, theirs = (found["pooling"][f"{name} {side}"][kind]["min_ms"] for name in ("AvgPool", "avg_pool2d"))
        lines.append(f"| {side} x {side}, {kind} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.1f} |")
    where = f"{found['host']['processor']}, PyTorch {found['host']['torch']}"
    notes = f"CPU milliseconds with one thread, the least of several. {where}. Made by `benchmarks/pieces.py`."
    return "\n".join([*lines, "", notes])


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


@functools.cache
def commit() -> str | None:
    """The commit of the working tree, ``-dirty`` where a tracked file differs, if git knows one; as first asked for."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "pieces.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.network:
        network_worker(options.keep)
        return
    load = [os.getloadavg()[0]]
    found: dict[str, Any] = {"network": freed_memory()}
    keep_freed_memory()
    found |= {"pooling": pooling(), "rates": rates()}
    show(Console(width=120), found)
    found["host"] = {"processor": processor(), "threads": 1, "load": [*load, os.getloadavg()[0]], **versions()}
    write_text(options.output, json.dumps({"table": markdown(found), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
