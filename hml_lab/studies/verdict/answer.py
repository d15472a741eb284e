"""The answer: the primary contrast, what later seeds say by themselves, and what so many can bear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from hml_core.runs import Run
from hml_core.runs.record import environment_of
from hml_lab import stats, tables
from hml_lab.studies import audit
from hml_lab.studies.verdict import stored, words
from hml_lab.wording import number


@dataclass(frozen=True)
class Facts:
    """What the answer says, however it is worded: here and in README."""

    primary: stats.Difference
    images: pd.Series  # the same over seeds and test images
    is_same: bool  # equivalent over seeds, and over both
    is_apart: bool  # over seeds, and over both
    gain: stats.Difference  # of HML1 over CE, and of the control: the seeds that all three have
    control: stats.Difference
    lost: int  # collapsed runs of HML1 without the drop, and all of them
    without_drop: int

    @property
    def side(self) -> str:
        """On which side of the control HML1 lies."""
        return "below" if self.primary.difference < 0 else "above"

    @property
    def than(self) -> str:
        """Whether HML1's gain is "less" or "more" than the control's."""
        return "less" if self.gain.difference < self.control.difference else "more"


def facts() -> Facts:
    """From the stored records."""
    found, images = stored.difference(*audit.PRIMARY), stored.images().loc[audit.PRIMARY]
    same = stored.within(stored.pairs_of(*audit.PRIMARY))
    free = stored.frame()[stored.frame()["cell"] == "HML1"]
    return Facts(
        found,
        images,
        same.holds and images["equivalence_p"] < same.level,
        found.p_value < 0.05 and images["p_value"] < 0.05,
        *stored.differences_over_common([stored.HML, stored.CONTROL], "CE"),
        int(tables.collapsed(free).sum()),
        len(free),
    )


def lead() -> str:
    """The answer."""
    known = facts()
    found, gain, control = known.primary, known.gain, known.control
    verb = (
        "is equivalent within 1 point to"
        if known.is_same
        else "is not shown to be equivalent within 1 point to"
    )
    where = (
        f"{abs(found.difference):.2f} points {known.side} it"
        if known.is_apart
        else "not distinguishable from it"
    )
    return (
        f"**With its own schedule, the hard-mining loss HML1 (outer weights) {verb} plain "
        "cross-entropy that gets the same class weights from the same epoch on and divides by the number "
        f"of images as HML does, and {where}**: "
        f"{words.signed(found.difference)} points of balanced accuracy {words.interval(found)} "
        f"over seeds, {words.interval(known.images)} over seeds and test images (CIFAR-100-LT, ratio "
        f"100, n = {found.n}; δ = 1e4, not tuned). As in its authors' code (inner weights, ×10) "
        f"HML1 minus that control is {authors_form()}; minus the same cross-entropy at ten times the "
        f"rate, which makes up for the ×10, {same_rate()}. (Neither is a question of the audit.) "
        "What HML1 with outer weights gains over cross-entropy, "
        f"{words.said(gain)}, is {known.than} "
        "than what the same weights and schedule give cross-entropy itself, "
        f"{words.said(control)} (n = {gain.n}, the seeds that all three have); as in its authors' code it "
        f"gains {words.said(stored.difference(stored.AUTHORS, 'CE'))}. HML1 with outer weights collapsed "
        f"to chance in {known.lost} of {known.without_drop} runs without the schedule that only HML gets "
        "in its authors' code (whose form was not run without it)."
    )


def authors_form() -> str:
    """HML1 as in its authors' code minus the control: over seeds, with the images, among all pairs."""
    code = stored.difference(stored.AUTHORS, stored.CONTROL)
    images = stored.over_images(stored.AUTHORS, stored.CONTROL)
    told = (
        f"{words.said(code)} over seeds (n = {code.n}), {words.interval(images)} with the test "
        "images"
    )
    pair = (stored.AUTHORS, stored.CONTROL)
    families = [
        stored.all_pairs(),
        stored.all_pairs(stored.most_seeds()),
        stored.all_pairs(stored.with_first()),
    ]
    found = [stored.corrected(family, *pair) for family in families]
    if any(one is None for one in found):
        return f"{told}, uncorrected"
    seeds = [int(family["n"].iloc[0]) for family in families[:2]]
    p = words.drawn_ps(one.p for one in found)
    sure = [one.p < 0.05 for one in found]
    so = "apart" if all(sure) else "not settled" if any(sure) else "not established"
    return (
        f"{told}; corrected over all pairs p {p[0]} ({seeds[0]} seeds in common), {p[1]} over the cells "
        f"with {seeds[1]} alone, {p[2]} with the first trainings of seeds 0 to 2: {so}"
    )


def same_rate() -> str:
    """The same minus the control at the same rate times factor, beside the control in the same seeds."""
    fast = stored.pairs_of(stored.AUTHORS, stored.SAME_RATE)
    slow = stored.pairs_of(stored.AUTHORS, stored.CONTROL).reindex(fast.index).dropna()
    return (
        f"{words.said(stored.paired(fast))}, where minus the control itself it is "
        f"{words.said(stored.paired(slow))} ({words.seeds_text(fast.index)}; looked at afterwards)"
    )


def setting() -> str:
    """Which runs."""
    own = stored.frame()
    devices = ", ".join(sorted(own["device"].unique()))
    precisions = {
        environment_of(stored.folder(stored.FULL) / run_id)["precision"]
        for run_id in own["run_id"].unique()
    }
    return (
        "Data: CIFAR-100-LT, exponential, ratio 100, ResNet-32, 200 epochs, last epoch, controlled "
        f"protocol (*as in the authors' code*: official), {words.seeds_text(own['seed'])} (cells "
        f"of fewer say so), {' or '.join(sorted(precisions))} on {devices}, "
        "another training subset for each seed. **CIFAR-100's images, lossless, but not its files**: the "
        "test images are all of the official ones, the training subsets have the official counts and "
        "other members. Most of what is below is made by "
        "[`07_audit`](../results/notebooks/07_audit_cifar100_full.ipynb) from the "
        f"[records](../results/records/README.md), {number(own['run_id'].nunique(), 'run')}:"
    )


def primary() -> str:
    """The primary contrast."""
    each = stored.pairs_of(*audit.PRIMARY)
    found, images = stored.difference(*audit.PRIMARY), stored.images().loc[audit.PRIMARY]
    same = stored.within(each)
    effects = audit.effects(stored.frame()).set_index(["cell", "reference"])
    row = effects.loc[audit.PRIMARY]
    mean = words.signed(found.difference)
    within = (
        f"[{words.signed(images['equivalence_low'])}, {words.signed(images['equivalence_high'])}]"
    )
    return words.table(
        ["", "difference", "interval", "test"],
        [
            ["each seed", ", ".join(words.signed(value) for value in each), "", ""],
            ["over seeds and training subsets", mean, f"95 %: {words.interval(found)}",
             f"paired t, p {words.p_text(found.p_value)}; after Holm over the {len(effects)} "
             f"tests of the audit p {words.p_text(row['p_holm'])}"],
            ["over test images as well", mean, f"95 %: {words.interval(images)}",
             "Student's t convolved with the images' normal error, p "
             f"{words.p_text(images['p_value'])}"],
            ["equivalence within ±1", mean, f"90 %: {words.interval(same)}; with images {within}",
             f"two one-sided tests, p {words.p_text(same.p_value)}; with images p "
             f"{words.p_text(images['equivalence_p'])}"],
        ],
    )  # fmt: skip


def later_alone() -> stats.Difference:
    """The primary contrast of the seeds that were trained after the first had been looked at."""
    each = stored.pairs_of(*audit.PRIMARY)
    return stored.paired(each[each.index >= stored.FIRST_SEEDS])


def later() -> str:
    """What was known when, by itself."""
    each = stored.pairs_of(*audit.PRIMARY)
    first, seen = stored.FIRST_SEEDS, stored.SEEN_SEEDS
    parts = {
        words.seeds_text(range(first)): each[each.index < first],
        "later seeds": each[each.index >= first],
        f"of these, from seed {seen} on": each[each.index >= seen],
    }
    told = "; ".join(f"{which}: {_alone(own)}" for which, own in parts.items())
    return f"{told[0].upper()}{told[1:]}."


def _alone(each: pd.Series) -> str:
    if len(each) < 2:
        return "too few to be tested"
    found, same = stored.paired(each), stored.within(each)
    return (
        f"{words.said(found, '.2f')}, 90 % {words.interval(same)}, two one-sided tests p "
        f"{words.p_text(same.p_value)}, n = {found.n}"
    )


def _apart(each: pd.Series) -> list[int]:
    """The seeds whose two runs were not trained as one before the switch."""
    return sorted({*each.index} - {*stored.shared_beginnings(*audit.PRIMARY)})


def _unshared(each: pd.Series, apart: list[int]) -> str:
    """What the pairs without a common beginning had, and the others without them."""
    if not apart:
        return ""
    others = stored.paired(each.drop(apart))
    values = words.listed([words.signed(value, "+.2f") for value in each[apart]])
    return (
        f"; without {words.seeds_text(apart)}, which has {values} and no common beginning, it is "
        f"{words.said(others, '.2f')} (sd {others.sd:.2f})"
    )


def _by_beginning() -> str:
    """The authors' form minus the control, of pairs with a common beginning and of the others."""
    each = stored.pairs_of(stored.AUTHORS, stored.CONTROL)
    shared = stored.shared_beginnings(stored.AUTHORS, stored.CONTROL)
    parts = each[shared], each.drop(shared)
    if min(map(len, parts)) < 2:
        return ""
    one, other = map(stored.paired, parts)
    return (
        f" (pairs with a common beginning {words.said(one)}, n = {one.n}; without {words.said(other)}, "
        f"n = {other.n})"
    )


def variants() -> str:
    """The other forms of HML1 and of its control."""
    over_weights = "CE re-weighted like HML1 + early drop"
    level = stored.difference(stored.AUTHORS, over_weights)
    own = stored.difference(stored.HML, over_weights)
    wide = stored.over_images(stored.HML, over_weights)
    pairs = stored.pairs_of(stored.HML, over_weights)
    same = stored.within(pairs)
    pairs_fast = stored.pairs_of(stored.AUTHORS, stored.SAME_RATE)
    fast = stored.within(pairs_fast)
    stands = same.holds and wide.equivalence_p < same.level
    return (
        "This is HML1 with the weights outside of the loss. **As in its authors' code** (inner "
        f"weights, ×10), HML1 differs from the same control by {authors_form()}{_by_beginning()}; "
        f"from the cross-entropy whose mean is over the weights by {words.said(level)} (n = {level.n}). "
        "That is not the loss alone: it has a factor of ten. Cross-entropy over images whose rate from "
        "the switch on is × 0.1, not × 0.01, has the same rate times factor (but for the weight decay and "
        "the momentum from before the switch, which follow the rate alone): HML1 as in its authors' code "
        f"minus that is {same_rate()}. So few seeds do not show which is better, and by the margin "
        f"{'they are equivalent' if fast.holds else 'their equivalence is open'} (90 % "
        f"{words.interval(fast)}, p {words.p_text(fast.p_value)}, n = {len(pairs_fast)}); its "
        "inner weights are no cross-entropy's here. HML1 with outer weights differs from the "
        "control over weights by "
        f"{words.said(own)}, 90 % {words.interval(same)}, p of the two "
        f"one-sided tests {words.p_text(same.p_value)} (n = {own.n}); with the test images 90 % "
        f"{words.bracket(wide.equivalence_low, wide.equivalence_high)}, p "
        f"{words.p_text(wide.equivalence_p)}: equivalence with the control over weights "
        f"{'stands' if stands else 'does not stand'}. None of these is a question of the "
        "audit."
    )


def margin() -> str:
    """What other margins would say."""
    each = stored.pairs_of(*audit.PRIMARY)
    images = stored.images().loc[audit.PRIMARY]
    same = stored.within(each)
    ends = max(abs(same.low), abs(same.high))
    wide = max(abs(images["equivalence_low"]), abs(images["equivalence_high"]))
    return (
        "Any other margin can be read off the intervals: equivalence holds for every one above "
        f"{ends:.2f} points, above {wide:.2f} with the test images."
    )


def _down(bound: float) -> str:
    """Of what holds up to a bound: never above it."""
    return f"{np.floor(100 * bound) / 100:.2f}"


def bears() -> str:
    """What so many seeds can bear, and what a pair is worth that is run again."""
    each = stored.pairs_of(*audit.PRIMARY)
    found, n = stored.difference(*audit.PRIMARY), len(each)
    low, high = stats.sd_interval(found.sd, n)
    t95, t90 = (scipy.stats.t.ppf(level, n - 1) / np.sqrt(n) for level in (0.975, 0.95))
    mean = found.difference

    def around(half: float) -> str:
        return f"[{words.signed(mean - half)}, {words.signed(mean + half)}]"

    stands = abs(mean) + t90 * high < audit.MARGIN
    apart = abs(mean) - t95 * high > 0
    if stands and apart:
        so = "Both the equivalence and the sign stand even then."
    elif stands:
        side = "below" if mean < 0 else "above"
        so = f"So **equivalence within 1 point stands even then; that HML1 is {side} needs a smaller sd**."
    else:
        so = "At that sd neither would be shown."
    apart_before = _apart(each)
    whose = (
        f"But for {words.seeds_text(apart_before)}, the two runs"
        if apart_before
        else "The two runs"
    )
    divisor = (stored.CONTROL, "CE re-weighted like HML1 + early drop")
    beside = stored.difference(*divisor).sd
    text = (
        f"What {number(n, 'seed')} can bear: the sd of the {n} differences is {found.sd:.2f} "
        f"points, and {n} values say of the true one only that it lies between {low:.2f} and "
        f"{high:.2f} (95 %). At {high:.2f} the 95 % interval would be {around(t95 * high)} and "
        f"the 90 % interval of the equivalence {around(t90 * high)}. {so} {whose} of a "
        f"pair share their first {stored.switch_epoch()} epochs, to the bit, and go on at a hundredth of "
        "the rate; that alone does not make the sd so small: the same control over images minus over "
        f"weights, of which that holds as well, has one of {beside:.2f} points."
    )
    pair = [stored.run_id_of(cell, 0) for cell in audit.PRIMARY]
    if not all((stored.folder(stored.AGAIN) / run_id).is_dir() for run_id in pair):
        return text
    values = [
        Run(stored.folder(stored.AGAIN) / run_id).selection("last")["balanced_accuracy"]
        for run_id in pair
    ]
    again = 100 * (values[0] - values[1])
    moved = abs(again - each[0])
    same_sign = int((np.sign(each) == np.sign(mean)).sum())
    return (
        f"{text} The equivalence would hold up to an sd of {_down((audit.MARGIN - abs(mean)) / t90)}, the "
        f"sign up to {_down(abs(mean) / t95)}. {same_sign} of the {n} pairs have the sign of the "
        f"mean{_unshared(each, apart_before)}. One was trained again, on a CPU: "
        f"{words.link(pair[0], stored.AGAIN)} − "
        f"{words.link(pair[1], stored.AGAIN)} = {words.signed(again)}, {moved:.2f} from its twin."
    )
