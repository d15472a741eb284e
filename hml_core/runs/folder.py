"""The folder of a run while it is being made: begun, checkpointed, finished, failed, set aside."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from hml_core import __version__
from hml_core.config import RunConfig, identity
from hml_core.errors import LONGEST_SAID, ForeignRecordError, RunError, kind_of, said
from hml_core.runs import kept_weights
from hml_core.runs.record import RECORDED, UNREADABLE, Run
from hml_core.system import files, locks, paths, states
from hml_core.system.tables import csv_of

# What is ever written into the folder of a run.
WRITTEN = (*RECORDED, kept_weights.NAME, "metrics.json", "checkpoint.pt", "failed.json")
# Below runs_root, where records lie that were damaged, or are trained again to have their weights.
SHELF, REPLACED = ".damaged", ".replaced"
FORMAT = 1  # of a checkpoint; to be raised when an older version could not go on from one


def shelve(folder: Path, reason: str, shelf: str = SHELF) -> Path:
    """Move the folder of a run to a shelf beside it, where it gets a number; where it lies then.

    Raises
    ------
    RunError
        Where something else has the name of that shelf, or the system does not let this user move the
        folder, as another one's or where it may not be written to.
    """
    place = folder.parent / shelf
    is_new = not os.path.lexists(place)
    try:
        if place.is_symlink():
            raise FileExistsError(0, "it is a link")
        place.mkdir(exist_ok=True)
        files.give_to(folder.parent, place)
        number = 0
        while os.path.lexists(target := place / f"{folder.name}.{number}"):
            number += 1
        os.rename(folder, target)
    except OSError as error:
        expected = _expected_of_shelf(folder, place, error)
        if is_new:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise RunError(
            f"{reason} It cannot be set aside in {str(place)!r} ({error.strerror or error}): "
            f"expected {expected}. Nothing was moved."
        ) from error
    return target


def _expected_of_shelf(folder: Path, place: Path, error: OSError) -> str:
    """What has to be otherwise, so that a run's folder can be moved to the shelf."""
    if not isinstance(error, PermissionError) or not place.is_dir():
        return "a folder there, or nothing"
    if not os.access(place, os.W_OK | os.X_OK):
        return "a folder there, or nothing, and that you may write to it"
    owner = "whoever owns the run's folder"
    with contextlib.suppress(OSError):
        if folder.lstat().st_uid == os.geteuid():
            return f"that {owner}, which is you, may write to it and to {str(folder.parent)!r}"
    return f"that {owner} moves it"


class RunFolder:
    """The folder of one run while it is being made.

    Parameters
    ----------
    runs_root : str or Path
    config : RunConfig

    Raises
    ------
    RunError
        Where ``runs_root`` cannot be written to.
    """

    def __init__(self, runs_root: str | Path, config: RunConfig) -> None:
        self.root = files.require_writable(paths.named(runs_root, "`runs_root`"))
        self.config = config
        self.path = self.root / config.run_id

    @contextlib.contextmanager
    def locked(self, wait: float | None = None) -> Iterator[None]:
        """Hold the run alone; another process that holds it is waited for ``wait`` seconds (None: on).

        Raises
        ------
        RunBusyError
            Where the other process still works after ``wait`` seconds.
        RunError
            On a file system that has no locks.
        """
        with locks.held(self.root, self.path.name, f"works on the run {self.path.name}", wait):
            yield

    def finished(self) -> Run | None:
        """The run if it is done and undamaged; a damaged one is set aside first.

        Raises
        ------
        ForeignRecordError
            Where the record is whole, and not for this version to judge: it is left where it is.
        """
        if not (self.path / "metrics.json").exists():
            return None
        try:
            run = Run(self.path).verify()
            if run.config != self.config:
                raise RunError(f"The run {self.path.name} is damaged: it has another config.")
        except ForeignRecordError:
            raise
        except RunError as error:
            self.set_aside(str(error))
            return None
        return run

    def set_aside(self, reason: str, shelf: str = SHELF) -> Path:
        """Move the folder to a shelf, ``<runs_root>/.damaged/``, and warn, so that nothing is lost.

        Raises
        ------
        RunError
            See :func:`shelve`.
        """
        target = shelve(self.path, reason, shelf)
        warnings.warn(f"{reason} It was set aside in {target} and is trained again.", stacklevel=3)
        return target

    def begin(self, environment: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any] | None:
        """Write what is known before training; returns the checkpoint to go on from, if any.

        Raises
        ------
        ForeignRecordError
            For a checkpoint of a newer version that this one does not understand: it is left where it is.
        RunError
            Where the folder is a link, or cannot be written to.
        """
        if self.path.is_symlink():
            raise RunError(
                f"The folder {str(self.path)!r} of the run is a link to {os.readlink(self.path)!r}, and a "
                "run is not written through one: expected a folder there, or nothing."
            )
        checkpoint = self._read_checkpoint()
        if checkpoint is not None and not self._is_same(manifest):
            self._require_ours("it tells of its images in another way, or of others", checkpoint)
            self.set_aside(f"The run {self.path.name} was begun with other images.")
            checkpoint = None
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make the folder {str(self.path)!r}: {error}") from error
        files.remove_half_written(self.path, WRITTEN)  # what others keep in the folder stays
        # A file system that fills up must be noticed here rather than in the last epoch.
        for name, value in (("environment.json", environment), ("manifest.json", manifest)):
            files.write_json(self.path / name, value)
        files.write_atomically(self.path / "config.json", self.config.to_json() + "\n")
        files.remove(self.path / "failed.json")
        return checkpoint

    def _is_same(self, manifest: dict[str, Any]) -> bool:
        try:
            begun = json.loads(files.read_text(self.path / "manifest.json", files.LARGEST_TABLE))
            return begun["sha256"] == manifest["sha256"]
        except UNREADABLE:
            return False

    def _read_checkpoint(self) -> dict[str, Any] | None:
        path = self.path / "checkpoint.pt"
        if not path.exists():
            return None
        checkpoint = None
        try:
            checkpoint = states.read(path)
            if checkpoint.get("format", 0) > FORMAT:
                raise RunError(
                    f"its format is {checkpoint['format']}, known are those up to {FORMAT}"
                )
            if checkpoint["config_hash"] != self.config.hash:
                raise RunError("it belongs to another config")
            return checkpoint
        except MemoryError:
            raise
        except OSError as error:
            raise RunError(
                f"Cannot read the checkpoint {str(path)!r}: {error.strerror or error}."
            ) from error
        except Exception as error:  # whatever a damaged archive makes its readers raise
            self._require_ours(str(error), checkpoint)
            self.set_aside(f"The checkpoint of the run {self.path.name} is damaged ({error}).")
            return None

    def begin_anew(
        self, environment: dict[str, Any], manifest: dict[str, Any], reason: str
    ) -> dict[str, Any] | None:
        """Set a checkpoint aside that the run cannot go on from, and :meth:`begin`."""
        with contextlib.suppress(OSError):
            self._require_ours(reason, states.read(self.path / "checkpoint.pt"))
        self.set_aside(f"The checkpoint of the run {self.path.name} is unusable ({reason}).")
        return self.begin(environment, manifest)

    def _require_ours(self, reason: str, checkpoint: Any) -> None:
        """What a newer version began, and this one cannot go on with, is not damaged.

        Raises
        ------
        ForeignRecordError
        """
        version = checkpoint.get("version") if isinstance(checkpoint, dict) else None
        if version is None:
            with contextlib.suppress(*UNREADABLE):  # of one that could not be read
                begun = json.loads(files.read_text(self.path / "environment.json"))
                version = begun["versions"]["hml-core"]
        if _is_newer(version):
            raise ForeignRecordError(
                f"The run {self.path.name} was begun by hml-core {version}, and its checkpoint is not "
                f"for {__version__} to go on from ({reason}). It is left as it is: expected that version, "
                "or another `runs_root`."
            )

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint; the previous one stays until the new one is whole."""
        vouched = {"config_hash": self.config.hash, "format": FORMAT, "version": __version__}
        states.write(self.path / "checkpoint.pt", {**state, **vouched})

    @staticmethod
    def has_begun(runs_root: str | Path, config: RunConfig) -> bool:
        """Whether the run has come so far that it has a checkpoint."""
        return (Path(runs_root) / config.run_id / "checkpoint.pt").exists()

    @staticmethod
    def reached(runs_root: str | Path, config: RunConfig) -> tuple[int, ...] | None:
        """A mark of how far the run came: another one for each checkpoint, None where there is none."""
        path = Path(runs_root) / config.run_id / "checkpoint.pt"
        try:  # it is opened, for NFS looks for what other hosts wrote only then
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            return None
        told = os.fstat(handle)
        os.close(handle)
        return told.st_mtime_ns, told.st_ino, told.st_size

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write ``history.csv``, a row per epoch."""
        text = csv_of(pd.DataFrame(history))
        files.write_atomically(self.path / "history.csv", text)

    def finish(
        self,
        metrics: dict[str, Any],
        arrays: dict[str, np.ndarray],
        weights: tuple[dict[str, Tensor], dict[str, Any]] | None = None,
    ) -> Run:
        """Write the arrays, the weights that are kept and, last, the metrics.

        The checkpoint is then removed.
        """
        written = RECORDED
        if weights is None:
            files.remove(
                self.path / kept_weights.NAME
            )  # of somebody who was killed and wanted them
        else:
            tensors, described = weights
            content = kept_weights.to_bytes(tensors, described)
            files.write_atomically(self.path / kept_weights.NAME, content)
            written = (*RECORDED, kept_weights.NAME)
            told = kept_weights.describe(described["which"], described["epoch"])
            metrics = {**metrics, "kept_weights": told}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        files.write_atomically(self.path / "predictions.npz", buffer.getvalue())
        own = identity.own_part(self.config)
        metrics = {
            "run_id": self.config.run_id,
            "config_hash": self.config.hash,
            **metrics,
            **(
                {"own": own} if own else {}
            ),  # by which the record is read where it is not registered
            "files": {name: files.sha256(self.path / name) for name in written},
        }
        metrics = json.loads(json.dumps(metrics))  # floats as a reader will see them
        files.write_json(self.path / "metrics.json", files.sealed(metrics))
        files.remove(self.path / "checkpoint.pt")
        return Run(self.path)

    def fail(self, error: BaseException, *, resumable: bool = True) -> None:
        """Record why the run stopped, if the disk still takes it.

        ``resumable``: the cause may be gone next time (a full disk), so that the checkpoint is kept.
        """
        if not resumable:
            with contextlib.suppress(RunError):
                files.remove(self.path / "checkpoint.pt")
        record = {
            "error": said(error),
            "type": kind_of(error),
            "traceback": "".join(traceback.format_exception(error))[-10 * LONGEST_SAID :],
            "config": self.config.to_dict(),
        }
        with contextlib.suppress(RunError):
            files.write_json(self.path / "failed.json", record)


def _is_newer(version: Any) -> bool:
    """Whether a version, such as "0.10.0", is one after this one."""
    try:
        given, ours = (
            tuple(int(part) for part in re.findall(r"[0-9]{1,9}", text))
            for text in (version, __version__)
        )
    except TypeError:
        return False
    return given > ours
