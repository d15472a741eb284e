"""Groups of processes for the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests import forks

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0  # with a group that waits for ever, whatever else the machine does


def start(
    *arguments, processes: int = 2, restarts: int = 0, forked: bool = True
) -> forks.Python | subprocess.Popen:
    """Start a group: a job of :mod:`tests.distributed.jobs`, or another module after "-m".

    Where it is not forked (:mod:`tests.forks`), its processes end as an interpreter does.
    """
    place = ("--standalone", "--nproc-per-node", processes)
    return _start(place, arguments, restarts, forked)


def start_on_hosts(*arguments, hosts: int = 2, restarts: int = 0) -> list[forks.Python]:
    """Start the same group as so many hosts of a process each, here with one address and a common port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    place = ("--nnodes", hosts, "--nproc-per-node", 1, "--rdzv-backend", "c10d")
    place += ("--rdzv-endpoint", endpoint, "--local-addr", "127.0.0.1")
    return [_start(place, arguments, restarts) for _ in range(hosts)]


def _start(
    place: tuple, arguments: tuple, restarts: int, forked: bool = True
) -> forks.Python | subprocess.Popen:
    module = [] if arguments[0] == "-m" else ["-m", "tests.distributed.jobs"]
    options = [*map(str, [*place, "--max-restarts", restarts, *module, *arguments])]
    if forked:
        program = ["-c", "from tests import forks\nforks.torchrun()", *options]
        begin = forks.Python
    else:
        program = [sys.executable, "-m", "torch.distributed.run", *options]
        begin = subprocess.Popen
    return begin(
        program,
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
