"""Tables of results: mean ± sd over seeds, and the paired difference to a baseline with its test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hml_core import datasets, published, recipes, stats
from hml_core import metrics as measures
from hml_core.config import RunConfig
from hml_core.runs import SELECTIONS, Run

METRICS = {
    "top1": "Top-1",
    "balanced_accuracy": "Balanced acc.",
    "many": "Many",
    "medium": "Medium",
    "few": "Few",
    "macro_f1": "Macro-F1",
    "g_mean": "G-mean",
    "ece": "ECE",
}
DERMOSCOPY_METRICS = (
    "balanced_accuracy", "macro_auc", "sensitivity", "specificity", "top1", "macro_f1", "ece",
)  # fmt: skip
LABELS = {
    **METRICS,
    "macro_auc": "AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
LOWER_IS_BETTER = ("ece", "nll")
SELECTION_LABELS = {
    "last": "last epoch",
    "best_validation": "best epoch on validation",
    "best_test": "best epoch on the test set (optimistic: selected on the test set)",
}


def _finished(frame: pd.DataFrame, selection: str) -> pd.DataFrame:
    if selection not in SELECTIONS:
        raise ValueError(f"Expected `selection` to be one of {SELECTIONS}, got {selection!r}.")
    done = frame[frame["status"] == "done"] if len(frame) else frame
    if done.empty:
        raise ValueError("Expected at least one finished run to make a table of, got none.")
    return done


def summary(
    frame: pd.DataFrame,
    *,
    by: str = "recipe",
    metrics: Sequence[str] = tuple(METRICS),
    selection: str = "last",
) -> pd.DataFrame:
    """Mean, sample standard deviation and number of runs for each group and metric.

    Parameters
    ----------
    frame : pandas.DataFrame
        See :func:`hml_core.runs.load`.
    by : str
        Column whose values make the rows, in order of first appearance.
    metrics : sequence of str
    selection : {"last", "best_validation", "best_test"}
        The epoch that is reported.

    Returns
    -------
    pandas.DataFrame
        Tidy: one row per group and metric with mean, sd and n, in percent.
    """
    done = _finished(frame, selection)
    rows = []
    for group, runs in done.groupby(by, sort=False):
        for metric in metrics:
            values = 100 * runs[f"{selection}_{metric}"].to_numpy(dtype=float)
            # A shot group without classes has no accuracy in any run.
            sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
            rows.append(
                {by: group, "metric": metric, "mean": values.mean(), "sd": sd, "n": len(values)}
            )
    return pd.DataFrame(rows)


def differences(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    by: str = "recipe",
    metric: str = "balanced_accuracy",
    selection: str = "last",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Each group's paired difference to the baseline over the seeds that both have.

    Returns
    -------
    pandas.DataFrame
        One row per other group: difference, low, high (percentage points, Student-t interval of the
        mean difference), sd (of the differences), p_value (paired t-test, two-sided), p_holm (corrected
        for the number of rows) and n.

    Raises
    ------
    ValueError
        Where the baseline has no finished run, or a seed has more than one run in a group (two
        settings are mixed).
    """
    done = _finished(frame, selection)
    scores = done.set_index([by, "seed"])[f"{selection}_{metric}"].astype(float)
    if scores.index.has_duplicates:
        twice = scores.index[scores.index.duplicated()][0]
        raise ValueError(
            f"Expected one run for each {by} and seed, got several for {twice}: pass the runs of one "
            "setting, or another `by`."
        )
    if baseline not in scores.index.get_level_values(0):
        raise ValueError(f"Expected finished runs of the baseline {baseline!r}, got none.")
    reference = scores[baseline]
    rows = []
    for group in done[by].unique():
        if group == baseline:
            continue
        own = scores[group]
        common = own.index.intersection(reference.index)
        row = {by: group, "n": len(common)}
        if len(common):
            paired = stats.paired_difference(
                100 * own[common].to_numpy(), 100 * reference[common].to_numpy(), confidence
            )
            row |= {
                "difference": paired.difference,
                "low": paired.low,
                "high": paired.high,
                "sd": paired.sd,
                "p_value": paired.p_value,
            }
        rows.append(row)
    columns = [by, "n", "difference", "low", "high", "sd", "p_value"]
    result = pd.DataFrame(rows).reindex(columns=columns)
    result["p_holm"] = stats.holm(result["p_value"].to_numpy(dtype=float)) if len(result) else []
    return result


def comparison(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    by: str = "recipe",
    metrics: Sequence[str] = tuple(METRICS),
    selection: str = "last",
    tested: str = "balanced_accuracy",
) -> pd.DataFrame:
    """The table that people read: text cells "mean ± sd" and the paired difference to the baseline.

    Percent; the best mean of each column carries a star. The last columns hold the difference in
    ``tested`` with its 95 % interval and the Holm-corrected p-value.
    """
    long = summary(frame, by=by, metrics=metrics, selection=selection)
    means = long.pivot(index=by, columns="metric", values="mean")
    cells = {}
    for group, rows in long.groupby(by, sort=False):
        cell: dict[str, str] = {}
        for row in rows.itertuples():
            pick = np.nanmin if row.metric in LOWER_IS_BETTER else np.nanmax
            column = means[row.metric]
            best = column.notna().any() and row.mean == pick(column)
            cell[LABELS.get(row.metric, row.metric)] = _plus_minus(row.mean, row.sd, best)
        cell["n"] = str(rows["n"].iloc[0])
        cells[group] = cell
    table = pd.DataFrame.from_dict(cells, orient="index")
    label = f"Δ {LABELS.get(tested, tested)} to {recipes.title(baseline)} [95 %]"
    tests = differences(
        frame, baseline=baseline, by=by, metric=tested, selection=selection
    ).set_index(by)
    table[label] = [_interval(tests.loc[g]) if g in tests.index else "–" for g in table.index]
    table["p (Holm)"] = [
        _p(tests.loc[g, "p_holm"]) if g in tests.index else "–" for g in table.index
    ]
    table.index = [_label(by, group) for group in table.index]
    table.index.name = by.replace("_", " ").capitalize()
    return table


def _label(by: str, group: object) -> str:
    return recipes.title(str(group)) if by == "recipe" else str(group)


def export_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per finished run for a CSV file: id, setting, seed, time, device, metrics."""
    columns = [
        "run_id", "dataset", "imbalance_type", "imbalance_ratio", "recipe", "seed", "epochs", "model",
        "protocol", "early_drop", "delta", "weighting", "weight_placement", "loss_scale", "seconds",
        "device", "synthetic", "initialised_from", "best_validation_epoch",
        *(f"{name}_{metric}" for name in ("last", "best_validation") for metric in [*LABELS, "nll"]),
    ]  # fmt: skip
    done = _finished(frame, "last")
    return done[[column for column in columns if column in done]]


def selections(
    frame: pd.DataFrame, *, metric: str = "balanced_accuracy", by: str = "recipe"
) -> pd.DataFrame:
    """The same runs reported at the last, the best-on-validation and the best-on-test epoch.

    Text cells "mean ± sd" in percent, and the paired gain of choosing on the test set ("peeking").
    """
    done = _finished(frame, "last")
    cells: dict[str, dict[str, str]] = {}
    for group, runs in done.groupby(by, sort=False):
        row = {}
        for name in SELECTIONS:
            column = f"{name}_{metric}"
            if column not in runs or runs[column].isna().all():
                continue  # no validation split
            values = 100 * runs[column].to_numpy(dtype=float)
            sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
            row[SELECTION_LABELS[name]] = _plus_minus(values.mean(), sd, False)
        gain = 100 * (runs[f"best_test_{metric}"] - runs[f"last_{metric}"]).mean()
        row["added by peeking"] = f"{gain:+.1f}"
        cells[_label(by, group)] = row
    table = pd.DataFrame.from_dict(cells, orient="index")
    table.index.name = f"{LABELS.get(metric, metric)} (%)"
    return table


def beside_published(frame: pd.DataFrame, *, metric: str = "top1") -> pd.DataFrame:
    """Ours by recipe and setting beside the published figure of the same setting.

    The column "same protocol" says whether ours is that of the figure beside it: network, image size,
    epochs (on iNaturalist 2018 those of that source; "not stated" where it does not give them), the data
    set's default schedule and no average of the weights. Percent; "–" where nothing comparable was
    published. "CE of that source" shows how much of a difference is protocol rather than method.
    """
    done = _finished(frame, "last")
    rows = []
    keys = ["dataset", "imbalance_type", "imbalance_ratio", "recipe"]
    for (dataset, kind, ratio, recipe), runs in done.groupby(keys, sort=False):
        values = 100 * runs[f"last_{metric}"].to_numpy(dtype=float)
        sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
        name = dataset
        if dataset == "imagefolder":
            name = {10: "cifar10", 100: "cifar100"}.get(_classes(runs), dataset)
        known = None
        if not (runs["synthetic"].any() or datasets.is_subset(runs.iloc[0])):
            known = published.comparable(recipe, name, kind, ratio)
        rows.append(
            {
                "Setting": kind if kind == "natural" else f"{kind} {ratio:g}",
                "Recipe": recipes.title(recipe),
                "Ours": _plus_minus(values.mean(), sd, False),
                "n": str(len(values)),
                "Published": "–" if known is None else f"{known['mean_percent']:.1f}",
                "Difference": "–"
                if known is None
                else f"{values.mean() - known['mean_percent']:+.1f}",
                "Same protocol": _same_protocol(dataset, runs, known),
                "CE of that source": "–"
                if known is None or np.isnan(known["ce_percent"])
                else f"{known['ce_percent']:.1f}",
                "Evidence": "–" if known is None else known["evidence"],
                "Source": "–" if known is None else known["source"].split(" (")[0],
                "Remark": "" if known is None else _remark(known),
            }
        )
    made = pd.DataFrame(rows).set_index("Setting")
    # Those of CIFAR-LT are in the text beside its tables.
    of_inaturalist = (done["dataset"] == "inat2018").any()
    return made if of_inaturalist else made.drop(columns=["CE of that source", "Remark"])


def _same_protocol(dataset: str, runs: pd.DataFrame, known: pd.Series | None) -> str:
    """ "yes", "no", or "not stated" where all is the same as far as the source says."""
    if known is None:
        return "no"
    protocol: dict[str, object] = {"ema_decay": 0.0}
    if dataset in datasets.DATASETS:
        protocol |= datasets.DATASETS[dataset].published
        protocol["lr_schedule"] = RunConfig(dataset=dataset).lr_schedule
    if "epochs" in known:
        protocol["epochs"] = known["epochs"]
    unstated = [field for field, value in protocol.items() if pd.isna(value)]
    given = [field for field in protocol if field in runs and field not in unstated]
    if not all((runs[field] == protocol[field]).all() for field in given):
        return "no"
    return "not stated" if unstated else "yes"


def _remark(known: pd.Series) -> str:
    epochs = known.get("epochs", np.nan)
    return "; ".join(
        filter(None, ["" if np.isnan(epochs) else f"{epochs:.0f} epochs", known["remark"]])
    )


def beside_author_runs(frame: pd.DataFrame, *, selection: str = "best_validation") -> pd.DataFrame:
    """Ours on ISIC 2018 by recipe beside the authors' runs of the same method: all of their runs.

    Balanced accuracy in percent. Theirs are of another split, and tested on augmented images, so that
    no test compares the two.
    """
    done = _finished(frame, selection)
    theirs = published.author_runs().groupby("config")
    rows = []
    for recipe, runs in done.groupby("recipe", sort=False):
        own = 100 * runs[f"{selection}_balanced_accuracy"].to_numpy(dtype=float)
        sd = np.std(own, ddof=1) if len(own) > 1 else np.nan
        row = {
            "Recipe": recipes.title(recipe),
            "Ours": _plus_minus(own.mean(), sd, False),
            "n": str(len(own)),
            "Authors": "–",
            "n of theirs": "–",
            "What they ran": "–",
        }
        if (name := published.AUTHOR_EQUIVALENTS.get(recipe)) is not None:
            group = theirs.get_group(name)
            values = group["balanced_accuracy"]
            row["Authors"] = _plus_minus(values.mean(), values.std(ddof=1), False)
            row["n of theirs"], row["What they ran"] = str(len(group)), group["meaning"].iloc[0]
        rows.append(row)
    return pd.DataFrame(rows).set_index("Recipe")


def bootstrap_intervals(
    runs: Sequence[Run],
    *,
    selection: str = "best_validation",
    positive_class: str | None = None,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """Bootstrap intervals over the test images: "mean of the runs [low, high]" in percent, by recipe.

    The trained networks are held fixed and the test images of each class are drawn anew, the same for
    all runs of a recipe. Several images of one lesion count as independent, which makes the intervals a
    little too narrow.
    """
    cells: dict[str, dict[str, str]] = {}
    for recipe in dict.fromkeys(run.config.recipe for run in runs):
        members = [run for run in runs if run.config.recipe == recipe]
        targets = members[0].predictions[1]
        logits = [run.test_logits(selection) for run in members]
        positive = None
        if positive_class in members[0].class_names:
            positive = members[0].class_names.index(positive_class)

        def measure(chosen: np.ndarray, logits=logits, targets=targets, positive=positive):
            found = [_test_metrics(one[chosen], targets[chosen], positive) for one in logits]
            return 100 * np.mean(found, axis=0)

        low, high = stats.stratified_bootstrap(targets, measure, n_resamples=n_resamples)
        mean = measure(np.arange(len(targets)))
        names = ["balanced_accuracy", "macro_auc", "sensitivity", "specificity"][: len(mean)]
        cells[recipes.title(recipe)] = {
            LABELS[name]: f"{m:.1f} [{a:.1f}, {b:.1f}]"
            for name, m, a, b in zip(names, mean, low, high, strict=True)
        }
    table = pd.DataFrame.from_dict(cells, orient="index")
    table.index.name = f"%, 95 % interval over {len(targets)} test images"
    return table


def _test_metrics(logits: np.ndarray, targets: np.ndarray, positive: int | None) -> list[float]:
    predictions = logits.argmax(axis=1)
    found = [
        measures.quick(predictions, targets, logits.shape[1])["balanced_accuracy"],
        measures.macro_auc(logits, targets),
    ]
    if positive is not None:
        found += measures.one_against_rest(predictions, targets, positive).values()
    return found


def _classes(runs: pd.DataFrame) -> int | None:
    """Number of classes, where the frame knows it."""
    return int(runs["num_classes"].iloc[0]) if "num_classes" in runs else None


def protocol(frame: pd.DataFrame) -> str:
    """One sentence on how these runs were made, with a warning where they are shorter than published."""
    done = _finished(frame, "last")
    first = done.iloc[0]
    warning = ""
    if datasets.departures(first["dataset"], first):
        warning = "**Shortened protocol, not comparable with published figures**: "
    if first["synthetic"]:
        warning = "**SYNTHETIC images: nothing below is a result.** "
    started = "" if first["weights"] == "none" else f" from {first['initialised_from']} weights"
    return (
        f"{warning}{first['model']}{started}, {first['epochs']} epochs, "
        f"batch {first['batch_size']}, precision {first['precision']}, "
        f"protocol {first['protocol']}; {len(done)} runs, "
        f"{done['seconds'].sum() / 60:.0f} minutes of training in total "
        f"({done['seconds'].mean():.0f} s a run) on {', '.join(sorted(set(done['device'])))}."
    )


def missing(frame: pd.DataFrame) -> str:
    """What of a sweep failed or was not found, as a sentence for the notebook."""
    lacking = frame[frame["status"] != "done"]
    if lacking.empty:
        return f"All {len(frame)} runs are there."
    listed = "\n".join(
        f"- `{row.run_id}`: {row.status} ({row.error})" for row in lacking.itertuples()
    )
    return f"**{len(lacking)} of {len(frame)} runs are not there:**\n\n{listed}"


def _plus_minus(mean: float, sd: float, best: bool) -> str:
    if np.isnan(mean):
        return "–"
    spread = "" if np.isnan(sd) else f" ± {sd:.1f}"
    return f"{mean:.1f}{spread}{' *' if best else ''}"


def _interval(row: pd.Series) -> str:
    if np.isnan(row["difference"]):
        return "–"
    if np.isnan(row["low"]):
        return f"{row['difference']:+.1f}"
    return f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"


def _p(p: float) -> str:
    if np.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def to_markdown(table: pd.DataFrame) -> str:
    """A table of text cells as GitHub-flavoured Markdown, columns aligned for a terminal."""
    header = [table.index.name or "", *map(str, table.columns)]
    body = [
        [str(index), *map(str, row)] for index, row in zip(table.index, table.values, strict=True)
    ]
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, body)]) + "\n"


def conclusion(
    frame: pd.DataFrame,
    *,
    baseline: str = "ce",
    methods: Sequence[str] = ("hml1", "hml2"),
    metric: str = "balanced_accuracy",
    selection: str = "last",
    level: float = 0.05,
) -> str:
    """What these runs say about ``methods``, in sentences: against the baseline and the best other.

    "Better" and "worse" are said only where the Holm-corrected paired test stays under ``level``: over
    all recipes for the baseline, over ``methods`` for the best other. Intervals are of 95 % each. The
    detectable difference is that of :func:`hml_core.stats.minimum_detectable` at 80 % power, with
    ``level`` shared out among the comparisons (Bonferroni), a little larger than Holm's.
    """
    means = summary(frame, metrics=[metric], selection=selection).set_index("recipe")["mean"]
    methods = [method for method in methods if method in means.index]
    measured = {"metric": metric, "selection": selection}
    tests = differences(frame, baseline=baseline, **measured).set_index("recipe")
    others = means.drop(methods).dropna()
    best, against_best = None, tests
    if len(others) and (best := others.idxmax()) != baseline:
        few = frame[frame["recipe"].isin([best, *methods])]
        against_best = differences(few, baseline=best, **measured).set_index("recipe")
    lines = []
    for method in methods:
        if method not in tests.index:
            continue
        row, name = tests.loc[method], recipes.title(method)
        lines.append(
            f"**{name}** {_verdict(row, level)} {recipes.title(baseline)} in "
            f"{LABELS.get(metric, metric).lower()}: {_evidence(row, level, len(tests))}"
        )
        if best is None:
            continue
        scores = f"{means[method]:.1f} % against {means[best]:.1f} %"
        if best == baseline:
            lines.append(f"No other method is above {recipes.title(best)}: {scores}.")
            continue
        row = against_best.loc[method]
        lines.append(
            f"{name} {_verdict(row, level, indistinguishable=True)} the best other method, "
            f"{recipes.title(best)} ({scores}): {_evidence(row, level, len(against_best))}"
        )
    return "\n\n".join(lines)


def _verdict(row: pd.Series, level: float, *, indistinguishable: bool = False) -> str:
    if np.isnan(row["p_holm"]):
        return "cannot be compared (too few seeds) with"
    if row["p_holm"] < level:
        return "is better than" if row["difference"] > 0 else "is worse than"
    if indistinguishable:
        return f"is not distinguishable with {row['n']:.0f} seeds from"
    return "does not differ significantly from"


def _evidence(row: pd.Series, level: float, comparisons: int) -> str:
    """Difference, interval, n, p, and the smallest difference that would have been found."""
    # The interval is of this difference alone: it may leave out 0 where the test, corrected, does not.
    tests = "Holm" if comparisons == 1 else f"Holm, {comparisons} tests"
    p = _p(row["p_holm"])
    p = p if p.startswith("<") else f"= {p}"
    found = f"{_interval(row)} points, n = {row['n']:.0f} seeds, p {p} ({tests})."
    if np.isnan(row["p_holm"]) or not row["sd"] > 0:
        return found
    alpha, n = level / comparisons, int(row["n"])
    effect = stats.minimum_detectable(row["sd"], n, alpha=alpha)
    return f"{found} Detectable with 80 % power: {effect:.1f} points."
