"""A function in a process of its own: one that may hang within C, or change whatever it likes.

Python hears a signal between two of its steps, and a limit that is a signal is heard no sooner: not within
one call of C. Another process is ended by the system.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from hml_core.system import interruptions, processes

ANSWER_S = 1.0  # for the last words of a process that has ended


class NoAnswer(Exception):
    """The process ended without a word: it was killed, or ended itself."""


def call(function: Callable, *arguments: Any, seconds: float | None = None) -> Any:
    """What ``function(*arguments)`` returns, called in a fork of this process that ends with the call.

    Nothing that it changes (folder, environment, signals, modules) is changed here. Signals are heard
    meanwhile, whatever it does. (Where there are no forks that libraries bear, outside of Linux, it is
    called in this process, and has all the time that it takes.)

    Parameters
    ----------
    function : callable
        What it returns travels through a pipe. It tells its errors that way: one that it raises is no
        answer.
    seconds : float, optional
        That it has.

    Raises
    ------
    TimeoutError
    NoAnswer
    """
    if sys.platform != "linux":
        return function(*arguments)
    forks = multiprocessing.get_context("fork")
    ours, theirs = forks.Pipe(duplex=False)
    process = forks.Process(target=_answer, args=(theirs, function, arguments))
    end = None if seconds is None else time.monotonic() + seconds
    try:
        with interruptions.delayed(), warnings.catch_warnings():
            # From 3.12 on: threads of this process (of a progress bar) are not in the fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        while not connection.wait([ours, process.sentinel], _next_look(end)):
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"it was not done after {seconds:g} s")
        if not ours.poll(ANSWER_S):
            raise NoAnswer
        return ours.recv()
    except EOFError as error:
        raise NoAnswer from error
    finally:
        with interruptions.delayed():
            _end(process)
            ours.close()


def _next_look(end: float | None) -> float:
    return (
        processes.LOOK_S if end is None else min(processes.LOOK_S, max(end - time.monotonic(), 0))
    )


def _end(process: Any) -> None:
    """Nothing of the process is left; what it started is whoever's that adopts it."""
    if process.pid is None:  # never begun
        return
    process.kill()
    process.join()
    process.close()


def _answer(theirs: connection.Connection, function: Callable, arguments: tuple) -> None:
    processes.die_with_parent()
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # a pool of threads is not forked with its process
    # Nothing of it is heard: without an answer it has told enough.
    with contextlib.suppress(Exception, SystemExit):
        answer = function(*arguments)
        for stream in (sys.stdout, sys.stderr):  # what it printed: it ends with its answer
            with contextlib.suppress(Exception):
                stream.flush()
        theirs.send(answer)
