"""Label-distribution-aware margin loss (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hml_core.losses.base import ClassificationLoss, full_precision, require_number


class LDAMLoss(ClassificationLoss):
    """Cross-entropy of s·(cos θ − m·[true class]) with margins m_c ∝ n_c^(−1/4).

    The logits must be cosines, from a cosine head of scale 1. The largest margin, that of the rarest
    class, is ``max_margin``. With class weights the mean is PyTorch's weighted mean.

    Parameters
    ----------
    class_counts : (C,)
        Training images of each class, ≥ 1.
    max_margin : float
        ≥ 0; 0.5 as in the paper's code.
    scale : float
        s > 0; 30 as in the paper's code.
    weight : (C,), optional
        Class weights, positive.

    Raises
    ------
    ValueError
        For counts below 1, a negative margin or a scale that is not positive.
    """

    def __init__(
        self, class_counts, max_margin: float = 0.5, scale: float = 30.0, weight=None
    ) -> None:
        super().__init__()
        self._set_counts(class_counts)
        self._set_weight(weight)
        self.max_margin = require_number("max_margin", max_margin, least=0)
        self.scale = self.logit_scale = require_number("scale", scale, above=0)
        margins = self.class_counts**-0.25
        self.register_buffer("margins", margins * (self.max_margin / margins.max()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cosines (N, C), (N,) → scalar."""
        logits = self._check(logits, target)
        with full_precision(logits):
            margins = self.margins.to(logits.dtype)[target]
            shifted = logits.scatter_add(1, target[:, None], -margins[:, None])
            weight = self._class_weight(logits)
            return F.cross_entropy(self.scale * shifted, target, weight=weight)
