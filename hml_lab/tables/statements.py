"""What runs are and what they say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hml_core import datasets, recipes
from hml_lab import stats
from hml_lab.tables.cells import LABELS, finished, interval, p_value
from hml_lab.tables.methods import differences, summary
from hml_lab.wording import number


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
    listed = "\n".join(
        f"- `{row.run_id}`: {row.status} ({row.error})" for row in lacking.itertuples()
    )
    are = "is" if len(lacking) == 1 else "are"
    which = (
        f"{len(lacking)} of {number(len(frame), 'run')} {are}" if len(frame) > 1 else "The run is"
    )
    return f"**{which} not there:**\n\n{listed}"


def conclusion(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    methods: Sequence[str] = ("hml1", "hml2"),
    metric: str = "balanced_accuracy",
    selection: str = "last",
    level: float = 0.05,
) -> str:
    """What these runs say about ``methods``, in sentences: against the baseline and the best other.

    "Better" and "worse" are said only where the Holm-corrected paired test stays under ``level``: over
    all recipes for the baseline, over ``methods`` for the best other. Intervals are of 95 % each. The
    detectable difference is that of :func:`hml_lab.stats.minimum_detectable` at 80 % power, with
    ``level`` shared out among the comparisons (Bonferroni), a little larger than Holm's.
    """
    means = summary(frame, metrics=[metric], selection=selection).set_index("recipe")["mean"]
    methods = [method for method in methods if method in means.index]
    measured = {"metric": metric, "selection": selection}
    tests = differences(frame, baseline=baseline, **measured).set_index("recipe")
    others = means.drop(methods).dropna()
    best, against_best = None, tests
    if len(others) and (best := others.idxmax()) != baseline:
        few = frame[frame["recipe"].isin([best, *methods])]
        against_best = differences(few, baseline=best, **measured).set_index("recipe")
    lines = []
    for method in methods:
        if method not in tests.index:
            continue
        row, name = tests.loc[method], recipes.title(method)
        lines.append(
            f"**{name}** {_verdict(row, level)} {recipes.title(baseline)} in "
            f"{LABELS.get(metric, metric).lower()}: {_evidence(row, level, len(tests))}"
        )
        if best is None:
            continue
        scores = f"{means[method]:.1f} % against {means[best]:.1f} %"
        if best == baseline:
            lines.append(f"No other method is above {recipes.title(best)}: {scores}.")
            continue
        row = against_best.loc[method]
        lines.append(
            f"{name} {_verdict(row, level, indistinguishable=True)} the best other method, "
            f"{recipes.title(best)} ({scores}): {_evidence(row, level, len(against_best))}"
        )
    return "\n\n".join(lines)


def _verdict(row: pd.Series, level: float, *, indistinguishable: bool = False) -> str:
    if np.isnan(row["p_holm"]):
        return "cannot be compared (too few seeds) with"
    if row["p_holm"] < level:
        return "is better than" if row["difference"] > 0 else "is worse than"
    if indistinguishable:
        return f"is not distinguishable with {row['n']:.0f} seeds from"
    return "does not differ significantly from"


def _evidence(row: pd.Series, level: float, comparisons: int) -> str:
    """Difference, interval, n, p, and the smallest difference that would have been found."""
    # The interval is of this difference alone: it may leave out 0 where the test, corrected, does not.
    tests = "Holm" if comparisons == 1 else f"Holm, {comparisons} tests"
    p = p_value(row["p_holm"])
    p = p if p.startswith("<") else f"= {p}"
    found = f"{interval(row)} points, n = {row['n']:.0f} seeds, p {p} ({tests})."
    if np.isnan(row["p_holm"]) or not row["sd"] > 0:
        return found
    alpha, n = level / comparisons, int(row["n"])
    effect = stats.minimum_detectable(row["sd"], n, alpha=alpha)
    return f"{found} Detectable with 80 % power: {effect:.1f} points."
