"""Train fresh networks on a set and test each once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from joblib import Parallel, delayed
from torch import nn

from condensery.artifact import Artifact
from condensery.batch import Batch
from condensery.data.whitening import Whiten
from condensery.evaluate.score import FULL, RANDOM, Row, Score, Scores
from condensery.fitting import Drop, Execution, Held, Recipe, Sgd, Source, Trained, accuracy, training
from condensery.net import Net
from condensery.synthetic import Images, counts_per_class

if TYPE_CHECKING:
    from condensery.data.images import ImageData
    from condensery.data.labelled import Labelled

FULL_RECIPE = Recipe(epochs=20, batch_size=256, optimizer=Sgd(lr=0.01), schedule=Drop(at=0.6))


@dataclass(frozen=True)
class Trials:
    """How often and how each network is trained.

    Args:
        n: Independently initialised networks.
        seed: Of the first; the others follow from it.
        checks: Passes at which validation accuracy is measured (evenly spread, the last included) to choose one; 0
            for none.
        jobs: Processes that train networks at the same time, one thread each if more than one.
        execution: How the arithmetic is done.
    """

    n: int = 5
    seed: int = 0
    checks: int = 0
    jobs: int = 1
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if self.n < 1 or self.checks < 0 or self.jobs < 1:
            raise ValueError("Trials need n and jobs of at least 1 and checks of at least 0.")


def transfer(
    artifact: Artifact,
    data: ImageData,
    *,
    networks: Sequence[nn.Module] | None = None,
    recipe: Recipe | None = None,
    trials: Trials | None = None,
    baselines: bool = True,
    full: Recipe | None = None,
    robust: bool = False,
) -> Scores:
    """Train fresh networks on a condensed set, test each once, and put the honest baselines beside it.

    The test split is touched once for each trained network (twice where a pass chosen on validation is asked for as
    well: neither reading chooses anything).

    Args:
        artifact: The condensed set.
        data: Its data, prepared with the artifact's own preprocessing (see `prepared_for`).
        networks: Architectures; default: the one that it was condensed with.
        recipe: How to train; default: the artifact's.
        trials: How often.
        baselines: Whether to train on a random subset with as many real images as the set stores, redrawn for each
            network.
        full: If given, how to train on all training data: the ceiling.
        robust: Whether to add the label-robust variants of DD-Ranking (Li et al. 2024): hard labels only, and
            without augmentation.

    Returns:
        Rows for the set, its variants and the baselines, each network in turn.
    """
    trials = trials or Trials()
    # A step size that was learned for this set serves it alone: the baselines get the recipe's own.
    plain, recipe = recipe or artifact.recipe, recipe or artifact.training_recipe()
    data = prepared_for(artifact, data)
    device = data.train.device
    rows: list[Row] = []
    for module in networks or [artifact.build_network()]:
        net = Net(module)
        rows.append(score(artifact.method, net, artifact.batch(device=device), recipe, data, trials, artifact.spent))
        if robust:
            rows += _robust(artifact, net, recipe, data, trials)
        if baselines:
            rows.append(random_row(artifact.per_class, net, plain, data, trials))
        if full is not None:
            rows.append(ceiling(net, data, recipe=full, trials=trials))
    return Scores(tuple(rows), data.name)


def prepared_for(artifact: Artifact, data: ImageData) -> ImageData:
    """The data with the artifact's preprocessing.

    Raises:
        ValueError: If the data's images or classes are not those of the artifact.
    """
    shape = tuple(artifact.images.values.shape[1:])
    if data.image_shape != shape or data.num_classes != len(artifact.classes):
        raise ValueError(
            f"The condensed set has images {shape} of {len(artifact.classes)} classes, the data {data.image_shape} of "
            f"{data.num_classes}; evaluate it on the data it was made from."
        )
    return data.with_preprocessing(artifact.preprocessing.to(data.train.device))


def score(
    name: str,
    net: Net,
    source: Batch | Source | Sequence[Source],
    recipe: Recipe,
    data: ImageData,
    trials: Trials,
    size: dict[str, Any] | None = None,
) -> Row:
    """Train `trials.n` networks on one set (or each on its own, from a sequence) and test them: one row."""
    start = time.perf_counter()
    sources = (
        list(source) if isinstance(source, list | tuple) and not isinstance(source, Batch) else [source] * trials.n
    )
    tasks = [
        delayed(_trial)(net, s, recipe, (data.validation, data.test), trials, trials.seed + i)
        for i, s in enumerate(sources)
    ]
    results = Parallel(n_jobs=trials.jobs, **({"inner_max_num_threads": 1} if trials.jobs > 1 else {}))(tasks)
    return Row(
        name=name,
        network=_title(net.module),
        last=Score(tuple(r.last for r in results)),
        chosen=Score(tuple(r.chosen for r in results)) if trials.checks else None,
        size=size or {},
        seconds=time.perf_counter() - start,
        images_per_second=sum(r.images_per_second for r in results) / len(results),
    )


def ceiling(net: Net, data: ImageData, *, recipe: Recipe = FULL_RECIPE, trials: Trials | None = None) -> Row:
    """Train on all training data: what the condensed set is measured against."""
    # Whitening once is cheaper than at every pass; mean and standard deviation are not worth the memory.
    source = data.train.prepared() if isinstance(data.train.prepare, Whiten) else data.train
    return score(FULL, net, source, recipe, data, trials or Trials(), {"images": len(data.train)})


def random_subset(data: Labelled, per_class: int | Sequence[int], generator: torch.Generator) -> Images:
    """Real images drawn at random, so many of each class: the baseline of every table."""
    counts = [min(k, len(data.members(c))) for c, k in enumerate(counts_per_class(per_class, data.num_classes))]
    return Images.from_real(data, counts, generator)


@dataclass(frozen=True)
class _Result:
    last: float
    chosen: float
    images_per_second: float


def _trial(
    net: Net, source: Batch | Source, recipe: Recipe, held_out: tuple[Labelled, Labelled], trials: Trials, seed: int
) -> _Result:
    """Train one network, look at the validation split if asked to, and read the test split."""
    validation, test = held_out
    generator = torch.Generator().manual_seed(seed)
    best, kept = -1.0, None
    trained: Trained | None = None
    length = len(source.y) if isinstance(source, Batch) else len(source)
    passes = -(-recipe.total_steps(length) // max(1, -(-length // recipe.batch_size)))
    looks = {round(passes * (k + 1) / trials.checks) for k in range(trials.checks)}
    for trained in training(net, source, recipe, generator, execution=trials.execution):
        if trained.epoch in looks:
            found = accuracy(trained, validation)
            if found > best:
                best, kept = found, {k: v.clone() for k, v in trained.module.state_dict().items()}
    assert trained is not None
    last = chosen = accuracy(trained, test)
    if kept is not None:
        trained.module.load_state_dict(kept)
        chosen = accuracy(trained, test)
    return _Result(last, chosen, trained.images_per_second)


def random_row(per_class: Sequence[int], net: Net, recipe: Recipe, data: ImageData, trials: Trials) -> Row:
    """A new subset for each network, so that the spread is that of the subsets too."""
    sets = []
    for i in range(trials.n):
        subset = random_subset(data.train, per_class, torch.Generator().manual_seed(trials.seed + i))
        sets.append(Held(Batch(*(value.detach() for value in subset()))))
    return score(RANDOM, net, sets, recipe, data, trials, {"images": int(sum(per_class))})


def _robust(artifact: Artifact, net: Net, recipe: Recipe, data: ImageData, trials: Trials) -> list[Row]:
    """The same set with hard labels, and without augmentation while training on it."""
    device = data.train.device
    rows = []
    if artifact.images.kind_of_labels != "hard":
        batch = artifact.batch(hard_labels=True, device=device)
        rows.append(score(f"{artifact.method}, hard labels", net, batch, recipe, data, trials, artifact.spent))
    if recipe.augment is not None:
        plain = recipe.without_augmentation()
        batch = artifact.batch(device=device)
        rows.append(score(f"{artifact.method}, no augmentation", net, batch, plain, data, trials, artifact.spent))
    return rows


def _title(module: nn.Module) -> str:
    """A network's name with what distinguishes it from others of its class."""
    config: dict[str, Any] = dict(getattr(module, "config", {}))
    parts = [f"{key} {config[key]}" for key in ("depth", "width", "norm") if config.get(key) is not None]
    return type(module).__name__ + (f" ({', '.join(parts)})" if parts else "")
