"""What tables share: the names of metrics, and how numbers are written."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hml_core import recipes
from hml_core.runs import form
from hml_lab import stats
from hml_lab.wording import p_value

METRICS = {
    "top1": "Top-1",
    "balanced_accuracy": "Balanced acc.",
    "many": "Many",
    "medium": "Medium",
    "few": "Few",
    "macro_f1": "Macro-F1",
    "g_mean": "G-mean",
    "ece": "ECE",
}
DERMOSCOPY_METRICS = (
    "balanced_accuracy", "macro_auc", "sensitivity", "specificity", "top1", "macro_f1", "ece",
)  # fmt: skip
LABELS = {
    **METRICS,
    "macro_auc": "AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
LOWER_IS_BETTER = ("ece", "nll")
LISTED = 5  # runs that are told one by one
ABSENT = "–"  # what is not there
PAIRS = "pairs"  # column: how many seeds a difference is made of, where these are fewer than n
BEST = " *"  # ends the best cell of a column
SELECTION_LABELS = {
    "last": "last epoch",
    "best_validation": "best epoch on validation",
    "best_test": "best epoch on the test set (optimistic: selected on the test set)",
}


def finished(frame: pd.DataFrame, selection: str, *metrics: str) -> pd.DataFrame:
    """The rows of finished runs; a ValueError where there are none, and for unknown names."""
    form.require_selection(selection)
    done = frame[frame["status"] == "done"] if len(frame) else frame
    if done.empty:
        raise ValueError("Expected at least one finished run to make a table of, got none.")
    for metric in metrics:
        if f"{selection}_{metric}" not in done:
            known = [name for name in LABELS if f"{selection}_{name}" in done]
            raise ValueError(f"Expected metrics to be of {', '.join(known)}, got {metric!r}.")
    return done


def group_name(by: str, group: object) -> str:
    """How a group is called: a recipe by its title."""
    return recipes.title(str(group)) if by == "recipe" else str(group)


def plus_minus(mean: float, sd: float, best: bool) -> str:
    """ "mean ± sd", with a star for the best of its column."""
    if np.isnan(mean):
        return "–"
    spread = "" if np.isnan(sd) else f" ± {sd:.1f}"
    return f"{mean:.1f}{spread}{BEST if best else ''}"


def interval(row: pd.Series) -> str:
    """ "difference [low, high]" of a row of :func:`hml_lab.tables.differences`."""
    if np.isnan(row["difference"]):
        return "–"
    if np.isnan(row["low"]):
        return f"{row['difference']:+.1f}"
    return f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"


def simultaneous(row: pd.Series) -> str:
    """The same with the interval that holds for all rows of the family at once."""
    return interval(
        row.rename({"low": "_", "high": "_"}).rename(
            {"low_simultaneous": "low", "high_simultaneous": "high"}
        )
    )


def score(values: np.ndarray, *, lost: bool, best: bool = False) -> str:
    """ "mean ± sd" of the runs of a group, or their :func:`median_of` where no mean describes them.

    That is where a run is ``lost`` to chance, and where half of the values are 0 and others are not: the
    geometric mean over classes is 0 as soon as one class is never met.

    >>> score(np.array([0.0, 0.0, 23.8]), lost=False), score(np.array([0.0, 25.0, 27.0]), lost=False)
    ('median 0.0 of 0.0 / 0.0 / 23.8', '17.3 ± 15.0')
    >>> score(np.array([np.nan, np.nan]), lost=True)  # of a group without classes
    '–'
    """
    if np.isnan(np.asarray(values, dtype=float)).all():
        return ABSENT
    if lost or mostly_zero(values):
        return median_of(values)
    sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
    return plus_minus(stats.mean(values), sd, best)


def mostly_zero(values: np.ndarray) -> bool:
    """Whether half of the values, but not all, are 0."""
    zeros = int((np.asarray(values) == 0).sum())
    return zeros < len(values) <= 2 * zeros


def each_value(values: np.ndarray) -> str:
    """Every run's value, where no mean stands for them."""
    return " / ".join(f"{value:.1f}" for value in values)


def each_difference(values: np.ndarray) -> str:
    """Every seed's difference, where no mean stands for them; of many the median and the two ends."""
    if len(values) > LISTED:
        return f"median {np.median(values):+.1f}, {values.min():+.1f} to {values.max():+.1f}"
    return " / ".join(f"{value:+.1f}" for value in values)


def median_of(values: np.ndarray) -> str:
    """The median and every run's value: what is said of a group of which a run collapsed. Of many runs
    the two ends.

    >>> median_of(np.array([41.2, 1.0, 1.1])), median_of(np.arange(10.0))
    ('median 1.1 of 41.2 / 1.0 / 1.1', 'median 4.5 of 10 runs, 0.0 to 9.0')
    """
    middle = f"median {np.median(values):.1f} of"
    if len(values) > LISTED:
        return f"{middle} {len(values)} runs, {values.min():.1f} to {values.max():.1f}"
    return f"{middle} {each_value(values)}"


def in_print(frame: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """Numbers for a reader: rounded, p-values to four digits and never as zero.

    >>> in_print(pd.DataFrame({"difference": ["+1.2"], "p_holm": [2e-7]})).iloc[0].tolist()
    ['+1.2', '< 0.0001']
    """
    shown = frame.round(digits)
    for column in frame:
        if _P_VALUE.search(str(column)):
            shown[column] = [p_value(p, 4) for p in frame[column].astype(float)]
    return shown


_P_VALUE = re.compile(r"^p([_ ]|$)|_p$")  # names of columns: p_holm, "p (Holm)", equivalence_p


def text_cell(value: object, absent: str = ABSENT) -> str:
    """A value as a table prints it; a dash for None, NaN and empty text."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return absent
    return str(value).strip() or absent


def difference_first(table: pd.DataFrame) -> pd.DataFrame:
    """The table with difference, p, n and pairs right after the name, where no scroll bar hides them."""
    first = [name for name in table if name.startswith(("Δ", "p (")) or name in (PAIRS, "n")]
    first.sort(key=lambda name: (not name.startswith("Δ"), name == PAIRS, name == "n"))
    ordered = table[[*first, *(name for name in table if name not in first)]]
    ordered.attrs = dict(table.attrs)
    return ordered


def rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of text, the index first."""
    header = [text_cell(table.index.name or "", absent=""), *map(str, table.columns)]
    body = [
        [str(index), *map(text_cell, row)]
        for index, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return header, body


_NUMERIC = re.compile(r"[-+−–\d<.\[(]|median ")


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column is one of numbers, which stand on the right, rather than of words."""
    said = [cell for cell in cells if cell not in ("", ABSENT)]
    return sum(bool(_NUMERIC.match(cell)) for cell in said) >= max(len(said), 1) / 2
