"""Whole data sets: digits, which are always there, and the real ones under CONDENSERY_DATA."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from condensery import data as d
from condensery.batch import Batch
from condensery.data.imagedata import image_data
from condensery.data.whitening import Identity, Prepared, Standardise, zca_absolute, zca_trace


def real(name: str) -> Path:
    root = os.environ.get("CONDENSERY_DATA")
    if not root or not (Path(root) / name).exists():
        pytest.skip(f"needs {name} under CONDENSERY_DATA")
    return Path(root)


def counts(part: d.Labelled) -> list[int]:
    return torch.bincount(part.y, minlength=part.num_classes).tolist()


def made(n: int = 12) -> d.ImageData:
    x = torch.arange(n * 4, dtype=torch.uint8).reshape(n, 1, 2, 2)
    return image_data("made", Batch(x, torch.arange(n) % 2), classes=("a", "b"), validation=0.25)


def test_digits():
    data = d.digits()
    assert (data.name, data.num_classes, data.image_shape) == ("digits", 10, (1, 8, 8))
    assert (len(data.train), len(data.validation), len(data.test)) == (1256, 140, 401)
    assert data.train.x.max() == 255
    white = data.train.whole().x
    assert abs(white.mean().item()) < 1e-4
    assert abs(white.std().item() - 1) < 1e-3


def test_digits_values_are_rounded_sixteenths():
    from sklearn.datasets import load_digits

    data = d.digits()
    pixels = torch.cat([data.train.x, data.validation.x, data.test.x]).flatten(1)
    expected = torch.from_numpy(load_digits().data * 255 / 16).round().to(torch.uint8)
    assert sorted(map(tuple, pixels.tolist())) == sorted(map(tuple, expected.tolist()))


def test_seed_moves_validation_and_never_test():
    one, same, other = d.digits(), d.digits(), d.digits(seed=1)
    assert torch.equal(one.validation.x, same.validation.x)
    assert not torch.equal(one.validation.x, other.validation.x)
    assert torch.equal(one.test.x, other.test.x)
    assert counts(one.validation) == counts(other.validation)


def test_global_generator_is_untouched():
    state = torch.get_rng_state()
    d.digits(seed=3)
    assert torch.equal(state, torch.get_rng_state())


def test_preprocessing_sees_the_remaining_training_images_only():
    seen = []
    data = d.digits(preprocessing=lambda x: seen.append(x) or Identity())
    assert seen[0] is data.train.x
    assert isinstance(data.preprocessing, Identity)


@pytest.mark.parametrize("fit", [zca_absolute, partial(zca_trace, standardise=Standardise((0.3,), (0.35,)))])
def test_whitened_digits(fit):
    data = d.digits(preprocessing=fit)
    ready = data.prepared()
    assert torch.allclose(ready.test.batch(torch.arange(9)).x, data.test.batch(torch.arange(9)).x, atol=1e-5)
    torch.testing.assert_close(ready.preprocessing.inverse(ready.test.x), data.test.x / 255, atol=1e-4, rtol=0)


def test_with_preprocessing():
    data = made()
    plain = data.with_preprocessing(Identity())
    assert plain.train.x is data.train.x
    assert all(isinstance(p.prepare, Identity) for p in (plain.train, plain.validation, plain.test))
    with pytest.raises(ValueError, match="before calling prepared"):
        data.prepared().with_preprocessing(Identity())


@pytest.mark.parametrize("prepared", [True, False])
def test_to_moves_everything(prepared):
    data = made().with_preprocessing(zca_absolute(made().train.x))
    data = data.prepared() if prepared else data
    assert data.to("cpu") is data
    for part, same in ((data.train, data.train.to("cpu")), (data.test, data.test.to("cpu"))):
        assert same is part
    assert isinstance(data.preprocessing, Prepared) == prepared


def test_own_sets_are_kept():
    x = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    y = torch.tensor([0, 1, 0, 1])
    data = image_data("own", Batch(x, y), classes=("a", "b"), test=Batch(x + 1, y), validation=Batch(x + 2, y))
    assert (data.train.x.max(), data.test.x.max(), data.validation.x.max()) == (0, 1, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"validation": 0.0}, "between 0 and 1"),
        ({"test": 1.5}, "between 0 and 1"),
        ({"test": Batch(torch.zeros(2, 3, 2, 2), torch.tensor([0, 1]))}, "image shape"),
        ({"test": Batch(torch.zeros(1, 1, 2, 2), torch.tensor([2]))}, "class c is in the test set"),
        ({"validation": Batch(torch.zeros(1, 1, 2, 2), torch.tensor([2]))}, "validation set"),
        ({"preprocessing": lambda x: zca_absolute(x, -1.0)}, "eps"),
    ],
)
def test_misuse(options, says):
    x = torch.zeros(8, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=says):
        image_data("bad", Batch(x, torch.arange(8) % 2), classes=("a", "b", "c"), **options)


# real data


@pytest.mark.parametrize(
    ("load", "name", "first", "train_counts"),
    [
        (d.mnist, "mnist", [7, 2, 1, 0, 4], [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        (d.fashion_mnist, "fashion-mnist", [9, 2, 1, 1, 6], [6000] * 10),
    ],
    ids=["mnist", "fashion"],
)
def test_real_idx(monkeypatch, load, name, first, train_counts):
    real(name)
    data = load()
    assert data.image_shape == (1, 28, 28)
    assert data.test.y[:5].tolist() == first
    assert [a + b for a, b in zip(counts(data.train), counts(data.validation), strict=True)] == train_counts
    assert counts(data.validation) == [int(n * 0.1 + 0.5) for n in train_counts]
    mean, std = Standardise.of(data.train.x).mean.item(), Standardise.of(data.train.x).std.item()
    published = data.preprocessing.config()
    assert mean == pytest.approx(published["mean"][0], abs=2e-3)
    assert std == pytest.approx(published["std"][0], abs=2e-3)


def test_real_cifar10():
    data = d.cifar10(real("cifar-10-batches-bin"))
    assert data.classes[0] == "airplane"
    assert (counts(data.train), counts(data.validation), counts(data.test)) == (
        [4500] * 10,
        [500] * 10,
        [1000] * 10,
    )
    assert data.test.y[:5].tolist() == [3, 8, 8, 0, 6]
    fitted = Standardise.of(data.train.x)
    torch.testing.assert_close(fitted.mean.flatten(), torch.tensor(d.CIFAR10_MEAN), atol=2e-3, rtol=0)
    torch.testing.assert_close(fitted.std.flatten(), torch.tensor(d.CIFAR10_STD_FREPO), atol=2e-3, rtol=0)


def test_real_tiny():
    data = d.tiny_imagenet(real("tiny-imagenet-10"))
    assert (data.name, data.num_classes, data.image_shape) == ("tiny-imagenet-10", 10, (3, 64, 64))
    assert (counts(data.train), counts(data.test)) == ([450] * 10, [50] * 10)
    assert data.classes[0] == "goldfish"


def test_real_imagenette():
    data = d.folder(real("imagenette-224") / "imagenette-224")
    assert data.image_shape == (3, 128, 128)
    assert (counts(data.train), counts(data.validation), counts(data.test)) == (
        [45] * 10,
        [5] * 10,
        [20] * 10,
    )
    assert data.classes[0] == "tench"
    assert d.folder(real("imagenette-224") / "imagenette-224", 64).image_shape == (3, 64, 64)
