"""What somebody's own code started and a command would leave behind: processes, and threads that go on.

A loss or data set may fork, start programs or threads and never end them. They end with the command: it
adopts the processes whose own parents are gone (Linux: ``PR_SET_CHILD_SUBREAPER``), asks all that are
there in its end to end, kills them soon after, and says so. What a command that is killed (``kill -9``)
leaves, a watcher beside it ends (:func:`hml_core.system.processes.beside`). Threads that are not daemons
would keep the interpreter from ending: they have the same time. Daemons go on while the interpreter takes
itself apart, and one that is within a library of C++ then aborts it: they are known by whoever ends it.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hml_core.system import processes

PATIENCE_S = 2.0  # for processes that are asked to end, and for threads
LOOK_S = 0.02
LONGEST_NAME, LISTED = 60, 3  # of a process that is told, and how many are
_watchers: list[subprocess.Popen] = []


class LeftBehind:
    """What there was still to end when a command was over.

    Attributes
    ----------
    threads : list of threading.Thread
        That still go on, daemons included: only the end of the process ends them.
    """

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []


@contextlib.contextmanager
def ended(say: Callable[[str], None]) -> Iterator[LeftBehind]:
    """What is started inside the block, and goes on after it, ends with it.

    Parameters
    ----------
    say : callable
        Is told what was ended.
    """
    found, owner = LeftBehind(), os.getpid()
    before, threads = set(processes.descendants(owner)), set(threading.enumerate())
    was_adopting = processes.adopt(True)
    try:
        yield found
    finally:
        if os.getpid() == owner:  # and no fork of it that came this far
            _end_processes(before, say)
            _await_threads(threads, say)
            found.threads = _new(threads)
            _dismiss()
            processes.adopt(was_adopting)


def watch() -> None:
    """Let a watcher end what this process has started, should it be killed."""
    if sys.platform == "linux" and not _watchers:
        with contextlib.suppress(OSError):  # no room for one process more: the rest works
            _watchers.append(processes.beside())


def _dismiss() -> None:
    while _watchers:
        watcher = _watchers.pop()
        watcher.kill()
        watcher.wait()


def _ours() -> set[int]:
    """Helpers that the interpreter keeps until its own end."""
    helpers = {watcher.pid for watcher in _watchers}
    for module, name, attribute in (
        ("resource_tracker", "_resource_tracker", "_pid"),
        ("forkserver", "_forkserver", "_forkserver_pid"),
    ):
        loaded = sys.modules.get(f"multiprocessing.{module}")
        helpers.add(getattr(getattr(loaded, name, None), attribute, None) or 0)
    return helpers


def _end_processes(before: set[int], say: Callable[[str], None]) -> None:
    spared = before | _ours()

    def left() -> list[int]:
        multiprocessing.active_children()  # takes note of those of multiprocessing that have ended
        return [one for one in processes.descendants(os.getpid()) if one not in spared]

    if not (first := left()):
        return
    names = [_name(process) for process in first]
    number, until = signal.SIGTERM, time.monotonic() + PATIENCE_S
    while remaining := left():
        if time.monotonic() >= until:
            number = signal.SIGKILL
        processes.send(remaining, number)
        if (
            time.monotonic() >= until + processes.KILLED_S
        ):  # in a call of the system that does not return
            break
        time.sleep(LOOK_S)
    say(_left("process(es) still ran, and were ended", names))


def _left(what: str, names: list[str]) -> str:
    listed = f"{', '.join(names[:LISTED])}{', …' if len(names) > LISTED else ''}"
    return f"Of what the command or somebody's own code started, {len(names)} {what}: {listed}."


def _name(process: int) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    told = " ".join(words).strip() or "?"
    return f"{process} ({told if len(told) <= LONGEST_NAME else told[:LONGEST_NAME] + '…'})"


def _dismiss_idle(threads: list[threading.Thread]) -> None:
    """Those that wait for work that will not come, as the interpreter's end dismisses them.

    An executor keeps its threads while somebody refers to it, as torch's compiler does for good.
    """
    if not threads:
        return
    for one in gc.get_objects():
        if issubclass(type(one), ThreadPoolExecutor) and one._threads & {*threads}:
            one.shutdown(wait=False)  # what they have begun, or were given, they finish


def _new(before: set[threading.Thread]) -> list[threading.Thread]:
    return [*set(threading.enumerate()) - before - {threading.current_thread()}]


def _await_threads(before: set[threading.Thread], say: Callable[[str], None]) -> None:
    def left() -> list[threading.Thread]:
        return [thread for thread in _new(before) if not thread.daemon]

    until = time.monotonic() + PATIENCE_S
    _dismiss_idle(left())
    while (remaining := left()) and time.monotonic() < until:
        remaining[0].join(max(until - time.monotonic(), 0))
    if remaining:
        names = sorted(thread.name for thread in remaining)
        say(_left("thread(s) still ran, and end with it", names))
