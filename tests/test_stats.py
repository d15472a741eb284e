"""Intervals and tests against closed forms, scipy and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from hml_lab import stats
from hml_lab.stats import every_pair
from tests.quick import slow_but

A = np.array([75.1, 74.2, 76.0, 75.5, 74.9])
B = np.array([73.0, 74.0, 74.5, 74.1, 73.9])


def test_the_interval_is_students():
    found = stats.mean_interval(A)
    half = 2.7764451051977987 * A.std(ddof=1) / np.sqrt(5)  # t quantile for 4 degrees of freedom
    assert (found.low, found.high) == pytest.approx((A.mean() - half, A.mean() + half))
    assert found.sd == pytest.approx(A.std(ddof=1))


def test_the_interval_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    samples = random.normal(3.0, 2.0, (4000, 5))
    covered = sum(stats.mean_interval(s).low <= 3.0 <= stats.mean_interval(s).high for s in samples)
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)


def test_the_paired_test_is_that_of_scipy_and_fits_its_interval():
    found = stats.paired_difference(A, B)
    reference = scipy.stats.ttest_rel(A, B)
    assert found.p_value == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    at_p = stats.paired_difference(A, B, confidence=1 - found.p_value)
    assert at_p.low == pytest.approx(0, abs=1e-9)  # interval and test say the same


def test_degenerate_pairs_are_answered_honestly():
    assert stats.paired_difference(A, A)[:5] == (0.0, 0.0, 0.0, 0.0, 1.0)
    found = stats.paired_difference([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    assert (found.difference, found.p_value) == (1.0, 0.25)  # all three of one sign: 2 of 8
    assert np.isnan([found.low, found.high]).all()  # no spread, no interval: not one of no width
    single = stats.paired_difference([2.0], [1.0])
    assert single.difference == 1.0
    assert np.isnan([single.low, single.high, single.p_value]).all()


def test_welch_is_that_of_scipy():
    found = stats.welch(A, B[:4])
    reference = scipy.stats.ttest_ind(A, B[:4], equal_var=False)
    assert found.p_value == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.n == 9


def test_holm_steps_down_and_skips_nan():
    found = stats.holm([0.01, np.nan, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(found, [0.04, np.nan, 0.09, 0.09, 0.5])
    assert np.isnan(stats.holm([np.nan])).all()
    assert stats.holm([]).shape == (0,)


def test_holm_is_its_definition():
    """The k-th smallest of m p-values times m − k + 1, made monotone, at most 1."""
    for p_values in np.random.default_rng(0).uniform(size=(5, 6)) ** 2:
        ordered = np.sort(p_values)
        expected = np.minimum(np.maximum.accumulate(ordered * np.arange(6, 0, -1)), 1)
        np.testing.assert_allclose(np.sort(stats.holm(p_values)), expected)


def test_the_bootstrap_resamples_pairs_together():
    random = np.random.default_rng(0)
    x = random.normal(size=200)
    low, high = stats.bootstrap_interval(x, x + 1, statistic=lambda a, b: (b - a).mean())
    assert (low, high) == pytest.approx((1.0, 1.0))
    low, high = stats.bootstrap_interval(x)
    assert low < x.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(200), rel=0.15)
    assert (low, high) == stats.bootstrap_interval(x)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_the_detectable_difference_has_its_power(n, alpha):
    effect = stats.minimum_detectable(2.0, n, alpha=alpha)
    rows = np.random.default_rng(0).normal(effect, 2.0, (100_000, n))
    found = scipy.stats.ttest_1samp(rows, 0, axis=1).pvalue < alpha
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert np.isnan(stats.minimum_detectable(2.0, 1))


def test_equivalence_is_two_one_sided_tests():
    a, b = A, A - [0.2, 0.4, 0.1, 0.5, 0.3]
    found = stats.equivalence(a, b, margin=1.0)
    one_sided = [
        scipy.stats.ttest_1samp(a - b, -1.0, alternative="greater").pvalue,
        scipy.stats.ttest_1samp(a - b, 1.0, alternative="less").pvalue,
    ]
    assert found.p_value == pytest.approx(max(one_sided))
    assert found.holds
    assert -1 < found.low < found.high < 1
    borderline = stats.equivalence(a, b, margin=found.high)  # interval and tests say the same
    assert borderline.p_value == pytest.approx(0.05)
    assert not stats.equivalence(A, B, margin=1.0).holds
    assert not stats.equivalence([1.0, 2.0], [1.5, 2.5], margin=1.0).holds  # no spread: no claim


@pytest.mark.parametrize("n", [3, 10])
def test_equivalence_is_claimed_of_a_difference_of_the_margin_at_most_as_often_as_said(n):
    rows = np.random.default_rng(1).normal(1.0, 0.3, (1000, n))
    claimed = [stats.equivalence(row, np.zeros(n), 1.0).holds for row in rows]
    assert np.mean(claimed) == pytest.approx(0.05, abs=0.02)


def test_the_interval_of_the_sd_covers_it():
    samples = np.random.default_rng(0).normal(0, 2.0, (2000, 3)).std(axis=1, ddof=1)
    covered = [low < 2.0 < high for low, high in (stats.sd_interval(sd, 3) for sd in samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert np.isnan(stats.sd_interval(0.0, 3)).all()


@pytest.mark.parametrize(("k", "n"), slow_but([(8, 3)], [(2, 3), (8, 3), (5, 10)]))
def test_all_pairs_make_a_false_claim_in_at_most_one_of_twenty_tables(k, n):
    random = np.random.default_rng(0)
    tables = random.normal(0, 2, (400, 1, n)) + random.normal(0, 0.5, (400, k, n))
    claims = [(stats.all_pairs(scores, resamples=400)[2] < 0.05).any() for scores in tables]
    assert 0.004 < np.mean(claims) < 0.065


@pytest.mark.begun_first
@pytest.mark.parametrize("noisy", slow_but([2], [1, 2, 5]))
def test_all_pairs_bear_methods_that_scatter_differently(noisy):
    """Some of nine with four times the others' sd: Tukey's distribution alone claims in 9 to 12 of 100."""
    sds = np.array([0.2] * (9 - noisy) + [0.8] * noisy)[:, None]
    random = np.random.default_rng(0)
    claims, tukey = [], []
    critical = np.quantile(every_pair._studentized_ranges(9, 16), 0.95)
    for _ in range(300):
        scores = random.normal(size=(1, 3)) + sds * random.normal(size=(9, 3))
        claims.append((stats.all_pairs(scores, resamples=400)[2] < 0.05).any())
        apart = np.abs(scores.mean(axis=1)[:, None] - scores.mean(axis=1))
        tukey.append((apart > critical * every_pair._errors_of_pairs(scores[None])[0]).any())
    assert np.mean(claims) < 0.1
    assert np.mean(claims) <= np.mean(tukey)


def test_a_noisy_method_is_seen_as_such():
    random = np.random.default_rng(0)
    sds = np.array([0.2, 0.2, 0.2, 0.2, 0.9])
    scores = random.normal(size=(1, 4000)) + sds[:, None] * random.normal(size=(5, 4000))
    assert every_pair._own_scatter(scores) == pytest.approx(sds, abs=0.05)


def test_of_two_methods_all_pairs_is_the_paired_test():
    difference, half, p_value = stats.all_pairs([A, B])
    reference = stats.paired_difference(A, B)
    assert difference[0, 1] == pytest.approx(reference.difference)
    assert p_value[0, 1] == pytest.approx(reference.p_value, abs=1e-3)
    assert half[0, 1] == pytest.approx(reference.high - reference.difference, rel=0.02)
    with pytest.raises(ValueError, match="2 or more methods and seeds"):
        stats.all_pairs([A])


def test_an_interval_over_seeds_and_images_covers_as_often_as_it_says():
    """Three seeds, 300 images of 3 classes: images, seeds and what they do together all vary."""
    random = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], 100)
    covered = plain = outside = 0
    for _ in range(600):
        image, seed = random.normal(0, 0.6, 300), random.normal(0, 0.04, 3)
        values = 0.1 + image + seed[:, None] + random.normal(0, 0.3, (3, 300))
        own, image_sd = stats.balanced_mean(values, targets), stats.image_error(values, targets)
        found = stats.over_images(own, image_sd)
        covered += found.low < 0.1 < found.high
        outside += stats.over_images(own - 0.1, image_sd).p_value < 0.05
        alone = stats.mean_interval(own)
        plain += alone.low < 0.1 < alone.high
    assert 0.94 < covered / 600 < 0.99
    assert outside == 600 - covered  # the test is its interval's
    assert plain / 600 < 0.9  # seeds alone leave the images out


@pytest.mark.parametrize("errors", [(0.03, 0.05), (0.05, 0.03), (0.02, 0.0), (0.0, 0.05)])
@pytest.mark.parametrize("n", slow_but([3], [3, 10]))
def test_equivalence_over_seeds_and_images_is_claimed_in_at_most_one_of_twenty(errors, n):
    """Where the true difference is the margin; and an interval of 95 % holds what it should."""
    random = np.random.default_rng(1)
    seed_sd, image_sd = errors
    held = covered = 0
    for _ in range(600):
        own = 0.2 + random.normal(0, image_sd) + random.normal(0, seed_sd * np.sqrt(n), n)
        if seed_sd == 0:
            own = np.full(n, own.mean())
        held += stats.over_images(own, image_sd, margin=0.2).holds
        found = stats.over_images(own, image_sd)
        covered += found.low < 0.2 < found.high
    assert held / 600 <= 0.05 + 0.02  # two standard errors of 600 trials
    assert covered / 600 >= 0.95 - 0.02


@pytest.mark.parametrize("degrees", [1, 2, 9])
@pytest.mark.parametrize("scales", [(1.0, 1e-3), (1.0, 0.4), (0.7, 0.7), (0.4, 1.0), (0.05, 1.0)])
def test_the_sum_of_t_and_normal_is_their_convolution(degrees, scales):
    t_scale, normal_sd = scales
    for above in (0.0, 0.3, 1.0, 4.0):

        def seen(z, above=above):
            tail = scipy.stats.t.sf((above - normal_sd * z) / t_scale, degrees)
            return scipy.stats.norm.pdf(z) * tail

        middle = min(max(above / normal_sd, -12), 12)
        places = sorted({-12.0, middle - 0.5, middle, middle + 0.5, 12.0})
        expected = sum(
            scipy.integrate.quad(seen, low, high, limit=200)[0]
            for low, high in itertools.pairwise(places)
            if -12 <= low < high <= 12
        )
        if places[0] < -12 or places[-1] > 12:  # beyond, the normal density is below 1e-31
            inside = [place for place in places if -12 <= place <= 12]
            expected = sum(
                scipy.integrate.quad(seen, low, high, limit=200)[0]
                for low, high in itertools.pairwise(inside)
            )
        found = stats.tail_of_sum(above, t_scale, normal_sd, degrees)
        assert found == pytest.approx(expected, abs=1e-7)
        other = stats.tail_of_sum(-above, t_scale, normal_sd, degrees)
        assert other == pytest.approx(1 - found, abs=1e-9)


def test_with_images_or_seeds_fixed_the_interval_is_the_other_ones():
    own = np.array([1.0, 1.4, 1.9])
    found, reference = stats.over_images(own, 0.0), stats.mean_interval(own)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-6)
    zero = np.zeros(3)
    paired = stats.paired_difference(own, zero)
    assert found.p_value == pytest.approx(paired.p_value, abs=1e-7)
    same = stats.over_images(own / 10, 0.0, margin=0.5)
    expected = stats.equivalence(own / 10, zero, 0.5)
    assert (same.low, same.high, same.p_value) == pytest.approx(
        (expected.low, expected.high, expected.p_value), abs=1e-6
    )
    equal = stats.over_images([1.0, 1.0], 0.5)
    assert (equal.low, equal.high) == pytest.approx(scipy.stats.norm.interval(0.95, 1.0, 0.5))
    assert stats.over_images(own / 100, 0.0, margin=1.0).holds
    assert not stats.over_images(own, 0.0, margin=1.0).holds
    nothing = stats.over_images([0.0, 0.0], 0.0)
    assert (nothing.low, nothing.high, nothing.p_value) == (0.0, 0.0, 1.0)


def test_the_error_of_the_images_is_that_of_a_bootstrap_of_each_class():
    random = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], [400, 100, 40])
    values = (random.random((3, 540)) < 0.6).astype(float) - (random.random((3, 540)) < 0.5)
    draws = []
    for _ in range(4000):
        drawn = np.concatenate(
            [random.choice(np.flatnonzero(targets == c), (targets == c).sum()) for c in range(3)]
        )
        draws.append(stats.balanced_mean(values[:, drawn], targets[drawn]).mean())
    assert stats.image_error(values, targets) == pytest.approx(np.std(draws), rel=0.04)
    assert stats.image_error(values[:, :3], [0, 0, 1]) == pytest.approx(
        values[:, :2].mean(axis=0).std(ddof=1) / np.sqrt(2) / 2
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.mean_interval([]), "at least 1 value"),
        (lambda: stats.mean_interval([1.0, np.nan]), "to be finite"),
        (lambda: stats.mean_interval([1.0], confidence=95), "`confidence` < 1, got 95"),
        (lambda: stats.paired_difference([1.0], [1.0, 2.0]), "Expected pairs, got 1 and 2"),
        (lambda: stats.welch([1.0], [1.0, 2.0]), "`a` to hold at least 2"),
        (lambda: stats.equivalence(A, B, margin=0.0), "`margin` > 0"),
        (lambda: stats.over_images(A, -1.0), "`image_sd` ≥ 0 and finite, got -1.0"),
        (lambda: stats.over_images([1.0], 0.1), "`seed_values` to hold at least 2"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
