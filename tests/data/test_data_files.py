"""Readers of idx, CIFAR, npz and picture files: right ones load, any damage is a ValueError of one line."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from condensery.data import (
    cifar10,
    cifar100,
    cifarfile,
    emnist,
    folder,
    hub,
    idx,
    idxfile,
    mnist,
    npz,
    tiny_imagenet,
)
from condensery.data import own as own_module

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def refused(act) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@st.composite
def damage(draw):
    """A function that cuts, changes or lengthens some bytes."""
    cut = draw(st.one_of(st.none(), st.floats(0, 1)))
    changes = draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4))
    early = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3))
    tail = draw(st.binary(max_size=3))

    def apply(content: bytes) -> bytes:
        new = bytearray(content)
        for place, value in changes:
            new[int(place * len(new))] = value
        for place, value in early:
            new[min(place, len(new) - 1)] = value
        return bytes(new[: len(new) if cut is None else int(cut * len(new))]) + tail

    return apply


def loads_or_refuses(act) -> None:
    says = "loaded"
    try:
        act()
    except ValueError as error:
        says = str(error)
    assert says
    assert "\n" not in says


# idx


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(root: Path, *, n: int = 30, classes: int = 3, start: int = 0, prefix: str = "", packed=True, test="t10k"):
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", n), (test, n // 2)):
        x = rng(count).integers(0, 256, (count, 5, 4), dtype=np.uint8)
        y = (np.arange(count) % classes + start).astype(np.uint8)
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            content = idx_bytes(array)
            name = f"{prefix}{part}-{kind}-ubyte" + (".gz" if packed else "")
            (root / name).write_bytes(gzip.compress(content, 1) if packed else content)
    return root


@pytest.mark.parametrize("packed", [True, False])
def test_idx(tmp_path, packed):
    data = idx(write_idx(tmp_path / "mine", packed=packed), validation=0.2)
    assert data.name == "mine"
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 6, 15)
    assert data.image_shape == (1, 5, 4)
    expected = rng(15).integers(0, 256, (15, 5, 4), dtype=np.uint8)
    assert torch.equal(data.test.x[:, 0], torch.from_numpy(expected))


def test_idx_spellings(tmp_path):
    write_idx(tmp_path, packed=False, test="test", prefix="my_")
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(idx(tmp_path).test) == 15


def test_idx_prefers_unpacked_twin(tmp_path):
    write_idx(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.write_bytes(b"broken")
    assert len(idx(tmp_path).test) == 15


def test_idx_renumbers_labels(tmp_path):
    data = idx(write_idx(tmp_path, start=7))
    assert data.classes == ("7", "8", "9")
    assert data.train.y.unique().tolist() == [0, 1, 2]


def test_idx_with_several_sets_wants_a_prefix(tmp_path):
    write_idx(tmp_path, prefix="a-")
    write_idx(tmp_path, prefix="b-")
    assert "prefix" in refused(lambda: idx(tmp_path))
    assert len(idx(tmp_path, prefix="b-").test) == 15


def test_emnist(tmp_path):
    write_idx(tmp_path, prefix="emnist-letters-", start=1, test="test")
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    data = emnist(tmp_path, "letters")
    assert data.classes == ("A", "B", "C")
    assert data.image_shape == (1, 4, 5)  # files hold images transposed
    (tmp_path / "emnist-letters-mapping.txt").unlink()
    assert emnist(tmp_path, "letters").classes == ("1", "2", "3")
    assert "balanced" in refused(lambda: emnist(tmp_path, "capitals"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.unlink(), "put it there"),
        (lambda f: f.write_bytes(b""), "too short"),
        (lambda f: f.write_bytes(gzip.compress(b"abc" * 20)), "begins with"),
        (lambda f: f.write_bytes(f.read_bytes()[:-9]), "cannot be read"),
        (lambda f: f.write_bytes(gzip.compress(gzip.decompress(f.read_bytes())[:-1])), "holds"),
        (lambda f: f.write_bytes(gzip.compress(idx_bytes(np.zeros((7, 5, 4), np.uint8)))), "7 images"),
        (lambda f: f.write_bytes(gzip.compress(idx_bytes(np.zeros((0, 5, 4), np.uint8)))), "no values"),
    ],
)
def test_bad_idx_names_the_file(tmp_path, spoil, says):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    spoil(path)
    message = refused(lambda: idx(tmp_path))
    assert says in message
    assert "train-images-idx3-ubyte" in message


def test_idx_class_without_training_image(tmp_path):
    write_idx(tmp_path)
    y = np.full(15, 9, np.uint8)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(y)))
    assert "class 9" in refused(lambda: idx(tmp_path))


def test_other_labels_are_not_mnist(tmp_path):
    write_idx(tmp_path, start=8)
    assert "idx()" in refused(lambda: mnist(tmp_path))


@FUZZ
@given(damage(), st.sampled_from([0, 1, 2, 3]), st.booleans())
def test_damaged_idx(spoil, which, packed):
    with tempfile.TemporaryDirectory() as name:
        root = write_idx(Path(name), packed=packed)
        path = sorted(root.iterdir())[which]
        path.write_bytes(spoil(path.read_bytes()))
        loads_or_refuses(lambda: idx(root))


# CIFAR


def write_cifar_bin(root: Path, *, n: int = 20, layout=cifarfile.TEN) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate((*layout.train, layout.test)):
        records = rng(seed).integers(0, 256, (n, layout.header + 3072), dtype=np.uint8)
        records[:, : layout.header] = (np.arange(n) % layout.classes)[:, None]
        (root / f"{name}.bin").write_bytes(records.tobytes())
    (root / layout.names[0]).write_text("".join(f"name{i}\n" for i in range(layout.classes)))
    return root


def write_cifar_python(root: Path, source: Path, layout=cifarfile.TEN, protocol: int = 2, text: bool = False) -> Path:
    """The same data in the other published form: the test's own writer."""
    key = (lambda k: k.decode()) if text else (lambda k: k)
    root.mkdir(parents=True, exist_ok=True)
    for name in (*layout.train, layout.test):
        batch = cifarfile.read_binary(source / f"{name}.bin", layout)
        content = {
            key(b"data"): batch.x.reshape(-1, 3072).numpy(),
            key(layout.key): batch.y.tolist(),
            key(b"batch_label"): b"training batch",
            key(b"filenames"): [b"a.png"] * len(batch.y),
        }
        (root / name).write_bytes(pickle.dumps(content, protocol=protocol))
    names = [f"name{i}".encode() for i in range(layout.classes)]
    (root / layout.names[1]).write_bytes(pickle.dumps({key(layout.names[2]): names}, protocol=protocol))
    return root


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("load", "layout", "n"),
    [(cifar10, cifarfile.TEN, 20), (cifar100, cifarfile.HUNDRED, 200)],
    ids=["10", "100"],
)
def test_cifar_forms_agree(tmp_path, load, layout, n, protocol, text):
    binary = write_cifar_bin(tmp_path / "bin", n=n, layout=layout)
    other = write_cifar_python(tmp_path / "py", binary, layout, protocol, text)
    one, two = load(binary), load(other)
    assert one.classes == two.classes == tuple(f"name{i}" for i in range(layout.classes))
    for role in ("train", "validation", "test"):
        a, b = getattr(one, role), getattr(two, role)
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_cifar100_takes_the_fine_label(tmp_path):
    root = write_cifar_bin(tmp_path, n=200, layout=cifarfile.HUNDRED)
    for name in ("train", "test"):
        records = np.fromfile(root / f"{name}.bin", np.uint8).reshape(-1, 3074)
        records[:, 0] = 5
        records.tofile(root / f"{name}.bin")
    assert len(cifar100(root).train.y.unique()) == 100


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


PAYLOADS = {
    "system": lambda mark: Evil(os.system, (f"touch {mark}",)),
    "eval": lambda mark: Evil(eval, (f"open({mark!r}, 'w')",)),
    "load": lambda mark: Evil(np.load, (mark,)),
    "object type": lambda mark: Evil(np.dtype, ("O",)),
    "object array": lambda mark: np.array([Evil(os.system, (f"touch {mark}",))], dtype=object),
    "floats": lambda mark: np.zeros(3, dtype=np.float64),
    "namespace": lambda mark: SimpleNamespace(data=mark),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_malicious_batch_is_refused(tmp_path, payload):
    mark = tmp_path / "mark"
    root = write_cifar_python(tmp_path / "py", write_cifar_bin(tmp_path / "bin"))
    batch = {b"data": payload(str(mark)), b"labels": [0]}
    (root / "data_batch_2").write_bytes(pickle.dumps(batch, protocol=2))
    message = refused(lambda: cifar10(root))
    assert "data_batch_2" in message
    assert "no plain CIFAR batch" in message
    assert not mark.exists()


def test_unpickler_cannot_be_altered(tmp_path):
    """BUILD on an allowed name may not set attributes on it."""
    for module, name in cifarfile._ALLOWED:
        if module.startswith("numpy.") and not hasattr(np, "_core"):
            continue
        code = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"}X\x01\x00\x00\x00aK\x01sb."
        path = tmp_path / "batch"
        path.write_bytes(code)
        refused(lambda path=path: cifarfile.read_python(path, cifarfile.TEN))
        state = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(N}X\x08\x00\x00\x00__call__K\x01stb."
        path.write_bytes(state)
        refused(lambda path=path: cifarfile.read_python(path, cifarfile.TEN))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "list"),
        ({b"data": b"abc", b"labels": [0]}, "data"),
        ({b"data": np.zeros((2, 3000), np.uint8), b"labels": [0, 1]}, "3072"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "2 class numbers"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}, "label 10"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, "a"]}, "class numbers"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10**30]}, "class numbers"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "fetch it again"),
    ],
)
def test_odd_batches(tmp_path, content, says):
    root = write_cifar_python(tmp_path / "py", write_cifar_bin(tmp_path / "bin"))
    (root / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    message = refused(lambda: cifar10(root))
    assert says in message
    assert "test_batch" in message


def test_cifar_missing_parts(tmp_path):
    root = write_cifar_bin(tmp_path / "bin")
    other = write_cifar_python(tmp_path / "py", root)
    (root / "data_batch_3.bin").unlink()
    assert "data_batch_3.bin" in refused(lambda: cifar10(root))
    (other / "data_batch_3").unlink()
    assert "data_batch_3" in refused(lambda: cifar10(other))
    assert "CIFAR-10" in refused(lambda: cifar10(tmp_path / "nowhere"))


def test_cifar_names(tmp_path):
    root = write_cifar_bin(tmp_path / "bin")
    (root / "batches.meta.txt").write_text("a b c")
    assert "batches.meta.txt" in refused(lambda: cifar10(root))
    (root / "batches.meta.txt").unlink()
    assert cifar10(root).classes == tuple("0123456789")


@FUZZ
@given(damage(), st.sampled_from(["data_batch_1.bin", "test_batch.bin", "batches.meta.txt"]))
def test_damaged_cifar_binary(spoil, which):
    with tempfile.TemporaryDirectory() as name:
        root = write_cifar_bin(Path(name))
        (root / which).write_bytes(spoil((root / which).read_bytes()))
        loads_or_refuses(lambda: cifar10(root))


@FUZZ
@given(damage(), st.sampled_from(["data_batch_1", "test_batch", "batches.meta"]), st.sampled_from([2, 4]))
def test_damaged_cifar_python(spoil, which, protocol):
    with tempfile.TemporaryDirectory() as name:
        root = write_cifar_python(Path(name) / "py", write_cifar_bin(Path(name) / "bin"), protocol=protocol)
        (root / which).write_bytes(spoil((root / which).read_bytes()))
        loads_or_refuses(lambda: cifar10(root))


# npz


def npz_file(root: Path, **arrays) -> Path:
    path = root / "mine.npz"
    np.savez(path, **arrays)
    return path


def xy(n: int = 30, shape: tuple[int, ...] = (5, 4), classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return rng().integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % classes


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 4), (1, 5, 4)),
        ((5, 4, 3), (3, 5, 4)),
        ((3, 5, 4), (3, 5, 4)),
        ((5, 4, 1), (1, 5, 4)),
        ((1, 5, 4), (1, 5, 4)),
        ((3, 32, 3), (3, 32, 3)),  # both could be channels: the stated rule takes axis 1
    ],
)
def test_npz_shapes(tmp_path, shape, expected):
    x, y = xy(shape=shape)
    data = npz(npz_file(tmp_path, x=x, y=y))
    assert data.image_shape == expected
    assert (data.name, len(data.train) + len(data.validation) + len(data.test)) == ("mine", 30)
    assert len(data.test) == 6


def test_npz_layouts_agree(tmp_path):
    x, y = xy(shape=(5, 4, 3))
    one = npz(npz_file(tmp_path, x_train=x, y_train=y, x_test=x, y_test=y))
    two = npz(npz_file(tmp_path, x_train=x.transpose(0, 3, 1, 2), y_train=y, x_test=x, y_test=y))
    assert torch.equal(one.train.x, two.train.x)
    assert torch.equal(one.test.x, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint16])
def test_npz_number_types(tmp_path, kind):
    x, y = xy()
    given_ = x.astype(kind) if np.issubdtype(kind, np.integer) else (x.astype(np.float64) / 255).astype(kind)
    data = npz(npz_file(tmp_path, x_train=given_, y_train=y, x_test=given_, y_test=y))
    assert (data.test.x[:, 0].int() - torch.from_numpy(x).int()).abs().max() == 0


def test_npz_own_validation(tmp_path):
    x, y = xy()
    arrays = {f"{a}_{s}": v for s in ("train", "val", "test") for a, v in (("x", x), ("y", y[:, None]))}
    data = npz(npz_file(tmp_path, **arrays))
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 30, 30)


def test_npz_class_names(tmp_path):
    x, y = xy()
    names = np.array(["cat", "dog", "eel", "fox"])
    assert npz(npz_file(tmp_path, x=x, y=y, classes=names)).classes == ("cat", "dog", "eel", "fox")
    assert npz(npz_file(tmp_path, x=x, y=names[y])).classes == ("cat", "dog", "eel")
    assert npz(npz_file(tmp_path, x=x, y=y + 5)).classes == ("5", "6", "7")


X, Y = xy()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "no array"),
        ({"a": X}, "x_train"),
        ({"x": X}, "y_train"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "y_test"),
        ({"x_test": X, "y_test": Y}, "x_train"),
        ({"x": X[:-1], "y": Y}, "29 images"),
        ({"x": X.reshape(30, 20), "y": Y}, "shape"),
        ({"x": np.zeros((30, 5, 4, 2), np.uint8), "y": Y}, "shape"),
        ({"x": X[:0], "y": Y[:0]}, "shape"),
        ({"x": X.astype(np.float32), "y": Y}, "0 to 1"),
        ({"x": X.astype(np.float32) * np.nan, "y": Y}, "0 to 1"),
        ({"x": X.astype(np.int64) - 300, "y": Y}, "0 to 255"),
        ({"x": X.astype(complex), "y": Y}, "type"),
        ({"x": X.astype(str), "y": Y}, "type"),
        ({"x": X, "y": Y.astype(float)}, "whole numbers"),
        ({"x": X, "y": np.eye(3)[Y]}, "argmax"),
        ({"x": X, "y": Y.astype(np.uint64) + np.uint64(2**63)}, "whole numbers"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b"])}, "names 2 classes"),
        ({"x": X, "y": Y - 1, "classes": np.array(["a", "b", "c"])}, "from 0"),
        ({"x": X, "y": Y, "classes": np.arange(3)}, "text"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)}, "one kind"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "class 3"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y}, "image shape"),
        ({"x": X, "y": np.arange(30)}, "two images"),
        ({"x": X, "y": np.array([object()] * 30)}, "plain arrays"),
    ],
)
def test_bad_npz_says_what_to_save(tmp_path, arrays, says):
    path = npz_file(tmp_path, **arrays)
    assert says in refused(lambda: npz(path))


def test_npz_that_is_none(tmp_path):
    assert "does not exist" in refused(lambda: npz(tmp_path / "no.npz"))
    np.save(tmp_path / "bare.npy", X)
    assert "bare array" in refused(lambda: npz(tmp_path / "bare.npy"))
    (tmp_path / "text.npz").write_text("hello")
    assert "text.npz" in refused(lambda: npz(tmp_path / "text.npz"))
    refused(lambda: npz(tmp_path))


@FUZZ
@given(damage(), st.booleans())
def test_damaged_npz(spoil, packed):
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, x=X, y=Y)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "mine.npz"
        path.write_bytes(spoil(buffer.getvalue()))
        loads_or_refuses(lambda: npz(path))


# pictures


def picture(size=(40, 30), mode="RGB", seed=0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    return Image.fromarray(rng(seed).integers(0, 256, shape, dtype=np.uint8)).convert(mode)


def write_folder(root: Path, *, classes=("cat", "dog"), n: int = 6, suffix=".png", **options) -> Path:
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            picture(seed=10 * index + i, **options).save(root / name / f"{i}{suffix}")
    return root


def test_folder_without_splits(tmp_path):
    data = folder(write_folder(tmp_path / "pets", n=10), validation=0.25)
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 4)
    assert data.image_shape == (3, 30, 40)  # all of one small size: kept
    all_pixels = torch.cat([data.train.x, data.validation.x, data.test.x])
    assert len(all_pixels.flatten(1).unique(dim=0)) == 20
    expected = np.asarray(picture(seed=0)).transpose(2, 0, 1)
    assert any(np.array_equal(x, expected) for x in all_pixels.numpy())


@pytest.mark.parametrize(
    ("present", "sizes"),
    [(("train", "val"), (10, 2, 6)), (("train", "test"), (10, 2, 6)), (("train", "val", "test"), (12, 6, 6))],
)
def test_folder_with_splits(tmp_path, present, sizes):
    for name in present:
        write_folder(tmp_path / name, n=6 if name == "train" else 3)
    data = folder(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == sizes


@pytest.mark.parametrize(("side", "expected"), [(20, 32), (50, 32), (64, 64), (100, 64), (200, 128)])
def test_folder_size_rule(tmp_path, side, expected):
    write_folder(tmp_path, n=3, size=(side, side + 30))
    picture((side, side + 40)).save(tmp_path / "cat" / "other.png")  # so that sizes differ
    assert folder(tmp_path).image_shape == (3, expected, expected)


def test_folder_resizes_shorter_side_and_crops(tmp_path):
    write_folder(tmp_path, size=(60, 40))
    data = folder(tmp_path, 20)
    expected = picture((60, 40)).resize((30, 20), Image.Resampling.BICUBIC).crop((5, 0, 25, 20))
    every = torch.cat([data.train.x, data.validation.x, data.test.x]).numpy()
    assert any(np.array_equal(x, np.asarray(expected).transpose(2, 0, 1)) for x in every)


def test_grey_and_colour(tmp_path):
    write_folder(tmp_path, mode="L")
    assert folder(tmp_path).image_shape[0] == 1
    picture(mode="RGB").save(tmp_path / "cat" / "colour.png")
    assert folder(tmp_path).image_shape[0] == 3


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".bmp", ".gif", ".webp", ".tif", ".ppm"])
def test_formats(tmp_path, suffix):
    assert folder(write_folder(tmp_path, suffix=suffix)).num_classes == 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_modes_become_eight_bits(tmp_path, mode):
    (tmp_path / "a").mkdir()
    if mode.startswith("I"):
        values = np.full((8, 8), 40000, np.uint16 if mode == "I;16" else np.int32)
        image = Image.fromarray(values)
    else:
        image = Image.new("RGB", (8, 8), (155, 155, 155)).convert(mode)
    suffix = ".tif" if mode in ("CMYK", "YCbCr", "I") else ".png"
    for i in range(5):
        image.save(tmp_path / "a" / f"{i}{suffix}")
    data = folder(tmp_path)
    level = data.train.x.float().mean().item()
    assert 140 < level < 170
    assert data.image_shape[0] == (1 if mode in ("1", "L", "LA", "I;16", "I") else 3)


def test_transparency_is_white(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(5):
        Image.new("RGBA", (8, 8), (10, 10, 10, 0)).save(tmp_path / "a" / f"{i}.png")
    assert folder(tmp_path).train.x.min() == 255


def test_exif_orientation(tmp_path):
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    image = Image.new("L", (8, 8))
    image.paste(255, (0, 0, 8, 4))
    for i in range(5):
        image.save(tmp_path / "a" / f"{i}.jpg", exif=exif)
    assert folder(tmp_path).train.x[0, 0, 0].float().mean() < 40


def test_hidden_and_other_files_are_ignored(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / ".git").mkdir()
    assert folder(tmp_path).classes == ("cat", "dog")


def test_names_from_words(tmp_path):
    write_folder(tmp_path, classes=("n1", "n2", "n3", "n4"))
    (tmp_path / "words.txt").write_text("n1\ttench, Tinca\nn2\tcrane\nn3\tcrane, bird\n")
    assert folder(tmp_path).classes == ("tench", "crane (n2)", "crane (n3)", "n4")


def test_all_damaged_pictures_are_counted(tmp_path):
    write_folder(tmp_path, n=8)
    for i in range(4):
        (tmp_path / "dog" / f"{i}.png").write_bytes(b"no picture")
    whole = (tmp_path / "dog" / "5.png").read_bytes()
    (tmp_path / "dog" / "5.png").write_bytes(whole[: len(whole) // 2])  # header fine, body cut
    message = refused(lambda: folder(tmp_path))
    assert "5 of 16" in message
    assert "2 more" in message
    assert str(tmp_path / "dog" / "0.png") in message


def bad_folders(root: Path, case: str) -> Path:
    write_folder(root / "train")
    if case == "no folder":
        return root / "nowhere"
    if case == "flat":
        return root / "train" / "cat"
    if case == "empty class":
        (root / "train" / "eel").mkdir()
    if case == "strange class":
        write_folder(root / "val", classes=("eel",))
    if case == "empty test":
        (root / "val" / "cat").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("no folder", "not a folder"),
        ("flat", "no subfolders"),
        ("empty class", "eel holds no picture"),
        ("strange class", "eel is a class without training images"),
        ("empty test", "val holds no picture"),
    ],
)
def test_bad_folders(tmp_path, case, says):
    assert says in refused(lambda: folder(bad_folders(tmp_path, case)))


def test_bad_size(tmp_path):
    assert "size is 0" in refused(lambda: folder(write_folder(tmp_path), 0))


@FUZZ
@given(damage(), st.sampled_from([".jpg", ".png", ".gif", ".webp", ".tif", ".bmp", ".ppm"]))
def test_damaged_pictures(spoil, suffix):
    with tempfile.TemporaryDirectory() as name:
        root = write_folder(Path(name), n=3, suffix=suffix)
        path = root / "cat" / f"0{suffix}"
        path.write_bytes(spoil(path.read_bytes()))
        loads_or_refuses(lambda: folder(root))


# Tiny-ImageNet's layout


def write_tiny(root: Path, ids=("n02", "n01"), n: int = 5) -> Path:
    lines = []
    for index, key in enumerate(ids):
        (root / "train" / key / "images").mkdir(parents=True)
        (root / "val" / "images").mkdir(parents=True, exist_ok=True)
        for i in range(n):
            picture((64, 64), seed=index * n + i).save(root / "train" / key / "images" / f"{key}_{i}.JPEG")
        picture((64, 64), "L", seed=index).save(root / "val" / "images" / f"val_{index}.JPEG")
        lines.append(f"val_{index}.JPEG\t{key}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(ids))
    (root / "words.txt").write_text("n01\ttench\nn02\tgoldfish, Carassius auratus\n")
    return root


def test_tiny(tmp_path):
    data = tiny_imagenet(write_tiny(tmp_path / "tiny-imagenet-2"))
    assert (data.name, data.classes, data.image_shape) == (
        "tiny-imagenet-2",
        ("goldfish", "tench"),
        (3, 64, 64),
    )
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 2, 2)
    assert data.test.y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: (r / "wnids.txt").write_text(""), "wnids.txt"),
        (lambda r: (r / "wnids.txt").write_text("n01 n01"), "wnids.txt"),
        (lambda r: (r / "wnids.txt").write_text("n01 n02 n03"), "n03 holds no picture"),
        (lambda r: (r / "val" / "val_annotations.txt").write_text(""), "empty"),
        (lambda r: (r / "val" / "val_annotations.txt").write_text("val_0.JPEG n01"), "known class"),
        (lambda r: (r / "val" / "images" / "val_1.JPEG").unlink(), "1 of 2 pictures"),
        (lambda r: (r / "val" / "val_annotations.txt").unlink(), "val_annotations.txt"),
    ],
)
def test_bad_tiny(tmp_path, spoil, says):
    spoil(write_tiny(tmp_path))
    assert says in refused(lambda: tiny_imagenet(tmp_path))


# the hub, with a stand-in for the library


class Column(dict):
    """A split: columns by name, with typed features."""

    def __init__(self, columns, features):
        super().__init__(columns)
        self.features = features


def feature(kind: str, **attributes):
    return type(kind, (), attributes)()


def fake_hub(monkeypatch, splits=("train", "test"), *, images=None, n: int = 20):
    features = {
        "img": feature("Image"),
        "label": feature("ClassLabel", names=["no", "yes"]),
        "id": feature("Value"),
    }

    def split(seed):
        pictures = images or [picture((8, 8), seed=seed + i) for i in range(n)]
        return Column({"img": pictures, "label": [i % 2 for i in range(n)], "id": list(range(n))}, features)

    def load_dataset(name, config):
        if name == "lost":
            raise FileNotFoundError("no such\nset")
        return {s: split(k) for k, s in enumerate(splits)}

    monkeypatch.setitem(__import__("sys").modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return features


def test_hub(monkeypatch):
    fake_hub(monkeypatch)
    data = hub("someone/some-set")
    assert (data.name, data.classes, data.image_shape) == ("someone/some-set", ("no", "yes"), (3, 8, 8))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 20)


def test_hub_named_columns(monkeypatch):
    fake_hub(monkeypatch, ("train", "validation"))
    data = hub("a/b", image="img", label="label", size=4)
    assert (data.image_shape, len(data.test)) == ((3, 4, 4), 20)


def test_hub_single_split(monkeypatch):
    fake_hub(monkeypatch, ("everything",))
    data = hub("a/b")
    assert len(data.train) + len(data.validation) + len(data.test) == 20


def test_hub_misuse(monkeypatch):
    features = fake_hub(monkeypatch)
    assert "lost" in refused(lambda: hub("lost"))
    assert "no column colour" in refused(lambda: hub("a/b", image="colour"))
    assert "not an image" in refused(lambda: hub("a/b", image="id"))
    features["second"] = feature("Image")
    assert "pass image=" in refused(lambda: hub("a/b"))


def test_hub_without_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"condensery\[hub\]"):
        hub("a/b")


def test_roles():
    assert own_module._roles(["valid", "train", "testing"]) == {
        "train": "train",
        "validation": "valid",
        "test": "testing",
    }
    assert own_module._roles(["cat", "dog"]) == {}
    assert own_module._roles(["test", "val"]) == {}
    assert own_module._roles(["train", "cat"]) == {"train": "train"}


def test_read_idx_is_writable(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(idx_bytes(np.zeros(4, np.uint8)))
    values = idxfile.read_idx(path, 1)
    values[0] = 1
    assert values.tolist() == [1, 0, 0, 0]
