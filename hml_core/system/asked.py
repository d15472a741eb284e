"""Commands of the system that are asked something: ``git``, ``squeue``, ``sbatch``, ``scancel``."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
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


class _Ended(Exception):
    """A command that was ended, and what it had said by then."""

    def __init__(self, text: str, out: str) -> None:
        super().__init__(text)
        self.out = out


class Unanswered(_Ended, TimeoutError):
    """A command that did not end in time, and what it had said by then."""


class Excessive(_Ended, ValueError):
    """A command that said more than is wanted of it, and what it had said by then."""


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
        Where it cannot be started; :class:`Unanswered` (one of them) after ``patience`` seconds.
    ValueError
        Where it says more than ``limit`` bytes: :class:`Excessive`.
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
    out, error = _Said(process.stdout, limit), _Said(process.stderr, limit)
    try:
        has_ended = False
        while not has_ended:
            # In this order: whatever it said before it ended, or before its time was up, is there.
            now, has_ended = time.monotonic(), process.poll() is not None
            if out.read() + error.read() > limit:
                raise Excessive(f"{command[0]!r} says more than {limit:,} bytes", str(out))
            if not has_ended and now >= end:
                text = f"{command[0]!r} did not answer within {patience:.0f} seconds"
                raise Unanswered(text, str(out))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
        return Answer(process.returncode, str(out), str(error))
    except BaseException:
        _kill_group(process)
        raise
    finally:
        out.close()
        error.close()
        _asked.discard(process)


class _Said:
    """What a command has said so far, up to somewhat more than is wanted of it; nobody waits for more.

    What it left behind may hold its streams open.
    """

    def __init__(self, stream: Any, limit: int) -> None:
        self.close = stream.close
        self._number, self._limit, self._said = stream.fileno(), limit, bytearray()
        if hasattr(os, "set_blocking"):  # (on Windows before Python 3.12 its end is waited for)
            os.set_blocking(self._number, False)

    def read(self) -> int:
        """Take what is there; returns how many bytes it has been in all."""
        with contextlib.suppress(BlockingIOError):
            while len(self._said) <= self._limit and (new := os.read(self._number, 2**16)):
                self._said += new
        return len(self._said)

    def __str__(self) -> str:
        return self._said.decode(errors="replace")


@atexit.register
def _end_asked() -> None:
    for process in list(_asked):
        _kill_group(process)


def _kill_group(process: subprocess.Popen) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
