"""The file of a condensed log: what is written is read, damage is told in a sentence, and exports can be read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from condensery.bpr import Norms, Recipe, Squares
from condensery.data.interaction_files import read_log
from condensery.data.interactions import Log
from condensery.fitting import Adam, Sgd
from condensery.log_artifact import KIND, VERSION, Form, LogArtifact
from condensery.store import DamagedFile, load_tree, save_tree

NAMES = np.array(["ann", "bo, jr", 'say "hi"', "dörte", "nobody"])


def log_of(*, text: bool = True, columns: bool = False) -> Log:
    u, i = torch.tensor([0, 1, 1, 2, 3, 3]), torch.tensor([4, 0, 2, 2, 1, 4])
    rating = torch.tensor([1, 2.5, 0.1, 5, 3, 4]) if columns else None
    time = torch.tensor([1.6e9, 2, 3.25, 0.1, 5, 6], dtype=torch.float64) if columns else None
    return Log(u, i, NAMES if text else np.arange(5) * 7 + 3, np.arange(10, 16), rating, time, notes=("a note",))


def artifact(log: Log | None = None, **changes: Any) -> LogArtifact:
    settings: dict[str, Any] = {
        "log": log or log_of(),
        "ratio": 0.25,
        "full": 20,
        "form": Form.TOP,
        "recipe": Recipe(epochs=5, batch_size=None, optimizer=Adam(lr=0.01), penalty=Norms(0.1)),
        "dataset": "toy",
        "method": "dconrec",
        "options": {"estimator": {"samples": 4}, "dim": 8},
        "seed": 3,
        "split": {"split": "user", "seed": 2020},
        "proxy": {"ndcg@10": 0.2, "epochs": 12},
        "pseudo": 2,
        **changes,
    }
    return LogArtifact(**settings)


def rows(log: Log) -> list[tuple[object, ...]]:
    columns = [log.user_ids[log.users.numpy()].tolist(), log.item_ids[log.items.numpy()].tolist()]
    columns += [c.tolist() for c in (log.rating, log.time) if c is not None]
    return sorted(zip(*columns, strict=True))


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("columns", [True, False])
def test_what_is_written_is_read(text: bool, columns: bool, tmp_path: Path) -> None:
    for recipe in (artifact().recipe, Recipe(optimizer=Sgd(), penalty=Squares()), Recipe(penalty=None)):
        first = artifact(log_of(text=text, columns=columns), recipe=recipe, indices=torch.arange(6))
        first.save(tmp_path / "a.safetensors")
        again = LogArtifact.load(tmp_path / "a.safetensors")
        for name in ("users", "items", "rating", "time"):
            ours, theirs = (getattr(a.log, name) for a in (first, again))
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)
        assert again.log.user_ids.tolist() == first.log.user_ids.tolist()
        assert again.log.item_ids.tolist() == first.log.item_ids.tolist()
        assert again.indices is not None
        assert again.indices.tolist() == [0, 1, 2, 3, 4, 5]
        plain = ("ratio", "full", "form", "recipe", "dataset", "method", "options", "seed", "split", "proxy")
        for name in (*plain, "pseudo", "scores", "versions", "provenance"):
            assert getattr(again, name) == getattr(first, name), name
        assert again.log.notes == ("a note",)


def test_it_says_what_it_really_costs() -> None:
    twice = log_of().subset(torch.tensor([0, 0, 1]))
    assert artifact(twice).spent == {
        "interactions": 3,
        "share": 0.15,
        "asked": 0.25,
        "pseudo": 2,
        "distinct": 2,
        "users": 2,
        "items": 2,
    }
    assert "15.0 % of 20 for 25 % asked" in repr(artifact(twice))


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        artifact(ratio=0.0)
    with pytest.raises(ValueError, match="do not fit a log of 6 rows"):
        artifact(pseudo=7)
    with pytest.raises(ValueError, match="one for each of 6 rows"):
        artifact(indices=torch.arange(3))
    odd = replace(log_of(), user_ids=np.array([0.5, 1, 2, 3, 4]))
    with pytest.raises(ValueError, match="whole numbers or text"):
        artifact(odd).save(tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="convert it to plain data"):
        artifact(options={"a": object()}).save(tmp_path / "odd.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_files_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="check the path"):
        LogArtifact.load(path)
    artifact().save(path)
    good = load_tree(path, kind=KIND, version=VERSION)
    log = good["log"]
    lies: list[dict[str, Any]] = [
        {"log": {**log, "users": log["users"] + 3}},
        {"log": {**log, "items": log["items"][:2]}},
        {"log": {**log, "users": "all"}},
        {"log": {**log, "rating": [1.0]}},
        {"log": {**log, "user_ids": {**log["user_ids"], "lengths": log["user_ids"]["lengths"] + 1}}},
        {"log": {**log, "item_ids": {"numbers": torch.rand(6)}}},
        {"log": {**log, "item_ids": "none"}},
        {"recipe": {"type": "Popen"}},
        {"recipe": {"type": "Adam", "lr": 0.1}},
        {"form": "guessed"},
        {"ratio": "half"},
        {"options": [1]},
        {"indices": 3},
        {"full": 0},
    ]
    for lie in lies:
        save_tree(path, {**good, **lie}, kind=KIND, version=VERSION)
        with pytest.raises(DamagedFile, match="does not hold a usable condensed log"):
            LogArtifact.load(path)
    save_tree(path, good, kind="condensery-artifact", version=VERSION)
    with pytest.raises(DamagedFile, match="is not a condensery-log file"):
        LogArtifact.load(path)
    save_tree(path, good, kind=KIND, version=VERSION + 1)
    with pytest.raises(DamagedFile, match="upgrade"):
        LogArtifact.load(path)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("columns", [True, False])
def test_exports_are_read_as_the_same_log(text: bool, columns: bool, tmp_path: Path) -> None:
    log = log_of(text=text, columns=columns)
    made = artifact(log)
    files = [made.export_csv(tmp_path / "a.csv"), made.export_parquet(tmp_path / "a.parquet")]
    plain = log if not text else replace(log, user_ids=np.array(["ann", "bo", "cy", "dörte", "nobody"]))
    for file in files:
        assert rows(read_log(file)) == rows(log), file.name
    assert rows(read_log(artifact(plain).export_inter(tmp_path / "a.inter"))) == rows(plain)
    assert (tmp_path / "a.inter").read_text(encoding="utf-8").startswith("user_id:token\titem_id:token")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.inter", "a.parquet"]


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.inter"
    path.write_text("old")
    broken = replace(log_of(), user_ids=np.array(["a\tb", "c", "d", "e", "f"]))
    with pytest.raises(ValueError, match="export parquet instead"):
        artifact(broken).export_inter(path)
    broken = replace(log_of(), user_ids=np.array(["a\nb", "c", "d", "e", "f"]))
    with pytest.raises(ValueError, match="export parquet instead"):
        artifact(broken).export_csv(tmp_path / "a.csv")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.inter"]


def test_many_rows_are_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("condensery.log_artifact._ROWS", 4)
    made = artifact(log_of(text=False, columns=True))
    assert rows(read_log(made.export_csv(tmp_path / "a.csv"))) == rows(made.log)
