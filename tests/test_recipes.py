"""Recipes: published values, the rules between them, and what they refuse."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib.resources import files

import pytest

from condensery import catalog, nets, recipes
from condensery.data import augment
from condensery.recipes import Evaluation, Plan, values


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
        given = {"net", "real", "generator"}
        fields = {f.name for f in dataclasses.fields(entry.load()) if f.init and not f.name.startswith("_")} - given
        assert set(groups["options"]) == fields, "an option that --set cannot reach"


@pytest.mark.parametrize("name", [*catalog.METHODS, "coreset"])
def test_every_method_has_a_recipe_file_without_strange_keys(name: str) -> None:
    file = tomllib.loads(files("condensery.recipes").joinpath(f"{name}.toml").read_text())
    assert file["source"]
    assert set(file["published"]) <= set(catalog.DATASETS)
    assert file["rule"][0]["name"] == "defaults"
    for dataset in catalog.DATASETS:
        recipes.load("herding" if name == "coreset" else name, dataset, 10)


def test_a_strange_key_in_a_recipe_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"source": "", "rule": [{"name": "defaults", "run": {"stesp": 3}, "network": {"net": "ConvNet"}}]}
    monkeypatch.setattr(recipes, "_read", lambda _: rules)
    with pytest.raises(ValueError, match=r"unknown name run\.stesp; it may hold steps"):
        recipes.load("dm", "cifar10", 1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="unknown key 'daatsets'"):
        recipes._check_keys("dm", {"daatsets": []}, ("datasets",))


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
