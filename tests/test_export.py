"""Exports: what other programs read back is what networks would have been trained on."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import condensery as cd
from condensery import export, pictures
from condensery.data import Standardise, zca_absolute

NAMES = ("T-shirt/top", "..", "ship")
SIDE = 8


def artifact(*, soft: bool = False, whiten: bool = False, spread: float = 0.3, **options: Any) -> cd.Artifact:
    """Six stored images of three classes, with pixels some of which may lie outside [0, 1]."""
    g = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (40, 3, SIDE, SIDE), generator=g, dtype=torch.uint8)
    preprocessing = zca_absolute(real) if whiten else Standardise((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    pixels = 0.5 + spread * (2 * torch.rand(6, 3, SIDE, SIDE, generator=g) - 1)
    classes = torch.tensor([0, 0, 1, 2, 2, 2])
    formation = options.get("formation", cd.Identity())
    rows = torch.rand(6 * formation.repeats, 3, generator=g).softmax(1) if soft else None
    images = cd.Images(preprocessing(pixels), classes, labels=rows, **options)
    network = cd.nets.describe(cd.nets.ConvNet(channels=3, classes=3, size=SIDE, width=4))
    return cd.Artifact(images, NAMES, preprocessing, cd.Recipe(epochs=3), network, dataset="toy", method="DM", seed=7)


def hard(made: cd.Artifact) -> list[int]:
    return made.batch(hard_labels=True).y.tolist()


def test_png_folders_hold_the_images_of_each_class(tmp_path: Path) -> None:
    made = artifact()
    report = export.to_png_folders(made, tmp_path / "out")
    assert report.images == 6
    assert report.clipped == 0
    folders = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir())
    assert folders == ["0_T-shirt-top", "1_class", "2_ship"]
    second = np.asarray(Image.open(tmp_path / "out" / "2_ship" / "001.png"))
    assert np.array_equal(second, pictures.to_bytes(made.pictures[4]).permute(1, 2, 0).numpy())
    notes = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert notes["preprocessing"]["kind"] == "standardise"
    assert notes["classes"] == list(NAMES)
    assert "8 bits" in notes["note"]
    assert not (tmp_path / "out" / "labels.csv").exists()


def test_png_folders_are_read_back_as_a_data_set(tmp_path: Path) -> None:
    made = artifact(formation=cd.MultiFormation(2), mirrored=True)
    export.to_png_folders(made, tmp_path / "out")
    again = cd.data.folder(tmp_path / "out", size=SIDE, preprocessing=lambda _: made.preprocessing)
    parts = (again.train, again.validation, again.test)
    assert sum(map(len, parts)) == 6 * 4 * 2
    expected = {image.numpy().tobytes() for image in pictures.to_bytes(made.preprocessing.inverse(made.batch().x))}
    assert {image.numpy().tobytes() for part in parts for image in part.x} == expected


def test_soft_labels_are_listed_by_file(tmp_path: Path) -> None:
    made = artifact(soft=True)
    export.to_png_folders(made, tmp_path / "out")
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows][:3] == [
        "0_T-shirt-top/000.png",
        "0_T-shirt-top/001.png",
        "1_class/000.png",
    ]
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)
    found = torch.tensor([[float(row[name]) for name in NAMES] for row in rows])
    assert torch.equal(found, made.batch().y)


def test_what_eight_bits_lose_is_counted(tmp_path: Path) -> None:
    made = artifact(spread=1.0, whiten=True)
    raw = made.preprocessing.inverse(made.batch().x)
    outside = ((raw < -0.5 / 255) | (raw > 1 + 0.5 / 255)).float().mean()
    report = export.to_png_folders(made, tmp_path / "out")
    assert report.clipped == pytest.approx(float(outside), abs=1e-3)
    assert 0.4 < report.clipped < 0.6
    assert report.excess == pytest.approx(127, abs=2)
    assert "outside 0 to 255" in str(report)
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["clipped_share"] == report.clipped


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("whiten", [False, True])
def test_npz_holds_the_exact_values(soft: bool, whiten: bool, tmp_path: Path) -> None:
    made = artifact(soft=soft, whiten=whiten, spread=1.0, mirrored=True)
    export.to_npz(made, tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz", allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    x, y = made.batch()
    assert np.array_equal(found["x"], x.numpy())
    assert np.array_equal(found["y"], y.numpy())
    assert found["classes"].tolist() == hard(made)
    assert tuple(found["names"]) == NAMES
    metadata = json.loads(str(found["metadata"]))
    assert metadata["seed"] == 7
    tensors = {k.removeprefix("preprocessing_"): torch.from_numpy(v) for k, v in found.items() if "ing_" in k}
    again = cd.data.from_config(metadata["preprocessing"], tensors)
    assert torch.equal(again.inverse(x), made.preprocessing.inverse(x))


@pytest.mark.parametrize("soft", [False, True])
def test_parquet_opens_as_a_hugging_face_data_set(soft: bool, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library (extra hub) is not installed")
    made = artifact(soft=soft)
    export.to_parquet(made, tmp_path / "set.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "set.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    for rows in (loaded, export.to_hub_dataset(made)):
        assert rows.features["label"].names == list(NAMES)
        assert list(rows["label"]) == hard(made)
        expected = pictures.to_bytes(made.pictures[3]).permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(rows[3]["image"]), expected)
        assert ("soft_label" in rows.features) == soft
        if soft:
            assert np.allclose(rows[5]["soft_label"], made.batch().y[5])


Write = Callable[[cd.Artifact, Path], object]


@pytest.mark.parametrize(
    ("write", "name"),
    [(export.to_png_folders, "out"), (export.to_npz, "out.npz"), (export.to_parquet, "out.parquet")],
)
def test_nothing_is_overwritten_and_nothing_half_written_stays(
    write: Write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if write is export.to_parquet:
        pytest.importorskip("pyarrow", reason="pyarrow (extra hub) is not installed")
    made = artifact()
    write(made, tmp_path / name)
    with pytest.raises(FileExistsError, match="exists; give another name"):
        write(made, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="make it first"):
        write(made, tmp_path / "missing" / name)
    monkeypatch.setattr(export.os, "rename", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(made, tmp_path / f"second-{name}")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_endings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not end in \.npz"):
        export.to_npz(artifact(), tmp_path / "set.zip")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = artifact()
    for name in ("pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'condensery\[hub\]'"):
        export.to_parquet(made, tmp_path / "set.parquet")
    with pytest.raises(ImportError, match=r"pip install 'condensery\[hub\]'"):
        export.to_hub_dataset(made)


def test_a_grid_is_saved_from_an_artifact(tmp_path: Path) -> None:
    assert pictures.save_grid(artifact(spread=1.0), tmp_path / "grid.png", scale=2).is_file()
