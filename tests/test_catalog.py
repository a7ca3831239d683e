"""The catalog of data: of which kind a name or a path is, without opening it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from condensery import catalog, nets
from condensery.catalog import DOMAINS, Kind


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_names_tell_their_kind() -> None:
    for kind, domain in DOMAINS.items():
        assert {catalog.kind_of(name.upper()) for name in domain.data} == {kind}
        assert domain.usual in domain.methods
    assert catalog.kind_of("hf:uoft-cs/cifar10") is Kind.IMAGES
    assert catalog.kind_of("nowhere") is None
    assert set(catalog.GRAPH_NETWORKS) == set(nets.GRAPH)


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("ogb", ["raw/edge.csv.gz"]),
        ("planetoid", ["ind.cora.graph"]),
        ("planetoid", ["raw/ind.cora.graph"]),
        ("graphsaint", ["adj_full.npz"]),
        ("tables", ["edges.csv", "nodes.csv"]),
        ("tables", ["edges.tsv.gz", "nodes.csv"]),
        (None, ["edges.csv"]),
    ],
)
def test_folders_of_graphs_are_known_by_their_files(layout: str | None, files: list[str], tmp_path: Path) -> None:
    for file in files:
        touch(tmp_path / file)
    assert catalog.graph_layout(tmp_path) == layout
    assert catalog.kind_of(str(tmp_path)) is (Kind.IMAGES if layout is None else Kind.GRAPH)


@pytest.mark.parametrize(
    ("names", "is_graph"),
    [
        (("edge_index", "x", "y"), True),
        (("adj_indptr", "adj_indices", "attr_data"), True),
        (("src", "dst", "y"), True),
        (("src", "y"), False),
        (("x_train", "y_train"), False),
    ],
)
def test_an_npz_file_is_a_graph_if_it_has_edges(names: tuple[str, ...], is_graph: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, np.zeros(2)))
    assert catalog.kind_of(str(tmp_path / "a.npz")) is (Kind.GRAPH if is_graph else Kind.IMAGES)
    (tmp_path / "a.npz").write_bytes(b"no archive")
    assert catalog.kind_of(str(tmp_path / "a.npz")) is Kind.IMAGES
    assert catalog.kind_of(str(touch(tmp_path / "ratings.csv"))) is Kind.LOG


def test_the_sizes_of_graphs_are_those_that_are_read(condensery_data: Path) -> None:
    for name in ("digits-graph", "cora", "amazon-photo"):
        source = catalog.GRAPHS[name].files()
        if source is not None and not any(source.found_in(condensery_data / place) for place in source.folders):
            continue
        if name == "cora":
            pytest.importorskip("torch_geometric")
        data = catalog.GRAPHS[name].load()
        assert (len(data), data.num_edges, data.num_features, data.num_classes) == catalog.GRAPHS[name].sizes
