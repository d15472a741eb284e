"""What the steps of an epoch work on: which images, mixed with which, augmented how."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from hml_core import sampling
from hml_core.augment import draw_mix
from hml_core.config import RunConfig, identity
from hml_core.datasets import Splits
from hml_core.system import seeds
from hml_core.trainer.epochs import Shares
from hml_core.trainer.feeds import Feed
from hml_core.trainer.update import Batch, MicroBatch


class Batches:
    """The batches of every epoch of a run.

    The order and all draws depend on seed and epoch alone: every process makes them, and takes its places.

    Parameters
    ----------
    config : RunConfig
    splits : Splits
    feed : Feed
        Of the training images.
    shares : Shares
    device : torch.device
    """

    def __init__(
        self, config: RunConfig, splits: Splits, feed: Feed, shares: Shares, device: torch.device
    ) -> None:
        self.config, self.feed, self.shares, self.device = config, feed, shares, device
        self.targets = torch.from_numpy(splits.train.targets)  # (N,)
        self.targets_there = self.targets.to(device)

    def of_epoch(
        self, epoch: int, sampler: str, first_step: int = 0
    ) -> tuple[Tensor, Iterator[Batch]]:
        """What is left of an epoch (from 0) at a step: classes, int64 (M,) on the device, and batches."""
        config, size = self.config, self.shares.micro_batch
        is_own = not identity.is_built_in("sampler", sampler)  # and may draw
        chance = seeds.seeded(config.seed, "sampler", epoch, everywhere=True)
        with chance if is_own else contextlib.nullcontext():
            order = sampling.epoch_indices(
                self.targets,
                sampler,
                generator=seeds.generator(config.seed, "order", epoch),
                progress=epoch / max(config.epochs - 1, 1),
            )  # (N,)
        places = self.shares.places(first_step)  # (M,)
        stream = seeds.generator(config.seed, "augmentation", epoch)
        payloads = self.feed.batches(order, size, stream, places)
        mix = None
        if config.mix != "none":
            seed = seeds.derive(config.seed, "mix", epoch)
            mix = draw_mix(len(order), size, config.mix_alpha, seed)[places].to(self.device)
        targets = self.targets_there[order[places].to(self.device)]  # (M,)
        parts = (
            MicroBatch(payload, targets[part], None if mix is None else mix[part])
            for payload, part in zip(payloads, self.shares.parts(len(places)), strict=True)
        )
        return targets, self._steps(parts)

    def _steps(self, parts: Iterator[MicroBatch]) -> Iterator[Batch]:
        while batch := tuple(itertools.islice(parts, self.shares.per_step)):
            yield batch
