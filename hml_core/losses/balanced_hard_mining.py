"""The hard-mining loss of balanced softmax: both corrections in one stage."""

from __future__ import annotations

import math

from torch import Tensor

from hml_core.losses.base import full_precision
from hml_core.losses.hard_mining import HardMiningLoss


class BalancedHardMiningLoss(HardMiningLoss):
    """L = factor(q)·(−log q) with q, the true class's share of softmax(logits + log n_c).

    The softmax is that of balanced softmax (Ren et al., NeurIPS 2020), which learns against the training
    distribution by itself, and the factor that of :class:`HardMiningLoss`: with δ = ∞ it is sinc(q), and
    the loss L_f on adjusted logits. A variant of this package, in none of the papers: it has neither
    class weights nor a second stage.

    Parameters
    ----------
    class_counts : (C,)
        Training images n_c of each class, ≥ 1.
    delta : float
        δ > 0, the outlier cut on q; ``math.inf`` leaves the outliers in.
    scale : float
        Constant factor.
    reduction : {"mean", "sum", "none"}
        The mean divides by the batch size.

    Raises
    ------
    ValueError
        For counts below 1, and as :class:`HardMiningLoss`.
    """

    corrects_priors = True

    def __init__(
        self, class_counts, delta: float = math.inf, scale: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__(delta=delta, scale=scale, reduction=reduction)
        self._set_counts(class_counts)
        self.register_buffer("log_counts", self.class_counts.log())

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → (N,)."""
        logits = self._check(logits, target)
        with full_precision(logits):
            return super().per_sample(logits + self.log_counts.to(logits.dtype), target)
