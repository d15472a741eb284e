"""The streams that a process was given: closed, with a full disk or a terminal behind them."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

LAST_WORDS_S = 5.0


def open_closed() -> None:
    """Open what is closed of standard input, output and error, on nothing.

    Otherwise the next file or socket gets the number of one of them, what a started process prints goes
    there, and what asks :data:`sys.stderr` whether it is a terminal fails.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


class _Forgiving(io.FileIO):
    """A file that takes everything, whether or not it can be written."""

    def write(self, data: bytes) -> int | None:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            return len(data)


def forgive_errors() -> None:
    """Let standard error take what a full disk, or a pipe that nobody reads, does not.

    What is said there is progress and reasons: no work ends for them, and the exit status is the work's.
    """
    if sys.stderr is not sys.__stderr__:  # somebody's who calls us
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        raw = _Forgiving(sys.stderr.fileno(), "wb", closefd=False)
        sys.stderr = sys.__stderr__ = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stderr.encoding, sys.stderr.errors, line_buffering=True
        )


class Copy:
    """What goes from processes to a stream of ours.

    Attributes
    ----------
    source : int or None
        The handle that they are given to write to, until it is closed.
    end : bytes
        The last of what they wrote.
    error : OSError or None
        Why the stream has not all of it.
    """

    def __init__(self, target: int, kept: int) -> None:
        self.target, self.kept = target, kept
        self.end, self.error = b"", None
        self._reading, self.source = os.pipe()

    def close(self) -> None:
        """Give the handle up, once those have it who write to it. (Its number may be another's then.)"""
        if self.source is not None:
            os.close(self.source)
            self.source = None

    def run(self) -> None:
        """Copy until nobody can write any more."""
        while True:
            try:
                data = os.read(self._reading, 2**16)
            except OSError:
                return
            if not data:
                return
            self.end = (self.end + data)[-self.kept :]
            while data and self.error is None:
                try:
                    data = data[os.write(self.target, data) :]
                except BlockingIOError:  # somebody's who reads later
                    select.select([], [self.target], [], 1.0)
                except OSError as error:
                    self.error = error


@contextlib.contextmanager
def copied(target: int, kept: int = 0) -> Iterator[Copy]:
    """A handle for processes to write to, whose content goes to ``target`` as far as that takes it.

    Who writes into a full disk, or beyond a limit (``ulimit -f``), fails; a kernel of Jupyter that cannot
    write stops for ever. Nobody who writes here notices.
    """
    copy = Copy(target, kept)
    thread = threading.Thread(target=copy.run, daemon=True)
    thread.start()
    try:
        yield copy
    finally:
        copy.close()
        thread.join(LAST_WORDS_S)  # no longer: what was left behind may hold it open
        if not thread.is_alive():
            os.close(copy._reading)


def tell(text: str) -> None:
    """Print how work goes on: it does so, too, where standard output takes nothing, or nobody reads it.

    Whether that took the command's last words decides on the exit status, in the end.
    """
    # A full disk, a terminal that is gone; one that is closed.
    with contextlib.suppress(OSError, ValueError):
        print(text, flush=True)


def drop_unwritable() -> None:
    """Let go of what standard output could not take: it is told once, and not again in the end."""
    if not is_said():
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, sys.stdout.fileno())
            os.close(nothing)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal: None, a closed one, and one with ``write`` alone are not."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def is_said() -> bool:
    """Whether standard output has taken all that was printed."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def nobody_reads() -> bool:
    """Whether standard output is a pipe, or a terminal, that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return bool(poll.poll(0))
    except (OSError, ValueError, AttributeError):  # no file, closed, or a system without poll
        return False


def printable(text: str) -> str:
    r"""Text of several lines that does nothing to a terminal: other control characters are escaped.

    >>> printable("two\nlines, \x1b[2Jno more")
    'two\nlines, \\x1b[2Jno more'
    """
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def say(text: str, *, err: bool = False) -> None:
    """Print what may hold names that others gave, as :func:`printable` has it; ``err``: standard error."""
    click.echo(printable(text), err=err)
