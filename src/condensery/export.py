"""Condensed sets for other programs: folders of PNG files, NumPy archives, and Hugging Face data sets.

Every function writes what a network would be trained on: the images after their formation (and mirrored, if
the set is), in order, with their labels. It is written under a temporary name and renamed when it is whole.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from condensery import configs
from condensery.pictures import to_bytes, to_pil

if TYPE_CHECKING:
    from condensery.artifact import Artifact

_CAVEAT = (
    "Pixels are stored in 8 bits: values are rounded to 1/255, and what lies outside [0, 1] after the "
    "preprocessing is inverted is cut off. Networks trained on these files see slightly other images than "
    "those of the condensed set; its exact values are in the npz export and in the condensery file."
)
_PREPARE = (
    "Networks expect the preprocessing described under 'preprocessing', applied to the pixels; whitening "
    "matrices are in the npz export."
)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file or folder.
        images: Images in it.
        clipped: Share of pixel values that lay outside [0, 1] by more than half a grey level and were cut
            off; 0 where exact values are stored too.
        excess: How far the farthest lay outside, in grey levels of 1/255.
    """

    path: Path
    images: int
    clipped: float = 0.0
    excess: float = 0.0

    def __str__(self) -> str:
        if not self.clipped:
            return f"{self.images} images in {self.path}"
        return (
            f"{self.images} images in {self.path}; {100 * self.clipped:.1f} % of the pixel values lay "
            f"outside 0 to 255, by up to {self.excess:.0f}, and were cut off"
        )


def to_png_folders(artifact: Artifact, folder: str | Path) -> Exported:
    """One folder a class (``3_cat``) with ``000.png``, ``001.png`` and so on, and ``metadata.json``.

    With soft labels there is ``labels.csv`` too, one row a file. The folder can be read back by
    `data.folder` and by everything else that reads folders of classes.

    Args:
        artifact: The condensed set.
        folder: Where; must not exist yet.

    Returns:
        What was written, and what 8 bits cost.

    Raises:
        FileExistsError: If there is something at `folder`.
    """
    with _fresh(folder) as temporary:
        content = _Content.of(artifact)
        temporary.mkdir(parents=True)
        names: list[str] = []
        for c, name in enumerate(artifact.classes):
            index = torch.nonzero(content.classes == c).flatten().tolist()
            place = f"{c:0{len(str(len(artifact.classes) - 1))}d}_{_safe(name)}"
            if index:
                (temporary / place).mkdir()
            for number, which in enumerate(index):
                names.append(f"{place}/{number:03d}.png")
                to_pil(content.pixels[which]).save(temporary / names[-1])
        if content.soft is not None:
            _write_labels(temporary / "labels.csv", names, artifact.classes, content)
        notes = {"note": f"{_CAVEAT} {_PREPARE}", **content.cost(), **_metadata(artifact)}
        (temporary / "metadata.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
    return Exported(Path(folder), len(content.classes), content.clipped, content.excess)


def to_npz(artifact: Artifact, path: str | Path) -> Exported:
    """A NumPy archive with the exact values; ``numpy.load(path, allow_pickle=False)`` reads it.

    Arrays: ``x`` float32 ``[n, c, h, w]`` (what networks are trained on), ``y`` (int64 ``[n]``, or float32
    ``[n, C]`` for soft labels), ``classes`` int64 ``[n]``, ``names`` (text), ``pixels`` uint8
    ``[n, c, h, w]`` (for display), ``preprocessing_*`` (its tensors), ``metadata`` (JSON text), and for a
    coreset ``indices`` int64: which training images these are.

    Args:
        artifact: The condensed set.
        path: Where, ending in ``.npz``; must not exist yet.

    Raises:
        FileExistsError: If there is something at `path`.
        ValueError: If the path ends otherwise.
    """
    with _fresh(path, ".npz") as temporary, temporary.open("wb") as file:
        arrays = _arrays(artifact)
        np.savez_compressed(file, **arrays)
    return Exported(Path(path), len(arrays["x"]))


def to_parquet(artifact: Artifact, path: str | Path) -> Exported:
    """A Parquet file whose ``image`` column holds PNG bytes, as the Hugging Face libraries show images.

    Columns: ``image`` (``{bytes, path}``), ``label`` (class index, with the class names), and
    ``soft_label`` where the labels are soft. Needs the extra ``hub``.

    Args:
        artifact: The condensed set.
        path: Where, ending in ``.parquet``; must not exist yet.

    Raises:
        FileExistsError: If there is something at `path`.
        ImportError: Without the extra ``hub``.
        ValueError: If the path ends otherwise.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'condensery[hub]'.") from error
    with _fresh(path, ".parquet") as temporary:
        content = _Content.of(artifact)
        parquet.write_table(_table(artifact, content), temporary)
    return Exported(Path(path), len(content.classes), content.clipped, content.excess)


def to_hub_dataset(artifact: Artifact) -> Any:
    """A ``datasets.Dataset`` in memory, with the columns of `to_parquet`. Needs the extra ``hub``.

    Raises:
        ImportError: Without the extra ``hub``.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("Hugging Face data sets need their library: pip install 'condensery[hub]'.") from error
    return datasets.Dataset(_table(artifact, _Content.of(artifact)))


@dataclass(frozen=True)
class _Content:
    """What is exported, on the CPU.

    Attributes:
        x: What networks are trained on, float32 ``[n, c, h, w]``.
        classes: int64 ``[n]``.
        soft: Label rows float32 ``[n, C]``, or ``None`` for hard labels.
        pixels: The images for display, uint8 ``[n, c, h, w]``.
        clipped: As in `Exported`.
        excess: As in `Exported`.
    """

    x: Tensor
    classes: Tensor
    soft: Tensor | None
    pixels: Tensor
    clipped: float
    excess: float

    @classmethod
    def of(cls, artifact: Artifact) -> _Content:
        x, y = (part.detach() for part in artifact.batch())
        raw = artifact.preprocessing.inverse(x).cpu()
        outside = (raw - raw.clamp(0, 1)).abs() * 255
        return cls(
            x=x.float().cpu(),
            classes=artifact.batch(hard_labels=True).y.cpu(),
            soft=y.float().cpu() if y.is_floating_point() else None,
            pixels=to_bytes(raw),
            clipped=float((outside > 0.5).float().mean()),
            excess=float(outside.max()),
        )

    def cost(self) -> dict[str, float]:
        return {"clipped_share": self.clipped, "largest_excess_in_grey_levels": self.excess}


def _metadata(artifact: Artifact) -> dict[str, Any]:
    """Everything about the set that JSON can hold."""
    images = artifact.images
    return {
        "classes": list(artifact.classes),
        "labels": images.kind_of_labels,
        "mirrored": images.mirrored,
        "formation": configs.to_config(images.formation),
        "step_size": None if images.step_size is None else float(images.step_size.detach()),
        "preprocessing": artifact.preprocessing.config(),
        "recipe": configs.to_config(artifact.recipe),
        "spent": artifact.spent,
        **{name: getattr(artifact, name) for name in ("dataset", "method", "seed")},
        **{name: dict(getattr(artifact, name)) for name in ("network", "options", "split", "scores", "versions")},
    }


def _write_labels(path: Path, names: list[str], classes: tuple[str, ...], content: _Content) -> None:
    """One row a file: its name, its class and its label row. The set is sorted by class, as the files are."""
    assert content.soft is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", *classes])
        for name, c, row in zip(names, content.classes.tolist(), content.soft.tolist(), strict=True):
            writer.writerow([name, classes[c], *(repr(value) for value in row)])


def _table(artifact: Artifact, content: _Content) -> Any:
    """The Arrow table, with the metadata by which the ``datasets`` library knows images and class names."""
    import pyarrow as pa

    rows = [{"bytes": _png(image), "path": f"{i:05d}.png"} for i, image in enumerate(content.pixels)]
    columns = {
        "image": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array(content.classes.numpy(), pa.int64()),
    }
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(artifact.classes), "_type": "ClassLabel"},
    }
    if content.soft is not None:
        columns["soft_label"] = pa.array(content.soft.tolist(), pa.list_(pa.float32()))
        features["soft_label"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    metadata = {"note": f"{_CAVEAT} {_PREPARE}", **content.cost(), **_metadata(artifact)}
    return pa.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}}), "condensery": json.dumps(metadata)}
    )


def _png(pixels: Tensor) -> bytes:
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _safe(name: str) -> str:
    """A class name as part of a file name on any system.

    >>> _safe("T-shirt/top"), _safe("..")
    ('T-shirt-top', 'class')
    """
    return re.sub(r"[^\w-]+", "-", name)[:60].strip("-") or "class"


def _arrays(artifact: Artifact) -> dict[str, Any]:
    """What `to_npz` writes."""
    content = _Content.of(artifact)
    y = content.classes if content.soft is None else content.soft
    arrays: dict[str, Any] = {
        "x": content.x.numpy(),
        "y": y.numpy(),
        "classes": content.classes.numpy(),
        "names": np.array(artifact.classes, dtype=np.str_),
        "pixels": content.pixels.numpy(),
        "metadata": np.array(json.dumps(_metadata(artifact))),
        **{f"preprocessing_{k}": v.cpu().numpy() for k, v in artifact.preprocessing.tensors().items()},
    }
    if artifact.indices is not None:
        arrays["indices"] = artifact.indices.cpu().numpy()
    return arrays


@contextmanager
def _fresh(path: str | Path, ending: str | None = None) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when all went well, and is removed when not."""
    path = Path(path)
    if ending is not None and path.suffix.lower() != ending:
        raise ValueError(f"{path} does not end in {ending}; give a name that does.")
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists; give another name or remove it first.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}; make it first.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
