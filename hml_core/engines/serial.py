"""One run after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hml_core.config import RunConfig
from hml_core.engines.jobs import Outcome, Place, attempt, in_turn


def serial(configs: Sequence[RunConfig], place: Place) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train in the order given; a run that another process works on comes up again at the end."""
    return in_turn(configs, lambda config, wait: attempt(config, place, wait=wait))
