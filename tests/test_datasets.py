"""Data sets: splits that do not overlap, the long-tailed subset, the manifest."""

from __future__ import annotations

import numpy as np
import pytest

from hml_core import datasets, imbalance
from hml_core.config import RunConfig
from hml_core.datasets import LabelledImages, Splits, make_long_tailed
from hml_core.errors import ConfigError, DataError


def rows(images: LabelledImages) -> set[bytes]:
    return {image.tobytes() for image in images.images}


def test_digits_are_real_balanced_in_the_test_set_and_split_without_overlap():
    from sklearn.datasets import load_digits

    splits = datasets.load(RunConfig())
    assert np.bincount(splits.test.targets).tolist() == [45] * 10
    assert np.bincount(splits.validation.targets).tolist() == [15] * 10
    expected = imbalance.class_counts(114, 10, "exp", 20)
    assert splits.class_counts.tolist() == expected.tolist()
    assert not rows(splits.train) & rows(splits.test)
    assert not rows(splits.train) & rows(splits.validation)
    assert not rows(splits.validation) & rows(splits.test)
    source = load_digits()
    known = {
        np.rint(i * (255 / 16)).astype(np.uint8).tobytes(): t
        for i, t in zip(source.images, source.target, strict=True)
    }
    for split in (splits.train, splits.validation, splits.test):
        for image, target in zip(split.images, split.targets, strict=True):
            assert known[image.tobytes()] == target


def test_the_subset_depends_on_its_seed_alone():
    def indices(**fields):
        return datasets.load(RunConfig(**fields)).train_indices.tolist()

    assert indices(seed=0) == indices(seed=1) == indices(recipe="hml1")
    assert indices(subset_seed=0) != indices(subset_seed=1)


def test_the_manifest_pins_the_images():
    first = datasets.load(RunConfig()).manifest()
    assert first == datasets.load(RunConfig(seed=3)).manifest()
    assert first["sha256"] != datasets.load(RunConfig(subset_seed=1)).manifest()["sha256"]
    assert len(first["train_indices"]) == sum(first["class_counts"])


def synthetic(per_class: int = 20, classes: int = 3) -> LabelledImages:
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(classes), per_class)
    return LabelledImages(random.integers(0, 256, (len(targets), 4, 4, 3), dtype=np.uint8), targets)


def split(**options) -> Splits:
    arguments = {
        "class_names": ("a", "b", "c"),
        "imbalance_type": "exp",
        "imbalance_ratio": 4.0,
        "subset_seed": 0,
    }
    return make_long_tailed("synthetic", synthetic(), synthetic(5), **{**arguments, **options})


def test_a_class_without_images_has_no_place_in_a_tail():
    with pytest.raises(DataError, match=r"be made long-tailed: .* no training image .* d\."):
        split(class_names=("a", "b", "c", "d"))
    kept = split(class_names=("a", "b", "c", "d"), imbalance_type="natural")
    assert kept.class_counts.tolist() == [20, 20, 20, 0]


def test_validation_is_drawn_from_the_long_tailed_training_set():
    plain, held = split(), split(validation_fraction=0.2)
    assert plain.class_counts.tolist() == [20, 10, 5]
    assert held.class_counts.tolist() == [16, 8, 4]
    assert np.bincount(held.validation.targets).tolist() == [4, 2, 1]
    assert rows(held.train) | rows(held.validation) == rows(plain.train)
    assert set(held.train_indices) < set(plain.train_indices)


def test_a_class_too_small_to_hold_out_is_named():
    with pytest.raises(DataError, match="Class 'c' keeps 1 image"):
        split(imbalance_ratio=20.0, validation_fraction=0.1)


def test_channel_statistics_are_those_of_the_full_training_set():
    made = split()
    pixels = synthetic().images.reshape(-1, 3) / 255
    np.testing.assert_allclose(made.mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(made.std, pixels.std(axis=0), rtol=1e-9)


def test_bad_data_is_refused():
    with pytest.raises(DataError, match=r"cannot be made long-tailed: .*keeps 0 of 20"):
        split(imbalance_ratio=21.0)
    with pytest.raises(DataError, match="uint8 of shape \\(N, H, W, C\\)"):
        LabelledImages(np.zeros((2, 4, 4)), np.zeros(2, dtype=np.int64))
    with pytest.raises(DataError, match="one target for each of 2 images"):
        LabelledImages(np.zeros((2, 4, 4, 1), dtype=np.uint8), np.zeros(3, dtype=np.int64))
    with pytest.raises(ConfigError, match="`dataset` to be one of"):
        datasets.info("imagenet")
