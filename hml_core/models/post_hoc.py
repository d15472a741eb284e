"""Classifiers made from a trained network without training: τ-normalisation and nearest class mean.

Source of both: Kang et al., "Decoupling representation and classifier for long-tailed recognition"
(ICLR 2020), section 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassScales(nn.Module):
    """LWS: one learnable factor for each class on top of a frozen classifier."""

    def __init__(self, classifier: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False)
        self.scales = nn.Parameter(torch.ones(num_classes))

    @property
    def weight(self) -> Tensor:
        """The class vectors (C, d), scaled: what a τ-normalised classifier is made of."""
        return self.scales[:, None] * self.classifier.weight

    def forward(self, features: Tensor) -> Tensor:
        """(N, d) → (N, C)."""
        return self.scales * self.classifier(features)


class TauNormalised(nn.Module):
    """Class vectors (C, d) and no bias."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, features: Tensor) -> Tensor:
        """(N, d) → (N, C)."""
        return F.linear(features, self.weight.to(features.dtype))


def tau_normalised(classifier: nn.Module, tau: float) -> TauNormalised:
    """Class vectors divided by their Euclidean norm to the power τ, no bias.

    τ = 0 keeps the vectors, τ = 1 makes them equally long.
    """
    weight = classifier.weight.detach()
    norms = weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    return TauNormalised(weight / norms**tau)


def class_means(features: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Mean feature vector of each class: (N, d), (N,) → (C, d)."""
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, targets, features)
    return sums / torch.bincount(targets, minlength=num_classes).clamp_min(1)[:, None]


class NearestClassMean(nn.Module):
    """Logits are cosines to class means: of features from ``centre`` (d,) to ``directions`` (C, d)."""

    def __init__(self, centre: Tensor, directions: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("directions", directions)

    def forward(self, features: Tensor) -> Tensor:
        """(N, d) → (N, C)."""
        return F.normalize(features.float() - self.centre, dim=1) @ self.directions.T


def nearest_class_mean(features: Tensor, targets: Tensor, num_classes: int) -> NearestClassMean:
    """The class means of the training features (N, d).

    Features are centred on the mean of the class means first, so that the head classes do not set the
    origin, and then normalised.
    """
    means = class_means(features.float(), targets, num_classes)
    centre = means.mean(dim=0)
    return NearestClassMean(centre, F.normalize(means - centre, dim=1))


# By the name that a recipe gives it, with the tensors that each holds.
CLASSIFIERS = {"tau_norm": TauNormalised, "ncm": NearestClassMean}
