"""What ``hml prepare`` leaves of an archive: ``prepared.json``, ``manifest.csv`` and image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from hml_core import files
from hml_core.errors import ConfigError, DataError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


def find(root: Path, archive: str) -> tuple[Path, dict[str, Any]]:
    """The prepared folder, ``root`` or the one whose ``prepared/`` it is, and what it says of itself.

    Raises
    ------
    DataError
        Where there is none, or one of another archive.
    """
    for folder in (root, root / "prepared"):
        path = folder / "prepared.json"
        if path.is_file():
            try:
                described = json.loads(path.read_text())
                found = described["archive"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{str(path)!r} is damaged: {error!r}. Prepare it again."
                ) from error
            if found != archive:
                raise DataError(f"{str(folder)!r} holds {found}: expected {archive}.")
            return folder, described
    raise DataError(
        f"There is no prepared {archive} in {str(root)!r}: run `hml prepare {archive} --data-root …` "
        "first (an interrupted one goes on), which says what to download."
    )


def read_table(folder: Path, name: str, described: dict[str, Any]) -> pd.DataFrame:
    """``<name>.csv`` of a prepared folder, as text, if it is what was written.

    Raises
    ------
    DataError
        Where it is not.
    """
    path = folder / f"{name}.csv"
    if not path.is_file() or files.sha256(path) != described.get(f"{name}_sha256"):
        raise DataError(f"{str(path)!r} is not what was prepared: prepare it again.")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def normalisation(
    name: str, described: dict[str, Any], authors: tuple | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: of the training images, ImageNet's or the authors'.

    Raises
    ------
    ConfigError
        For constants that nobody published or measured.
    """
    if name == "imagenet":
        return IMAGENET
    if name == "authors":
        if authors is None:
            raise ConfigError("The authors published no `normalisation` for these images.")
        return authors
    if "mean" not in described:
        raise ConfigError(
            "The mean of these images was not taken when they were prepared: expected `normalisation` "
            f"'imagenet', got {name!r}."
        )
    return tuple(described["mean"]), tuple(described["std"])
