"""Processes that end together: exit statuses, and a guard over what is started.

A process that starts others can be killed (``kill -9``, out of memory, a cluster's time limit), and what
it started may have left its process group (``torchrun`` gives each trainer a session of its own). So a
command is started below a **guard**: this file, run as a program, without any import of the package. It
adopts what the command's processes leave behind (Linux: ``PR_SET_CHILD_SUBREAPER``), learns that its own
parent died (``PR_SET_PDEATHSIG``, and by looking), and does not end before everything below it has.
A guard may be killed itself: so there are two, an outer and an inner one, and what either leaves
the other one ends. The outer one stands in a process group of its own, for whole groups are killed, too
(a notebook's kernel that is restarted). And as Ctrl-Z reaches the terminal's own group alone, the outer
one stops what is below while its parent is stopped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

LOOK_S = 1.0  # how often a guard looks for its parent, should no signal tell
SAFE_PATH = "PYTHONSAFEPATH"
INNER, SUPERVISOR, BESIDE = "--inner", "--supervisor", "--beside"
WATCH_S = 0.25  # how often a watcher looks for what was started
INNER_GRACE_S = 1.0  # by so much the outer guard is more patient than the inner one
KILLED_S = 30.0  # for what was killed: a busy machine takes its time, a dead network for ever
REAP_S = 0.02  # and for what is left, while it ends everything
# Neither the environment nor installed packages change what a guard does.
_ISOLATED = ("-I", "-S")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37
_DEAD, _STOPPED = (b"Z", b"X"), b"T"  # states of a process, as /proc names them
_STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def exit_status(cause: int | KeyboardInterrupt) -> int:
    """The exit status as a shell gives it: 128 + the signal's number.

    Parameters
    ----------
    cause : int or KeyboardInterrupt
        A return code of :mod:`subprocess`, negative for a signal; or what stopped this process.

    >>> exit_status(3), exit_status(-9), exit_status(KeyboardInterrupt())
    (3, 137, 130)
    """
    if isinstance(cause, KeyboardInterrupt):
        return 128 + getattr(cause, "signal", signal.SIGINT)
    return 128 - cause if cause < 0 else cause


def died_of(status: int) -> str | None:
    """The name of the signal that an exit status tells of, given either way; None without one.

    >>> died_of(137), died_of(-15), died_of(1)
    ('SIGKILL', 'SIGTERM', None)
    """
    try:
        return signal.Signals(-status if status < 0 else status - 128).name
    except ValueError:
        return None


def _guard() -> list[str]:
    """The command that runs this file; what a guard does is below :func:`_watch`."""
    return [sys.executable, *_ISOLATED, os.path.abspath(__file__)]


def guarded(command: Sequence[str], grace: float, *, is_supervisor: bool = False) -> list[str]:
    """``command`` below a guard: it and all that it starts end with it, and with this process.

    SIGTERM asks the command to end; ``grace`` seconds later everything below the guard is killed. A
    command that only starts and watches others (``is_supervisor``) has nothing to do once it was asked and
    they have ended: it is killed then. The guard's exit status is the command's, 128 + signal included.
    (Windows has neither; there the command is left as it is.)
    """
    if sys.platform == "win32":
        return list(command)
    kind = [SUPERVISOR] * is_supervisor
    return [*_guard(), *kind, str(os.getpid()), str(grace), *command]


@contextlib.contextmanager
def only_installed_modules() -> Iterator[None]:
    """Inside the block, interpreters that are started (``python -m``, ``python -c``, multiprocessing's)
    import nothing of the current folder, which may be anybody's."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SAFE_PATH, None)
        else:
            os.environ[SAFE_PATH] = before


def descendants(process: int) -> list[int]:
    """The living processes below ``process``; zombies do not count. Empty where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    dead = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not name.isdigit():
            continue
        if not (told := _told(int(name))):
            continue
        children.setdefault(int(told[1]), []).append(int(name))
        if told[0] in _DEAD:
            dead.add(int(name))
    below, pending = [], [process]
    while pending:
        for child in children.get(pending.pop(), ()):
            below.append(child)
            pending.append(child)
    return [child for child in below if child not in dead]


def _told(process: int) -> list[bytes]:
    """What ``/proc`` tells of a process after its name (state, parent, …); empty when it is gone, or where
    there is no ``/proc``."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()
    except OSError:
        return []


def adopt(does: bool) -> bool:
    """Whether processes below this one become its own when their parents end; what it was before."""
    if (library := libc()) is None:
        return False
    import ctypes

    before = ctypes.c_int(0)
    library.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    library.prctl(_PR_SET_CHILD_SUBREAPER, int(does), 0, 0, 0)
    return bool(before.value)


def beside() -> subprocess.Popen:
    """A watcher over this process: should it be killed, what it had started ends, too.

    It has looked once by now, and looks again every quarter of a second: what was started since the last
    look, and has left its parents, it does not know.
    """
    command = [*_guard(), BESIDE, str(os.getpid())]
    nothing = subprocess.DEVNULL
    watcher = subprocess.Popen(
        command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, start_new_session=True
    )
    with watcher.stdout:
        watcher.stdout.read(1)
    return watcher


# The guard, as a program --------------------------------------------------------------------------


class _Guard:
    """Starts one command, waits for it, and leaves nothing of it behind."""

    def __init__(
        self,
        parent: int,
        grace: float,
        over_supervisor: bool = False,
        is_outer: bool = False,
        group: int | None = None,
    ) -> None:
        self.parent, self.grace, self.over_supervisor = parent, grace, over_supervisor
        self.is_outer = is_outer
        self.group = group  # that the command joins
        self.is_asked = False
        self.stopped: list[int] = []  # with the parent
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self.woken, write = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in _STOPPING:
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:  # (nohup)
                signal.signal(number, self._ask)
        # To interrupt a kernel, Jupyter signals its group, of which the guard is one.
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def _ask(self, *_: Any) -> None:
        self.is_asked = True

    def run(self, command: list[str]) -> int:
        try:
            # Kept: one that nobody holds any more waits for its process, whose status would be lost.
            started = subprocess.Popen(
                command,
                close_fds=False,
                preexec_fn=die_with_parent,
                process_group=self.group,
            )
        except OSError as error:
            print(f"Cannot start {command[0]!r}: {error.strerror}.", file=sys.stderr)
            return 127
        child = started.pid
        status, kill_at, is_child_asked, is_rest_asked = None, None, False, False
        while True:
            ended = self._reap(child)
            status = ended if status is None else status
            if status is None:
                if not is_child_asked and (self.is_asked or os.getppid() != self.parent):
                    is_child_asked, kill_at = True, time.monotonic() + self.grace
                    send([child], signal.SIGTERM)
                left = [child, *descendants(os.getpid())] if is_child_asked else [child]
                if is_child_asked and self.over_supervisor and self._is_alone(child):
                    send(left, signal.SIGKILL)
            else:
                left = descendants(os.getpid())
                if not left:
                    return status
                if not is_rest_asked:
                    is_rest_asked, kill_at = True, time.monotonic() + self.grace
                    send(left, signal.SIGTERM)
            if kill_at is not None and time.monotonic() >= kill_at:
                send(left, signal.SIGKILL)
            self._stand_still(child, kill_at is None and _told(self.parent)[:1] == [_STOPPED])
            select.select([self.woken], [], [], LOOK_S if kill_at is None else REAP_S)
            with contextlib.suppress(BlockingIOError):
                os.read(self.woken, 4096)

    def _stand_still(self, child: int, does: bool) -> None:
        """Stop what is below, the inner guard left out, or let go on what was stopped here."""
        if not does:
            send(self.stopped, signal.SIGCONT)
            self.stopped.clear()
        elif self.is_outer:
            below = [one for one in descendants(os.getpid()) if one != child]
            started = [one for one in below if _told(one)[:1] not in ([_STOPPED], [])]
            send(started, signal.SIGSTOP)
            self.stopped += started

    @staticmethod
    def _is_alone(child: int) -> bool:
        """Whether the child has nothing below it any more, where that can be told."""
        return descendants(os.getpid()) == [child]

    def _reap(self, child: int) -> int | None:
        """Take note of every process below that has ended; the child's exit status, if it has."""
        status = None
        while True:
            try:
                process, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if process == 0:
                return status
            if process == child:
                status = exit_status(os.waitstatus_to_exitcode(code))


def _stay_beside(parent: int) -> int:
    """Be a watcher: note what is below the parent, and end that once the parent is gone."""
    for number in (signal.SIGINT, *_STOPPING):
        signal.signal(number, lambda *_: None)  # it ends with its parent, and not before
    known: dict[int, str] = {}
    has_told = False
    while True:
        started = time.monotonic()
        found = {one: _began(one) for one in descendants(parent) if one != os.getpid()}
        if os.getppid() != parent:  # gone, perhaps while it was looked at
            break
        known = found
        if not has_told:
            has_told = True
            with contextlib.suppress(OSError):
                os.write(1, b".")
        # On a machine of many processes a look takes long: no more than a twentieth of the time.
        time.sleep(max(WATCH_S, 20 * (time.monotonic() - started)))
    until = time.monotonic() + INNER_GRACE_S
    number = signal.SIGTERM
    while known and time.monotonic() < until + INNER_GRACE_S:
        for one in list(known):
            for child in descendants(one):
                known.setdefault(child, _began(child))
        known = {one: began for one, began in known.items() if began and _began(one) == began}
        send([*known], number)
        time.sleep(REAP_S)
        number = signal.SIGKILL if time.monotonic() >= until else 0
    return 0


def _began(process: int) -> str:
    """When a living process began, by which it is told from a later one of its number; else empty."""
    told = _told(process)
    return "" if not told or told[0] in _DEAD else told[19].decode()


def terminate(process: subprocess.Popen) -> None:
    """Ask a process to end, also one that was stopped: it hears nothing until it goes on."""
    process.terminate()
    if hasattr(signal, "SIGCONT"):
        process.send_signal(signal.SIGCONT)


def send(processes: Sequence[int], number: int) -> None:
    """Send a signal to those that are still there, and may be sent one."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def die_with_parent() -> None:
    """Linux: this process is killed with the thread that started it, even where it is stopped."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    """Linux's own; elsewhere a guard looks for its parent, and knows its child alone."""
    if (library := libc()) is not None:
        library.prctl(option, value, 0, 0, 0)


@functools.cache
def libc() -> Any:
    """The library of C on Linux, whose ``prctl`` others do not have; None elsewhere."""
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None)


def _watch(arguments: list[str]) -> int:
    """Be a guard: the inner one, or the outer one over it where it can adopt what that one leaves."""
    if arguments[0] == BESIDE:
        return _stay_beside(int(arguments[1]))
    flags = [argument for argument in arguments[:2] if argument in (INNER, SUPERVISOR)]
    parent, grace, *command = arguments[len(flags) :]
    if INNER in flags or sys.platform != "linux":
        return _Guard(int(parent), float(grace), SUPERVISOR in flags).run(command)
    inner = [*_guard(), INNER, *flags, str(os.getpid()), grace, *command]
    patience = float(grace) + INNER_GRACE_S
    return _Guard(int(parent), patience, is_outer=True, group=_left_group()).run(inner)


def _left_group() -> int | None:
    """The process group that this process leaves for one of its own; None where it leads it, and stays."""
    before = os.getpgrp()
    if before == os.getpid():
        return None
    os.setpgid(0, 0)
    return before


if __name__ == "__main__":
    sys.exit(_watch(sys.argv[1:]))
