"""Student's t of few seeds: one mean, pairs, two samples, equivalence; many at once by Holm."""

from __future__ import annotations

import numpy as np
import scipy

from hml_lab.stats.values import (
    Difference,
    Equivalence,
    Interval,
    as_values,
    check_confidence,
    mean,
)

ROUNDING = 1e-12  # a spread below this part of the values comes from floating point


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
    check_confidence(confidence)
    array = as_values(values, "values")
    n, middle = len(array), mean(array)
    if n == 1:
        return Interval(middle, np.nan, np.nan, np.nan, 1)
    sd = float(array.std(ddof=1))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * sd / np.sqrt(n))
    return Interval(middle, sd, middle - half, middle + half, n)


def paired_difference(a, b, confidence: float = 0.95) -> Difference:
    """Mean of a − b over pairs, with the paired t-test's interval and two-sided p-value.

    Identical samples give p = 1. Differences that are all the same but not zero, which happens where the
    metric has few values, have no spread to measure by: p is that of the exact sign test, 2^(1 − n), and
    there is no interval. A single pair has neither.

    Raises
    ------
    ValueError
        For samples of different length, or values that are not finite.
    """
    first, second = as_values(a, "a"), as_values(b, "b")
    if len(first) != len(second):
        raise ValueError(f"Expected pairs, got {len(first)} and {len(second)} values.")
    found = mean_interval(first - second, confidence)
    if found.n == 1:
        p_value = np.nan
    elif found.sd <= ROUNDING * np.abs([first, second]).max():
        if found.mean != 0:
            unknown = np.nan, np.nan, 2.0 ** (1 - found.n)
            return Difference(found.mean, found.sd, *unknown, found.n)
        p_value = 1.0
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
    check_confidence(confidence)
    first, second = as_values(a, "a", 2), as_values(b, "b", 2)
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


def equivalence(a, b, margin: float, level: float = 0.05) -> Equivalence:
    """Two one-sided paired t-tests (Schuirmann, 1987) of |mean(a − b)| ≥ ``margin``.

    The interval is that of confidence 1 − 2·``level``, which lies inside ± ``margin`` if and only if both
    tests reject.

    >>> found = equivalence([41.0, 40.0, 39.2], [41.2, 40.1, 39.5], margin=1.0)
    >>> found.holds, round(found.low, 2), round(found.high, 2)
    (True, -0.37, -0.03)

    Raises
    ------
    ValueError
        For a margin that is not positive, and as :func:`paired_difference`.
    """
    if not margin > 0:
        raise ValueError(f"Expected `margin` > 0, got {margin}.")
    found = paired_difference(a, b, 1 - 2 * level)
    if not found.sd > 0 or np.isnan(found.low):
        return Equivalence(
            found.difference, np.nan, np.nan, margin, np.nan, level, found.n
        )  # one pair, or no spread to measure by
    error = found.sd / np.sqrt(found.n)
    nearest = (margin - abs(found.difference)) / error
    p_value = float(scipy.stats.t.sf(nearest, found.n - 1))
    return Equivalence(found.difference, found.low, found.high, margin, p_value, level, found.n)


def sd_interval(sd: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the standard deviation behind a sample's: that of three lies within a factor of 12.

    >>> low, high = sd_interval(1.0, 3)
    >>> round(low, 2), round(high, 2)
    (0.52, 6.28)
    """
    check_confidence(confidence)
    if n < 2 or not sd > 0:
        return np.nan, np.nan
    tails = [(1 + confidence) / 2, (1 - confidence) / 2]
    low, high = sd * np.sqrt((n - 1) / scipy.stats.chi2.ppf(tails, n - 1))
    return float(low), float(high)


def holm(p_values) -> np.ndarray:
    """Holm's step-down correction (Holm, 1979); NaN stays NaN and does not count as a test."""
    raw = np.asarray(p_values, dtype=float)
    corrected = np.full(raw.shape, np.nan)
    tested = ~np.isnan(raw)
    ordered = np.argsort(raw[tested], kind="stable")
    # Not statsmodels' multipletests: it calls the garbage collector each time, for half a second.
    steps = np.maximum.accumulate(raw[tested][ordered] * np.arange(len(ordered), 0, -1))
    corrected[np.flatnonzero(tested)[ordered]] = np.minimum(steps, 1)
    return corrected
