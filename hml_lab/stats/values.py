"""What intervals and tests are made of: their forms, checked values, the mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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


def as_values(values, name: str, least: int = 1) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"Expected `{name}` to hold at least {least} value(s), got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Expected `{name}` to be finite, got {array.tolist()}.")
    return array


def check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < `confidence` < 1, got {confidence}.")


def mean(values) -> float:
    """The mean without the noise of floats: an exact half is rounded alike wherever it is told.

    >>> shares = [0.3, 0.41]
    >>> mean([100 * share for share in shares]) == mean([30.0, 41.0]) == 35.5
    True
    """
    return round(float(np.mean(values)), 9)
