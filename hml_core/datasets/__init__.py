"""Data sets by name, with the defaults that suit them.

A data set is a :class:`DatasetInfo` in :data:`DATASETS`; :func:`register` adds one's own, made of a
function ``load(config, data_root) → Splits``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hml_core.datasets import cifar, digits, imagefolder, inaturalist, isic
from hml_core.datasets.base import LabelledFiles, LabelledImages, Splits, make_long_tailed
from hml_core.errors import ConfigError, DataError

__all__ = [
    "BUILT_IN",
    "DATASETS",
    "DataError",
    "DatasetInfo",
    "LabelledFiles",
    "LabelledImages",
    "Splits",
    "info",
    "is_built_in",
    "load",
    "make_long_tailed",
    "register",
]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    Parameters
    ----------
    load : callable
        ``load(config, data_root) → Splits``.
    num_classes, images_per_class : int, optional
        Of the balanced training set; None where only the files can tell.
    defaults : mapping
        Values of the :class:`~hml_core.config.RunConfig` fields that are left at None; a mapping gives
        one for each protocol, a function makes one of the config as far as it is filled in.
    published : mapping
        Fields of the published protocol: what differs from it is not comparable with published figures.
    has_validation : bool
        The data set brings a validation split of its own.
    needs_data_root : bool
        The images are files that the user provides or downloads.
    streamed : bool
        The images are read from files while training (:class:`~hml_core.datasets.LabelledFiles`); such a
        data set is long-tailed by nature, and its runs keep test features for pictures of them.
    positive_class : str, optional
        The class whose sensitivity and specificity are reported.
    """

    load: Callable[..., Splits]
    num_classes: int | None = None
    images_per_class: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)
    has_validation: bool = False
    needs_data_root: bool = False
    streamed: bool = False
    positive_class: str | None = None


DATASETS: dict[str, DatasetInfo] = {}


def register(name: str, dataset: DatasetInfo) -> None:
    """Make a data set available under ``name``."""
    DATASETS[name] = dataset


def is_built_in(name: str) -> bool:
    """Whether the data set is part of this package rather than registered by its user."""
    return info(name) is BUILT_IN.get(name)


def info(name: str) -> DatasetInfo:
    """The entry called ``name``.

    Raises
    ------
    ConfigError
        For a name that is not in :data:`DATASETS`.
    """
    if name not in DATASETS:
        raise ConfigError(f"Expected `dataset` to be one of {', '.join(DATASETS)}, got {name!r}.")
    return DATASETS[name]


def departures(dataset: str, fields: Mapping[str, Any]) -> str:
    """The settings of a run that is shorter or smaller than the published protocol; else "".

    >>> departures("cifar100", {"model": "resnet8", "epochs": 12})
    'resnet8, 12 epochs'
    """
    published = DATASETS[dataset].published if dataset in DATASETS else {}
    texts = {
        "model": "{}",
        "epochs": "{} epochs",
        "image_size": "{:.0f} pixels",
        "initialised_from": "{} initialisation",
    }
    departed = any(
        fields[name] < value if isinstance(value, int) else fields[name] != value
        for name, value in published.items()
    )
    found = [texts[name].format(fields[name]) for name in published] if departed else []
    if is_subset(fields):
        found.append("a subset of the images")
    return ", ".join(found)


def is_subset(fields: Mapping[str, Any]) -> bool:
    """Whether a run, by its config's fields, left classes or images out for a trial."""
    return bool(fields.get("subset_classes") or fields.get("subset_images"))


def load(config, data_root: str | Path | None = None) -> Splits:
    """The long-tailed data set that ``config`` describes.

    Raises
    ------
    DataError
        Where the files are missing or damaged, or a class is left without images.
    """
    dataset = info(config.dataset)
    if dataset.needs_data_root and data_root is None:
        raise DataError(
            f"The data set {config.dataset!r} needs `data_root`, the folder that holds its files."
        )
    return dataset.load(config, data_root)


register(
    "digits",
    DatasetInfo(
        digits.load,
        num_classes=10,
        images_per_class=digits.TRAIN_PER_CLASS,
        has_validation=True,
        defaults={
            "model": "resnet8",
            "epochs": 60,
            "batch_size": 32,
            "augmentation": "crop",
            "imbalance_ratio": 20.0,
            "precision": "float32",
        },
    ),
)
_CIFAR_LT = {"model": "resnet32", "epochs": 200}  # of the literature on these subsets
register(
    "cifar10",
    DatasetInfo(
        cifar.load_cifar10,
        num_classes=10,
        images_per_class=5000,
        published=_CIFAR_LT,
        needs_data_root=True,
    ),
)
register(
    "cifar100",
    DatasetInfo(
        cifar.load_cifar100,
        num_classes=100,
        images_per_class=500,
        published=_CIFAR_LT,
        needs_data_root=True,
    ),
)
register("imagefolder", DatasetInfo(imagefolder.load, published=_CIFAR_LT, needs_data_root=True))

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
for _name, _archive, _classes, _delta in (
    ("isic2018", "isic2018", (), 1e7),  # P3: 7 classes
    ("isic2019", "isic2019", ("NV", "MEL"), 1e4),  # P2: melanoma against nevus
    ("isic2019_all", "isic2019", (), 1e4),
):
    register(
        _name,
        DatasetInfo(
            isic.loader(_archive, _classes),
            defaults={**_DERMOSCOPY, "delta": _delta},
            published=_PUBLISHED,
            has_validation=True,
            needs_data_root=True,
            streamed=True,
            positive_class="melanoma",
        ),
    )

# P1's largest table. Schedule, rate and decay as in Kang et al. (ICLR 2020); the rate of 0.1 for a batch
# of 256 scales with the batch, and batch norm sees 32 images, as in Goyal et al. (arXiv 1706.02677).
_INAT_2018 = {"model": "resnet50", "epochs": 90, "image_size": 224}
register(
    "inat2018",
    DatasetInfo(
        inaturalist.load,
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

BUILT_IN = dict(DATASETS)  # what is in another's place, or beside it, is a user's
