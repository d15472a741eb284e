"""The ``hml`` command: run notebooks, train single runs, examine the machine."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from data_prep.cli import File, Folder, prepare
from hml_core import __version__
from hml_core.errors import ConfigError, HmlError, RunError, interrupts, left_by
from hml_core.system import (
    ending,
    fields,
    files,
    interruptions,
    left_behind,
    limits,
    processes,
    streams,
    yaml_files,
)
from hml_lab import options
from hml_lab.predict import predict
from hml_lab.run_records import runs
from hml_lab.train import train

# What the system has too little of, or does not give: told without a place in the code.
SHORT = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.EAGAIN, errno.EROFS,
)  # fmt: skip
UNLOADABLE = re.compile("failed to map|cannot allocate memory|cannot apply additional memory", re.I)
ALLOCATION = re.compile(r"can't allocate memory|std::bad_alloc|Cannot allocate memory")
_PILLOW = re.compile(r"[/\\]PIL[/\\]\w+\.py$")  # who gives a warning
UNSAID = 120  # the interpreter's own status, where standard output does not take what is left
NOTE = 200  # characters of one
_TOO_LITTLE = "There is too little memory for this command, or a limit on it (`ulimit -v`)."


class _Group(click.Group):
    """Shows an error of ours as one message instead of a traceback; a signal's exit status is 128 + it."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        streams.open_closed()
        streams.forgive_errors()
        self.interruption, self.left = None, left_behind.LeftBehind()
        is_called = bool(arguments) or options.get("args") is not None  # not by the shell
        try:
            return super().main(*arguments, **options)
        except SystemExit as end:
            if not is_called:
                ending.decided(end.code)
            if (self.interruption is not None or self.left.threads) and not is_called:
                is_unsaid = not end.code and not streams.is_said()
                ending.leave(UNSAID if is_unsaid else end.code)
            raise
        except OSError as error:  # a help text, or the version, that standard output does not take
            if error.filename is not None or error.errno not in SHORT:
                raise
            streams.drop_unwritable()
            click.ClickException(f"The system: {files.reason(error)}.").show()
            raise SystemExit(1) from error
        except Exception:
            if self.left.threads and not is_called:  # they would keep the interpreter
                traceback.print_exc()
                ending.leave(1)
            raise

    def invoke(self, context: click.Context) -> Any:
        try:
            return self._invoke(context)
        except click.ClickException as error:
            # It may hold what a server, a file or somebody's code says.
            error.message = streams.printable(error.message)
            raise

    def _invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):  # of a terminal that has no letters for what we say
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")
        try:
            with (
                interruptions.interruptible(),
                ending.never_silent(),
                _notes(),
                left_behind.ended(_note) as self.left,
            ):
                _require_folder()
                limits.require_libraries()
                return super().invoke(context)
        except KeyboardInterrupt as error:
            with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
                streams.say(f"Interrupted: {str(error) or 'KeyboardInterrupt'}.", err=True)
            self.interruption = error
            raise SystemExit(processes.exit_status(error)) from error
        except (SystemExit, click.exceptions.Exit, click.Abort, EOFError) as error:
            # No command of ours ends so: somebody's own code did. (Help ends before a command begins.)
            if isinstance(error, SystemExit) and ending.is_failure(error.code):
                raise
            if isinstance(error, click.exceptions.Exit) and not _has_begun(error):
                raise
            told = left_by("The command", error)
            raise click.ClickException(told) from error
        except HmlError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # of a file or folder that nobody has looked at before
            if error.errno is None and UNLOADABLE.search(str(error)):  # of a library (ctypes)
                raise click.ClickException(f"{_TOO_LITTLE} ({error})") from error
            if error.errno == errno.EPIPE and not streams.nobody_reads():
                raise click.ClickException(left_by("The command", error)) from error
            if error.errno == errno.EPIPE or (error.filename is None and error.errno not in SHORT):
                raise
            streams.drop_unwritable()
            what = "The system" if error.filename is None else repr(error.filename)
            raise click.ClickException(f"{what}: {files.reason(error)}.") from error
        except UserWarning as error:  # of ours, where somebody wants warnings to be errors
            raise click.ClickException(str(error)) from error
        except MemoryError as error:
            raise click.ClickException(_TOO_LITTLE) from error
        except RuntimeError as error:
            if not ALLOCATION.search(str(error)):  # what torch makes of it
                raise
            raise click.ClickException(_TOO_LITTLE) from error
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith(("hml_core", "hml_lab", "data_prep")):
                raise
            raise click.ClickException(
                f"This command needs {error.name!r}, which is not installed: pip install 'hml-core[lab]'."
            ) from error
        except ImportError as error:
            if not UNLOADABLE.search(str(error)):
                raise
            raise click.ClickException(f"{_TOO_LITTLE} ({error})") from error
        except BaseException as error:
            if isinstance(error, Exception) or interrupts(error):
                raise
            told = left_by("The command", error)
            raise click.ClickException(told) from error


def _has_begun(error: BaseException) -> bool:
    """Whether the error comes from within a command, rather than from the reading of its options."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is click.Context.invoke.__code__ for frame, _ in frames)


def _require_folder() -> None:
    """Refuse a current folder that somebody has removed: relative paths mean nothing, and torch fails."""
    try:
        os.getcwd()
    except OSError as error:
        raise RunError(
            f"The current folder cannot be told ({files.reason(error)}): change to one that is there."
        ) from error


def _note(text: str) -> None:
    with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
        streams.say(f"Note: {text}", err=True)


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """A warning to the user is a line in our voice, without the place in the code that gave it.

    Pillow's, of which a single image may give hundreds, are told once, in the end.
    """
    of_images: list[str] = []
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: type, filename: str = "", *where: Any, **how: Any) -> None:
            if _PILLOW.search(filename):
                of_images.append(str(message))
            elif issubclass(category, UserWarning):
                streams.say(f"Note: {message}", err=True)
            else:
                others(message, category, filename, *where, **how)

        warnings.showwarning = show
        try:
            yield
        finally:
            if of_images:
                more = f" ({len(of_images)} such notes)" if len(of_images) > 1 else ""
                _note(f"Pillow found something odd in image files: {of_images[0][:NOTE]}{more}.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hml")
def main() -> None:
    """Hard-mining loss and decoupled training for long-tailed image classification."""


# hml run ------------------------------------------------------------------------------------------


@main.command()
@click.argument("notebook", type=File())
@click.option(
    "-p",
    "--parameter",
    "pairs",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="A parameter; the value is read as YAML: 3, 1e4, true, [ce, hml1].",
)
@click.option(
    "-f",
    "--file",
    "of_files",
    type=File(exists=True, dir_okay=False),
    multiple=True,
    help="YAML file of parameters; -p wins over it. Several have different ones.",
)
@click.option(
    "-o",
    "--output",
    type=File(),
    help="Executed notebook [default: my_results/notebooks/NOTEBOOK].",
)
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="FILE_OR_MODULE",
    help="One's own methods: the notebook's parameter `imports`.",
)
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="Stop it, and all it started, after this time."
)
def run(
    notebook: Path,
    pairs: tuple,
    of_files: tuple[Path, ...],
    output: Path | None,
    imports: tuple[str, ...],
    timeout: float | None,
) -> None:
    """Execute NOTEBOOK headlessly; an unknown parameter or an impossible value is an error.

    What it writes goes to my_results in the checkout, or below `-p results_root FOLDER`. Relative paths
    among the parameters mean the folder of the shell.
    """
    from hml_lab import notebooks
    from hml_lab.notebooks.batch import EXECUTED

    given: dict[str, Any] = {}
    for file in of_files:
        if both := sorted({*given} & {*(more := yaml_files.read(file))}):
            raise ConfigError(f"The parameter {both[0]!r} stands in two files: expected one value.")
        given |= more
    if twice := [name for name, number in Counter(name for name, _ in pairs).items() if number > 1]:
        raise ConfigError(f"The parameter {twice[0]!r} was given twice: expected one value.")
    given |= {name: yaml_files.value(text, f"parameter {name!r}") for name, text in pairs}
    if imports:
        if not isinstance(named := given.get("imports", []), list):
            raise ConfigError(f"Expected the parameter 'imports' to be a list, got {named!r}.")
        given["imports"] = [*named, *imports]
    written = notebooks.execute(notebook, given, output, timeout=timeout)
    streams.say(f"{EXECUTED}{written}")


# hml batch ----------------------------------------------------------------------------------------


@main.command()
@click.argument("file", type=File())
@click.option("-j", "--jobs", type=int, default=1, show_default=True, help="Notebooks at a time.")
@click.option("--resume", is_flag=True, help="Leave out what is done with the same parameters.")
@click.option("--dry-run", is_flag=True, help="Check the file and list the jobs; execute nothing.")
@click.option(
    "--only",
    metavar="PATTERN",
    help="Those jobs alone whose output has such a name, as 06_* or 07_audit_short.ipynb.",
)
@click.option(
    "--publish",
    is_flag=True,
    help="Write over what is published in results/, which git knows, and not to my_results.",
)
def batch(
    file: Path, jobs: int, resume: bool, dry_run: bool, only: str | None, publish: bool
) -> None:
    """Execute the notebooks of FILE (YAML), each in its own process, and sum up how they went.

    What they write goes to my_results, unless FILE or --publish says otherwise. The exit status is 1 if
    any failed, 128 + its number after a signal. The summary also lies beside the executed notebooks.
    """
    from hml_core.system.tables import csv_of
    from hml_lab.notebooks import batch as batches
    from hml_lab.notebooks import outputs

    planned = batches.read(file, publish=publish)
    jobs = batches.at_a_time(jobs)
    if only is not None:
        names = [job.output.name for job in planned]
        planned = [job for job in planned if fnmatch.fnmatch(job.output.name, only)]
        if not planned:
            raise click.ClickException(f"No job writes {only!r}: {', '.join(names)}.")
    if dry_run:
        for job in planned:
            given = ", ".join(f"{name}={value!r}" for name, value in job.parameters.items())
            streams.say(f"{job.output}  ←  {job.notebook}  {given}")
        return
    summary = planned[0].output.parent / f"{file.stem}_summary.csv"
    outputs.require_plain(summary, "the summary")
    batches.require_summary(summary)
    frame = batches.run(planned, parallel=jobs, resume=resume)
    files.write_atomically(summary, csv_of(batches.with_others(summary, frame)))
    width = max(map(len, frame["output"]))
    for row in frame.itertuples():
        streams.say(f"{row.status:<12}{row.seconds:>9.1f} s  {row.output:<{width}}  {row.message}")
    streams.say(f"Summary: {summary}")
    if not frame["status"].isin(batches.GOOD).all():
        raise SystemExit(1)


# hml report ---------------------------------------------------------------------------------------


@main.command()
@click.argument("notebooks", nargs=-1, type=File())
@click.option(
    "-o",
    "--output",
    type=Folder(),
    help="Folder of the gallery [default: my_results/gallery].",
)
@click.option("--title", default="Results", show_default=True, help="Heading of the index.")
def report(notebooks: tuple[Path, ...], output: Path | None, title: str) -> None:
    """Make pages of executed NOTEBOOKS, each one file without scripts [default: those in my_results].

    One that cannot be shown is a notice. The site of the published ones is made by `hml site`.
    """
    from hml_lab import places
    from hml_lab.notebooks import kernels

    if not fields.is_text(title):
        raise ConfigError(f"Expected the title to be text in UTF-8, got {title!r}.")
    folder = places.place("")
    chosen = notebooks or sorted((folder / "notebooks").glob("*.ipynb"))
    with kernels.at_home():
        from hml_lab.notebooks import gallery

        streams.say(f"Gallery: {gallery.build(chosen, output or folder / 'gallery', title)}")


# hml site -----------------------------------------------------------------------------------------


@main.command()
@click.argument("notebooks", nargs=-1, type=File(exists=True, dir_okay=False))
@click.option(
    "-o",
    "--output",
    type=Folder(),
    help="Folder of the site [default: site, in the checkout].",
)
def site(notebooks: tuple[Path, ...], output: Path | None) -> None:
    """Make one site of the pages in docs/, executed NOTEBOOKS and docstrings.

    [default: the notebooks in results/notebooks.] It is read without a network, from a folder as well as
    from a server. A notebook that cannot be shown is a notice.
    """
    from hml_lab import places
    from hml_lab.notebooks import kernels

    root = places.checkout()
    chosen = notebooks or sorted((root / "results" / "notebooks").glob("*.ipynb"))
    with kernels.at_home():
        from hml_lab import site as sites

        first, amiss = sites.build(chosen, output or root / "site")
    for line in amiss:
        streams.say(line, err=True)
    streams.say(f"Site: {first}")


# hml sweep ----------------------------------------------------------------------------------------


@main.command()
@click.argument("file", type=File())
@click.option(
    "-e",
    "--engine",
    default="serial",
    show_default=True,
    help="serial, interleave:K, torchrun:N, dask, dask:tcp://HOST:PORT or slurm:FILE.",
)
@options.device
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads of a run.")
@options.data_root
@options.runs_root
@options.keep_weights
@options.retrain
@options.imports
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and how; train nothing.")
def sweep(
    file: Path,
    engine: str,
    runs_root: Path,
    imports: tuple[str, ...],
    dry_run: bool,
    **place: Any,
) -> None:
    """Train the grid of runs in FILE: YAML with fields of RunConfig; a list is a dimension of the grid.

    Several grids stand in a list under `grids`, each with what differs from the fields above it. What runs
    have in common until some epoch is trained once. The exit status is 1 if a run failed; the same command
    trains what is not done yet.
    """
    from hml_core import engines
    from hml_core.config import grids
    from hml_core.system import extensions

    extensions.bring(imports)
    configs = grids(yaml_files.read(file))
    if dry_run:
        frame = engines.sweep(
            configs, engine=engine, runs_root=runs_root, train=False, threads=place["threads"]
        )
        if place["keep_weights"] is not None:
            _mark_without_weights(frame, runs_root, place["keep_weights"], place["retrain"])
        for run in frame.itertuples():
            marks = {"done": "done", "without": "no weights (--retrain)"}
            streams.say(f"{marks.get(run.status, 'to do'):<7} {run.run_id}")
        streams.say(_cost(configs, frame))
        if engine.startswith("slurm"):
            streams.say(f"\n{engines.slurm.job_script(engines.slurm_options.of_engine(engine))}")
        return
    frame = engines.sweep(configs, engine=engine, runs_root=runs_root, **place)
    counts = frame["status"].value_counts()
    streams.say(", ".join(f"{number} {status}" for status, number in counts.items()))
    streams.say(f"Run records: {runs_root}")
    if counts.get("failed"):
        raise SystemExit(1)


def _mark_without_weights(frame: Any, runs_root: Path, which: str, retrain: bool) -> None:
    """Runs that are finished and have not kept what is asked for are not done."""
    from hml_core.runs import Run

    for index, run_id in frame.loc[frame["status"] == "done", "run_id"].items():
        if not Run(runs_root / run_id).keeps(which):
            frame.loc[index, "status"] = "missing" if retrain else "without"


def _cost(configs: list[Any], frame: Any) -> str:
    """What is left to train, in epochs."""
    from hml_core.trainer import branches

    left = set(frame["run_id"][~frame["status"].isin(("done", "without"))])
    pending = [config for config in configs if config.run_id in left]
    alone, shared = sum(config.epochs for config in pending), branches.epochs_to_train(pending)
    return (
        f"To train: {shared} epochs for {len(pending)} runs, where common beginnings are trained once "
        f"({alone} if each run were trained alone)."
    )


main.add_command(prepare)
main.add_command(train)
main.add_command(runs)
main.add_command(predict)


# hml doctor ---------------------------------------------------------------------------------------


@main.command()
@options.runs_root
@click.option(
    "--data-root",
    type=Folder(),
    default=Path("data"),
    show_default=True,
    help="Folder in which data sets are looked for.",
)
def doctor(runs_root: Path, data_root: Path) -> None:
    """Say what works on this machine, what is missing and how to get it.

    MISSING is what every run needs; a note is about what only some do: data sets, weights, optional parts.
    """
    from hml_lab.doctor import examine

    findings = examine(runs_root, data_root)
    for finding in findings:
        streams.say(f"{finding.mark:<8}{finding.what}")
        if finding.remedy:
            streams.say(f"{'':<8}→ {finding.remedy}")
    if any(finding.mark == "MISSING" for finding in findings):
        raise SystemExit(1)
