"""Losses by name, and what is asked of one's own before it is taken in."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hml_core.errors import ConfigError, raised_by_handler, said
from hml_core.losses.balanced_hard_mining import BalancedHardMiningLoss
from hml_core.losses.balanced_softmax import BalancedSoftmaxLoss
from hml_core.losses.base import ClassificationLoss, full_precision
from hml_core.losses.cross_entropy import CrossEntropyLoss
from hml_core.losses.focal import FocalLoss
from hml_core.losses.hard_mining import HardMiningLoss
from hml_core.losses.influence_balanced import InfluenceBalancedLoss
from hml_core.losses.ldam import LDAMLoss
from hml_core.losses.logit_adjusted import LogitAdjustedLoss
from hml_core.system import fingerprints, seeds

LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "hard_mining": HardMiningLoss,
    "ldam": LDAMLoss,
    "balanced_softmax": BalancedSoftmaxLoss,
    "logit_adjusted": LogitAdjustedLoss,
    "influence_balanced": InfluenceBalancedLoss,
    "balanced_hard_mining": BalancedHardMiningLoss,
}
BUILT_IN = dict(LOSSES)

# Arguments of a loss that a stage does not set, and who does.
RESERVED = {
    "class_counts": "the trainer fills it in from the training set",
    "weight": "it is the stage's `weighting`",
    "label_smoothing": "it is a setting of the run (`RunConfig.label_smoothing`)",
}
TRIAL_COUNTS = (9, 5, 3, 2)  # images of the classes that a loss is tried with
FORGETFUL = (
    "{} gives another value after some batches than one that is made anew: it keeps a state (a counter, a "
    "mean, a generator), which no checkpoint holds, and a run that was killed would go on as another. "
    "Expected a result of its arguments alone."
)
MOST_LOOKED_AT = 32  # samples, of a loss that may be of pairs of them


def register(loss: type[nn.Module] | None = None, *, name: str | None = None):
    """Decorator: make a loss available to stages, under ``name`` or its own.

    A :class:`ClassificationLoss`, or any module whose ``forward(logits (N, C), target (N,))`` is the mean
    over the batch, such as ``torch.nn.CrossEntropyLoss``. The trainer fills in ``class_counts`` (C,),
    ``weight`` (C,) and ``label_smoothing`` where the constructor takes them; a class attribute says what
    else it needs (:attr:`ClassificationLoss.needs_cosines`, :attr:`ClassificationLoss.needs_features`).
    A name that is taken is taken over, and runs with it are other runs than before.

    >>> @register(name="squared")
    ... class SquaredLoss(ClassificationLoss):
    ...     def per_sample(self, logits, target):
    ...         return (1 - logits.softmax(1).gather(1, target[:, None])[:, 0]) ** 2
    >>> del LOSSES["squared"]

    Raises
    ------
    ConfigError
        For what is no loss: not a class of modules, or one that does not make a finite number with a
        gradient out of logits and classes.
    """
    if loss is None:
        return functools.partial(register, name=name)
    kind = require_class(loss)
    name = kind.__name__ if name is None else name
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise ConfigError(f"Expected a loss's `name` to be a word, got {name!r}.")
    takes = parameters(kind)
    if all(p.default is not p.empty or key in RESERVED for key, p in takes.items()):
        attempt(kind, {})  # else its stage's options are tried
    LOSSES[name] = kind
    return loss


def require_class(loss: Any) -> type[nn.Module]:
    """``loss`` if it is a class of modules; ConfigError otherwise."""
    if not (isinstance(loss, type) and issubclass(loss, nn.Module)):
        raise ConfigError(
            f"Expected a loss to be a class of torch.nn.Module, got {loss!r}."
            + (" (its class, not an instance)" if isinstance(loss, nn.Module) else "")
        )
    return loss


def name_of(loss: type[nn.Module], options: Mapping[str, Any]) -> str:
    """The name of a loss that a stage holds as a class.

    Where it has none it is registered under its own, once it has worked with the stage's options.

    Raises
    ------
    ConfigError
        Where another loss has that name, or the same function made another class of that name.
    """
    kind = require_class(loss)
    for name, known in LOSSES.items():
        if known is kind:
            return name
    there = LOSSES.get(kind.__name__)
    again = there is not None and (there.__module__, there.__qualname__) == (
        kind.__module__, kind.__qualname__,
    )  # fmt: skip
    if there is not None and not again:
        raise ConfigError(
            f"There is another loss called {kind.__name__!r}: register this one under a name of its own, "
            "`losses.register(name=…)`."
        )
    if again and _is_variant(kind, there):
        raise ConfigError(
            f"Two losses called {kind.__name__!r} are of the same code with other values around it: "
            "expected these values to be options of the loss, or a name for each "
            "(`losses.register(name=…)`)."
        )
    attempt(kind, options)
    LOSSES[kind.__name__] = kind
    return kind.__name__


def _is_variant(kind: type[nn.Module], other: type[nn.Module]) -> bool:
    """Whether a function made both classes, with other values: neither is a newer form of the other."""
    theirs = {getattr(value, "__code__", None) for value in vars(other).values()} - {None}
    is_shared = any(getattr(value, "__code__", None) in theirs for value in vars(kind).values())
    return is_shared and fingerprints.of_code(kind).digest != fingerprints.of_code(other).digest


@functools.lru_cache(maxsize=256)
def parameters(kind: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """Arguments of a loss's constructor by name, ``*args`` and ``**kwargs`` left out."""
    found = inspect.signature(kind).parameters
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in found.items() if p.kind not in various}


def check_options(name: str, options: Mapping[str, Any], weighting: str) -> None:
    """What a stage asks of a loss must be something that the loss does; ConfigError otherwise."""
    kind = LOSSES[name]
    takes = parameters(kind)
    for option in options:
        if option in RESERVED and option in takes:
            raise ConfigError(f"The loss {name!r} gets no option `{option}`: {RESERVED[option]}.")
        if option not in takes:
            known = ", ".join(key for key in takes if key not in RESERVED) or "none"
            raise ConfigError(
                f"Expected an option of the loss {name!r} to be one of {known}, got {option!r}."
            )
    default = getattr(takes.get("reduction"), "default", None)
    reduction = options.get("reduction", "sum" if default == "sum" else "mean")
    if reduction != "mean":
        raise ConfigError(
            f"The trainer takes steps by the mean over a batch: expected `reduction` of the loss "
            f"{name!r} to be 'mean', got {reduction!r}."
        )
    if weighting != "none" and "weight" not in takes:
        raise ConfigError(
            f"The loss {name!r} takes no class weights: expected `weighting` 'none', got {weighting!r}."
        )


def make(
    kind: type[nn.Module],
    class_counts: np.ndarray,
    options: Mapping[str, Any],
    weight: np.ndarray | None = None,
    label_smoothing: float | Tensor = 0.0,
) -> ClassificationLoss:
    """A loss with what the trainer fills in; a plain module is given the methods that a step calls."""
    takes, given = parameters(kind), dict(options)
    own = issubclass(kind, ClassificationLoss)
    if "class_counts" in takes:
        given["class_counts"] = class_counts
    if "weight" in takes and weight is not None:
        given["weight"] = weight if own else torch.as_tensor(weight, dtype=torch.float32)
    if "label_smoothing" in takes:
        given["label_smoothing"] = label_smoothing
    if own:
        return kind(**given)
    each = kind(**{**given, "reduction": "none"}) if "reduction" in takes else None
    return PlainLoss(kind(**given), each)


class PlainLoss(ClassificationLoss):
    """A module that only has ``forward(logits, target)`` → mean, with what else a step calls.

    Parameters
    ----------
    module : nn.Module
    each : nn.Module, optional
        The same with ``reduction="none"``, which gives the loss of each image.
    """

    def __init__(self, module: nn.Module, each: nn.Module | None) -> None:
        super().__init__()
        self.module, self.each = module, each
        self.needs_features = bool(getattr(module, "needs_features", False))
        self.logit_scale = float(getattr(module, "logit_scale", 1.0))
        is_weighted = isinstance(module, nn.modules.loss._WeightedLoss)
        self.register_buffer("weight", module.weight if is_weighted else None)

    def forward(self, logits: Tensor, target: Tensor, *features: Tensor) -> Tensor:
        """(N, C), (N,) → scalar."""
        logits = self._check(logits, target)
        with full_precision(logits):
            losses = self.module(logits, target, *features)
        return losses.mean() if losses.ndim else losses

    def per_sample(self, logits: Tensor, target: Tensor, *features: Tensor) -> Tensor:
        """(N, C), (N,) → (N,)."""
        if self.each is None:
            raise ConfigError(
                f"Mixed images need the loss of each of them: expected {type(self.module).__name__} to "
                "take `reduction`, or to be a ClassificationLoss with `per_sample`; or `mix` 'none'."
            )
        logits = self._check(logits, target)
        with full_precision(logits):
            return self.each(logits, target, *features)

    def total_weight(
        self, first: Tensor, second: Tensor | None = None, share: Tensor | None = None
    ) -> Tensor | None:
        """See :meth:`ClassificationLoss.total_weight`: torch's weighted losses divide by Σ w."""
        return self._sum_of_weights(first, second, share)


class ScaledLoss(ClassificationLoss):
    """A loss of ``scale`` · logits: for cosines of scale 1, where another stage needs them bare."""

    def __init__(self, loss: ClassificationLoss, scale: float) -> None:
        super().__init__()
        self.loss, self.scale = loss, scale
        self.needs_features = loss.needs_features
        self.logit_scale = scale * loss.logit_scale

    def forward(self, logits: Tensor, target: Tensor, *features: Tensor) -> Tensor:
        """(N, C), (N,) → scalar."""
        return self.loss(self.scale * logits, target, *features)

    def per_sample(self, logits: Tensor, target: Tensor, *features: Tensor) -> Tensor:
        """(N, C), (N,) → (N,)."""
        return self.loss.per_sample(self.scale * logits, target, *features)

    def total_weight(self, *labels: Tensor) -> Tensor | None:
        """That of the loss."""
        return self.loss.total_weight(*labels)

    def mixed(self, logits: Tensor, *rest: Tensor) -> Tensor:
        """That of the loss."""
        return self.loss.mixed(self.scale * logits, *rest)


def require_mixable(loss: ClassificationLoss, classes: int) -> None:
    """Mixed images are trained with the same loss as others.

    Raises
    ------
    ConfigError
        For a loss without losses of images, and for a subclass that changes ``forward`` alone.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(8, classes, generator=generator) - 0.5
    target = torch.arange(8) % classes
    features = (torch.rand(8, 3, generator=generator),) if loss.needs_features else ()
    found = []
    for labels in ((target,), (target, target, torch.ones(8))):
        with seeds.apart(everywhere=True), torch.no_grad():
            torch.default_generator.manual_seed(0)  # a loss that draws, draws the same twice
            call = loss if len(labels) == 1 else loss.mixed
            found.append(float(call(logits, *labels, *features)))
    if not math.isclose(*found, rel_tol=1e-4, abs_tol=1e-6):
        raise ConfigError(
            f"Mixed images would have another loss, {found[1]:g} where `forward` gives {found[0]:g}: "
            "expected `per_sample` to be changed rather than `forward`, or `mixed` as well, or `mix` "
            "'none'."
        )


def attempt(kind: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Try a loss on a few made-up logits.

    Raises
    ------
    ConfigError
        Where it cannot be made, does not take (N, C) and (N,), or gives no finite number with a gradient;
        where its ``per_sample`` gives anything else than a loss for each sample; where it has parameters,
        which no stage trains, or changes a state, which no checkpoint holds.
    """
    name, counts = kind.__name__, np.array(TRIAL_COUNTS)
    fixed = fingerprints.unchanged(kind, f"The loss {name!r}")
    with fixed, seeds.apart(everywhere=True), torch.enable_grad():
        generator = torch.Generator().manual_seed(0)
        logits = torch.rand(len(counts) + 2, len(counts), generator=generator) - 0.5
        logits.requires_grad_()
        target = torch.arange(len(logits)) % len(counts)
        weight = np.ones(len(counts)) if "weight" in parameters(kind) else None

        def new() -> ClassificationLoss:
            with seeds.seeded(0, "made", everywhere=True):
                return make(kind, counts, options, weight)

        try:
            loss = new()
            extra = (
                (torch.rand(len(logits), 3, generator=generator),) if loss.needs_features else ()
            )
            _require_stateless(loss, name, logits.detach(), target, *extra)
            for some in (logits, -logits):
                loss(some.detach(), target, *extra)
            if remembers(loss, new, logits.detach(), *extra):
                raise ConfigError(FORGETFUL.format(f"The loss {name}"))
            value = loss(logits, target, *extra)
            gradient = torch.autograd.grad(value, logits)[0]
            _require_one_each(loss, name, logits.detach(), target, *extra)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # whatever somebody's own code raises
            raise ConfigError(f"The loss {name} does not work: {said(error)}") from error
    if value.ndim or not bool(value.isfinite()) or not bool(gradient.isfinite().all()):
        raise ConfigError(
            f"Expected the loss {name} to give one finite number with a finite gradient, got {value}."
        )


def _require_stateless(loss: ClassificationLoss, name: str, *batch: Tensor) -> None:
    if parameters := [key for key, _ in loss.named_parameters()]:
        raise ConfigError(
            f"The loss {name} has parameters ({', '.join(parameters)}), which no stage trains: expected "
            "buffers (`register_buffer`) or options, or parameters of the model."
        )
    before = {key: value.clone() for key, value in loss.named_buffers()}
    loss(*batch)
    changed = [key for key, value in loss.named_buffers() if not _same(before.get(key), value)]
    if changed:
        raise ConfigError(
            f"The loss {name} changes its state ({', '.join(changed)}), which no checkpoint holds: a run "
            "that was killed would go on as another. Expected a loss of logits and classes alone."
        )


def remembers(
    loss: ClassificationLoss,
    new: Callable[[], ClassificationLoss],
    like: Tensor,
    *features: Tensor,
) -> bool:
    """Whether a loss that was called before gives another value than one that is made anew.

    A run that goes on after a kill has a new one. (A copy of ``loss`` is called, where it can be copied.)
    ``like``: made-up logits (N, C), of which shape and device count.
    """
    try:
        used = copy.deepcopy(loss)
    except Exception as error:  # whatever somebody's own code holds
        if raised_by_handler(error):
            raise
        used = loss
    values = []
    for one in (used, new()):
        with seeds.seeded(0, "trial", everywhere=True, device=like.device), torch.enable_grad():
            logits = torch.rand_like(like) - 0.5
            target = torch.arange(len(logits), device=logits.device) % logits.shape[1]
            values.append(one(logits.requires_grad_(), target, *features).detach())
    return not torch.allclose(*values, rtol=1e-5, atol=1e-7, equal_nan=True)


def _require_one_each(loss: ClassificationLoss, name: str, *batch: Tensor) -> None:
    """``per_sample`` gives (N,), where a loss has it: its mean would hide anything else."""
    has_none = type(loss).per_sample is ClassificationLoss.per_sample
    if has_none or (isinstance(loss, PlainLoss) and loss.each is None):
        return
    losses, number = loss.per_sample(*batch), len(batch[0])
    if losses.shape != (number,):
        raise ConfigError(
            f"Expected `per_sample` of the loss {name} to give one loss for each of {number} samples, "
            f"of shape ({number},), got {tuple(losses.shape)}."
        )


def _same(before: Tensor | None, after: Tensor) -> bool:
    return before is not None and torch.equal(before.nan_to_num(), after.nan_to_num())


def require_works(loss: ClassificationLoss, classes: int) -> None:
    """Call a loss with made-up logits of as many classes as there are; what it raises goes through."""
    if loss.needs_features:  # how many there are is the network's to say
        return
    with seeds.apart(everywhere=True), torch.no_grad():
        loss(torch.zeros(2, classes), torch.arange(2) % classes)
