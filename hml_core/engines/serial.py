"""One run after the other, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from hml_core.config import RunConfig
from hml_core.engines.jobs import BUSY_WAIT_S, Outcome, Place, attempt


def serial(configs: Sequence[RunConfig], place: Place) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train in the order given; a run that another process works on comes up again at the end."""
    pending = deque((config, 0.0) for config in configs)
    while pending:
        config, wait = pending.popleft()
        outcome = attempt(config, place, wait=wait)
        if outcome.status == "busy":
            pending.append((config, BUSY_WAIT_S))
        else:
            yield config, outcome
