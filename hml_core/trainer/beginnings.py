"""Beginnings on disk: what a run leaves for those that part from it, while a sweep is under way.

``<runs_root>/.beginnings/<key>.pt`` holds the state of a training at the end of an epoch after which
runs part (:mod:`hml_core.trainer.branches`). Whichever of them gets there first writes it, the others
wait for that one as for a busy run, and the last sweep to leave the folder removes what is in it.
"""

from __future__ import annotations

import contextlib
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hml_core import __version__
from hml_core.errors import RunBusyError, RunError
from hml_core.system import files, locks, states
from hml_core.trainer.branches import Point

FOLDER = ".beginnings"
_SWEEPS = "sweep-"
_DOOR = "sweeps"  # the lock of who begins or ends one
_LONGEST_AT_THE_DOOR_S = 60.0
# States, locks and their notes, whole or half-written.
_OURS = re.compile(rf"\.?(sweep-)?[0-9a-f]{{32}}\.(pt|lock|json)({files.HALF_WRITTEN})?")


class Beginnings:
    """The beginnings below a ``runs_root``, as one run sees them.

    Parameters
    ----------
    runs_root : str or Path
    points : sequence of Point
        Where others part from the run, in the order of their epochs.

    Attributes
    ----------
    promised : dict of int to Point
        What this run is going to leave behind, by epoch; others wait for it.
    """

    def __init__(self, runs_root: str | Path, points: Sequence[Point] = ()) -> None:
        self.folder = Path(runs_root) / FOLDER
        self.points = points
        self.promised: dict[int, Point] = {}
        self._locks: dict[int, contextlib.ExitStack] = {}

    def take(self, wait: float | None) -> dict[str, Any] | None:
        """The longest beginning of the run that is there; what comes after it is promised to the others.

        Raises
        ------
        RunBusyError
            Where another process still trains the next one after ``wait`` seconds.
        """
        while True:
            found = self._longest()
            done = 0 if found is None else found["epoch"]
            try:
                self._promise([point for point in self.points if point.epoch > done], wait)
            except BaseException:
                self.release()
                raise
            if not any(self._path(point).exists() for point in self.promised.values()):
                return found
            # Another process has ended between the look and the lock, or what it wrote does not hold.
            again = self._longest()
            if again is None or again["epoch"] == done:
                return found
            self.release()

    def continue_after(self, epoch: int) -> None:
        """Promise what the run, so far by itself, will still pass and nobody else trains."""
        with contextlib.suppress(RunBusyError):
            self._promise([point for point in self.points if point.epoch > epoch], 0)

    def _promise(self, points: Sequence[Point], wait: float | None) -> None:
        # In the order of epochs, as everybody does: no two runs can wait for each other.
        for point in points:
            stack = contextlib.ExitStack()
            what = f"trains the first {point.epoch} epochs that this run shares"
            stack.enter_context(locks.held(self.folder, point.key[:32], what, wait))
            self._locks[point.epoch], self.promised[point.epoch] = stack, point

    def leave(self, epoch: int, content: dict[str, Any]) -> None:
        """Keep the promise of that epoch."""
        point = self.promised.pop(epoch)
        states.write(self._path(point), {**content, **_vouched(point)})
        self._locks.pop(epoch).close()

    def release(self) -> None:
        """Give up what is still promised."""
        for stack in self._locks.values():
            stack.close()
        self._locks.clear()
        self.promised.clear()

    def _longest(self) -> dict[str, Any] | None:
        for point in reversed(self.points):
            if self._path(point).exists():
                # A damaged one is as good as none: whatever reading it raises, the run starts earlier.
                with contextlib.suppress(Exception):
                    content = states.read(self._path(point))
                    if _vouched(point).items() <= content.items():
                        return content
        return None

    def _path(self, point: Point) -> Path:
        return self.folder / f"{point.key[:32]}.pt"


def _vouched(point: Point) -> dict[str, Any]:
    """What a beginning of that point says of itself; what another version's sweep left is none."""
    return {"key": point.key, "epoch": point.epoch, "version": __version__}


@contextlib.contextmanager
def kept(runs_root: str | Path) -> Iterator[None]:
    """Keep beginnings for the time of a sweep; the last sweep over a ``runs_root`` removes them.

    Raises
    ------
    RunError
        Where the folder of beginnings cannot be made or locked.
    """
    root = Path(runs_root)
    folder, name = root / FOLDER, f"{_SWEEPS}{uuid.uuid4().hex}"
    with contextlib.ExitStack() as own:
        # One sweep comes or goes at a time: none is to enter a folder that another is removing.
        with _alone(root):
            files.require_shared(folder)
            own.enter_context(locks.held(folder, name, "sweeps"))
        yield
        # Busy, or gone with its disk: the runs are done all the same, and the next sweep clears up.
        with contextlib.suppress(RunError, OSError), _alone(root):
            own.close()
            if not _others(folder):
                _clear(folder)


def _alone(root: Path) -> contextlib.AbstractContextManager[None]:
    return locks.held(root, _DOOR, "begins or ends a sweep", _LONGEST_AT_THE_DOOR_S)


def _clear(folder: Path) -> None:
    """Remove what sweeps have written, and the folder, unless somebody keeps something else there."""
    with contextlib.suppress(OSError):
        for place in (folder / locks.FOLDER, folder):
            for path in place.iterdir():
                if _OURS.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                    path.unlink(missing_ok=True)
            place.rmdir()


def _others(folder: Path) -> bool:
    """Whether another sweep is under way: it holds its lock. One that was killed does not."""
    for path in (folder / locks.FOLDER).glob(f"{_SWEEPS}*.lock"):
        try:
            with locks.held(folder, path.stem, "sweeps", 0):
                pass
        except RunError:  # busy, or no lock to be had: when in doubt, nothing is removed
            return True
    return False
