"""What a worker process does first. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings

from hml_core.system import processes


def begin() -> None:
    """End with the parent process, and keep Pillow's warnings off the progress bar.

    A parent that is killed cannot end its workers; they would wait for work for ever.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    processes.die_with_parent()
    try:
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
    except RuntimeError:  # the system allows none: a worker that would not end is none
        os._exit(1)


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # from a thread, sys.exit would end nothing else
