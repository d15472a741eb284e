"""Where prepared images go: never among the originals."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from hml_core.datasets import prepared
from hml_core.datasets.trees import shown
from hml_core.errors import ConfigError, DataError, RunBusyError, RunError
from hml_core.system import files, locks
from hml_core.system.tables import csv_of

JOURNAL = "journal.jsonl"  # what is done; a folder that holds it was prepared here
TABLES = ("manifest.csv", "rejected.csv")


@contextlib.contextmanager
def made(
    output: str | Path,
    records: pd.DataFrame,
    root: Path,
    originals: Iterable[Path],
    tables: Iterable[str] = TABLES,
) -> Iterator[Path]:
    """The folder that prepared images go to, made once it is known to be no part of the archive.

    Inside the block no other process prepares there: each would vouch for what the other one writes.

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
        what has the name of something that we write, and no journal of ours, or a link in its place.
    RunBusyError
        Where another process prepares there.
    RunError
        Where it cannot be written to, with the system's reason.
    """
    folder = _make(output, records, root, originals, tables)
    with alone(folder) as is_held:
        if is_held:  # what one left that was killed while it wrote
            files.remove_half_written(folder, (*tables, prepared.DESCRIPTION, JOURNAL))
        yield folder


@contextlib.contextmanager
def alone(folder: Path, what: str = "prepare") -> Iterator[bool]:
    """Inside the block no other process prepares there; whether that is certain (a warning where not).

    Raises
    ------
    RunBusyError
        Where another one does.
    """
    with contextlib.ExitStack() as stack:
        is_held = True
        try:
            does = f"prepares images in '{shown(folder)}'"
            stack.enter_context(locks.held(folder, what, does, 0))
        except RunBusyError:
            raise
        except RunError as error:
            is_held = False
            warnings.warn(f"{error} Nobody else may prepare there meanwhile.", stacklevel=4)
        yield is_held


def write_table(folder: Path, name: str, table: pd.DataFrame) -> str:
    """Write a table of prepared images; the SHA-256 of what was written."""
    content = csv_of(table)
    files.write_atomically(folder / name, content)
    return hashlib.sha256(content.encode()).hexdigest()


def _make(
    output: str | Path,
    records: pd.DataFrame,
    root: Path,
    originals: Iterable[Path],
    tables: Iterable[str],
) -> Path:
    if not str(output):
        raise ConfigError("Expected `output` to be a folder, got ''.")
    folder = Path(output)
    real = _real(folder)
    if real == _real(root):
        raise DataError(
            f"The output {str(output)!r} is the archive's own folder: give another one, such as "
            f"{str(root / 'prepared')!r}."
        )
    parts = {Path(name) for name in set(records["file"].map(os.path.dirname))}
    targets = {_real(folder / part) for part in parts}
    for original in map(_real, originals):
        inside = original in (real, *real.parents)
        if inside or any(_overlap(original, target) for target in targets):
            raise _among_originals(output, original)
    # The archive's folders may be links themselves, each to another place.
    if hit := targets & {_real(part) for part in {path.parent for path in records["path"]}}:
        raise _among_originals(output, min(hit))
    if not os.path.lexists(folder / JOURNAL):
        first = {Path(file).parts[0] for file in records["file"]}
        taken = [*sorted(first), prepared.DESCRIPTION, *tables]
        if held := [name for name in taken if os.path.lexists(folder / name)]:
            raise foreign(folder, held[0])
    within = {one for part in parts for one in (part, *part.parents) if one.name}
    if links := sorted(str(part) for part in within if (folder / part).is_symlink()):
        raise DataError(
            f"In the output '{shown(folder)}' {links[0]!r} is a link, and what it names may hold other "
            "images: remove the link, or give another folder."
        )
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
