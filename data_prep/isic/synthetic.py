"""A made-up archive in the challenges' exact form: for tests, benchmarks and a first try.

Lesions are dark blobs on skin under light of several tints; a class has its own range of size, colour
and raggedness, so that something can be learnt. Nothing about it is medical: the folder is marked as
synthetic, and every table and figure made from it says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from data_prep.isic.archive import ARCHIVES, Layout
from data_prep.synthetic import begin
from hml_core.errors import ConfigError

# Shares of the classes in the real training sets (ISIC 2018: 10,015 images; 2019: 25,331).
SHARES = {
    "isic2018": (1113, 6705, 514, 327, 1099, 115, 142),
    "isic2019": (4522, 12875, 3323, 867, 2624, 239, 253, 628, 0),
}
SKIN = np.array([224.0, 172.0, 145.0])
FEWEST = 8  # images of a class that is there at all


def make(
    name: str,
    root: str | Path,
    images: int = 300,
    *,
    side: int = 256,
    seed: int = 0,
    official: int = 0,
) -> Path:
    """Write about ``images`` synthetic JPEGs of ``side`` × 4/3·``side`` pixels with their CSV files.

    About a third of the lesions has two or three images; a tenth of the images of 2019 has no lesion id,
    as in the real metadata. ``official`` > 0 adds that many images as the official test set of 2018, with
    their lesions.

    Returns
    -------
    pathlib.Path
        ``root``.

    Raises
    ------
    ConfigError
        For an unknown challenge or too few images.
    DataError
        Where ``root`` holds files that were not made here.
    """
    if name not in ARCHIVES:
        raise ConfigError(f"Expected one of {', '.join(ARCHIVES)}, got {name!r}.")
    if images < FEWEST * len(ARCHIVES[name].classes):
        raise ConfigError(f"Expected at least {FEWEST} images a class, got {images} in all.")
    root, layout = Path(root), ARCHIVES[name]
    random = np.random.default_rng(seed)
    begin(root, "Made by data_prep.isic.synthetic: not medical images.\n")
    (root / layout.images).mkdir(parents=True, exist_ok=True)
    rows = []
    share = np.array(SHARES[name]) / sum(SHARES[name])
    for label, column in enumerate(layout.classes):
        number = max(round(images * share[label]), FEWEST) if share[label] else 0
        while number > 0:
            views = min(int(random.choice([1, 1, 2, 3])), number)
            number -= views
            lesion = Lesion(label, random)
            lesion_id = f"{'HAM' if name == 'isic2018' else 'BCN'}_{len(rows):07d}"
            for _ in range(views):
                image = f"ISIC_{24306 + len(rows):07d}"
                path = root / layout.images / f"{image}.jpg"
                Image.fromarray(lesion.draw(side, random)).save(path, quality=90)
                rows.append((image, column, lesion_id))
    frame = pd.DataFrame(rows, columns=["image", "class", "lesion_id"])
    frame = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    truth = pd.DataFrame(
        {column: (frame["class"] == column).astype(float) for column in layout.classes}
    )
    truth.insert(0, "image", frame["image"])
    folder = root / Path(layout.ground_truth).stem if name == "isic2018" else root
    folder.mkdir(exist_ok=True)
    truth.to_csv(folder / layout.ground_truth, index=False)
    _metadata(name, frame, random).to_csv(root / layout.lesions, index=False)
    if official and layout.official:
        _make_official(root, layout, official, side, np.random.default_rng([seed, 1]))
    return root


def _make_official(
    root: Path, layout: Layout, number: int, side: int, random: np.random.Generator
) -> None:
    """The official test set, with its ground truth and a table of its lesions; two images each."""
    folder, table = layout.official["official_test"]
    (root / folder).mkdir(exist_ok=True)
    rows, lesions = [], []
    for index in range(number):
        label = index // 2 % len(layout.classes)
        if index % 2 == 0:
            lesion = Lesion(label, random)
        image = f"ISIC_{34524 + index:07d}"
        Image.fromarray(lesion.draw(side, random)).save(root / folder / f"{image}.jpg", quality=90)
        rows.append((image, *(float(other == label) for other in range(len(layout.classes)))))
        lesions.append((image, f"IL_{index // 2:07d}"))
    pd.DataFrame(rows, columns=["image", *layout.classes]).to_csv(root / table, index=False)
    lesions = pd.DataFrame(lesions, columns=["image", "lesion_id"])
    lesions.to_csv(root / layout.more_lesions, index=False)


def _metadata(name: str, frame: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    if name == "isic2018":
        return frame[["image", "lesion_id"]].assign(diagnosis_confirm_type="histopathology")
    unknown = random.random(len(frame)) < 0.1
    return pd.DataFrame(
        {
            "image": frame["image"],
            "age_approx": random.integers(4, 17, len(frame)) * 5.0,
            "anatom_site_general": "anterior torso",
            "lesion_id": frame["lesion_id"].mask(unknown),
            "sex": random.choice(["female", "male"], len(frame)),
        }
    )


class Lesion:
    """One lesion, of which several images can be drawn."""

    def __init__(self, label: int, random: np.random.Generator) -> None:
        self.radius = 0.18 + 0.03 * (label % 4) + 0.02 * random.random()
        self.waves = 3 + label
        self.ragged = 0.04 + 0.05 * (label % 3) * random.random()
        hue = np.array([0.35, 0.25, 0.22]) + 0.09 * np.array([label % 3, label % 2, label % 5])
        self.colour = 255 * np.clip(hue + random.normal(0, 0.03, 3), 0.05, 0.8)
        self.phase = random.uniform(0, 2 * np.pi)

    def draw(self, side: int, random: np.random.Generator) -> np.ndarray:
        """uint8 (side, 4/3·side, 3), from another position, under another light."""
        height, width = side, side * 4 // 3
        y, x = np.mgrid[:height, :width] / side
        centre = np.array([0.5, width / side / 2]) + random.normal(0, 0.04, 2)
        angle = np.arctan2(y - centre[0], x - centre[1])
        edge = self.radius * (1 + self.ragged * np.sin(self.waves * angle + self.phase))
        inside = np.clip((edge - np.hypot(y - centre[0], x - centre[1])) * 25 + 0.5, 0, 1)
        noise = Image.fromarray(random.integers(0, 256, (height, width), dtype=np.uint8))
        texture = np.asarray(noise.filter(ImageFilter.GaussianBlur(2)), dtype=float) - 127
        light = random.uniform(0.75, 1.0, 3)
        pixels = inside[..., None] * self.colour + (1 - inside[..., None]) * SKIN
        return np.clip((pixels + texture[..., None]) * light, 0, 255).astype(np.uint8)
