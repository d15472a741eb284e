"""Accuracy of classes that have something in common: their number of training images, a supercategory.

Intervals are percentile bootstraps over the classes of a group, of the mean over the runs of a recipe:
they cover other classes of the same kind, with the trained networks held fixed. All recipes see the same
resamples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hml_core import recipes
from hml_core.runs import Run

FREQUENCIES = (1, 6, 11, 21, 51, 101, 201, 501)  # fewest training images of a class in each bin
RESAMPLES = 2000
COLUMNS = ("recipe", "group", "classes", "images", "mean", "low", "high")


def by_frequency(
    runs: Iterable[Run], *, selection: str = "last", n_resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Mean test accuracy of the classes of each bin of training images, by recipe.

    Returns
    -------
    pandas.DataFrame
        A row for each recipe and bin with classes in it, from the rarest on: ``recipe``, ``group`` (such
        as "6–10"), ``classes`` (their number), ``images`` (for training), ``mean``, ``low`` and ``high``
        (fractions; the 95 % interval of the module, NaN for a single class).
    """
    runs = list(runs)
    counts = _counts(runs)
    which = np.searchsorted(FREQUENCIES, counts, side="right") - 1
    return _measure(runs, which, _bin_names(), counts, selection, n_resamples)


def by_group(
    runs: Iterable[Run], *, selection: str = "last", n_resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Mean test accuracy of the classes of each supercategory, by recipe.

    Returns
    -------
    pandas.DataFrame
        As :func:`by_frequency`, groups from the one with the most training images to that with the
        fewest.

    Raises
    ------
    ValueError
        For runs on a data set whose classes are not grouped.
    """
    runs = list(runs)
    counts, groups = _counts(runs), np.asarray(runs[0].class_groups if runs else ())
    if not len(groups):
        raise ValueError("Expected runs on a data set whose classes have groups (`class_groups`).")
    names, which = np.unique(groups, return_inverse=True)
    order = np.argsort(-np.bincount(which, weights=counts), kind="stable")
    rank = np.empty(len(names), dtype=int)
    rank[order] = np.arange(len(names))
    return _measure(runs, rank[which], names[order].tolist(), counts, selection, n_resamples)


def table(measured: pd.DataFrame) -> pd.DataFrame:
    """ "mean [low, high]" in percent: a row for each group, a column for each recipe."""
    cells: dict[str, dict[str, str]] = {}
    for row in measured.itertuples():
        one = cells.setdefault(
            row.group, {"Classes": f"{row.classes:,}", "Training images": f"{row.images:,}"}
        )
        interval = "" if np.isnan(row.low) else f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        one[recipes.title(row.recipe)] = f"{100 * row.mean:.1f}{interval}"
    made = pd.DataFrame.from_dict(cells, orient="index")
    made.index.name = "%, 95 % interval over classes"
    return made


def _counts(runs: Sequence[Run]) -> np.ndarray:
    if not runs:
        raise ValueError("Expected at least one finished run, got none.")
    counts = runs[0].class_counts
    if any(not np.array_equal(run.class_counts, counts) for run in runs):
        raise ValueError("Expected runs on the same training set.")
    return counts


def _bin_names() -> list[str]:
    names = [f"{low}–{high - 1}" for low, high in itertools.pairwise(FREQUENCIES)]
    return [*names, f"> {FREQUENCIES[-1] - 1}"]


def _measure(
    runs: Sequence[Run],
    which: np.ndarray,
    names: Sequence[str],
    counts: np.ndarray,
    selection: str,
    n_resamples: int,
) -> pd.DataFrame:
    """Rows for the groups that classes belong to (``which``, (C,): places in ``names``)."""
    accuracy = {
        recipe: np.mean(
            [r.per_class_accuracy(selection) for r in runs if r.config.recipe == recipe], axis=0
        )
        for recipe in dict.fromkeys(run.config.recipe for run in runs)
    }
    tested = ~np.isnan(next(iter(accuracy.values())))  # classes with test images: those of the data
    rows = []
    for group, name in enumerate(names):
        members = np.flatnonzero((which == group) & tested)
        if not len(members):
            continue
        weights = _resamples(len(members), n_resamples)
        images = int(counts[which == group].sum())
        for recipe, values in accuracy.items():
            low, high = _interval(values[members], weights)
            rows.append((recipe, name, len(members), images, values[members].mean(), low, high))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _resamples(number: int, n_resamples: int) -> np.ndarray:
    """How often each of so many classes is drawn, as its share of a resample: float32 (R, number)."""
    random = np.random.default_rng(0)
    drawn = random.integers(number, size=(n_resamples, number))
    drawn += number * np.arange(n_resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=n_resamples * number)
    return times.reshape(n_resamples, number).astype(np.float32) / number


def _interval(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    if len(values) == 1:
        return np.nan, np.nan
    low, high = np.quantile(weights @ values.astype(np.float32), [0.025, 0.975])
    return float(low), float(high)
