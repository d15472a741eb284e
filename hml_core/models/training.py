"""Features in training: as the network computes them, compiled, or on a GPU by kernels of our own."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

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
    """
    if compiled:
        # What lies there is compiled in: nothing is where others may write.
        headers = scratch.keeps_headers_private()
        return torch.compile(model.features, options={"cpp_cache_precompile_headers": headers})
    is_bf16 = device.type == "cuda" and dtype == torch.bfloat16
    if is_bf16 and isinstance(model, CifarResNet) and has_triton(device):
        from hml_core.models.fused import FusedFeatures

        return FusedFeatures(model, dtype)
    return model.features


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
