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
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hml_core.models.cifar import CifarResNet

WIDTHS = (16, 32, 64)  # channels that the kernels are written for
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
        _statistics[(channels // 16,)](
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
        _normalise[(triton.cdiv(pixels, rows),)](
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
        _norm_sums[grid](dout, out, y, scale, parts, pixels, channels, rows)
        sums = _summed(parts).view(2, channels)  # gradients of bias and weight
        dy = torch.empty_like(y)
        dshortcut = torch.empty_like(y) if ctx.has_shortcut else None
        _norm_backward[grid](
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
    _moments[(len(moments),)](y, moments, pixels, channels, PIXELS[channels])
    return moments


def _convolved(x: Tensor, weight: Tensor, moments: Tensor | None, *, backward: bool) -> Tensor:
    """The convolution of x with weight (C, C, 3, 3), or with what its gradient is convolved with."""
    pixels, channels = _shape(x)
    y = torch.empty_like(x)
    _convolution[(triton.cdiv(pixels, PIXELS[channels]),)](
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
    _weight_parts[(len(parts), 3)](
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
    total = torch.empty(parts.shape[1], device=parts.device)
    _sum[(triton.cdiv(parts.shape[1], 32),)](parts, total, len(parts), parts.shape[1], CHUNK)
    return total


# Kernels: y[p, c] is channel c of pixel p, of all images. ------------------------------------------


@triton.jit
def _convolution(
    x,
    w,
    y,
    moments,
    pixels,
    height,
    width,
    BACKWARD: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
):
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    column = p % width
    row = (p // width) % height
    total = tl.zeros((P, C), dtype=tl.float32)
    for tap in range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        inside = (row + down >= 0) & (row + down < height) & (p < pixels)
        inside = inside & (column + right >= 0) & (column + right < width)
        near = p + down * width + right
        a = tl.load(x + near[:, None] * C + c[None, :], mask=inside[:, None], other=0.0)
        # w[d, tap, c] lies at (d·9 + tap)·C + c.
        if BACKWARD:  # the sum is over d, and the taps are met in reverse
            b = tl.load(w + (c[:, None] * 9 + (8 - tap)) * C + c[None, :])
        else:
            b = tl.load(w + (c[None, :] * 9 + tap) * C + c[:, None])
        total = tl.dot(a, b, total)
    rounded = total.to(y.dtype.element_ty)
    tl.store(y + p[:, None] * C + c[None, :], rounded, mask=(p < pixels)[:, None])
    if not BACKWARD:
        _store_moments(rounded.to(tl.float32), moments, p, pixels, C, P)


@triton.jit
def _store_moments(y, moments, p, pixels, C: tl.constexpr, P: tl.constexpr):
    """Sums of a part and sums of squares around its mean; what is outside is 0 in ``y`` (P, C)."""
    c = tl.arange(0, C)
    number = tl.minimum(pixels - tl.program_id(0) * P, P).to(tl.float32)
    sums = tl.sum(y, axis=0)
    apart = tl.where((p < pixels)[:, None], y - (sums / number)[None, :], 0.0)
    place = moments + tl.program_id(0) * 2 * C + c
    tl.store(place, sums)
    tl.store(place + C, tl.sum(apart * apart, axis=0))


@triton.jit
def _moments(y, moments, pixels, C: tl.constexpr, P: tl.constexpr):
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    part = tl.load(y + p[:, None] * C + c[None, :], mask=(p < pixels)[:, None], other=0.0)
    _store_moments(part.to(tl.float32), moments, p, pixels, C, P)


@triton.jit
def _statistics(
    moments,
    scale,
    running_mean,
    running_var,
    batches,
    pixels,
    parts,
    momentum,
    eps,
    C: tl.constexpr,
    P: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Mean and 1 / standard deviation of 16 channels, from their parts; the running ones follow."""
    c = tl.program_id(0) * 16 + tl.arange(0, 16)
    sums = tl.zeros((16,), dtype=tl.float32)
    for start in range(0, parts, CHUNK):
        part = start + tl.arange(0, CHUNK)
        place = moments + part[:, None] * 2 * C + c[None, :]
        sums += tl.sum(tl.load(place, mask=(part < parts)[:, None], other=0.0), axis=0)
    mean = sums / pixels
    squares = tl.zeros((16,), dtype=tl.float32)  # around the mean
    for start in range(0, parts, CHUNK):
        part = start + tl.arange(0, CHUNK)
        known = (part < parts)[:, None]
        place = moments + part[:, None] * 2 * C + c[None, :]
        number = tl.maximum(tl.minimum(pixels - part * P, P), 1).to(tl.float32)[:, None]
        apart = tl.load(place, mask=known, other=0.0) / number - mean[None, :]
        within = tl.load(place + C, mask=known, other=0.0)
        squares += tl.sum(tl.where(known, within + number * apart * apart, 0.0), axis=0)
    tl.store(scale + c, mean)
    tl.store(scale + C + c, 1 / tl.sqrt(squares / pixels + eps))
    before = tl.load(running_mean + c)
    tl.store(running_mean + c, before + momentum * (mean - before))
    before = tl.load(running_var + c)
    tl.store(running_var + c, before + momentum * (squares / (pixels - 1) - before))
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit
def _normalise(
    y, scale, weight, bias, shortcut, out, pixels, HAS_SHORTCUT: tl.constexpr, C: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    place = p[:, None] * C + c[None, :]
    known = (p < pixels)[:, None]
    factor = tl.load(scale + C + c) * tl.load(weight + c)
    shift = tl.load(bias + c) - tl.load(scale + c) * factor
    z = tl.load(y + place, mask=known, other=0.0).to(tl.float32) * factor[None, :] + shift[None, :]
    if HAS_SHORTCUT:
        z += tl.load(shortcut + place, mask=known, other=0.0).to(tl.float32)
    z = tl.where(z <= 0, 0.0, z)  # NaN stays NaN
    tl.store(out + place, z.to(out.dtype.element_ty), mask=known)


@triton.jit
def _norm_sums(dout, out, y, scale, parts, pixels, C: tl.constexpr, P: tl.constexpr):
    """Of a part: sums of the gradient before ReLU, and of its products with the normalised input."""
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    place = p[:, None] * C + c[None, :]
    known = (p < pixels)[:, None]
    passes = tl.load(out + place, mask=known, other=0.0).to(tl.float32) > 0
    d = tl.where(passes, tl.load(dout + place, mask=known, other=0.0).to(tl.float32), 0.0)
    mean, inverse = tl.load(scale + c)[None, :], tl.load(scale + C + c)[None, :]
    normed = (tl.load(y + place, mask=known, other=0.0).to(tl.float32) - mean) * inverse
    place = parts + tl.program_id(0) * 2 * C + c
    tl.store(place, tl.sum(d, axis=0))
    tl.store(place + C, tl.sum(d * normed, axis=0))


@triton.jit
def _norm_backward(
    dout, out, y, scale, weight, sums, dy, dshortcut, pixels, HAS_SHORTCUT: tl.constexpr,
    C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    place = p[:, None] * C + c[None, :]
    known = (p < pixels)[:, None]
    passes = tl.load(out + place, mask=known, other=0.0).to(tl.float32) > 0
    d = tl.where(passes, tl.load(dout + place, mask=known, other=0.0).to(tl.float32), 0.0)
    mean, inverse = tl.load(scale + c)[None, :], tl.load(scale + C + c)[None, :]
    normed = (tl.load(y + place, mask=known, other=0.0).to(tl.float32) - mean) * inverse
    level = (tl.load(sums + c) / pixels)[None, :]
    slope = (tl.load(sums + C + c) / pixels)[None, :]
    factor = inverse * tl.load(weight + c)[None, :]
    result = factor * (d - level - normed * slope)
    tl.store(dy + place, result.to(dy.dtype.element_ty), mask=known)
    if HAS_SHORTCUT:
        tl.store(dshortcut + place, d.to(dshortcut.dtype.element_ty), mask=known)


@triton.jit
def _weight_parts(x, dy, parts, pixels, height, width, each, C: tl.constexpr, P: tl.constexpr):
    """Σ_p dy[p, d] · x[p moved by the tap, c] as (d, tap, c): of a part of the pixels, a row of taps."""
    c = tl.arange(0, C)
    down = tl.program_id(1) - 1
    left = tl.zeros((C, C), dtype=tl.float32)
    middle = tl.zeros((C, C), dtype=tl.float32)
    right = tl.zeros((C, C), dtype=tl.float32)
    for tile in range(each):
        p = (tl.program_id(0) * each + tile) * P + tl.arange(0, P)
        column = p % width
        row = (p // width) % height
        inside = (row + down >= 0) & (row + down < height) & (p < pixels)
        d = tl.load(dy + p[:, None] * C + c[None, :], mask=inside[:, None], other=0.0)
        d = tl.trans(d)
        near = x + (p + down * width)[:, None] * C + c[None, :]
        a = tl.load(near, mask=inside[:, None], other=0.0)
        middle = tl.dot(d, a, middle)
        a = tl.load(near - C, mask=(inside & (column > 0))[:, None], other=0.0)
        left = tl.dot(d, a, left)
        a = tl.load(near + C, mask=(inside & (column < width - 1))[:, None], other=0.0)
        right = tl.dot(d, a, right)
    place = (
        parts + tl.program_id(0) * 9 * C * C + (c[:, None] * 9 + 3 * (down + 1)) * C + c[None, :]
    )
    tl.store(place, left)
    tl.store(place + C, middle)
    tl.store(place + 2 * C, right)


@triton.jit
def _sum(parts, total, number, length, CHUNK: tl.constexpr):
    column = tl.program_id(0) * 32 + tl.arange(0, 32)
    known = column < length
    result = tl.zeros((32,), dtype=tl.float32)
    for start in range(0, number, CHUNK):
        part = start + tl.arange(0, CHUNK)
        place = parts + part[:, None] * length + column[None, :]
        valid = (part < number)[:, None] & known[None, :]
        result += tl.sum(tl.load(place, mask=valid, other=0.0), axis=0)
    tl.store(total + column, result, mask=known)
