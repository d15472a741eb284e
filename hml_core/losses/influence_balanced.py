"""Influence-balanced loss (Park et al., ICCV 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hml_core.losses.base import ClassificationLoss, full_precision, require_number, true_class
from hml_core.losses.focal import focal_factor


class InfluenceBalancedLoss(ClassificationLoss):
    """Weighted cross-entropy divided by a sample's influence on the classifier.

    L = w·(−log p)·α / (‖softmax − onehot‖₁·‖features‖₁ + ε), mean over the batch size. With ``gamma``
    it is IB-focal: the factor (1 − p^w)^γ is applied, too. This is the authors' published code, in which
    the gradient also flows through the influence (it is not detached), into logits and features.

    Parameters
    ----------
    alpha, epsilon : float
        α > 0 scales the loss, ε > 0 bounds it for samples without influence.
    gamma : float, optional
        Focal exponent ≥ 0 of IB-focal.
    weight : (C,), optional
        Class weights, positive.

    Raises
    ------
    ValueError
        For values outside these ranges, or features that are not (N, d).
    """

    needs_features = True

    def __init__(
        self, alpha: float = 1000.0, epsilon: float = 1e-3, gamma: float | None = None, weight=None
    ) -> None:
        super().__init__()
        self.alpha = require_number("alpha", alpha, above=0)
        self.epsilon = require_number("epsilon", epsilon, above=0)
        self.gamma = None if gamma is None else require_number("gamma", gamma, least=0)
        self._set_weight(weight)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor) -> Tensor:
        """(N, C), (N,), (N, d) → scalar."""
        return self.per_sample(logits, target, features).mean()

    def per_sample(self, logits: Tensor, target: Tensor, features: Tensor) -> Tensor:
        """(N, C), (N,), (N, d) → (N,)."""
        logits = self._check(logits, target)
        if features.ndim != 2 or len(features) != len(logits):
            raise ValueError(
                f"Expected `features` of shape ({len(logits)}, d), got {tuple(features.shape)}."
            )
        if not features.is_floating_point():
            raise ValueError(f"Expected `features` to be floating point, got {features.dtype}.")
        with full_precision(logits):
            log_probabilities = logits.log_softmax(dim=1)
            onehot = F.one_hot(target, logits.shape[1]).to(logits.dtype)
            error = (log_probabilities.exp() - onehot).abs().sum(dim=1)  # (N,)
            influence = error * features.to(logits.dtype).abs().sum(dim=1)
            log_p = true_class(log_probabilities, target)
            weight = self._class_weight(logits)
            weighted = log_p if weight is None else weight[target] * log_p
            losses = -weighted * self.alpha / (influence + self.epsilon)
            if self.gamma is not None:
                losses = focal_factor(weighted, self.gamma) * losses
            return losses
