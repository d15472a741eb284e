"""Tables of people (CSV), judged before pandas reads them: it takes hundreds of bytes for each cell."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from hml_core.system import files

LONGEST_LINE = 2**16  # bytes
MOST_LINES = 10_000_000  # twenty times the images of iNaturalist 2018
MOST_COLUMNS = 1000
LONGEST_NAME = 4096  # characters of a cell that names something; no system has longer paths


def opened(path: str | Path) -> BinaryIO:
    """A table, open for reading, whose lines have been gone over.

    Raises
    ------
    OSError
        See :func:`hml_core.system.files.opened`.
    ValueError
        To stand behind the file's name: for more lines than anybody has; with the line, for one that is
        too long, begins with more columns than anybody has, or holds a byte of no text.
    """
    stream = files.opened(path, files.LARGEST_TABLE)
    try:
        _require_plain(stream)
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _require_plain(stream: BinaryIO) -> None:
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if number > MOST_LINES:
            raise ValueError(f"it has more than {MOST_LINES:,} lines")
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {number} has more than {LONGEST_LINE:,} bytes")
        if max(line.count(sign) for sign in (b",", b";", b"\t")) >= MOST_COLUMNS:
            raise ValueError(f"line {number} has more than {MOST_COLUMNS:,} columns")
        if b"\0" in line:
            raise ValueError(
                f"line {number} holds a byte 0, which is in no text (or is it UTF-16?)"
            )
