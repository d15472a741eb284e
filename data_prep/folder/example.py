"""A small folder of drawn images in the form that people have: no split, a long tail, unequal sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_prep import synthetic

# From the most frequent to the rarest: at the ends stand the two that a network takes for each other.
SHAPES = ("disc", "triangle", "bar", "ring", "cross", "square")
FORMATS = (".jpg", ".png", ".webp", ".bmp")


def make(root: str | Path, images: int = 3600, ratio: float = 15.0, seed: int = 0) -> Path:
    """Draw about so many images of six shapes, the first ``ratio`` times as often as the last.

    The shapes are of many colours, lighter or darker than a noisy ground, of many places and sizes, and
    turned by up to 30 degrees; the images are 40 to 160 pixels wide and high, of four formats, and some
    lie a folder deeper. A small network learns most of them in a minute (so that methods can be told
    apart) and takes the rarest for the most frequent, unless something is done about it. The folder is
    marked as made up.

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
        for path in (root / name).rglob(f"{name}_*"):  # of an earlier call that drew more
            if int(path.stem.removeprefix(f"{name}_")) >= number:
                path.unlink()
    return root


def picture(name: str, random: np.random.Generator) -> Image.Image:
    """One shape on a noisy ground."""
    across, shape = random.uniform(46, 139), random.uniform(0.87, 1.15)
    width, height = round(across * shape), round(across / shape)
    level = random.uniform(70, 185)
    ground = np.clip(level + random.normal(0, 25, 3), 0, 255)
    noise = random.normal(0, 24, (height, width, 3))
    image = Image.fromarray(np.clip(ground + noise, 0, 255).astype(np.uint8))
    contrast = random.uniform(32, 100) * (1 if level < 127 else -1)
    colour = np.clip(ground + contrast + random.normal(0, 15, 3), 0, 255)
    side = int(min(width, height) * random.uniform(0.48, 0.88))
    mask = Image.new("L", (side, side), 0)
    _draw(ImageDraw.Draw(mask), name, side)
    mask = mask.rotate(float(random.uniform(-30, 30)), Image.Resampling.BILINEAR, expand=True)
    left = int(random.integers(0, max(width - mask.width, 0) + 1))
    top = int(random.integers(0, max(height - mask.height, 0) + 1))
    image.paste(tuple(int(value) for value in colour), (left, top), mask)
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
