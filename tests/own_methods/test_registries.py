"""Code of one's own that asks the registries for something by name."""

from __future__ import annotations

import pickle

import pytest
import torch

from hml_core import losses, models
from hml_core.config import RunConfig
from hml_core.engines import travel
from hml_core.losses import LOSSES, ClassificationLoss
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

NAME = "{name}"

@register(name="on_top_for_tests")
class OnTop(ClassificationLoss):
    def __init__(self, name="{name}"):
        super().__init__()
        self.inner = {asked}()

    def per_sample(self, logits, target):
        return 2 * self.inner.per_sample(logits, target)

@recipe(title="On top", source="a test")
def on_top():
    return (Stage("on_top_for_tests"),)
"""
FORMS = ['LOSSES["{}"]', 'losses.LOSSES["{}"]', "LOSSES[NAME]", "LOSSES[name]", 'LOSSES.get("{}")']


def on_top(module, asked: str, name: str) -> RunConfig:
    module(ON_TOP.format(name=name, asked=asked.format(name)), "on_top_for_tests")
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
    for old, new in ((" 2.0 *", " 2.0 *"), (" 2.0 *", " 3.0 *")):
        module(BASE.replace(old, new))
        config = on_top(module, asked, "base_for_tests")
        ids.append(config.run_id)
        given.append(LOSSES["on_top_for_tests"]()(logits, target))
    assert ids[0] != ids[1]
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
