"""Coresets from a plan: embed or score the training images, choose, and write down what was chosen."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from condensery import catalog, coresets, runs
from condensery.artifact import Artifact
from condensery.catalog import DataSource
from condensery.data import ImageData, Labelled
from condensery.fitting import Trained, training
from condensery.net import Net
from condensery.recipes import Plan, Selection
from condensery.scoring import full_recipe
from condensery.synthetic import Images


def select(plan: Plan, data: ImageData, source: DataSource, *, seed: int = 0) -> Artifact:
    """Choose real images as a coreset's plan says.

    Args:
        plan: Of a coreset.
        data: The data; only its training images are looked at.
        source: Where they come from, written down.
        seed: Gives one generator to the proxies and one to the choice.

    Raises:
        ValueError: If the plan does not fit the data.
    """
    start = time.perf_counter()
    for_proxies, for_choice = runs.generators(seed, 2)
    network = runs.build_network(plan.network, data)
    entry, settings = catalog.CORESETS[plan.method], Selection(**plan.options)  # type: ignore[arg-type]
    real = runs.working(data.train)
    basis = _basis(entry.needs, Net(network), real, settings, for_proxies)
    per_class = plan.per_class if isinstance(plan.per_class, int) else list(plan.per_class)
    chosen: Tensor = entry.load()(basis, real.y, per_class, generator=for_choice)
    provenance = {"steps": 0, "seconds": time.perf_counter() - start, **runs.surroundings(plan, data, source)}
    images = Images.from_index(real, chosen)
    return runs.make_artifact(plan, data, images, network, seed=seed, provenance=provenance, indices=chosen.cpu())


def _basis(needs: str, net: Net, real: Labelled, settings: Selection, generator: torch.Generator) -> Tensor:
    """What a coreset chooses by: features ``[n, d]``, scores ``[n]``, or a record ``[epochs, n]``."""
    if needs == "features":
        return _features(net, real, settings, generator)
    if needs == "correct":
        return _record(net, real, settings, generator)
    if needs == "grand":
        return _gradients(net, real, settings, generator)
    logits = torch.stack([_outputs(proxy, real) for proxy in _proxies(net, real, settings, generator)])
    return coresets.el2n_scores(logits, real.y)


def _features(net: Net, real: Labelled, settings: Selection, generator: torch.Generator) -> Tensor:
    if settings.embedding == "pixels":
        return real.whole().x.flatten(1)
    if settings.embedding == "random-net":
        thetas = [net.init(generator, device=real.device) for _ in range(settings.proxies)]
    else:
        thetas = [proxy.theta for proxy in _proxies(net, real, settings, generator)]
    return torch.cat([_embedded(net, theta, real) for theta in thetas], 1)


@torch.no_grad()
def _embedded(net: Net, theta: Tensor, real: Labelled) -> Tensor:
    """Features ``[n, d]`` of all images."""
    statistics = net.statistics(theta, real.batch(torch.arange(min(len(real), 1000))).x) if net.has_batch_norm else None
    return torch.cat([net.embed(theta, x, statistics=statistics) for x in _batches(net, real)])


def _batches(net: Net, real: Labelled) -> Iterator[Tensor]:
    """All images in order, in pieces that fit the device."""
    size = net.chunk(real.batch(torch.zeros(1, dtype=torch.int64)).x) if real.device.type == "cpu" else 1024
    for index in torch.split(torch.arange(len(real)), size):
        yield real.batch(index).x


def _outputs(predict: Trained, real: Labelled) -> Tensor:
    """Logits ``[n, classes]`` of all images."""
    return torch.cat([predict(real.batch(index).x) for index in torch.split(torch.arange(len(real)), 2000)])


def _proxies(net: Net, real: Labelled, settings: Selection, generator: torch.Generator) -> Iterator[Trained]:
    """Networks trained on all training images."""
    recipe = full_recipe(len(real), settings.proxy_epochs)
    for _ in range(settings.proxies):
        *_, trained = training(net, real, recipe, generator)
        yield trained


def _record(net: Net, real: Labelled, settings: Selection, generator: torch.Generator) -> Tensor:
    """Whether each image is classified correctly after each pass, bool ``[epochs, n]``."""
    if settings.proxies > 1:
        raise ValueError("Forgetting follows one network; leave proxies at 1.")
    recipe = full_recipe(len(real), settings.proxy_epochs)
    return torch.stack([_outputs(t, real).argmax(1) == real.y for t in training(net, real, recipe, generator)])


def _gradients(net: Net, real: Labelled, settings: Selection, generator: torch.Generator) -> Tensor:
    """GraNd scores ``[n]`` at initialisation."""
    if net.has_batch_norm:
        raise ValueError("GraNd needs the gradient of each image alone; choose a network without batch normalisation.")
    thetas = [net.init(generator, device=real.device) for _ in range(settings.proxies)]
    scores = [
        coresets.grand_scores(net, thetas, real.batch(index).x, real.y[index.to(real.device)])
        for index in torch.split(torch.arange(len(real)), 2000)
    ]
    return torch.cat(scores)
