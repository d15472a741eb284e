"""Numbers with their nouns, and p-values."""

from __future__ import annotations

import math


def number(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun in the right number.

    >>> number(1, "run"), number(0, "run"), number(1200, "class", "classes")
    ('1 run', '0 runs', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


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
