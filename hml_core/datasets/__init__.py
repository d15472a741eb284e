"""Data sets by name, with the defaults that suit them.

A data set is a :class:`DatasetInfo` in :data:`DATASETS`; :func:`register` adds one's own, made of a
function ``load(config, data_root) → Splits``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hml_core.datasets import cifar, digits, imagefolder
from hml_core.datasets.base import LabelledImages, Splits, make_long_tailed
from hml_core.errors import ConfigError, DataError

__all__ = [
    "DATASETS",
    "DataError",
    "DatasetInfo",
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
        Values of the :class:`~hml_core.config.RunConfig` fields that are left at None.
    has_validation : bool
        The data set brings a validation split of its own.
    needs_data_root : bool
        The images are files that the user provides or downloads.
    """

    load: Callable[..., Splits]
    num_classes: int | None = None
    images_per_class: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    has_validation: bool = False
    needs_data_root: bool = False


DATASETS: dict[str, DatasetInfo] = {}


def register(name: str, dataset: DatasetInfo) -> None:
    """Make a data set available under ``name``."""
    DATASETS[name] = dataset


def is_built_in(name: str) -> bool:
    """Whether the data set is part of this package rather than registered by its user."""
    return info(name).load.__module__.startswith(__name__)


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
register(
    "cifar10",
    DatasetInfo(cifar.load_cifar10, num_classes=10, images_per_class=5000, needs_data_root=True),
)
register(
    "cifar100",
    DatasetInfo(cifar.load_cifar100, num_classes=100, images_per_class=500, needs_data_root=True),
)
register("imagefolder", DatasetInfo(imagefolder.load, needs_data_root=True))
