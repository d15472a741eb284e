"""One image of one's own. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep import image_files
from data_prep.isic import images
from hml_core.errors import ConfigError
from hml_core.system import images as opener

SIDE = 8  # of the grid whose differences are an image's look: 2 × 64 bits


@dataclass(frozen=True)
class Options(images.Options):
    """What is done to every image: as to those of ISIC (:class:`data_prep.isic.images.Options`), but
    without colour constancy and crop unless they are asked for, and with a shorter side of 256 pixels.

    Parameters
    ----------
    square : bool
        The whole image becomes a square of ``size`` pixels, whatever its shape was: what a network that
        was trained on squares does to a photograph when it predicts.
    """

    constancy: str = "none"
    crop: bool = False
    size: int = 256
    square: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop and self.square:
            raise ConfigError(
                "Expected `crop` (the middle) or `square` (the whole image), got both."
            )


def process(source: Path, target: Path, options: Options) -> dict[str, Any]:
    """Resize one file; the target is whole or not there.

    Returns
    -------
    dict
        What :func:`data_prep.isic.images.process` remembers, with the ``width`` and ``height`` that the
        image had and its ``look``; or ``error`` for an image that cannot be used.
    """
    # A photograph of many times the size is decoded at a half, a quarter or an eighth; colour constancy
    # is about all of its pixels.
    draft = options.size if options.constancy == "none" else 0
    try:
        data = opener.read(source)
        width, height = opener.size(data)
        image = opener.decode(data, draft=draft)
        made, encoded = images.prepared_image(image, options, _squared if options.square else None)
    except opener.ImageError as error:
        return {"error": str(error)}
    return {
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "output_sha256": image_files.write(target, encoded),
        "width": width,
        "height": height,
        "look": look(made),
        **images.channel_sums(made),
    }


def _squared(image: Image.Image) -> Image.Image:
    return image.resize((min(image.size),) * 2, Image.Resampling.LANCZOS)


def look(image: Image.Image) -> str:
    """128 bits, as hexadecimal text, that stay nearly the same when an image is resized or recompressed.

    Whether each cell of an 8 × 8 grid of grey levels is darker than its neighbour to the right (64 bits)
    and below (64 bits): the difference hash of Krawetz (2013), in both directions.
    """
    grey = image.convert("L")
    wide = np.asarray(grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    high = np.asarray(grey.resize((SIDE, SIDE + 1), Image.Resampling.BOX), dtype=np.int16)
    bits = np.concatenate(
        [(np.diff(wide, axis=1) > 0).ravel(), (np.diff(high, axis=0) > 0).ravel()]
    )
    return np.packbits(bits).tobytes().hex()
