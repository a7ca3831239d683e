"""One table: what every objective must do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from condensery import methods
from condensery.batch import Batch
from condensery.bilevel import AutoNeumann, Converged
from condensery.data.augment import Siamese
from condensery.loop import Snapshots, iterate
from condensery.methods import (
    BPTT,
    CIG,
    DATM,
    DC,
    DM,
    DSA,
    FTD,
    KIP,
    MCT,
    MTT,
    RCIG,
    RFAD,
    SATM,
    SATMDA,
    TESLA,
    VIG,
    Asam,
    Descent,
    Dual,
    FRePo,
    Gsam,
    RandomNngp,
    RandomNtk,
    Squared,
    Vasso,
)
from condensery.methods.hcdc import HCDC, Pieces
from condensery.net import Net
from condensery.spaces import Folds, in_folds
from condensery.synthetic import MultiFormation
from support import blobs, curved, generator, numerical_gradient, tiny_images, tiny_net, trained

Make = Callable[..., Any]


def matching(method: type, **options: Any) -> Make:
    """A row of trajectory matching, on experts of the row's own network and data."""
    settings = {"inner_steps": 4, "expert_epochs": 2, "lr_images": 1.0, "augment": None, **options}

    def make(net: Any, real: Any, g: torch.Generator) -> Any:
        experts = trained(net, real)
        return method(net, curved(net, experts) if method is MCT else experts, g, **settings)

    return make


def implicitly(method: type, **options: Any) -> Make:
    """A row of implicit gradients."""
    small = {"batch_real": 8, "pool_size": 3, "life": 6, "pool_steps": 2, "lr_images": 0.1, "lr_pool": 1e-3}
    return lambda net, real, g: method(net, real, g, **{**small, **options})


def calibrated(**options: Any) -> Make:
    """A row of HCDC: three folds, S_train every third real image, a fold for each synthetic one."""

    def spread(batch: Batch) -> Batch:
        return in_folds(torch.arange(len(batch.y), device=batch.y.device) % 3)(batch)

    def make(net: Any, real: Any, g: torch.Generator) -> Any:
        x, y = real.batch(torch.arange(len(real)))
        settings = {"learner": Converged(solve=AutoNeumann(3)), "steps": 6, "every": 3, **options}
        train, validation = spread(Batch(x[::3], y[::3])), Pieces.of(spread(Batch(x, y)))
        return HCDC(Folds(net, folds=3), train, validation, g, view=spread, **settings)

    return make


# name -> (net, real, generator) -> objective. Every method of condensery.methods has at least one row of its own name.
OBJECTIVES: dict[str, Make] = {
    "DM": lambda net, real, g: DM(net, real, g, batch_real=8),
    "DM augmented": lambda net, real, g: DM(net, real, g, batch_real=8, augment=Siamese.natural()),
    "DC": lambda net, real, g: DC(net, real, g, batch_real=8, outer=3, inner=2),
    "DSA": lambda net, real, g: DSA(net, real, g, batch_real=8, outer=3, inner=2),
    "BPTT": lambda net, real, g: BPTT(net, real, g, batch_real=16, inner_steps=3),
    "BPTT fixed": lambda net, real, g: BPTT(net, real, g, batch_real=16, inner_steps=3, fresh=False),
    "BPTT truncated": lambda net, real, g: BPTT(net, real, g, batch_real=16, inner_steps=5, window=2),
    "MTT": matching(MTT),
    "MTT augmented": matching(MTT, augment=Siamese.natural()),
    "MTT in mini-batches": matching(MTT, batch=2, inner_steps=9),
    "FTD": matching(FTD, ema=0.9),
    "TESLA": matching(TESLA),
    "DATM": matching(DATM, threshold=None, max_start=3, first_max_start=1, expansion_steps=10, expert_epochs=1),
    "MCT": matching(MCT),
    "SATM": matching(SATM, rho=0.1, gamma=0.01, keep=0.5),
    "SATM with GSAM": matching(SATM, rho=0.1, gamma=0, keep=0.5, ascent=Gsam()),
    "SATM with ASAM": matching(SATM, rho=0.1, gamma=0, keep=0.5, ascent=Asam()),
    "SATM with VaSSO": matching(SATM, rho=0.1, gamma=0, keep=0.5, ascent=Vasso()),
    "SATMDA": matching(SATMDA, rho=0.1, gamma=0.01, keep=0.5, threshold=None, max_start=3, expert_epochs=1),
    "KIP": lambda net, real, g: KIP(net, real, g, batch_real=16),
    "KIP on random features": lambda net, real, g: KIP(net, real, g, batch_real=16, kernel=RandomNngp(2)),
    "KIP on random tangents": lambda net, real, g: KIP(net, real, g, batch_real=6, kernel=RandomNtk()),
    "RFAD": lambda net, real, g: RFAD(net, real, g, batch_real=16, networks=2, lr_images=0.03),
    "FRePo": lambda net, real, g: FRePo(net, real, g, batch_real=16, lr_images=0.03),
    "RCIG": implicitly(RCIG, solver=Dual(), loss=Squared(), margin=0.0),
    "RCIG by descent": implicitly(RCIG, solver=Descent(4, 4), loss=Squared(), margin=0.0),
    "CIG": implicitly(CIG, solver=Dual()),
    "VIG": implicitly(VIG, solver=Descent(8, 8), lr_images=0.3),
    "HCDC": calibrated(),
    "HCDC with a memory": calibrated(repeat=2, memory=3, points=2),
}
# Estimators that are not the derivative of their value, with what makes them so switched off.
EXACT: dict[str, Make] = {
    "TESLA": matching(TESLA, first_order=False, teacher_labels=False),
    **{
        name: matching(SATM, rho=0.0, gamma=0.0, keep=1.0)
        for name in ("SATM", "SATM with GSAM", "SATM with ASAM", "SATM with VaSSO")
    },
    "SATMDA": matching(SATMDA, rho=0.0, gamma=0.0, keep=1.0, threshold=None, max_start=2),
    "BPTT truncated": lambda net, real, g: BPTT(net, real, g, batch_real=16, inner_steps=3, window=3),
    "FRePo": lambda net, real, g: FRePo(net, real, g, batch_real=16, pool_size=2, lr_pool=0.0, norm_decay=1.0),
    # Networks that start anew in each step: their training on the images is not differentiated.
    "RCIG": implicitly(RCIG, solver=Dual.direct(), loss=Squared(), margin=0.0, clip=False, life=1),
    "CIG": implicitly(CIG, solver=Dual.direct(), life=1),
}
# Estimators with no exact form: few steps of descent, and an inner problem that is not at a minimum.
INEXACT = {"RCIG by descent", "VIG"}
SYNTHETICS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unequal": {"per_class": [1, 3, 2]},
    "mirrored": {"mirrored": True},
    "multi-formation": {"formation": MultiFormation(2), "per_class": 1},
}


def start(real: Any, per_class: Any = 2, *, seed: int = 0, **options: Any) -> Any:
    """A set with everything that any row can use: a step size, and label rows that are not learned."""
    plain = tiny_images(real, per_class, seed=seed, **options)
    rows = torch.nn.functional.one_hot(plain.classes.repeat_interleave(plain.formation.repeats), real.num_classes)
    return tiny_images(real, per_class, seed=seed, step_size=0.3, labels=rows.float(), **options)


def run(make: Make, steps: int, *, net: Any = None, options: dict[str, Any] | None = None, **kw: Any) -> torch.Tensor:
    real = blobs()
    images = start(real, **{"per_class": 2, **(options or {})})
    objective = make(net or tiny_net(), real, generator(1))
    for _ in iterate(images, objective, objective.optimizer(images), steps=steps, **kw):
        pass
    return images.values.detach().clone()


def test_every_method_has_a_row() -> None:
    parts = {"Asam", "Ascent", "Gsam", "Sam", "Vasso"}  # of SATM, not methods
    parts |= {"Descent", "Dual", "InfiniteNtk", "Kernel", "OuterLoss", "Platt", "RandomNngp", "RandomNtk", "Solver"}
    parts |= {"Squared"}
    parts |= {"DConRec", "DosCondRec"}  # of logs: their rows are in test_dconrec.py
    parts |= {"DosCond", "GCDM", "GCond"}  # of graphs: test_graph_methods.py
    parts |= {"DosCondGraphs"}  # of sets of graphs: test_whole_graphs.py
    parts |= {"GEOM", "GraphTangentScore", "SFGC"}  # the same on trajectories: test_node_trajectories.py
    missing = [name for name in methods.__all__ if name not in OBJECTIVES and name not in parts]
    assert not missing


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", SYNTHETICS)
def test_is_a_scalar_that_moves_every_image(name: str, kind: str) -> None:
    real = blobs()
    images = start(real, **{"per_class": 2, **SYNTHETICS[kind]})
    before = images.values.detach().clone()
    objective = OBJECTIVES[name](tiny_net(), real, generator(1))
    loss = objective(images)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    assert images.values.grad is not None
    assert (images.values.grad.flatten(1).abs().sum(1) > 0).all()
    assert torch.equal(images.values.detach(), before), "an objective must not move the images itself"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_is_deterministic_and_leaves_the_global_generator(name: str) -> None:
    net = tiny_net()  # building a module draws its first weights from the global generator, as PyTorch does
    state = torch.get_rng_state()
    first, second = run(OBJECTIVES[name], 5, net=net), run(OBJECTIVES[name], 5, net=net)
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resumes_bit_for_bit(name: str, tmp_path: Any) -> None:
    whole = run(OBJECTIVES[name], 8)
    run(OBJECTIVES[name], 5, snapshots=Snapshots(tmp_path, every=2))
    assert torch.equal(run(OBJECTIVES[name], 8, snapshots=Snapshots(tmp_path, every=2)), whole)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in INEXACT])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_gradient_against_finite_differences(name: str, norm: str) -> None:
    real = blobs()
    object.__setattr__(real, "prepare", torch.Tensor.double)  # float64 all the way
    images = start(real, 2).double()
    net = tiny_net(norm=norm)
    objective = EXACT.get(name, OBJECTIVES[name])(Doubled(net.module), real, generator(3))
    objective(images)  # so that what is kept between steps is there too
    state, pool = objective.generator.get_state(), copy.deepcopy(getattr(objective, "_pool", None))

    def value() -> torch.Tensor:
        again = copy.copy(objective)
        if pool is not None:
            again._pool = copy.deepcopy(pool)
        if hasattr(again, "inner"):
            again.inner = (
                0  # the published gradient holds the network fixed: its training on the images is not differentiated
            )
        again.generator = generator()
        again.generator.set_state(state)
        return again(images)

    loss = value()
    (gradient,) = torch.autograd.grad(loss, images.values)
    directions, slopes = numerical_gradient(value, images.values)
    ours = (directions * gradient).flatten(1).sum(1)
    assert torch.allclose(ours, slopes, rtol=1e-5, atol=1e-7)


# HCDC is left out: points move along its trajectories, and test_hcdc.py holds them still.
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if not name.startswith("HCDC")])
def test_loss_falls_on_average(name: str) -> None:
    """Judged on networks that were not used to move the images."""
    real = blobs()
    # Instance normalisation hides the size of the weights, and VIG's inner problem then has no minimum.
    net = tiny_net(width=16, norm="none" if name == "VIG" else "instance")
    images = start(real, 1, seed=3)
    torch.nn.init.normal_(images.values, generator=generator(5))

    def level() -> float:
        losses = [OBJECTIVES[name](net, real, generator(100 + i))(images).item() for i in range(8)]
        return sum(losses) / len(losses)

    before = level()
    objective = OBJECTIVES[name](net, real, generator(1))
    for _ in iterate(images, objective, objective.optimizer(images), steps=60):
        pass
    # VIG's inner problem is left after a few steps of descent, from wherever the network was: much of the loss stays.
    assert level() < (0.9 if name == "VIG" else 0.8) * before


class Doubled(Net):
    """A network whose drawn parameters are float64."""

    def init(self, g: torch.Generator, *, device: Any = None) -> torch.Tensor:
        return super().init(g, device=device).double()
