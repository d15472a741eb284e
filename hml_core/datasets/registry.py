"""The data sets by name, and what is known of each before it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hml_core.datasets.base import Splits
from hml_core.errors import ConfigError, DataError, HmlError
from hml_core.system import fingerprints, registries, seeds, sources


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


def _kind(config: Any) -> str:
    """Who gives a ratio asks for a tail; who gives none keeps what is there."""
    return "natural" if config.imbalance_ratio in (None, 1.0) else "exp"


def _ratio(config: Any) -> float:
    """None is asked of a set that is kept as it is."""
    return 1.0 if config.imbalance_type == "natural" else 100.0


# Defaults of a data set of one's own, which has a tail of its own or none.
KEPT_UNLESS_ASKED: Mapping[str, Any] = {"imbalance_type": _kind, "imbalance_ratio": _ratio}

DATASETS: dict[str, DatasetInfo] = {}
BUILT_IN: dict[str, DatasetInfo] = {}  # what is in another's place, or beside it, is a user's
registries.add("dataset", DATASETS, BUILT_IN, {"DATASETS"}, lambda name: info(name).load)


def register(name: str, dataset: DatasetInfo) -> None:
    """Make a data set available under ``name``.

    Raises
    ------
    ConfigError
        For a name that is no word, what is no :class:`DatasetInfo` with a loader, or a loader without an
        identity.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise ConfigError(f"Expected a data set's `name` to be a word, got {name!r}.")
    if not isinstance(dataset, DatasetInfo) or not callable(dataset.load):
        raise ConfigError(
            f"Expected the data set {name!r} to be a `datasets.DatasetInfo(load, …)` whose `load` is "
            f"called with (config, data_root), got {dataset!r}."
        )
    if BUILT_IN:  # then this is a user's: its source is remembered as it is now
        # (What it imports when it runs may import the module that is only just being made.)
        sources.try_again()
        fingerprints.of_code(dataset.load, f"The data set {name!r}", follows_imports=False)
    DATASETS[name] = dataset


def is_built_in(name: str) -> bool:
    """Whether the data set is part of this package rather than registered by its user."""
    return info(name) is BUILT_IN.get(name)


@registries.asks("dataset")
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
    >>> departures("cifar100", {"model": "resnet8", "epochs": 1})
    'resnet8, 1 epoch'
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
    found = ["1 epoch" if text == "1 epochs" else text for text in found]
    if is_subset(fields):
        found.append("a subset of the images")
    return ", ".join(found)


def is_subset(fields: Mapping[str, Any]) -> bool:
    """Whether a run, by its config's fields, left classes or images out for a trial."""
    return bool(fields.get("subset_classes") or fields.get("subset_images"))


@registries.asks("dataset")
def load(config, data_root: str | Path | None = None) -> Splits:
    """The long-tailed data set that ``config`` describes.

    While a loader of one's own works, the global generators of torch, numpy and Python are seeded by
    ``subset_seed``: runs that differ in their ``seed`` alone have the same images. Whoever has the turn
    (:mod:`hml_core.system.seeds`) lends it meanwhile, there to threads that loaders have started.

    Raises
    ------
    DataError
        Where the files are missing or damaged, or a class is left without images; where a loader of one's
        own fails.
    """
    dataset = info(config.dataset)
    if dataset.needs_data_root and data_root is None:
        raise DataError(
            f"The data set {config.dataset!r} needs `data_root`, the folder that holds its files."
        )
    if is_built_in(config.dataset):
        return dataset.load(config, data_root)
    try:
        seeded = seeds.seeded(config.subset_seed, "data", everywhere=True, may_be_lent=False)
        with seeded, seeds.lending(draws=True):
            return dataset.load(config, data_root)
    except Exception as error:
        if isinstance(error, HmlError | MemoryError):
            raise
        raise DataError(
            f"The loader of {config.dataset!r} failed: {type(error).__name__}: {error}"
        ) from error
