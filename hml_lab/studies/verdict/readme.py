"""What README says of the verdict: its figure's words, the answer in a paragraph, and a small table."""

from __future__ import annotations

import numpy as np

from hml_lab import published, stats
from hml_lab.studies import audit
from hml_lab.studies.verdict import answer, stored, words
from hml_lab.tables.cells import BEST

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COLUMNS = {  # README's name → cell
    "CE": "CE",
    "deferred CS-CE over images + drop (control)": stored.CONTROL,
    "HML1 + drop": stored.HML,
    "HML1, no drop": "HML1",
    "HML1, authors' code": stored.AUTHORS,
    "CE-DRW": "CE-DRW",
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
    small = steps.iloc[2:4]
    unclear = bool(((small["low"] < 0) & (small["high"] > 0)).all())
    over_weights, seeds = "CE re-weighted like HML1", audit.seeds_of_the_way(stored.frame())
    rated = f"{over_weights} + early drop"
    rate = stats.mean_interval(stored.pairs_of(rated, over_weights)[seeds])
    divisor = stats.mean(stored.pairs_of(stored.CONTROL, rated)[seeds])
    return (
        "![Balanced accuracy on CIFAR-100-LT after each step from cross-entropy, "
        f"{ends[0]}, to HML1, {ends[1]}: weights from half of the run on {gains[0]}, mean over images "
        f"{gains[1]}, a lower rate {gains[2]}, the hard-mining loss itself {gains[3]} points]"
        "(results/figures/audit_cifar100_full_way.png)\n\n"
        "*From cross-entropy to HML1, one change at a time: CIFAR-100-LT, ratio 100, ResNet-32, 200 "
        f"epochs, the {n} seeds that every cell has (official class counts, other members). The last "
        "change is the loss. Shares of divisor and rate depend on the order (with the rate first "
        "it changes "
        f"{words.signed(rate.mean, '+.1f')} {words.interval(rate, '.1f')}, then the divisor "
        f"{words.signed(divisor, '+.1f')})"
        f"{f'; in the order drawn neither is apart from 0 over these {n} seeds' if unclear else ''}.*"
    )


def readme_answer() -> str:
    """The answer in a paragraph."""
    known = answer.facts()
    found, gain, control = known.primary, known.gain, known.control
    verb = "" if known.is_same else "not shown to be "
    apart = f", and slightly {known.side} it" if known.is_same and known.is_apart else ""
    both = stored.difference(stored.HML, "CE")  # as the audit has it: of the seeds that both have
    effects = audit.effects(stored.frame()).set_index(["cell", "reference"])
    p = effects.loc[(stored.HML, "CE"), "p_holm"]
    holm = "" if p < 0.05 else "not significant, "
    rivals = ("CE-DRW", "Balanced softmax", "LDAM-DRW")
    families = [stored.all_pairs(), stored.all_pairs(stored.with_first())]
    common = _counted(len(stored.common_seeds()))

    def apart_from(cell: str) -> str:
        found = [stored.difference(rival, cell) for rival in rivals]
        told = words.listed([words.said(one, "+.1f") for one in found])
        ps = []
        for family in families:
            pairs = [stored.corrected(family, rival, cell) for rival in rivals]
            known = [np.nan if one is None else one.p for one in pairs]
            ps.append(words.listed(words.drawn_ps(known)))
        return (
            f"{told} (n = {found[0].n}; corrected over all pairs p {ps[0]}, with the first trainings p "
            f"{ps[1]})"
        )

    isic = audit.author_contrasts().set_index("label").loc["CHML2, CS − (CE, CS)"]
    paper = published.every("ldam_drw", "cifar100", "exp", 100.0).filter(like="Cao2019").item()
    beyond = stats.mean(stored.scores("LDAM-DRW")) - paper
    pairs_there = f"{_counted(gain.n)} seeds; HML1's gain"
    if gain.n != both.n:
        shared, every = _counted(gain.n), _counted(both.n)
        pairs_there = f"the {shared} seeds that all three have; of all {every} pairs HML1's gain"
    return (
        "On CIFAR-100-LT (ratio 100, ResNet-32, 200 epochs, last epoch; a subset for each seed, not the "
        "official one):\n\n"
        "- **The loss.** HML1 (outer weights, δ = 1e4, not tuned), on its "
        f"authors' schedule, is **{verb}equivalent within one point to deferred weighted "
        "cross-entropy over images (same class weights from the same epoch on, mean over the "
        f"number of images as in HML){apart}**: {words.said(found, '.2f')} over "
        f"{_counted(found.n)} seeds (made the primary contrast, with its margin, when the first "
        f"three were known; the later ones alone: {words.said(answer.later_alone(), '.2f')}).\n\n"
        "- **Its authors' form.** As "
        "in its authors' code (inner weights, ×10) HML1 minus that control is "
        f"{answer.authors_form()}; minus the same cross-entropy at ten times the rate, which makes up "
        f"for the ×10, {answer.same_rate()}. Neither is a question of the audit.\n\n"
        f"- **What a table shows.** HML1 with outer weights gains {words.said(gain, '+.1f')} over "
        "plain cross-entropy, "
        f"{known.than} than the {words.said(control, '+.1f')} that deferred weights and schedule "
        f"give cross-entropy itself ({pairs_there} has {holm}p {words.p_text(p)} after Holm over "
        f"the audit's {len(effects)} questions); in its authors' form it gains "
        f"{words.said(stored.difference(stored.AUTHORS, 'CE'), '+.1f')}. Without the early "
        "drop of the learning rate that in its authors' code only HML gets, "
        f"{_counted(known.lost)} of {_counted(known.without_drop)} runs of HML1 with outer weights ended "
        "at chance (its authors' form was not run so).\n\n"
        "- **Other methods.** CE-DRW, Balanced Softmax and LDAM-DRW minus HML1 are "
        f"{apart_from(stored.HML)}; "
        "minus HML1 as in its authors' code "
        f"{apart_from(stored.AUTHORS)}; the correction has {common} common seeds.\n\n"
        "- **ISIC 2018.** The authors' "
        "runs support more than weights from the first epoch on (CHML2, their best "
        f"configuration by test score, minus their CE with CS weights: {words.said(isic)}, ten "
        "runs each), but hold no deferred weighted cross-entropy.\n\nBrackets are 95 % intervals "
        f"of each difference alone; this LDAM-DRW is {beyond:.1f} points above its own paper's; "
        "seeds 0 to 2 of all but it and Balanced Softmax were trained a second time, by other kernels, "
        "which the page sets beside the first; the "
        "correction over all pairs makes a false claim in 2 to 9 of 100 "
        "tables. [The whole argument, each number with its runs](docs/verdict.md)."
    )


def readme_table() -> str:
    """One small table; its last row is there where some of its cells have more seeds than others."""
    seeds = {cell: {*stored.scores(cell).index} for cell in COLUMNS.values()}
    common = sorted(set.intersection(*seeds.values()))
    cells = audit.scores_by_cell(stored.frame(), COLUMNS.values(), ["balanced_accuracy"])
    shown = [text.removesuffix(BEST) for text in cells["balanced_accuracy"]]
    rows = [
        ["[CIFAR-100-LT](results/tables/audit_cifar100_full_cells.csv)", *shown],
        ["seeds", *cells["n"]],
    ]
    if any(own != {*common} for own in seeds.values()):
        alike = [
            f"{stats.mean(stored.scores(cell)[common]):.1f}" if stored.is_stable(cell) else "–"
            for cell in seeds
        ]
        rows.append([f"mean of {words.seeds_text(common)}, which all have", *alike])
    return words.table(["balanced accuracy, %", *COLUMNS], rows)
