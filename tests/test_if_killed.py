"""What is run when a process was killed, by a helper that waits beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hml_core.system import if_killed
from hml_core.system.if_killed import IfKilled
from tests import forks
from tests.engines.helpers import wait_for

TOLD = """
import os, sys
from hml_core.system.if_killed import IfKilled
with IfKilled() as helper:
    helper.tell([["touch", "first"]])
    helper.tell([["touch", "second"], ["touch", "third"]])
    print(helper._helper.pid, flush=True)
    sys.stdin.readline()
    if sys.argv[1] == "exits":
        os._exit(0)
"""


def begun(folder: Path, how: str) -> tuple[forks.Python, int]:
    """A process that has told its helper what to do, and the helper's id."""
    process = forks.Python(
        ["-c", TOLD, how], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, int(process.stdout.readline())


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("how", ["killed", "exits"])
def test_what_was_told_last_is_run_where_a_process_ends_without_closing(how, tmp_path):
    process, helper = begun(tmp_path, how)
    if how == "killed":
        process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not is_there(helper), "the end of the helper")
    assert {path.name for path in tmp_path.iterdir()} == {"second", "third"}


def test_nothing_is_run_where_the_process_closes_it(tmp_path):
    process, helper = begun(tmp_path, "closes")
    process.communicate()
    assert process.returncode == 0
    assert not is_there(helper), "it was waited for"
    assert not list(tmp_path.iterdir())


def test_signals_to_everybody_do_not_end_the_helper(tmp_path):
    """As when a terminal is closed, or a guard asks all that is left to end."""
    process, helper = begun(tmp_path, "killed")
    assert os.getsid(helper) == helper, "Ctrl-C would reach it"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(helper, number)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for((tmp_path / "third").exists, "what was told")


@pytest.mark.parametrize("fails", [1, 99])
def test_a_command_that_fails_is_tried_again_and_not_for_ever(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    script = f'echo >> tried; [ "$(wc -l < tried)" -gt {fails} ]'
    monkeypatch.chdir(tmp_path)
    if_killed._run(["sh", "-c", script])
    if_killed._run([str(tmp_path / "not there")])
    tried = len((tmp_path / "tried").read_text().splitlines())
    assert tried == min(fails + 1, if_killed.TRIES)


def test_without_a_helper_there_is_nothing_to_tell(monkeypatch):
    """Where no process can be started, or it was killed."""

    def refused(*arguments, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refused)
        with IfKilled() as helper:
            helper.tell([["false"]])
    with IfKilled() as helper:
        helper._helper.kill()
        helper._helper.wait()
        helper.tell([["false"]])
