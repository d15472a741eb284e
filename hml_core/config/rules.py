"""What a run's configuration must satisfy before anything is read or trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hml_core import datasets, imbalance, models, sampling
from hml_core.augment import AUGMENTATIONS, FILE_AUGMENTATIONS, MIXES
from hml_core.errors import ConfigError
from hml_core.losses import LOSSES, registry
from hml_core.losses.base import MEANS
from hml_core.losses.hard_mining import LARGEST_DELTA
from hml_core.schedule import LR_SCHEDULES, PROTOCOLS

if TYPE_CHECKING:
    from hml_core.config import RunConfig

WEIGHT_PLACEMENTS = ("outer", "inner")
CHOICES = {
    "imbalance_type": ("exp", "step", "none", "natural"),
    "weighting": ("none", "CS", "CB"),
    "weight_placement": WEIGHT_PLACEMENTS,
    "mean_over": MEANS,
    "protocol": PROTOCOLS,
    "model": models.MODELS,
    "head": models.HEADS,
    "optimizer": ("sgd", "adam"),
    "lr_schedule": LR_SCHEDULES,
    "normalisation": ("dataset", "imagenet", "authors"),
    "sampler": sampling.SAMPLERS,
    "precision": ("auto", "float32", "bf16"),
    "mix": MIXES,
}
AT_LEAST_ONE = ("epochs", "batch_size", "evaluate_every")
NO_LESS_THAN_ZERO = (
    "switch_patience",
    "early_stopping",
    "micro_batch_size",
    "subset_classes",
    "subset_images",
)
LARGEST_COUNT = 10**7
POSITIVE = (
    "delta",
    "loss_scale",
    "logit_scale",
    "influence_alpha",
    "learning_rate",
    "second_stage_rate",
    "mix_alpha",
)
NOT_NEGATIVE = ("gamma", "max_margin", "tau", "post_hoc_tau", "weight_decay", "momentum")
BELOW_ONE = (
    "momentum",
    "validation_fraction",
    "label_smoothing",
    "label_aware_smoothing",
    "frozen",
    "ema_decay",
)
LARGEST_IMAGE = 4096


def numbers(config: RunConfig) -> None:
    """Every number in its range; ConfigError otherwise."""
    ratio = config.imbalance_ratio
    if not math.isfinite(ratio) or ratio < 1:
        hint = ""
        if 0 < ratio < 1:
            hint = f"; {ratio:g} is n_min / n_max: did you mean {1 / ratio:g}?"
        raise ConfigError(f"Expected `imbalance_ratio` n_max / n_min ≥ 1, got {ratio:g}{hint}")
    for name in AT_LEAST_ONE:
        if getattr(config, name) > LARGEST_COUNT:
            raise ConfigError(
                f"Expected `{name}` ≤ {LARGEST_COUNT:,}, got {getattr(config, name)}."
            )
        if getattr(config, name) < 1:
            raise ConfigError(f"Expected `{name}` ≥ 1, got {getattr(config, name)}.")
    for name in NO_LESS_THAN_ZERO:
        if getattr(config, name) < 0:
            raise ConfigError(f"Expected `{name}` ≥ 0, got {getattr(config, name)}.")
    if config.micro_batch_size and config.batch_size % config.micro_batch_size:
        raise ConfigError(
            f"Expected `micro_batch_size` to divide the `batch_size` {config.batch_size}, "
            f"got {config.micro_batch_size}."
        )
    for name in ("seed", "subset_seed"):
        if not 0 <= getattr(config, name) < 2**32:
            raise ConfigError(f"Expected 0 ≤ `{name}` < 2³², got {getattr(config, name)}.")
    for name in POSITIVE:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"Expected `{name}` > 0, got {value}.")
    for name in NOT_NEGATIVE:
        value = getattr(config, name)
        if value is not None and not value >= 0:
            raise ConfigError(f"Expected `{name}` ≥ 0, got {value}.")
    for name in BELOW_ONE:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"Expected 0 ≤ `{name}` < 1, got {getattr(config, name)}.")
    for name, value in vars(config).items():
        if name != "delta" and isinstance(value, float) and math.isinf(value):
            raise ConfigError(f"Expected `{name}` to be finite, got {value}.")
    if config.delta is not None and LARGEST_DELTA < config.delta < math.inf:
        raise ConfigError(
            f"Expected `delta` ≤ {LARGEST_DELTA:g} or infinite (L_f), got {config.delta}."
        )


def choices(config: RunConfig) -> None:
    """Every name one of those that exist; ConfigError otherwise."""
    for name, allowed in CHOICES.items():
        value = getattr(config, name)
        if value is None or value in allowed:
            continue
        hint = ""
        if name == "weighting" and value in WEIGHT_PLACEMENTS:
            hint = " (where the weight enters the loss is `weight_placement`)"
        raise ConfigError(
            f"Expected `{name}` to be one of {', '.join(allowed)}, got {value!r}{hint}."
        )
    if not 0 <= config.warmup_epochs <= config.epochs:
        raise ConfigError(
            f"Expected 0 ≤ `warmup_epochs` ≤ {config.epochs} epochs, got {config.warmup_epochs}."
        )


def combination(config: RunConfig) -> None:
    """Recipe and tricks that make sense together; ConfigError with the reason otherwise."""
    recipe, stages = config.recipe, config.stages
    _images(config)
    own = {stage.sampler for stage in stages} - {"instance"}
    if own and config.sampler != "instance":
        raise ConfigError(
            f"The recipe {recipe!r} samples by itself ({', '.join(sorted(own))}): "
            f"expected `sampler` 'instance', got {config.sampler!r}."
        )
    adjusted = any(getattr(stage.loss_class, "corrects_priors", False) for stage in stages)
    if adjusted and config.sampler != "instance":
        raise ConfigError(
            f"The loss of {recipe!r} corrects for class frequencies that the sampler "
            f"{config.sampler!r} has already changed: expected `sampler` 'instance'."
        )
    if config.post_hoc_tau and adjusted:
        raise ConfigError(
            f"The recipe {recipe!r} adjusts its logits in training: post-hoc adjustment would "
            "correct twice. Expected `post_hoc_tau` 0."
        )
    if config.post_hoc_tau and config.method.post_hoc == "ncm":
        raise ConfigError(
            "The recipe 'ncm' has cosines to class means for logits, which hold no class priors: "
            "expected `post_hoc_tau` 0."
        )
    if config.method.post_hoc == "tau_norm" and config.head == "cosine":
        raise ConfigError(
            "A cosine head has normalised its class vectors already: expected `head` 'linear' for "
            "the recipe 'tau_norm'."
        )
    if config.early_drop and config.method.has_own_schedule:
        raise ConfigError(
            f"The recipe {recipe!r} has a drop of its own under every protocol: "
            "expected `early_drop` false."
        )
    for name, off in {"switch_patience": 0, "second_stage_rate": 1}.items():
        if getattr(config, name) != off:
            _needs_a_switch(config, name, off)
    for name in ("switch_patience", "early_stopping"):
        if getattr(config, name):
            _watches_validation(config, name)
    if config.label_smoothing and config.label_aware_smoothing:
        raise ConfigError("Expected `label_smoothing` or `label_aware_smoothing`, got both.")
    smoothed = config.label_smoothing or config.label_aware_smoothing
    if smoothed and not any(takes_smoothing(stage.loss) for stage in stages):
        raise ConfigError(
            f"No stage of {recipe!r} has a cross-entropy whose labels could be smoothed: expected "
            "`label_smoothing` and `label_aware_smoothing` 0."
        )


def _images(config: RunConfig) -> None:
    """Settings of image files for image files only, and the other way round."""
    streamed = datasets.info(config.dataset).streamed
    allowed = FILE_AUGMENTATIONS if streamed else tuple(AUGMENTATIONS)
    if config.augmentation not in allowed:
        raise ConfigError(
            f"Expected `augmentation` of {config.dataset!r} to be one of {', '.join(allowed)}, "
            f"got {config.augmentation!r}."
        )
    if streamed and config.imbalance_type != "natural":
        raise ConfigError(
            f"The data set {config.dataset!r} is long-tailed by itself: expected `imbalance_type` "
            f"'natural', got {config.imbalance_type!r}."
        )
    if streamed and not 1 <= config.image_size <= LARGEST_IMAGE:
        raise ConfigError(f"Expected 1 ≤ `image_size` ≤ {LARGEST_IMAGE}, got {config.image_size}.")
    if not streamed and config.image_size is not None:
        raise ConfigError(
            f"The images of {config.dataset!r} keep their size: expected no `image_size`, "
            f"got {config.image_size}."
        )
    if not streamed and (config.subset_classes or config.subset_images):
        raise ConfigError(
            f"Expected `subset_classes` and `subset_images` 0 for {config.dataset!r}: they are for image "
            "files. Its size is set by `imbalance_ratio`."
        )
    if not streamed and config.normalisation != "dataset":
        raise ConfigError(
            f"Expected `normalisation` 'dataset' for {config.dataset!r}, got {config.normalisation!r}."
        )
    if config.weights != "none" and config.model not in models.IMAGENET_MODELS:
        raise ConfigError(
            f"There are no `weights` for {config.model!r}: expected 'none', or `model` to be one of "
            f"{', '.join(models.IMAGENET_MODELS)}."
        )


def _needs_a_switch(config: RunConfig, name: str, off: int) -> None:
    """When a stage ends, or what comes after it, is of recipes that have a second one."""
    if len(config.stages) < 2:
        raise ConfigError(
            f"The recipe {config.recipe!r} has one stage: expected `{name}` {off}, "
            f"got {getattr(config, name)}."
        )


def _watches_validation(config: RunConfig, name: str) -> None:
    if not (datasets.info(config.dataset).has_validation or config.validation_fraction):
        raise ConfigError(
            f"`{name}` watches a validation split, which {config.dataset!r} does not have: "
            "expected `validation_fraction` > 0."
        )


def takes_smoothing(loss: str) -> bool:
    """Whether the loss of that name has smoothed labels."""
    return "label_smoothing" in registry.parameters(LOSSES[loss])


def class_counts(config: RunConfig) -> None:
    """No class without training images, as far as the data set's size is known beforehand."""
    info = datasets.info(config.dataset)
    if info.has_validation and config.validation_fraction:
        raise ConfigError(
            f"The data set {config.dataset!r} has a validation split: expected "
            f"`validation_fraction` 0, got {config.validation_fraction}."
        )
    if None in (info.images_per_class, info.num_classes) or config.imbalance_type == "natural":
        return
    try:
        imbalance.class_counts(
            info.images_per_class, info.num_classes, config.imbalance_type, config.imbalance_ratio
        )
    except ValueError as error:
        raise ConfigError(f"The data set {config.dataset!r}: {error}") from error
