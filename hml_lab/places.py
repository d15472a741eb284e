"""Where things lie when nobody says so: images, run records, and the folder of one's own results.

A notebook may be started from JupyterLab (its kernel sits in ``notebooks/``), by papermill (in the folder
of the shell) or by ``hml run``. All of them mean the same folders: an empty path stands for a default
below the root of the checkout. A path that is given means what it means everywhere, relative to the folder
of the shell or, in JupyterLab, of the notebook.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hml_core.errors import ConfigError

DATA = "data"
RUNS = "results/runs"
# What is tried goes to the first, which git ignores, what `hml batch --publish` makes to the second.
RESULTS, PUBLISHED = "my_results", "results"
# As in hml_core.datasets.prepared, which takes its time to import; and what is written beside it.
PREPARED = "prepared.json"
TABLES = (
    PREPARED,
    "journal.jsonl",
    "manifest.csv",
    "rejected.csv",
    "duplicates.csv",
    "categories.csv",
)


def checkout(start: str | Path | None = None) -> Path:
    """The root of the checkout in which ``start`` (default: the current folder) lies.

    Outside of one it is that of this package or, where that was installed without its notebooks,
    ``start`` itself.
    """
    start = Path(start or ".").resolve()
    here = Path(__file__).resolve()
    for folder in (start, *start.parents, here.parents[1]):
        if (folder / "notebooks").is_dir() and (folder / "hml_lab" / "__init__.py").is_file():
            return folder
    return start


def place(given: str | Path | None, default: str = RESULTS) -> Path:
    """The folder that a path names; an empty one is ``default``, below the root of the checkout.

    >>> place("/disk/results")
    PosixPath('/disk/results')
    >>> place("").relative_to(checkout())
    PosixPath('my_results')
    """
    return Path(os.path.expanduser(given)).absolute() if given else checkout() / default


def require_no_record(output: Path) -> None:
    """Refuse an output that would take the place of a file of a run record, or of prepared images.

    Raises
    ------
    ConfigError
    """
    with contextlib.suppress(PermissionError):  # of a folder that is not ours to look into
        _require_no_record(output)


def _require_no_record(output: Path) -> None:
    from hml_core.system.images import SUFFIXES

    # Tables lie beside its description, images somewhere below.
    folders = Path(os.path.realpath(output)).parents if output.exists() else ()
    if output.suffix.lower() not in SUFFIXES:
        folders = folders[: output.name in TABLES]
    for folder in folders:
        if (folder / PREPARED).is_file():
            raise ConfigError(
                f"Expected an output of its own, got {str(output)!r}: it is part of the data set that was "
                f"prepared in {str(folder)!r}."
            )
    if not ((folder := output.parent) / "config.json").is_file():
        return
    from hml_core.runs.compact_predictions import ARRAYS, SEAL
    from hml_core.runs.folder import WRITTEN

    if output.name in (*WRITTEN, ARRAYS, SEAL):
        raise ConfigError(
            f"Expected an output of its own, got {str(output)!r}: that is a file of the run record "
            f"{folder.name!r}."
        )
