"""Runs that take turns in one process end as they do alone."""

from __future__ import annotations

import numpy as np
import pytest

from hml_core import engines, trainer
from hml_core.config import grid
from hml_core.errors import ConfigError
from hml_core.runs import Run, RunFolder
from hml_core.trainer import update
from tests.engines.helpers import HOLD, configs, let_go_after_the_others, start
from tests.engines.test_dask import same


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    return folder, engines.sweep(configs(), runs_root=folder, progress=False)


@pytest.mark.parametrize("number", [1, 3, 8])
def test_the_frame_is_the_serial_one_to_the_bit(number, serial, tmp_path):
    """Also with fewer and with more turns than there are runs."""
    folder, expected = serial
    frame = engines.sweep(
        configs(), engine=f"interleave:{number}", runs_root=tmp_path, progress=False
    )
    same(expected, frame)
    for run_id in frame["run_id"]:
        ours, theirs = (Run(root / run_id).predictions[0] for root in (tmp_path, folder))
        assert np.array_equal(ours, theirs)


def test_they_really_take_turns(tmp_path, monkeypatch):
    order = []
    plain = update.Update.__call__

    def logged(self, batch):
        order.append(self.config.seed)
        return plain(self, batch)

    monkeypatch.setattr(update.Update, "__call__", logged)
    runs = grid(recipe="ce", seed=[0, 1], epochs=1, batch_size=64, dataset="digits")
    engines.sweep(runs, engine="interleave:2", runs_root=tmp_path, progress=False)
    assert order[:6] == [0, 1, 0, 1, 0, 1]


def test_who_waited_for_a_beginning_comes_before_the_rest_of_the_list(tmp_path, monkeypatch):
    begun = []
    plain = update.Update.__call__

    def logged(self, batch):
        if self.config.run_id not in begun:
            begun.append(self.config.run_id)
        return plain(self, batch)

    monkeypatch.setattr(update.Update, "__call__", logged)
    shared = {"dataset": "digits", "epochs": 4, "batch_size": 64}
    runs = grid(recipe=["ce", "hml1"], seed=0, **shared)  # HML1 begins as cross-entropy
    runs += grid(recipe="ce", seed=[1, 2, 3, 4], **shared)
    frame = engines.sweep(runs, engine="interleave:2", runs_root=tmp_path, progress=False)
    assert (frame["status"] == "done").all(), frame["error"].tolist()
    order = [run.run_id for run in runs]
    assert begun.index(order[1]) < begun.index(order[-1])


def test_one_that_fails_does_not_stop_the_others(tmp_path):
    bad = grid(recipe="ce", seed=[5], epochs=2, learning_rate=1e30, warmup_epochs=0)
    frame = engines.sweep(
        bad + configs(), engine="interleave:3", runs_root=tmp_path, progress=False
    )
    assert frame["status"].tolist() == ["failed"] + ["done"] * len(configs())
    assert "loss became nan" in frame["error"][0]


def test_one_that_another_process_holds_comes_last(tmp_path):
    holder = start(HOLD, tmp_path)
    assert holder.stdout.readline() == "held\n"
    with let_go_after_the_others(holder, tmp_path):
        frame = engines.sweep(configs(), engine="interleave:2", runs_root=tmp_path, progress=False)
    assert (frame["status"] == "done").all()


def test_after_an_interruption_no_run_stays_locked(tmp_path, monkeypatch):
    plain = trainer.Trainer.end_epoch

    def interrupted(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        plain(self)

    monkeypatch.setattr(trainer.Trainer, "end_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engines.sweep(configs(), engine="interleave:4", runs_root=tmp_path, progress=False)
    for config in configs():
        with RunFolder(tmp_path, config).locked(wait=0.0):
            pass


@pytest.mark.parametrize("name", ["interleave", "interleave:0", "interleave:-1", "interleave:two"])
def test_a_number_of_runs_is_needed(name, tmp_path):
    with pytest.raises(ConfigError, match="`engine` to be one of serial, interleave:K"):
        engines.sweep(configs(), engine=name, runs_root=tmp_path)
