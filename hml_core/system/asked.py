"""Commands of the system that are asked something: ``git``, ``squeue``, ``sbatch``, ``scancel``."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hml_core.system.processes import die_with_parent, libc

LOOK_S = 0.05  # how often it is looked at

_asked: set[subprocess.Popen] = set()  # those that are still at it


class Answer(NamedTuple):
    """What a command of the system said, and its status as :mod:`subprocess` gives it."""

    status: int
    out: str
    error: str


class Unanswered(TimeoutError):
    """A command that did not end in time, and what it had said by then."""

    def __init__(self, text: str, out: str) -> None:
        super().__init__(text)
        self.out = out


def ask(
    command: Sequence[str],
    patience: float,
    limit: int = 2**20,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a command of the system: one that may hang, print without end, or start what does either.

    It and what it has started in its group are killed after ``patience`` seconds, or once it has said more
    than ``limit`` bytes, or when this process ends. Bytes that are no UTF-8 are replaced. May be called in
    any thread.

    Raises
    ------
    OSError
        Where it, or a thread that reads what it says, cannot be started; :class:`Unanswered` (one of
        them) after ``patience`` seconds.
    ValueError
        Where it says more than ``limit`` bytes.
    """
    end = time.monotonic() + patience
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=sys.platform != "win32",  # a group of its own
        env=environment,
        preexec_fn=die_with_parent if libc() else None,  # loaded here: threads may hold any lock
    )
    _asked.add(process)
    said: dict[Any, bytes] = {process.stdout: b"", process.stderr: b""}
    threads = [threading.Thread(target=_read, args=(said, s, limit), daemon=True) for s in said]
    try:
        for thread in threads:
            _start(thread)
        while process.poll() is None:
            if sum(map(len, said.values())) > limit:
                raise ValueError(f"{command[0]!r} says more than {limit:,} bytes")
            if time.monotonic() >= end:
                text = f"{command[0]!r} did not answer within {patience:.0f} seconds"
                raise Unanswered(text, said[process.stdout].decode(errors="replace"))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
        for thread in threads:
            thread.join(LOOK_S)  # no longer: what it left behind may hold its streams open
        out, error = (text.decode(errors="replace") for text in said.values())
        if len(out) + len(error) > limit:
            raise ValueError(f"{command[0]!r} says more than {limit:,} bytes")
        return Answer(process.returncode, out, error)
    except BaseException:
        _kill_group(process)
        raise
    finally:
        _asked.discard(process)


@atexit.register
def _end_asked() -> None:
    for process in list(_asked):
        _kill_group(process)


def _start(thread: threading.Thread) -> None:
    """As for a process, it is an error of the system where there is no room for it (``ulimit -u``)."""
    try:
        thread.start()
    except RuntimeError as error:  # "can't start new thread"
        raise BlockingIOError(errno.EAGAIN, str(error)) from error


def _read(said: dict[Any, bytes], stream: Any, limit: int) -> None:
    """Note what comes from a command, up to somewhat more than is wanted of it."""
    with stream, contextlib.suppress(OSError, ValueError):
        while len(said[stream]) <= limit and (text := os.read(stream.fileno(), 2**16)):
            said[stream] += text


def _kill_group(process: subprocess.Popen) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
