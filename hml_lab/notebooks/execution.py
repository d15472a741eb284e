"""Headless execution of one notebook: a kernel of its own, a time limit, a record of what was done.

An executed notebook carries under ``metadata["hml_core"]`` its status ("done", "failed", "timed out",
"stopped"), parameters, the SHA-256 of its source, versions, git commit, start and duration, and names no
absolute path of the machine that executed it. It is "done" if every cell was executed to its end.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from tqdm import tqdm

from hml_core.errors import RunError
from hml_core.system import files, limits, paths, progress, provenance, quantities, streams
from hml_lab import places
from hml_lab.notebooks import kernels, outputs, private_paths
from hml_lab.notebooks.interface import ParameterError, check_parameters, from_here

STARTUP_TIMEOUT_S = 60


class _KernelNotStarted(Exception):
    """The kernel was gone before the first cell."""


class _Relay:
    """Says in the shell how far the runs of a cell are; what else a notebook prints stays in it."""

    def write(self, text: str) -> None:
        for line in filter(progress.LINE.match, text.splitlines()):
            tqdm.write(f"  {line}", file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


class _TimedOut(Exception):
    """The notebook took longer than it was given."""


def execute(
    notebook: str | Path,
    given: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    *,
    show_progress: bool = True,
    timeout: float | None = None,
) -> Path:
    """Execute a notebook headlessly, in its own folder, into ``output``.

    A kernel that fails to start is started a second time; nothing else is tried twice. The kernel and all
    that it starts end with the notebook, with the time limit, and with this process, however that ends.

    Parameters
    ----------
    notebook : path
    given : mapping
        Parameters; checked before anything is started. Relative paths mean the current folder.
    output : path
        Default ``my_results/notebooks/<name>.ipynb`` of the notebook's checkout. It is written beside and
        renamed in the end: until then an older result stays there. After a failure it holds what was
        executed; after SIGINT, SIGTERM or SIGHUP, too, unless it held a notebook that was done. Such a
        one also stays where no cell was begun.
    show_progress : bool
        Count the cells.
    timeout : float, optional
        Seconds after which the kernel and what it started are ended.

    Returns
    -------
    pathlib.Path
        ``output``.

    Raises
    ------
    ParameterError
        Before the kernel starts; also for an output in whose place there is something else than a result.
    ConfigError
        For an output that is no plain file of this machine.
    RunBusyError
        Where another process is executing into ``output``.
    RunError
        With the failed cell's message, or that the time was up.
    """
    notebook = paths.named(notebook, "the notebook", is_recorded=True)
    given = from_here(given or {})
    if timeout is not None:
        timeout = quantities.seconds(timeout, "`timeout`")
    check_parameters(notebook, given, timeout)
    is_default = output is None
    output = default_output(notebook) if is_default else paths.named(output, "the output")
    outputs.require_place(output, "the output")
    require_result(notebook, output, is_default=is_default)
    limits.require_files(limits.SEVERAL_PROCESSES, "a notebook's kernel")
    limits.require_threads(limits.THREADS, "a notebook's kernel")
    record = {
        "parameters": given,
        "sha256": files.sha256(notebook),
        "place": _place(notebook, output),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
    }
    with outputs.claimed(output) as partial:
        began = time.perf_counter()
        status = "failed"
        try:
            _execute(notebook, given, partial, output, show_progress, timeout)
            status = outputs.DONE
        except _TimedOut as error:
            status = "timed out"
            what = f"The executed part lies in {output}."
            if not _has_begun(partial):
                what = "Not one of its cells was begun."
            raise RunError(
                f"{notebook.name} was stopped: it was not done after {timeout:g} s. {what}"
            ) from error
        except KeyboardInterrupt:
            status = "stopped"
            raise
        finally:
            seconds = round(time.perf_counter() - began, 1)
            _keep(notebook, partial, output, {"status": status, "seconds": seconds, **record})
    return output


def require_result(notebook: Path, output: Path, *, is_default: bool) -> None:
    """What a notebook's result takes the place of is a result, too.

    Whoever names the place of a file that was written by hand, or that this very call reads, has mistaken
    it. Where results go by default, the one that lies there is this notebook's, not that of one of the
    same name.

    Raises
    ------
    ParameterError
    """
    if os.path.realpath(output) == os.path.realpath(notebook):
        raise ParameterError(f"The output would overwrite the notebook {str(notebook)!r} itself.")
    if not output.is_file() or not output.stat().st_size:
        return
    try:
        files.opened(output).close()
    except OSError as error:  # somebody else's
        raise ParameterError(
            f"{str(output)!r} cannot be read ({files.reason(error)}), and nothing else takes its place: "
            "give another output."
        ) from error
    if (record := record_of(output)) is None:
        raise ParameterError(
            f"{str(output)!r} is no result of {notebook.name}: give another output, or move that away."
        )
    if is_default and record.get("place") not in (None, _place(notebook, output)):
        raise ParameterError(
            f"{str(output)!r} is the result of another notebook that is called {notebook.name}, too: "
            "give an output."
        )


def _place(notebook: Path, output: Path) -> str:
    """Where a notebook lies, seen from its result: both may move together. No name of a folder is told."""
    seen = os.path.relpath(os.path.realpath(notebook), os.path.realpath(output.parent))
    return hashlib.sha256(os.fsencode(seen)).hexdigest()[:16]


def default_output(notebook: str | Path) -> Path:
    """Where an executed notebook goes when nobody says so: among one's own results."""
    root = places.checkout(Path(notebook).parent)
    return root / places.RESULTS / "notebooks" / Path(notebook).name


def _execute(
    notebook: Path,
    given: Mapping[str, Any],
    partial: Path,
    output: Path,
    show_progress: bool,
    timeout: float | None,
) -> None:
    """Execute every cell, or say why not."""
    try:
        try:
            _execute_once(notebook, given, partial, output, show_progress, timeout)
        except _KernelNotStarted as error:
            warnings.warn(f"The kernel did not start ({error}); trying once more.", stacklevel=3)
            _execute_once(notebook, given, partial, output, show_progress, timeout)
    except _KernelNotStarted as error:
        raise RunError(
            f"{notebook.name} was not executed: its kernel did not start ({error})."
        ) from error
    content = outputs.read(partial)
    if content is None:
        raise RunError(f"Cannot write {str(output)!r}: what was executed could not be stored.")
    if (number := outputs.stopped_at(content)) is not None:
        raise RunError(
            f"Cell {number} of {notebook.name} was not executed to its end: the notebook was left there "
            f"(SystemExit). What was executed lies in {output}."
        )


def _execute_once(
    notebook: Path,
    given: Mapping[str, Any],
    partial: Path,
    output: Path,
    show_progress: bool,
    timeout: float | None,
) -> None:
    with warnings.catch_warnings():
        # papermill still imports names that its own dependencies have deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        import papermill
        from papermill.exceptions import PapermillExecutionError

    managers: list[Any] = []
    with (
        kernels.socket_folder() as sockets,
        kernels.environment(sockets),
        kernels.time_limit(timeout, managers) as time_is_up,
        streams.copied(1) as said,
        streams.copied(2) as complained,
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.filterwarnings("ignore", r"The specified file .* does not end in one of")
                papermill.execute_notebook(
                    _for_papermill(notebook),
                    _for_papermill(partial),
                    parameters=dict(given),
                    cwd=str(notebook.parent),
                    progress_bar=show_progress,
                    log_output=False,
                    stdout_file=_Relay() if show_progress else None,
                    start_timeout=STARTUP_TIMEOUT_S,
                    kernel_name="python3",  # that of the running environment
                    language="python",
                    kernel_manager_class=kernels.manager(
                        sockets, managers, (said.source, complained.source)
                    ),
                )
        except PapermillExecutionError as error:
            raise RunError(
                f"Cell {error.exec_count} of {notebook.name} failed with {error.ename}: "
                f"{error.evalue}\nThe executed part lies in {output}."
            ) from error
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            if time_is_up.is_set():
                raise _TimedOut from error
            if isinstance(error, OSError) and error.errno in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EFBIG,
            ):
                raise RunError(f"Cannot write {str(output)!r}: {error.strerror}.") from error
            if isinstance(error, RuntimeError) and not _has_begun(partial):
                raise _KernelNotStarted(str(error)) from error
            # A kernel that dies, a language that papermill does not know.
            raise RunError(f"{notebook.name} could not be executed: {error}") from error


def _for_papermill(path: Path) -> str:
    """A path as papermill takes it: relative, since it records it. Braces would name parameters, and a
    dash the standard input."""
    relative = os.path.relpath(path)
    if relative.startswith("-"):
        relative = os.path.join(os.curdir, relative)
    return relative.replace("{", "{{").replace("}", "}}")


def _has_begun(partial: Path) -> bool:
    """Whether a cell was handed to the kernel."""
    content = outputs.read(partial)
    cells = [] if content is None else content.cells
    # (papermill calls every cell "completed" in the end; only the times are told truly.)
    return any(cell.metadata.get("papermill", {}).get("start_time") for cell in cells)


# The record -------------------------------------------------------------------------------------


def record_of(executed: str | Path) -> dict[str, Any] | None:
    """What :func:`execute` recorded in an executed notebook; None where it did not end."""
    content = outputs.read(executed)
    return (outputs.record(content) or None) if content is not None else None


def is_done(notebook: str | Path, given: Mapping[str, Any], executed: str | Path) -> bool:
    """Whether ``executed`` is the whole result of this notebook with these parameters."""
    content, given = outputs.read(executed), from_here(given)
    if content is None or not Path(notebook).is_file():
        return False
    record = outputs.record(content)
    if not record or outputs.status(content) != outputs.DONE:
        return False
    as_recorded = private_paths.hidden_values(dict(given), given, Path(notebook).parent)
    same = record["parameters"] == json.loads(json.dumps(outputs.storable(as_recorded)))
    return same and record.get("sha256") == files.sha256(notebook)


def _keep(notebook: Path, partial: Path, output: Path, record: dict[str, Any]) -> None:
    """Put what was executed, with its record, in the place of ``output``.

    Where that cannot be written, the older result is still there and ``partial`` holds what was executed.
    Nothing, where the time was up so early: then it is the notebook as it was.
    """
    content = outputs.read(partial)
    status = record["status"]
    if content is None and status == "timed out":
        content = outputs.read(notebook)
    keeps_older = status == "stopped" or (status != outputs.DONE and not _has_begun(partial))
    older = outputs.read(output) if keeps_older else None
    if content is not None and (older is None or outputs.status(older) != outputs.DONE):
        content.metadata.setdefault("papermill", {})["output_path"] = os.path.relpath(output)
        content.metadata["hml_core"] = record
        told = outputs.storable(
            private_paths.without(content, record["parameters"], notebook.parent)
        )
        outputs.require_plain(output, "the output")
        require_result(notebook, output, is_default=False)  # it may have come meanwhile
        files.write_atomically(output, nbformat.writes(told, allow_nan=False) + "\n")
    partial.unlink(missing_ok=True)
