"""Random streams: every use of chance has a seed of its own, derived from the run's seed.

A stream depends on its name and epoch alone, never on what was drawn before. A resumed run therefore
needs no generator state, and switching one trick on does not shift the draws of another.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
import warnings
import weakref
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch

SAID_S = 60.0  # after which a thread says that it waits for its turn
LOOK_S = 0.05

# Held by the thread that computes: torch's global generators and settings belong to one at a time.
turn = threading.RLock()


class _Lent:
    """The generators alone, while those who have the turn read data sets and draw nothing of a run's.

    Attributes
    ----------
    family : set of threads, optional
        Those who get them, where the loader draws as well: threads that loaders have started, and theirs,
        for as long as they live (loaders may share a pool). None where all get them.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.lenders = 0
        self.family: weakref.WeakSet[threading.Thread] | None = None
        self.lender: threading.Thread | None = None
        self._begun: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._plain: Callable[..., None] = threading.Thread.start
        self._noting: Callable[..., None] | None = None

    def is_for_us(self, lent_to: Collection[str]) -> bool:
        """Whether this thread may have the generators now, see :func:`_acquired`."""
        if (family := self.family) is not None:
            return "family" in lent_to and threading.current_thread() in family
        return self.lenders > 0 and "strangers" in lent_to

    def begin(self, *, draws: bool) -> None:
        with self.lock:
            if draws and not self.lenders:
                self.family = self._begun
                self.lender = threading.current_thread()
                self._plain = threading.Thread.start
                self._noting = threading.Thread.start = _noting(self._plain)
            self.lenders += 1

    def end(self) -> None:
        with self.lock:  # when those who are apart are done
            self.lenders = max(self.lenders - 1, 0)
            if not self.lenders:
                self.forget()

    def forget(self) -> None:
        """No loader is at work any more."""
        self.family = self.lender = None
        if self._noting is not None and threading.Thread.start is self._noting:
            threading.Thread.start = self._plain
        self._noting = None

    def take_in(self, thread: threading.Thread) -> None:
        family, ours = self.family, threading.current_thread()
        if family is not None and (ours is self.lender or ours in family):
            family.add(thread)


def _noting(start: Callable[..., None]) -> Callable[..., None]:
    """``Thread.start`` that notes who starts a thread: Python does not."""

    @functools.wraps(start)
    def noted(thread: threading.Thread, *arguments: Any, **options: Any) -> None:
        _lent.take_in(thread)
        start(thread, *arguments, **options)

    return noted


_lent = _Lent()


def _renew() -> None:
    """After a fork: held by a thread that is not here, they would never be given back."""
    global turn, _lent
    _lent.forget()
    _lent = _Lent()
    if turn.acquire(blocking=False):
        turn.release()
    else:
        turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextlib.contextmanager
def lending(*, draws: bool = False) -> Iterator[None]:
    """Inside the block others may be :func:`apart`: threads that a loader waits for are among them.

    ``draws``: the loader itself draws; only threads that loaders have started may then.
    """
    _lent.begin(draws=draws)
    try:
        yield
    finally:
        _lent.end()


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """Inside the block this thread has the turn; the generators alone are not enough to train with."""
    lock = _acquired(lent_to=())
    try:
        yield
    finally:
        lock.release()


def _acquired(*, lent_to: Collection[str]) -> threading.RLock:
    """What this thread holds by now: the turn, or the generators alone where they are enough and lent.

    ``lent_to``: to whom they may be lent, if this thread is one: the loader's "family", "strangers".
    """
    end = time.monotonic() + SAID_S
    while True:
        if _lent.is_for_us(lent_to):
            lock = _lent.lock
            if lock.acquire(timeout=LOOK_S):
                if _lent.is_for_us(lent_to):
                    return lock
                lock.release()
        elif (lock := turn).acquire(timeout=LOOK_S):
            return lock
        if time.monotonic() >= end:
            end = float("inf")
            warnings.warn(
                f"For {SAID_S:.0f} s another thread of this program has trained or read a data set, and "
                "this one waits for its turn. (If that one waits for this one, neither goes on: a loader "
                "may wait for no thread of its own that trains.)",
                stacklevel=5,
            )


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


class _Holding(threading.local):
    """What this thread holds its turn for, the innermost last: each has an ``aside()``, a context."""

    def __init__(self) -> None:
        self.parts: list[Any] = []


holding = _Holding()


@contextlib.contextmanager
def others_turn() -> Iterator[None]:
    """Inside the block other threads may compute: all that this one holds stands aside.

    For who waits for what another thread of this process may have: that one may wait for its turn.
    """
    with contextlib.ExitStack() as stack:
        for part in reversed([*holding.parts]):
            stack.enter_context(part.aside())
        yield


class _Apart:
    """A block in which torch's global generators are this thread's, and after which they are as before."""

    def __init__(
        self, device: torch.device | None, everywhere: bool, *, may_be_lent: bool = True
    ) -> None:
        self.device = device if device is not None and device.type == "cuda" else None
        self.everywhere = everywhere
        self.lent_to = ("family", "strangers") if may_be_lent else ("family",)

    def __enter__(self) -> None:
        self.lock = _acquired(lent_to=self.lent_to)
        self.before = self._states()
        holding.parts.append(self)

    def __exit__(self, *error: object) -> None:
        if self not in holding.parts:  # it stood aside, and was interrupted before it came back
            return
        holding.parts.remove(self)
        self._restore(self.before)
        self.lock.release()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        states = self._states()
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()
            self._restore(states)

    def _states(self) -> list[Any]:
        on_device = None if self.device is None else torch.cuda.get_rng_state(self.device)
        return [torch.get_rng_state(), on_device, others() if self.everywhere else None]

    def _restore(self, states: list[Any]) -> None:
        of_torch, on_device, of_others = states
        torch.set_rng_state(of_torch)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, self.device)
        if of_others is not None:
            np.random.set_state(of_others[0])  # noqa: NPY002
            random.setstate(of_others[1])


def others() -> tuple[Any, Any]:
    """The states of numpy's and Python's global generators."""
    return np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002


def apart(device: torch.device | None = None, *, everywhere: bool = False) -> _Apart:
    """Whatever is drawn from torch's global generators inside the block, they are then as before.

    Other threads wait meanwhile. ``device`` names a CUDA device whose generator is restored, too;
    ``everywhere``: so are numpy's and Python's, which somebody's own code may draw from.
    """
    return _Apart(device, everywhere)


@contextlib.contextmanager
def seeded(
    seed: int,
    stream: str,
    *counters: int,
    device: torch.device | None = None,
    everywhere: bool = False,
    may_be_lent: bool = True,
) -> Iterator[None]:
    """As :func:`apart`, with torch's global generators seeded inside the block.

    For code that takes no generator, such as the initialisation of torch's layers and dropout.
    ``everywhere``: numpy's and Python's as well. ``may_be_lent``: without the turn, too, while it is lent
    to whoever asks.
    """
    derived = derive(seed, stream, *counters)
    with _Apart(device, everywhere, may_be_lent=may_be_lent):
        torch.manual_seed(derived)
        if everywhere:
            if np.random.get_state(legacy=False)["bit_generator"] == "MT19937":  # noqa: NPY002
                np.random.seed(derived % 2**32)  # noqa: NPY002
            random.seed(derived)
        yield
