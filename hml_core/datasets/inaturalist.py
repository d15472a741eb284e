"""iNaturalist 2018 as ``hml prepare inat2018`` leaves it: streamed, long-tailed by nature.

The labels of the official test images are not public: as in the literature, the official validation split
is what networks are tested on. A validation split of one's own comes out of the training images
(``validation_fraction``).
"""

from __future__ import annotations

import math
import reprlib
from pathlib import Path

import numpy as np
import pandas as pd

from hml_core import imbalance
from hml_core.datasets import prepared
from hml_core.datasets.base import LabelledFiles, Splits, hold_out
from hml_core.datasets.registry import DatasetInfo, register
from hml_core.errors import DataError

NAME = "inat2018"
MANIFEST = ("category", "split", "file", "output_sha256")  # columns that are read
CATEGORIES = ("category", "name", "supercategory", "train_images")
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
        Where the folder was not prepared, holds another archive or has changed since; where its two
        tables do not agree, or leave a category without training images or no image to test on; where
        images were prepared smaller than ``config.image_size`` asks for; for a subset of more than there
        is.
    """
    folder, described = prepared.find(Path(data_root), NAME)
    manifest = prepared.read_table(folder, "manifest", described, MANIFEST)
    categories = prepared.read_table(folder, "categories", described, CATEGORIES)
    _require_pixels(config.image_size, described["options"]["size"], folder)
    ids = _category_ids(manifest, len(categories), folder)
    counts = _train_images(categories, ids[manifest["split"] == "train"], folder)
    order = _classes(counts, config.subset_classes)  # category ids
    labels = np.full(len(counts), -1)
    labels[order] = np.arange(len(order))
    label = labels[ids]
    train, test = (_files(folder, manifest, label, split) for split in ("train", "validation"))
    if not len(test.targets):
        raise DataError(
            f"{str(folder / 'manifest.csv')!r} has no validation image of these categories, on which "
            "networks are tested: prepare it again, or take other `subset_classes`."
        )
    kept, validation = _chosen(config, train.targets, tuple(categories["name"][order]))
    return Splits(
        name=config.dataset,
        train=train.take(kept).require_files(),
        validation=None if validation is None else train.take(validation).require_files(),
        test=test.require_files(),
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
    path = folder / "manifest.csv"
    ids = _integers(manifest, "category", path)
    outside = ids[(ids < 0) | (ids >= number)]
    if len(outside):
        raise DataError(
            f"{str(path)!r} has the category {outside[0]}: expected 0 … {number - 1}. Prepare it again."
        )
    return ids


def _train_images(categories: pd.DataFrame, train_ids: np.ndarray, folder: Path) -> np.ndarray:
    """Training images of each category, int64 (C,), after a check that both tables agree on them."""
    path = folder / "categories.csv"
    ids = _integers(categories, "category", path)
    if (misplaced := np.flatnonzero(ids != np.arange(len(ids)))).size:
        row = misplaced[0]
        raise DataError(
            f"{str(path)!r} has the category {ids[row]} in row {row + 1}: expected {row}, as the "
            "categories are numbered in order. Prepare it again."
        )
    counts = _integers(categories, "train_images", path)
    listed = np.bincount(train_ids, minlength=len(counts))
    if (wrong := np.flatnonzero(counts != listed)).size:
        raise DataError(
            f"{str(path)!r} gives the category {wrong[0]} {counts[wrong[0]]} training images: expected "
            f"{listed[wrong[0]]}, as in the manifest. Prepare it again."
        )
    if (empty := np.flatnonzero(counts == 0)).size:
        raise DataError(
            f"The category {empty[0]} in {str(path)!r} has no training image: expected one or more."
        )
    return counts


def _integers(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column of text as int64 (N,)."""
    texts = table[column]
    wrong = texts[~texts.str.fullmatch("-?[0-9]{1,18}")]
    if len(wrong):
        raise DataError(
            f"{str(path)!r} has the {column} {reprlib.repr(wrong.iloc[0])} in row {wrong.index[0] + 1}: "
            "expected a whole number. Prepare it again."
        )
    return texts.to_numpy().astype(np.int64)


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


# P1's largest table. Schedule, rate and decay as in Kang et al. (ICLR 2020); the rate of 0.1 for a batch
# of 256 scales with the batch, and batch norm sees 32 images, as in Goyal et al. (arXiv 1706.02677).
_INAT_2018 = {"model": "resnet50", "epochs": 90, "image_size": 224}
register(
    "inat2018",
    DatasetInfo(
        load,
        num_classes=8142,
        defaults={
            **_INAT_2018,
            "imbalance_type": "natural",
            "imbalance_ratio": 1.0,
            "augmentation": "resized_crop",
            "normalisation": "imagenet",
            "batch_size": 256,
            "micro_batch_size": lambda config: math.gcd(config.batch_size, 32),
            "learning_rate": lambda config: 0.1 * config.batch_size / 256,
            "weight_decay": 1e-4,
            "lr_schedule": "cosine",
        },
        published=_INAT_2018,
        needs_data_root=True,
        streamed=True,
    ),
)
