"""Commands that are run should this process be killed, so that nothing stays of which it alone knew.

After ``kill -9``, or where a notebook's kernel ends as its program is gone (ipykernel: ``os._exit``), no
code of ours runs. So a helper waits beside the process: this file, run as a program in a session of its
own, without any import of the package.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

# How often a command is run, after what, and for how long.
TRIES, PAUSE_S, PATIENCE_S = 3, 1.0, 30.0
LOOK_S = 1.0  # how often the helper looks for its parent, should a child of that keep the pipe open
_ISOLATED = ("-I", "-S")  # whatever the environment and installed packages say


class IfKilled:
    """A helper that runs commands where this process ends without having closed it.

    Where no process can be started there is none, and nothing is run. May be told in any thread.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._helper = None
        command = [sys.executable, *_ISOLATED, os.path.abspath(__file__), str(os.getpid())]
        with contextlib.suppress(OSError):
            self._helper = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            with self._helper.stdout as told:
                told.read(1)  # now it hears signals

    def __enter__(self) -> IfKilled:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def tell(self, commands: Sequence[Sequence[str]]) -> None:
        """What is to be run from now on, in the place of what was told before."""
        if self._helper is None:
            return
        with self._turn, contextlib.suppress(OSError, ValueError):  # it was killed, or closed
            self._helper.stdin.write(json.dumps(commands).encode() + b"\n")
            self._helper.stdin.flush()

    def close(self) -> None:
        """Let the helper end; nothing is run."""
        self.tell([])
        if self._helper is None:
            return
        with self._turn, contextlib.suppress(OSError):
            self._helper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._helper.wait(PATIENCE_S)


def _wait(parent: int) -> None:
    """Be the helper: hear what is told until the parent is gone, and run that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # it ends with its parent, and not before
    os.write(1, b".")
    commands, heard = [], b""
    while True:
        is_alone = os.getppid() != parent
        if select.select([0], [], [], 0 if is_alone else LOOK_S)[0]:
            if not (told := os.read(0, 2**16)):
                break
            *lines, heard = (heard + told).split(b"\n")
            commands = json.loads(lines[-1]) if lines else commands
        elif is_alone:
            break
    for command in commands:
        _run(command)


def _run(command: Sequence[str]) -> None:
    nothing = subprocess.DEVNULL
    for attempt in range(TRIES):
        time.sleep(PAUSE_S * (attempt > 0))
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=PATIENCE_S
            )
            if done.returncode == 0:
                return


if __name__ == "__main__":
    _wait(int(sys.argv[1]))
