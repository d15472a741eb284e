"""Several processes over one results folder, and processes that end without warning."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from hml_core import engines, runs
from hml_core.errors import RunBusyError
from hml_core.runs import RunFolder
from hml_core.system import locks
from hml_core.trainer import Trainer, beginnings, fit
from hml_core.trainer.branches import epochs_to_train
from tests.engines.helpers import (
    HOLD,
    LOGGED,
    configs,
    let_go_after_the_others,
    start,
    start_together,
    wait_for,
)


def test_two_sweeps_share_the_work_and_train_nothing_twice(tmp_path):
    log = tmp_path / "log"
    both = [start(LOGGED, tmp_path / "runs", log, 12) for _ in range(2)]
    start_together(*both)
    output = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], output
    lines = [line.split() for line in log.read_text().splitlines()]
    trained = Counter((run_id, epoch) for _, run_id, epoch in lines)
    assert len(trained) == epochs_to_train(configs(epochs=12)) == 2 * 12 + 2 * 6
    assert set(trained.values()) == {1}
    workers = {
        run_id: {pid for pid, other, _ in lines if other == run_id} for _, run_id, _ in lines
    }
    assert all(len(pids) == 1 for pids in workers.values())
    assert len(set.union(*workers.values())) == 2, "one of them did everything"
    assert not (tmp_path / "runs" / ".beginnings").exists()
    assert len(runs.load(tmp_path / "runs")) == 4


def test_sweeps_that_come_while_others_go_disturb_none(tmp_path):
    """The last one removes the beginnings, and the next may be about to make that folder."""

    def come_and_go(_):
        for _ in range(15):
            with beginnings.kept(tmp_path):
                assert (tmp_path / ".beginnings" / ".locks").is_dir()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert not (tmp_path / ".beginnings").exists()


def test_a_sweep_is_done_though_another_is_stopped_as_it_ends(tmp_path, monkeypatch):
    """What is trained counts; the next sweep removes the beginnings."""
    monkeypatch.setattr(beginnings, "_LONGEST_AT_THE_DOOR_S", 0.1)
    with contextlib.ExitStack() as stopped:
        with beginnings.kept(tmp_path):
            stopped.enter_context(locks.held(tmp_path, "sweeps", "begins or ends a sweep"))
        assert (tmp_path / ".beginnings").exists()
        with (
            pytest.raises(
                RunBusyError, match=f"Process {os.getpid()} on .* begins or ends a sweep"
            ),
            beginnings.kept(tmp_path),
        ):
            pass
    with beginnings.kept(tmp_path):
        pass
    assert not (tmp_path / ".beginnings").exists()


def test_a_run_that_another_process_holds_comes_last(tmp_path):
    """The sweep does the other runs meanwhile, and then waits for it."""
    holder = start(HOLD, tmp_path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunBusyError, match=f"Process {holder.pid} on .* works on the run digits"):
        fit(configs()[0], runs_root=tmp_path, wait=0.0, progress=False)
    with let_go_after_the_others(holder, tmp_path):
        frame = engines.sweep(configs(), runs_root=tmp_path, progress=False)
    assert (frame["status"] == "done").all()


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    holder = start(HOLD, tmp_path)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    note = tmp_path / ".locks" / f"{configs()[0].run_id}.json"
    assert note.exists(), "what a killed process leaves behind"
    with RunFolder(tmp_path, configs()[0]).locked(wait=0.0):
        pass  # it would be refused without waiting
    assert not note.exists()


@pytest.mark.begun_first
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    """Ctrl-C: a sentence, and the same call repeats no epoch that a checkpoint holds."""
    log = tmp_path / "log"
    first = start(LOGGED, tmp_path / "runs", log, 25)
    start_together(first)
    second_run = configs(epochs=25)[1].run_id
    checkpoint = tmp_path / "runs" / second_run / "checkpoint.pt"
    wait_for(checkpoint.exists, "a checkpoint in the second run")
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=600)
    assert "Interrupted: 1 of 4 runs are done. The same command goes on from there." in output
    plain = Trainer.train_epoch

    def logged(self):
        with log.open("a") as stream:
            stream.write(f"again {self.config.run_id} {self.epoch}\n")
        return plain(self)

    monkeypatch.setattr(Trainer, "train_epoch", logged)
    frame = engines.sweep(configs(epochs=25), runs_root=tmp_path / "runs", progress=False)
    assert (frame["status"] == "done").all()
    trained = Counter(tuple(line.split()[1:]) for line in log.read_text().splitlines())
    # The run that was cut off had come some way: what CE was begun for is trained once more at most.
    assert epochs_to_train(configs(epochs=25)) <= len(trained) <= 4 * 25
    repeated = [key for key, times in trained.items() if times > 1]
    assert len(repeated) <= 1, "more than the epoch that was cut off"
