"""Tables of scores, trial by trial, and the full-data row that is paid for once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from condensery import configs, nets
from condensery.artifact import Artifact
from condensery.data import ImageData
from condensery.data.fetch import cache_folder
from condensery.evaluate import Row, Score, Scores, ceiling, random_row, transfer
from condensery.evaluate.score import FULL, merged
from condensery.evaluate.transfer import FULL_RECIPE, Trials, prepared_for
from condensery.fitting import Recipe
from condensery.net import Net
from condensery.store import write_text

CACHE_VERSION = 1


def full_recipe(images: int, epochs: int = FULL_RECIPE.epochs) -> Recipe:
    """How to train on all of a data set: `FULL_RECIPE`, in smaller batches where the data are few.

    A thousand images in batches of 256 would give twenty passes eighty steps, and a ceiling far too low.

    Args:
        images: Training images.
        epochs: Passes over them.

    Example:
        >>> full_recipe(45_000).batch_size, full_recipe(1_256).batch_size
        (256, 32)
    """
    batch = 256
    while batch > 16 and images * epochs < 700 * batch:
        batch //= 2
    return replace(FULL_RECIPE, epochs=epochs, batch_size=batch)


@dataclass(frozen=True)
class Protocol:
    """How a set is scored.

    Attributes:
        trials: How many networks, and how.
        baselines: Whether to score random subsets beside the set.
        robust: Whether to add the label-robust variants.
        full: Passes over all data for the full-data row (see `full_recipe`), or ``None`` for no such row.
        cache: Where full-data accuracies are kept, or ``None`` for the user's cache folder.
    """

    trials: Trials
    baselines: bool = True
    robust: bool = False
    full: int | None = None
    cache: Path | None = None


class Part(NamedTuple):
    """A share of a table, done.

    Attributes:
        rows: Rows for some of the trials.
        images: Images that the whole share was expected to train on.
        cached: Whether the rows were found rather than computed.
    """

    rows: tuple[Row, ...]
    images: int
    cached: bool


def expected(artifact: Artifact, data: ImageData, networks: int, protocol: Protocol) -> int:
    """Images that a table will train on, counted with repetition: the measure of `Part.images`."""
    once = _images_full(data, protocol) + _images_set(artifact, protocol)
    return networks * protocol.trials.n * once


def table(artifact: Artifact, data: ImageData, networks: Sequence[nn.Module], protocol: Protocol) -> Iterator[Part]:
    """Score a set on each network, a few trials at a time; `join` makes one table of the parts.

    All data come last for each network, and are cached trial by trial, so that an interruption loses little.
    """
    data = prepared_for(artifact, data)
    for module in networks:
        for trials in _turns(protocol.trials):
            scores = transfer(
                artifact,
                data,
                networks=[module],
                trials=trials,
                baselines=protocol.baselines,
                robust=protocol.robust,
            )
            yield Part(scores.rows, trials.n * _images_set(artifact, protocol), False)
        yield from full_rows(data, module, protocol)


def full_rows(data: ImageData, module: nn.Module, protocol: Protocol) -> Iterator[Part]:
    """The full-data row of a network, a few trials at a time; nothing if the protocol asks for none."""
    if protocol.full is None:
        return
    store = ceilings_of(data, module, protocol)
    for trials in _turns(protocol.trials):
        row, found = store.get(trials)
        yield Part((row,), trials.n * _images_full(data, protocol), found)


def join(parts: Sequence[Part], dataset: str) -> Scores:
    """One table: the trials of each row put together."""
    rows: dict[tuple[str, str], Row] = {}
    for row in (row for part in parts for row in part.rows):
        key = (row.network, row.name)
        rows[key] = merged((rows[key], row)) if key in rows else row
    return Scores(tuple(rows.values()), dataset)


def ceilings_of(data: ImageData, module: nn.Module, protocol: Protocol) -> Ceilings:
    """Where the full-data accuracies of a network are kept; the protocol must ask for some."""
    recipe = full_recipe(len(data.train), protocol.full or FULL_RECIPE.epochs)
    return Ceilings(data, module, recipe, protocol.trials, protocol.cache)


def random_rows(
    per_class: Sequence[int], recipe: Recipe, data: ImageData, module: nn.Module, protocol: Protocol
) -> Iterator[Part]:
    """The random-subset row of a size and a recipe, a few trials at a time."""
    for trials in _turns(protocol.trials):
        row = random_row(per_class, Net(module), recipe, data, trials)
        yield Part((row,), trials.n * images_in(recipe, sum(per_class)), False)


class Ceilings:
    """Accuracies of networks trained on all data, kept in files so that each is paid for once.

    Args:
        data: The data.
        module: The architecture.
        recipe: How it is trained.
        trials: Looks at the validation split, and how the arithmetic is done.
        folder: Where; default: the user's cache.
    """

    def __init__(self, data: ImageData, module: nn.Module, recipe: Recipe, trials: Trials, folder: Path | None) -> None:
        self.data, self.module, self.recipe = data, module, recipe
        identity = {
            "version": CACHE_VERSION,
            "data": fingerprint(data),
            "network": nets.describe(module),
            "recipe": configs.to_config(recipe),
            "checks": trials.checks,
            "execution": str(trials.execution),
        }
        key = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=12).hexdigest()
        self.path = (folder or cache_folder() / "full-data") / f"{data.name}-{type(module).__name__}-{key}.json"
        self.identity = identity

    def has(self, trials: Trials) -> bool:
        """Whether every trial is there."""
        return set(_seeds(trials)) <= set(self._load())

    def get(self, trials: Trials) -> tuple[Row, bool]:
        """The row of some trials, and whether it was found in the cache."""
        wanted, found = _seeds(trials), self.has(trials)
        known = self._load()
        if not found:
            row = ceiling(Net(self.module), self.data, recipe=self.recipe, trials=trials)
            known = {**self._load(), **_by_seed(row, wanted)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps({"identity": self.identity, "trials": known}, indent=1))
        return self._row(known, wanted), found

    def _load(self) -> dict[str, Any]:
        try:
            trials = json.loads(self.path.read_text(encoding="utf-8"))["trials"]
            return {
                seed: t for seed, t in trials.items() if {"network", "last", "chosen", "seconds", "speed"} <= set(t)
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # not there, or damaged: computed anew

    def _row(self, known: dict[str, Any], wanted: list[str]) -> Row:
        trials = [known[seed] for seed in wanted]
        chosen = [t["chosen"] for t in trials if t["chosen"] is not None]
        return Row(
            name=FULL,
            network=trials[0]["network"],
            last=Score(tuple(t["last"] for t in trials)),
            chosen=Score(tuple(chosen)) if chosen else None,
            size={"images": len(self.data.train)},
            seconds=sum(t["seconds"] for t in trials),
            images_per_second=sum(t["speed"] for t in trials) / len(trials),
        )


def fingerprint(data: ImageData) -> str:
    """A digest of the images, labels and preprocessing of all three splits."""
    digest = hashlib.blake2b(json.dumps(data.preprocessing.config(), sort_keys=True).encode(), digest_size=16)
    for part in (data.train, data.validation, data.test):
        for tensor in (part.x, part.y):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for name, tensor in sorted(data.preprocessing.tensors().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _turns(trials: Trials) -> list[Trials]:
    """The trials in turns of as many as are trained at the same time."""
    starts = range(0, trials.n, trials.jobs)
    return [replace(trials, n=min(trials.jobs, trials.n - s), seed=trials.seed + s) for s in starts]


def _seeds(trials: Trials) -> list[str]:
    return [str(trials.seed + i) for i in range(trials.n)]


def _images_set(artifact: Artifact, protocol: Protocol) -> int:
    """Images that one trial of a set and its baselines trains on."""
    soft, augmented = artifact.images.kind_of_labels != "hard", artifact.recipe.augment is not None
    sets = 1 + protocol.baselines + (protocol.robust and soft) + (protocol.robust and augmented)
    return sets * images_in(artifact.recipe, artifact.spent["images_in_training"])


def _images_full(data: ImageData, protocol: Protocol) -> int:
    return 0 if protocol.full is None else protocol.full * len(data.train)


def images_in(recipe: Recipe, n: int) -> int:
    """Images that training on `n` examples by a recipe sees, counted with repetition."""
    return recipe.epochs * n if recipe.steps is None else recipe.steps * min(n, recipe.batch_size)


def _by_seed(row: Row, seeds: list[str]) -> dict[str, Any]:
    chosen = row.chosen.values if row.chosen is not None else [None] * len(seeds)
    return {
        seed: {
            "network": row.network,
            "last": last,
            "chosen": c,
            "seconds": row.seconds / len(seeds),
            "speed": row.images_per_second,
        }
        for seed, last, c in zip(seeds, row.last.values, chosen, strict=True)
    }
