"""Figures from the literature, each with its source, read from ``results/published/``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hml_core.errors import DataError

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
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
    return pd.read_csv(path)
