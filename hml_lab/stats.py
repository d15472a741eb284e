"""Intervals and tests for few seeds: Student's t, paired by seed, corrected by Holm's method.

An interval over seeds covers the chance in training. It does not cover another draw of the training
subset or of the test images, nor another data set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats

QUANTILES = 2000  # of a distribution that is averaged over
ROUNDING = 1e-12  # a spread below this part of the values comes from floating point


class Interval(NamedTuple):
    """A mean with its sample standard deviation and confidence interval."""

    mean: float
    sd: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """A difference of means with its interval and two-sided p-value."""

    difference: float
    sd: float
    low: float
    high: float
    p_value: float
    n: int


def _values(values, name: str, least: int = 1) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"Expected `{name}` to hold at least {least} value(s), got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Expected `{name}` to be finite, got {array.tolist()}.")
    return array


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < `confidence` < 1, got {confidence}.")


def mean_interval(values, confidence: float = 0.95) -> Interval:
    """Mean ± t·sd/√n, Student's t with n − 1 degrees of freedom; a single value has no interval.

    >>> found = mean_interval([1.0, 2.0, 3.0])
    >>> f"{found.mean:.1f} [{found.low:.2f}, {found.high:.2f}]"
    '2.0 [-0.48, 4.48]'

    Raises
    ------
    ValueError
        For no values, values that are not finite, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    array = _values(values, "values")
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, np.nan, 1)
    sd = float(array.std(ddof=1))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * sd / np.sqrt(n))
    return Interval(mean, sd, mean - half, mean + half, n)


def paired_difference(a, b, confidence: float = 0.95) -> Difference:
    """Mean of a − b over pairs, with the paired t-test's interval and two-sided p-value.

    Identical samples give p = 1. Differences that are all the same but not zero have no spread to test
    against: p is NaN, as it is for a single pair.

    Raises
    ------
    ValueError
        For samples of different length, or values that are not finite.
    """
    first, second = _values(a, "a"), _values(b, "b")
    if len(first) != len(second):
        raise ValueError(f"Expected pairs, got {len(first)} and {len(second)} values.")
    found = mean_interval(first - second, confidence)
    if found.n == 1:
        p_value = np.nan
    elif found.sd <= ROUNDING * np.abs([first, second]).max():
        p_value = 1.0 if found.mean == 0 else np.nan
    else:
        p_value = float(scipy.stats.ttest_rel(first, second).pvalue)
    return Difference(found.mean, found.sd, found.low, found.high, p_value, found.n)


def welch(a, b, confidence: float = 0.95) -> Difference:
    """mean(a) − mean(b) of independent samples with Welch's interval and two-sided p-value.

    ``sd`` is the standard error of the difference; ``n`` counts both samples.

    Raises
    ------
    ValueError
        For fewer than two values in a sample, or values that are not finite.
    """
    _check_confidence(confidence)
    first, second = _values(a, "a", 2), _values(b, "b", 2)
    difference = float(first.mean() - second.mean())
    error = float(np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second)))
    n = len(first) + len(second)
    if error == 0:
        p_value = 1.0 if difference == 0 else np.nan
        return Difference(difference, 0.0, difference, difference, p_value, n)
    test = scipy.stats.ttest_ind(first, second, equal_var=False)
    interval = test.confidence_interval(confidence)
    return Difference(
        difference, error, float(interval.low), float(interval.high), float(test.pvalue), n
    )


def holm(p_values) -> np.ndarray:
    """Holm's step-down correction (Holm, 1979); NaN stays NaN and does not count as a test."""
    raw = np.asarray(p_values, dtype=float)
    corrected = np.full(raw.shape, np.nan)
    tested = ~np.isnan(raw)
    if tested.any():
        from statsmodels.stats.multitest import multipletests  # of the extra [lab]

        corrected[tested] = multipletests(raw[tested], method="holm")[1]
    return corrected


def bootstrap_interval(
    *samples,
    statistic: Callable[..., float] = np.mean,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    random_state: int | np.random.Generator = 0,
    method: str = "percentile",
) -> tuple[float, float]:
    """Bootstrap interval of a statistic of one sample, or of several resampled together.

    It covers another draw of the test images, with the trained model held fixed.
    """
    _check_confidence(confidence)
    found = scipy.stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=False,
        confidence_level=confidence,
        n_resamples=n_resamples,
        method=method,
        rng=np.random.default_rng(random_state),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def stratified_bootstrap(
    targets,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of statistics of a test set, drawn anew class by class.

    Parameters
    ----------
    targets : int (N,)
        Every class keeps its number of images, so that none is missing from a resample.
    statistic : callable
        Indices (N,) of the images drawn → values (K,).

    Returns
    -------
    low, high : float64 (K,)
    """
    _check_confidence(confidence)
    targets = np.asarray(targets)
    random = np.random.default_rng(random_state)
    members = [np.flatnonzero(targets == label) for label in np.unique(targets)]
    values = [
        statistic(np.concatenate([random.choice(own, len(own)) for own in members]))
        for _ in range(n_resamples)
    ]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(np.asarray(values), tails, axis=0)
    return low, high


def cluster_bootstrap(
    targets,
    clusters,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of statistics of a test set whose clusters (lesions, patients) are drawn anew.

    Images of one lesion are not independent: a drawn lesion brings all of its images, so that the number
    of images differs from resample to resample. With every image its own cluster this is
    :func:`stratified_bootstrap`.

    Parameters
    ----------
    targets : int (N,)
        Every class keeps its number of clusters, so that none is missing from a resample; a cluster with
        images of several classes counts for the first one's.
    clusters : (N,)
        Numbers or names; images of the same one are drawn together.
    statistic : callable
        Indices (M,) of the images drawn → values (K,).

    Returns
    -------
    low, high : float64 (K,)

    Raises
    ------
    ValueError
        Where targets and clusters are not as many.
    """
    _check_confidence(confidence)
    targets, clusters = np.asarray(targets), np.asarray(clusters)
    if targets.shape != clusters.shape or targets.ndim != 1:
        raise ValueError(
            f"Expected a cluster for each of {targets.shape} targets, got {clusters.shape}."
        )
    random = np.random.default_rng(random_state)
    _, first, numbers = np.unique(clusters, return_index=True, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    starts = np.concatenate([[0], np.bincount(numbers).cumsum()])
    classes = targets[first]  # of each cluster
    members = [np.flatnonzero(classes == label) for label in np.unique(classes)]
    values = []
    for _ in range(n_resamples):
        drawn = np.concatenate([random.choice(own, len(own)) for own in members])
        sizes = starts[drawn + 1] - starts[drawn]
        # The images of the drawn clusters, one after the other.
        offsets = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
        values.append(statistic(order[np.repeat(starts[drawn], sizes) + offsets]))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(np.asarray(values), tails, axis=0)
    return low, high


def minimum_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true paired difference that ``n`` pairs with this ``sd`` detect with ``power``.

    Of the two-sided paired t-test at level ``alpha``; NaN for less than two pairs.
    """
    if n < 2:
        return float("nan")

    # The power is that of z-tests whose scale is χ-distributed, averaged over its quantiles: libraries'
    # noncentral t gives NaN, and solvers stop short, where two or three pairs meet a small α.
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    scales = np.sqrt(scipy.stats.chi2.ppf(levels, n - 1) / (n - 1))
    critical = scipy.stats.t.isf(alpha / 2, n - 1) * scales

    def lacking(effect: float) -> float:
        shift = effect * np.sqrt(n)
        found = scipy.stats.norm.sf(critical - shift) + scipy.stats.norm.cdf(-critical - shift)
        return found.mean() - power

    most = 1.0
    while lacking(most) < 0:
        most *= 2
    return float(sd * scipy.optimize.brentq(lacking, 0, most))
