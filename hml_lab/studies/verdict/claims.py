"""What can be claimed beside the primary contrast, and how far two machines lie apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hml_lab import stats
from hml_lab.studies import audit
from hml_lab.studies.verdict import stored, words
from hml_lab.tables.contrasts import is_lost
from hml_lab.wording import number

POWERED = 0.4  # points: the sd for which the page says what would have been found


def holm() -> str:
    """What stands after Holm's correction over the audit."""
    effects = audit.effects(stored.frame())
    sure = effects[effects["p_holm"] < 0.05]
    if sure.empty:
        told = "none is significant"
    elif len(sure) == 1 and (sure["cell"].iloc[0], sure["reference"].iloc[0]) == audit.PRIMARY:
        told = "only the primary contrast is significant"
    else:
        named = [
            f"{row.cell} − {row.reference} {words.signed(row.difference, '+.2f')} "
            f"[{words.signed(row.low_simultaneous)}, {words.signed(row.high_simultaneous)}]"
            for row in sure.itertuples()
        ]
        how = "with simultaneous intervals by Bonferroni, wider than Holm's test"
        told = f"significant are ({how}): {'; '.join(named)}"
    n = int(effects.set_index(["cell", "reference"]).loc[audit.PRIMARY, "n"])
    measured = stats.minimum_detectable(POWERED, n)
    ends = [stats.minimum_detectable(sd, n) for sd in stats.sd_interval(POWERED, n)]
    known = effects[(effects["collapsed"] == 0) & effects["correlation"].notna()]["correlation"]
    gain = effects.set_index(["cell", "reference"]).loc[(stored.HML, "CE")]
    return (
        f"*Holm over the {len(effects)} questions of the audit*, each by the scatter of its own pairs "
        f"([table](../results/tables/audit_cifar100_full_effects.csv)): {told}. HML1's gain over "
        f"CE has p {words.p_text(gain['p_holm'])} there. A difference of two methods with an sd of "
        f"{POWERED:g} over {number(n, 'seed')} would have been found, uncorrected, with 80 % "
        f"power from {measured:.1f} points on; over the interval of that sd, from {ends[0]:.1f} to "
        f"{ends[1]:.1f}. The "
        f"correlation of the two runs of a pair over seeds is {words.signed(known.min())} to "
        f"{known.max():.2f} in the lines without a collapse (column `correlation`): pairing is "
        "measured, not assumed."
    )


def all_pairs() -> str:
    """What stands if every pair is looked at."""
    pairs = stored.all_pairs()
    cells_there = sorted({cell for pair in pairs.index for cell in pair})
    sure = pairs[pairs["p_max_t"] < 0.05]
    above = [cell for cell, reference in sure.index if reference == "CE"]
    others = [cell for cell in cells_there if cell not in ("CE", *above)]

    def pair(a: str, b: str) -> str:
        found = stored.corrected(pairs, a, b)
        return f"{words.said(found)}, p {words.drawn_p(found.p)}"

    rivals = {
        cell: stored.corrected(pairs, cell, stored.HML)
        for cell in cells_there
        if stored.HML in cells_there and cell != stored.HML
    }
    higher = [cell for cell, found in rivals.items() if found.p < 0.05 and found.difference > 0]
    told = [f"{cell} {pair(cell, stored.HML)}" for cell in higher]
    left = [*pairs.attrs["left_out"], *pairs.attrs["few_seeds"]]
    out = (
        f" (left out, collapsed or of fewer seeds: {', '.join(f'*{cell}*' for cell in left)})"
        if left
        else ""
    )
    gained = f"{len(above)} cells are established above CE"
    gained += f", all but {words.listed(others)}" if others else ", which are all others"
    hml = f"HML1 with the drop {pair(stored.HML, 'CE')}; " if stored.HML in cells_there else ""
    return (
        f"*All {len(pairs)} pairs of {len(cells_there)} cells*{out}, by the largest t with "
        f"{number(int(pairs['n'].iloc[0]), 'seed')} as blocks "
        f"([table](../results/tables/audit_cifar100_full_all_pairs.csv)): {gained} ({hml}CE "
        f"re-weighted over images with the drop {pair(stored.CONTROL, 'CE')}). Above HML1 with the "
        f"drop: {'; '.join(told)}. {len(sure)} of the pairs differ in all; the primary pair, by the "
        f"pooled scatter of this family, has {pair(stored.HML, stored.CONTROL)}. Not distinguishable "
        "is not the same."
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
