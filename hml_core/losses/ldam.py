"""Label-distribution-aware margin loss (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

from torch import Tensor

from hml_core.losses.base import require_number
from hml_core.losses.cross_entropy import AdjustedCrossEntropy


class LDAMLoss(AdjustedCrossEntropy):
    """Cross-entropy of s·(cos θ − m·[true class]) with margins m_c ∝ n_c^(−1/4).

    The logits must be cosines, from a cosine head of scale 1. The largest margin, that of the rarest
    class, is ``max_margin``.

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
    label_smoothing : float or (C,)
    mean_over : {"weights", "images"}
        See :class:`AdjustedCrossEntropy`.

    Raises
    ------
    ValueError
        For counts below 1, a negative margin or a scale that is not positive.
    """

    needs_cosines = True

    def __init__(
        self,
        class_counts,
        max_margin: float = 0.5,
        scale: float = 30.0,
        weight=None,
        label_smoothing=0.0,
        mean_over="weights",
    ) -> None:
        super().__init__(weight, label_smoothing, mean_over)
        self._set_counts(class_counts)
        self.max_margin = require_number("max_margin", max_margin, least=0)
        self.scale = self.logit_scale = require_number("scale", scale, above=0)
        margins = self.class_counts**-0.25
        self.register_buffer("margins", margins * (self.max_margin / margins.max()))

    def adjusted(self, logits: Tensor, target: Tensor) -> Tensor:
        """s·(cosines − margin of the true class), (N, C)."""
        margins = self.margins.to(logits.dtype)[target]
        return self.scale * logits.scatter_add(1, target[:, None], -margins[:, None])
