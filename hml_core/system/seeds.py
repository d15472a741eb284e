"""Random streams: every use of chance has a seed of its own, derived from the run's seed.

A stream depends on its name and epoch alone, never on what was drawn before. A resumed run therefore
needs no generator state, and switching one trick on does not shift the draws of another.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterator

import numpy as np
import torch

# Held by the thread that computes: torch's global generators and settings belong to one at a time.
turn = threading.RLock()


def _renew_turn() -> None:
    """After a fork: held by a thread that is not here, it would never be given back."""
    global turn
    if turn.acquire(blocking=False):
        turn.release()
    else:
        turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_turn)


def derive(seed: int, stream: str, epoch: int = 0, *more: int) -> int:
    """A 63-bit seed for the stream called ``stream`` in ``epoch`` (and, say, a step of it).

    >>> derive(0, "order", 1) == derive(0, "order", 1) != derive(0, "order", 2)
    True
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), epoch, *more])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, stream: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for that stream."""
    return torch.Generator().manual_seed(derive(seed, stream, epoch))


@contextlib.contextmanager
def apart(device: torch.device | None = None) -> Iterator[None]:
    """Whatever is drawn from torch's global generators inside the block, they are then as before.

    Other threads wait meanwhile. ``device`` names a CUDA device whose generator is restored, too.
    """
    on_cuda = device is not None and device.type == "cuda"
    with turn, torch.random.fork_rng(devices=[device] if on_cuda else []):
        yield


@contextlib.contextmanager
def seeded(
    seed: int, stream: str, *counters: int, device: torch.device | None = None
) -> Iterator[None]:
    """As :func:`apart`, with torch's global generators seeded inside the block.

    For code that takes no generator, such as the initialisation of torch's layers and dropout.
    """
    with apart(device):
        torch.manual_seed(derive(seed, stream, *counters))
        yield
