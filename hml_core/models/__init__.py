"""Networks by name, each with ``model(x)``, ``model.features(x)`` and ``.classifier``.

``cifar`` has the residual networks for small images, ``imagenet`` torchvision's networks for larger ones,
``heads`` the linear and the cosine classifier of both.
"""

from __future__ import annotations

from torch import nn

from hml_core.models.cifar import CifarResNet, resnet8, resnet14, resnet20, resnet32
from hml_core.models.heads import HEADS, CosineLinear
from hml_core.models.imagenet import (
    IMAGENET_MODELS,
    ImageNetModel,
    freeze,
    load_weights,
)

__all__ = [
    "HEADS",
    "IMAGENET_MODELS",
    "MODELS",
    "CifarResNet",
    "CosineLinear",
    "ImageNetModel",
    "build",
    "draws",
    "freeze",
    "load_weights",
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
]

MODELS = {
    "resnet8": resnet8,
    "resnet14": resnet14,
    "resnet20": resnet20,
    "resnet32": resnet32,
    **IMAGENET_MODELS,
}


def build(name: str, num_classes: int, head: str = "linear", **options) -> nn.Module:
    """The network called ``name``, randomly initialised.

    Raises
    ------
    ValueError
        For a name that is not in :data:`MODELS` or a head that is not in :data:`HEADS`.
    """
    if name not in MODELS:
        raise ValueError(f"Expected `model` to be one of {', '.join(MODELS)}, got {name!r}.")
    return MODELS[name](num_classes, head, **options)


def draws(model: nn.Module) -> bool:
    """Whether layers of the model draw random numbers in training: dropout, stochastic depth."""
    return any(
        isinstance(layer, nn.modules.dropout._DropoutNd)
        or type(layer).__name__
        == "StochasticDepth"  # torchvision's, which is not imported for this
        for layer in model.modules()
    )
