"""What README says of the verdict: its figure's words, the answer in a paragraph, and one small table."""

from __future__ import annotations

import numpy as np

from hml_lab import stats, tables
from hml_lab.studies import audit
from hml_lab.studies.verdict import stored, words
from hml_lab.tables.cells import BEST

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COLUMNS = {  # README's name → cell
    "CE": "CE",
    "deferred CS-CE + drop (control)": stored.CONTROL,
    "HML1 + drop": stored.HML,
    "HML1, no drop": "HML1",
    "HML1, authors' code": "HML1 as in the authors' code (official, inner, ×10)",
    "Balanced Softmax": "Balanced softmax",
    "LDAM-DRW": "LDAM-DRW",
}


def _counted(value: int) -> str:
    """In words up to ten."""
    return COUNTS[value] if value < len(COUNTS) else str(value)


def readme_figure() -> str:
    """The figure of the way with its words."""
    steps = audit.way(stored.frame())
    gains = [words.signed(step, "+.1f") for step in steps["difference"].iloc[1:5]]
    ends = [f"{mean:.1f} %" for mean in steps["mean"].iloc[[0, -1]]]
    n = _counted(len(steps["values"].iloc[0]))
    return (
        "![Balanced accuracy on CIFAR-100-LT after each step from cross-entropy, "
        f"{ends[0]}, to HML1, {ends[1]}: weights from half of the run on {gains[0]}, mean over images "
        f"{gains[1]}, a lower rate {gains[2]}, the hard-mining loss itself {gains[3]} points]"
        "(results/figures/audit_cifar100_full_way.png)\n\n"
        "*From cross-entropy to HML1, one change at a time: CIFAR-100-LT, ratio 100, ResNet-32, 200 "
        f"epochs, the {n} seeds that\nevery cell has (official class counts, other members). The last "
        "change is the loss.*"
    )


def readme_answer() -> str:
    """The answer in a paragraph."""
    each = stored.pairs_of(*audit.PRIMARY)
    found = stored.difference(*audit.PRIMARY)
    same = stats.equivalence(each.to_numpy(), np.zeros(len(each)), audit.MARGIN)
    verb = "" if same.holds else "not shown to be "
    side = "below" if found.difference < 0 else "above"
    apart = f", and slightly {side} it" if same.holds and found.p_value < 0.05 else ""
    gain, control = (stored.difference(cell, "CE") for cell in (stored.HML, stored.CONTROL))
    effects = audit.effects(stored.frame()).set_index(["cell", "reference"])
    p = effects.loc[(stored.HML, "CE"), "p_holm"]
    holm = "significant" if p < 0.05 else "not significant"
    than = "less" if gain.difference < control.difference else "more"
    free = stored.frame()[stored.frame()["cell"] == "HML1"]
    lost = int(tables.collapsed(free).sum())
    rivals = ("Balanced softmax", "LDAM-DRW")
    others = [words.said(stored.difference(cell, stored.HML), "+.1f") for cell in rivals]
    pairs = tables.all_pairs(stored.frame(), by="cell").set_index(["cell", "reference"])
    ps = [
        f"p {words.drawn_p(pairs.loc[(cell, stored.HML), 'p_max_t'])}"
        if (cell, stored.HML) in pairs.index
        else "not compared"
        for cell in rivals
    ]
    isic = audit.author_contrasts().set_index("label").loc["CHML2, CS − (CE, CS)"]
    return (
        "On CIFAR-100-LT (ratio 100, ResNet-32, 200 epochs, last epoch, another subset for each seed; "
        "lossless images, not the official members) HML1 on its authors' schedule is "
        f"**{verb}equivalent within one point to cross-entropy with the same class weights from the same "
        f"epoch on{apart}**: {words.said(found, '.2f')} over {_counted(found.n)} seeds. Its gain over "
        f"cross-entropy, {words.said(gain, '+.1f')} ({holm} after Holm over the audit's {len(effects)} "
        f"questions, p {words.p_text(p)}), is {than} than what deferred weights and schedule give "
        f"cross-entropy itself, {words.said(control, '+.1f')}. Without the early drop of the learning "
        f"rate that only HML gets, {_counted(lost)} of {_counted(len(free))} HML1 runs ended at chance. "
        "Balanced Softmax and LDAM-DRW, in one stage or with weights late, differ from HML1 by "
        f"{others[0]} and {others[1]} points (corrected over all pairs: {ps[0]} and {ps[1]}). The "
        "authors' ISIC 2018 runs support more than weights from the first epoch on "
        f"({words.said(isic)}, ten runs each), but hold no deferred weighted cross-entropy. "
        "Brackets are 95 % intervals of each difference alone. "
        "[The whole argument, each number with its runs](docs/verdict.md)."
    )


def readme_table() -> str:
    """One small table."""
    cells = audit.scores_by_cell(stored.frame(), COLUMNS.values(), ["balanced_accuracy"])
    shown = [text.removesuffix(BEST) for text in cells["balanced_accuracy"]]
    return words.table(
        ["balanced accuracy, %", *COLUMNS],
        [
            ["[CIFAR-100-LT](results/tables/audit_cifar100_full_cells.csv)", *shown],
            ["seeds", *cells["n"]],
        ],
    )
