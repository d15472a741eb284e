"""Sweeps: every configuration once, a failure is a row, finished runs are not repeated."""

from __future__ import annotations

import pandas as pd
import pytest

from hml_core import engines, losses, recipes, runs
from hml_core.config import RunConfig, grid
from hml_core.engines.jobs import attempt
from hml_core.errors import ConfigError, DeviceError, RunError


def configs(**fields):
    return grid(recipe=["ce", "hml1"], seed=[0, 1], epochs=2, batch_size=64, **fields)


def test_a_sweep_is_a_frame_in_the_order_given(tmp_path):
    frame = engines.sweep(configs(), runs_root=tmp_path, progress=False)
    assert frame["run_id"].tolist() == [config.run_id for config in configs()]
    assert (frame["status"] == "done").all()
    stored = runs.load(tmp_path).set_index("run_id").loc[frame["run_id"]].reset_index()
    pd.testing.assert_frame_equal(frame[stored.columns], stored)


def test_finished_runs_are_not_repeated(tmp_path, monkeypatch):
    first = engines.sweep(configs(), runs_root=tmp_path, progress=False)
    monkeypatch.setattr(
        "hml_core.trainer.Trainer.train_epoch", lambda self: pytest.fail("trained again")
    )
    again = engines.sweep(configs() + configs(), runs_root=tmp_path, progress=False)
    pd.testing.assert_frame_equal(first, again)


def test_a_failed_run_is_a_row_and_the_sweep_goes_on(tmp_path):
    bad = grid(recipe="ce", seed=[5], epochs=2, learning_rate=1e30, warmup_epochs=0)
    frame = engines.sweep(bad + configs(), runs_root=tmp_path, progress=False)
    assert frame["status"].tolist() == ["failed"] + 4 * ["done"]
    assert "loss became nan in epoch 1" in frame["error"][0]
    assert frame["learning_rate"][0] == 1e30


def test_what_cannot_work_is_refused_at_once(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"`engine` to be one of serial, interleave:K, torchrun:N, dask, .* got 'spark'",
    ):
        engines.sweep(configs(), engine="spark", runs_root=tmp_path)
    with pytest.raises(ConfigError, match="at least one configuration"):
        engines.sweep([], runs_root=tmp_path)
    with pytest.raises(DeviceError, match="is not there"):
        engines.sweep(configs(), device="cuda:99", runs_root=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written to"):
        engines.sweep(configs(), runs_root=tmp_path / "file")


def test_progress_is_plain_lines_when_headless(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HML_HEADLESS", "1")
    monkeypatch.setattr("hml_core.system.progress.PLAIN_INTERVAL_S", 0.0)
    engines.sweep(configs(), runs_root=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("runs: 4/4 runs after") for line in lines)
    assert not any("\r" in line for line in lines)


def test_what_is_registered_anew_while_a_sweep_goes_on_costs_its_own_row_alone(
    tmp_path, monkeypatch
):
    def register(number: int) -> None:
        class Mine(losses.CrossEntropyLoss):
            factor = number

        losses.register(Mine, name="mine_anew")

    register(1)
    try:
        own = RunConfig(dataset="digits", recipe=own_recipe(), epochs=1, batch_size=64)
        others = grid(recipe="ce", seed=[0, 1], epochs=1, batch_size=64)
        before = own.run_id

        def train(configs, place):
            for config in configs:
                outcome = attempt(config, place)
                if config is own:
                    register(2)
                yield config, outcome

        monkeypatch.setattr(engines, "check", lambda engine: engines.Engine(train))
        frame = engines.sweep([own, *others], runs_root=tmp_path, progress=False)
        assert own.run_id != before
    finally:
        del losses.LOSSES["mine_anew"], recipes.RECIPES["mine_anew"]
    assert frame["status"].tolist() == ["failed", "done", "done"]
    assert frame["run_id"][0] == before
    assert "registered anew while the sweep went on" in frame["error"][0]


def own_recipe() -> str:
    @recipes.register(title="Mine", source="a test")
    def mine_anew():
        return (recipes.Stage("mine_anew"),)

    return "mine_anew"
