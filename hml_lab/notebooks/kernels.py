"""The kernel of a headless notebook: private sockets, a guard over all that it starts, a time limit."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hml_core.errors import ConfigError
from hml_core.system import interruptions, processes, scratch
from hml_core.system.fields import is_text
from hml_core.system.patience import Patience

# Bytes of a Unix socket's path: 107 on Linux, 103 on macOS. Ours adds /hml-xxxxxxxx/kernel-NN to a folder.
LONGEST_FOLDER = 103 - 24
# An asked kernel may take PATIENCE_S to end by itself; once it is told to, it gets GRACE_S, in which jobs
# of a cluster are cancelled. (Most end at once. A batch gives `hml run` more than that.)
PATIENCE_S = 4.0
GRACE_S = 20.0
LATE_S = 2.0  # so much more than that a guard has


def manager(sockets: str, managers: list[Any], told: tuple[int, int] = (1, 2)) -> type:
    """A kernel manager that talks over sockets in a private folder, of kernels below a guard.

    No port is raced for and nothing listens on the network. (Left to itself, jupyter_client would put the
    sockets of all kernels into the working folder, under one name.) The guard ends what a kernel has
    started together with it, whoever ends it. Each instance adds itself to ``managers``. What a kernel
    writes to its standard output and error goes to the handles ``told``
    (:func:`hml_core.system.streams.copied`): where it cannot be written, the kernel would stop for ever.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class GuardedKernelManager(AsyncKernelManager):
        def __init__(self, **options):
            own = {"transport": "ipc", "ip": f"{sockets}/kernel"}
            own["connection_file"] = f"{sockets}/{len(managers)}.json"  # else beside the folder
            super().__init__(**{**own, "shutdown_wait_time": 2 * PATIENCE_S, **options})
            managers.append(self)

        async def _async_launch_kernel(self, kernel_cmd, **options):
            own = {"stdout": told[0], "stderr": told[1]}
            await super()._async_launch_kernel(kernel_cmd, **{**options, **own})

        async def _async_kill_kernel(self, restart=False):
            """Leave it to the guard, which kills whatever is left once the time is up."""
            if _told_to_end(self):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._async_wait(), GRACE_S + LATE_S)
            await super()._async_kill_kernel(restart=restart)

        @property
        def kernel_spec(self) -> KernelSpec:
            # That of this interpreter: a specification found in a folder (of a user, of JUPYTER_PATH) may
            # be another one's, whose versions nobody would record.
            return KernelSpec(**get_kernel_dict())

        def format_kernel_cmd(self, *arguments, **options):
            return processes.guarded(super().format_kernel_cmd(*arguments, **options), GRACE_S)

    return GuardedKernelManager


def _told_to_end(manager: Any) -> bool:
    """Tell the guard of a manager's kernel to end all that is below it, if there is one."""
    process = getattr(manager.provisioner, "process", None)
    if process is not None:
        with suppress(OSError):
            processes.terminate(process)
    return process is not None


@contextmanager
def socket_folder() -> Iterator[str]:
    """A private folder, gone afterwards, whose path leaves room for a socket's name.

    Raises
    ------
    ConfigError
        Where no folder for temporary files has a path that is short enough.
    """
    places = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp"]
    for place in places:
        is_short = len(os.fsencode(place)) <= LONGEST_FOLDER
        if place and is_short and is_text(place) and os.access(place, os.W_OK):
            with scratch.folder(place) as folder:
                yield str(folder)
            return
    raise ConfigError(
        f"Expected TMPDIR to name a writable folder with a path of at most {LONGEST_FOLDER} bytes, in "
        f"UTF-8, for the sockets of a kernel, got {places[0]!r}."
    )


@contextmanager
def environment(folder: str) -> Iterator[None]:
    """What the kernels started inside find: that nobody watches them, and somewhere to write.

    (See :mod:`hml_core.system.progress`.) ``folder`` holds their connection files, which otherwise need a
    home; a user without one is given it as home.
    """
    changes = {"HML_HEADLESS": "1", "JUPYTER_RUNTIME_DIR": folder}
    if home() is None:
        changes["HOME"] = folder
    with _changed(changes):
        yield


@contextmanager
def at_home() -> Iterator[None]:
    """Inside the block there is a home: libraries of Jupyter ask for one when they are imported."""
    if home() is not None:
        yield
        return
    with scratch.folder() as folder, _changed({"HOME": str(folder)}):
        yield


@contextmanager
def _changed(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def home() -> Path | None:
    """The user's home; None for one with neither HOME nor an entry in the machine's list of users."""
    try:
        return Path.home()
    except RuntimeError:
        return None


@contextmanager
def time_limit(timeout: float | None, managers: list[Any]) -> Iterator[threading.Event]:
    """End the kernels and what they started after ``timeout`` seconds; the event says that it happened.

    Time in which this process was stopped, and they with it, does not count.
    A signal ends them, too, at once: left to itself, nbclient would wait for the cell to end.
    """
    time_is_up, is_over = threading.Event(), threading.Event()

    def end_in_time() -> None:
        patience = Patience(timeout)
        while patience.left() > 0:
            if is_over.wait(patience.next_look()):
                return
        time_is_up.set()
        end()
        while not is_over.wait(processes.LOOK_S):  # one that is only starting now is ended, too
            end()

    def end() -> None:
        for manager in managers:
            _told_to_end(manager)

    if timeout is not None:
        threading.Thread(target=end_in_time, daemon=True).start()
    try:
        with interruptions.first_on_interrupt(end):
            yield time_is_up
    finally:
        is_over.set()
