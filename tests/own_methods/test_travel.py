"""One's own methods on other processes: the same code, and the same bits."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hml_core import datasets, engines, losses, models, runs, sampling
from hml_core.config import RunConfig, identity
from hml_core.engines import travel
from hml_core.errors import ConfigError, RunError
from hml_core.losses import LOSSES
from hml_core.recipes import Stage
from hml_core.system import sources
from hml_core.trainer import fit
from hml_core.trainer.branches import Point
from tests.own_methods.helpers import LOSS, Gentle, Small, forget, halves, load_reversed, recipe


def everything(module) -> RunConfig:
    """A run in which all is one's own."""
    module(LOSS)
    models.register(Small)
    sampling.register(halves)
    info = datasets.info("digits")
    datasets.register(
        "own_digits", datasets.DatasetInfo(load_reversed, 10, 100, info.defaults, {}, True)
    )
    return RunConfig(recipe="mine", model="Small", sampler="halves", dataset="own_digits", epochs=1)


def test_what_enters_the_identity_is_what_travels(module, tmp_path):
    config = everything(module)
    assert [own.kind for own in identity.used(config)] == [
        "recipe", "dataset", "model", "loss", "sampler",
    ]  # fmt: skip
    bundle = travel.pack(config)
    assert {entry.own for entry in bundle.entries} == {*identity.used(config)}
    sent = pickle.loads(pickle.dumps(bundle))
    forget()
    with pytest.raises(ConfigError):
        _ = config.run_id
    with travel.installed(sent):
        travel.require_same(sent, config)
        assert config.run_id == bundle.run_id
    assert "mine" not in LOSSES, "gone after the run"
    assert not travel.pack(RunConfig()).entries


def test_a_file_may_be_edited_while_its_code_is_at_work(module, tmp_path):
    """A note above it, half a line: what is at work stays the same run, here and where it is sent to."""
    module(LOSS)
    config = RunConfig(recipe="mine")
    before = config.run_id
    file = tmp_path / "mine_for_tests.py"
    for edited in (
        f"# A note.\n\n{LOSS}",
        LOSS.replace("return -log_p", "return -2 * log_p"),
        "def",
    ):
        file.write_text(edited)
        assert config.run_id == before
        bundle = pickle.loads(pickle.dumps(travel.pack(config)))
        known = dict(sources.known)
        sources.known.clear()  # as another process
        with travel.installed(bundle):
            travel.require_same(bundle, config)
        sources.known.update(known)


def test_a_process_with_other_code_is_told_apart(module):
    module(LOSS)
    config = RunConfig(recipe="mine")
    bundle = travel.Bundle(config.run_id)
    module(LOSS.replace("sign = 1.0", "sign = -1.0"))
    with pytest.raises(RunError, match="expected the same code"):
        travel.require_same(bundle, config)


def test_what_cannot_be_unpacked_is_an_error_of_the_run_that_needs_it_alone(module):
    """Other runs that part from it on the way are evaluated elsewhere, or not at all."""
    module(LOSS)
    own, plain = RunConfig(recipe="mine"), RunConfig()
    bundle = travel.pack(own)
    broken = [replace(entry, content=b"no pickle") for entry in bundle.entries]
    forget()
    with (
        pytest.raises(RunError, match=r"mine' cannot be unpacked by this process: .*Unpickling"),
        travel.installed(replace(bundle, entries=tuple(broken))),
    ):
        pass
    unneeded = tuple(replace(entry, is_needed=False) for entry in broken)
    points = [Point(1, "key", (own, plain))]
    with travel.installed(replace(bundle, entries=unneeded)):
        (point,) = travel.known_here(points)
    assert point.views == (plain,)
    with travel.installed(bundle):
        assert travel.known_here(points) == tuple(points)


LATE = """
    def later(self, logits):
        from helper_for_travel import scaled
        return scaled(logits)
"""


@pytest.mark.parametrize("is_called", [False, True])
def test_a_module_that_is_imported_within_a_function_travels(is_called, module, monkeypatch):
    """Whether training calls it or not: it is part of the identity."""
    module("FACTOR = 2.0\ndef scaled(x):\n    return FACTOR * x", "helper_for_travel")
    text = LOSS.replace("    def per_sample", f"{LATE}\n    def per_sample")
    if is_called:
        text = text.replace("return self.sign * value(", "return self.sign * self.later(")
    module(text)
    config = RunConfig(recipe="mine")
    bundle = travel.pack(config)
    forget()
    monkeypatch.delitem(sys.modules, "helper_for_travel")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "pytest" not in entry])
    with travel.installed(bundle):
        travel.require_same(bundle, config)
        assert LOSSES["mine"]().later(torch.ones(2)).tolist() == [2.0, 2.0]
    assert "helper_for_travel" not in sys.modules


WITHIN = """
import copy, enum
from dataclasses import dataclass, field

@dataclass
class Settings:
    by: float = 1.5
    names: list = field(default_factory=lambda: ["a"])

class Plain:
    class Inner:
        by = 2.0

SETTINGS = Settings()

def make():
    class Level(enum.Enum):
        LOW = 1
    @register(name="mine")
    class Made(Mine):
        def per_sample(self, logits, target):
            scale = Plain.Inner.by * copy.copy(SETTINGS).by * Level.LOW.value
            return scale * super().per_sample(logits, target)
make()
"""


def test_a_class_within_a_function_or_a_class_is_the_same_elsewhere(module):
    """And one whose objects are copied, on the way or while it works."""
    module(LOSS + WITHIN)
    config = RunConfig(recipe="mine")
    bundle = travel.pack(config)
    travel.pack(config)
    assert config.run_id == bundle.run_id
    forget()
    with travel.installed(bundle):
        travel.require_same(bundle, config)


PACKAGE = {
    "__init__": "",
    "other": "def other():\n    return 1\n",
    "util": "import threading\nfrom .other import other\nFACTOR, LOCK = 2.0, threading.Lock()\n\n"
    "def scaled(x):\n    return FACTOR * x\n\ndef unused():\n    return 1\n",
    "deep": "from . import util\nimport mine_for_travel.core\n\n"
    "def doubled(x):\n    return util.scaled(x)\n",
}
WAYS = {
    "the package": ("import mine_for_travel.util", "", "mine_for_travel.util.scaled(x)"),
    "a module": ("from . import util", "", "util.scaled(x)"),
    "both": ("from .util import scaled", "from . import util", "util.scaled(x) + scaled(x)"),
    "late": ("", "import mine_for_travel.util as u", "u.scaled(x)"),
    "late from": ("from .util import scaled", "from .util import scaled as s", "scaled(x) + s(x)"),
    "in a circle": ("from . import deep", "", "deep.doubled(x)"),
    "late in a circle": ("", "from mine_for_travel import deep", "deep.doubled(x)"),
    "by getattr": ("from . import util", "", "getattr(util, 'scal' + 'ed')(x)"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_modules_of_a_package_travel_as_they_hold_each_other(way, tmp_path, monkeypatch):
    """With what of them cannot be pickled left out, as nobody asks for it."""
    first, late, value = WAYS[way]
    head, _, rest = LOSS.partition("SCALE = 1.0")
    rest = rest.replace(
        "(ClassificationLoss):",
        f"(ClassificationLoss):\n    def by(self, x):\n        {late or 'pass'}\n        return {value}",
    )
    folder = tmp_path / "mine_for_travel"
    folder.mkdir()
    for name, text in {**PACKAGE, "core": f"{first}\n{head}SCALE = 1.0{rest}"}.items():
        (folder / f"{name}.py").write_text(text)
    with monkeypatch.context() as here:
        here.syspath_prepend(tmp_path)
        importlib.import_module("mine_for_travel.core")
        config = RunConfig(recipe="mine")
        wanted = LOSSES["mine"]().by(1.0)
        bundle = pickle.loads(pickle.dumps(travel.pack(config)))
        forget()
    for name in [name for name in sys.modules if name.startswith("mine_for_travel")]:
        del sys.modules[name]
    with travel.installed(bundle):
        travel.require_same(bundle, config)
        assert LOSSES["mine"]().by(1.0) == wanted
    assert not [name for name in sys.modules if name.startswith("mine_for_travel")]


def test_dask_trains_what_is_ones_own_to_the_bits_of_this_process(module, tmp_path, forked_workers):
    """With a replaced built-in, and a recipe that cannot travel beside a baseline that can."""
    from distributed import LocalCluster

    own = everything(module)
    LOSSES["focal"] = Gentle
    replaced = RunConfig(recipe="focal", epochs=1)
    stays = recipe(Stage("cross_entropy", until=0.5), Stage("mine"), name="stays")
    stays.generator = (i for i in ())  # a function's attribute cannot be pickled
    bad, baseline = (RunConfig(recipe=name, epochs=2) for name in ("stays", "ce"))
    every = [own, replaced, bad, baseline]
    with LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=None,
        silence_logs="CRITICAL",
    ) as cluster:  # fmt: skip
        engine = f"dask:{cluster.scheduler_address}"
        frame = engines.sweep(every, engine=engine, runs_root=tmp_path / "dask", progress=False)
        assert frame["status"].tolist() == ["done", "done", "failed", "done"], frame[
            "error"
        ].tolist()
        assert "cannot be sent" in frame["error"][2]
        for config in (own, replaced, baseline):
            here = fit(config, runs_root=tmp_path / "here", progress=False)
            there = runs.Run(tmp_path / "dask" / config.run_id)
            np.testing.assert_array_equal(here.predictions[0], there.predictions[0])
        LOSSES["focal"] = losses.BUILT_IN["focal"]
        plain = RunConfig(recipe="focal", epochs=1)
        engines.sweep([plain], engine=engine, runs_root=tmp_path / "dask", progress=False)
    here = fit(plain, runs_root=tmp_path / "here", progress=False)
    there = runs.Run(tmp_path / "dask" / plain.run_id)
    np.testing.assert_array_equal(here.predictions[0], there.predictions[0])
