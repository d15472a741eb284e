"""The errors of this package: each message names the value, what was expected and what to do."""

from __future__ import annotations

import contextlib
import inspect
import signal
import traceback
from collections.abc import Iterator


class HmlError(Exception):
    """Base of every error that is meant to be read by a user."""


class ConfigError(HmlError, ValueError):
    """A setting that cannot be trained with."""


class DataError(HmlError, ValueError):
    """Images or tables that are missing, damaged or unusable."""


class DeviceError(HmlError, RuntimeError):
    """A device that this machine does not have."""


class RunError(HmlError, RuntimeError):
    """A run that failed, is damaged or cannot be recorded."""


class RunBusyError(RunError):
    """A run that another process is at work on."""


class ForeignRecordError(RunError):
    """A record that is whole and that this version cannot judge, such as a newer version's."""


class UnreachableRecordError(ForeignRecordError):
    """A record that the system does not let us read now: a disk or network that fails, somebody's own."""


class UnknownMethodError(ForeignRecordError):
    """A record whose recipe, data set or model is not registered here: not damaged, but not readable."""


class Stopped(BaseException):
    """SIGTERM in a process of a group: no error of the run, so that nobody takes it for one."""


# Errors that the callers of a program's parts take for its end rather than for a fault.
ENDINGS = (EOFError, BrokenPipeError)
LONGEST_SAID, LONGEST_KIND = 10_000, 200  # characters of what somebody's own code says


@contextlib.contextmanager
def never_left(what: str) -> Iterator[None]:
    """Inside the block what callers take for an end is an error: somebody's own code is only a part.

    SystemExit ends a process, EOFError and BrokenPipeError end a command without a word, and what is no
    Exception (of a task that was cancelled, of a test) nobody catches. KeyboardInterrupt interrupts.

    Raises
    ------
    RunError
    """
    try:
        yield
    except BaseException as error:
        if not is_end(error):
            raise
        raise RunError(left_by(what, error)) from error


def is_end(error: BaseException) -> bool:
    """Whether it is what callers take for an end, other than an interruption."""
    if isinstance(error, Exception):
        return isinstance(error, ENDINGS)
    return not interrupts(error)


def interrupts(error: BaseException) -> bool:
    """Whether it comes from outside of the code that it ends: a signal, a closed generator."""
    if raised_by_handler(error):
        return True
    if isinstance(error, GeneratorExit):  # of one that is closed, it comes from where that stands
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return not frames or bool(frames[-1].f_code.co_flags & inspect.CO_GENERATOR)
    return isinstance(error, (KeyboardInterrupt, Stopped))


def raised_by_handler(error: BaseException) -> bool:
    """Whether a signal handler of the program raised it, as a time limit by ``signal.alarm`` does."""
    handlers = map(signal.getsignal, signal.valid_signals())
    codes = {getattr(getattr(one, "__func__", one), "__code__", None) for one in handlers} - {None}
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__)):
            return True
        error = error.__cause__
    return False


def kind_of(error: BaseException) -> str:
    """The name of its class, as far as anybody reads."""
    return type(error).__name__[:LONGEST_KIND]


def said(error: BaseException) -> str:
    """``str(error)`` of somebody's own error, which may have no end, or fail itself."""
    try:
        text = str(error)
    except Exception as failure:
        return f"<its text fails: {type(failure).__name__}>"
    return text if len(text) <= LONGEST_SAID else f"{text[:LONGEST_SAID]}…"


def left_by(what: str, error: BaseException) -> str:
    """What is said where somebody's own code raised what ends programs, with the place in the code."""
    name, code = kind_of(error), getattr(error, "code", None)
    told = code if isinstance(error, SystemExit) else said(error)
    places = traceback.extract_tb(error.__traceback__)
    where = f", {places[-1].filename}:{places[-1].lineno}" if places else ""
    return left(what, f"{name} ({told}{where})")


def left(what: str, how: str) -> str:
    """The sentence of :func:`left_by`."""
    return (
        f"{what} was left before its end by {how}: expected its own code (a loss, a model, a data set) "
        "to return, or to raise an error."
    )
