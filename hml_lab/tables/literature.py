"""Ours beside what was published."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hml_core import datasets, recipes
from hml_core.config import RunConfig
from hml_lab import alike, published
from hml_lab.tables.cells import SELECTION_LABELS, finished, median_of, plus_minus, score
from hml_lab.tables.contrasts import collapsed

# Fields that make no two runs of a method unlike: they name its setting, the run, or how it is computed.
NOT_COMPARED = {
    "dataset", "imbalance_type", "imbalance_ratio", "recipe", "seed", "options", "precision", "compile",
    "deterministic", "micro_batch_size", "evaluate_every",
}  # fmt: skip


def beside_published(frame: pd.DataFrame, *, metric: str = "top1") -> pd.DataFrame:
    """Ours by recipe and setting beside the published figure of the same setting.

    The column "same protocol" says whether ours is that of the figure beside it, or what differs: every
    field of the run but those of :data:`NOT_COMPARED` is compared with the method's own on this data set
    (epochs on iNaturalist 2018 with those of that source; "not stated" where it does not give them),
    another draw of the subset (``subset_seed``) included; then the images, and what is noted of the
    source. Percent; "–" where nothing comparable was published. "All published" is the range of every
    figure on file for the method in this setting, with the number of sources. "CE of that source" shows
    how much of a difference is protocol rather than method. A method of which a run collapsed shows the
    median and each run, and no difference; nor is there one to runs of a shortened protocol.
    """
    done = finished(frame, "last")
    rows = []
    keys = ["dataset", "imbalance_type", "imbalance_ratio", "recipe"]
    for (dataset, kind, ratio, recipe), runs in done.groupby(keys, sort=False):
        alike.require_rows(runs)
        values = 100 * runs[f"last_{metric}"].to_numpy(dtype=float)
        sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
        has_collapsed = collapsed(runs).any()
        is_short = any(datasets.departures(dataset, row) for _, row in runs.iterrows())
        name = dataset
        if dataset == "imagefolder":
            name = {10: "cifar10", 100: "cifar100"}.get(_classes(runs), dataset)
        known, figures = None, pd.Series(dtype=float)
        if not (runs["synthetic"].any() or datasets.is_subset(runs.iloc[0])):
            known = published.comparable(recipe, name, kind, ratio)
            figures = published.every(recipe, name, kind, ratio)
        rows.append(
            {
                "Setting": kind if kind == "natural" else f"{kind} {ratio:g}",
                "Recipe": recipes.title(recipe),
                "Ours": median_of(values)
                if has_collapsed
                else plus_minus(values.mean(), sd, False),
                "n": str(len(values)),
                "Published": "–" if known is None else f"{known['mean_percent']:.1f}",
                "All published": _range(figures),
                "Difference": "–"
                if known is None or has_collapsed or is_short
                else f"{values.mean() - known['mean_percent']:+.1f}",
                "Same protocol": _same_protocol(dataset, runs, known),
                "CE of that source": "–"
                if known is None or np.isnan(known["ce_percent"])
                else f"{known['ce_percent']:.1f}",
                "Evidence": "–" if known is None else known["evidence"],
                "Source": _source(recipe, known),
                "Remark": "" if known is None else _remark(known),
            }
        )
    made = pd.DataFrame(rows).set_index("Setting")
    # Those of CIFAR-LT are in the text beside its tables.
    of_inaturalist = (done["dataset"] == "inat2018").any()
    return made if of_inaturalist else made.drop(columns=["CE of that source", "Remark"])


def _same_protocol(dataset: str, runs: pd.DataFrame, known: pd.Series | None) -> str:
    """ "yes"; "no: " and what differs; "not stated" where all is the same as far as the source says."""
    if known is None:
        return "no figure"
    protocol: dict[str, object] = {}
    if dataset in datasets.DATASETS:
        protocol |= _own_protocol(dataset, runs) | datasets.DATASETS[dataset].published
    if "epochs" in known:
        protocol["epochs"] = known["epochs"]
    unstated = [field for field, value in protocol.items() if field == "epochs" and pd.isna(value)]
    differs = [
        f"{field.replace('_', ' ')} {' / '.join(map(str, runs[field].unique()))}"
        for field, value in protocol.items()
        if field in runs
        and field not in unstated
        and not all(_same(own, value) for own in runs[field])
    ]
    if dataset == "imagefolder":
        differs.append("images not the official files")
    if known["remark"]:
        differs.append(f"theirs: {known['remark']}")
    if differs:
        return f"no: {'; '.join(differs)}"
    return "not stated" if unstated else "yes"


def _own_protocol(dataset: str, runs: pd.DataFrame) -> dict[str, object]:
    """Every compared field as the method has it on this data set; stages end as in the runs' epochs."""
    recipe = {"dataset": dataset, "recipe": str(runs["recipe"].iloc[0])}
    fields = RunConfig(**recipe).to_dict()
    if "epochs" in runs:
        fields["stage_ends"] = RunConfig(**recipe, epochs=int(runs["epochs"].iloc[0])).stage_ends
    return {name: value for name, value in fields.items() if name not in NOT_COMPARED}


def _same(a: object, b: object) -> bool:
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        return isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and [*a] == [*b]
    return a == b or bool(pd.isna(a) and pd.isna(b))


def _range(values: pd.Series) -> str:
    """ "38.1–41.0 (9)": lowest, highest, and from how many sources."""
    if values.empty:
        return "–"
    sources = values.index.nunique()
    low, high = f"{values.min():.1f}", f"{values.max():.1f}"
    return f"{low} ({sources})" if low == high else f"{low}–{high} ({sources})"


def _source(recipe: str, known: pd.Series | None) -> str:
    if known is not None:
        return known["source"].split(" (")[0]
    return published.NOT_ON_FILE if recipes.is_hard_mining(recipe) else "–"


def _remark(known: pd.Series) -> str:
    epochs = known.get("epochs", np.nan)
    return "; ".join(
        filter(None, ["" if np.isnan(epochs) else f"{epochs:.0f} epochs", known["remark"]])
    )


def _classes(runs: pd.DataFrame) -> int | None:
    """Number of classes, where the frame knows it."""
    return int(runs["num_classes"].iloc[0]) if "num_classes" in runs else None


def beside_author_runs(frame: pd.DataFrame, *, selection: str = "best_validation") -> pd.DataFrame:
    """Ours on ISIC 2018 by recipe beside the authors' runs of the same method: all of their runs.

    Balanced accuracy in percent. Theirs are of another split, and tested on augmented images, so that
    no test compares the two, and every row says what is not alike ("Comparable").
    """
    done = finished(frame, selection)
    theirs = published.author_runs().groupby("config")
    rows = []
    alike.require_rows(done)
    for recipe, runs in done.groupby("recipe", sort=False):
        own = 100 * runs[f"{selection}_balanced_accuracy"].to_numpy(dtype=float)
        told = dict.fromkeys(
            datasets.departures(run["dataset"], run) for run in runs.to_dict("records")
        )
        row = {
            "Recipe": recipes.title(recipe),
            "Ours": score(own, lost=bool(collapsed(runs, selection).any())),
            "n": str(len(own)),
            "Authors": "–",
            "n of theirs": "–",
            "Comparable": "–",
            "What they ran": "–",
        }
        if (name := published.AUTHOR_EQUIVALENTS.get(recipe)) is not None:
            group = theirs.get_group(name)
            values = group["balanced_accuracy"]
            row["Authors"] = plus_minus(values.mean(), values.std(ddof=1), False)
            row["n of theirs"], row["What they ran"] = str(len(group)), group["meaning"].iloc[0]
            shortened = [f"ours SHORTENED ({departures})" for departures in told if departures]
            row["Comparable"] = f"no: {'; '.join([*shortened, 'another split'])}"
        rows.append(row)
    table = pd.DataFrame(rows).set_index("Recipe")
    table.attrs["reported"] = (
        f"Reported: {SELECTION_LABELS[selection]} of ours, an epoch chosen by their script of theirs; n "
        "counts ours, n of theirs all that the authors published of that configuration."
    )
    return table
