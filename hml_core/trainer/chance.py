"""What is drawn in a step by layers (dropout, stochastic depth) and by one's own code, from streams of the
run's own."""

from __future__ import annotations

import contextlib

import torch

from hml_core.config import RunConfig
from hml_core.system import seeds
from hml_core.trainer.epochs import Shares


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
        self.of_steps = (is_needed or is_own) and not shares.is_split
        self.of_parts = (is_needed or is_own) and shares.is_split
        self.place = (0, 0)  # epoch and step

    def of_step(self, epoch: int, step: int) -> contextlib.AbstractContextManager:
        """In which a step is done."""
        self.place = epoch, step
        return self._stream() if self.of_steps else contextlib.nullcontext()

    def of_part(self, number: int) -> contextlib.AbstractContextManager:
        """In which a micro-batch of the step, by its number among this process's, passes the network."""
        if not self.of_parts:
            return contextlib.nullcontext()
        return self._stream(self.shares.world.rank * self.shares.per_step + number)

    def _stream(self, *counters: int) -> contextlib.AbstractContextManager:
        return seeds.seeded(
            self.config.seed,
            "layers",
            *self.place,
            *counters,
            device=self.device,
            everywhere=self.everywhere,
        )
