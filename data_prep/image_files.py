"""One image in, one image out. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from PIL import Image

from hml_core.errors import RunError
from hml_core.system.images import ImageError, reason

LARGEST_SIDE = 20_000  # pixels
LARGEST_ENCODED_SIDE = 65_500  # pixels; what a JPEG can hold
SMALLEST_SIDE = 8  # pixels: less is no picture of anything
LARGEST_SCALE = 8  # times: what is enlarged more is made up
LARGEST_RATIO = 50  # of the sides: training scales the shorter one to its crop, with the longer one


def require_shape(size: tuple[int, int], shorter: int) -> None:
    """Refuse what a resize to ``shorter`` pixels (0: none) or training would blow up.

    Raises
    ------
    ImageError
        For sides more than 50 to 1, a side of less than 8 pixels or an eighth of ``shorter``, or a
        longer side of more than 65,500 pixels afterwards.
    """
    least, most = sorted(size)
    if most > LARGEST_RATIO * least:
        raise ImageError(
            f"is {size[0]} × {size[1]} pixels: expected sides of at most {LARGEST_RATIO} to 1"
        )
    smallest = max(SMALLEST_SIDE, -(-shorter // LARGEST_SCALE))
    if least < smallest:
        what = f" to make {shorter} of them" if smallest > SMALLEST_SIDE else ""
        raise ImageError(
            f"is {size[0]} × {size[1]} pixels: expected sides of at least {smallest}{what}"
        )
    if shorter:
        most = round(most * shorter / least)
    if most > LARGEST_ENCODED_SIDE:
        raise ImageError(
            f"has a longer side of {most} pixels: expected at most {LARGEST_ENCODED_SIDE}"
        )


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file of ``kind``, such as "jpeg".

    Raises
    ------
    ImageError
        Where the encoder refuses it.
    """
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=kind, **options)
    except Exception as error:  # one image that no encoder takes is no reason to end
        raise ImageError(f"does not encode: {reason(error)}") from error
    return buffer.getvalue()


def write(target: Path, encoded: bytes) -> str:
    """Write a file that is whole or not there; its SHA-256.

    Raises
    ------
    RunError
        With the system's reason, such as a full disk.
    """
    temporary = target.with_name(f".{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(encoded)
            os.replace(temporary, target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(target, error) from error
    return hashlib.sha256(encoded).hexdigest()


def cannot_write(path: Path, error: OSError) -> RunError:
    """What to say where a preparation cannot go on."""
    return RunError(
        f"Cannot write {str(path)!r}: {error.strerror or error}. What was done is kept, and the same "
        "call goes on."
    )
