"""The settings of a run, each declared once: type, range, choices and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hml_core import models, recipes, sampling
from hml_core.augment import MIXES
from hml_core.config.declaration import (
    COUNT,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    Range,
    setting,
    settings,
)
from hml_core.config.options import Options
from hml_core.errors import ConfigError
from hml_core.losses.base import MEANS, WEIGHTINGS
from hml_core.schedule import LR_SCHEDULES, PROTOCOLS

LARGEST_ALPHA = 1e6  # beyond it every share is a half, and at 1e308 the sampler gives 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One training run as plain values; :class:`hml_core.config.RunConfig` fills them in."""

    # Data ---------------------------------------------------------------------------------------
    dataset: str = setting("digits", "A name of hml_core.datasets.DATASETS.")
    imbalance_type: str | None = setting(
        None,
        "How the numbers of images fall from class to class; natural keeps the training set as it is.",
        choices=("exp", "step", "none", "natural"),
        fallback="exp",
    )
    imbalance_ratio: float | None = setting(
        None, "n_max / n_min ≥ 1 of the training set.", fallback=100.0
    )
    subset_seed: int = setting(
        0, "Which images the long-tailed subset keeps; 0 is the standard subset.", range=SEED
    )
    subset_classes: int = setting(
        0,
        "Of image files, for a trial: so many classes, evenly spaced from the most frequent to the "
        "rarest; 0: all.",
        range=NOT_NEGATIVE,
        off=0,
    )
    subset_images: int = setting(
        0,
        "Of image files, for a trial: about so many training images, as many of each class as its share "
        "(at least one), drawn with subset_seed; 0: all.",
        range=NOT_NEGATIVE,
        off=0,
    )
    validation_fraction: float = setting(
        0.0,
        "Part of the long-tailed training set held out for validation.",
        range=FRACTION,
        off=0.0,
    )

    # Method -------------------------------------------------------------------------------------
    recipe: str = setting("ce", "A name of hml_core.recipes.names().")
    delta: float | None = setting(
        None,
        "Where the outlier cut of the hard-mining loss lies; may be infinite.",
        range=POSITIVE,
        is_option=True,
        may_be_infinite=True,
    )
    weighting: str | None = setting(
        None,
        "Scheme of the class weights: cost-sensitive (∝ 1/n) or class-balanced (Cui et al. 2019).",
        choices=("none", "CS", "CB"),
        is_option=True,
    )
    weight_placement: str | None = setting(
        None,
        "Where the class weight enters the loss (the `weighting` argument of the losses).",
        choices=WEIGHTINGS,
        is_option=True,
    )
    loss_scale: float | None = setting(
        None,
        "Constant factor of the hard-mining loss (the authors' code: 10).",
        range=POSITIVE,
        is_option=True,
    )
    gamma: float | None = setting(None, "Focal exponent.", range=NOT_NEGATIVE, is_option=True)
    max_margin: float | None = setting(
        None, "LDAM's largest margin.", range=NOT_NEGATIVE, is_option=True
    )
    logit_scale: float | None = setting(
        None, "LDAM's factor on the cosines.", range=POSITIVE, is_option=True
    )
    tau: float | None = setting(
        None,
        "Strength of logit adjustment or τ-normalisation.",
        range=NOT_NEGATIVE,
        is_option=True,
    )
    influence_alpha: float | None = setting(
        None, "α of the influence-balanced loss.", range=POSITIVE, is_option=True
    )
    mean_over: str | None = setting(
        None,
        "What the mean of a weighted loss divides by: the sum of the weights, as PyTorch's cross-entropy "
        "does, or the number of images, as the hard-mining loss does.",
        choices=MEANS,
        is_option=True,
        off="weights",
    )
    options: Options = setting(  # noqa: RUF009
        Options,
        "Options of a recipe of one's own that are no settings here, each a name and its value.",
        off=Options(),
    )
    stage_ends: tuple[int, ...] | None = setting(
        None,
        "Epochs after which the recipe switches to its next stage, one less than it has stages.",
    )
    switch_patience: int = setting(
        0,
        "The first stage ends as soon as the balanced accuracy on validation has not risen for so many "
        "epochs (P3's plateau), at the latest at stage_ends; 0: at stage_ends.",
        range=NOT_NEGATIVE,
        off=0,
    )
    protocol: str = setting(
        "controlled",
        "The authors' schedule, or the same schedule for every recipe.",
        choices=PROTOCOLS,
    )
    early_drop: bool | None = setting(
        None,
        "Learning rate ×0.01 from the second stage on (hml_core.schedule.learning_rates).",
    )

    # Network ------------------------------------------------------------------------------------
    model: str | None = setting(
        None,
        "Network: a name of hml_core.models.MODELS.",
        choices=models.MODELS,
        fallback="resnet32",
    )
    weights: str | None = setting(
        None,
        "What torchvision's networks start from: none, imagenet or a file (hml_core.models.load_weights).",
        fallback="none",
        off="none",
    )
    frozen: float | None = setting(
        None,
        "Fraction of the parameter tensors, from the first on, that is not trained.",
        range=FRACTION,
        fallback=0.0,
        off=0.0,
    )
    head: str | None = setting(None, "Classifier.", choices=models.HEADS)

    # Training -----------------------------------------------------------------------------------
    epochs: int | None = setting(None, "Passes over the training set.", range=COUNT, fallback=200)
    batch_size: int | None = setting(None, "Images of a step.", range=COUNT, fallback=128)
    micro_batch_size: int | None = setting(
        None,
        "Images that pass the network together, a divisor of batch_size: gradients are accumulated, and "
        "batch norm takes its statistics over so many images; 0: the whole batch. Processes that train "
        "together share the micro-batches of a batch; their number does not change the run.",
        range=NOT_NEGATIVE,
        fallback=0,
        off=0,
    )
    ema_decay: float = setting(
        0.0,
        "What is evaluated is the exponential moving average of the weights; 0: the weights.",
        range=FRACTION,
        off=0.0,
    )
    early_stopping: int | None = setting(
        None,
        "The run ends after so many epochs of its last stage without a better balanced accuracy on "
        "validation; 0: it does not.",
        range=NOT_NEGATIVE,
        fallback=0,
        off=0,
    )
    warmup_epochs: int | None = setting(
        None, "Epochs at the start in which the learning rate rises linearly."
    )
    optimizer: str | None = setting(
        None, "Optimiser.", choices=("sgd", "adam"), fallback="sgd", off="sgd"
    )
    learning_rate: float | None = setting(None, "Base learning rate.", range=POSITIVE, fallback=0.1)
    second_stage_rate: float = setting(
        1.0,
        "Factor on the learning rate from the second stage on, under every protocol and beside every "
        "drop: a trial of whether it is the loss of that stage or its step that matters.",
        range=POSITIVE,
        off=1.0,
    )
    lr_schedule: str | None = setting(
        None,
        "Shape of the learning rate over the run (hml_core.schedule.learning_rates).",
        choices=LR_SCHEDULES,
        fallback="steps",
        off="steps",
    )
    momentum: float = setting(0.9, "Momentum of SGD.", range=FRACTION)
    weight_decay: float | None = setting(None, "Weight decay.", range=NOT_NEGATIVE, fallback=2e-4)
    image_size: int | None = setting(
        None,
        "Side in pixels of the images that are read from files; small images keep theirs.",
    )
    normalisation: str | None = setting(
        None,
        "Mean and standard deviation of the training images, or constants (of image files only).",
        choices=("dataset", "imagenet", "authors"),
        fallback="dataset",
        off="dataset",
    )
    augmentation: str | None = setting(
        None,
        "A name of hml_core.augment.AUGMENTATIONS or, for image files, of FILE_AUGMENTATIONS.",
        fallback="crop_flip",
    )
    sampler: str | None = setting(
        None,
        "Sampler of the stages whose recipe leaves it open.",
        choices=sampling.SAMPLERS,
        fallback="instance",
    )

    # Tricks -------------------------------------------------------------------------------------
    mix: str = setting("none", "Train on mixed images.", choices=MIXES, off="none")
    mix_alpha: float = setting(
        1.0,
        "α of the shares ~ Beta(α, α) of mixed images.",
        range=Range(0, LARGEST_ALPHA, has_low=False),
        off=1.0,
    )
    label_smoothing: float = setting(
        0.0, "For the stages whose loss is a cross-entropy.", range=FRACTION, off=0.0
    )
    label_aware_smoothing: float = setting(
        0.0,
        "Smoothing of the most frequent class, falling to 0 for the rarest (MiSLAS, CVPR 2021).",
        range=FRACTION,
        off=0.0,
    )
    post_hoc_tau: float = setting(
        0.0,
        "τ of post-hoc logit adjustment: τ·log π_c is taken off the test logits.",
        range=NOT_NEGATIVE,
        off=0.0,
    )

    # Computing ----------------------------------------------------------------------------------
    precision: str | None = setting(
        None,
        "auto is bf16 autocast where the hardware computes in it, else float32.",
        choices=("auto", "float32", "bf16"),
        fallback="auto",
    )
    compile: bool = setting(
        False,
        "The network goes through torch.compile: other kernels, other last digits.",
        off=False,
    )
    evaluate_every: int = setting(
        1,
        "Epochs between evaluations; the last epoch is always evaluated, as is the one at which early "
        "stopping would end the run.",
        range=COUNT,
    )
    deterministic: bool = setting(
        False,
        "Only deterministic algorithms; bit-identical repeats on CUDA too. (On a CPU they always are.)",
        off=False,
    )
    seed: int = setting(0, "Initialisation, order and augmentation.", range=SEED)

    # What the recipe makes of them --------------------------------------------------------------

    @property
    def method(self) -> recipes.Recipe:
        """The recipe with this run's options."""
        return recipes.get(self.recipe, **self.recipe_options)

    @property
    def recipe_options(self) -> dict[str, Any]:
        """The options that the recipe has, with this run's values."""
        known = recipes.options(self.recipe)
        own = {name: getattr(self, name) for name in OPTIONS if name in known}
        return own | self.options

    @property
    def stages(self) -> tuple[recipes.Stage, ...]:
        """The stages of the recipe; where they end is ``stage_ends``."""
        return self.method.stages


SETTINGS = settings(Settings)
# The options of recipes (hml_core.recipes.options) that are settings: a recipe takes some of them.
OPTIONS = tuple(name for name, known in SETTINGS.items() if known.is_option)


def require_fields(names: Iterable[str]) -> None:
    """ConfigError for names that no setting has."""
    if unknown := [name for name in names if name not in SETTINGS]:
        raise ConfigError(
            f"RunConfig has no field {', '.join(map(repr, unknown))}: expected some of "
            f"{', '.join(sorted(SETTINGS))}."
        )
