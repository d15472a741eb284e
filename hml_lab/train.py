"""``hml train``: one run, on this machine or, started by torchrun, on several GPUs or hosts.

``torchrun --nproc-per-node 8 -m hml_core train …`` takes the same options;
:mod:`hml_core.trainer.world` says how the processes work together. Their number does not change the run:
the micro-batches of a batch are shared out, the record is the same. With ``torchrun --max-restarts 3`` a
group that lost a process goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_prep.cli import File
from hml_core.system import files, streams, yaml_files
from hml_lab import options

if TYPE_CHECKING:
    from hml_core.config import RunConfig
    from hml_core.engines.travel import Bundle
    from hml_core.runs import Run
    from hml_core.trainer.branches import Point

WAIT_S = 60.0  # for another group that works on the same run
SELECTION_ORDER = ("last", "best_validation", "best_test")


class ConfigCommand(click.Command):
    """A command with one option for every field of RunConfig, so that the two cannot drift apart.

    They are made when the command is used: importing RunConfig imports torch, which takes seconds that
    no other command should wait.
    """

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        return [*_config_options(), *super().get_params(context)]


@functools.cache
def _config_options() -> tuple[click.Option, ...]:
    from hml_core import augment, datasets, recipes
    from hml_core.config import SETTINGS

    registries = {
        "dataset": datasets.DATASETS,
        "recipe": recipes.names(),
        "augmentation": [*augment.AUGMENTATIONS, *augment.FILE_AUGMENTATIONS],
    }
    flags = []
    for name, known in SETTINGS.items():
        flag = f"--{name.replace('_', '-')}"
        choices = tuple(known.choices or ())
        told: dict[str, Any] = {"help": known.help}
        if name in registries:
            choices = tuple(registries[name])
            own = "" if name == "augmentation" else ", or one's own by --import"
            listed = f"One of {', '.join(choices)}{own}."
            told["help"] = known.help.replace(known.meaning, listed)
        if choices:
            told["shell_complete"] = functools.partial(_beginning, choices)
        if known.kind is bool:
            option = click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, **told)
        elif known.kind is tuple:
            option = click.Option([flag, name], type=int, multiple=True, metavar="EPOCH", **told)
        elif issubclass(known.kind, dict):
            pair = {"type": (str, str), "multiple": True, "metavar": "NAME VALUE"}
            option = click.Option([flag, name], **pair, **told)
        else:
            option = click.Option([flag, name], type=known.kind, **told)
        flags.append(option)
    return tuple(flags)


def _beginning(choices: tuple[str, ...], _context: Any, _option: Any, begun: str) -> list[str]:
    """What the shell completes a value to."""
    return [choice for choice in choices if choice.startswith(begun)]


@click.command(cls=ConfigCommand)
@click.option(
    "--config",
    "file",
    type=File(),
    help="JSON of a RunConfig, such as a record's config.json, in place of its options.",
)
@options.device
@options.data_root
@options.runs_root
@click.option(
    "--checkpoint-steps",
    type=int,
    metavar="STEPS",
    help="Steps between checkpoints within an epoch [default: 1000].",
)
@options.keep_weights
@options.retrain
@options.imports
@click.option("--quiet", is_flag=True, help="No progress.")
# What the engine "torchrun" says to the processes of a group:
@click.option("--points", "points_file", type=File(), hidden=True)
@click.option("--bundle", "bundle_file", type=File(), hidden=True)
@click.option("--final-errors", is_flag=True, hidden=True)
def train(
    file: Path | None,
    device: str,
    data_root: Path | None,
    runs_root: Path,
    checkpoint_steps: int | None,
    keep_weights: str | None,
    retrain: bool,
    quiet: bool,
    points_file: Path | None,
    bundle_file: Path | None,
    final_errors: bool,
    imports: tuple[str, ...],
    **fields: Any,
) -> None:
    """Train one run (or find it finished, or resume it) and print its test metrics.

    An option that is left out takes the default of the data set or of the recipe. On several GPUs or
    hosts: torchrun --nproc-per-node 8 -m hml_core train …
    """
    from hml_core.errors import ConfigError
    from hml_core.system import extensions
    from hml_core.trainer import CHECKPOINT_STEPS, world

    extensions.bring(imports)
    place = {
        "data_root": data_root,
        "runs_root": runs_root,
        "progress": not quiet,
        "checkpoint_steps": CHECKPOINT_STEPS if checkpoint_steps is None else checkpoint_steps,
        "keep_weights": keep_weights,
        "retrain": retrain,
    }
    given = {name: value for name, value in fields.items() if value not in (None, ())}
    if pairs := given.pop("options", ()):
        names = [name for name, _ in pairs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(
                f"Expected each of `--options` once, got {min(twice)!r} twice or more."
            )
        given["options"] = {
            name: yaml_files.value(text, f"option {name!r}") for name, text in pairs
        }
    if world.is_in_group():
        _train_in_group(file, given, points_file, bundle_file, device, place, final_errors)
    else:
        _report(_train(file, given, points_file, device=device, **place))


def _train(
    file: Path | None, fields: dict[str, Any], points_file: Path | None, **place: Any
) -> Run:
    from hml_core.trainer import exhaust, training

    config, points = _config(file, fields), _points(points_file)
    return exhaust(training(config, points=points, **place))


def _train_in_group(
    file: Path | None,
    fields: dict[str, Any],
    points_file: Path | None,
    bundle_file: Path | None,
    device: str,
    place: dict[str, Any],
    final_errors: bool,
) -> None:
    """Join the group that torchrun started, train, and report on the first process.

    ``final_errors``: exit with status 0 after an error of the run itself: torchrun would only repeat it.
    The process ends here (:func:`hml_core.trainer.world.leave`).
    """
    from hml_core.engines.torchrun import BUSY
    from hml_core.engines.travel import require_same
    from hml_core.errors import HmlError, RunBusyError
    from hml_core.trainer import exhaust, training, world

    rank, size = world.place_in_group()
    try:
        with world.group(device) as (processes, own_device), contextlib.ExitStack() as held:
            with processes.together():
                bundle = _unpack(bundle_file, held)
                config, points = _config(file, fields), _points(points_file)
                if bundle is not None:
                    require_same(bundle, config)
            here = {"device": own_device, "wait": WAIT_S, "world": processes}
            done = exhaust(training(config, points=points, **here, **place))
            if processes.is_first:
                _report(done)
    except RunBusyError as error:
        streams.say(f"{BUSY}{error}", err=True)
        world.leave(0 if final_errors else 1)
    except HmlError as error:
        streams.say(f"Error in process {rank} of {size}: {error}", err=True)
        world.leave(0 if final_errors else 1)
    except world.Stopped as error:
        streams.say(f"Process {rank} of {size} was {error}.", err=True)
        world.leave(1)
    world.leave(0)


def _unpack(file: Path | None, held: contextlib.ExitStack) -> Bundle | None:
    """Register what the engine "torchrun" of this machine sent with the run."""
    from hml_core.engines.travel import installed

    if file is None:
        return None
    bundle = pickle.loads(files.read_bytes(file, files.LARGEST_DATA))
    held.enter_context(installed(bundle))
    return bundle


def _points(file: Path | None) -> tuple[Point, ...]:
    """Where other runs of a sweep part from this one."""
    from hml_core.errors import ConfigError
    from hml_core.trainer.branches import Point

    if file is None:
        return ()
    try:
        return tuple(map(Point.from_dict, json.loads(files.read_text(file))))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"Cannot read the points {str(file)!r}: {files.reason(error)}") from error


def _config(file: Path | None, fields: dict[str, Any]) -> RunConfig:
    from hml_core.config import RunConfig
    from hml_core.errors import ConfigError

    if file is None:
        return RunConfig(**fields)
    if fields:
        raise ConfigError(f"Expected either --config or {', '.join(fields)}, got both.")
    try:
        return RunConfig.from_json(files.read_text(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the config {str(file)!r}: {files.reason(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"In the config {str(file)!r}: {error}") from error


def _report(done: Run) -> None:
    """Print the test metrics of a finished run, and those on the sets beside its test split."""
    import pandas as pd

    from hml_lab.tables import DERMOSCOPY_METRICS, LABELS, METRICS, SELECTION_LABELS, to_markdown

    measured = {"": done.metrics["selections"]}
    for name in done.further_tests:
        measured[f", {name}"] = done.metrics["further_tests"][name]["selections"]
    rows = {}
    for of, name in itertools.product(measured, SELECTION_ORDER):
        if (chosen := measured[of].get(name)) is None:
            continue
        cells = {"epoch": str(chosen["epoch"])}
        for metric in DERMOSCOPY_METRICS if "sensitivity" in chosen else METRICS:
            value = chosen[metric]
            cells[LABELS[metric]] = "–" if value is None else f"{100 * value:.1f}"
        rows[f"{SELECTION_LABELS[name]}{of}"] = cells
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "Test metrics in % at"
    streams.say(f"{to_markdown(table)}\nRun record: {done.path}")
