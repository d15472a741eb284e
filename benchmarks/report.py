"""What the benchmarks share: alternating repetitions, and a table that says where it was measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hml_core import devices, environment, files

FOLDER = Path("results/benchmarks")


def alternate(
    candidates: Mapping[str, Callable[[], Any]], repetitions: int
) -> dict[str, list[float]]:
    """Seconds of every repetition; the candidates take turns, so that a slow minute hits them all."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repetitions):
        for name, call in candidates.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and range of some repetitions."""
    return {"median_s": statistics.median(seconds), "low_s": min(seconds), "high_s": max(seconds)}


def write(name: str, rows: list[dict[str, Any]], device: str = "cpu") -> Path:
    """Print the rows and write them, each with hardware and versions, below ``results/benchmarks``."""
    frame = pd.DataFrame(rows)
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    versions = environment.versions()
    where = {
        "device": devices.describe(torch.device(device)),
        **{package: versions[package] for package in ("hml-core", "torch", "python")},
        "git_commit": environment.git_commit(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.csv"
    files.write_atomically(path, frame.assign(**where).to_csv(index=False, float_format="%.6g"))
    print(f"Written: {path}")
    return path
