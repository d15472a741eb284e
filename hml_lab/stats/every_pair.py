"""All pairs of several means at once: the largest t, with the seeds as blocks."""

from __future__ import annotations

import functools

import numpy as np

from hml_lab.stats.values import check_confidence

RANGES = 200_000  # draws of the largest difference of several means


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
    check_confidence(confidence)
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
        nulls.append(_largest_under(tuple(_own_scatter(scores).tolist()), n, resamples))
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


@functools.lru_cache(maxsize=32)  # a page asks for the same table in several paragraphs
def _largest_under(sds: tuple[float, ...], n: int, draws: int, at_once: int = 1000) -> np.ndarray:
    """Draws of the largest t of all pairs where no method differs and each has its sd, in order."""
    random = np.random.default_rng(0)
    found = []
    for start in range(0, draws, at_once):
        size = (min(at_once, draws - start), len(sds), n)
        drawn = np.asarray(sds)[:, None] * random.standard_normal(size)
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
