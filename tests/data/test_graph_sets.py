"""Sets of graphs: batches of them, what is cleaned and what is refused, TU Dortmund's files, the digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from condensery.data._errors import DataMissing
from condensery.data.graph_features import StandardScaled
from condensery.data.graph_sets import GraphSet, digit_graphs, graph_set, graph_set_from_pyg
from condensery.data.graph_splits import Split
from condensery.data.tu_files import tu_graphs

# A triangle, a pair, a single node and a path of three.
OWNER = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3])
EDGES = torch.tensor([[0, 1, 2, 3, 6, 7], [1, 2, 0, 4, 7, 8]])
X = torch.arange(18.0).view(9, 2)
Y = torch.tensor([0, 1, 1, 0])
SPLIT = Split(torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3]))


def four(**options: object) -> GraphSet:
    given: dict[str, object] = {"x": X, "edges": EDGES, "owner": OWNER, "y": Y, "split": SPLIT, **options}
    parts = [given.pop(key) for key in ("x", "edges", "owner", "y")]
    return graph_set("four", *parts, **given)  # type: ignore[arg-type]


def matrix(data: GraphSet, index: list[int]) -> Tensor:
    return data.batch(torch.tensor(index)).graph.dense()


def test_a_batch_has_the_graphs_side_by_side_in_the_given_order() -> None:
    data = four()
    assert data.sizes.tolist() == [3, 2, 1, 3]
    x = data.batch(torch.tensor([3, 1, 0, 1]))
    assert x.sizes.tolist() == [3, 2, 3, 2]
    assert x.owner.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert x.features[:, 0].tolist() == [12, 14, 16, 6, 8, 0, 2, 4, 6, 8]
    blocks = [matrix(data, [i]) for i in (3, 1, 0, 1)]
    assert torch.equal(x.graph.dense(), torch.block_diag(*blocks))
    assert blocks[0].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert matrix(data, [2]).tolist() == [[0]]


def test_dense_graphs_are_filled_up_with_nodes_of_zeros() -> None:
    data = four(weights=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    values, blocks = data.dense(torch.tensor([1, 3]), 4)
    assert values[0].tolist() == [[6, 7], [8, 9], [0, 0], [0, 0]]
    assert blocks[0].tolist() == [[0, 4, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert torch.equal(blocks[1][:3, :3], matrix(data, [3]))
    with pytest.raises(ValueError, match="A graph of 3 nodes does not fit 2"):
        data.dense(torch.tensor([1, 3]), 2)


def test_a_subset_is_a_set_whose_graphs_all_train() -> None:
    part = four(weights=torch.arange(1.0, 7.0)).subset(torch.tensor([3, 0]))
    assert (len(part), part.train.tolist(), part.y.tolist()) == (2, [0, 1], [0, 0])
    assert torch.equal(matrix(part, [1]), matrix(four(weights=torch.arange(1.0, 7.0)), [0]))
    with pytest.raises(ValueError, match="distinct graphs"):
        part.subset(torch.tensor([0, 0]))


def test_members_are_the_training_graphs_of_a_class() -> None:
    data = four(split=Split(torch.tensor([3, 1, 0]), torch.tensor([2]), torch.tensor([], dtype=torch.int64)))
    assert [data.members(c).tolist() for c in (0, 1)] == [[3, 0], [1]]
    with pytest.raises(ValueError, match="Class 2 does not exist"):
        data.members(2)


def test_what_can_be_cleaned_is_and_is_noted() -> None:
    again = torch.cat([EDGES, EDGES[:, :2], torch.tensor([[4], [4]])], 1)
    data = four(edges=again, x=None)
    assert torch.equal(data.edges, four().edges)
    assert data.x.flatten().tolist() == [2, 2, 2, 1, 1, 0, 1, 2, 1]
    assert data.notes == (
        "1 self-loops were left out.",
        "2 repeated edges were left out.",
        "6 edges were given in one direction and got the other.",
        "Nodes have no features; their degree is the only one.",
    )


def test_features_are_standardised_on_the_nodes_of_training_graphs() -> None:
    data = four(fit=StandardScaled.of)
    assert data.x[:5].mean(0).abs().max() < 1e-6
    assert data.x[:5].std(0, correction=0).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": torch.tensor([[0], [9]])}, "Edge 0 joins nodes 0 and 9, but there are 9 nodes"),
        ({"edges": torch.tensor([[0, 2], [1, 3]])}, "joins nodes 2 and 3 of graphs 0 and 1"),
        ({"x": torch.full((9, 1), float("nan"))}, "9 nodes are NaN or infinite"),
        ({"x": torch.zeros(8, 2)}, "for 9 nodes; give one row a node"),
        ({"owner": OWNER.flip(0)}, "sort the nodes by graph"),
        ({"owner": OWNER + 1}, "in graph 4 of 4"),
        ({"y": torch.tensor([0, 1, 1, 0, 1])}, "Graph 4 has no node"),
        ({"owner": torch.tensor([0, 0, 0, 1, 1, 1, 3, 3, 3])}, "Graph 2 has no node"),
        ({"y": torch.tensor([0.5, 1, 1, 0])}, "give a whole number for each graph"),
        ({"split": Split(*(torch.tensor([i]) for i in range(3)))}, "Class '1' of four has no training graph"),
        ({"split": Split(*(torch.tensor([0, 1]),) * 3)}, "overlap"),
        ({"classes": ("a",)}, "name them all"),
        ({"y": torch.tensor([0, 1, 1, -1]), "classes": ("a", "b")}, "A graph has no label"),
        ({"weights": torch.zeros(6)}, "not a positive number"),
    ],
)
def test_what_cannot_be_cleaned_is_one_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        four(**options)
    assert "\n" not in str(error.value)


def written(folder: Path, **files: str) -> Path:
    usual = {
        "A": "1, 2\n2, 1\n2, 3\n4, 5\n",
        "graph_indicator": "1\n1\n1\n2\n2\n",
        "graph_labels": "1\n-1\n",
        "node_labels": "2\n3\n2\n4\n2\n",
    }
    for name, text in (usual | files).items():
        (folder / f"TOY_{name}.txt").write_text(text)
    return folder


def halves() -> Split:
    return Split(torch.tensor([0, 1]), *(torch.tensor([], dtype=torch.int64),) * 2)


def test_tu_files_are_a_set_of_graphs(tmp_path: Path) -> None:
    data = tu_graphs(written(tmp_path), split=halves())
    assert data.classes == ("-1", "1")
    assert data.y.tolist() == [1, 0]
    assert data.x.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert matrix(data, [0]).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    written(tmp_path, node_attributes="0.5, 1\n" * 5)
    assert tu_graphs(tmp_path, "TOY", split=halves()).x[1].tolist() == [0.5, 1, 0, 1, 0]


def test_tu_files_whose_nodes_are_not_sorted_by_graph_are_sorted(tmp_path: Path) -> None:
    folder = written(tmp_path, A="1, 3\n2, 5\n3, 4\n", graph_indicator="2\n1\n2\n2\n1\n", node_labels="0\n1\n2\n3\n4\n")
    data = tu_graphs(folder, split=halves())
    assert data.sizes.tolist() == [2, 3]
    assert data.x.argmax(1).tolist() == [1, 4, 0, 2, 3]
    assert matrix(data, [0]).tolist() == [[0, 1], [1, 0]]
    assert matrix(data, [1]).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_tu_files_are_what_pytorch_geometric_reads(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    from torch_geometric.io import read_tu_data

    folder = written(tmp_path, node_attributes="0.5, 1\n1, 2\n3, 4\n5, 6\n7, 8\n")
    theirs, slices, _ = read_tu_data(str(folder), "TOY")
    ours = tu_graphs(folder, split=halves())
    assert torch.equal(theirs.x, ours.x)
    assert slices["x"].diff().tolist() == ours.sizes.tolist()
    assert theirs.y.tolist() == ours.y.tolist()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"A": "1, 2\n1, 6\n"}, "A.txt line 2 joins nodes 1 and 6, but there are 5, counted from 1"),
        ({"A": "0, 2\n"}, "line 1 joins nodes 0 and 2"),
        ({"A": "1, 4\n"}, "of graphs 0 and 1; drop edges between graphs"),
        ({"A": "one, two\n"}, "A.txt is no table of numbers"),
        ({"A": "1, 2, 3\n"}, "A.txt has 3 numbers a line instead of 2"),
        ({"A": ""}, "A.txt is empty"),
        ({"graph_labels": "1\n"}, "in graph 1 of 1"),
        ({"graph_labels": "1\n-1\n1\n"}, "Graph 2 has no node"),
        ({"node_labels": "1\n"}, "node_labels.txt has 1 lines for 5 nodes"),
        ({"node_attributes": "nan\n" * 5}, "5 nodes are NaN or infinite"),
    ],
)
def test_a_damaged_tu_file_is_one_sentence(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        tu_graphs(written(tmp_path, **files), split=halves())
    assert "\n" not in str(error.value)


def test_missing_tu_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"0 files NAME_A\.txt"):
        tu_graphs(tmp_path)
    (written(tmp_path) / "TOY_graph_labels.txt").unlink()
    with pytest.raises(DataMissing, match=r"TOY_graph_labels.txt is not there"):
        tu_graphs(tmp_path)


def test_pyg_graphs_are_a_set() -> None:
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Data

    parts = [
        Data(x=X[:3], edge_index=EDGES[:, :3], y=torch.tensor([0])),
        Data(x=X[6:], edge_index=EDGES[:, 4:] - 6, y=torch.tensor([1])),
    ]
    data = graph_set_from_pyg(parts, split=halves())
    assert torch.equal(matrix(data, [1]), matrix(four(), [3]))
    assert torch.equal(data.x, torch.cat([X[:3], X[6:]]))
    with pytest.raises(ValueError, match="An edge of graph 0 leaves its 3 nodes"):
        graph_set_from_pyg([Data(x=X[:3], edge_index=EDGES, y=torch.tensor([0])), parts[1]])
    with pytest.raises(ValueError, match="Graph 1 has no edge_index or not one label"):
        graph_set_from_pyg([parts[0], Data(x=X[:3], edge_index=EDGES[:, :3])])


def test_digits_are_the_graphs_of_their_pixels(untouched: None) -> None:
    from sklearn.datasets import load_digits

    data, image = digit_graphs(), load_digits().images[7] / 16
    x = data.batch(torch.tensor([7]))
    assert int(x.sizes) == int((image >= 0.25).sum())
    drawn = torch.zeros(8, 8, dtype=torch.float64)
    row, column = ((x.features[:, 1:] + 1) * 3.5).round().long().T
    drawn[row, column] = (x.features[:, 0].double() + 1) / 2
    assert torch.equal(drawn, torch.from_numpy(image) * (torch.from_numpy(image) >= 0.25))
    near = ((row[:, None] - row).abs().clamp(min=0) <= 1) & ((column[:, None] - column).abs() <= 1)
    assert torch.equal(x.graph.dense(), (near & ~torch.eye(len(row), dtype=torch.bool)).float())
    assert [len(part) for part in data.split] == [1438, 180, 179]
    with pytest.raises(ValueError, match="choose between 0 and 1"):
        digit_graphs(ink=1.0)
