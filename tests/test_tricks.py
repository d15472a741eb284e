"""Tricks: each does what its paper says, combines with the recipes, and is chosen on validation."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hml_core import engines, recipes
from hml_core.augment import draw_mix, remix_share
from hml_core.config import RunConfig
from hml_core.errors import ConfigError
from hml_core.losses import LOSSES
from hml_core.losses.cross_entropy import CrossEntropyLoss, label_aware_smoothing
from hml_core.runs import Run
from hml_core.trainer import fit
from hml_lab.studies import tricks
from tests.losses.test_common import CLASSES, COUNTS, batch, every_loss, make
from tests.quick import slow_but


def test_mixup_draws_one_share_a_batch_and_partners_within_it():
    mix = draw_mix(10, 4, 1.0, seed=0)
    assert sorted(mix.partner[:4].tolist()) == [0, 1, 2, 3]
    assert sorted(mix.partner[8:].tolist()) == [0, 1]
    assert len(set(mix.share[:4].tolist())) == 1
    assert len(set(mix.share.tolist())) == 3
    many = draw_mix(20_000, 1, 2.0, seed=1).share
    assert many.mean().item() == pytest.approx(0.5, abs=0.01)
    assert many.var().item() == pytest.approx(1 / 20, abs=0.003)  # of Beta(2, 2)


def test_remix_gives_the_label_to_the_rarer_class():
    """Equation 8 of Chou et al. with κ = 3, τ = 0.5, case by case."""
    share = torch.tensor([0.4, 0.6, 0.4, 0.6, 0.4])
    first = torch.tensor([300.0, 300.0, 100.0, 100.0, 250.0])
    second = torch.tensor([100.0, 100.0, 300.0, 300.0, 100.0])
    expected = torch.tensor([0.0, 0.6, 0.4, 1.0, 0.4])
    torch.testing.assert_close(remix_share(share, first, second), expected)


@every_loss
def test_mixed_labels_of_one_class_are_the_plain_loss(name):
    logits, target, features = batch()
    loss = make(name, weight=[0.2, 0.5, 1.0, 2.0, 4.0])
    extra = (features,) if loss.needs_features else ()
    plain = loss(logits, target, *extra)
    for share in (torch.zeros(32), torch.full((32,), 0.3), torch.ones(32)):
        mixed = loss.mixed(logits, target, target, share.double(), *extra)
        assert mixed.item() == pytest.approx(plain.item(), rel=1e-9)


def test_mixed_cross_entropy_is_that_of_the_mixed_label():
    logits, target, _ = batch()
    other = target.roll(1)
    share = torch.rand(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.zeros(32, CLASSES, dtype=torch.float64)
    label[range(32), target] += share
    label[range(32), other] += 1 - share
    expected = torch.nn.functional.cross_entropy(logits, label)
    found = CrossEntropyLoss().mixed(logits, target, other, share)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_label_aware_smoothing_is_that_of_mislas():
    """Written from the paper: mass ε_c goes to the C − 1 other classes, most for the head."""
    values = label_aware_smoothing(COUNTS, head=0.4, tail=0.1)
    counts = np.array(COUNTS, dtype=float)
    position = (counts - counts.min()) / (counts.max() - counts.min())
    epsilon = 0.1 + 0.3 * np.sin(0.5 * np.pi * position)
    logits, target, _ = batch()
    log_p = logits.log_softmax(dim=1).numpy()
    wanted = np.repeat((epsilon / (CLASSES - 1))[target.numpy()][:, None], CLASSES, axis=1)
    wanted[np.arange(32), target.numpy()] = 1 - epsilon[target.numpy()]
    expected = -(wanted * log_p).sum(axis=1).mean()
    found = CrossEntropyLoss(label_smoothing=values)(logits, target)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="0 ≤ `tail` ≤ `head`"):
        label_aware_smoothing(COUNTS, head=0.1, tail=0.2)


def test_equal_smoothing_by_class_is_plain_smoothing():
    logits, target, _ = batch()
    weight = [0.2, 0.5, 1.0, 2.0, 4.0]
    for name in ("cross_entropy", "ldam", "balanced_softmax", "logit_adjusted"):
        by_class = make(name, weight=weight, label_smoothing=[0.1] * CLASSES)(logits, target)
        plain = make(name, weight=weight, label_smoothing=0.1)(logits, target)
        if name in ("balanced_softmax", "logit_adjusted"):  # they take no weights
            assert by_class.item() == pytest.approx(plain.item(), rel=1e-9)
        else:  # torch weighs the spread mass by the classes that receive it, as ours does
            assert by_class.item() == pytest.approx(plain.item(), rel=1e-9)
    assert set(LOSSES) > {"ldam"}


REFUSED = {
    ("hml2", "label smoothing 0.1"),
    ("hml2", "label-aware smoothing 0.3"),
    ("balanced_softmax", "post-hoc logit adjustment"),
    ("balanced_softmax", "any sampler"),
    ("crt", "any sampler"),
}


RECIPES = ("ce", "hml1", "hml2", "ldam_drw", "balanced_softmax", "ib", "crt")
QUICK = ("ce",)


def is_refused(recipe: str, trick: str) -> bool:
    return (recipe, trick) in REFUSED or ((recipe, "any sampler") in REFUSED and "sampler" in trick)


def fields_of(recipe: str, trick: str) -> dict[str, Any]:
    # From unit class vectors the first epochs at the full rate make outliers, which L_c leaves alone.
    epochs = 40 if (recipe, trick) == ("hml2", "cosine classifier") else 10
    return {"recipe": recipe, "epochs": epochs, "batch_size": 128, **tricks.TRICKS[trick]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of several recipes with a trick; what they have in common is trained once (the same bits)."""
    root = tmp_path_factory.mktemp("tricks")

    @functools.cache
    def trained(trick: str, several: tuple[str, ...]) -> Path:
        able = [recipe for recipe in several if not is_refused(recipe, trick)]
        configs = [RunConfig(**fields_of(recipe, trick)) for recipe in able]
        engines.sweep(configs, runs_root=root, progress=False)
        return root

    return trained


@pytest.mark.begun_first
@pytest.mark.parametrize("trick", tricks.TRICKS)
@pytest.mark.parametrize("recipe", slow_but(QUICK, RECIPES))
def test_every_trick_trains_or_is_refused_with_a_reason(trick, recipe, trained):
    fields = fields_of(recipe, trick)
    if is_refused(recipe, trick):
        with pytest.raises(ConfigError, match=r"[Ee]xpected `"):
            RunConfig(**fields)
        return
    several = QUICK if recipe in QUICK else tuple(one for one in RECIPES if one not in QUICK)
    run = Run(trained(trick, several) / RunConfig(**fields).run_id).verify()
    assert run.history["train_loss"].notna().all()
    # Chance is 0.1. (HML2 with a cosine classifier stays at two classes of ten on some machines.)
    assert run.selection("best_test")["balanced_accuracy"] > 0.15


def test_tricks_leave_the_other_draws_alone(tiny):
    """Order and crops of a run are the same with and without mixing."""
    from hml_core import datasets
    from hml_core.trainer import Trainer

    seen = []
    for fields in ({}, {"mix": "mixup"}):
        config = tiny(**fields)
        one = Trainer(config, datasets.load(config), torch.device("cpu"))
        original = one.feed.bank.batch
        orders = []

        def spy(indices, draws=None, original=original, orders=orders):
            orders.append((indices.tolist(), draws.top.tolist()))
            return original(indices, draws)

        one.feed.bank.batch = spy
        for _ in one.train_epoch():
            pass
        seen.append(orders)
    assert seen[0] == seen[1]


def test_post_hoc_adjustment_takes_the_priors_off(tiny, tmp_path):
    plain = fit(tiny(), runs_root=tmp_path, progress=False)
    adjusted = fit(tiny(post_hoc_tau=1.5), runs_root=tmp_path, progress=False)
    priors = plain.class_counts / plain.class_counts.sum()
    expected = plain.predictions[0] - 1.5 * np.log(priors)
    np.testing.assert_allclose(adjusted.predictions[0], expected, rtol=1e-5, atol=1e-5)


def test_gains_are_paired_by_seed():
    frame = pd.DataFrame(
        {
            "trick": ["none"] * 3 + ["mixup"] * 3,
            "recipe": "ce",
            "seed": [0, 1, 2] * 2,
            "status": "done",
            "last_balanced_accuracy": [0.7, 0.8, 0.9, 0.71, 0.82, 0.93],
        }
    )
    (row,) = tricks.gains(frame).to_dict("records")
    assert row["difference"] == pytest.approx(2.0)
    assert row["n"] == 3
    assert (row["each"], row["collapsed"]) == ("+1.0 / +2.0 / +3.0", 0)
    lost = frame.assign(num_classes=10).replace({"last_balanced_accuracy": {0.82: 0.1}})
    (row,) = tricks.gains(lost).to_dict("records")
    assert (row["each"], row["collapsed"]) == ("+1.0 / -70.0 / +3.0", 1)
    assert np.isnan([row[name] for name in ("difference", "low", "high", "p_holm")]).all()
    assert tricks.gains(frame).attrs["family"].startswith("a family of 1 test for each recipe")


def test_the_greedy_choice_follows_validation_not_the_test_set(monkeypatch):
    """With scores made so that test and validation disagree."""
    validation = {(): 0.5, ("mixup",): 0.6, ("sampler",): 0.7, ("sampler", "mixup"): 0.65}

    def fake(configs, **options):
        rows = []
        for config in configs:
            used = ("sampler",) * (config.sampler != "instance") + ("mixup",) * (
                config.mix == "mixup"
            )
            rows.append(
                {
                    "recipe": "ce",
                    "run_id": config.run_id,
                    "seed": config.seed,
                    "status": "done",
                    "last_validation_score": validation[used],
                    "last_balanced_accuracy": 1 - validation[used],
                }
            )
        return pd.DataFrame(rows)

    monkeypatch.setattr("hml_lab.studies.tricks.engines.sweep", fake)
    chosen, steps = tricks.greedy({"recipe": "ce"}, [0, 1], ["mixup", "square-root sampler"])
    assert chosen == ("square-root sampler",)
    assert steps["validation"].tolist() == [50.0, 70.0]


def test_unknown_tricks_are_refused_and_senseless_ones_listed():
    with pytest.raises(ConfigError, match=r"`tricks` out of mixup, .*got \['mixdown'\]"):
        tricks.one_at_a_time({"recipe": "ce"}, [0], ["mixdown"])
    made, refused = tricks.one_at_a_time({"recipe": "hml2"}, [0])
    assert set(refused) == {"label smoothing 0.1", "label-aware smoothing 0.3"}
    assert set(made) | set(refused) == {"none", *tricks.TRICKS}
    assert "crt" in recipes.names()
