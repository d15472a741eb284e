"""Progress: a bar in a terminal and in a notebook, plain lines where nobody watches."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

PLAIN_INTERVAL_S = 10.0


def is_headless() -> bool:
    """True where a bar could not redraw itself: no terminal, and no browser behind the kernel.

    ``hml run`` sets ``HML_HEADLESS`` for the kernels it starts, which cannot know it otherwise.
    """
    if os.environ.get("HML_HEADLESS"):
        return True
    in_kernel = "ipykernel" in sys.modules
    return not in_kernel and not sys.stderr.isatty()


class Progress:
    """Counts ``total`` steps; use as a context manager.

    Parameters
    ----------
    total : int
    description : str
    enabled : bool
        False: silent.
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
        self.unsaid = False  # steps since the last line
        self.started = self.last_line = time.monotonic()
        self.first = initial
        self.bar = None
        if enabled and not self.plain:
            self.bar = tqdm(
                total=total, desc=description, initial=initial, unit=unit, dynamic_ncols=True
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(1)
        elif self.enabled and time.monotonic() - self.last_line >= PLAIN_INTERVAL_S:
            self._line()

    def message(self, text: str) -> None:
        """Say something beside the count, without breaking a bar."""
        if self.bar is not None:
            tqdm.write(text, file=sys.stderr)
        elif self.enabled:
            print(text, flush=True)

    def _line(self) -> None:
        self.last_line = time.monotonic()
        self.unsaid = False
        passed = self.last_line - self.started
        left = passed / max(self.done - self.first, 1) * (self.total - self.done)
        print(
            f"{self.description}: {self.done}/{self.total} {self.unit} "
            f"after {passed:.0f} s, about {left:.0f} s left. {self.note}".rstrip(),
            flush=True,
        )
