"""What the tests of several engines share: a small grid, and processes that sweep over it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from hml_core import recipes
from hml_core.config import RunConfig, grid
from hml_core.recipes import Stage
from tests import forks

REPOSITORY = Path(__file__).resolve().parents[2]

# Sweeps with an engine and writes a line "<pid> <run_id> <epoch>" for every epoch that it trains.
LOGGED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from hml_core import engines, trainer
from hml_core.trainer import fitting
from tests.engines.helpers import configs
plain = trainer.Trainer.train_epoch
def logged(self):
    with open(sys.argv[2], "a") as log:
        log.write(f"{os.getpid()} {self.config.run_id} {self.epoch}\\n")
    return plain(self)
trainer.Trainer.train_epoch = logged
fitting.CHECKPOINT_INTERVAL_S = 0.0
print("ready", flush=True)
sys.stdin.readline()  # until somebody says so: several are to begin together
frame = engines.sweep(configs(epochs=int(sys.argv[3])), runs_root=sys.argv[1])
sys.exit(not (frame["status"] == "done").all())
"""

# Holds the first run until its input ends.
HOLD = """
import sys
from hml_core.runs import RunFolder
from tests.engines.helpers import configs
with RunFolder(sys.argv[1], configs()[0]).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""

SBATCH = """#!/bin/sh
# Runs the job at once, in the background.
job="$(dirname "$0")/job.$$"
cp "$1" "$job.sh"  # Slurm keeps its own copy; dask-jobqueue deletes the original
bash "$job.sh" > "$job.log" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do pkill -P "$job"; kill "$job"; done
"""


def pretend_slurm(folder: Path, monkeypatch) -> Path:
    """Put a stand-in for Slurm on the PATH that runs one job on this machine; returns its options."""
    for name, text in {"sbatch": SBATCH, "scancel": SCANCEL}.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    options = {"jobs": 1, "cores": 1, "memory": "2GB", "walltime": "00:10:00", "interface": "lo"}
    path = folder / "slurm.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


def says(path: Path, script: str) -> None:
    """Let a command of a stand-in for Slurm do what a line of shell says."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def configs(**fields) -> list[RunConfig]:
    """Four runs."""
    return grid(
        **{"recipe": ["ce", "hml1"], "seed": [0, 1], "epochs": 2, "batch_size": 64, **fields}
    )


def start(program: str, *arguments) -> forks.Python:
    """Run ``program`` in a process of its own, with one thread."""
    return forks.Python(
        ["-c", program, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_together(*programs: forks.Python) -> None:
    """Let processes of :data:`LOGGED` begin once all of them are ready."""
    for process in programs:
        assert process.stdout.readline() == "ready\n", process.stdout.read()
    for process in programs:
        process.stdin.write("go\n")
        process.stdin.flush()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    """Return when the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def let_go_after_the_others(holder: forks.Python, root: Path) -> Iterator[None]:
    """A process of :data:`HOLD` ends as soon as every other run is done; the block must wait for it."""
    held, *others = (root / config.run_id / "metrics.json" for config in configs())

    def let_go() -> None:
        wait_for(lambda: all(path.exists() for path in others), "the other runs")
        assert not held.exists()
        holder.stdin.close()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(let_go)
        yield
        waiting.result()
    assert holder.wait(600) == 0


@recipes.register(title="Two halves", source="a test")
def two_halves(*, gamma: float = 2.0):
    return (Stage("cross_entropy", until=0.5), Stage("focal", {"gamma": gamma}))


del recipes.RECIPES["two_halves"]  # the tests that need it register it
