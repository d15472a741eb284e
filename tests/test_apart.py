"""A function in a process of its own: its answer, its silence, its end; nothing of it here."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

import pytest

from hml_core.system import apart, processes


def changed() -> str:
    os.environ["HML_OF_A_FORK"] = "1"
    return os.environ["HML_OF_A_FORK"]


def fails() -> None:
    raise ValueError("it is told by nobody")


@pytest.mark.skipif(sys.platform != "linux", reason="there it is called in this process")
def test_what_it_returns_comes_back_and_what_it_changes_does_not():
    assert apart.call(changed) == "1"
    assert apart.call(max, 3, 4, seconds=600) == 4
    assert "HML_OF_A_FORK" not in os.environ
    for silent in (fails, sys.exit):
        with pytest.raises(apart.NoAnswer):
            apart.call(silent)
    with pytest.raises(apart.NoAnswer):
        apart.call(os._exit, 0)
    with pytest.raises(TimeoutError, match="it was not done after 0 s"):
        apart.call(time.sleep, 3600, seconds=0)


def test_where_there_are_no_forks_it_is_called_here(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HML_OF_A_FORK", "0")
    assert apart.call(changed, seconds=0) == "1"
    assert os.environ["HML_OF_A_FORK"] == "1"


def test_the_process_answers_once_and_says_nothing_of_an_error(monkeypatch):
    """As it does in the fork, which is killed once it has answered."""
    told, bound = [], []
    monkeypatch.setattr(processes, "die_with_parent", lambda: bound.append(True))
    monkeypatch.setattr("torch.set_num_threads", bound.append)
    for function in (fails, sys.exit, int):
        apart._answer(SimpleNamespace(send=told.append), function, ())
    assert told == [0]
    assert bound == [True, 1] * 3


def test_one_that_was_never_begun_is_not_ended():
    apart._end(SimpleNamespace(pid=None))
