"""One training run: found finished, resumed or trained, step by step, and recorded."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from hml_core import datasets
from hml_core.config import RunConfig, identity
from hml_core.errors import (
    ConfigError,
    DataError,
    HmlError,
    RunError,
    never_left,
    raised_by_handler,
)
from hml_core.models import IMAGENET_MODELS
from hml_core.runs import Run, kept_weights
from hml_core.system import devices, interruptions, limits, paths, quantities, seeds, sources
from hml_core.trainer import handed_over
from hml_core.trainer.branches import Point
from hml_core.trainer.epochs import micro_batches
from hml_core.trainer.loop import NonFiniteLossError, Trainer, train
from hml_core.trainer.recorder import Recorder
from hml_core.trainer.views import branch_off
from hml_core.trainer.world import ALONE, World

__all__ = ["NonFiniteLossError", "Trainer", "exhaust", "fit", "training"]

# An epoch of a tiny data set takes less than writing its checkpoint; then at most one a second.
CHECKPOINT_INTERVAL_S = 1.0
CHECKPOINT_STEPS = 1000  # within an epoch
# What a checkpoint that does not fit the run makes the trainer raise.
UNFIT = (RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError)

Result = TypeVar("Result")


@interruptions.after_imports()
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
    keep_weights: str | None = None,
    retrain: bool = False,
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
    keep_weights : {"last", "best"}, optional
        Keep the network after the last epoch, or at the best one on validation, beside the record
        (:meth:`hml_core.runs.Run.model`). It changes nothing else of a run.
    retrain : bool
        Where the run is finished, or so far that its best epoch is over, without the weights that are
        asked for: train it again. Its record is moved to ``<runs_root>/.replaced/`` first.

    Returns
    -------
    Run

    Raises
    ------
    RunBusyError
        Another process still works on the run after ``wait`` seconds.
    ConfigError, DeviceError, DataError, RunError
        Before anything is trained or written: a device that is not there, missing or unusable data, a
        results folder that cannot be written to, a batch that the processes cannot share, weights that
        cannot be kept or were not. One process's error is every process's.
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
            keep_weights=keep_weights,
            retrain=retrain,
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
    keep_weights: str | None = None,
    retrain: bool = False,
) -> Generator[None, None, Run]:
    """:func:`fit` step by step: a generator that rests after every step and returns the run.

    It leaves no trace in torch's settings while it rests, so that several can take turns. At ``points``
    (:func:`hml_core.trainer.branches.plan`) other runs part from this one: it starts from the beginning
    that one of them left there, or leaves its own.
    """
    with world.together():
        limits.require_address_space(limits.TO_TRAIN, "training")
        where = devices.resolve(device)
        runs_root = paths.named(runs_root, "`runs_root`")
        if data_root is not None:
            data_root = paths.named(data_root, "`data_root`")
        run_id = config.run_id  # its code may change it
        _require_lasting(config, run_id)
        micro_batches(config, world)
        checkpoint_steps = quantities.whole(checkpoint_steps, "`checkpoint_steps`", high=10**9)
        if wait is not None:
            wait = quantities.seconds(wait, "`wait`", may_be_zero=True)
        require_keeping(keep_weights, retrain)
    wishes = {
        "checkpoint_steps": checkpoint_steps,
        "keep_weights": keep_weights,
        "retrain": retrain,
    }
    world.require_same({**config.to_dict(), **wishes})
    devices.keep_freed_memory()
    is_whole = functools.partial(never_left, f"The run {config.run_id}")
    with is_whole():
        recorder = Recorder(
            config,
            runs_root,
            world,
            points,
            checkpoint_steps=checkpoint_steps,
            interval=CHECKPOINT_INTERVAL_S,
            progress=progress,
        )
        with contextlib.ExitStack() as stack:
            with seeds.others_turn():
                stack.enter_context(recorder.held(wait))
            settings = stack.enter_context(_Settings(where, config))
            if (done := recorder.finished()) is not None:
                made_from = recorder.images_of(done)
                is_enough = keep_weights is None or recorder.keeps(done, keep_weights)
                with world.together():
                    _require_images(config, data_root, made_from)
                    if not is_enough and not retrain:
                        raise kept_weights.not_kept(
                            config.run_id, done.path, done.metrics, keep_weights
                        )
                if is_enough:
                    if world.is_first:
                        _tell_of_its_beginning(done)
                    return done
            with seeds.others_turn():
                beginning = recorder.beginning(wait)
            with world.together():
                splits = _loaded(config, data_root)
                handed_over.check(config, splits)
                manifest = splits.manifest()
                trainer = Trainer(config, splits, where, world, points, keep_weights)
                # A data set may keep what it loads in its module.
                _require_lasting(config, run_id)
            if done is not None:
                recorder.replace()
            trainer = _where_it_stands(trainer, manifest, beginning, recorder, data_root, retrain)
            with recorder.watching(trainer), _own_faults(config), is_whole():
                for _ in train(trainer, recorder):
                    with settings.aside():
                        yield
                _require_lasting(config, run_id)
                return recorder.finish(trainer)


@contextlib.contextmanager
def _own_faults(config: RunConfig) -> Iterator[None]:
    """What somebody's own code raises while a run is trained is told with its place; RunError."""
    try:
        yield
    except (HmlError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever that may be
        is_own = identity.used(config) and sources.own_place(error)
        if not is_own or raised_by_handler(error):
            raise
        raise RunError(
            f"The run {config.run_id} failed in its own code: {sources.told(error)}"
        ) from error


def _tell_of_its_beginning(done: Run) -> None:
    """What a run that could not reach its weights said when it was trained: they may be there now."""
    if why := done.metrics.get("initialisation", {}).get("why"):
        warnings.warn(
            f"The run {done.run_id} was found finished; it started at random ({why}): remove its folder "
            "to train it from those weights.",
            stacklevel=3,
        )


def require_keeping(keep_weights: str | None, retrain: bool) -> None:
    """Wishes about weights that can be met.

    Raises
    ------
    ConfigError
    """
    kept_weights.require_choice(keep_weights)
    quantities.truth(retrain, "`retrain`")
    if retrain and keep_weights is None:
        raise ConfigError(
            "`retrain` trains finished runs again whose weights were not kept: expected `keep_weights` "
            "with it, got None."
        )


def _require_lasting(config: RunConfig, run_id: str) -> None:
    """What the record will say of the run is what is trained: its config, read again, is the same run."""
    if RunConfig.from_json(config.to_json()).run_id != run_id:
        raise ConfigError(
            f"The config of {run_id} would be read as another run: what it names has been "
            "registered anew, or has changed, since it was made. Expected it to be made again, and code "
            "that changes nothing of its own while it trains."
        )


class _Settings:
    """What torch is set to while a run computes, and not while others have their turn.

    Runs of several threads of this process take turns, too; what waits for another run stands aside.
    """

    def __init__(self, device: torch.device, config: RunConfig) -> None:
        self.device, self.deterministic = device, config.deterministic
        self.search = config.model not in IMAGENET_MODELS
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> _Settings:
        with contextlib.ExitStack() as stack:
            stack.enter_context(seeds.taken())
            stack.enter_context(devices.current(self.device))
            stack.enter_context(devices.algorithms(self.deterministic, search=self.search))
            stack.enter_context(devices.plain_numbers())
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            seeds.holding.parts.append(self)
            stack.callback(seeds.holding.parts.remove, self)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.close()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Inside the block torch is set as it was before."""
        self.stack.close()
        try:
            yield
        finally:
            self.__enter__()


def _loaded(config: RunConfig, data_root: str | Path | None) -> datasets.Splits:
    """The images. Meanwhile others may have the generators; a loader of one's own lends them by itself."""
    is_built_in = datasets.is_built_in(config.dataset)
    with seeds.lending() if is_built_in else contextlib.nullcontext():
        return datasets.load(config, data_root)


def _require_images(config: RunConfig, data_root: str | Path | None, made_from: str) -> None:
    """A config names a data set, not its files: refuse a record made from other images.

    Without the files there is nothing to compare, and the record stands.
    """
    try:
        splits = _loaded(config, data_root)
    except DataError:
        return
    if splits.manifest()["sha256"] != made_from:
        these = "there are now" if data_root is None else f"those in {str(data_root)!r}"
        raise RunError(
            f"The run {config.run_id} was made from other images than {these}: expected another "
            "`runs_root` for other data."
        )


def _where_it_stands(
    trainer: Trainer,
    manifest: dict[str, Any],
    beginning: dict[str, Any] | None,
    recorder: Recorder,
    data_root: str | Path | None,
    retrain: bool,
) -> Trainer:
    """The trainer at the run's checkpoint, where another run left it, or at epoch 0."""
    world = trainer.world
    if len(set(world.all(manifest["sha256"]))) > 1:
        raise RunError(
            f"The processes see different images in {str(data_root)!r}: expected the same "
            "`data_root` on every host."
        )
    checkpoint, unfit = recorder.begin(trainer, manifest), None
    if checkpoint is not None:
        unfit = _unfit(lambda: trainer.restore(checkpoint), world)
        if unfit is None and (unfit := trainer.lost_weights()) and not retrain:
            raise RunError(
                f"The run {trainer.config.run_id} was begun otherwise, and {unfit}: expected `retrain` "
                "(`--retrain`), which begins it anew, or another `keep_weights` than "
                f"{trainer.keep_weights!r}."
            )
        if unfit is not None:
            recorder.begin_anew(unfit)
    elif beginning is not None and beginning["images"] == manifest["sha256"]:
        unfit = _unfit(lambda: branch_off(trainer, beginning), world) or trainer.lost_weights()
    if unfit is not None:
        before = trainer
        trainer = Trainer(
            before.config, before.splits, before.device, world, before.points, before.keep_weights
        )
    trainer.keep_what_is_there()
    if checkpoint is not None:
        recorder.continue_after(trainer.epoch)
    return trainer


def _unfit(go_on: Callable[[], None], world: World) -> str | None:
    """Why a process cannot go on from a stored state; None where all have."""
    reason = None
    with world.together():
        try:
            go_on()
        except torch.OutOfMemoryError:
            raise
        except UNFIT as error:
            reason = str(error)
    return world.any_of(reason)
