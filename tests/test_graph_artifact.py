"""The file of a condensed graph: what is written is read, damage is told in a sentence, exports can be read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from condensery.adjacency import Adjacency
from condensery.data.graph_features import AsGiven, RowNormalised, StandardScaled
from condensery.data.graph_files import from_csv, from_npz
from condensery.fitting import Constant, Sgd, SquaredError
from condensery.graph import FixedAdjacency, FreeAdjacency, Graph, PairwiseMlp
from condensery.graph_artifact import KIND, VERSION, GraphArtifact
from condensery.node_fitting import NodeRecipe
from condensery.store import DamagedFile, load_tree, save_tree
from support import generator

NAMES = ("cats, dogs", 'the "others"', "none")
VALUES = torch.tensor([[0.1, 2.0], [1 / 3, -1.0], [5.0, 0.0], [0.25, 1e-8]])
CLASSES = torch.tensor([0, 0, 1, 2])
MATRIX = torch.tensor([[0.0, 0.5, 0.02, 0.0], [0.5, 0, 0, 0.3], [0.02, 0, 0, 0.0], [0, 0.3, 0, 0]])


def graph_of(kind: str = "dense", **options: Any) -> Graph:
    edges = torch.tensor([[0, 1, 1, 3], [1, 0, 3, 1]])
    graphs = {
        "none": Adjacency.empty(4),
        "dense": Adjacency.dense_matrix(MATRIX),
        "sparse": Adjacency.sparse(edges, 4),
        "weighted": Adjacency.sparse(edges, 4, torch.tensor([0.5, 0.5, 0.01, 0.01])),
    }
    graph = graphs[kind]
    return Graph(VALUES, CLASSES, adjacency=None if kind == "none" else FixedAdjacency(graph), **options)


def artifact(graph: Graph | None = None, **changes: Any) -> GraphArtifact:
    settings: dict[str, Any] = {
        "graph": graph or graph_of(),
        "threshold": 0.1,
        "classes": NAMES,
        "preprocessing": StandardScaled(torch.tensor([0.5, 1.0]), torch.tensor([2.0, 1.0])),
        "recipe": NodeRecipe(steps=7, optimizer=Sgd(lr=0.1), schedule=Constant(), loss=SquaredError(), check_every=2),
        "network": {"net": "SGC", "features": 2, "classes": 3, "hops": 1},
        "dataset": "toy",
        "method": "GCond",
        "real": {"nodes": 100, "edges": 300, "train": 40},
        "options": {"run": {"steps": 3}, "nodes": 4},
        "seed": 3,
        "split": {"train": 40, "inductive": False, "notes": ["a note"]},
        **changes,
    }
    return GraphArtifact(**settings)


LABELS: dict[str, dict[str, Any]] = {
    "hard": {},
    "soft": {"labels": torch.full((4, 3), 1 / 3)},
    "learned": {"labels": torch.randn(4, 3), "learn_labels": True, "logits": True, "step_size": 0.05},
}


@pytest.mark.parametrize("kind", ["none", "dense", "sparse", "weighted"])
@pytest.mark.parametrize("labels", LABELS)
def test_what_is_written_is_read(kind: str, labels: str, tmp_path: Path) -> None:
    first = artifact(graph_of(kind, **LABELS[labels]), indices=torch.arange(4) if labels == "hard" else None)
    first.save(tmp_path / "a.safetensors")
    again = GraphArtifact.load(tmp_path / "a.safetensors")
    (x, y), (u, v) = first.batch(), again.batch()
    assert torch.equal(x.features, u.features)
    assert torch.equal(x.graph.dense(), u.graph.dense())
    assert torch.equal(y, v)
    assert torch.equal(again.batch(hard_labels=True).y, CLASSES)
    assert again.graph.kind_of_labels == labels
    assert (again.graph.step_size is None) == (first.graph.step_size is None)
    assert (again.indices is None) == (first.indices is None)
    for name in ("threshold", "classes", "recipe", "network", "dataset", "method", "real", "options", "seed", "split"):
        assert getattr(again, name) == getattr(first, name), name
    raw = torch.rand(5, 2, generator=generator())
    assert torch.equal(again.preprocessing(raw), first.preprocessing(raw))
    assert again.spent == first.spent
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("preprocessing", [AsGiven(), RowNormalised()])
def test_preprocessing_without_statistics_is_kept_too(preprocessing: Any, tmp_path: Path) -> None:
    artifact(preprocessing=preprocessing).save(tmp_path / "a.safetensors")
    assert GraphArtifact.load(tmp_path / "a.safetensors").preprocessing == preprocessing


def test_the_threshold_counts_wherever_the_graph_is_used() -> None:
    made = artifact(threshold=0.1)
    assert made.batch().x.graph.dense().gt(0).sum() == 4
    assert made.graph().x.graph.dense().gt(0).sum() == 6
    assert (made.data().num_edges, made.spent["edges"], made.data().classes) == (2, 2, NAMES)
    assert artifact(threshold=0.0).spent["edges"] == 3
    assert artifact(graph_of("weighted")).spent["edges"] == 1
    assert artifact(graph_of("weighted")).batch().x.graph.dense().gt(0).sum() == 2
    assert artifact(graph_of("none")).spent["edges"] == 0


def test_it_says_what_it_really_costs() -> None:
    values, edges = 4 * 2 * 4, 2 * (16 + 4)
    assert artifact().spent == {
        "nodes": 4,
        "edges": 2,
        "share_of_training_nodes": 0.1,
        "share_of_nodes": 0.04,
        "labelled": 4,
        "labels": "hard",
        "bytes": values + 4 + edges,
    }
    assert artifact().per_class == [2, 1, 1]
    assert repr(artifact()) == "GraphArtifact(GCond of toy, 4 nodes, 2 edges)"
    assert artifact(graph_of(**LABELS["learned"])).spent["labels"] == "learned"


def test_a_learned_step_size_is_the_learning_rate() -> None:
    made = artifact(graph_of(**LABELS["learned"]))
    assert made.training_recipe().optimizer.lr == pytest.approx(0.05)
    assert artifact().training_recipe() == artifact().recipe
    assert type(made.build_network()).__name__ == "SGC"


def test_learned_edges_are_frozen_first() -> None:
    mlp = PairwiseMlp(2, hidden=4, generator=generator())
    learned = Graph(VALUES, CLASSES, adjacency=mlp, step_size=0.1)
    with pytest.raises(ValueError, match=r"give graph.frozen\(\)"):
        artifact(learned)
    frozen = learned.frozen()
    now, then = learned().x.graph.dense(), frozen().x.graph.dense()
    assert torch.allclose(now, then)
    assert torch.equal(then, then.T)
    assert frozen.step_size is not None
    free = Graph(VALUES, CLASSES, adjacency=FreeAdjacency(MATRIX)).frozen()
    assert torch.equal(free().x.graph.dense(), MATRIX)
    assert len(list(frozen.adjacency.parameters())) == 0
    assert type(graph_of("none").frozen().adjacency).__name__ == "IdentityAdjacency"
    with pytest.raises(ValueError, match="do not fit a graph of 4"):
        frozen.adjacency(torch.zeros(3, 2))


@pytest.mark.parametrize("kind", ["none", "dense", "sparse", "weighted"])
@pytest.mark.parametrize("labels", ["hard", "learned"])
def test_exports_are_read_as_the_same_graph(kind: str, labels: str, tmp_path: Path) -> None:
    made = artifact(graph_of(kind, **LABELS[labels]))
    expected = made.data()
    tables = made.export_csv(tmp_path / "tables")
    for again in (
        from_npz(made.export_npz(tmp_path / "a.npz")),
        from_csv(tables / "edges.csv", tables / "nodes.csv"),
    ):
        assert torch.equal(again.x, expected.x)
        assert torch.equal(again.edges, expected.edges)
        assert torch.equal(again.train, expected.train)
        names = [again.classes[c] for c in again.y.tolist()]
        assert names in (["cats, dogs"] * 2 + list(NAMES[1:]), ["0", "0", "1", "2"])
        assert (again.weights is None) == (expected.weights is None or len(expected.weights) == 0)
        if again.weights is not None and expected.weights is not None:
            assert torch.equal(again.weights, expected.weights)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as held:
        assert held["classes"].tolist() == list(NAMES)
        assert '"method": "GCond"' in str(held["about"])
        assert held["preprocessing_mean"].tolist() == [0.5, 1.0]
        assert ("soft_y" in held) == (labels == "learned")
    assert (tables / "soft_labels.csv").is_file() == (labels == "learned")
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match="exists already"):
        made.export_csv(tmp_path / "tables")


def test_it_becomes_a_graph_of_pyg() -> None:
    pytest.importorskip("torch_geometric")
    data = artifact(graph_of(**LABELS["soft"])).to_pyg()
    assert (data.num_nodes, data.num_edges, data.soft_y.shape) == (4, 4, (4, 3))


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    for changes, sentence in (
        ({"threshold": -1.0}, "threshold is -1.0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"classes": ("a", "b")}, "A node is of class 2"),
        ({"indices": torch.arange(3)}, "one for each of 4 nodes"),
        ({"real": {}}, "sizes of the real graph"),
        ({"assignment": torch.tensor([0, 1, 3, -1])}, "does not name each of 4 nodes"),
        ({"assignment": torch.arange(4), "indices": torch.arange(4)}, "chosen or merged of several, not both"),
        ({"assignment": torch.arange(4).float()}, "give int64"),
    ):
        with pytest.raises(ValueError, match=sentence):
            artifact(**changes)


def test_files_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="check the path"):
        GraphArtifact.load(path)
    artifact().save(path)
    good = load_tree(path, kind=KIND, version=VERSION)
    graph = good["graph"]
    pair = torch.tensor([[0, 1], [1, 0]])
    lies: list[dict[str, Any]] = [
        {"graph": {**graph, "values": graph["values"][:2]}},
        {"graph": {**graph, "values": graph["values"] * float("nan")}},
        {"graph": {**graph, "classes": "all"}},
        {"graph": {**graph, "learn_labels": 1}},
        {"graph": {**graph, "adjacency": {"matrix": MATRIX[:2]}}},
        {"graph": {**graph, "adjacency": {"matrix": MATRIX.triu()}}},
        {"graph": {**graph, "adjacency": {"matrix": MATRIX / 0}}},
        {"graph": {**graph, "adjacency": {"edges": pair + 3}}},
        {"graph": {**graph, "adjacency": {"edges": pair, "weights": torch.rand(3)}}},
        {"graph": {**graph, "adjacency": {"edges": "none"}}},
        {"recipe": {"type": "Popen"}},
        {"recipe": {"type": "Sgd", "lr": 0.1}},
        {"preprocessing": {"config": {"kind": "whitened"}, "tensors": {}}},
        {"threshold": "low"},
        {"options": [1]},
        {"indices": 3},
        {"assignment": 3},
        {"assignment": torch.arange(3)},
        {"graph": {**graph, "classes": torch.full((4,), -1)}},
        {"real": {"nodes": "many"}},
        {"classes": [1, 2]},
    ]
    for lie in lies:
        save_tree(path, {**good, **lie}, kind=KIND, version=VERSION)
        with pytest.raises(DamagedFile, match="does not hold a usable condensed graph"):
            GraphArtifact.load(path)
    save_tree(path, {k: v for k, v in good.items() if k != "assignment"}, kind=KIND, version=VERSION)
    assert GraphArtifact.load(path).assignment is None  # files from before there was one
    save_tree(path, good, kind="condensery-log", version=VERSION)
    with pytest.raises(DamagedFile, match="is not a condensery-graph file"):
        GraphArtifact.load(path)
    save_tree(path, good, kind=KIND, version=VERSION + 1)
    with pytest.raises(DamagedFile, match="upgrade"):
        GraphArtifact.load(path)
