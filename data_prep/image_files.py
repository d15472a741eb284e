"""One image in, one image out. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

from PIL import Image

from hml_core.errors import RunError
from hml_core.system.images import UNREADABLE

LARGEST_SIDE = 20_000  # pixels
LARGEST_ENCODED_SIDE = 65_500  # pixels; what a JPEG can hold
LARGEST_RATIO = 50  # of the sides: training scales the shorter one to its crop, with the longer one


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
        raise Unreadable(f"does not decode: {_reason(error)}") from error


def require_shape(size: tuple[int, int], shorter: int) -> None:
    """Refuse what a resize to ``shorter`` pixels (0: none) or training would blow up.

    Raises
    ------
    Unreadable
        For sides more than 50 to 1, or a longer side of more than 65,500 pixels afterwards.
    """
    least, most = sorted(size)
    if most > LARGEST_RATIO * least:
        raise Unreadable(
            f"is {size[0]} × {size[1]} pixels: expected sides of at most {LARGEST_RATIO} to 1"
        )
    if shorter:
        most = round(most * shorter / least)
    if most > LARGEST_ENCODED_SIDE:
        raise Unreadable(
            f"has a longer side of {most} pixels: expected at most {LARGEST_ENCODED_SIDE}"
        )


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file of ``kind``, such as "jpeg".

    Raises
    ------
    Unreadable
        Where the encoder refuses it.
    """
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=kind, **options)
    except UNREADABLE as error:
        raise Unreadable(f"does not encode: {_reason(error)}") from error
    return buffer.getvalue()


def _reason(error: BaseException) -> str:
    """Pillow's words, without the address of our buffer."""
    return re.sub(r" ?<_io\.BytesIO object at 0x[0-9a-fA-F]+>", "", str(error))


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
