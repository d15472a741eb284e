"""Training, validation and test images such that no lesion is in two of them.

Many lesions were photographed several times. Split image by image, a network is tested on lesions that it
was trained on; :func:`straddling` measures that leak.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_prep.splits import SPLITS, by_group
from hml_core.errors import DataError
from hml_core.system import files, tables

FRACTIONS = (0.8, 0.1, 0.1)


def by_lesion(records: pd.DataFrame, seed: int, fractions=FRACTIONS) -> pd.Series:
    """A split for every image: stratified by class, whole lesions, at random.

    See :func:`data_prep.splits.by_group`. An image without a lesion id is a lesion of its own.

    Parameters
    ----------
    records : DataFrame
        Columns ``id``, ``class``, ``lesion_id`` (empty: unknown); the order of the rows does not matter.
    seed : int
    fractions : (train, validation, test), sum 1

    Returns
    -------
    pandas.Series
        "train", "validation" or "test" for every row of ``records``.
    """
    lesions = _lesions(records)
    return by_group(records["class"], lesions, seed, fractions)


def by_image(records: pd.DataFrame, seed: int, fractions=FRACTIONS) -> pd.Series:
    """The same, image by image, whatever lesion it shows: what to compare :func:`by_lesion` with."""
    return by_group(records["class"], records["id"], seed, fractions)


def from_csv(records: pd.DataFrame, path: str | Path) -> pd.Series:
    """The split of a CSV with the columns ``id`` and ``split``; an image that it does not name: NaN.

    Raises
    ------
    DataError
        For a file that cannot be read, ids that the archive does not have, or other names than "train",
        "validation" (or "val") and "test".
    """
    try:
        given = tables.read(path)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {str(path)!r}: {files.reason(error)}") from error
    if missing := sorted({"id", "split"} - {*given.columns}):
        raise DataError(f"{str(path)!r} lacks the column(s) {', '.join(missing)}.")
    if twice := [name for name in ("id", "split") if tables.several(given, name)]:
        raise DataError(f"{str(path)!r} has several columns {', '.join(twice)}. Keep one.")
    given = given.assign(split=given["split"].replace({"val": "validation"}))
    if wrong := sorted(set(given["split"]) - set(SPLITS)):
        raise DataError(f"Expected the splits in {str(path)!r} to be {SPLITS}, got {wrong}.")
    if unknown := sorted(set(given["id"]) - set(records["id"])):
        raise DataError(
            f"{str(path)!r} names {len(unknown)} image(s) that the archive does not have: "
            f"{', '.join(unknown[:5])}."
        )
    if given["id"].duplicated().any():
        twice = given["id"][given["id"].duplicated()].unique()
        raise DataError(f"{str(path)!r} names images twice: {', '.join(twice[:5])}.")
    return records["id"].map(given.set_index("id")["split"])


def straddling(records: pd.DataFrame, split: pd.Series) -> dict[str, int]:
    """How much of the test a split gives away.

    Returns
    -------
    dict
        Of ``images``, ``images_with_lesion``, whose lesion is known; ``lesions``, those of them with
        ``several_images``, the number of lesions that are ``straddling`` (images in more than one split),
        and ``leaked_images``: images of validation and test whose lesion was trained on.
    """
    known = records.assign(split=split)[records["lesion_id"] != ""]
    lesions = known.groupby("lesion_id")["split"]
    straddles = lesions.transform("nunique") > 1
    trained = known["lesion_id"].isin(known.loc[known["split"] == "train", "lesion_id"])
    return {
        "images": len(records),
        "images_with_lesion": len(known),
        "lesions": int(lesions.ngroups),
        "several_images": int((lesions.size() > 1).sum()),
        "straddling": int(known.loc[straddles, "lesion_id"].nunique()),
        "leaked_images": int((trained & known["split"].isin(SPLITS[1:])).sum()),
    }


def _lesions(records: pd.DataFrame) -> pd.Series:
    """A name for every lesion; ids of images and lesions cannot collide."""
    own = "image " + records["id"]
    return own.where(records["lesion_id"] == "", "lesion " + records["lesion_id"])
