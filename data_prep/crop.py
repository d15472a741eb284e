"""Crop to the centre."""

from __future__ import annotations

import numpy as np


def center_square(image: np.ndarray, size: int | None = None) -> np.ndarray:
    """The largest centred square, or a centred square of ``size`` where the image is large enough.

    The first row and column are those at floor(difference / 2).

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    size : int, optional
        ≥ 1. An image that is smaller in a direction gives its largest square.

    Returns
    -------
    numpy.ndarray
        A view of the image, (S, S) or (S, S, C).

    Raises
    ------
    ValueError
        For an array without two image dimensions, an empty one, or a size below 1.

    Examples
    --------
    >>> center_square(np.arange(12).reshape(2, 6))
    array([[2, 3],
           [8, 9]])
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"Expected an image (H, W) or (H, W, C), got shape {image.shape}.")
    if size is not None and size < 1:
        raise ValueError(f"Expected `size` ≥ 1, got {size}.")
    height, width = image.shape[:2]
    side = min(height, width)
    if size is not None and side >= size:
        side = size
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
