"""Kernels of a small residual network in training, in Triton: what each reads, adds up and writes.

``x[p, c]`` is channel c of pixel p, the pixels of all images in a row; a program has P of them. Sums over
all pixels are left as those of the parts of a kernel's programs, and every program of the next kernel adds
these up for itself, in their order: to wait for one that does it takes longer. They are launched by
:mod:`hml_core.models.fused`, which says what they are for.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def convolution(
    x,
    w,
    y,
    parts,
    pixels,
    height,
    width,
    x_height,
    x_width,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
):
    """3×3, padding 1, of CHANNELS ≤ K; of ``y``, sums of a part and sums of squares around its mean."""
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    k = tl.arange(0, K)
    image, row, column = _place(p, height, width)
    total = tl.zeros((P, C), dtype=tl.float32)
    for tap in range(9):
        i = row * STRIDE + tap // 3 - 1
        j = column * STRIDE + tap % 3 - 1
        inside = (i >= 0) & (i < x_height) & (j >= 0) & (j < x_width) & (p < pixels)
        near = (image * x_height + i) * x_width + j
        a = _channels(x, near, inside, CHANNELS, K).to(w.dtype.element_ty)
        # w[c, tap, k] lies at (c·9 + tap)·CHANNELS + k.
        place = w + (c[None, :] * 9 + tap) * CHANNELS + k[:, None]
        b = tl.load(place, mask=(k < CHANNELS)[:, None], other=0.0)
        total = tl.dot(a, b, total)
    rounded = total.to(y.dtype.element_ty)
    tl.store(y + p[:, None] * C + c[None, :], rounded, mask=(p < pixels)[:, None])

    # What is outside is 0.
    number = tl.minimum(pixels - tl.program_id(0) * P, P).to(tl.float32)
    rounded = rounded.to(tl.float32)
    sums = tl.sum(rounded, axis=0)
    apart = tl.where((p < pixels)[:, None], rounded - (sums / number)[None, :], 0.0)
    place = parts + tl.program_id(0) * 2 * C + c
    tl.store(place, sums)
    tl.store(place + C, tl.sum(apart * apart, axis=0))


@triton.jit
def _place(p, height, width):
    """Image, row and column of pixels."""
    return p // (height * width), (p // width) % height, p % width


@triton.jit
def _channels(x, p, inside, CHANNELS: tl.constexpr, K: tl.constexpr):
    """x[p, :] with zeros outside, (P, K); what is beyond its CHANNELS is 0."""
    k = tl.arange(0, K)
    known = inside[:, None]
    if CHANNELS != K:
        known = known & (k < CHANNELS)[None, :]
    return tl.load(x + p[:, None] * CHANNELS + k[None, :], mask=known, other=0.0)


@triton.jit
def _mean_and_squares(
    parts, number, pixels, of_part, C: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """Mean and sum of squares around it (C,), of parts put together as Chan, Golub and LeVeque do."""
    c = tl.arange(0, C)
    count = 0.0
    mean = tl.zeros((C,), dtype=tl.float32)
    squares = tl.zeros((C,), dtype=tl.float32)
    for start in range(0, number, CHUNK):
        part = start + tl.arange(0, CHUNK)
        known = (part < number)[:, None]
        size = tl.minimum(tl.maximum(pixels - part * of_part, 0), of_part).to(tl.float32)[:, None]
        place = parts + part[:, None] * 2 * C + c[None, :]
        sums = tl.load(place, mask=known, other=0.0)
        within = tl.load(place + C, mask=known, other=0.0)
        here = tl.sum(size)
        mean_here = tl.sum(sums, axis=0) / here
        apart = sums / tl.maximum(size, 1.0) - mean_here[None, :]
        squares += tl.sum(within + size * apart * apart, axis=0)
        moved = mean_here - mean
        squares += moved * moved * (count * here / (count + here))
        mean += moved * (here / (count + here))
        count += here
    return mean, squares


@triton.jit
def normalise(
    y,
    parts,
    scale,
    weight,
    bias,
    running_mean,
    running_var,
    batches,
    momentum,
    eps,
    shortcut,
    out,
    number,
    pixels,
    each,
    height,
    width,
    x_height,
    x_width,
    STRIDE: tl.constexpr,
    BEFORE: tl.constexpr,
    CHANNELS: tl.constexpr,
    HAS_SHORTCUT: tl.constexpr,
    OF_PART: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """ReLU of the batch norm, plus every STRIDE-th pixel of CHANNELS ≤ C, with BEFORE zeros before them.

    ``parts`` is what :func:`convolution` left, of OF_PART pixels each; into ``scale`` go mean and
    1 / standard deviation, and the running statistics follow.
    """
    c = tl.arange(0, C)
    mean, squares = _mean_and_squares(parts, number, pixels, OF_PART, C, CHUNK)
    inverse = 1 / tl.sqrt(squares / pixels + eps)
    if tl.program_id(0) == 0:
        tl.store(scale + c, mean)
        tl.store(scale + C + c, inverse)
        before = tl.load(running_mean + c)
        tl.store(running_mean + c, before + momentum * (mean - before))
        before = tl.load(running_var + c)
        tl.store(running_var + c, before + momentum * (squares / (pixels - 1) - before))
        tl.store(batches, tl.load(batches) + 1)
    factor = inverse * tl.load(weight + c)
    shift = tl.load(bias + c) - mean * factor
    for tile in range(each):
        p = (tl.program_id(0) * each + tile) * P + tl.arange(0, P)
        place = p[:, None] * C + c[None, :]
        known = (p < pixels)[:, None]
        z = tl.load(y + place, mask=known, other=0.0).to(tl.float32)
        z = z * factor[None, :] + shift[None, :]
        if HAS_SHORTCUT:
            if STRIDE == 1 and CHANNELS == C:
                z += tl.load(shortcut + place, mask=known, other=0.0).to(tl.float32)
            else:
                image, row, column = _place(p, height, width)
                taken = (image * x_height + row * STRIDE) * x_width + column * STRIDE
                there = (c >= BEFORE) & (c < BEFORE + CHANNELS)
                from_there = shortcut + taken[:, None] * CHANNELS + (c - BEFORE)[None, :]
                z += tl.load(from_there, mask=known & there[None, :], other=0.0).to(tl.float32)
        z = tl.where(z <= 0, 0.0, z)  # NaN stays NaN
        tl.store(out + place, z.to(out.dtype.element_ty), mask=known)


@triton.jit
def pool_gradient(
    dfeatures, dout, out, y, scale, parts, pixels, of_image, C: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """The gradient of ``out`` from that of its mean over the pixels of each image, and its sums."""
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    known = (p < pixels)[:, None]
    d = tl.load(dfeatures + (p // of_image)[:, None] * C + c[None, :], mask=known, other=0.0)
    d = (d.to(tl.float32) / of_image).to(dout.dtype.element_ty)
    place = p[:, None] * C + c[None, :]
    tl.store(dout + place, d, mask=known)
    _sum_up(d.to(tl.float32), out, y, scale, place, known, parts, C)


@triton.jit
def gradient(
    dy,
    w,
    dx,
    beyond,
    out,
    y,
    scale,
    parts,
    pixels,
    height,
    width,
    y_height,
    y_width,
    STRIDE: tl.constexpr,
    BEFORE: tl.constexpr,
    HAS_SHORTCUT: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
):
    """The gradient of a convolution's input ``out``, plus what comes by the shortcut, and its sums."""
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.arange(0, C)
    k = tl.arange(0, K)
    image, row, column = _place(p, height, width)
    total = tl.zeros((P, C), dtype=tl.float32)
    for tap in range(9):
        i = row + 1 - tap // 3
        j = column + 1 - tap % 3
        inside = (
            (i >= 0) & (j >= 0) & (i < y_height * STRIDE) & (j < y_width * STRIDE) & (p < pixels)
        )
        if STRIDE != 1:
            inside = inside & (i % STRIDE == 0) & (j % STRIDE == 0)
        near = (image * y_height + i // STRIDE) * y_width + j // STRIDE
        a = _channels(dy, near, inside, K, K)
        b = tl.load(w + (k[:, None] * 9 + tap) * C + c[None, :])
        total = tl.dot(a, b, total)
    known = (p < pixels)[:, None]
    if HAS_SHORTCUT:
        near = (image * y_height + row // STRIDE) * y_width + column // STRIDE
        taken = known & (row % STRIDE == 0)[:, None] & (column % STRIDE == 0)[:, None]
        place = near[:, None] * K + BEFORE + c[None, :]
        total += tl.load(beyond + place, mask=taken, other=0.0).to(tl.float32)
    rounded = total.to(dx.dtype.element_ty)
    place = p[:, None] * C + c[None, :]
    tl.store(dx + place, rounded, mask=known)
    _sum_up(rounded.to(tl.float32), out, y, scale, place, known, parts, C)


@triton.jit
def _before_relu(dout, out, y, scale, place, known, C: tl.constexpr):
    """The gradient before ReLU and the normalised input (P, C), and 1 / standard deviation (1, C)."""
    c = tl.arange(0, C)
    passes = tl.load(out + place, mask=known, other=0.0).to(tl.float32) > 0
    d = tl.where(passes, dout, 0.0)
    mean, inverse = tl.load(scale + c)[None, :], tl.load(scale + C + c)[None, :]
    normed = (tl.load(y + place, mask=known, other=0.0).to(tl.float32) - mean) * inverse
    return d, normed, inverse


@triton.jit
def _sum_up(dout, out, y, scale, place, known, parts, C: tl.constexpr):
    """Of a part, sums of the gradient before ReLU, and of its products with the normalised input."""
    c = tl.arange(0, C)
    d, normed, _ = _before_relu(dout, out, y, scale, place, known, C)
    here = parts + tl.program_id(0) * 2 * C + c
    tl.store(here, tl.sum(d, axis=0))
    tl.store(here + C, tl.sum(d * normed, axis=0))


@triton.jit
def norm_backward(
    dout, out, y, scale, weight, parts, sums, dy, number, pixels, each, KEEPS: tl.constexpr,
    C: tl.constexpr, P: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The gradient of batch norm's input; where KEEPS, that before ReLU is left in ``dout``.

    Into ``sums`` (2, C) go those of all parts: the gradients of bias and weight.
    """
    c = tl.arange(0, C)
    d_sum = tl.zeros((C,), dtype=tl.float32)
    product_sum = tl.zeros((C,), dtype=tl.float32)
    for start in range(0, number, CHUNK):
        part = start + tl.arange(0, CHUNK)
        valid = (part < number)[:, None]
        here = parts + part[:, None] * 2 * C + c[None, :]
        d_sum += tl.sum(tl.load(here, mask=valid, other=0.0), axis=0)
        product_sum += tl.sum(tl.load(here + C, mask=valid, other=0.0), axis=0)
    if tl.program_id(0) == 0:
        tl.store(sums + c, d_sum)
        tl.store(sums + C + c, product_sum)
    level, slope = (d_sum / pixels)[None, :], (product_sum / pixels)[None, :]
    for tile in range(each):
        p = (tl.program_id(0) * each + tile) * P + tl.arange(0, P)
        place = p[:, None] * C + c[None, :]
        known = (p < pixels)[:, None]
        given = tl.load(dout + place, mask=known, other=0.0).to(tl.float32)
        d, normed, inverse = _before_relu(given, out, y, scale, place, known, C)
        factor = inverse * tl.load(weight + c)[None, :]
        result = factor * (d - level - normed * slope)
        tl.store(dy + place, result.to(dy.dtype.element_ty), mask=known)
        if KEEPS:
            tl.store(dout + place, d.to(dout.dtype.element_ty), mask=known)


@triton.jit
def weight_parts(
    x, dy, parts, pixels, height, width, x_height, x_width, each, STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr, K: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Σ_p dy[p, c] · x[p moved by the tap, k] as (c, tap, k): of a part of the pixels, a row of taps."""
    c = tl.arange(0, C)
    k = tl.arange(0, K)
    down = tl.program_id(1) - 1
    left = tl.zeros((C, K), dtype=tl.float32)
    middle = tl.zeros((C, K), dtype=tl.float32)
    right = tl.zeros((C, K), dtype=tl.float32)
    for tile in range(each):
        p = (tl.program_id(0) * each + tile) * P + tl.arange(0, P)
        image, row, column = _place(p, height, width)
        i, j = row * STRIDE + down, column * STRIDE
        inside = (i >= 0) & (i < x_height) & (p < pixels)
        d = tl.load(dy + p[:, None] * C + c[None, :], mask=inside[:, None], other=0.0)
        d = tl.trans(d)
        near = (image * x_height + i) * x_width + j
        a = _channels(x, near, inside, CHANNELS, K).to(d.dtype)
        middle = tl.dot(d, a, middle)
        a = _channels(x, near - 1, inside & (j > 0), CHANNELS, K).to(d.dtype)
        left = tl.dot(d, a, left)
        a = _channels(x, near + 1, inside & (j < x_width - 1), CHANNELS, K).to(d.dtype)
        right = tl.dot(d, a, right)
    place = (c[:, None] * 9 + 3 * (down + 1)) * CHANNELS + k[None, :]
    place = parts + tl.program_id(0) * 9 * C * CHANNELS + place
    known = (k < CHANNELS)[None, :] & (c >= 0)[:, None]
    tl.store(place, left, mask=known)
    tl.store(place + CHANNELS, middle, mask=known)
    tl.store(place + 2 * CHANNELS, right, mask=known)


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
