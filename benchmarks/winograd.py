"""What a wide 3x3 convolution and its gradients cost, written out and by Winograd's filtering.

    OMP_NUM_THREADS=1 python benchmarks/winograd.py

The layers of the JAX family's ConvNet-3 behind the first, at widths 128 and 32, on 32 images. Prints a table and writes
benchmarks/results/winograd.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condensery import winograd
from condensery.memory import keep_freed_memory
from condensery.store import write_text
from peer_vico import versions
from pieces import Times, measure, processor

HERE = Path(__file__).parent
IMAGES = 32
LAYERS = ((32, 64, 16), (64, 128, 8), (128, 256, 16), (256, 512, 8))  # channels in and out, size
FORMS = {"usual": "written out", "last": "written out, channels last", "winograd": "Winograd"}
PARTS = {"value": "value", "images": "gradient in the images", "weight": "gradient in the weight"}


def backward(g: Tensor, x: Tensor, weight: Tensor, *wanted: bool) -> Any:
    """PyTorch's."""
    ones = [1, 1]
    return torch.ops.aten.convolution_backward(g, x, weight, None, ones, ones, ones, False, [0, 0], 1, [*wanted, False])


def layer(inputs: int, outputs: int, size: int) -> dict[str, Any]:
    """A layer's times, CPU milliseconds, and how wrong its values are, in units of the largest."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(IMAGES, inputs, size, size, generator=generator)
    g = torch.randn(IMAGES, outputs, size, size, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    xl, gl = (t.contiguous(memory_format=torch.channels_last) for t in (x, g))
    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "usual": {
            "value": lambda: torch.conv2d(x, weight, padding=1),
            "images": lambda: backward(g, x, weight, True, False),
            "weight": lambda: backward(g, x, weight, False, True),
        },
        "last": {
            "value": lambda: torch.conv2d(xl, weight, padding=1),
            "images": lambda: backward(gl, xl, weight, True, False),
            "weight": lambda: backward(gl, xl, weight, False, True),
        },
        "winograd": {
            "value": lambda: winograd.convolve(xl, weight),
            "images": lambda: winograd.input_gradient(gl, weight),
            "weight": lambda: winograd.weight_gradient(gl, xl),
        },
    }
    times: dict[str, dict[str, Times]] = {form: {} for form in calls}
    for part in PARTS:
        for form, made in calls.items():
            times[form][part] = measure(made[part])
    exact = torch.conv2d(x.double(), weight.double(), padding=1)
    errors = {form: ((made["value"]() - exact).abs().max() / exact.abs().max()).item() for form, made in calls.items()}
    return {"inputs": inputs, "outputs": outputs, "size": size, "times": times, "errors": errors}


def markdown(found: dict[str, Any]) -> str:
    """The table of the documentation."""
    heads = ["layer", "", *FORMS.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for made in found["layers"]:
        name = f"{made['inputs']} to {made['outputs']} channels, {made['size']} x {made['size']}"
        for part, title in PARTS.items():
            cells = [f"{made['times'][form][part]['min_ms']:.1f}" for form in FORMS]
            lines.append(f"| {name} | {title} | {' | '.join(cells)} |")
        wrong = [f"{made['errors'][form]:.0e}" for form in FORMS]
        lines.append(f"| {name} | largest error of a value | {' | '.join(wrong)} |")
    notes = (
        f"CPU milliseconds for {IMAGES} images with one thread, float32, the least of several; errors are shares of "
        f"the largest value. {found['host']['processor']}, PyTorch {found['host']['torch']}. "
        "Made by `benchmarks/winograd.py`."
    )
    return "\n".join([*lines, "", notes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "winograd.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    load = [os.getloadavg()[0]]
    found: dict[str, Any] = {"layers": [layer(*sizes) for sizes in LAYERS]}
    found["host"] = {"processor": processor(), "threads": 1, "load": [*load, os.getloadavg()[0]], **versions()}
    print(markdown(found))
    write_text(options.output, json.dumps({"table": markdown(found), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
