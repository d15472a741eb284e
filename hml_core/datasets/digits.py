"""Digits-LT: real handwritten digits that come with scikit-learn, so that nothing is downloaded.

The 1,797 grey 8×8 images are the test part of the UCI "Optical recognition of handwritten digits"
(Alpaydin and Kaynak, 1998), as :func:`sklearn.datasets.load_digits` ships them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hml_core.datasets.base import LabelledImages, Splits, make_long_tailed
from hml_core.datasets.registry import DatasetInfo, register

TEST_PER_CLASS = 45
VALIDATION_PER_CLASS = 15
TRAIN_PER_CLASS = 114  # the rarest digit has 174 images
CLASS_NAMES = tuple(str(digit) for digit in range(10))


@lru_cache(maxsize=1)
def _balanced_splits() -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """(train, validation, test), each with the same number of images of every digit.

    The split is part of the data set: it is always the same, whatever the seed of a run.
    """
    from sklearn.datasets import load_digits  # with scipy, two seconds: for those who want digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
    targets = digits.target.astype(np.int64)
    random = np.random.RandomState(0)
    parts: tuple[list, list, list] = ([], [], [])
    for label in range(10):
        members = random.permutation(np.flatnonzero(targets == label))
        test_end = TEST_PER_CLASS
        validation_end = test_end + VALIDATION_PER_CLASS
        parts[0].append(members[validation_end : validation_end + TRAIN_PER_CLASS])
        parts[1].append(members[test_end:validation_end])
        parts[2].append(members[:test_end])
    whole = LabelledImages(images, targets)
    train, validation, test = (whole.take(np.concatenate(part)) for part in parts)
    return train, validation, test


def load(config, data_root=None) -> Splits:
    """Digits-LT for a run: up to 114 training images a class, 15 for validation, 45 for the test."""
    train, validation, test = _balanced_splits()
    return make_long_tailed(
        "digits",
        train,
        test,
        validation=validation,
        class_names=CLASS_NAMES,
        imbalance_type=config.imbalance_type,
        imbalance_ratio=config.imbalance_ratio,
        subset_seed=config.subset_seed,
    )


register(
    "digits",
    DatasetInfo(
        load,
        num_classes=10,
        images_per_class=TRAIN_PER_CLASS,
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
