"""Tables as CSV: those of people, judged before pandas reads them (it takes hundreds of bytes for each
cell), and ours, of which every reader makes the same rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pandas as pd

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


def read(path: str | Path) -> pd.DataFrame:
    """A table as people and their spreadsheets save it: all of it text, without blanks around.

    Columns are separated by what the first line has most of: commas, semicolons or tabs. Each row has the
    index that it would have without the rows that hold nothing, which are left out: its line less two.

    Raises
    ------
    OSError
        See :func:`opened`.
    ValueError
        To stand behind the file's name: as there; for no line at all, another encoding than UTF-8, or a
        row with more cells than the first line has columns: nobody can tell which of them is which.
    """
    with opened(path) as stream:
        separator = separator_of(next((line for line in stream if line.strip()), b""))
        stream.seek(0)
        try:
            # Given a header, pandas would make the first cell of longer rows an index of its own.
            table = pd.read_csv(
                stream,
                sep=separator,
                header=None,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
            )
        except UnicodeDecodeError as error:
            raise ValueError("it is not UTF-8: save it as such") from error
    # Cells that a shorter row lacks are no text.
    table = table.fillna("").apply(lambda column: column.str.strip())
    table.columns = list(table.iloc[0])
    rows = table.iloc[1:].set_axis(range(len(table) - 1))
    return rows[(rows != "").any(axis=1)]


class Rows:
    """Where :mod:`csv` writes its rows, one at a time, to a stream that was opened with ``newline=""``.

    Each ends with a line feed. Told to end them so itself, Python 3.11 leaves a carriage return in a cell
    (a file's name may have one) without quotes, and readers take it for the end of the row.
    """

    END = "\r\n"  # is what the writer is to be told

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, row: str) -> int:
        return self._stream.write(row.removesuffix(self.END) + "\n")


def csv_of(table: pd.DataFrame, **options: Any) -> str:
    """A table without its index, as text; ``options`` are those of :meth:`pandas.DataFrame.to_csv`.

    >>> csv_of(pd.DataFrame({"file": ["a\\rb.png", "c.png"], "x": [0.5, 1.0]}))
    'file,x\\n"a\\rb.png",0.5\\nc.png,1.0\\n'
    """
    text = io.StringIO(newline="")
    table.to_csv(Rows(text), index=False, lineterminator=Rows.END, **options)
    return text.getvalue()


def separator_of(header: bytes) -> str:
    """The sign between columns that a spreadsheet, or another country's, has chosen.

    >>> separator_of(b"a;b,c;d")
    ';'
    """
    return max(",;\t", key=lambda sign: header.count(sign.encode()))


def several(table: pd.DataFrame, name: str) -> bool:
    """Whether more than one column has that name."""
    return (table.columns == name).sum() > 1


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
