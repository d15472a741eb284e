"""What runs are and what they say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hml_core import datasets, recipes
from hml_lab.tables.cells import LABELS, each_value, finished, simultaneous
from hml_lab.tables.contrasts import REFERENCE, contrasts, detectable, family
from hml_lab.tables.methods import summary
from hml_lab.wording import number, p_value

LISTED_RUNS = 20  # that are not there, one by one; more of them by method


def protocol(frame: pd.DataFrame) -> str:
    """One sentence on how these runs were made, with a warning where they are shorter than published."""
    done = finished(frame, "last")
    first = done.iloc[0]
    warning = ""
    if datasets.departures(first["dataset"], first):
        warning = "**Shortened protocol, not comparable with published figures**: "
    if first["synthetic"]:
        warning = "**SYNTHETIC images: nothing below is a result.** "
    started = "" if first["weights"] == "none" else f" from {first['initialised_from']} weights"
    return (
        f"{warning}{first['model']}{started}, {number(first['epochs'], 'epoch')}, "
        f"batch {first['batch_size']}, precision {first['precision']}, "
        f"protocol {first['protocol']}; {number(len(done), 'run')}, "
        f"{_time(done['seconds'])} on {', '.join(sorted(set(done['device'])))}."
    )


def _time(seconds: pd.Series) -> str:
    if len(seconds) == 1:
        return f"{seconds.iloc[0]:.0f} s of training"
    total = seconds.sum()
    whole = number(round(total / 60), "minute") if total >= 60 else number(round(total), "second")
    return f"{whole} of training in total ({seconds.mean():.0f} s a run)"


def missing(frame: pd.DataFrame) -> str:
    """What of a sweep failed or was not found, as a sentence for the notebook."""
    lacking = frame[frame["status"] != "done"]
    if lacking.empty:
        return f"All {len(frame)} runs are there." if len(frame) != 1 else "The run is there."
    if len(lacking) > LISTED_RUNS and "seed" in lacking:
        by = next(name for name in ("cell", "recipe") if name in lacking)
        listed = "\n".join(
            f"- {group}: {status}, {number(len(runs), 'seed')} ({_ranges(runs['seed'])}); such as "
            f"`{runs['run_id'].iloc[0]}` ({runs['error'].iloc[0]})"
            for (group, status), runs in lacking.groupby([by, "status"], sort=False)
        )
    else:
        listed = "\n".join(
            f"- `{row.run_id}`: {row.status} ({row.error})" for row in lacking.itertuples()
        )
    are = "is" if len(lacking) == 1 else "are"
    which = (
        f"{len(lacking)} of {number(len(frame), 'run')} {are}" if len(frame) > 1 else "The run is"
    )
    return f"**{which} not there:**\n\n{listed}"


def _ranges(seeds: Sequence[int]) -> str:
    """ "0 to 2, 5" of 0, 1, 2, 5."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in parts)


def conclusion(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    reference: str | None = REFERENCE,
    methods: Sequence[str] = ("hml1", "hml2"),
    metric: str = "balanced_accuracy",
    selection: str = "last",
    level: float = 0.05,
) -> str:
    """What these runs say about ``methods``, in sentences: against the baseline and the reference.

    The reference is named beforehand. (The method that turns out best on these data is not one: under no
    difference at all, "worse than the best other" appears in 6 to 8 of 100 tables.) "Better" and "worse"
    are said only where the Holm-corrected test stays under ``level``; its family is that of the table
    (:func:`hml_lab.tables.comparison`): everything with the baseline, and ``methods`` with the reference.
    Intervals are simultaneous over it. A method or reference of which a run collapsed is told by
    its runs.
    "Not distinguishable" is no "the same".
    """
    done = finished(frame, selection)
    groups = list(done["recipe"].unique())
    methods = [method for method in methods if method in groups]
    if baseline not in groups:
        raise ValueError(f"Expected finished runs of the baseline {baseline!r}, got none.")
    pairs = family(groups, baseline, reference, methods)
    tests = contrasts(frame, pairs, metric=metric, selection=selection)
    own = summary(frame, metrics=[metric], selection=selection).set_index("recipe")
    lines = []
    for method in methods:
        name = f"**{recipes.title(method)}**"
        if lost := int(own.loc[method, "collapsed"]):
            scores = 100 * done.loc[done["recipe"] == method, f"{selection}_{metric}"].astype(float)
            lines.append(
                f"{name} collapsed in {lost} of {len(scores)} runs "
                f"({each_value(scores.to_numpy())} %; median {scores.median():.1f} %): it is not stable "
                "in this setting, and its mean is compared with nothing."
            )
            continue
        for row in (row for _, row in tests.iterrows() if row["recipe"] == method):
            other = row["reference"]
            if lost := int(own.loc[other, "collapsed"]):
                theirs = 100 * done.loc[done["recipe"] == other, f"{selection}_{metric}"].astype(
                    float
                )
                lines.append(
                    f"{name} is compared by no mean with {recipes.title(other)}, which collapsed in "
                    f"{lost} of {len(theirs)} runs ({each_value(theirs.to_numpy())} %)."
                )
                continue
            scores = f"{own.loc[method, 'mean']:.1f} % against {own.loc[other, 'mean']:.1f} %"
            lines.append(
                f"{name} {_verdict(row, level)} {recipes.title(other)} in "
                f"{LABELS.get(metric, metric).lower()} ({scores}): "
                f"{_evidence(row, level, tests.attrs['tests'])}"
            )
    if reference not in groups and methods:
        said = (
            "No method was named"
            if reference is None
            else f"{recipes.title(reference)} was not run"
        )
        lines.append(f"{said}: the hard-mining loss is compared with the baseline alone.")
    if methods:
        whole = f"{tests.attrs['family']}; {tests.attrs['covers']}."
        lines.append(whole[0].upper() + whole[1:])
    return "\n\n".join(lines)


def _verdict(row: pd.Series, level: float) -> str:
    if np.isnan(row["p_holm"]):
        return "cannot be compared (too few seeds) with"
    if row["p_holm"] < level:
        return "is better than" if row["difference"] > 0 else "is worse than"
    return f"is not distinguishable with {row['n']:.0f} {_unit(row)} from"


def _unit(row: pd.Series) -> str:
    return "seeds" if row["test"] == "paired" else "runs of both"


def _evidence(row: pd.Series, level: float, tests: int) -> str:
    """Difference, interval, n, p, and the smallest difference that would have been found."""
    p = p_value(row["p_holm"], 3, "p")
    holm = "Holm" if tests == 1 else f"Holm, {tests} tests"
    how = "" if row["test"] == "paired" else ", not paired: Welch's test"
    found = f"{simultaneous(row)} points, n = {row['n']:.0f} {_unit(row)}, {p} ({holm}){how}."
    if np.isnan(row["p_holm"]) or row["test"] != "paired":
        return found
    return f"{found} {detectable(row['sd'], int(row['n']), tests, level)}".strip()
