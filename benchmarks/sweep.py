"""A grid of equal runs by each engine, against one after the other; and what an engine costs.

Two one-thread Dask workers, and runs that take turns in one process. The floor is what the machine allows:
two processes that know nothing of each other share the runs. Then what common beginnings save
(:mod:`benchmarks.beginnings`). All on a CPU: for a GPU there is :mod:`benchmarks.gpu`.

``--only beginnings`` measures the last part again and keeps the other rows.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from benchmarks import beginnings, report
from hml_core import engines
from hml_core.config import RunConfig, grid
from hml_core.engines import dask
from hml_core.engines.jobs import Place

RUNS = 8
WORKERS = 2
REPETITIONS = 7
SCHEDULED = 200  # runs that are done already: what is left is scheduling and reading the record
FLOOR = f"{RUNS} runs, {WORKERS} processes without a scheduler (floor)"


def configs() -> list[RunConfig]:
    """Equal runs on Digits-LT, about a second each."""
    return grid(recipe="ce", seed=list(range(RUNS)), dataset="digits", epochs=15)


def main() -> None:
    only = report.arguments(__doc__, _add_part).only
    rows = [] if only else _engines()
    report.write("sweep", [*rows, *beginnings.rows()], keeps=bool(only))


def _add_part(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=["beginnings"], help="measure this part alone")


def _engines() -> list[dict[str, Any]]:
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="hml-bench-") as folder,
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, memory_limit=0, dashboard_address=None
        ) as local,
        Client(local) as client,
        ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool,
    ):
        address = f"dask:{local.scheduler_address}"
        roots = (Path(folder) / str(number) for number in itertools.count())
        engines.sweep(configs()[:WORKERS], engine=address, runs_root=next(roots), progress=False)
        ready = time.perf_counter() - started
        list(pool.map(_train_part, range(WORKERS), itertools.repeat(next(roots))))  # imports torch
        seconds = report.alternate(
            {
                f"{RUNS} runs, one process": lambda: _train("serial", next(roots)),
                f"{RUNS} runs, {WORKERS} workers": lambda: _train(address, next(roots)),
                f"{RUNS} runs, interleave:{RUNS}": lambda: _train(
                    f"interleave:{RUNS}", next(roots)
                ),
                FLOOR: lambda: _side_by_side(pool, next(roots)),
            },
            REPETITIONS,
        )
        done = Path(folder) / "2"
        place = Place(done, device="cpu")
        again = list(itertools.islice(itertools.cycle(configs()), SCHEDULED))
        scheduling = report.alternate(
            {"scheduling": lambda: list(dask.submit(client, again, place, None))}, REPETITIONS
        )["scheduling"]
    rows = report.compare(seconds, floor=FLOOR)
    per_run = [value * WORKERS / SCHEDULED for value in scheduling]
    rows.append({"what": "scheduling a run", "n": REPETITIONS, **report.spread(per_run)})
    rows.append({"what": "start of the workers, once", "n": 1, "median_s": ready})
    rows.append({"what": "memory of each further interleaved run", "n": 1, "mib": _memory()})
    return rows


def _side_by_side(pool: ProcessPoolExecutor, root: Path) -> None:
    list(pool.map(_train_part, range(WORKERS), itertools.repeat(root)))


def _train_part(part: int, root: Path) -> None:
    engines.sweep(configs()[part::WORKERS], runs_root=root, device="cpu", progress=False)


def _train(engine: str, root: Path) -> None:
    frame = engines.sweep(configs(), engine=engine, runs_root=root, device="cpu", progress=False)
    assert (frame["status"] == "done").all(), frame["error"].tolist()


TURNS = """
import torch
from benchmarks import images
from hml_core.system import devices
from hml_core.config import RunConfig
from hml_core.trainer import Trainer
devices.keep_freed_memory()
splits = images.splits(11_000, test=10_000)
cpu = torch.device("cpu")
configs = [RunConfig(dataset="cifar100", recipe="ce", seed=seed) for seed in range(RUNS)]
turns = [Trainer(config, splits, cpu).train_epoch() for config in configs]
for _ in range(3):
    for turn in turns:
        next(turn)
"""


def _memory(more: int = 4) -> float:
    """MiB that a run on CIFAR-100-LT (ratio 100) takes beside another in the same process."""
    one, several = (report.peak_memory(f"RUNS = {number}\n{TURNS}") for number in (1, 1 + more))
    return (several - one) / more


if __name__ == "__main__":
    main()
