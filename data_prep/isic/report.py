"""What was prepared, for people: the leak in a sentence, and images before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from data_prep.isic import archive
from hml_core.errors import DataError


def read(root: str | Path) -> tuple[Path, dict[str, Any]]:
    """The prepared folder at or below ``root``, and its ``prepared.json``.

    Raises
    ------
    DataError
        Where there is none.
    """
    for folder in (Path(root), Path(root) / "prepared"):
        if (folder / "prepared.json").is_file():
            return folder, json.loads((folder / "prepared.json").read_text())
    raise DataError(f"Nothing was prepared in {str(root)!r}: run `hml prepare` first.")


def leak(described: dict[str, Any]) -> str:
    """How many lesions straddle the splits, and how many would, in two sentences."""
    ours, naive = described["leak"]["this split"], described["leak"]["image by image"]
    return (
        f"Lesions: {ours['lesions']} known, {ours['several_images']} of them with several images. "
        f"{ours['straddling']} straddle this split; {naive['straddling']} would straddle a split image "
        f"by image, which would show {naive['leaked_images']} images of trained lesions to validation "
        "and test."
    )


def before_and_after(root: str | Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The first training image of every class as shipped and as prepared: (class, uint8, uint8).

    Raises
    ------
    DataError
        Where the challenge's own images are not below ``root`` any more.
    """
    folder, described = read(root)
    manifest = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    shipped = archive.read(described["archive"], root).records.set_index("id")["path"]
    first = manifest[manifest["split"] == "train"].drop_duplicates("class").set_index("class")
    pairs = []
    for name, title in zip(described["classes"], described["class_names"], strict=True):
        row = first.loc[name]
        with Image.open(shipped[row["id"]]) as before, Image.open(folder / row["file"]) as after:
            pairs.append((title, *(np.asarray(image.convert("RGB")) for image in (before, after))))
    return pairs
