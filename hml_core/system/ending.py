"""The end of a process, at once: without what an interpreter does after everything has been said."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import operator
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from hml_core.errors import left

PATIENCE_S = 30.0  # for what is called in the end: logs that are sent somewhere
_end = os._exit
_last = contextlib.ExitStack()
_MODULES = (os, sys.modules[os.name])  # those that have it: os, and posix behind it


def leave(status: int) -> NoReturn:
    """End this process once everything has been said and written.

    The interpreter would take modules apart for a while (seconds, on a busy machine), and threads of
    libraries may outlive it and abort.
    """
    atexit._run_exitfuncs()  # logs are written, children are told
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # nobody listens any more
            stream.flush()
    _end(status)


@contextlib.contextmanager
def never_silent() -> Iterator[None]:
    """Within the block nobody ends this process as if it were done: it has status 1, and says who did.

    That is ``os._exit(0)``, or another program in its place (``os.execv``). No command of ours ends so,
    and nothing behind it would be reached that could notice. Processes forked within the block end as
    they like.
    """
    process = os.getpid()

    def answering(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def answer(*arguments: Any, **options: Any) -> Any:
            given = [*arguments, *options.values()]
            if os.getpid() != process or not given or (call is _end and is_failure(given[0])):
                return call(*arguments, **options)
            told = left("The command", f"os.{call.__name__}({given[0]!r}, {_caller()})")
            with contextlib.suppress(Exception):
                print(f"Error: {told}", file=sys.stderr, flush=True)
            return _end(1)

        return answer

    with contextlib.ExitStack() as stack:
        stack.callback(setattr, sys, "exit", sys.exit)  # which click ends a command with
        for module, name in itertools.product(_MODULES, ("_exit", "execv", "execve")):
            before = getattr(module, name)
            stack.callback(setattr, module, name, before)
            setattr(module, name, answering(before))
        yield


def is_failure(status: Any) -> bool:
    """Whether a process that ends so (of ``sys.exit``: text, too) has another status than 0."""
    try:
        return operator.index(status) & 0xFF != 0
    except TypeError:
        return status is not None


def decided(status: Any) -> None:
    """This process ends with that status, whatever the interpreter still calls in its end.

    (``atexit``, and before it ``threading``, for pools of threads.) None of it makes a success of a
    failure, and all of it has :data:`PATIENCE_S`.
    """
    process, has_begun = os.getpid(), threading.Event()

    def begin() -> None:  # of each list, the last one that is registered is called first
        if os.getpid() == process and not has_begun.is_set():
            has_begun.set()
            if is_failure(status):
                _last.enter_context(never_silent())

    def wait() -> None:
        has_begun.wait()
        time.sleep(PATIENCE_S)
        with contextlib.suppress(Exception):
            told = "What the command's own code has registered for its end still ran, and was left."
            print(f"Note: {told}", file=sys.stderr, flush=True)
        _end(status if isinstance(status, int) else int(is_failure(status)))

    with contextlib.suppress(RuntimeError):  # no room for one thread more: it has its time
        threading.Thread(target=wait, name="the last one", daemon=True).start()
    atexit.register(begin)
    with contextlib.suppress(AttributeError, RuntimeError):
        threading._register_atexit(begin)


def _caller() -> str:
    """The place that called what stands in for a function of os."""
    frames = traceback.walk_stack(sys._getframe(1))
    frame, line = next(
        (f, n) for f, n in frames if f.f_globals.get("__name__") not in ("os", __name__)
    )
    return f"{frame.f_code.co_filename}:{line}"
