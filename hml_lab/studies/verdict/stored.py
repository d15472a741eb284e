"""What the stored records hold: runs by cell of the audit, and what page and tests ask of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hml_core import runs as records
from hml_core.runs import Run
from hml_lab import stats, tables
from hml_lab.places import checkout
from hml_lab.studies import audit

FULL, SHORT = "cifar100_lt_full", "cifar10_lt_short"
# Runs of the same configs as in FULL: on a CPU, and those whose place in FULL a second training took.
AGAIN, BEFORE = "cifar100_lt_full_cpu", "cifar100_lt_full_first"
BASE = {"dataset": "imagefolder", "imbalance_ratio": 100.0, "protocol": "controlled"}
SETTINGS = {
    FULL: BASE | {"epochs": 200, "model": "resnet32", "evaluate_every": 5, "subset_seed": "seed"},
    SHORT: BASE | {"epochs": 12, "model": "resnet8", "evaluate_every": 4, "subset_seed": 0},
}
DELTAS = {FULL: (), SHORT: (1e2, 1e4, 1e6)}
RATES = {FULL: (0.3, 0.1), SHORT: ()}
HML, CONTROL = audit.PRIMARY
AUTHORS = "HML1 as in the authors' code (official, inner, ×10)"
# The control at the authors' rate times factor: there the rate ×0.01 and the loss ×10, here the rate ×0.1.
SAME_RATE = audit.rate_cell("CE re-weighted like HML1, over images", 0.1)
# Seeds below the first were looked at before the contrast was fixed, below the second were published next.
FIRST_SEEDS, SEEN_SEEDS = 3, 6


def folder(name: str) -> Path:
    """The records of a table."""
    return checkout() / "results" / "records" / name


@functools.cache
def loaded(name: str = FULL) -> pd.DataFrame:
    """All runs of a folder of records."""
    return records.load(folder(name))


@functools.cache
def frame(name: str = FULL) -> pd.DataFrame:
    """The stored runs by cell of the audit, with the column ``cell``."""
    every = loaded(name)
    seeds = sorted(every["seed"].unique().tolist())
    cells = audit.cells(SETTINGS[name], seeds, DELTAS[name], RATES[name])
    found = []
    for cell, configs in cells.items():
        own = every[every["run_id"].isin([config.run_id for config in configs])]
        found.append(own.assign(cell=cell))
    return pd.concat(found, ignore_index=True).sort_values(["cell", "seed"], kind="stable")


@functools.cache
def images() -> pd.DataFrame:
    """The audit's differences over seeds and test images, by (group, reference)."""
    own = frame()
    found = [Run(folder(FULL) / run_id) for run_id in own["run_id"].unique()]
    return audit.over_images(own, found).set_index(["group", "reference"])


def scores(cell: str, name: str = FULL, own: pd.DataFrame | None = None) -> pd.Series:
    """Balanced accuracy in percent by seed, of the frame ``own`` where one is given."""
    own = frame(name) if own is None else own
    return 100 * own[own["cell"] == cell].set_index("seed")["last_balanced_accuracy"].astype(float)


def pairs_of(a: str, b: str, name: str = FULL) -> pd.Series:
    """Differences in points by seed, of the seeds that both cells have."""
    return scores(a, name).sub(scores(b, name)).dropna()


def shared_beginnings(a: str, b: str) -> list[int]:
    """The seeds whose two runs are one until the switch: their losses until then are the same."""
    own = frame().drop_duplicates(["cell", "seed"]).set_index(["cell", "seed"])["run_id"]
    switch = switch_epoch()

    def losses(cell: str, seed: int) -> list[float]:
        return Run(folder(FULL) / own[cell, seed]).history["train_loss"].tolist()[:switch]

    return [seed for seed in pairs_of(a, b).index if losses(a, seed) == losses(b, seed)]


def switch_epoch() -> int:
    """The epoch after which HML1 switches."""
    return Run(folder(FULL) / run_id_of(HML, 0)).config.stage_ends[0]


def twins(name: str) -> pd.DataFrame:
    """Runs of FULL that were trained twice: ``cell``, ``seed``, ``here`` and ``there`` (percent)."""
    there = loaded(name).set_index("run_id")["last_balanced_accuracy"]
    own = frame().drop_duplicates("run_id").set_index("run_id")
    both = own.index.intersection(there.index)
    here = own.loc[both, "last_balanced_accuracy"]
    return pd.DataFrame(
        {
            "cell": own.loc[both, "cell"],
            "seed": own.loc[both, "seed"],
            "here": 100 * here.astype(float),
            "there": 100 * there[both].astype(float),
        }
    )


def with_first() -> pd.DataFrame:
    """:func:`frame` with the first trainings in the place of the second."""
    own, first = frame(), loaded(BEFORE).set_index("run_id")["last_balanced_accuracy"]
    before = own["run_id"].map(first).astype(float)
    return own.assign(last_balanced_accuracy=before.fillna(own["last_balanced_accuracy"]))


def most_seeds() -> pd.DataFrame:
    """:func:`frame` of the cells that have as many seeds as any."""
    own = frame()
    sizes = own.groupby("cell")["seed"].transform("size")
    return own[sizes == sizes.max()]


def all_pairs(own: pd.DataFrame | None = None) -> pd.DataFrame:
    """All pairs of cells, corrected together: :func:`hml_lab.tables.all_pairs`, by cell and reference."""
    found = tables.all_pairs(frame() if own is None else own, by="cell")
    return found.set_index(["cell", "reference"])


def corrected(pairs: pd.DataFrame, a: str, b: str) -> pd.Series | None:
    """Of :func:`all_pairs` ``difference``, ``low``, ``high`` (at once) and ``p`` of a − b, if there."""
    sign, key = (1, (a, b)) if (a, b) in pairs.index else (-1, (b, a))
    if key not in pairs.index:
        return None
    row = pairs.loc[key]
    low, high = sorted([sign * row["low_simultaneous"], sign * row["high_simultaneous"]])
    found = {"difference": sign * row["difference"], "low": low, "high": high, "p": row["p_max_t"]}
    return pd.Series(found)


def difference(a: str, b: str, name: str = FULL) -> stats.Difference:
    """The paired difference of two cells in points."""
    return audit.effect(frame(name), a, b)


def differences_over_common(cells: Sequence[str], reference: str) -> list[stats.Difference]:
    """Each cell minus the reference, over the seeds that all of them have."""
    own = pd.concat([scores(cell) for cell in [*cells, reference]], axis=1).dropna().to_numpy()
    return [stats.paired_difference(column, own[:, -1]) for column in own[:, :-1].T]


def over_images(a: str, b: str) -> pd.Series:
    """One difference over seeds and test images, a question of the audit or not."""
    own = frame()
    own = own[own["cell"].isin([a, b])]
    members = audit.by_cell(own, [Run(folder(FULL) / run_id) for run_id in own["run_id"]])
    return tables.over_images(members, [(a, b)], margin=audit.MARGIN).iloc[0]


def common_seeds() -> list[int]:
    """The seeds that all cells have which are compared in pairs (:func:`hml_lab.tables.all_pairs`)."""
    return all_pairs().attrs["seeds"]


def paired(each: pd.Series) -> stats.Difference:
    """The mean of paired differences, one a seed, with its interval and test."""
    return stats.paired_difference(each.to_numpy(), np.zeros(len(each)))


def within(each: pd.Series) -> stats.Equivalence:
    """Whether paired differences are within the audit's margin, by two one-sided tests."""
    return stats.equivalence(each.to_numpy(), np.zeros(len(each)), audit.MARGIN)


def is_stable(cell: str, name: str = FULL) -> bool:
    """Whether a cell has runs and none of them collapsed."""
    own = frame(name)
    own = own[own["cell"] == cell]
    return len(own) > 0 and not tables.collapsed(own).any()


def run_id_of(cell: str, seed: int) -> str:
    """The id of a cell's run with this seed."""
    own = frame()
    return own.loc[(own["cell"] == cell) & (own["seed"] == seed), "run_id"].item()
