"""Cross-entropy with class weights and label smoothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hml_core.losses.base import ClassificationLoss, full_precision, require_number


class CrossEntropyLoss(ClassificationLoss):
    """L = −log p of the true class; with class weights, PyTorch's weighted mean (Σ w·L / Σ w).

    Parameters
    ----------
    weight : (C,), optional
        Class weights, positive.
    label_smoothing : float
        Probability mass spread evenly over all classes, in [0, 1) (Szegedy et al., CVPR 2016).

    Raises
    ------
    ValueError
        For weights that are not positive or a smoothing outside [0, 1).
    """

    def __init__(self, weight=None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._set_weight(weight)
        self.label_smoothing = require_number("label_smoothing", label_smoothing, least=0)
        if not self.label_smoothing < 1:
            raise ValueError(f"Expected `label_smoothing` < 1, got {label_smoothing}.")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → scalar."""
        logits = self._check(logits, target)
        with full_precision(logits):
            return F.cross_entropy(
                logits,
                target,
                weight=self._class_weight(logits),
                label_smoothing=self.label_smoothing,
            )
