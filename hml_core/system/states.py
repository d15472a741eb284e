"""States of a training on disk: tensors and plain values, whole or not there, read without unpickling."""

from __future__ import annotations

import io
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
        Of this machine, now: the file may be sound.
    Exception
        Whatever a damaged archive makes its readers raise.
    """
    data = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(data) as archive:  # torch.load does not look at the checksums
        if (broken := archive.testzip()) is not None:
            raise RunError(f"{broken} fails its checksum")
    data.seek(0)
    return torch.load(data, map_location="cpu", weights_only=True)
