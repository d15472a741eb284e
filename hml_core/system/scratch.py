"""Folders for temporary files that live as long as a process does, and not much longer if it is killed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import getpass
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hml_core.errors import RunError
from hml_core.system import files, interruptions

PREFIX = "hml-"
TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"
OWNER = ".owner"  # a file with this host's name, which the folder's process holds a lock on


@contextlib.contextmanager
def folder(place: str | Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """A private folder, gone afterwards; what killed processes left beside it goes now.

    Removed are folders that this function made for this user on this host and whose process is gone: it
    held a lock, which the kernel keeps as long as the process lives. (Where there are no locks, nothing
    says whose a folder is, and it stays.)

    Parameters
    ----------
    place : path, optional
        Default: where temporary files go (TMPDIR).
    prefix : str
        How its name begins, and the names of those that are looked for.
    """
    place = tempfile.gettempdir() if place is None else place
    _remove_abandoned(place, prefix)
    own = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    held = _claimed(own)
    try:
        yield own
    finally:
        with interruptions.delayed():
            shutil.rmtree(own, ignore_errors=True)
            if held is not None:
                os.close(held)


def keep_compiled_code_private() -> None:
    """Let torch's compiler keep what it runs again in a folder that nobody else can write to.

    Its own choice is ``torchinductor_<user>`` where temporary files go, whoever made that folder: what is
    in it is executed. One that is not this user's alone is left, for another one that is gone afterwards.
    Where ``TORCHINDUCTOR_CACHE_DIR`` names a folder, that one is used; RunError where it can be none.
    """
    if (given := os.environ.get(TORCH_CACHE)) or not hasattr(os, "getuid"):
        _require_folder(given)
        return
    # Where no files can be written there is nothing to run again.
    with contextlib.suppress(OSError):
        usual = _usual()
        if _is_ours_alone(usual):
            os.environ[TORCH_CACHE] = str(usual)
            return
        own, process = tempfile.mkdtemp(prefix="torchinductor_"), os.getpid()
        os.environ[TORCH_CACHE] = own

        @atexit.register
        def remove() -> None:
            if os.getpid() == process:
                shutil.rmtree(own, ignore_errors=True)


def keeps_headers_private() -> bool:
    """Whether torch's own choice is this user's alone: precompiled headers lie there in any case."""
    try:
        return hasattr(os, "getuid") and _is_ours_alone(_usual())
    except OSError:
        return False


def _usual() -> Path:
    """Where torch's compiler keeps what it runs again, unless it is told."""
    try:
        user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError):  # no entry in the list of users
        user = str(os.getuid())
    return Path(tempfile.gettempdir()) / f"torchinductor_{user}"


@functools.cache  # a run asks at each of its steps
def _require_folder(given: str | None) -> None:
    try:
        if given:
            os.makedirs(given, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"Expected `{TORCH_CACHE}` to name a folder, got {given!r} ({error.strerror}): torch's "
            "compiler writes there."
        ) from error


def _is_ours_alone(place: Path) -> bool:
    """Whether the folder is this user's, and nobody else may write to it; made, if it is not there."""
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    told = place.lstat()
    return (
        stat.S_ISDIR(told.st_mode)
        and told.st_uid == os.getuid()
        and not stat.S_IMODE(told.st_mode) & 0o022
    )


def _claimed(own: Path) -> int | None:
    """Hold the lock of a new folder; it gets its name once it is held, so that nobody finds it free."""
    new = own / f"{OWNER}.new"
    handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with contextlib.suppress(OSError):  # a full disk
        if files.locked(handle):
            os.write(handle, _host())
            os.rename(new, own / OWNER)
            return handle
    os.close(handle)
    new.unlink(missing_ok=True)
    return None


def _remove_abandoned(place: str | Path, prefix: str) -> None:
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                # Held, not one of ours, or a system that has no owners (Windows).
                with contextlib.suppress(OSError, AttributeError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    """Remove a folder of ours; OSError where it is none, or its process lives."""
    handle = os.open(os.path.join(path, OWNER), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        told = os.fstat(handle)
        is_mine = stat.S_ISREG(told.st_mode) and told.st_uid == os.lstat(path).st_uid == os.getuid()
        if is_mine and os.read(handle, len(_host()) + 1) == _host() and files.locked(handle):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def _host() -> bytes:
    return socket.gethostname().encode()
