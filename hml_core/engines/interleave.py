"""Several runs at a time in this process, which take turns step by step.

A small network leaves most of a GPU idle. Each run has a CUDA stream of its own, so that kernels of one
run execute beside those of another; the host only starts them. Runs share nothing, not even their random
numbers, so each ends as it would alone. On a CPU this works as well, but nothing is gained by it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from hml_core.config import RunConfig
from hml_core.engines.jobs import BUSY_WAIT_S, Outcome, Place, attempting, cpu_threads
from hml_core.system import devices


@dataclass(frozen=True, eq=False)
class _Turn:
    """A run that is being trained."""

    config: RunConfig
    steps: Generator[None, None, Outcome]
    stream: torch.cuda.Stream | None

    def step(self) -> Outcome | None:
        """Go on by a step; how the run ended, once it has."""
        try:
            with torch.cuda.stream(self.stream):
                next(self.steps)
        except StopIteration as stop:
            return stop.value
        return None


def interleave(
    number: int, configs: Sequence[RunConfig], place: Place
) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train ``number`` runs at a time.

    One that has to wait, for another process or for a run whose beginning it shares, comes up again when
    a run has ended, and every few seconds, before those that come after it in the list: who stops early
    has the first of the list, not a part of each.
    """
    device = devices.resolve(place.device)
    pending, busy = deque(configs), deque()
    turns: list[_Turn] = []
    next_look = 0.0  # at those that have to wait
    try:
        while pending or busy or turns:
            if busy and (not turns or time.monotonic() >= next_look):
                pending.extendleft(reversed(busy))
                busy.clear()
                next_look = time.monotonic() + BUSY_WAIT_S
            while len(turns) < number and pending:
                config = pending.popleft()
                # Waiting for another process stops all turns: it is for when there is nothing else.
                wait = 0.0 if turns or pending else BUSY_WAIT_S
                stream = torch.cuda.Stream(device) if device.type == "cuda" else None
                turns.append(_Turn(config, attempting(config, place, wait=wait), stream))
            with cpu_threads(place.threads):
                outcomes = [(turn, turn.step()) for turn in turns]
            turns = [turn for turn, outcome in outcomes if outcome is None]
            for turn, outcome in outcomes:
                if outcome is not None and outcome.status == "busy":
                    busy.append(turn.config)
                elif outcome is not None:
                    next_look = 0.0
                    yield turn.config, outcome
    finally:
        for turn in turns:  # interrupted: let go of the runs' locks at once
            turn.steps.close()
