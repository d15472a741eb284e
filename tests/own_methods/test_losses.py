"""Losses of one's own: subclasses are asked, plain modules are taken as they are."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from hml_core import losses, recipes
from hml_core.config import RunConfig
from hml_core.errors import ConfigError
from hml_core.losses import LOSSES, LDAMLoss, wrapping
from hml_core.recipes import Stage
from hml_core.trainer import fit
from hml_core.trainer.update import build_loss
from tests.own_methods.helpers import recipe

COUNTS = np.array([9, 5, 2])


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


@pytest.mark.slow
@pytest.mark.begun_first
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


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_subclass_is_trained_with_its_own_losses_of_images(name, weighted):
    """The mean over a batch is made of ``per_sample``, whatever fast way the base has."""
    base = LOSSES[name]
    if weighted and "weight" not in wrapping.parameters(base):
        pytest.skip("it takes no class weights")

    class Sevenfold(base):
        def per_sample(self, *batch):
            return 7 * super().per_sample(*batch)

    weight = np.array([0.5, 1.0, 1.5]) if weighted else None
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.rand(6, 3, generator=generator) - 0.5, torch.arange(6) % 3
    plain, own = (wrapping.make(kind, COUNTS, {}, weight) for kind in (base, Sevenfold))
    features = (torch.rand(6, 4, generator=generator),) if plain.needs_features else ()
    expected = 7 * plain(logits, target, *features).item()
    assert own(logits, target, *features).item() == pytest.approx(expected, rel=1e-5)


class ByClass(losses.ClassificationLoss):
    margins = torch.linspace(0.1, 1.0, 10)

    def per_sample(self, logits, target):
        return torch.nn.functional.cross_entropy(logits - self.margins, target, reduction="none")


def test_a_loss_of_the_classes_of_its_data_set_is_tried_with_as_many(tmp_path):
    recipe(Stage(ByClass))
    fit(RunConfig(recipe="mine", epochs=1), runs_root=tmp_path, progress=False)

    class Odd(ByClass):
        margins = torch.linspace(0.1, 1.0, 23)

    with pytest.raises(ConfigError, match=r"tried with 4, 10, 100 classes.* `num_classes`"):
        losses.register(Odd)
    Odd.num_classes = 23
    losses.register(Odd)


class Plain:
    """Two of them are never equal."""


class Holds(losses.ClassificationLoss):
    def __init__(self, held):
        super().__init__()

    def per_sample(self, logits, target):
        return torch.nn.functional.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(2),
        lambda: torch.ones(2),
        Plain,
        lambda: nn.CrossEntropyLoss(reduction="none"),
    ],
    ids=["an array", "a tensor", "an object", "a loss of torch"],
)
def test_an_option_may_be_what_the_recipe_makes_each_time(make, tmp_path):
    def mine():
        return Stage(Holds, {"held": make()}, until=0.5), Stage(Holds, {"held": make()})

    recipes.register(title="Mine", source="a test")(mine)
    fit(RunConfig(recipe="mine", epochs=2), runs_root=tmp_path, progress=False)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_package_can_be_mixed(name):
    losses.trials.require_mixable(build_loss(Stage(name), COUNTS), 3)
