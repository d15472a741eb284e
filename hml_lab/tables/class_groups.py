"""Accuracy of classes that have something in common: their number of training images, a supercategory.

Intervals are of 95 %, over the classes of a group, of the mean over the runs of a recipe: they cover other
classes of the same kind, with the trained networks held fixed. In a group of :data:`FEW_CLASSES` or more
they are percentile bootstraps; of fewer classes these are too narrow (those of four hold the mean in about
80 % of cases instead of 95 %), and the interval is Student's t of the mean over classes, cut off at 0 and
1. A single class has none.

All recipes are tested on the same classes and see the same resamples. The intervals of two recipes may
therefore overlap although they differ: what hard classes cost, they cost both. Whether they differ is said
by the paired difference to the baseline, the first recipe, and its interval over the same classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hml_core import recipes
from hml_core.runs import Run
from hml_lab import alike, stats

FREQUENCIES = (1, 6, 11, 21, 51, 101, 201, 501)  # fewest training images of a class in each bin
RESAMPLES = 2000
FEW_CLASSES = 10  # from so many on a bootstrap is wide enough
DIFFERENCE = ("difference", "difference_low", "difference_high")
COLUMNS = ("recipe", "group", "classes", "images", "mean", "low", "high", *DIFFERENCE)


def by_frequency(
    runs: Iterable[Run], *, selection: str = "last", n_resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Mean test accuracy of the classes of each bin of training images, by recipe.

    Returns
    -------
    pandas.DataFrame
        A row for each recipe and bin with classes in it, from the rarest on: ``recipe``, ``group`` (such
        as "6–10"), ``classes`` (their number), ``images`` (for training), ``mean``, ``low`` and ``high``
        (fractions; the 95 % interval of the module, NaN for a single class), ``difference``,
        ``difference_low`` and ``difference_high`` (fractions; paired by class, to the recipe of the first
        run; NaN for that one).

    Raises
    ------
    ValueError
        Where runs of a recipe differ in another setting than the seed (:mod:`hml_lab.alike`).
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
        For runs on a data set whose classes are not grouped, or unlike runs of a recipe.
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
    return _cells(measured, ("mean", "low", "high"), ".1f", "%, 95 % interval over classes")


def table_of_differences(measured: pd.DataFrame) -> pd.DataFrame:
    """ "difference [low, high]" to the baseline in points: a column for each other recipe.

    Paired by class; the intervals are of 95 % each, not corrected for their number.
    """
    baseline = measured["recipe"].iloc[0]
    title = f"points above {recipes.title(baseline)}, 95 % interval over classes"
    return _cells(measured, DIFFERENCE, "+.1f", title, without=baseline)


def _cells(
    measured: pd.DataFrame, columns: Sequence[str], form: str, title: str, without: str = ""
) -> pd.DataFrame:
    cells: dict[str, dict[str, str]] = {}
    for row in measured.itertuples():
        one = cells.setdefault(
            row.group, {"Classes": f"{row.classes:,}", "Training images": f"{row.images:,}"}
        )
        if row.recipe == without:
            continue
        middle, low, high = (100 * getattr(row, column) for column in columns)
        interval = "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"
        one[recipes.title(row.recipe)] = f"{middle:{form}}{interval}"
    made = pd.DataFrame.from_dict(cells, orient="index")
    made.index.name = title
    made.attrs["covers"] = (
        "brackets: 95 % intervals over the classes of a group, of the mean over the runs, with the "
        "trained networks held fixed; each of them alone holds in 95 of 100 cases"
    )
    return made


def _counts(runs: Sequence[Run]) -> np.ndarray:
    if not runs:
        raise ValueError("Expected at least one finished run, got none.")
    alike.require_runs(runs)
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
    baseline = next(iter(accuracy.values()))
    tested = ~np.isnan(baseline)  # classes with test images: those of the data
    rows = []
    for group, name in enumerate(names):
        members = np.flatnonzero((which == group) & tested)
        if not len(members):
            continue
        weights = _resamples(len(members), n_resamples)
        images = int(counts[which == group].sum())
        for recipe, values in accuracy.items():
            difference = (np.nan,) * 3
            if values is not baseline:
                difference = _interval(values[members] - baseline[members], weights, least=-1.0)
            measured = _interval(values[members], weights)
            rows.append((recipe, name, len(members), images, *measured, *difference))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _resamples(number: int, n_resamples: int) -> np.ndarray:
    """How often each of so many classes is drawn, as its share of a resample: float32 (R, number)."""
    random = np.random.default_rng(0)
    drawn = random.integers(number, size=(n_resamples, number))
    drawn += number * np.arange(n_resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=n_resamples * number)
    return times.reshape(n_resamples, number).astype(np.float32) / number


def _interval(
    values: np.ndarray, weights: np.ndarray, least: float = 0.0
) -> tuple[float, float, float]:
    """Mean, low and high of ``values`` (number,), which lie between ``least`` and 1."""
    if len(values) < FEW_CLASSES:
        found = stats.mean_interval(values)
        return found.mean, max(found.low, least), min(found.high, 1.0)
    low, high = np.quantile(weights @ values.astype(np.float32), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
