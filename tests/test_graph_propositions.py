"""HCDC's linear convolution regression (appendix C.5): lemma 5 and propositions 2, 3 and 4, as far as they hold.

Model ``f_W(A, X) = C(A) X W``, loss ``|C X W - y|^2``, gradient ``2 (G W - h)`` with ``G = (CX)^T CX`` and
``h = (CX)^T y``. Where the appendix says more than is true, one test has what is true and one the counterexample.
All in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from condensery.adjacency import Adjacency, NodeInput, Normalisation
from condensery.data.graphs import digits_graph
from condensery.evaluate.carry import Moments, carried, moments
from condensery.evaluate.nodes import Nodes
from condensery.nets import filters
from support import generator

N, D = 40, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def random_graph(n: int = N, *, seed: int = 1) -> Adjacency:
    """An undirected graph in which every node has a neighbour."""
    upper = (torch.rand(n, n, generator=generator(seed)) < 0.15).triu(1).double()
    ring = torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
    return Adjacency.dense_matrix(((upper + ring + (upper + ring).T) > 0).double())


def real() -> tuple[Adjacency, Tensor, Tensor]:
    return random_graph(), normal(N, D), normal(N, 1, seed=2)


def gcn(graph: Adjacency) -> Tensor:
    return graph.normalised().dense()


def root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.sqrt()) @ vectors.T


def orthonormal(c: int, d: int, seed: int = 3) -> Tensor:
    return torch.linalg.qr(normal(c, d, seed=seed)).Q


def same(a: Moments, b: Moments) -> bool:
    scale = a.gram.abs().max()
    return bool((a.gram - b.gram).abs().max() < 1e-9 * scale and (a.target - b.target).abs().max() < 1e-9 * scale)


# --- the model itself


def test_the_closed_forms_are_those_of_autograd_and_least_squares() -> None:
    graph, x, y = real()
    rows = gcn(graph) @ x
    m, w = Moments.of(rows, y), normal(D, 1, seed=4).requires_grad_()
    (gradient,) = torch.autograd.grad((rows @ w - y).square().sum(), w)
    torch.testing.assert_close(m.gradient(w.detach()), gradient)
    torch.testing.assert_close(m.optimum(), torch.linalg.lstsq(rows, y).solution)
    ridge = torch.cat([rows, 0.5 * torch.eye(D, dtype=torch.float64)])
    torch.testing.assert_close(m.optimum(0.25), torch.linalg.lstsq(ridge, torch.cat([y, y.new_zeros(D, 1)])).solution)


def test_weights_that_are_not_determined_are_refused() -> None:
    rows = normal(3, D)
    with pytest.raises(ValueError, match="give a ridge above 0"):
        Moments.of(rows, normal(3, 1)).optimum()
    assert Moments.of(rows, normal(3, 1)).optimum(1e-3).shape == (D, 1)


# --- lemma 5: matched gradients give the same optimum


def weights_where_they_match(ours: Moments, theirs: Moments, candidates: Tensor) -> int:
    apart = (ours.gradient(candidates) - theirs.gradient(candidates)).abs().amax(0)
    return int((apart < 1e-9 * theirs.gram.abs().max()).sum())


def test_lemma_5_gradients_matched_at_affinely_spanning_weights_are_matched_everywhere() -> None:
    """The difference of the gradients is affine in W, so d + 1 weights that no hyperplane holds determine it."""
    graph, x, y = real()
    theirs = Moments.of(gcn(graph) @ x, y)
    w = normal(D, D + 1, seed=5)
    # What the gradients at these weights say: [G, h] [W; -1] = g / 2, solved without looking at the data.
    homogeneous = torch.cat([w, -torch.ones(1, D + 1, dtype=torch.float64)])
    read = 0.5 * theirs.gradient(w) @ torch.linalg.inv(homogeneous)
    torch.testing.assert_close(read[:, :D], theirs.gram)
    torch.testing.assert_close(read[:, D:], theirs.target)
    # A condensed set with these gradients, d nodes for n, has the real optimum.
    rows = orthonormal(6, D) @ root(theirs.gram)
    ours = Moments.of(rows, rows @ theirs.optimum())
    assert weights_where_they_match(ours, theirs, w) == D + 1
    assert weights_where_they_match(ours, theirs, normal(D, 50, seed=6)) == 50
    torch.testing.assert_close(ours.optimum(), theirs.optimum())


def test_lemma_5_as_stated_is_not_enough_weights_that_span_linearly_leave_another_optimum() -> None:
    """Assumption 1 asks for weights whose linear span is everything. With delta = W^-T 1, the moments G + delta delta^T
    and h + delta have the real gradient at all d columns of W."""
    graph, x, y = real()
    theirs = Moments.of(gcn(graph) @ x, y)
    w = normal(D, D, seed=5)
    assert int(torch.linalg.matrix_rank(w)) == D
    delta = torch.linalg.solve(w.T, torch.ones(D, 1, dtype=torch.float64))
    gram, target = theirs.gram + delta @ delta.T, theirs.target + delta
    rows = orthonormal(6, D) @ root(gram)
    ours = Moments.of(rows, rows @ torch.linalg.solve(gram, target))
    assert weights_where_they_match(ours, theirs, w) == D
    best = theirs.optimum()
    assert (ours.optimum() - best).norm() > 0.01 * best.norm()
    assert theirs.gradient(ours.optimum()).norm() > 1e-3


def test_parallel_gradients_have_the_same_optimum_and_carry_a_scale() -> None:
    """The cosine distance sees directions only: a set of c times the moments is as good."""
    graph, x, y = real()
    rows = gcn(graph) @ x
    theirs, ours = Moments.of(rows, y), Moments.of(3 * rows, 3 * y)
    w = normal(D, 1, seed=7)
    torch.testing.assert_close(ours.gradient(w), 9 * theirs.gradient(w))
    torch.testing.assert_close(ours.optimum(), theirs.optimum())


# --- proposition 2: one-dimensional convolutions


def lag_moments(x: Tensor, y: Tensor, lags: int) -> Tensor:
    """All that the loss of kernels of size 2K + 1 sees, lags = 2K: the symmetric parts of ``X^T P^m X`` for
    m = 0..2K, and ``X^T P^-k y`` for k = -K..K. With alpha the kernel, the loss is ``sum_kl alpha_k alpha_l W^T
    X^T P^(l-k) X W - 2 sum_k alpha_k W^T X^T P^-k y + y^T y``."""
    d = x.shape[1]
    i, j = torch.triu_indices(d, d)
    found = []
    for m in range(lags + 1):
        product = x.T @ x.roll(m, 0)
        found.append((product + product.T)[i, j])
    return torch.cat([*found, *(x.roll(k, 0).T @ y for k in range(-(lags // 2), lags // 2 + 1))])


def cnn_gradients(alpha: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of ``|sum_k alpha_k P^k X W - y|^2`` in alpha ``[2K + 1]`` and W ``[d]``."""
    alpha, w = alpha.clone().requires_grad_(), w.clone().requires_grad_()
    reach = len(alpha) // 2
    output = sum(a * x.roll(k, 0) for k, a in zip(range(-reach, reach + 1), alpha, strict=True)) @ w
    return torch.cat(torch.autograd.grad((output - y).square().sum(), (alpha, w)))


def shorter_series(x: Tensor, y: Tensor, length: int, reach: int) -> tuple[Tensor, Tensor]:
    """A periodic series with the same moments up to lag 2 reach, by Newton's method of least change."""
    d, lags = x.shape[1], 2 * reach
    wanted = lag_moments(x, y, lags)

    def residual(z: Tensor) -> Tensor:
        return lag_moments(z[:-length].view(length, d), z[-length:], lags) - wanted

    z = normal(length * (d + 1), seed=8) * (len(x) / length) ** 0.5
    for _ in range(60):
        z = z - torch.linalg.pinv(torch.func.jacrev(residual)(z)) @ residual(z)
    assert residual(z).abs().max() < 1e-9 * wanted.abs().max()
    return z[:-length].view(length, d), z[-length:]


def test_proposition_2_a_set_made_with_a_long_kernel_serves_every_shorter_one_and_no_longer_one() -> None:
    x, y = normal(60, 2), normal(60, seed=2)
    x2, y2 = shorter_series(x, y, 18, 1)
    apart = {}
    for reach in (0, 1, 2):
        worst = 0.0
        for seed in range(20):
            alpha, w = normal(2 * reach + 1, seed=seed), normal(2, seed=100 + seed)
            theirs, ours = cnn_gradients(alpha, w, x, y), cnn_gradients(alpha, w, x2, y2)
            worst = max(worst, float((theirs - ours).norm() / theirs.norm()))
        apart[reach] = worst
    assert apart[0] < 1e-8
    assert apart[1] < 1e-8
    assert apart[2] > 0.05


@pytest.mark.parametrize(("points", "enough"), [(9, False), (14, True)])
def test_proposition_2_needs_more_points_than_a_spanning_trajectory(points: int, enough: bool) -> None:
    """p + d weights span R^(p + d); whether their gradients determine the moments is another question: with d = 6 and
    p = 3 there are 81 of them, and 9 points give no more than 72 independent numbers."""
    d, p = 6, 3
    blocks = []
    for seed in range(points):
        alpha, w = normal(p, seed=seed), normal(d, seed=100 + seed)
        blocks.append(gradient_map(alpha, w))
    unknown = 3 * d * (d + 1) // 2 + p * d
    assert blocks[0].shape == (p + d, unknown)
    assert (int(torch.linalg.matrix_rank(torch.cat(blocks))) == unknown) == enough


def gradient_map(alpha: Tensor, w: Tensor) -> Tensor:
    """Gradient at (alpha, W) as a linear function of the moments, ``[p + d, unknown]``."""
    p, d = len(alpha), len(w)
    i, j = torch.triu_indices(d, d)
    count = len(i)

    def loss(alpha: Tensor, w: Tensor) -> Tensor:
        """As a vector: the factor of each moment."""
        pairs = torch.where(i == j, 0.5, 1.0) * w[i] * w[j]  # of M + M^T, so that W^T M W is the sum
        lags = [sum(alpha[k] * alpha[k + m] for k in range(p - m)) * (1 if m == 0 else 2) for m in range(p)]
        quadratic = torch.cat([torch.as_tensor(lag) * pairs for lag in lags])
        return torch.cat([quadratic, -2 * (alpha[:, None] * w).flatten()])

    assert count * p + p * d == len(loss(alpha, w))
    by_alpha, by_w = torch.func.jacrev(loss, argnums=(0, 1))(alpha, w)
    return torch.cat([by_alpha, by_w], 1).T


def test_the_map_from_moments_to_gradients_is_that_of_the_series() -> None:
    x, y = normal(30, 3), normal(30, seed=2)
    alpha, w = normal(3, seed=3), normal(3, seed=4)
    torch.testing.assert_close(gradient_map(alpha, w) @ lag_moments(x, y, 2), cnn_gradients(alpha, w, x, y))


# --- proposition 3: the structure can fit the objective whatever the features are


def geometric_mean(a: Tensor, b: Tensor) -> Tensor:
    """The positive definite K with ``K a^-1 K = b``."""
    half = root(a)
    inverse = torch.linalg.inv(half)
    return half @ root(inverse @ b @ inverse) @ half


@pytest.mark.parametrize("seed", range(3))
def test_proposition_3_any_features_have_a_symmetric_structure_that_matches(seed: int) -> None:
    """With C(A) = A: ``A' = X' H^-1 (H # G) H^-1 X'^T``, H = X'^T X', gives ``(A' X')^T A' X' = G``."""
    graph, x, y = real()
    theirs = Moments.of(gcn(graph) @ x, y)
    features = normal(7, D, seed=20 + seed)  # any
    h = features.T @ features
    inverse = torch.linalg.inv(h)
    structure = features @ inverse @ geometric_mean(h, theirs.gram) @ inverse @ features.T
    torch.testing.assert_close(structure, structure.T)
    rows = structure @ features
    ours = Moments.of(rows, rows @ theirs.optimum())  # labels: what the real optimum predicts
    assert same(theirs, ours)
    torch.testing.assert_close(ours.optimum(), theirs.optimum())


def test_proposition_3_does_not_hold_for_weights_that_must_not_be_negative() -> None:
    """Features I and C(A) = A: then G = A'^T A' has no negative entry, and the real G may have one."""
    gram = torch.tensor([[1.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)
    entries = torch.arange(0, 1.31, 0.1, dtype=torch.float64)
    structures = torch.cartesian_prod(entries, entries, entries, entries).view(-1, 2, 2)
    best = (structures.mT @ structures - gram).flatten(1).norm(dim=1).min()
    assert best >= 0.5 * 2**0.5 - 1e-9  # both off-diagonal entries are at least 0.5 too large
    free = root(gram)
    torch.testing.assert_close(free.T @ free, gram)  # with a sign it is there


def test_proposition_3_holds_for_positive_weights_where_the_features_point_everywhere() -> None:
    """Every row of the wanted A' X' is then a positive combination of rows of X'."""
    graph, x, y = real()
    theirs = Moments.of(gcn(graph) @ x, y)
    eye = torch.eye(D, dtype=torch.float64)
    features = torch.cat([eye, -eye])  # 2 d nodes, their positive combinations are all of R^d
    wanted = torch.cat([root(theirs.gram), torch.zeros(D, D, dtype=torch.float64)])
    structure = torch.cat([wanted.clamp(min=0), (-wanted).clamp(min=0)], 1) + 0.1  # + 0.1 (X' of ones is 0)
    assert (structure > 0).all()
    rows = structure @ features
    assert same(theirs, Moments.of(rows, rows @ theirs.optimum()))


# --- proposition 4: across filters


FILTERS: dict[str, Callable[[Adjacency], Tensor]] = {
    "GCN": gcn,
    "SGC, 2 hops": lambda graph: gcn(graph) @ gcn(graph),
    "mean": lambda graph: graph.normalised(kind=Normalisation.ROW).dense(),
    "low and high": lambda graph: 1.5 * torch.eye(graph.n, dtype=torch.float64) - graph.laplacian().dense(),
}


def condensed_without_edges(theirs: Moments, c: int = 6) -> tuple[Tensor, Tensor]:
    """The set of the proof: nobody is joined, features U S V^T, labels the real optimum's."""
    features = orthonormal(c, D) @ root(theirs.gram)
    return features, features @ theirs.optimum()


@pytest.mark.parametrize("made_with", FILTERS)
def test_proposition_4_without_edges_every_filter_finds_the_one_optimum_it_was_made_with(made_with: str) -> None:
    """Exactly: ``W_S = W_T(C)`` whatever filter C' trains, so the error is ``|W_T(C) - W_T(C')| / |W_T(C')|``."""
    graph, x, y = real()
    optima = {name: Moments.of(c(graph) @ x, y).optimum() for name, c in FILTERS.items()}
    features, labels = condensed_without_edges(Moments.of(FILTERS[made_with](graph) @ x, y))
    nobody = Adjacency.dense_matrix(torch.zeros(len(features), len(features), dtype=torch.float64))
    for name, c in FILTERS.items():
        kept = c(nobody)  # a number times the identity
        found = Moments.of(kept @ features, labels).optimum() * kept[0, 0]
        torch.testing.assert_close(found, optima[made_with])
        if name != made_with:
            assert (found - optima[name]).norm() > 0.05 * optima[name].norm()


def transfer(
    graph: Adjacency, x: Tensor, made: Callable[[Adjacency], Tensor], used: Callable[[Adjacency], Tensor]
) -> Tensor:
    """R with ``W_T(C) = R W`` where the labels are those of C' at weights W: ``(CX)^+ C'X``."""
    return torch.linalg.lstsq(made(graph) @ x, used(graph) @ x).solution


def test_proposition_4_its_bound_is_that_of_the_worst_labels() -> None:
    """``|(R - 1) w| / |w|`` lies between the least and the largest singular value of R - 1, both are reached, and the
    largest is at least ``max(sigma_max(R) - 1, 1 - sigma_min(R))``."""
    graph, x, _ = real()
    made, used = FILTERS["GCN"], FILTERS["SGC, 2 hops"]
    r = transfer(graph, x, made, used)
    values, right = torch.linalg.svd(r - torch.eye(D, dtype=torch.float64))[1:]
    for w, expected in ((right[0], values[0]), (right[-1], values[-1])):
        y = used(graph) @ x @ w[:, None]
        theirs = Moments.of(used(graph) @ x, y).optimum()
        carried_over = Moments.of(made(graph) @ x, y).optimum()
        torch.testing.assert_close((carried_over - theirs).norm() / theirs.norm(), expected)
    sigma = torch.linalg.svdvals(r)
    bound = torch.maximum(sigma[0] - 1, 1 - sigma[-1])
    assert values[0] >= bound > 0
    errors = torch.tensor([float(((r @ w) - w).norm() / w.norm()) for w in normal(200, D, seed=30)])
    assert bool((errors <= values[0] + 1e-12).all() and (errors >= values[-1] - 1e-12).all())


def test_proposition_4_as_stated_is_no_bound_for_every_label() -> None:
    """Labels for which both filters have the same optimum: nothing is lost, and the stated bound is above 0."""
    graph, x, _ = real()
    a, b = (FILTERS[name](graph) @ x for name in ("GCN", "SGC, 2 hops"))
    w = normal(D, 1, seed=9)
    both = torch.cat([a, b], 1)  # [n, 2 d], of full rank
    y = both @ torch.linalg.solve(both.T @ both, torch.cat([a.T @ a @ w, b.T @ b @ w]))
    torch.testing.assert_close(Moments.of(a, y).optimum(), w)
    torch.testing.assert_close(Moments.of(b, y).optimum(), w)
    q = (a.T @ a) @ torch.linalg.inv(b.T @ b)
    sigma = torch.linalg.svdvals(q)
    assert torch.maximum(sigma[0] - 1, 1 - sigma[-1]) > 0.5


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_proposition_4_gin_and_gcn_on_a_regular_graph_differ_by_degree_plus_one(degree: int) -> None:
    """``A + I = (deg + 1) C_GCN`` there: an error of deg from GCN to GIN, and of deg / (deg + 1) from GIN to GCN."""
    n = 20
    shifts = [s for k in range(1, degree // 2 + 1) for s in (k, -k)]
    graph = Adjacency.dense_matrix(sum(torch.eye(n, dtype=torch.float64).roll(s, 0) for s in shifts))
    x, y = normal(n, D), normal(n, 1, seed=2)
    gin = graph.with_self_loops().dense()
    torch.testing.assert_close(gin, (degree + 1) * gcn(graph))
    of_gin, of_gcn = Moments.of(gin @ x, y).optimum(), Moments.of(gcn(graph) @ x, y).optimum()
    to_gin, to_gcn = (of_gcn - of_gin).norm() / of_gin.norm(), (of_gin - of_gcn).norm() / of_gcn.norm()
    assert float(to_gin) == pytest.approx(degree)
    assert float(to_gcn) == pytest.approx(degree / (degree + 1))


# --- what can be carried: the converse


def krylov_condensed(operator: Tensor, x: Tensor, y: Tensor, degree: int) -> tuple[Tensor, Tensor, Tensor]:
    """A set of (degree + 1) d nodes with the moments of the real one under every polynomial of the operator up to
    that degree: ``Q^T L Q, Q^T X, Q^T y`` with Q an orthonormal basis of ``X, L X, ..., L^degree X``."""
    blocks = [x]
    for _ in range(degree):
        blocks.append(operator @ blocks[-1])
    q = torch.linalg.qr(torch.cat(blocks, 1)).Q
    return q.T @ operator @ q, q.T @ x, q.T @ y


def polynomial(operator: Tensor, coefficients: list[float]) -> Tensor:
    total, power = torch.zeros_like(operator), torch.eye(len(operator), dtype=operator.dtype)
    for coefficient in coefficients:
        total, power = total + coefficient * power, power @ operator
    return total


def test_a_set_with_structure_carries_all_polynomial_filters_up_to_its_degree() -> None:
    graph, x, y = real()
    laplacian = graph.laplacian().dense()
    small, features, labels = krylov_condensed(laplacian, x, y, 2)
    assert small.shape == (3 * D, 3 * D)
    torch.testing.assert_close(small, small.T)
    values = torch.linalg.eigvalsh(small)
    assert values[0] > -1e-9  # its spectrum is inside the real one's
    assert values[-1] < 2 + 1e-9
    g = generator(11)
    for degree in range(4):
        for _ in range(5):
            c = torch.randn(degree + 1, generator=g, dtype=torch.float64).tolist()
            theirs = Moments.of(polynomial(laplacian, c) @ x, y)
            ours = Moments.of(polynomial(small, c) @ features, labels)
            assert same(theirs, ours) == (degree <= 2)


# --- the measurement


def test_carried_measures_just_that() -> None:
    data = digits_graph()
    nodes = Nodes.training(data)

    def hops(k: int) -> Callable[[NodeInput], Tensor]:
        return lambda x: filters.propagate(x.graph.normalised(), x.features, k)

    made = moments(nodes, hops(2), classes=10)
    w = made.optimum(1e-2)
    features = orthonormal(data.num_features, data.num_features) @ root(made.gram + 1e-2 * torch.eye(64).double())
    set_ = Nodes(NodeInput(features, Adjacency.empty(len(features))), features @ w)
    found = carried(nodes, set_, {f"{k} hops": hops(k) for k in range(4)}, ridge=1e-2)
    # The ridge is in the condensed features as well, so the optimum moves a little.
    assert found["2 hops"].error < 0.2
    assert min(found, key=lambda name: found[name].error) == "2 hops"
    assert found["0 hops"].error > 0.5
    assert all(row.excess >= 0 for row in found.values())
