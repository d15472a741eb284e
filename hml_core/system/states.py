"""States of a training on disk: tensors and plain values, whole or not there, read without unpickling."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from hml_core.errors import RunError
from hml_core.system import files


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace the file; the previous one stays until the new one is whole."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.write_atomically(path, buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """The state in a file, on the CPU.

    Raises
    ------
    OSError
        Of this machine, now: the file may be sound. Also for what is no regular file, or one of more than
        16 GiB.
    RunError
        For an archive whose members unpack to more than it holds: torch packs nothing.
    Exception
        Whatever a damaged archive makes its readers raise.
    """
    data = io.BytesIO(files.read_bytes(path, files.LARGEST_DATA))
    _require_sound(data)
    return _loaded(data)


def weights(path: Path) -> Any:
    """What somebody else's file of weights holds, on the CPU: as torch writes it, now or long ago, or
    safetensors, as of a run that kept its own.

    Raises
    ------
    Exception
        As :func:`read`; ImportError for safetensors where that is not installed.
    """
    content = files.read_bytes(path, files.LARGEST_DATA)
    if _is_safetensors(content):
        from safetensors import torch as safetensors

        return safetensors.load(content)
    data = io.BytesIO(content)
    if zipfile.is_zipfile(data):
        _require_sound(data)
    data.seek(0)
    return _loaded(data)


def _loaded(data: io.BytesIO) -> Any:
    """What torch finds; its advice, to load what may run code, is not passed on."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(data, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            "it is not a file of tensors as torch or safetensors write them, or holds other things than "
            "tensors and plain values"
        ) from error


def _is_safetensors(content: bytes) -> bool:
    """Whether a file begins as such: eight bytes with the length of a header, which is JSON."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8


def _require_sound(data: io.BytesIO) -> None:
    """Look at what torch does not: the checksums, and what the members unpack to."""
    with zipfile.ZipFile(data) as archive:
        declared = sum(member.file_size for member in archive.infolist())
        if declared > data.getbuffer().nbytes:
            raise RunError(f"it declares {declared:,} bytes and holds {data.getbuffer().nbytes:,}")
        if (broken := archive.testzip()) is not None:
            raise RunError(f"{broken} fails its checksum")
    data.seek(0)
