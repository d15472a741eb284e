"""Progress: a bar in a terminal and in a notebook, plain lines where nobody watches."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

from hml_core.system import streams

PLAIN_INTERVAL_S = 10.0
# Plain lines become rarer: one for so much of the time that has passed.
PLAIN_SHARE = 0.05
REDRAW_INTERVAL_S = 0.5

# Such a line, for whoever relays what a notebook prints.
LINE = re.compile(r"[^:\n]+: \d+/\d+ \S+ after \d+ s\b")

# What is shown now, the innermost last: there a silent count says how far it is.
_shown: list[Progress] = []


def is_headless() -> bool:
    """True where a bar could not redraw itself: no terminal, and no browser behind the kernel.

    ``hml run`` sets ``HML_HEADLESS`` for the kernels it starts, which cannot know it otherwise.
    """
    if os.environ.get("HML_HEADLESS"):
        return True
    return "ipykernel" not in sys.modules and not streams.is_terminal(sys.stderr)


class Progress:
    """Counts ``total`` steps; use as a context manager.

    A silent one inside the block of one that is shown tells that how far it is: a sweep counts runs, and
    says of those that this process trains the epochs, the loss and the time left.

    Parameters
    ----------
    total : int
    description : str
    enabled : bool
        False: silent, but see above.
    initial : int
        Steps that an earlier process had done.
    unit : str
    """

    def __init__(
        self,
        total: int,
        description: str,
        *,
        enabled: bool = True,
        initial: int = 0,
        unit: str = "it",
    ) -> None:
        self.total, self.description, self.done, self.unit = total, description, initial, unit
        self.enabled = enabled
        self.plain = is_headless()
        self.note = ""
        self.within: dict[Progress, str] = {}  # silent counts inside, and how they are
        self.teller: Progress | None = None  # that this silent count tells how far it is
        self.last_drawn = 0.0
        self.unsaid = False  # steps since the last line
        self.started = self.last_line = time.monotonic()
        self.first = initial
        self.bar = None
        if enabled and not self.plain:
            self.bar = tqdm(
                total=total, desc=description, initial=initial, unit=unit, dynamic_ncols=True
            )

    def __enter__(self) -> Progress:
        if self.enabled:
            _shown.append(self)
        elif _shown:
            self.teller = _shown[-1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in _shown:
            _shown.remove(self)
        if self.teller is not None:
            self.teller.within.pop(self, None)
        if self.bar is not None:
            self.bar.close()
        elif self.enabled and kind is None and self.last_line != self.started and self.unsaid:
            self._line()

    def update(self, note: str = "") -> None:
        """One more step is done; ``note`` says how it went."""
        self.done += 1
        self.note = note
        self.unsaid = True
        if self.bar is not None:
            self.bar.set_postfix_str(self._told(), refresh=False)
            self.bar.update(1)
        elif self.enabled:
            self._line_if_due()
        elif self.teller is not None:
            self.teller._hear(self)

    def _hear(self, inside: Progress) -> None:
        """A silent count inside has gone on."""
        count = f"{inside.done}/{inside.total} {inside.unit}"
        self.within[inside] = f"{inside.description}: {count}, {inside.note}".rstrip(", ")
        self.unsaid = True
        if self.bar is None:
            self._line_if_due()
        elif time.monotonic() - self.last_drawn >= REDRAW_INTERVAL_S:
            self.last_drawn = time.monotonic()
            self.bar.set_postfix_str(self._told(), refresh=True)

    def _told(self) -> str:
        """The last note or, of what goes on inside, how far it is and about how long all will take."""
        if not self.within:
            return self.note
        first, *others = self.within.values()
        others_told = f" and {len(others)} more" if others else ""
        return f"{first}{others_told}, about {self._left():.0f} s left"

    def _left(self) -> float:
        """Seconds until the end, at the pace so far; steps count by the part of them that is done."""
        parts = [count.done / max(count.total, 1) for count in self.within]
        begun = [count.first / max(count.total, 1) for count in self.within]
        done = self.done - self.first + sum(parts) - sum(begun)
        left = self.total - self.done - sum(parts)
        return (time.monotonic() - self.started) / max(done, 1e-9) * max(left, 0.0)

    def _line_if_due(self) -> None:
        now = time.monotonic()
        if now - self.last_line >= max(PLAIN_INTERVAL_S, PLAIN_SHARE * (now - self.started)):
            self._line()

    def message(self, text: str) -> None:
        """Say something beside the count, without breaking a bar; see :func:`streams.tell`."""
        if self.bar is not None:
            with contextlib.suppress(OSError, ValueError):
                tqdm.write(text, file=sys.stderr)
        elif self.enabled:
            streams.tell(text)

    def _line(self) -> None:
        self.last_line = time.monotonic()
        self.unsaid = False
        passed = self.last_line - self.started
        told = self._told() if self.within else self.note
        left = "" if self.within else f", about {self._left():.0f} s left"
        count = f"{self.description}: {self.done}/{self.total} {self.unit}"
        streams.tell(f"{count} after {passed:.0f} s{left}. {told}".rstrip())
