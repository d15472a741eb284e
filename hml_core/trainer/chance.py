"""What is drawn in a step by layers (dropout, stochastic depth) and by one's own code, from streams of the
run's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from hml_core.config import RunConfig
from hml_core.system import seeds
from hml_core.trainer.epochs import Shares

LOOKS = 16  # streams after which it is known whether own code draws


class LayerChance:
    """Streams for layers that draw from torch's global generator.

    A step has one where its batch passes the network at once. Of several micro-batches each has its own,
    the same whichever process works on it.

    Parameters
    ----------
    config : RunConfig
    shares : Shares
    device : torch.device
    is_needed : bool
        Whether a layer draws at all.
    is_own : bool
        Somebody's own code takes part, which may draw from any of the global generators.
    """

    def __init__(
        self,
        config: RunConfig,
        shares: Shares,
        device: torch.device,
        *,
        is_needed: bool,
        is_own: bool = False,
    ) -> None:
        self.config, self.shares, self.device = config, shares, device
        self.everywhere = is_own
        # What own code has drawn so far: from any generator, and from those that no graph replays.
        self.has_drawn = self.has_drawn_elsewhere = False
        self.seeds_parts = is_needed and shares.is_split
        self.looks_left = LOOKS if is_own and device.type == "cuda" else 0
        self.of_steps = (is_needed or is_own) and not shares.is_split
        self.of_parts = (is_needed or is_own) and shares.is_split
        self.place = (0, 0)  # epoch and step

    def of_step(self, epoch: int, step: int) -> contextlib.AbstractContextManager:
        """In which a step is done."""
        self.place = epoch, step
        return self._stream() if self.of_steps else contextlib.nullcontext()

    def of_part(self, number: int) -> contextlib.AbstractContextManager:
        """In which a micro-batch of the step, by its number among this process's, passes the network."""
        is_recorded = self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if not self.of_parts or is_recorded:  # as a graph, which holds nothing that is drawn
            return contextlib.nullcontext()
        return self._stream(self.shares.world.rank * self.shares.per_step + number)

    def of_evaluation(self, epoch: int) -> contextlib.AbstractContextManager:
        """In which one's own network is evaluated after so many epochs: it may draw there, too."""
        if not self.everywhere:
            return contextlib.nullcontext()
        given = {"device": self.device, "everywhere": True}
        return seeds.seeded(self.config.seed, "evaluation", epoch, **given)

    def can_be_captured(self) -> bool:
        """Whether a step draws nothing that would be the same in each replay of a CUDA graph."""
        return not (self.has_drawn_elsewhere or (self.of_parts and self.has_drawn))

    @contextlib.contextmanager
    def _stream(self, *counters: int) -> Iterator[None]:
        given = {"device": self.device, "everywhere": self.everywhere}
        with seeds.seeded(self.config.seed, "layers", *self.place, *counters, **given):
            if not self.looks_left:
                yield
                return
            self.looks_left -= 1
            before = self._states()
            yield
            moved = [one != other for one, other in zip(before, self._states(), strict=True)]
            self.has_drawn |= any(moved)
            self.has_drawn_elsewhere |= moved[0]

    def _states(self) -> list[Any]:
        """Of the global generators: of numpy and Python, of torch."""
        on_device = torch.cuda.get_rng_state(self.device).tolist()
        return [str(seeds.others()), [torch.get_rng_state().tolist(), on_device]]
