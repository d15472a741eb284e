"""Classifiers: the last layer of every network of this package."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = ("linear", "cosine")


def build(name: str, in_features: int, num_classes: int, scale: float = 1.0) -> nn.Module:
    """A linear classifier, or a cosine one with ``scale``.

    Raises
    ------
    ValueError
        For a name that is not in :data:`HEADS`, or no class.
    """
    if name not in HEADS:
        raise ValueError(f"Expected `head` to be one of {', '.join(HEADS)}, got {name!r}.")
    if num_classes < 1:
        raise ValueError(f"Expected `num_classes` to be at least 1, got {num_classes}.")
    if name == "cosine":
        return CosineLinear(in_features, num_classes, scale)
    return nn.Linear(in_features, num_classes)


class Headed(nn.Module):
    """A network whose last layer is ``linear``; the rest is :meth:`features`."""

    linear: nn.Module

    @property
    def classifier(self) -> nn.Module:
        """The last layer, under the name that is the same for every network of this package."""
        return self.linear

    def replace_classifier(self, module: nn.Module) -> None:
        """Put another module in the place of the last layer."""
        self.linear = module

    def features(self, x: Tensor) -> Tensor:
        """The representation before the classifier: (N, channels, H, W) → (N, d)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → logits (N, num_classes)."""
        return self.linear(self.features(x))


class CosineLinear(nn.Module):
    """Cosine (normalised) classifier: ``logits = scale · cos(features, weight)``.

    Both the features and each class vector are divided by their Euclidean norm, so that the norm of a
    class vector, which grows with the class's frequency, cannot favour the head classes. Source: the
    ``NormedLinear`` of Cao et al., LDAM (NeurIPS 2019); Gidaris and Komodakis (CVPR 2018).

    Class vectors start at norm 1, as there: a gradient turns a vector by an angle that falls with the
    square of its norm. ``weight`` is (out_features, in_features), as that of a linear layer; a state dict
    that holds it the other way round, as published ones of LDAM-DRW do, is loaded as well.

    Parameters
    ----------
    in_features, out_features : int
    scale : float
        1 yields plain cosines, as :class:`~hml_core.losses.LDAMLoss` expects (it scales by itself).
        Any other loss needs a larger value to be able to reach confident probabilities.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        with torch.no_grad():
            self.weight.uniform_(-1, 1)
            self.weight.copy_(F.normalize(self.weight, dim=1))
        self.scale = float(scale)

    # Of a state dict: 1, as torch writes it for any other layer, is a published one's.
    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest) -> None:
        """Turn class vectors that lie in columns; of a square matrix only the version can tell."""
        given, wanted = state.get(f"{prefix}weight"), self.weight.shape
        if given is not None and given.shape == wanted[::-1]:
            is_square = wanted[0] == wanted[1]
            if not is_square or metadata.get("version") == 1:
                state[f"{prefix}weight"] = given.t()
        super()._load_from_state_dict(state, prefix, metadata, *rest)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_features) → (N, out_features)."""
        cosines = F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
        return self.scale * cosines
