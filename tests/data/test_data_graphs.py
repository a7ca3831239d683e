"""Graphs: what is cleaned and what refused, splits, views, propagation, and every reader."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensery.adjacency import Adjacency, Normalisation
from condensery.data import graph_pyg
from condensery.data._errors import DataMissing
from condensery.data.graph_features import RowNormalised, StandardScaled, feature_map_from_config
from condensery.data.graph_files import GraphColumns, from_csv, from_npz, graphsaint, ogb_csv
from condensery.data.graph_pyg import from_pyg, planetoid, to_pyg
from condensery.data.graph_splits import Split, proportional, stratified_split
from condensery.data.graphs import GraphData, digits_graph, graph_data
from condensery.data.named_graphs import amazon_photo, ogbn_arxiv
from support import generator

EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])  # a path of six nodes
Y = torch.tensor([0, 0, 0, 1, 1, 1])


def split(train: list[int], validation: list[int] | None = None, test: list[int] | None = None) -> Split:
    return Split(*(torch.tensor(part or [], dtype=torch.int64) for part in (train, validation, test)))


def path(**options: object) -> GraphData:
    options = {
        "split": split([0, 3], [1, 4], [2, 5]),
        "edges": EDGES,
        "y": Y,
        "x": torch.arange(12.0).view(6, 2),
    } | options
    return graph_data("path", options.pop("x"), options.pop("edges"), options.pop("y"), **options)  # type: ignore[arg-type]


# --- cleaning and refusing


def test_a_clean_graph_has_every_edge_in_both_directions_sorted() -> None:
    data = path()
    assert data.edges.T.tolist() == sorted(
        [[a, b] for a, b in EDGES.T.tolist()] + [[b, a] for a, b in EDGES.T.tolist()]
    )
    assert data.num_edges == 5
    assert data.notes == ("5 edges were given in one direction and got the other.",)
    assert path(edges=data.edges).notes == ()


def test_loops_and_repeats_are_left_out_and_noted() -> None:
    edges = torch.tensor([[0, 1, 0, 2, 2, 4], [1, 0, 1, 2, 3, 3]])
    data = path(edges=edges, weights=torch.tensor([1.0, 3.0, 2.0, 9.0, 5.0, 7.0]))
    assert data.edges.tolist() == [[0, 1, 2, 3, 3, 4], [1, 0, 3, 2, 4, 3]]
    assert data.weights is not None
    assert data.weights.tolist() == [3, 3, 5, 5, 7, 7]  # the largest of those given counts
    assert data.notes == (
        "1 self-loops were left out.",
        "1 repeated edges were left out.",
        "2 edges were given in one direction and got the other.",
    )


def test_nodes_without_a_label_stay_and_leave_the_split() -> None:
    data = path(y=torch.tensor([0, float("nan"), 0, 1, -3, 1]))
    assert data.y.tolist() == [0, -1, 0, 1, -1, 1]
    assert [len(part) for part in data.split] == [2, 0, 2]
    assert "2 nodes without a label stay in the graph and in no split." in data.notes
    assert "2 nodes of the split have no label and left it." in data.notes


def test_labels_are_renumbered_in_ascending_order_and_name_themselves() -> None:
    data = path(y=torch.tensor([7, 7, 7, 3, 3, 3]))
    assert data.y.tolist() == [1, 1, 1, 0, 0, 0]
    assert data.classes == ("3", "7")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": torch.tensor([[0, 2], [1, 6]])}, "Edge 1 joins nodes 2 and 6, but there are 6 nodes"),
        ({"edges": torch.tensor([[0, -1], [1, 2]])}, "Edge 1 joins nodes -1 and 2"),
        ({"edges": torch.zeros(3, 5)}, "give whole numbers \\[2, m\\]"),
        ({"x": torch.tensor([[0.0]] * 4 + [[float("nan")]] * 2)}, "2 nodes are NaN or infinite, first of node 4"),
        ({"x": torch.full((6, 1), 1e300, dtype=torch.float64)}, "6 nodes are NaN or infinite"),
        ({"x": torch.zeros(1, 2)}, "of size 1; give at least 2 nodes"),
        ({"x": torch.zeros(0, 2)}, "of size 0"),
        ({"y": None}, "no labels"),
        ({"y": torch.full((6,), -1)}, "No node has a label"),
        ({"y": torch.tensor([0.5, 0, 0, 0, 1, 1])}, "not whole numbers"),
        ({"y": torch.tensor([0, 1])}, "one class index a node, \\[6\\]"),
        ({"classes": ("a", "b", "c")}, "Class 'c' has no node"),
        ({"classes": ("a",)}, "name them all"),
        ({"split": split([0, 1])}, "Class '1' of path has no training node"),
        ({"split": split([0, 3], [3])}, "overlap"),
        ({"split": split([0, 3, 3])}, "twice"),
        ({"split": split([0, 3], [6])}, "choose among 0 to 5"),
        ({"weights": torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])}, "not a positive number"),
        ({"weights": torch.ones(3)}, "one an edge, \\[5\\]"),
    ],
)
def test_what_cannot_be_cleaned_is_one_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        path(**options)
    assert "\n" not in str(error.value)


def test_a_nan_is_told_by_its_own_node_even_where_features_are_standardised() -> None:
    x = torch.zeros(6, 2)
    x[3, 1] = float("nan")
    with pytest.raises(ValueError, match="1 nodes are NaN or infinite, first of node 3"):
        path(x=x, fit=StandardScaled.of)


def test_a_graph_made_by_hand_must_be_tidy() -> None:
    data = path()
    with pytest.raises(ValueError, match="build the graph with `graph_data`"):
        GraphData("by hand", data.x, EDGES.flip(1), data.y, *data.split, data.classes)


def test_a_graph_without_edges_is_a_graph() -> None:
    assert path(edges=torch.empty(2, 0, dtype=torch.int64)).num_edges == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_cleaning_is_the_symmetric_matrix_without_diagonal_and_idempotent(pairs: list[tuple[int, int]]) -> None:
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    data = path(edges=edges)
    dense = torch.zeros(6, 6)
    dense[edges[0], edges[1]] = 1
    dense = torch.maximum(dense, dense.T).fill_diagonal_(0)
    assert torch.equal(data.adjacency.dense(), dense)
    again = path(edges=data.edges)
    assert torch.equal(again.edges, data.edges)
    assert again.notes == ()


# --- splits


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any), st.integers(0, 80), st.integers(0, 2))
def test_proportional_is_exact_and_near_every_share(sizes: list[int], total: int, least: int) -> None:
    if total < least * sum(size > 0 for size in sizes):
        with pytest.raises(ValueError, match="cannot be shared"):
            proportional(sizes, total, least=least)
        return
    counts = proportional(sizes, total, least=least)
    assert sum(counts) == total
    assert all(count >= least if size else count == 0 for count, size in zip(counts, sizes, strict=True))
    if least == 0:
        shares = [total * size / sum(sizes) for size in sizes]
        assert all(abs(count - share) < 1 for count, share in zip(counts, shares, strict=True))


def test_a_stratified_split_is_disjoint_has_the_asked_sizes_and_repeats(untouched: None) -> None:
    y = torch.arange(7).repeat(100)
    y[::50] = -1
    parts = stratified_split(y, per_class_train=5, validation=70, test=140, generator=generator())
    assert [len(part) for part in parts] == [35, 70, 140]
    assert torch.cat(list(parts)).unique().numel() == 245
    assert bool((y[torch.cat(list(parts))] >= 0).all())
    assert torch.bincount(y[parts.train]).tolist() == [5] * 7
    assert max(torch.bincount(y[parts.validation])) - min(torch.bincount(y[parts.validation])) <= 1
    again = stratified_split(y, per_class_train=5, validation=70, test=140, generator=generator())
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    other = stratified_split(y, per_class_train=5, validation=70, test=140, generator=generator(1))
    assert not torch.equal(parts.train, other.train)


def test_shares_take_the_same_share_of_each_class() -> None:
    y = torch.tensor([0] * 10 + [1] * 40)
    parts = stratified_split(y, per_class_train=0.1, validation=0.2, test=None, generator=generator())
    assert torch.bincount(y[parts.train]).tolist() == [1, 4]
    assert torch.bincount(y[parts.validation]).tolist() == [2, 8]
    assert torch.bincount(y[parts.test]).tolist() == [7, 28]


def test_splits_that_ask_for_too_much_say_so() -> None:
    y = torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match="Class 0 has 2 nodes, 3 should train"):
        stratified_split(y, per_class_train=3, generator=generator())
    with pytest.raises(ValueError, match="2 nodes are left"):
        stratified_split(y, per_class_train=1, validation=2, test=1, generator=generator())
    with pytest.raises(ValueError, match=r"1\.5 is no number of nodes"):
        stratified_split(y, per_class_train=1.5, generator=generator())


# --- views


def test_an_induced_subgraph_keeps_order_labels_weights_and_parts() -> None:
    data = path(weights=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    nodes = torch.tensor([4, 0, 3, 1])
    part = data.subgraph(nodes)
    assert torch.equal(part.x, data.x[nodes])
    assert part.y.tolist() == [1, 0, 1, 0]
    assert torch.equal(part.adjacency.dense(), data.adjacency.dense()[nodes][:, nodes])
    assert [p.tolist() for p in part.split] == [[1, 2], [0, 3], []]
    with pytest.raises(ValueError, match="twice"):
        data.subgraph(torch.tensor([1, 1]))


def test_views_are_the_whole_graph_or_the_sets_own_subgraph() -> None:
    data = path()
    assert data.training_view() is data
    assert data.test_view() is data
    inductive = data.as_inductive()
    assert inductive.training_view().y.tolist() == [0, 1]
    assert inductive.training_view().train.tolist() == [0, 1]
    assert inductive.test_view().test.tolist() == [0, 1]
    assert inductive.test_view().num_edges == 0
    assert len(inductive.validation_view()) == 2


def test_members_are_the_training_nodes_of_a_class() -> None:
    data = path(split=split([5, 0, 3, 1]))
    assert data.members(0).tolist() == [0, 1]
    assert data.members(1).tolist() == [5, 3]
    with pytest.raises(ValueError, match="Class 2 does not exist"):
        data.members(2)


def test_whole_is_a_batch_of_all_nodes() -> None:
    (features, graph), y = path().whole()
    assert features.shape == (6, 2)
    assert graph.n == 6
    assert y.tolist() == Y.tolist()


# --- features


def test_feature_maps_survive_their_config() -> None:
    x = torch.rand(9, 3, generator=generator())
    for prepare in (RowNormalised.of(x), StandardScaled.of(x)):
        again = feature_map_from_config(json.loads(json.dumps(prepare.config())), prepare.tensors())
        assert torch.equal(again(x), prepare(x))
    with pytest.raises(ValueError, match="preprocessed by 'whitened'"):
        feature_map_from_config({"kind": "whitened"}, {})


def test_standardising_is_fitted_on_training_nodes_alone() -> None:
    data = path(fit=StandardScaled.of)
    assert data.x[data.train].mean(0).abs().max() < 1e-6
    assert data.x.mean(0).abs().max() > 0.1
    assert path(fit=RowNormalised.of).x.sum(1).tolist() == pytest.approx([1.0] * 6)


# --- propagation


def weighted(*, dtype: torch.dtype = torch.float64) -> tuple[Adjacency, torch.Tensor]:
    """A directed weighted graph and its matrix, so that transposes are told apart."""
    edges = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 1, 3]])
    weights = torch.rand(5, generator=generator(), dtype=dtype) + 0.5
    matrix = torch.zeros(5, 5, dtype=dtype)
    matrix[edges[1], edges[0]] = weights
    return Adjacency.sparse(edges, 5, weights), matrix


def test_sparse_and_dense_propagate_alike_with_all_derivatives() -> None:
    sparse, matrix = weighted()
    x = torch.randn(5, 3, generator=generator(), dtype=torch.float64)
    t = torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    assert torch.allclose(sparse @ x, matrix @ x)
    assert torch.allclose(sparse @ x[:, 0], matrix @ x[:, 0])
    assert torch.equal(sparse.dense(), matrix)

    def value(graph: Adjacency):  # type: ignore[no-untyped-def]
        return lambda v: ((graph @ v) ** 3).sum()

    dense = Adjacency.dense_matrix(matrix)
    for transform in (
        lambda f: torch.func.grad(f)(x),
        lambda f: torch.func.grad(lambda v: torch.func.grad(f)(v).square().sum())(x),
        lambda f: torch.func.jvp(torch.func.grad(f), (x,), (t,))[1],
        lambda f: torch.func.vmap(torch.func.grad(f))(torch.stack([x, t])),
        lambda f: torch.func.vmap(torch.func.grad(f), in_dims=1)(torch.stack([x, t], 1)),
    ):
        assert torch.allclose(transform(value(sparse)), transform(value(dense)))
    assert torch.autograd.gradgradcheck(lambda v: sparse @ v, (x.requires_grad_(),))


def test_gradients_reach_sparse_weights_and_the_dense_matrix_through_the_normalisation() -> None:
    sparse, matrix = weighted()
    assert sparse.edges is not None
    assert sparse.weights is not None
    x = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    w, m = sparse.weights.clone().requires_grad_(), matrix.clone().requires_grad_()
    for kind in Normalisation:
        for loops in (False, True):
            results = []
            for graph, p in ((Adjacency.sparse(sparse.edges, 5, w), w), (Adjacency.dense_matrix(m), m)):
                out = graph.normalised(loops, kind) @ x
                results.append((out, torch.autograd.grad(out.square().sum(), p)[0]))
            assert torch.allclose(results[0][0], results[1][0])
            assert torch.allclose(results[0][1], results[1][1][sparse.edges[1], sparse.edges[0]])


def test_normalising_is_the_formula_and_a_node_alone_gets_nothing() -> None:
    graph = path(edges=torch.tensor([[0, 1], [1, 2]])).adjacency
    a = graph.dense()
    looped = a + torch.eye(6)
    d = looped.sum(1)
    assert torch.allclose(graph.normalised().dense(), looped / (d[:, None] * d).sqrt())
    assert torch.allclose(graph.normalised(kind=Normalisation.ROW).dense(), looped / d[:, None])
    bare = graph.normalised(self_loops=False).dense()
    assert bool(bare.isfinite().all())
    assert bare[5].tolist() == [0] * 6
    assert torch.allclose(graph.laplacian().dense(), torch.eye(6) - bare)
    assert torch.allclose(Adjacency.dense_matrix(a).laplacian().dense(), torch.eye(6) - bare)
    m = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Adjacency.dense_matrix(m).normalised(self_loops=False).dense().sum(), m)
    assert bool(gradient.isfinite().all())


def test_what_is_normalised_is_kept_only_where_no_gradient_reaches_it() -> None:
    graph = path().adjacency
    assert graph.normalised() is graph.normalised()
    assert path().adjacency.normalised() is not graph.normalised()
    m = torch.rand(3, 3, requires_grad=True, generator=generator())
    learned = Adjacency.dense_matrix(m)
    for _ in range(2):  # a kept graph would be walked backward twice
        learned.normalised().dense().sum().backward()
    with torch.no_grad():
        before = learned.normalised().dense()
        m += torch.eye(3).flip(0)
    assert not torch.allclose(learned.normalised().dense(), before)


def test_an_empty_graph_with_loops_is_the_identity() -> None:
    x = torch.randn(4, 2, generator=generator())
    assert (Adjacency.empty(4).normalised() @ x) is x
    assert torch.equal(Adjacency.empty(4).normalised().dense(), torch.eye(4))
    assert (Adjacency.empty(4) @ x).abs().sum() == 0


def test_an_adjacency_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"int64 \[2, m\]"):
        Adjacency.sparse(torch.zeros(2, 3), 4)
    with pytest.raises(ValueError, match=r"one an edge, \[5\]"):
        Adjacency.sparse(EDGES, 6, torch.ones(2))
    with pytest.raises(ValueError, match="square"):
        Adjacency.dense_matrix(torch.zeros(2, 3))


# --- readers


def test_the_digits_are_joined_to_their_nearest_neighbours() -> None:
    data = digits_graph(k=3)
    assert (len(data), data.num_features, data.num_classes) == (1797, 64, 10)
    assert data.adjacency.degrees().min() >= 3
    assert [len(part) for part in data.split] == [200, 500, 1000]
    distances = torch.cdist(data.x.double(), data.x.double()).fill_diagonal_(torch.inf)
    nearest = distances.topk(3, largest=False).values[:, -1]
    a, b = data.edges
    assert bool((distances[a, b] <= torch.maximum(nearest[a], nearest[b]) + 1e-9).all())
    assert torch.equal(digits_graph(k=3).train, data.train)
    assert not torch.equal(digits_graph(k=3, seed=1).train, data.train)
    with pytest.raises(ValueError, match="0 nearest neighbours"):
        digits_graph(k=0)


def test_npz_layouts_read_alike(tmp_path: Path) -> None:
    import scipy.sparse

    data = path()
    adjacency = scipy.sparse.csr_matrix(data.adjacency.dense().numpy())
    attributes = scipy.sparse.csr_matrix(data.x.numpy())
    y = Y.numpy()
    masks = {f"{name}_mask": np.isin(np.arange(6), part) for name, part in zip(("train", "val", "test"), data.split)}  # noqa: B905
    np.savez(tmp_path / "a.npz", edge_index=EDGES.numpy(), x=data.x.numpy(), y=y, **masks)
    np.savez(tmp_path / "b.npz", edges=EDGES.T.numpy(), features=data.x.numpy(), labels=y[:, None], **masks)
    np.savez(
        tmp_path / "c.npz",
        adj_data=adjacency.data,
        adj_indices=adjacency.indices,
        adj_indptr=adjacency.indptr,
        adj_shape=adjacency.shape,
        attr_data=attributes.data,
        attr_indices=attributes.indices,
        attr_indptr=attributes.indptr,
        attr_shape=attributes.shape,
        labels=y,
        split=np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
        class_names=np.array(["x", None], dtype=object),  # a pickle that nobody unpickles
    )
    np.savez(
        tmp_path / "d.npz",
        src=EDGES[0].int().numpy(),
        dst=EDGES[1].int().numpy(),
        x=data.x.numpy(),
        y=y.astype(np.int8),
        train_idx=[0, 3],
        valid_idx=[1, 4],
        test_idx=[2, 5],
    )
    for name in "abcd":
        read = from_npz(tmp_path / f"{name}.npz")
        assert torch.equal(read.x, data.x), name
        assert torch.equal(read.edges, data.edges), name
        assert torch.equal(read.y, data.y), name
        assert all(torch.equal(p, q) for p, q in zip(read.split, data.split, strict=True)), name
        assert read.weights is None


def test_an_npz_file_with_something_missing_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "bad.npz"
    whole = {"edge_index": EDGES.numpy(), "x": np.zeros((6, 1)), "y": Y.numpy()}
    for key, message in (("edge_index", "no edges"), ("x", "no node features"), ("y", "no labels")):
        np.savez(file, **{k: v for k, v in whole.items() if k != key})
        with pytest.raises(ValueError, match=message):
            from_npz(file)
    np.savez(file, **{k: v for k, v in whole.items() if k != "x"})
    assert from_npz(file, features=torch.ones(6, 4), split=split([0, 3])).num_features == 4
    np.savez(file, **whole | {"x": np.array([None] * 6, dtype=object)})
    with pytest.raises(ValueError, match=r"Array x of .* cannot be read"):
        from_npz(file)
    broken = {"adj_indptr": [0, 3, 2], "adj_indices": [0, 1], "x": np.zeros((2, 1)), "y": [0, 1]}
    np.savez(file, **broken)
    with pytest.raises(ValueError, match=r"compressed rows of .* are damaged"):
        from_npz(file)
    file.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="is no npz file"):
        from_npz(file)
    with pytest.raises(ValueError, match="does not exist"):
        from_npz(tmp_path / "none.npz")


TABLE = "id,label,split,f1,f2\na,cat,train,1,2\nb,dog,train,3,4\nc,,,5,6\nd,cat,val,7,8\ne,dog,test,9,10\n"


def tables(folder: Path, nodes: str = TABLE, edges: str = "a,b\nb,c\n") -> tuple[Path, Path]:
    (folder / "edges.csv").write_text(edges)
    (folder / "nodes.csv").write_text(nodes)
    return folder / "edges.csv", folder / "nodes.csv"


def test_tables_are_a_graph(tmp_path: Path) -> None:
    data = from_csv(*tables(tmp_path, edges="source,target,weight\na,b,2\nb,c,0.5\n"))
    assert data.classes == ("cat", "dog")
    assert data.y.tolist() == [0, 1, -1, 0, 1]
    assert data.x.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert [p.tolist() for p in data.split] == [[0, 1], [3], [4]]
    assert data.adjacency.dense()[1].tolist() == [2, 0, 0.5, 0, 0]
    packed = tmp_path / "nodes.tsv.gz"
    packed.write_bytes(gzip.compress(TABLE.replace(",", "\t").replace("label", "kind").encode()))
    again = from_csv(tables(tmp_path)[0], packed, columns=GraphColumns(label="kind"))
    assert torch.equal(again.x, data.x)
    assert again.weights is None


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    rows = "".join(f"{i},{label},{i}\n" for i, label in enumerate([10, 9, 10, 9, 2, 2]))
    data = from_csv(*tables(tmp_path, "id,label,f\n" + rows, "0,1\n"))
    assert data.classes == ("2", "9", "10")
    assert data.y.tolist() == [2, 1, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ("name,label\na,1\n", "", "no column 'id' among name, label"),
        ("", "", "no column 'id' among none"),
        (TABLE + "a,cat,train,1,2\n", "", "line 7 describes node 'a' again"),
        (TABLE + "f,cat,train,1\n", "", "line 7 has 4 fields instead of 5"),
        (TABLE + "f,cat,train,1,two\n", "", "line 7 has 'two' as feature 'f2'"),
        (TABLE + "f,cat,later,1,2\n", "", "line 7 puts the node into 'later'"),
        (TABLE + "f,cat,train,1,nan\n", "", "NaN or infinite, first of node 5"),
        (TABLE, "a,b\nb,z\n", "line 2 names node 'z'"),
        (TABLE, "a,b\nb\n", "line 2 has 1 fields"),
        (TABLE, "a,b,1\nb,c,x\n", "line 2 has 'x' as feature 'weight'"),
    ],
)
def test_a_damaged_table_is_told_by_its_line(tmp_path: Path, nodes: str, edges: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        from_csv(*tables(tmp_path, nodes, edges))
    assert "\n" not in str(error.value)


def packed(file: Path, rows: list[list[float]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(",".join(map(str, row)) + "\n" for row in rows).encode()))


def test_ogb_files_are_a_graph(tmp_path: Path) -> None:
    folder = tmp_path / "arxiv"
    packed(folder / "raw/edge.csv.gz", EDGES.T.tolist())
    packed(folder / "raw/node-feat.csv.gz", [[i / 4, 1.5] for i in range(6)])
    packed(folder / "raw/node-label.csv.gz", [[c] for c in Y.tolist()])
    for name, part in (("train", [0, 3]), ("valid", [1, 4]), ("test", [2, 5])):
        packed(folder / f"split/time/{name}.csv.gz", [[i] for i in part])
    data = ogb_csv(folder)
    assert torch.equal(data.edges, path().edges)
    assert [p.tolist() for p in data.split] == [[0, 3], [1, 4], [2, 5]]
    assert data.x[data.train].mean(0).abs().max() < 1e-6
    named = ogbn_arxiv(tmp_path, inductive=True)
    assert (named.name, named.inductive, torch.equal(named.x, data.x)) == ("ogbn-arxiv", True, True)
    packed(folder / "raw/edge.csv.gz", [["x", 1]])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"edge.csv.gz is no table of numbers"):
        ogb_csv(folder)
    (folder / "raw/edge.csv.gz").unlink()
    with pytest.raises(DataMissing, match=r"edge.csv.gz is not there"):
        ogb_csv(folder)
    with pytest.raises(DataMissing, match="0 splits"):
        ogb_csv(tmp_path)


def test_graphsaint_files_are_an_inductive_graph(tmp_path: Path) -> None:
    import scipy.sparse

    scipy.sparse.save_npz(tmp_path / "adj_full.npz", scipy.sparse.csr_matrix(path().adjacency.dense().numpy()))
    np.save(tmp_path / "feats.npy", np.arange(12.0).reshape(6, 2))
    (tmp_path / "class_map.json").write_text(json.dumps({str(i): c for i, c in enumerate(Y.tolist())}))
    (tmp_path / "role.json").write_text(json.dumps({"tr": [0, 3], "va": [1, 4], "te": [2, 5]}))
    data = graphsaint(tmp_path)
    assert data.inductive
    assert torch.equal(data.edges, path().edges)
    assert data.y.tolist() == Y.tolist()
    (tmp_path / "class_map.json").write_text(json.dumps({"0": [0, 1]}))
    with pytest.raises(ValueError, match="several labels a node"):
        graphsaint(tmp_path)
    (tmp_path / "role.json").unlink()
    with pytest.raises(DataMissing, match=r"role.json is not there"):
        graphsaint(tmp_path)


def test_pyg_there_and_back() -> None:
    pytest.importorskip("torch_geometric")
    data = path(weights=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    again = from_pyg(to_pyg(data))
    assert torch.equal(again.x, data.x)
    assert torch.equal(again.edges, data.edges)
    assert torch.equal(again.adjacency.dense(), data.adjacency.dense())
    assert all(torch.equal(p, q) for p, q in zip(again.split, data.split, strict=True))


def test_pyg_objects_that_lack_something_are_one_sentence() -> None:
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Data, HeteroData

    with pytest.raises(ValueError, match="HeteroData is no graph of one kind of nodes"):
        from_pyg(HeteroData())
    with pytest.raises(ValueError, match="no node features"):
        from_pyg(Data(edge_index=EDGES, y=Y))
    with pytest.raises(ValueError, match="no edges"):
        from_pyg(Data(x=torch.zeros(6, 1), y=Y))
    with pytest.raises(ValueError, match="no labels"):
        from_pyg(Data(x=torch.zeros(6, 1), edge_index=EDGES))
    masks = torch.eye(6).bool() | torch.eye(6).bool().roll(3, 1)
    data = Data(x=torch.zeros(6, 1), edge_index=EDGES, y=Y, train_mask=masks)
    assert from_pyg(data, column=1).train.tolist() == [1, 4]
    with pytest.raises(ValueError, match="6 splits, not one numbered 6"):
        from_pyg(data, column=6)


def test_importing_the_data_does_not_import_pyg() -> None:
    names = "condensery.data.graphs, condensery.data.graph_pyg, condensery.graph, condensery.coresets.graphs, sys"
    found = subprocess.run(
        [sys.executable, "-c", f"import {names}; print('torch_geometric' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "False"


def test_planetoid_unpickles_only_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="choose cora, citeseer or pubmed"):
        planetoid(tmp_path, "reddit")
    with pytest.raises(DataMissing, match="Cora is not in"):
        planetoid(tmp_path)
    for part in ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index"):
        (tmp_path / f"ind.cora.{part}").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    monkeypatch.setattr(graph_pyg, "_need_pyg", lambda: pytest.fail("went on to the reader"))
    with pytest.raises(ValueError, match=r"ind.cora.x is not the published file, and a pickle may do harm"):
        planetoid(tmp_path)


def test_cora_is_the_published_graph(condensery_data: Path) -> None:
    if not (condensery_data / "planetoid" / "Cora").is_dir():
        pytest.skip("put Cora's raw files under planetoid/Cora/raw to run this test")
    pytest.importorskip("torch_geometric")
    data = planetoid(condensery_data)
    assert (len(data), data.num_edges, data.num_features, data.num_classes) == (2708, 5278, 1433, 7)
    assert [len(part) for part in data.split] == [140, 500, 1000]
    assert torch.bincount(data.train_y).tolist() == [20] * 7
    assert torch.allclose(data.x.sum(1), torch.ones(2708))
    assert data.notes == ()
    assert len(data.as_inductive().training_view()) == 140


def test_amazon_photo_and_the_structure_of_arxiv_read(condensery_data: Path) -> None:
    photo, arxiv = (condensery_data / "graphs" / f"{name}.npz" for name in ("amazon_photo", "ogbn_arxiv_structure"))
    if not photo.is_file() or not arxiv.is_file():
        pytest.skip("put amazon_photo.npz and ogbn_arxiv_structure.npz under graphs to run this test")
    data = from_npz(photo)
    assert (len(data), data.num_edges, data.num_features, data.num_classes) == (7650, 119081, 745, 8)
    assert [len(part) for part in data.split] == [160, 500, 1000]
    named = amazon_photo(condensery_data, seed=3)
    assert (named.name, torch.equal(named.edges, data.edges), torch.equal(named.test, data.test)) == (
        "amazon-photo",
        True,
        False,
    )
    data = from_npz(arxiv, features=torch.zeros(169343, 2))
    assert (len(data), data.num_classes, sum(map(len, data.split))) == (169343, 40, 169343)
