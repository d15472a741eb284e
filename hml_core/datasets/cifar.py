"""CIFAR-10 and CIFAR-100 in torchvision's layout, made long-tailed the standard way."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hml_core.datasets.base import LabelledImages, Splits, make_long_tailed
from hml_core.datasets.registry import DatasetInfo, register
from hml_core.errors import DataError
from hml_core.system import downloads

# The constants of the LDAM code, which the literature on these subsets uses.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
LONG_TAILED = {"model": "resnet32", "epochs": 200}  # of the literature on these subsets
LARGEST_FILE = 2**28  # bytes of an archive, and of each file in it; they have 170 million


def load_cifar10(config, data_root) -> Splits:
    """CIFAR-10-LT for a run."""
    return _load("cifar10", config, data_root)


def load_cifar100(config, data_root) -> Splits:
    """CIFAR-100-LT for a run."""
    return _load("cifar100", config, data_root)


def _load(name: str, config, data_root) -> Splits:
    train, test, class_names = read(name, str(data_root))
    return make_long_tailed(
        name,
        train,
        test,
        class_names=class_names,
        imbalance_type=config.imbalance_type,
        imbalance_ratio=config.imbalance_ratio,
        subset_seed=config.subset_seed,
        validation_fraction=config.validation_fraction,
        mean=MEAN,
        std=STD,
    )


@lru_cache(maxsize=1)
def read(name: str, data_root: str) -> tuple[LabelledImages, LabelledImages, tuple[str, ...]]:
    """The full training and test sets in official order, checked against the published MD5 sums.

    Raises
    ------
    DataError
        Where the files are not there or not what was published.
    """
    from torchvision import datasets  # seconds to import: for those who want CIFAR

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    parts = []
    for is_train in (True, False):
        try:
            require_regular(kind, Path(data_root))
            part = kind(root=data_root, train=is_train, download=False)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            raise DataError(
                f"{name} is not in {data_root!r}, or damaged: run "
                f"`hml prepare {name} --data-root {data_root}` ({error})."
            ) from error
        parts.append(LabelledImages(part.data, np.asarray(part.targets, dtype=np.int64)))
    return parts[0], parts[1], tuple(part.classes)


def require_regular(kind: Any, root: Path) -> list[str]:
    """Look at the files of a class of torchvision's, before it takes the sum of whatever lies there.

    Returns their names below ``root``, the archive's first.

    Raises
    ------
    OSError
        For a pipe, a device, a file with a hole of a terabyte: with its name.
    """
    files = (kind.meta["filename"], *(name for name, _ in (*kind.train_list, *kind.test_list)))
    names = [kind.filename, *(f"{kind.base_folder}/{name}" for name in files)]
    for name in names:
        downloads.require_regular(root / name, LARGEST_FILE)
    return names


register(
    "cifar10",
    DatasetInfo(
        load_cifar10,
        num_classes=10,
        images_per_class=5000,
        published=LONG_TAILED,
        needs_data_root=True,
    ),
)
register(
    "cifar100",
    DatasetInfo(
        load_cifar100,
        num_classes=100,
        images_per_class=500,
        published=LONG_TAILED,
        needs_data_root=True,
    ),
)
