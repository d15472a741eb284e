"""Progress: a sweep says of the runs that it trains the epochs, the loss and the time left."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import re

import pytest

from hml_core import engines
from hml_core.config import RunConfig
from hml_core.system import progress
from hml_core.system.progress import Progress


@pytest.fixture
def talkative(monkeypatch):
    """Plain lines after every step; each look at the clock is ten seconds after the one before."""
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "PLAIN_SHARE", 0.0)
    monkeypatch.setenv("HML_HEADLESS", "1")


def sweep(tmp_path, engine: str, **options):
    configs = [RunConfig(dataset="digits", epochs=3, seed=seed) for seed in (0, 1)]
    return engines.sweep(configs, runs_root=tmp_path, engine=engine, device="cpu", **options)


@pytest.mark.parametrize("engine", ["serial", "interleave:2"])
def test_a_sweep_says_how_far_its_runs_are(engine, tmp_path, capsys, talkative):
    sweep(tmp_path, engine)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("runs: ")]
    within = [line for line in lines if "epochs" in line]
    for epoch in (1, 2, 3):
        pattern = rf"runs: \d/2 runs after \d+ s\. digits-\S+: {epoch}/3 epochs, loss \d\.\d+"
        assert any(re.match(pattern, line) for line in within), lines
    assert all(re.search(r"about \d+ s left$", line) for line in within)
    assert lines[-1].startswith("runs: 2/2 runs ")
    assert (" and 1 more" in " ".join(within)) == (engine != "serial")


def test_no_run_ends_because_nobody_takes_what_is_said_of_it(tmp_path, talkative, monkeypatch):
    """A full disk; a terminal that is gone, or ``| head``, are told in the same way."""
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert sweep(tmp_path, "serial")["status"].tolist() == ["done", "done"]
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


def test_a_silent_sweep_says_nothing(tmp_path, capsys, talkative):
    sweep(tmp_path, "serial", progress=False)
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_the_time_left_counts_the_parts_of_runs(capsys, monkeypatch):
    """A quarter of the work in 100 s: 300 s are left."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("HML_HEADLESS", "1")
    with Progress(2, "runs") as outer:
        with Progress(4, "a", enabled=False) as inner:
            inner.update()
            now[0] = 100.0
            inner.update("loss 0.5")
        assert outer.within == {}
    assert "a: 2/4 it, loss 0.5, about 300 s left" in capsys.readouterr().out
    assert progress._shown == []


def test_lines_become_rarer(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("HML_HEADLESS", "1")
    with Progress(10_000, "long") as bar:
        for second in range(10_000):
            now[0] = float(second)
            bar.update()
    assert 50 < len(capsys.readouterr().out.splitlines()) < 150


def test_a_bar_shows_it_behind_the_count(capsys, monkeypatch):
    monkeypatch.setattr(progress, "is_headless", lambda: False)
    monkeypatch.setattr(progress, "REDRAW_INTERVAL_S", 0.0)
    with Progress(2, "runs"), Progress(4, "a", enabled=False) as inner:
        inner.update("loss 0.5")
    assert "a: 1/4 it, loss 0.5, about " in capsys.readouterr().err


class Gone(io.StringIO):
    """A terminal that is gone."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_is_said_beside_a_bar_ends_nothing_where_nobody_takes_it(monkeypatch):
    monkeypatch.setattr(progress, "is_headless", lambda: False)
    monkeypatch.setattr("sys.stderr", Gone())
    with Progress(2, "runs") as bar:
        bar.message("a failed")
        bar.update()
