"""Colour constancy and crop against transcriptions of the formulas, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_prep import color_constancy, crop

SHAPES = [(8, 8), (9, 7), (31, 50), (5, 4)]


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng([height, width, seed])
    tint = np.array([0.9, 0.6, 0.4])
    return (random.integers(0, 256, (height, width, 3)) * tint).astype(np.uint8)


def half_up(x: float) -> int:
    return math.floor(x + 0.5)


def transcription(source: np.ndarray, p: float, segments: int) -> np.ndarray:
    """The formula, with loops over cells and pixels, in the authors' order of operations."""
    height, width = source.shape[:2]
    total = np.zeros(3)
    for i in range(segments):
        for j in range(segments):
            rows = range(half_up(i * height / segments), half_up((i + 1) * height / segments))
            columns = range(half_up(j * width / segments), half_up((j + 1) * width / segments))
            for c in range(3):
                power = sum(float(source[y, x, c]) ** p for y in rows for x in columns)
                total[c] += (power / (height * width / segments**2)) ** (1 / p)
    light = total / segments**2
    out = np.empty_like(source)
    for c in range(3):
        gain = math.sqrt(sum(e**2 for e in light)) / (math.sqrt(3) * light[c])
        for y in range(height):
            for x in range(width):
                out[y, x, c] = min(255, half_up(gain * float(source[y, x, c])))
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("segments", [1, 2, 4])
@pytest.mark.parametrize("p", [1, 4, 6, 2.5])
def test_shades_of_gray_is_its_formula(shape, segments, p):
    source = image(*shape)
    found = color_constancy.shades_of_gray(source, p, segments)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, transcription(source, p, segments))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("segments", [1, 2, 4])
def test_gray_world_is_its_formula_and_shades_of_gray_with_p_1(shape, segments):
    source = image(*shape)
    found = color_constancy.gray_world(source, segments)
    np.testing.assert_array_equal(found, transcription(source, 1, segments))
    np.testing.assert_array_equal(found, color_constancy.shades_of_gray(source, 1, segments))


def test_a_tint_is_removed_and_a_grey_image_left_alone():
    grey = np.repeat(np.random.default_rng(0).integers(40, 120, (20, 20, 1), np.uint8), 3, axis=2)
    np.testing.assert_array_equal(color_constancy.gray_world(grey), grey)
    tinted = (grey * np.array([1.0, 0.5, 0.25])).round().astype(np.uint8)
    means = color_constancy.gray_world(tinted).reshape(-1, 3).mean(axis=0)
    assert np.ptp(means) < 1


def test_bright_results_are_clipped_not_wrapped():
    source = np.zeros((2, 2, 3), np.uint8)
    source[..., 0], source[..., 1], source[..., 2] = 250, 250, 10
    source[0, 0, 2] = 200
    assert color_constancy.gray_world(source)[0, 0, 2] == 255


def test_a_black_channel_keeps_its_zeros_and_nothing_is_nan():
    source = image(6, 6)
    source[..., 2] = 0
    for found in (color_constancy.gray_world(source), color_constancy.shades_of_gray(source)):
        assert not found[..., 2].any()
        assert found[..., :2].any()
    black = np.zeros((6, 6, 3), np.uint8)
    np.testing.assert_array_equal(color_constancy.shades_of_gray(black), black)


def test_a_large_p_does_not_overflow():
    found = color_constancy.shades_of_gray(image(8, 8), p=300)
    brightest = found.reshape(-1, 3).max(axis=0).astype(int)
    assert np.ptp(brightest) <= 3  # p → ∞: the brightest value of every channel becomes the same


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.zeros((4, 4, 3)), {}, r"uint8 image of shape \(H, W, 3\), got float64"),
        (np.zeros((4, 4), np.uint8), {}, r"shape \(H, W, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), {}, r"shape \(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), {"segments": 3}, r"`segments` to be one of \(1, 2, 4\)"),
        (np.zeros((3, 9, 3), np.uint8), {"segments": 4}, r"at least 4×4 pixels, got 9×3"),
    ],
)
def test_bad_images_are_refused(source, options, message):
    for correct in (color_constancy.gray_world, color_constancy.shades_of_gray):
        with pytest.raises(ValueError, match=message):
            correct(source, **options)


@pytest.mark.parametrize("p", [0, 0.5, -1, math.nan, math.inf])
def test_a_bad_p_is_refused(p):
    with pytest.raises(ValueError, match="finite `p` ≥ 1"):
        color_constancy.shades_of_gray(image(4, 4), p)


@pytest.mark.parametrize(
    ("shape", "size", "expected", "corner"),
    [
        ((5, 9), None, 5, (0, 2)),
        ((9, 4), None, 4, (2, 0)),
        ((8, 5), None, 5, (1, 0)),
        ((9, 12), 4, 4, (2, 4)),
        ((9, 12), 9, 9, (0, 1)),
        ((9, 12), 10, 9, (0, 1)),
        ((1, 1), 1, 1, (0, 0)),
    ],
)
def test_the_square_is_centred_with_the_odd_pixel_after_it(shape, size, expected, corner):
    source = np.arange(shape[0] * shape[1] * 3).reshape(*shape, 3)
    found = crop.center_square(source, size)
    assert found.shape == (expected, expected, 3)
    np.testing.assert_array_equal(found[0, 0], source[corner])


def test_bad_crops_are_refused():
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, C\), got shape \(3,\)"):
        crop.center_square(np.zeros(3))
    with pytest.raises(ValueError, match="`size` ≥ 1"):
        crop.center_square(np.zeros((3, 3)), 0)
