"""The end of a process, at once: without what an interpreter does after everything has been said."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End this process once everything has been said and written.

    The interpreter would take modules apart for a while (seconds, on a busy machine), and threads of
    libraries may outlive it and abort.
    """
    atexit._run_exitfuncs()  # logs are written, children are told
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # nobody listens any more
            stream.flush()
    os._exit(status)
