"""The errors of this package: each message names the value, what was expected and what to do."""

from __future__ import annotations

import contextlib
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


@contextlib.contextmanager
def never_left(what: str) -> Iterator[None]:
    """Inside the block SystemExit is an error: somebody's own code ended what it is only a part of.

    Raises
    ------
    RunError
    """
    try:
        yield
    except SystemExit as error:
        raise RunError(
            f"{what} was left before its end by SystemExit ({error.code}): expected its own code (a loss, "
            "a model, a data set) to return, or to raise an error."
        ) from error
