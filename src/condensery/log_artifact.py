"""One self-describing file for a condensed log, and exports of its rows for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from condensery import configs, records
from condensery.bpr import Norms, Recipe, Squares
from condensery.data.interactions import Ids, Log
from condensery.fitting import Adam, Sgd
from condensery.store import replacing, save_tree

__all__ = ["KIND", "VERSION", "Form", "LogArtifact"]

KIND = "condensery-log"
VERSION = 1

_BUILDABLE: dict[str, type] = {cls.__name__: cls for cls in (Recipe, Adam, Sgd, Squares, Norms)}
_ROWS = 1 << 18  # rows turned into text at once
_Text = npt.NDArray[np.str_]


class Form(StrEnum):
    """How a log came out of what was learned."""

    SAMPLED = "sampled"
    """Each row was kept with its probability, so the size varies."""

    TOP = "top"
    """The most probable rows were kept, so the size is exact."""

    SELECTED = "selected"
    """A coreset: rows were selected, nothing was learned."""


@dataclass(frozen=True)
class LogArtifact:
    """A condensed log with all that gives it meaning.

    Attributes:
        log: The interactions that remain, with the ids of the file they came from and its numbering of all users and
            items, those without a row included.
        ratio: The share of the training log that was asked for.
        full: Rows of the training log.
        form: How the log came out of what was learned.
        recipe: How recommenders are trained on the log.
        dataset: The name of the data.
        method: The name of the method or coreset.
        options: Every option of the method and the run.
        seed: The run's seed.
        split: How the data was split (see `LogData.how`), so that evaluating splits it the same way.
        proxy: What the proxy model was and how good, plain data.
        pseudo: How many of the rows were never recorded.
        indices: For a coreset, which training rows these are, int64 ``[n]``.
        scores: Results so far, plain data.
        versions: Of condensery, torch and Python at the time of writing.
        provenance: Seconds, steps, hardware; plain data.

    Raises:
        ValueError: For a ratio or sizes that cannot be.
    """

    log: Log
    ratio: float
    full: int
    form: Form
    recipe: Recipe
    dataset: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    split: Mapping[str, Any] = field(default_factory=dict)
    proxy: Mapping[str, Any] = field(default_factory=dict)
    pseudo: int = 0
    indices: Tensor | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=records.versions)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"The ratio is {self.ratio}; give a share above 0 and at most 1.")
        if self.full < 1 or not 0 <= self.pseudo <= len(self.log):
            raise ValueError(
                f"full={self.full} and pseudo={self.pseudo} do not fit a log of {len(self.log)} rows; give the "
                "training log's size and how many of the rows are pseudo interactions."
            )
        if self.indices is not None and self.indices.shape != (len(self.log),):
            raise ValueError(
                f"The indices have shape {tuple(self.indices.shape)}; give one for each of {len(self.log)} rows."
            )

    def __repr__(self) -> str:
        return (
            f"LogArtifact({self.method} of {self.dataset}, {len(self.log)} interactions, "
            f"{100 * self.share:.1f} % of {self.full} for {100 * self.ratio:g} % asked)"
        )

    @property
    def share(self) -> float:
        """The share of the training log that the log really has: compare it with `ratio`."""
        return len(self.log) / self.full

    @property
    def spent(self) -> dict[str, Any]:
        """What the log really costs."""
        return {
            "interactions": len(self.log),
            "share": self.share,
            "asked": self.ratio,
            "pseudo": self.pseudo,
            "distinct": len(torch.unique(self.log.keys)),
            "users": int((self.log.user_counts > 0).sum()),
            "items": int((self.log.item_counts > 0).sum()),
        }

    # --- the file

    def save(self, path: str | Path) -> None:
        """Write the file (``.safetensors``): whole or not at all.

        Raises:
            ValueError: For ids that are neither whole numbers nor text, or options that are not plain data.
        """
        log = self.log
        columns = {"users": log.users, "items": log.items, "rating": log.rating, "time": log.time}
        ids = {"user_ids": _pack(log.user_ids, "user"), "item_ids": _pack(log.item_ids, "item")}
        tree = {
            "log": {**columns, **ids, "notes": list(log.notes)},
            "recipe": configs.to_config(self.recipe),
            "form": self.form.value,
            "indices": self.indices,
            **{name: records.plain(getattr(self, name)) for name in _TYPES},
        }
        save_tree(path, tree, kind=KIND, version=VERSION)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> LogArtifact:
        """Read a file. Nothing in it is executed or unpickled.

        Raises:
            FileNotFoundError: If there is none.
            DamagedFile: In one sentence, if it cannot be read or does not make sense.
        """
        return records.opened(
            path, lambda tree: _from_tree(cls, tree, device), kind=KIND, version=VERSION, what="condensed log"
        )

    # --- exports

    def export_csv(self, path: str | Path) -> Path:
        """Write the rows as CSV with a header and the original ids: whole or not at all.

        Raises:
            ValueError: For ids with line breaks.
        """
        names = ["user_id", "item_id", "rating", "timestamp"]
        return self._export_text(Path(path), names, ",", quoted=True)

    def export_inter(self, path: str | Path) -> Path:
        """Write the rows as RecBole's atomic file ``.inter`` with the original ids: whole or not at all.

        Raises:
            ValueError: For ids with tabs or line breaks.
        """
        names = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
        return self._export_text(Path(path), names, "\t", quoted=False)

    def export_parquet(self, path: str | Path) -> Path:
        """Write the rows as parquet with the original ids: whole or not at all.

        Raises:
            ImportError: Without pyarrow.
        """
        path = Path(path)
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ImportError(
                f"{path.name} is parquet, which needs a library to write; pip install pyarrow, or export CSV."
            ) from error
        users, items = (column.cpu().numpy() for column in (self.log.users, self.log.items))
        columns: dict[str, Any] = {"user_id": self.log.user_ids[users], "item_id": self.log.item_ids[items]}
        for name, column in (("rating", self.log.rating), ("timestamp", self.log.time)):
            if column is not None:
                columns[name] = column.cpu().numpy()
        with replacing(path) as temporary:
            parquet.write_table(pyarrow.table(columns), temporary)
        return path

    def _export_text(self, path: Path, names: list[str], separator: str, *, quoted: bool) -> Path:
        log = self.log
        users, items = (_as_text(ids, separator, quoted) for ids in (log.user_ids, log.item_ids))
        extra = [(name, c) for name, c in zip(names[2:], (log.rating, log.time), strict=True) if c is not None]
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(separator.join([*names[:2], *(name for name, _ in extra)]) + "\n")
            for start in range(0, len(log), _ROWS):
                rows = slice(start, start + _ROWS)
                cells = [users[log.users[rows].cpu().numpy()], items[log.items[rows].cpu().numpy()]]
                cells += [_numbers(column[rows]) for _, column in extra]
                file.write("".join(f"{separator.join(row)}\n" for row in zip(*cells, strict=True)))
        return path


# --- ids
# --------------------------------------------------------------------------------------------------------------------


def _pack(ids: Ids, what: str) -> dict[str, Tensor]:
    """Ids as tensors: whole numbers, or UTF-8 text one after another with lengths."""
    if ids.dtype.kind in "iu":
        return {"numbers": torch.from_numpy(ids.astype(np.int64))}
    if ids.dtype.kind != "U":
        raise ValueError(f"The {what} ids are of type {ids.dtype}; give whole numbers or text.")
    pieces = [str(name).encode() for name in ids]
    text = np.frombuffer(b"".join(pieces), dtype=np.uint8).copy()
    lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.int64)
    return {"text": torch.from_numpy(text), "lengths": lengths}


def _unpack(packed: Mapping[str, Tensor]) -> Ids:
    if "numbers" in packed:
        numbers = packed["numbers"]
        if numbers.dtype != torch.int64 or numbers.dim() != 1:
            raise TypeError("its ids are no whole numbers")
        return numbers.numpy()
    text, lengths = bytes(packed["text"].numpy()), packed["lengths"].numpy()
    if len(lengths) and (lengths.min() < 0 or lengths.sum() != len(text)):
        raise ValueError("its ids do not fit their lengths")
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return np.array([text[a:b].decode() for a, b in zip(starts, ends, strict=True)], dtype=np.str_)


def _as_text(ids: Ids, separator: str, quoted: bool) -> npt.NDArray[np.object_]:
    """Each id as it stands in a file."""
    cells = [str(name) for name in ids.tolist()]
    broken = {"\n", "\r"} if quoted else {"\n", "\r", separator}
    bad = next((cell for cell in cells if broken & set(cell)), None)
    if bad is not None:
        raise ValueError(f"The id {bad!r:.60} has a line break or separator; export parquet instead.")
    if quoted:
        cells = ['"' + c.replace('"', '""') + '"' if separator in c or '"' in c else c for c in cells]
    return np.array(cells, dtype=np.object_)


def _numbers(column: Tensor) -> list[str]:
    """The shortest decimals that read back as the same number."""
    return [np.format_float_positional(value, trim="-") for value in column.cpu().numpy()]


# --- reading
# --------------------------------------------------------------------------------------------------------------------


_TYPES: dict[str, type | tuple[type, ...]] = {
    "ratio": (int, float),
    "full": int,
    "dataset": str,
    "method": str,
    "options": Mapping,
    "seed": int,
    "split": Mapping,
    "proxy": Mapping,
    "pseudo": int,
    "scores": Mapping,
    "versions": Mapping,
    "provenance": Mapping,
}


def _check_types(tree: Mapping[str, Any]) -> None:
    """Raise a TypeError for a part of the wrong type."""
    stored = tree["log"]
    also = {name: isinstance(stored[name], Tensor) for name in ("users", "items")}
    also |= {name: isinstance(stored[name], Tensor | None) for name in ("rating", "time")}
    also |= {name: _holds_tensors(stored[name]) for name in ("user_ids", "item_ids")}
    also |= {"indices": isinstance(tree["indices"], Tensor | None)}
    also |= {"notes": all(isinstance(note, str) for note in stored["notes"])}
    records.check_types(tree, _TYPES, also=also)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, Tensor) for part in value.values())


def _from_tree(cls: type[LogArtifact], tree: Mapping[str, Any], device: torch.device | str) -> LogArtifact:
    _check_types(tree)
    stored = tree["log"]
    recipe = configs.from_config(tree["recipe"], _BUILDABLE)
    if not isinstance(recipe, Recipe):
        raise TypeError("its recipe is not one")
    log = Log(
        stored["users"],
        stored["items"],
        _unpack(stored["user_ids"]),
        _unpack(stored["item_ids"]),
        stored["rating"],
        stored["time"],
        tuple(stored["notes"]),
    )
    return cls(
        log=log.to(device),
        form=Form(tree["form"]),
        recipe=recipe,
        indices=tree["indices"],
        **{name: tree[name] for name in _TYPES},
    )
