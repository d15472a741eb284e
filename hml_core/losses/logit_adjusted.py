"""Logit-adjusted cross-entropy (Menon et al., ICLR 2021)."""

from __future__ import annotations

from torch import Tensor

from hml_core.losses.base import require_number
from hml_core.losses.cross_entropy import AdjustedCrossEntropy


class LogitAdjustedLoss(AdjustedCrossEntropy):
    """Cross-entropy of logits + τ·log π_c with the class priors π_c = n_c / Σ n, equation 10.

    Parameters
    ----------
    class_counts : (C,)
        Training images n_c of each class, ≥ 1.
    tau : float
        τ ≥ 0; 0 is cross-entropy, 1 is the consistent choice for balanced accuracy.
    label_smoothing : float or (C,)
        See :class:`AdjustedCrossEntropy`.

    Raises
    ------
    ValueError
        For counts below 1 or τ < 0.
    """

    corrects_priors = True

    def __init__(self, class_counts, tau: float = 1.0, label_smoothing=0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self._set_counts(class_counts)
        self.tau = require_number("tau", tau, least=0)
        priors = self.class_counts / self.class_counts.sum()
        self.register_buffer("adjustment", self.tau * priors.log())

    def adjusted(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits + τ·log π_c, (N, C)."""
        return logits + self.adjustment.to(logits.dtype)
