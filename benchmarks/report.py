"""What the benchmarks share: alternating repetitions, and a table that says where it was measured."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hml_core.system import devices, files, provenance
from hml_core.system.tables import csv_of

# What was published of them, and where a measurement goes that nobody asked to publish.
PUBLISHED, FOLDER = Path("results/benchmarks"), Path("my_results/benchmarks")
CPU = torch.device("cpu")


def arguments(
    description: str, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The command line of a benchmark: ``--device``, ``--output`` and what ``add`` adds."""
    global FOLDER
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", type=devices.resolve, default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder of the tables [my_results/benchmarks]"
    )
    if add is not None:
        add(parser)
    given = parser.parse_args()
    FOLDER = given.output
    return given


def alternate(
    candidates: Mapping[str, Callable[[], Any]],
    repetitions: int,
    device: torch.device = CPU,
    *,
    warm_up: bool = False,
) -> dict[str, list[float]]:
    """Seconds of every repetition; the candidates take turns, so that a slow minute hits them all.

    ``warm_up`` goes round once more before, unmeasured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(-1 if warm_up else 0, repetitions):
        for name, call in candidates.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def compare(
    seconds: Mapping[str, list[float]], *, floor: str, parts: int = 1
) -> list[dict[str, Any]]:
    """A row for each candidate: times of one of ``parts``, ratios to the first one and to the floor.

    ``ratio`` says how many times faster than the first, ``to_floor`` how many times slower than the floor.
    """
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    return [
        {
            "what": name,
            "n": len(values),
            **spread([value / parts for value in values]),
            "ratio": first / medians[name],
            "to_floor": medians[name] / medians[floor],
        }
        for name, values in seconds.items()
    ]


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and range of some repetitions."""
    return {"median_s": statistics.median(seconds), "low_s": min(seconds), "high_s": max(seconds)}


def peak_memory(script: str) -> float:
    """Largest resident memory, MiB, of a new process that runs the script (Linux)."""
    reading = """
from pathlib import Path
lines = Path("/proc/self/status").read_text().splitlines()
print(int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) / 1024)
"""
    command = [sys.executable, "-c", script + reading]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def write(
    name: str,
    rows: list[dict[str, Any]],
    device: torch.device = CPU,
    *,
    keeps: bool = False,
    **more: str,
) -> Path:
    """Print the rows and write them, each with hardware and versions, below the folder of ``--output``.

    Those of a GPU go into a file of their own. ``keeps`` leaves what else the file holds as it is: another
    part of the benchmark, with its own hardware and versions.
    """
    frame = pd.DataFrame(rows)
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.3g}", na_rep=""))
    versions = provenance.versions()
    where = {
        "device": devices.describe(device),
        **more,
        **{package: versions[package] for package in ("hml-core", "torch", "python")},
        "git_commit": provenance.git_commit(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / (f"{name}.csv" if device.type == "cpu" else f"{name}_{device.type}.csv")
    frame = frame.assign(**where)
    if keeps and path.exists():
        before = pd.read_csv(path)
        columns = list(
            dict.fromkeys([*before.columns.difference(where, sort=False), *frame.columns])
        )
        others = before[~before["what"].isin(frame["what"])]
        frame = pd.concat([others, frame], ignore_index=True)[columns]
    files.write_atomically(path, csv_of(frame, float_format="%.6g"))
    print(f"Written: {path}")
    return path
