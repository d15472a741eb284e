"""The way from cross-entropy to HML1, one change at a time."""

from __future__ import annotations

import pandas as pd

from hml_lab import tables
from hml_lab.studies.audit.scores import scores_by_seed

# From CE to HML1, one change at a time; each is compared with the cell before it.
WAY = (
    ("cross-entropy (CE)", "CE"),
    (
        "from epoch 101 on class weights ∝ 1/n,\nmean over the sum of weights",
        "CE re-weighted like HML1",
    ),
    ("mean over the number of images", "CE re-weighted like HML1, over images"),
    (
        "learning rate × 0.01 from epoch 101 on",
        "CE re-weighted like HML1, over images + early drop",
    ),
    ("the hard-mining loss L_c: HML1", "HML1 + early drop"),
)
BESIDE = ("CE-DRW", "Balanced softmax", "LDAM-DRW")  # on the way's figure


def lacking(frame: pd.DataFrame) -> list[str]:
    """The cells of :data:`WAY` without a finished run."""
    there = set(frame.loc[frame["status"] == "done", "cell"])
    return [cell for _, cell in WAY if cell not in there]


def way(frame: pd.DataFrame) -> pd.DataFrame:
    """The way from CE to HML1, a row for each step of :data:`WAY`, and the whole of it last.

    Over the seeds that all of its cells have, so that the steps add up.

    Returns
    -------
    pandas.DataFrame
        ``label``, ``cell``, ``mean`` (percent), ``values`` (of each seed), and the difference to the row
        before (the last row: to the first) with its 95 % interval, ``low`` and ``high``, and the interval
        that holds for all of these at once, ``low_simultaneous`` and ``high_simultaneous``.

    Raises
    ------
    ValueError
        Where a cell of the way has no finished run, naming it, or its cells no seed in common.
    """
    if absent := lacking(frame):
        raise ValueError(f"Expected finished runs of {', '.join(absent)}, got none.")
    done = frame[frame["status"] == "done"]
    names = [cell for _, cell in WAY]
    common = seeds_of_the_way(frame)
    if not common:
        raise ValueError(f"Expected a seed that {', '.join(names)} have in common, got none.")
    done = done[done["seed"].isin(common)]
    scores = scores_by_seed(done)
    pairs = [*zip(names[1:], names[:-1], strict=True), (names[-1], names[0])]
    found = tables.contrasts(done, pairs, by="cell")
    labels = [*(label for label, _ in WAY), "all of it: HML1 with its drop, against CE"]
    rows = [
        {"label": label, "cell": cell, "mean": scores[cell].mean(), "values": tuple(scores[cell])}
        for label, cell in zip(labels, [*names, names[-1]], strict=True)
    ]
    empty = pd.DataFrame([{}], columns=found.columns)
    # No p-values: what is said of these differences is said once, in the family of `effects`.
    tests = ["cell", "p_value", "p_holm", "each", "collapsed"]
    steps = pd.concat([empty, found], ignore_index=True).drop(columns=tests)
    table = pd.concat([pd.DataFrame(rows), steps], axis=1)
    table.attrs = found.attrs
    return table


def seeds_of_the_way(frame: pd.DataFrame) -> list[int]:
    """The seeds of which all cells of :data:`WAY` have a finished run."""
    done = frame[frame["status"] == "done"]
    seeds = [set(done.loc[done["cell"] == cell, "seed"]) for _, cell in WAY]
    return sorted(set.intersection(*seeds))


def beside(frame: pd.DataFrame) -> pd.DataFrame:
    """Label, mean and every seed (percent) of the methods that the way is shown beside, with its seeds."""
    done = frame[frame["status"] == "done"]
    common = seeds_of_the_way(frame)
    scores = scores_by_seed(done[done["seed"].isin(common)])
    there = [cell for cell in BESIDE if cell in scores and len(scores[cell]) == len(common)]
    return pd.DataFrame(
        [{"label": c, "mean": scores[c].mean(), "values": tuple(scores[c])} for c in there]
    )
