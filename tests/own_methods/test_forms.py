"""Ordinary forms of one's own code: what changes a result is another run, and all of it travels."""

from __future__ import annotations

import importlib
import pickle
import sys

import pytest
import torch

from hml_core.config import RunConfig
from hml_core.engines import travel
from hml_core.losses import LOSSES
from tests.own_methods.helpers import LOSS, forget

# Each defines `factor()`, which the loss below is multiplied by; § is the number that is edited.
FORMS = """
## a loss of torch
F = torch.nn.MultiMarginLoss(margin=§)
def factor():
    return F.margin

## layers
NET = torch.nn.Sequential(torch.nn.Hardtanh(0, §))
def factor():
    return NET(torch.tensor(9.0)).item()

## a module of one's own
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.by = §
NET = torch.nn.ModuleList([Own()])
def factor():
    return NET[0].by

## what no state holds
NET = torch.nn.Module()
NET.register_buffer('by', torch.tensor(§), persistent=False)
def factor():
    return NET.by.item()

## a module as a value
import helper_of_forms as h
BACKENDS = {'a': h}
def factor():
    return BACKENDS['a'].inner()

## a module as an attribute
import helper_of_forms as h
class Uses:
    ops = h
def factor():
    return Uses().ops.inner()

## a module as a default
import helper_of_forms as h
def factor(by=h):
    return by.inner()

## a module in a closure
def make():
    import helper_of_forms as h
    def inner():
        return h.inner()
    return inner
factor = make()

## the order of a mapping
STEPS = {'b': 1.0, 'a': 2.0} if § == 2.0 else {'a': 2.0, 'b': 1.0}
def factor():
    return [*STEPS.values()][-1] + 1.0

## the order of pairs
STEPS = {2: 1.0, 1: 2.0} if § == 2.0 else {1: 2.0, 2: 1.0}
def factor():
    return [*STEPS.values()][-1] + 1.0

## an attribute beside fields
@dataclass
class Settings:
    a: float = 1.0
SETTINGS = Settings()
SETTINGS.by = §
def factor():
    return SETTINGS.by

## an InitVar
@dataclass
class Settings:
    raw: InitVar[float] = §
    def __post_init__(self, raw):
        self._by = raw
SETTINGS = Settings()
def factor():
    return SETTINGS._by

## slots
class Slotted:
    __slots__ = ('by', '__own')
    def __init__(self):
        self.by, self.__own = 1.0, §
    def get(self):
        return self.by * self.__own
HELD = Slotted()
def factor():
    return HELD.get()

## a frozen dataclass with slots
@dataclass(frozen=True, slots=True)
class Settings:
    by: float = §
SETTINGS = Settings()
def factor():
    return SETTINGS.by

## a named tuple
class Pair(NamedTuple):
    by: float = §
PAIR = Pair()
def factor():
    return PAIR.by

## a cached function
@functools.lru_cache(maxsize=None)
def table(n):
    return (§,) * n
def factor():
    return table(3)[0]

## a recursive cached function
@functools.cache
def power(n):
    return 1.0 if not n else § * power(n - 1)
def factor():
    return power(1)

## a cached property
class Settings:
    @functools.cached_property
    def by(self):
        return §
SETTINGS = Settings()
def factor():
    return SETTINGS.by

## singledispatch
@functools.singledispatch
def valued(x):
    return §
def factor():
    return valued(1)

## a partial method
class Settings:
    def times(self, n):
        return n
    by = functools.partialmethod(times, §)
SETTINGS = Settings()
def factor():
    return SETTINGS.by()

## a metaclass
class Meta(type):
    @property
    def by(cls):
        return §
class Settings(metaclass=Meta):
    pass
def factor():
    return Settings.by

## annotations that are read
class Settings:
    by: Annotated[float, §]
def factor():
    return get_type_hints(Settings, include_extras=True)['by'].__metadata__[0]

## a docstring that is read
class Settings:
    '''§'''
def factor():
    return float(Settings.__doc__)

## positions of a pattern
class Point:
    __match_args__ = ('a', 'b') if § < 2.5 else ('b', 'a')
    def __init__(self):
        self.a, self.b = 2.0, 3.0
def factor():
    match Point():
        case Point(x, _): return x

## a mask
TABLE = np.ma.array([2.0, 3.0], mask=[False, § > 2.5])
def factor():
    return float(TABLE.sum()) / 2.0

## an attribute of a tensor
ONES = torch.ones(1)
ONES.by = §
def factor():
    return ONES.by

## a sparse tensor
T = torch.tensor([0.0, §]).to_sparse()
def factor():
    return T.to_dense()[1].item()

## a namespace of classes
class Settings:
    by = §
HELD = types.SimpleNamespace(kind=Settings, table=np.zeros(5000))
def factor():
    return HELD.kind.by

## a generic type
T = TypeVar('T')
class Box(Generic[T]):
    by = §
KIND = Box[float]
def factor():
    return KIND.by

## a union
class Act:
    by = §
KINDS = list[Act] | None
def factor():
    return get_args(get_args(KINDS)[0])[0].by

## a new type
Factor = NewType('Factor', float)
def factor():
    return Factor(§)

## layers with one of one's own
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self._by = None if § == 2.0 else 0.0
        self._table = torch.ones(2)
NET = torch.nn.Sequential(torch.nn.ReLU(), Own())
def factor():
    return 1.0 if NET[1]._by is None else 2.0

## a hook of its own
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.part = torch.nn.Identity()
        self.part.register_forward_hook(self.scaled)
    def scaled(self, part, given, result):
        return result * §
NET = Own()
def factor():
    return NET.part(torch.ones(1)).item()

## a cached class method
class Table:
    @staticmethod
    @functools.lru_cache
    def by(n):
        return § * n
def factor():
    return Table.by(1)

## an annotation that holds a class
class Field:
    def __init__(self, by):
        self.by = by
class Settings:
    by: Annotated[float, Field(§)]
def factor():
    return get_type_hints(Settings, include_extras=True)['by'].__metadata__[0].by

## argparse
ARGS = argparse.Namespace(by=§)
def factor():
    return ARGS.by

## a default of a wrapper
def doubled(f):
    @functools.wraps(f)
    def around(x, by=§):
        return by * f(x)
    return around
@doubled
def one(x, by=7.0):
    return x
def factor():
    return one(1.0)

## a mapping of one's own
class Table(dict):
    def __missing__(self, key):
        return §
TABLE = Table(a=1.0)
def factor():
    return TABLE['b']

## an attribute of such a mapping
class Table(dict):
    pass
TABLE = Table(a=1.0)
TABLE.by = §
def factor():
    return TABLE.by

## methods of such a mapping
class Table(UserDict):
    def by(self):
        return §
TABLE = Table(a=1.0)
def factor():
    return TABLE.by()

## what a mapping gives for what it lacks
class By:
    def __call__(self):
        return §
TABLE = defaultdict(By())
def factor():
    return TABLE.default_factory()

## maps behind others
TABLE = ChainMap({'by': 1.0}, {'by': §})
def factor():
    return TABLE.parents['by']

## an array of one's own
class Array(np.ndarray):
    def by(self):
        return §
ARRAY = np.zeros(3).view(Array)
def factor():
    return ARRAY.by()

## rows of a sparse matrix
MATRIX = torch.diag(torch.arange(2000.0) + §).to_sparse_csr()
def factor():
    return MATRIX.values()[1000].item()

## names of exec
HERE = {}
exec('def by(): return §', HERE)
by = HERE['by']
def factor():
    return by()

## a class of exec
HERE = {}
exec('class By: by = §', HERE)
By = HERE['By']
def factor():
    return By.by

## a module that makes what it is asked for
import lazy_helper_of_forms as lazy
def factor():
    return lazy.by

## combined flags
class Kind(enum.Flag):
    A = 1
    B = 2
def factor():
    return § if Kind.A | Kind.B else 0.0

## a protocol
class Sized(Protocol):
    size: int
class Own(Sized):
    by = §
def factor():
    return Own().by

## a function that turns gradients off
@torch.no_grad()
def factor():
    return §

## bytes that are no text
def factor():
    return § * len(b'\\xff')

## a hash
class Kind:
    def __hash__(self):
        return round(§)
KIND = Kind()
def factor():
    return hash(KIND)
"""
FORMS = {
    form.partition("\n")[0]: form.partition("\n")[2] for form in FORMS.strip()[3:].split("## ")
}

HEAD = """import argparse, enum, functools, logging, torch, types
import numpy as np
from collections import *
from dataclasses import *
from typing import *
LOG = logging.getLogger(__name__)
"""
HELPER = "def inner():\n    return outer()\n\ndef outer():\n    return §\n"
LAZY = "def __getattr__(name):\n    if name != 'by':\n        raise AttributeError(name)\n    return §\n"
LOGS = "LOG.debug('%s', __name__)\n        return factor() * value"


def made(module, form: str, number: str, name: str = "mine_for_tests") -> tuple[str, float, bytes]:
    """The run's id, the loss of something, and what is sent of it."""
    forget()
    for helper, text in (("helper_of_forms", HELPER), ("lazy_helper_of_forms", LAZY)):
        module(text.replace("§", number), helper)
    text = HEAD + FORMS[form] + LOSS.replace("return self.sign * value", LOGS)
    module(text.replace("§", number), name)
    config = RunConfig(recipe="mine")
    before, value = config.run_id, loss_of_it()
    sent = pickle.dumps(travel.pack(config))
    assert config.run_id == before, "used, and sent"
    return before, value, sent


def loss_of_it() -> float:
    return LOSSES["mine"]()(torch.eye(3), torch.arange(3)).item()


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("form", FORMS)
def test_an_edit_is_another_run_and_the_code_is_the_same_elsewhere(form, module, monkeypatch):
    """Another name of the file is not: a logger's is that."""
    run_id, value, sent = made(module, form, "2.0")
    assert made(module, form, "2.0", "moved_for_tests")[0] == run_id
    other_id, other, _ = made(module, form, "3.0")
    assert other != value
    assert other_id != run_id
    forget()
    for name in ("helper_of_forms", "lazy_helper_of_forms", "moved_for_tests"):
        sys.modules.pop(name, None)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "pytest" not in entry])
    importlib.invalidate_caches()
    bundle = pickle.loads(sent)
    with travel.installed(bundle):
        travel.require_same(bundle, RunConfig(recipe="mine"))
        assert loss_of_it() == value
