"""Files that were cut, flipped or made up: one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from typer.testing import CliRunner

from condensery import recipes, runs, selecting
from condensery.artifact import KIND, VERSION, Artifact
from condensery.catalog import DataSource
from condensery.cli import app
from condensery.store import save_tree

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "a.safetensors"
    plan = recipes.load("uniform", "digits", 1, overrides=["net.width=4", "eval.epochs=1"])
    source = DataSource("digits")
    selecting.select(plan, runs.open_data(source), source).save(path)
    return path


def survives(*arguments: object, bad: bool | None = True) -> None:
    """A command ends well, or with exit code 2 and one sentence; `bad`: it must be the latter."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 0:
        assert not bad
        return
    assert result.exit_code == 2
    assert bad is not False, result.stderr
    assert sum(line.startswith("error:") for line in result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def given_to_all(path: Path, folder: Path) -> None:
    survives("info", path)
    survives("show", path, "--out", folder / "x.png")
    survives("export", path, "--to", "npz", "--out", folder / "x.npz")
    survives("evaluate", path, "--n", "1", "--no-full")
    assert not (folder / "x.png").exists()
    assert not (folder / "x.npz").exists()


@FEW
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_artifacts(good: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.safetensors"
    whole = good.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    given_to_all(path, tmp_path)


@FEW
@given(where=st.integers(0, 10**9), flip=st.integers(1, 255))
def test_flipped_bytes(good: Path, tmp_path: Path, where: int, flip: int) -> None:
    path = tmp_path / "a.safetensors"
    damaged = bytearray(good.read_bytes())
    damaged[where % len(damaged)] ^= flip
    path.write_bytes(damaged)
    survives("info", path, bad=None)
    survives("show", path, "--out", tmp_path / "y.png", bad=None)


@FEW
@given(junk=st.binary(max_size=300))
def test_garbage(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(junk)
    given_to_all(path, tmp_path)


def test_other_safetensors_files(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    given_to_all(path, tmp_path)
    save_file({"weight": torch.zeros(3)}, path, metadata={"kind": KIND, "version": "1", "tree": "[", "digest": "0"})
    given_to_all(path, tmp_path)
    save_tree(path, {"number": 1}, kind="condensery-snapshot", version=1)
    given_to_all(path, tmp_path)
    save_tree(path, {}, kind=KIND, version=VERSION + 1)
    given_to_all(path, tmp_path)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@FEW
@given(data=st.data())
def test_whole_files_with_wrong_contents(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Its digest is right, so that it was written on purpose, and one part of it makes no sense."""
    from condensery.store import load_tree

    path = tmp_path / "a.safetensors"
    path.write_bytes(good.read_bytes())
    tree = load_tree(path, kind=KIND, version=VERSION)
    branch = tree
    key = data.draw(st.sampled_from(sorted(branch)))
    while isinstance(branch[key], dict) and branch[key] and data.draw(st.booleans()):
        branch = branch[key]
        key = data.draw(st.sampled_from(sorted(branch)))
    branch[key] = data.draw(PLAIN)
    save_tree(path, tree, kind=KIND, version=VERSION)
    for command in (
        ["info"],
        ["info", "--json"],
        ["show", "--out", tmp_path / "z.png"],
        ["evaluate", "--n", "1", "--no-full"],
    ):
        survives(command[0], path, *command[1:], bad=None)


def npz(folder: Path) -> bytes:
    path = folder / "good.npz"
    g = np.random.default_rng(0)
    np.savez(path, x=g.integers(0, 255, (12, 8, 8), np.uint8), y=np.arange(12) % 2)
    return path.read_bytes()


@FEW
@given(where=st.integers(0, 10**9), flip=st.integers(0, 255), share=st.floats(0, 1))
def test_damaged_npz_files(tmp_path: Path, where: int, flip: int, share: float) -> None:
    data = bytearray(npz(tmp_path))
    data[where % len(data)] ^= flip
    path = tmp_path / "d.npz"
    path.write_bytes(data[: int(share * len(data))] if flip % 2 else data)
    survives(
        "select",
        path,
        "--coreset",
        "uniform",
        "--set",
        "net.width=2",
        "--out",
        tmp_path / f"{where}-{flip}-{share}",
        bad=None,
    )


@FEW
@given(where=st.integers(0, 10**9), flip=st.integers(0, 255), cut=st.integers(0, 40), packed=st.booleans())
def test_damaged_idx_files(tmp_path: Path, where: int, flip: int, cut: int, packed: bool) -> None:
    folder = tmp_path / "idx"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for part, n in (("train", 12), ("t10k", 4)):
        images = struct.pack(">IIII", 0x803, n, 8, 8) + bytes(range(64)) * n
        labels = struct.pack(">II", 0x801, n) + bytes(i % 2 for i in range(n))
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            damaged = bytearray(content)
            if part == "train":
                damaged[where % len(damaged)] ^= flip
                damaged = damaged[: len(damaged) - cut]
            file = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(damaged) if packed else damaged)
    if packed and flip % 2:
        file = folder / "train-images-idx3-ubyte.gz"
        file.write_bytes(file.read_bytes()[: -1 - cut])
    out = tmp_path / f"{where}-{flip}-{cut}-{packed}"
    survives("select", folder, "--coreset", "uniform", "--set", "net.width=2", "--out", out, bad=None)


def test_the_file_that_all_this_starts_from_is_good(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(good.read_bytes())
    assert Artifact.load(path).method == "Uniform"
    for command in (["info"], ["show"], ["evaluate", "--n", "1", "--no-full"]):
        survives(command[0], path, *command[1:], bad=False)
