"""Losses by name, and what is asked of one's own before it is taken in."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from hml_core.errors import ConfigError
from hml_core.losses import trials
from hml_core.losses.balanced_hard_mining import BalancedHardMiningLoss
from hml_core.losses.balanced_softmax import BalancedSoftmaxLoss
from hml_core.losses.cross_entropy import CrossEntropyLoss
from hml_core.losses.focal import FocalLoss
from hml_core.losses.hard_mining import HardMiningLoss
from hml_core.losses.influence_balanced import InfluenceBalancedLoss
from hml_core.losses.ldam import LDAMLoss
from hml_core.losses.logit_adjusted import LogitAdjustedLoss
from hml_core.losses.wrapping import parameters
from hml_core.system import fingerprints, registries

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
registries.add("loss", LOSSES, BUILT_IN, {"LOSSES"})

# Arguments of a loss that a stage does not set, and who does.
RESERVED = {
    "class_counts": "the trainer fills it in from the training set",
    "weight": "it is the stage's `weighting`",
    "label_smoothing": "it is a setting of the run (`RunConfig.label_smoothing`)",
}


def register(loss: type[nn.Module] | None = None, *, name: str | None = None):
    """Decorator: make a loss available to stages, under ``name`` or its own.

    A :class:`ClassificationLoss`, or any module whose ``forward(logits (N, C), target (N,))`` is the mean
    over the batch, such as ``torch.nn.CrossEntropyLoss``. The trainer fills in ``class_counts`` (C,),
    ``weight`` (C,) and ``label_smoothing`` where the constructor takes them; a class attribute says what
    else it needs (:attr:`ClassificationLoss.needs_cosines`, :attr:`ClassificationLoss.needs_features`).
    A name that is taken is taken over, and runs with it are other runs than before.

    >>> from hml_core.losses import ClassificationLoss
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
        trials.attempt(kind, {})  # else its stage's options are tried
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
    trials.attempt(kind, options)
    LOSSES[kind.__name__] = kind
    return kind.__name__


def _is_variant(kind: type[nn.Module], other: type[nn.Module]) -> bool:
    """Whether a function made both classes, with other values: neither is a newer form of the other."""
    theirs = {getattr(value, "__code__", None) for value in vars(other).values()} - {None}
    is_shared = any(getattr(value, "__code__", None) in theirs for value in vars(kind).values())
    return is_shared and fingerprints.of_code(kind).digest != fingerprints.of_code(other).digest


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
