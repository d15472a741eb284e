"""The official tarball as a stream: 120 GB that are read once, front to back, and never unpacked."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pandas as pd

from hml_core.errors import DataError
from hml_core.system import images
from hml_core.system.progress import Progress

# What a cut-off or damaged (gzip) stream makes its readers raise.
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)
_MORE_OF_A_HEADER = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
GZIP = b"\x1f\x8b"
CHUNK = 2**24
# A few bytes of a tarball, gzipped or sparse, may declare terabytes.
LARGEST_ANNOTATIONS = 2**31  # bytes; the official ones have 0.1 × 10⁹
LARGEST_HEADER = 2**20  # bytes of a name that is longer than a header has room for
LONGEST_PADDING = 2**26  # bytes of zeros after the end


class DamagedTarball(DataError):
    """A tarball that is cut off, or whose content is not what was packed."""


class _Member(tarfile.TarInfo):
    """A member whose header must be whole.

    tarfile takes any header that it cannot read, after the first, for the end of a tarball.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise  # the proper end: a block of zeros
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no whole header at byte {tar.offset}: {error}") from error

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """tarfile's place for subclasses."""
        if self.type in _MORE_OF_A_HEADER:  # tarfile holds them in memory, whole
            _require_size(self, LARGEST_HEADER)
        return super()._proc_member(tar)


def _require_size(member: tarfile.TarInfo, limit: int) -> None:
    if member.size > limit:
        raise tarfile.ReadError(
            f"{member.name!r} declares {member.size:,} bytes, expected at most {limit:,}"
        )


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
        Where it cannot be read.
    """
    wanted = {row.name_: row for row in todo.rename(columns={"name": "name_"}).itertuples()}
    if not wanted:
        return
    last = None  # held back: whoever has all rows knows that the tarball is whole
    with _readable(tarball), _content(tarball) as content:
        with tarfile.open(fileobj=content, mode="r|", tarinfo=_Member) as stream:
            for member in stream:
                row = wanted.pop(_below_the_folder(member.name), None) if member.isreg() else None
                if row is not None:
                    _require_size(member, images.LARGEST_FILE)
                    if last is not None:
                        yield last
                    last = row, stream.extractfile(member).read()
                stream.members.clear()  # tarfile keeps a description of each: 460,000 of them
        _read_to_the_end(content)
    if last is not None:
        yield last
    for row in wanted.values():
        absent(row)


def _content(tarball: Path) -> IO[bytes]:
    """A tarball's bytes, unpacked where it is gzipped."""
    with tarball.open("rb") as stream:
        is_gzip = stream.read(len(GZIP)) == GZIP
    return gzip.open(tarball) if is_gzip else tarball.open("rb")


def _read_to_the_end(content: IO[bytes]) -> None:
    padding = 0
    while rest := content.read(CHUNK):
        padding += len(rest)
        if rest.strip(b"\0") or padding > LONGEST_PADDING:
            raise tarfile.ReadError("it goes on after its end")


@contextmanager
def _readable(tarball: Path) -> Iterator[None]:
    """Errors of reading in words that say what to do."""
    try:
        yield
    except DataError:
        raise
    except _DAMAGED as error:
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
    with _readable(path), _content(path) as content:
        with tarfile.open(fileobj=content, mode="r|", tarinfo=_Member) as stream:
            for member in stream:
                if found is None and member.isreg() and PurePosixPath(member.name).name == name:
                    _require_size(member, LARGEST_ANNOTATIONS)
                    found = stream.extractfile(member).read()
        _read_to_the_end(content)
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
