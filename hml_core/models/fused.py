"""Training of a small residual network on a GPU by kernels of its own, written in Triton.

With 16 to 64 channels a convolution is little work, and the libraries' kernels are made for much more: a
step of ResNet-32 is several hundred of them, most of which wait for memory. Here a convolution leaves the
moments that the batch norm after it needs, and normalisation, the shortcut's sum and ReLU are one pass
over the pixels, forward and backward. What is computed is the same, rounded at fewer places. Nothing is
added up in an order that could change: a repeat has the same bits.

Images and activations (N, C, H, W) lie channels-last, so that a pixel is a row of C numbers.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hml_core.models import kernels
from hml_core.models.cifar import CifarResNet

# Pixels of a program, by the number of channels: of a convolution, and of what only passes over them.
PIXELS, ROWS = {16: 256, 32: 128, 64: 64}, {16: 512, 32: 128, 64: 64}
# Parts of all pixels whose weight gradients are summed apart, and the pixels that one takes at a time.
PARTS, TILE = {16: 128, 32: 128, 64: 32}, {16: 128, 32: 32, 64: 64}
MOST_ELEMENTS = 2**31  # of a tensor: they are numbered in 32 bits
CHUNK = 128  # partial sums that are added at a time


class FusedFeatures:
    """``model.features`` of a :class:`CifarResNet` in training: images (N, C, H, W) → (N, 64).

    Called under autocast to ``dtype``. Running statistics move as those of ``nn.BatchNorm2d`` do.

    Parameters
    ----------
    model : CifarResNet
        Its weights are read where they are at each call; layers must not be replaced.
    dtype : torch.dtype
        Of what lies between the layers.
    """

    def __init__(self, model: CifarResNet, dtype: torch.dtype) -> None:
        self.model = model
        self.blocks = [*model.layer1, *model.layer2, *model.layer3]
        layers = [layer for block in self.blocks for layer in (block.conv1, block.conv2)]
        layers = [layer for layer in layers if layer.in_channels == layer.out_channels]
        self.weights = [layer.weight.detach() for layer in layers]  # float32, as they are updated
        self.rounded = [_lying(weight.to(dtype, copy=True)) for weight in self.weights]
        self.rounded_of = dict(zip(layers, self.rounded, strict=True))

    def __call__(self, images: Tensor) -> Tensor:
        model = self.model
        elements = images.numel() // images.shape[1] * model.conv1.out_channels
        if (
            not model.training or elements >= MOST_ELEMENTS
        ):  # where only the classifier moves, it is not
            return model.features(images)
        torch._foreach_copy_(self.rounded, self.weights)
        x = _norm_relu(*self._convolved(images, model.conv1), model.bn1)
        for block in self.blocks:
            out = _norm_relu(*self._convolved(x, block.conv1), block.bn1)
            shortcut = _Shortcut.apply(x, block.stride, block.new_channels)
            x = _norm_relu(*self._convolved(out, block.conv2), block.bn2, shortcut)
        return x.mean(dim=(2, 3))

    def _convolved(self, x: Tensor, layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """A convolution, (N, C, H, W) → (N, D, H', W'), and the moments (parts, 2, D) of what it gives."""
        if layer in self.rounded_of:
            return _Convolution.apply(x, layer.weight, self.rounded_of[layer])
        y = _lying(layer(x))  # the library's, under autocast
        return y, _moments_of(y.detach())


def works(device: torch.device) -> bool:
    """Build and run one kernel; whatever that raises is raised."""
    parts = torch.ones(3, 5, device=device)
    return bool((_summed(parts) == 3).all())


def _norm_relu(
    y: Tensor, moments: Tensor, norm: nn.BatchNorm2d, shortcut: Tensor | None = None
) -> Tensor:
    """ReLU of the batch norm of ``y`` (N, C, H, W), plus a shortcut; moves the running statistics."""
    return _NormReLU.apply(y, norm.weight, norm.bias, shortcut, moments, norm)


class _Convolution(torch.autograd.Function):
    """3×3, stride 1, padding 1, as many channels as before."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor]:
        x = _lying(x)
        ctx.save_for_backward(x, rounded)
        ctx.set_materialize_grads(False)  # none comes for the moments
        moments = _room_for_moments(x)
        y = _convolved(x, rounded, moments, backward=False)
        ctx.mark_non_differentiable(moments)
        return y, moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        x, rounded = ctx.saved_tensors
        dy, dx, dw = _lying(dy), None, None
        if ctx.needs_input_grad[0]:
            dx = _convolved(dy, rounded, None, backward=True)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(x, dy)
        return dx, dw, None


class _NormReLU(torch.autograd.Function):
    """Batch norm in training, the sum with a shortcut, and ReLU."""

    @staticmethod
    def forward(ctx: Any, y, weight, bias, shortcut, moments, norm) -> Tensor:
        y = _lying(y)
        pixels, channels = _shape(y)
        scale = torch.empty(2, channels, device=y.device)  # mean, 1 / standard deviation
        kernels.statistics[(channels // 16,)](
            moments,
            scale,
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
            pixels,
            len(moments),
            norm.momentum,
            norm.eps,
            channels,
            PIXELS[channels],
            CHUNK,
        )
        shortcut = None if shortcut is None else _lying(shortcut)
        out = torch.empty_like(y)
        rows = ROWS[channels]
        kernels.normalise[(triton.cdiv(pixels, rows),)](
            y, scale, weight, bias, shortcut, out, pixels, shortcut is not None, channels, rows
        )
        ctx.save_for_backward(y, out, scale, weight)
        ctx.has_shortcut = shortcut is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        y, out, scale, weight = ctx.saved_tensors
        dout = _lying(dout)
        pixels, channels = _shape(y)
        rows = ROWS[channels]
        grid = (triton.cdiv(pixels, rows),)
        parts = torch.empty(grid[0], 2 * channels, device=y.device)
        kernels.norm_sums[grid](dout, out, y, scale, parts, pixels, channels, rows)
        sums = _summed(parts).view(2, channels)  # gradients of bias and weight
        dy = torch.empty_like(y)
        dshortcut = torch.empty_like(y) if ctx.has_shortcut else None
        kernels.norm_backward[grid](
            dout,
            out,
            y,
            scale,
            weight,
            sums,
            dy,
            dshortcut,
            pixels,
            ctx.has_shortcut,
            channels,
            rows,
        )
        return dy, sums[1], sums[0], dshortcut, None, None


class _Shortcut(torch.autograd.Function):
    """Every ``stride``-th pixel, and zeros for the channels that are new (option A)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, new: int) -> Tensor:
        ctx.shape, ctx.stride, ctx.new = x.shape, stride, new
        if stride == 1 and not new:
            return x.view_as(x)
        x = x[:, :, ::stride, ::stride]
        number, channels, height, width = x.shape
        out = _zeros((number, channels + new, height, width), x)
        out[:, new // 2 : new // 2 + channels] = x
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.stride == 1 and not ctx.new:
            return dout, None, None
        dx, before = _zeros(ctx.shape, dout), ctx.new // 2
        dx[:, :, :: ctx.stride, :: ctx.stride] = dout[:, before : before + ctx.shape[1]]
        return dx, None, None


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros (N, C, H, W) that lie channels-last."""
    empty = torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
    return empty.zero_()


def _lying(x: Tensor) -> Tensor:
    """The tensor channels-last."""
    return x.contiguous(memory_format=torch.channels_last)


def _shape(x: Tensor) -> tuple[int, int]:
    """Pixels and channels."""
    return x.numel() // x.shape[1], x.shape[1]


def _room_for_moments(x: Tensor) -> Tensor:
    pixels, channels = _shape(x)
    return torch.empty(triton.cdiv(pixels, PIXELS[channels]), 2, channels, device=x.device)


def _moments_of(y: Tensor) -> Tensor:
    """Sums and centred sums of squares of the parts of y (N, C, H, W): (parts, 2, C)."""
    pixels, channels = _shape(y)
    moments = _room_for_moments(y)
    kernels.moments[(len(moments),)](y, moments, pixels, channels, PIXELS[channels])
    return moments


def _convolved(x: Tensor, weight: Tensor, moments: Tensor | None, *, backward: bool) -> Tensor:
    """The convolution of x with weight (C, C, 3, 3), or with what its gradient is convolved with."""
    pixels, channels = _shape(x)
    y = torch.empty_like(x)
    kernels.convolution[(triton.cdiv(pixels, PIXELS[channels]),)](
        x,
        weight,
        y,
        moments,
        pixels,
        x.shape[2],
        x.shape[3],
        backward,
        channels,
        PIXELS[channels],
    )
    return y


def _weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """float32 (C, C, 3, 3), channels-last, from x and dy (N, C, H, W)."""
    pixels, channels = _shape(x)
    parts = torch.empty(PARTS[channels], channels * 9 * channels, device=x.device)
    each = triton.cdiv(triton.cdiv(pixels, len(parts)), TILE[channels])
    kernels.weight_parts[(len(parts), 3)](
        x,
        dy,
        parts,
        pixels,
        x.shape[2],
        x.shape[3],
        each,
        channels,
        TILE[channels],
    )
    return _summed(parts).view(channels, 3, 3, channels).permute(0, 3, 1, 2)


def _summed(parts: Tensor) -> Tensor:
    """The sum over the first dimension (parts, n) → (n,), in an order that does not change."""
    number, length = parts.shape
    total = torch.empty(length, device=parts.device)
    kernels.sum_of_parts[(triton.cdiv(length, 32),)](parts, total, number, length, CHUNK)
    return total
