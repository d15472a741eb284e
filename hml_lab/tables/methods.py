"""Methods beside each other: mean ± sd over seeds, and the paired difference to a baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hml_core import recipes
from hml_core.runs import SELECTIONS
from hml_lab import stats
from hml_lab.tables.cells import (
    LABELS,
    LOWER_IS_BETTER,
    METRICS,
    SELECTION_LABELS,
    difference_first,
    finished,
    group_name,
    interval,
    p_value,
    plus_minus,
)


def summary(
    frame: pd.DataFrame,
    *,
    by: str = "recipe",
    metrics: Sequence[str] = tuple(METRICS),
    selection: str = "last",
) -> pd.DataFrame:
    """Mean, sample standard deviation and number of runs for each group and metric.

    Parameters
    ----------
    frame : pandas.DataFrame
        See :func:`hml_core.runs.load`.
    by : str
        Column whose values make the rows, in order of first appearance.
    metrics : sequence of str
    selection : {"last", "best_validation", "best_test"}
        The epoch that is reported.

    Returns
    -------
    pandas.DataFrame
        Tidy: one row per group and metric with mean, sd and n, in percent.
    """
    done = finished(frame, selection)
    rows = []
    for group, runs in done.groupby(by, sort=False):
        for metric in metrics:
            values = 100 * runs[f"{selection}_{metric}"].to_numpy(dtype=float)
            # A shot group without classes has no accuracy in any run.
            sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
            rows.append(
                {by: group, "metric": metric, "mean": values.mean(), "sd": sd, "n": len(values)}
            )
    return pd.DataFrame(rows)


def differences(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    by: str = "recipe",
    metric: str = "balanced_accuracy",
    selection: str = "last",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Each group's paired difference to the baseline over the seeds that both have.

    Returns
    -------
    pandas.DataFrame
        One row per other group: difference, low, high (percentage points, Student-t interval of the
        mean difference), sd (of the differences), p_value (paired t-test, two-sided), p_holm (corrected
        for the number of rows) and n.

    Raises
    ------
    ValueError
        Where the baseline has no finished run, or a seed has more than one run in a group (two
        settings are mixed).
    """
    done = finished(frame, selection)
    scores = done.set_index([by, "seed"])[f"{selection}_{metric}"].astype(float)
    if scores.index.has_duplicates:
        twice = scores.index[scores.index.duplicated()][0]
        raise ValueError(
            f"Expected one run for each {by} and seed, got several for {twice}: pass the runs of one "
            "setting, or another `by`."
        )
    if baseline not in scores.index.get_level_values(0):
        raise ValueError(f"Expected finished runs of the baseline {baseline!r}, got none.")
    reference = scores[baseline]
    rows = []
    for group in done[by].unique():
        if group == baseline:
            continue
        own = scores[group]
        common = own.index.intersection(reference.index)
        row = {by: group, "n": len(common)}
        if len(common):
            paired = stats.paired_difference(
                100 * own[common].to_numpy(), 100 * reference[common].to_numpy(), confidence
            )
            row |= {
                "difference": paired.difference,
                "low": paired.low,
                "high": paired.high,
                "sd": paired.sd,
                "p_value": paired.p_value,
            }
        rows.append(row)
    columns = [by, "n", "difference", "low", "high", "sd", "p_value"]
    result = pd.DataFrame(rows).reindex(columns=columns)
    result["p_holm"] = stats.holm(result["p_value"].to_numpy(dtype=float)) if len(result) else []
    return result


def comparison(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    by: str = "recipe",
    metrics: Sequence[str] = tuple(METRICS),
    selection: str = "last",
    tested: str = "balanced_accuracy",
) -> pd.DataFrame:
    """The table that people read: text cells "mean ± sd" and the paired difference to the baseline.

    Percent; the best mean of each column carries a star. The first columns hold the difference in
    ``tested`` with its 95 % interval, the Holm-corrected p-value and the number of runs.
    """
    long = summary(frame, by=by, metrics=metrics, selection=selection)
    means = long.pivot(index=by, columns="metric", values="mean")
    cells = {}
    for group, rows in long.groupby(by, sort=False):
        cell: dict[str, str] = {}
        for row in rows.itertuples():
            pick = np.nanmin if row.metric in LOWER_IS_BETTER else np.nanmax
            column = means[row.metric]
            best = column.notna().any() and row.mean == pick(column)
            cell[LABELS.get(row.metric, row.metric)] = plus_minus(row.mean, row.sd, best)
        cell["n"] = str(rows["n"].iloc[0])
        cells[group] = cell
    table = pd.DataFrame.from_dict(cells, orient="index")
    label = f"Δ {LABELS.get(tested, tested)} to {recipes.title(baseline)} [95 %]"
    tests = differences(
        frame, baseline=baseline, by=by, metric=tested, selection=selection
    ).set_index(by)
    table[label] = [interval(tests.loc[g]) if g in tests.index else "–" for g in table.index]
    table["p (Holm)"] = [
        p_value(tests.loc[g, "p_holm"]) if g in tests.index else "–" for g in table.index
    ]
    table.index = [group_name(by, group) for group in table.index]
    table.index.name = by.replace("_", " ").capitalize()
    return difference_first(table)


def export_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per finished run for a CSV file: id, setting, seed, time, device, metrics."""
    columns = [
        "run_id", "dataset", "imbalance_type", "imbalance_ratio", "recipe", "seed", "epochs", "model",
        "protocol", "early_drop", "delta", "weighting", "weight_placement", "loss_scale", "seconds",
        "device", "synthetic", "initialised_from", "best_validation_epoch",
        *(f"{name}_{metric}" for name in ("last", "best_validation") for metric in [*LABELS, "nll"]),
    ]  # fmt: skip
    done = finished(frame, "last")
    return done[[column for column in columns if column in done]]


def selections(
    frame: pd.DataFrame, *, metric: str = "balanced_accuracy", by: str = "recipe"
) -> pd.DataFrame:
    """The same runs reported at the last, the best-on-validation and the best-on-test epoch.

    Text cells "mean ± sd" in percent, and the paired gain of choosing on the test set ("peeking").
    """
    done = finished(frame, "last")
    cells: dict[str, dict[str, str]] = {}
    for group, runs in done.groupby(by, sort=False):
        row = {}
        for name in SELECTIONS:
            column = f"{name}_{metric}"
            if column not in runs or runs[column].isna().all():
                continue  # no validation split
            values = 100 * runs[column].to_numpy(dtype=float)
            sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
            row[SELECTION_LABELS[name]] = plus_minus(values.mean(), sd, False)
        gain = 100 * (runs[f"best_test_{metric}"] - runs[f"last_{metric}"]).mean()
        row["added by peeking"] = f"{gain:+.1f}"
        cells[group_name(by, group)] = row
    table = pd.DataFrame.from_dict(cells, orient="index")
    table.index.name = f"{LABELS.get(metric, metric)} (%)"
    return table
