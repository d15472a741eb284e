"""All images of one's own folder: in parallel, with progress, and going on where an earlier call stopped.

``<output>/`` gets ``images/<class>/…``, ``manifest.csv`` (a row for each image), ``rejected.csv`` (images
that are missing or cannot be used, and why), ``duplicates.csv`` and, last, ``prepared.json`` (options,
classes, normalisation, what was found), sealed. While work goes on, ``journal.jsonl`` holds what is done.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep import output as outputs
from data_prep.folder import duplicates
from data_prep.folder.images import Options, process
from data_prep.folder.source import Source
from data_prep.isic.images import FORMATS, normalisation
from data_prep.parallel import Journal, checked_workers, why, work_through
from data_prep.parallel import rejected as rejected_images
from data_prep.splits import SPLITS, by_group
from hml_core.datasets import folder as dataset
from hml_core.datasets import prepared
from hml_core.datasets.trees import shown, some
from hml_core.errors import ConfigError, DataError
from hml_core.system import paths

FRACTIONS = (0.7, 0.15, 0.15)
SIZES = 5  # of the originals that are told, the most frequent ones

# Of each prepared image.
NEEDED = {
    "source_sha256": str,
    "output_sha256": str,
    "width": int,
    "height": int,
    "look": str,
    "pixels": int,
    "sum": list,
    "square_sum": list,
}
TABLES = (*outputs.TABLES, "duplicates.csv")


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made.

    Attributes
    ----------
    folder : Path
    manifest : DataFrame
        ``id``, ``class``, ``group``, ``split``, ``file``, ``source_sha256`` and ``output_sha256``.
    rejected : DataFrame
        ``id``, ``file`` and ``reason``.
    duplicates : DataFrame
        See :func:`data_prep.folder.duplicates.find`.
    summary : dict
        ``images`` (class → split → number), ``sizes`` (text → number, the most frequent ones) and how
        many ``different_sizes``, ``shorter_sides`` (least, median, most pixels), ``formats`` (suffix →
        number), ``size`` (of the copies), ``left_out`` and ``notes`` (sentences).
    done_before : int
        Images that an earlier call had prepared.
    """

    folder: Path
    manifest: pd.DataFrame
    rejected: pd.DataFrame
    duplicates: pd.DataFrame
    summary: dict[str, Any]
    done_before: int


def prepare(
    source: Source,
    output: str | Path,
    options: Options | None = None,
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Make resized copies of every image, and split them where no split was told.

    Called again with the same arguments it does what is missing: images that changed since, were deleted
    or had been rejected are done again.

    Parameters
    ----------
    source : Source
        See :func:`data_prep.folder.source.read`.
    output : path
    options : Options
    seed : int
        Of the split.
    fractions : (training, validation, test)
        Of each class, whole groups (:func:`data_prep.splits.by_group`). Of a source with splits of its
        own, what it lacks is taken out of its training images.
    workers : int, optional
        Processes; default: one for each usable core.
    progress : bool

    Raises
    ------
    ConfigError, DataError
        Before anything is done: wrong options, an output folder that was made with other options, holds
        other files of these names or lies among the images. After it: fewer than two classes with images
        to train on, or no image at all for a split.
    RunError
        Where ``output`` cannot be written to, such as on a full disk.
    """
    options = options or Options()
    fractions = _checked(fractions)
    workers = checked_workers(workers)
    records = source.records.assign(file=_files(source.records, FORMATS[options.format]))
    described = {"archive": dataset.NAME, **asdict(options)}
    _require_apart(output, source)
    with outputs.made(output, records, source.root, [source.root], TABLES) as folder:
        journal = Journal(folder / outputs.JOURNAL, described, NEEDED)
        before = work_through(
            process, records, journal, options, workers, name="images", progress=progress
        )
        return _finish(source, records, folder, journal, options, seed, fractions, before)


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(fraction) for fraction in fractions)
    is_three = len(values) == 3 and all(value > 0 for value in values)  # which NaN is not
    if not is_three or not abs(sum(values) - 1) <= 1e-6:
        raise ConfigError(
            "Expected `fractions` of training, validation and test, each > 0, with the sum 1, got "
            f"{', '.join(f'{value:g}' for value in values)}."
        )
    return values


def _files(records: pd.DataFrame, suffix: str) -> list[str]:
    """A name for each copy that every system takes: of plain letters, and told apart by its id's hash."""
    folders = {name: _plain(name) for name in records["class"].unique()}
    twice = Counter(plain.lower() for plain in folders.values())
    for name, plain in folders.items():
        if twice[plain.lower()] > 1 or not plain:
            folders[name] = f"{plain}-{_hash(name)}"
    return [
        f"images/{folders[row['class']]}/{_plain(Path(row['id']).name)}-{_hash(row['id'])}{suffix}"
        for row in records[["id", "class"]].to_dict("records")
    ]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60].strip("_")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _require_apart(output: str | Path, source: Source) -> None:
    """The output is no part of the folder of the images."""
    if not str(output):
        raise ConfigError("Expected `output` to be a folder, got ''.")
    folder = Path(output)
    if paths.lies_in(folder, source.root):
        root = Path(os.path.realpath(source.root))
        raise DataError(
            f"The output '{shown(folder)}' lies in the folder of the images: give one beside it, such as "
            f"'{shown(root.with_name(root.name + '-prepared'))}'."
        )


# What was made ----------------------------------------------------------------------------------


def _finish(
    source: Source,
    records: pd.DataFrame,
    folder: Path,
    journal: Journal,
    options: Options,
    seed: int,
    fractions: tuple[float, ...],
    done_before: int,
) -> Prepared:
    entries = {image: journal.entries[image] for image in records["id"]}
    good = {image: entry for image, entry in entries.items() if "error" not in entry}
    names = records["path"].map(lambda path: shown(os.path.relpath(path, source.root)))
    rejected = rejected_images(records, journal, names)
    outputs.write_table(folder, "rejected.csv", rejected)
    manifest = records[records["id"].isin(good)].reset_index(drop=True)
    _require_two_classes(manifest, rejected, len(records))
    split, notes = _split(manifest, seed, fractions)
    manifest = manifest.assign(
        split=split,
        source_sha256=[good[image]["source_sha256"] for image in manifest["id"]],
        output_sha256=[good[image]["output_sha256"] for image in manifest["id"]],
    )
    looks = manifest.assign(look=[good[image]["look"] for image in manifest["id"]])
    repeated = duplicates.find(looks)
    manifest = manifest[[*dataset.COLUMNS, "source_sha256"]]
    counts = pd.crosstab(manifest["class"], manifest["split"]).reindex(columns=SPLITS, fill_value=0)
    lost = sorted(set(records["class"]) - set(counts.index))
    order = counts.sort_values("train", ascending=False, kind="stable").index
    counts = counts.loc[order]
    sides = sorted(min(entry["width"], entry["height"]) for entry in good.values())
    shorter_sides = [sides[0], sides[len(sides) // 2], sides[-1]]
    notes = [
        *source.notes,
        *notes,
        *_classes_without(counts, lost, rejected, folder),
        *_straddling(manifest),
        *_enlarged(shorter_sides[1], options.size),
        *duplicates.sentences(repeated),
    ]
    training = manifest["id"][manifest["split"] == "train"]
    mean, std = normalisation([good[image] for image in training])
    sizes = Counter(f"{entry['width']}×{entry['height']}" for entry in good.values())
    summary = {
        "images": {
            name: {split: int(counts.loc[name, split]) for split in SPLITS} for name in order
        },
        "different_sizes": len(sizes),
        "sizes": dict(sizes.most_common(SIZES)),
        "shorter_sides": shorter_sides,
        "formats": dict(Counter(path.suffix.lower() for path in records["path"]).most_common()),
        "left_out": list(source.left_out),
        "notes": notes,
        "size": options.size,
    }
    manifest_sha256 = outputs.write_table(folder, "manifest.csv", manifest)
    outputs.write_table(folder, "duplicates.csv", repeated)
    prepared.describe(
        folder,
        {
            "archive": dataset.NAME,
            "synthetic": source.synthetic,
            "classes": list(order),
            "options": asdict(options),
            "split": {"seed": seed, "fractions": list(fractions)},
            "mean": mean,
            "std": std,
            "summary": summary,
            "manifest_sha256": manifest_sha256,
        },
    )
    return Prepared(folder, manifest, rejected, repeated, summary, done_before)


def _require_two_classes(manifest: pd.DataFrame, rejected: pd.DataFrame, number: int) -> None:
    left = manifest["class"].nunique()
    if left < 2:
        raise DataError(
            f"Expected two classes or more with images that can be used, got {left}: {len(rejected):,} of "
            f"{number:,} images were rejected ({why(rejected)}), see rejected.csv."
        )


def _split(
    manifest: pd.DataFrame, seed: int, fractions: tuple[float, ...]
) -> tuple[pd.Series, list[str]]:
    """The split of every image, and what was taken from where, in sentences."""
    told = manifest["split"]
    present = set(told) - {""}
    groups = ("image " + manifest["id"]).where(
        manifest["group"] == "", "group " + manifest["group"]
    )
    notes = []
    if missing := [split for split in SPLITS[1:] if split not in present]:
        pool = told.isin(["", "train"])
        open_for = [
            fraction if split == "train" or split in missing else 0.0
            for split, fraction in zip(SPLITS, fractions)
        ]
        shares = [fraction / sum(open_for) for fraction in open_for]
        drawn = by_group(manifest["class"][pool], groups[pool], seed, shares)
        told = told.where(~pool, drawn.reindex(manifest.index))
        if present:
            notes.append(
                f"There was no split {' and '.join(missing)}: it was drawn from the training images."
            )
    for split in SPLITS:
        if split not in set(told):
            raise DataError(
                f"No image is left for {split}: every class has too few images or groups. Expected three "
                "or more of a class."
            )
    return told, notes


def _classes_without(
    counts: pd.DataFrame, lost: list[str], rejected: pd.DataFrame, folder: Path
) -> list[str]:
    """Sentences about classes that lack images."""
    notes = []
    if lost:
        notes.append(
            f"No image of the class(es) {some(lost)} can be used ({why(rejected)}): no class any more."
        )
    if untrained := [name for name in counts.index if not counts.loc[name, "train"]]:
        raise DataError(
            f"No training image of the class(es) {some(untrained)} is left: they were rejected (see "
            f"'{shown(folder / 'rejected.csv')}'), or are in validation and test, where their groups are. "
            "Expected images of them in train, smaller groups, or another `seed`."
        )
    single = [name for name in counts.index if counts.loc[name].sum() == 1]
    if single:
        notes.append(
            f"The class(es) {some(single)} have one image: it is trained on, and nothing tells how well."
        )
    for split in SPLITS[1:]:
        without = [name for name in counts.index if not counts.loc[name, split]]
        if without := [name for name in without if name not in single]:
            notes.append(
                f"The class(es) {some(without)} have no {split} image: too few images or groups of them."
            )
    return notes


def _enlarged(median: int, size: int) -> list[str]:
    """Pixels that no camera saw cost time and teach nothing."""
    if median >= size:
        return []
    return [
        f"Half of the images have a shorter side of {median} pixels or fewer and were enlarged to {size}: "
        f"`--size {median}`, into another folder, takes less time for as much to see."
    ]


def _straddling(manifest: pd.DataFrame) -> list[str]:
    """Groups that a split of one's own tears apart."""
    known = manifest[manifest["group"] != ""]
    splits = known.groupby("group")["split"].nunique()
    torn = splits[splits > 1]
    if not len(torn):
        return []
    return [
        f"{len(torn):,} of {len(splits):,} groups are in several splits ({some(torn.index)}), which "
        "flatters the test."
    ]
