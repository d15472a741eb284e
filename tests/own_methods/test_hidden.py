"""What stands between code of one's own and the identity: libraries' decorators, modules that values hold,
imports that fail or are not made."""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import subprocess
import sys
import types

import pytest
import torch

from hml_core import datasets, losses
from hml_core.config import RunConfig
from hml_core.engines import travel
from hml_core.errors import ConfigError
from hml_core.losses import ClassificationLoss
from hml_core.system import extensions, fingerprints, sources
from tests.own_methods.helpers import LOSS

AROUND = """
import contextlib, functools, threading, torch
LOCK = threading.Lock()

def hidden(x):
    with LOCK:
        return x * 2

{}

def value(x):
    return used(x)
"""
FORMS = {
    "no gradient": "@torch.no_grad()\ndef used(x):\n    return hidden(x)",
    "inference": "@torch.inference_mode()\ndef used(x):\n    return hidden(x)",
    "a context": "@contextlib.contextmanager\ndef made(x):\n    yield hidden(x)\n"
    "def used(x):\n    with made(x) as found:\n        return found",
    "a method": "class Own:\n    @torch.no_grad()\n    def by(self, x):\n        return hidden(x)\n"
    "def used(x):\n    return Own().by(x)",
    "a layer": "LAYER = torch.nn.TransformerEncoderLayer(4, 1, 4, activation=hidden)\n"
    "def used(x):\n    return LAYER(x)",
    "an attribute": "def used(x):\n    return used.tool(x)\nused.tool = hidden",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_library_around_it_hides_nothing_that_has_no_identity(form, module):
    with pytest.raises(ConfigError, match=r"`LOCK`, which is a lock .* no identity"):
        fingerprints.of_code(module(AROUND.format(FORMS[form])).value)


OBJECT = """
import functools
import threading
import torch

class Tool:
    def __init__(self):
        self.lock = threading.Lock()
    def __call__(self, x):
        return x

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

def scaled(lock, x):
    return x

{}

def value(x):
    return USED(x)
"""
OBJECTS = {
    "an object": "USED = torch.no_grad()(Tool())",
    "its method": "USED = torch.no_grad()(Tool().__call__)",
    "a partial call": "USED = torch.no_grad()(functools.partial(scaled, threading.Lock()))",
    "a partial call of a method": "USED = torch.no_grad()(functools.partial(Tool().__call__))",
    "several": "USED = torch.no_grad()(functools.partial(max, [{'a': Tool()}]))",
    "a layer's option": "USED = torch.nn.TransformerEncoderLayer(4, 1, 4, activation=Tool())",
    "a layer's attribute": "USED = torch.nn.Linear(2, 2)\nUSED.tool = Tool()",
    "a layer of one's own": "USED = torch.nn.Linear(2, 2)\nobject.__setattr__(USED, 'tool', Layer())",
    "an attribute": "def USED(x):\n    return USED.tool(x)\nUSED.tool = Tool()",
}


@pytest.mark.parametrize("form", OBJECTS)
def test_nor_of_what_an_object_of_ones_own_holds(form, module):
    with pytest.raises(ConfigError, match=r"which is a lock .* no identity"):
        fingerprints.of_code(module(OBJECT.format(OBJECTS[form])).value)


def test_what_a_librarys_object_holds_is_its_own_affair(module):
    """A lock among the attributes of torch's layer, or of a function, is nobody's value."""
    for made in (
        "USED = torch.nn.Flatten()\nUSED.lock = threading.Lock()",
        "def USED(x):\n    return USED.lock and x\nUSED.lock = threading.Lock()",
    ):
        assert fingerprints.of_code(module(OBJECT.format(made)).value).digest


@pytest.mark.parametrize(
    "made",
    ["collections.defaultdict(lambda: {})", "Lent()"],
)
def test_behind_a_read_only_view_is_what_gives_what_is_missing(made, module):
    text = (
        "import collections, types\n"
        "class Lent(dict):\n    def __missing__(self, key):\n        return {}\n"
        f"VIEW = types.MappingProxyType({made})\n"
        "def value(x):\n    return x * VIEW['weight']\n"
    )
    digests = [
        fingerprints.of_code(module(text.replace("{}", number)).value).digest
        for number in ("1.0", "2.0")
    ]
    assert digests[0] != digests[1]


def test_what_was_perhaps_meant_and_then_surely_is_is_refused(module):
    """What a registry is asked for comes last."""
    module(WORK, "mine_held_for_tests")
    text = (
        "import mine_held_for_tests as helper\nfrom hml_core.losses import LOSSES\n"
        "BACKENDS = [helper]\n"
        "class Inner:\n    def by(self, x):\n        return helper.work(x)\n"
        "def value(x):\n    return BACKENDS[0].work(x){}\n"
    )
    made = module(text.format(" + LOSSES['inner_for_tests']().by(x)"))
    assert fingerprints.of_code(made.value).digest, "nothing of that name is registered"
    losses.LOSSES["inner_for_tests"] = made.Inner
    with pytest.raises(ConfigError, match="`LOCK`, which is a lock"):
        fingerprints.of_code(made.value)


FUNCTIONS = """
def make(factor):
    def scaled(x):
        return x * factor
    return scaled

def value(x):
    return [value.a(x), value.b(x), value.c(x), value.d(x), value.e(x), value.f(x), value.g(x)]

for number, name in enumerate("abcdefg"):
    setattr(value, name, make(number))
"""


@pytest.mark.slow
def test_attributes_of_a_function_count_in_an_order_of_their_own(tmp_path):
    """Not in that of a set, which is another in each process."""
    (tmp_path / "mine_in_order.py").write_text(FUNCTIONS)
    program = (
        "import mine_in_order; from hml_core.system import fingerprints\n"
        "print(fingerprints.of_code(mine_in_order.value).digest)"
    )
    said = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
    assert len(said) == 1


HELD = """
import mine_held_for_tests as helper
BACKENDS = [helper]
def value(x):
    return BACKENDS[0].work(x){}
"""
WORK = "import threading\nLOCK = threading.Lock()\ndef work(x):\n    with LOCK:\n        return x * 2\n"


def test_of_a_module_that_a_value_holds_what_is_asked_for_counts(module):
    """It is perhaps another `work` that is meant: so it is not refused; but once it surely is, it is."""

    def digest(work: str) -> str:
        module(work, "mine_held_for_tests")
        return fingerprints.of_code(module(HELD.format("")).value).digest

    first = digest(WORK)
    assert digest(WORK) == first
    assert digest(WORK.replace("x * 2", "x * 3")) != first
    module(WORK, "mine_held_for_tests")
    direct = HELD.format(" + helper.work(x)")
    with pytest.raises(ConfigError, match=r"LOCK`, which is a lock .* no identity"):
        fingerprints.of_code(module(direct).value)


@pytest.mark.parametrize(
    ("held", "asked"), [("[helper]", "BACKENDS[0]"), ("{'by': helper}", "BACKENDS['by']")]
)
def test_of_a_module_that_a_value_holds_what_it_answers_counts(held, asked, module):
    """By a `__getattr__` of its own."""
    answering = "def __getattr__(name):\n    return {} if name == 'lazy' else vars()[name]\n"
    text = (
        f"import mine_held_for_tests as helper\nBACKENDS = {held}\n"
        f"def value(x):\n    return {asked}.lazy"
    )
    digests = []
    for number in ("1.0", "0.5"):
        module(answering.format(number), "mine_held_for_tests")
        digests.append(fingerprints.of_code(module(text).value).digest)
    assert digests[0] != digests[1]


def test_what_was_refused_once_is_refused_again(module):
    mine = module(AROUND.format("def used(x):\n    return hidden(x)"))
    code = fingerprints.Code("The object")
    for _ in range(2):
        with pytest.raises(ConfigError, match="`LOCK`"):
            code.add(mine.value)
    assert not code.parts


def test_an_import_of_a_name_leaves_the_package_as_it_is(tmp_path, module):
    """`from package import name` takes what the package has by that name, whatever file lies there."""
    package = tmp_path / "package_for_tests"
    package.mkdir()
    (package / "__init__.py").write_text("def focal(x):\n    return x * 2\n")
    (package / "focal.py").write_text("raise RuntimeError('not asked for')\n")
    (package / "other.py").write_text("BY = 2\n")
    text = (
        "def value(x):\n    from package_for_tests import focal, other\n"
        "    return focal(x) * other.BY\n"
    )
    try:
        value = module(text).value
        first = fingerprints.of_code(value).digest
        assert value(3) == 12
        assert fingerprints.of_code(value).digest == first
        assert "package_for_tests.focal" not in sys.modules
        sys.modules["package_for_tests.other"].BY = 3
        assert fingerprints.of_code(value).digest != first
    finally:
        for name in [name for name in sys.modules if name.startswith("package_for_tests")]:
            del sys.modules[name]


def test_a_module_that_was_mended_is_followed_again(tmp_path, module):
    helper = tmp_path / "mended_for_tests.py"
    text = "def value(x):\n    import mended_for_tests\n    return mended_for_tests.by(x)\n"
    helper.write_text("by = missing\n")
    try:
        value = module(text).value
        without = fingerprints.of_code(value).digest
        helper.write_text("def by(x):\n    return 2 * x\n")
        importlib.invalidate_caches()
        assert fingerprints.of_code(value).digest == without, "not run at each look"
        assert value(1) == 2
        assert fingerprints.of_code(value).digest != without, "it is there now"
        sys.modules.pop("mended_for_tests")
        with fingerprints.unchanged(value, "The value"):
            pass
        assert fingerprints.of_code(value).digest != without, "registering looks again"
    finally:
        sys.modules.pop("mended_for_tests", None)


@pytest.mark.parametrize("way", ["import", "--import"])
def test_a_module_that_needs_the_one_being_imported_is_followed(way, tmp_path, module):
    """A circle is why one imports within a function; registering and configs come in the midst of it."""
    helper = tmp_path / "circle_for_tests.py"
    text = (
        "from hml_core import datasets\nfrom hml_core.config import RunConfig\n"
        "WHOLE = datasets.info('digits')\n"
        "def load(config, data_root):\n    import circle_for_tests\n"
        "    return circle_for_tests.by(WHOLE.load(config, data_root))\n"
        "given = datasets.DatasetInfo(load, 10, 100, WHOLE.defaults, {}, True)\n"
        "datasets.register('mine_of_tests', given)\n"
        "EARLY = RunConfig(dataset='mine_of_tests').run_id\n"
        "class Late:\n    pass\n"
    )
    ids = []
    for number in (1, 2):
        needed = (
            f"from mine_circle_for_tests import Late\ndef by(x, number={number}):\n    return x\n"
        )
        helper.write_text(needed + "#" * number)
        importlib.invalidate_caches()
        try:
            if way == "import":
                module(text, "mine_circle_for_tests")
            else:
                (tmp_path / "mine_circle_for_tests.py").write_text(text)
                extensions.bring(str(tmp_path / "mine_circle_for_tests.py"))
            ids.append(RunConfig(dataset="mine_of_tests").run_id)
            datasets.load(RunConfig(dataset="mine_of_tests"))
            assert RunConfig(dataset="mine_of_tests").run_id == ids[-1], "nor another after it ran"
        finally:
            sys.modules.pop("circle_for_tests", None)
            sys.modules.pop("mine_circle_for_tests", None)
    assert ids[0] != ids[1]


def test_a_module_that_answers_has_elsewhere_what_else_stands_in_it(module):
    """Its own ``__getattr__`` is asked for what does not."""
    module(
        "def scale_a():\n    return 2.0\n"
        "def __getattr__(name):\n    if name == 'lazy':\n        return 3.0\n"
        "    raise AttributeError(name)\n",
        "mine_answering_for_tests",
    )
    text = LOSS.replace(
        "self.sign *", "self.sign * (getattr(helper, 'scale_' + 'a')() * helper.lazy) *"
    )
    assert text != LOSS
    module(f"import mine_answering_for_tests as helper\n{text}")
    config = RunConfig(recipe="mine")
    sent = pickle.loads(pickle.dumps(travel.pack(config)))
    wanted = losses.LOSSES["mine"]()(torch.eye(3), torch.arange(3))
    sys.modules.pop("mine_answering_for_tests")
    with travel.installed(sent):
        travel.require_same(sent, config)
        assert losses.LOSSES["mine"]()(torch.eye(3), torch.arange(3)) == wanted


@pytest.mark.slow
def test_the_order_of_a_set_gives_no_function_another_name(tmp_path):
    """Two of one name, told apart in a set whose order is another in each process."""
    program = """
from hml_core.system import fingerprints
def make(number):
    def tool(x):
        return x * number
    return tool
TOOLS = {("a", make(1.0)), ("b", make(2.0)), ("c", make(3.0))}
def value(x):
    return sum(tool(x) for _, tool in TOOLS)
print(fingerprints.of_code(value).digest)
"""
    (tmp_path / "program.py").write_text(program)
    said = {
        subprocess.run(
            [sys.executable, str(tmp_path / "program.py")], check=True, capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2, 3)
    }  # fmt: skip
    assert len(said) == 1


class Alike(tuple):
    """Two in a set stand there in the order in which they came."""

    def __hash__(self):
        return 0


def _tool(number):
    def tool(x):
        return x * number

    return tool


def _around(tools):
    def around(x):
        return [tool(x) for _, tool in tools]

    return around


TOOLS = [_tool(number) for number in range(4)]


def _set(*held, backwards: bool):
    return {Alike(one) for one in (held[::-1] if backwards else held)}


SETS = {
    "functions": lambda turned: _set(("a", TOOLS[0]), ("b", TOOLS[1]), backwards=turned),
    "of one name": lambda turned: _set((TOOLS[0],), (TOOLS[1],), backwards=turned),
    "sets of them": lambda turned: [
        _set(("a", TOOLS[0]), ("b", TOOLS[1]), backwards=turned),
        _set(("c", TOOLS[2]), ("d", TOOLS[3]), backwards=turned),
    ],
    "functions that hold sets": lambda turned: _set(
        ("a", _around(_set(("x", TOOLS[0]), ("y", TOOLS[1]), backwards=turned))),
        ("b", _around(_set(("x", TOOLS[2]), ("y", TOOLS[3]), backwards=turned))),
        backwards=turned,
    ),
    "classes of one name": lambda turned: _set(
        *((type("Made", (), {"tool": tool, "__module__": __name__}),) for tool in TOOLS),
        backwards=turned,
    ),
}


@pytest.mark.parametrize("kind", SETS)
def test_in_which_order_a_set_is_gone_through_is_no_part_of_it(kind):
    def digest(turned: bool) -> str:
        held = SETS[kind](turned)

        def value(x):
            return held, x

        return fingerprints.of_code(value).digest

    assert digest(False) == digest(True)


def test_a_set_that_its_own_code_uses_has_an_order():
    def digest(turned: bool) -> str:
        def make(number):
            class Tool:
                def of(self, x):
                    return x * number, held

            return Tool

        held = _set((make(0),), (make(1),), backwards=turned)
        return fingerprints.of_code(make(2)).digest

    assert digest(False) == digest(True)


def test_functions_of_one_name_whose_code_uses_their_set_have_an_order():
    """What they hold is of one name, too: each is what the other two are but for that."""

    made = {"__name__": "mine_for_tests"}
    exec(
        "def around(inner):\n"
        "    def tool(x):\n        return inner(x), HELD\n"
        "    return tool\n"
        "def value(x):\n    return HELD\n",
        made,
    )
    inner = [{"__name__": "mine_for_tests"} for _ in range(3)]
    for number, one in enumerate(inner):
        exec(f"def inner(x):\n    return x + {number}", one)
    tools = [(made["around"](one["inner"]),) for one in inner]
    digests = set()
    for turned in itertools.permutations(tools):
        made["HELD"] = _set(*turned, backwards=False)
        digests.add(fingerprints.of_code(made["value"]).digest)
    assert len(digests) == 1


def test_sets_of_functions_of_one_name_that_use_all_these_sets_are_gone_through_once(monkeypatch):
    """And not once for each way from one to another: three sets of three took a minute."""
    made = {"__name__": "mine_for_tests"}
    code = "def tool(x):\n    return x + {}, A, B, C\n"
    for number, name in enumerate("ABC"):
        made[name] = set()
        for one in range(3):
            exec(code.format(3 * number + one), made)
            made[name].add(made.pop("tool"))
    exec("def value(x):\n    return A\n", made)
    gone_through = []
    function = fingerprints.Code._of_function
    monkeypatch.setattr(
        fingerprints.Code,
        "_of_function",
        lambda *arguments: gone_through.append(1) or function(*arguments),
    )
    assert fingerprints.of_code(made["value"]).digest
    assert len(gone_through) < 500


def test_functions_of_one_name_in_a_set_are_told_apart_without_all_that_they_use(monkeypatch):
    """A table of thousands of numbers that they share would be gone through for each of them."""
    monkeypatch.delattr(fingerprints.Code, "_by_itself")
    held = {_tool(number) for number in range(20)}

    def value(x):
        return held, x

    assert fingerprints.of_code(value).digest


def test_where_code_catches_errors_is_part_of_it():
    """Of code without source: the instructions alone do not say it, from Python 3.11 on."""
    made: dict = {}
    exec(
        "def value(x):\n    try:\n        return 1 / x\n    except ZeroDivisionError:\n        return 0",
        made,
    )
    value = made["value"]
    other = types.FunctionType(value.__code__.replace(co_exceptiontable=b""), made, "value")
    assert fingerprints.of_code(value).digest != fingerprints.of_code(other).digest


@pytest.mark.parametrize(
    "edit",
    [("by=2", "by=3"), ("x: int", "x: float"), ("@around(1)", "@around(2)")],
)
def test_what_is_imported_anew_is_read_anew(edit, module):
    """Though the bytecode of the function itself is what it was."""
    text = (
        "def around(times):\n    def wrap(f):\n        return f\n    return wrap\n"
        "@around(1)\ndef value(x: int, by=2):\n    return x * by\n"
    )
    fingerprints.of_code(module(text).value)
    here = fingerprints.of_code(module(text.replace(*edit)).value)
    sources.known.clear()  # as in a process that has seen nothing else
    assert fingerprints.of_code(module(text.replace(*edit)).value).digest == here.digest


def test_an_import_of_several_names_sets_no_value(module):
    for line in (
        "global fn\n        import torch.nn.functional as fn",
        "global fn, a, b\n        from torch.nn.functional import relu as a, gelu as b, silu as fn",
    ):
        late = f"{line}\n        return self.sign * value"
        module(LOSS.replace("return self.sign * value", late))  # registered: nothing has changed


def test_a_cell_that_waits_is_known_by_its_source(module):
    """A notebook's cell may have an `await` beside the code."""
    import linecache

    text = "def value(x):\n    return x * 2\n"
    cell = f"{text}import asyncio\nawait asyncio.sleep(0)\n"
    lines = [f"{line}\n" for line in cell.splitlines()]
    linecache.cache["<a cell for tests>"] = (len(cell), None, lines, "<a cell for tests>")
    there: dict = {"__name__": "__main__"}
    exec(compile(text, "<a cell for tests>", "exec"), there)
    alone = fingerprints.of_code(module(text).value).digest
    assert fingerprints.of_code(there["value"]).digest == alone


def test_a_data_set_is_known_by_its_source_from_the_beginning(module, tmp_path):
    text = (
        "from hml_core import datasets\n"
        "def load(config, data_root):\n    return datasets.BUILT_IN['digits'].load(config, data_root)\n"
        "info = datasets.info('digits')\n"
        "datasets.register('own', datasets.DatasetInfo(load, 10, 100, info.defaults, {}, True))\n"
    )
    module(text)
    (tmp_path / "mine_for_tests.py").write_text(f"# A note.\n{text}")
    after = RunConfig(dataset="own").run_id
    module(text)
    assert RunConfig(dataset="own").run_id == after


def test_a_loss_for_many_classes_is_tried_with_few_images():
    class Many(ClassificationLoss):
        num_classes = 8142

        def per_sample(self, logits, target):
            assert len(logits) <= 102, "a gigabyte with as many as there are classes"
            return logits.logsumexp(1)

    losses.register(Many)


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.empty(3, device="meta"),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    ],
    ids=["meta", "nested", "quantized"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # that these are new, or old
def test_a_tensor_whose_values_cannot_be_told_is_refused(made):
    value = made()
    with pytest.raises(ConfigError, match="no identity"):
        fingerprints.of_value(value)


def test_views_of_tensors_count_by_their_values():
    views = (torch.tensor([1j, 2]).conj(), torch.tensor([1j, 2]).conj().imag)
    for view in views:
        assert fingerprints.of_value(view) == fingerprints.of_value(view.clone())


def test_a_bundle_is_read_by_what_was_sent(module, tmp_path):
    """A default was edited in the file after its import: what is at work counts, there too."""
    module(LOSS.replace("def value(log_p):", "def value(log_p, by=2):"))
    config = RunConfig(recipe="mine")
    _ = config.run_id
    file = tmp_path / "mine_for_tests.py"
    file.write_text(file.read_text().replace("by=2", "by=3"))
    bundle = pickle.loads(pickle.dumps(travel.pack(config)))
    sources.known.clear()
    with travel.installed(bundle):
        travel.require_same(bundle, config)
    assert not sources.sent


@pytest.mark.parametrize(
    "kind", ["FunctionType", "BuiltinFunctionType", "ModuleType", "NoneType", "CodeType"]
)
def test_a_type_of_python_counts_by_its_name(kind, module):
    """Those in C have an entry `__module__`, too: that of what they are types of."""
    text = f"from types import {kind}\ndef value(x):\n    return isinstance(x, {kind})\n"
    code = fingerprints.of_code(module(text).value)
    assert {*code.parts} <= {"value", f"builtins.{getattr(types, kind).__name__}"}
    assert not code.modules - {"mine_for_tests"}
