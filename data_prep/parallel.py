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

from hml_core import files
from hml_core.errors import DataError

Process = Callable[[Path, Path, Any], dict[str, Any]]

AHEAD = 4  # files handed out ahead of each worker: memory must not grow with the data set


def in_parallel(
    process: Process, todo: pd.DataFrame, folder: Path, options: Any, workers: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Process the file of each row (``path`` → ``folder / file``), in whichever order they end.

    Parameters
    ----------
    process : callable
        ``process(source, target, options)`` → what is to be remembered, or ``{"error": reason}``. It runs
        in processes that import its module and nothing else.
    todo : DataFrame
        Columns ``id``, ``path`` and ``file``.

    Yields
    ------
    row, result

    Raises
    ------
    DataError
        Where a worker process dies.
    """
    rows = todo.itertuples()
    context = multiprocessing.get_context("spawn")  # nothing of this process goes along
    running: dict[Future, Any] = {}
    with ProcessPoolExecutor(min(workers, max(len(todo), 1)), context) as pool:
        try:
            while True:
                while len(running) < AHEAD * workers and (row := next(rows, None)) is not None:
                    running[pool.submit(process, row.path, folder / row.file, options)] = row
                if not running:
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
