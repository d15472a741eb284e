"""The hard-mining loss of Foahom Gouabou et al. (2022)."""

from __future__ import annotations

import math

import torch
from scipy.optimize import brentq
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


def sinc(x: Tensor) -> Tensor:
    """sin(πx) / (πx) with a gradient that is finite and accurate at and near zero.

    ``torch.sinc`` differentiates to 0/0 for |x| below the square root of the smallest float, which
    δp reaches for every confidently wrong sample; hence the series there.
    """
    y = math.pi * x
    near = y.abs() < 0.25
    # The branch that is not taken must stay finite, or its gradient poisons the sum with NaN.
    safe = torch.where(near, torch.ones_like(y), y)
    square = torch.where(near, y, torch.zeros_like(y)).square()
    series = torch.ones_like(y)
    for order in (12, 10, 8, 6, 4, 2):  # Horner's form of Σ (−1)ᵏ y²ᵏ / (2k+1)!
        series = 1 - square / (order * (order + 1)) * series
    return torch.where(near, series, torch.sin(safe) / safe)


def hard_mining_factor(p: Tensor, delta: float) -> Tensor:
    """sinc(p) − exp(−δp)·sinc(δp): 0 at p = 0 and at p = 1; shape of ``p``."""
    if math.isinf(delta):
        return sinc(p)
    scaled = delta * p
    return sinc(p) - torch.exp(-scaled) * sinc(scaled)


def hard_mining_value(
    p: Tensor, delta: float, weight: float = 1.0, weighting: str = "outer", scale: float = 1.0
) -> Tensor:
    """The loss as a function of the true-class probability, shape of ``p``; 0 < p ≤ 1.

    See :class:`HardMiningLoss` for the arguments; ``weight`` is that of the true class.
    """
    return _of_log_probability(p.log(), delta, weight, weighting, scale)


def _of_log_probability(
    log_p: Tensor, delta: float, weight: Tensor | float, weighting: str, scale: float
) -> Tensor:
    weighted = weight * log_p  # log p^w
    seen = weighted if weighting == "inner" else log_p
    return scale * hard_mining_factor(seen.exp(), delta) * -weighted


def outlier_cut(delta: float, weight: float = 1.0, weighting: str = "outer") -> float:
    """The probability below which the cut removes more than half of the loss.

    It solves exp(−δq)·sinc(δq) = sinc(q) / 2 for q = p (outer) or q = p^w (inner). As sinc(q) ≈ 1
    there, q ≈ 0.41 / δ; the inner cut is its w-th root.

    >>> f"{outlier_cut(1e4):.2e}"
    '4.06e-05'

    Raises
    ------
    ValueError
        For δ that is not positive or an unknown weighting.
    """
    require_number("delta", delta, above=0)
    require_choice("weighting", weighting, WEIGHTINGS)
    if math.isinf(delta):
        return 0.0

    def half_left(scaled: float) -> float:
        q = torch.tensor([scaled / delta, scaled], dtype=torch.float64)
        plain, fast = sinc(q).tolist()
        return math.exp(-scaled) * fast - plain / 2

    # For δ < 1 the cut would lie beyond p = 1: everything is halved.
    q = brentq(half_left, 0.0, 1.0) / delta
    q = min(q, 1.0)
    return q ** (1 / weight) if weighting == "inner" else q


class HardMiningLoss(ClassificationLoss):
    """L_c = [sinc(p) − exp(−δp)·sinc(δp)]·(−log p): silent for easy samples and for outliers.

    p is the softmax probability of the true class and sinc(x) = sin(πx)/(πx). Sources: HMLoss
    (GRETSI 2022, HAL hal-03725510) and "Rethinking decoupled training with bag of tricks" (DICTA 2022);
    ``delta=inf`` is the L_f of "End-to-End Decoupled Training" (Electronics 2022, 11(20), 3275).

    Parameters
    ----------
    delta : float
        δ > 0: samples below p ≈ 0.41/δ count as outliers. The first two papers use 1e4, the third 1e7.
        ``math.inf`` leaves the outliers in.
    weight : (C,), optional
        Class weights w, positive.
    weighting : {"outer", "inner"}
        "outer" is w·factor(p)·(−log p), the papers' notation. "inner" is factor(p^w)·w·(−log p), what
        the authors' code computes by feeding the weighted cross-entropy into p.
    scale : float
        Constant factor; the authors' code has 10.
    reduction : {"mean", "sum", "none"}
        The mean divides by the batch size.

    Raises
    ------
    ValueError
        For δ or a scale that is not positive, or unknown choices.

    Examples
    --------
    >>> logits, target = torch.tensor([[2.0, 0.0], [-20.0, 0.0]]), torch.tensor([0, 0])
    >>> HardMiningLoss(delta=1e4, reduction="none")(logits, target)
    tensor([0.0168, 0.0004])
    """

    def __init__(
        self,
        delta: float = 1e4,
        weight=None,
        weighting: str = "outer",
        scale: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.delta = require_number("delta", delta, above=0)
        self._set_weight(weight)
        self.weighting = require_choice("weighting", weighting, WEIGHTINGS)
        self.scale = require_number("scale", scale, above=0)
        self.reduction = require_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → scalar, or (N,) with ``reduction="none"``."""
        logits = self._check(logits, target)
        with full_precision(logits):
            log_p = true_class(logits.log_softmax(dim=1), target)
            weight = self._class_weight(logits)
            weight = 1.0 if weight is None else weight[target]
            losses = _of_log_probability(log_p, self.delta, weight, self.weighting, self.scale)
            return reduce(losses, self.reduction)

    def extra_repr(self) -> str:
        return f"delta={self.delta:g}, weighting={self.weighting!r}, scale={self.scale:g}"
