"""What every data set hands to the trainer: images in memory or in files, targets and their origin."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hml_core import imbalance
from hml_core.datasets.targets import check_targets
from hml_core.errors import DataError


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and their classes.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 (N, H, W, C).
    targets : numpy.ndarray
        int64 (N,), values 0 … C−1.
    """

    images: np.ndarray
    targets: np.ndarray

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                "Expected `images` to be uint8 of shape (N, H, W, C), "
                f"got {self.images.dtype} of shape {self.images.shape}."
            )
        if self.targets.shape != self.images.shape[:1]:
            raise DataError(
                f"Expected one target for each of {len(self.images)} images, "
                f"got targets of shape {self.targets.shape}."
            )

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: np.ndarray) -> LabelledImages:
        """The images at ``indices``, in that order."""
        return LabelledImages(self.images[indices], self.targets[indices])


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Colour images in files of their own, read when they are needed, and their classes.

    Parameters
    ----------
    folder : pathlib.Path
    names : tuple of str
        Of the files, relative to ``folder``.
    sha256 : tuple of str
        What the files must hold; every reader compares.
    targets : numpy.ndarray
        int64 (N,), values 0 … C−1.
    crops : bool
        The images differ in shape: a network sees a square out of their centre or, in training, out of
        anywhere. False: it sees the whole image.
    """

    folder: Path
    names: tuple[str, ...]
    sha256: tuple[str, ...]
    targets: np.ndarray
    crops: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: np.ndarray) -> LabelledFiles:
        """The images at ``indices``, in that order."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            sha256=tuple(self.sha256[i] for i in indices),
            targets=self.targets[indices],
        )

    def require_files(self) -> LabelledFiles:
        """Itself, with every file there.

        Raises
        ------
        DataError
            With the number of those that are gone and the first one's name.
        """
        if missing := [name for name in self.names if not (self.folder / name).is_file()]:
            raise DataError(
                f"{len(missing)} prepared image(s) are gone from {str(self.folder)!r}, such as "
                f"{missing[0]!r}: prepare it again."
            )
        return self


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Images that a trained network is judged on, and which of them are not independent.

    Parameters
    ----------
    images : LabelledImages or LabelledFiles
        Their targets are numbered as the classes of the :class:`Splits` beside them.
    clusters : numpy.ndarray
        str (N,): images with the same name show the same thing (a lesion, a patient), and are what an
        interval over the set is to draw. The names mean nothing beyond the set.
    """

    images: LabelledImages | LabelledFiles
    clusters: np.ndarray

    def sha256(self) -> str:
        """Over images, targets and clusters."""
        digest = hashlib.sha256(repr(self.clusters.tolist()).encode())
        _update(digest, self.images)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, made long-tailed and ready to train on.

    Parameters
    ----------
    name : str
    train, test : LabelledImages or LabelledFiles
    validation : the same, or None
    class_names : tuple of str
    mean, std : tuple of float
        Of each channel, for images scaled to [0, 1].
    train_indices : numpy.ndarray
        int64, where the training images stood in the full training set: the long-tailed subset.
    synthetic : bool
        True for made-up images; every table and figure then says so.
    class_groups : tuple of str
        What each class belongs to, such as a supercategory; empty where classes are not grouped.
    test_clusters : numpy.ndarray, optional
        str (N,), of the test images: see :class:`EvaluationSet`. None: each stands for itself.
    further_tests : mapping of str to EvaluationSet
        Sets beside the test split that a run's record also speaks of. Nothing is chosen on them, and a
        run is the same with them or without; :meth:`manifest` leaves them out.
    images_note : str
        What has to be said of the images wherever results on them are quoted, such as that they are a
        part of a published set.
    """

    name: str
    train: LabelledImages | LabelledFiles
    validation: LabelledImages | LabelledFiles | None
    test: LabelledImages | LabelledFiles
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_indices: np.ndarray
    synthetic: bool = False
    class_groups: tuple[str, ...] = ()
    test_clusters: np.ndarray | None = None
    further_tests: Mapping[str, EvaluationSet] = field(default_factory=dict)
    images_note: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 3 if isinstance(self.train, LabelledFiles) else self.train.images.shape[-1]

    @cached_property
    def class_counts(self) -> np.ndarray:
        """Training images of each class, int64 (C,)."""
        return np.bincount(self.train.targets, minlength=self.num_classes)

    def manifest(self) -> dict[str, Any]:
        """Which images were trained on, and a SHA-256 over all that the result depends on.

        The sum covers indices, pixels and targets of every split, class names and normalisation.
        """
        digest = hashlib.sha256(repr((self.class_names, self.mean, self.std)).encode())
        digest.update(self.train_indices.tobytes())
        for split in (self.train, self.validation, self.test):
            if split is not None:
                _update(digest, split)
        return {
            "dataset": self.name,
            "train_indices": self.train_indices.tolist(),
            "class_counts": self.class_counts.tolist(),
            "sha256": digest.hexdigest(),
        }


def _update(digest: hashlib._Hash, part: LabelledImages | LabelledFiles) -> None:
    """Add what is trained or tested on to a sum."""
    digest.update(np.ascontiguousarray(part.targets).data)
    if isinstance(part, LabelledFiles):
        digest.update(repr(part.sha256).encode())
    else:
        digest.update(np.ascontiguousarray(part.images).data)


def make_long_tailed(
    name: str,
    train: LabelledImages,
    test: LabelledImages,
    *,
    class_names: tuple[str, ...],
    imbalance_type: str,
    imbalance_ratio: float,
    subset_seed: int,
    validation: LabelledImages | None = None,
    validation_fraction: float = 0.0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Splits:
    """The standard long-tailed subset of a balanced training set, as :class:`Splits`.

    ``imbalance_type`` "natural" keeps every image. ``validation_fraction`` draws that part of every
    class of the *long-tailed* training set (at least one image, never all) for validation; where nothing
    is cut, a class of one image keeps it for training, with a warning. Another tail of classes that are
    not of one size is made with a warning that says what it throws away. Without ``mean`` and ``std`` they
    are those of the full training set.

    Raises
    ------
    DataError
        For targets that are no classes, and for a class that has fewer images than the subset asks for, or
        too few for a validation image.
    """
    num_classes = len(class_names)
    check_targets(f"the train split of {name!r}", train.targets, num_classes)
    available = np.bincount(train.targets, minlength=num_classes)
    try:
        if imbalance_type == "natural":
            indices = np.arange(len(train))
            if validation_fraction:  # in random order, as hold_out takes the last ones of a class
                indices = imbalance.subsample(train.targets, available, seed=subset_seed)
        else:
            if empty := [class_names[label] for label in np.flatnonzero(available == 0)]:
                raise ValueError(f"it has no training image of the class(es) {', '.join(empty)}.")
            counts = imbalance.class_counts(
                int(available.min()), num_classes, imbalance_type, imbalance_ratio
            )
            indices = imbalance.subsample(train.targets, counts, seed=subset_seed)
            _say_what_is_cut(name, available, counts, f"{imbalance_type} {imbalance_ratio:g}")
    except ValueError as error:
        raise DataError(f"The data set {name!r} cannot be made long-tailed: {error}") from error
    if validation_fraction:
        keeps_single = imbalance_type == "natural"
        indices, held_out = hold_out(
            train.targets, indices, validation_fraction, class_names, keeps_single=keeps_single
        )
        validation = train.take(held_out)
    if mean is None or std is None:
        mean, std = channel_statistics(histogram(train.images))
    return Splits(name, train.take(indices), validation, test, class_names, mean, std, indices)


def _say_what_is_cut(name: str, available: np.ndarray, counts: np.ndarray, tail: str) -> None:
    """A tail made of classes of unequal size begins by throwing most of the large ones away."""
    if available.min() == available.max():
        return
    warnings.warn(
        f"The classes of {name!r} have {available.min():,} to {available.max():,} training images, and "
        f"a tail {tail} begins with the rarest class's number in every one: of {available.sum():,} images "
        f"it keeps {counts.sum():,} and throws {available.sum() - counts.sum():,} away. `imbalance_type` "
        "'natural' keeps them all.",
        stacklevel=4,
    )


def histogram(images: np.ndarray) -> np.ndarray:
    """How often each channel of uint8 (N, H, W, C) has each grey level: int64 (C, 256)."""
    counts = np.zeros((images.shape[-1], 256), dtype=np.int64)
    for start in range(0, len(images), 5000):  # in parts, as the images may be mapped
        part = np.asarray(images[start : start + 5000])
        for channel in range(images.shape[-1]):
            counts[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    return counts


def channel_statistics(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, scaled to [0, 1], of a :func:`histogram` (C, 256)."""
    counts = counts.astype(np.float64)
    share, level = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    average = share @ level
    # A channel without contrast has no scale: one grey level, rather than a division by zero.
    variance = np.maximum(share @ level**2 - average**2, 0)
    return tuple(average.tolist()), tuple(np.maximum(np.sqrt(variance), 1 / 255).tolist())


def hold_out(
    targets: np.ndarray,
    indices: np.ndarray,
    fraction: float,
    class_names: tuple[str, ...],
    *,
    keeps_single: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Split ``indices`` class by class into (train, validation): the last ones are held out.

    The subset is already in random order within each class, so no further draw is needed, and the
    remaining training images are the first ones of the standard subset. A class too small for both is an
    error; ``keeps_single`` leaves one of a single image in training and says so.
    """
    kept, held_out, single = [], [], []
    for label, class_name in enumerate(class_names):
        members = indices[targets[indices] == label]
        number = max(1, round(fraction * len(members)))
        if keeps_single and len(members) == 1:
            single.append(class_name)
            number = 0
        if number >= len(members):
            raise DataError(
                f"Class {class_name!r} keeps {len(members)} image(s): a validation split would leave "
                "none to train on. Expected a smaller `imbalance_ratio` or `validation_fraction` 0."
            )
        kept.append(members[: len(members) - number])
        held_out.append(members[len(members) - number :])
    if single:
        warnings.warn(
            f"The class(es) {', '.join(single)} have one image: it is trained on, and none of them is in "
            "the validation split.",
            stacklevel=3,
        )
    return np.concatenate(kept), np.concatenate(held_out)
