"""Search spaces: values, conditions, grids, and the files that they are read from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condensery.nets.cells import Cell
from condensery.search import (
    Categorical,
    Cells,
    Config,
    Float,
    Infeasible,
    Int,
    Settings,
    When,
    graph_networks,
    read_space,
    space_from,
    space_to,
)
from support import generator

SPACE = Settings(
    {
        "eval.optimizer": Categorical(("sgd", "adam")),
        "eval.lr": Float(1e-3, 1e-1, log=True),
        "eval.momentum": When(Float(0.0, 0.9, step=0.3), {"eval.optimizer": ("sgd",)}),
        "net.width": Int(8, 64, log=True),
    },
    {"net.norm": "group"},
)


class Scripted:
    """A trial that suggests what it was told, and remembers what it was asked."""

    def __init__(self, **values: object) -> None:
        self.values, self.asked = values, []  # type: ignore[var-annotated]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked.append((name, low, high, step, log))
        return self.values.get(name, low)  # type: ignore[return-value]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked.append((name, low, high, step, log))
        return self.values.get(name, low)  # type: ignore[return-value]

    def suggest_categorical(self, name: str, choices: tuple[object, ...]) -> object:
        self.asked.append((name, choices))
        return self.values.get(name, choices[0])


def test_a_trial_is_asked_for_what_matters() -> None:
    trial = Scripted()
    assert SPACE.suggest(trial) == {
        "net.norm": "group",
        "eval.optimizer": "sgd",
        "eval.lr": 1e-3,
        "eval.momentum": 0.0,
        "net.width": 8,
    }
    assert trial.asked[1:] == [
        ("eval.lr", 1e-3, 1e-1, None, True),
        ("eval.momentum", 0.0, 0.9, 0.3, False),
        ("net.width", 8, 64, 1, True),
    ]
    other = Scripted(**{"eval.optimizer": "adam"})
    assert "eval.momentum" not in SPACE.suggest(other)
    assert len(other.asked) == 3


def test_the_grid_is_every_combination_once() -> None:
    found = list(SPACE.grid(levels=3))
    # sgd: 3 rates x 3 momenta (of 0, 0.3, 0.6, 0.9) x 3 widths; adam: 3 x 3
    assert len(found) == 27 + 9 == len({json.dumps(c) for c in found})
    assert [c["net.width"] for c in found[:4]] == [8, 23, 64, 8]
    assert {c["eval.lr"] for c in found} == {0.001, 0.01, 0.1}
    assert sum(1 for _ in graph_networks().grid()) == 40
    assert next(graph_networks().grid()) == {"net": "GCN", "net.width": 128, "net.depth": 2}


def test_the_grid_of_cells_leaves_out_what_computes_nothing() -> None:
    codes = [str(c["net.code"]) for c in Settings({"net.code": Cells("n3")}).grid()]
    assert codes == [c.code for c in Cell.all() if set(c.code) <= {"n", "3"} and c.connected]
    with pytest.raises(Infeasible, match="nnnnnn does not depend"):
        Settings({"net.code": Cells()}).suggest(Scripted())
    assert Settings({"net.code": Cells()}).suggest(Scripted(**{"net.code.03": "s"})) == {"net.code": "nnnsnn"}
    assert all(Cell(str(Cells("ns").draw(generator(k)))).connected for k in range(20))


def test_draws_are_spread_over_the_range() -> None:
    g = generator()
    logs = sorted(math.log10(float(Float(1e-4, 1e-1, log=True).draw(g) or 0)) for _ in range(2000))
    assert logs[0] > -4
    assert logs[-1] < -1
    assert logs[1000] == pytest.approx(-2.5, abs=0.1)
    assert {Int(3, 9, step=3).draw(g) for _ in range(50)} == {3, 6, 9}
    assert {Float(0, 1, step=0.5).draw(g) for _ in range(50)} == {0.0, 0.5, 1.0}
    widths = [Int(1, 100, log=True).draw(g) for _ in range(2000)]
    assert min(widths) == 1
    assert max(widths) <= 100  # type: ignore[type-var]
    assert 0.4 < sum(w <= 10 for w in widths) / 2000 < 0.65  # type: ignore[operator]
    assert {Categorical((True, 1, "x", None)).draw(g) for _ in range(50)} >= {"x", None}
    assert SPACE.draw(generator(3)) == SPACE.draw(generator(3))


def test_levels() -> None:
    assert Float(0, 1).values(1) == (0.5,)
    assert Float(2, 2).values(4) == (2,)
    assert Float(0, 1).values(3) == (0, 0.5, 1)
    assert Int(1, 3).values(10) == (1, 2, 3)
    assert Int(1, 9).values(1) == (5,)
    assert Int(1, 4, log=True).values(9) == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="cannot be cut into 0 levels"):
        Int(1, 9).values(0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Float(1, 0), "has no value"),
        (lambda: Float(0, math.inf), "has no value"),
        (lambda: Float(0, 1, log=True), "low above 0 and no step"),
        (lambda: Float(0, 1, step=0), "cannot have the step 0"),
        (lambda: Int(1, 2.5), "whole numbers"),
        (lambda: Int(2, 1), "has no value"),
        (lambda: Int(1, 4, log=True, step=2), "no step"),
        (lambda: Categorical(()), "at least one"),
        (lambda: Categorical((1, 1)), "none twice"),
        (lambda: Cells("nx"), "no operations of a cell"),
        (lambda: Cells("n"), "computes nothing"),
        (lambda: Settings({}), "no setting to search"),
        (lambda: Settings({"a": Int(1, 2)}, {"a": 1}), "both fixed and searched"),
        (
            lambda: Settings({"a": Categorical(("x", "y")), "b": When(Int(1, 2), {"a": ("z",)})}),
            "b depends on a being 'z', which it never is",
        ),
        (lambda: Settings({"b": When(Int(1, 2), {"a": (2,)})}, {"a": 1}), "being 2, which it never is"),
        (lambda: Settings({"a": When(Int(1, 2), {"b": (1,)}), "b": Int(1, 2)}), "does not stand before it"),
    ],
)
def test_what_is_no_space_is_refused(make: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()  # type: ignore[operator]


def test_conditions_tell_true_from_one() -> None:
    space = Settings({"a": Categorical((True, 1)), "b": When(Int(1, 1), {"a": (1,)})})
    assert list(space.grid()) == [{"a": True}, {"a": 1, "b": 1}]
    nested = Settings({"a": Categorical((1, 2)), "b": When(Int(1, 1), {"a": (1,)}), "c": When(Int(3, 3), {"b": (1,)})})
    assert list(nested.grid()) == [{"a": 1, "b": 1, "c": 3}, {"a": 2}]


TOML = """
[eval.optimizer]
choices = ["sgd", "adam"]

[eval.lr]
float = [0.001, 0.1]
log = true

["eval.momentum"]
float = [0, 0.9]
step = 0.3
when = { eval.optimizer = "sgd" }

[net]
choices = ["ConvNet"]

[net.width]
int = [8, 64]
log = true

[net.code]
cells = "ns3"

[net.norm]
value = "group"
"""


def test_a_file_is_read_and_written_back(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(TOML)
    space = read_space(path)
    assert space.fixed == {"net.norm": "group"}
    assert list(space.parameters) == ["eval.optimizer", "eval.lr", "eval.momentum", "net", "net.width", "net.code"]
    assert space.parameters["eval.momentum"] == When(Float(0.0, 0.9, step=0.3), {"eval.optimizer": ("sgd",)})
    assert space.parameters["net.width"] == Int(8, 64, log=True)
    again = tmp_path / "space.json"
    again.write_text(json.dumps(space_to(space)))
    assert read_space(again) == space


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        ([], "a table of settings"),
        ({"eval.lr": 0.1}, r"eval.lr is not a table; write for instance \[eval.lr\]"),
        ({"a": {"int": [1, 2], "flot": 3}}, "a has 'flot', which is not one of"),
        ({"a": {}}, "a: give one of float, int, choices, cells, value, not none of them"),
        ({"a": {"int": [1, 2], "choices": [1]}}, "not int and choices"),
        ({"a": {"int": [1, 2, 3]}}, r"a: int takes \[low, high\]"),
        ({"a": {"int": 3}}, "a: int takes a list, not 3"),
        ({"a": {"int": [1, 2.5]}}, "whole numbers"),
        ({"a": {"float": [1, "2"]}}, r"float takes \[low, high\]"),
        ({"a": {"float": [True, 2]}}, r"float takes \[low, high\]"),
        ({"a": {"float": [1, 2], "log": 1}}, "log true or false"),
        ({"a": {"choices": [1], "log": True}}, "log does not go with choices"),
        ({"a": {"value": 1, "when": {"b": 1}}}, "when does not go with value"),
        ({"a": {"choices": [[1]]}}, "is no value of a setting"),
        ({"a": {"int": [1, 2], "when": {}}}, "when takes a table"),
        (
            {"a": {"int": [1, 2]}, "a.b": {"int": [1, 2]}, "x": {"value": 1}, "x.y": {"value": 2, "int": [1, 2]}},
            "x.y: give one of",
        ),
        ({"a.b": {"int": [1, 2]}, "a": {"b": {"int": [1, 2]}}}, "a.b stands there twice"),
        ({"a": {"value": 1}}, "no setting to search"),
    ],
)
def test_a_wrong_space_is_explained(plain: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        space_from(plain)  # type: ignore[arg-type]


def test_a_wrong_file_is_explained(tmp_path: Path) -> None:
    for name, text, sentence in (
        ("s.yaml", "", "neither .toml nor .json"),
        ("s.toml", "[a", "is not readable"),
        ("s.json", "{", "is not readable"),
        ("t.toml", "[a]\nint = [2, 1]", "t.toml: a: A range from 2 to 1"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=sentence):
            read_space(tmp_path / name)


WORDS = st.sampled_from(["float", "int", "choices", "cells", "value", "log", "step", "when", "a", "b.c"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(["sgd", "n3", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(plain=st.dictionaries(WORDS, PLAIN, max_size=3))
def test_any_table_is_a_space_or_a_sentence(plain: dict[str, object]) -> None:
    try:
        space = space_from(plain)
    except ValueError as error:
        assert str(error).endswith(".")
        return
    assert space_from(space_to(space)) == space
    space.draw(generator())


def test_configurations_are_plain() -> None:
    config: Config = SPACE.draw(generator())
    assert json.loads(json.dumps(config)) == config
