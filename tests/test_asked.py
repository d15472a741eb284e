"""Commands of the system that are asked: one that hangs or prints without end is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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


def up_once(told: Path, monkeypatch) -> None:
    """Let the time of a command be up once that file is there, and not before, however busy it is here."""
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1e6 * told.exists())
    monkeypatch.setattr(asked, "time", clock)


UNWILLING = {  # what a command of the system does, and what it is told to be
    "sleep 3600 & echo $! > child.new; mv child.new child; wait": "did not answer within 600 seconds",
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
    if "answer" in UNWILLING[script]:
        up_once(tmp_path / "child", monkeypatch)
    with pytest.raises((TimeoutError, ValueError), match=UNWILLING[script]):
        asked.ask(["sh", "-c", script], LIMIT_S, limit=1000)
    wait_for(lambda: is_gone(number(tmp_path / "child")), "end of the child")


def test_what_a_command_said_before_its_time_was_up_is_told(tmp_path, monkeypatch):
    up_once(tmp_path / "told", monkeypatch)
    script = f"echo taken; touch {tmp_path}/told; exec sleep 3600"
    with pytest.raises(asked.Unanswered) as raised:
        asked.ask(["sh", "-c", script], LIMIT_S)
    assert raised.value.out == "taken\n"


@pytest.mark.parametrize("before", range(3))
def test_all_that_a_command_has_said_is_there_when_it_has_ended(before, monkeypatch):
    """However long it was not looked at: a job that is not heard of would go on unseen."""
    plain = subprocess.Popen.poll
    looks = []

    def ended(self):
        looks.append(self)
        if len(looks) == before + 1:  # it does all that it does between two looks
            self.wait()
        return plain(self)

    monkeypatch.setattr(subprocess.Popen, "poll", ended)
    monkeypatch.setattr(asked, "LOOK_S", 0.0)
    script = "echo begun; sleep 0.1; head -c 60000 /dev/zero; echo Submitted batch job 17"
    said = asked.ask(["sh", "-c", script], LIMIT_S)
    assert said.out == "begun\n" + "\0" * 60000 + "Submitted batch job 17\n"


@linux
def test_who_holds_a_command_s_streams_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = asked.ask(["sh", "-c", "setsid sleep 3600 & echo $! > child; echo yes"], LIMIT_S)
    assert said == (0, "yes\n", "")
    os.kill(number(tmp_path / "child"), signal.SIGKILL)
