"""What a checkpoint holds of a run: all that the rest of it depends on, as tensors and plain values.

It may be taken after any step, and gone on from with any number of processes.
"""

from __future__ import annotations

from typing import Any

from hml_core.trainer import possible
from hml_core.trainer.advancing import Advancing
from hml_core.trainer.epochs import Epoch


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
    possible.require(trainer, state)
    trainer.set_stage_ends(tuple(state["stage_ends"]))
    # Through the stages before it: what they put in the place of the classifier is part of the network.
    for index in range(state["stage"] + 1):
        trainer.enter_stage(index)
    phase = trainer.phase
    possible.require_like(state["model"], trainer.model.state_dict())
    trainer.model.load_state_dict(state["model"])
    groups = phase.optimizer.state_dict()["param_groups"]  # of this device, not of the checkpoint's
    given, wanted = (
        [group["params"] for group in some] for some in (state["optimizer"]["param_groups"], groups)
    )
    if given != wanted:
        raise ValueError(
            f"its optimiser moves {sum(map(len, given))} tensors, the stage {sum(map(len, wanted))}"
        )
    possible.require_moved(phase.optimizer, state["optimizer"]["state"])
    phase.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
    if phase.averaged is not None:
        possible.require_like(state["averaged"], phase.averaged.state_dict())
        phase.averaged.load_state_dict(state["averaged"])
    trainer.epoch, trainer.seconds = state["epoch"], state["seconds"]
    trainer.history, trainer.confidence = state["history"], state["confidence"]
    trainer.evaluator.restore(state["evaluator"])
    trainer.branch = state.get("branch")
    trainer.views.restore(state.get("views", {}), trainer.epoch)
    if (current := state["current"]) is not None:
        shares, classes = trainer.shares, trainer.splits.num_classes
        trainer.current = Epoch(shares, classes, trainer.device, current)
