"""Features in training: as the network computes them, compiled, or on a GPU by kernels of our own."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hml_core.errors import RunError
from hml_core.models.cifar import CifarResNet
from hml_core.system import scratch

Features = Callable[[Tensor], Tensor]


def features_of(
    model: nn.Module, device: torch.device, dtype: torch.dtype | None, *, compiled: bool = False
) -> Features:
    """``model.features`` in training, as fast as it can be had: (N, C, H, W) → (N, d), under autocast.

    Parameters
    ----------
    model : nn.Module
    device : torch.device
    dtype : torch.dtype or None
        What autocast is set to; see :func:`hml_core.system.devices.autocast_dtype`.
    compiled : bool
        By torch.compile.

    Raises
    ------
    RunError
        Where that has no compiler, or no folder from which what it makes is executed.
    """
    if compiled:
        require_compiler()
        # What lies there is compiled in: nothing is where others may write.
        headers = scratch.keeps_headers_private()
        return torch.compile(model.features, options={"cpp_cache_precompile_headers": headers})
    is_bf16 = device.type == "cuda" and dtype == torch.bfloat16
    if is_bf16 and type(model) is CifarResNet and has_triton(device):  # a subclass may differ
        from hml_core.models.fused import FusedFeatures

        return FusedFeatures(model, dtype)
    return model.features


def require_compiler() -> None:
    """Refuse to compile where torch.compile would fail in the first step.

    Raises
    ------
    RunError
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(next(iter(compiler.split()))) is None:
        raise RunError(
            f"`compile` needs a C++ compiler, and there is no {compiler!r}: expected one in PATH, `CXX` "
            "to name it, or a run without `compile`."
        )
    scratch.keep_compiled_code_private()
    place = os.environ.get(scratch.TORCH_CACHE) or tempfile.gettempdir()
    if hasattr(os, "statvfs") and os.statvfs(place).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise RunError(
            f"`compile` makes libraries below {place!r}, where nothing is executed (noexec): expected "
            f"`TMPDIR` or `{scratch.TORCH_CACHE}` to name another folder, or a run without `compile`."
        )


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether kernels can be built and run here; where they cannot, a warning says why."""
    if importlib.util.find_spec("triton") is None:
        return False  # torch was built without
    try:
        from hml_core.models import fused

        return fused.works(device)
    except Exception as error:  # whatever a compiler or a driver raises
        warnings.warn(
            f"Kernels cannot be built here ({type(error).__name__}: {error}): the libraries' are used, "
            "which is slower and gives the same. Triton needs a C compiler.",
            stacklevel=2,
        )
        return False
