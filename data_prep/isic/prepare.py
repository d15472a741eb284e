"""All images of an archive: in parallel, with progress, and going on where an earlier call stopped.

``<output>/`` gets ``images/``, ``manifest.csv`` (a row for each image), ``rejected.csv`` (images that are
missing or do not decode), and, last, ``prepared.json`` (options, classes, normalisation, leak), sealed.
While work goes on, ``journal.jsonl`` holds what is done. The challenge's official validation and test
sets, where they are there, follow in the manifest as the splits "official_validation" and "official_test".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep import output as outputs
from data_prep.isic import splits
from data_prep.isic.archive import ARCHIVES, Archive, listed_kinds
from data_prep.isic.images import FORMATS, Options, normalisation, process
from data_prep.parallel import Journal, checked_workers, why, work_through
from data_prep.parallel import rejected as rejected_images
from hml_core.datasets import prepared
from hml_core.errors import DataError

MANIFEST = ("id", "class", "lesion_id", "split", "file", "source_sha256", "output_sha256")

# Of each prepared image.
NEEDED = {
    "source_sha256": str,
    "output_sha256": str,
    "pixels": int,
    "sum": list,
    "square_sum": list,
}


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made.

    Attributes
    ----------
    folder : Path
    manifest : DataFrame
        A row for each prepared image.
    rejected : DataFrame
        ``id``, ``file`` and ``reason``.
    leak : dict
        Lesions that straddle the splits used, and those that would under an image-by-image split.
    done_before : int
        Images that an earlier call had prepared.
    notes : tuple of str
        What was left out, is not known or is missing, in sentences.
    official : dict
        For each official set: ``images``, ``images_with_lesion`` and ``lesions``.
    """

    folder: Path
    manifest: pd.DataFrame
    rejected: pd.DataFrame
    leak: dict[str, dict[str, int]]
    done_before: int
    notes: tuple[str, ...] = ()
    official: dict[str, dict[str, int]] = field(default_factory=dict)


def prepare(
    archive: Archive,
    output: str | Path,
    options: Options | None = None,
    *,
    seed: int = 0,
    split_csv: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Prepare every image of an archive and split them.

    Called again with the same arguments it does what is missing: images that changed since, were
    deleted or had been rejected are done again.

    Parameters
    ----------
    archive : Archive
        See :func:`data_prep.isic.archive.read`.
    output : path
    options : Options
        What is done to an image.
    seed : int
        Of the split: 80 % training, 10 % validation, 10 % test, stratified, by lesion.
    split_csv : path, optional
        A split of one's own: columns ``id`` and ``split``. Images that it does not name are left out.
    workers : int, optional
        Processes; default: one for each usable core.
    progress : bool

    Returns
    -------
    Prepared

    Raises
    ------
    ConfigError, DataError
        Before anything is done: wrong options, a split that does not fit, an output folder that was made
        with other options, is the archive's own or lies among its images.
    RunError
        Where ``output`` cannot be written to, such as on a full disk.
    """
    options = options or Options()
    workers = checked_workers(workers)
    records = archive.records
    if split_csv is None:
        records = records.assign(split=splits.by_lesion(records, seed))
    else:
        records = records.assign(split=splits.from_csv(records, split_csv)).dropna(subset="split")
    records = pd.concat([records, archive.official[[*records]]], ignore_index=True)
    suffix = FORMATS[options.format]
    records = records.assign(file=[f"images/{image}{suffix}" for image in records["id"]])
    described = {"archive": archive.name, **asdict(options)}
    with outputs.made(output, records, archive.root, archive.folders) as folder:
        done = Journal(folder / outputs.JOURNAL, described, NEEDED)
        before = work_through(
            process, records, done, options, workers, name=archive.name, progress=progress
        )
        return _finish(archive, records, folder, done, options, seed, split_csv, before)


def _finish(
    archive: Archive,
    records: pd.DataFrame,
    folder: Path,
    journal: Journal,
    options: Options,
    seed: int,
    split_csv: str | Path | None,
    done_before: int,
) -> Prepared:
    entries = [journal.entries[image] for image in records["id"]]
    good = np.array(["error" not in entry for entry in entries], dtype=bool)
    kept = [entry for entry in entries if "error" not in entry]
    manifest = records[good].assign(
        source_sha256=[entry["source_sha256"] for entry in kept],
        output_sha256=[entry["output_sha256"] for entry in kept],
    )[list(MANIFEST)]
    rejected = rejected_images(records, journal, records["path"].map(lambda path: path.name))
    if missing := sorted(set(splits.SPLITS) - set(manifest["split"])):
        raise DataError(
            f"No image is left for {', '.join(missing)}: {len(rejected)} of {len(records)} were rejected"
            f"{f' ({why(rejected)})' if len(rejected) else ''}."
        )
    manifest_sha256 = outputs.write_table(folder, "manifest.csv", manifest)
    outputs.write_table(folder, "rejected.csv", rejected)
    # Both over the images that are there, so that their numbers compare.
    kept_ids = set(manifest["id"])
    own = records[records["split"].isin(splits.SPLITS)]
    by_image = splits.by_image(own, seed)[own["id"].isin(kept_ids)]
    own = manifest[manifest["split"].isin(splits.SPLITS)].reset_index(drop=True)
    leak = {
        "this split": splits.straddling(own, own["split"]),
        "image by image": splits.straddling(own, by_image.reset_index(drop=True)),
    }
    counts = pd.crosstab(own["class"], own["split"])
    left = [name for name in archive.classes if name in counts.index]
    lost = [name for name in archive.classes if name not in left]
    notes = [*archive.notes, *_left_out(archive), *_not_split(archive, records, split_csv)]
    notes += _classes_without(counts, lost, rejected, records)
    train = [entry for entry, row in zip(entries, records.itertuples()) if _counts(entry, row)]
    mean, std = normalisation(train)
    described = {
        "archive": archive.name,
        **({"part": dict(archive.part)} if archive.part else {}),
        "synthetic": archive.synthetic,
        "classes": left,
        "class_names": [ARCHIVES[archive.name].classes[name] for name in left],
        "options": asdict(options),
        "split": {"seed": seed} if split_csv is None else {"csv": Path(split_csv).name},
        "mean": mean,
        "std": std,
        "leak": leak,
        "official": (official := _official(manifest)),
        "notes": notes,
        "manifest_sha256": manifest_sha256,
    }
    prepared.describe(folder, described)
    return Prepared(folder, manifest, rejected, leak, done_before, tuple(notes), official)


def _left_out(archive: Archive) -> list[str]:
    return [f"Left out: {listed_kinds(archive.left_out)}."] if archive.left_out else []


def _not_split(archive: Archive, records: pd.DataFrame, split_csv: str | Path | None) -> list[str]:
    number = len(archive.records) - int(records["split"].isin(splits.SPLITS).sum())
    if not number:
        return []
    return [
        f"{number} of the {len(archive.records)} images are left out: {Path(split_csv).name} does not "
        "name them."
    ]


def _classes_without(
    counts: pd.DataFrame, lost: list[str], rejected: pd.DataFrame, records: pd.DataFrame
) -> list[str]:
    """Sentences about classes that lack images, in all or in a split; ``counts`` (class, split)."""
    notes = []
    own = records[records["split"].isin(splits.SPLITS)]
    for name in lost:
        its = rejected[rejected["id"].isin(own["id"][own["class"] == name])]
        reasons = f" ({why(its)})" if len(its) else ""
        notes.append(f"No image is left of the class {name}{reasons}: it is no class any more.")
    for name, split in zip(*np.nonzero(counts.to_numpy() == 0), strict=True):
        name, split = counts.index[name], counts.columns[split]
        then = (
            "this split cannot be trained on; take another `seed` or `split_csv`"
            if split == "train"
            else "its recall there is unknown, and means over classes leave it out"
        )
        notes.append(f"The class {name} has no {split} image: {then}.")
    return notes


def _official(manifest: pd.DataFrame) -> dict[str, dict[str, int]]:
    parts = manifest[~manifest["split"].isin(splits.SPLITS)].groupby("split")["lesion_id"]
    return {
        split: {
            "images": len(lesions),
            "images_with_lesion": int((lesions != "").sum()),
            "lesions": int(lesions[lesions != ""].nunique()),
        }
        for split, lesions in parts
    }


def _counts(entry: dict[str, Any], row: Any) -> bool:
    return "error" not in entry and row.split == "train"
