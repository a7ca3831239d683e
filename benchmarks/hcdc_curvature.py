"""Solves with the Hessian and with the Gauss-Newton matrix along the training of a supernet; called by `hcdc.py`."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

import condensery as cd
from condensery import spaces
from condensery.bilevel import AutoNeumann, Cg, CompositeLoss, Converged, Curvature, GaussNewton, Momentum
from condensery.nets.cells import Supernet

PER_CLASS, DAMPING, DECAY, PLACES = 10, 0.1, 5e-4, (0, 20, 80, 320, 1280)
SOLVES = {"CG": Cg(20, 1e-6), "Neumann": AutoNeumann(20)}
KINDS = {"hessian": Curvature, "gauss-newton": GaussNewton}


def measure() -> dict[str, Any]:
    """After so many steps on ten digits a class: lowest eigenvalue, residuals after 20 steps, seconds of a product."""
    g = torch.Generator().manual_seed(0)
    train = cd.Images.from_real(cd.data.digits().train, PER_CLASS, g)()
    net = cd.Net(Supernet(channels=1, classes=10, size=8, width=8, stages=2))
    space = spaces.Cells(net)
    batch, lam = cd.Batch(train.x.detach(), train.y), space.starts(g)[0]

    def parts(random: torch.Generator | int) -> CompositeLoss:
        def split(theta: Tensor, lam: Tensor) -> Any:
            generator = random if isinstance(random, torch.Generator) else torch.Generator().manual_seed(random)
            outputs = space.outputs(theta, lam, batch, generator)
            return outputs, lambda z, t, h: space.misfit(z, t, h, batch) + 0.5 * DECAY * t.square().sum()

        return CompositeLoss.of(split)

    learner = Converged(Momentum(0.05))
    training, done, points = learner.start(space.init(g)), 0, []
    for place in PLACES:
        training = learner.train(training, parts(g), lam, place - done)
        done = place
        b = torch.randn(len(training.theta), generator=g)
        points.append(
            {"steps": place, **{n: at(kind, parts(place), training.theta, lam, b) for n, kind in KINDS.items()}}
        )
    return {"weights": len(training.theta), "images": len(batch.y), "damping": DAMPING, "points": points}


def at(kind: type[Curvature], loss: CompositeLoss, theta: Tensor, lam: Tensor, b: Tensor) -> dict[str, float]:
    """One matrix at one place."""
    matrix = kind(loss, theta, lam, damping=DAMPING)
    b = matrix(b).detach()  # of the range that the matrix has, so that there is something to find
    found = {name: solve(matrix, b).residuals[-1].item() for name, solve in SOLVES.items()}
    start = time.process_time()
    for _ in range(10):
        matrix(b)
    seconds = (time.process_time() - start) / 10
    return {**found, "lowest": lowest(matrix, b), "product_cpu_s": seconds, "gradient": matrix.gradient.norm().item()}


def lowest(matrix: Curvature, b: Tensor, steps: int = 60) -> float:
    """The lowest eigenvalue without damping, from above: by power iteration of what is left of the largest."""
    v, largest = b / b.norm(), 0.0
    for _ in range(steps):
        w = matrix(v).detach()
        largest, v = float(w.norm()), w / w.norm()
    v = torch.randn(len(b), generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        w = largest * v - matrix(v).detach()
        v = w / w.norm()
    return float(v @ matrix(v).detach()) - DAMPING
