"""Engines that turn a list of configurations into a frame of finished runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hml_core import devices, files
from hml_core.config import RunConfig
from hml_core.errors import ConfigError, RunError
from hml_core.progress import Progress
from hml_core.runs import Run
from hml_core.trainer import fit

ENGINES = ("serial",)


def sweep(
    configs: Iterable[RunConfig],
    *,
    engine: str = "serial",
    data_root: str | Path | None = None,
    runs_root: str | Path = "results/runs",
    device: str | torch.device = "auto",
    progress: bool = True,
    train: bool = True,
) -> pd.DataFrame:
    """Train every configuration; a run that is finished already is only read.

    Parameters
    ----------
    configs : iterable of RunConfig
        See :func:`hml_core.config.grid`.
    engine : {"serial"}
        One run after the other in this process.
    data_root, runs_root, device
        As for :func:`hml_core.trainer.fit`.
    progress : bool
        Count the runs.
    train : bool
        False: only read what is finished below ``runs_root``; a row that is not there has the
        ``status`` "missing".

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`hml_core.runs.load`, a row for every distinct configuration in the order
        given. A run that failed is a row with ``status`` "failed" and its ``error``.

    Raises
    ------
    ConfigError, DeviceError, RunError
        Before anything is trained: an unknown engine, no configuration, a device that is not there, a
        results folder that cannot be written to.
    """
    if engine not in ENGINES:
        raise ConfigError(f"Expected `engine` to be one of {', '.join(ENGINES)}, got {engine!r}.")
    distinct = list({config.run_id: config for config in configs}.values())
    if not distinct:
        raise ConfigError("Expected at least one configuration to train, got none.")
    if not train:
        return pd.DataFrame([_stored(config, Path(runs_root)) for config in distinct])
    where = devices.resolve(device)
    files.require_writable(Path(runs_root))
    rows = []
    with Progress(len(distinct), "runs", enabled=progress, unit="runs") as bar:
        for config in distinct:
            row = attempt(config, data_root=data_root, runs_root=runs_root, device=where)
            rows.append(row)
            failed = sum(row["status"] == "failed" for row in rows)
            bar.update(f"{config.run_id}{f', {failed} failed' if failed else ''}")
    return pd.DataFrame(rows)


def _stored(config: RunConfig, runs_root: Path) -> dict[str, Any]:
    """The row of a finished run, or one that says that it is missing."""
    if (runs_root / config.run_id / "metrics.json").exists():
        try:
            return Run(runs_root / config.run_id).verify(published=True).row()
        except RunError as error:
            return _without_result(config, "missing", str(error))
    return _without_result(config, "missing", "not found below runs_root")


def _without_result(config: RunConfig, status: str, error: str) -> dict[str, Any]:
    row = {name: getattr(config, name) for name in config.to_dict()}
    return {"run_id": config.run_id, "status": status, "error": error, **row}


def attempt(config: RunConfig, **where: Any) -> dict[str, Any]:
    """One run as a row; an error of its own makes a failed row instead of ending the sweep."""
    try:
        return fit(config, progress=False, **where).row()
    except Exception as error:  # whatever it was, the other runs must go on
        return _without_result(config, "failed", str(error))
