"""An epoch: which images each process works on at each step, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hml_core.config import RunConfig
from hml_core.errors import ConfigError, DataError
from hml_core.trainer.world import World

CONFIDENCE_BINS = 20  # of the true-class probability, equally wide


def micro_batches(config: RunConfig, world: World) -> tuple[int, int]:
    """Images that pass the network together, and how often a process does that in a step.

    Raises
    ------
    ConfigError
        Where the processes cannot share a batch evenly.
    """
    size = config.micro_batch_size or config.batch_size
    number = config.batch_size // size
    if number % world.size:
        raise ConfigError(
            f"{world.size} processes cannot share a batch of {config.batch_size} that is made of {number} "
            f"micro-batch(es) of {size}: expected `micro_batch_size` to divide "
            f"{config.batch_size} / {world.size}, or a number of processes that divides {number}. (Batch "
            "norm takes its statistics over a micro-batch, so that it is part of the run.)"
        )
    return size, number // world.size


@dataclass(frozen=True)
class Shares:
    """How the images of an epoch are shared out to steps, processes and micro-batches.

    Parameters
    ----------
    config : RunConfig
    world : World
    images : int
        For training.

    Raises
    ------
    ConfigError, DataError
        Where the processes cannot share a batch evenly, or there are fewer images than a batch of
        several micro-batches.
    """

    config: RunConfig
    world: World
    images: int

    def __post_init__(self) -> None:
        micro_batches(self.config, self.world)
        if self.is_split and self.images < self.config.batch_size:
            raise DataError(
                f"The {self.images} training images are less than a batch: expected `batch_size` ≤ "
                f"{self.images}, got {self.config.batch_size}."
            )

    @property
    def micro_batch(self) -> int:
        """Images that pass the network together."""
        return micro_batches(self.config, self.world)[0]

    @property
    def per_step(self) -> int:
        """Micro-batches of this process in a step."""
        return micro_batches(self.config, self.world)[1]

    @property
    def is_split(self) -> bool:
        """Whether a batch is made of several micro-batches."""
        return self.micro_batch != self.config.batch_size

    @property
    def steps(self) -> int:
        """Of an epoch. An incomplete last batch is left out where batches are split."""
        if self.is_split:
            return self.images // self.config.batch_size
        return -(-self.images // self.config.batch_size)

    def places(self, first_step: int) -> Tensor:
        """Places in an epoch's order that this process works on, from a step on; int64 on the CPU."""
        size = self.config.batch_size
        if not self.is_split:
            return torch.arange(first_step * size, self.images)
        shared = torch.arange(self.steps * size).reshape(self.steps, self.world.size, -1)
        return shared[first_step:, self.world.rank].flatten()

    def parts(self, number: int) -> Iterator[slice]:
        """The micro-batches of so many places."""
        for start in range(0, number, self.micro_batch):
            yield slice(start, min(start + self.micro_batch, number))


@dataclass
class Epoch:
    """How far the epoch is that is being trained.

    ``losses`` float32 (steps,), ``correct`` () and what :meth:`confidence_counts` counts are this
    process's part of sums over all processes; what was done before a restart belongs to the first one's.
    """

    step: int
    losses: Tensor
    correct: Tensor
    counts: Tensor  # int32 (C, BINS) on the CPU, from before a restart
    confidence: Tensor  # of the true class, of this process's images since the restart
    targets: Tensor  # of the same images
    seen: int = 0  # of them
    seconds: float = 0.0
    waiting: float = 0.0  # seconds for images

    def confidence_counts(self) -> Tensor:
        """int32 (C, BINS): how many images of each class have had which probability of it."""
        known = histogram(self.confidence[: self.seen], self.targets[: self.seen], len(self.counts))
        return self.counts + known


def histogram(confidence: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """int32 (C, BINS) on the CPU: how many images of each class have which probability of it."""
    which = (confidence * CONFIDENCE_BINS).long().clamp(0, CONFIDENCE_BINS - 1)
    flat = torch.bincount(
        targets * CONFIDENCE_BINS + which, minlength=num_classes * CONFIDENCE_BINS
    )
    return flat.reshape(num_classes, CONFIDENCE_BINS).int().cpu()
