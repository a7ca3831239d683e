"""Files: whole or not at all, exact, and never trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensery.store import DamagedFile, load_tree, save_tree, write_text

TREE: dict[str, Any] = {
    "number": 3,
    "small": 1e-308,
    "none": None,
    "flag": True,
    "text": "é \n",
    "nested": {"list": [1, torch.arange(5), {"deep": torch.eye(2, dtype=torch.float64)}], "pair": (1, (2.5, "x"))},
    "optimizer": {0: {"momentum": torch.randn(3, generator=torch.Generator().manual_seed(0))}, 1: {}},
    "empty": torch.zeros(0, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "scalar": torch.tensor(2.0),
    "state": torch.Generator().manual_seed(5).get_state(),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def test_round_trip_is_exact(tmp_path: Path) -> None:
    save_tree(tmp_path / "a", TREE, kind="k", version=2)
    assert same(load_tree(tmp_path / "a", kind="k", version=2), TREE)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
        max_leaves=12,
    )
)
def test_any_plain_tree_comes_back(value: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        save_tree(path, {"value": value}, kind="k", version=1)
        assert same(load_tree(path, kind="k", version=1), {"value": value})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_tree(path, {"x": 1}, kind="k", version=1)
    with pytest.raises(ValueError, match=r"tree\.x holds a object, which a file cannot carry"):
        save_tree(path, {"x": object()}, kind="k", version=1)
    assert load_tree(path, kind="k", version=1) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_other_kinds_versions_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_tree(path, {}, kind="apple", version=3)
    with pytest.raises(DamagedFile, match="is not a pear file"):
        load_tree(path, kind="pear", version=3)
    with pytest.raises(DamagedFile, match="has layout version 3, this condensery reads up to 2; upgrade"):
        load_tree(path, kind="apple", version=2)
    assert load_tree(path, kind="apple", version=4) == {}
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_tree(tmp_path / "b", kind="apple", version=3)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_changed_file_is_never_believed(data: st.DataObject) -> None:
    """Any byte flipped, any length cut: an error of ours, or the very same tree (a flip in padding)."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        save_tree(path, TREE, kind="k", version=1)
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        else:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        try:
            tree = load_tree(path, kind="k", version=1)
        except DamagedFile as error:
            assert "\n" not in str(error)
        else:
            assert same(tree, TREE)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_one_sentence(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(content)
        with pytest.raises(DamagedFile) as caught:
            load_tree(path, kind="k", version=1)
        assert "\n" not in str(caught.value)


def test_write_text_replaces(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "one")
    write_text(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1
