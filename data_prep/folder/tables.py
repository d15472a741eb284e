"""A CSV about one's own images: path, class, group, split, under the names that people give them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from data_prep.splits import UNKNOWN
from hml_core.datasets.trees import shown, some
from hml_core.errors import DataError
from hml_core.system import files, tables

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_SPLIT = re.compile(f"({'|'.join(SPLIT_NAMES)})(set|sets|data|images|split)?")
COLUMNS = {  # of a CSV, with the names that people give them
    "path": ("path", "file", "filename", "image", "image_path", "image_id"),
    "class": ("class", "label", "category"),
    "group": ("group", "patient", "patient_id", "lesion", "lesion_id", "sequence", "subject"),
    "split": ("split",),
}


def split_like(folder: str) -> str | None:
    """The split that a word in the name of a folder means, if one does.

    >>> split_like("seg_train"), split_like("Testset 2"), split_like("trainer")
    ('train', 'test', None)
    """
    for word in re.findall("[a-z]+", folder.lower()):
        if found := _SPLIT.fullmatch(word):
            return SPLIT_NAMES[found[1]]
    return None


def read(path: Path) -> pd.DataFrame:
    """A CSV with the columns path and, as far as they are there, class, group and split, as text; a group
    that is not known ("unknown", "-" and the like) is empty.

    Raises
    ------
    DataError
        Where it cannot be read, lacks a column, has two for one, an empty cell of path or class, an image
        twice or another split.
    """
    try:
        table = tables.read(path)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"Cannot read '{shown(path)}': {files.reason(error)}") from error
    given = [column.lower() for column in table]
    chosen = {}
    for column, names in COLUMNS.items():
        present = [number for number, name in enumerate(given) if name in names]
        if len(present) > 1:
            raise DataError(
                f"'{shown(path)}' has several columns for the {column}: "
                f"{', '.join(given[number] for number in present)}. Keep one."
            )
        if present:
            chosen[column] = table.iloc[:, present[0]]
    if "path" not in chosen or not {"class", "group"} & set(chosen):
        raise DataError(
            f"Expected '{shown(path)}' to have a column path and one of class and group, got "
            f"{', '.join(table.columns)}."
        )
    if "group" in chosen:
        unknown = chosen["group"].str.lower().isin(UNKNOWN)
        chosen["group"] = chosen["group"].mask(unknown, "")
    table = pd.DataFrame(chosen)
    for column in table:
        if (long := table[column].str.len() > tables.LONGEST_NAME).any():
            row = long.idxmax() + 2
            raise DataError(
                f"'{shown(path)}' has a {column} of more than {tables.LONGEST_NAME:,} characters in line "
                f"{row}."
            )
    for column in ("path", "class"):
        if column in table and (empty := (table[column] == "")).any():
            row = empty.idxmax() + 2
            raise DataError(f"'{shown(path)}' has no {column} in line {row}.")
    if twice := table["path"][table["path"].duplicated()].tolist():
        raise DataError(f"'{shown(path)}' lists images twice: {some(twice)}.")
    if "split" in table:
        wrong = sorted(set(table["split"].str.lower()) - {*SPLIT_NAMES, ""})
        if wrong:
            raise DataError(
                f"Expected the splits in '{shown(path)}' to be train, validation or test, got "
                f"{some(wrong)}."
            )
        table["split"] = table["split"].str.lower().map({**SPLIT_NAMES, "": ""})
    return table


def finder(names: Iterable[str]) -> dict[str, list[str]]:
    """Images by all that a CSV may call them: path, path without suffix, name, name without suffix."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        base = PurePosixPath(name).name
        for key in {name, os.path.splitext(name)[0], base, os.path.splitext(base)[0]}:
            found[key].append(name)
    return found


def name_of(given: str, root: Path, known: Mapping[str, list[str]], csv: Path) -> str | None:
    """The image that a CSV means; None where it is not there."""
    text = given.replace("\\", "/")
    leads_out = ".." in text.split("/")  # perhaps back into the folder
    if os.path.isabs(given) or leads_out:
        text = os.path.relpath(os.path.join(root, text), root).replace(os.sep, "/")
    text = str(PurePosixPath(text))
    meant = known.get(text, [])
    if text in meant:
        return text
    if len(meant) > 1:
        raise DataError(
            f"{given!r} in '{shown(csv)}' may be {some(meant)}: expected its path from '{shown(root)}' on."
        )
    return meant[0] if meant else None
