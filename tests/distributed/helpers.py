"""Groups of processes for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0


def start(*arguments, processes: int = 2, restarts: int = 0) -> subprocess.Popen:
    """Start a group: a job of :mod:`tests.distributed.jobs`, or another module after "-m"."""
    module = [] if arguments[0] == "-m" else ["-m", "tests.distributed.jobs"]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(processes), "--max-restarts", str(restarts)),
            *module,
            *map(str, arguments),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HML_LOADER_WORKERS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(*arguments, **options) -> tuple[int, str]:
    """Exit status and output of a group that ends by itself."""
    process = start(*arguments, **options)
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, said
