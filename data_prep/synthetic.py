"""Made-up archives are marked, and never mixed with other files."""

from __future__ import annotations

from pathlib import Path

from hml_core.errors import DataError

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
