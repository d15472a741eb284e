"""A few cases of every scenario; `make chaos` runs them all."""

from __future__ import annotations

from random import Random

import pytest

from tests.chaos import ends, foreign  # noqa: F401  (they add their scenarios)
from tests.chaos.scenarios import SCENARIOS


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in SCENARIOS.items() if entry.few])
def test_nothing_is_lost(name, tmp_path):
    entry = SCENARIOS[name]
    outcomes = list(entry.run(tmp_path, Random(0), entry.few))
    assert len(outcomes) >= entry.few
    assert all(outcome.survived for outcome in outcomes), outcomes
    assert not sum(outcome.lost for outcome in outcomes)
