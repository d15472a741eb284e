"""What the scenarios do: train in a process that can be killed, fill a disk, compare records."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from hml_core import runs, trainer
from hml_core.config import RunConfig
from hml_core.runs import Run
from hml_core.runs.record import RECORDED
from hml_core.system import files
from hml_core.trainer import fitting
from tests import forks


def config(seed: int = 0, **fields: Any) -> RunConfig:
    """A run of a second or two."""
    return RunConfig(
        **{"dataset": "digits", "recipe": "hml1", "epochs": 20, "seed": seed, **fields}
    )


def train(runs_root: Path, made: RunConfig, change: Callable[[], None] | None = None) -> Run:
    """Train with one thread, silently, with a checkpoint after every epoch."""
    torch.set_num_threads(1)
    fitting.CHECKPOINT_INTERVAL_S = 0.0
    if change is not None:
        change()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trainer.fit(made, runs_root=runs_root, device="cpu", progress=False)


def start(target: Callable, *arguments: Any) -> multiprocessing.Process:
    """Call ``target`` in a process of its own."""
    process = forks.CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def kill(process: multiprocessing.Process, after_s: float) -> bool:
    """kill -9 after so many seconds; False if it had ended by then."""
    process.join(after_s)
    if process.exitcode is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def same(one: Run, other: Run) -> bool:
    """Whether two records hold the same run, to the bit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        histories = [run.verify().history.drop(columns=[*runs.CLOCK]) for run in (one, other)]
    logits = [run.predictions[0] for run in (one, other)]
    return histories[0].equals(histories[1]) and np.array_equal(*logits)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def flip(path: Path, random: Random) -> None:
    """Change one byte of a file, wherever."""
    data = bytearray(path.read_bytes())
    position = random.randrange(len(data))
    data[position] ^= random.randrange(1, 256)
    path.write_bytes(bytes(data))


def damageable(run: Run) -> tuple[str, ...]:
    """The files of a finished record."""
    return (*RECORDED, "metrics.json")


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """A memory file system at ``folder``; False where this user or machine may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        done = False
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


class FullDisk:
    """Stands in for a disk that has room for ``room`` more bytes: each write beyond it fails."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self) -> None:
        real = files._write_and_rename

        def limited(path: Path, data: bytes) -> None:
            if len(data) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(data)
            real(path, data)

        files._write_and_rename = limited


class JumpingClock:
    """The wall clock jumps back or forth by up to a year whenever somebody reads it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self) -> None:
        random, now = Random(self.seed), time.time
        time.time = lambda: now() + random.uniform(-3e7, 3e7)
