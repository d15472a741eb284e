"""Many files in parallel, with a journal, so that an interrupted preparation goes on where it was."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep import worker
from data_prep.image_files import cannot_write
from data_prep.output import foreign
from hml_core.errors import DataError, RunError
from hml_core.system import files, limits, processes, quantities
from hml_core.system.progress import Progress

Process = Callable[[Path | bytes, Path, Any], dict[str, Any]]

MOST_WORKERS = 1024
AHEAD = 4  # files handed out ahead of each worker: memory must not grow with the data set
PATIENCE_S = 2.0  # with workers that are asked to end


def checked_workers(workers: int | None) -> int:
    """The number of processes; default: one for each usable core.

    Raises
    ------
    ConfigError
        For less than one.
    """
    if workers is None:
        return limits.usable_cores()
    return quantities.whole(workers, "`workers`", high=MOST_WORKERS)


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

    Raises
    ------
    DataError
        See :func:`in_parallel`.
    RunError
        Where something cannot be written, such as on a full disk.
    """
    folder = journal.path.parent
    try:
        (folder / "prepared.json").unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder / "prepared.json", error) from error
    todo = records[~records["id"].isin(journal.of(records, folder))]
    before = len(records) - len(todo)
    work = _files(todo) if sources is None else sources(todo)
    stamps: dict[str, Any] = {}

    def handed_out() -> Iterator[tuple[Any, Any]]:
        for row, source in work:
            stamps[row.id] = journal.source_of(row)
            yield row, source

    with Progress(len(records), name, enabled=progress, initial=before, unit="images") as bar:
        for row, result in in_parallel(
            process, handed_out(), folder, options, min(workers, len(todo))
        ):
            journal.add(row, result, stamps.pop(row.id))
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


def why(rejected: pd.DataFrame, most: int = 3) -> str:
    """The reasons of :func:`rejected` with their numbers, the most frequent ones first.

    >>> why(pd.DataFrame({"reason": ["does not decode", "is empty", "does not decode"]}))
    '2 does not decode; 1 is empty'
    """
    counts = rejected["reason"].value_counts()
    texts = [f"{number} {reason[:200]}" for reason, number in counts.head(most).items()]
    rest = int(counts.iloc[most:].sum())
    return "; ".join([*texts, f"{rest} for other reasons"] if rest else texts)


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
    limits.require_files(limits.SEVERAL_PROCESSES, "preparing images in several processes")
    limits.require_semaphores("preparing images in several processes")
    limits.require_threads(
        limits.THREADS_OF_A_WORKER * (1 + max(workers, 1)), "preparing images in several processes"
    )
    context = multiprocessing.get_context("spawn")  # nothing of this process goes along
    running: dict[Future, Any] = {}
    workers = max(workers, 1)
    failure: DataError | None = None
    try:
        with processes.only_installed_modules(), _pool(workers, context) as pool:
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
                # (With a time, so that a signal is heard that another thread was given.)
                ended, _ = wait(running, timeout=processes.LOOK_S, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process died (out of memory?). What was done is kept: the same call goes on "
            "from there, e.g. with fewer `workers`."
        ) from error


@contextlib.contextmanager
def _pool(workers: int, context: BaseContext) -> Iterator[ProcessPoolExecutor]:
    """Processes that are ended where the block is left by a signal, whatever they wait for; what they have
    not begun is not done.

    One that reads from a dead network never answers; the pool itself would wait for it.
    """
    pool, answers = ProcessPoolExecutor(workers, context, worker.begin), True
    try:
        yield pool
    except (KeyboardInterrupt, GeneratorExit):
        answers = False
        started = list((pool._processes or {}).values())
        ways = {BaseProcess.terminate: PATIENCE_S, BaseProcess.kill: processes.KILLED_S}
        for act, patience in ways.items():
            until = time.monotonic() + patience
            for one in started:
                with contextlib.suppress(ValueError, OSError):  # it has ended by itself
                    act(one)
            for one in started:
                with contextlib.suppress(ValueError, AssertionError):
                    one.join(max(until - time.monotonic(), 0))
        raise
    finally:
        pool.shutdown(wait=answers, cancel_futures=True)


class Journal:
    """What was done to each image, a line of JSON each; the first line says with which options.

    Parameters
    ----------
    path : Path
    options : dict
    needed : mapping
        What an entry of a prepared image must hold, and of which type, to be of use later; one that does
        not is done again.
    container : Path, optional
        The file that all images come out of, where they are not files of their own: another one makes
        all of them anew.

    Raises
    ------
    DataError
        For a journal of other options, and a file that is none of ours.
    RunError
        Where it cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        options: dict[str, Any],
        needed: Mapping[str, type],
        container: Path | None = None,
    ) -> None:
        self.path, self.options, self.container = path, options, container
        self.entries: dict[str, dict[str, Any]] = {}
        # Taken before anything is read of it: one that is replaced meanwhile is not taken for this one.
        self.container_stamp = None if container is None else _stamp(container)
        lines = _lines(path, needed)
        if lines and lines[0] != options:
            raise DataError(
                f"{str(path.parent)!r} was prepared with other options "
                f"({_difference(lines[0], options)}): expected the same ones, or another output folder."
            )
        for line in lines[1:]:
            self.entries[line["id"]] = line
        # Written anew: a line that a crash left half-written must not run into the next one.
        self._write()

    def forget(self) -> None:
        """Nothing counts as done any more.

        Raises
        ------
        RunError
            Where the journal cannot be written.
        """
        self.entries = {}
        self._write()

    def _write(self) -> None:
        lines = [self.options, *self.entries.values()]
        files.write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        self.rejected = sum("error" in entry for entry in self.entries.values())

    def source_of(self, row: Any) -> list[int] | None:
        """Size and time of change of what an image is made of."""
        return _stamp(row.path) if self.container is None else self.container_stamp

    def of(self, records: pd.DataFrame, folder: Path) -> set[str]:
        """Images whose result is still there and whose source has not changed."""
        return {
            row.id
            for row in records.itertuples()
            if (entry := self.entries.get(row.id)) is not None
            and "error" not in entry
            and entry["source"] == self.source_of(row)
            and entry["output"] == _stamp(folder / row.file)
        }

    def add(self, row: Any, result: dict[str, Any], source: list[int] | None = None) -> None:
        """Remember what was done to an image, whose ``source`` (:meth:`source_of`) was taken before it was
        read: one that changes meanwhile is done again by the next call.

        Raises
        ------
        RunError
            Where it cannot be written down.
        """
        output = self.path.parent / row.file
        self.rejected += ("error" in result) - ("error" in self.entries.get(row.id, {}))
        entry = {
            "id": row.id,
            "source": source or self.source_of(row),
            "output": _stamp(output),
            **result,
        }
        self.entries[row.id] = entry
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _lines(path: Path, needed: Mapping[str, type]) -> list[dict[str, Any]]:
    """The options and the whole entries of a journal; nothing where there is none.

    Entries that are left out, half-written or damaged, are done again. The options cannot be half-written.

    Raises
    ------
    DataError
        For a file that does not begin with options: somebody else's.
    RunError
        Where it cannot be read.
    """
    try:
        content = files.read_bytes(path, files.LARGEST_TABLE)
        texts = content.decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    options, *entries = [_parsed(text) for text in texts] or [None]
    if not isinstance(options, dict) or "archive" not in options:
        raise foreign(path.parent, path.name)
    return [options, *(entry for entry in entries if _is_entry(entry, needed))]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_entry(line: Any, needed: Mapping[str, type]) -> bool:
    if not isinstance(line, dict) or not {"source", "output"} <= line.keys():
        return False
    expected = {"error": str} if "error" in line else needed
    return all(isinstance(line.get(key), kind) for key, kind in {"id": str, **expected}.items())


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
