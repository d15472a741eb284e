"""Two one-thread Dask workers against one process, for a grid of equal runs; and what scheduling costs.

The floor is what the machine allows: two processes that know nothing of each other share the runs.
"""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from distributed import Client, LocalCluster

from benchmarks import report
from hml_core import engines
from hml_core.config import RunConfig, grid
from hml_core.engines import cluster
from hml_core.engines.jobs import Place

RUNS = 8
WORKERS = 2
REPETITIONS = 3
SCHEDULED = 200  # runs that are done already: what is left is scheduling and reading the record


def configs() -> list[RunConfig]:
    """Equal runs on Digits-LT, some seconds each."""
    return grid(recipe="ce", seed=list(range(RUNS)), dataset="digits", epochs=60)


def main() -> None:
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
                "one process": lambda: _train("serial", next(roots)),
                f"{WORKERS} workers": lambda: _train(address, next(roots)),
                f"{WORKERS} processes without a scheduler (floor)": lambda: _side_by_side(
                    pool, next(roots)
                ),
            },
            REPETITIONS,
        )
        done = Path(folder) / "2"
        place = Place(done, device="cpu")
        again = list(itertools.islice(itertools.cycle(configs()), SCHEDULED))
        scheduling = report.alternate(
            {"scheduling": lambda: list(cluster.submit(client, again, place, None))}, REPETITIONS
        )["scheduling"]
    rows = [
        {"what": f"{RUNS} runs, {name}", "n": REPETITIONS, **report.spread(values)}
        for name, values in seconds.items()
    ]
    for row in rows[1:]:
        row["ratio"] = row["median_s"] / rows[0]["median_s"]
    per_run = [value * WORKERS / SCHEDULED for value in scheduling]
    rows.append({"what": "scheduling a run", "n": REPETITIONS, **report.spread(per_run)})
    rows.append({"what": "start of the workers, once", "n": 1, "median_s": ready})
    report.write("sweep", rows)


def _side_by_side(pool: ProcessPoolExecutor, root: Path) -> None:
    list(pool.map(_train_part, range(WORKERS), itertools.repeat(root)))


def _train_part(part: int, root: Path) -> None:
    engines.sweep(configs()[part::WORKERS], runs_root=root, device="cpu", progress=False)


def _train(engine: str, root: Path) -> None:
    frame = engines.sweep(configs(), engine=engine, runs_root=root, device="cpu", progress=False)
    assert (frame["status"] == "done").all(), frame["error"].tolist()


if __name__ == "__main__":
    main()
