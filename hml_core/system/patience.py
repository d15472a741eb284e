"""Time limits of what this process waits for: time in which it was stopped does not count."""

from __future__ import annotations

import time

LOOK_S = 1.0  # how often who waits is to look
# That count between two looks: in more this process stood still (Ctrl-Z, a suspended machine).
MOST_S = 5.0


class Patience:
    """So many seconds of waiting.

    >>> patience = Patience(0.5)
    >>> 0 < patience.left() <= 0.5, patience.next_look() <= 0.5
    (True, True)
    """

    def __init__(self, seconds: float) -> None:
        self._left, self._last = seconds, time.monotonic()

    def left(self) -> float:
        """Seconds that are left now, at most 0 when none are."""
        now = time.monotonic()
        self._left -= min(now - self._last, MOST_S)
        self._last = now
        return self._left

    def next_look(self) -> float:
        """Seconds to wait before the next look."""
        return max(min(self.left(), LOOK_S), 0.0)
