"""A made-up archive in the official layout and formats: for tests and a first try.

A category has a colour and a pattern of its own, and a supercategory its background, so that something can
be learnt. Nothing about it is an animal or a plant: the folder is marked as synthetic.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.inaturalist.archive import ANNOTATIONS, FOLDERS
from data_prep.synthetic import begin
from hml_core.errors import ConfigError

SUPERCATEGORIES = ("Amphibia", "Aves", "Fungi", "Insecta", "Mammalia", "Plantae")
VALIDATION_IMAGES = 3  # of each category, as in the real archive


def make(
    root: str | Path,
    images: int = 400,
    *,
    categories: int = 24,
    ratio: float = 20.0,
    side: int = 80,
    seed: int = 0,
) -> Path:
    """Write about ``images`` training JPEGs, exponentially long-tailed, and three for validation of each.

    Returns
    -------
    pathlib.Path
        ``root``.

    Raises
    ------
    ConfigError
        For too few images: the rarest category needs one, the most frequent ``ratio`` times as many.
    DataError
        Where ``root`` holds files that were not made here.
    """
    weights = ratio ** -(np.arange(categories) / max(categories - 1, 1))
    counts = np.floor(images * weights / weights.sum()).astype(
        int
    )  # down: the ratio is at least that
    if counts.min() < 1:
        raise ConfigError(f"Expected more images for {categories} categories, got {images}.")
    root, random = Path(root), np.random.default_rng(seed)
    begin(root, "Made by data_prep.inaturalist.synthetic.\n")
    frequency = random.permutation(categories)  # ids are not in order of frequency
    described = [
        {
            "id": number,
            "name": f"Synthetica exempli{number:04d}",
            "supercategory": SUPERCATEGORIES[number % len(SUPERCATEGORIES)],
        }
        for number in range(categories)
    ]
    first = 1
    for split, file_name in ANNOTATIONS.items():
        listed, labels = [], []
        for category in described:
            number = counts[frequency[category["id"]]] if split == "train" else VALIDATION_IMAGES
            for _ in range(number):
                name = _write(root, category, side, random)
                size = {"width": side * 4 // 3, "height": side}
                listed.append({"id": first, "file_name": name, "license": 1, **size})
                labels.append({"id": first, "image_id": first, "category_id": category["id"]})
                first += 1
        order = random.permutation(len(listed))
        content = {
            "info": {"description": "synthetic"},
            "images": [listed[i] for i in order],
            "annotations": [labels[i] for i in order],
            "categories": described,
            "licenses": [{"id": 1, "name": "none"}],
        }
        (root / file_name).write_text(json.dumps(content))
    return root


def _write(root: Path, category: dict, side: int, random: np.random.Generator) -> str:
    encoded = io.BytesIO()
    Image.fromarray(_draw(category["id"], side, random)).save(encoded, "jpeg", quality=90)
    digest = hashlib.md5(encoded.getvalue(), usedforsecurity=False).hexdigest()
    name = f"{FOLDERS[0]}/{category['supercategory']}/{category['id']}/{digest}.jpg"
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.getvalue())
    return name


def _draw(category: int, side: int, random: np.random.Generator) -> np.ndarray:
    """uint8 (side, 4/3·side, 3): a disc with the category's stripes on its supercategory's ground."""
    height, width = side, side * 4 // 3
    own = np.random.default_rng(category)
    angle, pitch, colour = own.uniform(0, np.pi), own.uniform(4, 14), own.uniform(60, 255, 3)
    ground = np.random.default_rng(1000 + category % len(SUPERCATEGORIES)).uniform(20, 200, 3)
    y, x = np.mgrid[:height, :width]
    centre = random.uniform(0.35, 0.65, 2) * (height, width)
    inside = np.hypot(y - centre[0], x - centre[1]) < random.uniform(0.25, 0.4) * side
    wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / pitch) * 0.5 + 0.5
    image = np.where(inside[..., None], wave[..., None] * colour, ground)
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
