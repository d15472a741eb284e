"""Balanced softmax (Ren et al., NeurIPS 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hml_core.losses.base import ClassificationLoss, full_precision


class BalancedSoftmaxLoss(ClassificationLoss):
    """Cross-entropy of logits + log n_c: the softmax learns against the training distribution.

    Parameters
    ----------
    class_counts : (C,)
        Training images n_c of each class, ≥ 1.

    Raises
    ------
    ValueError
        For counts below 1.
    """

    def __init__(self, class_counts) -> None:
        super().__init__()
        self._set_counts(class_counts)
        self.register_buffer("log_counts", self.class_counts.log())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → scalar."""
        logits = self._check(logits, target)
        with full_precision(logits):
            return F.cross_entropy(logits + self.log_counts.to(logits.dtype), target)
