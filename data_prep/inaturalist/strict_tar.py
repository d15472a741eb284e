"""tarfile's reader for tarballs that nobody vouches for: what a header declares is looked at first.

A few bytes of a tarball, gzipped or sparse, may declare terabytes; headers may stand before headers,
without end; and a header of digits alone keeps tarfile's regular expressions busy for hours.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# What a cut-off or damaged (gzip) stream makes its readers raise.
DAMAGED = (
    tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile,
    ValueError, ArithmeticError, LookupError, AssertionError,
)  # fmt: skip
GZIP = b"\x1f\x8b"
CHUNK = 2**24
LARGEST_HEADER = 2**16  # bytes of a name, or of other things, for which a header has no room
MOST_HEADERS = 16  # before one member; and for all members, in a tarball
LONGEST_NUMBER = 64  # digits in a row
LONGEST_PADDING = 2**26  # bytes of zeros after the end
MOST_UNPACKED = 100  # bytes out of one (photographs: 1), and
ANY_UNPACKED = 2**30  # bytes, whatever they come from
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_MORE_OF_A_HEADER = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_PAX)
_LENGTH = re.compile(rb"([1-9]\d{0,6}) ")
_LONG_NUMBER = re.compile(rb"\d{%d}" % (LONGEST_NUMBER + 1))


class _Content:
    """The unpacked bytes of a tarball, front to back; ``largest`` is what a member may have of them."""

    def __init__(self, packed: IO[bytes], largest: int) -> None:
        self._packed, self.largest = packed, largest
        self._is_gzip = packed.read(len(GZIP)) == GZIP
        packed.seek(0)
        self._unpacked = gzip.GzipFile(fileobj=packed) if self._is_gzip else packed
        self._position, self._ahead = 0, b""
        self.headers = self.headers_for_all = 0

    def tell(self) -> int:
        return self._position

    def peek(self, size: int) -> bytes:
        """What the next :meth:`read` will give."""
        self._ahead += self._read(size - len(self._ahead))
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        ahead, self._ahead = self._ahead[:size], self._ahead[size:]
        data = ahead + self._read(size - len(ahead))
        self._position += len(data)
        return data

    def seek(self, position: int) -> int:
        """Pass over what lies before ``position``, at most to the end."""
        if position < self._position:
            raise tarfile.ReadError(f"it leads back from byte {self._position:,}")
        while self._position < position:
            if not self.read(min(position - self._position, CHUNK)):
                break
        return self._position

    def _read(self, size: int) -> bytes:
        data = self._unpacked.read(size) if size > 0 else b""
        unpacked = self._position + len(self._ahead) + len(data)
        most = max(ANY_UNPACKED, MOST_UNPACKED * self._packed.tell())
        if self._is_gzip and unpacked > most:
            raise tarfile.ReadError(f"it unpacks to more than {MOST_UNPACKED} times its bytes")
        return data


class _Member(tarfile.TarInfo):
    """A member whose header must be whole, and declare nothing that no photograph needs.

    tarfile takes any header that it cannot read, after the first, for the end of a tarball.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        content = tar.fileobj
        content.headers += 1
        if content.headers > MOST_HEADERS:
            raise tarfile.ReadError(f"more than {MOST_HEADERS} headers for one member")
        try:
            member = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise  # the proper end: a block of zeros
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no whole header at byte {tar.offset}: {error}") from error
        finally:
            content.headers -= 1
        _require_size(member, content.largest)  # which another header may have set
        return member

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """tarfile's place for subclasses."""
        content = tar.fileobj
        in_memory = self.type in _MORE_OF_A_HEADER  # whole: tarfile holds them so
        _require_size(self, LARGEST_HEADER if in_memory else content.largest)
        if self.type in _PAX:
            _require_records(content.peek(self.size))
        if self.type == tarfile.XGLTYPE:
            content.headers_for_all += 1
            if content.headers_for_all > MOST_HEADERS:
                raise tarfile.ReadError(f"more than {MOST_HEADERS} headers for all members")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{self.name!r} is sparse, which no photograph is")
        return super()._proc_member(tar)


def _require_size(member: tarfile.TarInfo, limit: int) -> None:
    if not 0 <= member.size <= limit:
        raise tarfile.ReadError(
            f"{member.name!r} declares {member.size:,} bytes, expected at most {limit:,}"
        )


def _require_records(header: bytes) -> None:
    """A pax header is a row of ``<length> <key>=<value>\\n``."""
    start = 0
    while start < len(header):
        length = _LENGTH.match(header, start)
        end = start + int(length[1]) if length else start
        key, sign, _ = header[length.end() if length else start : end].partition(b"=")
        if not sign or end > len(header) or header[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a pax header is no row of records")
        if key.startswith(b"GNU.sparse."):
            raise tarfile.ReadError("a member is sparse, which no photograph is")
        start = end
    if _LONG_NUMBER.search(header):
        raise tarfile.ReadError(f"a pax header has a number of more than {LONGEST_NUMBER} digits")


class Reader:
    """The members of a tarball as they come, and the content of the one that came last."""

    def __init__(self, content: _Content) -> None:
        self._content = content
        self._tar = tarfile.TarFile(fileobj=content, tarinfo=_Member)

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Each member; once there is no more, the tarball was read to its end (gzip's checksum, too)."""
        for member in self._tar:
            yield member
            self._tar.members.clear()  # tarfile keeps a description of each: 460,000 of them
        padding = 0
        while rest := self._content.read(CHUNK):
            padding += len(rest)
            if rest.strip(b"\0") or padding > LONGEST_PADDING:
                raise tarfile.ReadError("it goes on after its end")

    def read(self, member: tarfile.TarInfo) -> bytes:
        """The whole of the member that came last, a regular file."""
        return self._tar.extractfile(member).read()


@contextmanager
def opened(tarball: Path, largest: int) -> Iterator[Reader]:
    """A tarball, gzipped or not, of which no member may have more than ``largest`` bytes.

    Inside the block, what it holds may raise any of :data:`DAMAGED`.
    """
    with tarball.open("rb") as packed:
        yield Reader(_Content(packed, largest))
