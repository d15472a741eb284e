"""What was found in one's own folder, for people."""

from __future__ import annotations

from typing import Any

from hml_core.datasets import folder

MOST_CLASSES = 12  # that are listed one by one


def lines(summary: dict[str, Any]) -> list[str]:
    """Classes with their images, sizes, formats, what was left out, notes: a line each."""
    totals = {name: sum(images.values()) for name, images in summary["images"].items()}
    names = list(totals)
    if len(names) > MOST_CLASSES:
        names = [*names[: MOST_CLASSES - 3], "…", *names[-2:]]
    listed = ", ".join(name if name == "…" else f"{name} {totals[name]:,}" for name in names)
    sizes = ", ".join(f"{size} ({number:,})" for size, number in summary["sizes"].items())
    more = summary["different_sizes"] - len(summary["sizes"])
    rest = f" and {more:,} other sizes" if more else ""
    formats = ", ".join(f"{number:,} {suffix}" for suffix, number in summary["formats"].items())
    said = [f"Images a class: {listed}.", f"Sizes: {sizes}{rest}. Formats: {formats}."]
    if summary["left_out"]:
        said.append(f"Left out: {'; '.join(summary['left_out'])}.")
    return [*said, *summary["notes"]]


def how_to_train(summary: dict[str, Any], crop: bool, data_root: str) -> str:
    """The next command: small squares are trained on in memory, everything else from files."""
    size = summary["size"]
    if crop and size <= folder.SMALL:
        return f"Train with: hml train --dataset small_folder --data-root {data_root} --keep-weights best"
    largest = folder.largest_image_size(size, crop)
    asked = "" if largest >= folder.IMAGE_SIZE else f" --image-size {largest}"
    return (
        f"Train with: hml train --dataset folder{asked} --data-root {data_root} --keep-weights best"
    )
