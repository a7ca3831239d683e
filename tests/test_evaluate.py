"""Evaluation: what is trained, what is read, what is beside it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from condensery import nets
from condensery.artifact import Artifact
from condensery.data import ImageData
from condensery.data.augment import DsaTrain, Siamese
from condensery.data.labelled import Labelled
from condensery.data.whitening import Standardise
from condensery.evaluate.score import FULL, RANDOM, Row, Score, Scores
from condensery.evaluate.transfer import Trials, ceiling, random_subset, score, transfer
from condensery.fitting import Recipe, Sgd
from condensery.net import Net
from support import blobs, generator, tiny_images

RECIPE = Recipe(epochs=15, batch_size=16, optimizer=Sgd(lr=0.05))


def pixels(seed: int, per_class: int = 12) -> Labelled:
    data = blobs(per_class=per_class, seed=seed)
    x = ((data.x.clamp(-1, 2) + 1) / 3 * 255).round().to(torch.uint8)
    return Labelled(x, data.y, data.classes, Standardise((1 / 3,), (1 / 3,)))


def images() -> ImageData:
    return ImageData("blobs", pixels(0), pixels(1), pixels(2))


def artifact(data: ImageData, **options: Any) -> Artifact:
    module = nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1)
    return Artifact(
        images=tiny_images(data.train, 2, **options),
        classes=data.classes,
        preprocessing=data.preprocessing,
        recipe=RECIPE,
        network=nets.describe(module),
        dataset=data.name,
        method="dm",
    )


def test_rows_are_the_set_its_variants_and_the_baselines() -> None:
    data = images()
    made = artifact(data, labels=torch.eye(3).repeat_interleave(2, 0), learn_labels=True)
    recipe = Recipe(epochs=15, optimizer=Sgd(lr=0.05), augment=DsaTrain(Siamese.digits()))
    scores = transfer(made, data, recipe=recipe, trials=Trials(n=2, checks=3), full=RECIPE, robust=True)
    assert [r.name for r in scores.rows] == ["dm", "dm, hard labels", "dm, no augmentation", RANDOM, FULL]
    for row in scores.rows:
        assert row.last.n == 2
        assert row.chosen is not None
        assert row.images_per_second > 0
    assert scores.rows[0].size["images"] == scores.rows[3].size["images"] == 6
    assert scores.recovery(scores.rows[0]) == scores.rows[0].last.mean / scores.rows[-1].last.mean
    plain = scores.to_json()
    assert plain["rows"][0]["last"]["n"] == 2
    assert plain["rows"][-1]["recovery"] == 1.0


def test_every_network_has_its_rows() -> None:
    data = images()
    others = [nets.MLP(channels=1, classes=3, size=8), nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1)]
    scores = transfer(artifact(data), data, networks=others, trials=Trials(n=1))
    assert [(r.name, r.network.split()[0]) for r in scores.rows] == [
        ("dm", "MLP"),
        (RANDOM, "MLP"),
        ("dm", "ConvNet"),
        (RANDOM, "ConvNet"),
    ]


def test_processes_give_the_same_scores() -> None:
    data = images()
    one = transfer(artifact(data), data, trials=Trials(n=2))
    two = transfer(artifact(data), data, trials=Trials(n=2, jobs=2))
    assert [r.last for r in one.rows] == [r.last for r in two.rows]


class Counting(Labelled):
    """A split that counts how often each of its images is read."""

    reads = 0

    def batch(self, index: torch.Tensor) -> Any:
        type(self).reads += len(index)
        return super().batch(index)


def test_the_test_split_is_read_once_a_network_and_the_choice_does_not_see_it() -> None:
    data = images()
    Counting.reads = 0
    counted = Counting(data.test.x, data.test.y, data.classes, data.preprocessing)
    watched = ImageData("blobs", data.train, data.validation, counted)
    net = Net(nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1))
    score("x", net, data.train, RECIPE, watched, Trials(n=3))
    assert Counting.reads == 3 * len(data.test)
    wrong = Labelled(data.test.x, (data.test.y + 1) % 3, data.classes, data.preprocessing)
    right = score("x", net, data.train, RECIPE, data, Trials(n=1, checks=5))
    other = score(
        "x", net, data.train, RECIPE, ImageData("b", data.train, data.validation, wrong), Trials(n=1, checks=5)
    )
    assert right.chosen is not None
    assert other.chosen is not None
    assert right.chosen.mean > 0.8 > 0.2 > other.chosen.mean


def test_validation_chooses_the_pass() -> None:
    """With labels permuted after a while of training nothing changes; with a diverging recipe the early pass wins."""
    data = images()
    net = Net(nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1))
    hot = Recipe(epochs=12, batch_size=8, optimizer=Sgd(lr=3.0, momentum=0.99))
    row = score("x", net, data.train, hot, data, Trials(n=3, checks=12))
    assert row.chosen is not None
    assert row.chosen.mean >= row.last.mean


def test_random_subsets_differ_between_networks_and_keep_small_classes() -> None:
    data = images().train
    a, b = (random_subset(data, 2, generator(i)) for i in (0, 1))
    assert not torch.equal(a.values, b.values)
    assert random_subset(data, [1, 99, 0], generator(0)).rows() == {0: slice(0, 1), 1: slice(1, 13)}


def test_a_learned_step_size_is_not_given_to_the_baseline() -> None:
    data = images()
    made = artifact(data, step_size=1e-9)
    untrained, baseline = transfer(made, data, trials=Trials(n=5)).rows
    assert untrained.last.mean < 0.6 < 0.8 < baseline.last.mean


def test_ceiling_is_high() -> None:
    data = images()
    net = Net(nets.ConvNet(channels=1, classes=3, size=8, width=4, depth=1))
    assert ceiling(net, data, recipe=RECIPE, trials=Trials(n=2)).last.mean > 0.9


def test_other_data_is_refused() -> None:
    data = images()
    small = ImageData("other", *(data.train.subset(torch.arange(3)),) * 3)
    bigger = Labelled(torch.zeros(3, 1, 9, 9, dtype=torch.uint8), data.train.y[:3], data.classes, data.preprocessing)
    with pytest.raises(ValueError, match="evaluate it on the data it was made from"):
        transfer(artifact(data), ImageData("x", bigger, bigger, bigger))
    assert small.num_classes == 3


def test_scores_by_hand() -> None:
    assert Score((0.4, 0.6)).mean == 0.5
    assert math.isclose(Score((0.4, 0.6)).std, math.sqrt(0.02))
    assert math.isnan(Score((0.4,)).std)
    assert str(Score((0.4,))) == "40.0 (n=1)"
    assert Scores((Row("a", "n", Score((0.5,))),), "d").recovery(Row("a", "n", Score((0.5,)))) is None
    with pytest.raises(ValueError, match="n and jobs of at least 1"):
        Trials(n=0)
