"""Where prepared images go: never among the originals."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from hml_core.datasets import prepared
from hml_core.datasets.trees import shown
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.system import files

JOURNAL = "journal.jsonl"  # what is done; a folder that holds it was prepared here
TABLES = ("manifest.csv", "rejected.csv")


def make_folder(
    output: str | Path,
    records: pd.DataFrame,
    root: Path,
    originals: Iterable[Path],
    tables: Iterable[str] = TABLES,
) -> Path:
    """Make the folder that prepared images go to, once it is known to be no part of the archive.

    Parameters
    ----------
    output : path
    records : DataFrame
        ``path`` of each original and ``file``, that of its prepared copy below ``output``.
    root : Path
        The archive's folder.
    originals : iterable of Path
        The folders of the original images, whether they are there or not.
    tables : iterable of str
        What is written beside the images.

    Raises
    ------
    ConfigError
        For an empty ``output``.
    DataError
        Where it is the archive's folder or lies among its images, also by way of links; where it holds
        what has the name of something that we write, and no journal of ours.
    RunError
        Where it cannot be written to, with the system's reason.
    """
    if not str(output):
        raise ConfigError("Expected `output` to be a folder, got ''.")
    folder = Path(output)
    real = _real(folder)
    if real == _real(root):
        raise DataError(
            f"The output {str(output)!r} is the archive's own folder: give another one, such as "
            f"{str(root / 'prepared')!r}."
        )
    targets = {_real(folder / part) for part in {Path(file).parent for file in records["file"]}}
    for original in map(_real, originals):
        inside = original in (real, *real.parents)
        if inside or any(_overlap(original, target) for target in targets):
            raise _among_originals(output, original)
    # The archive's folders may be links themselves, each to another place.
    if hit := targets & {_real(part) for part in {path.parent for path in records["path"]}}:
        raise _among_originals(output, min(hit))
    if not os.path.lexists(folder / JOURNAL):
        parts = {Path(file).parts[0] for file in records["file"]}
        taken = [*sorted(parts), prepared.DESCRIPTION, *tables]
        if held := [name for name in taken if os.path.lexists(folder / name)]:
            raise foreign(folder, held[0])
    try:
        return files.require_writable(folder)
    except RunError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise RunError(
            f"The output folder {str(folder)!r} cannot be written to ({reason}): give another `output`."
        ) from error


def foreign(folder: Path, name: str) -> DataError:
    """Something of somebody else's has a name that we write to."""
    return DataError(
        f"The output '{shown(folder)}' holds {name!r} that was not prepared here: give another folder."
    )


def _among_originals(output: str | Path, original: Path) -> DataError:
    return DataError(
        f"The output {str(output)!r} would write among the original images in {str(original)!r}: give "
        "a folder of its own."
    )


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike resolve(), also for links that go in circles
