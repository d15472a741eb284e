"""The errors of this package: each message names the value, what was expected and what to do."""

from __future__ import annotations

import contextlib
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


# What the callers of a program's parts take for its end rather than for a fault.
ENDINGS = (SystemExit, EOFError, BrokenPipeError)


@contextlib.contextmanager
def never_left(what: str) -> Iterator[None]:
    """Inside the block what callers take for an end is an error: somebody's own code is only a part.

    SystemExit ends a process, EOFError and BrokenPipeError end a command without a word.

    Raises
    ------
    RunError
    """
    try:
        yield
    except ENDINGS as error:
        raise RunError(left_by(what, error)) from error


def left_by(what: str, error: BaseException) -> str:
    """What is said where somebody's own code raised what ends programs, with the place in the code."""
    name, code = type(error).__name__, getattr(error, "code", None)
    told = code if isinstance(error, SystemExit) else error
    places = traceback.extract_tb(error.__traceback__)
    where = f", {places[-1].filename}:{places[-1].lineno}" if places else ""
    return left(what, f"{name} ({told}{where})")


def left(what: str, how: str) -> str:
    """The sentence of :func:`left_by`."""
    return (
        f"{what} was left before its end by {how}: expected its own code (a loss, a model, a data set) "
        "to return, or to raise an error."
    )
