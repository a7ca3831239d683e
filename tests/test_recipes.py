"""Recipes: published values, the rules between them, and what they refuse."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib.resources import files

import pytest
import torch

from condensery import catalog, experts, methods, nets, planned_experts, recipes, runs
from condensery.data import augment
from condensery.recipes import Evaluation, Plan, rules, values


def test_dm_has_the_published_values_at_any_number_of_images() -> None:
    plan = recipes.load("dm", "cifar10", 10)
    assert plan.steps == 20_000
    assert (plan.options["lr_images"], plan.options["batch_real"], plan.options["augment"]) == (1.0, 256, "dsa")
    assert plan.network == {"net": "ConvNet", "width": 128, "norm": "instance"}
    assert plan.origin[0] == "published settings for cifar10 at 10 per class"
    assert recipes.load("dm", "cifar10", 99).options["lr_images"] == 1.0
    assert recipes.load("dm", "cifar10", 100).options["lr_images"] == 10.0
    assert "carried over to 7 per class" in recipes.load("dm", "cifar10", 7).origin[0]
    assert recipes.load("dm", "mine", 7).origin == ("defaults: nothing is published for this data set",)


@pytest.mark.parametrize(
    ("per_class", "steps", "loops"), [(1, 1000, (1, 1)), (10, 10_000, (10, 50)), (50, 50_000, (50, 10))]
)
@pytest.mark.parametrize("method", ["dc", "dsa"])
def test_an_iteration_of_gradient_matching_is_its_outer_steps(
    method: str, per_class: int, steps: int, loops: tuple[int, int]
) -> None:
    plan = recipes.load(method, "cifar10", per_class)
    assert (plan.steps, plan.options["outer"], plan.options["inner"]) == (steps, *loops)
    assert (plan.options["lr_images"], plan.options["lr_net"]) == (0.1, 0.01)
    assert plan.start.init == ("noise" if method == "dc" else "real")


def test_the_number_of_iterations_follows_loops_set_by_hand() -> None:
    assert recipes.load("dc", "cifar10", 10, overrides=["outer=3"]).steps == 3000
    assert recipes.load("dc", "cifar10", 10, overrides=["outer=3", "steps=7"]).steps == 7
    assert recipes.load("dc", "cifar10", 10, overrides=["steps=7", "iterations=2"]).steps == 20


def test_handwriting_is_never_mirrored_and_clothes_are() -> None:
    for dataset in ("mnist", "kmnist", "emnist-letters", "digits"):
        for method in ("dm", "dsa"):
            plan = recipes.load(method, dataset, 1)
            assert (plan.options["augment"], plan.evaluation.augment) == ("dsa-digits", "dsa-digits")
    assert recipes.load("dsa", "fashion-mnist", 1).options["augment"] == "dsa"


def test_dc_is_evaluated_as_published() -> None:
    plain = recipes.load("dc", "cifar10", 1).evaluation
    assert (plain.epochs, plain.augment) == (300, None)
    digits = recipes.load("dc", "mnist", 1).evaluation
    assert (digits.epochs, digits.augment) == (1000, "dc-digits")
    batch_norm = recipes.load("dc", "cifar10", 1, network={"norm": "batch"}).evaluation
    assert (batch_norm.epochs, batch_norm.augment) == (1000, "dc-batch-norm")
    assert recipes.load("dc", "cifar10", 1, overrides=["net.norm=batch"]).evaluation == batch_norm


def test_an_evaluation_becomes_the_recipe_of_the_papers() -> None:
    recipe = recipes.load("dm", "cifar10", 1).evaluation.recipe()
    assert (recipe.epochs, recipe.batch_size) == (1000, 256)
    assert (recipe.optimizer.lr, recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.01, 0.9, 5e-4)
    assert (recipe.schedule.at, recipe.schedule.by) == (0.5, 0.1)
    assert recipe.augment == augment.DsaTrain(augment.Siamese.natural())
    other = Evaluation(optimizer="adam", schedule="warmup-cosine", loss="squared-error", augment=None).recipe()
    assert [type(part).__name__ for part in (other.optimizer, other.schedule, other.loss)] == [
        "Adam",
        "WarmupCosine",
        "SquaredError",
    ]


@pytest.mark.parametrize("method", [*catalog.METHODS, *catalog.CORESETS])
def test_every_setting_has_a_kind_that_text_can_give(method: str) -> None:
    groups = recipes.settable(method)
    for group in groups.values():
        for name, (kind, default) in group.items():
            assert values.known(kind), name
            assert values.read(values.said(default), kind, name) == default, name
    entry = catalog.method_or_coreset(method)
    if isinstance(entry, catalog.Method):
        given = {"net", "real", "experts", "generator"}
        fields = {f.name for f in dataclasses.fields(entry.load()) if f.init and not f.name.startswith("_")} - given
        assert set(groups["options"]) == fields, "an option that --set cannot reach"


@pytest.mark.parametrize("name", [*catalog.METHODS, "coreset"])
def test_every_method_has_a_recipe_file_without_strange_keys(name: str) -> None:
    file = tomllib.loads(files("condensery.recipes").joinpath(f"{name}.toml").read_text())
    assert file["source"]
    assert set(file["published"]) <= set(catalog.DATASETS)
    assert recipes._read(name)["rule"][0]["name"] == "defaults"
    for dataset in catalog.DATASETS:
        for per_class in (10, *file["published"].get(dataset, ())):
            plan = recipes.load("herding" if name == "coreset" else name, dataset, per_class)
            assert plan.evaluation.recipe()
            if name != "coreset":
                catalog.METHODS[name].load()(
                    None, None, None, **runs.options_of(catalog.METHODS[name].load(), plan.options)
                )


# Images per class: steps / expert epochs / latest start / rate of images / rate of the step size / first step size,
# then the synthetic mini-batch and the whitening.
ROWS = {
    ("mtt", "cifar10"): {
        1: (50, 2, 2, 100, 1e-7, 0.01, None, "zca"),
        10: (30, 2, 20, 100, 1e-5, 0.001, None, "zca"),
        50: (30, 2, 40, 1000, 1e-5, 0.001, None, "none"),
    },
    ("mtt", "cifar100"): {
        1: (20, 3, 20, 1000, 1e-5, 0.01, None, "zca"),
        10: (20, 2, 20, 1000, 1e-5, 0.01, None, "none"),
        50: (80, 2, 40, 1000, 1e-5, 0.01, 125, "zca"),
    },
    ("mtt", "tiny-imagenet"): {
        1: (10, 2, 10, 10_000, 1e-4, 0.01, None, "none"),
        10: (20, 2, 40, 10_000, 1e-4, 0.01, 200, "none"),
        50: (20, 2, 40, 10_000, 1e-4, 0.01, 300, "none"),
    },
    ("ftd", "cifar10"): {
        1: (50, 2, 2, 100, 1e-7, 0.01, None, "zca"),
        10: (30, 2, 20, 100, 1e-5, 0.001, None, "zca"),
        50: (30, 2, 40, 1000, 1e-5, 0.01, None, "zca"),
    },
    ("ftd", "cifar100"): {
        1: (40, 3, 20, 1000, 1e-5, 0.01, None, "zca"),
        10: (20, 2, 40, 1000, 1e-5, 0.01, None, "zca"),
        50: (80, 2, 40, 1000, 1e-5, 0.01, 1000, "zca"),
    },
    ("ftd", "tiny-imagenet"): {
        1: (30, 2, 10, 10_000, 1e-4, 0.01, None, "zca"),
        10: (20, 2, 40, 10_000, 1e-4, 0.01, 500, "zca"),
    },
    ("tesla", "cifar10"): {
        1: (50, 2, 5, 1000 / 2, 1e-7, 0.01, None, "zca"),
        10: (30, 2, 20, 100, 1e-5, 0.001, None, "zca"),
    },
    ("tesla", "cifar100"): {50: (80, 2, 40, 1000 / 2, 1e-5, 0.01, 125, "zca")},
    ("datm", "cifar10"): {
        1: (80, 2, 4, 100, 1e-7, 0.01, None, "zca"),
        10: (80, 2, 20, 100, 1e-5, 0.01, None, "zca"),
        50: (80, 2, 40, 1000, 1e-5, 0.01, None, "zca"),
        500: (40, 2, 60, 50, 1e-5, 0.01, 1000, "zca"),
        1000: (100, 2, 60, 50, 1e-5, 0.01, 1000, "zca"),
    },
    ("datm", "cifar100"): {
        1: (40, 3, 20, 1000, 1e-5, 0.01, None, "zca"),
        10: (80, 2, 50, 1000, 1e-5, 0.01, None, "zca"),
        50: (80, 2, 70, 1000, 1e-5, 0.01, 1000, "zca"),
        100: (80, 2, 70, 50, 1e-5, 0.01, 1000, "zca"),
    },
    ("datm", "tiny-imagenet"): {
        1: (40, 2, 20, 10_000, 1e-4, 0.01, None, "zca"),
        10: (40, 2, 50, 100, 1e-4, 0.01, 500, "zca"),
        50: (20, 2, 70, 100, 1e-4, 0.01, 1000, "zca"),
    },
    ("mct", "cifar10"): {
        1: (50, 5, 4, 1000 / 2, 1e-7, 0.01, None, "zca"),
        10: (40, 5, 10, 1000 / 2, 1e-5, 0.01, None, "zca"),
        50: (40, 5, 30, 1000 / 2, 1e-5, 0.001, None, "zca"),
    },
    ("mct", "cifar100"): {
        1: (40, 5, 10, 1000 / 2, 1e-5, 0.01, None, "zca"),
        10: (30, 5, 40, 1000 / 2, 1e-5, 0.01, None, "zca"),
        50: (50, 5, 40, 1000 / 2, 1e-5, 0.01, None, "zca"),
    },
    ("mct", "tiny-imagenet"): {
        1: (20, 5, 5, 10_000 / 2, 1e-4, 0.01, None, "zca"),
        10: (30, 4, 40, 10_000 / 2, 1e-4, 0.01, None, "zca"),
        50: (50, 4, 40, 10_000 / 2, 1e-4, 0.01, None, "zca"),
    },
    ("satm", "cifar10"): {
        1: (50, 2, 2, 1000, 1e-6, 0.01, None, "zca"),
        3: (50, 2, 2, 100, 1e-5, 0.01, None, "zca"),
        10: (30, 2, 20, 50, 1e-5, 0.001, None, "zca"),
        50: (30, 2, 40, 100, 1e-5, 0.001, None, "zca"),
    },
    ("satm", "cifar100"): {
        1: (40, 3, 20, 500, 1e-5, 0.01, None, "zca"),
        3: (45, 3, 20, 1000, 5e-5, 0.01, None, "zca"),
        10: (20, 2, 20, 1000, 1e-5, 0.01, 500, "zca"),
        50: (80, 2, 40, 1000, 1e-5, 0.01, 500, "zca"),
    },
    ("satm", "tiny-imagenet"): {
        1: (30, 2, 10, 1000, 1e-4, 0.01, 200, "zca"),
        3: (30, 2, 15, 1000, 1e-4, 0.01, 200, "zca"),
        10: (20, 2, 40, 10_000, 1e-4, 0.01, 200, "zca"),
    },
}
MATCHING = [name for name in catalog.METHODS if recipes.takes_experts(name)]


def row(plan: Plan) -> tuple[object, ...]:
    names = ("inner_steps", "expert_epochs", "max_start", "lr_images", "lr_step_size")
    return (*(plan.options[n] for n in names), plan.start.step_size, plan.options["batch"], plan.start.whiten)


@pytest.mark.parametrize(("method", "dataset"), ROWS)
def test_trajectories_are_matched_as_published(method: str, dataset: str) -> None:
    for per_class, published in ROWS[method, dataset].items():
        plan = recipes.load(method, dataset, per_class)
        assert row(plan) == published, per_class
        assert plan.steps == (10_000 if method in ("tesla", "datm") else 5000)
        if (method, per_class) != ("tesla", 10):
            assert plan.origin[0] == f"published settings for {dataset} at {per_class} per class"
    child = {"satm": "satm-fi", "datm": "satm-da"}.get(method)
    if child is not None:
        assert all(row(recipes.load(child, dataset, k)) == r for k, r in ROWS[method, dataset].items())


def test_between_two_published_numbers_the_nearer_counts() -> None:
    for method, near in (("mtt", {5: 1, 6: 10, 30: 10, 31: 50, 200: 50}), ("satm", {2: 1, 4: 3, 7: 10, 6: 3})):
        for per_class, published in near.items():
            assert row(recipes.load(method, "cifar10", per_class)) == ROWS[method, "cifar10"][published], per_class
    assert row(recipes.load("datm", "cifar10", 300)) == ROWS["datm", "cifar10"][500]
    assert row(recipes.load("mtt", "mine", 10))[:6] == ROWS["mtt", "cifar10"][10][:6]


def test_datm_has_its_windows_and_its_labels() -> None:
    windows = {1: (0, None, 4, 0), 10: (0, 10, 20, 1000), 50: (0, 20, 40, 2000), 500: (40, None, 60, 0)}
    for per_class, window in windows.items():
        plan = recipes.load("datm", "cifar10", per_class)
        names = ("min_start", "first_max_start", "max_start", "expansion_steps")
        assert tuple(plan.options[n] for n in names) == window
        assert (plan.start.init, plan.start.learn_labels, plan.options["momentum_labels"]) == ("correct", True, 0.9)
    assert [recipes.load("datm", "cifar10", k).options["lr_labels"] for k in (1, 10, 50, 500)] == [5, 2, 2, 10]
    assert [recipes.load("datm", "cifar10", k).options["threshold"] for k in (1, 10)] == [1.1, 1.0]


def test_tesla_has_soft_labels_where_there_are_many_classes() -> None:
    on = {
        d: recipes.load("tesla", d, 1).options["teacher_labels"] for d in ("cifar10", "cifar100", "tiny-imagenet", "x")
    }
    assert on == {"cifar10": False, "cifar100": False, "tiny-imagenet": True, "x": True}


def test_experts_are_trained_as_published_and_as_long_as_starts_need() -> None:
    experts_of = {name: recipes.load(name, "cifar10", 10).experts for name in MATCHING}
    plain = experts_of["mtt"]
    assert plain is not None
    assert (plain.optimizer, plain.lr, plain.batch_size, plain.count, plain.layout) == ("sgd", 0.01, 256, 100, "full")
    assert {name: e.epochs for name, e in experts_of.items() if e} == {
        **dict.fromkeys(MATCHING, 21),
        "mct": 50,
        "datm": 100,
        "satm-da": 100,
    }
    for name in ("ftd", "datm", "satm-fi", "satm-da"):
        found = experts_of[name]
        assert found is not None
        assert (found.optimizer, found.rho, found.alpha, found.adaptive) == ("gsam", 0.01, 0.3, True)
    assert recipes.load("ftd", "cifar100", 10).experts.alpha == 1.0  # type: ignore[union-attr]
    assert recipes.load("ftd", "cifar10", 1).options["ema"] == 0.9999
    convexified = experts_of["mct"]
    assert convexified is not None
    assert planned_experts.layout_of(convexified) == experts.Waypoints(2, experts.Beta.MCT)
    assert recipes.load("dm", "cifar10", 10).experts is None
    assert "experts" not in recipes.load("dm", "cifar10", 10).to_json()


def test_experts_settings_become_a_recording() -> None:
    settings = ["experts.optimizer=asam", "experts.eta=0.1", "experts.augment=none", "experts.precision=bf16"]
    asked = recipes.load("ftd", "cifar10", 1, overrides=[*settings, "experts.layout=half"]).experts
    assert asked is not None
    assert asked.alpha is None, "what the recipe says of another optimizer is left out"
    recording = planned_experts.recording_of(asked, seed=3)
    assert recording.optimizer == experts.Asam(lr=0.01, rho=0.01, eta=0.1)
    assert (recording.seed, recording.epochs, recording.augment, recording.precision) == (3, 3, None, torch.bfloat16)
    assert planned_experts.layout_of(asked) is experts.Layout.HALF
    plain = recipes.load("mtt", "mnist", 1).experts
    assert plain is not None
    assert planned_experts.recording_of(plain).augment == augment.DsaTrain(augment.Siamese.digits())
    assert planned_experts.recording_of(plain).optimizer == experts.PlainSgd()


def test_starts_between_epochs_need_one_more() -> None:
    overrides = ["experts.epochs=none", "max_start=4", "expert_epochs=5"]
    lengths = [
        recipes.load("mct", "cifar10", 1, overrides=[*overrides, f"continuous={answer}"]).experts.epochs  # type: ignore[union-attr]
        for answer in ("true", "false")
    ]
    assert lengths == [9, 8]


@pytest.mark.parametrize(
    ("method", "assignment", "message"),
    [
        ("mtt", "experts.epochs=2", r"reaches epoch 3 from its latest start; give experts\.epochs=3"),
        ("mtt", "experts.optimizer=adam", r"experts\.optimizer takes sgd, sam, gsam or asam"),
        ("mtt", "experts.rho=1", r"experts\.optimizer=sgd has no rho; it takes experts\.momentum"),
        ("mtt", "experts.layout=thin", "takes full, half or convexified"),
        ("mtt", "experts.count=0", "must be at least 1"),
        ("mtt", "experts.wat=1", r"no setting 'experts\.wat'.* experts\.optimizer"),
        ("dm", "experts.lr=1", r"no setting 'experts\.lr'"),
        ("dm", "init=correct", "asks experts, and dm has none"),
        ("satm", "ascent=up", "ascent takes sam, gsam, asam or vasso"),
    ],
)
def test_a_bad_setting_of_experts_is_one_sentence(method: str, assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        recipes.load(method, "cifar10", 1, overrides=[assignment])
    assert "\n" not in str(caught.value)


def test_an_ascent_is_chosen_by_its_word() -> None:
    for word, name in values.OBJECTS["Ascent"].items():
        plan = recipes.load("satm", "cifar10", 1, overrides=[f"ascent={word}"])
        assert runs.options_of(methods.SATM, plan.options)["ascent"] == getattr(methods, name)()


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["label_scale=0"], "label_scale is 0; give a number above 0, or none"),
        (["softplus=-1"], "softplus is -1; give a number above 0, or none"),
        (["label_scale=1", "label_smoothing=0.1"], "give one of them"),
        (["condensing_norm=odd"], "condensing_norm takes same, none, instance, batch, group or layer"),
    ],
)
def test_a_bad_start_is_one_sentence(assignments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipes.load("dm", "cifar10", 1, overrides=assignments)


def test_a_strange_key_in_a_recipe_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = {"source": "", "rule": [{"name": "defaults", "run": {"stesp": 3}, "network": {"net": "ConvNet"}}]}
    monkeypatch.setattr(recipes, "_read", lambda _: strange)
    with pytest.raises(ValueError, match=r"unknown name run\.stesp; it may hold steps"):
        recipes.load("dm", "cifar10", 1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="unknown key 'daatsets'"):
        rules.check_keys("dm", {"daatsets": []}, ("datasets",))


def test_the_error_for_an_unknown_setting_lists_all_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'lr_imges' \(did you mean lr_images\?\); it takes batch_real") as caught:
        recipes.load("dm", "cifar10", 1, overrides=["lr_imges=1"])
    assert all(name in str(caught.value) for name in recipes.names("dm"))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("batch_real=1.5", "batch_real takes a whole number, not '1.5'"),
        ("lr_images=fast", "lr_images takes a number"),
        ("lr_images=nan", "lr_images takes a number"),
        ("mirrored=3", "mirrored takes true or false"),
        ("augment=flip", "augment takes dsa, dsa-digits or none"),
        ("precision=fp8", "precision takes bf16, fp16 or none"),
        ("net.norm=foo", "net.norm takes none, instance, batch, group or layer"),
        ("net.width=-", "net.width takes a whole number"),
        ("eval.schedule=x", "eval.schedule takes constant, drop or warmup-cosine"),
        ("foo.bar=1", "no setting 'foo.bar'"),
        ("steps", "write name=value"),
        ("=3", "write name=value"),
        ("formation=0", "give 1 or more"),
        ("label_smoothing=1", "below 1"),
        ("steps=-1", "cannot be negative"),
    ],
)
def test_a_bad_setting_is_one_sentence(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        recipes.load("dm", "cifar10", 1, overrides=[assignment])
    assert "\n" not in str(caught.value)


def test_values_are_read_by_the_type_of_their_field() -> None:
    settings = ["augment=none", "precision=bf16", "mirrored=yes", "step_size=0.02", "eval.steps=none", "net.depth=2"]
    plan = recipes.load("dm", "cifar10", 1, overrides=settings)
    assert plan.options["augment"] is None
    assert plan.options["precision"] == "bf16"
    assert (plan.start.mirrored, plan.start.step_size, plan.evaluation.steps) == (True, 0.02, None)
    assert plan.network["depth"] == 2
    assert plan.origin[-1].startswith("set by hand: augment, precision")


def test_another_network_drops_the_arguments_of_the_recipes() -> None:
    plan = recipes.load("dm", "cifar10", 1, network={"net": "alexnet", "width": "64"})
    assert plan.network == {"net": "AlexNet", "width": 64}
    with pytest.raises(ValueError, match=r"no setting 'net\.width'"):
        recipes.load("dm", "cifar10", 1, network={"net": "LeNet", "width": "64"})


def test_a_budget_scales_the_steps_and_says_so() -> None:
    plan = recipes.load("dm", "cifar10", 1).with_budget(0.1)
    assert (plan.steps, plan.budget) == (2000, 0.1)
    assert recipes.load("dm", "cifar10", 1).with_budget(1e-9).steps == 1
    for bad in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="positive"):
            recipes.load("dm", "cifar10", 1).with_budget(bad)


def test_unequal_numbers_count_as_their_mean() -> None:
    plan = recipes.load("dc", "cifar10", (1, 19))
    assert (plan.per_class, plan.options["outer"]) == ((1, 19), 10)
    assert isinstance(plan, Plan)
    with pytest.raises(ValueError, match="at least 1"):
        recipes.load("dc", "cifar10", 0)


def test_the_catalog_names_what_exists() -> None:
    assert set(catalog.NETWORKS) == set(nets.VISION)
    for entry in (*catalog.METHODS.values(), *catalog.CORESETS.values()):
        assert callable(entry.load())
    for dataset in catalog.DATASETS.values():
        source = dataset.files()
        assert source is None or source.folders
    digits = catalog.DATASETS["digits"].load()
    assert (digits.num_classes, digits.image_shape) == (10, (1, 8, 8))
    assert (len(digits.train) + len(digits.validation), len(digits.test)) == catalog.DATASETS["digits"].sizes
