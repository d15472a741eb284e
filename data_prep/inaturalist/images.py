"""One image: resize the shorter side, encode. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep import image_files
from data_prep.image_files import LARGEST_SIDE
from hml_core.errors import ConfigError
from hml_core.system import images as opener


@dataclass(frozen=True)
class Options:
    """What is done to every image.

    Parameters
    ----------
    size : int
        Shorter side, in pixels; a smaller image stays as it is. 0: copy the files as they are.
    quality : int
        Of the JPEG, 1 to 100.
    """

    size: int = 256
    quality: int = 87

    def __post_init__(self) -> None:
        for name, least, most in (("size", 0, LARGEST_SIDE), ("quality", 1, 100)):
            value = getattr(self, name)
            if isinstance(value, bool) or value != int(value) or not least <= value <= most:
                raise ConfigError(f"Expected `{name}` to be {least} to {most}, got {value!r}.")


def process(source: Path | bytes, target: Path, options: Options) -> dict[str, Any]:
    """Write one image; the target is whole or not there.

    Returns
    -------
    dict
        ``output_sha256`` and ``bytes``; or ``error`` for an image that does not decode, does not encode
        or is too small or too long for its width.

    Raises
    ------
    RunError
        Where ``target`` cannot be written.
    """
    try:
        data = opener.read(source)
        image = opener.decode(data, draft=options.size)  # a truncated file is found here
        image_files.require_shape(image.size, min(options.size, *image.size))  # never enlarged
        if options.size:
            data = _encode(image, options)
    except opener.ImageError as error:
        return {"error": str(error)}
    return {"output_sha256": image_files.write(target, data), "bytes": len(data)}


def _encode(image: Image.Image, options: Options) -> bytes:
    scale = options.size / min(image.size)
    if scale < 1:
        size = tuple(max(round(side * scale), options.size) for side in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image_files.encode(image, "jpeg", quality=options.quality)
