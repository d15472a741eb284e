"""Commands of the system that are asked: one that hangs or prints without end is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from hml_core.system import asked
from tests.test_processes import LIMIT_S, is_gone, linux, number, wait_for


@linux
def test_a_command_that_is_asked_ends_with_who_asks(tmp_path):
    """Also by ``kill -9``, where nothing of ours is called any more."""
    program = (
        "from hml_core.system import asked\n"
        "asked.ask(['sh', '-c', 'echo $$ > asked.new; mv asked.new asked; exec sleep 3600'], 3600)"
    )
    asking = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    wait_for((tmp_path / "asked").exists, "command")
    asking.kill()
    asking.wait()
    wait_for(lambda: is_gone(int((tmp_path / "asked").read_text())), "end")


def test_a_command_of_the_system_is_asked():
    said = asked.ask(["sh", "-c", r"printf 'a\377'; echo no >&2; exit 3"], LIMIT_S)
    assert said == (3, "a\N{REPLACEMENT CHARACTER}", "no\n")
    with pytest.raises(FileNotFoundError):
        asked.ask(["/no/such/command"], LIMIT_S)


UNWILLING = {  # what a command of the system does, and what it is told to be
    "sleep 3600 & echo $! > child; wait": "did not answer within 1 seconds",
    "sleep 3600 & echo $! > child; yes": "says more than 1,000 bytes",
    "sleep 3600 & echo $! > child; yes >&2": "says more than 1,000 bytes",
    "sleep 3600 & echo $! > child; head -c 2000 /dev/zero; wait": "says more than 1,000 bytes",
}


@linux
@pytest.mark.parametrize("script", UNWILLING)
def test_a_command_that_hangs_or_prints_without_end_is_killed_with_its_children(
    script, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    patience = 1.0 if "answer" in UNWILLING[script] else LIMIT_S
    with pytest.raises((TimeoutError, ValueError), match=UNWILLING[script]):
        asked.ask(["sh", "-c", script], patience, limit=1000)
    wait_for(lambda: is_gone(number(tmp_path / "child")), "end of the child")


@linux
def test_who_holds_a_command_s_streams_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = asked.ask(["sh", "-c", "setsid sleep 3600 & echo $! > child; echo yes"], LIMIT_S)
    assert said == (0, "yes\n", "")
    os.kill(number(tmp_path / "child"), signal.SIGKILL)
