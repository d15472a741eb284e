"""What the ISIC challenges ship: a folder of JPEGs, one-hot ground truth, lesion ids.

The files are looked for anywhere below the given folder, under the names that they have in the official
archives, so that it does not matter how those were unpacked (:mod:`data_prep.isic.tree`). Every join says
how much of it fits: how many images were found, and of how many the lesion is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep import synthetic
from data_prep.isic.layouts import ARCHIVES, Layout, Part
from data_prep.isic.tree import UNLISTED, Places, Tree, without_suffix
from data_prep.splits import UNKNOWN
from hml_core.datasets.trees import shown
from hml_core.errors import DataError
from hml_core.system import files, tables

ID = r"\w[\w-]*"


FEWEST_ROWS = 0.5  # of the images: a lesion table that knows fewer is another archive's
FEWEST_LESIONS = 0.1  # of the images: with fewer lesions known, there is nothing to split by
MOST_KINDS = 5  # of files that are left out, in a sentence
LARGEST_LESION = 100  # images: no lesion was photographed as often


@dataclass(frozen=True, eq=False)
class Archive:
    """A challenge's training images and what is known of them.

    Parameters
    ----------
    name : str
    records : DataFrame
        A row for each image, in order of ``id``: ``id``, ``class``, ``lesion_id`` (empty where unknown),
        ``path``.
    official : DataFrame
        The same for the official validation and test sets, as far as they are there, with their name in
        ``split``; lesion ids are those of another table, and no name of ``records``.
    root : Path
        The folder of all of it.
    folders : tuple of Path
        Those that images were found in.
    left_out : mapping
        Files beside the images that are not used, and how many.
    notes : tuple of str
        What a user should know of the joins, in sentences.
    synthetic : bool
    classes : tuple of str
        Columns of the ground truth that have training images.
    part : mapping
        Where these are a part of the challenge's training set alone: ``name``, ``title``, ``listed``
        (images of each class in the ground truth, the part or not) and ``dataset``.
    """

    name: str
    records: pd.DataFrame
    official: pd.DataFrame
    root: Path
    folders: tuple[Path, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    classes: tuple[str, ...] = ()
    part: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unlisted(self) -> int:
        """Images that the ground truth does not name."""
        return self.left_out.get(UNLISTED, 0)


def read(name: str, root: str | Path) -> Archive:
    """The archive of challenge ``name`` ("isic2018" or "isic2019") below ``root``.

    A listed image that is missing is no error here: its ``path`` is where it should be, and preparation
    reports it by name. Where not one folder of the challenge's images is there, but one of a part of
    them, the archive is that part, and says so.

    Raises
    ------
    DataError
        Where a file is missing (the message says what to download and where to put it) or none of the
        listed images is there; where a CSV is not what the challenge ships, there are two that differ,
        or that of the lesions is about other images.
    """
    if name not in ARCHIVES:
        raise DataError(f"Expected the archive to be one of {', '.join(ARCHIVES)}, got {name!r}.")
    root, layout = Path(root), ARCHIVES[name]
    tree = Tree(root, layout.folders)
    metadata = next(filter(None, map(tree.table, layout.metadata)), None)
    tables = (layout.ground_truth, layout.lesions)
    paths = {file: tree.table(file) or metadata for file in tables}
    _require_all(root, tree, paths, layout)
    path = paths[layout.ground_truth]
    truth = _read_metadata(path, layout) if path == metadata else _read_truth(path, layout)
    lesions = _read_lesions(paths[layout.lesions])
    _require_fit(truth["id"], lesions, paths[layout.lesions])
    records = truth.assign(lesion_id=_joined(truth["id"], lesions))
    folders, part = (layout.images, *layout.also), _part(tree, layout)
    described: dict[str, Any] = {}
    if part is not None:
        folders = layout.parts[part].images
        records, described = _of_part(records, part, layout.parts[part], paths[layout.lesions])
    places = tree.images(folders, records["id"])
    records = records.assign(path=places.paths).sort_values("id", ignore_index=True)
    notes = [
        _said(described, len(records)),
        _missing(places, len(records), folders),
        _known(records),
    ]
    official, more, official_folders = _official(tree, layout, records)
    present = [column for column in layout.classes if (records["class"] == column).any()]
    return Archive(
        name,
        records,
        official,
        root,
        tuple(dict.fromkeys((*places.folders, *official_folders))),
        places.others,
        tuple(filter(None, (*notes, *more))),
        (root / synthetic.MARK).exists(),
        tuple(present),
        described,
    )


def _part(tree: Tree, layout: Layout) -> str | None:
    """The part that is there alone; None where the challenge's own folder is."""
    if tree.has_images((layout.images, *layout.also)):
        return None
    return next((name for name, part in layout.parts.items() if tree.has_images(part.images)), None)


def _of_part(
    records: pd.DataFrame, name: str, part: Part, lesions: Path
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of a part, which their lesion ids tell, and what is to be said of it."""
    belongs = records["lesion_id"].str.upper().str.startswith(part.lesions)
    if not belongs.any():
        raise DataError(
            f"There are only images of the {part.title}, and {str(lesions)!r} has no lesion of it: "
            f"expected ids that begin with {part.lesions!r}."
        )
    listed = {column: int(number) for column, number in records["class"].value_counts().items()}
    described = {"name": name, "title": part.title, "listed": listed, "dataset": part.dataset}
    return records[belongs], described


def _said(part: Mapping[str, Any], images: int) -> str:
    if not part:
        return ""
    return (
        f"{part['title']}, {images:,} of {sum(part['listed'].values()):,} images: the others are not "
        f"there. Train on it as the data set {part['dataset']!r}."
    )


def _require_all(root: Path, tree: Tree, tables: Mapping[str, Path | None], layout: Layout) -> None:
    missing = {name: f"no file {name!r}" for name, path in tables.items() if path is None}
    parts = [folder for part in layout.parts.values() for folder in part.images]
    if not tree.has_images((layout.images, *layout.also, *parts)):
        missing = {layout.images: f"no folder {layout.images!r} with images", **missing}
    if missing:
        alike = sorted({shown(name) for one in missing for name in tree.alike(one)})
        there = f" What is there, {_some(alike)}, is to be unpacked or renamed." if alike else ""
        alone = "".join(
            f" {part.images[0]} in the place of the images gives the {part.title}."
            for part in layout.parts.values()
        )
        if layout.metadata:
            alone += f" {layout.metadata[0]} will do in the place of the CSV files."
        files = f"{layout.images}.zip, {layout.ground_truth} and {layout.lesions}"
        raise DataError(
            f"There is {', '.join(missing.values())} below {str(root)!r}. Download {files} (the CSV files "
            f"may come in .zip archives) from {layout.address}, unpack them there and give that folder as "
            f"`data_root`.{alone}{there}"
        )


def _missing(places: Places, listed: int, names: Sequence[str]) -> str:
    if not places.missing:
        return ""
    return f"{places.missing} of the {listed} listed images of {names[0]} are not there."


def _known(records: pd.DataFrame) -> str:
    known = records["lesion_id"] != ""
    notes = []
    if not known.all():
        notes.append(
            f"The lesion of {(~known).sum()} of the {len(records)} images is unknown: each counts as a "
            "lesion of its own, which may be in two splits."
        )
    if not records["lesion_id"][known].duplicated().any():
        notes.append(
            "No two images show one lesion, by the lesion table: to split by lesion is to split image by "
            "image."
        )
    return " ".join(notes)


def _official(
    tree: Tree, layout: Layout, records: pd.DataFrame
) -> tuple[pd.DataFrame, list[str], list[Path]]:
    """The further sets that are there: rows, notes, folders."""
    parts, notes, folders = [records.head(0).assign(split="")], [], []
    path = tree.table(layout.more_lesions) if layout.more_lesions else None
    lesions = None if path is None else _read_lesions(path)
    for split, (folder, table) in layout.official.items():
        truth = tree.table(table)
        if truth is None:
            if tree.has_images([folder]):
                notes.append(f"The images in {folder} are left out: there is no {table}.")
            continue
        if not tree.has_images([folder]):
            notes.append(f"{table} is left out: there is no folder {folder} with images.")
            continue
        part = _read_truth(truth, layout)
        places = tree.images([folder], part["id"])
        known = "" if lesions is None else _joined(part["id"], lesions)
        part = part.assign(lesion_id=known, path=places.paths, split=split)
        parts.append(part.sort_values("id"))
        notes.append(_missing(places, len(part), [folder]))
        if places.others:
            notes.append(f"Left out in {folder}: {listed_kinds(places.others)}.")
        folders += places.folders
    official = pd.concat(parts, ignore_index=True)
    both = official["id"][official["id"].isin(records["id"]) | official["id"].duplicated()]
    if len(both):
        raise DataError(
            f"{len(both)} image(s) are in two sets of the challenge: {_some(both)}. Their tables were "
            "mixed up."
        )
    if lesions is not None and len(official):
        trained = set(_joined(records["id"], lesions)) - {""}
        shared = official["lesion_id"].isin(trained).sum()
        if shared:
            notes.append(f"{shared} official images show lesions of the training set.")
    return official, notes, folders


def listed_kinds(kinds: Mapping[str, int]) -> str:
    """``"3 .jp2 files, 2 further copies of an image"``; of many kinds the most frequent ones.

    >>> listed_kinds({f".{letter} files": 1 for letter in "abcdefg"})
    '1 .a files, 1 .b files, 1 .c files, 1 .d files, 1 .e files, 2 of 2 other kinds'
    """
    ranked = sorted(kinds.items(), key=lambda kind: -kind[1])
    texts = [f"{number} {kind}" for kind, number in ranked[:MOST_KINDS]]
    if rest := ranked[MOST_KINDS:]:
        texts.append(f"{sum(number for _, number in rest)} of {len(rest)} other kinds")
    return ", ".join(texts)


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame = tables.read(path)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"Cannot read {str(path)!r}: {files.reason(error)}") from error
    if "image" not in frame:
        frame = frame.rename(columns={"image_id": "image"})
    if missing := sorted({*columns} - {*frame.columns}):
        raise DataError(
            f"{str(path)!r} lacks the column(s) {', '.join(missing)}: it has "
            f"{', '.join(frame.columns)}."
        )
    if twice := [name for name in columns if tables.several(frame, name)]:
        raise DataError(f"{str(path)!r} has several columns {', '.join(twice)}. Keep one.")
    frame = frame[[*columns]]
    if (frame["image"] == "").any():
        raise DataError(f"{str(path)!r} has rows without an image.")
    frame = frame.assign(image=frame["image"].map(without_suffix))
    odd = frame["image"][~frame["image"].str.fullmatch(ID)]
    if len(odd):  # an id becomes the name of a file
        raise DataError(f"{str(path)!r} has images whose id is no name: {_some(map(repr, odd))}.")
    twice = frame["image"][frame["image"].str.lower().duplicated()].unique()
    if len(twice):
        raise DataError(f"{str(path)!r} lists images twice: {_some(twice)}.")
    return frame


def _read_truth(path: Path, layout: Layout) -> pd.DataFrame:
    frame = _read_csv(path, ["image", *layout.classes])
    if not len(frame):
        raise DataError(f"{str(path)!r} lists no image.")
    try:
        # (1,0: where semicolons stand between columns.)
        numbers = frame[list(layout.classes)].replace(",", ".", regex=True)
        values = numbers.to_numpy(dtype=float)
    except ValueError as error:
        raise DataError(f"{str(path)!r} has cells that are no numbers: {error}") from error
    wrong = ~(np.isin(values, (0, 1)).all(axis=1) & (values.sum(axis=1) == 1))
    if wrong.any():
        raise DataError(
            f"{str(path)!r} is not one-hot for {wrong.sum()} image(s): {_some(frame['image'][wrong])}."
        )
    names = np.array(list(layout.classes))
    return pd.DataFrame({"id": frame["image"], "class": names[values.argmax(axis=1)]})


def _read_metadata(path: Path, layout: Layout) -> pd.DataFrame:
    """Classes from HAM10000's own table, where they are words in small letters."""
    frame = _read_csv(path, ["image", "lesion_id", "dx"])
    if not len(frame):
        raise DataError(f"{str(path)!r} lists no image.")
    names = frame["dx"].str.upper()
    if len(wrong := names[~names.isin(layout.classes)].unique()):
        raise DataError(
            f"{str(path)!r} has diagnoses that are none of {', '.join(layout.classes)}: {_some(wrong)}."
        )
    return pd.DataFrame({"id": frame["image"], "class": names})


def _read_lesions(path: Path) -> pd.Series:
    """The lesion of each image (its id in small letters); empty where it is not known."""
    frame = _read_csv(path, ["image", "lesion_id"])
    lesion = frame["lesion_id"]
    lesion = lesion.mask(lesion.str.lower().isin(UNKNOWN), "")
    # One spelling for each: the first.
    lesion = lesion.groupby(lesion.str.lower()).transform("first")
    sizes = lesion[lesion != ""].value_counts()
    if len(sizes) and sizes.iloc[0] > LARGEST_LESION:
        raise DataError(
            f"{str(path)!r} gives {sizes.iloc[0]} images the lesion {sizes.index[0]!r}: expected the id "
            f"of one lesion, of at most {LARGEST_LESION} images, or an empty cell where it is unknown."
        )
    return lesion.set_axis(frame["image"].str.lower())


def _joined(images: pd.Series, lesions: pd.Series) -> pd.Series:
    known = lesions.to_dict()
    return pd.Series([known.get(image, "") for image in images.str.lower()], images.index, str)


def _require_fit(images: pd.Series, lesions: pd.Series, path: Path) -> None:
    rows = images.str.lower().isin(lesions.index).sum()
    known = (_joined(images, lesions) != "").sum()
    if rows < FEWEST_ROWS * len(images):
        raise DataError(
            f"{str(path)!r} has {len(lesions)} rows, of which {rows} are about the {len(images)} images "
            "of the ground truth: it is not these images' table, and no split by lesion can be made."
        )
    if known < FEWEST_LESIONS * len(images):
        raise DataError(
            f"{str(path)!r} tells the lesion of {known} of {len(images)} images: expected that of most, "
            "as the images are split by lesion."
        )


def _some(names, number: int = 5) -> str:
    names = list(names)
    rest = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(map(str, names[:number])) + rest
