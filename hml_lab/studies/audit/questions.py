"""The questions of the audit: differences of two cells, paired by seed, as one family of tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from hml_core.runs import Run
from hml_lab import stats, tables
from hml_lab.studies.audit.settings import MARGIN

# (question, cell with the switch, cell without it)
QUESTIONS = (
    ("HML1 with its early drop, against CE without: what a table shows", "HML1 + early drop", "CE"),
    ("The early drop alone, given to CE", "CE + early drop", "CE"),
    ("The early drop alone, given to CE-DRW", "CE-DRW + early drop", "CE-DRW"),
    ("The early drop alone, for HML1", "HML1 + early drop", "HML1"),
    ("HML1 against CE, both without the drop", "HML1", "CE"),
    ("HML1 against CE, both with the drop", "HML1 + early drop", "CE + early drop"),
    ("CE re-weighted like HML1 against CE, without the drop", "CE re-weighted like HML1", "CE"),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over images, without the drop",
        "HML1",
        "CE re-weighted like HML1, over images",
    ),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over images, with the drop",
        "HML1 + early drop",
        "CE re-weighted like HML1, over images + early drop",
    ),
    (
        "The divisor alone: re-weighted CE over images against over weights, without the drop",
        "CE re-weighted like HML1, over images",
        "CE re-weighted like HML1",
    ),
    (
        "Loss and divisor: HML1 against CE re-weighted over weights, without the drop",
        "HML1",
        "CE re-weighted like HML1",
    ),
    ("CE-DRW (from 80 % of the run, CB weights) against CE, without the drop", "CE-DRW", "CE"),
    ("Inner instead of outer weighting", "HML1, inner", "HML1"),
    (
        "Inner weighting and the factor 10 (the authors' code), with the drop",
        "HML1, inner, ×10 + early drop",
        "HML1 + early drop",
    ),
    ("Focal with γ = 0, as the authors ran it, against CE", "Focal, γ = 0", "CE"),
    (
        "HML1 with its early drop against balanced softmax, the reference",
        "HML1 + early drop",
        "Balanced softmax",
    ),
    (
        "The early drop alone, given to CE re-weighted over images",
        "CE re-weighted like HML1, over images + early drop",
        "CE re-weighted like HML1, over images",
    ),
    (
        "The divisor alone: re-weighted CE over images against over weights, with the drop",
        "CE re-weighted like HML1, over images + early drop",
        "CE re-weighted like HML1 + early drop",
    ),
    (
        "Deferred weights alone: re-weighted CE over images against CE, both with the drop",
        "CE re-weighted like HML1, over images + early drop",
        "CE + early drop",
    ),
    (
        "The authors' code (inner weights, ×10, their schedule) against HML1 with the drop",
        "HML1 as in the authors' code (official, inner, ×10)",
        "HML1 + early drop",
    ),
    (
        "Focal in the place of L_c: CE, then CS-focal, against re-weighted CE over images",
        "CE, then CS-focal",
        "CE re-weighted like HML1, over images",
    ),
    (
        "Balanced softmax × sinc(p) against balanced softmax",
        "Balanced softmax × sinc(p)",
        "Balanced softmax",
    ),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over weights, without the drop",
        "HML1, over weights",
        "CE re-weighted like HML1",
    ),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over weights, with the drop",
        "HML1, over weights + early drop",
        "CE re-weighted like HML1 + early drop",
    ),
    (
        "The divisor alone: HML1 over images against over weights, without the drop",
        "HML1",
        "HML1, over weights",
    ),
    (
        "The divisor alone: HML1 over images against over weights, with the drop",
        "HML1 + early drop",
        "HML1, over weights + early drop",
    ),
    (
        "The early drop alone, for HML1 over weights",
        "HML1, over weights + early drop",
        "HML1, over weights",
    ),
    (
        "HML2 with δ = 1e10, as the authors ran it, instead of 1e4, with the drop",
        "HML2 as in the authors' code (official, δ = 1e10)",
        "HML2 + early drop",
    ),
)


def effect(
    frame: pd.DataFrame,
    with_switch: str,
    without: str,
    *,
    metric: str = "balanced_accuracy",
    selection: str = "last",
) -> stats.Difference | None:
    """Paired difference of two cells in percentage points; None where a cell has no finished run."""
    done = frame[frame["status"] == "done"]
    if done.empty:
        return None
    column = f"{selection}_{metric}"
    scores = [
        done[done["cell"] == cell].set_index("seed")[column].astype(float)
        for cell in (with_switch, without)
    ]
    common = scores[0].index.intersection(scores[1].index)
    if common.empty:
        return None
    return stats.paired_difference(*(100 * score[common].to_numpy() for score in scores))


def effects(frame: pd.DataFrame, *, metric: str = "balanced_accuracy") -> pd.DataFrame:
    """Every question of :data:`QUESTIONS` that the runs answer, as one family of tests.

    The columns of :func:`hml_lab.tables.contrasts` and ``label``. Where a run of the two cells ended at
    chance no mean stands for the seeds, and none is given.
    """
    columns = ["label", *stats.Difference._fields]
    done = frame[frame["status"] == "done"]
    there = set(done["cell"]) if len(done) else set()
    asked = [(label, (a, b)) for label, a, b in QUESTIONS if {a, b} <= there]
    if not asked:
        return pd.DataFrame(columns=[*columns, "p_holm"])
    found = tables.contrasts(done, [pair for _, pair in asked], by="cell", metric=metric)
    found.insert(0, "label", [label for label, _ in asked])
    return found


def by_cell(frame: pd.DataFrame, runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The records of the finished runs of every cell, those that hold predictions."""
    records = {run.run_id: run for run in runs if run.has_predictions}
    done = frame[frame["run_id"].isin(records)]
    return {
        cell: [records[run_id] for run_id in ids]
        for cell, ids in done.groupby("cell", sort=False)["run_id"]
    }


def over_images(frame: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """Every question again, from stored predictions: intervals over other seeds and other test images."""
    members = by_cell(frame, runs)
    asked = [(label, (a, b)) for label, a, b in QUESTIONS if {a, b} <= set(members)]
    if not asked:
        return pd.DataFrame(columns=["label", "group", "reference", "n", "difference", "sd"])
    found = tables.over_images(members, [pair for _, pair in asked], margin=MARGIN)
    labels = {pair: label for label, pair in asked}
    pairs = zip(found["group"], found["reference"], strict=True)
    found.insert(0, "label", [labels[pair] for pair in pairs])
    return found


def over_images_in_words(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`over_images` for a reader, by question: each seed where a run collapsed."""
    rows = {}
    for row in found.itertuples():
        told = {"difference": row.each, "95 %": "–", f"90 % for ±{MARGIN:g}": "–", "image sd": "–"}
        if not row.collapsed:
            ends = (row.low, row.high), (row.equivalence_low, row.equivalence_high)
            intervals = [
                "–" if math.isnan(low) else f"[{low:+.2f}, {high:+.2f}]" for low, high in ends
            ]
            texts = f"{row.difference:+.2f}", *intervals, f"{row.image_sd:.2f}"
            told = dict(zip(told, texts, strict=True))
        rows[row.label] = told | {"n": str(row.n)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "question"
    table.attrs["covers"] = (
        f"{found.attrs.get('covers', 'intervals')}, each difference alone; without an interval: "
        "each seed, as a run of the two cells collapsed"
    )
    return table
