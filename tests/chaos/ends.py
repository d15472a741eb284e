"""Scenarios of ends: something of a batch of notebooks is killed, and nothing of it lives on or lies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from unittest import mock

import torch

from hml_core import engines
from hml_core.engines import slurm_queue
from hml_core.errors import RunError
from hml_core.system import processes
from hml_core.trainer import world
from hml_lab.notebooks import batch, execution, outputs
from tests.chaos import tools
from tests.chaos.scenarios import Outcome, scenario
from tests.engines import helpers
from tests.notebooks.helpers import make

MARK = "HML_CHAOS_CASE"
SOURCES = (
    "go = ''  # a file",
    "import os, subprocess\nchild = subprocess.Popen(['sleep', '3600'], start_new_session=True)",
    "child.kill() if os.path.exists(go) else open('begun', 'w').close()\nchild.wait()",
    "open('ended', 'w').close()",
)
BATCH = """
output: {folder}
jobs: [{{notebook: {folder}/made.ipynb, parameters: {{go: {folder}/go}}, output: out.ipynb}}]
"""


@scenario("batch, its notebook, a guard, a trainer or all at once killed", cases=6, few=0)
def killed_batch(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """All that was started ends; no result is taken for done that is not; --resume makes it.

    All at once: the process group, as a shell's ``kill %1`` does.
    """
    for case in range(cases):
        own = folder / f"batch-{case}"
        own.mkdir()
        make(own, *SOURCES)
        file = own / "batch.yaml"
        file.write_text(BATCH.format(folder=own))
        (job,) = batch.read(file)
        mark = f"{MARK}={own}"
        command = [sys.executable, "-m", "hml_core", "batch", str(file)]
        with (own / "said").open("wb") as said:
            process = subprocess.Popen(
                command,
                stdout=said,
                stderr=said,
                env={**os.environ, MARK: str(own)},
                start_new_session=True,
            )
        if case % 2:  # in the middle of the notebook, or at any moment before
            helpers.wait_for((own / "begun").exists, "the notebook")
        else:
            time.sleep(random.uniform(0, 5))
        victims = [process.pid, *processes.descendants(process.pid)]
        victim = random.choice(victims)
        number = random.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
        is_group = case % 3 == 2
        try:
            os.killpg(process.pid, number) if is_group else os.kill(victim, number)
        except ProcessLookupError:
            process.kill()  # it has just ended by itself; the batch is then the one
        _end(process)
        helpers.wait_for(lambda mark=mark: not _marked(mark), "the end of all that was started")
        whom = "the group" if is_group else f"number {victims.index(victim)}"
        note = f"{number.name} to {whom} of {len(victims)}"
        is_done = execution.is_done(job.notebook, job.parameters, job.output)
        truthful = not is_done or (own / "ended").exists()
        (own / "go").touch()
        before = job.output.read_bytes() if is_done else None
        frame = batch.run([job], resume=True, progress=False)
        lost = int(before is not None and job.output.read_bytes() != before)
        content = outputs.read(job.output)
        whole = content is not None and outputs.status(content) == outputs.DONE
        good = frame["status"].isin(batch.GOOD).all()
        yield Outcome(truthful and whole and bool(good), lost, note=note)


# What sbatch may do, with a child that would stay; squeue and scancel do the same once a job was taken.
UNWILLING = (
    "sleep 3600 & wait",
    "sleep 3600 & yes",
    "head -c 3000 /dev/urandom | tr -d 0-9",
    "echo 'Invalid account' >&2; exit 1",
    "kill -9 $$",
    "echo Submitted",
)
SLURM = {"cores": 1, "memory": "1GB", "walltime": "00:10:00", "interface": "lo"}


@scenario("a command of Slurm that hangs, refuses, prints without end", cases=12, few=2)
def unwilling_slurm(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """The sweep ends with the reason, and nothing of what the command started lives on."""
    impatient = {"SUBMIT_TIMEOUT_S": 1.0, "CANCEL_TIMEOUT_S": 1.0, "SQUEUE_TIMEOUT_S": 1.0}
    impatient |= {"ATTEMPTS": 1, "LOOK_S": 0.0, "GONE_S": 0.0}
    for case, script in zip(range(cases), itertools.cycle(UNWILLING)):
        own = folder / f"slurm-{case}"
        (own / "bin").mkdir(parents=True)
        takes_it = case % (2 * len(UNWILLING)) >= len(UNWILLING)
        gone = "echo 'Invalid job id specified' >&2; exit 1"
        said = {"sbatch": script, "squeue": gone, "scancel": "exit 0"}
        if takes_it:
            said |= {"sbatch": "echo Submitted batch job 17", "scancel": script}
        for name, text in said.items():
            helpers.says(own / "bin" / name, text)
        file = own / "slurm.yaml"
        file.write_text(json.dumps({**SLURM, "log_directory": str(own)}))
        surroundings = {"PATH": f"{own}/bin:{os.environ['PATH']}", MARK: str(own)}
        message = ""
        with (
            mock.patch.dict(os.environ, surroundings),
            mock.patch.multiple(slurm_queue, **impatient),
        ):
            try:
                place = {"runs_root": own / "runs", "progress": False}
                engines.sweep([tools.config()], engine=f"slurm:{file}", **place)
            except RunError as error:
                message = str(error)
        left = _marked(f"{MARK}={own}")
        told = message.startswith("Slurm takes no job: ")
        yield Outcome(told and not left, note=f"{script}: {message}, left {left}")
        for process in left:
            os.kill(process, signal.SIGKILL)


@scenario("a group of two processes ended", cases=200, few=2)
def ended_groups(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Each of them ends with the status that it means, as trainers below torchrun do; none aborts.

    (torch's threads may outlive the interpreter: "terminate called without an active exception".)
    """
    for case in range(cases):
        meeting = folder / f"group-{case}"
        status = 0 if case % 2 else 1
        members = [tools.start(_member, rank, meeting, status) for rank in (0, 1)]
        for member in members:
            member.join()
        ended = [member.exitcode for member in members]
        yield Outcome(ended == [status, status], note=f"{ended}, expected {status} of both")


def _member(rank: int, meeting: Path, status: int) -> None:
    """Meet the other one, exchange something, leave."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", world.MEETING: str(meeting)}
    with world.group("cpu") as (processes, _):
        processes.total(torch.ones(1000))
        processes.all(rank)
    world.leave(status)


def _end(process: subprocess.Popen) -> None:
    """Wait for the batch; where the victim was nothing that it waits for, end it, too."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()


def _marked(mark: str) -> list[int]:
    """The living processes that were started with this mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # gone, or another user's
                continue
    return found
