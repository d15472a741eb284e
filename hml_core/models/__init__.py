"""Networks by name, each with ``model(x)``, ``model.features(x)`` and ``.classifier``.

``cifar`` has the residual networks for small images, ``imagenet`` torchvision's networks for larger ones,
``heads`` the linear and the cosine classifier of both. :func:`register` adds one's own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch
from torch import nn

from hml_core.errors import ConfigError
from hml_core.models import heads
from hml_core.models.cifar import CifarResNet, resnet8, resnet14, resnet20, resnet32
from hml_core.models.heads import HEADS, CosineLinear, Headed
from hml_core.models.imagenet import (
    IMAGENET_MODELS,
    ImageNetModel,
    freeze,
    load_weights,
)
from hml_core.system import fingerprints

__all__ = [
    "BUILT_IN",
    "HEADS",
    "IMAGENET_MODELS",
    "MODELS",
    "CifarResNet",
    "CosineLinear",
    "Headed",
    "ImageNetModel",
    "build",
    "draws",
    "freeze",
    "load_weights",
    "register",
    "require_features",
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
BUILT_IN = dict(MODELS)


class Backbone(Headed):
    """One's own backbone, which makes features (N, d) of images, with a classifier behind it.

    Parameters
    ----------
    backbone : nn.Module
        (N, channels, H, W) → (N, d); its attribute ``out_features`` is d.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, head: str, head_scale: float) -> None:
        super().__init__()
        width = getattr(backbone, "out_features", None)
        if not isinstance(width, int):
            raise ConfigError(
                f"Expected the backbone {type(backbone).__name__} to have the attribute `out_features`, "
                f"the length of its features, got {width!r}."
            )
        self.backbone = backbone
        self.linear = heads.build(head, width, num_classes, head_scale)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The representation before the classifier: (N, channels, H, W) → (N, d)."""
        return self.backbone(x)


def register(
    backbone: Callable[..., nn.Module] | None = None,
    *,
    name: str | None = None,
    image_size: int = 32,
):
    """Decorator: make a backbone available as ``RunConfig.model``, under its own name or ``name``.

    ``backbone(in_channels)`` is a module that makes features (N, d) of images (N, in_channels, H, W) and
    has the attribute ``out_features`` = d; the classifier behind it is the run's ``head``. It is tried on
    two images of ``image_size`` when it is registered.

    Raises
    ------
    ConfigError
        Where it does not take ``in_channels``, does not make (N, d), or cannot be trained.
    """
    if backbone is None:
        return functools.partial(register, name=name, image_size=image_size)
    name = getattr(backbone, "__name__", None) if name is None else name
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise ConfigError(f"Expected a model's `name` to be a word, got {name!r}.")
    make = OwnModel(backbone)
    fixed = fingerprints.unchanged(backbone, f"The model {name!r}")
    try:
        with fixed, torch.random.fork_rng(devices=[]):
            model = make(3).eval()
            features = model.features(torch.zeros(2, 3, image_size, image_size))
    except ConfigError:
        raise
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(f"The model {name!r} does not work: {error}") from error
    width = model.backbone.out_features
    if features.shape != (2, width) or not features.requires_grad:
        raise ConfigError(
            f"Expected the model {name!r} to make trainable features of shape (2, {width}) out of two "
            f"images, got {tuple(features.shape)}."
        )
    MODELS[name] = make
    return backbone


def require_features(model: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """One's own backbone makes features of images of ``shape`` (channels, height, width).

    Raises
    ------
    ConfigError
    """
    if not isinstance(model, Backbone):
        return
    was_training, told = model.training, " × ".join(map(str, shape))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            features = model.eval().features(torch.zeros(2, *shape))
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(
            f"The model {name!r} does not work on images of {told} (channels, height, width): {error}"
        ) from error
    finally:
        model.train(was_training)
    width = model.backbone.out_features
    if features.shape != (2, width):
        raise ConfigError(
            f"Expected the model {name!r} to make features of shape (2, {width}) out of two images of "
            f"{told}, got {tuple(features.shape)}."
        )


class OwnModel:
    """What :data:`MODELS` holds of one's own backbone: a function like those of this package."""

    def __init__(self, backbone: Callable[..., nn.Module]) -> None:
        self.backbone = backbone

    def __call__(
        self,
        num_classes: int,
        head: str = "linear",
        *,
        in_channels: int = 3,
        head_scale: float = 1.0,
    ) -> Backbone:
        takes = inspect.signature(self.backbone).parameters
        if "in_channels" not in takes:
            raise ConfigError(
                f"Expected the backbone {_told(self.backbone)} to take `in_channels`, "
                f"it takes {', '.join(takes) or 'nothing'}."
            )
        return Backbone(self.backbone(in_channels=in_channels), num_classes, head, head_scale)


def _told(backbone: Callable[..., nn.Module]) -> str:
    return getattr(backbone, "__name__", None) or repr(backbone)


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
