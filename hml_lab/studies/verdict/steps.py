"""The way from CE to HML1, the cube of loss, divisor and drop, every cell, and the second stage."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hml_lab import stats, tables
from hml_lab.studies import audit
from hml_lab.studies.verdict import stored, words
from hml_lab.tables.cells import each_difference
from hml_lab.tables.contrasts import is_lost
from hml_lab.wording import number


def way() -> str:
    """The steps from CE to HML1."""
    steps = audit.way(stored.frame())
    effects = audit.effects(stored.frame()).set_index(["cell", "reference"])["p_holm"]
    before = [*steps["cell"].iloc[:-2], steps["cell"].iloc[0]]  # the last row is all of it
    rows = [
        [
            " ".join(row.label.split()),
            words.said(row),
            f"[{words.signed(row.low_simultaneous)}, {words.signed(row.high_simultaneous)}]",
            words.p_text(effects[row.cell, reference]).removeprefix("= "),
        ]
        for row, reference in zip(steps.iloc[1:].itertuples(), before, strict=True)
    ]
    n = len(steps["values"].iloc[0])
    heads = ["points [95 %, this step alone]", "[95 %, all five at once]"]
    holm = f"p after Holm over the audit's {len(effects)} questions"
    return words.table([f"step (n = {n})", *heads, holm], rows)


def order() -> str:
    """What divisor, weights and drop do in another order."""
    with_drop = "CE re-weighted like HML1, over images + early drop"
    divisor = (with_drop, "CE re-weighted like HML1 + early drop")
    each = stored.pairs_of(*divisor)
    same = stored.within(each)
    weights, drop = (
        stored.difference(with_drop, "CE + early drop"),
        stored.difference("CE + early drop", "CE"),
    )
    weighted = stored.difference(divisor[1], "CE re-weighted like HML1")
    is_all = {len(each), weights.n, drop.n, weighted.n} == {
        len(audit.seeds_of_the_way(stored.frame()))
    }
    others = (
        "" if is_all else " These are all pairs that there are, not the seeds of the way alone."
    )
    effects = audit.effects(stored.frame()).set_index(["cell", "reference"])
    holm = effects.loc[divisor, "p_holm"]
    is_same = "are equivalent" if same.holds else "are not shown to be equivalent"
    return (
        "The order matters to the shares of divisor and drop: with the drop, the divisor changes "
        f"{words.said(stored.difference(*divisor))} (n = {len(each)}; p {words.p_text(holm)} after Holm), "
        f"and there over images and over weights {is_same} within 1 point (90 % {words.interval(same)}, p "
        f"{words.p_text(same.p_value)}; the equivalence is no question of the audit). Weights from "
        "epoch 101 on, with the "
        f"drop and over images, gain {words.said(weights)} over CE with the drop (n = {weights.n}); the "
        f"drop alone gives plain CE {words.said(drop)} (n = {drop.n}), and CE re-weighted over weights "
        f"{words.said(weighted)} (n = {weighted.n}).{others}"
    )


def cube() -> str:
    """Loss × divisor × drop."""
    found = audit.cube(stored.frame())
    lacking = sum(cell not in {*stored.frame()["cell"]} for cell in audit.CUBE.values())
    rows = []
    for row, text in zip(
        found.itertuples(), audit.cube_in_words(found)["difference [95 %]"], strict=True
    ):
        rows.append([row.change, row.setting, text.replace("-", "−"), str(row.n)])
    made = words.table(["change", "with", "points [95 %, alone], or each seed", "n"], rows)
    if lacking:
        made += (
            f"\n\nOf the eight cells {lacking} have no stored run yet "
            f"({words.listed(_absent_cells())}), so that rows with them have a dash."
        )
    return made


def _absent_cells() -> list[str]:
    return [f"*{cell}*" for cell in audit.CUBE.values() if cell not in {*stored.frame()["cell"]}]


def cells() -> str:
    """Every cell with its runs."""
    own, common = stored.frame(), stored.common_seeds()
    rows, seen = [], set()
    for cell in dict.fromkeys([*audit.FACTORIAL, *audit.SWITCHES, *own["cell"]]):
        runs = own[own["cell"] == cell]
        ids = tuple(runs["run_id"])
        if not ids or ids in seen:
            continue
        seen.add(ids)
        values = 100 * runs["last_balanced_accuracy"].to_numpy(dtype=float)
        groups = [
            f"{stats.mean(100 * runs[f'last_{name}']):.1f}" for name in ("many", "medium", "few")
        ]
        shared = runs[runs["seed"].isin(common)]["last_balanced_accuracy"].astype(float)
        alike = f"{stats.mean(100 * shared):.2f}" if len(shared) == len(common) else "–"
        middle = f"{stats.mean(values):.2f}"
        middle += f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        if tables.collapsed(runs).any():
            middle, groups, alike = f"median {np.median(values):.2f}", ["–"] * 3, "–"
        linked = " ".join(words.link(run_id) for run_id in ids)
        rows.append([cell, str(len(values)), middle, alike, *groups, linked])
    return words.table(
        [
            "cell",
            "n",
            "mean ± sd",
            f"mean of {words.seeds_text(common)}",
            "many",
            "medium",
            "few",
            "each seed, in order",
        ],
        rows,
    )


COLLAPSING = {  # cell → how the page calls it
    "HML1": "*HML1* without the drop (δ = 1e4)",
    "HML1, over weights": "*HML1, over weights* without the drop",
    "HML2": "*HML2*, which has L_c from the first epoch on (its authors ran δ = 1e10)",
}


def collapse() -> str:
    """What happened to the hard-mining losses without the drop."""
    told = []
    for cell, name in COLLAPSING.items():
        own = stored.scores(cell).sort_index()
        if not len(own):
            continue
        lost = int(is_lost(own / 100, 100).sum())
        values = ", ".join(f"{value:.1f}" for value in own)
        told.append(
            f"{name}: {lost} of {number(len(own), 'run')} collapsed; they ended at {values} %."
        )
    return (
        "Cells with a collapsed run have no mean. "
        + " ".join(told)
        + " Where all probabilities of the true class are far below 1/δ, the "
        "outlier cut leaves neither a loss nor a gradient."
    )


def _of_sinc(each: pd.Series) -> str:
    """Whether balanced softmax × sinc(p) is a new method, and what its seeds say that were added."""
    parts = [each[each.index < stored.FIRST_SEEDS], each[each.index >= stored.FIRST_SEEDS]]
    if min(map(len, parts)) < 2:
        return "Balanced softmax × sinc(p) has too few seeds to say whether it is a new method."
    found = [stored.paired(part) for part in parts]
    later = stored.within(parts[1])
    alone = (
        f"Seeds 0 to {stored.FIRST_SEEDS - 1}, of other kernels on one side, had "
        f"{words.said(found[0])}; the others, which were added "
        f"when these were known, have {words.said(found[1])}, 90 % {words.interval(later)}, p "
        f"{words.p_text(later.p_value)} of the two one-sided tests"
    )
    if stored.within(each).low <= audit.MARGIN:
        so = (
            "Balanced softmax × sinc(p) does not beat balanced softmax by more than the margin: it is no "
            "new method, and gives no reason to try it on the second ratio or on CIFAR-10."
        )
    else:
        so = "Balanced softmax × sinc(p) beats balanced softmax by more than the margin."
    return f"{so} {alone}."


def second_stage() -> str:
    """What of the second stage decides: the loss in the place of L_c, and its rate."""
    control = "CE re-weighted like HML1, over images"
    pairs = [
        ("CS-focal instead of cross-entropy", "CE, then CS-focal", control),
        ("L_f (δ = ∞) instead of cross-entropy", "HML1, δ = ∞ (L_f)", control),
        ("L_c instead of cross-entropy", "HML1", control),
    ]
    for rate in stored.RATES[stored.FULL]:
        rated = [audit.rate_cell(cell, rate) for cell in ("HML1", control)]
        pairs.append((f"L_c instead of cross-entropy, the second stage's rate × {rate:g}", *rated))
        pairs.append(
            (f"CE re-weighted over images: rate × {rate:g} instead of 1", rated[1], control)
        )
    pairs.append(("balanced softmax × sinc(p) instead of balanced softmax", "Balanced softmax × sinc(p)",
                  "Balanced softmax"))  # fmt: skip
    there = {*stored.frame()["cell"]}
    rows, lacking = [], []
    for label, a, b in pairs:
        if not {a, b} <= there or not len(each := stored.pairs_of(a, b)):
            lacking.append(label)
            continue
        if not (stored.is_stable(a) and stored.is_stable(b)):
            told = each_difference(each.to_numpy()).replace("-", "−")
            collapsed = sum(int(is_lost(stored.scores(cell) / 100, 100).sum()) for cell in (a, b))
            rows.append([label, f"{told} ({collapsed} runs collapsed)", "–", str(len(each))])
            continue
        same = stored.within(each)
        within = (
            "–"
            if np.isnan(same.p_value)
            else f"{words.interval(same)}, p {words.p_text(same.p_value)}"
        )
        rows.append([label, words.said(stored.difference(a, b)), within, str(len(each))])
    header = [
        "without the drop",
        "points [95 %, alone]",
        "within ±1: 90 % interval, two one-sided tests",
        "n",
    ]
    made = words.table(header, rows) if rows else ""
    sinc = ("Balanced softmax × sinc(p)", "Balanced softmax")
    if {*sinc} <= there:
        made += f"\n\n{_of_sinc(stored.pairs_of(*sinc))}"
    if lacking:
        made += f"\n\nNot stored yet, and therefore open: {'; '.join(lacking)}."
    return made.strip()
