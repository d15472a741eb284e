"""The audit: what the authors' code does beside the loss, each as a switch with its measured effect.

A *cell* is a named setting that is trained with every seed; effects are differences of two cells,
paired by seed. Everything here works on the frame of a sweep with a column ``cell``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from hml_core import engines
from hml_core.config import RunConfig
from hml_lab import published, stats

# cell → fields of its config, beside those that all cells share
FACTORIAL: dict[str, dict[str, Any]] = {
    "CE": {"recipe": "ce", "early_drop": False},
    "CE + early drop": {"recipe": "ce", "early_drop": True},
    "CE-DRW": {"recipe": "ce_drw", "early_drop": False},
    "CE-DRW + early drop": {"recipe": "ce_drw", "early_drop": True},
    "CE re-weighted like HML1": {"recipe": "ce_drw", "weighting": "CS", "early_drop": False},
    "CE re-weighted like HML1 + early drop": {
        "recipe": "ce_drw",
        "weighting": "CS",
        "early_drop": True,
    },
    "CE re-weighted like HML1, over images": {
        "recipe": "ce_drw",
        "weighting": "CS",
        "mean_over": "images",
        "early_drop": False,
    },
    "CE re-weighted like HML1, over images + early drop": {
        "recipe": "ce_drw",
        "weighting": "CS",
        "mean_over": "images",
        "early_drop": True,
    },
    "HML1": {"recipe": "hml1", "early_drop": False},
    "HML1 + early drop": {"recipe": "hml1", "early_drop": True},
}
SWITCHES: dict[str, dict[str, Any]] = {
    "HML1, inner": {"recipe": "hml1", "early_drop": False, "weight_placement": "inner"},
    "HML1, inner, ×10 + early drop": {
        "recipe": "hml1",
        "early_drop": True,
        "weight_placement": "inner",
        "loss_scale": 10.0,
    },
    "Focal, γ = 0": {"recipe": "focal", "early_drop": False, "gamma": 0.0},
    "HML2": {"recipe": "hml2", "early_drop": False},
    "HML2 + early drop": {"recipe": "hml2", "early_drop": True},
    # The trainer hands its --delta to HML1 alone. Weights and factor are those of the cells above it.
    "HML2 as in the authors' code (official, δ = 1e10)": {"recipe": "hml2", "protocol": "official"},
}
# Plain cross-entropy with the class weights and the switch of HML1. Over images, as HML1 divides: what
# differs is the loss alone. Over the sum of weights, as PyTorch does: the step is five times as large.
LIKE_HML1 = tuple(cell for cell in FACTORIAL if cell.startswith("CE re-weighted like HML1"))
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
        "HML2 with δ = 1e10, as the authors ran it, instead of 1e4, with the drop",
        "HML2 as in the authors' code (official, δ = 1e10)",
        "HML2 + early drop",
    ),
)


def delta_cell(delta: float) -> str:
    """Name of the cell of HML1 with this δ: "HML1, δ = 1e+02"."""
    return "HML1, δ = ∞ (L_f)" if math.isinf(delta) else f"HML1, δ = {delta:.0e}"


def cells(
    base: Mapping[str, Any], seeds: Sequence[int], deltas: Iterable[float] = ()
) -> dict[str, list[RunConfig]]:
    """The configurations of every cell; ``base`` holds the fields that all of them share.

    The δ sweep has the ``deltas`` given and δ = ∞.
    """
    named = {**FACTORIAL, **SWITCHES}
    for delta in (*deltas, math.inf):
        named[delta_cell(delta)] = {"recipe": "hml1", "early_drop": False, "delta": delta}
    for cell in LIKE_HML1:
        switch = RunConfig(**{**base, "recipe": "hml1"}).stage_ends
        named[cell] = {**named[cell], "stage_ends": switch}
    return {
        cell: [RunConfig(**{**base, **fields}, seed=seed) for seed in seeds]
        for cell, fields in named.items()
    }


def run(configs: Mapping[str, Sequence[RunConfig]], **options: Any) -> pd.DataFrame:
    """Sweep over all cells (options as for :func:`engines.sweep`), with the column ``cell``.

    Two cells may be the same runs under two names (δ = 1e4 is HML1 itself); they are trained once.
    """
    every = [config for members in configs.values() for config in members]
    rows = engines.sweep(every, **options).set_index("run_id")
    named = [
        rows.loc[[config.run_id for config in members]].reset_index().assign(cell=cell)
        for cell, members in configs.items()
    ]
    return pd.concat(named, ignore_index=True)


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
    """Every question of :data:`QUESTIONS` that the runs answer, Holm-corrected over all of them."""
    rows = []
    for question, with_switch, without in QUESTIONS:
        found = effect(frame, with_switch, without, metric=metric)
        if found is not None:
            rows.append({"label": question, **found._asdict()})
    table = pd.DataFrame(rows, columns=["label", *stats.Difference._fields])
    table["p_holm"] = stats.holm(table["p_value"].to_numpy(dtype=float))
    return table


def answer(frame: pd.DataFrame) -> str:
    """How much of HML's gain is schedule, how much re-weighting and how much loss, in one paragraph."""
    needed = {
        "total": ("HML1 + early drop", "CE"),
        "schedule": ("CE + early drop", "CE"),
        "same": ("HML1 + early drop", "CE + early drop"),
        "plain": ("HML1", "CE"),
        "weights": ("CE re-weighted like HML1, over images", "CE"),
        "loss": ("HML1", "CE re-weighted like HML1, over images"),
        "loss with drop": (
            "HML1 + early drop",
            "CE re-weighted like HML1, over images + early drop",
        ),
    }
    found = {name: effect(frame, *pair) for name, pair in needed.items()}
    lacking = [" − ".join(needed[name]) for name, value in found.items() if value is None]
    if lacking:
        return f"The answer needs runs that are not there: {'; '.join(lacking)}."
    said = {name: _said(value) for name, value in found.items()}
    return (
        f"**How much of the gain is loss, how much schedule?** Reported as in the papers, HML1 with its "
        f"early learning-rate drop against CE without, the difference in balanced accuracy is "
        f"{said['total']} points. The drop alone gives plain CE {said['schedule']}. With the same "
        f"schedule on both sides, HML1 differs from CE by {said['same']} (both with the drop) and "
        f"{said['plain']} (both without). HML1 also re-weights its second stage: plain CE with the same "
        f"class weights from the same epoch on, divided by the number of images as in HML1, "
        f"gains {said['weights']} over CE, and what the loss itself "
        f"adds to that is {said['loss']} (without the drop) or {said['loss with drop']} (with it). "
        f"Brackets are 95 % intervals paired by seed, n = {found['total'].n}, not corrected for their "
        f"number."
    )


def _said(found: stats.Difference) -> str:
    return f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def author_statistics(baseline: str = "CE, None") -> pd.DataFrame:
    """The authors' own ISIC 2018 runs, all of them: balanced accuracy in percent by configuration.

    ``mean``, ``sd`` and ``n`` of all runs; ``first_five`` is the mean of runs 0–4, which is what their
    published aggregate amounts to, as it averages these five twice. Welch's difference to the baseline
    with its interval (runs are independent: a run number is no common seed) and Holm's correction.

    Raises
    ------
    ValueError
        For a baseline that is not among the labels.
    """
    runs = published.author_runs()
    groups = {
        label: group.sort_values("run")["balanced_accuracy"].to_numpy()
        for label, group in runs.groupby("label", sort=False)
    }
    if baseline not in groups:
        raise ValueError(f"Expected `baseline` to be one of {', '.join(groups)}, got {baseline!r}.")
    rows = []
    for label, values in groups.items():
        summary = stats.mean_interval(values)
        row = {
            "label": label,
            "mean": summary.mean,
            "sd": summary.sd,
            "n": summary.n,
            "first_five": values[:5].mean(),
        }
        if label != baseline:
            compared = stats.welch(values, groups[baseline])
            row |= {
                "difference": compared.difference,
                "low": compared.low,
                "high": compared.high,
                "p_value": compared.p_value,
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    table["p_holm"] = stats.holm(table["p_value"].to_numpy(dtype=float))
    meaning = runs.drop_duplicates("label").set_index("label")["meaning"]
    table["what was run"] = table["label"].map(meaning)
    return table.sort_values("mean", ascending=False, ignore_index=True)
