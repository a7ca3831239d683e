"""Experts on graphs: what they descend, how they are ordered, recorded, resumed and checked."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from condensery.data.graphs import GraphData
from condensery.experts import (
    Curriculum,
    Held,
    Layout,
    NodeRecording,
    Pace,
    PlainAdam,
    PlainSgd,
    node_difficulty,
    open_experts,
    record_node_expert,
    record_nodes,
)
from condensery.experts.node_loss import NodeLoss
from condensery.loop import NotFinite
from condensery.nets.graph import GCN, SAGE, SGC
from condensery.nets.layers import Activation
from support import communities, generator, tiny_graph_net

SHORT = NodeRecording(epochs=4, every=3, optimizer=PlainSgd(lr=0.5), curriculum=Curriculum(0.5, 8))


def whole(data: GraphData, net: Any, theta: Tensor, index: Tensor) -> Tensor:
    """The loss on the training view, by autograd."""
    view = data.training_view()
    x, y = view.whole()
    return F.cross_entropy(net(theta, x._replace(features=x.features.to(theta)))[index], y[index])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("inductive", [False, True])
@pytest.mark.parametrize(
    ("kind", "options", "closed"),
    [
        (GCN, {}, True),
        (GCN, {"activation": Activation.SOFTPLUS}, False),
        (GCN, {"depth": 3}, False),
        (GCN, {"normalise": False}, False),
        (SGC, {}, False),
        (SAGE, {}, False),
    ],
)
def test_its_gradient_is_that_of_the_whole_graph(
    kind: Any, options: dict[str, Any], closed: bool, inductive: bool, weighted: bool
) -> None:
    data, net = communities(weighted=weighted, inductive=inductive), tiny_graph_net(kind, **options)
    view = data.training_view()
    order = view.train[torch.randperm(len(view.train), generator=generator(3))]
    loss = NodeLoss(net, view, order, dtype=torch.float64)
    assert loss.closed == closed
    theta = net.init(generator(1)).double().requires_grad_()
    for count in (None, 7):
        (expected,) = torch.autograd.grad(whole(data, net, theta, order[:count]), theta)
        torch.testing.assert_close(loss.gradient(theta, count), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PlainSgd(lr=0.3, momentum=0.5, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.3, 0.5, weight_decay=0.01)),
        (PlainAdam(lr=0.02, weight_decay=0.01), lambda p: torch.optim.Adam(p, 0.02, weight_decay=0.01)),
    ],
)
def test_a_way_is_that_of_pytorchs_optimizer(ours: Any, theirs: Any) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    recording = NodeRecording(epochs=3, every=4, optimizer=ours)
    way = record_node_expert(net, data, recording, 2)
    module = net.at(net.init(recording.generator(2)))
    optimizer, (x, y) = theirs(module.parameters()), data.whole()
    for step in range(13):
        if step % 4 == 0:
            expected = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
            torch.testing.assert_close(way[step // 4], expected, rtol=1e-4, atol=1e-5)
        optimizer.zero_grad()
        F.cross_entropy(module(x)[data.train], y[data.train]).backward()
        optimizer.step()


def test_adam_steps_several_points_as_one_after_the_other() -> None:
    adam, scale = PlainAdam(lr=0.1), torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    together: Any = (torch.zeros(2, 2), None)
    apart: list[Any] = [(torch.zeros(2), None)] * 2
    for _ in range(3):
        together = adam.step(together[0], lambda t: (t + 1) * scale, together[1])
        apart = [adam.step(t, lambda t, s=s: (t + 1) * s, state) for (t, state), s in zip(apart, scale, strict=True)]
    assert torch.equal(together[0], torch.stack([t for t, _ in apart]))


def test_points_are_steps_apart_and_begin_with_the_draw() -> None:
    data, net = communities(), tiny_graph_net(GCN)
    often = record_node_expert(net, data, NodeRecording(epochs=6, every=1), 0)
    seldom = record_node_expert(net, data, NodeRecording(epochs=3, every=2), 0)
    assert torch.equal(often[::2], seldom)
    assert torch.equal(often[0], net.init(NodeRecording().generator(0)))
    assert not torch.equal(often[0], record_node_expert(net, data, NodeRecording(epochs=1), 1)[0])


# --- the curriculum


@pytest.mark.parametrize(
    ("pace", "half"), [(Pace.LINEAR, 0.625), (Pace.ROOT, math.sqrt((0.0625 + 1) / 2)), (Pace.GEOMETRIC, 0.5)]
)
def test_the_share_grows_to_all(pace: Pace, half: float) -> None:
    curriculum = Curriculum(0.25, 10, pace)
    assert [curriculum.count(1000, t) for t in (0, 5, 10, 11)] == [250, int(half * 1000), 1000, 1000]
    assert Curriculum(0.01, 10, pace).count(5, 0) == 1


def test_difficulty_is_the_entropy_of_the_labels_around() -> None:
    data = communities()
    found = node_difficulty(data.adjacency, data.y)
    for node in range(len(data)):
        around = [int(data.y[node]), *data.y[data.edges[0][data.edges[1] == node]].tolist()]
        shares = [around.count(c) / len(around) for c in set(around)]
        assert float(found[node]) == pytest.approx(-sum(s * math.log(s) for s in shares))


def test_a_curriculum_sees_easy_nodes_first() -> None:
    data, net = communities(), tiny_graph_net(GCN)
    easy = data.train[node_difficulty(data.adjacency, data.y)[data.train].argsort(stable=True)]
    recording = NodeRecording(epochs=5, every=1, optimizer=PlainSgd(lr=0.5), curriculum=Curriculum(0.5, 4))
    way = record_node_expert(net, data, recording, 0, labels=data.y)
    for step, count in enumerate([15, 17, 21, 25, 30]):
        theta = way[step].clone().requires_grad_()
        (g,) = torch.autograd.grad(whole(data, net, theta, easy[:count]), theta)
        torch.testing.assert_close(way[step + 1], way[step] - 0.5 * g, rtol=1e-4, atol=1e-6)


def test_labels_of_other_nodes_are_not_looked_at(tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    others = torch.ones(len(data), dtype=torch.bool).index_fill_(0, data.train, False)
    changed = replace(data, y=torch.where(others, (data.y + 1) % 3, data.y))
    first = record_nodes(tmp_path, net, data, SHORT, count=1)
    again = record_nodes(tmp_path, net, changed, SHORT, count=2)
    assert torch.equal(first.trajectory(0), record_node_expert(net, changed, SHORT, 0))
    assert torch.equal(again.trajectory(1), record_node_expert(net, data, SHORT, 1))
    with pytest.raises(ValueError, match='labels "predicted"'):
        record_nodes(tmp_path, net, data, SHORT, count=2, labels=data.y)


# --- the folder


def test_a_stopped_recording_goes_on_bit_for_bit(tmp_path: Path, untouched: None) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    straight = record_nodes(tmp_path / "straight", net, data, SHORT, count=3)
    told: list[float] = []

    def stop(done: float, count: int) -> None:
        told.append(done)
        if done > 1.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_nodes(tmp_path / "stopped", net, data, SHORT, count=3, on_progress=stop)
    assert told == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
    assert len(open_experts(tmp_path / "stopped")) == 1
    resumed = record_nodes(tmp_path / "stopped", net, data, SHORT, count=3)
    for expert in range(3):
        assert torch.equal(resumed.trajectory(expert), straight.trajectory(expert))
    segment = resumed.sample(generator(), starts=(1, 2), epochs=3)
    assert torch.equal(segment.target, straight.trajectory(segment.expert)[4])


def test_predicted_labels_are_kept_with_the_experts(tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    record_nodes(tmp_path, net, data, SHORT, count=1)
    kept = tmp_path / "labels.safetensors"
    before = kept.stat().st_mtime_ns
    again = record_nodes(tmp_path, net, data, SHORT, count=2)
    assert kept.stat().st_mtime_ns == before
    kept.write_bytes(b"nothing")
    third = record_nodes(tmp_path, net, data, SHORT, count=3)
    for expert in (1, 2):
        assert torch.equal(third.trajectory(expert), record_node_expert(net, data, SHORT, expert))
    assert torch.equal(again.trajectory(1), third.trajectory(1))
    record_nodes(tmp_path / "plain", net, data, replace(SHORT, curriculum=None), count=1)
    assert not (tmp_path / "plain" / "labels.safetensors").exists()


def test_a_damaged_expert_is_recorded_again(tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    before = record_nodes(tmp_path, net, data, SHORT, count=2).trajectory(1)
    (tmp_path / "expert-00001.safetensors").write_bytes(b"nothing")
    with pytest.warns(RuntimeWarning, match="recorded again"):
        assert torch.equal(record_nodes(tmp_path, net, data, SHORT, count=2).trajectory(1), before)


def test_half_precision_keeps_the_way(tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    full = record_node_expert(net, data, SHORT, 0)
    half = record_nodes(tmp_path, net, data, SHORT, count=1, layout=Layout.HALF)
    torch.testing.assert_close(half.trajectory(0), full, rtol=1e-3, atol=1e-4)
    assert torch.equal(half.point(0, 0), full[0])


def test_longer_experts_serve_shorter_ones(tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    plain = replace(SHORT, curriculum=None)
    record_nodes(tmp_path, net, data, plain, count=1)
    longer = record_nodes(tmp_path, net, data, replace(plain, epochs=2), count=2)
    assert longer.epochs == 4
    assert torch.equal(longer.trajectory(1), record_node_expert(net, data, plain, 1))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"optimizer": PlainSgd(lr=0.1)}, "optimizer.lr"),
        ({"optimizer": PlainAdam()}, "optimizer.type"),
        ({"every": 2}, "every"),
        ({"curriculum": Curriculum(0.6, 8)}, "curriculum.share"),
        ({"curriculum": Curriculum(0.5, 8, Pace.ROOT)}, "curriculum.pace"),
        ({"seed": 1}, "seed"),
        ({"epochs": 5}, "judge"),
    ],
)
def test_another_recording_is_refused(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    record_nodes(tmp_path, net, data, SHORT, count=1)
    with pytest.raises(ValueError, match=rf"were recorded with {field}.* not .*; record with the same settings"):
        record_nodes(tmp_path, net, data, replace(SHORT, **change), count=1)


def test_another_graph_or_network_is_refused(tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    store = record_nodes(tmp_path, net, data, SHORT, count=1)
    store.check(net, data)
    Held(store.trajectory(0)[None], store.origin).check(net, data, name="communities")
    rescaled = replace(data, x=data.x * (1 + 1e-6))  # rounding is no other data
    store.check(net, rescaled)
    for other, field in [
        (replace(data, x=data.x * 1.1), "preprocessing.features"),
        (replace(data, edges=data.edges[:, 2:]), "data.digest"),
        (replace(data, train=data.train[1:]), "data.digest"),
        (data.as_inductive(), "data.digest"),
        (communities(weighted=True), "data.digest"),
    ]:
        with pytest.raises(ValueError, match=f"were recorded with {field}"):
            store.check(net, other)
    with pytest.raises(ValueError, match=r"were recorded with network\.depth"):
        store.check(tiny_graph_net(GCN, depth=3), data)


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    data, net = communities(), tiny_graph_net(GCN)
    with pytest.raises(ValueError, match="0 points 10 steps apart"):
        NodeRecording(epochs=0)
    with pytest.raises(ValueError, match="share above 0"):
        Curriculum(share=0.0)
    with pytest.raises(ValueError, match="at least 1"):
        record_nodes(tmp_path, net, data, SHORT, count=0)
    with pytest.raises(ValueError, match="not convexified"):
        record_nodes(tmp_path, net, data, SHORT, count=1, layout=Layout.CONVEXIFIED)
    with pytest.raises(NotFinite, match="lower the learning rate"):
        record_node_expert(net, data, replace(SHORT, optimizer=PlainSgd(lr=1e38)), 0)
