"""What a loader hands over is checked once, whoever wrote it: before anything is trained or written."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets.base import EvaluationSet, LabelledFiles, LabelledImages, Splits
from hml_core.datasets.targets import check_targets
from hml_core.errors import DataError
from hml_core.system.fields import is_text

MOST_CHANNELS_FIRST = 4  # of images whose channels stand where their height should be
LONGEST_NOTE = 10_000  # characters: it stands below tables and figures
NAME = re.compile(
    r"(?!(?:test|best|last)(?:_|$))[a-z]\w*"
)  # of a further set, no name of another array


def check(config: RunConfig, splits: Splits) -> None:
    """Splits that can be trained on and evaluated, as :class:`Splits` describes them.

    Raises
    ------
    DataError
        Naming the split, the value that it has, the one that was expected and what to do.
    """
    if not isinstance(splits, Splits):
        raise DataError(
            f"Expected the loader of {config.dataset!r} to return `hml_core.datasets.Splits`, got "
            f"{type(splits).__name__}."
        )
    _require_kinds(config, splits)
    if twice := [name for name, n in Counter(splits.class_names).items() if n > 1]:
        raise DataError(
            f"Expected `class_names` of {config.dataset!r} to tell the classes apart, got several "
            f"{', '.join(map(repr, twice))}."
        )
    _require_validation(config, splits)
    for what, part in _parts(config, splits):
        if not isinstance(part, LabelledImages | LabelledFiles):
            raise DataError(
                f"Expected {what} to be `LabelledImages` or `LabelledFiles`, got {type(part).__name__}."
            )
        check_targets(what, part.targets, splits.num_classes)
        if isinstance(part, LabelledFiles):
            _require_lengths(what, part)
        else:
            _require_layout(what, part.images, len(part.targets))
    if splits.train_indices.shape != splits.train.targets.shape:
        raise DataError(
            f"Expected `train_indices` of shape {splits.train.targets.shape}, one for each training image "
            f"of {config.dataset!r}, got {splits.train_indices.shape}."
        )
    _require_clusters(config, splits)
    if splits.class_groups and len(splits.class_groups) != splits.num_classes:
        raise DataError(
            f"Expected `class_groups` of {config.dataset!r} to be empty or one for each of "
            f"{splits.num_classes} classes, got {len(splits.class_groups)}."
        )
    _require_channels(config, splits)


def _require_kinds(config: RunConfig, splits: Splits) -> None:
    """What a run's record holds as it is, and what is counted or sorted when all is trained."""

    def texts(given: Any) -> bool:
        return isinstance(given, tuple | list) and all(map(is_text, given))

    def whole(given: Any) -> bool:
        return isinstance(given, np.ndarray) and given.dtype.kind in "iu"

    def note(given: Any) -> bool:
        return is_text(given) and len(given) <= LONGEST_NOTE

    expected = {
        "class_names": (texts, "a tuple of texts"),
        "class_groups": (texts, "a tuple of texts"),
        "train_indices": (whole, "an array of whole numbers"),
        "synthetic": (lambda given: isinstance(given, bool), "True or False"),
        "images_note": (note, f"a text of at most {LONGEST_NOTE:,} characters"),
        "further_tests": (lambda given: isinstance(given, Mapping), "a mapping by name"),
    }
    for name, (is_right, what) in expected.items():
        given = getattr(splits, name)
        if not is_right(given):
            raise DataError(
                f"Expected `{name}` of {config.dataset!r} to be {what}, got {type(given).__name__} "
                f"{reprlib.repr(given)}."
            )


def _parts(config: RunConfig, splits: Splits) -> Iterator[tuple[str, Any]]:
    """Every set of images, with what a message calls it."""
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        if part is not None or name != "validation":
            yield f"the {name} split of {config.dataset!r}", part
    for name, further in splits.further_tests.items():
        if not isinstance(further, EvaluationSet) or not NAME.fullmatch(name):
            raise DataError(
                "Expected `further_tests` to hold `EvaluationSet`s by names of small letters, such as "
                f"'official_test', got {type(further).__name__} called {name!r}."
            )
        yield f"the further set {name!r} of {config.dataset!r}", further.images


def _require_clusters(config: RunConfig, splits: Splits) -> None:
    """A name for each image that an interval may be asked about."""
    found = {"test": (splits.test_clusters, splits.test)}
    found |= {name: (one.clusters, one.images) for name, one in splits.further_tests.items()}
    for name, (clusters, images) in found.items():
        if clusters is not None and np.shape(clusters) != np.shape(images.targets):
            raise DataError(
                f"Expected a cluster for each of the {len(images)} images of the set {name!r} of "
                f"{config.dataset!r}, got an array of shape {np.shape(clusters)}."
            )
        if clusters is not None and not all(isinstance(one, str) for one in _objects(clusters)):
            raise DataError(
                f"Expected the clusters of the set {name!r} of {config.dataset!r} to be texts, got "
                f"{reprlib.repr(_objects(clusters))}."
            )


def _objects(values: Any) -> list[Any]:
    """Those of an array of objects, which may be of any kind; numbers and texts alone can be sorted."""
    found = np.asarray(values)
    return found.tolist() if found.dtype.kind == "O" else []


def _require_validation(config: RunConfig, splits: Splits) -> None:
    """A split that is announced is there: early stopping and plateaus watch it."""
    if splits.validation is not None:
        return
    if datasets.info(config.dataset).has_validation:
        raise DataError(
            f"The data set {config.dataset!r} is registered with `has_validation`, and its loader handed "
            "over no validation split: expected `Splits.validation`, or `has_validation=False`."
        )
    if config.validation_fraction:
        raise DataError(
            f"The loader of {config.dataset!r} handed over no validation split: expected it to hold out "
            f"`validation_fraction` {config.validation_fraction:g} of the training images "
            "(`make_long_tailed` does), or `validation_fraction` 0."
        )


def _require_lengths(what: str, part: LabelledFiles) -> None:
    lengths = len(part.names), len(part.sha256), len(part.targets)
    if len(set(lengths)) > 1:
        raise DataError(
            f"Expected a name, a sum and a target for each image of {what}, got {lengths[0]} names, "
            f"{lengths[1]} SHA-256 sums and {lengths[2]} targets."
        )


def _require_layout(what: str, images: np.ndarray, targets: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != targets:
        broken = ""
        if images.dtype.kind == "f" and (number := int((~np.isfinite(images)).sum())):
            broken = f", {number:,} of its values not finite"
        raise DataError(
            f"Expected the images of {what} to be uint8 of shape ({targets}, H, W, C), grey levels from 0 "
            f"to 255 and one image for each target, got {images.dtype} of shape {images.shape}{broken}."
        )
    _, first, _, last = images.shape
    if first <= MOST_CHANNELS_FIRST < last:
        raise DataError(
            f"Expected the images of {what} to have their channels last, (N, H, W, C), got shape "
            f"{images.shape}, which looks like (N, C, H, W): use `images.transpose(0, 2, 3, 1)`."
        )


def _require_channels(config: RunConfig, splits: Splits) -> None:
    channels = splits.channels
    for name in ("validation", "test"):
        part = getattr(splits, name)
        if isinstance(part, LabelledImages) and part.images.shape[-1] != channels:
            raise DataError(
                f"Expected {channels} channel(s) in the {name} split of {config.dataset!r}, as in its "
                f"training images, got {part.images.shape[-1]}."
            )
    for name in ("mean", "std"):
        try:
            values = np.asarray(getattr(splits, name), dtype=float)
        # Texts, lists of several lengths, complex numbers, whole numbers of many digits.
        except (TypeError, ValueError, OverflowError):
            values = np.empty(0)
        if values.shape != (channels,) or not np.isfinite(values).all():
            raise DataError(
                f"Expected `{name}` of {config.dataset!r} to be a finite number for each of {channels} "
                f"channel(s), of images scaled to [0, 1], got {getattr(splits, name)!r}."
            )
    if min(splits.std) <= 0:
        raise DataError(
            f"Expected `std` > 0 for every channel of {config.dataset!r}, got {splits.std!r}: a channel "
            "without contrast has no scale, leave it out or give it 1/255."
        )
