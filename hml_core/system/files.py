"""Files that are either whole or not there, and proof that they are what was written.

What lies on a disk may be anything: a pipe that nobody writes to, a device, a hole of a terabyte. So files
are read through :func:`opened`, which waits for nobody, and up to a size that is said.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import lzma
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hml_core.errors import RunError

SEAL = "checksum"  # the field of a description that vouches for the others
# Bytes that are read at most.
LARGEST_TEXT = 2**26  # of a description; the longest ones here have a few million
LARGEST_TABLE = 2**30  # of a table or list with a line for each image
LARGEST_DATA = 2**34  # of arrays, weights or a checkpoint
# Behind a point and the name of what it will be: letters of tempfile's, and ours.
HALF_WRITTEN = r"\.[a-z0-9_]{8}\.new"
BESIDE = 14  # bytes by which the name of a half-written file is longer
NOT_REGULAR = "it is no regular file, but a folder, pipe, socket or device"


def opened(path: str | Path, limit: int | None = None) -> BinaryIO:
    """A regular file, open for reading; a pipe without a writer is not waited for.

    Raises
    ------
    OSError
        Also where it is no regular file, and with EFBIG where it has more than ``limit`` bytes. (The
        text says so, to stand behind the file's name.)
    """
    # A pipe without a writer would block an open without the flag.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
        if limit is not None and status.st_size > limit:
            said = f"it has {status.st_size:,} bytes, expected at most {limit:,}"
            raise OSError(errno.EFBIG, said, str(path))
        return io.BufferedReader(_Named(handle, path))
    except BaseException:
        os.close(handle)
        raise


class _Named(io.FileIO):
    """An open file whose errors in reading (a failing disk or network) have its name, too."""

    def __init__(self, handle: int, path: str | Path) -> None:
        super().__init__(handle, "rb")
        self._path = str(path)

    def readinto(self, buffer: Any) -> int | None:
        with self._told():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with self._told():
            return super().readall()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error


def reason(error: Exception) -> str:
    """What went wrong in reading, to stand behind the file's name.

    >>> reason(ValueError("it is empty")), reason(KeyError(101))
    ('it is empty', 'KeyError: 101')
    """
    if isinstance(error, LookupError):  # whose text is what was looked for
        return f"{type(error).__name__}: {error}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def read_bytes(path: str | Path, limit: int = LARGEST_TEXT) -> bytes:
    """What a regular file of at most ``limit`` bytes holds; OSError otherwise, see :func:`opened`."""
    with opened(path, limit) as stream:
        return read_all(stream, limit)


def read_all(stream: BinaryIO, limit: int) -> bytes:
    """What is left of an open file, up to ``limit`` bytes; no more memory is asked for than it has.

    (``stream.read(limit)`` asks for the limit: 16 GiB for a checkpoint of 1 MB.)
    """
    left = os.fstat(stream.fileno()).st_size - stream.tell()
    pieces = [stream.read(max(min(left, limit), 0))]
    while room := limit - sum(map(len, pieces)):  # it grows, or its system does not know its size
        if not (piece := stream.read(min(room, 2**20))):
            break
        pieces.append(piece)
    return b"".join(pieces)


def read_text(path: str | Path, limit: int = LARGEST_TEXT, encoding: str = "utf-8") -> str:
    """The text in a regular file of at most ``limit`` bytes; OSError otherwise, see :func:`opened`.

    Raises
    ------
    UnicodeDecodeError
        Whatever the locale of this process, text is UTF-8.
    """
    text = read_bytes(path, limit).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def walk(
    top: str | Path,
    onerror: Callable[[OSError], None] | None = None,
    followlinks: bool = False,
) -> Iterator[tuple[str, list[str], list[str]]]:
    """:func:`os.walk`, from the top down, of folders of any depth.

    (Before Python 3.12 that of the standard library calls itself for each level, up to 1,000.)
    """
    todo = [os.fspath(top)]
    while todo:
        folder = todo.pop()
        folders: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if _is_folder(entry) else names).append(entry.name)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            continue
        yield folder, folders, names
        below = [os.path.join(folder, name) for name in reversed(folders)]
        todo += below if followlinks else [path for path in below if not os.path.islink(path)]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that goes in circles
        return False


def read_end(path: str | Path, size: int) -> str:
    """The last bytes of a regular file of any length, as text; OSError otherwise, see :func:`opened`."""
    with opened(path) as stream:
        stream.seek(max(stream.seek(0, os.SEEK_END) - size, 0))
        return stream.read(size).decode(errors="replace").replace("\0", "")


def read_xz(path: str | Path, limit: int = LARGEST_TABLE) -> bytes:
    """What an .xz holds, unpacked up to ``limit`` bytes; OSError, EOFError or LZMAError otherwise."""
    unpacker = lzma.LZMADecompressor()
    content = unpacker.decompress(read_bytes(path, limit), max_length=limit)
    if not unpacker.eof:
        if len(content) < limit:
            raise EOFError("it ends too early")
        said = f"it unpacks to more than {limit:,} bytes"
        raise OSError(errno.EFBIG, said, str(path))
    return content


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` so that a reader, or a crash, sees the old file or the new one, whole.

    Raises
    ------
    RunError
        With the system's reason, such as a full disk; the old file is still there then.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        _write_and_rename(path, data)
    except OSError as error:
        raise RunError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def _write_and_rename(path: Path, data: bytes) -> None:
    with written_beside(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """A stream into a file beside ``path``, which gets that name at the end of the block.

    After an error in the block the old file is still there, and the new one gone.

    Raises
    ------
    OSError
    """
    handle, temporary = _half_written(path)
    with contextlib.ExitStack() as last:
        if os.name == "posix":  # elsewhere a file that is open keeps its name
            last.callback(os.close, os.dup(handle))
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _half_written(path: Path) -> tuple[int, str]:
    """A new file beside ``path``, and its handle: it is ours as long as one of it is open."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
        if not locked(handle, wait=True) or os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # between the two lines another process took it for one that nobody holds


def locked(handle: int, *, wait: bool = False) -> bool:
    """Hold the kernel's lock on an open file, as long as it is open; False where there are no locks.

    (Windows, some networks.)

    Raises
    ------
    BlockingIOError
        Where another process holds it, which is not waited for without ``wait``.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return False
    return True


def remove_half_written(folder: Path, names: Iterable[str]) -> None:
    """Remove what :func:`written_beside` left of those files when it was killed, and nothing else.

    What another process writes at this moment stays: it holds the lock. (Where there are no locks, nothing
    goes.)
    """
    ours = re.compile(rf"\.({'|'.join(map(re.escape, names))}){HALF_WRITTEN}")
    for path in folder.iterdir():
        if not ours.fullmatch(path.name):
            continue
        # Gone meanwhile, somebody else's, or held.
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                with opened(path) as stream:
                    if locked(stream.fileno()):
                        path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file of ours, if it is there.

    Raises
    ------
    RunError
        Where something else than a file has its name, or the system forbids it.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"Cannot remove {str(path)!r} ({error.strerror or error}): expected a file of ours there."
        ) from error


def _umask() -> int:
    # The only way to read it is to set it; mkstemp's own 0600 would lock colleagues out.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomically(path, json_text(value))


def json_text(value: Any) -> str:
    """The one way in which we write ``value`` as JSON.

    Raises
    ------
    ValueError
        For NaN and infinity, which are no JSON.
    """
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def sha256(path: str | Path, limit: int | None = None) -> str:
    """Hexadecimal SHA-256 of a regular file, of at most ``limit`` bytes; OSError otherwise."""
    with opened(path, limit) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def holds(path: Path, recorded: str) -> bool:
    """Whether there is a regular file of ours whose content has that SHA-256."""
    try:
        return path.is_file() and sha256(path, LARGEST_DATA) == recorded
    except OSError as error:
        if error.errno == errno.EFBIG:  # more than we ever write
            return False
        raise


def sha256_of(content: bytes) -> str:
    """Hexadecimal SHA-256 of what a file holds."""
    return hashlib.sha256(content).hexdigest()


def checksum(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def require_writable(
    folder: Path, what: str = "`runs_root`", *, kind: str = "results folder"
) -> Path:
    """Make ``folder`` and prove that files can be written into it.

    ``what`` gives it, and the ``kind`` of folder that it is: for the message.

    Raises
    ------
    RunError
        Where they cannot, with the system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(
            f"The {kind} {str(folder)!r} cannot be written to ({error.strerror or error}): "
            f"expected a writable {what}."
        ) from error
    return folder


def require_shared(folder: Path) -> None:
    """As :func:`require_writable`, of a folder of ours in one that several people use: made here, it is
    open to whom that one is open to, whatever the umask.

    Raises
    ------
    RunError
    """
    is_there = folder.is_dir()
    require_writable(folder)
    if not is_there:
        give_to(folder.parent, folder)
        with contextlib.suppress(OSError):  # another process's, made at the same moment
            # Without a sticky bit (/scratch): there locks refuse files of others, who could remove them.
            folder.chmod(stat.S_IMODE(folder.parent.stat().st_mode) & ~stat.S_ISVTX)


def give_to(folder: Path, made: Path) -> None:
    """Make what we made in a folder that several people use its group's, and as root its owner's, too.

    Where the system does not allow that, it stays as it is.
    """
    with contextlib.suppress(OSError, AttributeError):
        status, own = folder.stat(), made.lstat()
        owner = status.st_uid if os.geteuid() == 0 else -1
        if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
            os.chown(made, owner, status.st_gid, follow_symlinks=False)


def sealed(fields: dict[str, Any]) -> dict[str, Any]:
    """A description with the checksum over itself, so that a later change of it shows."""
    return {**fields, SEAL: checksum(fields)}


def unsealed(fields: dict[str, Any]) -> dict[str, Any] | None:
    """What was sealed, without its checksum; None where there is none, or it does not hold."""
    rest = {name: value for name, value in fields.items() if name != SEAL}
    return rest if fields.get(SEAL) == checksum(rest) else None
