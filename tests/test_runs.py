"""Runs on disk: the same set whether or not they were stopped, whole logs, and folders that are not mixed up."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from condensery import experts, methods, nets, planned_experts, recipes, runs, scoring, selecting
from condensery.artifact import Artifact
from condensery.catalog import CORESETS, DataSource
from condensery.data import ImageData, Whiten
from condensery.evaluate import transfer
from condensery.evaluate.transfer import Trials
from condensery.journal import Journal, read
from condensery.loop import NotFinite
from condensery.net import Net

SOURCE = DataSource("digits")
SMALL = ["net.width=4", "batch_real=8", "eval.epochs=3"]


@pytest.fixture(scope="module")
def data() -> ImageData:
    return runs.open_data(SOURCE)


def plan_of(method: str = "dm", *settings: str, per_class: recipes.PerClass = 1) -> recipes.Plan:
    small = SMALL if method not in CORESETS else ["net.width=4", "eval.epochs=3"]
    return recipes.load(method, "digits", per_class, overrides=[*small, *settings])


def start(
    plan: recipes.Plan, data: ImageData, path: Path, *, resume: bool = False, seed: int = 0
) -> tuple[runs.Run, runs.Folder]:
    run, folder = runs.build(plan, data, seed=seed), runs.Folder(path)
    folder.claim(run.settings(SOURCE), resume=resume)
    return run, folder


def whole(plan: recipes.Plan, data: ImageData, path: Path, watch: runs.Watch | None = None) -> Artifact:
    run, folder = start(plan, data, path)
    list(runs.advance(run, folder, watch))
    return runs.finish(run, folder, SOURCE)


@pytest.mark.parametrize("method", ["dm", "dc", "dsa"])
def test_a_run_that_was_stopped_gives_the_same_set_and_each_step_once(
    method: str, data: ImageData, tmp_path: Path
) -> None:
    plan = plan_of(method, "steps=7", per_class=2)
    expected = whole(plan, data, tmp_path / "whole")
    run, folder = start(plan, data, tmp_path / "stopped")
    steps: Iterator[runs.Progress] = runs.advance(run, folder, runs.Watch(snapshot_every=2))
    for _ in range(5):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    run, folder = start(plan, data, tmp_path / "stopped", resume=True)
    done = [progress.step for progress in runs.advance(run, folder, runs.Watch(snapshot_every=2))]
    assert done == [5, 6, 7]
    found = runs.finish(run, folder, SOURCE)
    assert torch.equal(found.images.values, expected.images.values)
    logs = [[(e.step, e.loss) for e in read(tmp_path / name / "log.jsonl")] for name in ("whole", "stopped")]
    assert logs[0] == logs[1]
    assert [step for step, _ in logs[0]] == list(range(1, 8))


def test_looking_changes_nothing(data: ImageData, tmp_path: Path) -> None:
    plan = plan_of("dsa", "steps=4")
    blind = whole(plan, data, tmp_path / "a")
    seeing = whole(plan, data, tmp_path / "b", runs.Watch(snapshot_every=1, eval_every=2, eval_budget=0.5))
    assert torch.equal(blind.images.values, seeing.images.values)
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4]


@pytest.mark.parametrize("method", ["dm", "rcig"])  # rcig keeps an average of its iterates
def test_the_set_that_validates_best_is_kept(
    method: str, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a run that was stopped; and it is the very set that a shorter run leaves."""
    quick = ["eval.epochs=40", "eval.lr=0.05", "net.width=8", "lr_images=5"]
    if method == "rcig":
        quick = ["pool_size=2", "pool_steps=2", "life=3", "solver=dual", "ema=0.5", "lr_images=0.1", "net.width=8"]
        quick += ["eval.steps=60", "eval.warmup=5", "eval.lr=0.01"]
    plan = plan_of(method, "steps=6", "keep_every=2", *quick)
    expected = whole(plan, data, tmp_path / "whole")
    run, folder = start(plan, data, tmp_path / "stopped")
    steps: Iterator[runs.Progress] = runs.advance(run, folder, runs.Watch(snapshot_every=1, eval_every=1))
    for _ in range(4):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    run, folder = start(plan, data, tmp_path / "stopped", resume=True)
    list(runs.advance(run, folder))
    found = runs.finish(run, folder, SOURCE)
    assert torch.equal(found.images.values, expected.images.values)
    monkeypatch.setattr(runs, "fit", None)  # what was measured to choose is not measured again
    assert runs.validation_accuracy(run) == pytest.approx(found.provenance["kept_validation"])
    with pytest.raises(TypeError, match="NoneType"):
        runs.validation_accuracy(run, 0.5)
    monkeypatch.undo()
    accuracies, sets = [], []
    for step in (0, 2, 4, 6):
        run, folder = start(plan_of(method, f"steps={step}", *quick), data, tmp_path / str(step))
        list(runs.advance(run, folder))
        accuracies.append(runs.validation_accuracy(run))
        sets.append(runs.finish(run, folder, SOURCE))
    assert len({*accuracies}) > 1
    best = accuracies.index(max(accuracies))
    how = found.provenance
    assert (how["kept_step"], how["kept_validation"]) == (2 * best, pytest.approx(max(accuracies)))
    assert torch.equal(found.images.values, sets[best].images.values)


def test_seeds_and_their_generators_differ() -> None:
    drawn = [torch.rand(3, generator=g).tolist() for seed in (0, 1) for g in runs.generators(seed, 2)]
    assert len({tuple(d) for d in drawn}) == 4
    with pytest.raises(ValueError, match="seed"):
        runs.generators(-1, 1)


def test_the_artifact_says_what_made_it(data: ImageData, tmp_path: Path) -> None:
    artifact = whole(plan_of("dm", "steps=2").with_budget(0.5), data, tmp_path / "a")
    loaded = Artifact.load(tmp_path / "a" / "artifact.safetensors")
    assert (loaded.method, loaded.dataset, loaded.seed) == ("DM", "digits", 0)
    assert loaded.options["batch_real"] == 8
    assert loaded.options["steps"] == 1
    assert loaded.split == {"validation": 0.1, "seed": 0}
    how = loaded.provenance
    assert (how["steps"], how["budget"], how["threads"]) == (1, 0.5, torch.get_num_threads())
    assert how["data"]["spec"] == "digits"
    assert loaded.recipe == artifact.recipe
    assert (tmp_path / "a" / "picture.png").is_file()


def test_every_way_to_start(data: ImageData, tmp_path: Path) -> None:
    for number, settings in enumerate(
        [
            ["init=noise"],
            ["init=k-means", "formation=2"],
            ["mirrored=true", "bound=true"],
            ["label_smoothing=0.1", "augment=none"],
            ["precision=bf16"],
            ["label_scale=0.5", "eval.loss=squared-error", "softplus=60", "condensing_norm=batch"],
        ]
    ):
        artifact = whole(plan_of("dm", "steps=2", *settings), data, tmp_path / str(number))
        assert torch.isfinite(artifact.images.values).all()
        if "formation=2" in settings:
            assert artifact.spent["images_in_training"] == 40
        if "bound=true" in settings:
            pixels = artifact.preprocessing.inverse(artifact.images.values.detach())
            assert pixels.min() > -1e-5
            assert pixels.max() < 1 + 1e-5
        if "label_smoothing=0.1" in settings:
            assert artifact.images.kind_of_labels == "soft"
            assert artifact.images.labels is not None
            assert torch.allclose(artifact.images.labels.sum(1), torch.ones(10))
        if "label_scale=0.5" in settings:
            assert artifact.images.labels is not None
            assert torch.equal(artifact.images.labels, 0.5 * (torch.eye(10) - 0.1))


def test_the_network_while_condensing_is_not_the_one_that_is_kept(data: ImageData, tmp_path: Path) -> None:
    plan = plan_of("dm", "steps=2", "softplus=30", "condensing_norm=none", "net.norm=instance")
    run, folder = start(plan, data, tmp_path / "a")
    inside = run.objective.net.module.config  # type: ignore[attr-defined]
    assert (inside["activation"], inside["beta"], inside["norm"]) == ("softplus", 30, "none")
    list(runs.advance(run, folder))
    kept = runs.finish(run, folder, SOURCE).network
    assert kept == nets.describe(run.network)
    activation, norm = kept["activation"], kept["norm"]
    assert (activation, norm) == ("relu", "instance")
    plan = recipes.load("dm", "digits", 1, network={"net": "MLP"}, overrides=["condensing_norm=batch"])
    with pytest.raises(ValueError, match="MLP has no norm to change while condensing; set softplus=none"):
        runs.build(plan, data)


def test_unequal_numbers_of_images(data: ImageData, tmp_path: Path) -> None:
    counts = (2, 1, 1, 1, 1, 1, 1, 1, 1, 3)
    assert whole(plan_of("dm", "steps=2", per_class=counts), data, tmp_path / "a").per_class == list(counts)


@pytest.mark.parametrize("name", ["zca", "zca-trace"])
def test_whitened_data_keep_their_matrices_in_the_artifact(name: str, tmp_path: Path) -> None:
    whitened = runs.open_data(SOURCE, whiten=name)
    assert isinstance(whitened.preprocessing, Whiten)
    whole(plan_of("dm", "steps=2", f"whiten={name}"), whitened, tmp_path / "a")
    loaded = Artifact.load(tmp_path / "a" / "artifact.safetensors")
    x = whitened.train.x[:3]
    assert torch.equal(loaded.preprocessing(x), whitened.preprocessing(x))


def test_what_a_method_does_not_learn_is_refused(data: ImageData, tmp_path: Path) -> None:
    for setting, name in (("learn_labels=true", "labels"), ("step_size=0.01", "step_size")):
        run, folder = start(plan_of("dm", "steps=2", setting), data, tmp_path / name)
        with pytest.raises(ValueError, match=f"DM does not learn {name}"):
            list(runs.advance(run, folder))


def test_a_run_that_failed_at_once_does_not_hold_its_folder(data: ImageData, tmp_path: Path) -> None:
    run, folder = start(plan_of("dm", "steps=3", "lr_images=1e38"), data, tmp_path / "a")
    with pytest.raises(NotFinite, match="Not finite at step"):
        list(runs.advance(run, folder))
    run, folder = start(plan_of("dm", "steps=3"), data, tmp_path / "a")
    assert [p.step for p in runs.advance(run, folder)] == [1, 2, 3]
    assert [e.step for e in read(folder.log)] == [1, 2, 3]


def test_folders_are_not_mixed_up(data: ImageData, tmp_path: Path) -> None:
    whole(plan_of("dm", "steps=2"), data, tmp_path / "a")
    with pytest.raises(ValueError, match="holds a run already; add --resume"):
        start(plan_of("dm", "steps=2"), data, tmp_path / "a")
    with pytest.raises(ValueError, match=r"plan\.options\.momentum = 0\.5, not 0\.9"):
        start(plan_of("dm", "steps=2", "momentum=0.9"), data, tmp_path / "a", resume=True)
    with pytest.raises(ValueError, match="seed = 0, not 1"):
        start(plan_of("dm", "steps=2"), data, tmp_path / "a", resume=True, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="not the folder of a run"):
        start(plan_of("dm", "steps=2"), data, tmp_path / "mine")
    (tmp_path / "a" / "run.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        start(plan_of("dm", "steps=2"), data, tmp_path / "a", resume=True)


def test_another_number_of_threads_is_a_warning(data: ImageData, tmp_path: Path) -> None:
    run, folder = start(plan_of("dm", "steps=4"), data, tmp_path / "a")
    steps = runs.advance(run, folder, runs.Watch(snapshot_every=1))
    next(steps), next(steps)
    steps.close()  # type: ignore[attr-defined]
    settings = json.loads(folder.settings.read_text())
    folder.settings.write_text(json.dumps({**settings, "threads": 77}))
    with pytest.warns(RuntimeWarning, match="77 threads"):
        start(plan_of("dm", "steps=4"), data, tmp_path / "a", resume=True)


def test_a_damaged_snapshot_costs_only_its_steps(data: ImageData, tmp_path: Path) -> None:
    plan = plan_of("dm", "steps=6")
    expected = whole(plan, data, tmp_path / "whole")
    run, folder = start(plan, data, tmp_path / "a")
    steps = runs.advance(run, folder, runs.Watch(snapshot_every=1))
    for _ in range(5):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    latest = max(folder.snapshots.iterdir())
    latest.write_bytes(latest.read_bytes()[:-20])
    run, folder = start(plan, data, tmp_path / "a", resume=True)
    with pytest.warns(RuntimeWarning, match="The snapshot before it is used"):
        assert next(runs.advance(run, folder)).step == 4
    run, folder = start(plan, data, tmp_path / "a", resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        list(runs.advance(run, folder))
    assert torch.equal(runs.finish(run, folder, SOURCE).images.values, expected.images.values)
    assert [e.step for e in read(folder.log)] == [1, 2, 3, 4, 5, 6]


def test_the_log_forgets_what_is_done_again_and_lines_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Journal(path, every=1000) as journal:
        for step in range(1, 6):
            journal.add(step, torch.tensor(float(step)))
        assert read(path) == []  # nothing was read from the device yet
    path.write_text(path.read_text() + '{"step": 6, "lo')
    with Journal(path) as journal:
        journal.begin(3)
        journal.add(4, torch.tensor(40.0), validation=0.5)
    assert [(e.step, e.loss) for e in read(path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    seconds = [e.seconds for e in read(path)]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("name", list(CORESETS))
def test_every_coreset_can_be_selected(name: str, data: ImageData) -> None:
    plan = plan_of(name, "proxy_epochs=1", per_class=2)
    artifact = selecting.select(plan, data, SOURCE)
    assert artifact.per_class == [2] * 10
    assert artifact.indices is not None
    assert torch.equal(data.train.y[artifact.indices], artifact.images.classes)
    again = selecting.select(plan, data, SOURCE)
    assert again.indices is not None
    assert torch.equal(again.indices, artifact.indices)


@pytest.mark.parametrize("embedding", ["random-net", "trained-net"])
def test_a_coreset_sees_through_networks(embedding: str, data: ImageData) -> None:
    plan = plan_of("herding", f"embedding={embedding}", "proxy_epochs=1", "proxies=2", "net.norm=batch")
    assert selecting.select(plan, data, SOURCE).per_class == [1] * 10


def test_unfit_proxies_are_refused(data: ImageData) -> None:
    with pytest.raises(ValueError, match="follows one network"):
        selecting.select(plan_of("forgetting", "proxies=2"), data, SOURCE)
    with pytest.raises(ValueError, match="without batch normalisation"):
        selecting.select(plan_of("grand", "net.norm=batch"), data, SOURCE)


def test_a_table_made_in_turns_is_the_table_made_at_once(data: ImageData) -> None:
    artifact = selecting.select(plan_of("herding"), data, SOURCE)
    trials = Trials(n=3, checks=2)
    once = transfer(artifact, data, trials=trials, robust=True)
    parts = list(scoring.table(artifact, data, [artifact.build_network()], scoring.Protocol(trials, robust=True)))
    joined = scoring.join(parts, data.name)
    assert [(r.name, r.last, r.chosen, r.size) for r in joined.rows] == [
        (r.name, r.last, r.chosen, r.size) for r in once.rows
    ]


def test_the_full_data_row_is_paid_for_once(data: ImageData, tmp_path: Path) -> None:
    module = runs.build_network({"net": "ConvNet", "width": 4}, data)
    protocol = scoring.Protocol(Trials(n=2), full=1, cache=tmp_path)
    first = list(scoring.full_rows(data, module, protocol))
    again = list(scoring.full_rows(data, module, protocol))
    assert ([p.cached for p in first], [p.cached for p in again]) == ([False, False], [True, True])
    assert scoring.join(first, "").rows[0].last == scoring.join(again, "").rows[0].last
    more = list(scoring.full_rows(data, module, scoring.Protocol(Trials(n=3), full=1, cache=tmp_path)))
    assert [p.cached for p in more] == [True, True, False]
    other = runs.open_data(DataSource("digits", seed=1))
    assert not next(scoring.full_rows(other, module, protocol)).cached
    for file in tmp_path.iterdir():
        file.write_text("[]")
    assert not next(scoring.full_rows(data, module, protocol)).cached


def test_pictures_that_are_not_square_are_refused(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "wide.npz", x=np.zeros((20, 6, 9), np.uint8), y=np.arange(20) % 2)
    with pytest.raises(ValueError, match="6 x 9; crop or pad"):
        runs.open_data(DataSource(str(tmp_path / "wide.npz")))


SHORT = ["net.width=4", "eval.epochs=3", "inner_steps=2", "max_start=2", "expert_epochs=1", "experts.count=2"]
SHORTER = {
    "datm": ["first_max_start=1", "expansion_steps=2", "experts.epochs=3"],
    "mct": ["experts.epochs=4"],
    "satm-da": ["first_max_start=1", "expansion_steps=2", "experts.epochs=3"],
    "tesla": ["teacher_labels=true"],
}
MATCHING = ["mtt", "ftd", "tesla", "datm", "mct", "satm", "satm-fi", "satm-da"]


def matching_plan(method: str, *settings: str, per_class: int = 1) -> recipes.Plan:
    overrides = [*SHORT, *SHORTER.get(method, ()), *settings]
    return recipes.load(method, "digits", per_class, overrides=overrides)


def recorded(plan: recipes.Plan, data: ImageData, folder: Path) -> Path:
    assert plan.experts is not None
    experts.record(
        folder,
        Net(runs.build_network(plan.network, data)),
        data.train,
        planned_experts.recording_of(plan.experts),
        count=plan.experts.count,
        layout=planned_experts.layout_of(plan.experts),
        name=data.name,
    )
    return folder


@pytest.fixture(scope="module")
def ways(data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Experts for each kind of method."""
    root = tmp_path_factory.mktemp("experts")
    folders = {name: recorded(matching_plan(name), data, root / name) for name in ("mtt", "ftd", "datm", "mct")}
    return {
        name: folders[{"satm-fi": "ftd", "satm-da": "datm"}.get(name, name)]
        for name in [*folders, "satm-fi", "satm-da"]
    } | {
        "tesla": folders["mtt"],
        "satm": folders["mtt"],
    }


def run_with(
    plan: recipes.Plan, data: ImageData, path: Path, ways: Path, **options: bool
) -> tuple[runs.Run, runs.Folder]:
    run, folder = runs.build(plan, data, experts=ways), runs.Folder(path)
    folder.claim(run.settings(SOURCE), **options)
    return run, folder


@pytest.mark.parametrize("method", MATCHING)
def test_a_run_on_experts_that_was_stopped_gives_the_same_set(
    method: str, data: ImageData, ways: dict[str, Path], tmp_path: Path
) -> None:
    plan = matching_plan(method, "steps=5")
    run, folder = run_with(plan, data, tmp_path / "whole", ways[method])
    list(runs.advance(run, folder))
    expected = runs.finish(run, folder, SOURCE)
    run, folder = run_with(plan, data, tmp_path / "stopped", ways[method])
    steps: Iterator[runs.Progress] = runs.advance(run, folder, runs.Watch(snapshot_every=1))
    for _ in range(3):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    run, folder = run_with(plan, data, tmp_path / "stopped", ways[method], resume=True)
    watch = runs.Watch(eval_every=3, eval_budget=0.5)
    assert [progress.step for progress in runs.advance(run, folder, watch)] == [3, 4, 5]
    found = runs.finish(run, folder, SOURCE)
    assert torch.equal(found.images.values, expected.images.values)
    assert found.provenance["experts"]["count"] == 2
    loaded = Artifact.load(folder.artifact)
    assert loaded.images.step_size is not None
    assert loaded.training_recipe().optimizer.lr == float(loaded.images.step_size.detach())
    lines = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert all("step_size" in line for line in lines)
    assert ["validation" in line for line in lines] == [False, False, True, False, True]


def test_labels_are_those_of_the_method(data: ImageData, ways: dict[str, Path]) -> None:
    kinds = {}
    for method in ("mtt", "tesla", "datm"):
        images = runs.build(matching_plan(method), data, experts=ways[method]).synthetic
        kinds[method] = (images.kind_of_labels, images.logits)
    assert kinds == {"mtt": ("hard", False), "tesla": ("soft", False), "datm": ("learned", True)}
    plan = matching_plan("tesla", "teacher_labels=false")
    assert runs.build(plan, data, experts=ways["tesla"]).synthetic.kind_of_labels == "hard"
    images = runs.build(matching_plan("datm", "step_floor=0.5"), data, experts=ways["datm"]).synthetic
    images.project_()
    assert images.step_size is not None
    assert float(images.step_size.detach()) == 0.5
    with pytest.raises(ValueError, match="leave formation and smoothing out"):
        runs.build(matching_plan("datm", "formation=2"), data, experts=ways["datm"])


def test_what_is_kept_and_looked_at_is_the_result(data: ImageData, ways: dict[str, Path], tmp_path: Path) -> None:
    plan = matching_plan("ftd", "steps=4", "ema=0.5")
    run, folder = run_with(plan, data, tmp_path / "a", ways["ftd"])
    list(runs.advance(run, folder))
    kept = runs.finish(run, folder, SOURCE).images.values
    assert isinstance(run.objective, methods.FTD)
    assert torch.equal(kept, run.objective.result(run.synthetic).values)
    assert not torch.equal(kept, run.synthetic.values)


def test_steps_that_move_nothing_are_no_error(data: ImageData, ways: dict[str, Path], tmp_path: Path) -> None:
    plan = matching_plan("datm", "steps=3", "threshold=1e-9")
    run, folder = run_with(plan, data, tmp_path / "a", ways["datm"])
    before = run.synthetic.values.detach().clone()
    assert [p.step for p in runs.advance(run, folder)] == [1, 2, 3]
    assert torch.equal(run.synthetic.values, before)


def test_what_a_method_does_not_learn_is_still_said(data: ImageData, tmp_path: Path) -> None:
    run, folder = start(plan_of("dm", "steps=2", "step_size=0.01"), data, tmp_path / "a")
    with pytest.raises(ValueError, match="DM does not learn step_size"):
        list(runs.advance(run, folder))


def test_other_experts_are_another_run(data: ImageData, ways: dict[str, Path], tmp_path: Path) -> None:
    plan = matching_plan("mtt", "steps=2")
    run, folder = run_with(plan, data, tmp_path / "a", ways["mtt"])
    list(runs.advance(run, folder))
    with (
        pytest.warns(RuntimeWarning, match=r"trained by Gsam .*the plan's by PlainSgd"),
        pytest.raises(ValueError, match=r"has experts\.\S+ = "),
    ):
        run_with(plan, data, tmp_path / "a", ways["ftd"], resume=True)
    fewer = matching_plan("mtt", "steps=2", "experts.count=1")
    with pytest.raises(ValueError, match=r"experts\.count = 2, not 1"):
        run_with(fewer, data, tmp_path / "a", ways["mtt"], resume=True)


def test_experts_of_something_else_are_refused(data: ImageData, ways: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"recorded with network\.width 4, not 5"):
        runs.build(matching_plan("mtt", "net.width=5"), data, experts=ways["mtt"])
    with pytest.raises(ValueError, match=r"recorded with preprocessing\S* "):
        runs.build(matching_plan("mtt", "whiten=zca"), runs.open_data(SOURCE, whiten="zca"), experts=ways["mtt"])
    with pytest.raises(ValueError, match=r"recorded with data\.\w+ "):
        runs.build(matching_plan("mtt"), runs.open_data(DataSource("digits", seed=1)), experts=ways["mtt"])
    with pytest.raises(ValueError, match=r"have 2 epochs, and MTT reaches epoch 5 .* experts\.epochs=5"):
        runs.build(matching_plan("mtt", "max_start=5"), data, experts=ways["mtt"])
    with pytest.raises(ValueError, match=r"matches convexified trajectories.*condensery convexify"):
        runs.build(matching_plan("mct", "max_start=1"), data, experts=ways["mtt"])
    with pytest.raises(ValueError, match="MTT matches experts; give the folder"):
        runs.build(matching_plan("mtt"), data)


def test_experts_have_a_folder_by_what_matters(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def name(*settings: str, method: str = "mtt", **options: int) -> str:
        return planned_experts.experts_folder(matching_plan(method, *settings), SOURCE, **options).name

    assert name().startswith("digits-ConvNet4-sgd-")
    assert name().endswith("-e2")
    assert name() == name("lr_images=3", "experts.count=7", "experts.precision=bf16", "steps=9")
    assert name() == name(method="satm")
    assert len({name(), name("experts.lr=1"), name("net.norm=none"), name("whiten=zca"), name(seed=1)}) == 5
    assert "-zca-convexified-" in name("whiten=zca", method="mct")
    plan = matching_plan("mtt")
    with pytest.raises(
        ValueError, match=r"none in runs/experts/digits-ConvNet4-sgd-.*record them with: condensery exp"
    ):
        planned_experts.experts_for(plan, SOURCE)
    longer = planned_experts.experts_folder(matching_plan("mtt", "experts.epochs=4"), SOURCE)
    recorded(matching_plan("mtt", "experts.epochs=4", "experts.count=1"), data, longer)
    with pytest.raises(ValueError, match=r"-e4 holds 1 of 2 experts; record the others with: condensery experts"):
        planned_experts.experts_for(plan, SOURCE)
    assert planned_experts.experts_for(matching_plan("mtt", "experts.count=1"), SOURCE) == longer
    assert planned_experts.experts_for(plan, SOURCE, longer) == longer
    assert planned_experts.experts_for(plan_of("dm"), SOURCE) is None
    with pytest.raises(ValueError, match="DM matches no experts"):
        planned_experts.experts_for(plan_of("dm"), SOURCE, longer)


def test_longer_experts_begin_as_shorter_ones(data: ImageData, ways: dict[str, Path], tmp_path: Path) -> None:
    longer = recorded(matching_plan("mtt", "experts.epochs=3"), data, tmp_path / "longer")
    long_one, short_one = experts.open_experts(longer), experts.open_experts(ways["mtt"])
    assert isinstance(long_one, experts.Store)
    assert isinstance(short_one, experts.Store)
    assert torch.equal(long_one.trajectory(1)[:3], short_one.trajectory(1))


def test_the_command_that_records_says_what_is_not_the_recipes() -> None:
    source = DataSource("digits", root="/data", size=9, validation=0.2)
    plan = recipes.load("mtt", "digits", 1, overrides=["net.width=4", "max_start=7", "whiten=zca", "steps=3"])
    assert planned_experts.recording_command(plan, source, Path("a b")) == (
        "condensery experts digits --method mtt --ipc 1 --data-root /data --size 9 --validation 0.2 "
        "--set net.width=4 --set whiten=zca --set max_start=7 --out 'a b'"
    )
    plan = recipes.load("mct", "digits", 1, overrides=["lr_images=2", "max_start=7", "experts.epochs=13"])
    assert planned_experts.condensing_command(plan, SOURCE, Path("x")) == (
        "condensery condense digits --method mct --ipc 1 --set max_start=7 --set experts.epochs=13 --set lr_images=2 "
        "--experts x"
    )
    other = recipes.load("mtt", "digits", (1,) * 10, network={"net": "MLP", "width": "8"})
    assert planned_experts.recording_command(other, SOURCE) == (
        "condensery experts digits --method mtt --ipc 1,1,1,1,1,1,1,1,1,1 --net MLP --set net.width=8"
    )
