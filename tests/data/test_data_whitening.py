"""Preprocessing: both ZCA definitions against the formulas in numpy, inverses, and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensery.data import whitening
from condensery.data.whitening import (
    Identity,
    Prepared,
    Standardise,
    Whiten,
    from_config,
    zca_absolute,
    zca_trace,
)


def pixels(n: int = 60, shape: tuple[int, int, int] = (3, 4, 6), seed: int = 0) -> torch.Tensor:
    """Correlated uint8 images, so that whitening has work to do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, shape[0], 1, 1, generator=generator) * 120
    fine = torch.rand(n, *shape, generator=generator) * 135
    return (coarse + fine).to(torch.uint8)


def direct_absolute(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Kornia's ZCAWhitening from its documentation: unbiased covariance, SVD, (S + eps)^(-1/2)."""
    rows = x.reshape(len(x), -1).astype(np.float64) / 255
    mean = rows.mean(0)
    u, s, _ = np.linalg.svd((rows - mean).T @ (rows - mean) / (len(x) - 1))
    return (rows - mean) @ (u / np.sqrt(s + eps)) @ u.T, mean


def direct_trace(x: np.ndarray, mean: np.ndarray, std: np.ndarray, ratio: float, block: tuple[int, int]) -> np.ndarray:
    """FRePo's: standardise, mean covariance of checkerboard blocks over n, relative ridge, rank control."""
    n, c, h, w = x.shape
    z = (x.astype(np.float64) / 255 - mean[:, None, None]) / std[:, None, None]
    z = z - z.mean(0)
    tall, wide = h // block[0], w // block[1]
    blocks = [z[:, :, i::tall, j::wide].reshape(n, -1) for i in range(tall) for j in range(wide)]
    cov = np.mean([b.T @ b / n for b in blocks], axis=0)
    d = len(cov)
    u, s, _ = np.linalg.svd(cov + ratio * np.trace(cov) / d * np.eye(d))
    s[n:] = 1.0
    matrix = (u / np.sqrt(s)) @ u.T
    out = np.empty_like(z)
    for k, b in enumerate(blocks):
        out[:, :, k // wide :: tall, k % wide :: wide] = (b @ matrix).reshape(n, c, *block)
    return out


STANDARDISE = Standardise((0.4, 0.5, 0.45), (0.2, 0.25, 0.3))


@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_absolute_is_kornias(eps):
    x = pixels()
    expected, mean = direct_absolute(x.numpy(), eps)
    white = zca_absolute(x, eps)
    np.testing.assert_allclose(white(x).numpy(), expected.reshape(x.shape), atol=1e-4)
    np.testing.assert_allclose(white.shift.flatten(), mean, atol=1e-6)


@pytest.mark.parametrize("block", [None, (2, 3), (4, 2)])
@pytest.mark.parametrize("n", [200, 30])  # 30 images have less than the 72 dimensions: rank control
def test_trace_is_frepos(block, n):
    x = pixels(n)
    expected = direct_trace(
        x.numpy(),
        *(t.flatten().double().numpy() for t in (STANDARDISE.mean, STANDARDISE.std)),
        0.1,
        block or (4, 6),
    )
    white = zca_trace(x, STANDARDISE, block=block)
    np.testing.assert_allclose(white(x).numpy(), expected, atol=2e-4)


def test_block_side_as_one_number():
    x = pixels(shape=(3, 8, 8))
    torch.testing.assert_close(zca_trace(x, STANDARDISE, block=4)(x), zca_trace(x, STANDARDISE, block=(4, 4))(x))


def test_definitions_are_not_interchangeable():
    x = pixels()
    assert (zca_absolute(x)(x) - zca_trace(x, STANDARDISE)(x)).abs().max() > 0.1


def test_chunks_do_not_change_the_fit(monkeypatch):
    x = pixels(50)
    whole = zca_trace(x, STANDARDISE), zca_absolute(x), Standardise.of(x)
    monkeypatch.setattr(whitening, "_ROWS", 7)
    parts = zca_trace(x, STANDARDISE), zca_absolute(x), Standardise.of(x)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one(x), other(x), atol=1e-4, rtol=1e-4)


def test_whitened_data_are_white():
    x = pixels(4000, (1, 3, 3))
    z = zca_absolute(x, 1e-6)(x).flatten(1).double()
    torch.testing.assert_close(z.T.cov(), torch.eye(9, dtype=torch.float64), atol=1e-2, rtol=0)


ALL = {
    "identity": lambda x: Identity(),
    "standardise": Standardise.of,
    "absolute": zca_absolute,
    "trace": lambda x: zca_trace(x, STANDARDISE),
    "blocks": lambda x: zca_trace(x, STANDARDISE, block=2),
    "prepared": lambda x: Prepared(zca_absolute(x)),
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
class TestEvery:
    def test_inverse(self, make):
        x = pixels()
        prepare = make(x)
        torch.testing.assert_close(prepare.inverse(prepare(x)), x / 255, atol=1e-4, rtol=0)

    def test_inverse_is_not_clamped(self, make):
        prepare = make(pixels())
        beyond = torch.full((2, 3, 4, 6), 30.0)
        again = prepare(prepare.inverse(beyond)) if not isinstance(prepare, Prepared) else beyond
        torch.testing.assert_close(again, beyond, atol=2e-3, rtol=0)

    def test_uint8_and_unit_floats_agree(self, make):
        x = pixels()
        prepare = make(x)
        if not isinstance(prepare, Prepared):
            torch.testing.assert_close(prepare(x), prepare((x / 255).double()), atol=1e-5, rtol=1e-5)
        assert prepare(x).dtype == torch.float32

    def test_input_is_left_alone(self, make):
        prepare = make(pixels())
        x = torch.rand(2, 3, 4, 6)
        before = x.clone()
        prepare(x)
        prepare.inverse(x)
        assert torch.equal(x, before)

    def test_survives_a_file(self, make):
        x = pixels()
        prepare = make(x)
        tensors = {name: t.clone() for name, t in prepare.tensors().items()}
        again = from_config(json.loads(json.dumps(prepare.config())), tensors)
        assert torch.equal(again(x), prepare(x))
        assert again.config() == prepare.config()

    def test_to_keeps_it(self, make):
        x = pixels()
        prepare = make(x)
        assert torch.equal(prepare.to("cpu")(x), prepare(x))
        assert all(t.device.type == "meta" for t in prepare.to("meta").tensors().values())


def test_gradient_reaches_float_pixels():
    x = torch.rand(4, 3, 4, 6, requires_grad=True)
    zca_absolute(pixels())(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_standardise_of_is_mean_and_std():
    x = pixels(500)
    fitted = Standardise.of(x)
    torch.testing.assert_close(fitted.mean.flatten(), (x / 255).mean((0, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted.std.flatten(), (x / 255).std((0, 2, 3), correction=0), atol=1e-5, rtol=0)


def test_constant_channel_keeps_std_one():
    assert Standardise.of(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8)).std.item() == 1


def test_prepared_leaves_floats_alone():
    x = pixels()
    prepared = Prepared(Standardise.of(x))
    z = prepared(x)
    assert prepared(z) is z


BAD = {
    "int pixels": lambda: Identity()(torch.zeros(1, 1, 2, 2, dtype=torch.int64)),
    "lengths": lambda: Standardise((0.1, 0.2), (1.0,)),
    "no channel": lambda: Standardise((), ()),
    "zero std": lambda: Standardise((0.1,), (0.0,)),
    "nan std": lambda: Standardise((0.1,), (float("nan"),)),
    "channels": lambda: Standardise((0.1,), (1.0,))(pixels()),
    "one image": lambda: zca_absolute(pixels(1)),
    "no image": lambda: zca_trace(pixels(0), STANDARDISE),
    "eps": lambda: zca_absolute(pixels(), 0.0),
    "ratio": lambda: zca_trace(pixels(), STANDARDISE, -1.0),
    "equal images": lambda: zca_trace(torch.ones(5, 3, 2, 2), STANDARDISE),
    "block": lambda: zca_trace(pixels(), STANDARDISE, block=3),
    "block zero": lambda: zca_trace(pixels(), STANDARDISE, block=0),
    "other shape": lambda: zca_absolute(pixels())(pixels(shape=(3, 6, 4))),
    "inverse shape": lambda: zca_absolute(pixels()).inverse(torch.zeros(2, 3, 6, 4)),
    "matrix": lambda: Whiten(torch.zeros(1, 2, 2), torch.eye(3), torch.eye(4)),
    "flat shift": lambda: Whiten(torch.zeros(4), torch.eye(4), torch.eye(4)),
    "kind": lambda: from_config({"kind": "pca"}, {}),
    "no kind": lambda: from_config({}, {}),
    "lost tensors": lambda: from_config(zca_absolute(pixels()).config(), {}),
    "lost mean": lambda: from_config({"kind": "standardise"}, {}),
    "odd block": lambda: from_config({"kind": "whiten", "before": None, "block": None}, {}),
}


@pytest.mark.parametrize("act", BAD.values(), ids=BAD.keys())
def test_misuse_is_one_sentence(act):
    with pytest.raises(ValueError, match=r".") as caught:
        act()
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["kind", "mean", "std", "block", "before", "rule"]),
        st.sampled_from(["whiten", "standardise", None, [1.0], [2, 2], {}, "x", 3]),
    )
)
def test_any_description_loads_or_is_refused(config):
    tensors = {"shift": torch.zeros(1, 2, 2), "matrix": torch.eye(4), "inverse_matrix": torch.eye(4)}
    says = "loaded"
    try:
        from_config(config, tensors)
    except ValueError as error:
        says = str(error)
    assert "\n" not in says
