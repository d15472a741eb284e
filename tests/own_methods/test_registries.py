"""Code of one's own that asks the registries for something by name."""

from __future__ import annotations

import pickle

import pytest
import torch

from hml_core import datasets, losses, models, recipes
from hml_core.config import RunConfig
from hml_core.engines import travel
from hml_core.losses import LOSSES, ClassificationLoss
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
from hml_core.losses import BUILT_IN, LOSSES, ClassificationLoss, register
from hml_core.recipes import Stage, register as recipe

NAME, TABLE, taken = "{name}", LOSSES, LOSSES.__getitem__

@register(name="on_top_for_tests")
class OnTop(ClassificationLoss):
    def __init__(self, name={default!r}, by_option=None):
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
    "{{one: LOSSES[one] for one in {{{!r}, 'focal'}}}}[NAME]", "LOSSES[by_option or 'focal']",
    "taken(NAME)",
]  # fmt: skip


def on_top(module, asked: str, name: str) -> RunConfig:
    """A loss that asks for another by a name that stands in its code, or is among its options."""
    by_option = "by_option" in asked
    text = ON_TOP.format(
        name="" if by_option else name,
        default=name if asked == "LOSSES[name]" else None,
        options={"by_option": name} if by_option else {},
        asked=asked.format(name),
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


def test_a_recipe_made_of_another_travels_with_it(module):
    text = """
from hml_core import recipes
from hml_core.recipes import Stage, register

@register(title="Inner", source="a test")
def inner_for_tests():
    return (Stage("cross_entropy"),)

@register(title="Outer", source="a test")
def outer_for_tests():
    return recipes.get("inner_for_tests").stages
"""
    module(text)
    config = RunConfig(recipe="outer_for_tests")
    sent = pickle.loads(pickle.dumps(travel.pack(config)))
    forget()
    with travel.installed(sent):
        travel.require_same(sent, config)
        assert config.stages == recipes.get("ce").stages
    assert "inner_for_tests" not in recipes.RECIPES


DATA = """
import dataclasses
from hml_core import datasets

WHOLE = datasets.info("digits")

def part(config, data_root):
    made = WHOLE.load(config, data_root)
    made.train.targets[:2] = 0
    return made

def all_of_it(config, data_root):
    return datasets.load(dataclasses.replace(config, dataset="part_for_tests"))

for name, load in {"part_for_tests": part, "mine_of_tests": all_of_it}.items():
    given = datasets.DatasetInfo(load, 10, 100, WHOLE.defaults, {}, True)
    datasets.register(name, given)
"""


def test_a_data_set_made_of_another_has_its_identity_and_travels_with_it(module):
    ids = []
    for text in (DATA, DATA.replace("[:2] = 0", "[:2] = 1")):
        module(text)
        config = RunConfig(dataset="mine_of_tests")
        ids.append(config.run_id)
    assert ids[0] != ids[1]
    sent = pickle.loads(pickle.dumps(travel.pack(config)))
    forget()
    with travel.installed(sent):
        travel.require_same(sent, config)
        assert (datasets.load(config).train.targets[:2] == 1).all()
