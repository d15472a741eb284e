"""What settings must satisfy together, before anything is read or trained.

What concerns one of them alone stands where it is declared (:mod:`hml_core.config.settings`).
"""

from __future__ import annotations

import math
from typing import Any

from hml_core import datasets, imbalance, models
from hml_core.augment import AUGMENTATIONS, FILE_AUGMENTATIONS
from hml_core.config.settings import Settings
from hml_core.errors import ConfigError
from hml_core.losses import LOSSES, wrapping
from hml_core.losses.base import WEIGHTINGS
from hml_core.losses.hard_mining import LARGEST_DELTA

LARGEST_IMAGE = 4096


def numbers(values: Settings) -> None:
    """Numbers whose range needs more than two bounds; ConfigError otherwise."""
    ratio = values.imbalance_ratio
    if not math.isfinite(ratio) or ratio < 1:
        meant = ""
        if 0 < ratio < 1:
            meant = f"; {ratio:g} is n_min / n_max: did you mean {1 / ratio:g}?"
        raise ConfigError(f"Expected `imbalance_ratio` n_max / n_min ≥ 1, got {ratio:g}{meant}")
    if values.micro_batch_size and values.batch_size % values.micro_batch_size:
        raise ConfigError(
            f"Expected `micro_batch_size` to divide the `batch_size` {values.batch_size}, "
            f"got {values.micro_batch_size}."
        )
    if values.delta is not None and LARGEST_DELTA < values.delta < math.inf:
        raise ConfigError(
            f"Expected `delta` ≤ {LARGEST_DELTA:g} or infinite (L_f), got {values.delta}."
        )


def hint(name: str, value: Any) -> str:
    """What may have been meant by a name that is none of the choices."""
    if name == "weighting" and value in WEIGHTINGS:
        return " (where the weight enters the loss is `weight_placement`)"
    return ""


def combination(values: Settings, *, is_stored: bool = False) -> None:
    """Settings that make sense together; ConfigError with the reason otherwise.

    ``is_stored``: they were accepted once, and what was without effect then is no reason.
    """
    recipe, stages = values.recipe, values.stages
    if not 0 <= values.warmup_epochs <= values.epochs:
        raise ConfigError(
            f"Expected 0 ≤ `warmup_epochs` ≤ {values.epochs} epochs, got {values.warmup_epochs}."
        )
    _images(values)
    if not is_stored:
        _tail(values)
    _class_counts(values)
    own = {stage.sampler for stage in stages} - {"instance"}
    if own and values.sampler != "instance":
        raise ConfigError(
            f"The recipe {recipe!r} samples by itself ({', '.join(sorted(own))}): "
            f"expected `sampler` 'instance', got {values.sampler!r}."
        )
    adjusted = any(getattr(stage.loss_class, "corrects_priors", False) for stage in stages)
    if adjusted and values.sampler != "instance":
        raise ConfigError(
            f"The loss of {recipe!r} corrects for class frequencies that the sampler "
            f"{values.sampler!r} has already changed: expected `sampler` 'instance'."
        )
    if values.post_hoc_tau and adjusted:
        raise ConfigError(
            f"The recipe {recipe!r} adjusts its logits in training: post-hoc adjustment would "
            "correct twice. Expected `post_hoc_tau` 0."
        )
    if values.post_hoc_tau and values.method.post_hoc == "ncm":
        raise ConfigError(
            "The recipe 'ncm' has cosines to class means for logits, which hold no class priors: "
            "expected `post_hoc_tau` 0."
        )
    if values.method.post_hoc == "tau_norm" and values.head == "cosine":
        raise ConfigError(
            "A cosine head has normalised its class vectors already: expected `head` 'linear' for "
            "the recipe 'tau_norm'."
        )
    if values.early_drop and values.method.has_own_schedule:
        raise ConfigError(
            f"The recipe {recipe!r} has a drop of its own under every protocol: "
            "expected `early_drop` false."
        )
    for name, off in {"switch_patience": 0, "second_stage_rate": 1}.items():
        if getattr(values, name) != off:
            _needs_a_switch(values, name, off)
    for name in ("switch_patience", "early_stopping"):
        if getattr(values, name):
            _watches_validation(values, name)
    if values.label_smoothing and values.label_aware_smoothing:
        raise ConfigError("Expected `label_smoothing` or `label_aware_smoothing`, got both.")
    classes = values.subset_classes or datasets.info(values.dataset).num_classes
    if classes and values.label_aware_smoothing >= (most := 1 - 1 / classes):
        raise ConfigError(
            f"Expected `label_aware_smoothing` < {most:g} for {classes} classes, where the most frequent "
            f"one would keep no more than the others, got {values.label_aware_smoothing}."
        )
    smoothed = values.label_smoothing or values.label_aware_smoothing
    if smoothed and not any(takes_smoothing(stage.loss) for stage in stages):
        raise ConfigError(
            f"No stage of {recipe!r} has a cross-entropy whose labels could be smoothed: expected "
            "`label_smoothing` and `label_aware_smoothing` 0."
        )


def _images(values: Settings) -> None:
    """Settings of image files for image files only, and the other way round."""
    streamed = datasets.info(values.dataset).streamed
    allowed = FILE_AUGMENTATIONS if streamed else tuple(AUGMENTATIONS)
    if values.augmentation not in allowed:
        raise ConfigError(
            f"Expected `augmentation` of {values.dataset!r} to be one of {', '.join(allowed)}, "
            f"got {values.augmentation!r}."
        )
    if streamed and values.imbalance_type != "natural":
        raise ConfigError(
            f"The data set {values.dataset!r} is long-tailed by itself: expected `imbalance_type` "
            f"'natural', got {values.imbalance_type!r}."
        )
    if streamed and not 1 <= values.image_size <= LARGEST_IMAGE:
        raise ConfigError(f"Expected 1 ≤ `image_size` ≤ {LARGEST_IMAGE}, got {values.image_size}.")
    if not streamed and values.image_size is not None:
        raise ConfigError(
            f"The images of {values.dataset!r} keep their size: expected no `image_size`, "
            f"got {values.image_size}."
        )
    if not streamed and (values.subset_classes or values.subset_images):
        raise ConfigError(
            f"Expected `subset_classes` and `subset_images` 0 for {values.dataset!r}: they are for image "
            "files. Its size is set by `imbalance_ratio`."
        )
    if not streamed and values.normalisation != "dataset":
        raise ConfigError(
            f"Expected `normalisation` 'dataset' for {values.dataset!r}, got {values.normalisation!r}."
        )
    if values.weights != "none" and values.model not in models.IMAGENET_MODELS:
        raise ConfigError(
            f"There are no `weights` for {values.model!r}: expected 'none', or `model` to be one of "
            f"{', '.join(models.IMAGENET_MODELS)}."
        )


def _needs_a_switch(values: Settings, name: str, off: int) -> None:
    """When a stage ends, or what comes after it, is of recipes that have a second one."""
    if len(values.stages) < 2:
        raise ConfigError(
            f"The recipe {values.recipe!r} has one stage: expected `{name}` {off}, "
            f"got {getattr(values, name)}."
        )


def _watches_validation(values: Settings, name: str) -> None:
    if not (datasets.info(values.dataset).has_validation or values.validation_fraction):
        raise ConfigError(
            f"`{name}` watches a validation split, which {values.dataset!r} does not have: "
            "expected `validation_fraction` > 0."
        )


def takes_smoothing(loss: str) -> bool:
    """Whether the loss of that name has smoothed labels."""
    return "label_smoothing" in wrapping.parameters(LOSSES[loss])


def _tail(values: Settings) -> None:
    """A ratio that nothing would heed, where a data set is by itself kept as it is."""
    usual = datasets.info(values.dataset).defaults.get("imbalance_ratio")
    usual = usual(values) if callable(usual) else usual
    if values.imbalance_type == "natural" and usual == 1 != values.imbalance_ratio:
        raise ConfigError(
            f"`imbalance_type` 'natural' keeps all images of {values.dataset!r}: expected no "
            f"`imbalance_ratio`, got {values.imbalance_ratio:g}."
        )


def _class_counts(values: Settings) -> None:
    """No class without training images, as far as the data set's size is known beforehand."""
    info = datasets.info(values.dataset)
    if info.has_validation and values.validation_fraction:
        raise ConfigError(
            f"The data set {values.dataset!r} has a validation split: expected "
            f"`validation_fraction` 0, got {values.validation_fraction}."
        )
    if None in (info.images_per_class, info.num_classes) or values.imbalance_type == "natural":
        return
    try:
        imbalance.class_counts(
            info.images_per_class, info.num_classes, values.imbalance_type, values.imbalance_ratio
        )
    except ValueError as error:
        raise ConfigError(f"The data set {values.dataset!r}: {error}") from error
