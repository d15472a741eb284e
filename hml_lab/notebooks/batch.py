"""Batches: many notebooks, or one with many parameter sets, each in a process of its own.

A batch is a YAML file::

    output: my_results/notebooks        # folder of the executed notebooks [default: that of the checkout]
    timeout: 7200                       # seconds for each, unless a job says otherwise
    jobs:
      - notebook: notebooks/00_quickstart.ipynb
      - notebook: notebooks/02_cifar_lt.ipynb
        parameters: {epochs: 200, name: "{dataset}_lt_{protocol}"}
        grid:                           # one executed notebook for every combination
          dataset: [cifar10, cifar100]
          protocol: [controlled, official]
        output: "02_{dataset}_lt_{protocol}.ipynb"

Paths, those among the parameters included, are relative to the folder in which the batch is started. Text
in ``parameters`` and ``output`` may name the dimensions of the grid in braces, numbers with a width or
decimals (``{seed:02d}``); a brace that is meant as one is doubled. What a batch makes is one's own; that
it goes to ``results/``, which git knows, is said when it is started (``publish``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from hml_core.errors import ConfigError, RunError
from hml_core.system import (
    files,
    interruptions,
    limits,
    paths,
    processes,
    quantities,
    scratch,
    streams,
    tables,
    yaml_files,
)
from hml_core.system.patience import Patience
from hml_core.system.progress import Progress
from hml_lab import places
from hml_lab.notebooks import outputs
from hml_lab.notebooks.execution import is_done, record_of, require_result
from hml_lab.notebooks.interface import check_parameters, from_here
from hml_lab.places import PUBLISHED

GOOD = ("done", "done before")
JOB_KEYS = {"notebook", "parameters", "grid", "output", "timeout"}
# After its time limit, or SIGTERM, a notebook's process may take this long to write down what it has.
GRACE_S = 30.0
# Who waits for a job, its process, and who copies its log; that process counts its kernel's.
THREADS_OF_A_JOB = 3
EXECUTED = "Executed notebook: "  # is what `hml run` ends with
OF_LOG = "Log of "  # and what a log begins with
COLUMNS = ["output", "status", "seconds", "message"]  # of a summary
LOG_BYTES = 2**16  # of a log's end, where the error stands: what a kernel prints may be gigabytes


@dataclass(frozen=True)
class Job:
    """One notebook to execute.

    Parameters
    ----------
    notebook, output : Path
    parameters : mapping
    timeout : float, optional
        Seconds.
    """

    notebook: Path
    output: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None

    @property
    def log(self) -> Path:
        """What the job's process prints."""
        return self.output.with_suffix(".log")


def read(path: str | Path, *, publish: bool = False) -> list[Job]:
    """The jobs of a batch file; every notebook, parameter and output is checked.

    ``publish``: executed notebooks go to ``results/notebooks``, tables and figures to ``results``.

    Raises
    ------
    ConfigError
        For a file that is not as above, unknown keys or parameters, two jobs with one output, or one that
        is a notebook to execute.
    """
    content = yaml_files.read(path)
    if unknown := sorted(set(content) - {"output", "timeout", "jobs"}):
        raise ConfigError(f"{str(path)!r} has unknown keys: {', '.join(unknown)}.")
    entries = content.get("jobs")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"Expected {str(path)!r} to hold a list `jobs`.")
    if publish:
        folder = Path(PUBLISHED) / "notebooks"
    elif "output" in content:
        folder = paths.named(_text(content["output"], "`output`"), "`output`")
    else:  # where their tables and figures go
        folder = places.place("") / "notebooks"
        if folder.is_relative_to(Path.cwd()):
            folder = folder.relative_to(Path.cwd())
    jobs = []
    for number, entry in enumerate(entries, 1):
        with _named(f"Job {number} of {str(path)!r}"):
            jobs += _jobs_of(entry, folder, content.get("timeout"), publish)
    outputs = [job.output.resolve() for job in jobs]
    if twice := sorted({output.name for output in outputs if outputs.count(output) > 1}):
        raise ConfigError(
            f"Several jobs of {str(path)!r} write {', '.join(twice)}: give each an `output` of its own, "
            'e.g. "{dataset}.ipynb" with a dimension of the grid in braces.'
        )
    sources = {job.notebook.resolve() for job in jobs}
    if written := sorted({output.name for output in outputs if output in sources}):
        raise ConfigError(
            f"Jobs of {str(path)!r} would write over notebooks that it executes ({', '.join(written)}): "
            "give them another `output`, or the batch a folder `output` of its own."
        )
    return jobs


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Say in an error which job it is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def _jobs_of(entry: Any, folder: Path, timeout: Any, publish: bool) -> Iterator[Job]:
    if not isinstance(entry, dict) or "notebook" not in entry:
        raise ConfigError(f"expected `name: value` lines with a `notebook`, got {entry!r}.")
    if unknown := sorted(str(key) for key in set(entry) - JOB_KEYS):
        raise ConfigError(
            f"unknown keys {', '.join(unknown)}: expected {', '.join(sorted(JOB_KEYS))}."
        )
    notebook = paths.named(_text(entry["notebook"], "`notebook`"), "`notebook`")
    fixed, grid = entry.get("parameters") or {}, entry.get("grid") or {}
    for name, given in {"parameters": fixed, "grid": grid}.items():
        if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
            raise ConfigError(f"expected `{name}` to hold `name: value` lines, got {given!r}.")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"expected the dimension {name!r} of `grid` to be a list, got {values!r}."
            )
    if both := sorted(set(fixed) & set(grid)):
        raise ConfigError(f"{', '.join(both)} stand in `parameters` and in `grid`.")
    timeout = entry.get("timeout", timeout)
    if timeout is not None:
        timeout = quantities.seconds(timeout, "`timeout`")
    pattern = entry.get("output") or _default_output(notebook, grid)
    quantities.require_size(list(grid.values()), "`grid`")
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        parameters = {name: _filled(value, point) for name, value in fixed.items()} | point
        if publish:
            parameters["results_root"] = PUBLISHED
        check_parameters(notebook, from_here(parameters), timeout)
        name = paths.named(_text(_filled(pattern, point), "`output`"), "`output`")
        output = paths.named(folder / name, "`output`")
        if output.suffix != ".ipynb":
            raise ConfigError(f"expected `output` to end in .ipynb, got {str(output)!r}.")
        outputs.require_plain(output, "`output`")
        require_result(notebook, output, is_default="output" not in entry)
        yield Job(notebook, output, parameters, timeout)


def _default_output(notebook: Path, grid: Mapping[str, Any]) -> str:
    return "_".join([notebook.stem, *(f"{{{name}}}" for name in grid)]) + ".ipynb"


def _text(value: Any, what: str) -> str:
    """A path; its `~` is the home of who gives it."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected {what} to be a text, got {value!r}.")
    return os.path.expanduser(value)


class _Names(string.Formatter):
    """`{name}` and, of numbers, a width and decimals; nothing that looks into a value or fills memory."""

    SHAPE = re.compile(r"0?\d?\d?(\.\d\d?)?[dfeg]?")

    def get_field(self, name: str, arguments: Any, point: Any) -> Any:
        return point[name], name

    def format_field(self, value: Any, shape: str) -> str:
        if not self.SHAPE.fullmatch(shape):
            raise ValueError(shape)
        return super().format_field(value, shape)


def _filled(value: Any, point: Mapping[str, Any]) -> Any:
    """Text with the dimensions of the grid filled in (`{{` is a brace); anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return _Names().vformat(value, (), point)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        known = ", ".join(point) or "there is none"
        raise ConfigError(
            f"{value!r} names what is not in the grid ({known}): a brace that is meant as one is doubled."
        ) from error


def at_a_time(number: Any) -> int:
    """How many jobs are executed at a time; ConfigError for what is no such number."""
    return quantities.whole(number, "the number of jobs at a time")


def run(
    jobs: Sequence[Job], *, parallel: int = 1, resume: bool = False, progress: bool = True
) -> pd.DataFrame:
    """Execute the jobs, ``parallel`` at a time; one that fails does not stop the others.

    The processes of the jobs, and all that they start, end with this one, however it ends.

    Parameters
    ----------
    jobs : sequence of Job
    parallel : int
    resume : bool
        Leave out a job whose output is whole and was made from the same notebook and parameters.
    progress : bool

    Returns
    -------
    pandas.DataFrame
        A row for every job: ``output``, ``status`` ("done", "done before", "failed", "timed out",
        "stopped"), ``seconds``, ``message``.

    Raises
    ------
    ConfigError, RunError
        Before a job begins: an output that cannot be written, no room for so many processes.
    """
    parallel = at_a_time(parallel)
    at_once = min(parallel, len(jobs))
    limits.require_threads(THREADS_OF_A_JOB * at_once, f"a batch of {at_once} at a time")
    for job in jobs:
        outputs.require_place(job.output, "`output`")
        outputs.require_plain(job.log, "the log", room=0)
        _require_log(job)
    rows: dict[int, dict[str, Any]] = {}
    working = _Working()
    cores = max(limits.usable_cores() // parallel, 1)
    with (
        Progress(len(jobs), "notebooks", enabled=progress, unit="notebooks") as bar,
        ThreadPoolExecutor(parallel) as pool,
    ):
        started: dict[Future, int] = {}
        try:
            for number, job in enumerate(jobs):
                started[pool.submit(_one, number, job, resume, cores, working)] = number
            for future in interruptions.ended(started):
                row = rows[started[future]] = future.result()
                if row["status"] not in GOOD:
                    bar.message(f"{row['output']} {row['status']}: {row['message']}")
                bar.update(Path(row["output"]).name)
        except KeyboardInterrupt:
            for future in started:
                future.cancel()
            working.end()
            bar.message("Interrupted: the same command with --resume goes on from there.")
            raise
    return pd.DataFrame([rows[number] for number in sorted(rows)], columns=COLUMNS)


def _header(job: Job) -> bytes:
    """What the log of a job begins with."""
    return f"{OF_LOG}{job.output.name}\n".encode("utf-8", "backslashreplace")


def _require_log(job: Job) -> None:
    """Refuse to write a log where something else lies.

    (Of its first line a full disk may have taken a part. Logs of older versions have none; they end with
    the place of the result.)
    """
    if not job.log.is_file():
        return
    header = _header(job)
    with files.opened(job.log) as stream:
        start = stream.read(len(header))
    last = files.read_end(job.log, LOG_BYTES).rstrip().rpartition("\n")[2]
    is_older = last.startswith(EXECUTED) and last.endswith(job.output.name)
    if not header.startswith(start) and not is_older:
        raise ConfigError(
            f"The log of {str(job.output)!r} would take the place of {str(job.log)!r}, which is none: "
            "expected another output, or that file moved away."
        )


def require_summary(summary: Path) -> None:
    """Refuse to write a summary where something else lies.

    Raises
    ------
    ConfigError
    """
    if not os.path.lexists(summary):
        return
    with contextlib.suppress(OSError, ValueError), tables.opened(summary) as stream:
        if list(pd.read_csv(stream, nrows=0).columns) == COLUMNS:
            return
    raise ConfigError(
        f"The summary would take the place of {str(summary)!r}, which is none: expected another name of "
        "the batch file, or that file moved away."
    )


def with_others(summary: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """What :func:`run` returned, and behind it what the file ``summary`` says of other outputs.

    Those of another batch of this name, or of jobs that were left out this time, as long as their
    notebooks are there.
    """
    try:
        with tables.opened(summary) as stream:
            before = pd.read_csv(stream, keep_default_na=False)
        before = before[list(frame.columns)]
    except (OSError, ValueError, KeyError):  # not there, or not of ours
        return frame
    is_other = ~before["output"].isin(frame["output"]) & before["output"].map(os.path.lexists)
    return pd.concat([frame, before[is_other]], ignore_index=True)


class _Working(dict[int, subprocess.Popen]):
    """The processes of the jobs, by their numbers; what is begun once they are ended is ended at once.

    (Other threads begin them, and may be about to.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock, self._is_over = threading.Lock(), False

    def __setitem__(self, number: int, process: subprocess.Popen) -> None:
        with self._lock:
            super().__setitem__(number, process)
            if self._is_over:
                processes.terminate(process)

    def end(self) -> None:
        with self._lock:
            self._is_over = True
            for process in list(self.values()):
                processes.terminate(process)


def _one(
    number: int, job: Job, resume: bool, cores: int, working: dict[int, subprocess.Popen]
) -> dict[str, Any]:
    row = {"output": str(job.output), "status": "done before", "seconds": 0.0, "message": ""}
    if resume and is_done(job.notebook, job.parameters, job.output) and not _was_cut_off(job):
        return row
    busy = f"Another batch executes a notebook into {str(job.output)!r}; its log is left alone."
    try:
        with outputs.held(job.log, busy, lambda: _require_log(job)) as log:
            return row | _executed(number, job, cores, working, log)
    except (RunError, ConfigError) as error:
        return row | {"status": "failed", "message": str(error)}
    except OSError as error:  # its folder went, a process could not be started: the others go on
        where = "" if error.filename is None else f"{str(error.filename)!r}: "
        return row | {"status": "failed", "message": f"{where}{files.reason(error)}"}


def _was_cut_off(job: Job) -> bool:
    """Whether the job was begun again after its output was made, and killed or stopped in the midst.

    The output is the older one then, while some of the tables and figures that it makes are newer.
    """
    if os.path.lexists(outputs.running(job.output)):
        return True
    try:
        said = files.read_end(job.log, LOG_BYTES)
    except OSError:  # a fresh checkout has no logs
        return False
    return bool(said.strip()) and EXECUTED not in said


def _executed(
    number: int, job: Job, cores: int, working: dict[int, subprocess.Popen], log: int
) -> dict[str, Any]:
    """How the job's process ended, which writes what it says to ``log``."""
    began, before = time.perf_counter(), _version(job.output)
    environment = {**os.environ, "HML_HEADLESS": "1"}
    environment.setdefault("OMP_NUM_THREADS", str(cores))
    with scratch.folder() as folder:
        given = folder / "parameters.yaml"
        given.write_text(yaml_files.text(job.parameters), encoding="utf-8")
        options = ["-f", given, "-o", job.output]
        if job.timeout is not None:
            options += ["--timeout", job.timeout]
        command = [sys.executable, "-P", "-m", "hml_core", "run", job.notebook, *options]
        with streams.copied(log, LOG_BYTES) as copy:
            os.write(copy.source, _header(job))
            process = working[number] = subprocess.Popen(
                processes.guarded([str(part) for part in command], GRACE_S),
                stdin=subprocess.DEVNULL,
                stdout=copy.source,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches it through us, once
            )
            copy.close()
            is_late = False
            try:
                _wait(process, job.timeout)
            except subprocess.TimeoutExpired:  # it does not even end by itself
                is_late = True
                processes.terminate(process)
                process.wait()
            finally:
                working.pop(number)
    status = _status(job, process.returncode, before)
    message = "" if status == "done" else _message(job.log, process.returncode, copy)
    if is_late and status != "done":
        status, message = "timed out", f"its process was not done after {job.timeout:g} s"
    if copy.error is not None:
        cut = f"its log is cut off ({files.reason(copy.error)})"
        message = f"{message}; {cut}" if message else cut
    return {
        "status": status,
        "seconds": round(time.perf_counter() - began, 1),
        "message": message,
    }


def _wait(process: subprocess.Popen, timeout: float | None) -> None:
    """TimeoutExpired some time after its limit; time in which this process was stopped does not count."""
    if timeout is None:
        process.wait()
        return
    patience = Patience(timeout + GRACE_S)
    while process.poll() is None:
        if patience.left() <= 0:
            raise subprocess.TimeoutExpired(process.args, timeout)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience.next_look())


def _version(path: Path) -> tuple[int, int] | None:
    """What tells a file from one that took its place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _status(job: Job, code: int, before: tuple[int, int] | None) -> str:
    """How a job ended: "done" if its process says so and the notebook there is whole and this job's."""
    if code == 0:
        return "done" if is_done(job.notebook, job.parameters, job.output) else "failed"
    if _version(job.output) == before:  # an older result tells nothing about this job
        return "failed"
    told = (record_of(job.output) or {}).get("status", "failed")
    return "failed" if told == "done" else told


def _message(log: Path, code: int, copy: streams.Copy | None = None) -> str:
    """The first line of the error that the job's process ended with; the log has the rest."""
    if code == 0:  # what it executed is not what is there now
        return "its notebook or its output was changed by somebody else meanwhile"
    try:
        text = files.read_end(log, LOG_BYTES)
        if copy is not None and copy.error is not None:  # it does not have the end
            text = copy.end.decode(errors="replace")
        # What was said while a bar was shown stands behind it.
        lines = text.strip().replace("]Error: ", "]\nError: ").splitlines()
        lines = lines[lines[:1] == [f"{OF_LOG}{log.with_suffix('.ipynb').name}"] :]
    except OSError as error:
        return f"its process ended with status {code}, and its log: {files.reason(error)}"
    last = next(
        (n for n, line in reversed(list(enumerate(lines))) if line.startswith("Error: ")), None
    )
    if last is not None:
        return lines[last].removeprefix("Error: ")
    if name := processes.died_of(code):
        return f"its process was ended by {name}"
    return " ".join(lines[-1:]) or f"its process ended with status {code}"
