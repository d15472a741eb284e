"""Headless execution of one notebook: a kernel of its own, a time limit, a record of what was done.

An executed notebook carries under ``metadata["hml_core"]`` its status ("done", "failed", "timed out"),
parameters, the SHA-256 of its source, versions, git commit, start and duration, and names no absolute
path of the machine that executed it.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from hml_core.errors import ConfigError, RunError
from hml_core.runs import environment
from hml_core.system import files
from hml_lab import places
from hml_lab.notebooks.interface import ParameterError, check_parameters, from_here

STARTUP_TIMEOUT_S = 60


class _KernelNotStarted(Exception):
    """The kernel was gone before the first cell."""


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

    A kernel that fails to start is started a second time; nothing else is tried twice.

    Parameters
    ----------
    notebook : path
    given : mapping
        Parameters; checked before anything is started. Relative paths mean the current folder.
    output : path
        Default ``my_results/notebooks/<name>.ipynb`` of the notebook's checkout. After a failure it holds
        what was executed.
    show_progress : bool
        Count the cells.
    timeout : float, optional
        Seconds after which the kernel is killed.

    Returns
    -------
    pathlib.Path
        ``output``.

    Raises
    ------
    ParameterError
        Before the kernel starts.
    RunError
        With the failed cell's message, or that the time was up.
    """
    notebook, given = Path(notebook), from_here(given or {})
    check_parameters(notebook, given)
    output = Path(output or default_output(notebook))
    _check_output(notebook, output)
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"Expected `timeout` to be a number of seconds > 0, got {timeout!r}.")
    record = {
        "parameters": given,
        "sha256": files.sha256(notebook),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": environment.versions(),
        "git_commit": environment.git_commit(),
    }
    output.unlink(missing_ok=True)  # an older result must not be taken for this one's
    began = time.perf_counter()
    status = "failed"
    try:
        try:
            _execute_once(notebook, given, output, show_progress, timeout)
        except _KernelNotStarted as error:
            warnings.warn(f"The kernel did not start ({error}); trying once more.", stacklevel=2)
            _execute_once(notebook, given, output, show_progress, timeout)
        status = "done"
    except _KernelNotStarted as error:
        raise RunError(
            f"{notebook.name} was not executed: its kernel did not start ({error})."
        ) from error
    except _TimedOut as error:
        status = "timed out"
        raise RunError(
            f"{notebook.name} was stopped: it was not done after {timeout:g} s. The executed part lies "
            f"in {output}."
        ) from error
    finally:
        if output.exists():
            seconds = round(time.perf_counter() - began, 1)
            _finish(output, {"status": status, "seconds": seconds, **record}, notebook.parent)
    return output


def default_output(notebook: str | Path) -> Path:
    """Where an executed notebook goes when nobody says so: among one's own results."""
    root = places.checkout(Path(notebook).parent)
    return root / places.RESULTS / "notebooks" / Path(notebook).name


def _check_output(notebook: Path, output: Path) -> None:
    if output.resolve() == notebook.resolve():
        raise ParameterError(f"The output would overwrite the notebook {str(notebook)!r} itself.")
    if output.is_dir():
        raise ParameterError(f"The output {str(output)!r} is a folder: expected a file name.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write {str(output)!r}: {error.strerror or error}.") from error


def _execute_once(
    notebook: Path,
    given: Mapping[str, Any],
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
        tempfile.TemporaryDirectory(prefix="hml-") as sockets,
        _headless(),
        _time_limit(timeout, managers) as time_is_up,
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                # Relative paths: papermill records them in the executed notebook.
                papermill.execute_notebook(
                    os.path.relpath(notebook),
                    os.path.relpath(output),
                    parameters=dict(given),
                    cwd=str(notebook.parent),
                    progress_bar=show_progress,
                    log_output=False,
                    start_timeout=STARTUP_TIMEOUT_S,
                    kernel_name="python3",  # that of the running environment
                    language="python",
                    kernel_manager_class=_kernel_manager(sockets, managers),
                )
        except PapermillExecutionError as error:
            raise RunError(
                f"Cell {error.exec_count} of {notebook.name} failed with {error.ename}: "
                f"{error.evalue}\nThe executed part lies in {output}."
            ) from error
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            if time_is_up.is_set():
                raise _TimedOut from error
            if isinstance(error, RuntimeError) and not _has_begun(output):
                raise _KernelNotStarted(str(error)) from error
            # A kernel that dies, a language that papermill does not know.
            raise RunError(f"{notebook.name} could not be executed: {error}") from error


def _has_begun(output: Path) -> bool:
    """Whether a cell was handed to the kernel."""
    try:
        cells = nbformat.read(output, as_version=4).cells
    except (OSError, ValueError):
        return False
    # (papermill calls every cell "completed" in the end; only the times are told truly.)
    return any(cell.metadata.get("papermill", {}).get("start_time") for cell in cells)


def _kernel_manager(sockets: str, managers: list[Any]) -> type:
    """A kernel manager that talks over sockets in a private folder instead of TCP ports.

    Two batches can then not race for a port, and nothing listens on the network. (Left to itself,
    jupyter_client would put the sockets of all kernels into the working folder, under one name.) Each
    instance adds itself to ``managers``.
    """
    from jupyter_client import AsyncKernelManager

    class SocketFileKernelManager(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(**{"transport": "ipc", "ip": f"{sockets}/kernel", **options})
            managers.append(self)

    return SocketFileKernelManager


@contextmanager
def _time_limit(timeout: float | None, managers: list[Any]) -> Iterator[threading.Event]:
    """Kill the kernels after ``timeout`` seconds; the event says that it happened."""
    time_is_up = threading.Event()

    def kill() -> None:
        time_is_up.set()
        for manager in managers:
            process = getattr(manager.provisioner, "process", None)
            if process is not None:
                process.kill()

    timer = threading.Timer(timeout or 0, kill)
    if timeout is not None:
        timer.start()
    try:
        yield time_is_up
    finally:
        timer.cancel()


@contextmanager
def _headless() -> Iterator[None]:
    """Tell the kernels started inside that nobody watches them (see hml_core.system.progress)."""
    before = os.environ.get("HML_HEADLESS")
    os.environ["HML_HEADLESS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HML_HEADLESS"]
        else:
            os.environ["HML_HEADLESS"] = before


# The record -------------------------------------------------------------------------------------


def record_of(executed: str | Path) -> dict[str, Any] | None:
    """What :func:`execute` recorded in an executed notebook; None where it did not end."""
    try:
        return dict(nbformat.read(executed, as_version=4).metadata["hml_core"])
    except Exception:  # no notebook, no record: nbformat raises its validators' own errors
        return None


def is_done(notebook: str | Path, given: Mapping[str, Any], executed: str | Path) -> bool:
    """Whether ``executed`` is the whole result of this notebook with these parameters."""
    record, given = record_of(executed), from_here(given)
    if record is None or record["status"] != "done" or not Path(notebook).is_file():
        return False
    as_recorded = _without_machine(json.dumps(dict(given)), given, Path(notebook).parent)
    return record["sha256"] == files.sha256(notebook) and record["parameters"] == json.loads(
        as_recorded
    )


def _finish(output: Path, record: dict[str, Any], folder: Path) -> None:
    content = nbformat.read(output, as_version=4)
    content.metadata["hml_core"] = record
    text = nbformat.writes(content)
    files.write_atomically(output, _without_machine(text, record["parameters"], folder) + "\n")


def _without_machine(text: str, given: Mapping[str, Any], folder: Path) -> str:
    """The text of a notebook without the paths of this machine.

    Parameters become relative to the notebook's folder, which is where its kernel runs.
    """
    names = {
        str(Path.cwd()): ".",
        str(Path(__file__).resolve().parents[2]): ".",
        str(places.checkout(folder)): ".",
        sys.prefix: "<environment>",
        sys.base_prefix: "<python>",
        str(Path.home()): "~",
    }
    for value in given.values():
        if isinstance(value, str) and os.path.isabs(value):
            names[value.rstrip("/")] = os.path.relpath(value, folder)
    text = re.sub(r"/[\w./-]*/ipykernel_\d+/\d+\.py", "<cell>", text)
    for path in sorted(names, key=len, reverse=True):
        if path != "/":
            text = re.sub(re.escape(path) + r"(?![\w.-])", lambda _, n=names[path]: n, text)
    return text
