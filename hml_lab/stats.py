"""Intervals and tests for few seeds: Student's t, paired by seed, corrected for their number.

An interval over seeds covers the chance in training, and another draw of the training subset where
``subset_seed`` follows the seed. It does not cover another draw of the test images: :func:`over_images`
does. None covers another data set.

"Not significant" is not "the same": that is said only by :func:`equivalence`, within a margin.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # its modules are imported where they are first asked for: half a second

QUANTILES = 2000  # of a distribution that is averaged over
POINTS = 3001  # of a convolution
RANGES = 200_000  # draws of the largest difference of several means
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


class Equivalence(NamedTuple):
    """Two one-sided tests of a difference against ± ``margin``.

    ``low`` and ``high`` bound the interval that decides: equivalent at ``level`` where it lies inside the
    margin. ``p_value`` is the larger of the two one-sided ones.
    """

    difference: float
    low: float
    high: float
    margin: float
    p_value: float
    level: float
    n: int

    @property
    def holds(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        return bool(self.p_value < self.level)


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


def mean(values) -> float:
    """The mean without the noise of floats: an exact half is rounded alike wherever it is told.

    >>> shares = [0.3, 0.41]
    >>> mean([100 * share for share in shares]) == mean([30.0, 41.0]) == 35.5
    True
    """
    return round(float(np.mean(values)), 9)


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
    first, second = _values(a, "a"), _values(b, "b")
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
    _check_confidence(confidence)
    if n < 2 or not sd > 0:
        return np.nan, np.nan
    tails = [(1 + confidence) / 2, (1 - confidence) / 2]
    low, high = sd * np.sqrt((n - 1) / scipy.stats.chi2.ppf(tails, n - 1))
    return float(low), float(high)


def all_pairs(
    scores, confidence: float = 0.95, resamples: int = 20_000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of methods, corrected by the largest |t| of all, seeds as blocks.

    Nobody needs to name a reference: the correction covers whichever pair looks best. t pools the
    residuals of a two-way layout without interaction, method + seed, with (k − 1)(n − 1) degrees of
    freedom; a pair that scatters more than these is measured by its own scatter. The largest t is
    judged by two null distributions, and the more cautious one counts: Tukey's, of methods that scatter
    alike once the seed is accounted for, and one drawn with the scatter that each method showed. By the
    first alone two noisy methods of eleven (four times the others' sd) make false claims in 12 of 100
    families of three seeds; by both, in 2 where all scatter alike, and in 6 to 9 where some are noisy.
    Leave out methods that collapsed.

    Parameters
    ----------
    scores : float (k, n)
        k ≥ 2 methods by n ≥ 2 seeds that all of them have.
    resamples : int
        Draws of the second distribution; of two methods the first is exact.

    Returns
    -------
    difference, half_width, p_value : float64 (k, k)
        Row minus column, half the width of the simultaneous interval, corrected p-value (1 on the
        diagonal).
    """
    _check_confidence(confidence)
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or min(scores.shape) < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"Expected `scores` finite, of 2 or more methods and seeds, got {scores.shape}."
        )
    k, n = scores.shape
    means = scores.mean(axis=1)
    error = _errors_of_pairs(scores[None])[0]
    difference = np.round(means[:, None] - means, 9)  # as in `mean`
    nulls = [_studentized_ranges(k, (k - 1) * (n - 1))]
    if k > 2:
        nulls.append(_largest_under(_own_scatter(scores), n, resamples))
    critical = max(np.quantile(null, confidence) for null in nulls)
    with np.errstate(divide="ignore", invalid="ignore"):
        ranges = np.nan_to_num(np.abs(difference) / error, nan=0.0)
    p_value = np.zeros((k, k))
    for null in nulls:
        larger = len(null) - np.searchsorted(null, ranges)
        p_value = np.maximum(p_value, (1 + larger) / (1 + len(null)))
    np.fill_diagonal(p_value, 1.0)
    return difference, critical * error, p_value


def _residuals(scores: np.ndarray) -> np.ndarray:
    """Of method + seed, for a stack of tables (B, k, n)."""
    return (
        scores
        - scores.mean(axis=2, keepdims=True)
        - scores.mean(axis=1, keepdims=True)
        + scores.mean(axis=(1, 2), keepdims=True)
    )


def _errors_of_pairs(scores: np.ndarray) -> np.ndarray:
    """Standard error over √2 of each pair's difference, (B, k, k): pooled, or the own one if larger."""
    _, k, n = scores.shape
    degrees = (k - 1) * (n - 1)
    pooled = np.sqrt((_residuals(scores) ** 2).sum(axis=(1, 2)) / degrees / n)
    own = (scores[:, :, None] - scores[:, None]).std(axis=3, ddof=1) / np.sqrt(2 * n)
    return np.maximum(pooled[:, None, None], own)


def _own_scatter(scores: np.ndarray) -> np.ndarray:
    """The sd of each method beside the seed's, from its residuals; 0 where they say less than none."""
    k, n = scores.shape
    own = (_residuals(scores[None])[0] ** 2).sum(axis=1) / (n - 1)
    # Its expectation is σ²(1 − 2/k) plus the mean σ² over k, and that of the sum (k − 1) mean σ².
    variance = (own - own.sum() / (k - 1) / k) / (1 - 2 / k)
    return np.sqrt(np.maximum(variance, 0))


def _largest_under(sds: np.ndarray, n: int, draws: int, at_once: int = 1000) -> np.ndarray:
    """Draws of the largest t of all pairs where no method differs and each has its sd, in order."""
    random = np.random.default_rng(0)
    found = []
    for start in range(0, draws, at_once):
        size = (min(at_once, draws - start), len(sds), n)
        drawn = sds[:, None] * random.standard_normal(size)
        means = drawn.mean(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(means[:, :, None] - means[:, None]) / _errors_of_pairs(drawn)
        found.append(np.nan_to_num(t, nan=0.0).max(axis=(1, 2)))
    return np.sort(np.concatenate(found))


@functools.cache
def _studentized_ranges(k: int, degrees: int) -> np.ndarray:
    """Draws of the range of k standard normals over an independent estimate of their sd, in order.

    SciPy integrates its distribution, for a second and more a value.
    """
    random = np.random.default_rng(0)
    ranges = np.ptp(random.standard_normal((RANGES, k)), axis=1)
    return np.sort(ranges / np.sqrt(random.chisquare(degrees, RANGES) / degrees))


def over_images(
    seed_values,
    image_sd: float,
    *,
    margin: float | None = None,
    confidence: float = 0.95,
) -> Difference | Equivalence:
    """A mean over seeds whose interval covers both another seed and another draw of test images.

    Its error is the sum of two: Student's t of n − 1 degrees of freedom for the seeds, and a normal one
    for the images. Their distribution is convolved numerically (:func:`tail_of_sum`), without draws: the
    ends have no noise of their own. With the images fixed that is :func:`mean_interval`; with many seeds,
    the normal interval over images. Resampling three seeds instead, as a plain hierarchical bootstrap
    does, is too narrow by a factor of 2. What seeds and images do together counts twice: the interval is
    a little wide.

    Parameters
    ----------
    seed_values : float (n,)
        The statistic of each seed on all test images, n ≥ 2.
    image_sd : float
        The standard error of their mean that the draw of the test images leaves (:func:`image_error`).
    margin : float, optional
        Asks for the equivalence within it, at level (1 − ``confidence``), instead of the difference.

    Examples
    --------
    >>> found = over_images([1.0, 2.0, 3.0], 0.5)
    >>> f"{found.difference:.1f} [{found.low:.2f}, {found.high:.2f}]"
    '2.0 [-0.63, 4.63]'
    """
    _check_confidence(confidence)
    own = _values(seed_values, "seed_values", 2)
    if not 0 <= image_sd < np.inf:
        raise ValueError(f"Expected `image_sd` ≥ 0 and finite, got {image_sd}.")
    n, sd, middle = len(own), float(own.std(ddof=1)), mean(own)
    errors = sd / np.sqrt(n), image_sd, n - 1
    half = _half_width(*errors, (1 - confidence) / 2 if margin is None else 1 - confidence)
    low, high = middle - half, middle + half
    if margin is None:
        return Difference(middle, sd, low, high, 2 * tail_of_sum(abs(middle), *errors), n)
    p_value = tail_of_sum(margin - abs(middle), *errors)
    return Equivalence(middle, low, high, margin, p_value, 1 - confidence, n)


def tail_of_sum(above: float, t_scale: float, normal_sd: float, degrees: int) -> float:
    """P(``t_scale``·T + ``normal_sd``·Z > ``above``), T of Student's t and Z normal, independent.

    The trapezoid rule, whose error vanishes faster than any power of the step for such integrands: over Z
    where T scatters more, else over T, spread out by a hyperbolic sine.

    >>> round(tail_of_sum(4.302653, 1.0, 0.0, 2), 6), round(tail_of_sum(1.959964, 0.0, 1.0, 2), 6)
    (0.025, 0.025)
    """
    if t_scale == normal_sd == 0:
        return float(above < 0) + 0.5 * float(above == 0)
    if t_scale >= normal_sd:
        z, mass = _normal_points()
        return float(mass @ scipy.special.stdtr(degrees, (normal_sd * z - above) / t_scale))
    t, mass = _t_points(degrees)
    return float(mass @ scipy.special.ndtr((t_scale * t - above) / normal_sd))


@functools.cache
def _normal_points() -> tuple[np.ndarray, np.ndarray]:
    z, step = np.linspace(-9, 9, POINTS // 5, retstep=True)
    return z, step * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@functools.cache
def _t_points(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    # The density falls as t to the power −1 − degrees, so that e³⁰ is far enough.
    place, step = np.linspace(-30, 30, POINTS, retstep=True)
    t = np.sinh(place)
    return t, step * np.exp(scipy.stats.t.logpdf(t, degrees)) * np.cosh(place)


def _half_width(t_scale: float, normal_sd: float, degrees: int, tail: float) -> float:
    """Where the upper tail of the symmetric sum of :func:`tail_of_sum` is ``tail``, less than a half."""
    if t_scale == normal_sd == 0:
        return 0.0
    wide = scipy.stats.t.isf(tail, degrees) * t_scale + scipy.stats.norm.isf(tail) * normal_sd
    while tail_of_sum(wide, t_scale, normal_sd, degrees) > tail:
        wide *= 2
    return float(
        scipy.optimize.brentq(
            lambda x: tail_of_sum(x, t_scale, normal_sd, degrees) - tail, 0, wide, rtol=1e-9
        )
    )


def balanced_mean(values: np.ndarray, targets) -> np.ndarray:
    """Mean over classes of the mean over their images, float64 (n,), of values (n, N)."""
    values, targets = np.asarray(values, dtype=float), np.asarray(targets)
    classes = [values[:, targets == label].mean(axis=1) for label in np.unique(targets)]
    return np.mean(classes, axis=0)


def image_error(values: np.ndarray, targets) -> float:
    """Standard error of the balanced mean over all rows that another draw of the test images leaves.

    Every class keeps its number of images: √(Σ_c s_c² / N_c) / C, where s_c is the standard deviation
    over the N_c images of a class of their mean over the rows; a class of one image says nothing of its
    scatter and adds none. The square root of what a bootstrap of the images of each class would find,
    without its draws. The mean over many images is normal enough: ten a class and ten classes do.

    Parameters
    ----------
    values : float (n, N)
        1 where a network is right, 0 where not; or a difference of two networks.
    targets : int (N,)
    """
    each, targets = np.asarray(values, dtype=float).mean(axis=0), np.asarray(targets)
    labels = np.unique(targets)
    members = (each[targets == label] for label in labels)
    variances = [own.var(ddof=1) / len(own) for own in members if len(own) > 1]
    return float(np.sqrt(np.sum(variances)) / len(labels))


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


def class_means_bootstrap(
    targets,
    clusters,
    values,
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    random_state: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean over classes of the classes' means, the clusters drawn anew.

    What :func:`cluster_bootstrap` finds for this statistic (balanced accuracy, where ``values`` are hits;
    a difference of two, where they are differences of hits), from each cluster's sums: fast enough for so
    many draws that the ends are known to a fiftieth of their standard error.

    Parameters
    ----------
    targets, clusters : (N,)
        As there.
    values : float (N,)

    Returns
    -------
    low, high : float
    """
    _check_confidence(confidence)
    _, labels = np.unique(np.asarray(targets), return_inverse=True)
    _, first, numbers = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
    shape = len(first), labels.max() + 1
    counts, sums = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (numbers, labels), 1)
    np.add.at(sums, (numbers, labels), np.asarray(values, dtype=float))
    random = np.random.default_rng(random_state)
    members = [np.flatnonzero(labels[first] == label) for label in range(shape[1])]
    means = []
    for start in range(0, n_resamples, 200):
        size = min(200, n_resamples - start)
        times = np.zeros((size, len(first)))
        for own in members:
            drawn = random.integers(len(own), size=(size, len(own)))
            drawn += len(own) * np.arange(size)[:, None]
            times[:, own] = np.bincount(drawn.ravel(), minlength=size * len(own)).reshape(size, -1)
        there = times @ counts
        with np.errstate(invalid="ignore"):  # a class may be missing from a draw
            means.append(np.nanmean(times @ sums / there, axis=1))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(np.concatenate(means), tails)
    return float(low), float(high)


def minimum_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true paired difference that ``n`` pairs with this ``sd`` detect with ``power``.

    Of the two-sided paired t-test at level ``alpha``; NaN for less than two pairs.
    """
    if n < 2:
        return float("nan")
    return float(sd * _detectable_in_sds(int(n), float(power), float(alpha)))


@functools.cache
def _detectable_in_sds(n: int, power: float, alpha: float) -> float:
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
    return float(scipy.optimize.brentq(lacking, 0, most))
