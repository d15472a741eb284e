"""The cost of the iNaturalist table: its arithmetic, and the benchmark that it takes its rates from."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from benchmarks import cost, inat


def test_hours_and_money_follow_from_images_a_second():
    rates = cost.Rates(trained=1000.0, ready=500.0, source="a test")
    made = cost.table(rates, [1, 8], recipes=7, seeds=3, epochs=90, price=2.0)
    images = 90 * (437_513 + 24_426 / 3)
    hours = images / 1000 / 3600
    one, eight = (made.loc[name] for name in ("1 device(s)", "8 device(s)"))
    assert one["hours a run"] == f"{hours:.1f}" == "11.1"
    assert eight["hours a run"] == f"{hours / 8:.1f}"
    assert one["days for 21 runs"] == f"{21 * hours / 24:.1f}"
    assert one["device hours"] == eight["device hours"] == f"{21 * hours:.0f}"
    assert one["money at 2 a device hour"] == f"{42 * hours:.0f}"
    assert (one["cores to feed them"], eight["cores to feed them"]) == ("2.0", "16.0")
    assert made.index.name == "a test"


def test_the_benchmark_runs_in_miniature_and_the_cost_comes_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (("IMAGES", 4), ("FED", 8), ("REPETITIONS", 1), ("SHAPE", (48, 64))):
        monkeypatch.setattr(inat, name, value)
    monkeypatch.setattr(inat, "BATCHES", {"cpu": (4, 2, 1)})
    monkeypatch.setattr(sys, "argv", ["inat", "--model", "resnet18", "--image-size", "32"])
    inat.main()
    frame = pd.read_csv(tmp_path / "my_results" / "benchmarks" / "inat.csv")
    step = frame[frame["what"].str.contains("step of 4")].iloc[0]
    assert 0 <= step["waiting_share"] <= 1
    assert step["images_per_s"] == pytest.approx(4 / step["median_s"], rel=1e-3)
    assert (frame["share_of_step"].dropna() > 0).sum() == len(inat.LOSSES)
    rates = cost.measured(tmp_path / "my_results" / "benchmarks")
    assert rates.trained == pytest.approx(step["images_per_s"], rel=1e-3)
    with pytest.raises(SystemExit, match=r"run `python -m benchmarks\.inat` first"):
        cost.measured(tmp_path)
