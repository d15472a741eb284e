"""One image: colour constancy, crop, resize, encode. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep import color_constancy, crop, image_files
from data_prep.image_files import LARGEST_SIDE
from hml_core.errors import ConfigError
from hml_core.system import images as opener
from hml_core.system.images import ImageError

CONSTANCIES = ("none", "gray_world", "shades_of_gray")
FORMATS = {"jpeg": ".jpg", "png": ".png"}


@dataclass(frozen=True)
class Options:
    """What is done to every image, in this order.

    Parameters
    ----------
    constancy : {"shades_of_gray", "gray_world", "none"}
    p : float
        Of shades of gray, ≥ 1.
    segments : {1, 2, 4}
        The light is estimated over the whole image, a 2×2 or a 4×4 grid.
    crop : bool
        To the largest centred square.
    size : int
        Shorter side after resizing (Lanczos), in pixels.
    format : {"jpeg", "png"}
    quality : int
        Of JPEG, 1 to 100.
    """

    constancy: str = "shades_of_gray"
    p: float = 6.0
    segments: int = 1
    crop: bool = True
    size: int = 300
    format: str = "jpeg"
    quality: int = 95

    def __post_init__(self) -> None:
        checks: dict[str, tuple[Callable[[Any], bool], str]] = {
            "constancy": (lambda v: v in CONSTANCIES, f"one of {', '.join(CONSTANCIES)}"),
            "p": (lambda v: 1 <= v < float("inf"), "a finite number ≥ 1"),
            "segments": (lambda v: v in color_constancy.SEGMENTS, "1, 2 or 4"),
            "crop": (lambda v: isinstance(v, bool), "true or false"),
            "size": (lambda v: v == int(v) and 1 <= v <= LARGEST_SIDE, f"1 to {LARGEST_SIDE}"),
            "format": (lambda v: v in FORMATS, f"one of {', '.join(FORMATS)}"),
            "quality": (lambda v: v == int(v) and 1 <= v <= 100, "1 to 100"),
        }
        for name, (is_right, expected) in checks.items():
            value = getattr(self, name)
            try:
                right = is_right(value)
            except (TypeError, ValueError, OverflowError):
                right = False
            if not right:
                raise ConfigError(f"Expected `{name}` to be {expected}, got {value!r}.")


def transform(image: np.ndarray, options: Options) -> Image.Image:
    """Colour constancy, crop and resize of a uint8 (H, W, 3) image.

    Raises
    ------
    ImageError
        For one that is too small, or too long for its width.
    """
    if min(image.shape[:2]) < options.segments:
        raise ImageError(
            f"is {image.shape[1]} × {image.shape[0]} pixels: expected a grid of {options.segments} × "
            f"{options.segments} to fit"
        )
    if options.constancy == "gray_world":
        image = color_constancy.gray_world(image, options.segments)
    elif options.constancy == "shades_of_gray":
        image = color_constancy.shades_of_gray(image, options.p, options.segments)
    if options.crop:
        image = crop.center_square(image)
    height, width = image.shape[:2]
    image_files.require_shape((width, height), options.size)
    scale = options.size / min(height, width)
    size = (max(round(width * scale), options.size), max(round(height * scale), options.size))
    return Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)


def process(source: Path, target: Path, options: Options) -> dict[str, Any]:
    """Transform one file; the target is whole or not there.

    Returns
    -------
    dict
        ``source_sha256``, ``output_sha256`` and, per channel of the result in [0, 1], the ``sum`` and
        ``square_sum`` over its ``pixels``; or ``error`` for an image that does not
        decode, is no size to work with or does not encode.
    """
    try:
        data = opener.read(source)
        made, encoded = prepared_image(opener.decode(data), options)
    except ImageError as error:
        return {"error": str(error)}
    return {
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "output_sha256": image_files.write(target, encoded),
        **channel_sums(made),
    }


def prepared_image(
    image: Image.Image,
    options: Options,
    finish: Callable[[Image.Image], Image.Image] | None = None,
) -> tuple[Image.Image, bytes]:
    """What an image becomes, after a last step if there is one, and the file of it; ImageError where that
    cannot be."""
    made = transform(np.asarray(image), options)
    if finish is not None:
        made = finish(made)
    jpeg = {"quality": options.quality, "subsampling": 0} if options.format == "jpeg" else {}
    return made, image_files.encode(made, options.format, **jpeg)


def channel_sums(image: Image.Image) -> dict[str, Any]:
    """Number of ``pixels``, and of each channel in [0, 1] the ``sum`` and ``square_sum`` over them."""
    counts = np.array(image.histogram(), dtype=np.int64).reshape(3, 256)
    levels = np.arange(256) / 255
    return {
        "pixels": int(counts[0].sum()),
        "sum": (counts @ levels).tolist(),
        "square_sum": (counts @ levels**2).tolist(),
    }


def normalisation(entries: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over every pixel of some images (channel_sums)."""
    pixels = sum(entry["pixels"] for entry in entries)
    mean = np.sum([entry["sum"] for entry in entries], axis=0) / pixels
    variance = np.sum([entry["square_sum"] for entry in entries], axis=0) / pixels - mean**2
    return mean.tolist(), np.sqrt(np.maximum(variance, (1 / 255) ** 2)).tolist()
