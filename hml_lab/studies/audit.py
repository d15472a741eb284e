"""The audit: what the authors' code does beside the loss, each as a switch with its measured effect.

A *cell* is a named setting that is trained with every seed; effects are differences of two cells,
paired by seed. Everything here works on the frame of a sweep with a column ``cell``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from hml_core import engines
from hml_core.config import RunConfig, expansion
from hml_core.runs import Run
from hml_lab import published, stats, tables
from hml_lab.tables.cells import each_difference, score
from hml_lab.wording import p_value

# cell → fields of its config, beside those that all cells share
FACTORIAL: dict[str, dict[str, Any]] = {
    "CE": {"recipe": "ce", "early_drop": False},
    "CE + early drop": {"recipe": "ce", "early_drop": True},
    "CE-DRW": {"recipe": "ce_drw", "early_drop": False},
    "CE-DRW + early drop": {"recipe": "ce_drw", "early_drop": True},
    "CE re-weighted like HML1": {"recipe": "ce_drw", "weighting": "CS", "early_drop": False},
    "CE re-weighted like HML1 + early drop": {
        "recipe": "ce_drw",
        "weighting": "CS",
        "early_drop": True,
    },
    "CE re-weighted like HML1, over images": {
        "recipe": "ce_drw",
        "weighting": "CS",
        "mean_over": "images",
        "early_drop": False,
    },
    "CE re-weighted like HML1, over images + early drop": {
        "recipe": "ce_drw",
        "weighting": "CS",
        "mean_over": "images",
        "early_drop": True,
    },
    "HML1": {"recipe": "hml1", "early_drop": False},
    "HML1 + early drop": {"recipe": "hml1", "early_drop": True},
    "HML1, over weights": {"recipe": "hml1", "mean_over": "weights", "early_drop": False},
    "HML1, over weights + early drop": {
        "recipe": "hml1",
        "mean_over": "weights",
        "early_drop": True,
    },
}
# The cells of loss × divisor × drop, all with HML1's class weights from its switch on.
CUBE = {
    ("CE", "weights", "no drop"): "CE re-weighted like HML1",
    ("CE", "weights", "drop"): "CE re-weighted like HML1 + early drop",
    ("CE", "images", "no drop"): "CE re-weighted like HML1, over images",
    ("CE", "images", "drop"): "CE re-weighted like HML1, over images + early drop",
    ("L_c", "weights", "no drop"): "HML1, over weights",
    ("L_c", "weights", "drop"): "HML1, over weights + early drop",
    ("L_c", "images", "no drop"): "HML1",
    ("L_c", "images", "drop"): "HML1 + early drop",
}
SWITCHES: dict[str, dict[str, Any]] = {
    "HML1, inner": {"recipe": "hml1", "early_drop": False, "weight_placement": "inner"},
    "HML1, inner, ×10 + early drop": {
        "recipe": "hml1",
        "early_drop": True,
        "weight_placement": "inner",
        "loss_scale": 10.0,
    },
    "Focal, γ = 0": {"recipe": "focal", "early_drop": False, "gamma": 0.0},
    "HML2": {"recipe": "hml2", "early_drop": False},
    "HML2 + early drop": {"recipe": "hml2", "early_drop": True},
    # The trainer hands its --delta to HML1 alone. Weights and factor are those of the cells above it.
    "HML2 as in the authors' code (official, δ = 1e10)": {"recipe": "hml2", "protocol": "official"},
    "HML1 as in the authors' code (official, inner, ×10)": {
        "recipe": "hml1",
        "protocol": "official",
        "weight_placement": "inner",
        "loss_scale": 10.0,
    },
    "Balanced softmax": {"recipe": "balanced_softmax", "early_drop": False},
    "LDAM-DRW": {"recipe": "ldam_drw", "early_drop": False},
}
# What of HML1's second stage decides; asked for by `rates`.
SECOND_STAGE: dict[str, dict[str, Any]] = {
    "CE, then CS-focal": {"recipe": "deferred_focal", "gamma": 1.0, "early_drop": False},
    "Balanced softmax × sinc(p)": {"recipe": "balanced_hml", "early_drop": False},
}
# Plain cross-entropy with the class weights and the switch of HML1. Over images, as HML1 divides: what
# differs is the loss alone. Over the sum of weights, as PyTorch does: the step is five times as large.
LIKE_HML1 = tuple(cell for cell in FACTORIAL if cell.startswith("CE re-weighted like HML1"))
# The primary contrast: same switch, schedule and divisor. Only the loss of the second stage differs.
PRIMARY = ("HML1 + early drop", "CE re-weighted like HML1, over images + early drop")
MARGIN = 1.0  # points within which two methods are called equivalent
# From CE to HML1, one change at a time; each is compared with the cell before it.
WAY = (
    ("cross-entropy (CE)", "CE"),
    (
        "from epoch 101 on class weights ∝ 1/n,\nmean over the sum of weights",
        "CE re-weighted like HML1",
    ),
    ("mean over the number of images", "CE re-weighted like HML1, over images"),
    (
        "learning rate × 0.01 from epoch 101 on",
        "CE re-weighted like HML1, over images + early drop",
    ),
    ("the hard-mining loss L_c: HML1", "HML1 + early drop"),
)
BESIDE = ("CE-DRW", "Balanced softmax", "LDAM-DRW")  # on the way's figure
# (question, cell with the switch, cell without it)
QUESTIONS = (
    ("HML1 with its early drop, against CE without: what a table shows", "HML1 + early drop", "CE"),
    ("The early drop alone, given to CE", "CE + early drop", "CE"),
    ("The early drop alone, given to CE-DRW", "CE-DRW + early drop", "CE-DRW"),
    ("The early drop alone, for HML1", "HML1 + early drop", "HML1"),
    ("HML1 against CE, both without the drop", "HML1", "CE"),
    ("HML1 against CE, both with the drop", "HML1 + early drop", "CE + early drop"),
    ("CE re-weighted like HML1 against CE, without the drop", "CE re-weighted like HML1", "CE"),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over images, without the drop",
        "HML1",
        "CE re-weighted like HML1, over images",
    ),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over images, with the drop",
        "HML1 + early drop",
        "CE re-weighted like HML1, over images + early drop",
    ),
    (
        "The divisor alone: re-weighted CE over images against over weights, without the drop",
        "CE re-weighted like HML1, over images",
        "CE re-weighted like HML1",
    ),
    (
        "Loss and divisor: HML1 against CE re-weighted over weights, without the drop",
        "HML1",
        "CE re-weighted like HML1",
    ),
    ("CE-DRW (from 80 % of the run, CB weights) against CE, without the drop", "CE-DRW", "CE"),
    ("Inner instead of outer weighting", "HML1, inner", "HML1"),
    (
        "Inner weighting and the factor 10 (the authors' code), with the drop",
        "HML1, inner, ×10 + early drop",
        "HML1 + early drop",
    ),
    ("Focal with γ = 0, as the authors ran it, against CE", "Focal, γ = 0", "CE"),
    (
        "HML1 with its early drop against balanced softmax, the reference",
        "HML1 + early drop",
        "Balanced softmax",
    ),
    (
        "The early drop alone, given to CE re-weighted over images",
        "CE re-weighted like HML1, over images + early drop",
        "CE re-weighted like HML1, over images",
    ),
    (
        "The divisor alone: re-weighted CE over images against over weights, with the drop",
        "CE re-weighted like HML1, over images + early drop",
        "CE re-weighted like HML1 + early drop",
    ),
    (
        "Deferred weights alone: re-weighted CE over images against CE, both with the drop",
        "CE re-weighted like HML1, over images + early drop",
        "CE + early drop",
    ),
    (
        "The authors' code (inner weights, ×10, their schedule) against HML1 with the drop",
        "HML1 as in the authors' code (official, inner, ×10)",
        "HML1 + early drop",
    ),
    (
        "Focal in the place of L_c: CE, then CS-focal, against re-weighted CE over images",
        "CE, then CS-focal",
        "CE re-weighted like HML1, over images",
    ),
    (
        "Balanced softmax × sinc(p) against balanced softmax",
        "Balanced softmax × sinc(p)",
        "Balanced softmax",
    ),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over weights, without the drop",
        "HML1, over weights",
        "CE re-weighted like HML1",
    ),
    (
        "The loss alone: HML1 against CE re-weighted like it, both over weights, with the drop",
        "HML1, over weights + early drop",
        "CE re-weighted like HML1 + early drop",
    ),
    (
        "The divisor alone: HML1 over images against over weights, without the drop",
        "HML1",
        "HML1, over weights",
    ),
    (
        "The divisor alone: HML1 over images against over weights, with the drop",
        "HML1 + early drop",
        "HML1, over weights + early drop",
    ),
    (
        "The early drop alone, for HML1 over weights",
        "HML1, over weights + early drop",
        "HML1, over weights",
    ),
    (
        "HML2 with δ = 1e10, as the authors ran it, instead of 1e4, with the drop",
        "HML2 as in the authors' code (official, δ = 1e10)",
        "HML2 + early drop",
    ),
)


def delta_cell(delta: float) -> str:
    """Name of the cell of HML1 with this δ: "HML1, δ = 1e+02"."""
    return "HML1, δ = ∞ (L_f)" if math.isinf(delta) else f"HML1, δ = {delta:.0e}"


def rate_cell(cell: str, rate: float) -> str:
    """Name of this cell with another rate in its second stage: "HML1, second stage ×0.1"."""
    return f"{cell}, second stage ×{rate:g}"


def cells(
    base: Mapping[str, Any],
    seeds: Sequence[int],
    deltas: Iterable[float] = (),
    rates: Iterable[float] = (),
) -> dict[str, list[RunConfig]]:
    """The configurations of every cell; ``base`` holds the fields that all of them share.

    The δ sweep has the ``deltas`` given and δ = ∞. ``rates`` of the second stage are tried for HML1 and
    for its control; with any, the cells of :data:`SECOND_STAGE` are there as well. A ``subset_seed`` of
    "seed" draws another training subset for each seed.
    """
    named = {**FACTORIAL, **SWITCHES}
    control = "CE re-weighted like HML1, over images"
    rates = tuple(rates)
    if rates:
        named |= SECOND_STAGE
    for delta in (*deltas, math.inf):
        named[delta_cell(delta)] = {"recipe": "hml1", "early_drop": False, "delta": delta}
    for cell in LIKE_HML1:
        switch = RunConfig(**{**base, "recipe": "hml1", "subset_seed": 0}).stage_ends
        named[cell] = {**named[cell], "stage_ends": switch}
    for rate in rates:
        for cell in ("HML1", control):
            named[rate_cell(cell, rate)] = {**named[cell], "second_stage_rate": rate}
    follows = base.get("subset_seed") == expansion.FOLLOWS_SEED

    def config(fields: Mapping[str, Any], seed: int) -> RunConfig:
        subset = {"subset_seed": seed} if follows else {}
        return RunConfig(**{**base, **fields, **subset}, seed=seed)

    return {cell: [config(fields, seed) for seed in seeds] for cell, fields in named.items()}


def run(configs: Mapping[str, Sequence[RunConfig]], **options: Any) -> pd.DataFrame:
    """Sweep over all cells (options as for :func:`engines.sweep`), with the column ``cell``.

    Two cells may be the same runs under two names (δ = 1e4 is HML1 itself); they are trained once.
    """
    every = [config for members in configs.values() for config in members]
    rows = engines.sweep(every, **options).set_index("run_id")
    named = [
        rows.loc[[config.run_id for config in members]].reset_index().assign(cell=cell)
        for cell, members in configs.items()
    ]
    return pd.concat(named, ignore_index=True)


def effect(
    frame: pd.DataFrame,
    with_switch: str,
    without: str,
    *,
    metric: str = "balanced_accuracy",
    selection: str = "last",
) -> stats.Difference | None:
    """Paired difference of two cells in percentage points; None where a cell has no finished run."""
    done = frame[frame["status"] == "done"]
    if done.empty:
        return None
    column = f"{selection}_{metric}"
    scores = [
        done[done["cell"] == cell].set_index("seed")[column].astype(float)
        for cell in (with_switch, without)
    ]
    common = scores[0].index.intersection(scores[1].index)
    if common.empty:
        return None
    return stats.paired_difference(*(100 * score[common].to_numpy() for score in scores))


def effects(frame: pd.DataFrame, *, metric: str = "balanced_accuracy") -> pd.DataFrame:
    """Every question of :data:`QUESTIONS` that the runs answer, as one family of tests.

    The columns of :func:`hml_lab.tables.contrasts` and ``label``. Where a run of the two cells ended at
    chance no mean stands for the seeds, and none is given.
    """
    columns = ["label", *stats.Difference._fields]
    done = frame[frame["status"] == "done"]
    there = set(done["cell"]) if len(done) else set()
    asked = [(label, (a, b)) for label, a, b in QUESTIONS if {a, b} <= there]
    if not asked:
        return pd.DataFrame(columns=[*columns, "p_holm"])
    found = tables.contrasts(done, [pair for _, pair in asked], by="cell", metric=metric)
    found.insert(0, "label", [label for label, _ in asked])
    return found


def _scores(done: pd.DataFrame, metric: str = "balanced_accuracy") -> dict[str, pd.Series]:
    """Percent by seed, for each cell."""
    return {
        cell: 100 * runs.set_index("seed")[f"last_{metric}"].astype(float)
        for cell, runs in done.groupby("cell", sort=False)
    }


def lacking(frame: pd.DataFrame) -> list[str]:
    """The cells of :data:`WAY` without a finished run."""
    there = set(frame.loc[frame["status"] == "done", "cell"])
    return [cell for _, cell in WAY if cell not in there]


def way(frame: pd.DataFrame) -> pd.DataFrame:
    """The way from CE to HML1, a row for each step of :data:`WAY`, and the whole of it last.

    Over the seeds that all of its cells have, so that the steps add up.

    Returns
    -------
    pandas.DataFrame
        ``label``, ``cell``, ``mean`` (percent), ``values`` (of each seed), and the difference to the row
        before (the last row: to the first) with its 95 % interval, ``low`` and ``high``, and the interval
        that holds for all of these at once, ``low_simultaneous`` and ``high_simultaneous``.

    Raises
    ------
    ValueError
        Where a cell of the way has no finished run, naming it, or its cells no seed in common.
    """
    if absent := lacking(frame):
        raise ValueError(f"Expected finished runs of {', '.join(absent)}, got none.")
    done = frame[frame["status"] == "done"]
    names = [cell for _, cell in WAY]
    common = _seeds_of_all(done, names)
    if not common:
        raise ValueError(f"Expected a seed that {', '.join(names)} have in common, got none.")
    done = done[done["seed"].isin(common)]
    scores = _scores(done)
    pairs = [*zip(names[1:], names[:-1], strict=True), (names[-1], names[0])]
    found = tables.contrasts(done, pairs, by="cell")
    labels = [*(label for label, _ in WAY), "all of it: HML1 with its drop, against CE"]
    rows = [
        {"label": label, "cell": cell, "mean": scores[cell].mean(), "values": tuple(scores[cell])}
        for label, cell in zip(labels, [*names, names[-1]], strict=True)
    ]
    empty = pd.DataFrame([{}], columns=found.columns)
    # No p-values: what is said of these differences is said once, in the family of `effects`.
    tests = ["cell", "p_value", "p_holm", "each", "collapsed"]
    steps = pd.concat([empty, found], ignore_index=True).drop(columns=tests)
    table = pd.concat([pd.DataFrame(rows), steps], axis=1)
    table.attrs = found.attrs
    return table


def _seeds_of_all(done: pd.DataFrame, names: Sequence[str]) -> list[int]:
    """The seeds that all of these cells have."""
    seeds = [set(done.loc[done["cell"] == name, "seed"]) for name in names]
    return sorted(set.intersection(*seeds))


AXES = {
    "loss": ("L_c instead of CE", "CE", "L_c"),
    "divisor": ("mean over images instead of weights", "weights", "images"),
    "drop": ("early drop instead of none", "no drop", "drop"),
}


def cube(frame: pd.DataFrame) -> pd.DataFrame:
    """What each of loss, divisor and drop changes, in the 2 × 2 × 2 of :data:`CUBE`.

    Returns
    -------
    pandas.DataFrame
        For each of the three, a row for each setting of the other two and one for the average over all
        four, the main effect (``setting`` "on average"): ``change``, ``setting``, ``cell``,
        ``reference``, ``n``, ``difference``, ``low``, ``high`` (points, of this one alone, paired by
        seed), ``each`` (of every seed) and ``collapsed`` (of its runs). A row whose cells lack a run in
        common has n = 0. Where a run collapsed there is no mean: ``each`` tells it. No p-values: what is
        tested is the family of :func:`effects`.
    """
    done = frame[frame["status"] == "done"]
    scores = _scores(done)
    lost = done[tables.collapsed(done)].groupby("cell").size() if len(done) else {}
    rows = []
    for axis, (change, off, on) in enumerate(AXES.values()):
        others = list(
            dict.fromkeys(key[:axis] + key[axis + 1 :] for key in CUBE if key[axis] == on)
        )
        every = []
        for other in others:
            a, b = (CUBE[(*other[:axis], level, *other[axis:])] for level in (on, off))
            each = pd.Series(dtype=float)
            if a in scores and b in scores:
                each = scores[a].sub(scores[b]).dropna()
            collapses = int(lost.get(a, 0) + lost.get(b, 0))
            every.append((each, collapses))
            own = {"change": change, "setting": ", ".join(other), "cell": a, "reference": b}
            rows.append(own | _paired(each, collapses))
        # Of a seed the main effect is the mean of its four differences, so that seeds stay the units.
        mean = pd.concat([each for each, _ in every], axis=1).dropna().mean(axis=1)
        own = {"change": change, "setting": "on average", "cell": "", "reference": ""}
        rows.append(own | _paired(mean, sum(number for _, number in every)))
    return pd.DataFrame(rows)


def _paired(each: pd.Series, collapses: int) -> dict[str, Any]:
    row = {"n": len(each), "difference": math.nan, "low": math.nan, "high": math.nan}
    if len(each) and not collapses:
        found = stats.mean_interval(each.to_numpy())
        row |= {"difference": found.mean, "low": found.low, "high": found.high}
    return row | {"each": each_difference(each.to_numpy()), "collapsed": collapses}


def cube_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`cube` in text: "+0.50 [+0.10, +0.90]", each seed where a run collapsed, – without runs."""

    def said(row: Any) -> str:
        if not row.n:
            return "–"
        if row.collapsed:
            return row.each
        interval = "" if math.isnan(row.low) else f" [{row.low:+.2f}, {row.high:+.2f}]"
        return f"{row.difference:+.2f}{interval}"

    shown = pd.DataFrame(
        {
            "change": table["change"],
            "with": table["setting"],
            "difference [95 %]": [said(row) for row in table.itertuples()],
            "n": table["n"].astype(str),
        }
    ).set_index("change")
    shown.attrs["covers"] = (
        "brackets: 95 % intervals of each difference alone, Student's t over seeds"
    )
    return shown


def beside(frame: pd.DataFrame) -> pd.DataFrame:
    """Label, mean and every seed (percent) of the methods that the way is shown beside, with its seeds."""
    done = frame[frame["status"] == "done"]
    common = _seeds_of_all(done, [cell for _, cell in WAY])
    scores = _scores(done[done["seed"].isin(common)])
    there = [cell for cell in BESIDE if cell in scores and len(scores[cell]) == len(common)]
    return pd.DataFrame(
        [{"label": c, "mean": scores[c].mean(), "values": tuple(scores[c])} for c in there]
    )


def scores_by_cell(
    frame: pd.DataFrame, order: Iterable[str], metrics: Sequence[str]
) -> pd.DataFrame:
    """n and "mean ± sd" of every cell; the median and each run where one collapsed; "–" without a run."""
    done = frame[frame["status"] == "done"]
    long = tables.summary(done, by="cell", metrics=metrics)
    texts = []
    for row in long.itertuples():
        runs = done.loc[done["cell"] == row.cell, f"last_{row.metric}"]
        texts.append(score(100 * runs.to_numpy(dtype=float), lost=bool(row.collapsed)))
    shown = long.assign(text=texts).pivot(index="cell", columns="metric", values="text")
    shown = shown.reindex(index=list(order), columns=list(metrics)).fillna("–")
    sizes = done.groupby("cell").size()
    shown.insert(0, "n", [str(sizes.get(cell, "–")) for cell in shown.index])
    return shown


def by_cell(frame: pd.DataFrame, runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The records of the finished runs of every cell, those that hold predictions."""
    records = {run.run_id: run for run in runs if run.has_predictions}
    done = frame[frame["run_id"].isin(records)]
    return {
        cell: [records[run_id] for run_id in ids]
        for cell, ids in done.groupby("cell", sort=False)["run_id"]
    }


def over_images(frame: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """Every question again, from stored predictions: intervals over other seeds and other test images."""
    members = by_cell(frame, runs)
    asked = [(label, (a, b)) for label, a, b in QUESTIONS if {a, b} <= set(members)]
    if not asked:
        return pd.DataFrame(columns=["label", "group", "reference", "n", "difference", "sd"])
    found = tables.over_images(members, [pair for _, pair in asked], margin=MARGIN)
    labels = {pair: label for label, pair in asked}
    pairs = zip(found["group"], found["reference"], strict=True)
    found.insert(0, "label", [labels[pair] for pair in pairs])
    return found


def over_images_in_words(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`over_images` for a reader, by question: each seed where a run collapsed."""
    rows = {}
    for row in found.itertuples():
        told = {"difference": row.each, "95 %": "–", f"90 % for ±{MARGIN:g}": "–", "image sd": "–"}
        if not row.collapsed:
            ends = (row.low, row.high), (row.equivalence_low, row.equivalence_high)
            intervals = [
                "–" if math.isnan(low) else f"[{low:+.2f}, {high:+.2f}]" for low, high in ends
            ]
            texts = f"{row.difference:+.2f}", *intervals, f"{row.image_sd:.2f}"
            told = dict(zip(told, texts, strict=True))
        rows[row.label] = told | {"n": str(row.n)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "question"
    table.attrs["covers"] = (
        f"{found.attrs.get('covers', 'intervals')}, each difference alone; without an interval: "
        "each seed, as a run of the two cells ended at chance"
    )
    return table


def primary_among(pairs: pd.DataFrame) -> str:
    """What the family of all pairs (:func:`hml_lab.tables.all_pairs`) says of :data:`PRIMARY`."""
    told = " − ".join(PRIMARY)
    of = pairs[[set(pair) == set(PRIMARY) for pair in zip(pairs["cell"], pairs["reference"])]]
    if of.empty:
        return f"The primary contrast, {told}, is not among these pairs."
    row = of.iloc[0]
    sign = 1 if row["cell"] == PRIMARY[0] else -1
    ends = sorted([sign * row["low_simultaneous"], sign * row["high_simultaneous"]])
    apart = "apart" if row["p_max_t"] < 0.05 else "**not** apart"
    return (
        f"The primary contrast, {told}, is {apart} here: {sign * row['difference']:+.2f} "
        f"[{ends[0]:+.2f}, {ends[1]:+.2f}], {p_value(row['p_max_t'], 4, 'p')}, n = {row['n']} seeds that "
        f"all of these cells have, among {len(pairs)} pairs. Its own test, above, has seeds of its own "
        "and is corrected for no other pair: for that it is fixed in the code."
    )


def verdict(frame: pd.DataFrame, runs: Sequence[Run] | None = None) -> str:
    """The primary contrast, :data:`PRIMARY`, in sentences."""
    members = None
    if runs is not None and (found := by_cell(frame, runs)) and set(PRIMARY) <= set(found):
        members = found
    return tables.primary(frame, PRIMARY, by="cell", margin=MARGIN, runs=members)


def answer(frame: pd.DataFrame) -> str:
    """How much of HML's gain is schedule, how much re-weighting and how much loss, in one paragraph."""
    needed = {
        "total": ("HML1 + early drop", "CE"),
        "schedule": ("CE + early drop", "CE"),
        "same": ("HML1 + early drop", "CE + early drop"),
        "plain": ("HML1", "CE"),
        "weights": ("CE re-weighted like HML1, over images", "CE"),
        "control": ("CE re-weighted like HML1, over images + early drop", "CE"),
        "loss": ("HML1", "CE re-weighted like HML1, over images"),
        "loss with drop": (
            "HML1 + early drop",
            "CE re-weighted like HML1, over images + early drop",
        ),
    }
    found = {name: effect(frame, *pair) for name, pair in needed.items()}
    lacking = [" − ".join(needed[name]) for name, value in found.items() if value is None]
    if lacking:
        return f"The answer needs runs that are not there: {'; '.join(lacking)}."
    said = {name: _said(frame, *pair) for name, pair in needed.items()}
    return (
        f"**How much of the gain is loss, how much schedule?** Reported as in the papers, HML1 with its "
        f"early learning-rate drop against CE without, the difference in balanced accuracy is "
        f"{said['total']} points. The drop alone gives plain CE {said['schedule']}. With the same "
        f"schedule on both sides, HML1 differs from CE by {said['same']} (both with the drop) and "
        f"{said['plain']} (both without). HML1 also re-weights its second stage: plain CE with the same "
        f"class weights from the same epoch on, divided by the number of images as in HML1, "
        f"gains {said['weights']} over CE, and with HML1's early drop as well {said['control']}. What the "
        f"loss itself adds to that is {said['loss with drop']} (with the drop) or {said['loss']} "
        f"(without it). Brackets are 95 % intervals paired by seed, n = {_range(found)}, of each "
        f"difference alone: the table below corrects for the number of its questions."
    )


def _range(found: Mapping[str, stats.Difference]) -> str:
    """ "10", or "3 to 10" where the differences have unlike numbers of seeds."""
    sizes = sorted({difference.n for difference in found.values()})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _said(frame: pd.DataFrame, with_switch: str, without: str) -> str:
    done = frame[(frame["status"] == "done") & frame["cell"].isin([with_switch, without])]
    if lost := int(tables.collapsed(done).sum()):
        scores = _scores(done)
        each = scores[with_switch].sub(scores[without]).dropna()
        return f"{each_difference(each)} (each seed; {lost} of these runs ended at chance)"
    found = effect(frame, with_switch, without)
    interval = "" if found.n == 1 else f" [{found.low:+.1f}, {found.high:+.1f}]"
    return f"{found.difference:+.1f}{interval}"


def author_contrasts(
    method: str = "CHML2, CS", against: Sequence[str] = ("CE, None", "CE, CS", "CE, CB")
) -> pd.DataFrame:
    """One of the authors' ISIC 2018 methods against several of their cross-entropies, Welch's test.

    Their runs have no deferred weighted CE, the control that the question needs: (CE, CS) and (CE, CB) are
    weighted from epoch 1 on.

    Returns
    -------
    pandas.DataFrame
        label, n (of both), difference, low, high (points; of this one alone), low_simultaneous,
        high_simultaneous (Bonferroni), p_value, p_holm (over these rows).
    """
    runs = published.author_runs()
    scores = {
        label: group["balanced_accuracy"].to_numpy() for label, group in runs.groupby("label")
    }
    level = 1 - 0.05 / len(against)
    rows = []
    for other in against:
        wide = stats.welch(scores[method], scores[other], level)
        own = stats.welch(scores[method], scores[other])._asdict()
        at_once = {"low_simultaneous": wide.low, "high_simultaneous": wide.high}
        rows.append({"label": f"{method} − ({other})", **own, **at_once})
    table = pd.DataFrame(rows)
    table["p_holm"] = stats.holm(table["p_value"].to_numpy(dtype=float))
    table.attrs["caption"] = (
        f"{published.AUTHOR_CAPTION} Here {sum(len(scores[name]) for name in (method, *against))} of "
        f"these {len(runs)} runs, n of both sides. Differences of means in points with Welch's 95 % "
        "interval, low and high of each by itself, low_simultaneous and high_simultaneous of all at once "
        f"(Bonferroni); p_holm is corrected over the {len(table)} rows."
    )
    return table


def author_statistics(baseline: str = "CE, None") -> pd.DataFrame:
    """The authors' own ISIC 2018 runs, all of them: balanced accuracy in percent by configuration.

    ``mean``, ``sd`` and ``n`` of all runs; ``first_five`` is the mean of runs 0–4, which is what their
    published aggregate amounts to, as it averages these five twice. Welch's difference to the baseline
    with its interval (runs are independent: a run number is no common seed) and Holm's correction.

    Raises
    ------
    ValueError
        For a baseline that is not among the labels.
    """
    runs = published.author_runs()
    groups = {
        label: group.sort_values("run")["balanced_accuracy"].to_numpy()
        for label, group in runs.groupby("label", sort=False)
    }
    if baseline not in groups:
        raise ValueError(f"Expected `baseline` to be one of {', '.join(groups)}, got {baseline!r}.")
    rows = []
    for label, values in groups.items():
        summary = stats.mean_interval(values)
        row = {
            "label": label,
            "mean": summary.mean,
            "sd": summary.sd,
            "n": summary.n,
            "first_five": values[:5].mean(),
        }
        if label != baseline:
            compared = stats.welch(values, groups[baseline])
            wide = stats.welch(values, groups[baseline], 1 - 0.05 / (len(groups) - 1))
            row |= {
                "difference": compared.difference,
                "low": compared.low,
                "high": compared.high,
                "low_simultaneous": wide.low,
                "high_simultaneous": wide.high,
                "p_value": compared.p_value,
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    table["p_holm"] = stats.holm(table["p_value"].to_numpy(dtype=float))
    meaning = runs.drop_duplicates("label").set_index("label")["meaning"]
    table["what was run"] = table["label"].map(meaning)
    table = table.sort_values("mean", ascending=False, ignore_index=True)
    table.attrs["caption"] = (
        f"{published.AUTHOR_CAPTION} Here all {len(runs)} runs of {len(groups)} configurations, n of "
        f"each. first_five: mean of runs 0 to 4. Differences to {baseline} in points with Welch's 95 % "
        "interval, low and high of each by itself, low_simultaneous and high_simultaneous of all at once "
        f"(Bonferroni); p_holm is corrected over the {len(groups) - 1} differences."
    )
    return table
