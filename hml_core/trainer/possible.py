"""Whether a run can have come to what a checkpoint says: nobody vouches for the numbers in a file.

What is looked at is what would otherwise end in another place, on every further call, or stand in a record
without a word. That numbers are true, no look at them can tell.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hml_core import metrics, schedule
from hml_core.system.fields import is_number, is_text, is_whole
from hml_core.trainer.advancing import Advancing
from hml_core.trainer.epochs import COLUMNS, CONFIDENCE_BINS, is_due
from hml_core.trainer.evaluation import Evaluator

LONGEST_S = 1e10  # of anything that is timed: centuries
LONGEST_NAME = 255  # of a run: a file system takes no longer one
ROUNDED = 1e-9  # of the largest: what another processor's or library's last bits may come to
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
        With what cannot be. (KeyError for a part that is missing.)
    """
    epochs, epoch, current = trainer.config.epochs, state["epoch"], state["current"]
    ends, seconds, evaluator = state["stage_ends"], state["seconds"], trainer.evaluator
    possible: dict[str, Callable[[], bool]] = {  # each where those before it hold
        "epoch": lambda: is_whole(epoch, 0, epochs),
        "stage_ends": lambda: _are_ends(trainer, ends, epoch),
        "stage": lambda: _is_stage(state["stage"], ends, epoch, current is not None),
        "history": lambda: _is_history(state["history"], epoch, evaluator, ends),
        "confidence": lambda: _are_counts(trainer, state["confidence"], epoch),
        "seconds": lambda: _is_time(seconds),
        "branch": lambda: (
            state.get("branch") is None or _is_branch(state["branch"], epoch, seconds)
        ),
        "current": lambda: current is None or _is_current(trainer, current),
        "evaluator": lambda: _is_evaluated(evaluator, state["evaluator"], state["history"]),
    }
    for name, holds in possible.items():
        if not _holds(holds):
            value = f" {state[name]!r}" if name in ("epoch", "stage", "stage_ends") else ""
            raise ValueError(f"its {name}{value} cannot be in a run of {epochs} epochs")


def _holds(possible: Callable[[], bool]) -> bool:
    """Whether it is so; where a value is of another kind than what is asked of it, it is not."""
    try:
        return possible()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError):
        return False


def require_seen(evaluator: Evaluator, state: Mapping[str, Any], epoch: int) -> None:
    """Refuse what no view of another run has come to after ``epoch`` epochs.

    Raises
    ------
    ValueError
    """
    history, ends = state["history"], evaluator.config.stage_ends
    if not _holds(
        lambda: (
            _is_history(history, epoch, evaluator, ends)
            and _is_evaluated(evaluator, state["evaluator"], history)
        )
    ):
        raise ValueError(f"what it says for another run cannot be after {epoch} epochs")


def require_like(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse tensors of another kind than those of a network: they would be rounded to it.

    Raises
    ------
    ValueError
    """
    for name, value in wanted.items():
        one = given.get(name, value)  # one that is not there is told by who loads them
        if _has_content(value) and not (_has_content(one) and one.dtype == value.dtype):
            raise ValueError(f"its tensor {name!r} is of another kind than the network's")


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
        is_one = is_number(value) or (_is_plain(value) and value.numel() == 1)
        return is_one and 0 <= float(value) < math.inf
    is_none = name == "momentum_buffer" and value is None  # without momentum
    return is_none or _is_plain(value, tensor.shape, tensor.dtype)


def _has_content(value: Any) -> bool:
    """Whether it is a dense tensor of numbers."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type != "meta"
        and not value.is_quantized
    )


def _is_plain(
    value: Any, shape: tuple[int, ...] | None = None, kind: torch.dtype | None = None
) -> bool:
    """Whether it is a dense tensor (of such a shape and kind) that can be written to."""
    return (
        _has_content(value)
        and not value.requires_grad
        and (shape is None or value.shape == shape)
        and (kind is None or value.dtype == kind)
        and _is_apart(value)
    )


def _is_apart(tensor: Tensor) -> bool:
    """Whether each element has a place of its own: torch writes to all of them, wherever they lie.

    >>> _is_apart(torch.zeros(2, 3).T), _is_apart(torch.zeros(1).expand(3))
    (True, False)
    """
    reached = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reached:
            return False
        reached += stride * (size - 1)
    return True


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


def _is_history(rows: Any, epoch: int, evaluator: Evaluator, ends: Sequence[int]) -> bool:
    """Whether a history can say this of so many epochs of the evaluator's run."""
    if not isinstance(rows, list) or len(rows) != epoch:
        return False
    config, rates, rounded = evaluator.config, None, 0.0
    if not config.switch_patience:  # with it they may have been others before the stage ended
        rates = schedule.learning_rates(config)
        rounded = ROUNDED * rates.max()
    return all(
        isinstance(row, dict)
        and row.keys() == COLUMNS
        and is_whole(row["epoch"], number, number)
        and is_whole(row["stage"], stage := schedule.stage_of_epoch(ends, number - 1), stage)
        and is_number(row["learning_rate"])
        and (rates is None or abs(row["learning_rate"] - rates[number - 1]) <= rounded)
        and is_number(row["train_loss"])
        and _is_share(row["train_accuracy"])
        and _is_time(row["seconds"])
        and _is_time(row["waiting_seconds"])
        and _are_measured(row, evaluator)
        for number, row in enumerate(rows, start=1)
    )


def _are_measured(row: Mapping[str, Any], evaluator: Evaluator) -> bool:
    """Whether a row has what its epoch is due for, and nothing of a split that is not there."""
    is_open = not is_due(evaluator.config, row["epoch"])

    def holds(name: str, value: Any) -> bool:
        if name not in evaluator.evaluated:
            return value is None
        # (Where patience ends a run, its last epoch is measured, too.)
        return _is_share(value) or (value is None and is_open)

    return all(
        holds(name, row[column])
        for name in ("validation", "test")
        for column in (f"{name}_accuracy", f"{name}_balanced_accuracy")
    )


def _are_counts(trainer: Advancing, counts: Any, epoch: int) -> bool:
    images = trainer.shares.done(trainer.shares.steps)
    is_list = isinstance(counts, list) and len(counts) == epoch
    return is_list and all(_is_counts(trainer, one, images) for one in counts)


def _is_counts(trainer: Advancing, counts: Any, images: int) -> bool:
    """Whether so many images may have been counted so (:func:`hml_core.trainer.epochs.histogram`)."""
    shape = trainer.splits.num_classes, CONFIDENCE_BINS
    return (
        _is_plain(counts, shape, torch.int32)
        and bool((counts >= 0).all())
        and int(counts.sum()) == images
    )


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_time(value: Any) -> bool:
    return is_number(value, LONGEST_S) and value >= 0


def _is_branch(branch: Any, epoch: int, seconds: float) -> bool:
    """Whether this may be where a run parted from another one."""
    return (
        isinstance(branch, dict)
        and branch.keys() == {"epoch", "from", "seconds"}
        and is_whole(branch["epoch"], 1, epoch)
        and is_text(branch["from"])
        and len(branch["from"]) <= LONGEST_NAME
        and branch["from"].isprintable()
        and _is_time(branch["seconds"])
        and branch["seconds"] <= seconds
    )


def _is_current(trainer: Advancing, current: Mapping[str, Any]) -> bool:
    """Whether this may be what an epoch has come to (:meth:`hml_core.trainer.epochs.Epoch.state`)."""
    if not _OF_AN_EPOCH.issubset(current):
        return False
    shares, step = trainer.shares, current["step"]
    losses, correct = current["losses"], current["correct"]
    if not is_whole(step, 0, shares.steps):
        return False
    images = shares.done(step)
    return (
        _is_time(current["seconds"])
        and _is_time(current["waiting"])
        and _is_plain(losses, (shares.steps,), torch.float32)
        and bool(losses.isfinite().all())
        and not losses[step:].any()
        and _is_plain(correct, (), torch.int64)
        and 0 <= int(correct) <= images
        and _is_counts(trainer, current["counts"], images)
    )


def _is_evaluated(
    evaluator: Evaluator, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether a run with such a history may have measured this (:meth:`Evaluator.state`)."""
    measured = [row for row in rows if row["test_accuracy"] is not None]
    if not measured:
        return not state["best"] and state["last"] is None and state["features"] is None
    names = {f"best_{name}": f"{name}_balanced_accuracy" for name in evaluator.evaluated}
    further = state.get("last_further", {})
    return (
        state["best"].keys() == names.keys()
        and all(_is_best(evaluator, state["best"][best], measured, names[best]) for best in names)
        and _is_outcome_of(evaluator, state["last"], measured[-1])
        and _are_further(evaluator, further)
        and _is_features(evaluator, state["features"])
        and (state.get("kept") is None or _is_kept(state["kept"], len(rows)))
    )


def _is_best(
    evaluator: Evaluator,
    best: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]],
    column: str,
) -> bool:
    """Whether this is the first of the epochs that were measured best."""
    row = max(measured, key=lambda row: row[column])
    return (
        is_whole(best["epoch"], row["epoch"], row["epoch"])
        and is_number(best["score"])
        and best["score"] == row[column]
        and _is_outcome_of(evaluator, best["test"], row)
        and _are_further(evaluator, best.get("further", {}))
    )


def _is_outcome_of(evaluator: Evaluator, outcome: Mapping[str, Any], row: Mapping) -> bool:
    """Whether the test images can be told so, and are as well as the row of that epoch says."""
    targets, num_classes = evaluator.splits.test.targets, evaluator.splits.num_classes
    if not _is_outcome(evaluator, outcome, len(targets)):
        return False
    found = metrics.quick(outcome["classes"].numpy(), targets, num_classes)
    return (
        found["top1"] == row["test_accuracy"]
        and abs(found["balanced_accuracy"] - row["test_balanced_accuracy"]) <= ROUNDED
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


def _is_features(evaluator: Evaluator, features: Any) -> bool:
    """Of the test images; only data sets whose images are read one by one have them."""
    has_them = evaluator.info.streamed and evaluator.keeps_logits
    return features is None or (
        has_them
        and _is_plain(features, kind=torch.float16)
        and features.ndim == 2
        and len(features) == len(evaluator.splits.test)
    )


def _is_kept(kept: Any, epoch: int) -> bool:
    """Whether this may be a network that is kept (:func:`hml_core.models.trained.kept`)."""
    tensors = kept["tensors"]
    places = [one.untyped_storage().data_ptr() for one in tensors.values() if one.numel()]
    return (
        kept["which"] in ("last", "best")
        and is_whole(kept["epoch"], 1, epoch)
        and isinstance(kept["described"], dict)
        and bool(json.dumps(kept["described"]))
        and all(is_text(name) and _is_plain(one) for name, one in tensors.items())
        and len({*places}) == len(places)  # each in a place of its own
    )
