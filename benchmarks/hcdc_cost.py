"""What a point and a step of HCDC cost, by hyperparameters, terms of the series and weights; called by `hcdc.py`."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch

import condensery as cd
from condensery.batch import Batch
from condensery.bilevel import AutoNeumann, Converged, Momentum
from condensery.methods.hcdc import HCDC, Pieces
from condensery.spaces import Folds, in_folds
from trajectories import forget_peak, peak

IMAGES, SIDE, POWER = 100, 16, 10


def measure() -> dict[str, Any]:
    """CPU seconds of the first call at a point and of the later ones, by the matrix and without it."""
    points = [cost(p=p, terms=5, width=16, matrix=m) for p in (2, 5, 10, 20) for m in (True, False)]
    points += [cost(p=p, terms=20, width=16, matrix=m) for p in (2, 20) for m in (True, False)]
    points += [cost(p=5, terms=5, width=64, matrix=m) for m in (True, False)]
    return {"images": IMAGES, "side": SIDE, "power": POWER, "points": points}


def cost(*, p: int, terms: int, width: int, matrix: bool, steps: int = 5) -> dict[str, Any]:
    """One setting: the validation sets are as large as the training set, and nothing is trained."""
    g = torch.Generator().manual_seed(0)
    net = cd.Net(cd.nets.ConvNet(channels=3, classes=10, size=SIDE, width=width, depth=2, norm="none"))
    x, y = torch.randn(IMAGES, 3, SIDE, SIDE, generator=g), torch.arange(IMAGES) * 10 // IMAGES
    view = in_folds(torch.arange(IMAGES) % p)
    learner = Converged(Momentum(0.01), solve=AutoNeumann(terms, power=POWER), damping=0.01, matrix=matrix)
    batch = view(Batch(x, y))
    settings = {"learner": learner, "view": view, "steps": 1, "every": 1}
    objective = HCDC(Folds(net, folds=p), batch, Pieces.of(batch), g, **settings)
    images = cd.Images(torch.randn(x.shape, generator=g), y)
    objective.repeat = 10**9
    forget_peak()
    marks = [time.process_time()]
    for _ in range(1 + steps):
        loss = objective(images)
        torch.autograd.grad(loss, images.values)
        marks.append(time.process_time())
    later = sorted(b - a for a, b in pairwise(marks[1:]))[steps // 2]
    return {
        "hyperparameters": p,
        "terms": terms,
        "weights": net.size,
        "matrix": matrix,
        "first_cpu_s": marks[1] - marks[0],
        "step_cpu_s": later,
        "peak_mb": peak(),
    }
