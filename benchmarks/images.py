"""Made-up images of CIFAR's shape: how long a step takes does not depend on what they show."""

from __future__ import annotations

import numpy as np

from hml_core.datasets import LabelledImages, Splits

CLASSES = 100
TEST = 2000  # a fifth of CIFAR's test split


def splits(train: int, test: int = TEST) -> Splits:
    """Random pixels in the shape of CIFAR-100, with that many images."""
    random = np.random.default_rng(0)

    def part(number: int) -> LabelledImages:
        images = random.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
        return LabelledImages(images, random.permutation(number) % CLASSES)

    return Splits(
        name="made-up images of CIFAR's shape",
        train=part(train),
        validation=None,
        test=part(test),
        class_names=tuple(str(number) for number in range(CLASSES)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        train_indices=np.arange(train),
        synthetic=True,
    )
