"""Downloads: servers that fall silent, give without end or are none, and what lies where a file goes."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import threading
import traceback
import types
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hml_core.errors import RunError
from hml_core.system import files

SILENCE_S = 30.0  # of a server, or a proxy: then it counts as not reachable
# What urllib raises where a server cannot be reached, or is none; an address or a proxy's that is none.
UNREACHABLE = (urllib.error.URLError, http.client.HTTPException, OSError, UnicodeError)


# What the system says where a file cannot be written: no server is to blame.
_OF_THE_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
}  # fmt: skip
LARGEST_NOTICE = 2**20  # bytes that stand beside a redirect or an error
LONGEST_REASON = 500  # characters: a server may say anything


@contextlib.contextmanager
def patience(seconds: float = SILENCE_S, *, limit: int = files.LARGEST_DATA) -> Iterator[None]:
    """Inside the block, whoever waits so long for a byte has waited in vain (a TimeoutError, an OSError).

    urllib by itself waits for ever and takes whatever comes, and neither torchvision nor torch.hub gives
    it a limit.

    Raises
    ------
    RunError
        Within, from a server that gives more than ``limit`` bytes.
    """
    block = _Block(seconds, limit)
    with _lock:
        if not _open:
            _outside[:] = [socket.getdefaulttimeout(), urllib.request._opener]
        _open.append(block)
        _apply()
    try:
        yield
    finally:
        with _lock:  # of several threads, whichever ends first
            _open.remove(block)
            _apply()


@dataclass(eq=False)
class _Block:
    """One of :func:`patience`."""

    seconds: float
    limit: int


_lock = threading.Lock()  # urllib and socket keep what is set for the whole process
_open: list[_Block] = []  # in whichever thread; the last one holds
_outside: list[Any] = [None, None]  # timeout and opener, as they were before the first


def _apply() -> None:
    """Set what the last block wants, or what was there before the first."""
    timeout, opener = _outside
    limited = opener or urllib.request._opener or urllib.request.build_opener()
    handler = next((one for one in limited.handlers if isinstance(one, _Limited)), None)
    if handler is None:  # a program's own, such as for a proxy: none can be taken away again
        limited.add_handler(handler := _Limited(None))
    handler.limit = _open[-1].limit if _open else None
    urllib.request.install_opener(limited if _open else opener)
    socket.setdefaulttimeout(_open[-1].seconds if _open else timeout)


class _Limited(urllib.request.BaseHandler):
    """Refuses what is larger than the limit, whatever was said of its size; None: nothing."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if (limit := self.limit) is None:
            return response
        is_file = 200 <= response.status < 300  # what urllib gives to who asked
        limit = limit if is_file else min(limit, LARGEST_NOTICE)
        length = getattr(response, "length", None)
        if is_file and (length or 0) > limit:
            raise _too_much(request.full_url, limit)
        read, received = response.read, 0

        def read_on(amt: int | None = None) -> bytes:
            nonlocal received
            # (Who asks for all, as urllib does beside a redirect, would hold all before it is counted.)
            most, is_all = limit - received + 1, amt is None or amt < 0
            if is_all and length is not None and length < most:
                data = read()  # an error where it ends before
            else:
                data = read(most if is_all else min(amt, most))
            received += len(data)
            if received > limit:
                raise _too_much(request.full_url, limit)
            return data

        response.read = read_on
        return response

    https_response = http_response


def _too_much(address: str, limit: int) -> RunError:
    return RunError(f"{address} gives more than {limit:,} bytes: that is not the published file.")


def first(error: BaseException, asking: types.FunctionType) -> BaseException:
    """Of the errors that a function met, the first: it may have tried again, and raised what came then.

    (torchvision asks again without encryption, whatever went wrong: a full disk, too.)
    """
    met, found = [error], error
    while (behind := met[-1].__context__) is not None and behind not in met:
        met.append(behind)
    for one in met:
        frames = (frame for frame, _ in traceback.walk_tb(one.__traceback__))
        if any(frame.f_code is asking.__code__ for frame in frames):  # not one of what it called
            found = one
    return found


def is_of_the_disk(error: BaseException) -> bool:
    """Whether it is no server's fault but says that a file cannot be written."""
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK


def reason(error: BaseException) -> str:
    """What an error says, of bounded length and without a full stop."""
    said = str(error).rstrip(".")
    return said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]} …"


def require_regular(path: Path, limit: int) -> None:
    """Refuse what lies where a download goes or went, and is no file of such a size; nothing may be there.

    Raises
    ------
    OSError
        With the reason and the file's name.
    """
    with contextlib.suppress(FileNotFoundError):
        files.opened(path, limit).close()
