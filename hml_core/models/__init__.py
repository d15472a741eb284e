"""Networks by name, each with ``model(x)``, ``model.features(x)`` and ``.classifier``.

``cifar`` has the residual networks for small images, ``imagenet`` torchvision's networks for larger ones,
``heads`` the linear and the cosine classifier of both. :func:`register` adds one's own (``own``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from hml_core.errors import ConfigError
from hml_core.models.cifar import CifarResNet, resnet8, resnet14, resnet20, resnet32
from hml_core.models.heads import HEADS, CosineLinear, Headed
from hml_core.models.imagenet import (
    IMAGENET_MODELS,
    ImageNetModel,
    freeze,
    load_weights,
)
from hml_core.models.inventories import inventory
from hml_core.models.own import Backbone, OwnModel
from hml_core.models.trials import try_out, try_sizes
from hml_core.system import fingerprints, registries

__all__ = [
    "BUILT_IN",
    "HEADS",
    "IMAGENET_MODELS",
    "MODELS",
    "Backbone",
    "CifarResNet",
    "CosineLinear",
    "Headed",
    "ImageNetModel",
    "OwnModel",
    "build",
    "draws",
    "freeze",
    "inventory",
    "load_weights",
    "register",
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "try_out",
    "try_sizes",
]

MODELS = {
    "resnet8": resnet8,
    "resnet14": resnet14,
    "resnet20": resnet20,
    "resnet32": resnet32,
    **IMAGENET_MODELS,
}
BUILT_IN = dict(MODELS)
registries.add(
    "model",
    MODELS,
    BUILT_IN,
    {"MODELS"},
    lambda name: getattr(MODELS[name], "backbone", MODELS[name]),
)
TRIAL_CLASSES = 3


def register(
    backbone: Callable[..., nn.Module] | None = None,
    *,
    name: str | None = None,
    image_size: int = 32,
):
    """Decorator: make a backbone available as ``RunConfig.model``, under its own name or ``name``.

    ``backbone(in_channels)`` is a module that makes features (N, d) of images (N, in_channels, H, W) and
    has the attribute ``out_features`` = d; the classifier behind it is the run's ``head``. It is tried on
    a few images of ``image_size`` when it is registered (:func:`hml_core.models.trials.try_out`).

    Raises
    ------
    ConfigError
        Where it does not take ``in_channels``, does not make (N, d), cannot be trained, or restored from
        its ``state_dict``.
    """
    if backbone is None:
        return functools.partial(register, name=name, image_size=image_size)
    name = getattr(backbone, "__name__", None) if name is None else name
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise ConfigError(f"Expected a model's `name` to be a word, got {name!r}.")
    make = OwnModel(backbone, name)
    with fingerprints.unchanged(backbone, f"The model {name!r}"):
        try_out(lambda: make(TRIAL_CLASSES), name, (3, image_size, image_size))
    MODELS[name] = make
    return backbone


@registries.asks("model")
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
