"""Dask: one run at a time on each worker, on this machine or on any running cluster.

A worker needs this package, the folders of the runs and of the images under the same paths, and, for
GPUs, the resource ``GPU=1``. What it yields travels through the run records; Dask only carries the
configurations there and the outcomes back. A worker that dies has its run continued by another.

Whoever can speak to a scheduler or to a worker runs code there. The clusters that are started here speak
only TLS, with a certificate that is made for the sweep and known to its processes alone, and serve no
dashboard. Of a cluster that somebody else started (``dask:tcp://``), that one decides who reaches it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hml_core.config import RunConfig
from hml_core.engines.dask_cluster import (
    GPU,
    client_of,
    connected,
    gone,
    told_of_workers,
    without_workers,
)
from hml_core.engines.jobs import BUSY_WAIT_S, Outcome, Place, attempt
from hml_core.engines.travel import Bundle, installed, known_here, pack, require_same
from hml_core.errors import ConfigError, RunError
from hml_core.runs import RunFolder
from hml_core.system import devices, interruptions, limits, processes, scratch

DEATHS = 3  # of workers, while they trained one run that came no further: then it is given up
KILLED = "killed"  # how a run ended whose workers died, or those that it was to wait on
BEGUN = "hml-begun"  # what workers tell the scheduler of, by the key of the task
POLL_S = 0.05
SETTINGS = {
    "distributed.scheduler.allowed-failures": DEATHS - 1,
    "distributed.worker.daemon": False,  # a run may start DataLoader workers of its own
    # Pages on what is going on, which anybody on the machine could read.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
# Of a worker that died Dask waits 15 s for the next one, and then starts no other in its place; but on a
# busy machine one takes longer to import torch. (The time until all are given up is `GONE_S`.)
FOLLOWED = {"distributed.deploy.lost-worker-timeout": "1 day"}
# Dask always opens a port for such pages; without routes it has none to give.
NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
_one_run = threading.Lock()  # torch's global generator and thread count belong to one run at a time


def local(configs: Sequence[RunConfig], place: Place) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train in processes of this machine: one for each GPU, or as many as the cores have room for."""
    import dask
    from distributed import LocalCluster, Security

    with_gpu = devices.resolve(place.device).type == "cuda"
    if multiprocessing.current_process().daemon:
        raise RunError(
            "The engine 'dask' starts processes, and this one (a worker of a pool) may not have "
            "any: expected the engine 'serial' here, or the sweep outside of the pool."
        )
    limits.require_files(limits.SEVERAL_PROCESSES, "the engine 'dask'")
    limits.require_threads(limits.THREADS, "the engine 'dask'")
    limits.require_semaphores("the engine 'dask'")
    limits.require_loopback("the engine 'dask'")
    workers = room(place.threads)
    if with_gpu:
        workers = 1 if _is_pinned(place.device) else torch.cuda.device_count()
    with contextlib.ExitStack() as stack:

        def start() -> Any:
            # Somebody's configuration, for clusters of another purpose, may give workers a lifetime, or
            # have a scheduler end that is idle: a sweep would wait for ever.
            usual = shipped("distributed", "distributed.yaml")
            stack.enter_context(dask.config.set({**usual, **SETTINGS, **FOLLOWED}))
            stack.enter_context(processes.only_installed_modules())
            stack.enter_context(own_folder())
            cluster = LocalCluster(
                n_workers=min(workers, len(configs)),
                threads_per_worker=1,
                memory_limit=0,  # a run is never killed for its memory; the system would
                resources=GPU if with_gpu else None,
                security=Security.temporary(),  # of processes on both ends, in memory only
                scheduler_kwargs=NO_DASHBOARD,
                silence_logs="CRITICAL",
            )
            stack.enter_context(cluster)
            return stack.enter_context(client_of(cluster))

        try:
            # One that is left half started, or half closed, shows tracebacks, and its workers abort.
            with interruptions.delayed():
                client = _started(start)
            yield from submit(client, configs, place, GPU if with_gpu else None)
        finally:
            with interruptions.delayed():
                stack.close()


@functools.cache
def shipped(package: str, file: str) -> dict[str, Any]:
    """The settings that come with a package of Dask's, whatever anybody's configuration says."""
    import dask

    folder = Path(importlib.import_module(package).__file__).parent
    return next(iter(dask.config.collect_yaml([str(folder / file)])))


@contextlib.contextmanager
def own_folder() -> Iterator[None]:
    """Inside the block Dask's servers keep their files in a folder that nobody else can write to.

    They import from there first. Dask's own choice is ``dask-scratch-space`` where temporary files go,
    whoever made that folder.

    Raises
    ------
    RunError
        Where its path cannot be sent as text.
    """
    import dask

    limits.require_text(tempfile.gettempdir(), "TMPDIR", "Dask")
    with scratch.folder() as own, dask.config.set({"temporary-directory": str(own)}):
        try:
            yield
        finally:
            sys.path[:] = [entry for entry in sys.path if own not in Path(entry).parents]


def _started(start: Callable[[], Any]) -> Any:
    """What ``start`` gives; RunError with the reason where processes do not come up."""
    try:
        return start()
    except (RuntimeError, OSError) as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # Dask's own tell but that something failed
            reason = reason.__cause__
        raise RunError(
            f"The processes of the engine 'dask' do not start: {reason or type(reason).__name__}"
        ) from error


def room(threads: int | None) -> int:
    """Runs of so many threads that the cores have room for, at least one."""
    return max(limits.usable_cores() // (threads or torch.get_num_threads()), 1)


def remote(
    address: str, configs: Sequence[RunConfig], place: Place
) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train on the workers of the cluster whose scheduler listens at ``address``.

    Raises
    ------
    RunError
        Where nobody answers, there is no worker, or a worker does not see the results folder.
    """
    with connected(address, place) as (client, resources):
        yield from submit(client, configs, place, resources, told_of_workers(client))


def submit(
    client: Any,
    configs: Sequence[RunConfig],
    place: Place,
    resources: dict[str, int] | None,
    hopeless: Callable[[], str | None] | None = None,
) -> Iterator[tuple[RunConfig, Outcome]]:
    """Hand the runs to the workers of ``client`` in the order given; yields them as they end.

    Raises
    ------
    RunError
        Where the scheduler is gone, or with the reason that ``hopeless`` gives: it is asked while nothing
        ends (by default :func:`without_workers`).
    """
    from distributed import as_completed
    from distributed.client import FutureCancelledError

    hopeless = without_workers(client) if hopeless is None else hopeless
    here, bundles = [], {}
    for config in configs:
        try:
            pack(config)
            here.append(config)
        except ConfigError as error:  # one that cannot travel is its own failure
            yield config, Outcome("failed", str(error), traceback.format_exc())
    travelling = {config.run_id for config in here}
    for config in here:
        views = [view for point in place.points.get(config.run_id, ()) for view in point.views]
        parting = [view for view in views if view.run_id in travelling]
        bundles[config.run_id] = pack(config, parting)

    def start(config: RunConfig, wait: float) -> Any:
        return client.submit(
            _in_turn, work, config, place.of(config), bundles[config.run_id], wait, resources=resources,
            pure=False, key=f"{config.run_id}-{uuid.uuid4().hex[:8]}", priority=-int(wait > 0),
        )  # fmt: skip

    reached = {config.run_id: RunFolder.reached(place.runs_root, config) for config in here}
    deaths = dict.fromkeys(reached, 0)  # since it came further
    stirred = dict.fromkeys(reached, 0.0)  # when a worker began any run, the last that was known

    def may_go_on(key: str, config: RunConfig) -> bool:
        """Whether a run whose workers died came further, or was not at work when too many of them did.

        (Dask hands runs to workers before these have the time, and counts such deaths, too. Where no
        worker has begun anything since, they die before they can.)
        """
        run_id, before = config.run_id, reached[config.run_id]
        reached[run_id] = RunFolder.reached(place.runs_root, config)
        events = [(0.0, ""), *client.get_events(BEGUN)]
        begun = sum(told == key for _, told in events)
        is_dead, stirred[run_id] = events[-1][0] == stirred[run_id], events[-1][0]
        more = DEATHS if is_dead else begun
        deaths[run_id] = 0 if reached[run_id] != before else deaths[run_id] + more
        return deaths[run_id] < DEATHS

    running = {(future := start(config, 0.0)).key: (future, config) for config in here}
    ended = as_completed([future for future, _ in running.values()], loop=client.loop)
    try:
        for future in _as_long_as(hopeless, ended):
            _, config = running.pop(future.key)
            outcome = _outcome_of(future)
            if outcome.status == "busy":  # another sweep is at it: look again later
                again = start(config, BUSY_WAIT_S)
            elif outcome.status == KILLED and may_go_on(future.key, config):
                again = start(config, 0.0)  # jobs are shorter than the runs, or taken away
            else:
                status = "failed" if outcome.status == KILLED else outcome.status
                yield config, replace(outcome, status=status)
                continue
            running[again.key] = (again, config)
            ended.add(again)
    except (FutureCancelledError, OSError) as error:
        raise gone(error) from error
    finally:
        if running:  # interrupted
            with contextlib.suppress(Exception):
                client.cancel([future for future, _ in running.values()], force=True)


def _as_long_as(hopeless: Callable[[], str | None], ended: Any) -> Iterator[Any]:
    """The futures as they end; an error once there is no hope that another one will."""
    while not ended.is_empty():
        while not ended.has_ready():
            if (reason := hopeless()) is not None:
                raise RunError(reason)
            time.sleep(POLL_S)
        yield next(ended)


def _outcome_of(future: Any) -> Outcome:
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except FutureCancelledError:
        raise
    except KilledWorker as error:
        return Outcome(
            KILLED,
            f"{error.allowed_failures + 1} workers died with this run, and it came to no further "
            f"checkpoint; the last: {error.last_worker}",
        )
    except Exception as error:  # the worker could not even begin
        return Outcome("failed", f"The worker could not take the run: {error!r}")


def work(config: RunConfig, place: Place, bundle: Bundle, wait: float) -> Outcome:
    """On a worker: train one run; its only trace is the record."""
    try:
        with installed(bundle):
            require_same(bundle, config)
            points = {config.run_id: known_here(place.points.get(config.run_id, ()))}
            where = replace(place, device=_device_here(place.device), points=points)
            return attempt(config, where, wait=wait)
    except Exception as error:  # the run could not begin: the others go on
        return Outcome("failed", str(error), traceback.format_exc())


def _in_turn(task: Callable[..., Outcome], *arguments: Any) -> Outcome:
    """On a worker: one task at a time, of which the scheduler knows before it begins."""
    from distributed import get_worker
    from distributed.utils import sync

    with _one_run:
        worker = get_worker()
        told = functools.partial(
            worker.scheduler.log_event, topic=BEGUN, msg=worker.get_current_task()
        )
        with contextlib.suppress(OSError):  # a scheduler that is gone: so is the worker, soon
            sync(worker.loop, told)
        return task(*arguments)


def _device_here(device: str) -> str:
    """This worker's GPU: the workers of a local cluster have numbers and share the visible ones."""
    from distributed import get_worker

    number, found = get_worker().name, torch.cuda.device_count()
    if _is_pinned(device) or device == "cpu" or found < 2 or not isinstance(number, int):
        return device
    return f"cuda:{number % found}"


def _is_pinned(device: str) -> bool:
    """Whether the user named one GPU, as in "cuda:1"."""
    return device.startswith("cuda:")
