"""One image in, one image out. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

from PIL import Image

from hml_core.images import UNREADABLE

LARGEST_SIDE = 20_000  # pixels


class Unreadable(Exception):
    """An image that is to be reported, with the reason."""


def read(source: Path | bytes) -> bytes:
    """The content of a file, or what was read of an archive already.

    Raises
    ------
    Unreadable
        With the system's reason.
    """
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def decode(data: bytes, draft: int = 0) -> Image.Image:
    """An encoded image as RGB.

    ``draft`` > 0 lets a JPEG decode at a half, a quarter or an eighth, which is much faster, as long as
    both sides stay above twice that many pixels.

    Raises
    ------
    Unreadable
        Also for a file that is cut off.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if draft:
                opened.draft("RGB", (2 * draft, 2 * draft))
            return opened.convert("RGB")
    except UNREADABLE as error:
        raise Unreadable(f"does not decode: {error}") from error


def write(target: Path, encoded: bytes) -> str:
    """Write a file that is whole or not there; its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_bytes(encoded)
    os.replace(temporary, target)
    return hashlib.sha256(encoded).hexdigest()
