"""Figures from the literature, each with its source, read from ``results/published/``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hml_core.errors import DataError
from hml_core.system import files

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
# The authors' ISIC 2018 configurations by what they really ran (see the table's ``meaning``), not by name.
AUTHOR_EQUIVALENTS = {
    "ce": "CE_W_None_F_32",
    "cs_ce": "CE_W_CS_F_32",
    "cb_ce": "CE_W_CB_F_32",
    "focal": "Focal_W_CS_F_32",
    "hml1": "CHML1_W_CS_F_32_D_10000000_start_hm_type_epoch",
    "chml2": "CHML2_W_CS_F_32_D_10000000_start_hm_type_epoch",
    "dhml1": "CHML3_W_CS_F_32_D_10000000_start_hm_type_epoch",
    "dhml2": "CHML4_W_CS_F_32_D_10000000_start_hm_type_epoch",
}
# "CE", "CE (ERM) SGD", "CE joint (90 ep)"; not "CE-DRW", "CE + tuned WD", nor what was quoted.
PLAIN_CE = r"CE(?: joint)?(?: \((?!quoted).*)?"
NOT_ON_FILE = (  # what stands in the row of a hard-mining recipe
    "not on file: P1's and P2's own figures were found in no stored source, of P3's the abstract alone "
    "(ISIC 2018: at least 2 % above all compared)"
)
TABLES = ("cifar_lt", "inaturalist2018", "isic2018_author_runs")


def table(name: str, folder: str | Path = FOLDER) -> pd.DataFrame:
    """A table of published figures.

    ``cifar_lt`` and ``inaturalist2018`` have the columns source, method, dataset, imbalance_type,
    imbalance_ratio, metric, mean_percent, std_percent and evidence, from strongest to weakest:
    "paper" (printed there), "repo_rerun" (a re-run by the repository named), "authors_slides",
    "secondary" (quoted by another paper). ``isic2018_author_runs`` has one row per published run.

    Raises
    ------
    DataError
        For an unknown table, or where the package is used without its repository.
    """
    if name not in TABLES:
        raise DataError(f"Expected a published table out of {', '.join(TABLES)}, got {name!r}.")
    path = Path(folder) / f"{name}.csv"
    if not path.is_file():
        raise DataError(
            f"The published figures {path.name!r} are not there: they live in results/published/ of "
            "the repository; pass its path as `folder`."
        )
    with files.opened(path, files.LARGEST_TABLE) as stream:
        return pd.read_csv(stream)


def comparable(
    recipe: str,
    dataset: str,
    imbalance_type: str,
    imbalance_ratio: float,
    folder: str | Path = FOLDER,
) -> pd.Series | None:
    """The published figure that a recipe may be set beside in this setting, or None.

    The choice on CIFAR is that of ``comparable.csv``: same network, schedule and augmentation unless its
    ``remark`` says otherwise. On iNaturalist 2018, which has a ratio of its own whatever
    ``imbalance_ratio`` says, it is that of ``comparable_inaturalist2018.csv``: same network and image
    size, whose sources trained for other numbers of epochs and on other schedules.

    Returns
    -------
    pandas.Series or None
        The columns of :func:`table`, the ``remark``, ``epochs`` (on iNaturalist 2018; NaN where the
        source does not say) and ``ce_percent``, cross-entropy in the same source (NaN where it has none).
    """
    found, ce = _choices(recipe, dataset, imbalance_type, imbalance_ratio, folder)
    if "range_only" in found:
        found = found[found["range_only"] != "yes"]
    if found.empty:
        return None
    return found.assign(ce_percent=found["source"].map(ce)).iloc[0]


def every(
    recipe: str,
    dataset: str,
    imbalance_type: str,
    imbalance_ratio: float,
    folder: str | Path = FOLDER,
) -> pd.Series:
    """All published percentages of this method in this setting by source, those of other protocols too."""
    return with_ce(recipe, dataset, imbalance_type, imbalance_ratio, folder)["mean_percent"]


def with_ce(
    recipe: str,
    dataset: str,
    imbalance_type: str,
    imbalance_ratio: float,
    folder: str | Path = FOLDER,
) -> pd.DataFrame:
    """The same, ``mean_percent`` by source, with cross-entropy in the same source, ``ce_percent``."""
    found, ce = _choices(recipe, dataset, imbalance_type, imbalance_ratio, folder)
    found = found.assign(ce_percent=found["source"].map(ce))
    return found.set_index("source")[["mean_percent", "ce_percent"]]


def _choices(
    recipe: str, dataset: str, imbalance_type: str, imbalance_ratio: float, folder: str | Path
) -> tuple[pd.DataFrame, pd.Series]:
    """What the recipe may be set beside, best first; and cross-entropy in percent by source."""
    is_natural = dataset == "inat2018"
    figures = table("inaturalist2018" if is_natural else "cifar_lt", folder)
    setting = figures[
        (figures["dataset"] == dataset) & (figures["imbalance_type"] == imbalance_type)
    ]
    if not is_natural:
        setting = setting[setting["imbalance_ratio"] == imbalance_ratio]
    name = "comparable_inaturalist2018.csv" if is_natural else "comparable.csv"
    with files.opened(Path(folder) / name, files.LARGEST_TABLE) as stream:
        choices = pd.read_csv(stream, keep_default_na=False).query("recipe == @recipe")
    if "epochs" in choices:
        choices["epochs"] = pd.to_numeric(choices["epochs"])
    plain = setting[setting["method"].str.fullmatch(PLAIN_CE)]
    ce = plain.groupby("source")["mean_percent"].first()
    return choices.merge(setting, on=["source", "method"]), ce


AUTHOR_CAPTION = (
    "Runs of the papers' authors, not of this package, published for ISIC 2018 "
    "(results/published/isic2018_author_runs.csv), balanced accuracy on their test split in percent."
)


def author_runs(folder: str | Path = FOLDER) -> pd.DataFrame:
    """The authors' ISIC 2018 runs with balanced accuracy in percent and a readable ``label``."""
    runs = table("isic2018_author_runs", folder)
    short = runs["config"].str.replace(r"_F_32|_D_10000000|_start_hm_type_epoch", "", regex=True)
    runs["label"] = short.str.replace("_W_", ", ").str.replace("_TH_", ", threshold ")
    runs["balanced_accuracy"] = 100 * runs["test_balanced_accuracy"]
    return runs
