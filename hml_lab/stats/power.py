"""What so many pairs could have found."""

from __future__ import annotations

import functools

import numpy as np
import scipy

QUANTILES = 2000  # of a distribution that is averaged over


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
