"""What the system allows a process, looked at before work begins that would stop for want of it."""

from __future__ import annotations

import os

from hml_core.errors import RunError

SEVERAL_PROCESSES = 256  # open files of who starts others and talks to them
SHARED_MEMORY = "/dev/shm"


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_files(number: int, what: str) -> None:
    """Let this process open so many files at a time; what it starts inherits that.

    Raises
    ------
    RunError
        Where the system's own limit is below it (``ulimit -Hn``).
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    if soft == endless or soft >= number:
        return
    if hard != endless and hard < number:
        raise RunError(
            f"This process may open {hard} files at a time (`ulimit -n`), {what} needs {number}: raise "
            "that limit, or ask who runs the machine."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def has_shared_memory(size: int) -> bool:
    """Whether processes can hand each other so many bytes in shared memory (containers have 64 MB)."""
    try:
        told = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):  # another system: it has no such folder, and no such limit
        return True
    return told.f_bavail * told.f_frsize >= size
