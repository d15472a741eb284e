"""A few cases of every scenario; `make chaos` runs them all, and `make test-slow` those that take long."""

from __future__ import annotations

from random import Random

import pytest

from tests.chaos import __main__, ends, foreign  # noqa: F401  (they add their scenarios)
from tests.chaos.scenarios import SCENARIOS, Entry, Outcome
from tests.quick import slow_but

TESTED = [name for name, entry in SCENARIOS.items() if entry.few]
# Runs that are killed, sweeps that share a folder and disks that are full have quick tests, too.
LONG = ("killed_trainer", "two_sweeps", "full_disk")


@pytest.mark.begun_first
@pytest.mark.parametrize("name", slow_but([name for name in TESTED if name not in LONG], TESTED))
def test_nothing_is_lost(name, tmp_path):
    entry = SCENARIOS[name]
    outcomes = list(entry.run(tmp_path, Random(0), entry.few))
    assert len(outcomes) >= entry.few
    assert all(outcome.survived for outcome in outcomes), outcomes
    assert not sum(outcome.lost for outcome in outcomes)


def test_the_tally_counts_every_case_and_tells_of_each_that_did_not_survive(monkeypatch, capsys):
    def good(folder, random, cases):
        yield from (Outcome(True) for _ in range(cases))

    def bad(folder, random, cases):
        yield from (Outcome(False, lost=2, note=f"case {case}") for case in range(cases))

    entries = {"good": Entry(good, "goes well", 3, 1), "bad": Entry(bad, "goes ill", 5, 1)}
    monkeypatch.setattr(__main__, "SCENARIOS", entries)
    monkeypatch.setattr("sys.argv", ["chaos", "--seed", "0", "--cases", "4"])
    assert __main__.main() == 1
    said = capsys.readouterr()
    rows = [line.split()[-4:-1] for line in said.out.splitlines() if line.startswith("goes")]
    assert rows == [["3", "3", "0"], ["4", "0", "8"]]
    assert said.out.splitlines()[-1].split() == ["all", "7", "3", "8"]
    assert said.err.splitlines() == [f"bad: case {case}" for case in range(4)]
