"""Tables of people (CSV), judged before pandas reads them: it takes hundreds of bytes for each cell."""

from __future__ import annotations

from typing import BinaryIO

LONGEST_LINE = 2**16  # bytes
MOST_COLUMNS = 1000
LONGEST_NAME = 4096  # characters of a cell that names something; no system has longer paths


def require_plain(stream: BinaryIO) -> None:
    """Go over the lines of a table and stand at its beginning again.

    Raises
    ------
    ValueError
        With the line, to stand behind the file's name: for one that is too long, that begins with more
        columns than anybody has, or that holds a byte of no text.
    """
    stream.seek(0)
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {number} has more than {LONGEST_LINE:,} bytes")
        if max(line.count(sign) for sign in (b",", b";", b"\t")) >= MOST_COLUMNS:
            raise ValueError(f"line {number} has more than {MOST_COLUMNS:,} columns")
        if b"\0" in line:
            raise ValueError(
                f"line {number} holds a byte 0, which is in no text (or is it UTF-16?)"
            )
    stream.seek(0)
