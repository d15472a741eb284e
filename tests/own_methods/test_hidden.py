"""What stands between code of one's own and the identity: libraries' decorators, modules that values hold,
imports that fail or are not made, other threads."""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
import types

import numpy as np
import pytest
import torch

from hml_core import datasets, losses
from hml_core.config import RunConfig
from hml_core.engines import travel
from hml_core.errors import ConfigError
from hml_core.losses import ClassificationLoss
from hml_core.system import fingerprints, seeds, sources
from tests.own_methods.helpers import LOSS, Gentle

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


def test_threads_that_send_at_once_send_all(module):
    """cloudpickle has one list of what goes by value, for all of them."""
    module(LOSS)
    config, sent, begin = RunConfig(recipe="mine"), [], threading.Barrier(2)

    def send() -> None:
        begin.wait()
        for _ in range(20):
            sent.extend(entry.content for entry in travel.pack(config).entries)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.modules.pop("mine_for_tests")
    assert len(sent) == 80
    for content in sent:
        travel._loaded(content)


def test_a_data_set_draws_the_same_whatever_other_threads_do(tmp_path):
    """Another thread of the program registers and loads meanwhile: it waits. One of the loader's own does
    not."""
    inside, others_began = threading.Event(), threading.Event()
    drawn, done = [], []

    def load(config, data_root):
        first = np.random.random(3)  # noqa: NPY002
        if threading.current_thread() is threading.main_thread() and not drawn:
            inside.set()
            others_began.wait(10)
            own = threading.Thread(target=lambda: done.append(losses.register(Gentle)))
            state = torch.get_rng_state()
            own.start()
            own.join()
            torch.set_rng_state(state)
            assert done, "a thread of the loader has the generators"
        drawn.append([*first, *np.random.random(3), *torch.rand(3).tolist()])  # noqa: NPY002
        return datasets.BUILT_IN["digits"].load(config, data_root)

    info = datasets.info("digits")
    # (Not registered: what it waits for has no identity.)
    datasets.DATASETS["own"] = datasets.DatasetInfo(load, 10, 100, info.defaults, {}, True)
    config = RunConfig(dataset="own")

    def others() -> None:
        inside.wait(10)
        others_began.set()
        datasets.load(config)

    stranger = threading.Thread(target=others)
    stranger.start()
    datasets.load(config)
    stranger.join()
    assert len(drawn) == 2
    assert drawn[0] == drawn[1]
    assert seeds._lent.lenders == 0
    assert not seeds._lent.strangers


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
