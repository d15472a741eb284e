"""The one way in which this package opens an image. Imported by every worker, so nothing heavy here.

Pillow by itself reads dozens of formats and starts Ghostscript on what turns out to be PostScript; it
waits for a writer where a file is a pipe, and cuts 16-bit pixels off at 255. Here the list of formats is
closed, sizes are judged by the header before any pixel takes memory, and whatever is wrong with an image
is one error, whose text says what: it goes behind the image's name.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from hml_core.errors import DataError

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits a channel or fewer
LARGEST_PIXELS = 150_000_000  # of an image: 450 MB as RGB
LARGEST_FILE = 2**29  # bytes
SMALLEST_SIDE = 2  # pixels
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # where a PNG says its bits a channel
ORIENTATION = 0x0112  # the EXIF tag

# What each value of that tag asks for, to stand upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = [UPRIGHT[tag] for tag in (5, 6, 7, 8)]  # after which the sides have changed places


class ImageError(DataError):
    """An image that cannot be used; the text is the reason, to stand behind its name."""


def read(source: Path | bytes) -> bytes:
    """The content of an image's file, or what was read of an archive already.

    Raises
    ------
    ImageError
        With the system's reason; also for what is no regular file, such as a pipe, which is not waited
        for, for one of more than 512 MiB, and for one that somebody writes to meanwhile.
    """
    if isinstance(source, bytes):
        return source
    try:
        with _opened(source) as stream:
            before = os.fstat(stream.fileno())
            data = stream.read(LARGEST_FILE)
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    if len(data) != before.st_size or _state(before) != _state(after):
        raise ImageError("changed while it was read: try again once it is written")
    return data


def size(source: Path | bytes) -> tuple[int, int]:
    """Width and height of the upright image in a file, by its header: no pixel is decoded.

    (The EXIF orientation of a PNG, which may stand behind its pixels, is not looked for.)

    Raises
    ------
    ImageError
        As :func:`read` and :func:`decode`, as far as a header tells.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else _opened(source) as stream:
            start = stream.read(PNG_DEPTH + 1)
            stream.seek(0)
            with _identified(stream) as opened:
                _require_usable(opened, start)
                turn = None if opened.format == "PNG" else _turn(opened)
                width, height = opened.size
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    return (height, width) if turn in TURNED else (width, height)


def _opened(source: Path) -> BinaryIO:
    """A regular file of a size to work with, for reading."""
    # A pipe without a writer would block an open without the flag.
    handle = os.open(
        source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    stream = os.fdopen(handle, "rb")
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_FILE:
        return stream
    stream.close()
    if stat.S_ISREG(status.st_mode):
        raise ImageError(
            f"cannot be read: it has {status.st_size} bytes, expected at most {LARGEST_FILE}"
        )
    raise ImageError("cannot be read: it is no regular file, but a folder, pipe or device")


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _identified(stream: BinaryIO) -> Image.Image:
    """An image whose header was read and nothing more."""
    try:
        return Image.open(stream, formats=tuple(FORMATS))
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"does not decode: it is no {', '.join(FORMATS)} that can be identified"
        ) from error
    except Exception as error:  # whatever a decoder makes of a damaged header
        raise ImageError(f"does not decode: {reason(error)}") from error


def decode(data: bytes, draft: int = 0) -> Image.Image:
    """An encoded image as upright RGB of 8 bits a channel.

    The EXIF orientation is applied. Where an image is transparent, white shows through.

    Parameters
    ----------
    data : bytes
    draft : int
        > 0 lets a JPEG decode at a half, a quarter or an eighth, which is much faster, as long as both
        sides stay above twice that many pixels.

    Raises
    ------
    ImageError
        For another format than those in :data:`FORMATS`; for more than 8 bits a channel (nobody says
        which part of the range is used); for an animation; for a side of one pixel, or more than 150
        million pixels, told by the header; for a file that is cut off or damaged in any way.
    """
    try:
        with _identified(io.BytesIO(data)) as opened:
            _require_usable(opened, data)
            turn = _turn(opened)
            if draft:
                opened.draft("RGB", (2 * draft, 2 * draft))
            image = _rgb(opened)
    except ImageError:
        raise
    except Exception as error:  # whatever a decoder makes of damage is a reason to leave one out
        raise ImageError(f"does not decode: {reason(error)}") from error
    return image if turn is None else image.transpose(turn)


def load(path: Path) -> Image.Image:
    """The image in a file: :func:`read` and :func:`decode`."""
    return decode(read(path))


def reason(error: BaseException) -> str:
    """An error in words, without the address of a buffer in memory."""
    text = re.sub(r" ?<_io\.BytesIO object at 0x[0-9a-fA-F]+>", "", str(error))
    return text or type(error).__name__


def _require_usable(opened: Image.Image, data: bytes) -> None:
    """Judge an image whose pixels were not decoded yet."""
    width, height = opened.size
    if min(opened.size) < SMALLEST_SIDE:
        raise ImageError(
            f"is {width} × {height} pixels: expected sides of at least {SMALLEST_SIDE}"
        )
    if width * height > LARGEST_PIXELS:
        raise ImageError(
            f"is {width} × {height} pixels: expected at most {LARGEST_PIXELS / 1e6:.0f} million"
        )
    is_deep = data.startswith(PNG) and data[PNG_DEPTH] > 8
    if is_deep or opened.mode not in MODES:
        raise ImageError(
            f"has more than 8 bits a channel (mode {opened.mode}{', 16-bit PNG' if is_deep else ''}): "
            "expected 8, so convert it first"
        )
    # A camera's JPEG may bring a preview along (Pillow: MPO); its first image is the photograph.
    if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:
        raise ImageError(f"holds {opened.n_frames} images: expected one")


def _turn(opened: Image.Image) -> Image.Transpose | None:
    with contextlib.suppress(Exception):  # the pixels may be sound where their EXIF is not
        return UPRIGHT.get(opened.getexif().get(ORIENTATION))
    return None


def _rgb(opened: Image.Image) -> Image.Image:
    if opened.mode not in ("LA", "PA", "RGBA") and "transparency" not in opened.info:
        return opened.convert("RGB")
    layered = opened.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
