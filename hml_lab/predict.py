"""``hml predict``: what a kept network says of image files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_prep.cli import File, FileOrFolder
from hml_core.system import streams
from hml_lab import options, places

if TYPE_CHECKING:
    from hml_core.models.trained import TrainedModel

NAMED = 5  # files that are named, of those that could not be read; the table has all


@click.command()
@click.argument("run")
@click.argument("paths", nargs=-1, required=True, metavar="FILES...", type=FileOrFolder())
@click.option(
    "-o",
    "--output",
    type=File(),
    metavar="FILE.csv",
    help="The table [default: standard output].",
)
@click.option(
    "--top", type=int, default=5, show_default=True, help="Classes to name for each image."
)
@click.option(
    "--every-class/--no-every-class",
    default=True,
    show_default=True,
    help="A column with the probability of each class.",
)
@options.device
@options.runs_root
@options.imports
@click.option("--quiet", is_flag=True, help="No progress.")
def predict(
    run: str,
    paths: tuple[Path, ...],
    output: Path | None,
    top: int,
    every_class: bool,
    device: str,
    runs_root: Path,
    imports: tuple[str, ...],
    quiet: bool,
) -> None:
    """Let the network of RUN say what is on the images FILES (files and folders), as CSV.

    RUN is the folder of a run whose weights were kept (`hml train --keep-weights last`), or its id, or the
    beginning or end of it, below --runs-root. A file that cannot be read has a row that says why, and the
    others go on; the exit status is 1 where none could be read.
    """
    from hml_core.errors import RunError
    from hml_core.models import prediction
    from hml_core.system import extensions, limits

    extensions.bring(imports)
    found = prediction.read_paths(paths)
    if output is not None:
        places.require_no_record(output)
        prediction.require_output(output, [*found.files, *map(Path, imports)])
    model = _model(run, runs_root)
    limits.require_address_space(limits.TO_PREDICT, "predicting")
    columns = prediction.Columns(model.class_names, top, every_class)
    rows = prediction.predictions(
        model, found.files, device=device, progress=output is not None and not quiet
    )
    if output is None:
        summary = prediction.write(rows, columns, sys.stdout.buffer)
    else:
        summary = prediction.write_file(rows, columns, output)
    if found.left_out:
        streams.say(f"Not looked at in the folders: {', '.join(found.left_out)}.", err=True)
    for text in summary.unread[:NAMED]:
        streams.say(os.fsencode(text).decode(errors="replace").replace("\n", "\\n"), err=True)
    told = f"{summary.files - len(summary.unread):,} of {summary.files:,} images"
    more = f", {len(summary.unread):,} could not be read" if summary.unread else ""
    streams.say(f"Predicted: {told}{more}{f' ({output})' if output else ''}.", err=output is None)
    if len(summary.unread) == summary.files:
        raise RunError("None of the files could be read.")


def _model(run: str, runs_root: Path) -> TrainedModel:
    from hml_core.runs import Run
    from hml_core.system import paths
    from hml_lab.run_records import find

    folder = paths.named(run, "`RUN`")
    found = Run(folder.resolve()) if folder.is_dir() else find(run, runs_root)
    return found.model()
