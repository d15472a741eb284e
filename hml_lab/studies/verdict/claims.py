"""What can be claimed beside the primary contrast, by two corrections."""

from __future__ import annotations

from hml_lab import stats
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
        told = f"significant, of the lines without a collapse, are ({how}): {'; '.join(named)}"
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

    told = []
    for cell in cells_there:
        found = stored.corrected(pairs, cell, stored.HML)
        if found is not None and found.p < 0.05 and found.difference > 0:
            told.append(f"{cell} {pair(cell, stored.HML)}")
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
