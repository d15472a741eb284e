"""Methods beside each other: mean ± sd over seeds, and the paired difference to a baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hml_core import recipes
from hml_core.runs import SELECTIONS
from hml_lab import alike, stats
from hml_lab.tables.cells import (
    ABSENT,
    LABELS,
    LOWER_IS_BETTER,
    METRICS,
    PAIRS,
    SELECTION_LABELS,
    difference_first,
    each_difference,
    finished,
    group_name,
    mostly_zero,
    score,
    simultaneous,
)
from hml_lab.tables.contrasts import REFERENCE, collapsed, contrasts, family
from hml_lab.wording import p_value


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
        Tidy: one row per group and metric with mean, sd and n, in percent; ``median``, and how many of the
        runs ``collapsed`` to chance: where one did, the mean describes none of them.

    Raises
    ------
    ValueError
        Where runs of a recipe differ in another setting than the seed (:mod:`hml_lab.alike`).
    """
    done = finished(frame, selection, *metrics)
    if by == "recipe":
        alike.require_rows(done)
    rows = []
    for group, runs in done.groupby(by, sort=False):
        lost = int(collapsed(runs, selection).sum())
        for metric in metrics:
            values = 100 * runs[f"{selection}_{metric}"].to_numpy(dtype=float)
            # A shot group without classes has no accuracy in any run.
            sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
            row = {
                by: group,
                "metric": metric,
                "mean": stats.mean(values),
                "sd": sd,
                "n": len(values),
            }
            rows.append(row | {"median": np.median(values), "collapsed": lost})
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
    """Each group's difference to the baseline: :func:`contrasts` of which those are the whole family.

    Raises
    ------
    ValueError
        Where the baseline has no finished run, or a seed has more than one run in a group (two
        settings are mixed).
    """
    done = finished(frame, selection)
    if baseline not in set(done[by]):
        raise ValueError(f"Expected finished runs of the baseline {baseline!r}, got none.")
    pairs = [(group, baseline) for group in done[by].unique() if group != baseline]
    measured = {"metric": metric, "selection": selection, "confidence": confidence}
    return contrasts(frame, pairs, by=by, **measured)


def comparison(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    by: str = "recipe",
    metrics: Sequence[str] = tuple(METRICS),
    selection: str = "last",
    tested: str = "balanced_accuracy",
    reference: str | None = REFERENCE,
    methods: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The table that people read: text cells "mean ± sd" and the paired difference to the baseline.

    Percent; the best mean of each column carries a star. A group of which a run collapsed shows
    its median, each run and the difference of each seed instead; one of which half of the values of a
    metric are 0 its median there. The first columns hold the difference in ``tested``
    with its simultaneous 95 % interval, the Holm-corrected p-value, the number of runs, and that of
    ``pairs`` where a difference is made of fewer. The family of both is that of
    :func:`conclusion` as well: everything with the baseline, and ``methods`` (None: the recipes with a
    hard-mining loss) with the ``reference``; ``attrs["family"]`` and ``attrs["covers"]`` tell it.
    """
    long = summary(frame, by=by, metrics=metrics, selection=selection)
    done = finished(frame, selection)
    zeros = [
        mostly_zero(done.loc[done[by] == row[by], f"{selection}_{row['metric']}"])
        for _, row in long.iterrows()
    ]
    has_mean = (long["collapsed"] == 0) & ~np.array(zeros, dtype=bool)
    standing = long.assign(mean=long["mean"].where(has_mean))  # what a star may go to
    means = standing.pivot(index=by, columns="metric", values="mean")
    cells = {}
    for group, rows in long.groupby(by, sort=False):
        cell: dict[str, str] = {}
        own = done[done[by] == group]
        for row in rows.itertuples():
            pick = np.nanmin if row.metric in LOWER_IS_BETTER else np.nanmax
            column = means[row.metric]
            best = column.notna().any() and row.mean == pick(column)
            values = 100 * own[f"{selection}_{row.metric}"].to_numpy(dtype=float)
            text = score(values, lost=bool(row.collapsed), best=best)
            cell[LABELS.get(row.metric, row.metric)] = text
        cell["n"] = str(rows["n"].iloc[0])
        cells[group] = cell
    table = pd.DataFrame.from_dict(cells, orient="index")
    if methods is None:
        methods = [group for group in cells if by == "recipe" and recipes.is_hard_mining(group)]
    if baseline not in cells:
        raise ValueError(f"Expected finished runs of the baseline {baseline!r}, got none.")
    pairs = family(cells, baseline, reference, methods)
    every = contrasts(frame, pairs, by=by, metric=tested, selection=selection)
    tests = every[every["reference"] == baseline].set_index(by)
    label = f"Δ {LABELS.get(tested, tested)} to {group_name(by, baseline)} [95 %, simultaneous]"
    lost = set(done.loc[collapsed(done, selection), by])
    by_seeds = [group for group in tests.index if {group, baseline} & lost]
    there = [tests.loc[group] if group in tests.index else None for group in table.index]
    table[label] = ["–" if row is None else simultaneous(row) for row in there]
    table["p (Holm)"] = ["–" if row is None else p_value(row["p_holm"]) for row in there]
    for group in by_seeds:  # no mean difference stands for them, and none is tested
        table.loc[group, [label, "p (Holm)"]] = [tests.loc[group, "each"] or ABSENT, ABSENT]
    pairs_of = [None if row is None or row["test"] != "paired" else row["n"] for row in there]
    sizes = zip(pairs_of, table.index, strict=True)
    if any(
        n is not None and n < max(int(cells[g]["n"]), int(cells[baseline]["n"])) for n, g in sizes
    ):
        table[PAIRS] = [ABSENT if n is None else str(int(n)) for n in pairs_of]
    told = ""
    if by_seeds:
        names = ", ".join(group_name(by, group) for group in by_seeds)
        told = f"; {names}: the difference of each seed, as a run collapsed (its tests count)"
    if every.attrs["sharper"]:
        told += f"; {every.attrs['sharper']}"
    table.attrs = {"family": every.attrs["family"] + told, "covers": every.attrs["covers"]}
    table.index = [group_name(by, group) for group in table.index]
    table.index.name = by.replace("_", " ").capitalize()
    return difference_first(table)


def export_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per finished run for a CSV file: id, setting, seed, time, device, metrics."""
    columns = [
        "run_id", "dataset", "imbalance_type", "imbalance_ratio", "recipe", "seed", "epochs", "model",
        "protocol", "early_drop", "delta", "weighting", "mean_over", "stage_ends", "second_stage_rate",
        "weight_placement", "loss_scale", "subset_seed", "seconds", "device", "synthetic",
        "initialised_from", "best_validation_epoch",
        *(f"{name}_{metric}" for name in ("last", "best_validation") for metric in [*LABELS, "nll"]),
    ]  # fmt: skip
    done = finished(frame, "last")
    return done[[column for column in columns if column in done]]


def selections(
    frame: pd.DataFrame, *, metric: str = "balanced_accuracy", by: str = "recipe"
) -> pd.DataFrame:
    """The same runs reported at the last, the best-on-validation and the best-on-test epoch.

    Text cells "mean ± sd" in percent (the median and each run where one collapsed), and the gain of
    choosing on the test set ("peeking"), with the number of epochs that were looked at: with one in five
    of them, the gain is a lower bound.
    """
    done = finished(frame, "last")
    if by == "recipe":
        alike.require_rows(done)
    cells: dict[str, dict[str, str]] = {}
    for group, runs in done.groupby(by, sort=False):
        row = {}
        for name in SELECTIONS:
            column = f"{name}_{metric}"
            if column not in runs or runs[column].isna().all():
                continue  # no validation split
            values = 100 * runs[column].to_numpy(dtype=float)
            row[SELECTION_LABELS[name]] = score(values, lost=bool(collapsed(runs, name).any()))
        gains = 100 * (runs[f"best_test_{metric}"] - runs[f"last_{metric}"]).to_numpy(dtype=float)
        lost = collapsed(runs, "last").any()
        row["added by peeking"] = each_difference(gains) if lost else f"{gains.mean():+.1f}"
        if {"epochs", "evaluate_every"} <= set(runs):
            looks = np.ceil(runs["epochs"] / runs["evaluate_every"]).astype(int)
            row["epochs looked at"] = " / ".join(map(str, sorted(set(looks))))
        cells[group_name(by, group)] = row
    table = pd.DataFrame.from_dict(cells, orient="index")
    table.index.name = f"{LABELS.get(metric, metric)} (%)"
    table.attrs["reported"] = "Reported: each of these epochs."
    return table
