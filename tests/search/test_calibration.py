"""Search spaces as HCDC sees them, and runs of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import condensery as cd
from condensery import nets, recipes, runs
from condensery.artifact import Artifact
from condensery.bilevel import Cg, Converged, GaussNewton, Momentum
from condensery.catalog import DataSource
from condensery.fitting import SquaredError
from condensery.methods.hcdc import HCDC, Pieces, Sampled
from condensery.net import Net
from condensery.search import Categorical, Cells, Float, ImageFamily, Int, Settings, When, calibration
from condensery.search.calibration import Calibration, fingerprint, relaxed
from condensery.spaces import Cells as CellSpace
from condensery.spaces import Odds, Plain, WeightDecay
from support import generator

SMALL = {"net": "ConvNet", "channels": 1, "classes": 10, "size": 8, "width": 4, "depth": 1, "norm": "none"}
DECAY = {"eval.weight_decay": Float(1e-5, 1e-2, log=True)}
SHORT = [
    "training_steps=4",
    "every=2",
    "repeat=1",
    "memory=2",
    "points=2",
    "steps=3",
    "batch_train=8",
    "networks=3",
    "terms=2",
]


def shown(settings: Settings, count: int = 4) -> calibration.Relaxed:
    family = ImageFamily(SMALL)
    return relaxed(family.typed(settings), family, count, generator())


def test_a_weight_decay_becomes_a_number_on_a_logarithmic_scale() -> None:
    found = shown(Settings({"eval.lr": Float(1e-3, 1e-1, log=True), **DECAY}))
    assert isinstance(found.space, WeightDecay)
    assert isinstance(found.space.inner, Plain)
    assert (found.space.low, found.space.high) == (math.log(1e-5), math.log(1e-2))
    assert found.space.blocks == (found.space.inner.net.size,)
    assert (found.covers, found.leaves, found.networks) == (("eval.weight_decay",), ("eval.lr",), ())


def test_networks_become_a_list_of_all_or_of_some() -> None:
    two = shown(Settings({"net.norm": Categorical(("none", "instance"))}, {"net.width": 3}))
    assert isinstance(two.space, Odds)
    assert sorted(str(c["net.norm"]) for c in two.networks) == ["instance", "none"]
    assert all(c["net.width"] == 3 for c in two.networks)
    assert {net.module.config["width"] for net in two.space.nets} == {3}
    many = shown(Settings({"net.width": Int(1, 100), **DECAY}), count=5)
    assert isinstance(many.space, WeightDecay)
    assert len({c["net.width"] for c in many.networks}) == many.space.size - 1 == 5
    assert len(many.space.init(generator())) == many.space.blocks[0]


def test_a_setting_that_matters_for_some_networks_is_drawn_with_them() -> None:
    settings = Settings(
        {
            "net.norm": Categorical(("none", "group")),
            "net.width": When(Int(4, 9), {"net.norm": ("group",)}),
        }
    )
    found = shown(settings, count=9)
    assert sorted((str(c["net.norm"]), c.get("net.width")) for c in found.networks) == [
        ("group", 4),
        ("group", 8),
        ("none", None),
    ]  # widths of which four groups have equal shares


def test_cells_become_a_supernet() -> None:
    cell = nets.describe(nets.CellNet(channels=1, classes=10, size=8, width=4, stages=1, norm="none"))
    family = ImageFamily(cell)
    found = relaxed(family.typed(Settings({"net.code": Cells()})), family, 3, generator())
    assert isinstance(found.space, CellSpace)
    config = found.space.net.module.config
    assert (config["width"], config["stages"], config["norm"]) == (4, 1, "none")
    assert len(found.space.starts(generator())) == 3
    with_width = relaxed(family.typed(Settings({"net.code": Cells(), "net.width": Int(2, 4)})), family, 3, generator())
    assert isinstance(with_width.space, Odds)  # a supernet has one width


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"eval.lr": Float(0.1, 1.0)}, "the space has eval.lr; search one of these as well"),
        ({"eval.weight_decay": Categorical((0.0, 0.1))}, "HCDC moves eval.weight_decay along a range"),
        ({"net.depth": Int(4, 5)}, "No network of the space can be built"),
    ],
)
def test_what_cannot_be_moved_is_refused(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shown(Settings(parameters))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"networks": 0}, "networks is 0; give 1 or more"),
        ({"batch_real": 0}, "batch_real is 0"),
        ({"lr_set": 0.0}, "lr_set is 0.0; give a rate above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Calibration(**options)  # type: ignore[arg-type]


# --- runs
# ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train() -> Artifact:
    """Twenty images of digits."""
    data = cd.data.digits()
    plan = recipes.load("uniform", "digits", 2, network={"width": "4"})
    images = cd.Images.from_real(data.train, 2, generator())
    network = runs.build_network(plan.network, data)
    provenance = runs.surroundings(plan, data, DataSource("digits"))
    return runs.make_artifact(plan, data, images, network, seed=0, provenance=provenance)


def planned(*more: str) -> recipes.Plan:
    return recipes.load("hcdc", "digits", 1, overrides=[*SHORT, *more], network={"width": "4"})


def test_it_is_hcdc_with_these_parts(train: Artifact) -> None:
    data = runs.open_data(DataSource("digits"))
    plan = planned("teacher=false", "batch_real=none", "distance=by-point", "networks=2")
    settings = Settings({"net.norm": Categorical(("none", "instance")), **DECAY})
    run, found = calibration.build(plan, data, train, settings, seed=3)
    by_hand = HCDC(
        found.space,
        train.batch(),
        Pieces.of(data.prepared().validation.whole()),
        runs.generators(3, 3)[1],
        learner=Converged(Momentum(0.05), solve=Cg(2), curvature=GaussNewton, damping=0.01),
        steps=4,
        every=2,
        memory=2,
        points=2,
        lr_lambda=0.3,
        weight_decay=0.0,
        distance=calibration.runs.options_of(Calibration, {"distance": "by-point"})["distance"],
    )
    start = runs.generators(3, 3)[0]
    images = cd.Images.from_real(data.prepared().validation, 1, start)
    assert torch.equal(images().x, run.synthetic().x)
    for _ in range(3):
        assert torch.equal(run.objective(run.synthetic), by_hand(images))


@pytest.mark.parametrize("settings", [Settings(DECAY), Settings({"net.norm": Categorical(("none", "instance"))})])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(train: Artifact, tmp_path: Path, settings: Settings) -> None:
    data, source = runs.open_data(DataSource("digits")), DataSource("digits")
    results = []
    for name, parts in (("whole", [4]), ("parts", [2, 4])):
        folder = runs.Folder(tmp_path / name)
        for last in parts:
            plan = planned()
            run, found = calibration.build(plan, data, train, settings, seed=1)
            folder.claim(run.settings(source), resume=True)
            shortened = replace(run, plan=replace(plan, start=replace(plan.start, steps=last)))
            assert [p.step for p in runs.advance(shortened, folder, runs.Watch(snapshot_every=1))][-1] == last
        artifact = calibration.finish(shortened, folder, source, train, found)
        results.append(artifact.images().x)
        assert Artifact.load(folder.artifact).for_validation
        assert not train.for_validation
        assert artifact.provenance["calibration"]["train"] == fingerprint(train)
        assert artifact.recipe == train.recipe
    assert torch.equal(*results)
    assert not torch.equal(results[0], run.synthetic().x) or len(results) == 2


def test_a_sample_of_the_real_images_is_enough_where_it_is_asked_for(train: Artifact) -> None:
    run, _ = calibration.build(planned("batch_real=7"), runs.open_data(DataSource("digits")), train, Settings(DECAY))
    assert isinstance(run.objective, HCDC)
    assert isinstance(run.objective.real, Sampled)
    ((share, batch),) = run.objective.real(generator())
    assert (share, len(batch.y)) == (1.0, 7)


def test_a_set_for_squared_errors_is_refused(train: Artifact) -> None:
    other = replace(train, recipe=replace(train.recipe, loss=SquaredError()))
    with pytest.raises(ValueError, match="HCDC trains by the cross entropy; give a training set of another method"):
        calibration.build(planned(), runs.open_data(DataSource("digits")), other, Settings(DECAY))


def test_two_sets_are_told_apart_by_their_images(train: Artifact) -> None:
    values = train.images.values.detach().clone()
    values[0, 0, 0, 0] += 1
    other = replace(train, images=cd.Images(values, train.images.classes))
    assert fingerprint(train) == fingerprint(train)
    assert fingerprint(train)["digest"] != fingerprint(other)["digest"]
    assert isinstance(Net(train.build_network()).size, int)
