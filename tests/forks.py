"""Processes forked from one that has imported torch and the package: two to five seconds less for each.

What a test sees of them is what it sees of any process: an id, signals, pipes, an exit status, an
environment of its own. Their parent, though, is the server that forks them: what a promise says about
families of processes, about guards or about what an import brings is tested on processes that are started.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import Any

import dask
import pytest

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = (
    "hml_core.engines", "hml_lab.train", "hml_lab.experiment", "hml_lab.cli", "hml_lab.notebooks.batch",
    "distributed", "cryptography.x509", "ipykernel.kernelapp", "ipykernel.ipkernel",
    "ipykernel.zmqshell", "torch.distributed.run", "tests.forks",
    # What training and drawing import when they begin (torch.optim: torch._dynamo).
    "torch._dynamo", "sklearn.datasets", "sklearn.manifold", "torchvision.transforms.v2",
)  # fmt: skip
CONTEXT.set_forkserver_preload([*IMPORTED])
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def begin(*modules: str) -> None:
    """Start the server, before a test changes the environment that it would inherit.

    ``modules``: what it imports beside what every test may need.
    """
    if modules:
        CONTEXT.set_forkserver_preload([*IMPORTED, *modules])
    forkserver._forkserver.ensure_running()


def wait_for_no_disk() -> None:
    """Files are as safe from what tests do, kill -9 included, in the system's memory as on the disk.

    Some ten thousand writes would wait for it. (That what is written lies there before it gets its name is
    tested by itself: tests/notebooks/test_display_files.py.)
    """
    os.fsync = lambda handle: None


class Python:
    """As ``subprocess.Popen([sys.executable, *arguments])`` of "-c" or "-m", with what tests use of it."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        text: bool = False,
        start_new_session: bool = False,
    ) -> None:
        self.args = [str(argument) for argument in arguments]
        mine: dict[int, int] = {}  # ends of pipes: the other ends are the process's
        given: list[int] = []
        for number, wanted in enumerate((stdin, stdout, stderr)):
            if wanted == subprocess.PIPE:
                reading, writing = os.pipe()
                mine[number], end = (writing, reading) if number == 0 else (reading, writing)
                given.append(end)
            elif wanted == subprocess.STDOUT:
                given.append(os.dup(given[1]))
            elif wanted == subprocess.DEVNULL:
                given.append(os.open(os.devnull, os.O_RDWR))
            else:
                given.append(os.dup(number if wanted is None else wanted))
        binary = "" if text else "b"
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(mine[number], "rw"[number == 0] + binary) if number in mine else None
            for number in range(3)
        )
        begin()
        self._process = CONTEXT.Process(
            target=_become,
            args=(
                forkserver._forkserver._forkserver_address,
                self.args,
                [_Handle(number) for number in given],
                os.fspath(cwd or os.getcwd()),
                dict(os.environ if env is None else env),
                start_new_session,
            ),
        )
        self._process.start()
        self.pid = self._process.pid
        # Whoever is told of the process may ask for its group at once, to send that a signal.
        while start_new_session and self.poll() is None and os.getsid(self.pid) != self.pid:
            time.sleep(0.001)
        for number in given:
            os.close(number)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[Any, None]:
        """What it writes until it ends; for one stream, or two that are one."""
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        said = None
        if self.stdout is not None:
            with _ended_after(self, timeout) as is_over:
                said = self.stdout.read()
            if is_over():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(timeout)
        return said, None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def kernels() -> Iterator[None]:
    """Every kernel is forked, as are workers of Dask in it, but not the guard that it would be below."""
    from jupyter_client import launcher

    def popen(command: Sequence[str], *, env: Mapping[str, str], **options: Any) -> Python:
        where = len(command) - command[::-1].index(sys.executable)
        # The kernel would take the server for a stranger who took it over.
        given = {name: value for name, value in env.items() if name != "JPY_PARENT_PID"}
        given["DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"] = "forkserver"
        return Python(command[where:], env=given, **options)

    begin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "Popen", popen)
        yield


@contextlib.contextmanager
def workers() -> Iterator[None]:
    """Every worker of a Dask cluster that is started here is forked; one that dies is followed by one."""
    from distributed import utils

    from hml_core.engines import dask as engine

    begin()
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set(
            {"distributed.worker.multiprocessing-method": "forkserver", **engine.FOLLOWED}
        ),
    ):
        patch.setattr(
            utils, "_forkserver_preload_set", True
        )  # the server imports what it is told above
        yield


def torchrun() -> None:
    """Be ``torch.distributed.run`` with this process's arguments; its trainers are forked, too."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
    from torch.distributed.run import main

    def popen(args: Sequence[str], *, stdout: None, stderr: None, **options: Any) -> Python:
        python, unbuffered, *arguments = args
        assert (python, unbuffered) == (sys.executable, "-u"), args
        return Python(arguments, **options)

    subprocess_handler.Popen = popen
    main(sys.argv[1:])


@contextlib.contextmanager
def _ended_after(process: Python, timeout: float | None) -> Iterator[Callable[[], bool]]:
    """Kill it after so many seconds; what is yielded says whether that happened."""
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout or 0, end)
    timer.daemon = True
    if timeout is not None:
        timer.start()
    try:
        yield late.is_set
    finally:
        timer.cancel()


class _Handle:
    """A file descriptor that goes along to the process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self):
        return _received, (reduction.DupFd(self.number),)


def _received(duplicate) -> _Handle:
    return _Handle(duplicate.detach())


def _become(
    server: str,
    arguments: list[str],
    streams: list[_Handle],
    folder: str,
    environment: dict[str, str],
    in_own_session: bool,
) -> None:
    """Do what an interpreter with these arguments does, and end as it does."""
    if sys.platform == "linux":  # with the server, and so with the tests
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if in_own_session:
        os.setsid()
    # What this process forks comes from the same server; it would start one of its own.
    forkserver._forkserver._forkserver_address = server
    forkserver._forkserver.ensure_running = lambda: None
    for number, stream in enumerate(streams):
        os.dup2(stream.number, number)
        os.close(stream.number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = os.fdopen(number, "rw"[number > 0], buffering=1, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    wait_for_no_disk()
    if environment.get("TRITON_INTERPRET"):  # which triton asks for when it is imported
        for name in [name for name in sys.modules if re.match(r"triton(\.(?!_C)|$)", name)]:
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    dask.config.refresh()  # which looked at the environment when it was imported
    os.chdir(folder)
    sys.path.insert(0, folder)
    kind, what, *rest = arguments
    status: Any = 0
    try:
        if kind == "-m":
            sys.argv = [what, *rest]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            assert kind == "-c", arguments
            sys.argv = [kind, *rest]
            sys.modules["__main__"] = module = types.ModuleType("__main__")
            exec(what, module.__dict__)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        if status is not None:
            print(status, file=sys.stderr)
        status = 0 if status is None else 1
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)
