"""The end of a process, at once: without what an interpreter does after everything has been said."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

from hml_core.errors import left

_end = os._exit


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
    """Within the block nobody ends this process with ``os._exit(0)``: it has status 1, and says who did.

    No command of ours ends so, and nothing behind it would be reached that could notice. Processes
    forked within the block end as they like.
    """
    process, before = os.getpid(), os._exit

    def answer(status: int) -> NoReturn:
        if os.getpid() == process and status == 0:
            place = traceback.extract_stack(limit=2)[0]
            told = left("The command", f"os._exit(0, {place.filename}:{place.lineno})")
            with contextlib.suppress(Exception):
                print(f"Error: {told}", file=sys.stderr, flush=True)
            status = 1
        _end(status)

    os._exit = answer
    try:
        yield
    finally:
        os._exit = before
