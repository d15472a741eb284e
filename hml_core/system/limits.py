"""What the system allows a process, looked at before work begins that would stop for want of it."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import threading
from pathlib import Path

from hml_core.errors import RunError
from hml_core.system import apart
from hml_core.system.fields import is_text

SEVERAL_PROCESSES = 256  # open files of who starts others and talks to them
THREADS = 32  # and their processes, at a time
THREADS_OF_A_WORKER = 8
_SMALL_STACK = 2**18  # bytes: a thread that only waits
SEMAPHORES = 16  # of a pool of processes or a cluster's
LOOPBACK, CONNECT_S = "127.0.0.1", 5.0
SHARED_MEMORY = "/dev/shm"
MEMORY, STATUS = "/proc/meminfo", "/proc/self/status"
# Of addresses: torch and scipy alone take more than the first; the others beside them, measured with
# small networks on two cores.
LIBRARIES, TO_TRAIN, TO_PREDICT = 2**30, 3 * 2**28, 2**29
AMPLE = 2**33  # above which nobody looks
LOADED, LOADED_S = ("scipy.linalg", "pandas", "torch"), 120.0
# Of a container: limit, what is used of it, and what of that are files the system lets go of.
CONTAINERS = (
    ("/sys/fs/cgroup/memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat",
        "total_inactive_file",
    ),
)  # fmt: skip


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


def require_address_space(size: int, what: str) -> None:
    """Prove that this process may still take so many bytes of addresses (``ulimit -v``).

    Libraries that get none abort or go in circles, where nothing can be told any more.

    Raises
    ------
    RunError
    """
    most, taken = _address_space(), _told(STATUS, "VmSize:", unit=1024)
    if most is None or taken is None or most - taken >= size:
        return
    raise RunError(
        f"This process may take {most / 2**20:,.0f} MiB of addresses (`ulimit -v`) and has taken "
        f"{taken / 2**20:,.0f}: {what} needs {size / 2**20:,.0f} more. Raise that limit, or ask who runs "
        "the machine."
    )


def require_libraries() -> None:
    """Prove that the libraries which all commands need can be loaded, where the addresses are few.

    How many they take is theirs to say, so a fork of this process loads them first: in it they may abort.

    Raises
    ------
    RunError
    """
    if (most := _address_space()) is None or most >= AMPLE:
        return
    require_address_space(LIBRARIES, "any command")
    try:
        apart.call(_load, seconds=LOADED_S)
    except (TimeoutError, apart.NoAnswer) as error:
        raise RunError(
            f"torch and scipy do not load within the {most / 2**20:,.0f} MiB of addresses that this "
            "process may take (`ulimit -v`): raise that limit, or ask who runs the machine."
        ) from error


def _load() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # what they say natively
        os.dup2(nothing, number)
    for name in LOADED:
        importlib.import_module(name)


def _address_space() -> int | None:
    """Bytes of addresses that this process may take; None where nothing limits them."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if most == resource.RLIM_INFINITY else most


def require_threads(number: int, what: str) -> None:
    """Prove that this user may start so many processes and threads beside those that there are.

    Raises
    ------
    RunError
        Where the system refuses one (``ulimit -u``, a container's limit).
    """
    over = threading.Event()
    started: list[threading.Thread] = []
    before = threading.stack_size(_SMALL_STACK)
    try:
        for _ in range(number):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:  # "can't start new thread"
        raise RunError(
            f"This user may start {len(started)} more processes and threads (`ulimit -u`, or a "
            f"container's limit), {what} needs {number}: raise that limit, or end some."
        ) from error
    finally:
        threading.stack_size(before)
        over.set()
        for thread in started:
            thread.join()


def require_semaphores(what: str) -> None:
    """Prove that processes can be made to wait for each other, which takes some pages of shared memory.

    Raises
    ------
    RunError
        Where they cannot.
    """
    if not hasattr(os, "fork"):
        return
    context = multiprocessing.get_context("fork")  # of which nothing stays behind
    try:
        _ = [context.Lock() for _ in range(SEMAPHORES)]
    except OSError as error:
        raise RunError(
            f"There is no room for semaphores in {SHARED_MEMORY} ({error.strerror}), {what} needs some: "
            "mount it writable, with a megabyte or more (of a container: --shm-size)."
        ) from error


def require_loopback(what: str) -> None:
    """Prove that processes of this machine can connect to each other.

    Raises
    ------
    RunError
        Where they cannot, as in a container without its loopback interface.
    """
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            server.settimeout(CONNECT_S)
            socket.create_connection(server.getsockname(), CONNECT_S).close()
    except OSError as error:
        raise RunError(
            f"This machine cannot connect to itself at {LOOPBACK} ({error.strerror or error}), {what} "
            "needs that: bring its loopback interface up."
        ) from error


def require_text(folder: str | Path, name: str, what: str) -> None:
    """Refuse a folder whose path no other process can be sent as text.

    Raises
    ------
    RunError
        Where it is not UTF-8, or this process's locale reads it as something else.
    """
    if not is_text(os.fspath(folder)):
        raise RunError(
            f"{name} is {os.fspath(folder)!r}, {what} sends its path as text: expected a name in UTF-8, "
            "and a locale that knows it (LC_ALL=C.UTF-8)."
        )


def has_shared_memory(size: int) -> bool:
    """Whether processes can hand each other so many bytes in shared memory (containers have 64 MB)."""
    try:
        told = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):  # another system: it has no such folder, and no such limit
        return True
    return told.f_bavail * told.f_frsize >= size


def available_memory() -> float:
    """Bytes that processes can still take: what is free, and copies of files that the system lets go of.

    In a container no more than it may have. Free memory alone tells nothing: a system that has been up for
    a while keeps next to none.
    """
    available = _told(MEMORY, "MemAvailable:", unit=1024)
    if available is None:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, used, statistics, files in CONTAINERS:
        folder = Path(limit).parent
        most, now = _told(limit), _told(folder / used)
        if most is not None and now is not None:
            available = min(available, most - now + (_told(folder / statistics, files) or 0))
    return max(available, 0.0)


def _told(path: str | Path, name: str = "", unit: int = 1) -> float | None:
    """The number in one of the system's files, of the line that begins with ``name``; None without one."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:  # another system
        return None
    for words in map(str.split, lines):
        if words and (not name or words[0] == name):
            number = words[1] if name else words[0]
            return float(number) * unit if number.isdigit() else None  # "max": no limit
    return None
