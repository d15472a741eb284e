"""A small folder of drawn images in the form that people have: no split, a long tail, unequal sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_prep import synthetic

SHAPES = ("disc", "square", "triangle", "ring", "cross", "bar")
FORMATS = (".jpg", ".png", ".webp", ".bmp")


def make(root: str | Path, images: int = 300, ratio: float = 20.0, seed: int = 0) -> Path:
    """Draw about so many images of six shapes, the first ``ratio`` times as often as the last.

    The shapes are of any colour, place, size and turn on a noisy ground; the images are 40 to 160 pixels
    wide and high, of four formats, and some lie a folder deeper. The folder is marked as made up.

    Raises
    ------
    DataError
        Where ``root`` holds other files.
    """
    root = Path(root)
    synthetic.begin(root, "Drawn shapes: nothing learnt from them is a result.\n")
    weights = ratio ** -(np.arange(len(SHAPES)) / (len(SHAPES) - 1))
    counts = np.maximum(np.rint(images * weights / weights.sum()), 1).astype(int)
    for label, (name, number) in enumerate(zip(SHAPES, counts, strict=True)):
        random = np.random.default_rng([seed, label])
        for index in range(number):
            folder = root / name / ("more" if index % 5 == 4 else "")
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}_{index:04d}{FORMATS[index % len(FORMATS)]}"
            picture(name, random).save(path)
    return root


def picture(name: str, random: np.random.Generator) -> Image.Image:
    """One shape on a noisy ground."""
    width, height = (int(side) for side in random.integers(40, 161, 2))
    ground = random.integers(40, 216, 3)
    noise = random.normal(0, 18, (height, width, 3))
    image = Image.fromarray(np.clip(ground + noise, 0, 255).astype(np.uint8))
    colour = tuple(int(level) for level in (ground + random.integers(70, 186, 3)) % 256)
    side = int(min(width, height) * random.uniform(0.35, 0.8))
    mask = Image.new("L", (side, side), 0)
    _draw(ImageDraw.Draw(mask), name, side)
    mask = mask.rotate(float(random.uniform(0, 360)), Image.Resampling.BILINEAR, expand=True)
    left = int(random.integers(0, max(width - mask.width, 0) + 1))
    top = int(random.integers(0, max(height - mask.height, 0) + 1))
    image.paste(colour, (left, top), mask)
    return image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 1))))


def _draw(pen: ImageDraw.ImageDraw, name: str, side: int) -> None:
    end, third = side - 1, side // 3
    if name == "disc":
        pen.ellipse((0, 0, end, end), fill=255)
    elif name == "square":
        pen.rectangle((0, 0, end, end), fill=255)
    elif name == "triangle":
        pen.polygon([(0, end), (end, end), (end // 2, 0)], fill=255)
    elif name == "ring":
        pen.ellipse((0, 0, end, end), outline=255, width=max(side // 6, 2))
    elif name == "cross":
        pen.rectangle((third, 0, end - third, end), fill=255)
        pen.rectangle((0, third, end, end - third), fill=255)
    else:
        pen.rectangle((0, third, end, end - third), fill=255)
