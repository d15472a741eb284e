"""Numbers with their nouns."""

from __future__ import annotations


def number(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun in the right number.

    >>> number(1, "run"), number(0, "run"), number(1200, "class", "classes")
    ('1 run', '0 runs', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
