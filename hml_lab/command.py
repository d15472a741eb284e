"""Where the command ``hml`` begins: an interruption while its parts are loaded is one message, too."""

from __future__ import annotations

import signal
import sys
from typing import Any


def main(**options: Any) -> None:
    """Load the command line, and hand over to it, with ``options`` for click (``prog_name``)."""
    try:
        from hml_lab.cli import main as command
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # said once
        print("Interrupted: before the command had begun.", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    command(**options)
