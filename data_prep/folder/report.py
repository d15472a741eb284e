"""What was found in one's own folder, for people."""

from __future__ import annotations

import shlex
from typing import Any

from hml_core.datasets import folder
from hml_core.datasets.trees import shown

MOST_CLASSES = 12  # that are listed one by one


def lines(summary: dict[str, Any]) -> list[str]:
    """Classes with their images, sizes, formats, what was left out, notes: a line each."""
    totals = {name: sum(images.values()) for name, images in summary["images"].items()}
    names = sorted(totals, key=lambda name: -totals[name])  # JSON has put them in another order
    if len(names) > MOST_CLASSES:
        names = [*names[: MOST_CLASSES - 3], "…", *names[-2:]]
    listed = ", ".join(name if name == "…" else f"{name} {totals[name]:,}" for name in names)
    said = [f"Images a class: {listed}.", _sizes(summary)]
    if summary["left_out"]:
        said.append(f"Left out: {'; '.join(summary['left_out'])}.")
    return [*said, *summary["notes"]]


def _sizes(summary: dict[str, Any]) -> str:
    sizes, sides = summary["sizes"], summary["shorter_sides"]
    formats = ", ".join(f"{number:,} {suffix}" for suffix, number in summary["formats"].items())
    most, number = next(iter(sizes.items()))
    found = (
        f"all {most} pixels"
        if summary["different_sizes"] == 1
        else f"{summary['different_sizes']:,} sizes, most often {most} ({number:,} images), the shorter "
        f"side {sides[0]} to {sides[2]} pixels, half of them up to {sides[1]}"
    )
    return f"Sizes: {found}. Formats: {formats}."


def how_to_train(summary: dict[str, Any], squares: bool, data_root: str) -> str:
    """The next command: small squares are trained on in memory, everything else from files."""
    size, data_root = summary["size"], quoted(data_root)
    if squares and size <= folder.SMALL:
        return f"Train with: hml train --dataset small_folder --data-root {data_root} --keep-weights best"
    largest = folder.largest_image_size(size, squares)
    asked = "" if largest >= folder.IMAGE_SIZE else f" --image-size {largest}"
    return (
        f"Train with: hml train --dataset folder{asked} --data-root {data_root} --keep-weights best"
    )


def quoted(path: str) -> str:
    r"""A path as a shell takes it back, whatever is in its name.

    >>> import os
    >>> print(quoted("my photos"), quoted(os.fsdecode(b"caf\xe9")))
    'my photos' $'caf\xe9'
    """
    text = shown(path)
    if text == path:
        return shlex.quote(path)
    return "$'" + text.replace("'", "\\'") + "'"
