"""Runs on recommendation logs: the same log whether or not they were stopped, the published forms, readings, scores."""

from __future__ import annotations

import gzip
import json
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from condensery import bpr, catalog, log_runs
from condensery.condensed_log import Compensation
from condensery.data.interactions import Log, LogData
from condensery.evaluate.topk import top_k
from condensery.journal import read
from condensery.log_artifact import Form, LogArtifact
from condensery.log_runs import LogSource, Model
from condensery.masks import Reinforce
from condensery.methods import dconrec
from condensery.nets.recommender import MF
from condensery.recipes import logs, values
from condensery.runs import Folder, Progress, Watch

TINY = ["proxy.epochs=2", "proxy.dim=4", "eval.epochs=10", "eval.dim=4", "eval.lr=0.05"]
OWN = {"dconrec": ["inner.dim=4"], "doscond-rec": ["dim=4", "pseudo=0.5"]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of a small log with ratings and times."""
    path = tmp_path_factory.mktemp("table") / "ratings.csv"
    g = torch.Generator().manual_seed(0)
    pairs = torch.randperm(30 * 20, generator=g)[:260].tolist()
    rows = [f"u{p // 20},{p % 20},{1 + n % 5},{n}" for n, p in enumerate(pairs)]
    path.write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def source(table: Path) -> LogSource:
    return LogSource(str(table))


@pytest.fixture(scope="module")
def data(source: LogSource) -> LogData:
    return log_runs.open_log(source)


def plan_of(method: str = "dconrec", *settings: str, ratio: float = 0.5) -> logs.LogPlan:
    return logs.load(method, "", ratio, overrides=["threshold=3", *TINY, *OWN[method], *settings])


def start(
    plan: logs.LogPlan, data: LogData, source: LogSource, path: Path, *, resume: bool = False
) -> tuple[log_runs.LogRun, Folder]:
    folder = Folder(path)
    folder.claim(log_runs.settings(plan, source, data, seed=1), resume=resume)
    proxy = log_runs.find_proxy(plan, data, folder, seed=1)
    return log_runs.build(plan, data, seed=1, proxy=proxy), folder


def whole(plan: logs.LogPlan, data: LogData, source: LogSource, path: Path, watch: Watch | None = None) -> LogArtifact:
    run, folder = start(plan, data, source, path)
    list(log_runs.advance(run, folder, watch))
    return log_runs.finish(run, folder, source)


# --- runs


@pytest.mark.parametrize("settings", [("dconrec",), ("dconrec", "estimator=authors"), ("doscond-rec",)])
def test_a_run_that_was_stopped_gives_the_same_log_and_each_step_once(
    settings: tuple[str, ...], data: LogData, source: LogSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(*settings, "steps=7")
    expected = whole(plan, data, source, tmp_path / "whole")
    run, folder = start(plan, data, source, tmp_path / "stopped")
    steps: Iterator[Progress] = log_runs.advance(run, folder, Watch(snapshot_every=2))
    for _ in range(5):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert not folder.finished
    # The proxy is not trained again.
    monkeypatch.setattr(log_runs, "_trained_proxy", lambda *_: pytest.fail("the proxy was trained twice"))
    run, folder = start(plan, data, source, tmp_path / "stopped", resume=True)
    assert [p.step for p in log_runs.advance(run, folder, Watch(snapshot_every=2))] == [5, 6, 7]
    found = log_runs.finish(run, folder, source)
    assert torch.equal(found.log.keys, expected.log.keys)
    logged = [[(e.step, e.loss) for e in read(tmp_path / name / "log.jsonl")] for name in ("whole", "stopped")]
    assert logged[0] == logged[1]
    assert [step for step, _ in logged[0]] == list(range(1, 8))
    stored = LogArtifact.load(folder.artifact)
    assert torch.equal(stored.log.keys, found.log.keys)
    assert not list((tmp_path / "stopped").glob(".*"))


def test_looking_changes_nothing_and_the_global_generator_is_left_alone(
    data: LogData, source: LogSource, tmp_path: Path, untouched: None
) -> None:
    plan = plan_of("dconrec", "steps=3")
    blind = whole(plan, data, source, tmp_path / "a")
    seeing = whole(plan, data, source, tmp_path / "b", Watch(snapshot_every=1, eval_every=2))
    assert torch.equal(blind.log.keys, seeing.log.keys)
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 3]


def test_a_folder_is_not_mixed_up(data: LogData, source: LogSource, tmp_path: Path) -> None:
    plan = plan_of("dconrec", "steps=1")
    whole(plan, data, source, tmp_path / "a")
    with pytest.raises(ValueError, match="holds a run already; add --resume"):
        start(plan, data, source, tmp_path / "a")
    with pytest.raises(ValueError, match=r"has plan.ratio = 0.5, not 0.4"):
        start(plan_of("dconrec", "steps=1", ratio=0.4), data, source, tmp_path / "a", resume=True)
    less = replace(data, train=data.train.subset(torch.arange(len(data.train) - 1)))
    with pytest.raises(ValueError, match="has log = "):
        start(plan, less, source, tmp_path / "a", resume=True)


def test_the_proxy_of_other_settings_or_a_damaged_one_is_trained_again(
    data: LogData, source: LogSource, tmp_path: Path
) -> None:
    first, _ = start(plan_of("dconrec", "steps=2"), data, source, tmp_path / "a")
    other = plan_of("dconrec", "steps=2", "proxy.dim=5")
    second, folder = start(other, data, source, tmp_path / "a")  # nothing was begun: the folder is free
    assert (first.proxy["dim"], second.proxy["dim"]) == (4, 5)
    (folder.path / "proxy.safetensors").write_bytes(b"cut short")
    third, _ = start(other, data, source, tmp_path / "a")
    assert torch.equal(second.synthetic.items, third.synthetic.items)


def test_the_artifact_tells_all(data: LogData, source: LogSource, tmp_path: Path) -> None:
    made = whole(plan_of("dconrec", "steps=2", "keep=top"), data, source, tmp_path / "a")
    assert (made.form, len(made.log), made.full) == (Form.TOP, round(0.5 * len(data.train)), len(data.train))
    assert made.pseudo == sum(
        not bool(data.train.contains(u, i)) for u, i in zip(made.log.users, made.log.items, strict=True)
    )
    assert made.options["inner"]["dim"] == 4
    assert made.provenance["steps"] == 2
    assert made.proxy["epochs"] == 2
    recorded = LogArtifact.load(tmp_path / "a" / "artifact.safetensors").provenance["data"]
    again = log_runs.open_log(LogSource(recorded["spec"], recorded["root"], logs.reading(recorded)))
    assert log_runs.digest_of(again) == log_runs.digest_of(data)
    log_runs.check_ids(made, again)
    with pytest.raises(ValueError, match="give with --data the log that it was made from"):
        log_runs.check_ids(made, log_runs.open_log(LogSource("generated-log")))


def test_a_budget_that_the_tail_exceeds_is_refused_before_the_proxy(data: LogData) -> None:
    log_runs.check_budget(plan_of(), data)
    with pytest.raises(ValueError, match="set a lower threshold"):
        log_runs.check_budget(plan_of("dconrec", "threshold=50"), data)
    log_runs.check_budget(plan_of("dconrec", "threshold=50", "compensation=added"), data)


# --- plans


def built(data: LogData, *settings: str) -> tuple[dconrec.DConRec, dconrec.Setting]:
    """What a plan without further settings makes of an estimator's word."""
    plan = logs.load("dconrec", "", 0.5, overrides=[*settings])
    setting = dconrec.Setting(
        **{  # type: ignore[arg-type]
            **plan.pool,
            "tail_of": dconrec.TailOf(str(plan.pool["tail_of"])),
            "compensation": Compensation(str(plan.pool["compensation"])),
            "begin": dconrec.Begin(str(plan.pool["begin"])),
        }
    )
    model = MF(data.num_users, data.num_items, 4)
    model.reset_parameters(torch.Generator().manual_seed(0))
    easy = replace(plan, pool={**plan.pool, "threshold": 0})
    objective = log_runs.build(easy, data, proxy=log_runs.Proxy(model, {})).objective
    assert isinstance(objective, dconrec.DConRec)
    return objective, setting


@pytest.mark.parametrize(
    ("word", "form", "setting"),
    [
        ("reinforce", dconrec.DConRec, dconrec.Setting()),
        ("paper", dconrec.paper, dconrec.Setting.paper()),
        ("authors", dconrec.authors, dconrec.Setting.authors()),
    ],
)
def test_the_words_for_estimators_are_the_library_s_forms(
    word: str, form: type, setting: dconrec.Setting, data: LogData
) -> None:
    found, pool = built(data, f"estimator={word}")
    expected = form(data.train, data.validation, torch.Generator())
    for name in ("estimator", "outer", "decay", "dim", "accumulate"):
        assert getattr(found, name) == getattr(expected, name), name
    trained = {f.name for f in fields(bpr.Recipe)} - {"patience", "every"}  # nothing stops the inner training early
    assert all(getattr(found.inner, name) == getattr(expected.inner, name) for name in trained)
    assert pool == setting


def test_the_default_estimator_is_ours_and_says_so(data: LogData) -> None:
    found, pool = built(data)
    assert found.estimator == dconrec.FirstOrder(1, margin=0.01)
    assert pool == dconrec.Setting(threshold=0, begin=dconrec.Begin.PROXY)
    assert any("not the paper's" in said for said in logs.load("dconrec", "", 0.25).origin)
    assert not any(
        "not the paper's" in said for said in logs.load("dconrec", "", 0.25, overrides=["estimator=paper"]).origin
    )
    single = built(data, "estimator=paper", "lr=0.3", "samples=2", "leave_one_out=true")[0]
    assert (single.outer.lr, single.estimator) == (0.3, Reinforce(2, leave_one_out=True))


@pytest.mark.parametrize("name", ["logs", *catalog.LOG_METHODS])
def test_recipe_files_hold_names_that_there_are(name: str) -> None:
    assert tomllib.loads(files("condensery.recipes").joinpath(f"{name}.toml").read_text())["source"]
    for rule in logs._read(name)["rule"]:
        kinds = logs._kinds("dconrec" if name == "logs" else name)
        assert all(key in kinds[section] for section in kinds if section in rule for key in rule[section])


@pytest.mark.parametrize("method", [*catalog.LOG_METHODS, *catalog.LOG_CORESETS])
def test_every_setting_has_a_kind_that_text_can_give(method: str) -> None:
    for section, kinds in logs.settable(method).items():
        for name, (kind, default) in kinds.items():
            assert values.known(kind), name
            assert values.read(values.said(default), kind, name) == default, name
            assert logs.full_name(section, name) in logs.names(method)
    assert catalog.log_entry(method).load()
    for dataset in (*catalog.LOGS, "mine.csv"):
        assert logs.load(method, dataset, 0.5).evaluation.recipe().epochs == 300


def test_a_budget_is_a_share_of_the_steps() -> None:
    plan = logs.load("dconrec", "", 0.25)
    assert (plan.steps, plan.with_budget(0.1).steps, plan.with_budget(0.1).budget) == (30, 3, 0.1)
    with pytest.raises(ValueError, match="is no share"):
        plan.with_budget(0)
    assert logs.load("random", "", 0.25).with_budget(0.5).steps == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["estimtor=paper"], r"did you mean estimator\?"),
        (["estimator=best"], "estimator takes first-order, reinforce, paper or authors, not 'best'"),
        (["common=true"], "set estimator=reinforce"),
        (["estimator=reinforce", "samples=1"], "give a number of at least 2"),
        (["core=0"], "core is 0"),
        (["validation=0.6", "test=0.6"], "give shares above 0 that sum below 1"),
        (["steps=0"], "give 1 or more"),
        (["inner.batch_size=0"], "batch_size 0; give numbers of at least 1"),
        (["eval.lr=0"], "give a rate above 0"),
        (["pseudo=-1"], "give numbers of at least 0"),
    ],
)
def test_bad_settings_are_named(settings: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        logs.load("dconrec", "", 0.25, overrides=settings)


# --- reading


def reading(**options: object) -> logs.Reading:
    return logs.Reading(**options)  # type: ignore[arg-type]


def test_tables_of_all_kinds_give_the_same_log(table: Path, data: LogData, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress("\n".join(lines).replace(",", "\t").encode()))
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (tmp_path / "a.inter").write_text("\n".join([header, *(line.replace(",", "\t") for line in lines[1:])]))
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "u.data").write_text("\n".join(line.replace(",", "\t") for line in lines[1:]))
    artifact = LogArtifact(data.train, 1.0, len(data.train), Form.TOP, bpr.Recipe(), "x", "y")
    artifact.export_parquet(tmp_path / "part.parquet")
    for name in ("a.tsv.gz", "a.inter", "ml"):
        assert catalog.is_log(str(tmp_path / name))
        assert log_runs.digest_of(log_runs.open_log(LogSource(str(tmp_path / name)))) == log_runs.digest_of(data)
    part = log_runs.open_log(LogSource(str(tmp_path / "part.parquet")))
    assert len(part.train) + len(part.validation) + len(part.test) == len(data.train)
    named = tmp_path / "odd.csv"
    named.write_text("\n".join([lines[0].replace("user_id", "who"), *lines[1:]]))
    with pytest.raises(ValueError, match="--set user_column=NAME"):
        log_runs.open_log(LogSource(str(named)))
    for column in ("who", "0"):
        found = log_runs.open_log(LogSource(str(named), reading=reading(user_column=column)))
        assert log_runs.digest_of(found) == log_runs.digest_of(data)


def test_ratings_cores_and_splits(table: Path) -> None:
    def opened(**options: object) -> LogData:
        return log_runs.open_log(LogSource(str(table), reading=reading(**options)))

    liked = opened(min_rating=4)
    assert all(
        float(log.rating.min()) >= 4 for log in (liked.train, liked.validation, liked.test) if log.rating is not None
    )
    core = opened(core=6)
    total = core.train.user_counts + core.validation.user_counts + core.test.user_counts
    assert int(total.min()) >= 6
    out = opened(split="leave-one-out")
    assert (out.how["split"], out.how["by_time"]) == ("leave-one-out", True)
    assert int(out.test.user_counts.max()) == 1
    late = opened(split="time")
    assert late.train.time is not None
    assert late.test.time is not None
    assert float(late.train.time.max()) < float(late.test.time.min())
    assert opened(split="latest").how["by_time"]
    seeds = [log_runs.digest_of(opened(split_seed=s)) for s in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    with pytest.raises(ValueError, match="No row is rated 9 or more"):
        opened(min_rating=9)
    with pytest.raises(ValueError, match="without a split of its own"):
        opened(split="given")


def test_a_folder_that_is_split_already(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(
        "".join(f"{u} {' '.join(str((u + k) % 9) for k in range(6))}\n" for u in range(9))
    )
    (tmp_path / "test.txt").write_text("".join(f"{u} {(u + 7) % 9}\n" for u in range(9)))
    assert catalog.is_log(str(tmp_path))
    found = log_runs.open_log(LogSource(str(tmp_path), reading=reading(split="given")))
    assert len(found.test) == 9
    assert len(found.train) + len(found.validation) == 54
    with pytest.raises(ValueError, match="already; leave core out"):
        log_runs.open_log(LogSource(str(tmp_path), reading=reading(core=2)))


def test_what_is_no_log_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"did you mean generated-log\?"):
        log_runs.open_log(LogSource("generatedlog"))
    with pytest.raises(ValueError, match=r"which .+ is not; leave it out"):
        log_runs.open_log(LogSource(str(table), root=str(tmp_path)))
    with pytest.raises(ValueError, match="is generated and has no files"):
        log_runs.open_log(LogSource("generated-log", root=str(tmp_path)))
    bare, few = tmp_path / "bare.csv", tmp_path / "few.csv"
    bare.write_text("\n".join(",".join(line.split(",")[:2]) for line in table.read_text().splitlines()))
    few.write_text("user,item\n1,2\n2,3\n")
    with pytest.raises(ValueError, match="no times to split by; set split=random"):
        log_runs.open_log(LogSource(str(bare), reading=reading(split="time")))
    with pytest.raises(ValueError, match="leaves nothing to validate on"):
        log_runs.open_log(LogSource(str(few)))


# --- selections and scores


@pytest.mark.parametrize(
    "settings",
    [
        ("random",),
        ("majority",),
        ("majority", "head=true"),
        ("svp", "passes=2", "proxy.dim=4"),
        ("svp", "level=user", "passes=1"),
    ],
)
def test_selections_have_exactly_the_budget(settings: tuple[str, ...], data: LogData, source: LogSource) -> None:
    plan = logs.load(settings[0], "", 0.3, overrides=settings[1:])
    made = [log_runs.select(plan, data, source, seed=seed) for seed in (0, 0, 1)]
    assert [len(one.log) for one in made] == [round(0.3 * len(data.train))] * 3
    assert torch.equal(made[0].log.keys, made[1].log.keys)
    assert not torch.equal(made[0].log.keys, made[2].log.keys)
    assert made[0].indices is not None
    assert torch.equal(data.train.keys[made[0].indices], made[0].log.keys)
    assert (made[0].form, made[0].pseudo) == (Form.SELECTED, 0)


def test_what_a_proxy_thinks_best_is_unrecorded_to_a_share(data: LogData, source: LogSource) -> None:
    plan = logs.load("proxy-best", "", 0.3, overrides=["proxy.epochs=3", "proxy.dim=4", "unseen=0.25"])
    told: list[int] = []
    made = log_runs.select(plan, data, source, tell=lambda epoch, score: told.append(epoch))
    budget = round(0.3 * len(data.train))
    assert (len(made.log), made.pseudo, made.indices) == (budget, round(budget / 4), None)
    assert told == [1, 2, 3]
    assert made.proxy["dim"] == 4
    whole = logs.load("proxy-best", "", 0.3, overrides=["proxy.epochs=3", "proxy.dim=4", "unseen=0"])
    assert log_runs.select(whole, data, source).pseudo == 0


ASKED = ["proxy.epochs=3", "proxy.dim=4", "eval.epochs=10", "eval.dim=4", "eval.lr=0.05"]


def test_the_validation_log_says_how_much_is_to_be_unseen(data: LogData, source: LogSource, tmp_path: Path) -> None:
    plan = logs.load("proxy-best", "", 0.3, overrides=ASKED)
    assert plan.asks_validation
    told: list[object] = []
    made = log_runs.select(plan, data, source, tell=lambda epoch, score: told.append(score))
    assert "validation chooses" in str(told[-1])
    scores = made.proxy["unseen_scores"]
    assert list(scores) == ["0", "0.25", "0.5"]
    assert len(set(scores.values())) > 1
    assert made.proxy["unseen"] == float(max(scores, key=scores.__getitem__))
    assert made.pseudo == round(made.proxy["unseen"] * len(made.log))
    condensing = logs.load("dconrec", "", 0.3, overrides=[*ASKED, "steps=1"])
    assert condensing.asks_validation
    folder = Folder(tmp_path)
    proxy = log_runs.find_proxy(condensing, data, folder)
    assert proxy is not None
    assert proxy.facts["unseen_scores"] == scores
    again = log_runs.find_proxy(condensing, data, folder, tell=lambda *_: pytest.fail("trained again"))
    assert again is not None
    assert again.facts == proxy.facts
    other = logs.load("dconrec", "", 0.4, overrides=[*ASKED, "steps=1"])
    found = log_runs.find_proxy(other, data, folder)  # another size is another question
    assert found is not None
    assert found.facts["unseen_scores"] != scores


def test_a_run_begins_with_the_share_that_was_asked_for(data: LogData, tmp_path: Path) -> None:
    shares = []
    for share in (0.0, 0.5):
        plan = logs.load("dconrec", "", 0.3, overrides=[*ASKED, f"unseen={share}"])
        proxy = log_runs.find_proxy(plan, data, Folder(tmp_path))
        kept = log_runs.build(plan, data, proxy=proxy).synthetic
        likely = kept.scores.detach() > 0.9
        assert int(likely.sum()) == round(0.3 * len(data.train))
        shares.append(float((likely & kept.source).sum() / likely.sum()))
    assert shares == pytest.approx([0.0, 0.5], abs=0.01)
    even = logs.load("dconrec", "", 0.3, overrides=["begin=even"])
    assert not even.asks_validation
    assert even.unseen is None
    with pytest.raises(ValueError, match="unseen is for a start at the proxy's best; set begin=proxy"):
        logs.load("dconrec", "", 0.3, overrides=["begin=even", "unseen=0.5"])


def test_rows_of_single_recommenders_merge_to_those_of_the_library(data: LogData) -> None:
    recipe, model = bpr.Recipe(epochs=3, batch_size=64), Model("MF", 4)
    rows = list(log_runs.trained_on(data.train, data, model, recipe, name="full log", n=3, seed=5))
    found = log_runs.merged(rows)
    expected = top_k(data.train, data, build=model.build, recipe=recipe, seeds=(5, 6, 7), name="full log")
    assert (found.name, found.model, found.scores, found.size) == ("full log", "MF", expected.scores, expected.size)
    assert found.validation == expected.validation


def test_random_parts_differ_and_have_the_size_that_was_realised(data: LogData) -> None:
    drawn: list[Log] = []
    draw = log_runs.random_part(data, 40)

    def seen(generator: torch.Generator) -> Log:
        drawn.append(draw(generator))
        return drawn[-1]

    rows = list(log_runs.trained_on(seen, data, Model("LightGCN", 4, 2), bpr.Recipe(epochs=1), name="random", n=2))
    assert [row.size["interactions"] for row in rows] == [40, 40]
    assert rows[0].model == "LightGCN"
    assert not torch.equal(drawn[0].keys, drawn[1].keys)
    assert len(log_runs.random_part(data, 10**9)(torch.Generator())) == len(data.train)
