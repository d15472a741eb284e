"""Options that several commands have: what they are called, take and mean is told here alone."""

from __future__ import annotations

from pathlib import Path

import click

from data_prep.cli import Folder
from hml_core.system import left_behind


def _watched(_context: click.Context, _option: click.Parameter, names: tuple) -> tuple:
    """Somebody's own code is to run in this process: what it starts ends with it, also by ``kill -9``."""
    if names:
        left_behind.watch()
    return names


device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
data_root = click.option("--data-root", type=Folder(), help="Folder of the data set's files.")
runs_root = click.option(
    "--runs-root",
    type=Folder(),
    default=Path("results/runs"),
    show_default=True,
    help="Where run records lie.",
)
keep_weights = click.option(
    "--keep-weights",
    type=click.Choice(["last", "best"]),
    help="Keep the network after the last epoch, or at the best one on validation, beside the record.",
)
retrain = click.option(
    "--retrain",
    is_flag=True,
    help="Train finished runs again that lack the weights of --keep-weights; their records are moved "
    "aside.",
)
imports = click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="FILE_OR_MODULE",
    callback=_watched,
    help="One's own losses, recipes, models and data sets.",
)
