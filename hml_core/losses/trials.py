"""One's own loss is called with made-up logits, before a run relies on it and while it is trained with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hml_core.errors import ConfigError, raised_by_handler, said
from hml_core.losses.base import ClassificationLoss
from hml_core.losses.wrapping import PlainLoss, make, parameters
from hml_core.system import fingerprints, seeds

TRIAL_COUNTS = (9, 5, 3, 2)  # images of the classes that a loss is tried with
MORE_CLASSES = (10, 100)  # that it is tried with where it does not work with so few
_OF_SIZES = (RuntimeError, ValueError, IndexError)  # what tensors of other sizes raise
FORGETFUL = (
    "{} gives another value after some batches than one that is made anew: it keeps a state (a counter, a "
    "mean, a generator), which no checkpoint holds, and a run that was killed would go on as another. "
    "Expected a result of its arguments alone."
)
MOST_LOOKED_AT = 32  # samples, of a loss that may be of pairs of them


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


class _DoesNotWorkError(ConfigError):
    """A loss that raised something of its own."""


def attempt(kind: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Try a loss on a few made-up logits: of four classes, or of as many as its ``num_classes`` says.

    One that does not work with four, as it holds a value for each class of a data set, is tried with more.

    Raises
    ------
    ConfigError
        Where it cannot be made, does not take (N, C) and (N,), or gives no finite number with a gradient;
        where its ``per_sample`` gives anything else than a loss for each sample; where it has parameters,
        which no stage trains, or changes a state, which no checkpoint holds.
    """
    alone = getattr(kind, "num_classes", None)
    if isinstance(alone, int) and alone < 2:
        raise ConfigError(
            f"Expected `num_classes` of the loss {kind.__name__} to be at least 2, got {alone}."
        )
    more = (range(number + 1, 1, -1) for number in MORE_CLASSES)
    tried = [range(alone + 1, 1, -1)] if isinstance(alone, int) else [TRIAL_COUNTS, *more]
    first: _DoesNotWorkError | None = None
    fixed = fingerprints.unchanged(kind, f"The loss {kind.__name__!r}")
    with fixed, seeds.apart(everywhere=True), torch.enable_grad():
        for counts in tried:
            try:
                return _attempt(kind, options, np.array(counts))
            except _DoesNotWorkError as error:
                first = first or error
                if not isinstance(first.__cause__, _OF_SIZES):
                    raise
    if len(tried) == 1:
        raise first
    numbers = ", ".join(str(len(counts)) for counts in tried)
    raise ConfigError(
        f"{first} (It was tried with {numbers} classes. One that is for another number alone says so by "
        "its class attribute `num_classes`.)"
    ) from first.__cause__


def _attempt(kind: type[nn.Module], options: Mapping[str, Any], counts: np.ndarray) -> None:
    """With so many images of each class (C,)."""
    name = kind.__name__
    generator = torch.Generator().manual_seed(0)
    samples = min(len(counts), MORE_CLASSES[-1]) + 2
    logits = torch.rand(samples, len(counts), generator=generator) - 0.5
    logits.requires_grad_()
    target = torch.arange(len(logits)) % len(counts)
    weight = np.ones(len(counts)) if "weight" in parameters(kind) else None

    def new() -> ClassificationLoss:
        with seeds.seeded(0, "made", everywhere=True):
            return make(kind, counts, options, weight)

    try:
        loss = new()
        extra = (torch.rand(len(logits), 3, generator=generator),) if loss.needs_features else ()
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
        raise _DoesNotWorkError(f"The loss {name} does not work: {said(error)}") from error
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
