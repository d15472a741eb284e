"""What a network sees of an image in evaluation: decoded, brought to its size, normalised.

Training and evaluation (:mod:`hml_core.trainer.feeds`) and a kept network that predicts
(:mod:`hml_core.models.trained`) do it by the same functions, so that an image is the same to both.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hml_core.system import images as opener

JPEG = b"\xff\xd8"  # how such a file begins
MODES = {1: "L", 3: "RGB"}  # by the number of channels


@dataclass(frozen=True)
class Preprocessing:
    """From an encoded image to what a network takes.

    Parameters
    ----------
    size : tuple of int
        Height and width that the network sees.
    channels : int
    resizing : {"whole", "middle"}
        "whole": the whole image, resized to ``size`` (bilinear) where it has another. "middle": the
        shorter side is resized to ``shorter`` pixels and the square in the middle cut out.
    mean, std : tuple of float
        Of each channel, for images scaled to [0, 1].
    shorter : int
        Of "middle" only.
    in_memory : bool
        The images of the data set lie in memory as uint8, and are normalised as
        :class:`hml_core.augment.ImageBank` does it, which rounds differently.
    """

    size: tuple[int, int]
    channels: int
    resizing: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shorter: int = 0
    in_memory: bool = False

    def to_dict(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_dict`."""
        lists = {name: tuple(values[name]) for name in ("size", "mean", "std")}
        return cls(**{**values, **lists})

    def image(self, data: bytes) -> Tensor:
        """uint8 (channels, H, W) of an encoded image.

        Raises
        ------
        ImageError
            For an image that cannot be used (:func:`hml_core.system.images.decode`), and for a network
            that takes neither grey nor colour images.
        """
        if self.channels not in MODES:
            raise opener.ImageError(
                f"is no image of {self.channels} channels: the network takes arrays only (`logits`)"
            )
        if self.resizing == "middle":
            opener.require_usable(data)
            image = decode(data)
            least, most = sorted(image.shape[1:])
            if self.shorter**2 * most / least > opener.LARGEST_PIXELS:
                raise opener.ImageError(
                    f"is {image.shape[2]} × {image.shape[1]} pixels: too long to have its shorter side "
                    f"resized to {self.shorter}"
                )
            return middle(image, self.size[0], self.shorter)
        return torch.from_numpy(whole(opener.decode(data), self.size, MODES[self.channels]))

    def normalised(self, images: Tensor) -> Tensor:
        """Of images (N, channels, H, W), grey levels from 0 to 255: float32, channels-last."""
        images = images.to(torch.float32, memory_format=torch.channels_last)
        mean, std = (
            torch.tensor(values, device=images.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        if self.in_memory:
            return torch.addcmul(-mean / std, images, 1 / (255 * std))
        return (images - 255 * mean) / (255 * std)


def whole(image: Image.Image, size: tuple[int, int], mode: str = "RGB") -> np.ndarray:
    """uint8 (channels, H, W) of the whole image, whatever its shape was."""
    if image.mode != mode:
        image = image.convert(mode)
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).reshape(height, width, -1)
    return pixels.transpose(2, 0, 1).copy()


def middle(image: Tensor, size: int, shorter: int) -> Tensor:
    """The square of ``size`` in the middle of (channels, H, W), its shorter side resized before."""
    from torchvision.transforms.v2 import functional

    image = functional.resize(image, [shorter], antialias=True)
    return functional.center_crop(image, [size])


def decode(data: bytes) -> Tensor:
    """uint8 (3, H, W) of an encoded image.

    torchvision's reader of JPEG makes a third more training images a second than Pillow
    (benchmarks/inat.py). It is deprecated: where it is gone, and for what it does not read, Pillow
    does it.
    """
    read = _jpeg_reader()
    if read is not None and data[:2] == JPEG:
        with contextlib.suppress(RuntimeError):  # such as CMYK
            return read(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    pixels = np.asarray(opener.decode(data))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


@functools.cache
def _jpeg_reader() -> Callable[[Tensor], Tensor] | None:
    """torchvision's, which gives upright RGB."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
    return functools.partial(decode_jpeg, mode=ImageReadMode.RGB, apply_exif_orientation=True)
