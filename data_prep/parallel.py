"""Many files in parallel, with a journal, so that an interrupted preparation goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pandas as pd

from hml_core import devices, files
from hml_core.errors import ConfigError, DataError
from hml_core.progress import Progress

Process = Callable[[Path | bytes, Path, Any], dict[str, Any]]

AHEAD = 4  # files handed out ahead of each worker: memory must not grow with the data set


def checked_workers(workers: int | None) -> int:
    """The number of processes; default: one for each usable core.

    Raises
    ------
    ConfigError
        For less than one.
    """
    if workers is None:
        return devices.usable_cores()
    if isinstance(workers, bool) or workers < 1:
        raise ConfigError(f"Expected `workers` ≥ 1, got {workers!r}.")
    return workers


def work_through(
    process: Process,
    records: pd.DataFrame,
    journal: Journal,
    options: Any,
    workers: int,
    *,
    name: str,
    progress: bool,
    sources: Callable[[pd.DataFrame], Iterator[tuple[Any, Path | bytes]]] | None = None,
) -> int:
    """Do what the journal does not know as done; how many images it knew.

    ``prepared.json`` beside the journal is gone until whoever calls this writes it anew. ``sources`` turns
    the records that are left into (row, where its image is); default: the file at ``path``.
    """
    folder = journal.path.parent
    (folder / "prepared.json").unlink(missing_ok=True)
    todo = records[~records["id"].isin(journal.of(records, folder))]
    before = len(records) - len(todo)
    work = _files(todo) if sources is None else sources(todo)
    with Progress(len(records), name, enabled=progress, initial=before, unit="images") as bar:
        for row, result in in_parallel(process, work, folder, options, min(workers, len(todo))):
            journal.add(row, result)
            bar.update(f"{journal.rejected} rejected" if journal.rejected else "")
    return before


def _files(todo: pd.DataFrame) -> Iterator[tuple[Any, Path]]:
    return ((row, row.path) for row in todo.itertuples())


def rejected(records: pd.DataFrame, journal: Journal, names: pd.Series) -> pd.DataFrame:
    """Images that could not be used: ``id``, ``file`` (of ``names``, one for each record), ``reason``."""
    rows = [
        {"id": image, "file": name, "reason": entry["error"]}
        for image, name in zip(records["id"], names, strict=True)
        if "error" in (entry := journal.entries[image])
    ]
    return pd.DataFrame(rows, columns=["id", "file", "reason"])


def in_parallel(
    process: Process,
    work: Iterator[tuple[Any, Path | bytes]],
    folder: Path,
    options: Any,
    workers: int,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Process images (→ ``folder / row.file``), in whichever order they end.

    Parameters
    ----------
    process : callable
        ``process(source, target, options)`` → what is to be remembered, or ``{"error": reason}``. It runs
        in processes that import its module and nothing else.
    work : iterator
        Rows with ``id`` and ``file``, and where the image is: a file, or its content. It is asked only
        for a few images ahead of the workers.

    Yields
    ------
    row, result

    Raises
    ------
    DataError
        Where a worker process dies; that of ``work``, after all that it gave before.
    """
    context = multiprocessing.get_context("spawn")  # nothing of this process goes along
    running: dict[Future, Any] = {}
    workers = max(workers, 1)
    with ProcessPoolExecutor(workers, context) as pool:
        try:
            failure: DataError | None = None
            while True:
                try:
                    while len(running) < AHEAD * workers and (one := next(work, None)) is not None:
                        row, source = one
                        running[pool.submit(process, source, folder / row.file, options)] = row
                except DataError as error:  # of the source: what was handed out is still done
                    failure = error
                if not running:
                    if failure is not None:
                        raise failure
                    return
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "A worker process died (out of memory?). What was done is kept: the same call goes on "
                "from there, e.g. with fewer `workers`."
            ) from error
        finally:
            for future in running:
                future.cancel()


class Journal:
    """What was done to each image, a line of JSON each; the first line says with which options."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path, self.entries = path, {}
        lines = _lines(path)
        if lines and lines[0] != options:
            raise DataError(
                f"{str(path.parent)!r} was prepared with other options "
                f"({_difference(lines[0], options)}): expected the same ones, or another output folder."
            )
        for line in lines[1:]:
            self.entries[line["id"]] = line
        # Written anew: a line that a crash left half-written must not run into the next one.
        text = "".join(json.dumps(line) + "\n" for line in [options, *self.entries.values()])
        files.write_atomically(path, text)
        self.rejected = sum("error" in entry for entry in self.entries.values())

    def of(self, records: pd.DataFrame, folder: Path) -> set[str]:
        """Images whose result is still there and whose source has not changed."""
        return {
            row.id
            for row in records.itertuples()
            if (entry := self.entries.get(row.id)) is not None
            and "error" not in entry
            and entry["source"] == _stamp(row.path)
            and entry["output"] == _stamp(folder / row.file)
        }

    def add(self, row: Any, result: dict[str, Any]) -> None:
        output = self.path.parent / row.file
        self.rejected += ("error" in result) - ("error" in self.entries.get(row.id, {}))
        entry = {"id": row.id, "source": _stamp(row.path), "output": _stamp(output), **result}
        self.entries[row.id] = entry
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal."""
    found = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # half-written, or damaged: done again
            if isinstance(line, dict) and (not found or "id" in line):
                found.append(line)
    return found


def _stamp(path: Path) -> list[int] | None:
    """Size and time of change of a file: enough to notice that it is another one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name}: {before.get(name)!r}, not {now.get(name)!r}" for name in names)
