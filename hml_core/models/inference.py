"""Features on a CPU without what only training needs: batch norms folded into the convolutions.

In evaluation a batch norm is a fixed scale and shift for each channel, which the weights and bias of the
convolution before it can hold. What follows a convolution (adding the shortcut, ReLU) is then done by
oneDNN while the result is in the cache, where torch was built with it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from hml_core.models.cifar import CifarResNet
from hml_core.system.devices import autocast

PROBE = 8  # images that show whether a network has diverged
Features = Callable[[Tensor], Tensor]


def features_of(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> Features:
    """``model.features`` in evaluation mode, as fast as it can be had: (N, C, H, W) → float32 (N, d).

    Parameters
    ----------
    model : nn.Module
        Its weights are copied where they are folded: ask again after a training step.
    device : torch.device
    dtype : torch.dtype or None
        bfloat16 to compute in it, None for float32; see :func:`hml_core.system.devices.autocast_dtype`.
    """
    if type(model) is CifarResNet and device.type == "cpu":  # a subclass may compute otherwise
        return _Folded(model, dtype or torch.float32)

    def features(images: Tensor) -> Tensor:
        with autocast(device, dtype):
            return model.features(images).float()

    return features


class _Folded:
    """A :class:`CifarResNet` without batch norms."""

    def __init__(self, model: CifarResNet, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.first = _Convolution(model.conv1, model.bn1, dtype)
        self.blocks = [
            (
                _Convolution(block.conv1, block.bn1, dtype),
                _Convolution(block.conv2, block.bn2, dtype),
                block,
            )
            for group in (model.layer1, model.layer2, model.layer3)
            for block in group
        ]
        self.fused = None
        self.is_probed = False

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        if not self.is_probed:
            # oneDNN's ReLU turns NaN into 0: a network that has diverged would look sound.
            self.is_probed = True
            if self._features(images[:PROBE]).isfinite().all():
                self._fuse(images[:PROBE])
        return self._features(images)

    def _fuse(self, images: Tensor) -> None:
        self.fused = fused_convolution(self.dtype)
        try:
            self._features(images)
        except RuntimeError:  # torch 2.11 has no sum for maps of one pixel
            self.fused = None

    def _features(self, images: Tensor) -> Tensor:
        x = self.first(images.to(self.dtype), None, self.fused)
        for first, second, block in self.blocks:
            x = second(first(x, None, self.fused), block.shortcut(x), self.fused)
        return x.float().mean(dim=(2, 3))


class _Convolution:
    """Convolution, batch norm, perhaps a sum, and ReLU in one."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        weight, bias = fuse_conv_bn_weights(
            convolution.weight.detach(),
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight.detach(),
            norm.bias.detach(),
        )
        self.weight = weight.to(dtype, memory_format=torch.channels_last)
        self.bias = bias.detach().to(dtype)
        self.place = convolution.padding, convolution.stride, convolution.dilation, 1

    def __call__(self, x: Tensor, shortcut: Tensor | None, fused) -> Tensor:
        padding, stride, dilation, groups = self.place
        if fused is None:
            out = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            return (out if shortcut is None else out.add_(shortcut)).relu_()
        if shortcut is None:
            return fused(x, self.weight, self.bias, *self.place, "relu", [], "")
        return fused.binary(
            x, shortcut, self.weight, self.bias, *self.place, "add", 1.0, "relu", [], ""
        )


def fused_convolution(dtype: torch.dtype):
    """oneDNN's convolution with what follows it, or None where this build of torch has none for ``dtype``.

    The operator is torch's own, under a private name: Inductor compiles to it. On a processor without
    AVX512 it refuses bf16.
    """
    operators = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available():
        return None
    if dtype == torch.bfloat16 and not getattr(operators, "_is_mkldnn_bf16_supported", bool)():
        return None
    return getattr(operators, "_convolution_pointwise", None)
