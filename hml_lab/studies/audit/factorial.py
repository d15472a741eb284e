"""The 2 × 2 × 2 of loss, divisor and drop."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from hml_lab import stats, tables
from hml_lab.studies.audit.scores import scores_by_seed
from hml_lab.tables.cells import each_difference

# The cells of loss × divisor × drop, all with HML1's class weights from its switch on.
CUBE = {
    ("CE", "weights", "no drop"): "CE re-weighted like HML1",
    ("CE", "weights", "drop"): "CE re-weighted like HML1 + early drop",
    ("CE", "images", "no drop"): "CE re-weighted like HML1, over images",
    ("CE", "images", "drop"): "CE re-weighted like HML1, over images + early drop",
    ("L_c", "weights", "no drop"): "HML1, over weights",
    ("L_c", "weights", "drop"): "HML1, over weights + early drop",
    ("L_c", "images", "no drop"): "HML1",
    ("L_c", "images", "drop"): "HML1 + early drop",
}
AXES = {
    "loss": ("L_c instead of CE", "CE", "L_c"),
    "divisor": ("mean over images instead of weights", "weights", "images"),
    "drop": ("early drop instead of none", "no drop", "drop"),
}


def cube(frame: pd.DataFrame) -> pd.DataFrame:
    """What each of loss, divisor and drop changes, in the 2 × 2 × 2 of :data:`CUBE`.

    Returns
    -------
    pandas.DataFrame
        For each of the three, a row for each setting of the other two and one for the average over all
        four, the main effect (``setting`` "on average"): ``change``, ``setting``, ``cell``,
        ``reference``, ``n``, ``difference``, ``low``, ``high`` (points, of this one alone, paired by
        seed), ``each`` (of every seed) and ``collapsed`` (of its runs). A row whose cells lack a run in
        common has n = 0. Where a run collapsed there is no mean: ``each`` tells it. No p-values: what is
        tested is the family of :func:`effects`.
    """
    done = frame[frame["status"] == "done"]
    scores = scores_by_seed(done)
    lost = done[tables.collapsed(done)].groupby("cell").size() if len(done) else {}
    rows = []
    for axis, (change, off, on) in enumerate(AXES.values()):
        others = list(
            dict.fromkeys(key[:axis] + key[axis + 1 :] for key in CUBE if key[axis] == on)
        )
        every = []
        for other in others:
            a, b = (CUBE[(*other[:axis], level, *other[axis:])] for level in (on, off))
            each = pd.Series(dtype=float)
            if a in scores and b in scores:
                each = scores[a].sub(scores[b]).dropna()
            collapses = int(lost.get(a, 0) + lost.get(b, 0))
            every.append((each, collapses))
            own = {"change": change, "setting": ", ".join(other), "cell": a, "reference": b}
            rows.append(own | _paired(each, collapses))
        # Of a seed the main effect is the mean of its four differences, so that seeds stay the units.
        mean = pd.concat([each for each, _ in every], axis=1).dropna().mean(axis=1)
        own = {"change": change, "setting": "on average", "cell": "", "reference": ""}
        rows.append(own | _paired(mean, sum(number for _, number in every)))
    return pd.DataFrame(rows)


def _paired(each: pd.Series, collapses: int) -> dict[str, Any]:
    row = {"n": len(each), "difference": math.nan, "low": math.nan, "high": math.nan}
    if len(each) and not collapses:
        found = stats.mean_interval(each.to_numpy())
        row |= {"difference": found.mean, "low": found.low, "high": found.high}
    return row | {"each": each_difference(each.to_numpy()), "collapsed": collapses}


def cube_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`cube` in text: "+0.50 [+0.10, +0.90]", each seed where a run collapsed, – without runs."""

    def said(row: Any) -> str:
        if not row.n:
            return "–"
        if row.collapsed:
            return row.each
        interval = "" if math.isnan(row.low) else f" [{row.low:+.2f}, {row.high:+.2f}]"
        return f"{row.difference:+.2f}{interval}"

    shown = pd.DataFrame(
        {
            "change": table["change"],
            "with": table["setting"],
            "difference [95 %]": [said(row) for row in table.itertuples()],
            "n": table["n"].astype(str),
        }
    ).set_index("change")
    shown.attrs["covers"] = (
        "brackets: 95 % intervals of each difference alone, Student's t over seeds"
    )
    return shown
