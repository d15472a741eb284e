"""One run of a sweep, wherever it happens: what it needs to know, and how it ended."""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hml_core.config import RunConfig
from hml_core.errors import ConfigError, HmlError, RunBusyError, RunError, raised_by_handler
from hml_core.runs import Run, RunFolder, kept_weights
from hml_core.system import devices, interruptions, sources
from hml_core.trainer import exhaust, training
from hml_core.trainer.branches import Point

BUSY_WAIT_S = 5.0  # how long a run that another process works on is waited for at a time


@dataclass(frozen=True)
class Place:
    """Where runs read, write and compute.

    Parameters
    ----------
    runs_root : Path
    data_root : Path, optional
    device : str
        As for :func:`hml_core.trainer.fit`.
    threads : int, optional
        CPU threads of a run; None: as many as torch uses now.
    points : mapping
        Where runs part from each other, by run_id: see :func:`hml_core.trainer.branches.plan`.
    keep_weights, retrain
        As for :func:`hml_core.trainer.fit`.
    """

    runs_root: Path
    data_root: Path | None = None
    device: str = "auto"
    threads: int | None = 1
    points: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    keep_weights: str | None = None
    retrain: bool = False

    def of(self, config: RunConfig) -> Place:
        """What one run needs to know, which may travel to another process."""
        own = {config.run_id: self.points.get(config.run_id, ())}
        return replace(self, points=own)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "done", "failed", or "busy" where another process works on it."""

    status: str
    error: str | None = None
    traceback: str | None = None
    is_told: bool = False  # by its error alone, which says what is to be done

    @property
    def message(self) -> str:
        """What a terminal shows of one that failed."""
        return (self.error if self.is_told else self.traceback or self.error) or ""


def attempt(config: RunConfig, place: Place, *, wait: float | None = None) -> Outcome:
    """Train one run into its record; an error of its own is an outcome, so that a sweep goes on."""
    with cpu_threads(place.threads):
        return exhaust(attempting(config, place, wait=wait))


def attempting(
    config: RunConfig, place: Place, *, wait: float | None = None
) -> Generator[None, None, Outcome]:
    """:func:`attempt` step by step, with as many CPU threads as torch is set to."""
    interruptions.heed()
    try:
        yield from training(
            config,
            data_root=place.data_root,
            runs_root=place.runs_root,
            device=place.device,
            progress=False,
            wait=wait,
            points=place.points.get(config.run_id, ()),
            keep_weights=place.keep_weights,
            retrain=place.retrain,
        )
    except RunBusyError as error:
        return Outcome("busy", str(error))
    except Exception as error:  # whatever it was, the other runs must go on
        interruptions.heed()
        if raised_by_handler(error):  # the program's own time limit, say
            raise
        is_told = isinstance(error, HmlError) and not sources.own_place(error)
        return Outcome("failed", str(error), traceback.format_exc(), is_told)
    return Outcome("done")


def in_turn(
    configs: Sequence[RunConfig], attempt_one: Callable[[RunConfig, float], Outcome]
) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train in the order given; a run that another process works on comes up again at the end.

    ``attempt_one`` gets a config and the seconds to wait for such a process.
    """
    pending = deque((config, 0.0) for config in configs)
    while pending:
        config, wait = pending.popleft()
        outcome = attempt_one(config, wait)
        if outcome.status == "busy":
            pending.append((config, BUSY_WAIT_S))
        else:
            yield config, outcome


@contextlib.contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Let torch compute with ``number`` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    devices.heed_fork()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def finished(config: RunConfig, runs_root: Path) -> Run | None:
    """The run where it is on disk, whole."""
    try:
        run = Run(runs_root / config.run_id).verify()
    except RunError:
        return None
    return run if run.config == config else None


def is_finished(config: RunConfig, place: Place) -> bool:
    """Whether the run is on disk, whole, with the weights that are asked for."""
    run = finished(config, place.runs_root)
    return run is not None and (place.keep_weights is None or run.keeps(place.keep_weights))


def require_weights(configs: Sequence[RunConfig], place: Place) -> None:
    """Refuse finished runs that have not kept the weights which are asked for, before any is trained.

    Raises
    ------
    RunError
        With their number and what to do.
    """
    if place.keep_weights is None or place.retrain:
        return
    runs = [run for config in configs if (run := finished(config, place.runs_root)) is not None]
    lacking = [run for run in runs if not run.keeps(place.keep_weights)]
    if lacking:
        first = lacking[0]
        error = kept_weights.not_kept(first.run_id, first.path, first.metrics, place.keep_weights)
        raise RunError(f"Of {len(configs)} runs, {len(lacking)} lack the weights. {error}")


def begun_first(configs: Sequence[RunConfig], runs_root: Path) -> list[RunConfig]:
    """Runs that have come some way before those that may start where these will pass."""
    return sorted(configs, key=lambda config: not RunFolder.has_begun(runs_root, config))


def row(config: RunConfig, outcome: Outcome, runs_root: Path) -> dict[str, Any]:
    """A row of the sweep's frame. What a run yielded is read from its record, never passed on."""
    if outcome.status != "done":
        return without_result(config, outcome)
    try:
        return Run(runs_root / config.run_id).verify().row()
    except RunError as error:
        return without_result(config, Outcome("failed", str(error)))


def stored_row(config: RunConfig, runs_root: Path) -> dict[str, Any]:
    """The row of a finished run, published records included, or one with the status "missing"."""
    if not (runs_root / config.run_id / "metrics.json").exists():
        return without_result(config, Outcome("missing", "not found below runs_root"))
    try:
        return Run(runs_root / config.run_id).verify().row()
    except RunError as error:
        return without_result(config, Outcome("missing", str(error)))


def identity_of(config: RunConfig) -> str | None:
    """The run_id as things are registered now; None where what the config names is gone."""
    try:
        return config.run_id
    except ConfigError:
        return None


def without_result(config: RunConfig, outcome: Outcome, *, has_id: bool = True) -> dict[str, Any]:
    """The row of a run that has no record to show; ``has_id``: its config has an identity."""
    fields = {name: getattr(config, name) for name in config.to_dict()}
    return {
        "run_id": identity_of(config) if has_id else None, "status": outcome.status,
        "error": outcome.error, "traceback": outcome.traceback, **fields,
    }  # fmt: skip
