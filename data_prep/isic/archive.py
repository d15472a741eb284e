"""What the ISIC challenges ship: a folder of JPEGs, one-hot ground truth, lesion ids.

The files are looked for anywhere below the given folder, under the names that they have in the official
archives, so that it does not matter how those were unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep import synthetic
from hml_core.errors import DataError

ID = r"\w[\w-]*"


@dataclass(frozen=True)
class Layout:
    """Names of one challenge's files.

    Parameters
    ----------
    images : str
        Folder of the training images.
    ground_truth : str
        CSV with a column ``image`` and a one-hot column for each class.
    lesions : str
        CSV with columns ``image`` and ``lesion_id``.
    classes : mapping
        Columns of the ground truth and what they stand for.
    """

    images: str
    ground_truth: str
    lesions: str
    classes: Mapping[str, str]
    address: str = "https://challenge.isic-archive.com/data/"


ARCHIVES = {
    "isic2018": Layout(
        images="ISIC2018_Task3_Training_Input",
        ground_truth="ISIC2018_Task3_Training_GroundTruth.csv",
        lesions="ISIC2018_Task3_Training_LesionGroupings.csv",
        classes={
            "MEL": "melanoma", "NV": "melanocytic nevus", "BCC": "basal cell carcinoma",
            "AKIEC": "actinic keratosis", "BKL": "benign keratosis",
            "DF": "dermatofibroma", "VASC": "vascular lesion",
        },
    ),
    "isic2019": Layout(
        images="ISIC_2019_Training_Input",
        ground_truth="ISIC_2019_Training_GroundTruth.csv",
        lesions="ISIC_2019_Training_Metadata.csv",
        classes={
            "MEL": "melanoma", "NV": "melanocytic nevus", "BCC": "basal cell carcinoma",
            "AK": "actinic keratosis", "BKL": "benign keratosis", "DF": "dermatofibroma",
            "VASC": "vascular lesion", "SCC": "squamous cell carcinoma", "UNK": "none of the others",
        },
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Archive:
    """A challenge's training images and what is known of them.

    Parameters
    ----------
    name : str
    records : DataFrame
        A row for each image, in order of ``id``: ``id``, ``class``, ``lesion_id`` (empty where unknown),
        ``path``.
    root, images : Path
        The folder of all of it, and that of the images.
    unlisted : int
        Images of the folder that the ground truth does not name; they are left out.
    synthetic : bool
    """

    name: str
    records: pd.DataFrame
    root: Path
    images: Path
    unlisted: int = 0
    synthetic: bool = False
    classes: tuple[str, ...] = field(default=())


def read(name: str, root: str | Path) -> Archive:
    """The archive of challenge ``name`` ("isic2018" or "isic2019") below ``root``.

    A listed image that is missing is no error here: its ``path`` is where it should be, and preparation
    reports it by name.

    Raises
    ------
    DataError
        Where a file is missing (the message says what to download and where to put it) or a CSV is
        not what the challenge ships.
    """
    if name not in ARCHIVES:
        raise DataError(f"Expected the archive to be one of {', '.join(ARCHIVES)}, got {name!r}.")
    root, layout = Path(root), ARCHIVES[name]
    images = _find(root, layout.images, layout, folder=True)
    truth = _read_truth(_find(root, layout.ground_truth, layout), layout)
    lesions = _read_lesions(_find(root, layout.lesions, layout))
    records = truth.assign(lesion_id=truth["id"].map(lesions).fillna("").astype(str))
    records["path"] = [images / f"{image}.jpg" for image in records["id"]]
    records = records.sort_values("id", ignore_index=True)
    listed = set(records["id"])
    unlisted = sum(path.stem not in listed for path in images.glob("*.jpg"))
    present = [column for column in layout.classes if (records["class"] == column).any()]
    mark = (root / synthetic.MARK).exists()
    return Archive(name, records, root, images, unlisted, mark, tuple(present))


def _find(root: Path, name: str, layout: Layout, *, folder: bool = False) -> Path:
    is_right = Path.is_dir if folder else Path.is_file
    found = [path for path in (root / name, *sorted(root.rglob(name))) if is_right(path)]
    if not found:
        files = f"{layout.images}.zip, {layout.ground_truth} and {layout.lesions}"
        raise DataError(
            f"There is no {'folder' if folder else 'file'} {name!r} below {str(root)!r}. Download "
            f"{files} (the CSV files may come in .zip archives) from {layout.address}, unpack them there "
            "and give that folder as `data_root`."
        )
    return found[0]


def _read_csv(path: Path, columns: set[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype={"image": str, "lesion_id": str})
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"Cannot read {str(path)!r}: {error}") from error
    if missing := sorted(columns - set(frame.columns)):
        raise DataError(
            f"{str(path)!r} lacks the column(s) {', '.join(missing)}: it has "
            f"{', '.join(map(str, frame.columns))}."
        )
    if frame["image"].isna().any():
        raise DataError(f"{str(path)!r} has rows without an image.")
    odd = frame["image"][~frame["image"].str.fullmatch(ID)]
    if len(odd):  # an id becomes the name of a file
        raise DataError(f"{str(path)!r} has images whose id is no name: {_some(map(repr, odd))}.")
    twice = frame["image"][frame["image"].duplicated()].unique()
    if len(twice):
        raise DataError(f"{str(path)!r} lists images twice: {_some(twice)}.")
    return frame


def _read_truth(path: Path, layout: Layout) -> pd.DataFrame:
    frame = _read_csv(path, {"image", *layout.classes})
    if not len(frame):
        raise DataError(f"{str(path)!r} lists no image.")
    try:
        values = frame[list(layout.classes)].to_numpy(dtype=float)
    except ValueError as error:
        raise DataError(f"{str(path)!r} has cells that are no numbers: {error}") from error
    wrong = ~(np.isin(values, (0, 1)).all(axis=1) & (values.sum(axis=1) == 1))
    if wrong.any():
        raise DataError(
            f"{str(path)!r} is not one-hot for {wrong.sum()} image(s): {_some(frame['image'][wrong])}."
        )
    names = np.array(list(layout.classes))
    return pd.DataFrame({"id": frame["image"], "class": names[values.argmax(axis=1)]})


def _read_lesions(path: Path) -> pd.Series:
    return _read_csv(path, {"image", "lesion_id"}).set_index("image")["lesion_id"]


def _some(names, number: int = 5) -> str:
    names = list(names)
    rest = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(map(str, names[:number])) + rest
