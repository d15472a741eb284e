"""One network, looked at in several ways: how the runs evaluate that part from a run later.

They are the same training until they part (:mod:`hml_core.trainer.branches`), and the network is evaluated
for each of them on the way, so that their records say what they would say had they been trained alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hml_core.config import RunConfig
from hml_core.trainer import checkpoints, possible
from hml_core.trainer.advancing import Advancing
from hml_core.trainer.branches import Point, evaluation
from hml_core.trainer.epochs import is_due
from hml_core.trainer.evaluation import Evaluator


@dataclass
class View:
    """How another run, which is the same so far, evaluates the network."""

    config: RunConfig
    until: int  # the epoch after which no such run is left
    evaluator: Evaluator
    history: list[dict[str, Any]] = field(default_factory=list)


class Views:
    """The views of a run, by how they evaluate if not as the run itself does.

    Parameters
    ----------
    config : RunConfig
    points : sequence of Point
        Where others part from the run.
    evaluator_of : callable
        From the config of another run to its evaluator.
    """

    def __init__(
        self,
        config: RunConfig,
        points: Sequence[Point],
        evaluator_of: Callable[[RunConfig], Evaluator],
    ) -> None:
        self.by_kind: dict[str, View] = {}
        for point in points:
            for other in point.views:
                if (kind := evaluation(other)) != evaluation(config):
                    self.by_kind[kind] = View(other, point.epoch, evaluator_of(other))

    def follow(self, row: dict[str, Any]) -> None:
        """Begin the row of an epoch in every history that still goes on."""
        for view in self._going_on(row["epoch"]).values():
            view.history.append(dict(row))

    def evaluate(self, epoch: int, measure: Callable[[Evaluator], dict[str, float]]) -> None:
        """Fill in the rows of those that look at that epoch."""
        for view in self._going_on(epoch).values():
            if is_due(view.config, epoch):
                started = time.perf_counter()
                row = view.history[-1]
                row |= measure(view.evaluator)
                row["seconds"] += time.perf_counter() - started

    def _going_on(self, epoch: int) -> dict[str, View]:
        return {kind: view for kind, view in self.by_kind.items() if epoch <= view.until}

    def state(self, epoch: int) -> dict[str, Any]:
        """What a checkpoint after that many epochs must hold."""
        return {
            kind: {"history": view.history, "evaluator": view.evaluator.state()}
            for kind, view in self._going_on(epoch).items()
        }

    def restore(self, state: dict[str, Any], epoch: int) -> None:
        """Go on from a :meth:`state` after that many epochs.

        Raises
        ------
        ValueError
            For one that cannot be.
        """
        # A run that was begun without those that part from it has not looked for them; those that have
        # parted by now need nothing more, and the state's may be another run's.
        going_on = self._going_on(epoch)
        self.by_kind = {kind: view for kind, view in going_on.items() if kind in state}
        for kind, view in self.by_kind.items():
            possible.require_seen(view.evaluator, state[kind], epoch)
            view.history = state[kind]["history"]
            view.evaluator.restore(state[kind]["evaluator"])


def beginning(trainer: Advancing) -> dict[str, Any]:
    """What runs need that part from this one after the epoch that is over."""
    own = {"history": trainer.history, "evaluator": trainer.evaluator.state()}
    return {
        "from": trainer.config.run_id,
        "state": checkpoints.training_state(trainer),
        "views": {evaluation(trainer.config): own, **trainer.views.state(trainer.epoch)},
    }


def branch_off(trainer: Advancing, beginning: dict[str, Any]) -> None:
    """Let a run that has not begun go on from another one's :func:`beginning`.

    Raises
    ------
    KeyError
        Where the network was not evaluated there as this run does.
    """
    own = beginning["views"][evaluation(trainer.config)]
    seconds = sum(row["seconds"] for row in own["history"])
    branch = {"epoch": beginning["epoch"], "from": beginning["from"], "seconds": seconds}
    trainer.restore(
        {
            **beginning["state"],
            **own,
            "stage_ends": list(trainer.stage_ends),
            "current": None,
            "seconds": seconds,
            "branch": branch,
            "views": beginning["views"],
        }
    )
