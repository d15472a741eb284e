"""Code of one's own that asks the registries for something by name."""

from __future__ import annotations

import pickle
import sys

import pytest
import torch

from hml_core import datasets, losses, models, recipes
from hml_core.config import RunConfig, identity
from hml_core.engines import travel
from hml_core.losses import LOSSES, ClassificationLoss
from hml_core.system import fingerprints, registries
from hml_core.trainer import branches
from tests.own_methods.helpers import Gentle, forget

BASE = """
from hml_core.losses import ClassificationLoss, register

@register(name="base_for_tests")
class Base(ClassificationLoss):
    def per_sample(self, logits, target):
        return 2.0 * logits.logsumexp(1) - 2.0 * logits.gather(1, target[:, None])[:, 0]
"""
ON_TOP = """
from hml_core import losses
from hml_core.losses import BUILT_IN, LOSSES, ClassificationLoss, FocalLoss, register
from hml_core.recipes import Stage, register as recipe
import dataclasses, functools, operator, pathlib
import numpy as np

WEIGHTS, WORDS = {{"{name}": 0.5, "focal": 1.0}}, np.array(["{name}"])
ROWS = np.array([("{name}", 0.5)], [("name", "U32"), ("weight", float)])
FIELDS = np.zeros(1, [("{name}" or "none", float)])
BYTES, ALL_BYTES, PATH = b"{name}", np.array([b"{name}"]), pathlib.Path("to/{name}.pt")
ITEM = operator.itemgetter("{name}")

@dataclasses.dataclass
class Weights:
    {attribute}: float = 0.5

@dataclasses.dataclass
class Given:
    {attribute}: float

def {attribute}():
    pass

def pick(name="focal"):
    return LOSSES[name]

def focal(*more):
    return FocalLoss

class Picker:
    def __init__(self, name):
        self.name = name

    def __call__(self):
        return LOSSES[self.name]

NAME, TABLE, taken = "{name}", LOSSES, LOSSES.__getitem__

@register(name="on_top_for_tests")
class OnTop(ClassificationLoss):
    def __init__(self, name={default!r}, by_option=None, tool=focal, base="focal", parts=()):
        super().__init__()
        self.inner = {asked}()

    def per_sample(self, logits, target):
        return 2 * self.inner.per_sample(logits, target)

@recipe(title="On top", source="a test")
def on_top():
    return (Stage("on_top_for_tests", {options}),)
"""
FORMS = [
    'LOSSES["{}"]', 'losses.LOSSES["{}"]', "LOSSES[NAME]", "LOSSES[name]", 'LOSSES.get("{}")',
    'TABLE["{}"]', 'vars(losses)["LOSSES"]["{}"]', "[LOSSES[one] for one in ({!r}, 'focal')][0]",
    "{{one: LOSSES[one] for one in {{{!r}, 'focal'}}}}[NAME]",
    "taken(NAME)", "[LOSSES[one] for one in WEIGHTS][0]", "LOSSES[str(WORDS[0])]",
    "[LOSSES[one] for one in LOSSES if one in {{{!r}, 'none such'}}][0]",
    'LOSSES[str(ROWS[0]["name"])]', "LOSSES[FIELDS.dtype.names[0]]", "LOSSES[BYTES.decode()]",
    "LOSSES[ALL_BYTES[0].decode()]", "LOSSES[PATH.stem]", "ITEM(LOSSES)", "LOSSES[b'{}'.decode()]",
    "[LOSSES[one] for one in dataclasses.asdict(Weights())][0]",
    "[LOSSES[one.name] for one in dataclasses.fields(Given)][0]",
]  # fmt: skip
# And where the name stands in the options of a stage.
BY_OPTIONS = {
    "LOSSES[by_option or 'focal']": '{{"by_option": "{}"}}',
    "[LOSSES[one] for one in parts or ['focal']][0]": '{{"parts": {{"{}": 0.5}}}}',
    "tool(base)": '{{"tool": pick, "base": "{}"}}',
    "tool()": '{{"tool": functools.partial(pick, "{}")}}',
    "(tool())": '{{"tool": Picker("{}")}}',
}
FORMS += BY_OPTIONS


def on_top(module, asked: str, name: str) -> RunConfig:
    """A loss that asks for another by a name that stands in its code, or is among its options."""
    options = BY_OPTIONS.get(asked)
    text = ON_TOP.format(
        name="" if options else name,
        attribute="none" if options else name,
        default=name if asked == "LOSSES[name]" else None,
        options=options.format(name) if options else {},
        asked=asked if options else asked.format(name),
    )
    module(text, "on_top_for_tests")
    return RunConfig(recipe="on_top")


@pytest.mark.parametrize("asked", [*FORMS, 'BUILT_IN["{}"]', 'losses.BUILT_IN["{}"]'])
def test_what_else_is_registered_is_no_part_of_it(asked, module):
    """A notebook with other losses in it, and what cannot be sent or has no identity."""
    config = on_top(module, asked, "focal")
    before = config.run_id
    losses.register(Gentle)
    LOSSES["odd_for_tests"] = lambda: None
    assert config.run_id == before
    sent = pickle.loads(pickle.dumps(travel.pack(config)))
    assert {str(entry.own) for entry in sent.entries} == {
        "recipe 'on_top'", "loss 'on_top_for_tests'",
    }  # fmt: skip
    made = LOSSES["on_top_for_tests"]()
    logits, target = torch.randn(3, 5), torch.tensor([0, 1, 4])
    forget()
    with travel.installed(sent):
        travel.require_same(sent, config)
        again = LOSSES["on_top_for_tests"]()
        assert isinstance(again.inner, losses.FocalLoss), "the class of this process, not a copy"
        assert torch.equal(again(logits, target), made(logits, target))


@pytest.mark.parametrize("asked", FORMS)
def test_what_it_asks_for_is_part_of_it_and_is_sent(asked, module):
    ids, given, logits, target = [], [], torch.randn(3, 5), torch.tensor([0, 1, 4])
    beginnings = []
    for old, new in ((" 2.0 *", " 2.0 *"), (" 2.0 *", " 3.0 *")):
        module(BASE.replace(old, new))
        config = on_top(module, asked, "base_for_tests")
        ids.append(config.run_id)
        beginnings.append(branches.prefixes(config)[0])
        given.append(LOSSES["on_top_for_tests"]()(logits, target))
    assert ids[0] != ids[1]
    assert beginnings[0] != beginnings[1], "nor is a beginning of before the edit gone on from"
    sent = pickle.loads(pickle.dumps(travel.pack(config)))
    forget()
    with travel.installed(sent):
        travel.require_same(sent, config)
        assert torch.equal(LOSSES["on_top_for_tests"]()(logits, target), given[1])
    assert not {"on_top_for_tests", "base_for_tests"} & {*LOSSES}


def test_a_backbone_may_ask_for_one_of_ours():
    class Halved(torch.nn.Module):
        out_features = 64

        def __init__(self, in_channels):
            super().__init__()
            self.net = models.MODELS["resnet8"](2, in_channels=in_channels)

        def forward(self, images):
            return self.net.features(images) / 2

    from hml_core.models import MODELS

    class Direct(Halved):
        def __init__(self, in_channels):
            super().__init__(in_channels)
            self.net = MODELS["resnet8"](2, in_channels=in_channels)

    assert MODELS is models.MODELS
    ids = []
    for kind in (Halved, Direct):
        models.register(kind, name="halved")
        ids.append(RunConfig(model="halved").run_id)
        models.register(Halved, name="another")
        assert RunConfig(model="halved").run_id == ids[-1]
    assert ids[0] != ids[1]
    assert len(travel.pack(RunConfig(model="halved")).entries) == 1


def test_a_loss_that_takes_a_place_asks_for_what_was_there():
    """One's own `focal` on top of this package's, which `BUILT_IN` still has."""

    class Focal(ClassificationLoss):
        def __init__(self, gamma=1.0, weighting="outer"):
            super().__init__()
            self.inner = losses.BUILT_IN["focal"](gamma)

        def per_sample(self, logits, target):
            return 2 * self.inner.per_sample(logits, target)

    before = RunConfig(recipe="focal").run_id
    losses.register(Focal, name="focal")
    assert RunConfig(recipe="focal").run_id != before
    assert [str(one.own) for one in travel.pack(RunConfig(recipe="focal")).entries] == [
        "loss 'focal'"
    ]


@pytest.mark.parametrize("options", [{}, {"name": "inner_for_tests"}], ids=["code", "option"])
def test_a_recipe_made_of_another_travels_with_it(options, module):
    """The other one's name stands in its code, or is an option of the run."""
    text = f"""
from hml_core import recipes
from hml_core.recipes import Stage, register

@register(title="Inner", source="a test")
def inner_for_tests():
    return (Stage("cross_entropy"),)

@register(title="Outer", source="a test")
def outer_for_tests(name={"ce" if options else "inner_for_tests"!r}):
    return recipes.get(name).stages
"""
    module(text)
    config = RunConfig(recipe="outer_for_tests", options=options)
    sent = pickle.loads(pickle.dumps(travel.pack(config)))
    forget()
    with travel.installed(sent):
        travel.require_same(sent, config)
        assert config.stages == recipes.get("ce").stages
    assert "inner_for_tests" not in recipes.RECIPES


ASKING = {
    "datasets.load": "",
    "load_dataset": "from hml_core.datasets import load as load_dataset",
    "other": "other = datasets.load",
    "partly": "partly = functools.partial(datasets.load)",
    "registry.load": "from hml_core.datasets import registry",
    "getattr(datasets, 'load')": "",
    "within()": "def within():\n    from hml_core.datasets import load as inner\n    return inner",
    "lambda c: about(c.dataset).load(c)": "from hml_core.datasets import info as about",
}


@pytest.mark.parametrize("asked", ASKING)
def test_a_data_set_made_of_another_has_its_identity_and_travels_with_it(asked, module):
    text = f"""
import dataclasses, functools
from hml_core import datasets
{ASKING[asked]}
WHOLE = datasets.info("digits")

def part(config, data_root=None):
    made = WHOLE.load(config, data_root)
    made.train.targets[:2] = LABEL
    return made

def made_of_it(config, data_root=None):
    ask = {asked}
    ask = {"ask" if asked != "within()" else "within()"}
    return ask(dataclasses.replace(config, dataset="part_for_tests"))

for name, load in dict(part_for_tests=part, whole_for_tests=made_of_it).items():
    datasets.register(name, datasets.DatasetInfo(load, 10, 100, WHOLE.defaults, {{}}, True))
"""
    ids = []
    for label in "01":
        forget()
        module(text.replace("LABEL", label))
        config = RunConfig(dataset="whole_for_tests")
        ids.append(config.run_id)
    assert ids[0] != ids[1]
    sent = pickle.loads(pickle.dumps(travel.pack(config)))
    forget()
    with travel.installed(sent):
        travel.require_same(sent, config)
        assert datasets.load(config).train.targets[:2].tolist() == [1, 1]


OF_EACH_KIND = {
    "loss": """
from hml_core.losses import ClassificationLoss, register
@register(name="asked_for_tests")
class Asked(ClassificationLoss):
    def per_sample(self, logits, target):
        return FACTOR * logits.logsumexp(1)
""",
    "sampler": """
from hml_core import sampling
@sampling.register
def asked_for_tests(counts, progress):
    return counts ** FACTOR / (counts ** FACTOR).sum()
""",
    "model": """
from torch import nn
from hml_core import models
@models.register(name="asked_for_tests")
class Asked(nn.Module):
    out_features = 4
    def __init__(self, in_channels):
        super().__init__()
        self.net = nn.Conv2d(in_channels, 4, 3)
    def forward(self, images):
        return FACTOR * self.net(images).mean((2, 3))
""",
    "dataset": """
from hml_core import datasets
WHOLE = datasets.info("digits")
def load(config, data_root):
    made = WHOLE.load(config, data_root)
    made.train.targets[:2] = int(FACTOR)
    return made
datasets.register(
    "asked_for_tests", datasets.DatasetInfo(load, 10, 100, WHOLE.defaults, {}, True)
)
""",
    "recipe": """
from hml_core import recipes
@recipes.register(title="Asked", source="a test")
def asked_for_tests():
    return (recipes.Stage("cross_entropy", learning_rate_scale=FACTOR),)
""",
}


@pytest.mark.parametrize(
    ("asker", "kind"),
    [pytest.param(*one, id=one[0].__qualname__) for one in registries._asking.values()],
)
def test_of_all_that_asks_a_registry_what_it_is_asked_for_counts(asker, kind, module):
    """Whatever it is called there."""
    text = f"""
from {asker.__module__} import {asker.__qualname__} as it
def value(*more):
    return it("asked_for_tests", *more)
"""
    value, digests = module(text, "asking_for_tests").value, []
    for factor in ("1.0", "0.5"):
        forget()
        module(OF_EACH_KIND[kind].replace("FACTOR", factor))
        code = fingerprints.of_code(value)
        assert code.registered == {(kind, "asked_for_tests")}
        digests.append(code.digest)
    assert digests[0] != digests[1]
    sys.modules.pop("asking_for_tests")


def test_a_member_of_a_librarys_enumeration_may_have_the_name_that_is_asked_for(module):
    text = """
from http import HTTPStatus
from hml_core.losses import LOSSES
STATUS = HTTPStatus.GONE
def value(*more):
    return LOSSES[STATUS.name](*more)
"""
    value = module(text).value
    losses.register(Gentle, name="GONE")
    assert fingerprints.of_code(value).registered == {("loss", "GONE")}


def test_methods_of_the_names_that_ask_are_no_asking(module):
    """`get` and `load` of anything else; and a data set that has its own name in its code."""
    text = """
import os
import numpy as np
from hml_core import datasets
from hml_core.losses import ClassificationLoss, register
from hml_core.recipes import Stage, register as recipe
WHOLE = datasets.info("digits")

@register(name="margin_for_tests")
class Margin(ClassificationLoss):
    def __init__(self, settings=None):
        super().__init__()
        self.margin = dict(settings or ()).get("other_for_tests", 0.5)

    def per_sample(self, logits, target):
        return self.margin * (logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0])

@recipe(title="Margin", source="a test")
def margin():
    return (Stage("margin_for_tests"),)

def load(config, data_root):
    if data_root is not None:
        np.load(os.path.join(data_root, "birds_for_tests", "images.npy"))
    return datasets.info("digits").load(config, data_root)

datasets.register(
    "birds_for_tests", datasets.DatasetInfo(load, 10, 100, WHOLE.defaults, {}, True)
)
"""
    module(text)
    configs = [RunConfig(recipe="margin"), RunConfig(dataset="birds_for_tests")]
    before = [config.run_id for config in configs]

    @recipes.register(title="Other", source="a test")
    def other_for_tests():
        return recipes.get("ce").stages

    assert [config.run_id for config in configs] == before
    datasets.DATASETS["other_for_tests"] = datasets.DATASETS["birds_for_tests"]
    assert [config.run_id for config in configs] == before
    (entry,) = travel.pack(configs[1]).entries
    assert str(entry.own) == "dataset 'birds_for_tests'"
    assert not any(code.registered for _, code in identity.code_of(configs[1])), "it is itself"


def test_in_which_order_the_registries_are_known_is_no_part_of_it(module, monkeypatch):
    """Another import may come first in the next process; and what is asked for may have one name."""
    text = """
from hml_core import losses, models, recipes
from torch import nn

class Same(losses.ClassificationLoss):
    def per_sample(self, logits, target):
        return logits.logsumexp(1)

losses.register(Same, name="same_for_tests")

class Same(nn.Module):
    out_features = 4

    def __init__(self, in_channels):
        super().__init__()
        self.net = nn.Conv2d(in_channels, 4, 3)

    def forward(self, images):
        return self.net(images).mean((2, 3))

models.register(Same, name="same_for_tests")

class Loss(losses.ClassificationLoss):
    def __init__(self):
        super().__init__()
        self.inner = losses.LOSSES["same_for_tests"]()
        self.net = models.MODELS["same_for_tests"]

    def per_sample(self, logits, target):
        return self.inner.per_sample(logits, target)

losses.register(Loss, name="on_top_for_tests")

@recipes.register(title="On top", source="a test")
def on_top():
    return (recipes.Stage("on_top_for_tests"),)
"""
    module(text)
    config = RunConfig(recipe="on_top")
    before = config.run_id
    assert len(travel.pack(config).entries) == 4, "both are asked for"
    monkeypatch.setattr(registries, "known", dict(reversed(registries.known.items())))
    assert config.run_id == before


IMPORTING = """
from hml_core import datasets
WHOLE = datasets.info("digits")

def load(config, data_root):
    import part_for_tests
    return part_for_tests.changed(WHOLE.load(config, data_root))

datasets.register("own_for_tests", datasets.DatasetInfo(load, 10, 100, WHOLE.defaults, {}, True))
"""
PART = """
def changed(made):
    made.train.targets[:2] = LABEL
    return made
"""


def test_what_a_loader_imports_is_taken_in_when_it_is_used(module, tmp_path, monkeypatch):
    """Not when it is registered: that may import the module which is only just being made."""
    part = tmp_path / "part_for_tests.py"
    ids = []
    for text in ("raise RuntimeError", PART.replace("LABEL", "0"), PART.replace("LABEL", "1")):
        part.write_text(text)
        monkeypatch.delitem(sys.modules, part.stem, raising=False)
        module(IMPORTING)  # as a cell that is executed again
        assert part.stem not in sys.modules
        ids.append(RunConfig(dataset="own_for_tests").run_id)
    assert len({*ids}) == 3, "one that failed is imported again, once somebody has mended it"
    monkeypatch.delitem(sys.modules, part.stem)


def test_all_that_looks_something_up_by_name_says_so():
    """What does not would be no part of the identity of code that uses it: it is tried above."""
    asking = {f"{one.__module__}.{one.__qualname__}" for one, _ in registries._asking.values()}
    assert asking == {
        "hml_core.sampling.function_of", "hml_core.sampling.sampling_probabilities",
        "hml_core.trainer.update.build_loss", "hml_core.datasets.registry.info",
        "hml_core.datasets.registry.load", "hml_core.models.build", "hml_core.recipes.Stage",
        "hml_core.recipes.get",
    }  # fmt: skip
