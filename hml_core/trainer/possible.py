"""Whether a run can have come to what a checkpoint says: nobody vouches for the numbers in a file.

What is looked at is what would otherwise end in another place, on every further call, or stand in a record
without a word. That numbers are true, no look at them can tell.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hml_core import metrics, schedule
from hml_core.system.fields import is_whole
from hml_core.trainer.advancing import Advancing
from hml_core.trainer.epochs import COLUMNS, CONFIDENCE_BINS
from hml_core.trainer.evaluation import Evaluator

_OF_AN_EPOCH = {"step", "seconds", "waiting", "losses", "correct", "counts"}
_OF_AN_OUTCOME = {field.name for field in dataclasses.fields(metrics.Predictions)} | {"logits"}
# What an optimiser knows of a tensor that it has moved.
_OF_A_TENSOR = {
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}


def require(trainer: Advancing, state: Mapping[str, Any]) -> None:
    """Refuse the state of a training that no run of the trainer's config can be in.

    Raises
    ------
    ValueError
        With what cannot be. (Or what a value of another kind makes of it: TypeError, KeyError, ….)
    """
    epochs, epoch, current = trainer.config.epochs, state["epoch"], state["current"]
    ends, num_classes = state["stage_ends"], trainer.splits.num_classes
    possible: dict[str, Callable[[], bool]] = {  # each where those before it hold
        "epoch": lambda: is_whole(epoch, 0, epochs),
        "stage_ends": lambda: _are_ends(trainer, ends, epoch),
        "stage": lambda: _is_stage(state["stage"], ends, epoch, current is not None),
        "history": lambda: _is_history(state["history"], epoch),
        "confidence": lambda: (
            len(state["confidence"]) == epoch
            and all(_is_counts(counts, num_classes) for counts in state["confidence"])
        ),
        "seconds": lambda: _is_time(state["seconds"]),
        "branch": lambda: state.get("branch") is None or _is_branch(state["branch"], epoch),
        "current": lambda: current is None or _is_current(trainer, current),
        "evaluator": lambda: _is_evaluated(trainer.evaluator, state["evaluator"], epoch),
    }
    for name, holds in possible.items():
        if not holds():
            value = f" {state[name]!r}" if name in ("epoch", "stage", "stage_ends") else ""
            raise ValueError(f"its {name}{value} cannot be in a run of {epochs} epochs")


def require_seen(evaluator: Evaluator, state: Mapping[str, Any], epoch: int) -> None:
    """Refuse what no view of another run has come to after ``epoch`` epochs.

    Raises
    ------
    ValueError
    """
    history = state["history"]
    if not _is_history(history, epoch) or not _is_evaluated(evaluator, state["evaluator"], epoch):
        raise ValueError(f"what it says for another run cannot be after {epoch} epochs")


def require_moved(optimizer: torch.optim.Optimizer, states: Mapping[int, Any]) -> None:
    """Refuse what no optimiser knows of a tensor that it moves: numbers, and tensors of its shape.

    Raises
    ------
    ValueError
    """
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    names = _OF_A_TENSOR[type(optimizer)]
    for number, known in states.items():
        if not is_whole(number, 0, len(tensors) - 1) or not isinstance(known, dict):
            raise ValueError(f"its optimiser's state {number!r} is none")
        if known and not names.issubset(known):
            raise ValueError(f"its optimiser's state {number!r} is another's")
        for name in names if known else ():  # another version of torch may know more
            if not _is_of_tensor(name, known[name], tensors[number]):
                raise ValueError(f"its optimiser's {name} of tensor {number} is not of its shape")


def _is_of_tensor(name: str, value: Any, tensor: Tensor) -> bool:
    if name == "step":
        is_one = isinstance(value, int | float) or (_is_plain(value) and value.numel() == 1)
        return is_one and 0 <= float(value) < math.inf
    is_none = name == "momentum_buffer" and value is None  # without momentum
    return is_none or _is_plain(value, tensor.shape, tensor.dtype)


def _is_plain(
    value: Any, shape: tuple[int, ...] | None = None, kind: torch.dtype | None = None
) -> bool:
    """Whether it is a dense tensor (of such a shape and kind)."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and (shape is None or value.shape == shape)
        and (kind is None or value.dtype == kind)
    )


def _are_ends(trainer: Advancing, ends: Any, epoch: int) -> bool:
    """Whether stages end there: where the config says, but for one that a plateau has ended earlier."""
    (*wanted,) = trainer.stage_ends
    if not trainer.config.switch_patience or not wanted:
        return ends == wanted
    has_ended = is_whole(ends[0], 1, min(epoch, wanted[0]))
    return (has_ended or ends[0] == wanted[0]) and ends[1:] == wanted[1:]


def _is_stage(stage: Any, ends: Any, epoch: int, is_within: bool) -> bool:
    """Whether an epoch belongs to this stage; between two epochs, the one that is over or the next one."""
    next_one = schedule.stage_of_epoch(ends, epoch)
    before = next_one if is_within else schedule.stage_of_epoch(ends, max(epoch - 1, 0))
    return is_whole(stage, before, next_one)


def _is_history(rows: Any, epoch: int) -> bool:
    """Whether a history says this of so many epochs: plain values by name."""
    return len(rows) == epoch and all(
        isinstance(row, dict)
        and row.keys() == COLUMNS
        and row["epoch"] == number
        and all(value is None or isinstance(value, int | float) for value in row.values())
        for number, row in enumerate(rows, start=1)
    )


def _is_counts(counts: Any, num_classes: int) -> bool:
    """Whether this may be what is counted of an epoch (:func:`hml_core.trainer.epochs.histogram`)."""
    is_one = _is_plain(counts, (num_classes, CONFIDENCE_BINS))
    return is_one and not counts.is_floating_point() and not counts.is_complex()


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


def _is_current(trainer: Advancing, current: Mapping[str, Any]) -> bool:
    """Whether this may be what an epoch has come to (:meth:`hml_core.trainer.epochs.Epoch.state`)."""
    if not _OF_AN_EPOCH.issubset(current):
        return False
    steps, step = trainer.shares.steps, current["step"]
    losses, correct = current["losses"], current["correct"]
    return (
        is_whole(step, 0, steps)
        and _is_time(current["seconds"])
        and _is_time(current["waiting"])
        and _is_plain(losses, (steps,), torch.float32)
        and bool(losses.isfinite().all())
        and _is_plain(correct, (), torch.int64)
        and 0 <= int(correct) <= step * trainer.config.batch_size
        and _is_counts(current["counts"], trainer.splits.num_classes)
    )


def _is_evaluated(evaluator: Evaluator, state: Mapping[str, Any], epoch: int) -> bool:
    """Whether this may be what was measured (:meth:`hml_core.trainer.evaluation.Evaluator.state`)."""
    config = evaluator.config
    is_due = epoch >= min(config.evaluate_every, config.epochs)  # once at least
    best = {f"best_{name}" for name in evaluator.evaluated} if is_due else set()
    if {*state["best"]} != best or (state["last"] is not None) != is_due:
        return False
    test, further = evaluator.splits.test, state.get("last_further", {})
    return (
        all(_is_best(evaluator, one, epoch) for one in state["best"].values())
        and (not is_due or _is_outcome(evaluator, state["last"], len(test)))
        and _are_further(evaluator, further)
        and _is_features(state["features"], len(test))
        and (state.get("kept") is None or _is_kept(state["kept"], epoch))
    )


def _is_best(evaluator: Evaluator, best: Mapping[str, Any], epoch: int) -> bool:
    score, number = best["score"], len(evaluator.splits.test)
    return (
        is_whole(best["epoch"], 1, epoch)
        and isinstance(score, float)
        and 0 <= score <= 1
        and _is_outcome(evaluator, best["test"], number)
        and _are_further(evaluator, best.get("further", {}))
    )


def _are_further(evaluator: Evaluator, outcomes: Mapping[str, Any]) -> bool:
    """Of sets that are there; what is said of others is not looked at again."""
    return all(
        _is_outcome(evaluator, one, len(evaluator.further[name]))
        for name, one in outcomes.items()
        if name in evaluator.further
    )


def _is_outcome(evaluator: Evaluator, outcome: Mapping[str, Any], number: int) -> bool:
    """Whether a network can say this of so many images."""
    if {*outcome} != _OF_AN_OUTCOME:
        return False
    classes, logits = outcome["classes"], outcome["logits"]
    confidence, likelihood = outcome["confidence"], outcome["log_probability"]
    num_classes = evaluator.splits.num_classes
    return (
        _is_plain(classes, (number,), torch.int64)
        and bool(((classes >= 0) & (classes < num_classes)).all())
        and _is_plain(confidence, (number,), torch.float64)
        and bool(((confidence >= 0) & (confidence <= 1)).all())
        and _is_plain(likelihood, (number,), torch.float64)
        and bool((likelihood <= 0).all())
        and (logits is not None) == evaluator.keeps_logits
        and (logits is None or _is_plain(logits, (number, num_classes), torch.float32))
        and (logits is None or bool(logits.isfinite().all()))
    )


def _is_features(features: Any, number: int) -> bool:
    return features is None or (
        _is_plain(features, kind=torch.float16) and features.ndim == 2 and len(features) == number
    )


def _is_kept(kept: Any, epoch: int) -> bool:
    """Whether this may be a network that is kept (:func:`hml_core.models.trained.kept`)."""
    return (
        isinstance(kept["which"], str)
        and is_whole(kept["epoch"], 1, epoch)
        and isinstance(kept["described"], dict)
        and all(isinstance(name, str) and _is_plain(one) for name, one in kept["tensors"].items())
    )
