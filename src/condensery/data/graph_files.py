"""Graphs from files: the field's npz layouts, an edge list with a table of features, OGB's csv files, GraphSAINT's.

No reader unpickles anything. Each gives a `GraphData` through `graph_data`, which says in `notes` what it cleaned.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from condensery.data._errors import DataMissing, one_line
from condensery.data.graph_features import AsGiven, FeatureFit, StandardScaled
from condensery.data.graphs import GraphData, Split, graph_data

__all__ = ["GraphColumns", "from_csv", "from_npz", "graphsaint", "ogb_csv"]

_PathLike: TypeAlias = str | os.PathLike[str]
_Array: TypeAlias = npt.NDArray[Any]

_PAIRS = (("src", "dst"), ("row", "col"), ("source", "target"))
_SETS = {
    "train": ("train", "training", "tr"),
    "validation": ("val", "valid", "validation", "dev", "va"),
    "test": ("test", "testing", "te"),
}


@dataclass(frozen=True)
class GraphColumns:
    """Which columns of a table of nodes are which; every other one is a feature.

    Attributes:
        node: The node's id, as the edge list writes it.
        label: The class, a number or any text; empty where it is unknown.
        split: ``train``, ``validation`` (``val``, ``valid``, ``dev``) or ``test``; empty for neither. The table may
            lack this column.
    """

    node: str = "id"
    label: str = "label"
    split: str = "split"


def from_npz(
    path: _PathLike,
    *,
    features: Tensor | None = None,
    split: Split | None = None,
    fit: FeatureFit = AsGiven.of,
    inductive: bool = False,
    seed: int = 0,
) -> GraphData:
    """A graph from one npz file, in any of the layouts that the field uses.

    Edges: ``edge_index`` or ``edges`` ``[2, m]`` or ``[m, 2]``; ``src`` and ``dst`` (``row``, ``col``); compressed rows
    ``adj_indptr, adj_indices`` (``adj_data``), as Shchur et al. (2018) have them. Features: ``x``, ``features`` or
    ``attr_matrix`` ``[n, d]``; compressed rows ``attr_indptr, attr_indices, attr_data, attr_shape`` or ``x_indptr,
    x_indices`` (``x_data``), ``num_features``. Labels: ``y``, ``labels`` or ``label``. A split, if there: ``split``
    with 0, 1, 2 for training, validation, test, or ``train_mask`` and so on, or ``train_idx`` and so on.

    Args:
        path: The file.
        features: Features ``[n, d]`` for a file that has none.
        split: The nodes of each set; by default the file's, or drawn (see `graph_data`).
        fit: Preprocessing of the features.
        inductive: See `GraphData`.
        seed: Decides a drawn split.

    Raises:
        ValueError: Naming the file and what it lacks; see `graph_data`.
    """
    path = Path(path)
    arrays = _Arrays(path)
    y = arrays.first("y", "labels", "label")
    if y is None:
        raise ValueError(f"{path} holds {arrays.names} but no labels; save y, one class index a node.")
    edges, weights = _npz_edges(arrays)
    x = features if features is not None else _npz_features(arrays)
    return graph_data(
        path.stem,
        x,
        _tensor(edges),
        _tensor(y),
        weights=None if weights is None else _tensor(weights),
        split=split or _npz_split(arrays),
        fit=fit,
        inductive=inductive,
        seed=seed,
    )


def from_csv(
    edges: _PathLike,
    features: _PathLike,
    *,
    columns: GraphColumns | None = None,
    fit: FeatureFit = AsGiven.of,
    inductive: bool = False,
    seed: int = 0,
) -> GraphData:
    """A graph from two tables, comma- or tab-separated, gzipped or not.

    Args:
        edges: An edge a line: the two nodes' ids and, if weighted, a positive number. A first line that names no
            node is taken as a header.
        features: A node a line under a header: id, label, perhaps split, and a number in every other column.
        columns: How those are called; by default ``id``, ``label`` and ``split``.
        fit: Preprocessing of the features.
        inductive: See `GraphData`.
        seed: Decides the split, where the table has none (see `graph_data`).

    Raises:
        ValueError: Naming the file, the line and what is wrong with it; see `graph_data`.
    """
    edges, features = Path(edges), Path(features)
    nodes = _read_nodes(features, columns or GraphColumns())
    pairs, weights = _read_edges(edges, nodes.places)
    names = _sorted_names({label for label in nodes.labels if label})
    number = {name: c for c, name in enumerate(names)}
    return graph_data(
        features.name.split(".")[0],
        torch.tensor(nodes.rows, dtype=torch.float32),
        torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T,
        torch.tensor([number.get(label, -1) for label in nodes.labels]),
        weights=torch.tensor(weights) if weights else None,
        split=nodes.split(),
        classes=names or None,
        fit=fit,
        inductive=inductive,
        seed=seed,
    )


def ogb_csv(
    folder: _PathLike, *, scheme: str | None = None, fit: FeatureFit = StandardScaled.of, inductive: bool = False
) -> GraphData:
    """A node-classification graph of the Open Graph Benchmark from its csv files, such as ogbn-arxiv.

    Args:
        folder: With ``raw/edge.csv.gz``, ``raw/node-feat.csv.gz``, ``raw/node-label.csv.gz`` and
            ``split/SCHEME/{train,valid,test}.csv.gz``, as its archives unpack.
        scheme: Which split; by default the only one.
        fit: Preprocessing of the features; the condensation literature standardises ogbn-arxiv's.
        inductive: See `GraphData`.

    Raises:
        DataMissing: Naming the file that is not there.
        ValueError: Naming the file that is damaged; see `graph_data`.
    """
    folder = Path(folder)
    raw = folder / "raw"
    schemes = sorted(p.name for p in (folder / "split").iterdir()) if (folder / "split").is_dir() else []
    if scheme is None and len(schemes) != 1:
        raise DataMissing(f"{folder / 'split'} has {len(schemes)} splits {schemes}; give scheme= one that is there.")
    place = folder / "split" / (scheme or schemes[0])
    edges = _table(raw / "edge.csv.gz", np.int64)
    x = _table(raw / "node-feat.csv.gz", np.float32)
    y = _table(raw / "node-label.csv.gz", np.float64)
    if y.shape[1] != 1:
        raise ValueError(f"{raw / 'node-label.csv.gz'} has {y.shape[1]} labels a node; only one class is supported.")
    split = Split(*(_tensor(_table(place / f"{part}.csv.gz", np.int64)[:, 0]) for part in ("train", "valid", "test")))
    return graph_data(folder.name, _tensor(x), _tensor(edges.T), _tensor(y), split=split, fit=fit, inductive=inductive)


def graphsaint(folder: _PathLike, *, fit: FeatureFit = StandardScaled.of, inductive: bool = True) -> GraphData:
    """A graph in GraphSAINT's layout, such as Flickr and Reddit (Zeng et al., ICLR 2020).

    Args:
        folder: With ``adj_full.npz`` (compressed rows), ``feats.npy``, ``class_map.json`` and ``role.json``.
        fit: Preprocessing of the features; the literature standardises them.
        inductive: See `GraphData`; the literature uses these graphs so.

    Raises:
        DataMissing: Naming the file that is not there.
        ValueError: For several labels a node; see `graph_data`.
    """
    folder = Path(folder)
    arrays = _Arrays(_there(folder / "adj_full.npz"))
    edges, _ = _compressed_edges(arrays, "")
    classes, roles = _json(folder / "class_map.json"), _json(folder / "role.json")
    if any(isinstance(label, list) for label in classes.values()):
        raise ValueError(f"{folder / 'class_map.json'} has several labels a node; only one class is supported.")
    place = _there(folder / "feats.npy")
    try:
        x = np.load(place, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{place} is no array of numbers ({one_line(error)}); get it again.") from error
    y = torch.tensor([classes.get(str(node), -1) for node in range(len(x))])
    split = Split(*(torch.tensor(roles.get(part, []), dtype=torch.int64) for part in ("tr", "va", "te")))
    return graph_data(folder.name, _tensor(x), _tensor(edges), y, split=split, fit=fit, inductive=inductive)


# --- npz
# --------------------------------------------------------------------------------------------------


class _Arrays:
    """The arrays of an npz file, read when asked for, so that pickled ones nobody needs do no harm."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                self._keys = list(archive.files)
        except FileNotFoundError as error:
            raise ValueError(f"{path} does not exist; give an npz file.") from error
        except Exception as error:  # a damaged zip raises nearly anything, a bare array has no files
            raise ValueError(f"{path} is no npz file ({one_line(error)}); save numbers with numpy.savez.") from error

    @property
    def names(self) -> str:
        return ", ".join(self._keys) or "no array"

    def first(self, *keys: str) -> _Array | None:
        """The first of the arrays that is there."""
        key = next((key for key in keys if key in self._keys), None)
        if key is None:
            return None
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                array: _Array = archive[key]
        except Exception as error:  # likewise
            raise ValueError(
                f"Array {key} of {self.path} cannot be read ({one_line(error)}); save plain numbers."
            ) from error
        if array.dtype.kind not in "biuf":
            raise ValueError(f"Array {key} of {self.path} is of type {array.dtype}; save numbers.")
        return array

    def needed(self, key: str, what: str) -> _Array:
        array = self.first(key)
        if array is None:
            raise ValueError(f"{self.path} holds {self.names} but not {key}; save it with {what}.")
        return array


def _npz_edges(arrays: _Arrays) -> tuple[_Array, _Array | None]:
    pairs = arrays.first("edge_index", "edges")
    weights = arrays.first("edge_weight", "weights")
    if pairs is not None:
        turned = pairs.ndim == 2 and pairs.shape[0] != 2 and pairs.shape[1] == 2
        return (pairs.T if turned else pairs), weights
    for a, b in _PAIRS:
        sources, targets = arrays.first(a), arrays.first(b)
        if sources is not None and targets is not None:
            if sources.ndim != 1 or sources.shape != targets.shape:
                raise ValueError(f"{a} and {b} of {arrays.path} differ in shape; save one number an edge in each.")
            return np.stack([sources, targets]), weights
    if arrays.first("adj_indptr") is not None:
        return _compressed_edges(arrays, "adj_")
    raise ValueError(f"{arrays.path} holds {arrays.names} but no edges; save edge_index, whole numbers [2, m].")


def _compressed_edges(arrays: _Arrays, prefix: str) -> tuple[_Array, _Array | None]:
    starts, columns = (arrays.needed(f"{prefix}{key}", "the compressed rows") for key in ("indptr", "indices"))
    values = arrays.first(f"{prefix}data")
    rows = _row_numbers(arrays.path, starts, columns)
    if values is None or len(values) != len(columns):
        return np.stack([rows, columns.astype(np.int64)]), None
    there = values != 0
    edges = np.stack([rows, columns.astype(np.int64)])[:, there]
    return edges, None if bool((values[there] == 1).all()) else values[there].astype(np.float32)


def _row_numbers(path: Path, starts: _Array, columns: _Array) -> _Array:
    counts: npt.NDArray[np.int64] = np.diff(starts.astype(np.int64)).astype(np.int64)
    if starts.ndim != 1 or columns.ndim != 1 or len(starts) < 2 or starts[0] != 0 or (counts < 0).any():
        raise ValueError(f"The compressed rows of {path} are damaged; save them anew with scipy.")
    if counts.sum() != len(columns):
        raise ValueError(f"The compressed rows of {path} end at {counts.sum()} of {len(columns)}; save them anew.")
    return np.repeat(np.arange(len(counts)), counts)


def _npz_features(arrays: _Arrays) -> Tensor:
    dense = arrays.first("x", "features", "feat", "attr_matrix")
    if dense is not None:
        return _tensor(dense)
    prefix = next((p for p in ("attr_", "x_") if arrays.first(f"{p}indptr") is not None), None)
    if prefix is None:
        raise ValueError(f"{arrays.path} holds {arrays.names} but no node features; save x [n, d] or give features=.")
    starts, columns = (arrays.needed(f"{prefix}{key}", "the features") for key in ("indptr", "indices"))
    rows = _row_numbers(arrays.path, starts, columns)
    shape = arrays.first(f"{prefix}shape")
    width = int(shape[1]) if shape is not None else int(arrays.needed("num_features", "the features"))
    if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < width:
        raise ValueError(f"{arrays.path} has a feature {int(columns.max())} of {width}; number them from 0.")
    values = arrays.first(f"{prefix}data")
    x = np.zeros((len(starts) - 1, width), dtype=np.float32)
    x[rows, columns.astype(np.int64)] = 1 if values is None else values
    return torch.from_numpy(x)


def _npz_split(arrays: _Arrays) -> Split | None:
    numbered = arrays.first("split")
    if numbered is not None:
        return Split(*(_tensor(np.flatnonzero(numbered == part)) for part in range(3)))
    parts = []
    for names in _SETS.values():
        mask = arrays.first(*(f"{name}_mask" for name in names))
        index = arrays.first(*(f"{name}_idx" for name in names), *(f"idx_{name}" for name in names))
        parts.append(np.flatnonzero(mask) if mask is not None else index)
    if all(part is None for part in parts):
        return None
    if parts[0] is None:
        raise ValueError(f"{arrays.path} has a split without training nodes; save train_mask or train_idx as well.")
    return Split(*(_tensor(np.asarray([] if part is None else part, dtype=np.int64)) for part in parts))


# --- tables
# --------------------------------------------------------------------------------------------------


@dataclass
class _Nodes:
    """A table of nodes."""

    places: dict[str, int] = field(default_factory=dict)
    rows: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sets: list[str | None] | None = None

    def split(self) -> Split | None:
        if self.sets is None:
            return None
        return Split(*(torch.tensor([i for i, s in enumerate(self.sets) if s == part]).long() for part in _SETS))


def _read_nodes(path: Path, columns: GraphColumns) -> _Nodes:
    lines = _lines(path)
    header = [name.strip() for name in lines[0][1]] if lines else []
    missing = [name for name in (columns.node, columns.label) if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {missing[0]!r} among {', '.join(header[:8]) or 'none'}; name it in `columns`."
        )
    at_node, at_label = header.index(columns.node), header.index(columns.label)
    at_split = header.index(columns.split) if columns.split in header else None
    numbers = [i for i in range(len(header)) if i not in (at_node, at_label, at_split)]
    nodes = _Nodes(sets=None if at_split is None else [])
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise ValueError(f"{path} line {line} has {len(row)} fields instead of {len(header)}; correct it.")
        node = row[at_node].strip()
        if nodes.places.setdefault(node, len(nodes.rows)) != len(nodes.rows):
            raise ValueError(f"{path} line {line} describes node {node!r} again; keep one line a node.")
        nodes.rows.append(_floats(path, line, row, header, numbers))
        nodes.labels.append(row[at_label].strip())
        if nodes.sets is not None and at_split is not None:
            nodes.sets.append(_set(path, line, row[at_split]))
    return nodes


def _floats(path: Path, line: int, row: Sequence[str], header: Sequence[str], numbers: Sequence[int]) -> list[float]:
    values = []
    for i in numbers:
        try:
            values.append(float(row[i]))
        except ValueError as error:
            raise ValueError(
                f"{path} line {line} has {row[i]!r} as feature {header[i]!r}; give a number in every feature column."
            ) from error
    return values


def _set(path: Path, line: int, text: str) -> str | None:
    word = text.strip().lower()
    found = next((part for part, names in _SETS.items() if word in names), None)
    if found is None and word:
        raise ValueError(f"{path} line {line} puts the node into {word!r}; write train, validation, test or nothing.")
    return found


def _read_edges(path: Path, places: Mapping[str, int]) -> tuple[list[list[int]], list[float]]:
    pairs: list[list[int]] = []
    weights: list[float] = []
    lines = _lines(path)
    if lines and not any(name.strip() in places for name in lines[0][1][:2]):
        lines = lines[1:]
    width = len(lines[0][1]) if lines else 2
    for line, row in lines:
        if len(row) != width or not 2 <= width <= 3:
            raise ValueError(f"{path} line {line} has {len(row)} fields; give two nodes and, if weighted, a number.")
        ends = [name.strip() for name in row[:2]]
        unknown = [end for end in ends if end not in places]
        if unknown:
            raise ValueError(
                f"{path} line {line} names node {unknown[0]!r}, which has no features; describe or drop it."
            )
        pairs.append([places[end] for end in ends])
        if width == 3:
            weights += _floats(path, line, row, ("source", "target", "weight"), [2])
    return pairs, weights


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, each with its line number."""
    try:
        with _opened(path) as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter="\t" if first.count("\t") > first.count(",") else ",", strict=True)
            return [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give a comma- or tab-separated file.") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}); save it as UTF-8 text.") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _sorted_names(labels: set[str]) -> tuple[str, ...]:
    """Labels in ascending order: of their numbers if all are whole numbers, otherwise of their text."""
    try:
        return tuple(sorted(labels, key=int))
    except ValueError:
        return tuple(sorted(labels))


def _table(path: Path, dtype: type[np.generic]) -> _Array:
    """Numbers of a csv file without a header, ``[rows, columns]``."""
    _there(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file is told below
            table: _Array = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is no table of numbers ({one_line(error)}); get it again.") from error
    if table.size == 0:
        raise ValueError(f"{path} is empty; get it again.")
    return table


def _there(path: Path) -> Path:
    if not path.is_file():
        raise DataMissing(f"{path} is not there; give the folder that holds {path.name}.")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(_there(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, DataMissing):
            raise
        raise ValueError(f"{path} is no JSON ({one_line(error)}); get it again.") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} holds a {type(loaded).__name__}; give an object as GraphSAINT's files have.")
    return loaded


def _tensor(array: _Array) -> Tensor:
    kind = array.dtype.kind
    wanted = np.float32 if kind == "f" and array.dtype != np.float64 else np.float64 if kind == "f" else np.int64
    return torch.from_numpy(np.ascontiguousarray(array, dtype=wanted))
