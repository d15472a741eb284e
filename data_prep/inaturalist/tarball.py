"""The official tarball as a stream: 120 GB that are read once, front to back, and never unpacked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from data_prep.inaturalist import strict_tar
from hml_core.errors import DataError
from hml_core.system import images
from hml_core.system.progress import Progress

LARGEST_ANNOTATIONS = 2**31  # bytes; the official ones have 0.1 × 10⁹


class DamagedTarball(DataError):
    """A tarball that is cut off, or whose content is not what was packed."""


def members(
    tarball: Path, todo: pd.DataFrame, absent: Callable[[Any], None]
) -> Iterator[tuple[Any, bytes]]:
    """The rows of ``todo`` with the content of their images, in the tarball's order.

    Members are only looked up by name below the archive's folder (``todo["name"]``); nothing is written,
    and links and devices are passed over. The tarball is read to its end, so that gzip's checksum is
    compared; the last row comes only after that, and with nothing ``todo`` nothing is read. ``absent`` is
    called for each row that a whole tarball does not hold.

    Raises
    ------
    DamagedTarball
        Where it ends too early or is damaged: nothing that came before can be relied on.
    DataError
        Where it cannot be read, or holds an image twice: ``tar`` would take the other one.
    """
    wanted = {row.name_: row for row in todo.rename(columns={"name": "name_"}).itertuples()}
    if not wanted:
        return
    taken: set[str] = set()
    last = None  # held back: whoever has all rows knows that the tarball is whole
    with _readable(tarball), strict_tar.opened(tarball, images.LARGEST_FILE) as reader:
        for member in reader:
            name = _below_the_folder(member.name) if member.isreg() else ""
            if name in taken:
                raise DataError(
                    f"{str(tarball)!r} holds the image {name!r} twice. Expected the official one."
                )
            row = wanted.pop(name, None)
            if row is not None:
                taken.add(name)
                if last is not None:
                    yield last
                last = row, reader.read(member)
    if last is not None:
        yield last
    for row in wanted.values():
        absent(row)


@contextmanager
def _readable(tarball: Path) -> Iterator[None]:
    """Errors of reading in words that say what to do."""
    try:
        yield
    except DataError:
        raise
    except strict_tar.DAMAGED as error:
        raise DamagedTarball(
            f"{str(tarball)!r} is damaged or not whole ({error}). Nothing in it is taken as good: "
            "download it again, and the same call starts over with what the new file holds."
        ) from error
    except OSError as error:
        raise DataError(f"{str(tarball)!r} cannot be read: {error.strerror or error}.") from error


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
    found = None
    with _readable(path), strict_tar.opened(path, LARGEST_ANNOTATIONS) as reader:
        for member in reader:
            if found is None and member.isreg() and PurePosixPath(member.name).name == name:
                found = reader.read(member)
    if found is None:
        raise DataError(f"{str(path)!r} holds no {name}.")
    return found


def verify(tarball: Path, *, progress: bool = True) -> None:
    """Compare a tarball with the MD5 sum that torchvision knows of the official one.

    Raises
    ------
    DataError
        Where they differ.
    """
    from torchvision.datasets.inaturalist import DATASET_MD5

    expected, digest = DATASET_MD5["2018"], hashlib.md5(usedforsecurity=False)
    parts = -(-tarball.stat().st_size // strict_tar.CHUNK)
    with (
        Progress(parts, "MD5", enabled=progress, unit="×16 MiB") as bar,
        tarball.open("rb") as stream,
    ):
        while chunk := stream.read(strict_tar.CHUNK):
            digest.update(chunk)
            bar.update()
    if digest.hexdigest() != expected:
        raise DataError(
            f"{str(tarball)!r} is not the official file: its MD5 is {digest.hexdigest()}, expected "
            f"{expected}. Download it again."
        )
