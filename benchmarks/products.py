"""What a product with a network's derivatives costs on kept graphs, with the layers of `condensery.lean` and PyTorch's.

    OMP_NUM_THREADS=1 python benchmarks/products.py

RCIG's network at width 32 (widths double by stage, softplus, no normalisation) on 20 images of CIFAR-10's shape. Prints
a table and writes benchmarks/results/products.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import condensery as cd
from condensery.lean import Lean
from condensery.memory import keep_freed_memory
from condensery.store import write_text
from peer_vico import versions
from pieces import Times, measure, processor

HERE = Path(__file__).parent
IMAGES, WIDTH = 20, 32
ROWS = {
    "graphs": "both graphs, made",
    "pull": "J^T c",
    "push": "J u, by reverse over reverse",
    "hessian": "H v",
    "mixed": "the gradient of <g, v> in the images",
}


def network() -> cd.Net:
    """RCIG's, while condensing."""
    norm, start = cd.nets.Norm.NONE, cd.nets.Parametrisation.LECUN
    shape = {"channels": 3, "classes": 10, "size": 32, "width": WIDTH, "doubling": True}
    smooth = {"activation": cd.nets.Activation.SOFTPLUS, "beta": 60.0}
    return cd.Net(cd.nets.ConvNet(**shape, norm=norm, parametrisation=start, **smooth))


def products(layers: Callable[[], Any]) -> dict[str, Times]:
    """CPU milliseconds of each product with the layers of a context."""
    generator = torch.Generator().manual_seed(0)
    net = network()
    theta = net.init(generator).requires_grad_()
    x, c = (torch.randn(shape, generator=generator) for shape in ((IMAGES, 3, 32, 32), (IMAGES, 10)))
    u = torch.randn(theta.shape, generator=generator)
    leaf = x.clone().requires_grad_()

    def value(images: Tensor) -> Tensor:
        with layers():
            return net(theta, images)

    def graphs() -> tuple[Tensor, Tensor, Tensor]:
        made = value(x)
        zero = torch.zeros_like(made, requires_grad=True)
        return made, zero, torch.autograd.grad(made, theta, zero, create_graph=True)[0]

    def gradient(images: Tensor) -> Tensor:
        return torch.autograd.grad(0.5 * value(images).square().sum(), theta, create_graph=True)[0]

    f, zero, pulled = graphs()
    g, of_images = gradient(x), gradient(leaf)
    calls = {
        "graphs": graphs,
        "pull": lambda: torch.autograd.grad(f, theta, c, retain_graph=True),
        "push": lambda: torch.autograd.grad(pulled, zero, u, retain_graph=True),
        "hessian": lambda: torch.autograd.grad(g, theta, u, retain_graph=True),
        "mixed": lambda: torch.autograd.grad(of_images, leaf, u, retain_graph=True),
    }
    return {name: measure(call) for name, call in calls.items()}


def markdown(found: dict[str, Any]) -> str:
    """The table of the documentation."""
    lines = ["| | Lean | PyTorch | ratio |", "|---|---|---|---|"]
    for name, title in ROWS.items():
        ours, theirs = (found[layers][name]["min_ms"] for layers in ("lean", "torch"))
        lines.append(f"| {title} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} |")
    where = f"{found['host']['processor']}, PyTorch {found['host']['torch']}"
    notes = f"CPU milliseconds with one thread, the least of several. {where}. Made by `benchmarks/products.py`."
    return "\n".join([*lines, "", notes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "products.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    load = [os.getloadavg()[0]]
    found: dict[str, Any] = {"lean": products(Lean), "torch": products(contextlib.nullcontext)}
    found["host"] = {"processor": processor(), "threads": 1, "load": [*load, os.getloadavg()[0]], **versions()}
    print(markdown(found))
    write_text(options.output, json.dumps({"table": markdown(found), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
