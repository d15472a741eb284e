"""ISIC 2018 and 2019 as ``hml prepare`` leaves them: ``prepared.json``, ``manifest.csv``, image files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hml_core.datasets import prepared
from hml_core.datasets.base import EvaluationSet, LabelledFiles, Splits
from hml_core.datasets.registry import DatasetInfo, register
from hml_core.errors import DataError

# Of P2's published code, for images prepared with colour constancy.
AUTHORS = ((0.59451115, 0.59429777, 0.59418184), (0.14208533, 0.18548788, 0.20363748))
COLUMNS = ("id", "class", "lesion_id", "split", "file", "output_sha256")
SPLITS = ("train", "validation", "test")
FURTHER = ("official_test",)  # of the challenge; a run's record speaks of it where it was prepared


class Challenge(NamedTuple):
    """What a data set is made of: an archive, some of its classes, and whether a part of it alone.

    Parameters
    ----------
    archive : {"isic2018", "isic2019"}
    classes : tuple of str
        Columns of the ground truth to keep; empty: all.
    part : str
        Of the archive's images, as ``prepared.json`` names it; empty: none, but the whole of it.
    """

    archive: str
    classes: tuple[str, ...] = ()
    part: str = ""


CHALLENGES = {
    "isic2018": Challenge("isic2018"),  # P3: 7 classes
    "isic2019": Challenge("isic2019", ("NV", "MEL")),  # P2: melanoma against nevus
    "isic2019_all": Challenge("isic2019"),
    "isic2019_ham": Challenge("isic2019", ("NV", "MEL"), "HAM10000"),  # P2's, of ISIC 2018's images
}


def loader(challenge: Challenge) -> Callable[..., Splits]:
    """The ``load`` function of a challenge."""
    return functools.partial(load, challenge=challenge)


def load(config, data_root, *, challenge: Challenge) -> Splits:
    """Training, validation and test images for a run, classes from the most frequent to the rarest.

    Parameters
    ----------
    config : RunConfig
    data_root : path
        The prepared folder, or the one whose ``prepared/`` it is.
    challenge : Challenge

    Raises
    ------
    DataError
        Where the folder was not prepared, holds another challenge, only a part of it or more than that
        part, or has changed since; where a class has no training image, or a split no image; where images
        were prepared smaller than ``config.image_size``. A class that only the validation or the test set
        lacks can be trained: its recall is unknown, and means over classes leave it out.
    """
    folder, described, manifest, order = _read(config, Path(data_root), challenge)
    names = dict(zip(described["classes"], described["class_names"], strict=True))
    rows = dict(list(manifest.groupby("split", sort=False)))
    made = {split: _files(folder, rows[split], order) for split in SPLITS}
    mean, std = prepared.normalisation(config.normalisation, described, AUTHORS)
    return Splits(
        name=config.dataset,
        class_names=tuple(names[name] for name in order),
        mean=mean,
        std=std,
        train_indices=np.flatnonzero(manifest["split"] == "train"),
        synthetic=described["synthetic"],
        test_clusters=_lesions(rows["test"]),
        further_tests={
            split: EvaluationSet(_files(folder, rows[split], order), _lesions(rows[split]))
            for split in FURTHER
            if split in rows
        },
        images_note=_note(described, manifest, order),
        **made,
    )


def _read(
    config, root: Path, challenge: Challenge
) -> tuple[Path, dict[str, Any], pd.DataFrame, list[str]]:
    """Folder, description, rows of the wanted classes, and these from the most frequent to the rarest."""
    folder, described = prepared.find(root, challenge.archive, lists=("classes", "class_names"))
    _require_part(folder, described, challenge)
    manifest = prepared.read_table(folder, "manifest", described, COLUMNS)
    wanted = list(challenge.classes or described["classes"])
    if unknown := [name for name in wanted if name not in described["classes"]]:
        raise prepared.damaged(
            folder / "prepared.json",
            f"expected the class {unknown[0]} among its `classes`, found none",
        )
    _require_known(folder, manifest, described["classes"])
    manifest = manifest[manifest["class"].isin(wanted)]
    counts = pd.crosstab(manifest["class"], manifest["split"]).reindex(
        index=wanted, columns=SPLITS, fill_value=0
    )
    if untrained := [name for name in wanted if not counts.loc[name, "train"]]:
        raise DataError(
            f"The class {untrained[0]} has no train image in {str(folder)!r}: expected another split, or "
            "more images."
        )
    if empty := [split for split in SPLITS if not counts[split].any()]:
        raise DataError(
            f"There is no {empty[0]} image of {', '.join(wanted)} in {str(folder)!r}: expected another "
            "split, or more images."
        )
    if config.image_size > described["options"]["size"]:
        raise DataError(
            f"The images in {str(folder)!r} were prepared with size {described['options']['size']}: "
            f"expected `image_size` up to that, got {config.image_size}."
        )
    # A stable sort: classes with as many images stay in the challenge's order.
    order = counts["train"].sort_values(ascending=False, kind="stable").index
    return folder, described, manifest, list(order)


def evaluation_set(config, data_root, split: str = "official_test") -> EvaluationSet:
    """A split by name; its ``clusters`` are the lesions, an image's own where that is unknown.

    Parameters
    ----------
    config : RunConfig
        Of one of the ISIC data sets.
    data_root : path
    split : {"official_test", "official_validation", "test", "validation", "train"}
        The official ones are the challenge's own, which no split made here can flatter; the others are
        those of :func:`load`, in the same order.

    Raises
    ------
    DataError
        See :func:`load`; also where the set was not prepared, as its files were not there.

    Examples
    --------
    ``feeds.make(found.images, splits, config, device)`` reads its images for an evaluation.
    """
    folder, _, manifest, order = _read(config, Path(data_root), CHALLENGES[config.dataset])
    rows = manifest[manifest["split"] == split]
    if not len(rows):
        raise DataError(
            f"{str(folder)!r} has no {split} set (it has {', '.join(manifest['split'].unique())}): put "
            "its images and ground truth beside the training set's and run the same `hml prepare` again."
        )
    return EvaluationSet(_files(folder, rows, order), _lesions(rows))


def _require_part(folder: Path, described: dict[str, Any], challenge: Challenge) -> None:
    """A part of an archive is never trained on under the whole one's name, nor the other way round."""
    part = described.get("part", {})
    fields = {"name": str, "title": str, "dataset": str, "listed": dict}
    is_mapping = isinstance(part, dict)
    if not is_mapping or (part and not all(isinstance(part.get(n), k) for n, k in fields.items())):
        raise prepared.damaged(
            folder / "prepared.json", f"expected `part` to say its {', '.join(fields)}"
        )
    if part.get("name", "") == challenge.part:
        return
    if part:
        raise DataError(
            f"{str(folder)!r} holds the {part['title']} alone: expected the data set "
            f"{part['dataset']!r}, or the other images, prepared with them."
        )
    raise DataError(
        f"{str(folder)!r} holds all of {challenge.archive}: expected its {challenge.part} part alone, "
        "which `hml prepare` takes where the folder of the other images is not there."
    )


def _require_known(folder: Path, manifest: pd.DataFrame, classes: list[str]) -> None:
    """A row of no class or no split would be left out without a word.

    (The challenge's own sets may hold classes that are in none of the splits.)
    """
    own = manifest["split"].isin(SPLITS)
    known = {
        "split": (manifest, [*SPLITS, "official_validation", *FURTHER]),
        "class": (manifest[own], classes),
    }
    for column, (rows, expected) in known.items():
        for _, row in rows[~rows[column].isin(expected)].iterrows():
            raise prepared.damaged(
                folder / "manifest.csv",
                f"expected the `{column}` of {row['id']!r} to be one of {', '.join(expected)}, got "
                f"{row[column]!r}",
            )


def _note(described: dict[str, Any], manifest: pd.DataFrame, classes: list[str]) -> str:
    """What has to be said of a part of an archive; nothing of a whole one."""
    if not (part := described.get("part")):
        return ""
    listed = part["listed"]
    number = int(manifest["split"].isin(SPLITS).sum())
    return (
        f"{part['title']}, {number:,} of {sum(listed.values()):,} images "
        f"({sum(listed.get(name, 0) for name in classes):,} of these classes)"
    )


def _lesions(rows: pd.DataFrame) -> np.ndarray:
    """str (N,), the lesion that each image shows, its own id where that is unknown."""
    own = "image " + rows["id"]
    lesions = own.where(rows["lesion_id"] == "", "lesion " + rows["lesion_id"])
    return lesions.to_numpy(dtype=str)


def _files(folder: Path, rows: pd.DataFrame, classes: list[str]) -> LabelledFiles:
    targets = rows["class"].map({name: label for label, name in enumerate(classes)})
    return LabelledFiles(
        folder,
        tuple(rows["file"]),
        tuple(rows["output_sha256"]),
        targets.to_numpy(dtype=np.int64, copy=True),
    ).require_files()


# P2 and P3: dermoscopy. Their learning rate was to go up and down once, but is stepped once an epoch.
_DERMOSCOPY = {
    "imbalance_type": "natural",
    "imbalance_ratio": 1.0,
    "model": "efficientnet_b3",
    "weights": "imagenet",
    "frozen": 0.68,
    "image_size": 300,
    "augmentation": "dermoscopy",
    "epochs": 100,
    "early_stopping": 15,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "lr_schedule": {"official": "cyclic", "controlled": "one_cycle"},
}
_PUBLISHED = {name: _DERMOSCOPY[name] for name in ("model", "epochs", "image_size")}
_PUBLISHED["initialised_from"] = "imagenet"
for _name, _challenge in CHALLENGES.items():
    register(
        _name,
        DatasetInfo(
            loader(_challenge),
            defaults={**_DERMOSCOPY, "delta": 1e7 if _name == "isic2018" else 1e4},
            published=_PUBLISHED,
            has_validation=True,
            needs_data_root=True,
            streamed=True,
            positive_class="melanoma",
        ),
    )
