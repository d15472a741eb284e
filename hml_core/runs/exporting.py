"""Finished runs as small records: all that tables and figures need, at most 150 kB each.

The metrics of a record are those of the run, byte for byte, and it is read like one:
:func:`hml_core.runs.load`, :class:`hml_core.runs.Run`, a sweep or a notebook over its folder. Predictions
and manifest are in the form of :mod:`hml_core.runs.compact_predictions`.

>>> import tempfile
>>> export(tempfile.mkdtemp(), tempfile.mkdtemp())  # no finished run, no record
[]
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from hml_core import metrics
from hml_core.errors import ForeignRecordError, RunError
from hml_core.runs import compact_predictions, kept_weights
from hml_core.runs.folder import shelve
from hml_core.runs.listing import finished
from hml_core.runs.record import EXPORTED, RECORDED, Run
from hml_core.system import files, locks, paths

# Beside the folders of records: what has to be said of their images wherever they are quoted.
DATA_NOTE = "data_note.txt"
_NOT_EXPORTED = {*RECORDED, kept_weights.NAME, "failed.json"} - {*EXPORTED}


def export(runs_root: str | Path, destination: str | Path, *, weights: bool = False) -> list[Path]:
    """Write every finished run below ``runs_root`` as a record below ``destination``; their folders.

    Weights that a run has kept are left out, or with ``weights`` copied; a record holds without them.

    A record that is there and holds is left as it is, so that the same call adds what has been finished
    since; one that is damaged is set aside first (``<destination>/.damaged/``). A note on the images
    (``data_note.txt``) goes along. A run that is damaged is left out with a warning; nothing below
    ``runs_root`` is changed.

    Raises
    ------
    RunError
        Where ``destination`` cannot be written to. After all others were exported, where the predictions
        of a run are none or do not give the accuracies that its metrics hold, and where something else has
        a run's name there: the same run trained another time, a newer version's record, a link, a run on
        which a process works. It is left as it is.
    """
    runs_root = paths.named(runs_root, "`runs_root`")
    destination = files.require_writable(paths.named(destination, "`destination`"), "destination")
    note = runs_root / DATA_NOTE
    if note.is_file() and not os.path.lexists(destination / DATA_NOTE):
        files.write_atomically(destination / DATA_NOTE, files.read_bytes(note))
    records, left = [], []
    for path in finished(runs_root):
        try:
            run = Run(path).verify()
        except RunError as error:
            warnings.warn(f"{error} It is left out.", stacklevel=2)
            continue
        folder = destination / run.run_id
        there, reason = _there(folder, run)
        if reason is not None:
            left.append(f"{folder}: {reason}.")
            continue
        if not there:
            try:
                content = _content(run)
                _require_nothing_else(folder, content)
            except RunError as error:
                left.append(str(error))
                continue
            _write(run, content, folder)
        if weights and run.keeps() and not Run(folder).keeps():
            files.remove_half_written(folder, [kept_weights.NAME])
            kept = files.read_bytes(run.path / kept_weights.NAME, files.LARGEST_DATA)
            files.write_atomically(folder / kept_weights.NAME, kept)
        records.append(folder)
    if left:
        raise RunError(
            f"Exported {len(records)}, and left {len(left)} as they are. Where something else lies, "
            "expected another destination, or that to be moved away.\n" + "\n".join(left)
        )
    return records


def _there(folder: Path, run: Run) -> tuple[bool, str | None]:
    """Whether a run's record is there already, and else why nothing may be written to its place.

    A damaged one is set aside.
    """
    if not os.path.lexists(folder):
        return False, None
    if folder.is_symlink() or not folder.is_dir():
        return False, "it is a link, or no folder"
    if locks.is_held(folder.parent, folder.name):
        return False, "a process works on it"
    if not os.path.lexists(folder / "metrics.json"):
        if (folder / "checkpoint.pt").exists():
            return False, "it is a run that was begun"
        if {path.name for path in folder.iterdir()} & _NOT_EXPORTED:
            shelve(folder, f"The record {str(folder)!r} has lost its metrics.json.")
        return False, None  # what an export left that was killed
    try:
        if Run(folder).verify().metrics == run.metrics:
            return True, None
    except ForeignRecordError as error:
        return False, str(error).rstrip(".")
    except RunError as error:
        target = shelve(folder, str(error))
        warnings.warn(f"{error} It was set aside in {target}.", stacklevel=3)
        return False, None
    return False, "it holds, and is the same run trained another time"


def _content(run: Run) -> dict[str, bytes]:
    """Of each file of a record, in any order."""
    content = {name: files.read_bytes(run.path / name) for name in EXPORTED}
    return content | compact_predictions.content(run.run_id, _packed(run), content["metrics.json"])


def _require_nothing_else(folder: Path, content: Mapping[str, bytes]) -> None:
    """RunError where a folder holds something else than the record under a name of its files.

    What an export wrote that was killed is part of the record.
    """
    for name in content:
        is_there = os.path.lexists(folder / name)
        if is_there and not files.holds(folder / name, files.sha256_of(content[name])):
            raise RunError(f"{folder}: its {name} is not that of the run.")


def _write(run: Run, content: Mapping[str, bytes], folder: Path) -> None:
    if compact_predictions.ARRAYS in content:
        compact_predictions.write_manifest(folder, run.manifest_content)
    folder.mkdir(exist_ok=True)
    files.remove_half_written(folder, content)
    # Last of all comes metrics.json, which makes the folder a record.
    for name in sorted(content, key="metrics.json".__eq__):
        files.write_atomically(folder / name, content[name])


def _packed(run: Run) -> bytes | None:
    """The predictions of a run, where it has any: they must say what the run has measured."""
    if not run.has_predictions:
        return None
    try:
        compact_predictions.require_sound(run._arrays, len(run.class_names))
        measured = metrics.quick(run.test_classes(), run.test_targets, len(run.class_names))
        packed = compact_predictions.pack(run._arrays)
    except MemoryError:
        raise
    except Exception as error:  # its checksums hold: somebody else's program wrote whatever it is
        raise RunError(
            f"The predictions of the run {run.run_id} cannot be read ({error}). It was not exported."
        ) from error
    for name, value in measured.items():
        if not math.isclose(value, run.selection()[name], abs_tol=1e-12):
            raise RunError(
                f"The predictions of the run {run.run_id} give a {name} of {value:.6f}, its metrics "
                f"say {run.selection()[name]:.6f}: expected the same. It was not exported."
            )
    return packed
