"""Locks between processes, on one machine or on several that share a file system."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import filelock

from hml_core.errors import RunBusyError, RunError
from hml_core.system import files

FOLDER = ".locks"
LARGEST_NOTE = 2**12  # bytes


@contextlib.contextmanager
def held(root: Path, name: str, what: str, wait: float | None = None) -> Iterator[None]:
    """Hold the lock called ``name`` below ``root``; another holder is waited for (None: until it is free).

    The lock is the kernel's, on an open file: it is gone with the process that held it, however that
    ended, so that a stale one cannot be. The note beside it only tells people who holds it.

    Parameters
    ----------
    root : Path
        Locks lie in its folder ``.locks``.
    name : str
    what : str
        What the holder does, for the message: "works on the run …".
    wait : float, optional
        Seconds.

    Raises
    ------
    RunBusyError
        Where another process still holds it after ``wait`` seconds.
    RunError
        On a file system that has no locks.
    """
    folder, mode = _folder(root)
    lock = filelock.FileLock(folder / f"{name}.lock", mode=mode & 0o666 | 0o600)
    note = folder / f"{name}.json"
    try:
        lock.acquire(timeout=-1 if wait is None else wait)
        if isinstance(lock, filelock.SoftFileLock):  # what it makes of a file system without locks
            lock.release()
            raise NotImplementedError("a mark that outlives its process is no lock")
    except filelock.Timeout as error:
        raise RunBusyError(f"{_holder(note)} {what}.") from error
    except PermissionError as error:
        raise RunError(
            f"Cannot open {str(lock.lock_file)!r} ({error.strerror}), another user's: expected it to be "
            "open to all who work in that folder (`chmod a+rw`), or another folder."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise RunError(
            f"Cannot lock a file in {str(folder)!r} ({error}): expected a folder (`runs_root`) on a file "
            "system with locks, such as a local disk or NFS 4."
        ) from error
    try:
        files.give_to(root, Path(lock.lock_file))
        files.write_json(note, {"host": socket.gethostname(), "process": os.getpid()})
        yield
    finally:
        with contextlib.suppress(
            OSError
        ):  # somebody's folder of that name: the note was not written
            note.unlink(missing_ok=True)
        lock.release()


def is_held(root: Path, name: str) -> bool:
    """Whether a process holds that lock at this moment; nothing is made below ``root``."""
    path = root / FOLDER / f"{name}.lock"
    try:
        if not path.is_file():
            return False
        with filelock.FileLock(path, mode=stat.S_IMODE(path.stat().st_mode)).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):  # nobody can lock there
        return False


def _folder(root: Path) -> tuple[Path, int]:
    """The folder of locks, open to whom ``root`` is open to: others may train there, too."""
    folder = root / FOLDER
    if folder.is_symlink():
        raise RunError(
            f"{str(folder)!r} is a link, and locks are not made where it leads: expected a folder."
        )
    files.require_shared(folder)
    return folder, stat.S_IMODE(root.stat().st_mode)


def _holder(note: Path) -> str:
    """Who holds a lock, as far as its note tells."""
    try:
        record = json.loads(files.read_text(note, LARGEST_NOTE))
        return f"Process {record['process']} on {record['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "Another process"
