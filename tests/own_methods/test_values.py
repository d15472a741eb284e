"""Values in one's own methods are told apart by what they hold."""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import logging
import math
import random
import sys
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from hml_core import engines, recipes
from hml_core.config import RunConfig
from hml_core.errors import ConfigError
from hml_core.recipes import Stage
from hml_core.system import fingerprints, kinds
from hml_lab.cli import main
from tests.own_methods.helpers import Gentle, Odd, halves, recipe


def constant(value: float) -> nn.Module:
    """A layer with a weight."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, value)
    nn.init.zeros_(layer.bias)
    return layer


def test_values_are_told_apart_by_what_they_hold():
    long = np.zeros(8142)
    other = long.copy()
    other[4000] = 1
    values = [
        None, True, 1, 1.0, "1", math.inf, (1, 2), {"a": 1}, {"a": [1]}, long, other, long[:-1],
        torch.zeros(3), torch.zeros(3, dtype=torch.float64), torch.zeros(3, 1), np.float32(1),
        Gentle, torch.bfloat16, {1, 2}, {1, 3}, {1: 2}, {1: 3}, b"1", 1j, range(1), range(2),
        slice(1), ..., {"a": 1}.get, {"a": 2}.get, {"a": 2}.pop, Number.from_bytes, int.from_bytes,
        random.random, random.getrandbits, torch.ones(2).sum, torch.zeros(2).sum,
        logging.getLogger("a"), math, np.exp, np.log, torch.device("cpu"),
        functools.partial(halves, progress=1), functools.partial(halves, progress=2),
        Pair(1)._replace, nn.Softplus(1.0), nn.Softplus(2.0), constant(1.0), constant(2.0),
    ]  # fmt: skip
    assert len({fingerprints.of_value(value) for value in values}) == len(values)
    assert fingerprints.of_value((1, 2)) == fingerprints.of_value([1, 2]), "as JSON has them"
    assert fingerprints.of_value({"a": 1, "b": 2}) == fingerprints.of_value({"b": 2, "a": 1})
    assert fingerprints.of_value({"b", "a", "c"}) == fingerprints.of_value({"c", "b", "a"})
    assert fingerprints.of_value(constant(1.0)) == fingerprints.of_value(constant(1.0))


@pytest.mark.parametrize(
    "value",
    [lambda x: x, open(__file__), object(), iter(()), np.array([None]), [object()].append],  # noqa: SIM115
)
def test_a_value_without_identity_is_refused_when_it_is_registered(value):
    said = r"option `by` of stage 1 of the recipe 'mine' is a .* no identity"
    with pytest.raises(ConfigError, match=said):
        recipe(Stage(Odd, {"by": value}))
    assert "mine" not in recipes.RECIPES


def test_one_bad_config_costs_the_others_nothing(tmp_path):
    held = {"by": 1}
    recipe(Stage(Odd, held))
    bad, good = RunConfig(recipe="mine", epochs=1), RunConfig(epochs=1)
    held["by"] = lambda x: x  # too late to be seen when it was registered
    frame = engines.sweep([bad, good], runs_root=tmp_path, progress=False)
    assert frame["status"].tolist() == ["failed", "done"]
    assert "option `by`" in frame["error"][0]
    assert engines.sweep([bad], runs_root=tmp_path, train=False)["status"].tolist() == ["failed"]


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Number(int):
    pass


class Pair(NamedTuple):
    a: int


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


@pytest.mark.parametrize("kind", [Slotted, Number, Pair, Level])
def test_an_object_of_ones_own_is_told_apart_by_what_it_holds(kind):
    one, other = fingerprints.of_value(kind(1)), fingerprints.of_value(kind(2))
    assert one == fingerprints.of_value(kind(1)) != other


USED = """
import functools, re
from pathlib import Path
from numpy import exp
import torch

WORDS, PLACE, SIGMOID = re.compile("a+"), Path("x"), torch.Tensor.sigmoid

@functools.lru_cache
def kept(x):
    return x * 2

def value(x):
    return exp(kept(x)), WORDS, PLACE, SIGMOID
"""


def test_code_may_use_what_modules_usually_hold(module):
    def digest(old: str = "", new: str = "") -> str:
        return fingerprints.of_code(module(USED.replace(old, new)).value).digest

    first = digest()
    assert digest() == first
    edits = {'"a+"': '"b+"', 'Path("x")': 'Path("y")', "x * 2": "x * 3", "r.sigmoid": "r.tanh"}
    assert len({first, *(digest(*edit) for edit in edits.items())}) == 1 + len(edits)


KINDS = """
import collections, copy, dataclasses, functools, logging, math

LOG, STEPS, LIBRARIES = logging.getLogger("mine"), {1, 2}, [math]
HALF = functools.partial(max, 0.5)
JOIN = "-".join

class Helper:
    @property
    def width(self):
        return 3
    @functools.cached_property
    def height(self):
        return 4
    @staticmethod
    def depth():
        return 5
    @classmethod
    def name(cls):
        return "six"

@functools.singledispatch
def sized(x):
    return 7
sized(1), copy.copy(Helper())  # what they note of that is no part of them

@dataclasses.dataclass
class Settings:
    names: list = dataclasses.field(default_factory=lambda: [9])

def later():
    def inner(x):
        return missing if x else 8
    if not STEPS:
        missing = 1
    return inner

inner = later()

def value(x):
    return LOG, STEPS, LIBRARIES, HALF, JOIN, Helper, Settings, sized(x), inner(x)
"""


def test_edits_of_all_that_classes_and_decorators_hold_are_seen(module):
    def digest(old: str = "", new: str = "") -> str:
        assert old in KINDS
        return fingerprints.of_code(module(KINDS.replace(old, new)).value).digest

    first = digest()
    assert digest() == first
    edits = [
        ("{1, 2}", "{1, 3}"), ("[math]", "[logging]"), ("0.5", "0.6"),
        ('"-"', '"+"'), *((f"return {n}", f"return {n}0") for n in (3, 4, 5, 7)), ('"six"', '"ten"'),
        ("else 8", "else 9"), ("[9]", "[10]"), ("sized(1), copy.copy(Helper())", "None"),
    ]  # fmt: skip
    assert digest(*edits.pop()) == first
    assert len({first, *(digest(*edit) for edit in edits)}) == 1 + len(edits)


def test_a_closure_of_ones_own_that_holds_something_without_identity_is_refused(module):
    text = "def around(held):\n    def value(x):\n        return held\n    return value\n"
    around = module(text).around
    assert fingerprints.of_code(around(1)).digest != fingerprints.of_code(around(2)).digest
    with pytest.raises(ConfigError, match=r"`held`, which is a .* no identity"):
        fingerprints.of_code(around(iter(())))


def test_code_whose_file_is_no_python_any_more_is_known_by_what_runs(module, tmp_path):
    """It was being edited while the notebook went on."""
    text = "def value(x):\n    return x * {}\n"

    def edited(factor: int) -> str:
        mine = module(text.format(factor))
        (tmp_path / "mine_for_tests.py").write_text("def value(x:\n")
        return fingerprints.of_code(mine.value).digest

    assert edited(2) == edited(2) != edited(3)


def test_code_in_an_archive_is_known_by_its_source(module, tmp_path, monkeypatch):
    """Also once something else, such as a traceback, has looked for it there."""
    text = "def value(x):\n    return x * 2  # doubled\n"
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.writestr("mine_in_an_archive.py", text)
    monkeypatch.syspath_prepend(str(tmp_path / "own.zip"))
    mine = importlib.import_module("mine_in_an_archive")
    monkeypatch.setitem(sys.modules, "mine_in_an_archive", mine)
    before = fingerprints.of_code(mine.value).digest
    inspect.getsource(mine)
    assert fingerprints.of_code(mine.value).digest == before
    assert fingerprints.of_code(module(text).value).digest == before


def test_a_value_that_holds_itself_is_refused():
    circle = {}
    circle["itself"] = circle
    with pytest.raises(ConfigError, match="without a circle"):
        fingerprints.of_value(circle)


class Box:
    """Not a plain value."""


def annotated(
    *,
    number: float = 1.0,
    whole: int = 1,
    either: float | str = 1.0,
    perhaps: float | None = None,
    layers: tuple[int, ...] = (1,),
    other: Box = None,
    odd: "Missing" = 1.0,  # noqa: F821, UP037
):
    return (Stage("cross_entropy"),)


def plain(*, number=1.0, whole=1, flag=False, word="a", nothing=None, layers=(1,)):
    return (Stage("cross_entropy"),)


GOOD = {
    "plain": {"number": [2, 0.5, None], "whole": [2, 0.5], "flag": [True], "word": ["b"],
              "nothing": ["a", 1], "layers": [[1, 2], "x"]},
    "annotated": {"odd": [2.0], "number": [2]},
}  # fmt: skip
BAD = [
    ("plain", "number", "abc", "a number .its default is 1.0., got 'abc'"),
    ("plain", "number", True, "a number"),
    ("plain", "number", [1.0], r"a number .*, got \[1\.0\]"),
    ("plain", "whole", "1", "a number"),
    ("plain", "flag", "no", "true or false"),
    ("plain", "flag", 1, "true or false"),
    ("plain", "word", 3, "text"),
    ("annotated", "odd", "abc", "a number"),
]


@pytest.mark.parametrize(("name", "option", "value", "said"), BAD)
def test_an_option_of_another_kind_is_refused_before_work_starts(name, option, value, said):
    """As `--options margin abc`: by the recipe's own default, where nothing else says what is meant."""
    recipes.register(title="t", source="s")({"plain": plain, "annotated": annotated}[name])
    with pytest.raises(
        ConfigError, match=rf"Expected the option `{option}` of .*'{name}' to be {said}"
    ):
        RunConfig(recipe=name, options={option: value})


@pytest.mark.parametrize("name", GOOD)
def test_an_option_of_its_kind_is_taken(name):
    recipes.register(title="t", source="s")({"plain": plain, "annotated": annotated}[name])
    for option, values in GOOD[name].items():
        for value in values:
            assert RunConfig(recipe=name, options={option: value}).options[option] == value


@pytest.mark.parametrize(
    ("option", "good", "bad", "said"),
    [
        ("number", [1, 0.5], [None, "a", True], "a number"),
        ("whole", [3], [0.5, "a"], "a whole number"),
        ("either", ["auto", 2], [[1], True], "a number or text"),
        ("perhaps", [None, 2.0], ["a"], "a number or nothing"),
        ("layers", [[1], (2,)], [3, "a"], "a list"),
        ("other", [1, "a"], [], ""),
    ],
)
def test_an_annotation_says_what_is_meant(option, good, bad, said):
    def typed(
        *,
        number: float = 1.0,
        whole: int = 1,
        either: float | str = 1.0,
        perhaps: float | None = None,
        layers: tuple[int, ...] = (1,),
        other: Box = None,
    ): ...

    for value in good:
        kinds.require(value, typed, option, "it")
    for value in bad:
        with pytest.raises(ConfigError, match=f"Expected it to be {said} "):
            kinds.require(value, typed, option, "it")


def test_the_command_refuses_text_for_a_number(tmp_path):
    file = tmp_path / "margins_for_tests.py"
    file.write_text(
        "from hml_core.recipes import Stage, register\n"
        "@register(title='M', source='s')\n"
        "def margins(*, margin: float = 1.0):\n"
        "    return (Stage('focal', {'gamma': margin}),)\n"
    )
    given = [
        "train",
        "--import",
        str(file),
        "--recipe",
        "margins",
        "--runs-root",
        str(tmp_path / "r"),
    ]
    result = CliRunner().invoke(main, [*given, "--options", "margin", "abc"])
    assert result.exit_code == 1
    assert "`margin` of the recipe 'margins' to be a number (its default is 1.0), got 'abc'" in (
        result.output
    )
    assert not (tmp_path / "r").exists()
    sys.modules.pop("margins_for_tests", None)
