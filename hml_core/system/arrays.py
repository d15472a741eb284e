"""Arrays in an archive (``.npz``), read without unpickling and up to the size that is expected."""

from __future__ import annotations

import errno
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hml_core.system import files

LARGEST = (
    2**32
)  # bytes of all arrays: test logits, features and confidences have a few hundred million
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(path: Path, limit: int = LARGEST) -> dict[str, np.ndarray]:
    """Every array of an ``.npz``.

    An archive says how much its members unpack to, and a member what shape it has; a few megabytes may say
    gigabytes. Both are looked at before anything is unpacked.

    Raises
    ------
    OSError
        Of this machine; also for what is no regular file, or unpacks to more than ``limit`` bytes.
    ValueError
        For what is no archive of arrays, or where members do not hold what they declare.
    """
    try:
        with files.opened(path, limit) as stream, zipfile.ZipFile(stream) as archive:
            declared = sum(member.file_size for member in archive.infolist())
            if declared > limit:
                said = f"it unpacks to {declared:,} bytes, expected at most {limit:,}"
                raise OSError(errno.EFBIG, said, str(path))
            for member in archive.infolist():
                _require_kept(archive, member)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as stored:
                return dict(stored)
    except (OSError, ValueError, MemoryError, ImportError):
        raise
    except Exception as error:  # of zip, of the packers behind it, of the parser of a header
        raise ValueError(f"{os.path.basename(path)} is no archive of arrays: {error}") from error


def _require_kept(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse an array whose shape says another size than its member has."""
    with archive.open(member) as stream:
        version: Any = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename!r} is an array of version {version}")
        shape, _, dtype = _HEADERS[version](stream)
        header = stream.tell()
    declared = header + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or declared != member.file_size:
        raise ValueError(
            f"{member.filename!r} is declared as {dtype} of shape {shape} in {member.file_size:,} bytes"
        )
