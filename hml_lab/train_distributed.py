"""One run on several GPUs or hosts: ``torchrun --nproc-per-node 8 -m hml_lab.train_distributed …``.

The options are those of ``hml train``; ``hml_core.trainer.world`` says how the processes work together.
Their number does not change the run: the micro-batches of a batch are shared out, the record is the same.
With ``torchrun --max-restarts 3`` a group that lost a process goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from hml_core.config import RunConfig
from hml_core.engines.torchrun import BUSY
from hml_core.errors import ConfigError, HmlError, RunBusyError
from hml_core.trainer import CHECKPOINT_STEPS, exhaust, training
from hml_core.trainer.branches import Point
from hml_core.trainer.world import Stopped, group, place_in_group
from hml_lab import cli

WAIT_S = 60.0  # for another group that works on the same run


@click.command(cls=cli.ConfigCommand, help=__doc__.partition("\n")[0])
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="JSON of a RunConfig, such as a record's config.json, in place of its options.",
)
@click.option(
    "--points",
    "points_file",
    type=click.Path(path_type=Path),
    help="JSON of the points where other runs of a sweep part from this one.",
)
@click.option(
    "--checkpoint-steps",
    type=int,
    default=CHECKPOINT_STEPS,
    show_default=True,
    help="Steps between checkpoints within an epoch.",
)
@click.option(
    "--final-errors",
    is_flag=True,
    help="Exit with status 0 after an error of the run itself: torchrun would only repeat it.",
)
@cli.place_options
def main(
    file: Path | None,
    points_file: Path | None,
    quiet: bool,
    device: str,
    final_errors: bool,
    **given: Any,
) -> None:
    """Join the group, train, and report on the first process."""
    place = {name: given.pop(name) for name in ("data_root", "runs_root", "checkpoint_steps")}
    fields = {name: value for name, value in given.items() if value not in (None, ())}
    rank, size = place_in_group()
    try:
        with group(device) as (world, own_device):
            with world.together():
                config = _config(file, fields)
                points = _points(points_file)
            training_options = {"device": own_device, "progress": not quiet, "wait": WAIT_S}
            steps = training(config, **training_options, world=world, points=points, **place)
            done = exhaust(steps)
            if world.is_first:
                click.echo(cli.report_of(done))
    except RunBusyError as error:
        click.echo(f"{BUSY}{error}", err=True)
        sys.exit(0 if final_errors else 1)
    except HmlError as error:
        click.echo(f"Error in process {rank} of {size}: {error}", err=True)
        sys.exit(0 if final_errors else 1)
    except Stopped as error:
        click.echo(f"Process {rank} of {size} was {error}.", err=True)
        sys.exit(1)


def _points(file: Path | None) -> tuple[Point, ...]:
    if file is None:
        return ()
    try:
        return tuple(map(Point.from_dict, json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"Cannot read the points {str(file)!r}: {error}") from error


def _config(file: Path | None, fields: dict[str, Any]) -> RunConfig:
    if file is None:
        return RunConfig(**fields)
    if fields:
        raise ConfigError(f"Expected either --config or {', '.join(fields)}, got both.")
    try:
        return RunConfig.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the config {str(file)!r}: {error}") from error


if __name__ == "__main__":
    main()
