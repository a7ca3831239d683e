"""Labelled images and stratified splits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensery.data.labelled import Labelled, stratified
from condensery.data.whitening import Identity, Prepared, Standardise


def made(labels=(0, 2, 0, 2, 0), classes=("a", "b", "c")) -> Labelled:
    x = torch.arange(len(labels) * 4, dtype=torch.uint8).reshape(-1, 1, 2, 2)
    return Labelled(x, torch.tensor(labels, dtype=torch.int64), classes, Standardise((0.5,), (0.25,)))


def test_plain_facts():
    data = made()
    assert (len(data), data.num_classes, data.image_shape, data.device.type) == (5, 3, (1, 2, 2), "cpu")
    assert repr(data) == "Labelled(5 x (1, 2, 2), 3 classes, torch.uint8, cpu)"


def test_members():
    data = made()
    assert [data.members(c).tolist() for c in range(3)] == [[0, 2, 4], [], [1, 3]]
    assert data.members(0) is data.members(0)


def test_batch_takes_indices_and_masks():
    data = made()
    batch = data.batch(torch.tensor([3, 1]))
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, data.prepare(data.x[[3, 1]]))
    assert batch.y.tolist() == [2, 2]
    assert data.batch(data.y == 0).y.tolist() == [0, 0, 0]


def test_whole_in_pieces(monkeypatch):
    data = made()
    monkeypatch.setattr("condensery.data.labelled._ROWS", 2)
    assert torch.equal(data.whole().x, data.prepare(data.x))
    assert data.subset(torch.tensor([], dtype=torch.int64)).whole().x.shape == (0, 1, 2, 2)


def test_prepared_is_kept_and_inverts():
    data = made()
    ready = data.prepared()
    assert ready is data.prepared()
    assert ready is ready.prepared()
    assert isinstance(ready.prepare, Prepared)
    assert torch.equal(ready.batch(torch.arange(5)).x, data.whole().x)
    assert ready.whole().x is ready.x
    torch.testing.assert_close(ready.prepare.inverse(ready.x), data.x / 255)
    assert ready.prepare.config() == data.prepare.config()


def test_draw_is_the_head_of_a_permutation():
    data = made()
    order = torch.randperm(3, generator=torch.Generator().manual_seed(4))
    drawn = data.draw(0, 2, torch.Generator().manual_seed(4))
    assert torch.equal(drawn, data.prepare(data.x[data.members(0)[order[:2]]]))
    assert len(data.draw(0, 99, torch.Generator())) == 3


def test_draw_leaves_the_global_generator():
    state = torch.get_rng_state()
    made().draw(0, 2, torch.Generator())
    assert torch.equal(state, torch.get_rng_state())


def test_subset_and_to():
    data = made()
    part = data.subset(torch.tensor([1, 0]))
    assert part.y.tolist() == [2, 0]
    assert part.members(2).tolist() == [0]
    assert data.to("cpu") is data


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: made().draw(1, 1, torch.Generator()), r"class 1 \(b\) has no image"),
        (lambda: made().draw(0, 0, torch.Generator()), "at least 1"),
        (lambda: made().members(3), "0 to 2"),
        (lambda: made().members(-1), "0 to 2"),
        (lambda: made(classes=("a", "b")), "number the classes"),
        (lambda: made(labels=(0, -1)), "number the classes"),
        (lambda: Labelled(torch.zeros(2, 4), torch.zeros(2).long(), ("a",), Identity()), r"\[n, c, h, w\]"),
        (
            lambda: Labelled(torch.zeros(2, 1, 2, 2).double(), torch.zeros(2).long(), ("a",), Identity()),
            "float32",
        ),
        (lambda: Labelled(torch.zeros(2, 1, 2, 2), torch.zeros(2), ("a",), Identity()), "int64"),
        (lambda: Labelled(torch.zeros(2, 1, 2, 2), torch.zeros(3).long(), ("a",), Identity()), "2 images"),
    ],
)
def test_misuse(act, says):
    with pytest.raises(ValueError, match=says):
        act()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=80),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31),
)
def test_stratified_is_exact_disjoint_and_deterministic(labels, fraction, seed):
    y = torch.tensor(labels)
    if torch.bincount(y).max() < 2:
        with pytest.raises(ValueError, match="two images"):
            stratified(y, fraction, torch.Generator().manual_seed(seed))
        return
    kept, held = stratified(y, fraction, torch.Generator().manual_seed(seed))
    again = stratified(y, fraction, torch.Generator().manual_seed(seed))
    assert torch.equal(kept, again[0])
    assert torch.equal(held, again[1])
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(y)))
    for size, given_ in zip(torch.bincount(y).tolist(), torch.bincount(y[held], minlength=6).tolist(), strict=False):
        assert given_ == (0 if size < 2 else min(max(int(size * fraction + 0.5), 1), size - 1))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_stratified_wants_a_share(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        stratified(torch.tensor([0, 0]), fraction, torch.Generator())
