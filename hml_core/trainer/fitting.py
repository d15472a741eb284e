"""One training run: found finished, resumed or trained, step by step, and recorded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.runs import Run, RunFolder, environment
from hml_core.system import devices
from hml_core.system.progress import Progress
from hml_core.trainer.beginnings import Beginnings
from hml_core.trainer.branches import Point
from hml_core.trainer.epochs import micro_batches
from hml_core.trainer.loop import NonFiniteLossError, Trainer
from hml_core.trainer.world import ALONE, World

__all__ = ["NonFiniteLossError", "Trainer", "exhaust", "fit", "training"]

# An epoch of a tiny data set takes less than writing its checkpoint; then at most one a second.
CHECKPOINT_INTERVAL_S = 1.0
CHECKPOINT_STEPS = 1000  # within an epoch
# What a checkpoint that does not fit the run makes the trainer raise.
UNFIT = (RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError)

Result = TypeVar("Result")


def fit(
    config: RunConfig,
    *,
    data_root: str | Path | None = None,
    runs_root: str | Path = "results/runs",
    device: str | torch.device = "auto",
    progress: bool = True,
    wait: float | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    world: World = ALONE,
) -> Run:
    """Train the run that ``config`` describes, or find it finished, or go on where it was killed.

    Parameters
    ----------
    config : RunConfig
    data_root : path, optional
        Folder of the data set's files, where it has any.
    runs_root : path
        The run is recorded in ``<runs_root>/<run_id>/``.
    device : str
        "auto", "cpu", "cuda" or "cuda:<number>".
    progress : bool
        Show the epochs go by.
    wait : float, optional
        Seconds to wait for another process that works on the same run; default: until it is done.
    checkpoint_steps : int
        Steps after which a checkpoint is written within an epoch, besides the one at its end.
    world : World
        The processes that train the run together (see :mod:`hml_core.trainer.world`); each of them
        calls this function.

    Returns
    -------
    Run

    Raises
    ------
    RunBusyError
        Another process still works on the run after ``wait`` seconds.
    ConfigError, DeviceError, DataError, RunError
        Before anything is trained or written: a device that is not there, missing or unusable data, a
        results folder that cannot be written to, a batch that the processes cannot share. One process's
        error is every process's.
    NonFiniteLossError
        With epoch, step and config; the run is recorded as failed.
    """
    return exhaust(
        training(
            config,
            data_root=data_root,
            runs_root=runs_root,
            device=device,
            progress=progress,
            wait=wait,
            checkpoint_steps=checkpoint_steps,
            world=world,
        )
    )


def exhaust(steps: Generator[None, None, Result]) -> Result:
    """Go through all steps; what the generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def training(
    config: RunConfig,
    *,
    data_root: str | Path | None = None,
    runs_root: str | Path = "results/runs",
    device: str | torch.device = "auto",
    progress: bool = True,
    wait: float | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    world: World = ALONE,
    points: Sequence[Point] = (),
) -> Generator[None, None, Run]:
    """:func:`fit` step by step: a generator that rests after every step and returns the run.

    It leaves no trace in torch's settings while it rests, so that several can take turns. At ``points``
    (:func:`hml_core.trainer.branches.plan`) other runs part from this one: it starts from the beginning
    that one of them left there, or leaves its own.
    """
    with world.together():
        where = devices.resolve(device)
        micro_batches(config, world)
        if isinstance(checkpoint_steps, bool) or checkpoint_steps < 1:
            raise ConfigError(f"Expected `checkpoint_steps` ≥ 1, got {checkpoint_steps!r}.")
    _require_same_options(config, checkpoint_steps, world)
    devices.keep_freed_memory()
    recorder = _Recorder(
        config, data_root, runs_root, where, progress, checkpoint_steps, world, points
    )
    with contextlib.closing(recorder.training(wait)) as steps:
        while True:
            with devices.current(where), devices.algorithms(config.deterministic):
                try:
                    next(steps)
                except StopIteration as stop:
                    return stop.value
            yield


class _Recorder:
    """A run between its record and its trainer. Only the first process reads and writes the record."""

    def __init__(
        self,
        config: RunConfig,
        data_root: str | Path | None,
        runs_root: str | Path,
        device: torch.device,
        progress: bool,
        checkpoint_steps: int,
        world: World,
        points: Sequence[Point],
    ) -> None:
        self.points, self.beginnings = points, Beginnings(runs_root, points)
        self.config, self.data_root, self.runs_root = config, data_root, runs_root
        self.device, self.world = device, world
        self.progress = progress and world.is_first
        self.checkpoint_steps = checkpoint_steps

    def training(self, wait: float | None) -> Generator[None, None, Run]:
        """The whole way, resting after every step."""
        folder = self.world.from_first(lambda: RunFolder(self.runs_root, self.config))
        with contextlib.ExitStack() as held:
            with self.world.together():
                if self.world.is_first:
                    held.enter_context(folder.locked(wait))
            done = self.world.from_first(folder.finished)
            if done is not None:
                made_from = self.world.from_first(lambda: done.manifest["sha256"])
                with self.world.together():
                    self._require_images(made_from)
                return done
            held.callback(self.beginnings.release)
            beginning = self.world.from_first(lambda: self._take_beginning(folder, wait))
            trainer = self._begin(folder, beginning)
            del beginning
            try:
                return (yield from self._run_to_end(trainer, folder))
            except Exception as error:
                if self.world.is_first:
                    cause = self.world.cause(error)
                    folder.fail(cause, resumable=not isinstance(cause, NonFiniteLossError))
                raise

    def _require_images(self, made_from: str) -> None:
        """A config names a data set, not its files: refuse a record made from other images.

        Without the files there is nothing to compare, and the record stands.
        """
        try:
            splits = datasets.load(self.config, self.data_root)
        except DataError:
            return
        if splits.manifest()["sha256"] != made_from:
            raise RunError(
                f"The run {self.config.run_id} was made from other images than those in "
                f"{str(self.data_root)!r}: expected another `runs_root` for other data."
            )

    def _take_beginning(self, folder: RunFolder, wait: float | None) -> dict[str, Any] | None:
        """What another run has trained already of this one, if this one has not begun."""
        if not self.points or folder.has_begun(self.runs_root, self.config):
            return None
        return self.beginnings.take(wait)

    def _begin(self, folder: RunFolder, beginning: dict[str, Any] | None) -> Trainer:
        """A trainer where the run stands."""
        config, world = self.config, self.world
        with world.together():
            splits = datasets.load(config, self.data_root)
            manifest = splits.manifest()
            trainer = Trainer(config, splits, self.device, world, self.points)
        if len(set(world.all(manifest["sha256"]))) > 1:
            raise RunError(
                f"The processes see different images in {str(self.data_root)!r}: expected the same "
                "`data_root` on every host."
            )
        record = environment.describe(self.device, trainer.autocast_dtype, world.size)
        checkpoint = world.from_first(lambda: folder.begin(record, manifest))
        self.images = manifest["sha256"]
        if checkpoint is None:
            return self._branched_off(trainer, beginning)
        unfit: str | None = None
        with world.together():
            try:
                trainer.restore(checkpoint)
            except torch.OutOfMemoryError:
                raise
            except UNFIT as error:
                unfit = str(error)
        if any(found := world.all(unfit)):
            reason = next(filter(None, found))
            trainer = Trainer(config, splits, self.device, world, self.points)

            def anew() -> None:
                folder.set_aside(
                    f"The checkpoint of the run {config.run_id} is unusable ({reason})."
                )
                folder.begin(record, manifest)

            world.from_first(anew)
        if world.is_first:
            self.beginnings.continue_after(trainer.epoch)
        return trainer

    def _branched_off(self, trainer: Trainer, beginning: dict[str, Any] | None) -> Trainer:
        """The trainer at the end of a beginning, or as it is where that is none of this run's."""
        if beginning is None or beginning["images"] != self.images:
            return trainer
        unfit = False
        with self.world.together():
            try:
                trainer.branch_off(beginning)
            except torch.OutOfMemoryError:
                raise
            except UNFIT:
                unfit = True
        if any(self.world.all(unfit)):
            return Trainer(self.config, trainer.splits, self.device, self.world, self.points)
        return trainer

    def _run_to_end(self, trainer: Trainer, folder: RunFolder) -> Generator[None, None, Run]:
        last = time.monotonic()
        # Epochs of small images are short, those of files may take an hour.
        by_step = isinstance(trainer.splits.train, LabelledFiles)
        number, unit = (trainer.steps, "steps") if by_step else (1, "epochs")
        bar = Progress(
            self.config.epochs * number,
            self.config.run_id,
            enabled=self.progress,
            initial=trainer.epoch * number + (trainer.step_of_epoch if by_step else 0),
            unit=unit,
        )
        with bar:
            while not trainer.done:
                for _ in trainer.train_epoch():
                    if by_step:
                        bar.update(trainer.headline())
                    if trainer.step_of_epoch % self.checkpoint_steps == 0:
                        self._checkpoint(trainer, folder)
                        last = time.monotonic()
                    yield
                trainer.end_epoch()
                if self.world.from_first(lambda: trainer.epoch in self.beginnings.promised):
                    self._leave_beginning(trainer)
                if not by_step:
                    bar.update(trainer.headline())
                due = time.monotonic() - last >= CHECKPOINT_INTERVAL_S
                if self.world.from_first(lambda due=due: due):
                    self._checkpoint(trainer, folder)
                    last = time.monotonic()
        results, arrays = trainer.results(), trainer.arrays()

        def finish() -> Run:
            folder.write_history(trainer.history)
            return folder.finish(results, arrays)

        return self.world.from_first(finish)

    def _leave_beginning(self, trainer: Trainer) -> None:
        content = {"images": self.images, **trainer.beginning()}
        self.world.from_first(lambda: self.beginnings.leave(trainer.epoch, content))

    def _checkpoint(self, trainer: Trainer, folder: RunFolder) -> None:
        state = trainer.state()

        def write() -> None:
            folder.checkpoint(state)
            folder.write_history(trainer.history)

        self.world.from_first(write)


def _require_same_options(config: RunConfig, checkpoint_steps: int, world: World) -> None:
    """On several hosts people type the same command several times."""
    told = world.all({**config.to_dict(), "checkpoint_steps": checkpoint_steps})
    for rank, other in enumerate(told):
        for name, value in other.items():
            if value != told[0][name]:
                raise ConfigError(
                    f"Expected the same options for every process: `{name}` is {told[0][name]!r} for "
                    f"process 0 and {value!r} for process {rank}."
                )
