"""Pictures: what is drawn where, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condensery import pictures

NAMES = ("cat", "dog", "ship")


def some(n: int = 6, channels: int = 3, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, side, side, generator=g), torch.arange(n) * 3 // n


def holds(sheet: Image.Image, tile: Image.Image) -> bool:
    """Whether `tile` lies somewhere on the sheet, pixel for pixel."""
    big, small = np.asarray(sheet), np.asarray(tile.convert("RGB"))
    h, w = small.shape[:2]
    corners = np.argwhere((big[: 1 - h or None, : 1 - w or None] == small[0, 0]).all(-1))
    return any(np.array_equal(big[y : y + h, x : x + w], small) for y, x in corners)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("columns", [None, 1])
def test_a_grid_shows_every_image_enlarged_and_not_blurred(channels: int, columns: int | None) -> None:
    x, y = some(channels=channels)
    sheet = pictures.grid(x, y, NAMES, scale=3, columns=columns)
    for image in x:
        assert holds(sheet, pictures.to_pil(image).resize((24, 24), Image.Resampling.NEAREST))


def test_classes_without_images_are_left_out_and_counts_may_differ() -> None:
    x, _ = some(4)
    full = pictures.grid(x, torch.tensor([0, 0, 0, 2]), NAMES, scale=4, columns=3)
    assert holds(full, pictures.to_pil(x[3]).resize((32, 32), Image.Resampling.NEAREST))


def test_names_are_drawn_and_long_ones_cut() -> None:
    x, y = some(3)
    quiet = np.asarray(pictures.grid(x, y, (" ", " ", " ")))
    named = np.asarray(pictures.grid(x, y, NAMES))
    assert named.size > quiet.size
    assert (named == (24, 24, 27)).all(-1).sum() > 50  # ink
    longest = pictures.grid(x, y, ("W" * 500, "dog", "ship"))
    assert longest.size[0] < 3 * 400


def test_the_default_scale_keeps_sheets_readable_and_small() -> None:
    x, y = some(3)
    assert sum(pictures.grid(x, y, NAMES).size) >= 3 * 64
    many = torch.rand(2000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    sheet = pictures.grid(many, torch.arange(2000) // 1000, ("a", "b"))
    assert sheet.size[0] * sheet.size[1] < 8_000_000


def test_a_strip_has_a_row_for_each_set_and_grey_for_what_is_missing() -> None:
    x, y = some(6)
    sheet = pictures.strip([("random", x, y), ("DM", x[:3], torch.tensor([0, 0, 1]))], NAMES, scale=2, each=2)
    for image in x:
        assert holds(sheet, pictures.to_pil(image).resize((16, 16), Image.Resampling.NEAREST))
    assert holds(sheet, Image.new("RGB", (16, 16), (228, 228, 231)))


@pytest.mark.parametrize(
    ("images", "classes", "options", "message"),
    [
        (torch.zeros(2, 8, 8), torch.tensor([0, 1]), {}, r"\[n, c, h, w\]"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), {}, "floats"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64), {}, "n above 0"),
        (torch.zeros(2, 2, 8, 8), torch.tensor([0, 1]), {}, "2 channels"),
        (torch.full((2, 1, 8, 8), 1.5), torch.tensor([0, 1]), {}, "outside"),
        (torch.full((2, 1, 8, 8), torch.nan), torch.tensor([0, 1]), {}, "outside"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1, 1]), {}, r"int64 \[2\]"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 3]), {}, "0 to 3 but 3 names"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), {"scale": 0}, "scale 0"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), {"columns": 0}, "0 images"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    images: torch.Tensor, classes: torch.Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        pictures.grid(images, classes, NAMES, **options)
    assert "\n" not in str(raised.value)


def test_strips_refuse_what_does_not_fit() -> None:
    x, y = some(3)
    with pytest.raises(ValueError, match="at least one row"):
        pictures.strip([], NAMES)
    with pytest.raises(ValueError, match="different shapes"):
        pictures.strip([("a", x, y), ("b", x[..., :4, :4], y)], NAMES)
    with pytest.raises(ValueError, match="0 images"):
        pictures.strip([("a", x, y)], NAMES, each=0)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = some(3)
    sheet = pictures.grid(x, y, NAMES)
    path = pictures.save(sheet, tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(sheet))
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        pictures.save(sheet, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_ending_names_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end it in \.png"):
        pictures.save(Image.new("RGB", (2, 2)), tmp_path / "picture.text")
