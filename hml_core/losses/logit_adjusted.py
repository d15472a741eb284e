"""Logit-adjusted cross-entropy (Menon et al., ICLR 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hml_core.losses.base import ClassificationLoss, full_precision, require_number


class LogitAdjustedLoss(ClassificationLoss):
    """Cross-entropy of logits + τ·log π_c with the class priors π_c = n_c / Σ n, equation 10.

    Parameters
    ----------
    class_counts : (C,)
        Training images n_c of each class, ≥ 1.
    tau : float
        τ ≥ 0; 0 is cross-entropy, 1 is the consistent choice for balanced accuracy.

    Raises
    ------
    ValueError
        For counts below 1 or τ < 0.
    """

    def __init__(self, class_counts, tau: float = 1.0) -> None:
        super().__init__()
        self._set_counts(class_counts)
        self.tau = require_number("tau", tau, least=0)
        priors = self.class_counts / self.class_counts.sum()
        self.register_buffer("adjustment", self.tau * priors.log())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → scalar."""
        logits = self._check(logits, target)
        with full_precision(logits):
            return F.cross_entropy(logits + self.adjustment.to(logits.dtype), target)
