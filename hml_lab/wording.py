"""Numbers with their nouns, spans of numbers, and p-values."""

from __future__ import annotations

import math
from collections.abc import Iterable


def number(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun in the right number.

    >>> number(1, "run"), number(0, "run"), number(1200, "class", "classes")
    ('1 run', '0 runs', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def span(counts: Iterable[int], noun: str = "") -> str:
    """From the least to the most of some counts, or the one that all of them are; with their noun.

    >>> span([10, 3, 6]), span([6, 6]), span([3, 1], "seed"), span([1], "seed")
    ('3 to 10', '6', '1 to 3 seeds', '1 seed')
    """
    least, *others = sorted(set(counts))
    most = others[-1] if others else least
    told = number(most, noun) if noun else f"{most:,}"
    return f"{least:,} to {told}" if others else told


def p_value(p: float, digits: int = 3, name: str = "") -> str:
    """A p-value with so many digits, never as zero; with its ``name`` as a statement.

    >>> p_value(0.04), p_value(2e-5), p_value(2e-5, 4, "p"), p_value(0.04, 4, "p"), p_value(math.nan)
    ('0.040', '< 0.001', 'p < 0.0001', 'p = 0.0400', '–')
    """
    if math.isnan(p):
        return f"{name} –".strip()
    least = 10**-digits
    if p < least:
        return f"{name} < {least:.{digits}f}".strip()
    return f"{name} = {p:.{digits}f}" if name else f"{p:.{digits}f}"
