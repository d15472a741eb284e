"""Evaluation of ResNet-32 on CIFAR images: ours, the plain trainer's, and the convolutions alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import floor, images, report
from benchmarks.plain import PlainTrainer
from benchmarks.train_step import CONFIG, FLOOR
from hml_core.models import inference
from hml_core.system import devices
from hml_core.trainer import Trainer, feeds

REPETITIONS = 7
SIZES = (100, 500, 1000)  # batches that were tried beside the one in use


def main() -> None:
    device = report.arguments(__doc__).device
    workers = 0 if device.type == "cpu" else 4
    splits = images.splits(CONFIG.batch_size)
    plain = PlainTrainer(CONFIG, splits, device, workers)
    ours = Trainer(CONFIG, splits, device)
    ours.model.eval()
    dtype = ours.autocast_dtype or torch.float32
    chosen = feeds.bank_batch(device)
    convolutions = floor.convolutions(CONFIG.model, chosen, dtype, device, backward=False)
    candidates = {
        f"plain trainer, {workers} workers": plain.evaluate,
        f"ours, batches of {chosen}": _ours(ours, chosen),
        **{f"ours, batches of {size}": _ours(ours, size) for size in SIZES if size != chosen},
        FLOOR: lambda: [convolutions() for _ in range(images.TEST // chosen)],
    }
    with devices.algorithms(deterministic=False):
        seconds = report.alternate(candidates, REPETITIONS, device, warm_up=True)
    rows = report.compare(seconds, floor=FLOOR)
    rows[1] |= {"promise": "ratio ≥ 2.5 with bf16 units"}
    for row in rows:
        row["images_per_s"] = images.TEST / row["median_s"]
    report.write("evaluation", rows, device, precision=str(dtype).removeprefix("torch."))


def _ours(trainer: Trainer, size: int) -> Callable[[], None]:
    """Features of the test split, as after an epoch, in batches of that size."""
    feed = trainer.evaluator.feeds["test"]

    @torch.inference_mode()
    def call() -> None:
        features = inference.features_of(trainer.model, trainer.device, trainer.autocast_dtype)
        for payload in feed.batches(torch.arange(images.TEST), size):
            features(feed.images(payload))

    return call


if __name__ == "__main__":
    main()
