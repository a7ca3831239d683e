"""The cell space: its codes, its networks, and the supernet that contains them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from condensery import nets
from condensery.net import Net
from condensery.nets.cells import EDGES, OPS, Cell, CellNet, Mixture, Op, Supernet, _Mean3, draw_cells, inherited
from support import generator

SMALL = {"channels": 1, "classes": 3, "size": 8, "width": 4, "stages": 2}


def test_the_space_has_as_many_cells_as_nas_bench_201() -> None:
    cells = list(Cell.all())
    assert len(cells) == 15_625 == len(set(cells))
    connected = [cell for cell in cells if cell.connected]
    # Counted once more by hand: the output is cut off if no path of edges leads to it.
    assert len(connected) == sum(1 for cell in cells if has_path(cell))
    assert len({cell.structure for cell in connected}) == 5_259


def has_path(cell: Cell) -> bool:
    reached = {0}
    for (i, j), op in zip(EDGES, cell.ops, strict=True):
        if i in reached and op is not Op.NONE:
            reached.add(j)
    return 3 in reached


def plain(cell: Cell, x: Tensor, scale: dict[int, float]) -> Tensor:
    """A cell whose convolutions multiply by a number of their own, and whose pooling adds one."""
    nodes = [x]
    for node in range(1, 4):
        total = torch.zeros_like(x)
        for edge, ((i, j), op) in enumerate(zip(EDGES, cell.ops, strict=True)):
            if j == node and op is not Op.NONE:
                # Not linear, so that sums of inputs and sums of outputs differ; zero stays zero.
                made = {Op.SKIP: lambda v: v, Op.POOL: lambda v: v**3}.get(op, lambda v, e=edge: scale[e] * v**2)
                total = total + made(nodes[i])
        nodes.append(total)
    return nodes[-1]


def test_cells_of_the_same_structure_compute_the_same_function() -> None:
    """For some assignment of one cell's convolutions to the other's; and cells that differ, for none."""
    g = generator(3)
    groups: dict[str, list[Cell]] = {}
    for cell in Cell.all():
        if sum(op in (Op.CONV1, Op.CONV3) for op in cell.ops) <= 3:
            groups.setdefault(cell.structure, []).append(cell)
    several = [cells for name, cells in groups.items() if len(cells) > 1 and name]
    x = torch.tensor([0.3, 0.7], dtype=torch.float64)
    scale = dict(enumerate((1.0 + torch.rand(6, generator=g, dtype=torch.float64)).tolist()))
    for cells in several[:150]:
        first, last = cells[0], cells[-1]
        own = [[e for e, op in enumerate(c.ops) if op in (Op.CONV1, Op.CONV3)] for c in (first, last)]
        wanted = plain(first, x, scale)
        values = [scale[e] for e in own[0]] + [9.0] * len(own[1])  # 9: a convolution that leads nowhere
        found = (
            torch.allclose(plain(last, x, dict(zip(own[1], order, strict=False))), wanted, rtol=1e-12)
            for order in itertools.permutations(values, len(own[1]))
        )
        assert any(found), (first, last)
    # Twice one convolution is not the sum of two.
    assert Cell("3nsnss").structure != Cell("33nnss").structure


def test_a_cell_is_drawn_and_read_by_its_code() -> None:
    assert draw_cells(20, generator(1)) == draw_cells(20, generator(1)) != draw_cells(20, generator(2))
    assert len({cell.structure for cell in draw_cells(100, generator())}) == 100
    letters = [op for _ in range(500) for op in Cell.draw(generator(_)).ops]
    assert all(abs(letters.count(op) / len(letters) - 0.2) < 0.03 for op in OPS)
    assert Cell.from_weights(Cell("3ns31p").weights) == Cell("3ns31p")
    for wrong in ("", "3ns31", "3ns31x", 5):
        with pytest.raises(ValueError, match="is no cell; give 6 letters"):
            Cell(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights \\[6, 5\\]"):
        Cell.from_weights(torch.zeros(5, 6))
    with pytest.raises(ValueError, match="ask for 1 to 5,000"):
        draw_cells(5001, generator())


def test_the_network_is_described_and_built_again() -> None:
    net = CellNet(code="3ns31p", **SMALL)
    again = nets.build(nets.describe(net))
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(net(x), again(x))
    with pytest.raises(ValueError, match="does not depend on its input"):
        CellNet(code="nnnnns", **SMALL)
    with pytest.raises(ValueError, match="5 stages halve images of 8 pixels away"):
        CellNet(**{**SMALL, "stages": 5})
    with pytest.raises(ValueError, match="cells must be a positive whole number"):
        CellNet(cells=0, **SMALL)


def test_the_cell_by_hand() -> None:
    """A network of one cell at one stage, against its formula written out."""
    net = CellNet(channels=1, classes=3, size=8, width=4, stages=1, code="31psn3")
    x = torch.randn(2, 1, 8, 8)
    body, cell = net.body, net.body[2].edges
    x0 = body[1](body[0](x))
    x1 = cell[0](x0)
    x2 = cell[1](x0) + F.avg_pool2d(x1, 3, 1, 1, count_include_pad=False)
    x3 = x0 + cell[5](x2)
    features = torch.relu(body[3](x3)).mean((2, 3))
    assert torch.allclose(net(x), net.head(features), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 7, 5), (1, 1, 1, 2), (1, 1, 1, 1)])
def test_the_mean_of_three_by_three_pixels(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(_Mean3()(x), F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    assert torch.autograd.gradcheck(_Mean3(), x)


def test_the_supernet_contains_every_network() -> None:
    supernet = Supernet(**SMALL, cells=2)
    net = Net(supernet)
    theta, x = net.init(generator()), torch.randn(3, 1, 8, 8)
    for cell in [*draw_cells(5, generator(4)), Cell("333333"), Cell("ssssss")]:
        one, state = inherited(supernet, cell, net.layers(theta))
        assert set(state) == set(one.state_dict())
        one.load_state_dict(state)
        assert torch.allclose(one(x), net(theta, Mixture(x, cell.weights)), atol=1e-6)
    sampled = Net(Supernet(**SMALL, cells=2, sampled=True))
    weights = Cell("3ns31p").weights
    assert torch.equal(sampled(theta, Mixture(x, weights)), net(theta, Mixture(x, weights)))


def test_derivatives_in_theta_weights_and_images_are_right() -> None:
    net = Net(Supernet(channels=1, classes=2, size=4, width=4, stages=2))
    theta = net.init(generator()).double().requires_grad_()
    weights = torch.rand(6, 5, dtype=torch.float64, generator=generator(1)).requires_grad_()
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=generator(2)).requires_grad_()
    y = torch.tensor([0, 1])

    def loss(theta: Tensor, weights: Tensor, x: Tensor) -> Tensor:
        return F.cross_entropy(net(theta, Mixture(x, weights)), y)

    def squared_hypergradient(weights: Tensor, x: Tensor) -> Tensor:
        """Needs third derivatives, mixed ones, once it is differentiated."""
        (g,) = torch.autograd.grad(loss(theta, weights, x), weights, create_graph=True)
        return g.square().sum()

    for function, point in (
        (lambda w: squared_hypergradient(w, x), weights),
        (lambda v: squared_hypergradient(weights, v), x),
    ):
        direction = torch.randn(point.shape, dtype=torch.float64, generator=generator(5))
        (gradient,) = torch.autograd.grad(function(point), point)
        step = 1e-6
        slope = (function(point + step * direction) - function(point - step * direction)) / (2 * step)
        assert torch.allclose((gradient * direction).sum(), slope, rtol=1e-5)


def test_the_supernet_says_what_it_was_given() -> None:
    net = Supernet(**SMALL)
    with pytest.raises(ValueError, match="was given a Tensor; give Mixture"):
        net(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="build it for your images"):
        net(Mixture(torch.zeros(1, 1, 9, 9), Cell("333333").weights))


def test_drawing_leaves_the_global_generator_alone(untouched: None) -> None:
    draw_cells(5, generator())
    nets.build({"net": "CellNet", **SMALL})
