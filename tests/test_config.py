"""RunConfig: validation with helpful messages, JSON round trip, identity."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle

import pytest

from hml_core import recipes
from hml_core.config import SETTINGS, RunConfig, grid, grids
from hml_core.errors import ConfigError

# Another valid value for every field, on a recipe that has it.
OTHER = {
    "dataset": None,  # see test_every_field_is_in_this_table
    "imbalance_type": ("step", "ce"),
    "imbalance_ratio": (10.0, "ce"),
    "subset_seed": (1, "ce"),
    "validation_fraction": None,
    "subset_classes": None,  # of image files: see tests/test_inaturalist.py
    "subset_images": None,
    "recipe": ("focal", "ce"),
    "delta": (1e3, "hml1"),
    "weighting": ("CB", "hml1"),
    "weight_placement": ("inner", "hml1"),
    "loss_scale": (10.0, "hml1"),
    "gamma": (2.0, "focal"),
    "max_margin": (0.3, "ldam"),
    "logit_scale": (20.0, "ldam"),
    "tau": (2.0, "logit_adjustment"),
    "influence_alpha": (10.0, "ib"),
    "mean_over": ("images", "ce_drw"),
    "options": None,  # of recipes of one's own: see test_options_of_ones_own_recipe
    "stage_ends": ((7,), "hml1"),
    "switch_patience": (3, "dhml1"),
    "protocol": ("official", "ce"),
    "early_drop": (True, "ce"),
    "model": ("resnet14", "ce"),
    "head": ("cosine", "ce"),
    "epochs": (30, "ce"),
    "batch_size": (64, "ce"),
    "micro_batch_size": (8, "ce"),
    "ema_decay": (0.9, "ce"),
    "compile": (True, "ce"),
    "warmup_epochs": (5, "ce"),
    "optimizer": ("adam", "ce"),
    "lr_schedule": ("one_cycle", "ce"),
    "weights": None,  # those of image files: see tests/test_isic.py
    "image_size": None,
    "normalisation": None,
    "frozen": (0.5, "ce"),
    "early_stopping": (5, "ce"),
    "learning_rate": (0.05, "ce"),
    "second_stage_rate": (0.3, "hml1"),
    "momentum": (0.8, "ce"),
    "weight_decay": (1e-3, "ce"),
    "augmentation": ("none", "ce"),
    "sampler": ("class_balanced", "ce"),
    "mix": ("mixup", "ce"),
    "mix_alpha": (0.2, "ce"),
    "label_smoothing": (0.1, "ce"),
    "label_aware_smoothing": (0.3, "ce"),
    "post_hoc_tau": (1.0, "ce"),
    "precision": ("bf16", "ce"),
    "evaluate_every": (2, "ce"),
    "deterministic": (True, "ce"),
    "seed": (1, "ce"),
}


def test_every_field_is_in_this_table():
    assert set(OTHER) == {field.name for field in dataclasses.fields(RunConfig)}


@pytest.mark.parametrize("name", [name for name, other in OTHER.items() if other])
def test_the_id_changes_with_every_field_that_matters(name):
    value, recipe = OTHER[name]
    before = RunConfig(recipe=recipe, epochs=20)
    after = RunConfig(**{"recipe": recipe, "epochs": 20, name: value})
    assert before.run_id != after.run_id
    assert before.hash != after.hash


def test_where_a_run_happens_is_no_field():
    names = {field.name for field in dataclasses.fields(RunConfig)}
    assert not names & {"device", "data_root", "runs_root", "progress", "engine"}


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(recipe="hml2", delta=math.inf, weighting="CB", stage_ends=(3,), epochs=9),
        RunConfig(recipe="ldam_drw", protocol="official", seed=2**31),
    ],
)
def test_json_round_trip_keeps_the_id(config):
    text = config.to_json()
    json.loads(text, parse_constant=pytest.fail)  # strict JSON: no Infinity, no NaN
    again = RunConfig.from_json(text)
    assert again == config
    assert again.run_id == config.run_id
    assert RunConfig.from_dict(config.to_dict()).run_id == config.run_id


def test_writing_a_default_out_is_the_same_run():
    assert RunConfig(recipe="hml1") == RunConfig(
        recipe="hml1", delta=1e4, weighting="cost_sensitive", epochs=60, stage_ends=(30,)
    )


def test_run_id_is_a_plain_folder_name():
    run_id = RunConfig(imbalance_ratio=12.5, recipe="hml1").run_id
    assert run_id.startswith("digits-exp12p5-hml1-s0-")
    assert set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


REFUSED = [
    ({"recipe": "hml3"}, "`recipe` to be one of ce, focal.*got 'hml3'"),
    ({"dataset": "mnist"}, "`dataset` to be one of digits.*got 'mnist'"),
    ({"model": "resnet33"}, "`model` to be one of .*got 'resnet33'"),
    ({"imbalance_ratio": 0.01}, "got 0.01; 0.01 is n_min / n_max: did you mean 100?"),
    ({"imbalance_ratio": 0.5}, "did you mean 2?"),
    ({"imbalance_ratio": -3.0}, "n_max / n_min ≥ 1, got -3"),
    ({"imbalance_ratio": math.nan}, "n_max / n_min ≥ 1, got nan"),
    ({"imbalance_ratio": 1000.0}, "'digits'.*0 "),
    ({"recipe": "hml1", "delta": 0.0}, "`delta` > 0, got 0.0"),
    ({"recipe": "hml1", "delta": -1.0}, "`delta` > 0, got -1.0"),
    ({"recipe": "hml1", "delta": math.nan}, "`delta` > 0, got nan"),
    ({"recipe": "hml1", "delta": "1e4"}, "`delta` to be float or None, got '1e4' \\(str\\)"),
    ({"recipe": "ce", "delta": 1e4}, "'ce' has no option `delta`"),
    ({"recipe": "hml1", "weighting": "outer"}, "got 'outer' .*is `weight_placement`"),
    ({"recipe": "hml1", "weighting": "cs"}, "`weighting` to be one of none, CS, CB, got 'cs'"),
    ({"recipe": "hml1", "stage_ends": (30, 10)}, "`stage_ends` with 1 epoch"),
    ({"recipe": "hml1", "stage_ends": (0,)}, "rise strictly between 0 and the 60 epochs"),
    ({"recipe": "hml1", "stage_ends": (60,)}, "rise strictly between 0 and the 60 epochs"),
    ({"recipe": "hml1", "stage_ends": (2.5,)}, "`stage_ends` to be"),
    ({"recipe": "hml1", "epochs": 1}, "`epochs` ≥ 2 for the recipe 'hml1', .* at 0.5 of .*, got 1"),
    ({"recipe": "crt", "epochs": 3}, "`epochs` ≥ 6 for the recipe 'crt', .* would have no epoch"),
    ({"mix": "mixup", "mix_alpha": 1e308}, "`mix_alpha` ≤ 1,000,000.0, got 1e\\+308"),
    ({"label_aware_smoothing": 0.9}, "`label_aware_smoothing` < 0.9 for 10 classes"),
    ({"recipe": "ce", "mean_over": "images"}, "'ce' has no option `mean_over`"),
    ({"recipe": "cs_ce", "mean_over": "batch"}, "`mean_over` to be one of weights, images"),
    ({"recipe": "ib", "early_drop": True}, "'ib' has a drop of its own"),
    (
        {"recipe": "hml2", "protocol": "official", "delta": 1e4},
        "runs 'hml2' with `delta` 1e\\+10, whatever it is asked",
    ),
    ({"recipe": "ldam", "head": "linear"}, "margins on cosines"),
    ({"recipe": "crt", "sampler": "square_root"}, "'crt' samples by itself"),
    ({"recipe": "balanced_softmax", "sampler": "class_balanced"}, "has already changed"),
    ({"recipe": "logit_adjustment", "post_hoc_tau": 1.0}, "correct twice"),
    ({"recipe": "balanced_hml", "post_hoc_tau": 1.0}, "correct twice"),
    ({"recipe": "balanced_hml", "sampler": "class_balanced"}, "has already changed"),
    ({"recipe": "ncm", "post_hoc_tau": 1.0}, "no class priors"),
    ({"recipe": "tau_norm", "head": "cosine"}, "has normalised its class vectors"),
    ({"label_smoothing": 0.1, "label_aware_smoothing": 0.1}, "got both"),
    ({"recipe": "hml2", "label_smoothing": 0.1}, "No stage of 'hml2' has a cross-entropy"),
    ({"recipe": "ce", "switch_patience": 3}, "has one stage: expected `switch_patience` 0"),
    (
        {"recipe": "ce", "second_stage_rate": 0.3},
        "has one stage: expected `second_stage_rate` 1, got 0.3",
    ),
    ({"recipe": "hml1", "second_stage_rate": 0.0}, "`second_stage_rate` > 0"),
    ({"recipe": "hml1", "switch_patience": -1}, "`switch_patience` ≥ 0"),
    (
        {"recipe": "dhml1", "dataset": "cifar10", "switch_patience": 3},
        "watches a validation split",
    ),
    ({"label_smoothing": 1.0}, "0 ≤ `label_smoothing` < 1"),
    ({"mix": "cutmix"}, "`mix` to be one of none, mixup, remix"),
    ({"mix_alpha": 0.0}, "0 < `mix_alpha`"),
    ({"recipe": "hml1", "delta": 1e31}, "`delta` ≤ 1e\\+30 or infinite"),
    ({"epochs": 0}, "`epochs` ≥ 1, got 0"),
    ({"epochs": 2.5}, "`epochs` to be int or None, got 2.5 \\(float\\)"),
    ({"epochs": True}, "`epochs` to be int or None, got True \\(bool\\)"),
    ({"batch_size": -1}, "`batch_size` ≥ 1"),
    ({"seed": -1}, "0 ≤ `seed`"),
    ({"learning_rate": 0.0}, "`learning_rate` > 0"),
    ({"learning_rate": math.inf}, "`learning_rate` to be finite"),
    ({"momentum": 1.0}, "0 ≤ `momentum` < 1"),
    ({"weight_decay": -1e-4}, "`weight_decay` ≥ 0"),
    ({"warmup_epochs": 61}, "0 ≤ `warmup_epochs` ≤ 60"),
    ({"validation_fraction": 0.1}, "has a validation split"),
    ({"recipe": None}, "`recipe` to be str, got None"),
    ({"protocol": "fair"}, "`protocol` to be one of official, controlled"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_bad_values_are_refused_by_name(fields, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**fields)


def test_unknown_fields_are_refused():
    with pytest.raises(ConfigError, match="no field 'learnign_rate'"):
        RunConfig.from_dict({"learnign_rate": 0.1})
    with pytest.raises(ConfigError, match="no field 'dleta'"):
        grid(recipe="hml1", hard_mining={"dleta": 1.0})
    with pytest.raises(ConfigError, match="no field 'Recipe'"):  # and not that `recipe` is None
        grid(recipe=None, Recipe="hml1")
    with pytest.raises(ConfigError, match="`hard_mining` to be `name: value` pairs, got 'delta'"):
        grid(recipe="hml1", hard_mining="delta")


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 1


def test_a_grid_is_a_product_and_hard_mining_options_reach_hml_alone():
    configs = grid(
        recipe=["ce", "hml1", "dhml2"],
        seed=[0, 1],
        imbalance_ratio=[10.0, 20.0],
        hard_mining={"delta": 1e3, "weighting": "CB"},
    )
    assert len(configs) == 12
    assert {c.delta for c in configs} == {None, 1e3}
    assert all(c.delta is None for c in configs if c.recipe != "hml1")
    assert {c.weighting for c in configs if c.recipe == "dhml2"} == {"CB"}
    assert len(grid(recipe=["ce", "ce"], seed=[0, 0])) == 1


# Ids of the records in results/records and of everything whose meaning has not changed since.
STORED_IDS = {
    "ce": "ce33a18833",
    "focal": "ca48889dbf",
    "cs_ce": "562e60916f",
    "cb_ce": "aa687abf9a",
    "cb_focal": "3bc6c728bc",
    "balanced_softmax": "72f53c7edb",
    "logit_adjustment": "69bc0398c7",
    "ce_drw": "8bb0af5d9a",
    "ce_drs": "5b2885cf31",
    "hml1": "9dff5cf257",
    "hml2": "b36acd78f0",
    "dhml1": "5716ccaf46",
    "dhml2": "83de820a09",
    "chml2": "d7e168280f",
    "lws": "ccd4fd2b57",
    "tau_norm": "87cef09728",
    "ncm": "90614d783a",
    "deferred_focal": "e4590eb14a",
    "balanced_hml": "1e82c41f5d",
}
# The same of recipes whose meaning has changed: no old record is taken for a new one.
FORMER_IDS = {
    "ldam": "a360655226",
    "ldam_drw": "3ff70c5cf5",
    "ib": "da782fdc66",
    "ib_focal": "5a660e5c19",
    "crt": "7d72bcf275",
}


def digits(recipe: str) -> RunConfig:
    stage_ends = {"stage_ends": (1,)} if len(recipes.get(recipe).stages) == 2 else {}
    return RunConfig(recipe=recipe, epochs=2, batch_size=64, **stage_ends)


def test_ids_stay_from_release_to_release_and_change_with_the_meaning():
    assert set(STORED_IDS) | set(FORMER_IDS) == set(recipes.names())
    assert {name: digits(name).run_id[-10:] for name in STORED_IDS} == STORED_IDS
    for name, former in FORMER_IDS.items():
        assert digits(name).run_id[-10:] != former, name


def test_every_stored_record_is_still_the_run_that_its_config_describes(repository):
    records = sorted((repository / "results" / "records").glob("*/*/config.json"))
    assert records
    for path in records:
        config = RunConfig.from_json(path.read_text())
        assert config.run_id == path.parent.name, path


@pytest.mark.parametrize("name", ["hml1", "hml2", "dhml1", "dhml2", "chml2"])
def test_an_option_that_a_recipe_got_later_leaves_the_ids_of_its_runs(name):
    plain = RunConfig(recipe=name)
    assert plain.mean_over == "images"
    assert RunConfig(recipe=name, mean_over="images").run_id == plain.run_id
    before = {key: value for key, value in plain.to_dict().items() if key != "mean_over"}
    assert RunConfig.from_dict({**before, "mean_over": None}) == plain  # as records have it
    by_weights = RunConfig(recipe=name, mean_over="weights")
    assert by_weights.run_id != plain.run_id
    assert RunConfig.from_json(by_weights.to_json()).run_id == by_weights.run_id
    assert {
        stage.loss_options["mean_over"] for stage in by_weights.stages if stage.loss_options
    } == {"weights"}
    with pytest.raises(ConfigError, match="`mean_over` to be one of weights, images, got 'batch'"):
        RunConfig(recipe=name, mean_over="batch")


def test_the_cross_entropies_keep_theirs():
    plain = RunConfig(recipe="ce_drw")
    assert RunConfig(recipe="ce_drw", mean_over="weights").run_id == plain.run_id
    assert RunConfig(recipe="ce_drw", mean_over="images").run_id != plain.run_id


def test_hml2_runs_with_the_delta_of_the_authors_trainer_under_their_protocol():
    """It hands its --delta to HML1 alone: HML2 keeps 1e10, a loss that is nearly without a cut."""
    config = RunConfig(recipe="hml2", protocol="official")
    assert [stage.loss_options["delta"] for stage in config.stages] == [1e10, 1e10]
    assert RunConfig(recipe="hml2").delta == 1e4
    found = grid(recipe=["hml1", "hml2"], protocol="official", hard_mining={"delta": 1e3})
    assert [config.delta for config in found] == [1e3, 1e10]


def test_a_subset_may_follow_the_seed_and_grids_share_fields():
    found = grids(
        {
            "seed": [0, 1],
            "subset_seed": "seed",
            "epochs": 20,
            "grids": [{"recipe": ["ce", "focal"]}, {"recipe": "hml1", "early_drop": [False, True]}],
        }
    )
    assert [config.seed for config in found] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert all(config.subset_seed == config.seed for config in found)
    assert [config.recipe for config in found[:4]] == ["ce", "focal", "hml1", "hml1"]
    with pytest.raises(ConfigError, match="`grids` to be a list"):
        grids({"recipe": "ce", "grids": {"seed": [0]}})


# Options of one's own ---------------------------------------------------------------------------


@pytest.fixture
def own_recipe(monkeypatch):
    """A recipe with an option that is no setting of this package, for the time of a test."""
    monkeypatch.setattr(recipes, "RECIPES", dict(recipes.RECIPES))

    @recipes.register(title="Mine", source="this test")
    def mine(*, gamma: float = 1.0, epsilon: float = 1.0, layers: tuple = (1, 2)):
        return (recipes.Stage("focal", {"gamma": gamma + epsilon}),)

    return "mine"


def test_options_of_ones_own_recipe(own_recipe):
    config = RunConfig(recipe=own_recipe, options={"epsilon": 2.0})
    assert config.options == {"epsilon": 2.0, "layers": [1, 2]}
    assert config.stages[0].loss_options == {"gamma": 3.0}
    assert config.run_id != RunConfig(recipe=own_recipe).run_id
    assert RunConfig.from_json(config.to_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert {config: 1}[RunConfig.from_json(config.to_json())] == 1
    with pytest.raises(TypeError, match="do not change"):
        config.options["epsilon"] = 3.0


def test_options_are_dimensions_of_a_grid(own_recipe):
    epsilons = {"options": {"epsilon": [0.5, 2.0], "layers": [[3, 4]]}}
    made = grid(recipe=own_recipe, seed=[0, 1], **epsilons)
    assert [(c.seed, c.options["epsilon"], c.options["layers"]) for c in made] == [
        (0, 0.5, [3, 4]), (0, 2.0, [3, 4]), (1, 0.5, [3, 4]), (1, 2.0, [3, 4]),
    ]  # fmt: skip
    whole = grid(recipe=own_recipe, options=[{}, {"epsilon": 3.0}])
    assert [config.options["epsilon"] for config in whole] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"epsilom": 1.0},
            "'mine' has no option `epsilom`: its options are gamma, epsilon, layers",
        ),
        ({"gamma": 1.0}, "`gamma` is a setting of its own: expected it beside `options`"),
        ({"epsilon": max}, "option `epsilon` to be a plain value .* got <built-in function max>"),
        ({"epsilon": math.inf}, "option `epsilon` to be finite"),
        ({"epsilon": {"deep": [object()]}}, "option `epsilon` to be a plain value"),
        ({3: 1.0}, "name of an option in `options`, got 3"),
        ([("epsilon", 1.0)], "`options` to be `name: value` pairs, got"),
    ],
)
def test_options_without_an_identity_or_a_place_are_refused(own_recipe, given, told):
    with pytest.raises(ConfigError, match=told):
        RunConfig(recipe=own_recipe, options=given)


def test_recipes_of_the_package_have_no_other_options():
    for name in recipes.names():
        assert RunConfig(recipe=name).options == {}


# Declarations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_tells_its_meaning_wherever_it_is_asked_for(name):
    known = SETTINGS[name]
    assert known.meaning
    assert known.meaning.split()[0] in known.help
    assert f"    {name} : " in RunConfig.__doc__
    if known.choices is not None:
        assert all(choice in known.help for choice in known.choices)
        other = dataclasses.replace(known).check_choice
        with pytest.raises(ConfigError, match=f"`{name}` to be one of"):
            other("nothing of that name")
