"""Engines that turn a list of configurations into a frame of finished runs.

An engine decides where and in which order runs are trained, nothing else: every run goes through
:func:`hml_core.trainer.fit` and its record on disk, so that the frame is the same from each of them.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hml_core.config import RunConfig
from hml_core.engines import dask, dask_cluster, slurm, slurm_options
from hml_core.engines.interleave import interleave
from hml_core.engines.jobs import (
    Outcome,
    Place,
    attempt,
    begun_first,
    identity_of,
    is_finished,
    require_weights,
    row,
    stored_row,
    without_result,
)
from hml_core.engines.serial import serial
from hml_core.engines.torchrun import torchrun
from hml_core.errors import ConfigError, said
from hml_core.system import devices, files, interruptions, paths, quantities
from hml_core.system.progress import Progress
from hml_core.trainer import beginnings, branches, feeds, require_keeping

__all__ = ["ENGINES", "Engine", "check", "sweep"]

MOST_THREADS = 4096
CHANGED = (
    "What the config names was edited or registered anew while the sweep went on: this is another run "
    "now. Expected the sweep to be started again."
)
ENGINES = (
    "serial",
    "interleave:K",
    "torchrun:N",
    "dask",
    "dask:tcp://HOST:PORT",
    "slurm",
    "slurm:FILE",
)


@dataclass(frozen=True)
class Engine:
    """What trains configurations, in whichever order, and whether it does so on this machine."""

    run: Callable[[Sequence[RunConfig], Place], Iterator[tuple[RunConfig, Outcome]]]
    is_here: bool = True


def check(engine: str) -> Engine:
    """The engine of that name, with what it needs at hand.

    Raises
    ------
    ConfigError
        For an unknown name, or a Slurm file that is missing or says what cannot be.
    RunError
        For an address that is none of a Dask scheduler.
    """
    name, _, rest = engine.partition(":") if isinstance(engine, str) else (None, None, None)
    if engine == "serial":
        return Engine(serial)
    is_number = re.fullmatch("0*[1-9][0-9]{0,5}", rest or "") is not None
    if name == "interleave" and is_number:
        return Engine(partial(interleave, int(rest)))
    if name == "torchrun" and is_number:
        return Engine(partial(torchrun, int(rest)))
    if name in ("dask", "slurm"):
        _require_cluster(engine)
    if engine == "dask":
        return Engine(dask.local)
    if name == "dask" and "://" in rest:
        dask_cluster.require_address(rest)
        return Engine(partial(dask.remote, rest), is_here=False)
    if name == "slurm":
        return Engine(partial(slurm.run, slurm_options.of_engine(engine)), is_here=False)
    raise ConfigError(f"Expected `engine` to be one of {', '.join(ENGINES)}, got {engine!r}.")


def _require_cluster(engine: str) -> None:
    starts_one = "://" not in engine  # and makes certificates for it
    packages = {"distributed": "Dask"} | ({"cryptography": "cryptography"} if starts_one else {})
    for package, name in packages.items():
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"The engine {engine!r} needs {name}, which is not installed: "
                "pip install 'hml-core[cluster]'. Expected that, or another `engine`."
            )
    try:
        importlib.import_module("distributed").Security()  # which read their configuration
    except Exception as error:
        raise ConfigError(
            "Dask's configuration (`DASK_CONFIG`, `DASK_…`, ~/.config/dask) is none, so that the engine "
            f"{engine!r} does not start: {said(error)}"
        ) from error


@interruptions.handed_on()
@interruptions.after_imports()
def sweep(
    configs: Iterable[RunConfig],
    *,
    engine: str = "serial",
    data_root: str | Path | None = None,
    runs_root: str | Path = "results/runs",
    device: str | torch.device = "auto",
    progress: bool = True,
    train: bool = True,
    threads: int | None = 1,
    keep_weights: str | None = None,
    retrain: bool = False,
) -> pd.DataFrame:
    """Train every configuration; a run that is finished already is only read.

    Two sweeps over one ``runs_root`` share the work: neither trains a run that the other is at, nor
    one that is done. After an interruption the same call goes on, each run from its last checkpoint.
    What runs have in common until some epoch is trained once, with the same bits as in each alone
    (:mod:`hml_core.trainer.branches`); ``trained_epochs`` and ``branch`` among a run's metrics say by
    whom.

    Parameters
    ----------
    configs : iterable of RunConfig
        See :func:`hml_core.config.grid`.
    engine : str
        "serial": one run after the other in this process. "interleave:K": K runs at a time in this
        process, in turns of a step, which fills a GPU that one small network cannot. "torchrun:N": one run
        after the other, each on N processes of this machine, a GPU each where there are any. "dask":
        processes on this machine, one for each GPU or, without one, for every ``threads`` CPU cores.
        "dask:tcp://host:8786": the workers of a running Dask cluster. "slurm" or "slurm:FILE": jobs of a
        Slurm cluster, described by a YAML file (default ``slurm.yaml``; see
        :mod:`hml_core.engines.slurm`). Workers on other hosts must see
        ``runs_root`` and ``data_root`` under the same paths.
    data_root, runs_root, device
        As for :func:`hml_core.trainer.fit`. Where workers are elsewhere, ``device`` is theirs.
    progress : bool
        Count the runs, and print what is wrong with one that failed: our message, or the traceback.
    train : bool
        False: only read what is finished below ``runs_root``; a row that is not there has the
        ``status`` "missing". Weights are not asked for then.
    threads : int, optional
        CPU threads of a run; None: as many as torch uses now. Runs side by side are faster than threads
        within small runs, and another number rounds sums differently: engines agree to the bit, on the
        same kind of processor, at the same number.
    keep_weights, retrain
        As for :func:`hml_core.trainer.fit`.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`hml_core.runs.load`, a row for every distinct configuration in the order
        given. A run that failed is a row with ``status`` "failed", its ``error`` and ``traceback``.

    Raises
    ------
    ConfigError, DeviceError, RunError
        Before anything is trained: an unknown engine, no configuration, a device that is not there, a
        results folder that cannot be written to, a cluster that cannot be reached, finished runs that have
        not kept the weights which are asked for.
    """
    distinct, refused = {}, {}
    for config in configs:
        try:
            distinct.setdefault(config.run_id, config)
        except ConfigError as error:  # of this run alone
            refused[f"refused {len(refused)}"] = Outcome("failed", str(error))
            distinct[f"refused {len(refused) - 1}"] = config
    if not distinct:
        raise ConfigError("Expected at least one configuration to train, got none.")
    if threads is not None:
        threads = quantities.whole(threads, "`threads`", high=MOST_THREADS)
    quantities.truth(train, "`train`")
    require_keeping(keep_weights, retrain)
    chosen = check(engine)
    runs_root = paths.named(runs_root, "`runs_root`").absolute()
    known = {run_id: config for run_id, config in distinct.items() if run_id not in refused}

    def frame(row_of: Callable[[str, RunConfig], dict[str, Any]]) -> pd.DataFrame:
        return pd.DataFrame(
            [
                row_of(run_id, config)
                if run_id in known
                else without_result(config, refused[run_id], has_id=False)
                for run_id, config in distinct.items()
            ]
        )

    if data_root is not None:
        data_root = paths.named(data_root, "`data_root`").absolute()
    wishes = {"keep_weights": keep_weights, "retrain": retrain}
    place = Place(runs_root, data_root, str(device), threads, **wishes)
    if not train:
        return frame(lambda _, config: stored_row(config, runs_root))
    if chosen.is_here:
        devices.resolve(device)
    files.require_writable(runs_root)
    require_weights(list(known.values()), place)
    with beginnings.kept(runs_root), feeds.keeping_decoded():
        outcomes = _collect(known, chosen, place, progress)
    return frame(
        lambda run_id, config: {**row(config, outcomes[run_id], runs_root), "run_id": run_id}
    )


def _collect(
    configs: Mapping[str, RunConfig], engine: Engine, place: Place, progress: bool
) -> dict[str, Outcome]:
    """How each run ended, by run_id; what is finished needs no engine."""
    finished = [config for config in configs.values() if is_finished(config, place)]
    done = {id(config) for config in finished}
    pending = [config for config in configs.values() if id(config) not in done]
    # Once and for all: code of one's own that is edited or registered anew meanwhile has another identity.
    names = {id(config): run_id for run_id, config in configs.items()}
    outcomes: dict[str, Outcome] = {}
    before = {names[number] for number in done}
    failed = 0

    def everything() -> Iterator[tuple[RunConfig, Outcome]]:
        local = replace(place, device="cpu")
        yield from ((config, attempt(config, local)) for config in finished)  # compares the images
        if pending:
            shared = replace(place, points=branches.plan(pending))
            yield from engine.run(begun_first(pending, place.runs_root), shared)

    with Progress(len(configs), "runs", enabled=progress, unit="runs") as bar:
        try:
            for config, outcome in everything():
                run_id = names[id(config)]
                if outcome.status == "done" and identity_of(config) != run_id:
                    outcome = Outcome("failed", CHANGED)
                outcomes[run_id] = outcome
                if outcome.status == "failed":
                    failed += 1
                    bar.message(f"Run {run_id} failed.\n{outcome.message}")
                bar.update(f"{run_id}{f', {failed} failed' if failed else ''}")
        except KeyboardInterrupt:
            number = len(before | outcomes.keys()) - failed
            bar.message(
                f"Interrupted: {number} of {len(configs)} runs are done. The same command goes on from "
                "there."
            )
            raise
    return outcomes
