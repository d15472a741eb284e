"""Signals as an exception: raised once for each, delayed where nothing may be half done, never lost."""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NoReturn

from hml_core.system.processes import LOOK_S

Handler = Callable[[int, Any], Any]
_STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

LOADED_S, AGAIN_S = 30.0, 0.02  # how long a signal waits for an import, and how often it looks
_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]")

_late: list[list[int]] = []  # the signals that wait, for each block of `delayed`
_first: list[Callable[[], None]] = []  # what an interruption does before it is raised
_blocks: list[int] = []  # those of `interruptible` that are open, by the process that opened them
_told: list[tuple[int, Interrupted]] = []  # the interruptions within them
_delaying: list[int] = []  # processes in a block of `delayed` that is in none of `interruptible`
_loading: list[float] = []  # when a signal was put off, as a library was being imported


class Interrupted(KeyboardInterrupt):
    """The process was asked to end. (What cleans up after Ctrl-C does so for SIGTERM and SIGHUP, too.)"""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block SIGINT, SIGTERM and SIGHUP raise :class:`Interrupted`, once for each that arrives.

    Where that gets lost (Python drops what is raised while it collects garbage, a library may take it for
    an error of its own), it is raised again by :func:`heed`, and at the end of the block.

    While an installed library is imported they wait for its end.

    A signal that was ignored stays so (``nohup``, a background job of a plain shell), and processes forked
    inside do with a signal what they would have done without the block. Outside the main thread, where
    Python knows no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, before = os.getpid(), {}

    def interrupt(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            if _late and not _late[-1]:
                _late[-1].append(number)
                return
            if _comes_again(number, frame):
                return
            _interrupt(number)
        if callable(before[number]):
            before[number](number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGINT, *_STOPPING):
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_IGN, None):
            before[number] = handler
            signal.signal(number, interrupt)
    is_outermost = owner not in _blocks
    _blocks.append(owner)
    try:
        yield
        heed()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        try:
            heed()
        except Interrupted as interrupted:
            raise interrupted from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _blocks.pop()
        if is_outermost:
            _told.clear()


def heed() -> None:
    """Raise the interruption that this process was told of, should it have been lost.

    Between the steps of long work, in the main thread; elsewhere nothing happens.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and _told and _told[-1][0] == os.getpid():
        raise _told[-1][1]


def _is_loading(frame: Any) -> bool:
    """Whether an installed library is imported at this moment, and not for long.

    Half of one is left in a state that others fail in, and where it is C++ that is interrupted, the
    process aborts.
    """
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is not None and _INSTALLED.search(frame.f_code.co_filename):
        above = frame.f_back
        if above is not None and above.f_code.co_filename.startswith("<frozen importlib"):
            now = time.monotonic()
            if _loading and now - _loading[-1] > LOADED_S:  # of a signal long ago
                _loading.clear()
            _loading.append(now)
            return now - _loading[0] < LOADED_S
    _loading.clear()
    return False


def _comes_again(number: int, frame: Any) -> bool:
    """Whether a signal is put off, as a library is imported at this moment: then it is sent once more."""
    if is_loading := _is_loading(frame):
        _thread.start_new_thread(_send_again, (number,))
    return is_loading


def _send_again(number: int) -> None:
    """Once, when the library is there: whoever counts signals (``signal.set_wakeup_fd``) hears each."""
    main = threading.main_thread().ident
    while True:
        time.sleep(AGAIN_S)
        if not _is_loading(sys._current_frames().get(main)):
            break
    os.kill(os.getpid(), number)


def _interrupt(number: int) -> NoReturn:
    for action in _first:
        action()
    _told.append((os.getpid(), Interrupted(number)))
    raise _told[-1][1]


def ended(work: Iterable[Future]) -> Iterator[Future]:
    """Futures as they end; a signal is heard meanwhile, whichever thread the system gave it to.

    (Python hears signals in the main thread alone, and one that waits in a lock is not woken for what
    another thread was given: after SIGSTOP, for example.)
    """
    pending = set(work)
    while pending:
        done, pending = wait(pending, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        yield from done


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Inside the block the first signal waits for its end, a second does not.

    For what must not be left half started or half closed. Outside of :func:`interruptible` (a notebook's
    kernel, somebody's own program) that holds for signals which have a handler, such as Ctrl-C. Outside
    the main thread, where Python knows no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if os.getpid() not in _blocks:
        with _handlers_delayed():
            yield
        return
    late: list[int] = []
    _late.append(late)
    try:
        yield
    finally:
        _late.remove(late)
    if late:
        _interrupt(late[0])


@contextlib.contextmanager
def _handlers_delayed() -> Iterator[None]:
    """Inside the block the first signal is handled at its end, as it would have been before."""
    owner, late = os.getpid(), []
    if owner in _delaying:  # in the block around this one
        yield
        return

    def note(usual: Handler, number: int, frame: Any) -> None:
        if late or os.getpid() != owner:
            usual(number, frame)
        else:
            late.append((usual, number, frame))

    _delaying.append(owner)
    try:
        with _handled(note):
            yield
    finally:
        _delaying.pop()
    for usual, number, frame in late:
        usual(number, frame)


@contextlib.contextmanager
def handed_on() -> Iterator[None]:
    """An interruption that leaves the block is handled as without :func:`interruptible`.

    For work that opens such blocks within a program of somebody's own: SIGTERM and SIGHUP end the process
    by the signal, Ctrl-C is a KeyboardInterrupt, a handler of the program's own hears of it. A command of
    ours, which is in a block itself, tells its status by the exception.
    """
    stopped = None
    try:
        yield
    except Interrupted as interrupted:
        if os.getpid() in _blocks or threading.current_thread() is not threading.main_thread():
            raise
        stopped = interrupted
    if stopped is not None:
        signal.raise_signal(stopped.signal)
        raise stopped


@contextlib.contextmanager
def after_imports() -> Iterator[None]:
    """Inside the block a signal that has a handler waits while an installed library is imported.

    As in :func:`interruptible`, for a notebook's kernel and somebody's own program: after Ctrl-C in the
    midst of one it would fail in every later call, for as long as the process lives.
    """
    owner = os.getpid()
    if threading.current_thread() is not threading.main_thread() or owner in _blocks:
        yield
        return

    def wait(usual: Handler, number: int, frame: Any) -> None:
        if os.getpid() != owner or not _comes_again(number, frame):
            usual(number, frame)

    with _handled(wait):
        yield


def _interrupts(handler: Any) -> bool:
    """Whether a handler may raise something. (asyncio's does nothing: it hears signals by a pipe.)"""
    return callable(handler) and getattr(handler, "__name__", "") != "_sighandler_noop"


@contextlib.contextmanager
def _handled(handle: Callable[[Handler, int, Any], None]) -> Iterator[None]:
    """Inside the block signals that have a handler go to ``handle``, with the one that they had."""
    numbers = (signal.SIGINT, *_STOPPING)
    before = {one: usual for one in numbers if _interrupts(usual := signal.getsignal(one))}
    for number, usual in before.items():
        signal.signal(number, functools.partial(handle, usual))
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


@contextlib.contextmanager
def first_on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Inside the block, call ``action`` before a signal raises :class:`Interrupted`."""
    _first.append(action)
    try:
        yield
    finally:
        _first.remove(action)
