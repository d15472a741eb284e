"""Recipes: every method of the three papers as an ordered list of stages.

A stage is (loss, class weights, sampler, what is trained, learning-rate scale, until which fraction of
the run). A recipe is a function whose keyword arguments are the options of the method and which
returns its stages; :func:`register` adds one's own:

>>> @register(title="CE, then focal", source="an example")
... def ce_then_focal(*, gamma: float = 2.0):
...     return (Stage("cross_entropy", until=0.5), Stage("focal", {"gamma": gamma}))
>>> get("ce_then_focal", gamma=1.0).options
{'gamma': 1.0}
>>> del RECIPES["ce_then_focal"]

P1, P2 and P3 are the papers of Foahom Gouabou et al. named in docs/cite.md.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hml_core import imbalance, sampling
from hml_core.errors import ConfigError, said
from hml_core.losses import registry, trials
from hml_core.system import fingerprints, kinds, registries

EARLY_DROP = 1e-2  # of the hard-mining recipes, in their authors' code
INFLUENCE_DROP = 1e-2  # of IB's second stage, in its authors' code
TRAINS = ("all", "classifier", "class_scales")
POST_HOC = ("tau_norm", "ncm")
COSINE_SCALE = 30.0  # of cosines under a loss that does not scale them by itself


def boundary(fraction: float, epochs: int) -> int:
    """The number of epochs that make up ``fraction`` of a run, rounded half up.

    >>> boundary(0.5, 200), boundary(0.8, 200), boundary(0.5, 5)
    (100, 160, 3)
    """
    # The tiny offset keeps 0.15 · 10 = 1.4999999999999998 on the side where a person expects it.
    return int(fraction * epochs + 0.5 + 1e-9)


@registries.asks("loss")
@dataclass(frozen=True)
class Stage:
    """One part of a run.

    Parameters
    ----------
    loss : str or class
        A name of :data:`hml_core.losses.LOSSES`, or a class, which is registered where it is not.
    loss_options : mapping
        Keyword arguments of that loss, other than ``weight`` and ``class_counts``, which the trainer
        fills in from the training set.
    weighting : str
        Scheme of the class weights, see :func:`hml_core.imbalance.class_weights`.
    sampler : str
        See :data:`hml_core.sampling.SAMPLERS`.
    until : float
        The stage ends after this fraction of the run's epochs; 1 for the last.
    trains : {"all", "classifier", "class_scales"}
        Everything; only a newly drawn classifier on a frozen backbone (cRT); or only one factor for
        each class on a frozen network (LWS).
    learning_rate_scale : float
        The authors' early drop: multiplies the learning rate of this stage where
        ``RunConfig.early_drop`` is on.
    own_learning_rate_scale : float
        A drop without which the method does not work: multiplies the learning rate of this stage under
        every protocol. Such a recipe stands beside others with the mark "own schedule".
    restart : bool
        The stage has a schedule of its own: half a cosine from the base rate to zero.
    logit_scale : float
        The loss sees the logits times this. :func:`get` sets it, where another stage's loss needs bare
        cosines and this one's cannot work on them.

    Raises
    ------
    ConfigError
        For an unknown name, an option that the loss does not have, weights that it does not take, or a
        number out of range.
    """

    loss: str | type[nn.Module]
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    weighting: str = "none"
    sampler: str = "instance"
    until: float = 1.0
    trains: str = "all"
    learning_rate_scale: float = 1.0
    restart: bool = False
    own_learning_rate_scale: float = 1.0
    logit_scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.loss, str):
            object.__setattr__(self, "loss", registry.name_of(self.loss, self.loss_options))
        _one_of("loss", self.loss, registry.LOSSES)
        _one_of("trains", self.trains, TRAINS)
        _one_of("sampler", self.sampler, sampling.SAMPLERS)
        hint = ""
        if self.weighting in ("outer", "inner"):
            hint = " (where the weight enters the loss is `weight_placement`)"
        _one_of("weighting", self.weighting, imbalance.SCHEMES, "none, CS, CB", hint)
        if not isinstance(self.loss_options, Mapping):
            raise ConfigError(
                f"Expected `loss_options` to be a mapping, got {self.loss_options!r}."
            )
        registry.check_options(self.loss, self.loss_options, self.weighting)
        for name in ("until", "learning_rate_scale", "own_learning_rate_scale", "logit_scale"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 < value < math.inf or (name == "until" and value > 1):
                expected = "0 < `until` ≤ 1" if name == "until" else f"`{name}` > 0 and finite"
                raise ConfigError(f"Expected {expected}, got {value!r}.")
        if not isinstance(self.restart, bool):
            raise ConfigError(f"Expected `restart` to be True or False, got {self.restart!r}.")

    @property
    def loss_class(self) -> type[nn.Module]:
        """The class of the loss, which says what it needs."""
        return registry.LOSSES[self.loss]

    @property
    def needs_cosines(self) -> bool:
        """Whether the loss works on bare cosines, which it scales by itself (LDAM)."""
        return bool(getattr(self.loss_class, "needs_cosines", False))


def _one_of(name: str, value: Any, allowed: Any, shown: str = "", hint: str = "") -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(
            f"Expected `{name}` to be one of {shown or ', '.join(allowed)}, got {value!r}{hint}."
        )


@dataclass(frozen=True)
class Recipe:
    """A method with its options filled in; made by :func:`get`."""

    name: str
    title: str
    source: str
    stages: tuple[Stage, ...]
    options: Mapping[str, Any]
    post_hoc: str | None = None

    @property
    def head(self) -> str:
        """The classifier that the recipe needs; "cosine" where a loss works on cosines (LDAM)."""
        return "cosine" if self.scales_itself else "linear"

    @property
    def scales_itself(self) -> bool:
        """Whether the cosines of a cosine head stay bare, as a loss scales them."""
        return any(stage.needs_cosines for stage in self.stages)

    @property
    def has_own_schedule(self) -> bool:
        """Whether the method drops its learning rate by itself, under every protocol."""
        return any(stage.own_learning_rate_scale != 1 for stage in self.stages)


@dataclass(frozen=True)
class _Entry:
    build: Callable[..., tuple[Stage, ...]]
    title: str
    source: str
    post_hoc: str | None
    official: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        """The parameters of ``build`` with their defaults: a config asks for them some ten times."""
        parameters = inspect.signature(self.build).parameters
        return {key: parameter.default for key, parameter in parameters.items()}


RECIPES: dict[str, _Entry] = {}
BUILT_IN: dict[str, _Entry] = {}  # filled at the end of this module
registries.add("recipe", RECIPES, BUILT_IN, {"RECIPES"}, lambda name: RECIPES[name].build)


def register(
    *,
    title: str,
    source: str,
    post_hoc: str | None = None,
    official: Mapping[str, Any] | None = None,
    added: Mapping[str, Any] | None = None,
):
    """Decorator: make a function that returns stages available under its own name.

    Parameters
    ----------
    title : str
        Label in tables and figures.
    source : str
        Paper, equation or table that defines the method.
    post_hoc : {"tau_norm", "ncm"}, optional
        A replacement of the classifier after the last epoch, without training.
    official : mapping, optional
        Options that the authors' code sets by itself, whatever it is asked for: what they are under the
        protocol "official".
    added : mapping, optional
        Options that the recipe was given after runs of it were made, each with the value that it had
        without them: at that value they do not enter a run's identity, and the runs keep theirs.

    Raises
    ------
    ConfigError
        Where the function has no name, an option without a default, or makes no stages that can be
        trained; for an unknown ``post_hoc``, or an ``official`` or ``added`` option that it lacks.
    """
    if post_hoc is not None:
        _one_of("post_hoc", post_hoc, POST_HOC)

    def decorate(build: Callable[..., tuple[Stage, ...]]):
        name = getattr(build, "__name__", None) or repr(build)
        entry = _Entry(build, title, source, post_hoc, dict(official or {}), dict(added or {}))
        if getattr(build, "__module__", None) != __name__:  # those of this module are tested
            _check_options(name, entry)
            stages = _stages(name, entry, {})
            for stage in stages:
                trials.attempt(stage.loss_class, stage.loss_options)
            text_of_stages(name, stages)
        RECIPES[name] = entry
        return build

    return decorate


def _check_options(name: str, entry: _Entry) -> None:
    if not name.isidentifier():
        raise ConfigError(f"Expected a recipe to be a function with a name, got {name!r}.")
    takes = inspect.signature(entry.build).parameters
    for option, parameter in takes.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"Expected the options of the recipe {name!r} by name, got `{parameter}`."
            )
        if parameter.default is parameter.empty:
            raise ConfigError(
                f"Expected the option `{option}` of the recipe {name!r} to have a default."
            )
    if entry.post_hoc == "tau_norm" and "tau" not in takes:
        raise ConfigError(
            f"τ-normalisation needs the option `tau`, which the recipe {name!r} lacks."
        )
    for known in ("official", "added"):
        for option in getattr(entry, known):
            _one_of(f"{known}` of {name!r}, `{option}", option, takes)


def _stages(name: str, entry: _Entry, given: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages that a recipe makes, checked as a whole."""
    try:
        stages = entry.build(**given)
    except ConfigError:
        raise
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(
            f"The recipe {name!r} does not make its stages of {dict(given)}: "
            f"{type(error).__name__}: {said(error)}"
        ) from error
    if isinstance(stages, list):
        stages = tuple(stages)
    if not isinstance(stages, tuple) or not stages or not all(isinstance(s, Stage) for s in stages):
        raise ConfigError(
            f"Expected the recipe {name!r} to return a tuple of stages, got {stages!r}."
        )
    ends = [stage.until for stage in stages]
    if ends[-1] != 1 or any(end <= start for start, end in itertools.pairwise(ends)):
        raise ConfigError(
            f"Expected `until` of the stages of {name!r} to rise to 1, that of the last, got {ends}."
        )
    bare = any(stage.needs_cosines for stage in stages)
    if not bare or all(stage.needs_cosines for stage in stages):
        return stages
    return tuple(
        stage if stage.needs_cosines else dataclasses.replace(stage, logit_scale=COSINE_SCALE)
        for stage in stages
    )


def text_of_stages(name: str, stages: tuple[Stage, ...]) -> str:
    """What the stages of a recipe do, as text that is the same in every process; what a stage leaves at
    its default is not in it.

    Raises
    ------
    ConfigError
        For an option that has no such text, see :func:`hml_core.system.fingerprints.of_value`.
    """
    texts = []
    for number, stage in enumerate(stages, start=1):
        given = {}
        for known in dataclasses.fields(stage):
            value = getattr(stage, known.name)
            if known.name == "loss_options":
                value = {
                    option: json.loads(
                        fingerprints.of_value(
                            one,
                            f"The option `{option}` of stage {number} of the recipe {name!r}",
                            given=value.values(),
                        )
                    )
                    for option, one in value.items()
                }
            if known.name == "loss" or (value and value != known.default):
                given[known.name] = value
        texts.append(given)
    return json.dumps(texts, sort_keys=True)


def names() -> tuple[str, ...]:
    """The names of all recipes."""
    return tuple(RECIPES)


def _entry(name: str) -> _Entry:
    if name not in RECIPES:
        raise ConfigError(f"Expected `recipe` to be one of {', '.join(RECIPES)}, got {name!r}.")
    return RECIPES[name]


def options(name: str) -> dict[str, Any]:
    """The options of a recipe with their defaults: ``options("focal")["gamma"] == 1.0``."""
    return dict(_entry(name).options)


def is_hard_mining(name: str) -> bool:
    """Whether a stage of the recipe uses the hard-mining loss, on adjusted logits or not."""
    return any(getattr(stage.loss_class, "is_hard_mining", False) for stage in get(name).stages)


def official_options(name: str) -> Mapping[str, Any]:
    """Options of the recipe that are fixed under the protocol "official"."""
    return _entry(name).official


def added_options(name: str) -> Mapping[str, Any]:
    """Options that a recipe was given later, with the value that does not enter a run's identity."""
    return _entry(name).added


def title(name: str) -> str:
    """Label of a recipe for tables and figures; the name itself where it is not registered."""
    if name not in RECIPES:
        return name
    mark = " (own schedule)" if get(name).has_own_schedule else ""
    return f"{RECIPES[name].title}{mark}"


@registries.asks("recipe")
def get(name: str, /, **overrides: Any) -> Recipe:
    """The recipe called ``name``; ``overrides`` replace the defaults of its options.

    Raises
    ------
    ConfigError
        For an unknown recipe or an option that the recipe does not have.
    """
    entry = _entry(name)
    known = options(name)
    for key in overrides:
        if key not in known:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ConfigError(f"The recipe {name!r} has no option `{key}`: {has}.")
    # Those of this package are settings, with types of their own.
    if entry is not BUILT_IN.get(name):
        for key, value in overrides.items():
            kinds.require(value, entry.build, key, f"the option `{key}` of the recipe {name!r}")
    filled = {**known, **overrides}
    stages = _stages(name, entry, filled)
    return Recipe(name, entry.title, entry.source, stages, filled, entry.post_hoc)


# One stage --------------------------------------------------------------------------------------


@register(title="CE", source="cross-entropy (empirical risk minimisation)")
def ce():
    return (Stage("cross_entropy"),)


@register(title="Focal", source="Lin et al., ICCV 2017, eq. 4")
def focal(*, gamma: float = 1.0, weighting: str = "none", weight_placement: str = "outer"):
    return (Stage("focal", {"gamma": gamma, "weighting": weight_placement}, weighting),)


@register(title="CS-CE", source="cost-sensitive cross-entropy, weights ∝ 1/n (a baseline of P1)")
def cs_ce(*, mean_over: str = "weights"):
    return (Stage("cross_entropy", {"mean_over": mean_over}, "CS"),)


@register(title="CB-CE", source="Cui et al., CVPR 2019 (class-balanced softmax cross-entropy)")
def cb_ce(*, mean_over: str = "weights"):
    return (Stage("cross_entropy", {"mean_over": mean_over}, "CB"),)


@register(title="CB-Focal", source="Cui et al., CVPR 2019 (class-balanced focal loss)")
def cb_focal(*, gamma: float = 1.0, weight_placement: str = "outer"):
    return (Stage("focal", {"gamma": gamma, "weighting": weight_placement}, "CB"),)


@register(title="LDAM", source="Cao et al., NeurIPS 2019 (label-distribution-aware margin)")
def ldam(
    *,
    max_margin: float = 0.5,
    logit_scale: float = 30.0,
    weighting: str = "none",
    mean_over: str = "weights",
):
    return (_ldam(max_margin, logit_scale, weighting=weighting, mean_over=mean_over),)


def _ldam(max_margin: float, logit_scale: float, mean_over: str = "weights", **stage: Any) -> Stage:
    loss_options = {"max_margin": max_margin, "scale": logit_scale, "mean_over": mean_over}
    return Stage("ldam", loss_options, **stage)


@register(
    title="Balanced Softmax",
    source="Ren et al., NeurIPS 2020 (balanced meta-softmax, without the meta sampler)",
)
def balanced_softmax():
    return (Stage("balanced_softmax"),)


@register(title="Logit adjustment", source="Menon et al., ICLR 2021, eq. 10")
def logit_adjustment(*, tau: float = 1.0):
    return (Stage("logit_adjusted", {"tau": tau}),)


# Two stages: a plain one, then a re-weighted or re-sampled one -----------------------------------


@register(title="LDAM-DRW", source="Cao et al., NeurIPS 2019, algorithm 1")
def ldam_drw(
    *,
    max_margin: float = 0.5,
    logit_scale: float = 30.0,
    weighting: str = "CB",
    mean_over: str = "weights",
):
    second = _ldam(max_margin, logit_scale, weighting=weighting, mean_over=mean_over)
    return (_ldam(max_margin, logit_scale, until=0.8), second)


@register(title="CE-DRW", source="Cao et al., NeurIPS 2019 (deferred re-weighting)")
def ce_drw(*, weighting: str = "CB", mean_over: str = "weights"):
    second = Stage("cross_entropy", {"mean_over": mean_over}, weighting)
    return (Stage("cross_entropy", until=0.8), second)


@register(
    title="CE, then CS-Focal",
    source="the control of HML1 with focal loss: its switch and class weights, over images as well",
)
def deferred_focal(*, gamma: float = 1.0, weighting: str = "CS", weight_placement: str = "outer"):
    second = Stage("focal", {"gamma": gamma, "weighting": weight_placement}, weighting)
    return (Stage("cross_entropy", until=0.5), second)


@register(title="CE-DRS", source="Cao et al., NeurIPS 2019 (deferred re-sampling)")
def ce_drs():
    return (Stage("cross_entropy", until=0.8), Stage("cross_entropy", sampler="class_balanced"))


def _influence_balanced(weighting: str, **loss_options: Any) -> tuple[Stage, Stage]:
    # Its gradients are large: at the full rate the second stage breaks down, and its authors' trainer
    # divides the rate by 100 from there on, on top of the milestones that every method has.
    second = Stage(
        "influence_balanced", loss_options, weighting, own_learning_rate_scale=INFLUENCE_DROP
    )
    return (Stage("cross_entropy", until=0.5), second)


@register(title="IB", source="Park et al., ICCV 2021 (influence-balanced loss)")
def ib(*, influence_alpha: float = 1000.0, weighting: str = "CS"):
    return _influence_balanced(weighting, alpha=influence_alpha)


@register(title="IB-Focal", source="Park et al., ICCV 2021 (influence-balanced focal loss)")
def ib_focal(*, influence_alpha: float = 1000.0, gamma: float = 1.0, weighting: str = "CS"):
    return _influence_balanced(weighting, alpha=influence_alpha, gamma=gamma)


# Hard-mining loss -------------------------------------------------------------------------------

DIVISOR = {"mean_over": "images"}  # of the papers and of the runs made before it was an option


def _hard_mining(
    delta: float, weight_placement: str, loss_scale: float, mean_over: str, **stage: Any
) -> Stage:
    loss_options = {
        "delta": delta,
        "weighting": weight_placement,
        "scale": loss_scale,
        "mean_over": mean_over,
    }
    return Stage("hard_mining", loss_options, **stage)


@register(title="HML1", source="P1: CE until epoch 100 of 200, then weighted L_c", added=DIVISOR)
def hml1(
    *,
    delta: float = 1e4,
    weighting: str = "CS",
    weight_placement: str = "outer",
    loss_scale: float = 1.0,
    mean_over: str = "images",
):
    options = (delta, weight_placement, loss_scale, mean_over)
    second = _hard_mining(*options, weighting=weighting, learning_rate_scale=EARLY_DROP)
    return (Stage("cross_entropy", until=0.5), second)


@register(
    title="HML2",
    source="P1: L_c until epoch 100 of 200, then weighted L_c",
    official={"delta": 1e10},  # the authors' trainer passes its --delta to HML1 alone
    added=DIVISOR,
)
def hml2(
    *,
    delta: float = 1e4,
    weighting: str = "CS",
    weight_placement: str = "outer",
    loss_scale: float = 1.0,
    mean_over: str = "images",
):
    options = (delta, weight_placement, loss_scale, mean_over)
    second = _hard_mining(*options, weighting=weighting, learning_rate_scale=EARLY_DROP)
    return (_hard_mining(*options, until=0.5), second)


@register(title="DHML1", source="P3: L_f, then weighted L_c", added=DIVISOR)
def dhml1(
    *,
    delta: float = 1e7,
    weighting: str = "CS",
    weight_placement: str = "outer",
    loss_scale: float = 1.0,
    mean_over: str = "images",
):
    options = (weight_placement, loss_scale, mean_over)
    first = _hard_mining(math.inf, *options, until=0.5)
    return (first, _hard_mining(delta, *options, weighting=weighting))


@register(title="DHML2", source="P3: L_f, then weighted L_f", added=DIVISOR)
def dhml2(
    *,
    weighting: str = "CS",
    weight_placement: str = "outer",
    loss_scale: float = 1.0,
    mean_over: str = "images",
):
    options = (math.inf, weight_placement, loss_scale, mean_over)
    return (_hard_mining(*options, until=0.5), _hard_mining(*options, weighting=weighting))


@register(
    title="CHML2",
    source="P3's reported statistics: CE until epoch 50 of 100, weighted L_f",
    added=DIVISOR,
)
def chml2(
    *,
    weighting: str = "CS",
    weight_placement: str = "outer",
    loss_scale: float = 1.0,
    mean_over: str = "images",
):
    second = _hard_mining(math.inf, weight_placement, loss_scale, mean_over, weighting=weighting)
    return (Stage("cross_entropy", until=0.5), second)


@register(
    title="Balanced Softmax × sinc(p)",
    source="a variant of this package: L_f (P3) on the logits of balanced softmax (Ren et al.)",
)
def balanced_hml():
    return (Stage("balanced_hard_mining"),)


# Decoupled training: a plain representation, then another classifier -------------------------------


@register(title="cRT", source="Kang et al., ICLR 2020 (classifier re-training)")
def crt():
    second = Stage("cross_entropy", sampler="class_balanced", trains="classifier", restart=True)
    return (Stage("cross_entropy", until=0.9), second)


@register(title="LWS", source="Kang et al., ICLR 2020 (learnable weight scaling)")
def lws():
    second = Stage("cross_entropy", sampler="class_balanced", trains="class_scales", restart=True)
    return (Stage("cross_entropy", until=0.9), second)


@register(
    title="τ-norm", source="Kang et al., ICLR 2020 (τ-normalised classifier)", post_hoc="tau_norm"
)
def tau_norm(*, tau: float = 1.0):
    return (Stage("cross_entropy"),)


@register(title="NCM", source="Kang et al., ICLR 2020 (nearest class mean)", post_hoc="ncm")
def ncm():
    return (Stage("cross_entropy"),)


BUILT_IN.update(RECIPES)
