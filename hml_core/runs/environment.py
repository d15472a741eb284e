"""What a result depends on besides its config: versions, device, git commit."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hml_core import __version__
from hml_core.system import devices

CODE = ("hml_core", "data_prep")
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "scipy", "statsmodels")


def versions() -> dict[str, str]:
    """Versions of Python, this package and the packages that results depend on."""
    found = {"python": platform.python_version(), "hml-core": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """Commit of this package's checkout, with "-dirty" where its code differs from it; else None.

    Results are tracked, too, and change while they are made: they do not count.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str | None:
    """Output of git in this package's folder, or None where it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def describe(
    device: torch.device, precision: torch.dtype | None, processes: int = 1
) -> dict[str, Any]:
    """The record that goes beside a run."""
    return {
        "versions": versions(),
        "device": devices.describe(device),
        "device_type": device.type,
        "precision": "float32" if precision is None else "bf16 autocast",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "git_commit": git_commit(),
    }
