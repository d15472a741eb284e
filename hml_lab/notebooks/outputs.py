"""Executed notebooks as files: written beside and renamed, held by one process; what counts as done."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import reprlib
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from hml_core.errors import ConfigError, RunBusyError, RunError
from hml_core.system import files, paths
from hml_lab import places

DONE = "done"
ENDING_S = 10.0  # so long the processes of a batch that was killed may need to end
POLL_S = 0.1
UNFINISHED = "not finished"  # what a notebook is that nobody executed to its end
SKIPPED, MAY_FAIL = "skip-execution", "raises-exception"  # tags that nbclient knows


def require_plain(path: Path, what: str, room: int = files.BESIDE) -> None:
    """Refuse a path where there is anything but a plain file of no run record, or nothing.

    A link would be replaced instead of what it names; a device or a pipe is no place for a result.
    ``room``: by so many bytes names are longer that are made of it meanwhile.

    Raises
    ------
    ConfigError
    """
    paths.named(path, what, is_recorded=True, room=room)
    places.require_no_record(path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    if stat.S_ISDIR(mode):
        raise ConfigError(f"Expected {what} to be a file name, got {str(path)!r}: it is a folder.")
    if stat.S_ISLNK(mode):
        raise ConfigError(
            f"Expected {what} to be a plain file, got {str(path)!r}: it is a link to "
            f"{os.readlink(path)!r}; name that file itself."
        )
    if not stat.S_ISREG(mode):
        raise ConfigError(
            f"Expected {what} to be a plain file, got {str(path)!r}: it is a device, a pipe or a socket."
        )


def require_place(path: Path, what: str) -> None:
    """Refuse a path that no file can be written to, before anything is computed for it.

    Raises
    ------
    ConfigError, RunError
    """
    require_plain(path, what)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if _is_kept(path):
            raise OSError(errno.EPERM, "it is another user's, in a folder where each keeps his own")
    except OSError as error:
        raise RunError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def _is_kept(path: Path) -> bool:
    """Whether the system lets nobody but another user replace the file: a folder's sticky bit."""
    if not path.exists() or not hasattr(os, "geteuid"):
        return False
    owners = {path.lstat().st_uid, path.parent.stat().st_uid, 0}
    is_sticky = path.parent.stat().st_mode & stat.S_ISVTX
    return bool(is_sticky) and os.geteuid() not in owners


def running(output: Path) -> Path:
    """The file beside ``output`` that a notebook is executed into; left where its process is killed."""
    return output.with_name(f".{output.name}.running")


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[Path]:
    """The file beside ``output`` that a notebook is executed into, until it is renamed.

    It is this process's as long as that lives: the lock is the kernel's. One that a killed process left is
    begun anew.

    Raises
    ------
    RunBusyError
        Where another process is executing into ``output``.
    """
    partial = running(output)
    require_plain(partial, "the file of a notebook that is executed", room=0)
    busy = f"Another process is executing a notebook into {str(output)!r}."
    with held(partial, busy, wait_s=ENDING_S):
        files.remove_half_written(output.parent, [output.name])  # of one that was killed
        yield partial


@contextlib.contextmanager
def held(
    path: Path, busy: str, require_ours: Callable[[], None] = lambda: None, *, wait_s: float = 0.0
) -> Iterator[int]:
    """A file of ours, empty and open for writing, which no other process holds so; the handle.

    It is held as long as this process, or one that was given the handle, has it open. ``require_ours``
    raises where something else lies there: it is called before anything is changed.

    Raises
    ------
    RunBusyError
        With the message ``busy``, where another one still holds it after ``wait_s`` seconds; then it is
        not touched.
    """
    end = time.monotonic() + wait_s
    while True:
        try:
            handle = _locked(path)
            break
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise RunBusyError(busy) from error
            time.sleep(POLL_S)
        except OSError as error:
            raise RunError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    try:
        require_ours()
        os.truncate(handle, 0)
        yield handle
    finally:
        os.close(handle)


def _locked(path: Path) -> int:
    """An open file with a lock on it, where the file system has locks; who held it may have removed it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        handle = os.open(path, flags, 0o666)
        try:
            if not files.locked(handle):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def read(path: str | Path) -> nbformat.NotebookNode | None:
    """A notebook; None for what is none. (Too little memory tells nothing about the file.)"""
    try:
        return parsed(path)
    except (MemoryError, ImportError):
        raise
    except Exception:  # nbformat raises its validators' and decoders' own errors
        return None


def parsed(path: str | Path) -> nbformat.NotebookNode:
    """A notebook, of a regular file of at most 1 GiB, in which what is looked at is of its kind.

    (No more is asked: hand-written ones, and those of other programs, lack what the format wants and
    nobody reads.)

    Raises
    ------
    Exception
        OSError for what is no such file, ValueError for a part of another kind, or whatever nbformat's
        decoders raise.
    """
    content = nbformat.reads(files.read_text(path, files.LARGEST_TABLE), as_version=4)
    _require_kinds(content.metadata, {"papermill": dict}, "metadata")
    for number, cell in enumerate(content.cells, 1):
        where = f"cell {number}: its"
        _require_kinds(cell, _OF_CELL, where)
        _require_kinds(cell.metadata, _OF_METADATA, f"{where} metadata:")
        for output in cell.get("outputs", []):
            _require_kinds(output, {"output_type": str}, f"{where} output:")
        if not all(isinstance(tag, str) for tag in cell.metadata.get("tags", [])):
            raise ValueError(f"{where} tags are {reprlib.repr(cell.metadata.tags)}")
    return content


_OF_CELL = {"cell_type": str, "source": str, "metadata": dict, "outputs": list}
_OF_METADATA = {"papermill": dict, "tags": list}


def _require_kinds(part: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> None:
    """ValueError for a value of another kind than its name has."""
    for name, kind in kinds.items():
        if not isinstance(part.get(name, kind()), kind):
            raise ValueError(f"{where} {name} is {reprlib.repr(part[name])}")


def stopped_at(content: nbformat.NotebookNode) -> int | None:
    """The number of the first cell that was not executed to its end, from 1; None if all were.

    A cell that raised (SystemExit is an exception, too) did not end, unless it is tagged to raise.
    """
    for number, cell in enumerate(content.cells, 1):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or not cell.source.strip() or SKIPPED in tags:
            continue
        raised = any(output.output_type == "error" for output in cell.get("outputs", []))
        told = cell.metadata.get("papermill", {})
        if raised and MAY_FAIL not in tags:
            return number
        if cell.get("execution_count") is None or told.get("status") in ("running", "pending"):
            return number
    return None


def status(content: nbformat.NotebookNode) -> str:
    """How the execution ended, by its record and by its cells: a record is not believed against them."""
    told = record(content).get("status", DONE)
    if told != DONE or stopped_at(content) is None:
        return told
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    return "failed" if any(output.output_type == "error" for output in outputs) else UNFINISHED


def storable(value: Any) -> Any:
    """The same value without what JSON and UTF-8 have not: NaN, infinity, halves of characters.

    They become text: "nan" and "-inf", as in the config of a run, and the escapes of half characters.

    >>> storable({"delta": [1.0, float("inf")]})
    {'delta': [1.0, 'inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return type(value)({storable(key): storable(held) for key, held in value.items()})
    if isinstance(value, (list, tuple)):
        return [storable(held) for held in value]
    return value


def record(content: nbformat.NotebookNode) -> dict[str, Any]:
    """What :func:`hml_lab.notebooks.execute` recorded; empty where it did not."""
    found = content.metadata.get("hml_core")
    kinds = {
        "status": str,
        "seconds": (int, float),
        "started": str,
        "parameters": dict,
    }
    if not isinstance(found, dict) or not all(
        isinstance(found.get(name), kind) for name, kind in kinds.items()
    ):
        return {}
    return json.loads(json.dumps(found))


def record_of_papermill(content: nbformat.NotebookNode) -> dict[str, Any]:
    """When, in how long and with which parameters papermill itself executed it, as far as it says."""
    told = content.metadata.get("papermill")
    told = told if isinstance(told, dict) else {}
    kinds = {
        "started": ("start_time", str),
        "seconds": ("duration", (int, float)),
        "parameters": ("parameters", dict),
    }
    found = {
        ours: told[theirs]
        for ours, (theirs, kind) in kinds.items()
        if isinstance(told.get(theirs), kind)
    }
    return json.loads(json.dumps(found))
