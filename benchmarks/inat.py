"""iNaturalist 2018: how fast images come, what a step of ResNet-50 takes, and what losses add to it.

The images are made up, with the spectrum of photographs (amplitude ∝ 1/frequency), and encoded as
``hml prepare inat2018`` does it: 341 × 256 pixels, JPEG of quality 87.
"""

from __future__ import annotations

import functools
import hashlib
import io
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks import report
from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles, Splits
from hml_core.datasets.prepared import IMAGENET
from hml_core.recipes import Stage
from hml_core.system import devices, limits
from hml_core.system.devices import autocast
from hml_core.trainer import feeds, update
from hml_core.trainer.loop import Trainer

CLASSES = 8142
IMAGES = 240
FED = 1920  # images that the loader is timed with
SHAPE = (256, 341)
QUALITY = 87
REPETITIONS = 7
LOSSES = ("cross_entropy", "ldam", "balanced_softmax", "hard_mining", "focal", "influence_balanced")
BATCHES = {"cpu": (16, 8, 2), "cuda": (256, 32, 8)}  # batch, micro-batch, steps that are timed


def main() -> None:
    def add(parser: ArgumentParser) -> None:
        parser.add_argument("--model", default="resnet50")
        parser.add_argument("--image-size", type=int, default=224)

    given = report.arguments(__doc__, add)
    with tempfile.TemporaryDirectory(prefix="hml-bench-") as folder:
        splits = made_up(Path(folder), IMAGES)
        rows = [
            *_pipelines(splits.train, given.image_size, given.device),
            *_feed(splits, given.image_size, given.device),
            *_step(splits, given.model, given.image_size, given.device),
        ]
    report.write("inat", rows, given.device)


# Images -----------------------------------------------------------------------------------------


def photograph(random: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3): noise with the spectrum of photographs, and colours that go together."""
    height, width = SHAPE
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = 1 / width
    noise = np.fft.fft2(random.standard_normal((4, *SHAPE))) / frequency
    fields = np.real(np.fft.ifft2(noise))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    pixels = fields[0] + 0.4 * fields[1:]  # mostly brightness
    return np.clip(120 + 45 * pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def made_up(folder: Path, number: int) -> Splits:
    """So many images in files, with classes of iNaturalist's number."""
    random = np.random.default_rng(0)
    names, sums = [], []
    for image in range(number):
        encoded = io.BytesIO()
        Image.fromarray(photograph(random)).save(encoded, "jpeg", quality=QUALITY)
        names.append(f"{image}.jpg")
        sums.append(hashlib.sha256(encoded.getvalue()).hexdigest())
        (folder / names[-1]).write_bytes(encoded.getvalue())
    # Every class has to be there for the losses: the same files again and again.
    repeated = np.arange(CLASSES) % number
    train = LabelledFiles(folder, tuple(names), tuple(sums), np.arange(number), crops=True)
    train = train.take(repeated)
    whole = LabelledFiles(folder, train.names, train.sha256, np.arange(CLASSES), crops=True)
    mean, std = IMAGENET
    return Splits(
        name="made-up images of iNaturalist's size",
        train=whole,
        validation=None,
        test=whole.take(np.arange(64)),
        class_names=tuple(str(number) for number in range(CLASSES)),
        mean=mean,
        std=std,
        train_indices=np.arange(CLASSES),
        synthetic=True,
    )


# One core ---------------------------------------------------------------------------------------


def _pipelines(part: LabelledFiles, size: int, device: torch.device) -> list[dict[str, Any]]:
    """From a file to an augmented image, and the decoding alone, on one core."""
    from torchvision.io import ImageReadMode, decode_jpeg

    data = [(part.folder / part.names[i]).read_bytes() for i in range(IMAGES)]
    augment = feeds.transform("resized_crop", size)

    def encoded(content: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)

    def by_pillow(content: bytes) -> Image.Image:
        return Image.open(io.BytesIO(content)).convert("RGB")

    def by_torchvision(content: bytes) -> torch.Tensor:
        return decode_jpeg(encoded(content), mode=ImageReadMode.RGB)

    def each(call: Callable[[bytes], Any]) -> Callable[[], None]:
        return lambda: [call(content) for content in data] and None

    candidates = {
        "Pillow decodes and augments": each(lambda c: v2.functional.pil_to_tensor(augment(by_pillow(c)))),
        "Pillow decodes, tensors are augmented": each(
            lambda c: augment(v2.functional.pil_to_tensor(by_pillow(c)))
        ),
        "torchvision decodes, tensors are augmented (in use)": each(
            lambda c: augment(feeds.decode(c))
        ),
        "Pillow decodes": each(lambda c: v2.functional.pil_to_tensor(by_pillow(c))),
        "torchvision decodes": each(by_torchvision),
    }  # fmt: skip
    if device.type == "cuda":
        content = [encoded(one) for one in data]
        candidates["nvJPEG decodes, in batches of 32"] = lambda: [
            decode_jpeg(content[start : start + 32], mode=ImageReadMode.RGB, device=device)
            for start in range(0, IMAGES, 32)
        ]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = report.alternate(candidates, REPETITIONS, device, warm_up=True)
    finally:
        torch.set_num_threads(before)
    rows = report.compare(seconds, floor="torchvision decodes", parts=IMAGES)
    size_kb = np.mean([len(one) for one in data]) / 1e3
    return [
        {**row, "images_per_s": 1 / row["median_s"], "kb_per_image": size_kb, "cores": 1}
        for row in rows
    ]


def _feed(splits: Splits, size: int, device: torch.device) -> list[dict[str, Any]]:
    """Whole batches as the trainer gets them, from as many processes as it takes."""
    workers = feeds.loader_workers(len(splits.train))
    feed = feeds.FileFeed(splits.train, splits, size, "resized_crop", device)
    order = torch.arange(FED)

    def epoch() -> None:
        stream = torch.Generator().manual_seed(0)
        for _ in feed.batches(order, 32, stream):
            pass

    seconds = report.alternate({"epoch": epoch}, 3, device, warm_up=True)["epoch"]
    per_image = [value / len(order) for value in seconds]
    row = {"what": "FileFeed, batches of 32", "n": len(seconds), **report.spread(per_image)}
    return [row | {"images_per_s": 1 / row["median_s"], "cores": max(workers, 1)}]


# A step -----------------------------------------------------------------------------------------


def _step(splits: Splits, model: str, size: int, device: torch.device) -> list[dict[str, Any]]:
    """A step of the network from files, the part of it that waits for images, and losses alone."""
    batch, micro, number = BATCHES[device.type]
    config = RunConfig(
        dataset="inat2018",
        recipe="ce",
        model=model,
        image_size=size,
        batch_size=batch,
        micro_batch_size=micro,
    )
    trainer = Trainer(config, splits, device)
    running = trainer.train_epoch()
    next(running)  # workers start, libraries choose

    def some_steps() -> None:
        for _ in range(number):
            next(running)

    waited = trainer.current.waiting
    with devices.algorithms(deterministic=False):
        seconds = report.alternate({"step": some_steps}, 3, device)["step"]
    waited = trainer.current.waiting - waited
    running.close()
    per_step = [value / number for value in seconds]
    row = {"what": f"{model} at {size} pixels, step of {batch}", "n": len(seconds)}
    row |= report.spread(per_step)
    row |= {
        "images_per_s": batch / row["median_s"],
        "waiting_share": waited / sum(seconds),
        "cores": limits.usable_cores(),
    }
    return [row, *_losses(trainer, row["median_s"] / trainer.shares.per_step)]


def _losses(trainer: Trainer, step_s: float) -> list[dict[str, Any]]:
    """Each loss forward and backward for a micro-batch, as a share of that micro-batch's step."""
    size, device = trainer.shares.micro_batch, trainer.device
    generator = torch.Generator(device).manual_seed(0)
    classifier = trainer.model.classifier
    features = torch.randn(size, classifier.in_features, generator=generator, device=device)
    with autocast(device, trainer.autocast_dtype):
        logits = classifier(features).detach().requires_grad_()
    target = torch.randint(CLASSES, (size,), generator=generator, device=device)
    counts = np.geomspace(1000, 2, CLASSES).astype(int)

    def once(criterion: torch.nn.Module) -> None:
        extra = (features,) if criterion.needs_features else ()
        torch.autograd.grad(criterion(logits, target, *extra), logits)

    calls = {
        name: functools.partial(once, update.build_loss(Stage(name, {}, "none"), counts).to(device))
        for name in LOSSES
    }
    seconds = report.alternate(calls, 15, device, warm_up=True)
    return [
        {
            "what": f"loss {name}, {CLASSES} classes",
            "n": len(values),
            **report.spread(values),
            "share_of_step": report.spread(values)["median_s"] / step_s,
            "promise": "share_of_step < 0.03",
        }
        for name, values in seconds.items()
    ]


if __name__ == "__main__":
    main()
