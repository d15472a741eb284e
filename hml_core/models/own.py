"""One's own backbone, with a classifier behind it. What it does wrong is told with the model's name.

Somebody's code may work on two images and fail on the last batch of an epoch, hold what no checkpoint
has, or let nothing be learned. What can be known of that beforehand, :mod:`hml_core.models.trials` finds
out on copies; the rest is told in the step in which it happens, or by the next look of
:mod:`hml_core.models.inventories`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hml_core.errors import ConfigError, HmlError, RunError
from hml_core.models import heads
from hml_core.models.heads import Headed
from hml_core.system import sources

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


class Backbone(Headed):
    """One's own backbone, which makes features (N, d) of images, with a classifier behind it.

    Parameters
    ----------
    backbone : nn.Module
        (N, channels, H, W) → (N, d); its attribute ``out_features`` is d.
    name : str
        By which errors name it.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, head: str, head_scale: float, name: str
    ) -> None:
        super().__init__()
        width = getattr(backbone, "out_features", None)
        if not isinstance(width, int):
            raise ConfigError(
                f"Expected the backbone {type(backbone).__name__} to have the attribute `out_features`, "
                f"the length of its features, got {width!r}."
            )
        self.name, self.width = name, width
        self.backbone = backbone
        self.linear = heads.build(head, width, num_classes, head_scale)

    def features(self, x: Tensor) -> Tensor:
        """The representation before the classifier: (N, channels, H, W) → (N, d).

        Raises
        ------
        RunError
            Where the backbone fails, or makes something else; of whatever it raises, with the place.
        """
        if torch.compiler.is_compiling():  # into a program, where there is nobody to tell
            return self.backbone(x)
        try:
            features = self.backbone(x)
        except (HmlError, *OUT_OF_MEMORY):
            raise
        except Exception as error:  # whatever somebody's own code raises
            raise RunError(
                f"The model {self.name!r} does not work on images of {_shape(x)}, {len(x)} at a time: "
                f"{sources.told(error)}"
            ) from error
        wanted = (len(x), self.width)
        if not isinstance(features, Tensor) or features.shape != wanted:
            shape = getattr(features, "shape", None)
            got = type(features).__name__ if shape is None else tuple(shape)
            raise RunError(
                f"Expected the model {self.name!r} to make features of shape {wanted} out of {len(x)} "
                f"images of {_shape(x)}, got {got}."
            )
        if not features.is_floating_point():
            raise RunError(
                f"Expected the model {self.name!r} to make features that are floating-point numbers, got "
                f"{features.dtype}."
            )
        if self.training and torch.is_grad_enabled() and not features.requires_grad:
            self._require_trained()
        return features

    def _require_trained(self) -> None:
        """Features that depend on no parameter: ConfigError where some are to move."""
        if any(tensor.requires_grad for tensor in self.backbone.parameters()):
            raise RunError(untrained(self.name))


def untrained(name: str) -> str:
    return (
        f"Expected the model {name!r} to make features in training that its parameters can be trained by: "
        "no gradient reaches them (`detach`, `.data` or `torch.no_grad` stands in its way)."
    )


def _shape(images: Tensor) -> str:
    return " × ".join(map(str, images.shape[1:]))


class OwnModel:
    """What the registry of models holds of one's own backbone: a function like those of this package."""

    def __init__(self, backbone: Callable[..., nn.Module], name: str | None = None) -> None:
        self.backbone = backbone
        self.name = name or getattr(backbone, "__name__", None) or repr(backbone)

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
                f"Expected the backbone {self.name} to take `in_channels`, "
                f"it takes {', '.join(takes) or 'nothing'}."
            )
        backbone = self.backbone(in_channels=in_channels)
        return Backbone(backbone, num_classes, head, head_scale, self.name)
