"""What a checkpoint holds of a run: all that the rest of it depends on, as tensors and plain values.

It may be taken after any step, and gone on from with any number of processes.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hml_core.config import RunConfig
from hml_core.datasets import Splits
from hml_core.system.fields import is_whole
from hml_core.trainer.epochs import CONFIDENCE_BINS, Epoch, Shares
from hml_core.trainer.evaluation import Evaluator
from hml_core.trainer.phase import Phase
from hml_core.trainer.world import World


class Keeper(Protocol):
    """What can be kept in a checkpoint beside the run."""

    def state(self, epoch: int) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class Advancing(Protocol):
    """A run on its way: :class:`hml_core.trainer.loop.Trainer`, which says what these are."""

    config: RunConfig
    splits: Splits
    device: torch.device
    world: World
    shares: Shares
    model: nn.Module
    phase: Phase | None
    evaluator: Evaluator
    views: Keeper
    current: Epoch | None
    epoch: int
    seconds: float
    stage_ends: tuple[int, ...]
    history: list[dict[str, Any]]
    confidence: list[Tensor]
    branch: dict[str, Any] | None

    def enter_stage(self, index: int) -> None: ...
    def set_stage_ends(self, stage_ends: tuple[int, ...]) -> None: ...
    def require_finite(self, losses: Tensor) -> None: ...
    def restore(self, state: dict[str, Any]) -> None: ...


def state(trainer: Advancing) -> dict[str, Any]:
    """Of the run as it stands. All processes must call it, and get the same."""
    trainer.world.average_buffers(trainer.model, trainer.phase.averaged)
    current = None
    if trainer.current is not None:
        sums = trainer.current.sums()
        trainer.require_finite(sums.losses)
        current = trainer.current.state(sums)
    return {
        **training_state(trainer),
        "stage_ends": list(trainer.stage_ends),
        "current": current,
        "history": trainer.history,
        "evaluator": trainer.evaluator.state(),
        "seconds": trainer.seconds,
        "branch": trainer.branch,
        "views": trainer.views.state(trainer.epoch),
    }


def training_state(trainer: Advancing) -> dict[str, Any]:
    """The part that does not depend on who looks at the network."""
    phase = trainer.phase
    return {
        "epoch": trainer.epoch,
        "stage": phase.index,
        "model": trainer.model.state_dict(),
        "optimizer": phase.optimizer.state_dict(),
        "averaged": None if phase.averaged is None else phase.averaged.state_dict(),
        "confidence": trainer.confidence,
    }


def restore(trainer: Advancing, state: dict[str, Any]) -> None:
    """Bring a trainer that has not begun to where a :func:`state` was taken.

    Raises
    ------
    ValueError
        For a state that no run of this config can be in: nobody vouches for the numbers in a file.
    """
    _require_possible(trainer, state)
    trainer.set_stage_ends(tuple(state["stage_ends"]))
    # Through the stages before it: what they put in the place of the classifier is part of the network.
    for index in range(state["stage"] + 1):
        trainer.enter_stage(index)
    phase = trainer.phase
    trainer.model.load_state_dict(state["model"])
    groups = phase.optimizer.state_dict()["param_groups"]  # of this device, not of the checkpoint's
    given, wanted = (
        [group["params"] for group in some] for some in (state["optimizer"]["param_groups"], groups)
    )
    if given != wanted:
        raise ValueError(
            f"its optimiser moves {sum(map(len, given))} tensors, the stage {sum(map(len, wanted))}"
        )
    _require_moved(phase.optimizer, state["optimizer"]["state"])
    phase.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
    if phase.averaged is not None:
        phase.averaged.load_state_dict(state["averaged"])
    trainer.epoch, trainer.seconds = state["epoch"], state["seconds"]
    trainer.history, trainer.confidence = state["history"], state["confidence"]
    trainer.evaluator.restore(state["evaluator"])
    trainer.branch = state.get("branch")
    trainer.views.restore(state.get("views", {}))
    if (current := state["current"]) is not None:
        shares, classes = trainer.shares, trainer.splits.num_classes
        trainer.current = Epoch(shares, classes, trainer.device, current)


def _require_moved(optimizer: torch.optim.Optimizer, states: Any) -> None:
    """What an optimiser knows of each tensor that it moves: numbers, and tensors of its shape."""
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    for number, known in states.items():
        if not is_whole(number, 0, len(tensors) - 1) or not isinstance(known, dict):
            raise ValueError(f"its optimiser's state {number!r} is none")
        shape = tensors[number].shape
        for name, value in known.items():
            is_plain = isinstance(value, Tensor) and value.layout == torch.strided
            if name == "step":
                holds = isinstance(value, int | float) or (is_plain and value.numel() == 1)
            else:
                holds = value is None or (is_plain and value.shape == shape)
            if not holds:
                raise ValueError(f"its optimiser's {name} of tensor {number} is not of its shape")


def _is_row(row: Any, epoch: int) -> bool:
    """Whether this is what a history says of an epoch: plain values by name."""
    return (
        isinstance(row, dict)
        and row.get("epoch") == epoch
        and all(value is None or isinstance(value, int | float) for value in row.values())
    )


def _is_counts(counts: Any, num_classes: int) -> bool:
    """Whether this may be what is counted of an epoch (:func:`hml_core.trainer.epochs.histogram`)."""
    is_plain = isinstance(counts, Tensor) and counts.layout == torch.strided
    whole = is_plain and not counts.is_floating_point() and not counts.is_complex()
    return whole and counts.shape == (num_classes, CONFIDENCE_BINS)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _is_branch(branch: Any, epoch: int) -> bool:
    """Whether this may be where a run parted from another one."""
    return (
        isinstance(branch, dict)
        and is_whole(branch.get("epoch"), 0, epoch)
        and isinstance(branch.get("from"), str)
        and _is_time(branch.get("seconds"))
    )


def _require_possible(trainer: Advancing, state: dict[str, Any]) -> None:
    epochs, stages = trainer.config.epochs, len(trainer.config.stages)
    epoch, ends, current = state["epoch"], state["stage_ends"], state["current"]
    bounds = [0, *ends, epochs]
    possible = {
        "epoch": is_whole(epoch, 0, epochs),
        "stage": is_whole(state["stage"], 0, stages - 1),
        "stage_ends": len(ends) == stages - 1
        and all(is_whole(end, 0, epochs) for end in ends)
        and bounds == sorted(bounds),
        "history": len(state["history"]) == epoch
        and all(_is_row(row, number) for number, row in enumerate(state["history"], start=1)),
        "confidence": len(state["confidence"]) == epoch
        and all(_is_counts(counts, trainer.splits.num_classes) for counts in state["confidence"]),
        "seconds": _is_time(state["seconds"]),
        "branch": state.get("branch") is None or _is_branch(state["branch"], epoch),
        "current": current is None or is_whole(current["step"], 0, trainer.shares.steps),
    }
    for name, holds in possible.items():
        if not holds:
            value = f" {state[name]!r}" if name in ("epoch", "stage", "stage_ends") else ""
            raise ValueError(f"its {name}{value} cannot be in a run of {epochs} epochs")
