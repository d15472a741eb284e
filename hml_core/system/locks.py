"""Locks between processes, on one machine or on several that share a file system."""

from __future__ import annotations

import contextlib
import json
import os
import socket
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
    folder = files.require_writable(root / FOLDER)
    lock, note = filelock.FileLock(folder / f"{name}.lock"), folder / f"{name}.json"
    try:
        lock.acquire(timeout=-1 if wait is None else wait)
    except filelock.Timeout as error:
        raise RunBusyError(f"{_holder(note)} {what}.") from error
    except (OSError, NotImplementedError) as error:
        raise RunError(
            f"Cannot lock a file in {str(folder)!r} ({error}): expected a `runs_root` on a file "
            "system with locks, such as a local disk or NFS 4."
        ) from error
    try:
        files.write_json(note, {"host": socket.gethostname(), "process": os.getpid()})
        yield
    finally:
        with contextlib.suppress(
            OSError
        ):  # somebody's folder of that name: the note was not written
            note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path) -> str:
    """Who holds a lock, as far as its note tells."""
    try:
        record = json.loads(files.read_text(note, LARGEST_NOTE))
        return f"Process {record['process']} on {record['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "Another process"
