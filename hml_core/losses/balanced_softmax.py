"""Balanced softmax (Ren et al., NeurIPS 2020)."""

from __future__ import annotations

from torch import Tensor

from hml_core.losses.cross_entropy import AdjustedCrossEntropy


class BalancedSoftmaxLoss(AdjustedCrossEntropy):
    """Cross-entropy of logits + log n_c: the softmax learns against the training distribution.

    Parameters
    ----------
    class_counts : (C,)
        Training images n_c of each class, ≥ 1.
    label_smoothing : float or (C,)
        See :class:`AdjustedCrossEntropy`.

    Raises
    ------
    ValueError
        For counts below 1.
    """

    corrects_priors = True

    def __init__(self, class_counts, label_smoothing=0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self._set_counts(class_counts)
        self.register_buffer("log_counts", self.class_counts.log())

    def adjusted(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits + log n_c, (N, C)."""
        return logits + self.log_counts.to(logits.dtype)
