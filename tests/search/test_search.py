"""Grounds, strategies, studies and confirmation, on data that a network learns in a moment."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import condensery as cd
from condensery.adjacency import Adjacency, NodeInput
from condensery.batch import Batch
from condensery.evaluate.nodes import NodeRecipe, Nodes
from condensery.fitting import Adam, Constant, Drop, Held, Recipe, Sgd, accuracy
from condensery.net import Net
from condensery.recipes.tuning import tuned
from condensery.search import (
    Categorical,
    Cells,
    Config,
    Cost,
    Fitted,
    Float,
    GraphFamily,
    Grid,
    ImageFamily,
    ImageGround,
    Infeasible,
    Int,
    NodeGround,
    Random,
    Reinforce,
    Settings,
    Study,
    Trial,
    When,
    among_confirmed,
    best,
    confirm,
    explore,
    graph_networks,
    likelihood,
    node_likelihood,
    objective,
    trials_of,
)
from condensery.search.trials import DIVERGED, INFEASIBLE, PRUNED, read
from support import blobs, generator

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)

LINE = Settings({"x": Float(-1.0, 1.0), "y": Categorical((0.0, 0.5))})


def hill(config: Config, report: object = None) -> float:
    """Highest at x = 0.3, y = 0.5."""
    return 1.0 - abs(float(config["x"] or 0) - 0.3) - abs(float(config["y"] or 0) - 0.5)


def family(**network: object) -> ImageFamily:
    base = {"net": "ConvNet", "channels": 1, "classes": 3, "size": 8, "width": 4, "depth": 1, "norm": "none"}
    return ImageFamily({**base, **network})


def ground(**options: object) -> ImageGround:
    data = blobs()
    return ImageGround(family(), data, blobs(seed=1), Recipe(epochs=4, batch_size=12, optimizer=Sgd(0.1)), **options)  # type: ignore[arg-type]


# --- grounds
# ------------------------------------------------------------------------------------------------------------------


def test_a_ground_is_training_and_validation_by_the_configuration() -> None:
    config: Config = {"net.width": 6, "eval.lr": 0.2, "eval.schedule": "constant"}
    one = ground()
    from condensery import fit, nets

    net = Net(nets.build({**one.family.network, "width": 6}))
    recipe = tuned(one.recipe, {"lr": 0.2, "schedule": "constant"})
    wanted = accuracy(fit(net, one.train, recipe, generator(0)), one.validation)
    assert one(config) == wanted == one.fit(config, 0, one.validation).validation
    two = dataclasses.replace(one, seeds=(0, 1))
    assert two(config) == pytest.approx((one(config) + dataclasses.replace(one, seeds=(1,))(config)) / 2)
    assert one.fit(config, 0, one.train).test() == accuracy(fit(net, one.train, recipe, generator(0)), one.train)


def test_looks_are_reported_before_the_end() -> None:
    told: list[tuple[int, float]] = []
    two = ground(seeds=(0, 1), looks=3)
    score = two({}, lambda look, value: told.append((look, value)))
    assert [look for look, _ in told] == [0, 1, 2, 3, 4, 5]
    assert score == ground(seeds=(0, 1))({})
    assert told[0][1] <= told[2][1]


def test_the_likelihood_is_minus_the_cross_entropy() -> None:
    from condensery import fit

    one = ground()
    trained = fit(Net(one.family.module({})), one.train, one.recipe, generator())
    x, y = one.validation.batch(torch.arange(len(one.validation)))
    wanted = -torch.nn.functional.cross_entropy(trained(x), y)
    assert likelihood(trained, one.validation, batch_size=5) == pytest.approx(wanted.item(), rel=1e-5)
    rows = torch.nn.functional.one_hot(y, 3).float()
    assert likelihood(trained, Held(Batch(x, rows))) == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(ValueError, match="no examples to score"):
        likelihood(trained, Held(Batch(x[:0], y[:0])))


def test_a_network_that_cannot_be_built_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="needs images of at least"):
        ground()({"net.depth": 7})
    with pytest.raises(ValueError, match="at least one seed"):
        ground(seeds=())


def test_settings_are_laid_over_a_recipe() -> None:
    base = Recipe(epochs=7, batch_size=9, optimizer=Adam(3e-4, betas=(0.5, 0.9)), schedule=Drop(restart=False))
    assert tuned(base, {}) == base
    assert tuned(base, {"batch_size": 3}) == dataclasses.replace(base, batch_size=3)
    assert tuned(base, {"optimizer": "sgd"}).optimizer == Sgd(3e-4, weight_decay=0.0)
    assert tuned(base, {"drop_at": 0.7}).schedule == Drop(at=0.7)
    assert tuned(dataclasses.replace(base, steps=3), {"epochs": 2}).total_steps(9) == 2
    assert tuned(base, {"augment": "dsa"}).augment is not None
    with pytest.raises(ValueError, match="no setting 'rate'; it has augment"):
        tuned(base, {"rate": 1})


def test_a_space_is_checked_against_the_networks() -> None:
    space = Settings(
        {
            "net": Categorical(("convnet", "cellnet")),
            "net.code": When(Cells(), {"net": ("cellnet",)}),
            "eval.augment": Categorical(("none", "dsa")),
            "eval.lr": Float(1e-3, 1),
        },
        {"net.norm": "GROUP"},
    )
    typed = family().typed(space)
    assert typed.parameters["net"] == Categorical(("ConvNet", "CellNet"))
    assert typed.parameters["net.code"] == When(Cells(), {"net": ("CellNet",)})
    assert typed.parameters["eval.augment"] == Categorical((None, "dsa"))
    assert typed.fixed == {"net.norm": "group"}
    module = family().module({"net": "cellnet", "net.code": "333333", "net.width": 4, "net.stages": 1})
    assert type(module).__name__ == "CellNet"
    for wrong, sentence in (
        (Settings({"eval.rate": Float(0, 1)}), "no setting 'eval.rate'; there are net, eval.batch_size"),
        (Settings({"eval.epochs": Int(1, 9)}), "eval.epochs is not searched"),
        (Settings({"net.code": Cells()}), "no setting 'net.code'"),
        (Settings({"net": Categorical(("Nonet",))}), "no network 'Nonet'; choose from ConvNet"),
        (Settings({"net": Int(1, 2)}), "net takes choices"),
        (Settings({"net.norm": Categorical(("x",))}), "net.norm takes none, instance"),
        (Settings({"net.width": Float(1.5, 2.5)}), "net.width takes a whole number"),
        (Settings({"eval.lr": Cells()}), "eval.lr is not a cell"),
    ):
        with pytest.raises(ValueError, match=sentence):
            family().typed(wrong)


def two_kinds() -> Nodes:
    """Six nodes without edges, each with a feature of its own."""
    return Nodes(NodeInput(torch.eye(6), Adjacency.empty(6)), torch.tensor([0, 0, 0, 1, 1, 1]))


def test_graph_networks_are_tried_on_graphs() -> None:
    nodes, graphs = two_kinds(), GraphFamily({"net": "GCN", "width": 8, "features": 6, "classes": 2})
    here = NodeGround(graphs, nodes, nodes, NodeRecipe(steps=150))
    assert here({}) == 1.0 == here.fit({"net.depth": 2}, 0, nodes).test()
    assert here({"eval.lr": 0.0}) < 1.0
    by_loss = dataclasses.replace(here, measure=node_likelihood, seeds=(0, 1))
    each = [dataclasses.replace(by_loss, seeds=(seed,))({"net": "SAGE-max"}) for seed in (0, 1)]
    assert by_loss({"net": "SAGE-max"}) == pytest.approx(sum(each) / 2)
    assert 0 > by_loss({}) > -0.2 > by_loss({"eval.lr": 0.0})
    half = torch.full((6, 2), 0.5)
    assert dataclasses.replace(by_loss, validation=dataclasses.replace(nodes, y=half))({}) < by_loss({})
    with pytest.raises(ValueError, match="at least one seed; give one"):
        dataclasses.replace(here, seeds=())
    with pytest.raises(Infeasible, match="heads cannot share a width of 9"):
        here({"net": "GAT", "net.width": 9})


def test_the_loss_of_nodes_is_the_mean_cross_entropy() -> None:
    nodes, net = two_kinds(), cd.Net(cd.nets.GRAPH["GCN"](features=6, classes=2, width=8))
    theta = net.init(generator(0))
    with torch.no_grad():
        rows = net.at(theta)(nodes.x).log_softmax(1)
    assert node_likelihood(net, theta, nodes) == pytest.approx(float(rows.gather(1, nodes.y[:, None]).mean()))
    some = dataclasses.replace(nodes, index=torch.tensor([5]))
    assert node_likelihood(net, theta, some) == pytest.approx(float(rows[5, 1]))
    with pytest.raises(ValueError, match="no nodes to score on"):
        node_likelihood(net, theta, dataclasses.replace(nodes, index=torch.empty(0, dtype=torch.int64)))


def test_every_kind_of_graph_network_is_the_one_of_the_list() -> None:
    """By its name in a configuration, and in `candidates`."""
    graphs = GraphFamily({"net": "GCN", "features": 6, "classes": 2})
    x, made = two_kinds().x, dict(cd.nets.candidates(features=6, classes=2, widths=(8,), depths=(2,)))
    for config in graph_networks(widths=(8,), depths=(2,)).grid():
        found, listed = cd.Net(graphs.module(config)), cd.Net(made[f"{config['net']} 2x8"])
        theta = found.init(generator(1))
        assert torch.equal(theta, listed.init(generator(1)))
        with torch.no_grad():
            assert torch.equal(found.at(theta)(x), listed.at(theta)(x))


def test_a_space_is_checked_against_graph_networks() -> None:
    graphs = GraphFamily({"net": "GCN", "features": 6, "classes": 2})
    networks, schedules = Categorical(("sage-MAX", "gat", "SAGE")), Categorical(("DROP", "constant"))
    largest = When(Categorical(("MAX",)), {"net": ("SAGE",)})
    typed = graphs.typed(Settings({"net": networks, "eval.schedule": schedules, "net.aggregation": largest}))
    assert typed.parameters["net"] == Categorical(("SAGE-max", "GAT", "SAGE"))
    assert typed.parameters["net.aggregation"] == When(Categorical(("max",)), {"net": ("SAGE",)})
    for wrong, sentence in (
        (Settings({"eval.steps": Int(1, 9)}), "eval.steps is not searched: all networks are trained for"),
        (Settings({"eval.check_every": Int(1, 9)}), "eval.check_every is not searched: a search scores the last step"),
        (Settings({"eval.batch_size": Int(1, 9)}), "no setting 'eval.batch_size'; there are net, eval.optimizer"),
        (Settings({"net": Categorical(("ConvNet",))}), "no network 'ConvNet'; choose from GCN, SAGE"),
        (Settings({"net.aggregation": Categorical(("max",))}, {"net": "SAGE-max"}), "no setting 'net.aggregation'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            graphs.typed(wrong)
    base = NodeRecipe(steps=9, check_every=3)
    tuned = graphs.recipe({"eval.lr": 0.5, "eval.schedule": "constant", "net.width": 4}, base)
    assert tuned == NodeRecipe(9, Adam(0.5, weight_decay=5e-4), Constant(), check_every=3)


# --- strategies of our own
# ------------------------------------------------------------------------------------------------------------------


def test_a_stopped_search_goes_on_where_it_was(tmp_path: Path) -> None:
    strategies = {
        "grid": lambda: Grid(LINE, levels=4),
        "random": lambda: Random(LINE, generator(1)),
        "reinforce": lambda: Reinforce(LINE, generator(1), levels=4, width=8),
    }
    for name, make in strategies.items():
        whole = list(explore(make(), hill, 8))
        log, calls = tmp_path / f"{name}.jsonl", []

        def counted(config: Config, report: object = None, calls: list[Config] = calls) -> float:
            calls.append(config)
            return hill(config)

        for _ in zip(range(3), explore(make(), counted, 8, log=log), strict=False):
            pass
        with log.open("a") as file:
            file.write('{"number": 3, "config": {"x": 0')  # cut short by a crash
        again = list(explore(make(), counted, 8, log=log))
        assert [(t.config, t.score) for t in again] == [(t.config, t.score) for t in whole], name
        assert len(calls) == 8
        assert read(log) == again
    with pytest.raises(ValueError, match="the log of another search"):
        list(explore(Grid(LINE, levels=3), hill, 8, log=tmp_path / "grid.jsonl"))


def test_each_random_configuration_comes_once() -> None:
    few = Settings({"a": Int(1, 3), "b": Categorical((True, False))})
    found = list(explore(Random(few, generator()), lambda config, report: 0.0, 50))
    assert len(found) == 6 == len({json.dumps(t.config) for t in found})


def test_what_has_no_score_says_why() -> None:
    def odd(config: Config, report: object = None) -> float:
        if config["a"] == 1:
            raise Infeasible("no")
        return math.nan if config["a"] == 2 else 0.5

    found = list(explore(Grid(Settings({"a": Int(1, 3)})), odd, 9))
    assert [(t.score, t.why) for t in found] == [(None, INFEASIBLE), (None, DIVERGED), (0.5, "")]
    assert best(found, 5) == [found[2]]
    assert best(found[:2]) == []
    same = [dataclasses.replace(found[2], number=k, score=s) for k, s in enumerate((0.5, 0.6))]
    assert best(same, 5) == [same[1]]


def test_the_controller_finds_the_best_arm() -> None:
    """A hundred trials of 5 x 2 x 4 arms: the last quarter is far better than chance, and the policy has turned."""
    space = Settings({"x": Float(-1.0, 1.0), "y": Categorical((0.0, 0.5)), "z": Int(1, 4)})

    def reward(config: Config, report: object = None) -> float:
        return hill(config) + 0.1 * float(config["z"] or 0)

    gains = []
    for seed in range(2):
        scores = [t.score or 0.0 for t in explore(Reinforce(space, generator(seed), width=16), reward, 100)]
        gains.append(sum(scores[75:]) / 25 - sum(scores[:25]) / 25)
    assert min(gains) > 0.1
    level = [t.score or 0.0 for t in explore(Reinforce(space, generator(0), width=16, lr=1e-9), reward, 100)]
    assert abs(sum(level[75:]) / 25 - sum(level[:25]) / 25) < 0.15


def test_the_controller_leaves_alone_what_makes_nothing() -> None:
    space = Settings({"net.code": Cells("ns")})
    controller = Reinforce(space, generator(), width=8)
    found = [t.config["net.code"] for t in explore(controller, lambda config, report: 0.5, 20)]
    assert "nnnnnn" not in found
    assert len(found) == 20
    with pytest.raises(ValueError, match="above 0, and decay in"):
        Reinforce(space, generator(), decay=1.0)


def test_the_policy_gradient_is_reinforce() -> None:
    """At a learning rate towards zero the step is along A times the gradient of the log-probability (and entropy)."""
    controller = Reinforce(LINE, generator(), width=4, entropy=0.0)
    controller.ask()
    controller.baseline = 0.2
    logp, _ = controller._likelihood()
    parameters = list(controller._policy.parameters())
    wanted = torch.autograd.grad(-(0.9 - 0.2) * logp, parameters, allow_unused=True)
    controller.tell({}, 0.9)
    for p, g in zip(parameters, wanted, strict=True):
        assert (p.grad is None and g is None) or torch.allclose(p.grad, g, atol=1e-7)  # type: ignore[arg-type]
    assert controller.baseline == pytest.approx(0.9 * 0.2 + 0.1 * 0.9)


def test_the_global_generator_is_left_alone(untouched: None) -> None:
    list(explore(Reinforce(LINE, generator(), width=4), hill, 3))
    list(explore(Random(LINE, generator()), hill, 3))
    ground()({})


# --- Optuna
# ------------------------------------------------------------------------------------------------------------------


tpe = partial(optuna.samplers.TPESampler, n_startup_trials=3)


def test_any_study_runs_on_a_ground() -> None:
    for sampler in (optuna.samplers.RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0)):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective(LINE, hill), n_trials=15)
        found = trials_of(study)
        assert len(found) == 15
        assert all(t.score == hill(t.config) for t in found)
        assert best(found)[0].score == study.best_value


def test_a_study_prunes_by_the_looks() -> None:
    class Third(optuna.pruners.BasePruner):  # type: ignore[misc]
        def prune(self, study: object, trial: object) -> bool:
            return trial.number == 1 and trial.last_step >= 1  # type: ignore[attr-defined]

    study = optuna.create_study(direction="maximize", pruner=Third())
    study.optimize(objective(Settings({"eval.lr": Float(0.01, 0.1)}), ground(looks=3)), n_trials=3)
    found = trials_of(study)
    assert [t.why for t in found] == ["", PRUNED, ""]
    assert found[1].score is None
    assert found[1].config
    assert len(study.trials[1].intermediate_values) == 2
    assert found[1].cpu < found[0].cpu + 1


def test_infeasible_and_diverged_trials_are_pruned() -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(objective(Settings({"net.depth": Int(7, 7)}), ground()), n_trials=1)
    study.optimize(objective(LINE, lambda config, report: math.nan), n_trials=1)
    assert [t.why for t in trials_of(study)] == [INFEASIBLE, DIVERGED]


def test_a_study_that_was_stopped_makes_the_same_trials(tmp_path: Path) -> None:
    whole = Study(tmp_path / "whole.log", tpe, seed=5)
    list(whole.run(LINE, hill, 8))
    stopped, calls = Study(tmp_path / "stopped.log", tpe, seed=5), []

    def interrupted(config: Config, report: object = None) -> float:
        calls.append(config)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return hill(config)

    with pytest.raises(KeyboardInterrupt):
        list(stopped.run(LINE, interrupted, 8))
    again = Study(tmp_path / "stopped.log", tpe, seed=5)
    again.forget_interrupted()
    made = list(again.run(LINE, hill, 8))
    assert len(made) == 4
    other = Study(tmp_path / "other.log", tpe, seed=6)
    assert next(other.run(LINE, hill, 1)).config != whole.trials()[0].config
    assert [(t.config, t.score) for t in again.trials()] == [(t.config, t.score) for t in whole.trials()]
    assert list(again.run(LINE, hill, 8)) == []
    assert Study(tmp_path / "none.log", tpe).trials() == []


@pytest.mark.slow
def test_workers_share_a_study(tmp_path: Path) -> None:
    study = Study(tmp_path / "s.log", tpe, seed=1)
    assert sorted(study.run_workers(LINE, hill, 6, 2)) == [0, 1]
    found = study.trials()
    assert 6 <= len(found) <= 7  # both may begin the last one
    assert len({json.dumps(t.config) for t in found}) == len(found)


def test_without_optuna_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'condensery\[search\]', or search by grid"):
        objective(LINE, hill)


# --- confirmation
# ------------------------------------------------------------------------------------------------------------------


def chosen(*scores: float) -> list[Trial]:
    return [Trial(k, {"x": k}, score) for k, score in enumerate(scores)]


class Real:
    """Real data on which the second configuration is best; counts what is done."""

    def __init__(self) -> None:
        self.trained: list[tuple[object, int]] = []
        self.tested: list[object] = []

    def __call__(self, config: Config, seed: int) -> Fitted:
        self.trained.append((config["x"], seed))

        def test() -> float:
            self.tested.append(config["x"])
            return 0.9 + 0.01 * seed

        return Fitted(0.8 if config["x"] == 1 else 0.7, 1.0, test)


def test_only_the_winner_is_tested_and_once(tmp_path: Path) -> None:
    real, log = Real(), tmp_path / "c.json"
    *all_, winner = confirm(chosen(0.6, 0.5, 0.4), real, (3, 4), log=log)
    assert [one.validation.values for one in all_] == [(0.7, 0.7), (0.8, 0.8), (0.7, 0.7)]
    assert winner.config == {"x": 1}
    assert winner.test is not None
    assert winner.test.values == pytest.approx((0.93, 0.94))
    assert real.tested == [1, 1]
    again = list(confirm(chosen(0.6, 0.5, 0.4), real, (3, 4), log=log))
    assert again[-1] == winner
    assert len(real.trained) == 6
    assert real.tested == [1, 1]
    assert all(one.test is None for one in again[:-1])
    with pytest.raises(ValueError, match="has another winner that was tested already"):
        list(confirm(chosen(0.6), real, (3, 4), log=log))
    with pytest.raises(ValueError, match="2 networks for each configuration"):
        list(confirm(chosen(0.6), real, (3,), log=log))
    with pytest.raises(ValueError, match="at least one trial"):
        list(confirm([], real, (3,)))
    log.write_text("[{}]")
    with pytest.raises(ValueError, match="is damaged"):
        list(confirm(chosen(0.6), real, (3,), log=log))


def test_confirming_goes_on_after_an_interruption(tmp_path: Path) -> None:
    real, log = Real(), tmp_path / "c.json"
    steps = confirm(chosen(0.6, 0.5, 0.4), real, (3,), log=log)
    next(steps), next(steps)
    *_, winner = confirm(chosen(0.6, 0.5, 0.4), real, (3,), log=log)
    # The winner's network was lost with the first process, so it is trained once more.
    assert real.trained == [(0, 3), (1, 3), (2, 3), (1, 3)]
    assert real.tested == [1]
    assert winner.test is not None


def test_ties_on_validation_go_to_the_better_score() -> None:
    *_, winner = confirm(chosen(0.5, 0.2, 0.6), lambda config, seed: Fitted(0.7, 1.0, lambda: 0.5), (0,))
    assert winner.config == {"x": 2}


def test_the_agreement_of_the_confirmed() -> None:
    *all_, _ = confirm(chosen(0.6, 0.5, 0.4), Real(), (3,))
    assert among_confirmed(all_[:2], generator()) is None
    found = among_confirmed(all_, generator())
    assert found is not None
    assert found.selected.value == 0.7
    assert found.regret.value == pytest.approx(0.1)


def test_costs_add_up() -> None:
    cost = Cost(condensing=100, searching=20, confirming=30, trials=50, real_trial=4)
    assert (cost.spent, cost.on_real) == (150, 200)
    assert cost.searches_to_pay == pytest.approx(100 / 150)
    assert dataclasses.replace(cost, real_trial=1).searches_to_pay is None


def test_the_pieces_can_be_sent_to_workers() -> None:
    import pickle

    one = pickle.loads(pickle.dumps(partial(ground())))
    assert one({}) == ground()({})
