"""Differences between groups of runs: paired where the runs are paired, corrected as one family.

A *family* is the set of tests of which at most one in twenty families makes a false claim: p-values are
corrected by Holm's method over all of it, and intervals called simultaneous by Bonferroni's. Every table
made here says what its family is in ``attrs["family"]``, and what its intervals cover in
``attrs["covers"]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy

from hml_core.runs import Run
from hml_lab import alike, stats
from hml_lab.tables.cells import LABELS, each_difference, finished, group_name
from hml_lab.wording import p_value

Pair = tuple[str, str]
REFERENCE = (
    "balanced_softmax"  # named beforehand: what a new method is set against, beside the baseline
)
# Two runs of one seed are paired where they agree in these: same images in the same order, same start.
PAIRING = (
    "dataset", "imbalance_type", "imbalance_ratio", "subset_seed", "subset_images", "subset_classes",
    "validation_fraction", "image_size", "augmentation", "batch_size", "epochs", "model", "weights",
)  # fmt: skip
COLUMNS = (
    "reference", "n", "difference", "low", "high", "sd", "correlation", "test", "p_value",
)  # fmt: skip
MOST_LOST = 0.1  # of the way from chance to no error; below it a run has collapsed


def family(
    groups: Iterable[str], baseline: str, reference: str | None, methods: Sequence[str]
) -> list[Pair]:
    """The comparisons of a table and its conclusion: all with the baseline, methods with the reference.

    >>> family(["ce", "ldam", "balanced_softmax", "hml1"], "ce", "balanced_softmax", ["hml1"])[2:]
    [('hml1', 'ce'), ('hml1', 'balanced_softmax')]
    """
    groups = list(dict.fromkeys(groups))
    pairs = [(group, baseline) for group in groups if group != baseline]
    if reference in groups and reference != baseline:
        pairs += [(m, reference) for m in methods if m in groups and m not in (reference, baseline)]
    return pairs


def contrasts(
    frame: pd.DataFrame,
    pairs: Sequence[Pair],
    *,
    by: str = "recipe",
    metric: str = "balanced_accuracy",
    selection: str = "last",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The differences of these pairs of groups, first minus second, corrected over all of them.

    Paired by seed where the runs of a seed are paired (:data:`PAIRING`), Welch's test otherwise.

    Returns
    -------
    pandas.DataFrame
        A row for each pair: the first group under ``by``, ``reference`` (the second), ``n`` (pairs, or
        runs of both for Welch), ``difference``, ``low``, ``high`` (points; of this one alone),
        ``low_simultaneous``, ``high_simultaneous`` (Bonferroni over the tests of the family), ``sd`` (of
        the differences; Welch: the standard error), ``correlation`` (over the seeds that both have; NaN
        for less than three), ``test`` ("paired" or "Welch"), ``p_value``, ``p_holm``, ``each`` (the
        difference of every seed, of many the median and both ends) and ``collapsed``: where a run of the
        two groups did, ``each`` alone is told (:func:`without_means`); its test counts in the family.
        ``attrs["tests"]`` is the size of the family, ``attrs["sharper"]`` a sentence on differences that
        Holm's method finds and Bonferroni's interval does not, or "".

    Raises
    ------
    ValueError
        Where a seed has more than one run in a group (two settings are mixed).
    """
    done = finished(frame, selection, metric)
    if by == "recipe":
        alike.require_rows(done)
    done = done.assign(_score=100 * done[f"{selection}_{metric}"].astype(float))
    if (twice := done.duplicated([by, "seed"])).any():
        first = tuple(done.loc[twice, [by, "seed"]].iloc[0])
        raise ValueError(
            f"Expected one run for each {by} and seed, got several for {first}: pass the runs of one "
            "setting, or another `by`."
        )
    groups = {group: rows.set_index("seed") for group, rows in done.groupby(by, sort=False)}
    empty = done.iloc[:0].set_index("seed")
    members = [(groups.get(a, empty), groups.get(b, empty)) for a, b in pairs]
    rows = [_contrast(*pair, confidence) for pair in members]
    table = pd.DataFrame(
        [{by: a, "reference": b, **row} for (a, b), row in zip(pairs, rows, strict=True)]
    ).reindex(columns=[by, *COLUMNS])
    tests = int(table["p_value"].notna().sum())
    table["p_holm"] = stats.holm(table["p_value"].to_numpy(dtype=float)) if tests else np.nan
    degrees = np.array([row.get("degrees", np.nan) for row in rows])
    alpha = 1 - confidence
    wider = scipy.stats.t.isf(alpha / max(tests, 1) / 2, degrees) / scipy.stats.t.isf(
        alpha / 2, degrees
    )
    for side in ("low", "high"):
        table[f"{side}_simultaneous"] = (
            table["difference"] + (table[side] - table["difference"]) * wider
        )
    table["each"] = [_each(*pair) for pair in members]
    lost = done[collapsed(done, selection)].groupby(by).size()
    counted = [sum(int(lost.get(group, 0)) for group in pair) for pair in pairs]
    table = without_means(table.assign(collapsed=counted))
    table.attrs["tests"] = tests
    table.attrs["family"] = _family_in_words(pairs, tests, by)
    table.attrs["covers"] = covers(done)
    table.attrs["sharper"] = _sharper(table, by)
    return table


# What no row has of which a run collapsed: a mean of its differences, and what is made of that.
MEANS = (
    "difference", "sd", "low", "high", "low_simultaneous", "high_simultaneous", "correlation", "p_value",
    "p_holm", "image_sd", "equivalence_low", "equivalence_high", "equivalence_p",
)  # fmt: skip


def without_means(table: pd.DataFrame) -> pd.DataFrame:
    """The rule of every table of differences: where ``collapsed`` > 0 there is no mean, only ``each``."""
    kept = table["collapsed"] == 0
    return table.assign(
        **{column: table[column].where(kept) for column in MEANS if column in table}
    )


def is_sharper(table: pd.DataFrame) -> pd.Series:
    """Rows whose p after Holm is below 0.05 while the simultaneous interval holds 0."""
    holds = (table["low_simultaneous"] <= 0) & (table["high_simultaneous"] >= 0)
    return (table["p_holm"] < 0.05) & holds


def _sharper(table: pd.DataFrame, by: str) -> str:
    told = [
        f"{group_name(by, row[by])} − {group_name(by, row['reference'])} "
        f"({p_value(row['p_holm'], 3, 'p')}; [{row['low_simultaneous']:+.2f}, "
        f"{row['high_simultaneous']:+.2f}])"
        for _, row in table[is_sharper(table)].iterrows()
    ]
    if not told:
        return ""
    return (
        f"below 0.05 after Holm although the simultaneous interval holds 0: {'; '.join(told)}; both are "
        "valid, as Holm's method is sharper than Bonferroni's, of which these intervals are"
    )


def _each(first: pd.DataFrame, second: pd.DataFrame) -> str:
    each = first["_score"].sub(second["_score"]).dropna()
    return each_difference(each.to_numpy()) if len(each) else ""


def _contrast(first: pd.DataFrame, second: pd.DataFrame, confidence: float) -> dict:
    common = first.index.intersection(second.index)
    a, b = first["_score"], second["_score"]
    paired = len(common) and is_paired(first.loc[common], second.loc[common])
    row = {"n": len(common), "test": "paired" if paired or not len(common) else "Welch"}
    if paired:
        found = stats.paired_difference(a[common].to_numpy(), b[common].to_numpy(), confidence)
        row["degrees"] = len(common) - 1
        varies = len(common) > 2 and a[common].std() > 0 and b[common].std() > 0
        row["correlation"] = float(np.corrcoef(a[common], b[common])[0, 1]) if varies else np.nan
    elif min(len(a), len(b)) > 1:
        found = stats.welch(a.to_numpy(), b.to_numpy(), confidence)
        errors = np.array([a.var() / len(a), b.var() / len(b)])
        own = np.array([len(a), len(b)]) - 1
        row["degrees"] = errors.sum() ** 2 / (errors**2 / own).sum() if errors.any() else np.nan
        row["test"] = "Welch"
    else:
        return row
    return row | found._asdict()


def is_paired(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether the runs of these frames, row by row of one seed, agree in all of :data:`PAIRING`."""
    fields = [field for field in PAIRING if field in first and field in second]
    a, b = (frame[fields].map(repr) for frame in (first, second))  # NaN is like NaN here
    return bool((a == b).all(axis=None))


def _family_in_words(pairs: Sequence[Pair], tests: int, by: str) -> str:
    against: dict[str, list[str]] = {}
    for group, reference in pairs:
        against.setdefault(reference, []).append(group_name(by, group))
    if len(against) > 3:
        listed = "all differences of the table"
    else:
        listed = "; ".join(
            f"{', '.join(groups)} against {group_name(by, reference)}"
            for reference, groups in against.items()
        )
    if not tests:
        return f"no test, as no two have two seeds in common; compared: {listed}"
    number = "one test" if tests == 1 else f"{tests} tests"
    return f"family of {number}: {listed}; p-values by Holm, simultaneous intervals by Bonferroni"


def covers(done: pd.DataFrame) -> str:
    """What an interval over the seeds of these runs covers."""
    follows = "subset_seed" in done and (done["subset_seed"] == done["seed"]).all()
    if follows and done["seed"].nunique() > 1:
        what = "another seed and another draw of the training subset"
        return f"intervals cover {what}, not of the test images"
    return "intervals cover another seed, not another draw of the training subset or of the test images"


def collapsed(frame: pd.DataFrame, selection: str = "last") -> pd.Series:
    """Which runs ended near chance: less than a tenth of the way from chance to no error."""
    if "num_classes" not in frame:
        return pd.Series(False, index=frame.index)
    return is_lost(frame[f"{selection}_balanced_accuracy"], frame["num_classes"].astype(float))


def run_is_lost(run: Run, selection: str = "last") -> bool:
    """:func:`collapsed`, of one record."""
    return bool(is_lost(run.selection(selection)["balanced_accuracy"], len(run.class_counts)))


def is_lost(balanced_accuracy, num_classes):
    """:func:`collapsed`, of a balanced accuracy or of an array of them."""
    chance = 1 / num_classes
    return balanced_accuracy < chance + MOST_LOST * (1 - chance)


def all_pairs(
    frame: pd.DataFrame,
    *,
    by: str = "recipe",
    metric: str = "balanced_accuracy",
    selection: str = "last",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Every pair of groups, none named beforehand: max-t with the seeds as blocks.

    Over the seeds that all groups have (:func:`hml_lab.stats.all_pairs`). Left out are groups with a
    collapsed run, whose scatter would widen every interval; groups with fewer than half of the seeds that
    others have, which would take these from every pair; and groups with the very results of an earlier
    one (the same runs under two names): they would count its scatter twice.

    Returns
    -------
    pandas.DataFrame
        ``by``, ``reference``, difference, low_simultaneous, high_simultaneous (points), p_max_t, n; the
        higher group first. Empty where less than two seeds or two groups are left. ``attrs["left_out"]``
        lists the collapsed groups, ``attrs["few_seeds"]`` those of few seeds, ``attrs["same"]`` those that
        repeat another with that one's name; ``attrs["seeds"]`` are those that the others have in common.
    """
    done = finished(frame, selection, metric)
    if by == "recipe":
        alike.require_rows(done)
    lost = done.loc[collapsed(done, selection), by].unique()
    kept = done[~done[by].isin(lost)]
    sizes = kept.groupby(by)["seed"].nunique()
    few = [group for group in kept[by].unique() if 2 * sizes[group] < sizes.max()]
    kept = kept[~kept[by].isin(few)]
    scores = 100 * kept.pivot(index=by, columns="seed", values=f"{selection}_{metric}")
    scores = scores.astype(float).dropna(axis=1).loc[kept[by].unique()]
    repeats = scores.duplicated()
    same = {
        group_name(by, group): group_name(by, scores.index[(scores == row).all(axis=1)][0])
        for group, row in scores[repeats].iterrows()
    }
    scores = scores[~repeats].sort_index()
    columns = [
        by,
        "reference",
        "difference",
        "low_simultaneous",
        "high_simultaneous",
        "p_max_t",
        "n",
    ]
    if min(scores.shape) < 2:
        return pd.DataFrame(columns=columns)
    difference, half, p_value = stats.all_pairs(scores.to_numpy(), confidence)
    rows = []
    for i, j in zip(*np.triu_indices(len(scores), 1), strict=True):
        a, b = (i, j) if difference[i, j] >= 0 else (j, i)
        rows.append(
            {
                by: scores.index[a],
                "reference": scores.index[b],
                "difference": difference[a, b],
                "low_simultaneous": difference[a, b] - half[a, b],
                "high_simultaneous": difference[a, b] + half[a, b],
                "p_max_t": p_value[a, b],
                "n": scores.shape[1],
            }
        )
    table = pd.DataFrame(rows, columns=columns)
    table.attrs["family"] = f"family: all {len(rows)} pairs, corrected by the largest t"
    table.attrs["covers"] = covers(kept)
    table.attrs["left_out"] = [group_name(by, group) for group in lost]
    table.attrs["few_seeds"] = [group_name(by, group) for group in few]
    table.attrs["same"] = same
    table.attrs["seeds"] = [int(seed) for seed in scores.columns]
    return table


def over_images(
    runs: Mapping[str, Sequence[Run]],
    pairs: Sequence[Pair],
    *,
    margin: float | None = None,
    selection: str = "last",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Differences in balanced accuracy whose intervals cover other seeds *and* other test images.

    From stored predictions, which compact records hold (:func:`hml_lab.stats.over_images`). Where a run of
    the two groups collapsed there is no mean, only ``each`` (:func:`without_means`).

    Parameters
    ----------
    runs : mapping
        Group → its runs, a seed each.
    margin : float, optional
        Adds the two one-sided tests within ± ``margin`` points: equivalence_low, equivalence_high (of
        confidence 2·``confidence`` − 1), equivalence_p.

    Returns
    -------
    pandas.DataFrame
        group, reference, n, difference, low, high (points), p_value, image_sd (the standard error that the
        choice of the test images alone leaves), each, collapsed; not corrected for the number of rows.
    """
    every = {run.run_id: run for members in runs.values() for run in members}
    if not every:
        raise ValueError("Expected at least one run, got none.")
    targets = next(iter(every.values())).test_targets
    if any(not np.array_equal(run.test_targets, targets) for run in every.values()):
        raise ValueError("Expected runs that were tested on the same images.")
    correct = np.array([run.test_classes(selection) == targets for run in every.values()])
    full = 100 * stats.balanced_mean(correct, targets)
    column = {run_id: index for index, run_id in enumerate(every)}
    rows = []
    for pair in pairs:
        by_seed = [{run.config.seed: column[run.run_id] for run in runs[group]} for group in pair]
        common = [seed for seed in by_seed[0] if seed in by_seed[1]]
        if len(common) < 2:
            continue
        a, b = ([own[seed] for seed in common] for own in by_seed)
        own = full[a] - full[b]
        image_sd = 100 * stats.image_error(correct[a].astype(float) - correct[b], targets)
        found = stats.over_images(own, image_sd, confidence=confidence)
        row = dict(zip(("group", "reference"), pair, strict=True)) | found._asdict()
        row["image_sd"] = image_sd
        if margin is not None:
            within = stats.over_images(own, image_sd, margin=margin, confidence=confidence)
            row |= {
                "equivalence_low": within.low,
                "equivalence_high": within.high,
                "equivalence_p": within.p_value,
            }
        row["each"] = each_difference(own)
        row["collapsed"] = sum(run_is_lost(run, selection) for group in pair for run in runs[group])
        rows.append(row)
    table = without_means(pd.DataFrame(rows)) if rows else pd.DataFrame(rows)
    table.attrs["covers"] = (
        "intervals cover another seed and another draw of the test images of each class"
    )
    return table


def primary(
    frame: pd.DataFrame,
    pair: Pair,
    *,
    by: str = "recipe",
    margin: float = 1.0,
    metric: str = "balanced_accuracy",
    selection: str = "last",
    level: float = 0.05,
    runs: Mapping[str, Sequence[Run]] | None = None,
) -> str:
    """The primary contrast in sentences: the difference, and whether it is below the margin.

    Both tests are of this contrast alone. They answer different questions, so that a difference may be
    there *and* be smaller than the margin. With ``runs`` the same is said again with intervals that cover
    another draw of the test images.
    """
    done = finished(frame, selection, metric)
    scores = done.set_index([by, "seed"])[f"{selection}_{metric}"].astype(float) * 100
    names = [group_name(by, group) for group in pair]
    there = scores.index.get_level_values(0)
    common = (
        scores[pair[0]].index.intersection(scores[pair[1]].index)
        if set(pair) <= set(there)
        else pd.Index([])
    )
    what = f"**Primary contrast: {names[0]} − {names[1]}**, in {LABELS[metric].lower()}"
    if len(common) < 2:
        return f"{what}: {len(common)} seed(s) that both have, nothing to say."
    if lost := int(collapsed(done[done[by].isin(pair)], selection).sum()):
        each = each_difference((scores[pair[0]][common] - scores[pair[1]][common]).to_numpy())
        return f"{what}: {each} (each seed; {lost} of these runs collapsed): no mean is tested."
    a, b = (scores[group][common].to_numpy() for group in pair)
    found, same = stats.paired_difference(a, b), stats.equivalence(a, b, margin, level)
    each = ", ".join(f"{value:+.2f}" for value in a - b)
    text = (
        f"{what}: {found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}] points "
        f"(seeds {', '.join(map(str, common))}: {each}; paired t, {_p(found.p_value)}, "
        f"n = {found.n}). {_within(same)}"
    )
    low, high = stats.sd_interval(found.sd, found.n)
    if found.n > 1 and found.sd > 0:
        text += (
            f" The sd of {found.n} differences, {found.sd:.2f}, says of the true one that it is between "
            f"{low:.2f} and {high:.2f}."
        )
    if runs is not None:
        row = over_images(runs, [pair], margin=margin, confidence=1 - level).iloc[0]
        within = stats.Equivalence(
            row["difference"], row["equivalence_low"], row["equivalence_high"], margin,
            row["equivalence_p"], level, int(row["n"]),
        )  # fmt: skip
        text += (
            f" Over other seeds and other test images: {row['difference']:+.2f} [{row['low']:+.2f}, "
            f"{row['high']:+.2f}], {_p(row['p_value'])}. {_within(within)}"
        )
    return text


def _p(value: float) -> str:
    return p_value(value, 4, "p")


def _within(same: stats.Equivalence) -> str:
    if np.isnan(same.p_value):
        return f"Equivalence within ±{same.margin:g} cannot be tested: no spread to measure by."
    interval = f"[{same.low:+.2f}, {same.high:+.2f}]"
    tests = f"two one-sided tests, {100 * (1 - 2 * same.level):.0f} % interval {interval}"
    p = _p(same.p_value)
    if same.holds:
        return f"Equivalent within ±{same.margin:g} point ({tests}, {p})."
    return f"Equivalence within ±{same.margin:g} point is not shown ({tests}, {p})."


def detectable(sd: float, n: int, tests: int, level: float = 0.05) -> str:
    """The smallest difference that would have been found, over the interval of the sd behind these n."""
    if n < 2 or not sd > 0:
        return ""
    alpha = level / max(tests, 1)
    low, high = (stats.minimum_detectable(s, n, alpha=alpha) for s in stats.sd_interval(sd, n))
    measured = stats.minimum_detectable(sd, n, alpha=alpha)
    return (
        f"Detectable with 80 % power: {measured:.1f} points if the sd is the measured {sd:.2f}, "
        f"{low:.1f} to {high:.1f} over its 95 % interval."
    )
