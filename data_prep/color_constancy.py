"""Colour constancy: remove the tint of the light, so that images from several devices compare.

The illuminant e of an image is estimated from its pixels and divided out. Gray world: Buchsbaum (1980);
shades of gray: Finlayson and Trezzi (2004). Over a grid, the estimates of the cells are averaged, as in
the preprocessing of the authors of the three papers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

SEGMENTS = (1, 2, 4)


def gray_world(image: np.ndarray, segments: int = 1) -> np.ndarray:
    """Divide out the mean colour: e_c is the mean of I_c over a cell, averaged over the cells.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    segments : {1, 2, 4}
        The whole image, a 2×2 or a 4×4 grid.

    Returns
    -------
    uint8 (H, W, 3)
        round(I_c · ‖e‖₂ / (√3·e_c)), halves rounded up, clipped to 255. A channel that is black
        throughout has no light to estimate and keeps a gain of 1.

    Raises
    ------
    ValueError
        For an image that is not uint8 (H, W, 3), another grid, or fewer pixels than cells in a row.
    """
    return _correct(image, segments, lambda channel: channel, lambda mean: mean)


def shades_of_gray(image: np.ndarray, p: float = 6, segments: int = 1) -> np.ndarray:
    """Divide out the Minkowski mean colour: e_c = (mean of I_c^p)^(1/p) over a cell, averaged.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    p : float
        ≥ 1; 1 is gray world, ∞ would be the brightest pixel. 6 is Finlayson and Trezzi's choice.
    segments : {1, 2, 4}
        See :func:`gray_world`.

    Returns
    -------
    uint8 (H, W, 3)
        See :func:`gray_world`.

    Raises
    ------
    ValueError
        See :func:`gray_world`; also for p that is not a finite number ≥ 1.
    """
    if not 1 <= p < np.inf:
        raise ValueError(f"Expected a finite `p` ≥ 1, got {p}.")
    # Of values in [0, 1]: 255^p overflows for p > 128, and the scale cancels in the gain.
    return _correct(image, segments, lambda channel: channel**p, lambda mean: mean ** (1 / p))


def illuminant(
    image: np.ndarray,
    segments: int,
    before: Callable[[np.ndarray], np.ndarray],
    after: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Estimated colour of the light, float64 (3,), for values in [0, 1].

    Cells are cut at k·H/segments, rounded half up, and each cell's sum is divided by H·W/segments²,
    whatever its exact number of pixels.
    """
    height, width = image.shape[:2]
    levels = before(np.arange(256) / 255)  # one power a level, not one a pixel
    rows, columns = (
        np.floor(np.arange(segments + 1) * size / segments + 0.5).astype(int)
        for size in (height, width)
    )
    pixels = height * width / segments**2
    cells = []
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            cell = image[top:bottom, left:right].reshape(-1, 3)
            counts = [np.bincount(channel, minlength=256) for channel in cell.T]
            cells.append(after(np.array([count @ levels for count in counts]) / pixels))
    return np.mean(cells, axis=0)


def _correct(
    image: np.ndarray,
    segments: int,
    before: Callable[[np.ndarray], np.ndarray],
    after: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"Expected a uint8 image of shape (H, W, 3), got {image.dtype} of shape {image.shape}."
        )
    if segments not in SEGMENTS:
        raise ValueError(f"Expected `segments` to be one of {SEGMENTS}, got {segments!r}.")
    if min(image.shape[:2]) < segments:
        raise ValueError(
            f"Expected at least {segments}×{segments} pixels, got {image.shape[1]}×{image.shape[0]}."
        )
    light = illuminant(image, segments, before, after)
    norm = np.linalg.norm(light)
    gain = np.ones(3)
    np.divide(norm, np.sqrt(3) * light, out=gain, where=light > 0)
    # A table of 256 levels a channel: every pixel of one level gets the same result.
    table = np.floor(np.arange(256)[:, None] * gain + 0.5).clip(0, 255).astype(np.uint8)  # (256, 3)
    return np.stack([table[image[..., channel], channel] for channel in range(3)], axis=-1)
