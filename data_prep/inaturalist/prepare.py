"""All images of iNaturalist 2018: in parallel, with progress, and going on where an earlier call stopped.

``<output>/`` gets the images in the archive's tree, ``manifest.csv`` (a row for each image),
``categories.csv`` (a row for each category, with its numbers of images), ``rejected.csv`` (images that are
missing or do not decode), and, last, ``prepared.json``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep import output as outputs
from data_prep.inaturalist import tarball
from data_prep.inaturalist.archive import ANNOTATIONS, FOLDERS, NAME, Archive
from data_prep.inaturalist.images import Options, process
from data_prep.parallel import Journal, checked_workers, why, work_through
from data_prep.parallel import rejected as rejected_images
from hml_core.datasets import prepared
from hml_core.errors import DataError

MANIFEST = ("id", "split", "category", "supercategory", "file", "output_sha256")
TABLES = (*outputs.TABLES, "categories.csv")
NEEDED = {"output_sha256": str, "bytes": int}  # of each prepared image
BYTES_AT_256 = 80_000  # a generous mean of a 256-pixel JPEG: 37 GB for all of the archive


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made.

    Attributes
    ----------
    folder : Path
    manifest, categories : DataFrame
        See the module.
    rejected : DataFrame
        ``id``, ``file`` and ``reason``.
    done_before : int
        Images that an earlier call had prepared.
    size : int
        Bytes of all prepared images.
    """

    folder: Path
    manifest: pd.DataFrame
    categories: pd.DataFrame
    rejected: pd.DataFrame
    done_before: int
    size: int


def prepare(
    archive: Archive,
    output: str | Path,
    options: Options | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Prepare every image of the archive.

    Called again with the same arguments it does what is missing: images that changed since, were
    deleted or had been rejected are done again; so are all of them with another tarball, or after one
    that turned out to be damaged.

    Raises
    ------
    ConfigError, DataError
        Before anything is done: wrong options, too little room, an output folder that was made with
        other options, is the archive's own or lies among its images. After it: a damaged tarball, no
        image left of a category or a split.
    RunError
        Where ``output`` cannot be written to, such as on a full disk.
    """
    options = options or Options()
    workers = checked_workers(workers)
    records = archive.records.assign(file="images/" + archive.records["name"])
    originals = [archive.root / name for name in FOLDERS]
    with outputs.made(output, records, archive.root, originals, TABLES) as folder:
        described = {"archive": NAME, **asdict(options)}
        journal = Journal(folder / outputs.JOURNAL, described, NEEDED, archive.tarball)
        _require_room(folder, len(records) - len(journal.of(records, folder)), options)
        sources = None
        if archive.tarball is not None:

            def absent(row: Any) -> None:
                journal.add(row, {"error": "not in the archive"})

            def sources(todo: pd.DataFrame) -> Iterator[tuple[Any, bytes]]:
                return tarball.members(archive.tarball, todo, absent)

        try:
            before = work_through(
                process,
                records,
                journal,
                options,
                workers,
                name=NAME,
                progress=progress,
                sources=sources,
            )
        except tarball.DamagedTarball:
            journal.forget()  # a checksum says that something is wrong, not what
            raise
        return _finish(archive, records, folder, journal, options, before)


def _require_room(folder: Path, images: int, options: Options) -> None:
    if not options.size:
        return  # copies of what is there already: the user sees how large that is
    needed = images * BYTES_AT_256 * (options.size / 256) ** 2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{images} images of {options.size} pixels may take {needed / 1e9:.3g} GB, and "
            f"{str(folder)!r} has {free / 1e9:.3g} GB left."
        )


def _finish(
    archive: Archive,
    records: pd.DataFrame,
    folder: Path,
    journal: Journal,
    options: Options,
    done_before: int,
) -> Prepared:
    entries = [journal.entries[image] for image in records["id"]]
    good = np.array(["error" not in entry for entry in entries], dtype=bool)
    kept = [entry for entry in entries if "error" not in entry]
    manifest = records[good].assign(output_sha256=[entry["output_sha256"] for entry in kept])
    manifest = manifest[list(MANIFEST)]
    rejected = rejected_images(records, journal, records["name"])
    outputs.write_table(folder, "rejected.csv", rejected)
    counts = {
        split: manifest["category"][manifest["split"] == split]
        .value_counts()
        .reindex(archive.categories["category"], fill_value=0)
        .to_numpy()
        for split in ANNOTATIONS
    }
    categories = archive.categories.assign(**{f"{split}_images": n for split, n in counts.items()})
    if (counts["train"] == 0).any():
        name = categories["name"][counts["train"] == 0].iloc[0]
        raise DataError(
            f"No training image is left of the category {name!r}: {len(rejected)} of {len(records)} "
            f"images were rejected ({why(rejected)})."
        )
    if not counts["validation"].sum():
        raise DataError(
            f"No validation image is left: {len(rejected)} images were rejected ({why(rejected)})."
        )
    manifest_sha256 = outputs.write_table(folder, "manifest.csv", manifest)
    categories_sha256 = outputs.write_table(folder, "categories.csv", categories)
    size = sum(entry["bytes"] for entry in kept)
    described = {
        "archive": NAME,
        "synthetic": archive.synthetic,
        "options": asdict(options),
        "images": {split: int(number.sum()) for split, number in counts.items()},
        "categories": len(categories),
        "imbalance_ratio": float(counts["train"].max() / counts["train"].min()),
        "bytes": size,
        "manifest_sha256": manifest_sha256,
        "categories_sha256": categories_sha256,
    }
    prepared.describe(folder, described)
    return Prepared(folder, manifest, categories, rejected, done_before, size)
