"""Recipes of graphs: published values, two networks, lengths, and what they refuse."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from condensery import catalog, nets
from condensery.evaluate.nodes import NodeRecipe
from condensery.fitting import Adam, Constant, Sgd
from condensery.methods.gcond import squared_distance
from condensery.methods.matching import layerwise_distance
from condensery.recipes import graphs, values

EVERY = [*catalog.GRAPH_METHODS, *catalog.GRAPH_CORESETS]


@pytest.mark.parametrize(
    ("dataset", "loops", "rate", "epochs"),
    [("cora", (20, 15), 1e-4, 600), ("citeseer", (20, 15), 1e-4, 600), ("ogbn-arxiv", (20, 3), 0.01, 1000)],
)
def test_gcond_has_the_published_values(dataset: str, loops: tuple[int, int], rate: float, epochs: int) -> None:
    for method in ("gcond", "gcond-x"):
        plan = graphs.load(method, dataset, ratio=0.5)
        assert (plan.options["outer"], plan.options["inner"]) == loops
        assert (plan.options["lr_features"], plan.options["lr_structure"]) == (rate, rate)
        assert plan.steps == epochs * loops[0]
        assert plan.run is not None
        assert plan.run.structure == ("pairwise" if method == "gcond" else "identity")
        assert plan.test == {"net": "GCN", "width": 256, "depth": 2, "dropout": 0.0, "start": "fan_in"}
        assert plan.evaluation.recipe() == NodeRecipe()
    assert plan.network["net"] == ("APPNP" if dataset == "ogbn-arxiv" else "SGC")


def test_doscond_and_gcdm_have_the_published_values() -> None:
    lengths = {"cora": 5000, "citeseer": 3000, "pubmed": 2000, "ogbn-arxiv": 5000}
    assert {dataset: graphs.load("doscond", dataset, ratio=0.5).steps for dataset in lengths} == lengths
    cora, arxiv = (graphs.load("doscond", dataset, ratio=0.5).options for dataset in ("cora", "ogbn-arxiv"))
    assert (cora["outer"], cora["inner"], cora["distance"], cora["lr_features"]) == (1, 0, "squared", 1e-3)
    assert (arxiv["outer"], arxiv["distance"], arxiv["lr_structure"]) == (5, "layerwise", 0.02)
    assert [graphs.load("gcdm", dataset, ratio=0.5).steps for dataset in ("cora", "citeseer")] == [3000, 5000]
    assert graphs.load("gcdm", "ogbn-arxiv", ratio=0.5).options["inner"] == 1


def test_a_plan_says_where_its_values_come_from() -> None:
    assert graphs.load("gcond", "cora", nodes=70).origin[0] == "published settings for cora at 70 nodes"
    assert "carried over to 9 nodes (published for 35, 70, 140)" in graphs.load("gcond", "cora", nodes=9).origin[0]
    assert graphs.load("gcond", "cora", ratio=0.5).origin[0] == "published settings for cora"
    assert graphs.load("gcond", "mine", nodes=9).origin[0] == "defaults: nothing is published for this data set"
    by_hand = graphs.load("gcond", "cora", nodes=70, overrides=["inner=3", "net.hops=1"])
    assert by_hand.origin[-1] == "set by hand: inner, net.hops"
    assert (by_hand.options["inner"], by_hand.network["hops"]) == (3, 1)


def test_the_length_that_was_set_last_counts() -> None:
    def steps(*settings: str) -> int:
        return graphs.load("gcond", "cora", nodes=70, overrides=settings).steps

    assert steps("outer=3") == 1800
    assert steps("steps=7") == 7
    assert steps("steps=7", "epochs=2") == 40
    plan = graphs.load("gcond", "cora", nodes=70).with_budget(0.01)
    assert (plan.steps, plan.budget) == (120, 0.01)
    with pytest.raises(ValueError, match="is no share"):
        plan.with_budget(0.0)
    assert graphs.load("random", "cora", nodes=70).with_budget(0.5).steps == 0


def test_another_network_brings_its_own_settings() -> None:
    assert graphs.load("gcond", "cora", nodes=70, overrides=["net.net=gcn", "net.width=8"]).network == {
        "net": "GCN",
        "width": 8,
    }
    plan = graphs.load("gcond", "cora", nodes=70, overrides=["test.net=SAGE", "test.aggregation=max"])
    assert plan.test == {"net": "SAGE", "aggregation": "max"}
    for text, sentence in (
        ("net.net=ConvNet", "no graph network 'ConvNet'"),
        ("test.net=GCNN", "did you mean GCN"),
        ("net.heads=2", "gcond has no setting 'net.heads'"),
        ("net.hops=two", "net.hops takes a whole number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            graphs.load("gcond", "cora", nodes=70, overrides=[text])


def test_numbers_in_a_text_become_objects() -> None:
    kinds = {name: kind for name, (kind, _) in graphs.settable("gcond")["method"].items()}
    plan = graphs.load("gcond", "cora", nodes=70, overrides=["fanouts=15, all", "alternation=none", "distance=squared"])
    made = {name: values.object_of(value, kinds[name]) for name, value in plan.options.items()}
    assert (made["fanouts"], made["alternation"], made["distance"]) == ((15, None), None, squared_distance)
    usual = {k: values.object_of(v, kinds[k]) for k, v in graphs.load("gcond", "cora", nodes=70).options.items()}
    assert (usual["fanouts"], usual["alternation"], usual["distance"]) == ((10, 5), (10, 50), layerwise_distance)
    for text in ("fanouts=0", "fanouts=10,", "alternation=10", "distance=angle"):
        with pytest.raises(ValueError, match=f"{text.split('=')[0]} takes "):
            graphs.load("gcond", "cora", nodes=70, overrides=[text])


@pytest.mark.parametrize("name", ["graphs", *catalog.GRAPH_METHODS])
def test_recipe_files_hold_names_that_there_are(name: str) -> None:
    file = tomllib.loads(files("condensery.recipes").joinpath(f"{name}.toml").read_text())
    assert file["source"]
    assert set(file["published"]) <= set(catalog.GRAPHS)
    entry = catalog.graph_entry("gcond" if name == "graphs" else name)
    for rule in graphs._read(name)["rule"]:
        named = {s: rule.get(s, {}).get("net", "GCN") for s in ("network", "test")}
        kinds = graphs._kinds(entry, named)
        assert all(key in kinds[section] for section in kinds if section in rule for key in rule[section]), rule


@pytest.mark.parametrize("method", EVERY)
def test_every_setting_has_a_kind_that_text_can_give(method: str) -> None:
    for section, kinds in graphs.settable(method).items():
        for name, (kind, default) in kinds.items():
            assert values.known(kind), name
            assert values.read(values.said(default), kind, name) == default, name
            assert graphs.full_name(section, name) in graphs.names(method)
            assert values.describe(kind)
    for dataset in (*catalog.GRAPHS, "mine.npz"):
        plan = graphs.load(method, dataset, nodes=70)
        assert plan.title == catalog.graph_entry(method).title
        assert nets.build({**plan.test, "features": 3, "classes": 2})
        assert plan.is_coreset == (method in catalog.GRAPH_CORESETS)
        assert bool(plan.network) != plan.is_coreset
        assert (plan.steps > 0) != plan.is_coreset


def test_the_evaluation_in_words_becomes_a_recipe() -> None:
    settings = ["eval.optimizer=sgd", "eval.momentum=0.5", "eval.schedule=constant", "eval.steps=9", "eval.lr=0.2"]
    recipe = graphs.load("gcond", "cora", nodes=70, overrides=settings).evaluation.recipe()
    assert recipe == NodeRecipe(steps=9, optimizer=Sgd(0.2, 0.5, 5e-4), schedule=Constant())
    assert isinstance(NodeRecipe().optimizer, Adam)


def test_what_does_not_fit_is_refused() -> None:
    for sizes in ({}, {"nodes": 3, "ratio": 0.5}):
        with pytest.raises(ValueError, match="either a number of nodes or a ratio"):
            graphs.load("gcond", "cora", **sizes)
    for nodes, ratio, sentence in ((0, None, "at least one for each class"), (None, 1.5, "above 0 and at most 1")):
        with pytest.raises(ValueError, match=sentence):
            graphs.load("gcond", "cora", nodes=nodes, ratio=ratio)
    for setting, sentence in (
        ("threshold=-1", "cannot be negative"),
        ("layers=1", "give at least 1 and 2"),
        ("strukture=free", "did you mean structure"),
        ("eval.steps=0", "trains nothing"),
    ):
        with pytest.raises(ValueError, match=sentence):
            graphs.load("gcond", "cora", nodes=7, overrides=[setting])
    with pytest.raises(ValueError, match="proxy_steps is 0"):
        graphs.load("herding", "cora", nodes=7, overrides=["proxy_steps=0"])
    with pytest.raises(ValueError, match="no method for graphs 'dm'"):
        graphs.load("dm", "cora", nodes=7)
