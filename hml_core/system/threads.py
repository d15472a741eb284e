"""Threads of this process that work side by side, one for each core."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from hml_core.system import limits


@contextlib.contextmanager
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads an interruption does not wait for.

    They decode images, and one of them may be within a single call of C for minutes. (A command that is
    interrupted ends its process; elsewhere such a thread goes on until it is done, and nobody looks.)

    Raises
    ------
    RunError
        Where the system refuses so many threads.
    """
    cores = limits.usable_cores()
    limits.require_threads(cores, "decoding images")
    executor = ThreadPoolExecutor(cores)
    wait = True
    try:
        yield executor
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        executor.shutdown(wait=wait, cancel_futures=True)
