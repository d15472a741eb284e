"""ISIC 2018 and 2019 as ``hml prepare`` leaves them: ``prepared.json``, ``manifest.csv``, image files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from hml_core.datasets import prepared
from hml_core.datasets.base import LabelledFiles, Splits
from hml_core.errors import DataError

# Of P2's published code, for images prepared with colour constancy.
AUTHORS = ((0.59451115, 0.59429777, 0.59418184), (0.14208533, 0.18548788, 0.20363748))
COLUMNS = ("class", "split", "file", "output_sha256")
SPLITS = ("train", "validation", "test")


def loader(archive: str, classes: tuple[str, ...] = ()) -> Callable[..., Splits]:
    """The ``load`` function of a challenge, for some of its classes (columns of its ground truth)."""
    return functools.partial(load, archive=archive, classes=classes)


def load(config, data_root, *, archive: str, classes: tuple[str, ...] = ()) -> Splits:
    """Training, validation and test images for a run, classes from the most frequent to the rarest.

    Parameters
    ----------
    config : RunConfig
    data_root : path
        The prepared folder, or the one whose ``prepared/`` it is.
    archive : {"isic2018", "isic2019"}
    classes : tuple of str
        Columns of the ground truth to keep; empty: all.

    Raises
    ------
    DataError
        Where the folder was not prepared, holds another challenge or has changed since; where a class
        is missing from a split; where images were prepared smaller than ``config.image_size``.
    """
    folder, described = prepared.find(Path(data_root), archive, lists=("classes", "class_names"))
    manifest = prepared.read_table(folder, "manifest", described, COLUMNS)
    wanted = list(classes or described["classes"])
    if unknown := [name for name in wanted if name not in described["classes"]]:
        raise DataError(
            f"{str(folder / 'prepared.json')!r} is damaged: expected the class {unknown[0]} among its "
            "`classes`, found none. Prepare it again."
        )
    manifest = manifest[manifest["class"].isin(wanted)]
    counts = pd.crosstab(manifest["class"], manifest["split"]).reindex(
        index=wanted, columns=SPLITS, fill_value=0
    )
    if (counts == 0).any(axis=None):
        name, split = next(where for where, number in counts.stack().items() if number == 0)
        raise DataError(
            f"The class {name} has no {split} image in {str(folder)!r}: expected another split, or "
            "more images."
        )
    if config.image_size > described["options"]["size"]:
        raise DataError(
            f"The images in {str(folder)!r} were prepared with size {described['options']['size']}: "
            f"expected `image_size` up to that, got {config.image_size}."
        )
    # A stable sort: classes with as many images stay in the challenge's order.
    order = counts["train"].sort_values(ascending=False, kind="stable").index
    names = dict(zip(described["classes"], described["class_names"], strict=True))
    made = {
        split: _files(folder, manifest[manifest["split"] == split], list(order)) for split in SPLITS
    }
    mean, std = prepared.normalisation(config.normalisation, described, AUTHORS)
    return Splits(
        name=config.dataset,
        class_names=tuple(names[name] for name in order),
        mean=mean,
        std=std,
        train_indices=np.flatnonzero(manifest["split"] == "train"),
        synthetic=described["synthetic"],
        **made,
    )


def _files(folder: Path, rows: pd.DataFrame, classes: list[str]) -> LabelledFiles:
    targets = rows["class"].map({name: label for label, name in enumerate(classes)})
    return LabelledFiles(
        folder,
        tuple(rows["file"]),
        tuple(rows["output_sha256"]),
        targets.to_numpy(dtype=np.int64, copy=True),
    ).require_files()
