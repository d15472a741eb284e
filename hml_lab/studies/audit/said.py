"""What the audit says in sentences: the primary contrast, and how much of the gain is what."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hml_core.runs import Run
from hml_lab import tables
from hml_lab.studies.audit.questions import by_cell, effect
from hml_lab.studies.audit.scores import scores_by_seed
from hml_lab.studies.audit.settings import MARGIN, PRIMARY
from hml_lab.tables.cells import each_difference
from hml_lab.wording import number, p_value


def primary_among(pairs: pd.DataFrame) -> str:
    """What the family of all pairs (:func:`hml_lab.tables.all_pairs`) says of :data:`PRIMARY`."""
    told = " − ".join(PRIMARY)
    of = pairs[[set(pair) == set(PRIMARY) for pair in zip(pairs["cell"], pairs["reference"])]]
    if of.empty:
        return f"The primary contrast, {told}, is not among these pairs."
    row = of.iloc[0]
    sign = 1 if row["cell"] == PRIMARY[0] else -1
    ends = sorted([sign * row["low_simultaneous"], sign * row["high_simultaneous"]])
    apart = "apart" if row["p_max_t"] < 0.05 else "**not** apart"
    return (
        f"The primary contrast, {told}, is {apart} here: {sign * row['difference']:+.2f} "
        f"[{ends[0]:+.2f}, {ends[1]:+.2f}], {p_value(row['p_max_t'], 4, 'p')}, n = {row['n']} seeds that "
        f"all of these cells have, among {len(pairs)} pairs. Its own test, above, has seeds of its own "
        "and is corrected for no other pair: for that it is fixed in the code."
    )


def pairs_in_words(pairs: pd.DataFrame) -> str:
    """The caption of the pairs that differ among all of them (:func:`hml_lab.tables.all_pairs`)."""
    if pairs.empty:
        return "Pairs of cells that differ: none, as too few cells or seeds are left."
    cells = len({*pairs["cell"], *pairs["reference"]})
    seeds = ", ".join(map(str, pairs.attrs["seeds"]))
    out = [f"*{name}*" for name in (*pairs.attrs["left_out"], *pairs.attrs["few_seeds"])]
    left = f" Left out, collapsed or of few seeds: {', '.join(out)}." if out else ""
    return (
        f"Pairs of cells that differ, of all {number(len(pairs), 'pair')} of "
        f"{number(cells, 'cell')} over the "
        f"seeds that these have in common ({seeds}); p corrected by the largest t over all pairs, below "
        f"0.05. Simultaneous 95 % intervals of all pairs; {pairs.attrs['covers']}.{left}"
    )


def verdict(frame: pd.DataFrame, runs: Sequence[Run] | None = None) -> str:
    """The primary contrast, :data:`PRIMARY`, in sentences."""
    members = None
    if runs is not None and (found := by_cell(frame, runs)) and set(PRIMARY) <= set(found):
        members = found
    return tables.primary(frame, PRIMARY, by="cell", margin=MARGIN, runs=members)


def answer(frame: pd.DataFrame) -> str:
    """How much of HML's gain is schedule, how much re-weighting and how much loss, in one paragraph."""
    needed = {
        "total": ("HML1 + early drop", "CE"),
        "schedule": ("CE + early drop", "CE"),
        "same": ("HML1 + early drop", "CE + early drop"),
        "plain": ("HML1", "CE"),
        "weights": ("CE re-weighted like HML1, over images", "CE"),
        "control": ("CE re-weighted like HML1, over images + early drop", "CE"),
        "loss": ("HML1", "CE re-weighted like HML1, over images"),
        "loss with drop": PRIMARY,
    }
    found = {name: effect(frame, *pair) for name, pair in needed.items()}
    lacking = [" − ".join(needed[name]) for name, value in found.items() if value is None]
    if lacking:
        return f"The answer needs runs that are not there: {'; '.join(lacking)}."
    said = {name: _said(frame, *pair) for name, pair in needed.items()}
    return (
        f"**How much of the gain is loss, how much schedule?** Reported as in the papers, HML1 with its "
        f"early learning-rate drop against CE without, the difference in balanced accuracy is "
        f"{said['total']} points. The drop alone gives plain CE {said['schedule']}. With the same "
        f"schedule on both sides, HML1 differs from CE by {said['same']} (both with the drop) and "
        f"{said['plain']} (both without). HML1 also re-weights its second stage: plain CE with the same "
        f"class weights from the same epoch on, divided by the number of images as in HML1, "
        f"gains {said['weights']} over CE, and with HML1's early drop as well {said['control']}. What the "
        f"loss itself adds to that is {said['loss with drop']} (with the drop) or {said['loss']} "
        f"(without it). Brackets are 95 % intervals paired by seed, of each difference alone, n the "
        "seeds that both have (so that two gains may be of unlike seeds): the table below "
        "corrects for the number of its questions."
    )


def _said(frame: pd.DataFrame, with_switch: str, without: str) -> str:
    done = frame[(frame["status"] == "done") & frame["cell"].isin([with_switch, without])]
    if lost := int(tables.collapsed(done).sum()):
        scores = scores_by_seed(done)
        each = scores[with_switch].sub(scores[without]).dropna()
        return f"{each_difference(each)} (each seed; {lost} of these runs collapsed)"
    found = effect(frame, with_switch, without)
    interval = "" if found.n == 1 else f" [{found.low:+.1f}, {found.high:+.1f}]"
    return f"{found.difference:+.1f}{interval} (n = {found.n})"
