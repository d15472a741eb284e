"""Test images, classes or lesions drawn anew, with the trained networks held fixed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy

from hml_lab.stats.values import check_confidence


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
    check_confidence(confidence)
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
    check_confidence(confidence)
    targets = np.asarray(targets)
    random = np.random.default_rng(random_state)
    members = [np.flatnonzero(targets == label) for label in np.unique(targets)]
    values = [
        statistic(np.concatenate([random.choice(own, len(own)) for own in members]))
        for _ in range(n_resamples)
    ]
    return _percentiles(values, confidence)


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
    check_confidence(confidence)
    numbers, members = _in_clusters(targets, clusters)
    random = np.random.default_rng(random_state)
    order = np.argsort(numbers, kind="stable")
    starts = np.concatenate([[0], np.bincount(numbers).cumsum()])
    values = []
    for _ in range(n_resamples):
        drawn = np.concatenate([random.choice(own, len(own)) for own in members])
        sizes = starts[drawn + 1] - starts[drawn]
        # The images of the drawn clusters, one after the other.
        offsets = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
        values.append(statistic(order[np.repeat(starts[drawn], sizes) + offsets]))
    return _percentiles(values, confidence)


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

    Raises
    ------
    ValueError
        As there.
    """
    check_confidence(confidence)
    numbers, members = _in_clusters(targets, clusters)
    _, labels = np.unique(np.asarray(targets), return_inverse=True)
    shape = numbers.max() + 1, labels.max() + 1
    counts, sums = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (numbers, labels), 1)
    np.add.at(sums, (numbers, labels), np.asarray(values, dtype=float))
    random = np.random.default_rng(random_state)
    means = []
    for start in range(0, n_resamples, 200):
        size = min(200, n_resamples - start)
        times = np.zeros((size, shape[0]))
        for own in members:
            drawn = random.integers(len(own), size=(size, len(own)))
            drawn += len(own) * np.arange(size)[:, None]
            times[:, own] = np.bincount(drawn.ravel(), minlength=size * len(own)).reshape(size, -1)
        there = times @ counts
        with np.errstate(invalid="ignore"):  # a class may be missing from a draw
            means.append(np.nanmean(times @ sums / there, axis=1))
    low, high = _percentiles(np.concatenate(means), confidence)
    return float(low), float(high)


def _percentiles(values, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of what was drawn (B, ...), each of shape (...)."""
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(np.asarray(values), tails, axis=0)
    return low, high


def _in_clusters(targets, clusters) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of each image (N,) the number of its cluster; the clusters of each class, by their first image."""
    targets, clusters = np.asarray(targets), np.asarray(clusters)
    if targets.shape != clusters.shape or targets.ndim != 1:
        raise ValueError(
            f"Expected a cluster for each of {targets.shape} targets, got {clusters.shape}."
        )
    _, first, numbers = np.unique(clusters, return_index=True, return_inverse=True)
    classes = targets[first]
    return numbers, [np.flatnonzero(classes == label) for label in np.unique(classes)]
