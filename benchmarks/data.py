"""The data pipeline alone: an epoch of augmented, normalised CIFAR batches, ours and image by image.

The floor is the memory: bytes that must be read and written, at the rate at which this machine copies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import images, plain, report
from benchmarks.train_step import CONFIG
from hml_core.system import seeds
from hml_core.trainer import feeds

IMAGES = 4096
REPETITIONS = 7
BYTES = 3 * 32 * 32 * (1 + 4)  # of an image: a byte read and a float written for each value
COPIED = 2**26  # larger than the caches


def main() -> None:
    device = report.arguments(__doc__).device
    splits = images.splits(IMAGES, test=CONFIG.batch_size)
    loaders = {
        workers: plain.loader(
            splits.train,
            splits,
            CONFIG.batch_size,
            augmentation=CONFIG.augmentation,
            workers=workers,
        )
        for workers in (0, 2 if device.type == "cpu" else 4)
    }
    feed = feeds.make(splits.train, splits, CONFIG, device, augmented=True)

    def ours() -> None:
        stream = seeds.generator(0, "augmentation")
        for payload in feed.batches(torch.arange(IMAGES), CONFIG.batch_size, stream):
            feed.images(payload)

    candidates = {
        **{
            f"plain trainer, {workers} workers": _plain(loader, device)
            for workers, loader in loaders.items()
        },
        "ours": ours,
        "memory alone (floor)": _copy(device),
    }
    seconds = report.alternate(candidates, REPETITIONS, device, warm_up=True)
    rows = report.compare(seconds, floor="memory alone (floor)")
    rows[len(loaders)] |= {"promise": "ratio ≥ 25"}
    for row in rows:
        row["images_per_s"] = IMAGES / row["median_s"]
    report.write("data", rows, device)


def _plain(loader: torch.utils.data.DataLoader, device: torch.device) -> Callable[[], None]:
    def call() -> None:
        for batch, targets in loader:
            batch.to(device), targets.to(device)

    return call


def _copy(device: torch.device) -> Callable[[], None]:
    """Move as many bytes as the batches have, out of the cache into it."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    moved = IMAGES * BYTES // 2  # a copy reads and writes each

    def call() -> None:
        left = moved
        while left > 0:
            size = min(left, COPIED)
            target[:size].copy_(source[:size])
            left -= size

    return call


if __name__ == "__main__":
    main()
