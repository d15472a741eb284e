"""Made-up archives are marked, and never mixed with other files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hml_core.errors import DataError, RunError
from hml_core.system.files import reason

MARK = "SYNTHETIC"  # a file of that name says that the images beside it are made up


def begin(root: Path, text: str) -> None:
    """Make the folder of a made-up archive and mark it.

    Raises
    ------
    DataError
        Where ``root`` holds files that were not made up.
    """
    if root.exists() and any(root.iterdir()) and not (root / MARK).exists():
        raise DataError(
            f"{str(root)!r} holds other files: expected a new folder for made-up images."
        )
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).write_text(text)


@contextlib.contextmanager
def written(root: Path) -> Iterator[None]:
    """For a block that makes up an archive: the system often names no file, such as on a full disk.

    Raises
    ------
    RunError
        Where something cannot be written, with its name or that of the folder, and the system's reason.
    """
    try:
        yield
    except OSError as error:
        path = str(error.filename or root)
        raise RunError(f"Cannot write the made-up images, {path!r}: {reason(error)}.") from error
