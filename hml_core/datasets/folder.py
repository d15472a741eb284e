"""One's own images as ``hml prepare folder`` leaves them: long-tailed by nature, with splits of their own.

Two data sets read the same folder, as what a network needs is decided before it is opened. ``folder``
streams files of any size, which is what torchvision's networks train on. ``small_folder`` takes squares of
one size (``--size 32 --square``) into memory, where a whole run takes minutes: the way of CIFAR and its
networks, with every choice of ``imbalance_type``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hml_core.datasets import prepared
from hml_core.datasets.base import LabelledFiles, LabelledImages, Splits, make_long_tailed
from hml_core.datasets.inaturalist import SEEN
from hml_core.datasets.registry import KEPT_UNLESS_ASKED, DatasetInfo, register
from hml_core.errors import DataError
from hml_core.system import files as storage
from hml_core.system import images as opener
from hml_core.system import threads

NAME = "folder"
COLUMNS = ("id", "class", "group", "split", "file", "output_sha256")
SPLITS = ("train", "validation", "test")
IMAGE_SIZE = 224  # pixels, unless a run says otherwise: ImageNet's
SMALL = 96  # pixels: above, memory and CIFAR's networks are no place for them


def load(config, data_root) -> Splits:
    """Training, validation and test files for a run, classes from the most frequent to the rarest.

    A class may be without validation or test images, where there were too few.

    Raises
    ------
    DataError
        Where the folder was not prepared or has changed since; where images were prepared smaller than
        ``config.image_size`` asks for.
    """
    folder, described, manifest = _read(Path(data_root))
    size, crops = described["options"]["size"], not _are_squares(described["options"])
    most = largest_image_size(size, not crops)
    if config.image_size > most:
        raise DataError(
            f"The images in {str(folder)!r} were prepared with a shorter side of {size} pixels: expected "
            f"`image_size` up to {most}, got {config.image_size}; or prepare them larger."
        )
    mean, std = prepared.normalisation(config.normalisation, described)
    parts = {
        split: LabelledFiles(
            folder,
            tuple(rows["file"]),
            tuple(rows["output_sha256"]),
            _targets(rows, described),
            crops,
        ).require_files()
        for split, rows in _parts(manifest).items()
    }
    return Splits(
        name=config.dataset,
        class_names=tuple(described["classes"]),
        mean=mean,
        std=std,
        train_indices=np.flatnonzero(manifest["split"] == "train"),
        synthetic=described["synthetic"],
        **parts,
    )


def _are_squares(options: Mapping[str, Any]) -> bool:
    return bool(options.get("crop") or options.get("square"))


def largest_image_size(size: int, squares: bool) -> int:
    """The largest ``image_size`` for images with a shorter side of ``size`` pixels: a square is seen
    whole, out of others one is cut."""
    return size if squares else int(size * SEEN)


def load_small(config, data_root) -> Splits:
    """The same images in memory, all of one size; ``config.imbalance_type`` may cut the training set.

    Raises
    ------
    DataError
        As :func:`load`; also where images are not of one size of at most 96 pixels.
    """
    folder, described, _ = _read(Path(data_root))
    if "mean" not in described:
        what = "expected `mean` to be three numbers, found none"
        raise prepared.damaged(folder / "prepared.json", what)
    train, validation, test = _in_memory(folder, described["manifest_sha256"])
    made = make_long_tailed(
        config.dataset,
        train,
        test,
        validation=validation,
        class_names=tuple(described["classes"]),
        imbalance_type=config.imbalance_type,
        imbalance_ratio=config.imbalance_ratio,
        subset_seed=config.subset_seed,
        mean=tuple(described["mean"]),
        std=tuple(described["std"]),
    )
    return dataclasses.replace(made, synthetic=described["synthetic"])


@functools.lru_cache(maxsize=1)
def _in_memory(folder: Path, manifest_sha256: str) -> tuple[LabelledImages, ...]:
    """Every image, decoded after its SHA-256 was compared; once for all runs of a process."""
    _, described, manifest = _read(folder)
    return tuple(
        LabelledImages(_pixels(folder, rows, described), _targets(rows, described))
        for rows in _parts(manifest).values()
    )


def _read(root: Path) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    folder, described = prepared.find(root, NAME, lists=("classes",))
    manifest = prepared.read_table(folder, "manifest", described, COLUMNS)
    if unknown := sorted(set(manifest["class"]) - set(described["classes"])):
        raise prepared.damaged(
            folder / "prepared.json",
            f"expected the class {unknown[0]!r} among its `classes`, found none",
        )
    if unknown := sorted(set(manifest["split"]) - {*SPLITS}):
        raise prepared.damaged(
            folder / "manifest.csv",
            f"expected its splits to be {', '.join(SPLITS)}, got {unknown[0]!r}",
        )
    if twice := manifest["file"][manifest["file"].duplicated()].tolist():
        raise prepared.damaged(folder / "manifest.csv", f"it lists {twice[0]!r} twice")
    return folder, described, manifest


def _parts(manifest: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {split: manifest[manifest["split"] == split] for split in SPLITS}


def _targets(rows: pd.DataFrame, described: dict[str, Any]) -> np.ndarray:
    label = {name: number for number, name in enumerate(described["classes"])}
    return rows["class"].map(label).to_numpy(dtype=np.int64, copy=True)


def _pixels(folder: Path, rows: pd.DataFrame, described: dict[str, Any]) -> np.ndarray:
    """uint8 (N, S, S, 3)."""
    size = described["options"]["size"]
    if size > SMALL or not _are_squares(described["options"]):
        raise DataError(
            f"The images in {str(folder)!r} are no small squares: expected the data set {NAME!r}, or to "
            f"prepare them with `--size 32 --square` (up to {SMALL} pixels)."
        )
    images = np.empty((len(rows), size, size, 3), dtype=np.uint8)

    def decode(place: int, name: str, known: str) -> None:
        path = folder / name
        try:
            data = opener.read(path)
            if storage.sha256_of(data) != known:
                raise DataError(
                    f"{str(path)!r} is not the file that was prepared: prepare it again."
                )
            pixels = np.asarray(opener.decode(data))
        except opener.ImageError as error:
            raise DataError(f"{str(path)!r} {error}: prepare it again.") from error
        if pixels.shape != images.shape[1:]:
            high, wide = pixels.shape[:2]
            raise prepared.damaged(
                folder / "prepared.json",
                f"expected its `options.size` to be that of the images, got {size}, where {name!r} has "
                f"{high} × {wide} pixels",
            )
        images[place] = pixels

    with threads.pool() as pool:
        list(pool.map(decode, range(len(rows)), rows["file"], rows["output_sha256"]))
    return images


def _normalisation(config) -> str:
    return "imagenet" if config.weights == "imagenet" else "dataset"


def _learning_rate(config) -> float:
    """Of Adam: small steps from weights that know something, larger ones from a random start."""
    return 1e-3 if config.weights == "none" else 3e-4


register(
    NAME,
    DatasetInfo(
        load,
        defaults={
            "imbalance_type": "natural",
            "imbalance_ratio": 1.0,
            "model": "resnet18",
            "weights": "imagenet",
            "image_size": IMAGE_SIZE,
            "normalisation": _normalisation,
            "augmentation": "resized_crop",
            "epochs": 30,
            "early_stopping": 10,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": _learning_rate,
            "weight_decay": 0.0,
            "lr_schedule": "cosine",
        },
        has_validation=True,
        needs_data_root=True,
        streamed=True,
    ),
)
register(
    "small_folder",
    DatasetInfo(
        load_small,
        # A folder of a few hundred images has few steps an epoch: small batches make more of them, at half
        # of the rate that CIFAR's batches of 128 have.
        defaults={**KEPT_UNLESS_ASKED, "epochs": 60, "batch_size": 32, "learning_rate": 0.05},
        has_validation=True,
        needs_data_root=True,
    ),
)
