"""ISIC preparation: images a second and core, what it is spent on, and the memory of a worker.

Sources are synthetic JPEGs of 1024 × 1024 pixels; colour constancy, crop, resize and encode as by default.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from benchmarks import report
from data_prep import color_constancy
from data_prep.isic import images, synthetic
from hml_core.system import limits

SIDE = 1024
IMAGES = 40
REPETITIONS = 7
MANY, FEW = 400, 100  # memory must not grow with the data set


def main() -> None:
    report.arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="hml-bench-") as folder:
        sources = _squares(Path(folder))
        rows = [*_one_core(sources, Path(folder)), *_all_cores(Path(folder))]
    report.write("preparation", rows)


def _squares(folder: Path) -> list[Path]:
    """Sources of the size that the promise is about."""
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        drawn = synthetic.Lesion(number % 7, random).draw(SIDE, random)[:, :SIDE]
        Image.fromarray(drawn).save(path, quality=90)
    return paths


def _one_core(sources: list[Path], folder: Path) -> list[dict[str, Any]]:
    options = images.Options()
    target = folder / "out.jpg"
    data = [path.read_bytes() for path in sources]
    pixels = [np.asarray(Image.open(io.BytesIO(part))) for part in data]
    balanced = [color_constancy.shades_of_gray(image, options.p) for image in pixels]
    small = [images.transform(image, images.Options(constancy="none")) for image in balanced]

    def each(work: Callable[[Any], Any], items: list[Any]) -> Callable[[], None]:
        def call() -> None:
            for item in items:
                work(item)

        return call

    seconds = report.alternate(
        {
            "all of it": each(lambda path: images.process(path, target, options), sources),
            "decode": each(lambda part: np.asarray(Image.open(io.BytesIO(part))), data),
            "colour constancy": each(
                lambda image: color_constancy.shades_of_gray(image, options.p), pixels
            ),
            "crop, resize": each(
                lambda image: images.transform(image, images.Options(constancy="none")), balanced
            ),
            "encode": each(
                lambda image: image.save(io.BytesIO(), "jpeg", quality=95, subsampling=0), small
            ),
        },
        REPETITIONS,
    )
    return [
        {
            "what": f"one process: {name}",
            "images_per_s": IMAGES / report.spread(found)["median_s"],
            "ms_per_image": 1000 * report.spread(found)["median_s"] / IMAGES,
            "n": REPETITIONS,
        }
        for name, found in seconds.items()
    ]


def _all_cores(folder: Path) -> list[dict[str, Any]]:
    """`hml prepare` itself with a worker a core; the largest memory that any worker ever had."""
    cores, rows = limits.usable_cores(), []
    for number in (FEW, MANY):
        root = synthetic.make("isic2018", folder / str(number), number, side=SIDE)
        command = [
            sys.executable,
            "-m",
            "hml_core",
            "prepare",
            "isic2018",
            "--data-root",
            str(root),
        ]
        started = time.perf_counter()
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        largest = 0.0
        while running.poll() is None:
            largest = max([largest, *map(_peak_mib, psutil.Process(running.pid).children())])
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        prepared = len(pd.read_csv(root / "prepared" / "manifest.csv"))
        rows.append(
            {
                "what": f"{cores} workers, {prepared} images of {SIDE} × {SIDE * 4 // 3}, start included",
                "images_per_s": prepared / seconds,
                "ms_per_image": 1000 * seconds / prepared,
                "worker_mib": largest,
                "n": 1,
            }
        )
    return rows


def _peak_mib(process: psutil.Process) -> float:
    """The most resident memory that a process ever had (not what it inherited before `exec`)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
