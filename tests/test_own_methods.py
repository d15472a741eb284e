"""One's own losses, recipes, models, data sets and samplers: checked, identified, sent along."""

from __future__ import annotations

import enum
import functools
import importlib
import math
import pickle
import sys
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from hml_core import datasets, engines, losses, models, recipes, runs, sampling
from hml_core.config import RunConfig, identity
from hml_core.engines import travel
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.losses import LOSSES, ClassificationLoss, LDAMLoss
from hml_core.recipes import Stage
from hml_core.system import extensions, fingerprints
from hml_core.trainer import branches, fit
from hml_core.trainer.update import build_loss

COUNTS = np.array([9, 5, 2])


@pytest.fixture(autouse=True)
def registries():
    """What a test registers is gone after it."""
    before = {kind: dict(registry) for kind, registry in identity.REGISTRIES.items()}
    own = dict(sampling._OWN)
    yield
    for kind, registry in identity.REGISTRIES.items():
        registry.clear()
        registry.update(before[kind])
    sampling._OWN.clear()
    sampling._OWN.update(own)


def recipe(*stages: Stage, name: str = "mine", **options):
    """Register a recipe of these stages."""

    def build():
        return stages

    build.__name__ = name
    return recipes.register(title="Mine", source="a test", **options)(build)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a file of one's own, again with each text."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str, name: str = "mine_for_tests"):
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    sys.modules.pop("mine_for_tests", None)


LOSS = """
from hml_core.losses import ClassificationLoss, register
from hml_core.recipes import Stage, register as recipe
SCALE = 1.0

def value(log_p):
    return -log_p * SCALE

@register(name="mine")
class Mine(ClassificationLoss):
    \"\"\"One's own.\"\"\"
    sign = 1.0
    def per_sample(self, logits, target):
        logits = self._check(logits, target)
        return self.sign * value(logits.log_softmax(1).gather(1, target[:, None])[:, 0])

@recipe(title="Mine", source="a test")
def mine():
    return (Stage("mine"),)
"""


# The code is part of a result ------------------------------------------------------------------------


def test_an_edit_of_a_loss_or_of_what_it_calls_is_another_run(module):
    def run_id(old: str = "", new: str = "") -> str:
        module(LOSS.replace(old, new) if old else LOSS)
        return RunConfig(recipe="mine").run_id

    first = run_id()
    assert run_id() == first, "imported again"
    assert run_id("One's own.", "Another text.") == first, "a docstring does nothing"
    assert run_id("    sign = 1.0", "    sign = 1.0  # why not") == first
    edits = {
        "self.sign *": "-self.sign *", "-log_p *": "-2 * log_p *", "SCALE = 1.0": "SCALE = 3.0",
        "sign = 1.0": "sign = -1.0",
    }  # fmt: skip
    assert len({first, *(run_id(old, new) for old, new in edits.items())}) == 1 + len(edits)


def test_a_file_that_was_edited_but_not_imported_again_is_not_taken_for_what_runs(module):
    mine = module(LOSS)
    first = RunConfig(recipe="mine").run_id
    path = mine.__file__
    text = LOSS.replace("-log_p * SCALE", "-log_p * SCALE * 7")
    with open(path, "w") as stream:
        stream.write(text)
    stale = RunConfig(recipe="mine").run_id
    edited = module(text) and RunConfig(recipe="mine").run_id
    assert len({first, stale, edited}) == 3


def test_an_edited_loss_trains_again(module, tmp_path):
    module(LOSS)
    config = RunConfig(recipe="mine", epochs=1)
    ups = fit(config, runs_root=tmp_path, progress=False)
    module(LOSS.replace("sign = 1.0", "sign = -1.0"))
    downs = fit(config, runs_root=tmp_path, progress=False)
    assert ups.run_id != downs.run_id
    assert (ups.history["train_loss"] > 0).all()
    assert (downs.history["train_loss"] < 0).all()


class Gentle(losses.FocalLoss):
    def per_sample(self, logits, target):
        return 0.5 * super().per_sample(logits, target)


class Small(nn.Module):
    """Two convolutions."""

    out_features = 8

    def __init__(self, in_channels):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, images):
        return self.net(images).flatten(1)


def halves(counts, progress):
    """Towards equal shares."""
    return 0.5 * counts / counts.sum() + 0.5 / len(counts)


def load_reversed(config, data_root):
    return datasets.BUILT_IN["digits"].load(config, data_root)


def replace_loss():
    LOSSES["focal"] = Gentle
    return RunConfig(recipe="focal")


def replace_model():
    models.MODELS["resnet8"] = models.OwnModel(Small)
    return RunConfig()


def replace_recipe():
    recipe(Stage("cross_entropy", {}, "CS"), name="ce")
    return RunConfig()


def replace_dataset():
    datasets.register(
        "digits",
        datasets.DatasetInfo(
            load_reversed, **{k: v for k, v in vars(datasets.info("digits")).items() if k != "load"}
        ),
    )
    return RunConfig()


@pytest.mark.parametrize("replace", [replace_loss, replace_recipe, replace_model, replace_dataset])
def test_whatever_takes_a_built_in_ones_place_is_another_run(replace):
    plain = RunConfig(recipe="focal" if replace is replace_loss else "ce").run_id
    assert replace().run_id != plain


def test_what_is_not_used_does_not_enter():
    plain = RunConfig().run_id
    replace_loss()
    recipe(Stage("focal"))
    assert RunConfig().run_id == plain
    assert not identity.own_part(RunConfig())


def test_an_attribute_is_not_taken_for_what_the_module_calls_by_the_same_name(module):
    text = "import math\npi = {}\ndef area(r):\n    return r * math.pi\n"
    digests = [fingerprints.of_code(module(text.format(n)).area).digest for n in (1, 2)]
    assert digests[0] == digests[1]
    text = "import math\npi = {}\ndef area(r):\n    return r * pi\n"
    digests = [fingerprints.of_code(module(text.format(n)).area).digest for n in (1, 2)]
    assert digests[0] != digests[1]


def test_code_without_source_is_known_by_its_bytecode():
    def of(factor: float) -> str:
        space = {"ClassificationLoss": ClassificationLoss, "__name__": "__main__"}
        head = "class Mine(ClassificationLoss):\n    def per_sample(self, l, t): "
        exec(f"{head}return l[:, 0] * {factor}", space)
        return fingerprints.of_code(space["Mine"]).digest

    assert of(2.0) == of(2.0) != of(3.0)


# Values ----------------------------------------------------------------------------------------------


def test_values_are_told_apart_by_what_they_hold():
    long = np.zeros(8142)
    other = long.copy()
    other[4000] = 1
    values = [
        None, True, 1, 1.0, "1", math.inf, (1, 2), {"a": 1}, {"a": [1]}, long, other, long[:-1],
        torch.zeros(3), torch.zeros(3, dtype=torch.float64), torch.zeros(3, 1), np.float32(1),
        Gentle, torch.bfloat16,
    ]  # fmt: skip
    assert len({fingerprints.of_value(value) for value in values}) == len(values)
    assert fingerprints.of_value((1, 2)) == fingerprints.of_value([1, 2]), "as JSON has them"
    assert fingerprints.of_value({"a": 1, "b": 2}) == fingerprints.of_value({"b": 2, "a": 1})


class Odd(ClassificationLoss):
    def __init__(self, by=None):
        super().__init__()

    def per_sample(self, logits, target):
        return logits.logsumexp(1)


@pytest.mark.parametrize("value", [lambda x: x, open(__file__), object(), iter(())])  # noqa: SIM115
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


# Checked when registered -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss": "focl"}, "`loss` to be one of cross_entropy, .* got 'focl'"),
        ({"trains": "clasifier"}, "`trains` to be one of all, classifier, class_scales, got"),
        ({"sampler": "balanced"}, "`sampler` to be one of instance"),
        ({"weighting": "cs"}, "`weighting` to be one of none, CS, CB, got 'cs'"),
        ({"loss": "focal", "loss_options": {"gama": 1}}, "to be one of gamma, .* got 'gama'"),
        ({"loss": "balanced_softmax", "weighting": "CB"}, "takes no class weights"),
        (
            {"loss": "focal", "loss_options": {"reduction": "sum"}},
            "`reduction` .* 'mean', got 'sum'",
        ),
        ({"loss_options": {"weight": [1, 2]}}, "the stage's `weighting`"),
        ({"loss_options": {"label_smoothing": 0.1}}, "a setting of the run"),
        ({"loss": "ldam", "loss_options": {"class_counts": [1]}}, "from the training set"),
        ({"until": 0.0}, "0 < `until` ≤ 1"),
        ({"until": 1.5}, "0 < `until` ≤ 1"),
        ({"until": "half"}, "0 < `until` ≤ 1"),
        ({"learning_rate_scale": -1}, "`learning_rate_scale` > 0"),
        ({"own_learning_rate_scale": math.nan}, "`own_learning_rate_scale` > 0"),
        ({"restart": 1}, "`restart` to be True or False"),
        ({"loss": nn.Linear}, "does not work"),
        ({"loss": nn.CrossEntropyLoss()}, "its class, not an instance"),
        ({"loss": 3}, "a class of torch.nn.Module"),
    ],
)
def test_a_stage_that_cannot_be_trained_is_refused_where_it_is_written(fields, said):
    with pytest.raises(ConfigError, match=said):
        Stage(**{"loss": "cross_entropy", **fields})


def test_a_recipe_that_cannot_be_trained_is_refused_when_it_is_registered():
    with pytest.raises(ConfigError, match="`post_hoc` to be one of tau_norm, ncm, got 'taunorm'"):
        recipe(Stage("cross_entropy"), post_hoc="taunorm")
    with pytest.raises(ConfigError, match="needs the option `tau`"):
        recipe(Stage("cross_entropy"), post_hoc="tau_norm")
    with pytest.raises(ConfigError, match="a tuple of stages"):
        recipe()
    with pytest.raises(ConfigError, match=r"rise to 1.*\[0.5, 0.3, 1.0\]"):
        recipe(Stage("focal", until=0.5), Stage("focal", until=0.3), Stage("focal"))
    with pytest.raises(ConfigError, match="rise to 1"):
        recipe(Stage("focal", until=0.5))
    with pytest.raises(ConfigError, match=r"does not work: .*`gamma` ≥ 0"):
        recipe(Stage("focal", {"gamma": -1.0}))
    with pytest.raises(ConfigError, match="`a` of the recipe 'needs' to have a default"):

        @recipes.register(title="t", source="s")
        def needs(a):
            return (Stage("focal"),)

    with pytest.raises(ConfigError, match="a function with a name"):
        recipes.register(title="t", source="s")(lambda: (Stage("focal"),))
    assert set(recipes.RECIPES) == set(recipes.BUILT_IN)


class Negative(ClassificationLoss):
    def per_sample(self, logits, target):
        return logits[:, 0] / 0


class Detached(ClassificationLoss):
    def per_sample(self, logits, target):
        return logits.detach()[:, 0]


@pytest.mark.parametrize("kind", [Negative, Detached, nn.Identity, nn.CosineEmbeddingLoss])
def test_a_loss_that_does_not_work_is_refused_when_it_is_registered(kind):
    with pytest.raises(ConfigError, match=r"does not work|one finite number"):
        losses.register(kind)
    assert kind.__name__ not in LOSSES


# Ask the class ---------------------------------------------------------------------------------------


class Softer(LDAMLoss):
    """A subclass says what its base says."""


def test_a_subclass_of_ldam_has_a_cosine_head_and_scales_once():
    recipe(Stage(Softer))
    config = RunConfig(recipe="mine")
    assert config.head == "cosine"
    assert config.scales_itself
    assert build_loss(config.stages[0], COUNTS).logit_scale == 30.0
    with pytest.raises(ConfigError, match="expected `head` 'cosine'"):
        RunConfig(recipe="mine", head="linear")


def test_cross_entropy_before_ldam_works_on_scaled_cosines(tmp_path):
    recipe(Stage("cross_entropy", until=0.5), Stage("ldam"))
    config = RunConfig(recipe="mine", epochs=30)
    first, second = (build_loss(stage, COUNTS) for stage in config.stages)
    assert first.logit_scale == second.logit_scale == 30.0
    cosines, target = torch.rand(6, 3) * 2 - 1, torch.arange(6) % 3
    plain = nn.functional.cross_entropy(30 * cosines, target)
    assert first(cosines, target).item() == pytest.approx(plain.item(), rel=1e-6)
    mixed = first.mixed(cosines, target, target.flip(0), torch.full((6,), 0.25))
    parts = [nn.functional.cross_entropy(30 * cosines, t) for t in (target, target.flip(0))]
    assert mixed.item() == pytest.approx((0.25 * parts[0] + 0.75 * parts[1]).item(), rel=1e-6)
    run = fit(config, runs_root=tmp_path, progress=False)
    assert run.history["validation_balanced_accuracy"][14] > 0.6, "0.43 on bare cosines"


def test_a_subclass_corrects_priors_and_mines_as_its_base_does():
    class Tilted(losses.BalancedSoftmaxLoss):
        pass

    class Mined(losses.HardMiningLoss):
        pass

    recipe(Stage(Tilted))
    with pytest.raises(ConfigError, match="corrects for class frequencies"):
        RunConfig(recipe="mine", sampler="class_balanced")
    recipe(Stage(Mined), name="mining")
    assert recipes.is_hard_mining("mining")
    assert [n for n in recipes.BUILT_IN if recipes.is_hard_mining(n)] == [
        "hml1", "hml2", "dhml1", "dhml2", "chml2", "balanced_hml",
    ]  # fmt: skip


# Plain modules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["none", "CS"])
def test_torchs_cross_entropy_is_ours(weighting, tmp_path):
    logits, target, other = torch.randn(12, 3), torch.arange(12) % 3, torch.arange(12).flip(0) % 3
    share = torch.rand(12)
    theirs = build_loss(Stage(nn.CrossEntropyLoss, {}, weighting), COUNTS)
    ours = build_loss(Stage("cross_entropy", {}, weighting), COUNTS)
    torch.testing.assert_close(theirs(logits, target), ours(logits, target))
    torch.testing.assert_close(
        theirs.mixed(logits, target, other, share), ours.mixed(logits, target, other, share)
    )
    total = ours.total_weight(target, other, share)
    if total is not None:
        torch.testing.assert_close(theirs.total_weight(target, other, share), total)
    recipe(Stage(nn.CrossEntropyLoss, {}, weighting))
    config = RunConfig(recipe="mine", epochs=1, mix="mixup", label_smoothing=0.1)
    assert math.isfinite(fit(config, runs_root=tmp_path, progress=False).history["train_loss"][0])


class OfBatch(nn.Module):
    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target)


def test_a_plain_module_without_losses_of_images_trains_and_says_why_it_cannot_mix(tmp_path):
    recipe(Stage(OfBatch))
    run = fit(RunConfig(recipe="mine", epochs=1), runs_root=tmp_path, progress=False)
    ce = fit(RunConfig(epochs=1), runs_root=tmp_path, progress=False)
    np.testing.assert_array_equal(run.predictions[0], ce.predictions[0])
    with pytest.raises(ConfigError, match="Mixed images need the loss of each"):
        fit(RunConfig(recipe="mine", epochs=1, mix="mixup"), runs_root=tmp_path, progress=False)


@pytest.mark.parametrize("target", [-100, -1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_a_label_that_is_no_class_is_the_same_error_for_every_loss(name, target):
    loss = build_loss(Stage(name), COUNTS)
    extra = (torch.ones(2, 4),) if loss.needs_features else ()
    with pytest.raises(ValueError, match=rf"classes 0 … 2, got {target}"):
        loss(torch.randn(2, 3), torch.tensor([0, target]), *extra)


def test_a_delta_below_one_is_warned_of():
    with pytest.warns(UserWarning, match="below 1 the loss is negative"):
        assert losses.HardMiningLoss(delta=0.5)(torch.tensor([[3.0, 0.0]]), torch.tensor([0])) < 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses.HardMiningLoss(delta=1.0)


# Backbones and samplers ------------------------------------------------------------------------------


def test_ones_own_backbone_is_registered_like_a_loss(tmp_path):
    models.register(Small)
    config = RunConfig(model="Small", epochs=1, recipe="ldam")
    run = fit(config, runs_root=tmp_path, progress=False)
    assert run.config.model == "Small"
    assert models.build("Small", 5, "cosine", in_channels=1)(torch.zeros(2, 1, 9, 9)).shape == (
        2,
        5,
    )
    with pytest.raises(ConfigError, match=r"`model` to be one of resnet8, .*Small, got 'Smal'"):
        RunConfig(model="Smal")


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (lambda in_channels: nn.Conv2d(in_channels, 4, 3), "`out_features`"),
        (lambda in_channels: nn.Linear(7, 4), "does not work"),
        (lambda: None, "to take `in_channels`"),
    ],
)
def test_a_backbone_that_does_not_work_is_refused(backbone, said):
    with pytest.raises(ConfigError, match=said):
        models.register(backbone, name="odd")
    assert "odd" not in models.MODELS


def test_ones_own_sampler_is_drawn_from_and_is_part_of_the_run():
    sampling.register(halves)
    np.testing.assert_allclose(sampling.sampling_probabilities([3, 1], "halves"), [0.625, 0.375])
    config = RunConfig(sampler="halves")
    assert list(identity.own_part(config)) == ["sampler 'halves'"]
    recipe(Stage("cross_entropy", sampler="halves"))
    assert "sampler 'halves'" in identity.own_part(RunConfig(recipe="mine"))

    def odd(counts, progress):
        return counts

    with pytest.raises(ConfigError, match="one probability for each class"):
        sampling.register(odd)


# To other processes ----------------------------------------------------------------------------------


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


def forget() -> None:
    for registry, built_in in zip(
        identity.REGISTRIES.values(), identity._BUILT_IN.values(), strict=True
    ):
        registry.clear()
        registry.update(built_in)
    sampling._OWN.clear()
    sys.modules.pop("mine_for_tests", None)


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


def test_a_process_with_other_code_is_told_apart(module):
    module(LOSS)
    config = RunConfig(recipe="mine")
    bundle = travel.Bundle(config.run_id)
    module(LOSS.replace("sign = 1.0", "sign = -1.0"))
    with pytest.raises(RunError, match="expected the same code"):
        travel.require_same(bundle, config)


def test_dask_trains_what_is_ones_own_to_the_bits_of_this_process(module, tmp_path, monkeypatch):
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


# Records and imports ---------------------------------------------------------------------------------


def test_a_record_whose_method_is_not_registered_here_is_read_and_named(module, tmp_path):
    module(LOSS)
    run = fit(RunConfig(recipe="mine", epochs=1), runs_root=tmp_path, progress=False)
    forget()
    with pytest.warns(UserWarning, match=r"made with the .*recipe 'mine'.* not registered here"):
        frame = runs.load(tmp_path)
    assert frame["recipe"].tolist() == ["mine"]
    assert frame["last_top1"][0] == run.selection("last")["top1"]
    module(LOSS.replace("sign = 1.0", "sign = -1.0"))  # registered, with other code
    with pytest.warns(UserWarning, match="other code"):
        assert runs.load(tmp_path)["run_id"].tolist() == [run.run_id]
    (run.path / "config.json").write_text(
        (run.path / "config.json").read_text().replace("32", "64")
    )
    with pytest.raises(RunError, match="damaged"):
        runs.Run(run.path).verify()


def test_files_and_modules_are_brought(module, tmp_path, monkeypatch):
    file = tmp_path / "brought_for_tests.py"
    file.write_text(LOSS)
    first = extensions.bring([str(file)])
    assert extensions.bring(str(file)) == first, "once in a process"
    assert "mine" in recipes.names()
    with pytest.raises(ConfigError, match=r"there is no '.*none.py'"):
        extensions.bring([str(tmp_path / "none.py")])
    with pytest.raises(ConfigError, match="there is no 'no_such_module'"):
        extensions.bring(["no_such_module"])
    (tmp_path / "broken_for_tests.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"broken_for_tests.*ZeroDivisionError"):
        extensions.bring([str(tmp_path / "broken_for_tests.py")])
    (tmp_path / "json.py").write_text("")
    with pytest.raises(ConfigError, match="another module called 'json'"):
        extensions.bring([str(tmp_path / "json.py")])
    sys.modules.pop("brought_for_tests")


def test_commands_take_imports(tmp_path):
    from click.testing import CliRunner

    from hml_lab.cli import main

    file = tmp_path / "cli_for_tests.py"
    file.write_text(LOSS)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("recipe: [mine, ce]\nepochs: 1\n")
    call = functools.partial(CliRunner().invoke, main)
    place = ["--runs-root", str(tmp_path / "runs"), "--import", str(file)]
    told = call(["train", "--recipe", "mine", "--epochs", "1", "--quiet", *place])
    assert told.exit_code == 0, told.output
    told = call(["sweep", str(sweep), *place])
    assert told.exit_code == 0, told.output
    assert "2 done" in told.output
    sys.modules.pop("cli_for_tests")


def test_beginnings_are_told_apart_by_whole_arrays():
    from hml_core.trainer.branches import _content

    long = np.zeros(8142)
    other = long.copy()
    other[4000] = 1
    first, second, again = (_content(Stage(Odd, {"by": v})) for v in (long, other, long.copy()))
    assert first == again != second


# What others tried -----------------------------------------------------------------------------------


def scaled(factor):
    """A loss that holds a value around it."""

    class Scaled(ClassificationLoss):
        def per_sample(self, logits, target):
            return factor * nn.functional.cross_entropy(logits, target, reduction="none")

    return Scaled


def test_two_losses_of_one_function_are_not_taken_for_each_other():
    once = Stage(scaled(1.0), until=0.5)
    with pytest.raises(ConfigError, match="Two losses called 'Scaled'"):
        recipe(once, Stage(scaled(5.0)))
    assert Stage(scaled(1.0)).loss == "Scaled", "the same again"


def test_a_default_that_is_filled_in_is_the_same_run_when_it_is_read_again():
    @recipes.register(title="t", source="s")
    def mine(*, gamma=2, epsilon: float = 1.0):
        return (Stage("focal", {"gamma": gamma}),)

    config = RunConfig(recipe="mine", options={"epsilon": 2})
    assert (type(config.gamma), type(config.options["epsilon"])) == (float, float)
    assert RunConfig.from_json(config.to_json()).run_id == config.run_id
    assert RunConfig(recipe="mine", options={"epsilon": 2.0}).run_id == config.run_id
    info = datasets.info("digits")
    for defaults in ({"learning_rate": 1}, {"learning_rate": "1"}, {"epohs": 3}):
        own = datasets.DatasetInfo(load_reversed, 10, 100, {**info.defaults, **defaults}, {}, True)
        datasets.register("own_digits", own)
        if defaults == {"learning_rate": 1}:
            config = RunConfig(dataset="own_digits")
            assert RunConfig.from_json(config.to_json()).run_id == config.run_id
        else:
            with pytest.raises(ConfigError, match=r"learning_rate|'epohs', which is no setting"):
                RunConfig(dataset="own_digits")


def test_an_option_does_not_shadow_a_setting():
    @recipes.register(title="t", source="s")
    def mine(*, epochs=3):
        return (Stage("focal"),)

    with pytest.raises(ConfigError, match="`epochs` is a setting of every run"):
        RunConfig(recipe="mine")
    with pytest.raises(ConfigError, match="`seed` is a setting of its own"):
        RunConfig(options={"seed": 3})


def test_what_a_recipe_raises_is_an_error_of_the_config():
    def positional(gamma=1.0, /):
        return (Stage("focal"),)

    with pytest.raises(ConfigError, match="by name, got `gamma"):
        recipes.register(title="t", source="s")(positional)
    with pytest.raises(ConfigError, match="a function with a name"):
        recipes.register(title="t", source="s")(functools.partial(halves))

    @recipes.register(title="t", source="s")
    def mine(*, epsilon=1.0):
        return (Stage("focal", {"gamma": 1 / (2 - epsilon)}),)

    with pytest.raises(
        ConfigError, match=r"'mine' does not make its stages of .*ZeroDivisionError"
    ):
        RunConfig(recipe="mine", options={"epsilon": 2.0})


def test_a_dataset_that_cannot_be_read_is_refused_when_it_is_registered():
    for name, entry in (("own", load_reversed), ("own", None), ("a b", datasets.info("digits"))):
        with pytest.raises(ConfigError, match=r"DatasetInfo|to be a word"):
            datasets.register(name, entry)
        assert name not in datasets.DATASETS


class OfSum(nn.Module):
    def __init__(self, reduction="sum"):
        super().__init__()
        self.reduction = reduction

    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target, reduction=self.reduction)


def test_a_loss_that_sums_by_default_is_told_to_take_the_mean():
    with pytest.raises(ConfigError, match="to be 'mean', got 'sum'"):
        Stage(OfSum)
    assert Stage(OfSum, {"reduction": "mean"}).loss == "OfSum"


class Louder(losses.FocalLoss):
    def forward(self, logits, target):
        return 7 * super().forward(logits, target)


def test_a_subclass_that_changes_forward_alone_is_not_mixed_as_its_base(tmp_path):
    recipe(Stage(Louder))
    with pytest.raises(ConfigError, match="Mixed images would have another loss"):
        fit(RunConfig(recipe="mine", epochs=1, mix="mixup"), runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("digits*/config.json")), "before the record is begun"


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_package_can_be_mixed(name):
    losses.registry.require_mixable(build_loss(Stage(name), COUNTS), 3)


def test_a_config_that_is_older_than_its_recipe_is_refused(tmp_path):
    recipe(Stage("focal", until=0.5), Stage("focal"))
    fewer = RunConfig(recipe="mine", epochs=2)
    recipe(Stage("focal"))
    with pytest.raises(ConfigError, match="stage_ends"):
        fit(fewer, runs_root=tmp_path, progress=False)
    before = RunConfig(recipe="mine", epochs=1)

    @recipes.register(title="t", source="s")
    def mine(*, epsilon=1.0):
        return (Stage("focal", {"gamma": epsilon}),)

    with pytest.raises(ConfigError, match="registered anew since it was made"):
        fit(before, runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("digits*/config.json"))


def test_an_edit_does_not_go_on_from_what_the_old_code_began(module):
    def keys(text: str) -> set[str]:
        module(text)
        configs = [RunConfig(recipe="mine", epochs=3, evaluate_every=n) for n in (1, 2)]
        return {key for config in configs for key in branches.prefixes(config)}

    first = keys(LOSS)
    assert keys(LOSS) == first
    assert len(first) == 3, "two ways to look at one training"
    assert not first & keys(LOSS.replace("sign = 1.0", "sign = -1.0"))
    before = branches.prefixes(RunConfig(epochs=2))
    replace_dataset()
    assert not {*before} & {*branches.prefixes(RunConfig(epochs=2))}


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


def test_a_value_that_holds_itself_is_refused():
    circle = {}
    circle["itself"] = circle
    with pytest.raises(ConfigError, match="without a circle"):
        fingerprints.of_value(circle)


def test_a_script_that_ends_python_does_not_end_the_command(tmp_path):
    (tmp_path / "ends_for_tests.py").write_text("raise SystemExit(0)")
    with pytest.raises(ConfigError, match="SystemExit"):
        extensions.bring(str(tmp_path / "ends_for_tests.py"))
    (tmp_path / "lacks_for_tests.py").write_text("import lack")
    with pytest.raises(ConfigError, match="No module named 'lack'"):
        extensions.bring(str(tmp_path / "lacks_for_tests.py"))


def test_an_option_is_given_once(tmp_path):
    from click.testing import CliRunner

    from hml_lab.cli import main

    twice = ["--options", "epsilon", "1.0", "--options", "epsilon", "2.0"]
    told = CliRunner().invoke(main, ["train", *twice, "--runs-root", str(tmp_path)])
    assert told.exit_code != 0
    assert "'epsilon' twice" in (told.output + str(told.exception))


COUNTER = [0]
KEPT = {}


class Counting(Odd):
    def per_sample(self, logits, target):
        COUNTER[0] += 1
        return super().per_sample(logits, target)


class Keeping(Odd):
    def per_sample(self, logits, target):
        KEPT.setdefault(logits.shape, len(logits))
        return super().per_sample(logits, target)


class Learned(Odd):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Running(Odd):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def per_sample(self, logits, target):
        self.seen += 1
        return super().per_sample(logits, target)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Counting, "changes, while it works, a value of its module"),
        (Keeping, "changes, while it works, a value of its module"),
        (Learned, r"has parameters \(scale\), which no stage trains"),
        (Running, r"changes its state \(seen\), which no checkpoint holds"),
    ],
)
def test_a_loss_that_would_not_be_the_same_after_a_step_is_refused(kind, said):
    with pytest.raises(ConfigError, match=said):
        losses.register(kind)
    assert kind.__name__ not in LOSSES


class Late(Odd):
    def per_sample(self, logits, target):
        if logits.shape[1] == 10:
            raise RuntimeError("ten classes")
        return super().per_sample(logits, target)


class Coloured(nn.Module):
    """Takes three channels, whatever it is asked for."""

    out_features = 8

    def __init__(self, in_channels):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)

    def forward(self, images):
        return self.convolution(images).mean((2, 3))


def three(counts, progress):
    return np.array([0.2, 0.3, 0.5])


def load_badly(config, data_root):
    return 1 / 0


def test_what_fails_on_these_classes_and_images_fails_before_the_record(tmp_path):
    recipe(Stage("cross_entropy", until=0.5), Stage(Late))
    models.register(Coloured)
    sampling.register(three)
    info = datasets.DatasetInfo(load_badly, 10, 100, datasets.info("digits").defaults, {}, True)
    datasets.register("own_digits", info)
    for fields, said in (
        ({"recipe": "mine"}, "Stage 2 of the recipe 'mine' .* ten classes"),
        ({"model": "Coloured"}, r"'Coloured' does not work on images of 1 × 8 × 8"),
        ({"sampler": "three"}, r"'three' to give one probability for each class \(10\)"),
        ({"dataset": "own_digits"}, "loader of 'own_digits' failed: ZeroDivisionError"),
    ):
        with pytest.raises((ConfigError, DataError), match=said):
            fit(RunConfig(epochs=2, **fields), runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("*/config.json"))
