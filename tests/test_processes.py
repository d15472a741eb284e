"""Processes that end together: a guard leaves nothing behind, whoever is killed."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hml_core.system import processes

LIMIT_S = 600.0  # generous: nothing here waits that long unless it fails
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")

# A command that has started a process in a session of its own, as torchrun does, and ignores SIGTERM.
FAMILY = """
trap '' TERM
setsid sleep 3600 & echo $! > child
echo $$ > parent
wait
"""


# And a process that starts it below a guard.
START = (
    "import subprocess, sys; from hml_core.system import processes; "
    "subprocess.run(processes.guarded(['sh', '-c', sys.argv[1]], 0.2))"
)


@pytest.fixture(autouse=True)
def _guards_are_measured(monkeypatch):
    """coverage begins in processes that import site, which a guard does not."""
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        monkeypatch.setattr(processes, "_ISOLATED", ())


def wait_for(condition, what: str):
    deadline = time.monotonic() + LIMIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {LIMIT_S:g} s"
        time.sleep(0.02)
    return value


def number(file: Path) -> int:
    return int(wait_for(lambda: file.exists() and file.read_text().strip(), file.name))


def state(process: int) -> str:
    """As /proc has it, ``T`` for one that is stopped; empty for one that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(process: int) -> bool:
    """Whether a process has ended; whoever adopted it may not have taken note of that yet."""
    return state(process) in ("", "Z", "X")


def family(folder: Path) -> list[int]:
    return [number(folder / name) for name in ("parent", "child")]


def test_a_guard_that_was_stopped_is_ended_too(tmp_path):
    guard = subprocess.Popen(processes.guarded(["sh", "-c", FAMILY], 0.2), cwd=tmp_path)
    family = [number(tmp_path / name) for name in ("child", "parent")]
    guard.send_signal(signal.SIGSTOP)
    processes.terminate(guard)
    assert guard.wait() == 128 + signal.SIGKILL  # it does not hear SIGTERM
    assert all(map(is_gone, family))


def test_a_guard_ignores_what_was_ignored(tmp_path):
    """nohup: SIGHUP ends neither the guard nor what is below it."""
    script = "echo up > begun; while ! test -e go; do sleep 0.05; done; exit 3"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        guard = subprocess.Popen(processes.guarded(["sh", "-c", script], 60), cwd=tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for((tmp_path / "begun").exists, "beginning")
    guard.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    assert guard.wait() == 3


def test_the_exit_status_is_the_command_s():
    for script, status in {"exit 0": 0, "exit 3": 3, "kill -9 $$": 137, "kill -15 $$": 143}.items():
        assert subprocess.run(processes.guarded(["sh", "-c", script], 1)).returncode == status


def test_a_command_that_is_not_there_is_told(capfd):
    assert subprocess.run(processes.guarded(["/no/such/command"], 1)).returncode == 127
    assert "Cannot start '/no/such/command': No such file" in capfd.readouterr().err


@linux
def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    script = "setsid sleep 3600 & echo $! > child"
    subprocess.run(processes.guarded(["sh", "-c", script], 60), cwd=tmp_path, check=True)
    assert is_gone(number(tmp_path / "child"))


@linux
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_guard_that_is_asked_ends_all_of_it(sent, tmp_path):
    guard = subprocess.Popen(processes.guarded(["sh", "-c", FAMILY], 0.2), cwd=tmp_path)
    below = family(tmp_path)
    guard.send_signal(sent)
    assert guard.wait(LIMIT_S) == 128 + signal.SIGKILL, "the command ignores SIGTERM"
    assert all(map(is_gone, below))


@linux
def test_a_guard_ends_all_of_it_when_its_parent_is_killed(tmp_path):
    """``kill -9`` of the process that started it, which can do nothing about it any more."""
    parent = subprocess.Popen([sys.executable, "-c", START, FAMILY], cwd=tmp_path)
    below = family(tmp_path)
    parent.kill()
    parent.wait(LIMIT_S)
    for process in below:
        wait_for(lambda process=process: is_gone(process), "end of the family")


@linux
@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL, signal.SIGTERM])
def test_what_is_below_a_guard_stands_still_with_its_parent(then, tmp_path):
    """Ctrl-Z: a terminal stops its own group, which a kernel and torchrun's trainers have left."""
    parent = subprocess.Popen([sys.executable, "-c", START, FAMILY], cwd=tmp_path)
    below = family(tmp_path)
    parent.send_signal(signal.SIGSTOP)
    wait_for(lambda: [*map(state, below)] == ["T", "T"], "standing still")
    if then == signal.SIGCONT:
        parent.send_signal(then)
        wait_for(lambda: "T" not in [*map(state, below)], "going on")
        parent.kill()
    elif then == signal.SIGKILL:
        parent.kill()
    else:  # as a shell ends a job that is stopped
        processes.terminate(parent)
    parent.wait(LIMIT_S)
    for process in below:
        wait_for(lambda process=process: is_gone(process), "end of the family")


@linux
def test_what_somebody_else_stopped_is_left_so(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", START, FAMILY], cwd=tmp_path)
    first, second = family(tmp_path)
    os.kill(second, signal.SIGSTOP)
    parent.send_signal(signal.SIGSTOP)
    wait_for(lambda: state(first) == "T", "standing still")
    parent.send_signal(signal.SIGCONT)
    wait_for(lambda: state(first) != "T", "going on")
    assert state(second) == "T"
    parent.kill()
    parent.wait(LIMIT_S)
    wait_for(lambda: is_gone(second), "end of the family")


@linux
def test_torchrun_ends_with_the_sweep_that_is_killed(tmp_path, monkeypatch):
    """Its trainers have sessions of their own, and nobody else would end them."""
    from hml_core.engines.jobs import Place

    torchrun = importlib.import_module("hml_core.engines.torchrun")  # not the function of that name
    monkeypatch.setattr(torchrun, "GRACE_S", 0.2)
    monkeypatch.chdir(tmp_path)
    sweep = os.fork()
    if sweep == 0:
        with contextlib.suppress(BaseException):
            torchrun._run(["sh", "-c", FAMILY], Place(tmp_path), tmp_path)
        os._exit(1)
    below = family(tmp_path)
    os.kill(sweep, signal.SIGKILL)
    os.waitpid(sweep, 0)
    for process in below:
        wait_for(lambda process=process: is_gone(process), "end of the family")


@linux
@pytest.mark.parametrize("which", ["outer", "inner"])
def test_what_a_killed_guard_leaves_the_other_one_ends(which, tmp_path):
    """The child in a session of its own, too, which nothing but a guard would end."""
    outer = subprocess.Popen(processes.guarded(["sh", "-c", FAMILY], 0.2), cwd=tmp_path)
    below = family(tmp_path)
    inner = processes.descendants(outer.pid)[0]
    os.kill({"outer": outer.pid, "inner": inner}[which], signal.SIGKILL)
    assert outer.wait(LIMIT_S) == {"outer": -signal.SIGKILL, "inner": 137}[which]
    for process in (inner, *below):
        wait_for(lambda process=process: is_gone(process), "end of the family")


@linux
def test_a_guard_survives_what_kills_its_group(tmp_path):
    """As Jupyter restarts a kernel: with the group of what it started, torchrun's trainers stay behind."""
    kernel = subprocess.Popen(
        [sys.executable, "-c", START, FAMILY], cwd=tmp_path, start_new_session=True
    )
    below = family(tmp_path)
    assert os.getpgid(below[0]) == kernel.pid, "Ctrl-C is for the command, too"
    os.killpg(kernel.pid, signal.SIGKILL)
    kernel.wait()
    for process in below:
        wait_for(lambda process=process: is_gone(process), "end of the family")


@linux
def test_a_supervisor_that_was_asked_ends_with_what_it_watches(tmp_path):
    """Before its grace is over, which is longer than the test would wait."""
    command = ["sh", "-c", "trap '' TERM; sleep 3600 & echo $! > child; echo $$ > parent; wait; wait; "
               "exec sleep 3600"]  # fmt: skip
    guard = subprocess.Popen(
        processes.guarded(command, 10 * LIMIT_S, is_supervisor=True), cwd=tmp_path
    )
    below = family(tmp_path)
    guard.terminate()
    wait_for(lambda: not is_gone(below[0]), "the supervisor, while it has somebody to watch")
    os.kill(below[1], signal.SIGKILL)
    assert guard.wait(LIMIT_S) == 128 + signal.SIGKILL
    assert all(map(is_gone, below))


@linux
def test_guards_within_guards_leave_nothing(tmp_path):
    # The process in the middle is the one that is killed: the outer guard has it, it has the inner guard.
    middle = (
        "import os, subprocess, sys; from hml_core.system import processes; "
        "open('middle', 'w').write(str(os.getpid())); "
        "subprocess.run(processes.guarded(['sh', '-c', sys.argv[1]], 0.2))"
    )
    command = [sys.executable, "-c", middle, FAMILY]
    outer = subprocess.Popen(processes.guarded(command, 5), cwd=tmp_path)
    below = family(tmp_path)
    os.kill(number(tmp_path / "middle"), signal.SIGKILL)
    assert outer.wait(LIMIT_S) == 137
    assert all(map(is_gone, below))


def test_statuses_in_both_notations():
    assert [processes.exit_status(code) for code in (0, 1, -2, -15)] == [0, 1, 130, 143]
    assert [processes.died_of(code) for code in (-9, 137, 0, 1, 128, 255)] == (
        ["SIGKILL", "SIGKILL", None, None, None, None]
    )
