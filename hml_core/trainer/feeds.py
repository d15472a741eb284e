"""Where batches come from: images that lie on the device, or files that worker processes read.

A feed turns an order of images into batches, in two steps: :meth:`batches` yields what a batch is made
of (a *payload*), :meth:`images` makes the normalised images of it, on the device. The same order and
stream give the same images whatever the number of workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hml_core.augment import (
    AUGMENTATIONS,
    FILE_AUGMENTATIONS,
    Augmentation,
    Draws,
    ImageBank,
    draw,
)
from hml_core.config import RunConfig
from hml_core.datasets import DataError, LabelledFiles, LabelledImages, Splits
from hml_core.datasets.inaturalist import SEEN
from hml_core.models import preprocessing
from hml_core.models.preprocessing import Preprocessing, decode
from hml_core.system import images as opener
from hml_core.system import limits
from hml_core.trainer import world

# Images of an evaluation at a time: on a CPU the activations stay in the cache (benchmarks/evaluation.py),
# on a GPU fewer batches are fewer launches.
CPU_BATCH, CUDA_BATCH = 250, 2500
MOST_WORKERS = 8
MOST_GIVEN, MOST_GB = 256, 10**6  # that a variable may ask for
IMAGES_PER_WORKER = 500  # starting a process is not worth it for fewer
PREFETCHED = 4  # batches that each worker makes ahead
LARGEST_BATCH = 256  # images, as far as shared memory is concerned
CACHE_SHARE = 0.25  # of the available memory
# Augmentations of image files that are made of whole batches, of images that lie in memory.
BATCH_WISE = {name for name in FILE_AUGMENTATIONS if name != "none" and name in AUGMENTATIONS}


class Feed(Protocol):
    """What the trainer and the evaluator ask for."""

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        stream: torch.Generator | None = None,
        places: Tensor | None = None,
    ) -> Iterator[Any]:
        """Payloads of the images ``order`` (N,), int64 on the CPU; augmented where a stream is given.

        ``places`` (M,), int64, are those of the order that are wanted, one after the other; default: all.
        What is drawn for a place does not depend on which others are wanted. A payload is a tensor on
        the device, or several in a tuple or dataclass.
        """

    def images(self, payload: Any) -> Tensor:
        """float32 (B, C, H, W), channels-last, normalised."""


def bank_batch(device: torch.device) -> int:
    """How many small images are evaluated at a time."""
    return CUDA_BATCH if device.type == "cuda" else CPU_BATCH


def make(
    part: LabelledImages | LabelledFiles,
    splits: Splits,
    config: RunConfig,
    device: torch.device,
    *,
    augmented: bool = False,
) -> Feed:
    """A feed for a split, with the run's augmentation or without.

    Image files whose augmentation is one of whole batches are decoded once and lie on the device.

    Raises
    ------
    DataError
        Where these do not fit into memory.
    """
    augmentation = config.augmentation if augmented else "none"
    if isinstance(part, LabelledFiles):
        if config.augmentation not in BATCH_WISE:
            return FileFeed(part, splits, config.image_size, augmentation, device)
        part = decoded(part, config.image_size)
    return BankFeed(part, splits, AUGMENTATIONS[augmentation], device)


# Decoded images of a sweep's runs, by what their files hold; None: none are kept.
_decoded: dict[tuple, LabelledImages] | None = None


@contextlib.contextmanager
def keeping_decoded() -> Iterator[None]:
    """Inside the block image files that one run has decoded are not decoded again by the next."""
    global _decoded
    before, _decoded = _decoded, {}
    try:
        yield
    finally:
        _decoded = before


def decoded(part: LabelledFiles, size: int) -> LabelledImages:
    """The squares of ``size`` pixels that a network sees of image files, in memory; not to be written to.

    Raises
    ------
    DataError
        Where they are more than ``HML_IMAGE_CACHE_GB``, by default a quarter of what is available.
    """
    kept = {} if _decoded is None else _decoded
    key = size, part.crops, part.sha256
    if key in kept and np.array_equal(kept[key].targets, part.targets):
        return kept[key]
    needed, most = len(part) * size * size * 3, cache_bytes()
    if needed > most:
        raise DataError(
            f"{len(part):,} images of {size} pixels take {needed / 1e9:.3g} GB of memory, more than the "
            f"{most / 1e9:.3g} GB that they may (HML_IMAGE_CACHE_GB): expected smaller ones, or "
            "an augmentation of images that are read in every epoch."
        )
    images = np.empty((len(part), size, size, 3), dtype=np.uint8)
    files = _Files(part, size, "none", cached=False)
    for index in range(len(part)):
        images[index] = files[index, None].permute(1, 2, 0).numpy()
    images.flags.writeable = False
    if needed + sum(one.images.nbytes for one in kept.values()) > most:
        kept.clear()
    kept[key] = LabelledImages(images, part.targets)
    return kept[key]


def preprocessing_of(splits: Splits, config: RunConfig) -> Preprocessing:
    """What these feeds make of an image that is evaluated, for whoever brings another image."""
    part, size = splits.test, (config.image_size,) * 2
    in_memory = isinstance(part, LabelledImages)
    crops = not in_memory and part.crops
    return Preprocessing(
        size=tuple(part.images.shape[1:3]) if in_memory else size,
        channels=splits.channels,
        resizing="middle" if crops else "whole",
        mean=splits.mean,
        std=splits.std,
        shorter=shorter_side(config.image_size) if crops else 0,
        in_memory=in_memory or config.augmentation in BATCH_WISE,  # files are decoded, see make
    )


def shorter_side(size: int) -> int:
    """To which an image is resized before the square of ``size`` is cut out of its middle."""
    return round(size / SEEN)


class BankFeed:
    """Small images, all on the device: a batch is a gather."""

    def __init__(
        self,
        part: LabelledImages,
        splits: Splits,
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        self.device, self.augmentation = device, augmentation
        self.bank = ImageBank(part.images, splits.mean, splits.std, device, augmentation.pad)

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        stream: torch.Generator | None = None,
        places: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Draws | None]]:
        """See :class:`Feed`."""
        draws = None
        if stream is not None:
            draws = draw(len(order), self.augmentation, stream)
            draws = (draws if places is None else draws[places]).to(self.device)
        order = (order if places is None else order[places]).to(self.device)
        for start in range(0, len(order), batch_size):
            part = slice(start, start + batch_size)
            yield order[part], None if draws is None else draws[part]

    def images(self, payload: tuple[Tensor, Draws | None]) -> Tensor:
        """See :class:`Feed`."""
        return self.bank.batch(*payload)


class FileFeed:
    """Image files, read and augmented by worker processes, normalised on the device.

    ``HML_LOADER_WORKERS`` replaces the number of workers, ``HML_IMAGE_CACHE_GB`` the memory that decoded
    images may take (by default a quarter of what is available; a data set that does not fit is read from
    its files in every epoch). Neither changes a result.
    """

    def __init__(
        self,
        part: LabelledFiles,
        splits: Splits,
        size: int,
        augmentation: str,
        device: torch.device,
    ) -> None:
        self.device = device
        workers = loader_workers(len(part))
        self.files = _Files(part, size, augmentation)
        waiting = workers * PREFETCHED * LARGEST_BATCH * 3 * size**2
        is_shared = limits.has_shared_memory(waiting)
        self.keys = _Keys()
        self.loader = DataLoader(
            self.files,
            batch_sampler=self.keys,
            collate_fn=None if is_shared else _through_a_pipe,
            num_workers=workers,
            persistent_workers=workers > 0 and augmentation != "none",
            prefetch_factor=PREFETCHED if workers > 0 else None,
            pin_memory=device.type == "cuda",
            worker_init_fn=_in_worker,
        )
        self.mean, self.std = (
            255 * torch.tensor(values, device=device)[:, None, None]
            for values in (splits.mean, splits.std)
        )

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        stream: torch.Generator | None = None,
        places: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """See :class:`Feed`."""
        places = torch.arange(len(order)) if places is None else places
        seeds: Sequence[int | None] = [None] * len(places)
        if stream is not None:
            seeds = torch.randint(2**62, (len(order),), generator=stream)[places].tolist()
        keys = list(zip(order[places].tolist(), seeds, strict=True))
        self.keys.batches = [
            keys[start : start + batch_size] for start in range(0, len(keys), batch_size)
        ]
        try:
            for images in self.loader:
                yield torch.as_tensor(images).to(self.device, non_blocking=True)
        except DataError as error:  # a worker's comes with its traceback
            raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None

    def images(self, payload: Tensor) -> Tensor:
        """See :class:`Feed`."""
        images = payload.to(torch.float32, memory_format=torch.channels_last)
        return (images - self.mean) / self.std


def _through_a_pipe(images: list[Tensor]) -> np.ndarray:
    """A batch as an array: a worker would put a tensor into shared memory, and die where that is full."""
    return torch.stack(images).numpy()


def _in_worker(number: int) -> None:
    """A worker ends when it is told to, whatever its parent does then (hml_core.trainer.world)."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Keys:
    """A batch sampler whose batches are set before every epoch: lists of (index, seed or None)."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int | None]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Files(Dataset):
    """uint8 (3, S, S) of the image at an index, augmented by the stream of a seed."""

    def __init__(
        self, part: LabelledFiles, size: int, augmentation: str, *, cached: bool = True
    ) -> None:
        self.part, self.size = part, size
        self.transform = None if augmentation == "none" else transform(augmentation, size)
        self.cuts_itself = augmentation == "resized_crop"
        # An image that is cut out differs from epoch to epoch.
        number = 0 if part.crops or not cached else len(part)
        self.cache = _Cache(number, (3, size, size))

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: tuple[int, int | None]) -> Tensor:
        index, seed = key
        is_plain = seed is None or self.transform is None
        image = self._cropped(index, is_plain) if self.part.crops else self._whole(index)
        if is_plain:
            return image
        # torchvision's transforms take no generator. (Not `seeds.apart`: a thread of a pool would wait
        # for its turn until the one that waits for it gives it up.)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed looks for GPUs, too: 0.3 ms
            torch.default_generator.manual_seed(seed)
            return self.transform(image)

    def _whole(self, index: int) -> Tensor:
        """The image, made square, from the cache where it has been before."""
        pixels = self.cache.get(index)
        if pixels is None:
            with self._opened(index) as data:
                pixels = preprocessing.whole(opener.decode(data), (self.size, self.size))
            self.cache.put(index, pixels)
        return torch.from_numpy(pixels)

    def _cropped(self, index: int, is_plain: bool) -> Tensor:
        """The square in the middle that networks are tested on, or all of the image."""
        with self._opened(index) as data:
            image = decode(data)
        if is_plain or not self.cuts_itself:
            image = preprocessing.middle(image, self.size, shorter_side(self.size))
        return image

    @contextlib.contextmanager
    def _opened(self, index: int) -> Iterator[bytes]:
        """The file's content, which is what was prepared; decoding it in the block may fail, too."""
        path = self.part.folder / self.part.names[index]
        try:
            data = opener.read(path)
            if hashlib.sha256(data).hexdigest() != self.part.sha256[index]:
                raise DataError(f"{str(path)!r} is not the file that was prepared.")
            yield data
        except opener.ImageError as error:
            raise DataError(f"{str(path)!r} {error}.") from error


class _Cache:
    """Decoded images in memory that forked workers share; of no size where they do not fit."""

    def __init__(self, number: int, shape: tuple[int, ...]) -> None:
        size = math.prod(shape)
        self.images: np.ndarray | None = None
        if 0 < number * size <= cache_bytes() and multiprocessing.get_start_method() == "fork":
            # Anonymous and shared: not bound by the size of /dev/shm, and taken page by page.
            pixels, known = mmap.mmap(-1, number * size), mmap.mmap(-1, number)
            self.images = np.frombuffer(pixels, dtype=np.uint8).reshape(number, *shape)
            self.known = np.frombuffer(known, dtype=np.uint8)

    def get(self, index: int) -> np.ndarray | None:
        """A copy of the image, or None where it has not been put."""
        if self.images is None or not self.known[index]:
            return None
        return self.images[index].copy()

    def put(self, index: int, pixels: np.ndarray) -> None:
        """Keep an image, where there is room; the mark comes after the pixels."""
        if self.images is not None:
            self.images[index] = pixels
            self.known[index] = 1


def transform(name: str, size: int) -> Callable[[Tensor], Tensor]:
    """torchvision's transforms of an augmentation of files, for uint8 (3, H, W)."""
    from torchvision.transforms import v2

    if name == "dermoscopy":
        return v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomRotation(20),
                v2.ColorJitter(brightness=0.1, contrast=0.1, hue=0.1),
            ]
        )
    if name == "resized_crop":
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
            ]
        )
    raise ValueError(f"Expected `name` to be a file augmentation, got {name!r}.")


def loader_workers(images: int) -> int:
    """Processes that read images: as many as there are other cores, none for a small data set."""
    if (given := _number("HML_LOADER_WORKERS", MOST_GIVEN)) is not None:
        return int(given)
    if multiprocessing.current_process().daemon:  # such as a Dask worker: it may have no children
        return 0
    cores = limits.usable_cores() // world.processes_here()
    return max(0, min(MOST_WORKERS, cores - 1, images // IMAGES_PER_WORKER))


def cache_bytes() -> float:
    """Memory that the decoded images of one split may take."""
    if (given := _number("HML_IMAGE_CACHE_GB", MOST_GB)) is not None:
        return given * 1e9
    return CACHE_SHARE * limits.available_memory() / world.processes_here()


def _number(variable: str, most: int) -> float | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise DataError(f"Expected {variable} to be a number from 0 to {most:,}, got {text!r:.40}.")
    return value
