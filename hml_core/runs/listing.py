"""The runs below a folder: those that were finished, as a table, and those that failed."""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path

import pandas as pd

from hml_core.config.settings import SETTINGS
from hml_core.errors import RunError
from hml_core.runs import compact_predictions
from hml_core.runs.record import SELECTIONS, UNREADABLE, Run
from hml_core.system import files, locks, paths


def finished(runs_root: Path) -> list[Path]:
    """The folders of all runs that were finished, in order; also those that have lost their metrics since.

    These hold what a run writes in its end, and nothing to go on with. One that was ended just before its
    metrics were written looks the same; one that is written at this moment is held by a process.
    """
    return sorted(path for path in runs_root.glob("*/") if _may_be_finished(path))


def _may_be_finished(folder: Path) -> bool:
    try:
        return _was_finished(folder)
    except PermissionError:  # somebody's own: named by whoever reads it
        return not folder.name.startswith(".")


def _was_finished(folder: Path) -> bool:
    def has(*names: str) -> bool:
        return any((folder / name).exists() for name in names)

    if has("metrics.json") or folder.name.startswith("."):
        return has("metrics.json")
    if not has("predictions.npz", compact_predictions.ARRAYS, compact_predictions.SEAL):
        return False
    return not has("checkpoint.pt", "failed.json") and not locks.is_held(folder.parent, folder.name)


# Beside the fields of a configuration, and what it reached (``<selection>_<metric>``).
COLUMNS = (
    "run_id", "status", "error", "traceback", "path", "seconds", "device", "synthetic",
    "initialised_from", "num_classes", "last_validation_score",
)  # fmt: skip


def is_column(name: str) -> bool:
    """Whether a frame of runs has, or may have, a column of that name."""
    reached = tuple(f"{selection}_" for selection in SELECTIONS)
    return name in COLUMNS or name in SETTINGS or name.startswith(reached)


def load(runs_root: str | Path = "results/runs") -> pd.DataFrame:
    """Every finished run under ``runs_root``, a row each, in order of their ids.

    Columns: the fields of :class:`~hml_core.config.RunConfig`, ``run_id``, ``status``, ``path``,
    ``seconds`` (what the run took itself), ``device``, ``synthetic``, ``initialised_from``,
    ``num_classes``, ``last_validation_score`` (balanced accuracy on validation after the last epoch) and,
    for every selection of :data:`SELECTIONS`, ``<selection>_epoch`` and ``<selection>_<metric>`` (test
    metrics as fractions). A damaged run is left out with a warning.
    """
    rows = []
    for folder in finished(paths.named(runs_root, "`runs_root`")):
        try:
            run = Run(folder).verify()
            rows.append(run.row())
            if run.unknown:
                warnings.warn(
                    f"The run {run.run_id} was made with the {', '.join(run.unknown)}, which is not "
                    "registered here, or with other code. Its results are those of then.",
                    stacklevel=2,
                )
        except RunError as error:
            warnings.warn(f"{error} It is left out.", stacklevel=2)
    return pd.DataFrame(rows)


def failures(runs_root: str | Path = "results/runs") -> pd.DataFrame:
    """Runs that stopped with an error, a row each: run_id, error and the fields of the config."""
    rows = []
    for path in sorted(paths.named(runs_root, "`runs_root`").glob("*/failed.json")):
        with contextlib.suppress(*UNREADABLE):
            record = json.loads(files.read_text(path))
            rows.append({"run_id": path.parent.name, "error": record["error"], **record["config"]})
    return pd.DataFrame(rows)
