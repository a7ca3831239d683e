"""Sets of graphs in the layout of TU Dortmund's collection (MUTAG, NCI1, DD, PROTEINS and so on): plain text."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from condensery.data._errors import DataMissing, one_line
from condensery.data.graph_features import AsGiven, FeatureFit
from condensery.data.graph_sets import GraphSet, graph_set
from condensery.data.graph_splits import Split
from condensery.store import decimals

__all__ = ["tu_graphs", "write_tu"]


def tu_graphs(
    folder: str | os.PathLike[str],
    name: str | None = None,
    *,
    split: Split | None = None,
    fit: FeatureFit = AsGiven.of,
    seed: int = 0,
) -> GraphSet:
    """A set of graphs from the text files of TU Dortmund's collection (Morris et al., 2020), as its archives unpack.

    ``NAME_A.txt`` has an edge a line, two nodes counted from 1; ``NAME_graph_indicator.txt`` the graph of each node,
    counted from 1; ``NAME_graph_labels.txt`` the class of each graph. Features are the numbers of
    ``NAME_node_attributes.txt``, followed by those of ``NAME_node_labels.txt`` one-hot, as PyTorch Geometric puts them
    together; without either, the degree. Labels and attributes of edges are not read.

    Args:
        folder: With the files, or with ``raw/`` that has them.
        name: The set's name; by default that of the only ``NAME_A.txt`` there.
        split: See `graph_set`.
        fit: See `graph_set`.
        seed: See `graph_set`.

    Raises:
        DataMissing: Naming the file that is not there.
        ValueError: Naming the file that is damaged; see `graph_set`.
    """
    base, name = _named(Path(folder), name)
    edges = _numbers(base / f"{name}_A.txt", np.int64, columns=2)
    owner = _numbers(base / f"{name}_graph_indicator.txt", np.int64, columns=1)[:, 0]
    y = _numbers(base / f"{name}_graph_labels.txt", np.float64, columns=1)[:, 0]
    order = np.argsort(owner, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    if len(edges) and not 1 <= edges.min() <= edges.max() <= len(owner):
        bad = int(((edges < 1) | (edges > len(owner))).any(1).argmax())
        raise ValueError(
            f"{base / f'{name}_A.txt'} line {bad + 1} joins nodes {edges[bad, 0]} and {edges[bad, 1]}, but there are "
            f"{len(owner)}, counted from 1; drop the edge."
        )
    features = _features(base, name, len(owner))
    return graph_set(
        name,
        None if features is None else features[torch.from_numpy(order)],
        torch.from_numpy(place[edges - 1].T.copy()),
        torch.from_numpy(owner[order] - 1),
        torch.from_numpy(y),
        split=split,
        fit=fit,
        seed=seed,
    )


def write_tu(data: GraphSet, folder: str | os.PathLike[str], name: str) -> None:
    """Write a set of graphs as `tu_graphs` reads it: edges, graphs of the nodes, classes, features as node attributes.

    ``NAME_edge_attributes.txt`` has the weights of edges, where there are some. Classes are the numbers that they are
    called by, or numbered from 0 where their names are not whole numbers. The layout has no place for a split.

    Args:
        data: The set.
        folder: Where the files are written; it must exist.
        name: What they are called: ``NAME_A.txt`` and so on.

    Raises:
        ValueError: If no graph has an edge, which the layout cannot say.
    """
    if data.edges.shape[1] == 0:
        raise ValueError(f"No graph of {data.name} has an edge, and the layout of TU Dortmund needs one.")
    named = [int(c) if re.fullmatch(r"-?\d+", c) else None for c in data.classes]
    numbers = list(range(len(named))) if None in named else named
    files = {
        "A": [f"{a + 1}, {b + 1}" for a, b in data.edges.T.tolist()],
        "graph_indicator": [str(i + 1) for i in data.owner.tolist()],
        "graph_labels": [str(numbers[c]) for c in data.y.tolist()],
        "node_attributes": [", ".join(decimals(row)) for row in data.x],
    }
    files |= {} if data.weights is None else {"edge_attributes": decimals(data.weights)}
    for kind, lines in files.items():
        (Path(folder) / f"{name}_{kind}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _named(folder: Path, name: str | None) -> tuple[Path, str]:
    """Where the files are, and what they are called."""
    base = folder / "raw" if not list(folder.glob("*_A.txt")) and (folder / "raw").is_dir() else folder
    found = sorted(path.name.removesuffix("_A.txt") for path in base.glob("*_A.txt"))
    if name is None and len(found) != 1:
        raise DataMissing(f"{base} has {len(found)} files NAME_A.txt {found}; give name= one that is there.")
    return base, name or found[0]


def _features(base: Path, name: str, nodes: int) -> Tensor | None:
    """Attributes, then labels one-hot, ``[n, d]``."""
    parts: list[Tensor] = []
    for path in (base / f"{name}_node_attributes.txt", base / f"{name}_node_labels.txt"):
        if not path.is_file():
            continue
        labels = path.stem.endswith("labels")
        table = torch.from_numpy(_numbers(path, np.int64 if labels else np.float64))
        if len(table) != nodes:
            raise ValueError(f"{path} has {len(table)} lines for {nodes} nodes; get it again.")
        columns = [torch.nn.functional.one_hot(column - column.min()) for column in table.T] if labels else [table]
        parts += [column.float() for column in columns]
    return torch.cat(parts, 1) if parts else None


def _numbers(path: Path, dtype: type[np.generic], *, columns: int | None = None) -> npt.NDArray[Any]:
    """Numbers of a text file, comma-separated, ``[rows, columns]``."""
    if not path.is_file():
        raise DataMissing(f"{path} is not there; give the folder that holds {path.name}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file is told below
            table: npt.NDArray[Any] = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no table of numbers ({one_line(error)}); get it again.") from error
    if table.size == 0:
        raise ValueError(f"{path} is empty; get it again.")
    if columns is not None and table.shape[1] != columns:
        raise ValueError(f"{path} has {table.shape[1]} numbers a line instead of {columns}; get it again.")
    return table
