"""What the notebooks on images of skin lesions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, display

from data_prep.isic import report
from hml_core import datasets
from hml_core import recipes as methods
from hml_core.config import RunConfig, grid
from hml_core.recipes import boundary
from hml_core.runs import Run
from hml_lab import plots, published, stats, tables
from hml_lab.experiment import Experiment
from hml_lab.tables.cells import p_value

OFFICIAL = "official_test"
CONTROL = "ce_drw"
ALIKE = (
    "weighting",
    "switch_patience",
)  # what the control takes over from hard mining, besides the rest
# Of the images of ISIC 2018 task 3 (HAM10000), as their licence asks.
CREDIT = (
    "Images: ISIC 2018 task 3 (HAM10000), ViDIR Group, Department of Dermatology, Medical University of "
    "Vienna, CC BY-NC 4.0; Tschandl, Rosendahl, Kittler: The HAM10000 dataset, Scientific Data 5, 180161 "
    "(2018), doi 10.1038/sdata.2018.161."
)


def control(*, epochs: int, weighting: str = "CS", **fields) -> list[RunConfig]:
    """Cross-entropy that is weighted as a hard-mining recipe is, from the same epoch on: what P3 lacks.

    The same class weights, the same divisor (images) and the same switch, half-way: between it and
    CHML2, which is CE until then, too, the loss of the second stage alone differs; DHML1 and DHML2 have
    another first stage as well.
    """
    deferred = {"weighting": weighting, "mean_over": "images"}
    deferred["stage_ends"] = (boundary(0.5, epochs),)
    return grid(recipe=CONTROL, epochs=epochs, **deferred, **fields)


def configs(
    recipes: Sequence[str], hard_mining: Mapping[str, Any], with_control: bool, **fields
) -> list[RunConfig]:
    """The runs of P3's table on ISIC 2018, with the :func:`control` of the hard-mining recipes or without.

    The control takes the place of ``ce_drw`` as its paper has it (CB weights from 80 % of the run on).
    """
    fields = {"dataset": "isic2018", **fields}
    if not with_control:
        return grid(recipe=list(recipes), hard_mining=hard_mining, **fields)
    others = [recipe for recipe in recipes if recipe != CONTROL]
    alike = {name: hard_mining[name] for name in ALIKE if name in hard_mining}
    return grid(recipe=others, hard_mining=hard_mining, **fields) + control(**alike, **fields)


def caption(experiment: Experiment, images: str = "") -> str:
    """What stands below a table: how far the protocol is from the published one, and whose images."""
    first = experiment.runs[0]
    fields = {**first.config.to_dict(), "initialised_from": first.initialised_from}
    departures = datasets.departures(first.config.dataset, fields)
    parts = [
        images,
        f"SHORTENED ({departures})" if departures else "",
        f"{len(experiment.runs)} runs",
    ]
    text = "; ".join(part for part in parts if part)
    source = "SYNTHETIC images: nothing here is a result." if first.synthetic else CREDIT
    return f"{text}. {source}"


def save_official(experiment: Experiment, *, note: str = "") -> None:
    """The official test set, where the runs were judged on it: table and intervals that draw lesions."""
    runs, selection = experiment.runs, experiment.selection
    if without := [run.run_id for run in runs if OFFICIAL not in run.further_tests]:
        display(
            Markdown(
                f"{len(without)} of {len(runs)} records do not speak of the official test set, such as "
                f"`{without[0]}`: it was not prepared when they were trained."
            )
        )
        return
    chosen = {"selection": selection, "positive_class": "melanoma"}
    experiment.save_table(
        tables.on_set(runs, OFFICIAL, selection=selection),
        tables.bootstrap_intervals(runs, of=OFFICIAL, **chosen),
        suffix="official",
        note=note,
    )


def save_claim(experiment: Experiment, *, note: str = "") -> None:
    """P3's claim against the control, on the split by lesion and on the official test set.

    Named beforehand: every hard-mining recipe against :func:`control`, balanced accuracy.
    """
    runs = experiment.runs
    there = {run.config.recipe for run in runs}
    if CONTROL not in there or not there & {*experiment.hard_mining}:
        display(
            Markdown(
                "No run of the control, or none of hard mining, is there: the claim cannot be judged."
            )
        )
        return
    sets = ["test", *(OFFICIAL for _ in range(all(OFFICIAL in run.further_tests for run in runs)))]
    chosen = {"control": CONTROL, "methods": experiment.hard_mining}
    parts = [tables.against(runs, of=of, selection=experiment.selection, **chosen) for of in sets]
    experiment.save_table(*parts, suffix="claim", note=note)


def author_claim(folder: str | Path = published.FOLDER) -> pd.DataFrame:
    """What the authors' own runs support: P3's methods against what they trained beside them.

    Differences of means over all of their runs in points of balanced accuracy, with Welch's 95 % interval,
    p corrected by Holm's method over the rows. None of their configurations defers the weights of
    cross-entropy, so that no row tells the loss from the deferral.
    """
    scores = published.author_runs(folder).groupby("config")["balanced_accuracy"]
    names = published.AUTHOR_EQUIVALENTS
    rows, p_values = {}, []
    for method in ("chml2", "dhml1", "dhml2"):
        for baseline in ("ce", "cs_ce", "cb_ce"):
            own, other = (scores.get_group(names[name]).to_numpy() for name in (method, baseline))
            found = stats.welch(own, other)
            p_values.append(found.p_value)
            rows[f"{methods.title(method)} − {methods.title(baseline)}"] = {
                "Δ Balanced acc. [95 %]": f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]",
                "n": f"{len(own)} + {len(other)}",
            }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["p (Holm)"] = [p_value(p) for p in stats.holm(p_values)]
    table.index.name = "The authors' runs"
    table.attrs["caption"] = (
        f"{published.AUTHOR_CAPTION} Brackets: Welch's 95 % interval of the difference of the means, each "
        f"by itself; p corrected by Holm's method over the {len(table)} rows."
    )
    table.attrs["run_ids"] = []  # no run of ours is in it
    return table


def show_preparation(experiment: Experiment) -> None:
    """The leak that the split avoids, and an image of every class before and after."""
    root: Path = experiment.data_root
    _, described = report.read(root)
    display(Markdown(report.leak(described)))
    drawn = plots.preparation(report.before_and_after(root), synthetic=described["synthetic"])
    experiment.save_figure(drawn, "preparation")


def shown_run(experiment: Experiment) -> Run:
    """The run whose features are drawn: the last recipe's first seed; another where that is not there."""
    last = experiment.recipes[-1]
    return next((run for run in experiment.runs if run.config.recipe == last), experiment.runs[-1])


def save_features(experiment: Experiment) -> None:
    """Features of :func:`shown_run`; records in compact form hold none."""
    if (run := shown_run(experiment)).is_compact:
        display(Markdown("The stored records are in compact form, without features to draw."))
        return
    experiment.save_figure(plots.features(run), "features")


def save_class_figures(experiment: Experiment) -> None:
    """Training images, accuracy by class and over classes, and what is confused with what."""
    runs, selection = experiment.runs, experiment.selection
    first = runs[0]
    counts = plots.class_counts(first.class_counts, first.class_names, synthetic=first.synthetic)
    experiment.save_figure(counts, "counts")
    experiment.save_figure(plots.per_class_accuracy(runs, selection=selection), "per_class")
    experiment.save_figure(plots.balanced_accuracy(runs, selection=selection), "balanced")
    recipes = [experiment.baseline, experiment.recipes[-1]]
    confused = plots.confusion_matrix(runs, recipes, selection=selection)
    experiment.save_figure(confused, "confusion")
