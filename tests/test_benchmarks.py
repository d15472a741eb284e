"""The tables of the benchmarks: a part that is measured again leaves the other rows as they are."""

from __future__ import annotations

import pandas as pd

from benchmarks import report


def test_a_part_measured_again_keeps_the_other_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    path = report.write("table", [{"what": "a", "mib": 1.0}, {"what": "b", "n": 2}], note="first")
    before = pd.read_csv(path)
    report.write("table", [{"what": "b", "n": 3, "epochs": 7}], keeps=True, note="second")
    after = pd.read_csv(path)
    assert after["what"].tolist() == ["a", "b"]
    assert after["note"].tolist() == ["first", "second"]
    assert after["n"].tolist()[1] == 3
    pd.testing.assert_frame_equal(after[before.columns][:1], before[:1], check_dtype=False)
    assert after.columns.tolist()[:4] == ["what", "mib", "n", "epochs"]
    report.write("table", [{"what": "c"}], note="third")
    assert pd.read_csv(path)["what"].tolist() == ["c"]
