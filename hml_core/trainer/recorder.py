"""A run's record while it is trained: checkpoints, progress, what other runs begin with, and the end.

Several processes may train the run together. Only the first of them reads and writes; what it finds, or
fails with, all of them learn. Every method must be called by all of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles
from hml_core.runs import Run, RunFolder, environment
from hml_core.runs.folder import REPLACED
from hml_core.system.progress import Progress
from hml_core.trainer import views
from hml_core.trainer.beginnings import Beginnings
from hml_core.trainer.branches import Point
from hml_core.trainer.loop import NonFiniteLossError, Trainer
from hml_core.trainer.world import World

WRITING_SHARE = 0.05  # of a process's time that goes into checkpoints, at most


class Pace:
    """How often a run's checkpoint is written, so that many runs in one process do not only write.

    Runs that take turns on a GPU have an epoch in a tenth of a second and a checkpoint of 10 MB each.
    """

    def __init__(self) -> None:
        self.began, self.spent = time.monotonic(), 0.0

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Count the time that the block takes."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent += time.monotonic() - started

    def factor(self) -> float:
        """What an interval between checkpoints is to be multiplied with, at least 1."""
        elapsed = max(time.monotonic() - self.began, 1.0)
        return max(1.0, self.spent / elapsed / WRITING_SHARE)


PACE = Pace()  # of this process


class Recorder:
    """The record of one run.

    Parameters
    ----------
    config : RunConfig
    runs_root : path
    world : World
    points : sequence of Point
        Where others part from the run.
    checkpoint_steps : int
        Steps after which a checkpoint is written within an epoch.
    interval : float
        Seconds between the checkpoints of epochs that are shorter than that; longer where writing takes
        too much of the process's time (:data:`WRITING_SHARE`).
    progress : bool
    """

    def __init__(
        self,
        config: RunConfig,
        runs_root: str | Path,
        world: World,
        points: Sequence[Point],
        *,
        checkpoint_steps: int,
        interval: float,
        progress: bool,
    ) -> None:
        self.config, self.runs_root, self.points = config, runs_root, points
        self.checkpoint_steps, self.interval = checkpoint_steps, interval
        self.is_first, self.first_does, self.cause = world.is_first, world.from_first, world.cause
        self.together = world.together
        self.progress = progress and world.is_first
        self.beginnings = Beginnings(runs_root, points)
        self.folder = self.first_does(lambda: RunFolder(runs_root, config))

    @contextlib.contextmanager
    def held(self, wait: float | None) -> Iterator[None]:
        """Hold the run alone; at the end, what was promised to others and not kept is given up."""
        with contextlib.ExitStack() as held:
            with self.together():
                if self.is_first:
                    held.enter_context(self.folder.locked(wait))
            held.callback(self.beginnings.release)
            yield

    def finished(self) -> Run | None:
        """The run where it is done."""
        return self.first_does(self.folder.finished)

    def images_of(self, done: Run) -> str:
        """SHA-256 of the images that a finished run was made from."""
        return self.first_does(lambda: done.manifest["sha256"])

    def keeps(self, done: Run, which: str) -> bool:
        """Whether a finished run has those weights."""
        return self.first_does(lambda: done.keeps(which))

    def beginning(self, wait: float | None) -> dict[str, Any] | None:
        """What another run has trained already of this one, if this one has not begun."""

        def take() -> dict[str, Any] | None:
            if not self.points or self.folder.has_begun(self.runs_root, self.config):
                return None
            return self.beginnings.take(wait)

        return self.first_does(take)

    def begin(self, trainer: Trainer, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """Write what is known before training; returns the checkpoint to go on from, if any."""
        self.images = manifest["sha256"]
        self.known = (
            environment.describe(trainer.device, trainer.autocast_dtype, trainer.world.size),
            manifest,
        )
        return self.first_does(lambda: self.folder.begin(*self.known))

    def begin_anew(self, reason: str) -> None:
        """Set a checkpoint aside that the run cannot go on from."""
        self.first_does(lambda: self.folder.begin_anew(*self.known, reason))

    def replace(self) -> None:
        """Move a finished record away that has not kept the weights which are asked for."""
        run_id = self.config.run_id
        self.first_does(
            lambda: self.folder.set_aside(f"The run {run_id} has no such weights.", REPLACED)
        )

    def continue_after(self, epoch: int) -> None:
        """Promise to others what the run will still pass, see :class:`Beginnings`."""
        self.first_does(lambda: self.beginnings.continue_after(epoch))

    @contextlib.contextmanager
    def watching(self, trainer: Trainer) -> Iterator[None]:
        """Show the training go by; record why it fails, if it does."""
        # Epochs of small images are short, those of files may take an hour.
        self.by_step = isinstance(trainer.splits.train, LabelledFiles)
        number, unit = (trainer.steps, "steps") if self.by_step else (1, "epochs")
        step = 0 if trainer.current is None else trainer.current.step
        self.last = time.monotonic()
        try:
            with Progress(
                self.config.epochs * number,
                self.config.run_id,
                enabled=self.progress,
                initial=trainer.epoch * number + (step if self.by_step else 0),
                unit=unit,
            ) as self.bar:
                yield
        except Exception as error:
            if self.is_first:
                cause = self.cause(error)
                self.folder.fail(cause, resumable=not isinstance(cause, NonFiniteLossError))
            raise

    def after_step(self, trainer: Trainer) -> None:
        """A checkpoint every so many steps."""
        if self.by_step:
            self.bar.update(headline(trainer.history))
        if trainer.current.step % self.checkpoint_steps == 0:
            self._checkpoint(trainer)

    def after_epoch(self, trainer: Trainer) -> None:
        """A checkpoint, if the last one is not too fresh; what others begin with, where they part."""
        if self.first_does(lambda: trainer.epoch in self.beginnings.promised):
            content = {"images": self.images, **views.beginning(trainer)}
            self.first_does(lambda: self.beginnings.leave(trainer.epoch, content))
        if not self.by_step:
            self.bar.update(headline(trainer.history))
        if self.first_does(lambda: time.monotonic() - self.last >= self.interval * PACE.factor()):
            self._checkpoint(trainer)

    def _checkpoint(self, trainer: Trainer) -> None:
        with PACE.writing():
            state = trainer.state()

            def write() -> None:
                self.folder.checkpoint(state)
                self.folder.write_history(trainer.history)

            self.first_does(write)
        self.last = time.monotonic()

    def finish(self, trainer: Trainer) -> Run:
        """Write the results: the run is done."""
        results, arrays, weights = trainer.results(), trainer.arrays(), trainer.weights()

        def write() -> Run:
            self.folder.write_history(trainer.history)
            return self.folder.finish(results, arrays, weights)

        return self.first_does(write)


def headline(history: list[dict[str, Any]]) -> str:
    """How the last epoch went, for the progress bar."""
    if not history:
        return ""
    row = history[-1]
    shown = [f"loss {row['train_loss']:.3f}"]
    for name in ("validation_balanced_accuracy", "test_balanced_accuracy"):
        if row[name] is not None:
            shown.append(f"{name.split('_')[0]} {100 * row[name]:.1f} %")
            break
    return ", ".join(shown)
