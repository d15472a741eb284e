"""The cells of the audit: what is trained, with every seed, and which contrast is the primary one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from hml_core import engines
from hml_core.config import RunConfig, expansion

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
    "HML1, over weights": {"recipe": "hml1", "mean_over": "weights", "early_drop": False},
    "HML1, over weights + early drop": {
        "recipe": "hml1",
        "mean_over": "weights",
        "early_drop": True,
    },
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
    "HML1 as in the authors' code (official, inner, ×10)": {
        "recipe": "hml1",
        "protocol": "official",
        "weight_placement": "inner",
        "loss_scale": 10.0,
    },
    "Balanced softmax": {"recipe": "balanced_softmax", "early_drop": False},
    "LDAM-DRW": {"recipe": "ldam_drw", "early_drop": False},
}
# What of HML1's second stage decides; asked for by `rates`.
SECOND_STAGE: dict[str, dict[str, Any]] = {
    "CE, then CS-focal": {"recipe": "deferred_focal", "gamma": 1.0, "early_drop": False},
    "Balanced softmax × sinc(p)": {"recipe": "balanced_hml", "early_drop": False},
}
# Plain cross-entropy with the class weights and the switch of HML1. Over images, as HML1 divides: what
# differs is the loss alone. Over the sum of weights, as PyTorch does: the step is five times as large.
LIKE_HML1 = tuple(cell for cell in FACTORIAL if cell.startswith("CE re-weighted like HML1"))
# The primary contrast: same switch, schedule and divisor. Only the loss of the second stage differs.
PRIMARY = ("HML1 + early drop", "CE re-weighted like HML1, over images + early drop")
MARGIN = 1.0  # points within which two methods are called equivalent


def delta_cell(delta: float) -> str:
    """Name of the cell of HML1 with this δ: "HML1, δ = 1e+02"."""
    return "HML1, δ = ∞ (L_f)" if math.isinf(delta) else f"HML1, δ = {delta:.0e}"


def rate_cell(cell: str, rate: float) -> str:
    """Name of this cell with another rate in its second stage: "HML1, second stage ×0.1"."""
    return f"{cell}, second stage ×{rate:g}"


def cells(
    base: Mapping[str, Any],
    seeds: Sequence[int],
    deltas: Iterable[float] = (),
    rates: Iterable[float] = (),
) -> dict[str, list[RunConfig]]:
    """The configurations of every cell; ``base`` holds the fields that all of them share.

    The δ sweep has the ``deltas`` given and δ = ∞. ``rates`` of the second stage are tried for HML1 and
    for its control; with any, the cells of :data:`SECOND_STAGE` are there as well. A ``subset_seed`` of
    "seed" draws another training subset for each seed.
    """
    named = {**FACTORIAL, **SWITCHES}
    control = "CE re-weighted like HML1, over images"
    rates = tuple(rates)
    if rates:
        named |= SECOND_STAGE
    for delta in (*deltas, math.inf):
        named[delta_cell(delta)] = {"recipe": "hml1", "early_drop": False, "delta": delta}
    for cell in LIKE_HML1:
        switch = RunConfig(**{**base, "recipe": "hml1", "subset_seed": 0}).stage_ends
        named[cell] = {**named[cell], "stage_ends": switch}
    for rate in rates:
        for cell in ("HML1", control):
            named[rate_cell(cell, rate)] = {**named[cell], "second_stage_rate": rate}
    follows = base.get("subset_seed") == expansion.FOLLOWS_SEED

    def config(fields: Mapping[str, Any], seed: int) -> RunConfig:
        subset = {"subset_seed": seed} if follows else {}
        return RunConfig(**{**base, **fields, **subset}, seed=seed)

    return {cell: [config(fields, seed) for seed in seeds] for cell, fields in named.items()}


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
