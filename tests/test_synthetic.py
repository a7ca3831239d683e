"""Synthetic images: labels, formations, starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from condensery.synthetic import Images, MultiFormation, counts_per_class, per_class_of, size_in_bytes
from support import blobs, generator, tiny_images


def test_hard_labels_and_rows_with_unequal_classes() -> None:
    images = tiny_images(blobs(), [2, 0, 3])
    x, y = images()
    assert y.tolist() == [0, 0, 2, 2, 2]
    assert images.rows() == {0: slice(0, 2), 2: slice(2, 5)}
    assert x.shape == (5, 1, 8, 8)
    assert images.kind_of_labels == "hard"
    assert [n for n, _ in images.named_parameters()] == ["values"]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_rows_of_the_batch_are_each_classs(mirrored: bool, factor: int) -> None:
    images = tiny_images(blobs(per_class=20), [1, 2, 1], mirrored=mirrored, formation=MultiFormation(factor))
    x, y = images()
    assert len(x) == len(y) == 4 * images.copies
    for c, where in images.rows().items():
        assert (y[where] == c).all()
        assert len(y[where]) == int((y == c).sum())


def test_mirrored_images_follow_their_originals() -> None:
    images = tiny_images(blobs(), 1, mirrored=True)
    x, _ = images()
    assert torch.equal(x[0::2], images.values)
    assert torch.equal(x[1::2], images.values.flip(-1))


def test_labels_soft_learned_and_logits() -> None:
    data = blobs()
    rows = torch.randn(6, 3, generator=generator())
    soft = tiny_images(data, 2, labels=rows)
    assert soft.kind_of_labels == "soft"
    assert torch.equal(soft().y, rows)
    learned = tiny_images(data, 2, labels=rows, learn_labels=True, logits=True, step_size=0.01)
    assert learned.kind_of_labels == "learned"
    assert sorted(n for n, _ in learned.named_parameters()) == ["labels", "step_size", "values"]
    assert torch.allclose(learned().y, rows.softmax(1))
    learned().y[:, 0].sum().backward()
    assert learned.labels is not None
    assert learned.labels.grad is not None
    with pytest.raises(ValueError, match="Hard labels cannot be learned; give `labels`"):
        tiny_images(data, 2, learn_labels=True)


def test_a_soft_label_for_every_tile() -> None:
    data = blobs()
    labels = F.one_hot(torch.arange(3).repeat_interleave(4), 3).float()
    images = tiny_images(data, 1, formation=MultiFormation(2), labels=labels, mirrored=True)
    assert images().y.shape == (24, 3)
    assert images().y[0::2].equal(labels)


def test_shifted_moves_the_batch_and_not_the_set() -> None:
    images = tiny_images(blobs(), 1)
    before = images.values.detach().clone()
    delta = torch.full_like(before, 0.5).requires_grad_()
    batch = images.shifted({"values": delta})
    assert torch.allclose(batch.x, before + 0.5)
    assert torch.equal(images.values.detach(), before)
    assert torch.autograd.grad(batch.x.sum(), delta)[0].eq(1).all()
    with pytest.raises(ValueError, match=r"no parameter 'pixels' to shift; choose from \['values'\]"):
        images.shifted({"pixels": delta})


def test_bound_is_applied_by_project() -> None:
    images = tiny_images(blobs(), 1, bound=lambda v: v.clamp(0, 1))
    images.project_()
    assert images.values.min() >= 0
    assert images.values.max() <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(6, 13), st.integers(6, 13), st.integers(1, 3))
def test_multi_formation_keeps_what_it_can(factor: int, n: int, h: int, w: int, channels: int) -> None:
    form = MultiFormation(factor)
    values = torch.randn(n, channels, h, w, generator=generator())
    images = form.decode(values)
    assert images.shape == (n * factor**2, channels, h, w)
    assert form.encode(images).shape == values.shape
    flat = torch.full((n * factor**2, channels, h, w), 0.7)
    again = form.decode(form.encode(flat))
    if h % factor == 0 and w % factor == 0:
        assert torch.allclose(again, flat, atol=1e-5)


def test_multi_formation_tiles_in_reading_order() -> None:
    values = torch.zeros(1, 1, 8, 8)
    values[..., :4, 4:] = 1.0  # the second tile
    images = MultiFormation(2).decode(values)
    assert images.flatten(1).mean(1).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_starts_from_real_images_of_the_class() -> None:
    data = blobs()
    images = tiny_images(data, 3)
    for image, c in zip(images.values, images.classes, strict=True):
        assert any(torch.equal(image, other) for other in data.batch(data.members(int(c))).x)
    assert len({tuple(v.flatten().tolist()) for v in images.values}) == 9


def test_starts_from_chosen_images_and_noise() -> None:
    data = blobs()
    index = torch.cat([data.members(0)[:2], data.members(2)[:1]])
    images = Images.from_index(data, index)
    assert images.classes.tolist() == [0, 0, 2]
    assert torch.equal(images.values.detach(), data.batch(index).x)
    noise = Images.from_noise(data, 50, generator(1))
    assert noise.values.shape == (150, 1, 8, 8)
    assert abs(noise.values.std() - 1) < 0.05


BAD: dict[str, tuple[Any, str]] = {
    "too many": (
        lambda: tiny_images(blobs(), 99),
        "Class 'class 0' has 12 images, 99 are needed to start from; ask for fewer",
    ),
    "counts": (
        lambda: tiny_images(blobs(), [1, 2]),
        "2 counts were given for 3 classes; give one number, or one a class",
    ),
    "negative": (lambda: tiny_images(blobs(), [1, -2, 1]), "give numbers of at least 0"),
    "nothing": (lambda: tiny_images(blobs(), 0), "not all 0"),
    "unsorted": (lambda: Images(torch.zeros(2, 1, 4, 4), torch.tensor([1, 0])), "not sorted; sort"),
    "shape": (lambda: Images(torch.zeros(2, 4, 4), torch.tensor([0, 1])), "give floats"),
    "classes": (lambda: Images(torch.zeros(2, 1, 4, 4), torch.tensor([0])), "one for each stored image"),
    "labels": (lambda: tiny_images(blobs(), 1, labels=torch.zeros(2, 3)), "give one row for each image"),
    "factor": (lambda: MultiFormation(0), "give 1 or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    make, sentence = BAD[name]
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes() -> None:
    images = tiny_images(blobs(), 2)
    assert per_class_of(images.classes, 4) == [2, 2, 2, 0]
    assert size_in_bytes(images) == 6 * 64 * 4 + 6
    soft = tiny_images(blobs(), 2, labels=torch.zeros(6, 3), step_size=0.1)
    assert size_in_bytes(soft) == 6 * 64 * 4 + 18 * 4 + 4
    assert counts_per_class(2, 2) == [2, 2]


def test_state_round_trip() -> None:
    images = tiny_images(blobs(), 2, labels=torch.rand(6, 3), learn_labels=True, step_size=0.3)
    other = tiny_images(blobs(), 2, seed=9, labels=torch.zeros(6, 3), learn_labels=True, step_size=0.1)
    other.load_state_dict(images.state_dict())
    assert torch.equal(other().x, images().x)
    assert torch.equal(other().y, images().y)


def test_rows_follow_a_loaded_state() -> None:
    images, other = tiny_images(blobs(), [2, 1, 3]), tiny_images(blobs(), [1, 3, 2])
    images.load_state_dict(other.state_dict())
    assert images.rows() == other.rows()
