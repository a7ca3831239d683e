"""The synthetic graph: its structures, its class counts, what it gives and exports."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from condensery.adjacency import Adjacency
from condensery.data.graphs import GraphData, digits_graph
from condensery.graph import CountRule, FreeAdjacency, Graph, IdentityAdjacency, PairwiseMlp, class_counts
from support import generator


@pytest.fixture(scope="module")
def digits() -> GraphData:
    return digits_graph()


def mlp(features: int = 4, *, hidden: int = 6, layers: int = 3) -> PairwiseMlp:
    return PairwiseMlp(features, hidden=hidden, layers=layers, generator=generator())


def written_out(pairwise: PairwiseMlp, values: Tensor) -> Tensor:
    """GCond's equation 8 with all pairs concatenated and PyTorch's own layers."""
    n = len(values)
    i, j = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
    h = torch.cat([values[i], values[j]], 1)
    layers = [pairwise.first, *pairwise.hidden]
    for layer, scale, shift in zip(layers, pairwise.scales, pairwise.shifts, strict=True):
        norm = nn.BatchNorm1d(len(scale)).to(h).train()
        h = torch.func.functional_call(norm, {"weight": scale, "bias": shift}, (layer(h),)).relu()
    s = pairwise.last(h).view(n, n)
    return torch.sigmoid((s + s.T) / 2) * (1 - torch.eye(n, dtype=s.dtype))


# --- structures


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_the_pairwise_network_is_the_one_on_concatenated_pairs(layers: int) -> None:
    pairwise = mlp(layers=layers).double()
    with torch.no_grad():
        for p in (*pairwise.scales, *pairwise.shifts):
            p += torch.randn(p.shape, generator=generator(1), dtype=p.dtype)
    values = torch.randn(7, 4, generator=generator(), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(7, 7, generator=generator(2), dtype=torch.float64)
    graph = pairwise(values)
    assert graph.is_dense
    expected = written_out(pairwise, values)
    assert torch.allclose(graph.dense(), expected)
    inputs = [values, *pairwise.parameters()]
    a = torch.autograd.grad((graph.dense() * weights).sum(), inputs, allow_unused=True)
    b = torch.autograd.grad((expected * weights).sum(), inputs)
    for (name, _), left, right in zip([("values", None), *pairwise.named_parameters()], a, b, strict=True):
        if left is None:
            assert name == "first.bias"  # drops out of the normalisation
            assert right.abs().max() < 1e-9
        else:
            assert torch.allclose(left, right, atol=1e-9), name


def test_the_pairwise_graph_is_symmetric_between_0_and_1_without_diagonal(untouched: None) -> None:
    a = mlp()(torch.randn(5, 4, generator=generator())).dense().detach()
    assert torch.equal(a, a.T)
    assert a.diagonal().abs().max() == 0
    off = a[~torch.eye(5, dtype=torch.bool)]
    assert 0 < off.min() < off.max() < 1


def test_structures_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        mlp(layers=1)
    with pytest.raises(ValueError, match="built for 4"):
        mlp()(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"floats \[n, n\]"):
        FreeAdjacency(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="2 nodes do not fit weights of 3"):
        FreeAdjacency(torch.zeros(3, 3))(torch.zeros(2, 1))


def test_free_weights_are_symmetric_and_kept_between_0_and_1() -> None:
    free = FreeAdjacency(torch.tensor([[9.0, 3.0, -1.0], [1.0, 9.0, 0.5], [-1.0, 0.5, 9.0]]))
    assert free(torch.zeros(3, 1)).dense().tolist() == [[0, 2, -1], [2, 0, 0.5], [-1, 0.5, 0]]
    Graph(torch.zeros(3, 1), torch.tensor([0, 1, 2]), adjacency=free).project_()
    assert free(torch.zeros(3, 1)).dense().tolist() == [[0, 1, 0], [1, 0, 0.5], [0, 0.5, 0]]


# --- the synthetic graph


def test_a_graph_starts_from_real_training_nodes_of_each_class(digits: GraphData, untouched: None) -> None:
    counts = class_counts(digits.train_y, 23)
    graph = Graph.from_real(digits, counts, generator())
    (features, adjacency), y = graph()
    assert torch.bincount(y).tolist() == counts
    assert adjacency.n == len(features) == 23
    real = {tuple(row) for row in digits.x[digits.train].tolist()}
    assert all(tuple(row) in real for row in features.tolist())
    assert torch.equal(Graph.from_real(digits, counts, generator()).values, graph.values)
    assert not torch.equal(Graph.from_real(digits, counts, generator(1)).values, graph.values)
    rows = graph.rows()
    assert all((y[rows[c]] == c).all() and rows[c].stop - rows[c].start == n for c, n in enumerate(counts))
    with pytest.raises(ValueError, match="Class '0' has 20 training nodes, 21 are needed"):
        Graph.from_real(digits, [21] * 10, generator())
    with pytest.raises(ValueError, match="one for each of 10 classes"):
        Graph.from_real(digits, [1], generator())


def test_gradients_reach_features_structure_labels_and_step_size_is_kept_above_its_floor() -> None:
    graph = Graph(
        torch.randn(4, 4, generator=generator()),
        torch.tensor([0, 0, 1, 1]),
        adjacency=mlp(),
        labels=torch.eye(2)[[0, 0, 1, 1]],
        learn_labels=True,
        logits=True,
        step_size=0.1,
        step_floor=0.2,
        bound=lambda v: v.clamp(-0.5, 0.5),
    )
    (features, adjacency), y = graph()
    assert torch.allclose(y.sum(1), torch.ones(4))
    ((adjacency.normalised() @ features).square().sum() + y.square().sum()).backward()
    for name, p in graph.named_parameters():
        assert (p.grad is not None) == (name not in ("step_size", "adjacency.first.bias")), name
    graph.project_()
    assert graph.values.abs().max() <= 0.5
    assert graph.step_size is not None
    assert graph.step_size.item() == pytest.approx(0.2)
    assert graph.kind_of_labels == "learned"


def test_shifting_moves_the_batch_and_not_the_parameters() -> None:
    graph = Graph(torch.zeros(3, 2), torch.tensor([0, 1, 1]), adjacency=FreeAdjacency(torch.zeros(3, 3)))
    moved = graph.shifted({"values": torch.ones(3, 2), "adjacency.entries": torch.ones(3, 3)})
    assert moved.x.features.sum() == 6
    assert moved.x.graph.dense().sum() == 6
    assert graph().x.features.abs().sum() == 0
    assert graph().x.graph.dense().abs().sum() == 0
    with pytest.raises(ValueError, match="no parameter 'pixels' to shift"):
        graph.shifted({"pixels": torch.ones(1)})


def test_a_state_is_restored_with_its_counts() -> None:
    graph = Graph(torch.zeros(3, 2), torch.tensor([0, 1, 1]), adjacency=mlp(2))
    other = Graph(torch.ones(3, 2), torch.tensor([0, 0, 1]), adjacency=mlp(2))
    graph.load_state_dict(other.state_dict())
    assert graph.rows() == other.rows()
    assert torch.equal(graph().x.graph.dense(), other().x.graph.dense())


def test_a_graph_refuses_what_does_not_fit() -> None:
    ok, classes = torch.zeros(2, 3), torch.tensor([0, 1])
    for arguments, options, message in (
        ((torch.zeros(2), classes), {}, r"floats \[n, d\]"),
        ((ok, torch.tensor([0])), {}, r"int64 \[2\]"),
        ((ok, classes.flip(0)), {}, "not sorted"),
        ((ok, classes), {"labels": torch.zeros(3, 2)}, r"\[2, C\]"),
        ((ok, classes), {"learn_labels": True}, "Hard labels cannot be learned"),
    ):
        with pytest.raises(ValueError, match=message):
            Graph(*arguments, **options)


def test_sparsifying_keeps_edges_of_at_least_the_threshold(digits: GraphData) -> None:
    entries = torch.tensor([[0.0, 0.5, 0.1], [0.5, 0.0, 0.0], [0.1, 0.0, 0.0]])
    graph = Graph(torch.zeros(3, 64), torch.tensor([0, 1, 9]), adjacency=FreeAdjacency(entries))
    whole, thin = graph.sparsified(), graph.sparsified(0.5, like=digits)
    assert whole.edges.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert torch.equal(whole.adjacency.dense(), entries)
    assert thin.edges.tolist() == [[0, 1], [1, 0]]
    assert thin.weights is not None
    assert thin.weights.tolist() == [0.5, 0.5]
    assert thin.classes == digits.classes
    assert thin.train.tolist() == [0, 1, 2]
    alone = Graph(torch.zeros(3, 2), torch.tensor([0, 1, 1]), adjacency=IdentityAdjacency()).sparsified()
    assert alone.num_edges == 0
    assert alone.weights is None


def test_the_export_to_pyg_holds_edges_weights_and_soft_labels() -> None:
    pytest.importorskip("torch_geometric")
    labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    structure = FreeAdjacency(torch.tensor([[0.0, 0.7], [0.7, 0.0]]))
    data = Graph(torch.ones(2, 3), torch.tensor([0, 1]), adjacency=structure, labels=labels, logits=True).to_pyg(0.5)
    assert data.edge_index.tolist() == [[0, 1], [1, 0]]
    assert data.edge_weight.tolist() == pytest.approx([0.7, 0.7])
    assert torch.equal(data.soft_y, labels.softmax(1))
    assert data.train_mask.all()
    data.validate()


def test_without_edges_propagation_leaves_features_as_they_are() -> None:
    (features, adjacency), _ = Graph(torch.ones(3, 2), torch.tensor([0, 1, 1]))()
    assert isinstance(adjacency, Adjacency)
    assert (adjacency.normalised() @ features) is features


# --- how many nodes a class gets


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(0, 200))
def test_class_counts_are_exact_positive_and_near_the_proportions(sizes: list[int], more: int) -> None:
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    total = len(sizes) + more
    counts = class_counts(y, total)
    assert sum(counts) == total
    assert min(counts) >= 1
    shares = [total * size / sum(sizes) for size in sizes]
    assert all(count < share + 1 or count == 1 for count, share in zip(counts, shares, strict=True))
    order = sorted(range(len(sizes)), key=lambda c: sizes[c])
    assert all(counts[a] <= counts[b] or sizes[a] == sizes[b] for a, b in pairwise(order))


def test_published_ratios_give_the_published_sizes() -> None:
    cora = torch.arange(7).repeat_interleave(20)
    for ratio, each in ((0.25, 5), (0.5, 10), (1.0, 20)):
        for rule in CountRule:
            assert class_counts(cora, ratio=ratio, rule=rule) == [each] * 7


def test_the_authors_rule_gives_the_rest_to_the_largest_and_refuses_to_leave_it_none() -> None:
    y = torch.tensor([0] * 3 + [1] * 14 + [2] * 6)
    assert class_counts(y, 9, rule=CountRule.AUTHORS) == [1, 6, 2]
    assert class_counts(y, 9) == [1, 6, 2]
    y = torch.arange(6).repeat_interleave(torch.tensor([1, 1, 1, 1, 4, 4]))
    with pytest.raises(ValueError, match="leaves 0 nodes to class 5"):
        class_counts(y, ratio=0.5, rule=CountRule.AUTHORS)
    assert class_counts(y, ratio=0.5) == [1] * 6


def test_class_counts_refuse_what_they_cannot_do() -> None:
    y = torch.tensor([0, 0, 2])
    for arguments, options, message in (
        ((y,), {}, "one of the two"),
        ((y, 3), {"ratio": 0.5}, "one of the two"),
        ((y, 3), {}, "Class 1 has no training node"),
        ((torch.tensor([0, 1]), 3), {"classes": 3}, "Class 2 has no training node"),
        ((torch.tensor([0, 1]), 1), {}, "do not suffice for 2 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            class_counts(*arguments, **options)
