"""What is wrong with a graph is one sentence, or is cleaned by the stated rule, whoever reads it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from condensery.data.graph_files import from_csv, from_npz, graphsaint, ogb_csv
from condensery.data.graph_pyg import from_pyg
from condensery.data.graphs import GraphData, Split, graph_data


class Parts(NamedTuple):
    """A path of six nodes in two classes, edges in both directions."""

    x: Tensor = torch.arange(12.0).view(6, 2)
    edges: Tensor = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 5], [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]])
    y: Tensor = torch.tensor([0, 0, 0, 1, 1, 1])
    split: Split = Split(torch.tensor([0, 3]), torch.tensor([1, 4]), torch.tensor([2, 5]))


def tensors(parts: Parts, _: Path) -> GraphData:
    return graph_data("path", parts.x, parts.edges, parts.y, split=parts.split)


def npz(parts: Parts, folder: Path) -> GraphData:
    sets = dict(zip(("train_idx", "val_idx", "test_idx"), (part.numpy() for part in parts.split), strict=True))
    np.savez(folder / "path.npz", x=parts.x.numpy(), edge_index=parts.edges.numpy(), y=parts.y.numpy(), **sets)
    return from_npz(folder / "path.npz")


def compressed(parts: Parts, folder: Path) -> GraphData:
    """Shchur's layout, in which a repeated edge is a repeated column of its row."""
    sets = dict(zip(("train_idx", "val_idx", "test_idx"), (part.numpy() for part in parts.split), strict=True))
    order = parts.edges[0].argsort(stable=True)
    starts = np.concatenate([[0], np.bincount(parts.edges[0].numpy(), minlength=len(parts.x)).cumsum()])
    columns = parts.edges[1, order].numpy()
    arrays = {"adj_indptr": starts, "adj_indices": columns, "adj_data": np.ones(len(columns))}
    np.savez(folder / "rows.npz", attr_matrix=parts.x.numpy(), labels=parts.y.numpy(), **arrays, **sets)
    return from_npz(folder / "rows.npz")


def csv(parts: Parts, folder: Path) -> GraphData:
    sets = {i: name for name, part in zip(("train", "val", "test"), parts.split, strict=True) for i in part.tolist()}
    rows = [
        ",".join([str(i), str(int(parts.y[i])), sets.get(i, ""), *(str(v) for v in parts.x[i].tolist())])
        for i in range(len(parts.x))
    ]
    (folder / "nodes.csv").write_text("id,label,split,a,b\n" + "\n".join(rows) + "\n")
    (folder / "edges.csv").write_text("source,target\n" + "".join(f"{a},{b}\n" for a, b in parts.edges.T.tolist()))
    return from_csv(folder / "edges.csv", folder / "nodes.csv")


def ogb(parts: Parts, folder: Path) -> GraphData:
    def write(name: str, rows: list[list[Any]]) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress("".join(",".join(map(str, row)) + "\n" for row in rows).encode()))

    write("raw/edge.csv.gz", parts.edges.T.tolist())
    write("raw/node-feat.csv.gz", parts.x.tolist())
    write("raw/node-label.csv.gz", parts.y[:, None].tolist())
    for name, part in zip(("train", "valid", "test"), parts.split, strict=True):
        write(f"split/time/{name}.csv.gz", part[:, None].tolist())
    return ogb_csv(folder)


def saint(parts: Parts, folder: Path) -> GraphData:
    order = parts.edges[0].argsort(stable=True)
    starts = np.concatenate([[0], np.bincount(parts.edges[0].numpy(), minlength=len(parts.x)).cumsum()])
    columns = parts.edges[1, order].numpy()
    np.savez(folder / "adj_full.npz", indptr=starts, indices=columns, data=np.ones(len(columns)))
    np.save(folder / "feats.npy", parts.x.numpy())
    (folder / "class_map.json").write_text(json.dumps({str(i): c for i, c in enumerate(parts.y.tolist())}))
    roles = dict(zip(("tr", "va", "te"), (part.tolist() for part in parts.split), strict=True))
    (folder / "role.json").write_text(json.dumps(roles))
    return graphsaint(folder)


def pyg(parts: Parts, _: Path) -> GraphData:
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Data

    masks = {
        name: torch.zeros(len(parts.x), dtype=torch.bool).index_fill(0, part, True)
        for name, part in zip(("train_mask", "val_mask", "test_mask"), parts.split, strict=True)
    }
    return from_pyg(Data(x=parts.x, edge_index=parts.edges, y=parts.y, **masks))


READERS: dict[str, Callable[[Parts, Path], GraphData]] = {
    "tensors": tensors,
    "npz": npz,
    "compressed rows": compressed,
    "csv": csv,
    "ogb": ogb,
    "graphsaint": saint,
    "pyg": pyg,
}
WITH = pytest.mark.parametrize("reader", READERS)


def features(node: int, value: float) -> Tensor:
    x = Parts().x.clone()
    x[node, 1] = value
    return x


def more_edges(*pairs: tuple[int, int]) -> Tensor:
    return torch.cat([Parts().edges, torch.tensor(pairs).T], 1)


def refused(reader: str, parts: Parts, folder: Path) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the caller looks at the sentence
        READERS[reader](parts, folder)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@WITH
def test_a_good_graph_is_read(reader: str, tmp_path: Path) -> None:
    data = READERS[reader](Parts(), tmp_path)
    assert torch.equal(data.edges, tensors(Parts(), tmp_path).edges)
    assert data.y.tolist() == Parts().y.tolist()
    assert data.notes == ()


@WITH
def test_an_edge_to_a_node_that_is_not_there_is_named(reader: str, tmp_path: Path) -> None:
    message = refused(reader, Parts(edges=more_edges((2, 9))), tmp_path)
    if reader == "csv":
        assert "line 12 names node '9', which has no features" in message
    else:
        assert "nodes 2 and 9, but there are 6 nodes" in message
    if reader not in ("csv", "compressed rows", "graphsaint"):  # there it is a node's row that cannot be negative
        assert "nodes -1 and 2" in refused(reader, Parts(edges=more_edges((-1, 2))), tmp_path)


@WITH
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_named_by_their_node(reader: str, value: float, tmp_path: Path) -> None:
    message = refused(reader, Parts(x=features(4, value)), tmp_path)
    assert "Features of 1 nodes are NaN or infinite, first of node 4; fill them in or drop them." in message


@WITH
def test_a_class_without_training_nodes_is_named(reader: str, tmp_path: Path) -> None:
    split = Split(torch.tensor([0]), torch.tensor([1, 4]), torch.tensor([2, 5]))
    assert "Class '1' of" in refused(reader, Parts(split=split), tmp_path)


@WITH
def test_a_class_number_that_no_node_has_leaves_no_gap(reader: str, tmp_path: Path) -> None:
    data = READERS[reader](Parts(y=torch.tensor([2, 2, 2, 7, 7, 7])), tmp_path)
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.classes == ("2", "7")


@WITH
def test_self_loops_and_repeated_edges_are_left_out_and_noted(reader: str, tmp_path: Path) -> None:
    data = READERS[reader](Parts(edges=more_edges((3, 3), (0, 1), (0, 1))), tmp_path)
    assert torch.equal(data.edges, tensors(Parts(), tmp_path).edges)
    assert data.weights is None
    assert data.notes == ("1 self-loops were left out.", "2 repeated edges were left out.")


@WITH
def test_an_edge_in_one_direction_gets_the_other(reader: str, tmp_path: Path) -> None:
    data = READERS[reader](Parts(edges=Parts().edges[:, ::2]), tmp_path)
    assert torch.equal(data.edges, tensors(Parts(), tmp_path).edges)
    assert data.notes == ("5 edges were given in one direction and got the other.",)


@WITH
def test_one_node_is_no_graph(reader: str, tmp_path: Path) -> None:
    none = torch.empty(0, dtype=torch.int64)
    alone = Parts(torch.ones(1, 2), torch.tensor([[0], [0]]), torch.tensor([0]), Split(torch.tensor([0]), none, none))
    message = refused(reader, alone, tmp_path)
    assert "give at least 2 nodes" in message or (reader == "ogb" and "valid.csv.gz is empty" in message)


@WITH
def test_a_node_in_two_sets_is_refused(reader: str, tmp_path: Path) -> None:
    if reader == "csv":
        pytest.skip("a row of a table names one set")
    split = Split(torch.tensor([0, 3]), torch.tensor([1, 3]), torch.tensor([2, 5]))
    assert "overlap; give each node to one of them" in refused(reader, Parts(split=split), tmp_path)
