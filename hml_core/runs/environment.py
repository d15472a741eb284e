"""What a result depends on besides its config: versions, device, git commit."""

from __future__ import annotations

from typing import Any

import torch

from hml_core.system import devices, provenance


def describe(
    device: torch.device, precision: torch.dtype | None, processes: int = 1
) -> dict[str, Any]:
    """The record that goes beside a run."""
    return {
        "versions": provenance.versions(),
        "device": devices.describe(device),
        "device_type": device.type,
        "precision": "float32" if precision is None else "bf16 autocast",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "git_commit": provenance.git_commit(),
    }
