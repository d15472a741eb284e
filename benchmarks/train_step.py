"""A training step of ResNet-32 on 128 CIFAR images: ours, the plain trainer's, and the convolutions alone.

Times are of short epochs, from images to updated weights, divided by their steps. The floor is what the
network's convolutions take by themselves, forward and backward, in our precision and memory layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import floor, images, report
from benchmarks.plain import PlainTrainer
from hml_core.config import RunConfig
from hml_core.system import devices
from hml_core.trainer import Trainer

STEPS = 8
REPETITIONS = 15
CONFIG = RunConfig(dataset="cifar100", recipe="ce")
FLOOR = "convolutions alone (floor)"
LISTED = 8  # operators of the profile


def main() -> None:
    device = report.arguments(__doc__).device
    workers = 0 if device.type == "cpu" else 4
    splits = images.splits(STEPS * CONFIG.batch_size, test=CONFIG.batch_size)
    plain = PlainTrainer(CONFIG, splits, device, workers)
    ours = {
        precision: Trainer(_with(precision), splits, device) for precision in ("auto", "float32")
    }
    dtype = ours["auto"].autocast_dtype or torch.float32
    convolutions = floor.convolutions(CONFIG.model, CONFIG.batch_size, dtype, device, backward=True)
    batch = next(iter(plain.train_loader))
    candidates = {
        f"plain trainer, {workers} workers": plain.train_epoch,
        "ours": _epoch(ours["auto"]),
        "ours, float32": _epoch(ours["float32"]),
        "plain trainer, the images given": lambda: [plain.step(*batch) for _ in range(STEPS)],
        FLOOR: lambda: [convolutions() for _ in range(STEPS)],
    }
    with devices.algorithms(deterministic=False):
        seconds = report.alternate(candidates, REPETITIONS, device, warm_up=True)
        rows = report.compare(seconds, floor=FLOOR, parts=STEPS)
        rows[1] |= {"promise": "ratio ≥ 2, to_floor ≤ 1.5 with bf16 units"}
        rows[2] |= {"promise": "ratio ≥ 1.3"}
        rows += _profile(_epoch(ours["auto"]), device)
    if device.type == "cpu":
        rows.append(
            {"what": "memory of a CIFAR-100 run, all images", "mib": memory(), "promise": "< 1536"}
        )
    report.write("train_step", rows, device, precision=str(dtype).removeprefix("torch."))


def _with(precision: str) -> RunConfig:
    return RunConfig(dataset="cifar100", recipe="ce", precision=precision)


def _epoch(trainer: Trainer) -> Callable[[], None]:
    def call() -> None:
        for _ in trainer.train_epoch():
            pass

    return call


def _profile(epoch: Callable[[], None], device: torch.device) -> list[dict[str, Any]]:
    """Rows for the operators that take most of our step's time, with their shares."""
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as profiler:
        epoch()
    time_of = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    found = {event.key: getattr(event, time_of) for event in profiler.key_averages()}
    total = sum(found.values())
    largest = sorted(found, key=found.get, reverse=True)[:LISTED]
    return [
        {"what": f"of our step: {name[:60]}", "n": 1, "share": found[name] / total}
        for name in largest
    ]


WHOLE_CIFAR = """
import torch
from benchmarks import images
from hml_core.system import devices
from hml_core.config import RunConfig
from hml_core.trainer import Trainer
devices.keep_freed_memory()
splits = images.splits(50_000, test=10_000)
trainer = Trainer(RunConfig(dataset="cifar100", recipe="ce"), splits, torch.device("cpu"))
steps = trainer.train_epoch()
for _ in range(6):
    next(steps)
trainer.evaluator.evaluate(trainer.model, 1.0, epoch=1)
"""


def memory() -> float:
    """Largest resident memory, MiB, of a process that trains on all of CIFAR-100 and evaluates."""
    return report.peak_memory(WHOLE_CIFAR)


if __name__ == "__main__":
    main()
