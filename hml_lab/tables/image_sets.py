"""What a set of test images says of methods: metrics there, with intervals that draw lesions anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hml_core import metrics as measures
from hml_core import recipes
from hml_core.runs import Run
from hml_core.runs.evaluated import Evaluated
from hml_lab import alike, stats
from hml_lab.tables.cells import ABSENT, LABELS, each_difference, score
from hml_lab.tables.contrasts import run_is_lost
from hml_lab.wording import number, p_value

NAMES = {"test": "the test images of the split", "official_test": "the official test images"}


def on_set(
    runs: Sequence[Run],
    of: str = "test",
    *,
    selection: str = "best_validation",
    metrics: Sequence[str] = ("balanced_accuracy", "macro_auc"),
) -> pd.DataFrame:
    """Metrics and the recall of each class on a set of test images, by recipe: "mean ± sd" in percent,
    the median where a run collapsed.

    Raises
    ------
    ValueError
        Where a run was not judged on the set.
    """
    cells = {}
    for recipe, members in _by_recipe(runs).items():
        found = [run.evaluated(of) for run in members]
        values = {
            LABELS.get(name, name): [one.metrics(selection)[name] for one in found]
            for name in metrics
        }
        lost = any(run_is_lost(run, selection) for run in members)
        recalls = np.array([one.per_class_accuracy(selection) for one in found])  # (runs, C)
        values |= dict(zip(members[0].class_names, recalls.T, strict=True))
        cells[recipes.title(recipe)] = {
            name: score(100 * np.asarray(one, dtype=float), lost=lost)
            for name, one in values.items()
        } | {"n": str(len(members))}
    table = pd.DataFrame.from_dict(cells, orient="index")
    table.index.name = f"%, {size(runs[0].evaluated(of))}"
    return table


def size(found: Evaluated) -> str:
    """How many images a set has and, where that is known, lesions: "the official test images (…)"."""
    text = f"{len(found.targets):,} images"
    if found.knows_clusters:
        text += f" of {len(np.unique(found.clusters)):,} lesions"
    return f"{NAMES.get(found.name, found.name)} ({text})"


def bootstrap_intervals(
    runs: Sequence[Run],
    *,
    of: str = "test",
    selection: str = "best_validation",
    positive_class: str | None = None,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """Bootstrap intervals over a set of test images: "mean of the runs [low, high]" in percent, by recipe.

    The trained networks are held fixed and the lesions of each class are drawn anew, with all of their
    images (:func:`hml_lab.stats.cluster_bootstrap`), the same for all runs of a recipe; the images where
    the record does not know the lesions. Areas under curves need logits: a record in compact form has
    none of them.
    """
    cells: dict[str, dict[str, str]] = {}
    for recipe, members in _by_recipe(runs).items():
        found = [run.evaluated(of) for run in members]
        measure, names = _measure(found, members[0].class_names, selection, positive_class)
        targets, clusters = found[0].targets, found[0].clusters
        low, high = stats.cluster_bootstrap(targets, clusters, measure, n_resamples=n_resamples)
        mean = measure(np.arange(len(targets)))
        cells[recipes.title(recipe)] = {
            LABELS[name]: "–" if np.isnan(m) else f"{m:.1f} [{a:.1f}, {b:.1f}]"
            for name, m, a, b in zip(names, mean, low, high, strict=True)
        }
    table = pd.DataFrame.from_dict(cells, orient="index")
    first = runs[0].evaluated(of)
    table.index.name = f"%, 95 % interval over {_drawn(first)} of {size(first)}"
    table.attrs["covers"] = (
        f"brackets: 95 % percentile bootstrap ({n_resamples:,} draws) over the {_drawn(first)} of "
        f"{size(first)}, with the trained networks held fixed; they do not cover the chance in training"
    )
    return table


def against(
    runs: Sequence[Run],
    control: str,
    methods: Iterable[str],
    *,
    of: str = "test",
    selection: str = "best_validation",
    n_resamples: int = 10_000,
) -> pd.DataFrame:
    """Methods against a control, in points of balanced accuracy on a set of test images.

    Two intervals answer two questions. *over seeds*: would another run differ as these do? Student's t of
    the paired differences, alone and simultaneous (Bonferroni over the tests), and Holm's p over the
    methods. *over lesions*: would other patients show it? The networks are held fixed, and the same
    lesions are drawn for both. A claim needs both to leave out 0. Where a run collapsed the difference of
    each seed is told, without mean or test. ``attrs["numbers"]`` holds them
    unrounded.

    Raises
    ------
    ValueError
        Where the control has no run, or a recipe several runs of a seed.
    """
    by_seed = {name: _by_seed(name, one) for name, one in _by_recipe(runs).items()}
    if control not in by_seed:
        raise ValueError(f"Expected finished runs of the control {control!r}, got none.")
    rows, p_values, numbers, measured, lost = {}, [], [], [], []
    for method in methods:
        common = sorted(set(by_seed.get(method, {})) & set(by_seed[control]))
        if not common:
            continue
        pairs = [
            tuple(by_seed[name][seed].evaluated(of) for name in (method, control))
            for seed in common
        ]
        scores = [[100 * one.metrics(selection)["balanced_accuracy"] for one in p] for p in pairs]
        seeds = stats.paired_difference(*zip(*scores, strict=True))
        low, high = _paired_interval(pairs, selection, n_resamples)
        p_values.append(seeds.p_value)
        measured.append(scores)
        own = {"recipe": method, **seeds._asdict(), "low_lesions": low, "high_lesions": high}
        numbers.append(own)
        lost.append(
            any(run_is_lost(r, selection) for m in (method, control) for r in by_seed[m].values())
        )
        each = each_difference(np.subtract(*np.transpose(scores)))
        rows[recipes.title(method)] = {
            "Δ Balanced acc.": each if lost[-1] else f"{seeds.difference:+.1f}",
            "over seeds [95 %]": ABSENT if lost[-1] else _bracket(seeds.low, seeds.high),
            f"over {_drawn(pairs[0][0])} [95 %]": ABSENT if lost[-1] else _bracket(low, high),
            "n": str(len(common)),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    holm = stats.holm(p_values)
    tests = int(np.isfinite(p_values).sum())
    level = 1 - 0.05 / max(tests, 1)
    wide = [stats.paired_difference(*zip(*scores, strict=True), level) for scores in measured]
    simultaneous = [
        ABSENT if no_mean else _bracket(found.low, found.high)
        for found, no_mean in zip(wide, lost, strict=True)
    ]
    table.insert(2, "over seeds [95 %, simultaneous]", simultaneous)
    table["p (Holm)"] = [
        ABSENT if no_mean else p_value(p) for p, no_mean in zip(holm, lost, strict=True)
    ]
    table.index.name = f"against {recipes.title(control)}, {size(runs[0].evaluated(of))}"
    table.attrs = {
        "covers": "brackets: 95 % intervals of each difference alone unless simultaneous, over seeds "
        f"Student's t of the pairs, over {_drawn(runs[0].evaluated(of))} a bootstrap "
        f"({n_resamples:,} draws) with the trained networks held fixed",
        "family": f"family of {number(tests, 'test')}: paired t-tests over seeds of the methods of this "
        "table; p-values by Holm, simultaneous intervals by Bonferroni",
        "numbers": [own | {"p_holm": float(p)} for own, p in zip(numbers, holm, strict=True)],
    }
    return table


def _paired_interval(
    pairs: Sequence[tuple[Evaluated, Evaluated]], selection: str, n_resamples: int
) -> tuple[float, float]:
    """Of the mean difference in balanced accuracy, for the same lesions drawn for both."""
    targets, clusters = pairs[0][0].targets, pairs[0][0].clusters
    hits = [[one.predictions(selection).classes == targets for one in pair] for pair in pairs]
    method, control = np.mean(hits, axis=0, dtype=float)
    gains = 100 * (method - control)
    return stats.class_means_bootstrap(targets, clusters, gains, n_resamples=n_resamples)


def _measure(
    found: Sequence[Evaluated],
    class_names: Sequence[str],
    selection: str,
    positive_class: str | None,
):
    """Indices (M,) of images → metrics (K,) in percent, mean of the runs; and the metrics' names."""
    targets = found[0].targets
    classes = [one.predictions(selection).classes for one in found]
    logits = [one.logits(selection) for one in found]
    has_logits = all(one is not None for one in logits)
    positive = class_names.index(positive_class) if positive_class in class_names else None
    names = ["balanced_accuracy", *(["macro_auc"] if has_logits else [])]
    names += [] if positive is None else ["sensitivity", "specificity"]

    def measure(chosen: np.ndarray) -> np.ndarray:
        truth, rows = targets[chosen], []
        for own, values in zip(classes, logits, strict=True):
            row = [measures.quick(own[chosen], truth, len(class_names))["balanced_accuracy"]]
            row += [measures.macro_auc(values[chosen], truth)] if has_logits else []
            if positive is not None:
                row += measures.one_against_rest(own[chosen], truth, positive).values()
            rows.append(row)
        return 100 * np.mean(rows, axis=0)

    return measure, names


def _drawn(found: Evaluated) -> str:
    return "lesions" if found.knows_clusters else "images"


def _bracket(low: float, high: float) -> str:
    return "–" if np.isnan(low) else f"[{low:+.1f}, {high:+.1f}]"


def _by_recipe(runs: Iterable[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    runs = list(runs)
    alike.require_runs(runs)
    for run in runs:
        found.setdefault(run.config.recipe, []).append(run)
    return found


def _by_seed(recipe: str, runs: Sequence[Run]) -> dict[int, Run]:
    found = {run.config.seed: run for run in runs}
    if len(found) < len(runs):
        raise ValueError(f"Expected one run of {recipe!r} for each seed, got {len(runs)}.")
    return found
