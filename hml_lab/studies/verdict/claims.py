"""What can be claimed beside the primary contrast, and how far two machines lie apart."""

from __future__ import annotations

import numpy as np

from hml_core import runs as records
from hml_lab import stats, tables
from hml_lab.studies import audit
from hml_lab.studies.verdict import stored, words
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
    pairs = tables.all_pairs(stored.frame(), by="cell")
    cells_there = sorted({*pairs["cell"], *pairs["reference"]})
    by = {}
    for row in pairs.itertuples():
        by[row.cell, row.reference] = row
    sure = [row for row in pairs.itertuples() if row.p_max_t < 0.05]
    above = [row for row in sure if row.reference == "CE"]
    others = [cell for cell in cells_there if cell not in ("CE", *(row.cell for row in above))]

    def pair(a: str, b: str) -> str:
        row = by.get((a, b)) or by[b, a]
        sign = 1 if (a, b) in by else -1
        ends = sorted([sign * row.low_simultaneous, sign * row.high_simultaneous])
        found = words.signed(sign * row.difference, "+.2f")
        return f"{found} {words.bracket(*ends)}, p {words.drawn_p(row.p_max_t)}"

    told = [
        f"{a} {pair(a, stored.HML)}" for a in ("Balanced softmax", "LDAM-DRW") if a in cells_there
    ]
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
    """How far a run lies from its twin on another machine."""
    again = records.load(stored.folder(stored.AGAIN)).set_index("run_id")["last_balanced_accuracy"]
    here = stored.frame().drop_duplicates("run_id").set_index("run_id")["last_balanced_accuracy"]
    apart = 100 * (again - here).dropna().to_numpy(dtype=float)
    stable = [cell for cell in stored.frame()["cell"].unique() if stored.is_stable(cell)]
    widest = max(float(np.ptp(stored.scores(cell))) for cell in stable)
    return (
        f"**Two machines.** {len(apart)} runs of seed 0 were trained again on a CPU. One run "
        f"lies up to {np.abs(apart).max():.2f} points from its twin, with an sd of "
        f"{np.sqrt((apart**2).mean() / 2):.2f} points for one run: rounding alone is another "
        "run. (They are no independent draws: runs of one machine share trunks.) Intervals over "
        "seeds contain that; a comparison of one run here with one run "
        f"there does not. Seeds of a cell without a collapse differ by up to {widest:.1f} points, subsets "
        "included."
    )
