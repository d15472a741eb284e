"""What iNaturalist 2018 ships: ``train2018.json``, ``val2018.json`` and a tree of JPEGs.

The images lie in ``train_val2018/<supercategory>/<category id>/<hash>.jpg``; torchvision's ``INaturalist``
calls the same folder ``2018``. Both names are understood, and so are the tarballs as they are downloaded.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from data_prep import synthetic
from data_prep.inaturalist import tarball as tarball_reader
from hml_core.errors import DataError
from hml_core.system import files

NAME = "inat2018"
ANNOTATIONS = {"train": "train2018.json", "validation": "val2018.json"}
FOLDERS = ("train_val2018", "2018")
TARBALLS = (
    "train_val2018.tar.gz",
    "train_val2018.tar",
    "2018.tgz",
)  # the last is torchvision's name
SAMPLE = 200  # images that are looked for before a folder is believed
LONGEST = 200  # characters of what was found, in a message
ADDRESS = "https://github.com/visipedia/inat_comp/tree/master/2018"


@dataclass(frozen=True, eq=False)
class Archive:
    """The images of both splits and their categories.

    Parameters
    ----------
    records : DataFrame
        A row for each image, in the order of the JSONs: ``id`` (split and number, such as
        "train-1234"), ``split``, ``category`` (int), ``supercategory``, ``name`` (the path in the
        archive, below its first folder), ``path`` (where the file should be, once unpacked).
    categories : DataFrame
        A row for each category in the order of the ids: ``category``, ``name``, ``supercategory``.
    root : Path
        The folder of all of it.
    synthetic : bool
    tarball : Path, optional
        What the images are in, where they are not unpacked.
    """

    records: pd.DataFrame
    categories: pd.DataFrame
    root: Path
    synthetic: bool = False
    tarball: Path | None = None


def read(root: str | Path) -> Archive:
    """The archive whose files lie in ``root``.

    An image that is listed but not there is no error here: preparation reports it by name.

    Raises
    ------
    DataError
        Where a file is missing (the message says what to download), or a JSON is not what the
        challenge ships: unknown or repeated ids, an image without or with several annotations, a
        path that leaves the archive, splits that disagree on the categories, a category without any
        training image.
    """
    root = Path(root)
    folder = next((root / name for name in FOLDERS if (root / name).is_dir()), None)
    tarball = None
    if folder is None:
        tarball = next((root / name for name in TARBALLS if (root / name).is_file()), None)
    missing = [name for name in ANNOTATIONS.values() if _annotations(root, name) is None]
    if folder is None and tarball is None:
        missing.insert(0, f"{TARBALLS[0]} (or {FOLDERS[0]}/)")
    if missing:
        raise DataError(
            f"Not found in {str(root)!r}: {', '.join(missing)}. Download train_val2018.tar.gz (120 GB), "
            f"train2018.json.tar.gz and val2018.json.tar.gz (links: {ADDRESS}) into that folder; they "
            "need not be unpacked."
        )
    parts, known = [], None
    for split, name in ANNOTATIONS.items():
        content = _read_json(_annotations(root, name), name)
        categories = _categories(content, root / name)
        if known is not None and not categories.equals(known):
            raise DataError(f"{str(root / name)!r} has other categories than the training split.")
        known = categories
        parts.append(_images(content, categories, root / name, split))
    records = pd.concat(parts, ignore_index=True)
    if (twice := records["name"].duplicated()).any():
        raise DataError(f"The image {records['name'][twice].iloc[0]!r} is listed twice.")
    without = ~known["category"].isin(records["category"][records["split"] == "train"])
    if without.any():
        raise DataError(
            f"{str(root / ANNOTATIONS['train'])!r} lists no image of the category "
            f"{known['name'][without].iloc[0]!r}."
        )
    folder = root / FOLDERS[0] if folder is None else _unpacked(folder, records["name"])
    records["path"] = [folder / name for name in records["name"]]
    return Archive(records, known, root, (root / synthetic.MARK).exists(), tarball)


def _unpacked(folder: Path, names: pd.Series) -> Path:
    """``folder``, or the one of its name in it, whichever has the images of a sample."""
    sample = names.iloc[:: max(len(names) // SAMPLE, 1)]
    for candidate in (folder, folder / folder.name, *(folder / name for name in FOLDERS)):
        if any((candidate / name).is_file() for name in sample):
            return candidate
    held = sorted(path.name for path in folder.iterdir())[:3]
    raise DataError(
        f"{str(folder)!r} has none of {len(sample)} images that the annotations list, such as "
        f"{names.iloc[0]!r}: it holds {', '.join(held) or 'nothing'}."
    )


def require_tarball(archive: Archive, root: str | Path) -> Path:
    """The tarball of an archive that is not unpacked.

    Raises
    ------
    DataError
        Where there is none, whose sum could be compared.
    """
    if archive.tarball is None:
        raise DataError(
            f"The images in {str(root)!r} are unpacked: there is no tarball whose MD5 could be compared."
        )
    return archive.tarball


def _annotations(root: Path, name: str) -> Path | None:
    """A JSON, or the tarball that holds it; DataError where something else has its name."""
    places = (root / name, root / f"{name}.tar.gz")
    there = [path for path in places if os.path.lexists(path)]
    found = next((path for path in there if path.is_file()), None)
    if there and found is None:
        raise DataError(f"{str(there[0])!r} is no regular file. Expected the annotations there.")
    return found


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.name == name:
            data = files.read_bytes(path, tarball_reader.LARGEST_ANNOTATIONS)
        else:
            data = tarball_reader.read_single(path, name)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    try:
        content = json.loads(data.decode("utf-8-sig"))
        if not all(isinstance(content[key], list) for key in ("images", "annotations")):
            raise TypeError("`images` and `annotations` must be lists")
        if not isinstance(content["categories"], list) or not content["categories"]:
            raise TypeError("`categories` must be a list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{str(path)!r} is not an annotation file of iNaturalist 2018: {_reason(error)}"
        ) from error
    return content


def _categories(content: dict[str, Any], path: Path) -> pd.DataFrame:
    frame = _frame(content["categories"], ("id", "name", "supercategory"), path, "category")
    frame = frame.rename(columns={"id": "category"}).sort_values("category", ignore_index=True)
    # The ids are the class numbers of every published model: 0 … C−1, without a gap.
    if frame["category"].tolist() != list(range(len(frame))):
        raise DataError(f"{str(path)!r}: expected category ids 0 … {len(frame) - 1}, each once.")
    return frame


def _images(
    content: dict[str, Any], categories: pd.DataFrame, path: Path, split: str
) -> pd.DataFrame:
    images = _frame(content["images"], ("id", "file_name"), path, "image")
    labels = _frame(content["annotations"], ("image_id", "category_id"), path, "annotation")
    if not len(images):
        raise DataError(f"{str(path)!r} lists no image.")
    if (twice := images["id"].duplicated()).any():
        raise DataError(
            f"{str(path)!r}: the image id {images['id'][twice].iloc[0]} is there twice."
        )
    if (twice := labels["image_id"].duplicated()).any():
        raise DataError(
            f"{str(path)!r}: the image {labels['image_id'][twice].iloc[0]} has several categories."
        )
    outside = ~labels["category_id"].isin(categories["category"])
    if outside.any():
        raise DataError(
            f"{str(path)!r}: the category id {labels['category_id'][outside].iloc[0]} is out of range: "
            f"expected 0 … {len(categories) - 1}."
        )
    merged = images.merge(labels, left_on="id", right_on="image_id", how="left")
    if (without := merged["category_id"].isna()).any():
        raise DataError(
            f"{str(path)!r}: the image {merged['id'][without].iloc[0]} has no category."
        )
    category = merged["category_id"].astype(int)
    return pd.DataFrame(
        {
            "id": [f"{split}-{number}" for number in merged["id"]],
            "split": split,
            "category": category,
            "supercategory": categories["supercategory"].to_numpy()[category],
            "name": [_below_the_folder(name, path) for name in merged["file_name"]],
        }
    )


def _frame(rows: list[Any], columns: tuple[str, ...], path: Path, what: str) -> pd.DataFrame:
    """Some columns of a list of objects, whole numbers where they end in "id"."""
    try:
        frame = pd.DataFrame(
            {column: [row[column] for row in rows] for column in columns}, columns=list(columns)
        )
        for column in columns:
            wanted = int if column.endswith("id") else str
            wrong = [v for v in frame[column] if not isinstance(v, wanted) or isinstance(v, bool)]
            if wrong:
                raise TypeError(f"`{column}` is {_short(wrong[0])}")
            odd = [text for text in frame[column] if wanted is str and not _can_be_written(text)]
            if odd:
                raise TypeError(
                    f"`{column}` is {_short(odd[0])}, which no file system or table holds"
                )
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{str(path)!r}: {'a' if what == 'category' else 'an'} {what} is not as expected: "
            f"{_reason(error)}"
        ) from error
    return frame


def _can_be_written(text: str) -> bool:
    """Whether a string has neither a NUL nor half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _reason(error: Exception) -> str:
    """In words, never with the whole file that some errors hold."""
    text = str(error)
    return f"{type(error).__name__}: {text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _below_the_folder(name: str, path: Path) -> str:
    """The path of an image below the archive's folder; never outside of it."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or parts[0] not in FOLDERS or ".." in parts or "\\" in name:
        raise DataError(f"{str(path)!r}: {_short(name)} is no path in {FOLDERS[0]}/.")
    return str(PurePosixPath(*parts[1:]))
