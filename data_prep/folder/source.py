"""What one's own folder holds: images with their class, and their split and group where these are told.

Three forms are understood. ``<folder>/<class>/…``: a class is a folder, its images lie anywhere below.
``<folder>/{train,val,test}/<class>/…``: the same with splits of one's own. A CSV with the columns path and
class, and, if wanted, group and split; without a class, it adds groups to the images of a folder.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from data_prep import synthetic
from data_prep.folder import tables
from data_prep.isic.tree import Tree
from data_prep.splits import SPLITS
from hml_core.datasets import trees
from hml_core.datasets.trees import shown, some
from hml_core.errors import DataError


@dataclass(frozen=True, eq=False)
class Source:
    """The images of a folder.

    Parameters
    ----------
    root : Path
    records : DataFrame
        A row for each image, in order of ``id`` (its path without the suffix, as it can be printed):
        ``id``, ``class``, ``group`` (empty: unknown), ``split`` (empty: not told), ``path``.
    left_out : tuple of str
        What lies there and is not used, by kind and name.
    notes : tuple of str
        What its owner should know, in sentences.
    synthetic : bool
    """

    root: Path
    records: pd.DataFrame
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that images lie in."""
        return tuple(sorted({path.parent for path in self.records["path"]}))


def read(root: str | Path, csv: str | Path | None = None) -> Source:
    """The images of a folder, or those that a CSV lists; ``root`` may be the CSV itself.

    Raises
    ------
    DataError
        Where there is no image, fewer than two classes, two that differ in case alone, or a class in
        validation or test that training does not have; for splits beside classes, or in their place under
        other names; for a CSV that is not of this form.
    """
    root = Path(root)
    if csv is None and root.suffix.lower() == ".csv" and root.is_file():
        root, csv = root.parent, root
    if not root.is_dir():
        raise DataError(
            f"Expected a folder of images, or a CSV that lists them, got '{shown(root)}'."
        )
    tree = Tree(root, links_within=False)
    files, left_out, notes = _files(tree)
    table = None if csv is None else tables.read(Path(csv))
    if table is not None and "class" in table:
        records, unlisted = _listed(table, files, root, Path(csv))
        notes += _elsewhere(records, files, root, Path(csv))
        if unlisted:
            left_out["images that the CSV does not list"] = unlisted
    else:
        records = _by_folder(files, root, left_out)
        if table is not None:
            notes += _add_groups(records, table, files, root, Path(csv))
    if table is not None and "group" in table:
        notes += _groups(records)
    _require_fit(records, root, left_out)
    records = pd.DataFrame(records.values(), columns=["id", "class", "group", "split", "path"])
    records = records.sort_values("id", ignore_index=True)
    if twice := records["id"][records["id"].duplicated()].tolist():
        these = [path.relative_to(root) for path in records["path"][records["id"] == twice[0]]]
        raise DataError(
            f"Images in '{shown(root)}' have one name where it is printed: {some(twice)}. Of the first "
            f"these are {some(these)}: rename all but one, or remove them if they are the same."
        )
    made_up = (root / synthetic.MARK).exists()
    return Source(root, records, tuple(trees.described(left_out)), tuple(notes), made_up)


Files = dict[str, Path]  # by their path relative to the root, with "/"
Records = dict[str, dict]  # the same, with the columns of a record


def _files(tree: Tree) -> tuple[Files, defaultdict[str, list[str]], list[str]]:
    files: Files = {}
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    outside = []
    real_root = os.path.realpath(tree.root)
    for folder, names in tree.folders.items():
        here = folder.relative_to(tree.root).as_posix()
        for name in names:
            relative = name if here == "." else f"{here}/{name}"
            if not trees.is_image(name):
                if name not in (synthetic.MARK,) and not name.lower().endswith(
                    (".csv", ".txt", ".md")
                ):
                    kind = os.path.splitext(name)[1].lower() or "files without a suffix"
                    left_out[kind].append(relative)
                continue
            files[relative] = folder / name
            if not _is_within(folder / name, real_root):
                outside.append(relative)
    notes = []
    if outside:
        notes.append(
            f"{len(outside):,} images are links to files outside of '{shown(tree.root)}' "
            f"({some(outside)}): they are read where they lie."
        )
    return files, left_out, notes


# By folder --------------------------------------------------------------------------------------


def _by_folder(files: Files, root: Path, left_out: defaultdict[str, list[str]]) -> Records:
    """Class, and split where there are any, of each image by the folders that it lies in."""
    parts = {name: PurePosixPath(name).parts for name in files}
    tops = sorted({part[0] for part in parts.values() if len(part) > 1})
    told = {
        top: tables.SPLIT_NAMES[top.lower()] for top in tops if top.lower() in tables.SPLIT_NAMES
    }
    has_splits = "train" in told.values()
    if has_splits and (others := [top for top in tops if top not in told]):
        raise DataError(
            f"'{shown(root)}' holds the splits {some(told)} and, beside them, {some(others)}: expected "
            "either splits, each with a folder for each class, or classes."
        )
    if len(set(told.values())) < len(told) and has_splits:
        raise DataError(
            f"Two folders in '{shown(root)}' are one split: {some(told)}. Put their images together."
        )
    if not has_splits:
        _require_classes(tops, parts.values(), root)
    depth = 1 if has_splits else 0
    # Before records are made, which have the printed names.
    trees.require_printed_apart(
        (part[depth] for part in parts.values() if len(part) >= depth + 2), root
    )
    records = {}
    for name, part in parts.items():
        if len(part) < depth + 2:
            left_out["images in no class's folder"].append(name)
            continue
        split = told[part[0]] if has_splits else ""
        records[name] = _record(name, files, part[depth], "", split)
    empty = sorted(
        _class_folders(root, tops if has_splits else None)
        - {"/".join(parts[name][: depth + 1]) for name in records}
    )
    if empty:
        left_out["class folders without an image"] = empty
    return records


def _require_classes(tops: list[str], images: Iterable[Sequence[str]], root: Path) -> None:
    """Refuse folders that are splits under other names (``training_set``, ``seg_test``) for classes."""
    like = {top: split for top in tops if (split := tables.split_like(top))}
    are_all = len(like) == len(tops)
    deep = {part[0] for part in images if len(part) > 2}
    if len(set(like.values())) > 1 and (are_all or {*like} <= deep):
        raise DataError(
            f"'{shown(root)}' holds {some(like)}, which are named like splits, not like classes: expected "
            "train, val and test, each with a folder for each class, or a CSV with the columns path and "
            "class."
        )


def _class_folders(root: Path, splits: list[str] | None) -> set[str]:
    """What looks like a class: the folders in the root, or in its splits."""
    places = [""] if splits is None else [f"{split}/" for split in splits]
    return {
        f"{place}{entry.name}"
        for place in places
        for entry in trees.entries(root / place)
        if trees.is_folder(entry)
    }


def _record(name: str, files: Files, class_name: str, group: str, split: str) -> dict:
    return {
        "id": shown(os.path.splitext(name)[0]),
        "class": shown(class_name),
        "group": group,
        "split": split,
        "path": files[name],
        "name": name,
    }


# By CSV -----------------------------------------------------------------------------------------


def _listed(table: pd.DataFrame, files: Files, root: Path, csv: Path) -> tuple[Records, list[str]]:
    """The rows of a CSV that has classes, and the images that it does not list."""
    finder = tables.finder(files)
    known = dict(files)
    records: Records = {}
    for row in table.to_dict("records"):
        name = tables.name_of(row["path"], root, finder, csv)
        if name is None:  # reported by name when it cannot be read
            name = row["path"].replace("\\", "/")
            known[name] = root / name
        if name in records:
            raise DataError(f"'{shown(csv)}' lists {name!r} twice, once as {row['path']!r}.")
        records[name] = _record(
            name, known, row["class"], row.get("group", ""), row.get("split", "")
        )
    if not set(records) & set(files):
        first = table["path"].iloc[0] if len(table) else "nothing"
        raise DataError(
            f"None of the {len(table):,} images that '{shown(csv)}' lists, such as {first!r}, is below "
            f"'{shown(root)}'."
        )
    return records, sorted(set(files) - set(records))


def _elsewhere(records: Records, files: Files, root: Path, csv: Path) -> list[str]:
    """A sentence about images that a CSV names and that lie beside the folder."""
    real_root = os.path.realpath(root)
    outside = [
        name
        for name, record in records.items()
        if name not in files and not _is_within(record["path"], real_root)
    ]
    if not outside:
        return []
    return [
        f"{len(outside):,} images that {csv.name} lists lie outside of '{shown(root)}' ({some(outside)}): "
        "they are read where they lie."
    ]


def _is_within(path: Path, real_root: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), real_root]) == real_root


def _add_groups(
    records: Records, table: pd.DataFrame, files: Files, root: Path, csv: Path
) -> list[str]:
    """Groups (and splits) of a CSV for the images of a folder; what did not fit, in sentences."""
    finder = tables.finder(files)
    unknown = []
    for row in table.to_dict("records"):
        name = tables.name_of(row["path"], root, finder, csv)
        if name not in records:
            unknown.append(row["path"])
            continue
        records[name]["group"] = row["group"]
        if row.get("split"):
            records[name]["split"] = row["split"]
    if len(unknown) == len(table):
        raise DataError(f"None of the images in '{shown(csv)}' is there: {some(unknown)}.")
    if unknown:
        return [
            f"{len(unknown):,} rows of {csv.name} are about images that are not there: {some(unknown)}."
        ]
    return []


def _groups(records: Records) -> list[str]:
    """Of how many images a table of groups tells one."""
    without = sum(not record["group"] for record in records.values())
    if not without:
        return []
    return [
        f"The group of {without:,} of the {len(records):,} images is not known: each counts as a group of "
        "its own."
    ]


# What must hold ---------------------------------------------------------------------------------


def _require_fit(records: Records, root: Path, left_out: dict[str, list[str]]) -> None:
    if not records:
        but = f"; there are {'; '.join(trees.described(left_out))}" if left_out else ""
        raise DataError(
            f"There is no image in '{shown(root)}'/<class>/: expected a folder for each class with images "
            f"({', '.join(trees.opener.FORMATS)}) in it, at any depth, or a CSV with path and class{but}."
        )
    classes = {record["class"] for record in records.values()}
    if len(classes) == 1 and (below := _classes_below(records)):
        only = next(iter(classes))
        raise DataError(
            f"Expected two classes or more in '{shown(root)}', a folder for each, found one, {only!r}, "
            f"with images in {some(below)}: if these are the classes, give '{shown(root / only)}'."
        )
    trees.require_classes(classes, root)
    _unique_ids(records)
    splits = defaultdict(set)
    for record in records.values():
        splits[record["split"]].add(record["class"])
    if set(splits) == {""}:
        return
    if "" in splits:
        number = sum(not record["split"] for record in records.values())
        raise DataError(
            f"{number:,} images have no split, and others have one: expected all or none."
        )
    for split in SPLITS[1:]:
        if extra := sorted(splits[split] - splits["train"]):
            raise DataError(
                f"No training image of the class(es) {some(extra)}, which {split} has: put some into "
                "train, or take these classes out."
            )


def _classes_below(records: Records) -> list[str]:
    """The folders in the only class's folder, where every image lies in one of two or more of them."""
    parts = [PurePosixPath(record["name"]).parts for record in records.values()]
    below = {part[1] for part in parts if len(part) > 2}
    is_split = any(part[0].lower() in tables.SPLIT_NAMES for part in parts)
    return sorted(below) if len(below) > 1 and not is_split and min(map(len, parts)) > 2 else []


def _unique_ids(records: Records) -> None:
    """Images that differ in their suffix alone keep it in their id."""
    number = Counter(record["id"].lower() for record in records.values())
    for record in records.values():
        if number[record["id"].lower()] > 1:
            record["id"] = shown(record["name"])
