"""Training of a small residual network on a GPU by kernels of its own, written in Triton.

With 16 to 64 channels a convolution is little work, and the libraries' kernels are made for much more: a
step of ResNet-32 is several hundred of them, most of which wait for memory or for the one before. Here a
layer is two kernels forward: the convolution with the statistics of what it gives, and normalisation,
the shortcut's sum and ReLU. Backward it is two that wait for each other: the gradient of the input, with
the sums that the batch norm before it needs, and that of batch norm and ReLU. For the gradients of the
weights nothing waits; in a captured step they go beside the rest. What is computed is the same, rounded
at fewer places. Nothing is added up in an order that could change: a repeat has the same bits.

Activations are (N, H, W, C), so that a pixel is a row of C numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hml_core.models import kernels
from hml_core.models.cifar import BasicBlock, CifarResNet
from hml_core.system import devices

# Pixels of a program, by the number of channels: of a convolution, and of what only passes over them.
PIXELS, ROWS = {16: 512, 32: 256, 64: 64}, {16: 512, 32: 128, 64: 64}
# Parts of all pixels whose weight gradients are summed apart, and the pixels that one takes at a time.
PARTS, TILE = {16: 128, 32: 128, 64: 32}, {16: 128, 32: 32, 64: 64}
LEAST_CHANNELS = 16  # of a matrix product
MOST_ELEMENTS = 2**31  # of a tensor: they are numbered in 32 bits
CHUNK = 128  # partial sums of a weight's gradient that are added at a time
# What only passes over the pixels first adds up sums of parts, in each program: so many at a time, of all
# channels, and by few programs, each of which passes over several tiles of many pixels.
SUMS, PROGRAMS = 4096, 256


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
        layers = [(model.conv1, model.bn1)]
        for block in self.blocks:
            layers += [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        weights = [convolution.weight.detach() for convolution, _ in layers]
        self.weights = weights  # float32, as they are updated
        self.rounded = [_lying(weight.to(dtype, copy=True)) for weight in weights]
        self.layers = [
            _Layer(convolution, norm, rounded)
            for (convolution, norm), rounded in zip(layers, self.rounded, strict=True)
        ]
        self.parameters = [
            tensor
            for convolution, norm in layers
            for tensor in (convolution.weight, norm.weight, norm.bias)
        ]
        self.beside = devices.Beside(weights[0].device)

    def __call__(self, images: Tensor) -> Tensor:
        model = self.model
        elements = images.numel() // images.shape[1] * model.conv1.out_channels
        # Where only the classifier moves, the model is not in training.
        if not model.training or images.requires_grad or elements >= MOST_ELEMENTS:
            return model.features(images)
        torch._foreach_copy_(self.rounded, self.weights)
        return _Features.apply(images, self, *self.parameters)


def works(device: torch.device) -> bool:
    """Build and run one kernel; whatever that raises is raised."""
    parts = torch.ones(3, 5, device=device)
    total = torch.empty(5, device=device)
    _sum_parts(parts, total)
    return bool((total == 3).all())


class _Kept(NamedTuple):
    """What a layer leaves for its gradients: (N, H, W, C) each, but for (2, C) mean and 1 / deviation."""

    x: Tensor
    y: Tensor
    scale: Tensor
    out: Tensor


class _Features(torch.autograd.Function):
    """All layers at once, as the gradients of neighbours share kernels."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, fused: FusedFeatures, *_: Tensor) -> Tensor:
        x = images.permute(0, 2, 3, 1).contiguous()
        kept = [fused.layers[0].forward(x)]
        for block, first, second in _by_block(fused):
            x = kept[-1].out
            kept.append(first.forward(x))
            kept.append(second.forward(kept[-1].out, x, block))
        ctx.fused, ctx.kept = fused, kept
        return kept[-1].out.flatten(1, 2).mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dfeatures: Tensor) -> tuple[Tensor | None, ...]:
        fused, kept = ctx.fused, ctx.kept
        wanted = ctx.needs_input_grad[2::3]
        # Of each layer, the last one first.
        gradients: list[tuple[Tensor | None, Tensor, Tensor]] = []

        with fused.beside() as beside:

            def through_norm(layer: _Layer, dout: Tensor, parts: Tensor, keeps: bool) -> Tensor:
                """Of the layer whose number comes next: the gradient of its convolution's result."""
                number = len(kept) - 1 - len(gradients)
                dy, sums = layer.norm_gradient(kept[number], dout, parts, keeps)
                dw = None
                if wanted[number]:
                    dw = torch.empty_like(layer.rounded, dtype=torch.float32)
                    beside(layer.weight_gradient, kept[number].x, dy, dw)
                gradients.append((dw, sums[1], sums[0]))
                return dy

            dout, parts = fused.layers[-1].pool_gradient(kept[-1], dfeatures)
            for number, (block, first, second) in reversed(list(enumerate(_by_block(fused)))):
                before, of_first = kept[2 * number], kept[2 * number + 1]
                dy = through_norm(second, dout, parts, True)
                dy = through_norm(first, *second.gradient(dy, of_first), False)
                dout, parts = first.gradient(dy, before, dout, block)
            through_norm(fused.layers[0], dout, parts, False)
        return None, None, *(one for of_layer in reversed(gradients) for one in of_layer)


def _by_block(fused: FusedFeatures) -> Iterator[tuple[BasicBlock, _Layer, _Layer]]:
    return zip(fused.blocks, fused.layers[1::2], fused.layers[2::2], strict=True)


class _Layer:
    """A 3×3 convolution with padding 1, its batch norm and ReLU."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, rounded: Tensor) -> None:
        self.norm, self.rounded = norm, rounded
        self.stride = convolution.stride[0]
        self.given, self.channels = convolution.in_channels, convolution.out_channels

    def forward(
        self, x: Tensor, shortcut: Tensor | None = None, block: BasicBlock | None = None
    ) -> _Kept:
        """(N, H, W, C) → what it leaves; the shortcut is that of the block, if any."""
        number, height, width, _ = x.shape
        size = -(-height // self.stride), -(-width // self.stride)
        channels, norm = self.channels, self.norm
        y = x.new_empty(number, *size, channels, dtype=self.rounded.dtype)
        parts = _parts(y)
        kernels.convolution[(len(parts),)](
            x,
            self.rounded,
            y,
            parts,
            y.numel() // channels,
            *size,
            height,
            width,
            self.stride,
            self.given,
            max(self.given, LEAST_CHANNELS),
            channels,
            PIXELS[channels],
        )
        out = torch.empty_like(y)
        scale = torch.empty(2, channels, device=x.device)
        new = 0 if block is None else block.new_channels
        programs, tiles = _passes(y)
        kernels.normalise[(programs,)](
            y,
            parts,
            scale,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
            norm.momentum,
            norm.eps,
            shortcut,
            out,
            len(parts),
            y.numel() // channels,
            tiles,
            *size,
            *(size if shortcut is None else shortcut.shape[1:3]),
            1 if block is None else block.stride,
            new // 2,
            channels - new,
            shortcut is not None,
            PIXELS[channels],
            channels,
            ROWS[channels],
            _at_a_time(parts),
        )
        return _Kept(x, y, scale, out)

    def pool_gradient(self, kept: _Kept, dfeatures: Tensor) -> tuple[Tensor, Tensor]:
        """From the gradient of the means (N, C) that of ``kept.out``, and its sums (parts, 2, C)."""
        dout, parts = torch.empty_like(kept.out), _parts(kept.out)
        pixels = dout.numel() // self.channels
        kernels.pool_gradient[(len(parts),)](
            dfeatures.contiguous(),
            dout,
            kept.out,
            kept.y,
            kept.scale,
            parts,
            pixels,
            pixels // len(dout),
            self.channels,
            PIXELS[self.channels],
        )
        return dout, parts

    def norm_gradient(
        self, kept: _Kept, dout: Tensor, parts: Tensor, keeps: bool
    ) -> tuple[Tensor, Tensor]:
        """The gradient of ``kept.y``, and those of bias and weight (2, C).

        ``keeps`` makes of ``dout`` the gradient before ReLU, in its place.
        """
        dy, sums = torch.empty_like(kept.y), torch.empty_like(kept.scale)
        programs, tiles = _passes(dy)
        kernels.norm_backward[(programs,)](
            dout,
            kept.out,
            kept.y,
            kept.scale,
            self.norm.weight,
            parts,
            sums,
            dy,
            len(parts),
            dy.numel() // self.channels,
            tiles,
            keeps,
            self.channels,
            ROWS[self.channels],
            _at_a_time(parts),
        )
        return dy, sums

    def gradient(
        self,
        dy: Tensor,
        before: _Kept,
        beyond: Tensor | None = None,
        block: BasicBlock | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The gradient of ``before.out``, which the convolution took, and its sums (parts, 2, C).

        ``beyond`` (N, H', W', C') is that of the block's result before ReLU: it comes by the shortcut.
        """
        dx, parts = torch.empty_like(before.out), _parts(before.out)
        kernels.gradient[(len(parts),)](
            dy,
            self.rounded,
            dx,
            beyond,
            before.out,
            before.y,
            before.scale,
            parts,
            dx.numel() // self.given,
            *dx.shape[1:3],
            *dy.shape[1:3],
            self.stride,
            0 if block is None else block.new_channels // 2,
            beyond is not None,
            self.channels,
            self.given,
            PIXELS[self.given],
        )
        return dx, parts

    def weight_gradient(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        """Into float32 ``dw`` (C', C, 3, 3), channels-last, from x and dy (N, H, W, C)."""
        channels = self.channels
        pixels = dy.numel() // channels
        parts = torch.empty(PARTS[channels], dw.numel(), device=x.device)
        kernels.weight_parts[(len(parts), 3)](
            x,
            dy,
            parts,
            pixels,
            *dy.shape[1:3],
            *x.shape[1:3],
            triton.cdiv(triton.cdiv(pixels, len(parts)), TILE[channels]),
            self.stride,
            self.given,
            max(self.given, LEAST_CHANNELS),
            channels,
            TILE[channels],
        )
        _sum_parts(parts, dw)


def _parts(x: Tensor) -> Tensor:
    """Room for two sums of each part of the pixels of x (N, H, W, C): (parts, 2, C)."""
    channels = x.shape[-1]
    parts = triton.cdiv(x.numel() // channels, PIXELS[channels])
    return torch.empty(parts, 2, channels, device=x.device)


def _at_a_time(parts: Tensor) -> int:
    """How many of (parts, 2, C) a program adds up at a time, a power of two."""
    return min(triton.next_power_of_2(len(parts)), SUMS // parts.shape[-1])


def _passes(x: Tensor) -> tuple[int, int]:
    """Programs, and tiles of each, that pass over the pixels of x (N, H, W, C)."""
    tiles = triton.cdiv(x.numel() // x.shape[-1], ROWS[x.shape[-1]])
    each = triton.cdiv(tiles, PROGRAMS)
    return triton.cdiv(tiles, each), each


def _lying(x: Tensor) -> Tensor:
    """The tensor channels-last."""
    return x.contiguous(memory_format=torch.channels_last)


def _sum_parts(parts: Tensor, total: Tensor) -> None:
    """Into ``total``, n numbers, the sum over the first dimension (parts, n), in an order that does not
    change."""
    number, length = parts.shape
    kernels.sum_of_parts[(triton.cdiv(length, 32),)](parts, total, number, length, CHUNK)
