"""What the notebooks on images of skin lesions share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from hml_lab.tables.cells import ABSENT
from hml_lab.wording import number, p_value

OFFICIAL = "official_test"
CONTROL = "ce_drw"
WEIGHTED = "cs_ce"  # what P3 compares hard mining with
WHERE = {"test": "on the split by lesion", OFFICIAL: "on the official test set"}
# What the control takes over from hard mining, besides the rest.
ALIKE = ("weighting", "switch_patience")
# Whose images, as their licences ask.
_HAM10000 = (
    "ViDIR Group, Department of Dermatology, Medical University of Vienna, CC BY-NC 4.0; Tschandl, "
    "Rosendahl, Kittler: The HAM10000 dataset, Scientific Data 5, 180161 (2018), doi "
    "10.1038/sdata.2018.161"
)
CREDIT = f"Images: ISIC 2018 task 3 (HAM10000), {_HAM10000}."
CREDIT_2019 = (
    f"Images: ISIC 2019: HAM10000, {_HAM10000}; BCN20000, Department of Dermatology, Hospital Clínic de "
    "Barcelona, CC BY-NC 4.0; Combalia et al., arXiv 1908.02288; MSK, CC BY-NC 4.0; Codella et al., arXiv "
    "1710.05006."
)
CREDITS = {
    "isic2018": CREDIT,
    "isic2019": CREDIT_2019,
    "isic2019_all": CREDIT_2019,
    "isic2019_ham": f"Images: the HAM10000 part of ISIC 2019, {_HAM10000}.",
}


def control(*, epochs: int, weighting: str = "CS", **fields) -> list[RunConfig]:
    """Cross-entropy that is weighted as a hard-mining recipe is, from the same epoch on: what P3 lacks.

    The same class weights, the same divisor (images) and the same switch, half-way: between it and
    HML1 or CHML2, which are CE until then, too, the loss of the second stage alone differs; HML2, DHML1
    and DHML2 have another first stage as well.
    """
    deferred = {"weighting": weighting, "mean_over": "images"}
    deferred["stage_ends"] = (boundary(0.5, epochs),)
    return grid(recipe=CONTROL, epochs=epochs, **deferred, **fields)


def configs(
    recipes: Sequence[str], hard_mining: Mapping[str, Any], with_control: bool, **fields
) -> list[RunConfig]:
    """The runs of P3's table on ISIC 2018, or with another ``dataset`` those of P2's, with the
    :func:`control` of the hard-mining recipes or without.

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
    dataset = first.config.dataset
    recipes = len({run.config.recipe for run in experiment.runs})
    seeds = len({run.config.seed for run in experiment.runs})
    departures = datasets.departures(dataset, fields)
    parts = [
        first.images_note,
        images,
        f"SHORTENED ({departures})" if departures else "",
        f"{len(experiment.runs)} runs of this package in all: {number(recipes, 'method')}, "
        f"{number(seeds, 'seed')}",
    ]
    text = "; ".join(part for part in parts if part)
    source = (
        "SYNTHETIC images: nothing here is a result."
        if first.synthetic
        else CREDITS.get(dataset, "")
    )
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
    """The claim of P2 or P3 against the control, on the split by lesion and on an official test set.

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


def answer(runs: Sequence[Run], *, selection: str = "last", level: float = 0.05) -> str:
    """What these runs say of P3's claim: on the split by lesion, and on the official test set.

    A hard-mining method is said to differ from :func:`control` only where, on both sets, Holm's p over the
    methods stays under ``level`` and the interval over lesions leaves out 0, with one sign. Methods that
    predict the same class for every image with every seed are named.
    """
    by = plots.by_recipe(runs, qualified=False)
    mining = [recipe for recipe in by if methods.is_hard_mining(recipe)]
    sets = [of for of in WHERE if all(of in ("test", *run.further_tests) for run in runs)]
    chosen = {"control": CONTROL, "methods": mining, "selection": selection}
    found = {of: tables.against(runs, of=of, **chosen).attrs["numbers"] for of in sets}
    seeds = sorted({run.config.seed for run in runs})
    means = {
        of: {name: _mean_score(members, of, selection) for name, members in by.items()}
        for of in sets
    }
    gains = []
    for of in sets:
        above = [mean - means[of]["ce"] for name, mean in means[of].items() if name != "ce"]
        gains.append(f"{min(above):+.1f} to {max(above):+.1f} {WHERE[of]}")
    parts = [
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}. Balanced accuracy minus that "
        f"of CE, of the {len(by) - 1} other methods: {' and '.join(gains)} (means; "
        "intervals and tests are in the tables). Minus that of "
        "the control (cross-entropy with the same weights, divisor and switch; 95 % intervals in "
        "brackets):"
    ]
    for place, method in enumerate(mining):
        told = [f"{_in_words(found[of][place])} {WHERE[of]}" for of in sets]
        parts.append(f"{methods.title(method)} {', '.join(told)};")
    parts[-1] = parts[-1][:-1] + "."
    if WEIGHTED in by:
        apart = []
        for method in mining:
            told = [f"{means[of][method] - means[of][WEIGHTED]:+.1f} {WHERE[of]}" for of in sets]
            apart.append(f"{methods.title(method)} {', '.join(told)}")
        parts.append(
            f"Minus that of {methods.title(WEIGHTED)}, weighted from the first epoch on, as P3 compares "
            f"(means): {'; '.join(apart)}."
        )
    alike = [
        f"{methods.title(a)} and {methods.title(b)}"
        for a, b in itertools.combinations(mining, 2)
        if all(_classes(by[a], of, selection) == _classes(by[b], of, selection) for of in sets)
    ]
    if alike:
        parts.append(
            f"{'; '.join(alike)} predict the same class for every image: one method here, though Holm's "
            "correction counts two."
        )
    return " ".join([*parts, _judged(mining, found, len(seeds), level)])


def _judged(mining: Sequence[str], found: Mapping[str, list], seeds: int, level: float) -> str:
    if seeds < 2:
        return "One seed is no result: it has no spread, and nothing is claimed of it."
    apart, partly = [], []
    for place, method in enumerate(mining):
        own = {of: numbers[place] for of, numbers in found.items()}
        on = [of for of, row in own.items() if _is_apart(row, level)]
        signs = {np.sign(row["difference"]) for row in own.values()}
        if len(on) == len(own) and len(signs) == 1:
            apart.append(f"{methods.title(method)} ({'above' if 1 in signs else 'below'})")
        elif on:
            told = {of: f"{WHERE[of]} ({_side(row)})" for of, row in own.items()}
            where = " and ".join(told.pop(of) for of in on)
            others = f", not {' and '.join(told.values())}" if told else ""
            partly.append(f"{methods.title(method)} is so {where}{others}")
    criteria = "by Holm's p over seeds and by the interval over lesions"
    sets = " on both sets" if len(found) > 1 else ""
    if apart:
        said = f"Apart from the control {criteria}{sets}: {', '.join(apart)}."
    else:
        same = "that does not show that they are the same."
        said = f"None is apart from the control {criteria}{sets}; {same}"
    return " ".join([said, *(f"{text}." for text in partly)])


def _is_apart(row: Mapping[str, float], level: float) -> bool:
    return row["p_holm"] < level and (row["low_lesions"] > 0 or row["high_lesions"] < 0)


def _side(row: Mapping[str, float]) -> str:
    return "above" if row["difference"] > 0 else "below"


def _in_words(row: Mapping[str, float]) -> str:
    over = [f"over lesions [{row['low_lesions']:+.1f}, {row['high_lesions']:+.1f}]"]
    if row["n"] > 1:
        spread = (
            f"[{row['low']:+.1f}, {row['high']:+.1f}]" if row["low"] == row["low"] else "no spread"
        )
        over.insert(0, f"over seeds {spread}")
        over.append(f"p = {row['p_holm']:.2f} after Holm")
    return f"{row['difference']:+.1f} ({', '.join(over)})"


def _mean_score(runs: Sequence[Run], of: str, selection: str) -> float:
    scores = [run.evaluated(of).metrics(selection)["balanced_accuracy"] for run in runs]
    return 100 * float(np.mean(scores))


def _classes(runs: Sequence[Run], of: str, selection: str) -> dict[int, bytes]:
    """What every seed predicts, to be compared."""
    return {
        run.config.seed: run.evaluated(of).predictions(selection).classes.tobytes() for run in runs
    }


def author_claim(folder: str | Path = published.FOLDER) -> pd.DataFrame:
    """What the authors' own runs support: P3's methods against what they trained beside them.

    Differences of means over all of their runs in points of balanced accuracy, with Welch's 95 % interval
    of each alone and of all at once (Bonferroni), p corrected by Holm's method over the rows. None of
    their configurations defers the weights of cross-entropy, so that no row tells the loss from the
    deferral.
    """
    scores = published.author_runs(folder).groupby("config")["balanced_accuracy"]
    names = published.AUTHOR_EQUIVALENTS
    rows, p_values = {}, []
    mining, plain = ("chml2", "dhml1", "dhml2"), ("ce", "cs_ce", "cb_ce")
    pairs = list(itertools.product(mining, plain))
    for method, baseline in pairs:
        own, other = (scores.get_group(names[name]).to_numpy() for name in (method, baseline))
        found, wide = stats.welch(own, other), stats.welch(own, other, 1 - 0.05 / len(pairs))
        p_values.append(found.p_value)
        rows[f"{methods.title(method)} − {methods.title(baseline)}"] = {
            "Δ Balanced acc. [95 %]": f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]",
            "[95 %, simultaneous]": f"[{wide.low:+.1f}, {wide.high:+.1f}]",
            "n": f"{len(own)} + {len(other)}",
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["p (Holm)"] = [p_value(p) for p in stats.holm(p_values)]
    table.index.name = "The authors' runs"
    compared = sum(len(scores.get_group(names[name])) for name in (*mining, *plain))
    table.attrs = {
        "caption": (
            f"The authors' own runs on ISIC 2018, none of this package's: {compared} runs of "
            f"{len(mining) + len(plain)} configurations, of the {scores.size().sum()} of "
            f"{scores.ngroups} that they published; test results of their code, images and protocol, "
            "each at an epoch chosen by their script. Points of balanced accuracy. Brackets: Welch's 95 % "
            "intervals, as a run number is no common seed, of each difference alone and simultaneous. "
            f"Family of {len(rows)} tests: all rows; Welch's, p-values by Holm, simultaneous intervals by "
            "Bonferroni."
            " DHML1 and DHML2 of the paper are CHML3 and CHML4 in the authors' files, which have other "
            "configurations named DHML1 and DHML2."
        ),
        "run_ids": [ABSENT] * len(table),
    }
    return table


def show_preparation(experiment: Experiment) -> None:
    """The leak that the split avoids, and an image of every class before and after."""
    root: Path = experiment.data_root
    _, described = report.read(root)
    said = [*([described["part"]["title"]] if "part" in described else []), report.leak(described)]
    display(Markdown(". ".join(said)))
    pairs = report.before_and_after(root)
    made_up, dataset = described["synthetic"], experiment.configs[0].dataset
    credit = "" if made_up else CREDITS.get(dataset, "")
    drawn = plots.preparation(pairs, synthetic=made_up, title=". ".join(said[:-1]), credit=credit)
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
    title = "\n".join(filter(None, ("Training images of each class", first.images_note)))
    counts = plots.class_counts(
        first.class_counts, first.class_names, title=title, synthetic=first.synthetic
    )
    experiment.save_figure(counts, "counts")
    experiment.save_figure(plots.per_class_accuracy(runs, selection=selection), "per_class")
    experiment.save_figure(plots.balanced_accuracy(runs, selection=selection), "balanced")
    recipes = [experiment.baseline, experiment.recipes[-1]]
    confused = plots.confusion_matrix(runs, recipes, selection=selection)
    experiment.save_figure(confused, "confusion")
