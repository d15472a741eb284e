"""What was trained twice: what the page would say with the first trainings, how far twins lie apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hml_lab import stats
from hml_lab.studies import audit
from hml_lab.studies.verdict import stored, words
from hml_lab.tables.contrasts import is_lost
from hml_lab.wording import number

TOLD_TWICE = (  # differences that the page tells elsewhere
    audit.PRIMARY,
    (stored.HML, "CE"),
    (stored.AUTHORS, stored.CONTROL),
    (stored.AUTHORS, "CE re-weighted like HML1 + early drop"),
    ("Balanced softmax", stored.HML),
    ("LDAM-DRW", stored.HML),
    ("CE-DRW", stored.HML),
    ("Balanced softmax", stored.AUTHORS),
    ("LDAM-DRW", stored.AUTHORS),
    ("Balanced softmax", "CE"),
    ("LDAM-DRW", "CE"),
)


def before() -> str:
    """What the page would say with the first trainings in their old place."""
    each = stored.pairs_of(*audit.PRIMARY)
    twins = stored.twins(stored.BEFORE)
    old = (stored.with_first(stored.HML) - stored.with_first(stored.CONTROL)).loc[
        sorted(twins["seed"].unique())
    ]
    lost = [
        int(is_lost(values / 100, 100).sum())
        for values in (stored.with_first("HML1"), stored.scores("HML1"))
    ]
    rows = []
    for a, b in TOLD_TWICE:
        first = (stored.with_first(a) - stored.with_first(b)).dropna()
        now = stored.difference(a, b)
        rows.append([f"{a} − {b}", words.said(now), words.said(stored.paired(first)), str(now.n)])
    return (
        f"In the primary contrast {words.seeds_text(old.index)} had "
        f"{words.listed([words.signed(value) for value in old])} in their first training, and have "
        f"{words.listed([words.signed(value) for value in each[old.index]])} now. Of the HML1 runs "
        f"without the drop {lost[0]} had collapsed with the first ones in place, {lost[1]} have now.\n\n"
        + words.table(
            [
                "points [95 %, alone]",
                "as they stand",
                "with the first trainings in their place",
                "n",
            ],
            rows,
        )
    )


def machines() -> str:
    """How far a run lies from its twin on another machine, or of another set of kernels."""
    cpu, first = stored.twins(stored.AGAIN), stored.twins(stored.BEFORE)
    stable = [cell for cell in stored.frame()["cell"].unique() if stored.is_stable(cell)]
    widest = max(float(np.ptp(stored.scores(cell))) for cell in stable)
    whole = first[~is_lost(first["here"] / 100, 100) & ~is_lost(first["there"] / 100, 100)]
    moved = stats.mean_interval(_of_seeds(whole))
    return (
        f"**How far twins lie apart.** {number(len(cpu), 'run')} of seed 0 were trained again on a CPU, "
        f"and {len(first)} of {words.seeds_text(first['seed'])} on the GPU. One run lies up to "
        f"{_farthest(cpu):.2f} points from its twin on the CPU, with an sd of {_sd(cpu):.2f} points for "
        f"one run, and up to {_farthest(whole):.2f} from its twin on the GPU (sd {_sd(whole):.2f}; "
        f"{len(first) - len(whole)} pairs with a collapse left out; other kernels, and another "
        "commit): rounding is another run. The "
        f"second training on the GPU reached {words.signed(moved.mean, '+.2f')} {words.interval(moved)} "
        f"points more, by means of {number(moved.n, 'seed')}. (These are no independent draws: runs share "
        "their beginnings.) Intervals over seeds contain that; a comparison of one run here with one run "
        f"there does not. Seeds of a cell without a collapse differ by up to {widest:.1f} points, subsets "
        "included."
    )


def _farthest(twins: pd.DataFrame) -> float:
    return float((twins["there"] - twins["here"]).abs().max())


def _sd(twins: pd.DataFrame) -> float:
    """Of one run, by the differences of two."""
    return float(np.sqrt(((twins["there"] - twins["here"]) ** 2).mean() / 2))


def _of_seeds(twins: pd.DataFrame) -> np.ndarray:
    """What the second training changed: one number a seed, whose runs have beginnings in common."""
    return (twins["here"] - twins["there"]).groupby(twins["seed"]).mean().to_numpy()
