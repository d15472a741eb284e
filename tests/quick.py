"""Which cases `make test` leaves to `make test-slow`: those that repeat a promise with another recipe or
engine. Continuous integration runs both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """The values of a parameter, marked slow but for the quick ones; those must be among them."""
    values, quick = [*values], [*quick]
    assert all(one in values for one in quick), f"{quick} of {values}"
    return [
        one
        if one in quick
        else pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.slow)
        for one in values
    ]
