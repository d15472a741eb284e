"""An epoch: which images each process works on at each step, and how far it is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hml_core.config import RunConfig
from hml_core.datasets import LabelledImages, Splits
from hml_core.errors import ConfigError, DataError
from hml_core.trainer.world import World

CONFIDENCE_BINS = 20  # of the true-class probability, equally wide
# What a history says of an epoch.
COLUMNS = {
    "epoch", "stage", "learning_rate", "train_loss", "train_accuracy", "validation_accuracy",
    "validation_balanced_accuracy", "test_accuracy", "test_balanced_accuracy", "seconds",
    "waiting_seconds",
}  # fmt: skip

Item = TypeVar("Item")


def is_due(config: RunConfig, epoch: int) -> bool:
    """Whether a run evaluates its network after that many epochs."""
    return epoch == config.epochs or epoch % config.evaluate_every == 0


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

    def done(self, steps: int) -> int:
        """Images that all processes have worked on after so many steps of an epoch."""
        places = steps * self.config.batch_size
        return places if self.is_split else min(places, self.images)

    @property
    def smallest(self) -> int:
        """Images that pass the network together, at the least."""
        if self.is_split:
            return self.micro_batch
        return self.images % self.micro_batch or self.micro_batch

    @property
    def sizes(self) -> set[int]:
        """Images that pass the network together: of a whole micro-batch, and of the last one."""
        return {min(self.micro_batch, self.images), self.smallest}

    def places(self, first_step: int) -> Tensor:
        """Places in an epoch's order that this process works on, from a step on; int64 on the CPU."""
        size = self.config.batch_size
        if not self.is_split:
            # (After the last step of all, which need not be a whole batch, there are none.)
            return torch.arange(min(first_step * size, self.images), self.images)
        shared = torch.arange(self.steps * size).reshape(self.steps, self.world.size, -1)
        return shared[first_step:, self.world.rank].flatten()

    def parts(self, number: int) -> Iterator[slice]:
        """The micro-batches of so many places."""
        for start in range(0, number, self.micro_batch):
            yield slice(start, min(start + self.micro_batch, number))


def image_shape(config: RunConfig, splits: Splits) -> tuple[int, int, int]:
    """Channels, height and width of what the network sees."""
    height = width = config.image_size
    if isinstance(splits.train, LabelledImages):
        height, width = splits.train.images.shape[1:3]
    return splits.channels, height, width


def require_batch_statistics(
    model: nn.Module, shares: Shares, splits: Splits, device: torch.device
) -> None:
    """No batch norm that gets one value of a channel: from that it cannot take a deviation.

    Raises
    ------
    ConfigError
        Where a batch of one image meets a layer whose maps are single points.
    """
    if shares.smallest > 1 or not any(stage.trains == "all" for stage in shares.config.stages):
        return
    single: list[nn.Module] = []
    watched = [
        layer.register_forward_pre_hook(
            lambda layer, given: single.append(layer) if given[0][:, 0].numel() == 1 else None
        )
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
    model.eval()  # where one image is enough, and nothing is drawn
    try:
        with torch.inference_mode():
            model(torch.zeros(1, *image_shape(shares.config, splits), device=device))
    finally:
        model.train()
        for hook in watched:
            hook.remove()
    if single:
        name, given = "batch_size", shares.config.batch_size
        if shares.is_split:
            name, given = "micro_batch_size", shares.micro_batch
        other = next(number for number in itertools.count(given + 1) if shares.images % number != 1)
        raise ConfigError(
            f"Of {shares.images:,} training images some would pass the network alone, and batch norm "
            f"takes no statistics of one value: expected another `{name}`, such as {other}, got {given}."
        )


@dataclass(frozen=True)
class Sums:
    """What an epoch has come to so far, over all processes, on the CPU.

    Parameters
    ----------
    losses : Tensor
        float32 (steps,), the mean loss of every step that is done.
    correct : Tensor
        int64 (), images whose class had the largest logit.
    counts : Tensor
        int32 (C, BINS), see :func:`histogram`.
    """

    losses: Tensor
    correct: Tensor
    counts: Tensor


class Epoch:
    """How far the epoch is that is being trained.

    Sums are this process's part of those over all processes; what was done before a restart belongs to
    the first one's.

    Parameters
    ----------
    shares : Shares
    num_classes : int
    device : torch.device
    state : mapping, optional
        Of an epoch that was begun before a restart, see :meth:`state`.
    """

    def __init__(
        self,
        shares: Shares,
        num_classes: int,
        device: torch.device,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.shares, self.world = shares, shares.world
        self.step = 0  # steps done
        self.seconds = self.waiting = 0.0  # in all, and for images
        self.losses = torch.zeros(shares.steps, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.counts = torch.zeros(  # from before a restart
            (num_classes, CONFIDENCE_BINS), dtype=torch.int32
        )
        if state is not None:
            self.step, self.seconds, self.waiting = (
                state[name] for name in ("step", "seconds", "waiting")
            )
            if self.world.is_first:
                self.losses = state["losses"].to(device)
                self.correct = state["correct"].to(device)
                self.counts = state["counts"]
        self.expect(torch.empty(0, dtype=torch.int64, device=device))

    def expect(self, targets: Tensor) -> None:
        """The classes (M,) of this process's images from here on."""
        self.targets, self.seen = targets, 0
        self.confidence = torch.empty(len(targets), device=targets.device)  # of the true class

    def await_next(self, batches: Iterator[Item]) -> Item:
        """The next batch; the wait for it is counted. One that a process cannot read stops all."""
        asked = time.perf_counter()
        with self.world.together():
            batch = next(batches)
        self.waiting += time.perf_counter() - asked
        return batch

    def add(self, loss: Tensor, confidence: Tensor, hits: Tensor) -> None:
        """What a step gave: mean loss (), probability of the true class (B,), hits ()."""
        self.losses[self.step] = loss / self.world.size
        self.confidence[self.seen : self.seen + len(confidence)] = confidence
        self.correct += hits
        self.seen += len(confidence)
        self.step += 1

    def sums(self) -> Sums:
        """All processes must call it."""
        known = histogram(self.confidence[: self.seen], self.targets[: self.seen], len(self.counts))
        parts = (self.losses, self.correct, self.counts + known)
        return Sums(*(self.world.total(part) for part in parts))

    def state(self, sums: Sums) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        times = {"step": self.step, "seconds": self.seconds, "waiting": self.waiting}
        return {**times, **vars(sums)}


def histogram(confidence: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """int32 (C, BINS) on the CPU: how many images of each class have which probability of it."""
    which = (confidence * CONFIDENCE_BINS).long().clamp(0, CONFIDENCE_BINS - 1)
    flat = torch.bincount(
        targets * CONFIDENCE_BINS + which, minlength=num_classes * CONFIDENCE_BINS
    )
    return flat.reshape(num_classes, CONFIDENCE_BINS).int().cpu()
