"""Of which kind a value is that a file holds: text, a number, a whole number within bounds."""

from __future__ import annotations

import math
from typing import Any


def is_text(value: Any) -> bool:
    """Text that can be written: without halves of characters.

    >>> is_text("a"), is_text("\\ud800"), is_text(1)
    (True, False, False)
    """
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_number(value: Any, most: float = math.inf) -> bool:
    """A finite number, at most ``most`` away from 0.

    >>> is_number(-2.5), is_number(float("nan")), is_number(True), is_number(10**400, most=1e30)
    (True, False, False, False)
    """
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and abs(value) < math.inf and abs(value) <= most


def is_whole(value: Any, low: int, high: int) -> bool:
    """A whole number within these bounds.

    >>> is_whole(3, 0, 3), is_whole(3.0, 0, 3), is_whole(True, 0, 3)
    (True, False, False)
    """
    return type(value) is int and low <= value <= high
