"""Recipes: the table of the design, and how one's own is added."""

from __future__ import annotations

import math

import pytest

from hml_core import imbalance, recipes, sampling
from hml_core.config import RunConfig
from hml_core.errors import ConfigError
from hml_core.losses import LOSSES
from hml_core.recipes import Stage
from hml_core.trainer.update import build_loss

# recipe → ((loss, weighting, sampler), …), stage ends at 200 epochs
TABLE = {
    "ce": ((("cross_entropy", "none", "instance"),), ()),
    "focal": ((("focal", "none", "instance"),), ()),
    "cs_ce": ((("cross_entropy", "CS", "instance"),), ()),
    "cb_ce": ((("cross_entropy", "CB", "instance"),), ()),
    "cb_focal": ((("focal", "CB", "instance"),), ()),
    "ldam": ((("ldam", "none", "instance"),), ()),
    "balanced_softmax": ((("balanced_softmax", "none", "instance"),), ()),
    "logit_adjustment": ((("logit_adjusted", "none", "instance"),), ()),
    "ldam_drw": ((("ldam", "none", "instance"), ("ldam", "CB", "instance")), (160,)),
    "ce_drw": (
        (("cross_entropy", "none", "instance"), ("cross_entropy", "CB", "instance")),
        (160,),
    ),
    "ce_drs": (
        (("cross_entropy", "none", "instance"), ("cross_entropy", "none", "class_balanced")),
        (160,),
    ),
    "ib": (
        (("cross_entropy", "none", "instance"), ("influence_balanced", "CS", "instance")),
        (100,),
    ),
    "deferred_focal": (
        (("cross_entropy", "none", "instance"), ("focal", "CS", "instance")),
        (100,),
    ),
    "balanced_hml": ((("balanced_hard_mining", "none", "instance"),), ()),
    "hml1": ((("cross_entropy", "none", "instance"), ("hard_mining", "CS", "instance")), (100,)),
    "hml2": ((("hard_mining", "none", "instance"), ("hard_mining", "CS", "instance")), (100,)),
    "dhml1": ((("hard_mining", "none", "instance"), ("hard_mining", "CS", "instance")), (100,)),
    "dhml2": ((("hard_mining", "none", "instance"), ("hard_mining", "CS", "instance")), (100,)),
    "chml2": ((("cross_entropy", "none", "instance"), ("hard_mining", "CS", "instance")), (100,)),
}


@pytest.mark.parametrize("name", TABLE)
def test_stages_are_those_of_the_design(name):
    config = RunConfig(recipe=name, epochs=200)
    stages, ends = TABLE[name]
    assert tuple((s.loss, s.weighting, s.sampler) for s in config.stages) == stages
    assert config.stage_ends == ends


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_built_and_names_its_source(name):
    recipe = recipes.get(name)
    assert recipe.source
    assert recipe.title
    counts = imbalance.class_counts(100, 5, "exp", 10)
    for stage in recipe.stages:
        assert stage.loss in LOSSES
        assert stage.sampler in sampling.SAMPLERS
        build_loss(stage, counts)
    assert recipe.stages[-1].until == 1.0


def test_delta_reaches_the_stages_it_should():
    first, second = recipes.get("dhml1", delta=123.0).stages
    assert first.loss_options["delta"] == math.inf  # L_f
    assert second.loss_options["delta"] == 123.0  # L_c
    first, second = recipes.get("hml2", delta=123.0).stages
    assert first.loss_options["delta"] == second.loss_options["delta"] == 123.0


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ConfigError, match=r"`recipe` to be one of ce, .*got 'hml3'"):
        recipes.get("hml3")
    with pytest.raises(ConfigError, match=r"'ce' has no option `delta`: it has no options"):
        recipes.get("ce", delta=1.0)
    with pytest.raises(ConfigError, match=r"'focal' has no option `delta`: its options are gamma"):
        recipes.get("focal", delta=1.0)


def test_ones_own_recipe_is_a_few_lines_and_trains(tmp_path):
    from hml_core.trainer import fit

    @recipes.register(title="Mine", source="this test")
    def mine(*, gamma: float = 3.0):
        return (Stage("cross_entropy", until=0.5), Stage("focal", {"gamma": gamma}, "CB"))

    try:
        config = RunConfig(recipe="mine", epochs=2)
        assert config.gamma == 3.0
        assert fit(config, runs_root=tmp_path, progress=False).history["stage"].tolist() == [0, 1]
    finally:
        del recipes.RECIPES["mine"]
