"""Any loss as a step calls it: made with what the trainer fills in, wrapped where it is a plain module."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hml_core.errors import ConfigError
from hml_core.losses.base import ClassificationLoss, full_precision


@functools.lru_cache(maxsize=256)
def parameters(kind: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """Arguments of a loss's constructor by name, ``*args`` and ``**kwargs`` left out."""
    found = inspect.signature(kind).parameters
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in found.items() if p.kind not in various}


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
