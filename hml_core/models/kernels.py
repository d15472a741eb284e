"""Kernels of a small residual network in training, in Triton: what each reads, adds up and writes.

``x[p, c]`` is channel c of pixel p, the pixels of all images in a row; a program has P of them. They are
launched by :mod:`hml_core.models.fused`, which says what they are for.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def convolution(
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
def moments(y, moments, pixels, C: tl.constexpr, P: tl.constexpr):
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    part = tl.load(y + p[:, None] * C + c[None, :], mask=(p < pixels)[:, None], other=0.0)
    _store_moments(part.to(tl.float32), moments, p, pixels, C, P)


@triton.jit
def statistics(
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
def normalise(
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
def _before_relu(dout, out, y, scale, place, known, C: tl.constexpr):
    """The gradient before ReLU and the normalised input (P, C), and 1 / standard deviation (1, C)."""
    c = tl.arange(0, C)
    passes = tl.load(out + place, mask=known, other=0.0).to(tl.float32) > 0
    d = tl.where(passes, tl.load(dout + place, mask=known, other=0.0).to(tl.float32), 0.0)
    mean, inverse = tl.load(scale + c)[None, :], tl.load(scale + C + c)[None, :]
    normed = (tl.load(y + place, mask=known, other=0.0).to(tl.float32) - mean) * inverse
    return d, normed, inverse


@triton.jit
def norm_sums(dout, out, y, scale, parts, pixels, C: tl.constexpr, P: tl.constexpr):
    """Of a part: sums of the gradient before ReLU, and of its products with the normalised input."""
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    place = p[:, None] * C + c[None, :]
    known = (p < pixels)[:, None]
    d, normed, _ = _before_relu(dout, out, y, scale, place, known, C)
    place = parts + tl.program_id(0) * 2 * C + c
    tl.store(place, tl.sum(d, axis=0))
    tl.store(place + C, tl.sum(d * normed, axis=0))


@triton.jit
def norm_backward(
    dout, out, y, scale, weight, sums, dy, dshortcut, pixels, HAS_SHORTCUT: tl.constexpr,
    C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    place = p[:, None] * C + c[None, :]
    known = (p < pixels)[:, None]
    d, normed, inverse = _before_relu(dout, out, y, scale, place, known, C)
    level = (tl.load(sums + c) / pixels)[None, :]
    slope = (tl.load(sums + C + c) / pixels)[None, :]
    factor = inverse * tl.load(weight + c)[None, :]
    result = factor * (d - level - normed * slope)
    tl.store(dy + place, result.to(dy.dtype.element_ty), mask=known)
    if HAS_SHORTCUT:
        tl.store(dshortcut + place, d.to(dshortcut.dtype.element_ty), mask=known)


@triton.jit
def weight_parts(x, dy, parts, pixels, height, width, each, C: tl.constexpr, P: tl.constexpr):
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
def sum_of_parts(parts, total, number, length, CHUNK: tl.constexpr):
    column = tl.program_id(0) * 32 + tl.arange(0, 32)
    known = column < length
    result = tl.zeros((32,), dtype=tl.float32)
    for start in range(0, number, CHUNK):
        part = start + tl.arange(0, CHUNK)
        place = parts + part[:, None] * length + column[None, :]
        valid = (part < number)[:, None] & known[None, :]
        result += tl.sum(tl.load(place, mask=valid, other=0.0), axis=0)
    tl.store(total + column, result, mask=known)
