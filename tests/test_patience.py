"""Time limits stand still with the process that waits."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from hml_core.system import patience
from hml_lab.notebooks import batch


@pytest.fixture
def clock(monkeypatch):
    """One that only goes on when it is told to."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock.now)
    return clock


def test_time_in_which_the_process_was_stopped_does_not_count(clock):
    limit = patience.Patience(40.0)
    for _ in range(10):
        clock.now += 1.0
        assert limit.next_look() == patience.LOOK_S
    clock.now += 3600.0  # Ctrl-Z, and lunch
    assert limit.left() == 40.0 - 10.0 - patience.MOST_S
    for _ in range(24):
        clock.now += 1.0
        assert limit.left() > 0
    clock.now += 1.0
    assert limit.left() <= 0
    assert limit.next_look() == 0


def test_a_batch_gives_its_jobs_so_long(monkeypatch):
    monkeypatch.setattr(batch, "GRACE_S", 0.0)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    with pytest.raises(subprocess.TimeoutExpired):
        batch._wait(process, 0.01)
    process.kill()
    batch._wait(process, 600.0)
    batch._wait(process, None)
    assert process.returncode
