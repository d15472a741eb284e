"""Downloads: servers that fall silent or are none, and what lies where a file goes."""

from __future__ import annotations

import contextlib
import http.client
import socket
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from hml_core.system import files

SILENCE_S = 30.0  # of a server, or a proxy: then it counts as not reachable
# What urllib raises where a server cannot be reached, or is none; an address or a proxy's that is none.
UNREACHABLE = (urllib.error.URLError, http.client.HTTPException, OSError, UnicodeError)


@contextlib.contextmanager
def patience(seconds: float = SILENCE_S) -> Iterator[None]:
    """Inside the block, whoever waits so long for a byte has waited in vain (a TimeoutError, an OSError).

    urllib by itself waits for ever, and neither torchvision nor torch.hub gives it a limit.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def require_regular(path: Path, limit: int) -> None:
    """Refuse what lies where a download goes or went, and is no file of such a size; nothing may be there.

    Raises
    ------
    OSError
        With the reason and the file's name.
    """
    with contextlib.suppress(FileNotFoundError):
        files.opened(path, limit).close()
