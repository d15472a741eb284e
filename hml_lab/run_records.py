"""``hml runs``: what lies in a folder of run records, whether it holds, and small copies of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_prep.cli import Folder
from hml_core.system import streams
from hml_lab import options
from hml_lab.wording import number

if TYPE_CHECKING:
    import pandas as pd

    from hml_core.runs import Run


@click.group()
def runs() -> None:
    """List, show, verify and export run records."""


@runs.command(name="list")
@options.runs_root
@click.option(
    "-w",
    "--where",
    "wanted",
    type=(str, str),
    multiple=True,
    metavar="FIELD VALUE",
    help="Only runs whose field has this value (read as YAML); repeatable.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Every column, as CSV.")
@options.imports
def list_runs(
    runs_root: Path, wanted: tuple[tuple[str, str], ...], as_csv: bool, imports: tuple[str, ...]
) -> None:
    """A line for every finished run: its id, what it trained, its balanced accuracy."""
    from hml_core.system import extensions
    from hml_core.system.tables import csv_of

    extensions.bring(imports)
    frame = _finished(runs_root, wanted)
    if as_csv:
        click.echo(csv_of(frame), nl=False)
        return
    for row in frame.to_dict("records"):
        score = 100 * row["last_balanced_accuracy"]
        streams.say(f"{score:6.2f} %  epoch {row['last_epoch']:<4} {row['run_id']}")
    told = number(len(frame), "finished run")
    streams.say(f"{told} in {runs_root}; balanced accuracy on test, last epoch.")


def _finished(runs_root: Path, wanted: tuple[tuple[str, str], ...]) -> pd.DataFrame:
    from hml_core import runs as records
    from hml_core.errors import ConfigError, RunError
    from hml_core.system import yaml_files

    if not runs_root.is_dir():
        raise RunError(f"There is no folder {str(runs_root)!r} with run records.")
    frame = records.load(runs_root)
    for name, text in wanted:
        value = yaml_files.value(text, f"field {name!r}")
        if len(frame) and name not in frame:
            raise ConfigError(f"Runs have no field {name!r}: expected one of {', '.join(frame)}.")
        frame = frame[[_is(cell, value) for cell in frame[name]]] if len(frame) else frame
    return frame


def _is(cell: Any, value: Any) -> bool:
    """Whether a run's field has the value that YAML has read: ``null`` where it has none."""
    cell = cell.item() if hasattr(cell, "item") else cell  # of numpy
    if isinstance(cell, Sequence) and not isinstance(cell, str):
        return isinstance(value, list) and list(cell) == value
    if cell is None or cell != cell:  # NaN
        return value is None
    return bool(cell == value) and isinstance(cell, bool) == isinstance(value, bool)


@runs.command()
@click.argument("run_id")
@options.runs_root
def show(run_id: str, runs_root: Path) -> None:
    """Config, environment and metrics of the run RUN_ID; the beginning or end of an id is enough."""
    import json

    run = find(run_id, runs_root)
    metrics = {key: value for key, value in run.selection().items() if not isinstance(value, list)}
    told = {"run_id": run.run_id, "record": str(run.path), "config": run.config.to_dict()}
    told |= {
        "environment": run.environment,
        "last epoch": metrics,
        "branch": run.metrics.get("branch"),
    }
    told["trained_epochs"] = run.trained_epochs
    told["kept weights"] = run.metrics.get("kept_weights") if run.keeps() else None
    told = json.dumps(_without_nan(told), indent=2, ensure_ascii=False, allow_nan=False)
    # What would control a terminal, as JSON has it.
    streams.say("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in told))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def find(run_id: str, runs_root: Path) -> Run:
    """The run of that id, or the only one whose id begins or ends so; RunError otherwise."""
    from hml_core.errors import RunError
    from hml_core.runs import Run, listing

    ids = [path.name for path in listing.finished(runs_root)]
    fitting = [name for name in ids if name == run_id]
    fitting = fitting or [name for name in ids if name.startswith(run_id) or name.endswith(run_id)]
    if len(fitting) == 1:
        return Run(runs_root / fitting[0]).verify()
    if not fitting:
        raise RunError(f"No finished run in {str(runs_root)!r} is called {run_id!r}.")
    more = ", …" if len(fitting) > 5 else ""
    raise RunError(f"{len(fitting)} runs fit {run_id!r}: {', '.join(fitting[:5])}{more}")


@runs.command()
@options.runs_root
def verify(runs_root: Path) -> None:
    """Check every file of every finished run against its checksum.

    Which files it must have is told by the record. The exit status is 1 if one does not hold.
    """
    from hml_core.errors import RunError
    from hml_core.runs import Run, listing

    checked = broken = 0
    for path in listing.finished(runs_root):
        checked += 1
        try:
            Run(path).verify()
        except RunError as error:
            broken += 1
            streams.say(str(error), err=True)
    if not checked:
        raise RunError(f"There is no finished run in {str(runs_root)!r}.")
    streams.say(f"{number(checked, 'finished run')} in {runs_root}: {checked - broken} hold.")
    if broken:
        raise SystemExit(1)


@runs.command()
@click.argument("destination", type=Folder())
@options.runs_root
@click.option("--weights", is_flag=True, help="With the weights of the runs that have kept them.")
def export(destination: Path, runs_root: Path, weights: bool) -> None:
    """Copy finished runs to DESTINATION in a compact form, which is read like a record.

    It holds the class that was predicted for each test image and how sure the network was, no logits: at
    most 150 kB for 10,000 images. Kept weights stay behind unless they are asked for.
    """
    from hml_core import runs as records
    from hml_core.errors import RunError

    written = records.export(runs_root, destination, weights=weights)
    if not written:
        raise RunError(f"There is no finished run in {str(runs_root)!r} that could be exported.")
    streams.say(f"{number(len(written), 'record')} in {destination}")
