"""What a loader hands over is checked before the record is begun: every kind of fault, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets import DatasetInfo, LabelledFiles, LabelledImages, Splits
from hml_core.errors import ConfigError, DataError
from hml_core.trainer import fit, handed_over

CLASSES = 3


def part(number: int = 12, shape: tuple[int, ...] = (8, 8, 3)) -> LabelledImages:
    random = np.random.default_rng(number)
    images = random.integers(0, 256, (number, *shape), dtype=np.uint8)
    return LabelledImages(images, np.arange(number) % CLASSES)


def sound(number: int = 12, **changed) -> Splits:
    given = {
        "name": "own",
        "train": part(number),
        "validation": part(6),
        "test": part(9),
        "class_names": ("a", "b", "c"),
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "train_indices": np.arange(number),
    }
    return Splits(**{**given, **changed})


def relabelled(targets, number: int = 12) -> LabelledImages:
    return LabelledImages(part(number).images, targets)


def unchecked(images, targets) -> LabelledImages:
    """Handed over by a class that lets everything through."""

    class Unchecked(LabelledImages):
        def __post_init__(self) -> None:
            pass

    return Unchecked(images, targets)


@pytest.fixture
def loaded():
    """Train on whatever is handed over, in as few steps as there are."""
    before = dict(datasets.DATASETS)

    def train(make, runs_root: Path, info: dict | None = None, **fields):
        info = {"has_validation": True, **(info or {})}
        datasets.register("own", DatasetInfo(lambda config, root: make(), num_classes=3, **info))
        config = RunConfig(
            **{"dataset": "own", "recipe": "ce", "model": "resnet8", "epochs": 1, "batch_size": 4}
            | {"imbalance_type": "natural", "imbalance_ratio": 1.0, "augmentation": "none"}
            | fields
        )
        return fit(config, runs_root=runs_root, progress=False)

    yield train
    datasets.DATASETS.clear()
    datasets.DATASETS.update(before)


def files(number: int, names: int) -> LabelledFiles:
    texts = tuple(str(k) for k in range(names))
    return LabelledFiles(Path("nowhere"), texts, texts, np.arange(number) % CLASSES)


TARGETS = np.arange(12) % CLASSES
SQUARES = part().images.transpose(0, 3, 1, 2)
FAULTS = {
    "int32": (
        lambda: sound(train=relabelled(TARGETS.astype(np.int32))),
        r"train split of 'own' to be int64 .*got int32 of shape \(12,\): convert",
    ),
    "float": (
        lambda: sound(test=relabelled(TARGETS.astype(float))),
        "test split of 'own' to be int64 .*got float64",
    ),
    "one-hot": (
        lambda: sound(train=unchecked(part().images, np.eye(3, dtype=np.int64)[TARGETS])),
        r"got int64 of shape \(12, 3\)",
    ),
    "from 1": (
        lambda: sound(train=relabelled(TARGETS + 1)),
        r"train .* 0 … 2 for its 3 classes, got 1 … 3: they seem to count from 1: subtract 1",
    ),
    "from 1 in the test": (
        lambda: sound(test=relabelled(TARGETS + 1)),
        "test split .*count from 1",
    ),
    "without a class": (
        lambda: sound(validation=relabelled(np.where(TARGETS == 0, -1, TARGETS))),
        r"validation .*got -1 … 2: leave out the 4 image\(s\) without a class",
    ),
    "one class too many": (
        lambda: sound(class_names=("a", "b")),
        "0 … 1 for its 2 classes, got 0 … 2: expected one class name",
    ),
    "channels first": (
        lambda: sound(train=LabelledImages(SQUARES, TARGETS)),
        r"channels last, .*got shape \(12, 3, 8, 8\).*transpose\(0, 2, 3, 1\)",
    ),
    "channels first in the test": (
        lambda: sound(test=LabelledImages(SQUARES, TARGETS)),
        "test split .*channels last",
    ),
    "grey in the test": (
        lambda: sound(test=part(9, (8, 8, 1))),
        r"3 channel\(s\) in the test split .* got 1",
    ),
    "not finite": (
        lambda: sound(train=unchecked(np.full((12, 8, 8, 3), np.nan, np.float32), TARGETS)),
        "uint8 .*got float32 .*2,304 of its values not finite",
    ),
    "floats": (
        lambda: sound(train=LabelledImages(part().images / 255.0, TARGETS)),
        "uint8 .*got float64",
    ),
    "targets of another length": (
        lambda: sound(train=unchecked(part().images, TARGETS[:-1])),
        r"shape \(11, H, W, C\).*one image for each target, got uint8 of shape \(12,",
    ),
    "targets of another length than files": (
        lambda: sound(train=files(12, names=11)),
        "got 11 names, 11 SHA-256 sums and 12 targets",
    ),
    "no image": (
        lambda: sound(test=LabelledImages(part().images[:0], TARGETS[:0])),
        "at least one image in the test split",
    ),
    "indices": (
        lambda: sound(train_indices=np.arange(5)),
        r"`train_indices` of shape \(12,\).*got \(5,\)",
    ),
    "deviation 0": (lambda: sound(std=(0.2, 0.0, 0.2)), r"`std` > 0 .*got \(0.2, 0.0, 0.2\)"),
    "deviation NaN": (lambda: sound(std=(0.2, np.nan, 0.2)), "`std` .*finite number for each of 3"),
    "means": (lambda: sound(mean=(0.5,)), r"`mean` .*for each of 3 channel\(s\).*got \(0.5,\)"),
    "validation": (
        lambda: sound(validation=None),
        "registered with `has_validation`, and its loader handed over no validation split",
    ),
    "groups": (
        lambda: sound(class_groups=("x", "y")),
        "`class_groups` .* one for each of 3 classes, got 2",
    ),
    "names that are numbers": (
        lambda: sound(class_names=(1, 2, 3)),
        r"`class_names` of 'own' to be a tuple of texts, got tuple \(1, 2, 3\)",
    ),
    "half of a character": (
        lambda: sound(class_names=("a", "b", "\ud800")),
        "`class_names` of 'own' to be a tuple of texts",
    ),
    "a note that cannot be written": (
        lambda: sound(images_note="\ud800"),
        "`images_note` of 'own' to be a text",
    ),
    "one name for two": (
        lambda: sound(class_names=("a", "b", "a")),
        "`class_names` of 'own' to tell the classes apart, got several 'a'",
    ),
    "a text of names": (lambda: sound(class_names="abc"), "tuple of texts, got str 'abc'"),
    "names one by one": (lambda: sound(class_names=iter("abc")), "tuple of texts, got str_ascii"),
    "an array of groups": (
        lambda: sound(class_groups=np.array(["x", "y", "z"])),
        "`class_groups` of 'own' to be a tuple of texts, got ndarray",
    ),
    "no indices": (
        lambda: sound(train_indices=None),
        "`train_indices` .* an array of whole numbers, got NoneType None",
    ),
    "indices between": (lambda: sound(train_indices=np.arange(12) / 2), "array of whole numbers"),
    "a truth of NumPy": (
        lambda: sound(synthetic=np.bool_(True)),
        "`synthetic` of 'own' to be True or False, got bool",
    ),
    "a word for a truth": (lambda: sound(synthetic="no"), "to be True or False, got str 'no'"),
    "a note without end": (
        lambda: sound(images_note="x" * 10**6),
        "`images_note` .* a text of at most 10,000 characters",
    ),
    "a list of further sets": (lambda: sound(further_tests=[1]), "a mapping by name, got list"),
    "clusters of nothing": (
        lambda: sound(test_clusters=np.array([None] * 9)),
        r"clusters of the set 'test' of 'own' to be texts, got \[None",
    ),
    "means in words": (lambda: sound(mean="abc"), "`mean` .* finite number .* got 'abc'"),
    "complex deviations": (lambda: sound(std=(1j,) * 3), "`std` .* finite number"),
    "something else": (lambda: (part(), part()), "return `hml_core.datasets.Splits`, got tuple"),
    "arrays": (
        lambda: sound(train=TARGETS),
        "to be `LabelledImages` or `LabelledFiles`, got ndarray",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_is_written(fault, loaded, tmp_path):
    make, message = FAULTS[fault]
    with pytest.raises(DataError, match=message):
        loaded(make, tmp_path)
    assert not list(tmp_path.glob("[!.]*"))


def test_what_is_sound_is_trained(loaded, tmp_path):
    assert loaded(sound, tmp_path).metrics["trained_epochs"] == 1
    handed_over.check(RunConfig(), datasets.load(RunConfig()))


@pytest.mark.parametrize("setting", ["early_stopping", "switch_patience"])
def test_what_watches_validation_never_watches_nothing(setting, loaded, tmp_path):
    fields = {setting: 1, "recipe": "hml1", "epochs": 2}
    with pytest.raises(DataError, match="no validation split"):
        loaded(lambda: sound(validation=None), tmp_path / "declared", **fields)
    with pytest.raises(DataError, match=r"hold out `validation_fraction` 0.2"):
        loaded(
            lambda: sound(validation=None),
            tmp_path / "asked for",
            info={"has_validation": False},
            validation_fraction=0.2,
            **fields,
        )


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_are_named_where_a_subset_is_made(shift):
    with pytest.raises(DataError, match="train split of 'own' to lie in 0 … 2"):
        datasets.make_long_tailed(
            "own",
            relabelled(TARGETS + shift),
            part(),
            class_names=("a", "b", "c"),
            imbalance_type="exp",
            imbalance_ratio=2.0,
            subset_seed=0,
        )


def small(number: int) -> Splits:
    """Images of which the last layers see one point."""
    train = part(number, (2, 2, 3))
    return sound(number, train=train, validation=part(6, (2, 2, 3)), test=part(9, (2, 2, 3)))


def test_a_last_batch_of_one_image_is_refused_where_batch_norm_needs_two(loaded, tmp_path):
    with pytest.raises(
        ConfigError, match=r"Of 13 training .* another `batch_size`, such as 5, got 4"
    ):
        loaded(lambda: small(13), tmp_path)
    with pytest.raises(ConfigError, match=r"another `micro_batch_size`, such as 2, got 1"):
        loaded(lambda: small(12), tmp_path, micro_batch_size=1)
    assert not list(tmp_path.glob("[!.]*"))
    loaded(lambda: small(12), tmp_path)
    loaded(lambda: small(13), tmp_path, batch_size=5)


def test_a_last_batch_of_one_image_trains_where_its_maps_have_several_points(loaded, tmp_path):
    assert loaded(lambda: sound(13), tmp_path).history["train_loss"].notna().all()
