"""Cross-entropy with class weights and label smoothing, and what is cross-entropy of other logits."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hml_core.losses.base import (
    WeightedMeanLoss,
    _vector,
    full_precision,
    true_class,
)

NO_CLASS = -(2**62)  # torch's −100 would leave images out in silence


class AdjustedCrossEntropy(WeightedMeanLoss):
    """Base of the losses that are cross-entropy once their logits are adjusted.

    Parameters
    ----------
    weight : (C,), optional
        Class weights w, positive.
    label_smoothing : float or (C,)
        Probability mass spread evenly over all classes, in [0, 1) (Szegedy et al., CVPR 2016): the same
        for every image, or one value for each true class.
    mean_over : {"weights", "images"}
        The mean over a batch is PyTorch's weighted mean, Σ w·L / Σ w, or Σ w·L / N. The mean weight of an
        image of a long-tailed set is far from 1 (0.2 for CIFAR-100-LT, ratio 100, weights ∝ 1/n): that
        much smaller is the second, and with it the step. Losses that divide by the number of images, as
        the hard-mining loss does, are compared with the second.
    """

    def __init__(self, weight=None, label_smoothing=0.0, mean_over="weights") -> None:
        super().__init__()
        self._set_weight(weight)
        self._set_mean_over(mean_over)
        scalar = not hasattr(label_smoothing, "__len__") or isinstance(label_smoothing, str)
        values = _vector("label_smoothing", [label_smoothing] if scalar else label_smoothing)
        if not bool(((values >= 0) & (values < 1)).all()):
            raise ValueError(
                f"Expected `label_smoothing` ≥ 0 and `label_smoothing` < 1, got {label_smoothing}."
            )
        self.label_smoothing = float(values[0]) if scalar else math.nan
        self.register_buffer("smoothing_by_class", None if scalar else values)

    def adjusted(self, logits: Tensor, target: Tensor) -> Tensor:
        """The logits whose cross-entropy is the loss, (N, C)."""
        return logits

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → scalar."""
        is_own = type(self).per_sample is not AdjustedCrossEntropy.per_sample  # a subclass's
        if is_own or self.smoothing_by_class is not None or self._weighs_images:
            return self._mean(self.per_sample(logits, target), target)
        return self._cross_entropy(logits, target, "mean")

    @property
    def _weighs_images(self) -> bool:
        """Whether class weights change how much a batch counts, rather than its parts alone."""
        return self.weight is not None and self.mean_over == "images"

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) → (N,), each times the weight of its class."""
        if self.smoothing_by_class is None:
            return self._cross_entropy(logits, target, "none")
        logits = self._check(logits, target)
        with full_precision(logits):
            log_p = self.adjusted(logits, target).log_softmax(dim=1)
            weight = self._class_weight(logits)
            if weight is not None:
                log_p = log_p * weight
            spread = self.smoothing_by_class.to(logits.dtype)[target]
            return -(1 - spread) * true_class(log_p, target) - spread * log_p.mean(dim=1)

    def _cross_entropy(self, logits: Tensor, target: Tensor, reduction: str) -> Tensor:
        logits = self._check(logits, target)
        with full_precision(logits):
            return F.cross_entropy(
                self.adjusted(logits, target),
                target,
                weight=self._class_weight(logits),
                label_smoothing=self.label_smoothing,
                reduction=reduction,
                ignore_index=NO_CLASS,
            )


class CrossEntropyLoss(AdjustedCrossEntropy):
    """L = −log p of the true class, times the weight of that class.

    Parameters
    ----------
    weight : (C,), optional
        Class weights, positive.
    label_smoothing : float or (C,)
        See :class:`AdjustedCrossEntropy`; one value for each class is label-aware smoothing
        (:func:`label_aware_smoothing`).
    mean_over : {"weights", "images"}
        See :class:`AdjustedCrossEntropy`.

    Raises
    ------
    ValueError
        For weights that are not positive, a smoothing outside [0, 1) or another ``mean_over``.
    """


def label_aware_smoothing(class_counts, head: float, tail: float = 0.0) -> Tensor:
    """Smoothing of each class, float64 (C,): ``head`` for the most frequent, ``tail`` for the rarest.

    ε_c = tail + (head − tail)·sin(π/2 · (n_c − n_min) / (n_max − n_min)), the concave form of Zhong et
    al., "Improving calibration for long-tailed recognition" (MiSLAS, CVPR 2021). There the mass goes to
    the C − 1 other classes; the factor C / (C − 1) turns it into mass spread over all C.

    Raises
    ------
    ValueError
        Unless 0 ≤ tail ≤ head and the result stays below 1.
    """
    counts = _vector("class_counts", class_counts)
    if not 0 <= tail <= head:
        raise ValueError(f"Expected 0 ≤ `tail` ≤ `head`, got {tail} and {head}.")
    reach = counts.max() - counts.min()
    position = (counts - counts.min()) / reach if reach > 0 else torch.ones_like(counts)
    values = tail + (head - tail) * torch.sin(0.5 * math.pi * position)
    values = values * len(counts) / max(len(counts) - 1, 1)
    if bool((values >= 1).any()):
        raise ValueError(f"Expected a smoothing below {1 - 1 / len(counts):g}, got {head}.")
    return values
