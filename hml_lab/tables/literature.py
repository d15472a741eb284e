"""Ours beside what was published."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hml_core import datasets, recipes
from hml_core.config import RunConfig
from hml_lab import published
from hml_lab.tables.cells import finished, plus_minus


def beside_published(frame: pd.DataFrame, *, metric: str = "top1") -> pd.DataFrame:
    """Ours by recipe and setting beside the published figure of the same setting.

    The column "same protocol" says whether ours is that of the figure beside it: network, image size,
    epochs (on iNaturalist 2018 those of that source; "not stated" where it does not give them), the data
    set's default schedule and no average of the weights. Percent; "–" where nothing comparable was
    published. "CE of that source" shows how much of a difference is protocol rather than method.
    """
    done = finished(frame, "last")
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
                "Ours": plus_minus(values.mean(), sd, False),
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


def _classes(runs: pd.DataFrame) -> int | None:
    """Number of classes, where the frame knows it."""
    return int(runs["num_classes"].iloc[0]) if "num_classes" in runs else None


def beside_author_runs(frame: pd.DataFrame, *, selection: str = "best_validation") -> pd.DataFrame:
    """Ours on ISIC 2018 by recipe beside the authors' runs of the same method: all of their runs.

    Balanced accuracy in percent. Theirs are of another split, and tested on augmented images, so that
    no test compares the two.
    """
    done = finished(frame, selection)
    theirs = published.author_runs().groupby("config")
    rows = []
    for recipe, runs in done.groupby("recipe", sort=False):
        own = 100 * runs[f"{selection}_balanced_accuracy"].to_numpy(dtype=float)
        sd = np.std(own, ddof=1) if len(own) > 1 else np.nan
        row = {
            "Recipe": recipes.title(recipe),
            "Ours": plus_minus(own.mean(), sd, False),
            "n": str(len(own)),
            "Authors": "–",
            "n of theirs": "–",
            "What they ran": "–",
        }
        if (name := published.AUTHOR_EQUIVALENTS.get(recipe)) is not None:
            group = theirs.get_group(name)
            values = group["balanced_accuracy"]
            row["Authors"] = plus_minus(values.mean(), values.std(ddof=1), False)
            row["n of theirs"], row["What they ran"] = str(len(group)), group["meaning"].iloc[0]
        rows.append(row)
    return pd.DataFrame(rows).set_index("Recipe")
