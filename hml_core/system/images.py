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
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from hml_core.system import files, image_parts
from hml_core.system.image_parts import (
    GIF,
    JPEG,
    LARGEST_FILE,
    LARGEST_PIXELS,
    PNG,
    ImageError,
)

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits a channel or fewer
SMALLEST_SIDE = 2  # pixels
# An image of more pixels than this must bring a byte for so many of them: a photograph brings one for less
# than twenty, and a few kilobytes that decode to hundreds of megabytes are made to fill a memory.
BOMB_PIXELS, BOMB_PIXELS_PER_BYTE = 25_000_000, 300
LARGEST_EXIF = 2**20  # bytes; a JPEG has 65,000
PNG_DEPTH = 24  # where a PNG says its bits a channel
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how one begins, the large ones, too
TIFF_WIDTH, TIFF_HEIGHT, TIFF_BITS, TIFF_NUMBERS = 256, 257, 258, 339  # its tags
TIFF_TILE = (322, 323)  # width and height of the parts that it is made of
BEGINNING = 32  # bytes that tell a format
ORIENTATION = 0x0112  # the EXIF tag

# What people have that is not read, and what to do with it.
_PHONES = "save them as JPEG, as a phone or a viewer of images does when it exports"
_CAMERAS = "save them as JPEG or as TIFF of 8 bits with a camera's software"
NOT_READ = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".avif"), _PHONES),
    **dict.fromkeys(
        (".dng", ".raw", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef"),
        _CAMERAS,
    ),
    **dict.fromkeys((".dcm", ".dicom"), "save them as PNG, in the window of grey levels that matters"),
    **dict.fromkeys((".svs", ".ndpi", ".mrxs", ".czi"), "cut them into tiles, saved as PNG or JPEG"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".xz", ".7z", ".rar"), "unpack what is in them"),
    **dict.fromkeys((".jp2", ".j2k", ".jxl", ".svg", ".psd"), "save them as PNG or JPEG"),
}  # fmt: skip
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")

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
        with files.opened(source, LARGEST_FILE) as stream:
            before = os.fstat(stream.fileno())
            data = files.read_all(stream, LARGEST_FILE)
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
        is_here = isinstance(source, bytes)
        with io.BytesIO(source) if is_here else files.opened(source, LARGEST_FILE) as stream:
            length = len(source) if is_here else os.fstat(stream.fileno()).st_size
            start = stream.read(BEGINNING)
            stream.seek(0)
            with _opened(stream, start, length) as opened:
                turn = None if opened.format == "PNG" else _turn(opened)
                width, height = _size_as_stored(opened)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    return (height, width) if turn in TURNED else (width, height)


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


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
        which part of the range is used); for several images in one, be it an animation or pages; for a
        side of one pixel, or more than 150 million pixels, told by the header, or more than 25 million in
        next to no bytes; for one that is transparent everywhere; for a file that is cut off or damaged in
        any way that shows (a JPEG has no checksum: wrong bytes in its middle may decode to wrong pixels).
    """
    with _opened(io.BytesIO(data), data[:BEGINNING], len(data)) as opened:
        if data.startswith(PNG):
            image_parts.require_chunks(io.BytesIO(data), to_the_end=True)
            _require_whole_png(data)
        if data.startswith(JPEG):
            image_parts.require_few_scans(data, opened.size)
        # Pillow turns the TIFFs that it loads.
        turn = None if opened.format == "TIFF" else _turn(opened)
        if draft:
            opened.draft("RGB", (2 * draft, 2 * draft))
        image = _rgb(opened)
    return image if turn is None else image.transpose(turn)


@contextlib.contextmanager
def _opened(stream: BinaryIO, start: bytes, length: int) -> Iterator[Image.Image]:
    """A usable image whose pixels were not decoded yet; ``length`` bytes that begin with ``start``.

    Whatever is wrong with it, and turns out to be when it is decoded, is an :class:`ImageError`.
    """
    try:
        if start.startswith(JPEG):
            image_parts.require_parts(stream)
        elif start.startswith(PNG):
            image_parts.require_chunks(stream)
        elif start.startswith(GIF):
            image_parts.require_blocks(stream, length)
        elif start[:2] in (b"II", b"MM"):
            image_parts.require_numbers(stream)
        with Image.open(stream, formats=tuple(FORMATS)) as opened:
            _require_usable(opened, start, length)
            yield opened
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"does not decode: {_unidentified(start)}") from error
    # Whatever a decoder makes of damage is a reason to leave one image out.
    except Exception as error:
        raise ImageError(f"does not decode: {reason(error)}") from error


def _unidentified(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start[4:8] == b"ftyp" and start[8:12] in HEIC:  # telephones call it .jpg, too
        return f"it is HEIC or AVIF, whatever it is called; {_PHONES}"
    if start.startswith(TIFF):
        return (
            "it is a TIFF that is damaged, or of channels that make no picture: expected grey or "
            "colours of 8 bits"
        )
    return f"it is no {', '.join(FORMATS)} that can be identified"


def require_usable(data: bytes) -> None:
    """Judge an encoded image by its header, for a reader that does not: see :func:`decode`.

    Raises
    ------
    ImageError
    """
    with _opened(io.BytesIO(data), data[:BEGINNING], len(data)) as opened:
        if data.startswith(JPEG):
            image_parts.require_few_scans(data, opened.size)
        elif data.startswith(PNG):
            image_parts.require_chunks(io.BytesIO(data), to_the_end=True)


def load(path: Path) -> Image.Image:
    """The image in a file: :func:`read` and :func:`decode`."""
    return decode(read(path))


def reason(error: BaseException) -> str:
    """An error in words, without the address of a buffer in memory."""
    text = re.sub(r" ?<_io\.BytesIO object at 0x[0-9a-fA-F]+>", "", str(error))
    return text or type(error).__name__


def _require_usable(opened: Image.Image, start: bytes, length: int) -> None:
    """Judge an image whose pixels were not decoded yet, from how its ``length`` bytes begin."""
    width, height = opened.size
    if min(opened.size) < SMALLEST_SIDE:
        raise ImageError(
            f"is {width} × {height} pixels: expected sides of at least {SMALLEST_SIDE}"
        )
    pixels = max(width * height, _tile(opened))
    if pixels > LARGEST_PIXELS:
        raise ImageError(
            f"is {width} × {height} pixels: expected at most {LARGEST_PIXELS / 1e6:.0f} million"
        )
    if pixels > max(BOMB_PIXELS, BOMB_PIXELS_PER_BYTE * length):
        raise ImageError(
            f"is {width} × {height} pixels in {length:,} bytes: expected a byte for at most "
            f"{BOMB_PIXELS_PER_BYTE} pixels, as in any photograph"
        )
    if opened.format == "BMP" and opened.info.get("compression"):
        image_parts.require_short(length, "compressed BMP")
        if pixels > image_parts.SLOW_PIXELS:
            raise ImageError(
                f"is a compressed BMP of {width} × {height} pixels: expected at most "
                f"{image_parts.SLOW_PIXELS / 1e6:.0f} million, so save it as PNG or JPEG"
            )
    _require_eight_bits(opened, start)
    # A camera's JPEG may bring a preview along (Pillow: MPO); its first image is the photograph.
    if opened.format != "MPO" and getattr(opened, "is_animated", False):
        # To count those of the others is to read all of a file that may be made to have millions.
        number = opened.n_frames if opened.format in ("PNG", "WEBP") else "several"
        raise ImageError(f"holds {number} images: expected one")


def _require_eight_bits(opened: Image.Image, start: bytes) -> None:
    """Of more bits a channel, nobody says which part of the range is used; Pillow cuts some off."""
    deep = ""
    if opened.format == "PNG" and start[PNG_DEPTH] > 8:
        deep = ", 16-bit PNG"
    elif opened.format == "TIFF":
        bits = max(opened.tag_v2.get(TIFF_BITS, (1,)))
        numbers = set(opened.tag_v2.get(TIFF_NUMBERS, (1,)))
        if bits > 8:
            deep = f", {bits}-bit TIFF"
        elif not numbers <= {1, 4}:  # whole numbers, or not said; else signed or floating point
            raise ImageError("has levels that are no whole numbers from 0 on: convert it first")
    if opened.mode == "LAB":
        raise ImageError(
            "has the colours of L*a*b*: expected grey, RGB or CMYK, so convert it first"
        )
    if deep or opened.mode not in MODES:
        raise ImageError(
            f"has more than 8 bits a channel (mode {opened.mode}{deep}): expected 8, so convert it first"
        )


def _tile(opened: Image.Image) -> int:
    """Pixels of each part of a tiled TIFF: a decoder takes memory for one, however small the image is."""
    if opened.format != "TIFF":
        return 0
    width, height = (int(opened.tag_v2.get(tag, 0)) for tag in TIFF_TILE)
    return width * height


def _size_as_stored(opened: Image.Image) -> tuple[int, int]:
    """Before it is turned; Pillow tells the size of a TIFF as it will be afterwards, or does not."""
    if opened.format != "TIFF":
        return opened.size
    return int(opened.tag_v2[TIFF_WIDTH]), int(opened.tag_v2[TIFF_HEIGHT])


def _turn(opened: Image.Image) -> Image.Transpose | None:
    exif, turn = 0, None
    with contextlib.suppress(Exception):  # the pixels may be sound where their EXIF is not
        told = opened.getexif()
        exif = len(opened.info.get("exif") or b"")
        turn = UPRIGHT.get(told.get(ORIENTATION)) if exif <= LARGEST_EXIF else None
    if exif > LARGEST_EXIF:
        raise ImageError(f"has {exif:,} bytes of EXIF: expected at most {LARGEST_EXIF:,}")
    return turn


def _require_whole_png(data: bytes) -> None:
    """Compare the checksums of a PNG's critical parts: without, Pillow may show wrong pixels."""
    content, start = memoryview(data), len(PNG)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            break
        told = int.from_bytes(content[end - 4 : end])
        if kind[:1].isupper() and zlib.crc32(content[start + 4 : end - 4]) != told:
            part = kind.decode("ascii", "backslashreplace")
            raise ImageError(f"does not decode: the checksum of its {part} is wrong")
        if kind == b"IEND":
            return
        start = end
    raise ImageError("does not decode: it is cut off before its end")


def _rgb(opened: Image.Image) -> Image.Image:
    if opened.mode not in ("LA", "PA", "RGBA") and "transparency" not in opened.info:
        return opened.convert("RGB")
    layered = opened.convert("RGBA")
    if layered.getextrema()[3] == (0, 0):
        raise ImageError("is transparent everywhere: nothing of it shows")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
