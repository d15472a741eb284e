"""The bag of tricks: one trick at a time, then the best ones together, chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hml_core import engines, recipes
from hml_core.config import RunConfig
from hml_core.errors import ConfigError
from hml_lab import stats
from hml_lab.tables import collapsed
from hml_lab.tables.cells import each_difference, median_of
from hml_lab.tables.contrasts import without_means
from hml_lab.wording import number

# trick → fields of the run that switch it on
TRICKS: dict[str, dict[str, Any]] = {
    "mixup": {"mix": "mixup"},
    "remix": {"mix": "remix"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "label-aware smoothing 0.3": {"label_aware_smoothing": 0.3},
    "cosine classifier": {"head": "cosine"},
    "class-balanced sampler": {"sampler": "class_balanced"},
    "square-root sampler": {"sampler": "square_root"},
    "progressively balanced sampler": {"sampler": "progressive"},
    "post-hoc logit adjustment": {"post_hoc_tau": 1.0},
}


def one_at_a_time(
    base: Mapping[str, Any], seeds: Sequence[int], tricks: Sequence[str] = tuple(TRICKS)
) -> tuple[dict[str, list[RunConfig]], dict[str, str]]:
    """Configurations with no trick ("none") and with each one; and the refused ones with reasons.

    Raises
    ------
    ConfigError
        For an unknown trick.
    """
    unknown = [trick for trick in tricks if trick not in TRICKS]
    if unknown:
        raise ConfigError(f"Expected `tricks` out of {', '.join(TRICKS)}, got {unknown}.")
    made = {"none": [RunConfig(**base, seed=seed) for seed in seeds]}
    refused = {}
    for trick in tricks:
        try:
            made[trick] = [RunConfig(**{**base, **TRICKS[trick]}, seed=seed) for seed in seeds]
        except ConfigError as error:
            refused[trick] = str(error)
    return made, refused


def of_recipes(
    base: Mapping[str, Any],
    names: Sequence[str],
    seeds: Sequence[int],
    tricks: Sequence[str] = tuple(TRICKS),
) -> tuple[dict[str, list[RunConfig]], list[str]]:
    """:func:`one_at_a_time` for several recipes: trick → runs of all of them, and what was refused."""
    by_trick: dict[str, list[RunConfig]] = {trick: [] for trick in ("none", *tricks)}
    reasons = []
    for name in names:
        configs, refused = one_at_a_time({**base, "recipe": name}, seeds, tricks)
        for trick, members in configs.items():
            by_trick[trick] += members
        reasons += [f"{name}, {trick}: {reason}" for trick, reason in refused.items()]
    return {trick: members for trick, members in by_trick.items() if members}, reasons


def gains(frame: pd.DataFrame, *, metric: str = "balanced_accuracy") -> pd.DataFrame:
    """Paired gain of each trick over "none" after the last epoch, in points, Holm-corrected.

    ``frame`` has the columns ``trick`` and ``recipe``; the correction is over the tricks of a recipe.
    ``each`` is the gain of every seed, ``collapsed`` the number of runs, with the trick or without, that
    collapsed: there no mean stands for the seeds, and none is given.
    """
    done = frame[frame["status"] == "done"]
    tables, families = [], []
    for recipe, runs in done.groupby("recipe", sort=False):
        scores = runs.set_index(["trick", "seed"])[f"last_{metric}"].astype(float) * 100
        rows = []
        for trick in runs["trick"].unique():
            if trick == "none" or "none" not in scores.index.get_level_values(0):
                continue
            common = scores[trick].index.intersection(scores["none"].index)
            found = stats.paired_difference(
                scores[trick][common].to_numpy(), scores["none"][common].to_numpy()
            )
            own = runs[runs["trick"].isin([trick, "none"])]
            each = (scores[trick][common] - scores["none"][common]).to_numpy()
            told = {"each": each_difference(each), "collapsed": int(collapsed(own).sum())}
            rows.append({"recipe": recipe, "label": trick, **found._asdict(), **told})
        if rows:
            table = pd.DataFrame(rows)
            p_holm = stats.holm(table["p_value"].to_numpy(dtype=float))
            tables.append(without_means(table.assign(p_holm=p_holm)))
            families.append(int(table["p_value"].notna().sum()))
    if not tables:
        raise ValueError("Expected finished runs with and without a trick, got none.")
    table = pd.concat(tables, ignore_index=True)
    table.attrs["family"] = f"a family of {_listed(families)} for each recipe, p-values by Holm"
    return table


def _listed(sizes: Sequence[int]) -> str:
    """ "9 tests" where all families are as large, else "9 and 7 tests"."""
    said = list(map(str, sizes)) if len(set(sizes)) > 1 else []
    return f"{', '.join(said[:-1])} and {said[-1]} tests" if said else number(sizes[0], "test")


def sweep(configs: Mapping[str, Sequence[RunConfig]], **options: Any) -> pd.DataFrame:
    """:func:`engines.sweep` over all of them at once, with the column ``trick``."""
    labels = {c.run_id: trick for trick, members in configs.items() for c in members}
    every = [config for members in configs.values() for config in members]
    frame = engines.sweep(every, **options)
    return frame.assign(trick=frame["run_id"].map(labels))


def validation_score(frame: pd.DataFrame) -> float:
    """Mean over seeds of the last epoch's balanced accuracy on *validation*; NaN without one."""
    done = frame[frame["status"] == "done"]
    column = "last_validation_score"
    return float(done[column].mean()) if len(done) == len(frame) else float("nan")


def greedy(
    base: Mapping[str, Any],
    seeds: Sequence[int],
    tricks: Sequence[str] = tuple(TRICKS),
    **options: Any,
) -> tuple[tuple[str, ...], pd.DataFrame]:
    """Add the trick that helps validation most, again and again, until none does.

    The choice never sees the test set. Options are those of :func:`engines.sweep`.

    Returns
    -------
    chosen : tuple of str
        The tricks, in the order in which they were added.
    frame : pandas.DataFrame
        One row per step: the tricks so far, validation and test balanced accuracy in percent (means
        over seeds of the last epoch); where a run collapsed the test has no mean but its runs.
    """
    chosen: tuple[str, ...] = ()
    fields = dict(base)
    best = sweep({"none": [RunConfig(**fields, seed=s) for s in seeds]}, **options)
    steps = [_step(chosen, best)]
    while True:
        left = [trick for trick in tricks if not set(TRICKS[trick]) & _used(chosen)]
        configs, _ = one_at_a_time(fields, seeds, left)
        del configs["none"]
        found = dict(list(sweep(configs, **options).groupby("trick"))) if configs else {}
        scores = {trick: validation_score(frame) for trick, frame in found.items()}
        scores = {trick: score for trick, score in scores.items() if not np.isnan(score)}
        if not scores or max(scores.values()) <= validation_score(best):
            return chosen, pd.DataFrame(steps)
        winner = max(scores, key=scores.get)
        chosen, best = (*chosen, winner), found[winner]
        fields |= TRICKS[winner]
        steps.append(_step(chosen, best))


def _used(chosen: Sequence[str]) -> set[str]:
    """Fields that are taken; the two smoothings exclude each other, too."""
    used = {name for trick in chosen for name in TRICKS[trick]}
    if used & {"label_smoothing", "label_aware_smoothing"}:
        used |= {"label_smoothing", "label_aware_smoothing"}
    return used


def _step(chosen: Sequence[str], frame: pd.DataFrame) -> dict[str, Any]:
    test = 100 * frame["last_balanced_accuracy"].astype(float)
    lost = bool(collapsed(frame).any())
    return {
        "recipe": recipes.title(frame["recipe"].iloc[0]),
        "tricks": " + ".join(chosen) or "none",
        "validation": 100 * validation_score(frame),
        "test": np.nan if lost else test.mean(),
        "test_sd": np.nan if lost else test.std(ddof=1),
        "n": len(frame),
        **({"each test": median_of(test.to_numpy())} if lost else {}),
    }
