"""The hard-mining loss of Foahom Gouabou et al. (2022)."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from hml_core.losses.base import (
    REDUCTIONS,
    WEIGHTINGS,
    WeightedMeanLoss,
    full_precision,
    reduce,
    require_choice,
    require_number,
    true_class,
)

# Up to here every factor of the gradient stays inside float32; δ·log p overflows beyond about 1e36.
LARGEST_DELTA = 1e30


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
    """sinc(p) − exp(−δp)·sinc(δp): 0 at p = 0 and at p = 1; shape of ``p``.

    ``delta=inf`` leaves sinc(p), which is 1 at p = 0.

    >>> hard_mining_factor(torch.tensor([0.0, 1e-5, 1e-3, 0.5]), 1e4)
    tensor([0.0000, 0.1100, 1.0000, 0.6366])
    """
    if math.isinf(delta):
        return sinc(p)
    scaled = delta * p
    return sinc(p) - torch.exp(-scaled) * sinc(scaled)


def hard_mining_value(
    p: Tensor, delta: float, weight: float = 1.0, weighting: str = "outer", scale: float = 1.0
) -> Tensor:
    """The loss as a function of the true-class probability, shape of ``p``; 0 < p ≤ 1.

    It is the code that trains. See :class:`HardMiningLoss` for the arguments; ``weight`` is that of
    the true class.

    Raises
    ------
    ValueError
        For δ, a weight or a scale that is not positive, or an unknown weighting.
    """
    _check_delta(delta)
    require_number("weight", weight, above=0)
    require_choice("weighting", weighting, WEIGHTINGS)
    require_number("scale", scale, above=0)
    return _of_log_probability(p.log(), delta, weight, weighting, scale)


def _of_log_probability(
    log_p: Tensor, delta: float, weight: Tensor | float, weighting: str, scale: float
) -> Tensor:
    weighted = weight * log_p  # log p^w
    seen = weighted if weighting == "inner" else log_p
    return scale * hard_mining_factor(seen.exp(), delta) * -weighted


def _check_delta(delta: float) -> float:
    delta = require_number("delta", delta, above=0, finite=False)
    if LARGEST_DELTA < delta < math.inf:
        raise ValueError(
            f"Expected `delta` ≤ {LARGEST_DELTA:g}, got {delta:g}; beyond, gradients can "
            "overflow float32: `delta=math.inf` is the loss without the cut."
        )
    return delta


def outlier_cut(delta: float, weight: float = 1.0, weighting: str = "outer") -> float:
    """The probability below which the cut removes more than half of the loss.

    It is the lowest solution of exp(−δq)·sinc(δq) = sinc(q) / 2 for q = p (outer) or q = p^w (inner),
    or 1 where more than half is gone at every p (δ below about 1). As sinc(q) ≈ 1 there, q ≈ 0.41 / δ,
    and the inner cut is its w-th root; the outer one does not depend on the weight. The cut first
    removes nothing at q = 1/δ; the peak of the loss, which −log p moves as well, lies near 1.2/δ.

    Raises
    ------
    ValueError
        For δ or a weight that is not positive, or an unknown weighting.

    Examples
    --------
    For the rarest class of CIFAR-100-LT at ratio 100, w = 4.38 and the inner cut, which ends at
    p = 1e-4^(1/w) = 0.12, is half way at 0.10.

    >>> f"{outlier_cut(1e4):.2e} {outlier_cut(1e4, 4.38, 'inner'):.2f}"
    '4.06e-05 0.10'
    """
    delta = _check_delta(delta)
    weight = require_number("weight", weight, above=0)
    require_choice("weighting", weighting, WEIGHTINGS)
    if math.isinf(delta):
        return 0.0

    def half_left(scaled):
        return np.exp(-scaled) * np.sinc(scaled) - np.sinc(scaled / delta) / 2

    # The cut ends at δq = 1, so the solution is below; a probability ends at q = 1.
    scaled = np.linspace(0, min(delta, 1), 1001)
    crossed = np.flatnonzero(half_left(scaled[:-1]) < 0)
    if not len(crossed):
        return 1.0
    from scipy.optimize import brentq  # not for those who only want the loss

    q = brentq(half_left, scaled[crossed[0] - 1], scaled[crossed[0]]) / delta
    return float(q ** (1 / weight) if weighting == "inner" else q)


class HardMiningLoss(WeightedMeanLoss):
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
        The mean divides as ``mean_over`` says.
    mean_over : {"images", "weights"}
        The mean over a batch is Σ L / N, the papers' and the authors' code's, or Σ L / Σ w, as PyTorch
        divides a weighted cross-entropy: a step of another size, see
        :class:`~hml_core.losses.cross_entropy.AdjustedCrossEntropy`. Without class weights they agree.

    Raises
    ------
    ValueError
        For δ, weights or a scale that are not positive, a finite δ > 1e30, or unknown choices.

    Examples
    --------
    >>> logits, target = torch.tensor([[2.0, 0.0], [-20.0, 0.0]]), torch.tensor([0, 0])
    >>> HardMiningLoss(delta=1e4, reduction="none")(logits, target)
    tensor([0.0168, 0.0004])
    """

    is_hard_mining = True

    def __init__(
        self,
        delta: float = 1e4,
        weight=None,
        weighting: str = "outer",
        scale: float = 1.0,
        reduction: str = "mean",
        mean_over: str = "images",
    ) -> None:
        super().__init__()
        self.delta = _check_delta(delta)
        if self.delta < 1:
            warnings.warn(
                f"With `delta` {self.delta:g} below 1 the loss is negative where the true class is "
                "likely, so that training stops short of it: expected `delta` ≥ 1.",
                stacklevel=2,
            )
        self._set_weight(weight)
        self.weighting = require_choice("weighting", weighting, WEIGHTINGS)
        self.scale = require_number("scale", scale, above=0)
        self.reduction = require_choice("reduction", reduction, REDUCTIONS)
        self._set_mean_over(mean_over)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → scalar, or (N,) with ``reduction="none"``."""
        losses = self.per_sample(logits, target)
        if self.reduction == "mean":
            return self._mean(losses, target)
        return reduce(losses, self.reduction)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → (N,)."""
        logits = self._check(logits, target)
        with full_precision(logits):
            log_p = true_class(logits.log_softmax(dim=1), target)
            weight = self._class_weight(logits)
            weight = 1.0 if weight is None else weight[target]
            return _of_log_probability(log_p, self.delta, weight, self.weighting, self.scale)

    def extra_repr(self) -> str:
        return f"delta={self.delta:g}, weighting={self.weighting!r}, scale={self.scale:g}"
