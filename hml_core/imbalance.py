"""Long-tailed subsets: how many images of each class, which ones, and what weight the class gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

KINDS = ("exp", "step", "none")
SCHEMES = {
    "none": "none",
    "cost_sensitive": "cost_sensitive",
    "CS": "cost_sensitive",
    "class_balanced": "class_balanced",
    "CB": "class_balanced",
}
MANY_ABOVE = 100
FEW_BELOW = 20


def class_counts(
    n_max: int, num_classes: int, kind: str = "exp", ratio: float = 100.0
) -> np.ndarray:
    """Training images of each class of a long-tailed subset, int64 (C,), from head to tail.

    "exp": n_c = int(n_max · (1/R)^(c/(C−1))). "step": the first C // 2 classes keep n_max, the others
    int(n_max / R). "none": every class keeps n_max. Source: Cui et al. (CVPR 2019) and Cao et al.
    (LDAM, NeurIPS 2019), in the floating-point form of the latter's code.

    Parameters
    ----------
    n_max : int
        Images of the most frequent class.
    num_classes : int
    kind : {"exp", "step", "none"}
    ratio : float
        R = n_max / n_min ≥ 1.

    Raises
    ------
    ValueError
        For a ratio below 1, or one that leaves a class without images.

    Examples
    --------
    >>> class_counts(5000, 10, "exp", 100)
    array([5000, 2997, 1796, 1077,  645,  387,  232,  139,   83,   50])
    """
    if n_max < 1 or num_classes < 1:
        raise ValueError(f"Expected `n_max` and `num_classes` ≥ 1, got {n_max} and {num_classes}.")
    if kind not in KINDS:
        raise ValueError(f"Expected `kind` to be one of {', '.join(KINDS)}, got {kind!r}.")
    ratio = float(ratio)
    if not math.isfinite(ratio) or ratio < 1:
        hint = f" It is n_max / n_min: did you mean {1 / ratio:g}?" if 0 < ratio < 1 else ""
        raise ValueError(f"Expected a finite `ratio` ≥ 1, got {ratio:g}.{hint}")
    if kind == "none":
        ratio = 1.0
    if kind == "step":
        # int(n · (1/R)) falls one short where 1/R is rounded down, e.g. 49 images at R = 49.
        counts = np.full(num_classes, int(n_max / ratio), dtype=np.int64)
        counts[: max(num_classes // 2, 1)] = n_max
    else:
        position = np.arange(num_classes) / max(num_classes - 1, 1)
        counts = (n_max * (1 / ratio) ** position).astype(np.int64)
        counts[-1] = int(n_max / ratio) if num_classes > 1 else n_max
    empty = np.flatnonzero(counts < 1)
    if len(empty):
        raise ValueError(
            f"With ratio {ratio:g}, class {empty[0]} keeps 0 of {n_max} images: expected a ratio of at "
            f"most {n_max}."
        )
    return counts


def subsample(
    targets: Sequence[int] | np.ndarray, counts: Sequence[int], seed: int = 0
) -> np.ndarray:
    """The standard long-tailed subset: indices into ``targets``, int64 (Σ counts,).

    One legacy NumPy generator for the whole subset; for each class in ascending order the positions of
    that class are shuffled and the first n_c kept (Cao et al., LDAM). ``RandomState(seed)`` draws the
    stream that ``numpy.random.seed(seed)`` starts, without touching the global generator.

    Raises
    ------
    ValueError
        For a class that has fewer images than asked for, or counts that are not positive.
    """
    targets = np.asarray(targets)
    counts = np.asarray(counts)
    if counts.ndim != 1 or (counts < 1).any():
        raise ValueError(f"Expected `counts` ≥ 1 for every class, got {counts.tolist()}.")
    random = np.random.RandomState(seed)
    kept = []
    for label, count in enumerate(counts):
        positions = np.flatnonzero(targets == label)
        if len(positions) < count:
            raise ValueError(
                f"Class {label} has {len(positions)} images, the subset asks for {count}."
            )
        random.shuffle(positions)
        kept.append(positions[:count])
    return np.concatenate(kept).astype(np.int64)


def class_weights(
    counts: Sequence[int] | np.ndarray, scheme: str = "none", beta: float = 0.9999
) -> np.ndarray:
    """Class weights float64 (C,), normalised to sum to the number of classes.

    Parameters
    ----------
    counts : (C,)
        Training images n_c of each class, ≥ 1.
    scheme : {"none", "cost_sensitive", "class_balanced"}
        All ones; ∝ 1/n_c ("CS"); ∝ (1 − β) / (1 − β^n_c) ("CB", Cui et al., CVPR 2019).
    beta : float
        β in [0, 1) of the class-balanced scheme.

    Raises
    ------
    ValueError
        For an unknown scheme, β outside [0, 1) or counts below 1.

    Examples
    --------
    >>> class_weights([30, 10], "CS")
    array([0.5, 1.5])
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not len(counts) or not (counts >= 1).all():
        raise ValueError(f"Expected `counts` ≥ 1 for every class, got {counts.tolist()}.")
    if scheme not in SCHEMES:
        raise ValueError(f"Expected `scheme` to be one of {', '.join(SCHEMES)}, got {scheme!r}.")
    if not 0 <= beta < 1:
        raise ValueError(f"Expected 0 ≤ `beta` < 1, got {beta}.")
    if SCHEMES[scheme] == "none":
        return np.ones_like(counts)
    if SCHEMES[scheme] == "cost_sensitive":
        weights = 1 / counts
    else:
        # 1 − β^n without cancellation for small n and β near 1.
        log_beta = math.log(beta) if beta else -math.inf
        weights = -1 / np.expm1(counts * log_beta)
    return weights * (len(weights) / weights.sum())


def shot_groups(counts: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Classes with many (> 100), medium (20 to 100) and few (< 20) training images, as int64 indices.

    The groups of Liu et al. (OLTR, CVPR 2019); a group may be empty.

    >>> shot_groups([500, 100, 19])
    {'many': array([0]), 'medium': array([1]), 'few': array([2])}
    """
    counts = np.asarray(counts)
    return {
        "many": np.flatnonzero(counts > MANY_ABOVE),
        "medium": np.flatnonzero((counts <= MANY_ABOVE) & (counts >= FEW_BELOW)),
        "few": np.flatnonzero(counts < FEW_BELOW),
    }
