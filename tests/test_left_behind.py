"""What somebody's own code started, and did not end, ends with the command; it is told."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from hml_core.system import ending, left_behind, processes
from hml_lab import cli
from tests.test_processes import is_gone, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")


def _wait() -> None:
    while True:
        time.sleep(1)


def _stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _wait()


def forked(work=_wait) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            ending._end(1)
    return child


def daemonised() -> int:
    """As daemons do it: in a session of its own, its parent gone."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        grandchild = forked()
        os.write(tell, str(grandchild).encode())
        ending._end(0)
    os.waitpid(child, 0)
    number = int(os.read(told, 20))
    os.close(told)
    os.close(tell)
    return number


def program() -> int:
    process = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    KEPT.append(process)
    return process.pid


def of_multiprocessing() -> int:
    process = multiprocessing.get_context("fork").Process(target=_wait)
    process.start()
    KEPT.append(process)
    return process.pid


KEPT: list = []


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(left_behind, "PATIENCE_S", 0.1)
    yield
    KEPT.clear()


@pytest.mark.parametrize(
    "start",
    [forked, lambda: forked(_stubborn), daemonised, program, of_multiprocessing],
    ids=["fork", "ignores SIGTERM", "daemon", "program", "multiprocessing"],
)
@pytest.mark.parametrize("end", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_processes_end_with_the_command_however_it_ends(start, end, monkeypatch):
    started = []

    def examine(*_):
        started.append(start())
        if end is not None:
            raise end("the end")
        return []

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert is_gone(started[0])
    assert f"1 process(es) still ran, and were ended: {started[0]} (" in result.output
    assert processes.adopt(False) is False, "the process is as it was before"


def test_what_ran_before_the_command_goes_on(monkeypatch):
    before = forked()
    monkeypatch.setattr("hml_lab.doctor.examine", lambda *_: [])
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert "still ran" not in result.output
    assert not is_gone(before)
    os.kill(before, signal.SIGKILL)
    os.waitpid(before, 0)


def test_a_thread_that_is_no_daemon_does_not_keep_the_command(monkeypatch, capfd):
    """It has its time to end; then the process ends, with the status of the work."""
    release = threading.Event()

    def examine(*_):
        threading.Thread(target=_wait, daemon=True).start()
        threading.Thread(target=release.wait, name="ours-that-waits").start()
        return []

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    monkeypatch.setattr(sys, "argv", ["hml", "doctor"])
    left = []
    monkeypatch.setattr(ending, "leave", lambda status: left.append(status) or sys.exit(status))
    with pytest.raises(SystemExit):
        cli.main.main()
    assert left == [0]
    assert "1 thread(s) still ran, and end with it: ours-that-waits." in capfd.readouterr().err
    monkeypatch.setattr("hml_lab.doctor.examine", lambda *_: examine() or 1 / 0)
    with pytest.raises(SystemExit):
        cli.main.main()
    assert left == [0, 1]
    assert "ZeroDivisionError" in capfd.readouterr().err
    release.set()


class Unheard(io.StringIO):
    """Takes words, and cannot write them."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("stream", "status"), [(io.StringIO, 0), (Unheard, 120)])
def test_a_daemon_within_a_library_aborts_no_end(stream, status, monkeypatch):
    """One within a call of C++, while the interpreter ends, would end all by SIGABRT."""
    release, left = threading.Event(), []

    def examine(*_):
        threading.Thread(target=release.wait, daemon=True).start()
        monkeypatch.setattr(sys, "stdout", stream())
        return []

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    monkeypatch.setattr(sys, "argv", ["hml", "doctor"])
    monkeypatch.setattr(ending, "leave", lambda status: left.append(status) or sys.exit(status))
    with pytest.raises(SystemExit):
        cli.main.main()
    release.set()
    assert left == [status]


def test_a_thread_that_ends_in_time_is_waited_for(monkeypatch):
    monkeypatch.setattr(left_behind, "PATIENCE_S", 60.0)
    said: list[str] = []
    with left_behind.ended(said.append) as found:
        threading.Thread(target=lambda: None).start()
    assert not found.threads
    assert not said


def test_threads_that_wait_for_work_are_dismissed(monkeypatch):
    """Those of an executor that somebody still refers to, as torch's compiler does."""
    monkeypatch.setattr(left_behind, "PATIENCE_S", 60.0)
    said: list[str] = []
    before = ThreadPoolExecutor(1)
    assert before.submit(int).result() == 0
    with left_behind.ended(said.append) as found:
        idle = ThreadPoolExecutor(2)
        assert idle.submit(int).result() == 0
    assert not found.threads
    assert not said
    assert before.submit(int).result() == 0  # of somebody else's, nothing was asked
    before.shutdown()
    monkeypatch.setattr(left_behind, "PATIENCE_S", 0.0)
    release = threading.Event()
    with left_behind.ended(said.append) as found:
        busy = ThreadPoolExecutor(1, "busy")
        busy.submit(release.wait)
    assert [thread.name for thread in found.threads] == ["busy_0"]
    assert "1 thread(s) still ran, and end with it: busy_0." in said[0]
    release.set()


def test_helpers_of_the_interpreter_are_no_strangers(monkeypatch):
    helper = forked()
    tracker = multiprocessing.resource_tracker._resource_tracker
    monkeypatch.setattr(tracker, "_pid", helper)
    said: list[str] = []
    with left_behind.ended(said.append):
        pass
    child = None
    with left_behind.ended(said.append):
        child = forked()
    assert len(said) == 1
    assert is_gone(child)
    assert not is_gone(helper)
    os.kill(helper, signal.SIGKILL)
    os.waitpid(helper, 0)


@pytest.mark.parametrize("start", [forked, daemonised, program], ids=["fork", "daemon", "program"])
def test_what_a_killed_command_had_started_is_ended_by_its_watcher(start, monkeypatch):
    told, tell = os.pipe()

    def command() -> None:
        with left_behind.ended(print):
            started = start()
            left_behind.watch()  # it has looked once by then
            left_behind.watch()  # and one is enough
            os.write(tell, f"{started} {left_behind._watchers[0].pid}\n".encode())
            _wait()

    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        monkeypatch.setattr(processes, "_ISOLATED", ())
    killed = forked(command)
    started, watcher = map(int, os.read(told, 50).split())
    os.close(told)
    os.close(tell)
    os.kill(watcher, signal.SIGTERM)  # as a cluster asks all: it stays until its parent is gone
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    wait_for(lambda: is_gone(started) and is_gone(watcher), "end of both")


def test_own_code_has_a_watcher_as_long_as_its_command_runs(tmp_path):
    file = tmp_path / "watched_for_tests.py"
    file.write_text(
        "from hml_core.system import left_behind\n"
        "import pathlib\n"
        f"pathlib.Path({str(tmp_path / 'watcher')!r}).write_text(str(left_behind._watchers[0].pid))\n"
    )
    given = ["runs", "list", "--runs-root", str(tmp_path), "--import", str(file)]
    result = CliRunner().invoke(cli.main, given)
    assert result.exit_code == 0, result.output
    assert is_gone(int((tmp_path / "watcher").read_text()))
    assert not left_behind._watchers
    sys.modules.pop("watched_for_tests", None)
