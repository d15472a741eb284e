"""What was prepared, for people: the leak in a sentence, and images before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.isic import archive
from hml_core.datasets import prepared
from hml_core.system import images


def read(root: str | Path) -> tuple[Path, dict[str, Any]]:
    """The prepared folder at or below ``root``, and its ``prepared.json``.

    Raises
    ------
    DataError
        Where there is none, or it is not as it was written.
    """
    return prepared.find(Path(root), None, lists=("classes", "class_names"))


def leak(described: dict[str, Any]) -> str:
    """How many lesions straddle the splits, and how many would, of the images that were prepared."""
    ours, naive = described["leak"]["this split"], described["leak"]["image by image"]
    return (
        f"Lesions: {ours['images_with_lesion']} of {ours['images']} images have a known one, "
        f"{ours['lesions']} in all, {ours['several_images']} of them with several images. "
        f"{ours['straddling']} straddle this split; {naive['straddling']} would straddle a split image "
        f"by image, which would show {naive['leaked_images']} images of trained lesions to validation "
        "and test."
    )


def official(described: dict[str, Any]) -> str:
    """The official sets in a sentence each; "" where there are none."""
    return " ".join(
        f"{split.replace('_', ' ').capitalize()} set: {n['images']} images, "
        + (
            f"{n['lesions']} lesions."
            if n["images_with_lesion"] == n["images"]
            else f"the lesion of {n['images_with_lesion']} of them is known."
        )
        for split, n in described.get("official", {}).items()
    )


def before_and_after(root: str | Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The first training image of each class, as shipped and as prepared: (class, uint8, uint8).

    A class without one is passed over.

    Raises
    ------
    DataError
        Where the challenge's own images are not below ``root`` any more.
    """
    folder, described = read(root)
    manifest = prepared.read_table(folder, "manifest", described, ("id", "class", "split", "file"))
    shipped = archive.read(described["archive"], root).records.set_index("id")["path"]
    first = manifest[manifest["split"] == "train"].drop_duplicates("class").set_index("class")
    pairs = []
    for name, title in zip(described["classes"], described["class_names"], strict=True):
        if name not in first.index:  # no training image of it is left
            continue
        row = first.loc[name]
        before, after = (images.load(path) for path in (shipped[row["id"]], folder / row["file"]))
        pairs.append((title, np.asarray(before), np.asarray(after)))
    return pairs
