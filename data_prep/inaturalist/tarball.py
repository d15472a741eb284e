"""The official tarball as a stream: 120 GB that are read once, front to back, and never unpacked."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from hml_core.errors import DataError
from hml_core.progress import Progress

# What a cut-off or damaged (gzip) stream makes its readers raise.
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, OSError)
CHUNK = 2**24


def members(
    tarball: Path, todo: pd.DataFrame, absent: Callable[[Any], None]
) -> Iterator[tuple[Any, bytes]]:
    """The rows of ``todo`` with the content of their images, in the tarball's order.

    Members are only looked up by name below the archive's folder (``todo["name"]``); nothing is written,
    and links and devices are passed over. Reading stops when every row has been seen. ``absent`` is
    called for each row that a whole tarball does not hold.

    Raises
    ------
    DataError
        Where the stream ends too early or is damaged.
    """
    wanted = {row.name_: row for row in todo.rename(columns={"name": "name_"}).itertuples()}
    try:
        with tarfile.open(tarball, mode="r|*") as stream:
            for member in stream:
                if not wanted:
                    return
                row = wanted.pop(_below_the_folder(member.name), None) if member.isreg() else None
                if row is not None:
                    yield row, stream.extractfile(member).read()
                stream.members.clear()  # tarfile keeps a description of each: 460,000 of them
    except _DAMAGED as error:
        raise DataError(
            f"{str(tarball)!r} is damaged or not whole ({error}). The images before the damage are "
            "done and kept; download it again, and the same call goes on."
        ) from error
    for row in wanted.values():
        absent(row)


def _below_the_folder(name: str) -> str:
    parts = PurePosixPath(name).parts
    return str(PurePosixPath(*parts[1:])) if len(parts) > 1 else ""


def read_single(path: Path, name: str) -> bytes:
    """The file called ``name`` in a small tarball, such as that of the annotations.

    Raises
    ------
    DataError
        Where it is not there, or the tarball is damaged.
    """
    try:
        with tarfile.open(path, mode="r|*") as stream:
            for member in stream:
                if member.isreg() and PurePosixPath(member.name).name == name:
                    return stream.extractfile(member).read()
    except _DAMAGED as error:
        raise DataError(f"{str(path)!r} is damaged or not whole: {error}") from error
    raise DataError(f"{str(path)!r} holds no {name}.")


def verify(tarball: Path, *, progress: bool = True) -> None:
    """Compare a tarball with the MD5 sum that torchvision knows of the official one.

    Raises
    ------
    DataError
        Where they differ.
    """
    from torchvision.datasets.inaturalist import DATASET_MD5

    expected, digest = DATASET_MD5["2018"], hashlib.md5(usedforsecurity=False)
    parts = -(-tarball.stat().st_size // CHUNK)
    with (
        Progress(parts, "MD5", enabled=progress, unit="×16 MiB") as bar,
        tarball.open("rb") as stream,
    ):
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            bar.update()
    if digest.hexdigest() != expected:
        raise DataError(
            f"{str(tarball)!r} is not the official file: its MD5 is {digest.hexdigest()}, expected "
            f"{expected}. Download it again."
        )
