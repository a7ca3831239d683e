"""The file of a condensed set of graphs: what is written is read, damage is told, exports are read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from condensery.data.graph_features import StandardScaled
from condensery.data.graph_sets import GraphSet
from condensery.data.tu_files import tu_graphs
from condensery.graph_fitting import GraphRecipe
from condensery.graph_set_artifact import KIND, VERSION, GraphSetArtifact
from condensery.store import DamagedFile, load_tree, save_tree
from support import rings_and_stars

NETWORK = {"net": "PooledGCN", "features": 3, "classes": 2, "width": 4, "depth": 1}
REAL = {"graphs": 40, "nodes": 200, "edges": 200, "train": 24}
CHOSEN = torch.tensor([0, 2, 1, 3, 5])


def some(*, weights: bool = False) -> GraphSet:
    data = rings_and_stars().subset(CHOSEN)
    data = replace(data, classes=("ring or star", "star or ring"), preprocessing=StandardScaled(torch.ones(3), X_STD))
    # both directions of an edge weigh the same
    each = (data.edges.sum(0) + 1).float() / 3
    return replace(data, weights=each) if weights else data


X_STD = torch.tensor([1.0, 2.0, 3.0])


def artifact(**changes: Any) -> GraphSetArtifact:
    given = {
        "graphs": some(),
        "recipe": GraphRecipe(epochs=3),
        "network": NETWORK,
        "dataset": "toy",
        "method": "DosCond",
    }
    return GraphSetArtifact(**{**given, "real": REAL, **changes})


@pytest.mark.parametrize("weights", [False, True])
def test_what_is_written_is_read(weights: bool, tmp_path: Path) -> None:
    made = artifact(
        graphs=some(weights=weights),
        options={"options": {"penalty": 0.5}},
        seed=4,
        split={"train": 24},
        indices=CHOSEN,
        scores={"rows": []},
        provenance={"steps": 3},
    )
    made.save(tmp_path / "a.safetensors")
    found = GraphSetArtifact.load(tmp_path / "a.safetensors")
    for name in ("x", "edges", "sizes", "y", "train", "weights"):
        ours, theirs = getattr(made.graphs, name), getattr(found.graphs, name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert torch.equal(found.preprocessing.tensors()["std"], X_STD)
    assert found.indices is not None
    assert torch.equal(found.indices, CHOSEN)
    for name in ("recipe", "network", "dataset", "method", "real", "options", "seed", "split", "scores", "provenance"):
        assert getattr(found, name) == getattr(made, name)
    assert (found.classes, found.per_class) == (made.classes, [2, 3])
    assert found.build_network()(found.graphs.batch(found.graphs.train)).shape == (5, 2)
    assert not list(tmp_path.glob(".*"))


def test_it_says_what_it_really_costs() -> None:
    data = some()
    nodes, edges = len(data.x), data.edges.shape[1] // 2
    assert artifact().spent == {
        "graphs": 5,
        "nodes": nodes,
        "edges": edges,
        "share_of_training_graphs": 5 / 24,
        "labels": "hard",
        "bytes": nodes * 3 * 4 + 5 * 8 + 5 + edges * 16,
    }


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    data = rings_and_stars()
    for changes, sentence in (
        ({"graphs": data}, "24 of 40 graphs train"),
        ({"graphs": data.subset(torch.tensor([1, 0]))}, "not in order of their classes"),
        ({"indices": torch.arange(3)}, "one for each of 5 graphs"),
        ({"real": {}}, "sizes of the real set are missing"),
    ):
        with pytest.raises(ValueError, match=sentence):
            artifact(**changes)


def test_files_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="check the path"):
        GraphSetArtifact.load(path)
    artifact().save(path)
    good = load_tree(path, kind=KIND, version=VERSION)
    graphs = good["graphs"]
    lies: list[dict[str, Any]] = [
        {"graphs": {**graphs, "x": graphs["x"][:2]}},
        {"graphs": {**graphs, "x": graphs["x"] * float("nan")}},
        {"graphs": {**graphs, "y": "all"}},
        {"graphs": {**graphs, "y": graphs["y"] - 1}},
        {"graphs": {**graphs, "y": graphs["y"].flip(0)}},
        {"graphs": {**graphs, "sizes": graphs["sizes"].flip(0) + 1}},
        {"graphs": {**graphs, "edges": graphs["edges"] + 1}},
        {"graphs": {**graphs, "edges": graphs["edges"].flip(1)}},
        {"graphs": {**graphs, "weights": torch.rand(2)}},
        {"graphs": {k: v for k, v in graphs.items() if k != "sizes"}},
        {"graphs": {name: part[:0] for name, part in graphs.items() if part is not None}},
        {"recipe": {"type": "NodeRecipe"}},
        {"recipe": {"type": "GraphRecipe", "epochs": "many"}},
        {"preprocessing": {"config": {"kind": "whitened"}, "tensors": {}}},
        {"options": [1]},
        {"indices": 3},
        {"real": {"graphs": "many"}},
        {"classes": [1, 2]},
        {"classes": ["one"]},
    ]
    for lie in lies:
        save_tree(path, {**good, **lie}, kind=KIND, version=VERSION)
        with pytest.raises(DamagedFile, match="does not hold a usable condensed set of graphs"):
            GraphSetArtifact.load(path)
    save_tree(path, good, kind="condensery-graph", version=VERSION)
    with pytest.raises(DamagedFile, match="is not a condensery-graph-set file"):
        GraphSetArtifact.load(path)
    save_tree(path, good, kind=KIND, version=VERSION + 1)
    with pytest.raises(DamagedFile, match="upgrade"):
        GraphSetArtifact.load(path)


@pytest.mark.parametrize("weights", [False, True])
def test_the_export_is_the_set(weights: bool, tmp_path: Path) -> None:
    made = artifact(graphs=some(weights=weights))
    made.export_tu(tmp_path / "small")
    names = {"A", "graph_indicator", "graph_labels", "node_attributes", *(["edge_attributes"] if weights else [])}
    assert {p.name for p in (tmp_path / "small").iterdir()} == {*(f"small_{n}.txt" for n in names), "about.json"}
    again = tu_graphs(tmp_path / "small")
    for name in ("x", "edges", "sizes", "y"):
        assert torch.equal(getattr(again, name), getattr(made.graphs, name))
    about = json.loads((tmp_path / "small" / "about.json").read_text())
    assert (about["classes"], about["method"], about["recipe"]["epochs"]) == (list(made.classes), "DosCond", 3)
    with pytest.raises(ValueError, match="exists already; choose another folder"):
        made.export_tu(tmp_path / "small")
    pytest.importorskip("torch_geometric")
    from torch_geometric.io import read_tu_data

    whole, slices, _ = read_tu_data(str(tmp_path / "small"), "small")
    assert torch.equal(whole.x, made.graphs.x)
    assert slices["x"].diff().tolist() == made.graphs.sizes.tolist()
    parts = made.to_pyg()
    assert [int(part.y) for part in parts] == made.graphs.y.tolist()
    assert [part.num_edges for part in parts] == slices["edge_index"].diff().tolist()
    if weights:
        assert made.graphs.weights is not None
        assert torch.equal(torch.cat([part.edge_weight for part in parts]), made.graphs.weights)


def test_classes_that_are_numbers_keep_them(tmp_path: Path) -> None:
    made = artifact(graphs=replace(some(), classes=("-1", "1")))
    made.export_tu(tmp_path / "s")
    assert (tmp_path / "s" / "s_graph_labels.txt").read_text().split() == ["-1", "-1", "1", "1", "1"]
    assert tu_graphs(tmp_path / "s").classes == ("-1", "1")


def test_a_set_without_an_edge_is_not_written_in_tu_s_layout(tmp_path: Path) -> None:
    data = rings_and_stars(single=True).subset(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="has an edge, and the layout of TU Dortmund needs one"):
        artifact(graphs=data).export_tu(tmp_path / "s")
    assert not list(tmp_path.iterdir())
