"""iNaturalist 2018 as ``hml prepare inat2018`` leaves it: streamed, long-tailed by nature.

The labels of the official test images are not public: as in the literature, the official validation split
is what networks are tested on. A validation split of one's own comes out of the training images
(``validation_fraction``).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from hml_core import imbalance
from hml_core.datasets import prepared
from hml_core.datasets.base import LabelledFiles, Splits, hold_out
from hml_core.errors import DataError

NAME = "inat2018"
SEEN = 224 / 256  # part of the shorter side that a network is tested on


def load(config, data_root) -> Splits:
    """Training and test images for a run, classes from the most frequent to the rarest.

    Parameters
    ----------
    config : RunConfig
    data_root : path
        The prepared folder, or the one whose ``prepared/`` it is.

    Raises
    ------
    DataError
        Where the folder was not prepared, holds another archive or has changed since; where images were
        prepared smaller than ``config.image_size`` asks for; for a subset of more than there is.
    """
    folder, described = prepared.find(Path(data_root), NAME)
    manifest = prepared.read_table(folder, "manifest", described)
    categories = prepared.read_table(folder, "categories", described)
    _require_pixels(config.image_size, described["options"]["size"], folder)
    counts = categories["train_images"].to_numpy(dtype=np.int64)
    order = _classes(counts, config.subset_classes)  # category ids
    labels = np.full(len(counts), -1)
    labels[order] = np.arange(len(order))
    label = labels[_category_ids(manifest, len(counts), folder)]
    train = _files(folder, manifest, label, "train")
    kept, validation = _chosen(config, train.targets, tuple(categories["name"][order]))
    return Splits(
        name=config.dataset,
        train=train.take(kept).require_files(),
        validation=None if validation is None else train.take(validation).require_files(),
        test=_files(folder, manifest, label, "validation").require_files(),
        class_names=tuple(categories["name"][order]),
        class_groups=tuple(categories["supercategory"][order]),
        mean=(normalisation := prepared.normalisation(config.normalisation, described))[0],
        std=normalisation[1],
        train_indices=kept,
        synthetic=described["synthetic"],
    )


def _require_pixels(image_size: int, size: int, folder: Path) -> None:
    needed = math.ceil(image_size / SEEN)
    if size and needed > size:
        raise DataError(
            f"The images in {str(folder)!r} were prepared with a shorter side of {size} pixels: expected "
            f"`image_size` up to {int(size * SEEN)}, got {image_size}, which is cut out of {needed}."
        )


def _category_ids(manifest: pd.DataFrame, number: int, folder: Path) -> np.ndarray:
    ids = manifest["category"].to_numpy(dtype=np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < number:
        raise DataError(
            f"{str(folder / 'manifest.csv')!r} has the category {ids.max()}: expected 0 … {number - 1}."
        )
    return ids


def _classes(counts: np.ndarray, wanted: int) -> np.ndarray:
    """Category ids from the most frequent on, or so many of them, evenly spaced."""
    order = np.argsort(-counts, kind="stable")
    if wanted > len(order):
        raise DataError(f"Expected `subset_classes` ≤ {len(order)}, got {wanted}.")
    if wanted:
        order = order[np.linspace(0, len(order) - 1, wanted).round().astype(int)]
    return order


def _files(folder: Path, manifest: pd.DataFrame, label: np.ndarray, split: str) -> LabelledFiles:
    chosen = (manifest["split"] == split).to_numpy() & (label >= 0)
    rows = manifest[chosen]
    return LabelledFiles(
        folder, tuple(rows["file"]), tuple(rows["output_sha256"]), label[chosen], crops=True
    )


def _chosen(
    config, targets: np.ndarray, class_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Training images of the subset and, if any, those held out for validation: places in ``targets``."""
    counts = np.bincount(targets, minlength=len(class_names))
    wanted = config.subset_images
    if wanted > len(targets):
        raise DataError(f"Expected `subset_images` ≤ {len(targets)}, got {wanted}.")
    if not wanted and not config.validation_fraction:
        return np.arange(len(targets)), None
    if wanted:
        counts = np.maximum(counts * wanted // len(targets), 1)
    kept = imbalance.subsample(targets, counts, seed=config.subset_seed)
    if not config.validation_fraction:
        return kept, None
    return hold_out(targets, kept, config.validation_fraction, class_names)
