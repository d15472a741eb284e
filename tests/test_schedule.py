"""Both schedules, epoch by epoch, against the published code's if-chain written out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hml_core import recipes
from hml_core.config import RunConfig
from hml_core.schedule import boundary, learning_rates


def published(epoch: int, early_drop: bool) -> float:
    """The rate of epoch 1 … 200, as the LDAM code (and, with the drop, the authors' code) sets it."""
    if epoch <= 5:
        return 0.1 * epoch / 5
    if epoch > 180:
        return 0.1 * (0.000001 if early_drop else 0.0001)
    if epoch > 160:
        return 0.1 * (0.0001 if early_drop else 0.01)
    if early_drop and epoch > 100:
        return 0.1 * 0.01
    return 0.1


@pytest.mark.parametrize(
    ("recipe", "protocol", "drops"),
    [
        ("ce", "official", False),
        ("ldam_drw", "official", False),
        ("ce_drw", "official", False),
        ("hml1", "official", True),
        ("hml2", "official", True),
        ("ce", "controlled", False),
        ("hml1", "controlled", False),
        ("hml2", "controlled", False),
    ],
)
def test_200_epochs_are_the_published_ones(recipe, protocol, drops):
    rates = learning_rates(RunConfig(recipe=recipe, protocol=protocol, epochs=200))
    expected = [published(epoch, drops) for epoch in range(1, 201)]
    assert rates.dtype == np.float64
    assert rates.shape == (200,)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_controlled_is_the_same_for_every_recipe_without_a_restart():
    reference = learning_rates(RunConfig(recipe="ce", epochs=40))
    for recipe in ("focal", "ldam_drw", "hml1", "hml2", "dhml1", "dhml2", "chml2"):
        np.testing.assert_array_equal(
            learning_rates(RunConfig(recipe=recipe, epochs=40)), reference
        )


def test_ib_keeps_its_own_drop_under_both_protocols():
    """Its authors' code: ×0.01 from the IB stage on, on top of the milestones of every method."""
    expected = [published(epoch, True) for epoch in range(1, 201)]
    for recipe in ("ib", "ib_focal"):
        for protocol in ("official", "controlled"):
            config = RunConfig(recipe=recipe, protocol=protocol, epochs=200)
            np.testing.assert_allclose(learning_rates(config), expected, rtol=1e-12)
            assert config.method.has_own_schedule
            assert recipes.title(recipe).endswith("(own schedule)")
    others = [name for name in recipes.names() if name not in ("ib", "ib_focal")]
    assert not any(recipes.get(name).has_own_schedule for name in others)


@pytest.mark.parametrize("recipe", ["crt", "lws"])
def test_a_cosine_is_over_before_the_classifier_is_trained_again(recipe):
    """As on iNaturalist: stage 1 is a whole run of its own."""
    config = RunConfig(recipe=recipe, epochs=100, lr_schedule="cosine", warmup_epochs=0)
    alone = RunConfig(recipe="ce", epochs=90, lr_schedule="cosine", warmup_epochs=0)
    rates = learning_rates(config)
    np.testing.assert_array_equal(rates[:90], learning_rates(alone))
    assert rates[89] < 1e-4 * rates[0] * 10
    assert rates[90] == pytest.approx(0.1)


def test_the_early_drop_can_be_given_to_a_baseline_and_taken_from_hml():
    """The factorial of schedule and loss needs all four corners."""
    expected = [published(epoch, True) for epoch in range(1, 201)]
    given = RunConfig(recipe="ce", epochs=200, early_drop=True)
    np.testing.assert_allclose(learning_rates(given), expected, rtol=1e-12)
    taken = RunConfig(recipe="hml1", epochs=200, protocol="official", early_drop=False)
    expected = [published(epoch, False) for epoch in range(1, 201)]
    np.testing.assert_allclose(learning_rates(taken), expected, rtol=1e-12)


def test_the_drop_of_hml_moves_with_its_switch():
    rates = learning_rates(
        RunConfig(recipe="hml1", epochs=200, protocol="official", stage_ends=(150,))
    )
    assert rates[149] == pytest.approx(0.1)
    assert rates[150] == pytest.approx(0.001)


@pytest.mark.parametrize("fields", [{}, {"early_drop": True}, {"stage_ends": (150,)}])
def test_the_second_stage_can_have_another_rate(fields):
    plain = RunConfig(recipe="ce_drw", epochs=200, **fields)
    slower = dataclasses.replace(plain, second_stage_rate=0.3)
    end = plain.stage_ends[0]
    expected = learning_rates(plain) * np.where(np.arange(200) < end, 1, 0.3)
    np.testing.assert_allclose(learning_rates(slower), expected, rtol=1e-15)


def test_a_shorter_run_keeps_the_shape():
    long = learning_rates(RunConfig(recipe="hml2", protocol="official", epochs=200))
    short = learning_rates(RunConfig(recipe="hml2", protocol="official", epochs=40))
    np.testing.assert_allclose(short[1:], long[5::5][:39], rtol=1e-12)


def test_classifier_retraining_restarts_with_a_cosine():
    rates = learning_rates(RunConfig(recipe="crt", epochs=200))
    np.testing.assert_allclose(rates[180], 0.1)
    np.testing.assert_allclose(rates[190], 0.05)
    assert rates[199] < 0.001
    assert (np.diff(rates[180:]) < 0).all()


def test_boundaries_round_half_up():
    assert [boundary(f, 10) for f in (0.0, 0.15, 0.25, 0.5, 1.0)] == [0, 2, 3, 5, 10]
