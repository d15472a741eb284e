"""What the processes of the tests do: ``torchrun … -m tests.distributed.jobs NAME ARGUMENTS``."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path

import torch

from hml_core.config import RunConfig
from hml_core.errors import HmlError
from hml_core.trainer import fit, update
from hml_core.trainer.world import group, leave

SMALL = {
    "dataset": "inat2018",
    "model": "resnet8",
    "image_size": 32,
    "epochs": 2,
    "batch_size": 32,
    "micro_batch_size": 8,
    "precision": "float32",
    "learning_rate": 0.005,
}


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def train(data_root: str, runs_root: str, file: str, keep_weights: str | None = None) -> None:
    """Train the configs of a file, one after the other, in one group."""
    with group("cpu") as (world, device):
        for fields in json.loads(Path(file).read_text()):
            config = RunConfig(**fields)
            where = {"data_root": data_root, "runs_root": runs_root, "device": device}
            fit(config, world=world, progress=False, keep_weights=keep_weights, **where)


def interrupt(data_root: str, runs_root: str, file: str, number: str) -> None:
    """Train a config with a checkpoint every other step, and stop after so many steps."""
    plain, done = update.Update.__call__, []

    def counted(self, batch):
        if len(done) == int(number):
            raise Interrupted
        done.append(1)
        return plain(self, batch)

    update.Update.__call__ = counted
    with group("cpu") as (world, device):
        config = RunConfig(**json.loads(Path(file).read_text())[0])
        where = {"data_root": data_root, "runs_root": runs_root, "device": device}
        fit(config, world=world, progress=False, checkpoint_steps=2, **where)


def refuse(file: str) -> None:
    """Try what cannot be trained, in one group; each process tells what it was told."""
    with group("cpu") as (world, device):
        for name, (fields, data_root, runs_root) in json.loads(Path(file).read_text()).items():
            try:
                with world.together():
                    config = RunConfig(
                        **(fields[world.rank] if isinstance(fields, list) else fields)
                    )
                own = data_root if isinstance(data_root, str) else data_root[world.rank]
                where = {"data_root": own, "runs_root": runs_root, "device": device}
                fit(config, world=world, progress=False, **where)
                said = "nothing"
            except HmlError as error:
                said = f"{type(error).__name__}: {error}"
            with open(f"{file}.{world.rank}", "a") as stream:
                stream.write(json.dumps([name, world.rank, said]) + "\n")


def abort_at_the_end() -> None:
    """The real command, in a process that aborts at the end of the interpreter.

    As it does now and then by itself, when threads of torch outlive that.
    """
    from hml_lab.train import train as command

    libc = ctypes.CDLL(None)
    getattr(libc, "__cxa_atexit")(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
    command()


def logged(log: str) -> None:
    """The real command; every step leaves a line "<pid> <rank> <time>"."""
    from hml_lab.train import train as command

    plain = update.Update.__call__

    def write(self, batch):
        with open(log, "a") as stream:
            stream.write(f"{os.getpid()} {self.world.rank} {time.time()}\n")
        return plain(self, batch)

    update.Update.__call__ = write
    command()


if __name__ == "__main__":
    torch.set_num_threads(1)
    job, number = globals()[sys.argv[1]], {"refuse": 1, "logged": 1, "train": 4, "interrupt": 4}
    taken = number.get(sys.argv[1], 0)
    given, sys.argv = sys.argv[2 : 2 + taken], [sys.argv[0], *sys.argv[2 + taken :]]
    job(*given)
    leave(0)
