"""The parts that image files are made of, counted before Pillow keeps, unpacks or goes over each."""

from __future__ import annotations

import array
import math
import os
import re
import sys
from typing import BinaryIO

from hml_core.errors import DataError

LARGEST_PIXELS = 150_000_000  # of an image: 450 MB as RGB
LARGEST_FILE = 2**29  # bytes
# Bytes of a GIF, or of a BMP that is compressed: Pillow goes over them one by one.
LARGEST_SLOW = 2**25
SLOW_PIXELS = 8_000_000  # of such a BMP: it makes each of them, in Python
JPEG = b"\xff\xd8"
PNG = b"\x89PNG\r\n\x1a\n"
GIF = (b"GIF87a", b"GIF89a")
# Each scan of a JPEG goes over all pixels: encoders make some ten of them, libjpeg advises at most 100.
SCANS, SCANNED_PIXELS = 100, 20 * LARGEST_PIXELS
# Of a JPEG: its parts, and bytes between them, which Pillow reads one by one.
PARTS, STRAY_BYTES = 10_000, 2**16
NOTED_BYTES = 2**22  # of EXIF and of what Photoshop keeps, in all parts
# Of a PNG: parts beside its pixels, and parts that these are in; of a GIF: blocks in front of its pixels.
# Pillow keeps, or unpacks, each of them.
CHUNKS, DATA_CHUNKS, BLOCKS = 1_000, 1_000_000, 100_000
NUMBERS = 2**20  # of a tag of a TIFF, such as where its strips are: Pillow makes an object of each
TIFF_PRIVATE = 2**15  # of the tags from here on Pillow reads bytes alone
TIFF_BYTES = (1, 2, 7)  # kinds of tags whose values stay as they are: bytes, text
# How long the parts are that a TIFF's pixels are in, and the kinds of whole numbers, also of those that no
# length has: libtiff takes them. (Negative ones are too many bytes here, and none there.)
TIFF_LENGTHS, TIFF_SIDES = (279, 325), (256, 257)
TIFF_WHOLE = {
    1: "B", 6: "B", 3: "H", 8: "H", 4: "I", 9: "I", 13: "I", 16: "Q", 17: "Q", 18: "Q",
}  # fmt: skip
# Of pixels, in bytes: such parts may be as long as these are where they are not compressed (some programs
# say so of others, too), and twice as long as the file.
TIFF_PIXEL, TIFF_TWICE = 16, 2


class ImageError(DataError):
    """An image that cannot be used; the text is the reason, to stand behind its name."""


# A marker of a JPEG's part: not a byte that is escaped, a restart of the same scan, or filling.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCAN, _END = 0xDA, 0xD9
# How the parts begin that Pillow puts together, or takes apart, one by one: EXIF, and Photoshop's.
_NOTED = {(0xE1, b"Exif\0\0"), (0xED, b"Photos")}


def require_parts(stream: BinaryIO) -> None:
    """Go over the parts in front of a JPEG's pixels, as Pillow will, up to as many as anybody makes."""
    parts = stray = notes = 0
    stream.seek(len(JPEG))
    while byte := stream.read(1):
        if byte != b"\xff" or (kind := stream.read(1)) in (b"", b"\x00"):
            stray += 1
        elif kind == b"\xff":  # filling: it may begin a marker
            stray += 1
            stream.seek(-1, os.SEEK_CUR)
        else:
            parts += 1
            if kind[0] == _SCAN:
                break
            if kind[0] != 0x01 and not 0xD0 <= kind[0] <= _END:  # those have no length
                length = max(int.from_bytes(stream.read(2)) - 2, 0)
                begins = stream.read(min(length, 6))
                notes += length * ((kind[0], begins) in _NOTED)
                stream.seek(length - len(begins), os.SEEK_CUR)
        if notes > NOTED_BYTES:
            raise ImageError(
                f"has more than {NOTED_BYTES:,} bytes of EXIF and the like: save it anew"
            )
        if parts > PARTS or stray > STRAY_BYTES:
            raise ImageError(
                f"has more than {PARTS:,} parts, or {STRAY_BYTES:,} bytes between them, in front of its "
                "pixels: save it anew"
            )
    stream.seek(0)


def require_few_scans(data: bytes, size: tuple[int, int]) -> None:
    """Count the scans of a JPEG: a decoder goes over all pixels for each of them, however short it is."""
    most = min(SCANS, SCANNED_PIXELS // (size[0] * size[1]))
    place, scans, parts, stray = len(JPEG), 0, 0, 0
    while (found := _MARKER.search(data, place)) and (kind := data[found.end() - 1]) != _END:
        scans, parts = scans + (kind == _SCAN), parts + 1
        if scans > most or parts > PARTS + SCANS:
            told = f"{size[0]} × {size[1]} pixels in more than {most} scans or {PARTS:,} parts"
            raise ImageError(f"is {told}: save it anew, as a JPEG that is not progressive")
        stray += data.count(b"\xff\xff", place, found.start())
        if stray > STRAY_BYTES // 2:
            break
        place = found.end() + max(int.from_bytes(data[found.end() : found.end() + 2]), 2)
    stray += data.count(b"\xff\xff", place, found.start() if found else len(data))
    if stray > STRAY_BYTES // 2:  # pairs: a decoder takes a second for a few megabytes
        raise ImageError(f"has more than {STRAY_BYTES:,} bytes of filling: save it anew")


def require_chunks(stream: BinaryIO, *, to_the_end: bool = False) -> None:
    """Count the parts of a PNG, those behind its pixels, too, or those in front, as far as they go."""
    others = data = profiles = 0
    stream.seek(len(PNG))
    while len(head := stream.read(8)) == 8 and (kind := head[4:]) != b"IEND":
        if kind in (b"IDAT", b"fdAT", b"fcTL"):
            data += 1
            if not to_the_end and kind == b"IDAT":
                break
        else:
            others, profiles = others + 1, profiles + (kind == b"iCCP")
        if others > CHUNKS or data > DATA_CHUNKS or profiles > 1:
            raise ImageError(
                f"has more than {CHUNKS:,} parts beside its pixels, {DATA_CHUNKS:,} parts with pixels or "
                "several profiles of colour: save it anew"
            )
        stream.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
    stream.seek(0)


def require_short(length: int, what: str) -> None:
    """Refuse a file of many bytes where Pillow goes over them one by one."""
    if length > LARGEST_SLOW:
        raise ImageError(
            f"is a {what} of {length:,} bytes: expected at most {LARGEST_SLOW:,}, so save it as PNG or "
            "JPEG"
        )


def require_blocks(stream: BinaryIO, length: int) -> None:
    """Count the blocks in front of a GIF's pixels: Pillow keeps all that comments say."""
    require_short(length, "GIF")
    head = stream.read(13)
    if len(head) == 13 and head[10] & 0x80:
        stream.seek(3 << (1 + (head[10] & 7)), os.SEEK_CUR)
    blocks = 0
    while (kind := stream.read(1)) not in (b"", b",", b";"):
        blocks += 1
        if kind == b"!":
            stream.read(1)
            while (size := stream.read(1)) not in (b"", b"\0") and blocks <= BLOCKS:
                blocks += 1
                stream.seek(size[0], os.SEEK_CUR)
        if blocks > BLOCKS:
            raise ImageError(
                f"has more than {BLOCKS:,} blocks in front of its pixels: save it anew"
            )
    stream.seek(0)


def require_numbers(stream: BinaryIO) -> None:
    """Go over the tags of a TIFF's first image: each says how many numbers it holds.

    Parts of its pixels may all be told to lie in one place, and be unpacked there again and again.
    """
    head = stream.read(16)
    order = "little" if head.startswith(b"II") else "big"
    is_big = b"+" in head[2:4]  # (of 64 bits, as Pillow tells it)
    place = head[8:16] if is_big else head[4:8]
    entry, number, count = (20, 8, 8) if is_big else (12, 2, 4)
    stream.seek(min(int.from_bytes(place, order), LARGEST_FILE))
    tags = []
    for _ in range(int.from_bytes(stream.read(number), order)):
        tag = stream.read(entry)
        if len(tag) < entry:
            break
        tags.append(tag)
    sides, lengths = dict.fromkeys(TIFF_SIDES, LARGEST_PIXELS), 0
    for tag in tags:
        kind, held = (int.from_bytes(part, order) for part in (tag[2:4], tag[4 : 4 + count]))
        name = int.from_bytes(tag[:2], order)
        if name < TIFF_PRIVATE and kind not in TIFF_BYTES and held > NUMBERS:
            raise ImageError(
                f"has {held:,} numbers in its tag {name}: expected at most {NUMBERS:,}, so save it anew"
            )
        if kind in TIFF_WHOLE and name in TIFF_SIDES:
            given = _whole(stream, tag[4 + count :], TIFF_WHOLE[kind], held, order)
            sides[name] = min(sides[name], *given[:1])  # (a tag may stand there twice)
        elif kind in TIFF_WHOLE and name in TIFF_LENGTHS:
            lengths += sum(_whole(stream, tag[4 + count :], TIFF_WHOLE[kind], held, order))
    pixels = min(math.prod(sides.values()), LARGEST_PIXELS)
    most = TIFF_TWICE * stream.seek(0, os.SEEK_END) + TIFF_PIXEL * pixels
    if lengths > most:
        raise ImageError(
            f"has pixels in parts of {lengths:,} bytes, more than it holds: save it anew"
        )
    stream.seek(0)


def _whole(stream: BinaryIO, end: bytes, form: str, held: int, order: str) -> array.array:
    """The whole numbers of a tag: its last bytes hold them, or where they are, if those are too few."""
    numbers = array.array(form)
    size = held * numbers.itemsize
    there = end[:size]
    if size > len(end):
        stream.seek(min(int.from_bytes(end, order), LARGEST_FILE))
        there = stream.read(size)
    numbers.frombytes(there[: len(there) // numbers.itemsize * numbers.itemsize])
    if order != sys.byteorder:
        numbers.byteswap()
    return numbers
