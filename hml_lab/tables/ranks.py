"""Methods ranked in many settings: the test of Friedman and the critical difference of Nemenyi.

After Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 7, 2006, section 3.2).
The settings count as independent: ratios of imbalance of one data set are not quite, and several seeds of
one setting are not at all, which is why these are averaged first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from hml_lab.tables.cells import LOWER_IS_BETTER, finished

SETTING = ("dataset", "imbalance_type", "imbalance_ratio", "model", "epochs", "protocol")
LEVEL = 0.05


@dataclass(frozen=True)
class Ranks:
    """Mean rank of each method (1 is best), the critical difference, and Friedman's p-value."""

    ranks: pd.Series
    critical: float
    p_value: float
    settings: int

    def cliques(self) -> list[tuple[int, int]]:
        """The longest runs of methods, by place in ascending rank, that are not apart."""
        ordered = np.sort(self.ranks.to_numpy())
        found: list[tuple[int, int]] = []
        for first in range(len(ordered)):
            last = int(np.searchsorted(ordered, ordered[first] + self.critical, side="left")) - 1
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def mean_ranks(
    frame: pd.DataFrame,
    *,
    by: str = "recipe",
    setting: Sequence[str] = SETTING,
    metric: str = "balanced_accuracy",
    selection: str = "last",
) -> Ranks:
    """Rank the methods by their mean over seeds in each setting, and average the ranks.

    The critical difference is q·√(k(k + 1)/(6N)) for k methods in N settings, q the 95 % quantile of the
    studentised range for k groups and infinite degrees of freedom, divided by √2. Equal means share their
    rank. Only settings in which every method has a run count.

    Raises
    ------
    ValueError
        For fewer than three methods or two settings, and for several runs of a method with one seed in one
        setting (two settings are mixed).
    """
    done = finished(frame, selection, metric)
    keys = [name for name in setting if name in done]
    if not keys:
        raise ValueError(f"Expected a column of {tuple(setting)} to tell settings apart, got none.")
    twice = done.duplicated([*keys, by, "seed"])
    if twice.any():
        first = done[twice].iloc[0]
        raise ValueError(
            f"Expected one run for each setting, {by} and seed, got several of {first[by]!r} with seed "
            f"{first['seed']}: name in `setting` what tells them apart."
        )
    scores = done.assign(score=done[f"{selection}_{metric}"].astype(float))
    means = scores.pivot_table(index=keys, columns=by, values="score", dropna=False).dropna()
    methods = len(means.columns)
    if methods < 3 or len(means) < 2:
        raise ValueError(
            f"Expected at least three methods in two settings, got {methods} in {len(means)} that all "
            "of them have."
        )
    ranked = means.rank(axis=1, ascending=metric in LOWER_IS_BETTER)
    quantile = scipy.stats.studentized_range.ppf(1 - LEVEL, methods, np.inf) / np.sqrt(2)
    critical = quantile * np.sqrt(methods * (methods + 1) / (6 * len(means)))
    test = scipy.stats.friedmanchisquare(*means.to_numpy().T)
    return Ranks(ranked.mean(), float(critical), float(test.pvalue), len(means))
