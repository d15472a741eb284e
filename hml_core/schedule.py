"""Learning rates and stage boundaries, epoch by epoch.

On CIFAR-LT every boundary is a fraction of the run, so that a shorter run keeps the shape of the
200-epoch schedule of Cao et al. (LDAM, NeurIPS 2019), which the three papers use: at 200 epochs, 5 epochs
of linear warm-up, ×0.01 after epoch 160 and ×0.0001 after epoch 180.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hml_core.recipes import EARLY_DROP, Stage, boundary

PROTOCOLS = ("official", "controlled")
WARM_UP = 0.025
MILESTONES = ((0.8, 1e-2), (0.9, 1e-4))  # after this fraction of the run, the base rate times this
LR_SCHEDULES = ("steps", "cosine", "cyclic", "one_cycle")
ENDING = ("cosine", "one_cycle")  # those that are over only when their last epoch is
LOWEST = 0.01  # of the largest rate of a cycle
CYCLE_HALF = (
    2000  # steps from the lowest to the largest rate: the default that P2 and P3 left as it is
)
EARLY_DROP_AT = 0.5


class Scheduled(Protocol):
    """What the learning rates of a run depend on, such as a :class:`hml_core.config.RunConfig`."""

    epochs: int
    stages: Sequence[Stage]
    stage_ends: tuple[int, ...]
    learning_rate: float
    second_stage_rate: float
    lr_schedule: str
    warmup_epochs: int
    early_drop: bool


def stage_of_epoch(stage_ends: tuple[int, ...], epoch: int) -> int:
    """The stage (from 0) that the epoch (from 0) belongs to.

    >>> [stage_of_epoch((2,), epoch) for epoch in range(4)]
    [0, 0, 1, 1]
    """
    return sum(epoch >= end for end in stage_ends)


def learning_rates(config: Scheduled, stage_ends: tuple[int, ...] | None = None) -> np.ndarray:
    """Learning rate of every epoch, float64 (epochs,).

    ``stage_ends`` replaces that of the config where a stage has ended early (a plateau).

    ``config.lr_schedule`` is "steps" (warm-up and milestones, below); "cosine", half a period from the
    base rate towards zero (Loshchilov and Hutter, ICLR 2017); "one_cycle", from 0.01 of the base
    rate up to it at half of the run and back; or "cyclic", what P2's and P3's code does: the cycle of
    ``torch.optim.lr_scheduler.CyclicLR(mode="triangular2")``, made for thousands of steps, stepped once an
    epoch. In 100 epochs it rises from 0.01 to 0.06 of the base rate and never turns.

    Both protocols share warm-up and milestones. They differ in ``config.early_drop``: with
    ``official`` the second stage of the hard-mining recipes trains at 0.01 of the rate that other methods
    but IB have at the same epoch (the authors' schedule, which is IB's); with ``controlled`` it does not.
    Setting ``early_drop`` by hand gives the drop to a baseline, from half of the run on, or takes it
    from HML. IB keeps its own drop under both (``Stage.own_learning_rate_scale``), without which it
    breaks down.

    A stage that restarts (classifier re-training) leaves this schedule for half a cosine period from
    the base rate to zero over its own epochs. A "cosine" or "one_cycle" before it ends where it begins;
    the "steps" stay where they are in a run without such a stage.

    ``config.second_stage_rate`` multiplies all rates from the second stage on, whatever they are.
    """
    epochs = config.epochs
    stages = config.stages
    inner = config.stage_ends if stage_ends is None else stage_ends
    starts, ends = (0, *inner), (*inner, epochs)
    restarts = [start for stage, start in zip(stages, starts, strict=True) if stage.restart]
    whole = restarts[0] if restarts and config.lr_schedule in ENDING and restarts[0] else epochs
    factors = np.zeros(epochs)
    factors[:whole] = _SHAPES[config.lr_schedule](whole)
    warm_up = min(config.warmup_epochs, epochs)
    # The warm-up of the published code replaces the factor, it does not multiply it.
    factors[:warm_up] = np.arange(1, warm_up + 1) / max(warm_up, 1)

    if config.early_drop:
        own = [stage.learning_rate_scale for stage in stages]
        if any(scale != 1 for scale in own):
            for scale, start, end in zip(own, starts, ends, strict=True):
                factors[start:end] *= scale
        else:
            factors[boundary(EARLY_DROP_AT, epochs) :] *= EARLY_DROP
    for index, (stage, start, end) in enumerate(zip(stages, starts, ends, strict=True)):
        if stage.restart:
            factors[start:end] = _cosine(end - start)
        if index:
            factors[start:end] *= config.second_stage_rate
        factors[start:end] *= stage.own_learning_rate_scale
    return config.learning_rate * factors


def _steps(epochs: int) -> np.ndarray:
    factors = np.ones(epochs)
    for fraction, factor in MILESTONES:
        factors[boundary(fraction, epochs) :] = factor
    return factors


def _cosine(epochs: int) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * (np.arange(epochs) / epochs)))


def _cyclic(epochs: int) -> np.ndarray:
    steps = np.arange(epochs)
    cycle = np.floor(1 + steps / (2 * CYCLE_HALF))
    height = 1 - np.abs(steps / CYCLE_HALF - 2 * cycle + 1)
    return LOWEST + (1 - LOWEST) * height * 2.0 ** (1 - cycle)


def _one_cycle(epochs: int) -> np.ndarray:
    progress = (np.arange(epochs) + 0.5) / epochs
    return LOWEST + (1 - LOWEST) * (1 - np.abs(2 * progress - 1))


_SHAPES = {"steps": _steps, "cosine": _cosine, "cyclic": _cyclic, "one_cycle": _one_cycle}
