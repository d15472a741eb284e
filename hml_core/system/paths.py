"""Paths as they are given: by a shell whose variable was not set, a file of parameters, a script."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hml_core.errors import ConfigError
from hml_core.system.fields import is_text
from hml_core.system.quantities import told

# Bytes of a path and of each name in it, where the system sets such limits (Linux, macOS).
LONGEST_PATH, LONGEST_NAME = 4096, 255
DEEPEST = 255  # folders within each other: pathlib makes those that are missing by recursion
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # a Path holds one of its slashes


def named(given: Any, what: str, *, is_recorded: bool = False, room: int = 0) -> Path:
    """The path that is given for ``what``; one that a record is to hold (``is_recorded``) is text.

    ``room``: by so many bytes other names are longer that are made of it.

    >>> named("my results", "`runs_root`")
    PosixPath('my results')

    Raises
    ------
    ConfigError
        For what is no path, and for one that no file can have: blank (the empty text would be the current
        folder), with a NUL, too long or too deep; and for an address (``s3://``), which would be a folder
        of that name.
    """
    is_path = isinstance(given, os.PathLike)
    said = f"Expected {what} to be a path, got {told(os.fspath(given) if is_path else given)}"
    if not isinstance(given, str | os.PathLike) or isinstance(os.fspath(given), bytes):
        raise ConfigError(f"{said} ({type(given).__name__}).")
    text = os.fspath(given)
    if not text.strip():
        raise ConfigError(f"{said}: it is blank.")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{said}: it holds half of a character.") from error
    if is_recorded and not is_text(text):
        raise ConfigError(f"{said}: its name is not UTF-8.")
    if b"\0" in encoded:
        raise ConfigError(f"{said}: it holds the character NUL.")
    if _ADDRESS.match(text):
        raise ConfigError(
            f"{said}: it is an address; copy from there, or from here to there, what is on this machine."
        )
    *lengths, last = map(len, encoded.split(os.fsencode(os.sep)))
    if len(encoded) + room >= LONGEST_PATH or max([*lengths, last + room]) > LONGEST_NAME:
        raise ConfigError(
            f"{said}: it is too long (a name has at most {LONGEST_NAME - room} bytes, a path "
            f"{LONGEST_PATH - 1 - room})."
        )
    if len(lengths) > DEEPEST:
        raise ConfigError(f"{said}: it is too deep (at most {DEEPEST} folders within each other).")
    return Path(given)


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is the folder or leads into it, links followed; neither need be there."""
    real, around = (Path(os.path.realpath(one)) for one in (path, folder))
    return around in (real, *real.parents)
