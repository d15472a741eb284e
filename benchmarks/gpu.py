"""Whole runs on a GPU: 200 epochs of ResNet-32 on images of CIFAR-100-LT's shape, and eight at a time.

The images are made up: what is measured does not depend on what they show.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import images, report
from benchmarks.plain import PlainTrainer
from hml_core import datasets, engines
from hml_core.config import RunConfig, grid

TRAIN, TEST = 10_847, 10_000  # CIFAR-100-LT at ratio 100
EPOCHS, EVALUATE_EVERY = 200, 5
RUNS, SHORT_EPOCHS = 8, 10
REPETITIONS = 7
PLAIN_EPOCHS, WORKERS = 3, 4
NAME = "made_up_cifar100_lt"

SPLITS = functools.cache(lambda: images.splits(TRAIN, TEST))
datasets.register(NAME, datasets.DatasetInfo(lambda config, data_root: SPLITS()))


def configs(runs: int, epochs: int) -> list[RunConfig]:
    """Equal runs of the CIFAR-LT protocol that differ in their seed."""
    return grid(
        recipe="hml1",
        seed=list(range(runs)),
        dataset=NAME,
        model="resnet32",
        epochs=epochs,
        evaluate_every=EVALUATE_EVERY,
    )


def main() -> None:
    device = report.arguments(__doc__).device
    if device.type != "cuda":
        raise SystemExit("Needs a GPU: python -m benchmarks.gpu --device cuda")
    report.write("gpu", measure(device), device)


def measure(device: torch.device) -> list[dict[str, Any]]:
    """The rows of the table."""
    with tempfile.TemporaryDirectory(prefix="hml-bench-") as folder:
        roots = (Path(folder) / str(number) for number in itertools.count())

        def train(engine: str, runs: int, epochs: int) -> None:
            frame = engines.sweep(
                configs(runs, epochs),
                engine=engine,
                runs_root=next(roots),
                device=device,
                progress=False,
            )
            assert (frame["status"] == "done").all(), frame["error"].tolist()

        train("serial", 1, SHORT_EPOCHS)  # loads the libraries
        whole = report.alternate(
            {"one run": lambda: train("serial", 1, EPOCHS)}, REPETITIONS, device
        )["one run"]
        plain = _plain_run(device)
        several = report.alternate(
            {
                f"{RUNS} runs, one after the other": lambda: train("serial", RUNS, SHORT_EPOCHS),
                f"{RUNS} runs, interleave:{RUNS}": lambda: train(
                    f"interleave:{RUNS}", RUNS, SHORT_EPOCHS
                ),
            },
            REPETITIONS,
            device,
        )
        used = [_memory(train, runs, device) for runs in (1, RUNS)]
    rows = [
        {
            "what": f"plain trainer, {WORKERS} workers, {EPOCHS} epochs (from {PLAIN_EPOCHS})",
            "n": 1,
            "median_s": plain,
        },
        {
            "what": f"ours, {EPOCHS} epochs, evaluated every {EVALUATE_EVERY}",
            "n": REPETITIONS,
            **report.spread(whole),
            "ratio": plain / report.spread(whole)["median_s"],
            "promise": "≤ 30 s, ratio ≥ 20",
        },
        *report.compare(several, floor=next(iter(several))),
        {"what": "memory of one run", "n": 1, "mib": used[0]},
        {"what": "memory of each further run", "n": 1, "mib": (used[1] - used[0]) / (RUNS - 1)},
    ]
    rows[3] |= {"promise": "ratio ≥ 3"}
    return rows


def _plain_run(device: torch.device) -> float:
    """Seconds of a whole run by the plain trainer, from some of its epochs."""
    trainer = PlainTrainer(configs(1, EPOCHS)[0], SPLITS(), device, WORKERS)
    trainer.train_epoch()  # starts the workers
    trainer.evaluate()
    started = time.perf_counter()
    for _ in range(PLAIN_EPOCHS):
        trainer.train_epoch()
    trained = time.perf_counter()
    trainer.evaluate()
    evaluated = time.perf_counter()
    epoch = (trained - started) / PLAIN_EPOCHS
    return EPOCHS * (epoch + (evaluated - trained) / EVALUATE_EVERY)


def _memory(train, runs: int, device: torch.device) -> float:
    """MiB that torch holds of the GPU while so many runs take turns."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    train(f"interleave:{runs}", runs, EVALUATE_EVERY)
    return torch.cuda.max_memory_reserved(device) / 2**20


if __name__ == "__main__":
    main()
