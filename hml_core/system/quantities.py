"""Numbers as they are given: NaN, infinity, True and 1e300 are no counts and no times."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

from hml_core.errors import ConfigError

LARGEST = 10_000  # points of a product of lists
LONGEST_INT = 1024  # bits: as far as a float goes; JSON has no room for much more
LONGEST_S = 366 * 86400.0  # a year; what waits on a clock takes no more than some thousand of them


def whole(value: Any, what: str, low: int = 1, high: int = 10**6) -> int:
    """A whole number from ``low`` to ``high``; ``what`` names it in the error.

    >>> whole(2, "`threads`")
    2

    Raises
    ------
    ConfigError
        For anything else: True is none, 2.0 neither.
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or not low <= value <= high:
        bound = f"≤ {high:,}" if is_whole and value > high else f"≥ {low:,}"
        raise ConfigError(f"Expected {what} to be a whole number {bound}, got {told(value)}.")
    return int(value)


def seconds(value: Any, what: str, *, may_be_zero: bool = False) -> float:
    """A time in seconds, more than none and at most a year.

    Raises
    ------
    ConfigError
        For anything else, NaN and infinity included.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    # (An int may be too large for a float; NaN is within no bounds.)
    if not is_number or not 0 <= value <= LONGEST_S or (value == 0 and not may_be_zero):
        bounds = f"{'≥' if may_be_zero else '>'} 0 (at most a year's)"
        raise ConfigError(f"Expected {what} to be a number of seconds {bounds}, got {told(value)}.")
    return float(value)


def truth(value: Any, what: str) -> bool:
    """True or false, and nothing that Python takes for one: the text "no" is none.

    Raises
    ------
    ConfigError
    """
    if not isinstance(value, bool):
        raise ConfigError(f"Expected {what} to be true or false, got {told(value)}.")
    return value


def require_size(axes: Sequence[Sequence[Any]], what: str) -> None:
    """ConfigError for a product of more points than anybody goes through, before one is made."""
    if (number := math.prod(map(len, axes))) > LARGEST:
        raise ConfigError(
            f"Expected {what} to have at most {LARGEST:,} points, got {told(number)}."
        )


def told(value: Any, most: int = 80) -> str:
    """A value in a message: of an endless one its beginning, or its size.

    >>> told("a"), told(16**5000)
    ("'a'", 'a number of 20,001 bits')
    """
    if isinstance(value, int) and value.bit_length() > 4 * most:
        return f"a number of {value.bit_length():,} bits"
    try:
        text = repr(value)
    except Exception:  # of a stranger's class, or of what holds such a number
        return f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"
