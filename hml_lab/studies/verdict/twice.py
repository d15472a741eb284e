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
    each, own = stored.pairs_of(*audit.PRIMARY), stored.with_first()

    def first_of(a: str, b: str) -> pd.Series:
        return stored.scores(a, own=own).sub(stored.scores(b, own=own)).dropna()

    seeds = sorted(stored.twins(stored.BEFORE)["seed"].unique())
    old = first_of(*audit.PRIMARY)[seeds]
    lost = [
        int(is_lost(values / 100, 100).sum())
        for values in (stored.scores("HML1", own=own), stored.scores("HML1"))
    ]
    rows = []
    for a, b in TOLD_TWICE:
        now, first = stored.difference(a, b), stored.paired(first_of(a, b))
        rows.append([f"{a} − {b}", words.said(now), words.said(first), str(now.n)])
    heads = ["points [95 %, alone]", "as they stand", "with the first trainings in their place"]
    return (
        f"In the primary contrast {words.seeds_text(seeds)} had "
        f"{words.listed([words.signed(value) for value in old])} in their first training, and have "
        f"{words.listed([words.signed(value) for value in each[seeds]])} now. Of the HML1 runs "
        f"without the drop {lost[0]} had collapsed with the first ones in place, {lost[1]} have now.\n\n"
        f"{words.table([*heads, 'n'], rows)}\n\n{_corrected(stored.all_pairs(), stored.all_pairs(own))}"
    )


def _corrected(now: pd.DataFrame, first: pd.DataFrame) -> str:
    """Which of the differences told is significant among all pairs with one training and not the other."""
    changed = []
    for a, b in TOLD_TWICE:
        both = [stored.corrected(family, a, b) for family in (now, first)]
        if all(one is not None for one in both) and len({one.p < 0.05 for one in both}) == 2:
            p = words.drawn_ps(one.p for one in both)
            changed.append(f"{a} − {b} has p {p[0]} as it stands and {p[1]} with the first")
    numbers = [int((family["p_max_t"] < 0.05).sum()) for family in (now, first)]
    which = (
        "; ".join(changed)
        if changed
        else "none of these is significant with one and not with the other"
    )
    return (
        f"Corrected over all pairs, {which}. Of all pairs {numbers[0]} differ as they stand, {numbers[1]} "
        "with the first trainings."
    )


# Of the same kernels both times, the first with a beginning of its own.
OWN_BEGINNING = "CE, then CS-focal"


def machines() -> str:
    """How far a run lies from its twin on another machine, or of another set of kernels."""
    cpu, first = stored.twins(stored.AGAIN), stored.twins(stored.BEFORE)
    stable = [cell for cell in stored.frame()["cell"].unique() if stored.is_stable(cell)]
    widest = max(float(np.ptp(stored.scores(cell))) for cell in stable)
    whole = first[~is_lost(first["here"] / 100, 100) & ~is_lost(first["there"] / 100, 100)]
    focal = whole["cell"] == OWN_BEGINNING
    kernels = whole[~focal]
    cells, by_seed = _of_seeds(kernels)
    moved = stats.mean_interval(by_seed)
    return (
        f"**How far twins lie apart.** {number(len(cpu), 'run')} of seed 0 were trained again on a CPU, "
        f"and {len(first)} of {words.seeds_text(first['seed'])} on the GPU. One run lies up to "
        f"{_farthest(cpu):.2f} points from its twin on the CPU, with an sd of {_sd(cpu):.2f} points for "
        f"one run, and up to {_farthest(kernels):.2f} from its twin of other kernels (sd "
        f"{_sd(kernels):.2f}; another commit, too; {len(first) - len(whole)} pairs with a collapse left "
        f"out); {focal.sum()} of CS-focal, which had these kernels before and now share the beginning of "
        f"the others, up to {_farthest(whole[focal]):.2f}. Rounding is another run. Over the "
        f"{len(cells)} cells that each of these seeds has whole, the training by this package's kernels "
        f"reached {words.signed(moved.mean, '+.2f')} {words.interval(moved)} points more "
        f"({number(moved.n, 'seed')}, uncorrected; more in {int((cells > 0).sum())} of the cells): "
        "a shift by kernels or commit is not excluded. (These are no independent draws: runs share their "
        "beginnings.) Intervals over seeds contain the scatter, not such a shift; what it does beside "
        "balanced softmax and LDAM-DRW, whose first seeds have the other kernels, is the table above. "
        f"Seeds of a cell without a collapse differ by up to {widest:.1f} points, subsets "
        "included."
    )


def _farthest(twins: pd.DataFrame) -> float:
    return float((twins["there"] - twins["here"]).abs().max())


def _sd(twins: pd.DataFrame) -> float:
    """Of one run, by the differences of two."""
    return float(np.sqrt(((twins["there"] - twins["here"]) ** 2).mean() / 2))


def _of_seeds(twins: pd.DataFrame) -> tuple[pd.Series, np.ndarray]:
    """What the second training changed, by cell and by seed, of the cells that every seed has twins of.

    One number a seed: its runs have beginnings in common.
    """
    by = twins.assign(by=twins["here"] - twins["there"])
    moved = by.pivot(index="seed", columns="cell", values="by").dropna(axis=1)
    return moved.mean(), moved.mean(axis=1).to_numpy()
