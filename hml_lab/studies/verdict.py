"""The paragraphs and tables of docs/verdict.md, made of the stored records whatever seeds they hold.

:mod:`hml_lab.studies.quoted` writes them into the page. A sentence that depends on what was measured says
what these records say: nothing here is typed off a table.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import yaml

from hml_core import runs as records
from hml_core.config import RunConfig, grids
from hml_core.runs import Run
from hml_lab import published, stats, tables
from hml_lab.places import checkout
from hml_lab.studies import audit
from hml_lab.tables.cells import each_difference
from hml_lab.tables.contrasts import is_lost
from hml_lab.wording import number

FULL, AGAIN, SHORT = "cifar100_lt_full", "cifar100_lt_full_cpu", "cifar10_lt_short"
BASE = {"dataset": "imagefolder", "imbalance_ratio": 100.0, "protocol": "controlled"}
SETTINGS = {
    FULL: BASE | {"epochs": 200, "model": "resnet32", "evaluate_every": 5, "subset_seed": "seed"},
    SHORT: BASE | {"epochs": 12, "model": "resnet8", "evaluate_every": 4, "subset_seed": 0},
}
DELTAS = {FULL: (), SHORT: (1e2, 1e4, 1e6)}
RATES = {FULL: (0.3, 0.1), SHORT: ()}
HML, CONTROL = audit.PRIMARY
POWERED = 0.4  # points: the sd for which the page says what would have been found
YARDSTICKS = {  # cell → recipe
    "CE": "ce",
    "CE-DRW": "ce_drw",
    "LDAM-DRW": "ldam_drw",
    "Balanced softmax": "balanced_softmax",
}
BATCHES = {
    "part (a): CE, balanced softmax, HML1 and its controls": "cifar100_lt_full",
    "part (b): LDAM-DRW, CE-DRW, HML1 as in its authors' code": "cifar100_lt_full_b",
    "part (c): focal and L_f in the place of L_c, L_c over weights, the second stage's rate × 0.3 and "
    "0.1, balanced softmax × sinc(p)": "cifar100_lt_full_c",
    "part (d): HML2, IB, focal": "cifar100_lt_full_d",
}


# What the records hold ----------------------------------------------------------------------------


def _folder(name: str) -> Path:
    return checkout() / "results" / "records" / name


@functools.cache
def frame(name: str = FULL) -> pd.DataFrame:
    """The stored runs by cell of the audit, with the column ``cell``."""
    loaded = records.load(_folder(name))
    seeds = sorted(loaded["seed"].unique().tolist())
    cells = audit.cells(SETTINGS[name], seeds, DELTAS[name], RATES[name])
    found = []
    for cell, configs in cells.items():
        own = loaded[loaded["run_id"].isin([config.run_id for config in configs])]
        found.append(own.assign(cell=cell))
    return pd.concat(found, ignore_index=True).sort_values(["cell", "seed"], kind="stable")


@functools.cache
def _images() -> pd.DataFrame:
    """The audit's differences over seeds and test images, by (group, reference)."""
    own = frame()
    found = [Run(_folder(FULL) / run_id) for run_id in own["run_id"].unique()]
    return audit.over_images(own, found).set_index(["group", "reference"])


def scores(cell: str, name: str = FULL) -> pd.Series:
    """Balanced accuracy in percent by seed."""
    own = frame(name)
    return 100 * own[own["cell"] == cell].set_index("seed")["last_balanced_accuracy"].astype(float)


def _each(a: str, b: str, name: str = FULL) -> pd.Series:
    return scores(a, name).sub(scores(b, name)).dropna()


def _difference(a: str, b: str, name: str = FULL) -> stats.Difference:
    return audit.effect(frame(name), a, b)


def _is_stable(cell: str, name: str = FULL) -> bool:
    own = frame(name)
    own = own[own["cell"] == cell]
    return len(own) > 0 and not tables.collapsed(own).any()


# How it is written --------------------------------------------------------------------------------


def _n(value: float, form: str = ".2f") -> str:
    """With a minus sign, as the page has it."""
    return f"{value:{form}}".replace("-", "−")


def _interval(found, form: str = ".2f") -> str:
    return "–" if np.isnan(found.low) else f"[{_n(found.low, form)}, {_n(found.high, form)}]"


def _said(found, form: str = "+.2f") -> str:
    return f"{_n(found.difference, form)} {_interval(found, form.lstrip('+'))}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _drawn_p(value: float) -> str:
    """Of a distribution that is drawn: two digits after the point are known of it."""
    return "< 0.01" if value < 0.005 else f"= {value:.2f}"


def _seeds(seeds: Iterable[int]) -> str:
    """ "seeds 0 to 9", "seeds 0, 2"."""
    seeds = sorted({int(seed) for seed in seeds})
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _link(run_id: str, folder: str = FULL) -> str:
    metrics = Run(_folder(folder) / run_id).selection("last")
    target = f"../results/records/{folder}/{run_id}/metrics.json"
    return f"[{100 * metrics['balanced_accuracy']:.2f}]({target})"


# The paragraphs -----------------------------------------------------------------------------------


def lead() -> str:
    """The answer."""
    each = _each(*audit.PRIMARY)
    found, images = _difference(*audit.PRIMARY), _images().loc[audit.PRIMARY]
    same = stats.equivalence(each.to_numpy(), np.zeros(len(each)), audit.MARGIN)
    is_same = same.holds and images["equivalence_p"] < same.level
    verb = (
        "is equivalent within 1 point to"
        if is_same
        else "is not shown to be equivalent within 1 point to"
    )
    side = "below" if found.difference < 0 else "above"
    apart = found.p_value < 0.05 and images["p_value"] < 0.05
    where = (
        f"{abs(found.difference):.2f} points {side} it" if apart else "not distinguishable from it"
    )
    gain, control = _difference(HML, "CE"), _difference(CONTROL, "CE")
    than = "less" if gain.difference < control.difference else "more"
    free = frame()[frame()["cell"] == "HML1"]
    lost = int(tables.collapsed(free).sum())
    return (
        f"**With its own schedule, the hard-mining loss HML1 {verb} plain cross-entropy that gets the "
        f"same class weights from the same epoch on, and {where}**: {_n(found.difference)} points of "
        f"balanced accuracy {_interval(found)} over seeds, {_interval(images)} over seeds and "
        f"test images (CIFAR-100-LT, ratio 100, n = {found.n}). What it gains over "
        f"cross-entropy, {_said(gain)}, is {than} than what the same weights and schedule give "
        f"cross-entropy itself, {_said(control)}. Without the schedule that only it gets in its "
        f"authors' code, {lost} of {len(free)} runs collapsed to chance."
    )


def setting() -> str:
    """Which runs."""
    own = frame()
    devices = ", ".join(sorted(own["device"].unique()))
    return (
        "Data: CIFAR-100-LT, exponential, ratio 100, ResNet-32, 200 epochs, last epoch, controlled "
        f"protocol, {_seeds(own['seed'])} (cells of fewer say so) on {devices}, another training "
        "subset for each seed. **Lossless images, but not the official files**: official "
        "counts, other members. Everything below is made by "
        "[`07_audit`](../results/notebooks/07_audit_cifar100_full.ipynb) from the "
        f"[records](../results/records/README.md), {number(own['run_id'].nunique(), 'run')}:"
    )


def primary() -> str:
    """The contrast that was named in advance."""
    each = _each(*audit.PRIMARY)
    found, images = _difference(*audit.PRIMARY), _images().loc[audit.PRIMARY]
    same = stats.equivalence(each.to_numpy(), np.zeros(len(each)), audit.MARGIN)
    effects = audit.effects(frame()).set_index(["cell", "reference"])
    row = effects.loc[audit.PRIMARY]
    mean = _n(found.difference)
    within = f"[{_n(images['equivalence_low'])}, {_n(images['equivalence_high'])}]"
    return _table(
        ["", "difference", "interval", "test"],
        [
            ["each seed", ", ".join(_n(value) for value in each), "", ""],
            ["over seeds and training subsets", mean, f"95 %: {_interval(found)}",
             f"paired t, p {_p(found.p_value)}; after Holm over the {len(effects)} tests of the audit "
             f"p {_p(row['p_holm'])}"],
            ["over test images as well", mean, f"95 %: {_interval(images)}",
             f"Student's t convolved with the images' normal error, p {_p(images['p_value'])}"],
            ["equivalence within ±1", mean, f"90 %: {_interval(same)}; with images {within}",
             f"two one-sided tests, p {_p(same.p_value)}; with images p {_p(images['equivalence_p'])}"],
        ],
    )  # fmt: skip


def margin() -> str:
    """What other margins would say."""
    each = _each(*audit.PRIMARY)
    images = _images().loc[audit.PRIMARY]
    same = stats.equivalence(each.to_numpy(), np.zeros(len(each)), audit.MARGIN)
    ends = max(abs(same.low), abs(same.high))
    wide = max(abs(images["equivalence_low"]), abs(images["equivalence_high"]))
    return (
        "Any other margin can be read off the intervals: equivalence holds for every one above "
        f"{ends:.2f} points, above {wide:.2f} with the test images."
    )


def bears() -> str:
    """What so many seeds can bear, and what a pair is worth that is run again."""
    each = _each(*audit.PRIMARY)
    found, n = _difference(*audit.PRIMARY), len(each)
    low, high = stats.sd_interval(found.sd, n)
    t95, t90 = (scipy.stats.t.ppf(level, n - 1) / np.sqrt(n) for level in (0.975, 0.95))
    mean = found.difference

    def around(half: float) -> str:
        return f"[{_n(mean - half)}, {_n(mean + half)}]"

    stands = abs(mean) + t90 * high < audit.MARGIN
    apart = abs(mean) - t95 * high > 0
    if stands and apart:
        so = "Both the equivalence and the sign stand even then."
    elif stands:
        side = "below" if mean < 0 else "above"
        so = f"So **equivalence within 1 point stands even then; that HML1 is {side} needs a smaller sd**."
    else:
        so = "At that sd neither would be shown."
    text = (
        f"What {number(n, 'seed')} can bear: the sd of the {n} differences is {found.sd:.2f} "
        f"points, and {n} values say of the true one only that it lies between {low:.2f} and "
        f"{high:.2f} (95 %). At {high:.2f} the 95 % interval would be {around(t95 * high)} and "
        f"the 90 % interval of the equivalence {around(t90 * high)}. {so} It is small because "
        "the pairs share their first 100 epochs and go on at a hundredth of the rate."
    )
    pair = [_run_id(cell, 0) for cell in audit.PRIMARY]
    if not all((_folder(AGAIN) / run_id).is_dir() for run_id in pair):
        return text
    values = [
        Run(_folder(AGAIN) / run_id).selection("last")["balanced_accuracy"] for run_id in pair
    ]
    again = 100 * (values[0] - values[1])
    moved = abs(again - each[0])
    sd = moved / np.sqrt(2)
    same_sign = int((np.sign([*each, again]) == np.sign(mean)).sum())
    return (
        f"{text} One pair was trained again, on a CPU: {_link(pair[0], AGAIN)} − "
        f"{_link(pair[1], AGAIN)} = {_n(again)}, {moved:.2f} from its twin: rounding alone moves "
        f"a pair by an sd of about {sd:.2f}. With that alone the intervals would be "
        f"{around(t95 * sd)} and {around(t90 * sd)}; {same_sign} of all {n + 1} pairs have the "
        "sign of the mean."
    )


def _run_id(cell: str, seed: int) -> str:
    own = frame()
    return own.loc[(own["cell"] == cell) & (own["seed"] == seed), "run_id"].item()


def way() -> str:
    """The steps from CE to HML1."""
    steps = audit.way(frame()).iloc[1:]
    labels = [" ".join(label.split()) for label in steps["label"]]
    rows = [
        [label, _said(row), f"[{_n(row.low_simultaneous)}, {_n(row.high_simultaneous)}]"]
        for label, row in zip(labels, steps.itertuples(), strict=True)
    ]
    n = len(steps["values"].iloc[0])
    return _table(
        [f"step (n = {n})", "points [95 %, this step alone]", "[95 %, all five at once]"], rows
    )


def order() -> str:
    """What divisor, weights and drop do in another order."""
    with_drop = "CE re-weighted like HML1, over images + early drop"
    divisor = (with_drop, "CE re-weighted like HML1 + early drop")
    each = _each(*divisor)
    same = stats.equivalence(each.to_numpy(), np.zeros(len(each)), audit.MARGIN)
    weights, drop = _difference(with_drop, "CE + early drop"), _difference("CE + early drop", "CE")
    is_same = "are equivalent" if same.holds else "are not shown to be equivalent"
    return (
        "The order matters to the shares of divisor and drop: with the drop, the divisor changes "
        f"{_said(_difference(*divisor))}, and there over images and over weights {is_same} "
        f"within 1 point ({_interval(same)}, p {_p(same.p_value)}; not named in advance). "
        f"Weights from epoch 101 on, with the drop, gain {_said(weights)} over CE with the drop; "
        f"the drop alone gives plain CE {_said(drop)}."
    )


def cube() -> str:
    """Loss × divisor × drop."""
    found = audit.cube(frame())
    lacking = sum(cell not in {*frame()["cell"]} for cell in audit.CUBE.values())
    rows = []
    for row, text in zip(
        found.itertuples(), audit.cube_in_words(found)["difference [95 %]"], strict=True
    ):
        rows.append([row.change, row.setting, text.replace("-", "−"), str(row.n)])
    made = _table(["change", "with", "points [95 %, alone], or each seed", "n"], rows)
    if lacking:
        made += (
            f"\n\nOf the eight cells {lacking} have no stored run yet ({_listed(_absent_cells())}), "
            "so that rows with them have a dash."
        )
    return made


def _absent_cells() -> list[str]:
    return [f"*{cell}*" for cell in audit.CUBE.values() if cell not in {*frame()["cell"]}]


def cells() -> str:
    """Every cell with its runs."""
    own = frame()
    rows, seen = [], set()
    for cell in dict.fromkeys([*audit.FACTORIAL, *audit.SWITCHES, *own["cell"]]):
        runs = own[own["cell"] == cell]
        ids = tuple(runs["run_id"])
        if not ids or ids in seen:
            continue
        seen.add(ids)
        values = 100 * runs["last_balanced_accuracy"].to_numpy(dtype=float)
        groups = [f"{100 * runs[f'last_{name}'].mean():.1f}" for name in ("many", "medium", "few")]
        middle = f"{values.mean():.2f}"
        middle += f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        if tables.collapsed(runs).any():
            middle, groups = f"median {np.median(values):.2f}", ["–"] * 3
        linked = " ".join(_link(run_id) for run_id in ids)
        rows.append([cell, str(len(values)), middle, *groups, linked])
    return _table(["cell", "n", "mean ± sd", "many", "medium", "few", "each seed, in order"], rows)


def collapse() -> str:
    """What happened to HML1 without the drop."""
    own = scores("HML1").sort_index()
    lost = int(is_lost(own / 100, 100).sum())
    if not lost:
        return f"No run of *HML1* without the drop collapsed ({len(own)} runs)."
    values = ", ".join(f"{value:.1f}" for value in own)
    return (
        f"*HML1* without the drop (δ = 1e4) has no mean: {lost} of its {len(own)} runs collapsed; they "
        f"ended at {values} %. Where all probabilities of the true class are far below 1/δ, the "
        "outlier cut leaves neither a loss nor a gradient."
    )


def second_stage() -> str:
    """What of the second stage decides: the loss in the place of L_c, and its rate."""
    control = "CE re-weighted like HML1, over images"
    pairs = [
        ("CS-focal instead of cross-entropy", "CE, then CS-focal", control),
        ("L_f (δ = ∞) instead of cross-entropy", "HML1, δ = ∞ (L_f)", control),
        ("L_c instead of cross-entropy", "HML1", control),
    ]
    for rate in RATES[FULL]:
        rated = [audit.rate_cell(cell, rate) for cell in ("HML1", control)]
        pairs.append((f"L_c instead of cross-entropy, the second stage's rate × {rate:g}", *rated))
        pairs.append(
            (f"CE re-weighted over images: rate × {rate:g} instead of 1", rated[1], control)
        )
    pairs.append(("balanced softmax × sinc(p) instead of balanced softmax", "Balanced softmax × sinc(p)",
                  "Balanced softmax"))  # fmt: skip
    there = {*frame()["cell"]}
    rows, lacking = [], []
    for label, a, b in pairs:
        if not {a, b} <= there or not len(each := _each(a, b)):
            lacking.append(label)
            continue
        if not (_is_stable(a) and _is_stable(b)):
            told = each_difference(each.to_numpy()).replace("-", "−")
            rows.append([label, f"{told} (a run collapsed)", "–", str(len(each))])
            continue
        same = stats.equivalence(each.to_numpy(), np.zeros(len(each)), audit.MARGIN)
        within = "–" if np.isnan(same.p_value) else f"{_interval(same)}, p {_p(same.p_value)}"
        rows.append([label, _said(_difference(a, b)), within, str(len(each))])
    header = ["", "points [95 %, alone]", "within ±1: 90 % interval, two one-sided tests", "n"]
    made = _table(header, rows) if rows else ""
    if lacking:
        made += f"\n\nNot stored yet, and therefore open: {'; '.join(lacking)}."
    return made.strip()


def holm() -> str:
    """What stands after Holm's correction over the audit."""
    effects = audit.effects(frame())
    sure = effects[effects["p_holm"] < 0.05]
    if sure.empty:
        told = "none is significant"
    elif len(sure) == 1 and (sure["cell"].iloc[0], sure["reference"].iloc[0]) == audit.PRIMARY:
        told = "only the primary contrast is significant"
    else:
        named = [
            f"{row.cell} − {row.reference} {_n(row.difference, '+.2f')} "
            f"[{_n(row.low_simultaneous)}, {_n(row.high_simultaneous)}]"
            for row in sure.itertuples()
        ]
        told = f"significant are (with simultaneous intervals): {'; '.join(named)}"
    n = int(effects.set_index(["cell", "reference"]).loc[audit.PRIMARY, "n"])
    measured = stats.minimum_detectable(POWERED, n)
    ends = [stats.minimum_detectable(sd, n) for sd in stats.sd_interval(POWERED, n)]
    known = effects[(effects["collapsed"] == 0) & effects["correlation"].notna()]["correlation"]
    gain = effects.set_index(["cell", "reference"]).loc[(HML, "CE")]
    return (
        f"*Holm over the {len(effects)} questions of the audit*, each by the scatter of its own pairs "
        f"([table](../results/tables/audit_cifar100_full_effects.csv)): {told}. HML1's gain over "
        f"CE has p {_p(gain['p_holm'])} there. A difference of two methods with an sd of "
        f"{POWERED:g} over {n} seeds would have been found, uncorrected, with 80 % power from {measured:.1f} "
        f"points on; over the interval of that sd, from {ends[0]:.1f} to {ends[1]:.1f}. The "
        f"correlation of the two runs of a pair over seeds is {known.min():.2f} to "
        f"{known.max():.2f} in the lines without a collapse (column `correlation`): pairing is "
        "measured, not assumed."
    )


def all_pairs() -> str:
    """What stands if every pair is looked at."""
    pairs = tables.all_pairs(frame(), by="cell")
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
        interval = f"{_n(sign * row.difference, '+.2f')} [{_n(ends[0])}, {_n(ends[1])}]"
        return f"{interval}, p {_drawn_p(row.p_max_t)}"

    told = [f"{a} {pair(a, HML)}" for a in ("Balanced softmax", "LDAM-DRW") if a in cells_there]
    left = [*pairs.attrs["left_out"], *pairs.attrs["few_seeds"]]
    out = f" (left out, collapsed or of fewer seeds: {', '.join(left)})" if left else ""
    gained = f"{len(above)} cells are established above CE"
    gained += f", all but {_listed(others)}" if others else ", which are all others"
    hml = f"HML1 with the drop {pair(HML, 'CE')}; " if HML in cells_there else ""
    return (
        f"*All {len(pairs)} pairs of {len(cells_there)} cells*{out}, by the largest t with "
        f"{number(int(pairs['n'].iloc[0]), 'seed')} as blocks "
        f"([table](../results/tables/audit_cifar100_full_all_pairs.csv)): {gained} ({hml}CE "
        f"re-weighted over images with the drop {pair(CONTROL, 'CE')}). Above HML1 with the "
        f"drop: {'; '.join(told)}. {len(sure)} of the pairs differ in all. Not distinguishable "
        "is not the same."
    )


def machines() -> str:
    """How far a run lies from its twin on another machine."""
    again = records.load(_folder(AGAIN)).set_index("run_id")["last_balanced_accuracy"]
    here = frame().drop_duplicates("run_id").set_index("run_id")["last_balanced_accuracy"]
    apart = 100 * (again - here).dropna().to_numpy(dtype=float)
    stable = [cell for cell in frame()["cell"].unique() if _is_stable(cell)]
    widest = max(float(np.ptp(scores(cell))) for cell in stable)
    return (
        f"**Two machines.** {len(apart)} runs of seed 0 were trained again on a CPU. One run "
        f"lies up to {np.abs(apart).max():.2f} points from its twin, with an sd of "
        f"{np.sqrt((apart**2).mean() / 2):.2f} points for one run: rounding alone is another "
        "run. Intervals over seeds contain that; a comparison of one run here with one run "
        f"there does not. Seeds of one cell differ by up to {widest:.1f} points, subsets included."
    )


def yardsticks() -> str:
    """Beside what was published."""
    again = records.load(_folder(AGAIN)).set_index("run_id")["last_balanced_accuracy"]
    rows = []
    for title, recipe in YARDSTICKS.items():
        own, there = scores(title), published.every(recipe, "cifar100", "exp", 100.0)
        seed0 = f"{own[0]:.1f}"
        if (run_id := _run_id(title, 0)) in again:
            seed0 += f" ({100 * again[run_id]:.1f})"
        span = f"{there.min():.1f} to {there.max():.1f} ({there.index.nunique()})"
        rows.append([title, f"{own.mean():.1f} (n = {len(own)})", seed0, span])
    header = ["", "all seeds, a subset each", "seed 0 (on a CPU)"]
    return _table([*header, "published (sources, of which some quote each other)"], rows)


def softmax() -> str:
    """Why balanced softmax lies where it does."""
    own, plain = scores("Balanced softmax"), scores("CE")
    known = published.with_ce("balanced_softmax", "cifar100", "exp", 100.0).dropna()
    there = known["mean_percent"]
    gains = [f"{gain:.1f}" for gain in there - known["ce_percent"]]
    theirs = [f"{value:.1f}" for value in known["ce_percent"]]
    gain = _difference("Balanced softmax", "CE")
    below = there.min() - own.mean()
    lies = f"{below:.1f} points below the lowest" if below > 0 else "not below the lowest"
    common = sorted({*own.index} & {*plain.index})
    r = np.corrcoef(own[common], plain[common])[0, 1]
    rows = frame()
    peeked = 100 * (
        rows.loc[rows["cell"] == "Balanced softmax", "best_test_balanced_accuracy"]
        .astype(float)
        .mean()
    )
    return (
        f"**Balanced softmax is {lies} published value.** Its mean is over {len(own)} subsets, "
        f"of which some are harder: over seeds it reaches {own.min():.1f} to {own.max():.1f}, CE "
        f"{plain.min():.1f} to {plain.max():.1f}, with a correlation of {r:.2f}. The published "
        f"subset is one, and drawn with seed 0; with seed 0 ours has {own[0]:.1f}. Against the "
        f"cross-entropy beside it, it gains {_said(gain, '.1f')} here ({own[0] - plain[0]:.1f} "
        f"with seed 0), {_listed(gains)} in the sources, whose cross-entropies have "
        f"{_listed(theirs)}. What the best test epoch adds here is {peeked - own.mean():.1f}. "
        "That other images have other hard draws is likely, and not measured: it takes the "
        "official files."
    )


def deferred() -> str:
    """Deferred weights in the literature."""
    table = published.table("cifar_lt")
    theirs = table[
        table["method"].str.startswith("DRW: CE->CS_CE")
        & (table["dataset"] == "cifar100")
        & (table["imbalance_type"] == "exp")
        & (table["imbalance_ratio"] == 100)
    ]["mean_percent"].item()
    over = scores("CE re-weighted like HML1").mean()
    drop = scores("CE re-weighted like HML1 + early drop").mean()
    return (
        "Zhang et al. also ran deferred CS weights (printed as CE→CS_CE; from which epoch on is not on "
        f"file): {theirs:.1f}; ours from epoch 101 on, over weights: {over:.1f}, with the drop "
        f"{drop:.1f}."
    )


def authors() -> str:
    """CHML2 in the authors' own runs."""
    found = audit.author_contrasts()
    rows = [
        [
            row.label.split(" − ")[1].strip("()"),
            _said(row),
            f"[{_n(row.low_simultaneous)}, {_n(row.high_simultaneous)}]",
            "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.4f}",
        ]
        for row in found.itertuples()
    ]
    head = [
        "CHML2 with CS weights minus",
        "points [95 %, alone]",
        "[95 %, all three at once]",
        "p (Holm)",
    ]
    n = len(published.author_runs())
    used = int(found["n"].iloc[0] + (found["n"].iloc[1:] - found["n"].iloc[0] / 2).sum())
    return (
        f"{used} of their {n} published test results, Welch's test, ten runs of each side:\n\n"
        + _table(head, rows)
    )


def short() -> str:
    """What the shortened runs say, worded by what was measured."""
    own = frame(SHORT)
    effects = audit.effects(own).set_index(["cell", "reference"])
    n = int(effects["n"].max())

    def row(a: str, b: str) -> pd.Series:
        return effects.loc[(a, b)]

    drops = [row(f"{cell} + early drop", cell) for cell in ("CE", "CE-DRW", "HML1")]
    told = [
        f"{cell} {_n(d['difference'], '+.1f')}"
        for cell, d in zip(("CE", "CE-DRW", "HML1"), drops, strict=True)
    ]
    ps = [_p(d["p_holm"]) for d in drops]
    like = _difference("CE re-weighted like HML1 + early drop", "CE re-weighted like HML1", SHORT)
    inner, tenfold = (
        row("HML1, inner", "HML1"),
        row("HML1, inner, ×10 + early drop", "HML1 + early drop"),
    )
    code = "HML1 as in the authors' code (official, inner, ×10)"
    full = audit.effects(frame()).set_index(["cell", "reference"]).loc[(code, HML)]
    smallest = scores("HML1, δ = 1e+02", SHORT)
    swept = pd.DataFrame(
        {d: scores(d, SHORT) for d in ("HML1", "HML1, δ = 1e+06", "HML1, δ = ∞ (L_f)")}
    )
    apart = float((swept.max(axis=1) - swept.min(axis=1)).max())
    hml2 = ", ".join(f"{value:.1f}" for value in scores("HML2", SHORT).sort_index())
    drop, weighted = (
        _difference("CE + early drop", "CE"),
        _difference(CONTROL, "CE re-weighted like HML1, over images"),
    )
    lines = [
        f"The early drop changes {_listed(told)} points there (p {_listed(ps)} after Holm), long "
        f"before a 12-epoch run has converged; CE re-weighted like HML1 {_said(like, '+.1f')}, "
        f"not among the {len(effects)}. In 200 epochs: CE {_said(drop)}, re-weighted CE over "
        f"images {_said(weighted)}.",
        f"Inner instead of outer weighting: {_said(inner, '+.1f')} alone, p "
        f"{_p(inner['p_holm'])} after Holm; with the factor 10 and the drop "
        f"{_said(tenfold, '+.1f')}, p {_p(tenfold['p_holm'])}. In 200 epochs, the authors' code "
        f"(inner, ×10) minus outer weights, both with the drop: {_said(full)}, p "
        f"{_p(full['p_holm'])} after Holm.",
        f"δ: 1e2 ended at {', '.join(f'{value:.1f}' for value in smallest.sort_index())} % "
        f"(chance: 10); 1e4, 1e6 and ∞ lie within {apart:.1f} points of each other in every seed.",
        f"HML2 was run for 12 epochs without warm-up ({hml2} %); nothing is claimed of it.",
    ]
    return (
        "On a SHORTENED protocol (CIFAR-10-LT from RECOMPRESSED images, 12 epochs of ResNet-8, "
        f"n = {n}; Holm over the {len(effects)} questions of this "
        "[audit](../results/notebooks/07_audit_short.ipynb); intervals of each difference alone):\n\n"
        + "\n".join(f"- {line}" for line in lines)
    )


def missing() -> str:
    """Which runs of the planned table are not stored."""
    stored = {*frame()["run_id"], *records.load(_folder(FULL))["run_id"]}
    rows = []
    for what, name in BATCHES.items():
        path = checkout() / "notebooks" / "batches" / f"{name}.yaml"
        planned = grids(yaml.safe_load(path.read_text(encoding="utf-8")))
        lacking: list[RunConfig] = [config for config in planned if config.run_id not in stored]
        if lacking:
            seeds = _seeds({config.seed for config in lacking})
            rows.append(
                [
                    what,
                    f"{len(lacking)} of {len(planned)} runs, {seeds}",
                    f"`hml sweep notebooks/batches/{name}.yaml`",
                ]
            )
    return (
        _table(["what", "not there", "command"], rows) if rows else "Every planned run is stored."
    )


PARAGRAPHS = {
    made.__name__: made
    for made in (
        lead, setting, primary, margin, bears, way, order, cube, cells, collapse, second_stage, holm,
        all_pairs, machines, yardsticks, softmax, deferred, authors, short, missing,
    )
}  # fmt: skip
NUMBER = re.compile(r"(?<![\w.])[−+-]?\d+\.\d+|p [=<] |± \d|\bn = \d")


def typed_numbers(page: str) -> list[str]:
    """Lines of a page that hold results outside of its made paragraphs and commands: decimals, p, ±, n."""
    made = r"<!-- (\w+):[^>]*-->.*?<!-- end of \1 -->"
    outside = re.sub(rf"{made}|```.*?```|`[^`]*`", "", page, flags=re.DOTALL)
    return [line for line in outside.splitlines() if NUMBER.search(line)]
