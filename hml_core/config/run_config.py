"""The complete description of one run: validated, frozen, hashable to a ``run_id``."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hml_core import datasets, recipes
from hml_core.config import identity, meanings, rules
from hml_core.errors import ConfigError
from hml_core.schedule import WARM_UP, boundary

_WEIGHTING_ALIASES = {"cost_sensitive": "CS", "class_balanced": "CB"}

# What a field left at None becomes, where neither the data set nor the recipe says otherwise.
_FALLBACKS = {
    "imbalance_type": "exp",
    "imbalance_ratio": 100.0,
    "model": "resnet32",
    "epochs": 200,
    "batch_size": 128,
    "augmentation": "crop_flip",
    "precision": "auto",
    "sampler": "instance",
    "learning_rate": 0.1,
    "weight_decay": 2e-4,
    "lr_schedule": "steps",
    "optimizer": "sgd",
    "weights": "none",
    "frozen": 0.0,
    "early_stopping": 0,
    "normalisation": "dataset",
    "micro_batch_size": 0,
}
# The options of recipes (see hml_core.recipes.options): a recipe takes some of them.
OPTIONS = (
    "delta",
    "weighting",
    "weight_placement",
    "loss_scale",
    "gamma",
    "max_margin",
    "logit_scale",
    "tau",
    "influence_alpha",
    "mean_over",
)


def _off(value: Any, **default: Any) -> Any:
    """A field for a trick; left at ``value`` (off) it does not enter the run's identity."""
    return field(**{"default": value, **default}, metadata={"off": value})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run, as data. Where it runs (device, folders) is not part of it.

    A field left at None takes the default of the data set (``dataset`` … ``precision``), of the recipe
    (its options and ``stage_ends``) or of the protocol (``early_drop``); afterwards no such field is
    None but ``image_size`` and the options that the recipe does not have.

    Parameters
    ----------
    dataset : str
        A name of :data:`hml_core.datasets.DATASETS`.
    imbalance_type : {"exp", "step", "none", "natural"}
        "natural" keeps the training set as it is.
    imbalance_ratio : float
        n_max / n_min ≥ 1 of the training set.
    subset_seed : int
        Which images the long-tailed subset keeps (0: the standard subset).
    subset_classes, subset_images : int
        Of image files, for a trial: so many classes, evenly spaced from the most frequent to the rarest;
        about so many training images, as many of each class as its share (at least one), drawn with
        ``subset_seed``. 0: all.
    validation_fraction : float
        Part of the long-tailed training set held out for validation, in [0, 1).
    recipe : str
        A name of :func:`hml_core.recipes.names`.
    delta : float
        Where the outlier cut of the hard-mining loss lies; > 0, may be infinite.
    weighting : {"none", "CS", "CB"}
        Scheme of the class weights: cost-sensitive (∝ 1/n) or class-balanced (Cui et al. 2019).
    weight_placement : {"outer", "inner"}
        Where the class weight enters the loss (the ``weighting`` argument of the losses).
    loss_scale : float
        Constant factor of the hard-mining loss (the authors' code: 10).
    gamma, max_margin, logit_scale, tau, influence_alpha : float
        Focal exponent; LDAM's largest margin and scale; strength of logit adjustment or
        τ-normalisation; α of the influence-balanced loss.
    mean_over : {"weights", "images"}
        What the mean of a weighted cross-entropy divides by: the sum of the weights (PyTorch's) or the
        number of images, as the hard-mining loss does.
    stage_ends : tuple of int
        Epochs after which the recipe switches to its next stage, one less than it has stages.
    switch_patience : int
        The first stage ends as soon as the balanced accuracy on validation has not risen for this many
        epochs (P3's plateau), at the latest at ``stage_ends``; 0: at ``stage_ends``.
    protocol : {"official", "controlled"}
        The authors' schedule, or the same schedule for every recipe.
    early_drop : bool
        Learning rate ×0.01 from the second stage on; see :func:`hml_core.schedule.learning_rates`.
    model, head : str
        Network (:data:`hml_core.models.MODELS`) and classifier ("linear" or "cosine").
    weights : {"none", "imagenet"} or path
        What torchvision's networks start from, see :func:`hml_core.models.load_weights`.
    frozen : float
        Fraction in [0, 1) of the parameter tensors, from the first on, that is not trained.
    epochs, batch_size, warmup_epochs : int
    micro_batch_size : int
        Images that pass the network together, a divisor of ``batch_size``: gradients are accumulated,
        and batch norm takes its statistics over so many images. 0: the whole batch. Processes that
        train together share the micro-batches of a batch; their number does not change the run.
    ema_decay : float
        In [0, 1): what is evaluated is the exponential moving average of the weights; 0: the weights.
    early_stopping : int
        The run ends after this many epochs of its last stage without a better balanced accuracy on
        validation; 0: it does not.
    optimizer : {"sgd", "adam"}
    learning_rate, momentum, weight_decay : float
        Momentum is that of SGD.
    second_stage_rate : float
        Factor on the learning rate from the second stage on, under every protocol and beside every drop: a
        trial of whether it is the loss of that stage or its step that matters; > 0.
    lr_schedule : {"steps", "cosine", "cyclic", "one_cycle"}
        See :func:`hml_core.schedule.learning_rates`.
    image_size : int or None
        Side of the images that are read from files; None for small images, which keep theirs.
    normalisation : {"dataset", "imagenet", "authors"}
        Mean and standard deviation of the training images, or constants (of image files only).
    augmentation : str
        See :data:`hml_core.augment.AUGMENTATIONS` and, for image files,
        :data:`hml_core.augment.FILE_AUGMENTATIONS`.
    sampler : str
        See :data:`hml_core.sampling.SAMPLERS`; for the stages whose recipe leaves it open.
    mix : {"none", "mixup", "remix"}
        Train on mixed images; ``mix_alpha`` is the α of the shares ~ Beta(α, α).
    label_smoothing : float
        In [0, 1), for the stages whose loss is a cross-entropy.
    label_aware_smoothing : float
        Smoothing of the most frequent class, falling to 0 for the rarest (MiSLAS, CVPR 2021).
    post_hoc_tau : float
        τ ≥ 0 of post-hoc logit adjustment: τ·log π_c is taken off the test logits.
    precision : {"auto", "float32", "bf16"}
        "auto" is bf16 autocast where the hardware computes in it, else float32.
    compile : bool
        The network goes through ``torch.compile``: other kernels, other last digits.
    evaluate_every : int
        Epochs between evaluations; the last epoch is always evaluated.
    deterministic : bool
        Only deterministic algorithms; bit-identical repeats on CUDA too. (On a CPU they always are.)
    seed : int
        Initialisation, order and augmentation.

    Raises
    ------
    ConfigError
        For any value that cannot be trained with, naming it and what was expected.

    Examples
    --------
    >>> config = RunConfig(dataset="digits", recipe="hml1", epochs=20, seed=3)
    >>> config.delta, config.stage_ends, config.model
    (10000.0, (10,), 'resnet8')
    >>> RunConfig.from_json(config.to_json()) == config
    True
    """

    dataset: str = "digits"
    imbalance_type: str | None = None
    imbalance_ratio: float | None = None
    subset_seed: int = 0
    subset_classes: int = _off(0)
    subset_images: int = _off(0)
    validation_fraction: float = _off(0.0)
    recipe: str = "ce"
    delta: float | None = None
    weighting: str | None = None
    weight_placement: str | None = None
    loss_scale: float | None = None
    gamma: float | None = None
    max_margin: float | None = None
    logit_scale: float | None = None
    tau: float | None = None
    influence_alpha: float | None = None
    mean_over: str | None = _off("weights", default=None)
    stage_ends: tuple[int, ...] | None = None
    switch_patience: int = _off(0)
    protocol: str = "controlled"
    early_drop: bool | None = None
    model: str | None = None
    weights: str | None = _off("none", default=None)
    frozen: float | None = _off(0.0, default=None)
    head: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    micro_batch_size: int | None = _off(0, default=None)
    ema_decay: float = _off(0.0)
    early_stopping: int | None = _off(0, default=None)
    warmup_epochs: int | None = None
    optimizer: str | None = _off("sgd", default=None)
    learning_rate: float | None = None
    second_stage_rate: float = _off(1.0)
    lr_schedule: str | None = _off("steps", default=None)
    momentum: float = 0.9
    weight_decay: float | None = None
    image_size: int | None = None
    normalisation: str | None = _off("dataset", default=None)
    augmentation: str | None = None
    sampler: str | None = None
    mix: str = _off("none")
    mix_alpha: float = _off(1.0)
    label_smoothing: float = _off(0.0)
    label_aware_smoothing: float = _off(0.0)
    post_hoc_tau: float = _off(0.0)
    precision: str | None = None
    compile: bool = _off(False)
    evaluate_every: int = 1
    deterministic: bool = _off(False)
    seed: int = 0

    def __post_init__(self) -> None:
        self._settle_types()
        info = datasets.info(self.dataset)
        known_options = recipes.options(self.recipe)
        self._fill_official()
        for name, value in {**_FALLBACKS, **info.defaults}.items():
            if isinstance(value, Mapping):
                value = value.get(self.protocol)
            if callable(value):
                value = value(self)
            if name not in OPTIONS or name in known_options:
                self._fill(name, value)
        rules.numbers(self)
        self._fill_recipe()
        self._fill("early_drop", self._drops_early())
        steps = self.lr_schedule == "steps"
        self._fill("warmup_epochs", boundary(WARM_UP, self.epochs) if steps else 0)
        rules.choices(self)
        rules.combination(self)
        rules.class_counts(self)

    # Filling in ---------------------------------------------------------------------------------

    def _fill(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def _settle_types(self) -> None:
        """Refuse a value of the wrong type; an int is accepted (and made a float) for a float."""
        for name, kinds in field_kinds().items():
            value = getattr(self, name)
            if float in kinds and isinstance(value, int) and not isinstance(value, bool):
                too_large = math.inf if value > 0 else -math.inf
                value = float(value) if abs(value) < 2**53 else too_large
            if isinstance(value, float):
                value += 0.0  # −0.0 equals 0.0 and must not be another run
            if tuple in kinds and isinstance(value, list):
                value = tuple(value)
            wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            if tuple in kinds and isinstance(value, tuple):
                wrong = not all(type(end) is int for end in value)
            if wrong:
                expected = " or ".join("None" if k is types.NoneType else k.__name__ for k in kinds)
                raise ConfigError(
                    f"Expected `{name}` to be {expected}, got {value!r} ({type(value).__name__})."
                )
            object.__setattr__(self, name, value)

    def _fill_official(self) -> None:
        """What the authors' code sets by itself, in a run that is to do what it does."""
        if self.protocol != "official":
            return
        for name, value in recipes.official_options(self.recipe).items():
            self._fill(name, value)
            if getattr(self, name) != value:
                raise ConfigError(
                    f"The authors' code runs {self.recipe!r} with `{name}` {value:g}, whatever it is "
                    "asked for: expected that, none, or the protocol 'controlled', "
                    f"got {getattr(self, name)!r}."
                )

    def _fill_recipe(self) -> None:
        if self.weighting is not None:
            object.__setattr__(
                self, "weighting", _WEIGHTING_ALIASES.get(self.weighting, self.weighting)
            )
        given = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}
        recipe = recipes.get(self.recipe, **given)
        for name, value in recipe.options.items():
            if name in OPTIONS:
                self._fill(name, value)
        self._fill("head", recipe.head)
        if recipe.head == "cosine" and self.head != "cosine":
            raise ConfigError(
                f"The recipe {self.recipe!r} puts margins on cosines: expected `head` 'cosine', "
                f"got {self.head!r}."
            )
        fractions = [stage.until for stage in recipe.stages[:-1]]
        self._fill("stage_ends", tuple(boundary(until, self.epochs) for until in fractions))
        if len(self.stage_ends) != len(fractions):
            raise ConfigError(
                f"Expected `stage_ends` with {len(fractions)} epoch(s), one less than the "
                f"{len(recipe.stages)} stage(s) of {self.recipe!r}, got {self.stage_ends}."
            )
        bounds = (0, *self.stage_ends, self.epochs)
        if any(end <= start for start, end in itertools.pairwise(bounds)):
            raise ConfigError(
                "Expected `stage_ends` to rise strictly between 0 and the "
                f"{self.epochs} epochs of the run, got {self.stage_ends}."
            )

    def _drops_early(self) -> bool:
        scales = {stage.learning_rate_scale for stage in self.stages}
        return self.protocol == "official" and self.lr_schedule == "steps" and scales != {1.0}

    # Reading ------------------------------------------------------------------------------------

    @property
    def method(self) -> recipes.Recipe:
        """The recipe with this run's options."""
        known = recipes.options(self.recipe)
        return recipes.get(self.recipe, **{n: getattr(self, n) for n in OPTIONS if n in known})

    @property
    def stages(self) -> tuple[recipes.Stage, ...]:
        """The stages of the recipe; where they end is ``stage_ends``."""
        return self.method.stages

    @property
    def scales_itself(self) -> bool:
        """Whether a loss of the recipe scales the cosines of a cosine head."""
        return self.method.scales_itself

    @property
    def run_id(self) -> str:
        """Name of the run's folder: readable first, then a hash of every field that matters."""
        ratio = f"{self.imbalance_ratio:g}".replace(".", "p").replace("+", "")
        if self.imbalance_type == "natural" and self.imbalance_ratio == 1:
            ratio = ""  # it has no meaning there
        slug = f"{self.dataset}-{self.imbalance_type}{ratio}-{self.recipe}-s{self.seed}"
        return f"{re.sub(r'[^A-Za-z0-9_-]', '', slug)}-{self.hash[:10]}"

    @property
    def hash(self) -> str:
        """SHA-256 over the canonical JSON of the fields; tricks that are off do not enter it.

        A field for a new trick can therefore be added without orphaning the runs made before it.
        """
        matters = {}
        for known in dataclasses.fields(self):
            value = getattr(self, known.name)
            is_off = "off" in known.metadata and value == known.metadata["off"]
            if value is not None and not is_off:
                matters[known.name] = value
        if own := identity.own_part(self):
            matters["own"] = own
        if changed := meanings.changes(self):
            matters["changes"] = changed
        return hashlib.sha256(_dump(matters).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Every field, in plain JSON types."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        """Canonical JSON (sorted keys; an infinite δ is the string "inf")."""
        return _dump(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The inverse of :meth:`to_dict`; an unknown field is an error."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"Expected the fields of a RunConfig as a mapping, got {values!r}.")
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ConfigError(
                f"RunConfig has no field {', '.join(map(repr, unknown))}: expected some of "
                f"{', '.join(sorted(known))}."
            )
        values = dict(values)
        if values.get("delta") == "inf":
            values["delta"] = math.inf
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """The inverse of :meth:`to_json`."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"Expected the JSON of a RunConfig: {error}") from error
        return cls.from_dict(values)


def _dump(values: Mapping[str, Any]) -> str:
    plain = {key: "inf" if value == math.inf else value for key, value in values.items()}
    return json.dumps(plain, sort_keys=True, allow_nan=False)


def field_kinds() -> dict[str, tuple[type, ...]]:
    """The accepted types of every field: {"epochs": (int, NoneType), …}."""
    kinds = {}
    for name, hint in typing.get_type_hints(RunConfig).items():
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds[name] = tuple(typing.get_origin(member) or member for member in members)
    return kinds
