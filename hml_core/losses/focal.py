"""Focal loss (Lin et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from hml_core.losses.base import (
    REDUCTIONS,
    WEIGHTINGS,
    ClassificationLoss,
    full_precision,
    reduce,
    require_choice,
    require_number,
    true_class,
)


def focal_factor(log_p: Tensor, gamma: float) -> Tensor:
    """(1 − p)^γ from log p, with a finite gradient at p = 1 for every γ ≥ 0."""
    if gamma == 0:
        return torch.ones_like(log_p)
    return (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma


class FocalLoss(ClassificationLoss):
    """L = w·(1 − p)^γ·(−log p), equation 4 of Lin et al. for the softmax.

    Parameters
    ----------
    gamma : float
        γ ≥ 0; 0 is cross-entropy. 1 as in the experiments of Cao et al. (LDAM, 2019).
    weight : (C,), optional
        Class weights w, positive.
    weighting : {"outer", "inner"}
        "inner" is (1 − p^w)^γ·w·(−log p): the weighted cross-entropy is fed into p.
    reduction : {"mean", "sum", "none"}
        The mean divides by the batch size.

    Raises
    ------
    ValueError
        For γ that is negative or infinite, weights that are not positive, or unknown choices.
    """

    def __init__(
        self, gamma: float = 1.0, weight=None, weighting: str = "outer", reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.gamma = require_number("gamma", gamma, least=0)
        self._set_weight(weight)
        self.weighting = require_choice("weighting", weighting, WEIGHTINGS)
        self.reduction = require_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → scalar, or (N,) with ``reduction="none"``."""
        return reduce(self.per_sample(logits, target), self.reduction)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → (N,)."""
        logits = self._check(logits, target)
        with full_precision(logits):
            log_p = true_class(logits.log_softmax(dim=1), target)
            weight = self._class_weight(logits)
            weighted = log_p if weight is None else weight[target] * log_p
            seen = weighted if self.weighting == "inner" else log_p
            return focal_factor(seen, self.gamma) * -weighted
